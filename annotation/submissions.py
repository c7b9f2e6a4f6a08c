"""What annotators submitted: on the server, or in a file that Label Studio exported as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ijson

from annotation.session import listing
from mmtt_build.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

AT_ONCE = 500
"""Tasks of a page of a listing."""
DRAFT = "draft:"
"""How the version of a model begins whose predictions are drafts of a description."""
SNAPSHOT = "mmtt pull"
"""Title of our snapshots."""
ABANDONED = timedelta(hours=1)
"""A snapshot of ours that is so much older than a new one was left by a pull that was killed."""

_NEEDED = ("id", "result", "created_at", "updated_at", "completed_by")
_REMEDY = "export the project as JSON, not as JSON-MIN or CSV"


@dataclass(frozen=True, slots=True)
class Submitted:
    """An annotation as Label Studio has it.

    Attributes:
        number: Label Studio's id.
        task: its id of the task.
        name: our id of the task, "" where it has none.
        user: its id of who submitted it, 0 where that account is deleted.
        email: address of that user, in small letters; "" where only the id is told.
        prediction: its id of the prediction that the annotation began from, None where it began empty.
        created_at: by the server's clock.
        updated_at: by the server's clock.
        lead_time_s: as the browser says, None without.
        result: of the page.
    """

    number: int
    task: int
    name: str
    user: int
    email: str
    prediction: int | None
    created_at: datetime
    updated_at: datetime
    lead_time_s: float | None
    result: list[dict[str, Any]]


def _of_task(number: int, data: Any, annotations: Any) -> Iterator[Submitted]:
    """Annotations of a task, without skipped ones."""
    name = str(data.get("pair_id", "")) if isinstance(data, dict) else ""
    for item in annotations or ():
        if item.get("was_cancelled"):
            continue
        user = item["completed_by"] or 0
        known = user if isinstance(user, dict) else {"id": user}
        yield Submitted(
            int(item["id"]), number, name, int(known["id"]), str(known.get("email") or "").lower(),
            item.get("parent_prediction"), _moment(item["created_at"]), _moment(item["updated_at"]),
            item.get("lead_time"), item["result"] or [],
        )  # fmt: skip


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment


# --- the server -------------------------------------------------------------------------------------------------------


def listed(client: LabelStudio, project: int, since: datetime | None = None) -> Iterator[Submitted]:
    """Annotations of a project, page by page: the fast way to a few of them.

    Args:
        client: of the server.
        project: its number.
        since: only of tasks that something happened to after this; None for all.
    """
    conditions = [{"filter": "filter:tasks:total_annotations", "operator": "greater", "type": "Number", "value": 0}]
    if since is not None:
        moment = since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        conditions.append(
            {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime", "value": moment}
        )
    query = json.dumps({"filters": {"conjunction": "and", "items": conditions}})
    task: Any
    for task in listing(client.tasks.list(project=project, fields="all", query=query, page_size=AT_ONCE), "total"):
        yield from _of_task(task.id, task.data, task.annotations)


def exported(client: LabelStudio, project: int) -> Iterator[Submitted]:
    """Annotations of a project from a snapshot, as a stream: the fast way to all of them.

    The snapshot is deleted in the end. Where the server fails to make one, they are listed.
    """
    exports = client.projects.exports
    filters: Any = {"annotated": "only"}
    made: Any = exports.create(project, title=SNAPSHOT, task_filter_options=filters)
    try:
        while made.status in ("created", "in_progress"):  # by a worker of the server, where it has one
            time.sleep(0.2)
            made = exports.get(project, made.id)
        if made.status != "completed":
            yield from listed(client, project)
            return
        file = ijson.from_iter(exports.download(project, made.id))
        for task in ijson.items(file, "item", use_float=True):
            yield from _of_task(task["id"], task["data"], task["annotations"])
    finally:
        exports.delete(project, made.id)
    other: Any
    for other in exports.list(project):
        if other.title == SNAPSHOT and other.created_at < made.created_at - ABANDONED:
            exports.delete(project, other.id)


def drafts(client: LabelStudio, project: int) -> set[int]:
    """Numbers of a project's predictions that are drafts of a description."""
    found = client.predictions.list(project=project)
    return {int(item.id or 0) for item in found if (item.model_version or "").startswith(DRAFT)}


def changed(client: LabelStudio) -> dict[int, tuple[int, dict[int, datetime]]] | None:
    """Per project with annotations their number and the latest changes, by annotation; None without a guard."""
    rows = _guarded(client, "mmtt/changed", {})
    if rows is None:
        return None
    return {
        row["project"]: (row["submitted"], {number: datetime.fromisoformat(at) for number, at in row["latest"]})
        for row in rows
    }


def served(client: LabelStudio, since: datetime) -> dict[tuple[int, int], float]:
    """When the guard first showed a task to a user, by the server's ids, in seconds since 1970; {} without a guard."""
    rows = _guarded(client, "mmtt/served", {"since": since.timestamp()}) or ()
    return {(row["user"], row["task"]): row["served_at"] for row in rows}


def _guarded(client: LabelStudio, path: str, asked: Mapping[str, float]) -> Iterator[dict[str, Any]] | None:
    http = client._client_wrapper.httpx_client  # the guard's addresses are none that the SDK has a method for
    answer = http.request(path, method="GET", params=dict(asked))
    if answer.status_code == 404:
        return None
    if answer.status_code != 200 or "ndjson" not in answer.headers.get("Content-Type", ""):
        raise ServerError(
            f"{answer.url} answers with status {answer.status_code}, and not as our guard does",
            "check what stands before the server",
        )
    return map(json.loads, answer.text.splitlines())


# --- a file -----------------------------------------------------------------------------------------------------------


def in_file(path: Path) -> Iterator[Submitted]:
    """Annotations in a file with a project exported as JSON, as a stream.

    Raises:
        ConfigError: it is something else, or it breaks off.
    """
    try:
        with path.open("rb") as file:
            if file.read(64).lstrip()[:1] != b"[":
                raise ConfigError(f"{path} is no JSON export of Label Studio: it does not begin with a list", _REMEDY)
            file.seek(0)
            for task in ijson.items(file, "item", use_float=True):
                yield from _checked(path, task)
    except ijson.IncompleteJSONError as error:
        raise ConfigError(
            f"{path} breaks off, or is no JSON: {' '.join(str(error).split())[:80]}", "export it again"
        ) from error
    except (OSError, UnicodeDecodeError, ijson.JSONError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())[:80]}", _REMEDY) from error


def _checked(path: Path, task: Any) -> Iterator[Submitted]:
    number = task.get("id") if isinstance(task, dict) else None
    annotations = task.get("annotations") if isinstance(task, dict) else None
    if not isinstance(number, int) or not isinstance(annotations, list) or not isinstance(task.get("data"), dict):
        flat = isinstance(task, dict) and "annotation_id" in task
        what = "tasks in the form JSON-MIN" if flat else "something else than tasks with annotations"
        raise ConfigError(f"{path} has {what}", _REMEDY)
    for item in annotations:
        missing = [name for name in _NEEDED if name not in item] if isinstance(item, dict) else list(_NEEDED)
        if missing:
            raise ConfigError(f"{path}: an annotation of task {number} has no {', '.join(missing)}", _REMEDY)
    try:
        yield from _of_task(number, task["data"], annotations)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path}: an annotation of task {number} makes no sense: {error!r:.80}", _REMEDY) from error
