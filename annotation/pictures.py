"""What annotators look at: addresses of images in a task's data, and the overlays behind them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from annotation import page, tasks
from mmtt_build import images, masks, store
from mmtt_build.errors import BadImage, StoreError
from mmtt_build.records import SIZE
from mmtt_build.workspace import Workspace

BLANK = "blank"
"""Name of the overlay that shows nothing."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Makes the data of tasks, and what annotators look at.

    Attributes:
        workspace: whose pictures.
        url: address of the workspace's folder as annotators' browsers reach it.
        rows: assignments by task, with the paths of their images.
        pool: draws overlays.
    """

    workspace: Workspace
    url: str
    rows: Mapping[str, Mapping[str, Any]]
    pool: ThreadPoolExecutor

    def links(self, task: str) -> dict[str, str]:
        """The addresses of a task's three images."""
        row = self.rows[task]
        control = row["forgery_id"] is None
        paths = {
            "pristine": row["pristine"],
            "forged": row["pristine"] if control else row["image"],
            "overlay": self.workspace.image_path("overlays", BLANK if control else row["forgery_id"]),
        }
        return {name: f"{self.url}/{path}" for name, path in paths.items()}

    def make(self, names: Sequence[str]) -> list[tasks.Data]:
        """Data of tasks; draws their overlays."""
        return list(self.pool.map(self._make, names))

    def _make(self, task: str) -> tasks.Data:
        row = self.rows[task]
        if row["forgery_id"] is None:
            everywhere = np.ones((SIZE, SIZE), np.bool_)
            return page.task(task, **self.links(task), mask=everywhere)
        path = self.workspace.resolve(row["mask"])
        try:
            mask = masks.from_grey(images.decode_stored(path.read_bytes(), grey=True))
        except (OSError, BadImage) as error:
            raise StoreError(f"{path}: {error}", "restore it from a backup") from error
        overlay = self.workspace.root / self.workspace.image_path("overlays", row["forgery_id"])
        if not overlay.is_file():
            store.write_file(overlay, png(page.overlay(mask)))
        return page.task(task, **self.links(task), mask=mask)


def png(rgba: images.Image) -> bytes:
    """PNG of an overlay (H, W, 4) uint8 RGBA in which all pixels of one alpha have one colour: 2 kB.

    The alpha is the index into a palette: one channel is deflated in a tenth of the time of four.
    """
    alpha = np.ascontiguousarray(rgba[..., 3])
    palette = np.zeros((256, 3), np.uint8)
    for value in np.flatnonzero(cv2.calcHist([alpha], [0], None, [256], [0, 256])):
        palette[value] = rgba[..., :3].reshape(-1, 3)[np.argmax(alpha == value)]
    grey = images.encode_grey(alpha)
    header = bytearray(grey[16:29])
    header[9] = 3  # the colour type: a palette instead of grey
    chunks = ((b"IHDR", bytes(header)), (b"PLTE", palette.tobytes()), (b"tRNS", bytes(range(256))))
    made = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks)
    return b"".join([grey[:8], *made, grey[33:]])
