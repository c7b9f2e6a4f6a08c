"""`warp`: facial parts made larger, smaller, moved or bent by one smooth local displacement of the pixels.

Every edit is a sum of pulls: a shift, a stretch or a turn around a landmark, weighed by a window that is 1
near the landmark and exactly 0 from its reach on. All edits of a forgery add up to one field and the image is
sampled once. The mask is where that field moves a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from generators.base import Family, Forged, Job, Method, Params, Rejection
from generators.components import (
    FACE,
    MIN_AREA,
    Face,
    NoFaceError,
    find_face,
    has_face,
    has_glasses,
    select,
    side,
)
from mmtt_build import masks
from mmtt_build.masks import Image, Mask
from mmtt_build.parts import INDEX, LabelMap
from mmtt_build.records import SIZE, Pristine

Floats = NDArray[np.float32]
Field = NDArray[np.float32]
"""(512, 512, 2) displacement in pixels, x and y: forged pixel p shows what the base has at p + field[p]."""

MOVED_PX = 0.3
"""Displacement from which on a pixel belongs to the mask; less shows no step at the mask's rim."""
MIN_AREA_PX = 150
"""Pieces of the mask below this many pixels are left alone."""
SHARPEN, SHARPEN_STRETCHED = 0.08, 1.0
"""Unsharp amount at sigma 0.8 px for a moved pixel, and its growth with the local stretch.

On six portraits the Laplacian's RMS in the mask is then 0.96 to 1.03 of the base's; without, 0.92 to 0.99."""
MIN_JACOBIAN = 0.3
"""Least local area scale of the field. At 0 it folds; below a third, skin bunches up visibly."""


@dataclass(frozen=True, slots=True)
class Pull:
    """One weighed motion around a landmark, for an edit of amount 1.

    Attributes:
        landmark: a key of `Face.points`.
        reach: half axes of the window across and down, in eye distances.
        shift: outwards and down, in eye distances.
        stretch: relative growth across and down.
        turn: in radians; positive lifts the outer end.
        core: share of the reach where the window is 1.
        raised: how far above the landmark the window is centred, in eye distances.
    """

    landmark: str
    reach: tuple[float, float]
    shift: tuple[float, float] = (0.0, 0.0)
    stretch: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    core: float = 0.0
    raised: float = 0.0


@dataclass(frozen=True, slots=True)
class Edit:
    """One named attribute.

    Attributes:
        group: edits of one group exclude each other.
        amount: range that is drawn from: from where it is noticed to where it still is a plausible face.
        pulls: what moves.
        outline: whether the rim of the face moves, and with it what lies behind.
    """

    group: str
    amount: tuple[float, float]
    pulls: tuple[Pull, ...]
    outline: bool = False


def _both(pull: Pull) -> tuple[Pull, Pull]:
    """The pull at the subject's left landmark, and its mirror image."""
    return pull, replace(pull, landmark="r_" + pull.landmark.removeprefix("l_"))


def _eye(stretch: float = 0.0, turn: float = 0.0) -> Pull:
    return Pull("l_eye", (0.52, 0.40), stretch=(stretch, stretch), turn=turn, core=0.35)


def _brow(shift: float = 0.0, turn: float = 0.0) -> Pull:
    # Raised, or the window would reach over the eye below and stretch it with the brow.
    return Pull("l_brow", (0.62, 0.36), shift=(0.0, shift), turn=turn, core=0.3, raised=0.12)


def _corner(out: float, down: float) -> Pull:
    return Pull("l_mouth", (0.60, 0.50), shift=(out, down))


def _mouth(across: float, down: float) -> tuple[Pull]:
    return (Pull("mouth", (0.85, 0.46), stretch=(across, down), core=0.2),)


