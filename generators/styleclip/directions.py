"""Global directions: which style channels of StyleGAN2 a change of text asks for, and how far each is moved.

`fs3.npy`, the table of StyleCLIP's authors, tells for every channel of the convolutions how CLIP's image features turn
when it is moved. Its product with a change of text features says which channels matter; those below a threshold (beta)
stay. Style vectors ("S") are the inputs of all modulations in forward order; those of the RGB layers are not moved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmtt_build.errors import WeightsError
from mmtt_build.weights import Found

Floats = NDArray[np.float32]

BETAS = range(10, 30)
"""Hundredths among which StyleCLIP's interface looks for a threshold by itself."""
ENOUGH_CHANNELS = 20
"""More channels than this are enough for it, of a generator of faces."""


TABLE_LAYERS = 11
"""Layers of a table made by the script that StyleCLIP's authors publish: those up to 128x128."""


class NoChannelError(ValueError):
    """No channel reaches the threshold; upstream then divides by nothing and renders NaN."""


def load_table(found: Found) -> Floats:
    """The table `fs3.npy`, (channels, 512) float32: a row per channel of the convolutions, of length 1.

    Raises:
        WeightsError: it holds numbers that are not finite.
    """
    table = np.load(found.path, allow_pickle=False).astype(np.float32)
    if not np.isfinite(table).all():
        raise WeightsError(f"{found.path} holds numbers that are not finite", "get the file again")
    return np.asarray(table)


def relevance(table: Floats, change: Floats) -> Floats:
    """How much each channel turns CLIP's view the way the text does, (channels,) float32 in [-1, 1].

    Args:
        table: (channels, D) as `load_table` gives it.
        change: (D,) of length 1, see `text.change`.

    Raises:
        WeightsError: table and text features are of different CLIP models.
    """
    if table.shape[1] != len(change):
        raise WeightsError(
            f"the directions have {table.shape[1]} numbers a channel, CLIP's text features {len(change)}",
            "both come from CLIP ViT-B/32, which has 512",
        )
    return np.asarray(table @ change, np.float32)


def automatic_beta(relevant: Floats) -> float:
    """The threshold that StyleCLIP's interface takes by itself: the largest that keeps enough channels, else 0.1."""
    strengths = np.abs(relevant)
    kept = (step / 100 for step in reversed(BETAS) if np.count_nonzero(strengths >= step / 100) > ENOUGH_CHANNELS)
    return next(kept, BETAS[0] / 100)


def boundary(relevant: Floats, beta: float, deviations: Sequence[Floats]) -> tuple[list[Floats], int]:
    """The direction of an edit in style space: S + alpha * boundary is the edited S.

    Args:
        relevant: (channels,) as `relevance` gives it, in forward order; where the last layers are missing, as in
            tables made up to 128x128, those are not moved.
        beta: channels of which less is relevant stay.
        deviations: standard deviation of each channel (C,), for each style vector; 26 of them at 1024 pixels.

    Returns:
        One vector (C,) float32 for each style vector, and how many channels move. The strongest channel moves by one
        deviation.

    Raises:
        NoChannelError: none reaches beta.
        WeightsError: the table is of another generator.
    """
    convs = [i for i in range(len(deviations)) if i % 3 != 1]  # the second of each three is an RGB layer's
    ends = np.cumsum([len(deviations[i]) for i in convs])
    allowed = dict.fromkeys([int(ends[-1]), *ends[TABLE_LAYERS - 1 : TABLE_LAYERS].tolist()])
    if len(relevant) not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise WeightsError(
            f"the directions have {len(relevant)} channels, the generator's convolutions {wanted}",
            "use fs3.npy with the generator of faces at 1024 pixels",
        )
    strongest = np.abs(relevant).max()
    kept = np.abs(relevant) >= beta
    if not kept.any():
        raise NoChannelError(f"no channel reaches beta {beta:g}: the strongest has {strongest:.3f}")
    scaled = np.zeros(ends[-1], np.float32)
    scaled[: len(relevant)] = np.where(kept, relevant / strongest, 0)
    moved: list[Floats] = [np.zeros(len(each), np.float32) for each in deviations]
    for i, values in zip(convs, np.split(scaled, ends[:-1]), strict=True):
        moved[i] = values * deviations[i]
    return moved, int(np.count_nonzero(kept))
