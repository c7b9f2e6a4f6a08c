"""Layers of MAT, named as in its checkpoints: equalised convolutions, partial ones, and those that a style modulates.

Images are `(B, C, H, W)`, best in the channels-last format. Masks are 1 where pixels are known, 0 in the hole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.nn.ops import SLOPE, SQRT2, EqualLinear, fir_kernel, modulated_conv2d, normal, styled_conv2d, upfirdn2d

Box = tuple[slice, slice]
"""Rows and columns of an image."""


class Filtered(nn.Module):
    """Has the low-pass filter that every convolution of a checkpoint carries."""

    resample_filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("resample_filter", fir_kernel())


class Conv(Filtered):
    """Equalised convolution, then sqrt(2) * LeakyReLU(0.2).

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
        size: of the kernel, 3 where `up` or `down`.
        up: double the pixels.
        down: halve them.
    """

    def __init__(self, n_in: int, n_out: int, size: int = 3, *, up: bool = False, down: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(n_out, n_in, size, size))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.gain, self.up, self.down = SQRT2 / math.sqrt(n_in * size * size), up, down

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H', W'), H' = H, 2H or H / 2."""
        weight, bias = self.weight * self.gain, self.bias * SQRT2  # sqrt(2) goes through the ReLU
        if self.up:
            y = F.conv_transpose2d(x, weight.transpose(0, 1).flip(2, 3), stride=2)
            y = upfirdn2d(y, self.resample_filter * 4, pad=(1, 1)).add_(bias.to(y.dtype)[:, None, None])
        elif self.down:
            y = F.conv2d(upfirdn2d(x, self.resample_filter, pad=(2, 2)), weight, bias, stride=2)
        else:
            y = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        return F.leaky_relu_(y, SLOPE)


class PartialConv(nn.Module):
    """Convolution that makes up for unknown pixels by how many of its window are known.

    Where all of them are unknown the result is 0; elsewhere it is known from then on.
    """

    def __init__(self, n_in: int, n_out: int, *, up: bool = False, down: bool = False) -> None:
        super().__init__()
        self.conv = Conv(n_in, n_out, up=up, down=down)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, n_in, H, W) and (B, 1, H, W) of 0 and 1 -> (B, n_out, H', W') and (B, 1, H', W'); no mask, no change."""
        y = self.conv(x)
        if keep is None:
            return y, None
        ones = keep.new_ones(1, 1, 3, 3)
        with torch.autocast(keep.device.type, enabled=False):
            known = F.conv2d(keep, ones, stride=2 if self.conv.down else 1, padding=1)
        keep = known.clamp(0, 1)
        return y.mul_((9 / (known + 1e-8) * keep).to(y.dtype)), keep


class ModConv(Filtered):
    """Home of a modulated convolution's weight and of the layer that makes its style."""

    def __init__(self, n_in: int, n_out: int, size: int, n_style: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(1, n_out, n_in, size, size))
        self.affine = EqualLinear(n_style, n_in, bias=1.0)

    def styles(self, style: Tensor) -> Tensor:
        """(B, n_style) -> (B, n_in), in float32 also under autocast: demodulation adds up squares."""
        with torch.autocast(style.device.type, enabled=False):
            return self.affine(style.float())


class StyleConv(nn.Module):
    """Modulated 3x3 convolution, noise, sqrt(2) * LeakyReLU(0.2).

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
        n_style: width of the style.
        up: double the pixels.
        noise: side of the result, where noise is added to it; 0: no noise.
    """

    noise_const: Tensor

    def __init__(self, n_in: int, n_out: int, n_style: int, *, up: bool = False, noise: int = 0) -> None:
        super().__init__()
        self.conv = ModConv(n_in, n_out, 3, n_style)
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.up = up
        if noise:
            self.noise_strength = nn.Parameter(torch.zeros([]))
            self.register_buffer("noise_const", normal(noise, noise))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, n_in, H, W), (B, n_style), noise that fits (B, 1, H', W') -> (B, n_out, H', W'), H' = H or 2H."""
        weight = self.conv.weight[0]
        fir = None
        if self.up:  # the shared operator takes the kernel of a transposed convolution, which runs backwards
            weight, fir = weight.flip(2, 3), self.conv.resample_filter * 4
        noise = None if noise is None else noise * self.noise_strength
        return styled_conv2d(x, weight, self.conv.styles(style), self.bias, noise=noise, fir=fir)


