"""`mmtt build generate` with MAT, StyleCLIP and HFGI from the command line, at full size, with thin checkpoints.

The pictures are noise inside the mask; everything else is as with the published weights.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import fitted_parser
import numpy as np
import pytest
import thin_files
from device_runs import difference, generate, good_rows, pixels, planned, rows, stopped, workspace

from mmtt_build.workspace import Workspace

sys.path.insert(0, str(Path(__file__).parents[1] / "generators" / "styleclip"))
import tiny_clip

ROWS = 9
METHODS = ("mat", "styleclip", "hfgi")
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
    workspace(root, portraits, RECIPE, ROWS, sequential=0.5)
    (root / "mine.toml").write_text(TABLE, "utf-8")
    return root


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed") / "w"
    shutil.copytree(prepared, root)
    done = generate(root, weights)
    assert done.returncode == 0, done.stderr
    return root


def test_the_contract_holds_on_every_row_of_every_method(undisturbed: Path) -> None:
    good, made = list(good_rows(undisturbed, METHODS)), rows(undisturbed)
    assert {row["method"] for _, row in good} == set(METHODS), [row["reason"] for row in made.values()]
    for plan, row in good:
        facts = json.loads(row["facts"])
        kind = Workspace(undisturbed).method(row["method"])
        assert set(facts["checkpoints"]) == set(kind.weights(json.loads(plan["params"])))
        assert facts["precision"] == "fp32"
        if plan["parent_id"]:
            earlier = pixels(undisturbed, made[plan["parent_id"]]["mask"], grey=True)
            assert (pixels(undisturbed, row["mask"], grey=True)[earlier > 0] == 255).all()


def test_an_editor_starts_from_any_earlier_forgery(undisturbed: Path) -> None:
    """After `warp` too, which moves parts: the editors look for them in the picture."""
    plan = planned(undisturbed)
    pairs = {(row["method"], plan[row["parent_id"]]["method"]) for row in plan.values() if row["parent_id"]}
    assert pairs
    assert ("mat", "warp") not in pairs
    assert {before for after, before in pairs if after in ("styleclip", "hfgi")} & {"warp", "hfgi", "styleclip"}


def test_killed_and_continued_it_is_the_same(prepared: Path, undisturbed: Path, weights: Path, tmp_path: Path) -> None:
    """The seeds are the rows': what another batch size changes is float rounding."""
    root = tmp_path / "w"
    shutil.copytree(prepared, root)
    more = ("--method", "mat", "--method", "warp", "--batch-size", "1")
    code, _ = stopped(root, weights, "mat", signal.SIGKILL, *more)
    assert code == -signal.SIGKILL
    assert generate(root, weights, *more).returncode == 0
    before, after = rows(undisturbed), rows(root)
    assert after
    for name, row in after.items():
        assert row["status"] == before[name]["status"]
        if row["status"] == "ok":
            assert np.percentile(difference(root, undisturbed, row), 99.9) <= 3
