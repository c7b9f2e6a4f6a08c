"""`mat`: parts of a face repainted by MAT, the mask-aware transformer. See card.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from generators import regions
from generators.base import Family, Forged, Job, Method, Params, Rejection
from generators.editor import check_run
from generators.regions import Region, RegionError
from mmtt_build.records import Pristine
from mmtt_build.weights import Weights

if TYPE_CHECKING:
    from generators.mat.neural import Engine

NETWORK = "mat"
"""Name of the checkpoint in the catalogue."""

NOISES = ("const", "random", "none")


@dataclass(frozen=True, slots=True)
class Options:
    """What `[methods.mat]` may say.

    Attributes:
        psi: truncation of the style, 0 to 1; 1 is none and the authors' default, less is nearer to the average face.
        noise: "const", the network's own and the authors' default, "random" by the row's seed, or "none".
        grow_px: range of pixels by which a hole exceeds its parts.
        feather_px: range of the width inside the hole over which the new content comes in; [0, 0] is the authors' hard
            edge. At most `grow_px`, so that the part itself is replaced as a whole.
        precision: "fp32", or "fp16" or "bf16" where numbers may be rounded more for speed on a GPU.
        batch_size: images at once.
    """

    psi: float = 1.0
    noise: str = "const"
    grow_px: tuple[int, int] = (6, 14)
    feather_px: tuple[int, int] = (0, 0)
    precision: str = "fp32"
    batch_size: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.psi <= 1:
            raise ValueError(f"psi: is {self.psi:g}; 0 to 1")
        if self.noise not in NOISES:
            raise ValueError(f"noise: is {self.noise!r}; {', '.join(NOISES)}")
        for key in ("grow_px", "feather_px"):
            low, high = getattr(self, key)
            if not 0 <= low <= high <= 64:
                raise ValueError(f"{key}: is [{low}, {high}]; two numbers in order, between 0 and 64")
        if self.feather_px[1] > self.grow_px[0]:
            raise ValueError(f"feather_px: {self.feather_px[1]} is more than grow_px begins with, {self.grow_px[0]}")
        check_run(self.precision, self.batch_size)


class MAT(Method):
    """Parts of a face repainted by a transformer that fills large holes."""

    name = "mat"
    family = Family.INPAINT_TRANSFORMER
    Options = Options
    neural = True

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.batch_size = self.options.batch_size

    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params | None:
        """Draws the parts and the shape of the hole."""
        chosen = regions.draw(rng, base.part_areas)
        if chosen is None:
            return None
        own: Options = self.options
        return {
            "parts": list(chosen),
            "psi": own.psi,
            "noise": own.noise,
            "grow_px": int(rng.integers(own.grow_px[0], own.grow_px[1] + 1)),
            "feather_px": int(rng.integers(own.feather_px[0], own.feather_px[1] + 1)),
        }

    def weights(self, params: Params) -> Sequence[str]:
        """The one network."""
        return [NETWORK]

    def batch_key(self, params: Params) -> str:
        """What is one value per call."""
        return f"{params['psi']} {params['noise']}"

    def prepare(self, device: str, weights: Weights) -> None:
        """Loads the network.

        Raises:
            ModuleNotFoundError: the extra `[models]` is not installed.
            WeightsMissing, WeightsError, TermsNotAccepted: of the checkpoint.
        """
        from generators.mat.neural import Engine

        found = weights.find(NETWORK)
        self._facts = {"checkpoints": {NETWORK: found.fact}, "precision": self.options.precision}
        self._engine: Engine = Engine(device, found, self.options.precision)

    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        """Fills the holes of a batch in one call.

        Raises:
            torch.OutOfMemoryError: the batch is too large for the device.
        """
        made: dict[int, Forged | Rejection] = {}
        holes: dict[int, Region] = {}
        for i, job in enumerate(batch):
            try:
                holes[i] = regions.region(job.labels, job.params["parts"], job.params["grow_px"])
            except RegionError as error:
                made[i] = Rejection(str(error))
        if holes:
            jobs = [batch[i] for i in holes]
            painted = self._engine.fill(
                [job.image for job in jobs],
                [hole.mask for hole in holes.values()],
                [job.seed for job in jobs],
                batch[0].params["psi"],
                batch[0].params["noise"],
            )
            for (i, hole), image in zip(holes.items(), painted, strict=True):
                if isinstance(image, str):
                    made[i] = Rejection(image)
                else:
                    forged = regions.composite(batch[i].image, image, hole, batch[i].params["feather_px"])
                    made[i] = Forged(forged, hole.mask, self._facts)
        return [made[i] for i in range(len(batch))]
