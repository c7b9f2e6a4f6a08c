import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from mmtt_build.portraits.raster import box, curve, fill, paint, soft


@pytest.mark.parametrize("closed", [False, True])
def test_curve_is_the_cubic_spline(closed: bool) -> None:
    points = np.random.default_rng(3).normal(size=(9, 3))
    through = np.vstack([points, points[:1]]) if closed else points
    knots = np.concatenate([[0], np.cumsum((np.diff(through, axis=0) ** 2).sum(axis=1) ** 0.25)])
    spline = CubicSpline(knots, through, bc_type="periodic" if closed else "natural")
    expected = spline(np.linspace(0, knots[-1], 40, endpoint=not closed))
    assert np.allclose(curve(points, 40, closed), expected, atol=1e-6)


def test_fill_covers_the_area_of_the_polygon() -> None:
    square = np.array([(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)], np.float32)
    cover = fill(square, 128)
    assert 64**2 <= (cover > 127).sum() <= 66**2  # the anti-aliased fill may reach half a pixel further
    assert box(np.zeros((8, 8), np.uint8)) is None


def test_soft_keeps_the_sum_and_equals_the_blur_of_the_whole() -> None:
    cover = np.zeros((256, 256), np.uint8)
    cover[100:140, 90:150] = 255
    blurred = soft(cover, 0.01)
    assert abs(blurred.sum() - 40 * 60) < 10
    assert np.abs(blurred - soft(cover.astype(np.float32) / 255, 0.01)).max() < 0.01


def test_paint_weighs_by_coverage_and_leaves_the_rest() -> None:
    image = np.ones((32, 32, 3), np.float32)
    cover = np.zeros((32, 32), np.uint8)
    cover[10:20, 10:20] = 51
    paint(image, np.zeros(3, np.float32), cover)
    assert np.allclose(image[15, 15], 0.8)
    assert np.all(image[cover == 0] == 1)
