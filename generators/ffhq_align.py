"""FFHQ alignment, as e4e, StyleCLIP and HFGI expect faces, and the way back into the photo's own pixels.

A face is cut out along a quad: a square turned with the head, sized by the eyes and the mouth. FFHQ photos are such
cut-outs already, see `is_aligned`. All coordinates are x, y in pixels; the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from mmtt_build.masks import Image
from mmtt_build.parts import LabelMap

Points = NDArray[np.float64]
Floats = NDArray[np.float32]

ENCODER_SIZE = 256
"""Side of the cut-out that the e4e encoders take, in pixels."""

MAX_SIDE = 8.0
"""Largest quad, in sides of the photo: beyond it the landmarks are wrong, and the padding would fill the memory."""

ALIGNED = 0.05
"""How far a corner of a quad may lie from the photo's where the photo counts as aligned, in sides of the photo.

Of 4 photographs and 12 drawn portraits that are aligned, quads from part maps lie up to 3.3 % off: eye centres and
mouth corners of a part map are not those of 68 landmarks. To cut such a photo out again would only blur it."""

FEATHER = 0.03
"""Width of the rim of a quad over which a cut-out that is put back comes in, in sides of the quad."""


class AlignmentError(ValueError):
    """The landmarks make no quad; the message says why."""


def anchors68(landmarks: NDArray[Any]) -> Points:
    """The four points that matter of 68 landmarks (68, 2) in iBUG's order.

    Returns:
        (4, 2): the viewer's left eye, right eye, left and right corner of the mouth.
    """
    points = np.asarray(landmarks, np.float64)
    return np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[48], points[54]])


def anchors5(points: Sequence[float]) -> Points:
    """The four points that matter of `Pristine.points`, ten numbers of the subject's left and right; see `anchors68`.

    Raises:
        AlignmentError: there are not ten.
    """
    if len(points) != 10:
        raise AlignmentError("the part map lacks an eye, the nose or the lips")
    left_eye, right_eye, _, left_corner, right_corner = np.asarray(points, np.float64).reshape(5, 2)
    return np.stack([right_eye, left_eye, right_corner, left_corner])


def quad(anchors: Points) -> Points:
    """The quad of a face.

    Args:
        anchors: (4, 2) as `anchors68` gives them.

    Returns:
        (4, 2) corners: top left, bottom left, bottom right, top right of the upright face.

    Raises:
        AlignmentError: points are not finite, or eyes and mouth coincide.
    """
    if not np.isfinite(anchors).all():
        raise AlignmentError("landmarks are not finite")
    left, right, *corners = anchors
    eyes, across = (left + right) / 2, right - left
    down = (corners[0] + corners[1]) / 2 - eyes
    x = np.array([across[0] + down[1], across[1] - down[0]])
    size = max(2.0 * math.hypot(*across), 1.8 * math.hypot(*down))
    length = math.hypot(*x)
    if length < 1e-6 or size < 1:
        raise AlignmentError("eyes and mouth coincide")
    x *= size / length
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.1 * down
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def is_aligned(corners: Points, shape: tuple[int, ...], tolerance: float = ALIGNED) -> bool:
    """Whether a photo (H, W, ...) is what its quad would cut out, but for the noise of landmarks."""
    height, width = shape[:2]
    frame = np.array([(0, 0), (0, height), (width, height), (width, 0)]) - 0.5
    return bool(np.hypot(*(corners - frame).T).max() <= tolerance * max(height, width))


def cut_out(photo: Image, corners: Points, size: int = ENCODER_SIZE) -> Image:
    """The aligned face.

    A photo of more than four times the size is reduced first; where the quad leaves the photo it goes on as a blurred
    mirror image that fades into the median colour.

    Args:
        photo: (H, W, 3) uint8 RGB.
        corners: (4, 2) as `quad` gives them.
        size: side of the result.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        AlignmentError: the quad is far larger than the photo, or does not meet it.
    """
    side = _side(corners)
    if side > MAX_SIDE * max(photo.shape[:2]):
        raise AlignmentError(f"the face would be {side:.0f} px large, in a photo of {max(photo.shape[:2])}")
    if (corners.max(axis=0) < 0).any() or (corners.min(axis=0) > (photo.shape[1], photo.shape[0])).any():
        raise AlignmentError("the face lies outside the photo")
    picture = PillowImage.fromarray(photo)
    shrink = math.floor(side / size * 0.5)
    if shrink > 1:
        smaller = (round(picture.width / shrink), round(picture.height / shrink))
        picture = picture.resize(smaller, PillowImage.Resampling.LANCZOS)
        corners, side = corners / shrink, side / shrink
    border = max(round(side * 0.1), 3)
    (left, top), (right, bottom) = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
    box = (
        max(left - border, 0), max(top - border, 0),
        min(right + border, picture.width), min(bottom + border, picture.height),
    )  # fmt: skip
    picture, corners = picture.crop(box), corners - box[:2]
    (left, top), (right, bottom) = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
    beyond = np.array([-left, -top, right - picture.width, bottom - picture.height])
    pad = np.maximum(beyond + border, 0)
    if pad.max() > border - 4:
        pad = np.maximum(pad, round(side * 0.3))
        picture, corners = PillowImage.fromarray(_padded(np.asarray(picture), pad, 0.02 * side)), corners + pad[:2]
    flat = tuple((corners + 0.5).ravel().tolist())
    resampled = picture.transform(
        (size, size), PillowImage.Transform.QUAD, flat, resample=PillowImage.Resampling.BILINEAR
    )
    return np.array(resampled)


def put_back(image: Image, corners: Points, shape: tuple[int, ...]) -> tuple[Image, Floats]:
    """Puts an aligned picture where it was cut out: the inverse of `cut_out`.

    Args:
        image: (n, n, 3) uint8 RGB, any n; it is averaged where the photo has fewer pixels.
        corners: (4, 2) the quad in the photo.
        shape: of the photo, (H, W, ...).

    Returns:
        The picture in the photo's pixels (H, W, 3) uint8, and how much of it to take (H, W) float32: 1 inside the quad,
        0 outside, with a soft rim inside it.
    """
    side = _side(corners)
    if side < image.shape[0]:
        smaller = max(1, round(side))
        image = cv2.resize(image, (smaller, smaller), interpolation=cv2.INTER_AREA)
    there = _placed(image, corners, shape, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    along, down = (corners[3] - corners[0]) / side**2, (corners[1] - corners[0]) / side**2
    # Where in the quad a pixel lies, both from 0 to 1.
    u, v = ((x - corners[0, 0]) * way[0] + (y - corners[0, 1]) * way[1] for way in (along, down))
    depth = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    t = np.clip(depth / FEATHER, 0, 1)
    return np.asarray(there, np.uint8), np.asarray(t * t * (3 - 2 * t), np.float32)


def cut_out_labels(labels: LabelMap, corners: Points, size: int) -> LabelMap:
    """The part map (size, size) of the aligned face, of the photo's (H, W); background beyond the photo."""
    return np.asarray(
        cv2.warpAffine(
            labels, _matrix(corners, (size, size)), (size, size), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        ),
        np.uint8,
    )


