"""The rules on when and how long an annotator worked, and on whether the row still stands for a pair."""

from __future__ import annotations

from mmtt_build.records import Annotation
from qc.base import Context, Severity, rule


@rule("time.too-short", Severity.REJECT, "min_observation_s")
def too_short(annotation: Annotation, context: Context) -> str | None:
    """A pair was looked at for at least `min_observation_s` seconds before it was submitted.

    Seconds are those of the server's log where there is one, else what the browser says; never more than the time since
    the annotator's submission before. MMTT: one minute. A scripted stand-in looks at nothing, and says so in its row;
    and that a pair is broken can be seen at once.
    """
    seconds, least = annotation.observation_s, context.thresholds.min_observation_s
    if not _looks(annotation):
        return None
    if seconds is None:
        return f"no observation time recorded, at least {least:g} s"
    return None if seconds >= least else f"{seconds:.1f} s, at least {least:g} s"


@rule("time.too-close", Severity.REJECT, "min_observation_s")
def too_close(annotation: Annotation, context: Context) -> str | None:
    """Between two submissions of one annotator lies the time that a pair has to be looked at.

    By the server's clock alone: what a browser or a script claims about its seconds does not matter here. Two that are
    closer together were not looked at one after the other.
    """
    beside, least = context.beside, context.thresholds.min_observation_s
    if beside is None or beside.since_s is None or beside.since_s >= least or not _looks(annotation):
        return None
    return f"{beside.since_s:.1f} s after {beside.previous} by the same annotator, at least {least:g} s"


@rule("time.clock", Severity.REVIEW)
def clock(annotation: Annotation, context: Context) -> str | None:
    """Times run forwards: shown, then submitted, then perhaps changed.

    Where they do not, the server's clock was set, and its seconds are worth nothing.
    """
    shown, made, changed = annotation.served_at, annotation.created_at, annotation.updated_at
    if shown and made and shown > made:
        return f"shown at {shown:%Y-%m-%d %H:%M:%S} UTC, submitted {(shown - made).total_seconds():.1f} s before that"
    if made and changed and changed < made:
        return f"changed {(made - changed).total_seconds():.1f} s before it was submitted"
    return None


@rule("row.forgery", Severity.REJECT)
def forgery(annotation: Annotation, context: Context) -> str | None:
    """The forgery that is described is in the workspace, and is usable."""
    if context.beside is None:
        return None
    if context.beside.forgery is None:
        return f"forgery {annotation.forgery_id!r} is not in this workspace"
    status = context.beside.forgery.status
    return None if status == "ok" else f"forgery {annotation.forgery_id} cannot be used: {status}"


@rule("row.second", Severity.REVIEW)
def second(annotation: Annotation, context: Context) -> str | None:
    """A task has one answer, and an annotator describes a forgery once."""
    if context.beside is None or context.beside.other is None:
        return None
    return f"{context.beside.other} answers the same task, or is of the same forgery by the same annotator"


def _looks(annotation: Annotation) -> bool:
    return annotation.origin != "scripted" and annotation.answer != "broken-pair"
