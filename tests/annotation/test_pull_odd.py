"""What a pull meets beside honest first answers: it says so, keeps it, and the tables stay right."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from annotation import submissions
from mmtt_build.stages import pull as stage
from mmtt_build.stages.audit import audit
from tests.annotation.work import said


def send(client, task, result, **more):
    """Submits as an administrator, whom the guard lets pass; the answer of the server."""
    body = {"result": result, "lead_time": 70.0, **more}
    return client._client_wrapper.httpx_client.request(f"api/tasks/{task}/annotations/", method="POST", json=body)


def execute(work, statement, *values):
    path = work.studio.data / "label-studio" / "label_studio.sqlite3"
    with closing(sqlite3.connect(path, timeout=60)) as database, database:
        database.execute(statement, values)


def rows(work):
    return {row["annotation_id"]: row for row in work.workspace.submissions.read().to_pylist()}


def described(work):
    found = work.workspace.annotations.read().to_pylist()
    return {row["annotation_id"]: row for row in found if row["answer"] == "described"}


def judged(work):
    return {row["annotation_id"] for row in work.workspace.findings.read().to_pylist() if row["verdict"]}


@pytest.fixture
def here(work, monkeypatch):
    """The same work, pulled in this process."""
    for name, value in work.studio.environment.items():
        monkeypatch.setenv(name, value)
    work.push()
    return work


def test_of_two_answers_to_a_task_the_one_of_whom_it_is_given_to_counts(here):
    own, others = here.of("a01", "pair")[:2]
    with here.studio.client() as client:
        numbers = here.numbers()
        early = send(client, numbers[own], said("An administrator looks first.")).json()["id"]
        first, second = (send(client, numbers[others], said(f"Answer {n}.")).json()["id"] for n in (1, 2))
        stage.pull(here.workspace)
        assert rows(here)[f"{own}-{early}"]["status"] == "ok"
        audit(here.workspace)
        assert len(judged(here)) == 2
        with here.login("ana") as ana:
            late = here.answer(ana, own, said("The nose is soft."))
        summary = stage.pull(here.workspace)
        assert (dict(summary.new), summary.changed) == ({"pair": 1}, 1)
        assert summary.reasons == {"the answer of a01 to this task counts": 1}
        kept = rows(here)
        status = {name: row["status"] for name, row in kept.items()}
        assert status == {
            f"{own}-{early}": "second", f"{own}-{late}": "ok", f"{others}-{first}": "ok", f"{others}-{second}": "second"
        }  # fmt: skip
        assert kept[f"{others}-{second}"]["description"] == "Answer 2."
        assert set(described(here)) == {f"{own}-{late}", f"{others}-{first}"}
        assert judged(here) == {f"{others}-{first}"}, "the verdict went with the answer"
        client.annotations.delete(id=first)
        summary = stage.pull(here.workspace)
        assert (summary.deleted, summary.changed) == (1, 1)
        assert rows(here)[f"{others}-{second}"]["status"] == "ok"
        assert set(described(here)) == {f"{own}-{late}", f"{others}-{second}"}
        assert stage.pull(here.workspace).changed == 0


def test_what_comes_to_a_withdrawn_task_is_kept_and_does_not_count(here):
    before, after = here.of("a01", "pair")[:2]
    with here.studio.client() as client:
        numbers = here.numbers()
        kept = send(client, numbers[before], said("Before.")).json()["id"]
        stage.pull(here.workspace)
        here.workspace.tasks.append(
            [row | {"status": "withdrawn", "reason": "its pair is excluded"} for row in here.assigned()
             if row["task_id"] in (before, after)]
        )  # fmt: skip
        late = send(client, numbers[after], said("After.")).json()["id"]
        client.annotations.update(id=kept, result=said("Before, and mended."))
        summary = stage.pull(here.workspace)
    assert summary.reasons == {"answered after it was withdrawn: its pair is excluded": 1}
    found = rows(here)
    assert {name: (row["status"], row["description"]) for name, row in found.items()} == {
        f"{before}-{kept}": ("ok", "Before, and mended."), f"{after}-{late}": ("withdrawn", "After.")
    }  # fmt: skip
    assert set(described(here)) == {f"{before}-{kept}"}
    assert len(here.workspace.annotations.read()) == 1


def test_a_draft_stays_one_whatever_becomes_of_it(here):
    drafted, foreign, own = here.of("a01", "pair")[:3]
    text = said("The nose is soft, says a model.")
    with here.studio.client() as client:
        numbers = here.numbers()
        made = {
            task: client.predictions.create(task=numbers[task], result=text, model_version=version).id
            for task, version in ((drafted, "draft:small@1"), (foreign, "segmenter@1"), (own, "draft:small@1"))
        }
        edited = send(client, numbers[drafted], text, parent_prediction=made[drafted]).json()["id"]
        send(client, numbers[foreign], text, parent_prediction=made[foreign])
        send(client, numbers[own], said("By nobody but me."))
        stage.pull(here.workspace)
        origins = {row["task_id"]: row["origin"] for row in rows(here).values()}
        assert origins == {drafted: "draft-edited", foreign: "human", own: "human"}
        client.predictions.delete(id=made[drafted])
        client.annotations.update(id=edited, result=said("All of it is mine now."))
        assert stage.pull(here.workspace).changed == 1
    assert rows(here)[f"{drafted}-{edited}"]["origin"] == "draft-edited"
    assert described(here)[f"{drafted}-{edited}"]["origin"] == "draft-edited"
    assert {row["label_studio"] for row in rows(here).values()} == {"1.23.2"}
    assert {len(row["page"]) for row in rows(here).values()} == {8}
    assert {row["view"] for row in rows(here).values()} == {"open"}


def test_deleted_accounts_and_clocks_that_differ(here):
    future, past, nobody, edited = here.of("a01", "pair")[:4]
    with here.studio.client() as client:
        numbers = here.numbers()
        made = {task: send(client, numbers[task], said(f"Of {task}.")).json()["id"] for task in (future, past, nobody)}
        ahead = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=900)
        execute(here, "UPDATE task_completion SET created_at = ?, updated_at = ? WHERE id = ?", str(ahead), str(ahead),
                made[future])  # fmt: skip
        execute(here, "UPDATE task_completion SET completed_by_id = NULL WHERE id = ?", made[nobody])
        with here.login("ana") as ana:
            made[edited] = here.answer(ana, edited, said("The nose is soft."))
        behind = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=1)
        execute(here, "UPDATE task_completion SET created_at = ? WHERE id = ?", str(behind), made[edited])
        summary = stage.pull(here.workspace)
        assert {warning.partition(":")[0]: n for warning, n in summary.warnings.items()} == {
            "submitted in the future": 1, "shown after it was submitted": 1
        }  # fmt: skip
        found = rows(here)
        assert {row["status"] for row in found.values()} == {"ok"}
        assert min(row["observation_s"] for row in found.values()) >= 0
        assert found[f"{edited}-{made[edited]}"]["observation_s"] == 75.5
        assert found[f"{nobody}-{made[nobody]}"]["annotator"] == "user-gone"
        assert stage.pull(here.workspace).changed == 0
        client.annotations.update(id=made[past], result=said("Mended after the clock was put right."))
        execute(here, "UPDATE task_completion SET completed_by_id = NULL WHERE id = ?", made[past])
        summary = stage.pull(here.workspace)
        assert summary.changed == 1, "a time in the future hides nothing"
        mended = rows(here)[f"{past}-{made[past]}"]
    assert mended["description"] == "Mended after the clock was put right."
    assert mended["annotator"].startswith("user-")
    assert mended["annotator"] == found[f"{past}-{made[past]}"]["annotator"] != "user-gone"


def test_what_is_typed_stays_and_half_a_character_is_refused(here):
    task = here.of("a01", "pair")[0]
    typed = "\u202eאבג <img src=x onerror=alert(1)>&amp; a\x00b 👩🏽‍🦰 \u200b\r\n\tz\u0301"
    with here.login("ana") as ana:
        here.answer(ana, task, said(typed))
        number = here.number(task)
        half = json.dumps({"result": said("half \ud83d")}).encode()
        asked = {"content": half, "headers": {"Content-Type": "application/json"}}
        refused = ana.post(f"/api/tasks/{here.number(here.of('a01', 'pair')[1])}/annotations/", **asked)
        assert (refused.status_code, "only half there" in refused.text) == (400, True)
        assert ana.post(f"/api/tasks/{number}/drafts", **asked).status_code == 400
    assert stage.pull(here.workspace).new == {"pair": 1}
    (row,) = rows(here).values()
    assert row["description"] == typed
    assert json.loads(row["result"])[0]["value"]["text"] == [typed]


def test_only_what_changed_is_read_and_no_snapshot_stays(here, monkeypatch):
    read = []

    def noted(name):
        original = getattr(submissions, name)

        def call(client, project, *more):
            read.append((name, project))
            return original(client, project, *more)

        monkeypatch.setattr(submissions, name, call)

    noted("listed")
    noted("exported")
    tasks, of_ben = here.of("a01", "pair")[:4], here.of("a02", "pair")[:4]
    with here.studio.client() as client:
        numbers = here.numbers()
        made = [send(client, numbers[task], said(f"Of {task}.")).json()["id"] for task in [*tasks, *of_ben]]
        mine, theirs = (client.tasks.get(str(numbers[name])).project for name in (tasks[0], of_ben[0]))
        old = client.projects.exports.create(mine, title=submissions.SNAPSHOT)
        execute(here, "UPDATE data_export_export SET created_at = '2020-01-01 00:00:00' WHERE id = ?", old.id)
        assert stage.pull(here.workspace).new == {"pair": 8}
        assert read == [("exported", mine), ("exported", theirs)]
        assert [client.projects.exports.list(number) for number in (mine, theirs)] == [[], []]
        media = here.studio.data / "label-studio" / "media" / "export"
        assert not [path for number in (mine, theirs) for path in (media / str(number)).glob("*")]
        read.clear()
        stage.pull(here.workspace)
        assert read == []
        client.annotations.update(id=made[1], result=said("Mended."))
        assert stage.pull(here.workspace).changed == 1
        assert read == [("listed", mine)]
        # a clock that was set back: the guard shows a change that no listing by time does
        client.annotations.update(id=made[1], result=said("Mended once more."))
        execute(here, "UPDATE task_completion SET updated_at = '2026-01-01 00:00:00' WHERE project_id = ?", mine)
        execute(here, "UPDATE task SET updated_at = '2026-01-01 00:00:00' WHERE project_id = ?", mine)
        assert stage.pull(here.workspace).changed == 4
        assert read[-1] == ("exported", mine)
        # without a guard every project is asked, and nothing else is different
        monkeypatch.setattr(submissions, "changed", lambda client: None)
        read.clear()
        assert stage.pull(here.workspace).changed == 0
        assert sorted(read) == sorted([("listed", mine), ("listed", theirs)])
        client.annotations.update(id=made[-1], result=said("Mended, too."))
        send(client, numbers[here.of("a02", "pair")[4]], said("One more."))
        client.annotations.delete(id=made[0])
        summary = stage.pull(here.workspace)
        assert (dict(summary.new), summary.changed, summary.deleted) == ({"pair": 1}, 1, 1)
    assert len(described(here)) == 8
