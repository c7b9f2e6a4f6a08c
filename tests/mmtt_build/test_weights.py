"""The weights catalogue: search order, records, terms, taking in; with real small checkpoints in temporary folders."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmtt_build import hub_cache, weights
from mmtt_build.catalogue import catalogue, entry
from mmtt_build.digests import digests
from mmtt_build.errors import ConfigError, TermsNotAccepted, WeightsError, WeightsMissing
from mmtt_build.stages.weights import check, describe, fetch, overview, search, wanted_files
from mmtt_build.weights import Found, State, Weights

NAME = "styleclip-directions"
"""A checkpoint with terms whose file is small and quickly made: an array (5376 or 6048, 512)."""


def directions(file: Path, value: float = 0, rows: int = 5376) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, np.full((rows, 512), value, np.float16))
    return file


@pytest.fixture
def here(tmp_path: Path) -> Weights:
    return Weights((tmp_path / "weights",))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return directions(tmp_path / "download" / "fs3.npy")


def record(of: Weights, name: str = NAME) -> dict[str, object]:
    return json.loads((of.folders[0] / f"{name}.json").read_text("utf-8"))


def keep_time(path: Path, data: bytes) -> None:
    """Writes without a trace in size and time."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flipped(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


# --- the catalogue ------------------------------------------------------------------------------------------------


def test_every_entry_says_what_a_person_needs() -> None:
    for of in catalogue().values():
        assert of.kind in weights.CHECKS.table(), of.name
        assert of.purpose, of.name
        assert of.methods or "No method asks" in of.note, of.name
        assert of.published.startswith("https://"), of.name
        assert of.files or of.is_tree, of.name
        assert of.is_tree or of.kind != "folder" or of.classes, of.name
        assert bool(of.terms) == (of.licence not in ("MIT", "Apache-2.0")), of.name
        assert f"mmtt weights add {of.name}" in of.how_to_obtain()
        assert re.fullmatch(r"[\w-]+", of.name)


def test_gated_models_say_so_first() -> None:
    assert entry("flux-fill").how_to_obtain().startswith("accept the terms on https://huggingface.co/black-forest-labs")


def test_an_unknown_name_lists_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"unknown checkpoint 'bisnet'\n.*did you mean bisenet\?"):
        Weights(()).find("bisnet")


# --- taking in and finding ----------------------------------------------------------------------------------------


def test_what_was_added_is_found_with_its_digest(here: Weights, file: Path) -> None:
    added = here.add(NAME, file, accept=True)
    found = pickle.loads(pickle.dumps(here)).find(NAME)
    assert isinstance(found, Found)
    assert found == added
    assert found.path.read_bytes() == file.read_bytes()
    assert found.identity == digests(file)["."]["sha256"]
    assert here.add(NAME, file) == found  # again: nothing changes
    assert list(here.folders[0].glob(".tmp*")) == []


def test_a_missing_one_says_where_it_was_looked_for_and_how_to_obtain_it(here: Weights) -> None:
    with pytest.raises(WeightsMissing, match=rf"is in none of: {here.folders[0]}\n.*get fs3\.npy from https://"):
        here.find(NAME)
    with pytest.raises(WeightsMissing, match=r"the hub's cache\n.*mmtt weights fetch sdxl-vae-fp16-fix"):
        here.find("sdxl-vae-fp16-fix")


def test_a_file_put_there_by_hand_must_be_added(here: Weights) -> None:
    for place in ("fs3.npy", f"{NAME}/fs3.npy"):
        by_hand = directions(here.folders[0] / place)
        with pytest.raises(WeightsMissing, match=rf"never added and checked\n.*mmtt weights add {NAME} {by_hand}"):
            here.find(NAME)
        assert here.look(NAME).state is State.NOT_ADDED
        assert here.add(NAME, by_hand, accept=True).path == here.folders[0] / NAME / "fs3.npy"
        assert here.find(NAME)
        (here.folders[0] / f"{NAME}.json").unlink()
        by_hand.unlink(missing_ok=True)
        (here.folders[0] / NAME / "fs3.npy").unlink(missing_ok=True)


