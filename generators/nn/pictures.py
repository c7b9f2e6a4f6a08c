"""Pictures in and out of a network, and how it computes: what the methods with networks share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from mmtt_build.masks import Image

NOT_FINITE = "the network's output is not finite"
"""Why a row is rejected; in half precision it may be finite with precision = "fp32"."""

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def to_tensor(images: Sequence[Image], device: torch.device) -> Tensor:
    """(H, W, 3) uint8 RGB each -> (B, 3, H, W) float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.stack(images)).to(device)
    return pixels.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def to_images(pictures: Tensor, truncate: bool = False) -> list[Image | None]:
    """(B, 3, H, W), [-1, 1] and beyond -> (H, W, 3) uint8 RGB each, rounded half to even; None where not finite.

    Args:
        pictures: as above.
        truncate: round towards zero, where a published procedure does.
    """
    finite = pictures.isfinite().flatten(1).all(1).tolist()
    levels = pictures.float() * 127.5 + 127.5
    levels = (levels.trunc() if truncate else levels.round()).clamp(0, 255).to(torch.uint8)
    made = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return [image if whole else None for image, whole in zip(made, finite, strict=True)]


@contextmanager
def computing(device: torch.device, precision: str) -> Iterator[None]:
    """Inference in a precision of `PRECISIONS`; "fp32" is that on any device, without NVIDIA's rounding to 10 bits."""
    dtype = PRECISIONS[precision]
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=precision != "fp32"),
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
    ):
        yield
