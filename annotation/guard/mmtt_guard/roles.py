"""What annotators may ask the server for, and what of its answers is theirs to see.

Everything that is not on the list is refused. Annotators reach the projects whose description names them, and within
these only what they made themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from projects.models import Project  # type: ignore[import-not-found]
from tasks.models import Annotation, AnnotationDraft, Task  # type: ignore[import-not-found]

PUBLIC = {
    "main", "user-login", "logout", "version", "api-version", "health", "heidi_tips", "feature_flags",
    "core.views.serve_file", "core.utils.static_serve.serve", "current-user-whoami", "projects:project-index",
    "projects:api:project-list", "user-list",
}  # fmt: skip
"""Names of the views without a project that an annotator may open; the last two show only what is the annotator's."""

OF_PROJECT = {
    "data_manager:project-data", "projects:api:project-detail", "projects:api:project-next",
    "projects:api:label-stream-history",
}  # fmt: skip
BY_QUERY = {
    "data_manager:api:view-list", "data_manager:dm-columns", "data_manager:dm-project", "data_manager:dm-actions",
    "labels_manager:api-labels:label_link-list", "ml:api:ml-list", "tasks:api:task-list",
}  # fmt: skip
OF_TASK = {"tasks:api:task-detail", "tasks:api:task-annotations", "tasks:api:task-drafts"}
ANNOTATION, DRAFT = "tasks:api-annotations:annotation-detail", "tasks:api-drafts:draft-detail"
ANNOTATION_DRAFTS = "tasks:api:task-annotations-drafts"

WRITES = {
    ("POST", "user-login"), ("POST", "logout"),
    ("POST", "data_manager:api:view-list"), ("POST", "data_manager:dm-actions"),
    ("POST", "tasks:api:task-annotations"), ("PATCH", ANNOTATION),
    ("POST", "tasks:api:task-drafts"), ("POST", ANNOTATION_DRAFTS), ("PATCH", DRAFT), ("DELETE", DRAFT),
}  # fmt: skip
"""What an annotator may send: first the session, then the default tab and the next task, then the work itself."""

_NAMED = re.compile(r"^annotators:(.*)$", re.MULTILINE)


def open_to(project: Any, email: str) -> bool:
    """Whether a project's description names this annotator."""
    named = _NAMED.search(project.description or "")
    return named is not None and email.lower() in {name.strip().lower() for name in named[1].split(",")}


def reaches(method: str, view: str, kwargs: Mapping[str, Any], query: Any, body: Mapping[str, Any], user: Any) -> bool:
    """Whether an annotator may make this request.

    Args:
        method: of the request.
        view: the view's name with its namespaces.
        kwargs: what the address names.
        query: the query's `QueryDict`.
        body: the JSON body, {} without.
        user: the annotator.
    """
    if method not in ("GET", "HEAD", "OPTIONS") and (method, view) not in WRITES:
        return False
    if view in PUBLIC:
        return True
    if view == "data_manager:dm-actions" and method == "POST" and query.getlist("id") != ["next_task"]:
        return False
    try:
        projects = set(_projects(view, kwargs, query, body, user))
    except (ValueError, TypeError):  # a number that is none
        return False
    found = Project.objects.filter(id__in=projects)
    return bool(projects) and len(found) == len(projects) and all(open_to(project, user.email) for project in found)


def _projects(view: str, kwargs: Mapping[str, Any], query: Any, body: Mapping[str, Any], user: Any) -> Iterable[Any]:
    """Ids of all projects that a request touches; None for one that is not there or not the annotator's."""
    from data_manager.models import View  # type: ignore[import-not-found]

    def first(found: Any, field: str = "project_id") -> Any:
        return found.values_list(field, flat=True).first()

    pk = kwargs.get("pk")
    if view in OF_PROJECT:
        yield pk
    elif view in OF_TASK:
        yield first(Task.objects.filter(id=pk))
    elif view == ANNOTATION:
        yield first(Annotation.objects.filter(id=pk, completed_by=user), "task__project_id")
    elif view == DRAFT:
        yield first(AnnotationDraft.objects.filter(id=pk, user=user), "task__project_id")
    elif view == ANNOTATION_DRAFTS:
        own = Annotation.objects.filter(id=kwargs["annotation_id"], task=pk, completed_by=user)
        yield first(own, "task__project_id")
    elif view in BY_QUERY:
        if not query.getlist("project") and "project" not in body:
            yield None
    else:
        yield None
    yield from map(int, query.getlist("project"))
    if body.get("project") is not None:
        yield int(body["project"])
    for name in ("view", "tabID", "tab"):
        for tab in map(int, (*query.getlist(name), *([body[name]] if body.get(name) is not None else []))):
            if tab > 0:  # the editor's number of the tab that is not made yet is 0, which the server takes for none
                yield first(View.objects.filter(id=tab))


def own(data: Any, view: str, user: Any) -> Any:
    """What of a JSON answer is this annotator's to see."""
    if view == "user-list":
        return [person for person in data if person.get("id") == user.id]
    if view == "projects:api:project-list":
        ids = {p.id for p in Project.objects.filter(organization=user.active_organization) if open_to(p, user.email)}
        shown = [project for project in data["results"] if project.get("id") in ids]
        return {**data, "results": shown, "count": len(shown)}
    if view in ("tasks:api:task-annotations", "tasks:api:task-drafts") and isinstance(data, list):
        return [item for item in data if _by(item, user)]
    return _own(data, user)


def _own(data: Any, user: Any) -> Any:
    if isinstance(data, list):
        return [_own(item, user) for item in data]
    if not isinstance(data, dict):
        return data
    return {key: _entry(key, value, user) for key, value in data.items()}


def _entry(key: str, value: Any, user: Any) -> Any:
    if key == "data":  # of the task, whatever its keys are called
        return value
    if key in ("annotations", "drafts") and isinstance(value, list):
        return [item for item in value if _by(item, user)]
    if key in ("annotations_results", "annotations_ids"):  # all of them in one text
        return ""
    if key in ("annotators", "updated_by") and isinstance(value, list):
        ids = [item.get("user_id") if isinstance(item, dict) else item for item in value]
        return [item for item, by in zip(value, ids, strict=True) if by == user.id]
    return _own(value, user)


def _by(item: Any, user: Any) -> bool:
    """Whether an annotation or a draft is this user's; one that does not say whose it is is nobody's."""
    if not isinstance(item, dict):
        return False
    whose = item.get("completed_by", item.get("user"))
    if isinstance(whose, dict):
        whose = whose.get("id")
    return whose in (user.id, user.email)
