"""Net3 of E4S: style vectors, codes, the encoder's and the generator's stages, the picture."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generators.e4s import regions
from generators.nn import net3

from . import fill
from .cases import Case, Check
from .stylegan2 import keep

CROP = slice(480, 544)

Face = tuple[Tensor, NDArray[np.uint8]]
"""(1, 3, H, W) in [-1, 1] and its labels (512, 512)."""


def run(case: Case) -> list[Check]:
    """Compares all that the case holds."""
    network = network_of(case)
    seen: dict[str, list[Tensor]] = defaultdict(list)
    for name in case.arrays:
        kind, _, what = name.partition(".")
        if kind == "out" and what.startswith(("enc_", "g_")):
            network.get_submodule(_module(what)).register_forward_hook(keep(seen, what))
    with torch.inference_mode():
        if "in.image_uint8" in case.arrays or "input_image" in case.meta:
            made = _inversion(case, network)
        else:
            made = swap(network, *faces(case, ("driven_mask", "target_mask")))
    made |= {what: torch.cat(parts) for what, parts in seen.items()}
    if "g_convs2" in made:
        made["structure_feats"] = made["g_convs2"]
    if "out.image_crop" in case.arrays:
        made["image_crop"] = made["image"][..., CROP, CROP]
    return [case.compare(what, value.numpy()) for what, value in made.items() if f"out.{what}" in case.arrays]


def network_of(case: Case) -> net3.Net3:
    """The network that a case was made with."""
    weights = {name: torch.from_numpy(array) for name, array in case.weights().items()}
    network = net3.net3_of(weights)
    # The average latent lies beside the network in the official file, so that the manifest tells it apart.
    rule = {"kind": "normal", "mean": 0.0, "std": 0.7}
    drawn = fill.tensor(rule, "latent_avg", network.latent_avg.shape, "float32", 0)
    network.load_state_dict({**weights, "latent_avg": torch.from_numpy(drawn)}, strict=True, assign=True)
    return network.eval()


def photo(pixels: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) or (B, H, W, 3) uint8 RGB -> (B, 3, H, W) in [-1, 1]."""
    batch = torch.from_numpy(pixels.reshape(-1, *pixels.shape[-3:]))
    return batch.permute(0, 3, 1, 2).float() / 127.5 - 1


def _module(what: str) -> str:
    """Where a recorded output is made: "g_to_rgbs3" in G.to_rgbs.3."""
    part, _, name = what.partition("_")
    for listed in ("body", "convs", "to_rgbs"):
        if name.startswith(listed):
            name = f"{listed}.{name.removeprefix(listed)}"
    return f"{'encoder' if part == 'enc' else 'G'}.{name}"


def _inversion(case: Case, network: net3.Net3) -> dict[str, Tensor]:
    """An image, or noise that is drawn, painted again with its own labels."""
    labels = torch.from_numpy(case.array("in.mask")).reshape(-1, 512, 512)
    drawn = "in.image_uint8" not in case.arrays
    image = torch.from_numpy(case.filled("input_image")) if drawn else photo(case.array("in.image_uint8"))
    vectors = network.style_vectors(image, labels)
    codes = network.style_codes(vectors)
    return {"style_vectors": vectors, "style_codes": codes, "image": network.generate(codes, labels)}


def faces(case: Case, masks: tuple[str, str], times: int = 1) -> tuple[Face, Face]:
    """The two faces of a swap, driven and target, and their labels.

    Args:
        case: holds them.
        masks: names of the labels.
        times: how often pixels are repeated along both axes.
    """
    driven, target = (
        (photo(case.array(f"in.{who}_uint8").repeat(times, 0).repeat(times, 1)), case.array(f"in.{mask}"))
        for who, mask in zip(("driven", "target"), masks, strict=True)
    )
    return driven, target


def swap(network: net3.Net3, driven: Face, target: Face) -> dict[str, Tensor]:
    """Regions of the target painted with the style and the inner shape of the driven face; all that a case records."""
    theirs, own = (network.style_vectors(image, torch.from_numpy(labels)[None]) for image, labels in (driven, target))
    vectors = regions.swap_styles(theirs, own)
    codes = network.style_codes(vectors)
    labels, hole = (torch.from_numpy(made) for made in regions.swap_masks(driven[1], target[1]))
    return {
        "driven_style_vectors": theirs, "target_style_vectors": own, "swapped_style_vectors": vectors,
        "swapped_style_codes": codes, "image": network.generate(codes, labels[None]),
        "swapped_mask": labels, "hole_map": hole.to(torch.uint8) * 255,
    }  # fmt: skip
