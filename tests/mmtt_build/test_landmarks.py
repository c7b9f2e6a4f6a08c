import json

import cv2
import numpy as np
import pytest

from generators import classical
from mmtt_build import landmarks, parts
from mmtt_build.images import decode_rgb, encode_rgb, to_size
from mmtt_build.portraits import draw
from mmtt_build.sources.base import Landmarks, Options, describe
from mmtt_build.stages.ingest import ingest

SEEDS = (1, 4)
FRAMES, WIRES, BARE = (1, 24), (66, 94), (0, 2, 5, 7)
"""Seeds of portraits with dark frames, with wires of about the skin's brightness, and without glasses."""
EYES = {  # right and left in a 512 px frame, measured by hand
    "celebahq/00051.jpg": (189, 244, 326, 245),
    "celebahq/00085.jpg": (203, 235, 309, 248),
    "celebahq/00511.jpg": (188, 240, 318, 240),
    "celebahq/00705.jpg": (201, 244, 316, 244),
    "ffhq_like/34.jpg": (192, 242, 321, 243),
    "ffhq_like/35.jpg": (192, 244, 321, 243),
    "mat/test1.png": (189, 243, 328, 244),
    "celebahq/00251.jpg": (187, 250, 324, 241),
    "celebahq/00467.jpg": (193, 252, 321, 248),
    "celebahq/00888.jpg": (193, 250, 317, 249),
    "celebahq/01420.jpg": (194, 240, 321, 240),
}
WORN = {"celebahq/00251.jpg", "celebahq/00467.jpg", "celebahq/00888.jpg", "celebahq/01420.jpg"}


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


