"""Push: what needs a description is assigned, written down, and then the server is made to agree.

Assignments are rows of the table `tasks`, written as one shard before the server hears of them and never changed. So a
push that was killed, or a server that was, is mended by pushing again.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annotation import accounts, guard, page, people, pictures, session, tasks
from annotation.access import Connection, from_environment
from annotation.assign import Assignment, Kind, Pair, assign, first
from mmtt_build import parallel, store
from mmtt_build.errors import ConfigError, ServerError
from mmtt_build.progress import Progress
from mmtt_build.records import SIZE
from mmtt_build.stages import serve, withdraw
from mmtt_build.workspace import Workspace


@dataclass(slots=True)
class Summary:
    """What a push assigned, and did on the server.

    Attributes:
        assigned: new tasks by (annotator, kind).
        methods: new tasks by (annotator, method); controls count as "control".
        batches: new projects by annotator.
        changes: on the server; None of a dry run.
        open: tasks of this push and of earlier ones that are not answered yet.
        strangers: annotators without an account on the server.
        accounts: annotators who got one, on a local server.
        logins: file with their passwords.
        withdrawn: tasks that are open no more since their pair cannot be used, by reason.
    """

    assigned: Counter[tuple[str, str]] = field(default_factory=Counter)
    methods: Counter[tuple[str, str]] = field(default_factory=Counter)
    batches: dict[str, int] = field(default_factory=dict)
    changes: tasks.Changes | None = None
    open: int = 0
    strangers: list[str] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    logins: Path | None = None
    withdrawn: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Options:
    """How new pairs are assigned.

    Attributes:
        count: pairs of this push; 0 takes all that need a description.
        batch_size: most tasks of a project.
        repeats: share of the pairs that a second annotator describes, too.
        controls: untouched pairs, as a share of the pairs.
        blind: show the forged image alone first.
    """

    count: int = 0
    batch_size: int = 500
    repeats: float = 0.05
    controls: float = 0.02
    blind: bool = False


def push(
    workspace: Workspace,
    *,
    annotators: Path | None = None,
    options: Options = Options(),
    images_url: str = "",
    dry_run: bool = False,
) -> Summary:
    """Assigns what needs a description and has no task yet, and makes the server agree with all assignments.

    Args:
        workspace: whose forgeries.
        annotators: CSV file, `email` or `email,name` a line: who gets the new pairs. None takes all known ones.
        options: of the new pairs.
        images_url: address of the workspace's folder as annotators' browsers reach it; "" takes the local server's.
        dry_run: assigns in memory, writes nothing and asks no server.

    Raises:
        ConfigError: nobody to annotate, a file that cannot be read, no page in the recipe's language, or another push
            is running.
        ServerError: there is no server, or it does not do what it is asked; pushing again goes on.
        StoreError: a stored mask is missing or damaged.
    """
    page.config(workspace.recipe.dataset.language)
    if dry_run:
        folder = _private(workspace) if (workspace.root / serve.POINTER).is_file() else None
        known = people.load(folder)
        summary = _assign(workspace, people.enrol(known, annotators, ids(workspace)), options)[1]
        summary.withdrawn = _reasons(withdraw.withdraw(workspace, withdraw.unusable(workspace)))
        return summary
    server = reach(workspace, images_url)
    with alone(workspace):
        known = people.load(server.folder)
        active = people.enrol(known, annotators, ids(workspace))
        withdrawn = withdraw.withdraw(workspace, withdraw.unusable(workspace))
        workspace.tasks.append(withdrawn)
        rows, summary = _assign(workspace, active, options)
        people.save(server.folder, known)
        workspace.tasks.append(rows)
        summary.withdrawn = _reasons(withdrawn)
        settle(workspace, server, {name: known[name] for name in active}, known, summary)
    return summary


@dataclass(frozen=True, slots=True)
class Target:
    """Where tasks go.

    Attributes:
        connection: to the server.
        images_url: of the workspace's folder, as annotators' browsers reach it.
        folder: private one of the workspace's local server; it is there without that server, too.
        ours: whether the server is that one.
    """

    connection: Connection
    images_url: str
    folder: Path
    ours: bool


def reach(workspace: Workspace, images_url: str) -> Target:
    """The server of a workspace, and what its tasks need.

    Args:
        workspace: whose.
        images_url: as `push` takes it.

    Raises:
        ConfigError: the address of the images is not known.
        ServerError: there is no server.
    """
    connection, ours = serve.connection(workspace), from_environment() is None
    if not ours and not images_url:
        raise ConfigError(
            "where annotators find the images is not known: the server is not ours",
            f"serve {workspace.root} over HTTPS to them and say where: --images-url URL",
        )
    images_url = images_url.rstrip("/") or serve.local(workspace).access.images_url
    return Target(connection, images_url, _private(workspace), ours)


def settle(
    workspace: Workspace,
    server: Target,
    active: Mapping[str, people.Person],
    known: Mapping[str, people.Person],
    summary: Summary,
) -> None:
    """Makes the server agree with the table: accounts on a server of ours, projects, tasks.

    Args:
        workspace: of the table.
        server: where.
        active: who gets work.
        known: everybody.
        summary: is added to.

    Raises:
        ServerError: it does not do what it is asked; pushing again goes on.
        StoreError: a stored mask is missing or damaged.
    """
    with session.session(server.connection, "mmtt annotate push") as client:
        _reconcile(workspace, client, known, server.images_url, summary)
        if server.ours:
            summary.accounts = accounts.make(server.connection, client, server.folder, active)
            summary.logins = server.folder / accounts.FILE_NAME
        else:
            there = set(session.users(client).values())
            summary.strangers = [name for name, person in active.items() if person.email not in there]


def ids(workspace: Workspace) -> set[str]:
    """Annotators that any task was ever for."""
    return set(workspace.tasks.read(["annotator"])["annotator"].to_pylist())


def _reasons(rows: Sequence[Mapping[str, Any]]) -> Counter[str]:
    return Counter(row["reason"] for row in rows)


def _private(workspace: Workspace) -> Path:
    return serve.local(workspace, make=True).data


# --- what -------------------------------------------------------------------------------------------------------------


@contextmanager
def alone(workspace: Workspace) -> Iterator[None]:
    """Keeps other pushes out: two at once would both find the same pairs without a task.

    Raises:
        ConfigError: one is running.
    """
    lock = os.open(workspace.root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError("another push of this workspace is running", "wait for it to end") from error
        yield
    finally:
        os.close(lock)


def _pending(workspace: Workspace, tasked: set[str]) -> list[Pair]:
    """Usable forgeries without a task and without a person's answer."""
    annotations = workspace.annotations.read(["forgery_id", "answer", "origin"])
    gone = pc.is_in(annotations["answer"], pa.array(["deleted", "unreadable"]))
    answered = annotations.filter(pc.and_(pc.equal(annotations["origin"], "human"), pc.invert(gone)))
    done = tasked | set(answered["forgery_id"].to_pylist())
    made = set(workspace.forgeries.keys(status="ok").to_pylist())
    usable = set(workspace.pristine.keys(status="ok").to_pylist())
    columns = ("forgery_id", "base_id", "source_id", "method", "split")
    plan = workspace.plan.read(columns)
    return [
        Pair(name, base, method, split)
        for name, base, source, method, split in zip(*(plan[c].to_pylist() for c in columns), strict=True)
        if name in made and name not in done and base in usable and (source is None or source in usable)
    ]


