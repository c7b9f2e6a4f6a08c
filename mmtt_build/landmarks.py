"""Part maps from 68 facial landmarks, and glasses from the pixels around the eyes, without any network.

The order is dlib's (iBUG 300-W): 0-16 jaw, 17-21 and 22-26 brows, 27-35 nose, 36-41 and 42-47 eyes, 48-59 outer and
60-67 inner lips, each from the viewer's left; the viewer's left eye is the subject's right one.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mmtt_build.masks import Image
from mmtt_build.parts import INDEX, LabelMap
from mmtt_build.records import SIZE

Points = NDArray[np.float32]
Floats = NDArray[np.float32]

_SUBPIXEL_BITS = 4

MIN_GLASSES_SCORE = 0.115
"""Glasses from this `glasses_score` on.

Of 29 bare faces, photographed or generated, none scored above 0.09, and four photographed with glasses 0.14 to 0.2;
of 400 drawn portraits the 325 bare ones scored 0.05 at most, and 74 of 75 with glasses more than this."""
_EYES_APART = 80
"""Pixels between the eyes where frames are looked for: a wire of 2 px at 512x512 is still 1 px wide, pores are gone."""
_LEFT, _UP, _DOWN = 1.05, 0.45, 0.85
"""Reach of that picture from the middle between the eyes, in eye distances."""
_REACH = 2
_BEND = (0.06 * np.abs(np.arange(-_REACH, _REACH + 1))).astype(np.float32)
"""What a line loses by moving up to two pixels aside in one step: frames do not zigzag."""


def _strips() -> tuple[Floats, Floats]:
    """Where to look in that picture, x and y in pixels, (3 * 37, 36): the bridge, then the rims as seen from each eye.

    Rims are followed from side to side, and looked for beyond the lower lid and its shadow.
    """
    x, y = np.meshgrid(np.linspace(-0.2, 0.2, 36), np.linspace(-0.22, 0.24, 37))
    angles, radii = np.meshgrid(np.radians(np.arange(20, 161, 4)), np.linspace(0.22, 0.67, 37))
    rims = [(eye + radii * np.cos(angles), radii * np.sin(angles)) for eye in (-0.5, 0.5)]
    columns, rows = (np.vstack(c) * _EYES_APART for c in zip((x, y), *rims, strict=True))
    return (columns + _LEFT * _EYES_APART).astype(np.float32), (rows + _UP * _EYES_APART).astype(np.float32)


_STRIPS = _strips()
_STRONGEST = np.float32(0.25)
"""Edges count up to this step of log light: more says nothing more about glasses."""


def part_map(points: Points, glasses: bool = False) -> LabelMap:
    """Draws skin, nose, eyes, brows, lips and the inside of the mouth, and glasses where they are said to be worn.

    Landmarks know no hair, ears or neck: those stay background. The forehead reaches as far above the
    brows as the brows lie above the nose tip, times 0.75, which stays below the hairline of most adults.

    Args:
        points: (68, 2) float32 x, y in pixels at 512x512.
        glasses: whether the face wears some, see `wears_glasses`.

    Returns:
        (512, 512) uint8 of `parts.CLASSES` indices.
    """
    labels = np.zeros((SIZE, SIZE), np.uint8)
    brows = points[17:27]
    up = (brows.mean(axis=0) - points[30]) * 0.75
    # The forehead narrows towards the top: the outer brow points rise least.
    rise = 0.45 + 0.55 * np.sin(np.linspace(0.15, np.pi - 0.15, 10))[:, None]
    forehead = brows[::-1] + up * rise[::-1]
    _fill(labels, np.concatenate([points[0:17], forehead]), "skin")
    # Only the ridge and the base have landmarks: a parser's nose has flanks, and wings beyond the nostrils.
    across, down = points[35] - points[31], points[33] - points[30]
    flanks = [
        (27, 0.22, 0.0),
        (28, 0.24, 0.0),
        (29, 0.38, 0.0),
        (30, 0.65, 0.0),
        (33, 0.72, -0.25),
        (33, 0.5, 0.15),
    ]
    outline = [points[at] + x * across + y * down for at, x, y in flanks]
    outline += [points[at] - x * across + y * down for at, x, y in reversed(flanks)]
    _fill(labels, np.stack(outline), "nose")
    if glasses:
        _draw_glasses(labels, points)
    eye_width = float(np.linalg.norm(points[36] - points[39]) + np.linalg.norm(points[42] - points[45])) / 2
    for name, first in (("r_brow", 17), ("l_brow", 22)):
        _stroke(labels, points[first : first + 5], 0.28 * eye_width, name)
    for name, first in (("r_eye", 36), ("l_eye", 42)):
        _fill(labels, points[first : first + 6], name)
        # Landmarks run along the lash line's inside; a parser's eye includes it.
        _stroke(
            labels,
            np.concatenate([points[first : first + 6], points[first : first + 1]]),
            0.06 * eye_width,
            name,
        )
    _fill(labels, points[60:68], "mouth")
    _fill(labels, np.concatenate([points[48:55], points[64:59:-1]]), "u_lip")
    _fill(labels, np.concatenate([points[54:60], points[48:49], points[60:61], points[67:63:-1]]), "l_lip")
    return labels


def wears_glasses(image: Image, points: Points) -> bool:
    """Whether a face wears glasses that show: frames of plastic or metal and dark lenses; rimless ones may be missed.

    Args:
        image: (512, 512, 3) uint8 RGB.
        points: (68, 2) float32 x, y in pixels.
    """
    return glasses_score(image, points) >= MIN_GLASSES_SCORE


def glasses_score(image: Image, points: Points) -> float:
    """How clearly lines run where a frame would: across the nose bridge, and below each eye from side to side.

    Each line is the path of strongest edges; what counts is the strength that 70 % of the path exceed, since
    wrinkles and the edges of eye bags end early. All three must be there (geometric mean), and stand out from the
    texture of the face.

    Args:
        image: (512, 512, 3) uint8 RGB.
        points: (68, 2) float32 x, y in pixels.

    Returns:
        Step of log light along the lines, less the texture's: below 0.05 on most bare faces, 0.25 at most.
    """
    right, left = points[36:42].mean(axis=0, dtype=np.float64), points[42:48].mean(axis=0, dtype=np.float64)
    across = left - right
    unit = float(np.hypot(*across))
    if not (SIZE / 32 <= unit <= SIZE and min(*right, *left) >= 0 and max(*right, *left) < SIZE):
        return 0.0
    region = _eye_region(image, (left + right) / 2, across)
    strips = cv2.remap(region, *_STRIPS, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # Log light: a frame's step is alike on dark and light skin. In deep shadow one grey level is noise, hence the 16.
    light = np.clip(np.log((strips + 16) / (_skin(region) + 16)), -1.5, 1.0)
    edges = np.stack([_edges(strip) for strip in np.split(light, 3)])
    lines = _line_strengths(np.minimum(edges, _STRONGEST))
    return float(lines.prod() ** (1 / 3) - np.median(edges, axis=(1, 2)).mean())


def _eye_region(image: Image, middle: NDArray[np.float64], across: NDArray[np.float64]) -> Floats:
    """The upright picture around the eyes, `_EYES_APART` pixels between them."""
    fine = 2 * _EYES_APART  # sampled twice as fine and halved by area, so that thin wires do not fall between pixels
    width, height = round(2 * _LEFT * fine), round((_UP + _DOWN) * fine)
    turn = np.array(((across[0], -across[1]), (across[1], across[0]))) / fine
    start = middle - turn @ (_LEFT * fine, _UP * fine)
    region = cv2.warpAffine(
        image,
        np.column_stack([turn, start]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return cv2.resize(region, (width // 2, height // 2), interpolation=cv2.INTER_AREA).astype(np.float32)


def _skin(region: Floats) -> Floats:
    """Colour of the skin, (3,): the median of cheeks, nose and forehead, most of which are bare on any face."""
    spots = []
    for x, y in ((-0.5, 0.75), (0.5, 0.75), (0, 0.45), (0, -0.38)):
        column, row = round((_LEFT + x) * _EYES_APART), round((_UP + y) * _EYES_APART)
        spots.append(region[row - 5 : row + 6, column - 7 : column + 8].mean(axis=(0, 1)))
    return np.asarray(np.median(spots, axis=0), np.float32)


def _edges(strip: Floats) -> Floats:
    """Step from row to row of a strip (h, w, 3), in the channel where it is largest."""
    steps = cv2.Sobel(strip, cv2.CV_32F, 0, 1, ksize=3, scale=0.25)
    return np.maximum.reduce([np.abs(channel) for channel in cv2.split(steps)])


def _line_strengths(edges: Floats) -> Floats:
    """For each strip of edges (n, rows, columns), what 70 % of its strongest path from left to right exceed, (n,)."""
    count, rows, columns = edges.shape
    best = np.full((columns, count, rows + 2 * _REACH), -1e9, np.float32)  # sum of the best path that ends here
    before = np.moveaxis(np.lib.stride_tricks.sliding_window_view(best, 2 * _REACH + 1, axis=2), 3, 1)
    best[0, :, _REACH:-_REACH] = edges[:, :, 0]
    for at in range(1, columns):
        options = np.subtract(before[at - 1], _BEND[:, None, None], order="C")  # so that the maximum is taken fast
        best[at, :, _REACH:-_REACH] = options.max(axis=0) + edges[:, :, at]
    strip, row = np.arange(count), best[-1, :, _REACH:-_REACH].argmax(axis=1)
    path = [edges[strip, row, -1]]
    for at in range(columns - 2, -1, -1):
        row = row + (before[at, :, strip, row] - _BEND).argmax(axis=1) - _REACH
        path.append(edges[strip, row, at])
    return np.percentile(path, 30, axis=0).astype(np.float32)


def _draw_glasses(labels: LabelMap, points: Points) -> None:
    """A lens around each eye, as wide as most, with bridge and temples."""
    right, left = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    across = left - right
    down = np.array((-across[1], across[0]), np.float32)
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False, dtype=np.float32)[:, None]
    x, y = np.cos(angle), np.sin(angle)
    for eye, temple in ((right, points[0]), (left, points[16])):
        # A superellipse: between round lenses and square ones.
        rim = np.sign(x) * np.abs(x) ** 0.75 * 0.40 * across + (np.sign(y) * np.abs(y) ** 0.75 * 0.36 + 0.08) * down
        _fill(labels, eye + rim, "eye_g")
        _stroke(labels, np.stack([eye, temple]), 0.06 * float(np.linalg.norm(across)), "eye_g")
    _stroke(labels, np.stack([right, left]), 0.16 * float(np.linalg.norm(across)), "eye_g")


def _fixed(points: Points) -> NDArray[np.int32]:
    scaled = np.clip(points, -4 * SIZE, 5 * SIZE) * (1 << _SUBPIXEL_BITS)
    return np.rint(scaled).astype(np.int32)


def _fill(labels: LabelMap, polygon: Points, name: str) -> None:
    cv2.fillPoly(labels, [_fixed(polygon)], INDEX[name], cv2.LINE_8, _SUBPIXEL_BITS)


def _stroke(labels: LabelMap, line: Points, width: float, name: str) -> None:
    cv2.polylines(
        labels, [_fixed(line)], False, INDEX[name], max(1, round(width)), cv2.LINE_8, _SUBPIXEL_BITS
    )  # fmt: skip
