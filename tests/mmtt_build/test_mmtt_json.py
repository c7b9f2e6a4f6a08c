"""The layout, read back by a loader written from the published description of it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_workspace import SPLITS, small_workspace

from mmtt_build import mmtt_json
from mmtt_build.errors import ReleaseError
from mmtt_build.stages.export import export


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = small_workspace(tmp_path_factory.mktemp("json"), forgeries=25)
    return export(workspace).path / "mmtt"


def load_as_published(folder: Path, name: str) -> list[dict[str, object]]:
    """What the published baseline does with one annotation file."""
    samples = []
    for entry in json.loads((folder / name).read_text("utf-8")):
        image = cv2.imread(str(folder / entry["img_path"]), cv2.IMREAD_COLOR)
        mask = cv2.imread(str(folder / entry["mask_path"]), cv2.IMREAD_GRAYSCALE)
        assert image is not None and mask is not None, entry
        method = next((p for p in ("sd", "mat", "e4s") if entry["image_id"].startswith(p)), "attribute")
        samples.append(
            {
                "image": cv2.resize(image, (224, 224)),
                "mask": cv2.resize(mask, (224, 224), interpolation=cv2.INTER_NEAREST) > 0,
                "mask_as_metric": cv2.resize(mask, (224, 224), interpolation=cv2.INTER_NEAREST) > 127,
                "method": method,
                **entry,
            }
        )
    return samples


def test_the_published_loader_reads_every_split(folder: Path) -> None:
    samples = {name: load_as_published(folder, f"{name}-mutilabel.json") for name in ("train", "eval", "test")}
    assert {name: len(found) for name, found in samples.items()} == {"train": 15, "eval": 5, "test": 5}
    everything = [sample for found in samples.values() for sample in found]
    for sample in everything:
        assert sample["image"].shape == (224, 224, 3)
        assert 0.05 < sample["mask"].mean() < 0.1
        assert np.array_equal(sample["mask"], sample["mask_as_metric"])
        assert len(sample["multilabel"]) == 21 and sample["multilabel"][4] == 1
        assert sample["caption"].startswith("The nose of face ") and "ünnatural" in sample["caption"]
        assert sample["instance_id"].isdecimal() and len(sample["instance_id"]) >= 5
    for key in ("image_id", "instance_id", "img_path", "mask_path"):
        assert len({sample[key] for sample in everything}) == 25


def test_the_prefix_tells_what_the_published_data_tells(folder: Path) -> None:
    kinds = {}
    for name in ("train", "eval", "test"):
        for sample in load_as_published(folder, f"{name}-mutilabel.json"):
            made_by = Path(sample["img_path"]).name.split("-")[0]
            kinds[made_by] = (sample["method"], sample["image_id"].split("_")[0], sample.get("attribute"))
    assert kinds == {
        "blendswap": ("e4s", "e4s", None),
        "sdxl": ("sd", "sd", None),
        "mat": ("mat", "mat", None),
        "warp": ("attribute", "smile", "smile"),
        "patchfill": ("attribute", "patchfill", None),
    }


def test_folders_are_the_published_ones(folder: Path) -> None:
    assert {p.name for p in (folder / "dataset").iterdir()} == {"celeb512", "FFHQ512", "face_attribute_image"}
    assert len(list((folder / "dataset").rglob("*.png"))) == 2 * 25
    assert SPLITS.count("train") == 3


def row(**other: object) -> dict[str, object]:
    return {
        "forgery_id": "x-1",
        "method": "styleclip",
        "family": "attribute-edit",
        "params": '{"attribute": "surprised"}',
        "description": "The nose is blurred.",
        "labels": [1] + [0] * 20,
    } | other


def test_an_attribute_that_looks_like_a_published_prefix_is_not_taken_for_one() -> None:
    made = mmtt_json.record(row(params='{"attribute": "mature"}'), "ffhq")
    assert made["image_id"].startswith("edit-mature_") and made["attribute"] == "mature"


def test_an_edit_without_an_attribute_takes_the_method() -> None:
    made = mmtt_json.record(row(params=None), "ffhq")
    assert made["image_id"].startswith("styleclip_") and made["attribute"] == "styleclip"


def test_a_row_without_description_mentions_nothing() -> None:
    made = mmtt_json.record(row(description=None, labels=None), "folder")
    assert made["caption"] == "" and made["multilabel"] == [0] * 21


def test_another_source_gets_its_own_folder() -> None:
    made = mmtt_json.record(row(family="face-swap", method="e4s"), "folder")
    assert made["img_path"] == "dataset/folder512/e4s/images/x-1.png"
    assert "attribute" not in made


def test_an_empty_split_is_an_empty_list(tmp_path: Path) -> None:
    with mmtt_json.Writer(tmp_path) as writer:
        writer.add("val", {"a": "1"})
        writer.add("val", {"a": "2"})
    assert json.loads((tmp_path / "train-mutilabel.json").read_text("utf-8")) == []
    assert list(mmtt_json.read(tmp_path / "eval-mutilabel.json")) == [{"a": "1"}, {"a": "2"}]


@pytest.mark.parametrize("text", ["[1]", "[{]", "[{}"])
def test_what_is_no_list_of_records_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ReleaseError, match=r"bad\.json"):
        list(mmtt_json.read(path))
