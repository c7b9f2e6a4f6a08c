"""The thin checkpoints of E4S's reenactment, wired so that a face passes through it and comes out as it was.

A few channels carry the colours, everything that would change them weighs nothing. What else the networks compute is
the noise of `thin_files`, which nothing listens to. The donor keeps its pose and loses detail: face-vid2vid paints from
features of 64 x 64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import thin_files
import torch
import torch.nn.functional as F
from torch import Tensor

from mmtt_build import parts
from mmtt_build.masks import Image

COLOURS = range(3)


def _wired(like: Tensor, into: Sequence[int], out_of: Sequence[int], gain: float = 1.0, blur: bool = False) -> Tensor:
    """A convolution's weight that brings channels to others, and nothing else.

    Args:
        like: (O, I, ...), for the shape.
        into: channels of the output.
        out_of: channels of the input, one for each.
        gain: what they are multiplied by.
        blur: take the mean of the kernel's pixels instead of its middle.
    """
    weight = torch.zeros(like.shape)
    kernel = like.shape[2:]
    for o, i in zip(into, out_of, strict=True):
        if blur:
            weight[o, i] = gain / math.prod(kernel)
        else:
            weight[(o, i, *(side // 2 for side in kernel))] = gain
    return weight


def _silent(like: Tensor) -> Tensor:
    """Zeros, of which a file holds one."""
    return torch.zeros(1).expand(like.shape)


def facevid2vid(path: Path) -> Path:
    """A painter that finds no motion and paints the colours of what it was given."""
    file = torch.load(thin_files.facevid2vid(path), weights_only=True)
    painter = file["generator"]

    def wire(name: str, into: Sequence[int], out_of: Sequence[int] = COLOURS, blur: bool = False) -> None:
        painter[f"{name}.weight"] = _wired(painter[f"{name}.weight"], into, out_of, blur=blur)
        painter[f"{name}.bias"] = torch.zeros_like(painter[f"{name}.bias"])

    for name in ("first.conv", "down_blocks.0.conv", "down_blocks.1.conv", "fourth"):
        wire(name, COLOURS)
    depth = painter["second.weight"].shape[0] // 32
    wire("second", range(3 * depth), [channel // depth for channel in range(3 * depth)])
    wire("third.conv", COLOURS, [channel * depth + depth // 2 for channel in COLOURS])
    for name in painter:
        if name.startswith("resblocks_3d.") and ".conv2." in name:
            painter[name] = _silent(painter[name])
    motion = "dense_motion_network"
    for name in ("mask", "occlusion"):
        painter[f"{motion}.{name}.weight"] = _silent(painter[f"{motion}.{name}.weight"])
    painter[f"{motion}.mask.bias"] = torch.tensor([50.0, *[0.0] * 15])  # the motion that is none
    painter[f"{motion}.occlusion.bias"] = torch.tensor([50.0])  # all of it is seen
    _paint(painter)
    torch.save(file, path)
    return path


def _paint(painter: dict[str, Tensor]) -> None:
    """The last block says what the map says, and not what the blocks before it made.

    Its shortcut multiplies those by 0 and adds the map, bent by 16 ReLUs a colour to the logit of itself, so that the
    sigmoid at the end gives the map again.
    """
    levels = np.linspace(0, 1, 17)
    ends = np.clip(levels, 0.01, 0.99)
    logits = np.log(ends / (1 - ends))
    bends = np.diff(np.diff(logits) / np.diff(levels), prepend=0.0)
    block, norm = "decoder.up_1", "decoder.up_1.norm_s"
    seen, said = painter[f"{norm}.mlp_shared.0.weight"], painter[f"{norm}.mlp_beta.weight"]
    painter[f"{norm}.mlp_shared.0.weight"] = _wired(seen, range(48), [unit % 3 for unit in range(48)], blur=True)
    painter[f"{norm}.mlp_shared.0.bias"] = torch.zeros(len(seen))
    painter[f"{norm}.mlp_shared.0.bias"][:48] = -torch.tensor(levels[:-1], dtype=torch.float32).repeat_interleave(3)
    painter[f"{norm}.mlp_beta.weight"] = sum(
        (_wired(said, COLOURS, range(3 * i, 3 * i + 3), float(bend), blur=True) for i, bend in enumerate(bends)),
        torch.zeros(said.shape),
    )
    painter[f"{norm}.mlp_beta.bias"] = torch.zeros(len(said))
    painter[f"{norm}.mlp_gamma.weight"] = _silent(painter[f"{norm}.mlp_gamma.weight"])
    painter[f"{norm}.mlp_gamma.bias"] = torch.full((len(said),), -1.0)
    for name in ("conv_0", "conv_1", "conv_s"):
        weight, start = painter[f"{block}.{name}.weight_orig"], f"{block}.{name}.weight"
        # Divided by u W v: 1 for the shortcut, so much for the others that nothing is left.
        passes = name == "conv_s"
        painter[f"{start}_orig"] = _wired(weight, COLOURS, COLOURS) if passes else torch.ones(1).expand(weight.shape)
        painter[f"{start}_u"], painter[f"{start}_v"] = torch.zeros(len(weight)), torch.zeros(weight[0].numel())
        painter[f"{start}_u"][0], painter[f"{start}_v"][0] = 1.0, 1.0 if passes else 1e10
    painter["decoder.conv_img.weight"] = _wired(painter["decoder.conv_img.weight"], COLOURS, COLOURS, blur=True)
    painter["decoder.conv_img.bias"] = torch.full((3,), float(logits[0]))  # what it adds up has been positive


def realesrnet(path: Path) -> Path:
    """Every pixel 4 x 4 times, smoothed."""
    file = torch.load(thin_files.realesrnet(path), weights_only=True)
    tensors = file["params_ema"]
    for name in ("conv_first", "conv_up1", "conv_up2", "conv_hr", "conv_last"):
        weight = tensors[f"{name}.weight"]
        tensors[f"{name}.weight"] = _wired(weight, COLOURS, COLOURS, blur=name in ("conv_up1", "conv_up2", "conv_hr"))
        tensors[f"{name}.bias"] = torch.zeros_like(tensors[f"{name}.bias"])
    tensors["conv_body.weight"] = _silent(tensors["conv_body.weight"])
    tensors["conv_body.bias"] = torch.zeros_like(tensors["conv_body.bias"])
    torch.save(file, path)
    return path


def gpen(path: Path) -> Path:
    """The encoder's features of full size are the picture; the last colours are read off them, and there are no others.

    With 1 added, which the last bias takes away, they are positive, and its leaky ReLUs scale them by sqrt(2) each.
    """
    tensors = torch.load(thin_files.gpen(path), weights_only=True)
    encoder, level, (last, width) = "ecd0.0", 6, (13, 64)
    tensors[f"{encoder}.0.weight"] = _wired(tensors[f"{encoder}.0.weight"], COLOURS, COLOURS, math.sqrt(3))
    tensors[f"{encoder}.1.bias"] = torch.ones(width)
    tensors[f"generator.convs.{last}.noise.weight"] = torch.ones(1)
    tensors[f"generator.convs.{last}.activate.bias"] = torch.zeros(2 * width)
    for name in list(tensors):
        if ".to_rgb" in name and name.endswith((".conv.weight", ".bias")):
            tensors[name] = _silent(tensors[name])
    colours = f"generator.to_rgbs.{level}"
    tensors[f"{colours}.conv.modulation.weight"] = _silent(tensors[f"{colours}.conv.modulation.weight"])
    tensors[f"{colours}.conv.modulation.bias"] = torch.ones(2 * width)
    (weight,) = tensors[f"{colours}.conv.weight"]
    read = _wired(weight, COLOURS, range(width, width + 3), math.sqrt(2 * width) / 2)
    tensors[f"{colours}.conv.weight"] = read[None]
    tensors[f"{colours}.bias"] = torch.full((1, 3, 1, 1), -1.0)
    torch.save(tensors, path)
    return path


def parsenet(path: Path) -> Path:
    """Takes everything for skin."""
    tensors = torch.load(thin_files.parsenet(path), weights_only=True)
    name = "out_mask_conv.conv2d"
    tensors[f"{name}.weight"] = _silent(tensors[f"{name}.weight"])
    tensors[f"{name}.bias"] = F.one_hot(torch.tensor(parts.INDEX["skin"]), len(parts.CLASSES)).float()
    torch.save(tensors, path)
    return path


def passed(portrait: Image) -> Image:
    """How a portrait (512, 512, 3) uint8 RGB comes out of these networks, nearly, in a moment.

    By half a level on average; to fit a parser to.
    """
    small = F.avg_pool2d(torch.from_numpy(portrait).permute(2, 0, 1)[None].float(), 8)
    # Places are made for the middles of the outer pixels and read as the frame's edges: a 64th too large.
    small = F.grid_sample(
        small, F.affine_grid(torch.eye(2, 3)[None], [1, 1, 64, 64], align_corners=True), align_corners=False
    )
    painted = F.interpolate(small, scale_factor=4)
    for _ in range(3):
        painted = F.avg_pool2d(painted, 3, stride=1, padding=1)
    levels = painted[0].permute(1, 2, 0).byte().numpy()
    return np.asarray(cv2.resize(levels, portrait.shape[:2], interpolation=cv2.INTER_LINEAR), np.uint8)
