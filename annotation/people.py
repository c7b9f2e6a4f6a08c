"""Annotators: who is who, in the private folder of the server and never in a table."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmtt_build.errors import ConfigError

FILE_NAME = "annotators.csv"


@dataclass(frozen=True, slots=True)
class Person:
    """An annotator.

    Attributes:
        email: address, in small letters, as the server knows them.
        name: may be "".
    """

    email: str
    name: str = ""


def load(folder: Path | None) -> dict[str, Person]:
    """Annotators by pseudonymous id."""
    if folder is None or not (folder / FILE_NAME).is_file():
        return {}
    with (folder / FILE_NAME).open(newline="", encoding="utf-8") as file:
        return {row["annotator"]: Person(row["email"], row["name"]) for row in csv.DictReader(file)}


def save(folder: Path, people: Mapping[str, Person]) -> None:
    """Writes the file, readable by nobody else."""
    partial = folder / f".{FILE_NAME}.partial"
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("annotator", "email", "name"))
        writer.writerows((name, person.email, person.name) for name, person in people.items())
    partial.replace(folder / FILE_NAME)


def enrol(people: dict[str, Person], given: Path | None) -> list[str]:
    """Adds who is in the file and not known yet; ids of those who get work."""
    if given is None:
        if not people:
            raise ConfigError("nobody is there to annotate", "--annotators FILE.csv, with email,name a line")
        return list(people)
    ids = {person.email: name for name, person in people.items()}
    active = []
    for person in _read(given):
        if person.email not in ids:
            ids[person.email] = f"a{len(people) + 1:02d}"
            people[ids[person.email]] = person
        active.append(ids[person.email])
    return active


def _read(path: Path) -> list[Person]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as CSV: {error}", "email,name a line, in UTF-8") from error
    people: dict[str, Person] = {}
    for line, row in rows:
        email, name = row[0].strip().lower(), " ".join(row[1].split()) if len(row) > 1 else ""
        if line == 1 and email == "email":
            continue
        if not re.fullmatch(r"[^@\s,]+@[^@\s,]+", email):
            raise ConfigError(f"{path}, line {line}: {email!r} is no e-mail address", "email,name a line")
        if email in people:
            raise ConfigError(f"{path}, line {line}: {email} is there twice", "one line per annotator")
        people[email] = Person(email, name)
    if not people:
        raise ConfigError(f"{path} names nobody", "email,name a line")
    return list(people.values())
