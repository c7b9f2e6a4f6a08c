"""The square that E4S works on, cut out of a photo, and the way back into the photo's own pixels.

Both ways of cutting out take the quad of `ffhq_align`. Without corners the photo is such a square already.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from generators import ffhq_align
from generators.e4s import composite
from generators.ffhq_align import AlignmentError, Points
from mmtt_build.masks import Image, Mask

SIDE = 1024
"""Of the square, in pixels."""


def cut_out(photo: Image, corners: Points | None) -> Image:
    """The aligned face as the forging method takes it: beyond the photo FFHQ's padding, on which networks were trained.

    Args:
        photo: (H, W, 3) uint8 RGB.
        corners: (4, 2) as `ffhq_align.quad` gives them; None for a photo that is aligned.

    Returns:
        (1024, 1024, 3) uint8 RGB.

    Raises:
        AlignmentError: see `ffhq_align.cut_out`.
    """
    if corners is not None:
        return ffhq_align.cut_out(photo, corners, SIDE)
    return np.array(PillowImage.fromarray(photo).resize((SIDE, SIDE), PillowImage.Resampling.BICUBIC))


def cut_out_as_published(photo: Image, corners: Points) -> Image:
    """The aligned face as E4S's own script cuts it out, in which two things differ from FFHQ's.

    Beyond the photo it is black, and the photo is reduced by a factor taken from the quad's diagonal in place of its
    side, thus already where the quad is 2896 px wide rather than 4096.

    Args:
        photo: (H, W, 3) uint8 RGB.
        corners: (4, 2) as `ffhq_align.quad` gives them.

    Returns:
        (1024, 1024, 3) uint8 RGB.

    Raises:
        AlignmentError: the quad is far larger than the photo, or does not meet it.
    """
    picture, side = PillowImage.fromarray(photo), _side(corners)
    if side > ffhq_align.MAX_SIDE * max(picture.size):
        raise AlignmentError(f"the face would be {side:.0f} px large, in a photo of {max(picture.size)}")
    if (corners.max(axis=0) < 0).any() or (corners.min(axis=0) > picture.size).any():
        raise AlignmentError("the face lies outside the photo")
    shrink = math.floor(math.sqrt(2) * side / SIDE * 0.5)
    if shrink > 1:
        smaller = (round(picture.width / shrink), round(picture.height / shrink))
        picture, corners = picture.resize(smaller, PillowImage.Resampling.LANCZOS), corners / shrink
    flat = tuple((corners + 0.5).ravel().tolist())
    resampled = picture.transform(
        (SIDE, SIDE), PillowImage.Transform.QUAD, flat, resample=PillowImage.Resampling.BILINEAR
    )
    return np.array(resampled)


def put_back(base: Image, generated: Image, alpha: Image, corners: Points | None) -> tuple[Image, Mask]:
    """Brings a generated square into its photo by its own weights, and says exactly which pixels may have changed.

    E4S pastes the whole square, so that every pixel of the quad changes by resampling. Here the weights go where the
    picture goes and the photo stays untouched wherever they are 0 once they are 8 bits. Both are averaged where the
    photo has fewer pixels. Where the quad ends within the photo, weights fade out towards it: a neck that the square
    cuts off would else end in a line.

    Args:
        base: (H, W, 3) uint8 RGB, the photo.
        generated: (n, n, 3) uint8 RGB, any n.
        alpha: (n, n) uint8, 255 is all of the generated picture.
        corners: (4, 2) the quad in the photo; None if the square is the photo.

    Returns:
        The forged photo, and the mask (H, W) bool: every pixel with a weight.
    """
    shape = base.shape[:2]
    if corners is None:
        there, weight = (cv2.resize(p, shape[::-1], interpolation=cv2.INTER_AREA) for p in (generated, alpha))
    else:
        there, inside = ffhq_align.put_back(generated, corners, shape)
        smaller = min(alpha.shape[0], max(1, round(_side(corners))))
        averaged = cv2.resize(alpha, (smaller, smaller), interpolation=cv2.INTER_AREA)
        weight = np.rint(placed(np.asarray(averaged, np.uint8), corners, shape) * inside).astype(np.uint8)
    return composite.blend_alpha(there, base, weight), weight > 0


def placed(picture: Image, corners: Points, shape: tuple[int, ...]) -> Image:
    """A square (n, n) or (n, n, 3) uint8 where its quad lies in a photo (H, W, ...), bilinear; 0 around it."""
    laid = PillowImage.fromarray(picture).transform(
        (shape[1], shape[0]),
        PillowImage.Transform.AFFINE,
        tuple(into_square(corners, picture.shape[0]).ravel()),
        resample=PillowImage.Resampling.BILINEAR,
    )
    return np.array(laid)


def into_square(corners: Points, size: int = SIDE) -> NDArray[np.float64]:
    """The matrix (2, 3) that takes a point of the photo into the square cut out of it.

    As Pillow counts both: the centre of the first pixel is (0.5, 0.5), the corners of the square are (0, 0) to
    (size, size).
    """
    top_left, bottom_left, _, top_right = corners + 0.5
    turn = size * np.stack([top_right - top_left, bottom_left - top_left]) / _side(corners) ** 2
    return np.column_stack([turn, -turn @ top_left])


def _side(corners: NDArray[Any]) -> float:
    return float(np.hypot(*(corners[3] - corners[0])))
