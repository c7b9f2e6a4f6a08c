"""Explain: one answer or one forgery, with every rule's verdict and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmtt_build.config import Qc
from mmtt_build.errors import ConfigError
from mmtt_build.stages import history
from mmtt_build.stages.answers import ANSWERS, Answers, forged, plain, read
from mmtt_build.stages.triptych import Picture, triptych
from mmtt_build.store import SomeRows, Table
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
    """Judges one row again, and reads of the tables little more than that.

    To compare its words with those of all others takes seconds where these are many. So what the last audit found by
    that stands, and only what no audit has seen is compared.

    Args:
        workspace: whose.
        name: annotation id or forgery id, or the beginning of one.

    Raises:
        ConfigError: no id begins so, or several do.
    """
    found, said = _resolve(workspace, name)
    near = _around(workspace, found) if said else _Near(workspace.root, _of_forgery(workspace, found))
    answers = Answers(near)
    answer, rules, forgery_id = _answer(answers, workspace, found) if said else (None, (), found)
    control = answer is not None and answer.kind == "control"
    there = answers.forgeries
    of = forged(there.rows(there.find(pa.array([forgery_id or None], pa.string()))).to_pylist()[0])
    checked = _row(near.image_checks, forgery_id, ["verdict", "findings"])
    verdict = (checked or {}).get("verdict") or ""
    image = _rulings(base.Subject.FORGERY, checked["findings"], workspace.recipe.qc) if checked and verdict else ()
    told = near.findings.read(["annotation_id", "forgery_id", "verdict"])
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
        decisions=tuple(one for one in history.decisions(near) if one.id == found),
        returned=tuple(one for one in history.returned(near) if found in (one.id, one.successor)),
        pictures=tuple(triptych(workspace, of, control=control)),
    )


# --- what to read -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Near(Workspace):
    """A workspace with those rows only that have to do with one of them.

    Attributes:
        among: keys of the rows, by table; of other tables all are there.
    """

    among: Mapping[str, Collection[str]]

    def _table(self, name: str, of: object) -> Table:
        folder = self.root / "tables" / name
        return SomeRows(folder, of, self.among[name]) if name in self.among else Table(folder, of)


def _resolve(workspace: Workspace, name: str) -> tuple[str, bool]:
    """The id that is meant, and whether it is of an answer."""
    names: list[pa.ChunkedArray] = []
    for read_names in (
        workspace.submissions.keys, partial(_standing, workspace), workspace.plan.keys, workspace.forgeries.keys,
    ):  # fmt: skip
        names.append(read_names())
        if pc.any(pc.equal(names[-1], name)).as_py():
            return name, len(names) <= 2
    begin = [pc.unique(column.filter(pc.starts_with(column, name))).to_pylist() if name else [] for column in names]
    every = sorted({one for some in begin for one in some})
    if len(every) == 1:
        return every[0], bool(begin[0] or begin[1])
    if every:
        shown = ", ".join(every[:5]) + (" ..." if len(every) > 5 else "")
        raise ConfigError(f"{len(every):,} ids begin with {name!r}", f"write more of it: {shown}")
    near = get_close_matches(name, {one for column in names for one in column.to_pylist()}, 3)
    raise ConfigError(
        f"no annotation or forgery {name!r}",
        f"did you mean {' or '.join(near)}?" if near else "the report of mmtt qc audit has the ids",
    )


def _standing(workspace: Workspace) -> pa.ChunkedArray:
    said = workspace.annotations.read(["annotation_id", "answer"])
    return said.filter(pc.is_in(said["answer"], pa.array(ANSWERS)))["annotation_id"]


def _around(workspace: Workspace, name: str) -> _Near:
    """What rules ask for beside an answer: all by its annotator, all to its task, and its forgery with its images."""
    came = workspace.submissions.read(["annotation_id", "annotator", "task_id"])
    said = workspace.annotations.read(["annotation_id", "annotator", "forgery_id"])
    tasks: set[str] = set()
    answers, forgeries = {name}, set[str]()
    for table in (came, said):
        of = table.filter(pc.equal(table["annotation_id"], name)).to_pylist()
        for row in of:
            tasks.update([row["task_id"]] if row.get("task_id") else ())
            forgeries.update([row["forgery_id"]] if row.get("forgery_id") else ())
        by = pa.array([row["annotator"] for row in of], pa.string()).drop_null()
        answers.update(table.filter(pc.is_in(table["annotator"], by))["annotation_id"].to_pylist())
    same = came.filter(pc.is_in(came["task_id"], pa.array(sorted(tasks), pa.string())))
    answers.update(same["annotation_id"].to_pylist())
    theirs = came.filter(pc.is_in(came["annotation_id"], pa.array(sorted(answers), pa.string())))
    shown = SomeRows(workspace.tasks.folder, workspace.tasks.schema, tasks).read(["forgery_id", "mask_of"]).to_pylist()
    forgeries.update(value for row in shown for value in row.values() if value)
    among: dict[str, Collection[str]] = dict.fromkeys(("submissions", "annotations", "findings"), answers)
    among["tasks"] = {task for task in theirs["task_id"].to_pylist() if task}
    return _Near(workspace.root, among | _files(workspace, forgeries))


def _of_forgery(workspace: Workspace, name: str) -> dict[str, Collection[str]]:
    told = workspace.findings.read(["annotation_id", "forgery_id"])
    answers = told.filter(pc.equal(told["forgery_id"], name))["annotation_id"].to_pylist()
    return {"findings": answers, "submissions": (), "annotations": ()} | _files(workspace, [name])


def _files(workspace: Workspace, forgeries: Collection[str]) -> dict[str, Collection[str]]:
    """Of forgeries the rows, and those of the images that they were made from."""
    planned = SomeRows(workspace.plan.folder, workspace.plan.schema, forgeries).read(["base_id", "source_id"])
    made_from = {name for row in planned.to_pylist() for name in row.values() if name}
    return dict.fromkeys(("plan", "forgeries", "image_checks"), forgeries) | {"pristine": made_from}


# --- what was said ----------------------------------------------------------------------------------------------------


def _answer(answers: Answers, workspace: Workspace, name: str) -> tuple[Answer, tuple[Ruling, ...], str]:
    """What was said, the rules on it, and the forgery that was shown."""
    near, thresholds = answers.workspace, workspace.recipe.qc
    stored = _row(near.findings, name) or {"verdict": None, "judged": None, "findings": [], "forgery_id": None}
    if not pc.any(pc.equal(answers.rows["annotation_id"], name)).as_py():
        return _gone(near, name, stored)
    (batch,) = answers.batches([name], copied=False)
    annotation, beside = read(plain(batch)[0])
    seen = stored["verdict"] is not None
    if not seen:
        beside = replace(beside, copied=Answers(workspace).copied.get(name, ()))
    findings = base.audit(annotation, thresholds, workspace.recipe.dataset.language, beside, workspace.root)
    if seen:
        findings = sorted([*findings, *_copies(stored, thresholds)], key=lambda finding: finding.rule)
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
        audited=seen and stored["findings"] == rows,
    )
    shown = annotation.forgery_id or (beside.forgery.id if beside.forgery else "")
    return answer, _rulings(base.Subject.ANNOTATION, rows, thresholds), shown


def _copies(stored: Mapping[str, Any], thresholds: Qc) -> Iterator[base.Finding]:
    """What the last audit found by comparing the words with all others', as severe as the recipe has it now."""
    rules = {rule.name: rule for rule in base.load_rules(base.Subject.ANNOTATION) if rule.name.startswith("copy.")}
    for one in stored["findings"]:
        if one["rule"] in rules and (severity := base.severity(rules[one["rule"]], thresholds)):
            spans = tuple((span["start"], span["end"]) for span in one["spans"] or ())
            yield base.Finding(one["rule"], severity, one["message"], spans)


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
    rows = SomeRows(table.folder, table.schema, [key]).read(columns)
    found: list[dict[str, Any]] = rows.to_pylist()
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
