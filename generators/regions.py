"""What inpainting networks share: which parts of a face to repaint, the hole they make, and putting the result back.

MMTT's inpainting branch chooses segments of facial components, merges them by program, and composes
I_f = (1 - M) * I + M * I_g (paper, section on generation). Its dilation and its counts per part are not published;
the numbers below are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from generators.classical import FEATURES, Floats, box_around, draw_name, grow, shrink
from mmtt_build import parts
from mmtt_build.masks import Image, Mask
from mmtt_build.parts import LabelMap
from mmtt_build.records import SIZE

WEIGHTS = {
    "l_brow": 4.0, "r_brow": 4.0, "l_eye": 4.0, "r_eye": 4.0, "u_lip": 3.5, "l_lip": 3.5, "nose": 2.5, "mouth": 1.0,
    "l_ear": 0.8, "r_ear": 0.8, "hair": 0.8, "skin": 0.4, "eye_g": 0.8,
}  # fmt: skip
"""Parts that can be repainted and how likely each is drawn first: eyebrows, eyes and lips are MMTT's most frequent."""

TOGETHER = {
    **{name: (parts.MIRRORED[name],) for name in ("l_brow", "r_brow", "l_eye", "r_eye", "l_ear", "r_ear")},
    "u_lip": ("l_lip", "mouth"), "l_lip": ("u_lip", "mouth"), "mouth": ("u_lip", "l_lip"),
}  # fmt: skip
"""Parts that are likelier once another is drawn: both brows rather than one, both lips."""
TOGETHER_FACTOR = 5.0

COUNTS = (0.12, 0.24, 0.22, 0.17, 0.11, 0.06, 0.035, 0.02, 0.012, 0.008, 0.005)
"""Shares of 1, 2, ... 11 parts: 2 to 5 are common, 1 to 11 possible (MMTT)."""

MIN_PART_PX = 100
"""Pixels of a part below which it is not drawn: less is a sliver of the parser, or a part turned away."""
MAX_DRAWN_SHARE = 0.4
"""Largest share of the frame that the drawn parts may take together; long hair alone can be more, and is left alone."""
MAX_SHARE = 0.6
"""Largest share of the frame of a hole: beyond it hardly anything is left that the repainted part could belong to."""
MIN_WIDTH_PX = 8
"""Least width of a hole at its widest: the side of a cell of the latent grids, below which nothing can be painted."""

JOIN_PX = 5
"""Gaps of up to twice this width that growing leaves are closed: brow and eye, the lips, pinholes of the parser."""

RING_PX = 16
"""Width of the ring around the repainted area in which colours are compared."""
_GAIN = (0.8, 1.25)


class Region(NamedTuple):
    """A hole.

    Attributes:
        mask: (512, 512) bool.
        depth: (512, 512) float32, pixels from the outline: about 1 at the rim, 0 outside; the frame is no outline.
    """

    mask: Mask
    depth: Floats


class RegionError(ValueError):
    """The parts make no hole that can be repainted; the message says why."""


def draw(rng: np.random.Generator, part_areas: Sequence[int]) -> tuple[str, ...] | None:
    """Draws the parts of one forgery.

    Args:
        rng: of the row.
        part_areas: pixels of each of the 19 classes at 512x512.

    Returns:
        Names in class order, each of a part that the face has, together at most `MAX_DRAWN_SHARE` of the frame; None
        where the face has no such part.
    """
    room = MAX_DRAWN_SHARE * SIZE * SIZE
    area = {name: part_areas[parts.INDEX[name]] for name in WEIGHTS}
    weights = {name: weight for name, weight in WEIGHTS.items() if MIN_PART_PX <= area[name] <= room}
    if not weights:
        return None
    wanted = 1 + int(np.searchsorted(np.cumsum(COUNTS), rng.random() * sum(COUNTS), side="right"))
    chosen: list[str] = []
    while weights and len(chosen) < wanted:
        name = draw_name(rng, list(weights), list(weights.values()))
        chosen.append(name)
        room -= area[name]
        del weights[name]
        weights = {
            other: weight * (TOGETHER_FACTOR if other in TOGETHER.get(name, ()) else 1.0)
            for other, weight in weights.items()
            if area[other] <= room
        }
    return tuple(name for name in parts.CLASSES if name in chosen)


