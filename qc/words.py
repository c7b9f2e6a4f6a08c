"""A text as a sequence of terms, each with its kind: the form in which sides and denials are read."""

from __future__ import annotations

from dataclasses import dataclass, field

from qc.lexicon import OTHER, PART, Lexicon
from qc.spelling import Folded, words


@dataclass(slots=True)
class Part:
    """A part of the face that a text names.

    Attributes:
        label: of `parts.LABELS`.
        start: position in the folded text.
        end: position after it.
        plural: whether it can stand for both sides.
        side: "left", "right", "both" or None.
        spoken_of: whether the side is that of a later "the left one".
        verdict: 1 claimed, -1 cleared, -2 missing, 0 neither.
    """

    label: str
    start: int
    end: int
    plural: bool = False
    side: str | None = None
    spoken_of: bool = False
    verdict: int = 0


@dataclass(slots=True)
class Reading:
    """The terms of a text, and the words and marks that are none.

    Attributes:
        kinds: a letter each, see `qc.lexicon.KINDS`.
        spans: start and end of each in the folded text.
        parts: those of kind `PART`, by their index.
    """

    kinds: list[str] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    parts: dict[int, Part] = field(default_factory=dict)


def read(folded: Folded, lexicon: Lexicon) -> Reading:
    """The terms of a folded text, the longest first at every place."""
    texts, ends = words(folded.text)
    reading = Reading()
    kinds, spans = reading.kinds, reading.spans
    singles, sequels, terms, suffix = lexicon.singles, lexicon.sequels, lexicon.terms, lexicon.adverb_suffix
    count, i = len(texts), 0
    while i < count:
        text = texts[i]
        term, size = singles.get(text), 1
        if text in sequels and i + 1 < count and (most := sequels[text].get(texts[i + 1])):
            for longer in range(min(most, count - i), 1, -1):
                if (found := terms.get(tuple(texts[i : i + longer]))) is not None:
                    term, size = found, longer
                    break
        start, end = ends[i] - len(text), ends[i + size - 1]
        if term is None:
            kinds.append("a" if suffix and text.endswith(suffix) else OTHER if text[0].isalnum() else _mark(text))
        elif term.kind != PART:
            kinds.append(term.kind)
        elif label := term.label or next((s.label for s in term.senses if s.holds(texts, i, i + size)), ""):
            plural = texts[i + size - 1].endswith(lexicon.plural_suffix)
            reading.parts[len(kinds)] = Part(label, start, end, plural, verdict=-2 if term.absent else 0)
            kinds.append(PART)
        else:
            kinds.append(OTHER)
        spans.append((start, end))
        i += size
    return reading


_MARKS = dict.fromkeys(".!?;。", ".") | dict.fromkeys(",()[]、—–-", ",") | dict.fromkeys("&/+", "c") | {":": "v"}
"""The kinds of the marks: a stop, a pause, an "and"; a colon is an "is", as in "nose: natural"."""


def _mark(text: str) -> str:
    return _MARKS.get(text.strip()[:1], ".")  # what is white space altogether is an empty line
