"""StyleCLIP's networks on a device: e4e finds the code, a mapper or a direction changes it, StyleGAN2 shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generators import checkpoints
from generators.base import Params
from generators.editor import Edit
from generators.nn import pictures
from generators.nn.irse import Inverter
from generators.styleclip import directions, net, text
from generators.styleclip.method import CLIP, DIRECTIONS, ENCODER, mapper_checkpoint
from mmtt_build.masks import Image
from mmtt_build.weights import Weights


@dataclass(frozen=True, slots=True)
class _Directions:
    """What global directions need.

    Attributes:
        table: (channels, 512) as `directions.load_table` gives it.
        encoder: of texts.
        deviations: of the generator's style channels, (C,) each.
    """

    table: NDArray[np.float32]
    encoder: text.TextEncoder
    deviations: list[NDArray[np.float32]]


class Engine:
    """Networks of the method, on a device.

    Args:
        device: "cpu", "cuda:0", ...
        weights: where checkpoints are looked for.
        precision: of `pictures.PRECISIONS`.

    Raises:
        WeightsMissing, WeightsError, TermsNotAccepted: of the encoder.
    """

    def __init__(self, device: str, weights: Weights, precision: str) -> None:
        self.device, self.precision = torch.device(device), precision
        self._weights = weights
        self._inverter: Inverter = checkpoints.load(weights.find(ENCODER), device)
        self._mapper: tuple[str, Any] = ("", None)
        self._directions: _Directions | None = None

    def edit(self, faces: Sequence[Image], params: Sequence[Params]) -> list[Edit | str]:
        """Edits faces of one mapper, or all by texts; see `editor.Networks`.

        Raises:
            WeightsMissing, WeightsError, TermsNotAccepted: of a mapper, the directions or CLIP.
        """
        with pictures.computing(self.device, self.precision):
            w = self._inverter.invert(pictures.to_tensor(faces, self.device))
            generator = self._inverter.decoder
            styles = generator.styles(w)
            facts: list[dict[str, Any] | str] = [{} for _ in faces]
            if "mapper" in params[0]:
                strength = w.new_tensor([one["strength"] for one in params])[:, None, None]
                edited = generator.styles(net.edit(self._mapper_of(params[0]["mapper"]), w, strength))
            else:
                edited = self._directed(styles, params, facts)
            shown = [pictures.to_images(generator.synthesize(each)) for each in (styles, edited)]
        return [_edit(*each) for each in zip(*shown, facts, strict=True)]

    def _mapper_of(self, name: str) -> Any:
        """A mapper, loaded; its file also holds the generator that it was trained with, which equals the encoder's."""
        if self._mapper[0] != name:
            self._mapper = ("", None)
            whole = checkpoints.load(self._weights.find(mapper_checkpoint(name)), "cpu")
            self._mapper = (name, whole.mapper.to(self.device))
        return self._mapper[1]

    def _directed(
        self, styles: Sequence[Tensor], params: Sequence[Params], facts: list[dict[str, Any] | str]
    ) -> list[Tensor]:
        """Styles moved as each row's texts say, how many channels that moved in `facts`."""
        of = self._directions or self._load_directions()
        edited = [style.clone() for style in styles]
        for i, row in enumerate(params):
            relevant = directions.relevance(of.table, text.change(of.encoder, *row["text"]))
            try:
                moved, count = directions.boundary(relevant, row["beta"], of.deviations)
            except directions.NoChannelError as error:
                facts[i] = str(error)
                continue
            facts[i] = {"channels": count}
            for style, step in zip(edited, moved, strict=True):
                style[i] += row["strength"] * torch.from_numpy(step).to(style.device)
        return edited

    def _load_directions(self) -> _Directions:
        deviations = [each.cpu().numpy() for each in net.deviations(self._inverter.decoder)]
        self._directions = _Directions(
            directions.load_table(self._weights.find(DIRECTIONS)),
            text.TextEncoder(self._weights.find(CLIP), str(self.device)),
            deviations,
        )
        return self._directions


def _edit(inversion: Image | None, edited: Image | None, facts: dict[str, Any] | str) -> Edit | str:
    if isinstance(facts, str):
        return facts
    if inversion is None or edited is None:
        return pictures.NOT_FINITE
    return Edit(inversion, edited, facts)
