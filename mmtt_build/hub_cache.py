"""Models in the Hugging Face hub's own cache, looked up without the network."""

from __future__ import annotations

import json
from pathlib import Path

from mmtt_build.catalogue import Entry


def locate(of: Entry) -> Path | None:
    """Where the Hugging Face hub's own cache has it: a folder, or the file."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return None
    repository = Path(constants.HF_HUB_CACHE) / f"models--{of.hub.replace('/', '--')}"
    if not repository.is_dir():  # the rest of the library takes a third of a second to import
        return None
    from huggingface_hub import try_to_load_from_cache

    for file in of.files or ("model_index.json", "config.json"):
        found = try_to_load_from_cache(of.hub, file)
        if isinstance(found, str):
            return Path(found).parent if of.is_tree else Path(found)
    return None


def lacking(folder: Path) -> str:
    """What a model folder of the hub's cache should hold and does not, or ""; by names alone."""
    index = folder / "model_index.json"
    parts = [folder]
    if index.is_file():
        named = json.loads(index.read_text("utf-8"))
        parts = [folder / k for k, v in named.items() if isinstance(v, list) and v[0] and k != "safety_checker"]
    for part in parts:
        names = {file.name for file in part.iterdir()} if part.is_dir() else set()
        if not names:
            return part.name
        if "config.json" in names:  # a network; one whole set of weights is enough
            indices = [json.loads((part / name).read_text("utf-8")) for name in names if ".index." in name]
            sets = [set(index.get("weight_map", {}).values()) for index in indices]
            sets += [{name} for name in names if name.endswith((".safetensors", ".bin")) and "-of-" not in name]
            if not any(files and files <= names for files in sets):
                return f"weights of {part.name}"
    return ""
