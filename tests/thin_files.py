"""Checkpoints of the full-size networks, in their published outer forms, that take megabytes instead of gigabytes.

Every large tensor is a view of a few thousand random numbers of the network's own initial spread: the networks are the
real ones and compute as long as these, and what they paint is noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

POOL = 1 << 14
"""Numbers in a file for each large tensor; more for one that has a side of more than half as many."""

TABLE_CHANNELS = 6048


def thin(value: Tensor) -> Tensor:
    """A tensor of the same shape, whose numbers are the first of the given one, over and over in another order."""
    count = max(POOL, 2 * max(value.shape, default=0))
    if value.numel() <= count:
        return value.detach().clone()
    pool, wide = value.detach().flatten()[:count].clone(), [length > 1 for length in value.shape]
    room = count // sum(wide)
    # Odd and different, so that no two rows are the same and no matrix is symmetric.
    strides = [max(1, room // length - 2 * i - 1) | 1 if length > 1 else 0 for i, length in enumerate(value.shape)]
    assert sum((length - 1) * stride for length, stride in zip(value.shape, strides, strict=True)) < count
    return pool.as_strided(value.shape, strides)


def state(network: nn.Module) -> dict[str, Tensor]:
    """The thin state dict of a network."""
    return {name: thin(value) for name, value in network.state_dict().items()}


def mat(path: Path) -> Path:
    """A flat state dict."""
    from generators.mat import net

    torch.manual_seed(0)
    torch.save(state(net.build()), path)
    return path


def _with_latent(network: nn.Module, path: Path) -> Path:
    tensors = state(network)
    tensors["latent_avg"] = 0.3 * torch.randn(18, 512)
    average = tensors.pop("latent_avg")
    torch.save({"state_dict": tensors, "latent_avg": average, "opts": {"start_from_latent_avg": True}}, path)
    return path


def e4e(path: Path) -> Path:
    """Encoder and generator."""
    from generators.nn import irse

    torch.manual_seed(1)
    return _with_latent(irse.build(), path)


def hfgi(path: Path) -> Path:
    """Encoder, generator and both networks for details."""
    from generators.hfgi import net

    torch.manual_seed(1)
    return _with_latent(net.build(), path)


def hfgi_directions(folder: Path) -> Path:
    """The folder `editings`: directions of length 1."""
    (folder / "interfacegan_directions").mkdir(parents=True)
    (folder / "ganspace_pca").mkdir()
    draw = torch.Generator().manual_seed(2)

    def unit(*shape: int) -> Tensor:
        return nn.functional.normalize(torch.randn(shape, generator=draw), dim=-1)

    for name, shape in (("age", (1, 512)), ("smile", (1, 512)), ("pose", (1, 18, 512))):
        torch.save(unit(*shape), folder / "interfacegan_directions" / f"{name}.pt")
    parts = {"comp": unit(80, 1, 512), "mean": torch.zeros(1, 512), "std": torch.ones(80)}
    torch.save(parts, folder / "ganspace_pca" / "ffhq_pca.pt")
    return folder


def mapper(path: Path) -> Path:
    """A mapper of all levels, with the generator that its file also holds."""
    from generators.nn import stylegan2
    from generators.styleclip import net

    torch.manual_seed(3)
    network = net.Checkpoint(net.LevelsMapper(), stylegan2.build())
    torch.save({"state_dict": state(network), "opts": {"description": "angry face"}}, path)
    return path


def e4s(path: Path) -> Path:
    """Net3 as trained and averaged over its training, every name with the prefix of parallel training."""
    from generators.nn import net3

    torch.manual_seed(5)
    tensors = {f"module.{name}": value for name, value in state(net3.build()).items() if name != "latent_avg"}
    average = 0.3 * torch.randn(18, 512)
    options = {"num_seg_cls": 12, "out_size": 1024, "remaining_layer_idx": 13, "start_from_latent_avg": True}
    torch.save({"state_dict": tensors, "state_dict_ema": tensors, "latent_avg": average, "opts": options}, path)
    return path


def facevid2vid(path: Path) -> Path:
    """Three state dicts, with some of what training kept beside them."""
    from generators.nn import facevid2vid

    torch.manual_seed(9)
    parts: dict[str, Any] = {name: state(part) for name, part in facevid2vid.build().named_children()}
    painter = parts["generator"]
    for name in [name for name in painter if name.endswith("weight_orig")]:
        left, _, right = torch.svd_lowrank(painter[name].flatten(1), q=1)
        start = name.removesuffix("orig")
        painter |= {f"{start}u": left[:, 0].contiguous(), f"{start}v": right[:, 0].contiguous()}
    torch.save(parts | {"epoch": 189, "optimizer_generator": {"state": {}, "param_groups": [{"lr": 2e-4}]}}, path)
    return path


def styleclip_directions(path: Path) -> Path:
    """The table `fs3.npy`: a row of length 1 per channel."""
    rows = np.random.default_rng(4).normal(size=(TABLE_CHANNELS, 512)).astype(np.float32)
    np.save(path, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return path


def gpen(path: Path) -> Path:
    """A flat state dict."""
    from generators.nn import gpen

    torch.manual_seed(5)
    torch.save(state(gpen.build()), path)
    return path


def realesrnet(path: Path) -> Path:
    """The averaged network."""
    from generators.nn import rrdb

    torch.manual_seed(6)
    torch.save({"params_ema": state(rrdb.build())}, path)
    return path


def retinaface(path: Path) -> Path:
    """A flat state dict as training in parallel names it, of a detector that finds one face in every large picture.

    It is always where an aligned portrait of 1024 pixels has it. The heads of the coarsest features say the same
    everywhere, and boxes overlap so far that only that of the first anchor but one, the larger in the corner, is left.
    """
    from generators.faces import enhancer

    torch.manual_seed(7)
    tensors = state(enhancer.retinaface())
    for name, value in tensors.items():
        if "Head." in name:
            tensors[name] = torch.zeros(value.shape)
    corner, anchor = 16 / 1024, 512 / 1024
    points = torch.tensor([(0.383, 0.472), (0.617, 0.472), (0.5, 0.61), (0.40, 0.72), (0.60, 0.72)])
    place, size = enhancer.VARIANCES
    wide = float(np.log(16)) / size  # sixteen times the anchor
    tensors["ClassHead.2.conv1x1.bias"] = torch.tensor([0.0, 0.0, 0.0, 5.0])
    tensors["BboxHead.2.conv1x1.bias"] = torch.tensor([0.0, 0.0, wide, wide]).repeat(2)
    tensors["LandmarkHead.2.conv1x1.bias"] = ((points - corner) / (place * anchor)).flatten().repeat(2)
    torch.save({f"module.{name}": value for name, value in tensors.items()}, path)
    return path


def parsenet(path: Path) -> Path:
    """A flat state dict."""
    from generators.faces import enhancer

    torch.manual_seed(8)
    torch.save(state(enhancer.parsenet()), path)
    return path


def add_all(folder: Path, scratch: Path, clip: Any, parser: Any) -> None:
    """Adds all that `mat`, `styleclip` and `hfgi` need to a weights folder.

    Args:
        folder: of the weights.
        scratch: for the files before they are taken in.
        clip: writes CLIP into a folder.
        parser: state dict of the part parser.
    """
    from mmtt_build.weights import Weights

    weights = Weights((folder,))
    torch.save(parser, scratch / "parsing_bisenet.pth")
    clip(scratch / "clip")
    files = {
        "bisenet": scratch / "parsing_bisenet.pth", "mat": mat(scratch / "mat.pth"), "e4e": e4e(scratch / "e4e.pt"),
        "hfgi": hfgi(scratch / "ckpt.pt"), "hfgi-directions": hfgi_directions(scratch / "editings"),
        "styleclip-angry": mapper(scratch / "angry.pt"), "clip-vit-b32": scratch / "clip",
        "styleclip-directions": styleclip_directions(scratch / "fs3.npy"),
    }  # fmt: skip
    for name, file in files.items():
        weights.add(name, file, accept=True)
