"""Small drawing tools: curves, anti-aliased fills and strokes, noise, compositing.

Points are (N, 2) arrays of x, y in shares of the frame's side; a coverage is (S, S) uint8, 0-255.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating[Any]]
Field = NDArray[np.floating[Any]]
Coverage = NDArray[np.uint8]
Mix = NDArray[Any]  # a coverage (uint8) or a field of weights 0-1 (float32)

_SHIFT = 4  # sub-pixel bits of OpenCV's drawing calls


def vec(*values: float) -> Points:
    """A short float32 vector: a point, a displacement, a colour."""
    return np.array(values, np.float32)


def curve(points: Points, count: int, closed: bool = False) -> Points:
    """Smooth curve through (N, D) points, resampled to (count, D): a natural or periodic cubic spline.

    Written out here because importing scipy.interpolate takes longer than drawing a portrait.
    """
    points = np.asarray(points, np.float64)
    if closed:
        points = np.vstack([points, points[:1]])
    gaps = np.diff(points, axis=0)
    # square roots of the chords (centripetal): no loops at tight turns
    width = np.maximum((gaps**2).sum(axis=1) ** 0.25, 1e-6)
    rise = gaps / width[:, None]
    n = len(width) if closed else len(width) + 1
    system, right = np.eye(n), np.zeros((n, points.shape[1]))
    for i in range(0 if closed else 1, n if closed else n - 1):
        before, after = width[i - 1], width[i]
        system[i, i] = 2 * (before + after)
        system[i, (i - 1) % n] += before
        system[i, (i + 1) % n] += after
        right[i] = 6 * (rise[i] - rise[i - 1])
    bend = np.linalg.solve(system, right)
    if closed:
        bend = np.vstack([bend, bend[:1]])
    knots = np.concatenate([[0], np.cumsum(width)])
    at = np.linspace(0, knots[-1], count, endpoint=not closed)
    k = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(width) - 1)
    h = width[k][:, None]
    b = (at - knots[k])[:, None] / h
    a = 1 - b
    return np.asarray(
        a * points[k] + b * points[k + 1] + ((a**3 - a) * bend[k] + (b**3 - b) * bend[k + 1]) * h**2 / 6, np.float32
    )


def fixed(points: Points, size: int) -> NDArray[np.int32]:
    """Points as the fixed-point pixel positions that OpenCV draws at."""
    return np.round((np.asarray(points) * size - 0.5) * (1 << _SHIFT)).astype(np.int32)


def fill(points: Points, size: int) -> Coverage:
    """Coverage of a closed polygon."""
    canvas = np.zeros((size, size), np.uint8)
    cv2.fillPoly(canvas, [fixed(points, size)], 255, cv2.LINE_AA, _SHIFT)
    return canvas


def stroke(
    canvas: Coverage,
    lines: Sequence[Points],
    value: int | tuple[int, ...],
    width: float,
    closed: bool = False,
) -> None:
    """Draws lines of a width (share of the side) onto a canvas, anti-aliased."""
    size = canvas.shape[0]
    colour = (value,) if isinstance(value, int) else value
    thickness = max(1, round(width * size))
    cv2.polylines(canvas, [fixed(line, size) for line in lines], closed, colour, thickness, cv2.LINE_AA, _SHIFT)


def strokes(size: int, lines: Sequence[Points], width: float, closed: bool = False) -> Coverage:
    """Coverage of lines on an empty canvas."""
    canvas = np.zeros((size, size), np.uint8)
    stroke(canvas, lines, 255, width, closed)
    return canvas


def soft(coverage: Mix, sigma: float) -> Field:
    """Blurs a coverage (or a field) by sigma, a share of the side, to (S, S) float32.

    Wide blurs run at lower resolution, and those of a coverage only where it is not empty.
    """
    size = coverage.shape[0]
    pixels = sigma * size
    if coverage.dtype != np.uint8:
        return _blur(coverage, pixels)
    result = np.zeros((size, size), np.float32)
    window = box(coverage, 3 + int(3.5 * pixels))
    if window is not None:
        result[window] = _blur(coverage[window].astype(np.float32) * np.float32(1 / 255), pixels)
    return result


def _blur(field: Field, pixels: float) -> Field:
    if pixels < 0.3:
        return field
    height, width = field.shape
    shrink = 1
    while pixels / shrink > 4 and min(height, width) // shrink > 32:
        shrink *= 2
    if shrink > 1:
        field = cv2.resize(field, (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
    field = cv2.GaussianBlur(field, (0, 0), pixels / shrink, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR) if shrink > 1 else field


def noise(rng: np.random.Generator, size: int, cells: float, octaves: int = 1) -> Field:
    """Smooth noise (size, size) of mean about 0 and deviation about 1, `cells` bumps along the side."""
    total = np.zeros((size, size), np.float32)
    weight, norm = 1.0, 0.0
    for _ in range(octaves):
        grid = max(4, min(round(cells), size))
        small = rng.standard_normal((grid, grid), np.float32)
        total += np.float32(weight) * cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
        norm += weight**2 * 0.6
        weight, cells = weight * 0.6, cells * 2.1
    return total / np.float32(norm**0.5)


def to_linear(colour: Field) -> Field:
    """SRGB 0-1 to linear light, by the usual power approximation."""
    return np.asarray(np.maximum(colour, 0) ** np.float32(2.2), np.float32)


def box(coverage: Coverage, margin: int = 2) -> tuple[slice, slice] | None:
    """Rows and columns that hold all non-zero pixels, or None for an empty coverage."""
    x, y, width, height = cv2.boundingRect(coverage)
    if not width:
        return None
    return slice(max(y - margin, 0), y + height + margin), slice(max(x - margin, 0), x + width + margin)


def paint(image: Field, colour: Field, coverage: Mix) -> None:
    """Lays a colour, (3,) or (S, S, 3), over the image in place, weighted by a coverage (uint8, or float 0-1)."""
    if coverage.dtype == np.uint8:
        window = box(coverage)
    else:
        window = box(cv2.threshold(coverage, 1 / 512, 1, cv2.THRESH_BINARY)[1].astype(np.uint8))
    if window is None:
        return
    weight = coverage[window]
    alpha = (weight.astype(np.float32) * np.float32(1 / 255) if weight.dtype == np.uint8 else weight)[..., None]
    over = colour[window] if colour.ndim == 3 else colour
    image[window] += alpha * (over - image[window])
