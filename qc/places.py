"""Which mentions of a text only say where another part is, or what it is compared with."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from qc.mentions import Mention


def meant(text: str, mentions: Sequence[Mention]) -> list[Mention]:
    """The mentions without those that only say where another part is, or what it is compared with.

    Where a sentence names nothing but one place, that is what it is about: "blur around the left eye".

    Args:
        text: in lower case.
        mentions: of it.
    """
    places = set(_places(text, mentions))
    if not places:
        return list(mentions)
    found: list[Mention] = []
    for sentence in _sentences(text, mentions):
        found += [mention for mention in sentence if len(sentence) == 1 or mention.start not in places]
    return found


def _sentences(text: str, mentions: Sequence[Mention]) -> Iterator[list[Mention]]:
    """The mentions of each sentence that has any."""
    sentence: list[Mention] = []
    for mention in mentions:
        if sentence and STOP.search(text, sentence[-1].end, mention.start):
            yield sentence
            sentence = []
        sentence.append(mention)
    if sentence:
        yield sentence


def _places(text: str, mentions: Sequence[Mention]) -> Iterator[int]:
    """Where the mentions begin that only say where another part is, or what that is compared with."""
    starts = [mention.start for mention in mentions]
    for pattern in (_BEFORE, _BETWEEN) if "between" in text else (_BEFORE,):
        for found in pattern.finditer(text):
            last = bisect_right(starts, found.end())
            first = bisect_right(starts, found.start("between"), hi=last)
            yield from (start for start in starts[first:last] if text[start - 1].isspace())
    if not text.isascii():
        yield from (mention.start for mention in mentions if _AFTER.match(text, mention.end))


STOP = re.compile(r"[.!?](?:\s|$)|[;。！？；\n]")
"""Where a sentence ends."""
_UPTO = (
    r"(?P<between>)(?:\s+(?:the|a|an|his|her|its|their|both|left|right|upper|lower|inner|outer|other"
    r"|corners?|edges?|tips?|sides?|of)(?=\s)){0,6}\s+"
)
"""What may stand between such a word and the part."""
_BEFORE = re.compile(
    r"\b(?:near(?:by)?|beside|next to|close to|adjacent to|below|beneath|under(?:neath)?|above|over|behind"
    r"|at|by|around|along|towards?|from|into|to|than|as|like|match(?:es|ing)?|between"
    r"|(?:consistent|inconsistent|aligned?|level|line|compared|symmetric|asymmetric|merged?|mixe[sd]|fused?) with)"
    + _UPTO
)
_BETWEEN = re.compile(rf"\bbetween[^.;,]{{1,40}}?\band{_UPTO}")
_AFTER = re.compile("的?(?:[上下左右前后]方|[上下]面|旁边?|附近|周围|之间|[以之][上下])")
