"""Where everything is: curves of the head in the frame, posed and aligned as FFHQ aligns its faces.

The face is modelled as curves in space, in units of the frame's side: x to the viewer's right, y down, z towards
the viewer, origin between the eyes. They are turned by the head's pose, projected, and moved by the
similarity that FFHQ's alignment computes from eyes and mouth; so part maps, landmarks and pixels share
one set of curves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtt_build.portraits.person import Person, Shot
from mmtt_build.portraits.raster import Points, curve, vec

_AXIS = vec(0.0, 0.1, -0.22)  # the head turns about a point inside it
SIDES = (-1, 1)
"""Viewer's left (subject's right) first, as in the order of the 68 landmarks."""


@dataclass(frozen=True, slots=True)
class Eye:
    """One eye's curves: upper and lower lid from the viewer's left to right, crease, iris."""

    upper: Points
    lower: Points
    crease: Points
    iris: Points
    iris_radius: float
    side: int

    @property
    def outline(self) -> Points:
        """Closed polygon of the visible eye."""
        return np.vstack([self.upper, self.lower[-2:0:-1]])

    @property
    def centre(self) -> Points:
        """Middle between the corners, (2,)."""
        return (self.upper[0] + self.upper[-1]) / 2


@dataclass(frozen=True, slots=True)
class Geometry:
    """All curves in shares of the frame, (N, 2) float32, pairs with the viewer's left first."""

    head: Points
    jaw: Points
    eyes: tuple[Eye, Eye]
    brows: tuple[Points, Points]
    nose_ridge: Points
    nose_outline: Points
    nose_base: Points
    nostrils: tuple[Points, Points]
    alae: Points
    lip_top: Points
    lip_inner_top: Points
    lip_inner_bottom: Points
    lip_bottom: Points
    ears: tuple[Points, Points]
    neck: Points
    hairline: Points
    folds: tuple[Points, Points]
    landmarks: NDArray[np.float32]
    unit: float
    turn: float

    @property
    def upper_lip(self) -> Points:
        """Closed polygon."""
        return np.vstack([self.lip_top, self.lip_inner_top[::-1]])

    @property
    def lower_lip(self) -> Points:
        """Closed polygon."""
        return np.vstack([self.lip_inner_bottom, self.lip_bottom[::-1]])

    @property
    def mouth(self) -> Points:
        """Closed polygon of the opening between the lips."""
        return np.vstack([self.lip_inner_top, self.lip_inner_bottom[::-1]])

    @property
    def front(self) -> Points:
        """The point of the face that looks furthest forward beside the nose, (2,)."""
        return self.nose_ridge[len(self.nose_ridge) // 3]

    @property
    def chin(self) -> Points:
        """Lowest point of the chin, (2,)."""
        return self.jaw[8]


class _Pose:
    """Turns model points and aligns them as FFHQ does."""

    def __init__(self, shot: Shot, eyes: Points, mouth: Points) -> None:
        cy, sy, cp, sp = np.cos(shot.yaw), np.sin(shot.yaw), np.cos(shot.pitch), np.sin(shot.pitch)
        self._turn = np.array(((cy, 0, sy), (-sy * sp, cp, -cy * sp), (-sy * cp, sp, cy * cp)), np.float32)
        self._linear = np.eye(2, dtype=np.float32)
        self._shift = np.zeros(2, np.float32)
        (left, right), (corner_left, corner_right) = self(eyes), self(mouth)
        across = right - left
        middle = (left + right) / 2
        down = (corner_left + corner_right) / 2 - middle
        # FFHQ's quad: x axis from the eye line and the perpendicular of the eye-mouth line.
        axis = across - vec(-down[1], down[0])
        axis *= max(2.0 * float(np.hypot(*across)), 1.8 * float(np.hypot(*down))) / float(np.hypot(*axis))
        axis *= 1 + 0.4 * shot.jitter[2]
        centre = middle + 0.1 * down
        side = 2 * float(np.hypot(*axis))
        direction = axis / np.hypot(*axis)
        tilt = np.array(((1, shot.jitter[3]), (-shot.jitter[3], 1)), np.float32)
        self._linear = (tilt @ np.array((direction, (-direction[1], direction[0])), np.float32)) / side
        self._shift = np.float32(0.5) - self._linear @ centre + shot.jitter[:2]
        self.unit = 1 / side

    def __call__(self, points: Points) -> Points:
        """Model points (N, 3) to frame points (N, 2)."""
        turned = (points - _AXIS) @ self._turn.T + _AXIS
        flat = turned[:, :2] / (1 - 0.35 * turned[:, 2:])  # mild perspective of a portrait lens
        return np.asarray(flat @ self._linear.T + self._shift, np.float32)


def build(person: Person, shot: Shot) -> Geometry:
    """All curves of one portrait."""
    b, m = person.build, person.masculine
    smile, opened = shot.smile, shot.mouth_open
    off = person.asymmetry
    cheek = 0.262 + 0.010 * b[0] + 0.006 * m
    jaw_w = 0.202 + 0.013 * b[1] + 0.024 * m + 0.004 * smile
    chin_w = 0.060 + 0.009 * b[2] + 0.018 * m
    chin_y = 0.402 + 0.013 * b[3] + 0.012 * m + 0.028 * opened
    temple = cheek - 0.008 + 0.004 * b[4]
    top = -0.415 + 0.014 * b[5]
    sag = 0.010 * person.age

    half = np.array(
        [
            (0, chin_y, -0.02), (chin_w, chin_y - 0.014, -0.03), (chin_w * 0.55 + jaw_w * 0.47, chin_y - 0.056, -0.07),
            (jaw_w * 0.92 + sag, 0.292, -0.12), (jaw_w + 0.010 + 0.4 * sag, 0.215, -0.15),
            (cheek * 0.970, 0.110, -0.15), (cheek, 0.02, -0.15), (temple, -0.10, -0.16),
            (temple - 0.008, -0.2, -0.18), (0.220, -0.285, -0.2),
            (0.146, top + 0.040, -0.2), (0, top, -0.2),
        ],
        np.float32,
    )  # fmt: skip
    mirrored = half[-2:0:-1] * vec(-1, 1, 1)
    head = curve(np.vstack([half, mirrored]), 400, closed=True)
    right_half = curve(half, 200)

    eye_models = [_eye(person, shot, side) for side in SIDES]
    mouth_y = 0.262 + 0.006 * b[6]
    mouth_w = 0.094 + 0.007 * b[7] + 0.020 * max(smile, -0.2)
    lip_model = _lips(person, smile, opened, mouth_y, mouth_w)
    pose = _Pose(
        shot,
        np.array([(side * 0.125, 0, -0.02) for side in SIDES], np.float32),
        np.array([(side * mouth_w, mouth_y, -0.02) for side in SIDES], np.float32),
    )

    tip = 0.145 + 0.008 * b[8] + 0.004 * m
    ala = 0.047 + 0.0060 * b[9] + 0.003 * m + 0.011 * person.melanin + 0.003 * smile
    bridge = 0.019 + 0.002 * b[10]
    rise = 0.004 * shot.brow_raise
    ridge = np.array(
        [(0, 0.0, 0.012), (0, 0.05, 0.035), (0, 0.105, 0.062), (0, tip, 0.085 + 0.006 * b[11])], np.float32
    )
    base_y = tip + 0.034
    across = ((-0.72, -0.003, 0.02), (-0.36, 0.002, 0.04), (0, 0.006, 0.05), (0.36, 0.002, 0.04), (0.72, -0.003, 0.02))
    base = np.array([(x * ala, base_y + y, z) for x, y, z in across], np.float32)
    alae = np.array([(s * ala * 0.86, tip + 0.010, 0.015) for s in SIDES], np.float32)
    outline = curve(
        np.array(
            [
                (-bridge, -0.02, 0.005), (-bridge * 1.05, 0.03, 0.012), (-bridge * 1.5, 0.085, 0.015),
                (-ala, tip - 0.010, 0.0), (-ala * 1.1, tip + 0.014, 0.0), (-ala * 0.8, base_y, 0.015),
                (0, base_y + 0.007, 0.05), (ala * 0.8, base_y, 0.015), (ala * 1.1, tip + 0.014, 0.0),
                (ala, tip - 0.010, 0.0), (bridge * 1.5, 0.085, 0.015), (bridge * 1.05, 0.03, 0.012),
                (bridge, -0.02, 0.005),
            ],
            np.float32,
        ), 90,
    )  # fmt: skip
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    nostrils = []
    for s in SIDES:
        x = s * ala * 0.46 + 0.30 * ala * np.cos(t)
        y = tip + 0.0255 + 0.0080 * np.sin(t) - s * 0.004 * np.cos(t)
        nostrils.append(np.stack([x, y, np.full(24, 0.025)], axis=1).astype(np.float32))
    ears = [_ear(person, side, cheek) for side in SIDES]
    hair_y = -0.275 + person.hairline
    hairline = curve(
        np.array(
            [
                (-cheek * 0.99, 0.03, -0.16), (-temple * 0.90, -0.075, -0.09), (-temple * 0.80, -0.155, -0.07),
                (-0.11, hair_y + 0.018, -0.03), (0, hair_y + 0.01 * b[12], -0.02), (0.11, hair_y + 0.018, -0.03),
                (temple * 0.80, -0.155, -0.07), (temple * 0.90, -0.075, -0.09), (cheek * 0.99, 0.03, -0.16),
            ],
            np.float32,
        ), 120,
    )  # fmt: skip
    lift = 0.012 * max(smile, 0)
    folds = [
        curve(np.array([(s * ala * 1.12, tip + 0.0, -0.005), (s * (ala + 0.022 + lift), tip + 0.03, -0.01),
                        (s * (mouth_w + 0.020), mouth_y - 0.025 - lift, -0.03),
                        (s * (mouth_w + 0.024), mouth_y + 0.022 - lift, -0.04)], np.float32), 40)
        for s in SIDES
    ]  # fmt: skip

    brows = [pose(_brow(person, shot, side, rise)) for side in SIDES]
    jaw_right = right_half[np.argmin(np.abs(right_half[:, 1] - 0.01) + 10 * (right_half[:, 0] < 0.1))]
    stop = int(np.flatnonzero((right_half == jaw_right).all(axis=1))[0])
    jaw_model = right_half[np.linspace(stop, 0, 9).round().astype(int)]
    jaw = pose(np.vstack([jaw_model * vec(-1, 1, 1), jaw_model[-2::-1]]))

    eyes = []
    for model, side in zip(eye_models, SIDES, strict=True):
        upper, lower, crease, iris = (pose(part) + off[side + 1] for part in model)
        eyes.append(Eye(upper, lower, crease, iris[0], 0.0232 * pose.unit, side))
    lips = [pose(line) for line in lip_model]
    ridge_2d = pose(curve(ridge, 30))
    base_2d = pose(base)
    neck_w = 0.160 + 0.010 * b[13] + 0.03 * m
    neck = _neck(pose, shot, jaw_w, neck_w)
    brow_points = [line[[2, 11, 20, 29, 38]] if i else line[[38, 29, 20, 11, 2]] for i, line in enumerate(_mid(brows))]
    landmarks = np.vstack(
        [
            jaw,
            *brow_points,
            ridge_2d[[0, 10, 20, 29]],
            base_2d,
            *(_six(eye) for eye in eyes),
            _mouth_points(lips),
        ]
    ).astype(np.float32)
    return Geometry(
        head=pose(head), jaw=jaw, eyes=(eyes[0], eyes[1]), brows=(brows[0], brows[1]), nose_ridge=ridge_2d,
        nose_outline=pose(outline), nose_base=base_2d, nostrils=(pose(nostrils[0]), pose(nostrils[1])), alae=pose(alae),
        lip_top=lips[0], lip_inner_top=lips[1], lip_inner_bottom=lips[2], lip_bottom=lips[3],
        ears=(pose(ears[0]), pose(ears[1])), neck=neck, hairline=pose(hairline), folds=(pose(folds[0]), pose(folds[1])),
        landmarks=landmarks, unit=pose.unit, turn=shot.yaw,
    )  # fmt: skip


def _eye(person: Person, shot: Shot, side: int) -> tuple[Points, Points, Points, Points]:
    b = person.build
    width = 0.0515 + 0.0025 * b[14] - 0.0025 * person.masculine
    tilt = 0.004 + 0.0045 * b[15] - 0.004 * person.age
    up = (0.0262 + 0.0022 * b[16] - 0.0035 * person.masculine) * shot.eye_open - 0.002 * person.age
    down = 0.0135 + 0.001 * b[16] - 0.004 * max(shot.smile, 0)
    t = np.linspace(-1, 1, 41, dtype=np.float32)  # -1 inner corner, 1 outer corner
    x = side * (0.125 + width * t)
    corner = -tilt * t + 0.002
    bow = 1 - np.abs(t) ** 2.3
    upper_y = corner - up * bow * (1 - 0.16 * t)
    lower_y = corner + down * (1 - np.abs(t) ** 2.6) * (1 + 0.22 * t)
    z = -0.012 - 0.028 * (np.maximum(t, 0) ** 2) - 0.006 * np.maximum(-t, 0)
    fold = 0.0125 + 0.003 * b[17] + 0.004 * shot.brow_raise - 0.005 * person.age
    crease_y = upper_y - np.float32(max(fold, 0.005)) * (1 - np.abs(t) ** 3 * 0.75) - 0.002
    order = slice(None) if side > 0 else slice(None, None, -1)
    upper, lower, crease = (np.stack([x, y, z], axis=1).astype(np.float32)[order] for y in (upper_y, lower_y, crease_y))
    gaze_x, gaze_y = shot.gaze
    turn = 0.35 * shot.yaw  # the eyes stay on the camera a little when the head turns
    iris = np.array(
        [(side * 0.125 + 0.022 * (gaze_x - turn) * 2, -0.0035 + 0.03 * (gaze_y - 0.3 * shot.pitch), -0.008)]
    )
    return upper, lower, crease, iris.astype(np.float32)


def _brow(person: Person, shot: Shot, side: int, rise: float) -> Points:
    """Closed outline, (80, 3): 40 points along the top from the inner end, 40 back along the bottom."""
    b, m = person.build, person.masculine
    height = 0.062 - 0.012 * m + 0.005 * b[18] + 0.010 * shot.brow_raise
    arch = 0.014 - 0.006 * m + 0.004 * b[19]
    thick = (0.0165 + 0.005 * m + 0.002 * b[20]) * (1 - 0.15 * person.age)
    t = np.linspace(0, 1, 40, dtype=np.float32)
    x = side * (0.047 + 0.004 * b[21] + 0.150 * t)
    line = (
        -height
        - arch * np.sin(np.pi * np.clip(t * 0.86 + 0.02, 0, 1)) * 1.3
        + 0.022 * t**3
        + 0.006 * (1 - t) ** 2
        - 0.5 * rise * (1 - t)
    )
    width = thick * np.clip(np.sqrt(t / 0.12 + 0.25), 0, 1) * (1 - 0.85 * t**2.2)
    z = -0.002 - 0.075 * t**2
    top, bottom = (np.stack([x, line + s * width / 2, z], axis=1) for s in (-1, 1))
    return np.vstack([top, bottom[::-1]]).astype(np.float32)


def _lips(person: Person, smile: float, opened: float, y: float, width: float) -> tuple[Points, ...]:
    b, m = person.build, person.masculine
    full = 1 + 0.16 * b[22] + 0.35 * person.melanin + 0.14 - 0.24 * m - 0.22 * person.age
    top_h = 0.0225 * full * (1 - 0.22 * max(smile, 0))
    bottom_h = 0.0325 * full * (1 - 0.15 * max(smile, 0))
    gap = 0.040 * opened * (1 - 0.25 * max(smile, 0)) + 0.004 * opened
    t = np.linspace(-1, 1, 61, dtype=np.float32)
    ends = 1 - np.abs(t) ** 2.2
    lift = -0.026 * smile * np.abs(t) ** 1.9 + 0.008 * max(smile, 0)
    bow = 0.0048 * np.exp(-((t / 0.13) ** 2)) * (1 - 0.6 * max(smile, 0))
    cupid = top_h * (1 - np.abs(t) ** 1.5) ** 0.9
    seam = 0.0022 * np.cos(t * 7) * ends * (1 - 0.8 * opened)
    inner_top = y + lift - gap * 0.42 * ends + seam
    inner_bottom = y + lift + gap * 0.58 * ends + seam + (0.0006 * ends if opened else 0)
    outer_top = inner_top - cupid + bow
    outer_bottom = inner_bottom + bottom_h * (1 - np.abs(t) ** 2.4)
    z = 0.012 - 0.045 * t**2
    x = width * t
    return tuple(
        np.stack([x, line, z], axis=1).astype(np.float32) for line in (outer_top, inner_top, inner_bottom, outer_bottom)
    )


def _ear(person: Person, side: int, cheek: float) -> Points:
    b = person.build
    out = 0.036 + 0.006 * b[23]
    points = np.array(
        [
            (cheek - 0.025, -0.035, -0.19), (cheek + out * 0.55, -0.060, -0.24), (cheek + out, -0.030, -0.26),
            (cheek + out * 0.95, 0.040, -0.26), (cheek + out * 0.62, 0.095, -0.24), (cheek + out * 0.22, 0.128, -0.22),
            (cheek - 0.022, 0.120, -0.19), (cheek - 0.03, 0.04, -0.19),
        ],
        np.float32,
    )  # fmt: skip
    points[:, 1] += 0.008
    return curve(points, 60, closed=True) * vec(side, 1, 1)


def _neck(pose: _Pose, shot: Shot, jaw_w: float, neck_w: float) -> Points:
    """Outline of neck and bare shoulders, closed below the frame; follows the head only half."""
    half = [
        (jaw_w * 0.9, 0.16),
        (neck_w, 0.36),
        (neck_w + 0.004, 0.44),
        (neck_w + 0.05, 0.525),
        (neck_w + 0.2, 0.58),
        (0.62, 0.70),
        (0.62, 1.0),
    ]
    right = np.array([(x, y, -0.13) for x, y in half], np.float32)
    left = right * vec(-1, 1, 1)
    flat = np.vstack([pose(curve(right, 60)), pose(curve(left, 60))[::-1]])
    drop = np.maximum(flat[:, 1:] - 0.7, 0)
    return np.asarray(flat + drop * vec(shot.roll, 0), np.float32)


def _mid(brows: list[Points]) -> list[Points]:
    return [(line[:40] * 0.7 + line[:39:-1] * 0.3) for line in brows]


def _six(eye: Eye) -> Points:
    at = [14, 26]
    return np.vstack([eye.upper[0], eye.upper[at], eye.upper[-1], eye.lower[at[::-1]]])


def _mouth_points(lips: list[Points]) -> Points:
    top, inner_top, inner_bottom, bottom = lips
    outer = [
        top[0],
        top[15],
        top[25],
        top[30],
        top[35],
        top[45],
        top[60],
        bottom[45],
        bottom[38],
        bottom[30],
        bottom[22],
        bottom[15],
    ]
    inner = [
        inner_top[4],
        inner_top[20],
        inner_top[30],
        inner_top[40],
        inner_top[56],
        inner_bottom[40],
        inner_bottom[30],
        inner_bottom[20],
    ]
    return np.array(outer + inner, np.float32)
