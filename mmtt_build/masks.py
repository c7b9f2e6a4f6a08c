"""The mask contract: what a manipulation mask is, and the check that every stored forgery passes.

Inside the program a mask is (H, W) bool; on disk and in a release it is one channel of 0 and 255.
A soft blend mask (alpha) never leaves the method that uses it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mmtt_build.errors import ContractBroken

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

FORGED_ABOVE = 127
"""Grey value above which a stored mask pixel counts as forged: the one threshold of the project."""

MIN_CHANGED_SHARE = 0.05
"""Least share of masked pixels that must differ from the base, else the forgery is a no-op."""
MIN_MEAN_CHANGE = 1.0
"""Least mean absolute change inside the mask, in grey levels (0-255), else the forgery is a no-op."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a forgery did inside its mask.

    Attributes:
        area: masked share of the frame, (0, 1).
        changed_share: share of masked pixels that differ from the base in any channel, (0, 1].
        mean_change: mean absolute difference over masked pixels and channels, in grey levels.
    """

    area: float
    changed_share: float
    mean_change: float


def from_grey(grey: Image) -> Mask:
    """Mask (H, W) bool of a stored one-channel image (H, W) uint8."""
    return grey > FORGED_ABOVE


def to_grey(mask: Mask) -> Image:
    """One-channel image (H, W) uint8 of 0 and 255 for a mask (H, W) bool."""
    return mask.view(np.uint8) * np.uint8(255)


def focus(mask: Mask) -> tuple[int, int]:
    """x, y of a pixel to look at first: in the mask, which has half of its pixels above and half below.

    The middle of two eyes would be the nose between them.

    Args:
        mask: (H, W) bool, not empty.
    """
    filled = cv2.reduce(mask.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel().cumsum()
    y = int(filled.searchsorted(filled[-1] / 2))
    ends = np.flatnonzero(np.diff(mask[y].view(np.int8), prepend=0, append=0))
    longest = int((ends[1::2] - ends[::2]).argmax())
    return int(ends[2 * longest] + ends[2 * longest + 1] - 1) // 2, y


def composite(base: Image, generated: Image, mask: Mask) -> Image:
    """I_f = (1-M)*I + M*I_g with a hard mask: outside the mask the base, bit for bit."""
    return cv2.copyTo(generated, to_grey(mask), base.copy())


def check(base: Image, forged: Image, mask: Mask) -> Change:
    """Holds a forgery against the mask contract.

    Args:
        base: (H, W, 3) uint8 RGB, the image that was altered.
        forged: (H, W, 3) uint8 RGB, the image after the alteration.
        mask: (H, W) bool, the pixels the method says it forged.

    Returns:
        How much changed inside the mask.

    Raises:
        ContractBroken: sizes or types differ, the mask is empty or the full frame, a pixel outside
            the mask differs, or next to nothing changed inside it.
    """
    if forged.shape != base.shape or forged.dtype != np.uint8:
        raise ContractBroken(f"image is {forged.shape} {forged.dtype}, its base {base.shape} uint8")
    if mask.shape != base.shape[:2] or mask.dtype != np.bool_:
        raise ContractBroken(f"mask is {mask.shape} {mask.dtype}, its image {base.shape[:2]} bool")
    masked = int(np.count_nonzero(mask))
    if masked == 0:
        raise ContractBroken("mask is empty")
    if masked == mask.size:
        raise ContractBroken("mask is the full frame")
    # OpenCV, and only what lies around the mask: numpy on the whole frame takes ten times as long, on every row.
    grey = to_grey(mask)
    if cv2.norm(cv2.copyTo(forged, grey, base.copy()), forged, cv2.NORM_INF):
        stray = np.count_nonzero((base != forged).any(axis=2) & ~mask)
        raise ContractBroken(f"{stray} pixels outside the mask differ from the base")
    x, y, width, height = cv2.boundingRect(grey)
    around = np.s_[y : y + height, x : x + width]
    difference = cv2.absdiff(base[around], forged[around])
    red, green, blue = cv2.split(difference)
    change = Change(
        area=masked / mask.size,
        changed_share=cv2.countNonZero(cv2.max(cv2.max(red, green), blue)) / masked,
        mean_change=sum(cv2.mean(difference, grey[around])[:3]) / 3,
    )
    if change.changed_share < MIN_CHANGED_SHARE or change.mean_change < MIN_MEAN_CHANGE:
        raise ContractBroken(
            f"no-op: {change.changed_share:.1%} of the masked pixels changed, by {change.mean_change:.2f} grey levels "
            f"on average (at least {MIN_CHANGED_SHARE:.0%} and {MIN_MEAN_CHANGE:g})"
        )
    return change
