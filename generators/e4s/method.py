"""`e4s`: a donor's face generated in the target's pose, region by region, and blended in. See card.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from generators import classical, ffhq_align
from generators.base import Family, Forged, Job, Method, Params, Rejection
from generators.classical import Pose
from generators.e4s import composite, crop, regions
from generators.editing import Frame
from generators.editor import PARSER, check_run
from generators.faces.enhancer import Enhancer
from generators.faces.likeness import Judge
from generators.ffhq_align import AlignmentError, Points
from mmtt_build import parts
from mmtt_build.masks import Image, Mask
from mmtt_build.parts import LabelMap
from mmtt_build.records import SIZE, Pristine
from mmtt_build.weights import Weights

if TYPE_CHECKING:
    from generators.e4s.neural import Engine

NETWORK, REENACTMENT = "e4s", "facevid2vid"
"""Names of checkpoints in the catalogue."""

CHOICES = {
    "reenact": ("auto", "always", "never"),
    "parser": ("maps", PARSER),
    "blending": ("alpha", "multiband"),
    "noise": ("random", "const"),
    "crop": ("ffhq", "e4s"),
}
"""What the options that are names may be; the first is the default."""

FRONTAL_DEG = 10.0
"""Largest yaw and pitch, in degrees of the face analysis, of a head that counts as nearly frontal."""
FRONTAL_YAW, FRONTAL_PITCH = 0.08, (0.27, 0.5)
"""The same by `classical.Pose`, without an analysis.

A nose tip lies some 0.45 eye distances before the eyes, so that 0.08 is 10 degrees. The middle of the pitches is that
of six photographs of upright heads, 0.30 to 0.45."""

MAX_TURN_DEG = 35.0
"""Largest difference of yaw or pitch, in degrees, that reenactment is trusted with; by `Pose.gap` it is 0.3.

Beyond it one sees sides of the face that the donor's picture does not show."""
MAX_GAP = 0.3
MAX_GAP_UNDRIVEN = 0.12
"""Largest `Pose.gap` where the donor is not reenacted: shapes of features then come from another view of a head."""

LEAST = {"eyes": 60, "brows": 60, "nose": 300, "lips": 120, "skin": 8000}
"""Fewest pixels, at 512x512, of what must be seen of a donor's face: a fifth of what an aligned face has."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `[methods.e4s]` may say.

    Attributes:
        reenact: whether the donor is first given the target's pose and expression: "auto" unless both heads are nearly
            frontal, "always", or "never", which needs no networks but E4S's own.
        parser: where the parts of target and donor are from, "maps" that the workspace has, or "bisenet". A reenacted
            donor is parsed in any case.
        blending: "alpha", a seam of 10 px, or "multiband", in which colours meet over the whole face.
        hair_first: whether the donor's face lies over the target's hair, the authors' default; false keeps a fringe.
        mix_neck: average the style of the necks instead of taking the donor's.
        noise: of the generator, "random" by the row's seed, the authors' default, or "const", its own.
        crop: how a face that is not aligned is cut out, as for "ffhq", or as "e4s" itself does: black beyond the photo.
        check: reject a swap that the pack of the face analysis does not take for the donor; without effect on faces
            that no pack of the catalogue has analysed.
        precision: "fp32", or "fp16" or "bf16" where numbers may be rounded more for speed on a GPU.
        batch_size: pairs at once.
    """

    reenact: str = "auto"
    parser: str = "maps"
    blending: str = "alpha"
    hair_first: bool = True
    mix_neck: bool = False
    noise: str = "random"
    crop: str = "ffhq"
    check: bool = True
    precision: str = "fp32"
    batch_size: int = 4

    def __post_init__(self) -> None:
        for key, choices in CHOICES.items():
            if getattr(self, key) not in choices:
                raise ValueError(f"{key}: is {getattr(self, key)!r}; {', '.join(choices)}")
        check_run(self.precision, self.batch_size)


