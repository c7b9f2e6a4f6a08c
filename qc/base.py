"""What a rule is, what it finds, and the verdict that follows from its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from mmtt_build.config import Qc
from mmtt_build.records import Annotation
from qc import lexicon
from qc.mentions import Mention, read_mentions
from qc.spelling import Folded, count, fold


class Severity(StrEnum):
    """What a finding does to the annotation."""

    REJECT = "reject"
    REVIEW = "review"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's objection.

    Attributes:
        rule: its name.
        severity: what follows.
        message: the evidence in words: what was said, the part, the seconds.
        spans: start and end in the description of the words that it objects to; none where it is not about words.
    """

    rule: str
    severity: Severity
    message: str
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a rule found, with the places in the description."""

    message: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Context:
    """What rules know beside the row they judge, each thing found out once however many of them ask.

    Attributes:
        annotation: the row.
        thresholds: of the recipe.
        language: of the recipe's descriptions, ISO 639-1; without one the annotation's own.
    """

    annotation: Annotation
    thresholds: Qc
    language: str | None

    @cached_property
    def text(self) -> str:
        """The description, "" without one."""
        return self.annotation.description or ""

    @cached_property
    def folded(self) -> Folded:
        """The description as lexica compare it."""
        return fold(self.text)

    @cached_property
    def words(self) -> int:
        """The description's length as the annotator's page counts it, see `spelling.count`."""
        return count(self.text)

    @cached_property
    def mentions(self) -> list[Mention]:
        """The parts that the description names; none in a language that has no lexicon."""
        return read_mentions(self.folded, self.language) if self.language in lexicon.LANGUAGES else []

    def said(self, kind: str, message: str) -> Evidence | None:
        """Evidence that the description holds phrases of a kind (`lexicon.phrases`) of any language; {} quotes them."""
        folded = self.folded
        found = [span for phrases in lexicon.phrases(kind) for span in phrases.find(folded)]
        return self.quoted(sorted(folded.original(*span) for span in found), message) if found else None

    def quoted(self, spans: Iterable[tuple[int, int]], message: str) -> Evidence:
        """Evidence that quotes places of the description at the message's {}, each with its position."""
        places = tuple(spans)
        quotes = ", ".join(f"{self.text[start:end]!r} at {start}" for start, end in places[:_QUOTES])
        more = f" and {len(places) - _QUOTES} more" if len(places) > _QUOTES else ""
        return Evidence(message.format(quotes + more), places[:_SPANS])


_QUOTES, _SPANS = 3, 100  # a text of 1 MB may repeat its fault on every line

Check = Callable[[Annotation, Context], "str | Evidence | None"]
"""A rule's body: the message of its finding, perhaps with the places in the text, or None if the annotation passes."""


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


def audit(annotation: Annotation, thresholds: Qc, language: str | None = None) -> list[Finding]:
    """All findings of all rules on one annotation, by rule name.

    Args:
        annotation: the row.
        thresholds: of the recipe.
        language: of the recipe's descriptions, ISO 639-1; None takes the annotation's own.
    """
    from qc import rules  # noqa: F401 - registers the rules

    context = Context(annotation, thresholds, language or annotation.language)
    found = []
    for name in sorted(RULES):
        rule = RULES[name]
        if (evidence := rule.check(annotation, context)) is not None:
            if isinstance(evidence, str):
                evidence = Evidence(evidence, ())
            found.append(Finding(name, rule.severity, evidence.message, evidence.spans))
    return found


def verdict(findings: Iterable[Finding]) -> str:
    """The severest consequence: "reject", "review", or "accept" where nothing but information was found."""
    severities = {finding.severity for finding in findings}
    if Severity.REJECT in severities:
        return "reject"
    return "review" if Severity.REVIEW in severities else "accept"
