import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmtt_build.parts import CLASSES
from mmtt_build.portraits import draw, write_celebamask_hq, write_ffhq


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("celeba")
    write_celebamask_hq(folder, [5, 6], identities=[9, 9], start=1999, workers=2)
    return folder


@pytest.fixture(scope="module")
def ffhq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ffhq")
    write_ffhq(folder, [5, 6], start=999, workers=1)
    return folder


def test_celebamask_hq_images_and_masks(celeba: Path) -> None:
    assert sorted(p.name for p in (celeba / "CelebA-HQ-img").iterdir()) == ["1999.jpg", "2000.jpg"]
    for number in (1999, 2000):
        with Image.open(celeba / f"CelebA-HQ-img/{number}.jpg") as image:
            assert (image.size, image.mode, image.format) == ((1024, 1024), "RGB", "JPEG")
            assert not image.info.get("progressive")
        masks = sorted((celeba / f"CelebAMask-HQ-mask-anno/{number // 2000}").iterdir())
        names = {mask.name.removeprefix(f"{number:05d}_").removesuffix(".png") for mask in masks}
        assert names <= set(CLASSES[1:])
        assert {"skin", "nose", "l_eye", "r_eye", "u_lip", "l_lip"} <= names
        for mask in masks:
            with Image.open(mask) as opened:
                assert (opened.size, opened.mode) == ((512, 512), "RGB")
                values = np.unique(np.asarray(opened))
            assert 255 in values
            assert set(values) <= {0, 255}


def test_celebamask_hq_masks_are_those_of_the_portrait(celeba: Path) -> None:
    portrait = draw(5, 1024, 9)
    for name in ("skin", "l_eye", "hair"):
        if name in portrait.parts:
            mask = cv2.imread(str(celeba / f"CelebAMask-HQ-mask-anno/0/01999_{name}.png"), cv2.IMREAD_GRAYSCALE) > 127
            assert np.mean(mask != portrait.parts[name][::2, ::2]) < 0.005


def test_celebamask_hq_tables(celeba: Path) -> None:
    header, *rows = (celeba / "CelebA-HQ-to-CelebA-mapping.txt").read_text().splitlines()
    assert header.split() == ["idx", "orig_idx", "orig_file"]
    split = [row.split() for row in rows]
    assert [row[0] for row in split] == ["1999", "2000"]
    assert all(f"{int(row[1]) + 1:06d}.jpg" == row[2] for row in split)
    people = dict(line.split() for line in (celeba / "identity_CelebA.txt").read_text().splitlines())
    assert people == {row[2]: "9" for row in split}
    partition = dict(line.split() for line in (celeba / "list_eval_partition.txt").read_text().splitlines())
    assert partition.keys() == people.keys()
    for name, part in partition.items():
        number = int(name.removesuffix(".jpg"))
        assert int(part) == (0 if number <= 162770 else 1 if number <= 182637 else 2)


def test_ffhq_files_and_json(ffhq: Path) -> None:
    entries = json.loads((ffhq / "ffhq-dataset-v2.json").read_text())
    assert list(entries) == ["999", "1000"]
    for key, path in (("999", "images1024x1024/00000/00999.png"), ("1000", "images1024x1024/01000/01000.png")):
        entry = entries[key]
        assert set(entry) == {"category", "metadata", "image", "thumbnail", "in_the_wild"}
        assert entry["category"] == "training"
        assert entry["metadata"]["license"] == "CC0 1.0"
        assert entry["metadata"]["author"] == "mmtt-build"
        assert entry["image"]["file_path"] == path
        for kind, side in (("image", 1024), ("thumbnail", 128)):
            facts = entry[kind]
            data = (ffhq / facts["file_path"]).read_bytes()
            assert facts["file_size"] == len(data)
            assert facts["file_md5"] == hashlib.md5(data, usedforsecurity=False).hexdigest()
            with Image.open(ffhq / facts["file_path"]) as image:
                assert (image.size, image.mode) == ((side, side), "RGB")
                assert facts["pixel_md5"] == hashlib.md5(image.tobytes(), usedforsecurity=False).hexdigest()
        assert np.shape(entry["image"]["face_landmarks"]) == (68, 2)
    assert np.allclose(entries["999"]["image"]["face_landmarks"], draw(5, 1024).landmarks, atol=0.01)


def test_writing_again_changes_nothing_and_repairs_what_is_missing(ffhq: Path, celeba: Path) -> None:
    calls: list[int] = []
    before = contents(ffhq)
    (ffhq / "images1024x1024/01000/01000.png").unlink()
    (ffhq / "ffhq-dataset-v2.json").unlink()
    write_ffhq(ffhq, [5, 6], start=999, workers=1, advance=lambda: calls.append(1))
    assert contents(ffhq) == before
    before = contents(celeba)
    (celeba / "CelebA-HQ-img/2000.jpg").unlink()
    write_celebamask_hq(celeba, [5, 6], identities=[9, 9], start=1999, workers=1, advance=lambda: calls.append(1))
    assert contents(celeba) == before
    assert len(calls) == 4


def test_refuses_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 identities for 2 seeds"):
        write_ffhq(tmp_path, [1, 2], identities=[1])
    with pytest.raises(ValueError, match="69999"):
        write_ffhq(tmp_path, [1], start=70_000)
    with pytest.raises(ValueError, match="202598"):
        write_celebamask_hq(tmp_path, [1], start=-1)
