"""Net3 of E4S: the published file's shapes, recorded outputs, and that every region goes by its own style alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_gan import DATA, STYLE, drawn, filled, generator
from torch import Tensor

from generators import checkpoints
from generators.nn import net3, plain
from generators.nn.net3 import Encoder, Net3
from mmtt_build.catalogue import entry
from mmtt_build.weights import Weights, prove

OWN = 11
"""Latents per region: up to both convolutions at 128 pixels, where a CPU goes on one image at a time."""

VECTOR = 16 + 32 + 16
"""Width of a style vector."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network() -> Net3:
    torch.set_num_threads(1)
    encoder = Encoder(entry=4, widths=(16, 16, 32, 16), depths=(1, 2, 1, 2))
    made: Net3 = filled(Net3(encoder, generator(), n_vector=VECTOR, own=OWN, style_dim=STYLE))
    with torch.no_grad():
        for mlp in made.MLPs:
            for layer in (mlp.mlp[0], mlp.mlp[2]):
                layer.weight *= 10  # styles of regions that differ
    return made


def photos(count: int) -> Tensor:
    return drawn("photo", count, 3, 64, 64, std=0.5).clamp(-1, 1)


def faces(count: int) -> Tensor:
    """(B, 128, 128) uint8: all regions but 10 and 11 in discs, lines, and single pixels; each sample otherwise."""
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    made = torch.zeros(count, 128, 128, dtype=torch.uint8)
    for sample in range(count):
        for region in range(1, 9):
            disc = (x - 11 * region - 9 * sample) ** 2 + (y - 64 + 5 * region) ** 2 < 900 - 90 * region
            made[sample][disc] = region
        made[sample, 100 + sample] = 9
        made[sample, 5::16, 3::16] = 9
    return made


def codes(count: int) -> Tensor:
    each = drawn("codes", count, 12, 12, STYLE)
    each[:, :, OWN:] = each[:, :1, OWN:]
    return each


def test_the_published_network_has_as_many_tensors_and_numbers_as_its_file() -> None:
    """344 tensors and 167,062,300 numbers by the manifest, and the average latent that lies beside them."""
    with torch.device("meta"):
        network = net3.build()
    state = network.state_dict()
    assert len(state) == 344 + 1
    assert sum(value.numel() for value in state.values()) == 167_062_300 + 18 * 512
    assert network.own == 13


def official() -> dict[str, Any]:
    """What the file holds, every tensor one number spread out, so that it takes kilobytes."""
    with torch.device("meta"):
        state = net3.build().state_dict()
    spread = {f"module.{name}": torch.zeros(()).expand(value.shape) for name, value in state.items()}
    average = spread.pop("module.latent_avg")
    options = {"num_seg_cls": 12, "remaining_layer_idx": 13, "fsencoder_type": "psp", "learn_in_w": False}
    return {"state_dict": spread, "state_dict_ema": dict(spread), "latent_avg": average, "opts": options}


def test_a_file_of_the_published_form_is_taken_and_loaded(tmp_path: Path) -> None:
    content = official() | {"latent_avg": drawn("average", 18, 512)}
    torch.save(content, tmp_path / "iteration_300000.pt")
    weights = Weights((tmp_path / "weights",))
    found: Any = weights.add("e4s", tmp_path / "iteration_300000.pt", accept=True)
    with torch.device("meta"):
        network = net3.build()
    checkpoints.load_found(network, found)
    assert torch.equal(network.latent_avg, drawn("average", 18, 512))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["state_dict"].pop("module.MLPs.7.mlp.2.bias"), ["missing: MLPs.7.mlp.2.bias"]),
        (lambda c: c["state_dict"].update({"module.more": torch.zeros(1)}), ["not of this network: more"]),
        (
            lambda c: c["state_dict"].update({"module.G.noises.noise_3": torch.zeros(1, 1, 8, 8)}),
            ["shape: G.noises.noise_3 is (1, 1, 8, 8), needed is (1, 1, 16, 16)"],
        ),
        (lambda c: c.update(latent_avg=torch.zeros(512)), ["shape: latent_avg is (512,), needed is (18, 512)"]),
        (lambda c: c.pop("latent_avg"), ["top level lacks latent_avg; it has opts, state_dict, state_dict_ema"]),
    ],
)
def test_what_is_off_in_a_file_is_named(change: Any, told: list[str], tmp_path: Path) -> None:
    content = official()
    change(content)
    torch.save(content, tmp_path / "file.pt")
    assert prove(entry("e4s"), tmp_path / "file.pt") == told


