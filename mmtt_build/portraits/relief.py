"""The form of the head as a height field, and the light that falls on it.

Heights and distances are in shares of the frame's side; the field is smooth and computed at no more than 512 px.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mmtt_build.portraits.geometry import Geometry
from mmtt_build.portraits.person import Person, Shot
from mmtt_build.portraits.raster import Coverage, Field, Points, fill, soft, strokes, vec

_DEPTH = 0.27  # how far the face's front stands before its silhouette


@dataclass(frozen=True, slots=True)
class Relief:
    """Form at working resolution R: slopes dz/dx and dz/dy (R, R), and light (R, R, 3) in linear units."""

    slope_x: Field
    slope_y: Field
    light: Field
    shade: Field


class _Sculptor:
    """Adds blobs to a height field, each in its own window."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.height: Field = np.zeros((size, size), np.float32)
        self._axis = (np.arange(size, dtype=np.float32) + 0.5) / size

    def blob(self, centre: Points, sx: float, sy: float, amount: float, angle: float = 0) -> None:
        """Adds a Gaussian of deviations sx, sy, turned by an angle."""
        window, bump = self._bump(centre, sx, sy, angle)
        self.height[window] += np.float32(amount) * bump

    def ridge(self, points: Points, widths: Field, amounts: Field) -> None:
        """Adds a ridge: at every pixel the highest of the Gaussians strung along the points."""
        crest = np.zeros_like(self.height)
        for point, width, amount in zip(points, widths, amounts, strict=True):
            window, bump = self._bump(point, float(width), float(width), 0)
            np.maximum(crest[window], np.float32(amount) * bump, out=crest[window])
        self.height += soft(crest, 0.004)

    def _bump(self, centre: Points, sx: float, sy: float, angle: float) -> tuple[tuple[slice, slice], Field]:
        reach = 3 * max(sx, sy) * self.size
        columns, rows = (
            slice(max(int(c * self.size - reach), 0), max(int(c * self.size + reach) + 1, 0)) for c in centre
        )
        x = self._axis[columns][None, :] - centre[0]
        y = self._axis[rows][:, None] - centre[1]
        if angle:
            c, s = np.cos(angle), np.sin(angle)
            x, y = c * x + s * y, c * y - s * x
        return (rows, columns), np.exp(-0.5 * ((x / sx) ** 2 + (y / sy) ** 2)).astype(np.float32)


def inside(outline: Points, centre: Points, size: int) -> Field:
    """How far out each pixel lies between a centre (0) and a star-shaped outline (1), (size, size)."""
    around = outline - centre
    angles, radii = np.arctan2(around[:, 1], around[:, 0]), np.hypot(around[:, 0], around[:, 1])
    order = np.argsort(angles)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = axis[None, :] - centre[0], axis[:, None] - centre[1]
    table = np.interp(np.linspace(-np.pi, np.pi, 2048), angles[order], radii[order], period=2 * np.pi)
    angle = cv2.phase(np.broadcast_to(x, (size, size)).copy(), np.broadcast_to(y, (size, size)).copy())
    index = ((angle + np.float32(np.pi)) * np.float32(2047 / (2 * np.pi))).astype(np.int32) % 2047
    return np.asarray(np.sqrt(x * x + y * y) / table.astype(np.float32)[index], np.float32)


def model(geometry: Geometry, person: Person, shot: Shot, size: int, hair: Coverage) -> Relief:
    """Sculpts head, neck and ears and lights them.

    Args:
        geometry: the curves.
        person: age and build shape wrinkles, cheeks, brows.
        shot: light and expression.
        size: side of the frame; the work is done at min(size, 512).
        hair: coverage (size, size) of all hair before the face, which shades the skin.
    """
    res = min(size, 512)
    head = _head(geometry, person, shot, res)
    neck = _neck(geometry, res)
    ears = _ears(geometry, res)
    head_mask = soft(fill(geometry.head, res), 0.0020)
    ear_mask = np.maximum(*(soft(fill(ear, res), 0.0012) for ear in geometry.ears))
    slopes = [
        _mix(_mix(_slope(neck, axis), _slope(ears, axis), ear_mask), _slope(head, axis), head_mask) for axis in (0, 1)
    ]
    combined = _mix(_mix(neck, ears - 0.02, ear_mask), head, head_mask)
    light, shade = _light(
        slopes[0], slopes[1], combined, shot, cv2.resize(hair, (res, res), interpolation=cv2.INTER_AREA)
    )
    return Relief(slopes[0], slopes[1], light, shade)


