"""`e4s` around its networks: which pairs are planned, and what becomes of the face that is generated.

In place of the generator the donor's own picture comes back, so that one can tell what must be seen where. What the
networks make is in test_nets.py, test_net3.py and the parity cases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import fitted_parser
import numpy as np
import pytest
import torch
from drawn_faces import BALD, GLASSES, HAT, PLAIN, Face, face, facts, from_landmarks, without

from generators import ffhq_align
from generators.base import Forged, Job, Params, Rejection
from generators.e4s import composite, regions
from generators.e4s.method import E4S, NETWORK, REENACTMENT, Options
from generators.faces.enhancer import Enhanced, Enhancer
from mmtt_build import masks, parts
from mmtt_build.catalogue import catalogue
from mmtt_build.masks import Image
from mmtt_build.parts import LabelMap
from mmtt_build.records import Pristine
from mmtt_build.weights import Weights
from tests.generators.faces import onnx_packs

torch.set_num_threads(1)
TARGET, DONOR = PLAIN, 10
RNG = np.random.default_rng(0)


class Known:
    """In place of the networks: the donor as it is, reenacted and generated."""

    def __init__(self, reenacted: str = "", generated: str = "") -> None:
        self.reenacted, self.generated = reenacted, generated
        self.shapes: list[LabelMap] = []
        self.seeds: list[Sequence[int] | None] = []
        self.maps: list[LabelMap] = []
        self.parsed: list[int] = []

    def reenact(self, donors: Sequence[Image], targets: Sequence[Image]) -> list[Enhanced | str]:
        return [self.reenacted or Enhanced(donor, 1) for donor in donors]

    def parse(self, images: Sequence[Image]) -> list[LabelMap]:
        self.parsed.append(len(images))
        return self.maps[: len(images)]

    def generate(self, donors: Any, targets: Any, shapes: Any, seeds: Any, *, mix_neck: bool) -> list[Image | str]:
        self.shapes += shapes
        self.seeds.append(seeds)
        return [self.generated or donor for donor, _ in donors]


class Swapper(E4S):
    """The method with networks that are known."""

    def __init__(self, known: Known | None = None, **options: Any) -> None:
        super().__init__(Options(**options))
        self._engine = known or Known()  # type: ignore[assignment]
        self._known = {name: {"licence": "none", "identity": "x"} for name in catalogue()}


def person(of: Face, name: str, **changes: Any) -> Pristine:
    return dataclasses.replace(of.facts, id=name, identity_group=name, **changes)


def params(method: E4S, target: Face, donor: Face) -> Params:
    drawn = method.plan(RNG, person(target, "a"), person(donor, "b"))
    assert drawn is not None
    return drawn


def job(method: E4S, target: Face, donor: Face, name: str = "j", seed: int = 1) -> Job:
    drawn = params(method, target, donor)
    return Job(name, seed, drawn, target.image, target.labels, donor.image, donor.labels)


def forge(method: E4S, jobs: Sequence[Job]) -> list[Forged | Rejection]:
    """As the stage does it."""
    return [method.end(made) for made in method.forge([method.begin(job) for job in jobs])]


def swapped(target: Face, donor: Face, known: Known | None = None, **options: Any) -> Forged:
    method = Swapper(known, **options)
    (made,) = forge(method, [job(method, target, donor)])
    assert isinstance(made, Forged), made
    masks.check(target.image, made.image, made.mask)
    return made


# --- pixels -----------------------------------------------------------------------------------------------------


def test_inside_the_face_the_generated_picture_and_outside_the_photo() -> None:
    target, donor = face(TARGET), face(DONOR)
    made = swapped(target, donor, reenact="never")
    shape, _ = regions.swap_masks(
        regions.twelve(donor.labels, parts.CLASSES), regions.twelve(target.labels, parts.CLASSES)
    )
    inside = cv2.erode(composite.foreground(shape).view(np.uint8), np.ones((5, 5))) > 0
    away = np.abs(made.image.astype(int) - donor.image).max(axis=2)
    assert np.percentile(away[inside], 99) <= 8  # enlarged and reduced again
    assert (made.mask & composite.foreground(shape)).sum() == composite.foreground(shape).sum()
    reach = cv2.dilate(composite.foreground(shape).view(np.uint8), np.ones((15, 15)))
    assert not (made.mask & (reach == 0)).any()


def test_the_part_map_of_the_result_has_the_donors_features_and_the_targets_hair() -> None:
    target, donor = face(TARGET), face(DONOR)
    made = swapped(target, donor, reenact="never")
    assert made.labels is not None
    for name in ("l_eye", "r_eye", "nose"):  # sides are those of the map, which the twelve regions do not have
        index = parts.INDEX[name]
        assert (made.labels == index).sum() > 0.9 * (donor.labels == index).sum()
        assert (donor.labels[made.labels == index] == index).mean() > 0.98
    np.testing.assert_array_equal(made.labels[~made.mask], target.labels[~made.mask])
    assert (made.labels == parts.INDEX["hair"]).sum() > 0.7 * (target.labels == parts.INDEX["hair"]).sum()


@pytest.mark.parametrize("blending", ["alpha", "multiband"])
@pytest.mark.parametrize("hair_first", [True, False])
def test_every_way_to_blend_keeps_the_contract(blending: str, hair_first: bool) -> None:
    target, donor = face(TARGET), face(DONOR)
    made = swapped(target, donor, reenact="never", blending=blending, hair_first=hair_first)
    assert 0.1 < made.mask.mean() < 0.6
    if not hair_first:
        kept = target.labels == parts.INDEX["hair"]
        deep = cv2.erode(kept.view(np.uint8), np.ones((25, 25))) > 0
        assert not (made.mask & deep).any()


def test_both_blendings_have_one_mask_and_differ_within_it() -> None:
    target, donor = face(TARGET), face(DONOR)
    alpha, multiband = (swapped(target, donor, reenact="never", blending=name) for name in ("alpha", "multiband"))
    np.testing.assert_array_equal(alpha.mask, multiband.mask)
    assert np.abs(alpha.image.astype(int) - multiband.image)[alpha.mask].mean() > 0.5


@pytest.mark.parametrize("crop", ["ffhq", "e4s"])
@pytest.mark.parametrize("blending", ["alpha", "multiband"])
def test_a_face_that_is_not_aligned_is_cut_out_and_put_back(crop: str, blending: str) -> None:
    """A small turned face in a larger scene: only it changes."""
    donor, aligned = face(DONOR), face(TARGET)
    matrix = cv2.getRotationMatrix2D((256, 256), 12, 0.55)
    scene = cv2.warpAffine(aligned.image, matrix, (512, 512), borderMode=cv2.BORDER_REFLECT)
    labels = cv2.warpAffine(aligned.labels, matrix, (512, 512), flags=cv2.INTER_NEAREST)
    target = Face(scene, labels, facts(scene, labels))
    method = Swapper(reenact="never", crop=crop, blending=blending)
    drawn = params(Swapper(reenact="always"), target, donor) | {"driven": False, "crop": crop, "blending": blending}
    assert drawn["corners"][0] is not None and drawn["corners"][1] is None
    (made,) = forge(method, [Job("j", 1, drawn, target.image, target.labels, donor.image, donor.labels)])
    assert isinstance(made, Forged)
    assert masks.check(target.image, made.image, made.mask).area < 0.25
    quad = np.zeros((512, 512), np.uint8)
    cv2.fillPoly(quad, [np.rint(drawn["corners"][0]).astype(np.int32)], 1)
    assert not (made.mask & (quad == 0)).any()
    # The donor's face is where the target's was: cut out again, it is the donor's picture.
    again = ffhq_align.cut_out(made.image, np.array(drawn["corners"][0]), 512)
    nose = cv2.erode((donor.labels == parts.INDEX["nose"]).view(np.uint8), np.ones((9, 9))) > 0
    assert np.abs(again.astype(int) - donor.image)[nose].mean() < 6
    assert made.labels is not None
    np.testing.assert_array_equal(made.labels[~made.mask], target.labels[~made.mask])


def test_a_batch_that_is_tried_again_starts_from_the_same_pictures() -> None:
    """The stage halves a batch that does not fit into memory: a donor must not be reenacted twice."""

    class Darker(Known):
        def reenact(self, donors: Sequence[Image], targets: Sequence[Image]) -> list[Enhanced | str]:
            return [Enhanced(donor // 2, 0) for donor in donors]

        def parse(self, images: Sequence[Image]) -> list[LabelMap]:
            return [face(DONOR).labels for _ in images]

    method = Swapper(Darker(), reenact="always")
    begun = method.begin(job(method, face(TARGET), face(DONOR)))
    first, second = (method.end(method.forge([begun])[0]) for _ in range(2))
    assert isinstance(first, Forged) and isinstance(second, Forged)
    np.testing.assert_array_equal(first.image, second.image)
    assert first.facts == second.facts


def test_seeds_are_the_rows_and_const_noise_has_none() -> None:
    target, donor = face(TARGET), face(DONOR)
    for noise, wanted in (("random", [[7, 8]]), ("const", [None])):
        known = Known()
        method = Swapper(known, reenact="never", noise=noise)
        forge(method, [job(method, target, donor, seed=seed) for seed in (7, 8)])
        assert known.seeds == wanted


# --- what a map may lack ----------------------------------------------------------------------------------------


def only(made: Sequence[Forged | Rejection]) -> str:
    (one,) = made
    assert isinstance(one, Rejection)
    return one.reason


@pytest.mark.parametrize("names", [("l_eye", "r_eye"), ("l_brow", "r_brow"), ("nose",), ("u_lip", "l_lip", "mouth")])
def test_a_parse_of_the_donor_without_a_feature_is_rejected_by_its_name(names: tuple[str, ...]) -> None:
    target, donor = face(TARGET), face(DONOR)
    labels = donor.labels
    for name in names:
        labels = without(labels, name)
    method = Swapper(reenact="never")
    bad = dataclasses.replace(job(method, target, donor), source_labels=labels)
    good = job(method, target, donor)
    first, second = forge(method, [bad, good])
    assert isinstance(first, Rejection)
    region = next(of for of, classes in regions.REGION_CLASSES.items() if names[0] in classes)
    assert first.reason == f"the donor's part map shows too little of {region} (0 px)"
    assert isinstance(second, Forged), "the others of its batch go on"


def test_a_parse_with_no_face_is_rejected() -> None:
    target, donor = face(TARGET), face(DONOR)
    method = Swapper(reenact="never")
    good = job(method, target, donor)
    nothing = np.zeros_like(target.labels)
    assert "too little of eyes (0 px), brows (0 px), nose" in only(
        forge(method, [dataclasses.replace(good, source_labels=nothing)])
    )
    assert only(forge(method, [dataclasses.replace(good, labels=nothing)])) == "the target's part map shows no face"
    assert only(forge(method, [dataclasses.replace(good, source_image=None)])) == "no donor"
    assert only(forge(method, [dataclasses.replace(good, source_labels=None)])) == "the donor has no part map"


@pytest.mark.parametrize("names", [("mouth",), ("l_ear", "r_ear"), ("ear_r",), ("neck",), ("hair",)])
def test_what_a_face_need_not_show_may_be_missing_on_either_side(names: tuple[str, ...]) -> None:
    pair = [face(TARGET), face(DONOR)]
    for side in (0, 1):
        bare = list(pair)
        for name in names:
            bare[side] = bare[side]._replace(labels=without(bare[side].labels, name))
        made = swapped(*bare, reenact="never")
        if side == 1 and names in (("mouth",), ("l_ear", "r_ear"), ("neck",)):
            assert (
                regions.REGIONS[regions.twelve(np.array(parts.INDEX[names[0]]), parts.CLASSES)]
                in (made.facts["donor_lacks"])
            )


def test_a_speck_of_the_donors_face_in_its_hair_is_no_patch_in_the_targets() -> None:
    target, donor = face(TARGET), face(DONOR)
    labels = donor.labels.copy()
    hair = np.argwhere(cv2.erode((labels == parts.INDEX["hair"]).view(np.uint8), np.ones((21, 21))))
    at = next((y, x) for y, x in hair if target.labels[y, x] == parts.INDEX["hair"])
    for size, kept in ((4, False), (9, True)):
        labels[at[0] : at[0] + size, at[1] : at[1] + size] = parts.INDEX["skin"]
        made = swapped(target, donor._replace(labels=labels), reenact="never")
        assert made.mask[at] == kept


def test_with_maps_from_landmarks_the_face_alone_is_swapped() -> None:
    """They know no hair, neck or ears."""
    pair = [face(seed) for seed in (TARGET, DONOR)]
    target, donor = (of._replace(labels=from_landmarks(of.labels)) for of in pair)
    made = swapped(target, donor, reenact="never")
    assert made.facts["donor_lacks"] == ["ears", "neck"]
    around = cv2.dilate((target.labels > 0).view(np.uint8), np.ones((15, 15))) > 0
    assert not (made.mask & ~around).any()
    inside = cv2.erode(((target.labels > 0) & (donor.labels > 0)).view(np.uint8), np.ones((5, 5))) > 0
    away = np.abs(made.image.astype(int) - donor.image).max(axis=2)
    assert np.percentile(away[inside], 99) <= 8


@pytest.mark.parametrize("name", ["background", "hair", "cloth"])
def test_a_speck_of_what_is_kept_in_the_targets_face_is_skin(name: str) -> None:
    """Drawn part maps have gaps between skin and neck: painted as background they would be moles."""
    target, donor, known = face(TARGET), face(DONOR), Known()
    labels = target.labels.copy()
    speck = np.s_[330:335, 200:205]
    assert (labels[speck] == parts.INDEX["skin"]).all()
    labels[speck] = parts.INDEX[name]
    made = swapped(target._replace(labels=labels), donor, known, reenact="never", hair_first=False)
    assert (known.shapes[0][speck] == regions.INDEX["skin"]).all()
    assert made.labels is not None
    assert (made.labels[speck] == parts.INDEX["skin"]).all()
    assert made.mask[speck].all()


def test_a_hat_and_glasses_of_the_target_stay() -> None:
    donor, hat = face(DONOR), face(HAT)
    method = Swapper(reenact="always")
    assert (hat.labels == parts.INDEX["hat"]).any()
    drawn = params(method, hat, donor) | {"driven": False}
    (made,) = forge(method, [Job("j", 1, drawn, hat.image, hat.labels, donor.image, donor.labels)])
    assert isinstance(made, Forged)
    deep = cv2.erode((hat.labels == parts.INDEX["hat"]).view(np.uint8), np.ones((25, 25))) > 0
    assert deep.any()
    assert not (made.mask & deep).any()
    glasses = face(GLASSES)
    drawn = params(Swapper(reenact="never"), face(TARGET), donor)
    known = Known()
    forge(Swapper(known), [Job("j", 1, drawn, glasses.image, glasses.labels, donor.image, donor.labels)])
    kept = glasses.labels == parts.INDEX["eye_g"]
    assert kept.sum() > 400
    assert (known.shapes[0][kept] == regions.INDEX["glasses"]).all()


def test_networks_that_fail_reject_their_rows() -> None:
    target, donor = face(TARGET), face(DONOR)
    driven = Swapper(Known(reenacted="the network's output is not finite"), reenact="always")
    assert only(forge(driven, [job(driven, target, donor)])) == "reenactment: the network's output is not finite"
    blind = Swapper(Known(generated="the network's output is not finite"), reenact="never")
    assert only(forge(blind, [job(blind, target, donor)])) == "the network's output is not finite"


# --- where the maps are from ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parser", "parsed"), [("maps", 1), ("bisenet", 2)])
def test_a_reenacted_donor_is_parsed_and_the_target_if_asked(parser: str, parsed: int) -> None:
    target, donor = face(TARGET), face(DONOR)
    known = Known()
    method = Swapper(known, reenact="always", parser=parser)
    method.keep_steps = True
    known.maps = [donor.labels, target.labels]
    (made,) = forge(method, [job(method, target, donor)])
    assert isinstance(made, Forged)
    assert known.parsed == [parsed]
    assert made.facts["faces_enhanced"] == 1
    titles = [
        "target, cut out", "donor, cut out", "donor, reenacted", "parts of the donor", "parts of the target",
        "parts, swapped", "generated", "blended", "alpha",
    ]  # fmt: skip
    assert list(made.steps) == titles


def test_steps_are_kept_only_if_asked_and_as_far_as_a_swap_came() -> None:
    target, donor = face(TARGET), face(DONOR)
    method = Swapper(reenact="never")
    (made,) = forge(method, [job(method, target, donor)])
    assert not made.steps
    method.keep_steps = True
    (made,) = forge(method, [dataclasses.replace(job(method, target, donor), source_labels=target.labels * 0)])
    assert isinstance(made, Rejection)
    assert list(made.steps) == ["target, cut out", "donor, cut out", "parts of the donor", "parts of the target"]


def test_the_parser_reads_a_portrait_as_its_map_says(bisenet: Any) -> None:
    """The real parser behind E4S's own preparation of a picture of twice the size."""
    from generators.e4s.neural import Engine

    of = face(fitted_parser.SEEDS[0])
    engine = Engine.__new__(Engine)  # the parser alone; the other networks would take minutes to make
    engine.device, engine._weights = torch.device("cpu"), Weights((bisenet,))
    (found,) = engine.parse([cv2.resize(of.image, (1024, 1024), interpolation=cv2.INTER_CUBIC)])
    assert found.shape == (512, 512)
    skin = of.labels == parts.INDEX["skin"]
    assert (found[skin] == parts.INDEX["skin"]).mean() > 0.7