def smaller(portrait, angle, size):
    """The portrait turned in its frame and reduced, and its landmarks."""
    matrix = cv2.getRotationMatrix2D((256, 256), angle, size)
    turned = cv2.warpAffine(portrait.image, matrix, (512, 512), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return turned, cv2.transform(portrait.landmarks[None], matrix)[0]


@pytest.mark.parametrize("seed", [*FRAMES, *WIRES, *BARE])
def test_glasses_are_seen_where_they_are_drawn(seed):
    drawn = draw(seed, 512)
    assert ("eye_g" in drawn.parts) == (seed not in BARE)
    assert landmarks.wears_glasses(drawn.image, drawn.landmarks) == (seed not in BARE)


@pytest.mark.parametrize("seed", [1, 0])
@pytest.mark.parametrize("change", ["mirrored", "turned", "small", "dark", "misplaced"])
def test_glasses_are_seen_in_other_light_and_place(seed, change):
    drawn = draw(seed, 512)
    image, points = {
        "mirrored": lambda: (drawn.image[:, ::-1].copy(), mirrored(drawn.landmarks)),
        "turned": lambda: smaller(drawn, 18, 1),
        "small": lambda: smaller(drawn, 0, 0.6),
        "dark": lambda: (drawn.image // 3, drawn.landmarks),
        "misplaced": lambda: (drawn.image, drawn.landmarks + np.float32((4, -3))),
    }[change]()
    assert landmarks.wears_glasses(image, points) == (seed == 1)


def mirrored(points):
    out = points.copy()
    out[36:42], out[42:48] = points[42:48], points[36:42]  # the eyes; the score asks for no other point
    return out * (-1, 1) + (511, 0)


@pytest.mark.parametrize("rims", [(), (36,), (42,), (36, 42)])
def test_it_takes_a_bridge_and_both_rims(rims):
    drawn = draw(BARE[0], 512)
    image, ink = drawn.image.copy(), (30, 25, 25)
    (left_x, y), (right_x, _) = np.rint([drawn.landmarks[at : at + 6].mean(axis=0) for at in (36, 42)]).astype(int)
    cv2.line(image, (left_x + 44, y), (right_x - 44, y), ink, 4, cv2.LINE_AA)
    for first in rims:
        x = left_x if first == 36 else right_x
        cv2.ellipse(image, (x, y + 6), (44, 34), 0, 0, 360, ink, 4, cv2.LINE_AA)
    assert landmarks.wears_glasses(image, drawn.landmarks) == (len(rims) == 2)


@pytest.mark.parametrize("seed", [*FRAMES, *WIRES])
def test_the_map_of_glasses_covers_the_frame_and_lies_under_eyes_and_brows(seed):
    drawn = draw(seed, 512)
    bare, labels = landmarks.part_map(drawn.landmarks), landmarks.part_map(drawn.landmarks, glasses=True)
    worn, face = labels == parts.INDEX["eye_g"], bare > 0
    on_face = drawn.parts["eye_g"] & parts.select(bare, ("skin", "nose"))
    assert (worn & on_face).sum() / on_face.sum() > 0.95
    assert (worn & face).sum() / face.sum() < 0.25
    assert (labels[~worn] == bare[~worn]).all()
    assert set(np.unique(bare[worn])) <= {parts.INDEX[name] for name in ("background", "skin", "nose")}
    assert worn.sum() > classical.MAX_GLASSES


def test_what_the_dataset_says_of_glasses_decides(tmp_path):
    drawn = draw(FRAMES[0], 512)
    xy = tuple(drawn.landmarks.ravel().tolist())
    for said, image, worn in (
        (None, drawn.image, True),
        (None, None, False),
        (False, drawn.image, False),
        (True, None, True),
        (True, np.zeros_like(drawn.image), True),
    ):
        labels = Landmarks(xy, said).load(tmp_path, image)
        assert (labels == parts.INDEX["eye_g"]).any() == worn


def test_ingest_shows_the_image_to_the_landmarks(workspace, tmp_path):
    folder = tmp_path / "ffhq"
    folder.mkdir()
    entries = {}
    for number, seed in enumerate((FRAMES[0], BARE[0])):
        drawn = draw(seed, 512)
        (folder / f"{number:05d}.png").write_bytes(encode_rgb(drawn.image))
        entries[str(number)] = {"image": {"pixel_size": [512, 512], "face_landmarks": drawn.landmarks.tolist()}}
    (folder / "ffhq-dataset-v2.json").write_text(json.dumps(entries))
    ingest(workspace, "ffhq", folder, Options(), workers=1)
    rows = {row["id"]: row["part_areas"][parts.INDEX["eye_g"]] for row in workspace.pristine.read().to_pylist()}
    assert rows["ffhq-00000"] > classical.MAX_GLASSES
    assert rows["ffhq-00001"] == 0


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((68, 2), np.float32),
        np.full((68, 2), np.nan, np.float32),
        np.full((68, 2), 1e30, np.float32),
        np.random.default_rng(0).uniform(-2000, 3000, (68, 2)).astype(np.float32),
    ],
)
def test_impossible_points_wear_no_glasses(points):
    noise = np.random.default_rng(1).integers(0, 256, (512, 512, 3), np.uint8)
    assert not landmarks.wears_glasses(noise, points)


@pytest.mark.parametrize("eyes", [(0, 0, 511, 0), (0, 511, 511, 511), (300, 250, 200, 250), (0, 0, 511, 511)])
def test_eyes_anywhere_in_the_frame_are_scored(eyes):
    points = np.zeros((68, 2), np.float32)
    points[36:42], points[42:48] = eyes[:2], eyes[2:]
    noise = np.random.default_rng(1).integers(0, 256, (512, 512, 3), np.uint8)
    for image in (noise, np.zeros_like(noise), np.full_like(noise, 255)):
        assert -1 < landmarks.glasses_score(image, points) <= 0.25


@pytest.mark.parametrize("name", EYES)
def test_glasses_on_photographs(shared, name):
    image = to_size(decode_rgb((shared / "samples" / name).read_bytes()))
    points = np.zeros((68, 2), np.float32)
    points[36:42], points[42:48] = EYES[name][:2], EYES[name][2:]
    assert landmarks.wears_glasses(image, points) == (name in WORN)
