"""Servers that fail amid work: a real Label Studio, behind a proxy that misbehaves, or killed itself."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from threading import Thread

import jwt
import pytest

from annotation import environment, patience
from annotation.access import TOKEN, URL, Access
from annotation.process import Service
from mmtt_build.errors import ServerError
from mmtt_build.stages.pull import Summary, pull
from mmtt_build.stages.push import Options, push
from mmtt_build.stages.serve import HOME
from tests.annotation.gateway import Gateway, cut, data, drop, first, lose, opened, page, slow
from tests.annotation.work import WAIT_S, Work, forge, said

IMAGES = "http://127.0.0.1:1"
IMPORT = "POST /api/projects/[0-9]+/import"
READ = "GET /api/tasks/|GET /api/projects/[0-9]+/exports/[0-9]+/download"
"""How a pull gets at annotations: few by a listing, many by a snapshot."""


@dataclass(frozen=True)
class Lab:
    """A workspace whose server is reached through a gateway."""

    work: Work
    gateway: Gateway

    def push(self) -> int:
        """Tasks that were imported."""
        options = Options(repeats=0, controls=0)
        done = push(self.work.workspace, annotators=self.work.people, options=options, images_url=IMAGES)
        return done.changes.imported

    def pull(self) -> Summary:
        return pull(self.work.workspace)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command; nothing of what it says is a secret."""
        done = subprocess.run(
            self.work.command(*arguments),
            capture_output=True,
            text=True,
            timeout=300,
            env=self.environment(**variables),
        )
        self.assert_silent(done.stdout + done.stderr)
        return done

    def environment(self, **variables: str) -> dict[str, str]:
        named = {name: os.environ[name] for name in (URL, TOKEN)}
        return {**self.work.studio.environment, **named, **variables}

    def assert_silent(self, text: str) -> None:
        assert "Traceback" not in text
        access = self.work.studio.access
        assert not any(secret in text for secret in (access.token, access.password, os.environ[TOKEN]))

    def answer(self, *tasks: str, by: str = "ana") -> None:
        with self.work.login(by) as session:
            for task in tasks:
                self.work.answer(session, task, said(f"The nose is soft, {task}."))

    def assert_came(self, *tasks: str) -> None:
        """These answers are in the table, whole and once, with what the guard saw."""
        table = self.work.workspace.submissions.read().to_pylist()
        assert Counter(row["task_id"] for row in table) == Counter(tasks)
        for row in table:
            assert (row["status"], row["description"]) == ("ok", f"The nose is soft, {row['task_id']}.")
            assert WAIT_S < row["observation_s"] < 75  # by the guard; the browser claims 75.5
            assert row["served_at"] is not None


@pytest.fixture
def lab(work, monkeypatch):
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.05)
    with opened(work.studio.access.url) as gateway:
        for name, value in ((HOME, work.studio.home), (URL, gateway.url), (TOKEN, work.studio.access.token)):
            monkeypatch.setenv(name, str(value))
        yield Lab(work, gateway)


# --- away -------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_down_is_named_after_a_while(lab):
    with opened() as gone:
        url = gone.url
    for command in (("push", "--annotators", str(lab.work.people), "--images-url", IMAGES), ("pull",)):
        refused = lab.run(*command, **{URL: url, patience.VARIABLE: "1"})
        assert refused.returncode == 1
        assert f"{url} does not answer (connection refused), trying again for 1 s\n" in refused.stderr
        assert f"ServerError: {url} does not answer (connection refused)\n" in refused.stderr
        assert f"then mmtt annotate {command[0]}: nothing is done twice" in refused.stderr
    assert lab.run("status", **{URL: url}).returncode == 1
    written = lab.work.assigned()
    assert len(written) > 12
    assert lab.push() == len(written)
    assert lab.work.there() == lab.work.wanted()


