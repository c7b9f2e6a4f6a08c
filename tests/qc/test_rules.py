"""Each rule with a row that passes and one that does not; verdicts; the audit stage."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmtt_build.config import Qc
from mmtt_build.records import Annotation
from mmtt_build.stages.audit import audit
from mmtt_build.workspace import Workspace
from qc import base
from qc.base import Finding, Severity

GOOD = Annotation(
    id="a-1",
    forgery_id="warp-0",
    answer="described",
    description="The left eye is larger than the right one.",
    language="en",
    labels=tuple(int(i == 0) for i in range(21)),
    annotator="ann-03",
    observation_s=75.0,
    origin="human",
)


def found(annotation: Annotation, thresholds: Qc | None = None) -> dict[str, str]:
    return {finding.rule: finding.message for finding in base.audit(annotation, thresholds or Qc())}


def test_a_good_annotation_passes_every_rule() -> None:
    assert found(GOOD) == {}


@pytest.mark.parametrize("text", [None, "", " \n\t"])
def test_empty(text: str | None) -> None:
    assert "without a word" in found(replace(GOOD, description=text))["text.empty"]
    assert found(replace(GOOD, description=text, answer="nothing-visible")) == {}


def test_too_long_counts_words_by_white_space() -> None:
    assert "text.too-long" not in found(replace(GOOD, description="well-known " * 120))
    assert found(replace(GOOD, description="word " * 121))["text.too-long"] == "121 words, at most 120"
    assert found(GOOD, Qc(max_words=5))["text.too-long"] == "9 words, at most 5"


def test_too_short() -> None:
    assert "time.too-short" not in found(replace(GOOD, observation_s=60.0))
    assert found(replace(GOOD, observation_s=59.9))["time.too-short"] == "59.9 s, at least 60 s"
    assert "no observation time" in found(replace(GOOD, observation_s=None))["time.too-short"]
    assert found(replace(GOOD, observation_s=None, origin="scripted")) == {}


def test_verdict_is_the_severest_consequence() -> None:
    def of(*severities: Severity) -> str:
        return base.verdict(Finding("r", severity, "m") for severity in severities)

    assert of() == "accept"
    assert of(Severity.INFO) == "accept"
    assert of(Severity.INFO, Severity.REVIEW) == "review"
    assert of(Severity.REVIEW, Severity.REJECT, Severity.INFO) == "reject"


def test_a_rule_name_is_taken_once() -> None:
    base.audit(GOOD, Qc())
    with pytest.raises(ValueError, match="registered twice"):
        base.rule("text.empty", Severity.INFO)(lambda annotation, thresholds: None)
    assert all(rule.description.endswith(".") for rule in base.RULES.values())


def row(annotation: Annotation) -> dict[str, object]:
    return {
        "annotation_id": annotation.id,
        **{name: getattr(annotation, name) for name in Annotation.__slots__ if name not in ("id", "labels")},
        "labels": list(annotation.labels or ()) or None,
    }


def test_the_audit_writes_what_changed_and_nothing_else(workspace: Workspace) -> None:
    short = replace(GOOD, id="a-2", observation_s=12.0)
    workspace.annotations.append([row(GOOD), row(short)])
    assert audit(workspace, dry_run=True).changed == 2
    assert workspace.findings.shards() == []
    first = audit(workspace)
    assert (dict(first.verdicts), dict(first.findings)) == ({"accept": 1, "reject": 1}, {"time.too-short": 1})
    assert audit(workspace).changed == 0
    workspace.annotations.append([row(replace(short, observation_s=80.0))])  # the annotator did it again, properly
    again = audit(workspace)
    assert (again.changed, dict(again.verdicts)) == (1, {"accept": 2})
    assert [r["verdict"] for r in workspace.findings.read().to_pylist()] == ["accept", "accept"]
