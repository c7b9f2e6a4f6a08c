"""What a rule is, what it finds, and the verdict that follows from its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from mmtt_build.config import Qc
from mmtt_build.records import Annotation


class Severity(StrEnum):
    """What a finding does to the annotation."""

    REJECT = "reject"
    REVIEW = "review"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's objection; the message names the evidence (the words, the part, the seconds)."""

    rule: str
    severity: Severity
    message: str


Check = Callable[[Annotation, Qc], str | None]
"""A rule's body: the message of its finding, or None if the annotation passes."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A registered rule; its description is the first line of the check's docstring."""

    name: str
    severity: Severity
    check: Check

    @property
    def description(self) -> str:
        """What the rule asks for, in one line."""
        return (self.check.__doc__ or "").strip().splitlines()[0]


RULES: dict[str, Rule] = {}


def rule(name: str, severity: Severity) -> Callable[[Check], Check]:
    """Registers a check under a name such as "text.too-long"."""

    def register(check: Check) -> Check:
        if name in RULES:
            raise ValueError(f"rule {name!r} is registered twice")
        RULES[name] = Rule(name, severity, check)
        return check

    return register


def audit(annotation: Annotation, thresholds: Qc) -> list[Finding]:
    """All findings of all rules on one annotation, by rule name."""
    from qc import rules  # noqa: F401 - registers the rules

    return [
        Finding(name, RULES[name].severity, message)
        for name in sorted(RULES)
        if (message := RULES[name].check(annotation, thresholds)) is not None
    ]


def verdict(findings: Iterable[Finding]) -> str:
    """The severest consequence: "reject", "review", or "accept" where nothing but information was found."""
    severities = {finding.severity for finding in findings}
    if Severity.REJECT in severities:
        return "reject"
    return "review" if Severity.REVIEW in severities else "accept"
