"""Which side a mention means: "left eye", "the eye on the left", "both eyes", "the eyes, especially the left one".

Works on the kinds of a text's words (`qc.lexicon.KINDS`), like `qc.denials`. The side is the one that the text says;
whether it means the subject's or the viewer's is not in the words.
"""

from __future__ import annotations

import re

from qc.lexicon import OTHER, PART, PLAIN
from qc.words import Part, Reading

PAIRED = frozenset({"eye", "pupil", "ear", "cheek", "eyebrow"})
"""Labels of parts that a face has two of."""
_COUNTED = PAIRED | {"nose", "lip", "dimple"}  # both nostrils, both lips, both dimples; "two front teeth" are no sides

_CLAUSE = 60  # words that a side reaches at most

_SIDE = {"l": "left", "r": "right", "o": "both", "O": "both"}

_LEFT_AND_RIGHT = re.compile(r"(?:l[cj]d?r|r[cj]d?l|lr|rl)(?=([aeswBG]{0,3}P))")
_BEFORE = re.compile(r"[lroO](?=([wadeBGUTVM]{0,4}P|[wa]{0,2}s[wa]?[peq]{0,2}[dwae]{0,3}P))")
_AFTER = re.compile(
    r"P(?:p[dw]{0,2}([lr])s?+(?![waesBG]{0,3}P|p)|q[dw]{0,2}([lroO])s?+(?![waesBG]{0,3}P|[pe]{1,2}[dwa]{0,3}P))"
)
_NEITHER = re.compile(r"Z([waBG]{0,2}P)(?!j)")  # neither ear, but not "neither ear nor nose"
_BESIDE = re.compile(r"P(?:,?e?([lr])(?=[,.|vhnNBMG]|$)|([lr])(?=[ws])(?!.{0,4}[lr]))")  # the cheek (left) is darker
_APART = re.compile(  # the left one of the two ears; the right half of the face, especially the eye
    r"[lr]1p[do2]{0,2}P|[lr]s[pe]d?w,?[aR]d?P(?:,?c?d?P){0,4}"
)
_OF_TWO = re.compile(r"p[di]?[2oO]w?(P),?[ka]?d?([lr])1?")  # of the two ears, the left one
_CORRECTED = re.compile(r"([lr])1?,?\|?[nx]d?[lr]1?,?[wa]{0,2}(P)")  # the left, not the right, ear
_TWICE = re.compile(r"P,?(?:d?(?:l[cj]d?r|r[cj]d?l)1?|o)(?=[,.]|$)")  # the ears, left and right; the ears, both of them
_COUNT = re.compile("[hv]a?2(?=P)")  # has two pupils: that is their number
_AT_THE_END = re.compile(r"(?<!C)q[dw]{0,2}([lr]|o(?=s))s?+(?=[,.|cC]|$)")  # the cheek is darker on the left
_IN_FRONT = re.compile(r"(?:^|[.|,])q[dw]{0,2}([lr])s?+(?:pd?w)?,")  # on the left, the cheek is darker
_ONE = re.compile(r"[lr](?:1|(?<=d.)(?=[vhu,.|cjnLNMa]|$)|(?<=[,.|v].)(?=[vh])|(?<=^.)(?=[vh]))")
_SHARED = re.compile(r"P(?=(?:[,cj]{1,2}|e|)w?P)")
_PLACED = re.compile(r"P(?=[pqe]{1,2}d?[lr][wa]{0,2}P)")
_GOOD = re.compile(r"[vn]a{0,3}r(?=[,.|cx]|$)")


_CUES = frozenset("lroO2Z")


def assign(reading: Reading) -> None:
    """Sets the sides of a text's parts.

    A "right one" that stands for a further part becomes a part itself, and the "right" of "looks right" a judgement.
    """
    parts = reading.parts
    if _CUES.isdisjoint(reading.kinds):
        return
    exact = "".join(reading.kinds)
    kinds = exact.translate(PLAIN)
    used = {found.end() - 1 for found in _COUNT.finditer(exact)} if "2" in exact else set()
    for found in _NEITHER.finditer(exact) if "Z" in exact else ():
        part = parts[found.end(1) - 1]
        if part.label in _COUNTED and not part.plural:
            part.side = "both"
    opposites = "l" in kinds and "r" in kinds
    for found in _LEFT_AND_RIGHT.finditer(kinds) if opposites else ():
        parts[found.end(1) - 1].side = "both"
        used.update(range(*found.span()))
    for found in _APART.finditer(exact) if "1" in exact or "s" in exact else ():
        for i in range(*found.span()):
            if i in parts and parts[i].label in PAIRED:
                parts[i].side = _SIDE[kinds[found.start()]]
                used.update(range(found.start(), i))
    for found in _OF_TWO.finditer(exact) if "o" in kinds else ():
        parts[found.start(1)].side = _SIDE[found[2]]
        used.update(range(*found.span()))
    for found in _CORRECTED.finditer(kinds) if opposites else ():
        parts[found.start(2)].side = _SIDE[found[1]]
        used.update(range(*found.span()))
        for i in range(*found.span()):
            if kinds[i] in "nx":
                reading.kinds[i] = OTHER
    for found in _TWICE.finditer(kinds) if opposites or "o" in kinds else ():
        if parts[found.start()].label in _COUNTED:
            parts[found.start()].side = "both"
            used.update(range(*found.span()))
    _before(parts, kinds, used)
    for pattern in (_AFTER, _BESIDE):
        for found in pattern.finditer(kinds):
            at = found.start(found.lastindex or 0)
            if at not in used and parts[found.start()].side is None:
                parts[found.start()].side = _SIDE[kinds[at]]
                used.add(at)
    if len(parts) > 1:
        _share(parts, kinds)
    if "q" in kinds:
        _of_the_clause(parts, kinds, used)
    for found in _GOOD.finditer(kinds) if "r" in kinds else ():
        if found.end() - 1 not in used:
            reading.kinds[found.end() - 1] = "G"
    for found in _ONE.finditer(kinds):
        if found.start() not in used and reading.kinds[found.start()] != "G":
            _one(reading, kinds, found)


