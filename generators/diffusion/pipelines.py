"""The inpainting pipelines of diffusers, as data: one row per method. A new pipeline is a row, not a file.

Numbers are the pipelines' own defaults or their model cards' recommendations (diffusers 0.42). Where a pipeline keeps
the known region by putting its latents back (4-channel models), the strength stays below 1 so that the hole keeps the
light of the face, and well above diffusers' 0.6, which barely changes a face.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How one pipeline class is loaded and called.

    Attributes:
        method: name of the method.
        cls: class of diffusers. Named rather than found by AutoPipelineForInpainting, which does not know all of them.
        checkpoint: name in the catalogue.
        also: other checkpoints of the catalogue that the class can run.
        vae: checkpoint of another VAE that fits, or "".
        prior: checkpoint and class of a pipeline whose components come first, under the prefix "prior_"; or ().
        side: of the picture that the network works on, in pixels.
        divisor: of the side.
        steps: denoising steps.
        strength: range; None where the class has no such argument.
        guidance: range.
        guidance_argument: name of the argument that takes it.
        negative_above: guidance above which the class runs a second time on a negative prompt; None where it has none.
        negative: what stands for "no negative prompt".
        dtype: precision on a GPU, as the weights were published or as the card says.
        embeds: names of the call's arguments that take what `encode_prompt` returns for one text, in order, "" for
            what is not needed; each exists with "negative_" before it too. () where embeddings cannot be passed.
        encode: further arguments of `encode_prompt`.
        max_tokens: of a prompt, for text encoders that are not CLIP (which take 77).
        load: further arguments of `from_pretrained`.
        call: further arguments of the call.
        own_scheduler: runs with the scheduler it ships with only (flow matching, combined pipelines).
        few_step: adapters of `FEW_STEP` that fit.
        signed: images go in and come out in [-1, 1] instead of [0, 1].
        batch: images per call.
    """

    method: str
    cls: str
    checkpoint: str
    also: Sequence[str] = ()
    vae: str = ""
    prior: tuple[str, str] | tuple[()] = ()
    side: int = 1024
    divisor: int = 8
    steps: int = 30
    strength: tuple[float, float] | None = (0.85, 0.99)
    guidance: tuple[float, float] = (6.0, 9.0)
    guidance_argument: str = "guidance_scale"
    negative_above: float | None = 1.0
    negative: str = ""
    dtype: str = "float16"
    embeds: Sequence[str] = ()
    encode: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = 512
    load: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    own_scheduler: bool = False
    few_step: Sequence[str] = ()
    signed: bool = False
    batch: int = 4


@dataclass(frozen=True, slots=True)
class FewStep:
    """A distilled adapter that makes a model work in few steps.

    Attributes:
        checkpoint: name in the catalogue.
        scheduler: key of `SCHEDULERS` that it was distilled with.
        steps: as distilled; strength shortens them further: 4 steps at 0.99 run 3.
        guidance: range.
    """

    checkpoint: str
    scheduler: str
    steps: int
    guidance: tuple[float, float]


FEW_STEP: Mapping[str, FewStep] = {
    "lcm": FewStep("lcm-lora-sdxl", "lcm", 8, (1.0, 2.0)),
    "lightning": FewStep("sdxl-lightning", "euler-trailing", 4, (0.0, 0.0)),
}

SCHEDULERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "ddim": ("DDIMScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
"""Schedulers that can take the place of the shipped one: class of diffusers and what differs from its configuration."""


_SD: dict[str, Any] = {
    "cls": "StableDiffusionInpaintPipeline",
    "side": 512,
    "strength": (0.9, 1.0),
    "embeds": ("prompt_embeds", ""),
    "encode": {"num_images_per_prompt": 1, "do_classifier_free_guidance": False},
    # Flagged images come back black, and of a face it flags plenty.
    "load": {"safety_checker": None, "requires_safety_checker": False},
    "batch": 16,
}
_SDXL: dict[str, Any] = {
    "cls": "StableDiffusionXLInpaintPipeline",
    "vae": "sdxl-vae-fp16-fix",
    "embeds": ("prompt_embeds", "", "pooled_prompt_embeds", ""),
    "encode": {"do_classifier_free_guidance": False},
    # The default puts a watermark over the whole image wherever the package invisible-watermark is installed.
    "load": {"add_watermarker": False},
}
_FLUX: dict[str, Any] = {
    "divisor": 16,
    "negative_above": None,
    "dtype": "bfloat16",
    "embeds": ("prompt_embeds", "pooled_prompt_embeds", ""),
    "encode": {"prompt_2": None},
    "own_scheduler": True,
    "batch": 2,
}

PIPELINES: Mapping[str, Pipeline] = {
    row.method: row
    for row in (
        # The card warns of dull results at a strength of exactly 1 and shows 20 steps, guidance 8.
        Pipeline(
            "sdxl",
            checkpoint="sdxl-inpaint",
            also=("sdxl-base",),
            steps=20,
            few_step=("lcm", "lightning"),
            batch=8,
            **_SDXL,
        ),
        Pipeline(
            "sdxl-turbo",
            checkpoint="sdxl-turbo",
            side=512,
            steps=4,
            strength=(0.75, 1.0),
            guidance=(0.0, 0.0),
            batch=16,
            **_SDXL,
        ),
        Pipeline("sd15", checkpoint="sd15-inpaint", **_SD),
        Pipeline("sd2", checkpoint="sd2-inpaint", **_SD),
        Pipeline(
            "sd3",
            cls="StableDiffusion3InpaintPipeline",
            checkpoint="sd3-medium",
            divisor=16,
            steps=28,
            strength=(0.75, 0.95),
            guidance=(5.0, 8.0),
            embeds=("prompt_embeds", "", "pooled_prompt_embeds", ""),
            encode={"prompt_2": None, "prompt_3": None, "do_classifier_free_guidance": False},
            max_tokens=256,
            own_scheduler=True,
        ),
        Pipeline(
            "flux",
            cls="FluxInpaintPipeline",
            checkpoint="flux-dev",
            steps=28,
            strength=(0.75, 0.95),
            guidance=(3.0, 7.0),  # the distilled guidance, not a second run
            **_FLUX,
        ),
        Pipeline(
            "flux-schnell",
            cls="FluxInpaintPipeline",
            checkpoint="flux-schnell",
            steps=4,
            strength=(0.75, 1.0),
            guidance=(0.0, 0.0),
            max_tokens=256,
            call={"max_sequence_length": 256},
            **{**_FLUX, "encode": {"prompt_2": None, "max_sequence_length": 256}},
        ),
        Pipeline(
            "flux-fill",
            cls="FluxFillPipeline",
            checkpoint="flux-fill",
            steps=50,
            strength=(1.0, 1.0),
            guidance=(25.0, 35.0),
            **_FLUX,
        ),
        Pipeline(
            "kandinsky",
            cls="KandinskyV22InpaintCombinedPipeline",
            checkpoint="kandinsky-2-2",
            prior=("kandinsky-2-2-prior", "KandinskyV22PriorPipeline"),
            side=512,
            divisor=64,
            steps=50,
            strength=None,
            guidance=(3.0, 5.0),
            embeds=(),  # the class takes texts only: its prior draws an image embedding per seed
            own_scheduler=True,
            signed=True,
            batch=1,  # the class puts the first image's latents back into every image of a batch
        ),
        Pipeline(
            "qwen-image",
            cls="QwenImageInpaintPipeline",
            checkpoint="qwen-image",
            divisor=16,
            steps=50,
            strength=(0.75, 0.95),
            guidance=(3.0, 5.0),
            guidance_argument="true_cfg_scale",
            negative=" ",
            dtype="bfloat16",
            embeds=("prompt_embeds", "prompt_embeds_mask"),
            encode={"max_sequence_length": 512},
            own_scheduler=True,
            batch=1,
        ),
        Pipeline(
            "z-image",
            cls="ZImageInpaintPipeline",
            checkpoint="z-image-turbo",
            divisor=16,
            steps=9,
            strength=(0.75, 1.0),
            guidance=(0.0, 0.0),
            negative_above=0.0,
            dtype="bfloat16",
            embeds=("prompt_embeds", ""),
            encode={"do_classifier_free_guidance": False},
            own_scheduler=True,
        ),
    )
}
"""All methods of this package by name."""
