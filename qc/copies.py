"""Copied words: descriptions that are the same as an earlier one or nearly so, and templates.

Words are compared, after `spelling.fold`: case, width, punctuation and space do not count. Of two descriptions with the
same words the later one is the copy, unless the words are such that two may well write them: many faces have a left eye
that is larger than the right one, and there are few ways to say so (`_Chance`).

All is held as numbers, some kilobyte a description, and takes time linear in the length of all: nearly equal ones are
found by MinHash (Broder 1997) on pairs of words, in buckets of a few sketch values each, in which a description is
compared with the first and with the last one before it only.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import comb, expm1, log

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel

from mmtt_build.config import Qc
from mmtt_build.records import Annotation
from qc.base import Context, Copied, Evidence, Severity, rule
from qc.lexicon import KINDS, LANGUAGES, PART, load
from qc.spelling import HAN, Folded, fold

LEAST_WORDS = 5
"""Shorter descriptions are no copies."""
NEAR_WORDS = 10
"""Shorter ones are no near-copies: one word of ten is what they may differ in."""
CHANCE = 0.001
"""Below this probability that two write the same by chance, they did not."""
_MODELLED = 5_000
"""Texts that show well enough which words are usual."""
TEMPLATE_WORDS = 12
"""Shorter sentences are stock phrases; of a description without its parts as many words must be left."""
TEMPLATE_SHARE = 0.01
"""Of an annotator's descriptions have a template at least: whoever writes 5,000 says many a thing ten times."""
TEXT_SHARE = 0.05
"""The same of a short description that is used as it is: few parts of a face can be at fault, and in few ways."""
READ_CHARACTERS = 20_000
"""No more of a text is compared."""

_HAN_SHARE = 2 / 3
"""Of a word says a Chinese character."""
_BANDS, _ROWS = 16, 4  # finds 95 % of what has 64 of 100 pairs of words in common, 2 % of what has 20
_LIKELY = 0.5
"""Share of equal sketch values from which on descriptions are compared; with 9 of 10 equal words it is about 0.65."""
_COMPARED = 4
"""Earlier descriptions, the likeliest first, with which one is compared."""
_AT_ONCE = 2048

_STOPS = ".!?;\n\u3002"
_MARKS = {code: " " for code in range(128) if not chr(code).isalnum()} | dict.fromkeys(map(ord, _STOPS), ".")
_BYTES = bytes(ord(_MARKS.get(code, chr(code))) for code in range(128)) + bytes(128)  # eight times as fast
_WORDS = re.compile(rf"[{HAN}]|[^\W_{HAN}]+")
_SLOTS = (PART, KINDS["left"], KINDS["right"], KINDS["both"])

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Hashes = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def find(texts: Iterable[tuple[str, str, str]], thresholds: Qc, language: str | None) -> dict[str, tuple[Copied, ...]]:
    """The descriptions whose words are an earlier one's, too.

    Args:
        texts: annotation id, annotator and description, the earliest first.
        thresholds: of the recipe.
        language: whose parts and sides are what a template leaves open; without a lexicon of it nothing is.

    Returns:
        By annotation id, of each kind one at most: "same" alone, else "near" and "template".
    """
    corpus = _Corpus(language)
    for batch in _batches(texts):
        corpus.add(batch)
    corpus.close()
    same = _same(corpus)
    near = _near(corpus, thresholds.near_duplicate, np.array(sorted(same), np.int64))
    chance = _Chance(corpus, np.setdiff1d(np.arange(len(corpus.ids)), [*same, *near]))
    copies: dict[int, list[Copied]] = {}
    unlikely: dict[int, bool] = {}
    for number, of in same.items():
        words = int(corpus.words[number])
        if words not in unlikely:
            unlikely[words] = chance.of(number) < CHANCE
        if unlikely[words]:
            copies[number] = [corpus.copied("same", of)]
    for number, (alike, of) in near.items():
        if chance.of(number, alike) < CHANCE:
            copies[number] = [corpus.copied("near", of, alike)]
    for number, copied in _templates(corpus, thresholds.template_uses):
        found = copies.setdefault(number, [])
        if all(other.kind == "near" for other in found):
            found.append(copied)
    return {corpus.ids[number]: tuple(found) for number, found in sorted(copies.items())}


def _batches(texts: Iterable[tuple[str, str, str]]) -> Iterator[list[tuple[str, str, str]]]:
    batch: list[tuple[str, str, str]] = []
    for one in texts:
        batch.append(one)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


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
class _Sentences:
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


