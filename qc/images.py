"""The rules on the stored pictures of a forgery: whether they are there, unchanged, and what a mask has to be.

A picture is measured once (`measure`): its files are read, the mask and the part maps decoded, and with `pixels` the
pristine and the forged one too. The rules judge what was measured.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from mmtt_build import images, masks
from mmtt_build.config import Qc
from mmtt_build.errors import BadImage, ContractBroken, MmttError
from mmtt_build.masks import MIN_CHANGED_SHARE, MIN_MEAN_CHANGE, Mask
from mmtt_build.parts import CLASSES, LabelMap
from mmtt_build.records import SIZE, Forged
from mmtt_build.workspace import Workspace
from qc import regions
from qc.base import Severity, Subject, rule
from qc.regions import Cover

_GREY, _RGB = 0, 2  # PNG's colour types
_COLOURS = {_GREY: "grey", _RGB: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


@dataclass(frozen=True, slots=True)
class Header:
    """How a PNG stores its picture.

    Attributes:
        width: in pixels, like the height.
        height: of the picture.
        depth: bits of a channel.
        colour: PNG's number of the colour type.
        interlace: PNG's number of the interlace method.
        extra: kind and content of each chunk that is not needed for the pixels.
    """

    width: int
    height: int
    depth: int
    colour: int
    interlace: int
    extra: tuple[tuple[str, bytes], ...]

    @property
    def fits(self) -> bool:
        """Whether the picture has the project's size; another one, which may be a bomb, is not decoded."""
        return self.width == self.height == SIZE

    def __str__(self) -> str:
        """In words, without the content of chunks."""
        kind = f"{self.width}x{self.height} {_COLOURS.get(self.colour, self.colour)} of {self.depth} bits"
        chunks = ", ".join(kind for kind, _ in self.extra)
        return f"{kind}{', interlaced' if self.interlace else ''}{f', with {chunks}' if chunks else ''}"


@dataclass(frozen=True, slots=True)
class Picture:
    """A forgery and what was measured of its files.

    Attributes:
        forged: where they lie.
        unreadable: what cannot be read, with the reason.
        changed: what is not the file that was stored, with both CRC-32.
        base: how the pristine image is stored, or None where it cannot be read, like all that follows.
        image: how the forged image is stored.
        mask: how the mask is stored.
        levels: smallest and largest of the mask's grey values that are neither 0 nor 255; none where all are.
        area: masked share of the frame.
        fill: of the mask's pieces, the share of the smallest rectangles around them that they fill, turned or not.
        pieces: in how many pieces the mask lies.
        changed_share: share of masked pixels that differ, from the pixels or from the table.
        mean_change: mean change of masked pixels in grey levels, likewise.
        broken: how the pixels break the mask contract; None also where they were not looked at.
    """

    forged: Forged
    unreadable: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    base: Header | None = None
    image: Header | None = None
    mask: Header | None = None
    levels: tuple[int, ...] = ()
    area: float | None = None
    fill: float = 0.0
    pieces: int = 0
    changed_share: float | None = None
    mean_change: float | None = None
    broken: str | None = None


def measure(
    root: Path,
    forged: Forged,
    *,
    pixels: bool = False,
    changed_share: float | None = None,
    mean_change: float | None = None,
) -> tuple[Picture, Cover | None]:
    """Reads the files of a forgery. What is wrong with one of them is in the picture, and no error.

    Args:
        root: the workspace's folder.
        forged: the forgery.
        pixels: decode the pristine and the forged image too, and hold them against the mask contract.
        changed_share: what the table says, for when the pixels are not decoded.
        mean_change: likewise.

    Returns:
        What was measured, and what the mask covers of each part: None without a mask or a part map.
    """
    files = _Files(Workspace(root), forged)
    base = files.header("pristine image", files.data("pristine image", forged.base))
    image = files.header("forged image", files.data("forged image", forged.image, forged.crcs[0]))
    stored = files.data("mask", forged.mask, forged.crcs[1])
    mask_header = files.header("mask", stored)
    fits = mask_header is not None and mask_header.fits and mask_header.colour == _GREY
    grey = files.decoded("mask", grey=True) if fits else None
    facts: dict[str, object] = {}
    cover = mask = None
    if grey is not None:
        mask = masks.from_grey(grey)
        facts = _shape(grey, mask)
        cover = _cover(files, mask)
    broken = None
    if pixels and mask is not None and base and image and base.fits and image.fits:
        before, after = files.decoded("pristine image"), files.decoded("forged image")
        if before is not None and after is not None:
            try:
                change = masks.check(before, after, mask)
                changed_share, mean_change = change.changed_share, change.mean_change
            except ContractBroken as error:
                broken = error.message
    picture = Picture(
        forged, tuple(files.unreadable), tuple(files.changed), base, image, mask_header,
        changed_share=changed_share, mean_change=mean_change, broken=broken, **facts,  # type: ignore[arg-type]
    )  # fmt: skip
    return picture, cover


