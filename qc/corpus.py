"""Descriptions as numbers: their words, hashes of their sentences, and sketches by which alike ones are found.

Words are those of `spelling.fold`: case, width, punctuation and space do not count. All is linear in the length of the
texts, and a description takes some kilobyte, however it is written.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qc.base import Copied
from qc.lexicon import KINDS, LANGUAGES, PART, load
from qc.spelling import HAN, Folded, fold

TEMPLATE_WORDS = 12
"""Shorter sentences are stock phrases; of a description without its parts as many words must be left."""
READ_CHARACTERS = 20_000
"""No more of a text is compared."""
BANDS, ROWS = 16, 4  # finds 95 % of what has 64 of 100 pairs of words in common, 2 % of what has 20

_HAN_SHARE = 2 / 3
"""Of a word says a Chinese character."""
_STOPS = ".!?;\n\u3002"
_MARKS = {code: " " for code in range(128) if not chr(code).isalnum()} | dict.fromkeys(map(ord, _STOPS), ".")
_BYTES = bytes(ord(_MARKS.get(code, chr(code))) for code in range(128)) + bytes(128)  # eight times as fast as _MARKS
_WORDS = re.compile(rf"[{HAN}]|[^\W_{HAN}]+")
_SLOTS = (PART, KINDS["left"], KINDS["right"], KINDS["both"])

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Hashes = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]


class _Numbers(dict[str, int]):
    """Words by number, in the order in which they turn up; `slots` says which a template leaves open."""

    def __init__(self, language: str | None) -> None:
        self.heads = load(language).heads if language in LANGUAGES else {}
        self.slots = array("b")

    def __missing__(self, word: str) -> int:
        term = self.heads.get(word, (None,))[0]
        self.slots.append(term is not None and term.kind in _SLOTS)
        number = self[word] = len(self)
        return number


@dataclass(slots=True)
class Sentences:
    """The long sentences of all texts, column by column.

    Attributes:
        text: number of the text.
        words: hash.
        start: first character.
        end: position after the last one.
    """

    text: array[int] = field(default_factory=lambda: array("q"))
    words: array[int] = field(default_factory=lambda: array("q"))
    start: array[int] = field(default_factory=lambda: array("q"))
    end: array[int] = field(default_factory=lambda: array("q"))

    def add(self, number: int, said: list[int], folded: Folded, start: int, end: int) -> None:
        """Notes the words of `folded.text[start:end]`."""
        self.text.append(number)
        self.words.append(hash(tuple(said)))  # of whole numbers: the same in every process
        inner = folded.text[start:end].strip()
        start = folded.text.index(inner, start)
        start, end = folded.original(start, start + len(inner))
        self.start.append(start)
        self.end.append(end)


class Corpus:
    """All texts as numbers.

    Attributes:
        ids: of the annotations.
        annotators: their names by number.
        by: number of the annotator of each text.
        weights: words of each text, a Chinese character being less than one.
        tokens: numbers of all words of all texts.
        ends: position in `tokens` after each text.
        words: hash of each text.
        skeletons: hash of each text without its parts and sides; 0 where too little is left.
        sketches: (N, BANDS * ROWS) smallest hashes of pairs of words.
        sentences: the long ones.
    """

    def __init__(self, language: str | None) -> None:
        self.ids: list[str] = []
        self.annotators: list[str] = []
        self._number: dict[str, int] = {}
        self._numbers = _Numbers(language)
        self._by, self._weights, self._ends, self._words = array("q"), array("d"), array("q"), array("q")
        self._pieces: list[NDArray[np.uint32]] = []
        self._skeletons: list[Hashes] = []
        self._sketches: list[NDArray[np.uint32]] = []
        self.sentences = Sentences()

    def add(self, batch: list[tuple[str, str, str]]) -> None:
        """Reads the next texts."""
        tokens, ends = array("I"), array("q")
        for name, annotator, text in batch:
            self.ids.append(name)
            if annotator not in self._number:
                self._number[annotator] = len(self.annotators)
                self.annotators.append(annotator)
            self._by.append(self._number[annotator])
            said, weight = self._read(text[:READ_CHARACTERS])
            self._weights.append(weight)
            self._words.append(hash(tuple(said)))
            tokens.extend(said)
            ends.append(len(tokens))
        numbers, upto = np.frombuffer(tokens, np.uint32), np.frombuffer(ends, np.int64)
        before = self._ends[-1] if self._ends else 0
        self._ends.frombytes((upto + before).tobytes())
        slots = np.frombuffer(self._numbers.slots, np.int8) != 0
        self._skeletons.append(_skeletons(numbers, upto, slots[numbers]))
        self._sketches.append(_sketches(numbers, upto))
        self._pieces.append(numbers)

    def _read(self, text: str) -> tuple[list[int], float]:
        """Numbers of a text's words, and how many words they amount to; notes its long sentences."""
        folded = fold(text)
        plain, number_of = folded.text.isascii(), self._numbers.__getitem__
        said: list[int] = []
        weight, at = 0.0, 0
        marked = folded.text.encode().translate(_BYTES).decode() if plain else folded.text.translate(_MARKS)
        for sentence in marked.split("."):
            words = sentence.split() if plain else _WORDS.findall(sentence)
            found = list(map(number_of, words))
            count: float = len(words)
            if not plain:
                count -= (1 - _HAN_SHARE) * sum("\u3400" <= word[0] <= "\ufaff" for word in words)
            if count >= TEMPLATE_WORDS:
                self.sentences.add(len(self.ids) - 1, found, folded, at, at + len(sentence))
            said += found
            weight += count
            at += len(sentence) + 1
        return said, weight

    def close(self) -> None:
        """Makes columns of what was read."""
        self.by, self.weights = np.frombuffer(self._by, np.int64), np.frombuffer(self._weights, np.float64)
        self.ends, self.words = np.frombuffer(self._ends, np.int64), np.frombuffer(self._words, np.int64)
        self.tokens = np.concatenate([np.empty(0, np.uint32), *self._pieces])
        self.skeletons = np.concatenate([np.empty(0, np.uint64), *self._skeletons])
        self.sketches = np.concatenate([np.empty((0, BANDS * ROWS), np.uint32), *self._sketches])

    def of(self, number: int) -> NDArray[np.uint32]:
        """The words of a text."""
        return self.tokens[self.ends[number - 1] if number else 0 : self.ends[number]]

    def spelled(self, number: int) -> str:
        """A text with one character for each word, which is what is compared fastest."""
        letters = self.of(number) % np.uint32(0x110000)
        return letters.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def copied(self, kind: str, of: int, similarity: float = 1.0) -> Copied:
        """That a text's words are those of text number `of`."""
        return Copied(kind, self.ids[of], self.annotators[self.by[of]], similarity)


