"""The real FaceAnalysis over small real packs: every field, every trap."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from generators.faces.analysis import (
    AGE,
    POSE,
    RECOGNITION,
    Analysis,
    counted,
    find_pack,
    session_arguments,
)
from mmtt_build.errors import BadImage, ConfigError, WeightsError, WeightsMissing
from mmtt_build.weights import Weights
from tests.generators.faces import onnx_packs
from tests.generators.faces.onnx_packs import canvas, drawn_face, frontal, pack, spots


@pytest.fixture(scope="module")
def spotted(tmp_path_factory):
    return pack(tmp_path_factory.mktemp("spots"), yaw=20, pitch=-10, roll=5)


@pytest.fixture(scope="module")
def analysis(spotted):
    return Analysis(spotted, threads=1)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    return Analysis(pack(tmp_path_factory.mktemp("frontal"), detector=frontal), threads=1)


@pytest.fixture
def own(spotted, tmp_path):
    """A pack that a test may spoil."""
    return shutil.copytree(spotted, tmp_path / "own")


def refusal(folder, kind=WeightsError, **arguments):
    with pytest.raises(kind) as caught:
        Analysis(folder, threads=1, **arguments)
    assert caught.value.remedy
    return caught.value.message


def test_every_field_is_there_and_ours(analysis):
    (face,) = analysis.faces(canvas((9, 9, 5, 255)))
    assert face.box == pytest.approx((89.6, 89.6, 345.6, 345.6), abs=1)
    assert face.score == pytest.approx(0.997, abs=0.002)
    assert face.pose == pytest.approx((20, -10, 5), abs=1e-3)  # yaw, pitch, roll; insightface says pitch first
    assert (face.embedding.shape, face.embedding.dtype) == ((512,), np.float32)
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-6)
    assert type(face.age) is int
    left_eye, right_eye, nose, mouth_left, mouth_right = np.reshape(face.points, (5, 2))
    assert left_eye[0] > nose[0] > right_eye[0]  # the subject's left eye lies in the right half of the picture
    assert mouth_left[0] > mouth_right[0] and mouth_left[1] > nose[1] > left_eye[1]
    assert face.kps[0].tolist() == right_eye.astype(np.float32).tolist()  # and back in insightface's order
    assert face.side == pytest.approx(256, abs=1)


def test_records_can_be_copied_and_pickled(analysis):
    (face,) = analysis.faces(canvas((9, 9, 5, 255)))
    again = pickle.loads(pickle.dumps(face))
    assert (again.box, again.age, again.pose) == (face.box, face.age, face.pose)
    assert np.array_equal(dataclasses.replace(face, age=3).embedding, again.embedding)


def test_age_comes_from_the_picture(aligned):
    young, old = (aligned.main_face(drawn_face(1, age_red=red)).age for red in (50, 200))
    assert young == pytest.approx(20, abs=2)
    assert old == pytest.approx(78, abs=2)


def test_colours_are_not_swapped(aligned):
    """Red makes the age; in BGR order the blue would."""
    reddish = drawn_face(1, age_red=200)
    assert aligned.main_face(reddish).age == pytest.approx(78, abs=2)
    assert aligned.main_face(np.ascontiguousarray(reddish[..., ::-1])).age < 70


def test_a_picture_that_gives_no_direction_is_a_bad_image(aligned):
    with pytest.raises(BadImage, match="length 0"):
        aligned.faces(np.zeros((512, 512, 3), np.uint8))


def test_faces_come_largest_first_and_small_ones_do_not_count(analysis):
    faces = analysis.faces(canvas((16, 3, 1.1, 255), (6, 9, 4.8, 248)))
    assert [round(face.side) for face in faces] == [246, 56]
    assert len(counted(faces)) == 1
    two = analysis.faces(canvas((4, 9, 3, 255), (14, 9, 2, 248)))
    assert len(counted(two)) == 2
    assert [round(face.score, 2) for face in two] == [1.0, 0.97]


@pytest.mark.parametrize("grey", [0, 128])
def test_a_blank_picture_has_no_face(analysis, grey):
    blank = np.full((512, 512, 3), grey, np.uint8)
    assert analysis.faces(blank) == []
    assert analysis.main_face(blank) is None


@pytest.mark.parametrize("shape, kind", [((512, 512), np.uint8), ((512, 512, 4), np.uint8), ((9, 9, 3), np.float32)])
def test_grey_transparent_and_float_pictures_are_refused(analysis, shape, kind):
    with pytest.raises(BadImage, match=r"needs \(H, W, 3\) uint8 RGB"):
        analysis.faces(np.zeros(shape, kind))


def test_a_face_is_like_itself_and_not_like_another(aligned):
    one, again, other = (aligned.main_face(drawn_face(seed)) for seed in (1, 1, 2))
    assert one.similarity(again) == pytest.approx(1, abs=1e-5)
    assert one.similarity(other) < 0.3


def test_only_what_is_asked_for_is_computed(spotted):
    bare = Analysis(spotted, needs=(), threads=1)
    (face,) = bare.faces(canvas((9, 9, 5, 255)))
    assert (face.age, face.pose, face.embedding) == (None, None, None)
    with pytest.raises(ValueError, match="without embeddings"):
        face.similarity(face)


def test_a_static_detector_works_at_its_own_size(tmp_path):
    for side in (128, 640):
        folder = pack(tmp_path / str(side), detector=lambda path, side=side: frontal(path, side=side))
        (face,) = Analysis(folder, threads=1).faces(drawn_face(1))
        assert face.box == pytest.approx((112.64, 122.88, 399.36, 440.32), abs=0.1)


def test_nothing_is_printed(spotted, capfd):
    Analysis(spotted, threads=1).faces(canvas((9, 9, 5, 255)))
    assert capfd.readouterr() == ("", "")


# --- traps ---------------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_named_and_nothing_is_downloaded(tmp_path):
    assert "does not exist" in refusal(tmp_path / "buffalo_l", WeightsMissing)
    assert not (tmp_path / "buffalo_l").exists()


def test_a_zip_in_place_of_a_folder(tmp_path):
    (tmp_path / "buffalo_l.zip").write_bytes(b"PK")
    assert "is a file" in refusal(tmp_path / "buffalo_l.zip")


def test_an_empty_folder(tmp_path):
    assert "is empty" in refusal(tmp_path)


def test_a_doubly_nested_folder_names_the_inner_one(own, tmp_path):
    outer = tmp_path / "antelopev2"
    shutil.move(own, outer / "antelopev2")
    with pytest.raises(WeightsError) as caught:
        Analysis(outer)
    assert caught.value.remedy == f"name {outer / 'antelopev2'}"


def test_a_pack_without_detection_says_what_is_there(own):
    (own / "det_10g.onnx").unlink()
    message = refusal(own)
    assert "no detection network" in message and "w600k_r50.onnx (recognition)" in message


@pytest.mark.parametrize("task, file", [(RECOGNITION, "w600k_r50"), (AGE, "genderage"), (POSE, "1k3d68")])
def test_a_pack_without_what_is_needed(own, task, file):
    (own / f"{file}.onnx").unlink()
    assert f"has no {task} network" in refusal(own)
    others = [need for need in (RECOGNITION, AGE, POSE) if need != task]
    assert len(Analysis(own, needs=others, threads=1).faces(canvas((9, 9, 5, 255)))) == 1


def test_a_detector_without_key_points(own):
    spots(own / "det_10g.onnx", points=False)
    assert "without key points" in refusal(own)


def test_two_networks_for_one_task_are_both_named(own):
    onnx_packs.recognition(own / "a_second.onnx", seed=2)
    message = refusal(own)
    assert "two recognition networks" in message and "a_second.onnx" in message and "w600k_r50.onnx" in message


def test_a_file_that_is_nothing_known_does_no_harm(own):
    onnx_packs.fixed_landmarks(own / "zzz.onnx", np.zeros((7, 2), np.float32))  # a landmark network of another kind
    assert len(Analysis(own, threads=1).faces(canvas((9, 9, 5, 255)))) == 1


def test_a_swapper_in_the_pack_is_named(own):
    onnx_packs.swapper(own / "inswapper_128.onnx")
    assert "inswapper_128.onnx" in refusal(own)


@pytest.mark.parametrize("opset, ir, words", [(28, 9, "opset"), (17, 99, "IR version")])
def test_a_file_of_a_later_version_is_named(own, opset, ir, words):
    spots(own / "det_10g.onnx", opset=opset, ir=ir)
    with pytest.raises(WeightsError) as caught:
        Analysis(own, threads=1)
    assert "det_10g.onnx" in caught.value.message and words.lower() in caught.value.message.lower()
    assert "opset 17" in caught.value.remedy


@pytest.mark.parametrize("damage", [b"", b"<html>not found</html>", None])
def test_a_damaged_file_is_named(own, damage):
    file = own / "w600k_r50.onnx"
    file.write_bytes(file.read_bytes()[:-1000] if damage is None else damage)
    assert "w600k_r50.onnx" in refusal(own)


def manifest(folder, **tasks):
    (folder / "MODEL.LICENSE").write_text("research only")
    about = {"manifest_version": 2, "model_id": "raccoon_s", "license": "MODEL.LICENSE", "tasks": tasks}
    (folder / "manifest.json").write_text(json.dumps(about))
    return folder


def test_a_manifest_pack_has_no_age(own):
    manifest(own, detection={"file": "det_10g.onnx"}, recognition={"file": "w600k_r50.onnx"})
    with pytest.raises(WeightsError, match="no genderage network") as caught:
        Analysis(own, needs=(RECOGNITION, AGE), threads=1)
    assert "min_estimated_age = 0" in caught.value.remedy
    (face,) = Analysis(own, needs=(RECOGNITION,), threads=1).faces(canvas((9, 9, 5, 255)))
    assert face.embedding is not None


def test_a_wrong_manifest_says_what_is_wrong(own):
    manifest(own, detection={"file": "nowhere.onnx"})
    assert "nowhere.onnx" in refusal(own)


def test_a_folder_called_like_a_pack_is_not_taken_for_it(own, tmp_path, monkeypatch):
    (tmp_path / "here" / "buffalo_l").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(WeightsMissing, match="buffalo_l"):
        find_pack("buffalo_l", Weights((tmp_path / "weights",)))
    # The other way round: a pack opened by its folder stays that pack, whatever lies in the current folder.
    (tmp_path / "here" / own.name).mkdir()
    assert len(Analysis(own, threads=1).faces(canvas((9, 9, 5, 255)))) == 1


def test_a_pack_is_found_by_the_path_of_its_folder(own, monkeypatch):
    monkeypatch.chdir(own.parent)
    folder, identity = find_pack(f"./{own.name}", Weights(()))
    assert folder == own
    taken_in = Weights((own.parent / "weights",)).add("buffalo_l", own, accept=True)
    assert taken_in.identity == identity  # by its name or by its path, it is the same pack
    (own / "extra.onnx").write_bytes(b"x")
    assert find_pack(str(own), Weights(()))[1] != identity


def test_an_unknown_pack_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="bufalo") as caught:
        find_pack("bufalo", Weights(()))
    assert "buffalo_l" in caught.value.remedy


def test_a_device_that_is_not_there_is_an_error_not_a_slow_run():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime drives CUDA")
    with pytest.raises(ConfigError, match="cuda:0") as caught:
        session_arguments("cuda:0")
    assert "onnxruntime-gpu" in caught.value.remedy
    with pytest.raises(ConfigError, match="tpu"):
        session_arguments("tpu")


def test_importing_the_module_loads_no_network_library():
    script = (
        "import sys, generators.faces.analysis; print([n for n in ('insightface', 'onnxruntime') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
