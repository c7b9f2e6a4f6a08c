"""Puts drafts onto the server for annotators to see: as predictions, with a note on the page that says so.

Whatever prediction the server has, an annotator who opens the task finds in the page, also where the project is set not
to show any: the editor asks for that setting only in its stream of tasks. So a draft that is not to be seen is
never sent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from annotation.draft import NOTE
from annotation.tasks import AT_ONCE, Found
from mmtt_build.errors import ServerError

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft for the page.

    Attributes:
        result: of the page's controls.
        note: what tells the annotator that it is a draft.
    """

    result: list[dict[str, Any]]
    note: str


def place(
    client: LabelStudio, project: Found, drafts: Mapping[str, Draft], model_version: str, seen: Collection[int]
) -> tuple[set[str], set[str]]:
    """Makes one project show these drafts, and sends none twice.

    Args:
        client: of the server.
        project: where their tasks are.
        drafts: by our id of the task.
        model_version: of all of them; a project shows predictions of one version only.
        seen: the server's ids of tasks that an annotator has opened: too late for a draft.

    Returns:
        Our ids of the tasks whose draft is there, and of those that were begun without one.

    Raises:
        ServerError: the project's page has no place for the note.
    """
    if f"${NOTE}" not in project.config:
        raise ServerError(
            f"the page of project {project.title!r} cannot say that a text is a draft", "mmtt annotate push mends it"
        )
    there, begun, missing = set[str](), set[str](), []
    include = "id,data,total_annotations,draft_exists,total_predictions"
    task: Any
    for task in client.tasks.list(project=project.number, fields="task_only", include=include, page_size=AT_ONCE):
        data = task.data if isinstance(task.data, dict) else {}
        name = str(data.get("pair_id", ""))
        if name not in drafts:
            continue
        if not task.total_predictions and (task.total_annotations or task.draft_exists or task.id in seen):
            begun.add(name)
            continue
        if data.get(NOTE) != drafts[name].note:  # first: no draft is on the page without it
            client.tasks.update(id=str(task.id), data={**data, NOTE: drafts[name].note})
        if not task.total_predictions:
            missing.append((name, task.id))
        there.add(name)
    for start in range(0, len(missing), AT_ONCE):
        request: Any = [
            {"task": number, "result": drafts[name].result, "model_version": model_version}
            for name, number in missing[start : start + AT_ONCE]
        ]
        client.projects.import_predictions(id=project.number, request=request)
    if there:
        client.projects.update(id=project.number, show_collab_predictions=True, model_version=model_version)
    return there, begun
