"""A pull, or the server, is killed in the middle: nothing is lost, nothing is there twice."""

from __future__ import annotations

import subprocess
import sys

import pytest

from annotation import guard, page, submissions
from tests.annotation.work import said

EACH, ANNOTATORS = 250, 4

PULL = """
import os, pathlib, signal, sys
from annotation import submissions
from mmtt_build.stages import pull, serve
from mmtt_build.store import Table
from mmtt_build.workspace import Workspace

workspace, moment, seen = Workspace(pathlib.Path(sys.argv[1])), sys.argv[2], 0
append, of_task = Table.append, submissions._of_task

def appended(table, rows):
    append(table, rows)
    if table.folder.name == moment:
        os.kill(os.getpid(), signal.SIGKILL)

def read(*task):
    global seen
    seen += 1
    if seen == 330:  # in the second annotator's project
        if moment == "reading":
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == "server":
            os.kill(serve.local(workspace).label_studio.pid(), signal.SIGKILL)
    return of_task(*task)

Table.append, submissions._of_task = appended, read
pull.pull(workspace)
"""


@pytest.fixture
def thousand(work):
    """Four annotators' projects with 250 answers each; numbers on the server by title."""
    rows, numbers = [], {}
    with work.studio.client() as client:
        me = client.users.whoami().id
        for annotator in range(ANNOTATORS):
            title = f"{work.name}-a{annotator:02d}-b001"
            project = client.projects.create(
                title=title, **page.PROJECT, label_config=page.config("en"), description=guard.described_to(["x@y.z"])
            )
            numbers[title] = project.id
            names = [f"{work.name}{annotator}x{n:03d}" for n in range(EACH)]
            client.projects.import_tasks(
                id=project.id,
                request=[
                    {
                        "data": page.task(name, pristine="p", forged="f", mask="m"),
                        "annotations": [
                            {"result": said(f"The nose of {name}."), "completed_by": me, "lead_time": 70.0}
                        ],
                    }
                    for name in names
                ],
            )
            rows += [
                {"task_id": name, "kind": "pair", "forgery_id": f"f-{name}", "base_id": "b", "project": title,
                 "annotator": f"a{annotator:02d}", "batch": 1, "language": "en", "blind": False}
                for name in names
            ]  # fmt: skip
    work.workspace.tasks.append(rows)
    return numbers


def child(work, moment):
    return subprocess.run(
        [sys.executable, "-c", PULL, str(work.workspace.root), moment], capture_output=True, text=True, timeout=300,
        env={**work.studio.environment, "MMTT_SERVER_PATIENCE": "1"},
    )  # fmt: skip


def test_a_killed_pull_and_a_killed_server_lose_nothing(work, thousand):
    assert child(work, "annotations").returncode == -9
    assert (len(work.workspace.annotations.read()), len(work.workspace.submissions.read())) == (EACH, 0)
    assert child(work, "reading").returncode == -9
    assert len(work.workspace.submissions.read()) == EACH
    title = f"{work.name}-a01-b001"
    with work.studio.client() as client:
        assert [made.title for made in client.projects.exports.list(thousand[title])] == [submissions.SNAPSHOT]
    halfway = child(work, "server")
    assert halfway.returncode == 1
    assert "ServerError" in halfway.stderr
    assert EACH <= len(work.workspace.submissions.read()) < EACH * ANNOTATORS
    assert work("pull").returncode == 1
    restarted = work.studio("serve")
    assert restarted.returncode == 0, restarted.stderr
    assert work("pull").returncode == 0
    came, described = work.workspace.submissions.read().to_pylist(), work.workspace.annotations.read().to_pylist()
    assert len(came) == len({row["task_id"] for row in came}) == EACH * ANNOTATORS
    assert {row["description"] for row in described} == {f"The nose of {row['task_id']}." for row in work.assigned()}
    assert work.pull() == "pull: nothing new, 0 changed, 0 deleted on the server"
