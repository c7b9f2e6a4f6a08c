"""The StyleGAN2 family of the published graphs, small enough for tests, with weights of the sizes training gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from parity import fill

from generators.hfgi.net import Hfgi
from generators.nn.irse import Encoder4Editing
from generators.nn.stylegan2 import Generator

DATA = Path(__file__).parents[1] / "data"
"""What ours gave when it was held against recorded outputs of the originals (`make parity`)."""

WIDTHS = {4: 12, 8: 12, 16: 12, 32: 10, 64: 8, 128: 6}
STYLE = 16


def drawn(name: str, *shape: int, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
    """Normal numbers, the same everywhere."""
    rule = {"kind": "normal", "mean": mean, "std": std}
    return torch.from_numpy(fill.tensor(rule, name, shape, "float32", 3))


def filled(network: torch.nn.Module) -> Any:
    """Weights by their names; filters stay as they are."""
    state = {}
    for name, value in network.state_dict().items():
        mean, std = 0.0, 0.1
        if name.endswith(".kernel") or name.endswith("num_batches_tracked"):
            state[name] = value
            continue
        if ".style." in f".{name}":
            std = 100.0 if value.ndim > 1 else 10.0
        elif name.endswith("modulation.bias") or (name.endswith("weight") and value.ndim == 1):
            mean = 0.4 if name.endswith("res_layer.4.weight") else 1.0
        elif "to_rgb" in name and value.ndim == 5:
            std = 0.2
        elif value.ndim == 5 or "linear" in name or "modulation" in name or "noises" in name or name == "input.input":
            std = 1.0
        elif value.ndim == 4:
            std = 0.5 if "condition" in name else float(value[0].numel()) ** -0.5
        state[name] = drawn(name, *value.shape, mean=mean, std=std)
        if name.endswith("running_var"):
            state[name] = 1.0 + state[name].abs()
    network.load_state_dict(state, strict=True)
    return network.eval()


def generator(**more: Any) -> Generator:
    """128 pixels: beyond the resolution from which a CPU goes on one image at a time."""
    return Generator(size=128, style_dim=STYLE, n_mlp=2, channels=WIDTHS.__getitem__, **more)


def encoder() -> Encoder4Editing:
    """12 latents; widths that grow, stay and shrink."""
    return Encoder4Editing(n_styles=12, widths=(16, 16, 32, STYLE), depths=(1, 2, 2, 1))


def hfgi() -> Hfgi:
    """Both, with the networks between."""
    return Hfgi(encoder(), generator(), style_dim=STYLE, channels=WIDTHS[64])
