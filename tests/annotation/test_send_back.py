"""Rejected work goes back to who did it, and comes again: on a real, guarded Label Studio."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from annotation import page, people, repair
from mmtt_build.errors import ConfigError
from mmtt_build.stages.audit import audit
from mmtt_build.stages.pull import pull
from mmtt_build.stages.push import Options, push
from mmtt_build.stages.send_back import Selection, send_back
from mmtt_build.stages.serve import HOME
from tests.annotation.work import WAIT_S, Work, said

BAD = "Unlike the original image, the nose is blurred and too dark."
GOOD = "The nose is blurred and too dark."
UNUSED = "This pair is not used any more, which is no fault of yours. Choose 'broken pair' and submit it."
REASON = "“Unlike the original”: no word on the pristine image, please, or on the comparison."


@pytest.fixture
def answered(work, monkeypatch) -> tuple[Work, str, str]:
    """A bad answer of Ana's, judged, with its task and its id."""
    monkeypatch.setenv(HOME, str(work.studio.home))
    push(work.workspace, annotators=work.people, options=Options(repeats=0.2, controls=0.1))
    task = work.of("a01", "pair")[0]
    with work.login("ana") as ana:
        number = work.answer(ana, task, said(BAD))
        (project,) = {work.projects()[row["project"]] for row in work.assigned() if row["task_id"] == task}
        assert ana.get(f"/api/projects/{project}/next").json()["data"]["pair_id"] != task  # as a browser does
    pull(work.workspace)
    audit(work.workspace)
    return work, task, f"{task}-{number}"


def rows(table):
    return {row[table.key]: row for row in table.read().to_pylist()}


def data_of(work, task):
    with work.studio.client() as client:
        return dict(client.tasks.get(id=str(work.number(task))).data)


def test_a_text_goes_back_with_its_reason_and_comes_again_as_another_version(answered):
    work, task, name = answered
    summary = send_back(work.workspace, Selection(), "Lea")
    assert (summary.sent, dict(summary.annotators), dict(summary.skipped)) == ({name: [REASON]}, {"a01": 1}, {})
    row = rows(work.workspace.submissions)[name]
    assert (row["status"], row["reason"], row["description"]) == ("sent-back", REASON, BAD)
    kept = rows(work.workspace.annotations)[name]
    assert (kept["answer"], kept["description"], kept["labels"]) == ("sent-back", None, None)
    assert rows(work.workspace.findings)[name]["verdict"] is None
    note = rows(work.workspace.sent_back)[name]
    assert (note["status"], note["by"], note["rules"]) == ("sent", "Lea", ["text.original"])
    assert send_back(work.workspace, Selection(), "Lea").sent == {}, "once"
    assert data_of(work, task)["notice"].endswith(REASON)
    number = work.number(task)
    with work.login("ana") as ana:
        (project,) = {work.projects()[r["project"]] for r in work.assigned() if r["task_id"] == task}
        following = ana.get(f"/api/projects/{project}/next").json()
        assert following["id"] == number, "it is what they get next"
        (draft,) = following["drafts"]
        assert page.read(draft["result"]).text == BAD
        sent = {"result": said(GOOD), "draft_id": draft["id"], "lead_time": 75.5}
        early = ana.post(f"/api/tasks/{number}/annotations/", json=sent)
        assert (early.status_code, "look at the pair" in early.text) == (400, True), "the wait begins anew"
        time.sleep(WAIT_S + 0.3)
        again = ana.post(f"/api/tasks/{number}/annotations/", json=sent)
        assert again.status_code == 201
        assert ana.get(f"/api/tasks/{number}/").json()["drafts"] == []
    assert "notice" not in data_of(work, task)
    pull(work.workspace)
    audit(work.workspace)
    versions = {n: row for n, row in rows(work.workspace.submissions).items() if row["task_id"] == task}
    assert {n: (row["status"], row["description"]) for n, row in versions.items()} == {
        name: ("sent-back", BAD), f"{task}-{again.json()['id']}": ("ok", GOOD),
    }  # fmt: skip
    repaired = versions[f"{task}-{again.json()['id']}"]
    assert repaired["served_at"] > row["updated_at"], "seconds are those of the second look"
    assert WAIT_S <= repaired["observation_s"] < 60
    assert rows(work.workspace.findings)[repaired["annotation_id"]]["verdict"] == "accept"


def test_a_push_keeps_the_reasons(answered):
    work, task, _ = answered
    send_back(work.workspace, Selection(), "Lea")
    before = data_of(work, task)
    moved = push(work.workspace, images_url="http://127.0.0.1:1/elsewhere")
    after = data_of(work, task)
    assert moved.changes.mended == moved.open == len(work.assigned())
    assert (after["notice"], after["forged"] != before["forged"]) == (before["notice"], True)