class E4S(Method):
    """The donor's face, shape and texture, in the target's pose, hair and background."""

    name = "e4s"
    family = Family.FACE_SWAP
    Options = Options
    neural = True
    needs_source = True
    changes_geometry = True

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.batch_size = self.options.batch_size

    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params | None:
        """Takes the pair if the donor's face is complete and both heads are turned alike; nothing is drawn."""
        own: Options = self.options
        complete = (classical.has_eyes, classical.has_brows, classical.has_nose, classical.has_lips)
        if source is None or not all(has(source) for has in complete) or not classical.has_lips(base):
            return None
        target, donor = _Head.of(base), _Head.of(source)
        if target is None or donor is None:
            return None
        driven = own.reenact == "always" or (own.reenact == "auto" and not (target.frontal and donor.frontal))
        if not target.near(donor, driven=driven):
            return None
        try:
            corners = [Frame.of(face.points).corners for face in (base, source)]
        except AlignmentError:
            return None
        return {
            "corners": [None if quad is None else np.round(quad, 3).tolist() for quad in corners],
            "driven": driven,
            **{key: getattr(own, key) for key in ("parser", "blending", "hair_first", "mix_neck", "noise", "crop")},
            "pack": base.pack if own.check and base.pack == source.pack else "",
        }

    def weights(self, params: Params) -> Sequence[str]:
        """E4S's network, those that reenact a donor, a parser where maps do not do, the pack that checks."""
        needed = [NETWORK]
        if params["driven"]:
            needed += [REENACTMENT, *Enhancer.checkpoints]
        if params["driven"] or params["parser"] == PARSER:
            needed.append(PARSER)
        return [*needed, params["pack"]] if params["pack"] else needed

    def batch_key(self, params: Params) -> str:
        """Rows that run the same networks in the same way."""
        return " ".join(str(params[key]) for key in ("driven", "parser", "mix_neck", "noise", "pack"))

    def prepare(self, device: str, weights: Weights) -> None:
        """Loads E4S's network; what only some rows need is loaded with the first of them.

        Raises:
            ModuleNotFoundError: the extra `[models]` is not installed.
            WeightsMissing, WeightsError, TermsNotAccepted: of a checkpoint.
        """
        from generators.e4s.neural import Engine

        self._device, self._weights = device, weights
        self._engine: Engine = Engine(device, weights, self.options.precision)
        self._judges: dict[str, Judge] = {}
        self._known: dict[str, dict[str, str]] = {}

    def begin(self, job: Job) -> _Swap:
        """Both squares."""
        swap = _Swap(job, self.keep_steps)
        swap.cut_out()
        return swap

    def forge(self, batch: Sequence[_Swap]) -> list[_Swap]:
        """Generates the faces of a batch.

        Raises:
            WeightsMissing, WeightsError, TermsNotAccepted: of a checkpoint.
            torch.OutOfMemoryError: the batch is too large for the device.
        """
        params, swaps = batch[0].job.params, [swap.again() for swap in batch]
        for name in self.weights(params):
            if name not in self._known:
                self._known[name] = self._weights.find(name).fact
        if params["pack"] and params["pack"] not in self._judges:
            self._judges[params["pack"]] = Judge(self._weights.find(params["pack"]).path, self._device)
        if params["driven"]:
            self._reenact(_open(swaps))
        self._parse(_open(swaps), params)
        for swap in _open(swaps):
            swap.exchange()
        self._generate(_open(swaps), params)
        return swaps

    def end(self, made: _Swap) -> Forged | Rejection:
        """Brings the generated face into the photo, and holds it against the donor."""
        if made.reason:
            return Rejection(made.reason, made.steps)
        job = made.job
        image, mask = made.put_back()
        likeness: Mapping[str, Any] = {}
        if job.params["pack"]:
            assert job.source_image is not None
            answer = self._judges[job.params["pack"]].likeness(job.image, job.source_image, image)
            if isinstance(answer, str):
                made.show("rejected", image)
                return Rejection(answer, made.steps)
            likeness = answer
        facts = {
            "checkpoints": {name: self._known[name] for name in self.weights(job.params)},
            "precision": self.options.precision,
            **made.facts,
            **likeness,
        }
        return Forged(image, mask, facts, made.labels_back(mask), made.steps)

    def _reenact(self, swaps: Sequence[_Swap]) -> None:
        answers = self._engine.reenact([swap.donor for swap in swaps], [swap.target for swap in swaps])
        for swap, answer in zip(swaps, answers, strict=True):
            if isinstance(answer, str):
                swap.reason = f"reenactment: {answer}"
            else:
                swap.donor, swap.facts["faces_enhanced"] = answer.image, answer.faces
                swap.show("donor, reenacted", answer.image)

    def _parse(self, swaps: Sequence[_Swap], params: Params) -> None:
        """Part maps of the squares: the workspace's, or the parser's."""
        whose = [name for name in _Swap.MAPS if params["parser"] == PARSER or (name == "donor" and params["driven"])]
        unread = [(swap, name) for swap in swaps for name in whose]
        found = self._engine.parse([getattr(swap, name) for swap, name in unread]) if unread else []
        for (swap, name), labels in zip(unread, found, strict=True):
            swap.maps[name] = labels
        for swap in swaps:
            for name in _Swap.MAPS:
                if name not in whose:
                    swap.read_map(name)

    def _generate(self, swaps: Sequence[_Swap], params: Params) -> None:
        seeds = [swap.job.seed for swap in swaps] if params["noise"] == "random" else None
        donors = [(swap.donor, swap.regions["donor"]) for swap in swaps]
        targets = [(swap.target, swap.regions["target"]) for swap in swaps]
        shapes = [swap.regions["swapped"] for swap in swaps]
        made = self._engine.generate(donors, targets, shapes, seeds, mix_neck=params["mix_neck"])
        for swap, image in zip(swaps, made, strict=True):
            if isinstance(image, str):
                swap.reason = image
            else:
                swap.generated = image
                swap.show("generated", image)


