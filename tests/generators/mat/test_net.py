from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_mat
import torch
import torch.nn.functional as F
from tiny_mat import drawn

from generators.mat import net
from generators.mat.net.coarse import Attention, Block, shift_bias
from generators.mat.net.layers import Conv, PartialConv

RECORDED = Path(__file__).parents[1] / "data" / "mat.npz"
"""What ours gave when it was held against recorded outputs of the original (`make parity`): every fourth pixel."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network() -> net.Generator:
    return tiny_mat.filled()


def given(network: net.Generator, batch: int = 1, height: int = 128, width: int = 128, **more: Any) -> dict[str, Any]:
    """Arguments of `forward` with a square hole that grows and moves from sample to sample."""
    keep = torch.ones(batch, 1, height, width)
    for i in range(batch):
        keep[i, :, 20 + 9 * i : 50 + 21 * i, 31 : 40 + 30 * i] = 0
    image = drawn("image", batch, 3, height, width).tanh()
    return {"image": image, "keep_mask": keep} | draws(network, range(batch), height, width) | more


def draws(network: net.Generator, seeds: Any, height: int = 128, width: int = 128, **more: Any) -> dict[str, Any]:
    return network.draw([torch.Generator().manual_seed(seed) for seed in seeds], height, width, **more)


def run(network: net.Generator, arguments: dict[str, Any]) -> torch.Tensor:
    with torch.inference_mode():
        return network(**arguments)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


# --- the whole --------------------------------------------------------------------------------------------------------


def cases(network: net.Generator) -> dict[str, dict[str, Any]]:
    def mixed(tokens: int, *deep: int) -> dict[str, torch.Tensor]:
        batch = deep[0]
        return {"keep1": drawn("keep1", batch, tokens, 12) > 0, "keep2": drawn("keep2", batch, 12, *deep[1:]) > 0}

    return {
        "const noise": given(network, 2, z=drawn("z", 2, 16), psi=0.7) | mixed(256, 2, 16, 16),
        "wide": given(network, 1, 128, 256, z=drawn("z", 1, 16), psi=0.5, cutoff=5, noise="none")
        | mixed(512, 1, 16, 32),
    }


@pytest.mark.parametrize("name", ["const noise", "wide"])
def test_fillings_are_the_recorded_ones(network: net.Generator, name: str) -> None:
    made = run(network, cases(network)[name])
    with np.load(RECORDED) as recorded:
        np.testing.assert_allclose(made[..., ::4, ::4].numpy(), recorded[name], atol=1e-4)


HOLES = {
    "one pixel": [(60, 61, 77, 78)], "the first pixel": [(0, 1, 0, 1)], "the last pixel": [(127, 128, 127, 128)],
    "an edge": [(0, 128, 120, 128)], "two far apart": [(3, 9, 5, 11), (100, 121, 110, 128)], "odd": [(17, 32, 51, 96)],
    "all": [(0, 128, 0, 128)],
}  # fmt: skip


@pytest.mark.parametrize("name", HOLES)
def test_crops_around_holes_change_nothing(network: net.Generator, name: str) -> None:
    keep = torch.ones(1, 1, 128, 128)
    for top, bottom, left, right in HOLES[name]:
        keep[..., top:bottom, left:right] = 0
    arguments = given(network, keep_mask=keep)
    made, whole = run(network, arguments), run(network, arguments | {"whole": True})
    assert apart(made, whole) < 2e-5
    inside = keep.expand_as(made) == 0
    assert torch.equal(made[~inside], arguments["image"][~inside])
    assert (made != arguments["image"])[inside].any()


def test_a_sample_does_not_depend_on_its_batch(network: net.Generator) -> None:
    arguments = given(network, 3)
    arguments["keep_mask"][1] = 1  # nothing to do
    made = run(network, arguments)
    for i in range(3):
        one = {name: value[i : i + 1] for name, value in arguments.items()}
        assert apart(made[i : i + 1], run(network, one)) < 2e-5
    assert torch.equal(made[1], arguments["image"][1])
    for i in (0, 2):
        assert not torch.equal(made[i], arguments["image"][i])


def test_a_batch_in_one_piece_is_the_same(network: net.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it goes on a GPU: large layers take the batch together."""
    arguments = given(network, 3)
    alone = run(network, arguments)
    for module in (net.coarse, net.fine):
        monkeypatch.setattr(module, "groups", lambda x: [slice(0, len(x))])
    assert apart(run(network, arguments), alone) < 2e-5
    assert apart(run(network, arguments | {"whole": True}), alone) < 2e-5


