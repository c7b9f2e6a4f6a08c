"""`patchfill`: facial parts and patches of skin removed, or replaced by the other side of the face.

A forgery fills one or more regions. A region is a part of the part map, an end of a brow, or a patch of skin that
hangs on a landmark. It is healed with other skin of the same face (the part is gone, or the wrinkle, the mole,
the shadow), or overwritten with its mirror image from the other side. The mask is the hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from generators.base import Family, Forged, Job, Method, Params, Rejection
from generators.components import (
    FACE,
    MIN_AREA,
    MOUTH,
    Face,
    NoFaceError,
    find_face,
    has_face,
    has_glasses,
    select,
    side,
)
from generators.patchfill.heal import CELL, Floats, NoSkinError, Region, fit, heal, surroundings
from mmtt_build import masks
from mmtt_build.masks import Image
from mmtt_build.parts import INDEX, MIRRORED, LabelMap
from mmtt_build.records import SIZE, Pristine


@dataclass(frozen=True, slots=True)
class Patch:
    """An ellipse on the face that hangs on a landmark.

    Attributes:
        landmark: a key of `Face.points`.
        out: of the centre, in eye distances outwards from the landmark.
        down: of the centre, in eye distances down from the landmark.
        radii: across and down, in eye distances.
        classes: parsing classes it may cover.
        parts: parsing classes it is about.
    """

    landmark: str
    out: float
    down: float
    radii: tuple[float, float]
    classes: tuple[str, ...] = ("skin",)
    parts: tuple[str, ...] = ("skin",)


def _sides(name: str, landmark: str, out: float, down: float, radii: tuple[float, float]) -> dict[str, Patch]:
    return {f"{s}_{name}": Patch(f"{s}_{landmark}", out, down, radii) for s in ("l", "r")}


SKIN = {
    **_sides("cheek", "eye", 0.04, 0.62, (0.27, 0.24)),
    **_sides("under_eye", "eye", 0.0, 0.28, (0.30, 0.14)),
    **_sides("smile_line", "mouth", 0.12, -0.24, (0.15, 0.26)),
    **_sides("jaw", "jaw", -0.24, 0.05, (0.18, 0.30)),
    "forehead": Patch("middle", 0.0, -0.70, (0.42, 0.20)),
    "glabella": Patch("middle", 0.0, -0.30, (0.17, 0.20), ("skin", "nose")),
    "upper_lip": Patch("nose_tip", 0.0, 0.26, (0.36, 0.14)),
    "chin": Patch("chin", 0.0, -0.30, (0.28, 0.15)),
    "nose_bridge": Patch("middle", 0.0, 0.28, (0.14, 0.24), ("skin", "nose"), ("nose",)),
    "nose_tip": Patch("nose_tip", 0.0, -0.15, (0.18, 0.15), ("skin", "nose"), ("nose",)),
}
"""Patches that can be healed."""

PARTS = {
    "l_brow": ("l_brow",),
    "r_brow": ("r_brow",),
    "l_eye": ("l_eye",),
    "r_eye": ("r_eye",),
    "mouth": MOUTH,
}
"""Component segments that can be removed whole."""

REMOVED_WITH = {
    **{f"{s}_eye": Patch(f"{s}_eye", 0.0, -0.02, (0.30, 0.15)) for s in "lr"},
    "mouth": Patch("mouth", 0.0, 0.06, (0.42, 0.20)),
}
"""What goes with a removed part: lids and lashes, the shadow of the lower lip."""

BROW_TAILS = {"l_brow_tail": "l_brow", "r_brow_tail": "r_brow"}
"""Outer ends of brows that can be removed, and whose they are."""
TAIL = 0.06
"""Where a brow is cut, in eye distances outwards from its middle; aslant, so that what is left ends in a point."""

MIRROR = {
    **{f"{s}_eye": Patch(f"{s}_eye", 0.0, -0.02, (0.36, 0.20), FACE, (f"{s}_eye",)) for s in "lr"},
    **{f"{s}_brow": Patch(f"{s}_brow", 0.0, -0.03, (0.30, 0.10), FACE, (f"{s}_brow",)) for s in "lr"},
    **{
        f"{s}_eye_and_brow": Patch(f"{s}_eye", 0.02, -0.14, (0.44, 0.36), FACE, (f"{s}_eye", f"{s}_brow")) for s in "lr"
    },
}
"""Patches that can be overwritten with their mirror image."""

MODES = {
    "remove": (
        {"l_brow": 4, "r_brow": 4, "l_eye": 1, "r_eye": 1, "mouth": 1},
        (0.40, 0.80, 0.92, 0.98, 1.0),
    ),
    "shorten": (dict.fromkeys(BROW_TAILS, 1), (0.5, 1.0)),
    "smooth": (dict.fromkeys(SKIN, 1), (0.20, 0.50, 0.75, 0.90, 1.0)),
    "mirror": (dict.fromkeys(MIRROR, 1), (1.0,)),
}
"""What can be done: regions with how often each is drawn, and cumulative shares of 1, 2, ... regions."""

MODE_SHARES = (("remove", 0.32), ("shorten", 0.42), ("smooth", 0.72), ("mirror", 1.0))
"""Cumulative shares of the modes."""

FILLS = (("heal", 0.6), ("telea", 0.8), ("navier-stokes", 1.0))
"""Cumulative shares of what fills the hole of a removed or shortened part: our healing, or OpenCV's inpainting (Telea
2004, Bertalmio et al. 2001) with the grain of the healed skin on it, since what it interpolates has none. Patches
of skin are always healed: the library darkens them with whatever hair or shadow is near."""
_INPAINT = {"telea": cv2.INPAINT_TELEA, "navier-stokes": cv2.INPAINT_NS}
INPAINT_RADIUS_PX = 5
CLEARED_PX = 30
"""Around a hole, everything but skin is inpainted away with it, this far."""
GRAIN_SIGMA_PX = 4.0
"""What is finer than this is grain, and comes from the healed skin."""

GROW_PX = (6, 10)
"""Range of the number of pixels by which a removed part's hole exceeds the part."""
FEATHER_PX = (4, 6)
"""Range of the width inside the hole over which the fill comes in. Below `GROW_PX`, so that the part is gone."""
MIN_HOLE_PX = 350
"""Smallest hole per region: below it there was no room for the region."""
MAX_UNCOVERED = 0.06
"""Share of a part, here or on the other side, that may lie under hair before it is not mirrored."""
MAX_TURN = 0.22
"""Distance of the nose from the face's axis, in eye distances, from which a face is turned too far to be mirrored."""


