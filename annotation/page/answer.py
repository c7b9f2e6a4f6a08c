"""What an annotator answered on the page, read back from an annotation's result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmtt_build import parts
from mmtt_build.errors import MmttError

PAIRED = ("eye", "pupil", "ear", "cheek", "eyebrow")
"""Labels that a face has twice: the page asks for the (subject's) side."""

ANSWERS = ("nothing-visible", "broken-pair")
FIRST = ("traces", "none")


class BadResult(MmttError):
    """An annotation's result is not what the page sends: its project has another configuration, or it was edited."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an annotator said of a pair.

    Attributes:
        answer: "described", "nothing-visible" or "broken-pair".
        labels: 21 zeros and ones in the order of `parts.LABELS`.
        sides: per ticked label of `PAIRED` the subject's sides, "left" before "right".
        text: as typed, "" without; what was typed before "nothing-visible" was chosen is kept.
        first: of a blind pass, "traces" or "none"; None where there was no blind pass.
    """

    answer: str
    labels: tuple[int, ...]
    sides: Mapping[str, tuple[str, ...]]
    text: str
    first: str | None = None


def aliases() -> Iterator[str]:
    """What a tick is called in a result: a label, or label and side in the order in which they lie in the picture."""
    for label in parts.LABELS:
        yield from (f"{label}.right", f"{label}.left") if label in PAIRED else (label,)


def read(result: Iterable[Mapping[str, Any]]) -> Answer:
    """Reads the `result` list of an annotation or a draft.

    Raises:
        BadResult: naming the control or the value that the page does not have.
    """
    ticked: set[str] = set()
    answer, first, text = "described", None, ""
    for region in result:
        name, value = region.get("from_name"), region.get("value", {})
        if name == "parts":
            ticked.update(_known(name, value, tuple(aliases())))
        elif name == "answer":
            answer = _known(name, value, ANSWERS)[0]
        elif name == "first":
            first = _known(name, value, FIRST)[0]
        elif name == "description" and isinstance(value.get("text"), list | str):
            typed = value["text"]
            text = typed if isinstance(typed, str) else "\n".join(map(str, typed))
        else:
            raise BadResult(f"no control of the page made {region!r:.200}", "mmtt annotate push restores the page")
    names = {alias.partition(".")[0] for alias in ticked}
    sides = {
        label: tuple(side for side in ("left", "right") if f"{label}.{side}" in ticked)
        for label in PAIRED
        if label in names
    }
    return Answer(answer, tuple(parts.label_vector(names)), sides, text, first)


def _known(name: str, value: Mapping[str, Any], known: tuple[str, ...]) -> list[str]:
    chosen = value.get("choices")
    if not isinstance(chosen, list) or not chosen or not set(map(str, chosen)) <= set(known):
        raise BadResult(f"{name} says {chosen!r:.200}, the page offers {', '.join(known)}", "was the page edited?")
    return chosen
