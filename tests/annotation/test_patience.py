"""The client of the annotation server against servers that misbehave: what is tried again, and what is said."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import jwt
import pytest

from annotation import patience
from annotation.access import TOKEN, URL, Connection, ask, from_environment
from annotation.session import session
from mmtt_build.errors import ConfigError, ServerError
from tests.annotation.gateway import LOGIN, Act, cut, data, drop, hang, opened, page

pytestmark = pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")  # the SDK's
SECRET = "5ec7e7" * 6 + "beef"
PERSONAL = jwt.encode({"token_type": "refresh", "exp": time.time() + 1e6, "jti": SECRET}, SECRET * 2)
"""A token that no server gave out, and one that says itself that it has run out."""
EXPIRED = jwt.encode({"token_type": "refresh", "exp": time.time() - 60}, SECRET * 2)

KNOWN = {
    "GET /api/version": {"release": "1.23.2"},
    "GET /api/current-user/whoami": {"id": 1, "email": "me@lab.example"},
}


@pytest.fixture
def gateway():
    """One with nothing behind it that takes us for an administrator."""
    with opened() as made:
        for pattern, answer in KNOWN.items():
            made.at(pattern, data(200, answer))
        made.at("GET /mmtt/wait", page(404))
        yield made


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Tries follow each other fast."""
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.05)


def refusal(url: str, token: str = SECRET, work: Callable = lambda client: None) -> ServerError:
    """What a command that works on a server ends with; nothing of it shows a token."""
    with pytest.raises(ServerError) as caught, session(Connection(url, token, "$X"), "mmtt annotate pull") as client:
        work(client)
    assert_silent("".join(traceback.format_exception(caught.value)))
    assert_silent(ask(Connection(url, token, "$X")).problem)
    return caught.value


def assert_silent(text: str) -> None:
    assert not any(secret in text for secret in (SECRET, PERSONAL, EXPIRED, LOGIN.partition("?")[2]))


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (page(200, "Hello"), "URL answers, but not as Label Studio does: status 200 and a page, 'Hello'"),
        (page(404, "&lt;No&gt;"), "URL answers, but not as Label Studio does: status 404 and a page, '<No>'"),
        (data(200, {"release": None}), "URL answers, but not as Label Studio does"),
        (data(200, {"hello": 1}), "URL answers, but not as Label Studio does"),
        (data(200, ["hello"]), "URL answers, but not as Label Studio does"),
        (data(200, "hello"), "URL answers, but not as Label Studio does"),
        (page(500, "Server Error"), "URL answers with status 500 and a page, 'Server Error'"),
        (data(500, {"detail": "disk full"}), "URL answers with status 500: disk full"),
        (data(401, {"detail": "Invalid token."}), "the token of $X is not accepted"),
        (data(403, {"detail": "no"}), "the user of the token of $X may not do this: no"),
        (page(401, "Who?"), "URL answers with status 401 and a page, 'Who?'"),
        (page(302, Location=LOGIN), "URL sends us on to https://sso.lab.example/login"),
        (page(301, Location="/labelling/"), "URL sends us on to /labelling/"),
        (drop, "URL does not answer (the connection was dropped)"),
    ],
)  # fmt: skip
def test_what_answers_something_else_is_named(monkeypatch, act: Act, problem):
    monkeypatch.setenv(patience.VARIABLE, "0.1")
    with opened() as gateway:
        gateway.at(".", act)
        expected = problem.replace("URL", gateway.url)
        assert refusal(gateway.url).message == expected
        assert ask(Connection(gateway.url, SECRET, "$X")).problem == expected


def test_a_server_that_hangs_is_given_up(gateway):
    gateway.at("GET /api/users", hang)
    with (
        pytest.raises(ServerError, match="does not answer \\(it takes too long\\)"),
        patience.failures(gateway.url, "$X"),
        Connection(gateway.url, SECRET, "$X").client(timeout_s=0.5) as client,
    ):
        client.users.list()


def test_a_host_or_port_that_is_not_there_is_said(monkeypatch, caplog):
    monkeypatch.setenv(patience.VARIABLE, "0.3")
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    error = refusal(url)
    assert error.message == f"{url} does not answer (connection refused)"
    assert "then mmtt annotate pull: nothing is done twice" in error.remedy
    assert [record.message for record in caplog.records if "trying" in record.message] == [
        f"{url} does not answer (connection refused), trying again for 0 s"
    ]
    monkeypatch.setenv(patience.VARIABLE, "3600")  # a name that is not known is not waited for
    assert "http://nowhere.invalid does not answer (" in refusal("http://nowhere.invalid").message


# --- what is tried again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [drop, page(502), page(503), page(504)])
def test_what_changes_nothing_is_asked_again(gateway, caplog, act):
    gateway.at("GET /api/users", act, times=4)
    gateway.at("GET /api/users", data(200, [{"id": 3, "email": "a@b"}]))
    with session(Connection(gateway.url, SECRET, "$X"), "again") as client:
        assert [user.id for user in client.users.list()] == [3]
    assert gateway.count("GET /api/users") == 5
    (said,) = [record.message for record in caplog.records if "trying again for 30 s" in record.message]
    assert said.startswith(gateway.url)
    assert_silent(caplog.text)


def test_an_answer_that_breaks_off_is_asked_for_again(gateway):
    with opened() as behind:
        behind.at(".", data(200, [{"id": number, "email": "a@b"} for number in range(100)]))
        gateway.behind = behind.url
        gateway.at("GET /api/users", cut, times=2)
        with session(Connection(gateway.url, SECRET, "$X"), "again") as client:
            assert len(client.users.list()) == 100
    assert gateway.count("GET /api/users") == 3


