"""Where parts lie that no class stands for, on which side, and when a mask touches them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mmtt_build.parts import CLASSES, INDEX, LABELS, MIRRORED, TOUCHED_SHARE, LabelMap, side, touched
from mmtt_build.portraits import draw
from mmtt_build.sources.base import face_points
from qc import regions

SEEDS = (21, 24, 26, 31)
"""A plain face, one with glasses, a bald one with a beard, one with earrings."""
DIRECT = {
    "nose": "nose", "hair": "hair", "u_lip": "lip", "l_lip": "lip", "mouth": "mouth", "skin": "skin",
    "l_eye": "eye", "r_eye": "eye", "l_brow": "eyebrow", "r_brow": "eyebrow", "l_ear": "ear", "r_ear": "ear",
}  # fmt: skip

Face = tuple[LabelMap, NDArray[np.float32]]


@pytest.fixture(scope="module")
def faces() -> dict[int, Face]:
    return {seed: (portrait.labels, portrait.landmarks) for seed in SEEDS for portrait in [draw(seed, 512)]}


def turned(face: Face, angle: float) -> Face:
    matrix = cv2.getRotationMatrix2D((256, 256), angle, 0.8)
    labels = cv2.warpAffine(face[0], matrix, (512, 512), flags=cv2.INTER_NEAREST)
    return np.asarray(labels, np.uint8), cv2.transform(face[1][None], matrix)[0]


def mirrored(face: Face) -> Face:
    table = np.array([INDEX[MIRRORED[name]] for name in CLASSES], np.uint8)
    order = [
        *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46,
        39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
    ]  # fmt: skip
    xy = face[1][order] * np.float32((-1, 1)) + np.float32((511, 0))
    return np.ascontiguousarray(table[face[0]][:, ::-1]), xy


def disc(middle: NDArray[np.float32], radius: int = 14) -> NDArray[np.bool_]:
    mask = np.zeros((512, 512), np.uint8)
    cv2.circle(mask, np.rint(middle).astype(int).tolist(), radius, 1, -1)
    return mask.view(np.bool_)


def touched_labels(cover: regions.Cover) -> set[str]:
    return {
        f"{where} {label}".strip()
        for (label, where), share in zip(regions.SLOTS, cover, strict=True)
        if share is not None and share >= TOUCHED_SHARE
    }


def cover_of(labels: LabelMap, mask: NDArray[np.bool_], *face: Any) -> regions.Cover:
    return regions.Map(labels, *face).cover(mask)


def blank() -> LabelMap:
    """A plain face: skin, nose and lips, without eyes, ears, brows and hair."""
    labels = np.zeros((512, 512), np.uint8)
    for name, middle, axes in (
        ("skin", (256, 280), (120, 170)),
        ("nose", (256, 270), (22, 40)),
        ("u_lip", (256, 350), (40, 9)),
        ("l_lip", (256, 362), (40, 9)),
    ):
        cv2.ellipse(labels, middle, axes, 0, 0, 360, INDEX[name], -1)
    return labels


def with_eyes(labels: LabelMap, *names: str) -> LabelMap:
    for name in names:
        cv2.ellipse(labels, (316 if name == "l_eye" else 196, 230), (22, 10), 0, 0, 360, INDEX[name], -1)
    return labels


def test_the_order_of_a_cover() -> None:
    assert regions.SLOTS[:4] == (("eye", ""), ("eye", "left"), ("eye", "right"), ("pupil", ""))
    assert [label for label, where in regions.SLOTS if not where] == list(LABELS)
    made = tuple(float(i) for i in range(63))
    assert regions.of(made, "lip", "right") == 8.0


@pytest.mark.parametrize("change", ["as it is", "tilted", "tilted the other way", "mirrored"])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("source", ["points", "landmarks", "part map"])
def test_what_has_no_class_is_found_where_landmarks_put_it(
    faces: dict[int, Face], seed: int, change: str, source: str
) -> None:
    labels, xy = {
        "as it is": lambda face: face,
        "tilted": lambda face: turned(face, 30),
        "tilted the other way": lambda face: turned(face, -35),
        "mirrored": mirrored,
    }[change](faces[seed])
    given = {"points": (face_points(labels), None), "landmarks": (None, xy.ravel().tolist()), "part map": (None, None)}

    def hit(middle: NDArray[np.float32], radius: int = 14) -> set[str]:
        found = touched_labels(cover_of(labels, disc(middle, radius), *given[source]))
        return {name for name in found if name.split()[-1] in ("cheek", "forehead", "chin", "jaw", "mustache")}

    brows, tip = xy[17:27].mean(axis=0), xy[30]
    right_cheek, left_cheek = xy[[2, 31]].mean(axis=0), xy[[14, 35]].mean(axis=0)
    assert hit(right_cheek) == {"cheek", "right cheek"}
    assert hit(left_cheek) == {"cheek", "left cheek"}
    assert hit(brows + 0.45 * (brows - tip), 24) == {"forehead", "left forehead", "right forehead"}
    assert hit(0.4 * xy[57] + 0.6 * xy[8]) == {f"{w} {p}".strip() for w in regions.SIDES for p in ("chin", "jaw")}
    right_jaw, left_jaw = hit(0.88 * xy[5] + 0.12 * xy[57]), hit(0.88 * xy[11] + 0.12 * xy[57])
    assert "right jaw" in right_jaw
    assert "left jaw" in left_jaw
    assert not {"left jaw", "left cheek"} & right_jaw
    assert not {"right jaw", "right cheek"} & left_jaw
    assert "mustache" in hit(0.6 * xy[33] + 0.4 * xy[51], 8)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_touched_class_is_a_touched_part(faces: dict[int, Face], seed: int) -> None:
    labels, _ = faces[seed]
    rng = np.random.default_rng(seed)
    for _ in range(40):
        x, y = rng.integers(40, 440, 2)
        mask = np.zeros((512, 512), bool)
        mask[y : y + rng.integers(8, 160), x : x + rng.integers(8, 160)] = True
        cover = cover_of(labels, mask, face_points(labels))
        for name in set(touched(labels, mask)) & DIRECT.keys():
            share = regions.of(cover, DIRECT[name], side(name))
            assert share is not None
            assert share >= TOUCHED_SHARE - 1e-6, name


def test_paired_parts_have_the_sides_of_their_classes() -> None:
    labels = with_eyes(blank(), "l_eye", "r_eye")
    cover = cover_of(labels, labels == INDEX["l_eye"])
    assert regions.of(cover, "eye", "left") == regions.of(cover, "pupil", "left") == 1
    assert regions.of(cover, "eye", "right") == 0
    assert regions.of(cover, "eye") == 1  # one of two


def test_lids_belong_to_the_eye() -> None:
    labels = with_eyes(blank(), "l_eye", "r_eye")
    below = np.zeros((512, 512), bool)
    below[243:250, 300:330] = True
    cover = cover_of(labels, below)
    assert (regions.of(cover, "eye", "left") or 0) >= TOUCHED_SHARE
    assert regions.of(cover, "pupil", "left") == 0


def test_what_the_picture_does_not_show_is_none() -> None:
    cover = cover_of(with_eyes(blank(), "l_eye", "r_eye"), np.ones((512, 512), bool))
    assert {label for (label, _), share in zip(regions.SLOTS, cover, strict=True) if share is None} == {
        "ear", "eyebrow", "hair",
    }  # fmt: skip
    one_ear = with_eyes(blank(), "l_eye", "r_eye")
    one_ear[250:300, 380:400] = INDEX["l_ear"]
    cover = cover_of(one_ear, one_ear == INDEX["l_ear"])
    assert [regions.of(cover, "ear", where) for where in regions.SIDES] == [1, 1, None]


def test_eyes_behind_glasses() -> None:
    labels = blank()
    for x in (196, 316):
        cv2.ellipse(labels, (x, 230), (45, 30), 0, 0, 360, INDEX["eye_g"], -1)
    left = np.zeros((512, 512), bool)
    left[200:260, 290:340] = True
    cover = cover_of(labels, left)
    assert (regions.of(cover, "eye", "left") or 0) > 0.5
    assert regions.of(cover, "eye", "right") == 0
    shown = cover_of(with_eyes(labels, "l_eye", "r_eye"), left)
    assert regions.of(shown, "pupil", "left") == 1


def test_a_profile_shows_one_eye() -> None:
    labels = with_eyes(blank(), "l_eye")
    labels[:, :235] = 0
    cover = cover_of(labels, disc(np.float32((320, 300))))
    assert touched_labels(cover) >= {"cheek", "left cheek"}
    assert not {"right cheek", "forehead", "chin"} & touched_labels(cover)
    assert regions.of(cover, "eye", "right") is None


def test_a_closed_mouth_is_its_lips() -> None:
    labels = with_eyes(blank(), "l_eye", "r_eye")
    left = np.zeros((512, 512), bool)
    left[340:372, 270:300] = True
    cover = cover_of(labels, left)
    for label in ("mouth", "lip", "tooth", "tongue"):
        assert (regions.of(cover, label, "left") or 0) > 0.3
        assert regions.of(cover, label, "right") == 0


def test_the_nose_of_a_turned_head_has_two_sides() -> None:
    labels = with_eyes(blank(), "l_eye", "r_eye")
    moved = np.where(labels == INDEX["nose"], INDEX["skin"], labels).astype(np.uint8)
    cv2.ellipse(moved, (286, 270), (22, 40), 0, 0, 360, INDEX["nose"], -1)  # all of it beside the line to the mouth
    for start, stop, where in ((264, 282, "right"), (290, 308, "left")):
        mask = np.zeros((512, 512), bool)
        mask[265:275, start:stop] = True
        found = touched_labels(cover_of(moved, mask)) & {"left nose", "right nose"}
        assert found == {f"{where} nose"}


def test_an_edit_of_a_scar_touches_the_skin() -> None:
    labels = with_eyes(blank(), "l_eye", "r_eye")
    mask = np.zeros((512, 512), bool)
    mask[300:318, 320:338] = True
    assert np.count_nonzero(mask) < TOUCHED_SHARE * np.count_nonzero(labels == INDEX["skin"])
    assert {"scar", "skin", "wrinkle", "left scar", "cheek"} <= touched_labels(cover_of(labels, mask))
    nose = cover_of(labels, labels == INDEX["nose"])
    assert regions.of(nose, "skin") == 1  # that of the nose


def test_without_a_frame_classes_still_count() -> None:
    labels = blank()
    labels[(labels == INDEX["u_lip"]) | (labels == INDEX["l_lip"])] = INDEX["skin"]
    cover = cover_of(labels, labels == INDEX["nose"])
    assert [regions.of(cover, "nose", where) for where in regions.SIDES] == [1, None, None]
    assert regions.of(cover, "cheek") is None
    assert regions.of(cover, "lip") is None


def test_an_empty_mask_and_an_empty_picture() -> None:
    cover = cover_of(with_eyes(blank(), "l_eye", "r_eye"), np.zeros((512, 512), bool))
    assert {share for share in cover if share is not None} == {0}
    assert set(cover_of(np.zeros((512, 512), np.uint8), np.ones((512, 512), bool))) == {None}


def test_the_larger_of_two() -> None:
    assert regions.larger((None, 0.1, 0.2, None), (0.3, 0.0, 0.4, None)) == (0.3, 0.1, 0.4, None)
    assert regions.larger(None, (0.5,)) == regions.larger((0.5,), None) == (0.5,)
    assert regions.larger(None, None) is None
