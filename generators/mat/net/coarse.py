"""First stage of MAT: a transformer over windows, whose attention goes to known tokens, makes a coarse image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.nn.ops import EqualLinear

from .layers import Box, Conv, PartialConv, UpBlock, crops, cut, doubled, filled, groups, piece

APART = -100.0
"""Added to the logits of tokens that must not see each other."""

HEADS = 6

GRIDS = (64, 32, 16, 32, 64)
"""Tokens along a side in each of the five parts, at the native resolution."""


def split(x: Tensor, side: int) -> Tensor:
    """Cuts tokens into windows: (B, H, W, C) -> (B * H/side * W/side, side^2, C)."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // side, side, width // side, side, channels)
    return x.transpose(2, 3).reshape(-1, side * side, channels)


def join(x: Tensor, side: int, height: int, width: int) -> Tensor:
    """Undoes `split`: (B * H/side * W/side, side^2, C) -> (B, H, W, C)."""
    x = x.view(-1, height // side, width // side, side, side, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, height, width, x.shape[-1])


def shift_bias(height: int, width: int, side: int, shift: int, device: torch.device) -> Tensor:
    """Keeps tokens apart that only meet because a shifted image is wrapped around: (windows, side^2, side^2)."""

    def regions(size: int) -> Tensor:
        at = torch.arange(size, device=device)
        return (at >= size - side).long() + (at >= size - shift)

    region = split((3 * regions(height)[:, None] + regions(width))[None, :, :, None], side)[..., 0]
    return APART * (region[:, None, :] != region[:, :, None])


class Attention(nn.Module):
    """Multi-head attention inside windows; queries and keys from normalised tokens, none but known keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = (EqualLinear(width, width) for _ in range(4))
        self.heads = heads

    def forward(self, x: Tensor, keep: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens of all windows, and what is known of them.

        Args:
            x: (N, T, C), windows of T tokens.
            keep: (N, T, 1) of 0 and 1. Who knows nothing in a window looks at all of it.
            bias: (N, T, T), added to the logits.

        Returns:
            (N, T, C), and the mask: a window with one known token is known.
        """
        normed = F.normalize(x, dim=-1)
        q, k, v = (
            layer(of).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, of in ((self.q, normed), (self.k, normed), (self.v, x))
        )
        mask = None if bias is None else bias[:, None]
        if keep is not None:
            known = keep.amax(1, keepdim=True)
            hidden = ((known - keep) * APART).transpose(1, 2)[:, None]  # 0 everywhere in a window without a known token
            mask = hidden.expand(-1, 1, x.shape[1], -1) if mask is None else mask + hidden
            keep = known.expand_as(keep)
        y = F.scaled_dot_product_attention(q, k, v, None if mask is None else mask.to(q.dtype))
        return self.proj(y.transpose(1, 2).flatten(2)), keep


class Mlp(nn.Module):
    """Two layers, twice the width between them: (..., C) -> (..., C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = EqualLinear(width, 2 * width, activate=True)
        self.fc2 = EqualLinear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.fc2(self.fc1(x))


class Block(nn.Module):
    """Attention inside windows, joined with its own input by a layer, without a residual sum and without norms.

    Args:
        width: channels.
        heads: of the attention.
        side: of a window, in tokens.
        shift: by which the windows are moved; 0: not.
        grid: tokens along a side at the native resolution; only the stored mask's shape comes from it.
    """

    def __init__(self, width: int, heads: int, side: int, shift: int, grid: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.fuse = EqualLinear(2 * width, width, activate=True)
        self.mlp = Mlp(width)
        self.side, self.shift = side, shift
        if shift:  # stored in checkpoints and never read: it fits one size of image only
            self.register_buffer("attn_mask", torch.zeros((grid // side) ** 2, side**2, side**2))

    def forward(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, H, W, C) and (B, H, W, 1) or None -> the same."""
        batch, height, width, _ = x.shape
        bias, moved, known = None, x, keep
        if self.shift:
            bias = shift_bias(height, width, self.side, self.shift, x.device).repeat(batch, 1, 1)
            moved = x.roll((-self.shift, -self.shift), (1, 2))
            known = None if keep is None else keep.roll((-self.shift, -self.shift), (1, 2))
        y, known = self.attn(split(moved, self.side), None if known is None else split(known, self.side), bias)
        y = join(y, self.side, height, width)
        known = None if known is None else join(known, self.side, height, width)
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
            known = None if known is None else known.roll((self.shift, self.shift), (1, 2))
        return self.mlp(self.fuse(torch.cat([x.to(y.dtype), y], -1))), known


class Resample(nn.Module):
    """Home of the convolution that changes the number of tokens; "downsample" in checkpoints even where it doubles."""

    def __init__(self, width: int, *, up: bool) -> None:
        super().__init__()
        self.conv = PartialConv(width, width, up=up, down=not up)


class Part(nn.Module):
    """Blocks at one resolution, a convolution after them, and a residual sum around all.

    Args:
        width: channels.
        heads: of the attention.
        depth: number of blocks; every second one has shifted windows, unless one window covers the native grid.
        side: of a window, in tokens.
        grid: tokens along a side at the native resolution.
        resample: "", "up" or "down", before the blocks.
    """

    def __init__(self, width: int, heads: int, depth: int, side: int, grid: int, resample: str) -> None:
        super().__init__()
        self.downsample = Resample(width, up=resample == "up") if resample else None
        shift = side // 2 if grid > side else 0
        self.blocks = nn.ModuleList(Block(width, heads, side, shift * (i % 2), grid) for i in range(depth))
        self.conv = PartialConv(width, width)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, C, H, W) and (B, 1, H, W) or None -> (B, C, H', W') and (B, 1, H', W') or None, H' = H, 2H or H / 2."""
        if self.downsample is not None:
            x, keep = self.downsample.conv(x, keep)
        tokens, known = x.permute(0, 2, 3, 1), None if keep is None else keep.permute(0, 2, 3, 1)
        for block in self.blocks:
            tokens, known = block(tokens, known)
        y, keep = self.conv(tokens.permute(0, 3, 1, 2), None if known is None else known.permute(0, 3, 1, 2))
        return y.add_(x), keep


