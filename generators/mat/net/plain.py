"""The straightforward form of MAT: every step over whole images and the whole batch, weights per sample, by definition.

It exists for `mmtt bench nets`, which times the network against it, and for tests, which compare the two. No method
uses it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from generators.nn.ops import leaky_relu
from generators.nn.plain import modulated_conv2d, styled_conv2d, upfirdn2d

from . import Generator


def fill(
    generator: Generator,
    image: Tensor,
    keep_mask: Tensor,
    z: Tensor,
    *,
    keep1: Tensor,
    keep2: Tensor,
    psi: float = 1.0,
) -> Tensor:
    """As `Generator.forward` at the native resolution with its own noise."""
    ws = generator.styles(z, psi)
    synthesis: Any = generator.synthesis
    keep = keep_mask
    coarse = first_stage(synthesis.first_stage, image, keep, ws[-1], keep1)
    coarse = coarse * (1 - keep) + image * keep
    x = torch.cat([keep - 0.5, coarse, image * keep], 1)
    features = []
    for block in synthesis.enc.children():
        x = conv(block.conv1, conv(block.conv0, x))
        features.append(x)
    square = synthesis.to_square(ws[0]).view(-1, 1, 16, 16)
    x = features.pop()
    x = x * keep2.float() + square * (1 - keep2.float())
    deep = x
    for layer in synthesis.to_style.conv:
        deep = conv(layer, deep)
    shared = synthesis.to_style.fc(F.adaptive_avg_pool2d(deep, 1).flatten(1))
    styles = [torch.cat([w, shared], 1) for w in ws]
    first, *blocks = synthesis.dec.children()
    x = styled(first.conv1, conv(first.conv0, x) + x, styles[0])
    made = colours(first.toRGB, x, styles[1], None)
    for level, block in enumerate(blocks):
        x, made = doubled(block, x, made, features.pop(), styles[2 * level + 1 : 2 * level + 4])
    return made * (1 - keep) + image * keep


def first_stage(stage: Any, image: Tensor, keep: Tensor, w: Tensor, mixing: Tensor) -> Tensor:
    """As `FirstStage.forward`, without the known pixels put back."""
    x, known = partial(stage.conv_first, torch.cat([keep - 0.5, image * keep], 1), keep)
    skips: list[Tensor] = []
    for layer in stage.enc_conv:
        skips.append(x)
        x, known = partial(layer, x, known)
    for i in (0, 1):
        x, known = part(stage.tran[i], x, known)
        skips.append(x)
    x, _ = part(stage.tran[2], x, None)
    style = stage.ws_style(w)
    kept = mixing.float().transpose(1, 2).reshape(x.shape)
    x = x * kept + stage.to_square(style).view(len(x), 1, *x.shape[2:]) * (1 - kept)
    deep = x
    for layer in stage.down_conv:
        deep = conv(layer, deep)
    style = torch.cat([stage.to_style(F.adaptive_avg_pool2d(deep, 1).flatten(1)), style], 1)
    for i in (3, 4):
        x = part(stage.tran[i], x, None)[0] + skips.pop()
    made: Any = None
    for block in stage.dec_conv:
        x, made = doubled(block, x, made, skips.pop(), [style] * 3)
    return made


def part(module: Any, x: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """As `Part.forward`."""
    if module.downsample is not None:
        x, known = partial(module.downsample.conv, x, known)
    height, width = x.shape[2:]
    tokens = x.flatten(2).transpose(1, 2)
    flat = None if known is None else known.flatten(2).transpose(1, 2)
    for block in module.blocks:
        tokens, flat = attended(block, tokens, flat, height, width)
    known = None if flat is None else flat.transpose(1, 2).reshape(len(x), 1, height, width)
    y, known = partial(module.conv, tokens.transpose(1, 2).reshape(x.shape), known)
    return y + x, known


def attended(block: Any, x: Tensor, known: Tensor | None, height: int, width: int) -> tuple[Tensor, Tensor | None]:
    """As `Block.forward`, tokens and mask (B, H * W, C) and (B, H * W, 1) or None."""
    side, shift = block.side, block.shift

    def cut(tokens: Tensor) -> Tensor:
        tokens = tokens.view(-1, height, width, tokens.shape[-1])
        tokens = torch.roll(tokens, (-shift, -shift), (1, 2)) if shift else tokens
        tokens = tokens.reshape(-1, height // side, side, width // side, side, tokens.shape[-1]).transpose(2, 3)
        return tokens.reshape(-1, side * side, tokens.shape[-1])

    def joined(windows: Tensor) -> Tensor:
        tokens = windows.view(-1, height // side, width // side, side, side, windows.shape[-1]).transpose(2, 3)
        tokens = tokens.reshape(-1, height, width, windows.shape[-1])
        return (torch.roll(tokens, (shift, shift), (1, 2)) if shift else tokens).flatten(1, 2)

    attention, windows = block.attn, cut(x)
    normed = F.normalize(windows, dim=-1)

    def heads(layer: Any, tokens: Tensor) -> Tensor:
        return layer(tokens).view(*tokens.shape[:2], attention.heads, -1).transpose(1, 2)

    q, k, v = heads(attention.q, normed), heads(attention.k, normed), heads(attention.v, windows)
    logits = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    if shift:
        region = x.new_zeros(1, height, width, 1)
        bands = [slice(0, -side), slice(-side, -shift), slice(-shift, None)]
        for i, rows in enumerate(bands):
            for j, columns in enumerate(bands):
                region[:, rows, columns] = 3 * i + j
        region = torch.roll(region, (shift, shift), (1, 2)).flatten(1, 2)  # `cut` rolls it back
        region = cut(region)[..., 0]
        apart = (region[:, None] != region[:, :, None]).float() * -100
        logits = logits + apart.repeat(len(x), 1, 1)[:, None]
    if known is not None:
        seen = cut(known)
        logits = logits + ((1 - seen) * -100).transpose(1, 2)[:, None]
        known = joined(seen.sum(1, keepdim=True).clamp(0, 1).expand_as(seen).contiguous())
    y = joined(attention.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2)))
    return block.mlp(block.fuse(torch.cat([x, y], -1))), known


def conv(layer: Any, x: Tensor) -> Tensor:
    """As `Conv.forward`."""
    weight, fir = layer.weight / math.sqrt(layer.weight[0].numel()), layer.resample_filter
    if layer.up:
        y = F.conv_transpose2d(x, weight.transpose(0, 1).flip(2, 3), stride=2)
        y = upfirdn2d(y, fir * 4, pad=(1, 1))
    elif layer.down:
        y = F.conv2d(upfirdn2d(x, fir, pad=(2, 2)), weight, stride=2)
    else:
        y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return leaky_relu(y + layer.bias[:, None, None])


def partial(layer: Any, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """As `PartialConv.forward`."""
    y = conv(layer.conv, x)
    if keep is None:
        return y, None
    known = F.conv2d(keep, keep.new_ones(1, 1, 3, 3), stride=2 if layer.conv.down else 1, padding=1)
    return y * (9 / (known + 1e-8) * known.clamp(0, 1)), known.clamp(0, 1)


def styled(layer: Any, x: Tensor, style: Tensor) -> Tensor:
    """As `StyleConv.forward`, with the layer's own noise."""
    weight, fir = layer.conv.weight[0], layer.conv.resample_filter * 4 if layer.up else None
    noise = layer.noise_const * layer.noise_strength if hasattr(layer, "noise_const") else None
    style = layer.conv.affine(style)
    return styled_conv2d(x, weight.flip(2, 3) if layer.up else weight, style, layer.bias, noise=noise, fir=fir)


def colours(layer: Any, x: Tensor, style: Tensor, image: Tensor | None) -> Tensor:
    """As `ToRGB.forward`."""
    styles = layer.conv.affine(style)
    y = modulated_conv2d(x, layer.conv.weight[0], styles, demodulate=False, bias=layer.bias)
    return y if image is None else y + upfirdn2d(image, layer.resample_filter * 4, up=2, pad=(2, 1))


def doubled(
    block: Any, x: Tensor, image: Tensor | None, skip: Tensor, styles: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """As `UpBlock.forward`."""
    x = styled(block.conv1, styled(block.conv0, x, styles[0]) + skip, styles[1])
    return x, colours(block.toRGB, x, styles[2], image)
