"""What annotators submitted, as the server has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

AT_ONCE = 500
"""Tasks of a page of a listing."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """An annotation as the server has it.

    Attributes:
        number: the server's id.
        task: the server's id of its task.
        name: our id of the task, "" where it has none.
        user: the server's id of who submitted it.
        created_at: by the server's clock.
        updated_at: by the server's clock.
        lead_time_s: as the browser says, None without.
        result: of the page.
    """

    number: int
    task: int
    name: str
    user: int
    created_at: datetime
    updated_at: datetime
    lead_time_s: float | None
    result: list[dict[str, Any]]


def submitted(client: LabelStudio, project: int, since: datetime | None = None) -> Iterator[Submitted]:
    """Annotations of a project, page by page, without skipped ones.

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
    for task in client.tasks.list(project=project, fields="all", query=query, page_size=AT_ONCE):
        data = task.data if isinstance(task.data, dict) else {}
        for item in task.annotations or []:
            if item["was_cancelled"]:
                continue
            yield Submitted(
                item["id"], task.id, str(data.get("pair_id", "")), _number(item["completed_by"]),
                datetime.fromisoformat(item["created_at"]), datetime.fromisoformat(item["updated_at"]),
                item["lead_time"], item["result"],
            )  # fmt: skip


def _number(user: Any) -> int:
    return int(user["id"]) if isinstance(user, dict) else int(user or 0)


def served(client: LabelStudio, since: datetime) -> dict[tuple[int, int], float]:
    """When the guard first showed a task to a user, by the server's ids, in seconds since 1970; {} without a guard."""
    http = client._client_wrapper.httpx_client  # the guard's log is no address that the SDK has a method for
    answer = http.request("mmtt/served", method="GET", params={"since": since.timestamp()})
    if answer.status_code != 200 or "ndjson" not in answer.headers.get("Content-Type", ""):
        return {}
    rows = map(json.loads, answer.text.splitlines())
    return {(row["user"], row["task"]): row["served_at"] for row in rows}
