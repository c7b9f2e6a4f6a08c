"""What the weights-free face methods share: alignment from part maps, colour and grain matching, seams.

Everything here works on part maps alone (no landmarks, no network) and asks of them only the inner face: skin, eyes,
brows, nose and lips. Hair, neck, ears or glasses are respected where a map has them and not missed where it has not.

Working pictures are (h, w, 3) float32 RGB, 0 to 255, gamma-encoded as stored, of a rectangle around the face. Lengths
named `..._px` are pixels; the unit of a face is its eye distance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from mmtt_build import parts
from mmtt_build.masks import Image, Mask
from mmtt_build.parts import LabelMap
from mmtt_build.records import SIZE, Pristine

Floats = NDArray[np.float32]
Points = NDArray[np.float64]

EYES, BROWS, NOSE = ("l_eye", "r_eye"), ("l_brow", "r_brow"), ("nose",)
MOUTH = ("mouth", "u_lip", "l_lip")
FEATURES = (*EYES, *BROWS, *NOSE, *MOUTH)
FACE = ("skin", *FEATURES)
"""Classes that a swap may replace; whatever else lies over the face (hair, hat, glasses) stays."""

MAX_LAPLACE_STEP = 6
"""The membrane of a Poisson clone is smooth: solved on every sixth pixel at most, it has 36 times fewer unknowns."""
_SHOULDER = np.float32(225)
_CHIN_RAYS = (-60.0, -30.0, 0.0, 30.0, 60.0)
_L_EYE, _R_EYE, _L_BROW, _R_BROW, _NOSE, _UPPER_LIP, _LOWER_LIP, _GLASSES = (
    parts.INDEX[name] for name in ("l_eye", "r_eye", "l_brow", "r_brow", "nose", "u_lip", "l_lip", "eye_g")
)
_MIRROR_TABLE = np.zeros(256, np.uint8)
_MIRROR_TABLE[: len(parts.CLASSES)] = [parts.INDEX[parts.MIRRORED[name]] for name in parts.CLASSES]


# --- facts for planning -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the nose lies between eyes and mouth, in units that a turn of the head changes and size does not.

    Attributes:
        eye_distance: pixels between the eye centres.
        yaw: sideways offset of the nose from the eyes' middle, in eye distances; positive towards the picture's right.
        pitch: height of the nose between eyes (0) and mouth (1).
        length: from the eyes to the mouth, in eye distances.
    """

    eye_distance: float
    yaw: float
    pitch: float
    length: float

    def mirrored(self) -> Pose:
        """The pose of the mirror image."""
        return Pose(self.eye_distance, -self.yaw, self.pitch, self.length)

    def gap(self, other: Pose) -> float:
        """How far two heads are turned from each other: 0 is alike, above 0.25 a person sees it in a swap."""
        # Pitch counts half: its range between faces of one pose (long noses, short lips) is about twice that of yaw.
        return math.hypot(self.yaw - other.yaw, 0.5 * (self.pitch - other.pitch))


def pose(points: tuple[float, ...]) -> Pose | None:
    """Pose from the ten numbers of `Pristine.points`, or None where they are missing or not a face."""
    if len(points) != 10:
        return None
    left_x, left_y, right_x, right_y, nose_x, nose_y, mouth_left_x, mouth_left_y, mouth_right_x, mouth_right_y = points
    across_x, across_y = left_x - right_x, left_y - right_y
    distance = math.hypot(across_x, across_y)
    if distance < SIZE / 32:
        return None
    middle_x, middle_y = (left_x + right_x) / 2, (left_y + right_y) / 2
    across_x, across_y = across_x / distance, across_y / distance
    nose_x, nose_y = nose_x - middle_x, nose_y - middle_y
    mouth_x, mouth_y = (mouth_left_x + mouth_right_x) / 2 - middle_x, (mouth_left_y + mouth_right_y) / 2 - middle_y
    drop = mouth_y * across_x - mouth_x * across_y  # along the face, at right angles to the eyes
    if drop < 0.3 * distance:
        return None
    yaw = (nose_x * across_x + nose_y * across_y) / distance
    return Pose(distance, yaw, (nose_y * across_x - nose_x * across_y) / drop, drop / distance)


