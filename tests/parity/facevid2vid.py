"""Face-vid2vid: pose, key points, every stage of the generator, and the picture."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from generators.nn import facevid2vid

from . import fill
from .cases import Case, Check
from .stylegan2 import keep

PARTS = ("generator", "kp_detector", "he_estimator")

STAGES = {
    "kp_down": "kp_detector.down",
    "kp_down4": "kp_detector.predictor.down_blocks",
    "kp_feature": "kp_detector.predictor",
    "kp_logits": "kp_detector.kp",
    "gen_first": "generator.first",
    "gen_second": "generator.second",
    "gen_feature3d": "generator.resblocks_3d",
    "dm_compress": "generator.dense_motion_network.compress",
    "dm_hourglass": "generator.dense_motion_network.hourglass",
    "mask": "generator.dense_motion_network.mask",
    "gen_third": "generator.third",
    "gen_fourth": "generator.fourth",
    "dec_fc": "generator.decoder.fc",
    "dec_mid0": "generator.decoder.G_middle_0",
    "dec_mid5": "generator.decoder.G_middle_5",
    "dec_up0": "generator.decoder.up_0",
    "dec_up1": "generator.decoder.up_1",
}
"""Recorded outputs, and where each is made."""

LARGE = {"dec_mid5", "dec_up0", "dec_up1"}
"""Outputs that go up to 19: one thread or two alone moves them by 1e-4, all others by far less."""


def run(case: Case) -> list[Check]:
    """Compares all that the case holds."""
    network = facevid2vid.build().eval()
    weights = {
        f"{part}.{name}": torch.from_numpy(array)
        for part in PARTS
        for name, array in case.weights(f"facevid2vid_{part}.manifest.json").items()
    }
    network.load_state_dict(weights, strict=True, assign=True)
    seen: dict[str, list[Any]] = defaultdict(list)
    for what, place in STAGES.items():
        network.get_submodule(place).register_forward_hook(keep(seen, what))
    motion = network.generator.dense_motion_network
    motion.register_forward_hook(keep(seen, "motion"))
    motion.hourglass.register_forward_pre_hook(lambda _, given: seen["dm_hourglass_in"].extend(given))
    source, driving = (_image(case, f"in.{whose}_uint8") for whose in ("source", "driving"))
    with torch.inference_mode():
        points = network.kp_detector(source)
        heads = {"source": network.he_estimator(source), "driving": network.he_estimator(driving)}
        placed = {whose: head.placed(points) for whose, head in heads.items()}
        if "explicit" in case.meta["note"]:
            given = {whose: _drawn(f"input.kp_{whose}") for whose in placed}
            made = {"prediction": network.generator(source, given["driving"], given["source"])}
        else:
            made = {"prediction": network(source, driving)}
        places, occlusion = seen.pop("motion")[0]
        made |= {what: parts[0] for what, parts in seen.items()}
        made["mask"] = made["mask"].softmax(1)
        made |= {"dm_deformation": places.permute(0, 4, 1, 2, 3), "occlusion_map": occlusion, "kp_canonical": points}
        for whose, head in heads.items():
            made |= {f"he_{whose}_{what}": getattr(head, what) for what in ("yaw", "pitch", "roll")}
            made |= {f"he_{whose}_t": head.shift, f"he_{whose}_exp": head.expression.flatten(1)}
            angles = zip(("yaw", "pitch", "roll"), head.angles().unbind(1), strict=True)
            made |= {f"deg_{whose}_{what}": angle for what, angle in angles} | {f"kp_{whose}": placed[whose]}
    return [case.compare(what, value.numpy(), 3e-4 if what in LARGE else 1e-4) for what, value in made.items()]


def _image(case: Case, name: str) -> torch.Tensor:
    pixels: NDArray[np.float32] = case.array(name).astype(np.float32) / 255
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())


def _drawn(name: str) -> torch.Tensor:
    """Key points that lie farther apart than estimated ones, by the rule that the case's note gives."""
    rule = {"kind": "uniform", "low": -0.7, "high": 0.7}
    return torch.from_numpy(fill.tensor(rule, name, (1, 15, 3), "float32", 100))
