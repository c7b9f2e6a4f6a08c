"""StyleCLIP's latent mappers: networks that turn a face's W+ code into the change that an attribute asks for."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from generators.nn.ops import EqualLinear, pixel_norm

STEP = 0.1
"""What the mapper's answer is multiplied with, in training and in use; it is in the scripts, not in the files."""

WIDTH = 512
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
        self.mapping = nn.Sequential(PixelNorm(), *layers)

    def forward(self, w: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        change: Tensor = self.mapping(w)
        return change


class PixelNorm(nn.Module):
    """`pixel_norm` as the first layer, so that the others are numbered from 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C), over L."""
        return pixel_norm(x)


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
