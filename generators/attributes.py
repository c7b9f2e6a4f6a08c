"""The table `attributes.toml`: what the face editors can change, which parts that touches, and how strongly."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from generators.regions import MIN_PART_PX
from mmtt_build.errors import ConfigError
from mmtt_build.parts import CLASSES, INDEX

Range = tuple[float, float]

KINDS = ("mapper", "text", "direction", "component")
"""Keys of which an attribute has exactly one: how it is made."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One row; `attributes.toml` explains the fields.

    Raises:
        ValueError: a value makes no sense; the text begins with its key.
    """

    parts: tuple[str, ...]
    strength: tuple[Range, ...]
    source: str
    mapper: str = ""
    text: tuple[str, ...] = ()
    beta: Range | tuple[()] = ()
    direction: str = ""
    component: int | None = None
    layers: tuple[int, ...] = ()
    on_request: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.parts) - set(CLASSES[1:])
        if unknown or not self.parts or len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts: are {list(self.parts)}; parsing classes, each once")
        made = [key for key in KINDS if getattr(self, key) not in ("", (), None)]
        if len(made) != 1:
            raise ValueError(f"{' and '.join(made) or KINDS[0]}: it has exactly one of {', '.join(KINDS)}")
        ranges = {"strength": self.strength, "beta": (self.beta,) if self.beta else ()}
        for key, values in ranges.items():
            if not all(len(ends) == 2 and ends[0] <= ends[1] for ends in values):
                raise ValueError(f"{key}: is {values}; two numbers in order")
        if not self.strength or not any(any(ends) for ends in self.strength):
            raise ValueError("strength: is missing or 0")
        for key, needed, count in (("text", self.text, 2), ("beta", self.text, 2), ("layers", self.component, 2)):
            there = len(getattr(self, key))
            if there != (count if needed not in ((), None) else 0):
                raise ValueError(f"{key}: has {there} items; {count} with 'text' or 'component', else none")
        if self.layers and not 0 <= self.layers[0] < self.layers[1]:
            raise ValueError(f"layers: is {list(self.layers)}; the first and the last (exclusive)")

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """How to make it, as a plan says it: strength, and the mapper, texts and beta, direction or component."""
        low, high = self.strength[int(rng.integers(len(self.strength)))]
        drawn: dict[str, Any] = {"parts": list(self.parts), "strength": round(rng.uniform(low, high), 3)}
        if self.text:
            # Hundredths, as StyleCLIP's sliders have them: boundaries are computed once for each.
            drawn |= {"text": list(self.text), "beta": round(rng.uniform(*self.beta), 2)}
        elif self.component is not None:
            drawn |= {"component": self.component, "layers": list(self.layers)}
        else:
            drawn |= {"mapper": self.mapper} if self.mapper else {"direction": self.direction}
        return drawn


@cache
def table(path: Path | None = None) -> Mapping[str, Mapping[str, Attribute]]:
    """All attributes by method and name.

    Args:
        path: of a table of the same form; None takes `attributes.toml` beside this module.

    Raises:
        ConfigError: naming the file, the row, the value and the fix.
    """
    path = path or Path(__file__).with_name("attributes.toml")
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "a TOML file in the form of attributes.toml") from error
    keys = [field.name for field in fields(Attribute)]
    found: dict[str, dict[str, Attribute]] = {}
    for method, rows in data.items():
        for name, row in rows.items():
            at = f"{path}: [{method}.{name}]"
            for key in row:
                if key not in keys:
                    raise ConfigError(f"{at} {key}: unknown key", f"known: {', '.join(keys)}")
            try:
                attribute = Attribute(**{key: _frozen(value) for key, value in row.items()})
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{at} {error}", "see the top of attributes.toml") from error
            found.setdefault(method, {})[name] = attribute
    return found


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def chosen(method: str, names: Sequence[str] = (), path: Path | None = None) -> dict[str, Attribute]:
    """The attributes that a run draws from.

    Args:
        method: table of the file.
        names: what the recipe names; () for all but those on request.
        path: as `table`.

    Raises:
        ConfigError: a name is unknown; the closest are listed.
    """
    rows = table(path).get(method, {})
    if not rows:
        raise ConfigError(f"{path} has no attribute of {method}", f"rows are headed [{method}.<name>]")
    for name in names:
        if name not in rows:
            close = difflib.get_close_matches(name, rows, 3)
            meant = f"did you mean {' or '.join(close)}? " if close else ""
            raise ConfigError(f"{method} has no attribute '{name}'", f"{meant}it has {', '.join(rows)}")
    return {name: row for name, row in rows.items() if (name in names if names else not row.on_request)}


def draw(rng: np.random.Generator, rows: Mapping[str, Attribute], part_areas: Sequence[int]) -> dict[str, Any] | None:
    """Draws the attribute of one forgery and how it is made.

    Args:
        rng: of the row.
        rows: as `chosen` gives them; each is as likely as the others.
        part_areas: pixels of each of the 19 classes at 512x512.

    Returns:
        What the plan writes down: attribute, parts, strength and what `Attribute.draw` adds; None where the face shows
        no part of any attribute.
    """
    fitting = [name for name, row in rows.items() if any(part_areas[INDEX[part]] >= MIN_PART_PX for part in row.parts)]
    if not fitting:
        return None
    name = fitting[int(rng.integers(len(fitting)))]
    return {"attribute": name, **rows[name].draw(rng)}
