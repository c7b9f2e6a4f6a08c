"""The generator of face-vid2vid: lifts a picture into three dimensions, moves it as key points moved, paints it."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.nn import ops

from .layers import Block, Down, Up, arranged, grid
from .spade import Decoder

VARIANCE = 0.01
"""Of the Gaussian that marks a key point."""

NOTHING = 1e-12
"""What such a Gaussian's factors are 0 below: convolutions of numbers under 1e-38 take four times as long on a CPU."""


def sampled(features: Tensor, places: Tensor) -> Tensor:
    """Features at other places, (B, C, D, H, W) and (B, D, H, W, 3) -> (B, C, D, H, W); 0 outside.

    The places are built with -1 and 1 in the middle of the outer voxels and read as their outer faces: so were the
    networks trained.
    """
    return F.grid_sample(features.float(), places, mode="bilinear", padding_mode="zeros", align_corners=False)


class Encoder(nn.Module):
    """Features at ever smaller sizes.

    Args:
        widths: channels of the input and after each halving.
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(Down(n_in, n_out, dims=3) for n_in, n_out in pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, D, H, W) -> the input and what each block makes of the one before."""
        seen = [x]
        for block in self.down_blocks:
            seen.append(block(seen[-1]))
        return seen


class Expander(nn.Module):
    """Back to the full size, with the encoder's features of each size.

    Args:
        widths: channels from the smallest size to the largest.
        n_in: channels of the encoder's input.
    """

    def __init__(self, widths: list[int], n_in: int) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList(Up(n * (1 + (i > 0)), m) for i, (n, m) in enumerate(pairwise(widths)))
        self.channels = widths[-1] + n_in
        self.conv = nn.Conv3d(self.channels, self.channels, 3, padding=1)
        self.norm = nn.BatchNorm3d(self.channels)

    def forward(self, seen: list[Tensor]) -> Tensor:
        """What `Encoder` gives, which is used up -> (B, channels, D, H, W)."""
        x = seen.pop()
        for block in self.up_blocks:
            x = torch.cat((block(x), seen.pop()), dim=1)
        return F.relu_(self.norm(self.conv(x)))


