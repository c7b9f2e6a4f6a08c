"""E4S from two faces and their labels to the composite: network, both swaps, both blendings."""

from __future__ import annotations

import numpy as np
import torch

from generators.e4s import composite

from .cases import Case, Check
from .e4s_net3 import faces, network_of, swap

LEVEL = 1.0
"""What pictures may differ by: rounding moves a value over the end of a level, where the original cuts off."""


def run(case: Case) -> list[Check]:
    """Compares all that the case holds."""
    with torch.inference_mode():
        made = swap(network_of(case), *faces(case, ("driven_mask12", "target_mask12"), times=4))
        face = ((made["image"][0].permute(1, 2, 0) + 1) / 2).clamp(0, 1) * 255
    labels, generated = made["swapped_mask"].numpy(), face.numpy().astype(np.uint8)
    weight = composite.alpha(labels)
    base = case.array("in.target_uint8").repeat(4, 0).repeat(4, 1)
    blended = {
        "swapped_face": generated,
        "composite": composite.blend_alpha(generated, base, weight),
        "lapblend": composite.blend_multiband(generated, base, labels),
    }
    checks = [case.compare(what, value.numpy()) for what, value in made.items() if f"out.{what}" in case.arrays]
    checks.append(case.compare("alpha_stride2", weight[::2, ::2], LEVEL))
    return checks + [case.compare(f"{what}_stride4", picture[::4, ::4], LEVEL) for what, picture in blended.items()]
