"""GPEN (Yang et al., CVPR 2021): a face restored by a StyleGAN2 generator that sees the features of its encoder.

E4S sharpens the face that it reenacted with it. Where StyleGAN2 adds noise, GPEN appends the encoder's features of that
resolution as further channels. Names as in the official file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from generators.nn import ops
from generators.nn.stylegan2 import ModulatedConv2d, PixelNorm, ToRGB

STYLE = 512
SIZE = 512
"""Pixels a side of the published network."""

CHANNELS: Mapping[int, int] = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64}
"""Of the published network's features, by resolution."""


class Blur(ops.Fir):
    """The low-pass filter before a convolution that halves the pixels: (B, C, H, W) -> (B, C, H+1, W+1)."""

    def __init__(self) -> None:
        super().__init__(gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H+1, W+1)."""
        return ops.upfirdn2d(x, self.kernel, pad=(2, 2))


class Activate(nn.Module):
    """Bias and leaky ReLU: (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return ops.leaky_relu(x + self.bias[:, None, None])


class ConcatConv(nn.Module):
    """3 x 3 modulated convolution, features appended, bias, leaky ReLU.

    Args:
        n_in: channels of the input.
        n_out: channels of the convolution and of the features; the output has twice as many.
        up: whether it doubles the pixels.
    """

    def __init__(self, n_in: int, n_out: int, *, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(n_in, n_out, 3, style_dim=STYLE, up=up)
        self.noise = nn.ParameterDict({"weight": nn.Parameter(torch.zeros(1))})
        self.activate = Activate(2 * n_out)

    def forward(self, x: Tensor, w: Tensor, features: Tensor) -> Tensor:
        """(B, n_in, H, W), (B, 512), (B, n_out, H', W') -> (B, 2 n_out, H', W')."""
        made = self.conv(x, self.conv.modulation(w))
        activated: Tensor = self.activate(torch.cat((made, self.noise["weight"] * features), dim=1))
        return activated


class Decoder(nn.Module):
    """The generator.

    Args:
        channels: of the features by resolution, from 4 up.
    """

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__()
        first, *sides = sorted(channels)
        self.style = nn.Sequential(
            PixelNorm(), *(ops.EqualLinear(STYLE, STYLE, lr=0.01, activate=True) for _ in range(8))
        )
        self.input = nn.ParameterDict({"input": nn.Parameter(ops.normal(1, channels[first], first, first))})
        self.conv1 = ConcatConv(channels[first], channels[first])
        self.to_rgb1 = ToRGB(2 * channels[first], style_dim=STYLE, up=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for side in sides:
            self.convs.append(ConcatConv(2 * channels[side // 2], channels[side], up=True))
            self.convs.append(ConcatConv(2 * channels[side], channels[side]))
            self.to_rgbs.append(ToRGB(2 * channels[side], style_dim=STYLE))

    def forward(self, code: Tensor, features: list[Tensor]) -> Tensor:
        """(B, 512) and the encoder's features, from 4 pixels up -> (B, 3, size, size)."""
        w = self.style(code)
        x = self.input["input"].expand(len(w), -1, -1, -1)
        x = self.conv1(ops.arranged(x), w, features[0])
        rgb: Tensor = self.to_rgb1(x, self.to_rgb1.conv.modulation(w))
        for level, seen in enumerate(features[1:]):
            for conv in self.convs[2 * level : 2 * level + 2]:
                x = conv(x, w, seen)
            to_rgb = cast("ToRGB", self.to_rgbs[level])
            rgb = to_rgb(x, to_rgb.conv.modulation(w), rgb)
        return rgb


class Gpen(nn.Module):
    """Restores faces: (B, 3, size, size) RGB in [-1, 1] -> (B, 3, size, size), mostly in [-1, 1], not cut off.

    Args:
        channels: of the features by resolution, from 4 up to the picture's.
    """

    def __init__(self, channels: Mapping[int, int] = CHANNELS) -> None:
        super().__init__()
        sides = sorted(channels, reverse=True)
        self.levels = len(sides)
        whole = nn.Sequential(ops.EqualConv2d(3, channels[sides[0]], 1, bias=False), Activate(channels[sides[0]]))
        self.add_module("ecd0", nn.Sequential(whole))
        for level, side in enumerate(sides[1:], 1):
            conv = ops.EqualConv2d(channels[2 * side], channels[side], 3, stride=2, bias=False)
            self.add_module(f"ecd{level}", nn.Sequential(nn.Sequential(Blur(), conv, Activate(channels[side]))))
        last = channels[sides[-1]] * sides[-1] ** 2
        self.final_linear = nn.Sequential(ops.EqualLinear(last, STYLE, activate=True))
        self.generator = Decoder(channels)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, 3, size, size)."""
        x, features = ops.arranged(image), []
        for level in range(self.levels):
            x = self.get_submodule(f"ecd{level}")(x)
            features.append(x)
        code = self.final_linear(x.contiguous().flatten(1))
        restored: Tensor = self.generator(code, features[::-1])
        return restored


def build() -> Gpen:
    """The published network, for 512 pixels."""
    return Gpen()


def gpen_of(state: Mapping[str, Tensor]) -> Gpen:
    """The network whose state dict this is, by its shapes; fresh.

    Raises:
        KeyError: it is of another network.
    """
    found = (re.fullmatch(r"ecd(\d+)\.0\.[12]\.bias", name) for name in state)
    widths = {int(name[1]): state[name[0]].shape[0] for name in found if name}
    if not widths:
        raise KeyError("ecd0.0.1.bias")
    return Gpen({4 << (max(widths) - level): width for level, width in widths.items()})
