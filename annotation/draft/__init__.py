"""Drafts of descriptions by a model: what it is asked, and what of its answer goes onto the annotation page.

A draft is a model's text for ever: it is never an annotation, and the page says what it is. The texts are in
`prompts.toml`; the model itself is run by `annotation.draft.model`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from annotation.guard import words
from annotation.page.answer import PAIRED
from mmtt_build.errors import ConfigError
from mmtt_build.parts import LABELS

__all__ = ["NOTE", "note", "prompt", "result", "status", "version"]

NOTE = "note"
"""Key of a task's data: what the page shows above its text box."""


def version() -> int:
    """Of the prompts' texts."""
    return int(_prompts()["version"])


def prompt(family: str, language: str, max_words: int) -> str:
    """What the model is asked about a forgery, after its three pictures.

    Args:
        family: of the method that made it, as generators.base.Family.
        language: of the description, one of annotation.page.LANGUAGES.
        max_words: longest description.

    Raises:
        ConfigError: there is no prompt for this family or language.
    """
    of = _of(language)
    if family not in of["families"]:
        raise ConfigError(f"no prompt for family {family!r}", f"there are {', '.join(of['families'])}")
    return str(of["ask"]).format(family=of["families"][family], words=max_words).strip()


def note(language: str) -> str:
    """What the page tells the annotator of a draft."""
    return str(_of(language)["note"])


def status(text: str, finished: bool, max_words: int) -> str:
    """How a draft is marked: "ok", "empty", or "too-long".

    Args:
        text: as generated.
        finished: whether the model ended by itself; a text that was cut off is too long.
        max_words: longest description, in words as the guard counts them.
    """
    count = words(text)
    return "empty" if not count else "ok" if finished and count <= max_words else "too-long"


def result(text: str, language: str) -> list[dict[str, Any]]:
    """What of a draft goes into the page's controls: the text, and the labels that it names.

    A label of a pair is ticked only where the text gives the side: "the eye" ticks nothing.
    """
    ticked = list(_named(text.lower(), _of(language)))
    regions = [{"from_name": "description", "to_name": "pair", "type": "textarea", "value": {"text": [text.strip()]}}]
    if ticked:
        regions.append({"from_name": "parts", "to_name": "pair", "type": "choices", "value": {"choices": ticked}})
    return regions


def _named(text: str, of: Mapping[str, Any]) -> Iterator[str]:
    for label in LABELS:
        part = of["parts"][label]
        if label not in PAIRED:
            if re.search(part, text):
                yield label
            continue
        said = {side for side, pattern in of["sides"].items() if re.search(pattern.format(part=f"(?:{part})"), text)}
        for side in ("right", "left"):
            if said & {side, "both"}:
                yield f"{label}.{side}"


def _of(language: str) -> Mapping[str, Any]:
    prompts = _prompts()
    if language not in prompts:
        known = ", ".join(name for name in prompts if name != "version")
        raise ConfigError(f"no prompts for drafts in language {language!r}", f"one of {known}")
    return prompts[language]


@cache
def _prompts() -> Mapping[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("prompts.toml").read_text("utf-8"))