def _head(g: Geometry, person: Person, shot: Shot, res: int) -> Field:
    b, age, smile = person.build, person.age, max(shot.smile, 0.0)
    centre = g.front * np.float32(0.75) + g.head.mean(axis=0) * np.float32(0.25)
    s = np.minimum(inside(g.head, centre, res) * 0.975, 1)  # short of the silhouette's infinite slope
    clay = _Sculptor(res)
    clay.height = np.asarray(_DEPTH * (1 - s**2.35) ** 0.52, np.float32)
    u = g.unit
    for eye in g.eyes:
        side = eye.side
        c = eye.centre
        clay.blob(c + vec(-side * 0.012, -0.010), 0.050 * u, 0.027 * u, -0.026)
        clay.blob(c + vec(-side * 0.060, -0.012), 0.016 * u, 0.030 * u, -0.016)
        clay.blob(c + vec(0, -0.004), 0.034 * u, 0.023 * u, 0.017)  # the ball under the lids
        clay.blob(c + vec(0, 0.040 * u), 0.045 * u, 0.012 * u, -0.0022 - 0.005 * age, side * 0.18)
        clay.blob(
            c + vec(-side * 0.005, 0.029 * u),
            0.036 * u,
            0.008 * u,
            0.0022 + 0.004 * age + 0.002 * smile,
            side * 0.12,
        )
        clay.blob(
            c + vec(side * 0.02, 0.115 * u - 0.012 * smile),
            0.062 * u,
            0.045 * u,
            0.014 + 0.006 * b[4] + 0.014 * smile,
        )
        clay.blob(c + vec(side * 0.055, 0.19 * u), 0.042 * u, 0.06 * u, -0.010 - 0.006 * b[0] - 0.008 * age)
        clay.blob(c + vec(side * 0.115, -0.11 * u), 0.04 * u, 0.07 * u, -0.012)
        clay.blob(c + vec(side * 0.075, 0.075 * u), 0.045 * u, 0.024 * u, 0.007 + 0.003 * b[0], side * 0.35)
    for brow in g.brows:
        for i in (4, 16, 28):
            clay.blob(brow[i] + vec(0, 0.006), 0.030 * u, 0.016 * u, 0.0045 + 0.005 * person.masculine, 0)
    clay.blob(g.nose_ridge[0] + vec(0, -0.21 * u), 0.14 * u, 0.09 * u, 0.012)
    _nose(clay, g, person)
    lips = (g.lip_inner_top[30] + g.lip_inner_bottom[30]) / 2
    clay.blob(lips, 0.085 * u, 0.055 * u, 0.022)
    clay.blob(lips + vec(0, 0.062 * u), 0.05 * u, 0.012 * u, -0.010)  # below the lower lip
    clay.blob(g.chin + vec(0, -0.055 * u), 0.045 * u, 0.036 * u, 0.020 + 0.006 * b[3])
    philtrum = (g.lip_top[30] + g.nose_base[2]) / 2
    clay.blob(philtrum, 0.0075 * u, 0.018 * u, -0.0050)
    for sign in (-1, 1):
        clay.blob(philtrum + vec(sign * 0.012 * u, 0.004), 0.005 * u, 0.016 * u, 0.0022)
    for corner in (g.lip_top[0], g.lip_top[-1]):
        clay.blob(corner, 0.014 * u, 0.014 * u, -0.007 - 0.004 * smile)
    _lips(clay, g, res)
    _creases(clay, g, person, shot, res)
    return clay.height


def _nose(clay: _Sculptor, g: Geometry, person: Person) -> None:
    u, b = g.unit, person.build
    t = np.linspace(0, 1, 30, dtype=np.float32)
    width = (0.0190 + 0.002 * b[10] + 0.008 * t**2) * u
    rise = 0.018 + (0.044 + 0.006 * b[11]) * t**1.25 + 0.005 * b[8] * np.sin(np.pi * t) ** 2
    clay.ridge(g.nose_ridge, width, rise)
    tip = g.nose_ridge[-1]
    clay.blob(tip + vec(0, -0.001), (0.0225 + 0.002 * b[9]) * u, 0.021 * u, 0.019)
    clay.blob((tip + g.nose_base[2]) / 2, 0.008 * u, 0.016 * u, 0.012)
    for ala in g.alae:
        clay.blob(ala, 0.0150 * u, 0.0160 * u, 0.030)


