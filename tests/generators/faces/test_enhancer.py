"""GPEN's pipeline: the networks' files, what becomes of their answers, and that a face stays where it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import thin_files
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from generators.faces import enhancer
from generators.faces.enhancer import Enhanced, Enhancer, Face, Networks, Restored
from generators.nn.pictures import NOT_FINITE
from mmtt_build import parts
from mmtt_build.catalogue import entry
from mmtt_build.errors import WeightsMissing
from mmtt_build.portraits import draw
from mmtt_build.weights import Weights, prove

Points = NDArray[np.float32]

PORTRAIT = 1024 * np.array([(0.383, 0.472), (0.617, 0.472), (0.5, 0.61), (0.40, 0.72), (0.60, 0.72)], np.float32)
SKIN, HAT = parts.INDEX["skin"], parts.INDEX["hat"]
ANCHORS = 2 * (128**2 + 64**2 + 32**2)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with the four published networks, thin."""
    made = tmp_path_factory.mktemp("weights")
    for name in Networks._fields:
        Weights((made,)).add(name, getattr(thin_files, name)(made / entry(name).files[0]), accept=True)
    return made


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Enhancer:
    return Enhancer("cpu", Weights((folder,)), "fp32")


@pytest.fixture
def enhance(loaded: Enhancer) -> Callable[..., list[Enhanced | str]]:
    """Runs the pipeline with other networks than the published ones, which take a minute for a picture."""

    def run(images: Sequence[NDArray[np.uint8]], **networks: Callable[[Tensor], Any]) -> list[Enhanced | str]:
        loaded.networks = plain()._replace(**networks)
        return loaded.enhance(images)

    return run


def plain(points: Points = PORTRAIT) -> Networks:
    """Networks that change nothing: a smooth enlargement, one face, the crop as it is, skin all over."""
    return Networks(
        lambda x: F.interpolate(x, scale_factor=4, mode="bilinear"),
        lambda x: detection(face_of(points)),
        lambda x: x,
        lambda x: (labelled(SKIN), None),
    )


def face_of(points: Points, half_px: float = 300) -> Face:
    centre = points.mean(axis=0)
    return Face(np.concatenate([centre - half_px, centre + half_px]).astype(np.float32), points)


def detection(*faces: Face, score: float = 0.99) -> tuple[Tensor, Tensor, Tensor]:
    """RetinaFace's answer for such faces in 1024 pixels, each by the anchor of 512 pixels in a cell of its own."""
    offsets, scores, points = np.zeros((1, ANCHORS, 4)), np.zeros((1, ANCHORS, 2)), np.zeros((1, ANCHORS, 10))
    scores[..., 0] = 1
    for i, face in enumerate(faces):
        at, anchor = 2 * (128**2 + 64**2) + 2 * (32 * 16 + i) + 1, np.array((32 * (i + 0.5), 32 * 16.5))
        centre, size = (face.box[:2] + face.box[2:]) / 2, face.box[2:] - face.box[:2]
        offsets[0, at] = *(centre - anchor) / 51.2, *np.log(size / 512) / 0.2
        points[0, at] = ((face.points - anchor) / 51.2).ravel()
        scores[0, at] = (1 - score + 0.001 * i, score - 0.001 * i)
    answer = tuple(torch.from_numpy(each.astype(np.float32)) for each in (offsets, scores, points))
    return answer[0], answer[1], answer[2]


def labelled(label: int) -> Tensor:
    """ParseNet's scores where all is of one class."""
    scores = torch.zeros(1, len(parts.CLASSES), 512, 512)
    scores[:, label] = 1
    return scores


@pytest.fixture(scope="module")
def small() -> NDArray[np.uint8]:
    return cv2.resize(draw(11, 512).image, (256, 256), interpolation=cv2.INTER_AREA)


