"""GPEN and Real-ESRNet: the published files' shapes, recorded outputs, and what they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_gan import DATA, drawn, filled

from generators.nn import gpen, rrdb
from mmtt_build.catalogue import entry
from mmtt_build.weights import prove

WIDTHS = {4: 12, 8: 10, 16: 8, 32: 6}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def tiny() -> gpen.Gpen:
    made: gpen.Gpen = filled(gpen.Gpen(WIDTHS)).eval()
    return made


def enlarger() -> rrdb.RealESRNet:
    made: rrdb.RealESRNet = filled(rrdb.RealESRNet(width=6, blocks=2)).eval()
    return made


@pytest.mark.parametrize(("build", "tensors", "numbers"), [(gpen.build, 163, 71_005_559), (rrdb.build, 702, 9_588_355)])
def test_the_published_networks_have_as_many_tensors_and_numbers_as_their_files(
    build: Any, tensors: int, numbers: int
) -> None:
    with torch.device("meta"):
        state = build().state_dict()
    assert len(state) == tensors
    assert sum(value.numel() for value in state.values()) == numbers


@pytest.mark.parametrize(
    ("name", "build", "outer"), [("gpen", gpen.build, ""), ("realesrnet", rrdb.build, "params_ema")]
)
def test_a_file_of_the_published_form_is_taken_and_a_tensor_that_is_off_is_named(
    name: str, build: Any, outer: str, tmp_path: Any
) -> None:
    with torch.device("meta"):
        network = build()
    state = {key: torch.zeros(()).expand(value.shape) for key, value in network.state_dict().items()}
    file = tmp_path / "file.pth"
    torch.save({outer: state} if outer else state, file)
    assert prove(entry(name), file) == []
    last = list(state)[-1]
    state[last] = torch.zeros(7, 7)
    torch.save({outer: state} if outer else state, file)
    (said,) = prove(entry(name), file)
    assert said.startswith(f"shape: {last} is (7, 7)")


def test_pictures_are_the_recorded_ones() -> None:
    with torch.inference_mode(), np.load(DATA / "gpen.npz") as recorded:
        np.testing.assert_allclose(tiny()(drawn("face", 2, 3, 32, 32)), recorded["restored"], atol=1e-4)
        np.testing.assert_allclose(enlarger()(drawn("small", 1, 3, 8, 8)), recorded["enlarged"], atol=1e-4)


def test_sizes_are_read_from_a_state_dict() -> None:
    state = tiny().state_dict()
    again = gpen.gpen_of(state)
    again.load_state_dict(state, strict=True)
    assert again.levels == len(WIDTHS)
    with pytest.raises(KeyError):
        gpen.gpen_of({"conv.weight": torch.zeros(1)})


def test_each_picture_of_a_batch_is_restored_for_itself() -> None:
    network, faces = tiny(), drawn("face", 2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(faces)[1:], network(faces[1:]), atol=1e-4, rtol=0)


def test_the_encoder_is_seen_at_every_resolution() -> None:
    """Where noise would be added, the features of the picture are: without their weights it answers otherwise."""
    network, face = tiny(), drawn("face", 1, 3, 32, 32)
    with torch.inference_mode():
        whole = network(face)
        for conv in (network.generator.conv1, *network.generator.convs):
            weight = conv.noise["weight"]  # type: ignore[index,union-attr]
            kept = weight.clone()
            weight.zero_()
            assert (network(face) - whole).abs().max() > 1e-4
            weight.copy_(kept)


def test_a_picture_grows_fourfold() -> None:
    with torch.inference_mode():
        assert enlarger()(torch.rand(2, 3, 5, 7)).shape == (2, 3, 20, 28)
