"""`splice`: single features of a donor on the base, by classical means. See card.md for what it is and is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from generators import blending, classical
from generators.base import Family, Forged, Job, Method, Params, Rejection
from generators.classical import BROWS, EYES, FACE, FEATURES, MOUTH, NOSE, Points
from mmtt_build import parts
from mmtt_build.masks import Image, Mask
from mmtt_build.parts import LabelMap
from mmtt_build.records import Pristine

PATCHES: dict[str, tuple[str, ...]] = {
    "r_brow": ("r_brow",), "l_brow": ("l_brow",), "r_eye": ("r_eye",), "l_eye": ("l_eye",), "nose": NOSE, "lips": MOUTH,
}  # fmt: skip
"""What a donor can lend, in the order in which patches are laid, and the parsing classes of each."""

_SHARES = {"brows": 1.0, "eyes": 1.0, "lips": 1.0, "nose": 0.4}
"""How often each feature is drawn, relative to the others: MMTT's annotators met brows, eyes and lips most."""
_COUNT_SHARES = (0.2, 0.5, 0.3)
"""One, two or three features: two to five parsing classes in most images, as in MMTT."""
_ONE_SIDE = 0.2
"""Share of brows and eyes that are replaced on one side only."""
MAX_POSE_GAP = 0.22
_MAX_STEPS = {"brow": 45, "eye": 45, "nose": 34, "lips": 45}
"""Largest step along a patch's edge, in grey levels: above it a beard, a shadow or a strand crosses the seam.

On the samples shaven lips meet at 10 to 29, shaven and bearded ones at 58 to 129, noses with a hard shadow at 38 up."""
_MIN_COVERED = 0.9
_MARGINS = {"brow": 0.8, "eye": 1.0, "nose": 0.8, "lips": 0.9}
"""Surround that comes with a part (lid crease, nostril wings), in units of the drawn margin."""


class Splice(Method):
    """Replaces one to three features, each aligned on itself, relit and blended with a margin of its own skin."""

    name: ClassVar[str] = "splice"
    family: ClassVar[Family] = Family.FACE_SWAP
    needs_source: ClassVar[bool] = True

    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params | None:
        """Draws the features, the seam and the margins; None where the two faces share no usable feature."""
        if source is None:
            return None
        here, there = classical.pose(base.points), classical.pose(source.points)
        if here is None or there is None or not classical.skin_alike(base, source):
            return None
        mirror, gap = classical.mirror_better(rng, here, there)
        if gap > MAX_POSE_GAP:
            return None
        usable = [name for name, has in _HAS.items() if has(base) and has(source)]
        if not usable:
            return None
        patches = {patch for feature in _draw_features(rng, usable) for patch in _sides(rng, feature)}
        classes = [name for patch in patches for name in PATCHES[patch] if base.part_areas[parts.INDEX[name]]]
        return {
            "parts": sorted(classes, key=parts.INDEX.__getitem__),
            "patches": [name for name in PATCHES if name in patches],
            "blend": "poisson" if rng.random() < 0.5 else "multiband",
            "mirror": mirror,
            "margin": round(0.12 + 0.06 * rng.random(), 3),
            "feather": round(0.04 + 0.03 * rng.random(), 3),
        }

    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        """Splices one face per job; a patch that would not fit is left out, and without any the job is rejected."""
        return [_splice(job) for job in batch]


_HAS = {
    "brows": classical.has_brows,
    "eyes": classical.has_eyes,
    "lips": classical.has_lips,
    "nose": classical.has_nose,
}


def _draw_features(rng: np.random.Generator, usable: list[str]) -> list[str]:
    count = int(classical.draw_name(rng, "123", _COUNT_SHARES))
    left = list(usable)
    drawn: list[str] = []
    while left and len(drawn) < count:
        drawn.append(classical.draw_name(rng, left, [_SHARES[name] for name in left]))
        left.remove(drawn[-1])
    return drawn


def _sides(rng: np.random.Generator, feature: str) -> tuple[str, ...]:
    if feature not in ("brows", "eyes"):
        return (feature,)
    both = BROWS if feature == "brows" else EYES
    return both if rng.random() >= _ONE_SIDE else (both[int(rng.random() < 0.5)],)


@dataclass(frozen=True, slots=True)
class _Face:
    """A face ready to lend or to take.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) part map, blanked (background) where something covers the face.
        hidden: brows that hair cuts off.
        points: control points of the parts.
    """

    image: Image
    labels: LabelMap
    hidden: frozenset[str]
    points: dict[str, Points]