def region(labels: LabelMap, names: Sequence[str], grow_px: float) -> Region:
    """The hole of some parts: their segments joined and grown, without the features that nobody chose.

    Args:
        labels: (512, 512) uint8 part map.
        names: parsing classes.
        grow_px: by how much the hole exceeds the segments, in pixels at 512x512.

    Raises:
        RegionError: a part is not in the map, or the hole would be too thin or too large.
    """
    if not names:
        raise RegionError("empty mask: no part was chosen")
    chosen = parts.select(labels, names)
    window = box_around(chosen, math.ceil(grow_px) + JOIN_PX + 1).window
    there = parts.areas(labels[window])
    for name in names:
        if not there[parts.INDEX[name]]:
            raise RegionError(f"empty mask: the part map has no {name}")
    return hole(chosen, parts.select(labels, [name for name in FEATURES if name not in names]), grow_px)


def hole(chosen: Mask, kept: Mask, grow_px: float, most: float = MAX_SHARE) -> Region:
    """A hole around chosen pixels (H, W) bool: joined and grown, without those to be kept (H, W) bool.

    Args:
        chosen: pixels of the parts.
        kept: pixels of others.
        grow_px: by how much the hole exceeds the parts.
        most: largest share of the frame.

    Raises:
        RegionError: as `checked`.
    """
    window = box_around(chosen, math.ceil(grow_px) + JOIN_PX + 1).window
    mask = np.zeros_like(chosen)
    mask[window] = shrink(grow(chosen[window], grow_px + JOIN_PX), JOIN_PX) & ~kept[window]
    return checked(mask, most)


def checked(mask: Mask, most: float = MAX_SHARE) -> Region:
    """A hole of any making (512, 512) bool, measured.

    Raises:
        RegionError: it is empty, nowhere `MIN_WIDTH_PX` wide, or more than `most` of the frame.
    """
    if not mask.any():
        raise RegionError("empty mask")
    window = box_around(mask, 1).window
    depth = np.zeros(mask.shape, np.float32)
    depth[window] = cv2.distanceTransform(mask[window].view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if (width := 2 * float(depth.max()) - 1) < MIN_WIDTH_PX:
        raise RegionError(f"mask is {width:.0f} px wide at its widest, at least {MIN_WIDTH_PX}")
    if (share := np.count_nonzero(mask) / mask.size) > most:
        raise RegionError(f"mask is {share:.0%} of the frame, at most {most:.0%}")
    return Region(mask, depth)


def grown(mask: Mask, radius_px: int) -> Mask:
    """A mask (H, W) bool grown by a radius, worked out around it only: a fifth of the time for a small one."""
    window = box_around(mask, radius_px + 1).window
    out = np.zeros_like(mask)
    out[window] = grow(mask[window], radius_px)
    return out


def match_colour(base: Image, generated: Image, repainted: Mask) -> Image:
    """Takes a network's drift of colour back: matches mean and spread in a ring around what it repainted.

    The ring shows the same scene in both pictures, so that what differs there is the network's doing. The gain of the
    spread is held between 0.8 and 1.25.

    Args:
        base: (H, W, 3) uint8 RGB, what the network was given.
        generated: (H, W, 3) uint8 RGB, what it made of the whole frame.
        repainted: (H, W) bool, where it was asked to paint.

    Returns:
        (H, W, 3) uint8 RGB; `generated` itself where there is no ring.
    """
    ring = (grown(repainted, RING_PX) & ~repainted).view(np.uint8)
    if not ring.any():
        return generated
    (mean, spread), (made_mean, made_spread) = (cv2.meanStdDev(image, mask=ring) for image in (base, generated))
    gain = np.clip(spread / np.maximum(made_spread, 1e-3), *_GAIN)
    shift = mean - gain * made_mean
    levels = np.arange(256, dtype=np.float64)
    table = np.clip(np.rint(levels * gain + shift), 0, 255).astype(np.uint8)  # (3, 256)
    return cv2.LUT(generated, np.ascontiguousarray(table.T[None]))


def composite(base: Image, generated: Image, hole: Region, feather_px: float) -> Image:
    """Puts a hole's new content into the base; the seam lies inside the hole, and outside it no bit changes.

    Args:
        base: (H, W, 3) uint8 RGB.
        generated: (H, W, 3) uint8 RGB.
        hole: where.
        feather_px: width inside the hole over which the new content comes in; 0 is a hard edge.

    Returns:
        (H, W, 3) uint8 RGB. Every masked pixel holds some of `generated`, every other the base's.
    """
    window = box_around(hole.mask, 0).window
    alpha = np.minimum(hole.depth[window] / max(feather_px, 1.0), 1.0)[..., None]
    out = base.copy()
    old = base[window].astype(np.float32)
    out[window] = np.rint(old + alpha * (generated[window] - old)).astype(np.uint8)
    return out
