"""Runs of `mmtt build generate` with networks on the CPU, and what they left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmtt_build import images, masks
from mmtt_build.sources.base import Options
from mmtt_build.stages.ingest import ingest
from mmtt_build.workspace import Workspace

MMTT = str(Path(sys.executable).with_name("mmtt"))
QUIET = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def mmtt(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([MMTT, *map(str, arguments)], capture_output=True, text=True, timeout=600, env=QUIET)


def workspace(root: Path, portraits: Path, recipe: str, total: int, sequential: float) -> Workspace:
    """A workspace with the drawn portraits, whose recipe ends with `recipe`."""
    made = Workspace.init(root)
    head = (root / "mmtt.toml").read_text("utf-8").partition("[mix]")[0].replace("total = 0 ", f"total = {total} ")
    head = head.replace("sequential = 0.05", f"sequential = {sequential}")
    (root / "mmtt.toml").write_text(head + recipe, "utf-8")
    ingest(Workspace(root), "portraits", portraits, Options(), workers=1)
    return made


def _generate(root: Path, weights: Path, *more: str) -> list[str]:
    return ["build", "generate", "-w", str(root), "--device", "cpu", "--weights-dir", str(weights), *more]


def generate(root: Path, weights: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return mmtt(*_generate(root, weights, *more))


def stopped(root: Path, weights: Path, method: str, number: signal.Signals, *more: str) -> tuple[int, str]:
    """Runs until a method has made one more image, then sends a signal; exit code and what it said."""

    def made() -> int:
        return len(list(root.glob(f"images/forged/*/{method}-*.png")))

    had, deadline = made(), time.monotonic() + 180
    run = subprocess.Popen([MMTT, *_generate(root, weights, *more)], stderr=subprocess.PIPE, text=True, env=QUIET)
    while made() <= had and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(number)
    return run.wait(timeout=60), run.communicate()[1]


def rows(root: Path) -> dict[str, dict[str, Any]]:
    return {row["forgery_id"]: row for row in Workspace(root).forgeries.read().to_pylist()}


def planned(root: Path) -> dict[str, dict[str, Any]]:
    return {row["forgery_id"]: row for row in Workspace(root).plan.read().to_pylist()}


def pixels(root: Path, relative: str, grey: bool = False) -> Any:
    return images.decode_stored((root / relative).read_bytes(), grey=grey)


def good_rows(root: Path, methods: Collection[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Plan row and forgery row of all that the methods made, once it is held against the contract; nothing failed."""
    plan, made = planned(root), rows(root)
    assert made.keys() == plan.keys()
    assert [row["reason"] for row in made.values() if row["status"] == "failed"] == []
    for name, row in made.items():
        if row["status"] == "ok" and row["method"] in methods:
            base = pixels(root, Workspace(root).image_path("pristine", plan[name]["base_id"]))
            forged, grey = pixels(root, row["image"]), pixels(root, row["mask"], grey=True)
            assert np.array_equal(forged[grey == 0], base[grey == 0])
            masks.check(base, forged, masks.from_grey(grey))
            yield plan[name], row


def difference(root: Path, other: Path, row: dict[str, Any]) -> Any:
    """By how many levels (512, 512, 3) the pictures of one row differ in two workspaces; their masks do not."""
    mask, image = row["mask"], row["image"]
    assert (root / mask).read_bytes() == (other / mask).read_bytes()
    return np.abs(pixels(root, image).astype(int) - pixels(other, image))
