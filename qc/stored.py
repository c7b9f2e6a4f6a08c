"""The stored files of a forgery, each read once: bytes, header, pixels. What is wrong with one is noted, no error."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from mmtt_build import images
from mmtt_build.errors import BadImage, MmttError
from mmtt_build.parts import CLASSES
from mmtt_build.records import SIZE
from mmtt_build.workspace import Workspace
from qc import regions

GREY, RGB = 0, 2  # PNG's colour types
COLOURS = {GREY: "grey", RGB: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


@dataclass(frozen=True, slots=True)
class Header:
    """How a PNG stores its picture.

    Attributes:
        width: in pixels, like the height.
        height: of the picture.
        depth: bits of a channel.
        colour: PNG's number of the colour type.
        interlace: PNG's number of the interlace method.
        extra: kind and content of each chunk that is not needed for the pixels.
    """

    width: int
    height: int
    depth: int
    colour: int
    interlace: int
    extra: tuple[tuple[str, bytes], ...]

    @property
    def fits(self) -> bool:
        """Whether the picture has the project's size; another one, which may be a bomb, is not decoded."""
        return self.width == self.height == SIZE

    def __str__(self) -> str:
        """In words, without the content of chunks."""
        kind = f"{self.width}x{self.height} {COLOURS.get(self.colour, self.colour)} of {self.depth} bits"
        chunks = ", ".join(kind for kind, _ in self.extra)
        return f"{kind}{', interlaced' if self.interlace else ''}{f', with {chunks}' if chunks else ''}"


class Folders:
    """Where the files of a workspace lie. Whether a folder is a link is asked once: asking takes as long as reading."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._plain = {"": True}

    def path(self, relative: str) -> Path:
        """As `Workspace.resolve`, which follows links."""
        path = self._workspace.root / relative
        if relative.startswith("/") or path.is_symlink() or not self._is_plain(relative.rpartition("/")[0]):
            return self._workspace.resolve(relative)
        return path

    def _is_plain(self, folder: str) -> bool:
        """Whether it lies in the workspace without a link or a step up on the way."""
        plain = self._plain.get(folder)
        if plain is None:
            above, _, name = folder.rpartition("/")
            plain = name not in ("", "..") and self._is_plain(above)
            plain = self._plain[folder] = plain and not (self._workspace.root / folder).is_symlink()
        return plain


class File:
    """A picture's file, read once.

    Args:
        folders: of the workspace.
        what: it is, for messages.
        path: relative to the workspace.
        crc: CRC-32 that it had when it was stored.
        whole: whether to read all of it, and not only how it stores its picture, until the pixels are asked for.

    Attributes:
        unreadable: why it cannot be read, or None.
        changed: both CRC-32 if it is not the file that was stored, else None.
        header: how it stores its picture; None where it cannot be read.
    """

    def __init__(
        self, folders: Folders, what: str, path: str | None, crc: int | None = None, *, whole: bool = True
    ) -> None:
        self.what, self.path = what, path
        self.unreadable: str | None = None
        self.changed: str | None = None
        self.header: Header | None = None
        self._data = b""
        if path is None:
            self.unreadable = f"{what}: no file in the table"
            return
        try:
            self._path = folders.path(path)
            if not whole:
                with images.opened(self._path) as (file, size):
                    self.header = _header(partial(_part, file.fileno()), size)
                return
            self._data = images.read_bytes(self._path)
            if crc is not None and crc != self.crc:
                self.changed = f"{what} {path}: CRC-32 {self.crc:08x}, was {crc:08x}"
            self.header = _header(self._data.__getitem__, len(self._data))
        except MmttError as error:
            self.unreadable = f"{what} {path}: {error.message}"
        except (ValueError, struct.error):
            self.unreadable = f"{what}: not a whole PNG"

    @cached_property
    def crc(self) -> int:
        """Its CRC-32; of what cannot be read, that of nothing."""
        return isal_zlib.crc32(self._data)

    @property
    def fits(self) -> bool:
        """Whether there is a picture of the project's size."""
        return self.header is not None and self.header.fits

    def decoded(self, grey: bool = False) -> NDArray[np.uint8] | None:
        """The pixels, or None if they are damaged."""
        try:
            return images.decode_stored(self._data or images.read_bytes(self._path), grey)
        except (BadImage, cv2.error, MemoryError):
            self.unreadable = f"{self.what}: its pixels are damaged"
            return None

    def piece(self) -> tuple[NDArray[np.uint8], tuple[int, int]] | None:
        """As `images.decode_piece`, or None if the pixels are damaged."""
        try:
            return images.decode_piece(self._data)
        except (BadImage, cv2.error, MemoryError):
            self.unreadable = f"{self.what}: its pixels are damaged"
            return None


class PartMap(File):
    """A part map's file."""

    def __init__(
        self,
        folders: Folders,
        what: str,
        path: str | None,
        crc: int | None = None,
        points: Sequence[float] | None = None,
        landmarks: Sequence[float] | None = None,
    ) -> None:
        super().__init__(folders, what, path, crc)
        self._face = points, landmarks
        if self.header and not self.header.fits:
            self._refuse()

    @cached_property
    def map(self) -> regions.Map | None:
        """What masks are laid on, decoded when it is asked for; None where there is none."""
        labels = self.decoded(grey=True) if self.fits else None
        if labels is not None and int(labels.max()) >= len(CLASSES):
            self._refuse()
        elif labels is not None:
            return regions.Map(labels, *self._face)
        return None

    def _refuse(self) -> None:
        needed = f"{SIZE}x{SIZE} grey with values below {len(CLASSES)}"
        self.unreadable = f"{self.what} {self.path}: {self.header}, needs {needed}"


_Part = Callable[[slice], bytes]
"""Gives a slice of a file's bytes."""


def _part(descriptor: int, where: slice) -> bytes:
    return os.pread(descriptor, where.stop - where.start, where.start)


def _header(part: _Part, size: int) -> Header:
    """Reads the chunks of a PNG, of those with pixels only how long they are.

    Raises:
        ValueError: it is none, or is cut off; struct.error likewise.
    """
    start = part(slice(0, 29))
    if not start.startswith(b"\x89PNG\r\n\x1a\n") or start[12:16] != b"IHDR":
        raise ValueError("no PNG")
    width, height, depth, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", start, 16)
    return Header(width, height, depth, colour, interlace, tuple(_extra(part, size)))


def _extra(part: _Part, size: int) -> Iterator[tuple[str, bytes]]:
    at = 8
    while True:
        length, kind = struct.unpack(">I4s", part(slice(at, at + 8)))
        if kind == b"IEND":
            if size > at + 12:
                yield "bytes behind the end", part(slice(at + 12, size))
            return
        if kind not in (b"IHDR", b"IDAT", b"PLTE"):
            yield kind.decode("latin-1"), part(slice(at + 8, at + 8 + length))
        at += 12 + length
