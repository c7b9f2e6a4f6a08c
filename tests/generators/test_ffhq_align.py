from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_faces import PLAIN, face

from generators import ffhq_align
from generators.ffhq_align import AlignmentError, Points

RECORDED = Path(__file__).parent / "data" / "ffhq_align.npz"
"""What `cut_out` gave when it was held against recorded outputs of the original (`make parity`)."""


def photo(height: int, width: int) -> np.ndarray:
    """Soft waves with grain: every pixel differs from its neighbours."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [127 + 90 * np.sin(x / a + c) * np.cos(y / b) for a, b, c in ((17, 23, 0), (31, 11, 1), (13, 29, 2))]
    grain = np.random.Generator(np.random.PCG64(3)).integers(-20, 21, (height, width, 3))
    return np.clip(np.stack(waves, axis=-1) + grain, 0, 255).astype(np.uint8)


def head(x: float, y: float, unit: float, degrees: float) -> Points:
    """Anchors of a head with eyes `unit` apart, the mouth as far below, leaning to the viewer's right."""
    upright = np.array([(-0.5, 0), (0.5, 0), (-0.35, 1.0), (0.35, 1.0)]) * unit
    turn = np.radians(degrees)
    return upright @ np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))]) + (x, y)


CASES = {
    "crop": (photo(300, 340), head(170, 120, 50, 9)),
    "reduced-and-padded": (photo(420, 380), head(120, 60, 110, -20)),
}


def sides(quad: Points) -> np.ndarray:
    return np.hypot(*(quad - np.roll(quad, 1, axis=0)).T)


def test_the_quad_of_an_upright_face() -> None:
    quad = ffhq_align.quad(head(100, 80, 40, 0))
    # Half a side is 2 * 40 across the eyes, more than 1.8 * 40 down to the mouth; its centre a tenth below the eyes.
    np.testing.assert_allclose(quad, [(20, 4), (20, 164), (180, 164), (180, 4)])


@pytest.mark.parametrize("degrees", [-70.0, -9.0, 33.0, 180.0])
def test_the_quad_is_a_square_that_turns_with_the_head(degrees: float) -> None:
    quad = ffhq_align.quad(head(100, 80, 40, degrees))
    np.testing.assert_allclose(sides(quad), 160.0)
    along = quad[3] - quad[0]
    assert np.degrees(np.arctan2(along[1], along[0])) % 360 == pytest.approx(degrees % 360)


def test_a_long_face_is_sized_by_its_mouth() -> None:
    anchors = head(100, 80, 40, 0)
    anchors[2:, 1] += 20
    np.testing.assert_allclose(sides(ffhq_align.quad(anchors)), 2 * 1.8 * 60)


def test_landmarks_and_the_points_of_a_row_name_the_same_anchors() -> None:
    anchors = head(100, 80, 40, 12)
    landmarks = np.zeros((68, 2))
    landmarks[36:42] = anchors[0] + [(-3, 0), (-1, -1), (1, -1), (3, 0), (1, 1), (-1, 1)]
    landmarks[42:48] = anchors[1] + [(-3, 0), (-1, -1), (1, -1), (3, 0), (1, 1), (-1, 1)]
    landmarks[48], landmarks[54] = anchors[2:]
    subjects = [*anchors[1], *anchors[0], 100, 100, *anchors[3], *anchors[2]]  # left eye, right eye, nose, corners
    np.testing.assert_allclose(ffhq_align.anchors68(landmarks), anchors)
    np.testing.assert_allclose(ffhq_align.anchors5(subjects), anchors)


@pytest.mark.parametrize("name", CASES)
def test_the_cut_out_is_the_recorded_one(name: str) -> None:
    image, anchors = CASES[name]
    aligned = ffhq_align.cut_out(image, ffhq_align.quad(anchors), 64).astype(int)
    with np.load(RECORDED) as recorded:
        assert np.abs(aligned - recorded[name]).max() <= 2


def test_the_cut_out_is_upright_and_shows_the_eyes_where_ffhq_has_them() -> None:
    """FFHQ's geometry: eyes 2 units off the rim to each side, on the line a tenth of the face above the centre."""
    image, anchors = np.zeros((300, 340, 3), np.uint8), head(170, 120, 50, 25)
    for i, (x, y) in enumerate(anchors[:3]):
        cv2.circle(image, (round(x * 16), round(y * 16)), 6 * 16, tuple(255 * (c == i) for c in range(3)), -1, shift=4)
    aligned = ffhq_align.cut_out(image, ffhq_align.quad(anchors), 200)
    for i, where in enumerate([(75, 95), (125, 95), (82.5, 145)]):
        rows, columns = np.nonzero(aligned[..., i] > 127)
        assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx(where, abs=0.6)


def test_beyond_the_photo_lies_a_blurred_continuation() -> None:
    image, anchors = CASES["reduced-and-padded"]
    quad = ffhq_align.quad(anchors)
    aligned = ffhq_align.cut_out(image, quad, 128)
    inside = ffhq_align.cut_out(np.full_like(image, 255), quad, 128)
    assert inside.min() == 255, "no black corners: white goes on as white"
    corner, centre = aligned[:12, :12].astype(float), aligned[58:70, 58:70].astype(float)
    assert corner.std(axis=(0, 1)).mean() < 0.5 * centre.std(axis=(0, 1)).mean()


