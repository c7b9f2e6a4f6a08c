"""`inswapper`: insightface's one-shot swapper, pasted so that the mask is known exactly. See card.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from generators import classical
from generators.base import Family, Forged, Job, Method, Params, Rejection
from generators.faces.analysis import (
    DETECTED,
    RECOGNITION,
    Analysis,
    FaceFacts,
    check_device,
    quietly,
    session_arguments,
    unloadable,
)
from generators.faces.likeness import judge
from mmtt_build import parts
from mmtt_build.errors import BadImage, WeightsError
from mmtt_build.masks import Image, Mask
from mmtt_build.records import Pristine
from mmtt_build.weights import Weights, catalogue

Floats = NDArray[np.float32]

SWAPPER = "inswapper"
"""Name of the checkpoint in the catalogue."""

MAX_POSE_GAP = 0.3
"""Largest `Pose.gap` between the heads, either way round.

Wider than blendswap's 0.2, since no pixel of the donor is used: an embedding changes little within it."""

_NEEDED = (classical.has_eyes, classical.has_nose, classical.has_lips)
_INSIDE = 20
"""Least grey level of the warped white crop that counts as inside, of 255: the library's."""
_MIN_ERODE_PX, _MIN_BLUR_PX = 10, 5
"""Least size of the library's erosion kernel and least radius of its blur."""
_SHOWS = 1 / 510
"""An alpha below this moves no 8-bit value: at most 255 * alpha < 0.5, which rounds to nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `[methods.inswapper]` may say.

    Attributes:
        pack: checkpoint that finds and recognises faces. The swapper was trained with the embeddings of buffalo_l: with
            others the swap fails and is rejected.
        det_thresh: least detection score of the faces, in base, donor and forgery.
        feather: half the width of the seam, as a share of the swapped square's side: 0.05 is the library's.
    """

    pack: str = "buffalo_l"
    det_thresh: float = DETECTED
    feather: float = 0.05

    def __post_init__(self) -> None:
        if self.pack not in catalogue() or catalogue()[self.pack].kind != "pack":
            known = ", ".join(sorted(name for name, entry in catalogue().items() if entry.kind == "pack"))
            raise ValueError(f"pack: '{self.pack}' is no face pack of the catalogue ({known})")
        if not 0.05 <= self.det_thresh <= 0.95:
            raise ValueError(f"det_thresh: is {self.det_thresh:g}, between 0.05 and 0.95")
        if not 0.02 <= self.feather <= 0.2:
            raise ValueError(f"feather: is {self.feather:g}, between 0.02 and 0.2")


class InSwapper(Method):
    """Swaps the identity of the largest face; rejects what a recognition network does not take for the donor."""

    name: ClassVar[str] = "inswapper"
    family: ClassVar[Family] = Family.FACE_SWAP
    Options: ClassVar[type] = Options
    neural: ClassVar[bool] = True
    needs_source: ClassVar[bool] = True
    batch_size: int = 4

    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params | None:
        """Takes the pair if both faces are complete and turned alike; nothing is drawn, the networks are not random."""
        if source is None or not all(has(face) for has in _NEEDED for face in (base, source)):
            return None
        here, there = classical.pose(base.points), classical.pose(source.points)
        if here is None or there is None or min(here.gap(there), here.gap(there.mirrored())) > MAX_POSE_GAP:
            return None
        return {
            "parts": [name for name in classical.FACE if base.part_areas[parts.INDEX[name]]],
            "pack": self.options.pack,
            "det_thresh": self.options.det_thresh,
            "feather": self.options.feather,
        }

    def weights(self, params: Params) -> Sequence[str]:
        """The swapper and the pack that was planned with."""
        return (SWAPPER, params["pack"])

    def batch_key(self, params: Params) -> str:
        """Rows of one pack and one detection threshold go together."""
        return f"{params['pack']} {params['det_thresh']}"

    def prepare(self, device: str, weights: Weights) -> None:
        """Remembers where to run; what a row was planned with is loaded when its batch comes."""
        self._device, self._weights = device, weights
        self._loaded: tuple[str, _Networks] | None = None

    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        """Makes one swap per job.

        Raises:
            WeightsMissing, WeightsError, TermsNotAccepted: of a checkpoint.
            ConfigError: the device.
        """
        params = batch[0].params
        key = self.batch_key(params)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # before the next ones are loaded: two packs may not fit
            self._loaded = key, _Networks(self._device, self._weights, params)
        return [self._loaded[1].swap(job) for job in batch]


