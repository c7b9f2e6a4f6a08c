"""Two thousand answers on drawn portraits: nothing is found while they are good, and each fault exactly where it is."""

from __future__ import annotations

import pytest

from mmtt_build.stages.audit import audit
from mmtt_build.stages.explain import explain
from qc.base import Subject, load_rules
from tests.qc import known_faults
from tests.qc.known_faults import ANNOTATORS, ANSWERS, FAULTS, SHARE, Answer, Faces


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    return known_faults.make(tmp_path_factory.mktemp("faces"))


def found(faces: Faces) -> dict[str, set[str]]:
    """Annotations by the rules that object to them."""
    by_rule: dict[str, set[str]] = {}
    for row in faces.workspace.findings.read().to_pylist():
        for finding in row["findings"]:
            by_rule.setdefault(finding["rule"], set()).add(row["annotation_id"])
    return by_rule


def test_good_answers_have_no_finding(faces: Faces) -> None:
    summary = audit(faces.workspace)
    assert found(faces) == {}
    assert dict(summary.verdicts) == {"accept": ANSWERS}
    assert audit(faces.workspace).changed == 0


def test_every_rule_on_answers_is_broken_below() -> None:
    assert {rule.name for rule in load_rules(Subject.ANNOTATION)} == set(FAULTS)


@pytest.mark.parametrize("rule", FAULTS)
def test_a_rule_finds_what_breaks_it_and_no_more(faces: Faces, rule: str) -> None:
    broken = breaking(faces, rule)
    assert len(broken) == ANSWERS * SHARE
    try:
        known_faults.write(faces.workspace, list(broken.values()))
        audit(faces.workspace)
        differ = found(faces)[rule] ^ (set(broken) - _originals(rule))
        assert not differ, [broken.get(name) for name in sorted(differ)]
        told = explain(faces.workspace, max(set(broken) - _originals(rule)))
        assert told.answer is not None
        assert told.answer.audited, "by itself as all together"
        assert {one.rule for one in told.rules if one.verdict in ("reject", "review", "info")} >= {rule}
    finally:
        known_faults.write(faces.workspace, [answer for answer in faces.answers if answer.name in broken])


def breaking(faces: Faces, rule: str) -> dict[str, Answer]:
    """A tenth of the answers, changed so that they break a rule, by annotation id."""
    broken: dict[str, Answer] = {}
    if rule == "copy.template":
        candidates = faces.answers[: int(ANSWERS * SHARE)]
    else:  # no two neighbours, if that is enough: some faults are about the answer before
        candidates = [answer for start in (5, 1, 9, 3, 7, 0, 2, 4, 6, 8) for answer in faces.answers[start::10]]
    for answer in candidates:
        changed = FAULTS[rule](faces, answer, len(broken)) if len(broken) < ANSWERS * SHARE else None
        if changed:
            broken[answer.name] = changed
    return broken


def _originals(rule: str) -> set[str]:
    """Answers whose words were nobody's before."""
    each = ANSWERS // ANNOTATORS
    return {f"k-{n:04d}" for n in range(0, int(ANSWERS * SHARE), each)} if rule == "copy.template" else set()
