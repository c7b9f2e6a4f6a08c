"""Which mentions of a text only say where another part is, or what it is compared with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from qc.mentions import Mention


def meant(text: str, mentions: Sequence[Mention]) -> list[Mention]:
    """The mentions without those that only say where another part is, or what it is compared with.

    Where a sentence names nothing but one place, that is what it is about: "blur around the left eye".
    """
    found: list[Mention] = []
    for sentence in _sentences(text, mentions):
        found += [mention for mention in sentence if len(sentence) == 1 or not _is_place(text, mention)]
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


def _is_place(text: str, mention: Mention) -> bool:
    """Whether a part only says where another one is, or what that is compared with."""
    before = text[max(mention.start - LOOK_BACK, 0) : mention.start]
    return bool(_PLACE.search(before) or _PLACE_AFTER.match(text, mention.end))


STOP = re.compile(r"[.!?](?:\s|$)|[;。！？；\n]")
"""Where a sentence ends."""
LOOK_BACK = 80
"""Characters before a part that say how it is meant."""
_PLACE = re.compile(
    r"\b(?:near(?:by)?|beside|next to|close to|adjacent to|below|beneath|under(?:neath)?|above|over|behind"
    r"|at|by|around|along|towards?|from|into|to|than|as|like|match(?:es|ing)?|between(?:[^.;,]{1,40}?\band)?"
    r"|(?:consistent|inconsistent|aligned?|level|line|compared|symmetric|asymmetric|merged?|mixe[sd]|fused?) with)\s+"
    r"(?:(?:the|a|an|his|her|its|their|both|left|right|upper|lower|inner|outer|other|corners?|edges?|tips?|sides?|of)"
    r"\s+){0,6}$",
    re.IGNORECASE,
)
_PLACE_AFTER = re.compile("的?(?:[上下左右前后]方|[上下]面|旁边?|附近|周围|之间|[以之][上下])")
