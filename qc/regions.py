"""What a mask covers of each part that a description can name, whole and per side of the subject.

A part is where the part map shows its class. What no class stands for is cut out of the skin in the face's own frame,
whose axis runs from the middle between the eyes over the nose to the mouth, so that a tilted head changes nothing:
forehead, cheeks, chin, jaw, and where a beard grows. The unit of that frame is the distance between the eyes or that
from the eyes to the mouth, whichever a turned head leaves longer. Its limits were set by looking at photographs and
drawn portraits.

The share of a part is that of the piece which is covered most: of eyes that of one eye, of the lip that of the upper
one, of the skin that of one cheek. Else an edit of a scar would be a thousandth of the skin, and a description of it an
error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from mmtt_build import parts
from mmtt_build.parts import CLASSES, INDEX, LABELS, LabelMap, Mask
from qc.version import rules_version

SIDES = ("", "left", "right")
SLOTS = tuple(product(LABELS, SIDES))
"""What each number of a cover is of: label and subject's side, the whole part first."""
_SLOT = {slot: i for i, slot in enumerate(SLOTS)}

Cover = tuple[float | None, ...]
_Floats = NDArray[np.float32]

_ZONES = ("rest", "forehead", "lids", "cheek", "cheek-jaw", "jaw", "chin", "mustache")
_ZONE = {name: i for i, name in enumerate(_ZONES)}
_FAR = 9.0
_OUTLINES: tuple[tuple[str, tuple[tuple[float, float], ...]], ...] = (
    # Convex, later ones on top; corners are how far across from the axis and how far down from the eyes. The mouth is
    # at about 1.
    ("forehead", ((-_FAR, -_FAR), (_FAR, -_FAR), (_FAR, -0.32), (-_FAR, -0.32))),
    ("cheek", ((-_FAR, 0.13), (_FAR, 0.13), (_FAR, 1.12), (-_FAR, 1.12))),
    ("cheek-jaw", ((0.8, 0.78), (_FAR, 0.78), (_FAR, 1.12), (0.62, 1.12))),
    ("cheek-jaw", ((-0.8, 0.78), (-_FAR, 0.78), (-_FAR, 1.12), (-0.62, 1.12))),
    ("jaw", ((-1.15, 1.12), (1.15, 1.12), (1.15, 2.2), (-1.15, 2.2))),
    ("chin", ((-0.38, 1.12), (0.38, 1.12), (0.38, 2.2), (-0.38, 2.2))),
    ("rest", ((-0.2, 0.13), (0.2, 0.13), (0.2, 0.6), (-0.2, 0.6))),
    ("mustache", ((-0.2, 0.5), (0.2, 0.5), (0.4, 0.72), (0.4, 1.12), (-0.4, 1.12), (-0.4, 0.72))),
)
_CORNERS = np.concatenate([np.array(outline) for _, outline in _OUTLINES])
_LIDS = (0.3, 0.18, 0.03)
"""Half width and half height of the lids around an eye, and how far below its middle theirs lies."""

_SKIN = "skin", *(f"skin@{zone}" for zone in _ZONES[1:]), "nose", "neck", "l_ear", "r_ear"
_MOUTH = "mouth u_lip l_lip", "mouth", "u_lip", "l_lip"
_SHAPES: dict[str, tuple[str, ...]] = {
    # Classes, with the zone that they are cut to: first the whole part, then what is part enough to be touched alone.
    "eye": ("l_eye r_eye", "l_eye r_eye skin@lids"),
    "pupil": ("l_eye r_eye",),
    "lip": ("u_lip l_lip", "u_lip", "l_lip"),
    "mouth": _MOUTH,
    "nose": ("nose",),
    "ear": ("l_ear r_ear",),
    "cheek": ("skin@cheek skin@cheek-jaw",),
    "forehead": ("skin@forehead",),
    "chin": ("skin@chin hair@chin",),
    "jaw": ("skin@chin skin@jaw skin@cheek-jaw", "skin@jaw", "skin@chin hair@chin"),
    "eyebrow": ("l_brow r_brow",),
    "tooth": _MOUTH,
    "tongue": _MOUTH,
    "beard": (
        "skin@chin skin@jaw skin@cheek-jaw skin@mustache hair@chin hair@jaw hair@cheek-jaw hair@mustache",
        *(f"skin@{zone} hair@{zone}" for zone in ("chin", "jaw", "cheek-jaw", "mustache")),
    ),
    "mustache": ("skin@mustache hair@mustache",),
    "skin": _SKIN,
    "hair": ("hair",),
    "wrinkle": _SKIN,
    "freckle": _SKIN,
    "scar": _SKIN,
    "dimple": ("skin@cheek skin@cheek-jaw skin@chin skin@mustache", "skin@chin", "skin@mustache"),
}
_GLASSES = ("eye_g",)
_COARSE = 4
"""Every fourth pixel shows well enough where eyes, nose and mouth are."""


