"""What a report shows, prepared by who knows the tables; `render` turns it into a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from qc.report.marks import Piece


@dataclass(frozen=True, slots=True)
class Gate:
    """What the whole dataset has to keep, and whether it does.

    Attributes:
        name: as in `config.Gates`.
        limit: of the recipe.
        value: what was counted; None where there was nothing to count.
        kept: whether the value is within the limit.
    """

    name: str
    limit: float | bool
    value: float | bool | None
    kept: bool


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Rows by verdict."""

    accept: int = 0
    review: int = 0
    reject: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.accept + self.review + self.reject

    def share(self, verdict: str) -> float:
        """Of one verdict, 0 to 1."""
        return float(getattr(self, verdict)) / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Day:
    """What was submitted on one day of UTC.

    Attributes:
        date: ISO 8601.
        verdicts: of these submissions, as they count today.
    """

    date: str
    verdicts: Verdicts


@dataclass(frozen=True, slots=True)
class RuleCount:
    """How often a rule objected.

    Attributes:
        name: of the rule.
        description: what it asks for; "" of a rule that there is no more.
        severity: of its findings; of a rule that found nothing the one it would have, "off" where it is switched off.
        subject: what it judges, as `base.Subject`.
        found: rows with a finding of it.
        judged: rows that it judged.
    """

    name: str
    description: str
    severity: str
    subject: str
    found: int
    judged: int


@dataclass(frozen=True, slots=True)
class MethodCount:
    """Descriptions and images of one method of forgery.

    Attributes:
        name: of the method; "control" of untouched pairs.
        texts: verdicts on answers.
        images: verdicts on forgeries.
    """

    name: str
    texts: Verdicts
    images: Verdicts


@dataclass(frozen=True, slots=True)
class Said:
    """A finding on one row."""

    rule: str
    severity: str
    message: str


@dataclass(frozen=True, slots=True)
class AnnotatorCount:
    """The work of one annotator.

    Attributes:
        name: pseudonymous id.
        texts: verdicts on their answers.
        days: the last days with submissions.
        facts: what else was measured, by heading, ready to be read.
        findings: on the annotator.
    """

    name: str
    texts: Verdicts
    days: tuple[Day, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Said, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A row with findings.

    Attributes:
        id: of the annotation, or of the forgery where `kind` is "image".
        kind: "pair", "repeat", "control" or "image".
        verdict: that counts.
        judged: verdict of the rules alone.
        method: of the forgery, or "control".
        annotator: pseudonymous id; "" of an image.
        pieces: the text, cut in pieces that are marked or not.
        left_out: characters of the text that are not shown.
        findings: the first of them, the severest first.
        more: findings that are not shown.
    """

    id: str
    kind: str
    verdict: str
    judged: str
    method: str
    annotator: str
    pieces: tuple[Piece, ...]
    left_out: int
    findings: tuple[Said, ...]
    more: int = 0


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture.

    Attributes:
        name: what it shows.
        webp: the picture, or b"" where there is none.
        missing: why not.
    """

    name: str
    webp: bytes
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A row with its pictures, for a rule that objected to it."""

    row: Row
    rule: str
    thumbnails: tuple[Thumbnail, ...]


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of work that was sent back for one rule, or in all.

    Attributes:
        rule: its name; "" of all.
        sent: annotations that went back.
        repaired: of these, tasks that were answered anew.
        after: verdicts on the new answers.
    """

    rule: str
    sent: int
    repaired: int
    after: Verdicts


@dataclass(frozen=True, slots=True)
class Returned:
    """One annotation that was sent back.

    Attributes:
        id: of the annotation.
        annotator: pseudonymous id.
        by: a person, or "watch".
        at: UTC.
        rules: that objected.
        successor: id of the new answer, or "".
        verdict: on the new answer, or "".
    """

    id: str
    annotator: str
    by: str
    at: datetime
    rules: tuple[str, ...]
    successor: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A reviewer's decision.

    Attributes:
        id: of the annotation.
        verdict: of the reviewer; "" where the rules' own was put in force again.
        judged: by the rules.
        reason: in the reviewer's words.
        by: who.
        at: UTC.
        counts: whether it is in force: a later decision, or other words, end it.
    """

    id: str
    verdict: str
    judged: str
    reason: str
    by: str
    at: datetime
    counts: bool


@dataclass(frozen=True, slots=True)
class Page:
    """The whole report.

    Attributes:
        dataset: its name.
        newest: time of the newest submission, UTC, or None.
        gates: what the dataset has to keep.
        texts: verdicts on answers.
        images: verdicts on forgeries.
        overridden: answers whose verdict is a reviewer's.
        days: the last days with submissions.
        rules: all rules, those that objected most first.
        methods: by name.
        annotators: who had most rejected first.
        dataset_findings: on the dataset as a whole.
        repairs: in all first, then by rule; empty where nothing was sent back.
        returned: the last ones that were sent back.
        decisions: the last ones.
        decided: decisions in all.
        examples: the worst of each rule, rule by rule.
        rows: the worst; the page shows as many as fit into it.
        with_findings: rows with findings in all.
    """

    dataset: str
    newest: datetime | None
    gates: tuple[Gate, ...]
    texts: Verdicts
    images: Verdicts
    overridden: int
    days: tuple[Day, ...]
    rules: tuple[RuleCount, ...]
    methods: tuple[MethodCount, ...]
    annotators: tuple[AnnotatorCount, ...]
    dataset_findings: tuple[Said, ...]
    repairs: tuple[Repair, ...]
    returned: tuple[Returned, ...]
    decisions: tuple[Decision, ...]
    decided: int
    examples: tuple[Example, ...]
    rows: tuple[Row, ...]
    with_findings: int