class _Networks:
    """The swapper and the analysis of one pack, on a device."""

    def __init__(self, device: str, weights: Weights, params: Params) -> None:
        found = {name: weights.find(name) for name in (SWAPPER, params["pack"])}
        self.checkpoints = {name: one.fact for name, one in found.items()}
        self.analysis = Analysis(
            found[params["pack"]].path, device, needs=(RECOGNITION,), det_thresh=params["det_thresh"]
        )
        self.swapper = load_swapper(found[SWAPPER].path, device)

    def swap(self, job: Job) -> Forged | Rejection:
        """One swap, checked."""
        if job.source_image is None:
            return Rejection("no donor")
        try:
            base, donor = self.analysis.main_face(job.image), self.analysis.main_face(job.source_image)
            for whose, face in (("base", base), ("donor", donor)):
                if face is None:
                    return Rejection(f"no face found in the {whose}")
            assert base is not None and donor is not None
            crop, matrix = self._generate(job.image, base, donor)
            image, mask = paste(job.image, crop, matrix, job.params["feather"])
            likeness = judge(self.analysis, base, donor, image)
        except BadImage as error:
            return Rejection(error.message)
        if isinstance(likeness, str):
            return Rejection(likeness)
        return Forged(image, mask, {**self._facts(base, donor, matrix), **likeness})

    def _generate(self, image: Image, base: FaceFacts, donor: FaceFacts) -> tuple[Image, NDArray[np.float64]]:
        """The swapped crop, (N, N, 3) uint8 RGB, and the matrix, (2, 3), that took the picture to it."""
        from insightface.app.common import Face

        with quietly():
            crop, matrix = self.swapper.get(
                np.ascontiguousarray(image[..., ::-1]),
                Face(kps=base.kps),
                Face(embedding=donor.embedding),
                paste_back=False,
            )
        return np.ascontiguousarray(crop[..., ::-1]), matrix

    def _facts(self, base: FaceFacts, donor: FaceFacts, matrix: NDArray[np.float64]) -> Mapping[str, Any]:
        return {
            "checkpoints": self.checkpoints,
            "matrix": np.round(matrix, 4).tolist(),
            "base_score": round(base.score, 3),
            "donor_score": round(donor.score, 3),
        }


def load_swapper(file: Path, device: str) -> Any:
    """Insightface's INSwapper over an ONNX file.

    Raises:
        WeightsError: it cannot be loaded, or is no swapper.
        ConfigError: the device.
    """
    from insightface.model_zoo import get_model
    from insightface.model_zoo.inswapper import INSwapper

    arguments = session_arguments(device)
    with quietly():
        try:
            swapper = get_model(str(file), **arguments)
        except Exception as error:  # onnxruntime's own kinds, protobuf's, bare assertions
            raise unloadable(file, error) from error
    if not isinstance(swapper, INSwapper):
        raise WeightsError(f"{file} is no swapper: insightface takes it for {type(swapper).__name__}", _OBTAIN)
    if swapper.emap.shape != (512, 512):
        raise WeightsError(
            f"{file}: its last initializer is {swapper.emap.shape}, not the (512, 512) map of embeddings", _OBTAIN
        )
    check_device(swapper.session, device, file.name)
    return swapper


_OBTAIN = "mmtt weights show inswapper says where its authors publish it"


def paste(image: Image, crop: Image, matrix: NDArray[np.float64], feather: float) -> tuple[Image, Mask]:
    """Puts a generated crop back, by the library's rule, and says exactly which pixels it may have changed.

    Args:
        image: (H, W, 3) uint8 RGB, the base.
        crop: (N, N, 3) uint8 RGB.
        matrix: (2, 3), takes points of the image to the crop.
        feather: half the seam's width, as a share of the side of the crop's place in the image.

    Returns:
        The forged image, and the mask (H, W) bool: every pixel with a weight that can show.
    """
    alpha = blend_weights(image.shape[:2], crop.shape[0], matrix, feather)
    height, width = image.shape[:2]
    back = cv2.invertAffineTransform(matrix)
    swapped = cv2.warpAffine(crop.astype(np.float32), back, (width, height), borderMode=cv2.BORDER_REPLICATE)
    mask = alpha > 0
    weight = alpha[mask][:, None]
    mixed = weight * swapped[mask] + (1 - weight) * image[mask].astype(np.float32)
    forged = image.copy()
    forged[mask] = np.rint(mixed).clip(0, 255).astype(np.uint8)
    return forged, mask


def blend_weights(size: tuple[int, ...], side: int, matrix: NDArray[np.float64], feather: float) -> Floats:
    """The blend mask of `INSwapper.get(paste_back=True)`, (H, W) float32, 0 to 1; weights that cannot show are 0.

    The place of the crop in the image is eroded by a tenth of its side (at least 10 px) and blurred over a twentieth
    (at least 5 px) to each side: the seam lies inside the crop. With `feather` these are twice and once that share.
    A crop that reaches beyond the photo has no seam along the photo's edge.
    """
    height, width = size
    back = cv2.invertAffineTransform(matrix)
    place = cv2.warpAffine(np.full((side, side), 255, np.float32), back, (width, height)) > _INSIDE
    rows, columns = np.flatnonzero(place.any(axis=1)), np.flatnonzero(place.any(axis=0))
    if not len(rows):
        return np.zeros((height, width), np.float32)
    reach = int(np.sqrt((rows[-1] - rows[0]) * (columns[-1] - columns[0])))
    eroded = max(int(2 * feather * reach), _MIN_ERODE_PX)
    blurred = 2 * max(int(feather * reach), _MIN_BLUR_PX) + 1
    core = cv2.erode(place.astype(np.float32), np.ones((eroded, eroded), np.uint8))
    alpha = cv2.GaussianBlur(core, (blurred, blurred), 0) * place
    alpha[alpha < _SHOWS] = 0
    return np.asarray(alpha, np.float32)