class _Corpus:
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
        sketches: (N, _BANDS * _ROWS) smallest hashes of pairs of words.
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
        self.sentences = _Sentences()

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
        self.sketches = np.concatenate([np.empty((0, _BANDS * _ROWS), np.uint32), *self._sketches])

    def of(self, number: int) -> NDArray[np.uint32]:
        """The words of a text."""
        return self.tokens[self.ends[number - 1] if number else 0 : self.ends[number]]

    def spelled(self, number: int) -> str:
        """A text with one character for each word, which is what is compared fastest."""
        letters = self.of(number) % np.uint32(0x110000)
        return letters.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def copied(self, kind: str, of: int, similarity: float = 1.0) -> Copied:
        return Copied(kind, self.ids[of], self.annotators[self.by[of]], similarity)


def _mixed(values: Hashes) -> Hashes:
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
    hashes = _mixed(letters + (at.astype(np.uint64) << np.uint64(32))) * kept
    left = np.concatenate([[0], np.cumsum(~slots)])
    return np.where(left[ends] - left[starts] >= TEMPLATE_WORDS, _sums(hashes, ends), np.uint64(0))


_FACTORS = np.random.default_rng(7).integers(1, 2**32, _BANDS * _ROWS, np.uint32) | np.uint32(1)


def _sketches(tokens: NDArray[np.uint32], ends: Ints) -> NDArray[np.uint32]:
    """Of each text, (N, _BANDS * _ROWS), the smallest hashes of its pairs of words; of one with none, all ones."""
    found = np.full((len(ends), len(_FACTORS)), 2**32 - 1, np.uint32)
    full = np.nonzero(ends - _starts(ends) > 1)[0]
    if not len(full):
        return found
    pairs = (tokens[:-1].astype(np.uint64) << np.uint64(32)) + tokens[1:]
    hashes = (_mixed(pairs + np.uint64(1)) >> np.uint64(32)).astype(np.uint32)
    # From the first pair of each text to its last one; between them is the pair that crosses to the next text.
    bounds: Ints = np.column_stack([_starts(ends)[full], ends[full] - 1]).ravel()
    if bounds[-1] == len(hashes):
        bounds = bounds[:-1]
    for column, factor in enumerate(_FACTORS):
        found[full, column] = np.minimum.reduceat(hashes * factor, bounds)[::2]
    return found


