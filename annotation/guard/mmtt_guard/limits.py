"""What a submission must be: its length, its time, and nothing that the page does not send."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_HAN = r"\u3400-\u9fff\uf900-\ufaff"
_STOPS = r"\u3001-\u303f\uff01-\uff0f\uff1a-\uff20"  # of Chinese text, full width
_WORD = re.compile(rf"[{_HAN}]|[^\s{_HAN}{_STOPS}]+")

FIELDS = {
    "result", "lead_time", "draft_id", "started_at", "unique_id", "was_cancelled", "project",
    "parent_prediction", "parent_annotation",
}  # fmt: skip
"""What the page sends with an annotation or a draft."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From the environment.

    Attributes:
        seconds: least time between serving and submission.
        words: longest description.
    """

    seconds: float
    words: int

    @classmethod
    def load(cls) -> Limits:
        """Reads MMTT_SECONDS and MMTT_WORDS; without them the protocol's 60 and 120."""
        return cls(float(os.environ.get("MMTT_SECONDS", 60)), int(os.environ.get("MMTT_WORDS", 120)))


def words(text: str) -> int:
    """Words of a text: between white space, and each Chinese character for itself; Chinese stops are none."""
    return len(_WORD.findall(text))


def texts(result: Any) -> Iterable[str]:
    """All texts of a result, whichever control they say they are from."""
    for region in result if isinstance(result, list) else ():
        value = region.get("value") if isinstance(region, dict) else None
        typed = value.get("text", []) if isinstance(value, dict) else []
        yield from map(str, typed if isinstance(typed, list) else [typed])


def broken_pair(result: Any) -> bool:
    """Whether a result says only that the pair cannot be judged: that takes no minute."""
    regions = [region for region in result if isinstance(region, dict)] if isinstance(result, list) else []
    answers = [region.get("value", {}) for region in regions if region.get("from_name") == "answer"]
    return answers == [{"choices": ["broken-pair"]}] and not any(texts(result))


def refusal(body: Mapping[str, Any], user: int, project: int) -> str | None:
    """Why a body is not one of the page's for this user and project, or None. Word limits are not for drafts."""
    if foreign := sorted(set(body) - FIELDS - {"completed_by"}):
        return f"the page does not send {', '.join(foreign)}"
    if body.get("completed_by", user) != user:
        return "an annotation is by whoever sends it"
    if str(body.get("project") or project) != str(project):
        return "the task is in another project"
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # Label Studio would store it, and then fail to send the project to anybody
        return "a character of the text is only half there; type it again"
    if body.get("was_cancelled"):
        return "no skipping here: 'nothing visible' and 'broken pair' are answers"
    return None