EDITS = {
    "larger_eyes": Edit("eyes", (0.10, 0.24), _both(_eye(stretch=1))),
    "smaller_eyes": Edit("eyes", (0.08, 0.18), _both(_eye(stretch=-1))),
    "larger_left_eye": Edit("eyes", (0.10, 0.22), _both(_eye(stretch=1))[:1]),
    "larger_right_eye": Edit("eyes", (0.10, 0.22), _both(_eye(stretch=1))[1:]),
    "upturned_eyes": Edit("eyes", (0.08, 0.18), _both(_eye(turn=1))),
    "downturned_eyes": Edit("eyes", (0.08, 0.18), _both(_eye(turn=-1))),
    "raised_brows": Edit("brows", (0.06, 0.12), _both(_brow(shift=-1))),
    "lowered_brows": Edit("brows", (0.05, 0.09), _both(_brow(shift=1))),
    "raised_left_brow": Edit("brows", (0.07, 0.13), _both(_brow(shift=-1))[:1]),
    "raised_right_brow": Edit("brows", (0.07, 0.13), _both(_brow(shift=-1))[1:]),
    "angry_brows": Edit("brows", (0.10, 0.22), _both(_brow(turn=1))),
    "sad_brows": Edit("brows", (0.10, 0.22), _both(_brow(turn=-1))),
    "slimmer_nose": Edit("nose", (0.12, 0.28), (Pull("nose_tip", (0.50, 0.55), stretch=(-1, 0), core=0.2),)),
    "wider_nose": Edit("nose", (0.12, 0.28), (Pull("nose_tip", (0.50, 0.55), stretch=(1, 0), core=0.2),)),
    "longer_nose": Edit("nose", (0.06, 0.12), (Pull("nose_tip", (0.46, 0.42), shift=(0, 1), core=0.1),)),
    "shorter_nose": Edit("nose", (0.05, 0.11), (Pull("nose_tip", (0.46, 0.46), shift=(0, -1), core=0.1),)),
    "nose_bent_left": Edit("nose", (0.06, 0.12), (Pull("nose_tip", (0.46, 0.46), shift=(1, 0), core=0.1),)),
    "nose_bent_right": Edit("nose", (0.06, 0.12), (Pull("nose_tip", (0.46, 0.46), shift=(-1, 0), core=0.1),)),
    "smile": Edit("mouth", (0.06, 0.12), _both(_corner(0.4, -1))),
    "frown": Edit("mouth", (0.06, 0.12), _both(_corner(0, 1))),
    "smile_on_the_left": Edit("mouth", (0.06, 0.12), _both(_corner(0.3, -1))[:1]),
    "smile_on_the_right": Edit("mouth", (0.06, 0.12), _both(_corner(0.3, -1))[1:]),
    "wider_mouth": Edit("mouth", (0.08, 0.20), _mouth(1, 0)),
    "narrower_mouth": Edit("mouth", (0.08, 0.18), _mouth(-1, 0)),
    "fuller_lips": Edit("lips", (0.15, 0.35), _mouth(0.2, 1)),
    "thinner_lips": Edit("lips", (0.12, 0.28), _mouth(0, -1)),
    "slimmer_jaw": Edit("jaw", (0.05, 0.11), _both(Pull("l_jaw", (0.60, 0.85), shift=(-1, 0))), outline=True),
    "wider_jaw": Edit("jaw", (0.05, 0.10), _both(Pull("l_jaw", (0.60, 0.85), shift=(1, 0))), outline=True),
    "longer_chin": Edit("chin", (0.06, 0.12), (Pull("chin", (0.80, 0.50), shift=(0, 1)),), outline=True),
    "shorter_chin": Edit("chin", (0.05, 0.10), (Pull("chin", (0.80, 0.50), shift=(0, -1)),), outline=True),
}
"""Every attribute by name. "left" and "right" are the subject's."""

PARTS = {
    "eyes": ("l_eye", "r_eye"),
    "brows": ("l_brow", "r_brow"),
    "nose": ("nose",),
    "mouth": ("mouth", "u_lip", "l_lip"),
    "lips": ("u_lip", "l_lip"),
    "jaw": ("skin",),
    "chin": ("skin",),
}
"""Parsing classes that a group of edits is about."""

WEIGHTS = {"eyes": 3.0, "brows": 3.0, "nose": 2.0, "mouth": 3.0, "lips": 2.0, "jaw": 1.0, "chin": 1.0}
"""How often a group is drawn: brows, eyes and lips most, as in MMTT."""

COUNTS = (0.35, 0.70, 0.90, 1.0)
"""Cumulative shares of forgeries with 1, 2, 3 and 4 edits."""

_BY_GROUP = {group: [name for name, edit in EDITS.items() if edit.group == group] for group in PARTS}


