"""Label Studio's webhooks, received on this machine: hints that somebody has submitted or changed something.

A hint names a project and nothing else: no text travels, and whoever forges one learns nothing and makes us look once
more. Label Studio waits a second for an answer, inside the annotator's own request, and does not try again; so a hint
is put into a queue and answered at once.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections import Counter
from collections.abc import Collection
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

from mmtt_build.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

HOST = "127.0.0.1"
HEADER = "X-Mmtt-Secret"
PATH = "/mmtt/watch/"
ACTIONS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")
LARGEST = 65_536
"""Bytes of a request that are read; a hint of ours has 30."""
SLOWEST_S = 5.0


class Receiver:
    """Listens as long as it is entered.

    Args:
        port: to listen on; 0 takes a free one.

    Attributes:
        hints: number of a project and `time.monotonic()` of the hint; None ends whoever waits.
        projects: numbers that are taken for ours.
        refused: requests that were no hints, by status.
    """

    def __init__(self, port: int = 0) -> None:
        self.hints: SimpleQueue[tuple[int, float] | None] = SimpleQueue()
        self.projects: set[int] = set()
        self.refused: Counter[int] = Counter()
        self._secret = secrets.token_urlsafe(32)
        self._made: set[int] = set()
        try:
            self._server = _Server((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(f"port {port} cannot be had: {error.strerror}", "--port N, or 0 for a free one") from None
        self._server.receiver = self

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        """Begins to listen."""
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *failure: object) -> None:
        """Ends."""
        self._server.shutdown()
        self._server.server_close()

    def take(self, path: str, secret: str, length: str) -> HTTPStatus:
        """What a request is answered, and a hint where it is one."""
        if not hmac.compare_digest(secret.encode(), self._secret.encode()):
            return HTTPStatus.FORBIDDEN
        if not length.isdecimal() or int(length) > LARGEST:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        found = re.fullmatch(re.escape(PATH) + r"(\d{1,18})", path)
        if found is None or int(found[1]) not in self.projects:
            return HTTPStatus.NOT_FOUND
        self.hints.put((int(found[1]), time.monotonic()))
        return HTTPStatus.NO_CONTENT

    def register(self, client: LabelStudio, projects: Collection[int]) -> None:
        """Has the server send hints of projects here, and nowhere where an earlier run has listened.

        Raises:
            ServerError: the server sends none to this machine.
        """
        from label_studio_sdk.core.api_error import ApiError

        self.projects = set(projects)
        listening = set()
        hook: Any
        for hook in client.webhooks.list():
            if hook.project in self.projects and PATH in hook.url:
                if hook.id in self._made:
                    listening.add(hook.project)
                else:
                    client.webhooks.delete(id=hook.id)
        for number in sorted(self.projects - listening):
            try:
                hook = client.webhooks.create(
                    url=f"http://{HOST}:{self.port}{PATH}{number}", project=number, is_active=True,
                    send_payload=False, send_for_all_actions=False, actions=list(ACTIONS),
                    headers={HEADER: self._secret},
                )  # fmt: skip
            except ApiError as error:
                if error.status_code not in (400, 403):
                    raise
                raise ServerError(
                    "the server sends no webhooks to this machine",
                    "a guarded one does once it was restarted: mmtt annotate stop, then serve; else watch --poll 10",
                ) from None
            self._made.add(hook.id)

    def unregister(self, client: LabelStudio) -> None:
        """Takes back what `register` has made."""
        for number in sorted({hook.id for hook in client.webhooks.list()} & self._made):
            client.webhooks.delete(id=number)
        self._made.clear()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    receiver: Receiver

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is no event."""


class _Handler(BaseHTTPRequestHandler):
    timeout = SLOWEST_S
    server: _Server

    def do_POST(self) -> None:
        receiver, length = self.server.receiver, self.headers.get("Content-Length", "0")
        status = receiver.take(self.path, self.headers.get(HEADER, ""), length)
        if status >= HTTPStatus.BAD_REQUEST:
            receiver.refused[int(status)] += 1
        else:
            self.rfile.read(int(length))  # or the other end sees its connection dropped
        self.send_response_only(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a request line may hold what somebody tries."""
