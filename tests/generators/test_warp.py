from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_faces import BALD, GLASSES, HAT, LAUGHING, LONG_HAIR, PLAIN, Face, face, facts, from_landmarks, without

from generators.base import Family, Forged, Job, Rejection
from generators.components import FACE, NoFaceError, find_face
from generators.warp.method import EDITS, MIN_JACOBIAN, PARTS, Warp, displacement, jacobian, moved, resample
from mmtt_build import masks, parts

METHOD = Warp()


def job(base: Face, amounts: dict[str, float]) -> Job:
    return Job("x", 1, {"amounts": amounts}, base.image, base.labels)


def forge(base: Face, amounts: dict[str, float]) -> Forged:
    (made,) = METHOD.forge([job(base, amounts)])
    assert isinstance(made, Forged), made
    return made


def plans(base: Face, count: int = 300) -> list[dict[str, Any]]:
    made = [METHOD.plan(np.random.default_rng(seed), base.facts, None) for seed in range(count)]
    assert all(plan is not None for plan in made)
    return [dict(plan) for plan in made if plan]


def part_centre(labels: parts.LabelMap, *names: str) -> np.ndarray:
    return np.argwhere(parts.select(labels, names)).mean(0)


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_keeps_the_contract_and_touches_its_parts(name: str) -> None:
    base = face(PLAIN)
    edit = EDITS[name]
    for amount in edit.amount:
        made = forge(base, {name: amount})
        change = masks.check(base.image, made.image, made.mask)
        assert 0.003 < change.area < 0.25 and change.changed_share > 0.5
    touched = set(parts.touched(base.labels, made.mask))
    about = {part for part in PARTS[edit.group] if (base.labels == parts.INDEX[part]).any()}
    assert touched & about
    if not edit.outline:
        assert not (made.mask & ~parts.select(base.labels, FACE)).any(), "the edit left the face"


@pytest.mark.parametrize("seed", [HAT, LONG_HAIR, PLAIN, BALD, LAUGHING, GLASSES])
def test_planned_parts_are_touched_on_all_kinds_of_faces(seed: int) -> None:
    base = face(seed)
    for plan in plans(base, 8):
        made = forge(base, plan["amounts"])
        masks.check(base.image, made.image, made.mask)
        assert set(plan["parts"]) <= set(parts.touched(base.labels, made.mask))


def test_maps_from_landmarks_are_enough() -> None:
    image, labels, _ = face(PLAIN)
    labels = from_landmarks(labels)
    base = Face(image, labels, facts(image, labels))
    for plan in plans(base, 8):
        masks.check(base.image, *(lambda made: (made.image, made.mask))(forge(base, plan["amounts"])))


@pytest.mark.parametrize(
    "names", [("larger_eyes", "raised_brows", "wider_nose", "smile"), ("fuller_lips", "frown", "longer_chin")]
)
def test_field_never_folds(names: tuple[str, ...]) -> None:
    labels = face(LAUGHING).labels
    for strength in (1.0, 1.6):  # beyond every drawn amount the field is weakened, not folded
        field = displacement(find_face(labels), labels, {name: strength * EDITS[name].amount[1] for name in names})
        assert field is not None
        assert jacobian(field).min() >= MIN_JACOBIAN


def test_a_field_that_cannot_be_saved_is_rejected() -> None:
    (made,) = METHOD.forge([job(face(PLAIN), {"longer_nose": 2.0})])
    assert made == Rejection("the edits together fold the face")


def test_jacobian_of_a_known_field() -> None:
    y, x = np.mgrid[:512, :512].astype(np.float32)
    field = np.stack([0.1 * x + 0.05 * y, -0.2 * y], axis=-1).astype(np.float32)
    assert np.allclose(jacobian(field)[1:-1, 1:-1], 1.1 * 0.8, atol=1e-3)


def test_the_part_goes_where_the_name_says() -> None:
    """Warps the part map itself, as an image, and looks where the parts went."""
    labels = face(BALD).labels
    found = find_face(labels)

    def after(name: str) -> parts.LabelMap:
        field = displacement(found, labels, {name: EDITS[name].amount[1]})
        assert field is not None
        y, x = np.mgrid[:512, :512]
        at = np.rint(np.stack([y + field[..., 1], x + field[..., 0]])).astype(int).clip(0, 511)
        return labels[at[0], at[1]]

    def pixels(name: str, part: str) -> float:
        return np.count_nonzero(after(name) == parts.INDEX[part]) / np.count_nonzero(labels == parts.INDEX[part])

    assert pixels("larger_eyes", "l_eye") > 1.15 and pixels("smaller_eyes", "r_eye") < 0.9
    assert pixels("larger_left_eye", "l_eye") > 1.15 and pixels("larger_left_eye", "r_eye") == 1
    assert pixels("fuller_lips", "l_lip") > 1.1 and pixels("thinner_lips", "u_lip") < 0.95
    brow = part_centre(labels, "r_brow")
    assert part_centre(after("raised_right_brow"), "r_brow")[0] < brow[0] - 3
    assert np.allclose(part_centre(after("raised_left_brow"), "r_brow"), brow)
    nose = part_centre(labels, "nose")
    assert part_centre(after("longer_nose"), "nose")[0] > nose[0] + 1
    assert part_centre(after("nose_bent_left"), "nose")[1] > nose[1] + 1, "the subject's left is right in the picture"
    corner = find_face(after("smile_on_the_left")).points["l_mouth"] - found.points["l_mouth"]
    assert corner[1] < -3


