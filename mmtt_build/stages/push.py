"""Push: what needs a description is assigned, written down, and then the server is made to agree.

Assignments are rows of the table `tasks`, written as one shard before the server hears of them and never changed. So a
push that was killed, or a server that was, is mended by pushing again.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from annotation import accounts, by_hand, page, people, pictures, session, tasks
from annotation.access import Connection, from_environment
from annotation.assign import Assignment, Kind, Pair, assign, first
from mmtt_build import parallel
from mmtt_build.errors import ConfigError
from mmtt_build.progress import Progress
from mmtt_build.stages import projects, serve, withdraw
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
        files: titles of the projects that were written into files.
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
    files: list[str] = field(default_factory=list)


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
    files: Path | None = None,
    dry_run: bool = False,
) -> Summary:
    """Assigns what needs a description and has no task yet, and makes the server agree with all assignments.

    Args:
        workspace: whose forgeries.
        annotators: CSV file, `email` or `email,name` a line: who gets the new pairs. None takes all known ones.
        options: of the new pairs.
        images_url: address of the workspace's folder as annotators' browsers reach it; "" takes the local server's.
        files: folder for the projects as files, to be imported by hand; no server is asked then.
        dry_run: assigns in memory, writes nothing and asks no server.

    Raises:
        ConfigError: nobody to annotate, a file that cannot be read, no page in the recipe's language, no address of the
            images, or another push is running.
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
    server = reach(workspace, images_url) if files is None else None
    if files is not None and not images_url:
        raise ConfigError(
            "where annotators find the images is not known",
            f"serve {workspace.root} over HTTPS to them and say where: --images-url URL",
        )
    folder = _private(workspace)
    with alone(workspace):
        known = people.load(folder)
        active = people.enrol(known, annotators, ids(workspace))
        withdrawn = withdraw.withdraw(workspace, withdraw.unusable(workspace))
        workspace.tasks.append(withdrawn)
        rows, summary = _assign(workspace, active, options)
        people.save(folder, known)
        workspace.tasks.append(rows)
        summary.withdrawn = _reasons(withdrawn)
        if server is not None:
            settle(workspace, server, {name: known[name] for name in active}, known, summary)
        elif files is not None:
            _write(workspace, files, known, images_url.rstrip("/"), summary)
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
    gone = pc.is_in(annotations["answer"], pa.array(["deleted", "unreadable", "sent-back"]))
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
    rows = workspace.tasks.read(["kind", "forgery_id", "base_id", "annotator", "batch", "status"]).to_pylist()
    batches: Counter[str] = Counter()
    for row in rows:
        batches[row["annotator"]] = max(batches[row["annotator"]], row["batch"])
    before = [row for row in rows if row["status"] != withdraw.WITHDRAWN]
    seen, controls = defaultdict(set), defaultdict(set)
    for row in before:
        seen[row["base_id"]].add(row["annotator"])
        if row["kind"] == Kind.CONTROL:
            controls[row["base_id"]].add(row["annotator"])
        else:
            seen[row["forgery_id"]].add(row["annotator"])
    pairs = first(
        _pending(workspace, {row["forgery_id"] for row in before if row["kind"] == Kind.PAIR}),
        options.count,
        recipe.plan.seed,
    )
    for pair in pairs:
        seen[pair.forgery_id] |= controls[pair.base_id]
    made = assign(
        pairs, active, seed=recipe.plan.seed, batch_size=options.batch_size, repeats=options.repeats,
        controls=options.controls, load=Counter(row["annotator"] for row in before), batches=batches,
        taken={(row["kind"], row["forgery_id"] or row["base_id"], row["annotator"]) for row in before}, seen=seen,
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
                "mask_of": task.mask_of,
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
    of_project = projects.of_project(workspace)
    found = tasks.projects(client, of_project)
    wanted = projects.wanted(workspace, of_project, known, found)
    summary.changes = tasks.Changes()
    with _made(workspace, of_project, images_url, wanted, summary) as (made, step):
        tasks.reconcile(client, wanted, found, make=made.make, fits=made.fits, changes=summary.changes, step=step)


def _write(
    workspace: Workspace, folder: Path, known: Mapping[str, people.Person], images_url: str, summary: Summary
) -> None:
    """Writes every project that has open tasks into files."""
    of_project = projects.of_project(workspace)
    wanted = projects.wanted(workspace, of_project, known, {})
    with _made(workspace, of_project, images_url, wanted, summary) as (made, step):
        summary.files = by_hand.write(folder, wanted, make=made.make, url=images_url, step=step)


@contextmanager
def _made(
    workspace: Workspace,
    of_project: Mapping[str, Sequence[Mapping[str, Any]]],
    images_url: str,
    wanted: Sequence[tasks.Wanted],
    summary: Summary,
) -> Iterator[tuple[pictures.Pictures, Callable[[int], None]]]:
    """What makes the pictures of tasks, and what counts the tasks that are right."""
    summary.open = sum(len(project.tasks) for project in wanted)
    by_id = {row["task_id"]: row for rows in of_project.values() for row in rows}
    with (
        ThreadPoolExecutor(parallel.cores()) as pool,
        Progress("push", summary.open, "tasks") as progress,
    ):
        yield pictures.Pictures(workspace, images_url, by_id, pool), lambda count: progress.step(count=count)
