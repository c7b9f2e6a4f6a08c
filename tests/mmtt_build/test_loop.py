"""The device loop: order, overlap, bounds, failures of single tasks, interrupts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from mmtt_build import loop as module
from mmtt_build.loop import Loop


class Stop(BaseException):
    """As the command line raises on Ctrl-C."""


def batches(count: int, size: int = 2) -> Iterator[list[int]]:
    for first in range(0, count * size, size):
        yield list(range(first, first + size))


def doubled(numbers: list[int]) -> list[int]:
    return [2 * number for number in numbers]


def test_results_come_in_the_order_of_the_batches() -> None:
    def load(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    done = list(Loop(load, doubled, lambda task, loaded, made: (task, loaded, made), 3).run(batches(12)))
    assert done == [[(n, n, 2 * n) for n in batch] for batch in batches(12)]
    assert list(Loop(load, doubled, lambda *_: None).run([])) == []


def test_reading_and_writing_go_on_while_the_device_works() -> None:
    """Each waits for the others to be under way: a loop that does one thing after the other would stand still."""
    together = threading.Barrier(3, timeout=20)
    turn = {"load": 2, "work": 1, "finish": 0}

    def meet(what: str, number: int) -> None:
        if number == turn[what]:
            together.wait()

    def load(number: int) -> int:
        meet("load", number)
        return number

    def work(numbers: list[int]) -> list[int]:
        meet("work", numbers[0])
        return numbers

    def finish(task: int, loaded: int | None, made: int | Exception) -> int:
        meet("finish", task)
        return task

    assert [n for done in Loop(load, work, finish, 2).run(batches(4, 1)) for n in done] == [0, 1, 2, 3]
    assert not together.broken


def test_only_a_handful_of_batches_is_in_memory() -> None:
    drawn = held = most = 0

    def draw() -> Iterator[list[int]]:
        nonlocal drawn, held, most
        for batch in batches(40):
            drawn += 1
            held += 1
            most = max(most, held)
            yield batch

    for _ in Loop(lambda n: n, doubled, lambda task, *_: task).run(draw()):
        held -= 1
    assert drawn == 40
    assert most <= module.AHEAD + module.BEHIND


def test_a_task_that_cannot_be_read_does_not_reach_the_device() -> None:
    seen: list[int] = []

    def load(number: int) -> int:
        if number in (1, 4, 5):
            raise ValueError(f"no {number}")
        return number

    def work(numbers: list[int]) -> list[int]:
        assert numbers
        seen.extend(numbers)
        return doubled(numbers)

    done = [row for rows in Loop(load, work, lambda *row: row).run(batches(4)) for row in rows]
    assert seen == [0, 2, 3, 6, 7]
    assert [(task, made) for task, loaded, made in done if loaded is not None] == [(n, 2 * n) for n in seen]
    assert [(task, str(made)) for task, loaded, made in done if loaded is None] == [(n, f"no {n}") for n in (1, 4, 5)]


@pytest.mark.parametrize("where", ["work", "finish"])
def test_what_ends_the_run_is_raised_here(where: str) -> None:
    def work(numbers: list[int]) -> list[int]:
        if where == "work" and 6 in numbers:
            raise RuntimeError("device lost")
        return numbers

    def finish(task: int, loaded: int | None, made: int | Exception) -> int:
        if where == "finish" and task == 6:
            raise RuntimeError("device lost")
        return task

    kept: list[int] = []
    with pytest.raises(RuntimeError, match="device lost"):
        for rows in Loop(lambda n: n, work, finish).run(batches(20)):
            kept += rows
    assert kept[:6] == list(range(6))
    assert not {6, 7} & set(kept)  # the device may have taken up one more batch by the time it is known
    assert len(kept) <= 6 + 2 * module.AHEAD


def test_an_interrupt_ends_the_batch_under_way_and_keeps_it() -> None:
    """The interrupt comes in the thread that waits, as a signal's handler raises it."""
    import signal

    main = threading.get_ident()
    worked: list[int] = []

    def work(numbers: list[int]) -> list[int]:
        worked.extend(numbers)
        if 6 in numbers:
            signal.pthread_kill(main, signal.SIGALRM)
        time.sleep(0.05)
        return numbers

    def stop(number: int, frame: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    kept: list[int] = []
    try:
        with pytest.raises(Stop):
            for rows in Loop(lambda n: n, work, lambda task, *_: task).run(batches(1000)):
                kept += rows
    finally:
        signal.signal(signal.SIGALRM, before)
    assert kept == worked
    assert kept[:8] == list(range(8))
    assert len(kept) <= 10


def test_the_devices_share_of_the_time_is_told() -> None:
    idle = Loop(lambda n: time.sleep(0.02) or n, lambda numbers: numbers, lambda task, *_: task, 1)
    assert idle.busy.share == 0
    list(idle.run(batches(8, 1)))
    busy = Loop(lambda n: n, lambda numbers: time.sleep(0.02) or numbers, lambda task, *_: task, 1)
    list(busy.run(batches(8, 1)))
    assert idle.busy.share < 0.5 < busy.busy.share <= 1