def test_what_is_not_rejected_work_of_somebody_who_is_there_stays(answered):
    work, _, name = answered
    pairs, (repeat,) = work.of("a01", "pair"), work.of("a01", "repeat")[:1] or work.of("a02", "repeat")[:1]
    good, changed, broken, fast = pairs[1:5]
    who = next(row["annotator"] for row in work.assigned() if row["task_id"] == repeat)
    with work.login({"a01": "ana", "a02": "ben"}[who]) as person:
        work.answer(person, repeat, said("A hard seam runs along the left cheek."))
    with work.login("ana") as ana:
        work.answer(ana, good, said(GOOD))
        number = work.answer(ana, changed, said("Unlike the original, the lips are smeared."))
        work.answer(ana, broken, BROKEN)
        work.answer(ana, fast, said("Strands of hair end in the air above the ear."))
        pull(work.workspace)
        audit(work.workspace)
        ids = {row["task_id"]: key for key, row in rows(work.workspace.submissions).items()}
        accuse(work, ids[broken], "time.too-short")
        accuse(work, ids[repeat], "labels.out-of-mask")
        accuse(work, ids[fast], "row.forgery")
        assert ana.patch(f"/api/annotations/{number}/", json={"result": said(GOOD)}).status_code == 200
    shown = send_back(work.workspace, Selection(), "Lea", dry_run=True)
    assert set(shown.sent) == {name, ids[changed], ids[fast]}, "as of the last pull"
    assert rows(work.workspace.sent_back) == {}
    with pytest.raises(ConfigError, match=f"no answer '{name}x'\n.*{name}"):
        send_back(work.workspace, Selection((f"{name}x",)), "Lea")
    with pytest.raises(ConfigError, match=r"'a09'.*\n.*a01, a02"):
        send_back(work.workspace, Selection(annotator="a09"), "Lea")
    with pytest.raises(ConfigError, match=r"no rule 'text\.orginal'"):
        send_back(work.workspace, Selection(rules=("text.orginal",)), "Lea")
    assert send_back(work.workspace, Selection(annotator="a02", rules=("text.original",)), "Lea").sent == {}
    named = send_back(work.workspace, Selection(tuple(ids[task] for task in (good, changed))), "Lea")
    assert dict(named.skipped) == {
        "its verdict is accept": [ids[good]], "not judged yet, or changed since: mmtt qc audit": [ids[changed]],
    }  # fmt: skip
    others = send_back(work.workspace, Selection(rules=("time.too-short", "labels.out-of-mask", "row.forgery")), "Lea")
    assert {why: set(names) for why, names in others.skipped.items()} == {
        "says that the pair is broken: look at it": {ids[broken]},
        "no reason that its annotator may be told": {ids[repeat]},
    }
    assert others.sent == {ids[fast]: [UNUSED]}
    folder = work.studio.data
    known = people.load(folder)
    people.save(folder, known | {"a01": replace(known["a01"], left="2026-01-01")})
    try:
        assert send_back(work.workspace, Selection((name,)), "Lea").skipped == {"its annotator has left": [name]}
    finally:
        people.save(folder, known)
    assert list(send_back(work.workspace, Selection(), "Lea").sent) == [name]


BROKEN = [{"from_name": "answer", "to_name": "pair", "type": "choices", "value": {"choices": ["broken-pair"]}}]


def accuse(work, name, rule):
    row = rows(work.workspace.findings)[name]
    finding = {"rule": rule, "severity": "reject", "message": "by the test", "spans": []}
    work.workspace.findings.append([row | {"verdict": "reject", "findings": [finding]}])


def test_a_server_that_is_not_guarded_shows_what_was_written(answered, monkeypatch):
    work, task, name = answered
    monkeypatch.setattr(repair, "guarded", lambda client: False)
    assert list(send_back(work.workspace, Selection(), "Lea").sent) == [name]
    assert rows(work.workspace.submissions)[name]["status"] == "sent-back"
    assert data_of(work, task)["notice"].endswith(f"{REASON}\nYou wrote: {BAD}")
    with work.studio.client() as client:
        assert client.annotations.list(id=work.number(task)) == []


KILLED = """
import os, signal, sys
import httpx
from pathlib import Path
from mmtt_build.stages.send_back import Selection, send_back
from mmtt_build.store import Table
from mmtt_build.workspace import Workspace

root, moment, number = sys.argv[1:]
send, append, seen = httpx.Client.send, Table.append, 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def watched(client, request, **options):
    response = send(client, request, **options)
    if moment == "server" and request.url.path == "/mmtt/return":  # it has done it, and nobody has heard so
        die()
    return response

def watched_append(table, rows):
    global seen
    seen += table.folder.name == moment
    if table.folder.name == moment and seen == int(number):
        die()
    append(table, rows)

httpx.Client.send, Table.append = watched, watched_append
send_back(Workspace(Path(root)), Selection(), "killed")
"""


@pytest.mark.parametrize(
    ("moment", "noted"),
    [
        (("sent_back", 1), None), (("server", 1), "pending"), (("sent_back", 2), "pending"),
        (("annotations", 1), "sent"), (("submissions", 1), "sent"),
    ],
    ids=["before anything", "the server has done it", "before it is noted", "before the answers", "amid the answers"],
)  # fmt: skip
def test_what_is_killed_is_finished_by_the_next(answered, moment, noted):
    work, task, name = answered
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(work.workspace.root), *map(str, moment)], env=work.studio.environment,
        capture_output=True, timeout=120, cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert rows(work.workspace.sent_back).get(name, {}).get("status") == noted
    assert rows(work.workspace.submissions)[name]["status"] == "ok"
    again = send_back(work.workspace, Selection(), "Lea")
    assert list(again.sent) == ([name] if noted is None else [])
    row = rows(work.workspace.submissions)[name]
    assert (row["status"], row["reason"], row["description"]) == ("sent-back", REASON, BAD)
    assert rows(work.workspace.sent_back)[name]["status"] == "sent"
    assert rows(work.workspace.annotations)[name]["answer"] == "sent-back"
    with work.login("ana") as ana:
        (draft,) = ana.get(f"/api/tasks/{work.number(task)}/").json()["drafts"]
    assert page.read(draft["result"]).text == BAD


def test_what_somebody_deletes_did_not_go_back(answered):
    work, _, name = answered
    work.workspace.sent_back.append([{"annotation_id": name, "reasons": [], "status": "dropped"}])
    with work.studio.client() as client:
        client.annotations.delete(id=int(name.rpartition("-")[2]))
    pull(work.workspace)
    assert rows(work.workspace.submissions)[name]["status"] == "deleted"
