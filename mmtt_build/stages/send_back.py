"""Send back: rejected answers return to who gave them, with the reasons in plain words.

First a row `pending`, then the server, then `sent`, and last the tables of answers: whatever is killed, the next run or
pull finishes. The old answer keeps its row in `submissions`, words and all, as `sent-back`; what its annotator makes of
it is another submission of the same task, and is judged as any other.
"""

from __future__ import annotations

import fcntl
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from annotation import page, people, repair, session, tasks
from annotation.assign import Kind
from mmtt_build.errors import ConfigError
from mmtt_build.stages import override, serve
from mmtt_build.stages.pull import pull
from mmtt_build.stages.receive import SENT_BACK, SERVER, Desk
from mmtt_build.stages.withdraw import WITHDRAWN
from mmtt_build.store import Table
from mmtt_build.workspace import Workspace

REJECT = "reject"
_NEUTRAL = ("time.", "text.")
"""Rules that may speak about a control or a repeat: what others say would tell that the pair is one."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rejected answers; all conditions hold together.

    Attributes:
        names: annotation ids; () for all.
        rules: at least one of these rejects it; () for any.
        annotator: pseudonymous id; "" for everybody.
    """

    names: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    annotator: str = ""


@dataclass(slots=True)
class Summary:
    """What went back.

    Attributes:
        sent: per annotation id the reasons as the annotator reads them.
        annotators: of these, by how many.
        skipped: annotation ids by why they stay.
    """

    sent: dict[str, list[str]] = field(default_factory=dict)
    annotators: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def send_back(workspace: Workspace, selection: Selection, by: str, *, dry_run: bool = False) -> Summary:
    """Sends rejected answers back, after a pull: what was changed meanwhile is not what was rejected.

    Args:
        workspace: whose.
        selection: which.
        by: who says so.
        dry_run: says what would go, as of the last pull; writes nothing and asks no server.

    Raises:
        ConfigError: an id, an annotator or a rule is not known.
        ServerError: there is no server, or it does not do what it is asked; doing it again goes on.
    """
    _check(workspace, selection)
    if not dry_run:
        pull(workspace)
    return give_back(workspace, selection, by, dry_run=dry_run)


def give_back(
    workspace: Workspace, selection: Selection, by: str, *, dry_run: bool = False, line: session.Line | None = None
) -> Summary:
    """As `send_back`, by whoever has just pulled, on the same line if they keep one, and names what there is."""
    summary = Summary()
    with nullcontext() if dry_run else _alone(workspace):
        rows = list(_rows(workspace, selection, summary))
        if not dry_run:
            _finish(workspace)
            rows = _send(workspace, rows, by, summary, line or session.Line()) if rows else []
    for row in rows:
        summary.sent[row["annotation_id"]] = row["told"]
        summary.annotators[row["annotator"]] += 1
    return summary


def _check(workspace: Workspace, selection: Selection) -> None:
    if selection.names:
        override.find(workspace, list(selection.names))
    known = set(workspace.tasks.read(["annotator"])["annotator"].to_pylist())
    if selection.annotator and selection.annotator not in known:
        raise ConfigError(
            f"no annotator is called {selection.annotator!r}", f"known are {', '.join(sorted(known)) or 'none'}"
        )
    if selection.rules:
        from qc.base import load_rules

        names = [rule.name for rule in load_rules()]
        for rule in selection.rules:
            if rule not in names:
                raise ConfigError(f"there is no rule {rule!r}", "mmtt qc rules lists them")


def _rows(workspace: Workspace, selection: Selection, summary: Summary) -> Iterator[dict[str, Any]]:
    """Submissions that are to go, with what their annotators are `told`, and by which `rules`."""
    found = workspace.findings.read(["annotation_id", "annotator", "verdict", "override", "findings"])
    wanted = pc.equal(found["verdict"], REJECT)
    if selection.names:
        wanted = pc.is_in(found["annotation_id"], pa.array(selection.names))
    judged = {row["annotation_id"]: row for row in found.filter(wanted).to_pylist()}
    names = sorted(set(selection.names) or judged)
    rows = _some(workspace.submissions, "annotation_id", names)
    tasks_of = _some(workspace.tasks, "task_id", [row["task_id"] for row in rows.values() if row["task_id"]])
    known = people.load(_private(workspace))
    decisions = override.decisions(workspace)
    for name in names:
        row, of = rows.get(name), judged.get(name, {"verdict": None, "findings": None})
        rejecting = [finding for finding in of["findings"] or () if finding["severity"] == REJECT]
        if selection.annotator and (row is None or row["annotator"] != selection.annotator):
            continue
        if selection.rules and not {finding["rule"] for finding in rejecting} & set(selection.rules):
            continue
        if row is None or (why := _stays(row, of["verdict"], tasks_of.get(row["task_id"]), known)):
            summary.skipped["did not come from a server" if row is None else why].append(name)
            continue
        decision = decisions.get(name) if of["override"] else None
        if row["kind"] != Kind.PAIR:
            decision, rejecting = None, [finding for finding in rejecting if finding["rule"].startswith(_NEUTRAL)]
        said = decision["reason"] if decision else None
        told = repair.reasons(rejecting, row["description"], workspace.recipe.qc, row["language"], said)
        if told:
            yield row | {"told": told, "rules": [finding["rule"] for finding in rejecting]}
        else:
            summary.skipped["no reason that its annotator may be told"].append(name)


