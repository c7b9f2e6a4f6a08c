"""A submission goes back to who made it: what the server's own API does only for the annotator themselves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db import transaction  # type: ignore[import-not-found]
from projects.models import Project  # type: ignore[import-not-found]
from tasks.models import Annotation, AnnotationDraft, Task, TaskLock  # type: ignore[import-not-found]

from . import roles
from .served import Served

NOTICE = "notice"
"""Key of a task's data: why it came back."""


class Gone(Exception):
    """The annotation is not there."""


class Changed(Exception):
    """The annotation is not what was judged."""


def give_back(served: Served, number: int, updated_at: datetime, notice: str, now: float) -> None:
    """Makes an annotation its author's draft again, says why on its task's page, and lets the wait begin anew.

    All of it or nothing: the log goes first, since it is a file of its own, and to ask for the wait twice harms nobody.

    Args:
        served: the log.
        number: of the annotation.
        updated_at: when what was judged was changed last.
        notice: for the page.
        now: seconds since 1970.

    Raises:
        Gone: somebody deleted it, or its author's account.
        Changed: its author was faster.
    """
    with transaction.atomic():
        found = Annotation.objects.select_for_update().filter(pk=number).first()
        if found is None or found.completed_by is None:
            raise Gone
        if found.updated_at != updated_at:
            raise Changed
        task, author = found.task, found.completed_by
        served.forget(author.id, task.id, now)
        task.data = {**task.data, NOTICE: notice}
        task.save(update_fields=["data"])
        # What was begun on the submission since, and not sent, is later than the submission.
        draft = found.drafts.filter(user=author).last() or AnnotationDraft(task=task, user=author, result=found.result)
        draft.annotation, draft.lead_time = None, 0.0
        draft.save()
        found.delete()
        # The one that they are given next is the one that they have locked, of several any.
        TaskLock.objects.filter(user=author, task__project=task.project_id).delete()
        task.set_lock(author)


def waiting(annotator: Any) -> Iterator[dict[str, int]]:
    """Project and number of the tasks that came back to an annotator and were not sent again."""
    drafts = AnnotationDraft.objects.filter(user=annotator, annotation=None, task__is_labeled=False)
    for task in {draft.task for draft in drafts.select_related("task")}:
        if (task.data or {}).get(NOTICE) and roles.open_to(Project.objects.get(pk=task.project_id), annotator.email):
            yield {"project": task.project_id, "task": task.id}


def answered(number: int) -> None:
    """Takes the reasons off the page of a task that was sent again."""
    task = Task.objects.get(pk=number)
    if task.data.get(NOTICE):
        task.data = {key: value for key, value in task.data.items() if key != NOTICE}
        task.save(update_fields=["data"])
