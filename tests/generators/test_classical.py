from __future__ import annotations

import cv2
import numpy as np
import pytest
from drawn_faces import BALD, LAUGHING, LONG_HAIR, PLAIN, face

from generators import blending, classical
from generators.classical import Box
from mmtt_build import parts


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def disc(radius: int, size: int = 96) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return (x - size // 2) ** 2 + (y - size // 2) ** 2 <= radius**2


def picture(rng: np.random.Generator, level: float, size: int = 96) -> np.ndarray:
    return (level + 6 * rng.standard_normal((size, size, 3))).astype(np.float32)


def test_part_points_lie_on_their_parts_and_keep_sides() -> None:
    labels = face(LAUGHING).labels
    points = classical.part_points(labels)
    for name in ("l_eye", "r_eye", "l_brow", "r_brow"):
        x, y = np.rint(points[name]).astype(int).T
        near = classical.grow(parts.select(labels, (name,)), 4)
        assert near[y, x].all()
        assert points[name][0, 0] < points[name][1, 0]
    assert points["l_eye"][:, 0].mean() > points["r_eye"][:, 0].mean()
    assert points["lips"][2, 1] < points["lips"][3, 1]
    assert points["chin"].shape == (5, 2)


def test_part_points_leave_out_what_is_missing() -> None:
    labels = face(BALD).labels.copy()
    labels[labels == parts.INDEX["l_eye"]] = parts.INDEX["skin"]
    points = classical.part_points(labels)
    assert "l_eye" not in points and "chin" not in points and "nose" in points
    assert classical.part_points(np.zeros_like(labels)) == {}


def test_mirror_is_its_own_inverse_and_swaps_sides() -> None:
    image, labels, _ = face(PLAIN)
    flipped, flipped_labels = classical.mirror(image, labels)
    assert np.array_equal(parts.select(flipped_labels, ("l_eye",)), parts.select(labels, ("r_eye",))[:, ::-1])
    back, back_labels = classical.mirror(flipped, flipped_labels)
    assert np.array_equal(back, image) and np.array_equal(back_labels, labels)


def test_similarity_recovers_a_known_one(rng: np.random.Generator) -> None:
    angle, scale, shift = 0.3, 1.4, np.array([12.0, -7.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = rng.uniform(0, 100, (6, 2))
    found = classical.similarity(points, points @ turn.T + shift)
    assert np.allclose(found, np.column_stack([turn, shift]))


def test_maps_of_equal_points_change_nothing(rng: np.random.Generator) -> None:
    box = Box(40, 140, 60, 200)
    points = rng.uniform(50, 190, (9, 2))
    y, x = np.mgrid[box.top : box.bottom, box.left : box.right]
    identity = np.stack([x, y], axis=-1)
    plate = classical.thin_plate_map(box, points, points, np.full(9, 0.02), 100.0)
    assert np.abs(plate - identity).max() < 1e-3
    assert np.allclose(classical.local_scale(plate), 1, atol=0.01)
    assert np.allclose(classical.similarity_map(box, classical.similarity(points, points)), identity, atol=1e-3)


def test_thin_plate_lands_points_where_stiffness_is_zero(rng: np.random.Generator) -> None:
    box = Box(0, 160, 0, 160)
    base = rng.uniform(20, 140, (7, 2)).round()
    donor = base + rng.uniform(-5, 5, (7, 2))
    plate = classical.thin_plate_map(box, base, donor, np.zeros(7), 60.0)
    x, y = base.astype(int).T
    assert np.abs(plate[y, x] - donor).max() < 0.6  # the map is bilinear between nodes 8 px apart


def test_ripple_moves_the_outline_and_is_seeded() -> None:
    mask = disc(30)
    one, two, same = (classical.ripple(mask, 4.0, np.random.default_rng(seed)) for seed in (1, 2, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, two)
    assert one[classical.shrink(mask, 20)].all()
    assert np.array_equal(classical.ripple(mask, 0.0, np.random.default_rng(1)), mask)


def test_largest_keeps_one_piece_without_pinholes() -> None:
    mask = disc(30)
    mask[48, 48] = False
    mask[:6, :6] = True
    kept = classical.largest(mask)
    assert kept[48, 48] and not kept[:6, :6].any()


def test_clear_face_leaves_out_hair_and_dark_strands() -> None:
    image, labels, _ = face(LONG_HAIR)
    points = classical.part_points(labels)
    above = classical.above_eyes(Box(0, 512, 0, 512), points)
    pixels = image.astype(np.float32)
    clear = classical.clear_face(pixels, labels, above)
    assert not (clear & parts.select(labels, ("hair",))).any()
    x, y = ((points["l_eye"].mean(axis=0) + points["r_eye"].mean(axis=0)) / 2 - (0, 60)).astype(int)
    assert clear[y, x]
    pixels[y - 5 : y + 5, x - 5 : x + 5] = 5
    assert not classical.clear_face(pixels, labels, above)[y, x]


def test_light_takes_colour_and_gradient_over_but_not_an_outlier(rng: np.random.Generator) -> None:
    base, donor = picture(rng, 180), picture(rng, 90)
    base *= np.linspace(0.7, 1.1, 96, dtype=np.float32)[None, :, None]
    base[70:, 30:60] = 20  # a beard
    labels = np.ones((96, 96), np.uint8)
    light = blending.compare_light(base, donor, np.ones((96, 96), np.bool_))
    assert light is not None
    lit = blending.relight(donor, labels, light)
    for columns in (slice(5, 25), slice(70, 90)):
        assert abs(float(lit[:60, columns].mean() - base[:60, columns].mean())) < 10
    assert lit[75:, 35:55].mean() > 120


def test_light_needs_skin(rng: np.random.Generator) -> None:
    assert blending.compare_light(picture(rng, 100), picture(rng, 90), np.zeros((96, 96), np.bool_)) is None


def test_detail_follows_the_base_both_ways(rng: np.random.Generator) -> None:
    skin = np.ones((96, 96), np.bool_)
    grainy, smooth = picture(rng, 120), cv2.GaussianBlur(picture(rng, 120), (0, 0), 2.0)

    def grain(image: np.ndarray) -> float:
        light = classical.grey(image)
        return float((light - cv2.GaussianBlur(light, (0, 0), 1.0)).std())

    assert grain(blending.match_detail(grainy, smooth, skin, rng)) > 0.8 * grain(grainy)
    assert grain(blending.match_detail(smooth, grainy, skin, rng)) < 0.6 * grain(grainy)


@pytest.mark.parametrize("name", sorted(blending.BLENDS))
def test_blends_stay_inside_and_meet_the_base_on_the_edge(name: str, rng: np.random.Generator) -> None:
    base, donor = picture(rng, 170), picture(rng, 120)
    support = disc(34)
    blended, mask = blending.BLENDS[name](base, donor, support, 8.0)
    assert mask.any() and not (mask & ~support).any()
    assert np.allclose(blended[~support], base[~support], atol=1e-3)
    edge = support & ~classical.shrink(support, 1.5)
    assert np.abs(blended - base)[edge].mean() < 6
    assert np.abs(blended - base)[disc(15)].mean() > 3


def test_poisson_removes_a_constant_offset(rng: np.random.Generator) -> None:
    base = picture(rng, 100)
    blended, _ = blending.blend_poisson(base, base + 60, disc(34), 6.0)
    assert np.abs(blended - base).max() < 2


def test_seam_error_is_the_step_along_the_edge(rng: np.random.Generator) -> None:
    base = picture(rng, 100)
    assert blending.seam_error(base, base + 30, disc(30)) == pytest.approx(30, abs=1)
    assert blending.seam_error(base, base, np.zeros((96, 96), np.bool_)) == float("inf")


def test_pose_sees_a_turn_and_its_mirror() -> None:
    frontal = classical.pose((320, 240, 192, 240, 256, 300, 300, 370, 212, 370))
    turned = classical.pose((320, 240, 192, 240, 290, 300, 300, 370, 212, 370))
    assert frontal is not None and turned is not None
    assert frontal.yaw == pytest.approx(0) and turned.yaw > 0.2
    assert turned.gap(turned.mirrored()) > 0.4 > frontal.gap(frontal.mirrored())
    assert classical.pose(()) is None
    assert classical.pose((256, 240, 256, 240, 256, 300, 300, 370, 212, 370)) is None
