from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from drawn_faces import BALD, GLASSES, LONG_HAIR, PLAIN, Face, face

from generators import regions
from generators.base import Family, Forged, Job, Rejection
from generators.diffusion.method import CLASSES, KEY, Diffusion
from generators.diffusion.pipelines import PIPELINES
from mmtt_build import masks, parts
from mmtt_build.errors import ConfigError, WeightsError, WeightsMissing
from mmtt_build.weights import Weights

Make = Callable[..., Diffusion]


def job(method: Diffusion, base: Face, seed: int = 0, **changes: Any) -> Job:
    params = {
        **method.options.resolved(), "parts": ["l_brow", "r_brow"], "attribute": "thick", "prompt": "thick eyebrows",
        "negative": "blurry", "strength": 0.9, "guidance": 3.0, "grow_px": 8, "feather_px": 4, **changes,
    }  # fmt: skip
    if method.row.strength is None:
        params["strength"] = None
    return Job(f"x-{seed}", seed, params, base.image, base.labels)


def forge(method: Diffusion, *jobs: Job) -> list[Forged]:
    made = method.forge(jobs)
    for one in made:
        assert isinstance(one, Forged), one
    return made  # type: ignore[return-value]


def unlike(one: Forged, other: Forged) -> int:
    return int(np.abs(one.image.astype(int) - other.image.astype(int)).max())


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_forges_after_the_plan(made: Make, name: str) -> None:
    """Planned rows of real faces, painted by the real class: the contract holds, and a row alone gives the same."""
    method = made(name)
    bases = [face(PLAIN), face(BALD)]
    plans = [method.plan(np.random.default_rng(i), base.facts, None) for i, base in enumerate(bases)]
    assert all(plans) and len({json.dumps(sorted(plan)) for plan in plans if plan}) == 1
    # Fewest levels, so that both are one batch; drawn strengths and guidances are tested apart.
    same = {key: plans[0][key] for key in KEY}  # type: ignore[index]
    jobs = [Job(str(i), 11 + i, {**plans[i], **same}, *bases[i][:2]) for i in range(2)]  # type: ignore[dict-item]
    together = forge(method, *jobs)
    for one, base in zip(together, bases, strict=True):
        change = masks.check(base.image, one.image, one.mask)
        assert change.changed_share > 0.9 and change.mean_change > 5
        assert one.facts["batch_size"] == min(2, method.row.batch) and not one.facts["watermark"]
        assert set(one.facts["checkpoints"]) == set(method.weights(jobs[0].params))
        assert json.loads(json.dumps(one.facts)) == one.facts
    (alone,) = forge(method, jobs[1])
    assert unlike(alone, together[1]) <= 2
    (again,) = forge(method, jobs[1])
    assert again.image.tobytes() == alone.image.tobytes() and again.facts == alone.facts


def test_the_seed_shapes_the_picture_and_the_prompt_too(made: Make) -> None:
    method, base = made("sdxl"), face(PLAIN)
    first = forge(method, job(method, base))[0]
    assert unlike(first, forge(method, job(method, base, seed=1))[0]) > 10
    assert unlike(first, forge(method, job(method, base, prompt="a red nose"))[0]) > 2
    assert (first.mask == forge(method, job(method, base, seed=1))[0].mask).all()


def test_the_order_of_a_batch_changes_nothing(made: Make) -> None:
    method = made("sdxl")
    jobs = [job(method, face(PLAIN), seed, prompt=f"eyebrow {seed}") for seed in range(3)]
    there, back = forge(method, *jobs), forge(method, *jobs[::-1])
    assert all(one.image.tobytes() == other.image.tobytes() for one, other in zip(there, back[::-1], strict=True))


def test_a_reloaded_pipeline_forges_the_same(made: Make) -> None:
    base = face(PLAIN)
    one, other = made("sdxl"), made("sdxl", own=True)
    assert unlike(forge(one, job(one, base))[0], forge(other, job(other, base))[0]) == 0


