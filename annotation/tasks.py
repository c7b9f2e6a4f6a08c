"""Projects and tasks on a Label Studio server, made to agree with what was assigned.

The server has no unique key for a task and may have done what it did not answer. So nothing is sent twice: what is
there is listed, the difference is imported, and what is there is listed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from annotation import page
from mmtt_build.errors import ServerError

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

AT_ONCE = 500
"""Tasks of an import, and of a page of a listing."""

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
        mended: tasks whose images had another address.
        doubled: tasks that were there twice and of which one without work was deleted.
        removed: tasks that were withdrawn, without work, and deleted.
        unknown: tasks in our projects that nobody here assigned; they are left alone.
    """

    imported: int = 0
    mended: int = 0
    doubled: int = 0
    removed: int = 0
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
    changes.removed += _remove(client, number, [there[name] for name in sorted(wanted.withdrawn & set(there))])
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
    idle: bool


def _remove(client: LabelStudio, number: int, tasks: Sequence[_Task]) -> int:
    """Deletes tasks of a project that nobody has begun, by the server's own look at that moment; their number."""
    idle = [task.number for task in tasks if task.idle]
    filters: Any = {
        "conjunction": "and",
        "items": [
            {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0},
            {"filter": "filter:tasks:draft_exists", "operator": "equal", "type": "Boolean", "value": False},
        ],
    }
    for start in range(0, len(idle), AT_ONCE):
        chosen: Any = {"all": False, "included": idle[start : start + AT_ONCE]}
        client.actions.create(id="delete_tasks", project=number, filters=filters, selected_items=chosen)
    return len(idle)


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
            there[name] = _Task(task.id, data, not task.total_annotations and not task.draft_exists)
    return there