def labels_back(labels: LabelMap, corners: Points, shape: tuple[int, ...]) -> LabelMap:
    """Puts the part map (n, n) of an aligned picture where that was cut out, (H, W); background around it."""
    return np.asarray(_placed(labels, corners, shape, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT), np.uint8)


def _side(corners: Points) -> float:
    return float(np.hypot(*(corners[3] - corners[0])))


def _placed(image: NDArray[Any], corners: Points, shape: tuple[int, ...], how: int, around: int) -> NDArray[Any]:
    return cv2.warpAffine(image, _matrix(corners, image.shape), (shape[1], shape[0]), flags=how, borderMode=around)


def _matrix(corners: Points, shape: tuple[int, ...]) -> Points:
    """(2, 3), from the pixels of an aligned picture (H, W, ...) to those of the photo."""
    along, down = (corners[3] - corners[0]) / shape[1], (corners[1] - corners[0]) / shape[0]
    return np.column_stack([along, down, corners[0] + (along + down) / 2])


def _padded(image: Image, pad: NDArray[Any], sigma_px: float) -> Image:
    """The image mirrored at its borders by (left, top, right, bottom) px, ever more blurred and greyer outwards."""
    left, top, right, bottom = (int(value) for value in pad)
    wide = np.pad(image.astype(np.float32), ((top, bottom), (left, right), (0, 0)), "reflect")
    height, width = wide.shape[:2]
    y, x = np.ogrid[:height, :width]
    far = np.maximum(
        1 - np.minimum(x / np.float32(left), (width - 1 - x) / np.float32(right)),
        1 - np.minimum(y / np.float32(top), (height - 1 - y) / np.float32(bottom)),
    ).astype(np.float32)[..., None]
    reach = 2 * int(4 * sigma_px + 0.5) + 1
    soft = cv2.GaussianBlur(wide, (reach, reach), sigma_px, borderType=cv2.BORDER_REFLECT)
    wide += (soft - wide) * np.clip(3 * far + 1, 0, 1)
    wide += (np.median(wide, axis=(0, 1)) - wide) * np.clip(far, 0, 1)
    return np.clip(np.rint(wide), 0, 255).astype(np.uint8)