# --- whose face it is -------------------------------------------------------------------------------------------


def test_a_swap_that_the_pack_does_not_take_for_the_donor_is_rejected(tmp_path: Path) -> None:
    """A small recognition network through the real insightface: generated as the donor it passes, as the target not."""
    target, donor = face(PLAIN), face(BALD)
    weights = Weights((tmp_path / "weights",))
    weights.add("buffalo_l", onnx_packs.pack(tmp_path / "pack", detector=onnx_packs.frontal), accept=True)

    class Unmoved(Known):
        def generate(self, donors: Any, targets: Any, *more: Any, **options: Any) -> list[Image | str]:
            return [np.clip(picture.astype(int) + 9, 0, 255).astype(np.uint8) for picture, _ in targets]

    def outcome(known: Known) -> Forged | Rejection:
        method = Swapper(known, reenact="never")
        method.keep_steps = True
        method._device, method._weights, method._judges = "cpu", weights, {}
        good = job(method, target, donor)
        (made,) = forge(method, [dataclasses.replace(good, params={**good.params, "pack": "buffalo_l"})])
        return made

    made = outcome(Known())
    assert isinstance(made, Forged)
    assert made.facts["similarity_to_donor"] > made.facts["similarity_to_base"]
    assert set(made.facts["checkpoints"]) == {NETWORK, "buffalo_l"}
    refused = outcome(Unmoved())
    assert isinstance(refused, Rejection)
    assert refused.reason.startswith("the swapped face is not nearer to the donor: similarity")
    assert "rejected" in refused.steps


