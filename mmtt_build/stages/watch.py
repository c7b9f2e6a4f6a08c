"""Watch: every submission is judged as it comes, and what is rejected goes back while its pair is still in mind.

Label Studio's webhooks say where to look; what is there the usual pull reads, now and then without a hint, too. So a
hint that was missed costs time and nothing else. What came while nobody watched is judged at the start; what was in the
tables before is the audit's, and `mmtt qc send-back`'s.

Each submission adds a shard to four tables. Once a minute some that are there become one, so that a day of thousands
leaves some dozens for others to open.
"""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType

import pyarrow as pa
import pyarrow.compute as pc

from annotation import session, tasks
from annotation.access import from_environment
from annotation.process import locked
from annotation.webhooks import Receiver
from mmtt_build.errors import ConfigError, ServerError
from mmtt_build.records import Annotation
from mmtt_build.stages import serve
from mmtt_build.stages.audit import audit
from mmtt_build.stages.pull import pull
from mmtt_build.stages.send_back import REJECT, Selection, give_back
from mmtt_build.store import KeptTable, Table
from mmtt_build.workspace import Workspace

EVERY_S = 60.0
"""Without a hint; and after it the projects of a push have their hooks, too."""
WHO = "watch"

_Hints = SimpleQueue[tuple[int, float] | None]


@dataclass(slots=True)
class Summary:
    """What came while it watched.

    Attributes:
        verdicts: submissions by verdict.
        sent: of these, ids of those that went back.
        stayed: those that were rejected and did not, by why.
        refused: requests that were no hints.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    sent: list[str] = field(default_factory=list)
    stayed: Counter[str] = field(default_factory=Counter)
    refused: int = 0


def watch(
    workspace: Workspace, *, port: int = 0, poll_s: float = 0.0, every_s: float = EVERY_S, say: Callable[[str], None]
) -> Summary:
    """Watches until it is told to stop, by Ctrl-C or SIGTERM; what it is just doing it ends.

    Args:
        workspace: whose submissions.
        port: of this machine, for the hints; 0 takes a free one.
        poll_s: asks the server so often, in seconds, and does without hints; 0 takes hints.
        every_s: asks so often besides.
        say: gets a line per submission, and on what goes wrong.

    Raises:
        ConfigError: the port cannot be had, or the server is the lab's, which reaches no port of this machine.
        ServerError: there is no server, it sends no hints, or another watch is running.
    """
    if from_environment() is not None and not poll_s:
        raise ConfigError("the lab's server reaches no port of this machine", "mmtt annotate watch --poll 10")
    folder = serve.local(workspace, make=True).data
    busy = ServerError(f"another watch of {workspace.root} is running", "stop that one first")
    with locked(folder / "watch.lock", busy), nullcontext() if poll_s else Receiver(port) as receiver:
        run = _Run(_Kept(workspace.root), receiver, say)
        _read_ahead(run.workspace)
        hints: _Hints = receiver.hints if receiver else SimpleQueue()
        with run.line, _told_to_stop(hints):
            try:
                run.register()
                how = f"asking every {poll_s:g} s" if poll_s else f"{len(run.titles):,} projects send hints"
                say(f"watching: {how}; Ctrl-C ends it")
                run.look()
                run.until_stopped(hints, poll_s or every_s)
            finally:
                run.unregister()
        run.summary.refused = sum(receiver.refused.values()) if receiver else 0
    return run.summary


class _Kept(Workspace):
    """A workspace whose tables stay in memory: each submission adds shards to four of them, and they are read often."""

    def _table(self, name: str, of: object) -> Table:
        return KeptTable(self.root / "tables" / name, of)


def _read_ahead(workspace: Workspace) -> None:
    """Has rules, lexica and tables read now, and not while the first annotator waits: a second."""
    from qc import base

    anything = Annotation("", "", "described", "The nose is blurred.", None, None, "", None, "human")
    base.audit(anything, workspace.recipe.qc, workspace.recipe.dataset.language)
    nobody = ("",)
    audit(workspace, only=nobody, dry_run=True)
    give_back(workspace, Selection(nobody), WHO, dry_run=True)
    workspace.submissions.read()


@contextmanager
def _told_to_stop(hints: _Hints) -> Iterator[None]:
    """Turns the first signal to end into the last hint; the second is as without us."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def as_before() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        hints.put(None)
        as_before()

    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        as_before()


