"""MAT on a device: batches of photos and holes in, photos out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from generators import checkpoints
from generators.mat.net import Generator
from generators.nn import pictures
from mmtt_build.masks import Image, Mask
from mmtt_build.weights import Found


class Engine:
    """The network on a device.

    Args:
        device: "cpu", "cuda:0", ...
        found: its checkpoint.
        precision: of `pictures.PRECISIONS`.

    Raises:
        WeightsError: the checkpoint cannot be loaded.
    """

    def __init__(self, device: str, found: Found, precision: str) -> None:
        self.device, self.precision = torch.device(device), precision
        self.network: Generator = checkpoints.load(found, device)

    def fill(
        self, images: Sequence[Image], holes: Sequence[Mask], seeds: Sequence[int], psi: float, noise: str
    ) -> list[Image | str]:
        """Fills holes.

        Args:
            images: (512, 512, 3) uint8 RGB each.
            holes: (512, 512) bool each, True where to paint.
            seeds: all that is random about an image comes from its own: the latent, the features of both stages that
                give way to the style, and the noise.
            psi: truncation.
            noise: "const", "random" or "none".

        Returns:
            (512, 512, 3) uint8 RGB each, or why there is none.
        """
        sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        drawn = self.network.draw(sources, *images[0].shape[:2], noise=noise == "random")
        drawn = {
            name: [each.to(self.device) for each in one] if isinstance(one, list) else one.to(self.device)
            for name, one in drawn.items()
        }
        if noise != "random":
            drawn["noise"] = noise
        with pictures.computing(self.device, self.precision):
            photos = pictures.to_tensor(images, self.device)
            keep = torch.from_numpy(~np.stack(holes)).to(self.device)[:, None].float()
            made = pictures.to_images(self.network(photos, keep, psi=psi, **drawn))
        return [pictures.NOT_FINITE if image is None else image for image in made]