def _face(image: Image, labels: LabelMap) -> _Face | str:
    points = classical.part_points(labels)
    if not classical.has_all(points, EYES):
        return "lacks an eye"
    box = classical.box_around(parts.select(labels, FACE), pad_px=8)
    clear = classical.clear_face(
        image[box.window].astype(np.float32), labels[box.window], classical.above_eyes(box, points)
    )
    open_labels = np.zeros_like(labels)
    open_labels[box.window] = np.where(clear, labels[box.window], 0)
    hidden = frozenset(name for name in BROWS if classical.under_hair(labels[box.window], (name,)))
    return _Face(image, open_labels, hidden, points)


def _splice(job: Job) -> Forged | Rejection:
    if job.source_image is None or job.source_labels is None:
        return Rejection("no donor")
    plan, rng = job.params, job.rng()
    lent = (job.source_image, job.source_labels)
    base, donor = _face(job.image, job.labels), _face(*(classical.mirror(*lent) if plan["mirror"] else lent))
    if isinstance(base, str) or isinstance(donor, str):
        return Rejection(f"the base {base}" if isinstance(base, str) else f"the donor {donor}")
    image, mask = job.image.copy(), np.zeros(job.labels.shape, np.bool_)
    left_out = []
    for pair in (BROWS, EYES, NOSE, ("lips",)):
        before = image.copy(), mask.copy()
        for name in pair:
            if name in plan["patches"] and (reason := _lay(name, base, donor, plan, rng, image, mask)):
                left_out.append(f"{name} {reason}")
                image, mask = before  # two brows or eyes of different persons look it: both or none
                break
    if not mask.any():
        return Rejection("no patch fits: " + "; ".join(left_out))
    return Forged(image, mask)


def _lay(name: str, base: _Face, donor: _Face, plan: Params, rng: np.random.Generator, image: Image, mask: Mask) -> str:
    """Lays one patch onto `image` and adds what it changed to `mask`; returns why not, or an empty string."""
    if name not in base.points or name not in donor.points:
        return "is missing"
    if name in base.hidden | donor.hidden:
        return "is under hair"
    unit = classical.eye_distance(base.points)
    there = classical.similarity(_anchors(name, base), _anchors(name, donor))
    usual = classical.eye_distance(donor.points) / unit
    scale, turn = np.hypot(there[0, 0], there[1, 0]) / usual, np.degrees(np.arctan2(there[1, 0], there[0, 0]))
    if not (0.7 < scale < 1.4 and abs(turn) < 20):
        return "differs too much in size or tilt"

    classes = PATCHES[name]
    kind = name.split("_")[-1]
    margin = _MARGINS[kind] * plan["margin"] * unit
    box = classical.box_around(parts.select(base.labels, classes), pad_px=round(2 * margin) + 12)
    seen_image, seen_labels = classical.sample(donor.image, donor.labels, classical.similarity_map(box, there))
    here_labels = base.labels[box.window]
    here, seen = image[box.window].astype(np.float32), seen_image.astype(np.float32)
    support = _support(classes, here_labels, seen_labels, margin)
    if min(classical.covered(labels, classes, support) for labels in (here_labels, seen_labels)) < _MIN_COVERED:
        return "is covered or does not fit"

    skin = (here_labels == parts.INDEX["skin"]) & (seen_labels == parts.INDEX["skin"])
    light = blending.compare_light(here, seen, skin)
    if light is None:
        return "has too little skin around"
    seen = blending.relight(seen, seen_labels, light)
    if (step := blending.seam_error(here, seen, support)) > _MAX_STEPS[kind]:
        return f"meets the skin at a step of {step:.0f} grey levels"
    seen = blending.match_detail(here, seen, skin, rng)
    blended, changed = blending.BLENDS[plan["blend"]](here, seen, support, plan["feather"] * unit)
    cv2.copyTo(blending.to_rgb(blended), changed.view(np.uint8), image[box.window])
    mask[box.window] |= changed
    return ""


def _anchors(name: str, face: _Face) -> Points:
    """The points of one part that say where it lies, how large and how tilted it is."""
    points = face.points[name]
    if name == "nose":  # the wings alone say nothing about its length
        return np.vstack([points, (face.points["l_eye"].mean(axis=0) + face.points["r_eye"].mean(axis=0)) / 2])
    if name in BROWS:
        return points
    # Ends and the middle between top and bottom: an open mouth or a narrowed eye keeps its openness.
    return np.vstack([points[:2], points[2:].mean(axis=0)])


def _support(classes: Sequence[str], base: LabelMap, donor: LabelMap, margin_px: float) -> Mask:
    """The part of both faces with its surround, clear of the features that stay and of all that covers either face."""
    others = [name for name in FEATURES if name not in classes]
    part = parts.select(base, classes) | parts.select(donor, classes)
    stay = parts.select(base, others) | parts.select(donor, others)
    open_skin = parts.select(base, FACE) & parts.select(donor, FACE)
    around = classical.grow(classical.hull(part), margin_px)
    return classical.largest(around & classical.shrink(open_skin, 2) & ~(classical.grow(stay, 4) & ~part))
