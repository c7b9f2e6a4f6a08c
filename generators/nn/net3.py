"""Net3 of E4S (Liu et al., CVPR 2023): a face as one style vector per facial region, and StyleGAN2 that paints by them.

The encoder's features are averaged over each region of a label map; small networks make W+ of the averages; the
generator's layers up to 256 pixels give every region its own latent. Vectors and labels of two faces can be mixed
before the face is painted, which is how E4S swaps. Names as in the official file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.nn import irse, ops
from generators.nn.stylegan2 import Generator, generator_of, labels_at

REGIONS = 12
SIDE = 256
"""Pixels a side of what the encoder sees."""

WIDTHS, DEPTHS = (128, 256, 512, 512), (3, 4, 14, 3)
"""Channels and units per stage of the published encoder."""

SHARED = 5
"""Last latents of W+ that are the same for all regions in the published network."""


class Encoder(nn.Module):
    """Features at three resolutions.

    Args:
        entry: channels before the first stage.
        widths: channels of the four stages.
        depths: units per stage.
    """

    def __init__(self, *, entry: int = 64, widths: Sequence[int] = WIDTHS, depths: Sequence[int] = DEPTHS) -> None:
        super().__init__()
        self.input_layer = irse.entry(3, entry, nn.InstanceNorm2d)
        self.body = irse.body(entry, widths, depths, nn.InstanceNorm2d)
        self.ends = sum(depths[:2]), sum(depths[:3])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, 256, 256) RGB in [-1, 1] -> (B, C, 64, 64), (B, C', 32, 32), (B, C'', 16, 16)."""
        low = self.body[: self.ends[0]](self.input_layer(ops.arranged(image)))
        middle = self.body[self.ends[0] : self.ends[1]](low)
        return low, middle, self.body[self.ends[1] :](middle)


class RegionMLP(nn.Module):
    """From a region's style vector to its latents: (..., n_in) -> (..., latents, style_dim).

    Args:
        n_in: width of a style vector.
        latents: how many of W+ it makes.
        style_dim: width of a latent.
    """

    def __init__(self, n_in: int, latents: int, style_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            ops.EqualLinear(n_in, style_dim), nn.LeakyReLU(0.01), ops.EqualLinear(style_dim, latents * style_dim)
        )
        self.latents = latents

    def forward(self, vector: Tensor) -> Tensor:
        """(..., n_in) -> (..., latents, style_dim)."""
        made: Tensor = self.mlp(vector)
        return made.view(*vector.shape[:-1], self.latents, -1)