def large(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.resize(small, (1024, 1024), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize(
    ("name", "build", "tensors", "numbers"),
    [("retinaface", enhancer.retinaface, 456, 27_351_657), ("parsenet", enhancer.parsenet, 238, 21_319_930)],
)
def test_a_file_of_the_published_form_is_taken_and_a_tensor_that_is_off_is_named(
    name: str, build: Any, tensors: int, numbers: int, folder: Path, tmp_path: Path
) -> None:
    with torch.device("meta"):
        network = build().state_dict()
    assert (len(network), sum(value.numel() for value in network.values())) == (tensors, numbers)
    file = folder / name / entry(name).files[0]
    assert prove(entry(name), file) == []
    state = torch.load(file, weights_only=True)
    last = list(state)[-1]
    state[last] = torch.zeros(7, 7)
    torch.save(state, tmp_path / "file.pth")
    (said,) = prove(entry(name), tmp_path / "file.pth")
    assert said.startswith(f"shape: {last.removeprefix('module.')} is (7, 7)")


def test_the_detectors_file_may_hold_its_state_dict_under_a_name(folder: Path, tmp_path: Path) -> None:
    state = torch.load(folder / "retinaface" / entry("retinaface").files[0], weights_only=True)
    bare = {name.removeprefix("module."): value for name, value in state.items()}
    for i, outer in enumerate((bare, {"epoch": 3, "state_dict": state})):
        torch.save(outer, tmp_path / f"{i}.pth")
        assert prove(entry("retinaface"), tmp_path / f"{i}.pth") == []
    torch.save({"epoch": 3, "weights": state}, tmp_path / "2.pth")
    assert "holds no 'state_dict'" in prove(entry("retinaface"), tmp_path / "2.pth")[0]


def test_the_published_networks_are_loaded(loaded: Enhancer, folder: Path) -> None:
    networks = Enhancer("cpu", Weights((folder,)), "fp32").networks
    assert [type(network).__name__ for network in networks] == ["RealESRNet", "RetinaFace", "Gpen", "ParseNet"]
    assert not any(network.training for network in networks)


def test_without_a_checkpoint_it_says_how_to_obtain_it(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="mmtt weights add realesrnet"):
        Enhancer("cpu", Weights((tmp_path,)), "fp32")


def test_faces_are_those_of_the_librarys_own_detector() -> None:
    """On noise, with heads that take some of it for faces."""
    torch.manual_seed(0)
    network = enhancer.retinaface()
    for name, value in network.state_dict().items():
        if "Head." in name:
            value *= 0.02
    photo = np.random.default_rng(0).integers(0, 256, (160, 192, 3), np.uint8)
    with torch.inference_mode():
        theirs = network.detect_faces(photo, conf_threshold=enhancer.SURE, nms_threshold=enhancer.OVERLAP)
        pixels = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
        answers = network(pixels - torch.tensor(enhancer.BGR_MEAN).view(1, 3, 1, 1))
        (ours,) = enhancer.faces_in(*answers, photo.shape[:2])
    assert 50 < len(ours) < (answers[1][0, :, 1] > enhancer.SURE).sum()
    np.testing.assert_allclose([face.box for face in ours], theirs[:, :4], atol=1e-3)
    np.testing.assert_allclose([face.points.ravel() for face in ours], theirs[:, 5:], atol=1e-3)


def test_the_surest_of_overlapping_boxes_is_kept_and_no_unsure_one() -> None:
    here, beside = face_of(PORTRAIT), face_of(PORTRAIT + 20)
    far = face_of(PORTRAIT * 0.1, 40)
    (found,) = enhancer.faces_in(*detection(here, beside, far), (1024, 1024))
    assert [face.points[0, 0].round() for face in found] == [here.points[0, 0].round(), far.points[0, 0].round()]
    np.testing.assert_allclose(found[0].box, here.box, atol=1e-2)
    assert enhancer.faces_in(*detection(here, score=0.9), (1024, 1024)) == [[]]


def test_a_crop_has_the_five_points_where_they_belong() -> None:
    turned = np.array(enhancer.REFERENCE) @ np.array([[1.7, 0.4], [-0.4, 1.7]]) + (55, -20)
    there = np.c_[turned, np.ones(5)] @ enhancer.alignment(face_of(turned.astype(np.float32))).T
    np.testing.assert_allclose(there, enhancer.REFERENCE, atol=1e-3)


def test_a_face_that_is_not_changed_stays_where_it_is(
    enhance: Callable[..., list[Enhanced | str]], small: NDArray[np.uint8]
) -> None:
    (made,) = enhance([small])
    assert isinstance(made, Enhanced)
    assert (made.image.shape, made.image.dtype, made.faces) == ((1024, 1024, 3), np.uint8, 1)
    off = np.abs(made.image.astype(float) - large(small))
    assert 0 < off.mean() < 1  # the crop is half as large
    for axis in (0, 1):
        for by in (-2, 2):
            assert np.abs(np.roll(made.image, by, axis).astype(float) - large(small)).mean() > 1.5 * off.mean()


def test_without_a_face_the_picture_is_merely_enlarged(
    enhance: Callable[..., list[Enhanced | str]], small: NDArray[np.uint8]
) -> None:
    (made,) = enhance([small], retinaface=lambda x: detection())
    assert isinstance(made, Enhanced)
    assert made.faces == 0
    assert np.abs(made.image.astype(int) - large(small)).max() <= 1  # OpenCV rounds in fixed point


def test_the_networks_get_what_they_were_trained_with(
    enhance: Callable[..., list[Enhanced | str]], small: NDArray[np.uint8]
) -> None:
    seen: dict[str, Tensor] = {}

    def see(name: str) -> Callable[[Tensor], Any]:
        def run(x: Tensor) -> Any:
            seen[name] = x
            return getattr(plain(), name)(x)

        return run

    enhance([small], **{name: see(name) for name in Networks._fields})

    def pixels(name: str) -> NDArray[np.float32]:
        return seen[name][0].permute(1, 2, 0).numpy()

    np.testing.assert_array_equal(pixels("realesrnet"), small.astype(np.float32) / 255)
    np.testing.assert_array_equal(pixels("retinaface"), large(small)[..., ::-1] - np.float32([104, 117, 123]))
    crop = enhancer.cut_out(large(small), face_of(PORTRAIT))
    # Places that went through the detector's units are off by a millionth, which moves few pixels.
    assert np.abs(pixels("gpen") - (crop / 127.5 - 1)).mean() < 1e-5
    assert np.abs(pixels("parsenet") - pixels("gpen")).max() < 1.001 / 127.5


def test_the_enlargement_is_rounded_and_the_face_truncated(
    enhance: Callable[..., list[Enhanced | str]], small: NDArray[np.uint8]
) -> None:
    (made,) = enhance(
        [small],
        realesrnet=lambda x: torch.full((1, 3, 1024, 1024), 99.9 / 255),
        retinaface=lambda x: detection(face_of(PORTRAIT * 0.5 + 256)),
        gpen=lambda x: torch.full((1, 3, 512, 512), 49.9 / 127.5 - 1),
    )
    assert isinstance(made, Enhanced)
    assert made.image[0, 0].tolist() == [100] * 3
    assert made.image[550, 512].tolist() == [49] * 3


def test_what_covers_the_head_and_the_background_are_not_pasted(
    enhance: Callable[..., list[Enhanced | str]], small: NDArray[np.uint8]
) -> None:
    dark = {"gpen": lambda x: torch.full_like(x, -1)}
    for label, name in enumerate(parts.CLASSES):
        if name in ("background", "hat", "cloth", "skin", "hair"):
            (made,) = enhance([small], **dark, parsenet=lambda x, of=label: (labelled(of), None))
            assert isinstance(made, Enhanced)
            assert (made.image[600, 512].max() == 0) == (name in ("skin", "hair")), name


@pytest.mark.parametrize("name", Networks._fields)
def test_of_an_answer_that_is_not_finite_only_its_own_picture_has_none(
    name: str, enhance: Callable[..., list[Enhanced | str]], small: NDArray[np.uint8]
) -> None:
    calls: list[Tensor] = []

    def second_time(x: Tensor) -> Any:
        calls.append(x)
        answer = getattr(plain(), name)(x)
        for part in answer if isinstance(answer, tuple) else (answer,):
            if len(calls) == 2 and part is not None:
                part[..., -1] = torch.nan if name == "retinaface" else torch.inf
        return answer

    first, second, third = enhance([small] * 3, **{name: second_time})
    assert isinstance(first, Enhanced)
    assert second == NOT_FINITE
    assert isinstance(third, Enhanced)


def test_each_picture_gets_its_own_faces(
    enhance: Callable[..., list[Enhanced | str]], small: NDArray[np.uint8]
) -> None:
    """Two faces, none, one: the shade of a crop says whose it is."""
    left, right = (face_of(PORTRAIT * 0.4 + np.float32(shift), 150) for shift in ((20, 300), (580, 300)))
    answers = iter([detection(left, right), detection(), detection(right)])
    shades = iter([-0.5, 0.0, 0.5])
    made = enhance(
        [small] * 3,
        realesrnet=lambda x: torch.zeros(1, 3, 1024, 1024),
        retinaface=lambda x: next(answers),
        gpen=lambda x: torch.full_like(x, next(shades)),
    )
    assert [one.faces for one in made if isinstance(one, Enhanced)] == [2, 0, 1]
    spots = [tuple(face.points[2].astype(int)) for face in (left, right)]
    seen = [[one.image[y, x, 0] for x, y in spots] for one in made if isinstance(one, Enhanced)]
    assert seen == [[63, 127], [0, 0], [0, 191]]


def test_the_border_of_a_crop_fades_out() -> None:
    weight = enhancer.feather(np.ones((512, 512), bool))
    assert weight.dtype == np.float32
    assert weight[0, 256] < 0.22 < 0.45 < weight[20, 256] < 0.55
    assert weight[256, 256] == pytest.approx(1)
    assert enhancer.feather(np.zeros((512, 512), bool)).max() == 0


def test_where_two_faces_overlap_the_one_that_weighs_more_is_seen() -> None:
    sharp, head = np.zeros((1024, 1024, 3), np.uint8), np.ones((512, 512), bool)
    faces = [face_of(PORTRAIT * 0.5 + np.float32((shift, 256))) for shift in (20, 470)]
    shades = [np.full((512, 512, 3), shade, np.uint8) for shade in (100, 200)]
    both = [Restored(face, shade, head) for face, shade in zip(faces, shades, strict=True)]
    alone = [enhancer.paste(sharp, [one])[600] for one in both]
    weights = [alone[0] / 100, alone[1] / 200]
    for order in (both, both[::-1]):
        row = enhancer.paste(sharp, order)[600]
        for seen, here, there in zip(alone, weights, weights[::-1], strict=True):
            wins = here > there + 0.02
            assert (wins & (there > 0.02)).any()
            np.testing.assert_array_equal(row[wins], seen[wins])


def test_a_small_face_is_smoothed() -> None:
    sharp, head = np.zeros((1024, 1024, 3), np.uint8), np.ones((512, 512), bool)
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    seen = [
        enhancer.paste(sharp, [Restored(face_of(np.array(enhancer.REFERENCE, np.float32), half), stripes, head)])
        for half in (50, 49)
    ]
    assert np.ptp(seen[0][256, 200:300]) == 255
    assert np.ptp(seen[1][256, 200:300]) <= 1


def test_nothing_in_nothing_out_and_other_sizes_are_refused(enhance: Callable[..., list[Enhanced | str]]) -> None:
    assert enhance([]) == []
    with pytest.raises(ValueError, match="256x256"):
        enhance([np.zeros((512, 512, 3), np.uint8)])
