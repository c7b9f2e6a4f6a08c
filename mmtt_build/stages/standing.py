"""How far annotators are, from the tables alone: as of the last pull or import."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from mmtt_build.workspace import Workspace

PAUSE_S = 900.0
"""A longer gap between two submissions is a break, and no part of the pace."""

_Key = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an annotator is with a batch, as of the last pull.

    Attributes:
        annotator: pseudonymous id; "all" in the totals.
        batch: its number; in the totals how many there are.
        project: title on the server; "" in the totals.
        tasks: in it, without withdrawn ones.
        done: of these.
        today: done since midnight, by this machine's time zone.
        repair: done, and rejected by the last audit: waiting to be done better.
        per_hour: pace of the annotator over all batches, breaks left out; None before the second submission. In the
            totals the mean of who has a pace.
        hours_left: of work at this pace; None without a pace. In the totals of the annotator who has most left.
        last: time of the last submission, ISO 8601, or None.
    """

    annotator: str
    batch: int
    project: str
    tasks: int
    done: int
    today: int
    repair: int
    per_hour: float | None
    hours_left: float | None
    last: str | None


def standing(workspace: Workspace, now: datetime | None = None) -> list[Standing]:
    """How far everybody is with every batch, from the tables alone."""
    midnight = (now or datetime.now(UTC)).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    columns = ("annotator", "batch", "project", "task_id", "status")
    table = workspace.tasks.read(columns)
    batch_of: dict[str, _Key] = {}
    sizes: Counter[_Key] = Counter()
    for annotator, batch, project, task, status in zip(*(table[name].to_pylist() for name in columns), strict=True):
        if status != "withdrawn":
            batch_of[task] = (annotator, batch, project)
            sizes[annotator, batch, project] += 1
    rejected = set(workspace.findings.keys(verdict="reject").to_pylist())
    done: dict[_Key, list[datetime]] = defaultdict(list)
    repair: Counter[_Key] = Counter()
    for row in workspace.submissions.read(["annotation_id", "task_id", "status", "created_at"]).to_pylist():
        if row["status"] == "ok" and row["task_id"] in batch_of:
            key = batch_of[row["task_id"]]
            done[key].append(row["created_at"])
            repair[key] += row["annotation_id"] in rejected
    times: dict[str, list[datetime]] = defaultdict(list)
    for (annotator, _, _), of in done.items():
        times[annotator] += of
    paces = {annotator: per_hour(sorted(moments)) for annotator, moments in times.items()}
    return [
        Standing(
            key[0], key[1], key[2], sizes[key], len(done[key]), sum(at >= midnight for at in done[key]), repair[key],
            paces.get(key[0]), _hours(sizes[key] - len(done[key]), paces.get(key[0])),
            max(done[key]).isoformat() if done[key] else None,
        )
        for key in sorted(sizes)
    ]  # fmt: skip


def totals(rows: list[Standing]) -> Standing:
    """All rows in one."""
    paces = {row.annotator: row.per_hour for row in rows if row.per_hour}
    left: Counter[str] = Counter()
    for row in rows:
        left[row.annotator] += row.tasks - row.done
    hours = [hours for name, pace in paces.items() if (hours := _hours(left[name], pace)) is not None]
    return Standing(
        "all", len(rows), "", sum(row.tasks for row in rows), sum(row.done for row in rows),
        sum(row.today for row in rows), sum(row.repair for row in rows),
        sum(paces.values()) / len(paces) if paces else None, max(hours, default=None),
        max((row.last for row in rows if row.last), default=None),
    )  # fmt: skip


def _hours(tasks: int, per_hour: float | None) -> float | None:
    return tasks / per_hour if per_hour else None


def per_hour(times: Sequence[datetime]) -> float | None:
    """Pace over submissions in their order, breaks left out; None before the second one."""
    gaps = [(b - a).total_seconds() for a, b in pairwise(times)]
    worked = [gap for gap in gaps if gap <= PAUSE_S]
    return 3600 * len(worked) / sum(worked) if sum(worked) else None
