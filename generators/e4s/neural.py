"""E4S's networks on a device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from generators import checkpoints
from generators.e4s import regions
from generators.e4s.method import NETWORK, REENACTMENT
from generators.faces.enhancer import Enhanced, Enhancer
from generators.faces.parser import Parser, prepare_e4s
from generators.nn import pictures
from generators.nn.facevid2vid import FaceVid2Vid, shrink
from generators.nn.net3 import Net3
from mmtt_build import parts
from mmtt_build.masks import Image
from mmtt_build.parts import LabelMap
from mmtt_build.weights import Weights

Face = tuple[Image, LabelMap]
"""(1024, 1024, 3) uint8 RGB and its region map (512, 512) uint8."""


class Engine:
    """Networks of the method, on a device; those that only some rows need are loaded with the first of them.

    Args:
        device: "cpu", "cuda:0", ...
        weights: where checkpoints are looked for.
        precision: of `pictures.PRECISIONS`; parts are always found, and style vectors always taken, in float32.

    Raises:
        WeightsMissing, WeightsError, TermsNotAccepted: of E4S's own network.
    """

    def __init__(self, device: str, weights: Weights, precision: str) -> None:
        self.device, self.precision, self._weights = torch.device(device), precision, weights
        self._net3: Net3 = checkpoints.load(weights.find(NETWORK), device)

    @cached_property
    def _reenactment(self) -> FaceVid2Vid:
        network: FaceVid2Vid = checkpoints.load(self._weights.find(REENACTMENT), str(self.device))
        return network

    @cached_property
    def _enhancer(self) -> Enhancer:
        return Enhancer(str(self.device), self._weights, self.precision)

    @cached_property
    def _parser(self) -> Parser:
        return Parser(str(self.device), self._weights)

    def reenact(self, donors: Sequence[Image], targets: Sequence[Image]) -> list[Enhanced | str]:
        """Donors in the pose and with the expression of their targets, sharpened.

        Args:
            donors: (1024, 1024, 3) uint8 RGB each.
            targets: likewise.

        Returns:
            One of 1024 px for each, or why there is none.
        """
        if not donors:
            return []
        with pictures.computing(self.device, self.precision):
            small = [shrink(faces).to(self.device) for faces in (donors, targets)]
            moved = self._reenactment(*small).float()
            posed = pictures.to_images(moved * 2 - 1, truncate=True)
        made: list[Enhanced | str] = [pictures.NOT_FINITE] * len(posed)
        whole = {i: image for i, image in enumerate(posed) if image is not None}
        for i, answer in zip(whole, self._enhancer.enhance([*whole.values()]), strict=True):
            made[i] = answer
        return made

    def parse(self, images: Sequence[Image]) -> list[LabelMap]:
        """Part maps as E4S reads them: (1024, 1024, 3) uint8 RGB each -> (512, 512), indices of `parts.CLASSES`."""
        maps = []
        for image in images:
            pixels = pictures.to_tensor([image], self.device) * 0.5 + 0.5
            maps.append(parts.reorder(self._parser.labels(prepare_e4s(pixels))[0], parts.BISENET_CLASSES))
        return maps

    def generate(
        self,
        donors: Sequence[Face],
        targets: Sequence[Face],
        shapes: Sequence[LabelMap],
        seeds: Sequence[int] | None,
        *,
        mix_neck: bool = False,
    ) -> list[Image | str]:
        """Faces of given shapes in the donors' style.

        Args:
            donors: faces, where regions that are swapped have their style from.
            targets: faces, where the others have it from.
            shapes: (512, 512) uint8 region maps of what is generated.
            seeds: of the noise, one for each; None takes the noise of the checkpoint.
            mix_neck: see `regions.swap_styles`.

        Returns:
            (1024, 1024, 3) uint8 RGB for each, or why there is none.
        """
        if not shapes:
            return []
        with pictures.computing(self.device, self.precision):
            donor, target = (self._styles(faces) for faces in (donors, targets))
            codes = self._net3.style_codes(regions.swap_styles(donor, target, mix_neck))
            noise = None
            if seeds is not None:
                noise = self._net3.draw_noise([torch.Generator().manual_seed(seed) for seed in seeds])
            made = pictures.to_images(self._net3.generate(codes, self._tensor(shapes), noise), truncate=True)
        return [pictures.NOT_FINITE if image is None else image for image in made]

    def _styles(self, faces: Sequence[Face]) -> Tensor:
        images, maps = zip(*faces, strict=True)
        return self._net3.style_vectors(pictures.to_tensor(images, self.device), self._tensor(maps))

    def _tensor(self, maps: Sequence[LabelMap]) -> Tensor:
        return torch.from_numpy(np.stack(maps)).to(self.device)