def mixed(values: Hashes) -> Hashes:
    """Values spread over 64 bits (the finisher of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _starts(ends: Ints) -> Ints:
    return np.concatenate([[0], ends[:-1]])


def _sums(values: Hashes, ends: Ints) -> Hashes:
    """Sums of the runs that end there; runs may be empty."""
    upto = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    return upto[ends] - upto[_starts(ends)]


def _skeletons(tokens: NDArray[np.uint32], ends: Ints, slots: NDArray[np.bool_]) -> Hashes:
    """Hash of each text whose runs of slots are one slot; 0 where fewer than `TEMPLATE_WORDS` other words are left."""
    starts = _starts(ends)
    first = np.zeros(len(tokens), np.bool_)
    first[starts[starts < ends]] = True
    kept = ~slots | first | ~np.concatenate([[False], slots[:-1]])
    upto = np.concatenate([[0], np.cumsum(kept)])
    at = upto[:-1] - np.repeat(upto[starts], ends - starts)  # place among the words that are kept
    letters = np.where(slots, 0, tokens.astype(np.uint64) + np.uint64(1))
    hashes = mixed(letters + (at.astype(np.uint64) << np.uint64(32))) * kept
    left = np.concatenate([[0], np.cumsum(~slots)])
    return np.where(left[ends] - left[starts] >= TEMPLATE_WORDS, _sums(hashes, ends), np.uint64(0))


_FACTORS = np.random.default_rng(7).integers(1, 2**32, BANDS * ROWS, np.uint32) | np.uint32(1)


def _sketches(tokens: NDArray[np.uint32], ends: Ints) -> NDArray[np.uint32]:
    """Of each text, (N, BANDS * ROWS), the smallest hashes of its pairs of words; of one with none, all ones."""
    found = np.full((len(ends), len(_FACTORS)), 2**32 - 1, np.uint32)
    full = np.nonzero(ends - _starts(ends) > 1)[0]
    if not len(full):
        return found
    pairs = (tokens[:-1].astype(np.uint64) << np.uint64(32)) + tokens[1:]
    hashes = (mixed(pairs + np.uint64(1)) >> np.uint64(32)).astype(np.uint32)
    # From the first pair of each text to its last one; between them is the pair that crosses to the next text.
    bounds: Ints = np.column_stack([_starts(ends)[full], ends[full] - 1]).ravel()
    if bounds[-1] == len(hashes):
        bounds = bounds[:-1]
    for column, factor in enumerate(_FACTORS):
        found[full, column] = np.minimum.reduceat(hashes * factor, bounds)[::2]
    return found
