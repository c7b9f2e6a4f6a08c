"""The straightforward form of the StyleGAN2 operators, as it is published: weights per sample, one step after another.

It exists for `mmtt bench nets`, which times `ops` against it, and for tests, which compare the two. No method uses it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from generators.nn.ops import EPS, SLOPE, SQRT2, Fir
from generators.nn.stylegan2 import Generator, StyledConv, ToRGB, labels_at


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """As `ops.upfirdn2d`, by its definition: (B, C, H, W) -> (B, C, H', W')."""
    batch, channels, height, width = x.shape
    stuffed = x.new_zeros(batch, channels, height, up, width, up)
    stuffed[:, :, :, 0, :, 0] = x
    padded = F.pad(stuffed.view(batch * channels, 1, height * up, width * up), (*pad, *pad))
    filtered = F.conv2d(padded, kernel.flip(0, 1)[None, None].to(x.dtype))[:, :, ::down, ::down]
    return filtered.reshape(batch, channels, *filtered.shape[2:])


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    labels: Tensor | None = None,
    fir: Tensor | None = None,
    demodulate: bool = True,
    bias: Tensor | None = None,
    gain: float = 1.0,
) -> Tensor:
    """As `ops.modulated_conv2d`, by a grouped convolution, one per region: (B, I, H, W) -> (B, O, H', W')."""
    if labels is not None and styles.ndim == 3:
        whole = x.new_zeros(())
        for region, style in enumerate(styles.unbind(1)):
            y = modulated_conv2d(x, weight, style, fir=fir, demodulate=demodulate, bias=bias, gain=gain)
            whole = whole + y * (labels == region)[:, None]
        return whole
    batch, count, height, width = x.shape
    n_out, _, size, _ = weight.shape
    scaled = weight * styles[:, None, :, None, None] / math.sqrt(count * size * size)  # (B, O, I, K, K)
    if demodulate:
        scaled = scaled * torch.rsqrt(scaled.square().sum((2, 3, 4), keepdim=True) + EPS)
    x = x.reshape(1, batch * count, height, width)
    if fir is None:
        y = F.conv2d(x, scaled.reshape(batch * n_out, count, size, size), padding=size // 2, groups=batch)
        y = y.view(batch, n_out, height, width)
    else:
        swapped = scaled.transpose(1, 2).reshape(batch * count, n_out, size, size)
        y = F.conv_transpose2d(x, swapped, stride=2, groups=batch)
        y = upfirdn2d(y.view(batch, n_out, *y.shape[2:]), fir, pad=(1, 1))
    if bias is not None:
        y = y + bias[:, None, None]
    return y * gain


def styled_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    bias: Tensor,
    *,
    labels: Tensor | None = None,
    noise: Tensor | None = None,
    fir: Tensor | None = None,
) -> Tensor:
    """As `ops.styled_conv2d`: (B, I, H, W) -> (B, O, H', W')."""
    y = modulated_conv2d(x, weight, styles, labels=labels, fir=fir)
    if noise is not None:
        y = y + noise
    return F.leaky_relu(y + bias[:, None, None], SLOPE) * SQRT2


def synthesize(generator: Generator, styles: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
    """As `Generator.synthesize`, with the operators above: 26 vectors (B, C) or (B, R, C) -> (B, 3, size, size)."""

    def at(x: Tensor) -> Tensor | None:
        return None if labels is None else labels_at(labels, x.shape[-1])

    def styled(layer: StyledConv, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        weight, bias, scaled = layer.conv.weight[0], layer.activate["bias"], noise * layer.noise["weight"]
        return styled_conv2d(x, weight, style, bias, labels=at(noise), noise=scaled, fir=layer.conv.fir)

    def colours(layer: ToRGB, x: Tensor, style: Tensor) -> Tensor:
        weight, bias = layer.conv.weight[0], layer.bias[0, :, 0, 0]
        return modulated_conv2d(x, weight, style, labels=at(x), demodulate=False, bias=bias)

    noise = generator.noise
    x = generator.input["input"].repeat(styles[0].shape[0], 1, 1, 1)
    x = styled(generator.conv1, x, styles[0], noise[0])
    rgb = colours(generator.to_rgb1, x, styles[1])
    for block, to_rgb in enumerate(generator.to_rgbs):
        for step in (0, 1):
            layer = cast("StyledConv", generator.convs[2 * block + step])
            x = styled(layer, x, styles[2 + 3 * block + step], noise[2 * block + 1 + step])
        last = cast("ToRGB", to_rgb)
        doubled = upfirdn2d(rgb, cast("Fir", last.upsample).kernel, up=2, pad=(2, 1))
        rgb = colours(last, x, styles[4 + 3 * block]) + doubled
    return rgb
