"""The table against the libraries' real classes."""

from __future__ import annotations

import inspect

import diffusers
import pytest

from generators.diffusion import method
from generators.diffusion.pipelines import FEW_STEP, PIPELINES, SCHEDULERS, Pipeline
from mmtt_build.config import options
from mmtt_build.errors import ConfigError
from mmtt_build.registry import METHODS
from mmtt_build.weights import catalogue

ROWS = pytest.mark.parametrize("row", PIPELINES.values(), ids=lambda row: row.method)


def arguments(function: object) -> set[str]:
    return set(inspect.signature(function).parameters)  # type: ignore[arg-type]


@ROWS
def test_every_argument_that_a_row_names_exists(row: Pipeline) -> None:
    cls = getattr(diffusers, row.cls)
    call = arguments(cls.__call__)
    assert {"image", "mask_image", "height", "width", "num_inference_steps", "generator", "output_type"} <= call
    assert row.guidance_argument in call and set(row.call) <= call
    assert ("strength" in call) == (row.strength is not None)
    assert ("negative_prompt" in call) >= (row.negative_above is not None)
    names = [name for name in row.embeds if name]
    assert set(names) <= call
    if row.negative_above is not None:
        assert {f"negative_{name}" for name in names} <= call
    if row.embeds:
        assert {"device", *row.encode} <= arguments(cls.encode_prompt)
    assert set(row.load) <= arguments(cls.__init__)
    if "add_watermarker" in arguments(cls.__init__):
        assert row.load["add_watermarker"] is False
    if "safety_checker" in arguments(cls.__init__):
        assert row.load["safety_checker"] is None


@ROWS
def test_a_rows_numbers_make_sense(row: Pipeline) -> None:
    assert row.side % row.divisor == 0
    if row.strength:
        assert int(row.steps * row.strength[0]) >= 1 and row.strength[0] <= row.strength[1] <= 1
    assert row.guidance[0] <= row.guidance[1]


def test_checkpoints_are_in_the_catalogue() -> None:
    named = {name for row in PIPELINES.values() for name in (row.checkpoint, *row.also, row.vae, *row.prior[:1])}
    assert named - {""} | {one.checkpoint for one in FEW_STEP.values()} <= set(catalogue())
    for row in PIPELINES.values():
        for name in filter(None, (row.checkpoint, *row.also, row.vae, *row.prior[:1])):
            assert row.method in catalogue()[name].methods, f"{name} does not say that {row.method} uses it"


@ROWS
def test_catalogue_and_table_agree_on_the_class(row: Pipeline) -> None:
    """A folder that the catalogue lets in is one that this class reads: it or one of its relatives."""
    signature = inspect.signature(getattr(diffusers, row.cls).__init__)
    needed = {name for name, one in signature.parameters.items() if one.default is one.empty} - {"self", *row.load}
    if row.prior:
        needed = {name for name in needed if not name.startswith("prior_")}
    for kind in catalogue()[row.checkpoint].classes:
        theirs = arguments(getattr(diffusers, kind).__init__)
        assert needed <= {name.removeprefix("decoder_") for name in theirs}, kind


def test_table_and_registry_are_equal() -> None:
    ours = {name: target for name, target in METHODS.builtin.items() if target.startswith("generators.diffusion.")}
    assert set(ours) == set(PIPELINES) == set(method.CLASSES)
    for name in ours:
        assert METHODS.get(name) is method.CLASSES[name]
        assert METHODS.get(name).name == name
    with pytest.raises(AttributeError):
        method.nothing  # noqa: B018


def test_schedulers_exist() -> None:
    for cls, changes in SCHEDULERS.values():
        assert set(changes) <= arguments(getattr(diffusers, cls).__init__)
    assert {one.scheduler for one in FEW_STEP.values()} <= set(SCHEDULERS)


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("sdxl", 'checkpoint = "sd15-inpaint"', "checkpoint: is 'sd15-inpaint'; sdxl takes"),
        ("sdxl", 'vae = "other"', "vae: is 'other'"),
        ("sd15", 'few_step = "lcm"', "few_step: is 'lcm'"),
        ("sdxl", 'few_step = "lcm"\nscheduler = "ddim"', "scheduler: is 'ddim', but 'lcm' brings its own"),
        ("flux", 'scheduler = "ddim"', "scheduler: is 'ddim'"),
        ("sdxl", 'precision = "int8"', "precision: is 'int8'"),
        ("sdxl", "steps = 1001", "steps: is 1001"),
        ("sdxl", "steps = 2\nstrength = [0.3, 0.5]", "strength: 0.3 of 2 steps is no step"),
        ("sdxl", "steps = 1", "strength: 0.85 of 1 steps is no step"),
        ("sdxl", "strength = [0.9, 0.8]", "strength: is [0.9, 0.8]"),
        ("sdxl", "strength = [0.9, 1.1]", "strength: is [0.9, 1.1]"),
        ("kandinsky", "strength = [0.9, 1.0]", "strength: kandinsky has none"),
        ("sdxl", "guidance = [9, 5]", "guidance: is [9, 5]"),
        ("flux", "side = 1000", "side: is 1000; a multiple of 16"),
        ("sd15", "original_size = 512", "original_size: sd15 is not told"),
        ("sdxl", "feather_px = [3, 9]", "feather_px: 9 is more than grow_px begins with, 6"),
        ("sdxl", "batch_size = 1000", "batch_size: is 1000"),
        ("sdxl", "of = 1", "of: unknown key"),
    ],
)
def test_every_mistake_in_the_recipe_is_named(tmp_path, name: str, body: str, said: str) -> None:
    recipe = tmp_path / "mmtt.toml"
    recipe.write_text(f"[methods.{name}]\n{body}\n", "utf-8")
    with pytest.raises(ConfigError) as error:
        options(recipe, name, method.CLASSES[name].Options)
    assert said in str(error.value) and "line " in str(error.value)


def test_few_step_brings_its_own_numbers() -> None:
    kind = method.CLASSES["sdxl"].Options
    few = kind(few_step="lightning")
    assert few.resolved()["steps"] == 4 and few.resolved()["scheduler"] == "euler-trailing" and few.guidances == [0.0]
    assert kind(few_step="lcm", steps=6, guidance=(1.0, 1.0)).resolved()["steps"] == 6
    assert kind().resolved()["steps"] == 20 and len(kind().strengths) == 5
