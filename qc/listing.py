"""Texts in, what the matcher sees of them out, as lines of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmtt_build.errors import ConfigError
from qc import official as published
from qc.mentions import labels, mentions


def texts(text: str | None, file: Path | None) -> Iterator[str]:
    """The texts of a command line: one text, or those of a file of JSON lines, read as they are asked for.

    Args:
        text: itself, or "-" for standard input.
        file: a JSON string or an object with "text" a line, or "-" for standard input.

    Raises:
        ConfigError: neither or both are given, the file cannot be read, or a line of it is no text.
    """
    if (text is None) == (file is None):
        raise ConfigError("give a text or --file, one of them", 'mmtt qc mentions "The left eye is blurred."')
    if text is not None and text != "-":
        yield text
    elif file is None or str(file) == "-":
        yield from _lines(sys.stdin.buffer, "standard input")
    else:
        try:
            with file.open("rb") as stream:
                yield from _lines(stream, str(file))
        except OSError as error:
            raise ConfigError(
                f"{file} cannot be read: {error.strerror}", "it should be a file of JSON lines"
            ) from error


def listing(given: Iterable[str], *, language: str | None = None, official: bool = False) -> Iterator[str]:
    """A line of JSON per text: {"text", "parts": [labels], "mentions": [{"label", "start", "end", "side", "negated"}]}.

    `parts` has each label that is mentioned, denied or not, in official order.

    Args:
        given: the texts.
        language: of the lexicon, ISO 639-1; None goes by the script of each text.
        official: by the published rule, which knows English only.

    Raises:
        ConfigError: there is no lexicon of the language.
    """
    for text in given:
        found = published.mentions(text) if official else mentions(text, language)
        row = {"text": text, "parts": labels(found), "mentions": [mention._asdict() for mention in found]}
        yield json.dumps(row, ensure_ascii=not text.isprintable())


def _lines(stream: Iterable[bytes], name: str) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"{name}, line {number}: not JSON: {error}", 'e.g. {"text": "The left eye is blurred."}'
            ) from error
        text = value.get("text") if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise ConfigError(
                f"{name}, line {number}: no text: {line[:80].decode('utf-8', 'replace').strip()}",
                'a line is a JSON string, or an object with "text"',
            )
        yield text
