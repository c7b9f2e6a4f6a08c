from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_gan import DATA, STYLE, drawn, filled, generator

from generators.nn import plain, stylegan2
from generators.nn.stylegan2 import Generator, generator_of, truncate


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network() -> Generator:
    torch.set_num_threads(1)
    made: Generator = filled(generator())
    return made


def latents(count: int) -> torch.Tensor:
    return drawn("w_plus", count, 12, STYLE)


def test_latents_styles_and_images_are_the_recorded_ones(network: Generator) -> None:
    with torch.inference_mode(), np.load(DATA / "stylegan2.npz") as recorded:
        np.testing.assert_allclose(network.map(drawn("z", 2, STYLE)), recorded["w"], atol=1e-4)
        np.testing.assert_allclose(torch.cat(network.styles(latents(1)), dim=1), recorded["S"], atol=1e-4)
        np.testing.assert_allclose(network(latents(1))[..., ::2, ::2], recorded["image"], atol=1e-4)


def test_the_plain_form_gives_the_same(network: Generator) -> None:
    with torch.inference_mode():
        styles = network.styles(latents(3))
        torch.testing.assert_close(network.synthesize(styles), plain.synthesize(network, styles), atol=1e-4, rtol=0)


def test_a_row_of_a_batch_is_the_row_alone(network: Generator) -> None:
    """Also with noise and features of their own per row, which are parted where a CPU goes on row by row."""
    w, noise = latents(3), [drawn(f"n{i}", 3, 1, *n.shape[2:]) for i, n in enumerate(network.noise)]
    scale, shift = drawn("scale", 3, 6, 128, 128), drawn("shift", 3, 6, 128, 128)
    with torch.inference_mode():
        whole = network(w, noise=noise, fuse={128: (scale, shift)})
        for i in range(3):
            one = slice(i, i + 1)
            alone = network(w[one], noise=[n[one] for n in noise], fuse={128: (scale[one], shift[one])})
            torch.testing.assert_close(whole[one], alone, atol=1e-4, rtol=0)
        assert (whole[0] - whole[1]).abs().mean() > 0.1


def test_s_has_one_vector_per_layer_and_can_be_edited(network: Generator) -> None:
    with torch.inference_mode():
        styles = network.styles(latents(1))
        assert [s.shape[1] for s in styles] == [12] * 9 + [10, 10, 10, 8, 8, 8, 6, 6]
        image = network.synthesize(styles)
        torch.testing.assert_close(image, network(latents(1)))
        styles[-1] = styles[-1] + 1.0  # the colours of the last layer
        assert (network.synthesize(styles) - image).abs().mean() > 0.01
        before = network.synthesize(styles, until=64)
        torch.testing.assert_close(before, network(latents(1), until=64))
    assert before.shape == (1, 3, 64, 64)


def test_w_is_used_for_all_layers(network: Generator) -> None:
    with torch.inference_mode():
        w = network.map(drawn("z", 2, STYLE))
        torch.testing.assert_close(network(w), network(w[:, None].repeat(1, 12, 1)))
        average = drawn("average", STYLE)
        torch.testing.assert_close(truncate(w, average, 1.0), w)
        torch.testing.assert_close(truncate(w, average, 0.0), average.expand(2, -1))
        torch.testing.assert_close(truncate(w, average, 0.7)[0], 0.3 * average + 0.7 * w[0])


def test_features_are_scaled_and_shifted_right_after_the_up_convolution(network: Generator) -> None:
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        network.convs[6].register_forward_hook(lambda _, __, made: seen.update(before=made.clone())),
        network.convs[7].register_forward_pre_hook(lambda _, given: seen.update(after=given[0].clone())),
    ]
    scale, shift = drawn("scale", 1, 8, 64, 64), drawn("shift", 1, 8, 64, 64)
    with torch.inference_mode():
        network(latents(1), fuse={64: (scale, shift)})
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(seen["after"], seen["before"] * (1 + scale) + shift)


def test_noise_that_is_given_takes_the_place_of_the_files(network: Generator) -> None:
    with torch.inference_mode():
        image = network(latents(1))
        torch.testing.assert_close(network(latents(1), noise=network.noise), image)
        other = [drawn(f"n{i}", 1, channels, *n.shape[2:]) for i, (n, channels) in enumerate(of_all(network))]
        assert (network(latents(1), noise=other) - image).abs().mean() > 0.01


def of_all(network: Generator) -> list[Any]:
    """Noise of the state dict, and the channels of its layer."""
    layers: list[Any] = [network.conv1, *network.convs]
    return [(n, layer.activate["bias"].shape[0]) for n, layer in zip(network.noise, layers, strict=True)]


def test_half_precision_keeps_near_full_precision(network: Generator) -> None:
    with torch.inference_mode():
        whole = network(latents(2))
        for dtype, most in ((torch.float16, 0.02), (torch.bfloat16, 0.15)):
            with torch.autocast("cpu", dtype):
                half = network(latents(2))
            assert half.dtype == torch.float32
            assert (half - whole).abs().mean() < most * whole.std()


def test_a_network_is_built_as_its_state_dict_shows(network: Generator) -> None:
    state = network.state_dict()
    with torch.device("meta"):
        again = generator_of(state)
    again.load_state_dict(state, strict=True, assign=True)
    with torch.inference_mode():
        torch.testing.assert_close(again(latents(1)), network(latents(1)))
    with pytest.raises(ValueError, match="size 100 is not a power of 2"):
        Generator(size=100)


def test_noise_that_a_file_lacks_is_always_the_same() -> None:
    state = {name: value for name, value in generator().state_dict().items() if not name.startswith("noises.")}
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with torch.device("meta"):
            network = generator_of(state)
        network.load_state_dict(state, strict=True, assign=True)
        made.append(network.noise)
    for one, two in zip(*made, strict=True):
        assert torch.equal(one, two)
        assert one.numel() < 64 or abs(float(one.std()) - 1) < 0.3


def test_the_published_network_has_the_published_sizes() -> None:
    """Numbers of the specification: 171 tensors, 33.17 million values, 18 latents, 9,088 styles."""
    with torch.device("meta"):
        network = stylegan2.build()
    state = network.state_dict()
    assert len(state) == 171
    assert round(sum(value.numel() for value in state.values()) / 1e6, 2) == 33.17
    assert network.n_latent == 18
    sizes = [layer.weight.shape[0] for _, layer in network.modulations()]
    assert len(sizes) == 26
    assert sum(sizes) == 9088
    assert [index for index, _ in network.modulations()][:8] == [0, 1, 1, 2, 3, 3, 4, 5]
