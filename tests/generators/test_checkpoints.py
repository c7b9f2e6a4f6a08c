"""Reading checkpoints safely and proving them: real files, whole ones and every kind of bad one."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).with_name("diffusion")))  # tiny
sys.path.insert(0, str(Path(__file__).with_name("faces")))  # onnx_packs

import onnx_packs
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from generators import checkpoints
from generators.checkpoints import load_strict, prove, read, read_tensors
from generators.model_folders import variants
from mmtt_build import weights
from mmtt_build.catalogue import Entry, entry
from mmtt_build.errors import WeightsError

torch.set_num_threads(1)


class Net(nn.Module):
    """A network of nine tensors, among them an integer one."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Linear(width, 2)


class Creates:
    """Loading a pickle of it creates a file: what an attack would do, made harmless."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(Net().state_dict())


def meta() -> Net:
    with torch.device("meta"):
        return Net()


def test_a_state_dict_of_the_network_is_proved_and_loaded(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({"params": {f"module.{k}": v for k, v in state.items()}, "opts": {"size": 3}}, tmp_path / "net.pt")
    found = read_tensors(tmp_path / "net.pt", "params", "module.")
    assert prove(found, meta()) == []
    for network in (Net(), meta()):
        load_strict(network, found, tmp_path / "net.pt")
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.update({"norm.wieght": s.pop("norm.weight")}), ["norm.weight (renamed to norm.wieght?)"]),
        (lambda s: s.update({"last.weight": torch.zeros(2, 5)}), ["shape: last.weight is (2, 5), needed is (2, 4)"]),
        (lambda s: s.pop("norm.running_var"), ["missing: norm.running_var"]),
        (lambda s: s.update(extra=torch.zeros(1)), ["not of this network: extra"]),
        (lambda s: s.update({k: v.half() for k, v in s.items() if v.is_floating_point()}),
         ["dtype: 8 of 9 tensors are float16, needed is float32"]),
        (lambda s: s.update({"last.bias": s["last.bias"].double()}), ["dtype: 1 of 9 tensors are float64"]),
        (lambda s: [s.pop(k) for k in list(s)[2:]], ["another network: 2 of the 9 tensors of Net"]),
        (lambda s: s.clear(), ["another network: 0 of the 9", "it is empty"]),
    ],
)  # fmt: skip
def test_what_differs_is_named(
    tmp_path: Path, state: dict[str, torch.Tensor], change: Callable[[Any], Any], told: list[str]
) -> None:
    change(state)
    problems = " ".join(prove(state, meta()))
    assert all(part in problems for part in told), problems
    network, before = Net(), Net().state_dict()
    network.load_state_dict(before)
    with pytest.raises(WeightsError, match=r"net\.pt is not what Net needs"):
        load_strict(network, state, tmp_path / "net.pt")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_many_differences_are_not_all_listed() -> None:
    state = {**Net().state_dict(), **{f"extra{i}": torch.zeros(1) for i in range(30)}}
    assert len(prove(state, meta())) == 13
    assert prove(state, meta())[-1] == "... and 18 more"


@pytest.mark.parametrize("form", ["zip", "legacy", "protocol 2", "protocol 3", "protocol 4", "protocol 5"])
def test_a_pickle_with_code_is_refused_by_name_and_not_run(tmp_path: Path, form: str) -> None:
    made, file = tmp_path / "made", tmp_path / "evil.pt"
    content = {"weight": Creates(made)}
    if form in ("zip", "legacy"):
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    else:
        file.write_bytes(pickle.dumps(content, protocol=int(form[-1])))
    with pytest.raises(WeightsError, match=r"refused: loading it would call (posix|nt)\.mkdir\. Nothing was run"):
        read(file)
    assert not made.exists()
    if form in ("zip", "legacy"):  # the fixture really would
        torch.load(file, weights_only=False)
        assert made.is_dir()


def test_code_in_a_nested_storage_is_refused(tmp_path: Path) -> None:
    """`_load_from_bytes` is a full `torch.load` by another name."""
    made, inner = tmp_path / "made", io.BytesIO()
    torch.save(Creates(made), inner)

    class Nested:
        def __reduce__(self) -> Any:
            return torch.storage._load_from_bytes, (inner.getvalue(),)

    file = tmp_path / "nested.pt"
    torch.save({"weight": Nested()}, file)
    with pytest.raises(WeightsError, match=r"torch\.storage\._load_from_bytes"):
        read(file)
    assert not made.exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning", "is a web page"),
        (b"<html>Sign in", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 53289463\n", "Git LFS pointer"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "begins with"),
        (b"\xff" * 600, "begins with"),
        ((1 << 20).to_bytes(8, "little") + b'{"a":1}', "cut off"),
        (b"\x80\x02", "cut off or damaged"),
    ],
)
def test_what_is_no_checkpoint_is_told_apart(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "net.pth"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=told):
        read(file)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_file_that_was_cut_off_is_told(tmp_path: Path, state: dict[str, torch.Tensor], form: str) -> None:
    file = tmp_path / "net"
    if form == "safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "zip")
    assert read(file).keys() == state.keys()
    whole = file.read_bytes()
    for length in (9, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"cut off|damaged|no whole|is refused|begins with"):
            read(file)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_random_damage_never_escapes_as_another_error(
    tmp_path: Path, state: dict[str, torch.Tensor], form: str
) -> None:
    file, draw, refused = tmp_path / "net", random.Random(0), 0
    if form == "safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "zip")
    whole = file.read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        file.write_bytes(damaged)
        try:
            read(file)
        except WeightsError:
            refused += 1
    assert refused > 20


def test_archives_that_torch_does_not_write_are_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, tmp_path / "net.pt")
    with (
        zipfile.ZipFile(tmp_path / "net.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
        zipfile.ZipFile(tmp_path / "pack.zip", "w") as pack,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name) + bytes(1 << 20))
        pack.writestr("buffalo_l/det_10g.onnx", b"")
    with pytest.raises(WeightsError, match="unpacks to more"):
        read(tmp_path / "bomb.pt")
    with pytest.raises(WeightsError, match=r"a zip archive with buffalo_l/det_10g\.onnx"):
        read(tmp_path / "pack.zip")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1, 2], "holds a list"),
        ({"weight": torch.zeros(2), "epoch": 3}, "'epoch' is a int, not a tensor"),
        ({"weight": torch.empty(2, device="meta")}, "not a tensor with data"),
    ],
)
def test_what_is_no_state_dict_is_told(tmp_path: Path, content: Any, told: str) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=told):
        read_tensors(tmp_path / "net.pt")


def test_a_missing_top_level_key_is_told(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    file, of = tmp_path / "net.pt", Entry("net", "file", "", "MIT", keys=["g_ema", "latent_avg"], state="g_ema")
    torch.save({"g": state, "latent_avg": torch.zeros(512)}, file)
    assert weights.prove(of, file) == ["top level lacks g_ema; it has g, latent_avg"]
    torch.save({"g_ema": state, "latent_avg": torch.zeros(512)}, file)
    assert weights.prove(of, file) == []
    assert not checkpoints.provable(of)


def test_several_state_dicts_of_a_file_are_parts_of_one_network(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    file, parts = tmp_path / "net.pt", {"first": dict(state), "second": {k: v + 1 for k, v in state.items()}}
    torch.save({**parts, "epoch": 3}, file)
    found = read_tensors(file, ["first", "second"])
    network = nn.ModuleDict({"first": Net(), "second": Net()})
    load_strict(network, found, file)
    assert all(torch.equal(v, state[k]) for k, v in network["first"].state_dict().items())
    assert all(torch.equal(v, state[k] + 1) for k, v in network["second"].state_dict().items())
    assert read_tensors(file, ["second"]).keys() == {f"second.{name}" for name in state}
    with pytest.raises(WeightsError, match="holds no 'third', not a state dict"):
        read_tensors(file, ["first", "third"])
    save_file(found, file)  # a copy that is flat
    assert read_tensors(file, ["first", "second"]).keys() == found.keys()


def test_bisenet_is_proved_against_facexlibs_network(tmp_path: Path) -> None:
    from generators.faces import parser

    network = parser.build()
    file = tmp_path / "79999_iter.pth"
    torch.save(network.state_dict(), file)
    assert weights.prove(entry("bisenet"), file) == []
    save_file({k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}, file)
    (problem,) = weights.prove(entry("bisenet"), file)
    assert problem.startswith("dtype: ")
    assert "float16, needed is float32" in problem
    torch.save({f"module.{k}": v for k, v in network.state_dict().items()}, file)
    assert "top level lacks cp" in weights.prove(entry("bisenet"), file)[0]


def test_a_lora_is_pairs_of_one_rank(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    good = {"unet.q.lora_down.weight": torch.zeros(4, 32), "unet.q.lora_up.weight": torch.zeros(16, 4)}
    good["unet.q.alpha"] = torch.tensor(4.0)
    save_file(good, file)
    lora = entry("lcm-lora-sdxl")
    assert weights.prove(lora, file) == []
    save_file({**good, "unet.q.lora_up.weight": torch.zeros(16, 8)}, file)
    assert "ranks differ" in weights.prove(lora, file)[0]
    save_file({k: v for k, v in good.items() if "up" not in k}, file)
    assert "no counterpart unet.q.lora_up.weight" in weights.prove(lora, file)[0]
    save_file(dict(Net().state_dict()), file)
    assert "not of a LoRA" in weights.prove(lora, file)[0]


def test_an_array_has_its_shape_and_no_objects(tmp_path: Path) -> None:
    file, directions = tmp_path / "fs3.npy", entry("styleclip-directions")
    np.save(file, np.zeros((6048, 512), np.float16))
    assert weights.prove(directions, file) == []
    np.save(file, np.zeros((6000, 512), np.float32))
    assert weights.prove(directions, file) == ["shape is (6000, 512), needed is 6048 or 5376 x 512"]
    np.save(file, np.array([Creates(tmp_path / "made")]), allow_pickle=True)
    assert "without running code" in weights.prove(directions, file)[0]
    assert not (tmp_path / "made").exists()


# --- folders ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build("sdxl-inpaint", tmp_path_factory.mktemp("sdxl") / "pipeline")


@pytest.fixture
def copied(pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pipeline, tmp_path / "pipeline"))


def of_pipeline(folder: Path) -> str:
    return " | ".join(weights.prove(entry("sdxl-inpaint"), folder))


UNET = "unet/diffusion_pytorch_model.safetensors"


def retensor(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(file)
    change(tensors)
    file.unlink()  # the tensors are mapped from it
    save_file(tensors, file, metadata={"format": "pt"})


def test_a_pipeline_is_proved_and_knows_its_variants(copied: Path) -> None:
    assert of_pipeline(copied) == ""
    assert variants(copied) == {""}
    fp16 = copied / "unet/diffusion_pytorch_model.fp16.safetensors"
    save_file({k: v.half() for k, v in load_file(copied / UNET).items()}, fp16, metadata={"format": "pt"})
    assert (of_pipeline(copied), variants(copied)) == ("", {"", "fp16"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: retensor(d / UNET, lambda s: s.update({"conv_inn.bias": s.pop("conv_in.bias")})),
         "unet: missing: conv_in.bias | unet: not of this network: conv_inn.bias"),
        (lambda d: retensor(d / UNET, lambda s: s.update({"conv_in.bias": torch.zeros(3)})),
         "conv_in.bias expected shape torch.Size([32]), but got torch.Size([3])"),
        (lambda d: retensor(d / "text_encoder/model.safetensors", lambda s: s.pop(next(iter(s)))),
         "text_encoder: missing: "),
        (lambda d: retensor(d / "vae/diffusion_pytorch_model.safetensors", lambda s: s.update(x=torch.zeros(1))),
         "vae: not of this network: x"),
        (lambda d: (d / UNET).write_bytes((d / UNET).read_bytes()[:5000]), "cut off"),
        (lambda d: (d / UNET).write_bytes(b"<html>"), "is a web page"),
        (lambda d: (d / UNET).unlink(), "unet: has no weights"),
        (lambda d: shutil.rmtree(d / "vae"), "vae: its folder is missing"),
        (lambda d: (d / "tokenizer/tokenizer_config.json").unlink(), "tokenizer: has none of"),
        (lambda d: (d / "scheduler/scheduler_config.json").write_text("{"), "is no JSON"),
        (lambda d: (d / "model_index.json").unlink(), "config.json is missing"),
        (lambda d: (d / "unet/net.py").write_text("print('hello')"), "carries code, which is never run: unet/net.py"),
        (lambda d: (d / "vae/config.json").write_text('{"auto_map": {}}'), "asks for code of its own"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_pipeline_is_named(copied: Path, change: Callable[[Path], Any], told: str) -> None:
    change(copied)
    assert told in of_pipeline(copied)


def test_another_pipeline_is_told(copied: Path) -> None:
    index = copied / "model_index.json"
    index.write_text(index.read_text("utf-8").replace("StableDiffusionXLInpaintPipeline", "FluxPipeline"), "utf-8")
    assert of_pipeline(copied) == "is a FluxPipeline; 'sdxl-inpaint' is a StableDiffusionXLInpaintPipeline"


def test_a_unet_of_other_channels_is_told(tmp_path: Path) -> None:
    base = tiny.build("sdxl-base", tmp_path / "base")
    index = json.loads((base / "model_index.json").read_text("utf-8"))
    index["_class_name"] = "StableDiffusionXLInpaintPipeline"
    (base / "model_index.json").write_text(json.dumps(index), "utf-8")
    assert of_pipeline(base) == "its UNet takes 4 channels; 'sdxl-inpaint' is one that takes 9"


def test_pickles_in_a_folder_are_read_safely_or_refused(copied: Path, tmp_path: Path) -> None:
    tensors = load_file(copied / UNET)
    torch.save(tensors, copied / "unet/diffusion_pytorch_model.bin")
    (copied / UNET).unlink()
    assert of_pipeline(copied) == ""
    made = tmp_path / "made"
    torch.save({**tensors, "conv_in.bias": Creates(made)}, copied / "unet/diffusion_pytorch_model.bin")
    assert "diffusion_pytorch_model.bin is refused" in of_pipeline(copied)
    assert not made.exists()


# --- ONNX ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "buffalo_l"
    onnx_packs.pack(folder)
    return folder


def of_pack(folder: Path) -> str:
    return " | ".join(weights.prove(entry("buffalo_l"), folder))


def test_a_pack_is_proved_by_the_shapes_of_its_networks(packed: Path) -> None:
    assert of_pack(packed) == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: [f.unlink() for f in d.glob("*.onnx")], "holds no *.onnx file"),
        (lambda d: [f.rename(d.parent / f.name) for f in d.glob("*.onnx")], "one folder deeper"),
        (lambda d: (d / "manifest.json").write_text('{"manifest_version": 2}'), "has a manifest.json"),
        (lambda d: (d / "broken.onnx").write_bytes(b"<html>"), "broken.onnx is no ONNX network"),
        (lambda d: onnx_packs.spots(d / "opset.onnx", opset=28, ir=14), "opset.onnx is no ONNX network"),
        (lambda d: [f.unlink() for f in d.glob("*.onnx") if "gen" in f.name], "has no file for genderage; it has"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_pack_is_named(
    packed: Path, tmp_path: Path, change: Callable[[Path], Any], told: str
) -> None:
    folder = Path(shutil.copytree(packed, tmp_path / "outer" / "inner"))
    if told == "one folder deeper":
        folder = folder.parent
    else:
        change(folder)
    assert told in of_pack(folder)


def test_a_swapper_is_told_from_other_networks(packed: Path, tmp_path: Path) -> None:
    swapper: Entry = entry("inswapper")
    assert weights.prove(swapper, onnx_packs.swapper(tmp_path / "inswapper_128.onnx")) == []
    other = onnx_packs.genderage(tmp_path / "other.onnx")
    assert weights.prove(swapper, other) == ["is a network for genderage, needed is swapper"]
    (tmp_path / "page.onnx").write_bytes(b"<html>")
    assert "page.onnx is no ONNX network" in weights.prove(swapper, tmp_path / "page.onnx")[0]
