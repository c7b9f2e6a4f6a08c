"""The loop of everything that runs a network: decode -> device -> encode, with bounded queues.

The device never waits for a file while a batch is ready, and memory holds a handful of batches, however many rows
there are. Decoding and encoding are OpenCV's and zlib's, which leave Python's lock to others, so threads will do. One
pool does both, first come first served: two pools would take turns on the cores for nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Task = TypeVar("Task")
Loaded = TypeVar("Loaded")
Made = TypeVar("Made")
Done = TypeVar("Done")

AHEAD = 3
"""Batches that are read before the device asks for them, the one on the device included."""
BEHIND = 3
"""Batches whose results are still being written while the device goes on."""


@dataclass(slots=True)
class Busy:
    """How busy the device was.

    Attributes:
        working_s: seconds in which the device worked on a batch.
        elapsed_s: seconds from the start of the first batch to the end of the last one.
    """

    working_s: float = 0.0
    elapsed_s: float = 0.0

    @property
    def share(self) -> float:
        """Share of the time, 0 to 1; 0 before the first batch."""
        return self.working_s / self.elapsed_s if self.elapsed_s else 0.0


@dataclass(slots=True)
class Loop(Generic[Task, Loaded, Made, Done]):
    """Runs batches of tasks through `load`, `work` and `finish`.

    Attributes:
        load: a task to what the device needs; runs in the pool. An exception goes to `finish` in place of a
            result, and that task does not reach the device.
        work: loaded tasks to what was made of them, in order and equally many; one batch at a time.
        finish: task, what was loaded (None if loading failed) and what was made (or the exception of `load`) to a
            result; runs in the pool. What it raises ends the run.
        threads: size of the pool.
        busy: kept up to date while it runs.
    """

    load: Callable[[Task], Loaded]
    work: Callable[[list[Loaded]], Sequence[Made]]
    finish: Callable[[Task, Loaded | None, Made | Exception], Done]
    threads: int = 2
    busy: Busy = field(default_factory=Busy)

    def run(self, batches: Iterable[Sequence[Task]]) -> Iterator[list[Done]]:
        """Yields the results of each batch, in the order of the batches.

        What ends the run (an exception of `work`, or any BaseException raised in the consumer's thread while it waits,
        such as an interrupt) lets the batch on the device end, writes and yields what was made, drops what was only
        read, and is then raised.
        """
        queue = iter(batches)
        reading: deque[Future[list[Future[Done]]]] = deque()
        writing: deque[list[Future[Done]]] = deque()
        stopped: BaseException | None = None
        with (
            ThreadPoolExecutor(self.threads, "files") as pool,
            ThreadPoolExecutor(1, "device") as device,
        ):
            started = 0.0

            def step(batch: Sequence[Task], loads: list[Future[Loaded]]) -> list[Future[Done]]:
                """One batch on the device, in the device's thread."""
                nonlocal started
                loaded = [load.exception() or load.result() for load in loads]
                good = [item for item in loaded if not isinstance(item, Exception)]
                start = time.perf_counter()
                started = started or start
                made = iter(self.work(good) if good else ())  # type: ignore[arg-type]
                end = time.perf_counter()
                self.busy.working_s += end - start
                self.busy.elapsed_s = end - started
                return [
                    pool.submit(self.finish, task, None, item)
                    if isinstance(item, Exception)
                    else pool.submit(self.finish, task, item, next(made))  # type: ignore[arg-type]
                    for task, item in zip(batch, loaded, strict=True)
                ]

            try:
                while True:
                    try:
                        while not stopped and len(reading) < AHEAD and len(writing) < BEHIND:
                            batch = next(queue, None)
                            if batch is None:
                                break
                            loads = [pool.submit(self.load, task) for task in batch]
                            reading.append(device.submit(step, batch, loads))
                        if not reading and not writing:
                            break
                        heads = [*list(reading)[:1], *(writing[0] if writing else ())]
                        wait([f for f in heads if not f.done()] or heads[:1], return_when=FIRST_COMPLETED)
                    except BaseException as error:
                        if stopped:  # asked twice: no longer waited for
                            raise
                        stopped = error
                    while reading and reading[0].done() and len(writing) < BEHIND:
                        future = reading.popleft()
                        if future.cancelled():
                            continue
                        if failure := future.exception():
                            stopped = stopped or failure
                        else:
                            writing.append(future.result())
                    if stopped:
                        for future in reversed(reading):
                            future.cancel()
                    while writing and all(future.done() for future in writing[0]):
                        yield [future.result() for future in writing.popleft()]
            finally:
                for future in reading:
                    future.cancel()
        if stopped:
            raise stopped
