"""What the weights-free face methods share: facts for planning, alignment from part maps, regions of a face.

Everything here works on part maps alone (no landmarks, no network) and asks of them only the inner face: skin, eyes,
brows, nose and lips. Hair, neck, ears or glasses are respected where a map has them and not missed where it has not.

Working pictures are (h, w, 3) float32 RGB, 0 to 255, gamma-encoded as stored, of a rectangle around the face. Lengths
named `..._px` are pixels; the unit of a face is its eye distance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

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
"""Pixels of glasses above which eyes, brows and nose are left alone: frames cross them and cannot be swapped around.

Brows too: of 32 drawn pairs with glasses on one face, the rims left 2 pairs of brows room for a patch."""
MAX_LIGHT_GAP, MAX_TINT_GAP = 34.0, 22.0
"""Largest difference of mean skin, in L* and in a*b*: beyond it no transfer looks like skin."""


def has_eyes(face: Pristine) -> bool:
    """Whether both eyes are there and free of glasses."""
    areas = face.part_areas
    return min(areas[_L_EYE], areas[_R_EYE]) >= MIN_EYE and areas[_GLASSES] <= MAX_GLASSES


def has_brows(face: Pristine) -> bool:
    """Whether both brows are there and free of glasses; one of half the other's size is half under hair."""
    low, high = sorted((face.part_areas[_L_BROW], face.part_areas[_R_BROW]))
    return low >= MIN_BROW and low >= 0.5 * high and face.part_areas[_GLASSES] <= MAX_GLASSES


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
    spots = cv2.findNonZero(parts.select(labels, FEATURES).view(np.uint8))
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
    face = parts.select(labels, FACE)
    hidden = parts.select(labels, ("hair", "hat"))
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


def soften(image: Floats, sigma_px: float) -> Floats:
    """Gaussian blur cut off at 2.5 sigma: OpenCV's own choice for floats, 4 sigma, takes 1.5 times as long."""
    size = 2 * math.ceil(2.5 * sigma_px) + 1
    return cv2.GaussianBlur(image, (size, size), sigma_px)


def grey(image: Floats) -> Floats:
    """Luma (h, w) of float RGB, the same range."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


# --- regions ----------------------------------------------------------------------------------------------------


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
    face = parts.select(labels, FACE)
    skin = labels == parts.INDEX["skin"]
    light = soften(grey(image), 1.5)
    cheeks = light[skin & ~above][::7]
    if cheeks.size:
        typical = float(np.median(cheeks))
        spread = 1.5 * float(np.median(np.abs(cheeks - typical)))
        dark = skin & above & (light < typical - max(40.0, 3 * spread))
        brows = grow(parts.select(labels, (*BROWS, *EYES)), 7)  # maps draw brows and lashes too thin
        face = face & ~grow(dark & ~brows, 3)
    for cover, reach_px in ((("hair", "hat"), 4), (("eye_g",), 6)):
        over = parts.select(labels, cover)
        if over.any():
            face = face & ~grow(over, reach_px)
    return face


def covered(labels: LabelMap, names: Iterable[str], support: Mask) -> float:
    """Share of the named classes' pixels that the support covers; 0 where there are none."""
    part = parts.select(labels, names)
    return np.count_nonzero(part & support) / max(1, np.count_nonzero(part))


def under_hair(labels: LabelMap, names: Iterable[str]) -> bool:
    """Whether hair or a hat lies against the named part (a brow): what shows of it is then cut off."""
    cover = parts.select(labels, ("hair", "hat"))
    return bool(cover.any()) and np.count_nonzero(parts.select(labels, names) & grow(cover, 3)) > 6


def has_all(points: Mapping[str, Points], names: Iterable[str]) -> bool:
    """Whether every named feature was found."""
    return all(name in points for name in names)
