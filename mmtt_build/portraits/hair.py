"""Hair of the head, strand by strand.

Hair lies in sheets. A sheet is spanned by two curves of the frame, and a strand is a path over it: the position
`t` runs along the curves, `r` from the first (0) to the second (1). Each strand is drawn in short
pieces whose tone follows from how the light meets the hair's direction (Kajiya and Kay 1989).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mmtt_build.portraits.geometry import Geometry
from mmtt_build.portraits.person import Person, Shot
from mmtt_build.portraits.raster import Coverage, Field, Mix, Points, curve, fixed, paint, soft, to_linear, vec

_GRID = 512  # side of the canvases: lines of one pixel are drawn many times faster than wider ones
_POINTS = 16  # points of a strand
_PIECES = 5  # pieces of one tone
_TONES = 20
_MID = 90  # tone that shows the hair's own colour


@dataclass(frozen=True, slots=True)
class Layer:
    """Painted hair: tone, coverage and greyness in the three channels of one (512, 512, 3) uint8 canvas."""

    canvas: NDArray[np.uint8]

    def cover(self, size: int) -> Coverage:
        """Coverage (size, size)."""
        return _to(np.ascontiguousarray(self.canvas[..., 1]), size)


@dataclass(frozen=True, slots=True)
class Hair:
    """All hair of a portrait, from back to front; an entry is None where there is none."""

    back: Layer | None
    front: Layer | None


class _Comb:
    """Draws sheets of strands onto one canvas."""

    def __init__(self, g: Geometry, person: Person, shot: Shot, rng: np.random.Generator) -> None:
        self.canvas = np.zeros((_GRID, _GRID, 3), np.uint8)
        self.rng, self.person = rng, person
        self.centre = (g.head.mean(axis=0) + g.nose_ridge[0]) / 2
        self.reach = (g.head.max(axis=0) - g.head.min(axis=0)) / 2 * np.float32(1.12)
        half = shot.light + vec(0, 0, 1)
        self.light = shot.light
        self.half = half / np.linalg.norm(half)
        self.ambient = float(shot.ambient.mean())
        self.grain = rng.normal(0, 1, 64)

    def mass(self, outline: Points, tone: int = 24) -> None:
        """Fills an area with dark hair."""
        cv2.fillPoly(self.canvas, [fixed(outline, _GRID)], (tone, 255, int(255 * self.person.grey)), cv2.LINE_AA, 4)

    def strands(
        self, first: Points, second: Points, start: Field, move: Field, curl: float = 0.0, waves: float = 3.0,
        bend: float = 0.0, gain: float = 1.0, wander: float = 0.010,
    ) -> None:  # fmt: skip
        """Draws strands over a sheet.

        Args:
            first: curve at r = 0, (M, 2).
            second: curve at r = 1, (M, 2).
            start: (N, 2) of t, r where strands begin.
            move: (N, 2), what they travel in t and r.
            curl: amplitude of curls, in shares of the frame.
            waves: curls along a strand.
            bend: amount of r gained and lost again on the way.
            gain: factor on the tone.
            wander: random sideways drift in shares of the frame.
        """
        rng, count = self.rng, len(start)
        s = np.linspace(0, 1, _POINTS)[None, :]
        t = np.clip(start[:, :1] + move[:, :1] * s, 0, 1)
        r = start[:, 1:] + move[:, 1:] * s + bend * np.sin(np.pi * s)
        steps = np.arange(len(first))
        at = t * (len(first) - 1)
        path = np.stack(
            [np.interp(at, steps, first[:, k]) * (1 - r) + np.interp(at, steps, second[:, k]) * r for k in (0, 1)],
            axis=2,
        )
        clump = np.floor(start[:, 0] * 23 + start[:, 1] * 11 + rng.uniform(0, 0.7, count)).astype(int)
        phase = clump * 2.4 + rng.normal(0, 0.45, count)
        tangent = np.gradient(path, axis=1)
        tangent /= np.maximum(np.hypot(tangent[..., 0], tangent[..., 1])[..., None], 1e-6)
        sideways = np.stack([-tangent[..., 1], tangent[..., 0]], axis=2)
        swing = curl * np.sin(2 * np.pi * waves * s + phase[:, None]) * np.minimum(4 * s + 0.15, 1)
        drift = rng.normal(0, wander, (count, 1)) * s**1.3
        path = path + sideways * (swing + drift)[..., None]
        if curl > 0.004:
            path = path + tangent * (curl * 0.8 * np.cos(2 * np.pi * waves * s + phase[:, None]))[..., None]
        tone = self._tone(path) * gain
        own = 1 + 0.13 * rng.normal(0, 1, (count, 1)) + 0.11 * self.grain[clump % 64][:, None]
        self._draw(path, np.clip(tone * own, 0.10, 2.6))

    def _tone(self, path: Field) -> Field:
        """Brightness of each point of each strand, 1 for hair in plain light."""
        normal = (path - self.centre) / self.reach
        normal[..., 1] = np.minimum(normal[..., 1], 0.2) * 0.95
        flat = np.minimum((normal**2).sum(axis=2), 0.96)
        depth = np.sqrt(1 - flat)
        step = np.gradient(path, axis=1)
        rise = -(normal * step).sum(axis=2) / np.maximum(depth, 0.25)
        tangent = np.dstack([step[..., 0], step[..., 1], rise])
        tangent /= np.maximum(np.linalg.norm(tangent, axis=2)[..., None], 1e-9)
        facing = normal[..., 0] * self.light[0] + normal[..., 1] * self.light[1] + depth * self.light[2]
        along_light, along_half = ((tangent * way).sum(axis=2) for way in (self.light, self.half))
        diffuse = np.sqrt(np.clip(1 - along_light**2, 0, 1)) * np.clip((facing + 0.35) / 1.35, 0, 1)
        shine = np.clip(1 - along_half**2, 0, 1) ** 22 * np.clip(facing + 0.1, 0, 1)
        gloss = 0.95 if self.person.curl < 0.6 else 0.5
        return np.asarray(0.85 * self.ambient + 0.80 * diffuse + gloss * shine, np.float32)

    def _draw(self, path: Field, tone: Field) -> None:
        count = len(path)
        points = np.round((path * _GRID - 0.5) * 16).astype(np.int32)
        cut = np.linspace(0, _POINTS - 1, _PIECES + 1).round().astype(int)
        pieces = np.stack([points[:, a : a + 4] for a in cut[:-1]], axis=1).reshape(-1, 4, 2)
        tones = np.stack([tone[:, a : a + 4].mean(axis=1) for a in cut[:-1]], axis=1).reshape(-1)
        level = np.clip((tones * _MID / 255 * _TONES).astype(int), 0, _TONES)
        pale = np.repeat(self.rng.uniform(0.05, 0.75, count) < self.person.grey, _PIECES)
        turn = np.repeat(self.rng.integers(0, 5, count), _PIECES)  # five coats, so that bright hair does not lie on top
        key = turn * 1000 + level * 2 + pale
        order = np.argsort(key, kind="stable")
        bounds = np.flatnonzero(np.diff(key[order])) + 1
        for group in np.split(order, bounds):
            k = int(key[group[0]]) % 1000
            colour = (int(k // 2 * 255 / _TONES), 255, 255 * (k % 2))
            cv2.polylines(self.canvas, list(pieces[group]), False, colour, 1, cv2.LINE_AA, 4)


def grow(g: Geometry, person: Person, shot: Shot) -> Hair:
    """Grows the hair of a person for one shot; the same person keeps the same locks."""
    style = person.style
    if shot.hat and style in ("afro", "curly", "tied"):
        style = "short"  # the hat presses it down
    if style == "bald":
        return Hair(None, None)
    rng = np.random.default_rng(person.texture_seed + 5)
    front = _Comb(g, person, shot, rng)
    back = None
    if style in ("bob", "long"):
        back = _Comb(g, person, shot, rng)
        _drape(front, back, g, person, shot)
    elif style == "tied":
        back = _Comb(g, person, shot, rng)
        _tied(front, back, g, person)
    elif style in ("curly", "afro"):
        back = _Comb(g, person, shot, rng)
        _curls(front, back, g, person)
    else:
        _cropped(front, g, person, style)
    if person.fringe and style in ("bob", "long"):
        _fringe(front, g, person)
    return Hair(Layer(back.canvas) if back else None, Layer(front.canvas))


def lay(image: Field, layer: Layer, person: Person, shot: Shot) -> None:
    """Paints a layer over the image, (S, S, 3) linear, in place."""
    size = image.shape[0]
    grey = vec(0.62, 0.61, 0.59)
    cover = np.ascontiguousarray(layer.canvas[..., 1])
    tables = []
    for colour in (to_linear(person.hair), to_linear(grey)):
        tone = np.arange(256, dtype=np.float32) / _MID
        white = np.maximum(tone - 0.85, 0) * (0.055 + 0.16 * float(colour.mean()))
        tables.append((colour * tone[:, None] ** 1.15 + white[:, None] * shot.light_colour + 0.002).astype(np.float32))
    index = cv2.divide(np.ascontiguousarray(layer.canvas[..., 0]), np.maximum(cover, 1), scale=255)
    colours = tables[0][index]
    if person.grey:
        share = cv2.divide(np.ascontiguousarray(layer.canvas[..., 2]), np.maximum(cover, 1), scale=255)
        weight = (share.astype(np.float32) / 255)[..., None]
        colours += weight * (tables[1][index] - colours)
    colours *= (1.05 - 0.18 * soft(cover, 0.03))[..., None]  # deep within its own mass hair is darker
    paint(image, _to(colours, size), _to(cover, size))


def _to(array: Mix, size: int) -> Mix:
    if size == _GRID:
        return array
    return cv2.resize(array, (size, size), interpolation=cv2.INTER_CUBIC if size > _GRID else cv2.INTER_AREA)


def silhouette(g: Geometry, offset: float, lift: float = 0.0, reach: float = 1.72) -> Points:
    """The head's outline over the top, moved out, (160, 2), viewer's left to right.

    It ends `reach` radians from the top at either side: at 1.72 near the ears, at 2.3 near the jaw.
    """
    centre = (g.head.mean(axis=0) + g.nose_ridge[0]) / 2
    around = g.head - centre
    angle = np.arctan2(around[:, 0], -around[:, 1])
    order = np.argsort(angle)
    stops = np.linspace(-reach, reach, 160)
    x, y = (np.interp(stops, angle[order], around[order, k], period=2 * np.pi) for k in (0, 1))
    out = np.stack([x, y], axis=1)
    length = np.hypot(x, y)[:, None]
    extra = offset + lift * np.clip(np.cos(stops), 0, 1)[:, None] ** 2
    if reach > 1.8:  # round off at the lower ends
        extra *= np.sqrt(np.clip((reach - np.abs(stops)) / 0.45, 0, 1))[:, None]
    return np.asarray(centre + out * (1 + extra / length), np.float32)


def _cap(g: Geometry, offset: float, lift: float) -> tuple[Points, Points]:
    """The sheet of the scalp: hairline and silhouette, both (160, 2)."""
    return curve(g.hairline, 160), silhouette(g, offset, lift)


def _cap_outline(first: Points, second: Points) -> Points:
    return np.vstack([first, second[::-1]])


def _cropped(comb: _Comb, g: Geometry, person: Person, style: str) -> None:
    rng = comb.rng
    offset, lift = {
        "buzz": (0.004, 0.003),
        "short": (0.012, 0.018 * person.volume),
        "swept": (0.016, 0.045 * person.volume),
    }[style]
    first, second = _cap(g, offset, lift)
    split = 0.5 + 0.22 * person.parting
    inner = first + (second - first) * np.float32(0.04 if style == "buzz" else 0.10)
    comb.mass(_cap_outline(inner, second - (second - first) * np.float32(0.01)), 30)
    if style == "buzz":
        count = 7000
        t, r = rng.uniform(0, 1, count), rng.beta(1, 0.9, count) * 1.0 - 0.02
        move = np.stack([0.012 * rng.normal(0, 1, count), rng.uniform(0.02, 0.06, count)], axis=1)
        comb.strands(first, second, np.stack([t, r], axis=1), move, gain=0.85, wander=0.002)
        return
    side = np.abs(np.linspace(-1, 1, 160))  # at the temples hair points down, on top it follows the parting
    for length, count, gain in ((0.42, 2600, 0.62), (0.36, 2600, 0.9), (0.30, 1400, 1.12)):
        n = count
        t, r = rng.uniform(0, 1, n), rng.uniform(-0.02, 0.86, n)
        away = np.sign(t - split) * np.minimum(np.abs(t - split) / 0.05, 1)
        temple = np.clip((np.interp(t, np.linspace(0, 1, 160), side) - 0.62) / 0.25, 0, 1)
        long = length * rng.uniform(0.6, 1.2, n)
        if style == "swept":
            along, across = 0.20 * away * (1 - 0.5 * temple), 0.75 * (1 - temple) + 0.10
        else:
            along, across = 0.16 * away, 0.42 * (1 - temple) + 0.05
        move = np.stack([along * long * 1.6, across * long * 1.5], axis=1)
        comb.strands(
            first, second, np.stack([t, r], axis=1), move, curl=0.010 * person.curl * (style != "buzz"), waves=1.6,
            bend=0.05, gain=gain, wander=0.010,
        )  # fmt: skip


def _drape(front: _Comb, back: _Comb, g: Geometry, person: Person, shot: Shot) -> None:
    """Bob and long hair: two sheets from the parting over the temples and down, and the mass behind the neck."""
    rng = front.rng
    u = g.unit
    first, second = _cap(g, 0.022 + 0.016 * person.volume, 0.030 * person.volume)
    split = int(np.clip(80 + 60 * 0.5 * person.parting, 45, 115))
    bottom = (g.chin[1] + 0.01 if person.style == "bob" else 1.12) + 0.03 * person.build[23]
    bell = 0.03 + 0.05 * person.volume
    ends = []
    for side in (-1, 1):
        index = np.arange(split, 160) if side > 0 else np.arange(split, -1, -1)
        temple, crown = first[index], second[index]
        cheek = g.jaw[2 if side < 0 else 14]
        jaw = g.jaw[4 if side < 0 else 12]
        cover = 0.004 + 0.006 * person.build[22]
        down = [
            cheek + vec(-side * (cover + 0.006), -0.06 * u),
            cheek + vec(-side * cover, 0.06 * u),
            jaw + vec(side * 0.014, 0.01 * u),
            vec(jaw[0] + side * 0.012, max(bottom - 0.06, jaw[1] + 0.06)),
            vec(jaw[0] - side * 0.010, bottom),
        ]
        inner = curve(np.vstack([temple[:: max(len(temple) // 5, 1)][:5], *down]), 160)
        edge = crown[-1]
        tip = -0.02 if person.style == "bob" else 0.03
        fall = bottom - edge[1]
        down = [
            edge + vec(side * 0.25 * bell, 0.18 * fall),
            edge + vec(side * 0.7 * bell, 0.55 * fall),
            edge + vec(side * (bell + tip), fall),
        ]
        outer = curve(np.vstack([crown[:: max(len(crown) // 6, 1)][:6], edge[None], down]), 160)
        ends.append((inner, outer))
        front.mass(np.vstack([inner, outer[::-1]]), 22)
    left_out, right_out = ends[0][1], ends[1][1]
    behind = np.vstack([left_out[40:], right_out[40:][::-1]])
    back.mass(behind, 12)
    n = 900
    start = np.stack([rng.uniform(0, 0.2, n), rng.uniform(0.02, 0.98, n)], axis=1)
    move = np.stack([rng.uniform(0.7, 0.9, n), rng.normal(0, 0.03, n)], axis=1)
    back.strands(left_out[50:], right_out[50:], start, move, curl=0.010 * person.curl, gain=0.34)
    for inner, outer in ends:
        for count, gain, spread in ((1100, 0.60, 0.02), (1300, 0.9, 0.03), (700, 1.12, 0.05)):
            n = count
            r = rng.beta(0.9, 0.9, n) * (1 + 2 * spread) - spread
            start = np.stack([rng.uniform(0, 0.10, n) + 0.25 * (rng.random(n) < 0.3) * rng.random(n), r], axis=1)
            move = np.stack([rng.uniform(0.80, 1.0, n), rng.normal(0, 0.05, n)], axis=1)
            front.strands(
                inner,
                outer,
                start,
                move,
                curl=0.016 * person.curl**1.5,
                waves=1.6 + 1.4 * person.curl,
                gain=gain,
                wander=0.012,
            )


def _tied(front: _Comb, back: _Comb, g: Geometry, person: Person) -> None:
    """Hair drawn back from the hairline, with a knot or tail behind the head."""
    rng = front.rng
    first, second = _cap(g, 0.010, 0.012 + 0.012 * person.volume)
    front.mass(_cap_outline(first + (second - first) * np.float32(0.03), second), 26)
    for count, gain in ((2200, 0.62), (2400, 0.92), (900, 1.1)):
        n = count
        t, r = rng.uniform(0, 1, n), rng.uniform(-0.015, 0.85, n)
        move = np.stack([(0.5 - t) * 0.20 * (1 - r), np.minimum(0.6, 0.99 - r)], axis=1)
        front.strands(first, second, np.stack([t, r], axis=1), move, curl=0.004 * person.curl, gain=gain, wander=0.005)
    if person.volume > 0.9:
        knot = second[80] + vec(0, -0.01)
        angle = np.linspace(0, 2 * np.pi, 120)
        ring = np.stack([np.cos(angle) * 0.085, np.sin(angle) * 0.07], axis=1).astype(np.float32) * np.float32(
            person.volume * 0.85
        )
        back.mass(knot + ring, 26)
        for gain in (0.6, 0.95):
            n = 420
            start = np.stack([rng.uniform(0, 1, n), rng.uniform(0.1, 1, n)], axis=1)
            move = np.stack([rng.uniform(0.1, 0.35, n), rng.normal(0, 0.15, n)], axis=1)
            back.strands(knot + ring * np.float32(0.1), knot + ring, start, move, gain=gain, wander=0.004)


def _curls(front: _Comb, back: _Comb, g: Geometry, person: Person) -> None:
    """Curls of every size, up to a round mass around the head."""
    rng = front.rng
    afro = person.style == "afro"
    offset = (0.055 + 0.055 * person.volume) if afro else (0.020 + 0.030 * person.volume)
    first, second = _cap(g, offset, 0.02 + 0.02 * person.volume)
    ruffle = np.interp(np.linspace(0, 1, 160), np.linspace(0, 1, 40), rng.normal(0, 0.006, 40))[:, None]
    second = np.asarray(second + (second - second.mean(axis=0)) * ruffle, np.float32)
    front.mass(
        _cap_outline(first + (second - first) * np.float32(0.06), first + (second - first) * np.float32(0.90)),
        18,
    )
    if afro or person.masculine < 0.5:
        behind = silhouette(g, offset, 0.02 + 0.02 * person.volume, 1.95 if afro else 2.35)
        back.mass(behind, 14)
        n = 2400
        middle = np.broadcast_to(g.nose_ridge[5], behind.shape)
        start = np.stack([rng.uniform(0, 1, n), rng.uniform(0.55, 0.97, n)], axis=1)
        move = np.stack([rng.normal(0, 0.03, n), rng.uniform(0, 0.08, n)], axis=1)
        back.strands(middle, behind, start, move, curl=0.007 if afro else 0.010, waves=2.0, gain=0.6, wander=0.006)
    size = 0.0055 if afro else 0.008 + 0.006 * person.curl
    for count, gain in ((2600, 0.5), (2600, 0.85), (1500, 1.15)):
        n = count
        start = np.stack([rng.uniform(0, 1, n), rng.uniform(-0.02, 0.93, n)], axis=1)
        move = np.stack([rng.normal(0, 0.035, n), rng.uniform(0.02, 0.16, n)], axis=1)
        front.strands(first, second, start, move, curl=size, waves=1.8, gain=gain, wander=0.008)


def _fringe(comb: _Comb, g: Geometry, person: Person) -> None:
    """Hair that falls over the forehead."""
    rng = comb.rng
    first, second = _cap(g, 0.03, 0.02)
    upper = curve((first + (second - first) * np.float32(0.72))[26:134], 120)
    low = min(g.brows[0][:, 1].min(), g.brows[1][:, 1].min()) - 0.012
    lower = upper.copy()
    t = np.linspace(-1, 1, 120, dtype=np.float32)
    lower[:, 1] = low + 0.030 * t**2 + 0.004 * np.sin(9 * t)
    lower[:, 0] = g.nose_ridge[0, 0] + t * 0.215 * g.unit
    lower = np.asarray(lower, np.float32)
    comb.mass(np.vstack([upper, (lower + (upper - lower) * np.float32(0.30))[::-1]]), 40)
    for count, gain in ((1100, 0.62), (1300, 0.95), (500, 1.12)):
        n = count
        start = np.stack([rng.uniform(0, 1, n), rng.uniform(-0.15, 0.35, n)], axis=1)
        end = rng.uniform(0.82, 1.03, n)
        move = np.stack([rng.normal(0.05 * np.sign(person.parting), 0.03, n), end - start[:, 1]], axis=1)
        comb.strands(
            upper,
            lower,
            start,
            move,
            curl=0.006 * person.curl,
            waves=1.5,
            bend=-0.02,
            gain=gain,
            wander=0.006,
        )
