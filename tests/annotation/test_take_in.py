"""Export files of a real Label Studio become rows, whole or not at all."""

from __future__ import annotations

import json
import shutil
import tracemalloc

import pytest

from annotation import submissions
from mmtt_build.stages.take_in import take_in
from mmtt_build.workspace import Workspace
from tests.annotation.work import NOTHING, said


@pytest.fixture
def project(work):
    """One annotator's, with three answers, one of them an administrator's: its number, and the answered tasks."""
    work.push()
    tasks = work.of("a01", "pair")[:2]
    with work.login("ana") as ana:
        for task in tasks:
            work.answer(ana, task, said(f"The nose <b>is</b> soft \u202e {task} \U0001f600"))
    (title,) = {row["project"] for row in work.assigned() if row["annotator"] == "a01"}
    with work.studio.client() as client:
        extra = work.of("a01", "pair")[2]
        client.annotations.create(id=work.number(extra), result=NOTHING, lead_time=61.0)
    return work.projects()[title], [*tasks, extra]


def snapshot(client, number):
    made = client.projects.exports.create(number)
    return b"".join(client.projects.exports.download(number, made.id))


def rows_of(workspace, *without):
    rows = workspace.submissions.read().to_pylist()
    return {row["annotation_id"]: {name: value for name, value in row.items() if name not in without} for row in rows}


def count(workspace):
    return [len(table.shards()) for table in (workspace.submissions, workspace.annotations)]


def test_a_file_makes_the_rows_that_a_pull_makes_and_neither_makes_them_twice(work, project, tmp_path):
    number, tasks = project
    files = tmp_path / "snapshot.json", tmp_path / "export.json"
    users = tmp_path / "users.csv"
    with work.studio.client() as client:
        files[0].write_bytes(snapshot(client, number))
        files[1].write_text(json.dumps(client.projects.exports.as_json(number)), "utf-8")
        ids = {str(user.email): user.id for user in client.users.list()}
    users.write_text(f"user,email\n{ids['ana@lab.example']},Ana@lab.example\n", "utf-8")
    done = work("import", files[0], "--people", users)
    assert done.stdout.splitlines()[0] == "import: 3 pairs new, 0 changed"
    imported = rows_of(work.workspace, "source", "label_studio", "page", "served_at", "observation_s")
    assert {row["task_id"] for row in imported.values()} == set(tasks)
    by = sorted(row["annotator"] for row in imported.values())
    assert by == ["a01", "a01", f"user-{ids['admin@mmtt.local']}"]
    assert {row["source"] for row in rows_of(work.workspace).values()} == {"file"}
    before = count(work.workspace)
    for file in files:
        again = work("import", file, "--people", users)
        assert again.stdout.splitlines()[0] == "import: nothing new, 0 changed"
    assert count(work.workspace) == before
    assert work.pull() == "pull: nothing new, 0 changed, 0 deleted on the server"
    assert rows_of(work.workspace, "source", "label_studio", "page", "served_at", "observation_s") == imported
    assert {row["source"] for row in rows_of(work.workspace).values()} == {"server"}
    assert len(work.workspace.annotations.read()) == 3
    pulled = count(work.workspace)
    assert work.pull() == "pull: nothing new, 0 changed, 0 deleted on the server"
    assert work("import", *files, "--people", users).stdout.startswith("import: nothing new, 0 changed")
    assert count(work.workspace) == pulled

    elsewhere = Workspace(tmp_path / "elsewhere")
    shutil.copytree(work.workspace.root / "tables" / "tasks", elsewhere.root / "tables" / "tasks")
    shutil.copy(work.workspace.root / "mmtt.toml", elsewhere.root)
    told = json.loads(files[1].read_text("utf-8"))
    for task in told:
        for item in task["annotations"]:
            item["completed_by"] = {"id": item["completed_by"], "email": "ana@lab.example", "first_name": ""}
    files[1].write_text(json.dumps(told), "utf-8")
    assert take_in(elsewhere, [files[1]]).new == {"pair": 3}
    without = ("annotator", "source", "label_studio", "page", "served_at", "observation_s")
    assert rows_of(elsewhere, *without) == {
        name: {key: value for key, value in row.items() if key != "annotator"} for name, row in imported.items()
    }


def test_what_is_no_whole_export_of_ours_is_refused_and_nothing_is_written(work, project, tmp_path):
    number, _ = project
    good = tmp_path / "good.json"
    with work.studio.client() as client:
        http = client._client_wrapper.httpx_client
        good.write_bytes(snapshot(client, number))
        flat, table = (
            http.request(f"api/projects/{number}/export", method="GET", params={"exportType": kind}).content
            for kind in ("JSON_MIN", "CSV")
        )
    whole = good.read_bytes()
    foreign = json.loads(whole)
    foreign[0]["data"]["pair_id"] = "another's"
    foreign[0]["annotations"] = foreign[0]["annotations"] or foreign[1]["annotations"]
    unlike = json.loads(whole)
    answered = next(task for task in unlike if task["annotations"])
    answered["annotations"][0]["created_at"] = "yesterday"
    bare = json.loads(whole)
    del next(task for task in bare if task["annotations"])["annotations"][0]["updated_at"]
    bad = {
        whole[: len(whole) // 2]: "breaks off",
        whole[:-1]: "breaks off",
        flat: "tasks in the form JSON-MIN",
        table: "does not begin with a list",
        b"": "does not begin with a list",
        b'{"annotations": []}': "does not begin with a list",
        b"[1, 2]": "something else than tasks with annotations",
        b'[{"id": 1, "result": []}]': "something else than tasks with annotations",
        b"\xff\xfe[": "does not begin with a list",
        json.dumps(unlike).encode(): "makes no sense",
        json.dumps(bare).encode(): "has no updated_at",
        json.dumps(foreign).encode(): "1 tasks of no pair of",
    }
    for index, (content, problem) in enumerate(bad.items()):
        file = tmp_path / f"{index}.json"
        file.write_bytes(content)
        done = work("import", good, file)  # the good one is not taken, either
        assert (done.returncode, problem in done.stderr) == (2, True), (problem, done.stderr)
        assert str(file) in done.stderr
    assert count(work.workspace) == [0, 0]
    users = tmp_path / "users.csv"
    for text, problem in (("user,email\nana,ana@lab.example\n", "line 2: 'ana' is no number"), ("a,b\n", "no column")):
        users.write_text(text, "utf-8")
        assert problem in work("import", good, "--people", users).stderr
    assert count(work.workspace) == [0, 0]
    skipped = work("import", tmp_path / f"{len(bad) - 1}.json", "--skip-foreign")
    assert skipped.returncode == 0
    assert len(work.submissions()) == len(
        {task["data"]["pair_id"] for task in foreign if task["annotations"]} - {"another's"}
    )


def test_a_long_file_takes_no_more_memory_than_a_short_one(tmp_path):
    task = {
        "data": {"pair_id": "p"},
        "annotations": [
            {"id": 1, "completed_by": 1, "lead_time": 70.5, "result": said("word " * 100),
             "created_at": "2026-01-01T12:00:00.5Z", "updated_at": "2026-01-01T12:00:00.5Z"}
        ],
    }  # fmt: skip
    peaks = []
    for tasks in (200, 6000):
        path = tmp_path / f"{tasks}.json"
        path.write_text(json.dumps([task | {"id": number} for number in range(tasks)]), "utf-8")
        tracemalloc.start()
        assert sum(1 for _ in submissions.in_file(path)) == tasks
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < path.stat().st_size / 4
