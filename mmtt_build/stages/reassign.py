"""Reassign: an annotator has left, and what they did not answer goes to others.

One shard of the table `tasks` withdraws their open tasks and has the others' new ones. What they submitted stays as it
is; a pull beforehand makes sure of that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from annotation import people
from annotation.assign import Kind, Pair, redeal
from mmtt_build.errors import ConfigError
from mmtt_build.stages import push, serve, withdraw
from mmtt_build.stages.pull import pull
from mmtt_build.workspace import Workspace


@dataclass(slots=True)
class Summary:
    """Where an annotator's open tasks went.

    Attributes:
        withdrawn: from the one who left, by kind.
        promoted: others' open repeats that are now the pair itself, since all others have the pair as a repeat.
        waiting: pairs for which nobody is there who does not know them; the next push assigns them.
        pushed: new tasks by (annotator, kind) and what was done on the server.
    """

    withdrawn: Counter[str] = field(default_factory=Counter)
    promoted: int = 0
    waiting: int = 0
    pushed: push.Summary = field(default_factory=push.Summary)


def reassign(
    workspace: Workspace,
    name: str,
    *,
    to: Sequence[str] = (),
    batch_size: int = 500,
    images_url: str = "",
    dry_run: bool = False,
) -> Summary:
    """Takes an annotator's open tasks back, deals them to others, and makes the server agree.

    Args:
        workspace: whose tasks.
        name: pseudonymous id of the annotator; no later push assigns them anything, unless it names them.
        to: ids of those who get the tasks; () for all who are there.
        batch_size: most tasks of a project.
        images_url: as `push` takes it.
        dry_run: says what would be done, as of the last pull; writes nothing and asks no server.

    Raises:
        ConfigError: somebody is not known, or nobody is there to take over.
        ServerError: there is no server, or it does not do what it is asked; doing it again goes on.
        StoreError: a stored mask is missing or damaged.
    """
    folder = serve.local(workspace).data
    heirs = _heirs(people.load(folder), name, to)
    if dry_run:
        return _plan(workspace, name, heirs, batch_size)[1]
    server = push.reach(workspace, images_url)
    pull(workspace)
    with push.alone(workspace):
        known = people.load(folder)
        known[name] = replace(known[name], left=known[name].left or datetime.now(UTC).date().isoformat())
        people.save(folder, known)
        rows, summary = _plan(workspace, name, heirs, batch_size)
        workspace.tasks.append(rows)
        push.settle(workspace, server, {heir: known[heir] for heir in heirs}, known, summary.pushed)
    return summary


def _heirs(known: Mapping[str, people.Person], name: str, to: Sequence[str]) -> list[str]:
    for one in (name, *to):
        if one not in known:
            near = get_close_matches(one, known, n=3)
            raise ConfigError(f"no annotator is called {one!r}", f"known are {', '.join(near or known) or 'none'}")
    there = [one for one, person in known.items() if not person.left and one != name]
    if gone := sorted(set(to) - set(there)):
        raise ConfigError(
            f"{', '.join(gone)} cannot take over: {'it is who leaves' if name in gone else 'has left, too'}",
            f"--to some of {', '.join(there)}" if there else "mmtt annotate invite FILE.csv adds somebody",
        )
    if not there:
        raise ConfigError(f"nobody is there to take over from {name}", "mmtt annotate invite FILE.csv adds somebody")
    return list(dict.fromkeys(to)) or there


def _plan(
    workspace: Workspace, name: str, heirs: Sequence[str], batch_size: int
) -> tuple[list[dict[str, Any]], Summary]:
    """Rows that withdraw tasks and that take their place, and what they come to."""
    rows = workspace.tasks.read().to_pylist()
    gone = withdraw.withdraw(workspace, {row["task_id"]: f"{name} left" for row in rows if row["annotator"] == name})
    useless = withdraw.unusable(workspace)
    kept = [row for row in rows if row["annotator"] != name and row["status"] != withdraw.WITHDRAWN]
    seen: dict[str, set[str]] = defaultdict(set)
    for row in kept:
        seen[row["base_id"]].add(row["annotator"])
        seen[row["forgery_id"] or row["base_id"]].add(row["annotator"])
    batches = {heir: max((row["batch"] for row in rows if row["annotator"] == heir), default=0) for heir in heirs}
    planned = workspace.plan.read(["forgery_id", "method", "split"])
    strata = {row["forgery_id"]: (row["method"], row["split"]) for row in planned.to_pylist()}
    summary = Summary(Counter(row["kind"] for row in gone))
    new: list[dict[str, Any]] = []
    orphans = {_what(row): row for row in gone if row["task_id"] not in useless}
    for page in sorted({_page(row) for row in orphans.values()}):  # a project has one
        made = redeal(
            [
                (
                    Kind(row["kind"]),
                    Pair(row["forgery_id"] or "", row["base_id"], *strata.get(row["forgery_id"], ("", ""))),
                )
                for row in orphans.values()
                if _page(row) == page
            ],
            heirs,
            seed=workspace.recipe.plan.seed,
            batch_size=batch_size,
            seen=seen,
            load=Counter(row["annotator"] for row in (*kept, *new)),
            batches=batches,
        )
        for task in made:
            old = orphans.pop((task.kind, task.forgery_id, task.base_id))
            of_task = {"task_id": task.task_id, "annotator": task.annotator, "batch": task.batch}
            new.append(old | of_task | {"project": push.title(workspace, task), "status": "open"})
            seen[task.base_id].add(task.annotator)
            batches[task.annotator] = max(batches[task.annotator], task.batch)
    pushed = summary.pushed
    pushed.assigned = Counter((row["annotator"], row["kind"]) for row in new)
    pushed.batches = dict(Counter(who for who, _ in {(row["annotator"], row["batch"]) for row in new}))
    promoted = _promoted(workspace, orphans.values(), kept, heirs)
    summary.promoted = len(promoted)
    summary.waiting = sum(row["kind"] == Kind.PAIR for row in orphans.values()) - len(promoted)
    return [*gone, *new, *promoted], summary


def _promoted(
    workspace: Workspace, orphans: Iterable[Mapping[str, Any]], kept: Iterable[dict[str, Any]], heirs: Sequence[str]
) -> list[dict[str, Any]]:
    """Open repeats as pairs, one for each orphaned pair: a repeat of nothing would be a description lost."""
    pairs = {row["forgery_id"] for row in orphans if row["kind"] == Kind.PAIR}
    done = withdraw.answered(workspace)
    found = {
        row["forgery_id"]: row | {"kind": str(Kind.PAIR)}
        for row in kept
        if row["kind"] == Kind.REPEAT
        and row["forgery_id"] in pairs
        and row["annotator"] in heirs
        and row["task_id"] not in done
    }
    return list(found.values())


def _what(row: Mapping[str, Any]) -> tuple[str, str | None, str]:
    return row["kind"], row["forgery_id"], row["base_id"]


def _page(row: Mapping[str, Any]) -> tuple[str, bool]:
    return row["language"], row["blind"]
