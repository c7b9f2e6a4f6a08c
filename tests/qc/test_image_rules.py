"""Each rule on stored pictures with a forgery that passes and one that does not; damaged files are findings."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from mmtt_build import images, masks
from mmtt_build.config import Qc
from mmtt_build.parts import INDEX
from mmtt_build.records import Forged
from qc import base, regions
from qc.base import Subject
from qc.images import Measurer, Picture

FaceMaker = Callable[..., tuple[NDArray[np.uint8], NDArray[np.uint8]]]


@pytest.fixture
def forgery(tmp_path: Path, quick_face: FaceMaker) -> Forged:
    """A forged nose, as generate stores it."""
    image, labels = quick_face(7, 512)
    mask = labels == INDEX["nose"]
    forged = image.copy()
    forged[mask] = 255 - forged[mask]
    files = {
        "base": images.encode_rgb(image),
        "base_parts": images.encode_grey(labels),
        "image": images.encode_rgb(forged, images.encode_rgb(image), mask),
        "mask": images.encode_grey(masks.to_grey(mask)),
    }
    for name, data in files.items():
        (tmp_path / f"{name}.png").write_bytes(data)
    crcs = (zlib.crc32(files["image"]), zlib.crc32(files["mask"]), None)
    return Forged("warp-0", "ok", crcs=crcs, **{name: f"{name}.png" for name in files})  # type: ignore[arg-type]


def found(
    root: Path, forged: Forged, thresholds: Qc | None = None, *, pixels: bool = False, **given: Any
) -> dict[str, str]:
    picture, _ = Measurer(root, pixels=pixels).measure(forged, **given)
    findings = base.judge(Subject.FORGERY, picture, thresholds or Qc(), thresholds or Qc())
    return {finding.rule: finding.message for finding in findings}


def restored(root: Path, forged: Forged, **files: bytes) -> Forged:
    """The forgery with other files, and with the CRC-32 of these."""
    for name, data in files.items():
        (root / f"{name}.png").write_bytes(data)
    crcs = [zlib.crc32((root / f"{name}.png").read_bytes()) for name in ("image", "mask")]
    return replace(forged, crcs=(*crcs, forged.crcs[2]))


def mask_png(draw: Callable[[NDArray[np.uint8]], object]) -> bytes:
    grey = np.zeros((512, 512), np.uint8)
    draw(grey)
    return images.encode_grey(grey)


@pytest.mark.parametrize("pixels", [False, True])
def test_a_good_forgery_passes_every_rule(tmp_path: Path, forgery: Forged, pixels: bool) -> None:
    assert found(tmp_path, forgery, pixels=pixels) == {}
    assert found(tmp_path, forgery, pixels=pixels, changed_share=1.0, mean_change=60.0) == {}


def test_cover_is_of_both_part_maps(tmp_path: Path, forgery: Forged, quick_face: FaceMaker) -> None:
    _, cover = Measurer(tmp_path).measure(forgery)
    assert cover is not None
    assert regions.of(cover, "nose") == 1
    assert regions.of(cover, "eye") == 0
    labels = quick_face(7, 512)[1]
    moved = np.where(labels == INDEX["nose"], INDEX["l_eye"], labels).astype(np.uint8)
    (tmp_path / "after.png").write_bytes(images.encode_grey(moved))
    _, cover = Measurer(tmp_path).measure(replace(forgery, parts="after.png"))
    assert cover is not None
    assert regions.of(cover, "nose") == 1
    assert (regions.of(cover, "eye", "left") or 0) > 0.5
    assert Measurer(tmp_path).measure(replace(forgery, base_parts=None))[1] is None


def test_a_cover_holds_for_the_files_and_the_points_it_was_measured_of(
    tmp_path: Path, forgery: Forged, quick_face: FaceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = quick_face(7, 512)[1]
    (tmp_path / "after.png").write_bytes(images.encode_grey(labels))
    forgery = replace(forgery, parts="after.png")

    def basis(of: Forged) -> str:
        crcs = [zlib.crc32((tmp_path / str(path)).read_bytes()) for path in (of.mask, of.base_parts, of.parts)]
        return regions.basis(crcs, of.points, of.landmarks)

    def cover(of: Forged) -> regions.Cover | None:
        return Measurer(tmp_path).measure(of, cover=stored, cover_of=known)[1]

    stored, known = (0.25,) * len(regions.SLOTS), basis(forgery)
    afresh = Measurer(tmp_path).measure(forgery)[1]
    assert cover(forgery) == stored
    moved = replace(forgery, points=(316.0, 130, 196, 130, 256, 170, 290, 260, 220, 260))
    assert stored != cover(moved) == Measurer(tmp_path).measure(moved)[1]
    for name, data in (
        ("mask", mask_png(lambda grey: cv2.circle(grey, (330, 320), 50, 255, -1))),
        ("base_parts", images.encode_grey(labels[::-1].copy())),
        ("after", images.encode_grey(labels[::-1].copy())),
    ):
        whole = (tmp_path / f"{name}.png").read_bytes()
        (tmp_path / f"{name}.png").write_bytes(data)
        assert stored != cover(forgery) == Measurer(tmp_path).measure(forgery)[1]
        (tmp_path / f"{name}.png").unlink()
        assert cover(forgery) != stored
        (tmp_path / f"{name}.png").write_bytes(whole)
    assert cover(forgery) == stored
    monkeypatch.setattr(regions, "rules_version", lambda *modules: "another")
    assert cover(forgery) == afresh


@pytest.mark.parametrize("name", ["base", "image", "mask", "base_parts"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut off", "no PNG", "a folder", "no path", "outside"])
def test_a_file_that_cannot_be_read(tmp_path: Path, forgery: Forged, name: str, damage: str) -> None:
    path = tmp_path / f"{name}.png"
    data = path.read_bytes()
    if damage in ("missing", "a folder"):
        path.unlink()
    if damage == "a folder":
        path.mkdir()
    if damage in ("empty", "cut off", "no PNG"):
        path.write_bytes({"empty": b"", "cut off": data[:-30], "no PNG": b"GIF89a" * 20}[damage])
    if damage in ("no path", "outside"):
        forgery = replace(forgery, **{name: None if damage == "no path" else "../outside.png"})
    for pixels in (False, True):
        said = found(tmp_path, forgery, pixels=pixels)
        if name == "base_parts" and damage == "no path":  # methods that need no parts
            assert said == {}
            continue
        what = {"base": "pristine image", "image": "forged image", "mask": "mask", "base_parts": "part map"}[name]
        assert said["image.missing"].startswith(what)
        assert said.keys() <= {"image.missing", "image.changed"}


@pytest.mark.parametrize("link", ["file", "folder", "steps up"])
def test_a_path_that_leaves_the_workspace_is_a_finding(tmp_path: Path, forgery: Forged, link: str) -> None:
    root, outside = tmp_path / "w", tmp_path / "outside"
    for folder in (root / "masks", outside):
        folder.mkdir(parents=True)
        (folder / "mask.png").write_bytes((tmp_path / "mask.png").read_bytes())
    for name in ("base", "base_parts", "image"):
        (tmp_path / f"{name}.png").rename(root / f"{name}.png")
    inside, measurer = replace(forgery, mask="masks/mask.png"), Measurer(root)
    assert measurer.measure(inside)[0].unreadable == ()
    if link == "file":
        (root / "masks" / "link.png").symlink_to(outside / "mask.png")
    if link == "folder":
        (root / "link").symlink_to(outside)
    leaves = {"file": "masks/link.png", "folder": "link/mask.png", "steps up": "masks/../../outside/mask.png"}[link]
    (said,) = measurer.measure(replace(forgery, mask=leaves))[0].unreadable
    assert "leaves the workspace" in said
    (said,) = measurer.measure(replace(forgery, mask=str(outside / "mask.png")))[0].unreadable
    assert "leaves the workspace" in said
    (root / "masks" / "own.png").symlink_to(root / "masks" / "mask.png")  # a link to what lies inside is followed
    assert measurer.measure(replace(forgery, mask="masks/own.png"))[0].unreadable == ()


def test_forgeries_of_a_base_are_measured_as_each_alone(tmp_path: Path, forgery: Forged, quick_face: FaceMaker) -> None:
    image, labels = quick_face(8, 512)
    (tmp_path / "other.png").write_bytes(images.encode_rgb(image))
    (tmp_path / "other_parts.png").write_bytes(images.encode_grey(labels[::-1]))
    (tmp_path / "disc.png").write_bytes(mask_png(lambda grey: cv2.circle(grey, (330, 320), 50, 255, -1)))
    second = replace(forgery, mask="disc.png", crcs=(forgery.crcs[0], None, None))
    several = [
        forgery,
        second,
        replace(second, base="other.png", base_parts="other_parts.png"),
        replace(second, points=(316.0, 130, 196, 130, 256, 170, 290, 260, 220, 260)),
        replace(second, base_parts="lost.png"),
        replace(second, base="lost.png"),
        forgery,
    ]
    together = Measurer(tmp_path)
    made = [together.measure(one) for one in several]
    assert made == [Measurer(tmp_path).measure(one) for one in several]
    assert len({str(cover) for _, cover in made}) == 5


def test_damaged_pixels_are_a_finding(tmp_path: Path, forgery: Forged) -> None:
    for name, pixels in (("mask", False), ("base_parts", False), ("image", True), ("base", True)):
        path = tmp_path / f"{name}.png"
        whole = path.read_bytes()
        at = whole.index(b"IDAT") + 4
        path.write_bytes(whole[: at + 20] + b"\xff" * 40 + whole[at + 60 :])
        assert "its pixels are damaged" in found(tmp_path, forgery, pixels=pixels)["image.missing"]
        path.write_bytes(whole)


def test_a_part_map_of_another_kind(tmp_path: Path, forgery: Forged) -> None:
    for labels in (np.full((512, 512), 40, np.uint8), np.zeros((256, 256), np.uint8)):
        (tmp_path / "base_parts.png").write_bytes(images.encode_grey(labels))
        assert "needs 512x512 grey with values below 19" in found(tmp_path, forgery)["image.missing"]


@pytest.mark.parametrize("name", ["image", "mask"])
def test_a_file_that_was_changed(tmp_path: Path, forgery: Forged, name: str) -> None:
    other = np.zeros((512, 512, 3) if name == "image" else (512, 512), np.uint8)
    other[200:300, 240:280] = 255
    data = images.encode_rgb(other) if name == "image" else images.encode_grey(other)
    old = zlib.crc32((tmp_path / f"{name}.png").read_bytes())
    (tmp_path / f"{name}.png").write_bytes(data)
    what = "forged image" if name == "image" else "mask"
    said = found(tmp_path, forgery)["image.changed"]
    assert said == f"{what} {name}.png: CRC-32 {zlib.crc32(data):08x}, was {old:08x}"
    assert "image.changed" not in found(tmp_path, replace(forgery, crcs=(None, None, None)))


def test_the_part_map_of_the_result_has_a_checksum_too(tmp_path: Path, forgery: Forged) -> None:
    data = (tmp_path / "base_parts.png").read_bytes()
    (tmp_path / "after.png").write_bytes(data)
    after = replace(forgery, parts="after.png")
    assert found(tmp_path, replace(after, crcs=(*forgery.crcs[:2], zlib.crc32(data)))) == {}
    assert "part map of the result" in found(tmp_path, replace(after, crcs=(*forgery.crcs[:2], 1)))["image.changed"]


def test_the_mask_contract(tmp_path: Path, forgery: Forged) -> None:
    def said(**files: bytes) -> str:
        return found(tmp_path, restored(tmp_path, forgery, **files)).get("image.contract", "")

    mask = (tmp_path / "mask.png").read_bytes()
    assert said(mask=mask_png(lambda grey: None)) == "mask is empty"
    assert said(mask=mask_png(lambda grey: grey.fill(255))) == "mask is the full frame"
    soft = mask_png(lambda grey: (cv2.circle(grey, (256, 256), 40, 255, -1), cv2.circle(grey, (256, 256), 9, 99, -1)))
    assert said(mask=soft) == "mask has grey values from 99 to 99, needs 0 and 255 only"
    small = images.encode_grey(np.full((256, 256), 255, np.uint8))
    assert said(mask=small) == "mask is 256x256 grey of 8 bits, needs 512x512 grey of 8 bits"
    coloured = images.encode_rgb(np.zeros((512, 512, 3), np.uint8))
    assert said(mask=coloured) == "mask is 512x512 RGB of 8 bits, needs 512x512 grey of 8 bits"
    image = (tmp_path / "image.png").read_bytes()
    grey = images.encode_grey(np.zeros((512, 512), np.uint8))
    assert said(mask=mask, image=grey) == "image is 512x512 grey of 8 bits, needs 512x512 RGB of 8 bits"
    assert said(mask=mask, image=image) == ""


def test_pixels_outside_the_mask(tmp_path: Path, forgery: Forged) -> None:
    image = images.decode_stored((tmp_path / "image.png").read_bytes()).copy()
    image[5, 5] ^= 255
    other = restored(tmp_path, forgery, image=images.encode_rgb(image))
    assert found(tmp_path, other) == {}
    assert found(tmp_path, other, pixels=True) == {
        "image.contract": "1 pixels outside the mask differ from the base",
    }


def test_a_no_op(tmp_path: Path, forgery: Forged) -> None:
    assert found(tmp_path, forgery, changed_share=0.04, mean_change=9.0) == {
        "image.no-op": "4.0% of the masked pixels changed, by 9.00 grey levels on average (at least 5% and 1)"
    }
    assert "image.no-op" in found(tmp_path, forgery, changed_share=0.5, mean_change=0.9)
    assert found(tmp_path, forgery, changed_share=0.5, mean_change=1.0) == {}
    same = restored(tmp_path, forgery, image=(tmp_path / "base.png").read_bytes())
    assert found(tmp_path, same, pixels=True, changed_share=1.0, mean_change=9.0).keys() == {"image.no-op"}


def test_the_area_of_a_mask(tmp_path: Path, forgery: Forged) -> None:
    picture, _ = Measurer(tmp_path).measure(forgery)
    assert picture.area is not None
    exact = Qc(min_mask_area=picture.area, max_mask_area=picture.area)
    assert found(tmp_path, forgery, exact) == {}
    said = found(tmp_path, forgery, Qc(min_mask_area=picture.area * 1.01))
    assert said["image.mask-area"].startswith(f"mask covers {100 * picture.area:.3g} % of the frame")
    assert "image.mask-area" in found(tmp_path, forgery, Qc(max_mask_area=picture.area * 0.99))


def repacked(data: bytes, **options: Any) -> bytes:
    """The same pixels in another PNG."""
    from io import BytesIO

    buffer = BytesIO()
    with PillowImage.open(BytesIO(data)) as opened:
        opened.convert(options.pop("mode", "RGB")).save(buffer, "PNG", **options)
    return buffer.getvalue()


def with_text(text: str) -> PngInfo:
    info = PngInfo()
    info.add_text("Software", text)
    return info


def test_pristine_and_forged_are_stored_alike(tmp_path: Path, forgery: Forged) -> None:
    image, pristine = ((tmp_path / f"{name}.png").read_bytes() for name in ("image", "base"))

    def said(**files: bytes) -> str:
        return found(tmp_path, restored(tmp_path, forgery, **files)).get("image.codec", "")

    assert said(image=repacked(image)) == ""  # other bytes, nothing to tell them apart by
    assert said(image=repacked(image, mode="RGBA")) == (
        "pristine image is 512x512 RGB of 8 bits, forged image 512x512 RGB with alpha of 8 bits"
    )
    assert "forged image 512x512 RGB of 8 bits, with tEXt" in said(image=repacked(image, pnginfo=with_text("a")))
    assert "carry different metadata" in said(base=repacked(pristine, pnginfo=with_text("b")))
    assert said(base=repacked(pristine, pnginfo=with_text("a"))) == ""
    assert "bytes behind the end" in said(image=image + b"\0", base=pristine)
    header = struct.pack(">IIBBBBB", 512, 512, 8, 2, 0, 0, 1)
    interlaced = image[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + image[33:]
    assert "of 8 bits, interlaced" in said(image=interlaced)


def turned_box(grey: NDArray[np.uint8]) -> object:
    corners = cv2.boxPoints(((256, 256), (120, 60), 31))
    return cv2.fillConvexPoly(grey, np.rint(corners).astype(np.int32), 255)


RECTANGLES: dict[str, Callable[[NDArray[np.uint8]], object]] = {
    "upright": lambda grey: cv2.rectangle(grey, (100, 100), (180, 150), 255, -1),
    "turned": turned_box,
    "two": lambda grey: (
        cv2.rectangle(grey, (100, 100), (180, 150), 255, -1),
        cv2.rectangle(grey, (300, 100), (380, 150), 255, -1),
    ),
}
OTHER_SHAPES: dict[str, Callable[[NDArray[np.uint8]], object]] = {
    "ellipse": lambda grey: cv2.ellipse(grey, (256, 256), (80, 40), 0, 0, 360, 255, -1),
    "frame": lambda grey: cv2.rectangle(grey, (100, 100), (180, 150), 255, 9),
    "few pixels": lambda grey: cv2.rectangle(grey, (100, 100), (110, 110), 255, -1),
    "triangle": lambda grey: cv2.fillConvexPoly(grey, np.array([[100, 100], [200, 100], [150, 200]]), 255),
}


@pytest.mark.parametrize("shape", RECTANGLES)
def test_a_mask_that_is_a_rectangle(tmp_path: Path, forgery: Forged, shape: str) -> None:
    said = found(tmp_path, restored(tmp_path, forgery, mask=mask_png(RECTANGLES[shape])))["image.rectangle"]
    assert said.startswith("all 2 pieces of the mask are rectangles" if shape == "two" else "the mask is a rectangle")


@pytest.mark.parametrize("shape", OTHER_SHAPES)
def test_a_mask_of_another_shape(tmp_path: Path, forgery: Forged, shape: str) -> None:
    forged = restored(tmp_path, forgery, mask=mask_png(OTHER_SHAPES[shape]))
    assert "image.rectangle" not in found(tmp_path, forged)


def test_a_picture_of_nothing_is_judged() -> None:
    findings = base.judge(Subject.FORGERY, Picture(Forged("x", "ok")), Qc(), Qc())
    assert findings == []