class FirstStage(nn.Module):
    """Image with holes and style -> image.

    Args:
        width: channels.
        windows: side of a window in each of the five parts.
        n_w: width of the style.
        doublings: from the finest grid of tokens to the image.
    """

    def __init__(self, width: int, windows: Sequence[int], n_w: int, doublings: int) -> None:
        super().__init__()
        self.conv_first = PartialConv(4, width)
        self.enc_conv = nn.ModuleList(PartialConv(width, width, down=True) for _ in range(doublings))
        told = zip((2, 3, 4, 3, 2), windows, GRIDS, ("", "down", "down", "up", "up"), strict=True)
        self.tran = nn.ModuleList(Part(width, HEADS, *each) for each in told)
        self.down_conv = nn.ModuleList(Conv(width, width, down=True) for _ in range(4))
        self.to_style = EqualLinear(width, 2 * width, activate=True)
        self.ws_style = EqualLinear(n_w, width, activate=True)
        self.to_square = EqualLinear(width, GRIDS[2] ** 2, activate=True)
        self.dec_conv = nn.ModuleList(UpBlock(width, width, 3 * width) for _ in range(doublings))

    def forward(self, image: Tensor, keep: Tensor, w: Tensor, mixing: Tensor, *, whole: bool = False) -> Tensor:
        """The image with its holes filled.

        Args:
            image: (B, 3, H, W) in [-1, 1].
            keep: (B, 1, H, W), 1 where pixels are known, 0 in the hole.
            w: (B, n_w), the style.
            mixing: (B, H/32 * W/32 tokens, width), 1 where a token's feature stays, 0 where the style replaces it.
            whole: compute what no hole needs, too.

        Returns:
            (B, 3, H, W), the known pixels unchanged.
        """
        apart = groups(image)
        boxes = [crops(keep[group], len(self.dec_conv), whole=whole) for group in apart]
        encoded = [self._encode(image[group], keep[group], own) for group, own in zip(apart, boxes, strict=True)]
        x, known = torch.cat([x for x, _, _ in encoded]), torch.cat([known for _, known, _ in encoded])
        skips = [own for _, _, own in encoded]
        del encoded
        t0, known = self.tran[0](x, known)
        t1, known = self.tran[1](t0, known)
        x, _ = self.tran[2](t1)
        style = self.ws_style(w)
        drawn = F.interpolate(self.to_square(style)[:, None], mixing.shape[1], mode="linear", align_corners=False)
        stays = mixing.transpose(1, 2).reshape(x.shape)
        x = torch.where(stays, x, drawn.view(len(x), 1, *x.shape[2:]).to(x.dtype))
        x = x.contiguous(memory_format=torch.channels_last)
        deep = x
        for conv in self.down_conv:
            deep = conv(deep)
        style = torch.cat([self.to_style(deep.mean((2, 3))), style], 1)
        x = self.tran[3](x)[0].add_(t1)
        x = self.tran[4](x)[0].add_(t0)
        results = []
        for group, own, skip in zip(apart, boxes, skips, strict=True):
            made, at = self._decode(x[group], style[group], own, skip)
            results.append(filled(image[group], keep[group], made, at))
        return torch.cat(results)

    def _encode(self, image: Tensor, keep: Tensor, boxes: list[Box]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Features and mask at the finest grid of tokens, and what decoding needs of finer levels, the finest first."""
        skips = []
        x = torch.cat([keep - 0.5, image * keep], 1).contiguous(memory_format=torch.channels_last)
        x, keep = self.conv_first(x, keep)
        for conv, box in zip(self.enc_conv, reversed(boxes[:-1]), strict=True):
            skips.append(piece(x, doubled(box)))
            x, keep = conv(x, keep)
        return x, keep, skips

    def _decode(self, x: Tensor, style: Tensor, boxes: list[Box], skips: list[Tensor]) -> tuple[Tensor, Box]:
        """The image, and the box of it that was made; uses `skips` up."""
        made, at = torch.zeros_like(x[:, :3], dtype=torch.float32), (slice(0, x.shape[2]), slice(0, x.shape[3]))
        for block, box in zip(self.dec_conv, boxes[:-1], strict=True):
            x, made = block(cut(x, box, at), cut(made, box, at), skips.pop(), [style] * 3)
            at = doubled(box)
        return made, at
