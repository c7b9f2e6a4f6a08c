"""Annotators come, leave and are replaced: `invite`, `reassign`, and pairs that are withdrawn."""

from __future__ import annotations

import csv
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from annotation import accounts, people
from annotation.access import TOKEN, URL
from mmtt_build.errors import ConfigError
from mmtt_build.stages.reassign import reassign
from mmtt_build.stages.serve import HOME, POINTER
from mmtt_build.workspace import Workspace
from tests.annotation.chromium import launched
from tests.annotation.conftest import MADE
from tests.annotation.work import NOTHING, Work, forge, said, set_wait

# --- who knows a pair -------------------------------------------------------------------------------------------------


@pytest.fixture
def deal(workspace, tmp_path, monkeypatch):
    """Writes tasks as (id, kind, forgery number, annotator), and says what a reassignment of a01 would come to."""
    monkeypatch.setenv(HOME, str(tmp_path))
    monkeypatch.delenv(URL, raising=False)
    (tmp_path / "private").mkdir()
    (workspace.root / POINTER).write_text("private\n")
    forge(workspace, range(6))
    names = dict(enumerate(workspace.forgeries.keys().to_pylist()))
    of = {int(name[-3:]): name for name in names.values()}

    def deal(annotators: int, *tasks: tuple[str, str, int, str], answered: tuple[str, ...] = ()):
        team = {f"a{n:02d}": people.Person(f"a{n}@lab.example") for n in range(1, annotators + 1)}
        people.save(tmp_path / "private", team)
        workspace.tasks.append(
            [
                {"task_id": name, "kind": kind, "forgery_id": None if kind == "control" else of[number],
                 "base_id": f"base-{number:03d}", "annotator": who, "batch": 1, "project": f"p-{who}",
                 "language": "en", "blind": False}
                for name, kind, number, who in tasks
            ]
        )  # fmt: skip
        workspace.submissions.append(
            [{"annotation_id": f"{name}-1", "task_id": name, "status": "ok"} for name in answered]
        )
        return reassign(workspace, "a01", dry_run=True)

    return deal


def test_nobody_gets_what_they_know(deal):
    summary = deal(
        3, ("t1", "pair", 0, "a01"), ("t2", "repeat", 0, "a02"), ("t3", "repeat", 1, "a01"), ("t4", "pair", 1, "a03"),
        ("t5", "control", 2, "a01"), ("t6", "pair", 2, "a02"), ("t7", "pair", 3, "a01"), answered=("t7",),
    )  # fmt: skip
    assert summary.withdrawn == {"pair": 1, "repeat": 1, "control": 1}
    assert summary.pushed.assigned == {("a03", "pair"): 1, ("a02", "repeat"): 1, ("a03", "control"): 1}
    assert (summary.promoted, summary.waiting) == (0, 0)


def test_a_repeat_becomes_the_pair_where_nobody_else_is_left(deal):
    summary = deal(
        2, ("t1", "pair", 0, "a01"), ("t2", "repeat", 0, "a02"), ("t3", "pair", 1, "a01"), ("t4", "repeat", 1, "a02"),
        ("t5", "control", 2, "a01"), ("t6", "pair", 2, "a02"), ("t7", "repeat", 2, "a01"), answered=("t4",),
    )  # fmt: skip
    assert summary.pushed.assigned == {}
    assert (summary.promoted, summary.waiting) == (1, 1)


def test_work_is_dealt_evenly(deal):
    summary = deal(4, *((f"t{n}", "pair", n, "a01") for n in range(6)), ("t9", "repeat", 0, "a02"))
    assert summary.pushed.assigned == {(who, "pair"): 2 for who in ("a02", "a03", "a04")}
    assert summary.pushed.batches == {"a02": 1, "a03": 1, "a04": 1}


def test_who_takes_over_must_be_there(deal, workspace, tmp_path):
    deal(3, ("t1", "pair", 0, "a01"))
    with pytest.raises(ConfigError, match="no annotator is called 'a2'\n  -> known are a02"):
        reassign(workspace, "a2", dry_run=True)
    with pytest.raises(ConfigError, match="a01 cannot take over: it is who leaves\n  -> --to some of a02, a03"):
        reassign(workspace, "a01", to=["a01"], dry_run=True)
    people.save(
        tmp_path / "private",
        {name: people.Person(f"{name}@x", left=left) for name, left in [("a01", ""), ("a02", "2026-01-01")]},
    )
    with pytest.raises(ConfigError, match="a02 cannot take over: has left, too"):
        reassign(workspace, "a01", to=["a02"], dry_run=True)
    with pytest.raises(ConfigError, match="nobody is there to take over from a01\n  -> mmtt annotate invite"):
        reassign(workspace, "a01", dry_run=True)


