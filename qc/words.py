"""A text as a sequence of terms, each with its kind: the form in which sides and denials are read."""

from __future__ import annotations

from dataclasses import dataclass, field

from qc.lexicon import OTHER, PART, VERB, Lexicon
from qc.spelling import Folded


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
        folded: the text.
        kinds: a letter each, see `qc.lexicon.KINDS`.
        firsts: the index of each one's first word among the words of `folded`, and their number.
        parts: those of kind `PART`, by their index.
    """

    folded: Folded
    kinds: list[str] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    parts: dict[int, Part] = field(default_factory=dict)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Start and end in the folded text of a run of terms."""
        texts, ends = self.folded.words
        start = self.firsts[first]
        return ends[start] - len(texts[start]), ends[self.firsts[last + 1] - 1]


def read(folded: Folded, lexicon: Lexicon) -> Reading:
    """The terms of a folded text, the longest first at every place."""
    texts, ends = folded.words
    reading = Reading(folded)
    kinds, firsts, heads, suffix = reading.kinds, reading.firsts, lexicon.heads, lexicon.adverb_suffix
    count, i = len(texts), 0
    while i < count:
        firsts.append(i)
        text = texts[i]
        i += 1
        if (head := heads.get(text)) is None:
            kinds.append("a" if suffix and text.endswith(suffix) else OTHER if text[0].isalnum() else _mark(text))
            continue
        term, sequels = head
        if i < count and (most := sequels.get(texts[i])):
            for end in range(min(i - 1 + most, count), i, -1):
                if (longer := lexicon.terms.get(tuple(texts[i - 1 : end]))) is not None:
                    term, i = longer, end
                    break
        if term is None:
            kinds.append(OTHER)
        elif term.kind != PART:
            kinds.append(term.kind)
        elif label := term.label or next((s.label for s in term.senses if s.holds(texts, firsts[-1], i)), ""):
            start = ends[firsts[-1]] - len(text)
            plural = texts[i - 1].endswith(lexicon.plural_suffix)
            reading.parts[len(kinds)] = Part(label, start, ends[i - 1], plural, verdict=-2 if term.absent else 0)
            kinds.append(PART)
        else:
            kinds.append(OTHER)
    firsts.append(count)
    for i in reading.parts:
        if i + 1 < len(kinds) and kinds[i + 1] == OTHER and texts[firsts[i + 1]].endswith(lexicon.verb_suffixes):
            kinds[i + 1] = VERB
    return reading


_MARKS = dict.fromkeys(".!?;。", ".") | dict.fromkeys(",()[]、—–-", ",") | dict.fromkeys("&/+", "c") | {":": ":"}
"""The kinds of the marks: a stop, a pause, an "and", a colon."""


def _mark(text: str) -> str:
    return _MARKS.get(text.strip()[:1], ".")  # what is white space altogether is an empty line