MIN_EYE, MIN_BROW, MIN_LIPS, MIN_NOSE = 150, 200, 500, 1200
"""Least pixels of a part at 512x512: about a third of what an aligned frontal face has."""
MAX_GLASSES = 400
"""Pixels of glasses above which eyes and nose are left alone: frames cross them and cannot be swapped around."""
MAX_LIGHT_GAP, MAX_TINT_GAP = 34.0, 22.0
"""Largest difference of mean skin, in L* and in a*b*: beyond it no transfer looks like skin."""


def has_eyes(face: Pristine) -> bool:
    """Whether both eyes are there and free of glasses."""
    areas = face.part_areas
    return min(areas[_L_EYE], areas[_R_EYE]) >= MIN_EYE and areas[_GLASSES] <= MAX_GLASSES


def has_brows(face: Pristine) -> bool:
    """Whether both brows are there; one of half the other's size is half under hair."""
    low, high = sorted((face.part_areas[_L_BROW], face.part_areas[_R_BROW]))
    return low >= MIN_BROW and low >= 0.5 * high


def has_nose(face: Pristine) -> bool:
    """Whether the nose is there and free of glasses."""
    return face.part_areas[_NOSE] >= MIN_NOSE and face.part_areas[_GLASSES] <= MAX_GLASSES


def has_lips(face: Pristine) -> bool:
    """Whether the lips are there."""
    return face.part_areas[_UPPER_LIP] + face.part_areas[_LOWER_LIP] >= MIN_LIPS


def skin_alike(base: Pristine, donor: Pristine) -> bool:
    """Whether the skins are near enough for a colour transfer; faces without this fact pass."""
    if not (base.skin_lab and donor.skin_lab):
        return True
    (l0, a0, b0), (l1, a1, b1) = base.skin_lab, donor.skin_lab
    return abs(l0 - l1) <= MAX_LIGHT_GAP and (a0 - a1) ** 2 + (b0 - b1) ** 2 <= MAX_TINT_GAP**2


def mirror_better(rng: np.random.Generator, here: Pose, there: Pose) -> tuple[bool, float]:
    """Whether to mirror the donor, and the pose gap that is then left.

    Mirrored where that turns the head the base's way; where both ways fit alike, at random, for variety.
    """
    gap, mirrored = here.gap(there), here.gap(there.mirrored())
    if abs(gap - mirrored) > 0.04:
        return mirrored < gap, min(gap, mirrored)
    flip = bool(rng.random() < 0.5)
    return flip, mirrored if flip else gap


def draw_name(rng: np.random.Generator, names: Sequence[str], shares: Sequence[float]) -> str:
    """One name by its share; `Generator.choice` with weights takes ten times as long."""
    left = rng.random() * sum(shares)
    for name, share in zip(names, shares, strict=True):
        left -= share
        if left < 0:
            return name
    return names[-1]


# --- geometry ---------------------------------------------------------------------------------------------------


def mirror(image: Image, labels: LabelMap) -> tuple[Image, LabelMap]:
    """The mirror image of a face and of its part map, with left and right classes exchanged."""
    return cv2.flip(image, 1), cv2.LUT(cv2.flip(labels, 1), _MIRROR_TABLE)


