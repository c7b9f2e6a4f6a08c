from itertools import pairwise

import cv2
import numpy as np
import pytest

from mmtt_build.parts import CLASSES, INDEX
from mmtt_build.portraits import Portrait, draw
from mmtt_build.portraits.draw import landmarks

SEEDS = range(24)


@pytest.fixture(scope="module")
def portraits() -> list[Portrait]:
    return [draw(seed, 256) for seed in SEEDS]


def inside(polygon: np.ndarray, mask: np.ndarray) -> float:
    """Share of the mask that lies within a polygon of pixel positions."""
    area = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(area, [np.round(polygon).astype(np.int32)], 1)
    return float((mask & (area > 0)).sum() / mask.sum())


@pytest.mark.parametrize("size", [256, 512, 1024])
def test_shapes_and_types(size: int) -> None:
    portrait = draw(7, size)
    assert portrait.image.shape == (size, size, 3)
    assert portrait.image.dtype == np.uint8
    assert portrait.labels.shape == (size, size)
    assert portrait.labels.dtype == np.uint8
    assert portrait.landmarks.shape == (68, 2)
    assert portrait.landmarks.dtype == np.float32
    assert all(mask.shape == (size, size) and mask.dtype == np.bool_ for mask in portrait.parts.values())
    assert portrait.identity == 7


def test_same_arguments_same_bytes_whatever_the_number_of_threads() -> None:
    before = cv2.getNumThreads()
    try:
        drawn = []
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            drawn.append(draw(11, 512, identity=3))
    finally:
        cv2.setNumThreads(before)
    one, four = drawn
    assert np.array_equal(one.image, four.image)
    assert np.array_equal(one.labels, four.labels)
    assert np.array_equal(one.landmarks, four.landmarks)


