"""Which parts of the face a description mentions, where, on which side, and whether it denies them.

    for mention in mentions("The left eye is blurred, the nose looks natural."):
        ...  # eye at 9-12 left, nose at 29-33 negated

The parts are the 21 labels of `mmtt_build.parts.LABELS`. Which words mean them is data, `qc/lexicon/<language>.toml`;
sides and denials are grammar, `qc.sides` and `qc.denials`. The published rule, for comparison and compatibility, is
`qc.official`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from mmtt_build.parts import LABELS
from qc import denials, sides
from qc.lexicon import load
from qc.spelling import HAN, Folded, fold
from qc.words import read


class Mention(NamedTuple):
    """A part that a text names.

    Attributes:
        label: of `parts.LABELS`.
        start: position of its first character in the text.
        end: position after its last one.
        side: "left", "right", "both" or None, as the text says it.
        negated: the text says that the part is missing, that nothing is wrong with it, or that it is not meant.
    """

    label: str
    start: int
    end: int
    side: str | None
    negated: bool


def mentions(text: str, language: str | None = None) -> list[Mention]:
    """All mentions of a text, in their order.

    Args:
        text: any length; linear in it.
        language: ISO 639-1 code of a lexicon; None takes "zh" for a text with more Chinese
            characters than Latin words, else "en".

    Raises:
        ConfigError: there is no lexicon of that language.
    """
    return read_mentions(fold(text), language or script(text))


def read_mentions(folded: Folded, language: str) -> list[Mention]:
    """All mentions of a folded text, with their positions in the original; otherwise as `mentions`."""
    reading = read(folded, load(language))
    sides.assign(reading)
    denials.assign(reading)
    return [
        Mention(part.label, *folded.original(part.start, part.end), part.side, part.verdict < 0)
        for _, part in sorted(reading.parts.items())
    ]


def script(text: str) -> str:
    """The language whose script a text is mostly written in: "zh" or "en"."""
    if text.isascii():
        return "en"
    return "zh" if len(_HAN.findall(text)) > len(_LATIN.findall(text)) else "en"


def labels(found: Iterable[Mention]) -> list[str]:
    """The labels that are mentioned, denied or not, in official order."""
    named = {mention.label for mention in found}
    return [label for label in LABELS if label in named]


_HAN = re.compile(f"[{HAN}]")
_LATIN = re.compile(r"[A-Za-z]+")
