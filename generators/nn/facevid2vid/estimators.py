"""What face-vid2vid sees in a picture: key points of a face regardless of its pose, and its pose and expression.

Both compute in float32 also under autocast: key points are expectations over a softmax of ten times the logits.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.nn import ops

from .layers import Down, Up, arranged, bell, grid

TEMPERATURE = 0.1
"""Of the softmax over the voxels."""

BINS, BIN_DEG, FIRST_DEG = 66, 3.0, -99.0
"""Classes of an angle, degrees between two of them, degrees of the first."""

PI = 3.14
"""The authors' own, which the networks were trained with."""


class Shrink(nn.Module):
    """A quarter of the size: a Gaussian, then every 4th pixel."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(3 * [[[[a * b for a in bell()] for b in bell()]]]))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H/4, W/4)."""
        return F.conv2d(image, self.weight, stride=4, padding=6, groups=3)


class Volume(nn.Module):
    """From a picture to features in three dimensions.

    Args:
        width: channels of the result; halfway there are `most`.
        most: channels at the smallest size, after `blocks` halvings.
        depth: D.
        blocks: how often height and width are halved, and doubled again.
    """

    def __init__(self, width: int, most: int, depth: int, blocks: int) -> None:
        super().__init__()
        widths = [min(most, width << level) for level in range(blocks + 1)]
        self.depth = depth
        self.down_blocks = nn.Sequential(
            OrderedDict((f"down{i}", Down(widths[i] if i else 3, widths[i + 1])) for i in range(blocks))
        )
        self.conv = nn.Conv2d(widths[-1], widths[-1] * depth, 1)
        self.up_blocks = nn.Sequential(
            OrderedDict((f"up{i}", Up(widths[blocks - i], widths[blocks - i - 1])) for i in range(blocks))
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W), sides divisible by 2**blocks -> (B, width, D, H, W)."""
        deep = self.conv(self.down_blocks(ops.arranged(image))).unflatten(1, (-1, self.depth))
        features: Tensor = self.up_blocks(arranged(deep))
        return features


class KeypointDetector(nn.Module):
    """Key points of a face as if it looked ahead without expression.

    Args:
        points: how many.
        width: channels of the features that they are read off.
        most: channels of the deepest features.
        depth: voxels along z.
        blocks: halvings after the first two.
    """

    def __init__(
        self, *, points: int = 15, width: int = 32, most: int = 1024, depth: int = 16, blocks: int = 5
    ) -> None:
        super().__init__()
        self.down = Shrink()
        self.predictor = Volume(width, most, depth, blocks)
        self.kp = nn.Conv3d(width, points, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> (B, points, 3) float32: x, y, z in [-1, 1]."""
        with torch.autocast(image.device.type, enabled=False):
            logits = self.kp(self.predictor(self.down(image.float())))
            heat = (logits.flatten(2) / TEMPERATURE).softmax(2)
            places: Tensor = heat @ grid(logits.shape[2:], image.device).flatten(0, 2)
            return places


class Head(NamedTuple):
    """Pose and expression of B faces, float32.

    Attributes:
        yaw: (B, 66) logits over angles, as are `pitch` and `roll`.
        pitch: (B, 66).
        roll: (B, 66).
        shift: (B, 3), in the unit of key points.
        expression: (B, points, 3), what it moves each key point by.
    """

    yaw: Tensor
    pitch: Tensor
    roll: Tensor
    shift: Tensor
    expression: Tensor

    def angles(self) -> Tensor:
        """(B, 3): expected yaw, pitch and roll in degrees."""
        share = torch.stack((self.yaw, self.pitch, self.roll), dim=1).softmax(2)
        steps = torch.arange(BINS, dtype=share.dtype, device=share.device)
        return (share * steps).sum(2) * BIN_DEG + FIRST_DEG

    def placed(self, points: Tensor) -> Tensor:
        """Key points of this pose and expression.

        Args:
            points: (B, points, 3), as `KeypointDetector` gives them.

        Returns:
            (B, points, 3).
        """
        turned = points @ rotation(self.angles()).transpose(1, 2)
        return turned + self.shift[:, None] + self.expression


