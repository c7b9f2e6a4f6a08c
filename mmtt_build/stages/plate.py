"""The plate: one row as one picture, pristine, forged and mask side by side above the text with its marks."""

from __future__ import annotations

import io
import re
import textwrap
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import cv2
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from mmtt_build import store
from mmtt_build.stages.explain import OFF, PASS, Explanation
from mmtt_build.stages.sheet import FAINT, INK, PAPER
from qc.report.marks import Piece, pieces, visible

CELL, MARGIN = 400, 16
TEXT_PX, LINE_PX = 18, 27
_WIDTH = 3 * CELL + 4 * MARGIN
_MARK = (194, 54, 43)
_CHARACTERS, _LINES = 2000, 40
_FONTS = (
    "", "DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "NotoSansArabic-Regular.ttf", "PingFang.ttc", "Arial Unicode.ttf",
    "msyh.ttc", "segoeui.ttf",
)  # fmt: skip
"""Tried in this order; the first is Pillow's own, which has Latin letters only."""
_TOKEN = re.compile(r"\n|[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uff60]|[^\s\u2e80-\u9fff]+|[^\S\n]+")

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_Placed = tuple[float, int, str, bool]


def draw(explanation: Explanation, path: Path) -> None:
    """Writes the picture of one row as PNG; it is as high as its text needs.

    Args:
        explanation: of the row.
        path: of the file.
    """
    answer = explanation.answer
    text = (answer.text if answer else None) or ""
    spans = [span for ruling in explanation.rules for span in ruling.spans]
    parts, left_out = pieces(text, spans, _CHARACTERS)
    font, lacking = _font("".join(part.text for part in parts))
    placed = list(_place(parts, font))
    height = max((line for _, line, _, _ in placed), default=0) + 1 if placed else 0
    small = ImageFont.load_default(15)
    notes = [f"{left_out:,} more characters"] * bool(left_out)
    notes += [f"{lacking:,} characters that no font of this machine has"] * bool(lacking)
    for ruling in (*explanation.rules, *explanation.image_rules):
        if ruling.verdict not in (PASS, OFF):
            said = visible(f"{ruling.verdict}  {ruling.rule}: {ruling.message[:600]}")
            notes += textwrap.wrap(said, 150, subsequent_indent="    ")
    top = MARGIN + 24 + CELL + MARGIN
    sheet = PillowImage.new("RGB", (_WIDTH, top + height * LINE_PX + 12 + len(notes) * 22 + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    for cell, picture in enumerate(explanation.pictures):
        left = MARGIN + cell * (CELL + MARGIN)
        pen.text((left, MARGIN), picture.name, FAINT, small)
        if picture.image is None:
            pen.rectangle((left, MARGIN + 24, left + CELL, MARGIN + 24 + CELL), outline=FAINT)
            pen.text((left + 8, MARGIN + 32), textwrap.fill(visible(picture.missing), 48), FAINT, small)
        else:
            image = cv2.resize(picture.image, (CELL, CELL), interpolation=cv2.INTER_AREA)
            sheet.paste(PillowImage.fromarray(image), (left, MARGIN + 24))
    for x, line, word, marked in placed:
        y = top + line * LINE_PX
        pen.text((x, y), word, INK, font)
        if marked:
            under = y + TEXT_PX + 5
            pen.line((x, under, x + font.getlength(word), under), _MARK, 3)
    for number, note in enumerate(notes):
        pen.text((MARGIN, top + height * LINE_PX + 12 + number * 22), note, FAINT, small)
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    store.write_file(path, file.getvalue())


def _place(parts: tuple[Piece, ...], font: _Font) -> Iterator[_Placed]:
    """Words with their place: x in pixels, number of the line, whether they are marked."""
    room = _WIDTH - 2 * MARGIN
    x, line = 0.0, 0
    strong = (unicodedata.bidirectional(character) for part in parts for character in part.text)
    from_right = next((kind for kind in strong if kind in ("L", "R", "AL")), "L") != "L"
    for part in parts:
        for token in _TOKEN.findall(part.text):
            for word in textwrap.wrap(token, 60, drop_whitespace=False) or [token]:
                width = font.getlength(word) if word != "\n" else 0.0
                if word == "\n" or x + width > room:
                    x, line = 0.0, line + 1
                if line >= _LINES:
                    return
                if word == "\n":
                    continue
                yield MARGIN + (room - x - width if from_right else x), line, word, part.marked
                x += width


def _font(text: str) -> tuple[_Font, int]:
    """The first font that has all characters of a text, else the one that lacks fewest, and how many those are."""
    wanted = sorted({character for character in text if not character.isspace() and ord(character) > 126})
    best: tuple[_Font, int] | None = None
    for name in _FONTS:
        try:
            font: _Font = ImageFont.truetype(name, TEXT_PX) if name else ImageFont.load_default(TEXT_PX)
        except OSError:
            continue  # this machine does not have it
        nothing = bytes(font.getmask("\U0010fffe"))
        lacking = sum(bytes(font.getmask(character)) == nothing for character in wanted)
        if best is None or lacking < best[1]:
            best = font, lacking
        if not lacking:
            break
    assert best is not None  # Pillow's own is always there
    return best
