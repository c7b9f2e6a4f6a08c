"""What descriptions call the parts of a face, per language, as one table of terms.

A language is a file `<ISO 639-1 code>.toml` beside this module: the words of the 21 labels, the terms that look like
them and are none (`traps`), the words of two senses, the cue words of sides, negation and judgement, and the phrases
that rules look for. Brackets in an entry are optional text, and with bars a choice: "eye( )lid(s)" is four spellings,
"(no|any) flaw" two. What the cues do is grammar, `qc.sides` and `qc.denials`.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import product
from typing import Any

from mmtt_build.errors import ConfigError
from mmtt_build.parts import LABELS
from qc import spelling

KINDS = {
    "left": "l", "right": "r", "both": "o", "two": "2", "each": "O", "side": "s", "edge": "E", "one": "1",
    "determiner": "d", "its": "i", "there": "b", "adverb": "a", "fully": "f", "also": "+", "and": "c", "with": "t",
    "clause": ";", "or": "j", "preposition": "p", "near": "y", "place": "q",
    "copula": "v", "have": "h", "verb": "u", "reach": "R", "pronoun": "I",
    "linker": "e", "compare": "C", "opinion": "K", "doubt": "Q",
    "not": "n", "neither": "Z", "no": "N", "none": "0", "lack": "L", "missing": "M", "visible": "V", "good": "G",
    "due": "W", "sharp": "S", "untouched": "U", "bad": "B", "fit": "F", "do": "D",
    "weaken": "T", "hardly": "H", "if": "Y", "opposed": "x", "except": "X", "as_do": "A", "contrast": "|", "only": "k",
}  # fmt: skip
"""One letter per kind of cue, so that a sentence is a string and a rule of grammar a pattern over it."""

PART, OTHER, VERB = "P", "w", KINDS["verb"]

PLAIN = str.maketrans(
    {
        ":": "v",
        KINDS["two"]: "o",
        KINDS["edge"]: "s",
        KINDS["due"]: "G",
        KINDS["sharp"]: "G",
        KINDS["neither"]: "n",
        KINDS["if"]: "|",
        KINDS["only"]: "|",
        KINDS["its"]: "d",
        KINDS["with"]: "c",
        KINDS["clause"]: ",",
        KINDS["fully"]: "a",
        KINDS["also"]: "a",
        KINDS["there"]: "a",
        KINDS["near"]: "p",
        KINDS["hardly"]: "T",
        KINDS["except"]: "x",
    }
)
"""Kinds that only a few rules tell from wider ones."""

Phrase = tuple[str, ...]


@cache
def _lengths(phrases: frozenset[Phrase]) -> frozenset[int]:
    return frozenset(map(len, phrases))


@dataclass(frozen=True, slots=True)
class Sense:
    """A label that a word has in some surroundings only: phrases that must, or must not, stand next to it."""

    label: str
    before: frozenset[Phrase]
    after: frozenset[Phrase]
    not_before: frozenset[Phrase]
    not_after: frozenset[Phrase]

    def holds(self, words: list[str], start: int, end: int) -> bool:
        """Whether `words[start:end]` has this sense."""

        def follows(phrases: frozenset[Phrase]) -> bool:
            return any(tuple(words[end : end + length]) in phrases for length in _lengths(phrases))

        def precedes(phrases: frozenset[Phrase]) -> bool:
            return any(tuple(words[max(start - length, 0) : start]) in phrases for length in _lengths(phrases))

        return (
            (not self.before or follows(self.before))
            and (not self.after or precedes(self.after))
            and not follows(self.not_before)
            and not precedes(self.not_after)
        )


@dataclass(frozen=True, slots=True)
class Term:
    """What a phrase is.

    Attributes:
        kind: a letter of `KINDS`, `PART`, or `OTHER` for a trap.
        label: of a part.
        absent: the phrase itself says that the part is not there ("toothless").
        senses: of a word of two senses; without one that holds it is an `OTHER`.
    """

    kind: str
    label: str = ""
    absent: bool = False
    senses: tuple[Sense, ...] = ()


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The terms of a language.

    Attributes:
        terms: by their words.
        heads: by a first word, the term that it is alone, or None, and by a second word the number of words of the
            longest term that begins so.
        adverb_suffix: an unknown word that ends so changes nothing; "" for none.
        verb_suffixes: an unknown word right behind a part that ends with one is a verb; none for never.
        plural_suffix: what a word that stands for both sides ends with; "" where nouns have no plural.
    """

    terms: Mapping[Phrase, Term]
    heads: Mapping[str, tuple[Term | None, Mapping[str, int]]]
    adverb_suffix: str
    verb_suffixes: tuple[str, ...]
    plural_suffix: str


LANGUAGES = ("en", "zh")
"""The languages there is a lexicon of."""


