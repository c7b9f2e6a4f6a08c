"""Who describes what: pairs, repeats and controls dealt to annotators and cut into batches.

Seeded and stable, but for the ids of the tasks. Those are drawn anew: annotators can see them, and one that could be
computed from a recipe whose seed they guess would tell the controls.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from mmtt_build.seeds import ranks


class Kind(StrEnum):
    """What a task is for; the annotator is not told."""

    PAIR = "pair"
    REPEAT = "repeat"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Pair:
    """A forgery that needs a description.

    Attributes:
        forgery_id: of the forgery.
        base_id: the pristine that it was made from.
        method: with `split` the stratum that every annotator gets a like share of.
        split: train, val or test.
    """

    forgery_id: str
    base_id: str
    method: str
    split: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """One task of one annotator.

    Attributes:
        task_id: random.
        kind: a pair; a repeat, the pair of another annotator once more; or a control, a pristine shown as forged.
        forgery_id: None for a control.
        mask_of: forgery whose mask is shown; of a control one of the same base.
        base_id: the pristine.
        annotator: pseudonymous id.
        batch: number within the annotator's batches, from 1.
    """

    task_id: str
    kind: Kind
    forgery_id: str | None
    mask_of: str
    base_id: str
    annotator: str
    batch: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """What no two tasks have in common: kind, what is shown as forged, annotator."""
        return str(self.kind), self.forgery_id or self.base_id, self.annotator


def first(pairs: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """So many of the pairs, of each stratum its share; all of them if `count` is 0."""
    return list(pairs) if not count else _share(pairs, count, seed, "first")


def assign(
    pairs: Sequence[Pair],
    annotators: Sequence[str],
    *,
    seed: int,
    batch_size: int,
    repeats: float,
    controls: float,
    load: Mapping[str, int],
    batches: Mapping[str, int],
    taken: Collection[tuple[str, str, str]] = (),
    seen: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> list[Assignment]:
    """Deals pairs to annotators: of every stratum each gets the same number, one more or less.

    Args:
        pairs: in any order; the order does not matter.
        annotators: pseudonymous ids, at least one.
        seed: another one, other assignments.
        batch_size: most tasks of a batch; an annotator's batches are of one size.
        repeats: share of the pairs that another annotator gets, too; none where there is one annotator only.
        controls: controls as a share of the pairs; fewer where everybody of several annotators has seen the base.
        load: tasks that annotators have already; who has fewer comes first where that is all the same.
        batches: number of batches that annotators have already; new ones follow.
        taken: keys of tasks that exist; they are not assigned again.
        seen: annotators of earlier tasks, by `forgery_id` who had better not get the pair, by `base_id` who may not get
            a control of it. A sole annotator gets all the same.

    Returns:
        The new assignments, by annotator and batch and in the order in which they are to be worked on.
    """

    def order(item: Pair) -> tuple[str, str, int]:
        return item.method, item.split, rank[item.forgery_id]

    names = [pair.forgery_id for pair in pairs]
    rank = dict(zip(names, map(int, ranks(names, seed, "assign")), strict=True))
    dealer, ordered = _Dealer(annotators, load), sorted(pairs, key=order)
    made = [
        _task(Kind.PAIR, pair, dealer.deal((Kind.PAIR, pair.method, pair.split), seen.get(pair.forgery_id, ())))
        for pair in ordered
    ]
    barred = {task.forgery_id: {task.annotator, *seen.get(task.mask_of, ())} for task in made}
    twice = [pair for pair in pairs if not barred[pair.forgery_id].issuperset(annotators)]
    for pair in _share(twice, round(repeats * len(pairs)), seed, "repeat"):
        stratum = (Kind.REPEAT, pair.method, pair.split)
        made.append(_task(Kind.REPEAT, pair, dealer.deal(stratum, barred[pair.forgery_id])))
    sees = {pair.base_id: set(seen.get(pair.base_id, ())) for pair in pairs}
    for task in made:
        sees[task.base_id].add(task.annotator)
    bases = {
        pair.base_id: pair for pair in ordered if len(annotators) == 1 or not sees[pair.base_id].issuperset(annotators)
    }
    shown = _share(list(bases.values()), round(controls * len(pairs)), seed, "control")
    made.extend(_task(Kind.CONTROL, pair, dealer.deal((Kind.CONTROL,), sees[pair.base_id])) for pair in shown)
    return list(_batched([task for task in made if task.key not in taken], seed, batch_size, batches))


def redeal(
    tasks: Iterable[tuple[Kind, Pair]],
    annotators: Sequence[str],
    *,
    seed: int,
    batch_size: int,
    seen: Mapping[str, Collection[str]],
    load: Mapping[str, int],
    batches: Mapping[str, int],
) -> list[Assignment]:
    """Deals tasks that one annotator had to others, as evenly as `assign`, and never to who knows the pair.

    Args:
        tasks: kind and pair of each; the forgery of a control's is the one whose mask is shown.
        annotators: pseudonymous ids, at least one.
        seed: as in `assign`, like the others that it has, too.
        batch_size: most tasks of a batch.
        seen: annotators with a task, by its `forgery_id` and by its `base_id`: the former bars them from a pair or a
            repeat, the latter from a control.
        load: tasks that annotators have already.
        batches: number of batches that annotators have already.

    Returns:
        The new assignments; none for a task that everybody is barred from.
    """
    knows = defaultdict(set, {shown: set(who) for shown, who in seen.items()})
    ordered = sorted(tasks, key=lambda task: (list(Kind).index(task[0]), task[1].method, task[1].split, _shown(*task)))
    dealer = _Dealer(annotators, load)
    made = []
    for kind, pair in ordered:
        barred = knows[_shown(kind, pair)]
        if barred.issuperset(annotators):
            continue
        stratum = (kind,) if kind is Kind.CONTROL else (kind, pair.method, pair.split)
        made.append(_task(kind, pair, dealer.deal(stratum, barred)))
        knows[pair.base_id].add(made[-1].annotator)
        barred.add(made[-1].annotator)
    return list(_batched(made, seed, batch_size, batches))


def _shown(kind: Kind, pair: Pair) -> str:
    return pair.base_id if kind is Kind.CONTROL else pair.forgery_id


def _task(kind: Kind, pair: Pair, annotator: str) -> Assignment:
    forgery = None if kind is Kind.CONTROL else pair.forgery_id
    return Assignment(secrets.token_hex(8), kind, forgery, pair.forgery_id, pair.base_id, annotator)


class _Dealer:
    """Gives each next item to who has the fewest of its stratum, then the fewest in all."""

    def __init__(self, annotators: Sequence[str], load: Mapping[str, int]) -> None:
        self.annotators = annotators
        self.load = load
        self.of_stratum: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.total: Counter[str] = Counter()

    def deal(self, stratum: tuple[str, ...], barred: Collection[str]) -> str:
        """The annotator who gets the item: one who is not barred, if there is any."""
        free = [name for name in self.annotators if name not in barred] or self.annotators
        chosen = min(
            free, key=lambda name: (self.of_stratum[name, stratum], self.total[name], self.load.get(name, 0), name)
        )
        self.of_stratum[chosen, stratum] += 1
        self.total[chosen] += 1
        return chosen


def _share(pairs: Sequence[Pair], count: int, seed: int, purpose: str) -> list[Pair]:
    """So many pairs, evenly from all strata; the draw has nothing to do with who was dealt what."""
    if not count:
        return []
    names = [pair.forgery_id for pair in pairs]
    rank = dict(zip(names, map(int, ranks(names, seed, purpose)), strict=True))
    ordered = sorted(pairs, key=lambda pair: (pair.method, pair.split, rank[pair.forgery_id]))
    count = min(count, len(ordered))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]


def _batched(
    tasks: Sequence[Assignment], seed: int, batch_size: int, batches: Mapping[str, int]
) -> Iterator[Assignment]:
    of: dict[str, list[Assignment]] = defaultdict(list)
    rank = map(int, ranks([" ".join(task.key) for task in tasks], seed, "order"))
    for _, task in sorted(zip(rank, tasks, strict=True), key=lambda x: x[0]):
        of[task.annotator].append(task)
    for annotator in sorted(of):
        mine = of[annotator]
        size = math.ceil(len(mine) / math.ceil(len(mine) / batch_size))
        for i, task in enumerate(mine):
            yield replace(task, batch=batches.get(annotator, 0) + 1 + i // size)