def _some(table: Table, key: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows with these values of a column, by it."""
    found = table.read([name for name in table.schema.names if name != "result"])
    return {row[key]: row for row in found.filter(pc.is_in(found[key], pa.array(names, pa.string()))).to_pylist()}


def _stays(
    row: Mapping[str, Any],
    verdict: str | None,
    task: Mapping[str, Any] | None,
    known: Mapping[str, people.Person],
) -> str:
    """Why a submission does not go back, or ""."""
    if row["source"] != SERVER:
        return "did not come from a server"
    if row["status"] != "ok":
        return "went back already" if row["status"] == SENT_BACK else f"does not count: {row['status']}"
    if task is None:
        return "its task is not in the tables"
    if verdict is None:
        return "not judged yet, or changed since: mmtt qc audit"
    if verdict != REJECT:
        return f"its verdict is {verdict}"
    if task["status"] == WITHDRAWN:
        return "its task is withdrawn"
    if row["annotator"] != task["annotator"]:
        return "answered by somebody else than it was given to"
    if row["annotator"] not in known or known[row["annotator"]].left:
        return "its annotator has left"
    if row["answer"] == "broken-pair":
        return "says that the pair is broken: look at it"
    return ""


def _send(
    workspace: Workspace, rows: list[dict[str, Any]], by: str, summary: Summary, line: session.Line
) -> list[dict[str, Any]]:
    """Sends them, and gives those that went."""
    with line.open(serve.connection(workspace), "mmtt qc send-back") as client:
        guard = line.once(repair.guarded)
        titles = {row["project"] for row in rows}
        found = line.projects if titles <= line.projects.keys() else tasks.projects(client, titles)
        went: list[dict[str, Any]] = []
        try:
            for row in rows:
                if row["project"] not in found or f"${page.NOTICE}" not in found[row["project"]].config:
                    summary.skipped["its page has no place for the reasons: mmtt annotate push"].append(
                        row["annotation_id"]
                    )
                    continue
                note = {
                    "annotation_id": row["annotation_id"], "task_id": row["task_id"], "annotator": row["annotator"],
                    "reasons": row["told"], "rules": row["rules"], "by": by,
                }  # fmt: skip
                workspace.sent_back.append([note | {"status": "pending", "at": datetime.now(UTC)}])
                outcome = repair.give_back(
                    client, int(row["annotation_id"].rpartition("-")[2]), row["updated_at"],
                    repair.notice(row["told"], row["language"]), row["description"], row["language"], guard=guard,
                )  # fmt: skip
                status = "sent" if outcome is repair.Outcome.DONE else "dropped"
                workspace.sent_back.append([note | {"status": status, "at": datetime.now(UTC)}])
                if outcome is repair.Outcome.DONE:
                    went.append(row)
                else:
                    summary.skipped[str(outcome)].append(row["annotation_id"])
        finally:
            if went:
                Desk(workspace).write([], [row["annotation_id"] for row in went])
    return went


def _finish(workspace: Workspace) -> None:
    """Settles what a run that was killed has left pending, as the pull since has found it."""
    left = [row for row in workspace.sent_back.read().to_pylist() if row["status"] == "pending"]
    if not left:
        return
    came = workspace.submissions.read(["annotation_id", "status"])
    status = dict(zip(came["annotation_id"].to_pylist(), came["status"].to_pylist(), strict=True))
    workspace.sent_back.append(
        [row | {"status": "sent" if status.get(row["annotation_id"]) == SENT_BACK else "dropped"} for row in left]
    )


@contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    """Waits for others that send back: what one has sent the other would take for deleted."""
    with (_private(workspace) / "send-back.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _private(workspace: Workspace) -> Path:
    return serve.local(workspace, make=True).data