def rotation(angles: Tensor) -> Tensor:
    """(B, 3) yaw, pitch and roll in degrees -> (B, 3, 3): turns by the roll, then the yaw, then the pitch."""
    radians = angles / 180 * PI
    (sy, sp, sr), (cy, cp, cr) = radians.sin().unbind(1), radians.cos().unbind(1)
    zero, one = torch.zeros_like(sy), torch.ones_like(sy)
    pitch = torch.stack((one, zero, zero, zero, cp, -sp, zero, sp, cp), dim=1).view(-1, 3, 3)
    yaw = torch.stack((cy, zero, sy, zero, one, zero, -sy, zero, cy), dim=1).view(-1, 3, 3)
    roll = torch.stack((cr, -sr, zero, sr, cr, zero, zero, zero, one), dim=1).view(-1, 3, 3)
    return pitch @ yaw @ roll


class Bottleneck(nn.Module):
    """Residual unit of ResNet-50: (B, C, H, W) -> (B, C, H / stride, W / stride).

    Args:
        channels: C.
        stride: in pixels; from 2 on, the shortcut is a convolution, too.
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1, self.norm1 = nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.norm2 = nn.Conv2d(inner, inner, 3, stride, padding=1), nn.BatchNorm2d(inner)
        self.conv3, self.norm3 = nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels)
        self.skip = nn.Conv2d(channels, channels, 1, stride) if stride > 1 else None
        self.norm4 = nn.BatchNorm2d(channels) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / stride, W / stride)."""
        y = F.relu_(self.norm1(self.conv1(x)))
        y = F.relu_(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        if self.skip is not None and self.norm4 is not None:
            x = self.norm4(self.skip(x))
        return F.relu_(y + x)


def _units(stage: int, channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict((f"b{stage}_{i}", Bottleneck(channels)) for i in range(count)))


class HeadEstimator(nn.Module):
    """Pose and expression of a face.

    Args:
        points: how many key points there are.
        width: channels after the first convolution; 32 times as many after the last.
    """

    def __init__(self, *, points: int = 15, width: int = 64) -> None:
        super().__init__()
        widths = [4 * width, 8 * width, 16 * width, 32 * width]
        self.conv1, self.norm1 = nn.Conv2d(3, width, 7, 2, padding=3), nn.BatchNorm2d(width)
        for stage, (n_in, n_out) in enumerate(zip([width, *widths], widths, strict=False), 2):
            self.add_module(f"conv{stage}", nn.Conv2d(n_in, n_out, 1))
            self.add_module(f"norm{stage}", nn.BatchNorm2d(n_out))
        self.block1 = _units(1, widths[0], 3)
        self.block2, self.block3 = Bottleneck(widths[1], 2), _units(3, widths[1], 3)
        self.block4, self.block5 = Bottleneck(widths[2], 2), _units(5, widths[2], 5)
        self.block6, self.block7 = Bottleneck(widths[3], 2), _units(7, widths[3], 2)
        self.fc_roll, self.fc_pitch, self.fc_yaw = (nn.Linear(widths[3], BINS) for _ in range(3))
        self.fc_t, self.fc_exp = nn.Linear(widths[3], 3), nn.Linear(widths[3], 3 * points)

    def forward(self, image: Tensor) -> Head:
        """(B, 3, H, W) RGB in [0, 1], sides divisible by 32 -> `Head`."""
        with torch.autocast(image.device.type, enabled=False):
            x = F.relu_(self.norm1(self.conv1(ops.arranged(image.float()))))
            x = F.max_pool2d(x, 3, 2, padding=1)
            stages = (
                (self.block1,),
                (self.block2, self.block3),
                (self.block4, self.block5),
                (self.block6, self.block7),
            )
            for stage, blocks in enumerate(stages, 2):
                x = F.relu_(self.get_submodule(f"norm{stage}")(self.get_submodule(f"conv{stage}")(x)))
                for block in blocks:
                    x = block(x)
            x = x.mean((2, 3))
            # The published weights have yaw and roll the wrong way round: what is called roll turns about y.
            yaw, pitch, roll = self.fc_roll(x), self.fc_pitch(x), self.fc_yaw(x)
            return Head(yaw, pitch, roll, self.fc_t(x), self.fc_exp(x).unflatten(1, (-1, 3)))
