"""The e4e encoder: its stages, the feature pyramid, every style block, and W+."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray

from generators.nn import irse

from .cases import Case, Check
from .stylegan2 import keep

PYRAMID = {3: "p2 (input of styles.3)", 7: "p1 (input of styles.7)"}


def run(case: Case) -> list[Check]:
    """Compares all that the case holds."""
    weights = {name: torch.from_numpy(array) for name, array in case.weights().items()}
    encoder = irse.encoder_of(weights)
    encoder.load_state_dict(weights, strict=True, assign=True)
    encoder.eval()
    seen: dict[str, list[torch.Tensor]] = defaultdict(list)
    for name, module in encoder.named_modules():
        if name in case.arrays:
            module.register_forward_hook(keep(seen, name))
    for index, style in enumerate(encoder.styles):
        style.register_forward_hook(keep(seen, f"styles.{index}"))
        if (what := PYRAMID.get(index)) in case.arrays:
            style.register_forward_pre_hook(lambda _, given, what=what: seen[what].extend(given))
    with torch.inference_mode():
        w = encoder(torch.from_numpy(image(case)))
    made = {what: torch.cat(parts) for what, parts in seen.items() if what in case.arrays}
    styles = [torch.cat(seen[f"styles.{index}"]) for index in range(len(encoder.styles))]
    made |= {"style_outputs": torch.stack(styles, dim=1), "w_offsets": w}
    return [case.compare_stored(what, value.numpy()) for what, value in made.items()]


def image(case: Case) -> NDArray[np.float32]:
    """The input of a case, a photo or noise that is drawn: (B, 3, H, W) in [-1, 1]."""
    if "image_uint8" not in case.arrays:
        return case.filled("input")
    photo = case.array("image_uint8").astype(np.float32) / 255
    return np.ascontiguousarray(((photo - 0.5) / 0.5).transpose(2, 0, 1)[None])
