"""Annotators: who is who, in the private folder of the server and never in a table.

The file is there to be edited: a new e-mail address or name behind an id is the same person's. Excel may save it, with
semicolons and a byte order mark.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmtt_build.errors import ConfigError

FILE_NAME = "annotators.csv"
COLUMNS = ("annotator", "email", "name", "left")
_FORM = "email,name a line, in UTF-8"


@dataclass(frozen=True, slots=True)
class Person:
    """An annotator.

    Attributes:
        email: address, in small letters, as the server knows them.
        name: may be "".
        left: date on which they left, and got no more work; "" for who is there.
    """

    email: str
    name: str = ""
    left: str = ""


def load(folder: Path | None) -> dict[str, Person]:
    """Annotators by pseudonymous id.

    Raises:
        ConfigError: the file was edited into something that makes no sense.
    """
    if folder is None or not (folder / FILE_NAME).is_file():
        return {}
    path = folder / FILE_NAME
    remedy = f"mend the file; its columns are {', '.join(COLUMNS)}, and of these the last two may be missing"
    people: dict[str, Person] = {}
    for line, row in read(path, COLUMNS[:2], remedy):
        name = row["annotator"]
        if not re.fullmatch(r"[\w-]{1,8}", name):  # it is in a project's title, which may have 50 characters
            raise ConfigError(f"{path}, line {line}: {name!r} is no id of an annotator", remedy)
        if name in people:
            raise ConfigError(f"{path}, line {line}: {name} is there twice", remedy)
        email = _address(row["email"], path, line, (person.email for person in people.values()))
        people[name] = Person(email, row.get("name", ""), row.get("left", ""))
    return people


def save(folder: Path, people: Mapping[str, Person]) -> None:
    """Writes the file, readable by nobody else."""
    rows = ((name, person.email, person.name, person.left) for name, person in people.items())
    write(folder / FILE_NAME, COLUMNS, rows)


def read(path: Path, needed: Sequence[str], remedy: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with a header, by column, each with the number of its line.

    Args:
        path: of the file; with commas, semicolons or tabs.
        needed: columns that must be there, in any order and among others; a cell that is missing is "".
        remedy: what to do about one that is not.

    Raises:
        ConfigError: a column is missing, or it is no CSV file in UTF-8.
    """
    rows = list(_rows(path))
    header = [cell.lower() for cell in rows[0][1]] if rows else []
    if missing := [name for name in needed if name not in header]:
        raise ConfigError(f"{path} has no column {' and no column '.join(missing)}", remedy)
    for line, cells in rows[1:]:
        yield line, dict.fromkeys(needed, "") | dict(zip(header, cells, strict=False))


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a CSV file that appears whole or not at all, and that nobody else can read."""
    partial = path.with_name(f".{path.name}.partial")
    with os.fdopen(
        os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="", encoding="utf-8"
    ) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    partial.replace(path)


def enrol(people: dict[str, Person], given: Path | None, used: Collection[str] = ()) -> list[str]:
    """Adds who is in the file and not known yet; who is known may have another name now, or be back.

    Args:
        people: is changed.
        given: CSV file, email,name a line; None for everybody who is there.
        used: ids that may not be given to anybody new, beside those of `people`.

    Returns:
        Ids of those who get work.

    Raises:
        ConfigError: nobody is there, or the file cannot be read as such a list.
    """
    if given is None:
        active = [name for name, person in people.items() if not person.left]
        if not active:
            raise ConfigError("nobody is there to annotate", "--annotators FILE.csv, with email,name a line")
        return active
    ids = {person.email: name for name, person in people.items()}
    active = []
    for person in _read(given):
        name = ids.get(person.email) or _next({*people, *used})
        people[name] = replace(person, name=person.name or people[name].name) if name in people else person
        active.append(name)
    return active


def _next(used: Collection[str]) -> str:
    """An id after all others: one that was given once is nobody else's, even if its line was deleted."""
    return f"a{max((int(name[1:]) for name in used if re.fullmatch(r'a[0-9]+', name)), default=0) + 1:02d}"


def _read(path: Path) -> list[Person]:
    rows = list(_rows(path))
    email, name = 0, 1
    if rows and not any("@" in cell for cell in rows[0][1]):
        header = [re.sub(r"[^a-z]", "", cell.lower()) for cell in rows.pop(0)[1]]
        if "email" not in header:
            raise ConfigError(f"{path}: its first line has neither an e-mail address nor a column email", _FORM)
        email = header.index("email")
        name = header.index("name") if "name" in header else len(header)
    people: dict[str, Person] = {}
    for line, cells in rows:
        address, called = (cells[at] if at < len(cells) else "" for at in (email, name))
        address = _address(address, path, line, people)
        people[address] = Person(address, called)
    if not people:
        raise ConfigError(f"{path} names nobody", _FORM)
    return list(people.values())


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not empty, with their numbers; white space around a cell is none of its."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as CSV: {error}", f"{_FORM}; Excel calls that 'CSV UTF-8'") from error
    first = text.partition("\n")[0]
    separator = next((mark for mark in ";\t" if mark in first), ",")
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [" ".join(cell.split()) if "@" not in cell else cell.strip() for cell in cells]
    except csv.Error as error:
        raise ConfigError(f"{path} cannot be read as CSV: {error}", _FORM) from error


def _address(cell: str, path: Path, line: int, before: Iterable[str]) -> str:
    email = cell.lower()
    if not re.fullmatch(r"[^@\s,;]+@[^@\s,;]+", email):
        raise ConfigError(f"{path}, line {line}: {email!r} is no e-mail address", _FORM)
    if email in before:
        raise ConfigError(f"{path}, line {line}: {email} is there twice", "one line per annotator")
    return email
