"""Blocks that the networks of face-vid2vid share: convolution, batch norm, ReLU, in two and three dimensions.

Features in three dimensions are (B, C, D, H, W); only height and width are ever halved or doubled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def bell(sigma: float = 1.5) -> list[float]:
    """The 13 taps of a Gaussian, of sum 1. Its sigma in pixels is what a quarter of the size asks for, (4 - 1) / 2."""
    taps = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-6, 7)]
    return [tap / sum(taps) for tap in taps]


def arranged(x: Tensor) -> Tensor:
    """(B, C, D, H, W), on a CPU in the channels-last format, which halves the time of wide convolutions."""
    return x.contiguous(memory_format=torch.channels_last_3d) if x.device.type == "cpu" else x


def grid(size: Sequence[int], device: torch.device) -> Tensor:
    """Where each voxel is.

    Args:
        size: D, H and W.
        device: of the result.

    Returns:
        (D, H, W, 3) float32: x, y and z, from -1 in the middle of the first voxel to 1 in the middle of the last.
    """
    axes = (torch.linspace(-1, 1, count, device=device) for count in size)
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack((x, y, z), dim=-1)


def conv_of_enlarged(x: Tensor, weight: Tensor, bias: Tensor | None, times: int) -> Tensor:
    """A convolution of size 3, padding 1, of `x` whose pixels are repeated, without repeating them.

    Repeating and convolving is one transposed convolution, whose kernel is the sum of the kernel's shifts. Where the
    pixels are many it takes half the time for twice as many a side, and a fifth for three times.

    Args:
        x: (B, I, H, W) or (B, I, D, H, W); depth is not repeated.
        weight: (O, I, 3, 3) or (O, I, 3, 3, 3).
        bias: (O,).
        times: how often a pixel is repeated along height and width.

    Returns:
        (B, O, times * H, times * W) or (B, O, D, times * H, times * W).
    """
    flipped = weight.flip(tuple(range(2, weight.ndim)))
    steps = range(times)
    ends = ((a, times - 1 - a, b, times - 1 - b) for a in steps for b in steps)
    kernel = torch.stack([F.pad(flipped, end) for end in ends]).sum(0).transpose(0, 1)
    if x.ndim == 5:
        return F.conv_transpose3d(x, kernel, bias, stride=(1, times, times), padding=1)
    return F.conv_transpose2d(x, kernel, bias, stride=times, padding=1)


class Block(nn.Module):
    """Convolution of size 3, batch norm, leaky ReLU: (B, n_in, ...) -> (B, n_out, ...).

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
        dims: 2 or 3.
        slope: of the leaky ReLU below 0.
    """

    def __init__(self, n_in: int, n_out: int, *, dims: int = 2, slope: float = 0.0) -> None:
        super().__init__()
        self.conv = (nn.Conv3d if dims == 3 else nn.Conv2d)(n_in, n_out, 3, padding=1)
        self.norm = (nn.BatchNorm3d if dims == 3 else nn.BatchNorm2d)(n_out)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, ...) -> (B, n_out, ...)."""
        return self.finished(self.conv(x))

    def finished(self, y: Tensor) -> Tensor:
        """What comes after the convolution."""
        return F.leaky_relu_(self.norm(y), self.slope)


class Down(Block):
    """`Block`, then half the height and width by averaging."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, ..., H, W) -> (B, n_out, ..., H/2, W/2)."""
        y = super().forward(x)
        return arranged(F.avg_pool3d(y, (1, 2, 2))) if y.ndim == 5 else F.avg_pool2d(y, 2)


class Up(Block):
    """Twice the height and width by repeating voxels, then `Block`, in three dimensions.

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, dims=3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, D, H, W) -> (B, n_out, D, 2H, 2W)."""
        if self.conv.weight.numel() < x.numel():  # else making the other kernel takes longer than it saves
            return self.finished(conv_of_enlarged(x, self.conv.weight, self.conv.bias, 2))
        return super().forward(F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"))
