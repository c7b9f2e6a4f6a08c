"""Second stage of MAT: a convolutional encoder and a style-modulated decoder, from the coarse image to the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.nn.ops import EqualLinear

from .layers import Box, Conv, StyleConv, ToRGB, UpBlock, crops, cut, doubled, filled, groups, piece

DEEPEST = 16
"""Side of the smallest features at the native resolution."""

TOGETHER = 64
"""Up to this side a batch goes through a layer in one; its weights are larger than its images there."""


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
        self.fine, self.deep = (
            [side for side in sorted(channels, reverse=True) if (side > TOGETHER) == f] for f in (1, 0)
        )
        for side in (*self.fine, *self.deep):
            finer = channels.get(2 * side)
            block = EncBlock(finer or 7, channels[side], down=finer is not None)
            self.add_module(f"EncConv_Block_{side}x{side}", block)

    def forward(self, x: Tensor, sides: Sequence[int]) -> list[Tensor]:
        """Features of some levels, the first of which takes x, the finest first: (B, C, H, W), each half the last."""
        features = []
        for side in sides:
            x = self.get_submodule(f"EncConv_Block_{side}x{side}")(x)
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


Made = tuple[Tensor, Tensor, Box]
"""Features (B, C, H, W) and image (B, 3, H, W) of a level, and which box of the whole they are."""

Styles = Sequence[Tensor]
Noises = Sequence[Tensor | None]


class Decoder(nn.Module):
    """One block per level, named `Dec_<side>x<side>`.

    Args:
        channels: by side, from the image's own down to 16.
        n_style: width of the styles.
    """

    def __init__(self, channels: Mapping[int, int], n_style: int) -> None:
        super().__init__()
        first, *self.sides = sorted(channels)
        self.deepest = f"Dec_{first}x{first}"
        self.add_module(self.deepest, DeepBlock(channels[first], n_style))
        for side in self.sides:
            self.add_module(f"Dec_{side}x{side}", UpBlock(channels[side // 2], channels[side], n_style, noise=side))

    def layers(self) -> list[StyleConv]:
        """Those that noise is added to, in order: two per level, one at the deepest."""
        return [module for module in self.modules() if isinstance(module, StyleConv)]

    def start(self, x: Tensor, styles: Styles, noises: Noises) -> Made:
        """The deepest level; see `forward`."""
        x, image = self.get_submodule(self.deepest)(x, styles[:2], noises[0])
        return x, image, (slice(0, x.shape[2]), slice(0, x.shape[3]))

    def forward(self, made: Made, level: int, box: Box, skip: Tensor, styles: Styles, noises: Noises) -> Made:
        """One level more.

        Args:
            made: of the level below.
            level: number of the level, from 1 at twice the deepest side.
            box: to start from, in the pixels of the level below.
            skip: (B, C, H, W), the encoder's features in that box doubled.
            styles: (B, n_style) each, two per level; the second of a level is also the first of the next.
            noises: for `layers`, each fits (B, 1, H, W) of its whole level.
        """
        x, image, at = made
        to = doubled(box)
        noise = [None if n is None else cut(n, to) for n in noises[2 * level - 1 : 2 * level + 1]]
        block = self.get_submodule(f"Dec_{(side := self.sides[level - 1])}x{side}")
        x, image = block(cut(x, box, at), cut(image, box, at), skip, styles[2 * level - 1 : 2 * level + 2], noise)
        return x, image, to


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
        ws: Styles,
        mixing: tuple[Tensor, Tensor],
        noises: Noises,
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
        x = torch.cat([keep - 0.5, coarse, image * keep], 1).contiguous(memory_format=torch.channels_last)
        apart, levels, deep = groups(x), len(self.dec.sides), len(self.enc.deep)
        boxes = [crops(keep[group], levels, whole=whole) for group in apart]
        fine, skips = [], []
        for group, each in zip(apart, boxes, strict=True):
            features = self.enc(x[group], self.enc.fine)
            fine.append(features[-1])
            skips.append(
                [piece(f, doubled(box)) for f, box in zip(features, reversed(each[deep - 1 : -1]), strict=True)]
            )
        del x, features
        features = self.enc(torch.cat(fine), self.enc.deep)[::-1]
        square = self.to_square(ws[0]).view(-1, 1, DEEPEST, DEEPEST)
        square = F.interpolate(square, features[0].shape[2:], mode="bilinear", align_corners=False)
        features[0] = torch.where(mixing[1], features[0], square.to(features[0].dtype))
        shared = self.to_style(features[0])
        styles = [torch.cat([w, shared], 1) for w in ws]
        made = self.dec.start(features[0], styles, noises)
        for level, box in zip(range(1, deep), crops(keep, levels, whole=whole), strict=False):
            made = self.dec(made, level, box, cut(features[level], doubled(box)), styles, noises)
        results = []
        for group, each, skip in zip(apart, boxes, skips, strict=True):
            own = made[0][group], made[1][group], made[2]
            some = [style[group] for style in styles]
            grains = [n if n is None or len(n) == 1 else n[group] for n in noises]
            for level in range(deep, levels + 1):
                own = self.dec(own, level, each[level - 1], skip.pop(), some, grains)
            results.append(filled(image[group], keep[group], *own[1:]))
        return torch.cat(results)
