"""Annotators who are none: sessions over HTTP that log in, take tasks, wait, keep a draft and submit.

What the server confirmed to them is compared with what is pulled afterwards.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import httpx

from annotation import guard, page, people, tasks
from annotation.accounts import FILE_NAME, Login
from annotation.people import Person
from annotation.server import Server
from mmtt_build.errors import ServerError
from mmtt_build.stages.bench.synthetic import GUARD_S
from mmtt_build.stages.bench.timing import Say
from mmtt_build.stages.pull import pull
from mmtt_build.stages.push import Options, push
from mmtt_build.workspace import Workspace

WAIT_S = GUARD_S + 0.3
"""What an annotator looks at a pair, here."""
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Size:
    """How many annotators, and what they do.

    Attributes:
        people: of them.
        steady: submissions of each at a pace.
        think_s: least and most seconds before each of these, drawn at random.
        burst: submissions of each without a thought, the first all at the same instant.
    """

    people: int
    steady: int
    think_s: tuple[float, float]
    burst: int

    @property
    def tasks(self) -> int:
        """Of each."""
        return self.steady + self.burst


THIRTY = Size(people=30, steady=10, think_s=(6.0, 14.0), burst=5)
"""They submit some 2.5 times a second: five times what they can in earnest, where the guard asks for a minute."""

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


@dataclass(slots=True)
class _Annotator:
    """One of them.

    Attributes:
        login: with whom.
        project: whose tasks to take.
        session: as a browser has it.
        lock: of the record, which all share.
        ended: set where everybody is to go home.
    """

    login: Login
    project: int
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
                self._pause(WAIT_S)
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
        return {"result": RESULT, "lead_time": WAIT_S, "project": self.project}

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
def _crowd(logins: Sequence[Login], projects: Sequence[int]) -> Iterator[_Crowd]:
    """Annotators at their desks, with a project each or the same one for all; they go home when the block ends."""
    lock, ended = threading.Lock(), threading.Event()
    everybody = [
        _Annotator(
            login, project, httpx.Client(base_url=login.address, timeout=TIMEOUT_S, trust_env=False), lock, ended
        )
        for login, project in zip(logins, projects, strict=True)
    ]
    try:
        yield _Crowd(everybody, ended, threading.Barrier(len(everybody)))
    finally:
        ended.set()
        for annotator in everybody:
            annotator.session.close()


@dataclass(frozen=True, slots=True)
class _Crowd:
    everybody: Sequence[_Annotator]
    ended: threading.Event
    start: threading.Barrier

    def do(self, work: Callable[[_Annotator], None]) -> Record:
        """Everybody does something, at the same time."""
        record = Record()
        for annotator in self.everybody:
            annotator.record = record
        began = time.monotonic()
        with ThreadPoolExecutor(len(self.everybody)) as pool:
            try:
                list(pool.map(work, self.everybody))
            except BaseException:  # Ctrl-C, or one of them: the others would think on for a minute
                self.ended.set()
                self.start.abort()
                raise
        record.took_s = time.monotonic() - began
        return record


def load(
    say: Say, client: Any, workspace: Workspace, server: Server, everybody: Mapping[str, Person], size: Size
) -> None:
    """Lets annotators work, with a project each on sqlite and with one queue for all on PostgreSQL.

    Args:
        say: gets the lines.
        client: of the server, an administrator's.
        workspace: with `size.tasks` pairs for everybody.
        server: the same; the passwords are in its folder.
        everybody: annotators by id.
        size: how many, how much.
    """
    shared = bool(server.access.postgres)
    projects = _shared(client, workspace, everybody) if shared else _apart(client, workspace, everybody)
    logins = _logins(server, everybody)
    say(f"{size.people} annotators, {'one queue for all' if shared else 'a project each'}; wait of {GUARD_S:g} s")
    say(f"  {'':<32} {'requests':>8} {'per s':>7} {'p50 s':>7} {'p95 s':>7} {'longest':>7}")
    records = []
    with _crowd(logins, [projects[login.annotator] for login in logins]) as crowd:
        phases: tuple[tuple[str, Callable[[_Annotator], None]], ...] = (
            ("everybody logs in at once", lambda one: one.log_in()),
            ("a steady pace", lambda one: one.work(size.steady, size.think_s)),
            ("all at once, without a thought", lambda one: one.work(size.burst, (0.0, 0.0), crowd.start)),
        )
        for name, work in phases:
            record = crowd.do(work)
            records.append(record)
            say(f"  {name}: {record.took_s:.0f} s, load of this machine {os.getloadavg()[0]:.1f}")
            _say_times(say, record)
    pull(workspace)
    _say_counts(say, workspace, records)
    for number in set(projects.values()):
        client.projects.delete(id=number)


def _apart(client: Any, workspace: Workspace, everybody: Mapping[str, Person]) -> dict[str, int]:
    """Pushes; the project of each annotator, by id."""
    given = workspace.root / "annotators.csv"
    given.write_text("email\n" + "".join(f"{person.email}\n" for person in everybody.values()), "utf-8")
    push(workspace, annotators=given, options=Options(repeats=0, controls=0))
    rows = workspace.tasks.read(["project", "annotator"]).to_pylist()
    title_of = {row["annotator"]: row["project"] for row in rows}
    found = tasks.projects(client, title_of.values())
    return {name: found[title].number for name, title in title_of.items()}


def _shared(client: Any, workspace: Workspace, everybody: Mapping[str, Person]) -> dict[str, int]:
    """Puts what was pushed into one project that everybody may open; that one for each."""
    apart = _apart(client, workspace, everybody)
    data = []
    for number in apart.values():
        config = client.projects.get(id=number).label_config
        listed = client.tasks.list(project=number, fields="task_only", include="id,data", page_size=1000)
        data += [{"data": task.data} for task in listed]
        client.projects.delete(id=number)
    title = f"{workspace.recipe.dataset.name}-shared"
    named = guard.described_to(person.email for person in everybody.values())
    project = client.projects.create(title=title, **page.PROJECT, label_config=config, description=named)
    client.projects.import_tasks(id=project.id, request=data)
    workspace.tasks.append([row | {"project": title} for row in workspace.tasks.read().to_pylist()])
    return dict.fromkeys(everybody, project.id)


def _logins(server: Server, everybody: Mapping[str, Person]) -> list[Login]:
    columns = [column.name for column in fields(Login)]
    rows = [row for _, row in people.read(server.data / FILE_NAME, columns, "mmtt annotate invite")]
    return [Login(*(row[column] for column in columns)) for row in rows if row["annotator"] in everybody]


def _say_times(say: Say, record: Record) -> None:
    for kind, seconds in record.seconds.items():
        ordered = sorted(seconds)
        p50, p95 = (ordered[round(share * (len(ordered) - 1))] for share in (0.5, 0.95))
        say(
            f"    {kind:<30} {len(ordered):>8} {len(ordered) / record.took_s:>7.1f} {p50:>7.2f} {p95:>7.2f} "
            f"{ordered[-1]:>7.2f}"
        )


def _say_counts(say: Say, workspace: Workspace, records: Sequence[Record]) -> None:
    shown: defaultdict[int, set[str]] = defaultdict(set)
    statuses: Counter[tuple[str, int]] = Counter()
    for record in records:
        statuses += record.statuses
        for task, who in record.shown.items():
            shown[task] |= who
    sent = {number for record in records for number in record.submitted}
    rows = workspace.submissions.read(["annotation_id", "task_id", "status"]).to_pylist()
    came = {int(row["annotation_id"].rpartition("-")[2]) for row in rows if row["status"] == "ok"}
    doubled = len(rows) - len({row["task_id"] for row in rows})
    twice = sum(len(who) > 1 for who in shown.values())
    say(f"  {len(shown)} tasks shown, {twice} of them to two people; {len(sent)} submissions confirmed")
    say(f"  {len(came)} pulled: {len(sent - came)} lost, {len(came - sent)} unconfirmed, {doubled} doubled")
    wrong = {key: number for key, number in statuses.items() if key[1] >= 400 or not key[1]}
    say(f"  {sum(wrong.values())} requests not done as asked")
    for (kind, status), number in sorted(wrong.items()):
        say(f"    {kind}: {number} x {f'status {status}' if status else 'no answer'}")