# --- prompts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sdxl", "sd15", "sd3", "flux", "qwen-image", "z-image"])
def test_each_text_is_encoded_once_and_embeddings_equal_the_text(made: Make, name: str) -> None:
    method = made(name, own=True)
    row = method.row
    guidance = {"guidance": 3.0}
    base = face(PLAIN)
    texts = ["thick eyebrows", "a thin pale eyebrow", "thick eyebrows"]
    jobs = [job(method, base, i, prompt=text, **guidance) for i, text in enumerate(texts)]
    forge(method, *jobs)
    forge(method, *jobs)
    engine = method.engine(jobs[0].params)
    has_negative = row.negative_above is not None
    assert engine.encoder_calls == 2 + has_negative

    said = {"prompt": ["thick eyebrows"], "negative_prompt": ["blurry"]} if has_negative else {"prompt": texts[:1]}
    shared: dict[str, Any] = {
        "image": torch.rand(1, 3, 64, 64), "mask_image": torch.ones(1, 1, 64, 64), "height": 64, "width": 64,
        "num_inference_steps": 2, row.guidance_argument: 3.0, "output_type": "np", "return_dict": False,
    }  # fmt: skip
    with torch.no_grad():
        cached = engine._conditions(["thick eyebrows"], ["blurry"] if has_negative else None)
        by_text, by_embedding = (
            engine.pipe(**shared, **row.call, **given, generator=[torch.Generator().manual_seed(1)])[0]
            for given in (said, cached)
        )
    assert np.array_equal(by_text, by_embedding)
    assert engine.encoder_calls == 2 + has_negative


