"""GPEN's enhancement (Yang et al., CVPR 2021) as E4S uses it: a small portrait becomes a sharp one, four times as wide.

Real-ESRNet enlarges the whole picture. Each face that RetinaFace finds in the smoothly enlarged one is aligned,
restored by GPEN and pasted over it, inside what ParseNet takes for the head. These are the steps of GPEN's pipeline.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import cv2
import numpy as np

from generators import checkpoints, classical
from generators.classical import Floats, Points
from mmtt_build import parts
from mmtt_build.masks import Image, Mask
from mmtt_build.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

Item = TypeVar("Item")

SMALL, LARGE, CROP = 256, 1024, 512
"""Pixels a side: of what comes in, of what goes out, of an aligned face."""

REFERENCE = ((202.0407, 242.8840), (309.4302, 242.2900), (256.0768, 303.9592), (211.9598, 366.8282),
             (300.8911, 366.3363))  # fmt: skip
"""Where a crop has the five points of its face: the eye on the viewer's left, the other, nose, mouth corners; x, y."""

BGR_MEAN = (104.0, 117.0, 123.0)
"""What RetinaFace's input is relative to."""

VARIANCES = (0.1, 0.2)
"""Units of RetinaFace's places and, logarithmic, of its sizes, in those of the anchor."""

SURE, OVERLAP = 0.9, 0.4
"""Least score of a face; boxes with a larger intersection over union are one face."""

MOST_BOXES, MOST_FACES = 5000, 750
"""Before and after boxes of one face are joined."""

HEAD = tuple(name for name in parts.CLASSES if name not in ("background", "hat", "cloth"))
"""What of the restored crop is pasted."""

FRAME_PX, BLUR_PX, BLUR_SIGMA = 20, 101, 11.0
"""Of the crop: the border that is never pasted; kernel and sigma of the blur that the seam gets twice."""

SMALL_FACE_PX = 100
"""A face whose box has a shorter side than this in the large picture is smoothed before it is pasted."""

BATCH = 8
"""Pictures at once on a GPU; a CPU takes them one by one, which is as fast."""

_BINOMIAL = np.outer((1, 2, 1), (1, 2, 1)).astype(np.float32) / 16


class Face(NamedTuple):
    """A face found.

    Attributes:
        box: (4,) float32, left, top, right and bottom in pixels.
        points: (5, 2) float32 x, y in pixels, in the order of `REFERENCE`.
    """

    box: Floats
    points: Floats


class Restored(NamedTuple):
    """A face restored.

    Attributes:
        face: where it was found.
        crop: (512, 512, 3) uint8 RGB.
        head: (512, 512) bool, what of the crop belongs to the head.
    """

    face: Face
    crop: Image
    head: Mask


class Enhanced(NamedTuple):
    """A portrait enlarged.

    Attributes:
        image: (1024, 1024, 3) uint8 RGB.
        faces: how many were restored; with none the picture is merely enlarged.
    """

    image: Image
    faces: int


class Networks(NamedTuple):
    """The networks, by their names in the catalogue of checkpoints."""

    realesrnet: Any
    retinaface: Any
    gpen: Any
    parsenet: Any