class _Files:
    """The files of a forgery, each read once."""

    def __init__(self, workspace: Workspace, forged: Forged) -> None:
        self.workspace, self.forged = workspace, forged
        self.unreadable: list[str] = []
        self.changed: list[str] = []
        self._data: dict[str, bytes] = {}

    def data(self, what: str, path: str | None, crc: int | None = None) -> bytes | None:
        if path is None:
            self.unreadable.append(f"{what}: no file in the table")
            return None
        try:
            data = images.read_bytes(self.workspace.resolve(path))
        except MmttError as error:
            self.unreadable.append(f"{what} {path}: {error.message}")
            return None
        if crc is not None and (found := isal_zlib.crc32(data)) != crc:
            self.changed.append(f"{what} {path}: CRC-32 {found:08x}, was {crc:08x}")
        self._data[what] = data
        return data

    def header(self, what: str, data: bytes | None) -> Header | None:
        if data is None:
            return None
        try:
            return _header(data)
        except (ValueError, struct.error, IndexError):
            self.unreadable.append(f"{what}: not a whole PNG")
            return None

    def decoded(self, what: str, grey: bool = False) -> NDArray[np.uint8] | None:
        try:
            return images.decode_stored(self._data[what], grey)
        except (BadImage, cv2.error, MemoryError):
            self.unreadable.append(f"{what}: its pixels are damaged")
            return None

    def part_map(self, what: str, path: str | None, crc: int | None = None) -> LabelMap | None:
        data = self.data(what, path, crc) if path else None
        header = self.header(what, data)
        if header is None:
            return None
        labels = self.decoded(what, grey=True) if header.fits else None
        if not header.fits or (labels is not None and int(labels.max()) >= len(CLASSES)):
            needed = f"{SIZE}x{SIZE} grey with values below {len(CLASSES)}"
            self.unreadable.append(f"{what} {path}: {header}, needs {needed}")
            return None
        return labels


def _header(data: bytes) -> Header:
    """Reads the chunks of a PNG.

    Raises:
        ValueError: it is none, or is cut off; struct.error likewise.
    """
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or data[12:16] != b"IHDR":
        raise ValueError("no PNG")
    width, height, depth, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    return Header(width, height, depth, colour, interlace, tuple(_extra(data)))


