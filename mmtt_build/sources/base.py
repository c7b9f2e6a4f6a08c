"""The contract of a source adapter: list the images of a dataset folder, with all that is known of each.

An adapter reads listings and annotation files only; it opens no image. Pixels and part masks are read later, in
worker processes, through the small picklable records defined here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from mmtt_build import images, landmarks, parts
from mmtt_build.errors import BadImage, SourceError
from mmtt_build.masks import from_grey
from mmtt_build.parts import LabelMap
from mmtt_build.records import SIZE


def inside(root: Path, path: Path) -> Path:
    """The path itself, if it still lies in the source folder once links and `..` are resolved.

    Raises:
        BadImage: it does not.
    """
    try:
        stays = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # RuntimeError: how Python before 3.13 reports a loop of links
        raise BadImage("path cannot be followed (a loop of links?)") from error
    if not stays:
        raise BadImage("path leaves the source folder (a link, or '..' in its name)")
    return path


@dataclass(frozen=True, slots=True)
class PartMasks:
    """One 0/255 mask file per part, as in CelebAMask-HQ; a part without a file is absent."""

    files: dict[str, Path]
    origin: ClassVar[str] = "masks"

    def load(self, root: Path, image: images.Image | None = None) -> LabelMap | None:
        """Flattens the masks in the order of `parts.CLASSES`, later classes on top; None if no file exists."""
        flat: LabelMap | None = None
        for index, name in enumerate(parts.CLASSES):
            path = self.files.get(name)
            if path is None or not path.is_file():
                continue
            try:
                mask = images.decode_part(images.read_bytes(inside(root, path)))
                if flat is None:
                    flat = np.zeros((SIZE, SIZE), np.uint8)
                flat[from_grey(images.labels_to_size(mask))] = index
            except BadImage as error:
                raise BadImage(f"part mask {path.name}: {error}") from error
        return flat


@dataclass(frozen=True, slots=True)
class LabelFile:
    """One label map file whose values index `order`."""

    path: Path
    order: tuple[str, ...] = parts.CLASSES
    origin: ClassVar[str] = "labels"

    def load(self, root: Path, image: images.Image | None = None) -> LabelMap | None:
        """Reads, resizes and reorders the map.

        Raises:
            BadImage: a value is not a class.
        """
        try:
            labels = images.labels_to_size(images.decode_labels(images.read_bytes(inside(root, self.path))))
            if labels.max() >= len(self.order):
                raise BadImage(f"value {labels.max()} is not one of the {len(self.order)} classes")
        except BadImage as error:
            raise BadImage(f"label map {self.path.name}: {error}") from error
        return parts.reorder(labels, self.order)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """68 facial landmarks, flat x, y, in pixels at 512x512.

    Attributes:
        xy: the 136 numbers.
        glasses: whether the dataset says that glasses are worn, or None where it does not say.
    """

    xy: tuple[float, ...]
    glasses: bool | None = None
    origin: ClassVar[str] = "landmarks"

    def load(self, root: Path, image: images.Image | None = None) -> LabelMap | None:
        """Draws the part map that the landmarks outline, with glasses if the dataset or else the image shows some."""
        points = np.array(self.xy, np.float32).reshape(68, 2)
        glasses = self.glasses
        if glasses is None:
            glasses = image is not None and landmarks.wears_glasses(image, points)
        return landmarks.part_map(points, glasses)


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source, before it is opened.

    Attributes:
        name: unique within the source and safe in a file name; `<source>-<name>` becomes the id.
        path: image file.
        parts: where its part map comes from, or None.
        identity: the person as the dataset numbers them, or None.
        official_split: the dataset's own partition, or None.
        licence: of this image.
        excluded: why a rule leaves this image out, or "".
        note: something the row should say although the image is usable.
    """

    name: str
    path: Path
    parts: PartMasks | LabelFile | Landmarks | None = None
    identity: str | None = None
    official_split: str | None = None
    licence: str = "unknown"
    licence_url: str | None = None
    author: str | None = None
    url: str | None = None
    excluded: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """What a user can say about a source beside its folder.

    Attributes:
        exclude_known_defects: leave out what the dataset's users reported.
        min_age: leave out age groups that begin below this (FFHQ-Aging labels).
        aging_csv: `ffhq_aging_labels.csv`, or None.
        exclude: names (numbers, file names or stems) that must not be used: withdrawn images, `no_cv`.
        identities: `identity_CelebA.txt`, or None to look for it beside the images.
        licence: licence of images that carry none of their own, or None for the adapter's default.
        order: class order of label maps in a `folder`.
    """

    exclude_known_defects: bool = True
    min_age: int = 20
    aging_csv: Path | None = None
    exclude: frozenset[str] = frozenset()
    identities: Path | None = None
    licence: str | None = None
    order: tuple[str, ...] = parts.CLASSES


