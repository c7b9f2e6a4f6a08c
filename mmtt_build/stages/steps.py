"""How one forgery came about, as one picture: base, donor, the method's own steps, result and mask."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from mmtt_build import masks, parts, store
from mmtt_build.errors import ConfigError
from mmtt_build.images import encode_rgb
from mmtt_build.masks import Image
from mmtt_build.stages.sheet import FAINT, INK, PAPER, overlay

if TYPE_CHECKING:
    from generators.base import Forged, Job, Rejection

CELL, GAP, TITLE, HEAD = 320, 8, 22, 48
COLUMNS = 5


def make_folder(folder: Path) -> None:
    """Makes the folder that sheets go to.

    Raises:
        ConfigError: there is a file in its place, or it may not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"--debug-dir {folder}: {error.strerror}", "name a folder that you may write") from error


def write_sheet(folder: Path, job: Job, made: Forged | Rejection | Exception, outcome: str) -> None:
    """Writes `<forgery id>.png`.

    Args:
        folder: gets it.
        job: what was to be made.
        made: what became of it.
        outcome: line that says so.
    """
    store.write_file(folder / f"{job.id}.png", encode_rgb(draw(pictures(job, made), f"{job.id}   {outcome}")))


def pictures(job: Job, made: Forged | Rejection | Exception) -> dict[str, Image]:
    """All that there is to see of a forgery, by title; (H, W, 3) uint8 RGB or (H, W) uint8 grey."""
    from generators.base import Forged

    shown = {"base": job.image}
    if job.source_image is not None:
        shown["donor"] = job.source_image
    steps = {} if isinstance(made, Exception) else made.steps
    shown |= steps or {"parts of the base": parts.coloured(job.labels)}
    if isinstance(made, Forged):
        shown["result"] = made.image
        shown["mask"] = masks.to_grey(made.mask)
        if made.image.shape[:2] == made.mask.shape:  # else the contract is broken, and the sheet shows how
            shown["mask over result"] = overlay(made.image, made.mask)
    return shown


def draw(shown: Mapping[str, Image], headline: str) -> Image:
    """A contact sheet (H, W, 3) uint8 RGB of pictures with their titles, under a headline."""
    title, head = ImageFont.load_default(15), ImageFont.load_default(17)
    columns = min(COLUMNS, len(shown))
    lines = textwrap.wrap(headline, columns * (CELL + GAP) // 9) or [""]
    top, rows = HEAD + 22 * (len(lines) - 1), -(-len(shown) // columns)
    size = columns * (CELL + GAP) + GAP, top + rows * (CELL + TITLE + GAP)
    sheet = PillowImage.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.multiline_text((GAP, 12), "\n".join(lines), INK, head)
    for number, (name, picture) in enumerate(shown.items()):
        x, y = GAP + number % columns * (CELL + GAP), top + number // columns * (CELL + TITLE + GAP)
        how = cv2.INTER_AREA if picture.shape[0] > CELL else cv2.INTER_NEAREST
        small = cv2.resize(picture, (CELL, CELL), interpolation=how)
        small = np.repeat(small[..., None], 3, axis=2) if small.ndim == 2 else small
        pen.text((x, y), name, FAINT, title)
        sheet.paste(PillowImage.fromarray(small), (x, y + TITLE))
    return np.asarray(sheet)
