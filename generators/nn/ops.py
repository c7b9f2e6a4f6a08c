"""Operators of the StyleGAN2 family: equalised layers, FIR resampling, modulated convolution.

"Equalised" means that the stored weight is multiplied by lr / sqrt(fan-in) when it is used. Nothing here is compiled
and nothing is kept between calls. Meant for inference: temporaries are changed in place, arguments never.

On a CPU, give `(B, C, H, W)` tensors in the channels-last format: convolutions of few channels take half the time and
the depthwise FIR a quarter (one thread, 32 channels of 1024 x 1024).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQRT2 = math.sqrt(2)
SLOPE = 0.2
EPS = 1e-8

COLUMNS = (1 << 28, 1 << 20)
"""Numbers that the neighbourhoods of pixels are laid out in at a time: elsewhere, and on a CPU, where they should stay
in its cache."""


def normal(*shape: int, std: float = 1.0) -> Tensor:
    """Fresh weights; on the meta device without arithmetic, which would load torch's symbolic half: 5 s."""
    made = torch.empty(shape)
    return made if made.is_meta else made.normal_(std=std)


def arranged(x: Tensor) -> Tensor:
    """(B, C, H, W), on a CPU in the channels-last format; elsewhere as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def leaky_relu(x: Tensor) -> Tensor:
    """sqrt(2) * LeakyReLU(0.2), any shape."""
    return F.leaky_relu(x, SLOPE) * SQRT2


def pixel_norm(x: Tensor) -> Tensor:
    """Divides by the root mean square over dim 1: (B, C, ...) -> (B, C, ...)."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPS)


class EqualLinear(nn.Module):
    """Linear layer, equalised: (..., n_in) -> (..., n_out).

    Args:
        n_in: width of the input.
        n_out: width of the output.
        lr: learning rate multiplier; scales weight and bias when they are used.
        activate: apply `leaky_relu` afterwards.
        bias: what a fresh bias is filled with.
    """

    def __init__(self, n_in: int, n_out: int, *, lr: float = 1.0, activate: bool = False, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(n_out, n_in, std=1 / lr))
        self.bias = nn.Parameter(torch.full((n_out,), bias))
        self.lr, self.gain, self.activate = lr, lr / math.sqrt(n_in), activate

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_in) -> (..., n_out)."""
        y = F.linear(x, self.weight * self.gain, self.bias * self.lr if self.lr != 1 else self.bias)
        return leaky_relu(y) if self.activate else y


class EqualConv2d(nn.Module):
    """Convolution, equalised; the bias is not: (B, n_in, H, W) -> (B, n_out, H', W').

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
        size: of the kernel.
        stride: in pixels.
        padding: zeros on each side.
        bias: whether it has one.
    """

    def __init__(
        self, n_in: int, n_out: int, size: int, *, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(n_out, n_in, size, size))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
        self.stride, self.padding, self.gain = stride, padding, 1 / math.sqrt(n_in * size * size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H', W')."""
        return F.conv2d(x, self.weight * self.gain, self.bias, self.stride, self.padding)


def fir_kernel(gain: float = 1.0) -> Tensor:
    """The low-pass filter of StyleGAN2, outer([1, 3, 3, 1]) with the sum `gain`: (4, 4)."""
    taps = (1.0, 3.0, 3.0, 1.0)
    return torch.tensor([[a * b * gain / 64 for b in taps] for a in taps])


