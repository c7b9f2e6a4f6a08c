"""Receive: submissions, from a server or from a file, become rows of the tables, each of them once.

`submissions` holds all that came. `annotations` holds what describes a forgery: repeats and controls never get into it,
so they cannot reach a release. A submission is known by its task and Label Studio's number, and is news where the time
of its last change is another one.

Of several answers to one task one counts: the one of whom it was given to, and else the first. What came to a task that
was withdrawn before does not count. Both are kept, with the reason, and so is what was deleted on the server, or went
back to its annotator (`mmtt_build.stages.send_back`): the repaired text is another submission of the same task.

How long a pair was looked at, `observation_s`, is by the server's clock where the guard keeps a log: from the first
sight of the task to its submission. Without the log it is `lead_time`, which a browser claims. In both cases it is at
most the time since the same annotator's submission before, so that tabs side by side gain nothing, and at most
`lead_time`. It counts the first submission only: time is not made up for by changing an answer later.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from annotation import page
from annotation.assign import Kind
from annotation.submissions import Submitted
from mmtt_build.workspace import Workspace

SERVER, FILE = "server", "file"
HUMAN, DRAFT_EDITED = "human", "draft-edited"
GONE = "user-gone"
"""Annotator of what came after their account was deleted."""
SKEW = timedelta(minutes=5)
"""Clocks that differ by more are worth a warning."""

SENT_BACK = "sent-back"
_COUNT = ("ok", "second")
_GONE = ("deleted", SENT_BACK)
"""Not on the server any more."""
_OF_ANNOTATION = (
    "annotation_id", "description", "language", "labels", "annotator", "observation_s", "origin",
)  # fmt: skip


@dataclass(slots=True)
class Summary:
    """What came.

    Attributes:
        new: submissions by kind.
        changed: submissions that were known and are different now.
        deleted: submissions that are gone from the server, and did not go back to their annotator.
        fresh: ids of those that are new or changed, and count.
        reasons: submissions that are kept and not used, by reason.
        warnings: of submissions that are used, by what is odd about them.
        missing: titles of projects that are not on the server; what came from them before is kept.
    """

    new: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    deleted: int = 0
    fresh: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A submission on its way into the tables.

    Attributes:
        item: as it came.
        annotator: pseudonymous id of who submitted it, None where the account is deleted.
        title: of the project.
        drafted: whether it began from a model's draft.
        served: when the guard first showed the task, in seconds since 1970, or None.
        source: "server" or "file".
        label_studio: version that it came from, None where that is not known.
        page: digest of the project's page, None where that is not known.
    """

    item: Submitted
    annotator: str | None
    title: str
    drafted: bool
    served: float | None = None
    source: str = SERVER
    label_studio: str | None = None
    page: str | None = None


@dataclass(slots=True)
class _Known:
    """What the tables have of one submission."""

    project: str
    task: str | None
    status: str
    annotator: str
    drafted: bool
    source: str
    created_at: datetime
    updated_at: datetime


