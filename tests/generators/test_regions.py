from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest
from drawn_faces import BALD, GLASSES, LAUGHING, LONG_HAIR, PLAIN, face

from generators import regions
from mmtt_build import masks, parts
from mmtt_build.parts import INDEX


def disc(x: int, y: int, radius: int) -> np.ndarray:
    return cv2.circle(np.zeros((512, 512), np.uint8), (x, y), radius, 1, -1).view(np.bool_)


def draws(seed: int, count: int = 2000) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(1)
    drawn = [regions.draw(rng, face(seed).facts.part_areas) for _ in range(count)]
    assert all(drawn)
    return [one for one in drawn if one]


def test_drawn_parts_follow_the_published_statistics() -> None:
    drawn = draws(LAUGHING)
    counts = Counter(map(len, drawn))
    assert set(range(1, 9)) <= set(counts) and max(counts) <= 11
    assert sum(counts[n] for n in (2, 3, 4, 5)) > 0.65 * len(drawn)
    often = Counter(name for names in drawn for name in names)
    frequent = {"l_brow", "r_brow", "l_eye", "r_eye", "u_lip", "l_lip"}
    assert min(often[name] for name in frequent) > max(often[name] for name in set(often) - frequent)
    both = sum({"l_brow", "r_brow"} <= set(names) for names in drawn)
    assert both > 0.5 * often["l_brow"], "brows mostly change together"
    assert all(list(names) == sorted(names, key=INDEX.__getitem__) for names in drawn)


@pytest.mark.parametrize("seed", [PLAIN, BALD, GLASSES, LONG_HAIR])
def test_drawn_parts_are_in_the_map_and_leave_most_of_the_frame(seed: int) -> None:
    areas = face(seed).facts.part_areas
    for names in draws(seed, 400):
        assert all(areas[INDEX[name]] >= regions.MIN_PART_PX for name in names)
        assert sum(areas[INDEX[name]] for name in names) <= regions.MAX_DRAWN_SHARE * 512 * 512
    assert ("eye_g" in {name for names in draws(seed, 400) for name in names}) == (seed == GLASSES)


def test_nothing_to_draw_from() -> None:
    assert regions.draw(np.random.default_rng(0), (512 * 512,) + (0,) * 18) is None
    hair = [0] * 19
    hair[INDEX["hair"]] = 200_000
    assert regions.draw(np.random.default_rng(0), hair) is None, "that much hair is nearly the frame"


@pytest.mark.parametrize("seed", [PLAIN, BALD, GLASSES, LONG_HAIR, LAUGHING])
def test_every_drawn_hole_covers_its_parts_with_a_margin_and_no_other_feature(seed: int) -> None:
    labels = face(seed).labels
    for i, names in enumerate(draws(seed, 40)):
        hole = regions.region(labels, names, 6 + i % 9)
        whole = parts.select(labels, names)
        assert hole.mask[whole].all() and hole.mask.sum() > whole.sum()
        others = [
            name for name in ("l_brow", "r_brow", "l_eye", "r_eye", "nose", "u_lip", "l_lip") if name not in names
        ]
        assert not (hole.mask & parts.select(labels, others)).any()
        assert set(names) <= set(parts.touched(labels, hole.mask))
        assert ((hole.depth > 0) == hole.mask).all()


def test_a_margin_is_as_wide_as_asked() -> None:
    labels = np.ones((512, 512), np.uint8)
    labels[disc(200, 200, 40)] = INDEX["nose"]
    for grow_px in (4, 12):
        mask = regions.region(labels, ["nose"], grow_px).mask
        assert abs(np.sqrt(mask.sum() / np.pi) - (40 + grow_px)) < 1.5


def test_neighbours_are_joined_and_distant_parts_are_not() -> None:
    labels = np.ones((512, 512), np.uint8)
    labels[180:195, 200:260] = INDEX["l_brow"]
    labels[215:230, 200:260] = INDEX["l_eye"]
    labels[350:365, 200:260] = INDEX["u_lip"]
    mask = regions.region(labels, ["l_brow", "l_eye", "u_lip"], 8).mask
    assert cv2.connectedComponents(mask.view(np.uint8))[0] - 1 == 2
    assert mask[205, 230], "between brow and eye"
    alone = regions.region(labels, ["l_eye"], 25).mask
    assert not (alone & (labels == INDEX["l_brow"])).any(), "the brow beside it stays"


