"""The swap through the real INSwapper and FaceAnalysis, over small networks that do what the large ones do."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from drawn_faces import BALD, GLASSES, LAUGHING, PLAIN, face

from generators.base import Forged, Job, Rejection
from generators.faces.analysis import quietly
from generators.inswapper.method import InSwapper, Options, blend_weights, load_swapper
from mmtt_build import config, masks
from mmtt_build.errors import TermsNotAccepted, WeightsError, WeightsMissing
from mmtt_build.registry import METHODS
from mmtt_build.weights import Weights
from tests.generators.faces import onnx_packs


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights folder with a pack that finds one face where an aligned portrait has it, and a swapper."""
    folder = tmp_path_factory.mktemp("inswapper")
    weights = Weights((folder / "weights",))
    weights.add("buffalo_l", onnx_packs.pack(folder / "pack", detector=onnx_packs.frontal), accept=True)
    weights.add("inswapper", onnx_packs.swapper(folder / "inswapper_128.onnx"), accept=True)
    return weights


@pytest.fixture(scope="module")
def method(weights):
    return prepared(weights)


def prepared(weights):
    method = InSwapper()
    method.prepare("cpu", weights)
    return method


def job(base=PLAIN, donor=BALD, **params):
    base, donor = face(base), face(donor)
    planned = InSwapper().plan(np.random.default_rng(1), base.facts, donor.facts) | params
    return Job("x", 1, planned, base.image, base.labels, donor.image, donor.labels)


def swapped(method, job):
    (made,) = method.forge([job])
    assert isinstance(made, Forged), made
    return made


def test_it_is_registered():
    assert METHODS.get("inswapper") is InSwapper


def test_a_swap_keeps_the_contract_and_says_how_it_went(method, weights):
    todo = job()
    made = swapped(method, todo)
    change = masks.check(todo.image, made.image, made.mask)
    assert 0.3 < change.area < 0.8
    assert change.changed_share > 0.9
    facts = json.loads(json.dumps(made.facts))
    assert facts["similarity_to_donor"] > 0.5 > facts["similarity_to_base"]
    assert facts["checkpoints"] == {name: weights.find(name).fact for name in ("inswapper", "buffalo_l")}
    assert np.shape(facts["matrix"]) == (2, 3)


def test_it_is_the_librarys_swap(method):
    """The library pastes with the same weights; it rounds the crop once more, and cuts off where we round."""
    from insightface.app.common import Face

    todo = job()
    made = swapped(method, todo)
    networks = method._loaded[1]
    base, donor = (networks.analysis.main_face(image) for image in (todo.image, todo.source_image))
    with quietly():
        pasted = networks.swapper.get(
            np.ascontiguousarray(todo.image[..., ::-1]), Face(kps=base.kps), Face(embedding=donor.embedding)
        )[..., ::-1]
    difference = np.abs(made.image.astype(int) - pasted)
    assert difference.max() <= 2
    assert difference.mean() < 1
    assert difference[~made.mask].max() <= 1  # cut off under weights that cannot show: the library's mask is no mask
    assert np.array_equal(made.image[~made.mask], todo.image[~made.mask])


