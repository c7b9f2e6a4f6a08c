"""A BiSeNet that knows four drawn portraits: random features, and a last layer fitted to their part maps.

Good enough for plausible maps of those four, in seconds and without a checkpoint from anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from generators.faces import parser
from mmtt_build import parts
from mmtt_build.portraits import Portrait, draw

SEEDS = (11, 12, 13, 14)
"""Of the portraits that it knows."""


def fit(known: Sequence[Portrait] = (), evenness: float = 0.4) -> dict[str, torch.Tensor]:
    """The state dict: batch norms calibrated, and the last layer by ridge regression.

    Args:
        known: portraits of 512 px to do so on; those in `SEEDS` if there are none.
        evenness: how much small parts count: at 0 every pixel counts the same, at 1 every part.
    """
    torch.manual_seed(0)
    network = parser.build()
    known = known or [draw(seed, 512) for seed in SEEDS]
    pixels = torch.from_numpy(np.stack([face.image for face in known])).permute(0, 3, 1, 2)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # statistics of these images instead of a running mean
    with torch.inference_mode():
        prepared = parser.normalise(pixels.float() / 255)
        network.train()(prepared)
        network.eval()
        eighth, coarse, _ = network.cp(prepared)
        _, features = network.conv_out(network.ffm(eighth, coarse))
    given = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]).double().numpy()
    small = [cv2.resize(face.labels, (64, 64), interpolation=cv2.INTER_NEAREST_EXACT) for face in known]
    order = [parts.BISENET_CLASSES.index(name) for name in parts.CLASSES]
    wanted = np.eye(len(order))[np.array(order)[np.stack(small).ravel()]]
    # Small parts count for more than their pixels, or an eye would be skin.
    weight = (wanted @ np.maximum(wanted.sum(axis=0), 1) ** -evenness)[:, None]
    squares = given.T @ (weight * given)
    ridge = 1e-5 * np.trace(squares) / len(squares) * np.eye(len(squares))
    solved = np.linalg.solve(squares + ridge, given.T @ (weight * wanted))
    state: dict[str, torch.Tensor] = network.state_dict()
    state["conv_out.conv_out.weight"] = torch.from_numpy(solved.T.astype(np.float32).copy())[:, :, None, None]
    return state
