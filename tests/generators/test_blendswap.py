from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_faces import BALD, GLASSES, HAT, LAUGHING, LONG_HAIR, PLAIN, Face, face, facts, from_landmarks, without

from generators import blending, classical
from generators.base import Family, Forged, Job, Rejection
from generators.blendswap.method import SHAPES, BlendSwap
from mmtt_build import masks, parts

METHOD = BlendSwap()
PARAMS: dict[str, Any] = {
    "parts": ["skin", "nose", "l_eye", "r_eye", "l_brow", "r_brow", "u_lip", "l_lip"],
    "shape": "inner-hull",
    "blend": "poisson",
    "mirror": False,
    "margin": 0.2,
    "feather": 0.14,
    "elastic": 0.03,
}


def job(base: Face, donor: Face, seed: int = 1, **changes: Any) -> Job:
    return Job("x", seed, {**PARAMS, **changes}, base.image, base.labels, donor.image, donor.labels)


def forge(base: Face, donor: Face, seed: int = 1, **changes: Any) -> Forged:
    (made,) = METHOD.forge([job(base, donor, seed, **changes)])
    assert isinstance(made, Forged), made
    return made


def relabelled(seed: int, change: Any) -> Face:
    image, labels, _ = face(seed)
    labels = change(labels)
    return Face(image, labels, facts(image, labels))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("blend", sorted(blending.BLENDS))
def test_contract_and_parts_of_every_shape_and_seam(shape: str, blend: str) -> None:
    base, donor = face(BALD), face(LAUGHING)
    made = forge(base, donor, shape=shape, blend=blend)
    change = masks.check(base.image, made.image, made.mask)
    assert 0.03 < change.area < 0.35 and change.changed_share > 0.75
    assert not (made.mask & ~parts.select(base.labels, classical.FACE)).any()
    touched = set(parts.touched(base.labels, made.mask))
    assert {"l_eye", "r_eye", "nose", "u_lip", "l_lip", "skin"} <= touched
    assert ("l_brow" in touched) == (shape != "below-brows")


@pytest.mark.parametrize("base_seed", [HAT, LONG_HAIR, PLAIN])
def test_hair_and_hats_over_the_face_stay(base_seed: int) -> None:
    base = face(base_seed)
    made = forge(base, face(BALD), shape="brows-to-chin")
    masks.check(base.image, made.image, made.mask)
    assert not (made.mask & parts.select(base.labels, ("hair", "hat", "background", "neck"))).any()


def test_maps_from_landmarks_will_do() -> None:
    base, donor = relabelled(PLAIN, from_landmarks), relabelled(LAUGHING, from_landmarks)
    params = METHOD.plan(np.random.default_rng(0), base.facts, donor.facts)
    assert params is not None
    made = forge(base, donor)
    assert masks.check(base.image, made.image, made.mask).area > 0.03
    assert "hair" not in parts.touched(face(PLAIN).labels, made.mask)


def test_same_job_same_bytes_and_the_seed_moves_the_outline() -> None:
    base, donor = face(PLAIN), face(BALD)
    one, two, other = forge(base, donor), forge(base, donor), forge(base, donor, seed=2)
    assert np.array_equal(one.image, two.image) and np.array_equal(one.mask, two.mask)
    assert not np.array_equal(one.mask, other.mask)


def test_inputs_are_left_alone() -> None:
    base, donor = face(PLAIN), face(BALD)
    before = [array.copy() for array in (base.image, base.labels, donor.image, donor.labels)]
    forge(base, donor, mirror=True)
    for array, old in zip((base.image, base.labels, donor.image, donor.labels), before, strict=True):
        assert np.array_equal(array, old)


def test_skin_keeps_the_colour_of_the_base() -> None:
    base, donor = face(LONG_HAIR), face(BALD)
    made = forge(base, donor)
    skin = made.mask & (base.labels == parts.INDEX["skin"])
    apart = abs(float(base.image[skin].mean()) - float(donor.image[donor.labels == parts.INDEX["skin"]].mean()))
    assert abs(float(made.image[skin].mean()) - float(base.image[skin].mean())) < 0.3 * apart


