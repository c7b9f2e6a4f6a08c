"""What a pull wants to know of all projects at once; the server's own API tells it project by project."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from data_export.models import Export  # type: ignore[import-not-found]
from django.db.models import Count, Max, Q  # type: ignore[import-not-found]
from django.db.models.signals import post_delete  # type: ignore[import-not-found]
from django.dispatch import receiver  # type: ignore[import-not-found]
from django.utils import timezone  # type: ignore[import-not-found]
from tasks.models import Annotation  # type: ignore[import-not-found]

LATEST = timedelta(minutes=5)
"""Changes that meet are not committed in the order of their times, so the last one alone would not tell."""


def changed() -> Iterator[dict[str, Any]]:
    """Per project with annotations their number, skipped ones aside, and the ids and times of the latest changes."""
    of_project = Annotation.objects.filter(was_cancelled=False)
    # What a clock that was ahead has left must not hide what came after it was put right.
    last = Max("updated_at", filter=Q(updated_at__lte=timezone.now()))
    for project, count, at in of_project.values_list("project").annotate(Count("id"), last=last).order_by("project"):
        latest = of_project.filter(project=project, updated_at__gte=at - LATEST) if at else of_project.none()
        times = [(number, moment.isoformat()) for number, moment in latest.values_list("id", "updated_at")]
        yield {"project": project, "submitted": count, "latest": times}


@receiver(post_delete, sender=Export)  # type: ignore[untyped-decorator]
def remove_file(instance: Any, **_: Any) -> None:
    """Removes the file of a deleted snapshot, which the package leaves behind."""
    if instance.file:
        instance.file.delete(save=False)
