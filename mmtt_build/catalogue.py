"""The catalogue of checkpoints: what each is, where its authors publish it, what its licence asks for."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from mmtt_build.errors import ConfigError

TREES = ("folder", "pack", "tensors")


@dataclass(frozen=True, slots=True)
class Entry:
    """One checkpoint, as its authors publish it. `data/weights.toml` explains the fields.

    Attributes:
        terms: what a person has to accept first; "" where the licence is permissive.
        licence_page: where the licence is.
    """

    name: str
    kind: str
    purpose: str
    licence: str
    methods: Sequence[str] = ()
    files: Sequence[str] = ()
    published: str = ""
    hub: str = ""
    gated: bool = False
    variant: str = ""
    size: str = ""
    keys: Sequence[str] = ()
    state: str | Sequence[str] = ""
    prefix: str = ""
    beside: Sequence[str] = ()
    network: str = ""
    classes: Sequence[str] = ()
    channels: int = 0
    tasks: Sequence[str] = ()
    shape: Sequence[Any] = ()
    note: str = ""
    terms: str = ""
    licence_page: str = ""

    @property
    def is_tree(self) -> bool:
        """Whether it is a folder rather than a file."""
        return self.kind in TREES

    def how_to_obtain(self) -> str:
        """What a person does who has not got it."""
        what = self.files[0] if self.files else "DIR"
        if self.hub:
            first = f"accept the terms on {self.published} and log in (hf auth login), then: " if self.gated else ""
            return f"{first}mmtt weights fetch {self.name}; or, with a copy: mmtt weights add {self.name} {what}"
        where = self.published + (f" ({self.size})" if self.size else "")
        return f"get {'the folder' if self.is_tree else what} from {where}, then: mmtt weights add {self.name} {what}"


@cache
def catalogue() -> Mapping[str, Entry]:
    """All checkpoints by name."""
    data = tomllib.loads(files("mmtt_build").joinpath("data", "weights.toml").read_text(encoding="utf-8"))
    entries = {}
    for name, values in data["checkpoints"].items():
        licence = data["licences"][values["licence"]]
        values |= {"terms": licence.get("terms", "").strip(), "licence_page": licence["page"]}
        values["note"] = values.get("note", "").strip()
        if "hub" in values:
            values.setdefault("published", f"https://huggingface.co/{values['hub']}")
        each = values.pop("each", None)
        if each is None:
            entries[name] = Entry(name=name, **values)
            continue
        for item, drive_id in each.items():
            own = {"files": [f"{item}.pt"], "published": values["published"].format(id=drive_id)}
            own["purpose"] = f"{values['purpose']} '{item}'"
            entries[f"{name}-{item}"] = Entry(**{**values, **own, "name": f"{name}-{item}"})
    return entries


def entry(name: str) -> Entry:
    """The catalogue's entry of a name.

    Raises:
        ConfigError: there is none; the closest names are listed.
    """
    if name not in catalogue():
        close = difflib.get_close_matches(name, catalogue(), 3)
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        raise ConfigError(f"unknown checkpoint '{name}'", f"{meant}mmtt weights list shows all")
    return catalogue()[name]
