"""The rules on the stored pictures of a forgery: whether they are there, unchanged, and what a mask has to be.

A picture is measured once (`Measurer`): its files are read, the mask and the part maps decoded, and with `pixels` the
pristine and the forged one too. The rules judge what was measured. Decoding the mask is the measure of what that may
take; so nothing is looked at twice, of a mask only what lies around it, and of a base what its forgeries share once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mmtt_build import masks
from mmtt_build.config import Qc
from mmtt_build.errors import ContractBroken
from mmtt_build.masks import MIN_CHANGED_SHARE, MIN_MEAN_CHANGE, Mask
from mmtt_build.records import SIZE, Forged
from mmtt_build.workspace import Workspace
from qc import regions
from qc.base import Severity, Subject, rule
from qc.regions import Cover
from qc.stored import COLOURS, GREY, RGB, File, Folders, Header, PartMap


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


class Measurer:
    """Measures forgeries; what those of one base share, once for all that come one after another.

    Args:
        root: the workspace's folder.
        pixels: decode the pristine and the forged image too, and hold them against the mask contract.
    """

    def __init__(self, root: Path, *, pixels: bool = False) -> None:
        self.pixels = pixels
        self._folders = Folders(Workspace(root))
        self._base: _Base | None = None

    def measure(
        self,
        forged: Forged,
        *,
        changed_share: float | None = None,
        mean_change: float | None = None,
        cover: Cover | None = None,
        cover_of: str | None = None,
    ) -> tuple[Picture, Cover | None]:
        """Reads the files of a forgery. What is wrong with one of them is in the picture, and no error.

        Args:
            forged: the forgery.
            changed_share: what the table says, for when the pixels are not decoded.
            mean_change: likewise.
            cover: what was measured when it was forged.
            cover_of: `regions.basis` of that; of other files it is measured here, for which part maps are decoded.

        Returns:
            What was measured, and what the mask covers of each part: None without a mask or a part map.
        """
        if self._base is None or not self._base.is_of(forged):
            self._base = _Base(self._folders, forged)
        base = self._base.image
        image = File(self._folders, "forged image", forged.image, forged.crcs[0])
        stored = File(self._folders, "mask", forged.mask, forged.crcs[1])
        files = [base, image, stored]
        facts: dict[str, object] = {}
        broken = None
        piece = stored.piece() if stored.fits and stored.header and stored.header.colour == GREY else None
        if piece is not None:
            grey, (y, x) = piece
            mask = masks.from_grey(grey)
            facts = _shape(grey, mask)
            parts = self._base.parts if forged.base_parts else None
            result = None
            if forged.parts:
                result = PartMap(self._folders, "part map of the result", forged.parts, forged.crcs[2])
            maps = [one for one in (parts, result) if one]
            files += maps
            crcs = stored.crc, parts.crc if parts else None, result.crc if result else None
            if cover_of is None or cover_of != regions.basis(crcs, forged.points, forged.landmarks):
                cover = None
                for one in maps:
                    cover = regions.larger(cover, one.map.cover(mask, (y, x)) if one.map else None)
        else:
            cover = None
        if self.pixels and piece is not None and base.fits and image.fits:
            before, after = base.decoded(), image.decoded()
            if before is not None and after is not None:
                frame = np.zeros((SIZE, SIZE), np.bool_)
                frame[y : y + len(mask), x : x + mask.shape[1]] = mask
                try:
                    change = masks.check(before, after, frame)
                    changed_share, mean_change = change.changed_share, change.mean_change
                except ContractBroken as error:
                    broken = error.message
        picture = Picture(
            forged,
            unreadable=tuple(file.unreadable for file in files if file.unreadable),
            changed=tuple(file.changed for file in files if file.changed),
            base=base.header,
            image=image.header,
            mask=stored.header,
            changed_share=changed_share,
            mean_change=mean_change,
            broken=broken,
            **facts,  # type: ignore[arg-type]
        )
        return picture, cover


class _Base:
    """What all forgeries of a base share."""

    def __init__(self, folders: Folders, forged: Forged) -> None:
        self._folders, self._of = folders, forged
        self.image = File(folders, "pristine image", forged.base, whole=False)

    def is_of(self, forged: Forged) -> bool:
        """Whether this is the forgery's base."""
        return all(getattr(self._of, name) == getattr(forged, name) for name in _SHARED)

    @cached_property
    def parts(self) -> PartMap:
        """The part map, read when a mask needs it."""
        of = self._of
        return PartMap(self._folders, "part map", of.base_parts, points=of.points, landmarks=of.landmarks)


_SHARED = ("base", "base_parts", "points", "landmarks")


def _shape(grey: NDArray[np.uint8], mask: Mask) -> dict[str, object]:
    """The fields of a picture that describe its mask, from the piece of it that is not 0."""
    levels: tuple[int, ...] = ()
    if not np.array_equal(grey, masks.to_grey(mask)):
        between = grey[(grey > 0) & (grey < 255)]
        levels = int(between.min()), int(between.max())
    filled = mask.view(np.uint8)
    masked = cv2.countNonZero(filled)
    pieces, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rectangles = sum(map(_rectangle, pieces))
    fill = min(masked / rectangles, 1.0) if pieces else 0.0
    return {"area": masked / SIZE**2, "levels": levels, "fill": fill, "pieces": len(pieces)}


def _rectangle(outline: NDArray[np.int32]) -> float:
    """Pixels of the smallest rectangle around an outline, turned or not."""
    _, (width, height), angle = cv2.minAreaRect(outline)
    # From middle to middle of its outer pixels: an upright one has one more each way, the corners of a turned one none.
    upright = angle % 90 == 0
    return float((width + upright) * (height + upright))


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
    for what, header, colour in (("image", picture.image, RGB), ("mask", picture.mask, GREY)):
        if header and (header.width, header.height, header.depth, header.colour) != (SIZE, SIZE, 8, colour):
            found.append(f"{what} is {header}, needs {SIZE}x{SIZE} {COLOURS[colour]} of 8 bits")
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
