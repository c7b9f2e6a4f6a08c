"""When which task was shown to whom, and when it was submitted: a sqlite file beside the server's data.

It outlives restarts and is shared by all workers of a machine. The time spent on a task begins when it was first
served, or when the same annotator last submitted another one, whichever is later: tabs side by side gain nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

_TABLE = """CREATE TABLE IF NOT EXISTS served (
    user INTEGER NOT NULL, task INTEGER NOT NULL, served_at REAL NOT NULL, submitted_at REAL, made REAL,
    PRIMARY KEY (user, task)
) WITHOUT ROWID"""
_RETURNED = "CREATE TABLE IF NOT EXISTS returned (user INTEGER NOT NULL, submitted_at REAL NOT NULL)"
"""When what went back to its annotator was submitted: it still bounds the time spent on what came after."""

ON_ITS_WAY_S = 60.0
"""A submission that is this old and has led to no annotation never will: the server was stopped amid it, or the
annotation was deleted since."""


class Taken(Exception):
    """Another submission of the same task is on its way."""


class Served:
    """The log in one file; times are seconds since 1970 by the server's clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch(mode=0o600)
        with self._open() as log:
            log.execute("PRAGMA journal_mode=WAL")
            log.execute(_TABLE)
            log.execute(_RETURNED)
            log.execute("CREATE INDEX IF NOT EXISTS submitted ON served (user, submitted_at)")
            log.execute("CREATE INDEX IF NOT EXISTS returned_submitted ON returned (user, submitted_at)")

    def mark(self, user: int, task: int, made: float, now: float) -> None:
        """Notes that a task, made at `made`, was served; only the first time counts."""
        with self._open() as log:
            log.execute("BEGIN IMMEDIATE")
            _leave_namesake(log, user, task, made)
            log.execute("INSERT OR IGNORE INTO served VALUES (?, ?, ?, NULL, ?)", (user, task, now, made))

    def spent(self, user: int, task: int, now: float) -> float | None:
        """Seconds spent on a task so far; None where it was submitted before, and nothing is owed any more."""
        with self._open() as log:
            return _spent(log, user, task, now)

    def claim(self, user: int, task: int, made: float, now: float, least: float, *, only: bool = False) -> float | None:
        """Notes a submission, unless less than `least` seconds were spent on it.

        One transaction: of two tabs or browsers that submit at the same moment, one comes second.

        Args:
            user: who submits.
            task: what.
            made: when the task was.
            now: seconds since 1970.
            least: seconds.
            only: whether no other submission of this task may be on its way.

        Returns:
            The seconds spent where they are too few, else None.

        Raises:
            Taken: another one is.
        """
        with self._open() as log:
            log.execute("BEGIN IMMEDIATE")
            _leave_namesake(log, user, task, made)
            spent = _spent(log, user, task, now)
            if spent is not None and spent < least:
                return spent
            if only:
                of = "user = ? AND task = ? AND submitted_at > ?"
                if log.execute(f"SELECT 1 FROM served WHERE {of}", (user, task, now - ON_ITS_WAY_S)).fetchone():
                    raise Taken
            if spent is not None or only:
                log.execute("UPDATE served SET submitted_at = ? WHERE user = ? AND task = ?", (now, user, task))
            return None

    def release(self, user: int, task: int, claimed: float) -> None:
        """Takes back a claim made at `claimed`: the server did not accept the submission."""
        with self._open() as log:
            log.execute(
                "UPDATE served SET submitted_at = NULL WHERE user = ? AND task = ? AND submitted_at = ?",
                (user, task, claimed),
            )

    def forget(self, user: int, task: int, now: float) -> None:
        """Lets the wait on a task begin anew, at its next sight: what was submitted of it goes back."""
        with self._open() as log:
            _forget(log, user, task, now)

    def rows(self, since: float) -> Iterator[dict[str, Any]]:
        """What was served or submitted from a time on, in no order."""
        with self._open() as log:
            log.row_factory = sqlite3.Row
            for row in log.execute("SELECT * FROM served WHERE max(served_at, ifnull(submitted_at, 0)) >= ?", (since,)):
                yield dict(row)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=30)) as log, log:
            yield log


def _leave_namesake(log: sqlite3.Connection, user: int, task: int, made: float) -> None:
    """Forgets another task of the same number: sqlite gives the numbers of deleted ones again.

    Which task it is, its making tells, whatever the clock did since.
    """
    of = "user = ? AND task = ? AND made IS NOT ?"
    row = log.execute(f"SELECT served_at FROM served WHERE {of}", (user, task, made)).fetchone()
    if row is not None:
        _forget(log, user, task, row[0])


def _forget(log: sqlite3.Connection, user: int, task: int, otherwise: float) -> None:
    log.execute(
        "INSERT INTO returned SELECT user, ifnull(submitted_at, ?) FROM served WHERE user = ? AND task = ?",
        (otherwise, user, task),
    )
    log.execute("DELETE FROM served WHERE user = ? AND task = ?", (user, task))


def _spent(log: sqlite3.Connection, user: int, task: int, now: float) -> float | None:
    row = log.execute("SELECT served_at, submitted_at FROM served WHERE user = ? AND task = ?", (user, task)).fetchone()
    if row is None:
        return 0.0
    if row[1] is not None:
        return None
    lasts = (
        log.execute(f"SELECT max(submitted_at) FROM {table} WHERE user = ?", (user,)).fetchone()[0]
        for table in ("served", "returned")
    )
    return max(0.0, now - max(row[0], *(last or 0.0 for last in lasts)))