class Enhancer:
    """The four networks on a device.

    Args:
        device: "cpu", "cuda:0", ...
        weights: where their checkpoints are looked for.
        precision: of `pictures.PRECISIONS`; faces are always found in float32, or they would shift.

    Raises:
        WeightsMissing, WeightsError, TermsNotAccepted: of a checkpoint.
    """

    checkpoints = Networks._fields

    def __init__(self, device: str, weights: Weights, precision: str) -> None:
        import torch

        self.device, self.precision = torch.device(device), precision
        found = [weights.find(name) for name in self.checkpoints]
        self.networks = Networks(*(checkpoints.load(one, device) for one in found))

    def enhance(self, images: Sequence[Image]) -> list[Enhanced | str]:
        """Enlarges portraits and restores the faces in them.

        Args:
            images: (256, 256, 3) uint8 RGB each.

        Returns:
            One for each, or why there is none. On a GPU, which images share a batch may move a grey level by rounding.
        """
        from generators.nn import pictures

        if any(image.shape != (SMALL, SMALL, 3) for image in images):
            raise ValueError(f"enhance wants {SMALL}x{SMALL} RGB, got {sorted({image.shape for image in images})}")
        photos = [cv2.resize(image, (LARGE, LARGE), interpolation=cv2.INTER_LINEAR) for image in images]
        enlarged, found = self._enlarge(images), self._find(photos)
        crops = [cut_out(photo, face) for photo, faces in zip(photos, found, strict=True) for face in faces or ()]
        answers = iter(self._restore(crops))
        made: list[Enhanced | str] = []
        for sharp, faces in zip(enlarged, found, strict=True):
            answered = [(face, next(answers)) for face in faces or ()]
            restored = [Restored(face, *answer) for face, answer in answered if answer is not None]
            if sharp is None or faces is None or len(restored) < len(faces):
                made.append(pictures.NOT_FINITE)
            else:
                made.append(Enhanced(paste(sharp, restored), len(faces)))
        return made

    def _enlarge(self, images: Sequence[Image]) -> list[Image | None]:
        """Each by Real-ESRNet, (1024, 1024, 3) uint8 RGB; None where it is not finite."""
        from generators.nn import pictures

        made: list[Image | None] = []
        for some in self._batches(images):
            with pictures.computing(self.device, self.precision):
                answer = self.networks.realesrnet(self._pixels(some) / 255).float()
                levels = _images((answer.clamp(0, 1) * 255).round())
            made += _kept(levels, _whole(answer))
        return made

    def _find(self, photos: Sequence[Image]) -> list[list[Face] | None]:
        """The faces in each (H, W, 3) uint8 RGB; None where RetinaFace's answer is not finite."""
        from generators.nn import pictures

        made: list[list[Face] | None] = []
        for some in self._batches(photos):
            with pictures.computing(self.device, "fp32"):
                pixels = self._pixels(some).flip(1)  # RGB to BGR
                answers = self.networks.retinaface(pixels - pixels.new_tensor(BGR_MEAN).view(1, 3, 1, 1))
                offsets, scores, points = (answer.cpu() for answer in answers)
                whole = _whole(offsets, scores, points)
                made += _kept(faces_in(offsets, scores, points, some[0].shape[:2]), whole)
        return made

    def _restore(self, crops: Sequence[Image]) -> list[tuple[Image, Mask] | None]:
        """Each crop by GPEN, with the head in it by ParseNet; None where one is not finite."""
        from generators.nn import pictures

        made: list[tuple[Image, Mask] | None] = []
        for some in self._batches(crops):
            with pictures.computing(self.device, self.precision):
                answer = self.networks.gpen(self._pixels(some) / 127.5 - 1).float()
                levels = ((answer * 0.5 + 0.5).clamp(0, 1) * 255).floor()
                scores, _ = self.networks.parsenet(levels / 127.5 - 1)
                labels = scores.argmax(dim=1).byte().cpu().numpy()
                heads = [parts.select(each, HEAD) for each in labels]
                made += _kept(list(zip(_images(levels), heads, strict=True)), _whole(answer, scores))
        return made

    def _pixels(self, images: Sequence[Image]) -> Tensor:
        """(H, W, 3) uint8 each -> (B, 3, H, W) float32, 0 to 255."""
        import torch

        from generators.nn import ops

        pixels = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2).contiguous().float()
        return ops.arranged(pixels)  # a fifth faster on a CPU, in all but GPEN, which arranges its own

    def _batches(self, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        step = 1 if self.device.type == "cpu" else BATCH
        return (items[i : i + step] for i in range(0, len(items), step))


def retinaface() -> nn.Module:
    """RetinaFace over ResNet-50, untrained, on the device of the active context; nothing is downloaded.

    456 tensors, equal in GPEN's `RetinaFace-R50.pth` and facexlib's `detection_Resnet50_Final.pth`.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old arguments to torchvision, and of packages that are not used here
        from facexlib.detection.retinaface import RetinaFace

        # Left to itself it takes the first GPU that there is.
        network: nn.Module = RetinaFace(network_name="resnet50", device=torch.get_default_device())
    return network


def parsenet() -> nn.Module:
    """ParseNet for 512 pixels, untrained, on the device of the active context; nothing is downloaded.

    Flat state dict of 238 tensors, equal in GPEN's `ParseNet-latest.pth` and facexlib's `parsing_parsenet.pth`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        from facexlib.parsing.parsenet import ParseNet

    network: nn.Module = ParseNet(in_size=CROP, out_size=CROP, parsing_ch=len(parts.CLASSES))
    return network


def faces_in(offsets: Tensor, scores: Tensor, points: Tensor, size: tuple[int, ...]) -> list[list[Face]]:
    """The faces that RetinaFace's answers stand for, the surest first.

    Args:
        offsets: (B, N, 4) float32, of the boxes from the anchors.
        scores: (B, N, 2) float32, of no face and of a face.
        points: (B, N, 10) float32, of the points from the anchors.
        size: height and width of the pictures.
    """
    from facexlib.detection.retinaface_utils import batched_decode, batched_decode_landm
    from torchvision.ops import nms  # type: ignore[import-untyped]

    height, width = size
    anchors = _anchors(height, width)
    frame = anchors.new_tensor((width, height))
    boxes = batched_decode(offsets, anchors, VARIANCES) * frame.repeat(2)
    places = batched_decode_landm(points, anchors, VARIANCES) * frame.repeat(5)
    found = []
    for own_boxes, own_scores, own_places in zip(boxes, scores[..., 1], places, strict=True):
        best = own_scores.argsort(descending=True, stable=True)
        best = best[own_scores[best] > SURE][:MOST_BOXES]
        kept = best[nms(own_boxes[best], own_scores[best], OVERLAP)][:MOST_FACES]
        found.append([Face(own_boxes[i].numpy(), own_places[i].numpy().reshape(5, 2)) for i in kept])
    return found


@cache
def _anchors(height: int, width: int) -> Tensor:
    """RetinaFace's for pictures of a size, (1, N, 4) float32: centre x, y, width, height as shares of the picture."""
    from facexlib.detection.retinaface import generate_config
    from facexlib.detection.retinaface_utils import PriorBox

    anchors: Tensor = PriorBox(generate_config("resnet50"), image_size=(height, width)).forward()
    return anchors[None]


def alignment(face: Face) -> Points:
    """The similarity that takes the picture to the face's crop, (2, 3)."""
    return classical.similarity(face.points.astype(np.float32), np.array(REFERENCE, np.float32))


def cut_out(photo: Image, face: Face) -> Image:
    """The face's crop, (512, 512, 3) uint8 RGB, black beyond the picture."""
    return _rounded(_warped(photo, cv2.invertAffineTransform(alignment(face)), (CROP, CROP)))


def feather(head: Mask) -> Floats:
    """The blend mask of a crop, (512, 512) float32, 0 to 1: the head without the crop's border, blurred."""
    weight = np.zeros(head.shape)
    inside = (slice(FRAME_PX, -FRAME_PX),) * 2
    weight[inside] = head[inside]
    for _ in range(2):
        weight = cv2.GaussianBlur(weight, (BLUR_PX, BLUR_PX), BLUR_SIGMA)
    return weight.astype(np.float32)


def paste(sharp: Image, restored: Sequence[Restored]) -> Image:
    """Puts restored faces back; where several reach, the one that weighs most is seen.

    Args:
        sharp: (H, W, 3) uint8 RGB, the picture enlarged.
        restored: in order; of equal weights the first is seen.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = sharp.shape[:2]
    alpha, layer = np.zeros((height, width), np.float32), np.zeros_like(sharp)
    for face, crop, head in restored:
        left, top, right, bottom = face.box
        smooth = cv2.filter2D(crop, -1, _BINOMIAL) if min(right - left, bottom - top) < SMALL_FACE_PX else crop
        weight, over = (_warped(what, alignment(face), (height, width)) for what in (feather(head), smooth))
        wins = weight > alpha
        alpha[wins], layer[wins] = weight[wins], _rounded(over)[wins]
    share = alpha[..., None]
    mixed: Image = cv2.convertScaleAbs(sharp * (1 - share) + layer * share)
    return mixed


def _warped(picture: Image | Floats, matrix: Points, size: tuple[int, int]) -> Floats:
    """A picture (h, w) or (h, w, C) seen through a matrix (2, 3), bilinearly, 0 beyond it: (H, W) or (H, W, C) float32.

    The matrix takes pixels of the result to those of the picture. OpenCV before 5 rounds places to 32nds of a pixel.
    """
    import torch
    import torch.nn.functional as F

    height, width = picture.shape[:2]
    source = torch.from_numpy(np.atleast_3d(picture)).permute(2, 0, 1)[None].float()
    (ax, bx, cx), (ay, by, cy) = (matrix * [[2 / (width - 1)], [2 / (height - 1)]]).tolist()  # in halves of a picture
    y, x = torch.arange(size[0])[:, None], torch.arange(size[1])
    grid = torch.stack([ax * x + (bx * y + cx - 1), ay * x + (by * y + cy - 1)], dim=-1)[None]
    seen: Floats = F.grid_sample(source, grid, padding_mode="zeros", align_corners=True)[0].permute(1, 2, 0).numpy()
    return seen.reshape(*size, *picture.shape[2:])


def _rounded(levels: Floats) -> Image:
    return np.rint(levels).astype(np.uint8)


def _whole(*answers: Tensor) -> list[bool]:
    """Whether all numbers of each item of a batch are finite."""
    finite = [answer.isfinite().flatten(1).all(1).tolist() for answer in answers]
    return [all(of) for of in zip(*finite, strict=True)]


def _images(levels: Tensor) -> list[Image]:
    """(B, 3, H, W), whole numbers from 0 to 255 -> (H, W, 3) uint8 each."""
    return list(levels.byte().permute(0, 2, 3, 1).contiguous().cpu().numpy())


def _kept(items: Sequence[Item], whole: Sequence[bool]) -> list[Item | None]:
    return [item if good else None for item, good in zip(items, whole, strict=True)]
