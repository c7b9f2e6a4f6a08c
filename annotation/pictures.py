"""What annotators look at: three pictures per task, under addresses that tell nothing.

They lie in images/tasks/<fan-out>/<task_id>/ as forged.png, pristine.png and overlay.png, whatever the task's kind, so
that any server of files can show them. The first two are hard links to the stored files, and cost no space.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from zlib_ng import zlib_ng

from annotation import page, tasks
from mmtt_build import images, masks
from mmtt_build.errors import BadImage, StoreError
from mmtt_build.workspace import Workspace

NAMES = ("forged", "pristine", "overlay")

_START = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True)
class Pictures:
    """Makes the data of tasks, and what annotators look at.

    Attributes:
        workspace: whose pictures.
        url: address of the workspace's folder as annotators' browsers reach it.
        rows: assignments by task, with paths of stored images: `pristine`, and of the forgery whose mask is shown the
            image, `forged`, and the mask, `overlay`.
        pool: makes the pictures.
    """

    workspace: Workspace
    url: str
    rows: Mapping[str, Mapping[str, Any]]
    pool: ThreadPoolExecutor

    def make(self, names: Sequence[str]) -> Iterator[tasks.Data]:
        """Data of tasks, in their order, each once its pictures are in place; all are begun at once.

        Raises:
            StoreError: a stored image is missing or damaged.
        """
        return self.pool.map(self._make, names)

    def fits(self, task: str, data: tasks.Data) -> bool:
        """Whether a task's data has the addresses of its pictures, and these are there and of what is stored now."""
        if not self._links(task).items() <= data.items():
            return False
        stored = self._stored(task)
        try:
            return all(_age(self._picture(task, name)) == _age(stored[name]) for name in NAMES)
        except FileNotFoundError:
            return False

    def _folder(self, task: str) -> str:
        return self.workspace.image_path("tasks", task).removesuffix(".png")

    def _links(self, task: str) -> dict[str, str]:
        return {name: f"{self.url}/{self._folder(task)}/{name}.png" for name in NAMES}

    def _picture(self, task: str, name: str) -> Path:
        return Path(f"{self.workspace.root}/{self._folder(task)}/{name}.png")  # in one piece: it is made 6 times a task

    def _stored(self, task: str) -> dict[str, Path]:
        """The stored file that each picture is as old as: dates tell no control, and show which picture is outdated."""
        row = self.rows[task]
        return {name: _resolve(self.workspace, row[name]) for name in NAMES}

    def _make(self, task: str) -> tasks.Data:
        stored = self._stored(task)
        forged, pristine, overlay = (self._picture(task, name) for name in NAMES)
        try:
            mask = masks.from_grey(images.decode_stored(stored["overlay"].read_bytes(), grey=True))
            overlay.parent.mkdir(parents=True, exist_ok=True)
            _link(stored["pristine"], pristine)
            if self.rows[task]["forgery_id"] is None:
                size = stored["forged"].stat().st_size
                _write(forged, _resized(stored["pristine"].read_bytes(), size), stored["forged"])
            else:
                _link(stored["forged"], forged)
            _write(overlay, png(page.overlay(mask), page.OVERLAY), stored["overlay"])
        except (OSError, BadImage) as error:
            raise StoreError(f"task {task} cannot be shown: {error}", "restore the file from a backup") from error
        return page.task(task, **self._links(task), mask=mask)


def png(values: images.Image, colours: Sequence[tuple[int, int, int, int]]) -> bytes:
    """PNG of few colours, two bits a pixel: 2 kB for an overlay.

    Args:
        values: (H, W) uint8, W a multiple of 4: indices of colours.
        colours: RGBA, at most four.
    """
    height, width = values.shape
    # Four bytes, 0 to 3 each, are the digits of one number; its product has them side by side in the upper byte.
    packed = (np.ascontiguousarray(values).view("<u4") * np.uint32(0x40100401)) >> np.uint32(24)
    lines = np.zeros((height, 1 + width // 4), np.uint8)
    lines[:, 1:] = packed
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 2, 3, 0, 0, 0)),
        (b"PLTE", b"".join(bytes(colour[:3]) for colour in colours)),
        (b"tRNS", bytes(colour[3] for colour in colours)),
        (b"IDAT", zlib_ng.compress(lines.data, 1)),
    )
    return b"".join([_START, *(_chunk(*chunk) for chunk in chunks), _END])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _resized(data: bytes, size: int) -> bytes:
    """A PNG with the same pixels and other bytes, larger by as many as it and a file of a size differ.

    Of an untouched pair both files would else have one size, which a browser's list of requests shows.
    """
    return data.removesuffix(_END) + _chunk(b"paDd", bytes(abs(len(data) - size))) + _END


def _resolve(workspace: Workspace, relative: str | None) -> Path:
    if relative is None:
        raise StoreError("an open task shows a forgery that is not there", "mmtt build generate")
    folder, _, name = relative.rpartition("/")
    return Path(f"{_resolved(workspace, folder)}/{name}")


@cache
def _resolved(workspace: Workspace, folder: str) -> Path:
    return workspace.resolve(folder)


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def _write(path: Path, data: bytes, like: Path) -> None:
    """Writes a picture that is then as old as a stored file; one that was not written to its end is not."""
    path.write_bytes(data)
    age = _age(like)
    os.utime(path, ns=(age, age))


def _link(stored: Path, path: Path) -> None:
    """Puts a stored file into place under another name, too; as a copy where the file system has no links."""
    try:
        try:
            path.hardlink_to(stored)
        except FileExistsError:
            path.unlink()
            path.hardlink_to(stored)
    except FileNotFoundError:
        raise
    except OSError:
        _write(path, stored.read_bytes(), stored)
