"""Second stage of MAT: a convolutional encoder and a style-modulated decoder, from the coarse image to the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.nn.ops import EqualLinear

from .layers import Box, Conv, StyleConv, ToRGB, UpBlock, crops, cut, doubled, filled

DEEPEST = 16
"""Side of the smallest features at the native resolution."""


class EncBlock(nn.Module):
    """Two convolutions, the first of which halves the pixels, or of size 1 at the finest level: see `Conv`."""

    def __init__(self, n_in: int, n_out: int, *, down: bool) -> None:
        super().__init__()
        self.conv0 = Conv(n_in, n_out, 3 if down else 1, down=down)
        self.conv1 = Conv(n_out, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H', W'), H' = H or H / 2."""
        return self.conv1(self.conv0(x))


class Encoder(nn.Module):
    """One block per level, named `EncConv_Block_<side>x<side>`.

    Args:
        channels: by side, from the image's own down to 16.
    """

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__()
        self.names = []
        for side in sorted(channels, reverse=True):
            finer = channels.get(2 * side)
            self.names.append(f"EncConv_Block_{side}x{side}")
            self.add_module(self.names[-1], EncBlock(finer or 7, channels[side], down=finer is not None))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 7, H, W) -> features of all levels, the finest (B, C, H, W) first, each half the one before."""
        features = []
        for name in self.names:
            x = self.get_submodule(name)(x)
            features.append(x)
        return features


class ToStyle(nn.Module):
    """Features to one vector: (B, C, H, W) -> (B, n_out)."""

    def __init__(self, channels: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*(Conv(channels, channels, down=True) for _ in range(3)))
        self.fc = EqualLinear(channels, n_out, activate=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, n_out)."""
        return self.fc(self.conv(x).mean((2, 3)))


class DeepBlock(nn.Module):
    """Start of the decoder: a convolution around which the features go, a modulated one, the first image."""

    def __init__(self, channels: int, n_style: int) -> None:
        super().__init__()
        self.conv0 = Conv(channels, channels)
        self.conv1 = StyleConv(channels, channels, n_style, noise=DEEPEST)
        self.toRGB = ToRGB(channels, n_style)

    def forward(self, x: Tensor, styles: Sequence[Tensor], noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, C, H, W), two of (B, n_style), noise as of `StyleConv` -> (B, C, H, W), (B, 3, H, W)."""
        x = self.conv1(self.conv0(x).add_(x), styles[0], noise)
        return x, self.toRGB(x, styles[1])


class Decoder(nn.Module):
    """One block per level, named `Dec_<side>x<side>`.

    Args:
        channels: by side, from the image's own down to 16.
        n_style: width of the styles.
    """

    def __init__(self, channels: Mapping[int, int], n_style: int) -> None:
        super().__init__()
        first, *finer = sorted(channels)
        self.names = [f"Dec_{side}x{side}" for side in finer]
        self.deepest = f"Dec_{first}x{first}"
        self.add_module(self.deepest, DeepBlock(channels[first], n_style))
        for name, side in zip(self.names, finer, strict=True):
            self.add_module(name, UpBlock(channels[side // 2], channels[side], n_style, noise=side))

    def layers(self) -> list[StyleConv]:
        """Those that noise is added to, in order: two per level, one at the deepest."""
        return [module for module in self.modules() if isinstance(module, StyleConv)]

    def forward(
        self,
        features: Sequence[Tensor],
        styles: Sequence[Tensor],
        noises: Sequence[Tensor | None],
        boxes: Sequence[Box],
    ) -> tuple[Tensor, Box]:
        """The image, and the box of it that was made.

        Args:
            features: of the encoder, the deepest (B, C, H/32, W/32) first.
            styles: (B, n_style) each, two per level; the second of a level is also the first of the next.
            noises: for `layers`, each fits (B, 1, H', W') of its level.
            boxes: to be made of every level, the deepest first; as `crops` says.
        """
        x, image = self.get_submodule(self.deepest)(features[0], styles[:2], noises[0])
        at = (slice(0, x.shape[2]), slice(0, x.shape[3]))
        for i, name in enumerate(self.names):
            image, x, at = cut(image, boxes[i], at), cut(x, boxes[i], at), doubled(boxes[i])
            noise = [None if n is None else cut(n, at) for n in noises[2 * i + 1 : 2 * i + 3]]
            skip = cut(features[i + 1], at)
            x, image = self.get_submodule(name)(x, image, skip, styles[2 * i + 1 : 2 * i + 4], noise)
        return image, at


class Synthesis(nn.Module):
    """Both stages.

    Args:
        first_stage: the coarse one.
        channels: of the second, by side.
        n_w: width of the latent style.
        n_global: width of the style that comes from the image.
    """

    def __init__(self, first_stage: nn.Module, channels: Mapping[int, int], n_w: int, n_global: int) -> None:
        super().__init__()
        self.first_stage = first_stage
        self.enc = Encoder(channels)
        self.to_square = EqualLinear(n_w, DEEPEST**2, activate=True)
        self.to_style = ToStyle(channels[DEEPEST], n_global)
        self.dec = Decoder(channels, n_w + n_global)

    def forward(
        self,
        image: Tensor,
        keep: Tensor,
        ws: Sequence[Tensor],
        mixing: tuple[Tensor, Tensor],
        noises: Sequence[Tensor | None],
        *,
        whole: bool = False,
    ) -> Tensor:
        """The image with its holes filled, the known pixels unchanged: (B, 3, H, W).

        Args:
            image: (B, 3, H, W) in [-1, 1].
            keep: (B, 1, H, W), 1 where pixels are known, 0 in the hole; there is a hole.
            ws: (B, n_w) each, one per use.
            mixing: (B, H/32 * W/32, C) and (B, C', H/32, W/32) bool, False where the style replaces the feature.
            noises: see `Decoder`.
            whole: compute what no hole needs, too.
        """
        coarse = self.first_stage(image, keep, ws[-1], mixing[0], whole=whole)
        features = self.enc(torch.cat([keep - 0.5, coarse, image * keep], 1))[::-1]
        deepest = features[0]
        square = self.to_square(ws[0]).view(-1, 1, DEEPEST, DEEPEST)
        square = F.interpolate(square, deepest.shape[2:], mode="bilinear", align_corners=False)
        features[0] = torch.where(mixing[1], deepest, square.to(deepest.dtype))
        shared = self.to_style(features[0])
        boxes = crops(keep, int(math.log2(len(keep[0, 0]) // len(deepest[0, 0]))), whole=whole)
        made, at = self.dec(features, [torch.cat([w, shared], 1) for w in ws], noises, boxes)
        return filled(image, keep, made, at)
