"""The demo: everything at once, twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mmtt_build.errors import ConfigError
from mmtt_build.parts import LABELS
from mmtt_build.stages.demo import SCRIPTED, demo
from mmtt_build.stages.status import status
from mmtt_build.stages.verify import verify
from mmtt_build.triplets import Triplets
from mmtt_build.workspace import Workspace


def test_the_demo_makes_a_correct_dataset_and_may_be_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    lines: list[str] = []
    result = demo(folder, portraits=16, forgeries=16, workers=1, say=lines.append)
    assert verify(result.release).problems == []
    with Image.open(result.sheet) as sheet:
        assert sheet.width > 1000
        assert sheet.height > 1000
    workspace = Workspace(folder)
    counts = status(workspace)
    assert counts.sources == {("portraits", "ok"): 16}
    exported = sum(row["exported"] for row in counts.rows.values())
    assert exported == result.triplets >= 12
    assert {method for method, _ in counts.rows} == {"blendswap", "patchfill", "splice", "warp"}
    layouts = {row["parts_origin"] for row in workspace.pristine.read(["parts_origin"]).to_pylist()}
    assert layouts == {"masks", "landmarks"}  # both adapters were used
    for annotation in workspace.annotations.read().to_pylist():
        assert annotation["description"].startswith(SCRIPTED)
        assert (annotation["origin"], annotation["annotator"]) == ("scripted", "scripted")
        for label, marked in zip(LABELS, annotation["labels"], strict=True):
            assert bool(marked) == (
                label.replace("eyebrow", "brow") in annotation["description"].replace("eyebrow", "brow")
            )
    assert "scripted stand-ins, not human" in (result.release / "README.md").read_text("utf-8")
    sample = Triplets(result.release, "train")[0]
    assert sample["text"].startswith(SCRIPTED)
    manifest = json.loads((result.release / "manifest.json").read_text("utf-8"))
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    again = demo(folder, portraits=16, forgeries=16, workers=1, say=lines.append)
    assert again == result
    assert {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()} == before
    assert manifest["counts"]["train"] == len(Triplets(result.release, "train"))


def test_the_demo_keeps_out_of_other_peoples_workspaces(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="workspace of yours"):
        demo(workspace.root, say=lambda line: None)