def _lips(clay: _Sculptor, g: Geometry, res: int) -> None:
    for outline, height in ((g.upper_lip, 0.009), (g.lower_lip, 0.014)):
        mask = fill(outline, res)
        depth = cv2.distanceTransform((mask > 127).view(np.uint8), cv2.DIST_L2, 3) / np.float32(res)
        clay.height += soft(np.sqrt(np.minimum(depth / 0.016, 1)) * np.float32(height), 0.0025)
    clay.height -= soft(strokes(res, [g.lip_inner_top], 0.004), 0.002) * np.float32(0.006)


def _creases(clay: _Sculptor, g: Geometry, person: Person, shot: Shot, res: int) -> None:
    """Nasolabial folds, lid creases and the wrinkles of age: valleys along lines."""
    age, smile = person.age, max(shot.smile, 0.0)
    fold = soft(strokes(res, g.folds, 0.004), 0.0075)
    clay.height -= fold * np.float32(0.004 + 0.012 * smile + 0.012 * age)
    clay.height -= soft(strokes(res, [eye.crease for eye in g.eyes], 0.003), 0.0018) * np.float32(0.0045)
    if age < 0.3:
        return
    rng = np.random.default_rng(person.texture_seed)
    depth = (age - 0.3) * 0.0075
    u, brow = g.unit, g.nose_ridge[0]
    lines = []
    for k in range(4):
        x = np.linspace(-0.15, 0.15, 40, dtype=np.float32)
        wave = 0.006 * np.sin(x * 18 + rng.uniform(0, 6)) + 0.003 * np.sin(x * 47 + rng.uniform(0, 6)) - 0.25 * x**2
        lines.append(brow + np.stack([x * rng.uniform(0.7, 1), -0.105 - 0.036 * k + wave], axis=1) * u)
    for eye in g.eyes:
        corner = eye.upper[-1] if eye.side > 0 else eye.upper[0]
        for k in range(4):
            t = np.linspace(0, 1, 12, dtype=np.float32)
            angle = -0.5 + 0.36 * k + rng.normal(0, 0.05)
            length = rng.uniform(0.03, 0.05) * (1 + smile)
            ray = np.stack([eye.side * t * np.cos(angle), t * np.sin(angle) + 0.15 * t**2], axis=1) * length
            lines.append(corner + vec(eye.side * 0.012, 0.0) + ray.astype(np.float32) * u)
        t = np.linspace(-1, 1, 20, dtype=np.float32)
        lines.append(eye.centre + np.stack([0.042 * t, 0.044 - 0.014 * t**2 + 0.004 * t * eye.side], axis=1) * u)
    for side in (-1, 1):
        y = np.linspace(0, 1, 12, dtype=np.float32)
        lines.append(
            brow + np.stack([side * (0.014 + 0.004 * y**2), -0.062 + 0.045 * y], axis=1).astype(np.float32) * u
        )
    clay.height -= soft(strokes(res, lines, 0.0025), 0.0022) * np.float32(depth)


def _neck(g: Geometry, res: int) -> Field:
    """A column that widens into the shoulders, lying behind the chin; light falls on it like on a cylinder."""
    clay = _Sculptor(res)
    mask = fill(np.clip(g.neck, -0.5, 1.5), res)
    base = g.chin
    width = (g.neck[20:40, 0].max() - g.neck[-40:-20, 0].min()) / 2
    x = ((np.arange(res, dtype=np.float32) + 0.5) / res - base[0] * 0.5 - g.neck[[30, -30], 0].mean() * 0.5) / width
    clay.height[:] = -0.10 + 0.13 * np.sqrt(np.maximum(1 - np.minimum(np.abs(x), 0.97) ** 2, 0))[None, :]
    u = g.unit
    for side in (-1, 1):  # the two muscles that meet at the collarbone's pit
        t = np.linspace(0, 1, 12, dtype=np.float32)
        line = base + np.stack([side * (0.13 - 0.10 * t), 0.02 + 0.16 * t], axis=1).astype(np.float32) * u
        clay.ridge(line, np.full(12, 0.016 * u, np.float32), np.full(12, 0.007, np.float32))
    clay.blob(base + vec(0, 0.10 * u), 0.02 * u, 0.025 * u, 0.010)
    clay.height *= soft(mask, 0.002)
    return clay.height


