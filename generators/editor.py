"""What the face editors share: an attribute is drawn, the face goes through a generator, the edit into the photo."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import cv2
import numpy as np

from generators import attributes, editing
from generators.base import Family, Forged, Job, Method, Params, Rejection
from generators.editing import Frame
from generators.ffhq_align import AlignmentError
from mmtt_build.masks import Image
from mmtt_build.parts import LabelMap
from mmtt_build.records import SIZE, Pristine
from mmtt_build.weights import Weights

if TYPE_CHECKING:
    from generators.faces.parser import Parser

PARSER = "bisenet"
"""Name of the checkpoint that finds the parts in what was edited."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `[methods.<name>]` may say.

    Attributes:
        attributes: names of those that are drawn from; [] takes all but those that imitate a named person.
        table: attributes of your own, relative to the recipe, in the form of `generators/attributes.toml`, which is the
            default.
        precision: "fp32", or "fp16" or "bf16" where numbers may be rounded more for speed on a GPU.
        batch_size: faces at once.
    """

    attributes: tuple[str, ...] = ()
    table: Path | None = None
    precision: str = "fp32"
    batch_size: int = 4

    def __post_init__(self) -> None:
        check_run(self.precision, self.batch_size)


def check_run(precision: str, batch_size: int) -> None:
    """Checks two options that all networks have.

    Raises:
        ValueError: one makes no sense; the text begins with its key.
    """
    if precision not in ("fp32", "fp16", "bf16"):
        raise ValueError(f"precision: is {precision!r}; fp32, fp16 or bf16")
    if not 1 <= batch_size <= 256:
        raise ValueError(f"batch_size: is {batch_size}; 1 to 256")


class Edit(NamedTuple):
    """What a generator makes of a face.

    Attributes:
        inversion: (n, n, 3) uint8 RGB, the face as it can show it.
        edited: (n, n, 3) uint8 RGB, the same with the attribute.
        facts: of this edit, for the row.
    """

    inversion: Image
    edited: Image
    facts: Mapping[str, Any]


class Networks(Protocol):
    """The networks of a method, on a device."""

    def edit(self, faces: Sequence[Image], params: Sequence[Params]) -> list[Edit | str]:
        """Edits aligned faces (256, 256, 3) uint8 RGB of one `batch_key`; a text says why one cannot be edited."""


class FaceEditor(Method):
    """An attribute of a face changed by a generator; `editing` brings the change into the photo."""

    family = Family.ATTRIBUTE_EDIT
    Options = Options
    neural = True
    mask_origin = "composite"
    changes_geometry = True
    finds_parts = True

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        own: Options = self.options
        self.batch_size = own.batch_size
        self._attributes = attributes.chosen(self.name, own.attributes, own.table)
        self._known: dict[str, dict[str, str]] = {}

    @abstractmethod
    def checkpoints(self, params: Params) -> Sequence[str]:
        """Names of the catalogue's checkpoints that an edit needs, the parser's aside; pure."""

    @abstractmethod
    def networks(self, device: str, weights: Weights) -> Networks:
        """Loads what all edits need."""

    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params | None:
        """Draws the attribute and its strength, and notes where the face lies."""
        try:
            corners = Frame.of(base.points).corners
        except AlignmentError:
            return None
        drawn = attributes.draw(rng, self._attributes, base.part_areas)
        if drawn is None:
            return None
        return {**drawn, "corners": None if corners is None else np.round(corners, 3).tolist()}

    def weights(self, params: Params) -> Sequence[str]:
        """The method's networks, and the parser."""
        return [*self.checkpoints(params), PARSER]

    def prepare(self, device: str, weights: Weights) -> None:
        """Loads the networks.

        Raises:
            ModuleNotFoundError: the extra `[models]` is not installed.
            WeightsMissing, WeightsError, TermsNotAccepted: of a checkpoint.
        """
        from generators.faces.parser import Parser

        self._weights = weights
        self._networks: Networks = self.networks(device, weights)
        self._parser: Parser = Parser(device, weights)

    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        """Edits the faces of a batch in one call, and brings each edit into its photo.

        Raises:
            WeightsMissing, WeightsError, TermsNotAccepted: of a checkpoint.
            torch.OutOfMemoryError: the batch is too large for the device.
        """
        made: dict[int, Forged | Rejection] = {}
        frames = [_frame(job.params) for job in batch]
        faces: dict[int, Image] = {}
        for i, (job, frame) in enumerate(zip(batch, frames, strict=True)):
            try:
                faces[i] = frame.cut_out(job.image)
            except AlignmentError as error:
                made[i] = Rejection(str(error))
        edits: dict[int, Edit] = {}
        answers = self._networks.edit([*faces.values()], [batch[i].params for i in faces]) if faces else []
        for i, answer in zip(faces, answers, strict=True):
            if isinstance(answer, str):
                made[i] = Rejection(answer)
            else:
                edits[i] = answer
        # One call of the parser: what was edited, and earlier forgeries, whose parts may have moved.
        pictures = {("after", i): _at_size(edit.edited) for i, edit in edits.items()}
        pictures |= {("before", i): frames[i].cut_out(batch[i].image, SIZE) for i in edits if batch[i].altered}
        found = dict(zip(pictures, self._parser.parse([*pictures.values()]), strict=True))
        for i, edit in edits.items():
            maps = {when: frames[i].labels_back(found[when, i]) for when in ("before", "after") if (when, i) in found}
            made[i] = self._compose(batch[i], frames[i], edit, {"before": batch[i].labels} | maps)
        return [made[i] for i in range(len(batch))]

    def _compose(self, job: Job, frame: Frame, edit: Edit, maps: Mapping[str, LabelMap]) -> Forged | Rejection:
        made = editing.compose(
            job.image,
            frame.back(edit.inversion),
            frame.back(edit.edited),
            maps["before"],
            maps["after"],
            job.params["parts"],
            job.rng(),
            frame.inside(),
        )
        if isinstance(made, Rejection):
            return made
        return replace(made, facts={**self._run_facts(job.params), **edit.facts, **made.facts})

    def _run_facts(self, params: Params) -> dict[str, Any]:
        for name in self.weights(params):
            if name not in self._known:
                self._known[name] = self._weights.find(name).fact
        return {
            "checkpoints": {name: self._known[name] for name in self.weights(params)},
            "precision": self.options.precision,
        }


def _frame(params: Params) -> Frame:
    corners = params["corners"]
    return Frame(None if corners is None else np.array(corners, np.float64))


def _at_size(picture: Image) -> Image:
    """A generator's picture as the parser takes it."""
    return np.asarray(cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8)
