"""What an annotator is told of each rule, in each language of the page."""

from __future__ import annotations

import string
import tomllib
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest

from annotation import repair
from annotation.page import LANGUAGES
from mmtt_build.config import Qc
from mmtt_build.parts import label_vector
from mmtt_build.records import Annotation, Forged
from qc import base, regions
from qc.base import Beside, Copied, Subject

ROW = Annotation("a-1", "warp-0", "described", "The left eye is blurred.", "en", None, "ann-03", 75.0, "human")
COVER = tuple(
    None if label == "ear" else 0.8 if (label, side) in (("eye", ""), ("eye", "left")) else 0.0
    for label, side in regions.SLOTS
)
FORGED = Forged("warp-0", "ok", cover=COVER)
BESIDE = Beside(FORGED)
RULES = [rule.name for rule in base.load_rules(Subject.ANNOTATION)]


def told(rule: str, language: str = "en", thresholds: Qc | None = None, beside: Beside = BESIDE, **changes: Any) -> str:
    """The one sentence on what a rule finds."""
    qc = thresholds or Qc()
    row = replace(ROW, language=language, **changes)
    findings = [base.row_of(finding) for finding in base.audit(row, qc, language, beside)]
    (sentence,) = repair.reasons([one for one in findings if one["rule"] == rule], row.description, qc, language)
    return sentence


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_rule_has_a_sentence_of_its_own(language: str) -> None:
    assert {"text.empty", "row.forgery", "copy.other"} < set(RULES)
    sentences = {}
    for rule in RULES:
        finding = {"rule": rule, "severity": "reject", "message": "of nobody", "spans": []}
        (sentences[rule],) = repair.reasons([finding], None, Qc(), language)
        assert "nobody" not in sentences[rule], "a finding's own words name ids and shares"
    assert len(set(sentences.values())) == len(RULES)


def test_no_sentence_is_of_a_rule_that_there_is_not_and_languages_say_alike() -> None:
    text = resources.files("annotation.page").joinpath("repair.toml").read_text("utf-8")
    fields = {
        language: {
            rule: {name for _, name, _, _ in string.Formatter().parse(sentence) if name}
            for rule, sentence in table["rules"].items()
        }
        for language, table in tomllib.loads(text).items()
    }
    assert set(fields) == set(LANGUAGES)
    for of in fields.values():
        assert (set(of), of) == (set(RULES), fields["en"])


def test_words_and_parts_are_named() -> None:
    ticked = {"labels": tuple(label_vector(["eye", "nose"])), "sides": ("eye.left", "eye.right")}
    assert told("labels.out-of-mask", **ticked) == (
        "You ticked “right eye”, “nose”, which the forged region does not touch. "
        "In ticks left and right are the person's own."
    )
    assert told("labels.out-of-mask", "zh", description="左眼模糊。", **ticked) == (
        "您勾选了“右侧眼睛”、“鼻子”，但伪造区域没有碰到它。勾选时左右指人物自己的左右。"
    )
    lips = tuple(label_vector(["lip"]))
    assert told("labels.text", labels=lips) == (
        "The parts that you ticked are not those that you wrote about: “lip”, “eye”."
    )
    ears = {"labels": tuple(label_vector(["ear"])), "sides": ("ear.left",)}
    assert told("mention.no-such-part", **ears) == (
        "You wrote about or ticked “left ear”, which the picture does not show."
    )
    assert told("mention.no-such-part", description="The right ear is blurred.", **ears) == (
        "You wrote about or ticked “right ear”, “left ear”, which the picture does not show."
    )
    assert told("mention.no-such-part", description="The left ear is blurred.", **ears) == (
        "You wrote about or ticked “left ear”, which the picture does not show."
    )
    assert told("answer.nothing-visible", answer="nothing-visible", labels=lips) == (
        "You said that nothing is visible, and yet ticked or described “eye”, “lip”."
    )


def test_sides_are_those_of_the_recipe() -> None:
    text = {"description": "The right cheek is blurred."}
    begins = "You wrote about “right cheek”, which the forged region does not touch. "
    assert told("mention.out-of-mask", **text) == f"{begins}Left and right are the person's own."
    assert told("mention.out-of-mask", thresholds=Qc(sides="viewer"), **text) == (
        f"{begins}Left and right are those of the picture."
    )


def test_seconds_are_named_and_others_are_not() -> None:
    assert told("time.too-short", observation_s=12.0).endswith("at least 60 s before you submit.")
    copied = (Copied("same", "t-77", "ann-09"), Copied("near", "t-78", "ann-09", 0.95))
    beside = Beside(FORGED, "t-76", 5.0, copied, "t-79")
    for rule in ("time.too-close", "copy.other", "copy.near", "row.second"):
        for language in LANGUAGES:
            sentence = told(rule, language, beside=beside)
            assert not any(name in sentence for name in ("t-7", "ann-", "control", "repeat"))
