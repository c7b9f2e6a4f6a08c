"""The guard on a real server: limits and roles by HTTP, and the log that is behind the wait."""

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from annotation import environment, guard, page
from annotation.guard.mmtt_guard import TESTED
from annotation.guard.mmtt_guard.served import Served
from tests.annotation.guarded import SECONDS, running


@pytest.fixture(scope="module")
def guarded(new_studio, first_start):
    with running(new_studio(), first_start) as server:
        yield server


def said(text, *ticks):
    return [
        {"from_name": "parts", "to_name": "pair", "type": "choices", "value": {"choices": list(ticks or ("nose",))}},
        {"from_name": "description", "to_name": "pair", "type": "textarea", "value": {"text": [text]}},
    ]


BROKEN = [{"from_name": "answer", "to_name": "pair", "type": "choices", "value": {"choices": ["broken-pair"]}}]


def open_task(client, task):
    return client.get(f"/api/tasks/{task}/").raise_for_status().json()


def submit(client, task, result=None, **more):
    return client.post(
        f"/api/tasks/{task}/annotations/", json={"result": result or said("The nose is blurred."), **more}
    )


def submitted(server, client, task):
    """A submission after the wait."""
    open_task(client, task)
    server.wait()
    return submit(client, task).raise_for_status().json()["id"]


def annotations(server, task):
    with server.admin() as admin:
        return admin.get(f"/api/tasks/{task}/annotations/").raise_for_status().json()


def test_a_description_waits_its_time_and_keeps_its_length(guarded):
    _, (task, *_) = guarded.project("limits", "ann")
    with guarded.login("ann") as ann:
        unseen = submit(ann, task)
        assert unseen.status_code == 400, "a task that was never opened"
        open_task(ann, task)
        early = submit(ann, task)
        assert early.status_code == 400
        assert f"look at the pair for {SECONDS:g} s" in early.json()["detail"]
        guarded.wait()
        long = submit(ann, task, said("word " * 130))
        assert (long.status_code, long.json()["detail"]) == (400, "the description has 130 words, at most 120")
        split = submit(ann, task, said("word " * 70) + said("word " * 70)[1:])
        assert "140 words" in split.json()["detail"]
        assert annotations(guarded, task) == []
        assert submit(ann, task).status_code == 201
        again = submit(ann, task)
        assert (again.status_code, "already" in again.json()["detail"]) == (409, True)
    (kept,) = annotations(guarded, task)
    assert page.read(kept["result"]).text == "The nose is blurred."


def test_an_update_keeps_the_length_and_needs_no_second_wait(guarded):
    project, (task, *_) = guarded.project("updates", "ann")
    with guarded.login("ann") as ann:
        address = f"/api/annotations/{submitted(guarded, ann, task)}/"
        assert "130 words" in ann.patch(address, json={"result": said("word " * 130)}).json()["detail"]
        assert ann.patch(address, json={"result": said("The nose is red.")}).status_code == 200
        for moved in ({"task": task + 1}, {"completed_by": 1}, {"project": project + 1}, {"ground_truth": True}):
            assert ann.patch(address, json={"result": said("x"), **moved}).status_code in (400, 403), moved
    (kept,) = annotations(guarded, task)
    assert page.read(kept["result"]).text == "The nose is red."


def test_a_submission_is_what_the_page_sends(guarded):
    _, (task, *_) = guarded.project("bodies", "ann")
    with guarded.login("ann") as ann:
        open_task(ann, task)
        guarded.wait()
        address = f"/api/tasks/{task}/annotations/"
        assert submit(ann, task, completed_by=1).status_code == 400
        assert submit(ann, task, was_cancelled=True).status_code == 400
        assert ann.post(f"{address}?was_cancelled=1", json={"result": said("x")}).status_code == 400
        assert submit(ann, task, bulk_created=True).status_code == 400
        assert ann.post(address, data={"result": "[]"}).status_code == 415
        assert ann.post(address, content=b"[]", headers={"Content-Type": "application/json"}).status_code == 400
        assert annotations(guarded, task) == []
        assert submit(ann, task, lead_time=3.5).status_code == 201


def test_tabs_side_by_side_gain_nothing(guarded):
    _, tasks = guarded.project("tabs", "ann")
    with guarded.login("ann") as ann:
        for task in tasks:
            open_task(ann, task)
        guarded.wait()
        with ThreadPoolExecutor(3) as pool:
            statuses = sorted(answer.status_code for answer in pool.map(lambda task: submit(ann, task), tasks))
        assert statuses == [201, 400, 400]
        waiting = [task for task in tasks if not annotations(guarded, task)]
        guarded.wait()
        assert submit(ann, waiting[0]).status_code == 201
        assert submit(ann, waiting[1]).status_code == 400


