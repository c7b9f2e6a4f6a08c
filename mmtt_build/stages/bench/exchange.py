"""Push and pull beside bare loops of the SDK on the same server, in turn."""

from __future__ import annotations

import json
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from annotation import database, environment, page, people, session
from annotation.server import Server
from mmtt_build.stages.bench.annotators import RESULT
from mmtt_build.stages.bench.timing import Say
from mmtt_build.stages.pull import pull
from mmtt_build.stages.push import Options, push
from mmtt_build.workspace import Workspace

BATCH = 1000
"""Tasks of a project and of an import, ours and the bare loop's."""
ROUNDS = 3
ONCE_FROM = 10_000
"""So many tasks take minutes a round: one will do."""

People = Mapping[str, people.Person]


def pushing(say: Say, client: Any, workspace: Workspace, everybody: People) -> None:
    """Pushes all pairs of a workspace, and the same data by a bare loop that has it ready in memory.

    Args:
        say: gets the line.
        client: of the server.
        workspace: of pairs; its projects stay on the server.
        everybody: annotators by id; as many get work as there are batches.
    """
    total = len(workspace.plan.keys())
    some = list(everybody.values())[: -(-total // BATCH)]
    given = workspace.root / "annotators.csv"
    given.write_text("email\n" + "".join(f"{person.email}\n" for person in some), "utf-8")
    wanted: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = []

    def ours() -> int:
        push(workspace, annotators=given, options=Options(batch_size=BATCH, repeats=0, controls=0))
        return total

    def bare() -> int:
        for title, settings, data in wanted:
            number = client.projects.create(title=title, **settings).id
            for start in range(0, len(data), BATCH):
                client.projects.import_tasks(id=number, request=data[start : start + BATCH])
        return total

    prefix, bare_prefix = f"{workspace.recipe.dataset.name}-", "bare "
    paces = []
    for _ in range(_rounds(total)):
        _delete(client, prefix)
        shutil.rmtree(workspace.root / "images" / "tasks", ignore_errors=True)
        workspace = _forget(workspace, "tasks")
        mine = _pace(ours)
        if not wanted:
            for title, number in _projects(client, prefix).items():
                project = client.projects.get(id=number)
                settings = {**page.PROJECT, "label_config": project.label_config, "description": project.description}
                wanted.append((f"{bare_prefix}{title}"[:50], settings, _data(client, number)))
        paces.append((mine, _pace(bare)))
        _delete(client, bare_prefix)
    _compare(say, f"push, {total:,} tasks in {len(wanted)} projects", paces, "tasks/s", "import_tasks by 1,000")


def pulling(say: Say, client: Any, workspace: Workspace, server: Server, everybody: People) -> None:
    """Pulls answers to all tasks that were pushed, beside the fastest bare loop; then once more, with nothing new.

    Args:
        say: gets the lines.
        client: of the server.
        workspace: whose tasks are on the server; its projects are not there afterwards.
        server: the same, to set times in its database.
        everybody: annotators by id.
    """
    prefix = f"{workspace.recipe.dataset.name}-"
    projects = _projects(client, prefix)
    _annotate(client, workspace, projects, server, everybody)
    total = len(workspace.plan.keys())

    def ours() -> int:
        return sum(pull(workspace).new.values())

    first = next(iter(projects.values()))
    loops = {name: _pace(lambda loop=loop: loop(client, first)) for name, loop in BARE.items()}  # type: ignore[misc]
    best = max(loops, key=lambda name: loops[name])
    paces = []
    for _ in range(_rounds(total)):
        workspace = _forget(workspace, "submissions", "annotations")
        mine = _pace(ours)
        paces.append((mine, _pace(lambda: sum(BARE[best](client, number) for number in projects.values()))))
    _compare(say, f"pull, {total:,} annotations", paces, "annotations/s", best)
    say("    bare, of one project: " + ", ".join(f"{name} {pace:,.0f}/s" for name, pace in loops.items()))
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        assert ours() == 0
        times.append(time.perf_counter() - began)
    say(f"  pull with nothing new, {total:,} tasks: {statistics.median(times):.2f} s")
    _delete(client, prefix)


def _rounds(total: int) -> int:
    return ROUNDS if total < ONCE_FROM else 1


def _pace(work: Callable[[], int]) -> float:
    """How many things a second it does, of the number that it returns."""
    began = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - began)


def _compare(say: Say, what: str, paces: Sequence[tuple[float, float]], unit: str, twin: str) -> None:
    ours, bare, ratio = (statistics.median(values) for values in zip(*((a, b, a / b) for a, b in paces), strict=True))
    say(f"  {what:<34} {ours:>7,.0f} {unit}, bare {bare:>7,.0f}, ours/bare {ratio:.2f}   bare is {twin}")


def _forget(workspace: Workspace, *tables: str) -> Workspace:
    for name in tables:
        shutil.rmtree(workspace.root / "tables" / name, ignore_errors=True)
    return Workspace(workspace.root)


def _projects(client: Any, prefix: str) -> dict[str, int]:
    found = client.projects.list(include="id,title", page_size=1000)
    return {project.title: project.id for project in found if project.title.startswith(prefix)}


def _delete(client: Any, prefix: str) -> None:
    for number in _projects(client, prefix).values():
        client.projects.delete(id=number)


def _data(client: Any, project: int) -> list[dict[str, Any]]:
    listed = client.tasks.list(project=project, fields="task_only", include="id,data", page_size=BATCH)
    return [{"data": task.data} for task in listed]


def _annotate(
    client: Any, workspace: Workspace, projects: Mapping[str, int], server: Server, everybody: People
) -> None:
    """Gives every task an answer of its annotator, all of them some time ago.

    Answers come with tasks that are imported anew: one by one it would take an hour for 20,000. Of the times, which
    the server sets, one in fifty is made later than the rest, as if it were the work of the last hour.
    """
    users = {email: number for number, email in session.users(client).items()}
    rows = workspace.tasks.read(["project", "annotator"]).to_pylist()
    annotator = {row["project"]: row["annotator"] for row in rows}
    for title, number in projects.items():
        user = users[everybody[annotator[title]].email]
        answer = {"result": RESULT, "lead_time": 75.0, "ground_truth": False, "completed_by": user}
        data = [item | {"annotations": [answer]} for item in _data(client, number)]
        client.tasks.delete_all_tasks(id=number)
        for start in range(0, len(data), BATCH):
            client.projects.import_tasks(id=number, request=data[start : start + BATCH])
    of = f"WHERE project_id IN ({', '.join(map(str, projects.values()))})"
    for days, some in ((10, ""), (1, "AND {} % 50 = 0")):
        moment = f"'{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d %H:%M:%S.%f}'"
        _change(server, f"UPDATE task SET updated_at = {moment} {of} {some.format('id')}")
        answers = f"{of} {some.format('task_id')}"
        _change(server, f"UPDATE task_completion SET created_at = {moment}, updated_at = {moment} {answers}")


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
