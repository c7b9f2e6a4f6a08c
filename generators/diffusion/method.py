"""Diffusion inpainting through diffusers: parts of a face are repainted after a prompt, and composited back.

One adapter for all rows of `pipelines.PIPELINES`; each is a method of its own name. What shapes the picture is drawn
in `plan` and written down, so that a row can be made again; `forge` paints a batch at the network's size, returns to
512 and puts the holes' content into the base.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from generators import regions
from generators.base import Family, Forged, Job, Method, Params, Rejection
from generators.diffusion import prompts
from generators.diffusion.pipelines import FEW_STEP, PIPELINES, SCHEDULERS, Pipeline
from generators.regions import Region, RegionError
from mmtt_build.errors import ConfigError
from mmtt_build.masks import Image
from mmtt_build.records import SIZE, Pristine
from mmtt_build.weights import Weights

if TYPE_CHECKING:
    from generators.diffusion.neural import Engine

STRENGTHS, GUIDANCES = 5, 3
"""How many values of each range are drawn from: rows share a batch only where both are the same."""

GRID_PX = 8
"""Side of a latent cell at the network's size. The mask is sampled once per cell, so it is grown by that much first."""

BLACK = 3
"""Highest grey level of a hole that counts as black: what comes of latents that are not numbers, or of a filter."""

KEY = ("checkpoint", "few_step", "vae", "scheduler", "side", "original_size", "steps", "strength", "guidance")
"""Parameters that are one value for all images of a call."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `[methods.<name>]` may say.

    Attributes:
        checkpoint: name in the catalogue; "" takes the method's own.
        vae: name in the catalogue of another VAE: for SDXL `sdxl-vae-fp16-fix`, which stays finite in fp16; "" takes
            the one inside the checkpoint, which SDXL pipelines run in fp32 whenever the rest is fp16, and slower.
        prompts: a prompt file of your own, relative to the recipe, in the form of `generators/diffusion/prompts.toml`,
            which is the default.
        few_step: "lcm" or "lightning" loads that adapter and takes its steps, guidance and scheduler; "" for none.
        scheduler: "" takes the shipped one; else euler, euler-trailing, euler-a, dpm++, ddim, unipc or lcm.
        steps: denoising steps; 0 takes the method's own number.
        strength: range, above 0 and at most 1; [0, 0] takes the method's own.
        guidance: range; [-1, -1] takes the method's own.
        side: of the picture that the network works on, in pixels; 0 takes the method's own.
        original_size: what SDXL is told about the size of the source, in pixels; 0 says `side`, which looks sharper
            than 512.
        grow_px: range of pixels at 512x512 by which a hole exceeds its parts.
        feather_px: range of the width inside the hole over which the new content comes in; at most `grow_px`, so that
            the part itself is replaced as a whole.
        colour_match: whether the network's drift of colour around the hole is taken back.
        precision: "fp32", "fp16" or "bf16"; "auto" takes what suits the model on a GPU, and fp32 on a CPU.
        batch_size: images per call; 0 takes the method's own. It may move a value by float rounding.
        compile: compile the network's repeated blocks first (minutes, then faster).
        offload: "model" or "sequential" keeps what does not run in main memory; "" for none.
        vae_slicing: decode one image of a batch at a time, which saves memory.
        channels_last: memory layout of a UNet on a GPU.
    """

    checkpoint: str = ""
    vae: str = ""
    prompts: Path | None = None
    few_step: str = ""
    scheduler: str = ""
    steps: int = 0
    strength: tuple[float, float] = (0.0, 0.0)
    guidance: tuple[float, float] = (-1.0, -1.0)
    side: int = 0
    original_size: int = 0
    grow_px: tuple[int, int] = (6, 14)
    feather_px: tuple[int, int] = (3, 6)
    colour_match: bool = True
    precision: str = "auto"
    batch_size: int = 0
    compile: bool = False
    offload: str = ""
    vae_slicing: bool = True
    channels_last: bool = True

    of = PIPELINES["sdxl"]

    def __post_init__(self) -> None:
        row = self.of
        allowed: dict[str, Sequence[str]] = {
            "checkpoint": ("", row.checkpoint, *row.also),
            "vae": ("", *((row.vae,) if row.vae else ())),
            "few_step": ("", *row.few_step),
            "scheduler": ("",) if row.own_scheduler else ("", *SCHEDULERS),
            "precision": ("auto", "fp32", "fp16", "bf16"),
            "offload": ("", "model", "sequential"),
        }
        for key, values in allowed.items():
            if (value := getattr(self, key)) not in values:
                raise ValueError(f"{key}: is {value!r}; {row.method} takes {', '.join(map(repr, values))}")
        if self.few_step and self.scheduler:
            raise ValueError(f"scheduler: is {self.scheduler!r}, but '{self.few_step}' brings its own; leave it out")
        if self.steps < 0 or self.steps > 1000:
            raise ValueError(f"steps: is {self.steps}; 1 to 1000, or 0 for the method's own number")
        ranges = (("strength", 0, 1), ("guidance", -1, 100), ("grow_px", 0, 64), ("feather_px", 0, 64))
        for key, least, most in ranges:
            low, high = getattr(self, key)
            if not least <= low <= high <= most:
                raise ValueError(f"{key}: is [{low:g}, {high:g}]; two numbers in order, between {least} and {most}")
        if row.strength is None and self.strength != (0, 0):
            raise ValueError(f"strength: {row.method} has none; leave it out")
        steps, weakest = self.steps or self._few().steps, min(self.strengths or [1])
        if int(steps * weakest) < 1:
            raise ValueError(f"strength: {weakest:g} of {steps} steps is no step")
        if self.feather_px[1] > self.grow_px[0]:
            raise ValueError(f"feather_px: {self.feather_px[1]} is more than grow_px begins with, {self.grow_px[0]}")
        if self.side % row.divisor or not 0 <= self.side <= 4096:
            raise ValueError(f"side: is {self.side}; a multiple of {row.divisor}, at most 4096, or 0")
        if self.original_size and "StableDiffusionXL" not in row.cls:
            raise ValueError(f"original_size: {row.method} is not told a size; leave it out")
        if not 0 <= self.original_size <= 4096:
            raise ValueError(f"original_size: is {self.original_size}; at most 4096, or 0")
        if not 0 <= self.batch_size <= 256:
            raise ValueError(f"batch_size: is {self.batch_size}; at most 256, or 0")

    def _few(self) -> Any:
        return FEW_STEP[self.few_step] if self.few_step else self.of

    def resolved(self) -> dict[str, Any]:
        """What plan rows say about the run: the method's own values where the recipe leaves them."""
        row, side = self.of, self.side or self.of.side
        return {
            "checkpoint": self.checkpoint or row.checkpoint,
            "vae": self.vae,
            "few_step": self.few_step,
            "scheduler": self._few().scheduler if self.few_step else self.scheduler,
            "steps": self.steps or self._few().steps,
            "side": side,
            "original_size": (self.original_size or side) if "StableDiffusionXL" in row.cls else 0,
            "colour_match": self.colour_match,
        }

    @property
    def strengths(self) -> list[float] | None:
        """Values that the strength is drawn from; None where the pipeline has no strength."""
        if self.of.strength is None:
            return None
        return _levels(self.strength if self.strength[1] else self.of.strength, STRENGTHS)

    @property
    def guidances(self) -> list[float]:
        """Values that the guidance is drawn from."""
        return _levels(self.guidance if self.guidance[1] >= 0 else self._few().guidance, GUIDANCES)


