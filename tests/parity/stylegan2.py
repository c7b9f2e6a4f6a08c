"""StyleGAN2: from z over W+ and S to the picture, every layer on the way, and back in through S."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from generators.nn import stylegan2

from .cases import Case, Check


def run(case: Case) -> list[Check]:
    """Compares all that the case holds."""
    weights = {name: torch.from_numpy(array) for name, array in case.weights().items()}
    generator = stylegan2.generator_of(weights).eval()
    generator.load_state_dict(weights, strict=True, assign=True)
    seen: dict[str, list[torch.Tensor]] = defaultdict(list)
    for name, module in generator.named_modules():
        what = name
        if isinstance(module, stylegan2.ToRGB):
            block = -1 if name == "to_rgb1" else int(name.rpartition(".")[2])
            what = f"skip_{8 << block if block >= 0 else 4}"
        if what in case.arrays:
            module.register_forward_hook(keep(seen, what))
    given: list[torch.Tensor] = []
    up = generator.convs[0]
    up.register_forward_pre_hook(lambda _, arguments: given.extend(arguments))
    with torch.inference_mode():
        made: dict[str, torch.Tensor] = {}
        if "z" in case.arrays:
            made["w"] = generator.map(torch.from_numpy(case.array("z")))
            latent = stylegan2.truncate(made["w"], torch.from_numpy(case.array("latent_avg")), 0.7)
            made["w_plus"] = latent[:, None].expand(-1, generator.n_latent, -1)
        else:
            latent = torch.from_numpy(case.array("w_plus"))
        styles = generator.styles(latent)
        image = generator.synthesize(styles)
        made |= {"S": torch.cat(styles, dim=1), "image": image, "image_crop": image, "image_corner": image}
        x, style, noise = given
        made["convs.0.conv"] = up.conv(x, style)
        made["convs.0.noise"] = made["convs.0.conv"] + up.noise["weight"] * noise
        made |= {what: torch.cat(parts) for what, parts in seen.items()}
    return [case.compare_stored(what, value.numpy()) for what, value in made.items() if what in case.arrays]


def keep(seen: dict[str, list[torch.Tensor]], what: str) -> Any:
    """A hook that appends what a module makes: a part of the batch at a time, where it is run so."""

    def hook(module: nn.Module, given: Any, made: torch.Tensor) -> None:
        seen[what].append(made)

    return hook