class Warp(Method):
    """Local geometry edits by one smooth displacement field."""

    name = "warp"
    family = Family.ATTRIBUTE_EDIT
    changes_geometry = True

    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params | None:
        """Draws 1 to 4 edits of different groups and the amount of each."""
        if not has_face(base):
            return None
        glasses = has_glasses(base)
        area = base.part_areas
        count_draw, *draws = rng.random(1 + 3 * len(PARTS)).tolist()
        # Weighted draw without replacement (Efraimidis and Spirakis 2006): the largest u^(1/weight) win.
        keyed = []
        for i, (group, weight) in enumerate(WEIGHTS.items()):
            if group in ("eyes", "brows") and (glasses or any(area[INDEX[n]] < MIN_AREA[n] for n in PARTS[group])):
                continue  # a lens would bend with the eye behind it
            keyed.append((draws[i] ** (1 / weight), i, group))
        count = 1 + sum(count_draw >= share for share in COUNTS[:-1])
        edits: dict[str, float] = {}
        touched: list[str] = []
        for _, i, group in sorted(keyed, reverse=True)[:count]:
            names = _BY_GROUP[group]
            name = names[int(draws[len(PARTS) + i] * len(names))]
            low, high = EDITS[name].amount
            edits[name] = round(low + (high - low) * draws[2 * len(PARTS) + i], 4)
            touched += _parts(name, area)
        return {
            "attribute": "+".join(sorted(edits)),
            "amounts": dict(sorted(edits.items())),
            "parts": sorted(set(touched), key=INDEX.__getitem__),
        }

    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        """Warps each job's image."""
        return [_forge(job) for job in batch]


def _parts(name: str, area: Sequence[int]) -> list[str]:
    sided = {pull.landmark for pull in EDITS[name].pulls}
    return [
        part
        for part in PARTS[EDITS[name].group]
        if area[INDEX[part]] and (part[:2] not in ("l_", "r_") or part.endswith("_lip") or part in sided)
    ]


def _forge(job: Job) -> Forged | Rejection:
    amounts: dict[str, Any] = dict(job.params["amounts"])
    try:
        face = find_face(job.labels)
    except NoFaceError as error:
        return Rejection(str(error))
    field = displacement(face, job.labels, amounts)
    if field is None:
        return Rejection("the edits together fold the face")
    mask = moved(field)
    if not mask.any():
        return Rejection("the edit moves nothing: no room around the part")
    return Forged(masks.composite(job.image, resample(job.image, field, mask), mask), mask)


def displacement(face: Face, labels: LabelMap, amounts: dict[str, float]) -> Field | None:
    """The displacement field of some edits together.

    Edits inside the face fade out towards its rim, so that hair, glasses and background stay straight. A
    field that would bunch up more than `MIN_JACOBIAN` allows is weakened as a whole.

    Args:
        face: landmarks of `labels`.
        labels: (512, 512) uint8 part map.
        amounts: amount of each edit by its name in `EDITS`.

    Returns:
        The field, or None where even a third of the amounts folds.
    """
    in_frame = np.zeros((SIZE, SIZE), np.uint8)
    in_frame[1:-1, 1:-1] = 1
    pulls = [(EDITS[name].outline, pull, amount) for name, amount in amounts.items() for pull in EDITS[name].pulls]
    boxes = np.array([_box(face, pull) for _, pull, _ in pulls])
    (x0, y0), (x1, y1) = boxes[:, :2].min(0).tolist(), boxes[:, 2:].max(0).tolist()
    x, y = np.arange(x0, x1, dtype=np.float32)[None, :], np.arange(y0, y1, dtype=np.float32)[:, None]
    local = np.zeros((y1 - y0, x1 - x0, 2), np.float32)
    for outline, where, width in ((False, select(labels, FACE), 0.14), (True, in_frame, 0.2)):
        layer = np.zeros_like(local)
        for (bx0, by0, bx1, by1), (moves_outline, pull, amount) in zip(boxes, pulls, strict=True):
            if moves_outline == outline:
                part = np.s_[by0 - y0 : by1 - y0, bx0 - x0 : bx1 - x0]
                layer[part] += _pulled(face, pull, amount, x[:, part[1]], y[part[0]])
        if layer.any():
            distance = cv2.distanceTransform(where, cv2.DIST_L2, 5)[y0:y1, x0:x1]
            local += layer * _smooth((distance - 1) / (width * face.unit))[..., None]
    for _ in range(7):
        if jacobian(local).min() >= MIN_JACOBIAN:
            field = np.zeros((SIZE, SIZE, 2), np.float32)
            field[y0:y1, x0:x1] = local
            return field
        local *= 0.85
    return None


