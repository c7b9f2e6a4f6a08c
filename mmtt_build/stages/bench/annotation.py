"""Benchmark of annotation: push and pull beside bare loops of the SDK, and thirty annotators at once.

All of it happens on a local Label Studio with the guard, as `mmtt annotate serve` starts it, in folders and in a
database of its own that are gone at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import sqlite3
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from annotation import accounts, database, environment, guard, page, people, session
from annotation.access import TOKEN, URL
from annotation.server import Server
from mmtt_build import images, masks, store
from mmtt_build.records import SIZE
from mmtt_build.stages import serve
from mmtt_build.stages.bench import postgres
from mmtt_build.stages.bench.annotators import BURST, EACH, RESULT, Record, crowd
from mmtt_build.stages.bench.timing import Say
from mmtt_build.stages.pull import pull
from mmtt_build.stages.push import Options as Dealt
from mmtt_build.stages.push import push
from mmtt_build.workspace import Workspace

PEOPLE = 30
BATCH = 1000
"""Tasks of a project and of an import, ours and the bare loop's."""
GUARD_S = 1.0
"""What the guard asks for here: a minute would make it an hour."""
WAIT_S = GUARD_S + 0.3
ROUNDS = 3
ONCE_FROM = 10_000
"""So many tasks take minutes a round: one will do."""
MASKS = 16

Work = Callable[[], int]
"""Does something to a number of tasks, which it returns."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured.

    Attributes:
        tasks: to push and to pull.
        postgres: URL of a PostgreSQL server with its password, whose user may make databases; or "package", the one
            that the extra [dev] brings; "" for sqlite.
    """

    tasks: int = 3000
    postgres: str = ""


DEFAULTS = Options()


