"""Each rule on words and times with a row that passes and one that does not; verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation import guard
from mmtt_build.config import Qc
from mmtt_build.records import Annotation
from qc import base
from qc.base import Finding, Severity
from qc.spelling import count

GOOD = Annotation(
    id="a-1",
    forgery_id="warp-0",
    answer="described",
    description="The left eye is larger than the right one.",
    language="en",
    labels=tuple(int(i == 0) for i in range(21)),
    annotator="ann-03",
    observation_s=75.0,
    origin="human",
)


def found(annotation: Annotation, thresholds: Qc | None = None) -> dict[str, str]:
    return {finding.rule: finding.message for finding in base.audit(annotation, thresholds or Qc())}


def test_a_good_annotation_passes_every_rule() -> None:
    assert found(GOOD) == {}


@pytest.mark.parametrize("text", [None, "", " \n\t"])
def test_empty(text: str | None) -> None:
    assert "without a word" in found(replace(GOOD, description=text))["text.empty"]
    assert found(replace(GOOD, description=text, answer="nothing-visible", labels=None)) == {}


def test_too_long_counts_words_by_white_space() -> None:
    assert "text.too-long" not in found(replace(GOOD, description="well-known " * 120))
    assert found(replace(GOOD, description="word " * 121))["text.too-long"] == "121 words, at most 120"
    assert found(GOOD, Qc(max_words=5))["text.too-long"] == "9 words, at most 5"


def test_a_chinese_character_is_a_word() -> None:
    assert "text.too-long" not in found(replace(GOOD, language="zh", description="左眼模糊，" * 30))
    assert (
        found(replace(GOOD, language="zh", description="左眼模糊，" * 31))["text.too-long"] == "124 words, at most 120"
    )


@given(st.text(st.sampled_from("ab 眼鼻，。、！１Ａ\u3000\t-.,\u200b\U00020000"), max_size=40))
def test_words_are_counted_as_the_page_counts_them(text: str) -> None:
    assert count(text) == guard.words(text)


def test_a_text_too_short_to_say_anything() -> None:
    assert found(replace(GOOD, description="nose bad"))["text.too-short"] == "2 words, at least 3"
    assert "text.too-short" not in found(replace(GOOD, description="nose is bad"))
    assert "text.too-short" not in found(replace(GOOD, description="nose bad"), Qc(min_words=2))


def test_no_part() -> None:
    assert found(replace(GOOD, description="The whole face is blurred.")) == {
        "text.no-part": "names none of the 21 parts"
    }
    assert found(replace(GOOD, language="de", description="Das ganze Gesicht wirkt unscharf.")) == {}


@pytest.mark.parametrize(
    "text",
    [
        "El ojo izquierdo de la mujer es demasiado grande y la nariz está borrosa.",
        "Das linke Auge der Frau ist zu groß und die Nase wirkt unscharf.",
        "女子的左眼比右眼大，鼻子模糊。",
        "Левый глаз женщины слишком большой, нос размыт.",
        "..... 12 34 56 78 90 ....",
    ],
)
def test_another_language(text: str) -> None:
    assert "text.language" in found(replace(GOOD, description=text))
    assert "text.language" in found(
        replace(GOOD, language="zh", description="The left eye is larger than the right one.")
    )
    assert "text.language" not in found(replace(GOOD, language="zh", description="女子的左眼比右眼大，鼻子模糊。"))


def test_no_labelled_sentence_is_taken_for_another_language() -> None:
    for line in (Path(__file__).parent / "descriptions.jsonl").read_text("utf-8").splitlines():
        sentence = json.loads(line)
        assert "text.language" not in found(
            replace(GOOD, language=sentence["language"], description=sentence["text"])
        ), sentence["text"]


def test_the_recipe_decides_on_the_language() -> None:
    assert "text.language" in {f.rule for f in base.audit(GOOD, Qc(), "zh")}
    assert base.audit(replace(GOOD, language="zh"), Qc(), "en") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Looking at the original image, the nose is wider.", "original image"),
        ("The nose is wider than in the LEFT PICTURE.", "LEFT PICTURE"),
        ("与原图相比，鼻子更宽。", "原图"),
        ("The nose is wider than the original\u200f.", "than the original"),
    ],
)
def test_the_original_image(text: str, words: str) -> None:
    (finding,) = [f for f in base.audit(replace(GOOD, description=text), Qc()) if f.rule == "text.original"]
    assert [text[start:end] for start, end in finding.spans] == [words]
    assert finding.message == f"speaks of the original image: {words!r} at {text.index(words)}"


def test_original_is_also_an_ordinary_word() -> None:
    assert "text.original" not in found(replace(GOOD, description="The nose does not look as in a real photo."))
    assert "text.original" not in found(
        replace(GOOD, description="The nose has lost its original shape; its left side is flat.")
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The nose is wide, ask ann.b+x@example.org why.", ["ann.b+x@example.org"]),
        (
            "The nose is wide, see https://example.org/a?b=1 and www.example.com",
            ["https://example.org/a?b=1", "www.example.com"],
        ),
        ("The nose is wide, call +49 (030) 1234-5678 now", ["+49 (030) 1234-5678"]),
        ("The nose is wide like that of @somebody_else", ["@somebody_else"]),
        ("鼻子太宽，电话13812345678。", ["13812345678"]),
    ],
)
def test_personal_data(text: str, words: list[str]) -> None:
    (finding,) = [f for f in base.audit(replace(GOOD, description=text), Qc()) if f.rule == "text.personal"]
    assert [text[start:end] for start, end in finding.spans] == words


def test_measures_are_no_personal_data() -> None:
    text = "The nose is 12.5 px too wide, at 512 x 512, about 3.5-4.0 % of the face.The left eye is 10/12 of the right."
    assert "text.personal" not in found(replace(GOOD, description=text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The nose is wide, this looks like Brad Pitt.", "Brad Pitt"),
        ("The nose of Mrs Miller is wide and flat.", "Mrs Miller"),
        ("His chin looks like Obama and is too sharp.", "Obama"),
        ("The chin of a famous person is too sharp.", "famous person"),
        ("鼻子像某位明星，太宽。", "明星"),
    ],
)
def test_names(text: str, words: str) -> None:
    (finding,) = [f for f in base.audit(replace(GOOD, description=text), Qc()) if f.rule == "text.name"]
    assert [text[start:end] for start, end in finding.spans] == [words]


@pytest.mark.parametrize(
    "text",
    [
        "The Left Eye Is Blurred And The Nose Looks Painted.",
        "The woman's Left Eye is blurred. The Nose looks painted.",
        "The nose looks like Plastic. Her Skin Tone is grey.",
        "THE LEFT EYE IS BLURRED AND THE NOSE LOOKS LIKE WAX",
    ],
)
def test_capitals_are_no_names(text: str) -> None:
    assert "text.name" not in found(replace(GOOD, description=text))


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert('nose')</script>",
        "=cmd|' /C calc'!A0",
        "\x00\x01\u202e",
        "\ud83d lone",
        "😀" * 50,
        "nose " * 50_000,
        "{} {0} %s",
    ],
)
def test_no_text_breaks_a_rule(text: str) -> None:
    for annotation in (replace(GOOD, description=text), replace(GOOD, description=text, language=None)):
        for finding in base.audit(annotation, Qc()):
            assert all(0 <= start < end <= len(text) for start, end in finding.spans)


@pytest.mark.parametrize("piece", ["a@", "1 ", "www.", "looks like A", "Aa ", "original ", "@a", "http://", "(1-"])
def test_a_long_text_of_anything_is_judged(piece: str) -> None:
    text = piece * (250_000 // len(piece))
    assert "text.too-long" in found(replace(GOOD, description=text + " x" * 121))


def test_too_short() -> None:
    assert "time.too-short" not in found(replace(GOOD, observation_s=60.0))
    assert found(replace(GOOD, observation_s=59.9))["time.too-short"] == "59.9 s, at least 60 s"
    assert "no observation time" in found(replace(GOOD, observation_s=None))["time.too-short"]
    assert found(replace(GOOD, observation_s=None, origin="scripted")) == {}


def test_verdict_is_the_severest_consequence() -> None:
    def of(*severities: Severity) -> str:
        return base.verdict(Finding("r", severity, "m") for severity in severities)

    assert of() == "accept"
    assert of(Severity.INFO) == "accept"
    assert of(Severity.INFO, Severity.REVIEW) == "review"
    assert of(Severity.REVIEW, Severity.REJECT, Severity.INFO) == "reject"


def test_a_rule_name_is_taken_once() -> None:
    base.audit(GOOD, Qc())
    with pytest.raises(ValueError, match="registered twice"):
        base.rule("text.empty", Severity.INFO)(lambda annotation, thresholds: None)
    assert all(rule.description.endswith(".") for rule in base.RULES.values())