def test_a_broken_pair_takes_no_minute_and_is_no_way_around_it(guarded):
    _, (task, *_) = guarded.project("broken", "ann")
    with guarded.login("ann") as ann:
        open_task(ann, task)
        made = submit(ann, task, BROKEN)
        assert made.status_code == 201
        address = f"/api/annotations/{made.json()['id']}/"
        assert ann.patch(address, json={"result": said("The nose is blurred.")}).status_code == 400
        guarded.wait()
        assert ann.patch(address, json={"result": said("The nose is blurred.")}).status_code == 200


@pytest.fixture(scope="module")
def work(guarded):
    """Ann's annotation in a project of her own and in one that she shares with Ben."""
    own, (task, *_) = guarded.project("hers", "ann")
    shared, (common, *_) = guarded.project("shared", "ann", "ben")
    with guarded.login("ann") as ann:
        made = {
            "own": own, "task": task, "annotation": submitted(guarded, ann, task),
            "shared": shared, "common": common, "theirs": submitted(guarded, ann, common),
        }  # fmt: skip
        made["draft"] = ann.post(f"/api/tasks/{common}/drafts", json={"result": said("secret")}).json()["id"]
        made["view"] = ann.get("/api/dm/views/", params={"project": own}).json()
    with guarded.admin() as admin:
        made["view"] = admin.post("/api/dm/views/", json={"project": own, "data": {"title": "t"}}).json()["id"]
    return made


FORBIDDEN = [
    ("GET", "/api/tasks/{task}/", None),
    ("GET", "/api/tasks/{task}/annotations/", None),
    ("POST", "/api/tasks/{task}/annotations/", {"result": []}),
    ("GET", "/api/annotations/{annotation}/", None),
    ("GET", "/api/annotations/{theirs}/", None),
    ("PATCH", "/api/annotations/{theirs}/", {"result": []}),
    ("PATCH", "/api/annotations/{theirs}", {"completed_by": 3}),
    ("PUT", "/api/annotations/{theirs}/", {"result": []}),
    ("DELETE", "/api/annotations/{theirs}/", None),
    ("POST", "/api/annotations/{theirs}/convert-to-draft", {}),
    ("GET", "/api/drafts/{draft}/", None),
    ("PATCH", "/api/drafts/{draft}/", {"result": []}),
    ("DELETE", "/api/drafts/{draft}/", None),
    ("GET", "/api/tasks/{common}/agreement/", None),
    ("DELETE", "/api/tasks/{common}/", None),
    ("PATCH", "/api/tasks/{common}/", {"data": {}}),
    ("GET", "/api/tasks/?project={own}", None),
    ("GET", "/api/tasks/?project={shared}&project={own}", None),
    ("GET", "/api/tasks/?project={shared}&view={view}", None),
    ("GET", "/api/tasks/", None),
    ("GET", "/api/dm/project/?project={own}", None),
    ("GET", "/api/projects/{own}/", None),
    ("PATCH", "/api/projects/{shared}/", {"title": "mine now"}),
    ("DELETE", "/api/projects/{shared}/", None),
    ("POST", "/api/projects/", {"title": "another"}),
    ("POST", "/api/projects/{shared}/import", [{"data": {}}]),
    ("GET", "/api/projects/{shared}/export?exportType=JSON", None),
    ("GET", "/api/projects/{shared}/exports/", None),
    ("POST", "/api/projects/{shared}/exports/", {}),
    ("GET", "/projects/{shared}/data/export", None),
    ("GET", "/projects/{shared}/settings/", None),
    ("POST", "/api/dm/actions/?id=delete_tasks&project={shared}", {"selectedItems": {"all": True, "excluded": []}}),
    ("POST", "/api/dm/actions/?id=next_task&id=delete_tasks&project={shared}", {"selectedItems": {"all": True}}),
    ("POST", "/api/dm/actions/?id=next_task&project={own}", {}),
    ("DELETE", "/api/dm/views/{view}/", None),
    ("POST", "/api/storages/localfiles/", {"project": 1, "path": "/"}),
    ("POST", "/api/webhooks/", {"url": "http://127.0.0.1:1/"}),
    ("POST", "/api/webhooks/", {"url": "http://127.0.0.1:1/", "project": 1}),
    ("GET", "/api/webhooks/", None),
    ("GET", "/api/webhooks/info/", None),
    ("POST", "/api/projects/{shared}/import", {"url": "http://127.0.0.1:1/"}),
    ("POST", "/api/projects/{shared}/reimport", {"url": "http://127.0.0.1:1/"}),
    ("POST", "/api/ml/", {"url": "http://127.0.0.1:1/", "project": 1}),
    ("POST", "/mmtt/return", {"annotation": 1, "updated_at": "2026-01-01T00:00:00Z", "notice": "x"}),
    ("GET", "/api/invite", None),
    ("POST", "/api/users/", {"email": "x@lab.example"}),
    ("POST", "/api/token/", {}),
    ("GET", "/api/current-user/token", None),
    ("POST", "/api/current-user/reset-token/", {}),
    ("GET", "/api/organizations/1/memberships", None),
    ("GET", "/data/upload/1/any.png", None),
    ("GET", "/admin/", None),
    ("GET", "/mmtt/served", None),
]


