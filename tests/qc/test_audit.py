"""The audit of answers: where they come from, what changed, who decided otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mmtt_build.errors import ConfigError
from mmtt_build.stages.answers import Answers
from mmtt_build.stages.audit import audit
from mmtt_build.stages.override import override
from mmtt_build.workspace import Workspace
from tests.mmtt_build.small_workspace import annotation, small_workspace

MADE = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
TEXTS = (
    "The nose is blurred on its left side.",
    "The nostrils have different shapes and a hard edge below them.",
    "Both nostrils vanish into one dark patch.",
    "The bridge of the nose is wider than its tip.",
    "An outline runs around the whole nose.",
)


@pytest.fixture
def described(tmp_path: Path) -> Workspace:
    workspace = small_workspace(tmp_path / "small", 5, described=False)
    workspace.annotations.append([annotation(f"blendswap-{n:04d}", f"a-{n}", text) for n, text in enumerate(TEXTS)])
    return workspace


def submission(name: str, minutes: float, **other: Any) -> dict[str, Any]:
    made = MADE + timedelta(minutes=minutes)
    row = {
        "annotation_id": name, "task_id": f"t-{name}", "kind": "pair", "status": "ok", "annotator": "annotator-07",
        "origin": "human", "answer": "described", "description": "The nose is blurred on its left side.",
        "language": "en", "observation_s": 75.0, "created_at": made, "updated_at": made,
    }  # fmt: skip
    return row | other


def verdicts(workspace: Workspace) -> dict[str, str | None]:
    return {row["annotation_id"]: row["verdict"] for row in workspace.findings.read().to_pylist()}


def rules(workspace: Workspace, name: str) -> list[str]:
    (row,) = [row for row in workspace.findings.read().to_pylist() if row["annotation_id"] == name]
    return [finding["rule"] for finding in row["findings"]]


def test_what_changed_is_judged_again_and_nothing_else(described: Workspace) -> None:
    described.annotations.append([annotation("blendswap-0001", "a-1", TEXTS[1], observation_s=12.0)])
    assert audit(described, dry_run=True).changed == 5
    assert described.findings.shards() == []
    first = audit(described)
    assert dict(first.verdicts) == {"accept": 4, "reject": 1}
    assert rules(described, "a-1") == ["time.too-short"]
    again = audit(described)
    assert (again.changed, again.verdicts, again.findings) == (0, first.verdicts, first.findings)
    described.annotations.append([annotation("blendswap-0001", "a-1", TEXTS[1], observation_s=80.0)])
    repaired = audit(described)
    assert (repaired.changed, dict(repaired.verdicts)) == (1, {"accept": 5})
    recipe = described.root / "mmtt.toml"
    recipe.write_text(recipe.read_text("utf-8").replace("max_words = 120", "max_words = 8"), "utf-8")
    stricter = audit(Workspace(described.root))
    assert (stricter.changed, dict(stricter.verdicts)) == (5, {"accept": 3, "reject": 2})


def test_only_some(described: Workspace) -> None:
    assert audit(described, only={"a-3", "a-99"}).changed == 1
    assert verdicts(described) == {"a-3": "accept"}


def test_one_process_or_two_find_the_same(described: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmtt_build.stages import answers
    from mmtt_build.stages import audit as stage

    described.annotations.append([annotation("blendswap-0001", "a-1", "The original nose.", observation_s=12.0)])
    audit(described)
    one = described.findings.read()
    for shard in described.findings.shards():
        shard.unlink()
    monkeypatch.setattr(answers, "BATCH", 2)
    monkeypatch.setattr(stage, "ALONE", 0)
    audit(described, workers=2)
    assert described.findings.read().equals(one)


def test_an_answer_that_is_gone_has_no_verdict(described: Workspace) -> None:
    audit(described)
    described.annotations.append([annotation("blendswap-0002", "a-2", "", answer="deleted")])
    assert dict(audit(described).verdicts) == {"accept": 4}
    assert verdicts(described)["a-2"] is None
    assert audit(described).changed == 0


def test_repeats_controls_and_times_come_from_the_submissions(described: Workspace) -> None:
    task = {"language": "en", "annotator": "annotator-08", "status": "open"}
    described.tasks.append(
        [
            task | {"task_id": "t-r", "kind": "repeat", "forgery_id": "blendswap-0000", "mask_of": "blendswap-0000"},
            task | {"task_id": "t-c", "kind": "control", "forgery_id": None, "mask_of": "blendswap-0001"},
        ]
    )
    other = {"annotator": "annotator-08"}
    described.submissions.append(
        [
            submission("a-0", 0),
            submission("a-1", 0.5, description=TEXTS[1]),
            submission("r", 1, task_id="t-r", kind="repeat", description="A line crosses the nostril.", **other),
            submission("c", 3, task_id="t-c", kind="control", description="Nothing else but the nose.", **other),
            submission("s", 3.1, status="second", **other),
            submission("d", 3.2, status="deleted", **other),
            submission("late", 3.5, kind="repeat", task_id="t-r", description="The nostril has a seam.", **other),
        ]
    )
    audit(described)
    assert {"r", "c", "a-0", "late"} <= set(verdicts(described))
    assert not {"s", "d"} & set(verdicts(described))
    assert rules(described, "a-1") == ["time.too-close"], "30 s after a-0"
    assert rules(described, "r") == rules(described, "c") == []
    late = {row["annotation_id"]: row["findings"] for row in described.findings.read().to_pylist()}["late"]
    assert [finding["message"] for finding in late] == [
        "r answers the same task, or is of the same forgery by the same annotator",
        "18.0 s after d by the same annotator, at least 60 s",
    ], "what counts no more was submitted all the same"
    (control,) = [row for row in described.findings.read().to_pylist() if row["annotation_id"] == "c"]
    assert (control["kind"], control["forgery_id"]) == ("control", None)
    about, beside = Answers(described).one("c")
    assert beside.forgery and beside.forgery.id == "blendswap-0001", "of a control the forgery whose mask is shown"
    assert about.created_at == MADE + timedelta(minutes=3)


def test_an_unknown_or_withdrawn_forgery_is_a_finding(described: Workspace) -> None:
    described.annotations.append([annotation("nobodys-0", "a-x", TEXTS[0])])
    forgery = next(row for row in described.forgeries.read().to_pylist() if row["forgery_id"] == "blendswap-0003")
    described.forgeries.append([forgery | {"status": "rejected", "reason": "withdrawn by its source"}])
    audit(described)
    found = {row["annotation_id"]: row["findings"] for row in described.findings.read().to_pylist()}
    assert "forgery 'nobodys-0' is not in this workspace" in [finding["message"] for finding in found["a-x"]]
    assert found["a-3"][0]["message"] == ("forgery blendswap-0003 cannot be used: rejected: withdrawn by its source")


def test_a_decision_counts_until_the_words_change(described: Workspace) -> None:
    described.annotations.append([annotation("blendswap-0001", "a-1", TEXTS[1], observation_s=12.0)])
    audit(described)
    override(described, "a-1", "accept", "the server was slow that day", "lead")
    assert verdicts(described)["a-1"] == "accept"
    audit(described)
    (row,) = [row for row in described.findings.read().to_pylist() if row["annotation_id"] == "a-1"]
    assert (row["verdict"], row["judged"]) == ("accept", "reject")
    assert row["override"].startswith("a-1@")
    assert audit(described).changed == 0
    described.annotations.append([annotation("blendswap-0001", "a-1", "The nose has no tip.", observation_s=12.0)])
    audit(described)
    assert verdicts(described)["a-1"] == "reject"


def test_a_severity_for_a_rule_that_is_not_there(described: Workspace) -> None:
    recipe = described.root / "mmtt.toml"
    text = recipe.read_text("utf-8").replace("[qc.severity] ", '[qc.severity]\n"text.nam" = "off"\n#')
    recipe.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"no rule 'text\.nam'\n  -> did you mean 'text\.name'"):
        audit(Workspace(described.root))


HOSTILE = {
    "megabyte": "The nose is blurred. " * 50_000,
    "control": "The nose\x00\x07 is\x1b[31m blurred\x7f.",
    "bidi": "The nose \u202eis blurred\u202c on\u200f its side.",
    "html": "<script>alert(1)</script> <img src=x onerror=alert(1)> The nose is blurred.",
    "emoji": "The nose 👃🏽 is blurred 😵‍💫😵‍💫😵‍💫.",
    "formula": '=HYPERLINK("http://example.org","nose") +1 -1 @SUM(A1) nose blurred',
    "null": None,
    "spaces": " \u3000\t\n",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_texts_are_judged(described: Workspace, kind: str) -> None:
    described.annotations.append([annotation("blendswap-0001", "a-1", HOSTILE[kind])])  # type: ignore[arg-type]
    summary = audit(described)
    assert sum(summary.verdicts.values()) == 5
    assert ("text.empty" in rules(described, "a-1")) == (kind in ("null", "spaces"))
    assert ("text.too-long" in rules(described, "a-1")) == (kind == "megabyte")
