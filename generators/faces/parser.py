"""The face parser: facexlib's BiSeNet, which gives every pixel of an aligned face one of the 19 parsing classes.

Maps leave `Parser.parse` in the order of `parts.CLASSES`; the network's own is `parts.BISENET_CLASSES`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from generators import checkpoints
from mmtt_build import parts
from mmtt_build.errors import WeightsError
from mmtt_build.masks import Image
from mmtt_build.parts import BISENET_CLASSES, LabelMap
from mmtt_build.records import SIZE
from mmtt_build.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, in RGB: what the network was trained with."""

_HALVING = (-3, -9, 29, 111, 111, 29, -9, -3)
"""256ths: the cubic kernel with a = -0.5 at distances of 0.25, 0.75, 1.25 and 1.75 target pixels, normalised."""


class Parser:
    """BiSeNet on a device.

    Args:
        device: "cpu", "cuda:0", ...
        weights: where its checkpoint is looked for.
        half: compute in float16 where that is safe. A fraction of a percent of the pixels, all at the borders of
            parts, change class; without it the maps are those of the reference, on any device.

    Raises:
        WeightsMissing, WeightsError, TermsNotAccepted: of the checkpoint "bisenet".
    """

    checkpoint = "bisenet"

    def __init__(self, device: str, weights: Weights, half: bool = False) -> None:
        import torch

        found = weights.find(self.checkpoint)
        self.identity = found.identity
        self.device = torch.device(device)
        self.half = half
        network = build()
        checkpoints.load_found(network, found)
        # channels_last: 1.4 times as fast on a CPU (350 ms against 500 ms per image, one thread).
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def parse(self, images: Sequence[Image]) -> list[LabelMap]:
        """Part maps of aligned faces.

        Args:
            images: (512, 512, 3) uint8 RGB each.

        Returns:
            (512, 512) uint8 each, indices of `parts.CLASSES`. Which images share a batch may move a pixel whose two
            best classes are equal to seven digits.

        Raises:
            WeightsError: the network answers with numbers that are not finite.
        """
        import torch

        if any(image.shape != (SIZE, SIZE, 3) for image in images):
            raise ValueError(f"parse wants {SIZE}x{SIZE} RGB, got {sorted({image.shape for image in images})}")
        if not images:
            return []
        # (B, H, W, 3) seen as (B, 3, H, W) is channels_last already.
        pixels = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2)
        found = self.labels(normalise(pixels.float() / 255))
        return [parts.reorder(labels, BISENET_CLASSES) for labels in found]

    def labels(self, prepared: Tensor) -> LabelMap:
        """Class of every pixel, (B, H, W) uint8 in the order of `parts.BISENET_CLASSES`.

        Args:
            prepared: (B, 3, H, W) float32 as `normalise` or `prepare_e4s` make it, H and W divisible by 32.

        Raises:
            WeightsError: the network answers with numbers that are not finite.
        """
        import torch

        with (
            torch.inference_mode(),
            # On NVIDIA's GPUs convolutions round to 10 bits unless told not to, which moves logits by 1e-3.
            torch.backends.cudnn.flags(enabled=True, allow_tf32=self.half),
            torch.autocast(self.device.type, torch.float16, enabled=self.half),
        ):
            answer = logits(self.network, prepared)
            if not bool(answer.isfinite().all()):
                raise WeightsError(
                    "the parser 'bisenet' answers with numbers that are not finite",
                    "mmtt weights check bisenet; the file may be another network's",
                )
            best: LabelMap = answer.argmax(dim=1).to(torch.uint8).cpu().numpy()
        return best


def build() -> nn.Module:
    """The network, untrained, on the device of the active context; nothing is downloaded.

    Flat state dict of 191 tensors, equal in facexlib's `parsing_bisenet.pth` and zllrunning's `79999_iter.pth`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that facexlib imports, none of which is used here
        from facexlib.parsing.bisenet import BiSeNet

    network: nn.Module = BiSeNet(num_class=len(BISENET_CLASSES))
    return network


def logits(network: Any, prepared: Tensor) -> Tensor:
    """Scores of the classes, (B, 19, H, W) float32, of `labels`'s input.

    The first of the network's three heads; the other two only help in training, and a tenth of the time is theirs.
    """
    import torch

    eighth, coarse, _ = network.cp(prepared)
    scores, _ = network.conv_out(network.ffm(eighth, coarse))
    size = prepared.shape[2:]
    return torch.nn.functional.interpolate(scores.float(), size, mode="bilinear", align_corners=True)


def normalise(image: Tensor) -> Tensor:
    """(B, 3, H, W) float32 RGB in [0, 1] to what the network takes."""
    mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (image - mean) / std


def prepare_e4s(image: Tensor) -> Tensor:
    """What E4S's parser sees: half the size by a cubic filter, clamped, then normalised.

    Args:
        image: (B, 3, H, W) float32 RGB in [0, 1]; E4S has 1024x1024.

    Returns:
        (B, 3, H/2, W/2) float32.
    """
    import torch.nn.functional as F

    channels = image.shape[1]
    kernel = image.new_tensor(_HALVING) / 256
    padded = F.pad(image, (3, 3, 3, 3), mode="reflect")
    rows = F.conv2d(padded, kernel.view(1, 1, 8, 1).expand(channels, -1, -1, -1), stride=(2, 1), groups=channels)
    both = F.conv2d(rows, kernel.view(1, 1, 1, 8).expand(channels, -1, -1, -1), stride=(1, 2), groups=channels)
    return normalise(both.clamp(0, 1))
