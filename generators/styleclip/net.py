"""StyleCLIP's networks: latent mappers, which turn a face's W+ code into the change that an attribute asks for.

Beside them what global directions need to know of the generator: how much each of its style channels varies.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from generators.nn import stylegan2
from generators.nn.ops import EqualLinear

STEP = 0.1
"""What the mapper's answer is multiplied with, in training and in use; it is in the scripts, not in the files."""

WIDTH = 512
BATCH = 10_000
LEVELS = {"course_mapping": (0, 4), "medium_mapping": (4, 8), "fine_mapping": (8, 18)}
"""First and last W+ entry (exclusive) of each level; "course" is how the official files spell it."""


class Mapper(nn.Module):
    """Four layers over some entries of a W+ code: (B, L, C) -> (B, L, C).

    The first step normalises over the L entries rather than over the C channels, as upstream does; the released weights
    were trained so.

    Args:
        width: C.
    """

    def __init__(self, *, width: int = WIDTH) -> None:
        super().__init__()
        layers = [EqualLinear(width, width, lr=0.01, activate=True) for _ in range(4)]
        self.mapping = nn.Sequential(stylegan2.PixelNorm(), *layers)

    def forward(self, w: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C), in float32 also under autocast."""
        with torch.autocast(w.device.type, enabled=False):
            change: Tensor = self.mapping(w.float())
        return change


class LevelsMapper(nn.Module):
    """One `Mapper` for each level of detail that changes: (B, 18, 512) -> (B, 18, 512).

    Args:
        levels: keys of `LEVELS`; the others get zeros, and have no tensors.
    """

    def __init__(self, *, levels: Iterable[str] = tuple(LEVELS)) -> None:
        super().__init__()
        wanted = set(levels)
        if not wanted or wanted - set(LEVELS):
            raise ValueError(f"levels are some of {', '.join(LEVELS)}, got {', '.join(sorted(wanted)) or 'none'}")
        for name in LEVELS:
            if name in wanted:
                self.add_module(name, Mapper())

    def forward(self, w: Tensor) -> Tensor:
        """(B, 18, 512) -> (B, 18, 512)."""
        level = dict(self.named_children())
        parts = ((name, w[:, first:last]) for name, (first, last) in LEVELS.items())
        return torch.cat([level[name](part) if name in level else torch.zeros_like(part) for name, part in parts], 1)


class SingleMapper(nn.Module):
    """One `Mapper` over the whole code: (B, L, 512) -> (B, L, 512). No released file has one."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = Mapper()

    def forward(self, w: Tensor) -> Tensor:
        """(B, L, 512) -> (B, L, 512)."""
        change: Tensor = self.mapping(w)
        return change


def mapper_of(names: Iterable[str]) -> LevelsMapper | SingleMapper:
    """The mapper that tensors of these names belong to ("course_mapping.mapping.1.weight", ...), untrained."""
    first = {name.partition(".")[0] for name in names}
    if "mapping" in first:
        return SingleMapper()
    return LevelsMapper(levels=[name for name in LEVELS if name in first] or LEVELS)


class Checkpoint(nn.Module):
    """What a published mapper file holds: the mapper, and the generator that it was trained with."""

    def __init__(self, mapper: LevelsMapper | SingleMapper, decoder: stylegan2.Generator) -> None:
        super().__init__()
        self.mapper, self.decoder = mapper, decoder


def checkpoint_of(names: Iterable[str]) -> Checkpoint:
    """The networks of a mapper file with tensors of these names ("mapper...", "decoder..."), untrained.

    Which levels a file has shows in its names alone; the options that it also stores may say otherwise.
    """
    own = (name.removeprefix("mapper.") for name in names if name.startswith("mapper."))
    return Checkpoint(mapper_of(own), stylegan2.build())


def edit(mapper: nn.Module, w: Tensor, strength: float | Tensor = STEP) -> Tensor:
    """The edited code.

    Args:
        mapper: of the attribute.
        w: (B, L, 512) W+ codes, the average included.
        strength: number or (B, 1, 1); upstream knows `STEP` only.

    Returns:
        (B, L, 512).
    """
    edited: Tensor = w + strength * mapper(w)
    return edited


@torch.inference_mode()
def deviations(generator: stylegan2.Generator, *, psi: float = 0.7, count: int = 100_000) -> list[Tensor]:
    """How much each style channel varies over the generator's faces: the unit of global directions.

    A channel is linear in w, so that the covariance of w gives the deviations of all channels; drawing them takes a
    hundred times the work. Count, seed and truncation are those of StyleCLIP's statistics (`S_mean_std`).

    Args:
        generator: with its mapping network.
        psi: truncation of w.
        count: of faces.

    Returns:
        One vector (C,) float32 for each style vector, on the generator's device.
    """
    device = generator.conv1.conv.weight.device
    draw = np.random.RandomState(5)
    width = generator.conv1.conv.modulation.weight.shape[1]
    total, squares = (torch.zeros(shape, dtype=torch.float64, device=device) for shape in ((width,), (width, width)))
    for start in range(0, count, BATCH):
        z = draw.standard_normal((min(BATCH, count - start), width)).astype(np.float32)
        w = generator.map(torch.from_numpy(z).to(device)).double()
        total += w.sum(0)
        squares += w.t() @ w
    mean = total / count
    covariance = squares / count - torch.outer(mean, mean)
    found = []
    for _, layer in generator.modulations():
        weight = layer.weight.double() * layer.gain
        variance = ((weight @ covariance) * weight).sum(1).clamp_min(0)
        found.append((psi * variance.sqrt()).float())
    return found
