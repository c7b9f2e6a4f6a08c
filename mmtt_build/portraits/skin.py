"""Skin: its colour from melanin and blood, its fine texture and shine, under the light of `relief`."""

from __future__ import annotations

import cv2
import numpy as np

from mmtt_build.portraits.geometry import Geometry
from mmtt_build.portraits.person import Person, Shot
from mmtt_build.portraits.raster import (
    Coverage,
    Field,
    Points,
    box,
    fill,
    fixed,
    noise,
    paint,
    soft,
    strokes,
    to_linear,
    vec,
)
from mmtt_build.portraits.relief import Relief

_MELANIN = vec(0.55, 0.85, 1.1)  # absorption per channel
_BLOOD = vec(0.10, 0.62, 0.50)


def render(
    geometry: Geometry, person: Person, shot: Shot, relief: Relief, body: Coverage, rng: np.random.Generator
) -> tuple[Field, Field]:
    """Skin of head, ears and neck.

    Args:
        geometry: the curves.
        person: colour and texture.
        shot: light and make-up.
        relief: form and light.
        body: coverage (S, S) of all that is skin; outside its bounding box nothing is computed.
        rng: of the pores.

    Returns:
        The skin's radiance, 0 outside the box, and the light on it, both (S, S, 3) float32, linear.
    """
    size = body.shape[0]
    window = box(body) or (slice(0, size), slice(0, size))
    light = cv2.resize(relief.light, (size, size), interpolation=cv2.INTER_LINEAR)
    texture = np.random.default_rng(person.texture_seed)
    smooth = _albedo(geometry, person, shot, texture, relief)
    albedo = cv2.resize(smooth, (size, size), interpolation=cv2.INTER_LINEAR)[window]
    pores = (noise(rng, size, size / 3) * np.float32(0.75) + noise(rng, size, size / 7) * np.float32(0.3))[window]
    spots = _spots(geometry, person, texture, size)[window]
    lips = np.maximum(soft(fill(geometry.upper_lip, size), 0.0012), soft(fill(geometry.lower_lip, size), 0.0012))
    furrows = _lip_furrows(geometry, size, texture)
    tint = _lip_colour(person, shot) * (1 - np.float32(0.22) * furrows)[..., None]
    radiance = np.zeros((size, size, 3), np.float32)
    inner = radiance[window]
    roughness = (1 - lips[window]) * np.float32(0.022 + 0.02 * person.age)
    np.multiply(albedo, (spots * (1 + pores * roughness))[..., None], out=inner)
    paint(radiance, tint, lips * np.float32(0.80 + 0.15 * shot.lipstick))
    inner *= light[window]
    shine = _shine(geometry, person, shot, relief, pores, lips[window], furrows[window], size, window)
    inner += shine[..., None] * shot.light_colour
    return radiance, light


def _albedo(g: Geometry, person: Person, shot: Shot, rng: np.random.Generator, relief: Relief) -> Field:
    """Smooth colour map at the relief's resolution, linear."""
    res = relief.shade.shape[0]
    u = g.unit
    fair = 1 - 0.6 * person.melanin
    blood = noise(rng, res, 14, 3) * np.float32(0.05) + noise(rng, res, 60, 2) * np.float32(0.04)
    melanin = noise(rng, res, 8, 3) * np.float32(0.035) + noise(rng, res, 90) * np.float32(0.02)
    ruddy = 0.34 * person.ruddy * fair

    def add(field: Field, centre: Points, sx: float, sy: float, amount: float) -> None:
        axis = (np.arange(res, dtype=np.float32) + 0.5) / res
        x = np.exp(-0.5 * ((axis - centre[0]) / (sx * u)) ** 2)
        y = np.exp(-0.5 * ((axis - centre[1]) / (sy * u)) ** 2) * np.float32(amount)
        field += y[:, None] * x[None, :]

    add(blood, g.nose_ridge[-1], 0.030, 0.028, ruddy)
    add(blood, g.chin + vec(0, -0.06 * u), 0.05, 0.035, 0.5 * ruddy)
    for eye, ear in zip(g.eyes, g.ears, strict=True):
        add(
            blood,
            eye.centre + vec(eye.side * 0.028, 0.125 * u),
            0.055,
            0.045,
            ruddy * (0.8 + 0.6 * person.makeup),
        )
        add(blood, ear.mean(axis=0), 0.03, 0.06, 0.7 * ruddy)
        add(blood, eye.centre + vec(0, 0.004), 0.055, 0.026, 0.10 * fair)
        add(melanin, eye.centre + vec(-eye.side * 0.012, 0.034 * u), 0.036, 0.014, 0.13 + 0.15 * person.age)
        add(melanin, eye.centre + vec(0, -0.022 * u), 0.05, 0.014, 0.10 + 0.35 * shot.lipstick)
    for ala in g.alae:
        add(blood, ala, 0.016, 0.016, 0.6 * ruddy)
    add(melanin, g.nose_ridge[0] + vec(0, -0.2 * u), 0.2, 0.08, -0.04)
    if person.beard:
        beard = soft(fill(beard_area(g, person), res), 0.022)
        melanin += beard * np.float32((0.22 + 0.35 * min(person.beard, 0.5)) * (1 - 0.75 * person.grey))
    base = to_linear(person.skin)
    return np.asarray(base * np.exp(-melanin[..., None] * _MELANIN - blood[..., None] * _BLOOD), np.float32)


