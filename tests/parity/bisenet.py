"""The face parser: every stage of the network, its scores, and its classes in both vocabularies."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from generators.e4s import regions
from generators.faces import parser
from mmtt_build.parts import BISENET_CLASSES

from . import fill
from .cases import Case, CaseError, Check

STAGES = {
    "layer1": "cp.resnet.layer1", "layer2": "cp.resnet.layer2", "layer3": "cp.resnet.layer3",
    "layer4": "cp.resnet.layer4", "conv_avg": "cp.conv_avg", "arm32": "cp.arm32", "conv_head32": "cp.conv_head32",
    "arm16": "cp.arm16", "conv_head16": "cp.conv_head16", "ffm": "ffm", "head_before_resize": "conv_out",
}  # fmt: skip
"""Recorded outputs, and which module makes each."""

TIE = 1e-3
"""A pixel may change its class where the two best scores are nearer than this."""


def run(case: Case) -> list[Check]:
    """Compares all that the case holds.

    Raises:
        CaseError: its input is not one of the two kinds known here.
    """
    network = parser.build()
    weights = {name: torch.from_numpy(array) for name, array in case.weights().items()}
    network.load_state_dict(weights, strict=True)
    network.eval().to(memory_format=torch.channels_last)
    seen: dict[str, Any] = {}
    for what, module in STAGES.items():
        if f"out.{what}" in case.arrays:
            network.get_submodule(module).register_forward_hook(_keep(seen, what))
    with torch.inference_mode():
        prepared = _prepared(case)
        seen["network_input"] = prepared
        scores = seen["logits"] = parser.logits(network, prepared)
        if "out.logits16" in case.arrays or "out.logits32" in case.arrays:  # the heads that the product does not run
            seen |= dict(zip(("logits16", "logits32"), network(prepared)[1:], strict=True))
    ours = {what: value.numpy() for what, value in seen.items()}
    first, second = scores.topk(2, dim=1).values.unbind(dim=1)
    gap = ours["top1_minus_top2"] = (first - second).numpy()
    checks = [case.compare(what, value) for what, value in ours.items() if f"out.{what}" in case.arrays]
    classes = scores.argmax(dim=1).numpy().astype(np.uint8)
    for what, labels in (("labels19", classes), ("labels12", regions.twelve(classes, BISENET_CLASSES))):
        if f"out.{what}" in case.arrays:
            checks.append(_labels(what, labels, case.array(f"out.{what}"), gap))
    return checks


def _keep(seen: dict[str, Any], what: str) -> Any:
    def hook(module: torch.nn.Module, given: Any, made: Any) -> None:
        seen.setdefault(what, made[0] if isinstance(made, tuple) else made)

    return hook


def _prepared(case: Case) -> torch.Tensor:
    """Noise that is drawn, or an image; enlarged if the case says so; an image through E4S's halving if it says so."""
    told, times = case.meta.get("input"), case.repeats()
    if isinstance(told, dict) and "fill" in told:
        rule = told["fill"]
        drawn = fill.tensor(rule["init"], rule["name"], rule["shape"], rule["dtype"], rule["seed"])
        return parser.normalise(torch.from_numpy(drawn.repeat(times, 2).repeat(times, 3)))
    if isinstance(told, str) and "in.image_uint8" in told:
        image = case.array("in.image_uint8").repeat(times, 0).repeat(times, 1)
        prepare = parser.prepare_e4s if "bicubic" in told else parser.normalise
        return prepare(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    raise CaseError(f"an input of an unknown kind: {str(told)[:80]}")


def _labels(what: str, ours: NDArray[np.uint8], theirs: NDArray[np.uint8], gap: NDArray[np.float32]) -> Check:
    """Share of pixels of another class, near-ties aside."""
    if ours.size != theirs.size:
        raise CaseError(f"{what}: ours has the shape {ours.shape}, the reference {theirs.shape}")
    wrong = (ours != theirs.reshape(ours.shape)) & (gap >= TIE)
    return Check(what, float(wrong.mean()), 0.0)