# --- on the server ----------------------------------------------------------------------------------------------------


@pytest.fixture
def team(guarded_studio, tmp_path, request) -> Work:
    """A workspace with three annotators of its own, who have no account yet, on the server that all tests share."""
    workspace = Workspace.init(tmp_path / "workspace")
    set_wait(workspace.root)
    name = f"{re.sub(r'[^a-z]|test', '', request.node.name)[-14:]}-{secrets.token_hex(3)}"
    recipe = workspace.root / "mmtt.toml"
    recipe.write_text(recipe.read_text("utf-8").replace('"my-dataset"', f'"{name}"'), "utf-8")
    private = guarded_studio.home / name  # its own list of people and passwords
    private.mkdir(mode=0o700)
    shutil.copy(guarded_studio.data / "access.json", private)
    (workspace.root / POINTER).write_text(f"{name}\n")
    forge(workspace, range(12))
    file = tmp_path / "people.csv"
    file.write_text("".join(f"{who}-{name}@lab.example,{who} Of {name}\n" for who in ("ana", "ben", "cem")), "utf-8")
    return Work(guarded_studio, workspace, file)


def private(team: Work) -> Path:
    return team.studio.home / (team.workspace.root / POINTER).read_text().strip()


def logins(team: Work) -> dict[str, dict[str, str]]:
    with (private(team) / accounts.FILE_NAME).open(newline="") as file:
        return {row["annotator"]: row for row in csv.DictReader(file)}


def enter(client: httpx.Client, login: dict[str, str]) -> int:
    """Fills in the log-in form; 302 is success."""
    client.get("/user/login/")
    values = {
        "email": login["email"],
        "password": login["password"],
        "csrfmiddlewaretoken": client.cookies["csrftoken"],
    }
    return client.post("/user/login/", data=values, headers={"Referer": str(client.base_url)}).status_code


@contextmanager
def browser(team: Work, annotator: str) -> Iterator[httpx.Client]:
    """The annotator's session, with the password of the file."""
    with httpx.Client(base_url=team.studio.access.url, timeout=60, trust_env=False) as client:
        assert enter(client, logins(team)[annotator]) == 302
        yield client


def users(team: Work) -> dict[str, str]:
    """Names of this team's accounts on the server by address."""
    with team.studio.client() as client:
        return {
            str(user.email): f"{user.first_name} {user.last_name}"
            for user in client.users.list()
            if team.name in str(user.email)
        }


def open_tasks(team: Work) -> list[tuple[str, str]]:
    return sorted((row["project"], row["task_id"]) for row in team.assigned() if row["status"] != "withdrawn")


def kinds(team: Work, annotator: str) -> Counter[str]:
    """Numbers of the annotator's tasks that are not withdrawn."""
    rows = team.assigned()
    return Counter(row["kind"] for row in rows if row["annotator"] == annotator and row["status"] != "withdrawn")


def test_everybody_gets_an_account_once_and_the_password_is_the_leads(team):
    done = team("invite", team.people)
    file = private(team) / accounts.FILE_NAME
    assert f"accounts: 3 made, 0 there already; passwords in {file}" in done.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    made = logins(team)
    assert [(row["annotator"], row["address"]) for row in made.values()] == [
        (name, team.studio.access.url) for name in ("a01", "a02", "a03")
    ]
    assert users(team) == {row["email"]: f"{row['email'][:3]} Of {team.name}" for row in made.values()}
    kept = b"".join(path.read_bytes() for path in team.workspace.root.rglob("*") if path.is_file())
    for name, row in made.items():
        assert row["password"] not in done.stdout + done.stderr
        assert row["password"].encode() not in kept and row["email"].encode() not in kept
        with browser(team, name) as session:
            assert session.get("/api/current-user/whoami").json()["email"] == row["email"]
    assert "accounts: 0 made, 3 there already" in team("invite").stdout
    assert logins(team) == made


def test_inviting_goes_on_where_it_was_killed(team):
    with subprocess.Popen(
        team.command("invite", team.people), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=team.studio.environment,
    ) as process:  # fmt: skip
        while process.poll() is None and not (private(team) / accounts.FILE_NAME).exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()  # it may have ended before: then there is nothing to finish
    before = logins(team)
    assert len(before) == 3, "written down before the server hears of it"
    assert team("invite", team.people).returncode == 0
    assert logins(team) == before
    assert len(users(team)) == 3
    for name in before:
        with browser(team, name):
            pass


