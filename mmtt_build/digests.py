"""SHA-256 of files and folders, and copies that are hashed on the way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmtt_build.progress import Progress

MB = 1_000_000
SHOWN_FROM = 200 * MB
"""Bytes whose hashing takes long enough to show progress."""


def members(path: Path) -> Iterator[tuple[str, Path]]:
    """Relative names and files of a checkpoint; hidden files, which tools leave behind, are none of it."""
    if path.is_file():
        yield ".", path
        return
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in relative.parts):
            yield relative.as_posix(), file


def digests(path: Path, copy_to: Path | None = None, label: str = "hash") -> dict[str, dict[str, Any]]:
    """SHA-256, size and time of every file, by relative name; copies them on the way if told to."""
    from mmtt_build.progress import Progress

    found = list(members(path))
    total = sum(file.stat().st_size for _, file in found)
    hashed = {}
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(label, total // MB, "MB")) if total > SHOWN_FROM else None
        for name, source in found:
            copy = (copy_to if name == "." else copy_to / name) if copy_to else None
            if copy:
                copy.parent.mkdir(parents=True, exist_ok=True)
            digest, size = _digest(source, copy, progress)
            hashed[name] = {"sha256": digest, "size": size, "mtime_ns": (copy or source).stat().st_mtime_ns}
    return hashed


def _digest(source: Path, copy: Path | None, progress: Progress | None) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as file, copy.open("xb") if copy else nullcontext() as out:
        while chunk := file.read(MB):
            digest.update(chunk)
            size += len(chunk)
            if out:
                out.write(chunk)
            if progress:
                progress.step()
        if out:
            out.flush()
            os.fsync(out.fileno())
    return digest.hexdigest(), size
