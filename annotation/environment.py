"""The Python environment of the Label Studio server: its own, since its pins and ours exclude each other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from annotation.process import locked, wait
from mmtt_build.errors import ConfigError, ServerError

PINS = Path(__file__).with_name("label_studio.txt")
VERSION = next(
    line.partition("==")[2] for line in PINS.read_text("utf-8").splitlines() if "label-studio==" in line[:14]
)
"""Of Label Studio: what the environment holds, and what page and guard are tested with."""
INSTALL_S = 1800.0
VARIABLE = "MMTT_LABEL_STUDIO_ENVIRONMENT"


def default() -> Path:
    """Where the environment lies: $MMTT_LABEL_STUDIO_ENVIRONMENT, or the user's cache, by the XDG rules."""
    if named := os.environ.get(VARIABLE):
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmtt" / f"label-studio-{VERSION}"


def program(folder: Path, name: str = "label-studio") -> Path:
    """A program of an environment, the server's if none is named."""
    return folder / "venv" / "bin" / name


def ready(folder: Path) -> bool:
    """Whether the environment is complete and has these very pins."""
    made = folder / "pins.txt"
    # A link to a Python that is gone does not exist, either.
    return made.is_file() and made.read_bytes() == PINS.read_bytes() and (folder / "venv/bin/python").exists()


def make(folder: Path, say: Callable[[str], None]) -> bool:
    """Makes the environment, unless it is ready: 1 GB, some 160 packages from the package index.

    Args:
        folder: gets `venv`, and `pins.txt` when it is complete.
        say: gets a line now and then.

    Returns:
        Whether there was anything to do.

    Raises:
        ConfigError: the folder holds something else.
        ServerError: the packages could not be installed.
    """
    if ready(folder):
        return False
    if folder.exists() and not (folder.is_dir() and ((folder / "lock").is_file() or not any(folder.iterdir()))):
        raise ConfigError(
            f"{folder} is not empty and no environment of the annotation server", f"set {VARIABLE} to another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    busy = ServerError(f"{folder} is being made by another process", "wait until it is done")
    with locked(folder / "lock", busy) as lock:
        if ready(folder):
            return False
        (folder / "pins.txt").unlink(missing_ok=True)
        say(f"installing Label Studio {VERSION} into {folder}: 1 GB, once, one to three minutes")
        _install(folder, lock, say)
        shutil.copyfile(PINS, folder / "pins.txt")
    return True


def _install(folder: Path, lock: int, say: Callable[[str], None]) -> None:
    python = folder / "venv" / "bin" / "python"
    ours = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    uv = shutil.which("uv", path=ours)  # three times as fast; it reads no pip configuration, so pip may still succeed
    ways: list[Sequence[str | Path]] = [[python, "-m", "pip", "install", "--no-input", "--requirement", PINS]]
    if uv:
        ways.insert(0, [uv, "pip", "install", "--python", python, "--requirement", PINS])
    log = folder / "install.log"
    with log.open("wb") as output:
        if _run([sys.executable, "-m", "venv", "--clear", folder / "venv"], output, lock, say) and any(
            _run(way, output, lock, say) for way in ways
        ):
            return
    words = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    raise ServerError(
        f"the packages of Label Studio {VERSION} could not be installed: {words[-1] if words else 'no word why'}",
        f"see {log}; then the same command again",
    )


def _run(command: Sequence[str | Path], output: IO[bytes], lock: int, say: Callable[[str], None]) -> bool:
    process = subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        pass_fds=(lock,),
    )  # fmt: skip
    try:
        wait(lambda: process.poll() is not None, INSTALL_S, lambda s: say(f"  still installing, {s:.0f} s"))
    finally:  # Ctrl-C, or half an hour
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
    return process.returncode == 0
