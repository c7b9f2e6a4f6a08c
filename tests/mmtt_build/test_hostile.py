"""Whole ingest runs over what a folder from elsewhere can hold: every file ends as a row, nothing stops the run."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from mmtt_build import images
from mmtt_build.sources.base import Options
from mmtt_build.stages.ingest import ingest
from mmtt_build.workspace import Workspace

MMTT = Path(sys.executable).with_name("mmtt")


def saved(pixels, kind, mode="RGB", **options):
    file = io.BytesIO()
    Pillow.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def bomb():
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(100))
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, body, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture
def hostile(tmp_path, quick_face):
    """A folder of hostile files; returns it and the wanted beginning of each one's reason ("" for a usable image)."""
    face = quick_face(1)[0]
    png, jpeg = saved(face, "PNG"), saved(face, "JPEG")
    exif = Pillow.Exif()
    exif[0x0112] = 6
    label = "label map"
    files = {
        "good.png": (png, ""),
        "good progressive.jpg": (saved(quick_face(2)[0], "JPEG", progressive=True), ""),
        "turned by exif.jpg": (saved(quick_face(3)[0], "JPEG", exif=exif.tobytes()), ""),
        "with trailing bytes.jpg": (saved(quick_face(4)[0], "JPEG") + b"x" * 5000, ""),
        "jpeg named.png": (saved(quick_face(5)[0], "JPEG"), ""),
        "empty.png": (b"", "empty file"),
        "text.jpg": (b"<html>not found</html>", "not an image"),
        "noise.png": (np.random.default_rng(0).bytes(3000), "not an image"),
        "cut.png": (png[: len(png) // 2], "truncated PNG"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated JPEG"),
        "bomb.png": (bomb(), "too many pixels"),
        "sixteen.png": (
            cv2.imencode(".png", face.astype(np.uint16) * 257)[1].tobytes(),
            "PNG of mode RGB with 16 bits",
        ),
        "grey.jpg": (saved(face, "JPEG", "L"), "JPEG of mode L"),
        "print.jpg": (saved(face, "JPEG", "CMYK"), "JPEG of mode CMYK"),
        "alpha.png": (saved(face, "PNG", "RGBA"), "PNG of mode RGBA"),
        "palette.png": (saved(face, "PNG", "P"), "PNG of mode P"),
        "animation.webp": (
            saved(face, "WEBP", save_all=True, append_images=[Pillow.fromarray(255 - face)]),
            "WEBP of 2 pictures",
        ),
        "wide.png": (saved(face[:200], "PNG"), "256x200 pixels, needs a square"),
        "small.png": (saved(face[:128, :128], "PNG"), "128x128 pixels, needs at least 256x256"),
        "labels cut.png": (png, f"{label} labels cut.png: "),
        "labels in colour.png": (png, f"{label} labels in colour.png: PNG of mode RGB"),
        "labels beyond.png": (png, f"{label} labels beyond.png: value 30"),
        "labels of nobody.png": (png, "implausible part map: skin covers 0.0%"),
    }
    root = tmp_path / "hostile"
    (root / "labels").mkdir(parents=True)
    for name, (data, _) in files.items():
        (root / name).write_bytes(data)
    grey = images.encode_grey(quick_face(1)[1])
    (root / "labels/labels cut.png").write_bytes(grey[:100])
    (root / "labels/labels in colour.png").write_bytes(png)
    (root / "labels/labels beyond.png").write_bytes(images.encode_grey(np.full((256, 256), 30, np.uint8)))
    (root / "labels/labels of nobody.png").write_bytes(images.encode_grey(np.zeros((256, 256), np.uint8)))
    (root / "folder.jpg").mkdir()
    os.mkfifo(root / "pipe.png")
    (tmp_path / "secret.png").write_bytes(png)
    (root / "out.png").symlink_to("../secret.png")
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "loop.png").symlink_to("loop.png")
    wanted = {name: reason for name, (_, reason) in files.items()}
    return root, wanted | {
        "folder.jpg": "not a regular file",
        "pipe.png": "not a regular file",
        "out.png": "path leaves the source folder",
        "gone.png": "missing file",
        "loop.png": "path cannot be followed",
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_every_hostile_file_ends_as_a_row_with_its_reason(workspace, hostile, workers):
    root, wanted = hostile
    summary = ingest(workspace, "folder", root, Options(), workers=workers)
    rows = {row["original"]: row for row in workspace.pristine.read().to_pylist()}
    assert set(rows) == set(wanted)
    for name, reason in wanted.items():
        assert rows[name]["status"] == ("failed" if reason else "ok"), rows[name]
        if reason:
            assert rows[name]["reason"].startswith(reason)
            assert "\n" not in rows[name]["reason"]
            assert rows[name]["image"] is None
    assert (summary.ok, summary.failed) == (5, len(wanted) - 5)
    stored = [path for path in (workspace.root / "images").rglob("*") if path.is_file()]
    assert len(stored) == 5
    assert ingest(workspace, "folder", root, Options(), workers=1).known == len(wanted)


def test_names_in_any_bytes_reach_the_table_as_text(workspace, tmp_path, quick_face):
    root = tmp_path / "faces"
    root.mkdir()
    png = saved(quick_face(1)[0], "PNG")
    (root / "漢字 \n🙂.png").write_bytes(png)
    (root / f"{'x' * 251}.png").write_bytes(png)
    try:
        with open(os.fsencode(root) + b"/\xff\xfe.png", "wb") as file:  # noqa: PTH123 - a Path cannot be made of bytes
            file.write(png)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert ingest(workspace, "folder", root, Options(), workers=1).ok == 3
    originals = set(workspace.pristine.read(["original"])["original"].to_pylist())
    assert originals == {"漢字 \n🙂.png", f"{'x' * 251}.png", "\\xff\\xfe.png"}
    assert ingest(workspace, "folder", root, Options(), workers=1).known == 3


def test_damaged_part_masks_fail_their_image_only(workspace, tmp_path, quick_face):
    root = tmp_path / "celeba"
    (root / "CelebA-HQ-img").mkdir(parents=True)
    masks = root / "CelebAMask-HQ-mask-anno/0"
    masks.mkdir(parents=True)
    _, labels = quick_face(0, 512)
    for number in range(8):
        (root / f"CelebA-HQ-img/{number}.jpg").write_bytes(saved(quick_face(number)[0], "JPEG"))
        for value, part in ((1, "skin"), (2, "nose"), (4, "l_eye"), (5, "r_eye"), (11, "u_lip"), (12, "l_lip")):
            mask = (labels == value).astype(np.uint8) * 255
            (masks / f"{number:05d}_{part}.png").write_bytes(saved(mask, "PNG", "RGB"))
    (masks / "00001_nose.png").write_bytes(b"")
    (masks / "00002_nose.png").write_bytes(saved(np.zeros((512, 300), np.uint8), "PNG", "RGB"))
    (masks / "00003_nose.png").write_bytes((masks / "00003_skin.png").read_bytes()[:200])
    left, right = masks / "00004_l_eye.png", masks / "00004_r_eye.png"
    left_bytes = left.read_bytes()
    left.write_bytes(right.read_bytes())
    right.write_bytes(left_bytes)
    for path in masks.glob("00005_*.png"):
        path.unlink()
    for path in masks.glob("00006_*.png"):
        path.write_bytes(saved(np.zeros((512, 512), np.uint8), "PNG", "RGB"))
    summary = ingest(workspace, "celebamask-hq", root, Options(), workers=1)
    rows = workspace.pristine.read().to_pylist()
    assert [row["status"] for row in rows] == ["ok", "failed", "failed", "failed", "failed", "ok", "failed", "ok"]
    beginnings = [
        "part mask 00001_nose.png: empty file",
        "part mask 00002_nose.png: part map of 300x512",
        "part mask 00003_nose.png: truncated PNG",
        "implausible part map: the subject's left eye",
    ]
    assert all(row["reason"].startswith(text) for row, text in zip(rows[1:5], beginnings, strict=True))
    assert rows[5]["parts"] is None
    assert rows[5]["reason"] == "no part mask file: only methods that need no parts can use it"
    assert rows[6]["reason"].startswith("implausible part map: skin covers 0.0%")
    assert (summary.ok, summary.failed) == (3, 5)


def test_a_full_disk_stops_the_run_and_loses_nothing(small_disk, tmp_path, quick_face):
    root = tmp_path / "faces"
    root.mkdir()
    for seed in range(12):
        (root / f"{seed}.png").write_bytes(saved(quick_face(seed)[0], "PNG"))
    workspace = Workspace.init(small_disk / "w")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(3_000_000))
    command = [MMTT, "build", "ingest", "-w", workspace.root, "--folder", root, "--workers", "1"]
    full = subprocess.run(command, capture_output=True, text=True)
    assert full.returncode == 1
    assert "No space left on device" in full.stderr
    assert "free some space and run the same command again" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list(small_disk.rglob(".tmp-*"))
    ballast.unlink()
    summary = ingest(workspace, "folder", root, Options(), workers=1)
    assert summary.ok + summary.known == 12
    rows = workspace.pristine.read().to_pylist()
    assert {row["status"] for row in rows} == {"ok"}
    for row in rows:
        stored = images.decode_stored(workspace.resolve(row["image"]).read_bytes())
        assert np.array_equal(stored, images.to_size(images.decode_rgb((root / row["original"]).read_bytes())))
    assert len(workspace.groups.read()) == 12


def test_a_table_that_was_tampered_with_cannot_lead_out_of_the_workspace(workspace):
    from mmtt_build.errors import StoreError

    for path in ("../../etc/passwd", "/etc/passwd", "images/../../x"):
        with pytest.raises(StoreError, match="leaves the workspace"):
            workspace.resolve(path)
    (workspace.root / "link").symlink_to("/etc")
    with pytest.raises(StoreError, match="leaves the workspace"):
        workspace.resolve("link/passwd")
