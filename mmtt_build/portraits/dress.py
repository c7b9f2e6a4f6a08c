"""What surrounds the face: background, cloth, glasses, hat, jewellery."""

from __future__ import annotations

import cv2
import numpy as np

from mmtt_build.portraits.geometry import Geometry
from mmtt_build.portraits.person import Shot
from mmtt_build.portraits.raster import (
    Coverage,
    Field,
    Points,
    curve,
    fill,
    noise,
    paint,
    soft,
    strokes,
    to_linear,
    vec,
)


def background(rng: np.random.Generator, size: int) -> Field:
    """An out-of-focus place, (size, size, 3) linear."""
    grid = 128
    y, x = np.mgrid[0:grid, 0:grid].astype(np.float32) / grid
    base = np.clip(rng.choice((0.12, 0.35, 0.6, 0.85)) + rng.normal(0, 0.045, 3), 0.03, 0.97)
    other = np.clip(base + rng.normal(0, 0.12) + rng.normal(0, 0.05, 3), 0.02, 0.97)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    image = (base + ramp * (other - base)).astype(np.float32)
    kind = rng.choice(("studio", "room", "foliage", "lights"), p=(0.36, 0.34, 0.15, 0.15))
    if kind == "studio":
        glow = np.exp(-((x - rng.uniform(0.3, 0.7)) ** 2 + (y - 0.4) ** 2) / 0.16)[..., None]
        image = image * (0.75 + 0.35 * glow)
    elif kind == "room":
        for _ in range(int(rng.integers(4, 9))):
            corner = rng.uniform(-0.2, 1.0, 2)
            extent = rng.uniform((0.06, 0.2), (0.4, 0.9))
            colour = np.clip(base + rng.normal(0, 0.14) + rng.normal(0, 0.06, 3), 0, 1)
            a, b = (corner * grid).astype(int), ((corner + extent) * grid).astype(int)
            cv2.rectangle(
                image, tuple(int(v) for v in a), tuple(int(v) for v in b), tuple(float(c) for c in colour), -1
            )
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(2.5, 6)))
    elif kind == "foliage":
        leaf = vec(0.27, 0.36, 0.21) * np.float32(rng.uniform(0.6, 1.7))
        image = (
            leaf * (1 + 0.24 * noise(rng, grid, 9, 3)[..., None])
            + 0.10 * np.maximum(noise(rng, grid, 12), 0.8)[..., None]
        )
        image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 3.2)
    else:
        image *= 0.45
        for _ in range(int(rng.integers(10, 30))):
            disc = np.zeros((grid, grid), np.uint8)
            at = rng.uniform(0, grid, 2)
            cv2.circle(disc, (int(at[0] * 16), int(at[1] * 16)), int(rng.uniform(2, 7) * 16), 255, -1, cv2.LINE_AA, 4)
            tint = np.clip(vec(0.9, 0.7, 0.45) + rng.normal(0, 0.2, 3), 0, 1).astype(np.float32)
            image += (disc.astype(np.float32) / 255 * np.float32(rng.uniform(0.1, 0.6)))[..., None] * tint
        image = cv2.GaussianBlur(image, (0, 0), 1.3)
    linear = to_linear(np.clip(image, 0.01, 1.2).astype(np.float32))
    return np.maximum(cv2.resize(linear, (size, size), interpolation=cv2.INTER_CUBIC), 0)