class PatchFill(Method):
    """Parts and patches of a face healed over, or mirrored from the other side."""

    name = "patchfill"
    family = Family.INPAINT_CLASSICAL

    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params | None:
        """Draws a mode, its regions, and how far the hole exceeds the part."""
        if not has_face(base):
            return None
        mode_draw, count_draw, fill_draw, grow, feather, *draws = rng.random(5 + len(SKIN)).tolist()
        mode = next(name for name, share in MODE_SHARES if mode_draw < share)
        weights, counts = MODES[mode]
        lacking = _lacking(base)
        # Weighted draw without replacement (Efraimidis and Spirakis 2006): the largest u^(1/weight) win.
        keyed = [
            (draw ** (1 / weight), name)
            for draw, (name, weight) in zip(draws, weights.items(), strict=False)
            if lacking.isdisjoint(_about(mode, name))
        ]
        if not keyed:
            return None
        count = 1 + sum(count_draw >= share for share in counts[:-1])
        regions = sorted(name for _, name in sorted(keyed, reverse=True)[:count])
        parts = {part for name in regions for part in _about(mode, name) if base.area(INDEX[part])}
        fill = {"mirror": "mirror", "smooth": "heal"}.get(mode) or next(n for n, share in FILLS if fill_draw < share)
        return {
            "mode": mode,
            "fill": fill,
            "regions": regions,
            "parts": sorted(parts, key=INDEX.__getitem__),
            "grow_px": _within(GROW_PX, grow),
            "feather_px": _within(FEATHER_PX, feather),
        }

    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        """Fills the planned regions of each job's image."""
        return [_forge(job) for job in batch]


def _within(bounds: tuple[int, int], draw: float) -> int:
    return bounds[0] + int(draw * (bounds[1] - bounds[0] + 1))