def part_points(labels: LabelMap) -> dict[str, Points]:
    """Control points of each feature of a part map (H, W), as (k, 2) float64 x, y in pixels.

    Eyes ("l_eye", "r_eye") and "lips" give four points (left and right end in the picture, top, bottom); brows three
    (left end, right end, and above the eye's centre, which hair at the temple seldom hides); "nose" three (both
    wings, base); "chin" five, where rays from the mouth leave the face, NaN where hair or the frame hides the contour.
    Features that the map lacks are absent.
    """
    found: dict[str, Points] = {}
    spots = cv2.findNonZero(select(labels, FEATURES).view(np.uint8))
    if spots is None:
        return found
    columns, rows = spots[:, 0].T
    kinds = labels[rows, columns]
    for name, classes in (*((side, (side,)) for side in (*EYES, *BROWS)), ("nose", NOSE), ("lips", MOUTH)):
        here = np.logical_or.reduce([kinds == parts.INDEX[kind] for kind in classes])
        x, y = columns[here].astype(np.float64), rows[here].astype(np.float64)
        if len(x) < 30:  # a 512 px face has eyes of some 400 pixels: fewer than 30 is a stray of the parser
            continue
        if name == "nose":  # its label ends at very different heights near the eyes: only the lower part is the nose
            low = y >= y.max() - 0.4 * (y.max() - y.min())
            x, y = x[low], y[low]
        ends = _end(x, y, x, -1), _end(x, y, x, 1)
        if name in BROWS:
            eye = name.replace("brow", "eye")
            above = found[eye][:, 0].mean() if eye in found else x.mean()
            near = np.abs(x - above) <= max(2.0, 0.1 * (x.max() - x.min()))
            if near.any():
                found[name] = np.array([*ends, (above, y[near].mean())])
        elif name == "nose":
            found[name] = np.array([*ends, ((ends[0][0] + ends[1][0]) / 2, y.max())])
        else:
            middle = np.abs(x - x.mean()) <= max(1.0, 0.1 * (x.max() - x.min()))
            x, y = x[middle], y[middle]
            found[name] = np.array([*ends, (x.mean(), y.min()), (x.mean(), y.max())])
    if "lips" in found and all(eye in found for eye in EYES):
        found["chin"] = _chin(labels, found)
    return found


def _end(x: Points, y: Points, along: Points, sign: int) -> tuple[float, float]:
    """The tip of a part in one direction: the mean of its outermost 6 %, since a single pixel is noise."""
    reach = sign * along
    tip = reach >= reach.max() - 0.06 * (reach.max() - reach.min())
    return float(x[tip].mean()), float(y[tip].mean())


def _chin(labels: LabelMap, found: Mapping[str, Points]) -> Points:
    """Where rays from the mouth leave the face, (5, 2); NaN where the jaw is hidden or the ray leaves the picture."""
    face = select(labels, FACE)
    hidden = select(labels, ("hair", "hat"))
    left, right = found["l_eye"].mean(axis=0), found["r_eye"].mean(axis=0)
    mouth = found["lips"][:2].mean(axis=0)
    down = mouth - (left + right) / 2
    reach = np.arange(1.0, 2.0 * float(np.linalg.norm(left - right)))
    out = np.full((len(_CHIN_RAYS), 2), np.nan)
    for i, degrees in enumerate(_CHIN_RAYS):
        angle = math.atan2(down[1], down[0]) + math.radians(degrees)
        line = mouth + reach[:, None] * (math.cos(angle), math.sin(angle))
        x, y = np.rint(line).astype(int).T
        inside = (x >= 0) & (y >= 0) & (x < labels.shape[1]) & (y < labels.shape[0])
        x, y = x[inside], y[inside]
        leaves = np.flatnonzero(~face[y, x])
        if (
            len(leaves)
            and leaves[0] + 4 < len(x)
            and not hidden[y[leaves[0] : leaves[0] + 5], x[leaves[0] : leaves[0] + 5]].any()
        ):
            out[i] = line[leaves[0]]
    return out


def eye_distance(points: Mapping[str, Points]) -> float:
    """Pixels between the two eyes' centres."""
    return float(np.linalg.norm(points["l_eye"].mean(axis=0) - points["r_eye"].mean(axis=0)))


