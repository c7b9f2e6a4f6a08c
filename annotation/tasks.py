"""Projects and tasks on a Label Studio server, made to agree with what was assigned.

The server has no unique key for a task and may have done what it did not answer. So nothing is sent twice: what is
there is listed, the difference is imported, and what is there is listed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from annotation import page
from annotation.access import Connection
from mmtt_build.errors import ServerError

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

AT_ONCE = 500
"""Tasks of an import, and of a page of a listing."""

Data = Mapping[str, str]


@contextmanager
def session(connection: Connection, again: str) -> Iterator[LabelStudio]:
    """A client whose failures name the server and the way out.

    Args:
        connection: to which server.
        again: the command that goes on where this one broke off.

    Raises:
        ServerError: the server does not answer, refuses the token or the request.
    """
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    with connection.client() as client:
        try:
            yield client
        except httpx.HTTPError as error:
            raise ServerError(
                f"{connection.url} does not answer ({type(error).__name__})",
                f"mmtt annotate status says more; then {again}: nothing is done twice",
            ) from error
        except ApiError as error:  # its own text holds headers, and with them a session
            if error.status_code in (401, 403):
                raise ServerError(f"the token of {connection.origin} is not accepted", "make a new one") from None
            said = " ".join(str(error.body).split())[:300]
            raise ServerError(
                f"{connection.url} answers with status {error.status_code}: {said}", f"mend that, then {again}"
            ) from None


@dataclass(frozen=True, slots=True)
class Found:
    """A project as it is on the server.

    Attributes:
        number: the server's id.
        title: as it shows.
        description: with the annotators who may open it.
        config: its page.
        submitted: annotations in it, skipped ones aside.
    """

    number: int
    title: str
    description: str
    config: str
    submitted: int


def projects(client: LabelStudio, titles: Iterable[str]) -> dict[str, Found]:
    """The projects with these titles.

    Raises:
        ServerError: two have one title.
    """
    wanted = set(titles)
    found: dict[str, Found] = {}
    include = "id,title,description,label_config,total_annotations_number"
    item: Any
    for item in client.projects.list(include=include, page_size=1000):
        if item.title not in wanted:
            continue
        if item.title in found:
            raise ServerError(
                f"the server has two projects {item.title!r}, numbers {found[item.title].number} and {item.id}",
                "delete the one without work, then mmtt annotate push",
            )
        found[item.title] = Found(
            item.id, item.title, item.description or "", item.label_config or "", item.total_annotations_number or 0
        )
    return found


@dataclass(frozen=True, slots=True)
class Wanted:
    """A project as it should be.

    Attributes:
        title: of the project.
        description: with the annotators who may open it.
        config: its page.
        tasks: ids of its tasks, in their order.
        optional: ids of tasks that may be there and need not.
    """

    title: str
    description: str
    config: str
    tasks: Sequence[str]
    optional: frozenset[str] = frozenset()


@dataclass(slots=True)
class Changes:
    """What was done to make the server agree.

    Attributes:
        imported: tasks that were not there.
        mended: tasks whose images had another address.
        doubled: tasks that were there twice and of which one without work was deleted.
        unknown: tasks in our projects that nobody here assigned; they are left alone.
    """

    imported: int = 0
    mended: int = 0
    doubled: int = 0
    unknown: list[str] = field(default_factory=list)


def reconcile(
    client: LabelStudio,
    wanted: Wanted,
    found: Found | None,
    *,
    make: Callable[[Sequence[str]], list[Data]],
    links: Callable[[str], Data],
    changes: Changes,
    step: Callable[[int], None],
) -> None:
    """Makes one project agree: page, description, every task once.

    Args:
        client: of the server.
        wanted: the project as it should be.
        found: as it is, None if it is not there.
        make: gives the data of tasks and puts what they point at into place.
        links: the addresses in a task's data.
        changes: is added to.
        step: told how many tasks are right.

    Raises:
        ServerError: a task is still missing after all, or somebody else is importing into the project.
    """
    if found is None:
        settings: dict[str, Any] = {**page.PROJECT, "label_config": wanted.config, "description": wanted.description}
        number = int(client.projects.create(title=wanted.title, **settings).id or 0)
    else:
        number = found.number
        if (found.description, found.config) != (wanted.description, wanted.config):
            client.projects.update(id=number, description=wanted.description, label_config=wanted.config)
    there = _unique(client, number, changes)
    known = {*wanted.tasks, *wanted.optional}
    changes.unknown += sorted(f"{wanted.title}: {name}" for name in set(there) - known)
    stale = [name for name in wanted.tasks if name in there and not links(name).items() <= there[name].data.items()]
    for name, data in zip(stale, make(stale), strict=True):
        client.tasks.update(id=str(there[name].number), data=dict(data))
    changes.mended += len(stale)
    missing = [name for name in wanted.tasks if name not in there]
    step(len(wanted.tasks) - len(missing))
    for start in range(0, len(missing), AT_ONCE):
        request: Any = [{"data": data} for data in make(missing[start : start + AT_ONCE])]
        client.projects.import_tasks(id=number, request=request)
        step(len(request))
    if missing:
        lacking = set(wanted.tasks) - set(_unique(client, number, changes))
        if lacking:
            raise ServerError(
                f"project {wanted.title!r} lacks {len(lacking)} of {len(missing)} imported tasks",
                "mmtt annotate push again",
            )
    changes.imported += len(missing)


@dataclass(frozen=True, slots=True)
class _Task:
    number: int
    data: Data


def _unique(client: LabelStudio, number: int, changes: Changes) -> dict[str, _Task]:
    """Tasks of a project by our id; of two with one id the later is deleted, unless somebody worked on it."""
    there: dict[str, _Task] = {}
    include = "id,data,total_annotations,draft_exists"
    task: Any
    for task in client.tasks.list(project=number, fields="task_only", include=include, page_size=AT_ONCE):
        data = task.data if isinstance(task.data, dict) else {}
        name = str(data.get("pair_id", f"task {task.id}"))
        if name in there and not task.total_annotations and not task.draft_exists:
            client.tasks.delete(id=str(task.id))
            changes.doubled += 1
        else:
            there[name] = _Task(task.id, data)
    return there


# --- what came back ---------------------------------------------------------------------------------------------------


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


def users(client: LabelStudio) -> dict[int, str]:
    """E-mail address per user of the server, in small letters."""
    return {user.id: str(user.email).lower() for user in client.users.list()}


def served(client: LabelStudio, since: datetime) -> dict[tuple[int, int], float]:
    """When the guard first showed a task to a user, by the server's ids, in seconds since 1970; {} without a guard."""
    http = client._client_wrapper.httpx_client  # the guard's log is no address that the SDK has a method for
    answer = http.request("mmtt/served", method="GET", params={"since": since.timestamp()})
    if answer.status_code != 200 or "ndjson" not in answer.headers.get("Content-Type", ""):
        return {}
    rows = map(json.loads, answer.text.splitlines())
    return {(row["user"], row["task"]): row["served_at"] for row in rows}
