"""FFHQ alignment: the quad of 68 landmarks, and the face cut out along it."""

from __future__ import annotations

import numpy as np

from generators import ffhq_align

from .cases import Case, Check


def run(case: Case) -> list[Check]:
    """Compares quad and cut-out; the latter may differ by two grey levels, as versions of Pillow and SciPy do."""
    times = int(case.meta.get("repeat", 1))
    photo = case.array("image_uint8").repeat(times, 0).repeat(times, 1)
    quad = ffhq_align.quad(ffhq_align.anchors68(case.array("landmarks68")))
    aligned = ffhq_align.cut_out(photo, quad, case.array("aligned_uint8").shape[0])
    return [
        case.compare_stored("quad", quad, 1e-6),
        case.compare_stored("aligned_uint8", aligned.astype(np.float64), 2.0),
    ]
