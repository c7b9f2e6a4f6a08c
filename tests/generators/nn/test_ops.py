from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from tiny_gan import drawn

from generators.nn import ops, plain

FIR = ops.fir_kernel(4)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def by_hand(line: list[float], kernel: list[float], up: int, down: int, pad: tuple[int, int]) -> list[float]:
    """`upfirdn2d` along one axis, as the definition says it."""
    stuffed = [value for x in line for value in (x, *([0.0] * (up - 1)))]
    padded = [0.0] * max(pad[0], 0) + stuffed + [0.0] * max(pad[1], 0)
    padded = padded[max(-pad[0], 0) : len(padded) - max(-pad[1], 0)]
    made = [
        sum(padded[at + i] * weight for i, weight in enumerate(reversed(kernel)))
        for at in range(len(padded) - len(kernel) + 1)
    ]
    return made[::down]


@pytest.mark.parametrize("pad", [(0, 0), (1, 1), (2, 1), (1, 2), (3, 3), (-1, 1), (0, -2), (5, 4), (2, 2)])
@pytest.mark.parametrize(("up", "down"), [*itertools.product((1, 2, 3), (1, 2))])
def test_resampling_is_what_the_definition_says(up: int, down: int, pad: tuple[int, int]) -> None:
    """A kernel without symmetry, so that a flip would show."""
    line, kernel = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0], [1.0, 2.0, -4.0, 0.5]
    wanted = by_hand(line, kernel, up, down, pad)
    x, k = torch.tensor(line), torch.tensor(kernel)
    for resample in (ops.upfirdn2d, plain.upfirdn2d):
        made = resample(torch.outer(x, x).repeat(2, 3, 1, 1), torch.outer(k, k), up, down, pad)
        np.testing.assert_allclose(made, np.outer(wanted, wanted)[None, None].repeat(2, 0).repeat(3, 1), atol=1e-3)


CASES = {
    "3x3": {"demodulate": True}, "3x3 up": {"demodulate": True, "fir": FIR}, "3x3 as it is": {"demodulate": False},
    "up as it is": {"demodulate": False, "fir": FIR},
}  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("side", [5, 33])
@pytest.mark.parametrize("case", CASES)
def test_modulation_by_scaling_channels_is_modulation_of_weights(case: str, side: int, batch: int) -> None:
    """Both branches: a side of 33 has more values than the weights, one of 5 fewer."""
    x, weight = drawn("x", batch, 7, side, side), drawn("w", 5, 7, 3, 3)
    styles, bias = drawn("s", batch, 7, mean=1.0), drawn("b", 5)
    before = x.clone()
    made = ops.modulated_conv2d(x, weight, styles, bias=bias, gain=1.5, **CASES[case])
    wanted = plain.modulated_conv2d(x, weight, styles, bias=bias, gain=1.5, **CASES[case])
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(x, before)
    noise, fir = drawn("n", 1, 1, *made.shape[2:]), CASES[case].get("fir")
    torch.testing.assert_close(
        ops.styled_conv2d(x, weight, styles, bias, noise=noise, fir=fir),
        plain.styled_conv2d(x, weight, styles, bias, noise=noise, fir=fir), atol=1e-5, rtol=1e-5,
    )  # fmt: skip
    assert torch.equal(x, before)


