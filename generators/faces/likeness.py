"""Whether a swap worked: a recognition network must take the forged face for the donor rather than for the base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock

import numpy as np

from generators.faces.analysis import RECOGNITION, Analysis, FaceFacts
from mmtt_build.errors import BadImage
from mmtt_build.masks import Image


def judge(analysis: Analysis, base: FaceFacts, donor: FaceFacts, forged: Image) -> Mapping[str, float] | str:
    """Holds a forged face against the two it was made of.

    Args:
        analysis: with `RECOGNITION`.
        base: the face that was replaced, by the same analysis.
        donor: the face it was replaced with.
        forged: (H, W, 3) uint8 RGB, of the size that `base` was found in.

    Returns:
        Cosine similarities for the row, or why the swap is to be rejected.
    """
    x, y = np.array(base.points).reshape(5, 2).mean(axis=0)
    there = (
        face for face in analysis.faces(forged) if face.box[0] <= x <= face.box[2] and face.box[1] <= y <= face.box[3]
    )
    found = next(there, None)
    if found is None:
        return "no face found where the base's was, once swapped"
    to_base, to_donor = found.similarity(base), found.similarity(donor)
    if not to_donor > to_base:
        return (
            f"the swapped face is not nearer to the donor: similarity {to_donor:.3f} to the donor, "
            f"{to_base:.3f} to the base"
        )
    return {
        "similarity_to_base": round(to_base, 4),
        "similarity_to_donor": round(to_donor, 4),
        "similarity_base_donor": round(base.similarity(donor), 4),
    }


class Judge:
    """A recognition network on a device.

    Args:
        folder: of the pack.
        device: "cpu", "cuda:0", ...

    Raises:
        WeightsError: the pack cannot be loaded, or recognises nobody.
        ConfigError: the device.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self._analysis = Analysis(folder, device, needs=(RECOGNITION,))
        self._alone = Lock()  # insightface is kept silent by turning the whole process's output aside

    def likeness(self, base: Image, donor: Image, forged: Image) -> Mapping[str, float] | str:
        """`judge` for pictures (H, W, 3) uint8 RGB; their main faces are found first."""
        with self._alone:
            return self._likeness(base, donor, forged)

    def _likeness(self, base: Image, donor: Image, forged: Image) -> Mapping[str, float] | str:
        try:
            faces = [self._analysis.main_face(image) for image in (base, donor)]
            for whose, face in zip(("base", "donor"), faces, strict=True):
                if face is None:
                    return f"no face found in the {whose}"
            assert faces[0] is not None and faces[1] is not None
            return judge(self._analysis, faces[0], faces[1], forged)
        except BadImage as error:
            return error.message
