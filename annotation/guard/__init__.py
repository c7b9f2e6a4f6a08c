"""The guard: what our Label Studio server asks of annotators, and does not let them do.

The community edition has no word limit, no least time and no roles. `SETTINGS` is a Django settings module that adds a
middleware to the package's own settings; the package itself stays as it is. Its folder goes onto the server's import
path: nothing below `mmtt_guard` imports anything of ours, since the server has an environment of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from annotation.guard.mmtt_guard.limits import words

__all__ = ["SETTINGS", "described_to", "variables", "words"]

SETTINGS = Path(__file__).with_name("mmtt_guard_settings.py")
"""For the server's start; see `annotation.server`."""


def variables(log: Path, *, seconds: float = 60.0, max_words: int = 120) -> dict[str, str]:
    """The environment variables that the guard reads.

    Args:
        log: sqlite file of what was served and submitted when; made by the server, and part of a backup.
        seconds: least time between a pair being served and its submission.
        max_words: longest description.
    """
    return {"MMTT_SERVED_LOG": str(log.absolute()), "MMTT_SECONDS": f"{seconds:g}", "MMTT_WORDS": str(max_words)}


def described_to(annotators: Iterable[str], note: str = "") -> str:
    """The description of a project that these annotators (by e-mail address), and nobody else, may open.

    A project without such a description is open to superusers only.
    """
    return f"annotators: {', '.join(sorted(annotators))}\n{note}".strip()