def test_sizes_show_the_same_picture() -> None:
    small, large = draw(5, 256), draw(5, 512)
    shrunk = cv2.resize(large.image, (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(small.image.astype(int) - shrunk).mean() < 8
    assert np.mean(small.labels == large.labels[::2, ::2]) > 0.97


def test_seeds_and_identities_differ(portraits: list[Portrait]) -> None:
    for a, b in pairwise(portraits):
        assert np.abs(a.image.astype(int) - b.image).mean() > 10
    assert not np.array_equal(draw(1, 256, identity=0).image, draw(2, 256, identity=0).image)
    assert not np.array_equal(draw(1, 256, identity=0).image, draw(1, 256, identity=1).image)


def test_identity_keeps_the_skin() -> None:
    def tone(portrait: Portrait) -> np.ndarray:
        lab = cv2.cvtColor(portrait.image, cv2.COLOR_RGB2LAB).astype(float)
        return np.median(lab[portrait.labels == INDEX["skin"]], axis=0)[1:]

    same = [tone(draw(seed, 256, identity=4)) for seed in range(3)]
    assert np.ptp(same, axis=0).max() < 14


def test_labels_are_the_parts_laid_over_each_other(portraits: list[Portrait]) -> None:
    for portrait in portraits:
        expected = np.zeros((256, 256), np.uint8)
        for name in CLASSES[1:]:
            if name in portrait.parts:
                assert portrait.parts[name].any()
                expected[portrait.parts[name]] = INDEX[name]
        assert np.array_equal(expected, portrait.labels)


def test_subjects_left_is_on_the_right_of_the_picture(portraits: list[Portrait]) -> None:
    for portrait in portraits:
        for name in ("eye", "brow", "ear"):
            left, right = (portrait.parts.get(f"{side}_{name}") for side in "lr")
            if left is not None:
                assert np.nonzero(left)[1].mean() > 128
            if right is not None:
                assert np.nonzero(right)[1].mean() < 128


def test_aligned_as_ffhq_aligns(portraits: list[Portrait]) -> None:
    points = np.stack([portrait.landmarks for portrait in portraits]) / 256
    eyes = points[:, 36:42].mean(axis=1), points[:, 42:48].mean(axis=1)
    mouths = points[:, [48, 54]].mean(axis=1)
    assert np.abs(eyes[0] - (0.38, 0.475)).max() < 0.045
    assert np.abs(eyes[1] - (0.62, 0.475)).max() < 0.045
    assert np.abs(mouths - (0.5, 0.725)).max() < 0.06
    assert np.all((points[:, 8, 1] > 0.82) & (points[:, 8, 1] < 0.97))


def test_parts_agree_with_landmarks(portraits: list[Portrait]) -> None:
    for portrait in portraits:
        points, parts = portrait.landmarks, portrait.parts
        for name, first in (("r_eye", 36), ("l_eye", 42)):
            if "eye_g" not in parts:
                assert inside(points[first : first + 6], parts[name]) > 0.75
            middle = points[first : first + 6].mean(axis=0)
            row, column = np.round(middle[::-1]).astype(int)
            assert parts[name][row, column]
        lips = parts["u_lip"] | parts["l_lip"]
        assert inside(points[48:60], lips) > 0.8
        assert inside(np.vstack([points[:17], [[256, 0], [0, 0]]]), parts["skin"]) > 0.93
        rows, columns = np.nonzero(parts["nose"])
        assert abs(columns.mean() - points[30, 0]) < 12
        assert points[27, 1] - 10 < rows.min() < rows.max() < points[33, 1] + 6


def test_skin_has_no_holes_below_the_features(portraits: list[Portrait]) -> None:
    for portrait in portraits:
        parts = portrait.parts
        for name in ("l_eye", "r_eye", "nose", "u_lip", "l_lip", "mouth"):
            if name in parts:
                assert (parts[name] & parts["skin"]).sum() > 0.97 * parts[name].sum()


def test_mouth_shows_teeth_that_are_brighter_than_the_lips(portraits: list[Portrait]) -> None:
    open_mouths = [p for p in portraits if p.parts.get("mouth", np.zeros(1)).sum() > 150]
    assert len(open_mouths) >= 3
    for portrait in open_mouths:
        grey = portrait.image.mean(axis=2)
        assert np.percentile(grey[portrait.parts["mouth"]], 80) > grey[portrait.parts["l_lip"]].mean()


def test_pupils_are_darker_than_the_rest_of_the_eye(portraits: list[Portrait]) -> None:
    for portrait in portraits:
        grey = portrait.image.mean(axis=2)
        eye = portrait.parts["l_eye"]
        assert np.percentile(grey[eye], 10) < 0.6 * np.percentile(grey[eye], 90)


def test_classes_appear_as_often_as_among_people(portraits: list[Portrait]) -> None:
    names = [set(portrait.parts) for portrait in portraits]

    def share(name: str) -> float:
        return sum(name in present for present in names) / len(names)

    for name in ("skin", "nose", "l_eye", "r_eye", "u_lip", "l_lip", "neck"):
        assert share(name) == 1
    assert share("l_brow") > 0.9
    assert share("hair") > 0.8
    assert share("cloth") > 0.8
    assert 0.2 < share("mouth") < 0.7
    assert 0.05 < share("eye_g") < 0.4
    assert 0.05 < share("ear_r") < 0.6
    assert share("neck_l") < 0.4
    assert share("hat") < 0.25


def test_skin_tones_span_from_fair_to_deep(portraits: list[Portrait]) -> None:
    tones = [np.median(p.image[p.labels == INDEX["skin"]]) for p in portraits]
    assert min(tones) < 90
    assert max(tones) > 160


def test_landmarks_without_drawing() -> None:
    assert np.array_equal(landmarks(9, 256, 2), draw(9, 256, 2).landmarks)


@pytest.mark.parametrize(("seed", "size", "identity"), [(0, 300, None), (-1, 256, None), (0, 256, -2)])
def test_refuses_bad_arguments(seed: int, size: int, identity: int | None) -> None:
    with pytest.raises(ValueError, match=str(size) if size == 300 else "negative"):
        draw(seed, size, identity)
