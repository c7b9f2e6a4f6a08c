"""A reviewer's decision: what it needs, what it does at once, and that the audit keeps to it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mmtt_build.errors import ConfigError
from mmtt_build.stages.audit import audit
from mmtt_build.stages.override import decisions, digest_of, override
from tests.mmtt_build.small_workspace import annotation, small_workspace

BAD = "Unlike the original, the nose is blurred."


@pytest.fixture
def workspace(tmp_path):
    made = small_workspace(tmp_path / "workspace", 5)
    made.annotations.append([annotation("blendswap-0000", "a-0000", BAD)])
    audit(made)
    assert verdict(made) == ("reject", "reject", None)
    return made


def verdict(workspace, name="a-0000"):
    row = next(row for row in workspace.findings.read().to_pylist() if row["annotation_id"] == name)
    return row["verdict"], row["judged"], row["override"]


def test_a_decision_counts_at_once_and_after_the_next_audit(workspace):
    before = datetime.now(UTC)
    row = override(workspace, "a-0000", "accept", "  it says nothing of the pair ", "Lea")
    assert before <= row["at"] <= datetime.now(UTC)
    assert (row["reason"], row["by"]) == ("it says nothing of the pair", "Lea")
    assert row["words"] == digest_of("described", BAD)
    assert verdict(workspace) == ("accept", "reject", row["override_id"])
    audit(workspace)
    assert verdict(workspace) == ("accept", "reject", row["override_id"])


def test_the_latest_decision_counts_and_all_are_kept(workspace):
    first = override(workspace, "a-0000", "accept", "fine", "Lea")
    second = override(workspace, "a-0000", "review", "or is it", "Max")
    assert verdict(workspace) == ("review", "reject", second["override_id"])
    third = override(workspace, "a-0000", None, "the rules are right", "Lea")
    assert verdict(workspace) == ("reject", "reject", None)
    kept = {row["override_id"]: row for row in workspace.overrides.read().to_pylist()}
    assert kept == {row["override_id"]: row for row in (first, second, third)}
    assert decisions(workspace) == {"a-0000": third}
    audit(workspace)
    assert verdict(workspace) == ("reject", "reject", None)
    with pytest.raises(ConfigError, match="nobody has decided on a-0000"):
        override(workspace, "a-0000", None, "again", "Lea")


def test_a_decision_is_on_words_and_lapses_with_them(workspace):
    override(workspace, "a-0000", "accept", "fine", "Lea")
    workspace.annotations.append([annotation("blendswap-0000", "a-0000", f"{BAD} The chin, too.")])
    audit(workspace)
    assert verdict(workspace) == ("reject", "reject", None)


def test_what_makes_no_sense_is_refused_and_a_dry_run_writes_nothing(workspace):
    with pytest.raises(ConfigError, match=r"no answer 'a-00000'\n.*a-0000"):
        override(workspace, "a-00000", "accept", "fine", "Lea")
    with pytest.raises(ConfigError, match="reason is empty"):
        override(workspace, "a-0000", "accept", " \n", "Lea")
    with pytest.raises(ConfigError, match=r"'maybe'\n.*accept, reject, review"):
        override(workspace, "a-0000", "maybe", "fine", "Lea")
    assert override(workspace, "a-0000", "accept", "fine", "Lea", dry_run=True)["verdict"] == "accept"
    assert decisions(workspace) == {}
    assert verdict(workspace) == ("reject", "reject", None)
