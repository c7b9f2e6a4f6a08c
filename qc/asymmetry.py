"""How far the two of a pair differ: in size, in height and in their pixels, in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mmtt_build.parts import LabelMap
from qc import regions

Image = NDArray[np.uint8]

LABELS = ("eye", "eyebrow", "ear", "cheek", "lip")
"""What can be measured: pairs, and the halves of the lips."""

_SIZE, _HEIGHT, _PIXELS, _GREY = 0.05, 0.02, 0.1, 1.0
"""What is no difference between two pictures: of sizes, of heights, a share of that of the pixels, grey levels."""
_PATCH = (48, 32)
_CELL = 0.5 / _PATCH[0]
"""A patch of 48 by 32 samples is half as wide as the eyes lie apart: as wide as most eyes, brows and ears."""


@dataclass(frozen=True, slots=True)
class Asymmetry:
    """What tells a left part from the mirrored right one.

    Attributes:
        size: the share by which the smaller one is smaller.
        height: how much higher one is, in distances between the eyes (or from them to the mouth).
        pixels: mean absolute difference in grey levels, of patches of equal mean.
    """

    size: float
    height: float
    pixels: float

    def exceeds(self, other: Asymmetry) -> bool:
        """Whether it is clearly larger in any respect."""
        return (
            self.size > other.size + _SIZE
            or self.height > other.height + _HEIGHT
            or self.pixels > other.pixels * (1 + _PIXELS) + _GREY
        )

    def __str__(self) -> str:
        """In words."""
        return f"{self.size:.0%} in size, {self.height:.1%} in height, {self.pixels:.1f} grey levels"


def measure(image: Image, labels: LabelMap, label: str, points: Sequence[float] | None = None) -> Asymmetry | None:
    """The asymmetry of a pair.

    Args:
        image: (512, 512, 3) uint8 RGB.
        labels: (512, 512) uint8 part map.
        label: one of `LABELS`.
        points: as `records.Pristine.points`; without them those of the part map.

    Returns:
        None where the picture does not show both of them, or no face.
    """
    seen = regions.axis(labels, points)
    if seen is None:
        return None
    left, right = (
        cv2.moments(regions.region(labels, label, side, points).view(np.uint8), binaryImage=True)
        for side in ("left", "right")
    )
    areas = left["m00"], right["m00"]
    if not min(areas):
        return None
    down = seen[2] - seen[0]
    unit = max(float(np.linalg.norm(down)), float(np.nan_to_num(np.linalg.norm(seen[3] - seen[4]))))
    down = down / np.linalg.norm(down)
    across = np.array((down[1], -down[0]))
    middles = [np.array((moments["m10"], moments["m01"])) / moments["m00"] for moments in (left, right)]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    patches = [
        _patch(grey, middle, sign * unit * across, unit * down) for middle, sign in zip(middles, (1, -1), strict=True)
    ]
    return Asymmetry(
        size=1 - min(areas) / max(areas),
        height=abs(float((middles[0] - middles[1]) @ down)) / unit,
        pixels=float(np.abs(patches[0] - patches[1]).mean()),
    )


def _patch(
    grey: Image, middle: NDArray[np.floating], outwards: NDArray[np.floating], down: NDArray[np.floating]
) -> Image:
    """The surroundings of a point, from the axis outwards, less their mean: light from one side is no asymmetry."""
    step = np.column_stack([outwards, down]) * _CELL
    start = middle - step @ (np.array(_PATCH) / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrix = np.column_stack([step, start])
    patch = cv2.warpAffine(grey, matrix, _PATCH, flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    return patch - patch.mean()
