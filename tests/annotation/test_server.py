"""`mmtt annotate serve` and its siblings on a real Label Studio, from nothing on."""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from annotation import environment, submissions
from annotation.access import TOKEN, URL, Access, Answer
from annotation.process import Service
from mmtt_build.errors import ConfigError, ServerError
from mmtt_build.stages.serve import HOME, State, local

POISON = {
    "USERNAME": "somebody@example.org", "PASSWORD": "not-this-one", "PORT": "1", "HOST": "http://elsewhere.example",
    "DEBUG": "true", "LABEL_STUDIO_DJANGO_DB": "postgresql", "http_proxy": "http://127.0.0.1:9",
}  # fmt: skip
"""What may stand in a user's environment and must not reach the server."""


@pytest.fixture(scope="module")
def begun(new_studio, first_start):
    """A server that was started from nothing, and what `serve` said."""
    studio = new_studio(**POISON)
    with first_start() as backup:
        done = studio.serve()
        if not backup.is_file():
            assert studio("backup", backup).returncode == 0
    return studio, done


@pytest.fixture
def studio(begun):
    """The same server; it runs, whatever the test before did."""
    studio, _ = begun
    if not (service(studio, "label-studio").pid() and service(studio, "images").pid()):
        assert studio("serve").returncode == 0
    return studio


def service(studio, name: str) -> Service:
    return Service(studio.data, name)


def secrets_of(studio) -> list[str]:
    access = studio.access
    key = re.search(r"SECRET_KEY=(\S+)", (studio.data / "label-studio" / ".env").read_text())
    return [access.password, access.token, access.image_key, key[1]]


def is_guarded(studio) -> bool:
    return httpx.get(f"{studio.access.url}/mmtt/page.js", trust_env=False).status_code == 200


def test_one_command_makes_a_server_to_log_in_to(begun):
    studio, done = begun
    access = studio.access
    assert f"Label Studio {environment.VERSION} runs: {access.url}\n" in done.stdout
    assert f"log in:  {access.username}, with the password in {studio.data / 'access.json'}\n" in done.stdout
    assert "guard:   60 s a pair, 120 words\n" in done.stdout
    assert (access.host, access.username) == ("127.0.0.1", "admin@mmtt.local")
    with studio.client() as client:
        assert client.users.whoami().email == access.username
    with httpx.Client(base_url=access.url, trust_env=False, follow_redirects=True) as browser:
        browser.get("/user/login/")
        form = {
            "email": access.username,
            "password": access.password,
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
        }
        browser.post("/user/login/", data=form, headers={"Referer": access.url})
        assert browser.get("/api/current-user/whoami").json()["email"] == access.username
    assert is_guarded(studio)


def test_only_the_owner_can_read_its_files(studio):
    paths = [studio.data, *studio.data.rglob("*")]
    assert len(paths) > 10
    assert [path for path in paths if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)] == []
    assert not studio.data.is_relative_to(studio.workspace.root)


