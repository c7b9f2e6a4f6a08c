from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_gan import DATA, STYLE, drawn, encoder, filled, generator

from generators.nn import irse
from generators.nn.irse import Encoder4Editing, Inverter, Unit


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network() -> Encoder4Editing:
    torch.set_num_threads(1)
    made: Encoder4Editing = filled(encoder())
    return made


def photos(count: int) -> torch.Tensor:
    return drawn("photo", count, 3, 256, 256, std=0.5).clamp(-1, 1)


def test_latents_are_the_recorded_ones(network: Encoder4Editing) -> None:
    with torch.inference_mode(), np.load(DATA / "e4e.npz") as recorded:
        np.testing.assert_allclose(network(photos(1)), recorded["w"], atol=1e-4)


def test_all_latents_are_offsets_to_the_first(network: Encoder4Editing) -> None:
    made: list[torch.Tensor] = []
    hooks = [style.register_forward_hook(lambda _, __, out: made.append(out)) for style in network.styles]
    with torch.inference_mode():
        w = network(photos(2))
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(w[:, 0], made[0])
    for i in range(1, 12):
        torch.testing.assert_close(w[:, i], made[0] + made[i])


def test_a_row_of_a_batch_is_the_row_alone(network: Encoder4Editing) -> None:
    with torch.inference_mode():
        whole = network(photos(2))
        for i in range(2):
            torch.testing.assert_close(whole[i : i + 1], network(photos(2)[i : i + 1]), atol=1e-4, rtol=0)
        assert (whole[0] - whole[1]).abs().max() > 1e-3


def test_the_average_latent_is_added_by_the_inverter() -> None:
    inverter = filled(Inverter(encoder(), generator(), style_dim=STYLE))
    with torch.inference_mode():
        w = inverter.invert(photos(1))
        torch.testing.assert_close(w, inverter.encoder(photos(1)) + inverter.latent_avg)
        assert inverter.decoder(w).shape == (1, 3, 128, 128)


def test_a_photo_of_another_size_is_refused(network: Encoder4Editing) -> None:
    with pytest.raises(ValueError, match=r"takes \(B, 3, 256, 256\), got \(1, 3, 512, 512\)"):
        network(torch.zeros(1, 3, 512, 512))


def test_a_units_shortcut_takes_every_second_pixel_or_convolves() -> None:
    x = drawn("x", 2, 4, 6, 6)
    same, other = Unit(4, 4, 2).eval(), Unit(4, 8, 2, excite=False).eval()
    with torch.inference_mode():
        torch.testing.assert_close(same(x), same.res_layer(x) + x[:, :, ::2, ::2])
        torch.testing.assert_close(other(x), other.res_layer(x) + other.shortcut_layer(x))
    assert not [name for name in same.state_dict() if name.startswith("shortcut")]


def test_the_published_network_has_the_published_sizes() -> None:
    """Numbers of the specification: 621 tensors, 267.2 million values; with the generator and the average latent."""
    with torch.device("meta"):
        network = irse.build()
    state = network.encoder.state_dict()
    assert len(state) == 621
    assert round(sum(value.numel() for value in state.values()) / 1e6, 1) == 267.2
    assert len(network.state_dict()) == 621 + 171 + 1
    assert network.latent_avg.shape == (18, 512)
