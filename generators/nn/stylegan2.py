"""The StyleGAN2 generator in rosinality's layout, which StyleCLIP, e4e, HFGI and others publish their weights in.

W+ is one latent of 512 numbers per layer, (B, 18, 512) for 1024 pixels. S is what the layers make of it: 26 vectors of
one factor per input channel. `styles` goes from W+ to S, `synthesize` from S to the image; either can be edited.
Tensor names are those of the official state dict. The noise is part of it, so that the image is a function of W+.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.nn import ops

ALONE = 64
"""On a CPU, images of more pixels a side go through the rest of the network one by one.

The weights are read once per batch where they are larger than the images, and the memory of a batch stays that of one
image where the images are larger. Measured at 1024 pixels, see `mmtt bench nets`.
"""


def channels(size: int) -> int:
    """Channels at a resolution of the published networks (channel multiplier 2): 512 up to 64, 32 at 1024."""
    return min(512, 32768 // size)


def truncate(latent: Tensor, average: Tensor, psi: float) -> Tensor:
    """Draws latents towards the average: average + psi * (latent - average).

    Args:
        latent: (B, D) or (B, L, D).
        average: (D,) or (L, D).
        psi: 1 changes nothing, 0 gives the average.
    """
    return average + psi * (latent - average)


def labels_at(labels: Tensor, side: int) -> Tensor:
    """Labels (B, H, W) uint8 at a resolution, (B, side, side): one of the pixels that fall together stands for all."""
    return F.interpolate(labels[:, None], (side, side), mode="nearest")[:, 0]


class ModulatedConv2d(nn.Module):
    """Weights of a modulated convolution.

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
        size: of the kernel.
        style_dim: width of the latent that its styles come from.
        up: whether it doubles the pixels.
    """

    def __init__(self, n_in: int, n_out: int, size: int, *, style_dim: int, up: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(ops.normal(1, n_out, n_in, size, size))
        self.modulation = ops.EqualLinear(style_dim, n_in, bias=1.0)
        self.blur = ops.Fir() if up else None

    @property
    def fir(self) -> Tensor | None:
        """(4, 4), the filter after doubling."""
        return None if self.blur is None else self.blur.kernel

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """(B, n_in, H, W), (B, n_in) -> (B, n_out, H', W'), demodulated; without noise and bias."""
        return ops.modulated_conv2d(x, self.weight[0], styles, fir=self.fir)


class StyledConv(nn.Module):
    """3 x 3 modulated convolution, noise, bias, leaky ReLU. Arguments as for `ModulatedConv2d`."""

    def __init__(self, n_in: int, n_out: int, *, style_dim: int, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(n_in, n_out, 3, style_dim=style_dim, up=up)
        self.noise = nn.ParameterDict({"weight": nn.Parameter(torch.zeros(1))})
        self.activate = nn.ParameterDict({"bias": nn.Parameter(torch.zeros(n_out))})

    def forward(self, x: Tensor, styles: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, n_in, H, W), (B, n_in), (1 or B, 1 or n_out, H', W') -> (B, n_out, H', W').

        With styles (B, R, n_in) and labels (B, H', W') every region has a style of its own.
        """
        conv, scaled = self.conv, noise * self.noise["weight"]
        return ops.styled_conv2d(
            x, conv.weight[0], styles, self.activate["bias"], labels=labels, noise=scaled, fir=conv.fir
        )


