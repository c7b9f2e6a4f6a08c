"""One progress line on standard error: rate, time left, failures by cause; plain lines when it is no terminal."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType
from typing import Self

PLAIN_EVERY_S = 10.0


class Progress:
    """Counts outcomes of a known number of steps and shows them.

    Args:
        label: what is being done ("ingest").
        total: number of steps, or None where it is not known.
        unit: what is counted ("images").

    Attributes:
        note: shown after the rate, e.g. how busy the device is.
    """

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = 0
        self.outcomes: Counter[str] = Counter()
        self.note = ""
        self._started = self._shown = time.monotonic()
        self._bar: object = None

    def __enter__(self) -> Self:
        """Opens the bar on a terminal."""
        if sys.stderr.isatty() and self.total != 0:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self.label, total=self.total, note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the bar; off a terminal prints the summary line."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=self._note())  # type: ignore[attr-defined]
            self._bar.stop()  # type: ignore[attr-defined]
        elif self.done and time.monotonic() - self._started > 1:
            self._plain()

    def step(self, outcome: str = "ok", cause: str = "", count: int = 1) -> None:
        """Records steps and how they ended.

        Args:
            outcome: "ok", "rejected", "failed", ...
            cause: short reason, counted in the line; digits are dropped so that causes group.
            count: of the steps that ended so.
        """
        self.done += count
        self.outcomes[f"{outcome}: {_group(cause)}" if cause else outcome] += count
        now = time.monotonic()
        if self._bar is not None:
            if now - self._shown > 0.1:
                self._bar.update(self._task, completed=self.done, note=self._note())  # type: ignore[attr-defined]
                self._shown = now
        elif now - self._shown > PLAIN_EVERY_S:
            self._plain()
            self._shown = now

    def _note(self) -> str:
        rate = self.done / max(time.monotonic() - self._started, 1e-9)
        bad = [f"{n} {what}" for what, n in self.outcomes.most_common(4) if what != "ok"]
        speed = f"{rate:.1f} {self.unit}/s" if rate >= 1 else f"{1 / max(rate, 1e-9):.1f} s each"
        return ", ".join([speed, *([self.note] if self.note else []), *bad])

    def _plain(self) -> None:
        elapsed = time.monotonic() - self._started
        of = f"/{self.total}" if self.total else ""
        left = f", {elapsed / self.done * (self.total - self.done):.0f} s left" if self.total and self.done else ""
        sys.stderr.write(f"{self.label}: {self.done}{of} {self.unit}, {self._note()}{left}\n")
        sys.stderr.flush()


def _group(cause: str) -> str:
    """Causes that differ in numbers or names are one cause in the line; the rows keep them apart."""
    return cause.split(":")[0].rstrip("0123456789 ")[:40]
