"""Work comes back: `pull` and `progress` on a real, guarded Label Studio."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from mmtt_build import parts
from mmtt_build.errors import ConfigError
from mmtt_build.stages.audit import audit
from mmtt_build.stages.export import export
from mmtt_build.stages.pull import observation
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
    data = {"pristine": "x", "forged": "x", "overlay": "x", "focus_x": "50%", "focus_y": "50%", "pair_id": "unheard-of"}
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


def test_progress_counts_per_annotator_and_batch(work):
    work.push("--batch-size", 4)
    tasks = work.of("a01", "pair")[:3]
    with work.login("ana") as ana:
        for task in tasks:
            work.answer(ana, task, said("The nose is soft."))
    work.pull()
    rows = json.loads(work("progress", "--json").stdout)
    batches = Counter((row["annotator"], row["batch"]) for row in work.assigned())
    assert {(row["annotator"], row["batch"]): row["tasks"] for row in rows} == batches
    assert sum(row["done"] for row in rows) == sum(row["today"] for row in rows) == 3
    mine = [row for row in rows if row["annotator"] == "a01"]
    pace = mine[0]["per_hour"]
    assert 3600 / 30 < pace < 3600 / WAIT_S
    assert mine[0]["hours_left"] == pytest.approx((mine[0]["tasks"] - mine[0]["done"]) / pace)
    assert {row["per_hour"] for row in rows if row["annotator"] == "a02"} == {None}
    shown = work("progress").stdout.splitlines()
    assert shown[0].split()[:5] == ["annotator", "batch", "tasks", "done", "today"]
    assert len(shown) == 1 + len(rows)


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
        (None, None, -5.0, -5.0),  # nonsense stays to be seen, and is too short
    ],
)
def test_observation_is_the_least_that_anything_says(previous, served, lead, expected):
    before = None if previous is None else NOON - timedelta(seconds=previous)
    first = None if served is None else NOON.timestamp() - served
    assert observation(NOON, before, first, lead) == expected
