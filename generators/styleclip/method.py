"""`styleclip`: attributes by StyleCLIP's latent mappers and global directions. See card.md."""

from __future__ import annotations

from collections.abc import Sequence

from generators.base import Params
from generators.editor import FaceEditor, Networks
from mmtt_build.weights import Weights

ENCODER, DIRECTIONS, CLIP = "e4e", "styleclip-directions", "clip-vit-b32"
"""Names of checkpoints in the catalogue; a mapper's is "styleclip-<mapper>"."""


def mapper_checkpoint(mapper: str) -> str:
    """Name in the catalogue of a mapper."""
    return f"styleclip-{mapper}"


class StyleCLIP(FaceEditor):
    """An expression, a hair style or colour changed in StyleGAN2, after a mapper or a pair of texts."""

    name = "styleclip"

    def checkpoints(self, params: Params) -> Sequence[str]:
        """The encoder with its generator, and the mapper, or the directions and CLIP."""
        if "mapper" in params:
            return [ENCODER, mapper_checkpoint(params["mapper"])]
        return [ENCODER, DIRECTIONS, CLIP]

    def batch_key(self, params: Params) -> str:
        """The mapper, so that each is loaded once; all pairs of texts share batches."""
        return str(params.get("mapper", ""))

    def networks(self, device: str, weights: Weights) -> Networks:
        """Encoder and generator; a mapper is loaded when a row asks for it."""
        from generators.styleclip.neural import Engine

        return Engine(device, weights, self.options.precision)
