"""The rules on time and length, the two that MMTT's annotation protocol states in numbers."""

from __future__ import annotations

from mmtt_build.config import Qc
from mmtt_build.records import Annotation
from qc.base import Severity, rule


@rule("text.empty", Severity.REJECT)
def empty(annotation: Annotation, thresholds: Qc) -> str | None:
    """An annotation that says it describes something has words."""
    if annotation.answer != "described" or (annotation.description or "").strip():
        return None
    return "answered 'described' without a word of description"


@rule("text.too-long", Severity.REJECT)
def too_long(annotation: Annotation, thresholds: Qc) -> str | None:
    """A description has at most `max_words` words, counted by white space as the paper does."""
    words = len((annotation.description or "").split())
    return None if words <= thresholds.max_words else f"{words} words, at most {thresholds.max_words}"


@rule("time.too-short", Severity.REJECT)
def too_short(annotation: Annotation, thresholds: Qc) -> str | None:
    """A pair was looked at for at least `min_observation_s` seconds before it was submitted."""
    seconds = annotation.observation_s
    if annotation.origin != "human":
        return None  # a scripted stand-in looks at nothing, and says so in its row
    if seconds is None:
        return f"no observation time recorded, at least {thresholds.min_observation_s:g} s"
    return (
        None
        if seconds >= thresholds.min_observation_s
        else f"{seconds:.1f} s, at least {thresholds.min_observation_s:g} s"
    )
