"""Background processes of ours: each holds a lock on its pid file as long as it lives, however it ends.

The lock, not the number in the file, says that it runs; so a number that another process has got since harms nobody.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mmtt_build.errors import ServerError

TELL_EVERY_S = 10.0
LOG_BYTES = 10_000_000
"""A longer log is put aside when its process is started again."""
STOP_S = 15.0
"""Label Studio ends 2 s after it is asked to; then it is killed."""


def wait(until: Callable[[], bool], limit_s: float, tell: Callable[[float], None] = lambda seconds: None) -> bool:
    """Waits for something.

    Args:
        until: asked five times a second.
        limit_s: seconds.
        tell: gets the seconds that have passed, every ten seconds.

    Returns:
        Whether it came true in time.
    """
    started = told = time.monotonic()
    while not until():
        now = time.monotonic()
        if now - started > limit_s:
            return False
        if now - told > TELL_EVERY_S:
            tell(now - started)
            told = now
        time.sleep(0.2)
    return True


@contextmanager
def locked(path: Path, busy: ServerError) -> Iterator[int]:
    """Holds a lock file; its descriptor, passed on to a child, keeps it as long as the child lives.

    Raises:
        ServerError: `busy`, where another process holds it.
    """
    descriptor = _lock(path)
    if descriptor is None:
        raise busy
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def got() -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    # Whoever asks whether the process runs holds the lock for an instant.
    if wait(got, limit_s=0.5):
        return descriptor
    os.close(descriptor)
    return None


@dataclass(frozen=True, slots=True)
class Service:
    """One background process.

    Attributes:
        folder: of its pid file and its log; it is its working directory, too.
        name: what they are called.
    """

    folder: Path
    name: str

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / f"{self.name}.log"

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def pid(self) -> int | None:
        """Its process id, or None where it does not run."""
        try:
            descriptor = os.open(self._pid_file, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                # The number follows the lock at once, unless whoever started it was killed right between.
                if wait(lambda: self._pid_file.read_text().isdecimal(), limit_s=1):
                    return int(self._pid_file.read_text())
                raise ServerError(
                    f"{self.name} runs under an unknown number",
                    f"end the process that holds {self._pid_file}: fuser -k",
                ) from None
        return None

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Starts it in a session of its own, so that neither Ctrl-C nor the end of the terminal reaches it.

        Args:
            command: program and arguments; others see them, so there is no secret among them.
            environment: all that it gets to see of one.

        Raises:
            ServerError: it runs already.
        """
        descriptor = _lock(self._pid_file)
        if descriptor is None:
            raise ServerError(f"{self.name} runs already", "mmtt annotate stop")
        try:
            os.truncate(descriptor, 0)
            if self.log.is_file() and self.log.stat().st_size > LOG_BYTES:
                self.log.replace(self.log.with_suffix(".old.log"))
            with os.fdopen(os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as log:
                process = subprocess.Popen(
                    [str(word) for word in command], env=dict(environment), cwd=self.folder, umask=0o077,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=(descriptor,),
                )  # fmt: skip
            os.write(descriptor, str(process.pid).encode())
            process.returncode = 0  # it is meant to outlive this object, which would complain
        finally:
            os.close(descriptor)

    def stop(self) -> bool:
        """Ends it, kindly at first.

        Returns:
            Whether it ran.
        """
        pid = self.pid()
        if pid is None:
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            if wait(lambda: self.pid() is None, STOP_S):
                return True
        raise ServerError(f"process {pid} ({self.name}) does not end", f"look at {self.log}")

    def last_words(self) -> str:
        """The last line of its log, for a message."""
        lines = self.log.read_text("utf-8", "replace").split("\n") if self.log.is_file() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
