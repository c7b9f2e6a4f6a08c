"""MAT: both stages, every attention and mask that a case records, at any size."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generators.mat import net

from . import fill
from .cases import Case, CaseError, Check

TOLERANCE = 1e-4


def run(case: Case) -> list[Check]:
    """Compares all that the case holds, and that crops around the holes make the same picture as whole images."""
    weights = {name: torch.from_numpy(array) for name, array in case.weights().items()}
    generator = net.generator_of(weights).eval()
    generator.load_state_dict(weights, strict=True, assign=True)
    seen: dict[str, list[Tensor]] = defaultdict(list)
    for name, module in generator.named_modules():
        module.register_forward_hook(keep(seen, told(name)))
    generator.synthesis.dec.get_submodule(generator.synthesis.dec.deepest).register_forward_pre_hook(
        lambda _, given: seen["dec.input"].append(given[0])
    )
    image = torch.from_numpy(picture(case))
    kept = {name: torch.from_numpy(bits(case, name, case.meta["tensors"][name])) for name in ("keep1", "keep2")}
    given = {
        "keep_mask": torch.from_numpy(bits(case, "mask", case.array("mask_shape"))).float(),
        "z": torch.from_numpy(drawn(case.meta["z"])),
        "noise": case.meta["noise_mode"],
        "psi": case.meta["truncation_psi"],
        "cutoff": case.meta["truncation_cutoff"],
    }
    with torch.inference_mode():
        output = generator(image, **given, **kept, whole=True)
        whole = {name: torch.cat(parts) for name, parts in seen.items()}  # large layers take one sample at a time
        whole["output"], whole["dec"] = output, whole[f"dec.Dec_{generator.resolution}x{generator.resolution}#img"]
        whole["mapping"] = torch.stack(generator.styles(given["z"], given["psi"], given["cutoff"]), 1)
        cropped = generator(image, **given, **kept)
    recorded = {name.removeprefix("act/") for name in case.arrays if name.startswith("act/")}
    checks = [compare(case, name, whole[name]) for name in sorted(recorded & whole.keys())]
    if missing := sorted(recorded - whole.keys()):
        raise CaseError(f"records what is not known here: {', '.join(missing)}")
    checks.append(Check("cropped", float((cropped - output).abs().max()), TOLERANCE))
    outside = given["keep_mask"].bool().expand_as(image)
    return [*checks, Check("known pixels", float((cropped != image)[outside].float().mean()), 0.0)]


def told(name: str) -> str:
    """What a case calls the output of a module."""
    name = name.removeprefix("synthesis.")
    level = re.fullmatch(r"enc\.EncConv_Block_(\d+)x\d+", name)
    if level:
        return f"enc[{int(level[1]).bit_length() - 1}]"
    return f"{name}(windows)" if name.endswith(".attn") else name


def keep(seen: dict[str, list[Tensor]], what: str) -> Any:
    """A hook that notes what a module makes, and the mask or image beside it, in the layout of the cases."""

    def hook(module: torch.nn.Module, given: Any, made: Any) -> None:
        first, second = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        beside = "mask" if isinstance(module, net.coarse.Block | net.coarse.Attention) else "img"
        if isinstance(module, net.coarse.PartialConv | net.coarse.Part):
            beside = "mask"
        for name, value in ((what, first), (f"{what}#{beside}", second)):
            if isinstance(value, Tensor):
                seen[name].append(tokens(module, value).clone())  # the network changes some in place

    return hook


def tokens(module: torch.nn.Module, value: Tensor) -> Tensor:
    """(B, tokens, C) where the reference has it so."""
    if isinstance(module, net.coarse.Block):
        return value.flatten(1, 2)
    return value.flatten(2).transpose(1, 2) if isinstance(module, net.coarse.Part) else value


def compare(case: Case, name: str, ours: Tensor) -> Check:
    """Largest absolute difference to the stored values and to mean, minimum and maximum of the whole."""
    about, theirs, array = case.meta["tensors"][name], case.array(f"act/{name}"), ours.numpy()
    if list(array.shape) != about["shape"]:
        raise CaseError(f"{name}: ours has the shape {array.shape}, the reference {about['shape']}")
    some = array[tuple(slice(None, None, step) for step in about["stride"])]
    mean, _, low, high = about["mean_std_min_max"]
    errors = [np.abs(some.astype(np.float64) - theirs).max(), abs(array.mean(dtype=np.float64) - mean)]
    return Check(name, float(max(*errors, abs(array.min() - low), abs(array.max() - high))), TOLERANCE)


def drawn(rule: dict[str, Any]) -> NDArray[np.float32]:
    return fill.tensor(rule["init"], rule["fill"], rule["shape"], rule["dtype"], rule["seed"])


def picture(case: Case) -> NDArray[np.float32]:
    """(B, 3, H, W) in [-1, 1]: drawn, or a file that the case names from beside its folder on.

    Raises:
        CaseError: it is not there.
    """
    rule = case.meta["image"]
    if isinstance(rule, dict):
        return drawn(rule)
    named = re.match(r"shared/(\S+\.png)", rule)
    found = next((p for f in case.folders if named and (p := f.parent / named[1]).is_file()), None)
    if found is None:
        raise CaseError(f"no image {rule}")
    image = cv2.cvtColor(cv2.imread(str(found)), cv2.COLOR_BGR2RGB).astype(np.float32)
    return image.transpose(2, 0, 1)[None] / np.float32(127.5) - 1


def bits(case: Case, name: str, shape: Any) -> NDArray[np.bool_]:
    size = [int(side) for side in shape]
    return np.unpackbits(case.array(f"{name}_bits"))[: np.prod(size)].reshape(size).astype(bool)
