"""What a run off a terminal says about itself."""

from __future__ import annotations

import pytest

from mmtt_build import progress
from mmtt_build.progress import Progress


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.25, "4.0 images/s"), (30.0, "30.0 s each"), (1.0, "1.0 images/s"), (2.5, "2.5 s each")]
)
def test_the_rate_is_told_so_that_slow_steps_are_not_zero(
    seconds: float, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with Progress("try", 12, "images") as run:
        for number in range(8):
            clock.now += seconds
            run.step("failed" if number == 3 else "ok", "disk 7: full" if number == 3 else "")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"try: 8/12 images, {said}, 1 failed: disk, {4 * seconds:.0f} s left"