def similarity(source: Points, target: Points) -> Points:
    """Least-squares rotation, uniform scale and shift that takes (n, 2) points onto (n, 2) others, as (2, 3).

    Umeyama 1991 without reflections; with complex numbers the rotation and scale are one quotient.
    """
    z, w = source @ (1, 1j), target @ (1, 1j)
    z0, w0 = z.mean(), w.mean()
    turn = np.vdot(z - z0, w - w0) / np.vdot(z - z0, z - z0)
    shift = w0 - turn * z0
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the picture in which the work is done: rows top:bottom, columns left:right."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Index of the rectangle in an array (H, W, ...)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def box_around(mask: Mask, pad_px: int) -> Box:
    """The bounding box of a mask (H, W), grown by a margin and cut at the frame."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    rows, columns = mask.shape
    return Box(max(0, y - pad_px), min(rows, y + height + pad_px), max(0, x - pad_px), min(columns, x + width + pad_px))


def similarity_map(box: Box, base_to_donor: Points) -> Floats:
    """Donor x, y for each pixel of the box, (h, w, 2) float32, under a similarity (2, 3)."""
    x, y = np.meshgrid(np.arange(box.left, box.right), np.arange(box.top, box.bottom))
    return np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32) @ base_to_donor.T.astype(np.float32)


def thin_plate_map(box: Box, base: Points, donor: Points, stiffness: Points, unit_px: float) -> Floats:
    """Donor x, y for each pixel of the box, (h, w, 2) float32, under a smoothed thin-plate spline.

    Args:
        box: where.
        base: (n, 2) control points of the base.
        donor: (n, 2) the same points of the donor.
        stiffness: (n,) smoothing per point; 0 is met exactly, 1 hardly bends.
        unit_px: length that makes the smoothing independent of the picture's size: the base's eye distance.
    """
    step = 8  # the spline is far smoother than this
    rows, columns = box.bottom - box.top, box.right - box.left
    # Nodes at the centres of step x step cells, one cell more on each side, is what resizing interpolates between.
    x = box.left + (step - 1) / 2 + step * np.arange(-1, columns // step + 2)
    y = box.top + (step - 1) / 2 + step * np.arange(-1, rows // step + 2)
    spline = RBFInterpolator(base / unit_px, donor, smoothing=stiffness, kernel="thin_plate_spline", degree=1)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2) / unit_px
    nodes = spline(grid).reshape(len(y), len(x), 2).astype(np.float32)
    whole = cv2.resize(nodes, (step * len(x), step * len(y)), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(whole[step : step + rows, step : step + columns])


def local_scale(sampling: Floats) -> Floats:
    """Area of donor per area of base of a map (h, w, 2): 1 is the same size, below 0 is folded over."""
    dy, dx = np.gradient(sampling[::8, ::8], 8.0, axis=(0, 1))
    return np.asarray(dx[..., 0] * dy[..., 1] - dx[..., 1] * dy[..., 0], np.float32)


def sample(image: Image, labels: LabelMap, sampling: Floats) -> tuple[Image, LabelMap]:
    """Donor image and part map as seen through a map (h, w, 2); background where it leaves the donor."""
    seen = cv2.remap(image, sampling, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return seen, cv2.remap(labels, sampling, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def above_eyes(box: Box, points: Mapping[str, Points], offset_px: float = 0.0) -> Mask:
    """Pixels of the box above the line through the eyes, moved up by an offset."""
    right, left = points["r_eye"].mean(axis=0), points["l_eye"].mean(axis=0)
    across = (left - right) / np.linalg.norm(left - right)
    y, x = np.ogrid[box.top : box.bottom, box.left : box.right]
    return np.asarray((x - right[0]) * across[1] - (y - right[1]) * across[0] > offset_px)


# --- regions ----------------------------------------------------------------------------------------------------


def select(labels: LabelMap, names: Iterable[str]) -> Mask:
    """`parts.select` for the inner loop: the same (H, W) bool, in a tenth of the time."""
    table = np.zeros(256, np.uint8)
    table[[parts.INDEX[name] for name in names]] = 1
    return cv2.LUT(labels, table).view(np.bool_)


def grow(mask: Mask, radius_px: float) -> Mask:
    """A mask grown by a radius."""
    return cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 3) <= radius_px


def shrink(mask: Mask, radius_px: float) -> Mask:
    """A mask shrunk by a radius; the frame does not shrink it."""
    return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 3) > radius_px


def hull(*masks: Mask) -> Mask:
    """The filled convex hull of all pixels of the masks (H, W)."""
    joined = np.logical_or.reduce(masks)
    out = np.zeros(joined.shape, np.uint8)
    points = cv2.findNonZero(joined.view(np.uint8))
    if points is not None:
        cv2.fillConvexPoly(out, cv2.convexHull(points), 1)
    return out.view(np.bool_)


def ripple(mask: Mask, amplitude_px: float, rng: np.random.Generator) -> Mask:
    """A mask whose outline is moved in and out at random, smoothly, by about the amplitude.

    The elastic deformation of Self-Blended Images, applied to the signed distance so that the outline stays one line.
    """
    grey = mask.view(np.uint8)
    signed = cv2.distanceTransform(grey, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - grey, cv2.DIST_L2, 3)
    noise = rng.standard_normal((7, 7)).astype(np.float32)
    waves = cv2.resize(noise, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_CUBIC)
    return signed + amplitude_px * waves > 0


def largest(mask: Mask) -> Mask:
    """The largest connected piece of a mask, its pinholes closed and its outline smoothed."""
    smooth = cv2.blur(mask.view(np.uint8) * np.uint8(255), (9, 9)) > 127
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(smooth.view(np.uint8), connectivity=4)
    if count < 2:
        return smooth
    return np.asarray(pieces == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def clear_face(image: Floats, labels: LabelMap, above: Mask) -> Mask:
    """Pixels of a face that nothing lies over: not hair, hat or glasses by the part map, nor dark strands by colour.

    Part maps draw a fringe's outline roughly, and maps from landmarks have no hair at all; so above the eyes a pixel
    that is labelled skin but far darker than the cheeks counts as hair.

    Args:
        image: (h, w, 3) float32 RGB.
        labels: (h, w) part map.
        above: (h, w) True above the eyes, where the colour test applies (beards lie below).
    """
    face = select(labels, FACE)
    skin = labels == parts.INDEX["skin"]
    light = soften(grey(image), 1.5)
    cheeks = light[skin & ~above][::7]
    if cheeks.size:
        typical = float(np.median(cheeks))
        spread = 1.5 * float(np.median(np.abs(cheeks - typical)))
        dark = skin & above & (light < typical - max(40.0, 3 * spread))
        brows = grow(select(labels, (*BROWS, *EYES)), 7)  # maps draw brows and lashes too thin
        face = face & ~grow(dark & ~brows, 3)
    for cover, reach_px in ((("hair", "hat"), 4), (("eye_g",), 6)):
        over = select(labels, cover)
        if over.any():
            face = face & ~grow(over, reach_px)
    return face


# --- light, colour, grain -----------------------------------------------------------------------------------------


def soften(image: Floats, sigma_px: float) -> Floats:
    """Gaussian blur cut off at 2.5 sigma: OpenCV's own choice for floats, 4 sigma, takes 1.5 times as long."""
    size = 2 * math.ceil(2.5 * sigma_px) + 1
    return cv2.GaussianBlur(image, (size, size), sigma_px)


