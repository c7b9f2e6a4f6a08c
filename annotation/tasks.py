"""Projects and tasks on a Label Studio server, made to agree with what was assigned.

The server has no unique key for a task and may have done what it did not answer. So nothing is sent twice: what is
there is listed, the difference is imported, and then counted. Where the count is not what it should be, what is there
is listed once more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from annotation import page
from annotation.session import listing
from mmtt_build.errors import ServerError

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

AT_ONCE = 1000
"""Tasks of an import, and of a page of a listing."""
TRIES = 3
"""Of an import, each with what is not there by then."""

Data = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """A project as it is on the server.

    Attributes:
        number: the server's id.
        title: as it shows.
        description: with the annotators who may open it.
        config: its page.
        submitted: annotations in it, skipped ones aside.
        tasks: in it.
    """

    number: int
    title: str
    description: str
    config: str
    submitted: int
    tasks: int


def projects(client: LabelStudio, titles: Iterable[str]) -> dict[str, Found]:
    """The projects with these titles.

    Raises:
        ServerError: two have one title.
    """
    wanted = set(titles)
    found: dict[str, Found] = {}
    include = "id,title,description,label_config,total_annotations_number,task_number"
    item: Any
    for item in listing(client.projects.list(include=include, page_size=1000), "count"):
        if item.title not in wanted:
            continue
        if item.title in found:
            raise ServerError(
                f"the server has two projects {item.title!r}, numbers {found[item.title].number} and {item.id}",
                "delete the one without work, then mmtt annotate push",
            )
        found[item.title] = Found(
            item.id, item.title, item.description or "", item.label_config or "", item.total_annotations_number or 0,
            item.task_number or 0,
        )  # fmt: skip
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
        withdrawn: ids of the optional ones that are not to be there, unless somebody has begun or answered them.
    """

    title: str
    description: str
    config: str
    tasks: Sequence[str]
    optional: frozenset[str] = frozenset()
    withdrawn: frozenset[str] = frozenset()


@dataclass(slots=True)
class Changes:
    """What was done to make the server agree.

    Attributes:
        imported: tasks that were not there.
        mended: tasks whose pictures had another address, were not in place, or are others now.
        doubled: tasks that were there twice and of which one without work was deleted.
        removed: tasks that were withdrawn, without work, and deleted.
        rewritten: projects whose page or description was another; it is as it should be now.
        unknown: tasks in our projects that nobody here assigned; they are left alone.
    """

    imported: int = 0
    mended: int = 0
    doubled: int = 0
    removed: int = 0
    rewritten: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def reconcile(
    client: LabelStudio,
    wanted: Iterable[Wanted],
    found: Mapping[str, Found],
    *,
    make: Callable[[Sequence[str]], Iterator[Data]],
    fits: Callable[[str, Data], bool],
    changes: Changes,
    step: Callable[[int], None],
) -> None:
    """Makes projects agree: page, description, every task once.

    Args:
        client: of the server.
        wanted: the projects as they should be.
        found: as they are, by title; those that are not there are made.
        make: begins to put what tasks point at into place; gives the data of each that is done, in their order.
        fits: whether a task's data is right, and what it points at is in place.
        changes: is added to.
        step: told how many more tasks are right.

    Raises:
        ServerError: a task is still missing after all, or somebody else is importing into the project.
    """
    begun: list[_Project] = []
    # The next project is made, and its pictures begun, while the server imports the one before.
    with ThreadPoolExecutor(1) as ahead:

        def begin(one: Wanted) -> Future[_Project]:
            return ahead.submit(_begin, client, one, found.get(one.title), make, fits, changes, step)

        queue = iter(wanted)
        coming = [begin(one) for one in islice(queue, 1)]
        while coming:
            begun.append(coming.pop().result())
            coming = [begin(one) for one in islice(queue, 1)]
            _fill(client, begun[-1], changes, step)
    if begun:
        _check(client, {project.wanted.title: project for project in begun if project.missing}, changes)


@dataclass(frozen=True, slots=True)
class _Project:
    number: int
    wanted: Wanted
    there: int
    missing: Sequence[str]
    data: Iterator[Data]


