"""IR-SE networks: residual units of the face-recognition kind, and the e4e encoder that is built of them.

The units serve E4S and HFGI as well. Tensor names are those of the official state dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.nn import ops
from generators.nn.stylegan2 import Generator

Norm = Callable[[int], nn.Module]


class SqueezeExcite(nn.Module):
    """Weighs channels by what is in all of them: (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C.
        reduction: C over the width between.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        weight = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(weight)


class Unit(nn.Module):
    """Residual unit: norm, 3 x 3, PReLU, 3 x 3 with the stride, norm, and the input added: no activation after.

    Args:
        n_in: channels of the input.
        n_out: channels of the output. Where they differ the shortcut is a convolution, else every stride-th pixel.
        stride: in pixels.
        excite: end with `SqueezeExcite`.
        norm: makes a normalisation of so many channels.
    """

    def __init__(
        self, n_in: int, n_out: int, stride: int = 1, *, excite: bool = False, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        layers = [
            norm(n_in),
            nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
            nn.PReLU(n_out),
            nn.Conv2d(n_out, n_out, 3, stride, padding=1, bias=False),
            norm(n_out),
        ]
        self.res_layer = nn.Sequential(*layers, *([SqueezeExcite(n_out)] if excite else []))
        self.shortcut_layer = (
            None if n_in == n_out else nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), norm(n_out))
        )
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H / stride, W / stride)."""
        near = x[:, :, :: self.stride, :: self.stride] if self.shortcut_layer is None else self.shortcut_layer(x)
        return self.res_layer(x) + near


def entry(n_in: int, n_out: int, norm: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """3 x 3 convolution, norm, PReLU: (B, n_in, H, W) -> (B, n_out, H, W)."""
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), norm(n_out), nn.PReLU(n_out))


def units(widths: Sequence[int], stride: int = 1) -> nn.Sequential:
    """Units without excitation, from width to width; the stride is the first one's."""
    return nn.Sequential(*(Unit(a, b, stride if i == 0 else 1) for i, (a, b) in enumerate(pairwise(widths))))


def body(n_in: int, widths: Sequence[int], depths: Sequence[int], norm: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """Stages of units with excitation; the first unit of each halves the pixels.

    Args:
        n_in: channels of the input.
        widths: channels of the stages.
        depths: units per stage.
        norm: makes a normalisation of so many channels.
    """
    made = []
    for width, depth in zip(widths, depths, strict=True):
        for i in range(depth):
            made.append(Unit(n_in, width, 2 if i == 0 else 1, excite=True, norm=norm))
            n_in = width
    return nn.Sequential(*made)


class StyleBlock(nn.Module):
    """Shrinks a feature map to one latent.

    Args:
        n_in: channels of the map.
        style_dim: width of the latent.
        side: of the map; a power of 2.
    """

    def __init__(self, n_in: int, style_dim: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(side.bit_length() - 1):
            layers += [nn.Conv2d(style_dim if i else n_in, style_dim, 3, 2, padding=1), nn.LeakyReLU(0.01)]
        self.convs = nn.Sequential(*layers)
        self.linear = ops.EqualLinear(style_dim, style_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, side, side) -> (B, style_dim)."""
        y: Tensor = self.linear(self.convs(x).flatten(1))
        return y


class Encoder4Editing(nn.Module):
    """The e4e encoder: an image to the W+ that gives it, as the difference to the average latent.

    Args:
        n_styles: latents in W+.
        widths: channels of the four stages, the last also of the feature pyramid and of a latent.
        depths: units per stage.
    """

    def __init__(
        self,
        *,
        n_styles: int = 18,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
        depths: tuple[int, int, int, int] = (3, 4, 14, 3),
    ) -> None:
        super().__init__()
        first, second, third, last = widths
        self.input_layer = entry(3, first)
        self.body = body(first, widths, depths)
        self.ends = sum(depths[:2]), sum(depths[:3])
        sides = [16 if i < 3 else 32 if i < 7 else 64 for i in range(n_styles)]
        self.styles = nn.ModuleList(StyleBlock(last, last, side) for side in sides)
        self.latlayer1 = nn.Conv2d(third, last, 1)
        self.latlayer2 = nn.Conv2d(second, last, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Encodes.

        Args:
            image: (B, 3, 256, 256) RGB in [-1, 1], a face aligned as in FFHQ.

        Returns:
            (B, n_styles, D), to which the average latent is to be added.

        Raises:
            ValueError: the image is not of 256 pixels a side.
        """
        if image.shape[1:] != (3, 256, 256):
            raise ValueError(f"the encoder takes (B, 3, 256, 256), got {tuple(image.shape)}")
        x = self.input_layer(ops.arranged(image))
        low = self.body[: self.ends[0]](x)  # (B, 128, 64, 64)
        middle = self.body[self.ends[0] : self.ends[1]](low)  # (B, 256, 32, 32)
        coarse = self.body[self.ends[1] :](middle)  # (B, 512, 16, 16)
        middle = _enlarged(coarse, 32) + self.latlayer1(middle)
        low = _enlarged(middle, 64) + self.latlayer2(low)
        made = [style((coarse, middle, low)[(i >= 3) + (i >= 7)]) for i, style in enumerate(self.styles)]
        return torch.stack([made[0], *(made[0] + offset for offset in made[1:])], dim=1)


def _enlarged(x: Tensor, side: int) -> Tensor:
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=True)


def encoder_of(state: Mapping[str, Tensor]) -> Encoder4Editing:
    """A fresh encoder of the sizes that a state dict shows; the depths are those of IR-SE50.

    Raises:
        KeyError: it is none of an encoder.
    """
    one, two, three, four = (state[f"body.{unit}.res_layer.1.weight"].shape[0] for unit in (0, 3, 7, 21))
    count = sum(name.startswith("styles.") and name.endswith("linear.weight") for name in state)
    return Encoder4Editing(n_styles=count, widths=(one, two, three, four))


class Inverter(nn.Module):
    """Encoder and generator as they come in one file, with the average latent.

    Args:
        encoder: makes W+.
        decoder: makes images.
        style_dim: width of a latent.
    """

    latent_avg: Tensor

    def __init__(self, encoder: Encoder4Editing, decoder: Generator, *, style_dim: int = 512) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.register_buffer("latent_avg", torch.zeros(decoder.n_latent, style_dim))

    def invert(self, image: Tensor) -> Tensor:
        """(B, 3, 256, 256) RGB in [-1, 1], aligned as in FFHQ -> W+ (B, 18, 512)."""
        w: Tensor = self.encoder(image).float() + self.latent_avg
        return w


def build() -> Inverter:
    """The published e4e network for 1024 pixels."""
    return Inverter(Encoder4Editing(), Generator())
