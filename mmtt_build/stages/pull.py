"""Pull: what annotators submitted becomes rows, once, and what they changed or took back is noticed.

`submissions` holds all that came back. `annotations` holds what describes a forgery: repeats and controls never get
into it, so they cannot reach a release. A submission is known by its task, the server's number and the time of its last
change; a project is read from shortly before the last change that is known, and in full where the server then counts
other submissions than we do.

How long a pair was looked at, `observation_s`, is by the server's clock where the guard keeps a log: from the first
sight of the task to its submission. Without the log it is `lead_time`, which a browser claims. In both cases it is at
most the time since the same annotator's submission before, so that tabs side by side gain nothing, and at most
`lead_time`. It counts the first submission only: time is not made up for by changing an answer later.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from annotation import page, people, session, submissions, tasks
from annotation.assign import Kind
from mmtt_build.progress import Progress
from mmtt_build.stages import serve
from mmtt_build.workspace import Workspace

OVERLAP = timedelta(minutes=5)
"""Read again before the last known change: requests that overlap are not committed in the order of their times."""

_OF_ANNOTATION = ("annotation_id", "forgery_id", "description", "language", "labels", "annotator", "observation_s")


@dataclass(slots=True)
class Summary:
    """What a pull brought.

    Attributes:
        new: submissions by kind.
        changed: submissions that were known and are different now.
        deleted: submissions that are gone from the server.
        reasons: submissions that are kept and not used, by reason.
        missing: titles of projects that are not on the server; what came from them before is kept.
    """

    new: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    deleted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)


def pull(workspace: Workspace) -> Summary:
    """Brings what is new on the server into the tables.

    Args:
        workspace: whose tasks.

    Raises:
        ServerError: there is no server, or it does not do what it is asked; pulling again goes on.
    """
    connection = serve.connection(workspace)
    of_task = {row["task_id"]: row for row in workspace.tasks.read().to_pylist()}
    titles: dict[str, list[str]] = defaultdict(list)
    for row in of_task.values():
        if row["project"] not in titles[row["annotator"]]:
            titles[row["annotator"]].append(row["project"])
    with session.session(connection, "mmtt annotate pull") as client:
        found = tasks.projects(client, (title for of in titles.values() for title in of))
        known = _Known(workspace)
        total = sum(project.submitted for project in found.values()) - known.live()
        emails = session.users(client)
        known_people = people.load(serve.local(workspace, make=True).data)
        ids = {person.email: name for name, person in known_people.items()}
        names = {number: ids.get(email, f"user-{number}") for number, email in emails.items()}
        with Progress("pull", max(total, 0), "submissions") as progress:
            run = _Run(workspace, client, of_task, names, known, Summary(), progress)
            for annotator in sorted(titles):  # one annotator's work fits into memory, and has one time line
                run.take(titles[annotator], found)
    return run.summary


class _Known:
    """What is in the table: per submission its time, per project its submissions, per annotator the times."""

    def __init__(self, workspace: Workspace) -> None:
        columns = ("annotation_id", "project", "status", "annotator", "created_at", "updated_at")
        table = workspace.submissions.read(columns)
        self.state: dict[str, tuple[str, datetime]] = {}
        self.of_project: dict[str, set[str]] = defaultdict(set)
        self.latest: dict[str, datetime] = {}
        self.times: dict[str, list[datetime]] = defaultdict(list)
        for name, project, status, annotator, created, updated in zip(
            *(table[column].to_pylist() for column in columns), strict=True
        ):
            self.state[name] = (status, updated)
            if status != "deleted":
                self.of_project[project].add(name)
            self.latest[project] = max(self.latest.get(project, updated), updated)
            self.times[annotator].append(created)
        for times in self.times.values():
            times.sort()

    def live(self) -> int:
        return sum(map(len, self.of_project.values()))


@dataclass(slots=True)
class _Run:
    workspace: Workspace
    client: Any
    of_task: Mapping[str, Mapping[str, Any]]
    names: Mapping[int, str]
    known: _Known
    summary: Summary
    progress: Progress

    def take(self, titles: Iterable[str], found: Mapping[str, tasks.Found]) -> None:
        """Reads one annotator's projects and writes what is new."""
        fresh: list[tuple[str, str, submissions.Submitted]] = []
        gone: list[str] = []
        for title in titles:
            if title not in found:
                self.summary.missing.append(title)
                continue
            there = self.known.of_project[title]
            if not found[title].submitted and not there:
                continue
            since = self.known.latest[title] - OVERLAP if title in self.known.latest else None
            seen = self._read(title, found[title].number, since)
            if since is not None and len(there | set(seen)) != found[title].submitted:
                seen = self._read(title, found[title].number, None)
                gone += sorted(there - set(seen))
            fresh += [(title, name, item) for name, item in seen.items() if self._is_news(name, item)]
        if fresh or gone:
            self._write(fresh, gone)

    def _read(self, title: str, number: int, since: datetime | None) -> dict[str, submissions.Submitted]:
        found = submissions.submitted(self.client, number, since)
        return {f"{item.name if item.name in self.of_task else title}-{item.number}": item for item in found}

    def _is_news(self, name: str, item: submissions.Submitted) -> bool:
        status, updated = self.known.state.get(name, ("deleted", item.updated_at))
        return status == "deleted" or updated != item.updated_at

    def _write(self, fresh: list[tuple[str, str, submissions.Submitted]], gone: list[str]) -> None:
        seen_at: Mapping[tuple[int, int], float] = {}
        if fresh:
            seen_at = submissions.served(self.client, min(item.created_at for _, _, item in fresh) - OVERLAP)
        for _, name, item in fresh:
            if name not in self.known.state:
                insort(self.known.times[self._annotator(item)], item.created_at)
        rows = [self._row(title, name, item, seen_at.get((item.user, item.task))) for title, name, item in fresh]
        rows += self._deleted(gone)
        described = [row for row in rows if row["kind"] == Kind.PAIR]
        self._withdraw_verdicts({row["annotation_id"] for row in described})
        self.workspace.annotations.append(list(map(self._annotation, described)))
        self.workspace.submissions.append(rows)  # last: what is here is in the other tables, too
        for row in rows:
            status = row["status"]
            if status == "deleted":
                self.summary.deleted += 1
                continue
            if status != "ok":
                self.summary.reasons[row["reason"]] += 1
            if row["annotation_id"] in self.known.state:
                self.summary.changed += 1
            else:
                self.summary.new[row["kind"] or status] += 1
            self.progress.step("ok" if status == "ok" else "failed", "" if status == "ok" else row["reason"])

    def _annotator(self, item: submissions.Submitted) -> str:
        return self.names.get(item.user, f"user-{item.user}")

    def _row(self, title: str, name: str, item: submissions.Submitted, served: float | None) -> dict[str, Any]:
        task = self.of_task.get(item.name)
        annotator = self._annotator(item)
        times = self.known.times[annotator]
        at = bisect_left(times, item.created_at)
        row: dict[str, Any] = {
            "annotation_id": name,
            "task_id": item.name or None,
            "project": title,
            "annotator": annotator,
            "lead_time_s": item.lead_time_s,
            "observation_s": observation(item.created_at, times[at - 1] if at else None, served, item.lead_time_s),
            "created_at": item.created_at,
            "updated_at": item.updated_at,
            "served_at": None if served is None else datetime.fromtimestamp(served, UTC),
            "result": json.dumps(item.result, ensure_ascii=False),
        }
        if task is None:
            return row | {"status": "unknown-task", "reason": f"task of nobody's making in {title}", "kind": None}
        row |= {"kind": task["kind"], "language": task["language"]}
        try:
            answer = page.read(item.result)
        except page.BadResult as error:
            return row | {"status": "unreadable", "reason": error.message}
        return row | {
            "status": "ok",
            "answer": answer.answer,
            "description": answer.text or None,
            "labels": list(answer.labels),
            "sides": [f"{label}.{side}" for label, sides in answer.sides.items() for side in sides],
            "first": answer.first,
        }

    def _deleted(self, names: list[str]) -> list[dict[str, Any]]:
        if not names:
            return []
        gone = set(names)
        rows = self.workspace.submissions.read().to_pylist()
        return [
            row | {"status": "deleted", "reason": "deleted on the server"}
            for row in rows
            if row["annotation_id"] in gone
        ]

    def _annotation(self, row: Mapping[str, Any]) -> dict[str, Any]:
        forgery = self.of_task[row["task_id"]]["forgery_id"]
        made = {name: row.get(name) for name in _OF_ANNOTATION} | {"forgery_id": forgery, "origin": "human"}
        if row["status"] == "ok":
            return made | {"answer": row["answer"]}
        return made | {"answer": row["status"], "description": None, "labels": None}

    def _withdraw_verdicts(self, names: set[str]) -> None:
        """A verdict is on the words that it was made for: whoever changes them has none until the next audit."""
        verdicts = self.workspace.findings.read(["annotation_id", "forgery_id", "verdict"]).to_pylist()
        self.workspace.findings.append(
            [row | {"verdict": None} for row in verdicts if row["annotation_id"] in names and row["verdict"]]
        )


def observation(
    created: datetime, previous: datetime | None, served: float | None, lead_time_s: float | None
) -> float | None:
    """Seconds that a pair was looked at, as the module says; None where nothing tells.

    Args:
        created: when it was submitted, by the server's clock.
        previous: when the annotator submitted another one before it.
        served: when the guard first showed it, in seconds since 1970.
        lead_time_s: what the browser says.
    """
    claims = [] if lead_time_s is None else [lead_time_s]
    if served is not None:
        claims.append(created.timestamp() - served)
    if claims and previous is not None:
        claims.append((created - previous).total_seconds())
    return min(claims, default=None)
