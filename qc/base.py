"""What a rule is, what it finds, and the verdict that follows from its findings."""

from __future__ import annotations

import difflib
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from mmtt_build.config import Qc
from mmtt_build.errors import ConfigError
from mmtt_build.records import Annotation, Forged
from qc import lexicon
from qc.mentions import Mention, read_mentions
from qc.places import Slot, Span, meant, slots
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


@dataclass(frozen=True, slots=True)
class Copied:
    """An annotation whose words are another one's, too.

    Attributes:
        kind: "same", "near" or "template" (a sentence that one annotator uses again and again).
        of: id of the earlier annotation that has them.
        by: its annotator.
        similarity: of the two descriptions, 0 to 1.
        uses: of a template's sentence.
        span: of the words in the description, or None for all of it.
    """

    kind: str
    of: str
    by: str
    similarity: float = 1.0
    uses: int = 0
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """What the tables know beside an annotation.

    Attributes:
        forgery: the one it describes; of a control the one whose mask was shown. None where there is none.
        previous: what the same annotator submitted before.
        since_s: seconds from then to this submission.
        copied: where else its words are.
        other: an earlier annotation of the same task, or by the same annotator of the same forgery.
    """

    forgery: Forged | None = None
    previous: str | None = None
    since_s: float | None = None
    copied: tuple[Copied, ...] = ()
    other: str | None = None


@dataclass
class Context:
    """What rules know beside the annotation they judge, each thing found out once however many of them ask.

    Attributes:
        annotation: the row.
        thresholds: of the recipe.
        language: of the recipe's descriptions, ISO 639-1; without one the annotation's own.
        beside: what the tables know; None leaves out the rules that need it.
        root: the workspace's folder, for the rules that look at pixels; None leaves these out.
        text: the description, "" without one.
        lowered: it in lower case, with every letter where it was.
        folded: it as lexica compare it.
        words: its length as the annotator's page counts it, see `spelling.count`.
        mentions: the parts that it names; none in a language that has no lexicon.
        meant: those that say more than where another part is, see `places.meant`.
        claims: the places in the description of each part and side that it calls manipulated.
    """

    annotation: Annotation
    thresholds: Qc
    language: str | None
    beside: Beside | None = None
    root: Path | None = None
    text: str = field(init=False)
    lowered: str = field(init=False)
    folded: Folded = field(init=False)
    words: int = field(init=False)
    mentions: list[Mention] = field(init=False)
    meant: list[Mention] = field(init=False)
    claims: dict[Slot, list[Span]] = field(init=False)

    def __post_init__(self) -> None:
        """Reads the description."""
        self.text = text = self.annotation.description or ""
        self.lowered = text.lower() if text.isascii() else text.translate(_LOWER)
        self.folded = fold(text)
        self.words = count(text)
        self.mentions = read_mentions(self.folded, self.language) if self.language in lexicon.LANGUAGES else []
        self.meant = meant(self.lowered, self.folded, self.mentions) if self.mentions else []
        self.claims = slots(self.lowered, [mention for mention in self.meant if not mention.negated])

    def said(self, kind: str, message: str) -> Evidence | None:
        """Evidence that the description holds phrases of a kind (`lexicon.phrases`) of any language; {} quotes them."""
        folded = self.folded
        if _telling(kind).isdisjoint(folded.words[0]):
            return None
        found = [span for phrases in lexicon.phrases(kind) for span in phrases.find(folded)]
        return self.quoted(sorted(folded.original(*span) for span in found), message) if found else None

    def quoted(self, spans: Iterable[tuple[int, int]], message: str) -> Evidence:
        """Evidence that quotes places of the description at the message's {}, each with its position."""
        places = tuple(spans)
        quotes = ", ".join(f"{self.text[start:end]!r} at {start}" for start, end in places[:_QUOTES])
        more = f" and {len(places) - _QUOTES} more" if len(places) > _QUOTES else ""
        return Evidence(message.format(quotes + more), places[:_SPANS])


@cache
def _telling(kind: str) -> frozenset[str]:
    """Words without one of which a text has no phrase of a kind."""
    return frozenset(word for phrases in lexicon.phrases(kind) for word in phrases.needed)


_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_QUOTES, _SPANS = 3, 100  # a text of 1 MB may repeat its fault on every line