def grey(image: Floats) -> Floats:
    """Luma (h, w) of float RGB, the same range."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def to_rgb(image: Floats) -> Image:
    """Float RGB to uint8, rounded and clipped."""
    return cv2.convertScaleAbs(np.maximum(image, 0))


@dataclass(frozen=True, slots=True)
class Light:
    """How a donor's light becomes the base's: (h, w, 3) float32 each.

    Attributes:
        ratio: what to multiply the donor with.
        level: the base's skin, smoothed over the whole box.
        gloss: share of the donor's highlights to keep, 0.3 to 1.
    """

    ratio: Floats
    level: Floats
    gloss: float


def compare_light(base: Floats, donor: Floats, skin: Mask) -> Light | None:
    """Compares how two aligned faces are lit and coloured, on their skin.

    Reinhard's colour transfer compares two means; here the ratio is the exponential of a quadratic surface over the
    face, per channel, so that light from one side stays on that side, and dark hairs stay dark. Fitted robustly:
    beards, blushes and hard shadows are outliers, not light.

    Args:
        base: (h, w, 3) float RGB.
        donor: (h, w, 3) float RGB, aligned to the base.
        skin: (h, w) where both show skin.

    Returns:
        The light, or None where there is too little skin to compare.
    """
    height, width = skin.shape
    size = max(1, width // 6), max(1, height // 6)
    seen = cv2.resize(skin.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT).view(np.bool_)
    if np.count_nonzero(seen) < 12:
        return None
    logs = [np.log(cv2.resize(face, size, interpolation=cv2.INTER_AREA)[seen] + 4.0) for face in (base, donor)]
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    unit = max(size) / 2
    x, y = (x - size[0] / 2) / unit, (y - size[1] / 2) / unit
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    change = _robust_surface(terms[seen], logs[0] - logs[1])
    level = _robust_surface(terms[seen], logs[0])
    glossy = [
        max(0.02, float(np.percentile((face - terms[seen] @ level).mean(axis=1), 95)))
        for face in (logs[0], logs[1] + terms[seen] @ change)
    ]
    ratio, skin_level = (
        cv2.resize(np.exp(terms @ surface).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        for surface in (np.clip(change, -1.5, 1.5), level)
    )
    return Light(ratio, skin_level, float(np.clip(glossy[0] / glossy[1], 0.3, 1)))


def _robust_surface(terms: Points, values: Points) -> Points:
    """Coefficients (6, 3) of quadratic surfaces through values (n, 3), by reweighted least squares (Geman-McClure)."""
    ridge = np.diag([0, 1, 1, 4, 4, 4]) * (len(terms) * 0.01)  # the mean is free, slopes cost a little, bends more
    surface = np.zeros((6, 3))
    surface[0] = np.median(values, axis=0)
    for _ in range(4):
        error = np.linalg.norm(values - terms @ surface, axis=1)
        weight = 1 / (1 + (error / max(0.05, 1.2 * float(np.median(error)))) ** 2) ** 2
        weighted = terms * weight[:, None]
        surface = np.linalg.solve(terms.T @ weighted + ridge, weighted.T @ values)
    return surface


def relight(donor: Floats, labels: LabelMap, light: Light) -> Floats:
    """The donor in the base's light; eyes and teeth take half of it, since white is nearly white under any skin."""
    keep = soften(select(labels, (*EYES, "mouth")).astype(np.float32), 2.0)[..., None]
    lit = donor * light.ratio
    if light.gloss < 1:
        over = cv2.pow(np.maximum(lit / light.level, 1), light.gloss)
        lit = np.minimum(lit, light.level) * over
    lit = lit + keep * (donor * np.sqrt(light.ratio) - lit)
    # A soft shoulder, so that what was lightened does not burn out; what was that bright before stays.
    bright = lit > _SHOULDER
    reach = 255 - _SHOULDER
    bent = _SHOULDER - reach * np.expm1((_SHOULDER - lit[bright]) / reach)
    lit[bright] = np.maximum(bent, np.minimum(lit[bright], donor[bright]))
    return lit