@dataclass(slots=True)
class _Run:
    workspace: Workspace
    receiver: Receiver | None
    say: Callable[[str], None]
    summary: Summary = field(default_factory=Summary)
    line: session.Line = field(default_factory=session.Line)
    titles: dict[int, str] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    tidied: float = -math.inf

    def register(self) -> None:
        """Finds the projects, and has their hints sent here."""
        if self.receiver is None:
            return
        with self.line.open(serve.connection(self.workspace), "mmtt annotate watch") as client:
            wanted = set(self.workspace.tasks.read(["project"])["project"].to_pylist())
            self.titles = {found.number: title for title, found in tasks.projects(client, wanted).items()}
            self.receiver.register(client, self.titles)

    def unregister(self) -> None:
        """Leaves no hook behind, if the server is there."""
        if self.receiver is None:
            return
        try:
            with self.line.open(serve.connection(self.workspace), "mmtt annotate watch") as client:
                self.receiver.unregister(client)
        except ServerError as error:
            self.say(f"its webhooks stay: {error.message}; the next watch removes them")

    def until_stopped(self, hints: _Hints, every_s: float) -> None:
        """Follows the hints."""
        until = time.monotonic() + every_s
        while True:
            self.tidy()
            try:
                hint = hints.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                self.line.close()  # what seldom changes is asked again
                self.attempt(self.register)
                self.attempt(self.look)
                until = time.monotonic() + every_s
                continue
            said = [hint]
            while not hints.empty():
                said.append(hints.get())
            if None in said:
                return
            titles, came = {self.titles[one[0]] for one in said if one}, min(one[1] for one in said if one)
            self.attempt(partial(self.look, titles, came))

    def tidy(self) -> None:
        """Once a minute: one shard of many small ones, in each table that each submission adds one to."""
        if time.monotonic() < self.tidied + EVERY_S:
            return
        tables = self.workspace
        for table in (tables.submissions, tables.annotations, tables.findings, tables.sent_back):
            table.merge()
        self.tidied = time.monotonic()

    def attempt(self, what: Callable[[], None]) -> None:
        """Does something; a server that is away for a while is no reason to end."""
        try:
            what()
        except ServerError as error:
            self.say(f"problem: {error.message}")

    def look(self, titles: Collection[str] | None = None, came: float | None = None) -> None:
        """Judges what is new, and sends back what is rejected.

        Args:
            titles: of the projects to look into; None takes all.
            came: when the hint did, by `time.monotonic`.
        """
        came = time.monotonic() if came is None else came
        self.waiting.update(pull(self.workspace, only=titles, line=self.line).fresh)  # kept where what follows fails
        if not self.waiting:
            return
        audit(self.workspace, only=self.waiting)
        table = self.workspace.findings.read(["annotation_id", "annotator", "verdict", "findings"])
        chosen = pc.is_in(table["annotation_id"], pa.array(sorted(self.waiting), pa.string()))
        judged = table.filter(chosen).to_pylist()
        rejected = [row["annotation_id"] for row in judged if row["verdict"] == REJECT]
        gone = give_back(self.workspace, Selection(tuple(rejected)), WHO, line=self.line) if rejected else None
        self.waiting.clear()
        spent_ms = 1000 * (time.monotonic() - came)
        stayed = {name: why for why, names in gone.skipped.items() for name in names} if gone else {}
        for row in judged:
            name = row["annotation_id"]
            rules = sorted({finding["rule"] for finding in row["findings"]}) or ["-"]
            done = "sent back" if gone and name in gone.sent else stayed.get(name, "")
            self.say(
                f"{name}  {row['annotator']}  {row['verdict']}  {','.join(rules)}  {spent_ms:.0f} ms  {done}".rstrip()
            )
            self.summary.verdicts[row["verdict"]] += 1
        self.summary.stayed.update(stayed.values())
        self.summary.sent += gone.sent if gone else ()
