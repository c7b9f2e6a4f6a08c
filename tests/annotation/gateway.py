"""A proxy before a server, as labs have one: real sockets, and at chosen requests it misbehaves."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import urlsplit

Act = Callable[["Handler", bytes], None]
LOGIN = "https://sso.lab.example/login?next=secret"
_OWN = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@dataclass
class Rule:
    """What is done at some requests.

    Attributes:
        pattern: of "METHOD /path?query".
        act: what is done.
        after: so many matching requests pass before.
        times: so many are treated so.
    """

    pattern: str
    act: Act
    after: int = 0
    times: int = 1_000_000


@dataclass
class Gateway:
    """The proxy: passes everything on to `behind`, unless a rule says otherwise."""

    behind: str
    port: int = 0
    rules: list[Rule] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def at(self, pattern: str, act: Act, *, after: int = 0, times: int = 1_000_000) -> None:
        self.rules.append(Rule(pattern, act, after, times))

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request)) for request in self.seen)

    def act(self, request: str) -> Act:
        with self.lock:
            self.seen.append(request)
            for rule in self.rules:
                if re.search(rule.pattern, request):
                    if rule.after:
                        rule.after -= 1
                    elif rule.times:
                        rule.times -= 1
                        return rule.act
        return forward


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gateway: Gateway

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.gateway.act(f"{self.command} {self.path}")(self, body)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _any  # noqa: N815 - so they are called

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _OWN:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def fetch(handler: Handler, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """What the server behind says."""
    to = urlsplit(handler.gateway.behind)
    with closing(http.client.HTTPConnection(str(to.hostname), to.port, timeout=120)) as connection:
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in _OWN}
        connection.request(handler.command, handler.path, body or None, headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def forward(handler: Handler, body: bytes) -> None:
    try:
        answer = fetch(handler, body)
    except (OSError, http.client.HTTPException):
        answer = 502, {"Content-Type": "text/html"}, b"<html><title>502 Bad Gateway</title></html>"
    handler.answer(*answer)


def page(status: int, title: str = "nginx", **headers: str) -> Act:
    """A page with what came along, as some servers show it while they are being set up."""

    def act(handler: Handler, body: bytes) -> None:
        shown = f"<html><head><title>{title}</title></head><body><pre>{handler.headers}</pre>{body!r}</body></html>"
        handler.answer(status, {"Content-Type": "text/html", **headers}, shown.encode())

    return act


def data(status: int, value: object) -> Act:
    return lambda handler, body: handler.answer(
        status, {"Content-Type": "application/json"}, json.dumps(value).encode()
    )


def drop(handler: Handler, body: bytes) -> None:
    """Ends the connection; the server behind never heard of the request."""
    handler.close_connection = True
    with suppress(OSError):  # it has ended already
        handler.connection.shutdown(socket.SHUT_RDWR)


def lose(handler: Handler, body: bytes) -> None:
    """Has it done, and ends the connection instead of saying so."""
    fetch(handler, body)
    drop(handler, body)


def hang(handler: Handler, body: bytes) -> None:
    """Says nothing until whoever asked has gone."""
    handler.connection.recv(1)
    drop(handler, body)


def cut(handler: Handler, body: bytes) -> None:
    """Ends the connection amid the answer."""
    status, _, answer = fetch(handler, body)
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(answer)))
    handler.end_headers()
    handler.wfile.write(answer[: len(answer) // 2])
    drop(handler, body)


def slow(seconds: float) -> Act:
    def act(handler: Handler, body: bytes) -> None:
        time.sleep(seconds)
        forward(handler, body)

    return act


def first(do: Callable[[], object], then: Act = forward) -> Act:
    def act(handler: Handler, body: bytes) -> None:
        do()
        then(handler, body)

    return act


@contextmanager
def opened(behind: str = "") -> Iterator[Gateway]:
    """A running gateway."""
    gateway = Gateway(behind)
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"gateway": gateway})) as server:
        server.daemon_threads = True
        gateway.port = server.server_port
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield gateway
        server.shutdown()
