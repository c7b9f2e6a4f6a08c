"""Tasks that are not to be done any more: rows that supersede theirs, with the status "withdrawn".

What was answered is never withdrawn. The server follows at the next push.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from mmtt_build.workspace import Workspace

WITHDRAWN = "withdrawn"


def answered(workspace: Workspace) -> set[str]:
    """Ids of the tasks with an answer that counts, as of the last pull."""
    came = workspace.submissions.read(["task_id", "status"])
    return set(came.filter(pc.equal(came["status"], "ok"))["task_id"].to_pylist())


def withdraw(workspace: Workspace, reasons: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows that withdraw open tasks, to be appended to the table.

    Args:
        workspace: of the tasks.
        reasons: by id of the task; who is answered or withdrawn already is left out.
    """
    if not reasons:
        return []
    done = answered(workspace)
    return [
        row | {"status": WITHDRAWN, "reason": reasons[row["task_id"]]}
        for row in workspace.tasks.read().to_pylist()
        if row["task_id"] in reasons and row["task_id"] not in done and row["status"] != WITHDRAWN
    ]


def unusable(workspace: Workspace) -> dict[str, str]:
    """Why tasks cannot be used, by id: their forgery, its base or its source is no longer what it was when assigned."""
    tasks = workspace.tasks.read(["task_id", "forgery_id", "mask_of", "base_id"])
    plan = workspace.plan.read(["forgery_id", "source_id"])
    source = dict(zip(plan["forgery_id"].to_pylist(), plan["source_id"].to_pylist(), strict=True))
    forgery = _status(workspace.forgeries.read(["forgery_id", "status"]))
    pristine = _status(workspace.pristine.read(["id", "status"]))
    reasons = {}
    for task, forged, mask_of, base in zip(*(tasks[name].to_pylist() for name in tasks.column_names), strict=True):
        for what, name, status in (
            ("forgery", forged or mask_of, forgery), ("base", base, pristine), ("source", source.get(forged), pristine),
        ):  # fmt: skip
            if name is not None and status.get(name) != "ok":
                reasons[task] = f"its {what} is {status.get(name, 'gone')}"
                break
    return reasons


def _status(table: Any) -> dict[str, str]:
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