def test_a_hole_at_the_edge_of_the_frame_reaches_it() -> None:
    labels = np.zeros((512, 512), np.uint8)
    labels[:80, :120] = INDEX["hair"]
    hole = regions.region(labels, ["hair"], 8)
    assert hole.mask[0, 0] and hole.depth[0, 0] > 50 and not hole.mask[100:, :].any()


@pytest.mark.parametrize(
    ("names", "said"), [([], "no part was chosen"), (["hat"], "has no hat"), (["l_brow", "hat"], "has no hat")]
)
def test_no_such_part(names: list[str], said: str) -> None:
    with pytest.raises(regions.RegionError, match=said):
        regions.region(face(PLAIN).labels, names, 8)


def test_too_thin_too_large_and_just_enough() -> None:
    mask = np.zeros((512, 512), bool)
    with pytest.raises(regions.RegionError, match="empty"):
        regions.checked(mask)
    mask[100:107, 100:300] = True
    with pytest.raises(regions.RegionError, match="7 px wide"):
        regions.checked(mask)
    mask[107:109] = mask[106]
    assert regions.checked(mask).depth.max() == 5
    mask[:320] = True
    with pytest.raises(regions.RegionError, match="62% of the frame"):
        regions.checked(mask)


def test_growing_around_the_mask_is_growing() -> None:
    mask = disc(500, 20, 30) | disc(300, 40, 10)
    reference = cv2.dilate(mask.view(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (17, 17)))
    assert (regions.grown(mask, 8) != reference.view(np.bool_)).mean() < 0.001


def test_composite_is_exact_outside_and_changes_every_pixel_inside() -> None:
    base = face(PLAIN).image
    painted = 255 - base
    for feather_px in (0, 3, 6, 10):
        hole = regions.region(face(PLAIN).labels, ["nose", "l_eye"], 10)
        out = regions.composite(base, painted, hole, feather_px)
        change = masks.check(base, out, hole.mask)
        assert change.changed_share > 0.95
        core = hole.depth >= max(feather_px, 1)
        assert (out[core] == painted[core]).all() and core.any()


def test_the_seam_comes_in_gradually() -> None:
    base, white = np.zeros((512, 512, 3), np.uint8), np.full((512, 512, 3), 255, np.uint8)
    hole = regions.checked(disc(256, 256, 50))
    line = regions.composite(base, white, hole, 5)[256, 200:260, 0].astype(int)
    steps = np.diff(line)
    assert (steps >= 0).all() and steps.max() <= 52 and line[0] == 0 and line[-1] == 255


def test_colour_drift_is_taken_back_and_a_new_object_is_not() -> None:
    base = face(PLAIN).image
    hole = disc(256, 256, 60)
    painted = base.copy()
    painted[disc(256, 256, 30)] = (200, 30, 30)
    drifted = np.clip(painted * 0.9 + (12, -6, 4), 0, 255).round().astype(np.uint8)
    back = regions.match_colour(base, drifted, hole)
    around = regions.grown(hole, 10) & ~hole
    assert np.abs(back[around].astype(int) - base[around]).mean() < 1.5
    assert np.abs(back[256, 256].astype(int) - (200, 30, 30)).max() < 25
    same = regions.match_colour(base, base, hole)
    assert np.abs(same.astype(int) - base).max() <= 1


def test_colour_match_is_bounded() -> None:
    base = face(PLAIN).image
    noise = np.random.default_rng(0).integers(0, 256, base.shape, np.uint8)
    out = regions.match_colour(base, noise, disc(256, 256, 60))
    assert 0.75 < out.std() / noise.std() < 1.3
    assert regions.match_colour(base, noise, np.ones((512, 512), bool)) is noise
