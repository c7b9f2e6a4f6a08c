"""HFGI's networks on a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from generators import checkpoints
from generators.base import Params
from generators.editor import Edit
from generators.hfgi.method import DIRECTIONS, NETWORKS
from generators.hfgi.net import Directions, Hfgi
from generators.nn import pictures
from mmtt_build.masks import Image
from mmtt_build.weights import Weights


class Engine:
    """Networks of the method, on a device.

    Args:
        device: "cpu", "cuda:0", ...
        weights: where checkpoints are looked for.
        precision: of `pictures.PRECISIONS`.

    Raises:
        WeightsMissing, WeightsError, TermsNotAccepted: of a checkpoint.
    """

    def __init__(self, device: str, weights: Weights, precision: str) -> None:
        self.device, self.precision = torch.device(device), precision
        self._networks: Hfgi = checkpoints.load(weights.find(NETWORKS), device)
        self._directions: Directions = checkpoints.load(weights.find(DIRECTIONS), device)

    def edit(self, faces: Sequence[Image], params: Sequence[Params]) -> list[Edit | str]:
        """Edits faces; see `editor.Networks`. Rows of different edits share a batch."""

        def move(w: Tensor) -> Tensor:
            return torch.cat([self._moved(w[i : i + 1], row) for i, row in enumerate(params)])

        with pictures.computing(self.device, self.precision):
            photos = pictures.to_tensor(faces, self.device)
            shown = [pictures.to_images(made) for made in self._networks.pair(photos, move)]
        return [
            pictures.NOT_FINITE if inversion is None or edited is None else Edit(inversion, edited, {})
            for inversion, edited in zip(*shown, strict=True)
        ]

    def _moved(self, w: Tensor, row: Params) -> Tensor:
        if "direction" in row:
            return self._directions.along(w, row["direction"], row["strength"])
        first, end = row["layers"]
        return self._directions.towards(w, row["component"], first, end, row["strength"])
