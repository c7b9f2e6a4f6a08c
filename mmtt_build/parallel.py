"""Work on all cores with bounded memory, that stops cleanly and leaves no orphans."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import Queue, SimpleQueue
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


class _Stopped(BaseException):
    """The parent asked this process to stop."""


def on_devices(
    run: Callable[[str, Iterable[T]], Iterator[R]], tasks: Iterable[T], devices: Sequence[str]
) -> Iterator[R]:
    """Results of `run(device, tasks)`, with one process per device where there are several.

    Args:
        run: a picklable function that takes tasks as they come and yields results. When interrupted while it waits for
            a task or for the device, it ends what is under way, yields it, and passes the interrupt on.
        tasks: each goes to the device that is free first; at most four per device are under way.
        devices: at least one.

    Raises:
        MmttError: a process was killed, or `run` raised one.
    """
    if len(devices) == 1:
        yield from run(devices[0], tasks)
        return
    # A pipe for each process: a queue that they share would stay locked for ever if one was killed while it held it.
    context = multiprocessing.get_context("spawn")
    said: Queue[tuple[Connection, str, Any]] = Queue()
    links: dict[Connection, SpawnProcess] = {}
    for device in devices:
        ours, theirs = context.Pipe()
        links[ours] = context.Process(target=_serve, args=(run, device, theirs))
        links[ours].start()
        theirs.close()
        threading.Thread(target=_listen, args=(ours, said), daemon=True).start()
    under_way = dict.fromkeys(links, 0)
    queue = iter(tasks)
    stopped: BaseException | None = None
    exhausted = False
    try:
        while under_way:
            try:
                while not exhausted:
                    link = min(under_way, key=under_way.__getitem__)
                    if under_way[link] >= IN_FLIGHT_PER_WORKER:
                        break
                    task = next(queue, None)
                    exhausted = task is None
                    for to in under_way if exhausted else [link]:
                        with suppress(OSError):  # it died, which its listener tells
                            to.send(task)
                    under_way[link] += 1
                link, kind, value = said.get()
            except BaseException as error:
                if stopped:
                    raise
                stopped, exhausted = error, True
                for process in links.values():
                    process.terminate()
                continue
            if kind == "result":
                under_way[link] -= 1
                yield value
            elif kind == "error":
                raise value
            else:
                del under_way[link]
                links[link].join()
                if kind == "gone" and not stopped:
                    raise MmttError(
                        f"a device process was killed (exit code {links[link].exitcode}), most likely for memory",
                        "what is done is kept; run the same command again",
                    )
        if stopped:
            raise stopped
    finally:
        for process in links.values():
            if under_way:
                process.terminate()
        for process in links.values():
            process.join()


def _listen(link: Connection, said: Queue[tuple[Connection, str, Any]]) -> None:
    """Passes on what a process says; a thread of its own, so that no interrupt breaks off a message half read."""
    with suppress(OSError, EOFError):
        while True:
            kind, value = link.recv()
            said.put((link, kind, value))
            if kind != "result":
                return
    said.put((link, "gone", None))


def _serve(run: Callable[[str, Iterable[Any]], Iterator[Any]], device: str, link: Connection) -> None:
    """One device's process: tasks come until one is None."""

    def stop(number: int, frame: object) -> None:
        raise _Stopped

    def receive() -> None:
        with suppress(OSError, EOFError):
            while True:
                todo.put(link.recv())

    def send() -> None:
        for item in iter(done.get, None):
            link.send(item)

    todo: SimpleQueue[Any] = SimpleQueue()
    done: SimpleQueue[Any] = SimpleQueue()
    # Threads of their own, so that a signal breaks off no message.
    threading.Thread(target=receive, daemon=True).start()
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    _enter_worker(None, ())
    last: tuple[str, Any] = ("end", device)
    try:
        signal.signal(signal.SIGTERM, stop)
        for result in run(device, iter(todo.get, None)):
            done.put(("result", result))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except _Stopped:
        pass
    except MmttError as error:
        last = ("error", error)
    except Exception as error:
        last = ("error", MmttError(f"{device}: {type(error).__name__}: {error}", "what is done is kept"))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    done.put(last)
    done.put(None)
    sender.join()
