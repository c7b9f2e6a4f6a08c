"""Killed at random moments, cut into shards or run by other numbers of workers: the same dataset, byte for byte.

`KILL_TEST_FORGERIES=300 KILL_TEST_KILLS=10` runs it at full length.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmtt_build.sources.base import Options
from mmtt_build.stages.ingest import ingest
from mmtt_build.store import TEMPORARY
from mmtt_build.workspace import Workspace

FORGERIES = int(os.environ.get("KILL_TEST_FORGERIES", "48"))
KILLS = int(os.environ.get("KILL_TEST_KILLS", "4"))
MMTT = [str(Path(sys.executable).with_name("mmtt"))]


def mmtt(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([*MMTT, *map(str, arguments)], capture_output=True, text=True, timeout=600)
    assert not check or result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, portraits: Path) -> Path:
    """A workspace with images and a recipe, before planning."""
    workspace = Workspace.init(tmp_path_factory.mktemp("kill") / "w")
    recipe = workspace.root / "mmtt.toml"
    text = recipe.read_text("utf-8").replace("total = 0 ", f"total = {FORGERIES} ")
    recipe.write_text(text.replace("sequential = 0.05", "sequential = 0.3"), "utf-8")
    ingest(Workspace(workspace.root), "portraits", portraits, Options(), workers=1)
    return workspace.root


def outcome(root: Path) -> tuple[object, object, dict[str, bytes]]:
    """Plan, forgeries and every stored and exported file."""
    workspace = Workspace(root)
    mmtt("build", "export", "-w", root, "--undescribed")
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for folder in ("images", "releases")
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and not path.name.startswith(TEMPORARY)
    }
    return workspace.plan.read(), workspace.forgeries.read(), files


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, object, dict[str, bytes]]:
    root = tmp_path_factory.mktemp("undisturbed") / "w"
    shutil.copytree(prepared, root)
    mmtt("build", "generate", "-w", root, "--workers", "2")
    assert Workspace(root).forgeries.keys().equals(Workspace(root).plan.keys())
    return outcome(root)


def same(one: tuple[object, object, dict[str, bytes]], other: tuple[object, object, dict[str, bytes]]) -> None:
    assert one[0].equals(other[0])  # type: ignore[attr-defined]
    assert one[1].equals(other[1])  # type: ignore[attr-defined]
    assert sorted(one[2]) == sorted(other[2])
    assert [name for name, data in one[2].items() if data != other[2][name]] == []


def test_killed_at_random_moments(
    prepared: Path, undisturbed: tuple[object, object, dict[str, bytes]], tmp_path: Path
) -> None:
    root = tmp_path / "w"
    shutil.copytree(prepared, root)
    moments = random.Random(11)
    survived: list[int] = []
    for _ in range(KILLS):
        run = subprocess.Popen(
            [*MMTT, "build", "generate", "-w", str(root), "--workers", "2"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        time.sleep(moments.uniform(0.5, 8.0))
        run.send_signal(signal.SIGKILL)
        run.wait()
        survived.append(Workspace(root).forgeries.read(["forgery_id"]).num_rows)
        assert _group_ends(run.pid), "workers outlived their parent"
    assert survived == sorted(survived), "a kill lost rows that were there"
    mmtt("build", "generate", "-w", root, "--workers", "2")
    same(outcome(root), undisturbed)


def _group_ends(group: int) -> bool:
    """Whether all processes of the group are gone within seconds; those that tidy up after the parent take a moment."""
    deadline = time.monotonic() + 10
    while _group_alive(group):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _group_alive(group: int) -> bool:
    """Whether a process of the group still runs (the dead wait for nobody once their parent is gone)."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def test_three_shards_at_once(
    prepared: Path, undisturbed: tuple[object, object, dict[str, bytes]], tmp_path: Path
) -> None:
    root = tmp_path / "w"
    shutil.copytree(prepared, root)
    runs = [
        subprocess.Popen(
            [*MMTT, "build", "generate", "-w", str(root), "--workers", "1", "--shard", f"{i}/3"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for i in (1, 2, 3)
    ]  # fmt: skip
    for run in runs:
        _, error = run.communicate(timeout=600)
        assert run.returncode == 0, error.decode()
    same(outcome(root), undisturbed)


def test_another_number_of_workers(
    prepared: Path, undisturbed: tuple[object, object, dict[str, bytes]], tmp_path: Path
) -> None:
    root = tmp_path / "w"
    shutil.copytree(prepared, root)
    mmtt("build", "generate", "-w", root, "--workers", "3")
    same(outcome(root), undisturbed)


def test_ctrl_c_keeps_what_is_done_and_says_so(prepared: Path, tmp_path: Path) -> None:
    root = tmp_path / "w"
    shutil.copytree(prepared, root)
    run = subprocess.Popen(
        [*MMTT, "build", "generate", "-w", str(root), "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(root.glob("images/forged/*/*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, error = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in error
    assert "The same command continues" in error
    assert _group_ends(run.pid), "workers outlived their parent"
    kept = Workspace(root).forgeries.read(["forgery_id"]).num_rows
    assert 0 < kept < Workspace(root).plan.read(["forgery_id"]).num_rows
    mmtt("build", "generate", "-w", root)
    assert Workspace(root).forgeries.keys().equals(Workspace(root).plan.keys())
