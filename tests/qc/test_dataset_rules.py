"""The rules on the dataset as a whole: each with a dataset that passes and one that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmtt_build.config import Qc
from mmtt_build.parts import LABELS
from qc.base import Subject, judge
from qc.dataset import Crossing, Dataset, crossings

COUNT = 1000
GOOD = Dataset(
    forgeries=[f"f-{i}" for i in range(COUNT)],
    methods=["splice" if i % 4 == 0 else "warp" for i in range(COUNT)],
    splits=["train" if i % 10 < 8 else "val" if i % 10 == 8 else "test" for i in range(COUNT)],
    groups=[f"person-{i}" for i in range(COUNT)],
    bases=[f"image-{i}" for i in range(COUNT)],
    others=[(f"image-{(i + 10) % COUNT}",) if i % 4 == 0 else () for i in range(COUNT)],
    group_of={f"image-{i}": f"person-{i}" for i in range(COUNT)},
    licences={f"image-{i}": "CC0-1.0" for i in range(COUNT)},
    labels=dict.fromkeys(LABELS, 100),
    described=COUNT,
    mix={"splice": 0.25, "warp": 0.75},
    shares={"train": 0.8, "val": 0.1, "test": 0.1},
)


def found(dataset: Dataset) -> dict[str, tuple[str, str]]:
    return {f.rule: (str(f.severity), f.message) for f in judge(Subject.DATASET, dataset, Qc(), Qc())}


def changed(values: list[object] | object, at: int, value: object) -> list[object]:
    copy = list(values)  # type: ignore[call-overload]
    copy[at] = value
    return copy


def test_a_good_dataset_passes_every_rule() -> None:
    assert found(GOOD) == {}


def test_an_empty_one_too() -> None:
    assert found(Dataset(mix=GOOD.mix, shares=GOOD.shares)) == {}


def test_an_identity_in_two_splits() -> None:
    by_plan = replace(GOOD, groups=changed(GOOD.groups, 9, "person-3"))
    assert found(by_plan) == {
        "dataset.leak-identity": (
            "reject", "1 identity group in more than one split: person-3 of f-9 in test and in train"
        )
    }  # fmt: skip
    by_image = replace(GOOD, group_of={**GOOD.group_of, "image-9": "person-3", "image-19": "person-5"})
    assert found(by_image)["dataset.leak-identity"][1].startswith("2 identity groups")


def test_a_base_in_two_splits() -> None:
    got = found(replace(GOOD, bases=changed(GOOD.bases, 18, "image-3")))
    assert got["dataset.leak-base"] == (
        "reject", "1 base image in more than one split: image-3 of f-18 in val and in train"
    )  # fmt: skip
    assert set(got) == {"dataset.leak-base", "dataset.leak-identity"}, "its identity leaks with it, it is no donor"


@pytest.mark.parametrize(
    "leaked", [{"others": changed(GOOD.others, 18, ("image-3",))}, {"others": changed(GOOD.others, 3, ("image-18",))}]
)
def test_a_donor_in_two_splits(leaked: dict[str, object]) -> None:
    got = found(replace(GOOD, **leaked))  # type: ignore[arg-type]
    assert got["dataset.leak-donor"][1] in (
        "1 donor image in more than one split: image-3 of f-18 in val and in train",
        "1 donor image in more than one split: image-18 of f-8 in val and in train",
    )
    assert set(got) == {"dataset.leak-donor", "dataset.leak-identity"}


def test_near_duplicates_in_two_splits() -> None:
    pairs = [(f"image-{i}", f"image-{i + 9}") for i in range(5)]
    assert found(replace(GOOD, alike=pairs)) == {
        "dataset.leak-near-duplicate": (
            "reject",
            "5 pairs of near-duplicates in different splits: image-0 and image-9, image-1 and image-10, "
            "image-2 and image-11 and 2 more",
        )
    }


def test_one_person_in_two_splits() -> None:
    pairs = [(f"image-{i}", f"image-{i + 9}", 0.8 - i / 16) for i in range(4)]
    assert found(replace(GOOD, faces=pairs, same_person_cosine=0.5)) == {
        "dataset.leak-face": (
            "reject",
            "4 pairs of faces of one person (0.5 or more) in different splits: image-0 and image-9 (cosine 0.800), "
            "image-1 and image-10 (cosine 0.738), image-2 and image-11 (cosine 0.675) and 1 more",
        )
    }


@pytest.mark.parametrize("licence", [None, "", " ", "Unknown"])
def test_an_image_without_a_licence(licence: str | None) -> None:
    assert found(replace(GOOD, licences={**GOOD.licences, "image-7": licence})) == {
        "dataset.licence": ("reject", "1 image in use without a licence: image-7")
    }
    unused = {**GOOD.licences, "image-x": licence}
    assert found(replace(GOOD, licences=unused)) == {}


def test_missing_and_undescribed() -> None:
    assert found(replace(GOOD, waiting=["f-a", "f-b"], undescribed=["f-1"])) == {
        "dataset.missing": ("review", "2 planned forgeries not made yet: f-a, f-b"),
        "dataset.undescribed": ("info", "1 of 1,000 forgeries not described: f-1"),
    }


def test_balance() -> None:
    assert found(replace(GOOD, mix={"splice": 0.3, "warp": 0.7})) == {}
    got = found(replace(GOOD, mix={"splice": 0.1, "warp": 0.6, "patchfill": 0.3}))
    assert got["dataset.balance"] == (
        "review",
        "method patchfill has 0.0% of 1,000 instead of 30.0%, method splice has 25.0% of 1,000 instead of 10.0%, "
        "method warp has 75.0% of 1,000 instead of 60.0%, off by at most 5%",
    )
    got = found(replace(GOOD, shares={"train": 0.6, "val": 0.2, "test": 0.2}))
    assert "split train has 80.0% of 1,000 instead of 60.0%" in got["dataset.balance"][1]
    assert "dataset.balance" in found(replace(GOOD, methods=["homemade"] * COUNT))


def test_chance_in_a_small_set_is_no_imbalance() -> None:
    count = 60
    small = Dataset(
        forgeries=GOOD.forgeries[:count], methods=["splice"] * 20 + ["warp"] * 40, splits=["train"] * 42 + ["val"] * 18,
        groups=[f"person-{i % 8}" for i in range(42)] + ["person-8"] * 18, bases=GOOD.bases[:count],
        others=[()] * count, licences=GOOD.licences, mix=GOOD.mix, shares=GOOD.shares,
    )  # fmt: skip
    assert found(small) == {}, "nine people are not split better"


def test_labels() -> None:
    got = found(replace(GOOD, labels={**GOOD.labels, "scar": 0, "skin": 960}))
    assert got == {"dataset.labels": ("info", "of 1,000 descriptions never mentioned: scar; in more than 95%: skin")}
    assert found(replace(GOOD, labels={}, described=99)) == {}


def test_crossings_name_each_member_once() -> None:
    uses = [("a", "train", "xy"), ("b", "val", "x"), ("c", "test", "x"), ("d", "train", "y")]
    assert crossings(uses) == [Crossing("x", "train", "b", "val")]
