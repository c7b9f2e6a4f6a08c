"""E4S's twelve regions, and the two swaps: of the style of regions, and of their shapes.

A region map is a (512, 512) uint8 array of indices of `REGIONS`; sides are not told apart. "Donor" is the face as the
swap takes it over: the source, moved into the target's pose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mmtt_build.masks import Mask
from mmtt_build.parts import LabelMap

if TYPE_CHECKING:
    from torch import Tensor

Vectors = TypeVar("Vectors", NDArray[np.float32], "Tensor")

REGION_CLASSES: dict[str, tuple[str, ...]] = {
    "background": ("background", "hat", "neck_l", "cloth"),
    "lips": ("u_lip", "l_lip"),
    "brows": ("l_brow", "r_brow"),
    "eyes": ("l_eye", "r_eye"),
    "hair": ("hair",),
    "nose": ("nose",),
    "skin": ("skin",),
    "ears": ("l_ear", "r_ear"),
    "neck": ("neck",),
    "mouth": ("mouth",),
    "glasses": ("eye_g",),
    "earrings": ("ear_r",),
}
"""Which of the 19 parsing classes make up a region."""

REGIONS = tuple(REGION_CLASSES)
"""The regions in E4S's order."""

INDEX = {name: i for i, name in enumerate(REGIONS)}

INNER = ("lips", "brows", "eyes", "nose", "skin", "mouth")
"""Regions of which the swap takes the donor's shape."""
RESTYLED = (*INNER, "ears", "neck")
"""Regions of which the swap takes the donor's style; the others keep the target's."""

SPECK_PX = 30
"""Pixels at 512x512: islands that are no larger are a parser's, not a face's."""

_UNPAINTED = 255


def twelve(labels: LabelMap, order: Sequence[str]) -> LabelMap:
    """The region map of a part map.

    Args:
        labels: uint8 of any shape, indices of `order`.
        order: names of the classes, `parts.CLASSES` or `parts.BISENET_CLASSES`.
    """
    region_of = {name: INDEX[region] for region, names in REGION_CLASSES.items() for name in names}
    return np.array([region_of[name] for name in order], np.uint8)[labels]


def select(labels: LabelMap, names: Sequence[str]) -> Mask:
    """Pixels of a region map that belong to any of the named regions, bool of the same shape."""
    table = np.zeros(256, np.bool_)
    table[[INDEX[name] for name in names]] = True
    return np.asarray(table[labels], np.bool_)


def without_specks(labels: LabelMap, names: Sequence[str], fill: str) -> LabelMap:
    """A region map (H, W) uint8 in which islands of the named regions of at most `SPECK_PX` belong to another one."""
    _, island, facts, _ = cv2.connectedComponentsWithStats(select(labels, names).view(np.uint8))
    speck = facts[:, cv2.CC_STAT_AREA] <= SPECK_PX
    speck[0] = False  # all that is none of them
    return np.where(speck[island], np.uint8(INDEX[fill]), labels)


def swap_styles(donor: Vectors, target: Vectors, mix_neck: bool = False) -> Vectors:
    """The target's style vectors with the donor's for the regions of `RESTYLED`.

    A region that the donor's map lacks has a vector of zeros. For ears that is averaged with the target's, which halves
    the target's vector, as the network was published; for the inside of the mouth the target's is taken.

    Args:
        donor: (..., 12, n) float, an array or a tensor.
        target: likewise.
        mix_neck: average the vectors of the neck instead of taking the donor's.
    """
    swapped = target * 1  # a copy, of an array as of a tensor
    restyled = [INDEX[name] for name in RESTYLED]
    swapped[..., restyled, :] = donor[..., restyled, :]
    ears, neck, mouth = INDEX["ears"], INDEX["neck"], INDEX["mouth"]
    no_ears, no_mouth = ((donor[..., region, :] == 0).all(-1) for region in (ears, mouth))
    mean = (donor + target) / 2
    swapped[..., ears, :][no_ears] = mean[..., ears, :][no_ears]
    swapped[..., mouth, :][no_mouth] = target[..., mouth, :][no_mouth]
    if mix_neck:
        swapped[..., neck, :] = mean[..., neck, :]
    return swapped


def swap_masks(donor: LabelMap, target: LabelMap, hair_first: bool = True) -> tuple[LabelMap, Mask]:
    """The target's region map with the inner face in the donor's shape.

    Background, hair, ears, neck, earrings and glasses are the target's: the donor's face cannot grow into the target's
    background.

    Args:
        donor: (H, W) uint8.
        target: likewise.
        hair_first: the donor's face lies over the target's hair; otherwise under it, which keeps a fringe.

    Returns:
        The map (H, W) uint8 that is generated, and its holes (H, W) bool: where the target's inner face was and the
        donor's does not reach. They are skin.
    """
    under = ("neck", "ears", "earrings", "hair") if hair_first else ("neck", "ears", "earrings")
    over = ("background", "glasses") if hair_first else ("background", "glasses", "hair")
    swapped = np.where(select(target, under), target, np.uint8(_UNPAINTED))
    swapped = np.where(select(donor, INNER), donor, swapped)
    swapped = np.where(select(target, over), target, swapped)
    hole = swapped == _UNPAINTED
    swapped[hole] = INDEX["skin"]
    return swapped, hole
