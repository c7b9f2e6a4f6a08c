"""Real-ESRNet's network (RRDBNet, Wang et al. 2018 and 2021), as GPEN's authors publish it: four times the size.

Names as in the official file; its features are 32 wide, not 64 as elsewhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, BLOCKS, SLOPE, SHARE = 32, 23, 0.2, 0.2
"""Channels of the features; blocks; slope below 0; how much of a block's answer is added."""


def _conv(n_in: int, n_out: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1)


class DenseBlock(nn.Module):
    """Five convolutions that each see all before them: (B, C, H, W) -> (B, C, H, W).

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        for index in range(5):
            self.add_module(f"conv{index + 1}", _conv((index + 1) * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        *inner, last = self.children()
        seen = x
        for conv in inner:
            seen = torch.cat((seen, F.leaky_relu_(conv(seen), SLOPE)), dim=1)
        return torch.add(x, last(seen), alpha=SHARE)


class Block(nn.Module):
    """Three dense blocks and a shortcut: (B, C, H, W) -> (B, C, H, W).

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=SHARE)


class RealESRNet(nn.Module):
    """Enlarges: (B, 3, H, W) RGB in [0, 1] -> (B, 3, 4H, 4W), mostly in [0, 1], not cut off.

    Args:
        width: channels of the features.
        blocks: how many.
    """

    def __init__(self, *, width: int = WIDTH, blocks: int = BLOCKS) -> None:
        super().__init__()
        self.conv_first = _conv(3, width)
        self.body = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (_conv(width, width) for _ in range(4))
        self.conv_last = _conv(width, 3)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, 4H, 4W)."""
        x = self.conv_first(image)
        x = x + self.conv_body(self.body(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), SLOPE)
        enlarged: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))
        return enlarged


def build() -> RealESRNet:
    """The published network."""
    return RealESRNet()