def test_no_secret_shows(begun, studio):
    _, done = begun
    status = studio("status")
    shown = [done.stdout, done.stderr, status.stdout, status.stderr]
    shown += [path.read_text() for path in studio.data.glob("*.log")]
    shown += [path.read_bytes().decode("utf-8", "replace") for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert any("label-studio" in text and str(studio.access.port) in text for text in shown[-200:])
    assert [secret for secret in secrets_of(studio) if any(secret in text for text in shown)] == []


def test_it_listens_on_loopback_only(studio):
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"]
    for port in (studio.access.port, studio.access.image_port):
        assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_a_second_serve_says_that_it_runs(studio):
    pid = service(studio, "label-studio").pid()
    again = studio("serve")
    assert (again.returncode, "runs already" in again.stdout) == (0, True)
    assert service(studio, "label-studio").pid() == pid


def test_a_second_serve_says_that_it_does_not_answer_yet(studio):
    os.kill(service(studio, "label-studio").pid(), signal.SIGSTOP)
    try:
        again = studio("serve")
    finally:
        os.kill(service(studio, "label-studio").pid(), signal.SIGCONT)
    assert (again.returncode, "does not answer" in again.stderr) == (1, True)


def test_status_says_who_we_are(studio):
    said = studio("status")
    assert said.returncode == 0
    assert said.stdout.splitlines()[0] == f"server   {studio.access.url}"
    assert f"version  {environment.VERSION}\n" in said.stdout
    assert "token    accepted, admin@mmtt.local\n" in said.stdout


# --- images ---------------------------------------------------------------------------------------------------------


def ask(studio, path: str, method: str = "GET", **headers: str) -> tuple[int, Message, bytes]:
    """A request whose path nobody tidies up on its way: status, headers, body."""
    with closing(http.client.HTTPConnection("127.0.0.1", studio.access.image_port, timeout=10)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_a_page_of_the_server_may_fetch_an_image(studio):
    key, port = studio.access.image_key, studio.access.port
    for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        status, headers, body = ask(studio, f"/{key}/{studio.image}", Origin=origin)
        assert status == 200
        assert headers["Access-Control-Allow-Origin"] == origin
        assert headers["Content-Type"] == "image/png"
        assert body == (studio.workspace.root / studio.image).read_bytes()
    assert ask(studio, f"/{key}/{studio.image}", If_Modified_Since=headers["Last-Modified"])[0] == 304
    assert "Access-Control-Allow-Origin" not in ask(studio, f"/{key}/{studio.image}", Origin="http://evil.test")[1]


@pytest.mark.parametrize(
    "path",
    [
        "/", "/KEY", "/KEY/", "/KEY/images", "/KEY/images/", "/KEY/images/forged/", "/KEY/mmtt.toml",
        "/images/forged/ab/first.png",
        "/wrong/images/forged/ab/first.png", "/KEY/images/../mmtt.toml", "/KEY/images/..%2f..%2foutside.png",
        "/KEY/images/%2e%2e/%2e%2e/outside.png", "/KEY/images//OUTSIDE", "/KEY/images/link.png",
        "/KEY/images/folder/outside.png",
        "/KEY/images/forged/ab/first.txt", "/KEY/images/a%00.png", "/KEY/tables/first.png", "/K%C3%A9Y/images/x.png",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nothing_else_is_served(studio, path, method):
    root = studio.workspace.root
    outside = root.parent / "outside.png"
    for place in (outside, root / "images/forged/ab/first.txt", root / "tables/first.png"):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"private")
    for link, to in ((root / "images/link.png", outside), (root / "images/folder", root.parent)):
        if not link.is_symlink():
            link.symlink_to(to)
    path = path.replace("KEY", studio.access.image_key).replace("OUTSIDE", str(outside))
    status, _, body = ask(studio, path, method)
    assert (status, b"private" in body) == (404, False)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "NONSENSE"])
def test_images_are_read_only(studio, method):
    assert ask(studio, f"/{studio.access.image_key}/{studio.image}", method)[0] == 501
    assert (studio.workspace.root / studio.image).is_file()


# --- the database ---------------------------------------------------------------------------------------------------


def project(studio, title: str) -> int:
    page = '<View><Image name="i" value="$i"/><Choices name="c" toName="i"><Choice value="a"/></Choices></View>'
    with studio.client() as client:
        return client.projects.create(title=title, label_config=page).id


def titles(studio) -> set[str]:
    with studio.client() as client:
        return {found.title for found in client.projects.list()}


def test_writers_that_meet_wait_for_each_other(studio):
    of = project(studio, "a crowd")
    result = [{"from_name": "c", "to_name": "i", "type": "choices", "value": {"choices": ["a"]}}]
    with studio.client() as client, ThreadPoolExecutor(15) as pool:
        client.projects.import_tasks(id=of, request=[{"data": {"i": f"http://127.0.0.1/{n}.png"}} for n in range(60)])
        list(pool.map(lambda t: client.annotations.create(id=t.id, result=result), client.tasks.list(project=of)))
        assert client.projects.get(id=of).num_tasks_with_annotations == 60
    with closing(sqlite3.connect(studio.data / "label-studio/label_studio.sqlite3")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_stop_and_serve_keep_the_data(studio):
    project(studio, "kept")
    assert studio("stop").stdout == "stopped\n"
    assert studio("stop").stdout == "it does not run\n"
    said = studio("status")
    assert (said.returncode, "it does not run\n  -> mmtt annotate serve" in said.stderr) == (1, True)
    with pytest.raises(ConnectionRefusedError):
        ask(studio, "/health")
    assert studio("serve").returncode == 0
    assert "kept" in titles(studio)


@pytest.mark.parametrize(("name", "problem"), [("label-studio", "does not run"), ("images", "images are not served")])
def test_a_killed_process_is_noticed_and_started_again(studio, name, problem):
    title = f"before {name} was killed"
    project(studio, title)
    os.kill(service(studio, name).pid(), signal.SIGKILL)
    assert problem in studio("status").stderr
    again = studio("serve")
    assert (again.returncode, "runs: " in again.stdout) == (0, True)
    assert title in titles(studio)
    assert ask(studio, f"/{studio.access.image_key}/{studio.image}")[0] == 200


def test_a_busy_port_is_named_and_nothing_is_started(studio):
    studio("stop")
    with socket.create_server(("127.0.0.1", studio.access.port)):
        refused = studio("serve")
    assert refused.returncode == 2
    assert f"port {studio.access.port} on 127.0.0.1 is taken" in refused.stderr
    assert "--port N" in refused.stderr
    assert service(studio, "images").pid() is None


def test_ctrl_c_ends_a_server_in_the_foreground(studio):
    studio("stop")
    process = subprocess.Popen(
        studio.command("serve", "--foreground", "--no-guard"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=studio.environment, cwd=studio.workspace.root,
    )  # fmt: skip
    assert any("Ctrl-C stops it" in line for line in iter(process.stdout.readline, ""))
    assert studio("status").returncode == 0
    assert not is_guarded(studio)
    with studio.client() as client:
        assert submissions.changed(client) is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, "stopped; what is done is kept" in said) == (130, True)
    assert service(studio, "label-studio").pid() is None
    assert service(studio, "images").pid() is None


# --- backups --------------------------------------------------------------------------------------------------------


def test_a_backup_brings_back_what_was_deleted(studio, tmp_path):
    of, file = project(studio, "precious"), tmp_path / "backup.zip"
    made = studio("backup", file)
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with studio.client() as client:
        client.projects.delete(id=of)
    assert "the server runs\n  -> mmtt annotate stop" in studio("restore", file, "--replace").stderr
    studio("stop")
    with zipfile.ZipFile(file) as archive:
        assert {"served.sqlite3", "label-studio/label_studio.sqlite3", "label-studio/.env"} < set(archive.namelist())
    refused = studio("restore", file)
    assert (refused.returncode, "restore --replace keeps it aside" in refused.stderr) == (2, True)
    done = studio("restore", file, "--replace")
    assert done.returncode == 0, done.stderr
    aside = Path(re.search(r"the old data is in (\S+)", done.stdout)[1])
    assert (aside / "label-studio/label_studio.sqlite3").is_file()
    assert studio("serve").returncode == 0
    assert "precious" in titles(studio)
    test_only_the_owner_can_read_its_files(studio)


def test_a_damaged_backup_changes_nothing(studio, tmp_path):
    file = tmp_path / "backup.zip"
    assert studio("backup", file).returncode == 0
    assert "exists\n  -> name another file" in studio("backup", file).stderr
    whole = file.read_bytes()
    before = (studio.data / "access.json").read_bytes()
    studio("stop")
    for damaged in (whole[:-200], whole[:2000] + b"\0" * 2000 + whole[4000:], b"no zip at all"):
        file.write_bytes(damaged)
        refused = studio("restore", file, "--replace")
        assert (refused.returncode, "is no whole backup" in refused.stderr) == (1, True)
        assert (studio.data / "access.json").read_bytes() == before


def test_a_backup_without_a_name_lies_beside_the_data(studio):
    said = studio("backup").stdout
    file = Path(re.search(r"backed up to (\S+\.zip);", said)[1])
    assert file.parent == studio.data.with_name(f"{studio.data.name}.backups")
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


# --- the lab's own server -------------------------------------------------------------------------------------------


def test_the_labs_server_is_reached_by_the_environment(label_studio, tmp_path):
    access = label_studio.access
    outside = {**label_studio.environment, URL: access.url, TOKEN: access.token}

    def status(**variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            label_studio.command("status"), env={**outside, **variables}, cwd=tmp_path, capture_output=True, text=True
        )

    said = status()
    assert (said.returncode, "token    accepted, admin@mmtt.local" in said.stdout) == (0, True)
    personal = httpx.post(
        f"{access.url}/api/token/", headers={"Authorization": f"Token {access.token}"}, trust_env=False
    )
    assert status(**{TOKEN: personal.json()["token"]}).returncode == 0
    wrong = status(**{TOKEN: "0" * 40})
    assert (wrong.returncode, f"the token of ${URL} is not accepted" in wrong.stderr) == (1, True)
    assert f"version  {environment.VERSION}\n" in wrong.stdout
    nobody = status(**{URL: "http://127.0.0.1:9"})
    assert (nobody.returncode, "http://127.0.0.1:9 does not answer" in nobody.stderr) == (1, True)
    half = status(**{TOKEN: ""})
    assert (half.returncode, f"{TOKEN} is not set" in half.stderr) == (2, True)
    assert not any(access.token in shown for shown in (said.stdout, said.stderr, wrong.stderr, nobody.stderr))


@pytest.fixture
def page() -> Iterator[str]:
    """Address of a server that answers everything, and is no Label Studio."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Hello</html>")

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_another_program_is_not_taken_for_a_label_studio(new_studio, page):
    said = new_studio()("status", **{URL: page, TOKEN: "0" * 40})
    assert said.returncode == 1
    assert f"{page} answers, but not as Label Studio does" in said.stderr


def test_another_version_is_said():
    assert State("", "", Answer(environment.VERSION), None).version == environment.VERSION
    said = State("", "", Answer("1.20.0"), None).version
    assert said == f"1.20.0 (page and guard are tested with {environment.VERSION})"


def test_data_of_a_newer_version_is_left_alone(new_studio, monkeypatch):
    studio = new_studio()
    monkeypatch.setenv(HOME, str(studio.home))
    folder = local(studio.workspace, make=True).data
    Access(version="99.0").save(folder)
    before = sorted(folder.iterdir())
    refused = studio("serve")
    assert refused.returncode == 1
    assert f"its data is of Label Studio 99.0, which {environment.VERSION} cannot read" in refused.stderr
    assert sorted(folder.iterdir()) == before


# --- before there is a server ---------------------------------------------------------------------------------------


def test_without_a_server_every_command_says_how_to_get_one(new_studio):
    studio = new_studio()
    for command in ("stop", "status", "backup"):
        said = studio(command)
        assert (said.returncode, "has no annotation server yet\n  -> mmtt annotate serve" in said.stderr) == (1, True)


def test_a_workspace_whose_data_is_elsewhere_gets_no_second_server(new_studio):
    studio = new_studio()
    (studio.workspace.root / "annotation-server").write_text("faces-12345678\n")
    said = studio("serve")
    assert (said.returncode, "is not on this machine" in said.stderr) == (1, True)
    (studio.workspace.root / "annotation-server").write_text("../elsewhere\n")
    assert "no name of a server" in studio("serve").stderr


def test_a_password_in_the_arguments_is_refused(new_studio):
    studio = new_studio()
    said = studio("serve", "--postgres", "postgresql://me:hidden@127.0.0.1/db")
    assert (said.returncode, "put it into $PGPASSWORD" in said.stderr) == (2, True)
    assert "hidden" not in said.stderr
    assert studio("serve", "--postgres", "mysql://me@127.0.0.1/db").returncode == 2


def test_an_address_of_another_machine_is_refused(new_studio):
    said = new_studio()("serve", "--host", "192.0.2.1")
    assert (said.returncode, "192.0.2.1, port 8080: is no address of this machine" in said.stderr) == (2, True)


def test_a_folder_of_something_else_is_not_made_an_environment(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no environment of the annotation server"):
        environment.make(tmp_path, print)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_process_number_that_somebody_else_has_now_is_left_alone(tmp_path):
    """A pid file survives its process; its number may be anybody's."""
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (tmp_path / "label-studio.pid").write_text(str(bystander.pid))
        of = Service(tmp_path, "label-studio")
        assert (of.pid(), of.stop()) == (None, False)
        assert bystander.poll() is None
        bystander.kill()


def test_an_environment_that_is_being_made_is_waited_for(tmp_path):
    """Even if whoever began to make it was killed, and left pip at work."""
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with subprocess.Popen(["sleep", "60"], pass_fds=(file.fileno(),)) as orphan:
            file.close()
            with pytest.raises(ServerError, match="is being made by another process"):
                environment.make(tmp_path, print)
            orphan.kill()
    assert not (tmp_path / "venv").exists()


def test_packages_that_cannot_be_had_are_said(tmp_path, monkeypatch):
    for name in ("UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    for name, value in {
        "UV_NO_CACHE": "1",
        "UV_HTTP_RETRIES": "0",
        "PIP_RETRIES": "0",
        "PIP_EXTRA_INDEX_URL": "",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServerError, match=rf"Label Studio {environment.VERSION} could not be installed: .+") as refused:
        environment.make(tmp_path / "new", lambda line: None)
    assert str(tmp_path / "new" / "install.log") in refused.value.remedy
    assert not environment.ready(tmp_path / "new")
