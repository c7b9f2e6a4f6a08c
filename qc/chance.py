"""How likely it is that two people write the same by chance: what is said of a face by many is no copy."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, expm1, log

import numpy as np
from numpy.typing import NDArray

from qc.corpus import Corpus, Hashes, Ints, mixed

_MODELLED = 5_000
"""Texts that show well enough which words are usual."""
_AT_ONCE = 1000

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class Chance:
    """How likely it is that somebody who writes as all do writes the very words of a text.

    By how often a word follows the `_ORDER` - 1 words before it, smoothed by how often it follows fewer of them (Witten
    and Bell 1991), in texts that are no copies: what is pasted a thousand times is no more usual for it. Of what is
    rated here one use is left out.
    """

    def __init__(self, corpus: Corpus, texts: Ints) -> None:
        texts = texts[:: max(1, len(texts) // _MODELLED)]
        self.corpus = corpus
        self.orders = [_Order(*run) for run in _runs([corpus.of(number) for number in texts.tolist()])]

    def of(self, numbers: Sequence[int], alike: Sequence[float]) -> NDArray[np.float64]:
        """Probability, of each text, that its words turn up a second time by chance, or words so much alike do."""
        found = np.ones(len(numbers))
        for start in range(0, len(numbers), _AT_ONCE):
            texts = [self.corpus.of(number) for number in numbers[start : start + _AT_ONCE]]
            share: Floats | float = 1 / len(self.orders[0].runs)
            for order, run in zip(self.orders, _runs(texts), strict=True):
                share = order.share(*run, share)
            ends = np.cumsum([len(text) for text in texts])
            for at, logs in enumerate(np.split(np.log(share), ends[:-1]), start):
                free = round((1 - alike[at]) * len(logs))  # words that differ, and they may be any
                bits = np.sort(logs)[free:].sum() if free else logs.sum()
                found[at] = -expm1(-np.exp(bits + log(len(self.corpus.ids)) + log(comb(len(logs), free))))
        return found


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
        before, run = run, mixed(run + np.concatenate([gap[:length], letters[: len(letters) - length]]))
        found.append((run[words], before[words - 1] if length else before[words]))
    return found
