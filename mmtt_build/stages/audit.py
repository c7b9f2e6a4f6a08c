"""Audit: every answer through every rule, every forgery, every annotator and the dataset; what is found, as rows.

What was judged before and has not changed, in itself, in what the tables know beside it, or in the rules, is not judged
again. A reviewer's decision (`stages.override`) counts for the words it was made on, whatever the rules say.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmtt_build import parallel
from mmtt_build.config import Recipe
from mmtt_build.progress import Progress
from mmtt_build.stages import override
from mmtt_build.stages.answers import BATCH, Answers, plain, read
from mmtt_build.stages.tally import Tally
from mmtt_build.store import Appender
from mmtt_build.workspace import Workspace

ALONE = 4 * BATCH
"""Up to so many answers one process is done before others have started."""


@dataclass(frozen=True, slots=True)
class _Task:
    """A batch for a worker: what to judge, what it was when it was judged before, and what reviewers decided."""

    answers: pa.Table
    fingerprints: Sequence[str | None]
    decisions: Mapping[str, Mapping[str, Any]]


def audit(
    workspace: Workspace, *, only: Collection[str] | None = None, workers: int = 0, dry_run: bool = False
) -> Tally:
    """Judges the answers that are new or changed, and records what was found.

    Args:
        workspace: whose.
        only: annotation ids; None takes all. Copies of other annotators' words are found when all are judged.
        workers: processes; 0 takes all cores.
        dry_run: counts and writes nothing.

    Raises:
        ConfigError: the recipe gives a severity to a rule that there is not.
    """
    from qc.base import named
    from qc.version import rules_version

    for name in workspace.recipe.qc.severity:
        named(name)
    answers = Answers(workspace, among=only)
    stored = workspace.findings.read(["annotation_id", "verdict", "fingerprint", "findings"])
    # A withdrawn verdict is no reason to judge the same words again, but to write the verdict again it is.
    valid = stored.filter(pc.is_valid(stored["verdict"]))
    before = dict(zip(valid["annotation_id"].to_pylist(), valid["fingerprint"].to_pylist(), strict=True))
    decisions = override.decisions(workspace)
    judge = partial(_judge, workspace.recipe, workspace.root, rules_version())

    def judged(names: Collection[str] | None, count: int, copied: bool) -> Iterator[tuple[list[dict[str, Any]], int]]:
        def tasks() -> Iterator[_Task]:
            for batch in answers.batches(names, copied=copied):
                of = batch["annotation_id"].to_pylist()
                yield _Task(batch, [before.get(name) for name in of], {n: decisions[n] for n in of if n in decisions})

        return parallel.unordered(judge, tasks(), 1 if count <= ALONE else workers or parallel.cores())

    total = len(answers.rows) if only is None else len(only)
    tally, changed = Tally(), set()
    with Progress("audit", total, "answers") as progress, Appender(workspace.findings) as rows:

        def take(row: dict[str, Any]) -> None:
            changed.add(row["annotation_id"])
            tally.add(row)
            if not dry_run:
                rows.add(row)

        # To compare all words with all takes this process seconds, in which the others judge what is under way.
        for found, seen in judged(only, total, copied=False):
            for row in found:
                if row["annotation_id"] not in answers.copied:
                    take(row)
            progress.step(count=seen)
        copies = answers.copied.keys() if only is None else answers.copied.keys() & only
        for found, _ in judged(copies, len(copies), copied=True):
            for row in found:
                take(row)
    tally.changed = len(changed)
    if only is None:
        names, still = valid["annotation_id"], answers.rows["annotation_id"].combine_chunks()
        known = pc.invert(pc.is_in(names, pa.array(list(changed), pa.string())))
        tally.add_all(valid.filter(pc.and_(pc.is_in(names, still), known)))
        if not dry_run:
            _withdraw(workspace, valid, answers.rows["annotation_id"])
    return tally


def _judge(recipe: Recipe, root: Path, version: str, task: _Task) -> tuple[list[dict[str, Any]], int]:
    """Rows of the answers of a batch that are new or changed, and how many there were."""
    from qc import base

    rows = []
    settings = hashlib.blake2b(repr((version, recipe.qc, recipe.dataset.language)).encode(), digest_size=12)
    for row, known in zip(plain(task.answers), task.fingerprints, strict=True):
        decision = task.decisions.get(row["annotation_id"])
        if decision and decision["words"] != override.digest_of(row["answer"], row["description"]):
            decision = None  # on words that are others now
        key = settings.copy()
        # Version 2 has no references, which would depend on what else is in memory; a tenth of the time of repr.
        key.update(marshal.dumps([*row.values(), decision and decision["override_id"]], 2))
        fingerprint = key.hexdigest()
        if known == fingerprint:
            continue
        annotation, beside = read(row)
        findings = base.audit(annotation, recipe.qc, recipe.dataset.language, beside, root)
        judged = base.verdict(findings)
        rows.append(
            {
                "annotation_id": annotation.id,
                "forgery_id": annotation.forgery_id or None,
                "kind": annotation.kind,
                "annotator": annotation.annotator,
                "verdict": (decision and decision["verdict"]) or judged,
                "judged": judged,
                "override": decision["override_id"] if decision and decision["verdict"] else None,
                "findings": [base.row_of(finding) for finding in findings],
                "fingerprint": fingerprint,
            }
        )
    return rows, len(task.answers)


def _withdraw(workspace: Workspace, stored: pa.Table, current: pa.ChunkedArray) -> None:
    """Takes back the verdicts on what is no answer any more."""
    gone = stored.filter(pc.invert(pc.is_in(stored["annotation_id"], current.combine_chunks())))
    workspace.findings.append([{"annotation_id": name} for name in gone["annotation_id"].to_pylist()])
