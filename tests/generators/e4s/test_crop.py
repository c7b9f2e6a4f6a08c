from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.e4s import composite, crop
from generators.e4s.regions import INDEX
from generators.ffhq_align import AlignmentError, Points
from mmtt_build import masks
from mmtt_build.masks import Image


def photo(height: int = 512, width: int = 512) -> Image:
    """Soft waves of three colours."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [127 + 90 * np.sin(x / a + c) * np.cos(y / b) for a, b, c in ((17, 23, 0), (31, 19, 1), (23, 29, 2))]
    return np.stack(waves, axis=-1).astype(np.uint8)


def square(x: float, y: float, side: float, degrees: float) -> Points:
    """Corners of a quad around a centre, in `ffhq_align.quad`'s order."""
    turn, upright = np.radians(degrees), np.array([(-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5)]) * side
    return upright @ np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))]) + (x, y)


def weights() -> Image:
    """Alpha of an oval with a soft rim."""
    return cv2.GaussianBlur(
        cv2.ellipse(np.zeros((1024, 1024), np.uint8), (512, 560), (220, 300), 0, 0, 360, 255, -1), (11, 11), 0
    )


INSIDE = square(260, 240, 320, 17)


@pytest.mark.parametrize("degrees", [0.0, 33.0, -120.0])
def test_the_matrix_takes_the_quads_corners_to_the_squares(degrees: float) -> None:
    corners = square(200, 150, 90, degrees)
    there = np.column_stack([corners + 0.5, np.ones(4)]) @ crop.into_square(corners, 64).T
    np.testing.assert_allclose(there, [(0, 0), (0, 64), (64, 64), (64, 0)], atol=1e-9)


def test_an_aligned_photo_is_only_resized() -> None:
    picture = crop.cut_out(photo(), None)
    assert picture.shape == (1024, 1024, 3)
    assert np.abs(cv2.resize(picture, (512, 512), interpolation=cv2.INTER_AREA).astype(int) - photo()).max() <= 3
    np.testing.assert_array_equal(crop.cut_out(photo(1024, 1024), None), photo(1024, 1024))


def test_both_ways_of_cutting_out_agree_within_the_photo() -> None:
    padded, published = crop.cut_out(photo(), INSIDE), crop.cut_out_as_published(photo(), INSIDE)
    assert padded.shape == published.shape == (1024, 1024, 3)
    assert np.abs(padded.astype(int) - published).max() <= 1


def test_beyond_the_photo_the_published_square_is_black_and_ours_is_not() -> None:
    corners = square(60, 260, 300, 0)
    padded, published = crop.cut_out(photo(), corners), crop.cut_out_as_published(photo(), corners)
    left = round(1024 * 90 / 300)
    assert not published[:, : left - 4].any()
    assert (published[:, left + 4 :].max(axis=2) > 0).all()
    assert (padded.max(axis=2) > 0).all()


def test_the_published_square_is_reduced_by_its_diagonal() -> None:
    """Between 2896 and 4096 px E4S averages where FFHQ does not: stripes of a pixel become grey."""
    stripes = np.zeros((3100, 3100, 3), np.uint8)
    stripes[:, ::2] = 255
    contrast = {side: crop.cut_out_as_published(stripes, square(1550, 1550, side, 0)).std() for side in (2880, 2910)}
    assert contrast[2880] > 50
    assert contrast[2910] < 10


def test_quads_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(AlignmentError, match="outside the photo"):
        crop.cut_out_as_published(photo(), square(-300, 200, 200, 0))
    with pytest.raises(AlignmentError, match="outside the photo"):
        crop.cut_out_as_published(photo(), square(200, 900, 200, 0))
    with pytest.raises(AlignmentError, match="9000 px large, in a photo of 512"):
        crop.cut_out_as_published(photo(), square(256, 256, 9000, 0))


def test_a_square_is_laid_where_it_was_cut_out() -> None:
    back = crop.placed(crop.cut_out_as_published(photo(), INSIDE), INSIDE, (512, 512))
    shown = crop.placed(np.full((1024, 1024), 255, np.uint8), INSIDE, (512, 512)) == 255
    assert shown.sum() == pytest.approx(320**2, rel=0.01)
    assert not back[~shown].any()
    core = cv2.erode(shown.view(np.uint8), np.ones((5, 5))).view(np.bool_)
    assert np.abs(back.astype(int) - photo())[core].max() <= 4


@settings(max_examples=15, deadline=None)
@given(
    x=st.floats(-50, 560), y=st.floats(-50, 560), side=st.floats(60, 1000), degrees=st.floats(-180, 180),
    aligned=st.booleans(),
)  # fmt: skip
def test_outside_the_mask_no_bit_changes(x: float, y: float, side: float, degrees: float, aligned: bool) -> None:
    base, generated = photo(), np.full((1024, 1024, 3), (250, 10, 130), np.uint8)
    forged, mask = crop.put_back(base, generated, weights(), None if aligned else square(x, y, side, degrees))
    assert (forged.dtype, mask.dtype, forged.shape, mask.shape) == (np.uint8, np.bool_, base.shape, (512, 512))
    np.testing.assert_array_equal(forged[~mask], base[~mask])
    if aligned:
        masks.check(base, forged, mask)


