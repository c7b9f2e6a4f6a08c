"""`hfgi`: age, smile, pose and more by HFGI, which keeps a photo's own details through an edit. See card.md."""

from __future__ import annotations

from collections.abc import Sequence

from generators.base import Params
from generators.editor import FaceEditor, Networks
from mmtt_build.weights import Weights

NETWORKS, DIRECTIONS = "hfgi", "hfgi-directions"
"""Names of checkpoints in the catalogue."""


class HFGI(FaceEditor):
    """Age, smile, pose, eyes, lips or beard changed in StyleGAN2, the photo's details carried along."""

    name = "hfgi"

    def checkpoints(self, params: Params) -> Sequence[str]:
        """All networks are in one file; the directions come beside it."""
        return [NETWORKS, DIRECTIONS]

    def networks(self, device: str, weights: Weights) -> Networks:
        """All networks."""
        from generators.hfgi.neural import Engine

        return Engine(device, weights, self.options.precision)
