"""Descriptions as numbers: their words, hashes of their sentences, and sketches by which alike ones are found.

Words are those of `spelling.fold`: case, width, punctuation and space do not count. All is linear in the length of the
texts, and a description takes some kilobyte, however it is written.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qc.base import Copied
from qc.lexicon import KINDS, LANGUAGES, PART, load
from qc.spelling import HAN, fold

TEMPLATE_WORDS = 12
"""Shorter sentences are stock phrases; of a description without its parts as many words must be left."""
READ_CHARACTERS = 20_000
"""No more of a text is compared."""
BANDS, ROWS = 16, 4  # finds 95 % of what has 64 of 100 pairs of words in common, 2 % of what has 20

_WORD, _HAN_WORD = 3, 2
"""What a word says, in thirds, and a Chinese character."""
_STOPS = ".!?;\n\u3002"
_END, _STOP = "\0", "."
"""What ends a text and a sentence among words; they have the numbers 0 and 1."""
_MARKS = {code: " " for code in range(128) if not chr(code).isalnum()} | dict.fromkeys(map(ord, _STOPS), _STOP)
_BYTES = bytes(ord(_MARKS.get(code, chr(code))) for code in range(128)) + bytes(128)  # eight times as fast as _MARKS
_WORDS = re.compile(rf"[{HAN}]|[^\W_{HAN}]+|\.")
_IS_HAN = re.compile(f"[{HAN}]")
_IS_STOP = re.compile(f"[{_STOPS}]")
_SLOTS = (PART, KINDS["left"], KINDS["right"], KINDS["both"])

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Hashes = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]


class _Numbers(dict[str, int]):
    """Words by number, in the order in which they turn up.

    Attributes:
        slots: of each number whether a template leaves the word open.
        thirds: of each number how much the word says.
    """

    def __init__(self, language: str | None) -> None:
        self.heads = load(language).heads if language in LANGUAGES else {}
        self.slots, self.thirds = array("b"), array("b")
        for mark in (_END, _STOP):
            self.__missing__(mark)

    def __missing__(self, word: str) -> int:
        term = self.heads.get(word, (None,))[0]
        self.slots.append(term is not None and term.kind in _SLOTS)
        self.thirds.append(_HAN_WORD if _IS_HAN.match(word) else _WORD)
        number = self[word] = len(self)
        return number


class Corpus:
    """All texts as numbers.

    Attributes:
        ids: of the annotations.
        texts: what they say.
        annotators: their names by number.
        by: number of the annotator of each text.
        weights: words of each text, a Chinese character being less than one.
        tokens: numbers of all words of all texts.
        ends: position in `tokens` after each text.
        words: hash of each text.
        skeletons: hash of each text without its parts and sides; 0 where too little is left.
        sketches: (N, BANDS * ROWS) smallest hashes of pairs of words.
        sentences: (S, 3) of the long ones: the text's number, which sentence of it, and its hash.
    """

    def __init__(self, language: str | None) -> None:
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.annotators: list[str] = []
        self._number: dict[str, int] = {}
        self._numbers = _Numbers(language)
        self._by = array("q")
        self._read: list[tuple[NDArray[Any], ...]] = []
        self._length = 0

    def add(self, batch: Sequence[tuple[str, str, str]]) -> None:
        """Reads the next texts."""
        first = len(self.ids)
        for name, annotator, text in batch:
            self.ids.append(name)
            self.texts.append(text)
            if annotator not in self._number:
                self._number[annotator] = len(self.annotators)
                self.annotators.append(annotator)
            self._by.append(self._number[annotator])
        # The words of all texts at once: text by text it would take several times as long.
        joined = _END.join([_marked(text) for _, _, text in batch])
        words = joined.replace(_STOP, f" {_STOP} ").replace(_END, f" {_END} ").split()
        numbers = np.fromiter(map(self._numbers.__getitem__, words), np.uint32, len(words))
        is_end, is_word = numbers == 0, numbers > 1
        before = np.concatenate([[0], np.cumsum(~is_word)[is_end]])  # marks before each text
        tokens, number, stops = numbers[is_word], np.cumsum(is_end)[is_word], np.cumsum(~is_word)[is_word]
        ends = np.searchsorted(number, np.arange(len(batch)), side="right")
        thirds = np.frombuffer(self._numbers.thirds, np.int8)[tokens]
        last = np.nonzero(np.diff(stops, append=-1))[0]  # words of sentences
        long = _sums(thirds.astype(np.uint64), last + 1) >= _WORD * TEMPLATE_WORDS
        of, stops = number[last[long]], stops[last[long]]
        self._read.append(
            (
                tokens,
                ends + self._length,
                np.bincount(number, thirds, len(batch)) / _WORD,
                _hashes(tokens, ends).view(np.int64),
                _skeletons(tokens, ends, np.frombuffer(self._numbers.slots, np.int8)[tokens] != 0),
                _sketches(tokens, ends),
                np.column_stack([first + of, stops - before[of], _hashes(tokens, last + 1)[long].view(np.int64)]),
            )
        )
        self._length += len(tokens)

    def close(self) -> None:
        """Makes columns of what was read."""
        if not self._read:
            self.add([])
        self.by = np.frombuffer(self._by, np.int64)
        columns = map(np.concatenate, zip(*self._read, strict=True))
        self.tokens, self.ends, self.weights, self.words, self.skeletons, self.sketches, self.sentences = columns

    def of(self, number: int) -> NDArray[np.uint32]:
        """The words of a text."""
        return self.tokens[self.ends[number - 1] if number else 0 : self.ends[number]]

    def spelled(self, number: int) -> str:
        """A text with one character for each word, which is what is compared fastest."""
        letters = self.of(number) % np.uint32(0x110000)
        return letters.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def place(self, number: int, sentence: int) -> tuple[int, int]:
        """Start and end of a sentence in its text."""
        folded = fold(self.texts[number][:READ_CHARACTERS])
        stops = [-1, *(stop.start() for stop in _IS_STOP.finditer(folded.text)), len(folded.text)]
        piece = folded.text[stops[sentence] + 1 : stops[sentence + 1]]
        end = stops[sentence] + 1 + len(piece.rstrip())
        return folded.original(end - len(piece.strip()), end)

    def copied(self, kind: str, of: int, similarity: float = 1.0) -> Copied:
        """That a text's words are those of text number `of`."""
        return Copied(kind, self.ids[of], self.annotators[self.by[of]], similarity)


