"""The facial-part vocabularies and the maps between them.

Three vocabularies meet here: the 19 parsing classes (two orders are in use), the 21 description
labels of MMTT in their official order, and the sides. `l_` and `r_` are the **subject's** left and
right: `l_eye` lies in the right half of the picture. `ear_r` is the earring and `r_ear` the right
ear; `neck_l` is the necklace; `u_lip`/`l_lip` are the upper and the lower lip.

A part map in this project is always a (512, 512) uint8 array of `CLASSES` indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""CelebAMask-HQ's order (also ParseNet, MaskGAN). Later classes lie on top of earlier ones."""

BISENET_CLASSES = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
    "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
"""The order of zllrunning's BiSeNet and facexlib: glasses over eyes, hair and hat on top."""

INDEX = {name: i for i, name in enumerate(CLASSES)}

LABELS = (
    "eye", "pupil", "lip", "mouth", "nose", "ear", "cheek", "forehead", "chin", "jaw", "eyebrow", "tooth",
    "tongue", "beard", "mustache", "skin", "hair", "wrinkle", "freckle", "scar", "dimple",
)  # fmt: skip
"""MMTT's 21 description labels, in the index order of the published `multilabel` vector."""

LABEL_CLASSES: dict[str, tuple[str, ...]] = {
    "eye": ("l_eye", "r_eye"),
    "pupil": ("l_eye", "r_eye"),
    "lip": ("u_lip", "l_lip"),
    "mouth": ("mouth", "u_lip", "l_lip"),
    "nose": ("nose",),
    "ear": ("l_ear", "r_ear"),
    "cheek": ("skin",),
    "forehead": ("skin",),
    "chin": ("skin",),
    "jaw": ("skin",),
    "eyebrow": ("l_brow", "r_brow"),
    "tooth": ("mouth", "u_lip", "l_lip"),
    "tongue": ("mouth", "u_lip", "l_lip"),
    "beard": ("skin", "hair", "u_lip", "l_lip"),
    "mustache": ("skin", "hair", "u_lip", "l_lip"),
    "skin": ("skin",),
    "hair": ("hair",),
    "wrinkle": ("skin",),
    "freckle": ("skin",),
    "scar": ("skin",),
    "dimple": ("skin",),
}
"""Which parsing classes a description label can refer to."""

_MIRROR = {"l_eye": "r_eye", "l_brow": "r_brow", "l_ear": "r_ear"}
MIRRORED = {**{name: name for name in CLASSES}, **_MIRROR, **{right: left for left, right in _MIRROR.items()}}
"""The class that a class becomes in the mirror image."""

_COLOURS = np.array(
    [
        (0, 0, 0), (224, 172, 140), (196, 120, 90), (90, 200, 220), (60, 110, 230), (60, 170, 250), (150, 90, 30),
        (200, 140, 40), (230, 120, 190), (240, 170, 210), (150, 20, 40), (220, 50, 70), (250, 90, 100), (90, 60, 50),
        (120, 120, 40), (250, 230, 60), (190, 190, 190), (170, 190, 120), (70, 80, 110),
    ],
    np.uint8,
)  # fmt: skip
"""RGB per class: relatives look alike, sides can be told apart."""

LabelMap = NDArray[np.uint8]
Mask = NDArray[np.bool_]

TOUCHED_SHARE = 0.02
"""A mask touches a part from this share of the part's pixels on: below it is the seam's width, not the part."""


def side(name: str) -> str:
    """The subject's side of a parsing class: "left", "right" or "" where it has none."""
    if MIRRORED[name] == name:
        return ""
    return "left" if name.startswith("l_") else "right"


def reorder(labels: LabelMap, order: Sequence[str]) -> LabelMap:
    """Rewrites a label map whose values index `order` (e.g. `BISENET_CLASSES`) as indices of `CLASSES`.

    Only the numbering changes; which class lies on top where two overlap was decided by whoever made the map.
    """
    table = np.array([INDEX[name] for name in order], np.uint8)
    return table[labels]


def select(labels: LabelMap, names: Iterable[str]) -> Mask:
    """Pixels of a part map (H, W) uint8 that belong to any of the named classes, as (H, W) bool."""
    table = np.zeros(256, np.uint8)
    table[[INDEX[name] for name in names]] = 1
    return cv2.LUT(labels, table).view(np.bool_)  # a tenth of the time of indexing the table


def coloured(labels: LabelMap) -> NDArray[np.uint8]:
    """A part map (H, W) as a picture to look at, (H, W, 3) uint8 RGB: one colour per class, background black."""
    return _COLOURS[labels]


def areas(labels: LabelMap, mask: Mask | None = None) -> NDArray[np.int64]:
    """Pixel count of each class, (19,), of a part map (H, W) uint8, or of what a mask (H, W) bool covers of it."""
    within = None
    if mask is not None:
        within = mask.view(np.uint8)
        x, y, width, height = cv2.boundingRect(within)
        labels, within = labels[y : y + height, x : x + width], within[y : y + height, x : x + width]
    counts = cv2.calcHist([labels], [0], within, [len(CLASSES)], [0, len(CLASSES)])  # a third of bincount's time
    return counts[:, 0].astype(np.int64)


def touched(labels: LabelMap, mask: Mask) -> list[str]:
    """Classes (background aside) of which the mask covers at least `TOUCHED_SHARE`, in class order."""
    covered = areas(labels, mask)
    covered[INDEX["background"]] = 0
    # Only the few classes under the mask are counted on the whole map: `areas` of it takes three times as long.
    return [CLASSES[i] for i in np.flatnonzero(covered) if covered[i] >= TOUCHED_SHARE * np.count_nonzero(labels == i)]


def label_vector(labels: Iterable[str]) -> list[int]:
    """The 21-vector of 0/1, official order, for description labels given by name."""
    chosen = set(labels)
    if unknown := chosen - set(LABELS):
        raise KeyError(f"unknown description labels {sorted(unknown)}; the 21 are {', '.join(LABELS)}")
    return [int(name in chosen) for name in LABELS]
