"""The page that an annotator works on: its configuration, a task's data, and what came back.

Label Studio draws the page from `config`. Everything the page needs is in there, with style sheets instead of scripts,
so that it works on any server; the guard's script adds keys and a counter. Answers travel as aliases ("eye.left",
"nothing-visible"), so that the language of the page does not show in them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import cv2
import numpy as np
from numpy.typing import NDArray

from annotation.page.answer import Answer, BadResult, aliases, read
from mmtt_build.errors import ConfigError

__all__ = ["KEYS", "LANGUAGES", "OVERLAY", "PROJECT", "Answer", "BadResult", "config", "overlay", "read", "task"]

Mask = NDArray[np.bool_]

LANGUAGES = ("en", "zh")
KEYS = {
    "eye": "e", "pupil": "p", "lip": "l", "mouth": "m", "nose": "n", "ear": "a", "cheek": "c", "forehead": "f",
    "chin": "h", "jaw": "j", "eyebrow": "b", "tooth": "t", "tongue": "g", "beard": "d", "mustache": "u", "skin": "s",
    "hair": "i", "wrinkle": "w", "freckle": "k", "scar": "r", "dimple": "o",
}  # fmt: skip
"""The key that ticks a label; with shift the left one of a pair."""

PROJECT = {
    "enable_empty_annotation": True,  # else Submit is grey without a word; the page's own messages say what is missing
    "show_skip_button": False,
    "show_instruction": False,
    "show_collab_predictions": False,
    "maximum_annotations": 1,
}
"""Settings of a project that goes with the page."""

OVERLAY = ((0, 0, 0, 0), (0, 0, 0, 150), (255, 220, 0, 255))
"""Colours of an overlay, RGBA: of the region, of what is around it, of its edge."""

_CELLS = 8  # the pointer moves the zoom in so many steps each way


def config(language: str = "en", *, max_words: int = 120, blind: bool = False) -> str:
    """The labelling configuration (XML) of a project.

    Args:
        language: of the page and of the descriptions, one of `LANGUAGES`.
        max_words: longest description, shown in the guideline.
        blind: show the forged image alone until the annotator has said whether something looks forged.

    Raises:
        ConfigError: there is no page in this language.
    """
    words = _words(language)
    texts = {name: text for name, text in words.items() if isinstance(text, str)}
    escaped = {name: escape(text, {'"': "&quot;"}) for name, text in texts.items()}
    rules = "".join(f"<li>{escape(rule.format(words=max_words))}</li>" for rule in words["guideline"])
    values = {name: quoteattr(text) for name, text in texts.items()} | {
        "pair": quoteattr(_read("pair.html").format(language=language, grid="<i></i>" * _CELLS**2, **escaped)),
        "alone": quoteattr(_read("alone.html").format(language=language)),
        "sides": quoteattr(f'<p class="mmtt-hint">{escaped["sides"]}</p>'),
        "rules": quoteattr(f'<ul class="mmtt-rules">{rules}</ul>'),
        "choices": "".join(_choices(words)),
    }
    look, say = (_read(name).format(**values) for name in ("look.xml", "say.xml"))
    if blind:
        alone, first = (_read(name).format(**values) for name in ("alone.xml", "first.xml"))
        then = '<View visibleWhen="choice-selected" whenTagName="first">{}</View>'
        look, say = alone + then.format(look), first + then.format(say)
    return _read("page.xml").format(css=_style(words), look=look, say=say)


def task(pair_id: str, *, pristine: str, forged: str, overlay: str, mask: Mask) -> dict[str, str]:
    """The data of a task: what the configuration's variables stand for.

    Args:
        pair_id: how `push` and `pull` know the pair; not shown.
        pristine: address of the base image.
        forged: address of the forged image.
        overlay: address of the `overlay` of its mask.
        mask: (H, W) bool, not empty; the zoom begins in it, half of it above and half below.
    """
    x, y = _focus(mask)
    return {
        "pair_id": pair_id,
        "pristine": pristine,
        "forged": forged,
        "overlay": overlay,
        "focus_x": f"{x:.1%}",
        "focus_y": f"{y:.1%}",
    }


def _focus(mask: Mask) -> tuple[float, float]:
    """Where to look first, as shares of width and height: the middle of two eyes would be the nose between them."""
    height, width = mask.shape
    filled = np.cumsum(mask.sum(1, dtype=np.uint32))
    y = int(np.searchsorted(filled, filled[-1] / 2))
    ends = np.flatnonzero(np.diff(mask[y].view(np.int8), prepend=0, append=0)).reshape(-1, 2)
    left, right = ends[np.argmax(ends[:, 1] - ends[:, 0])]
    return float(left + right) / 2 / width, (y + 0.5) / height


def overlay(mask: Mask) -> NDArray[np.uint8]:
    """What lies over the forged image to show where it was forged, (H, W) uint8: indices of `OVERLAY`.

    The region stays as it is, so that its texture and tone can be judged; all around it is dimmed. Its edge is drawn
    outside of it, so that the seam stays to be seen.

    Args:
        mask: (H, W) bool.
    """
    inside = mask.view(np.uint8)
    shade = cv2.dilate(inside, np.ones((5, 5), np.uint8))
    shade += 1
    shade -= inside
    shade -= inside
    return shade


def _choices(words: Mapping[str, Any]) -> Iterator[str]:
    for alias in aliases():
        label, _, side = alias.partition(".")
        shown = f"{words['labels'][label]} {words[side]}" if side else words["labels"][label]
        key = f"shift+{KEYS[label]}" if side == "left" else KEYS[label]
        yield f"<Choice value={quoteattr(shown)} alias={quoteattr(alias)} hotkey={quoteattr(key)}/>"


def _style(words: Mapping[str, Any]) -> str:
    """The style sheet on one line; no rule of it may hold a '>', which the editor does not read back from XML."""
    rules = _read("page.css").splitlines()
    rights = [i for i, alias in enumerate(aliases(), 1) if alias.endswith(".right")]
    for n, i in enumerate(rights):  # pairs begin in the first or the third of four columns
        rules.append(f".mmtt-parts .lsf-choice:nth-child({i}){{grid-column:{1 + n % 2 * 2}}}")
        left, key = f".mmtt-parts .lsf-choice:nth-child({i + 1}) sup", KEYS[list(aliases())[i].partition(".")[0]]
        shown = f'content:"[⇧{key}]";position:relative;top:-4px;font-size:10px'  # instead of [shift+e]
        rules.append(f"{left}{{font-size:0}}{left}::after{{{shown}}}")
    for button in ("submit", "update"):  # the editor's own, in English
        place = f"body:has(.mmtt) [data-testid=bottombar-{button}-button] span"
        rules.append(f'{place}{{font-size:0}}{place}::after{{content:"{words[button]}";font-size:16px}}')
    for cell in range(_CELLS**2):
        y, x = (f"{(step + 0.5) / _CELLS:.2%}" for step in divmod(cell, _CELLS))
        rules.append(f".pair .panes:has(i:nth-child({cell + 1}):hover){{--x:{x};--y:{y}}}")
    return escape("".join(rules))


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8").strip()


@cache
def _words(language: str) -> Mapping[str, Any]:
    if language not in LANGUAGES:
        raise ConfigError(f"no annotation page in language {language!r}", f"one of {', '.join(LANGUAGES)}")
    return tomllib.loads(_read("words.toml"))[language]