@pytest.mark.parametrize("corners", [None, INSIDE], ids=["aligned", "cropped"])
def test_the_mask_is_where_the_weights_lie(corners: Points | None) -> None:
    generated = np.full((1024, 1024, 3), (250, 10, 130), np.uint8)
    forged, mask = crop.put_back(photo(), generated, weights(), corners)
    frame = crop.into_square(square(255.5, 255.5, 512, 0) if corners is None else corners)
    x, y = np.meshgrid(np.arange(512) + 0.5, np.arange(512) + 0.5)
    u, v = np.einsum("ij,jyx->iyx", frame, np.stack([x, y, np.ones_like(x)]))
    radius = np.hypot((u - 512) / 220, (v - 560) / 300)
    assert mask[radius < 1].all()
    assert not mask[radius > 1.06].any()
    assert (forged[radius < 0.95] == (250, 10, 130)).all()
    change = masks.check(photo(), forged, mask)
    assert change.changed_share > 0.97


@pytest.mark.parametrize("corners", [None, INSIDE], ids=["aligned", "cropped"])
def test_nothing_and_everything(corners: Points | None) -> None:
    generated = 255 - crop.cut_out(photo(), corners)
    forged, mask = crop.put_back(photo(), generated, np.zeros((1024, 1024), np.uint8), corners)
    np.testing.assert_array_equal(forged, photo())
    assert not mask.any()
    _, mask = crop.put_back(photo(), generated, np.full((1024, 1024), 255, np.uint8), corners)
    assert mask.sum() == pytest.approx(512**2 if corners is None else 320**2, rel=0.03)


def test_what_was_cut_out_comes_back_where_it_was() -> None:
    for corners in (None, INSIDE, square(250, 260, 300, -120)):
        forged, _ = crop.put_back(photo(), crop.cut_out(photo(), corners), weights(), corners)
        assert np.abs(forged.astype(int) - photo()).max() <= 4


def test_a_square_that_is_made_smaller_does_not_alias() -> None:
    check = (np.indices((1024, 1024)).sum(axis=0) % 2 * 255).astype(np.uint8)
    forged, mask = crop.put_back(photo(), np.dstack([check] * 3), weights(), INSIDE)
    core = cv2.erode(mask.view(np.uint8), np.ones((9, 9))).view(np.bool_)
    assert np.abs(forged[core].astype(int) - 127).max() < 16
    thin = np.zeros((1024, 1024), np.uint8)
    thin[512:514, 200:800] = 255  # less than a pixel of the photo
    _, mask = crop.put_back(photo(), np.dstack([check] * 3), thin, square(256, 256, 256, 0))
    assert mask.any(axis=0).sum() >= 148


def test_where_the_quad_ends_within_the_photo_the_face_fades_out() -> None:
    """A neck reaches the lower rim of the square: no line there."""
    corners = square(256, 200, 300, 0)
    alpha = np.zeros((1024, 1024), np.uint8)
    alpha[400:, 300:700] = 255
    base, generated = np.full((512, 512, 3), 60, np.uint8), np.full((1024, 1024, 3), 200, np.uint8)
    column = crop.put_back(base, generated, alpha, corners)[0][:, 256, 0].astype(int)
    assert column[300] == 200
    assert column[360] == 60
    assert np.abs(np.diff(column[300:])).max() < 40


@pytest.mark.parametrize("corners", [None, INSIDE], ids=["aligned", "cropped"])
def test_the_bands_stay_within_the_alpha_and_meet_the_photo_at_its_rim(corners: Points | None) -> None:
    labels = np.zeros((512, 512), np.uint8)
    cv2.ellipse(labels, (256, 270), (110, 140), 0, 0, 360, INDEX["skin"], -1)
    base, target = photo(), crop.cut_out(photo(), corners)
    generated = np.clip(target.astype(int) + 60, 0, 255).astype(np.uint8)
    alpha = composite.alpha(labels)
    plain, mask = crop.put_back(base, generated, alpha, corners)
    banded, same = crop.put_back(base, composite.blend_multiband(generated, target, labels), alpha, corners)
    np.testing.assert_array_equal(mask, same)
    np.testing.assert_array_equal(banded[~mask], base[~mask])
    rim = mask & ~cv2.erode(mask.view(np.uint8), np.ones((3, 3))).view(np.bool_)
    steps = [np.abs(picture.astype(int) - base)[rim].mean() for picture in (plain, banded)]
    assert steps[1] < 2
    assert steps[1] < steps[0]
    assert (banded.astype(int) - base)[mask].mean() > 20