def test_a_sign_up_that_is_refused_is_said_and_a_password_can_be_made_anew(team):
    assert team("invite", team.people).returncode == 0
    old = logins(team)["a02"]
    done = team("invite", "--reset", old["email"].upper())
    assert f"a new password is in {private(team) / accounts.FILE_NAME}" in done.stdout
    assert logins(team)["a02"]["password"] != old["password"]
    with browser(team, "a02"):
        pass
    with httpx.Client(base_url=team.studio.access.url, timeout=60, trust_env=False) as client:
        assert enter(client, old) == 200, "the form again"
    assert "nobody@lab.example is no annotator's address" in team("invite", "--reset", "nobody@lab.example").stderr
    with team.studio.client() as client:
        number = next(user.id for user in client.users.list() if user.email == old["email"])
        organization = client.users.whoami().active_organization
        client.organizations.members.delete(id=organization, user_pk=number)
    refused = team("invite")
    assert refused.returncode == 1
    assert f"{team.studio.access.url} makes no account for a02: User with this email already exists" in refused.stderr
    assert "with the addresses of annotators.csv" in refused.stderr


def test_a_labs_server_is_asked_for_accounts_only_by_name(team, monkeypatch):
    monkeypatch.setenv(URL, team.studio.access.url)
    monkeypatch.setenv(TOKEN, team.studio.access.token)
    lab = replace(team, studio=replace(team.studio, variables={URL: os.environ[URL], TOKEN: os.environ[TOKEN]}))
    done = lab("push", "--annotators", team.people, "--images-url", "https://images.lab.example")
    assert "no account on the server yet: a01, a02, a03\n  -> mmtt annotate invite" in done.stderr
    assert users(team) == {}
    assert "3 made" in lab("invite").stdout
    assert len(users(team)) == 3
    assert "no account" not in lab("push", "--images-url", "https://images.lab.example").stderr
    assert "not ours to make" in lab("invite", "--reset", logins(team)["a01"]["email"]).stderr


def test_a_push_makes_accounts_and_a_first_visit_is_to_the_work(team):
    assert f"accounts: 3 made, passwords in {private(team) / accounts.FILE_NAME}" in team.push()
    assert "accounts" not in team.push()
    login = logins(team)["a01"]
    project = team.projects()[f"{team.name}-a01-b001"]
    with launched(MADE / "chromium") as chromium, chromium.new_context() as context:
        window = context.new_page()
        window.set_default_timeout(60_000)
        window.goto(f"{login['address']}/user/login/")
        window.fill("input[name=email]", login["email"])
        window.fill("input[name=password]", login["password"])
        window.click("button[type=submit]")
        window.wait_for_url("**/")
        window.goto(f"{login['address']}/projects/")
        window.get_by_text(f"{team.name}-a01-b001").wait_for()
        assert window.get_by_text(f"{team.name}-a02").count() == 0
        window.goto(f"{login['address']}/projects/{project}/data?labeling=1")  # nobody has opened it before
        window.wait_for_selector(".mmtt textarea")


