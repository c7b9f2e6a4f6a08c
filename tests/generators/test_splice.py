from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_faces import BALD, GLASSES, LAUGHING, PLAIN, Face, face, facts, from_landmarks, without

from generators import blending, classical
from generators.base import Family, Forged, Job, Rejection
from generators.splice.method import PATCHES, Splice
from mmtt_build import masks, parts

METHOD = Splice()
PARAMS: dict[str, Any] = {
    "parts": [],
    "patches": ["r_eye", "l_eye"],
    "blend": "multiband",
    "mirror": False,
    "margin": 0.15,
    "feather": 0.05,
}


def attempt(base: Face, donor: Face, seed: int = 1, **changes: Any) -> Forged | Rejection:
    job = Job("x", seed, {**PARAMS, **changes}, base.image, base.labels, donor.image, donor.labels)
    return METHOD.forge([job])[0]


def forge(base: Face, donor: Face, seed: int = 1, **changes: Any) -> Forged:
    made = attempt(base, donor, seed, **changes)
    assert isinstance(made, Forged), made
    return made


@pytest.mark.parametrize("blend", sorted(blending.BLENDS))
@pytest.mark.parametrize("patches", [["r_brow", "l_brow"], ["r_eye", "l_eye"], ["l_eye"], ["nose"], ["lips"]])
def test_contract_and_the_mask_holds_the_drawn_parts_alone(patches: list[str], blend: str) -> None:
    base, donor = face(BALD), face(LAUGHING)
    made = forge(base, donor, patches=patches, blend=blend)
    change = masks.check(base.image, made.image, made.mask)
    assert change.area < 0.12
    assert not (made.mask & ~parts.select(base.labels, classical.FACE)).any()
    wanted = {name for patch in patches for name in PATCHES[patch]} & set(parts.touched(base.labels, base.labels > 0))
    touched = set(parts.touched(base.labels, made.mask))
    assert wanted <= touched <= wanted | {"skin"}


def test_the_mask_is_the_union_of_the_patches() -> None:
    base, donor = face(BALD), face(LAUGHING)
    both = forge(base, donor, patches=["nose", "lips"])
    single = [forge(base, donor, patches=[patch]) for patch in ("nose", "lips")]
    assert np.array_equal(both.mask, single[0].mask | single[1].mask)


def test_maps_from_landmarks_will_do() -> None:
    def thin(seed: int) -> Face:
        image, labels, _ = face(seed)
        return Face(image, from_landmarks(labels), facts(image, from_landmarks(labels)))

    base, donor = thin(PLAIN), thin(BALD)
    made = forge(base, donor, patches=["r_eye", "l_eye", "lips"])
    masks.check(base.image, made.image, made.mask)
    assert "hair" not in parts.touched(face(PLAIN).labels, made.mask)


def test_same_job_same_bytes() -> None:
    base, donor = face(PLAIN), face(BALD)
    one, two = (forge(base, donor, patches=["r_eye", "l_eye", "nose"], mirror=True) for _ in range(2))
    assert np.array_equal(one.image, two.image) and np.array_equal(one.mask, two.mask)


def test_a_part_that_lies_elsewhere_is_brought_along() -> None:
    base, donor = face(BALD), face(BALD)
    moved = Face(np.roll(donor.image, (9, -14), (0, 1)), np.roll(donor.labels, (9, -14), (0, 1)), donor.facts)
    made = forge(base, moved, patches=["lips"], blend="poisson")
    apart = np.abs(made.image[made.mask].astype(int) - base.image[made.mask]).mean()
    assert apart < 3  # its own lips, put back where they were


def test_without_its_twin_a_brow_or_eye_is_left_out() -> None:
    base, donor = face(BALD), face(LAUGHING)
    lost = without(donor.labels, "l_brow")
    made = forge(base, Face(donor.image, lost, donor.facts), patches=["r_brow", "l_brow", "lips"])
    touched = parts.touched(base.labels, made.mask)
    assert "u_lip" in touched and not {"l_brow", "r_brow"} & set(touched)


def test_nothing_that_fits_is_a_rejection_with_reasons() -> None:
    base, donor = face(BALD), face(LAUGHING)
    lost = without(donor.labels, "nose")
    made = attempt(base, Face(donor.image, lost, donor.facts), patches=["nose"])
    assert isinstance(made, Rejection) and "nose is missing" in made.reason
    base, beard = face(PLAIN), donor.image.copy()
    lips = parts.select(donor.labels, classical.MOUTH)
    beard[classical.grow(lips, 45) & (donor.labels == parts.INDEX["skin"])] = 8
    made = attempt(base, Face(beard, donor.labels, donor.facts), patches=["lips"])
    assert isinstance(made, Rejection)
    made = attempt(base, Face(donor.image, without(donor.labels, "l_eye"), donor.facts))
    assert isinstance(made, Rejection) and "donor lacks" in made.reason


def test_glasses_leave_lips_to_draw_from() -> None:
    rng = np.random.default_rng(0)
    drawn = {
        patch
        for _ in range(100)
        if (plan := METHOD.plan(rng, face(GLASSES).facts, face(GLASSES).facts)) is not None
        for patch in plan["patches"]
    }
    assert drawn == {"lips"}


def test_no_plan_without_donor_points_or_a_common_part() -> None:
    rng, plain = np.random.default_rng(0), face(BALD).facts
    assert METHOD.plan(rng, plain, None) is None
    assert METHOD.plan(rng, plain, replace(plain, points=())) is None
    assert METHOD.plan(rng, replace(plain, part_areas=(0,) * 19), plain) is None
    assert METHOD.plan(rng, plain, replace(plain, skin_lab=(0.0, 60.0, 60.0))) is None


def test_plans_follow_the_frequencies_and_survive_json() -> None:
    rng, base, donor = np.random.default_rng(7), face(BALD).facts, face(LAUGHING).facts
    plans = [plan for _ in range(1500) if (plan := METHOD.plan(rng, base, donor)) is not None]
    assert len(plans) == 1500 and all(json.loads(json.dumps(plan)) == plan for plan in plans)
    counts = Counter(name for plan in plans for name in plan["parts"])
    assert set(counts) == {*classical.EYES, *classical.BROWS, *classical.MOUTH, "nose"}
    assert counts["nose"] < 0.7 * min(counts[name] for name in (*classical.EYES, *classical.BROWS, "u_lip"))
    sizes = Counter(len(plan["parts"]) for plan in plans)
    assert sum(sizes[n] for n in (2, 3, 4, 5)) > 0.7 * len(plans)
    for plan in plans:
        assert plan["parts"] == sorted(plan["parts"], key=parts.INDEX.__getitem__)
        assert {name for patch in plan["patches"] for name in PATCHES[patch]} >= set(plan["parts"])


def test_it_says_what_it_is() -> None:
    assert (METHOD.name, METHOD.family, METHOD.needs_source) == ("splice", Family.FACE_SWAP, True)