def _lacking(base: Pristine) -> set[str]:
    """Parsing classes that this face cannot offer."""
    lacking = {name for name in ("l_brow", "r_brow") if base.area(INDEX[name]) < MIN_AREA[name]}
    return lacking | {"l_eye", "r_eye", "l_brow", "r_brow"} if has_glasses(base) else lacking


def _about(mode: str, region: str) -> tuple[str, ...]:
    """Parsing classes that a region is about."""
    if mode == "remove":
        return PARTS[region]
    if mode == "shorten":
        return (BROW_TAILS[region],)
    return (SKIN if mode == "smooth" else MIRROR)[region].parts


def _forge(job: Job) -> Forged | Rejection:
    mode, regions = job.params["mode"], job.params["regions"]
    try:
        face = find_face(job.labels)
        rng = job.rng()
        planned = {part for name in regions for part in _about(mode, name)}
        holes = [_hole(face, job.labels, mode, name, planned, job.params["grow_px"], rng) for name in regions]
        for name, hole in zip(regions, holes, strict=True):
            if cv2.countNonZero(hole) < MIN_HOLE_PX:
                return Rejection(f"no room for {name}")
        image = job.image.astype(np.float32)
        if mode == "mirror":
            filled, mask = _mirror(image, face, job.labels, regions[0], holes[0])
        else:
            mask = np.bitwise_or.reduce(holes)
            filled = _heal_all(job.image, job.labels, mask)
            if job.params["fill"] in _INPAINT:
                filled = _inpaint(job.image, job.labels, mask, filled, _INPAINT[job.params["fill"]])
    except (NoFaceError, NoSkinError) as error:
        return Rejection(str(error))
    alpha = np.clip(cv2.distanceTransform(mask, cv2.DIST_L2, 5) / job.params["feather_px"], 0, 1)[..., None]
    blended = np.rint(image + alpha * (filled - image)).astype(np.uint8)
    return Forged(masks.composite(job.image, blended, mask.view(np.bool_)), mask.view(np.bool_))


def _hole(
    face: Face, labels: LabelMap, mode: str, name: str, planned: set[str], grow_px: int, rng: np.random.Generator
) -> Region:
    """The hole of one region, (512, 512) of 0 and 1. It keeps off the parts that no region of the forgery is about."""
    if mode in ("smooth", "mirror"):
        patch = (SKIN if mode == "smooth" else MIRROR)[name]
        allowed = _shrunk(select(labels, patch.classes), 2)
        return _largest(_ellipse(face, patch, rng) & allowed)
    part = select(labels, _about(mode, name))
    if name in REMOVED_WITH:
        part |= _ellipse(face, REMOVED_WITH[name], rng)
    if mode == "shorten":
        y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
        across, down = face.frame(x, y, face.points[BROW_TAILS[name]])
        part &= (across * side(name) - down > TAIL * face.unit).view(np.uint8)
    open_to_it = {"skin", "nose", *planned}
    others = select(labels, [c for c in FACE if c not in open_to_it])
    reachable = select(labels, open_to_it) & ~_grown(others, 3)
    return _largest(_grown(part, grow_px) & reachable)


def _largest(region: Region) -> Region:
    """The largest connected piece; slivers beyond a lock of hair or an eyelid have no skin to be joined to."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(region, connectivity=8)
    if len(stats) <= 2:
        return region
    return (pieces == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).view(np.uint8)


def _ellipse(face: Face, patch: Patch, rng: np.random.Generator) -> Region:
    """A patch whose rim wavers a little, as a hand draws it."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    phases, sizes = rng.uniform(0, 2 * np.pi, 3), rng.uniform(0, 0.06, 3)
    radius = 1 + sum(s * np.sin((k + 2) * angle + p) for k, (s, p) in enumerate(zip(sizes, phases, strict=True)))
    centre = face.at(patch.landmark, patch.out, patch.down)
    across = (radius * np.cos(angle) * patch.radii[0] * face.unit)[:, None] * face.across
    down = (radius * np.sin(angle) * patch.radii[1] * face.unit)[:, None] * face.down
    region = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(region, [np.rint(centre + across + down).astype(np.int32)], (1,))
    return region