class Desk:
    """Where submissions come in; knows which of them are in the tables, and does not hold their words."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.summary = Summary()
        self.of_task: dict[str, dict[str, Any]] = {row["task_id"]: row for row in workspace.tasks.read().to_pylist()}
        drafts = workspace.drafts.read(["task_id", "placed_at"])
        # The editor forgets on a reload what an answer began from; whoever was shown a draft is taken to have used it.
        self._drafted = set(drafts.filter(pc.is_valid(drafts["placed_at"]))["task_id"].to_pylist())
        columns = ("annotation_id", "project", "task_id", "status", "annotator", "origin", "source", "created_at",
                   "updated_at")  # fmt: skip
        table = workspace.submissions.read(columns)
        self._known: dict[str, _Known] = {}
        self._on_task: dict[str, set[str]] = defaultdict(set)
        self._times: dict[str, list[datetime]] = defaultdict(list)
        for name, project, task, status, annotator, origin, source, created, updated in zip(
            *(table[column].to_pylist() for column in columns), strict=True
        ):
            self._known[name] = _Known(
                project, task, status, annotator, origin == DRAFT_EDITED, source or SERVER, created, updated
            )
            self._times[annotator].append(created)
            if task is not None:
                self._on_task[task].add(name)
        for times in self._times.values():
            times.sort()

    def live(self) -> dict[str, dict[str, datetime]]:
        """Per project what is in the tables from the server, and was there at the last look: the last change by id."""
        found: dict[str, dict[str, datetime]] = defaultdict(dict)
        for name, known in self._known.items():
            if known.status not in _GONE and known.source == SERVER:
                found[known.project][name] = known.updated_at
        return found

    def name(self, item: Submitted, title: str) -> str:
        """Id of a submission in the tables."""
        return f"{item.name if item.name in self.of_task else title}-{item.number}"

    def is_news(self, name: str, item: Submitted, source: str = SERVER) -> bool:
        """Whether a submission is another one than the tables have. A server knows better than a file."""
        known = self._known.get(name)
        if known is None:
            return True
        if source == FILE:
            return item.updated_at > known.updated_at
        return known.status in _GONE or known.source == FILE or known.updated_at != item.updated_at

    def expect(self, annotator: str, times: Collection[datetime]) -> None:
        """Tells when an annotator submitted what is about to come: it bounds the time spent on what came after."""
        self._times[annotator] = sorted({*self._times[annotator], *times})

    def write(self, arrivals: Sequence[Arrival], gone: Collection[str] = ()) -> None:
        """Writes what is news, and what is gone from the server.

        Args:
            arrivals: all that is news at this time of the annotators that they are of.
            gone: ids of submissions in the tables.
        """
        names = [self.name(arrival.item, arrival.title) for arrival in arrivals]
        before = {name: self._known.get(name) for name in names}
        times: dict[str, list[datetime]] = defaultdict(list)
        for name, arrival in zip(names, arrivals, strict=True):
            times[self._annotator(name, arrival)].append(arrival.item.created_at)
        for annotator, moments in times.items():
            self.expect(annotator, moments)
        rows = {name: self._row(name, arrival) for name, arrival in zip(names, arrivals, strict=True)}
        rows |= self._gone(gone)
        for name, row in rows.items():
            self._note(name, row)
        rows |= self._rank({row["task_id"] for row in rows.values() if row["kind"]}, rows)
        self._store(list(rows.values()), {name for name in rows if before.get(name, row)})
        for name, row in rows.items():
            self._count(row, name in before, before.get(name))

    def _gone(self, names: Collection[str]) -> dict[str, dict[str, Any]]:
        """Rows, as they are now, of what is gone from the server."""
        rows = self._stored(names)
        back = self.workspace.sent_back.read(["annotation_id", "status", "reasons"]).to_pylist() if rows else []
        went = {row["annotation_id"]: "; ".join(row["reasons"]) for row in back if row["status"] != "dropped"}
        return {
            name: row
            | (
                {"status": SENT_BACK, "reason": went[name]}
                if name in went
                else {"status": "deleted", "reason": "deleted on the server"}
            )
            for name, row in rows.items()
        }

    def _annotator(self, name: str, arrival: Arrival) -> str:
        if arrival.annotator is not None:
            return arrival.annotator
        return self._known[name].annotator if name in self._known else GONE

    def _row(self, name: str, arrival: Arrival) -> dict[str, Any]:
        item, known = arrival.item, self._known.get(name)
        task, annotator = self.of_task.get(item.name), self._annotator(name, arrival)
        times = self._times[annotator]
        at = bisect_left(times, item.created_at)
        drafted = arrival.drafted or item.name in self._drafted or (known is not None and known.drafted)
        row: dict[str, Any] = {
            "annotation_id": name,
            "task_id": item.name or None,
            "project": arrival.title,
            "kind": None,
            "status": "ok",
            "reason": None,
            "annotator": annotator,
            "origin": DRAFT_EDITED if drafted else HUMAN,
            "lead_time_s": item.lead_time_s,
            "observation_s": observation(
                item.created_at, times[at - 1] if at else None, arrival.served, item.lead_time_s
            ),
            "created_at": item.created_at,
            "updated_at": item.updated_at,
            "served_at": None if arrival.served is None else datetime.fromtimestamp(arrival.served, UTC),
            "source": arrival.source,
            "label_studio": arrival.label_studio,
            "page": arrival.page,
            "result": json.dumps(item.result),  # in ASCII: half a character is JSON, and no UTF-8
        }
        if task is None:
            return row | {"status": "unknown-task", "reason": f"task of nobody's making in {arrival.title}"}
        view = "blind-first" if task["blind"] else "open"
        row |= {"kind": task["kind"], "language": task["language"], "view": view}
        if task["status"] == "withdrawn" and not (known and known.status in _COUNT):
            row |= {
                "status": "withdrawn",
                "reason": f"answered after it was withdrawn: {task['reason'] or 'no reason'}",
            }
        try:
            answer = page.read(item.result)
        except page.BadResult as error:
            return row if row["reason"] else row | {"status": "unreadable", "reason": error.message}
        return row | {
            "answer": answer.answer,
            "description": _well_formed(answer.text) or None,
            "labels": list(answer.labels),
            "sides": [f"{label}.{side}" for label, sides in answer.sides.items() for side in sides],
            "first": answer.first,
        }

    def _note(self, name: str, row: Mapping[str, Any]) -> None:
        self._known[name] = _Known(
            row["project"], row["task_id"], row["status"], row["annotator"], row["origin"] == DRAFT_EDITED,
            row["source"] or SERVER, row["created_at"], row["updated_at"],
        )  # fmt: skip
        if row["task_id"] is not None:
            self._on_task[row["task_id"]].add(name)

    def _rank(self, tasks: set[str], rows: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Rows, among the new and the stored ones, that count now and did not, or the other way round."""
        turned: dict[str, tuple[str, str | None]] = {}
        for task in tasks:
            answers = [name for name in self._on_task[task] if self._known[name].status in _COUNT]
            answers.sort(key=lambda name: self._place(task, name))
            for name in answers:
                first = self._known[answers[0]]
                status = "ok" if name == answers[0] else "second"
                if self._known[name].status != status:
                    self._known[name].status = status
                    reason = None if status == "ok" else f"the answer of {first.annotator} to this task counts"
                    turned[name] = (status, reason)
        stored = self._stored(set(turned) - set(rows))
        return {
            name: {**rows.get(name, stored.get(name, {})), "status": status, "reason": reason}
            for name, (status, reason) in turned.items()
        }

    def _place(self, task: str, name: str) -> tuple[bool, datetime, str]:
        known = self._known[name]
        return known.annotator != self.of_task[task]["annotator"], known.created_at, name

    def _stored(self, names: Collection[str]) -> dict[str, dict[str, Any]]:
        if not names:
            return {}
        table = self.workspace.submissions.read()
        found = table.filter(pc.is_in(table["annotation_id"], pa.array(sorted(names), pa.string())))
        return {row["annotation_id"]: row for row in found.to_pylist()}

    def _store(self, rows: Sequence[Mapping[str, Any]], known_before: Collection[str]) -> None:
        described = [row for row in rows if row["kind"] == Kind.PAIR]
        names = pa.array([row["annotation_id"] for row in described], pa.string())
        there = self.workspace.annotations.keys() if described else pa.chunked_array([[]], pa.string())
        known = set(there.filter(pc.is_in(there, names)).to_pylist())
        # What never counted stays out; what did and does no more is in there to say so.
        made = [
            self._annotation(row)
            for row in described
            if row["status"] not in ("second", "withdrawn") or row["annotation_id"] in known
        ]
        self._withdraw_verdicts(known_before)
        self.workspace.annotations.append(made)
        self.workspace.submissions.append(rows)  # last: what is here is in the other tables, too

    def _annotation(self, row: Mapping[str, Any]) -> dict[str, Any]:
        forgery = self.of_task[row["task_id"]]["forgery_id"]
        made = {name: row.get(name) for name in _OF_ANNOTATION} | {"forgery_id": forgery}
        if row["status"] == "ok":
            return made | {"answer": row["answer"]}
        return made | {"answer": row["status"], "description": None, "labels": None}

    def _withdraw_verdicts(self, names: Collection[str]) -> None:
        """A verdict is on the words that it was made for: whoever changes them has none until the next audit."""
        if not names:
            return
        verdicts = self.workspace.findings.read(["annotation_id", "forgery_id", "verdict"]).to_pylist()
        self.workspace.findings.append(
            [row | {"verdict": None} for row in verdicts if row["annotation_id"] in names and row["verdict"]]
        )

    def _count(self, row: Mapping[str, Any], came: bool, before: _Known | None) -> None:
        summary, status = self.summary, row["status"]
        if status in _GONE:
            summary.deleted += status == "deleted"
            return
        if status == "ok":
            summary.fresh.append(row["annotation_id"])
        else:
            summary.reasons[row["reason"]] += 1
        if came and before is None:
            summary.new[row["kind"] or status] += 1
        elif not came or (before and (before.status, before.updated_at) != (status, row["updated_at"])):
            summary.changed += 1
        if row["created_at"] > datetime.now(UTC) + SKEW:
            summary.warnings["submitted in the future: this clock and the server's differ"] += 1
        if row["served_at"] and row["served_at"] > row["created_at"]:
            summary.warnings["shown after it was submitted: the server's clock was set back"] += 1


def observation(
    created: datetime, previous: datetime | None, served: float | None, lead_time_s: float | None
) -> float | None:
    """Seconds that a pair was looked at, as the module says; None where nothing tells.

    Args:
        created: when it was submitted, by the server's clock.
        previous: when the annotator submitted another one before it.
        served: when the guard first showed it, in seconds since 1970; later than `created` it says nothing.
        lead_time_s: what the browser says.
    """
    claims = [] if lead_time_s is None else [max(0.0, lead_time_s)]
    if served is not None and served <= created.timestamp():
        claims.append(created.timestamp() - served)
    if claims and previous is not None:
        claims.append((created - previous).total_seconds())
    return min(claims, default=None)


def _well_formed(text: str) -> str:
    """A text with the sign for a lost character where it has half of one, which no table can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