class Subject(StrEnum):
    """What a rule judges, and with what its check is called."""

    ANNOTATION = "annotation"  # records.Annotation, Context
    FORGERY = "forgery"  # qc.images.Picture, config.Qc
    ANNOTATOR = "annotator"  # qc.annotators.Profile, config.Qc
    DATASET = "dataset"  # qc.dataset.Dataset, config.Qc


Check = Callable[[Any, Any], "str | Evidence | None"]
"""A rule's body: the message of its finding, perhaps with the places in the text, or None if the subject passes.

Its arguments are those of its `Subject`.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """A registered rule.

    Attributes:
        name: e.g. "text.too-long".
        severity: its own; the recipe may say another one.
        subject: what it judges.
        thresholds: keys of `[qc]` that it reads.
        check: its body; the docstring's first line says what it asks for, the rest why and how.
    """

    name: str
    severity: Severity
    subject: Subject
    thresholds: tuple[str, ...]
    check: Check

    @property
    def description(self) -> str:
        """What the rule asks for, in one line."""
        return (self.check.__doc__ or "").strip().splitlines()[0]


RULES: dict[str, Rule] = {}
"""All rules by name, once `load_rules` was called."""

_MODULES = ("text_rules", "time_rules", "images", "mention_rules", "copies", "annotators", "dataset")


def rule(
    name: str, severity: Severity, *thresholds: str, subject: Subject = Subject.ANNOTATION
) -> Callable[[Check], Check]:
    """Registers a check under a name such as "text.too-long"; further arguments are as `Rule` has them."""

    def register(check: Check) -> Check:
        if name in RULES:
            raise ValueError(f"rule {name!r} is registered twice")
        RULES[name] = Rule(name, severity, subject, thresholds, check)
        load_rules.cache_clear()
        return check

    return register


@cache
def load_rules(subject: Subject | None = None) -> tuple[Rule, ...]:
    """The rules on a subject, or all, by name."""
    for module in _MODULES:
        import_module(f"qc.{module}")
    return tuple(RULES[name] for name in sorted(RULES) if subject in (None, RULES[name].subject))


def named(name: str) -> Rule:
    """The rule of a name.

    Raises:
        ConfigError: there is none.
    """
    names = {rule.name: rule for rule in load_rules()}
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        raise ConfigError(
            f"there is no rule {name!r}", f"did you mean {close[0]!r}?" if close else "mmtt qc rules lists them"
        )
    return names[name]


def severity(rule: Rule, thresholds: Qc) -> Severity | None:
    """Of a rule under a recipe; None where it is switched off."""
    said = thresholds.severity.get(rule.name)
    if said is None:
        return rule.severity
    return None if said == "off" else Severity(said)


def judge(subject: Subject, record: Any, context: Any, thresholds: Qc) -> list[Finding]:
    """All findings of the rules on one subject, by rule name.

    Args:
        subject: says which rules.
        record: what they judge, as `Subject` says.
        context: what they know beside it, likewise.
        thresholds: of the recipe.
    """
    found = []
    for rule in load_rules(subject):
        serious = severity(rule, thresholds) if thresholds.severity else rule.severity
        if serious is not None and (evidence := rule.check(record, context)) is not None:
            if isinstance(evidence, str):
                evidence = Evidence(evidence, ())
            found.append(Finding(rule.name, serious, evidence.message, evidence.spans))
    return found


def audit(
    annotation: Annotation,
    thresholds: Qc,
    language: str | None = None,
    beside: Beside | None = None,
    root: Path | None = None,
) -> list[Finding]:
    """All findings of all rules on one annotation, by rule name; arguments as `Context` has them."""
    context = Context(annotation, thresholds, language or annotation.language, beside, root)
    return judge(Subject.ANNOTATION, annotation, context, thresholds)


def verdict(findings: Iterable[Finding]) -> str:
    """The severest consequence: "reject", "review", or "accept" where nothing but information was found."""
    severities = {finding.severity for finding in findings}
    if Severity.REJECT in severities:
        return "reject"
    return "review" if Severity.REVIEW in severities else "accept"


def row_of(finding: Finding) -> dict[str, Any]:
    """A finding as `schema.FINDING` has it."""
    spans = [{"start": start, "end": end} for start, end in finding.spans]
    return {"rule": finding.rule, "severity": str(finding.severity), "message": finding.message, "spans": spans}
