"""What diffusion inpainting is asked to paint: the readable `prompts.toml`, or a lab's file of the same form.

A family is a kind of part (eyebrows, hair, ...) with attributes, an attribute has phrases, and a template makes
a sentence of the phrases drawn for the families that a forgery repaints. Nothing here loads a tokenizer: texts
are kept short by an upper estimate, see `tokens`.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmtt_build.errors import ConfigError
from mmtt_build.parts import CLASSES

FILE_NAME = "prompts.toml"

MAX_TOKENS = 75
"""Longest prompt and longest negative. CLIP reads 77 tokens, the two that it adds included, and cuts the rest off."""

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_WORD = re.compile(r"[a-zA-Z0-9]+|[^\W\x00-\x7f]")
_MARK = re.compile(r"[^\w\s]|_")


def tokens(text: str) -> int:
    """Tokens that CLIP will hardly exceed: one and a half a word, one a punctuation mark.

    "close-up" is two words and a mark; a letter beyond ASCII is a word of its own. CLIP's vocabulary made at most 0.96
    of this of any text of `prompts.toml`, drawn 4,000 times for 1 to 11 random parts.
    """
    return math.ceil(1.5 * len(_WORD.findall(text))) + len(_MARK.findall(text))


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one forgery is to show.

    Attributes:
        text: the sentence.
        negative: what it shall not show.
        attribute: slugs of what the text asks for, "thick-eyebrows" or "wavy-hair+blue-eyes"; goes into the row.
    """

    text: str
    negative: str
    attribute: str


@dataclass(frozen=True, slots=True)
class Phrase:
    """One wording of an attribute: for a single part of the family, and for all else."""

    one: str
    both: str


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of part, as in the file.

    Attributes:
        name: of its table.
        parts: parsing classes; any of them in a forgery calls for the family.
        attributes: phrases per slug.
        negative: added to the general one; "" for none.
        beside: of an alternative family: classes of which the forgery has to repaint one as well.
        share: of an alternative family: how often it then stands in for the family of the same parts.
    """

    name: str
    parts: tuple[str, ...]
    attributes: Mapping[str, tuple[Phrase, ...]]
    negative: str = ""
    beside: tuple[str, ...] = ()
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Prompts:
    """Templates and families, in the order of the file."""

    templates: tuple[str, ...]
    negative: str
    families: tuple[Family, ...]

    def choose(self, rng: np.random.Generator, parts: Sequence[str]) -> Prompt | None:
        """Draws the prompt of one forgery.

        Every family called for gives one phrase: an attribute is drawn evenly, then one of its phrases. Where not
        all of them fit into `MAX_TOKENS`, families are tried in random order and those that still fit are named; the
        parts left out are painted to suit the rest. Neither the order nor repetitions of `parts` matter.

        Texts can be cached: with `prompts.toml`, forgeries of one family draw from 1,132 distinct texts (283 phrases in
        4 templates) and 15 distinct negatives. Those of several families hardly ever repeat a text.

        Args:
            rng: the plan's generator for this row.
            parts: names of `mmtt_build.parts.CLASSES` that the forgery repaints.

        Returns:
            The prompt, or None where no family covers any of the parts.

        Raises:
            ValueError: for a name that is no parsing class.
        """
        if unknown := set(parts) - set(CLASSES):
            raise ValueError(f"no parsing classes: {', '.join(sorted(unknown))}; known: {', '.join(CLASSES)}")
        drawn = [(family, *_draw(rng, family, parts)) for family in self._called(rng, parts)]
        if not drawn:
            return None
        template = self.templates[rng.integers(len(self.templates))]
        text, kept = "", list[int]()
        for i in rng.permutation(len(drawn)):
            longer = template.format(phrase=_join([drawn[k][2] for k in sorted([*kept, i])]))
            if tokens(longer) <= MAX_TOKENS:
                text, kept = longer, sorted([*kept, i])
        return Prompt(text, self._negative([drawn[k][0] for k in kept]), "+".join(drawn[k][1] for k in kept))

    def _called(self, rng: np.random.Generator, parts: Sequence[str]) -> list[Family]:
        """The families that the parts call for, in order, with alternatives drawn in."""
        called = [f for f in self.families if not f.beside and set(f.parts) & set(parts)]
        for other in (f for f in self.families if f.beside):
            if set(other.parts) & set(parts) and set(other.beside) & set(parts) and rng.random() < other.share:
                called = [f for f in called if not set(f.parts) & set(other.parts)] + [other]
        return sorted(called, key=self.families.index)

    def _negative(self, families: Sequence[Family]) -> str:
        """The general negative with as many of the families' as fit."""
        text = self.negative
        for family in families:
            longer = ", ".join(filter(None, (text, family.negative)))
            text = longer if tokens(longer) <= MAX_TOKENS else text
        return text