def test_the_cache_is_bounded(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    method, base = made("sdxl", own=True), face(PLAIN)
    engine = method.engine(job(method, base).params)
    monkeypatch.setattr("generators.diffusion.neural.CACHE_BYTES", 100_000)
    with torch.no_grad():
        for i in range(20):
            engine._encode(f"text {i}")
    assert 1 < len(engine._encoded) < 20
    assert list(engine._encoded)[-1] == "text 19"


@pytest.mark.parametrize(("name", "limit"), [("sdxl", 77), ("flux", 77), ("qwen-image", 512), ("kandinsky", 77)])
def test_a_prompt_of_500_words_is_rejected_and_the_others_are_made(made: Make, name: str, limit: int) -> None:
    method, base = made(name), face(PLAIN)
    long = "eyebrow " * 600
    rejected, forged = method.forge([job(method, base, prompt=long), job(method, base)])
    assert isinstance(rejected, Rejection) and isinstance(forged, Forged)
    assert "prompt of 600 words is " in rejected.reason and f"at most {limit}" in rejected.reason


def test_our_prompts_fit(made: Make) -> None:
    method = made("sdxl")
    engine = method.engine(job(method, face(PLAIN)).params)
    rng = np.random.default_rng(5)
    for _ in range(200):
        plan = method.plan(rng, face(LONG_HAIR).facts, None)
        assert plan and not engine.too_long(plan["prompt"]) and not engine.too_long(plan["negative"])


# --- bad input --------------------------------------------------------------------------------------------------


def test_bad_rows_are_rejected_with_a_reason_and_the_rest_of_the_batch_is_made(made: Make) -> None:
    method, base = made("sdxl"), face(PLAIN)
    thin = base.labels.copy()
    thin[parts.select(thin, ["nose"])] = parts.INDEX["skin"]
    thin[200, 150:350] = parts.INDEX["nose"]
    full = np.full_like(base.labels, parts.INDEX["hair"])
    jobs = [
        job(method, base),
        job(method, base, parts=["eye_g"]),
        job(method, base, parts=[]),
        replace(job(method, base, parts=["nose"], grow_px=0), labels=thin),
        replace(job(method, base, parts=["hair"]), labels=full),
        job(method, base, seed=4),
    ]
    made_of = method.forge(jobs)
    assert [type(one) for one in made_of] == [Forged, Rejection, Rejection, Rejection, Rejection, Forged]
    reasons = [one.reason for one in made_of if isinstance(one, Rejection)]
    assert reasons[0] == "empty mask: the part map has no eye_g"
    assert reasons[1].startswith("empty mask")
    assert "px wide at its widest, at least 8" in reasons[2]
    assert "of the frame" in reasons[3]
    assert not any(isinstance(one, Forged) for one in method.forge(jobs[1:5]))


def test_latents_that_are_not_numbers_are_a_rejection(made: Make) -> None:
    method, base = made("sdxl", own=True), face(PLAIN)
    network = method.engine(job(method, base).params).pipe.vae.decoder.conv_in
    with torch.no_grad():
        network.weight[0, 0, 0, 0] = float("nan")
    made_of = method.forge([job(method, base), job(method, base, seed=1)])
    assert all(isinstance(one, Rejection) and "not finite in float32" in one.reason for one in made_of)
    assert all("sdxl-vae-fp16-fix" in one.reason for one in made_of if isinstance(one, Rejection))


def test_a_black_picture_is_a_rejection(made: Make) -> None:
    method, base = made("sd15", own=True), face(PLAIN)
    decoder = method.engine(job(method, base).params).pipe.vae.decoder
    with torch.no_grad():
        decoder.conv_out.weight.zero_()
        decoder.conv_out.bias.fill_(-2.0)
    assert method.forge([job(method, base)]) == [Rejection("the network painted the hole black")]


# --- loading ----------------------------------------------------------------------------------------------------


def test_it_is_loaded_once_and_the_one_before_is_let_go(made: Make, stock: Callable[..., Weights]) -> None:
    method, base = made("sdxl", own=True), face(PLAIN)
    stock("sdxl-base")
    nine = job(method, base)
    engine = method.engine(nine.params)
    forge(method, nine)
    assert method.engine(nine.params) is engine
    four = job(method, base, checkpoint="sdxl-base")
    made_of = forge(method, four)[0]
    masks.check(base.image, made_of.image, made_of.mask)
    assert method.engine(four.params) is not engine
    assert method.engine(four.params).pipe.unet.config.in_channels == 4
    assert "sdxl-base" in made_of.facts["checkpoints"]
    assert "invisible" not in str(made_of.facts) and made_of.facts["watermark"] is False


def test_the_vae_that_stays_finite_in_fp16_can_be_used(made: Make) -> None:
    shipped, fixed, base = made("sdxl"), made("sdxl", vae="sdxl-vae-fp16-fix"), face(PLAIN)
    assert shipped.weights(job(shipped, base).params) == ["sdxl-inpaint"]
    assert shipped.engine(job(shipped, base).params).pipe.vae.config.force_upcast
    assert fixed.weights(job(fixed, base).params) == ["sdxl-inpaint", "sdxl-vae-fp16-fix"]
    assert not fixed.engine(job(fixed, base).params).pipe.vae.config.force_upcast
    one = forge(fixed, job(fixed, base))[0]
    assert set(one.facts["checkpoints"]) == {"sdxl-inpaint", "sdxl-vae-fp16-fix"}
    assert unlike(one, forge(shipped, job(shipped, base))[0]) > 0


@pytest.mark.parametrize("scheduler", ["euler", "euler-trailing", "euler-a", "dpm++", "ddim", "unipc", "lcm"])
def test_schedulers(made: Make, scheduler: str) -> None:
    method, base = made("sdxl", scheduler=scheduler), face(PLAIN)
    one, other = forge(method, job(method, base), job(method, base, seed=1))
    masks.check(base.image, one.image, one.mask)
    assert one.facts["scheduler"] == type(method.engine(job(method, base).params).pipe.scheduler).__name__
    assert unlike(forge(method, job(method, base, seed=1))[0], other) <= 2
    # Going back to the shipped scheduler leaves nothing of this one behind.
    plain = made("sdxl")
    wanted = forge(plain, job(plain, base))[0]
    assert unlike(forge(method, job(method, base, scheduler=""))[0], wanted) == 0


@pytest.mark.parametrize(("few_step", "scheduler"), [("lcm", "LCMScheduler"), ("lightning", "EulerDiscreteScheduler")])
def test_few_step_adapters(made: Make, few_step: str, scheduler: str) -> None:
    base = face(PLAIN)
    method = made("sdxl", few_step=few_step, steps=0)
    few = job(method, base, guidance=1.0, strength=0.99)
    one = forge(method, few)[0]
    masks.check(base.image, one.image, one.mask)
    assert one.facts["scheduler"] == scheduler and len(one.facts["checkpoints"]) == 2
    assert one.facts["steps_run"] == int(few.params["steps"] * 0.99)
    plain = made("sdxl")
    bare = replace(few, params={**few.params, "few_step": ""})
    assert unlike(forge(plain, bare)[0], one) > 0, "the adapter changes the network"


def test_what_the_network_is_told_about_the_size(made: Make) -> None:
    base = face(PLAIN)
    sharp, soft = made("sdxl"), made("sdxl", original_size=32)
    assert unlike(forge(sharp, job(sharp, base))[0], forge(soft, job(soft, base))[0]) > 0


def test_half_precision_runs_and_is_recorded(made: Make) -> None:
    method, base = made("sdxl", precision="bf16"), face(PLAIN)
    one = forge(method, job(method, base))[0]
    masks.check(base.image, one.image, one.mask)
    assert one.facts["precision"] == "bfloat16"


def test_the_fp16_files_are_taken_where_there_are_no_others(stock: Callable[..., Weights], tmp_path: Path) -> None:
    from generators.diffusion.neural import _variant

    folder = stock("sdxl-vae-fp16-fix").find("sdxl-vae-fp16-fix").path
    assert _variant(folder, torch.float16) is None
    half = tmp_path / "half"
    tiny.vae().half().save_pretrained(half, variant="fp16")
    assert _variant(half, torch.float32) == _variant(half, torch.float16) == "fp16"
    tiny.vae().save_pretrained(half)
    assert _variant(half, torch.float32) is None and _variant(half, torch.float16) == "fp16"


def test_what_is_missing_or_broken_is_said(stock: Callable[..., Weights], tmp_path: Path) -> None:
    method = CLASSES["sdxl"]()
    plan = method.plan(np.random.default_rng(0), face(PLAIN).facts, None)
    assert plan
    method.prepare("cpu", Weights((tmp_path,)))
    rows = [Job("x", 0, plan, *face(PLAIN)[:2])]
    with pytest.raises(WeightsMissing, match="sdxl-inpaint"):
        method.forge(rows)
    broken = Weights((tmp_path,))
    other = tiny.build("sd15-inpaint", tmp_path / "made")
    (other / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsError):
        broken.add("sd15-inpaint", other, accept=True)


def test_offload_needs_a_gpu() -> None:
    kind = CLASSES["sdxl"]
    with pytest.raises(ConfigError, match="needs a GPU"):
        kind(kind.Options(offload="model")).prepare("cpu", Weights(()))


def test_running_out_of_memory_escapes_and_leaves_the_method_usable(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, base = made("sdxl"), face(PLAIN)
    wanted = forge(method, job(method, base))[0]
    network = method.engine(job(method, base).params).pipe.unet

    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched, pytest.raises(torch.OutOfMemoryError):
        patched.setattr(network, "forward", exhausted)
        method.forge([job(method, base), job(method, base, seed=1)])
    assert unlike(forge(method, job(method, base))[0], wanted) == 0


# --- plans ------------------------------------------------------------------------------------------------------


def test_plans_hold_all_that_shapes_the_picture_and_group_into_batches() -> None:
    method = CLASSES["sdxl"]()
    base = face(PLAIN).facts
    plans = [method.plan(np.random.default_rng(i), base, None) for i in range(400)]
    for plan in plans:
        assert plan and json.loads(json.dumps(plan)) == plan
        assert {*KEY, "prompt", "negative", "attribute", "parts", "grow_px", "feather_px", "colour_match"} == set(plan)
        assert plan["prompt"] and plan["negative"] and plan["attribute"]
        assert all(base.area(parts.INDEX[name]) >= regions.MIN_PART_PX for name in plan["parts"])
    keys = Counter(method.batch_key(plan) for plan in plans if plan)
    assert len(keys) == 15 and min(keys.values()) > 8
    assert method.plan(np.random.default_rng(3), base, None) == plans[3]
    assert {tuple(method.weights(plan)) for plan in plans if plan} == {("sdxl-inpaint",)}
    assert method.plan(np.random.default_rng(0), replace(base, part_areas=(0,) * 19), None) is None


@pytest.mark.parametrize("name", ["sdxl-turbo", "flux", "flux-fill"])
def test_no_negative_is_planned_that_nobody_reads(name: str) -> None:
    method = CLASSES[name]()
    plan = method.plan(np.random.default_rng(0), face(PLAIN).facts, None)
    assert plan and plan["negative"] == ""


def test_a_labs_own_prompts(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(files("generators.diffusion").joinpath("prompts.toml").read_text().replace("person", "sitter"))
    kind = CLASSES["sdxl"]
    lab, ours = kind(kind.Options(prompts=own)), kind()
    for seed in range(20):
        theirs, plan = (one.plan(np.random.default_rng(seed), face(PLAIN).facts, None) for one in (lab, ours))
        assert theirs and plan and theirs["prompt"] == plan["prompt"].replace("person", "sitter")
    assert "sitter" in theirs["prompt"]
    with pytest.raises(ConfigError, match="nowhere"):
        kind(kind.Options(prompts=tmp_path / "nowhere.toml")).plan(np.random.default_rng(0), face(PLAIN).facts, None)


def test_glasses_and_their_parts() -> None:
    method = CLASSES["sd15"]()
    plans = [method.plan(np.random.default_rng(i), face(GLASSES).facts, None) for i in range(200)]
    assert any("eye_g" in plan["parts"] for plan in plans if plan)


def test_facts() -> None:
    for name, kind in CLASSES.items():
        assert (kind.name, kind.family, kind.neural) == (name, Family.INPAINT_DIFFUSION, True)
        assert kind.mask_origin == "composite" and not kind.needs_source and not kind.changes_geometry
        assert kind().batch_size == PIPELINES[name].batch and kind(kind.Options(batch_size=3)).batch_size == 3
        # What a process per device may be handed.
        assert pickle.loads(pickle.dumps(kind)) is kind
        assert pickle.loads(pickle.dumps(kind.Options(batch_size=2))) == kind.Options(batch_size=2)