def beard_area(g: Geometry, person: Person) -> Points:
    """Closed outline of where a beard grows, cheeks to chin; the lips lie inside and are spared by the caller."""
    centre = g.lip_bottom[30]
    inner = g.folds[0][20] * 0.4 + g.jaw[3] * 0.6, g.folds[1][20] * 0.4 + g.jaw[13] * 0.6
    jaw = centre + (g.jaw[2:15] - centre) * np.float32(0.985)
    return np.vstack(
        [
            jaw,
            inner[1][None],
            g.folds[1][18:19],
            g.nose_base[2:3] + vec(0, 0.006),
            g.folds[0][18:19],
            inner[0][None],
        ]
    )


def _spots(g: Geometry, person: Person, rng: np.random.Generator, size: int) -> Field:
    """Freckles and moles as a factor (size, size)."""
    canvas = np.full((size, size), 255, np.uint8)
    centre = g.nose_ridge[20]
    if person.freckles:
        count = int(500 * person.freckles)
        for (x, y), shade, radius in zip(
            rng.normal(0, (0.13, 0.085), (count, 2)),
            rng.uniform(175, 242, count),
            rng.uniform(0.0006, 0.0020, count),
            strict=True,
        ):
            at = fixed(centre + vec(x, y), size)
            cv2.circle(
                canvas,
                (int(at[0]), int(at[1])),
                max(8, int(radius * size * 16)),
                int(shade),
                -1,
                cv2.LINE_AA,
                4,
            )
    for x, y, radius in person.moles:
        at = fixed(g.nose_ridge[0] + vec(x, y) * g.unit, size)
        cv2.circle(
            canvas,
            (int(at[0]), int(at[1])),
            max(8, int(radius * 0.0035 * size * 16)),
            110,
            -1,
            cv2.LINE_AA,
            4,
        )
    return soft(canvas, 0.0008)


def _lip_colour(person: Person, shot: Shot) -> Field:
    red = vec(0.66, 0.16, 0.20) * np.float32(0.5 + 0.5 * (1 - person.melanin))
    own = person.lips * 0.6 + person.skin * 0.4 * vec(1.0, 0.72, 0.70)
    return to_linear(own + np.float32(0.75 * shot.lipstick) * (red - own))


def _lip_furrows(g: Geometry, size: int, rng: np.random.Generator) -> Field:
    """Fine lines across the lips."""
    lines = []
    for top, bottom in ((g.lip_top, g.lip_inner_top), (g.lip_inner_bottom, g.lip_bottom)):
        places = np.sort(rng.uniform(4, 56, 34))
        for place in places:
            i = int(place)
            start, stop = sorted(rng.uniform(0.05, 0.95, 2))
            a, b = top[i], bottom[min(max(i + int(rng.integers(-2, 3)), 0), 60)]
            lines.append(np.stack([a + (b - a) * np.float32(start), a + (b - a) * np.float32(stop)]))
    return soft(strokes(size, lines, 0.0012), 0.0009)


def _shine(
    g: Geometry,
    person: Person,
    shot: Shot,
    relief: Relief,
    pores: Field,
    lips: Field,
    furrows: Field,
    size: int,
    window: tuple[slice, slice],
) -> Field:
    """Specular reflection within a window: two lobes, rough by pores, oily on forehead and nose, wet on the lips."""
    half = shot.light + vec(0, 0, 1)
    hx, hy, hz = (float(v) for v in half / np.linalg.norm(half))
    slope_x, slope_y, access = (
        cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR)[window]
        for part in (relief.slope_x, relief.slope_y, relief.shade)
    )
    bump = pores * np.float32(0.030) * (1 - lips) + furrows * np.float32(0.25) * lips
    slope_x = slope_x + bump
    slope_y = slope_y + cv2.warpAffine(bump, np.array(((1, 0, 2), (0, 1, 1)), np.float32), bump.shape[::-1])
    facing = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    aligned = np.clip((hz - hx * slope_x - hy * slope_y) * facing, 0, 1)
    second = aligned * aligned
    fourth = second * second
    broad = fourth * fourth * fourth * second  # 14th power
    tight = broad * broad * broad * fourth * fourth  # 50th
    res = relief.shade.shape[0]
    oil = np.full((res, res), 0.5, np.float32)
    for centre, sigma, amount in ((g.nose_ridge[24], 0.05, 0.6), (g.nose_ridge[0] + vec(0, -0.15), 0.09, 0.35)):
        axis = (np.arange(res, dtype=np.float32) + 0.5) / res
        x, y = (np.exp(-0.5 * ((axis - c) / (sigma * g.unit)) ** 2) for c in centre)
        oil += np.float32(amount) * y[:, None] * x[None, :]
    oil = cv2.resize(oil, (size, size), interpolation=cv2.INTER_LINEAR)[window]
    gloss = (0.045 + 0.02 * person.melanin) * broad + (0.085 + 0.02 * person.melanin) * tight
    return np.asarray((gloss * oil * (1 - lips) + lips * (0.03 * broad + 0.26 * tight)) * access**2, np.float32)