def _box(face: Face, pull: Pull) -> tuple[int, int, int, int]:
    """Pixels x0, y0 to x1, y1 (exclusive) outside which a pull is 0, whichever way the head leans."""
    centre = face.points[pull.landmark]
    half = np.ceil((max(pull.reach) + pull.raised) * face.unit)
    low, high = np.clip(centre - half, 0, SIZE).astype(int), np.clip(centre + half + 1, 0, SIZE).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _pulled(face: Face, pull: Pull, amount: float, x: Floats, y: Floats) -> Floats:
    """Displacement (rows, columns, 2) by one pull of the pixels at columns x (1, n) and rows y (n, 1)."""
    unit = face.unit
    across, down = face.frame(x, y, face.points[pull.landmark])
    radius = cv2.magnitude(across / (pull.reach[0] * unit), (down / unit + pull.raised) / pull.reach[1])
    window = _smooth((1 - radius) / (1 - pull.core))
    way = side(pull.landmark)
    out, below = pull.shift[0] * amount * unit, pull.shift[1] * amount * unit
    turn = pull.turn * amount
    # Backwards: where content grows by k around q = 0, the pixel q shows what was at q / k.
    step_across = (1 / (1 + pull.stretch[0] * amount) - 1) * across - way * (out + turn * down)
    step_down = (1 / (1 + pull.stretch[1] * amount) - 1) * down - below + way * turn * across
    (ax, ay), (dx, dy) = face.across.tolist(), face.down.tolist()
    return cv2.merge((window * (step_across * ax + step_down * dx), window * (step_across * ay + step_down * dy)))


def _smooth(t: NDArray[Any]) -> Floats:
    """Quintic step from 0 to 1: value, slope and curvature meet at both ends, so that no crease shows."""
    t = np.clip(t, 0, 1).astype(np.float32, copy=False)
    return np.asarray(t * t * t * (t * (t * 6 - 15) + 10))


def jacobian(field: Field) -> Floats:
    """Local area scale of the sampling p + field[p], (512, 512); positive everywhere where nothing folds."""
    across = cv2.Sobel(field, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
    down = cv2.Sobel(field, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
    return np.asarray((1 + across[..., 0]) * (1 + down[..., 1]) - across[..., 1] * down[..., 0], np.float32)


def moved(field: Field) -> Mask:
    """The mask: where the field moves a pixel by `MOVED_PX` or more, without holes and specks."""
    far: NDArray[Any] = (cv2.magnitude(field[..., 0], field[..., 1]) >= MOVED_PX).view(np.uint8)
    # A stretch leaves its own axis where it is: close the slit.
    far = cv2.morphologyEx(far, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11)))
    outlines, _ = cv2.findContours(far, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(far)
    for outline in outlines:
        if cv2.contourArea(outline) >= MIN_AREA_PX:
            cv2.drawContours(filled, [outline], -1, 1, cv2.FILLED)
    return filled.view(np.bool_)


def resample(image: Image, field: Field, mask: Mask) -> Image:
    """Samples an image once through a field, in the mask's bounding box; returns (512, 512, 3) uint8.

    Interpolation blurs a little and a stretched region has fewer details to the pixel; a faint unsharp mask,
    growing with both, gives that back.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    box = np.s_[y : y + height, x : x + width]
    grid_x = np.arange(x, x + width, dtype=np.float32)[None, :] + field[box][..., 0]
    grid_y = np.arange(y, y + height, dtype=np.float32)[:, None] + field[box][..., 1]
    sampled = cv2.remap(image, grid_x, grid_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    stretched = np.clip(1 / np.sqrt(jacobian(field[box])) - 1, 0, 0.5)
    shifted = np.clip(cv2.magnitude(field[box][..., 0], field[box][..., 1]), 0, 1)
    amount = shifted * (SHARPEN + SHARPEN_STRETCHED * stretched)
    sampled = sampled + amount[..., None] * (sampled - cv2.GaussianBlur(sampled, (0, 0), 0.8))
    result = image.copy()
    result[box] = np.clip(np.rint(sampled), 0, 255).astype(np.uint8)
    return result
