"""Files of the published outer forms: taken, and refused by name where one tensor is off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gan import drawn

from generators import checkpoints
from generators.hfgi import net
from generators.nn import irse, stylegan2
from mmtt_build.catalogue import entry
from mmtt_build.errors import WeightsError
from mmtt_build.weights import Weights, prove

BUILD = {"stylegan2-ffhq": stylegan2.build, "e4e": irse.build, "hfgi": net.build}
STATE = {"stylegan2-ffhq": "g_ema", "e4e": "state_dict", "hfgi": "state_dict"}


def official(name: str) -> dict[str, Any]:
    """What a file of that name holds, every tensor one number spread out, so that it takes kilobytes."""
    with torch.device("meta"):
        network = BUILD[name]()
    spread = {k: torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in network.state_dict().items()}
    average = spread.pop("latent_avg", torch.zeros(512))
    options = {"stylegan_size": 1024, "start_from_latent_avg": True, "device": "cuda:0", "checkpoint_path": None}
    return {STATE[name]: spread, "latent_avg": average, **({} if name == "stylegan2-ffhq" else {"opts": options})}


def checked(name: str, content: dict[str, Any], tmp_path: Path) -> list[str]:
    torch.save(content, tmp_path / "file.pt")
    return prove(entry(name), tmp_path / "file.pt")


@pytest.mark.parametrize("name", BUILD)
def test_a_file_of_the_published_form_is_taken(name: str, tmp_path: Path) -> None:
    assert checked(name, official(name), tmp_path) == []


LAYER = {
    "stylegan2-ffhq": "convs.6.conv.modulation.bias", "e4e": "encoder.styles.11.linear.weight",
    "hfgi": "grid_align.dconv_layer2.1.res_layer.3.weight",
}  # fmt: skip


@pytest.mark.parametrize("name", BUILD)
def test_one_tensor_that_is_off_is_named(name: str, tmp_path: Path) -> None:
    layer = LAYER[name]
    shape = tuple(official(name)[STATE[name]][layer].shape)
    for change, told in (
        (lambda s: s.update({f"{layer}s": s.pop(layer)}), [f"missing: {layer} (renamed to {layer}s?)",
                                                           f"not of this network: {layer}s"]),
        (lambda s: s.update({layer: torch.zeros(1, *shape)}), [f"shape: {layer} is {(1, *shape)}, needed is {shape}"]),
        (lambda s: s.pop(layer), [f"missing: {layer}"]),
        (lambda s: s.update({"more.weight": torch.zeros(1)}), ["not of this network: more.weight"]),
    ):  # fmt: skip
        content = official(name)
        change(content[STATE[name]])
        assert checked(name, content, tmp_path) == told


@pytest.mark.parametrize("name", ["e4e", "hfgi"])
def test_the_average_latent_beside_the_networks_is_proved_and_loaded(name: str, tmp_path: Path) -> None:
    content = official(name)
    content["latent_avg"] = torch.zeros(512)
    assert checked(name, content, tmp_path) == ["shape: latent_avg is (512,), needed is (18, 512)"]
    content["latent_avg"] = drawn("average", 18, 512)
    torch.save(content, tmp_path / entry(name).files[0])
    weights = Weights((tmp_path / "weights",))
    found: Any = weights.add(name, tmp_path / entry(name).files[0], accept=True)
    with torch.device("meta"):
        network = BUILD[name]()
    checkpoints.load_found(network, found)
    assert torch.equal(network.latent_avg, drawn("average", 18, 512))


def test_a_generator_without_noise_is_taken_and_one_that_lacks_some_is_not(tmp_path: Path) -> None:
    content = official("stylegan2-ffhq")
    state = content["g_ema"]
    some = state.pop("noises.noise_3")
    assert checked("stylegan2-ffhq", content, tmp_path) == ["missing: noises.noise_3"]
    content["g_ema"] = {name: value for name, value in state.items() if not name.startswith("noises.")}
    assert checked("stylegan2-ffhq", content, tmp_path) == []
    with torch.device("meta"):
        network = stylegan2.published(content["g_ema"])
    checkpoints.load_strict(network, content["g_ema"], tmp_path)
    assert network.noise[3].shape == some.shape
    assert network.noise[3].std() > 0.5


def directions(folder: Path) -> Path:
    """A folder as the authors publish it: a file per direction, one for the components, and other things."""
    (folder / "interfacegan_directions").mkdir(parents=True)
    (folder / "ganspace_pca").mkdir()
    (folder / "readme.txt").write_text("more")
    for name, shape in (("age", (1, 512)), ("smile", (1, 512)), ("pose", (1, 18, 512))):
        torch.save(drawn(name, *shape), folder / "interfacegan_directions" / f"{name}.pt")
    parts = {"comp": drawn("comp", 80, 1, 512), "mean": drawn("mean", 1, 512), "std": drawn("std", 80)}
    torch.save({**parts, "var_ratio": torch.zeros(80)}, folder / "ganspace_pca" / "ffhq_pca.pt")
    return folder


def test_directions_are_read_from_the_folder_that_holds_them(tmp_path: Path) -> None:
    weights = Weights((tmp_path / "weights",))
    weights.add("hfgi-directions", directions(tmp_path / "editings"))
    loaded = net.Directions()
    checkpoints.load_found(loaded, weights.find("hfgi-directions"))
    assert torch.equal(loaded.pose, drawn("pose", 1, 18, 512))
    assert torch.equal(loaded.std, drawn("std", 80))


def test_directions_that_are_off_are_told(tmp_path: Path) -> None:
    folder, of = directions(tmp_path / "editings"), entry("hfgi-directions")
    torch.save(torch.zeros(512), folder / "interfacegan_directions/smile.pt")
    assert prove(of, folder) == ["shape: smile is (512,), needed is (1, 512)"]
    torch.save([1, 2], folder / "interfacegan_directions/smile.pt")
    assert "smile.pt holds a list, not a state dict" in prove(of, folder)[0]
    (folder / "interfacegan_directions/smile.pt").unlink()
    assert "editings has no interfacegan_directions/smile.pt" in prove(of, folder)[0]
    with pytest.raises(WeightsError, match="nothing was taken in"):
        Weights((tmp_path / "weights",)).add("hfgi-directions", folder)