def test_the_work_of_who_left_goes_to_the_others(team):
    team.push("--batch-size", 4)
    answered, begun, *_ = team.of("a01", "pair")
    with browser(team, "a01") as session:
        team.answer(session, answered, said("The nose is blurred."))
        draft = {"result": said("The chin"), "lead_time": 3}
        session.post(f"/api/tasks/{team.number(begun)}/drafts", json=draft).raise_for_status()
    before = {row["task_id"]: row for row in team.assigned()}
    of_a01 = {name for name, row in before.items() if row["annotator"] == "a01"}
    dry = team("reassign", "a01", "--dry-run").stdout
    assert f"{kinds(team, 'a01')['pair']} pairs" in dry and "would be dealt to others" in dry, "as of the last pull"
    assert {row["task_id"]: row for row in team.assigned()} == before
    done = team("reassign", "a01", "--batch-size", 2)
    assert done.returncode == 0, done.stderr
    rows = {row["task_id"]: row for row in team.assigned()}
    withdrawn = {name for name, row in rows.items() if row["status"] == "withdrawn"}
    assert withdrawn == of_a01 - {answered}
    assert {rows[name]["reason"] for name in withdrawn} == {"a01 left"}
    assert [rows[name] for name in before if name not in of_a01 or name == answered] == [
        before[name] for name in before if name not in of_a01 or name == answered
    ]
    new = [row for name, row in rows.items() if name not in before]
    assert Counter((row["kind"], row["forgery_id"] or row["base_id"]) for row in new) == Counter(
        (before[name]["kind"], before[name]["forgery_id"] or before[name]["base_id"]) for name in withdrawn
    )
    assert max(Counter(row["project"] for row in new).values()) <= 2
    assert not {row["project"] for row in new} & {row["project"] for row in before.values()}
    has = Counter(
        (row["annotator"], row["forgery_id"])
        for row in rows.values()
        if row["status"] != "withdrawn" and row["forgery_id"]
    )
    assert max(has.values()) == 1
    left_there = [(before[begun]["project"], begun)]
    assert team.there() == sorted([*open_tasks(team), *left_there])
    assert f"server: {len(new)} imported, {len(withdrawn) - 1} removed" in done.stdout
    with browser(team, "a01") as session:
        assert session.get("/api/projects/").json()["count"] == 0
        assert session.get(f"/api/tasks/{team.number(begun)}/").status_code == 403
    assert team.submissions()[answered]["status"] == "ok"
    assert "a01 left" not in team("push").stderr
    assert people.load(private(team))["a01"].left
    forge(team.workspace, range(12, 16))
    assert team("push").returncode == 0
    assert kinds(team, "a01") == {"pair": 1}
    forge(team.workspace, range(16, 19))
    team.push()
    assert kinds(team, "a01")["pair"] > 1, "named again, so back"
    assert team.there() == sorted([*open_tasks(team), *left_there])


def test_a_reassignment_that_is_killed_is_finished_by_the_next_push(team):
    team.push()
    shards = len(team.workspace.tasks.shards())
    with subprocess.Popen(
        team.command("reassign", "a02"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=team.studio.environment,
    ) as process:  # fmt: skip
        while process.poll() is None and len(team.workspace.tasks.shards()) == shards:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()  # it may have ended before: then there is nothing to finish
    assert kinds(team, "a02") == {}
    assert team("push").returncode == 0
    assert team.there() == open_tasks(team)
    assert "0 pairs, 0 repeats, 0 controls withdrawn" in team("reassign", "a02").stdout


def test_a_pair_that_cannot_be_used_any_more_is_withdrawn(team):
    team.push("--repeats", 1, "--controls", 1)
    rows = team.assigned()
    (answered, begun), (idle, *_) = team.of("a01", "pair")[:2], team.of("a02", "pair")
    by_id = {row["task_id"]: row for row in rows}
    with browser(team, "a01") as session:
        team.answer(session, answered, NOTHING)
        draft = {"result": said("The chin"), "lead_time": 3}
        session.post(f"/api/tasks/{team.number(begun)}/drafts", json=draft).raise_for_status()
        team.pull()
        team.workspace.pristine.append(
            [{"id": by_id[name]["base_id"], "status": "excluded"} for name in (answered, begun)]
        )
        team.workspace.forgeries.append([{"forgery_id": by_id[idle]["forgery_id"], "status": "rejected"}])
        dry = team("push", "--dry-run").stdout
        done = team("push").stdout
        gone = {row["task_id"]: row["reason"] for row in team.assigned() if row["status"] == "withdrawn"}
        bases = {by_id[name]["base_id"] for name in (answered, begun)}
        expected = {row["task_id"]: "its base is excluded" for row in rows if row["base_id"] in bases}
        forgery = by_id[idle]["forgery_id"]
        of_forgery = [row["task_id"] for row in rows if forgery in (row["forgery_id"], row["mask_of"])]
        expected |= dict.fromkeys(of_forgery, "its forgery is rejected")
        del expected[answered]
        assert gone == expected
        assert f"push: {len(gone)} open tasks would be withdrawn" in dry
        assert f"push: {len(gone)} open tasks withdrawn" in done
        assert f"server: {len(gone) - 1} withdrawn tasks removed" in done
        assert team.there() == sorted([*open_tasks(team), (by_id[begun]["project"], begun)])
        team.answer(session, begun, said("The chin is blurred."))
    team.pull()
    kept = team.submissions()[begun]
    assert kept["status"] == "withdrawn" and "The chin is blurred." in kept["result"]
    used = {row["forgery_id"] for row in team.workspace.annotations.read().to_pylist()}
    assert by_id[begun]["forgery_id"] not in used
    team.workspace.forgeries.append([{"forgery_id": forgery, "status": "ok"}])
    assert "1 pairs, 0 repeats, 0 controls" in team("push", "--repeats", 0, "--controls", 0, "--dry-run").stdout, (
        "usable again"
    )