class Map:
    """A part map on which masks are laid: what is the same for all of them is found once.

    Args:
        labels: (512, 512) uint8 part map.
        points: of the face as `records.Pristine.points`; without them those of the landmarks, else of the part map.
        landmarks: 68 x, y in pixels.
    """

    def __init__(
        self, labels: LabelMap, points: Sequence[float] | None = None, landmarks: Sequence[float] | None = None
    ) -> None:
        self.labels = labels
        self.zones = _zone_map(labels, points, landmarks)
        sizes = _pieces()[0] @ _counts(labels, self.zones)
        self._absent = sizes[_pieces()[2]] == 0  # slots whose whole part is not in the picture
        self._sizes = np.maximum(sizes, 1)

    def cover(self, mask: Mask, at: tuple[int, int] = (0, 0)) -> Cover:
        """The share of each part's pixels that a mask covers, of the piece that it covers most.

        Args:
            mask: (H, W) bool, the whole frame or that part of it that holds all masked pixels.
            at: y, x of its first pixel in the frame.

        Returns:
            A share from 0 to 1 for each of `SLOTS`; None where the picture shows no such part. A face without eyes or
            without a mouth has no frame: what needs one is None, too.
        """
        around = np.s_[at[0] : at[0] + mask.shape[0], at[1] : at[1] + mask.shape[1]]
        covered = _counts(self.labels[around] * mask, self.zones[around])  # what is not masked becomes background
        pieces, _, starts = _pieces()
        best = np.maximum.reduceat(pieces @ covered / self._sizes, starts)
        best[self._absent] = -1
        best, glasses = best[: len(SLOTS)], best[len(SLOTS) :]
        for label in ("eye", "pupil"):  # behind glasses a parser may see none
            eyes = best[_SLOT[label, ""] :][: len(SIDES)]
            eyes[eyes < 0] = glasses[eyes < 0]
        best[:: len(SIDES)] = best.reshape(-1, len(SIDES)).max(axis=1)
        return tuple(share if share >= 0 else None for share in best.tolist())


def basis(
    crcs: Sequence[int | None], points: Sequence[float] | None = None, landmarks: Sequence[float] | None = None
) -> str:
    """Digest of what a cover is measured from, and of the code that measures: it holds as long as this is the same.

    Args:
        crcs: CRC-32 of the files of the mask, of the part map and of that of the result, which may be None.
        points: as `Map` has them.
        landmarks: likewise.
    """
    numbers = (np.asarray(values or (), np.float32).tobytes() for values in (points, landmarks))
    said = repr((rules_version("regions"), tuple(crcs), *numbers))
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def of(cover: Cover, label: str, side: str = "") -> float | None:
    """The share of one part, by label and subject's side, "" for the whole part."""
    return cover[_SLOT[label, side]]


def region(
    labels: LabelMap,
    label: str,
    side: str = "",
    points: Sequence[float] | None = None,
    landmarks: Sequence[float] | None = None,
) -> Mask:
    """The pixels of one part, (H, W) bool; arguments as of `cover` and `of`. Glasses are no eyes here."""
    members = _members(_SHAPES[label][0], side).reshape(_CODES) > 0
    return members[labels, _zone_map(labels, points, landmarks)]


def larger(first: Cover | None, second: Cover | None) -> Cover | None:
    """The larger share of each part under two part maps of one picture, such as before and after the forging."""
    if first is None or second is None:
        return first or second
    pairs = zip(first, second, strict=True)
    return tuple(max((share for share in pair if share is not None), default=None) for pair in pairs)


def axis(
    labels: LabelMap, points: Sequence[float] | None = None, landmarks: Sequence[float] | None = None
) -> _Floats | None:
    """Middle between the eyes, tip of the nose and middle of the mouth, then the left eye and the right one.

    Returns:
        (5, 2) float32 x, y in pixels, or None where the picture does not show enough of a face; an eye that it does
        not show is NaN.
    """
    if points:
        left, right, nose, *mouth = np.array(points, np.float32).reshape(5, 2)
        return np.stack([(left + right) / 2, nose, (mouth[0] + mouth[1]) / 2, left, right])
    if landmarks:
        xy = np.array(landmarks, np.float32).reshape(68, 2)
        right, left = xy[36:42].mean(axis=0), xy[42:48].mean(axis=0)
        return np.stack([(left + right) / 2, xy[30], (xy[48] + xy[54]) / 2, left, right])
    return _seen(labels[::_COARSE, ::_COARSE])


def _seen(coarse: LabelMap) -> _Floats | None:
    flat = coarse.ravel().astype(np.intp)
    counts, *sums = (np.bincount(flat, weights, len(CLASSES)) for weights in (None, *_places(coarse.shape)))

    def middle(*names: str) -> _Floats:
        chosen = [INDEX[name] for name in names]
        count = counts[chosen].sum()
        return np.array([_COARSE * one[chosen].sum() / count if count else np.nan for one in sums], np.float32)

    left, right = middle("l_eye"), middle("r_eye")
    mouth, nose = middle("mouth", "u_lip", "l_lip"), middle("nose")
    # A profile shows one eye; its nose begins where the other one would be as near.
    brows = (middle("l_brow") + middle("r_brow")) / 2
    for between in ((left + right) / 2, middle("eye_g"), brows, _root(coarse)):
        if not np.isnan(between + mouth).any():
            tip = (between + mouth) / 2 if np.isnan(nose).any() else nose
            return np.stack([between, tip, mouth, left, right])
    return None