class Net3(nn.Module):
    """Encoder, one MLP per region, generator, and the average latent.

    Args:
        encoder: makes features.
        generator: paints.
        n_vector: width of a style vector, the sum of the encoder's last three widths.
        own: latents that a region has of its own, the first of W+; the last ones are the average for all.
        style_dim: width of a latent.
    """

    latent_avg: Tensor

    def __init__(
        self, encoder: Encoder, generator: Generator, *, n_vector: int = 1280, own: int = 13, style_dim: int = 512
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.MLPs = nn.ModuleList(RegionMLP(n_vector, own, style_dim) for _ in range(REGIONS))
        self.G = generator
        self.own = own
        self.register_buffer("latent_avg", torch.zeros(generator.n_latent, style_dim))

    def style_vectors(self, image: Tensor, labels: Tensor) -> Tensor:
        """What each region looks like, in float32 also under autocast.

        Args:
            image: (B, 3, H, W) RGB in [-1, 1], a face aligned as in FFHQ.
            labels: (B, h, w) integers, the region of every pixel, 0 to 11.

        Returns:
            (B, 12, 1280). Zeros where a region has no pixel at the resolution of the features: the first 256 are of 64
            pixels a side, 512 of 32, 512 of 16.

        Raises:
            ValueError: a label is none of a region.
        """
        labels = _checked(labels)
        with torch.autocast(image.device.type, enabled=False):
            seen = F.interpolate(image.float(), (SIDE, SIDE), mode="bilinear", align_corners=False)
            # On a CPU a batch is not faster than its images one by one, and takes more memory.
            parts = torch.split(seen, 1 if seen.device.type == "cpu" else len(seen))
            features = (torch.cat(level) for level in zip(*map(self.encoder, parts), strict=True))
            return torch.cat([_means(level, labels) for level in features], dim=-1)

    def style_codes(self, vectors: Tensor) -> Tensor:
        """From style vectors to W+ per region, in float32 also under autocast: (B, 12, 1280) -> (B, 12, 18, 512)."""
        with torch.autocast(vectors.device.type, enabled=False):
            made = [mlp(vectors[:, region].float()) for region, mlp in enumerate(self.MLPs)]
            offsets = F.pad(torch.stack(made, dim=1), (0, 0, 0, self.G.n_latent - self.own))
            return offsets + self.latent_avg

    def styles(self, codes: Tensor) -> list[Tensor]:
        """From W+ per region, (B, 12, 18, 512), to S: vectors (B, 12, C), and (B, C) where all regions are the same."""
        latents = [index for index, _ in self.G.modulations()]
        made = zip(latents, self.G.styles(codes), strict=True)
        return [style if latent < self.own else style[:, 0] for latent, style in made]

    def generate(self, codes: Tensor, labels: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Paints a face. The codes of regions that have no pixel do not matter.

        Args:
            codes: (B, 12, 18, 512), as `style_codes` returns them.
            labels: (B, h, w) integers, the region of every pixel, 0 to 11.
            noise: one (1 or B, 1 or C, h, w) per `StyledConv`, see `draw_noise`; the checkpoint's without it.

        Returns:
            (B, 3, 1024, 1024) RGB, float32, about [-1, 1] and not cut off there.

        Raises:
            ValueError: a label is none of a region.
        """
        given = None if noise is None else [each.to(codes.device) for each in noise]
        return self.G.synthesize(self.styles(codes), noise=given, labels=_checked(labels))

    def draw_noise(self, generators: Sequence[torch.Generator]) -> list[Tensor]:
        """Noise for `generate`, (B, 1, h, w) float32 per `StyledConv`, on the CPU.

        Args:
            generators: one per sample, on the CPU; each sample depends on its own alone.
        """
        samples = [
            [torch.randn(buffer.shape[1:], generator=generator) for buffer in self.G.noise] for generator in generators
        ]
        return [torch.stack(layer) for layer in zip(*samples, strict=True)]


def _checked(labels: Tensor) -> Tensor:
    """As uint8.

    Raises:
        ValueError: a label is none of a region.
    """
    least, most = (int(end) for end in labels.aminmax())
    if least < 0 or most >= REGIONS:
        raise ValueError(f"labels are from {least} to {most}, needed is 0 to {REGIONS - 1}")
    return labels.to(torch.uint8)


def _means(features: Tensor, labels: Tensor) -> Tensor:
    """Averages per region: (B, C, H, W), (B, h, w) uint8 -> (B, 12, C); zeros for a region without a pixel."""
    at = labels_at(labels, features.shape[-1]).flatten(1)
    member = (at[:, None] == torch.arange(REGIONS, device=at.device)[:, None]).float()  # (B, 12, H * W)
    return member @ features.flatten(2).transpose(1, 2) / member.sum(2, keepdim=True).clamp_min(1)


def build() -> Net3:
    """The published network: 12 regions, 1024 pixels."""
    generator = Generator()
    return Net3(Encoder(), generator, own=generator.n_latent - SHARED)


def net3_of(state: Mapping[str, Tensor]) -> Net3:
    """The network whose state dict this is, by its shapes, with the encoder's depths as published; fresh.

    Raises:
        KeyError: it is of another network.
    """
    painter = {name.removeprefix("G."): value for name, value in state.items() if name.startswith("G.")}
    ends = [sum(DEPTHS[:stage]) for stage in range(4)]
    entry, *widths = (
        state[name].shape[0]
        for name in ("encoder.input_layer.0.weight", *(f"encoder.body.{end}.res_layer.1.weight" for end in ends))
    )
    first, last = (state[f"MLPs.0.mlp.{layer}.weight"] for layer in (0, 2))
    return Net3(
        Encoder(entry=entry, widths=widths),
        generator_of(painter),
        n_vector=first.shape[1],
        own=last.shape[0] // first.shape[0],
        style_dim=first.shape[0],
    )