class Source(ABC):
    """A dataset folder.

    Args:
        root: the folder as the user names it.
        options: what else the user said.

    Raises:
        SourceError: the folder does not have this dataset's layout.
    """

    def __init__(self, root: Path, options: Options) -> None:
        if not root.is_dir():
            raise SourceError(f"{root} is not a folder", "name the folder that the dataset was unpacked into")
        self.root = root
        self.options = options

    @abstractmethod
    def __len__(self) -> int:
        """Number of images, for the progress bar."""

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """The images, in a fixed order."""

    def excluded_by_user(self, *names: str) -> str:
        """The reason if any of an image's names is on the exclusion list, else ""."""
        hit = next((name for name in names if name in self.options.exclude), None)
        return f"exclusion list names {hit}" if hit else ""


def numbered(folder: Path, suffixes: tuple[str, ...], recursive: bool = False) -> dict[int, Path]:
    """Image files whose stem is a number, by that number, in numeric order.

    Raises:
        SourceError: two files have the same number, so that it cannot be said which one is meant.
    """
    numbers: dict[int, Path] = {}
    for path in folder.rglob("*") if recursive else folder.iterdir():
        if path.suffix.lower() in suffixes and path.stem.isascii() and path.stem.isdecimal():
            other = numbers.setdefault(int(path.stem), path)
            if other != path:
                first, second = sorted(p.relative_to(folder).as_posix() for p in (path, other))
                raise SourceError(
                    f"{folder} has two images of number {int(path.stem)}: {first} and {second}",
                    "name the one folder that is meant, or move the other images out of it",
                )
    return dict(sorted(numbers.items()))


def describe(labels: LabelMap, image: images.Image) -> dict[str, object]:
    """Facts about a face that planning needs: the columns part_areas, points and skin_lab.

    Args:
        labels: (512, 512) uint8 part map.
        image: (512, 512, 3) uint8 RGB.

    Raises:
        BadImage: the part map cannot be a face's.
    """
    areas = parts.areas(labels)
    share = areas[parts.INDEX["skin"]] / labels.size
    if not 0.03 <= share <= 0.9:
        raise BadImage(f"implausible part map: skin covers {share:.1%} of the frame (3 % to 90 %)")
    points = face_points(labels)
    if points:
        (left_x, left_y), (right_x, right_y), _, mouth_left, mouth_right = np.array(points).reshape(5, 2)
        if left_x <= right_x:
            raise BadImage("implausible part map: the subject's left eye lies left of the right one in the picture")
        if max(left_y, right_y) >= (mouth_left[1] + mouth_right[1]) / 2:
            raise BadImage("implausible part map: an eye lies below the mouth")
    skin = parts.select(labels, ["skin"])
    lab = cv2.cvtColor(image[skin][None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    return {"part_areas": areas.tolist(), "points": points, "skin_lab": lab.mean(axis=0).tolist()}


def face_points(labels: LabelMap) -> list[float]:
    """Subject's left eye, right eye, nose, mouth's left and right corner as 10 numbers, or [] if a part is absent."""
    points: list[float] = []
    for name in ("l_eye", "r_eye", "nose"):
        moments = cv2.moments(parts.select(labels, [name]).view(np.uint8), binaryImage=True)
        if not moments["m00"]:
            return []
        points += [moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]]
    rows, columns = np.nonzero(parts.select(labels, ["mouth", "u_lip", "l_lip"]))
    if not len(rows):
        return []
    for x in (columns.max(), columns.min()):
        points += [float(x), float(rows[columns == x].mean())]
    return points
