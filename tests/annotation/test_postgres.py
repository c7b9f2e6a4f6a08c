"""`mmtt annotate` on PostgreSQL: a real one, from a package, that is gone with the tests.

The server's first start takes a minute or two and is done once; all tests work on what it made.
"""

from __future__ import annotations

import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from annotation.server import Server
from mmtt_build.errors import ServerError
from mmtt_build.stages.bench import annotators, exchange, postgres
from mmtt_build.stages.bench.annotation import Options, measure
from mmtt_build.stages.serve import HOME, POINTER
from mmtt_build.workspace import Workspace
from tests.annotation.conftest import MADE, free_port
from tests.annotation.work import NOTHING, PEOPLE, Work, fill_in, forge, said, set_wait


@pytest.fixture(scope="module")
def database():
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgres.throw_away({"fsync": "off"}))
        except ServerError as error:  # of PostgreSQL's own programs
            pytest.skip(f"PostgreSQL does not run here: {error.message}")
        yield server


@pytest.fixture(scope="module")
def begun(new_studio, database):
    """A guarded server with two annotators, and what `serve` said."""
    studio = new_studio(PATH=f"{database.programs}{os.pathsep}{os.environ['PATH']}")
    set_wait(studio.workspace.root)
    done = studio(
        "serve", "--postgres", database.url(), "--port", free_port(), "--image-port", free_port(),
        PGPASSWORD=database.password,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with httpx.Client(headers={"Authorization": f"Token {studio.access.token}"}, trust_env=False) as admin:
        link = admin.get(f"{studio.access.url}/api/invite").json()["invite_url"]
    for name in PEOPLE:
        with httpx.Client(base_url=studio.access.url, timeout=60, trust_env=False) as client:
            assert fill_in(client, link, name).status_code == 302
    yield studio, done
    studio("stop")


@pytest.fixture
def studio(begun):
    return begun[0]


@pytest.fixture
def work(studio, tmp_path, request) -> Work:
    workspace = Workspace.init(tmp_path / "workspace")
    set_wait(workspace.root)
    recipe = workspace.root / "mmtt.toml"
    name = re.sub(r"\W|test", "", request.node.name)[-20:].strip("_")
    recipe.write_text(recipe.read_text("utf-8").replace('"my-dataset"', f'"{name}"'), "utf-8")
    (workspace.root / POINTER).write_text(f"{studio.data.name}\n")
    forge(workspace, range(6))
    given = tmp_path / "people.csv"
    given.write_text("".join(f"{name}@lab.example\n" for name in PEOPLE), "utf-8")
    return Work(studio, workspace, given)


def said_by(studio, *arguments, **variables: str) -> str:
    """What a command that fails as it should tells the user."""
    done = studio(*arguments, **variables)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_servers_data_is_in_the_database(begun, database):
    studio, done = begun
    assert "guard:   1 s a pair" in done.stdout
    assert "token    accepted, admin@mmtt.local\n" in studio("status").stdout
    assert database.sql("SELECT email FROM htx_user ORDER BY id LIMIT 1") == "admin@mmtt.local"
    assert list(studio.data.rglob("label_studio.sqlite3")) == []


def test_work_goes_out_comes_back_and_outlives_a_restart(work, studio):
    work.push()
    text = {"a01": "The nose is blurred.", "a02": "鼻子模糊 \U0001f600 <b>&</b>"}

    def describe(name: str, annotator: str) -> list[str]:
        done = []
        with work.login(name) as session:
            for task in work.of(annotator, "pair"):
                work.answer(session, task, said(text[annotator]))
                done.append(task)
        return done

    with ThreadPoolExecutor(2) as pool:
        tasks = dict(zip(text, pool.map(describe, PEOPLE, text), strict=True))
    assert work.pull() == "pull: 6 pairs new, 0 changed, 0 deleted on the server"
    rows = work.submissions()
    for annotator, described in tasks.items():
        assert {rows[task]["description"] for task in described} == {text[annotator]}
        assert {rows[task]["annotator"] for task in described} == {annotator}
    assert all(row["served_at"] < row["created_at"] for row in rows.values())
    assert studio("stop").stdout == "stopped\n"
    again = studio("serve")
    assert again.returncode == 0, again.stderr
    assert work.pull().startswith("pull: nothing new, 0 changed, 0 deleted")
    with work.login("ana") as session:
        (task, *_) = work.of("a01", "repeat")
        work.answer(session, task, NOTHING)
    assert work.pull().startswith("pull: 1 repeats new, 0 changed")


def test_a_backup_brings_back_the_database(work, studio, tmp_path):
    work.push("--repeats", 0, "--controls", 0)
    (task, *_) = work.of("a01", "pair")
    with work.login("ana") as session:
        work.answer(session, task, said("The nose is blurred."))
    there, file = work.there(), tmp_path / "backup.zip"
    made = studio("backup", file)
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with studio.client() as client:
        for number in work.projects().values():
            client.projects.delete(id=number)
    assert work.there() == []
    studio("stop")
    done = studio("restore", file, "--replace")
    assert done.returncode == 0, done.stderr
    assert studio("serve").returncode == 0
    assert work.there() == there
    assert work.pull().startswith("pull: 1 pairs new")
    assert list(studio.data.rglob("*.dump")) == []


def test_without_its_programs_a_backup_says_what_to_install(studio, tmp_path):
    said = said_by(studio, "backup", tmp_path / "backup.zip", PATH="/nonexistent")
    assert "pg_dump is not installed\n  -> install PostgreSQL's client programs" in said
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_down_is_named(work, studio, database):
    work.push()
    database.stop()
    try:
        for command in ("status", "serve"):
            said = said_by(studio, command)
            assert f"the database {database.url()} cannot be used: " in said
            assert "refused" in said
        failed = work("pull")
        assert (failed.returncode, "status 500" in failed.stderr) == (1, True)
        assert "pg_dump" in said_by(studio, "backup")
    finally:
        database.start({"fsync": "off"})
    assert studio("status").returncode == 0, "the server itself went on"
    assert work.pull().startswith("pull: nothing new")


def test_annotators_of_one_queue_get_a_task_each(studio, tmp_path, monkeypatch):
    """The benchmark, small: it counts what is lost, doubled, or shown to two people."""
    monkeypatch.setenv(HOME, str(studio.home))
    monkeypatch.setattr(exchange, "ROUNDS", 1)
    lines: list[str] = []
    size = annotators.Size(people=4, steady=1, think_s=(0.0, 0.5), burst=3)
    server = Server(studio.data, studio.workspace.root, MADE)
    measure(lines.append, tmp_path, server, Options(tasks=20, crowd=size))
    report = "\n".join(lines)
    assert "annotation on PostgreSQL" in report
    assert re.search(r"push, 20 tasks in 1 projects +[\d,]+ tasks/s, bare +[\d,]+, ours/bare \d", report)
    assert re.search(r"pull, 20 annotations +[\d,]+ annotations/s, bare +[\d,]+, ours/bare \d", report)
    assert "4 annotators, one queue for all" in report
    assert "  16 tasks shown, 0 of them to two people; 16 submissions confirmed\n" in report
    assert "  16 pulled: 0 lost, 0 unconfirmed, 0 doubled\n  0 requests not done as asked" in report


def test_the_password_shows_nowhere(begun, studio, database):
    shown = [begun[1].stdout, begun[1].stderr]
    for command in ("status", "serve", "backup"):
        done = studio(command)
        shown += [done.stdout, done.stderr]
    shown += [path.read_text("utf-8", "replace") for path in studio.data.rglob("*.log")]
    shown += [path.read_bytes().decode("utf-8", "replace") for path in Path("/proc").glob("[0-9]*/cmdline")]
    shown += [path.read_bytes().decode("latin-1") for path in studio.workspace.root.rglob("*") if path.is_file()]
    assert any(database.url() in text or str(studio.access.port) in text for text in shown)
    assert [text for text in shown if database.password in text] == []
    assert database.password in (studio.data / "access.json").read_text()
    assert stat.S_IMODE((studio.data / "access.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "password", "problem"),
    [
        ("mmtt", "wrong", "password authentication failed"),
        ("missing", None, 'database "missing" does not exist'),
        ("others", None, "may not make tables"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused_before_anything_is_made(
    new_studio, database, name, password, problem
):
    if name == "others":
        database.sql(f"CREATE ROLE guest LOGIN PASSWORD '{database.password}'")
        database.sql("CREATE DATABASE others", "postgres")
    url = database.url(name).replace("mmtt@", "guest@" if name == "others" else "mmtt@")
    studio = new_studio()
    said = said_by(studio, "serve", "--postgres", url, PGPASSWORD=password or database.password)
    assert problem in said
    assert url in said
    assert database.password not in said
    assert list(studio.data.iterdir()) == []


def test_an_option_that_would_be_ignored_is_refused(new_studio):
    done = new_studio()("serve", "--postgres", "postgresql://me@127.0.0.1/db?ssl=on")
    assert (done.returncode, "unknown ssl\n  -> known: host, sslmode, sslrootcert" in done.stderr) == (2, True)
