"""HFGI: the networks that put a photo's own details back into its inversion, and the order they are run in.

The encoder of e4e finds W+; what its image lacks (the residual) is moved to where the edit put things (`grid_align`)
and turned into scale and shift of the generator's features at 64 pixels (`residue`). Names as in the official files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.nn import ops
from generators.nn.irse import Encoder4Editing, Inverter, entry, units
from generators.nn.stylegan2 import Generator

SIDE = 256
"""Pixels a side of what encoder and both networks here see."""

FUSED_AT = 64
"""Resolution of the features that are changed; the generator's is the up-convolution with W+ index 7."""


class ActivatedConv(nn.Sequential):
    """Two equalised 3 x 3 convolutions with a leaky ReLU between: (B, n_in, H, W) -> (B, n_out, H, W).

    Args:
        n_in: channels of the input.
        n_out: channels between and after.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(
            ops.EqualConv2d(n_in, n_out, 3, padding=1), LeakyReLU(), ops.EqualConv2d(n_out, n_out, 3, padding=1)
        )


class LeakyReLU(nn.Module):
    """`ops.leaky_relu` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return ops.leaky_relu(x)


class ResidualEncoder(nn.Module):
    """The consultation encoder: from a residual to scale and shift of the generator's features.

    Args:
        channels: of those features.
    """

    def __init__(self, *, channels: int = 512) -> None:
        super().__init__()
        self.conv_layer1 = entry(3, 32)
        self.conv_layer2 = units((32, 48, 48, 48), stride=2)
        self.conv_layer3 = units((48, 64, 64, 64), stride=2)
        self.condition_scale3 = ActivatedConv(64, channels)
        self.condition_shift3 = ActivatedConv(64, channels)

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, 256, 256) -> two times (B, channels, 64, 64)."""
        features = self.conv_layer3(self.conv_layer2(self.conv_layer1(ops.arranged(residual))))
        return _resized(self.condition_scale3(features), FUSED_AT), _resized(self.condition_shift3(features), FUSED_AT)


class ResidualAligner(nn.Module):
    """Moves a residual to where the features of another image are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_layer1 = entry(6, 16)
        self.conv_layer2 = units((16, 32, 32, 32), stride=2)
        self.conv_layer3 = units((32, 48, 48, 48), stride=2)
        self.conv_layer4 = units((48, 64, 64, 64), stride=2)
        self.dconv_layer1 = units((112, 64, 32, 32))
        self.dconv_layer2 = units((64, 32, 16, 16))
        self.dconv_layer3 = units((32, 16, 3, 3))

    def forward(self, residual: Tensor, image: Tensor) -> Tensor:
        """Aligns.

        Args:
            residual: (B, 3, H, W), sides divisible by 8; 256 in use.
            image: (B, 3, H, W) in [-1, 1], what the residual is moved onto.

        Returns:
            (B, 3, H, W).
        """
        first = self.conv_layer1(ops.arranged(torch.cat((residual, image), dim=1)))
        second = self.conv_layer2(first)
        third = self.conv_layer3(second)
        x = self.conv_layer4(third)
        for near, layer in ((third, self.dconv_layer1), (second, self.dconv_layer2), (first, self.dconv_layer3)):
            x = layer(torch.cat((_resized(x, near.shape[-1]), near), dim=1))
        return x


def _resized(x: Tensor, side: int) -> Tensor:
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)


def low(image: Tensor) -> Tensor:
    """The picture as the networks see it: (B, 3, H, W) -> (B, 3, 256, 256) in [-1, 1].

    Bilinear without anti-aliasing, as these networks were trained: of 4 x 4 pixels, the middle 2 x 2 count.
    """
    return _resized(image.clamp(-1, 1), SIDE)


