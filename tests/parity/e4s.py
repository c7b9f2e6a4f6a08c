"""What E4S does without a network: the crop and the way back, both swaps, both blendings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from generators import ffhq_align
from generators.e4s import composite, crop, regions

from .cases import Case, Check

LEVEL = 1.0
"""What pictures may differ by, in grey levels: versions of OpenCV and Pillow do."""
WINDOW = np.s_[480:608, 384:512]
"""Where the cases of the blendings hold every pixel."""


def run(case: Case) -> list[Check]:
    """Compares all that the case holds."""
    return {"e4s_align": _align, "e4s_post": _post, "e4s_styleswap": _style_swap}[case.network](case)


def _align(case: Case) -> list[Check]:
    photo, times = case.array("in.image_uint8"), 40 if "x40" in case.meta["desc"] else 1
    photo = photo.repeat(times, 0).repeat(times, 1)
    quad = ffhq_align.quad(ffhq_align.anchors68(case.array("in.landmarks68")))
    matrix = np.append(crop.into_square(quad), (0, 0))  # theirs are fitted as perspective, which a square has none of
    checks = [
        case.compare("quad", quad, 1e-6),
        case.compare("coeffs", matrix, 1e-6),
        case.compare("crop_stride4", _levels(crop.cut_out_as_published(photo, quad)[::4, ::4]), LEVEL),
    ]
    if "in.pasted_face_uint8" in case.arrays:
        face = case.array("in.pasted_face_uint8").repeat(8, 0).repeat(8, 1)
        everything = crop.placed(np.full(face.shape[:2], 255, np.uint8), quad, photo.shape)
        pasted = composite.blend_alpha(crop.placed(face, quad, photo.shape), photo, everything)
        checks += [
            case.compare("projected_alpha", _levels(everything), LEVEL),
            case.compare("pasted_rgb", _levels(pasted), LEVEL),
        ]
    return checks


def _post(case: Case) -> list[Check]:
    donor, target = case.array("in.source_mask12"), case.array("in.target_mask12")
    generated, photo = (case.array(f"in.{what}_uint8").repeat(8, 0).repeat(8, 1) for what in ("swapped_face", "target"))
    swapped, hole = regions.swap_masks(donor, target)
    under_hair, _ = regions.swap_masks(donor, target, hair_first=False)
    weight = composite.alpha(swapped)
    ours = {
        "swapped_mask": swapped,
        "hole_map": hole * 255,
        "swapped_mask_hairlast": under_hair,
        "foreground512": composite.foreground(swapped),
    }
    blended = {
        "composite": composite.blend_alpha(generated, photo, weight),
        "lapblend": composite.blend_multiband(generated, photo, swapped),
    }
    pictures = {"alpha1024_stride2": weight[::2, ::2]}
    pictures |= {f"{name}_stride4": picture[::4, ::4] for name, picture in blended.items()}
    pictures |= {f"{name}_crop": picture[WINDOW] for name, picture in blended.items()}
    return [case.compare(name, _levels(labels), 0.0) for name, labels in ours.items()] + [
        case.compare(name, _levels(picture), LEVEL) for name, picture in pictures.items()
    ]


def _style_swap(case: Case) -> list[Check]:
    return [case.compare("swapped", regions.swap_styles(case.array("in.driven"), case.array("in.target")), 1e-6)]


def _levels(picture: NDArray[Any]) -> NDArray[np.float64]:
    return picture.astype(np.float64)
