"""Agreement on repeats: against Krippendorff's own formula, and where there is none to speak of."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from mmtt_build.parts import LABELS
from qc.agreement import Agreement, Coding, agreement, by_annotator


def coding(forgery: int, annotator: str, *labels: str, text: str = "") -> Coding:
    return Coding(f"f-{forgery}", annotator, tuple(int(label in labels) for label in LABELS), text)


def by_definition(codings: list[Coding]) -> float:
    """1 - observed / expected disagreement of whole vectors under the Hamming distance, over all pairs of values."""
    units: dict[str, list[Coding]] = {}
    for one in codings:
        units.setdefault(one.forgery_id, []).append(one)
    kept = [unit for unit in units.values() if len(unit) > 1]
    values = [np.array(one.labels) for unit in kept for one in unit]
    observed = sum(
        sum(int((np.array(a.labels) != np.array(b.labels)).sum()) for a, b in permutations(unit, 2)) / (len(unit) - 1)
        for unit in kept
    ) / len(values)
    pairs = list(permutations(values, 2))
    return 1 - observed / (sum(int((a != b).sum()) for a, b in pairs) / len(pairs))


def random_codings(units: int, noise: float) -> list[Coding]:
    draw = np.random.default_rng(3)
    shares = np.linspace(0.02, 0.6, len(LABELS))
    found = []
    for i in range(units):
        truth = draw.random(len(LABELS)) < shares
        for annotator in ("x", "y", "z")[: 2 + i % 2]:
            said = np.where(draw.random(len(LABELS)) < noise, draw.random(len(LABELS)) < shares, truth)
            found.append(Coding(f"f-{i}", annotator, said.astype(int).tolist()))
    return found


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_alpha_is_that_of_vectors_under_the_hamming_distance(noise: float) -> None:
    codings = random_codings(60, noise)
    got = agreement(codings)
    assert got.units == 60
    assert got.alpha == pytest.approx(by_definition(codings))
    assert got.alpha == pytest.approx(1 - noise if noise < 1 else 0, abs=0.25)


def test_that_everybody_names_eyes_often_is_no_agreement() -> None:
    codings = [
        coding(i, name, "eye", *(["nose"] if (i + (name == "y")) % 2 else [])) for i in range(40) for name in "xy"
    ]
    got = agreement(codings)
    assert got.labels["eye"] is None, "nothing varies"
    assert got.alpha == got.labels["nose"]
    assert got.alpha is not None
    assert got.alpha < -0.9


def test_each_annotator_with_the_others() -> None:
    codings = []
    for i in range(30):
        label = ("eye", "nose", "mouth")[i % 3]
        codings += [coding(i, "x", label), coding(i, "y", label), coding(i, "z", ("mouth", "eye", "nose")[i % 3])]
    codings += [coding(100, "alone", "eye")]
    got = by_annotator(codings)
    assert sorted(got) == ["x", "y", "z"]
    assert got["x"].alpha == got["y"].alpha
    two = [one for one in codings if one.annotator in "xy"]
    assert by_annotator(two)["x"].alpha == 1.0


def test_none_where_there_is_nothing_to_compare() -> None:
    assert agreement([]) == Agreement()
    assert agreement([coding(1, "x", "eye"), coding(2, "y", "eye")]) == Agreement(), "no unit of two annotators"
    assert agreement([coding(1, "x", "eye"), coding(1, "x", "nose")]).units == 0, "one annotator twice is no agreement"
    one = agreement([coding(1, "x", "eye"), coding(1, "y", "nose")])
    assert (one.units, one.alpha) == (1, None)
    same = agreement([coding(i, name, "eye") for i in range(9) for name in "xy"])
    assert (same.units, same.alpha, same.similarity) == (9, None, None)


def test_likeness_of_the_words() -> None:
    codings = [
        coding(1, "x", "eye", text="The left eye is blurred."), coding(1, "y", "eye", text="the LEFT eye is blurred."),
        coding(2, "x", "eye", text="abc"), coding(2, "y", "nose", text="xyz"), coding(3, "x", "eye"), coding(3, "y"),
    ]  # fmt: skip
    assert agreement(codings).similarity == pytest.approx(0.5)