def test_what_the_holes_show_does_not_matter(network: net.Generator) -> None:
    arguments = given(network, 2)
    other = torch.where(arguments["keep_mask"].bool(), arguments["image"], -0.3)
    assert torch.equal(run(network, arguments), run(network, arguments | {"image": other}))


def test_latent_mixing_and_noise_all_shape_the_filling(network: net.Generator) -> None:
    arguments, other = given(network), draws(network, [99])
    made = run(network, arguments)
    noise = draws(network, [99], noise=True)["noise"]
    for change in (
        {"z": other["z"]}, {"keep1": other["keep1"]}, {"keep2": other["keep2"]}, {"noise": "none"}, {"noise": noise},
        {"psi": 0.5}, {"psi": 0.5, "cutoff": 1},
    ):  # fmt: skip
        assert apart(run(network, arguments | change), made) > 1e-3, change
    buffers = [layer.noise_const[None, None] for layer in network.synthesis.dec.layers()]
    assert torch.equal(run(network, arguments | {"noise": buffers}), made)
    each = {"noise": draws(network, [5, 6], noise=True)["noise"]}
    two = given(network, 2)
    apiece = [run(network, {k: v[i : i + 1] for k, v in two.items()} | {"noise": [n[i : i + 1] for n in each["noise"]]})
              for i in (0, 1)]  # fmt: skip
    assert apart(run(network, two | each), torch.cat(apiece)) < 2e-5


