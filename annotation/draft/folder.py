"""Where a vision-language model lies: a folder, or the Hugging Face hub's own cache. No torch: nothing is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mmtt_build.digests import digests
from mmtt_build.errors import ConfigError, WeightsError, WeightsMissing
from mmtt_build.hub_cache import lacking
from mmtt_build.seeds import digest

FILES = ("*.json", "*.jinja", "*.model", "*.safetensors", "*.txt")
"""What of a repository of the hub is downloaded: no pickles, no code."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model on this machine.

    Attributes:
        folder: with its config, weights and processor.
        name: of the folder, or the hub's.
        revision: commit of the hub; of a folder a digest of the SHA-256 of all its files.
    """

    folder: Path
    name: str
    revision: str

    @property
    def version(self) -> str:
        """What every draft is marked with, on the server too."""
        return f"draft:{self.name}@{self.revision[:12]}"


def find(named: str, *, download: bool = False) -> Model:
    """The model that the user named: a folder, or a name of the hub.

    Args:
        named: path, or "owner/name".
        download: fetch from the hub what its cache lacks; without it nothing is asked of the network.

    Raises:
        ConfigError: it is neither a folder nor a name of the hub.
        WeightsMissing: it is not in the cache, or cannot be downloaded.
        WeightsError: no model, incomplete, or without weights as safetensors.
    """
    folder = Path(named)
    if folder.is_dir():
        _check(folder)
        hashes = digests(folder.resolve(), label="hash the model")
        revision = digest(*((name, of["sha256"]) for name, of in sorted(hashes.items())))
        return Model(folder, folder.resolve().name, revision)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", named) or named.startswith("."):
        raise ConfigError(f"--model {named!r} is no folder", "name a model's folder, or OWNER/NAME of the hub")
    folder = _of_hub(named, download)
    _check(folder)
    return Model(folder, named, folder.name)


def _of_hub(name: str, download: bool) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=not download, allow_patterns=list(FILES)))
    except LocalEntryNotFoundError as error:
        way = "look at the network" if download else "--download fetches it, or name a folder"
        raise WeightsMissing(f"{name} is not in the hub's cache on this machine", way) from error
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        said = str(error).strip().partition("\n")[0][:200]
        raise WeightsMissing(f"{name} cannot be downloaded: {said}", "look at its page on the hub") from error


def _check(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{folder} has no config.json", "name the folder that transformers saved the model to")
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
        found = f", but {', '.join(pickles[:3])}, which could run code when it is loaded" if pickles else ""
        raise WeightsError(f"{folder} has no *.safetensors{found}", "get a copy of the model as safetensors")
    if missing := lacking(folder):
        raise WeightsError(f"{folder} is incomplete: {missing}", "download it again")