class _Chance:
    """How likely it is that somebody who writes as all do writes the very words of a text.

    By how often a word follows the `_ORDER` - 1 words before it, smoothed by how often it follows fewer of them (Witten
    and Bell 1991), in texts that are no copies: what is pasted a thousand times is no more usual for it. Of what is
    rated here one use is left out.
    """

    def __init__(self, corpus: _Corpus, texts: Ints) -> None:
        texts = texts[:: max(1, len(texts) // _MODELLED)]
        self.corpus = corpus
        self.orders = [_Order(*run) for run in _runs([corpus.of(number) for number in texts.tolist()])]

    def of(self, number: int, alike: float = 1.0) -> float:
        """Probability that a text's words, or words so much alike, turn up a second time by chance."""
        share: Floats | float = 1 / len(self.orders[0].runs)
        for order, run in zip(self.orders, _runs([self.corpus.of(number)]), strict=True):
            share = order.share(*run, share)
        logs = np.sort(np.log(share))
        free = round((1 - alike) * len(logs))  # words that differ, and they may be any
        expected = float(np.exp(logs[free:].sum() + log(len(self.corpus.ids)) + log(comb(len(logs), free))))
        return -expm1(-expected)


_ORDER = 4


class _Order:
    """How often runs of so many words turn up, and of the words before their last one how often and before how many."""

    def __init__(self, runs: Hashes, before: Hashes) -> None:
        self.runs, at, self.counts = np.unique(np.append(runs, _NONE), return_index=True, return_counts=True)
        self.before, self.times = np.unique(np.append(before, _NONE), return_counts=True)
        self.followers = np.bincount(
            np.searchsorted(self.before, np.append(before, _NONE)[at]), minlength=len(self.before)
        )

    def share(self, runs: Hashes, before: Hashes, shorter: Floats | float) -> Floats:
        """Of the uses of the words before, those with the last one; `shorter` is the same for the next shorter runs."""
        count = _looked_up(self.runs, self.counts, runs)
        times = np.maximum(_looked_up(self.before, self.times, before) - 1, 0)
        followers = _looked_up(self.before, self.followers, before) - (count == 1)
        all_of = times + followers
        return np.where(all_of > 0, (np.maximum(count - 1, 0) + followers * shorter) / np.maximum(all_of, 1), shorter)


_NONE = np.uint64(2**64 - 1)


def _looked_up(keys: Hashes, values: Ints, wanted: Hashes) -> Ints:
    at = np.searchsorted(keys, wanted)
    at[at == len(keys)] = 0
    return np.where(keys[at] == wanted, values[at], 0)


def _runs(texts: list[NDArray[np.uint32]]) -> list[tuple[Hashes, Hashes]]:
    """For 1 to `_ORDER`, of each word of texts hashes of the run of so many words up to it, and of the others of it."""
    gap = np.zeros(_ORDER - 1, np.uint64)  # before the first word of each text
    letters: Hashes = np.concatenate([gap, *(piece for text in texts for piece in (text + np.uint64(1), gap))])
    words = np.nonzero(letters)[0]
    run, found = np.zeros_like(letters), []
    for length in range(_ORDER):
        before, run = run, _mixed(run + np.concatenate([gap[:length], letters[: len(letters) - length]]))
        found.append((run[words], before[words - 1] if length else before[words]))
    return found


def _same(corpus: _Corpus) -> dict[int, int]:
    """Texts with the words of an earlier one, and which: the same annotator's if there is one, else the first."""
    chosen = np.nonzero(corpus.weights >= LEAST_WORDS)[0]
    order = chosen[np.lexsort((chosen, corpus.by[chosen], corpus.words[chosen]))]
    if not len(order):
        return {}
    words, by = corpus.words[order], corpus.by[order]
    new_words = np.concatenate([[True], words[1:] != words[:-1]])
    new_by = new_words | np.concatenate([[True], by[1:] != by[:-1]])
    own = order[np.maximum.accumulate(np.where(new_by, np.arange(len(order)), 0))]
    runs = np.nonzero(new_words)[0]
    first = np.repeat(np.minimum.reduceat(order, runs), np.diff([*runs, len(order)]))
    of = np.where(own < order, own, first)
    copies = of < order
    return dict(zip(order[copies].tolist(), of[copies].tolist(), strict=True))


def _near(corpus: _Corpus, least: float, same: Ints) -> dict[int, tuple[float, int]]:
    """Texts, those aside that are the same as others, with nearly the words of an earlier one: how alike, and which."""
    found: dict[int, tuple[float, int]] = {}
    wanted = corpus.weights >= NEAR_WORDS
    wanted[same] = False
    chosen = np.nonzero(wanted)[0]
    sketches, lengths = corpus.sketches[chosen], np.diff(corpus.ends, prepend=0)
    earlier = np.empty((len(chosen), 2 * _BANDS), np.int32)  # numbers among the chosen; one's own for none
    for band in range(_BANDS):
        earlier[:, 2 * band : 2 * band + 2] = _in_bucket(sketches[:, band * _ROWS : (band + 1) * _ROWS])
    bytewise = sketches.astype(np.uint8)  # the lowest of each value tells enough
    for start in range(0, len(chosen), _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, len(chosen)))
        row, column = np.nonzero(earlier[rows] != rows[:, None])
        keys = np.unique(rows[row] * len(chosen) + earlier[rows[row], column])
        number, other = keys // len(chosen), keys % len(chosen)
        alike = (bytewise[number] == bytewise[other]).mean(axis=1)
        mine, theirs = lengths[chosen[number]], lengths[chosen[other]]
        likely = np.nonzero((alike >= _LIKELY) & (2 * np.minimum(mine, theirs) >= least * (mine + theirs)))[0]
        likely = likely[np.lexsort((other[likely], -alike[likely], number[likely]))]
        found |= _compared(corpus, chosen[number[likely]].tolist(), chosen[other[likely]].tolist(), least)
    return found


def _in_bucket(values: NDArray[np.uint32]) -> Ints:
    """For each row of values, (N, 2): the first row that equals it, and the last one before it; itself for none."""
    key: Hashes = np.zeros(len(values), np.uint64)
    for column in values.T:
        key = _mixed(key + column)
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(order)]
    at = np.arange(len(order))
    first = order[np.maximum.accumulate(np.where(new, at, 0))]
    last = np.where(new, order, order[at - 1])
    found = np.empty((len(order), 2), np.int64)
    found[order] = np.column_stack([first, last])
    return found


def _compared(corpus: _Corpus, numbers: list[int], others: list[int], least: float) -> dict[int, tuple[float, int]]:
    """Of pairs, a text's likeliest first, those that are as alike as they must be; of a text the best."""
    best: dict[int, tuple[float, int]] = {}
    tried: dict[int, int] = {}
    for number, other in zip(numbers, others, strict=True):
        if tried.setdefault(number, 0) == _COMPARED:
            continue
        tried[number] += 1
        alike = Indel.normalized_similarity(corpus.spelled(number), corpus.spelled(other), score_cutoff=least)
        if alike >= least and alike > best.get(number, (0.0, 0))[0]:
            best[number] = (alike, other)
    return best