@cache
def _places(shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row of each pixel, flat."""
    rows, columns = np.indices(shape, np.float64)
    return columns.ravel(), rows.ravel()


def _root(coarse: LabelMap) -> _Floats:
    """Where the nose begins."""
    rows, columns = np.nonzero(coarse == INDEX["nose"])
    if not len(rows):
        return np.full(2, np.nan, np.float32)
    return _COARSE * np.array((columns[rows <= rows[0] + 1].mean(), rows[0]), np.float32)


def _zone_map(labels: LabelMap, points: Sequence[float] | None, landmarks: Sequence[float] | None) -> LabelMap:
    """Zone of each pixel, times two, plus one on the subject's left; `_NOWHERE` where there is no frame."""
    seen = axis(labels, points, landmarks)
    height = 0.0 if seen is None else float(np.linalg.norm(seen[2] - seen[0]))
    if seen is None or not height:
        return np.full_like(labels, _NOWHERE)
    eyes, nose, mouth, left, right = seen
    down = (mouth - eyes) / height
    across = np.array((down[1], -down[0]), np.float32)  # to the subject's left, which is the picture's right
    unit = max(height, float(np.linalg.norm(left - right)))  # NaN is never the larger one
    # The border of the sides bends at the nose, whose tip a turned head shows beside the line from eyes to mouth.
    far = _FAR * unit
    top, bottom = eyes - far * down, mouth + far * down
    left_half = (top, eyes, nose, mouth, bottom, bottom + far * across, top + far * across)
    placed = _fixed(np.concatenate([eyes + unit * _CORNERS @ np.array((across, down)), left_half]))
    zones, at = np.zeros_like(labels), 0
    for name, outline in _OUTLINES:
        cv2.fillConvexPoly(zones, placed[at : at + len(outline)], 2 * _ZONE[name], cv2.LINE_8, _SUBPIXEL_BITS)
        at += len(outline)
    angle = float(np.degrees(np.arctan2(across[1], across[0])))
    wide, high, lower = _LIDS
    for eye in (left, right):
        if not np.isnan(eye).any():
            middle, size = eye + lower * unit * down, (2 * wide * unit, 2 * high * unit)
            cv2.ellipse(zones, (middle.tolist(), size, angle), 2 * _ZONE["lids"], -1)
    sides = np.zeros_like(labels)
    cv2.fillPoly(sides, [placed[at:]], 1, cv2.LINE_8, _SUBPIXEL_BITS)
    zones += sides
    return zones


_SUBPIXEL_BITS = 4
_NOWHERE = 2 * len(_ZONES)
_CODES = len(CLASSES), 2 * len(_ZONES) + 1


def _fixed(corners: NDArray[np.floating]) -> NDArray[np.int32]:
    return np.rint(np.clip(corners, -10_000, 10_000) * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _counts(labels: LabelMap, zones: LabelMap) -> _Floats:
    """Pixels of each kind that `_pieces` tells apart; by the runs of equal pixels, of which a map has some thousand."""
    pieces, kinds, _ = _pieces()
    if not labels.size:
        return np.zeros(pieces.shape[1], np.float32)
    label, zone = labels.ravel(), zones.ravel()
    ends = label[1:] != label[:-1]
    ends |= zone[1:] != zone[:-1]
    starts = np.concatenate([[0], np.flatnonzero(ends) + 1])
    lengths = np.diff(starts, append=label.size)
    return np.bincount(kinds[label[starts], zone[starts]], lengths, pieces.shape[1]).astype(np.float32)


@cache
def _pieces() -> tuple[_Floats, NDArray[np.intp], NDArray[np.intp]]:
    """What to add up for each piece of each slot.

    Returns:
        (pieces, kinds) zeros and ones, glasses last; the kind of a pixel by class and zone, since most classes are
        the same in all zones; and where the pieces of a slot begin.
    """
    rows: list[_Floats] = []
    starts = []
    for shapes in (*(_SHAPES[label] for label in LABELS), _GLASSES):
        for of_side in SIDES:
            starts.append(len(rows))
            rows += [_members(shape, of_side) for shape in shapes]
    pieces, kinds = np.unique(np.stack(rows), axis=1, return_inverse=True)
    return np.ascontiguousarray(pieces), kinds.reshape(_CODES), np.array(starts)


def _members(shape: str, of_side: str) -> _Floats:
    chosen = np.zeros(_CODES, np.float32)
    sided = np.array([of_side in ("", "right"), of_side in ("", "left")])
    for item in shape.split():
        name, _, zone = item.partition("@")
        row = chosen[INDEX[name]]
        if zone:
            row[2 * _ZONE[zone] :][:2] = sided
        elif own := parts.side(name):
            row[:] = of_side in ("", own)
        else:
            row[:_NOWHERE] = np.tile(sided, len(_ZONES))
            row[_NOWHERE] = not of_side
    return chosen.ravel()
