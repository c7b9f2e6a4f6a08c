import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import pytest

from mmtt_build import parallel
from mmtt_build.errors import MmttError

SETUP = []


def square(number):
    return number * number


def refuse_three(number):
    if number == 3:
        raise ValueError("three")
    return number


def die_at_five(number):
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def remember(value):
    SETUP.append(value)


def recall(_number):
    return SETUP[-1], cv2.getNumThreads()


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once(workers):
    assert sorted(parallel.unordered(square, range(25), workers)) == [n * n for n in range(25)]
    assert list(parallel.unordered(square, [], workers)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_each_worker_is_set_up_and_has_one_thread(workers):
    threads = cv2.getNumThreads()
    assert set(parallel.unordered(recall, range(6), workers, remember, ("ready",))) == {("ready", 1)}
    assert cv2.getNumThreads() == threads


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_task_raises_is_raised_here(workers):
    with pytest.raises(ValueError, match="three"):
        list(parallel.unordered(refuse_three, range(10), workers))


def test_tasks_are_drawn_as_they_are_needed():
    drawn = []

    def tasks():
        for number in range(1000):
            drawn.append(number)
            yield number

    results = parallel.unordered(square, tasks(), 2)
    for _ in range(3):
        next(results)
    results.close()
    assert len(drawn) <= 2 * parallel.IN_FLIGHT_PER_WORKER * 3


def test_a_killed_worker_is_an_error_with_a_remedy():
    with pytest.raises(MmttError, match="killed, most likely for memory") as caught:
        list(parallel.unordered(die_at_five, range(20), 2))
    assert "--workers" in caught.value.remedy


def test_there_is_at_least_one_core():
    assert 1 <= parallel.cores() <= os.cpu_count()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")
def test_workers_die_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "endless.py").write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from mmtt_build import parallel

            def work(number):
                # At once: between the number and the line's end of a `print` the other's number may come.
                os.write(1, b"%d\\n" % os.getpid())
                time.sleep(600)

            if __name__ == "__main__":
                list(parallel.unordered(work, range(100), 2))
            """
        )
    )
    parent = subprocess.Popen([sys.executable, tmp_path / "endless.py"], stdout=subprocess.PIPE, text=True)
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    assert len(set(workers)) == 2
    assert all(map(alive, workers))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))


# --- devices ----------------------------------------------------------------------------------------------------


def with_device(device, tasks):
    for task in tasks:
        if task == "fail":
            raise MmttError("no such checkpoint", "mmtt weights list")
        if task == "break":
            raise ValueError("bad luck")
        if task == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02)
        yield device, task


@pytest.mark.parametrize("devices", [["one"], ["one", "two"]])
def test_each_task_goes_to_one_device(devices):
    done = list(parallel.on_devices(with_device, range(30), devices))
    assert sorted(task for _, task in done) == list(range(30))
    assert {device for device, _ in done} == set(devices)
    assert list(parallel.on_devices(with_device, [], devices)) == []


@pytest.mark.parametrize(
    ("task", "message"),
    [("fail", "no such checkpoint"), ("break", "ValueError: bad luck"), ("die", "was killed .exit code -9.")],
)
def test_a_device_that_fails_ends_the_run_with_its_reason(task, message):
    with pytest.raises(MmttError, match=message):
        list(parallel.on_devices(with_device, [0, 1, 2, task, *range(200)], ["one", "two"]))


def test_tasks_are_drawn_as_devices_get_free():
    drawn = []

    def tasks():
        for number in range(100):
            drawn.append(number)
            yield number

    for received, _ in enumerate(parallel.on_devices(with_device, tasks(), ["one", "two"]), 1):
        assert len(drawn) - received <= 2 * parallel.IN_FLIGHT_PER_WORKER


class Stop(BaseException):
    pass


def test_an_interrupt_lets_the_devices_end_what_they_do():
    def tasks():
        for number in range(1000):
            if number == 20:
                raise Stop
            yield number

    kept = []
    with pytest.raises(Stop):
        for _, task in parallel.on_devices(with_device, tasks(), ["one", "two"]):
            kept.append(task)
    assert len(kept) >= 12
    assert len(set(kept)) == len(kept)