class Fir(nn.Module):
    """Home of a filter that is part of a state dict, as `<module>.kernel`.

    Args:
        gain: sum of the filter; 4 where pixels are doubled along both axes.
    """

    kernel: Tensor

    def __init__(self, gain: float = 4.0) -> None:
        super().__init__()
        self.register_buffer("kernel", fir_kernel(gain))


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Puts zeros between pixels, pads, filters and thins, every channel for itself, both axes alike.

    Args:
        x: (B, C, H, W).
        kernel: (K, K); convolved with, i.e. the flipped kernel is correlated.
        up: up - 1 zeros follow every pixel.
        down: every down-th pixel is kept, from the first on.
        pad: zeros before the first and after the last pixel (and its zeros); negative numbers crop.

    Returns:
        (B, C, H', W') with H' = (H * up + pad[0] + pad[1] - K) // down + 1.
    """
    (before, after), size, channels = pad, kernel.shape[-1], x.shape[1]
    if up == 1:
        each = kernel.flip(0, 1).to(x.dtype).expand(channels, 1, size, size)
        if before == after >= 0:
            return F.conv2d(x, each, stride=down, padding=before, groups=channels)
        return F.conv2d(F.pad(x, (before, after, before, after)), each, stride=down, groups=channels)
    # A transposed convolution sets out from every pixel, so that the zeros are never touched. It gives all positions
    # that any pixel reaches; the first of them is at -before, seen from the first one wanted.
    each = kernel.to(x.dtype).expand(channels, 1, size, size)
    first = size - 1 - before
    ends = [side * up + before + after - size + 1 - ((side - 1) * up + size - first) for side in x.shape[2:]]
    if first >= 0 and ends == [-first, -first]:
        y = F.conv_transpose2d(x, each, stride=up, padding=first, groups=channels)
    else:
        y = F.conv_transpose2d(x, each, stride=up, groups=channels)
        y = F.pad(y, (-first, ends[1], -first, ends[0]))
    return y[:, :, ::down, ::down] if down > 1 else y


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
    """Convolution whose weights are scaled per sample: w[b, o, i] = weight[o, i] * styles[b, i] / sqrt(I * K * K).

    No weights per sample are made: scaling input and output channels is the same. One sample whose weight is smaller
    than its image has its weight scaled instead, which saves passes over the image.

    Args:
        x: (B, I, H, W).
        weight: (O, I, K, K), as stored. With `fir` it is the kernel of a transposed convolution, axes swapped.
        styles: (B, I), float32 also under autocast: demodulation adds up squares. (B, R, I) for R regions, each of
            which has weights of its own.
        labels: (B, H', W'), the region of every pixel of the result, 0 to R - 1; of use with styles per region only.
        fir: (4, 4); doubles the pixels by a transposed convolution of stride 2 that this filter (of sum 4) follows.
        demodulate: divide by the norm of the scaled weights per sample and output channel.
        bias: (O,), added to the result before `gain`.
        gain: factor of the result.

    Returns:
        (B, O, H, W), or (B, O, 2H, 2W) with `fir`.
    """
    batch, count, size = x.shape[0], weight.shape[1], weight.shape[-1]
    half = x.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled(x.device.type)
    with torch.autocast(x.device.type, enabled=False):
        inner = styles.float() / math.sqrt(count * size * size)
        outer = torch.full_like(inner[..., :1], gain)
        if demodulate:
            squares = weight.float().square().sum((2, 3))  # (O, I)
            outer = gain * torch.rsqrt(inner.square() @ squares.t() + EPS)
            if half:
                # Half floats end at 65504: large styles move from the input to the output, where they cancel.
                largest = inner.abs().amax(-1, keepdim=True).clamp_min(EPS)
                inner, outer = inner / largest, outer * largest
        shift = None if bias is None else bias.float() * gain
    if labels is not None and styles.ndim == 3:
        y = _regional_conv2d(x, weight, inner, outer, labels, fir)
        return y if shift is None else y.add_(shift.to(y.dtype)[:, None, None])
    if batch == 1 and weight.numel() < x.numel():
        scaled = (weight * inner[0, :, None, None]).to(x.dtype)
        shift = None if shift is None else shift.to(x.dtype)
        if fir is not None:
            y = F.conv_transpose2d(x, scaled.transpose(0, 1), stride=2)
            each = fir.flip(0, 1) * outer.expand(1, weight.shape[0])[0, :, None, None, None]
            return F.conv2d(y, each.to(y.dtype), shift, padding=1, groups=y.shape[1])
        scaled = (scaled * outer[0, :, None, None, None]).to(x.dtype)
        return F.conv2d(x, scaled, shift, padding=size // 2)
    x = x * inner[:, :, None, None].to(x.dtype)
    if fir is None:
        y = F.conv2d(x, weight, padding=size // 2)
    else:
        y = upfirdn2d(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), fir, pad=(1, 1))
    y = y * outer[:, :, None, None].to(y.dtype)
    return y if shift is None else y.add_(shift.to(y.dtype)[:, None, None])


def _regional_conv2d(
    x: Tensor, weight: Tensor, inner: Tensor, outer: Tensor, labels: Tensor, fir: Tensor | None
) -> Tensor:
    """The part of `modulated_conv2d` that is convolution, with factors (B, R, I) and (B, R, O or 1) per region.

    Where all that a pixel is made of lies in its own region, the region's factors are the pixels' own, so that one
    convolution serves all regions. Along their borders the neighbourhood of every pixel is laid out as a row, scaled by
    the factors of the pixel's region, and multiplied by the weight. That is 1.3 times the arithmetic of StyleGAN2 on a
    face, however many regions there are.
    """
    device, size, step = x.device.type, weight.shape[-1], 1 if fir is None else 2
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    region = labels.long() + inner.shape[1] * torch.arange(len(x), device=x.device)[:, None, None]
    inner, outer = inner.flatten(0, 1).to(dtype), outer.flatten(0, 1).to(dtype)
    of_input = region[:, ::step, ::step]
    scaled = x.to(dtype) * inner[of_input].permute(0, 3, 1, 2)
    if fir is None:
        y = F.conv2d(scaled, weight.to(dtype), padding=size // 2)
    else:
        y = F.conv_transpose2d(scaled, weight.to(dtype).transpose(0, 1), stride=2)
        y = upfirdn2d(y, fir, pad=(1, 1))
    y = y.mul_(outer[region].permute(0, 3, 1, 2))
    if size == 1:
        return y
    ends = F.max_pool2d(torch.stack((of_input, -of_input), 1).float(), size, stride=1, padding=size // 2)
    ends = ends.repeat_interleave(step, 2).repeat_interleave(step, 3)
    border = (ends != torch.stack((region, -region), 1)).any(1).nonzero(as_tuple=True)
    if fir is None:
        around = F.pad(x.to(dtype).permute(0, 2, 3, 1), (0, 0, *[size // 2] * 4))
    else:
        # The filter may come first: then what follows is a convolution with the reversed kernel.
        around = upfirdn2d(x.to(dtype), fir, up=2, pad=(3, 2)).permute(0, 2, 3, 1)
        weight = weight.flip(2, 3)
    matrix = weight.to(dtype).permute(2, 3, 1, 0).flatten(0, 2)
    picture = y.permute(0, 2, 3, 1)
    taps, pixels = torch.arange(size, device=x.device), COLUMNS[device == "cpu"] // len(matrix)
    for image, row, column in zip(*(torch.split(at, pixels) for at in border), strict=True):
        near = around[image[:, None, None], row[:, None, None] + taps[:, None], column[:, None, None] + taps]
        own = region[image, row, column]
        made = near.mul_(inner[own][:, None, None]).flatten(1) @ matrix
        picture[image, row, column] = made.mul_(outer[own])
    return y


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
    """`modulated_conv2d` with demodulation, then + noise + bias, then `leaky_relu`.

    Args:
        x: (B, I, H, W).
        weight: (O, I, K, K).
        styles: (B, I) or (B, R, I).
        bias: (O,).
        labels: see `modulated_conv2d`.
        noise: of a shape that (B, O, H', W') takes, already scaled.
        fir: see `modulated_conv2d`.

    Returns:
        (B, O, H', W').
    """
    # sqrt(2) goes through the ReLU: scaling before it costs nothing, after it another pass over the image.
    y = modulated_conv2d(x, weight, styles, labels=labels, fir=fir, bias=bias, gain=SQRT2)
    if noise is not None:
        y = y.add_((noise * SQRT2).to(y.dtype))
    return F.leaky_relu_(y, SLOPE)
