"""The contract between a forgery method and the stage that runs it.

A method draws its parameters in `plan` (pure, from a seeded generator and facts about the faces) and
turns images into forgeries in `forge` (no files, no global seed). The stage does everything else:
reading, checking the mask contract, encoding, storing, resuming.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmtt_build.masks import Image, Mask
from mmtt_build.parts import LabelMap
from mmtt_build.records import Pristine

Params = Mapping[str, Any]
"""JSON-able parameters of one forgery: all that shaped it beside its inputs and its seed."""


class Family(StrEnum):
    """What kind of forgery a method makes."""

    FACE_SWAP = "face-swap"
    ATTRIBUTE_EDIT = "attribute-edit"
    INPAINT_TRANSFORMER = "inpaint-transformer"
    INPAINT_DIFFUSION = "inpaint-diffusion"
    INPAINT_CLASSICAL = "inpaint-classical"


@dataclass(frozen=True, slots=True)
class Job:
    """One forgery to make.

    Attributes:
        id: forgery id.
        seed: every random draw of the forging comes from `numpy.random.default_rng(seed)`.
        params: what `Method.plan` returned for this row.
        image: (512, 512, 3) uint8 RGB, what is altered: the pristine base, or an earlier forgery of it.
        labels: (512, 512) uint8 part map of the base, indices of `parts.CLASSES`.
        source_image: (512, 512, 3) uint8 RGB of the donor, or None where the method needs none.
        source_labels: (512, 512) uint8 part map of the donor, or None.
    """

    id: str
    seed: int
    params: Params
    image: Image
    labels: LabelMap
    source_image: Image | None = None
    source_labels: LabelMap | None = None

    def rng(self) -> np.random.Generator:
        """A fresh generator seeded for this row."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True, slots=True)
class Forged:
    """What a method made: image (512, 512, 3) uint8 RGB and the mask (512, 512) bool its process defined."""

    image: Image
    mask: Mask


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a method could not make a forgery of this job; kept as a row."""

    reason: str


class Method(ABC):
    """A way to forge. Subclasses are created without arguments, once per process.

    Attributes:
        name: as in the recipe and in the tables.
        family: the kind of forgery.
        needs_source: whether a donor is drawn for each row.
        batch_size: how many jobs `forge` likes to get at once.
        mask_origin: "process" where the mask is what the process itself changed, "composite" where the method repaints
            the whole frame and the stage's mask decides what of it is kept.
        changes_geometry: whether parts move, so that the part map no longer fits the result.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    needs_source: ClassVar[bool] = False
    batch_size: ClassVar[int] = 1
    mask_origin: ClassVar[str] = "process"
    changes_geometry: ClassVar[bool] = False

    @abstractmethod
    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params | None:
        """Draws the parameters of one forgery from facts alone, or None if this base cannot carry it."""

    def prepare(self, device: str, weights: Path | None) -> None:  # noqa: B027 - weights-free methods need nothing
        """Loads what `forge` needs, once per process and device ("cpu", "cuda:0")."""

    @abstractmethod
    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        """Makes one forgery per job, in order."""
