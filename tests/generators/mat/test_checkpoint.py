"""MAT's checkpoints in the forms in which they go around: accepted, or refused with the name of what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_mat
import torch
from persistent_files import checkpoint, dump
from safetensors.torch import save_file

from generators.checkpoints import load_found, load_strict, read_tensors
from generators.mat import net
from mmtt_build.catalogue import entry
from mmtt_build.weights import Found, Weights, prove

torch.set_num_threads(1)
TINY = dataclasses.replace(entry("mat"), network="tiny_mat:build")


@pytest.mark.parametrize("form", ["pkl", "pth", "safetensors"])
def test_every_form_is_proved_and_loaded(tmp_path: Path, form: str) -> None:
    network, file = tiny_mat.filled(), tmp_path / f"net.{form}"
    if form == "pkl":
        file.write_bytes(dump(checkpoint(network, G=tiny_mat.build())))
    elif form == "pth":
        torch.save(network.state_dict(), file)
    else:
        save_file(network.state_dict(), file)
    assert prove(TINY, file) == []
    with torch.device("meta"):
        loaded = tiny_mat.build()
    load_strict(loaded, read_tensors(file), file)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())


def rename(network: Any) -> None:
    conv = network.synthesis.enc.EncConv_Block_32x32.conv0
    conv._parameters["biass"] = conv._parameters.pop("bias")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rename, "missing: synthesis.enc.EncConv_Block_32x32.conv0.bias (renamed to "
                 "synthesis.enc.EncConv_Block_32x32.conv0.biass?)"),
        (lambda n: n.mapping.register_buffer("w_avg", torch.zeros(17)),
         "shape: mapping.w_avg is (17,), needed is (16,)"),
        (lambda n: n.synthesis.dec.Dec_64x64.conv1._parameters.pop("noise_strength"),
         "missing: synthesis.dec.Dec_64x64.conv1.noise_strength"),
        (lambda n: n.synthesis.register_buffer("more", torch.zeros(1)), "not of this network: synthesis.more"),
        (lambda n: n.half(), "tensors are float16, needed is float32"),
        (lambda n: n.__dict__.__setitem__("_modules", {"synthesis": n.synthesis.enc}), "top level lacks mapping"),
    ],
)  # fmt: skip
def test_what_differs_is_named(tmp_path: Path, change: Callable[[Any], Any], told: str) -> None:
    network = tiny_mat.build()
    top = checkpoint(network)
    change(network)
    (tmp_path / "net.pkl").write_bytes(dump(top))
    assert told in " | ".join(prove(TINY, tmp_path / "net.pkl"))


def test_an_official_file_is_taken_in(tmp_path: Path) -> None:
    """All tensors of the published network, in its own format, linked to rather than copied: 253 MB."""
    with torch.device("meta"):
        network = net.build()
    network = network.to_empty(device="cpu")
    for tensor in network.state_dict().values():
        tensor.zero_()
    network.mapping.w_avg.fill_(0.25)
    (tmp_path / "CelebA-HQ.pkl").write_bytes(dump(checkpoint(network)))
    del network
    found = Weights((tmp_path / "weights",)).add("mat", tmp_path / "CelebA-HQ.pkl", accept=True, link=True)
    assert isinstance(found, Found)
    with torch.device("meta"):
        loaded = net.build()
    load_found(loaded, found)
    assert loaded.mapping.w_avg.eq(0.25).all()
    assert not any(value.is_meta for value in loaded.state_dict().values())


def test_another_size_is_told(tmp_path: Path) -> None:
    (tmp_path / "net.pkl").write_bytes(dump(checkpoint(tiny_mat.build())))
    told = prove(entry("mat"), tmp_path / "net.pkl")
    assert told[0] == "missing: synthesis.first_stage.enc_conv.1.conv.weight"


@pytest.mark.shared
def test_the_sample_runs(shared: Path) -> None:
    """Its tiny network, told from its tensors' shapes alone."""
    file = shared / "reference/mat_persistence_sample.pkl"
    state = read_tensors(file)
    network = net.generator_of(state)
    load_strict(network, state, file)
    with torch.inference_mode():
        draws = network.eval().draw([torch.Generator().manual_seed(0)], 128, 128)
        keep = torch.ones(1, 1, 128, 128)
        keep[..., 30:60, 40:90] = 0
        made = network(torch.zeros(1, 3, 128, 128), keep, **draws)
    assert made[keep.expand_as(made) == 0].std() > 0.1
    assert not made[keep.expand_as(made) == 1].any()