def beard_gap(base: Floats, lit: Floats, lips: Mask, skin: Mask, light: Light, unit_px: float) -> tuple[Mask, float]:
    """Where one of two faces wears a beard and the other does not, once they are lit alike.

    Args:
        base: (h, w, 3) float RGB.
        lit: (h, w, 3) the donor in the base's light.
        lips: (h, w) the lips of both.
        skin: (h, w) where both show skin.
        light: how the two compare.
        unit_px: the base's eye distance.

    Returns:
        The skin around the lips that differs (h, w), and its share of that skin.
    """
    around = grow(lips, 0.35 * unit_px) & ~grow(lips, 4) & skin
    if not around.any():
        return np.zeros_like(skin), 0.0
    gap = np.abs(soften(grey(base - lit), 2.0))
    differs = around & (gap > np.maximum(25, 0.25 * grey(light.level)))
    return differs, np.count_nonzero(differs) / np.count_nonzero(around)


def match_detail(base: Floats, donor: Floats, skin: Mask, rng: np.random.Generator) -> Floats:
    """The donor as sharp and as grainy as the base, judged on skin in two bands of luma.

    A sharper donor is softened, a softer one sharpened a little, and what is then still missing in the finest band is
    added as noise.
    """
    if np.count_nonzero(skin) < 200:
        return donor
    fine_base, middle_base = _bands(grey(base))
    fine, middle = _bands(grey(donor))
    target, have = _spread(fine_base[skin]), _spread(fine[skin])
    gain_fine = float(np.clip(target / have, 0.5, 1.5))
    gain_middle = float(np.clip(_spread(middle_base[skin]) / _spread(middle[skin]), 0.65, 1.3))
    change = (gain_fine - 1) * fine + (gain_middle - 1) * middle
    missing = target**2 - (gain_fine * have) ** 2
    if missing > 0.05:
        change = change + np.float32(math.sqrt(missing)) * rng.standard_normal(change.shape, np.float32)
    return donor + change[..., None]


