"""GPEN and Real-ESRNet: every stage and the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from generators.nn import gpen, rrdb

from .cases import Case, Check

GPEN_STAGES = {"w": "final_linear", "style": "generator.style", "g_conv1": "generator.conv1"}
GPEN_STAGES |= {"g_to_rgb1": "generator.to_rgb1"}


def run(case: Case) -> list[Check]:
    """Compares all that the case holds."""
    weights = {name: torch.from_numpy(array) for name, array in case.weights().items()}
    network = rrdb.build() if case.network == "realesrnet" else gpen.gpen_of(weights)
    network.load_state_dict(weights, strict=True)
    network.eval()
    seen: dict[str, NDArray[Any]] = {}
    for name in case.arrays:
        kind, _, what = name.partition(".")
        if kind == "out" and what != "image":
            network.get_submodule(_module(what)).register_forward_hook(_keep(seen, what))
    with torch.inference_mode():
        seen["image"] = network(torch.from_numpy(_input(case))).numpy()
    return [case.compare(what, ours) for what, ours in seen.items()]


def _module(what: str) -> str:
    """Where a recorded output is made: "g_convs12" in generator.convs.12."""
    if what in GPEN_STAGES:
        return GPEN_STAGES[what]
    for start, place in (("g_convs", "generator.convs."), ("g_to_rgbs", "generator.to_rgbs."), ("body", "body.")):
        if what.startswith(start):
            return place + what.removeprefix(start)
    return what


def _keep(seen: dict[str, NDArray[Any]], what: str) -> Any:
    def hook(module: torch.nn.Module, given: Any, made: torch.Tensor) -> None:
        seen[what] = made.numpy().copy()  # the next layer may work in place

    return hook


def _input(case: Case) -> NDArray[np.float32]:
    """A photo, enlarged by repeating pixels, or noise that is drawn: (B, 3, H, W)."""
    if "in.image_uint8" not in case.arrays:
        return case.filled("input")
    times = case.repeats()
    photo = case.array("in.image_uint8").repeat(times, axis=0).repeat(times, axis=1)
    return np.ascontiguousarray((photo.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None])