class Hourglass(nn.Module):
    """(B, n_in, D, H, W) -> (B, width + n_in, D, H, W), sides divisible by 2**blocks.

    Args:
        n_in: channels of the input.
        width: channels that are added.
        most: channels at the smallest size.
        blocks: halvings.
    """

    def __init__(self, n_in: int, width: int, most: int, blocks: int) -> None:
        super().__init__()
        widths = [min(most, width << level) for level in range(blocks + 1)]
        self.encoder = Encoder([n_in, *widths[1:]])
        self.decoder = Expander(widths[::-1], n_in)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, D, H, W) -> (B, width + n_in, D, H, W)."""
        features: Tensor = self.decoder(self.encoder(x))
        return features


class DenseMotion(nn.Module):
    """From the motion of key points to that of all voxels.

    Args:
        points: how many key points.
        features: channels of the features that are moved.
        depth: D.
        width: channels that the hourglass adds.
        most: channels at its smallest size.
        blocks: its halvings.
        compress: channels that the features are looked at with.
    """

    def __init__(
        self,
        *,
        points: int = 15,
        features: int = 32,
        depth: int = 16,
        width: int = 32,
        most: int = 1024,
        blocks: int = 5,
        compress: int = 4,
    ) -> None:
        super().__init__()
        self.hourglass = Hourglass((points + 1) * (compress + 1), width, most, blocks)
        channels = self.hourglass.decoder.channels
        self.mask = nn.Conv3d(channels, points + 1, 7, padding=3)
        self.compress = nn.Conv3d(features, compress, 1)
        self.norm = nn.BatchNorm3d(compress)
        self.occlusion = nn.Conv2d(channels * depth, 1, 7, padding=3)

    def forward(self, features: Tensor, driving: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """How the picture moves.

        Args:
            features: (B, features, D, H, W) of the source.
            driving: (B, points, 3) float32, where the key points shall be.
            source: (B, points, 3) float32, where they are.

        Returns:
            Where each voxel comes from, (B, D, H, W, 3) float32, and how much of each pixel is seen in the source,
            (B, 1, H, W) in [0, 1].
        """
        places = grid(features.shape[2:], features.device)
        # One motion per key point, and none: the background stays.
        shifts = F.pad(source - driving, (0, 0, 1, 0))  # (B, points + 1, 3)
        x = self._looked(features, places, shifts, driving, source)
        x = self.hourglass(arranged(x)).contiguous()
        logits, occlusion = self.mask(x), self.occlusion(x.flatten(1, 2)).sigmoid()
        with torch.autocast(x.device.type, enabled=False):
            # The shares add up to 1, so that the place itself need not be weighed.
            moved = places + torch.einsum("bkdhw,bkc->bdhwc", logits.float().softmax(1), shifts)
        return moved, occlusion

    def _looked(self, features: Tensor, places: Tensor, shifts: Tensor, driving: Tensor, source: Tensor) -> Tensor:
        """Per motion where its key point goes and what comes there: (B, motions * (1 + compress), D, H, W)."""
        small = F.relu_(self.norm(self.compress(features)))
        heat = _marked(places, driving) - _marked(places, source)
        seen = []
        for index in range(shifts.shape[1]):
            seen.append(heat[:, index - 1 : index] if index else torch.zeros_like(heat[:, :1]))
            seen.append(sampled(small, places + shifts[:, index, None, None, None]))
        return torch.cat(seen, dim=1)


def _marked(places: Tensor, points: Tensor) -> Tensor:
    """A bell of height 1 around each key point: (D, H, W, 3), (B, points, 3) -> (B, points, D, H, W)."""
    # Along each axis for itself, as the exponential of a sum is the product.
    x, y, z = (
        F.threshold(((line - points[..., axis, None]).square() / (-2 * VARIANCE)).exp(), NOTHING, 0)
        for axis, line in enumerate((places[0, 0, :, 0], places[0, :, 0, 1], places[:, 0, 0, 2]))
    )
    return z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]


class Residual(nn.Module):
    """Residual unit in three dimensions: (B, C, D, H, W) -> (B, C, D, H, W).

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv3d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = (nn.BatchNorm3d(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C, D, H, W)."""
        y = self.conv1(F.relu_(self.norm1(x)))
        return x + self.conv2(F.relu_(self.norm2(y)))


class Generator(nn.Module):
    """Paints a face whose key points moved.

    Args:
        motion: finds the motion of all voxels.
        width: channels after the first convolution.
        features: channels of the features in three dimensions.
        depth: D of them.
        blocks: residual units that refine them.
    """

    def __init__(
        self, motion: DenseMotion, *, width: int = 64, features: int = 32, depth: int = 16, blocks: int = 6
    ) -> None:
        super().__init__()
        self.depth = depth
        self.first = Block(3, width)
        self.down_blocks = nn.Sequential(Down(width, 2 * width), Down(2 * width, 4 * width))
        self.second = nn.Conv2d(4 * width, features * depth, 1)
        self.resblocks_3d = nn.Sequential(OrderedDict((f"3dr{i}", Residual(features)) for i in range(blocks)))
        self.dense_motion_network = motion
        self.third = Block(features * depth, 4 * width, slope=0.01)
        self.fourth = nn.Conv2d(4 * width, 4 * width, 1)
        self.decoder = Decoder(width)

    def forward(self, image: Tensor, driving: Tensor, source: Tensor) -> Tensor:
        """Moves a face.

        Args:
            image: (B, 3, H, W) RGB in [0, 1].
            driving: (B, points, 3) float32, where the key points shall be.
            source: (B, points, 3) float32, where they are.

        Returns:
            (B, 3, H, W) float32 RGB in [0, 1].
        """
        flat = self.second(self.down_blocks(self.first(ops.arranged(image))))
        features = self.resblocks_3d(arranged(flat.unflatten(1, (-1, self.depth))))
        places, occlusion = self.dense_motion_network(features, driving, source)
        moved = sampled(features, places).flatten(1, 2)
        painted: Tensor = self.decoder(self.fourth(self.third(ops.arranged(moved))) * occlusion)
        return painted