def cloth(image: Field, g: Geometry, shot: Shot, rng: np.random.Generator) -> Coverage:
    """Paints the garment over the shoulders; returns its coverage."""
    size = image.shape[0]
    u = g.unit
    kind = shot.cloth
    middle = (g.neck[[30, -30], 0].mean(), g.chin[1])
    half = (g.neck[30, 0] - g.neck[-30, 0]) / 2
    depth = {"crew": 0.075, "vneck": 0.125, "shirt": 0.075, "jacket": 0.11, "scoop": 0.14}[kind] * u
    open_w = {"crew": 1.02, "vneck": 1.10, "shirt": 1.0, "jacket": 1.12, "scoop": 1.45}[kind] * half
    rise = {"crew": 0.015, "vneck": 0.015, "shirt": -0.005, "jacket": 0.015, "scoop": 0.05}[kind] * u
    power = 1.25 if kind in ("vneck", "shirt", "jacket") else 2.2
    t = np.linspace(-1, 1, 61, dtype=np.float32)
    dip = middle[1] + rise + (depth - rise + 0.04 * u) * (1 - np.abs(t) ** power)
    collar = np.stack([middle[0] + open_w * t, dip], axis=1)
    slope = 0.30 * rng.uniform(0.75, 1.15)
    right_edge = collar[-1] + curve(
        np.array([(0, 0), (0.12, slope * 0.25), (0.28, slope * 0.62), (0.5, slope * 1.3)], np.float32), 30
    )
    left_edge = collar[0] + curve(
        np.array([(0, 0), (-0.12, slope * 0.25), (-0.28, slope * 0.62), (-0.5, slope * 1.3)], np.float32), 30
    )
    outline = np.vstack([collar, right_edge, [(1.4, 1.4), (-0.4, 1.4)], left_edge[::-1]]).astype(np.float32)
    cover = fill(outline, size)
    grid = min(size, 512)
    folds = noise(rng, grid, 5, 2) * np.float32(0.10)
    angle = rng.uniform(-0.6, 0.6)
    y, x = np.mgrid[0:grid, 0:grid].astype(np.float32) / grid
    folds += 0.10 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * 26 + 3 * folds)
    round_off = 1 - 0.55 * np.clip(np.abs(x - middle[0]) / 0.62, 0, 1) ** 2
    side = 1 + 0.35 * float(shot.light[0]) * (x - middle[0]) * 2
    shade = cv2.resize((0.62 + folds) * round_off * side, (size, size), interpolation=cv2.INTER_LINEAR)
    weave = 1 + 0.05 * noise(rng, size, size / 2.5)
    if rng.random() < 0.25:
        stripes = np.sin((np.arange(size, dtype=np.float32) / size) * rng.uniform(120, 260)) > 0.55
        weave = weave * (1 - 0.25 * stripes[None, :])
    tone = to_linear(shot.cloth_colour)
    amount = np.zeros_like(image)
    rows = slice(max(int(collar[:, 1].min() * size) - size // 20, 0), size)  # no garment above the collar
    amount[rows] = (shade * weave)[rows, :, None] * (shot.light_colour * 0.75 + shot.ambient)
    neck_shadow = soft(cover, 0.012)
    paint(image, vec(0.01, 0.008, 0.008), (neck_shadow * np.float32(0.35)))
    paint(image, tone * amount, cover)
    if kind in ("crew", "vneck"):
        band = collar + vec(0, 0.011)
        paint(image, tone * 0.35, soft(strokes(size, [band], 0.0016), 0.001) * np.float32(0.8))
        paint(
            image,
            tone * 1.3 + 0.01,
            soft(strokes(size, [collar + vec(0, 0.002)], 0.003), 0.001) * np.float32(0.5),
        )
    if kind in ("shirt", "jacket"):
        cover = np.maximum(cover, _collar(image, g, shot, collar, middle, tone, amount))
    return cover


def _collar(
    image: Field,
    g: Geometry,
    shot: Shot,
    collar: Points,
    middle: tuple[float, float],
    tone: Field,
    amount: Field,
) -> Coverage:
    size, u = image.shape[0], g.unit
    total: Coverage = np.zeros((size, size), np.uint8)
    for side in (-1, 1):
        edge = collar[30:] if side > 0 else collar[30::-1]
        t = np.linspace(0, 1, len(edge), dtype=np.float32)[:, None]
        fold = edge + vec(side * 0.042, 0.040) * u * (1 - 0.45 * t)
        tip = edge[0] + vec(side * 0.030, 0.085) * u
        cover = fill(np.vstack([edge + vec(0, -0.012) * u * t, fold[:2:-1], tip[None]]), size)
        paint(image, vec(0.01, 0.01, 0.01), soft(cover, 0.004) * np.float32(0.45))
        paint(image, tone * amount * np.float32(1.12) + np.float32(0.003), cover)
        np.maximum(total, cover, out=total)
    return total


def glasses_outlines(g: Geometry, shot: Shot) -> list[Points]:
    """Closed outlines of both lenses."""
    u = g.unit
    t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    power = {"round": 2.0, "square": 3.6, "oval": 2.4}[shot.glasses]
    rx, ry = {"round": (0.074, 0.068), "square": (0.080, 0.056), "oval": (0.079, 0.050)}[shot.glasses]
    c, s = np.cos(t), np.sin(t)
    x = np.sign(c) * np.abs(c) ** (2 / power) * rx * u
    y = np.sign(s) * np.abs(s) ** (2 / power) * ry * u
    shape = np.stack([x, y], axis=1).astype(np.float32)
    squeeze = [1 + side * 0.35 * shot.yaw for side in (-1, 1)]
    return [
        eye.centre + vec(eye.side * 0.006, 0.010 * u) + shape * vec(k, 1)
        for eye, k in zip(g.eyes, squeeze, strict=True)
    ]


def glasses(image: Field, g: Geometry, shot: Shot, rng: np.random.Generator) -> tuple[Coverage, Coverage]:
    """Paints glasses; returns the coverage of the frame and of the lenses."""
    size, u = image.shape[0], g.unit
    lenses = glasses_outlines(g, shot)
    metal = rng.random() < 0.4
    width = (0.0045 if metal else 0.0105) * u
    colours = ((0.05, 0.04, 0.04), (0.20, 0.10, 0.05), (0.10, 0.03, 0.03), (0.05, 0.06, 0.12))
    colour = np.array((0.55, 0.47, 0.36) if metal else colours[int(rng.integers(4))], np.float32)
    left, right = lenses
    a, b = left[left[:, 0].argmax()], right[right[:, 0].argmin()]
    lift = vec(0, -0.012 * u)
    bridge = curve(np.stack([a + lift, (a + b) / 2 + lift * 1.9, b + lift]), 20)
    arms = [
        np.stack([lens[fn(lens[:, 0])] + lift, ear[[4, 4]].mean(axis=0) + vec(0, 0.012)])
        for lens, ear, fn in ((left, g.ears[0], np.argmin), (right, g.ears[1], np.argmax))
    ]
    rims = strokes(size, lenses, width, closed=True)
    cv2.max(rims, strokes(size, [bridge, *arms], width * 0.9), rims)
    lens = np.maximum(fill(left, size), fill(right, size))
    drop = np.array(((1, 0, -shot.light[0] * 0.012 * size), (0, 1, 0.012 * size)), np.float32)
    paint(
        image,
        vec(0.02, 0.01, 0.01),
        cv2.warpAffine(soft(rims, 0.004), drop, (size, size)) * np.float32(0.45),
    )
    axis = np.arange(size, dtype=np.float32) / size
    x, y = axis[None, :], axis[:, None]
    streak = np.exp(-(((x + y * 0.6 - left.mean(axis=0)[0] - 0.32) / 0.02) ** 2)) + np.exp(
        -(((x + y * 0.6 - right.mean(axis=0)[0] - 0.32) / 0.02) ** 2)
    )
    paint(image, np.ones(3, np.float32), soft(lens, 0.001) * (0.012 + 0.06 * streak.astype(np.float32)))
    paint(image, colour * (0.5 * shot.light_colour + shot.ambient), rims)
    gleam = soft(
        strokes(
            size,
            [line - vec(0, width * 0.2) for line in (left[48:72], right[48:72])],
            width * 0.25,
        ),
        0.0008,
    )
    paint(image, np.full(3, 0.8, np.float32), gleam * np.float32(0.55 if metal else 0.35))
    return rims, lens


def hat(image: Field, g: Geometry, shot: Shot, top: Points, rng: np.random.Generator) -> Coverage:
    """Paints a knitted hat over the hair's silhouette `top`; returns its coverage."""
    size, u = image.shape[0], g.unit
    brow = min(g.brows[0][:, 1].min(), g.brows[1][:, 1].min()) - 0.085 * u
    crown = top[(top[:, 1] < brow + 0.05)]
    left, right = crown[0], crown[-1]
    t = np.linspace(0, 1, 50, dtype=np.float32)[:, None]
    band = right + t * (left - right) + vec(0, 1) * (0.045 * u * np.sin(np.pi * t)) * -1
    outline = np.vstack([crown + vec(0, -0.012), band]).astype(np.float32)
    cover = fill(outline, size)
    colour = to_linear(np.clip(rng.choice((0.15, 0.4, 0.7)) + rng.normal(0, 0.15, 3), 0.04, 0.9).astype(np.float32))
    axis = np.arange(size, dtype=np.float32) / size
    centre = outline.mean(axis=0)
    x, y = (axis[None, :] - centre[0]) / 0.30, (axis[:, None] - centre[1] - 0.12) / 0.30
    flat = np.minimum(x**2 + y**2, 0.97)
    facing = x * shot.light[0] + y * shot.light[1] + np.sqrt(1 - flat) * shot.light[2]
    light = np.clip((facing + 0.3) / 1.3, 0.05, 1)
    knit = 1 + 0.20 * np.sin(x * 130 / np.sqrt(1.05 - flat * 0.6)) * (0.7 + 0.3 * np.sin(y * 260))
    under = soft(cover, 0.016)
    shifted = cv2.warpAffine(under, np.array(((1, 0, 0), (0, 1, 0.012 * size)), np.float32), (size, size))
    paint(image, vec(0.01, 0.006, 0.005), shifted * np.float32(0.5))
    shade = (light * knit)[..., None].astype(np.float32) * (shot.light_colour * 0.9) + shot.ambient * 0.7
    paint(image, colour * shade, cover)
    fold = band - vec(0, 0.075 * u)
    paint(image, colour * 0.15, soft(strokes(size, [fold], 0.003), 0.004) * np.float32(0.8))
    return cover


def earrings(image: Field, g: Geometry, shot: Shot, visible: Coverage) -> Coverage:
    """Paints earrings on the lobes that `visible` (a coverage of the bare ears) shows; returns their coverage."""
    size, u = image.shape[0], g.unit
    total: Coverage = np.zeros((size, size), np.uint8)
    gold = vec(0.75, 0.55, 0.24)
    for ear, side in zip(g.ears, (-1, 1), strict=True):
        lobe = ear[ear[:, 1].argmax()] + vec(side * 0.006, -0.012)
        x, y = (int(np.clip(v * size, 0, size - 1)) for v in lobe)
        if not visible[y, x]:
            continue
        cover: Coverage = np.zeros((size, size), np.uint8)
        t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        circle = np.stack([np.cos(t), np.sin(t)], axis=1).astype(np.float32)
        if shot.earrings == "hoop":
            cover = strokes(
                size,
                [lobe + vec(0, 0.032 * u) + circle * vec(0.020, 0.032) * u],
                0.006 * u,
                closed=True,
            )
        else:
            cover = fill(lobe + circle * np.float32(0.0095 * u), size)
            if shot.earrings == "drop":
                low = lobe + vec(0, 0.05 * u)
                cover = np.maximum(cover, fill(low + circle * vec(0.011, 0.020) * u, size))
                cover = np.maximum(cover, strokes(size, [np.stack([lobe, low])], 0.003 * u))
        glow = soft(cover, 0.0025)
        glint = np.clip(
            glow
            - cv2.warpAffine(glow, np.array(((1, 0, 0.003 * size), (0, 1, 0.004 * size)), np.float32), (size, size)),
            0,
            1,
        )
        paint(image, gold * 0.05, soft(cover, 0.004) * np.float32(0.35))
        paint(image, (gold * (0.25 + 0.5 * glow)[..., None] + 2.2 * glint[..., None]) * shot.light_colour, cover)
        np.maximum(total, cover, out=total)
    return total


def necklace(image: Field, g: Geometry, shot: Shot, chest: Coverage) -> Coverage:
    """Paints a chain around the neck, on `chest` (the coverage of neck and cloth); returns its coverage."""
    size, u = image.shape[0], g.unit
    middle = np.array((g.neck[[30, -30], 0].mean(), g.chin[1]), np.float32)
    half = (g.neck[30, 0] - g.neck[-30, 0]) / 2
    t = np.linspace(-0.97, 0.97, 75, dtype=np.float32)
    line = middle + np.stack([half * t, 0.022 * u + 0.062 * u * (1 - t**2)], axis=1)
    cover: Coverage = np.zeros((size, size), np.uint8)
    for point in line:
        cv2.circle(
            cover,
            tuple(int(v) for v in (point * size - 0.5) * 16),
            int(0.0038 * u * size * 16),
            255,
            -1,
            cv2.LINE_AA,
            4,
        )
    cv2.min(cover, chest, cover)
    shade = cv2.warpAffine(soft(cover, 0.003), np.array(((1, 0, 0), (0, 1, 0.005 * size)), np.float32), (size, size))
    paint(image, vec(0.03, 0.015, 0.01), shade * np.float32(0.55))
    glow = soft(cover, 0.0012)
    glint = np.clip(
        glow - cv2.warpAffine(glow, np.array(((1, 0, 0.0015 * size), (0, 1, 0.002 * size)), np.float32), (size, size)),
        0,
        1,
    )
    pearl = vec(0.78, 0.74, 0.68)
    paint(image, (pearl * (0.3 + 0.5 * glow)[..., None] + glint[..., None]) * shot.light_colour, cover)
    return cover