def _assign(workspace: Workspace, active: Sequence[str], options: Options) -> tuple[list[dict[str, Any]], Summary]:
    recipe = workspace.recipe
    rows = workspace.tasks.read(["task_id", "kind", "forgery_id", "annotator", "batch", "status"]).to_pylist()
    batches: Counter[str] = Counter()
    for row in rows:
        batches[row["annotator"]] = max(batches[row["annotator"]], row["batch"])
    before = [row for row in rows if row["status"] != withdraw.WITHDRAWN]
    seen = defaultdict(set)
    for row in before:
        if row["forgery_id"]:
            seen[row["forgery_id"]].add(row["annotator"])
    pairs = first(
        _pending(workspace, {row["forgery_id"] for row in before if row["kind"] == Kind.PAIR}),
        options.count,
        recipe.plan.seed,
    )
    made = assign(
        pairs, active, seed=recipe.plan.seed, batch_size=options.batch_size, repeats=options.repeats,
        controls=options.controls, load=Counter(row["annotator"] for row in before), batches=batches,
        taken={row["task_id"] for row in before}, seen=seen,
    )  # fmt: skip
    summary = Summary()
    method = {pair.forgery_id: pair.method for pair in pairs}
    rows = []
    for task in made:
        summary.assigned[task.annotator, task.kind] += 1
        summary.methods[task.annotator, method.get(task.forgery_id or "", "control")] += 1
        summary.batches[task.annotator] = task.batch - batches[task.annotator]
        rows.append(
            {
                "task_id": task.task_id,
                "kind": str(task.kind),
                "forgery_id": task.forgery_id,
                "base_id": task.base_id,
                "annotator": task.annotator,
                "batch": task.batch,
                "project": title(workspace, task),
                "language": recipe.dataset.language,
                "blind": options.blind,
                "status": "open",
            }
        )
    return rows, summary


