from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import fill

from generators.styleclip import net
from mmtt_build.catalogue import catalogue, entry
from mmtt_build.errors import WeightsError
from mmtt_build.weights import Weights, prove

RECORDED = Path(__file__).parents[1] / "data" / "styleclip_mappers.npz"
"""What ours gave when it was held against recorded outputs of the original (`make parity`): every fourth channel."""

TWO = ("course_mapping", "medium_mapping")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def filled(network: torch.nn.Module) -> torch.nn.Module:
    """Weights like those of a mapper (large, since they are used times 0.01), from the parity command's fill."""
    state = {}
    for name, value in network.state_dict().items():
        rule = {"kind": "normal", "mean": 0.0, "std": 100.0 if value.ndim > 1 else 10.0}
        state[name] = torch.from_numpy(fill.tensor(rule, name, value.shape, "float32", 9))
    network.load_state_dict(state, strict=True)
    return network


def code(count: int) -> torch.Tensor:
    rule = {"kind": "normal", "mean": 0.0, "std": 1.0}
    return torch.from_numpy(fill.tensor(rule, "w_plus", (count, 18, 512), "float32", 9))


NETWORKS = {
    "three levels": lambda: net.LevelsMapper(),
    "two levels": lambda: net.LevelsMapper(levels=TWO),
    "single": lambda: net.SingleMapper(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_changes_are_the_recorded_ones(name: str) -> None:
    with torch.inference_mode():
        change = filled(NETWORKS[name]())(code(1))
    with np.load(RECORDED) as recorded:
        np.testing.assert_allclose(change[..., ::4].numpy(), recorded[name], atol=1e-4)


def test_the_norm_runs_over_the_layers_of_a_level_as_the_weights_were_trained() -> None:
    """One level by hand, in float64."""
    mapper, w = filled(net.LevelsMapper(levels=TWO)), code(2)
    x = w[:, 4:8].double()
    x = x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for layer in range(1, 5):
        weight, bias = (mapper.state_dict()[f"medium_mapping.mapping.{layer}.{k}"].double() for k in ("weight", "bias"))
        y = x @ (weight * 0.01 / math.sqrt(512)).T + bias * 0.01
        x = torch.where(y > 0, y, 0.2 * y) * math.sqrt(2)
    with torch.inference_mode():
        np.testing.assert_allclose(mapper(w)[:, 4:8], x, atol=1e-5)


def test_a_level_that_is_not_there_changes_nothing() -> None:
    with torch.inference_mode():
        change = filled(net.LevelsMapper(levels=TWO))(code(2))
    assert not change[:, 8:].any()
    assert change[:, :8].abs().min(dim=2).values.gt(0).any()


def test_the_edit_goes_a_tenth_of_the_way() -> None:
    mapper, w = filled(net.LevelsMapper()), code(2)
    with torch.inference_mode():
        np.testing.assert_allclose(net.edit(mapper, w), w + 0.1 * mapper(w), atol=1e-6)
        each = net.edit(mapper, w, torch.tensor([0.0, 0.2])[:, None, None])
        np.testing.assert_array_equal(each[0], w[0])
        np.testing.assert_allclose(each[1], w[1] + 0.2 * mapper(w)[1], atol=1e-6)
        alone = net.edit(mapper, w[1:])
        np.testing.assert_allclose(alone, net.edit(mapper, w)[1:], atol=1e-5)


def test_codes_stay_in_full_precision_under_autocast() -> None:
    mapper, w = filled(net.LevelsMapper()), code(1)
    with torch.inference_mode():
        whole = net.edit(mapper, w)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(net.edit(mapper, w), whole)


def test_levels_that_do_not_exist_are_refused() -> None:
    for levels in ((), ("coarse_mapping",)):
        with pytest.raises(ValueError, match="course_mapping, medium_mapping, fine_mapping"):
            net.LevelsMapper(levels=levels)


# --- checkpoints ------------------------------------------------------------------------------------------------


def official(path: Path, levels: tuple[str, ...], spoil: dict[str, object] | None = None) -> Path:
    """A file of the published form and size in kilobytes: every tensor is one number, spread out."""
    with torch.device("meta"):
        network = net.Checkpoint(net.LevelsMapper(levels=levels), net.stylegan2.build())
    state = {name: torch.zeros(()).expand(value.shape) for name, value in network.state_dict().items()}
    for name, change in (spoil or {}).items():
        taken = state.pop(name, torch.zeros(3))
        if isinstance(change, str):
            state[change] = taken
        elif change is not None:
            state[name] = torch.zeros(()).expand(change)  # type: ignore[arg-type]
    torch.save({"state_dict": state, "opts": {"description": "angry face", "no_fine_mapper": True}}, path)
    return path


def test_every_published_mapper_is_in_the_catalogue_with_its_network() -> None:
    names = [name for name in catalogue() if name.startswith("styleclip-") and catalogue()[name].kind == "file"]
    assert len(names) == 14
    assert {entry(name).network for name in names} == {"generators.styleclip.net:checkpoint_of"}


@pytest.mark.parametrize("levels", [TWO, tuple(net.LEVELS)])
def test_a_file_of_the_published_form_is_taken_in(tmp_path: Path, levels: tuple[str, ...]) -> None:
    weights = Weights((tmp_path / "weights",))
    weights.add("styleclip-angry", official(tmp_path / "angry.pt", levels), accept=True)
    assert weights.find("styleclip-angry").path.name == "angry.pt"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            {"mapper.medium_mapping.mapping.3.bias": "mapper.medium_mapping.mapping.3.bia"},
            "missing: {0} (renamed to {1}?)",
        ),
        ({"mapper.course_mapping.mapping.2.weight": (512, 511)}, "shape: {0} is (512, 511), needed is (512, 512)"),
        ({"decoder.convs.3.activate.bias": None}, "missing: {0}"),
        ({"decoder.noises.noise_4": None}, "missing: {0}"),
        (
            {"mapper.fine_mapping.mapping.1.weight": "mapper.fine_mapping.mapping.1.weight"},
            "missing: mapper.fine_mapping",
        ),
        ({"decoder.extra": "decoder.extra"}, "not of this network: {0}"),
    ],
)
def test_one_wrong_tensor_is_named(tmp_path: Path, spoil: dict[str, object], said: str) -> None:
    name, change = next(iter(spoil.items()))
    problems = prove(entry("styleclip-angry"), official(tmp_path / "angry.pt", TWO, spoil))
    assert any(said.format(name, change) in problem for problem in problems), problems
    with pytest.raises(WeightsError, match="nothing was taken in"):
        Weights((tmp_path / "weights",)).add("styleclip-angry", tmp_path / "angry.pt", accept=True)


def test_the_generator_alone_is_no_mapper(tmp_path: Path) -> None:
    path = official(tmp_path / "angry.pt", TWO)
    outer = torch.load(path, weights_only=True)
    outer["state_dict"] = {n: v for n, v in outer["state_dict"].items() if n.startswith("decoder.")}
    torch.save(outer, path)
    assert any("missing: mapper.course_mapping" in problem for problem in prove(entry("styleclip-angry"), path))