@pytest.mark.parametrize("part", ["l_eye", "nose"])
def test_a_missing_part_is_a_rejection(part: str) -> None:
    incomplete = relabelled(BALD, lambda labels: without(labels, part))
    for base, donor in ((incomplete, face(PLAIN)), (face(PLAIN), incomplete)):
        assert METHOD.plan(np.random.default_rng(0), base.facts, donor.facts) is None
        (made,) = METHOD.forge([job(base, donor)])
        assert isinstance(made, Rejection) and "lacks" in made.reason


def test_no_plan_for_glasses_a_turned_head_other_skin_or_no_donor() -> None:
    rng, plain = np.random.default_rng(0), face(BALD).facts
    assert METHOD.plan(rng, plain, None) is None
    assert METHOD.plan(rng, face(GLASSES).facts, plain) is None
    assert METHOD.plan(rng, plain, face(GLASSES).facts) is None
    assert METHOD.plan(rng, plain, replace(plain, points=())) is None
    assert METHOD.plan(rng, plain, replace(plain, skin_lab=(plain.skin_lab[0] + 60, *plain.skin_lab[1:]))) is None
    assert METHOD.plan(rng, replace(plain, skin_lab=()), plain) is not None
    turned = list(plain.points)
    turned[4] += 60
    assert METHOD.plan(rng, plain, replace(plain, points=tuple(turned))) is None


def test_a_head_turned_the_other_way_is_mirrored() -> None:
    plain = face(BALD).facts
    middle = (plain.points[0] + plain.points[2]) / 2
    left, right = ([*plain.points[:4], middle + x, *plain.points[5:]] for x in (-25, 25))
    left_facts, right_facts = (replace(plain, points=tuple(points)) for points in (left, right))
    for seed in range(10):
        params = METHOD.plan(np.random.default_rng(seed), left_facts, right_facts)
        assert params is not None and params["mirror"] is True
        params = METHOD.plan(np.random.default_rng(seed), left_facts, left_facts)
        assert params is not None and params["mirror"] is False


def test_plans_vary_survive_json_and_name_real_parts() -> None:
    rng, base, donor = np.random.default_rng(7), face(BALD).facts, face(LAUGHING).facts
    plans = [METHOD.plan(rng, base, donor) for _ in range(400)]
    assert all(plan is not None and json.loads(json.dumps(plan)) == plan for plan in plans)
    made = [plan for plan in plans if plan is not None]
    shapes = Counter(plan["shape"] for plan in made)
    assert set(shapes) == set(SHAPES) and min(shapes["inner-hull"], shapes["brows-to-chin"]) > 100
    assert 150 < sum(plan["blend"] == "poisson" for plan in made) < 250
    for plan in made:
        assert set(plan["parts"]) <= set(parts.CLASSES) and "mouth" in plan["parts"]
        assert ("l_brow" in plan["parts"]) == (plan["shape"] != "below-brows")
    assert METHOD.plan(np.random.default_rng(5), base, donor) == METHOD.plan(np.random.default_rng(5), base, donor)


def test_a_brow_that_is_half_hidden_is_not_swapped() -> None:
    hidden = list(face(BALD).facts.part_areas)
    hidden[parts.INDEX["l_brow"]] //= 3
    for seed in range(20):
        plan = METHOD.plan(
            np.random.default_rng(seed), replace(face(BALD).facts, part_areas=tuple(hidden)), face(BALD).facts
        )
        assert plan is not None and plan["shape"] == "below-brows"


def test_half_a_beard_is_never_made() -> None:
    base, donor = face(PLAIN), face(LAUGHING)
    bearded = donor.image.copy()
    points = classical.part_points(donor.labels)
    around = classical.grow(parts.select(donor.labels, classical.MOUTH), 0.3 * classical.eye_distance(points))
    bearded[around & (donor.labels == parts.INDEX["skin"])] = 12
    made = forge(base, Face(bearded, donor.labels, donor.facts))
    touched = parts.touched(base.labels, made.mask)
    assert "nose" in touched and not {"u_lip", "l_lip", "mouth"} & set(touched)


def test_it_says_what_it_is() -> None:
    assert (METHOD.name, METHOD.family, METHOD.needs_source) == ("blendswap", Family.FACE_SWAP, True)
