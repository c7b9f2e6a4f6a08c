"""The middleware: roles, limits and the served-at log, around Label Studio's own views.

Superusers pass untouched. Beside the package's addresses it has some of its own: `/mmtt/page.js` (the counter and keys
of the page), `/mmtt/wait?task=N` (what is still owed on a task, and what came back) and, for superusers,
`/mmtt/served?since=T` (the log as JSON lines), `/mmtt/changed` (where annotations changed last, as JSON lines),
`/mmtt/return` (sends a submission back) and `/mmtt/about`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import label_studio  # type: ignore[import-not-found]
from django.http import HttpResponse, JsonResponse  # type: ignore[import-not-found]
from jwt_auth.auth import TokenAuthenticationPhaseout  # type: ignore[import-not-found]
from rest_framework.exceptions import APIException  # type: ignore[import-not-found]
from tasks.models import Annotation, Task  # type: ignore[import-not-found]

from . import TESTED, changed, limits, returned, roles
from .served import Served, Taken

logger = logging.getLogger(__name__)

_SCRIPT = b'<script src="/mmtt/page.js"></script></body>'
_SERVES = {
    ("GET", "tasks:api:task-detail"), ("GET", "projects:api:project-next"), ("POST", "data_manager:dm-actions"),
}  # fmt: skip
"""Requests whose answer is a task for the annotator to look at."""


class Guard:
    """One per worker; what workers share is in the log."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self.limits = limits.Limits.load()
        self.served = Served(Path(os.environ["MMTT_SERVED_LOG"]))
        self.script = Path(__file__).with_name("page.js").read_text("utf-8")
        if label_studio.__version__ != TESTED:
            logger.warning("the guard is tested with Label Studio %s, this is %s", TESTED, label_studio.__version__)

    def __call__(self, request: Any) -> Any:
        """Answers the guard's own addresses, and shows annotators their own part of the others' answers."""
        if request.path.startswith("/mmtt/"):
            return self._own_address(request)
        response = self.get_response(request)
        annotator = getattr(request, "mmtt_annotator", None)
        claim = getattr(request, "mmtt_claim", None)
        if claim and response.status_code >= 400:
            self.served.release(*claim)
        elif claim:
            returned.answered(claim[1])
        if annotator is None or response.status_code != 200 or response.streaming:
            return response
        kind = response.get("Content-Type", "")
        if "json" in kind:
            self._show(request, response, annotator)
        elif "text/html" in kind:
            _replace(response, response.content.replace(b"</body>", _SCRIPT, 1))
        return response

    def process_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> Any:
        """Refuses what an annotator may not do; None lets the request pass."""
        request.mmtt_annotator = annotator = _annotator(request)
        if annotator is None:
            return None
        name = request.resolver_match.view_name
        body: Any = {}
        if (request.method, name) in roles.WRITES and name not in roles.PUBLIC and request.method != "DELETE":
            # Other content types would be read by the view otherwise than here.
            if request.content_type != "application/json":
                return _refuse(415, "annotators' work is sent as JSON")
            try:
                body = json.loads(request.body or b"{}")
            except ValueError:
                body = None
            if not isinstance(body, dict):
                return _refuse(400, "the body is not a JSON object")
        if not roles.reaches(request.method, name, kwargs, request.GET, body, annotator):
            logger.info("refused user=%s %s %s", annotator.id, request.method, name)
            return _refuse(403, "this is not for annotators, or not yours")
        if request.method in ("POST", "PATCH") and name.startswith("tasks:"):
            return self._submission(request, name, kwargs, body, annotator)
        return None

    def _submission(self, request: Any, view: str, kwargs: Any, body: dict[str, Any], annotator: Any) -> Any:
        creates, updates = view == "tasks:api:task-annotations", view == roles.ANNOTATION
        task = Task.objects.get(annotations=kwargs["pk"]) if updates else None
        if view == roles.DRAFT:
            task = Task.objects.get(drafts=kwargs["pk"])
        task = task or Task.objects.get(pk=kwargs["pk"])
        if reason := limits.refusal(body, annotator.id, task.project_id):
            return _refuse(400, reason)
        if "was_cancelled" in request.GET:
            return _refuse(400, "no skipping here: 'nothing visible' and 'broken pair' are answers")
        if not (creates or updates):
            return None
        if creates and Annotation.objects.filter(task=task, completed_by=annotator, was_cancelled=False).exists():
            return _refuse(409, "you have answered this pair already; go back to it to change the answer")
        result = body.get("result", [])
        count = sum(map(limits.words, limits.texts(result)))
        if count > self.limits.words:
            return _refuse(400, f"the description has {count} words, at most {self.limits.words}")
        if limits.broken_pair(result):
            return None
        now = time.time()
        try:
            spent = self.served.claim(
                annotator.id, task.id, task.created_at.timestamp(), now, self.limits.seconds, only=creates
            )
        except Taken:
            return _refuse(409, "you are answering this pair in another window; go back to it to change the answer")
        if spent is not None:
            return _refuse(400, f"look at the pair for {self.limits.seconds:g} s; {spent:.1f} s so far")
        request.mmtt_claim = (annotator.id, task.id, now)
        return None

    def _show(self, request: Any, response: Any, annotator: Any) -> None:
        view = request.resolver_match.view_name
        data = json.loads(response.content)
        if (request.method, view) in _SERVES and isinstance(data, dict) and isinstance(data.get("id"), int):
            made = Task.objects.values_list("created_at", flat=True).get(pk=data["id"])
            self.served.mark(annotator.id, data["id"], made.timestamp(), time.time())
        shown = roles.own(data, view, annotator)
        if shown != data:
            _replace(response, json.dumps(shown).encode())

    def _own_address(self, request: Any) -> Any:
        if request.path == "/mmtt/page.js":
            return HttpResponse(self.script, content_type="text/javascript", headers={"Cache-Control": "no-cache"})
        annotator = _annotator(request)
        if request.path == "/mmtt/wait" and annotator is not None and request.GET.get("task", "").isdecimal():
            spent = self.served.spent(annotator.id, int(request.GET["task"]), time.time())
            left = 0.0 if spent is None else max(0.0, self.limits.seconds - spent)
            back = [one for one in returned.waiting(annotator) if one["task"] != int(request.GET["task"])]
            return JsonResponse(
                {"left": left, "seconds": self.limits.seconds, "words": self.limits.words, "returned": back}
            )
        user = _user(request)
        if user is not None and user.is_superuser:
            if request.path == "/mmtt/about":
                return JsonResponse({"label_studio": label_studio.__version__, "tested": TESTED})
            if request.path == "/mmtt/served":
                return _lines(self.served.rows(float(request.GET.get("since", 0))))
            if request.path == "/mmtt/changed":
                return _lines(changed.changed())
            # Another site's page could send a session's cookie along, and no header.
            if request.path == "/mmtt/return" and request.method == "POST" and "Authorization" in request.headers:
                request.user = user  # the package writes down who did it; of a token it learns in its views only
                return self._return(request)
        return _refuse(404, "not found")

    def _return(self, request: Any) -> Any:
        try:
            body = json.loads(request.body)
            number, notice = int(body["annotation"]), str(body["notice"])
            at = datetime.fromisoformat(body["updated_at"])
        except (ValueError, TypeError, KeyError):
            return _refuse(400, "needs annotation, updated_at and notice")
        try:
            returned.give_back(self.served, number, at, notice, time.time())
        except returned.Gone:
            return _refuse(410, "this annotation is gone")
        except returned.Changed:
            return _refuse(409, "this annotation is another one now")
        return HttpResponse(status=204)


def _user(request: Any) -> Any:
    """Whose request it is: of a token where one is sent, else of the session; None for nobody."""
    try:
        found = TokenAuthenticationPhaseout().authenticate(request)
    except APIException:
        found = None
    user = found[0] if found else request.user
    return user if user.is_authenticated else None


def _annotator(request: Any) -> Any:
    """The annotator who asks, by session or token; None for superusers and for nobody.

    A view may believe either, so an annotator's session stays one whatever token is sent along.
    """
    for user in (request.user, _user(request)):
        if user is not None and user.is_authenticated and not user.is_superuser:
            return user
    return None


def _lines(rows: Iterable[Any]) -> Any:
    return HttpResponse((json.dumps(row) + "\n" for row in rows), content_type="application/x-ndjson")


def _refuse(status: int, reason: str) -> Any:
    return JsonResponse({"detail": reason}, status=status)


def _replace(response: Any, content: bytes) -> None:
    response.content = content
    if response.has_header("Content-Length"):
        response["Content-Length"] = str(len(content))
