"""`mmtt build generate --method sdxl` from the command line, with a tiny pipeline of random weights.

The pictures are noise inside the mask; everything else is as with the real weights.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from device_runs import difference, generate, good_rows, mmtt, rows, stopped, workspace

from mmtt_build.stages.generate import Machine
from mmtt_build.stages.generate import generate as run_stage
from mmtt_build.weights import Weights
from mmtt_build.workspace import Workspace

sys.path.insert(0, str(Path(__file__).parents[1] / "generators" / "diffusion"))
import tiny

ROWS = 18
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
    workspace(root, portraits, RECIPE, ROWS, sequential=0.3)
    return root


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed") / "w"
    shutil.copytree(prepared, root)
    done = generate(root, weights)
    assert done.returncode == 0, done.stderr
    return root


def test_the_contract_holds_on_every_row(undisturbed: Path) -> None:
    good = list(good_rows(undisturbed, ["sdxl"]))
    assert len(good) >= 8
    for _, row in good:
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
    code, _ = stopped(root, weights, "sdxl", signal.SIGKILL, "--batch-size", "1")
    assert code == -signal.SIGKILL
    assert len(rows(root)) < ROWS
    code, said = stopped(root, weights, "sdxl", signal.SIGINT, "--batch-size", "1")
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
            change = difference(root, undisturbed, row)
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
            assert difference(root, undisturbed, row).max() <= 3, name


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
