"""GPEN and Real-ESRNet: every stage and the picture; and how the enhancement pastes what they make."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from generators.faces import enhancer
from generators.faces.enhancer import CROP, LARGE, Face, Restored
from generators.nn import gpen, rrdb

from .cases import Case, Check

GPEN_STAGES = {"w": "final_linear", "style": "generator.style", "g_conv1": "generator.conv1"}
GPEN_STAGES |= {"g_to_rgb1": "generator.to_rgb1"}


def run(case: Case) -> list[Check]:
    """Compares all that the case holds."""
    if case.network == "gpen_post":
        return _post(case)
    weights = {name: torch.from_numpy(array) for name, array in case.weights().items()}
    network = rrdb.build() if case.network == "realesrnet" else gpen.gpen_of(weights)
    network.load_state_dict(weights, strict=True)
    network.eval()
    seen: dict[str, NDArray[Any]] = {}
    for name in case.arrays:
        kind, _, what = name.partition(".")
        if kind == "out" and what != "image":
            network.get_submodule(_module(what)).register_forward_hook(_keep(seen, what))
    with torch.inference_mode():
        seen["image"] = network(torch.from_numpy(_input(case))).numpy()
    return [case.compare(what, ours) for what, ours in seen.items()]


def _module(what: str) -> str:
    """Where a recorded output is made: "g_convs12" in generator.convs.12."""
    if what in GPEN_STAGES:
        return GPEN_STAGES[what]
    for start, place in (("g_convs", "generator.convs."), ("g_to_rgbs", "generator.to_rgbs."), ("body", "body.")):
        if what.startswith(start):
            return place + what.removeprefix(start)
    return what


def _keep(seen: dict[str, NDArray[Any]], what: str) -> Any:
    def hook(module: torch.nn.Module, given: Any, made: torch.Tensor) -> None:
        seen[what] = made.numpy().copy()  # the next layer may work in place

    return hook


def _input(case: Case) -> NDArray[np.float32]:
    """A photo, enlarged by repeating pixels, or noise that is drawn: (B, 3, H, W)."""
    if "in.image_uint8" not in case.arrays:
        return case.filled("input")
    times = case.repeats()
    photo = case.array("in.image_uint8").repeat(times, axis=0).repeat(times, axis=1)
    return np.ascontiguousarray((photo.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None])


def _post(case: Case) -> list[Check]:
    """The steps around the networks, whose answers the case holds; in BGR, which they do not tell from RGB.

    The recorded matrix was computed in float32.
    """
    faces = [
        Face(box[:4].astype(np.float32), points.T.astype(np.float32))
        for box, points in zip(case.array("in.boxes"), case.array("in.landmarks"), strict=True)
        if box[4] > enhancer.SURE
    ]
    photo = cv2.resize(case.array("in.image_bgr"), (LARGE, LARGE), interpolation=cv2.INTER_LINEAR)
    sharp, crop = _enlarged(case.array("in.sr_bgr"), LARGE), _enlarged(case.array("in.enhanced_bgr"), CROP)
    head = _enlarged(case.array("in.parse_mask"), CROP) > 0
    pasted = enhancer.paste(sharp, [Restored(face, crop, head) for face in faces])
    return [
        case.compare("crop_stride4", enhancer.cut_out(photo, faces[0])[::4, ::4].astype(np.float64), 1.0),
        case.compare("inverse", cv2.invertAffineTransform(enhancer.alignment(faces[0])), 1e-3),
        case.compare("mask_post_stride8", enhancer.feather(head)[::8, ::8]),
        case.compare("result_stride4", pasted[::4, ::4].astype(np.float64), 1.0),
        case.compare("n_faces_enhanced", np.array(len(faces)), 0.0),
    ]


def _enlarged(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """By repeating pixels."""
    times = side // len(picture)
    return picture.repeat(times, axis=0).repeat(times, axis=1)
