"""`mmtt build generate` with MAT, StyleCLIP and HFGI from the command line, at full size, with thin checkpoints.

The pictures are noise inside the mask; everything else is as with the published weights.
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

import fitted_parser
import numpy as np
import pytest
import thin_files

from mmtt_build import images, masks
from mmtt_build.sources.base import Options
from mmtt_build.stages.ingest import ingest
from mmtt_build.workspace import Workspace

sys.path.insert(0, str(Path(__file__).parents[1] / "generators" / "styleclip"))
import tiny_clip

ROWS = 9
METHODS = ("mat", "styleclip", "hfgi")
MMTT = str(Path(sys.executable).with_name("mmtt"))
QUIET = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
RECIPE = """
[mix]
warp = 0.34
mat = 0.22
styleclip = 0.22
hfgi = 0.22
[methods.mat]
noise = "random"
[methods.styleclip]
table = "mine.toml"
batch_size = 2
[methods.hfgi]
attributes = ["eyes"]
"""
# Noise shows no brow where the photo has one, and CLIP is noise as well: a threshold and strengths for that.
TABLE = """
[styleclip.angry]
parts = ["l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip"]
mapper = "angry"
strength = [[0.1, 0.1]]
source = "StyleCLIP mapper"
[styleclip.wide-eyes]
parts = ["l_eye", "r_eye"]
text = ["face with eyes", "face with wide open eyes"]
strength = [[40.0, 40.0]]
beta = [0.05, 0.05]
source = "a test"
"""


def mmtt(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([MMTT, *map(str, arguments)], capture_output=True, text=True, timeout=600, env=QUIET)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    scratch = tmp_path_factory.mktemp("scratch")
    thin_files.add_all(folder, scratch, lambda to: tiny_clip.save(to, 512), fitted_parser.fit())
    shutil.rmtree(scratch)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, portraits: Path) -> Path:
    root = tmp_path_factory.mktemp("nets") / "w"
    recipe = Workspace.init(root).root / "mmtt.toml"
    head = recipe.read_text("utf-8").partition("[mix]")[0].replace("total = 0 ", f"total = {ROWS} ")
    recipe.write_text(head.replace("sequential = 0.05", "sequential = 0.5") + RECIPE, "utf-8")
    (root / "mine.toml").write_text(TABLE, "utf-8")
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


def test_the_contract_holds_on_every_row_of_every_method(undisturbed: Path) -> None:
    workspace = Workspace(undisturbed)
    planned = {row["forgery_id"]: row for row in workspace.plan.read().to_pylist()}
    made = rows(undisturbed)
    assert made.keys() == planned.keys()
    assert [row["reason"] for row in made.values() if row["status"] == "failed"] == []
    good = [row for row in made.values() if row["status"] == "ok" and row["method"] in METHODS]
    assert {row["method"] for row in good} == set(METHODS), [row["reason"] for row in made.values()]
    for row in good:
        plan = planned[row["forgery_id"]]
        base = pixels(undisturbed, workspace.image_path("pristine", plan["base_id"]))
        forged, grey = pixels(undisturbed, row["image"]), pixels(undisturbed, row["mask"], grey=True)
        assert np.array_equal(forged[grey == 0], base[grey == 0])
        masks.check(base, forged, masks.from_grey(grey))
        facts = json.loads(row["facts"])
        kind = workspace.method(row["method"])
        assert set(facts["checkpoints"]) == set(kind.weights(json.loads(plan["params"])))
        assert facts["precision"] == "fp32"
        if plan["parent_id"]:
            earlier = pixels(undisturbed, made[plan["parent_id"]]["mask"], grey=True)
            assert (grey[earlier > 0] == 255).all()


def test_an_editor_starts_from_any_earlier_forgery(undisturbed: Path) -> None:
    """After `warp` too, which moves parts: the editors look for them in the picture."""
    planned = Workspace(undisturbed).plan.read().to_pylist()
    method = {row["forgery_id"]: row["method"] for row in planned}
    pairs = {(row["method"], method[row["parent_id"]]) for row in planned if row["parent_id"]}
    assert pairs
    assert ("mat", "warp") not in pairs
    assert {before for after, before in pairs if after in ("styleclip", "hfgi")} & {"warp", "hfgi", "styleclip"}


def test_killed_and_continued_it_is_the_same(prepared: Path, undisturbed: Path, weights: Path, tmp_path: Path) -> None:
    """The seeds are the rows': what another batch size changes is float rounding."""
    root = tmp_path / "w"
    shutil.copytree(prepared, root)
    more = ["--method", "mat", "--method", "warp", "--batch-size", "1"]
    command = [MMTT, "build", "generate", "-w", root, "--device", "cpu", "--weights-dir", weights, *more]
    run = subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL, env=QUIET)
    deadline = time.monotonic() + 180
    while not list(root.glob("images/forged/*/mat-*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    assert run.wait(timeout=60) == -signal.SIGKILL
    assert generate(root, weights, *more).returncode == 0
    wanted, again = rows(undisturbed), rows(root)
    assert again
    for name, row in again.items():
        assert row["status"] == wanted[name]["status"]
        if row["status"] == "ok":
            mask = pixels(root, row["mask"], grey=True)
            assert np.array_equal(mask, pixels(undisturbed, row["mask"], grey=True))
            difference = np.abs(pixels(root, row["image"]).astype(int) - pixels(undisturbed, row["image"]))
            assert np.percentile(difference, 99.9) <= 3
