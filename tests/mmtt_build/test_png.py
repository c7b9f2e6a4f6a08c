"""The project's own PNGs: any reader reads them, and rewriting a part gives the bytes of writing all."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PillowImage

from mmtt_build import images, png


def picture(seed: int, height: int, width: int, grey: bool = False) -> NDArray[np.uint8]:
    """Smooth with some noise, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4) if grey else (4, 4, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.int16)
    return np.clip(smooth + rng.integers(-3, 4, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (31, 7), (32, 32), (33, 64), (512, 512), (700, 300)])
def test_every_reader_sees_the_same_pixels(size: tuple[int, int], grey: bool) -> None:
    image = picture(1, *size, grey)
    data = png.encode(image)
    assert np.array_equal(png.decode(data), image)
    flag = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), flag), image)
    with PillowImage.open(io.BytesIO(data)) as opened:
        opened.verify()  # every checksum
    with PillowImage.open(io.BytesIO(data)) as opened:
        assert opened.mode == ("L" if grey else "RGB")
        assert np.array_equal(np.asarray(opened), image)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 70), st.integers(1, 40), st.data())
def test_a_piece_is_what_lies_around_all_that_is_not_0(height: int, width: int, data: st.DataObject) -> None:
    """To the pixel, also where it touches a border, and where there is nothing."""
    image = np.zeros((height, width), np.uint8)
    for _ in range(data.draw(st.integers(0, 3))):
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        bottom, right = data.draw(st.integers(top, height)), data.draw(st.integers(left, width))
        image[top:bottom, left:right] = data.draw(st.integers(0, 255))
    found = png.decode_piece(png.encode(image))
    assert found is not None
    piece, (y, x) = found
    assert (x, y, *piece.shape[::-1]) == cv2.boundingRect(image)
    assert np.array_equal(piece, image[y : y + len(piece), x : x + piece.shape[1]])
    assert np.array_equal(png.decode(png.encode(image)), image)


def test_only_a_grey_picture_has_a_piece() -> None:
    assert png.decode_piece(png.encode(picture(1, 40, 40))) is None
    assert png.decode_piece(b"") is None
    foreign = cv2.imencode(".png", np.pad(np.full((2, 3), 9, np.uint8), 4))[1].tobytes()
    assert png.decode_piece(foreign) is None
    piece, at = images.decode_piece(foreign)
    assert (piece.shape, at) == ((2, 3), (4, 4))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 140), st.data())
def test_rewriting_the_changed_rows_is_writing_all(height: int, data: st.DataObject) -> None:
    base = picture(2, height, 40)
    first = data.draw(st.integers(0, height - 1))
    end = data.draw(st.integers(first + 1, height))
    forged = base.copy()
    forged[first:end, 5:20] ^= 9
    assert png.encode(forged, png.encode(base), (first, end)) == png.encode(forged)


def test_unchanged_bands_are_taken_as_they_are() -> None:
    """Seen by damaging one: were it made anew, the damage would be gone."""
    base = picture(3, 512, 512)
    stored = bytearray(png.encode(base))
    forged = base.copy()
    forged[500:510] ^= 9
    at = len(stored) // 4
    stored[at] ^= 1
    assert png.encode(forged, bytes(stored), (500, 510)) != png.encode(forged)
    assert png.decode(png.encode(forged, bytes(stored), (500, 510))) is None  # and no reader takes it for good


@pytest.mark.parametrize("other", ["another size", "another writer", "grey", "nothing"])
def test_what_fits_not_is_not_taken(other: str) -> None:
    base = picture(4, 128, 128)
    forged = base.copy()
    forged[60:70] ^= 9
    like = {
        "another size": png.encode(picture(4, 128, 96)),
        "another writer": cv2.imencode(".png", base)[1].tobytes(),
        "grey": png.encode(base[..., 0]),
        "nothing": b"",
    }[other]
    assert png.encode(forged, like, (60, 70)) == png.encode(forged)


def test_damage_is_not_read() -> None:
    data = png.encode(picture(5, 100, 100))
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
        broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
        made = png.decode(bytes(broken))
        # What stays readable is damage outside the pixels: a chunk's own checksum, zlib's window size.
        assert made is None or np.array_equal(made, picture(5, 100, 100)) or made.shape != (100, 100, 3)
    assert png.decode(b"") is None
    assert png.decode(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()) is None


def test_a_forgery_is_written_from_its_bases_file() -> None:
    base = picture(6, 512, 512)
    mask = np.zeros((512, 512), np.bool_)
    mask[200:260, 100:180] = True
    forged = base.copy()
    forged[mask] ^= 9
    assert images.encode_rgb(forged, images.encode_rgb(base), mask) == images.encode_rgb(forged)
