"""Text that somebody wrote, cut to a length and in pieces that are marked or not, with nothing invisible left in it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text.

    Attributes:
        text: with control characters made visible.
        marked: whether a finding is about it.
    """

    text: str
    marked: bool = False


def visible(text: str) -> str:
    """The text with characters that steer a terminal or turn the direction of writing as e.g. <U+202E>.

    Line breaks and tabs stay. So do the joiners that emoji and some scripts need.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable() or character in _KEPT or unicodedata.category(character) == "Zs":
        return character
    return f"<U+{ord(character):04X}>"


_KEPT = "\n\t\u200c\u200d"


def pieces(text: str, spans: Iterable[Sequence[int]], most: int) -> tuple[tuple[Piece, ...], int]:
    """A text as pieces, and how many characters were left out of it.

    Args:
        text: whole.
        spans: start and end of what is marked; may overlap, and may lie outside the text.
        most: so many characters are kept, around the first mark where that is not near the beginning.
    """
    marks = _joined(spans, len(text))
    first = marks[0][0] if marks else 0
    start = max(0, min(first - most // 3, len(text) - most)) if first > most * 2 // 3 else 0
    end = min(len(text), start + most)
    found = [Piece("… ")] if start else []
    at = start
    for begin, stop in marks:
        begin, stop = max(begin, start), min(stop, end)
        if begin < stop:
            found += [Piece(visible(text[at:begin])), Piece(visible(text[begin:stop]), marked=True)]
            at = stop
    found += [Piece(visible(text[at:end])), Piece(" …" if end < len(text) else "")]
    return tuple(piece for piece in found if piece.text), len(text) - (end - start)


def _joined(spans: Iterable[Sequence[int]], length: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted((max(0, span[0]), min(length, span[1])) for span in spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif start < end:
            found.append((start, end))
    return found
