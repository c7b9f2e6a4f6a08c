"""Quality: all of QC in one run, from the pictures to the dataset as a whole, held against the recipe's gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtt_build.config import Gates
from mmtt_build.stages import audit, measure, overall
from mmtt_build.stages.tally import Tally
from mmtt_build.workspace import Workspace

if TYPE_CHECKING:
    from qc.report.model import Gate

REPORT = "qc-report.html"
"""In the workspace, unless another place is named."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What a run of QC found.

    Attributes:
        images: of the forgeries.
        answers: of what annotators said.
        overall: of annotators and the dataset.
        gates: of the recipe, and whether they are kept.
        report: the page that was written, or None.
    """

    images: Tally
    answers: Tally
    overall: overall.Overall
    gates: tuple[Gate, ...]
    report: Path | None

    @property
    def kept(self) -> bool:
        """Whether all gates are."""
        return all(gate.kept for gate in self.gates)


def quality(
    workspace: Workspace, *, pixels: bool = False, report: Path | None = None, workers: int = 0, dry_run: bool = False
) -> Quality:
    """Judges what is new or changed, and everything as a whole.

    Args:
        workspace: whose.
        pixels: decode every picture and check the mask contract again, not only whether the files are what was stored.
        report: HTML page to write; None writes none.
        workers: processes; 0 takes all cores.
        dry_run: counts and writes nothing.

    Raises:
        ConfigError: the recipe gives a severity to a rule that there is not.
    """
    images = measure.measure(workspace, pixels=pixels, workers=workers, dry_run=dry_run)
    answers = audit.audit(workspace, workers=workers, dry_run=dry_run)
    everything = overall.overall(workspace, dry_run=dry_run)
    gates = _gates(workspace.recipe.qc.gates, images.verdicts, answers.verdicts, everything)
    if dry_run or report is None:
        return Quality(images, answers, everything, gates, None)
    from mmtt_build.stages.report import report as write

    write(workspace, report, gates=gates)
    return Quality(images, answers, everything, gates, report)


def _gates(
    limits: Gates, images: Mapping[str, int], answers: Mapping[str, int], everything: overall.Overall
) -> tuple[Gate, ...]:
    from qc.report.model import Gate

    def most(name: str, limit: float, verdicts: Mapping[str, int], verdict: str) -> Gate:
        total = sum(verdicts.values())
        share = verdicts.get(verdict, 0) / total if total else None
        return Gate(name, limit, share, share is None or share <= limit)

    alpha = everything.alpha
    return (
        most("max_rejected", limits.max_rejected, answers, "reject"),
        most("max_review", limits.max_review, answers, "review"),
        most("max_rejected_images", limits.max_rejected_images, images, "reject"),
        Gate("min_agreement", limits.min_agreement, alpha, alpha is None or alpha >= limits.min_agreement),
        Gate("dataset", limits.dataset, everything.sound, everything.sound or not limits.dataset),
    )


def worst(workspace: Workspace, result: Quality) -> list[tuple[str, str, str, int, int, str]]:
    """Rules that found something, the severest first, then those that found it most often.

    Returns:
        Name, severity, what it judges, how many it found, of how many, and the id of one.
    """
    from qc.base import Severity, load_rules, severity

    of_subjects: Counter[str] = Counter()
    examples = result.answers.examples | result.images.examples
    for subject, findings in result.overall.findings.items():
        for finding in findings:
            of_subjects[finding.rule] += 1
            examples.setdefault(finding.rule, subject.rpartition("/")[2])
    found = result.answers.findings + result.images.findings + of_subjects
    total = {
        "annotation": result.answers.verdicts.total(),
        "forgery": result.images.verdicts.total(),
        "annotator": len(result.overall.profiles),
        "dataset": 1,
    }
    order = list(Severity)
    rules = [(rule, severity(rule, workspace.recipe.qc)) for rule in load_rules() if found[rule.name]]
    return [
        (rule.name, str(said), str(rule.subject), found[rule.name], total[rule.subject], examples[rule.name])
        for rule, said in sorted(
            ((rule, said) for rule, said in rules if said), key=lambda one: (order.index(one[1]), -found[one[0].name])
        )
    ]


def summary(workspace: Workspace, result: Quality) -> dict[str, Any]:
    """What a run of QC found, as JSON takes it."""
    keys = ("rule", "severity", "judges", "found", "of", "example")
    return {
        "kept": result.kept,
        "gates": [asdict(gate) for gate in result.gates],
        "forgeries": {"verdicts": result.images.verdicts, "judged_anew": result.images.changed},
        "answers": {"verdicts": result.answers.verdicts, "judged_anew": result.answers.changed},
        "agreement": asdict(result.overall.agreement),
        "findings": [dict(zip(keys, row, strict=True)) for row in worst(workspace, result)],
        "report": str(result.report) if result.report else None,
    }
