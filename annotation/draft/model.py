"""Runs a vision-language model through transformers: three pictures and a prompt in, a text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtt_build.errors import ConfigError, MmttError, WeightsError

Pictures = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""Pristine, forged, and forged with all but the region dimmed, each (H, W, 3) uint8 RGB."""


@dataclass(frozen=True, slots=True)
class Written:
    """What the model wrote.

    Attributes:
        text: as generated, special tokens aside.
        finished: whether the model ended it; otherwise it ran into the limit of tokens.
    """

    text: str
    finished: bool


class Writer:
    """A loaded model. It always takes the likeliest token, so the same model writes the same text again.

    Args:
        folder: of the model; code in it is never run, and weights are read from safetensors only.
        device: by torch's name.
        max_tokens: longest text.

    Attributes:
        settings: what shaped the texts beside model and prompt, to be recorded.

    Raises:
        ConfigError: it is no model that takes pictures and a conversation.
        WeightsError: it is damaged, or its weights are another model's.
    """

    def __init__(self, folder: Path, device: str, max_tokens: int) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

        self.device, self.max_tokens = device, max_tokens
        # Half the memory, and the precision in which such models are published; CPUs have no speed for it.
        self.dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(folder, **local)
            if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
                raise ConfigError(
                    f"{folder} holds a {config.model_type!r}, which transformers does not run on pictures and text",
                    "name a vision-language model, one of transformers' AutoModelForImageTextToText",
                )
            self.processor: Any = AutoProcessor.from_pretrained(folder, **local)  # type: ignore[no-untyped-call]
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder, config=config, dtype=self.dtype, use_safetensors=True, output_loading_info=True, **local
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            said = " ".join(str(error).split())[:300]
            raise WeightsError(
                f"{folder} cannot be loaded: {said}", "get it again; a model with code of its own is not run"
            ) from error
        self.model, info = loaded
        if absent := sorted(info["missing_keys"]):
            raise WeightsError(f"{folder} lacks {len(absent)} tensors: {', '.join(absent[:5])}", "get it again")
        if not getattr(self.processor, "chat_template", None) or not hasattr(self.processor, "tokenizer"):
            raise ConfigError(
                f"{folder} has no chat template", "name a model that was trained to answer, not a base model"
            )
        self.processor.tokenizer.padding_side = "left"  # what is generated follows the prompt at once
        if self.processor.tokenizer.pad_token is None:
            self.processor.tokenizer.pad_token = self.processor.tokenizer.eos_token
        try:
            self.model.to(device).eval()
        except torch.OutOfMemoryError as error:
            raise MmttError(f"{folder} does not fit into the memory of {device}", "name a smaller model") from error
        self.settings = {
            "max_new_tokens": max_tokens, "do_sample": False, "dtype": str(self.dtype).removeprefix("torch."),
            "device": device.partition(":")[0], "transformers": version("transformers"), "torch": version("torch"),
        }  # fmt: skip

    def write(self, pictures: Sequence[Pictures], prompts: Sequence[str]) -> list[Written]:
        """Texts of a batch.

        Raises:
            MmttError: the device has not enough memory for so many at once.
        """
        import torch

        try:
            with torch.inference_mode():
                return self._write(pictures, prompts)
        except torch.OutOfMemoryError as error:
            most = len(prompts)
            fewer = f"--batch-size {most // 2}" if most > 1 else "name a smaller model, or --device cpu"
            raise MmttError(f"{most} drafts at once do not fit into the memory of {self.device}", fewer) from error

    def _write(self, pictures: Sequence[Pictures], prompts: Sequence[str]) -> list[Written]:
        tokenizer = self.processor.tokenizer
        asked = [
            self.processor.apply_chat_template(
                [{"role": "user", "content": [*({"type": "image"} for _ in of), {"type": "text", "text": prompt}]}],
                add_generation_prompt=True,
                tokenize=False,
            )
            for of, prompt in zip(pictures, prompts, strict=True)
        ]
        begun = bool(tokenizer.bos_token) and asked[0].startswith(tokenizer.bos_token)
        inputs = self.processor(
            text=asked, images=[list(of) for of in pictures], add_special_tokens=not begun, padding=True,
            return_tensors="pt",
        ).to(self.device, self.dtype)  # fmt: skip
        made = self.model.generate(
            **inputs, do_sample=False, num_beams=1, max_new_tokens=self.max_tokens, pad_token_id=tokenizer.pad_token_id
        )
        ends = self.model.generation_config.eos_token_id
        last = {ends} if isinstance(ends, int) else set(ends or ())
        answers = made[:, inputs["input_ids"].shape[1] :].tolist()
        texts = self.processor.batch_decode(answers, skip_special_tokens=True)
        return [Written(text, bool(last & set(tokens))) for text, tokens in zip(texts, answers, strict=True)]
