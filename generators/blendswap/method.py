"""`blendswap`: the donor's inner face on the base, by classical means. See card.md for what it is and is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import cv2
import numpy as np

from generators import blending, classical
from generators.base import Family, Forged, Job, Method, Params, Rejection
from generators.classical import BROWS, EYES, FACE, MOUTH, NOSE, Box, Points
from mmtt_build import parts
from mmtt_build.masks import Mask
from mmtt_build.parts import LabelMap
from mmtt_build.records import Pristine

SHAPES = ("inner-hull", "brows-to-chin", "t-zone", "below-brows")
"""Outlines of the swapped region, as in Face X-ray and Self-Blended Images: what the convex hull is drawn around."""
_SHAPE_SHARES = (0.35, 0.35, 0.15, 0.15)

MAX_POSE_GAP = 0.2
"""Largest `Pose.gap` after mirroring; the six frontal samples lie within 0.07 of each other."""
_NEEDED = (classical.has_eyes, classical.has_nose, classical.has_lips)
_MIN_COVERED = 0.9
_BEARD = 0.27
"""Share of the skin around the lips that differs once lit alike, from which only one of the two wears a beard.

Of the samples' 30 pairs two shaven faces give 0.07 at most, two bearded ones 0.17 to 0.22, mixed ones 0.31 up."""
# Smoothing of the thin-plate spline: parts land in their place; their own width, openness and shape give way little.
_PLACE, _WIDTH, _OPENNESS, _BROW, _JAW = 0.004, 0.03, 0.15, 0.06, 0.06


class BlendSwap(Method):
    """Swaps the inner face: thin-plate alignment, robust light transfer, Poisson or multi-band seam."""

    name: ClassVar[str] = "blendswap"
    family: ClassVar[Family] = Family.FACE_SWAP
    needs_source: ClassVar[bool] = True

    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params | None:
        """Draws outline, seam and margins; None where a face is incomplete, covered, or too unlike the other."""
        if source is None:
            return None
        here, there = classical.pose(base.points), classical.pose(source.points)
        if here is None or there is None or not classical.skin_alike(base, source):
            return None
        if not all(has(face) for has in _NEEDED for face in (base, source)):
            return None
        mirror, gap = classical.mirror_better(rng, here, there)
        if gap > MAX_POSE_GAP:
            return None
        browed = classical.has_brows(base) and classical.has_brows(source)
        shape = classical.draw_name(rng, SHAPES, _SHAPE_SHARES) if browed else "below-brows"
        wanted = {*EYES, *NOSE, *MOUTH, "skin"} | (set() if shape == "below-brows" else set(BROWS))
        return {
            "parts": [name for i, name in enumerate(parts.CLASSES) if name in wanted and base.part_areas[i]],
            "shape": shape,
            "blend": "poisson" if rng.random() < 0.5 else "multiband",
            "mirror": mirror,
            "margin": round(0.16 + 0.14 * rng.random(), 3),
            "feather": round(0.08 + 0.14 * rng.random(), 3),
            "elastic": round(0.06 * rng.random(), 3),
        }

    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        """Makes one swap per job."""
        return [_swap(job) for job in batch]


def _swap(job: Job) -> Forged | Rejection:
    if job.source_image is None or job.source_labels is None:
        return Rejection("no donor")
    plan, rng = job.params, job.rng()
    donor_image, donor_labels = job.source_image, job.source_labels
    if plan["mirror"]:
        donor_image, donor_labels = classical.mirror(donor_image, donor_labels)
    base_points, donor_points = classical.part_points(job.labels), classical.part_points(donor_labels)
    for whose, points in (("base", base_points), ("donor", donor_points)):
        if not classical.has_all(points, (*EYES, "nose", "lips")):
            return Rejection(f"the {whose} lacks eyes, nose or lips")
    unit = classical.eye_distance(base_points)
    box = classical.box_around(parts.select(job.labels, FACE), pad_px=8)
    brow_top = min(base_points[eye][:, 1].min() for eye in EYES) - 0.9 * unit
    box = replace(box, top=max(box.top, int(brow_top)))  # no outline reaches further up the forehead
    sampling = _align(box, base_points, donor_points, unit)
    scale = classical.local_scale(sampling)
    typical = float(np.median(scale))
    if scale.min() < 0.25 * typical or scale.max() > 4 * typical:
        return Rejection("the faces are turned or shaped too differently to align")

    base_image, base_labels = job.image[box.window], job.labels[box.window]
    seen_image, seen_labels = classical.sample(donor_image, donor_labels, sampling)
    base, donor = base_image.astype(np.float32), seen_image.astype(np.float32)
    above = classical.above_eyes(box, base_points)
    clear = classical.clear_face(base, base_labels, above)
    donor_clear = classical.shrink(classical.clear_face(donor, seen_labels, above), 3)
    allowed = classical.shrink(clear, 2) & donor_clear
    skin = (base_labels == parts.INDEX["skin"]) & (seen_labels == parts.INDEX["skin"]) & clear & donor_clear
    light = blending.compare_light(base, donor, skin)
    if light is None:
        return Rejection("too little skin to match colours")
    donor = blending.relight(donor, seen_labels, light)

    outline = _outline(plan, base_labels, seen_labels, unit, above)
    needed = [(EYES, "eyes"), (NOSE, "nose"), (MOUTH, "lips")]
    lips = parts.select(base_labels, MOUTH) | parts.select(seen_labels, MOUTH)
    beard, share = blending.beard_gap(base, donor, lips, skin, light, unit)
    if share > _BEARD:
        # Half a beard deceives nobody: where only one face wears one, the swap ends under the nose.
        foot = base_points["nose"][2] - (base_points["l_eye"].mean(axis=0) + base_points["r_eye"].mean(axis=0)) / 2
        outline &= classical.above_eyes(box, base_points, -float(np.linalg.norm(foot)))
        noses = parts.select(base_labels, NOSE) | parts.select(seen_labels, NOSE)
        allowed &= noses | ~classical.grow(beard, 3)
        needed.pop()
    support = _settle(classical.ripple(outline, plan["elastic"] * unit, rng) & allowed, base_labels, seen_labels, plan)
    for names, word in needed:
        for whose, labels in (("base", base_labels), ("donor", seen_labels)):
            if classical.covered(labels, names, support) < _MIN_COVERED:
                return Rejection(f"the {whose}'s {word} are partly covered or do not fit the other face")

    donor = blending.match_detail(base, donor, skin & support, rng)
    blended, mask = blending.BLENDS[plan["blend"]](base, donor, support, plan["feather"] * unit)

    image, whole_mask = job.image.copy(), np.zeros(job.labels.shape, np.bool_)
    cv2.copyTo(blending.to_rgb(blended), mask.view(np.uint8), image[box.window])
    whole_mask[box.window] = mask
    return Forged(image, whole_mask)


