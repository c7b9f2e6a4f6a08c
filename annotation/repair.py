"""Work that goes back to who did it: why, in words they can act on, and how the server is told.

With our guard the submission becomes its author's draft again, and the wait begins anew. Any other server lets nobody
act for an annotator; there the submission is deleted, and the task's page shows what was written beside the reasons.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from annotation.page import NOTICE
from mmtt_build.config import Qc
from mmtt_build.errors import ServerError
from mmtt_build.parts import LABELS

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

_QUOTES, _LETTERS = 3, 40
_AGAIN = "mmtt qc send-back"
_PART = re.compile(rf"\b(?:(left|right) )?({'|'.join(LABELS)})\b")


class Outcome(StrEnum):
    """What the server says."""

    DONE = "sent back"
    GONE = "it is not on the server any more"
    CHANGED = "its words are others by now"


def reasons(
    findings: Iterable[Mapping[str, Any]], description: str | None, qc: Qc, language: str, reviewer: str | None = None
) -> list[str]:
    """What an annotator is told: their own words and the page's rules, nothing of how the forgery was made.

    Args:
        findings: as `schema.FINDING` has them, those that are to be told.
        description: what was written.
        qc: thresholds of the recipe.
        language: of the page.
        reviewer: what a reviewer says besides.
    """
    words = _words(language)
    told = [words["reviewer"].format(" ".join(reviewer.split()))] if reviewer else []
    for finding in findings:
        sentence = words["rules"].get(finding["rule"])
        if sentence is None:
            continue  # of a rule that was there when it was judged, and is not now
        said = [_short((description or "")[span["start"] : span["end"]]) for span in finding["spans"] or ()]
        named = dict.fromkeys([*list(dict.fromkeys(said))[:_QUOTES], *_ticked(finding["message"], language)])
        quotes = words["comma"].join(words["quote"].format(text) for text in named)
        told.append(
            sentence.format(
                quotes=quotes or words["unquoted"], sides=words[qc.sides], seconds=f"{qc.min_observation_s:g}",
                words=qc.max_words, least=qc.min_words,
            )
        )  # fmt: skip
    return list(dict.fromkeys(told))


def notice(told: Sequence[str], language: str) -> str:
    """Reasons as the page shows them, one a line."""
    return "\n".join([_words(language)["head"], *(f"• {reason}" for reason in told)])


def guarded(client: LabelStudio) -> bool:
    """Whether the server has our guard."""
    http = client._client_wrapper.httpx_client  # the guard's addresses are none that the SDK has a method for
    return http.request("mmtt/about", method="GET").status_code == 200


def give_back(
    client: LabelStudio, number: int, updated_at: datetime, told: str, description: str | None, language: str,
    *, guard: bool,
) -> Outcome:  # fmt: skip
    """Returns a submission to its author; what is not there any more, or was changed, is left alone.

    Args:
        client: of the server.
        number: of the annotation.
        updated_at: when what was judged was changed last.
        told: for the page, from `notice`.
        description: what was written.
        language: of the page.
        guard: whether the server has ours.

    Raises:
        ServerError: the server does not do what it is asked.
    """
    http = client._client_wrapper.httpx_client
    if guard:
        asked = {"annotation": number, "updated_at": updated_at.isoformat(), "notice": told}
        status = http.request("mmtt/return", method="POST", json=asked).status_code
        if status == 404:
            raise ServerError("the server's guard is of an earlier release", "mmtt annotate stop, then serve")
        if status not in (204, 409, 410):
            raise ServerError(f"annotation {number} cannot be sent back (status {status})", _AGAIN)
        return {204: Outcome.DONE, 409: Outcome.CHANGED, 410: Outcome.GONE}[status]
    found = http.request(f"api/annotations/{number}/", method="GET")
    if found.status_code == 404:
        return Outcome.GONE
    if datetime.fromisoformat(found.json()["updated_at"]) != updated_at:
        return Outcome.CHANGED
    task: Any = client.tasks.get(id=str(found.json()["task"]))
    wrote = f"\n{_words(language)['wrote'].format(description)}" if description else ""
    client.tasks.update(id=str(task.id), data={**task.data, NOTICE: told + wrote})  # first: the reasons, then the loss
    client.annotations.delete(id=number)
    return Outcome.DONE


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…"


def _ticked(message: str, language: str) -> Iterator[str]:
    """The parts that a finding names from where it speaks of ticks on, as the page calls them."""
    for side, label in _PART.findall(message.partition("ticked")[2]):
        name = _words(language, "words.toml")["labels"][label]
        yield _words(language)[side].format(name) if side else name


@cache
def _words(language: str, file: str = "repair.toml") -> Mapping[str, Any]:
    return tomllib.loads(resources.files("annotation.page").joinpath(file).read_text("utf-8"))[language]