def _nothing() -> Image:
    """A picture that is not made yet."""
    return np.empty((0, 0, 3), np.uint8)


@dataclass(slots=True)
class _Swap:
    """One swap on its way through the procedure.

    Attributes:
        job: what is to be made.
        keep_steps: whether `steps` is wanted.
        target: (1024, 1024, 3) uint8 RGB, the square of the base.
        donor: likewise; in the target's pose once it is reenacted.
        maps: (512, 512) part maps of both squares, and "swapped", of the face that is generated.
        regions: the same in E4S's twelve.
        generated: (1024, 1024, 3) uint8 RGB.
        facts: for the row.
        steps: for the sheet.
        reason: why it cannot be made; "" while it can.
    """

    MAPS: ClassVar[tuple[str, ...]] = ("donor", "target")

    job: Job
    keep_steps: bool
    target: Image = field(default_factory=_nothing)
    donor: Image = field(default_factory=_nothing)
    generated: Image = field(default_factory=_nothing)
    maps: dict[str, LabelMap] = field(default_factory=dict)
    regions: dict[str, LabelMap] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, Image] = field(default_factory=dict)
    reason: str = ""

    def corners(self, name: str) -> Points | None:
        """(4, 2) quad of the target's or the donor's square in its photo; None where the photo is that square."""
        quad = self.job.params["corners"][name == "donor"]
        return None if quad is None else np.array(quad, np.float64)

    def again(self) -> _Swap:
        """A copy that can be worked on, so that this one stays as `begin` made it."""
        return replace(self, maps={}, regions={}, facts={}, steps=dict(self.steps))

    def show(self, title: str, picture: Image | Callable[[], Image]) -> None:
        """Keeps a step for the sheet, where one is wanted."""
        if self.keep_steps:
            self.steps[title] = picture() if callable(picture) else picture

    def cut_out(self) -> None:
        """Both squares."""
        for name, photo in (("target", self.job.image), ("donor", self.job.source_image)):
            if photo is None:
                self.reason = "no donor"
                return
            quad = self.corners(name)
            try:
                if quad is not None and self.job.params["crop"] == "e4s":
                    picture = crop.cut_out_as_published(photo, quad)
                else:
                    picture = crop.cut_out(photo, quad)
            except AlignmentError as error:
                self.reason = f"{name}: {error}"
                return
            setattr(self, name, picture)
            self.show(f"{name}, cut out", picture)

    def read_map(self, name: str) -> None:
        """The part map that the workspace has of a photo, in the pixels of its square."""
        labels, quad = self.job.labels if name == "target" else self.job.source_labels, self.corners(name)
        if labels is None:
            self.reason = f"the {name} has no part map"
            return
        self.maps[name] = labels if quad is None else ffhq_align.cut_out_labels(labels, quad, SIZE)

    def exchange(self) -> None:
        """The shapes that are generated: the target's map with the donor's inner face."""
        for name in self.MAPS:
            self.regions[name] = regions.twelve(self.maps[name], parts.CLASSES)
            self.show(f"parts of the {name}", partial(parts.coloured, self.maps[name]))
        donor, target = (self.regions[name] for name in self.MAPS)
        seen = {name: np.count_nonzero(regions.select(donor, [name])) for name in LEAST}
        scant = [f"{name} ({seen[name]} px)" for name in LEAST if seen[name] < LEAST[name]]
        if scant:
            self.reason = f"the donor's part map shows too little of {', '.join(scant)}"
            return
        if np.count_nonzero(regions.select(target, regions.INNER)) < LEAST["skin"]:
            self.reason = "the target's part map shows no face"
            return
        # A speck of a parser's in the donor's hair would be seen as a patch of skin in the target's.
        donor = regions.without_specks(donor, regions.INNER, "background")
        speckled, hole = regions.swap_masks(donor, target, self.job.params["hair_first"])
        self.regions["swapped"] = swapped = composite.despeckled(speckled)
        hole |= swapped != speckled
        inner = regions.select(swapped, regions.INNER)
        shape = np.where(inner, self.maps["donor"], self.maps["target"])
        shape[hole] = parts.INDEX["skin"]
        self.maps["swapped"] = shape
        self.show("parts, swapped", partial(parts.coloured, shape))
        self.facts["donor_lacks"] = [name for name in regions.RESTYLED if not regions.select(donor, [name]).any()]
        self.facts["hole_share"] = round(np.count_nonzero(hole) / max(1, np.count_nonzero(inner)), 4)

    def put_back(self) -> tuple[Image, Mask]:
        """The forged photo, (512, 512, 3) uint8 RGB, and its mask (512, 512) bool: all pixels with a weight."""
        alpha, picture = composite.alpha(self.regions["swapped"]), self.generated
        if self.job.params["blending"] == "multiband":
            picture = composite.blend_multiband(picture, self.target, self.regions["swapped"])
        self.show("blended", partial(composite.blend_alpha, picture, self.target, alpha))
        self.show("alpha", alpha)
        return crop.put_back(self.job.image, picture, alpha, self.corners("target"))

    def labels_back(self, mask: Mask) -> LabelMap:
        """The part map of the forged photo, (512, 512): what was generated inside the mask, the base's around it."""
        return np.where(mask, Frame(self.corners("target")).labels_back(self.maps["swapped"]), self.job.labels)


