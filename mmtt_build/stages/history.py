"""What became of answers after they were judged: sent back and answered anew, or decided on by a reviewer."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmtt_build.workspace import Workspace
from qc.report.model import Decision, Returned


def returned(workspace: Workspace) -> list[Returned]:
    """All answers that were sent back, the last one first, with the next answer to the same task."""
    sent = [row for row in workspace.sent_back.read().to_pylist() if row["status"] == "sent"]
    if not sent:
        return []
    came = workspace.submissions.read(["annotation_id", "task_id", "status", "created_at"])
    came = came.filter(pc.is_in(came["task_id"], pa.array([row["task_id"] for row in sent], pa.string())))
    versions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in came.filter(pc.is_in(came["status"], pa.array(["ok", "sent-back"]))).to_pylist():
        versions[row["task_id"]].append(row)
    judged = workspace.findings.read(["annotation_id", "verdict", "judged"]).to_pylist()
    verdict = {row["annotation_id"]: row["verdict"] or row["judged"] or "" for row in judged}
    found = []
    for row in sorted(sent, key=lambda row: row["at"], reverse=True):
        later = [one for one in versions[row["task_id"]] if one["created_at"] > row["at"]]
        successor = min(later, key=lambda one: one["created_at"])["annotation_id"] if later else ""
        found.append(
            Returned(
                row["annotation_id"], row["annotator"] or "", row["by"] or "", row["at"], tuple(row["rules"] or ()),
                successor, verdict.get(successor, ""),
            )
        )  # fmt: skip
    return found


def decisions(workspace: Workspace) -> list[Decision]:
    """All decisions of reviewers, the last one first."""
    rows = sorted(workspace.overrides.read().to_pylist(), key=lambda row: row["at"], reverse=True)
    judged = workspace.findings.read(["annotation_id", "verdict", "judged", "override"])
    judged = judged.filter(
        pc.is_in(judged["annotation_id"], pa.array([row["annotation_id"] for row in rows], pa.string()))
    )
    now = {row["annotation_id"]: row for row in judged.to_pylist()}
    found = []
    for row in rows:
        of = now.get(row["annotation_id"], {})
        in_force = of.get("verdict") is not None and of["override"] == row["override_id"]
        found.append(
            Decision(
                row["annotation_id"], row["verdict"] or "", of.get("judged") or "", row["reason"] or "",
                row["by"] or "", row["at"], in_force,
            )
        )  # fmt: skip
    return found