def test_draws_depend_on_the_sample_alone(network: net.Generator) -> None:
    both, second = draws(network, [1, 2], noise=True), draws(network, [2], noise=True)
    for name in ("z", "keep1", "keep2"):
        assert torch.equal(both[name][1:], second[name])
        assert not torch.equal(both[name][0], both[name][1])
    assert [n.shape for n in second["noise"]] == [(1, 1, s, s) for s in (16, 32, 32, 64, 64, 128, 128)]
    assert 0.45 < both["keep1"].float().mean() < 0.55
    wide = draws(network, [1], 128, 384)
    assert (wide["keep1"].shape, wide["keep2"].shape) == ((1, 768, 12), (1, 12, 16, 48))
    run(network, given(network, 1, 128, 384, noise="none"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image": torch.zeros(1, 3, 96, 128)}, "128 x 96 pixels, needed are multiples of 128"),
        ({"keep_mask": torch.full((1, 1, 128, 128), 0.5)}, "values beside 0 and 1"),
        ({"keep_mask": torch.full((1, 1, 128, 128), float("nan"))}, "values beside 0 and 1"),
        ({"keep_mask": torch.ones(1, 128, 128)}, "keep_mask has the shape"),
        ({"z": torch.zeros(1, 17)}, r"z has the shape \(1, 17\), needed is \(1, 16\)"),
        ({"keep1": torch.ones(1, 255, 12)}, "keep1 has the shape"), ({"keep2": torch.ones(2, 12, 16, 16)}, "keep2 has"),
        ({"noise": "random"}, "noise is neither"), ({"noise": [torch.ones(1, 1, 16, 16)]}, "noise is neither"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(network: net.Generator, change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        run(network, given(network) | change)
    with pytest.raises(ValueError, match="own noise fits 128 x 128 pixels only"):
        run(network, given(network, 1, 128, 256))


def test_half_precision_stays_near(network: net.Generator) -> None:
    arguments = given(network, 2)
    made = run(network, arguments)
    with torch.autocast("cpu", torch.bfloat16):
        half = run(network, arguments)
    assert half.dtype == torch.float32
    assert 0 < float((half - made).square().mean().sqrt()) < 0.05 * float(made.std())
    outside = arguments["keep_mask"].expand_as(made) == 1
    assert torch.equal(half[outside], made[outside])


def test_the_published_network_costs_nothing_to_build() -> None:
    with torch.device("meta"):
        network = net.build()
    state = network.state_dict()
    assert len(state) == 487
    assert sum(parameter.numel() for parameter in network.parameters()) == 61_562_518
    assert sum(value.numel() for value in state.values()) == 63_311_318
    assert all(value.is_meta for value in state.values())
    same = net.generator_of(state).state_dict()
    assert {n: v.shape for n, v in same.items()} == {n: v.shape for n, v in state.items()}
    with torch.device("meta"):
        smaller = net.Generator(
            **{**net.FACES_512, "channels": {s: c for s, c in net.FACES_512["channels"].items() if s < 512}}
        )
    assert len(smaller.state_dict()) == 442
    assert sum(parameter.numel() for parameter in smaller.parameters()) == 59_779_834


# --- its parts, by their definitions ----------------------------------------------------------------------------------


def test_a_partial_convolution_makes_up_for_unknown_pixels() -> None:
    torch.manual_seed(0)
    keep = torch.ones(1, 1, 8, 8)
    keep[..., 1:6, 2:7] = 0
    x = torch.randn(1, 3, 8, 8)
    for down in (False, True):
        layer = PartialConv(3, 4, down=down)
        y, known = layer(x, keep)
        plain, step = layer(x)[0], 2 if down else 1
        for row in range(0, 8, step):
            for column in range(0, 8, step):
                window = F.pad(keep, (1, 1, 1, 1))[0, 0, row : row + 3, column : column + 3]
                share = 9 / window.sum() if window.any() else torch.tensor(0.0)
                at = (0, slice(None), row // step, column // step)
                torch.testing.assert_close(y[at], plain[at] * share)
                assert known[0, 0, row // step, column // step] == window.any()
    assert layer(x)[1] is None


@pytest.mark.parametrize("form", ["up", "down", "plain"])
def test_a_convolution_is_its_definition(form: str) -> None:
    """One output value at a time, in float64; the filter runs after the doubling and before the halving."""
    torch.manual_seed(0)
    layer = Conv(2, 3, up=form == "up", down=form == "down").double()
    layer.bias.data.normal_()
    x, weight = torch.randn(1, 2, 6, 6, dtype=torch.float64), layer.weight / (2 * 9) ** 0.5
    fir = torch.outer(*[torch.tensor([1.0, 3, 3, 1], dtype=torch.float64)] * 2) / 64
    each = fir.expand(2, 1, 4, 4)
    if form == "up":
        sparse = torch.zeros(1, 2, 13, 13, dtype=torch.float64)
        sparse[..., ::2, ::2] = F.pad(x, (0, 1, 0, 1))
        full = F.conv2d(F.pad(sparse[..., :11, :11], (2, 2, 2, 2)), weight)
        y = F.conv2d(F.pad(full, (1, 1, 1, 1)), 4 * fir.expand(3, 1, 4, 4), groups=3)
    elif form == "down":
        y = F.conv2d(F.conv2d(F.pad(x, (2, 2, 2, 2)), each, groups=2), weight)[..., ::2, ::2]
    else:
        y = F.conv2d(x, weight, padding=1)
    y = y + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), torch.where(y > 0, y, 0.2 * y) * 2**0.5)


def test_attention_goes_to_known_tokens_of_the_same_window() -> None:
    torch.manual_seed(0)
    layer, x = Attention(12, 6), torch.randn(3, 4, 12)
    keep = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])[..., None]
    made, known = layer(x, keep, None)
    normed = x / x.norm(dim=-1, keepdim=True)
    for window in range(3):
        seen = keep[window, :, 0].bool() if keep[window].any() else torch.ones(4, dtype=torch.bool)
        parts = []
        for head in range(6):
            q, k, v = (
                m(of[window])[:, 2 * head : 2 * head + 2]
                for m, of in ((layer.q, normed), (layer.k, normed), (layer.v, x))
            )
            parts.append((q @ k[seen].T / 2**0.5).softmax(-1) @ v[seen])
        torch.testing.assert_close(made[window], layer.proj(torch.cat(parts, -1)), atol=1e-5, rtol=1e-5)
    assert known[:, :, 0].tolist() == [[1] * 4, [0] * 4, [1] * 4]


def test_shifted_windows_keep_wrapped_tokens_apart() -> None:
    """Tokens of a window may meet only if they are neighbours in the image, too."""
    height, width, side, shift = 12, 8, 4, 2
    bias = shift_bias(height, width, side, shift, torch.device("cpu"))
    at = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1)
    moved = at.roll((-shift, -shift), (0, 1))
    cells = moved.view(height // side, side, width // side, side, 2).transpose(1, 2).reshape(-1, side * side, 2)
    near = (cells[:, :, None] - cells[:, None]).abs().amax(-1) < side
    assert torch.equal(bias, torch.where(near, 0.0, -100.0))
    assert bias.any()


def test_the_stored_mask_is_not_read(network: net.Generator) -> None:
    arguments = given(network)
    made = run(network, arguments)
    blocks = [block for block in network.modules() if isinstance(block, Block) and block.shift]
    assert len(blocks) == 4
    try:
        for block in blocks:
            block.attn_mask.fill_(float("nan"))
        assert torch.equal(run(network, arguments), made)
    finally:
        for block in blocks:
            block.attn_mask.zero_()


def test_the_plain_form_agrees(network: net.Generator) -> None:
    """Written apart from the network: other masks of attention, weights per sample, whole images."""
    from generators.mat.net import plain

    arguments = given(network, 2, psi=0.8)
    with torch.inference_mode():
        twin = plain.fill(network, **arguments)
    assert apart(run(network, arguments), twin) < 5e-5
