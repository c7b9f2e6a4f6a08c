"""How far annotators are, from the tables alone: as of the last pull."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from mmtt_build.workspace import Workspace

PAUSE_S = 900.0
"""A longer gap between two submissions is a break, and no part of the pace."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an annotator is with a batch, as of the last pull.

    Attributes:
        annotator: pseudonymous id.
        batch: its number.
        project: title on the server.
        tasks: in it.
        done: of these.
        today: done since midnight, by this machine's time zone.
        per_hour: pace of the annotator over all batches, breaks left out; None before the second submission.
        hours_left: of work at this pace; None without a pace.
        last: time of the last submission, ISO 8601, or None.
    """

    annotator: str
    batch: int
    project: str
    tasks: int
    done: int
    today: int
    per_hour: float | None
    hours_left: float | None
    last: str | None


def standing(workspace: Workspace, now: datetime | None = None) -> list[Standing]:
    """How far everybody is with every batch, from the tables alone."""
    midnight = (now or datetime.now(UTC)).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    columns = ("annotator", "batch", "project", "task_id")
    table = workspace.tasks.read(columns)
    batch_of: dict[str, tuple[str, int, str]] = {}
    sizes: Counter[tuple[str, int, str]] = Counter()
    for annotator, batch, project, task in zip(*(table[column].to_pylist() for column in columns), strict=True):
        batch_of[task] = (annotator, batch, project)
        sizes[annotator, batch, project] += 1
    came = workspace.submissions.read(["task_id", "status", "created_at"]).to_pylist()
    done: dict[tuple[str, int, str], dict[str, datetime]] = defaultdict(dict)
    for row in came:
        if row["status"] == "ok":  # of two for one task the first counts
            of = done[batch_of[row["task_id"]]]
            of[row["task_id"]] = min(of.get(row["task_id"], row["created_at"]), row["created_at"])
    times: dict[str, list[datetime]] = defaultdict(list)
    for (annotator, _, _), of in done.items():
        times[annotator] += of.values()
    paces = {annotator: _per_hour(sorted(moments)) for annotator, moments in times.items()}
    rows = []
    for key in sorted(sizes):
        annotator, batch, project = key
        moments, pace = list(done[key].values()), paces.get(annotator)
        rows.append(
            Standing(
                annotator, batch, project, sizes[key], len(moments), sum(moment >= midnight for moment in moments),
                pace, (sizes[key] - len(moments)) / pace if pace else None,
                max(moments).isoformat() if moments else None,
            )
        )  # fmt: skip
    return rows


def _per_hour(times: list[datetime]) -> float | None:
    gaps = [(b - a).total_seconds() for a, b in pairwise(times)]
    worked = [gap for gap in gaps if gap <= PAUSE_S]
    return 3600 * len(worked) / sum(worked) if sum(worked) else None
