"""The page that an annotator works on: its configuration, a task's data, and what came back.

Label Studio draws the page from `config`. Everything the page needs is in there, with style sheets instead of scripts,
so that it works on any server; the guard's script adds keys and a counter. Answers travel as aliases ("eye.left",
"nothing-visible"), so that the language of the page does not show in them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from annotation.page.answer import Answer, BadResult, aliases, read
from mmtt_build.errors import ConfigError
from mmtt_build.records import SIZE

__all__ = ["KEYS", "LANGUAGES", "NOTES", "NOTICE", "PROJECT", "Answer", "BadResult", "config", "read", "task"]

LANGUAGES = ("en", "zh")
KEYS = {
    "eye": "e", "pupil": "p", "lip": "l", "mouth": "m", "nose": "n", "ear": "a", "cheek": "c", "forehead": "f",
    "chin": "h", "jaw": "j", "eyebrow": "b", "tooth": "t", "tongue": "g", "beard": "d", "mustache": "u", "skin": "s",
    "hair": "i", "wrinkle": "w", "freckle": "k", "scar": "r", "dimple": "o",
}  # fmt: skip
"""The key that ticks a label; with shift the left one of a pair."""

NOTICE = "notice"
"""Key of a task's data: why it came back to its annotator."""
NOTES = ("note", NOTICE)
"""Keys of a task's data that only some tasks have, and keep."""

PROJECT = {
    "enable_empty_annotation": True,  # else Submit is grey without a word; the page's own messages say what is missing
    "show_skip_button": False,
    "show_instruction": False,
    "show_collab_predictions": False,
    "maximum_annotations": 1,
}
"""Settings of a project that goes with the page."""

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


def task(pair_id: str, *, pristine: str, forged: str, mask: str, focus: Sequence[int] | None = None) -> dict[str, str]:
    """The data of a task: what the configuration's variables stand for.

    Args:
        pair_id: how `push` and `pull` know the pair; not shown.
        pristine: address of the base image.
        forged: address of the forged image.
        mask: address of its mask; the page veils what is black in it, and leaves the region as it is, so that its
            texture, tone and seam can be judged.
        focus: x, y of the pixel where the zoom begins; None for the middle.
    """
    x, y = focus or (SIZE // 2, SIZE // 2)
    return {
        "pair_id": pair_id,
        "pristine": pristine,
        "forged": forged,
        "mask": mask,
        "focus_x": f"{(x + 0.5) / SIZE:.1%}",
        "focus_y": f"{(y + 0.5) / SIZE:.1%}",
    }


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
