"""What annotators look at: three pictures per task, under addresses that tell nothing.

They lie in images/tasks/<fan-out>/ as <task_id>-forged.png, -pristine.png and -mask.png, whatever the task's kind, so
that any server of files can show them. They are hard links to the stored files, and cost no space.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from annotation import page, tasks
from mmtt_build.errors import StoreError
from mmtt_build.workspace import Workspace

_AT_ONCE = 100  # a future for each would take as long as its links
NAMES = ("forged", "pristine", "mask")

_START = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True)
class Pictures:
    """Makes the data of tasks, and what annotators look at.

    Attributes:
        workspace: whose pictures.
        url: address of the workspace's folder as annotators' browsers reach it.
        rows: assignments by task, with paths of stored images: `pristine`, and of the forgery whose mask is shown the
            image, `forged`, the mask, `mask`, and where to look first, `focus`.
        pool: makes the pictures.
    """

    workspace: Workspace
    url: str
    rows: Mapping[str, Mapping[str, Any]]
    pool: ThreadPoolExecutor

    def make(self, names: Sequence[str]) -> Iterator[tasks.Data]:
        """Data of tasks, in their order, each once its pictures are in place; all are begun at once.

        Raises:
            StoreError: a stored image is missing.
        """
        some = [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)]
        return chain.from_iterable(self.pool.map(lambda of: [self._make(task) for task in of], some))

    def fits(self, task: str, data: tasks.Data) -> bool:
        """Whether a task's data has the addresses of its pictures, and these are there and of what is stored now."""
        if not self._links(task).items() <= data.items():
            return False
        try:
            return all(_age(self._picture(task, name)) == _age(self._stored(task, name)) for name in NAMES)
        except FileNotFoundError:
            return False

    def _links(self, task: str) -> dict[str, str]:
        return {name: f"{self.url}/{self._path(task, name)}" for name in NAMES}

    def _path(self, task: str, name: str) -> str:
        return f"{self.workspace.image_path('tasks', task).removesuffix('.png')}-{name}.png"

    def _picture(self, task: str, name: str) -> Path:
        return Path(f"{self.workspace.root}/{self._path(task, name)}")

    def _stored(self, task: str, name: str) -> Path:
        """The stored file that a picture is as old as: dates tell no control, and show which picture is outdated."""
        return _resolve(self.workspace, self.rows[task][name])

    def _make(self, task: str) -> tasks.Data:
        row = self.rows[task]
        try:
            for name in NAMES:
                if name == "forged" and row["forgery_id"] is None:
                    self._pretend(task)
                else:
                    _link(self._stored(task, name), self._picture(task, name))
        except OSError as error:
            raise StoreError(f"task {task} cannot be shown: {error}", "restore the file from a backup") from error
        return page.task(task, **self._links(task), focus=row["focus"])

    def _pretend(self, task: str) -> None:
        """Puts the pristine of a control into place as if it were forged."""
        like = self._stored(task, "forged")
        data = self._stored(task, "pristine").read_bytes()
        _write(self._picture(task, "forged"), _resized(data, like.stat().st_size), like)


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
    age = _age(like)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(age, age))


def _link(stored: Path, path: Path) -> None:
    """Puts a stored file into place under another name, too; as a copy where the file system has no links."""
    try:
        path.hardlink_to(stored)
        return
    except FileNotFoundError:  # the folder, or the stored file
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        path.unlink()
    except OSError:
        pass
    try:
        path.hardlink_to(stored)
    except FileNotFoundError:
        raise
    except OSError:
        _write(path, stored.read_bytes(), stored)