@pytest.mark.parametrize("by", ["session", "token", "session and a wrong token"])
def test_another_annotator_is_refused(guarded, work, by):
    key = token(guarded, "ben") if by == "token" else "f" * 40
    headers = {} if by == "session" else {"Authorization": f"Token {key}"}
    bare = httpx.Client(base_url=guarded.url, timeout=60)
    passed = []
    with bare if by == "token" else guarded.login("ben") as client:
        for method, address, body in FORBIDDEN:
            answer = client.request(method, address.format(**work), json=body, headers=headers)
            if answer.status_code not in (401, 403, 404):
                passed.append((method, address, answer.status_code, answer.text[:200]))
        allowed = client.get(f"/api/projects/{work['shared']}/", headers=headers if by == "token" else {})
    assert passed == []
    assert allowed.status_code == 200, "what is allowed still works, so it was the guard that refused"
    (kept,) = annotations(guarded, work["common"])
    assert (kept["id"], page.read(kept["result"]).text) == (work["theirs"], "The nose is blurred.")
    with guarded.admin() as admin:
        assert admin.get(f"/api/projects/{work['shared']}/").json()["title"] == "shared"
        assert admin.get(f"/api/drafts/{work['draft']}/").json()["result"] == said("secret")


def token(server, name):
    """As somebody who has seen the database would know it: annotators are never shown theirs."""
    with sqlite3.connect(server.database) as database:
        query = "SELECT key FROM authtoken_token t JOIN htx_user u ON u.id = t.user_id WHERE u.email = ?"
        return database.execute(query, (f"{name}@lab.example",)).fetchone()[0]


def test_in_a_shared_project_annotators_see_their_own_work_only(guarded, work):
    with guarded.login("ben") as ben:
        seen = open_task(ben, work["common"])
        assert (seen["annotations"], seen["drafts"]) == ([], [])
        assert ben.get(f"/api/tasks/{work['common']}/annotations/").json() == []
        assert ben.get(f"/api/tasks/{work['common']}/drafts").json() == []
        listed = ben.get("/api/tasks/", params={"project": work["shared"], "fields": "all"}).text
        assert "blurred" not in listed
        assert "secret" not in listed
        assert [user["email"] for user in ben.get("/api/users/").json()] == ["ben@lab.example"]
        assert work["own"] not in [project["id"] for project in ben.get("/api/projects/").json()["results"]]
        assert work["shared"] in [project["id"] for project in ben.get("/api/projects/").json()["results"]]
    with guarded.login("ann") as ann:
        seen = open_task(ann, work["common"])
        assert [one["id"] for one in seen["annotations"]] == [work["theirs"]]
        assert "blurred" in ann.get("/api/tasks/", params={"project": work["shared"], "fields": "all"}).text


def test_a_project_that_names_nobody_is_the_administrators(guarded):
    project, (task, *_) = guarded.project("nobodys")
    with guarded.login("ann") as ann:
        assert ann.get(f"/api/projects/{project}/").status_code == 403
        assert ann.get(f"/api/tasks/{task}/").status_code == 403


def test_the_log_outlives_a_restart_and_is_the_administrators(guarded):
    _, (task, other, *_) = guarded.project("restart", "cem")
    began = time.time()
    with guarded.login("cem") as cem:
        open_task(cem, task)
    with guarded.admin() as admin:
        (row,) = (row for row in lines(admin, began) if row["task"] in (task, other))
    assert began <= row["served_at"] <= time.time()
    guarded.wait()
    guarded.restart()
    with guarded.login("cem") as cem:
        open_task(cem, task)
        assert submit(cem, task).status_code == 201
    with guarded.admin() as admin:
        (row,) = (row for row in lines(admin, began) if row["task"] in (task, other))
        assert admin.get("/mmtt/about").json() == {"label_studio": TESTED, "tested": TESTED}
    assert row["submitted_at"] - row["served_at"] >= SECONDS


def lines(admin, since):
    return [json.loads(line) for line in admin.get("/mmtt/served", params={"since": since}).text.splitlines()]


def test_the_guard_is_tested_with_the_version_that_is_installed():
    assert environment.VERSION == TESTED


