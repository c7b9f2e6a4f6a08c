"""One loaded pipeline of diffusers: prompts are encoded once each, and batches are painted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch.nn.functional import interpolate, pad

from generators.diffusion.pipelines import SCHEDULERS, Pipeline
from mmtt_build.errors import WeightsError
from mmtt_build.masks import Image, Mask
from mmtt_build.records import SIZE
from mmtt_build.weights import Found

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

CACHE_BYTES = 256 * 2**20
"""Of prompt embeddings on the device: 800 texts of SDXL, 60 of Flux."""


def release() -> None:
    """Gives the memory of what was freed back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _variant(folder: Path, dtype: torch.dtype) -> str | None:
    """Which set of weight files to take: "fp16" for half precision, and where there is no other."""
    names = [path.name for path in folder.rglob("*.safetensors")]
    half = [name for name in names if ".fp16." in name]
    return "fp16" if half and (dtype != torch.float32 or len(half) == len(names)) else None


class Engine:
    """A pipeline on a device.

    Args:
        row: which.
        device: "cpu" or "cuda:<n>".
        options: `method.Options`, of which those that say how to run are read here.
        found: checkpoints by name.
        checkpoint: name of the pipeline's.
        vae: name of another VAE's, or "".
        adapter: name of a LoRA's, or "".

    Attributes:
        encoder_calls: texts encoded so far.

    Raises:
        WeightsError: a checkpoint cannot be loaded.
    """

    def __init__(
        self,
        row: Pipeline,
        device: str,
        options: Any,
        found: Mapping[str, Found],
        checkpoint: str,
        vae: str,
        adapter: str,
    ) -> None:
        for library in (diffusers, transformers):
            library.utils.logging.set_verbosity_error()
            library.utils.logging.disable_progress_bar()
        self.row = row
        self.device = torch.device(device)
        precision = getattr(torch, row.dtype) if self.device.type == "cuda" else torch.float32
        self.dtype: torch.dtype = DTYPES.get(options.precision, precision)
        self.encoder_calls = 0
        self._encoded: OrderedDict[str, list[Any]] = OrderedDict()
        self._scheduled = ""

        given: dict[str, Any] = dict(row.load)
        if row.prior:
            prior = self._from(row.prior[1], found[row.prior[0]])
            given |= {f"prior_{name}": part for name, part in prior.components.items()}
        if vae:
            given["vae"] = self._from("AutoencoderKL", found[vae])
        self.pipe = self._from(row.cls, found[checkpoint], **given)
        self.pipe.set_progress_bar_config(disable=True)
        self._shipped = self.pipe.scheduler
        if adapter:
            self._adapt(found[adapter])
        self._place(options)
        self._facts = {
            "precision": str(self.dtype).removeprefix("torch."),
            "checkpoints": {
                name: {"identity": one.identity, "licence": one.entry.licence} for name, one in found.items()
            },
            "libraries": {name: version(name) for name in ("torch", "diffusers", "transformers")},
            "watermark": getattr(self.pipe, "watermark", None) is not None,
        }

    def _from(self, cls: str, found: Found, **given: Any) -> Any:
        try:
            return getattr(diffusers, cls).from_pretrained(
                str(found.path),
                dtype=self.dtype,
                variant=_variant(found.path, self.dtype),
                local_files_only=True,
                use_safetensors=True,
                **given,
            )
        except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise WeightsError(
                f"'{found.entry.name}' at {found.path} does not load as {cls}: {error}",
                f"mmtt weights check {found.entry.name}",
            ) from error

    def _adapt(self, found: Found) -> None:
        """Adds a LoRA to the weights themselves, so that it costs nothing per step."""
        try:
            self.pipe.load_lora_weights(str(found.path.parent), weight_name=found.path.name, local_files_only=True)
            self.pipe.fuse_lora()
            self.pipe.unload_lora_weights()
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise WeightsError(
                f"'{found.entry.name}' at {found.path} does not fit {self.row.cls}: {error}",
                f"mmtt weights check {found.entry.name}; adapters need peft: pip install 'mmtt-build[models]'",
            ) from error

    def _place(self, options: Any) -> None:
        """Onto the device, in the memory layout and with the savings that the options ask for."""
        pipe: Any = self.pipe
        decoder: Any = getattr(pipe, "vae", None)
        unet = getattr(pipe, "unet", None)
        network = unet if unet is not None else pipe.transformer
        if options.vae_slicing and hasattr(decoder, "enable_slicing"):
            decoder.enable_slicing()
        if options.channels_last and unet is not None and self.device.type == "cuda":
            unet.to(memory_format=torch.channels_last)
        if options.offload == "model":
            pipe.enable_model_cpu_offload(device=self.device)
        elif options.offload == "sequential":
            pipe.enable_sequential_cpu_offload(device=self.device)
        else:
            pipe.to(self.device)
        if options.compile:
            try:
                network.compile_repeated_blocks(fullgraph=True)
            except ValueError:  # Kandinsky's network has no blocks of the kind that repeats in a UNet
                network.compile()

    def too_long(self, text: str) -> str:
        """Why a prompt cannot be used as a whole, or "": every text encoder must read all of it."""
        for name in ("tokenizer", "tokenizer_2", "tokenizer_3", "prior_tokenizer"):
            tokenizer = getattr(self.pipe, name, None)
            if tokenizer is None:
                continue
            limit = tokenizer.model_max_length if "CLIP" in type(tokenizer).__name__ else self.row.max_tokens
            if (count := len(tokenizer(text, truncation=False).input_ids)) > limit:
                return f"prompt of {len(text.split())} words is {count} tokens, at most {limit}"
        return ""

    def _encode(self, text: str) -> list[Any]:
        """What the text encoders make of one text: one entry per name of `row.embeds`."""
        if text in self._encoded:
            self._encoded.move_to_end(text)
            return self._encoded[text]
        self.encoder_calls += 1
        # One text at a time: an embedding then never depends on the texts beside it.
        made = self.pipe.encode_prompt(prompt=text, device=self.device, **self.row.encode)
        kept = [one if name else None for name, one in zip(self.row.embeds, made, strict=True)]
        self._encoded[text] = kept
        while sum(map(_size, self._encoded.values())) > CACHE_BYTES and len(self._encoded) > 1:
            self._encoded.popitem(last=False)
        return kept

    def _conditions(self, prompts: Sequence[str], negatives: Sequence[str] | None) -> dict[str, Any]:
        """The prompts as arguments of the call."""
        if not self.row.embeds:
            return {"prompt": list(prompts), "negative_prompt": list(negatives) if negatives else None}
        out: dict[str, Any] = {}
        for prefix, texts in (("", prompts), ("negative_", negatives or ())):
            if not texts:
                continue
            columns = list(zip(*(self._encode(text) for text in texts), strict=True))
            for name, column in zip(self.row.embeds, columns, strict=True):
                if name.endswith("_mask"):
                    out[prefix + name] = _lengths(columns[0])
                elif name:
                    out[prefix + name] = _join(column)
        return out

    def _schedule(self, name: str) -> None:
        if name == self._scheduled:
            return
        cls, changes = SCHEDULERS.get(name, (type(self._shipped).__name__, {}))
        self.pipe.scheduler = getattr(diffusers, cls).from_config(self._shipped.config, **changes)
        self._scheduled = name

    @torch.no_grad()
    def paint(
        self,
        *,
        images: Image,
        masks: NDArray[np.bool_],
        prompts: Sequence[str],
        negatives: Sequence[str] | None,
        seeds: Sequence[int],
        params: Mapping[str, Any],
    ) -> tuple[Image, Mask, dict[str, Any]]:
        """Paints a batch in one call.

        Args:
            images: (B, 512, 512, 3) uint8 RGB.
            masks: (B, 512, 512) bool, where to paint.
            prompts: one per image.
            negatives: one per image, or None where there is no second run for them.
            seeds: one per image. Noise is drawn on the CPU, so that it is the same on every device.
            params: what is one value for the whole batch, by the names of `method.KEY`.

        Returns:
            Pictures (B, 512, 512, 3) uint8 RGB of the whole frame; per picture whether all of it was finite, (B,) bool;
            and facts for the rows.

        Raises:
            torch.OutOfMemoryError: the batch is too large for the device.
        """
        row, side = self.row, params["side"]
        self._schedule(params["scheduler"])
        # Resizing on the device: on one CPU core it takes longer per image than a few-step model on a GPU.
        picture = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255
        picture = interpolate(picture, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        mask = torch.from_numpy(masks).to(self.device)[:, None].float()
        mask = interpolate(mask, (side, side), mode="nearest-exact")
        arguments: dict[str, Any] = {
            "image": picture * 2 - 1 if row.signed else picture,
            "mask_image": mask,
            "height": side,
            "width": side,
            "num_inference_steps": params["steps"],
            row.guidance_argument: params["guidance"],
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            "output_type": "pt",
            "return_dict": False,
            **row.call,
            **self._conditions(prompts, negatives),
        }
        if params["strength"] is not None:
            arguments["strength"] = params["strength"]
        if params["original_size"]:
            arguments["original_size"] = (params["original_size"],) * 2
            arguments["target_size"] = (side, side)
        made = self.pipe(**arguments)[0]  # Stable Diffusion 1 and 2 return their safety checker's verdict, too
        finite = torch.isfinite(made).flatten(1).all(1)
        made = (made.float() / 2 + 0.5 if row.signed else made.float()).nan_to_num()
        made = interpolate(made, (SIZE, SIZE), mode="area") if side >= SIZE else _enlarged(made)
        made = (made.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous()
        facts = self._facts | {
            "batch_size": len(images),
            "scheduler": type(self.pipe.scheduler).__name__,
            "steps_run": getattr(self.pipe, "num_timesteps", params["steps"]),
        }
        return made.cpu().numpy(), finite.cpu().numpy(), facts


def _enlarged(made: torch.Tensor) -> torch.Tensor:
    return interpolate(made, (SIZE, SIZE), mode="bicubic", antialias=True)


def _size(kept: Sequence[Any]) -> int:
    """Bytes of what an encoder returned."""
    tensors = [one for part in kept if part is not None for one in (part if isinstance(part, list) else [part])]
    return sum(one.nbytes for one in tensors)


def _join(column: Sequence[Any]) -> Any:
    """One argument for a batch of one text's outputs: lists end to end, tensors (1, L, D) padded to one length."""
    if isinstance(column[0], list):
        return [one for part in column for one in part]
    longest = max(one.shape[1] for one in column)
    return torch.cat([pad(one, (0, 0, 0, longest - one.shape[1])) if one.ndim == 3 else one for one in column])


def _lengths(column: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Which of the padded tokens are there, (B, L) of 0 and 1; None where all are, as the pipelines have it."""
    lengths = torch.tensor([one.shape[1] for one in column], device=column[0].device)
    longest = int(lengths.max())
    mask = torch.arange(longest, device=lengths.device)[None] < lengths[:, None]
    return None if bool(mask.all()) else mask.long()
