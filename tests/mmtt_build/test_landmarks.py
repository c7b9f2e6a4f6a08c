import numpy as np
import pytest

from mmtt_build import landmarks, parts
from mmtt_build.portraits import draw
from mmtt_build.sources.base import describe

SEEDS = (1, 4)


@pytest.fixture(scope="module", params=SEEDS)
def portrait(request):
    return draw(request.param, 512)


def test_the_drawn_map_is_a_plausible_face(portrait):
    labels = landmarks.part_map(portrait.landmarks)
    assert labels.shape == (512, 512)
    assert labels.dtype == np.uint8
    facts = describe(labels, portrait.image)
    assert len(facts["points"]) == 10
    present = {parts.CLASSES[i] for i in np.unique(labels)}
    assert present >= {"skin", "nose", "l_eye", "r_eye", "l_brow", "r_brow", "u_lip", "l_lip"}
    assert not present & {"hair", "neck", "cloth", "l_ear", "r_ear", "hat", "eye_g"}


def test_the_map_agrees_with_the_parts_as_drawn(portrait):
    labels = landmarks.part_map(portrait.landmarks)
    for name, least in (("nose", 0.55), ("l_eye", 0.4), ("r_eye", 0.4), ("u_lip", 0.4), ("l_lip", 0.4)):
        mine, drawn = parts.select(labels, [name]), portrait.parts[name]
        assert (mine & drawn).sum() / (mine | drawn).sum() > least, name
    face = parts.select(labels, parts.CLASSES[1:13])
    hidden_or_not = portrait.parts["skin"] | parts.select(portrait.labels, ["hair", "hat"])
    assert (face & hidden_or_not).sum() / face.sum() > 0.95


def test_sides_are_the_subjects(portrait):
    labels = landmarks.part_map(portrait.landmarks)
    for left, right in (("l_eye", "r_eye"), ("l_brow", "r_brow")):
        columns = [np.nonzero(parts.select(labels, [name]))[1].mean() for name in (left, right)]
        assert columns[0] > 256 > columns[1]


def test_eyes_lie_on_brows_and_lips_are_above_each_other(portrait):
    labels = landmarks.part_map(portrait.landmarks)
    rows = {n: np.nonzero(parts.select(labels, [n]))[0].mean() for n in ("l_brow", "l_eye", "nose", "u_lip", "l_lip")}
    assert sorted(rows, key=rows.__getitem__) == ["l_brow", "l_eye", "nose", "u_lip", "l_lip"]


def test_an_open_mouth_has_an_inside():
    points = draw(SEEDS[0], 512).landmarks.copy()
    points[61:64, 1] -= 8
    points[65:68, 1] += 12
    labels = landmarks.part_map(points)
    assert parts.areas(labels)[parts.INDEX["mouth"]] > 200


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((68, 2), np.float32),
        np.full((68, 2), 1e30, np.float32),
        np.full((68, 2), -1e30, np.float32),
        np.random.default_rng(0).uniform(-2000, 3000, (68, 2)).astype(np.float32),
    ],
)
def test_impossible_points_draw_something_and_stop_nothing(points):
    labels = landmarks.part_map(points)
    assert labels.max() < 19


def test_the_same_points_give_the_same_map(portrait):
    assert np.array_equal(landmarks.part_map(portrait.landmarks), landmarks.part_map(portrait.landmarks.copy()))
