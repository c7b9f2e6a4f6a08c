import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from mmtt_build import images
from mmtt_build.errors import BadImage


def picture(size=256, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def encoded(kind, mode="RGB", size=256, **options):
    file = io.BytesIO()
    Pillow.fromarray(picture(size)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def png_of(header, *chunks):
    """A PNG of the given IHDR fields and further chunks, with right checksums."""
    whole = [(b"IHDR", struct.pack(">IIBBBBB", *header)), *chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in whole
    )


def with_thumbnail(photograph, thumbnail):
    """A JPEG with another JPEG, end mark and all, in its first segment, as cameras write it."""
    body = b"Exif\0\0" + thumbnail
    return photograph[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + photograph[2:]


def test_1024_px_shrink_by_the_rounded_mean_of_each_block():
    image = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), np.uint8)
    blocks = image.reshape(512, 2, 512, 2, 3).astype(np.uint16).sum(axis=(1, 3))
    assert np.array_equal(images.to_size(image), (blocks + 2) // 4)


def test_512_px_stay_as_they_are():
    image = picture(512)
    assert np.array_equal(images.to_size(image), image)


@pytest.mark.parametrize("size", [256, 300, 700, 2048])
def test_other_sizes_come_to_512_and_keep_their_mean(size):
    image = picture(size)
    small = images.to_size(image)
    assert small.shape == (512, 512, 3)
    assert small.mean(axis=(0, 1)) == pytest.approx(image.mean(axis=(0, 1)), abs=1.5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((300, 301), "301x300 pixels, needs a square"), ((255, 255), "255x255 pixels, needs at least 256x256")],
)
def test_what_is_no_aligned_face_is_refused(shape, message):
    with pytest.raises(BadImage, match=message):
        images.to_size(np.zeros((*shape, 3), np.uint8))


def test_png_is_lossless_and_the_same_pixels_give_the_same_bytes():
    noise = np.random.default_rng(2).integers(0, 256, (512, 512, 3), np.uint8)
    for image in (noise, picture(512)):
        stored = images.encode_rgb(image)
        assert np.array_equal(images.decode_rgb(stored), image)
        assert np.array_equal(images.decode_stored(stored), image)
        assert images.encode_rgb(np.asfortranarray(image)) == stored
    grey = noise[..., 0]
    assert np.array_equal(images.decode_stored(images.encode_grey(grey), grey=True), grey)
    assert images.encode_grey(grey.copy()) == images.encode_grey(grey)


def test_png_says_what_other_readers_should_see():
    image = picture()
    with Pillow.open(io.BytesIO(images.encode_rgb(image))) as opened:
        assert opened.mode == "RGB"
        assert np.array_equal(np.asarray(opened), image)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("PNG", {"optimize": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_decode_to_their_pixels(kind, options):
    assert np.array_equal(images.decode_rgb(encoded(kind, **options)), picture())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_jpeg_decodes_as_pillow_does(options):
    data = encoded("JPEG", **options)
    with Pillow.open(io.BytesIO(data)) as opened:
        difference = np.abs(images.decode_rgb(data).astype(int) - np.asarray(opened))
    assert difference.max() <= 2  # two builds of libjpeg-turbo may round differently


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_stay_as_stored_whatever_exif_says(orientation):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "WEBP"):
        plain, turned = encoded(kind), encoded(kind, exif=exif.tobytes())
        assert turned != plain
        assert np.array_equal(images.decode_rgb(turned), images.decode_rgb(plain))


def test_a_turned_tiff_is_refused_because_its_decoder_would_turn_it():
    exif = Pillow.Exif()
    exif[0x0112] = 6
    with pytest.raises(BadImage, match=r"TIFF that is stored turned \(orientation 6\)"):
        images.decode_rgb(encoded("TIFF", exif=exif.tobytes()))
    exif[0x0112] = 1
    assert np.array_equal(images.decode_rgb(encoded("TIFF", exif=exif.tobytes())), picture())


def test_colour_profiles_and_gamma_change_nothing():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(images.decode_rgb(encoded("PNG", icc_profile=profile)), picture())
    whole = encoded("PNG")
    gamma = b"gAMA" + struct.pack(">I", 100_000)
    chunk = struct.pack(">I", 4) + gamma + struct.pack(">I", zlib.crc32(gamma))
    assert np.array_equal(images.decode_rgb(whole[:33] + chunk + whole[33:]), picture())


def sixteen_bits(suffix):
    return cv2.imencode(suffix, picture().astype(np.uint16) * 257)[1].tobytes()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded("PNG", "L"), "PNG of mode L, needs RGB"),
        (encoded("JPEG", "L"), "JPEG of mode L"),
        (encoded("PNG", "RGBA"), "PNG of mode RGBA"),
        (encoded("PNG", "LA"), "PNG of mode LA"),
        (encoded("PNG", "P"), "PNG of mode P"),
        (encoded("PNG", "1"), "PNG of mode 1"),
        (encoded("PNG", transparency=(1, 2, 3)), "PNG of mode RGB with a transparent colour"),
        (encoded("JPEG", "CMYK"), "JPEG of mode CMYK"),
        (encoded("TIFF", "LAB"), "TIFF of mode LAB"),
        (encoded("TIFF", "F"), "TIFF of mode F"),
        (sixteen_bits(".png"), "PNG of mode RGB with 16 bits a channel, needs RGB"),
        (sixteen_bits(".tiff"), "TIFF of mode RGB with 16 bits a channel"),
        (encoded("GIF"), r"not an image that this tool reads \(PNG, JPEG, WEBP, BMP, TIFF\)"),
    ],
)
def test_what_would_need_conversion_is_refused(data, message):
    with pytest.raises(BadImage, match=message):
        images.decode_rgb(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_more_than_one_picture_in_a_file_is_refused(kind):
    frames = [Pillow.fromarray(picture(seed=seed)) for seed in range(3)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(BadImage, match=f"{kind} of 3 pictures, needs one"):
        images.decode_rgb(file.getvalue())


def test_a_camera_file_with_a_preview_behind_it_is_its_first_picture():
    file = io.BytesIO()
    Pillow.fromarray(picture()).save(file, "MPO", save_all=True, append_images=[Pillow.fromarray(picture(seed=1))])
    decoded = images.decode_rgb(file.getvalue())
    assert np.abs(decoded.astype(int) - picture()).mean() < 6


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("keep", [0.001, 0.01, 0.1, 0.5, 0.9, -100, -12, -5, -1])
def test_a_cut_file_is_refused_wherever_it_is_cut(kind, keep):
    data = encoded(kind)
    cut = data[:keep] if keep < 0 else data[: max(1, round(keep * len(data)))]
    with pytest.raises(BadImage):
        images.decode_rgb(cut)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("missing", [1, 300, 2000])
def test_the_end_mark_of_a_thumbnail_does_not_make_a_cut_file_whole(options, missing):
    photograph = with_thumbnail(encoded("JPEG", quality=60, **options), encoded("JPEG", size=64))
    assert len(photograph) < 12_000  # so that the thumbnail's mark is close to the end
    assert images.decode_rgb(photograph).shape == (256, 256, 3)
    with pytest.raises(BadImage, match="truncated JPEG: it has no end mark"):
        images.decode_rgb(photograph[:-missing])


def test_an_end_chunk_quoted_in_a_text_does_not_make_a_cut_file_whole():
    whole = encoded("PNG")
    text = b"tEXtComment\0IEND\xaeB`\x82"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    commented = whole[:33] + chunk + whole[33:]
    assert np.array_equal(images.decode_rgb(commented), picture())
    with pytest.raises(BadImage, match="truncated PNG: it has no end mark"):
        images.decode_rgb(commented[:3000])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_bytes_after_the_end_are_no_damage(kind):
    data = encoded(kind)
    assert np.array_equal(images.decode_rgb(data + b"trailer" * 2000), images.decode_rgb(data))


@pytest.mark.parametrize("header", [(30_000, 30_000, 8, 2, 0, 0, 0), (8000, 8000, 8, 2, 0, 0, 0)])
def test_a_bomb_is_refused_before_it_is_decoded(header):
    data = png_of(header, (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    assert len(data) < 200
    with pytest.raises(BadImage, match=r"pixels, at most 40,000,000"):
        images.decode_rgb(data)
    with pytest.raises(BadImage, match=r"pixels, at most 40,000,000"):
        images.decode_labels(png_of((header[0], header[1], 8, 0, 0, 0, 0), (b"IDAT", b"x"), (b"IEND", b"")))


def test_a_bomb_of_text_is_refused():
    text = b"Comment\0\0" + zlib.compress(bytes(300_000_000), 9)
    data = png_of((256, 256, 8, 2, 0, 0, 0), (b"zTXt", text), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    with pytest.raises(BadImage):
        images.decode_rgb(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", np.random.default_rng(7).bytes(4096), b"BM" + bytes(60)],
)
def test_bytes_that_are_no_image_are_refused(data):
    for decode in (images.decode_rgb, images.decode_labels, images.decode_part):
        with pytest.raises(BadImage):
            decode(data)


_WHOLE = {kind: encoded(kind, size=64) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")}


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(_WHOLE)),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
    head=st.booleans(),
)
def test_damaged_bytes_decode_or_are_refused_and_nothing_else(kind, edits, head):
    data = bytearray(_WHOLE[kind])
    reach = min(len(data), 400) if head else len(data)
    for at, value in edits:
        data[int(at * (reach - 1))] = value
    for decode in (images.decode_rgb, images.decode_labels, images.decode_part):
        try:
            assert decode(bytes(data)).dtype == np.uint8
        except BadImage as error:
            assert "0x" not in str(error)  # the same file always has the same reason


def test_a_flipped_bit_in_a_png_is_noticed():
    data = encoded("PNG")
    rng = np.random.default_rng(3)
    for at in rng.integers(data.index(b"IDAT") + 4, len(data) - 20, 40):
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(BadImage, match=r"damaged PNG|truncated PNG"):
            images.decode_rgb(bytes(damaged))


def test_part_masks_read_the_same_in_every_way_of_writing_black_and_white():
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 20:50] = 255
    for mode in ("L", "RGB", "1", "P"):
        file = io.BytesIO()
        Pillow.fromarray(mask).convert(mode).save(file, "PNG")
        assert np.array_equal(images.decode_part(file.getvalue()), mask), mode
    with pytest.raises(BadImage, match="mode RGBA"):
        images.decode_part(encoded("PNG", "RGBA"))


def test_label_maps_keep_their_numbers():
    labels = np.random.default_rng(4).integers(0, 19, (64, 64), np.uint8)
    grey, palette = io.BytesIO(), io.BytesIO()
    Pillow.fromarray(labels).save(grey, "PNG")
    coloured = Pillow.fromarray(labels).convert("P")
    coloured.putpalette(np.random.default_rng(5).integers(0, 256, 768, np.uint8).tobytes())
    coloured.save(palette, "PNG", bits=8)
    assert np.array_equal(images.decode_labels(grey.getvalue()), labels)
    assert np.array_equal(images.decode_labels(palette.getvalue()), labels)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded("PNG"), "PNG of mode RGB, needs a PNG with one 8-bit channel"),
        (encoded("JPEG", "L"), "JPEG of mode L, needs a PNG"),
        (cv2.imencode(".png", picture()[..., 0].astype(np.uint16) * 257)[1].tobytes(), "PNG of mode I;16"),
        (encoded("PNG", "L")[:2000], "damaged PNG: image file is truncated"),
    ],
)
def test_what_is_no_label_map_is_refused(data, message):
    with pytest.raises(BadImage, match=message):
        images.decode_labels(data)


