"""Part maps from 68 facial landmarks, without any network.

The order is dlib's (iBUG 300-W): 0-16 jaw, 17-21 and 22-26 brows, 27-35 nose, 36-41 and 42-47 eyes, 48-59 outer and
60-67 inner lips, each from the viewer's left; the viewer's left eye is the subject's right one.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mmtt_build.parts import INDEX, LabelMap
from mmtt_build.records import SIZE

Points = NDArray[np.float32]

_SUBPIXEL_BITS = 4


def part_map(points: Points) -> LabelMap:
    """Draws skin, nose, eyes, brows, lips and the inside of the mouth.

    Landmarks know no hair, ears, neck or glasses: those stay background. The forehead reaches as far above the
    brows as the brows lie above the nose tip, times 0.75, which stays below the hairline of most adults.

    Args:
        points: (68, 2) float32 x, y in pixels at 512x512.

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
    eye_width = float(np.linalg.norm(points[36] - points[39]) + np.linalg.norm(points[42] - points[45])) / 2
    for name, first in (("r_brow", 17), ("l_brow", 22)):
        _stroke(labels, points[first : first + 5], 0.28 * eye_width, name)
    # Only the ridge and the base have landmarks: a parser's nose has flanks, and wings beyond the nostrils.
    across, down = points[35] - points[31], points[33] - points[30]
    flanks = [(27, 0.22, 0.0), (28, 0.24, 0.0), (29, 0.38, 0.0), (30, 0.65, 0.0), (33, 0.72, -0.25), (33, 0.5, 0.15)]
    outline = [points[at] + x * across + y * down for at, x, y in flanks]
    outline += [points[at] - x * across + y * down for at, x, y in reversed(flanks)]
    _fill(labels, np.stack(outline), "nose")
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


def _fixed(points: Points) -> NDArray[np.int32]:
    scaled = np.clip(points, -4 * SIZE, 5 * SIZE) * (1 << _SUBPIXEL_BITS)
    return np.rint(scaled).astype(np.int32)


def _fill(labels: LabelMap, polygon: Points, name: str) -> None:
    cv2.fillPoly(labels, [_fixed(polygon)], INDEX[name], cv2.LINE_8, _SUBPIXEL_BITS)


def _stroke(labels: LabelMap, line: Points, width: float, name: str) -> None:
    cv2.polylines(
        labels, [_fixed(line)], False, INDEX[name], max(1, round(width)), cv2.LINE_8, _SUBPIXEL_BITS
    )  # fmt: skip
