import os
import re

import numpy as np
import pytest

from mmtt_build import parts
from mmtt_build.errors import BadImage, SourceError
from mmtt_build.images import encode_grey, encode_rgb
from mmtt_build.sources.base import LabelFile, Options, inside
from mmtt_build.sources.folder import Folder


def items(root, **options):
    return {item.path.relative_to(root).as_posix(): item for item in Folder(root, Options(**options)).items()}


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


ODD = (
    "a.png",
    "a.jpg",
    "sub/a.png",
    "sub-a.png",
    "sub/deep/er/x.JPEG",
    "with space.png",
    "ünï–code 漢字.png",
    "🙂.webp",
    ".hidden.png",
    "..a.png",
    "a..b.png",
    "...png.png",
    "..x/..y.png",
    "-rf.png",
    "$(id).png",
    "a\nb.png",
    "'\"`;.tif",
    f"{'x' * 251}.png",
    f"{'y' * 200}/{'z' * 200}/{'q' * 100}.png",
)


def test_odd_names_become_safe_unique_stable_ids(tmp_path):
    found = items(touch(tmp_path, *ODD))
    assert set(found) == set(ODD)
    names = [item.name for item in found.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9-]{1,40}-[0-9a-f]{8}", name) for name in names)
    assert found["with space.png"].name.startswith("with-space-")
    assert [item.name for item in items(tmp_path).values()] == names


def test_names_that_are_not_text_are_images_too(tmp_path):
    raw = os.fsencode(tmp_path) + b"/\xff\xfe face.png"
    try:
        with open(raw, "wb"):  # noqa: PTH123 - a Path cannot be made of bytes
            pass
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    (item,) = items(tmp_path).values()
    assert re.fullmatch(r"face-[0-9a-f]{8}", item.name)


def test_other_files_and_the_labels_are_no_images(tmp_path):
    root = touch(tmp_path, "a.png", "labels/a.png", "labels/sub/b.png", "notes.txt", "b.gif", "png", "sub/labels/c.png")
    assert list(items(root)) == ["a.png", "sub/labels/c.png"]


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"has no image \(.png, .jpg"):
        Folder(touch(tmp_path, "labels/a.png", "readme.txt"), Options())


def test_label_maps_pair_by_path_and_stem(tmp_path):
    root = touch(tmp_path, "a.jpg", "sub/a.jpg", "b.jpg", "labels/sub/a.png", "labels/b.jpg")
    found = items(root)
    assert found["sub/a.jpg"].parts == LabelFile(root / "labels/sub/a.png")
    assert found["a.jpg"].parts is None
    assert found["b.jpg"].parts is None
    assert found["a.jpg"].note == "no label map: only methods that need no parts can use it"
    assert found["sub/a.jpg"].note == ""


@pytest.mark.parametrize("order", [parts.CLASSES, parts.BISENET_CLASSES])
def test_label_maps_in_both_orders(tmp_path, order):
    wanted = np.random.default_rng(0).integers(0, 19, (512, 512), np.uint8)
    numbering = np.array([order.index(name) for name in parts.CLASSES], np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(encode_grey(numbering[wanted]))
    assert np.array_equal(LabelFile(path, order).load(tmp_path), wanted)


@pytest.mark.parametrize("value", [19, 255])
def test_a_value_that_is_no_class_is_refused(tmp_path, value):
    labels = np.ones((512, 512), np.uint8)
    labels[0, 0] = value
    (tmp_path / "a.png").write_bytes(encode_grey(labels))
    with pytest.raises(BadImage, match=f"label map a.png: value {value} is not one of the 19 classes"):
        LabelFile(tmp_path / "a.png").load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encode_rgb(np.zeros((256, 256, 3), np.uint8)), "label map a.png: PNG of mode RGB, needs a PNG with one"),
        (encode_grey(np.zeros((256, 200), np.uint8)), "label map a.png: part map of 200x256 pixels"),
        (b"", "label map a.png: empty file"),
        (b"labels", "label map a.png: not an image"),
    ],
)
def test_a_file_that_is_no_label_map_is_named(tmp_path, content, message):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(BadImage, match=message):
        LabelFile(tmp_path / "a.png").load(tmp_path)


def test_links_may_lead_elsewhere_inside_and_nowhere_else(tmp_path):
    root = touch(tmp_path / "source", "real/a.png")
    touch(tmp_path, "outside.png", "source-of-another/x.png")
    for name, target in (
        ("within.png", "real/a.png"),
        ("out.png", "../outside.png"),
        ("absolute.png", tmp_path / "outside.png"),
        ("neighbour.png", "../source-of-another/x.png"),
        ("loop.png", "loop.png"),
    ):
        (root / name).symlink_to(target)
    assert inside(root, root / "within.png") == root / "within.png"
    for name in ("out.png", "absolute.png", "neighbour.png"):
        with pytest.raises(BadImage, match="path leaves the source folder"):
            inside(root, root / name)
    with pytest.raises(BadImage, match="a loop of links"):
        inside(root, root / "loop.png")


def test_linked_folders_are_not_entered(tmp_path):
    root = touch(tmp_path / "source", "a.png")
    touch(tmp_path, "elsewhere/b.png")
    (root / "link").symlink_to("../elsewhere")
    (root / "self").symlink_to(".")
    assert list(items(root)) == ["a.png"]


def test_the_source_folder_itself_may_be_a_link(tmp_path):
    root = touch(tmp_path / "source", "a.png")
    (tmp_path / "link").symlink_to(root)
    linked = tmp_path / "link"
    assert inside(linked, next(iter(items(linked).values())).path)


@pytest.mark.parametrize("name", ["a", "a.png", "sub/a.png"])
def test_the_exclusion_list_knows_stems_names_and_paths(tmp_path, name):
    item = items(touch(tmp_path, "sub/a.png"), exclude=frozenset([name]))["sub/a.png"]
    assert item.excluded == f"exclusion list names {name}"


def test_the_licence_is_what_the_user_says(tmp_path):
    root = touch(tmp_path, "a.png")
    assert items(root)["a.png"].licence == "unknown"
    assert items(root, licence="CC-BY-4.0")["a.png"].licence == "CC-BY-4.0"