def test_mask_is_one_compact_piece_per_place() -> None:
    field = np.zeros((512, 512, 2), np.float32)
    field[100:200, 100:200, 0] = 2
    field[140:160, 140:146] = 0  # inside a moved region nothing is left out
    field[300:305, 300:305, 1] = 2  # a speck
    expected = np.zeros((512, 512), bool)
    expected[100:200, 100:200] = True
    assert (moved(field) == expected).all()


def test_resampling_moves_pixels_and_keeps_flat_colour() -> None:
    image = np.full((512, 512, 3), 90, np.uint8)
    image[200, 200] = 250
    field = np.zeros((512, 512, 2), np.float32)
    field[180:220, 180:220, 0] = 5
    moved_image = resample(image, field, moved(field))
    assert moved_image[200, 195, 0] > 200 and moved_image[200, 205, 0] == 90
    assert (moved_image[181:190, 181:190] == 90).all()


def test_same_job_same_bytes_and_the_base_is_left_alone() -> None:
    base = face(LAUGHING)
    before = base.image.copy()
    amounts = {"smile": 0.1, "larger_eyes": 0.2}
    first, second = forge(base, amounts), forge(base, amounts)
    assert first.image.tobytes() == second.image.tobytes() and first.mask.tobytes() == second.mask.tobytes()
    assert (base.image == before).all()
    swapped = forge(base, dict(reversed(amounts.items())))
    assert (swapped.image == first.image).mean() > 0.999, "the order of the edits is of no account"


def test_plan_is_json_and_covers_every_edit() -> None:
    made = plans(face(PLAIN), 1500)
    assert all(json.loads(json.dumps(plan)) == plan for plan in made)
    seen = Counter(name for plan in made for name in plan["amounts"])
    assert set(seen) == set(EDITS)
    counts = Counter(len(plan["amounts"]) for plan in made)
    assert set(counts) == {1, 2, 3, 4} and counts[1] > counts[3] > counts[4]
    for plan in made:
        groups = [EDITS[name].group for name in plan["amounts"]]
        assert len(groups) == len(set(groups))
        assert plan["attribute"] == "+".join(plan["amounts"])
        for name, amount in plan["amounts"].items():
            assert EDITS[name].amount[0] <= amount <= EDITS[name].amount[1]
    groups = Counter(EDITS[name].group for plan in made for name in plan["amounts"])
    assert min(groups[g] for g in ("eyes", "brows", "mouth")) > max(groups[g] for g in ("jaw", "chin"))


def test_plan_is_pure() -> None:
    base = face(PLAIN).facts
    assert METHOD.plan(np.random.default_rng(3), base, None) == METHOD.plan(np.random.default_rng(3), base, None)


def test_sided_edits_are_about_their_side_only() -> None:
    for plan in plans(face(PLAIN), 500):
        if plan["attribute"] == "larger_right_eye":
            assert plan["parts"] == ["r_eye"]
        if plan["attribute"] == "raised_left_brow":
            assert plan["parts"] == ["l_brow"]


def test_eyes_and_brows_behind_glasses_are_left_alone() -> None:
    base = face(GLASSES)
    assert base.facts.area(parts.INDEX["eye_g"])
    groups = {EDITS[name].group for plan in plans(base) for name in plan["amounts"]}
    assert groups == {"nose", "mouth", "lips", "jaw", "chin"}
    made = forge(base, {"wider_nose": 0.28, "smile": 0.12})
    assert not (made.mask & parts.select(base.labels, ["eye_g"])).any()


@pytest.mark.parametrize("missing", ["l_eye", "nose", "skin"])
def test_faces_that_lack_a_part(missing: str) -> None:
    image, labels, pristine = face(PLAIN)
    areas = list(pristine.part_areas)
    areas[parts.INDEX[missing]] = 0
    assert METHOD.plan(np.random.default_rng(0), replace(pristine, part_areas=tuple(areas)), None) is None
    assert METHOD.plan(np.random.default_rng(0), replace(pristine, points=()), None) is None
    if missing != "skin":
        (made,) = METHOD.forge([job(Face(image, without(labels, missing), pristine), {"smile": 0.1})])
        assert isinstance(made, Rejection) and missing in made.reason


def test_a_map_that_is_no_upright_face() -> None:
    upside_down = np.ascontiguousarray(face(PLAIN).labels[::-1])
    with pytest.raises(NoFaceError, match="not below"):
        find_face(upside_down)


def test_missing_brows_leave_the_rest() -> None:
    image, labels, _ = face(PLAIN)
    labels = without(labels, "l_brow")
    base = Face(image, labels, facts(image, labels))
    groups = {EDITS[name].group for plan in plans(base) for name in plan["amounts"]}
    assert "brows" not in groups and "eyes" in groups


def test_facts() -> None:
    assert (METHOD.name, METHOD.family, METHOD.changes_geometry) == ("warp", Family.ATTRIBUTE_EDIT, True)
    assert not METHOD.needs_source
