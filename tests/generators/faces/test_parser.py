from __future__ import annotations

from pathlib import Path

import fitted_parser
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from generators.faces import parser
from generators.faces.parser import Parser
from mmtt_build import parts
from mmtt_build.errors import WeightsError, WeightsMissing
from mmtt_build.portraits import Portrait, draw
from mmtt_build.weights import Weights


@pytest.fixture(scope="module")
def known() -> list[Portrait]:
    return [draw(seed, 512) for seed in fitted_parser.SEEDS]


@pytest.fixture(scope="module")
def parsed(bisenet: Path, known: list[Portrait]) -> list[NDArray[np.uint8]]:
    return Parser("cpu", Weights((bisenet,))).parse([face.image for face in known])


def test_the_network_is_the_published_one() -> None:
    with torch.device("meta"):
        state = parser.build().state_dict()
    assert len(state) == 191
    assert sum(value.numel() for value in state.values()) == 13_313_119
    assert state["conv_out.conv_out.weight"].shape == (19, 256, 1, 1)


def test_maps_are_in_our_order_and_keep_the_subjects_sides(
    known: list[Portrait], parsed: list[NDArray[np.uint8]]
) -> None:
    for face, labels in zip(known, parsed, strict=True):
        assert labels.shape == (512, 512)
        assert labels.dtype == np.uint8
        assert (labels == face.labels).mean() > 0.8
        for name in ("skin", "l_eye", "r_eye", "hair"):
            ours, theirs = parts.select(labels, [name]), parts.select(face.labels, [name])
            assert (ours & theirs).sum() > 0.3 * theirs.sum(), name
        left, right = (np.nonzero(parts.select(labels, [name]))[1].mean() for name in ("l_eye", "r_eye"))
        assert left > right


def test_maps_equal_those_of_the_librarys_whole_network(
    bisenet: Path, known: list[Portrait], parsed: list[NDArray[np.uint8]]
) -> None:
    """We leave out two heads and reorder memory; neither may move a pixel that is not a tie."""
    network = parser.build().eval()
    network.load_state_dict(torch.load(bisenet / "parsing_bisenet.pth", weights_only=True))
    image = torch.from_numpy(known[1].image).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        scores = network((image - mean.view(3, 1, 1))[None] / std.view(3, 1, 1))[0][0]
    best, second = scores.topk(2, dim=0).values
    theirs = parts.reorder(scores.argmax(dim=0).numpy().astype(np.uint8), parts.BISENET_CLASSES)
    differ = theirs != parsed[1]
    assert not (differ & ((best - second).numpy() > 1e-3)).any()
    assert differ.mean() < 1e-4


def test_half_precision_moves_borders_only(
    bisenet: Path, known: list[Portrait], parsed: list[NDArray[np.uint8]]
) -> None:
    (half,) = Parser("cpu", Weights((bisenet,)), half=True).parse([known[0].image])
    assert 0 < (half != parsed[0]).mean() < 0.005


def test_nothing_in_nothing_out_and_other_sizes_are_refused(bisenet: Path) -> None:
    network = Parser("cpu", Weights((bisenet,)))
    assert network.parse([]) == []
    with pytest.raises(ValueError, match="512x512"):
        network.parse([np.zeros((256, 256, 3), np.uint8)])


def test_a_checkpoint_of_nans_is_an_error_and_not_a_map(bisenet: Path, tmp_path: Path) -> None:
    state = torch.load(bisenet / "parsing_bisenet.pth", weights_only=True)
    state["ffm.conv1.weight"].fill_(torch.nan)
    torch.save(state, tmp_path / "parsing_bisenet.pth")
    weights = Weights((tmp_path,))
    weights.add("bisenet", tmp_path / "parsing_bisenet.pth")
    with pytest.raises(WeightsError, match="not finite"):
        Parser("cpu", weights).parse([np.zeros((512, 512, 3), np.uint8)])


def test_without_its_checkpoint_it_says_how_to_obtain_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="mmtt weights add bisenet"):
        Parser("cpu", Weights((tmp_path,)))


def test_e4s_halves_by_a_cubic_filter_over_reflected_borders() -> None:
    """Against the rule written out: each output pixel is a weighted sum of 8 x 8 input pixels."""
    image = np.random.default_rng(5).random((12, 16, 3)).astype(np.float32)
    image[:4, :4] = (0, 1, 1)  # overshoots, so that the clamp is seen

    def cubic(x: float) -> float:
        x, a = abs(x), -0.5
        return (a + 2) * x**3 - (a + 3) * x**2 + 1 if x <= 1 else a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a

    taps = np.array([cubic((i - 3.5) / 2) for i in range(8)])
    taps /= taps.sum()
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    wanted = np.empty((6, 8, 3))
    for y in range(6):
        for x in range(8):
            wanted[y, x] = np.einsum("ijc,i,j->c", padded[2 * y : 2 * y + 8, 2 * x : 2 * x + 8], taps, taps)
    assert wanted.min() < 0
    wanted = (wanted.clip(0, 1) - parser.MEAN) / parser.STD
    got = parser.prepare_e4s(torch.from_numpy(image).permute(2, 0, 1)[None])
    np.testing.assert_allclose(got[0].permute(1, 2, 0).numpy(), wanted, atol=1e-5)