@cache
def load(language: str) -> Lexicon:
    """The lexicon of a language, ISO 639-1.

    Raises:
        ConfigError: there is none.
        ValueError: its file contradicts itself.
    """
    if language not in LANGUAGES:
        raise ConfigError(f"there is no lexicon of the language {language!r}", f"one of {', '.join(LANGUAGES)}")
    data = _read(language)
    terms: dict[Phrase, Term] = {}
    for phrase, term in _terms(data):
        if terms.setdefault(phrase, term) != term:
            raise ValueError(f"{language}.toml: {' '.join(phrase)!r} is both {terms[phrase]} and {term}")
    for label, entries in data["labels"].items():
        for word, *rest in _phrases(entries):
            if not rest:
                for typo in _typos(word, data["swap_letters"], data["typo_letters"]):
                    terms.setdefault((typo,), Term(PART, label))
    if prefix := data["sound_prefix"]:
        for word in [phrase[0] for phrase, term in terms.items() if term.kind == KINDS["bad"] and len(phrase) == 1]:
            if word.endswith("ed"):
                terms.setdefault((prefix + word,), Term(KINDS["untouched"]))
    sequels: dict[str, dict[str, int]] = {phrase[0]: {} for phrase in terms}
    for first, *rest in terms:
        if rest:
            sequels[first][rest[0]] = max(sequels[first].get(rest[0], 0), 1 + len(rest))
    heads = {word: (terms.get((word,)), following) for word, following in sequels.items()}
    return Lexicon(terms, heads, data["adverb_suffix"], tuple(data["verb_suffixes"]), data["plural_suffix"])


@dataclass(frozen=True, slots=True)
class Phrases:
    """Phrases that a rule looks for, of one language.

    Attributes:
        pattern: finds them in a folded text.
        needed: by the most telling word of each, the words of all that have it: a text without all of them needs no
            search.
        han: whether they are Chinese.
    """

    pattern: re.Pattern[str]
    needed: Mapping[str, Sequence[frozenset[str]]]
    han: bool

    def find(self, folded: spelling.Folded) -> list[tuple[int, int]]:
        """Start and end of each in a folded text."""
        words = folded.words[0]
        if self.needed.keys().isdisjoint(words) or not any(
            each.issubset(words) for word in self.needed.keys() & words for each in self.needed[word]
        ):
            return []
        return [match.span() for match in self.pattern.finditer(folded.text)]


@cache
def phrases(kind: str) -> list[Phrases]:
    """The phrases of a kind, one entry a language: "original" or "lookalike", see the files."""
    found = []
    for language in LANGUAGES:
        entries = sorted(_phrases(_read(language)["phrases"][kind]), key=len, reverse=True)
        han = re.match(f"[{spelling.HAN}]", entries[0][0]) is not None
        spelled = "|".join(("" if han else r"[\s_-]{1,3}").join(map(re.escape, entry)) for entry in entries)
        pattern = re.compile(f"(?:{spelled})" if han else rf"\b(?:{spelled})\b")
        uses = Counter(word for entry in entries for word in entry)
        needed: dict[str, list[frozenset[str]]] = {}
        for entry in entries:
            telling = max(entry, key=lambda word: (len(word), uses[word]))  # of "right image" the image
            needed.setdefault(telling, []).append(frozenset(entry))
        found.append(Phrases(pattern, needed, han))
    return found


def _read(language: str) -> dict[str, Any]:
    return tomllib.loads((resources.files(__name__) / f"{language}.toml").read_text("utf-8"))


def _terms(data: Mapping[str, Any]) -> Iterator[tuple[Phrase, Term]]:
    if unknown := {*data["labels"], *data["absent"], *(sense["label"] for sense in data["senses"])} - set(LABELS):
        raise ValueError(f"unknown labels {sorted(unknown)}")
    for absent, table in ((False, data["labels"]), (False, data["misspelled"]), (True, data["absent"])):
        for label, words in table.items():
            yield from ((phrase, Term(PART, label, absent)) for phrase in _phrases(words))
    yield from ((phrase, Term(OTHER)) for phrase in _phrases(data["traps"]["words"]))
    senses: dict[Phrase, list[Sense]] = {}
    for entry in data["senses"]:
        sides = (frozenset(_phrases(entry.get(key, ()))) for key in ("before", "after", "not_before", "not_after"))
        sense = Sense(entry["label"], *sides)
        for phrase in _phrases(entry["words"]):
            senses.setdefault(phrase, []).append(sense)
    yield from ((phrase, Term(PART, senses=tuple(found))) for phrase, found in senses.items())
    for name, words in data["cues"].items():
        yield from ((phrase, Term(KINDS[name])) for phrase in _phrases(words))


def _typos(word: str, swap_letters: int, typo_letters: int) -> Iterator[str]:
    """A word with a letter doubled or changed for the next, left out, or another vowel; its first letter stays.

    Args:
        word: spelled right.
        swap_letters: a word as long is mistaken in the first two ways; 0 for never.
        typo_letters: a word as long is mistaken in all; 0 for never.
    """
    for i in range(1, len(word)):
        head, letter, tail = word[:i], word[i], word[i + 1 :]
        if 0 < swap_letters <= len(word):
            yield head + letter + letter + tail
            if tail:
                yield head + tail[0] + letter + tail[1:]
        if 0 < typo_letters <= len(word):
            yield head + tail
            if letter in "aeiou":
                yield from (head + vowel + tail for vowel in "aeiou")


def _phrases(entries: Iterable[str]) -> Iterator[Phrase]:
    for entry in entries:
        pieces = re.split(r"\(([^)]*)\)", entry)
        choices = [
            (piece,) if i % 2 == 0 else piece.split("|") if "|" in piece else ("", piece)
            for i, piece in enumerate(pieces)
        ]
        for spelled in product(*choices):
            yield tuple(spelling.fold("".join(spelled)).words[0])