def test_the_mask_is_the_square_of_the_matrix(method):
    made = swapped(method, job())
    matrix = np.array(made.facts["matrix"])
    ys, xs = np.nonzero(made.mask)
    x, y = matrix @ np.stack([xs, ys, np.ones(len(xs))])
    assert min(x.min(), y.min()) > -1 and max(x.max(), y.max()) < 128  # inside the crop ...
    assert min(x.min(), y.min()) < 3 and max(x.max(), y.max()) > 124  # ... and all but its corners
    contours, _ = cv2.findContours(made.mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    assert len(contours) == 1  # one piece, no hole


def test_the_seam_is_soft_and_lies_inside(method):
    alpha = blend_weights((512, 512), 128, np.array([[0.4, 0.02, -40], [-0.02, 0.4, -40.0]]), 0.05)
    row = alpha[256]
    rises = np.flatnonzero((row > 0) & (row < 1))
    assert len(rises) > 40  # some 25 px on each side
    assert np.abs(np.diff(row)).max() < 0.1
    assert row.max() == pytest.approx(1)
    assert blend_weights((512, 512), 128, np.array([[0.4, 0, 4000], [0, 0.4, 0.0]]), 0.05).max() == 0


def test_no_seam_along_the_edge_of_the_photo():
    """A crop that reaches beyond the photo is not feathered where the photo ends."""
    alpha = blend_weights((512, 512), 128, np.array([[0.4, 0, 40], [0, 0.4, 40.0]]), 0.05)
    assert alpha[:100, :100].min() == pytest.approx(1)


def test_a_wider_feather_is_wider(method):
    narrow, wide = (swapped(method, job(feather=feather)) for feather in (0.03, 0.1))
    assert np.count_nonzero(narrow.mask) != np.count_nonzero(wide.mask)
    assert not np.array_equal(narrow.image, wide.image)


def test_two_runs_and_another_batch_give_the_same_bytes(method, weights):
    alone = swapped(method, job())
    _, again = prepared(weights).forge([job(LAUGHING, PLAIN), job()])
    assert np.array_equal(alone.image, again.image)
    assert np.array_equal(alone.mask, again.mask)
    assert alone.facts == again.facts


def test_a_swap_that_did_not_take_is_rejected_with_both_numbers(weights, tmp_path):
    own = Weights((tmp_path, *weights.folders))
    own.add("inswapper", onnx_packs.swapper(tmp_path / "dud.onnx", gain=0.0), accept=True)
    (made,) = prepared(own).forge([job()])
    assert isinstance(made, Rejection)
    assert "not nearer to the donor" in made.reason
    to_donor, to_base = (float(word) for word in made.reason.replace(",", "").split() if word[-1].isdecimal())
    assert to_base > 0.9 > to_donor


def test_no_face_is_a_rejection(weights, tmp_path):
    own = Weights((tmp_path / "own", *weights.folders))
    own.add("buffalo_l", onnx_packs.pack(tmp_path / "pack"), accept=True)  # finds bright squares only
    found, none = onnx_packs.canvas((9, 9, 5, 255)), onnx_packs.canvas()
    todo = job()
    method = prepared(own)
    (no_base,) = method.forge([replace(todo, image=none, source_image=found)])
    (no_donor,) = method.forge([replace(todo, image=found, source_image=none)])
    (no_result,) = method.forge([replace(todo, image=found, source_image=found)])
    assert no_base == Rejection("no face found in the base")
    assert no_donor == Rejection("no face found in the donor")
    assert no_result == Rejection("no face found where the base's was, once swapped")
    (nobody,) = method.forge([replace(todo, source_image=None)])
    assert nobody == Rejection("no donor")


def test_an_unusable_picture_is_a_rejection_of_its_row_only(method):
    black = replace(job(), source_image=np.zeros((512, 512, 3), np.uint8))
    bad, good = method.forge([black, job()])
    assert isinstance(bad, Rejection) and "length 0" in bad.reason
    assert isinstance(good, Forged)


def test_the_plan_needs_two_complete_faces_turned_alike():
    rng = np.random.default_rng(1)
    plan = InSwapper().plan
    params = plan(rng, face(PLAIN).facts, face(BALD).facts)
    assert {"l_eye", "nose", "skin"} <= set(params["parts"])
    assert (params["pack"], params["det_thresh"], params["feather"]) == ("buffalo_l", 0.5, 0.05)
    assert json.loads(json.dumps(params)) == params
    assert plan(rng, face(PLAIN).facts, None) is None
    assert plan(rng, face(GLASSES).facts, face(BALD).facts) is None
    assert plan(rng, face(PLAIN).facts, face(GLASSES).facts) is None
    points = np.array(face(BALD).facts.points).reshape(5, 2)
    points[2, 0] += 90  # the nose of a head turned far aside
    turned = replace(face(BALD).facts, points=tuple(points.ravel()))
    assert plan(rng, face(PLAIN).facts, turned) is None


def test_what_a_row_needs_and_goes_with():
    method = InSwapper(Options(pack="antelopev2"))
    params = method.plan(np.random.default_rng(1), face(PLAIN).facts, face(BALD).facts)
    assert method.weights(params) == ("inswapper", "antelopev2")
    assert method.batch_key(params) != method.batch_key({**params, "pack": "buffalo_l"})


@pytest.mark.parametrize("line, words", [
    ('pack = "bisenet"', "no face pack"), ("det_thresh = 2.0", "between"), ("feather = 0.5", "between"), ("x = 1", "x"),
])  # fmt: skip
def test_options_that_make_no_sense_name_their_line(tmp_path, line, words):
    file = tmp_path / "mmtt.toml"
    file.write_text(f"[methods.inswapper]\n{line}\n")
    with pytest.raises(config.ConfigError, match=words) as caught:
        config.options(file, "inswapper", Options)
    assert "line 2" in caught.value.message


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_missing_and_unaccepted_checkpoints(weights, tmp_path):
    with pytest.raises(WeightsMissing, match="inswapper"):
        prepared(Weights((tmp_path / "none",))).forge([job()])
    own = Weights((tmp_path / "own",))
    own.add("buffalo_l", weights.find("buffalo_l").path, accept=True)
    own.add("inswapper", weights.find("inswapper").path)
    with pytest.raises(TermsNotAccepted, match="inswapper"):
        prepared(own).forge([job()])


def test_a_file_that_is_no_swapper(tmp_path):
    with pytest.raises(WeightsError, match="no swapper"):
        load_swapper(onnx_packs.recognition(tmp_path / "inswapper_128.onnx"), "cpu")
    with pytest.raises(WeightsError, match="last initializer"):
        load_swapper(onnx_packs.swapper(tmp_path / "inswapper_128.onnx", emap=np.eye(3, dtype=np.float32)), "cpu")
    (tmp_path / "inswapper_128.onnx").write_bytes(b"<html>")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_swapper(tmp_path / "inswapper_128.onnx", "cpu")


@pytest.mark.shared
def test_real_faces_swap_inside_the_mask(method, shared):
    pictures = []
    for name in ("00044", "00051"):
        data = np.fromfile(shared / f"samples/celebahq/{name}.jpg", np.uint8)
        pictures.append(cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), (512, 512), interpolation=cv2.INTER_AREA))
    made = swapped(method, replace(job(), image=pictures[0], source_image=pictures[1]))
    masks.check(pictures[0], made.image, made.mask)
    assert made.facts["similarity_to_donor"] > made.facts["similarity_to_base"]