# --- planning ---------------------------------------------------------------------------------------------------


def test_heads_that_are_nearly_frontal_are_not_reenacted() -> None:
    target, donor = face(TARGET), face(DONOR)
    turned = (30.0, 0.0, 0.0)
    for reenact, turns, driven in (
        ("auto", ((), ()), False),
        ("auto", ((3.0, -4.0, 1.0), (-2.0, 5.0, 0.0)), False),
        ("auto", ((3.0, -4.0, 1.0), turned), True),
        ("auto", (turned, turned), True),
        ("always", ((), ()), True),
        ("never", ((), ()), False),
    ):
        method = E4S(Options(reenact=reenact))
        faces = [person(of, name, turn=turn) for of, name, turn in zip((target, donor), "ab", turns, strict=True)]
        drawn = method.plan(RNG, *faces)
        assert drawn is not None
        assert drawn["driven"] is driven
        needed = method.weights(drawn)
        assert (REENACTMENT in needed) is driven
        assert needed == ([NETWORK, REENACTMENT, *Enhancer.checkpoints, "bisenet"] if driven else [NETWORK])


def test_heads_turned_too_far_from_each_other_are_no_pair() -> None:
    target, donor = face(TARGET), face(DONOR)
    method = E4S()
    for turn, wanted in (((30.0, 0.0, 0.0), True), ((40.0, 0.0, 0.0), False), ((0.0, -40.0, 0.0), False)):
        faces = person(target, "a", turn=(0.0, 0.0, 0.0)), person(donor, "b", turn=turn)
        assert (method.plan(RNG, *faces) is not None) is wanted
    # Without an analysis by the five points: a nose far to the side.
    aside = list(donor.facts.points)
    aside[4] += 50
    moved = person(donor, "b", points=tuple(aside))
    assert method.plan(RNG, person(target, "a"), moved) is None
    aside[4] -= 25
    moved = person(donor, "b", points=tuple(aside))
    drawn = method.plan(RNG, person(target, "a"), moved)
    assert drawn is not None and drawn["driven"]
    assert E4S(Options(reenact="never")).plan(RNG, person(target, "a"), moved) is None


