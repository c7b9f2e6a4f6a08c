"""Copied words: descriptions that are the same as an earlier one or nearly so, and templates.

Words are compared, after `spelling.fold`: case, width, punctuation and space do not count. Of two descriptions with the
same words the later one is the copy, unless the words are such that two may well write them: many faces have a left eye
that is larger than the right one, and there are few ways to say so (`qc.chance`).

All takes time linear in the length of the texts, which are held as numbers (`qc.corpus`): nearly equal ones are found
by MinHash (Broder 1997) on pairs of words, in buckets of a few sketch values each, in which a description is compared
with the first and with the last one before it only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel

from mmtt_build.config import Qc
from mmtt_build.records import Annotation
from qc.base import Context, Copied, Evidence, Severity, rule
from qc.chance import Chance
from qc.corpus import BANDS, ROWS, Corpus, Hashes, Ints, mixed

LEAST_WORDS = 5
"""Shorter descriptions are no copies."""
NEAR_WORDS = 10
"""Shorter ones are no near-copies: one word of ten is what they may differ in."""
CHANCE = 0.001
"""Below this probability that two write the same by chance, they did not."""
TEMPLATE_SHARE = 0.01
"""Of an annotator's descriptions have a template at least: whoever writes 5,000 says many a thing ten times."""
TEXT_SHARE = 0.05
"""The same of a short description that is used as it is: few parts of a face can be at fault, and in few ways."""

_LIKELY = 0.5
"""Share of equal sketch values from which on descriptions are compared; with 9 of 10 equal words it is about 0.65."""
_COMPARED = 4
"""Earlier descriptions, the likeliest first, with which one is compared."""
_AT_ONCE = 2048


def find(texts: Iterable[tuple[str, str, str]], thresholds: Qc, language: str | None) -> dict[str, tuple[Copied, ...]]:
    """The descriptions whose words are an earlier one's, too.

    Args:
        texts: annotation id, annotator and description, the earliest first.
        thresholds: of the recipe.
        language: whose parts and sides are what a template leaves open; without a lexicon of it nothing is.

    Returns:
        By annotation id, of each kind one at most: "same" alone, else "near" and "template".
    """
    corpus = Corpus(language)
    for batch in _batches(texts):
        corpus.add(batch)
    corpus.close()
    same = _same(corpus)
    near = _near(corpus, thresholds.near_duplicate, np.array(sorted(same), np.int64))
    chance = Chance(corpus, np.setdiff1d(np.arange(len(corpus.ids)), [*same, *near]))
    first = {int(corpus.words[number]): number for number in same}
    odds = dict(zip(first, chance.of([*first.values()], [1.0] * len(first)), strict=True))
    copies = {
        number: [corpus.copied("same", of)] for number, of in same.items() if odds[int(corpus.words[number])] < CHANCE
    }
    for (number, (alike, of)), likely in zip(
        near.items(), chance.of([*near], [alike for alike, _ in near.values()]), strict=True
    ):
        if likely < CHANCE:
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


def _same(corpus: Corpus) -> dict[int, int]:
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


def _near(corpus: Corpus, least: float, same: Ints) -> dict[int, tuple[float, int]]:
    """Texts, those aside that are the same as others, with nearly the words of an earlier one: how alike, and which."""
    found: dict[int, tuple[float, int]] = {}
    wanted = corpus.weights >= NEAR_WORDS
    wanted[same] = False
    chosen = np.nonzero(wanted)[0]
    sketches, lengths = corpus.sketches[chosen], np.diff(corpus.ends, prepend=0)
    earlier = np.empty((len(chosen), 2 * BANDS), np.int32)  # numbers among the chosen; one's own for none
    for band in range(BANDS):
        earlier[:, 2 * band : 2 * band + 2] = _in_bucket(sketches[:, band * ROWS : (band + 1) * ROWS])
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
        key = mixed(key + column)
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(order)]
    at = np.arange(len(order))
    first = order[np.maximum.accumulate(np.where(new, at, 0))]
    last = np.where(new, order, order[at - 1])
    found = np.empty((len(order), 2), np.int64)
    found[order] = np.column_stack([first, last])
    return found


def _compared(corpus: Corpus, numbers: list[int], others: list[int], least: float) -> dict[int, tuple[float, int]]:
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


def _templates(corpus: Corpus, uses: int) -> Iterator[tuple[int, Copied]]:
    """Texts whose long sentence, or words, or words but for the parts one annotator uses again and again."""
    written = np.bincount(corpus.by, minlength=len(corpus.annotators))
    text, which, words = corpus.sentences.T
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
                span = corpus.place(number, int(which[row])) if kind == "sentence" else None
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