def test_vectors_codes_and_pictures_are_the_recorded_ones(network: Net3) -> None:
    with torch.inference_mode(), np.load(DATA / "net3.npz") as recorded:
        vectors = network.style_vectors(photos(2), faces(2))
        np.testing.assert_allclose(vectors, recorded["vectors"], atol=1e-4)
        made = network.style_codes(vectors)
        np.testing.assert_allclose(made, recorded["codes"], atol=1e-4)
        np.testing.assert_allclose(network.generate(made, faces(2))[..., ::4, ::4], recorded["image"], atol=1e-4)


@pytest.mark.parametrize("name", ["faces", "every pixel another", "one region"])
def test_one_convolution_and_its_borders_are_a_convolution_per_region(network: Net3, name: str) -> None:
    count = 2
    labels = {
        "faces": faces(count),
        "every pixel another": (torch.arange(128 * 128) * 5 % 12).to(torch.uint8).view(128, 128).expand(count, -1, -1),
        "one region": torch.full((count, 128, 128), 4, dtype=torch.uint8),
    }[name]
    with torch.inference_mode():
        wanted = plain.synthesize(network.G, network.styles(codes(count)), labels)
        torch.testing.assert_close(network.generate(codes(count), labels), wanted, atol=1e-4, rtol=0)


def test_one_region_alone_is_painted_as_stylegan2_would(network: Net3) -> None:
    with torch.inference_mode():
        made = network.generate(codes(2), torch.full((2, 16, 16), 7))
        torch.testing.assert_close(made, network.G(codes(2)[:, 7]), atol=1e-4, rtol=0)


def test_codes_of_absent_regions_change_nothing_and_of_present_ones_what_they_cover(network: Net3) -> None:
    other = codes(1)
    other[:, 10:, :OWN] = torch.nan
    with torch.inference_mode():
        whole = network.generate(codes(1), faces(1))
        assert torch.equal(network.generate(other, faces(1)), whole)
        other = codes(1)
        other[:, 3, 10] += 1.0  # the last convolution
        changed = (network.generate(other, faces(1)) - whole).abs().amax((0, 1)) > 1e-6
    inside = faces(1)[0] == 3
    assert changed[inside].float().mean() > 0.9
    assert not changed[~inside].any()


def test_a_row_of_a_batch_is_the_row_alone(network: Net3) -> None:
    noise = network.draw_noise([torch.Generator().manual_seed(seed) for seed in (4, 5, 6)])
    with torch.inference_mode():
        vectors = network.style_vectors(photos(3), faces(3))
        whole = network.generate(codes(3), faces(3), noise)
        for i in range(3):
            one = slice(i, i + 1)
            alone = network.style_vectors(photos(3)[one], faces(3)[one])
            torch.testing.assert_close(vectors[one], alone, atol=1e-4, rtol=0)
            own = network.generate(codes(3)[one], faces(3)[one], [layer[one] for layer in noise])
            torch.testing.assert_close(whole[one], own, atol=1e-4, rtol=0)
    assert (whole[0] - whole[1]).abs().mean() > 0.1


def test_noise_is_drawn_per_sample_whatever_else_is_in_the_batch(network: Net3) -> None:
    def draw(*seeds: int) -> list[Tensor]:
        return network.draw_noise([torch.Generator().manual_seed(seed) for seed in seeds])

    sides = [4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128]
    assert [layer.shape for layer in draw(1, 2)] == [(2, 1, side, side) for side in sides]
    for alone, beside, again in zip(draw(2), draw(1, 2), draw(2, 3), strict=True):
        assert torch.equal(alone[0], beside[1])
        assert torch.equal(alone[0], again[0])
    first = torch.Generator().manual_seed(2)
    for layer in draw(2):  # in the order of the layers
        assert torch.equal(layer[0], torch.randn(layer.shape[1:], generator=first))


def test_noise_takes_the_place_of_the_checkpoints_and_may_differ_by_channel(network: Net3) -> None:
    with torch.inference_mode():
        whole = network.generate(codes(1), faces(1))
        assert torch.equal(network.generate(codes(1), faces(1), network.G.noise), whole)
        channels = [layer.activate["bias"].shape[0] for layer in (network.G.conv1, *network.G.convs)]
        full = [noise.repeat(1, n, 1, 1) for noise, n in zip(network.G.noise, channels, strict=True)]
        torch.testing.assert_close(network.generate(codes(1), faces(1), full), whole)
        other = network.draw_noise([torch.Generator().manual_seed(1)])
        assert (network.generate(codes(1), faces(1), other) - whole).abs().mean() > 0.01