@pytest.mark.parametrize(("size", "fir"), [(1, None), (3, None), (3, FIR)])
@pytest.mark.parametrize("layout", ["halves", "noise", "one region"])
def test_weights_per_region_are_a_convolution_per_region(
    size: int, layout: str, fir: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the borders take several turns. A filter without symmetry, so that a flip would show."""
    fir = None if fir is None else fir * torch.tensor([1.0, 2.0, -1.0, 0.5])
    monkeypatch.setattr(ops, "COLUMNS", (1000, 1000))
    x, weight, styles = drawn("x", 2, 7, 9, 11), drawn("w", 5, 7, size, size), drawn("s", 2, 4, 7, mean=1.0)
    labels = torch.zeros(2, *((9, 11) if fir is None else (18, 22)), dtype=torch.uint8)
    if layout == "noise":
        labels = (drawn("l", *labels.shape) * 100).long().remainder(4).to(torch.uint8)
    elif layout == "halves":
        labels[:, :, 6:] = 3
        labels[1, 5:] = 2
    before, bias, demodulate = x.clone(), drawn("b", 5), size == 3
    made = ops.modulated_conv2d(x, weight, styles, labels=labels, fir=fir, demodulate=demodulate, bias=bias, gain=1.5)
    wanted = plain.modulated_conv2d(
        x, weight, styles, labels=labels, fir=fir, demodulate=demodulate, bias=bias, gain=1.5
    )
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(x, before)


def test_demodulated_features_have_unit_variance_whatever_the_styles() -> None:
    weight, styles = drawn("w", 6, 48, 3, 3), drawn("s", 2, 48, mean=3.0, std=9.0)
    made = ops.modulated_conv2d(drawn("x", 2, 48, 64, 64), weight, styles)
    assert made.std((2, 3)).sub(1).abs().max() < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("side", [4, 40])
def test_half_floats_neither_overflow_nor_lose_the_demodulation(dtype: torch.dtype, side: int) -> None:
    """Styles of thousands: their squares, and the features they scale, are beyond what float16 holds."""
    x, weight, bias = drawn("x", 1, 16, side, side), drawn("w", 8, 16, 3, 3), drawn("b", 8)
    styles = 3e4 * drawn("s", 1, 16, mean=1.0)
    wanted = ops.styled_conv2d(x, weight, styles, bias, fir=FIR)
    with torch.autocast("cpu", dtype):
        made = ops.styled_conv2d(x, weight, styles, bias, fir=FIR)
    assert made.dtype == dtype
    torch.testing.assert_close(made.float(), wanted, atol=0.05, rtol=0.05)
    regional = torch.cat((styles, styles * 10), 0)[None]  # demodulation takes the factor away again
    labels = torch.arange(4 * side * side).view(1, 2 * side, 2 * side) // 3 % 2
    with torch.autocast("cpu", dtype):
        made = ops.styled_conv2d(x, weight, regional, bias, labels=labels, fir=FIR)
    assert made.dtype == dtype
    torch.testing.assert_close(made.float(), wanted, atol=0.05, rtol=0.05)
    made = ops.styled_conv2d(x.to(dtype), weight.to(dtype), styles, bias.to(dtype), fir=FIR.to(dtype))
    torch.testing.assert_close(made.float(), wanted, atol=0.05, rtol=0.05)


def test_equalised_layers_scale_their_weights_when_they_are_used() -> None:
    linear, x = ops.EqualLinear(9, 4, lr=0.01, activate=True), drawn("x", 2, 9)
    with torch.no_grad():
        linear.weight.copy_(drawn("w", 4, 9, std=100.0))
        linear.bias.copy_(drawn("b", 4, std=100.0))
    y = x @ linear.weight.T * 0.01 / 3 + linear.bias * 0.01
    torch.testing.assert_close(linear(x), torch.where(y > 0, y, 0.2 * y) * 2**0.5)
    conv, image = ops.EqualConv2d(4, 2, 3, padding=1), drawn("i", 1, 4, 6, 6)
    with torch.no_grad():
        conv.bias.copy_(torch.tensor([1.0, -1.0]))
    wanted = torch.nn.functional.conv2d(image, conv.weight, padding=1) / 6 + conv.bias[:, None, None]
    torch.testing.assert_close(conv(image), wanted)


def test_pixel_norm_leaves_a_root_mean_square_of_one_per_position() -> None:
    for shape in ((3, 50), (2, 50, 4, 4)):
        made: Any = ops.pixel_norm(drawn("x", *shape, std=7.0))
        torch.testing.assert_close(made.square().mean(1), torch.ones(made.mean(1).shape))


def test_networks_are_built_on_the_meta_device_without_arithmetic() -> None:
    """Arithmetic there makes torch import its symbolic half, which takes seconds: `mmtt weights check` waits for it."""
    script = (
        "import sys, torch\n"
        "from generators.hfgi import net\n"
        "with torch.device('meta'): net.build()\n"
        "print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
