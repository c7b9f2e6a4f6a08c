"""The rules on a description's words: their number, their language, and what they must not say."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mmtt_build.records import Annotation
from qc.base import Context, Evidence, Severity, rule
from qc.lexicon import LANGUAGES, load
from qc.spelling import HAN


@rule("text.empty", Severity.REJECT)
def empty(annotation: Annotation, context: Context) -> str | None:
    """An annotation that says it describes something has words."""
    if annotation.answer != "described" or context.words:
        return None
    return "answered 'described' without a word of description"


@rule("text.too-short", Severity.REVIEW, "min_words")
def too_short_a_text(annotation: Annotation, context: Context) -> str | None:
    """A description has at least `min_words` words, fewer say nothing."""
    least = context.thresholds.min_words
    return f"{_counted(context.words)}, at least {least}" if 0 < context.words < least else None


@rule("text.too-long", Severity.REJECT, "max_words")
def too_long(annotation: Annotation, context: Context) -> str | None:
    """A description has at most `max_words` words, counted by white space as the paper does, or Chinese characters."""
    most = context.thresholds.max_words
    return None if context.words <= most else f"{_counted(context.words)}, at most {most}"


@rule("text.no-part", Severity.INFO)
def no_part(annotation: Annotation, context: Context) -> str | None:
    """A description names a part of the face."""
    if not context.words or context.language not in LANGUAGES or context.mentions:
        return None
    return "names none of the 21 parts"


@rule("text.language", Severity.REVIEW)
def language(annotation: Annotation, context: Context) -> str | None:
    """A description is written in the recipe's language."""
    if context.words < _JUDGED_WORDS or context.language not in LANGUAGES:
        return None
    said = context.folded.words[0][:_READ_WORDS]
    if context.language == "zh":
        han = sum(map(bool, map(_IS_HAN.match, said)))
        return None if han >= len(said) / 2 else f"{han} of {len(said)} words are Chinese characters"
    known = sum(map(load(context.language).heads.__contains__, said))
    if known >= _KNOWN_SHARE * len(said):
        return None
    return f"{known} of {len(said)} words are known in {context.language!r} descriptions"


@rule("text.original", Severity.REJECT)
def original(annotation: Annotation, context: Context) -> Evidence | None:
    """A description stands alone: no word on the original image or on the comparison."""
    return context.said("original", "speaks of the original image: {}")


@rule("text.personal", Severity.REJECT)
def personal(annotation: Annotation, context: Context) -> Evidence | None:
    """A description holds no address, number or account."""
    spans = sorted(_addresses(context.text))
    return context.quoted(spans, "holds personal data: {}") if spans else None


@rule("text.name", Severity.REVIEW)
def name(annotation: Annotation, context: Context) -> Evidence | None:
    """A description does not say who the person is or looks like."""
    known = load("en").heads
    text = context.text
    spans = [
        match.span(1)
        for match in (_NAME.finditer(text) if _CAPITAL.search(text) else ())
        if not any(w.lower() in known for w in re.findall(r"\w+", match[1]))
    ]
    if len(spans) > 1 and sum(map(str.istitle, head := text[:4096].split())) > len(head) / 2:
        spans = []  # Somebody Who Writes Like This
    if spans:
        return context.quoted(spans, "seems to name a person: {}")
    return context.said("lookalike", "says who the person is or looks like: {}")


def _counted(number: int) -> str:
    return f"{number} word{'s' if number != 1 else ''}"


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    """E-mail addresses, links, accounts, telephone and identity numbers; each is searched only where its mark is."""
    if "@" in text:
        yield from (match.span() for match in _AT.finditer(text))
    if _DOT.search(text) or "://" in text:
        yield from (match.span() for match in _LINK.finditer(text))
    if _DIGITS.search(text):
        found = _NUMBER.finditer(text)
        yield from (match.span() for match in found if sum(map(str.isdigit, match[0])) >= _NUMBER_DIGITS)


_DOT, _DIGITS = re.compile(r"\.[A-Za-z]"), re.compile(r"\d")
_JUDGED_WORDS = 6
"""Fewer words do not show a language."""
_READ_WORDS = 200
"""So many show it well enough."""
_KNOWN_SHARE = 0.2
"""Of an English description's words, at least so many are terms and cues of the lexicon."""
_IS_HAN = re.compile(f"[{HAN}]")
_NUMBER_DIGITS = 8
"""No count of pixels or measure in a description is as long."""

_APART = "(?<![A-Za-z0-9_.@+-])"  # Chinese characters may stand next to it
_AT = re.compile(
    rf"{_APART}(?:[\w.+-]{{1,64}}@[\w-]{{1,63}}(?:\.[\w-]{{1,63}}){{1,8}}|@[a-z]\w{{2,29}}\b)", re.I | re.ASCII
)
_REST = r"[^\s<>\"']"
_LINK = re.compile(
    rf"https?://{_REST}{{1,2000}}|{_APART}(?:www\.{_REST}{{1,2000}}"
    rf"|[a-z0-9-]{{1,63}}\.(?:com|org|net|cn|io|info|eu|de|uk)\b(?:/{_REST}{{0,2000}})?)",
    re.I | re.ASCII,
)
_NUMBER = re.compile(rf"{_APART}[+(]?\d(?:[\s().-]{{0,2}}\d){{7,24}}(?![A-Za-z0-9_])")
_CAPITAL = re.compile(r"[A-Z](?<=[\w,;)]\s.)")  # not of the first word of a sentence; most texts have none
_NAME = re.compile(
    r"(?<=[\w,;)]\s)"
    r"((?:Mr|Mrs|Ms|Dr|Prof)\.?\s[A-Z][a-z]{1,20}"
    r"|[A-Z][a-z]{1,20}\s(?:[A-Z]\.\s|(?:de|van|von|di)\s)?[A-Z][a-z]{1,20}"
    r"|(?<=like\s)[A-Z][a-z]{2,20})\b"
)
