"""Decode, resize, encode: the one road that pristine and forged images both take.

Everything that leaves this module is RGB. The road is `ROAD`: decode to 8-bit RGB without colour
management or EXIF rotation, shrink by pixel area, store as lossless PNG. Its name goes into every row, because a
detector must never be able to learn a codec instead of a forgery.
"""

from __future__ import annotations

import io
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from mmtt_build import png
from mmtt_build.errors import BadImage
from mmtt_build.records import SIZE

Image = NDArray[np.uint8]

ROAD = "rgb8/area-512/png"
"""Name of the road, a column of the pristine table."""

MAX_PIXELS = 40_000_000
"""Largest picture that is decoded. FFHQ's are 1 MP; a bomb of 1 MB can claim 10 GP."""
MAX_BYTES = 200_000_000
"""Largest file that is read."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


def read_bytes(path: Path) -> bytes:
    """Bytes of an image file.

    Raises:
        BadImage: as `opened`.
    """
    with opened(path) as (file, size):
        return file.read(size)  # a size saves a third of the time


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """An image file to read from, and its size in bytes.

    Raises:
        BadImage: the file is missing, empty, not a regular file, over `MAX_BYTES`, or cannot be read.
    """
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise BadImage("not a regular file")
        if info.st_size == 0:
            raise BadImage("empty file (0 bytes)")
        if info.st_size > MAX_BYTES:
            raise BadImage(f"file of {info.st_size:,} bytes, at most {MAX_BYTES:,}")
        with path.open("rb") as file:
            yield file, info.st_size
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # the last one of a null character
        raise BadImage("missing file") from error
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror or error}") from error


def _header(data: bytes) -> tuple[str, str]:
    """Format and Pillow mode from the header alone, before anything is decoded.

    The mode says more than Pillow's, which calls 16-bit colour and a transparent colour key "RGB" too.

    Raises:
        BadImage: not an image, too many pixels, more than one picture in the file, or a TIFF that is stored turned.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PillowImage.open(io.BytesIO(data), formats=_FORMATS) as opened:
                # Multi-picture files of cameras are a JPEG with previews behind it.
                kind = "JPEG" if opened.format == "MPO" else str(opened.format)
                (width, height), mode = opened.size, opened.mode
                frames = 1 if kind == "JPEG" else getattr(opened, "n_frames", 1)
                tags = getattr(opened, "tag_v2", {})  # of a TIFF: 258 is bits per sample, 274 the orientation
                bits = max(tags.get(258, (8,))) if kind != "PNG" else data[24]
                orientation = tags.get(274, 1)
                keyed = mode == "RGB" and "transparency" in opened.info
    except PillowImage.DecompressionBombError as error:
        raise BadImage(f"too many pixels, at most {MAX_PIXELS:,}") from error
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads them into
        raise BadImage(f"not an image that this tool reads ({', '.join(_FORMATS)})") from error
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width}x{height} pixels, at most {MAX_PIXELS:,} in all")
    if frames > 1:
        raise BadImage(f"{kind} of {frames} pictures, needs one")
    if orientation != 1:  # OpenCV would turn it, whatever its flags say
        raise BadImage(f"{kind} that is stored turned (orientation {orientation}), needs an upright one")
    if mode == "RGB" and bits > 8:
        mode = f"RGB with {bits} bits a channel"
    return kind, f"{mode} with a transparent colour" if keyed else mode


def _decode(data: bytes, flags: int, modes: tuple[str, ...]) -> Image:
    kind, mode = _header(data)
    if mode not in modes:
        raise BadImage(f"{kind} of mode {mode}, needs {' or '.join(modes)} (8 bits a channel)")
    _refuse_truncated(data, kind)
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise BadImage(f"damaged {kind}: {error.err}") from error
    if array is None:
        raise BadImage(f"damaged {kind}: cannot be decoded")
    return array


def _refuse_truncated(data: bytes, kind: str) -> None:
    """OpenCV fills the missing end of a cut file with grey or black and says nothing; the end marks tell.

    The marks are looked for where they count: an embedded thumbnail has its own, and bytes may follow the last one.
    """
    at, end = 0, -1
    try:
        if kind == "JPEG":
            at = 2
            while data[at + 1] != 0xDA:  # segments up to the start of scan; no end mark inside them counts
                # 0xFF may be repeated as padding before a marker.
                at += 1 if data[at + 1] == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
            end = data.find(b"\xff\xd9", at)
        elif kind == "PNG":
            at = 8
            while end < 0:
                length, chunk = struct.unpack_from(">I4s", data, at)
                at += 12 + length
                end = at if chunk == b"IEND" else -1
        else:
            return  # the other decoders notice
    except (struct.error, IndexError):
        end = -1
    if not 0 <= end <= len(data):
        raise BadImage(f"truncated {kind}: it has no end mark")


