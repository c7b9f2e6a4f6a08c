"""The matcher against sentences with labelled mentions, and against texts that nobody should send."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtt_build.errors import ConfigError
from mmtt_build.parts import LABELS
from qc import lexicon, official
from qc.mentions import Mention, labels, mentions

SENTENCES = [
    json.loads(line) for line in (Path(__file__).parent / "descriptions.jsonl").read_text("utf-8").splitlines()
]
"""Sets, each written before the matcher was tried on it; "first" is what it was made with.

"pairs" and "frames" say one thing after the other of the same two parts, and of one.
"""


@dataclass
class Score:
    """Counts over sentences by label, and over mentions by what is said of them."""

    right: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    mentions: int = 0
    places: int = 0
    sides: int = 0
    denials: int = 0
    denied: Counter[tuple[bool, bool]] = field(default_factory=Counter)

    def add(self, expected: list[Mention], seen: list[Mention]) -> None:
        named, wanted = set(labels(seen)), set(labels(expected))
        self.right.update(named & wanted)
        self.found.update(named)
        self.there.update(wanted)
        at = {(mention.label, mention.start): mention for mention in seen}
        for mention in expected:
            match = at.get((mention.label, mention.start))
            self.mentions += 1
            if match:
                self.places += match.end == mention.end
                self.sides += match.side == mention.side
                self.denials += match.negated == mention.negated
                self.denied[mention.negated, match.negated] += 1

    def table(self, other: Score) -> str:
        lines = ["label      sentences  precision  recall   official: precision  recall"]
        for label in LABELS:
            mine, theirs = self.of(label), other.of(label)
            ours = f"{label:<10} {self.there[label]:>9}  {mine[0]:>9.3f}  {mine[1]:>6.3f}"
            lines.append(f"{ours}   {theirs[0]:>19.3f}  {theirs[1]:>6.3f}")
        return "\n".join(lines)

    def of(self, label: str) -> tuple[float, float]:
        """Precision and recall."""
        right = self.right[label]
        return right / self.found[label] if self.found[label] else 0.0, right / self.there[label]

    def f1_of_denied(self) -> float:
        right = 2 * self.denied[True, True]
        return right / (right + self.denied[True, False] + self.denied[False, True])


def scored(official_rule: bool = False) -> Score:
    score = Score()
    for row in SENTENCES:
        expected = [Mention(**mention) for mention in row["mentions"]]
        score.add(expected, official.mentions(row["text"]) if official_rule else mentions(row["text"]))
    return score


def test_precision_and_recall_of_every_label(capsys: pytest.CaptureFixture[str]) -> None:
    score = scored()
    counts = f"places {score.places}, sides {score.sides}, denials {score.denials} right"
    with capsys.disabled():
        sys.stdout.write(f"\n{score.table(scored(official_rule=True))}\n")
        sys.stdout.write(f"{len(SENTENCES)} sentences, {score.mentions} mentions: {counts}\n")
    assert len(SENTENCES) >= 3500
    for label in LABELS:
        assert min(score.of(label)) >= 0.97, label
    assert min(score.places, score.sides, score.denials) >= 0.97 * score.mentions
    assert score.f1_of_denied() >= 0.97


def test_short_sentences_word_for_word() -> None:
    lines = (Path(__file__).parent / "phrases.txt").read_text("utf-8").splitlines()[1:]
    wrong = []
    for line in lines:
        text, _, expected = line.partition(" || ")
        found = [m.label + (f".{m.side}" if m.side else "") + "!" * m.negated for m in mentions(text)]
        if found != expected.split(","):
            wrong.append(f"{line}: {found}")
    assert len(lines) > 200
    assert len(wrong) <= 0.04 * len(lines), "\n".join(wrong)


def test_the_sentences_are_marked_where_their_words_are() -> None:
    for row in SENTENCES:
        for mention in row["mentions"]:
            assert row["text"][mention["start"] : mention["end"]].strip(" ,.") != ""
            assert mention["label"] in LABELS
    assert {row["language"] for row in SENTENCES} == {"en", "zh"}


def seen(text: str) -> list[tuple[str, str | None, bool]]:
    return [(m.label, m.side, m.negated) for m in mentions(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("brows", "eyebrow"),
        ("hairline", "hair"),
        ("bangs", "hair"),
        ("a lock of hair", "hair"),
        ("jawline", "jaw"),
        ("eyelid", "eye"),
        ("iris", "eye"),
        ("sclera", "eye"),
        ("cheekbone", "cheek"),
        ("nostril", "nose"),
        ("bridge of the nose", "nose"),
        ("stubble", "beard"),
        ("goatee", "beard"),
        ("facial hair", "beard"),
        ("fine lines", "wrinkle"),
        ("crow's feet", "wrinkle"),
        ("laugh lines", "wrinkle"),
        ("creases", "wrinkle"),
        ("complexion", "skin"),
        ("skin tone", "skin"),
        ("lips", "lip"),
        ("mouth", "mouth"),
    ],
)
def test_the_conventions(text: str, expected: str) -> None:
    assert labels(mentions(text)) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "neck, earring, eyelash, temple",
        "a contour, a seam, a border, a blending line",
        "frontal light on the head",
        "strands of evidence",
        "eye-catching, face to face, tongue-in-cheek, jaw-dropping, ear-splitting, mouth-watering",
        "scarce scarf, nosey skinny earl, chinese brown highbrow",
        "lip service, tooth and nail, by the skin of, a hair's breadth",
        "visible to the naked eye",
        "戴着眼镜和耳环，边缘有锯齿，必须一眼看出，额外发黑",
    ],
)
def test_terms_that_are_no_part(text: str) -> None:
    assert mentions(text) == []


def test_misspelled_parts_and_words_that_only_look_so() -> None:
    wrong = "forhead eyeborw moustahce nostirl hairlne cheekbne jawlnie dimpels tounge theeth mouht"
    right = "forehead eyebrow mustache nose hair cheek jaw dimple tongue tooth mouth"
    assert [m.label for m in mentions(wrong)] == right.split()
    assert mentions("checks completion deadlock dumpling simples pimples scared creates stumble airline") == []
    assert labels(mentions("one eye brown, the other blue")) == ["eye"]


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("left eye", "left"),
        ("the eye on the left", "left"),
        ("both eyes", "both"),
        ("left and right eyebrows", "both"),
        ("his right-hand cheek", "right"),
        ("the eyes differ, especially the left one", "left"),
        ("the left corner of the mouth", "left"),
        ("left of the nose", None),
        ("it left the nose as it was", None),
        ("right above the eye", None),
        ("both the nose and the mouth", None),
        ("the nose is bent to the left", None),
        ("the cheek is darker on the right side", "right"),
        ("左侧的眉毛", "left"),
        ("双眼", "both"),
    ],
)
def test_sides(text: str, side: str | None) -> None:
    assert mentions(text)[0].side == side


@pytest.mark.parametrize(
    ("text", "negated"),
    [
        ("the nose looks natural", True),
        ("no flaw in the ears", True),
        ("unlike the mouth", True),
        ("nothing wrong with the nose", True),
        ("without touching the chin", True),
        ("the lips are missing", True),
        ("no eyebrows", True),
        ("the nose is not blurred", True),
        ("the nose is not natural", False),
        ("the nose does not match the face", False),
        ("the nose is not blurred enough to be real", False),
        ("the nose looks natural but is too wide", False),
        ("everything is fine except the nose", False),
        ("the skin lacks texture", False),
        ("the eyebrows are barely visible", False),
        ("the nose does not differ from the original", True),
        ("wrinkles that were absent from the original", False),
        ("apart from the ears, no area is sharp", True),
        ("not a pixel of the lips is sharp", False),
        ("there is hardly an eyelid that is not smeared", False),
        ("ears ok nose odd", True),
        ("okay - ears, hair", True),
        ("everything looks right apart from the lips", False),
        ("all is fake; the ears are the only exception", True),
        ("the suspicion about the jaw is unfounded", True),
        ("鼻子没有异常", True),
        ("鼻子不自然", False),
        ("没有眉毛", True),
        ("鼻子没有对齐", False),
        ("五官都模糊，只有鼻子例外", True),
        ("原图有胡子，假图里一根都不剩", True),
        ("眉毛的质感看不出来", False),
        ("酒窝被处理掉了", True),
    ],
)
def test_denials(text: str, negated: bool) -> None:
    assert mentions(text)[0].negated is negated


def test_positions_survive_folding() -> None:
    text = "ＬＥＦＴ \u200feye\u200f; ﬁne ‘brow’\u00ad; ½ é\u0301 “nose’s” tip 😀 İris 皺紋"
    found = [text[m.start : m.end] for m in mentions(text, "en")]
    assert found == ["eye", "brow", "nose’s” tip", "İris"]
    assert mentions(text, "en")[0].side == "left"
    text = "皮膚有皺紋，頭髮"
    assert [text[m.start : m.end] for m in mentions(text)] == ["皮膚", "皺紋", "頭髮"]


def test_markup_is_no_text() -> None:
    text = "<p class='nose'>The <b>left</b>&nbsp;<i>ear</i></p> <img alt=eye> 1 < 2"
    assert seen(text) == [("ear", "left", False)]


def test_the_language_goes_by_the_script_and_can_be_said() -> None:
    assert labels(mentions("鼻子 nose")) == ["nose"]
    assert [m.start for m in mentions("鼻子 nose", "en")] == [3]
    with pytest.raises(ConfigError, match="no lexicon of the language 'fr'"):
        mentions("nez", "fr")


@pytest.mark.parametrize("language", lexicon.LANGUAGES)
def test_every_lexicon_has_all_labels_and_cues(language: str) -> None:
    terms = lexicon.load(language).terms
    assert {term.label for term in terms.values() if term.kind == lexicon.PART and term.label} == set(LABELS)
    # Verbs of fitting and doing, the 的 and 和, and the finer kinds are not in every language.
    needed = set(lexicon.KINDS.values()) - set("FDeESW2ZQYifyHXtb0;+")
    assert needed <= {term.kind for term in terms.values()}


PIECES = [
    "nose", "left", "right", "both", "eyes", "no", "not", "is", "looks", "natural", "blurred", "missing", "unlike",
    "the", "of", "and", ",", ".", "but", "one", "side", "very", "on", "with", "flaw", "as do", "which", "x",
    "自然", "鼻子", "没有",
]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=60).map(" ".join)),
    st.sampled_from([None, "en", "zh"]),
)
def test_any_text_has_an_answer_in_order_and_within_it(text: str, language: str | None) -> None:
    found = mentions(text, language)
    assert [m.start for m in found] == sorted(m.start for m in found)
    for m in found:
        assert 0 <= m.start < m.end <= len(text)
        assert m.side in (None, "left", "right", "both")


LONG = [
    "nose ", "no ", "not a ", "left ", "blurred ", "very ", "the left eye is not blurred, ", "eyes, the right one ",
    "<", "没有", "\u202enose", "is ", "unlike the nose ", "untouched nose or ", "A", " - ", "\x00", "on the left ",
    "if the nose is ", "neither two ", "nose bulges w, ", "an edge of the nose is sharp ",
]  # fmt: skip


@pytest.mark.parametrize("piece", LONG)
def test_a_long_text_of_anything_has_an_answer(piece: str) -> None:
    """Quadratic time would show here as a test that never ends."""
    text = piece * (250_000 // len(piece))
    assert all(m.end <= len(text) for m in mentions(text))