def test_push_and_pull_wait_for_a_server_that_restarts(lab):
    work, studio = lab.work, lab.work.studio
    work.push()
    task = work.of("a01", "pair")[0]
    lab.answer(task)
    forge(work.workspace, range(12, 14))
    assert studio("stop").returncode == 0
    old = Access.load(studio.data)
    directly = {URL: studio.access.url, patience.VARIABLE: "300"}
    waiting = [
        subprocess.Popen(
            work.command(*command), env=lab.environment(**directly), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for command in (("push", "--images-url", IMAGES), ("pull",))
    ]  # fmt: skip
    try:
        for process in waiting:
            assert "does not answer (connection refused), trying again for 300 s" in process.stderr.readline()
    finally:
        (studio.data / "access.json").write_text(
            (studio.data / "access.json").read_text().replace(f'"version": "{old.version}"', '"version": "1.20.0"')
        )
        begun = studio("serve")
    assert f"its data is of Label Studio 1.20.0; {environment.VERSION} will bring it up to date" in begun.stdout
    assert studio.access == old
    pushed, pulled = (process.communicate(timeout=300) for process in waiting)
    assert [process.returncode for process in waiting] == [0, 0], (pushed, pulled)
    assert "2 imported" in pushed[0]
    assert pulled[0].startswith("pull: 1 pairs new")
    lab.assert_silent("".join(pushed + pulled))
    assert work.there() == work.wanted()
    lab.assert_came(task)


# --- a bad line -------------------------------------------------------------------------------------------------------


def test_a_bad_line_changes_nothing_of_what_comes_back(lab, caplog):
    lab.push()
    tasks = lab.work.of("a01", "pair")[:2]
    lab.answer(*tasks)
    for pattern, act in {
        "GET /api/version": page(502), "GET /api/users": drop, "GET /api/projects/": slow(0.5),
        "GET /mmtt/changed": cut, "GET /mmtt/served": page(503),
    }.items():  # fmt: skip
        lab.gateway.at(pattern, act, times=2)
    assert lab.pull().new == {"pair": 2}
    lab.assert_came(*tasks)
    assert caplog.text.count("trying again") == 4
    lab.assert_silent(caplog.text)


def test_a_pull_that_breaks_off_is_finished_by_the_next(lab, monkeypatch):
    monkeypatch.setenv(patience.VARIABLE, "0.2")
    lab.push()
    tasks = lab.work.of("a02", "pair")
    ways = (
        (READ, page(200, "Soon"), "answers, but not as Label Studio does"),
        (READ, cut, "does not answer (the connection was dropped)"),
        (READ, page(200, "Soon"), "answers, but not as Label Studio does: status 200 and a page, 'Soon'"),
        (READ, data(500, {"detail": "database is locked"}), "answers with status 500: database is locked"),
        ("GET /mmtt/served", page(500), "answers with status 500 and a page, 'nginx'"),
        ("GET /mmtt/served", page(302, Location="/user/login/?next=1"), "sends us on to /user/login/"),
    )
    for number, (pattern, act, problem) in enumerate(ways):
        lab.answer(tasks[number], by="ben")
        lab.gateway.at(pattern, act)
        with pytest.raises(ServerError) as caught:
            lab.pull()
        assert caught.value.message == f"{lab.gateway.url} {problem}"
        assert "mmtt annotate pull" in caught.value.remedy or "sends us on" in problem
        lab.assert_came(*tasks[:number])
        lab.gateway.rules.clear()
        assert lab.pull().new == {"pair": 1}
        lab.assert_came(*tasks[: number + 1])


def test_a_project_deleted_amid_a_pull_keeps_its_words(lab):
    lab.push()
    early, late = lab.work.of("a01", "pair")[:2]
    lab.answer(early)
    assert lab.pull().new == {"pair": 1}
    lab.answer(late)
    (title,) = {row["project"] for row in lab.work.assigned() if row["task_id"] == late}
    with lab.work.studio.client() as client:
        number = lab.work.projects()[title]
        lab.gateway.at(READ, first(lambda: client.projects.delete(id=number)), times=1)
        with pytest.raises(
            ServerError, match=r"no longer has what .* works on \(status 404\)\n  -> somebody deleted it"
        ):
            lab.pull()
    lab.assert_came(early)
    pulled = lab.pull()
    assert (pulled.missing, pulled.deleted) == ([title], 0)
    lab.assert_came(early)


# --- imports that break off -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [drop, lose, page(502)])
def test_an_import_that_breaks_off_is_settled_by_the_same_push(lab, act):
    lab.gateway.at(IMPORT, act, times=2)
    assert lab.push() == 12
    assert lab.work.there() == lab.work.wanted()


@pytest.mark.parametrize("act", [drop, data(500, {"detail": "disk full"})])
def test_an_import_that_never_gets_through_is_said_and_mended_by_the_next_push(lab, act):
    lab.gateway.at(IMPORT, act, after=1)
    with pytest.raises(ServerError, match=r"does not answer|500: disk full") as caught:
        lab.push()
    assert "then mmtt annotate push" in caught.value.remedy
    lab.gateway.rules.clear()
    lab.push()
    assert lab.work.there() == lab.work.wanted()


@pytest.mark.parametrize("act", [drop, lose])
def test_a_project_that_may_have_been_made_is_not_made_twice(lab, act):
    lab.gateway.at("POST /api/projects/(\\?|$)", act, times=1)
    with pytest.raises(ServerError, match=r"does not answer \(the connection was dropped\)"):
        lab.push()
    lab.push()
    assert lab.work.there() == lab.work.wanted()


MANY = 3000


def test_a_server_killed_amid_a_push_has_every_task_once_in_the_end(lab):
    work, studio = lab.work, lab.work.studio
    multiply(work, MANY)
    process = Service(studio.data, "label-studio")

    def kill():
        """While it is at work on the request."""
        number = process.pid()
        Thread(target=lambda: (time.sleep(0.3), os.kill(number, signal.SIGKILL))).start()

    lab.gateway.at(IMPORT, first(kill), after=2, times=1)
    broken = lab.run("push", "--annotators", str(work.people), "--images-url", IMAGES, **{patience.VARIABLE: "1"})
    assert (broken.returncode, process.pid()) == (1, None)
    assert "ServerError: " in broken.stderr
    before = work.assigned()
    assert studio("serve").returncode == 0
    again = lab.run("push", "--images-url", IMAGES, "--controls", "0", "--repeats", "0")
    assert again.returncode == 0, again.stderr
    assert work.assigned() == before
    with studio.client() as client:
        there = [
            (title, task.data["pair_id"])
            for title, number in work.projects().items()
            for task in client.tasks.list(project=number, fields="task_only", include="id,data", page_size=1000)
        ]
    assert sorted(there) == work.wanted()
    assert len(there) > MANY


def multiply(work: Work, count: int) -> None:
    """Makes many pairs of one pair's files."""
    tables = (work.workspace.pristine, work.workspace.plan, work.workspace.forgeries)
    (pristine, plan, forgery) = (table.read().to_pylist()[0] for table in tables)
    names = [f"{number:05d}" for number in range(count - 12)]
    work.workspace.pristine.append([pristine | {"id": f"many-{name}"} for name in names])
    work.workspace.plan.append(
        [plan | {"forgery_id": f"many-{name}", "base_id": f"many-{name}", "identity_group": name} for name in names]
    )
    work.workspace.forgeries.append([forgery | {"forgery_id": f"many-{name}"} for name in names])


# --- tokens and versions ----------------------------------------------------------------------------------------------


def tokens(lab: Lab) -> dict[str, str]:
    """Tokens that will not do, and what is said of them."""
    database = lab.work.studio.data / "label-studio" / "label_studio.sqlite3"
    query = "SELECT key FROM authtoken_token t JOIN htx_user u ON u.id = t.user_id WHERE u.email = ?"
    with closing(sqlite3.connect(database)) as opened_database:
        (anas,) = opened_database.execute(query, ("ana@lab.example",)).fetchone()
    claims = {"token_type": "refresh", "jti": "0" * 32, "user_id": "1"}
    key = "of somebody who is not the server"
    return {
        "0" * 40: f"the token of ${URL} is not accepted",
        jwt.encode({**claims, "exp": time.time() + 1e6}, key): f"the token of ${URL} is not accepted",
        jwt.encode({**claims, "exp": time.time() - 60}, key): f"the token of ${URL} has run out",
        anas: f"the token of ${URL} is an annotator's, ana@lab.example",
    }


def test_tokens_that_will_not_do_change_nothing(lab, monkeypatch):
    lab.push()
    task = lab.work.of("a01", "pair")[0]
    lab.answer(task)
    assert lab.pull().new == {"pair": 1}
    for token, problem in tokens(lab).items():
        monkeypatch.setenv(TOKEN, token)
        for step in (lab.push, lab.pull):
            with pytest.raises(ServerError) as caught:
                step()
            assert caught.value.message == problem
            lab.assert_silent(str(caught.value))
    refused = lab.run("status")
    assert (refused.returncode, f"problem  {problem}\n" in refused.stderr) == (1, True)
    lab.assert_came(task)
    assert lab.work.there() == lab.work.wanted()


def test_another_version_is_said_and_used(lab):
    lab.gateway.at("GET /api/version", data(200, {"release": "1.20.0"}))
    said_so = lab.run("status")
    assert said_so.returncode == 0
    assert f"version  1.20.0 (page and guard are tested with {environment.VERSION})\n" in said_so.stdout
    assert lab.push() == 12
