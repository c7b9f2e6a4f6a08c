from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_faces import BALD, GLASSES, HAT, LAUGHING, LONG_HAIR, PLAIN, Face, face, facts, from_landmarks, without

from generators.base import Family, Forged, Job, Rejection
from generators.patchfill.heal import NoSkinError, fit, heal, membrane
from generators.patchfill.method import BROW_TAILS, FEATHER_PX, FILLS, GROW_PX, MIRROR, MODES, PARTS, SKIN, PatchFill
from mmtt_build import masks, parts

METHOD = PatchFill()


def run(base: Face, mode: str, *regions: str, seed: int = 1, fill: str = "heal") -> Forged | Rejection:
    fill = "mirror" if mode == "mirror" else fill
    params = {"mode": mode, "fill": fill, "regions": list(regions), "grow_px": 8, "feather_px": 5}
    (made,) = METHOD.forge([Job("x", seed, params, base.image, base.labels)])
    return made


def forge(base: Face, mode: str, *regions: str, seed: int = 1) -> Forged:
    made = run(base, mode, *regions, seed=seed)
    assert isinstance(made, Forged), made
    return made


def plans(base: Face, count: int = 300) -> list[dict[str, Any]]:
    made = [METHOD.plan(np.random.default_rng(seed), base.facts, None) for seed in range(count)]
    return [dict(plan) for plan in made if plan]


@pytest.mark.parametrize(("mode", "region"), [(mode, region) for mode in MODES for region in MODES[mode][0]])
def test_every_region_keeps_the_contract(mode: str, region: str) -> None:
    base = face(BALD)
    made = run(base, mode, region)
    if isinstance(made, Rejection):
        assert "no skin" in made.reason or "no clean skin" in made.reason
        made = forge(face(PLAIN), mode, region)
        base = face(PLAIN)
    change = masks.check(base.image, made.image, made.mask)
    assert 0.001 < change.area < 0.12 and change.changed_share > 0.5
    about = {"remove": PARTS, "smooth": SKIN, "mirror": MIRROR}
    if mode == "remove":
        whole = parts.select(base.labels, PARTS[region])
        assert (made.mask & whole).sum() >= 0.95 * whole.sum(), "a removed part is gone as a whole"
    if mode == "shorten":
        brow = parts.select(base.labels, [BROW_TAILS[region]])
        assert 0.2 < (made.mask & brow).sum() / brow.sum() < 0.97
    if mode in ("smooth", "mirror"):
        assert set(about[mode][region].parts) & set(parts.touched(base.labels, made.mask))


@pytest.mark.parametrize("seed", [HAT, LONG_HAIR, PLAIN, BALD, LAUGHING, GLASSES])
def test_plans_on_all_kinds_of_faces(seed: int) -> None:
    base = face(seed)
    made = [(plan, *METHOD.forge([Job("x", 7, plan, base.image, base.labels)])) for plan in plans(base, 12)]
    forged = [(plan, result) for plan, result in made if isinstance(result, Forged)]
    assert len(forged) >= 0.5 * len(made)
    for plan, result in forged:
        masks.check(base.image, result.image, result.mask)
        features = set(plan["parts"]) - {"skin"}
        assert features <= set(parts.touched(base.labels, result.mask))


def test_maps_from_landmarks_are_enough() -> None:
    image, labels, _ = face(PLAIN)
    labels = from_landmarks(labels)
    base = Face(image, labels, facts(image, labels))
    made = forge(base, "remove", "l_brow")
    masks.check(base.image, made.image, made.mask)


def test_removed_brow_is_skin() -> None:
    base = face(BALD)
    brow = parts.select(base.labels, ["r_brow"])
    grey = base.image.mean(2)
    skin = np.median(grey[parts.select(base.labels, ["skin"])])
    after = forge(base, "remove", "r_brow").image.mean(2)
    assert abs(np.median(after[brow]) - skin) < 0.5 * abs(np.median(grey[brow]) - skin)


def test_holes_keep_off_hair_and_unplanned_features() -> None:
    base = face(LONG_HAIR)
    made = forge(base, "remove", "l_brow", "r_brow")
    assert not (made.mask & parts.select(base.labels, ["hair", "background", "l_eye", "r_eye", "u_lip"])).any()


