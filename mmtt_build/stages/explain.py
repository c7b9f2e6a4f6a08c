"""Explain: one answer or one forgery, with every rule's verdict and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmtt_build.config import Qc
from mmtt_build.errors import ConfigError
from mmtt_build.stages import history
from mmtt_build.stages.answers import Answers, forged
from mmtt_build.stages.triptych import Picture, triptych
from mmtt_build.store import Table
from mmtt_build.workspace import Workspace
from qc import base
from qc.report.model import Decision, Returned

PASS, OFF = "pass", "off"
_SUBMITTED = (
    "annotation_id", "task_id", "kind", "status", "reason", "annotator", "answer", "description", "observation_s",
    "created_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ruling:
    """What one rule says.

    Attributes:
        rule: its name.
        verdict: severity of its finding, "pass", or "off" where the recipe switches it off.
        message: of the finding, or "".
        spans: start and end in the text of the words it objects to.
        asks: what it asks for.
        thresholds: of the recipe that it reads.
    """

    rule: str
    verdict: str
    message: str
    spans: tuple[tuple[int, int], ...]
    asks: str
    thresholds: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an annotator said.

    Attributes:
        id: annotation id.
        kind: "pair", "repeat" or "control".
        annotator: pseudonymous id.
        status: "ok", or why it does not count, as in the table `submissions`.
        answer: "described", "nothing-visible" or "broken-pair"; None where it could not be read.
        text: the annotator's own words, or None.
        observation_s: seconds from the pair being shown to the submission, or None.
        created_at: when it was submitted, or None of what was never on a server.
        verdict: that counts, "" before an audit and of what counts no more.
        judged: verdict of the rules.
        audited: whether the rules below saw what the last audit saw; of what counts no more they are that audit's.
    """

    id: str
    kind: str
    annotator: str
    status: str
    answer: str | None
    text: str | None
    observation_s: float | None
    created_at: datetime | None
    verdict: str
    judged: str
    audited: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """All about one answer, or one forgery.

    Attributes:
        id: of the annotation or of the forgery.
        answer: None where a forgery is explained.
        rules: on the answer.
        forgery_id: what is described, or of a control the one whose mask was shown; "" where that is not known.
        forgery: "ok", or why it cannot be used.
        method: of the forgery, or "".
        image_verdict: of the last audit on the forgery, or "" without one.
        image_rules: on the forgery, as of that audit; empty without one.
        answers: annotation ids of what was said of the forgery with their verdicts, where a forgery is explained.
        decisions: of reviewers, the last one first.
        returned: where it was sent back.
        pictures: pristine, forged and mask.
    """

    id: str
    answer: Answer | None
    rules: tuple[Ruling, ...]
    forgery_id: str
    forgery: str
    method: str
    image_verdict: str
    image_rules: tuple[Ruling, ...]
    answers: Mapping[str, str]
    decisions: tuple[Decision, ...]
    returned: tuple[Returned, ...]
    pictures: tuple[Picture, ...]


def explain(workspace: Workspace, name: str) -> Explanation:
    """Judges one row again, in view of all others.

    Args:
        workspace: whose.
        name: annotation id or forgery id, or the beginning of one.

    Raises:
        ConfigError: no id begins so, or several do.
    """
    answers = Answers(workspace)
    said = [*answers.rows["annotation_id"].to_pylist(), *workspace.submissions.keys().to_pylist()]
    found = _resolve(name, {*said, *workspace.plan.keys().to_pylist(), *workspace.forgeries.keys().to_pylist()})
    answer, rules, forgery_id = _answer(answers, found) if found in set(said) else (None, (), found)
    control = answer is not None and answer.kind == "control"
    there = answers.forgeries
    of = forged(there.rows(there.find(pa.array([forgery_id or None], pa.string()))).to_pylist()[0])
    checked = _row(workspace.image_checks, forgery_id)
    verdict = (checked or {}).get("verdict") or ""
    image = _rulings(base.Subject.FORGERY, checked["findings"], workspace.recipe.qc) if checked and verdict else ()
    told = workspace.findings.read(["annotation_id", "forgery_id", "verdict"])
    told = told.filter(pc.equal(told["forgery_id"], found)).to_pylist()
    return Explanation(
        id=found,
        answer=answer,
        rules=rules,
        forgery_id=forgery_id,
        forgery=of.status if of else "not in this workspace",
        method=(of and of.method) or "",
        image_verdict=verdict,
        image_rules=image,
        answers={row["annotation_id"]: row["verdict"] or "" for row in told},
        decisions=tuple(one for one in history.decisions(workspace) if one.id == found),
        returned=tuple(one for one in history.returned(workspace) if found in (one.id, one.successor)),
        pictures=tuple(triptych(workspace, of, control=control)),
    )