def test_a_donor_must_show_its_features_and_a_target_need_not_show_its_eyes() -> None:
    target, donor = face(TARGET), face(DONOR)
    method = E4S()
    assert method.plan(RNG, person(target, "a"), None) is None

    def areas(of: Face, **changed: int) -> tuple[int, ...]:
        return tuple(changed.get(name, of.facts.part_areas[i]) for i, name in enumerate(parts.CLASSES))

    def planned(on_target: dict[str, int], on_donor: dict[str, int]) -> bool:
        faces = person(target, "a", part_areas=areas(target, **on_target)), None
        other = person(donor, "b", part_areas=areas(donor, **on_donor))
        return method.plan(RNG, faces[0], other) is not None

    assert planned({}, {})
    assert planned({"eye_g": 3000, "l_eye": 0, "l_brow": 0, "r_brow": 0}, {})
    assert not planned({}, {"eye_g": 3000}), "its eyes would be frames of glasses"
    assert not planned({}, {"l_brow": 0, "r_brow": 0, "hat": 20000}), "a hat over the brows"
    assert not planned({}, {"l_eye": 0})
    assert not planned({"u_lip": 0, "l_lip": 0}, {})
    assert method.plan(RNG, person(target, "a", points=()), person(donor, "b")) is None


def test_the_pack_that_analysed_both_faces_checks_the_swap() -> None:
    target, donor = face(TARGET), face(DONOR)
    for packs, check, wanted in (
        (("buffalo_l", "buffalo_l"), True, "buffalo_l"),
        (("buffalo_l", "buffalo_l"), False, ""),
        (("buffalo_l", ""), True, ""),
        (("", ""), True, ""),
    ):
        method = E4S(Options(check=check))
        faces = [person(of, name, pack=pack) for of, name, pack in zip((target, donor), "ab", packs, strict=True)]
        drawn = method.plan(RNG, *faces)
        assert drawn is not None
        assert drawn["pack"] == wanted
        assert ("buffalo_l" in method.weights(drawn)) is bool(wanted)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reenact": "sometimes"}, "reenact: is 'sometimes'; auto, always, never"),
        ({"blending": "poisson"}, "blending: is 'poisson'; alpha, multiband"),
        ({"parser": "segnext"}, "parser: is 'segnext'; maps, bisenet"),
        ({"noise": "none"}, "noise: is 'none'; random, const"),
        ({"crop": "dlib"}, "crop: is 'dlib'; ffhq, e4s"),
        ({"precision": "int8"}, "precision: is 'int8'"),
        ({"batch_size": 0}, "batch_size: is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Options(**options)
