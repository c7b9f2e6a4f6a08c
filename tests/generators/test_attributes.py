from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import BALD, PLAIN, face

from generators import attributes
from mmtt_build.catalogue import catalogue
from mmtt_build.errors import ConfigError
from mmtt_build.parts import CLASSES, LABEL_CLASSES

PERSONS = {"beyonce", "depp", "hilary_clinton", "taylor_swift", "trump", "zuckerberg"}


def test_surprised_and_angry_change_what_mmtt_says() -> None:
    wanted = {part for label in ("eye", "eyebrow", "lip", "mouth") for part in LABEL_CLASSES[label]}
    for name in ("surprised", "angry"):
        assert set(attributes.table()["styleclip"][name].parts) == wanted


def test_every_published_mapper_is_an_attribute_and_has_a_checkpoint() -> None:
    used = {row.mapper for row in attributes.table()["styleclip"].values() if row.mapper}
    files = {
        n.removeprefix("styleclip-") for n, e in catalogue().items() if n.startswith("styleclip-") and e.kind == "file"
    }
    assert used == files
    assert len(used) == 14


def test_mappers_that_imitate_persons_are_off_unless_named() -> None:
    usual = attributes.chosen("styleclip")
    assert not PERSONS & set(usual)
    assert {name for name, row in attributes.table()["styleclip"].items() if row.on_request} == PERSONS
    assert set(attributes.chosen("styleclip", ["depp", "afro"])) == {"depp", "afro"}


def test_numbers_are_those_of_the_published_scripts() -> None:
    hfgi, styleclip = attributes.table()["hfgi"], attributes.table()["styleclip"]
    made = {name: (row.component, row.layers, row.strength) for name, row in hfgi.items() if row.component}
    assert made == {
        "eyes": (54, (7, 8), ((20, 20),)),
        "beard": (58, (7, 9), ((-20, -20),)),
        "trimmed-beard": (58, (7, 9), ((20, 20),)),
        "lip": (34, (10, 11), ((20, 20),)),
    }
    assert {row.strength for row in styleclip.values() if row.mapper} == {((0.1, 0.1),)}
    for row in styleclip.values():
        if row.text:
            assert row.strength == ((3.0, 4.1),)
            assert 0.08 <= row.beta[0] < row.beta[1] <= 0.30
    assert all(-5 <= low <= high <= 5 for name in ("age", "smile", "pose") for low, high in hfgi[name].strength)


@pytest.mark.parametrize("method", ["styleclip", "hfgi"])
def test_draws_are_complete_plans_within_the_ranges(method: str) -> None:
    rows, rng = attributes.chosen(method), np.random.default_rng(0)
    seen: Counter[str] = Counter()
    for _ in range(1500):
        plan = attributes.draw(rng, rows, face(PLAIN).facts.part_areas)
        assert plan is not None
        row = rows[plan["attribute"]]
        seen[plan["attribute"]] += 1
        assert json.loads(json.dumps(plan)) == plan
        assert plan["parts"] == list(row.parts)
        assert any(low <= plan["strength"] <= high for low, high in row.strength)
        kinds = {"mapper", "text", "direction", "component"} & set(plan)
        assert len(kinds) == 1
        if "text" in plan:
            assert row.beta[0] <= plan["beta"] <= row.beta[1]
            assert round(plan["beta"], 2) == plan["beta"]
    assert set(seen) == set(rows)
    assert max(seen.values()) < 2 * min(seen.values())


def test_both_directions_are_drawn_and_nothing_between() -> None:
    rng, row = np.random.default_rng(0), attributes.table()["hfgi"]["age"]
    drawn = [row.draw(rng)["strength"] for _ in range(200)]
    assert 60 < sum(value > 0 for value in drawn) < 140
    assert min(abs(value) for value in drawn) >= 2


def test_what_a_face_lacks_is_not_edited() -> None:
    rng = np.random.default_rng(0)
    bald = face(BALD).facts.part_areas
    assert bald[CLASSES.index("hair")] < 100
    drawn = {attributes.draw(rng, attributes.chosen("styleclip"), bald)["attribute"] for _ in range(300)}  # type: ignore[index]
    assert not drawn & {"afro", "blonde-hair", "bangs"}
    assert "surprised" in drawn
    assert attributes.draw(rng, attributes.chosen("hfgi"), [0] * 19) is None


def test_an_unknown_attribute_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="styleclip has no attribute 'suprised'") as caught:
        attributes.chosen("styleclip", ["suprised"])
    assert "did you mean surprised" in caught.value.remedy


GOOD = 'parts = ["hair"]\nmapper = "afro"\nstrength = [[0.1, 0.1]]\nsource = "x"\n'


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("hair", "hairs"), "parts: are ['hairs']"),
        (('["hair"]', '["hair", "hair"]'), "parts: are"),
        (('["hair"]', "[]"), "parts: are []"),
        (('mapper = "afro"\n', ""), "mapper: it has exactly one of mapper, text, direction, component"),
        (('"x"\n', '"x"\ndirection = "d"\n'), "mapper and direction: it has exactly one"),
        (("[[0.1, 0.1]]", "[[0.2, 0.1]]"), "strength: is ((0.2, 0.1),); two numbers in order"),
        (("[[0.1, 0.1]]", "[]"), "strength: is missing or 0"),
        (("[[0.1, 0.1]]", "[[0, 0]]"), "strength: is missing or 0"),
        (('source = "x"\n', ""), "source"),
        (("mapper =", "maper ="), "maper: unknown key"),
        (('"x"\n', '"x"\nbeta = [0.1, 0.2]\n'), "beta: has 2 items"),
        (('mapper = "afro"', 'text = ["face", "sad face"]'), "beta: has 0 items"),
        (('mapper = "afro"', "component = 3"), "layers: has 0 items"),
        (('mapper = "afro"', "component = 3\nlayers = [8, 8]"), "layers: is [8, 8]"),
        (("parts", "parts ="), "cannot be read"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[styleclip.mine]\n" + GOOD.replace(*change))
    with pytest.raises(ConfigError) as caught:
        attributes.table(file)
    assert str(file) in caught.value.message
    assert said in caught.value.message


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[styleclip.mine]\n" + GOOD)
    assert attributes.table(file)["styleclip"]["mine"].parts == ("hair",)