def _extra(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            if len(data) > at + 12:
                yield "bytes behind the end", data[at + 12 :]
            return
        if kind not in (b"IHDR", b"IDAT", b"PLTE"):
            yield kind.decode("latin-1"), data[at + 8 : at + 8 + length]
        at += 12 + length


def _shape(grey: NDArray[np.uint8], mask: Mask) -> dict[str, object]:
    """The fields of a picture that describe its mask."""
    levels: tuple[int, ...] = ()
    if cv2.norm(grey, masks.to_grey(mask), cv2.NORM_INF):  # a tenth of the time of looking at the values first
        between = grey[(grey > 0) & (grey < 255)]
        levels = int(between.min()), int(between.max())
    filled = mask.view(np.uint8)
    masked = cv2.countNonZero(filled)
    x, y, width, height = cv2.boundingRect(filled)
    around = np.ascontiguousarray(filled[y : y + height, x : x + width])
    pieces, _ = cv2.findContours(around, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rectangles = sum(map(_rectangle, pieces))
    fill = min(masked / rectangles, 1.0) if pieces else 0.0
    return {"area": masked / mask.size, "levels": levels, "fill": fill, "pieces": len(pieces)}


def _rectangle(outline: NDArray[np.int32]) -> float:
    """Pixels of the smallest rectangle around an outline, turned or not."""
    _, (width, height), angle = cv2.minAreaRect(outline)
    # From middle to middle of its outer pixels: an upright one has one more each way, the corners of a turned one none.
    upright = angle % 90 == 0
    return float((width + upright) * (height + upright))


def _cover(files: _Files, mask: Mask) -> Cover | None:
    """What a mask covers before or after the forging, whichever is more."""
    forged = files.forged
    before = files.part_map("part map", forged.base_parts)
    after = files.part_map("part map of the result", forged.parts, forged.crcs[2])
    return regions.larger(
        None if before is None else regions.cover(before, mask, forged.points, forged.landmarks),
        None if after is None else regions.cover(after, mask),
    )


@rule("image.missing", Severity.REJECT, subject=Subject.FORGERY)
def missing(picture: Picture, thresholds: Qc) -> str | None:
    """All files of a forgery are there and can be read."""
    return "; ".join(picture.unreadable) or None


@rule("image.changed", Severity.REJECT, subject=Subject.FORGERY)
def changed(picture: Picture, thresholds: Qc) -> str | None:
    """Image, mask and part map are the files that were stored.

    By their CRC-32 in the table. A description was written of the stored picture, and of no other one.
    """
    return "; ".join(picture.changed) or None


@rule("image.contract", Severity.REJECT, subject=Subject.FORGERY)
def contract(picture: Picture, thresholds: Qc) -> str | None:
    """The mask contract: RGB and mask of 512x512, the mask of 0 and 255, neither empty nor full, nothing outside it.

    Whether pixels outside the mask equal the pristine ones bit for bit is seen only where pixels are decoded.
    """
    found = []
    for what, header, colour in (("image", picture.image, _RGB), ("mask", picture.mask, _GREY)):
        if header and (header.width, header.height, header.depth, header.colour) != (SIZE, SIZE, 8, colour):
            found.append(f"{what} is {header}, needs {SIZE}x{SIZE} {_COLOURS[colour]} of 8 bits")
    if picture.levels:
        found.append(f"mask has grey values from {picture.levels[0]} to {picture.levels[1]}, needs 0 and 255 only")
    if picture.area in (0, 1):
        found.append("mask is empty" if not picture.area else "mask is the full frame")
    elif picture.broken and not picture.broken.startswith(_NO_OP):
        found.append(picture.broken)
    return "; ".join(found) or None


@rule("image.no-op", Severity.REJECT, subject=Subject.FORGERY)
def no_op(picture: Picture, thresholds: Qc) -> str | None:
    """The forging changed something: enough of the masked pixels, by enough grey levels, see `mmtt_build.masks`."""
    if picture.broken and picture.broken.startswith(_NO_OP):
        return picture.broken
    share, change = picture.changed_share, picture.mean_change
    if share is None or change is None or (share >= MIN_CHANGED_SHARE and change >= MIN_MEAN_CHANGE):
        return None
    return (
        f"{share:.1%} of the masked pixels changed, by {change:.2f} grey levels on average "
        f"(at least {MIN_CHANGED_SHARE:.0%} and {MIN_MEAN_CHANGE:g})"
    )


@rule("image.mask-area", Severity.REVIEW, "min_mask_area", "max_mask_area", subject=Subject.FORGERY)
def mask_area(picture: Picture, thresholds: Qc) -> str | None:
    """A mask covers at least `min_mask_area` and at most `max_mask_area` of the frame.

    A smaller one shows nothing to describe; a larger one is no local forgery.
    """
    least, most = thresholds.min_mask_area, thresholds.max_mask_area
    if picture.area is None or least <= picture.area <= most:
        return None
    return f"mask covers {100 * picture.area:.3g} % of the frame, {100 * least:g} % to {100 * most:g} % are expected"


@rule("image.codec", Severity.REJECT, subject=Subject.FORGERY)
def codec(picture: Picture, thresholds: Qc) -> str | None:
    """Pristine and forged image are stored alike, so that no detector learns the file instead of the forgery.

    That is, of one size, bit depth, colour type and interlacing, and with the same metadata, best none.
    """
    if picture.base is None or picture.image is None or picture.base == picture.image:
        return None
    if str(picture.base) == str(picture.image):
        return f"pristine and forged image carry different metadata: {picture.image}"
    return f"pristine image is {picture.base}, forged image {picture.image}"


@rule("image.rectangle", Severity.REVIEW, subject=Subject.FORGERY)
def rectangle(picture: Picture, thresholds: Qc) -> str | None:
    """A mask follows the face, it is no plain rectangle or several, turned or not.

    A box tells a detector more than the forgery does. Slanted edges of pixels leave a few percent of a rectangle
    unfilled, an ellipse 21 %. A mask of few pixels has no shape.
    """
    if picture.area is None or picture.area * SIZE**2 < _SHAPED * picture.pieces or picture.fill < _FILLED:
        return None
    pieces = (
        "the mask is a rectangle" if picture.pieces == 1 else f"all {picture.pieces} pieces of the mask are rectangles"
    )
    return f"{pieces}: {picture.fill:.1%} filled"


_NO_OP = "no-op"
_SHAPED = 200
"""Pixels of a piece, on average, from which on it has a shape."""
_FILLED = 0.98
"""Of turned rectangles from 20 by 10 pixels on, at any angle, more is filled."""