class Directions(nn.Module):
    """Directions in W+ that attributes lie along.

    InterFaceGAN: one step is a unit vector (per layer). GANSpace: principal components of W; a coordinate is measured
    on the first layer, in standard deviations from the mean.
    """

    age: Tensor
    smile: Tensor
    pose: Tensor
    mean: Tensor
    comp: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        shapes = {"age": (1, 512), "smile": (1, 512), "pose": (1, 18, 512)}
        shapes |= {"mean": (1, 512), "comp": (80, 1, 512), "std": (80,)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def along(self, w: Tensor, name: str, degree: float) -> Tensor:
        """An InterFaceGAN edit.

        Args:
            w: (B, 18, 512).
            name: "age", "smile" or "pose".
            degree: how far; the authors use -5 to 5 of age and smile.

        Returns:
            (B, 18, 512).
        """
        return w + degree * self.get_buffer(name)

    def towards(self, w: Tensor, component: int, first: int, end: int, target: float) -> Tensor:
        """A GANSpace edit: gives a component the coordinate `target` in the layers from `first` to before `end`.

        Args:
            w: (B, 18, 512).
            component: 0 to 79.
            first: layer.
            end: layer after the last.
            target: in standard deviations.

        Returns:
            (B, 18, 512).
        """
        direction, deviation = self.comp[component, 0], self.std[component]
        coordinate = (w[:, 0] - self.mean) @ direction / deviation  # (B,)
        delta = ((target - coordinate) * deviation)[:, None] * direction
        edited = w.clone()
        edited[:, first:end] += delta[:, None]
        return edited


@dataclass(frozen=True)
class Edited:
    """What an edit gives, and what it went through.

    Attributes:
        image: (B, 3, 1024, 1024) RGB, about [-1, 1], not cut off.
        w: (B, 18, 512), the inversion.
        w_edit: (B, 18, 512).
        initial: (B, 3, 1024, 1024), the generator's image of `w`, without details.
        residual: (B, 3, 256, 256), what that image lacks.
        aligned: (B, 3, 256, 256), the residual where the edit put things.
        scale: (B, 512, 64, 64).
        shift: (B, 512, 64, 64).
    """

    image: Tensor
    w: Tensor
    w_edit: Tensor
    initial: Tensor
    residual: Tensor
    aligned: Tensor
    scale: Tensor
    shift: Tensor


class Hfgi(Inverter):
    """All networks of the published file.

    Args:
        encoder: makes W+.
        decoder: makes images.
        style_dim: width of a latent.
        channels: of the generator's features at 64 pixels.
    """

    def __init__(
        self, encoder: Encoder4Editing, decoder: Generator, *, style_dim: int = 512, channels: int = 512
    ) -> None:
        super().__init__(encoder, decoder, style_dim=style_dim)
        self.residue = ResidualEncoder(channels=channels)
        self.grid_align = ResidualAligner()

    def forward(self, photo: Tensor, edit: Callable[[Tensor], Tensor] | None = None) -> Edited:
        """Inverts a photo, edits it, and gives it its details back.

        Args:
            photo: (B, 3, 256, 256) RGB in [-1, 1], aligned as in FFHQ.
            edit: from W+ to the W+ that is wanted, (B, 18, 512) each; without it the inversion is what is wanted.
        """
        w = self.invert(photo)
        w_edit = w if edit is None else edit(w)
        initial = self.decoder(w)
        seen = low(initial)
        residual = photo - seen
        aligned, scale, shift = self.details(residual, seen if edit is None else low(self.decoder(w_edit)))
        image = self.decoder(w_edit, fuse={FUSED_AT: (scale, shift)})
        return Edited(image, w, w_edit, initial, residual, aligned, scale, shift)

    def details(self, residual: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What an image lacks, as the generator takes it.

        Args:
            residual: (B, 3, 256, 256), what the inversion lacks.
            seen: (B, 3, 256, 256), the image that is to get it, as `low` gives it.

        Returns:
            The residual moved onto the image (B, 3, 256, 256), scale and shift (B, 512, 64, 64).
        """
        aligned = self.grid_align(residual, seen)
        return aligned, *self.residue(aligned)

    def pair(self, photo: Tensor, edit: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The inversion and the edited image, both with details, so that they differ by the edit alone.

        Args:
            photo: (B, 3, 256, 256) RGB in [-1, 1], aligned as in FFHQ.
            edit: from W+ to the W+ that is wanted, (B, 18, 512) each.

        Returns:
            Twice (B, 3, 1024, 1024), about [-1, 1]. The second is `forward`'s image.
        """
        w = self.invert(photo)
        seen = low(self.decoder(w))
        residual, w_edit = photo - seen, edit(w)
        made = []
        for code, image in ((w, seen), (w_edit, low(self.decoder(w_edit)))):
            _, scale, shift = self.details(residual, image)
            made.append(self.decoder(code, fuse={FUSED_AT: (scale, shift)}))
        return made[0], made[1]


def build() -> Hfgi:
    """The published network for 1024 pixels."""
    return Hfgi(Encoder4Editing(), Generator())
