"""The contract between a forgery method and the stage that runs it.

A method draws its parameters in `plan` (pure, from a seeded generator and facts about the faces) and
turns images into forgeries in `forge` (no files, no global seed). The stage does everything else:
reading, checking the mask contract, encoding, storing, resuming.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np

from mmtt_build.masks import Image, Mask
from mmtt_build.parts import LabelMap
from mmtt_build.records import Pristine
from mmtt_build.weights import Weights

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
        altered: whether `image` is an earlier forgery, so that its parts may lie elsewhere than `labels` says.
    """

    id: str
    seed: int
    params: Params
    image: Image
    labels: LabelMap
    source_image: Image | None = None
    source_labels: LabelMap | None = None
    altered: bool = False

    def rng(self) -> np.random.Generator:
        """A fresh generator seeded for this row."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True, slots=True)
class Forged:
    """What a method made.

    Attributes:
        image: (512, 512, 3) uint8 RGB.
        mask: (512, 512) bool, what the process defined.
        facts: JSON-able facts known only now that shaped the image or tell how well it worked, such as the precision or
            the likeness to the donor; "checkpoints" maps names of the catalogue to identity and licence. They go into
            the row beside the planned parameters.
        labels: (512, 512) uint8 part map of the result, where the process made one: parts of a swapped face lie where
            the donor's did. None where the base's map still says which part is forged.
        steps: what the result went through, by title, in order; only where `Method.keep_steps` asks for it.
    """

    image: Image
    mask: Mask
    facts: Mapping[str, Any] = field(default_factory=dict)
    labels: LabelMap | None = None
    steps: Mapping[str, Image] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a method could not make a forgery of this job; kept as a row.

    Attributes:
        reason: in words.
        steps: as far as it came, see `Forged`.
    """

    reason: str
    steps: Mapping[str, Image] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NoOptions:
    """Options of a method that has none."""


class Method(ABC):
    """A way to forge. One instance plans; one per process and device forges.

    Attributes:
        name: as in the recipe and in the tables.
        family: the kind of forgery.
        Options: frozen dataclass of what `[methods.<name>]` of the recipe may say, with defaults that work. Its
            `__post_init__` raises ValueError("key: what is wrong") for values that make no sense.
        neural: whether it runs on a device (`--device`), in one process per device, while a pool decodes and
            encodes. Others run on all cores, an image at a time.
        needs_source: whether a donor is drawn for each row.
        batch_size: how many jobs `forge` likes to get at once.
        mask_origin: "process" where the mask is what the process itself changed, "composite" where the method repaints
            the whole frame and the stage's mask decides what of it is kept.
        changes_geometry: whether parts move, so that the part map no longer fits the result.
        finds_parts: whether it looks for the parts in the picture itself, so that it can start from such a result.
        keep_steps: set before `forge` by a run that wants to see how forgeries come about. A method that has
            intermediate pictures then returns them, each (H, W, 3) uint8 RGB or (H, W) uint8 grey.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    Options: ClassVar[type] = NoOptions
    neural: ClassVar[bool] = False
    needs_source: ClassVar[bool] = False
    batch_size: int = 1
    mask_origin: ClassVar[str] = "process"
    changes_geometry: ClassVar[bool] = False
    finds_parts: ClassVar[bool] = False
    keep_steps: bool = False

    def __init__(self, options: Any = None) -> None:
        self.options = self.Options() if options is None else options

    @abstractmethod
    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params | None:
        """Draws the parameters of one forgery from facts alone, or None if this base cannot carry it."""

    def weights(self, params: Params) -> Sequence[str]:
        """Names of the catalogue's checkpoints that forging with these parameters needs; pure."""
        return ()

    def batch_key(self, params: Params) -> str:
        """Rows of one key may share a batch, and rows of one key come one after another; pure."""
        return ""

    def prepare(self, device: str, weights: Weights) -> None:  # noqa: B027 - weights-free methods need nothing
        """Called once per process, before `forge`: remembers or loads what is needed on a device ("cpu", "cuda:0").

        Raises:
            WeightsMissing, WeightsError, TermsNotAccepted: of a checkpoint.
        """

    def begin(self, job: Job) -> Any:
        """What `forge` gets of a job. A neural method prepares pictures here: threads do it while the device works."""
        return job

    @abstractmethod
    def forge(self, batch: Sequence[Any]) -> list[Any]:
        """Works on what `begin` made of jobs, in order; all jobs of a batch have one `batch_key`.

        It may be called again for a part of a batch for which the memory did not suffice, so it leaves that as it is.

        Returns:
            `Forged` or `Rejection` for each, or what `end` makes one of.
        """

    def end(self, made: Any) -> Forged | Rejection:
        """What becomes of an item of `forge`'s. A neural method blends here: threads do it while the device works."""
        outcome: Forged | Rejection = made
        return outcome
