"""How a donor's pixels become part of a base: light and colour, grain, seams.

Working pictures are (h, w, 3) float32 RGB, 0 to 255, gamma-encoded as stored, of a rectangle around the face, the donor
already aligned to the base. Lengths named `..._px` are pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from generators.classical import EYES, Floats, Points, grey, grow, shrink, soften
from mmtt_build import parts
from mmtt_build.masks import Image, Mask
from mmtt_build.parts import LabelMap

MAX_LAPLACE_STEP = 6
"""The membrane of a Poisson clone is smooth: solved on every sixth pixel at most, it has 36 times fewer unknowns."""
_SHOULDER = np.float32(225)


# --- light, colour, grain -----------------------------------------------------------------------------------------


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
    keep = soften(parts.select(labels, (*EYES, "mouth")).astype(np.float32), 2.0)[..., None]
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
    return _alphas(cv2.distanceTransform(np.pad(support, 1).view(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1], *widths_px)


def _alphas(depth: Floats, *widths_px: float) -> list[Floats]:
    """Blend weights as `feather` has them, of pixels (h, w) that lie `depth` px inside."""
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
    depth = cv2.distanceTransform(np.pad(support, 1).view(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return mix_bands(base, donor, depth, feather_px)


def mix_bands(base: Floats, donor: Floats, depth: Floats, feather_px: float) -> tuple[Floats, Mask]:
    """`blend_multiband` where the distance from the edge (h, w), 0 outside, is known already."""
    wide, middle, narrow = _alphas(depth, 2 * feather_px, feather_px, feather_px / 2)
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
