"""Copied words: who is found, who is not, the rules, and texts that are meant to break it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from mmtt_build.config import Qc
from mmtt_build.records import Annotation
from qc import base, copies
from qc.base import Beside, Copied

PARTS = ["eye", "eyebrow", "nose", "mouth", "cheek", "forehead", "chin", "jaw", "ear", "lip", "hair", "skin"]
FAULTS = [
    "blurred", "too smooth", "asymmetric", "distorted", "too bright", "darker than its surroundings", "misaligned",
    "unnaturally sharp", "smeared", "too large", "too small", "slightly rotated", "of another colour",
]  # fmt: skip
PLACES = [
    "near the edge",
    "at the border",
    "in the lower half",
    "towards the hair",
    "at its outer corner",
    "in the middle",
]
FRAMES = [
    "The {part} is {fault}.", "The {part} looks {fault} {place}.", "I notice that the {part} is {fault} and {other}.",
    "There is something wrong {place} of the {part}, it is {fault}.", "{place} the {part} appears {fault}.",
    "The skin around the {part} is {fault} {place}.", "It seems {fault} at the {part}.",
]  # fmt: skip
LONG = (
    "Around the left nostril the pores stop at a jagged contour, and whatever lies beyond it has the waxy sheen of a "
    "candle that somebody has held too close to a radiator."
)
Row = tuple[str, str, str]


def honest(number: int, annotators: int, sentences: tuple[int, int] = (1, 4)) -> list[Row]:
    """Descriptions of people who have few words and use them freely."""
    draw = random.Random(5)

    def sentence() -> str:
        part = draw.choice(PARTS)
        side = draw.choice(("left ", "right ")) if part in ("eye", "eyebrow", "cheek", "ear") else ""
        fault, other = draw.sample(FAULTS, 2)
        return draw.choice(FRAMES).format(part=side + part, fault=fault, other=other, place=draw.choice(PLACES))

    return [
        (f"a-{i}", f"ann-{draw.randrange(annotators)}", " ".join(sentence() for _ in range(draw.randint(*sentences))))
        for i in range(number)
    ]


def found(*rows: Row, language: str | None = "en", **thresholds: float) -> dict[str, tuple[Copied, ...]]:
    return copies.find(rows, Qc(**thresholds), language)  # type: ignore[arg-type]


def test_the_same_words_whatever_their_case_marks_and_space() -> None:
    other = LONG.upper().replace(",", "  -").replace(".", "!")
    assert found(("a", "x", LONG), ("b", "x", other)) == {"b": (Copied("same", "a", "x"),)}
    assert found(("a", "x", LONG), ("b", "x", LONG.replace("left", "right").replace("candle", "lamp") * 2)) == {}


def test_one_s_own_words_come_before_another_s() -> None:
    got = found(("a", "x", LONG), ("b", "y", LONG), ("c", "y", LONG), ("d", "z", LONG))
    assert got == {
        "b": (Copied("same", "a", "x"),),
        "c": (Copied("same", "b", "y"),),
        "d": (Copied("same", "a", "x"),),
    }


def test_short_texts_are_no_copies() -> None:
    assert found(("a", "x", "Ghostly vermilion crescent rim."), ("b", "x", "Ghostly vermilion crescent rim.")) == {}
    assert "b" in found(
        ("a", "x", "A ghostly vermilion crescent rim."), ("b", "x", "A ghostly vermilion crescent rim.")
    )


def test_near_copies() -> None:
    near = LONG.replace("jagged", "ragged").replace("waxy", "greasy")
    (copied,) = found(("a", "x", LONG), ("b", "y", near))["b"]
    assert (copied.kind, copied.of, copied.by) == ("near", "a", "x")
    assert copied.similarity == pytest.approx(1 - 2 / len(LONG.split()))
    assert found(("a", "x", LONG), ("b", "y", near), near_duplicate=0.98) == {}
    rewritten = " ".join(word if i % 4 else "new" for i, word in enumerate(LONG.split()))
    assert found(("a", "x", LONG), ("b", "y", rewritten)) == {}


def test_a_sentence_that_is_used_again_and_again() -> None:
    rows = honest(300, 1)
    habit = "Whatever I look at in this picture seems to have been repainted by somebody in a hurry."
    for i in range(0, 200, 20):
        rows[i] = (*rows[i][:2], f"{rows[i][2]} {habit}")
    got = found(*rows)
    assert sorted(got) == sorted(f"a-{i}" for i in range(20, 200, 20)), "the first use is no repetition"
    (copied,) = got["a-40"]
    assert (copied.kind, copied.of, copied.by, copied.uses) == ("template", "a-0", "ann-0", 10)
    assert rows[40][2][slice(*copied.span or ())] == habit.rstrip(".")
    assert found(*rows, template_uses=11) == {}


def test_texts_that_differ_in_the_part_only() -> None:
    text = "Around the {} I see a strong transition, and what it is made of looks as if painted by hand."
    names = ["left eye", "nose", "right eyebrow", "mouth", "chin", "jaw", "hair", "forehead", "left ear", "cheek"]
    rows = [(f"a-{i}", "x", text.format(name)) for i, name in enumerate(names)]
    got = found(*rows)
    assert {name: [c.uses for c in copied if c.kind == "template"] for name, copied in got.items()} == {
        f"a-{i}": [10] for i in range(1, 10)
    }
    assert not any(c.kind == "template" for copied in found(*rows[:9]).values() for c in copied)


def test_a_short_description_for_everything() -> None:
    rows = honest(300, 1)
    short = "The left eye is blurred."
    few = [(*row[:2], short) if i % 30 == 0 else row for i, row in enumerate(rows)]
    many = [(*row[:2], short) if i % 10 == 0 else row for i, row in enumerate(rows)]
    assert found(*few) == {}
    assert Counter(c.kind for copied in found(*many).values() for c in copied) == {"template": 29}


def test_who_says_it_in_few_words_is_no_copyist() -> None:
    got = found(*honest(20_000, 2))
    assert len(got) <= 10, f"{len(got)} of 20,000"


def test_copies_among_texts_of_few_words_are_found() -> None:
    rows = honest(5_000, 20, (3, 6))
    draw = random.Random(1)
    copied = {}
    for i, of in zip(draw.sample(range(1000, 5000), 200), draw.sample(range(1000), 200), strict=True):
        words = rows[of][2].split()
        if i % 2:
            words[draw.randrange(len(words))] = "strangely"
        rows[i] = (*rows[i][:2], " ".join(words))
        copied[f"a-{i}"] = "near" if i % 2 else "same"
    got = found(*rows)
    assert {name: got[name][0].kind for name in copied if name in got} == copied
    assert set(got) == set(copied)


def test_a_text_pasted_with_one_word_changed_is_no_usual_text() -> None:
    words = LONG.split()
    draw = random.Random(2)
    rows = []
    for i in range(500):
        changed = words.copy()
        changed[draw.randrange(len(words))] = f"word{i}"
        rows.append((f"a-{i}", "x", " ".join(changed)))
    assert len(found(*rows)) >= 495


def test_the_same_rows_give_the_same_copies() -> None:
    rows = honest(2_000, 3)
    rows += [(f"b-{i}", "ann-1", text) for i, (_, _, text) in enumerate(rows[:500])]
    assert found(*rows) == found(*rows) != {}


def test_chinese() -> None:
    text = "女子的左眼比右眼大一些，鼻梁两侧的阴影方向不一致，嘴角的纹理像是重新画过的。"
    got = found(
        ("a", "x", text), ("b", "x", text.replace("，", ", ")), ("c", "y", text.replace("画", "涂")), language="zh"
    )
    assert {name: copied[0].kind for name, copied in got.items()} == {"b": "same", "c": "near"}


@pytest.mark.parametrize(
    "text",
    ["", " \n", "😀" * 1000, "\u200b\ud800\x00", "a" * 1_000_000, "nose eye " * 111_111, "<b " * 333_333,
     "鼻" * 300_000, ".\n" * 100_000, "A\u0301" * 50_000, "'" * 9],
)  # fmt: skip
def test_whatever_is_sent_in(text: str) -> None:
    got = found(("a", "x", text), ("b", "y", text), ("c", "y", LONG), language=None)
    assert set(got) <= {"b"}


def test_all_texts_equal() -> None:
    got = found(*((f"a-{i}", f"x-{i % 30}", LONG) for i in range(20_000)))
    assert len(got) == 19_999
    assert {c.kind for copied in got.values() for c in copied} == {"same"}


def test_nothing() -> None:
    assert found() == {}


# --- rules ------------------------------------------------------------------------------------------------------------


def judged(*copied: Copied, text: str = LONG) -> dict[str, base.Finding]:
    annotation = Annotation("a-2", "f-2", "described", text, "en", (1,) * 21, "x", 75.0, "human")
    findings = base.audit(annotation, Qc(), beside=Beside(copied=copied))
    return {finding.rule: finding for finding in findings if finding.rule.startswith("copy.")}


def test_a_description_of_one_s_own_passes() -> None:
    assert judged() == {}


def test_copy_same() -> None:
    got = judged(Copied("same", "a-1", "x"))
    assert [(f.severity, f.message) for f in got.values()] == [
        ("reject", "the same words as a-1 by the same annotator")
    ]


def test_copy_other() -> None:
    got = judged(Copied("same", "a-1", "y"))
    assert {name: (f.severity, f.message) for name, f in got.items()} == {
        "copy.other": ("review", "the same words as a-1 by y")
    }


def test_copy_near() -> None:
    got = judged(Copied("near", "a-1", "y", 0.935))
    assert {name: f.message for name, f in got.items()} == {
        "copy.near": "93.5% the words of a-1 by y, a copy from 90% on"
    }


def test_copy_template() -> None:
    got = judged(Copied("template", "a-1", "x", uses=12, span=(0, 23)))["copy.template"]
    assert got.spans == ((0, 23),)
    assert "a sentence of 12 descriptions by the same annotator, first a-1: 'Around the left nostril" in got.message
    assert "but for the parts" in judged(Copied("template", "a-1", "x", uses=12))["copy.template"].message
