"""The rules on when an answer was given, and on whether its row still stands for a pair."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mmtt_build.config import Qc
from mmtt_build.records import Annotation, Forged
from qc import base
from qc.base import Beside

MADE = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
GOOD = Annotation(
    id="a-1", forgery_id="warp-0", answer="described", description="The left eye is larger than the right one.",
    language="en", labels=None, annotator="ann-03", observation_s=75.0, origin="human",
    created_at=MADE, updated_at=MADE, served_at=MADE - timedelta(seconds=75),
)  # fmt: skip
BESIDE = Beside(Forged("warp-0", "ok"), previous="a-0", since_s=80.0)


def found(annotation: Annotation = GOOD, beside: Beside = BESIDE, thresholds: Qc | None = None) -> dict[str, str]:
    return {finding.rule: finding.message for finding in base.audit(annotation, thresholds or Qc(), "en", beside)}


def test_a_good_row_passes() -> None:
    assert found() == found(beside=replace(BESIDE, previous=None, since_s=None)) == {}


def test_two_submissions_closer_together_than_the_minimum() -> None:
    close = replace(BESIDE, since_s=12.34)
    assert found(beside=close) == {"time.too-close": "12.3 s after a-0 by the same annotator, at least 60 s"}
    assert found(beside=close, thresholds=Qc(min_observation_s=10)) == {}
    assert found(replace(GOOD, origin="scripted"), close) == {}


def test_a_broken_pair_is_seen_at_once() -> None:
    broken = replace(GOOD, answer="broken-pair", description=None, observation_s=4.0)
    assert found(broken, replace(BESIDE, since_s=5.0)) == {}
    assert set(found(replace(broken, answer="nothing-visible"))) == {"time.too-short"}


def test_a_clock_that_runs_backwards() -> None:
    later = MADE + timedelta(seconds=30)
    message = "shown at 2026-05-04 10:00:30 UTC, submitted 30.0 s before that"
    assert found(replace(GOOD, served_at=later)) == {"time.clock": message}
    earlier = MADE - timedelta(seconds=5)
    assert found(replace(GOOD, updated_at=earlier)) == {"time.clock": "changed 5.0 s before it was submitted"}
    assert found(replace(GOOD, updated_at=later)) == {}


def test_a_forgery_that_is_not_there_or_cannot_be_used() -> None:
    gone = "forgery 'warp-0' is not in this workspace"
    assert found(beside=replace(BESIDE, forgery=None)) == {"row.forgery": gone}
    assert found(beside=replace(BESIDE, forgery=Forged("warp-0", "its base is excluded"))) == {
        "row.forgery": "forgery warp-0 cannot be used: its base is excluded"
    }


def test_a_second_answer() -> None:
    assert "a-0 answers the same task" in found(beside=replace(BESIDE, other="a-0"))["row.second"]


def test_a_severity_is_the_recipes_to_say() -> None:
    second = replace(BESIDE, other="a-0")
    (finding,) = base.audit(GOOD, Qc(severity={"row.second": "reject"}), "en", second)
    assert finding.severity == base.Severity.REJECT
    assert found(beside=second, thresholds=Qc(severity={"row.second": "off"})) == {}
