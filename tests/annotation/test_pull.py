"""Work comes back: `pull` and `status` on a real, guarded Label Studio."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from annotation.access import TOKEN, URL
from mmtt_build import parts
from mmtt_build.errors import ConfigError
from mmtt_build.stages.audit import audit
from mmtt_build.stages.export import export
from mmtt_build.stages.receive import observation
from mmtt_build.stages.serve import POINTER
from tests.annotation.work import NOTHING, PEOPLE, WAIT_S, said

TYPED = 'Die Nase <b>ist</b> unscharf & "weich" 😀\n  <script>alert(1)</script>  鼻子很模糊'


def test_what_is_submitted_comes_back_as_typed_and_once(work):
    work.push()
    pair, nothing = work.of("a01", "pair")[:2]
    with work.login("ana") as ana:
        began = datetime.now(UTC)
        work.answer(ana, pair, said(TYPED, "eye.left", "eye.right", "nose"))
        work.answer(ana, nothing, NOTHING, lead_time=300.0)
    assert work.pull() == "pull: 2 pairs new, 0 changed, 0 deleted on the server"
    rows = work.submissions()
    row = rows[pair]
    assert (row["status"], row["kind"], row["annotator"], row["answer"]) == ("ok", "pair", "a01", "described")
    assert row["description"] == TYPED
    assert (row["language"], row["lead_time_s"], row["first"]) == ("en", 75.5, None)
    assert row["labels"] == parts.label_vector(["eye", "nose"])
    assert row["sides"] == ["eye.left", "eye.right"]
    assert began - timedelta(seconds=1) < row["served_at"] < row["created_at"] <= row["updated_at"] < datetime.now(UTC)
    seconds = (row["created_at"] - row["served_at"]).total_seconds()
    assert row["observation_s"] == pytest.approx(seconds, abs=1e-3)
    assert WAIT_S < row["observation_s"] < 10
    assert (rows[nothing]["answer"], rows[nothing]["description"]) == ("nothing-visible", None)
    kept = {r["annotation_id"]: r for r in work.workspace.annotations.read().to_pylist()}
    assert kept[row["annotation_id"]]["description"] == TYPED
    assert {r["forgery_id"] for r in kept.values()} == {
        r["forgery_id"] for r in work.assigned() if r["task_id"] in (pair, nothing)
    }
    before = [len(table.shards()) for table in (work.workspace.submissions, work.workspace.annotations)]
    assert work.pull() == "pull: nothing new, 0 changed, 0 deleted on the server"
    assert [len(table.shards()) for table in (work.workspace.submissions, work.workspace.annotations)] == before


def test_a_change_and_a_deletion_are_noticed_and_lose_their_verdict(work):
    work.push()
    changed, deleted = work.of("a01", "pair")[:2]
    with work.login("ana") as ana:
        numbers = [work.answer(ana, task, said(f"The nose is soft, {task}.")) for task in (changed, deleted)]
        work.pull()
        audit(work.workspace)
        assert len(work.workspace.findings.keys(verdict="accept")) == 2
        patched = ana.patch(f"/api/annotations/{numbers[0]}/", json={"result": said("The lips do not meet.", "lip")})
        assert patched.status_code == 200
    with work.studio.client() as client:
        client.annotations.delete(id=numbers[1])
    assert work.pull() == "pull: nothing new, 1 changed, 1 deleted on the server"
    rows = work.submissions()
    assert rows[changed]["description"] == "The lips do not meet."
    assert rows[changed]["labels"] == parts.label_vector(["lip"])
    assert rows[deleted]["status"] == "deleted"
    assert len(work.workspace.findings.keys(verdict="accept")) == 0
    audit(work.workspace)
    made = export(work.workspace, dry_run=True)
    assert sum(made.counts.values()) == 1
    assert made.left_out["deleted"] == 1
    assert work.pull() == "pull: nothing new, 0 changed, 0 deleted on the server"
    assert "0 mended, 0 doubles" in work.push()  # what was answered and deleted is open again, and still there


def test_repeats_and_controls_never_reach_a_release(work):
    work.push()
    tasks = [(row["task_id"], row["annotator"]) for row in work.assigned() if row["kind"] != "pair"]
    for name, annotator in zip(PEOPLE, ("a01", "a02"), strict=True):
        with work.login(name) as session:
            for task in [task for task, of in tasks if of == annotator]:
                work.answer(session, task, said("The nose is soft."))
    assert work.pull() == "pull: 1 controls, 2 repeats new, 0 changed, 0 deleted on the server"
    assert Counter(row["kind"] for row in work.submissions().values()) == {"repeat": 2, "control": 1}
    assert len(work.workspace.annotations.read()) == 0
    audit(work.workspace)
    with pytest.raises(ConfigError, match="nothing to export: 12 not described yet"):
        export(work.workspace)


def test_what_cannot_be_read_or_placed_is_kept_and_said(work):
    work.push()
    strange, foreign = work.of("a02", "pair")[:2]
    project = work.projects()[next(row["project"] for row in work.assigned() if row["task_id"] == strange)]
    data = {"pristine": "x", "forged": "x", "mask": "x", "focus_x": "50%", "focus_y": "50%", "pair_id": "unheard-of"}
    with work.studio.client() as client:
        client.projects.import_tasks(id=project, request=[{"data": data}])
        odd = [{"from_name": "parts", "to_name": "pair", "type": "choices", "value": {"choices": ["third eye"]}}]
        client.annotations.create(id=work.numbers()[strange], result=odd, lead_time=70.0)
        client.annotations.create(id=work.numbers()["unheard-of"], result=said("What is this?"))
        client.annotations.create(id=work.numbers()[foreign], result=said("By nobody on the list."), lead_time=61.0)
    done = work("pull")
    assert done.stdout.startswith("pull: 2 pairs, 1 unknown-tasks new, 0 changed")
    assert "parts says ['third eye']" in done.stdout
    rows = work.submissions()
    assert (rows[strange]["status"], rows["unheard-of"]["status"]) == ("unreadable", "unknown-task")
    assert json.loads(rows["unheard-of"]["result"])[0]["value"]["text"] == ["What is this?"]
    assert re.fullmatch(r"user-\d+", rows[foreign]["annotator"])
    kept = {row["answer"]: row for row in work.workspace.annotations.read().to_pylist()}
    assert set(kept) == {"unreadable", "described"}
    assert kept["unreadable"]["labels"] is None
    assert work.pull() == "pull: nothing new, 0 changed, 0 deleted on the server"


def test_a_deleted_project_keeps_its_words_and_comes_back_without_them(work):
    work.push()
    done, *rest = [row["task_id"] for row in work.assigned() if row["annotator"] == "a01"]
    with work.login("ana") as ana:
        work.answer(ana, done, said("The nose is soft."))
    work.pull()
    (title,) = {row["project"] for row in work.assigned() if row["annotator"] == "a01"}
    with work.studio.client() as client:
        client.projects.delete(id=work.projects()[title])
    pulled = work("pull")
    assert f"project {title} is not on the server; what came from it is kept" in pulled.stderr
    assert work.submissions()[done]["description"] == "The nose is soft."
    assert work("push").returncode == 0
    assert sorted(task for of, task in work.there() if of == title) == sorted(rest)


def test_status_counts_per_annotator_and_batch(work):
    work.push("--batch-size", 4)
    tasks = work.of("a01", "pair")[:3]
    with work.login("ana") as ana:
        for task, text in zip(tasks, ("The nose is soft.", "word " * 120, "The lips do not meet."), strict=True):
            work.answer(ana, task, said(text))
    work.pull()
    work.workspace.findings.append(
        [{"annotation_id": work.submissions()[tasks[1]]["annotation_id"], "verdict": "reject"}]
    )
    done = work("status", "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert (told["server"]["url"], told["server"]["problem"]) == (work.studio.access.url, None)
    rows = told["batches"]
    batches = Counter((row["annotator"], row["batch"]) for row in work.assigned())
    assert {(row["annotator"], row["batch"]): row["tasks"] for row in rows} == batches
    mine = [row for row in rows if row["annotator"] == "a01"]
    pace = mine[0]["per_hour"]
    assert 0 < pace < 3600 / WAIT_S
    assert mine[0]["hours_left"] == pytest.approx((mine[0]["tasks"] - mine[0]["done"]) / pace)
    assert {row["per_hour"] for row in rows if row["annotator"] == "a02"} == {None}
    for column, expected in (("tasks", batches.total()), ("done", 3), ("today", 3), ("repair", 1)):
        assert sum(row[column] for row in rows) == told["totals"][column] == expected
    left = sum(row["tasks"] - row["done"] for row in mine)
    assert told["totals"]["hours_left"] == pytest.approx(left / pace)
    server, shown = work("status").stdout.split("\n\n")
    assert "token    accepted" in server
    assert shown.split()[:6] == ["annotator", "batch", "tasks", "done", "today", "repair"]
    assert len(shown.splitlines()) == 1 + len(rows) + 1


def test_status_needs_no_server_for_what_is_in_the_tables(work, monkeypatch):
    (work.workspace.root / POINTER).unlink()
    nothing = work("status")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "has no annotation server yet\n  -> mmtt annotate serve" in nothing.stderr
    work.workspace.tasks.append(
        [{"task_id": f"t{n}", "kind": "pair", "annotator": "a01", "batch": 1, "project": "p", "status": status}
         for n, status in enumerate((None, "open", "withdrawn"))]
    )  # fmt: skip
    without = work("status")
    assert without.returncode == 1
    assert without.stdout.splitlines()[-1].split()[:4] == ["all", "1", "2", "0"]
    monkeypatch.setitem(work.studio.variables, URL, "http://127.0.0.1:9")
    monkeypatch.setitem(work.studio.variables, TOKEN, "0" * 40)
    down = work("status", "--json")
    told = json.loads(down.stdout)
    assert (down.returncode, told["totals"]["tasks"]) == (1, 2)
    assert "does not answer" in told["server"]["problem"]


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("previous", "served", "lead", "expected"),
    [
        (None, None, None, None),  # nothing tells
        (None, None, 80.0, 80.0),  # a browser's word
        (20, None, 80.0, 20.0),  # a tab beside another
        (4000, None, 80.0, 80.0),  # after a break
        (4000, None, None, None),  # a break is no observation
        (None, 70, 80.0, 70.0),  # the server saw it for less
        (None, 90, 80.0, 80.0),
        (30, 70, 1e9, 30.0),  # 30 tabs, and a claim
        (4000, 70, None, 70.0),
        (None, None, -5.0, 0.0),  # nonsense is no time at all
        (None, -3, 80.0, 80.0),  # shown after it came: the clock was set back, and tells nothing
        (None, -3, None, None),
    ],
)
def test_observation_is_the_least_that_anything_says(previous, served, lead, expected):
    before = None if previous is None else NOON - timedelta(seconds=previous)
    first = None if served is None else NOON.timestamp() - served
    assert observation(NOON, before, first, lead) == expected
