"""The dataset as a whole: what crosses from one split to another, what is missing, and how it is spread.

Only forgeries count that can be used; of the plan besides what is still to be made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mmtt_build.config import Qc
from mmtt_build.parts import LABELS
from qc.annotators import interval
from qc.base import Severity, Subject, rule

_NAMED = 3
_LABELLED = 100
"""Descriptions that show which labels are in use."""
_ALWAYS = 0.95
_NO_LICENCE = ("", "unknown")


@dataclass(frozen=True, slots=True)
class Dataset:
    """What the tables say of the dataset.

    Attributes:
        forgeries: ids of those that can be used; the next five are of each of them.
        methods: names.
        splits: names.
        groups: identity groups of the plan.
        bases: ids of pristine images.
        others: ids of all other pristine images in it: the donor's, and those of what it starts from.
        group_of: identity group of each pristine image that has one.
        alike: pristine images that are near-duplicates and in use in different splits.
        faces: the same of one person, as their faces say, with their cosine similarity, the likest first.
        same_person_cosine: of the recipe: two faces with so much or more are of one person.
        licences: of each pristine image, or None.
        waiting: ids of planned forgeries that were neither made nor rejected.
        undescribed: ids of usable forgeries that nobody described.
        labels: descriptions that mention each of the 21 labels, by name.
        described: descriptions with labels.
        mix: the recipe's share of each method.
        shares: the recipe's share of each split.
    """

    forgeries: Sequence[str] = ()
    methods: Sequence[str] = ()
    splits: Sequence[str] = ()
    groups: Sequence[str] = ()
    bases: Sequence[str] = ()
    others: Sequence[Sequence[str]] = ()
    group_of: Mapping[str, str] = field(default_factory=dict)
    alike: Sequence[tuple[str, str]] = ()
    faces: Sequence[tuple[str, str, float]] = ()
    same_person_cosine: float = 0.0
    licences: Mapping[str, str | None] = field(default_factory=dict)
    waiting: Sequence[str] = ()
    undescribed: Sequence[str] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    described: int = 0
    mix: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Crossing:
    """Something that is in two splits.

    Attributes:
        member: an image or an identity group.
        split: the first in which it was met.
        forgery: where it is met in another one.
        other: that split.
    """

    member: str
    split: str
    forgery: str
    other: str


def crossings(uses: Iterable[tuple[str, str, Iterable[str]]]) -> list[Crossing]:
    """What is in more than one split, each once.

    Args:
        uses: forgery id, its split, and what must not be in another one.
    """
    first: dict[str, str] = {}
    found: dict[str, Crossing] = {}
    for forgery, split, members in uses:
        for member in members:
            if first.setdefault(member, split) != split:
                found.setdefault(member, Crossing(member, first[member], forgery, split))
    return list(found.values())


def identities(dataset: Dataset) -> list[Crossing]:
    """Identity groups in more than one split, by the plan or by the images that are in a forgery."""
    group_of = dataset.group_of
    return crossings(
        (name, split, {group, *(group_of[image] for image in (base, *others) if image in group_of)})
        for name, split, group, base, others in zip(
            dataset.forgeries, dataset.splits, dataset.groups, dataset.bases, dataset.others, strict=True
        )
    )


@rule("dataset.leak-identity", Severity.REJECT, subject=Subject.DATASET)
def leak_identity(dataset: Dataset, thresholds: Qc) -> str | None:
    """No identity group is in more than one split, be it by base, by donor or by what a forgery starts from."""
    return _leak("identity group", identities(dataset))


@rule("dataset.leak-base", Severity.REJECT, subject=Subject.DATASET)
def leak_base(dataset: Dataset, thresholds: Qc) -> str | None:
    """No image is the base of forgeries in more than one split."""
    return _leak("base image", _bases(dataset))


@rule("dataset.leak-donor", Severity.REJECT, subject=Subject.DATASET)
def leak_donor(dataset: Dataset, thresholds: Qc) -> str | None:
    """No donor, and no image of an earlier forgery that one starts from, is in another split as well."""
    bases = {crossing.member for crossing in _bases(dataset)}
    uses = zip(dataset.forgeries, dataset.splits, dataset.bases, dataset.others, strict=True)
    found = crossings((name, split, (base, *others)) for name, split, base, others in uses)
    return _leak("donor image", [crossing for crossing in found if crossing.member not in bases])


@rule("dataset.leak-near-duplicate", Severity.REJECT, subject=Subject.DATASET)
def leak_near_duplicate(dataset: Dataset, thresholds: Qc) -> str | None:
    """No two images that are in use in different splits are near-duplicates, by `[ingest] near_duplicate_bits`."""
    if not dataset.alike:
        return None
    pairs = [f"{one} and {other}" for one, other in dataset.alike]
    return f"{_counted(len(pairs), 'pair')} of near-duplicates in different splits: {_named(pairs)}"


@rule("dataset.leak-face", Severity.REJECT, subject=Subject.DATASET)
def leak_face(dataset: Dataset, thresholds: Qc) -> str | None:
    """No two images in use in different splits show one person, by `[ingest] same_person_cosine` of their faces.

    Identity groups keep such images together, but of what was known when they were made, and they never change: faces
    that were analysed later or anew, and a threshold that was lowered, can show that one person is in two of them. Only
    images with an analysed face are compared.
    """
    if not dataset.faces:
        return None
    pairs = [f"{one} and {other} (cosine {cosine:.3f})" for one, other, cosine in dataset.faces]
    alike = f"{_counted(len(pairs), 'pair')} of faces of one person ({dataset.same_person_cosine:g} or more)"
    return f"{alike} in different splits: {_named(pairs)}"


@rule("dataset.licence", Severity.REJECT, subject=Subject.DATASET)
def licence(dataset: Dataset, thresholds: Qc) -> str | None:
    """Every image that is in use has a licence."""
    used = dict.fromkeys(dataset.bases) | dict.fromkeys(image for others in dataset.others for image in others)
    without = [image for image in used if (dataset.licences.get(image) or "").strip().lower() in _NO_LICENCE]
    return f"{_counted(len(without), 'image')} in use without a licence: {_named(without)}" if without else None


@rule("dataset.missing", Severity.REVIEW, subject=Subject.DATASET)
def missing(dataset: Dataset, thresholds: Qc) -> str | None:
    """Every planned forgery was made, or rejected for a reason."""
    if not dataset.waiting:
        return None
    counted = _counted(len(dataset.waiting), "planned forgery", "planned forgeries")
    return f"{counted} not made yet: {_named(dataset.waiting)}"


@rule("dataset.undescribed", Severity.INFO, subject=Subject.DATASET)
def undescribed(dataset: Dataset, thresholds: Qc) -> str | None:
    """Every forgery that can be used was described."""
    if not dataset.undescribed:
        return None
    return (
        f"{len(dataset.undescribed):,} of {len(dataset.forgeries):,} forgeries not described: "
        f"{_named(dataset.undescribed)}"
    )


@rule("dataset.balance", Severity.REVIEW, "max_imbalance", subject=Subject.DATASET)
def balance(dataset: Dataset, thresholds: Qc) -> str | None:
    """The shares of methods and splits depart from the recipe's by at most `max_imbalance`.

    What chance may do to a small set does not count (95 %): of methods by forgery, of splits by identity group, since
    these are what is drawn.
    """
    total, groups = len(dataset.forgeries), len(set(dataset.groups))
    said = [
        *_departures("method", Counter(dataset.methods), dataset.mix, total, thresholds.max_imbalance),
        *_departures("split", Counter(dataset.splits), dataset.shares, groups, thresholds.max_imbalance),
    ]
    return f"{', '.join(said)}, off by at most {thresholds.max_imbalance:.0%}" if said else None


@rule("dataset.labels", Severity.INFO, subject=Subject.DATASET)
def labels(dataset: Dataset, thresholds: Qc) -> str | None:
    """Each of the 21 labels is mentioned by some descriptions, and none by nearly all."""
    if dataset.described < _LABELLED:
        return None
    never = [label for label in LABELS if not dataset.labels.get(label)]
    always = [label for label in LABELS if dataset.labels.get(label, 0) > _ALWAYS * dataset.described]
    said = [f"never mentioned: {', '.join(never)}"] if never else []
    said += [f"in more than {_ALWAYS:.0%}: {', '.join(always)}"] if always else []
    return f"of {dataset.described:,} descriptions {'; '.join(said)}" if said else None


def _bases(dataset: Dataset) -> list[Crossing]:
    uses = zip(dataset.forgeries, dataset.splits, dataset.bases, strict=True)
    return crossings((name, split, (base,)) for name, split, base in uses)


def _leak(what: str, found: Sequence[Crossing]) -> str | None:
    if not found:
        return None
    cases = [f"{one.member} of {one.forgery} in {one.other} and in {one.split}" for one in found]
    return f"{_counted(len(found), what)} in more than one split: {_named(cases)}"


def _departures(
    what: str, counts: Mapping[str, int], wanted: Mapping[str, float], drawn: int, allowed: float
) -> Iterable[str]:
    total = sum(counts.values())
    for name in sorted({*counts, *wanted}) if total else ():
        share, right = counts.get(name, 0) / total, wanted.get(name, 0.0)
        low, high = interval(share * drawn, drawn)
        if low > right + allowed or high < right - allowed:
            yield f"{what} {name} has {share:.1%} of {total:,} instead of {right:.1%}"


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _named(names: Collection[str]) -> str:
    shown = list(names)[:_NAMED]
    return ", ".join(shown) + (f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else "")
