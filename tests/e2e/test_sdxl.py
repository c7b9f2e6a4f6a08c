"""`mmtt build generate --method sdxl` from the command line, with a tiny pipeline of random weights.

The pictures are noise inside the mask; everything else is as with the real weights.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtt_build import images, masks
from mmtt_build.sources.base import Options
from mmtt_build.stages.generate import Machine
from mmtt_build.stages.generate import generate as run_stage
from mmtt_build.stages.ingest import ingest
from mmtt_build.weights import Weights
from mmtt_build.workspace import Workspace

sys.path.insert(0, str(Path(__file__).parents[1] / "generators" / "diffusion"))
import tiny

ROWS = 18
MMTT = str(Path(sys.executable).with_name("mmtt"))
QUIET = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
RECIPE = """
[mix]
sdxl = 0.7
warp = 0.3
[methods.sdxl]
side = 128
steps = 4
batch_size = 4
guidance = [7.0, 7.0]
strength = [0.99, 0.99]
"""


def mmtt(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([MMTT, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=QUIET)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder, filled by the command."""
    folder = tmp_path_factory.mktemp("weights")
    built = tiny.build("sdxl-inpaint", tmp_path_factory.mktemp("tiny") / "sdxl")
    done = mmtt("weights", "add", "sdxl-inpaint", built, "--accept-terms", "--weights-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, portraits: Path) -> Path:
    root = tmp_path_factory.mktemp("sdxl") / "w"
    recipe = Workspace.init(root).root / "mmtt.toml"
    head = recipe.read_text("utf-8").partition("[mix]")[0].replace("total = 0 ", f"total = {ROWS} ")
    recipe.write_text(head.replace("sequential = 0.05", "sequential = 0.3") + RECIPE, "utf-8")
    ingest(Workspace(root), "portraits", portraits, Options(), workers=1)
    return root


def generate(root: Path, weights: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return mmtt("build", "generate", "-w", root, "--device", "cpu", "--weights-dir", weights, *more)


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed") / "w"
    shutil.copytree(prepared, root)
    done = generate(root, weights)
    assert done.returncode == 0, done.stderr
    return root


def rows(root: Path) -> dict[str, dict[str, Any]]:
    return {row["forgery_id"]: row for row in Workspace(root).forgeries.read().to_pylist()}


def pixels(root: Path, relative: str, grey: bool = False) -> Any:
    return images.decode_stored((root / relative).read_bytes(), grey=grey)


def test_the_contract_holds_on_every_row(undisturbed: Path) -> None:
    workspace = Workspace(undisturbed)
    planned = {row["forgery_id"]: row for row in workspace.plan.read().to_pylist()}
    made = rows(undisturbed)
    assert made.keys() == planned.keys()
    assert [row["reason"] for row in made.values() if row["status"] == "failed"] == []
    good = [row for row in made.values() if row["status"] == "ok" and row["method"] == "sdxl"]
    assert len(good) >= 8
    for row in good:
        base = pixels(undisturbed, workspace.image_path("pristine", planned[row["forgery_id"]]["base_id"]))
        forged, grey = pixels(undisturbed, row["image"]), pixels(undisturbed, row["mask"], grey=True)
        assert np.array_equal(forged[grey == 0], base[grey == 0])
        masks.check(base, forged, masks.from_grey(grey))
        facts = json.loads(row["facts"])
        assert facts["checkpoints"]["sdxl-inpaint"]["licence"] == "openrail++"
        assert facts["precision"] == "float32"
        assert 1 <= facts["batch_size"] <= 4
        assert facts["watermark"] is False


def test_killed_then_interrupted_then_continued(
    prepared: Path, undisturbed: Path, weights: Path, tmp_path: Path
) -> None:
    """The seeds are the rows': what another batch size and other neighbours change is float rounding."""
    root = tmp_path / "w"
    shutil.copytree(prepared, root)
    command = [MMTT, "build", "generate", "-w", root, "--device", "cpu", "--weights-dir", weights, "--batch-size", "1"]

    def stopped_by(number: signal.Signals) -> tuple[int, str]:
        """Runs until it has made one more image, then stops it; exit code and what it said."""
        had = len(list(root.glob("images/forged/*/sdxl-*.png")))
        run = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True, env=QUIET)
        deadline = time.monotonic() + 120
        while len(list(root.glob("images/forged/*/sdxl-*.png"))) <= had and time.monotonic() < deadline:
            time.sleep(0.02)
        run.send_signal(number)
        return run.wait(timeout=60), run.communicate()[1]

    code, _ = stopped_by(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert len(rows(root)) < ROWS
    code, said = stopped_by(signal.SIGINT)
    assert code == 130
    assert "Traceback" not in said
    assert "The same command continues" in said
    stored = {path.stem for path in root.glob("images/forged/*/*.png")}
    kept = {name for name, row in rows(root).items() if row["status"] == "ok"}
    assert kept <= stored
    assert len(stored - kept) <= 4, "more than the kill had under way is not in the table"
    assert 0 < len(kept) < ROWS
    done = generate(root, weights, "--batch-size", "2")
    assert done.returncode == 0, done.stderr
    before, after = rows(undisturbed), rows(root)
    assert before.keys() == after.keys()
    for name, row in before.items():
        assert after[name]["status"] == row["status"]
        if row["status"] == "ok":
            assert (root / after[name]["mask"]).read_bytes() == (undisturbed / row["mask"]).read_bytes()
            change = np.abs(pixels(root, after[name]["image"]).astype(int) - pixels(undisturbed, row["image"]))
            assert change.max() <= 3, name  # of 255, where a rounding is amplified by the colour match
            assert np.count_nonzero(change) < 0.02 * change.size


def test_the_same_run_twice_gives_the_same_bytes(
    prepared: Path, undisturbed: Path, weights: Path, tmp_path: Path
) -> None:
    root = tmp_path / "w"
    shutil.copytree(prepared, root)
    assert generate(root, weights).returncode == 0
    before, after = rows(undisturbed), rows(root)
    assert before == after
    for row in before.values():
        if row["status"] == "ok":
            assert (root / row["image"]).read_bytes() == (undisturbed / row["image"]).read_bytes()


def test_two_devices_share_the_plan(
    prepared: Path, undisturbed: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, each with its own copy of the network, as with two GPUs."""
    root = tmp_path / "w"
    shutil.copytree(prepared, root)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("mmtt_build.stages.generate.devices", lambda text: ["cpu", "cpu"])
    machine = Machine("cpu", Weights((weights,)), batch_size=1)
    made = run_stage(Workspace(root), ["sdxl"], machine=machine)
    before, after = rows(undisturbed), rows(root)
    assert sum(made.outcomes.values()) == len(after) == sum(row["method"] == "sdxl" for row in before.values())
    for name, row in after.items():
        assert row["status"] == before[name]["status"]
        if row["status"] == "ok":
            change = np.abs(pixels(root, row["image"]).astype(int) - pixels(undisturbed, before[name]["image"]))
            assert change.max() <= 3, name


def test_without_the_weights_nothing_is_begun(prepared: Path, tmp_path: Path) -> None:
    root, empty = tmp_path / "w", tmp_path / "none"
    shutil.copytree(prepared, root)
    empty.mkdir()
    done = generate(root, empty)
    assert done.returncode == 1
    assert "WeightsMissing: 'sdxl-inpaint'" in done.stderr
    assert "mmtt weights fetch sdxl-inpaint" in done.stderr
    assert rows(root) == {}


def test_a_checkpoint_changed_by_one_byte_is_refused(prepared: Path, weights: Path, tmp_path: Path) -> None:
    root, copy = tmp_path / "w", tmp_path / "weights"
    shutil.copytree(prepared, root)
    shutil.copytree(weights, copy)
    file = next(copy.rglob("unet/*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    done = generate(root, copy)
    assert done.returncode == 1
    assert "WeightsError" in done.stderr
    assert file.name in done.stderr
    assert rows(root) == {}
