"""Projects as they should be, from the tables: their tasks, their page, and who may open them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from annotation import guard, page, people, tasks
from mmtt_build.errors import ServerError
from mmtt_build.stages import serve, withdraw
from mmtt_build.workspace import Workspace


def wanted(
    workspace: Workspace,
    tasks_of: Mapping[str, Sequence[Mapping[str, Any]]],
    known: Mapping[str, people.Person],
    found: Mapping[str, tasks.Found],
) -> list[tasks.Wanted]:
    """The projects as they should be: those with open tasks and, of those on the server, what was taken from whom.

    Args:
        workspace: of the recipe.
        tasks_of: as `of_project` gives them.
        known: annotators by pseudonymous id.
        found: projects on the server, by title.

    Raises:
        ServerError: open tasks are somebody's who is not known.
    """
    answered = withdraw.answered(workspace)
    projects = []
    for title, rows in sorted(tasks_of.items()):
        withdrawn = [row["task_id"] for row in rows if row["status"] == withdraw.WITHDRAWN]
        gone = answered.union(withdrawn)
        to_do = [row["task_id"] for row in rows if row["task_id"] not in gone]
        head = rows[0]
        person = known.get(head["annotator"])
        left = person is None or bool(person.left)
        if not to_do and not (title in found and (set(withdrawn) - answered or left)):
            continue
        if person is None and to_do:
            file = serve.local(workspace, make=True).data / people.FILE_NAME
            raise ServerError(
                f"who {head['annotator']} is, is not known: {file} has no such line",
                "mmtt annotate restore BACKUP, or add the line",
            )
        projects.append(
            tasks.Wanted(
                title,
                guard.described_to(
                    [person.email] if person is not None and (to_do or not left) else [],
                    f"{len(rows) - len(withdrawn)} pairs of {workspace.recipe.dataset.name}",
                ),
                page.config(head["language"], max_words=workspace.recipe.qc.max_words, blind=head["blind"]),
                to_do,
                frozenset(row["task_id"] for row in rows),
                frozenset(withdrawn) - answered,
            )
        )
    return projects


def of_project(workspace: Workspace) -> dict[str, list[dict[str, Any]]]:
    """All assignments by project, with the paths of what their annotators see, as `pictures.Pictures` wants them."""
    plan = workspace.plan.read(["base_id", "forgery_id"])
    made = workspace.forgeries.read(["forgery_id", "image", "mask", "focus"])
    forged, mask, focus = (_map(made["forgery_id"], made[name]) for name in ("image", "mask", "focus"))
    pairs = zip(plan["base_id"].to_pylist(), plan["forgery_id"].to_pylist(), strict=True)
    of_base = {base_id: name for base_id, name in pairs if mask.get(name)}
    pristine = workspace.pristine.read(["id", "image"])
    base = _map(pristine["id"], pristine["image"])
    projects: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in workspace.tasks.read().to_pylist():
        # A control that was assigned when controls showed no mask.
        mask_of = row["mask_of"] or row["forgery_id"] or of_base.get(row["base_id"], "")
        row |= {"pristine": base.get(row["base_id"]), "forged": forged.get(mask_of), "mask": mask.get(mask_of)}
        row["focus"] = focus.get(mask_of)
        projects[row["project"]].append(row)
    return projects


def _map(keys: pa.ChunkedArray, values: pa.ChunkedArray) -> dict[str, Any]:
    return dict(zip(keys.to_pylist(), values.to_pylist(), strict=True))
