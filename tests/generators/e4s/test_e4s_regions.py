from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from generators.e4s import regions
from generators.e4s.regions import INDEX, REGIONS
from mmtt_build.parts import BISENET_CLASSES, CLASSES, LabelMap

PUBLISHED = {
    "background": 0, "hat": 0, "neck_l": 0, "cloth": 0, "u_lip": 1, "l_lip": 1, "l_brow": 2, "r_brow": 2, "l_eye": 3,
    "r_eye": 3, "hair": 4, "nose": 5, "skin": 6, "l_ear": 7, "r_ear": 7, "neck": 8, "mouth": 9, "eye_g": 10,
    "ear_r": 11,
}  # fmt: skip
"""Number of the region of every parsing class, as E4S's network was trained with."""

MAPS = arrays.arrays(np.uint8, (4, 5), elements=st.integers(0, 11))


def grid(*names: str) -> LabelMap:
    """A map of one row."""
    return np.array([[INDEX[name] for name in names]], np.uint8)


def names(labels: LabelMap) -> list[str]:
    return [REGIONS[i] for i in labels[0]]


@pytest.mark.parametrize("order", [CLASSES, BISENET_CLASSES])
def test_every_class_becomes_its_region_in_both_orders(order: tuple[str, ...]) -> None:
    every = np.arange(19, dtype=np.uint8)
    twelve = regions.twelve(every, order)
    assert twelve.dtype == np.uint8
    assert dict(zip(order, twelve.tolist(), strict=True)) == PUBLISHED
    np.testing.assert_array_equal(regions.twelve(np.stack([[every], [every[::-1]]]), order)[1, 0], twelve[::-1])


def test_the_orders_number_most_classes_differently() -> None:
    every = np.arange(19, dtype=np.uint8)
    assert (regions.twelve(every, CLASSES) != regions.twelve(every, BISENET_CLASSES)).sum() > 10


def test_every_class_is_of_one_region() -> None:
    assert sorted(name for members in regions.REGION_CLASSES.values() for name in members) == sorted(CLASSES)


def test_the_donors_style_comes_for_face_ears_and_neck_only() -> None:
    donor, target = np.full((12, 3), 2.0, np.float32), np.full((12, 3), 7.0, np.float32)
    swapped = regions.swap_styles(donor, target)
    kept = {name for i, name in enumerate(REGIONS) if (swapped[i] == 7).all()}
    assert kept == {"background", "hair", "glasses", "earrings"}
    assert np.isin(swapped, (2, 7)).all()
    assert (target == 7).all()
    mixed = regions.swap_styles(donor, target, mix_neck=True)
    assert np.flatnonzero((mixed != swapped).all(axis=1)).tolist() == [INDEX["neck"]]
    assert (mixed[INDEX["neck"]] == 4.5).all()


def test_a_donor_without_ears_halves_the_targets_and_one_without_open_mouth_keeps_it() -> None:
    rng = np.random.default_rng(1)
    donor, target = rng.standard_normal((2, 4, 12, 5), np.float32)
    for of, name in enumerate(("ears", "mouth", "nose")):
        donor[of, INDEX[name]] = 0
    swapped = regions.swap_styles(donor, target)
    np.testing.assert_array_equal(swapped[0, INDEX["ears"]], target[0, INDEX["ears"]] / 2)
    np.testing.assert_array_equal(swapped[1, INDEX["mouth"]], target[1, INDEX["mouth"]])
    assert not swapped[2, INDEX["nose"]].any()
    for of in (1, 2, 3):
        np.testing.assert_array_equal(swapped[of, INDEX["ears"]], donor[of, INDEX["ears"]])
    np.testing.assert_array_equal(regions.swap_styles(donor[0], target[0]), swapped[0])
    tensors = regions.swap_styles(torch.from_numpy(donor), torch.from_numpy(target), mix_neck=True)
    np.testing.assert_array_equal(tensors.numpy(), regions.swap_styles(donor, target, mix_neck=True))


def painted(donor: int, target: int, hair_first: bool) -> tuple[str, bool]:
    """One pixel by E4S's order of painting, step by step; later steps win."""
    d, t = REGIONS[donor], REGIONS[target]
    result = ""
    if t in ("neck", "ears", "earrings") or (t == "hair" and hair_first):
        result = t
    if d in ("lips", "brows", "eyes", "nose", "skin", "mouth"):
        result = d
    if t == "hair" and not hair_first:
        result = t
    if t == "glasses":
        result = t
    if t == "background":
        return t, False
    return result or "skin", not result


@settings(max_examples=40, deadline=None)
@given(donor=MAPS, target=MAPS, hair_first=st.booleans())
def test_masks_are_painted_in_the_published_order(donor: LabelMap, target: LabelMap, hair_first: bool) -> None:
    swapped, hole = regions.swap_masks(donor, target, hair_first)
    assert (swapped.dtype, hole.dtype) == (np.uint8, np.bool_)
    for at in np.ndindex(donor.shape):
        assert (REGIONS[swapped[at]], hole[at]) == painted(int(donor[at]), int(target[at]), hair_first)


def test_a_fringe_goes_under_the_donors_forehead_unless_hair_comes_last() -> None:
    donor, target = grid("skin", "brows", "hair", "background"), grid("hair", "hair", "hair", "hair")
    assert names(regions.swap_masks(donor, target)[0]) == ["skin", "brows", "hair", "hair"]
    assert names(regions.swap_masks(donor, target, hair_first=False)[0]) == ["hair"] * 4


def test_what_the_donor_leaves_open_of_the_targets_face_is_skin() -> None:
    donor = grid("hair", "neck", "glasses", "background", "ears", "earrings")
    target = grid("nose", "eyes", "skin", "lips", "mouth", "brows")
    swapped, hole = regions.swap_masks(donor, target)
    assert names(swapped) == ["skin"] * 6
    assert hole.all()


def test_glasses_and_background_win_over_the_donors_face() -> None:
    donor, target = grid("eyes", "skin", "skin", "lips"), grid("glasses", "background", "ears", "neck")
    swapped, hole = regions.swap_masks(donor, target)
    assert names(swapped) == ["glasses", "background", "skin", "lips"]
    assert not hole.any()


@pytest.mark.parametrize("hair_first", [True, False])
def test_maps_with_nothing_to_swap(hair_first: bool) -> None:
    nothing, face = np.zeros((6, 7), np.uint8), np.full((6, 7), INDEX["skin"], np.uint8)
    for donor in (nothing, face):
        swapped, hole = regions.swap_masks(donor, nothing, hair_first)
        assert not swapped.any()
        assert not hole.any()
    swapped, hole = regions.swap_masks(nothing, face, hair_first)
    np.testing.assert_array_equal(swapped, face)
    assert hole.all()
    swapped, hole = regions.swap_masks(face, face, hair_first)
    np.testing.assert_array_equal(swapped, face)
    assert not hole.any()
