"""Face-vid2vid (Wang et al., CVPR 2021) as E4S uses it: gives one face the pose and expression of another.

Names and numbers of the re-implementation whose weights are published, "Vox-256-New", with the SPADE painter. Its one
file holds three state dicts; here they are the three parts of one network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtt_build.masks import Image

from .estimators import HeadEstimator, KeypointDetector
from .generator import DenseMotion, Generator
from .layers import bell

__all__ = ["FaceVid2Vid", "build", "shrink"]


class FaceVid2Vid(nn.Module):
    """All networks of the published file.

    Args:
        generator: paints the face.
        kp_detector: finds its key points.
        he_estimator: finds pose and expression.
    """

    def __init__(self, generator: Generator, kp_detector: KeypointDetector, he_estimator: HeadEstimator) -> None:
        super().__init__()
        self.generator = generator
        self.kp_detector = kp_detector
        self.he_estimator = he_estimator

    def forward(self, source: Tensor, driving: Tensor) -> Tensor:
        """The source with the pose and expression of the other.

        Key points are those of the source alone; pose, place and expression are taken over as they are, not relative
        to another picture of the driving face.

        Args:
            source: (B, 3, 256, 256) RGB in [0, 1].
            driving: likewise.

        Returns:
            (B, 3, 256, 256) float32 RGB in [0, 1].
        """
        if source.device.type == "cpu" and len(source) > 1:  # the memory of a batch stays that of one picture
            return torch.cat([self(source[i : i + 1], driving[i : i + 1]) for i in range(len(source))])
        points = self.kp_detector(source)
        now, then = self.he_estimator(source), self.he_estimator(driving)
        painted: Tensor = self.generator(source, then.placed(points), now.placed(points))
        return painted

    def head_pose(self, image: Tensor) -> Tensor:
        """(B, 3, 256, 256) RGB in [0, 1] -> (B, 3) float32: yaw, pitch and roll in degrees."""
        angles: Tensor = self.he_estimator(image).angles()
        return angles


def build() -> FaceVid2Vid:
    """The published network."""
    return FaceVid2Vid(Generator(DenseMotion()), KeypointDetector(), HeadEstimator())


def shrink(images: Sequence[Image]) -> Tensor:
    """A quarter of the size, as scikit-image's anti-aliased `resize` gives it.

    Args:
        images: (1024, 1024, 3) uint8 RGB each, or other equal sizes divisible by 4.

    Returns:
        (B, 3, 256, 256) float32 in [0, 1], also under autocast.

    Raises:
        ValueError: a side is not divisible by 4.
    """
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    if any(side % 4 for side in pixels.shape[2:]):
        raise ValueError(f"sides are not divisible by 4: {tuple(pixels.shape[2:])}")
    # A pixel of the result lies midway between the 2nd and the 3rd of four: the mean of two Gaussians of 13 taps.
    taps = torch.tensor([(a + b) / 2 for a, b in zip([*bell(), 0], [0, *bell()], strict=True)])
    with torch.autocast("cpu", enabled=False):
        padded = F.pad(pixels.float() / 255, (5, 5, 5, 5), mode="reflect")
        rows = F.conv2d(padded, taps.view(1, 1, -1, 1).expand(3, -1, -1, -1), stride=(4, 1), groups=3)
        return F.conv2d(rows, taps.view(1, 1, 1, -1).expand(3, -1, -1, -1), stride=(1, 4), groups=3)
