from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from generators.e4s import composite
from generators.e4s.regions import INDEX, REGIONS
from mmtt_build.masks import Image
from mmtt_build.parts import LabelMap


def oval(centre: tuple[int, int] = (256, 280), axes: tuple[int, int] = (110, 150)) -> LabelMap:
    """A face with a neck."""
    labels = np.zeros((512, 512), np.uint8)
    cv2.rectangle(labels, (centre[0] - 60, centre[1]), (centre[0] + 60, 511), INDEX["neck"], -1)
    cv2.ellipse(labels, centre, axes, 0, 0, 360, INDEX["skin"], -1)
    return labels


def grain(seed: int, mean: float) -> Image:
    noise = np.random.default_rng(seed).normal(mean, 12, (1024, 1024, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def levels_apart(a: Image, b: Image) -> np.ndarray:
    return np.abs(a.astype(int) - b).max(axis=2)


def test_neck_ears_and_glasses_are_pasted_and_hair_and_earrings_are_not() -> None:
    pasted = composite.foreground(np.arange(12, dtype=np.uint8))
    assert {name for name, yes in zip(REGIONS, pasted, strict=True) if not yes} == {"background", "hair", "earrings"}


def test_along_a_straight_edge_the_weight_falls_within_eleven_pixels() -> None:
    labels = np.zeros((512, 512), np.uint8)
    labels[:, 200:] = INDEX["skin"]
    alpha = composite.alpha(labels)
    assert alpha.dtype == np.uint8
    np.testing.assert_array_equal(alpha, np.tile(alpha[:1], (1024, 1)))
    row = alpha[0].astype(int)
    assert (np.diff(row) >= 0).all()
    assert (row[401:] == 255).all()
    assert row[394] < 128 < row[396]
    assert not row[: 400 - 10].any()
    assert row[400 - 9] > 0


def test_a_face_that_touches_the_frame_is_pasted_up_to_it() -> None:
    alpha = composite.alpha(oval(centre=(40, 200)))
    assert (alpha[300:500, 0] == 255).all()
    assert (alpha[1023, 40:150] == 255).all()


@pytest.mark.parametrize(("region", "wanted"), [("background", 0), ("hair", 0), ("skin", 255), ("glasses", 255)])
def test_maps_of_one_region(region: str, wanted: int) -> None:
    assert (composite.alpha(np.full((512, 512), INDEX[region], np.uint8)) == wanted).all()


def test_a_speck_of_background_in_the_face_is_closed_and_one_of_hair_in_the_background_is_not_pasted() -> None:
    labels = oval()
    labels[280, 256], labels[20, 20] = INDEX["hair"], INDEX["hair"]
    np.testing.assert_array_equal(composite.alpha(labels), composite.alpha(oval()))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_blend_is_the_weighted_mean_and_the_target_where_the_weight_is_0(data: st.DataObject) -> None:
    pictures = arrays.arrays(np.uint8, (5, 4, 3), elements=st.integers(0, 255))
    generated, target = data.draw(pictures), data.draw(pictures)
    weight = data.draw(arrays.arrays(np.uint8, (5, 4), elements=st.sampled_from([0, 1, 2, 128, 254, 255])))
    blended = composite.blend_alpha(generated, target, weight)
    exact = target + weight[..., None] / 255.0 * (generated.astype(float) - target)
    assert np.abs(blended - exact).max() <= 1
    np.testing.assert_array_equal(blended[weight == 0], target[weight == 0])
    np.testing.assert_array_equal(blended[weight == 255], generated[weight == 255])


def test_the_smallest_weight_can_be_seen() -> None:
    white, black = np.full((1, 1, 3), 255, np.uint8), np.zeros((1, 1, 3), np.uint8)
    assert composite.blend_alpha(white, black, np.ones((1, 1), np.uint8)).max() == 1


@pytest.mark.parametrize("labels", [oval(), np.zeros((512, 512), np.uint8)], ids=["face", "no face"])
def test_bands_of_one_picture_make_that_picture(labels: LabelMap) -> None:
    picture = grain(1, 120)
    assert levels_apart(composite.blend_multiband(picture, picture, labels), picture).max() <= 1


def test_without_a_face_the_bands_are_the_targets() -> None:
    blended = composite.blend_multiband(grain(1, 200), grain(2, 90), np.zeros((512, 512), np.uint8))
    assert levels_apart(blended, grain(2, 90)).max() <= 1


def test_bands_take_texture_from_the_generated_face_and_bring_colours_together() -> None:
    generated, target = grain(1, 170), grain(2, 90)
    blended = composite.blend_multiband(generated, target, oval()).astype(float)

    def texture(picture: np.ndarray, at: tuple[slice, slice]) -> np.ndarray:
        return (picture - cv2.GaussianBlur(picture.astype(float), (0, 0), 1.5))[at].ravel()

    middle, corner, ring = np.s_[460:660, 440:580], np.s_[40:200, 40:200], np.s_[540:580, 286:296]
    for at, of in ((middle, generated), (corner, target), (ring, target)):
        assert np.corrcoef(texture(blended, at), texture(of, at))[0, 1] > 0.99
    hard = np.where(composite.foreground(oval()).repeat(2, 0).repeat(2, 1)[..., None], generated, target)

    def step(picture: np.ndarray) -> float:
        """Between 20 px inside and 20 px outside of the cheek, over 40 rows."""
        return float(picture[540:580, 306:316].mean() - picture[540:580, 266:276].mean())

    assert 0 < step(blended) < 0.9 * step(hard)
    outside = composite.alpha(oval()) == 0
    assert (levels_apart(blended.astype(np.uint8), target)[outside] > 0).mean() > 0.9, "so it needs the alpha"


def test_specks_inside_the_face_are_closed_before_the_multi_band_blend() -> None:
    """A pixel of hair on a cheek would show the target there, eleven pixels wide."""
    labels, generated, target = oval(), grain(1, 200.0), grain(2, 60.0)
    whole = labels.copy()
    labels[300:304, 250:255] = INDEX["hair"]
    speckled = composite.blend_multiband(generated, target, labels)
    assert speckled[600:608, 500:510].mean() < 190
    np.testing.assert_array_equal(composite.despeckled(labels), whole)
    labels[300:340, 250:290] = INDEX["hair"]
    np.testing.assert_array_equal(composite.despeckled(labels), labels)
