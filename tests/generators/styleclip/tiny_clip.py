"""A CLIP of two thin layers with random weights and a tokenizer of single letters, in the layout of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import pre_tokenizers

WIDTH = 24
"""Of its features."""


def tokenizer() -> Any:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def save(folder: Path, width: int = WIDTH) -> Any:
    """Saves it and returns the whole model, whose features have `width` numbers."""
    letters = tokenizer()
    towers: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    towers["num_attention_heads"] = 2
    text = {
        **towers,
        "vocab_size": len(letters),
        "projection_dim": width,
        "max_position_embeddings": 77,
        "bos_token_id": letters.bos_token_id,
        "eos_token_id": letters.eos_token_id,
        "pad_token_id": letters.pad_token_id,
    }
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**towers, "image_size": 32, "patch_size": 16}, projection_dim=width
    )
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(folder)
    letters.save_pretrained(folder)
    return model