def test_what_is_not_it_is_not_taken_in(here: Weights, tmp_path: Path) -> None:
    wrong = directions(tmp_path / "fs3.npy", rows=3)
    with pytest.raises(WeightsError, match=r"cannot be used as 'styleclip-directions' \(nothing was taken in\)"):
        here.add(NAME, wrong)
    assert not here.folders[0].exists()
    for path, told in ((tmp_path, "is a folder; .* is a file"), (tmp_path / "no.npy", "does not exist")):
        with pytest.raises(ConfigError, match=told):
            here.add(NAME, path)


def test_other_content_needs_to_be_meant(here: Weights, file: Path, tmp_path: Path) -> None:
    first = here.add(NAME, file, accept=True).identity
    other = directions(tmp_path / "other" / "fs3.npy", value=1)
    second = digests(other)["."]["sha256"]
    with pytest.raises(WeightsError, match=rf"another content\n  sha256 then {first}\n  sha256 now  {second}"):
        here.add(NAME, other)
    assert here.find(NAME).identity == first
    assert here.add(NAME, other, replace=True).identity == second
    assert here.find(NAME).path.read_bytes() == other.read_bytes()
    assert sorted(p.name for p in here.folders[0].iterdir()) == [NAME, f"{NAME}.json"]


def test_a_flipped_byte_is_named_with_both_digests(here: Weights, file: Path) -> None:
    added = here.add(NAME, file, accept=True)
    added.path.write_bytes(flipped(file.read_bytes()))
    now = digests(added.path)["."]["sha256"]
    with pytest.raises(
        WeightsError, match=rf"{added.path}\n  sha256 then {added.identity}\n  sha256 now  {now}\n  -> "
    ):
        here.find(NAME)
    assert here.look(NAME).state is State.CHANGED


def test_a_flip_without_a_trace_is_found_by_the_full_check(here: Weights, file: Path) -> None:
    added = here.add(NAME, file, accept=True)
    (fine,) = check(here, NAME)
    assert fine.error is None
    keep_time(added.path, flipped(file.read_bytes()))
    assert here.find(NAME)  # size and time are trusted on each run, so that starting takes no minutes
    (result,) = check(here)
    assert isinstance(result.error, WeightsError)
    assert "changed since it was added" in result.error.message


def test_a_new_time_alone_is_noted_and_no_change(here: Weights, file: Path) -> None:
    added = here.add(NAME, file, accept=True)
    os.utime(added.path)
    assert here.look(NAME).state is State.CHANGED
    assert here.find(NAME) == added
    assert here.look(NAME).state is State.READY


def test_the_first_folder_that_has_it_wins(tmp_path: Path) -> None:
    near, far = Weights((tmp_path / "near",)), Weights((tmp_path / "far",))
    far.add(NAME, directions(tmp_path / "a" / "fs3.npy", value=1), accept=True)
    both = Weights((*near.folders, *far.folders))
    assert both.find(NAME).path.is_relative_to(far.folders[0])
    near.add(NAME, directions(tmp_path / "b" / "fs3.npy", value=2))
    assert both.find(NAME).path.is_relative_to(near.folders[0])  # and far's acceptance counts for it


