"""The catalogue of checkpoints, and where they lie on this machine. No torch: nothing here looks into a file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from mmtt_build.errors import ConfigError, WeightsMissing


@dataclass(frozen=True, slots=True)
class Entry:
    """One checkpoint, as its authors publish it.

    Attributes:
        name: as in the catalogue, e.g. "bisenet".
        purpose: what it is for.
        published: address of the page where its authors publish it.
        licence: short name.
    """

    name: str
    purpose: str
    published: str
    licence: str


@cache
def catalogue() -> Mapping[str, Entry]:
    """All checkpoints by name."""
    data = tomllib.loads(files("mmtt_build").joinpath("data", "weights.toml").read_text(encoding="utf-8"))
    return {name: Entry(name=name, **values) for name, values in data.items()}


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint on this machine, unchanged since it was added, its terms accepted.

    Attributes:
        entry: what it is.
        path: the file, or the folder of a checkpoint that is one.
        identity: what goes into the rows: SHA-256 of the file, digest of the folder's, or commit of a hub model.
    """

    entry: Entry
    path: Path
    identity: str


@dataclass(frozen=True, slots=True)
class Weights:
    """Where checkpoints are looked for; picklable, so that device processes get it.

    Attributes:
        folders: in search order.
    """

    folders: Sequence[Path]

    def find(self, name: str) -> Found:
        """The checkpoint, ready for use.

        Raises:
            ConfigError: the catalogue has no such name.
            WeightsMissing: it is nowhere; the remedy says how to obtain it.
            WeightsError: it changed since it was added.
            TermsNotAccepted: its licence has not been accepted.
        """
        if name not in catalogue():
            raise ConfigError(f"unknown checkpoint '{name}'", f"known: {', '.join(sorted(catalogue()))}")
        raise WeightsMissing(f"'{name}' is in none of {', '.join(map(str, self.folders))}", "mmtt weights list")