def _begin(
    client: LabelStudio,
    wanted: Wanted,
    found: Found | None,
    make: Callable[[Sequence[str]], Iterator[Data]],
    fits: Callable[[str, Data], bool],
    changes: Changes,
    step: Callable[[int], None],
) -> _Project:
    """A project that lacks nothing but the missing tasks, whose data is being made."""
    if found is None:
        data = make(wanted.tasks)
        settings: dict[str, Any] = {**page.PROJECT, "label_config": wanted.config, "description": wanted.description}
        made = client.projects.create(title=wanted.title, **settings)
        return _Project(int(made.id or 0), wanted, 0, wanted.tasks, data)
    number = found.number
    if (found.description, found.config) != (wanted.description, wanted.config):
        client.projects.update(id=number, description=wanted.description, label_config=wanted.config)
        changes.rewritten.append(wanted.title)
    there = _unique(client, number, changes)
    removed = _remove(client, number, [there[name].number for name in sorted(wanted.withdrawn & set(there))])
    changes.removed += removed
    known = {*wanted.tasks, *wanted.optional}
    changes.unknown += sorted(f"{wanted.title}: {name}" for name in set(there) - known)
    missing = [name for name in wanted.tasks if name not in there]
    data = make(missing)
    stale = [name for name in wanted.tasks if name in there and not fits(name, there[name].data)]
    for name, right in zip(stale, make(stale), strict=True):
        before = there[name].data
        right = {**right, **{key: before[key] for key in page.NOTES if key in before}}
        if right != before:
            client.tasks.update(id=str(there[name].number), data=right)
    changes.mended += len(stale)
    step(len(wanted.tasks) - len(missing))
    return _Project(number, wanted, len(there) - removed, missing, data)


def _fill(client: LabelStudio, project: _Project, changes: Changes, step: Callable[[int], None]) -> None:
    """Imports what is missing; where an import breaks off, looks what came of it and sends the rest."""
    import httpx

    from annotation.patience import broke_off

    while batch := list(islice(project.data, AT_ONCE)):
        rest = batch
        for left in reversed(range(TRIES)):
            try:
                _import(client, project.number, rest)
                break
            except httpx.HTTPError as error:
                if not left or not broke_off(error):
                    raise
            there = _unique(client, project.number, changes)
            rest = [data for data in batch if data["pair_id"] not in there]
            if not rest:
                break
        changes.imported += len(batch)
        step(len(batch))


def _import(client: LabelStudio, project: int, data: Sequence[Data]) -> None:
    """Imports tasks. The SDK's method does the same, and takes a fifth of the server's time to write their JSON."""
    from label_studio_sdk.core.api_error import ApiError

    http = client._client_wrapper.httpx_client
    body = json.dumps([{"data": item} for item in data]).encode()
    answer = http.request(
        f"api/projects/{project}/import", method="POST", content=body, headers={"Content-Type": "application/json"}
    )
    if answer.status_code != 201:
        raise ApiError(status_code=answer.status_code, body=answer.text)


def _check(client: LabelStudio, filled: Mapping[str, _Project], changes: Changes) -> None:
    """Counts what is there; lists it where something is missing or doubled."""
    now = projects(client, filled)
    for title, project in filled.items():
        if title in now and now[title].tasks == project.there + len(project.missing):
            continue
        lacking = set(project.wanted.tasks) - set(_unique(client, project.number, changes))
        if lacking:
            raise ServerError(
                f"project {title!r} lacks {len(lacking)} of {len(project.missing)} imported tasks",
                "mmtt annotate push again",
            )


@dataclass(frozen=True, slots=True)
class _Task:
    number: int
    data: Data


def _remove(client: LabelStudio, project: int, numbers: Sequence[int]) -> int:
    """Deletes those tasks of a project that nobody has begun, by the server's own look at that moment; how many."""
    http = client._client_wrapper.httpx_client  # the SDK's method does not say how many
    untouched = {
        "conjunction": "and",
        "items": [
            {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0},
            {"filter": "filter:tasks:draft_exists", "operator": "equal", "type": "Boolean", "value": False},
        ],
    }
    removed = 0
    for start in range(0, len(numbers), AT_ONCE):
        chosen = {"filters": untouched, "selectedItems": {"all": False, "included": numbers[start : start + AT_ONCE]}}
        action = {"id": "delete_tasks", "project": project}
        answer = http.request("api/dm/actions/", method="POST", params=action, json=chosen)
        if answer.status_code != 200:
            raise ServerError(
                f"tasks of project {project} cannot be deleted (status {answer.status_code})",
                "mmtt annotate push again",
            )
        removed += int(answer.json()["processed_items"])
    return removed


def _unique(client: LabelStudio, number: int, changes: Changes) -> dict[str, _Task]:
    """Tasks of a project by our id; of two with one id the later is deleted, unless somebody worked on it."""
    there: dict[str, _Task] = {}
    doubles: list[int] = []
    include = "id,data,total_annotations"
    task: Any
    for task in client.tasks.list(project=number, fields="task_only", include=include, page_size=AT_ONCE):
        data = task.data if isinstance(task.data, dict) else {}
        name = str(data.get("pair_id", f"task {task.id}"))
        if name in there and not task.total_annotations:
            doubles.append(task.id)
        else:
            there[name] = _Task(task.id, data)
    changes.doubled += _remove(client, number, doubles)
    return there
