"""Agreement of annotators on what several of them described: Krippendorff's alpha on labels, likeness of words.

Alpha is 1 less the disagreement that was observed, as a share of what chance would bring: 1 is full agreement, 0 is
chance. Each of the 21 labels is a nominal value of its own (mentioned or not), with its own chance. Together they are
weighted by their chance disagreement: that is alpha of the whole vector under the Hamming distance. To throw all labels
into one heap instead would call it agreement that everybody names eyes often and scars never, whatever the picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import krippendorff
import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz

from mmtt_build.parts import LABELS


@dataclass(frozen=True, slots=True)
class Coding:
    """One annotator's answer on a forgery.

    Attributes:
        forgery_id: what was described.
        annotator: by whom.
        labels: 21 zeros and ones in the order of `parts.LABELS`; all zero where nothing was visible.
        text: the description, "" without one.
    """

    forgery_id: str
    annotator: str
    labels: Sequence[int]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far annotators agree.

    Attributes:
        units: forgeries that two annotators or more answered on.
        alpha: Krippendorff's, of all labels; None with fewer than two units, or where nothing varies.
        labels: the same of each label.
        similarity: mean of rapidfuzz's token_set_ratio of the descriptions of a unit, 0 to 1; None without any.
    """

    units: int = 0
    alpha: float | None = None
    labels: Mapping[str, float | None] = field(default_factory=dict)
    similarity: float | None = None


def agreement(codings: Iterable[Coding]) -> Agreement:
    """Agreement of all annotators on all that at least two of them answered on.

    Args:
        codings: of several of one annotator on one forgery the last counts.
    """
    return _measured(_units(codings))


def by_annotator(codings: Iterable[Coding]) -> dict[str, Agreement]:
    """Of each annotator with the others, on what they and another one answered on."""
    units: dict[str, list[list[Coding]]] = defaultdict(list)
    for unit in _units(codings):
        for coding in unit:
            units[coding.annotator].append(unit)
    return {annotator: _measured(of) for annotator, of in sorted(units.items())}


def _units(codings: Iterable[Coding]) -> list[list[Coding]]:
    of: dict[str, dict[str, Coding]] = defaultdict(dict)
    for coding in codings:
        of[coding.forgery_id][coding.annotator] = coding
    return [list(unit.values()) for unit in of.values() if len(unit) > 1]


def _measured(units: Sequence[Sequence[Coding]]) -> Agreement:
    if not units:
        return Agreement()
    sizes = np.array([len(unit) for unit in units])
    labels = np.array([coding.labels for unit in units for coding in unit], np.int64)
    present = np.add.reduceat(labels, np.cumsum(sizes) - sizes)
    counts = np.stack([sizes[:, None] - present, present], axis=-1)  # (units, labels, without and with it)
    alphas, weights = zip(*(_alpha(counts[:, i]) for i in range(len(LABELS))), strict=True)
    known = [(alpha, weight) for alpha, weight in zip(alphas, weights, strict=True) if alpha is not None]
    total = sum(weight for _, weight in known)
    return Agreement(
        len(units),
        sum(alpha * weight for alpha, weight in known) / total if known else None,
        dict(zip(LABELS, alphas, strict=True)),
        _similarity(units),
    )


def _alpha(counts: NDArray[np.int64]) -> tuple[float | None, float]:
    """Alpha of one label from how many left it out and mentioned it, (units, 2), and its chance disagreement."""
    absent, present = counts.sum(axis=0).tolist()
    if len(counts) < 2 or not absent or not present:
        return None, 0.0
    alpha = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
    return float(alpha), absent * present / (absent + present) ** 2


def _similarity(units: Iterable[Sequence[Coding]]) -> float | None:
    ratios = [
        fuzz.token_set_ratio(one.text.lower(), other.text.lower()) / 100
        for unit in units
        for one, other in combinations([coding for coding in unit if coding.text], 2)
    ]
    return sum(ratios) / len(ratios) if ratios else None
