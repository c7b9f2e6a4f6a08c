"""Override: a reviewer decides on an answer, whatever the rules say, until its words change.

Every decision stays in the table `overrides` with who made it, when and why; of one answer the latest counts.
"""

from __future__ import annotations

from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmtt_build.errors import ConfigError
from mmtt_build.seeds import digest
from mmtt_build.stages.answers import Answers
from mmtt_build.workspace import Workspace

VERDICTS = ("accept", "reject", "review")


def digest_of(answer: str, description: str | None) -> str:
    """What a decision is on: it lapses where this is another one."""
    return digest(answer, description or "")


def decisions(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """The latest decision on each annotation, by its id; one whose verdict is null is on the rules' side again."""
    rows = sorted(workspace.overrides.read().to_pylist(), key=lambda row: (row["at"], row["override_id"]))
    return {row["annotation_id"]: row for row in rows}


def override(
    workspace: Workspace, name: str, verdict: str | None, reason: str, by: str, *, dry_run: bool = False
) -> dict[str, Any]:
    """Records a decision, and lets it count at once.

    Args:
        workspace: whose.
        name: annotation id.
        verdict: one of `VERDICTS`, or None for the rules' own again.
        reason: why, in words.
        by: who decides.
        dry_run: write nothing.

    Returns:
        The row in `overrides`.

    Raises:
        ConfigError: no answer has this id, the reason says nothing, or there is no decision to take back.
    """
    if not reason.strip():
        raise ConfigError("--reason is empty", "say why, for whoever reads the table")
    if not by.strip():
        raise ConfigError("--by is empty", "say who decides")
    if verdict is not None and verdict not in VERDICTS:
        raise ConfigError(f"--verdict is {verdict!r}", f"one of {', '.join(VERDICTS)}")
    said = find(workspace, [name])[0]
    before = decisions(workspace).get(name)
    if verdict is None and (before is None or before["verdict"] is None):
        raise ConfigError(f"nobody has decided on {name}", "--clear takes a decision back")
    now = datetime.now(UTC)
    row = {
        "override_id": f"{name}@{now:%Y%m%dT%H%M%S.%fZ}", "annotation_id": name, "verdict": verdict,
        "reason": reason.strip(), "by": by.strip(), "at": now, "words": digest_of(said["answer"], said["description"]),
    }  # fmt: skip
    if dry_run:
        return row
    workspace.overrides.append([row])
    findings = workspace.findings.read()
    workspace.findings.append(
        [
            # Without the fingerprint the next audit judges it again, decision and all.
            found
            | {"verdict": verdict or found["judged"], "override": verdict and row["override_id"], "fingerprint": None}
            for found in findings.filter(pc.equal(findings["annotation_id"], name)).to_pylist()
            if found["verdict"] is not None
        ]
    )
    return row


def find(workspace: Workspace, names: list[str]) -> list[dict[str, Any]]:
    """Answers by annotation id: what was said, and how.

    Raises:
        ConfigError: one is not known, with those that are called almost so.
    """
    answers = Answers(workspace).rows.select(["annotation_id", "answer", "description"])
    found = answers.filter(pc.is_in(answers["annotation_id"], pa.array(names, pa.string()))).to_pylist()
    there = {row["annotation_id"]: row for row in found}
    for name in names:
        if name not in there:
            near = get_close_matches(name, answers["annotation_id"].to_pylist(), n=3)
            meant = f"did you mean {', '.join(near)}?" if near else "tables annotations and submissions have the ids"
            raise ConfigError(f"no answer {name!r}", meant)
    return [there[name] for name in names]