def _align(box: Box, base: Mapping[str, Points], donor: Mapping[str, Points], unit: float) -> classical.Floats:
    """Map that lands the donor's features and jaw on the base's and leaves their own shapes mostly alone."""
    pairs: list[tuple[Points, Points, float]] = []
    for name in (*EYES, "lips"):
        here, there = base[name], donor[name]
        middles = here[:2].mean(axis=0, keepdims=True), there[:2].mean(axis=0, keepdims=True)
        pairs += [(*middles, _PLACE), (here[:2], there[:2], _WIDTH), (here[2:], there[2:], _OPENNESS)]
    pairs.append((base["nose"], donor["nose"], _WIDTH))
    brows = [name for name in BROWS if name in base and name in donor]
    if len(brows) == 2:
        pairs += [(base[name][2:], donor[name][2:], _BROW) for name in brows]
    seen = np.isfinite(base["chin"]).all(axis=1) & np.isfinite(donor["chin"]).all(axis=1)
    pairs.append((base["chin"][seen], donor["chin"][seen], _JAW))
    return classical.thin_plate_map(
        box,
        np.concatenate([here for here, _, _ in pairs]),
        np.concatenate([there for _, there, _ in pairs]),
        np.concatenate([np.full(len(here), stiffness) for here, _, stiffness in pairs]),
        unit,
    )


def _outline(plan: Params, base: LabelMap, donor: LabelMap, unit: float, above: Mask) -> Mask:
    """The region to swap before it is confined: features of both faces lie inside, so that none appears twice."""
    margin = plan["margin"] * unit

    def both(names: Sequence[str]) -> tuple[Mask, Mask]:
        return parts.select(base, names), parts.select(donor, names)

    if plan["shape"] == "t-zone":
        bar = classical.hull(*both((*EYES, *BROWS)))
        stem = classical.hull(*both((*NOSE, *MOUTH)))
        return classical.grow(bar, 0.6 * margin) | classical.grow(stem, margin)
    if plan["shape"] == "below-brows":
        return classical.grow(classical.hull(*both((*EYES, *NOSE, *MOUTH))), margin)
    inner = classical.grow(classical.hull(*both((*EYES, *BROWS, *NOSE, *MOUTH))), margin)
    if plan["shape"] == "inner-hull":
        return inner
    lower = parts.select(base, FACE) & ~above
    return inner | classical.shrink(classical.hull(lower), 0.5 * margin)


def _settle(support: Mask, base: LabelMap, donor: LabelMap, plan: Mapping[str, Any]) -> Mask:
    """One piece, with the brows wholly inside or, where hair or the outline cuts one, both wholly outside."""
    whole = all(
        classical.covered(labels, (name,), support) > 0.8 and not classical.under_hair(labels, (name,))
        for name in BROWS
        for labels in (base, donor)
    )
    if plan["shape"] == "below-brows" or not whole:
        # A bar over both brows: the forehead above it would be a strip of its own, and falls off with `largest`.
        brows = classical.hull(parts.select(base, BROWS), parts.select(donor, BROWS))
        below = parts.select(base, (*EYES, *NOSE)) | parts.select(donor, (*EYES, *NOSE))
        support = support & ~(classical.grow(brows, 5) & ~classical.grow(below, 4))
    return classical.largest(support)