@pytest.mark.parametrize("degrees", [0.0, 21.0, -120.0])
@pytest.mark.parametrize("size", [256, 700])
def test_back_in_the_photo_everything_is_where_it_was(degrees: float, size: int) -> None:
    image = cv2.GaussianBlur(photo(400, 430), (0, 0), 2.5)
    quad = ffhq_align.quad(head(210, 180, 60, degrees))
    back, alpha = ffhq_align.put_back(ffhq_align.cut_out(image, quad, size), quad, image.shape)
    assert (alpha.min(), alpha.max()) == (0, 1)
    assert alpha.sum() == pytest.approx(240**2, rel=0.1)
    error = np.abs(back.astype(int) - image)[alpha > 0.01]
    assert error.mean() < 1.0
    assert error.max() < 16
    assert np.count_nonzero((alpha > 0) & (alpha < 1)) < 0.2 * 240**2


def test_of_a_quad_half_outside_the_inside_comes_back() -> None:
    image, anchors = CASES["reduced-and-padded"]
    quad = ffhq_align.quad(anchors)
    image = cv2.GaussianBlur(image, (0, 0), 3)
    back, alpha = ffhq_align.put_back(ffhq_align.cut_out(image, quad, 512), quad, image.shape)
    far = np.zeros(alpha.shape, bool)
    far[60:, 60:] = True  # near the rim, alignment has blurred the photo
    assert alpha.max() == 1
    assert np.abs(back.astype(int) - image)[(alpha > 0) & far].mean() < 1.0


def test_the_whole_frame_comes_back_bit_for_bit() -> None:
    image = photo(512, 512)
    frame = np.array([(0, 0), (0, 512), (512, 512), (512, 0)]) - 0.5
    twice = image.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(ffhq_align.put_back(twice, frame, image.shape)[0], image)
    np.testing.assert_array_equal(ffhq_align.put_back(image, frame, image.shape)[0], image)
    np.testing.assert_array_equal(ffhq_align.labels_back(image[..., 0], frame, image.shape), image[..., 0])


def test_part_maps_go_back_unmixed() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[20:40, 20:80], labels[60:80, 40:60] = 4, 13
    quad = ffhq_align.quad(head(150, 130, 40, 30))
    there = ffhq_align.labels_back(labels, quad, (260, 300))
    assert set(np.unique(there)) == {0, 4, 13}
    assert np.count_nonzero(there == 4) == pytest.approx(1200 * 1.6**2, rel=0.03)
    painted, _ = ffhq_align.put_back(np.stack([labels] * 3, axis=-1), quad, (260, 300))
    inside = ffhq_align.put_back(np.full((100, 100, 3), 9, np.uint8), quad, (260, 300))[1] == 1
    sure = inside & np.isin(painted[..., 0], (0, 4, 13)) & (cv2.blur(painted[..., 0], (5, 5)) == painted[..., 0])
    np.testing.assert_array_equal(there[sure], painted[..., 0][sure])


def test_a_drawn_portrait_is_aligned_and_a_turned_one_is_not() -> None:
    points = face(PLAIN).facts.points
    quad = ffhq_align.quad(ffhq_align.anchors5(points))
    assert ffhq_align.is_aligned(quad, (512, 512, 3))
    assert not ffhq_align.is_aligned(quad, (512, 512, 3), tolerance=0.001)
    assert not ffhq_align.is_aligned(quad, (512, 640))
    assert not ffhq_align.is_aligned(ffhq_align.quad(head(256, 240, 120, 8)), (512, 512))
    assert not ffhq_align.is_aligned(ffhq_align.quad(head(256, 240, 90, 0)), (512, 512))


def test_what_is_no_face_says_why() -> None:
    anchors = head(100, 80, 40, 0)
    with pytest.raises(AlignmentError, match="lacks"):
        ffhq_align.anchors5(())
    with pytest.raises(AlignmentError, match="not finite"):
        ffhq_align.quad(np.full((4, 2), np.nan))
    with pytest.raises(AlignmentError, match="coincide"):
        ffhq_align.quad(np.ones((4, 2)))
    image = photo(64, 64)
    with pytest.raises(AlignmentError, match="4000 px large, in a photo of 64"):
        ffhq_align.cut_out(image, ffhq_align.quad(head(32, 32, 1000, 0)))
    with pytest.raises(AlignmentError, match="outside the photo"):
        ffhq_align.cut_out(image, ffhq_align.quad(head(-200, 32, 20, 0)))
    with pytest.raises(AlignmentError, match="outside the photo"):
        ffhq_align.cut_out(image, ffhq_align.quad(head(32, 300, 20, 0)))
    assert ffhq_align.cut_out(image, ffhq_align.quad(anchors), 32).shape == (32, 32, 3)