def _templates(corpus: _Corpus, uses: int) -> Iterator[tuple[int, Copied]]:
    """Texts whose long sentence, or words, or words but for the parts one annotator uses again and again."""
    written = np.bincount(corpus.by, minlength=len(corpus.annotators))
    sentences = corpus.sentences
    text, words = (np.frombuffer(column, np.int64) for column in (sentences.text, sentences.words))
    whole = np.nonzero(corpus.weights >= LEAST_WORDS)[0]
    skeletons = np.nonzero(corpus.skeletons)[0]
    best: dict[int, Copied] = {}
    for kind, numbers, hashes, share in (
        ("sentence", text, words, TEMPLATE_SHARE),
        ("text", whole, corpus.words[whole], TEXT_SHARE),
        ("skeleton", skeletons, corpus.skeletons[skeletons].view(np.int64), TEMPLATE_SHARE),
    ):
        least = np.maximum(uses, np.ceil(share * written))
        for number, original, count, row in _used(numbers, hashes, corpus.by, least):
            if number not in best or count > best[number].uses:
                span = (sentences.start[row], sentences.end[row]) if kind == "sentence" else None
                best[number] = replace(corpus.copied("template", original), uses=count, span=span)
    yield from best.items()


def _used(text: Ints, words: Ints, by: Ints, least: NDArray[np.float64]) -> Iterator[tuple[int, int, int, int]]:
    """Of words that an annotator uses often enough, each use but the first: text, first text, uses, row."""
    order = np.lexsort((text, words, by[text])) if len(text) else np.empty(0, np.int64)
    text, words = text[order], words[order]
    who = by[text]
    new = np.concatenate([[True], (words[1:] != words[:-1]) | (who[1:] != who[:-1])])[: len(text)]
    own = new | np.concatenate([[True], text[1:] != text[:-1]])[: len(text)]  # twice in one text is one use
    starts = np.nonzero(new)[0]
    ends = np.append(starts[1:], len(text))
    upto = np.concatenate([[0], np.cumsum(own)])
    counts = upto[ends] - upto[starts]
    for run in np.nonzero(counts >= least[who[starts]])[0].tolist() if len(starts) else ():
        first = int(text[starts[run]])
        for at in range(starts[run] + 1, ends[run]):
            if own[at]:
                yield int(text[at]), first, int(counts[run]), int(order[at])


# --- rules ------------------------------------------------------------------------------------------------------------


@rule("copy.same", Severity.REJECT)
def same(annotation: Annotation, context: Context) -> str | None:
    """An annotator writes every description anew.

    From five words on, and where chance does not explain it: words that many use anyway are no copy. The earlier one
    stands.
    """
    for copied in _of(context, "same"):
        if copied.by == annotation.annotator:
            return f"the same words as {copied.of} by the same annotator"
    return None


@rule("copy.other", Severity.REVIEW)
def other(annotation: Annotation, context: Context) -> str | None:
    """A description is not another annotator's, word for word.

    As `copy.same`. Of a repeat, too: whoever sees a pair again is to see it with their own eyes.
    """
    for copied in _of(context, "same"):
        if copied.by != annotation.annotator:
            return f"the same words as {copied.of} by {copied.by}"
    return None


@rule("copy.near", Severity.REVIEW, "near_duplicate")
def near(annotation: Annotation, context: Context) -> str | None:
    """A description differs from every earlier one in more than a few words.

    From ten words on, and where chance does not explain it; the similarity is 1 less the words to delete and to insert
    as a share of those of both.
    """
    for copied in _of(context, "near"):
        whose = "the same annotator" if copied.by == annotation.annotator else copied.by
        return (
            f"{copied.similarity:.1%} the words of {copied.of} by {whose}, a copy from "
            f"{context.thresholds.near_duplicate:.0%} on"
        )
    return None


@rule("copy.template", Severity.REVIEW, "template_uses")
def template(annotation: Annotation, context: Context) -> Evidence | None:
    """No long sentence, and no description, is used again and again by an annotator, be it for other parts.

    From `template_uses` descriptions and 1 % of the annotator's on, where it has twelve words or more; with fewer, and
    as a whole description only, from 5 % on.
    """
    for copied in _of(context, "template"):
        if copied.span is None:
            return Evidence(
                f"but for the parts the words of {copied.uses} descriptions by the same annotator, first {copied.of}",
                (),
            )
        message = f"a sentence of {copied.uses} descriptions by the same annotator, first {copied.of}: {{}}"
        return context.quoted([copied.span], message)
    return None


def _of(context: Context, kind: str) -> Iterator[Copied]:
    copied = context.beside.copied if context.beside is not None else ()
    return (one for one in copied if one.kind == kind)
