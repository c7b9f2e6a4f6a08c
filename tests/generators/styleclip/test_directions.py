from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from parity import fill

from generators.nn import stylegan2
from generators.styleclip import directions, net
from generators.styleclip.directions import NoChannelError
from mmtt_build.errors import WeightsError
from mmtt_build.weights import Weights

RECORDED = Path(__file__).parents[1] / "data" / "styleclip_directions.npz"
"""What ours gave when it was held against recorded outputs of the original (`make parity`)."""

NORMAL = {"kind": "normal", "mean": 0.0, "std": 1.0}
SIZES = [512] * 15 + [256] * 3 + [128] * 3 + [64] * 3 + [32] * 2
"""Channels of the 26 style vectors at 1024 pixels."""


def unit(name: str, *shape: int) -> np.ndarray:
    values = fill.tensor(NORMAL, name, shape, "float32", 5)
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True), np.float32)


def deviations(sizes: list[int] = SIZES) -> list[np.ndarray]:
    rule = {"kind": "uniform", "low": 0.1, "high": 2.0}
    return [fill.tensor(rule, f"std.{i}", (size,), "float32", 5) for i, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def relevant() -> np.ndarray:
    return directions.relevance(unit("table", 6048, 512), unit("change", 512))


def test_the_sizes_are_those_of_the_published_generator() -> None:
    with torch.device("meta"):
        generator = stylegan2.build()
    assert [layer.weight.shape[0] for _, layer in generator.modulations()] == SIZES
    assert (len(SIZES), sum(SIZES)) == (26, 9088)


@pytest.mark.parametrize("beta", [0.1, 0.14])
def test_boundaries_are_the_recorded_ones(relevant: np.ndarray, beta: float) -> None:
    moved, kept = directions.boundary(relevant, beta, deviations())
    together = np.concatenate(moved)
    with np.load(RECORDED) as recorded:
        where, values = recorded[f"where{beta}"], recorded[f"values{beta}"]
    np.testing.assert_array_equal(np.flatnonzero(together), where)
    np.testing.assert_allclose(together[where], values, atol=1e-5)
    assert kept == len(where) > 1


def test_the_strongest_channel_moves_by_one_deviation_and_rgb_layers_not_at_all() -> None:
    sizes = [3, 5, 3, 2, 5]
    spread = [np.full(size, 10.0 * (i + 1), np.float32) for i, size in enumerate(sizes)]
    relevant = np.array([0.1, -0.4, 0.2, 0.05, 0.3, -0.1, 0.15, -0.2], np.float32)  # vectors 0, 2 and 3
    moved, kept = directions.boundary(relevant, 0.15, spread)
    assert [list(map(float, each)) for each in moved] == [
        pytest.approx([0, -10, 5]), [0] * 5, pytest.approx([0, 22.5, 0]), pytest.approx([15, -20]), [0] * 5
    ]  # fmt: skip
    assert kept == 5, "what equals the threshold is kept"


def test_no_channel_at_the_threshold_is_said_and_not_divided_by(relevant: np.ndarray) -> None:
    strongest = np.abs(relevant).max()
    with pytest.raises(NoChannelError, match=f"no channel reaches beta 0.5: the strongest has {strongest:.3f}"):
        directions.boundary(relevant, 0.5, deviations())
    with pytest.raises(NoChannelError, match=r"strongest has 0\.000"):
        directions.boundary(np.zeros_like(relevant), 0.1, deviations())


def test_a_table_up_to_128_pixels_leaves_the_layers_above(relevant: np.ndarray) -> None:
    moved, kept = directions.boundary(relevant[:5376], 0.12, deviations())
    whole, _ = directions.boundary(np.where(np.arange(6048) < 5376, relevant, 0), 0.12, deviations())
    for ours, theirs in zip(moved, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert kept > 1
    assert not any(each.any() for each in moved[17:])


@pytest.mark.parametrize("count", [6047, 512, 9088, 0])
def test_a_table_of_another_generator_is_refused(count: int) -> None:
    with pytest.raises(WeightsError, match=f"have {count} channels, the generator's convolutions 6048 or 5376"):
        directions.boundary(np.ones(count, np.float32), 0.1, deviations())


def test_features_of_another_clip_are_refused() -> None:
    with pytest.raises(WeightsError, match="have 512 numbers a channel, CLIP's text features 768"):
        directions.relevance(unit("table", 20, 512), unit("change", 768))


def test_the_threshold_found_by_itself() -> None:
    relevant = np.zeros(6048, np.float32)
    relevant[:21] = -0.173
    assert directions.automatic_beta(relevant) == 0.17, "21 channels reach it, of either sign"
    relevant[20] = 0.12
    assert directions.automatic_beta(relevant) == 0.12
    relevant[20] = 0
    assert directions.automatic_beta(relevant) == 0.1, "20 are not enough"
    assert directions.automatic_beta(np.full(100, 0.9, np.float32)) == 0.29


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_table_is_taken_in_checked_and_read(tmp_path: Path, dtype: type) -> None:
    table = unit("table", 5376, 512)
    np.save(tmp_path / "fs3.npy", table.astype(dtype))
    weights = Weights((tmp_path / "weights",))
    weights.add("styleclip-directions", tmp_path / "fs3.npy", accept=True)
    read = directions.load_table(weights.find("styleclip-directions"))
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, table, atol=2e-4)


def test_a_table_with_holes_is_refused(tmp_path: Path) -> None:
    table = unit("table", 5376, 512)
    table[7, 7] = np.nan
    np.save(tmp_path / "fs3.npy", table)
    weights = Weights((tmp_path / "weights",))
    weights.add("styleclip-directions", tmp_path / "fs3.npy", accept=True)
    with pytest.raises(WeightsError, match="not finite"):
        directions.load_table(weights.find("styleclip-directions"))


def test_deviations_are_those_of_drawn_styles() -> None:
    torch.manual_seed(1)
    generator = stylegan2.Generator(size=16, style_dim=24, n_mlp=3, channels=lambda side: 64 // side)
    for _, layer in generator.modulations():
        torch.nn.init.uniform_(layer.bias, 0, 2)
    ours = net.deviations(generator, psi=0.7, count=30_000)
    average = torch.randn(24)
    with torch.inference_mode():
        w = generator.map(torch.randn(30_000, 24))
        drawn = generator.styles(stylegan2.truncate(w, average, 0.7))
    for one, styles in zip(ours, drawn, strict=True):
        assert one.dtype == torch.float32
        np.testing.assert_allclose(one, styles.std(dim=0, correction=0), rtol=0.03)
    for one, again in zip(ours, net.deviations(generator, count=30_000), strict=True):
        np.testing.assert_array_equal(one, again)
