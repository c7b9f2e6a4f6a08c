"""The rules on annotators: each with a profile that passes and one that does not, and what profiles are made of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from scipy.stats import binomtest

from mmtt_build.config import Qc
from qc.agreement import Agreement
from qc.annotators import Burst, Profile, bursts, interval, thirds, variety
from qc.base import Subject, judge

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
GOOD = Profile(
    "ann-03", submissions=300, descriptions=280, judged=300, rejected=30, repeats=30, controls=30, false_claims=3,
    per_hour=21.5, words=30.0, recent_words=1000, different_words=210, thirds=((100, 10), (100, 8), (100, 12)),
    agreement=Agreement(30, 0.7),
)  # fmt: skip


def found(profile: Profile, thresholds: Qc | None = None) -> dict[str, str]:
    qc = thresholds or Qc()
    return {finding.rule: finding.message for finding in judge(Subject.ANNOTATOR, profile, qc, qc)}


def test_a_good_annotator_passes_every_rule() -> None:
    assert found(GOOD) == {}


def test_one_who_has_only_begun_passes_every_rule() -> None:
    begun = Profile(
        "ann-04", 19, 19, 19, 19, 0, 19, 19, 19, 500.0, bursts=(Burst(START, START, 19),), recent_words=400,
        different_words=2, thirds=((6, 0), (7, 7), (6, 6)), agreement=Agreement(19, -0.5),
    )  # fmt: skip
    assert found(begun) == {}
    assert len(found(begun, Qc(min_judged=10))) == 7
    assert found(Profile("ann-05"), Qc(min_judged=1)) == {}


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        ("pace", {"per_hour": 55.2}, "55 submissions an hour, at most 40"),
        (
            "bursts",
            {"bursts": (Burst(START, START + timedelta(minutes=3), 12),)},
            "bursts of submissions: 12 on 2026-03-02 from 09:00 UTC in 3.0 min, at least 60 s each",
        ),
        (
            "vocabulary",
            {"different_words": 99},
            "99 different words among the last 1,000 (9.9%), at least 10%",
        ),
        ("rejected", {"rejected": 61}, "61 of 300 rejected (20.3%), at most 20%"),
        (
            "controls",
            {"false_claims": 15},
            "traces described on 15 of 30 untouched pairs (33% to 67% with 95 % certainty), at most 20%",
        ),
        ("agreement", {"agreement": Agreement(20, 0.39)}, "alpha 0.39 with the others on 20 pairs, at least 0.4"),
        (
            "drift",
            {"thirds": ((100, 5), (100, 10), (100, 25))},
            "rejected share rose from 5.0% (5 of 100) in the first third to 25.0% (25 of 100) in the last, "
            "by at most 15%",
        ),
    ],
)
def test_each_rule(rule: str, changes: dict[str, object], message: str) -> None:
    assert found(replace(GOOD, **changes)) == {f"annotator.{rule}": message}  # type: ignore[arg-type]


def test_few_controls_do_not_condemn() -> None:
    assert found(replace(GOOD, controls=20, false_claims=6)) == {}, "30 %, but 15 % to 52 %"
    assert "annotator.controls" in found(replace(GOOD, controls=200, false_claims=60))


def test_a_rise_that_may_be_chance_is_no_drift() -> None:
    assert found(replace(GOOD, thirds=((10, 1), (10, 1), (10, 3)))) == {}
    assert found(replace(GOOD, thirds=((100, 30), (100, 0), (100, 0)))) == {}, "getting better is none"


def test_the_interval_is_wilson_s() -> None:
    for count, of in ((0, 20), (3, 20), (20, 20), (60, 200)):
        expected = binomtest(count, of).proportion_ci(method="wilson")
        assert interval(count, of) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_bursts() -> None:
    def after(*minutes: float) -> list[datetime]:
        return [START + timedelta(minutes=m) for m in minutes]

    steady = after(*range(0, 100, 1))
    assert bursts(steady, 60) == ()
    nine = after(*(i / 10 for i in range(9)))
    assert bursts(nine, 60) == ()
    twelve = after(*(i / 10 for i in range(12)))
    later = after(*(600 + i / 10 for i in range(15)))
    assert bursts([*twelve, *later], 60) == (Burst(later[0], later[-1], 15), Burst(twelve[0], twelve[-1], 12))
    assert bursts([START] * 10, 0) == ()


def test_variety_is_of_the_last_words() -> None:
    assert variety([]) == (0, 0)
    assert variety(["The left eye, the LEFT ear."]) == (6, 4)
    assert variety(["same " * 400] * 4) == (1000, 1)
    assert variety(["new words here", "old " * 2000]) == (1000, 4)
    assert variety(["左眼模糊，左眼"]) == (6, 4)


def test_thirds() -> None:
    assert thirds([True, False, False, True, True, True, True]) == ((2, 1), (2, 1), (3, 3))
    assert thirds([]) == ((0, 0), (0, 0), (0, 0))
