from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_gan import DATA, drawn, filled, hfgi

from generators.hfgi import net
from generators.hfgi.net import Directions, Hfgi, ResidualEncoder, low


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network() -> Hfgi:
    torch.set_num_threads(1)
    made: Hfgi = filled(hfgi())
    return made


@pytest.fixture(scope="module")
def directions() -> Directions:
    made: Directions = filled(Directions())
    return made


def photos(count: int) -> torch.Tensor:
    return drawn("photo", count, 3, 256, 256, std=0.5).clamp(-1, 1)


def moved(w: torch.Tensor) -> torch.Tensor:
    return w + drawn("edit", 1, 12, 16, std=0.3)


def test_the_way_from_photo_to_edit_is_the_recorded_one(network: Hfgi) -> None:
    with torch.inference_mode(), np.load(DATA / "hfgi.npz") as recorded:
        done = network(photos(1), moved)
        np.testing.assert_allclose(done.aligned[..., ::8, ::8], recorded["aligned"], atol=1e-4)
        np.testing.assert_allclose(done.scale[..., ::4, ::4], recorded["scale"], atol=1e-4)
        np.testing.assert_allclose(done.shift[..., ::4, ::4], recorded["shift"], atol=1e-4)
        np.testing.assert_allclose(done.image[..., ::4, ::4], recorded["image"], atol=1e-3)


def test_the_steps_are_those_of_the_published_procedure(network: Hfgi) -> None:
    with torch.inference_mode():
        done, photo = network(photos(2), moved), photos(2)
        w = network.encoder(photo) + network.latent_avg
        torch.testing.assert_close(done.w, w)
        residual = photo - low(network.decoder(w))
        aligned = network.grid_align(residual, low(network.decoder(moved(w))))
        scale, shift = network.residue(aligned)
        torch.testing.assert_close(done.residual, residual)
        torch.testing.assert_close(done.aligned, aligned)
        torch.testing.assert_close(done.image, network.decoder(moved(w), fuse={64: (scale, shift)}))
        assert (done.image - network.decoder(moved(w))).abs().mean() > 0.01


def test_without_an_edit_the_photo_is_rebuilt(network: Hfgi) -> None:
    calls: list[int] = []
    hook = network.decoder.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        done = network(photos(1))
        calls, edited = [], network(photos(1), lambda w: w)
    hook.remove()
    assert torch.equal(done.w, done.w_edit)
    torch.testing.assert_close(done.image, edited.image)


def test_an_inversion_costs_two_images_and_an_edit_three(network: Hfgi) -> None:
    calls: list[int] = []
    hook = network.decoder.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        network(photos(1))
        assert len(calls) == 2
        network(photos(1), moved)
        assert len(calls) == 5
    hook.remove()


def test_low_takes_the_middle_of_four_by_four_pixels_and_cuts_off_first() -> None:
    image = drawn("image", 1, 3, 1024, 1024, std=2.0)
    cut = image.clamp(-1, 1).view(1, 3, 256, 4, 256, 4)
    torch.testing.assert_close(low(image), cut[:, :, :, 1:3, :, 1:3].mean((3, 5)))


def test_conditions_are_of_64_pixels_whatever_the_input() -> None:
    encoder = filled(ResidualEncoder(channels=8))
    with torch.inference_mode():
        for side in (64, 256):
            assert {made.shape for made in encoder(drawn("r", 2, 3, side, side))} == {(2, 8, 64, 64)}


def test_interfacegan_moves_all_layers_and_pose_each_its_own_way(directions: Directions) -> None:
    w = drawn("w", 2, 18, 512)
    made = directions.along(w, "smile", -3.0)
    torch.testing.assert_close(made[1, 17], w[1, 17] - 3 * directions.smile[0])
    made = directions.along(w, "pose", 2.0)
    torch.testing.assert_close(made[1, 5], w[1, 5] + 2 * directions.pose[0, 5])


def test_ganspace_gives_the_component_the_coordinate_that_the_first_layer_lacks(directions: Directions) -> None:
    """In the edited layers the component grows by what layer 0 lacks of the target; other layers stay."""
    w, (component, first, end, target) = drawn("w", 2, 18, 512), (58, 7, 9, -20.0)
    axis = directions.comp[component, 0] / directions.comp[component, 0].norm()
    directions = Directions()
    directions.comp[component, 0], directions.std[component] = axis, 2.0
    directions.mean[:] = drawn("mean", 512)
    made = directions.towards(w, component, first, end, target)
    kept = [layer for layer in range(18) if not first <= layer < end]
    assert torch.equal(made[:, kept], w[:, kept])
    has = (w[:, 0] - directions.mean) @ axis / 2.0
    for layer in (7, 8):
        grown = (made[:, layer] - w[:, layer]) @ axis / 2.0
        torch.testing.assert_close(grown, target - has, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(made[:, layer] - w[:, layer], 2.0 * grown[:, None] * axis, atol=1e-4, rtol=1e-4)


def test_the_published_networks_have_the_published_sizes() -> None:
    """Numbers of the specification: 105 and 295 tensors, 5.65 and 0.60 million values."""
    with torch.device("meta"):
        network = net.build()
    for part, tensors, values in ((network.residue, 105, 5.65), (network.grid_align, 295, 0.60)):
        state = part.state_dict()
        assert len(state) == tensors
        assert round(sum(value.numel() for value in state.values()) / 1e6, 2) == values


def test_half_precision_keeps_near_full_precision(network: Hfgi) -> None:
    with torch.inference_mode():
        whole = network(photos(1), moved)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(photos(1), moved)
    assert half.image.dtype == half.w.dtype == torch.float32
    assert (half.image - whole.image).abs().mean() < 0.05 * whole.image.std()
