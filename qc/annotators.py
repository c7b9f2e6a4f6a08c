"""An annotator's work as a whole: what was counted of it, and the rules on it.

Nobody is judged by few answers: every rule waits for `min_judged`, and where a share is drawn from a sample it speaks
of what is certain (95 %, Wilson's interval), not of what chance may have brought.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import sqrt
from statistics import NormalDist

from mmtt_build.config import Qc
from qc.agreement import Agreement
from qc.base import Severity, Subject, rule
from qc.spelling import fold

BURST = 10
"""So many submissions in less than the time that they take are a burst."""
WORDS = 1000
"""The last words whose variety is measured."""
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Burst:
    """Submissions that nobody can have looked at one after the other.

    Attributes:
        start: time of the first, UTC.
        end: of the last.
        count: how many.
    """

    start: datetime
    end: datetime
    count: int


@dataclass(frozen=True, slots=True)
class Profile:
    """What was counted of one annotator. Scripted answers are nobody's, and are not in it.

    Attributes:
        annotator: pseudonymous id.
        submissions: that count, of pairs, repeats and controls.
        descriptions: of these, with words.
        judged: of the submissions, with a verdict.
        rejected: of these.
        review: of these.
        repeats: answers on pairs of others.
        controls: answers on untouched pairs.
        false_claims: of these, with traces described.
        per_hour: pace with breaks left out, or None before the second submission.
        observation_s: median seconds from the pair being shown to the submission, or None.
        bursts: the fullest first.
        words: mean of a description's, or None.
        recent_words: the last ones whose variety was measured, `WORDS` at most.
        different_words: of these.
        thirds: judged and rejected of the first, the second and the last third of the work.
        hours: submissions by hour of day, UTC, 24 numbers.
        agreement: with the others on repeats.
        first: time of the first submission, or None.
        last: of the last one.
    """

    annotator: str
    submissions: int = 0
    descriptions: int = 0
    judged: int = 0
    rejected: int = 0
    review: int = 0
    repeats: int = 0
    controls: int = 0
    false_claims: int = 0
    per_hour: float | None = None
    observation_s: float | None = None
    bursts: tuple[Burst, ...] = ()
    words: float | None = None
    recent_words: int = 0
    different_words: int = 0
    thirds: tuple[tuple[int, int], ...] = ()
    hours: tuple[int, ...] = (0,) * 24
    agreement: Agreement = field(default_factory=Agreement)
    first: datetime | None = None
    last: datetime | None = None


def bursts(times: Sequence[datetime], least_s: float) -> tuple[Burst, ...]:
    """Runs of `BURST` submissions or more, each `BURST` of them in less than the time that they take to look at.

    Args:
        times: in their order.
        least_s: seconds that one is looked at.
    """
    fits = (BURST - 1) * least_s
    found: list[tuple[int, int]] = []
    for last in range(BURST - 1, len(times)):
        first = last - BURST + 1
        if (times[last] - times[first]).total_seconds() >= fits:
            continue
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    runs = (Burst(times[first], times[last], last - first + 1) for first, last in found)
    return tuple(sorted(runs, key=lambda burst: (-burst.count, burst.start)))


def variety(latest_first: Iterable[str]) -> tuple[int, int]:
    """Words that were measured, `WORDS` at most, and how many of them are different; a Chinese character is a word."""
    words: list[str] = []
    for text in latest_first:
        words += (word for word in fold(text[: 10 * WORDS]).words[0] if word[0].isalnum())
        if len(words) >= WORDS:
            break
    return len(words[:WORDS]), len(set(words[:WORDS]))


def thirds(rejected: Sequence[bool]) -> tuple[tuple[int, int], ...]:
    """Judged and rejected of each third of an annotator's verdicts, in their order."""
    count = len(rejected)
    pieces = (rejected[count * i // 3 : count * (i + 1) // 3] for i in range(3))
    return tuple((len(piece), sum(piece)) for piece in pieces)


def interval(count: float, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, `of` being positive."""
    share, z = count / of, _Z
    middle = share + z * z / (2 * of)
    half = z * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, (middle - half) / (1 + z * z / of)), min(1.0, (middle + half) / (1 + z * z / of))


@rule("annotator.pace", Severity.REVIEW, "max_per_hour", "min_judged", subject=Subject.ANNOTATOR)
def pace(profile: Profile, thresholds: Qc) -> str | None:
    """An annotator submits at most `max_per_hour` an hour, breaks left out. MMTT's submitted about 20."""
    if profile.submissions < thresholds.min_judged or (profile.per_hour or 0) <= thresholds.max_per_hour:
        return None
    return f"{profile.per_hour:.0f} submissions an hour, at most {thresholds.max_per_hour:g}"


@rule("annotator.bursts", Severity.REVIEW, "min_observation_s", "min_judged", subject=Subject.ANNOTATOR)
def in_bursts(profile: Profile, thresholds: Qc) -> str | None:
    """No ten submissions come in less time than it takes to look at ten pairs for `min_observation_s` each."""
    if profile.submissions < thresholds.min_judged or not profile.bursts:
        return None
    named = [
        f"{burst.count} on {burst.start:%Y-%m-%d} from {burst.start:%H:%M} UTC in "
        f"{(burst.end - burst.start).total_seconds() / 60:.1f} min"
        for burst in profile.bursts[:3]
    ]
    more = f" and {len(profile.bursts) - 3} more" if len(profile.bursts) > 3 else ""
    return f"bursts of submissions: {', '.join(named)}{more}, at least {thresholds.min_observation_s:g} s each"


@rule("annotator.vocabulary", Severity.REVIEW, "min_vocabulary", "min_judged", subject=Subject.ANNOTATOR)
def vocabulary(profile: Profile, thresholds: Qc) -> str | None:
    """Of an annotator's last 1,000 words at least `min_vocabulary` are different ones."""
    if profile.descriptions < thresholds.min_judged or not profile.recent_words:
        return None
    share = profile.different_words / profile.recent_words
    if share >= thresholds.min_vocabulary:
        return None
    return (
        f"{profile.different_words} different words among the last {profile.recent_words:,} ({share:.1%}), "
        f"at least {thresholds.min_vocabulary:.0%}"
    )


@rule("annotator.rejected", Severity.REVIEW, "max_rejected", "min_judged", subject=Subject.ANNOTATOR)
def rejected(profile: Profile, thresholds: Qc) -> str | None:
    """At most a share of `max_rejected` of an annotator's answers is rejected."""
    if profile.judged < thresholds.min_judged or profile.rejected <= thresholds.max_rejected * profile.judged:
        return None
    return (
        f"{profile.rejected} of {profile.judged} rejected ({profile.rejected / profile.judged:.1%}), "
        f"at most {thresholds.max_rejected:.0%}"
    )


@rule("annotator.controls", Severity.REVIEW, "max_false_claims", "min_judged", subject=Subject.ANNOTATOR)
def controls(profile: Profile, thresholds: Qc) -> str | None:
    """On untouched pairs an annotator describes traces in a share of at most `max_false_claims`.

    Controls are few: what counts is the lower end of the share's 95 % interval.
    """
    if profile.controls < thresholds.min_judged:
        return None
    low, high = interval(profile.false_claims, profile.controls)
    if low <= thresholds.max_false_claims:
        return None
    return (
        f"traces described on {profile.false_claims} of {profile.controls} untouched pairs "
        f"({low:.0%} to {high:.0%} with 95 % certainty), at most {thresholds.max_false_claims:.0%}"
    )


@rule("annotator.agreement", Severity.REVIEW, "min_agreement", "min_judged", subject=Subject.ANNOTATOR)
def agreement(profile: Profile, thresholds: Qc) -> str | None:
    """On repeats an annotator agrees with the others: Krippendorff's alpha of at least `min_agreement`."""
    found = profile.agreement
    if found.units < thresholds.min_judged or found.alpha is None or found.alpha >= thresholds.min_agreement:
        return None
    return f"alpha {found.alpha:.2f} with the others on {found.units} pairs, at least {thresholds.min_agreement:g}"


@rule("annotator.drift", Severity.REVIEW, "max_drift", "min_judged", subject=Subject.ANNOTATOR)
def drift(profile: Profile, thresholds: Qc) -> str | None:
    """From the first to the last third of an annotator's work the rejected share rises by at most `max_drift`.

    Only a rise that is certain counts: the 95 % interval of the difference (Newcombe 1998) lies above zero.
    """
    if profile.judged < max(thresholds.min_judged, 3):
        return None
    (judged, bad), _, (judged_last, bad_last) = profile.thirds
    before, after = bad / judged, bad_last / judged_last
    sure = (
        after
        - before
        - sqrt((after - interval(bad_last, judged_last)[0]) ** 2 + (interval(bad, judged)[1] - before) ** 2)
    )
    if after - before <= thresholds.max_drift or sure <= 0:
        return None
    return (
        f"rejected share rose from {before:.1%} ({bad} of {judged}) in the first third to {after:.1%} "
        f"({bad_last} of {judged_last}) in the last, by at most {thresholds.max_drift:.0%}"
    )