def test_a_vector_is_the_mean_over_its_region_and_zero_where_that_is_empty(network: Net3) -> None:
    seen = {}
    hooks = [
        network.encoder.body[at].register_forward_hook(lambda _, __, made, at=at: seen.update({at: made}))
        for at in (2, 3, 5)
    ]
    labels = torch.zeros(1, 64, 64, dtype=torch.uint8)
    labels[:, :32] = 6
    labels[0, 40, 40] = 1  # at 64 and at 32 pixels
    labels[0, 33, 33] = 2  # at 64 alone
    with torch.inference_mode():
        vectors = network.style_vectors(photos(1), labels)
    for hook in hooks:
        hook.remove()
    fine, middle, coarse = (seen[at][0] for at in (2, 3, 5))
    assert [level.shape for level in (fine, middle, coarse)] == [(16, 64, 64), (32, 32, 32), (16, 16, 16)]
    upper = [level[:, : level.shape[1] // 2].mean((1, 2)) for level in (fine, middle, coarse)]
    torch.testing.assert_close(vectors[0, 6], torch.cat(upper))
    torch.testing.assert_close(vectors[0, 1], torch.cat((fine[:, 40, 40], middle[:, 20, 20], coarse[:, 10, 10])))
    torch.testing.assert_close(vectors[0, 2], torch.cat((fine[:, 33, 33], torch.zeros(48))))
    assert (vectors[0, 3] == 0).all()


def test_the_last_latents_are_the_average_and_the_first_are_offsets_to_it(network: Net3) -> None:
    vectors = drawn("vectors", 2, 12, VECTOR)
    with torch.inference_mode():
        made = network.style_codes(vectors)
        assert torch.equal(made[:, :, OWN:], network.latent_avg[OWN:].expand(2, 12, -1, -1))
        first, _, last = network.MLPs[5].mlp
        wanted = last(F.leaky_relu(first(vectors[1, 5]), 0.01)).view(OWN, STYLE) + network.latent_avg[:OWN]
    torch.testing.assert_close(made[1, 5, :OWN], wanted)


def test_pictures_of_any_size_are_seen_at_256_pixels(network: Net3) -> None:
    photo = photos(1)
    with torch.inference_mode():
        small = F.interpolate(photo, (256, 256), mode="bilinear", align_corners=False)
        made = network.style_vectors(photo, faces(1))
        torch.testing.assert_close(made, network.style_vectors(small, faces(1).long()), atol=1e-4, rtol=0)


def test_half_precision_paints_near_full_precision_and_leaves_the_vectors_alone(network: Net3) -> None:
    with torch.inference_mode():
        vectors = network.style_vectors(photos(2), faces(2))
        made = network.style_codes(vectors)
        whole = network.generate(made, faces(2))
        for dtype, most in ((torch.float16, 0.02), (torch.bfloat16, 0.15)):
            with torch.autocast("cpu", dtype):
                assert torch.equal(network.style_vectors(photos(2), faces(2)), vectors)
                assert torch.equal(network.style_codes(vectors), made)
                half = network.generate(made, faces(2))
            assert half.dtype == torch.float32
            assert (half - whole).abs().mean() < most * whole.std()


@pytest.mark.parametrize("label", [-1, 12, 255])
def test_labels_of_no_region_are_refused(network: Net3, label: int) -> None:
    labels = torch.zeros(1, 16, 16, dtype=torch.int64)
    labels[0, 3, 3] = label
    for work in (lambda: network.style_vectors(photos(1), labels), lambda: network.generate(codes(1), labels)):
        with pytest.raises(ValueError, match=f"{label}.* needed is 0 to 11"):
            work()


def test_sizes_are_read_from_a_state_dict() -> None:
    with torch.device("meta"):
        small = Net3(Encoder(entry=4, widths=(16, 32, 16, 48)), generator(), n_vector=96, own=7, style_dim=STYLE)
        again = net3.net3_of(small.state_dict())
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in small.state_dict().items()
    }
    assert again.own == 7
    with pytest.raises(KeyError):
        net3.net3_of({"G.conv.weight": torch.zeros(1)})