def title(workspace: Workspace, task: Assignment) -> str:
    """Of the project that a task is in; the server takes 50 characters at most."""
    return f"{workspace.recipe.dataset.name[:36]}-{task.annotator}-b{task.batch:03d}"


# --- the server -------------------------------------------------------------------------------------------------------


def _reconcile(
    workspace: Workspace, client: Any, known: Mapping[str, people.Person], images_url: str, summary: Summary
) -> None:
    """Makes every project agree with the table that has open or withdrawn tasks, or whose annotator has left."""
    of_project: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in _joined(workspace):
        of_project[row["project"]].append(row)
    answered = withdraw.answered(workspace)
    open_tasks, withdrawn = (
        {
            title: [r for r in rows if r["task_id"] not in answered and (r["status"] == withdraw.WITHDRAWN) is gone]
            for title, rows in of_project.items()
        }
        for gone in (False, True)
    )
    summary.open = sum(map(len, open_tasks.values()))
    summary.changes = tasks.Changes()
    blank = workspace.root / workspace.image_path("overlays", pictures.BLANK)
    if not blank.is_file():
        store.write_file(blank, pictures.png(np.zeros((SIZE, SIZE, 4), np.uint8)))
    found = tasks.projects(client, of_project)
    with (
        ThreadPoolExecutor(parallel.cores()) as pool,
        Progress("push", summary.open, "tasks") as progress,
    ):
        data = pictures.Pictures(
            workspace, images_url, {r["task_id"]: r for rows in of_project.values() for r in rows}, pool
        )

        def step(count: int) -> None:
            for _ in range(count):
                progress.step()

        for title, rows in sorted(open_tasks.items()):
            head = of_project[title][0]
            person = known.get(head["annotator"])
            left = person is None or bool(person.left)
            if not rows and not (title in found and (withdrawn[title] or left)):
                continue
            if person is None and rows:
                file = _private(workspace) / people.FILE_NAME
                raise ServerError(
                    f"who {head['annotator']} is, is not known: {file} has no such line",
                    "mmtt annotate restore BACKUP, or add the line",
                )
            wanted = tasks.Wanted(
                title,
                guard.described_to(
                    [person.email] if person is not None and (rows or not left) else [],
                    f"{len(of_project[title]) - len(withdrawn[title])} pairs of {workspace.recipe.dataset.name}",
                ),
                page.config(head["language"], max_words=workspace.recipe.qc.max_words, blind=head["blind"]),
                [row["task_id"] for row in rows],
                frozenset(row["task_id"] for row in of_project[title]),
                frozenset(row["task_id"] for row in withdrawn[title]),
            )
            tasks.reconcile(
                client, wanted, found.get(title), make=data.make, links=data.links, changes=summary.changes, step=step
            )


def _joined(workspace: Workspace) -> list[dict[str, Any]]:
    """All assignments with the paths of their images."""
    rows: list[dict[str, Any]] = workspace.tasks.read().to_pylist()
    made = workspace.forgeries.read(["forgery_id", "image", "mask"])
    image, mask = (
        dict(zip(made["forgery_id"].to_pylist(), made[name].to_pylist(), strict=True)) for name in ("image", "mask")
    )
    pristine = workspace.pristine.read(["id", "image"])
    base = dict(zip(pristine["id"].to_pylist(), pristine["image"].to_pylist(), strict=True))
    for row in rows:
        forgery = row["forgery_id"]
        row |= {"pristine": base[row["base_id"]], "image": image.get(forgery), "mask": mask.get(forgery)}
    return rows
