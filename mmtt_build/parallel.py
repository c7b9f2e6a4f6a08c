"""Work on all cores with bounded memory, that stops cleanly and leaves no orphans."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

import cv2

from mmtt_build.errors import MmttError

T = TypeVar("T")
R = TypeVar("R")

IN_FLIGHT_PER_WORKER = 4


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def unordered(
    function: Callable[[T], R],
    tasks: Iterable[T],
    workers: int,
    setup: Callable[..., None] | None = None,
    setup_args: tuple[Any, ...] = (),
) -> Iterator[R]:
    """Results of `function` over `tasks`, as they are done.

    Args:
        function: a module-level function.
        tasks: drawn lazily; at most four per worker are under way.
        workers: processes; 1 works in this process.
        setup: called once in each worker before its first task.
        setup_args: its arguments.

    Raises:
        MmttError: a worker process was killed (usually for memory). What `function` raises is raised here.
    """
    if workers == 1:
        threads = cv2.getNumThreads()
        _prepare(setup, setup_args)
        try:
            yield from map(function, tasks)
        finally:
            cv2.setNumThreads(threads)
        return
    # spawn: forking a process that has threads (Arrow, OpenCV) can deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_enter_worker, initargs=(setup, setup_args))
    queue = iter(tasks)
    pending: set[Future[R]] = set()
    stopped: BaseException | None = None
    try:
        for task in islice(queue, workers * IN_FLIGHT_PER_WORKER):
            pending.add(pool.submit(function, task))
        while pending:
            try:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
            except BaseException as error:
                # Ctrl-C: what is under way is finished and kept; a second one is not waited for.
                if stopped:
                    raise
                stopped = error
                pending = {future for future in pending if not future.cancel()}
                continue
            for task in islice(queue, 0 if stopped else len(done)):
                pending.add(pool.submit(function, task))
            for future in done:
                yield future.result()
        if stopped:
            raise stopped
    except BrokenProcessPool as error:
        if stopped:  # the signal went to the workers too
            raise stopped from error
        raise MmttError(
            "a worker process was killed, most likely for memory",
            "what is done is kept; run the same command again with fewer --workers",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(setup: Callable[..., None] | None, args: tuple[Any, ...]) -> None:
    cv2.setNumThreads(1)
    if setup is not None:
        setup(*args)


def _enter_worker(setup: Callable[..., None] | None, args: tuple[Any, ...]) -> None:
    # Ctrl-C goes to the whole process group; the parent decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    _prepare(setup, args)


def _die_with(parent: Any) -> None:
    """A parent killed by SIGKILL cannot stop its workers; they would wait for work for ever."""
    parent.join()
    os._exit(1)
