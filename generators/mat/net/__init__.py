"""MAT, the mask-aware transformer that fills large holes (Li et al., CVPR 2022), for its published checkpoints.

Two stages: a transformer makes a coarse image, a convolutional network refines it. Both take part of their deepest
features from a random style, so that a hole has many fillings. Runs on CPU and GPU, in float32 or under autocast.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from generators.nn.ops import EqualLinear, pixel_norm

from .coarse import FirstStage
from .fine import DEEPEST, Synthesis

__all__ = ["FACES_512", "Generator", "build", "generator_of"]

FACES_512: Mapping[str, Any] = {
    "n_z": 512, "n_w": 512, "n_global": 1024, "mapping_layers": 8,
    "channels": {512: 64, 256: 128, 128: 256, 64: 512, 32: 512, 16: 512},
    "width": 180, "windows": (8, 16, 16, 16, 8),
}  # fmt: skip
"""Arguments of the networks that are published for 512 pixels: CelebA-HQ, FFHQ, Places."""


def build() -> Generator:
    """The generator of the published checkpoints for 512 pixels."""
    return Generator(**FACES_512)


def generator_of(state: Mapping[str, Tensor]) -> Generator:
    """The generator whose state dict this is, by the shapes of its tensors; on the meta device, without weights.

    Raises:
        KeyError: it is of another network.
    """
    blocks = [re.fullmatch(r"synthesis\.enc\.EncConv_Block_(\d+)x\d+\.conv1\.weight", name) for name in state]
    sides = [math.isqrt(state[f"synthesis.first_stage.tran.{i}.blocks.1.attn_mask"].shape[-1]) for i in (0, 1, 3, 4)]
    style = state["synthesis.first_stage.ws_style.weight"]
    with torch.device("meta"):
        return Generator(
            n_z=state["mapping.fc0.weight"].shape[1],
            n_w=style.shape[1],
            n_global=state["synthesis.to_style.fc.weight"].shape[0],
            mapping_layers=sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in state),
            channels={int(block[1]): state[block[0]].shape[0] for block in blocks if block},
            width=style.shape[0],
            windows=(*sides[:2], DEEPEST, *sides[2:]),
        )


class MappingNetwork(nn.Module):
    """Latent to style."""

    w_avg: Tensor

    def __init__(self, n_z: int, n_w: int, layers: int) -> None:
        super().__init__()
        for i in range(layers):
            self.add_module(f"fc{i}", EqualLinear(n_w if i else n_z, n_w, lr=0.01, activate=True))
        self.register_buffer("w_avg", torch.zeros(n_w))

    def forward(self, z: Tensor) -> Tensor:
        """(B, n_z) -> (B, n_w), in float32 also under autocast."""
        with torch.autocast(z.device.type, enabled=False):
            x = pixel_norm(z.float())
            for layer in self.children():
                x = layer(x)
            return x


class Generator(nn.Module):
    """Image with holes and latent -> image.

    Args:
        n_z: width of the latent.
        n_w: width of the style.
        n_global: width of the style that comes from the image.
        mapping_layers: from latent to style.
        channels: of the second stage by side, from the native resolution down to 16.
        width: of the first stage.
        windows: sides of its five parts' windows, in tokens.
    """

    def __init__(
        self,
        *,
        n_z: int,
        n_w: int,
        n_global: int,
        mapping_layers: int,
        channels: Mapping[int, int],
        width: int,
        windows: Sequence[int],
    ) -> None:
        super().__init__()
        self.n_z, self.width, self.channels, self.resolution = n_z, width, dict(channels), max(channels)
        doublings = int(math.log2(self.resolution // 64))
        first = FirstStage(width, windows, n_w, doublings)
        self.synthesis = Synthesis(first, channels, n_w, n_global)
        self.mapping = MappingNetwork(n_z, n_w, mapping_layers)

    def forward(
        self,
        image: Tensor,
        keep_mask: Tensor,
        z: Tensor,
        *,
        keep1: Tensor,
        keep2: Tensor,
        noise: str | Sequence[Tensor] = "const",
        psi: float = 1.0,
        cutoff: int | None = None,
        whole: bool = False,
    ) -> Tensor:
        """Fills the holes. With the same arguments the result is the same; `draw` makes those that are random.

        Args:
            image: (B, 3, H, W) RGB in [-1, 1]; H and W are multiples of the native resolution, the only size that the
                published networks were trained for. What it shows in the holes does not matter.
            keep_mask: (B, 1, H, W), exactly 1 where pixels are known, exactly 0 in the holes.
            z: (B, n_z), the latent.
            keep1: (B, H/32 * W/32, width) bool or 0 and 1: features of the first stage that stay, the others come from
                the style. H/32 is for 512 pixels, in general 16 at the native resolution.
            keep2: (B, C, H/32, W/32), the same for the second stage.
            noise: "const" for the network's own (at the native resolution only), "none", or one
                (B or 1, 1, H', W') of unit variance per noisy layer, two per level from the deepest, which has one.
            psi: truncation; 1 is none, less is nearer to the average style.
            cutoff: truncate only that many of the style's uses; None: all.
            whole: compute pixels that no hole needs, too. The result is the same up to float rounding; sizes then do
                not depend on the holes, as compilers like it.

        Returns:
            (B, 3, H, W), mostly in [-1, 1]; outside the holes equal to `image` bit for bit.

        Raises:
            ValueError: a shape that does not fit, or a mask that is not binary.
        """
        batch, _, height, width = image.shape
        deep = DEEPEST * height // self.resolution, DEEPEST * width // self.resolution
        shapes = {
            "image": (image, (batch, 3, height, width)),
            "keep_mask": (keep_mask, (batch, 1, height, width)),
            "z": (z, (batch, self.n_z)),
            "keep1": (keep1, (batch, deep[0] * deep[1], self.width)),
            "keep2": (keep2, (batch, self.channels[DEEPEST], *deep)),
        }
        if height % self.resolution or width % self.resolution:
            raise ValueError(f"the image has {width} x {height} pixels, needed are multiples of {self.resolution}")
        for name, (tensor, shape) in shapes.items():
            if tensor.shape != shape:
                raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, needed is {shape}")
        hole = keep_mask == 0
        if not ((keep_mask == 1) | hole).all():
            raise ValueError("keep_mask has values beside 0 and 1")
        noises = self._noises(noise, deep)
        result, some = image.clone(), hole.flatten(1).any(1)
        if not some.all():  # samples without a hole are done
            image, keep_mask, z, keep1, keep2 = (each[some] for each in (image, keep_mask, z, keep1, keep2))
            noises = [n if n is None or len(n) == 1 else n[some] for n in noises]
        if len(image):
            mixing = keep1.bool(), keep2.bool()
            ws = self.styles(z, psi, cutoff)
            result[some] = self.synthesis(image, keep_mask.to(image.dtype), ws, mixing, noises, whole=whole)
        return result

    def styles(self, z: Tensor, psi: float = 1.0, cutoff: int | None = None) -> list[Tensor]:
        """(B, n_z) -> (B, n_w) for each use of the style, truncated as `forward` says."""
        style = self.mapping(z)
        near = style if psi == 1 else self.mapping.w_avg.lerp(style, psi)
        uses = 2 * int(math.log2(self.resolution)) - 6
        return [near if cutoff is None or i < cutoff else style for i in range(uses)]

    def draw(
        self, generators: Sequence[torch.Generator], height: int, width: int, *, noise: bool = False
    ) -> dict[str, Any]:
        """What is random about a filling, as arguments of `forward`, on the CPU.

        Args:
            generators: one per sample, on the CPU; each sample depends on its own alone.
            height: of the images.
            width: of the images.
            noise: draw noise, too, instead of the network's own.
        """
        deep = DEEPEST * height // self.resolution, DEEPEST * width // self.resolution
        mixed: list[tuple[int, ...]] = [(deep[0] * deep[1], self.width), (self.channels[DEEPEST], *deep)]
        samples = []
        for generator in generators:
            z = torch.randn(self.n_z, generator=generator)
            kept = [torch.rand(shape, generator=generator) < 0.5 for shape in mixed]
            grains = [torch.randn(shape, generator=generator) for shape in (self._noise_shapes(deep) if noise else ())]
            samples.append([z, *kept, *grains])
        latents, keep1, keep2, *noises = (torch.stack(each) for each in zip(*samples, strict=True))
        return {"z": latents, "keep1": keep1, "keep2": keep2} | ({"noise": noises} if noise else {})

    def _noise_shapes(self, deep: tuple[int, int]) -> list[tuple[int, ...]]:
        levels = len(self.channels)
        return [(1, deep[0] << n, deep[1] << n) for n in (0, *(level for level in range(1, levels) for _ in range(2)))]

    def _noises(self, noise: str | Sequence[Tensor], deep: tuple[int, int]) -> list[Tensor | None]:
        layers, shapes = self.synthesis.dec.layers(), self._noise_shapes(deep)
        if noise == "none":
            return [None] * len(layers)
        if noise == "const":
            if deep != (DEEPEST, DEEPEST):
                raise ValueError(f"the network's own noise fits {self.resolution} x {self.resolution} pixels only")
            return [layer.noise_const[None, None] for layer in layers]
        if isinstance(noise, str) or [tuple(n.shape[1:]) for n in noise] != shapes:
            raise ValueError(f"noise is neither 'const', nor 'none', nor tensors of the shapes (B, *) for {shapes}")
        return list(noise)
