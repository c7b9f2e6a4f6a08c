"""StyleCLIP: the latent mappers, and global directions from the table to the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from generators.nn import stylegan2
from generators.styleclip import directions, net

from . import fill
from .cases import Case, CaseError, Check


def run(case: Case) -> list[Check]:
    """Compares all that the case holds."""
    return _directions(case) if case.network.startswith("styleclip_global") else _mapper(case)


def _mapper(case: Case) -> list[Check]:
    weights = {name: torch.from_numpy(value) for name, value in case.weights().items()}
    mapper = net.mapper_of(weights)
    mapper.load_state_dict(weights, strict=True)
    w = torch.from_numpy(case.array("w_plus"))
    seen: dict[str, Any] = {}
    for name, module in mapper.named_modules():
        if name in case.arrays:
            module.register_forward_hook(lambda _, __, made, name=name: seen.update({name: made}))
    with torch.inference_mode():
        seen |= {"delta": mapper(w), "w_hat": net.edit(mapper, w)}
        if "delta_no_fine" in case.arrays:
            without = net.LevelsMapper(levels=("course_mapping", "medium_mapping"))
            kept = without.state_dict()
            without.load_state_dict({name: weights[name] for name in kept}, strict=True)
            seen["delta_no_fine"] = without(w)
    return [case.compare_stored(name, value.numpy()) for name, value in seen.items()]


def _drawn(rule: dict[str, Any]) -> NDArray[np.float32]:
    """A tensor that a case describes, its last axis scaled to length 1."""
    told = rule["fill"]
    values = fill.tensor(told["init"], told["name"], told["shape"], told.get("dtype", "float32"), told["seed"])
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True), np.float32)


def _directions(case: Case) -> list[Check]:
    relevant = directions.relevance(_drawn(case.meta["fs3"]), _drawn(case.meta["dt_rule"]))
    checks = [case.compare_stored("relevance", relevant, 1e-5)]
    generator = _generator(case)
    w = torch.from_numpy(case.array("w_plus"))
    sizes = [layer.weight.shape[0] for _, layer in generator.modulations()]
    deviations = np.split(_deviations(case), np.cumsum(sizes)[:-1])
    edited: list[torch.Tensor] = []
    with torch.inference_mode():
        styles = generator.styles(w)
    for beta in case.meta["betas"]:
        try:
            moved, kept = directions.boundary(relevant, beta, deviations)
        except directions.NoChannelError:
            kept = 0
        else:
            if f"offsets_beta{beta}" in case.arrays:
                checks.append(case.compare_stored(f"offsets_beta{beta}", np.concatenate(moved), 1e-5))
            if beta == case.meta["render_beta"]:
                alpha = case.meta["alpha"]
                edited = [s + alpha * torch.from_numpy(step) for s, step in zip(styles, moved, strict=True)]
        if (wanted := case.meta.get(f"num_channels_beta{beta}")) is not None:
            checks.append(Check(f"channels at {beta}", abs(kept - wanted), 0))
    with torch.inference_mode():
        image = generator.synthesize(edited)
        made = {
            "S": torch.cat(styles, dim=1), "S_edit": torch.cat(edited, dim=1),
            "image_original": generator.synthesize(styles), "image": image, "image_crop": image,
        }  # fmt: skip
    near = {"S": 1e-4, "S_edit": 1e-4}
    return checks + [case.compare_stored(what, value.numpy(), near.get(what, 1e-3)) for what, value in made.items()]


def _generator(case: Case) -> stylegan2.Generator:
    told = case.meta["generator"]
    weights = {name: torch.from_numpy(value) for name, value in case.weights(told["manifest"], told["seed"]).items()}
    generator = stylegan2.generator_of(weights).eval()
    generator.load_state_dict(weights, strict=True, assign=True)
    return generator


def _deviations(case: Case) -> NDArray[np.float32]:
    for folder in case.folders:
        if (path := folder / case.meta["s_std"]).is_file():
            with np.load(path) as file:
                return np.asarray(file["std"], np.float32)
    raise CaseError(f"no {case.meta['s_std']} beside it")
