"""A MAT of the published graph, small enough for tests: 128 pixels, 80,000 weights."""

from __future__ import annotations

import torch
from parity import fill

from generators.mat.net import Generator

SIZES = {
    "n_z": 16, "n_w": 16, "n_global": 20, "mapping_layers": 2, "channels": {128: 6, 64: 8, 32: 10, 16: 12},
    "width": 12, "windows": (4, 8, 16, 4, 8),
}  # fmt: skip


def build() -> Generator:
    """The network alone."""
    return Generator(**SIZES)


def drawn(name: str, *shape: int) -> torch.Tensor:
    """Standard normal numbers, the same everywhere."""
    return torch.from_numpy(fill.tensor({"kind": "normal", "mean": 0.0, "std": 1.0}, name, shape, "float32", 4))


def filled() -> Generator:
    """With weights of about the sizes that training gives them."""
    network, state = build(), {}
    for name, value in network.state_dict().items():
        mean, std = 0.0, 0.1 if value.ndim < 2 else 1.0
        if name.endswith("resample_filter") or name.endswith("attn_mask"):
            state[name] = value
            continue
        if name.startswith("mapping.fc"):
            std = 100.0 if value.ndim > 1 else 10.0
        elif ".attn.q.weight" in name or ".attn.k.weight" in name:
            std = 14.0
        elif name.endswith("affine.bias"):
            mean = 1.0
        elif name.endswith("affine.weight"):
            std = 0.3
        elif "toRGB.conv.weight" in name:
            std = 0.25
        state[name] = mean + std * drawn(name, *value.shape)
    network.load_state_dict(state, strict=True)
    return network.eval()
