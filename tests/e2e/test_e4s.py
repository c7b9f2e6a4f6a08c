"""`mmtt build generate --method e4s` from the command line, with full-size networks.

The donor passes through the reenactment as it is, but blurred (`still_files`), so that the parser finds a face in it.
What Net3 paints is noise; everything else is as with the published weights.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fitted_parser
import numpy as np
import pytest
import still_files
import thin_files
import torch
from device_runs import difference, generate, good_rows, pixels, rows, stopped, workspace

from mmtt_build import masks
from mmtt_build.masks import Image
from mmtt_build.portraits import draw
from mmtt_build.stages import steps
from mmtt_build.stages.generate import Shard
from mmtt_build.stages.sheet import PAPER
from mmtt_build.weights import Weights
from mmtt_build.workspace import Workspace

DRIVEN, UNDRIVEN = 1, 3
"""Rows of the two recipes; one of the first takes half a minute."""
DRIVEN_BY, UNDRIVEN_BY = 'reenact = "always"', 'reenact = "never", blending = "multiband", hair_first = false'
"""Their options."""
REENACTING = ("facevid2vid", "realesrnet", "retinaface", "gpen", "parsenet", "bisenet")
DONORS = (11, 12, 13)
"""Seeds of the portraits that are reenacted, among others that are not."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the method may need."""
    folder, scratch = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("scratch")
    donors = [draw(seed, 512) for seed in DONORS]
    blurred = [replace(donor, image=still_files.passed(donor.image)) for donor in donors]
    torch.save(fitted_parser.fit(blurred, 0.6), scratch / "bisenet.pth")
    thin_files.e4s(scratch / "e4s.pth")
    thin_files.retinaface(scratch / "retinaface.pth")
    for write in (still_files.facevid2vid, still_files.realesrnet, still_files.gpen, still_files.parsenet):
        write(scratch / f"{write.__name__}.pth")
    for file in scratch.iterdir():
        Weights((folder,)).add(file.stem, file, accept=True)
    shutil.rmtree(scratch)
    return folder


def prepared(root: Path, portraits: Path, options: str, total: int) -> Path:
    workspace(root, portraits, f"[mix]\ne4s = 1.0\n[methods]\ne4s = {{ {options} }}\n", total, sequential=0.0)
    toml = root / "mmtt.toml"  # one split, or hardly a donor is left
    toml.write_text(
        toml.read_text("utf-8").replace("train = 0.8", "train = 1.0").replace("= 0.1\n", "= 0.0\n"), "utf-8"
    )
    return root


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory, portraits: Path, weights: Path) -> Path:
    """A workspace whose donors were reenacted; the sheets lie in `sheets`."""
    root = prepared(tmp_path_factory.mktemp("driven") / "w", portraits, DRIVEN_BY, DRIVEN)
    done = generate(root, weights, "--debug-dir", str(root / "sheets"))
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def unplanned(tmp_path_factory: pytest.TempPathFactory, portraits: Path) -> Path:
    return prepared(tmp_path_factory.mktemp("unplanned") / "w", portraits, UNDRIVEN_BY, UNDRIVEN)


@pytest.fixture(scope="module")
def undriven(tmp_path_factory: pytest.TempPathFactory, unplanned: Path, weights: Path) -> Path:
    """A workspace whose donors were taken as they are, in one batch; the sheets lie in `sheets`."""
    root = tmp_path_factory.mktemp("undriven") / "w"
    shutil.copytree(unplanned, root)
    done = generate(root, weights, "--debug-dir", str(root / "sheets"))
    assert done.returncode == 0, done.stderr
    return root