def _resolve(name: str, names: set[str]) -> str:
    if name in names:
        return name
    begin = sorted(one for one in names if name and one.startswith(name))
    if len(begin) == 1:
        return begin[0]
    if begin:
        shown = ", ".join(begin[:5]) + (" ..." if len(begin) > 5 else "")
        raise ConfigError(f"{len(begin):,} ids begin with {name!r}", f"write more of it: {shown}")
    near = get_close_matches(name, names, 3)
    raise ConfigError(
        f"no annotation or forgery {name!r}",
        f"did you mean {' or '.join(near)}?" if near else "the report of mmtt qc audit has the ids",
    )


def _answer(answers: Answers, name: str) -> tuple[Answer, tuple[Ruling, ...], str]:
    """What was said, the rules on it, and the forgery that was shown."""
    workspace = answers.workspace
    thresholds = workspace.recipe.qc
    stored = _row(workspace.findings, name) or {"verdict": None, "judged": None, "findings": [], "forgery_id": None}
    if not pc.any(pc.equal(answers.rows["annotation_id"], name)).as_py():
        return _gone(workspace, name, stored)
    annotation, beside = answers.one(name)
    findings = base.audit(annotation, thresholds, workspace.recipe.dataset.language, beside, workspace.root)
    rows = [base.row_of(finding) for finding in findings]
    answer = Answer(
        id=name,
        kind=annotation.kind,
        annotator=annotation.annotator,
        status="ok",
        answer=annotation.answer,
        text=annotation.description,
        observation_s=annotation.observation_s,
        created_at=annotation.created_at,
        verdict=stored["verdict"] or "",
        judged=base.verdict(findings),
        audited=stored["verdict"] is not None and stored["findings"] == rows,
    )
    shown = annotation.forgery_id or (beside.forgery.id if beside.forgery else "")
    return answer, _rulings(base.Subject.ANNOTATION, rows, thresholds), shown


def _gone(workspace: Workspace, name: str, stored: Mapping[str, Any]) -> tuple[Answer, tuple[Ruling, ...], str]:
    """The same of a submission that does not count, by what the audit found while it did."""
    said = _row(workspace.submissions, name, _SUBMITTED)
    assert said is not None  # its id comes from there
    task = _row(workspace.tasks, said["task_id"], ["task_id", "mask_of"]) if said["task_id"] else None
    judged = stored["judged"] is not None
    answer = Answer(
        id=name,
        kind=said["kind"] or "pair",
        annotator=said["annotator"] or "",
        status=said["status"] + (f": {said['reason']}" if said["reason"] else ""),
        answer=said["answer"],
        text=said["description"],
        observation_s=said["observation_s"],
        created_at=said["created_at"],
        verdict="",
        judged=stored["judged"] or "",
        audited=judged,
    )
    rules = _rulings(base.Subject.ANNOTATION, stored["findings"], workspace.recipe.qc) if judged else ()
    return answer, rules, (task or {}).get("mask_of") or stored["forgery_id"] or ""


def _row(table: Table, key: str, columns: Sequence[str] | None = None) -> dict[str, Any] | None:
    rows = table.read(columns)
    found: list[dict[str, Any]] = rows.filter(pc.equal(rows[table.key], key)).to_pylist()
    return found[0] if found else None


def _rulings(subject: base.Subject, findings: Iterable[Mapping[str, Any]] | None, thresholds: Qc) -> tuple[Ruling, ...]:
    """All rules on a subject, those that found something first.

    Args:
        subject: of which rules.
        findings: as `schema.FINDING`.
        thresholds: of the recipe.
    """
    found = {one["rule"]: one for one in findings or ()}
    rulings = []
    for rule in base.load_rules(subject):
        finding = found.get(rule.name)
        off = base.severity(rule, thresholds) is None
        rulings.append(
            Ruling(
                rule=rule.name,
                verdict=finding["severity"] if finding else OFF if off else PASS,
                message=finding["message"] if finding else "",
                spans=tuple((span["start"], span["end"]) for span in (finding["spans"] or ())) if finding else (),
                asks=rule.description,
                thresholds={key: getattr(thresholds, key) for key in rule.thresholds},
            )
        )
    order = ["reject", "review", "info", PASS, OFF]
    return tuple(sorted(rulings, key=lambda ruling: order.index(ruling.verdict)))
