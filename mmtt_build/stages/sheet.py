"""The contact sheet: pristine, forged, mask overlay and text, as in figure 7 of the MMTT paper."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from mmtt_build import images, masks
from mmtt_build.errors import ConfigError
from mmtt_build.seeds import seed_for
from mmtt_build.workspace import Workspace

CELL = 256
TEXT_WIDTH = 340
PAPER, INK, FAINT = (250, 250, 248), (24, 24, 28), (110, 110, 118)
OVERLAY = np.array((255, 40, 60), np.float32)


def contact_sheet(
    workspace: Workspace, path: Path, *, count: int = 12, method: str = "", columns: int = 2
) -> list[str]:
    """Draws forgeries, the methods taking turns, as one PNG.

    Args:
        workspace: whose forgeries.
        path: of the PNG.
        count: at most so many forgeries.
        method: only this one; "" means all.
        columns: forgeries side by side.

    Returns:
        Ids of what is shown.

    Raises:
        ConfigError: there is no forgery to show.
    """
    rows = _choose(workspace, count, method)
    if not rows:
        raise ConfigError("no forgery to show", "mmtt build generate")
    title, head = ImageFont.load_default(17), ImageFont.load_default(13)
    width, height = 3 * (CELL + 6) + TEXT_WIDTH, CELL + 12
    lines = -(-len(rows) // columns)
    sheet = PillowImage.new("RGB", (columns * width + 12, lines * height + 40), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column in range(columns):
        for cell, name in enumerate(("pristine", "forged", "mask overlay")):
            pen.text((column * width + 12 + cell * (CELL + 6), 12), name, INK, head)
    for number, row in enumerate(rows):
        left, top = (number % columns) * width + 12, (number // columns) * height + 36
        for cell, picture in enumerate(_pictures(workspace, row)):
            small = cv2.resize(picture, (CELL, CELL), interpolation=cv2.INTER_AREA)
            sheet.paste(PillowImage.fromarray(small), (left + cell * (CELL + 6), top))
        x = left + 3 * (CELL + 6) + 4
        pen.text((x, top), f"{row['method']} · {row['split']}", INK, title)
        facts = [
            row["forgery_id"],
            f"mask {row['mask_area']:.1%} of the frame, mean change {row['mean_change']:.1f}",
            *textwrap.wrap("parts: " + ", ".join(row["parts"]), 46),
        ]
        pen.multiline_text((x, top + 26), "\n".join(facts), FAINT, head, spacing=5)
        text = row["description"] or "(not described yet)"
        y = top + 34 + 19 * len(facts)
        room = max((top + CELL - y) // 19, 1)
        wrapped = textwrap.wrap(text, 46, max_lines=room, placeholder=" ...")
        pen.multiline_text((x, y), "\n".join(wrapped), INK, head, spacing=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
    return [row["forgery_id"] for row in rows]


def _choose(workspace: Workspace, count: int, method: str) -> list[dict[str, Any]]:
    made = workspace.forgeries.read()
    made = made.filter(pc.equal(made["status"], "ok"))
    by_method: dict[str, list[str]] = defaultdict(list)
    for name, of in zip(made["forgery_id"].to_pylist(), made["method"].to_pylist(), strict=True):
        if not method or of == method:
            by_method[of].append(name)
    queues = [sorted(names, key=lambda name: seed_for("sheet", name)) for _, names in sorted(by_method.items())]
    turns = [queue[i] for i in range(max(map(len, queues), default=0)) for queue in queues if i < len(queue)]
    bases = workspace.plan.read(["forgery_id", "base_id"])
    base = dict(zip(bases["forgery_id"].to_pylist(), bases["base_id"].to_pylist(), strict=True))
    texts = workspace.annotations.read(["forgery_id", "description"])
    text = dict(zip(texts["forgery_id"].to_pylist(), texts["description"].to_pylist(), strict=True))
    rows = made.filter(pc.is_in(made["forgery_id"], pa.array(turns[:count], pa.string()))).to_pylist()
    for row in rows:
        row["base_id"] = base[row["forgery_id"]]
        row["description"] = text.get(row["forgery_id"])
    return sorted(rows, key=lambda row: turns.index(row["forgery_id"]))


def _pictures(workspace: Workspace, row: dict[str, Any]) -> list[images.Image]:
    base = workspace.root / workspace.image_path("pristine", row["base_id"])
    pristine = images.decode_stored(base.read_bytes())
    forged = images.decode_stored(workspace.resolve(row["image"]).read_bytes())
    mask = masks.from_grey(images.decode_stored(workspace.resolve(row["mask"]).read_bytes(), grey=True))
    return [pristine, forged, overlay(forged, mask)]


def overlay(image: images.Image, mask: masks.Mask) -> images.Image:
    """The image (H, W, 3) with the mask (H, W) tinted red and outlined."""
    tinted = np.where(mask[..., None], image * 0.62 + OVERLAY * 0.38, image).astype(np.uint8)
    outlines, _ = cv2.findContours(masks.to_grey(mask), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(tinted, outlines, -1, OVERLAY.tolist(), 2)
