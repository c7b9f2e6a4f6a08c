"""The stopwatch of the benchmarks, and the face that they work on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from mmtt_build import images
from mmtt_build.portraits import draw

ROUNDS = 9
Say = Callable[[str], None]


def medians(
    ours: Callable[[], object], naive: Callable[[], object], rounds: int = ROUNDS
) -> tuple[float, float, float]:
    """Median ms of ours and of the twin, and the median of their ratio (twin / ours), after one warm-up each."""
    ours()
    naive()
    times = []
    for _ in range(rounds):
        pair = []
        for work in (ours, naive):
            start = time.perf_counter()
            work()
            pair.append((time.perf_counter() - start) * 1e3)
        times.append(pair)
    return (
        statistics.median(t for t, _ in times),
        statistics.median(t for _, t in times),
        statistics.median(naive_ms / our_ms for our_ms, naive_ms in times),
    )


def row(say: Say, step: str, ours: Callable[[], object], naive: Callable[[], object], twin: str) -> float:
    """Times one step and says the line; returns the ratio."""
    figures = medians(ours, naive)
    line(say, step, figures, twin)
    return figures[2]


def line(say: Say, step: str, figures: tuple[float, float, float], twin: str) -> None:
    """Says the figures of `medians` for one step."""
    our_ms, naive_ms, ratio = figures
    say(f"  {step:<34} {our_ms:>9.2f} ms {naive_ms:>9.2f} ms {ratio:>7.2f}x   {twin}")


def heading(say: Say, title: str) -> None:
    """Says what is timed, and the names of the columns."""
    say(f"{title}\n  {'step':<34} {'ours':>12} {'naive':>12} {'naive/ours':>8}   naive is")


def face() -> images.Image:
    """A drawn portrait at 1024 px with camera noise, so that it compresses as a photograph does."""
    portrait = draw(7, 1024).image
    noise = np.random.default_rng(7).normal(0, 2.0, portrait.shape)
    return np.clip(np.rint(portrait + noise), 0, 255).astype(np.uint8)
