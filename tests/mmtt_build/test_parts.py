import numpy as np
import pytest

from mmtt_build import parts


def test_vocabularies_have_their_published_sizes_and_orders():
    assert len(parts.CLASSES) == len(parts.BISENET_CLASSES) == 19
    assert set(parts.CLASSES) == set(parts.BISENET_CLASSES)
    assert len(set(parts.LABELS)) == 21
    assert [parts.LABELS.index(name) for name in ("eye", "eyebrow", "tooth", "dimple")] == [0, 10, 11, 20]
    assert (parts.INDEX["l_eye"], parts.INDEX["hair"], parts.INDEX["cloth"]) == (4, 13, 18)


def test_every_label_refers_to_known_classes():
    assert set(parts.LABEL_CLASSES) == set(parts.LABELS)
    assert {name for names in parts.LABEL_CLASSES.values() for name in names} <= set(parts.CLASSES)


@pytest.mark.parametrize(
    ("name", "side"),
    [("l_eye", "left"), ("r_ear", "right"), ("l_lip", ""), ("ear_r", ""), ("neck_l", ""), ("u_lip", ""), ("nose", "")],
)
def test_names_that_only_look_sided_have_no_side(name, side):
    assert parts.side(name) == side


def test_mirroring_twice_is_nothing_and_only_swaps_sided_parts():
    assert all(parts.MIRRORED[parts.MIRRORED[name]] == name for name in parts.CLASSES)
    assert {name for name in parts.CLASSES if parts.MIRRORED[name] != name} == {
        "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    }  # fmt: skip


def test_reorder_keeps_what_each_pixel_means():
    labels = np.arange(19, dtype=np.uint8).reshape(1, 19)
    there = parts.reorder(labels, parts.BISENET_CLASSES)
    assert [parts.CLASSES[i] for i in there[0]] == list(parts.BISENET_CLASSES)
    assert there.dtype == np.uint8
    assert np.array_equal(parts.reorder(labels, parts.CLASSES), labels)


def test_select_and_areas_agree_with_counting():
    labels = np.random.default_rng(0).integers(0, 19, (40, 30), np.uint8)
    areas = parts.areas(labels)
    assert areas.tolist() == [int((labels == i).sum()) for i in range(19)]
    chosen = parts.select(labels, ["l_eye", "hair"])
    assert chosen.dtype == np.bool_
    assert np.array_equal(chosen, (labels == 4) | (labels == 13))


def test_touched_ignores_the_seam_and_the_background():
    labels = np.zeros((100, 100), np.uint8)
    labels[:, 50:] = parts.INDEX["skin"]  # 5000 pixels
    labels[:10, :10] = parts.INDEX["hair"]
    mask = np.zeros_like(labels, np.bool_)
    mask[:10, :10] = True
    mask[0, 50:100] = mask[1, 50:99] = True  # 99 of 5000: 1.98 %
    assert parts.touched(labels, mask) == ["hair"]
    mask[1, 99] = True
    assert parts.touched(labels, mask) == ["skin", "hair"]
    assert parts.touched(labels, np.zeros_like(mask)) == []


def test_label_vector_is_in_official_order_and_names_the_unknown():
    assert parts.label_vector(["dimple", "eye"]) == [1] + [0] * 19 + [1]
    with pytest.raises(KeyError, match="eyebrows"):
        parts.label_vector(["eyebrows"])