def _open(swaps: Sequence[_Swap]) -> list[_Swap]:
    """Those that can still be made."""
    return [swap for swap in swaps if not swap.reason]


@dataclass(frozen=True, slots=True)
class _Head:
    """How a head is turned, by the face analysis where there is one, else by its five points.

    Attributes:
        pose: from the points.
        turn: yaw, pitch, roll in degrees, or () without an analysis.
    """

    pose: Pose
    turn: tuple[float, ...]

    @staticmethod
    def of(face: Pristine) -> _Head | None:
        """None where the points are missing or no face's."""
        pose = classical.pose(face.points)
        return None if pose is None else _Head(pose, face.turn)

    @property
    def frontal(self) -> bool:
        """Whether it is nearly so."""
        if self.turn:
            return max(map(abs, self.turn[:2])) <= FRONTAL_DEG
        low, high = FRONTAL_PITCH
        return abs(self.pose.yaw) <= FRONTAL_YAW and low <= self.pose.pitch <= high

    def near(self, other: _Head, *, driven: bool) -> bool:
        """Whether a donor with the other head can be swapped in, reenacted or as it is."""
        if not driven:
            return self.pose.gap(other.pose) <= MAX_GAP_UNDRIVEN
        if self.turn and other.turn:
            return max(abs(a - b) for a, b in zip(self.turn[:2], other.turn[:2], strict=True)) <= MAX_TURN_DEG
        return self.pose.gap(other.pose) <= MAX_GAP