def test_workers_share_the_log(tmp_path):
    """Of several workers that get a submission at the same moment, each with the log open, one accepts."""
    logs = [Served(tmp_path / "served.sqlite3") for _ in range(4)]
    for task in range(4):
        logs[0].mark(1, task, 50.0, 100.0)
    with ThreadPoolExecutor(4) as pool:
        refused = list(pool.map(lambda n: logs[n].claim(1, n, 50.0, 161.0, 60), range(4)))
    assert sorted(refused, key=str) == [0.0, 0.0, 0.0, None]


def test_a_submission_that_the_server_refused_is_taken_back(tmp_path):
    log = Served(tmp_path / "served.sqlite3")
    log.mark(1, 5, 50.0, 100.0)
    assert log.claim(1, 5, 50.0, 130.0, 60) == 30.0
    assert log.claim(1, 5, 50.0, 160.0, 60) is None
    log.release(1, 5, 160.0)
    assert log.spent(1, 5, 170.0) == 70.0
    assert log.claim(2, 5, 50.0, 170.0, 60) == 0.0


@pytest.mark.parametrize("made", [180.0, 20.0])
def test_a_task_that_takes_a_deleted_ones_number_takes_nothing_of_its_time(tmp_path, made):
    """Made later, or earlier by a clock that was set back."""
    log = Served(tmp_path / "served.sqlite3")
    log.mark(1, 5, 50.0, 100.0)
    assert log.claim(1, 5, 50.0, 170.0, 60) is None
    log.mark(1, 6, 50.0, 100.0)
    assert log.claim(1, 5, made, 181.0, 60, only=True) == 0.0
    log.mark(1, 5, made, 190.0)
    assert log.claim(1, 5, made, 249.0, 60, only=True) == 59.0
    assert log.spent(1, 6, 231.0) == 61.0  # the deleted one was submitted at 170
    assert log.claim(1, 5, made, 250.0, 60, only=True) is None


def test_a_project_in_the_place_of_a_deleted_one_begins_anew(guarded):
    project, tasks = guarded.project("first", "cem")
    with guarded.login("cem") as cem, guarded.admin() as admin:
        open_task(cem, tasks[0])
        open_task(cem, tasks[1])
        guarded.wait()
        assert submit(cem, tasks[0]).status_code == 201
        assert admin.delete(f"/api/projects/{project}/").status_code == 204
        assert guarded.project("second", "cem")[1] == tasks
        for task in tasks[:2]:
            assert submit(cem, task).status_code == 400  # unseen, and asked directly
            open_task(cem, task)
            early = submit(cem, task)
            assert (early.status_code, "look at the pair for" in early.json()["detail"]) == (400, True)
            guarded.wait()
            assert submit(cem, task).status_code == 201


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("  one two\nthree ", 3), ("it's re-lit", 2), ("眼睛模糊 eye", 5), ("鼻子，红。", 3)]
)
def test_words(text, count):
    assert guard.words(text) == count


def test_a_paste_of_5000_words_is_refused_and_strange_text_stays_whoever_comes_second(guarded):
    _, (task, *_) = guarded.project("pastes", "ann")
    strange = (
        'A nose \U0001f468\u200d\U0001f469\u200d\U0001f467 <img src=x onerror="alert(1)"> </script> \u202e鼻 \u0301'
    )
    with guarded.login("ann") as ann:
        open_task(ann, task)
        guarded.wait()
        pasted = submit(ann, task, said("word " * 5000))
        assert (pasted.status_code, pasted.json()["detail"]) == (400, "the description has 5000 words, at most 120")
        assert annotations(guarded, task) == []
        assert submit(ann, task, said(strange)).status_code == 201
        with guarded.login("ann") as elsewhere:
            second = submit(elsewhere, task, said("From another browser."))
        assert (second.status_code, "you have answered this pair already" in second.json()["detail"]) == (409, True)
    (kept,) = annotations(guarded, task)
    assert page.read(kept["result"]).text == strange


def test_of_two_browsers_that_submit_at_once_one_comes_second(guarded):
    """However close they are: the first text stays, and the other is told."""
    _, tasks = guarded.project("browsers", "ann", tasks=6)
    with guarded.login("ann") as one, guarded.login("ann") as other, ThreadPoolExecutor(2) as pool:
        for task in tasks:
            for browser in (one, other):
                open_task(browser, task)
            guarded.wait()
            sent = [pool.submit(submit, browser, task, said(f"By {n}.")) for n, browser in enumerate((one, other))]
            answers = [future.result() for future in sent]
            assert sorted(answer.status_code for answer in answers) == [201, 409]
            (refused,) = [answer.json()["detail"] for answer in answers if answer.status_code == 409]
            assert "go back to it to change the answer" in refused
            (kept,) = annotations(guarded, task)
            by = next(n for n, answer in enumerate(answers) if answer.status_code == 201)
            assert page.read(kept["result"]).text == f"By {by}."
