"""HFGI: its two networks, and the whole way from a photo to its edit."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F

from generators.hfgi import net
from generators.nn import irse, stylegan2

from .cases import Case, CaseError, Check
from .e4e import image
from .stylegan2 import keep


def run(case: Case) -> list[Check]:
    """Compares all that the case holds."""
    return _whole(case) if case.network == "hfgi" else _module(case)


def _module(case: Case) -> list[Check]:
    weights = {name: torch.from_numpy(array) for name, array in case.weights().items()}
    network = net.ResidualEncoder() if case.network.startswith("hfgi_residue") else net.ResidualAligner()
    network.load_state_dict(weights, strict=True)
    network.eval()
    seen: dict[str, list[torch.Tensor]] = defaultdict(list)
    for name, module in network.named_modules():
        if name in case.arrays:
            module.register_forward_hook(keep(seen, name))
    given = torch.from_numpy(case.filled("input"))
    with torch.inference_mode():
        if isinstance(network, net.ResidualEncoder):
            made = dict(zip(("scale", "shift"), network(given), strict=True))
        else:
            made = dict.fromkeys(("res_aligned", "res_aligned_corner"), network(given[:, :3], given[:, 3:]))
    made |= {what: torch.cat(parts) for what, parts in seen.items()}
    return [case.compare_stored(what, value.numpy()) for what, value in made.items()]


def _network(case: Case) -> net.Hfgi:
    """All networks, with the weights that the case names and its average latent."""
    weights = {}
    for part in case.meta["weights"]:
        drawn = case.weights(part["manifest"], part["seed"])
        weights |= {f"{part['prefix']}{name}": torch.from_numpy(array) for name, array in drawn.items()}

    def of(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}

    network = net.Hfgi(irse.encoder_of(of("encoder.")), stylegan2.generator_of(of("decoder.")))
    weights["latent_avg"] = torch.from_numpy(case.filled("latent_avg"))
    network.load_state_dict(weights, strict=True, assign=True)
    return network.eval()


def _directions(case: Case) -> net.Directions:
    directions = net.Directions()
    for folder in case.folders:
        if (path := folder / "hfgi_directions.npz").is_file():
            with np.load(path) as file:
                named = {n.removeprefix("interfacegan_").removeprefix("ganspace_"): file[n] for n in file.files}
            state = {name: torch.from_numpy(named[name]) for name in directions.state_dict()}
            directions.load_state_dict(state, strict=True)
            return directions
    raise CaseError("no hfgi_directions.npz beside it")


def _whole(case: Case) -> list[Check]:
    network, directions = _network(case), _directions(case)
    meta = case.meta

    def edit(w: torch.Tensor) -> torch.Tensor:
        if "ganspace" in meta:
            return directions.towards(w, *meta["ganspace"])
        return directions.along(w, meta["edit"], meta["edit_degree"])

    seen: dict[str, list[torch.Tensor]] = defaultdict(list)
    network.grid_align.register_forward_pre_hook(lambda _, given: seen["edited_256"].append(given[1]))
    for index, what in ((6, "convs.6 (before fusion)"), (7, "convs.7 (after fusion)")):
        network.decoder.convs[index].register_forward_hook(keep(seen, what))
    with torch.inference_mode():
        done = network(torch.from_numpy(image(case)), None if meta["edit"] == "inversion" else edit)
        small = F.interpolate(done.image, (256, 256), mode="bilinear", align_corners=False)
        grey = ((small[0] + 1) / 2).clamp(0, 1) * 255  # cut off after the decimal point, as the original does
        made = {
            "w_plus": done.w, "w_edit": done.w_edit, "initial_1024": done.initial,
            "initial_256": net.low(done.initial), "residual": done.residual, "res_aligned": done.aligned,
            "scale": done.scale, "shift": done.shift, "final_1024": done.image, "final_1024_crop": done.image,
        }  # fmt: skip
        made |= {what: parts[-1] for what, parts in seen.items()}
    checks = [case.compare_stored(what, value.numpy(), 1e-3) for what, value in made.items() if what in case.arrays]
    return [*checks, case.compare_stored("final_256_uint8", grey.permute(1, 2, 0).to(torch.uint8).numpy(), 1)]
