"""What is painted onto the skin: eyes, brows, lashes, nostrils, the open mouth, the beard."""

from __future__ import annotations

import cv2
import numpy as np

from mmtt_build.portraits.geometry import Eye, Geometry
from mmtt_build.portraits.person import Colour, Person, Shot
from mmtt_build.portraits.raster import (
    Coverage,
    Field,
    Points,
    box,
    fill,
    paint,
    soft,
    stroke,
    strokes,
    to_linear,
    vec,
)
from mmtt_build.portraits.skin import beard_area


def eyes(
    image: Field, light: Field, g: Geometry, person: Person, shot: Shot, rng: np.random.Generator
) -> list[Coverage]:
    """Paints both eyes with lids and lashes; returns their coverages, viewer's left first."""
    size = image.shape[0]
    covers = []
    ring = np.random.default_rng(person.texture_seed + 1)
    rays = ring.standard_normal((24, 180)).astype(np.float32)  # one pattern of the iris, used on both eyes
    for eye in g.eyes:
        cover = fill(eye.outline, size)
        window = box(cover, max(4, size // 40))
        if window is not None:
            _lid_lines(image, eye, person, shot, g.unit)
            _eyeball(image, light, cover, window, eye, person, shot, rays)
            _lashes(image, eye, person, shot, rng, g.unit)
        covers.append(cover)
    return covers


def _eyeball(
    image: Field,
    light: Field,
    cover: Coverage,
    window: tuple[slice, slice],
    eye: Eye,
    person: Person,
    shot: Shot,
    rays: Field,
) -> None:
    size = image.shape[0]
    rows, columns = window
    y, x = np.mgrid[rows, columns].astype(np.float32)
    x, y = (x + 0.5) / size, (y + 0.5) / size
    radius = eye.iris_radius
    dx, dy = (x - eye.iris[0]) / radius, (y - eye.iris[1]) / radius
    r, angle = np.sqrt(dx * dx + dy * dy), np.arctan2(dy, dx)

    across = np.abs(x - eye.centre[0]) / (abs(eye.upper[-1, 0] - eye.upper[0, 0]) / 2)
    white = to_linear(vec(0.85, 0.82, 0.80) * np.float32(1 - 0.06 * person.age))
    ball = np.broadcast_to(white, (*r.shape, 3)).copy()
    ball *= (1.02 - 0.42 * np.clip(across, 0, 1.1) ** 2.2)[..., None]
    red = (np.clip(across - 0.55, 0, 1) * 0.5)[..., None]
    ball *= 1 - red * vec(0.05, 0.45, 0.42)

    fibres = cv2.resize(np.hstack([rays, rays[:, :1]]), (724, 48), interpolation=cv2.INTER_CUBIC)
    at_x = ((angle / (2 * np.pi) + 0.5) * 720).astype(np.float32)
    fibre = cv2.remap(fibres, at_x, (np.clip(r, 0, 1) * 40).astype(np.float32), cv2.INTER_LINEAR)
    iris_colour = to_linear(person.iris)
    inner = iris_colour * vec(1.35, 1.05, 0.75)
    share = np.clip((r - 0.38) / 0.34, 0, 1)[..., None]
    iris = inner + share * (iris_colour - inner)
    iris = iris * np.clip(1.15 + 0.30 * fibre, 0.35, 2.1)[..., None]
    # Light that enters from one side gathers at the other side of the iris.
    iris = iris * (1 - 0.45 * (dx * shot.light[0] + dy * shot.light[1]))[..., None]
    iris = iris * (1 - 0.80 * _rise(r, 0.74, 1.0))[..., None]
    iris = iris * _rise(r, 0.36, 0.44)[..., None] + 0.004
    soft_edge = 1.2 / max(radius * size, 4)
    ball += (1 - _rise(r, 1 - soft_edge * 1.2, 1 + soft_edge * 1.2))[..., None] * (iris - ball)

    side_inner = eye.upper[0] if eye.side > 0 else eye.upper[-1]
    lump = np.exp(-(((x - side_inner[0]) / (0.010)) ** 2 + ((y - side_inner[1]) / 0.009) ** 2))[..., None]
    ball += np.clip(lump * 1.1, 0, 0.9) * (to_linear(person.skin * vec(0.95, 0.62, 0.60)) - ball)

    top = np.interp(x[0], eye.upper[:, 0], eye.upper[:, 1]).astype(np.float32)
    bottom = np.interp(x[0], eye.lower[:, 0], eye.lower[:, 1]).astype(np.float32)
    below_lid = (y - top[None, :]) / np.float32(0.016)
    above_rim = (bottom[None, :] - y) / np.float32(0.0035)
    ball *= (0.22 + 0.78 * _rise(below_lid, -0.1, 1.0))[..., None]
    rim = np.clip(1 - above_rim, 0, 1)[..., None] * 0.6
    ball += rim * (to_linear(person.skin * vec(0.98, 0.76, 0.72)) - ball)
    wet = np.exp(-(((above_rim - 1.4) / 0.5) ** 2)) * 0.10

    lit = soft_mean(light, window)
    shaded = ball * (0.35 * light[window] + 0.65 * lit)
    shaded += wet[..., None]
    glint_x, glint_y = dx - 0.62 * shot.light[0], dy - 0.62 * shot.light[1] - 0.05
    glint = np.exp(-((np.sqrt((glint_x * 1.15) ** 2 + glint_y**2) / 0.20) ** 4))
    soft_sky = 0.06 * np.exp(-(((dx - 0.25 * shot.light[0]) ** 2 + (dy + 0.45) ** 2) / 0.22)) * (r < 1)
    weak = np.exp(-(((dx + 0.45 * shot.light[0]) ** 2 + (dy - 0.42) ** 2) / 0.03)) * 0.10
    shaded += ((glint * 0.95 + weak + soft_sky) * _rise(below_lid, 0.05, 0.35))[..., None]
    alpha = cv2.GaussianBlur(cover[window].astype(np.float32) / 255, (0, 0), max(0.4, size * 0.0006))[..., None]
    image[window] += alpha * (shaded - image[window])


def soft_mean(light: Field, window: tuple[slice, slice]) -> Field:
    """Mean light of a window, (3,)."""
    return np.asarray(light[window].mean(axis=(0, 1)), np.float32)


def _rise(value: Field, low: float, high: float) -> Field:
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _lid_lines(image: Field, eye: Eye, person: Person, shot: Shot, unit: float) -> None:
    size = image.shape[0]
    dark = to_linear(person.skin) * vec(0.26, 0.17, 0.15)
    lid = np.vstack([eye.crease, eye.upper[::-1]])
    shadow = to_linear(person.skin) * vec(0.50, 0.36, 0.34)
    paint(image, shadow, soft(fill(lid, size), 0.003) * np.float32(0.14 + 0.28 * shot.lipstick))
    crease = _tapered(eye.crease, 0.0042 * unit)
    paint(image, dark, soft(fill(crease, size), 0.0013) * np.float32(0.62))
    under = eye.lower + vec(0, 0.0105 * unit)
    paint(image, dark, soft(strokes(size, [under[6:-6]], 0.0016), 0.0028) * np.float32(0.22))
    rim = fill(eye.outline, size)
    paint(image, dark, soft(rim, 0.0028) * np.float32(0.40))


def _tapered(line: Points, width: float) -> Points:
    """Closed sliver around a line, widest in the middle."""
    t = np.linspace(-1, 1, len(line), dtype=np.float32)
    half = np.zeros_like(line)
    half[:, 1] = width / 2 * (1 - t * t)
    return np.vstack([line - half, (line + half)[::-1]])


def _lashes(image: Field, eye: Eye, person: Person, shot: Shot, rng: np.random.Generator, unit: float) -> None:
    size = image.shape[0]
    strength = 0.75 + 0.5 * shot.lipstick + 0.25 * (1 - person.masculine)
    dark = vec(0.012, 0.009, 0.008)
    liner = _tapered(eye.upper, (0.0040 + 0.0034 * shot.lipstick) * unit) - vec(0, 0.0008)
    paint(image, dark, soft(fill(liner, size), 0.0007) * np.float32(0.85))
    canvas = np.zeros((size, size), np.uint8)
    for line, direction, count, reach in ((eye.upper, -1, 64, 0.0150), (eye.lower, 1, 34, 0.0065)):
        place = np.sort(rng.uniform(2, len(line) - 2, count))
        outward = place / (len(line) - 1) * 2 - 1  # -1 at the viewer's left corner
        lean = outward * 0.8 + eye.side * 0.25 + rng.normal(0, 0.16, count)
        length = (
            reach
            * unit
            * strength
            * rng.uniform(0.5, 1, count)
            * (0.65 + 0.35 * np.clip(outward * eye.side + 0.4, 0, 1))
        )
        root = np.stack([np.interp(place, np.arange(len(line)), line[:, k]) for k in (0, 1)], axis=1)
        t = np.linspace(0, 1, 6)[None, :]
        x = root[:, :1] + length[:, None] * lean[:, None] * (t + 0.25 * t**2)
        y = root[:, 1:] + direction * length[:, None] * (0.25 * t + 0.55 * t**2)
        stroke(canvas, list(np.stack([x, y], axis=2)), 210 if direction < 0 else 120, 0.0009)
    paint(image, dark, canvas)


def nostrils(image: Field, g: Geometry, person: Person) -> None:
    """Paints the nostrils and the shadow beneath the nose."""
    size = image.shape[0]
    dark = to_linear(person.skin) * vec(0.16, 0.075, 0.06)
    for outline in g.nostrils:
        paint(image, dark, soft(fill(outline, size), 0.0024) * np.float32(0.90))
    paint(image, dark, soft(strokes(size, [g.nose_base], 0.003), 0.0045) * np.float32(0.15))
    for points in (g.nose_outline[20:38], g.nose_outline[52:70]):
        paint(image, dark, soft(strokes(size, [points], 0.0022), 0.0024) * np.float32(0.50))
        paint(image, dark, soft(strokes(size, [points], 0.0040), 0.0070) * np.float32(0.22))


def mouth(image: Field, light: Field, g: Geometry, person: Person, shot: Shot) -> Coverage | None:
    """Paints the opening between the lips; returns its coverage, or None for a closed mouth."""
    size = image.shape[0]
    dark = vec(0.045, 0.012, 0.011)
    seam = _tapered((g.lip_inner_top + g.lip_inner_bottom) / 2, 0.0042 * g.unit)
    if not shot.mouth_open:
        paint(image, dark + to_linear(person.lips) * 0.12, soft(fill(seam, size), 0.0011) * np.float32(0.85))
        return None
    cover = fill(g.mouth, size)
    paint(image, dark, cover)
    window = box(cover, 3)
    if window is None:
        return cover
    rows, columns = window
    y, x = np.mgrid[rows, columns].astype(np.float32)
    x, y = (x + 0.5) / size, (y + 0.5) / size
    top = np.interp(x[0], g.lip_inner_top[:, 0], g.lip_inner_top[:, 1]).astype(np.float32)[None, :]
    bottom = np.interp(x[0], g.lip_inner_bottom[:, 0], g.lip_inner_bottom[:, 1]).astype(np.float32)[None, :]
    middle = g.lip_inner_top[30] * 0.8 + g.nose_base[2] * 0.2
    u = (x - middle[0]) / (0.1 * g.unit)
    arch = np.arcsin(np.clip(u * 0.98, -1, 1))  # teeth stand on a curve and narrow to the sides
    colour = to_linear(vec(0.93, 0.90, 0.83) - np.float32(person.age) * vec(0.05, 0.08, 0.15))
    lit = light[window]
    inside = np.zeros((*u.shape, 3), np.float32) + dark
    tongue = np.exp(-((u / 0.55) ** 2) - ((bottom - y) / 0.012) ** 2)[..., None]
    inside += tongue * (vec(0.22, 0.05, 0.05) - inside) * 0.8
    for edge, direction, reach, pitch in ((top, 1, 0.028, 3.55), (bottom, -1, 0.0075, 4.6)):
        depth = (y - edge) * direction / g.unit  # from the lip into the opening
        place = arch * pitch
        tooth = np.abs(place - np.round(place - 0.5) - 0.5) * 2  # 0 in a tooth's middle, 1 at its sides
        number = np.abs(np.round(place - 0.5) + 0.5)
        drop = reach * (1 - 0.10 * (number > 1)) * (1 - 0.16 * tooth**4) - 0.006 * np.abs(u) ** 2
        body = (
            1 - _rise(depth, drop - 0.0022, drop + 0.0012)
            if direction > 0
            else (1 - _rise(depth, reach - 0.002, reach + 0.002)) * 0.75
        )
        gap = 1 - 0.28 * _rise(tooth, 0.78, 1.0)
        fade = (1 - 0.78 * _rise(np.abs(u), 0.30, 0.98)) * (0.45 + 0.55 * _rise(depth, -0.001, 0.009))
        round_off = 1 - 0.18 * tooth**2
        shine = 0.16 * np.exp(-(((depth - 0.010) / 0.004) ** 2) - (tooth / 0.6) ** 2) * fade
        enamel = colour * (gap * fade * round_off)[..., None] * lit * 0.92 + shine[..., None]
        inside += body[..., None] * (enamel - inside)
    alpha = cv2.GaussianBlur(cover[window].astype(np.float32) / 255, (0, 0), max(0.4, size * 0.0008))[..., None]
    image[window] += alpha * (inside - image[window])
    return cover


def brows(image: Field, light: Field, g: Geometry, person: Person) -> list[Coverage]:
    """Paints the brows hair by hair; returns their coverages, viewer's left first."""
    size = image.shape[0]
    colour = to_linear(hair_mix(person) * np.float32(0.75)) * 0.75
    covers = []
    own = np.random.default_rng(person.texture_seed + 2)
    count = int(300 * person.brow_density)
    draws = own.uniform(0, 1, (count, 2)), own.normal(0, 1, (count, 2)), own.uniform(0.6, 1, count)
    for outline, side in zip(g.brows, (-1, 1), strict=True):
        top, bottom = outline[:40], outline[:39:-1]
        (t, r), (bend, turn), scale = draws[0].T, draws[1].T, draws[2]
        at = t * 38
        start = [
            np.interp(at, np.arange(40), top[:, k]) * (1 - r) + np.interp(at, np.arange(40), bottom[:, k]) * r
            for k in (0, 1)
        ]
        along = np.gradient((top + bottom) / 2, axis=0)
        heading = np.arctan2(*(np.interp(at, np.arange(40), along[:, k]) for k in (1, 0)))
        rise = (1.15 * (1 - t) ** 1.6 + 0.28 - 0.75 * (1 - r)) * np.clip(1.2 - t, 0.3, 1)
        heading = heading - side * rise + 0.14 * turn
        length = (0.024 - 0.009 * t) * scale * g.unit
        s = np.linspace(0, 1, 5)[None, :]
        swing = heading[:, None] + side * (0.35 + 0.1 * bend[:, None]) * s
        x = start[0][:, None] + length[:, None] * s * np.cos(swing)
        y = start[1][:, None] + length[:, None] * s * np.sin(swing)
        canvas = np.zeros((size, size), np.uint8)
        lines = np.stack([x, y], axis=2)
        stroke(canvas, list(lines[::2]), 165, 0.0013)
        stroke(canvas, list(lines[1::2]), 235, 0.0010)
        body = soft(fill(outline, size), 0.0032) * np.float32(0.30 + 0.26 * person.brow_density)
        strands = cv2.GaussianBlur(canvas, (0, 0), max(0.35, size * 0.00045)).astype(np.float32) / 255
        weight = 1 - (1 - body) * (1 - strands * 0.8)
        paint(image, colour * (0.35 + 0.65 * soft_light(light, outline)), weight)
        closed = soft(weight, 0.0030)
        covers.append((np.clip((closed - 0.10) * 5, 0, 1) * 255).astype(np.uint8))
    return covers


def soft_light(light: Field, points: Points) -> Field:
    """Mean light around points, (3,)."""
    size = light.shape[0]
    (x0, y0), (x1, y1) = (
        np.clip(points.min(axis=0) * size, 0, size - 2).astype(int),
        np.clip(points.max(axis=0) * size, 2, size).astype(int),
    )
    return np.asarray(light[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].mean(axis=(0, 1)), np.float32)


def hair_mix(person: Person) -> Colour:
    """Mean colour of the hair with its share of grey, sRGB."""
    grey = vec(0.70, 0.69, 0.67)
    return np.asarray(person.hair + np.float32(0.85 * person.grey) * (grey - person.hair), np.float32)


def beard(image: Field, light: Field, g: Geometry, person: Person, lips: Coverage) -> Coverage:
    """Paints stubble or beard hair by hair around the lips; returns its coverage."""
    size = image.shape[0]
    canvas = np.zeros((size, size), np.uint8)
    if person.beard < 0.5:
        return canvas
    full = person.beard == 1.0
    own = np.random.default_rng(person.texture_seed + 3)
    density = _beard_density(g, person)
    count = 7000 if full else 3800
    low, high = g.jaw[[1, 15], 0]
    xy = own.uniform((low, g.nose_base[2, 1]), (high, g.chin[1] + 0.01), (count, 2))
    cells = np.clip((xy * density.shape[0]).astype(int), 0, density.shape[0] - 1)
    xy = xy[own.uniform(0, 1, count) < density[cells[:, 1], cells[:, 0]]]
    middle = g.lip_bottom[30, 0]
    away = np.clip((xy[:, 0] - middle) / 0.2, -1, 1)
    angle = np.pi / 2 - away * 0.45 + own.normal(0, 0.30, len(xy))
    length = (own.uniform(0.010, 0.022, len(xy)) if full else own.uniform(0.003, 0.007, len(xy))) * g.unit
    s = np.linspace(0, 1, 4)[None, :]
    bend = angle[:, None] + own.normal(0, 0.4, len(xy))[:, None] * s
    lines = np.stack(
        [xy[:, :1] + length[:, None] * s * np.cos(bend), xy[:, 1:] + length[:, None] * s * np.sin(bend)],
        axis=2,
    )
    shadow = soft(cv2.resize(density, (size, size), interpolation=cv2.INTER_LINEAR), 0.006)
    spare = 1 - soft(lips, 0.0015)
    colour = to_linear(hair_mix(person))
    if full:
        paint(image, colour * 0.28 * soft_light(light, g.jaw[4:13]), shadow * spare * np.float32(0.72))
    tones = own.integers(0, 3, len(xy))
    for tone, gain in enumerate((0.45, 0.9, 1.6 + 0.8 * person.grey)):
        part = np.zeros((size, size), np.uint8)
        stroke(part, list(lines[tones == tone]), 205 if full else 120, 0.0011)
        np.maximum(canvas, part, out=canvas)
        paint(image, light * (colour * np.float32(gain)), part.astype(np.float32) / 255 * spare)
    return canvas


def _beard_density(g: Geometry, person: Person) -> Field:
    """Probability of a beard hair, (256, 256)."""
    grid = 256
    area = soft(fill(beard_area(g, person), grid), 0.010)
    lips = np.vstack([g.lip_top, g.lip_bottom[::-1]])
    centre = lips.mean(axis=0)
    if person.beard_shape != "full":
        axis = (np.arange(grid, dtype=np.float32) + 0.5) / grid
        x, y = (axis - centre[0]) / (0.130 * g.unit), (axis - centre[1] - 0.02) / (0.20 * g.unit)
        near = np.clip((1.08 - np.sqrt(x[None, :] ** 2 + y[:, None] ** 2)) * 5, 0, 1)
        if person.beard_shape == "moustache":
            near = near * np.clip((centre[1] + 0.004 - axis)[:, None] * 120, 0, 1)
        area = area * near
    return np.asarray(area * (1 - fill(lips, grid).astype(np.float32) / 255), np.float32)