class ToRGB(Filtered):
    """Modulated 1x1 convolution to three channels, on top of a smaller image doubled."""

    def __init__(self, n_in: int, n_style: int) -> None:
        super().__init__()
        self.conv = ModConv(n_in, 3, 1, n_style)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, style: Tensor, image: Tensor | None = None) -> Tensor:
        """(B, n_in, H, W), (B, n_style) and (B, 3, H / 2, W / 2) float32 or None -> (B, 3, H, W) float32."""
        styles = self.conv.styles(style)
        y = modulated_conv2d(x, self.conv.weight[0], styles, demodulate=False, bias=self.bias).float()
        if image is None:
            return y
        with torch.autocast(x.device.type, enabled=False):
            return y.add_(upfirdn2d(image, self.resample_filter * 4, up=2, pad=(2, 1)))


class UpBlock(nn.Module):
    """One doubling of a decoder.

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
        n_style: width of the styles.
        noise: see `StyleConv`.
    """

    def __init__(self, n_in: int, n_out: int, n_style: int, *, noise: int = 0) -> None:
        super().__init__()
        self.conv0 = StyleConv(n_in, n_out, n_style, up=True, noise=noise)
        self.conv1 = StyleConv(n_out, n_out, n_style, noise=noise)
        self.toRGB = ToRGB(n_out, n_style)

    def forward(
        self,
        x: Tensor,
        image: Tensor,
        skip: Tensor,
        styles: Sequence[Tensor],
        noises: Sequence[Tensor | None] = (None, None),
    ) -> tuple[Tensor, Tensor]:
        """Features and image, both doubled.

        Args:
            x: (B, n_in, H, W).
            image: (B, 3, H, W), what the decoder has so far.
            skip: (B, n_out, 2H, 2W), added between the convolutions.
            styles: three of (B, n_style): of conv0, conv1, toRGB.
            noises: of conv0 and conv1, each fits (B, 1, 2H, 2W).
        """
        x = self.conv0(x, styles[0], noises[0]).add_(skip)
        x = self.conv1(x, styles[1], noises[1])
        return x, self.toRGB(x, styles[2], image)


def crops(keep: Tensor, doublings: int, *, whole: bool = False) -> list[Box]:
    """What a decoder must compute so that its image is right in all holes.

    A convolution looks one pixel around itself, the doubling one and a half, so that a box of a level needs its half
    and two pixels around it from the level below. What a crop's own border spoils is never used.

    Args:
        keep: (B, 1, H, W), 0 in the hole; there is at least one.
        doublings: number of levels below.
        whole: take whole images.

    Returns:
        doublings + 1 boxes, each in the pixels of its own level, the coarsest first.
    """
    height, width = keep.shape[-2:]
    if whole:
        return [(slice(0, height >> n), slice(0, width >> n)) for n in range(doublings, -1, -1)]
    holes = (keep == 0).any(0)[0]
    found = [lines.nonzero().flatten().tolist() for lines in (holes.any(1), holes.any(0))]
    boxes = [tuple(slice(lines[0], lines[-1] + 1) for lines in found)]
    for _ in range(doublings):
        height, width = height // 2, width // 2
        boxes.append(
            tuple(
                slice(max(side.start // 2 - 2, 0), min((side.stop + 1) // 2 + 2, size))
                for side, size in zip(boxes[-1], (height, width), strict=True)
            )
        )
    return [(rows, columns) for rows, columns in reversed(boxes)]


def doubled(box: Box) -> Box:
    """The same box in the pixels of the next finer level."""
    rows, columns = box
    return slice(2 * rows.start, 2 * rows.stop), slice(2 * columns.start, 2 * columns.stop)


def cut(x: Tensor, box: Box, origin: Box | None = None) -> Tensor:
    """A box of `(..., H, W)`, which itself is the box `origin` of a whole image, or is whole."""
    top, left = (origin[0].start, origin[1].start) if origin else (0, 0)
    rows, columns = box
    return x[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def piece(x: Tensor, box: Box) -> Tensor:
    """A box of a whole image, copied where that lets go of much more."""
    part = cut(x, box)
    return part.contiguous(memory_format=torch.channels_last) if 2 * part.numel() < x.numel() else part


def groups(x: Tensor) -> list[slice]:
    """Samples that go through large layers together: on a CPU each alone.

    There a batch only adds memory and passes over it, while holes that lie apart make the crop of a batch large.
    """
    return [slice(i, i + 1) for i in range(len(x))] if x.device.type == "cpu" else [slice(0, len(x))]


def filled(image: Tensor, keep: Tensor, made: Tensor, at: Box) -> Tensor:
    """The image, with the pixels of its holes from `made`, its box `at`; all others stay as they are, bit for bit."""
    whole, (rows, columns) = image.clone(), at
    inside = keep[..., rows, columns].bool()
    whole[..., rows, columns] = torch.where(inside, image[..., rows, columns], made)
    return whole