def _before(parts: dict[int, Part], kinds: str, used: set[int]) -> None:
    """The left eye; the left corner of the mouth; both eyes."""
    for found in _BEFORE.finditer(kinds):
        start, end = found.start(), found.end(1) - 1
        kind, gap, part = kinds[start], kinds[start + 1 : end], parts[end]
        if start in used or part.side is not None:
            continue
        if "s" not in gap:
            if kind in "lrO" and "d" in gap:
                continue  # it left the nose as it was; either the nose or the mouth
            if kind in "oO" and part.label not in _COUNTED:
                continue
            correlative = "d" in gap and kinds[end + 1 : end + 2] == "c"  # both the eyes and the mouth
            if kind == "o" and (not part.plural or correlative):
                continue
        part.side = _SIDE[kind]
        used.add(start)


def _share(parts: dict[int, Part], kinds: str) -> None:
    """The left eye and eyebrow; the left eye's pupil; the lid of the left eye; the cheek below the left eye."""
    for found in _PLACED.finditer(kinds):
        part, other = parts[found.start()], parts[kinds.index(PART, found.end())]
        if part.side is None and {part.label, other.label} <= PAIRED and other.side in ("left", "right"):
            part.side = other.side
    for found in _SHARED.finditer(kinds):
        first, second = parts[found.start()], parts[kinds.index(PART, found.end())]
        number = first.side in ("left", "right") and (not second.plural or not first.plural)
        if first.side and second.side is None and {first.label, second.label} <= PAIRED and (number or second.plural):
            second.side = first.side


def _of_the_clause(parts: dict[int, Part], kinds: str, used: set[int]) -> None:
    """A side said of the only part of a clause, before or after it."""
    for pattern, ahead in ((_AT_THE_END, False), (_IN_FRONT, True)):
        for found in pattern.finditer(kinds):
            at = found.start(1)
            if at in used:
                continue
            if ahead:
                ends = [end for mark in ".|" if (end := kinds.find(mark, found.end(), found.end() + _CLAUSE)) >= 0]
                clause = range(found.end(), min([*ends, found.end() + _CLAUSE, len(kinds)]))
            else:
                first = max(found.start() - _CLAUSE, 0)
                starts = [kinds.rfind(mark, first, found.start()) + 1 for mark in ".|"]
                clause = range(max([*starts, first]), found.start())
                if PART not in kinds[clause.start : clause.stop]:  # sharp on the left but smeared on the right
                    clause = range(max(starts[0], first), found.start())
            named = [parts[i] for i in clause if kinds[i] == PART]
            single = len(named) == 1 and (kinds[at] != "o" or named[0].label in PAIRED)
            if single and (named[0].side is None or named[0].spoken_of):
                _speak(named[0], _SIDE[kinds[at]])
                used.add(at)


def _one(reading: Reading, kinds: str, found: re.Match[str]) -> None:
    """The eyes, especially the left one; the left eye is red and the right one blue."""
    start = found.start()
    before = kinds[max(start - 3, 0) : start].rstrip("da")
    if before[-1:] in ("p", "q") and kinds[found.end() - 1] != "1":
        return  # on the left, to the right
    for i in range(start - 1, max(start - _CLAUSE, -1), -1):
        if kinds[i] == PART and reading.parts[i].label in PAIRED:
            break
        if kinds[i] == "." and "." in kinds[i + 1 : start]:
            return
    else:
        return
    part, side = reading.parts[i], _SIDE[kinds[start]]
    if part.side is None or part.spoken_of:
        _speak(part, side)
    elif part.side != side and before[-1:] != "C":
        reading.kinds[start] = PART
        reading.parts[start] = Part(part.label, *reading.span(start, found.end() - 1), side=side)


def _speak(part: Part, side: str) -> None:
    """A side said of a part from afar; two of them are both."""
    part.side = side if part.side in (None, side) else "both"
    part.spoken_of = True