def _bands(light: Floats) -> tuple[Floats, Floats]:
    soft, softer = soften(light, 1.0), soften(light, 2.5)
    return light - soft, soft - softer


def _spread(values: Floats) -> float:
    """Standard deviation by the median, so that a few edges do not count as grain."""
    return 1.48 * float(np.median(np.abs(values[::3]))) + 1e-3


# --- seams ------------------------------------------------------------------------------------------------------


def feather(support: Mask, *widths_px: float) -> list[Floats]:
    """Blend weights (h, w) float32: 0 on and outside the edge of the support, rising to 1 over each width inside it."""
    depth = cv2.distanceTransform(np.pad(support, 1).view(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    alphas = []
    for width in widths_px:
        t = np.clip(depth / np.float32(max(width, 1.0)), 0, 1)
        alphas.append(np.asarray(t * t * (3 - 2 * t), np.float32))
    return alphas


def blend_poisson(base: Floats, donor: Floats, support: Mask, feather_px: float) -> tuple[Floats, Mask]:
    """Poisson clone: the donor plus the membrane that meets the base on the edge of the support.

    Perez et al. 2003 in its membrane form: donor gradients inside, base colours on the edge. A narrow feather hides
    what texture differs on the edge itself.

    Returns:
        The blend (h, w, 3) and the pixels it may have changed, within the support.
    """
    (alpha,) = feather(support, feather_px)
    return _mix(base, donor + _membrane(base - donor, support), alpha), alpha > 0


def _membrane(difference: Floats, support: Mask) -> Floats:
    """Harmonic surface over the support that takes the difference's values on its edge; (h, w, 3)."""
    rows, columns = support.shape
    step = min(MAX_LAPLACE_STEP, max(2, round(math.sqrt(np.count_nonzero(support)) / 20)))
    size = -(-columns // step), -(-rows // step)
    soft = soften(difference, step)
    small = cv2.resize(soft, size, interpolation=cv2.INTER_AREA)
    region = cv2.resize(support.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    inner = cv2.erode(region, np.ones((3, 3), np.uint8), borderValue=0).view(np.bool_)
    edge = region.view(np.bool_) & ~inner
    surface = small * region[..., None]
    # A dark strand or a brow cut by the edge must not bleed over the cheek.
    middle = np.median(small[edge], axis=0)
    reach = 3 * np.median(np.abs(small[edge] - middle), axis=0) + 5
    surface[edge] = np.clip(small[edge], middle - reach, middle + reach)
    if inner.any():
        surface[inner] = _laplace(surface, inner)
    outside = cv2.blur(surface, (5, 5))  # continues the edge outwards, so that enlarging does not pull it to zero
    weight = cv2.blur(region.astype(np.float32), (5, 5))[..., None]
    surface = np.where(region[..., None] > 0, surface, outside / np.maximum(weight, 1e-3))
    return cv2.resize(surface, (columns, rows), interpolation=cv2.INTER_CUBIC)


def _laplace(surface: Floats, inner: Mask) -> Floats:
    """Solves the five-point Laplace equation on the inner nodes with the others as boundary; (n, channels)."""
    number = np.full(inner.shape, -1)
    nodes = np.flatnonzero(inner)
    number.ravel()[nodes] = np.arange(len(nodes))
    flat, values = number.ravel(), surface.reshape(-1, surface.shape[2])
    known = np.zeros((len(nodes), values.shape[1]))
    everyone = np.arange(len(nodes))
    ends: list[tuple[NDArray[Any], NDArray[Any]]] = [(everyone, everyone)]
    entries = [np.full(len(nodes), 4.0)]
    for step in (
        -1,
        1,
        -inner.shape[1],
        inner.shape[1],
    ):  # eroded with a zero border: inner nodes never lie on the frame
        neighbour = flat[nodes + step]
        free = neighbour >= 0
        ends.append((everyone[free], neighbour[free]))
        entries.append(np.full(np.count_nonzero(free), -1.0))
        known[~free] += values[nodes[~free] + step]
    laplacian = csc_matrix((np.concatenate(entries), np.concatenate(ends, axis=1)))
    return np.asarray(splu(laplacian).solve(known), np.float32)


def blend_multiband(base: Floats, donor: Floats, support: Mask, feather_px: float) -> tuple[Floats, Mask]:
    """Multi-band blend: colours change over a wide feather, texture over a narrow one.

    Burt & Adelson 1983 with feathers by distance from the edge in place of pyramids, so that every band is exactly the
    base on the edge and nothing leaks out of the support.

    Returns:
        The blend (h, w, 3) and the pixels it may have changed, within the support.
    """
    wide, middle, narrow = feather(support, 2 * feather_px, feather_px, feather_px / 2)
    base_soft, donor_soft = soften(base, 2.0), soften(donor, 2.0)
    base_low, donor_low = cv2.blur(base_soft, (13, 13)), cv2.blur(donor_soft, (13, 13))
    low = _mix(base_low, donor_low, wide)
    band = _mix(base_soft - base_low, donor_soft - donor_low, middle)
    texture = _mix(base - base_soft, donor - donor_soft, narrow)
    return low + band + texture, narrow > 0


def _mix(base: Floats, donor: Floats, alpha: Floats) -> Floats:
    return base + alpha[..., None] * (donor - base)


BLENDS = {"poisson": blend_poisson, "multiband": blend_multiband}
"""The seams a plan can ask for, by name."""


def seam_error(base: Floats, donor: Floats, support: Mask) -> float:
    """How far base and donor differ along the edge of the support: upper quartile of luma steps, in grey levels."""
    edge = support & ~shrink(support, 5)
    gap = np.abs(soften(grey(base - donor), 3)[edge])
    return float(np.percentile(gap, 75)) if gap.size else math.inf


def covered(labels: LabelMap, names: Iterable[str], support: Mask) -> float:
    """Share of the named classes' pixels that the support covers; 0 where there are none."""
    part = select(labels, names)
    return np.count_nonzero(part & support) / max(1, np.count_nonzero(part))


def under_hair(labels: LabelMap, names: Iterable[str]) -> bool:
    """Whether hair or a hat lies against the named part (a brow): what shows of it is then cut off."""
    cover = select(labels, ("hair", "hat"))
    return bool(cover.any()) and np.count_nonzero(select(labels, names) & grow(cover, 3)) > 6


def has_all(points: Mapping[str, Points], names: Iterable[str]) -> bool:
    """Whether every named feature was found."""
    return all(name in points for name in names)
