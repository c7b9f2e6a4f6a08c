"""Where the parts of one face are: the frame and the landmarks that the weights-free local edits hang on.

Everything is measured on the part map itself, so that it works for hand-made maps, parsers and maps drawn
from 68 landmarks alike. Lengths are given in eye distances, independent of the face's size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mmtt_build import parts
from mmtt_build.parts import INDEX, LabelMap
from mmtt_build.records import Pristine

Point = NDArray[np.float64]
"""x, y in pixels."""

MOUTH = ("u_lip", "l_lip", "mouth")
FACE = ("skin", "nose", "l_eye", "r_eye", "l_brow", "r_brow", *MOUTH)
"""Classes that belong to the face itself: no glasses, hair, ears or neck."""

MIN_AREA = {"skin": 12_000, "nose": 600, "l_eye": 120, "r_eye": 120, "l_brow": 150, "r_brow": 150}
"""Pixels at 512x512 below which a part is too small, or too far turned away, to be worked on."""
MIN_MOUTH_AREA = 500
"""The same for lips and mouth together."""
MAX_GLASSES_AREA = 150
"""Pixels of the class eye_g above which a face counts as wearing glasses."""

_EYE_DISTANCE = (60.0, 220.0)


class NoFaceError(ValueError):
    """The part map has no complete frontal face; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Face:
    """Landmarks of one face in pixels at 512x512.

    Attributes:
        across: unit vector along the eye line, towards the right of the picture.
        down: unit vector at right angles to it, towards the chin.
        unit: distance between the eye centres, in pixels.
        points: x, y of each landmark: "l_eye", "r_eye", "l_brow", "r_brow" (absent where the map has none),
            "middle" (of the eyes), "nose", "nose_tip", "mouth", "l_mouth", "r_mouth" (corners), "l_jaw",
            "r_jaw" (rim of the face at mouth height) and "chin".
    """

    across: Point
    down: Point
    unit: float
    points: dict[str, Point]

    def at(self, landmark: str, out: float = 0.0, down: float = 0.0) -> Point:
        """The pixel `out` and `down` eye distances away from a landmark; see `side` for "out"."""
        return self.points[landmark] + self.unit * (side(landmark) * out * self.across + down * self.down)

    def frame(
        self, x: NDArray[np.float32], y: NDArray[np.float32], centre: Point
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Coordinates of pixels (x, y) across and down from a centre, in pixels."""
        dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
        ax, ay = self.across.astype(np.float32)
        return dx * ax + dy * ay, dy * ax - dx * ay


def side(landmark: str) -> int:
    """Which way "outwards" is for a landmark: -1 for the subject's right (left in the picture), else +1."""
    return -1 if landmark.startswith("r_") else 1


def has_face(base: Pristine) -> bool:
    """Whether the recorded facts promise a face that `find_face` will find."""
    area = base.part_areas
    return (
        len(base.points) == 10
        and all(area[INDEX[name]] >= MIN_AREA[name] for name in ("skin", "nose", "l_eye", "r_eye"))
        and sum(area[INDEX[name]] for name in MOUTH) >= MIN_MOUTH_AREA
    )


def has_glasses(base: Pristine) -> bool:
    """Whether the part map shows glasses."""
    return base.part_areas[INDEX["eye_g"]] > MAX_GLASSES_AREA


def select(labels: LabelMap, names: Iterable[str]) -> NDArray[np.uint8]:
    """`parts.select` as 0 and 1 in (512, 512) uint8, the form that OpenCV takes."""
    return parts.select(labels, names).view(np.uint8)


def find_face(labels: LabelMap) -> Face:
    """Measures the landmarks of a part map (512, 512) uint8.

    Raises:
        NoFaceError: eyes, nose, mouth or skin are missing, too small, or not where a face has them.
    """
    points = {name: _centroid(labels, name) for name in ("l_eye", "r_eye", "nose")}
    points |= {
        name: _centroid(labels, name)
        for name in ("l_brow", "r_brow")
        if cv2.countNonZero(select(labels, (name,))) >= MIN_AREA[name]
    }
    line = points["l_eye"] - points["r_eye"]
    unit = float(np.hypot(*line))
    if not _EYE_DISTANCE[0] <= unit <= _EYE_DISTANCE[1]:
        raise NoFaceError(f"the eyes are {unit:.0f} px apart, not {_EYE_DISTANCE[0]:.0f} to {_EYE_DISTANCE[1]:.0f}")
    across = line / unit
    down = np.array([-across[1], across[0]])
    points["middle"] = middle = (points["l_eye"] + points["r_eye"]) / 2

    mouth = _pixels(labels, *MOUTH, at_least=MIN_MOUTH_AREA)
    along = mouth @ across
    points["mouth"] = mouth.mean(0)
    # The mean over a few columns: a single pixel at the very end is the least certain of the whole outline.
    points["l_mouth"] = mouth[along >= along.max() - 3].mean(0)
    points["r_mouth"] = mouth[along <= along.min() + 3].mean(0)
    nose = _pixels(labels, "nose", at_least=MIN_AREA["nose"])
    below = nose @ down
    points["nose_tip"] = nose[below >= below.max() - 0.25 * np.ptp(below)].mean(0)
    if not ((points["mouth"] - middle) @ down > 0.5 * unit and (points["nose_tip"] - middle) @ down > 0.2 * unit):
        raise NoFaceError("nose and mouth are not below the eyes")

    face = select(labels, FACE)
    for name, way in (("l_jaw", across), ("r_jaw", -across), ("chin", down)):
        points[name] = _rim(face, points["mouth"], way)
    return Face(across, down, unit, points)


def _pixels(labels: LabelMap, *names: str, at_least: int) -> Point:
    found = cv2.findNonZero(select(labels, names))
    if found is None or len(found) < at_least:
        raise NoFaceError(f"{'/'.join(names)}: {0 if found is None else len(found)} pixels, at least {at_least}")
    return np.asarray(found[:, 0], np.float64)


def _centroid(labels: LabelMap, name: str) -> Point:
    return np.asarray(_pixels(labels, name, at_least=MIN_AREA[name]).mean(0))


def _rim(face: NDArray[np.uint8], start: Point, way: Point) -> Point:
    """The last pixel of the face on the way from a point inside it; the frame's edge also ends it."""
    steps = np.arange(1.0, max(face.shape))[:, None] * way + start
    inside = ((steps >= 0) & (steps <= np.array(face.shape[::-1]) - 1)).all(1)
    x, y = np.rint(steps[inside]).astype(int).T
    on_face = face[y, x] > 0
    return start + way * float(len(on_face) if on_face.all() else on_face.argmin())
