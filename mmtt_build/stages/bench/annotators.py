"""Thirty annotators who are none: sessions over HTTP that log in, take tasks, wait, keep a draft and submit."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from annotation.accounts import Login
from mmtt_build.errors import ServerError

THINK_S = (6.0, 14.0)
"""Between two tasks, at random: thirty people then submit some 2.5 times a second, five times what they can in earnest,
where the guard asks for a minute."""
EACH = 10
"""Submissions of everybody at that pace."""
BURST = 5
"""Submissions of everybody without a thought; the first all at the same instant."""
TIMEOUT_S = 120.0

RESULT = [
    {
        "from_name": "description",
        "to_name": "pair",
        "type": "textarea",
        "value": {"text": ["The nose is blurred. " * 15]},
    },
    {"from_name": "parts", "to_name": "pair", "type": "choices", "value": {"choices": ["nose", "eye.left"]}},
]
"""Of 60 words."""


@dataclass(slots=True)
class Record:
    """What one phase of the work came to.

    Attributes:
        seconds: per kind of request, of every one.
        statuses: of answers, per kind of request; 0 where none came.
        submitted: the server's numbers of annotations that it confirmed.
        shown: tasks that were handed out, with to whom.
        took_s: of the phase.
    """

    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    submitted: list[int] = field(default_factory=list)
    shown: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    took_s: float = 0.0

    @property
    def failed(self) -> int:
        """Requests without an answer, or with an error of the server's."""
        return sum(number for (_, status), number in self.statuses.items() if status >= 500 or not status)

    @property
    def refused(self) -> Counter[tuple[str, int]]:
        """Requests that the server did not do as asked."""
        return Counter({key: number for key, number in self.statuses.items() if 400 <= key[1] < 500})


@dataclass(slots=True)
class Annotator:
    """One of them.

    Attributes:
        login: with whom.
        project: whose tasks to take.
        wait_s: what the guard asks for.
        session: as a browser has it.
        lock: of the record, which all share.
        ended: set where everybody is to go home.
    """

    login: Login
    project: int
    wait_s: float
    session: httpx.Client
    lock: threading.Lock
    ended: threading.Event
    record: Record = field(default_factory=Record)

    def log_in(self) -> None:
        """Opens a session."""
        self.session.get("/user/login/")
        form = {"email": self.login.email, "password": self.login.password}
        token = self.session.cookies["csrftoken"]
        self._send(
            "log in", "POST", "/user/login/", data=form | {"csrfmiddlewaretoken": token},
            headers={"Referer": self.login.address},
        )  # fmt: skip
        if "sessionid" not in self.session.cookies:
            raise ServerError(f"{self.login.annotator} cannot log in at {self.login.address}", "see the server's log")

    def work(self, count: int, think_s: tuple[float, float], start: threading.Barrier | None = None) -> None:
        """Takes tasks and submits them.

        Args:
            count: of tasks.
            think_s: least and most seconds before each.
            start: waited for before the first submission.
        """
        mine = random.Random(self.login.email)
        self._pause(mine.uniform(0, think_s[1]))
        for number in range(count):
            if number:
                self._pause(mine.uniform(*think_s))
            task, draft = self._next(), dict[str, Any]()
            if task is not None:
                self._pause(self.wait_s)
                draft = self._send(
                    "draft", "POST", f"/api/tasks/{task}/drafts?project={self.project}", json=self._body()
                )
            if start is not None and not number:
                start.wait(TIMEOUT_S)
            if task is not None:
                self._submit(task, draft)

    def _next(self) -> int | None:
        answer = self._send("next task", "GET", f"/api/projects/{self.project}/next")
        if not answer:
            return None
        task = int(answer["id"])
        with self.lock:
            self.record.shown[task].add(self.login.annotator)
        self._send("task", "GET", f"/api/tasks/{task}?project={self.project}")
        return task

    def _submit(self, task: int, draft: dict[str, Any]) -> None:
        body = self._body() | {"unique_id": str(uuid.uuid4())} | ({"draft_id": draft["id"]} if draft else {})
        answer = self._send("submit", "POST", f"/api/tasks/{task}/annotations/?project={self.project}", json=body)
        if answer:
            with self.lock:
                self.record.submitted.append(answer["id"])

    def _body(self) -> dict[str, Any]:
        return {"result": RESULT, "lead_time": self.wait_s, "project": self.project}

    def _pause(self, seconds: float) -> None:
        if self.ended.wait(seconds):
            raise InterruptedError("the benchmark was stopped")

    def _send(self, kind: str, method: str, address: str, **content: Any) -> dict[str, Any]:
        """Sends a request once; the JSON that it was answered with, {} where it was not done."""
        began = time.monotonic()
        try:
            answer = self.session.request(method, address, **content)
            status = answer.status_code
        except httpx.HTTPError:
            status = 0
        with self.lock:
            self.record.seconds[kind].append(time.monotonic() - began)
            self.record.statuses[kind, status] += 1
        return answer.json() if status in (200, 201) else {}


@contextmanager
def crowd(logins: Sequence[Login], projects: Sequence[int], wait_s: float) -> Iterator[Crowd]:
    """Annotators at their desks; they go home when the block ends.

    Args:
        logins: one each.
        projects: one each, or the same one for all.
        wait_s: what the guard asks for, and a little more.
    """
    lock, ended = threading.Lock(), threading.Event()
    everybody = [
        Annotator(
            login,
            project,
            wait_s,
            httpx.Client(base_url=login.address, timeout=TIMEOUT_S, trust_env=False),
            lock,
            ended,
        )
        for login, project in zip(logins, projects, strict=True)
    ]
    try:
        yield Crowd(everybody, ended)
    finally:
        ended.set()
        for annotator in everybody:
            annotator.session.close()


@dataclass(frozen=True, slots=True)
class Crowd:
    """Annotators, side by side.

    Attributes:
        everybody: of them.
        ended: set where they are to go home.
    """

    everybody: Sequence[Annotator]
    ended: threading.Event

    def log_in(self) -> Record:
        """Everybody logs in at once."""
        return self._together(lambda annotator: annotator.log_in())

    def steadily(self) -> Record:
        """Everybody works at five times the pace of people."""
        return self._together(lambda annotator: annotator.work(EACH, THINK_S))

    def at_once(self) -> Record:
        """Everybody submits at the same instant, and goes on as fast as the guard and the server allow."""
        start = threading.Barrier(len(self.everybody))
        return self._together(lambda annotator: annotator.work(BURST, (0.0, 0.0), start))

    def _together(self, do: Any) -> Record:
        record = Record()
        for annotator in self.everybody:
            annotator.record = record
        began = time.monotonic()
        with ThreadPoolExecutor(len(self.everybody)) as pool:
            try:
                list(pool.map(do, self.everybody))
            except BaseException:  # Ctrl-C, or one of them: the others would think on for a minute
                self.ended.set()
                raise
        record.took_s = time.monotonic() - began
        return record