def annotate(say: Say, options: Options = DEFAULTS) -> None:
    """Push, pull and 30 annotators on a Label Studio of its own (takes some 10 minutes).

    Args:
        say: gets the lines.
        options: how much, and on which database.
    """
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mmtt-bench-")))
        stack.enter_context(_environment({serve.HOME: str(root / "home")}, without=(URL, TOKEN)))
        environment.make(environment.default(), say)
        url = stack.enter_context(_database(options.postgres)) if options.postgres else None
        workspace = _workspace(root / "bench", options.tasks)
        server = stack.enter_context(_served(workspace, url, say))
        client = stack.enter_context(session.session(server.connection, "the benchmark"))
        everybody = {f"a{n:02d}": people.Person(f"a{n:02d}@bench.example") for n in range(1, PEOPLE + 1)}
        say(f"making {PEOPLE} accounts")
        accounts.make(server.connection, client, server.data, everybody)
        people.save(server.data, everybody)
        kind = "PostgreSQL" if url else "sqlite"
        say(f"annotation, {kind}; load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        _push(say, client, workspace)
        _pull(say, client, workspace, server)
        _delete(client)
        _load(say, client, root / "load", server, shared=url is not None)


# --- what it is measured on -------------------------------------------------------------------------------------------


@contextmanager
def _environment(given: Mapping[str, str], without: Sequence[str]) -> Iterator[None]:
    """Sets variables of this process' environment, and puts back what was there."""
    before = {name: os.environ.get(name) for name in (*given, *without)}
    for name in without:
        os.environ.pop(name, None)
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _database(given: str) -> Iterator[str]:
    """An empty database; its URL with the password."""
    if given == "package":
        with postgres.throw_away() as server:
            yield server.secret_url
        return
    name, python = f"mmtt_bench_{secrets.token_hex(4)}", environment.program(environment.default(), "python")
    database.run(given, python, f"CREATE DATABASE {name}")
    try:
        yield database.beside(given, name)
    finally:
        database.run(given, python, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _served(workspace: Workspace, url: str | None, say: Say) -> Iterator[Server]:
    server = serve.local(workspace, make=True)
    settings, variables = serve.guarded(workspace, server)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        port, image_port = one.getsockname()[1], other.getsockname()[1]
    try:
        server.start(port=port, image_port=image_port, postgres=url, guard=settings, variables=variables, say=say)
        yield server
    finally:
        server.stop()


def _workspace(root: Path, pairs: int, name: str = "bench") -> Workspace:
    """A workspace with forged pairs: rows as ingest and generate leave them, and some masks that the rows share."""
    workspace = Workspace.init(root)
    recipe = root / "mmtt.toml"
    text = recipe.read_text("utf-8").replace('"my-dataset"', f'"{name}"')
    recipe.write_text(text.replace("min_observation_s = 60.0", f"min_observation_s = {GUARD_S}"), "utf-8")
    for number in range(MASKS):
        mask = np.zeros((SIZE, SIZE), np.bool_)
        mask[100 + number : 300, 128 : 300 + number] = True
        path = workspace.image_path("masks", str(number))
        store.write_file(workspace.root / path, images.encode_grey(masks.to_grey(mask)))
    pristine, plan, forgeries = [], [], []
    for number in range(pairs):
        base, forgery = f"base-{number:06d}", f"warp-{number:06d}"
        common = {"forgery_id": forgery, "method": "warp", "split": "train"}
        pristine.append({"id": base, "status": "ok", "image": workspace.image_path("pristine", base)})
        plan.append(common | {"base_id": base, "identity_group": base, "seed": number, "params": "{}"})
        forgeries.append(
            common | {
                "status": "ok", "image": workspace.image_path("forged", forgery),
                "mask": workspace.image_path("masks", str(number % MASKS)),
            }
        )  # fmt: skip
    workspace.pristine.append(pristine)
    workspace.plan.append(plan)
    workspace.forgeries.append(forgeries)
    return workspace


def _forget(workspace: Workspace, *tables: str) -> Workspace:
    for name in tables:
        shutil.rmtree(workspace.root / "tables" / name, ignore_errors=True)
    return Workspace(workspace.root)


def _projects(client: Any, prefix: str = "") -> dict[str, int]:
    found = client.projects.list(include="id,title", page_size=1000)
    return {project.title: project.id for project in found if project.title.startswith(prefix)}


def _delete(client: Any, prefix: str = "") -> None:
    for number in _projects(client, prefix).values():
        client.projects.delete(id=number)


# --- push and pull ----------------------------------------------------------------------------------------------------


def _push(say: Say, client: Any, workspace: Workspace) -> None:
    total = len(workspace.plan.keys())
    many = min(PEOPLE, -(-total // BATCH))
    given = workspace.root / "annotators.csv"
    given.write_text("email\n" + "".join(f"a{n:02d}@bench.example\n" for n in range(1, many + 1)), "utf-8")
    dealt = Dealt(batch_size=BATCH, repeats=0, controls=0)
    wanted: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = []

    def ours() -> int:
        push(workspace, annotators=given, options=dealt)
        return total

    def bare() -> int:
        for title, settings, data in wanted:
            number = client.projects.create(title=title, **settings).id
            for start in range(0, len(data), BATCH):
                client.projects.import_tasks(id=number, request=data[start : start + BATCH])
        return total

    paces = []
    for _ in range(ROUNDS if total < ONCE_FROM else 1):
        _delete(client)
        shutil.rmtree(workspace.root / "images" / "overlays", ignore_errors=True)
        workspace = _forget(workspace, "tasks")
        mine = _pace(ours)
        if not wanted:
            for title, number in _projects(client).items():
                project = client.projects.get(id=number)
                settings = {**page.PROJECT, "label_config": project.label_config, "description": project.description}
                listed = client.tasks.list(project=number, fields="task_only", include="id,data", page_size=BATCH)
                wanted.append((f"bare {title}"[:50], settings, [{"data": task.data} for task in listed]))
        paces.append((mine, _pace(bare)))
        _delete(client, "bare ")
    _compare(say, f"push, {total:,} tasks in {len(wanted)} projects", paces, "tasks/s", "import_tasks by 1,000")


def _pull(say: Say, client: Any, workspace: Workspace, server: Server) -> None:
    projects = _projects(client)
    _annotate(client, projects, server)
    total = len(workspace.plan.keys())

    def ours() -> int:
        return sum(pull(workspace).new.values())

    first = next(iter(projects.values()))
    loops = {name: _pace(lambda loop=loop: loop(client, first)) for name, loop in BARE.items()}  # type: ignore[misc]
    best = max(loops, key=lambda name: loops[name])
    paces = []
    for _ in range(ROUNDS if total < ONCE_FROM else 1):
        workspace = _forget(workspace, "submissions", "annotations")
        mine = _pace(ours)
        paces.append((mine, _pace(lambda: sum(BARE[best](client, number) for number in projects.values()))))
    _compare(say, f"pull, {total:,} annotations", paces, "annotations/s", best)
    say("  bare loops on one project, annotations/s: " + ", ".join(f"{n} {pace:.0f}" for n, pace in loops.items()))
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        assert ours() == 0
        times.append(time.perf_counter() - began)
    say(f"  pull with nothing new, {total:,} tasks: {statistics.median(times):.2f} s")


def _pace(work: Work) -> float:
    """How many a second."""
    began = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - began)


def _compare(say: Say, what: str, paces: Sequence[tuple[float, float]], unit: str, twin: str) -> None:
    ours, bare, ratio = (statistics.median(values) for values in zip(*((a, b, a / b) for a, b in paces), strict=True))
    say(f"  {what:<40} {ours:>7.0f} {unit}, bare {bare:>7.0f}, ours/bare {ratio:.2f} of {len(paces)}   bare is {twin}")


def _annotate(client: Any, projects: Mapping[str, int], server: Server) -> None:
    """Gives every task an answer of its annotator, all of them some time ago.

    Answers come with tasks that are imported anew: one by one it would take an hour for 20,000. Of the times, which
    the server sets, one in fifty is made later than the rest, as if it were the work of the last hour.
    """
    users = {email: number for number, email in session.users(client).items()}
    for title, number in projects.items():
        listed = client.tasks.list(project=number, fields="task_only", include="id,data", page_size=BATCH)
        answer = {
            "result": RESULT, "lead_time": 75.0, "ground_truth": False,
            "completed_by": users[f"{title.split('-')[1]}@bench.example"],
        }  # fmt: skip
        data = [{"data": task.data, "annotations": [answer]} for task in listed]
        client.tasks.delete_all_tasks(id=number)
        for start in range(0, len(data), BATCH):
            client.projects.import_tasks(id=number, request=data[start : start + BATCH])
    for days, some in ((10, ""), (1, "WHERE {} % 50 = 0")):
        moment = f"'{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d %H:%M:%S.%f}'"
        _change(server, f"UPDATE task SET updated_at = {moment} {some.format('id')}")
        _change(
            server, f"UPDATE task_completion SET created_at = {moment}, updated_at = {moment} {some.format('task_id')}"
        )


def _change(server: Server, statement: str) -> None:
    if url := server.access.postgres:
        database.run(url, environment.program(server.environment, "python"), statement)
        return
    file = server.data / "label-studio" / "label_studio.sqlite3"
    with closing(sqlite3.connect(file, timeout=60)) as opened, opened:
        opened.execute(statement)


def _snapshot(client: Any, project: int) -> int:
    export = client.projects.exports.create(id=project)
    while export.status not in ("completed", "failed"):
        time.sleep(0.05)
        export = client.projects.exports.get(id=project, export_pk=export.id)
    content = b"".join(client.projects.exports.download(id=project, export_pk=export.id, export_type="JSON"))
    return sum(len(task["annotations"]) for task in json.loads(content))


def _as_json(client: Any, project: int) -> int:
    return sum(len(task["annotations"]) for task in client.projects.exports.as_json(project))


def _listed(client: Any, project: int) -> int:
    return sum(len(task.annotations) for task in client.tasks.list(project=project, fields="all", page_size=500))


BARE: dict[str, Callable[[Any, int], int]] = {"a snapshot": _snapshot, "as_json": _as_json, "tasks.list": _listed}


# --- annotators -------------------------------------------------------------------------------------------------------


def _load(say: Say, client: Any, root: Path, server: Server, *, shared: bool) -> None:
    """Thirty annotators, with a project each or with one for all; what they sent is compared with what is pulled."""
    each = EACH + BURST
    workspace = _workspace(root, PEOPLE * each, "load")
    (root / serve.POINTER).write_text(f"{server.data.name}\n", "utf-8")
    push(workspace, options=Dealt(batch_size=BATCH, repeats=0, controls=0))
    if shared:
        _share(client, workspace, server)
    projects = _projects(client, "load-")
    of = {row["annotator"]: row["project"] for row in workspace.tasks.read(["annotator", "project"]).to_pylist()}
    path = server.data / accounts.FILE_NAME
    columns = ("annotator", "email", "address", "password")
    logins = [accounts.Login(**{name: row[name] for name in columns}) for _, row in people.read(path, columns, "")]
    where = [projects[next(iter(of.values())) if shared else of[login.annotator]] for login in logins]
    say(f"{PEOPLE} annotators, {'one queue for all' if shared else 'a project each'}; the guard asks for {GUARD_S:g} s")
    say(f"  {'':<34} {'requests':>8} {'per s':>7} {'p50 s':>7} {'p95 s':>7} {'longest':>7}")
    submitted: list[int] = []
    shown: defaultdict[int, set[str]] = defaultdict(set)
    failed = 0
    refused: Counter[tuple[str, int]] = Counter()
    with crowd(logins, where, WAIT_S) as them:
        for phase, work in (
            ("everybody logs in at once", them.log_in), ("at five times the pace of people", them.steadily),
            ("all at once, without a thought", them.at_once),
        ):  # fmt: skip
            record = work()
            say(f"  {phase}, {record.took_s:.0f} s, load {os.getloadavg()[0]:.1f}")
            _say_times(say, record)
            submitted += record.submitted
            failed += record.failed
            refused += record.refused
            for task, who in record.shown.items():
                shown[task] |= who
    pull(workspace)
    rows = workspace.submissions.read(["annotation_id", "task_id", "status"]).to_pylist()
    came = {int(row["annotation_id"].rpartition("-")[2]) for row in rows if row["status"] == "ok"}
    doubled = len(rows) - len({row["task_id"] for row in rows})
    twice = sum(len(who) > 1 for who in shown.values())
    sent = set(submitted)
    say(
        f"  of {PEOPLE * each} tasks {len(sent)} confirmed, {len(came)} pulled: {len(sent - came)} lost, "
        f"{len(came - sent)} unconfirmed, {doubled} doubled"
    )
    say(f"  {twice} tasks shown to two people; {failed} requests failed, {sum(refused.values())} refused")
    for (kind, status), number in sorted(refused.items()):
        say(f"    {number} x {kind}: status {status}")


def _share(client: Any, workspace: Workspace, server: Server) -> None:
    """Puts all tasks into one project that everybody may open."""
    rows = workspace.tasks.read().to_pylist()
    data = []
    for number in _projects(client, "load-").values():
        config = client.projects.get(id=number).label_config
        listed = client.tasks.list(project=number, fields="task_only", include="id,data", page_size=BATCH)
        data += [{"data": task.data} for task in listed]
        client.projects.delete(id=number)
    everybody = [person.email for person in people.load(server.data).values()]
    description = guard.described_to(everybody)
    project = client.projects.create(title="load-shared", **page.PROJECT, label_config=config, description=description)
    client.projects.import_tasks(id=project.id, request=data)
    _forget(workspace, "tasks").tasks.append([row | {"project": "load-shared"} for row in rows])


def _say_times(say: Say, record: Record) -> None:
    for kind, seconds in record.seconds.items():
        ordered = sorted(seconds)
        p50, p95 = (ordered[round(share * (len(ordered) - 1))] for share in (0.5, 0.95))
        say(
            f"    {kind:<32} {len(ordered):>8} {len(ordered) / record.took_s:>7.1f} {p50:>7.2f} {p95:>7.2f} "
            f"{ordered[-1]:>7.2f}"
        )