def decode_rgb(data: bytes) -> Image:
    """Decodes a photograph to (H, W, 3) uint8 RGB.

    Raises:
        BadImage: not an image, truncated, too large, or not 8-bit RGB: grey, alpha, CMYK, palette and 16-bit files are
            refused rather than converted, since a conversion that only some files took could be learnt.
    """
    array = _decode(data, cv2.IMREAD_COLOR_RGB, ("RGB",))
    return array


def decode_labels(data: bytes) -> Image:
    """Decodes a one-channel label map (values are classes) to (H, W) uint8, values untouched."""
    kind, mode = _header(data)
    if kind != "PNG" or mode not in ("L", "P"):
        raise BadImage(f"{kind} of mode {mode}, needs a PNG with one 8-bit channel")
    try:  # Pillow: OpenCV would turn the indices of a palette file into their colours
        with PillowImage.open(io.BytesIO(data), formats=("PNG",)) as opened:
            return np.asarray(opened)
    except Exception as error:  # as in _header
        raise BadImage(f"damaged PNG: {error}") from error


def decode_part(data: bytes) -> Image:
    """Decodes a part mask, grey or RGB with 0 and 255, to (H, W) uint8 grey."""
    return _decode(data, cv2.IMREAD_GRAYSCALE, ("L", "RGB", "1", "P"))


def decode_stored(data: bytes, grey: bool = False) -> Image:
    """Decodes an image that this project wrote: (H, W, 3) uint8 RGB, or (H, W) uint8 if `grey`.

    Skips the checks that foreign files need.

    Raises:
        BadImage: the bytes are damaged.
    """
    array = png.decode(data)
    if array is None or array.ndim != (2 if grey else 3):
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB)
    if array is None:
        raise BadImage("damaged stored image: cannot be decoded")
    return array


def decode_piece(data: bytes) -> tuple[Image, tuple[int, int]]:
    """Decodes of a mask that this project wrote what lies around all that is not 0; else as `decode_stored`.

    Returns:
        That piece, (h, w) uint8, and the y and x of its first pixel.

    Raises:
        BadImage: the bytes are damaged.
    """
    piece = png.decode_piece(data)
    if piece is None:
        whole = decode_stored(data, grey=True)
        x, y, width, height = cv2.boundingRect(whole)
        piece = whole[y : y + height, x : x + width], (y, x)
    return piece


def to_size(image: Image) -> Image:
    """Shrinks (or grows) a square (N, N, 3) uint8 image to 512x512.

    By pixel area when shrinking: for 1024 px this is the rounded mean of each 2x2 block, nothing else.

    Raises:
        BadImage: the image is not square or smaller than 256 px.
    """
    height, width = image.shape[:2]
    if height != width:
        raise BadImage(f"{width}x{height} pixels, needs a square aligned face")
    if width < 256:
        raise BadImage(f"{width}x{height} pixels, needs at least 256x256")
    if width == SIZE:
        return image
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA if width > SIZE else cv2.INTER_CUBIC)


def labels_to_size(labels: Image) -> Image:
    """Resizes a square label map or part mask to 512x512 by nearest neighbour.

    Raises:
        BadImage: it is not square.
    """
    height, width = labels.shape[:2]
    if height != width:
        raise BadImage(f"part map of {width}x{height} pixels, needs a square one")
    # INTER_NEAREST_EXACT samples at pixel centres; INTER_NEAREST is off by half a pixel.
    return labels if width == SIZE else cv2.resize(labels, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST_EXACT)


def encode_rgb(image: Image, like: bytes = b"", mask: NDArray[np.bool_] | None = None) -> bytes:
    """Lossless PNG of (H, W, 3) uint8 RGB.

    Args:
        image: the picture.
        like: the stored PNG of one that has the same pixels outside the mask; what is the same is then not made again.
        mask: (H, W) bool, if `like` is given.
    """
    if mask is None:
        return png.encode(image)
    rows = np.flatnonzero(mask.any(axis=1))
    return png.encode(image, like, (int(rows[0]), int(rows[-1]) + 1))


def encode_grey(image: Image) -> bytes:
    """Lossless one-channel PNG of (H, W) uint8: masks and part maps."""
    return png.encode(image)