def _levels(ends: tuple[float, float], count: int) -> list[float]:
    return sorted({round(float(value), 4) for value in np.linspace(*ends, count)})


class Diffusion(Method):
    """Parts of a face repainted by a diffusion model."""

    family = Family.INPAINT_DIFFUSION
    neural = True
    mask_origin = "composite"
    row: ClassVar[Pipeline]

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        own: Options = self.options
        self.batch_size = own.batch_size or self.row.batch
        self._resolved, self._strengths, self._guidances = own.resolved(), own.strengths, own.guidances
        self._device = ""
        self._weights = Weights(())
        self._loaded: tuple[tuple[str, ...], Engine] | None = None

    @cached_property
    def _prompts(self) -> prompts.Prompts:
        return prompts.load(self.options.prompts)

    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params | None:
        """Draws the parts, what they shall become, and how."""
        chosen = regions.draw(rng, base.part_areas)
        prompt = self._prompts.choose(rng, chosen) if chosen else None
        if chosen is None or prompt is None:
            return None
        strengths, guidances = self._strengths, self._guidances
        guidance = guidances[int(rng.integers(len(guidances)))]
        return {
            **self._resolved,
            "parts": list(chosen),
            "attribute": prompt.attribute,
            "prompt": prompt.text,
            "negative": prompt.negative if self._has_negative(guidance) else "",
            "strength": strengths[int(rng.integers(len(strengths)))] if strengths else None,
            "guidance": guidance,
            "grow_px": int(rng.integers(self.options.grow_px[0], self.options.grow_px[1] + 1)),
            "feather_px": int(rng.integers(self.options.feather_px[0], self.options.feather_px[1] + 1)),
        }

    def _has_negative(self, guidance: float) -> bool:
        return self.row.negative_above is not None and guidance > self.row.negative_above

    def weights(self, params: Params) -> Sequence[str]:
        """The pipeline, and the VAE, adapter and prior that come beside it."""
        adapter = FEW_STEP[params["few_step"]].checkpoint if params["few_step"] else ""
        return [name for name in (params["checkpoint"], *self.row.prior[:1], params["vae"], adapter) if name]

    def batch_key(self, params: Params) -> str:
        """All that is one value per call; the checkpoint first, so that each is loaded once."""
        return json.dumps([params[key] for key in KEY])

    def prepare(self, device: str, weights: Weights) -> None:
        """Remembers where to run; a pipeline is loaded when the first row asks for it.

        Raises:
            ModuleNotFoundError: the extra `[models]` is not installed.
            ConfigError: offloading from a device that is main memory already.
        """
        from generators.diffusion import neural  # noqa: F401 - says at once what is not installed

        if self.options.offload and not device.startswith("cuda"):
            raise ConfigError(
                f"[methods.{self.name}] offload = '{self.options.offload}' needs a GPU, the device is {device}",
                "leave offload out, or --device cuda:0",
            )
        self._device, self._weights = device, weights

    def engine(self, params: Params) -> Engine:
        """The pipeline that a row needs, loaded; the one before it is let go first.

        Raises:
            WeightsMissing, WeightsError, TermsNotAccepted: of a checkpoint.
        """
        from generators.diffusion.neural import Engine, release

        names = tuple(self.weights(params))
        if self._loaded is None or self._loaded[0] != names:
            found = {name: self._weights.find(name) for name in names}
            self._loaded = None
            gc.collect()
            release()
            few_step = FEW_STEP[params["few_step"]].checkpoint if params["few_step"] else ""
            engine = Engine(self.row, self._device, self.options, found, params["checkpoint"], params["vae"], few_step)
            self._loaded = names, engine
        return self._loaded[1]

    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        """Paints the holes of a batch in one call, and composites each into its base.

        Raises:
            WeightsMissing, WeightsError, TermsNotAccepted: of a checkpoint.
            torch.OutOfMemoryError: the batch is too large for the device.
        """
        made: dict[int, Forged | Rejection] = {}
        ready: list[tuple[int, Job, Region]] = []
        engine = self.engine(batch[0].params)
        for i, job in enumerate(batch):
            try:
                hole = regions.region(job.labels, job.params["parts"], job.params["grow_px"])
            except RegionError as error:
                made[i] = Rejection(str(error))
                continue
            if reason := engine.too_long(job.params["prompt"]) or engine.too_long(job.params["negative"]):
                made[i] = Rejection(reason)
            else:
                ready.append((i, job, hole))
        step = len(ready) if self.row.batch > 1 else 1
        for start in range(0, len(ready), step or 1):
            for (i, job, hole), result in zip(
                ready[start : start + step], self._paint(engine, ready[start : start + step]), strict=True
            ):
                made[i] = result if isinstance(result, Rejection) else self._finish(job, hole, *result)
        return [made[i] for i in range(len(batch))]

    def _paint(
        self, engine: Engine, ready: Sequence[tuple[int, Job, Region]]
    ) -> list[tuple[Image, np.ndarray[Any, np.dtype[np.bool_]], dict[str, Any]] | Rejection]:
        """What the network makes of the whole frame, where it was asked to paint, and the facts; per job."""
        jobs = [job for _, job, _ in ready]
        params = jobs[0].params
        margin = -(-GRID_PX * SIZE // params["side"])
        painted = [regions.grown(hole.mask, margin) for _, _, hole in ready]
        negative = self._has_negative(params["guidance"])
        images, finite, facts = engine.paint(
            images=np.stack([job.image for job in jobs]),
            masks=np.stack(painted),
            prompts=[job.params["prompt"] for job in jobs],
            negatives=[job.params["negative"] or self.row.negative for job in jobs] if negative else None,
            seeds=[job.seed for job in jobs],
            params=params,
        )
        nan = Rejection(
            f"the network's output is not finite in {facts['precision']}; "
            "in fp16 the stock SDXL VAE overflows: vae = 'sdxl-vae-fp16-fix', or precision = 'bf16'"
        )
        return [(images[k], painted[k], facts) if finite[k] else nan for k in range(len(jobs))]

    def _finish(self, job: Job, hole: Region, image: Image, painted: Any, facts: dict[str, Any]) -> Forged | Rejection:
        if image[hole.mask].max() <= BLACK:
            return Rejection("the network painted the hole black")
        if job.params["colour_match"]:
            image = regions.match_colour(job.image, image, painted)
        return Forged(regions.composite(job.image, image, hole, job.params["feather_px"]), hole.mask, facts)


def _method(row: Pipeline) -> type[Diffusion]:
    # Qualified names under which pickle finds the classes through `__getattr__` below.
    place = {"__module__": __name__, "__qualname__": f"{row.method}.Options"}
    options = type("Options", (Options,), {"of": row, "__doc__": Options.__doc__, "__slots__": (), **place})
    place["__qualname__"] = row.method
    said = f"Repaints parts of a face after a prompt: {row.cls} of diffusers, at {row.side} px."
    return type(
        row.method, (Diffusion,), {"name": row.method, "row": row, "Options": options, "__doc__": said, **place}
    )


CLASSES = {name: _method(row) for name, row in PIPELINES.items()}
"""The methods; `getattr(module, name)` finds them as well, which is how the registry asks."""


def __getattr__(name: str) -> type[Diffusion]:
    try:
        return CLASSES[name]
    except KeyError:
        raise AttributeError(f"module {__name__} has no attribute {name!r}") from None