def test_the_order_is_option_environment_workspace_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("option", "environment", "workspace"):
        (tmp_path / name).mkdir()
    (tmp_path / "workspace/mmtt.toml").write_text("")
    monkeypatch.setenv("MMTT_WEIGHTS", str(tmp_path / "environment"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    order = search(tmp_path / "workspace", tmp_path / "option").folders
    assert [str(f.relative_to(tmp_path)) for f in order] == [
        "option", "environment", "workspace/weights", "cache/mmtt/weights",
    ]  # fmt: skip
    monkeypatch.setenv("MMTT_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"\$MMTT_WEIGHTS .*nowhere is not a folder"):
        search(None, None)


def test_a_link_leaves_the_file_where_it_is(here: Weights, file: Path) -> None:
    found = here.add(NAME, file, accept=True, link=True)
    assert found.path.is_symlink()
    assert found.path.samefile(file)
    assert here.find(NAME) == found
    file.unlink()
    with pytest.raises(WeightsMissing, match=f"was added, and {found.path} is gone"):
        here.find(NAME)


def test_a_record_that_is_none_is_told(here: Weights, file: Path) -> None:
    here.add(NAME, file, accept=True)
    for text in ("{", "[]", '{"files": 3}', '{"files": {"a": {}}, "file": "", "identity": ""}', '{"files": {"a": 1}}'):
        (here.folders[0] / f"{NAME}.json").write_text(text)
        with pytest.raises(WeightsError, match="is not a record"):
            here.find(NAME)
    assert "damaged record" in [state for of, state, _ in overview(here) if of.name == NAME]


def test_a_record_cannot_lead_out_of_its_folder(here: Weights, file: Path) -> None:
    here.add(NAME, file, accept=True)
    told = {**record(here), "file": str(file)}
    (here.folders[0] / f"{NAME}.json").write_text(json.dumps(told))
    assert here.look(NAME).path == here.folders[0] / NAME / "fs3.npy"


def test_a_full_disk_takes_nothing_in(small_disk: Path, file: Path) -> None:
    full = Weights((small_disk / "weights",))
    with pytest.raises(WeightsError, match=r"takes 0\.0 GB, and .* left\n.*--link"):
        full.add(NAME, file)
    assert list(full.folders[0].iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").exists(), reason="needs a folder that refuses")
def test_a_folder_that_cannot_be_written_is_named(file: Path) -> None:
    with pytest.raises(OSError, match="/proc/self/weights"):  # not even root writes there
        Weights((Path("/proc/self/weights"),)).add(NAME, file)


# --- terms --------------------------------------------------------------------------------------------------------


def test_terms_are_accepted_once_and_recorded(here: Weights, file: Path) -> None:
    looked = here.add(NAME, file)
    assert (looked.state, looked.path) == (State.TERMS, here.folders[0] / NAME / "fs3.npy")
    with pytest.raises(TermsNotAccepted, match=rf"licence \(NVIDIA-NC\) yet\n.*mmtt weights accept {NAME}"):
        here.find(NAME)
    noted = here.accept(NAME)
    accepted = json.loads(noted.read_text("utf-8"))["accepted"]
    assert accepted["licence"] == "NVIDIA-NC"
    assert accepted["by"]
    assert accepted["at"].startswith("20")
    assert here.find(NAME).identity == looked.identity
    assert here.add(NAME, file, replace=True)
    assert record(here)["accepted"] == accepted  # adding again does not ask again


def test_new_terms_are_asked_for_again(here: Weights, file: Path) -> None:
    here.add(NAME, file, accept=True)
    old = record(here)
    old["accepted"]["terms"] = "what the licence said last year"
    (here.folders[0] / f"{NAME}.json").write_text(json.dumps(old))
    with pytest.raises(TermsNotAccepted):
        here.find(NAME)


def test_permissive_ones_ask_nothing(here: Weights) -> None:
    assert here.accepted("flux-schnell")
    assert not here.accepted("flux-dev")


# --- interrupted --------------------------------------------------------------------------------------------------


def test_a_killed_add_leaves_nothing_under_the_final_name(here: Weights, tmp_path: Path) -> None:
    """Killed while it copies, a pipe holding it up midway."""
    slow = tmp_path / "buffalo_l"
    slow.mkdir()
    (slow / "a.onnx").write_bytes(bytes(3_000_000))
    script = (
        "import sys, time\nfrom pathlib import Path\nimport mmtt_build.digests as d, mmtt_build.weights as w\n"
        "w.prove = lambda *a: []\n"  # what is taken in is not this test's matter
        "read = d._digest\n"
        "def held(*a):\n    r = read(*a)\n    print('copied', flush=True)\n    time.sleep(60)\n    return r\n"
        "d._digest = held\n"
        "w.Weights((Path(sys.argv[1]),)).add('buffalo_l', Path(sys.argv[2]), accept=True)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(here.folders[0]), str(slow)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    assert child.stdout.readline() == "copied\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    (left,) = here.folders[0].iterdir()
    assert left.name.startswith(".tmp-buffalo_l-")
    assert here.look("buffalo_l").state is State.MISSING
    # Swept by a later add, once it is old enough not to be another process at work.
    long_ago = time.time() - 2 * weights.STALE_S
    for path in (*left.rglob("*"), left):
        os.utime(path, (long_ago, long_ago))
    weights._sweep(here.folders[0], "buffalo_l")
    assert list(here.folders[0].iterdir()) == []


# --- the hub's cache ----------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, laid out by hand as huggingface_hub does."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(hub: Path, repository: str, commit: str, **files: str) -> Path:
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs/main").write_text(commit)
    for name, text in files.items():
        file = folder / "snapshots" / commit / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "snapshots" / commit


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_hub_model_is_found_by_its_commit(hub: Path, here: Weights) -> None:
    snapshot = put(hub, "madebyollin/sdxl-vae-fp16-fix", COMMIT, **{"config.json": "{}"})
    assert here.look("sdxl-vae-fp16-fix").state is State.INCOMPLETE
    with pytest.raises(WeightsMissing, match=r"only part of it.*\n.*mmtt weights fetch sdxl-vae-fp16-fix"):
        here.find("sdxl-vae-fp16-fix")
    put(hub, "madebyollin/sdxl-vae-fp16-fix", COMMIT, **{"diffusion_pytorch_model.safetensors": "x"})
    found = here.find("sdxl-vae-fp16-fix")
    assert (found.path, found.identity) == (snapshot, f"hub:madebyollin/sdxl-vae-fp16-fix@{COMMIT}")


def test_a_hub_models_terms_are_noted_in_the_last_folder(hub: Path, tmp_path: Path) -> None:
    put(hub, "latent-consistency/lcm-lora-sdxl", COMMIT, **{"pytorch_lora_weights.safetensors": "x"})
    both = Weights((tmp_path / "first", tmp_path / "cache"))
    with pytest.raises(TermsNotAccepted):
        both.find("lcm-lora-sdxl")
    assert both.accept("lcm-lora-sdxl") == tmp_path / "cache/lcm-lora-sdxl.json"
    assert both.find("lcm-lora-sdxl").path.name == "pytorch_lora_weights.safetensors"


def test_what_a_half_fetched_pipeline_lacks(tmp_path: Path) -> None:
    index = {"_class_name": "P", "unet": ["diffusers", "U"], "tokenizer": ["transformers", "T"], "vae": [None, None]}
    index["safety_checker"] = ["stable_diffusion", "S"]
    folder = put(tmp_path, "a/b", COMMIT, **{"model_index.json": json.dumps(index), "unet__config.json": "{}"})
    assert hub_cache.lacking(folder) == "weights of unet"
    shards = {"weight_map": {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}}
    more = {"unet__m.safetensors.index.json": json.dumps(shards), "unet__m-00001-of-00002.safetensors": ""}
    put(tmp_path, "a/b", COMMIT, **more)
    assert hub_cache.lacking(folder) == "weights of unet"
    put(tmp_path, "a/b", COMMIT, **{"unet__m-00002-of-00002.safetensors": ""})
    assert hub_cache.lacking(folder) == "tokenizer"
    put(tmp_path, "a/b", COMMIT, **{"tokenizer__vocab.json": ""})
    assert hub_cache.lacking(folder) == ""


def test_of_a_repository_one_set_of_weights_is_wanted() -> None:
    names = [
        "README.md", "model_index.json", "sd_xl_base_1.0.safetensors", "scheduler/scheduler_config.json",
        "tokenizer/vocab.json", "tokenizer/merges.txt", "unet/config.json", "unet/model.onnx",
        "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin", "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.bin", "text_encoder/config.json", "text_encoder/pytorch_model.bin",
        "text_encoder/flax_model.msgpack", "safety_checker/model.safetensors",
    ]  # fmt: skip
    assert [n for n in wanted_files(names, "fp16") if not n.endswith((".json", ".txt"))] == [
        "text_encoder/pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    single = ["config.json", "diffusion_pytorch_model.safetensors", "sdxl_vae.safetensors", "sdxl.vae.safetensors"]
    assert wanted_files(single, "") == ["config.json", "diffusion_pytorch_model.safetensors"]


def test_fetching_asks_for_terms_first_and_never_for_other_files(here: Weights) -> None:
    with pytest.raises(WeightsMissing, match=r"not on the hub.*\n.*drive\.google\.com"):
        fetch(here, "hfgi", accept=True)
    assert not here.folders[0].exists()
    with pytest.raises(TermsNotAccepted, match="mmtt weights accept flux-fill"):
        fetch(here, "flux-fill")


def test_all_is_shown(here: Weights, file: Path) -> None:
    here.add(NAME, file)
    told = dict(describe(here, NAME))
    assert told["state"] == "terms not accepted"
    assert told["identity"] == digests(file)["."]["sha256"]
    assert "NVIDIA Source Code License-NC" in told["terms"]
    assert "mmtt weights add" in told["to obtain it"]
    listed = {of.name: state for of, state, _ in overview(here)}
    assert listed[NAME] == "terms not accepted"
    assert len(listed) == len(catalogue())
