from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fitted_parser
import numpy as np
import pytest

from mmtt_build import images
from mmtt_build.errors import ConfigError, WeightsMissing
from mmtt_build.portraits import draw
from mmtt_build.progress import Progress
from mmtt_build.sources.base import Options
from mmtt_build.stages import parse as stage
from mmtt_build.stages.ingest import ingest
from mmtt_build.stages.parse import parse
from mmtt_build.stages.validate import validate
from mmtt_build.weights import Weights
from mmtt_build.workspace import Workspace

MMTT = Path(sys.executable).with_name("mmtt")


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of portraits that the parser knows, and one picture of nothing; no label maps."""
    folder = tmp_path_factory.mktemp("faces")
    for seed in fitted_parser.SEEDS:
        (folder / f"{seed}.png").write_bytes(images.encode_rgb(draw(seed, 512).image))
    (folder / "wall.png").write_bytes(images.encode_rgb(np.full((512, 512, 3), 200, np.uint8)))
    return folder


@pytest.fixture
def read(workspace: Workspace, faces: Path) -> Workspace:
    """A workspace that has read them."""
    ingest(workspace, "folder", faces, Options(), workers=1)
    return workspace


def rows(workspace: Workspace) -> dict[str, dict[str, Any]]:
    return {row["original"]: row for row in workspace.pristine.read().to_pylist()}


def files(workspace: Workspace) -> dict[str, bytes]:
    """Content of all part maps by name."""
    return {path.name: path.read_bytes() for path in (workspace.root / "images/parts").rglob("*.png")}


def mmtt(*arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([MMTT, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_ingest_with_a_parser(workspace: Workspace, faces: Path, bisenet: Path) -> None:
    """From pictures to part maps; the picture of nothing is a failed row, and a second run does nothing."""
    command = ["build", "ingest", "--folder", faces, "--parser", "bisenet", "--weights-dir", bisenet]
    first = mmtt(*command, "--device", "cpu", "--workers", 2, "-w", workspace.root)
    assert first.returncode == 3, first.stderr
    assert "bisenet: parsed 4 images, failed 1" in first.stdout
    found = rows(workspace)
    for seed in fitted_parser.SEEDS:
        row = found[f"{seed}.png"]
        assert (row["status"], row["reason"], row["parts_origin"]) == ("ok", None, "bisenet")
        assert row["parts_weights"] == Weights((bisenet,)).find("bisenet").identity
        assert len(row["points"]) == 10
        labels = images.decode_stored(workspace.resolve(row["parts"]).read_bytes(), grey=True)
        assert (labels == draw(seed, 512).labels).mean() > 0.8
        assert row["part_areas"] == np.bincount(labels.ravel(), minlength=19).tolist()
    assert found["wall.png"]["status"] == "failed"
    assert found["wall.png"]["reason"].startswith("bisenet: no face")
    assert found["wall.png"]["parts"] is None

    before = len(workspace.pristine.shards())
    again = mmtt(*command, "-w", workspace.root)
    assert again.returncode == 0, again.stderr
    assert "bisenet: parsed 0 images, failed 0" in again.stdout
    assert len(workspace.pristine.shards()) == before


def test_the_recipe_may_name_the_parser(read: Workspace, bisenet: Path) -> None:
    recipe = read.root / "mmtt.toml"
    recipe.write_text(recipe.read_text("utf-8").replace('parser = ""', 'parser = "bisenet"'), "utf-8")
    done = mmtt("build", "ingest", "--weights-dir", bisenet, "--dry-run", "-w", read.root)
    assert done.returncode == 0, done.stderr
    assert "bisenet: would parse 5 images" in done.stdout
    assert all(row["parts"] is None for row in rows(read).values())
    (problem,) = validate(Workspace(read.root))
    assert isinstance(problem, WeightsMissing)


def test_maps_drawn_by_people_stay_and_those_from_landmarks_go(
    workspace: Workspace, portraits: Path, bisenet: Path
) -> None:
    """But for images that a plan was drawn with: what is planned must not change."""
    ingest(workspace, "celebamask-hq", portraits / "celebamask-hq", Options(), workers=1)
    ingest(workspace, "ffhq", portraits / "ffhq", Options(), workers=1)
    before = workspace.pristine.read().to_pylist()
    first, second, third = (row["id"] for row in before if row["source"] == "ffhq")
    workspace.plan.append([{"forgery_id": "x", "base_id": second, "source_id": None}])
    drawn = files(workspace)
    summary = parse(workspace, "bisenet", Weights((bisenet,)), device="cpu")
    assert (summary.pending, summary.ok, summary.failed, summary.planned) == (2, 2, 0, 1)
    after = {row["id"]: row for row in workspace.pristine.read().to_pylist()}
    now = files(workspace)
    for row in before:
        if row["id"] in (first, third):
            assert after[row["id"]]["parts_origin"] == "bisenet"
            assert after[row["id"]]["landmarks"] == row["landmarks"]
            assert now[f"{row['id']}.png"] != drawn[f"{row['id']}.png"]
        else:
            assert after[row["id"]] == row
            assert now[f"{row['id']}.png"] == drawn[f"{row['id']}.png"]


def test_a_killed_run_continues_and_ends_with_the_same_maps(
    read: Workspace, faces: Path, bisenet: Path, tmp_path: Path
) -> None:
    """SIGKILL between a map and its row, after one row was stored."""
    script = (
        "import os, signal, sys, torch\n"
        "from pathlib import Path\n"
        "torch.set_num_threads(1)\n"
        "from mmtt_build import store\n"
        "from mmtt_build.stages import parse\n"
        "from mmtt_build.weights import Weights\n"
        "from mmtt_build.workspace import Workspace\n"
        "parse.BATCH = 1\n"
        "add, seen = store.Appender.add, []\n"
        "def dying(self, row):\n"
        "    seen.append(row)\n"
        "    if len(seen) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    add(self, row); self.flush()\n"
        "store.Appender.add = dying\n"
        "parse.parse(Workspace(Path(sys.argv[1])), 'bisenet', Weights((Path(sys.argv[2]),)), device='cpu')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, read.root, bisenet], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sum(row["parts_origin"] == "bisenet" for row in rows(read).values()) == 1
    assert len(files(read)) >= 2
    summary = parse(read, "bisenet", Weights((bisenet,)), device="cpu")
    assert (summary.pending, summary.ok, summary.failed) == (4, 3, 1)
    whole = Workspace.init(tmp_path / "whole")
    ingest(whole, "folder", faces, Options(), workers=1)
    parse(whole, "bisenet", Weights((bisenet,)), device="cpu")
    killed, unkilled = files(read), files(whole)
    assert killed.keys() == unkilled.keys()
    for name, data in killed.items():  # another batch size may move a pixel that is a tie
        assert (images.decode_stored(data, grey=True) != images.decode_stored(unkilled[name], grey=True)).mean() < 1e-4


def test_an_interrupt_keeps_what_was_parsed(read: Workspace, bisenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Progress.step

    def interrupted(self: Progress, *arguments: str) -> None:
        step(self, *arguments)
        if self.done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(stage, "BATCH", 1)
    with monkeypatch.context() as patched:
        patched.setattr(Progress, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            parse(read, "bisenet", Weights((bisenet,)), device="cpu")
    assert sum(row["parts_origin"] == "bisenet" for row in rows(read).values()) == 2
    summary = parse(read, "bisenet", Weights((bisenet,)), device="cpu")
    assert (summary.pending, summary.ok, summary.failed) == (3, 2, 1)


def test_a_damaged_stored_image_is_a_failed_row(read: Workspace, bisenet: Path) -> None:
    row = rows(read)["12.png"]
    read.resolve(row["image"]).write_bytes(b"\x89PNG")
    summary = parse(read, "bisenet", Weights((bisenet,)), device="cpu")
    assert (summary.ok, summary.failed) == (3, 2)
    assert "cannot be decoded" in rows(read)["12.png"]["reason"]


def test_what_is_amiss_is_said_before_any_work(
    workspace: Workspace, faces: Path, bisenet: Path, tmp_path: Path
) -> None:
    command = ["build", "ingest", "--folder", faces, "-w", workspace.root]
    for arguments, code, said in (
        (("--parser", "bisnet"), 2, "did you mean bisenet"),
        (("--parser", "bisenet", "--weights-dir", tmp_path), 1, "mmtt weights add bisenet"),
        (("--parser", "bisenet", "--weights-dir", bisenet, "--device", "gpu"), 2, "--device 'gpu'"),
    ):
        done = mmtt(*command, *arguments)
        assert done.returncode == code
        assert said in done.stderr
    assert workspace.pristine.shards() == []


def test_unknown_parsers_and_missing_weights_of_the_stage_itself(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown parser 'segnext'"):
        parse(workspace, "segnext", Weights((tmp_path,)))
    with pytest.raises(WeightsMissing):
        parse(workspace, "bisenet", Weights((tmp_path,)))