def cells(sheet: Image) -> Iterator[Image]:
    """The pictures on a contact sheet."""
    high, wide = steps.CELL + steps.TITLE + steps.GAP, steps.CELL + steps.GAP
    for row in range(sheet.shape[0] // high):
        top = sheet.shape[0] - (sheet.shape[0] // high - row) * high + steps.TITLE
        for left in range(steps.GAP, sheet.shape[1] - steps.GAP, wide):
            cell = sheet[top : top + steps.CELL, left : left + steps.CELL]
            if np.any(cell != np.array(PAPER)):
                yield cell


@pytest.mark.parametrize(("kind", "count"), [("driven", DRIVEN), ("undriven", UNDRIVEN)])
def test_every_row_is_made_and_keeps_the_contract(kind: str, count: int, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(kind)
    good = list(good_rows(root, ["e4s"]))
    assert len(good) == count, [row["reason"] for row in rows(root).values()]
    people = {row["id"]: row["identity_group"] for row in Workspace(root).groups.read().to_pylist()}
    for plan, row in good:
        params, facts = json.loads(plan["params"]), json.loads(row["facts"])
        assert params["driven"] is (kind == "driven")
        needed = ["e4s", *REENACTING] if params["driven"] else ["e4s"]
        assert set(facts["checkpoints"]) == set(needed) == set(Workspace(root).method("e4s").weights(params))
        assert facts.get("faces_enhanced") == (1 if params["driven"] else None)
        assert facts["precision"] == "fp32"
        assert facts["batch_size"] == count
        assert people[plan["base_id"]] != people[plan["source_id"]]
        assert row["mask_origin"] == "process"
        assert 0.1 < row["mask_area"] < 0.7


@pytest.mark.parametrize("kind", ["driven", "undriven"])
def test_the_part_map_is_the_donors_inside_and_the_targets_around(kind: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(kind)
    for plan, row in good_rows(root, ["e4s"]):
        mask = masks.from_grey(pixels(root, row["mask"], grey=True))
        made = pixels(root, row["part_map"], grey=True)
        base, donor = (
            pixels(root, Workspace(root).image_path("parts", plan[name]), grey=True)
            for name in ("base_id", "source_id")
        )
        np.testing.assert_array_equal(made[~mask], base[~mask])
        assert (made[mask] == donor[mask]).mean() > 0.5
        assert (made[mask] != base[mask]).any()


def test_a_sheet_shows_every_step_of_a_driven_swap(driven: Path) -> None:
    sheets = {path.stem: pixels(driven, f"sheets/{path.name}") for path in driven.glob("sheets/*.png")}
    assert sheets.keys() == rows(driven).keys()
    for sheet in sheets.values():
        base, donor, _, cut_out, reenacted, *others = cells(sheet)
        # parts of both and swapped, generated, blended, alpha; result, mask, mask over result
        assert len(others) == 9
        inside = (slice(40, -40),) * 2
        change = np.abs(reenacted.astype(float) - cut_out)[inside].mean()
        assert change < 12 < np.abs(reenacted.astype(float) - base)[inside].mean()
        assert np.abs(cut_out.astype(float) - donor).mean() < 3


def test_a_sheet_of_an_undriven_swap_has_a_step_less(undriven: Path) -> None:
    sheets = list(undriven.glob("sheets/*.png"))
    assert {path.stem for path in sheets} == rows(undriven).keys()
    assert {len(list(cells(pixels(undriven, f"sheets/{path.name}")))) for path in sheets} == {13}


def same_rows(root: Path, other: Path) -> None:
    """What another batch size and other neighbours change is float rounding."""
    before, after = rows(other), rows(root)
    assert before.keys() == after.keys()
    for name, row in after.items():
        assert row["status"] == before[name]["status"] == "ok"
        assert (root / row["part_map"]).read_bytes() == (other / row["part_map"]).read_bytes()
        assert difference(root, other, row).max() <= 3, name


def test_killed_and_continued_in_two_shards_at_once_it_is_one_run(
    unplanned: Path, undriven: Path, weights: Path, tmp_path: Path
) -> None:
    root = tmp_path / "w"
    shutil.copytree(unplanned, root)
    code, _ = stopped(root, weights, "e4s", signal.SIGKILL, "--batch-size", "1")
    assert code == -signal.SIGKILL
    assert len(rows(root)) < UNDRIVEN
    with ThreadPoolExecutor() as both:
        runs = list(both.map(lambda part: generate(root, weights, "--shard", part), ("1/2", "2/2")))
    assert [run.returncode for run in runs] == [0, 0], [run.stderr for run in runs]
    assert {Shard(1, 2).holds(name) for name in rows(root)} == {True, False}, "neither is idle"
    same_rows(root, undriven)


def test_without_weights_all_that_is_missing_is_said_before_any_work(portraits: Path, tmp_path: Path) -> None:
    root, empty = prepared(tmp_path / "w", portraits, DRIVEN_BY, DRIVEN), tmp_path / "none"
    empty.mkdir()
    done = generate(root, empty)
    assert done.returncode == 1
    for name in ("e4s", *REENACTING):
        assert f"'{name}'" in done.stderr
        assert f"mmtt weights add {name} " in done.stderr or f"mmtt weights fetch {name}" in done.stderr
    assert rows(root) == {}
    assert list(root.glob("images/forged/**/*.png")) == []