def test_mirrored_eye_is_the_other_eye() -> None:
    base = face(BALD)
    made = forge(base, "mirror", "l_eye")
    eye = parts.select(base.labels, ["l_eye"])
    assert not (made.mask & parts.select(base.labels, ["r_eye", "r_brow", "l_brow"])).any()
    other = base.image[parts.select(base.labels, ["r_eye"])].mean(0)
    assert np.abs(made.image[eye].mean(0) - other).max() < 25


def test_mirroring_declines_a_turned_face() -> None:
    image, labels, pristine = face(PLAIN)
    turned = labels.copy()
    nose = parts.select(labels, ["nose"])
    turned[nose] = parts.INDEX["skin"]
    turned[np.roll(nose, 45, axis=1)] = parts.INDEX["nose"]
    made = run(Face(image, turned, pristine), "mirror", "l_eye")
    assert isinstance(made, Rejection) and "turned" in made.reason


def test_same_job_same_bytes_and_the_seed_shapes_the_patch() -> None:
    base = face(PLAIN)
    before = base.image.copy()
    first, second = (forge(base, "smooth", "l_cheek", "forehead", seed=4) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes() and first.mask.tobytes() == second.mask.tobytes()
    assert (base.image == before).all()
    assert (forge(base, "smooth", "l_cheek", "forehead", seed=5).mask != first.mask).any()


def test_plan_is_json_and_covers_every_region() -> None:
    made = plans(face(PLAIN), 1500)
    assert len(made) == 1500
    assert all(json.loads(json.dumps(plan)) == plan for plan in made)
    assert {plan["fill"] for plan in made} == {"mirror", *(name for name, _ in FILLS)}
    seen = {(plan["mode"], region) for plan in made for region in plan["regions"]}
    assert seen == {(mode, region) for mode in MODES for region in MODES[mode][0]}
    for plan in made:
        assert GROW_PX[0] <= plan["grow_px"] <= GROW_PX[1] and FEATHER_PX[0] <= plan["feather_px"] <= FEATHER_PX[1]
        assert plan["parts"] and set(plan["parts"]) <= set(parts.CLASSES)
    touched = Counter(part for plan in made for part in plan["parts"])
    assert min(touched["l_brow"], touched["r_brow"]) > max(touched["l_lip"], touched["nose"])
    counts = Counter(len(plan["regions"]) for plan in made)
    assert set(counts) == {1, 2, 3, 4, 5} and counts[2] > counts[4]


def test_planned_parts_are_in_the_map() -> None:
    closed = face(PLAIN)
    assert closed.facts.area(parts.INDEX["mouth"]) == 0
    assert not any("mouth" in plan["parts"] for plan in plans(closed))
    laughing = plans(face(LAUGHING))
    assert any("mouth" in plan["parts"] for plan in laughing)


def test_glasses_keep_eyes_and_brows() -> None:
    made = plans(face(GLASSES))
    assert made
    assert not {"l_eye", "r_eye", "l_brow", "r_brow"} & {part for plan in made for part in plan["parts"]}


@pytest.mark.parametrize("missing", ["r_eye", "nose"])
def test_faces_that_lack_a_part(missing: str) -> None:
    image, labels, pristine = face(PLAIN)
    areas = list(pristine.part_areas)
    areas[parts.INDEX[missing]] = 0
    assert METHOD.plan(np.random.default_rng(0), replace(pristine, part_areas=tuple(areas)), None) is None
    assert METHOD.plan(np.random.default_rng(0), replace(pristine, points=()), None) is None
    made = run(Face(image, without(labels, missing), pristine), "smooth", "chin")
    assert isinstance(made, Rejection) and missing in made.reason


def test_no_room_is_a_rejection() -> None:
    image, labels, pristine = face(PLAIN)
    fringe = labels.copy()
    eyes = np.argwhere(parts.select(labels, ["l_eye", "r_eye"]))[:, 0].min()
    top = fringe[: eyes - 20]
    top[top == parts.INDEX["skin"]] = parts.INDEX["hair"]
    made = run(Face(image, fringe, pristine), "smooth", "forehead")
    assert made == Rejection("no room for forehead")


def test_the_librarys_inpainting_fills_the_same_hole_otherwise() -> None:
    base = face(PLAIN)
    made = {}
    for fill, _ in FILLS:
        result = run(base, "remove", "l_brow", fill=fill)
        assert isinstance(result, Forged)
        masks.check(base.image, result.image, result.mask)
        made[fill] = result
    assert (made["heal"].mask == made["telea"].mask).all()
    assert len({result.image.tobytes() for result in made.values()}) == len(FILLS)
    brow = parts.select(base.labels, ["l_brow"])
    for result in made.values():  # skin is brighter than the brow that stood there
        assert result.image[brow].mean() > base.image[brow].mean() + 8


def test_membrane_continues_a_plane_exactly() -> None:
    y, x = np.mgrid[:24, :30].astype(np.float32)
    plane = np.stack([2 * x + y, 50 - x, np.full_like(x, 7)], axis=-1)
    wanted = np.zeros((24, 30), bool)
    wanted[8:16, 10:20] = True
    known = ~wanted
    spoilt = np.where(wanted[..., None], 0, plane).astype(np.float32)
    assert np.allclose(membrane(spoilt, known, wanted)[wanted], plane[wanted], atol=0.5)


def test_membrane_without_anything_known() -> None:
    wanted = np.zeros((12, 12), bool)
    wanted[4:8, 4:8] = True
    with pytest.raises(NoSkinError):
        membrane(np.zeros((12, 12, 3), np.float32), np.zeros((12, 12), bool), wanted)


def test_no_bald_patch_in_a_beard() -> None:
    rng = np.random.default_rng(2)
    grain = np.full((256, 256, 1), 2.0)
    grain[128:] = 25.0
    image = (130 + grain * rng.normal(0, 1, (256, 256, 1)) + np.zeros((1, 1, 3))).round().clip(0, 255).astype(np.uint8)
    hole = np.zeros((256, 256), np.uint8)
    hole[170:210, 100:160] = 1
    everywhere = np.ones_like(hole)
    shaven = everywhere.copy()
    shaven[120:] = 0
    assert heal(image, hole, everywhere, everywhere)[hole > 0].std() > 15
    with pytest.raises(NoSkinError, match="hairy"):
        heal(image, hole, shaven, everywhere)


def test_fit_takes_the_colour_of_the_rim_and_the_detail_of_the_donor() -> None:
    rng = np.random.default_rng(0)
    image = np.full((64, 64, 3), 150, np.float32)
    hole = np.zeros((64, 64), np.uint8)
    hole[20:40, 24:44] = 1
    donor = 40 + rng.normal(0, 5, image.shape).astype(np.float32)
    result = fit(image, donor, hole, 1 - hole)
    inside = hole > 0
    assert np.allclose(result[~inside], image[~inside])
    assert abs(result[inside].mean() - 150) < 3 and 4 < result[inside].std() < 7


def test_heal_brings_grain_and_keeps_light() -> None:
    rng = np.random.default_rng(1)
    ramp = np.linspace(100, 180, 256, dtype=np.float32)[None, :, None]
    clean = ramp + rng.normal(0, 4, (256, 256, 1)) + np.zeros((1, 1, 3))
    holed = clean.copy()
    holed[106:144, 96:154] = 20
    hole = np.zeros((256, 256), np.uint8)
    hole[100:150, 90:160] = 1
    skin = np.ones((256, 256), np.uint8)
    filled = heal(holed.round().clip(0, 255).astype(np.uint8), hole, skin, skin)
    inside = filled[100:150, 90:160]
    assert np.abs(inside.mean((0, 2)) - ramp[0, 90:160, 0]).max() < 5
    assert 2.5 < (inside - inside.mean(0)).std() < 6


def test_heal_needs_skin() -> None:
    image = np.full((64, 64, 3), 120, np.uint8)
    hole = np.zeros((64, 64), np.uint8)
    hole[20:40, 20:40] = 1
    with pytest.raises(NoSkinError):
        heal(image, hole, np.zeros_like(hole), np.zeros_like(hole))


def test_facts() -> None:
    assert (METHOD.name, METHOD.family, METHOD.needs_source) == ("patchfill", Family.INPAINT_CLASSICAL, False)
    assert not METHOD.changes_geometry
