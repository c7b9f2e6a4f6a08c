"""A push that is killed with -9, at five moments, and the next one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mmtt_build.stages.push import Options, push
from mmtt_build.stages.serve import HOME

KILLED = """
import os, re, signal, sys
import httpx
from mmtt_build.cli.app import main
from mmtt_build.store import Table

method, path, number, when, *command = sys.argv[1:]
send, append, seen = httpx.Client.send, Table.append, 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def watched(client, request, **options):
    global seen
    meant = request.method == method and re.fullmatch(path, request.url.path) is not None
    seen += meant
    if meant and seen == int(number) and when == "before":
        die()
    response = send(client, request, **options)
    if meant and seen == int(number) and when == "after":  # the server has done it, and nobody has heard so
        die()
    return response

def watched_append(table, rows):
    if method == "append" and table.folder.name == path:
        die()
    append(table, rows)

httpx.Client.send, Table.append = watched, watched_append
sys.argv = command
main()
"""
PROJECTS, IMPORT = "/api/projects/", r"/api/projects/\d+/import"


@pytest.mark.parametrize(
    ("moment", "written", "projects", "there"),
    [
        (("append", "tasks", 1, "before"), False, False, "nothing"),
        (("POST", PROJECTS, 1, "before"), True, False, "nothing"),
        (("POST", IMPORT, 1, "before"), True, True, "nothing"),
        (("POST", IMPORT, 2, "after"), True, True, "some"),
        (("POST", IMPORT, 4, "after"), True, True, "all"),
    ],
    ids=["before anything", "assignments written", "a project and no task", "amid the imports", "after the imports"],
)
def test_a_push_that_is_killed_is_finished_by_the_next(work, monkeypatch, moment, written, projects, there):
    arguments = ("push", "--annotators", work.people, "--batch-size", "4", "--repeats", "0.2", "--controls", "0.1")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, moment), *work.command(*arguments)],
        env=work.studio.environment, capture_output=True, timeout=120, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before, wanted = work.assigned(), work.wanted()
    assert bool(before) is written
    assert bool(work.projects()) is projects
    assert {"nothing": 0, "all": len(wanted)}.get(there, 4 + 4) == len(work.there())
    monkeypatch.setenv(HOME, str(work.studio.home))
    push(work.workspace, annotators=work.people, options=Options(batch_size=4, repeats=0.2, controls=0.1))
    assert work.there() == work.wanted()
    assert [row for row in work.assigned() if row in before] == before
    assert Counter(row["kind"] for row in work.assigned()) == {"pair": 12, "repeat": 2, "control": 1}
    assert all((work.workspace.root / path).is_file() for path in pictures(work))


def pictures(work):
    for row in work.assigned():
        start = work.workspace.image_path("tasks", row["task_id"]).removesuffix(".png")
        yield from (f"{start}-{name}.png" for name in ("forged", "pristine", "mask"))