def test_label_maps_grow_and_shrink_by_whole_pixels():
    labels = np.random.default_rng(6).integers(0, 19, (256, 256), np.uint8)
    assert np.array_equal(images.labels_to_size(labels), labels.repeat(2, axis=0).repeat(2, axis=1))
    large = labels.repeat(4, axis=0).repeat(4, axis=1)
    assert np.array_equal(images.labels_to_size(large), labels.repeat(2, axis=0).repeat(2, axis=1))
    with pytest.raises(BadImage, match="part map of 256x200 pixels, needs a square one"):
        images.labels_to_size(labels[:200])


def test_files_that_are_none(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in (
        ("x.jpg", "not a regular file"),
        ("pipe.png", "not a regular file"),
        ("empty.png", r"empty file \(0 bytes\)"),
        ("absent.png", "missing file"),
        ("loop.png", "missing file|cannot be read"),
    ):
        with pytest.raises(BadImage, match=message):
            images.read_bytes(tmp_path / name)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # a hole, no disk space
    with pytest.raises(BadImage, match="file of 200,000,001 bytes, at most 200,000,000"):
        images.read_bytes(path)


def test_a_damaged_stored_image_is_named_so():
    with pytest.raises(BadImage, match="damaged stored image"):
        images.decode_stored(b"nothing")
