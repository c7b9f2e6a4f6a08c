"""Who gets what: evenly, repeatably, and never the same thing twice."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.assign import Assignment, Kind, Pair, assign, first

METHODS, SPLITS = ("blendswap", "warp", "sdxl"), ("train", "val", "test")


def some(count: int, start: int = 0) -> list[Pair]:
    return [
        Pair(f"f{n:05d}", f"b{n // 2:05d}", METHODS[n % 7 % 3], SPLITS[n % 10 % 3]) for n in range(start, start + count)
    ]


def people(count: int) -> list[str]:
    return [f"a{n:02d}" for n in range(1, count + 1)]


def deal(pairs: list[Pair], annotators: list[str], **other) -> list[Assignment]:
    settled = {"seed": 1, "batch_size": 50, "repeats": 0.1, "controls": 0.05, "load": {}, "batches": {}}
    return assign(pairs, annotators, **{**settled, **other})


def of_kind(tasks: list[Assignment], kind: Kind) -> list[Assignment]:
    return [task for task in tasks if task.kind == kind]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 9), st.floats(0, 1), st.floats(0, 0.5), st.integers(1, 80))
def test_every_pair_is_somebodys_once_and_shares_are_kept(count, heads, repeats, controls, size):
    pairs = some(count)
    tasks = deal(pairs, people(heads), repeats=repeats, controls=controls, batch_size=size)
    assert sorted(t.forgery_id for t in of_kind(tasks, Kind.PAIR)) == [p.forgery_id for p in pairs]
    assert len({task.task_id for task in tasks}) == len(tasks)
    assert len(of_kind(tasks, Kind.REPEAT)) == (round(repeats * count) if heads > 1 else 0)
    sees = {p.base_id: {t.annotator for t in tasks if t.forgery_id and t.base_id == p.base_id} for p in pairs}
    new_to_somebody = [base for base, who in sees.items() if heads == 1 or len(who) < heads]
    assert len(of_kind(tasks, Kind.CONTROL)) == min(round(controls * count), len(new_to_somebody))
    assert max(Counter((t.annotator, t.batch) for t in tasks).values()) <= size


def test_every_annotator_gets_the_same_of_every_stratum():
    pairs = some(1000)
    stratum = {p.forgery_id: (p.method, p.split) for p in pairs}
    tasks = of_kind(deal(pairs, people(7)), Kind.PAIR)
    dealt = Counter((task.annotator, stratum[task.forgery_id]) for task in tasks)
    for of in set(stratum.values()):
        counts = [dealt[name, of] for name in people(7)]
        assert max(counts) - min(counts) <= 1
    totals = Counter(task.annotator for task in tasks)
    assert max(totals.values()) - min(totals.values()) <= 1


def test_a_repeat_is_another_annotators_and_everybodys_work_is_repeated():
    tasks = deal(some(2000), people(10), repeats=0.1)
    first_has = {t.forgery_id: t.annotator for t in of_kind(tasks, Kind.PAIR)}
    repeats = of_kind(tasks, Kind.REPEAT)
    assert all(first_has[t.forgery_id] != t.annotator for t in repeats)
    checked = Counter(first_has[t.forgery_id] for t in repeats)
    assert set(checked) == set(people(10))
    assert max(checked.values()) < 2.5 * min(checked.values())


def test_a_control_names_no_forgery_and_shows_a_base_that_its_annotator_has_not_elsewhere():
    tasks = deal(some(400), people(5))
    controls = of_kind(tasks, Kind.CONTROL)
    assert len(controls) == 20
    assert {task.forgery_id for task in controls} == {None}
    assert not {(t.annotator, t.base_id) for t in controls} & {
        (t.annotator, t.base_id) for t in tasks if t.kind != Kind.CONTROL
    }


def test_a_control_shows_the_mask_of_a_forgery_of_its_base():
    pairs = some(400)
    base = {pair.forgery_id: pair.base_id for pair in pairs}
    tasks = deal(pairs, people(5))
    assert all(base[task.mask_of] == task.base_id for task in tasks)
    assert all(task.mask_of == task.forgery_id for task in tasks if task.kind != Kind.CONTROL)


def test_who_has_seen_a_base_gets_no_control_of_it_and_who_has_a_control_no_pair():
    pairs, everybody = some(40), people(2)
    seen = {pair.base_id: everybody for pair in pairs[4:]} | {pair.base_id: ["a01"] for pair in pairs[:4]}
    tasks = deal(pairs, everybody, seen=seen, controls=1, repeats=0)
    controls = of_kind(tasks, Kind.CONTROL)
    assert {task.annotator for task in controls} <= {"a02"}
    assert {task.base_id for task in controls} <= {"b00000", "b00001"}
    tasks = deal(pairs, everybody, seen={pair.forgery_id: ["a01"] for pair in pairs}, controls=0, repeats=1)
    assert {task.annotator for task in tasks} == {"a02"}
    assert len(tasks) == len(pairs)  # and nobody is left who could get a repeat


def test_the_order_of_the_pairs_changes_nothing_and_the_seed_does():
    pairs = some(300)
    assert dealt(pairs) == dealt(pairs[::-1])
    assert dealt(pairs) != dealt(pairs, seed=2)


def test_an_id_cannot_be_computed_from_the_recipe():
    pairs = some(300)
    ids = [{task.task_id for task in deal(pairs, people(4))} for _ in range(2)]
    assert not ids[0] & ids[1]


def dealt(pairs: list[Pair], **other) -> list[tuple]:
    return [(*task.key, task.mask_of, task.batch) for task in deal(pairs, people(4), **other)]


def test_kinds_and_methods_are_mixed_through_a_batch():
    tasks = deal(some(1000), people(2), controls=0.1, repeats=0.1, batch_size=1000)
    for name in people(2):
        mine = [task for task in tasks if task.annotator == name]
        halves = [Counter(t.kind for t in half) for half in (mine[: len(mine) // 2], mine[len(mine) // 2 :])]
        assert all(half[kind] >= 10 for half in halves for kind in Kind)
        assert [task.task_id for task in mine] != sorted(task.task_id for task in mine)


def test_batches_are_of_one_size_and_follow_those_that_are_there():
    tasks = deal(some(210), people(2), repeats=0, controls=0, batch_size=100, batches={"a01": 3})
    assert Counter((t.annotator, t.batch) for t in tasks) == {
        ("a01", 4): 53, ("a01", 5): 52, ("a02", 1): 53, ("a02", 2): 52,
    }  # fmt: skip


def test_who_has_less_gets_the_odd_one_and_nobody_has_to_catch_up():
    tasks = deal(some(1), people(2), load={"a01": 500}, controls=0)
    assert [task.annotator for task in tasks] == ["a02"]
    tasks = deal(some(100), people(2), load={"a01": 500}, controls=0, repeats=0)
    assert set(Counter(task.annotator for task in tasks).values()) == {50}


def test_tasks_that_exist_are_not_made_again():
    tasks = deal(some(50), people(3))
    assert deal(some(50), people(3), taken={task.key for task in tasks}) == []


@pytest.mark.parametrize("count", [1, 10, 299])
def test_a_part_of_the_pairs_has_all_strata_in_their_shares(count):
    pairs = some(300)
    chosen = first(pairs, count, 1)
    assert len({pair.forgery_id for pair in chosen}) == count
    for method in METHODS:
        share = sum(pair.method == method for pair in pairs) / len(pairs)
        assert abs(sum(pair.method == method for pair in chosen) - share * count) <= 1
    assert first(pairs, 0, 1) == pairs