def _draw(rng: np.random.Generator, family: Family, parts: Sequence[str]) -> tuple[str, str]:
    """A slug and a phrase of a family."""
    slug = list(family.attributes)[rng.integers(len(family.attributes))]
    phrases = family.attributes[slug]
    phrase = phrases[rng.integers(len(phrases))]
    return slug, phrase.one if len(set(family.parts) & set(parts)) == 1 else phrase.both


def _join(phrases: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))


def load(path: Path | None = None) -> Prompts:
    """Reads and checks a prompt file.

    Args:
        path: a lab's own file; None takes `prompts.toml` beside this module, which explains the form.

    Raises:
        ConfigError: naming the file, the table, the value found and the fix.
    """
    path = Path(__file__).with_name(FILE_NAME) if path is None else path
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}", "save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "prompts = the path of a prompt file") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}", "texts need quotes, lists brackets") from error
    return _Reader(path).prompts(data)


class _Reader:
    """Turns parsed TOML into `Prompts`; `at` is the place of a value, e.g. "eyes.attributes.blue-eyes"."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def error(self, at: str, message: str, fix: str) -> ConfigError:
        return ConfigError(f"{self.path}: {at}: {message}", fix)

    def prompts(self, data: Mapping[str, Any]) -> Prompts:
        self.need(data, "", ("templates",))
        templates = tuple(self.template(text, at) for at, text in self.items(data["templates"], "templates"))
        negative = self.text(data.get("negative", ""), "negative", empty=True)
        self.short(negative, "negative")
        tables = {name: value for name, value in data.items() if name not in ("templates", "negative")}
        if not tables:
            raise self.error("families", "there is none", "add a table, e.g. [eyes], with parts and [eyes.attributes]")
        families = tuple(self.family(name, table) for name, table in tables.items())
        self.agree(families)
        longest = max(templates, key=tokens)
        for family in families:
            for slug, phrases in family.attributes.items():
                for phrase in phrases:
                    for text in (phrase.one, phrase.both):
                        self.short(longest.format(phrase=text), f"{family.name}.attributes.{slug}")
            self.short(f"{negative}, {family.negative}", f"{family.name}.negative")
        return Prompts(templates, negative, families)

    def family(self, name: str, table: Any) -> Family:
        keys = ("parts", "attributes", "negative", "beside", "share")
        if not isinstance(table, dict):
            close = difflib.get_close_matches(name, ("templates", "negative"), 1)
            meant = f"did you mean '{close[0]}'?" if close else f"a family is a table: [{name}]"
            raise self.error(name, f"is {table!r}, needs a table", meant)
        self.need(table, f"{name}.", ("parts", "attributes"), keys)
        parts = self.classes(table["parts"], f"{name}.parts")
        beside = self.classes(table["beside"], f"{name}.beside") if "beside" in table else ()
        if ("share" in table) != bool(beside):
            raise self.error(name, "has one of 'beside' and 'share'", "an alternative family needs both, others none")
        share = table.get("share", 0.0)
        if type(share) not in (int, float) or not 0 <= share <= 1:
            raise self.error(f"{name}.share", f"is {share!r}", "a share lies between 0 and 1, e.g. share = 0.25")
        attributes = table["attributes"]
        if not isinstance(attributes, dict) or not attributes:
            fix = f"write [{name}.attributes] with one attribute a line"
            raise self.error(f"{name}.attributes", f"is {attributes!r}, needs a table of attributes", fix)
        return Family(
            name,
            parts,
            {slug: self.phrases(slug, value, f"{name}.attributes", len(parts)) for slug, value in attributes.items()},
            self.text(table.get("negative", ""), f"{name}.negative", empty=True),
            beside,
            float(share),
        )

    def phrases(self, slug: str, value: Any, table: str, parts: int) -> tuple[Phrase, ...]:
        at = f"{table}.{slug}"
        if not _SLUG.fullmatch(slug):
            raise self.error(table, f"attribute {slug!r}", "small letters, digits and '-', e.g. thick-eyebrows")
        phrases = []
        for place, item in self.items(value, at):
            if not isinstance(item, dict):
                text = self.text(item, place)
                phrases.append(Phrase(text, text))
                continue
            self.need(item, f"{place}.", ("one", "both"))
            if parts != 2:
                raise self.error(place, f"tells one from both in a family of {parts} parts", "write a plain text")
            phrases.append(Phrase(self.text(item["one"], f"{place}.one"), self.text(item["both"], f"{place}.both")))
        return tuple(phrases)

    def agree(self, families: Sequence[Family]) -> None:
        """What must not occur twice, and what an alternative family stands in for."""
        owner: dict[str, str] = {}
        for at, key, what in _unique(families):
            if key in owner:
                raise self.error(at, f"{what} is in {owner[key]} already", "keep it in one place")
            owner[key] = at
        for family in families:
            for part in family.parts:
                if family.beside and part not in owner:
                    fix = f"it stands in for the family of {part}: add one without 'beside'"
                    raise self.error(f"{family.name}.parts", f"no other family has {part!r}", fix)

    def template(self, text: Any, at: str) -> str:
        text = self.text(text, at, braces=True)
        if text.count("{phrase}") != 1 or re.search(r"[{}]", text.replace("{phrase}", "")):
            raise self.error(at, f"is {text!r}", "needs {phrase} once and no other braces")
        return text

    def classes(self, value: Any, at: str) -> tuple[str, ...]:
        names = [self.text(item, place) for place, item in self.items(value, at)]
        for name in names:
            if name not in CLASSES[1:]:
                close = difflib.get_close_matches(name, CLASSES[1:], 1)
                meant = f"did you mean '{close[0]}'?" if close else f"parsing classes: {', '.join(CLASSES[1:])}"
                raise self.error(at, f"{name!r} is no part of a face", meant)
        if len(set(names)) < len(names):
            raise self.error(at, f"is {names!r}", "name each part once")
        return tuple(names)

    def text(self, value: Any, at: str, empty: bool = False, braces: bool = False) -> str:
        if not isinstance(value, str):
            raise self.error(at, f"is {value!r}, needs a text in quotes", 'e.g. "thick bushy eyebrows"')
        if value != value.strip() or not value.isprintable() or not (value or empty):
            raise self.error(at, f"is {value!r}", "one line of text, with nothing around it")
        if not braces and re.search(r"[{}]", value):
            raise self.error(at, f"is {value!r}", "braces belong into templates only")
        return value

    def items(self, value: Any, at: str) -> list[tuple[str, Any]]:
        if not isinstance(value, list) or not value:
            raise self.error(at, f"is {value!r}, needs a list", 'e.g. ["one text", "another"]')
        return [(f"{at}[{i}]", item) for i, item in enumerate(value)]

    def need(self, table: Mapping[str, Any], at: str, keys: Sequence[str], known: Sequence[str] | None = None) -> None:
        """The keys are there; with `at`, none but the `known` ones are (at the top, any other is a family)."""
        for key in keys:
            if key not in table:
                raise self.error(f"{at}{key}", "missing", f"add {key} = ...")
        known = keys if known is None else known
        for key in table:
            if at and key not in known:
                close = difflib.get_close_matches(key, known, 1)
                raise self.error(
                    f"{at}{key}",
                    "unknown key",
                    f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}",
                )

    def short(self, text: str, at: str) -> None:
        if (count := tokens(text)) > MAX_TOKENS:
            fix = f"at most {MAX_TOKENS}, or CLIP cuts the end off: use fewer words here, or shorter templates"
            raise self.error(at, f"{text!r} may take {count} tokens", fix)


def _unique(families: Sequence[Family]) -> Iterator[tuple[str, str, str]]:
    """Place, key and name of everything that may occur once in a file: parts, slugs, and phrases of a family."""
    for family in families:
        if not family.beside:
            yield from ((f"{family.name}.parts", part, f"part {part!r}") for part in family.parts)
        for slug, phrases in family.attributes.items():
            at = f"{family.name}.attributes.{slug}"
            yield at, f"attribute {slug}", f"attribute {slug!r}"
            for phrase in phrases:
                for text in {phrase.one, phrase.both}:
                    yield at, f"phrase {text.lower()}", f"phrase {text!r}"