def _heal_all(image: Image, labels: LabelMap, holes: Region) -> Floats:
    """Heals holes with the skin of the same face."""
    skin, nose = select(labels, ("skin",)), select(labels, ("nose",))
    features = select(labels, tuple(c for c in FACE if c not in ("skin", "nose"))) & ~holes
    apart = ~_grown(features, 7)
    donors, rim = _shrunk(skin & ~holes, 3) & apart, _shrunk(skin | nose | holes, 3) & apart
    x, y, width, height = cv2.boundingRect(skin | holes)
    box = np.s_[y // CELL * CELL : -(-(y + height) // CELL) * CELL, x // CELL * CELL : -(-(x + width) // CELL) * CELL]
    filled = image.astype(np.float32)
    filled[box] = heal(image[box], holes[box], donors[box], rim[box])
    return filled


def _inpaint(image: Image, labels: LabelMap, holes: Region, healed: Floats, algorithm: int) -> Floats:
    """The library's inpainting of the holes, with the finest detail of the healed ones.

    Hair, lashes and lips beside a hole are inpainted away as well before the hole alone is taken: the library
    would draw them out into it.
    """
    clean = _shrunk(select(labels, ("skin", "nose")) & ~holes, 4)
    unknown = holes | (_grown(holes, CLEARED_PX) & ~clean)
    smooth = cv2.inpaint(image, unknown, INPAINT_RADIUS_PX, algorithm).astype(np.float32)
    smooth = cv2.GaussianBlur(smooth, (0, 0), GRAIN_SIGMA_PX)
    grain = healed - cv2.GaussianBlur(healed, (0, 0), GRAIN_SIGMA_PX)
    return np.where(holes[..., None] > 0, np.clip(smooth + grain, 0, 255), healed)


def _mirror(image: Floats, face: Face, labels: LabelMap, name: str, ellipse: Region) -> tuple[Floats, Region]:
    """Overwrites a patch and the parts it is about with the mirror image of their counterparts.

    Returns:
        The image (512, 512, 3) in [0, 255] and the hole.
    """
    axis_off = abs((face.points["nose_tip"] - face.points["middle"]) @ face.across) / face.unit
    if axis_off > MAX_TURN:
        raise NoFaceError(f"turned too far to be mirrored: the nose is {axis_off:.2f} eye distances off the axis")
    patch = MIRROR[name]
    here, there = face.points[patch.landmark], face.points[MIRRORED[patch.landmark]]
    # Along the eye line, so that what is at `there` comes to `here`.
    reflection = np.eye(2) - 2 * np.outer(face.across, face.across)
    matrix = np.hstack([reflection, (there - reflection @ here)[:, None]])
    other = cv2.warpAffine(labels, matrix, (SIZE, SIZE), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)

    def both(names: Sequence[str]) -> tuple[Region, Region]:
        """Pixels of the classes, here and in the reflection."""
        return select(labels, names), select(other, [MIRRORED[name] for name in names])

    old, new = both(patch.parts)
    part = old | new
    in_face = np.bitwise_and(*both(FACE))
    features = np.bitwise_or(*both([c for c in FACE if c not in ("skin", "nose", *patch.parts)]))
    hole = (ellipse | _grown(part, 6)) & _shrunk(in_face, 2) & ~_grown(features, 4)
    if cv2.countNonZero(part & ~hole) > MAX_UNCOVERED * cv2.countNonZero(part):
        raise NoFaceError(f"{name} is covered on one side")
    skin = _shrunk(np.bitwise_and(*both(("skin", "nose"))), 2)
    box = surroundings(hole)
    corner = [box[1].start, box[0].start]
    matrix[:, 2] += matrix[:, :2] @ corner
    size = box[1].stop - box[1].start, box[0].stop - box[0].start
    donor = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    filled = image.copy()
    filled[box] = fit(image[box], donor, hole[box], (skin & ~hole)[box])
    return filled, hole


def _grown(region: Region, by_px: int) -> Region:
    return cv2.dilate(region, _disc(by_px))


def _shrunk(region: Region, by_px: int) -> Region:
    return cv2.erode(region, _disc(by_px))


def _disc(radius_px: int) -> Region:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1,) * 2)