@pytest.mark.parametrize("act", [drop, page(502), page(503)])
@pytest.mark.parametrize(
    ("what", "work"),
    [
        ("POST /api/projects", lambda client: client.projects.create(title="x")),
        ("PATCH /api/projects/1", lambda client: client.projects.update(id=1, title="x")),
        ("DELETE /api/projects/1", lambda client: client.projects.delete(id=1)),
    ],
)
def test_what_may_have_been_done_is_not_sent_twice(gateway, act, what, work):
    gateway.at(what, act)
    refusal(gateway.url, work=work)
    assert gateway.count(what) == 1


def test_a_500_is_nothing_to_wait_for(gateway, caplog):
    gateway.at("GET /api/users", data(500, {"detail": "broken"}))
    refusal(gateway.url, work=lambda client: client.users.list())
    assert gateway.count("GET /api/users") == 1
    assert "trying" not in caplog.text


def test_what_never_reached_the_server_is_sent_when_it_is_there(caplog):
    """A change, too: nobody can have done it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    got = []

    class Late(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    def come_up():
        while "trying again" not in caplog.text:
            time.sleep(0.02)
        with HTTPServer(("127.0.0.1", port), Late) as server:
            server.handle_request()

    thread = Thread(target=come_up, daemon=True)
    thread.start()
    with patience.Patient(60.0, trust_env=False) as client:
        assert client.post(f"http://127.0.0.1:{port}/", content=b"once").status_code == 201
    thread.join()
    assert got == [b"once"]


def test_patience_is_a_setting(monkeypatch):
    assert patience.seconds() == 30
    monkeypatch.setenv(patience.VARIABLE, "2.5")
    assert patience.seconds() == 2.5
    for wrong in ("soon", "-1", "inf", "1e9"):
        monkeypatch.setenv(patience.VARIABLE, wrong)
        with pytest.raises(ConfigError, match=f"{patience.VARIABLE}='{wrong}' is no number of seconds"):
            patience.seconds()


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_that_has_run_out_or_is_refused_is_said(gateway):
    assert refusal(gateway.url, EXPIRED).message == "the token of $X has run out"
    assert gateway.seen == []
    gateway.at("POST /api/token/refresh/", data(401, {"detail": "Token is invalid", "code": "token_not_valid"}))
    assert refusal(gateway.url, PERSONAL).message == "the token of $X is not accepted"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_personal_token_is_taken_nowhere_else(status):
    with opened() as other, opened() as gateway:
        other.at(".", data(200, {"access": "x"}))
        gateway.at(".", page(status, Location=f"{other.url}/api/token/refresh/?x={PERSONAL}"))
        assert f"{gateway.url} sends us on to {other.url}/api/token/refresh/" in refusal(gateway.url, PERSONAL).message
        assert other.seen == []


@pytest.mark.parametrize("act", [page(200), data(200, {}), data(200, [])])
def test_a_renewal_that_is_none_is_said(gateway, act):
    gateway.at("POST /api/token/refresh/", act)
    assert f"{gateway.url} answers, but not as Label Studio does" in refusal(gateway.url, PERSONAL).message


def test_a_renewal_is_asked_for_again(gateway):
    access = jwt.encode({"token_type": "access", "exp": time.time() + 300}, SECRET * 2)
    gateway.at("POST /api/token/refresh/", page(502), times=2)
    gateway.at("POST /api/token/refresh/", data(200, {"access": access}))
    with session(Connection(gateway.url, PERSONAL, "$X"), "again"):
        assert gateway.count("POST /api/token/refresh/") == 3


def test_an_annotators_token_is_refused():
    with opened() as gateway:
        for pattern, answer in KNOWN.items():
            gateway.at(pattern, data(200, answer))
        gateway.at("GET /mmtt/wait", data(200, {"left": 60.0, "seconds": 60.0, "words": 120}))
        assert refusal(gateway.url).message == "the token of $X is an annotator's, me@lab.example"


def test_a_token_with_its_quotes_is_refused_before_it_is_sent(monkeypatch):
    monkeypatch.setenv(URL, " https://lab.example/ ")
    monkeypatch.setenv(TOKEN, f"{SECRET}\n")
    assert from_environment() == Connection("https://lab.example", SECRET, f"${URL}")
    for wrong in (f"“{SECRET}”", f"Token {SECRET}"):
        monkeypatch.setenv(TOKEN, wrong)
        with pytest.raises(ConfigError, match="characters that are in no token") as caught:
            from_environment()
        assert_silent(str(caught.value))


# --- certificates -----------------------------------------------------------------------------------------------------


def test_https_where_there_is_none_is_said(gateway):
    url = gateway.url.replace("http:", "https:")
    assert refusal(url).message == f"{url} has no certificate that holds: wrong version number"


def test_a_certificate_that_nobody_signed_is_said_until_it_is_trusted(tmp_path, monkeypatch):
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl here to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=lab",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Silent(HTTPServer):
        def handle_error(self, *arguments: object) -> None:
            """Clients hang up on it: that is what is tested."""

    class Version(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"release": "1.23.2", "email": "me@lab.example"}).encode()
            self.send_response(200 if "/api/" in self.path else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with Silent(("127.0.0.1", 0), Version) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}"
        error = refusal(url)
        assert error.message == f"{url} has no certificate that holds: self-signed certificate"
        assert "SSL_CERT_FILE" in error.remedy
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert ask(Connection(url, SECRET, "$X")).user == "me@lab.example"
        elsewhere = url.replace("127.0.0.1", "localhost")
        assert "has no certificate that holds: Hostname mismatch" in refusal(elsewhere).message
        server.shutdown()
