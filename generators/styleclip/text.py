"""CLIP's text features for global directions, through transformers."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmtt_build.errors import ConfigError
from mmtt_build.weights import Found

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]


@cache
def templates() -> tuple[str, ...]:
    """Sentences with a place `{}` for a phrase; features are averaged over them."""
    text = files("generators.styleclip").joinpath("templates.toml").read_text("utf-8")
    return tuple(tomllib.loads(text)["templates"])


class TextEncoder:
    """The text half of CLIP on a device, in float32.

    Upstream runs it in float16 on GPUs: there, channels within about 0.001 of the threshold may differ from ours.

    Args:
        found: the catalogue's `clip-vit-b32`.
        device: "cpu", "cuda:0", ...
    """

    def __init__(self, found: Found, device: str) -> None:
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer
        from transformers.utils import logging

        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity(40)  # what it reports is the half of CLIP that sees, and is left in the file
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            self._tokenizer: Any = CLIPTokenizer.from_pretrained(found.path, local_files_only=True)
            model: Any = CLIPTextModelWithProjection.from_pretrained(found.path, local_files_only=True)
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        self._model = model.float().eval().to(device)
        self._known: dict[str, Floats] = {}

    def features(self, phrase: str) -> Floats:
        """Mean of a phrase's features over all templates, (D,) float32 of length 1; kept for the next time.

        Raises:
            ConfigError: the phrase does not fit into what CLIP reads.
        """
        import torch

        if phrase not in self._known:
            sentences = [template.format(phrase) for template in templates()]
            read = self._tokenizer(sentences, padding=True, return_tensors="pt")
            most = self._model.config.max_position_embeddings
            if read.input_ids.shape[1] > most:
                raise ConfigError(
                    f"'{phrase[:60]}...' takes {read.input_ids.shape[1]} tokens in a sentence, CLIP reads {most}",
                    "say it in fewer words",
                )
            with torch.inference_mode(), torch.autocast(self._model.device.type, enabled=False):
                each: Tensor = self._model(**read.to(self._model.device)).text_embeds
                mean = torch.nn.functional.normalize(each, dim=1).mean(dim=0)
                self._known[phrase] = torch.nn.functional.normalize(mean, dim=0).cpu().numpy()
        return self._known[phrase]


def change(encoder: TextEncoder, neutral: str, target: str) -> Floats:
    """Which way CLIP's features turn from the neutral phrase to the target, (D,) float32 of length 1.

    Raises:
        ConfigError: the phrases mean the same to CLIP.
    """
    turned = encoder.features(target) - encoder.features(neutral)
    length = float(np.linalg.norm(turned))
    if length < 1e-6:
        raise ConfigError(f"'{neutral}' and '{target}' are the same to CLIP", "name a target that differs")
    return np.asarray(turned / length, np.float32)
