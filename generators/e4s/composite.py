"""How E4S brings the generated face into the target: which pixels, with which weight, by which blending.

Region maps are (512, 512) uint8; pictures are (1024, 1024, 3) uint8 RGB, the generated one and the target it belongs
to. Lengths are E4S's, whose command line ignores the options for them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from generators.classical import Floats
from generators.e4s import regions
from mmtt_build.masks import Image, Mask, to_grey
from mmtt_build.parts import LabelMap

KEPT = ("background", "hair", "earrings")
"""Regions in which the target stays; neck, ears and glasses are generated anew along with the face."""

LEVELS = 10
"""Of the multi-band blend, 1024 px to 2 px."""

_SQUARE = np.ones((11, 11), np.uint8)


def foreground(swapped: LabelMap) -> Mask:
    """Pixels of a swapped region map that are pasted, (512, 512) bool."""
    return ~regions.select(swapped, KEPT)


def alpha(swapped: LabelMap) -> Image:
    """How much of the generated picture to take, (1024, 1024) uint8, 255 is all.

    All of it on the foreground, but for a rim of a pixel; half about 4 px outside, nothing from 11 px outside on.
    """
    grown = cv2.dilate(to_grey(foreground(swapped)), _SQUARE)
    inside = to_grey(_doubled(grown) == 255)
    return np.asarray(cv2.GaussianBlur(cv2.erode(inside, _SQUARE), _SQUARE.shape, 0), np.uint8)


def blend_alpha(generated: Image, target: Image, weight: Image) -> Image:
    """The generated picture over the target, with the arithmetic of Pillow's `alpha_composite`.

    Args:
        generated: (H, W, 3) uint8 RGB.
        target: likewise.
        weight: (H, W) uint8, 255 is all of the generated picture.

    Returns:
        (H, W, 3) uint8 RGB, the target bit for bit where the weight is 0. From 1 on a weight can move a value.
    """
    over = PillowImage.fromarray(np.dstack([generated, weight]))
    under = PillowImage.fromarray(target).convert("RGBA")
    return np.array(PillowImage.alpha_composite(under, over).convert("RGB"))


def despeckled(swapped: LabelMap) -> LabelMap:
    """A region map without specks of hair or background inside the face.

    Drawn maps have them where two parts do not quite meet. The generator would paint each in the hair's or background's
    style, and `blend_multiband` show the target there: moles.
    """
    return regions.without_specks(swapped, KEPT, "skin")


def blend_multiband(generated: Image, target: Image, swapped: LabelMap) -> Image:
    """E4S's other blending: a ring around the foreground's edge is filled from the target, band by band.

    Colours meet over the whole face, texture in the ring. The coarse bands reach everywhere: 98 % of all pixels come
    out changed, outside `alpha` by 1 to 3 levels on average. So E4S's own picture has no mask. Brought into the target
    with that alpha (`crop.put_back`), where it is close to the target already, it changes no pixel that the default
    blending leaves alone.

    Args:
        generated: (1024, 1024, 3) uint8 RGB.
        target: likewise.
        swapped: (512, 512) uint8.

    Returns:
        (1024, 1024, 3) uint8 RGB.
    """
    face = foreground(swapped).view(np.uint8)
    ring = _doubled((cv2.dilate(face, _SQUARE) - cv2.erode(face, _SQUARE)).astype(np.float32))
    inside = _doubled(face.astype(np.float32))[..., None]
    pasted = (generated * inside + target * (1 - inside)).astype(np.uint8)
    weights = [weight[..., None] for weight in _pyramid(ring)]
    mixed = [
        theirs * weight + ours * (1 - weight)
        for theirs, ours, weight in zip(_bands(target), _bands(pasted), weights, strict=True)
    ]
    result = mixed.pop()
    while mixed:
        result = cv2.pyrUp(result) + mixed.pop()
    return np.clip(result, 0, 255).astype(np.uint8)


def _bands(picture: Image) -> list[Floats]:
    """Laplacian pyramid, float32, finest first. Levels are rounded to 8 bits before their differences are taken."""
    levels = [np.asarray(level, np.float32) for level in _pyramid(picture)]
    return [fine - cv2.pyrUp(coarse) for fine, coarse in pairwise(levels)] + levels[-1:]


def _pyramid(picture: NDArray[Any]) -> list[NDArray[Any]]:
    levels = [picture]
    while len(levels) < LEVELS:
        levels.append(cv2.pyrDown(levels[-1]))
    return levels


def _doubled(picture: NDArray[Any]) -> NDArray[Any]:
    return cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