def _marked(text: str) -> str:
    """A text's words, spaces and full stops."""
    folded = fold(text[:READ_CHARACTERS]).text
    if folded.isascii():
        return folded.encode().translate(_BYTES).decode()
    return " ".join(_WORDS.findall(folded.translate(_MARKS)))


def mixed(values: Hashes) -> Hashes:
    """Values spread over 64 bits (the finisher of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _starts(ends: Ints) -> Ints:
    return np.concatenate([[0], ends[:-1]])[: len(ends)]


def _sums(values: Hashes, ends: Ints) -> Hashes:
    """Sums of the runs that end there; runs may be empty."""
    upto = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    return upto[ends] - upto[_starts(ends)]


def _hashes(tokens: NDArray[np.uint32], ends: Ints) -> Hashes:
    """Hash of each run of words that ends there, by their order."""
    at = np.arange(len(tokens)) - np.repeat(_starts(ends), np.diff(ends, prepend=0))
    return _sums(_placed(tokens.astype(np.uint64) + np.uint64(1), at), ends)


def _placed(letters: Hashes, at: Ints) -> Hashes:
    return mixed(letters + (at.astype(np.uint64) << np.uint64(32)))


def _skeletons(tokens: NDArray[np.uint32], ends: Ints, slots: NDArray[np.bool_]) -> Hashes:
    """Hash of each text whose runs of slots are one slot; 0 where fewer than `TEMPLATE_WORDS` other words are left."""
    starts = _starts(ends)
    first = np.zeros(len(tokens), np.bool_)
    first[starts[starts < ends]] = True
    kept = ~slots | first | ~np.concatenate([[False], slots[:-1]])
    upto = np.concatenate([[0], np.cumsum(kept)])
    at = upto[:-1] - np.repeat(upto[starts], ends - starts)  # place among the words that are kept
    letters = np.where(slots, 0, tokens.astype(np.uint64) + np.uint64(1))
    hashes = _placed(letters, at) * kept
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
