"""Audit: every annotation through every rule; verdicts and findings as rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmtt_build.records import Annotation
from mmtt_build.workspace import Workspace

if TYPE_CHECKING:
    from qc import base

_AS_THEY_ARE = ("forgery_id", "answer", "description", "language", "annotator", "observation_s", "origin")
"""Columns that are fields of an annotation under the same name."""


@dataclass(slots=True)
class Summary:
    """Counts of one audit.

    Attributes:
        verdicts: annotations by verdict.
        findings: findings by rule.
        changed: rows that were written because the verdict or a finding is new.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    changed: int = 0


def audit(workspace: Workspace, *, dry_run: bool = False) -> Summary:
    """Audits all annotations against the recipe's thresholds.

    Args:
        workspace: whose annotations.
        dry_run: counts and writes nothing.
    """
    from qc import base

    summary = Summary()
    before = {row["annotation_id"]: row for row in workspace.findings.read().to_pylist()}
    rows: list[dict[str, Any]] = []
    for batch in workspace.annotations.read().to_batches(max_chunksize=4096):
        for record in batch.to_pylist():
            labels = record["labels"]
            annotation = Annotation(
                id=record["annotation_id"], labels=tuple(labels) if labels is not None else None,
                **{name: record[name] for name in _AS_THEY_ARE},
            )  # fmt: skip
            found = base.audit(annotation, workspace.recipe.qc, workspace.recipe.dataset.language)
            verdict = base.verdict(found)
            row = {
                "annotation_id": annotation.id,
                "forgery_id": annotation.forgery_id,
                "verdict": verdict,
                "findings": [row_of(finding) for finding in found],
            }
            summary.verdicts[verdict] += 1
            summary.findings.update(f.rule for f in found)
            if {name: before.get(annotation.id, {}).get(name) for name in row} != row:
                rows.append(row)
    summary.changed = len(rows)
    if not dry_run:
        workspace.findings.append(rows)
    return summary


def row_of(finding: base.Finding) -> dict[str, Any]:
    """A finding as `schema.FINDING` has it."""
    spans = [{"start": start, "end": end} for start, end in finding.spans]
    return {"rule": finding.rule, "severity": str(finding.severity), "message": finding.message, "spans": spans}