def _ears(g: Geometry, res: int) -> Field:
    clay = _Sculptor(res)
    for ear, side in zip(g.ears, (-1, 1), strict=True):
        mask = fill(ear, res)
        depth = cv2.distanceTransform((mask > 127).view(np.uint8), cv2.DIST_L2, 3) / np.float32(res)
        centre = ear.mean(axis=0)
        clay.height += soft(np.sqrt(np.minimum(depth / 0.012, 1)) * np.float32(0.016), 0.0015)
        inner = centre + vec(ear - centre) * vec(0.62, 0.70) + vec(-side * 0.004, -0.008)
        clay.height -= soft(fill(inner, res), 0.003) * np.float32(0.012)
        fold = centre + vec(ear[4:24] - centre) * vec(0.46, 0.55) + vec(0, -0.004)
        clay.height += soft(strokes(res, [fold], 0.006), 0.003) * np.float32(0.009)
    return clay.height


def _light(slope_x: Field, slope_y: Field, height: Field, shot: Shot, hair: Coverage) -> tuple[Field, Field]:
    """Key light with cast shadows, spread under the skin by channel, plus sky and rim; and the ambient access."""
    res = height.shape[0]
    lx, ly, lz = (float(v) for v in shot.light)
    facing = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    key = (lz - lx * slope_x - ly * slope_y) * facing
    wrapped = np.clip((key + 0.12) / 1.12, 0, 1)
    lit = wrapped * _shadow(height, shot) * (1 - 0.55 * _shifted(soft(hair, 0.012), shot, 0.03))
    small, wide = (np.maximum(soft(height, sigma) - height, 0) / np.float32(sigma) for sigma in (0.010, 0.035))
    access = np.exp(-1.3 * small - 0.9 * wide) * (1 - 0.35 * soft(hair, 0.02))
    up = 0.80 + 0.20 * slope_y * facing  # slope_y > 0: the surface falls away upwards and sees the sky
    light = np.empty((res, res, 3), np.float32)
    for channel, sigma in enumerate((0.0105, 0.0045, 0.0028)):  # red light travels furthest in skin
        spread = 0.35 * lit + 0.65 * soft(lit, sigma) if channel == 0 else 0.5 * lit + 0.5 * soft(lit, sigma)
        shaded = access ** np.float32((0.8, 1.0, 1.08)[channel])
        light[..., channel] = spread * shot.light_colour[channel] * 1.12 * (0.45 + 0.55 * shaded)
        light[..., channel] += shot.ambient[channel] * up * shaded
    if shot.rim:
        edge = np.clip(1 - facing, 0, 1) ** 3 * np.clip(np.sign(lx) * slope_x * facing, 0, 1)
        light += (shot.rim * 1.1 * edge)[..., None]
    return light, access


def _shadow(height: Field, shot: Shot) -> Field:
    """Share of the key light that is not blocked by the form itself, by stepping towards the light."""
    res = height.shape[0]
    grid = min(res, 256)
    low = cv2.resize(height, (grid, grid), interpolation=cv2.INTER_AREA)
    lx, ly, lz = (float(v) for v in shot.light)
    blocked = np.zeros_like(low)
    for distance in np.geomspace(0.008, 0.16, 14):
        move = np.array(((1, 0, lx * distance * grid), (0, 1, ly * distance * grid)), np.float32)
        seen = cv2.warpAffine(
            low,
            move,
            (grid, grid),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        np.maximum(blocked, (seen - low - lz * distance) / np.float32(0.006 + 0.10 * distance), out=blocked)
    free = 1 - 0.64 * np.clip(blocked, 0, 1)
    return cv2.resize(cv2.GaussianBlur(free, (0, 0), 1.4), (res, res), interpolation=cv2.INTER_CUBIC)


def _shifted(field: Field, shot: Shot, distance: float) -> Field:
    """What lies `distance` towards the light of each pixel."""
    res = field.shape[0]
    move = np.array(((1, 0, shot.light[0] * distance * res), (0, 1, shot.light[1] * distance * res)), np.float32)
    return cv2.warpAffine(field, move, (res, res), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _slope(height: Field, axis: int) -> Field:
    return cv2.Sobel(height, cv2.CV_32F, 1 - axis, axis, ksize=3, scale=height.shape[0] / 8)


def _mix(under: Field, over: Field, weight: Field) -> Field:
    return under + weight * (over - under)