class ToRGB(nn.Module):
    """Adds a layer's colours to those of the resolution below.

    Args:
        n_in: channels of the features.
        style_dim: width of the latent that its styles come from.
        up: whether there is a resolution below.
    """

    def __init__(self, n_in: int, *, style_dim: int, up: bool = True) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(n_in, 3, 1, style_dim=style_dim)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.upsample = ops.Fir() if up else None

    def forward(self, x: Tensor, styles: Tensor, rgb: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """(B, n_in, H, W), (B, n_in), (B, 3, H/2, W/2) or None -> (B, 3, H, W), float32 also under autocast.

        With styles (B, R, n_in) and labels (B, H, W) every region has a style of its own.
        """
        weight, bias = self.conv.weight[0], self.bias[0, :, 0, 0]
        y = ops.modulated_conv2d(x, weight, styles, labels=labels, demodulate=False, bias=bias)
        if rgb is None or self.upsample is None:
            return y.float()
        with torch.autocast(x.device.type, enabled=False):
            return ops.upfirdn2d(rgb, self.upsample.kernel, up=2, pad=(2, 1)).add_(y)


class Generator(nn.Module):
    """From latents to faces.

    Args:
        size: pixels a side of the image, a power of 2 from 8 on.
        style_dim: width of z and w.
        n_mlp: layers between z and w.
        channels: by resolution, from 4 to `size`.
        noise: whether the noise is in the state dict; else it is drawn from a fixed seed, so always the same.

    Raises:
        ValueError: the size is no such power.
    """

    def __init__(
        self,
        *,
        size: int = 1024,
        style_dim: int = 512,
        n_mlp: int = 8,
        channels: Callable[[int], int] = channels,
        noise: bool = True,
    ) -> None:
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ValueError(f"size {size} is not a power of 2 from 8 on")
        self.size = size
        blocks = size.bit_length() - 3
        layers = [ops.EqualLinear(style_dim, style_dim, lr=0.01, activate=True) for _ in range(n_mlp)]
        self.style = nn.Sequential(PixelNorm(), *layers)
        self.input = nn.ParameterDict({"input": nn.Parameter(ops.normal(1, channels(4), 4, 4))})
        self.conv1 = StyledConv(channels(4), channels(4), style_dim=style_dim)
        self.to_rgb1 = ToRGB(channels(4), style_dim=style_dim, up=False)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        self.noises = nn.Module()
        for block in range(blocks):
            side = 8 << block
            n_in, n_out = channels(side // 2), channels(side)
            self.convs.append(StyledConv(n_in, n_out, style_dim=style_dim, up=True))
            self.convs.append(StyledConv(n_out, n_out, style_dim=style_dim))
            self.to_rgbs.append(ToRGB(n_out, style_dim=style_dim))
        draw = torch.Generator().manual_seed(0)
        for layer in range(1 + len(self.convs)):
            shape = (1, 1, 4 << ((layer + 1) // 2), 4 << ((layer + 1) // 2))
            # Noise that no file brings is made on the CPU even where the rest is on the meta device.
            drawn = ops.normal(*shape) if noise else torch.randn(shape, generator=draw, device="cpu")
            self.noises.register_buffer(f"noise_{layer}", drawn, persistent=noise)

    @property
    def n_latent(self) -> int:
        """Latents in W+: 18 for 1024 pixels."""
        return 2 + len(self.convs)

    @property
    def noise(self) -> list[Tensor]:
        """The noise of the state dict, one (1, 1, H, W) per `StyledConv`, in order."""
        return [self.noises.get_buffer(f"noise_{layer}") for layer in range(1 + len(self.convs))]

    def map(self, z: Tensor) -> Tensor:
        """From normal noise to W: (B, style_dim) -> (B, style_dim). float32 also under autocast."""
        with torch.autocast(z.device.type, enabled=False):
            w: Tensor = self.style(z.float())
        return w

    def modulations(self) -> list[tuple[int, ops.EqualLinear]]:
        """What makes S out of W+, in S's order: for each vector the index of its latent, and the layer."""
        found = [(0, self.conv1.conv.modulation), (1, self.to_rgb1.conv.modulation)]
        for block, to_rgb in enumerate(self.to_rgbs):
            parts = cast("tuple[StyledConv, ...]", (*self.convs[2 * block : 2 * block + 2], to_rgb))
            found += [(2 * block + 1 + offset, part.conv.modulation) for offset, part in enumerate(parts)]
        return found

    def styles(self, latent: Tensor) -> list[Tensor]:
        """From W or W+ to S, in float32 also under autocast.

        Args:
            latent: (B, style_dim), used for all layers, or (B, n_latent, style_dim); (B, R, n_latent, style_dim) for R
                regions.

        Returns:
            26 vectors (B, C), or (B, R, C), for 1024 pixels, in the order conv1, to_rgb1, then up-convolution,
            convolution and ToRGB per resolution.
        """
        if latent.ndim == 2:
            latent = latent[:, None].expand(-1, self.n_latent, -1)
        with torch.autocast(latent.device.type, enabled=False):
            return [layer(latent[..., index, :].float()) for index, layer in self.modulations()]

    def synthesize(
        self,
        styles: Sequence[Tensor],
        *,
        noise: Sequence[Tensor] | None = None,
        fuse: Mapping[int, tuple[Tensor, Tensor]] | None = None,
        until: int | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """From S to the image.

        Args:
            styles: 26 vectors (B, C), as `styles` returns them; any of them (B, R, C), where regions differ.
            noise: one (1 or B, 1 or C, H, W) per `StyledConv`; the state dict's without it.
            fuse: by resolution, scale and shift (B, C, H, W) of its features: x * (1 + scale) + shift, right after the
                up-convolution.
            until: stop at this resolution.
            labels: (B, H, W) uint8, the region of every pixel, for layers whose regions differ.

        Returns:
            (B, 3, size, size) RGB, float32, about [-1, 1] and not cut off there; of the side `until` if that is given.
        """
        noise = self.noise if noise is None else noise
        const, batch = self.input["input"], styles[0].shape[0]
        last = const.is_contiguous(memory_format=torch.channels_last)
        x = const.expand(batch, -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        at = None if labels is None else labels_at(labels, x.shape[-1])
        x = self.conv1(ops.arranged(x), styles[0], noise[0], labels=at)
        rgb = self.to_rgb1(x, styles[1], labels=at)
        return self._blocks(0, x, rgb, styles, noise, fuse or {}, until or self.size, labels)

    def _blocks(
        self,
        start: int,
        x: Tensor,
        rgb: Tensor,
        styles: Sequence[Tensor],
        noise: Sequence[Tensor],
        fuse: Mapping[int, tuple[Tensor, Tensor]],
        until: int,
        labels: Tensor | None,
    ) -> Tensor:
        """The resolutions from block `start` on."""
        for block in range(start, until.bit_length() - 3):
            side = 8 << block
            if x.shape[0] > 1 and side > ALONE and x.device.type == "cpu":
                images = []
                for i in range(x.shape[0]):
                    one = slice(i, i + 1)
                    own = [n[one] if n.shape[0] > 1 else n for n in noise]
                    changes = {at: (scale[one], shift[one]) for at, (scale, shift) in fuse.items()}
                    its, where = [s[one] for s in styles], None if labels is None else labels[one]
                    images.append(self._blocks(block, x[one], rgb[one], its, own, changes, until, where))
                return torch.cat(images)
            first, second, colours = styles[2 + 3 * block : 5 + 3 * block]
            at = None if labels is None else labels_at(labels, side)
            x = self.convs[2 * block](x, first, noise[2 * block + 1], labels=at)
            if side in fuse:
                scale, shift = fuse[side]
                x = torch.addcmul(x + shift.to(x.dtype), x, scale.to(x.dtype))
            x = self.convs[2 * block + 1](x, second, noise[2 * block + 2], labels=at)
            rgb = self.to_rgbs[block](x, colours, rgb, labels=at)
        return rgb

    def forward(
        self,
        latent: Tensor,
        *,
        noise: Sequence[Tensor] | None = None,
        fuse: Mapping[int, tuple[Tensor, Tensor]] | None = None,
        until: int | None = None,
    ) -> Tensor:
        """From W (B, style_dim) or W+ (B, n_latent, style_dim) to the image; see `synthesize`."""
        return self.synthesize(self.styles(latent), noise=noise, fuse=fuse, until=until)


class PixelNorm(nn.Module):
    """`ops.pixel_norm` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...)."""
        return ops.pixel_norm(x)


def build() -> Generator:
    """The published network: 1024 pixels."""
    return Generator()


def published(state: Mapping[str, Tensor]) -> Generator:
    """The published network for a file that may have been saved without the noise, as older ones were."""
    return Generator(noise=_has_noise(state))


def _has_noise(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("noises.") for name in state)


def generator_of(state: Mapping[str, Tensor]) -> Generator:
    """A fresh network of the sizes that a state dict shows.

    Raises:
        KeyError: it is none of a generator.
    """
    blocks = sum(name.endswith("upsample.kernel") for name in state)
    widths = {4: state["conv1.activate.bias"].shape[0]}
    widths |= {8 << block: state[f"convs.{2 * block}.activate.bias"].shape[0] for block in range(blocks)}
    return Generator(
        size=4 << blocks,
        style_dim=state["conv1.conv.modulation.weight"].shape[1],
        n_mlp=sum(name.startswith("style.") and name.endswith(".bias") for name in state),
        channels=widths.__getitem__,
        noise=_has_noise(state),
    )
