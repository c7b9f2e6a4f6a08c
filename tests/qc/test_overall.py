"""Annotators and the dataset from the tables of a workspace: what is counted, found and written, and what is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtt_build.parts import LABELS
from mmtt_build.stages.bench.synthetic import synthetic_workspace
from mmtt_build.stages.overall import overall
from mmtt_build.workspace import Workspace

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def vector(*labels: str) -> list[int]:
    return [int(label in labels) for label in LABELS]


class Desk:
    """Writes answers into the tables, as pull and audit do."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.count = 0

    def answer(
        self, annotator: str, forgery: str | None, minute: float, *, kind: str = "pair", answer: str = "described",
        labels: tuple[str, ...] = ("eye",), origin: str = "human", verdict: str = "accept",
    ) -> str:  # fmt: skip
        self.count += 1
        name, at = f"a-{self.count:04d}", START + timedelta(minutes=minute)
        words = f"The eye of case {self.count} is blurred." if answer == "described" else None
        said: dict[str, Any] = {
            "annotation_id": name, "answer": answer, "description": words, "language": "en", "labels": vector(*labels),
            "annotator": annotator, "observation_s": 80.0, "origin": origin,
        }  # fmt: skip
        task = {"task_id": f"t-{name}", "kind": kind}
        self.workspace.tasks.append([{**task, "forgery_id": forgery, "annotator": annotator}])
        self.workspace.submissions.append([{**said, **task, "status": "ok", "created_at": at}])
        if kind == "pair":
            self.workspace.annotations.append([{**said, "forgery_id": forgery}])
        self.workspace.findings.append(
            [{"annotation_id": name, "forgery_id": forgery, "kind": kind, "annotator": annotator, "verdict": verdict,
              "findings": []}]
        )  # fmt: skip
        return name


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return synthetic_workspace(tmp_path / "w", images=80, forgeries=40, forged=True)


@pytest.fixture
def ids(workspace: Workspace) -> list[str]:
    return workspace.plan.read(["forgery_id"])["forgery_id"].to_pylist()


def checks(workspace: Workspace) -> dict[str, dict[str, Any]]:
    return {row["subject"]: row for row in workspace.checks.read().to_pylist()}


def rules(row: dict[str, Any]) -> set[str]:
    return {finding["rule"] for finding in row["findings"]}


def test_nothing_at_all(tmp_path: Path) -> None:
    empty = Workspace.init(tmp_path / "w")
    found = overall(empty)
    assert (found.profiles, found.alpha, found.sound, found.changed) == ({}, None, True, 1)
    assert checks(empty)["dataset"]["verdict"] == "accept"


def test_what_is_counted_of_an_annotator(workspace: Workspace, ids: list[str]) -> None:
    desk = Desk(workspace)
    for i in range(6):
        desk.answer("ann-1", ids[i], 3 * i, verdict="reject" if i > 3 else "accept")
    desk.answer("ann-1", ids[6], 300, answer="nothing-visible", labels=())
    desk.answer("ann-1", None, 303, kind="control")
    desk.answer("ann-1", None, 306, kind="control", answer="nothing-visible", labels=())
    desk.answer("ann-1", None, 309, kind="control", answer="broken-pair", labels=())
    desk.answer("demo", ids[7], 0, origin="scripted")
    found = overall(workspace)
    assert set(found.profiles) == {"ann-1"}, "what a script writes is nobody's work"
    of = found.profiles["ann-1"]
    assert (of.submissions, of.descriptions, of.judged, of.rejected) == (10, 7, 10, 2)
    assert (of.controls, of.false_claims, of.repeats) == (2, 1, 0)
    assert of.per_hour == pytest.approx(20), "three minutes each, without the break of hours"
    assert of.thirds == ((3, 0), (3, 2), (4, 0))
    assert (of.hours[9], of.hours[14], sum(of.hours)) == (6, 4, 10)
    assert (of.first, of.last) == (START, START + timedelta(minutes=309))
    facts = json.loads(checks(workspace)["annotator/ann-1"]["facts"])
    assert facts["first"] == START.isoformat()
    assert facts["words"] == 7


def test_findings_are_written_once_and_follow_what_changes(workspace: Workspace, ids: list[str]) -> None:
    desk = Desk(workspace)
    for i in range(20):
        desk.answer("ann-1", ids[i], 5 * i, verdict="reject" if i % 2 else "accept")
    assert overall(workspace, dry_run=True).changed == 2
    assert checks(workspace) == {}
    assert overall(workspace).changed == 2
    row = checks(workspace)["annotator/ann-1"]
    assert row["verdict"] == "review"
    assert {"rule": "annotator.rejected", "severity": "review", "message": "10 of 20 rejected (50.0%), at most 20%",
            "spans": []} in row["findings"]  # fmt: skip
    assert overall(workspace).changed == 0
    desk.answer("ann-2", ids[20], 7)
    assert overall(workspace).changed == 2, "the new one, and the dataset with one description more"
    gone = workspace.submissions.read().to_pylist()
    workspace.submissions.append([row | {"annotator": "ann-2"} for row in gone])
    gone = workspace.annotations.read().to_pylist()
    workspace.annotations.append([row | {"annotator": "ann-2"} for row in gone])
    assert overall(workspace).changed == 2
    assert checks(workspace)["annotator/ann-1"] == {
        "subject": "annotator/ann-1", "verdict": None, "findings": [], "facts": None,
    }  # fmt: skip
    assert overall(workspace).changed == 0


def test_agreement_is_of_repeats(workspace: Workspace, ids: list[str]) -> None:
    desk = Desk(workspace)
    for i in range(24):
        desk.answer("ann-1", ids[i], 5 * i, labels=("eye",) if i % 2 else ("nose",))
    assert overall(workspace).alpha is None
    for i in range(24):
        desk.answer("ann-2", ids[i], 5 * i, kind="repeat", labels=("eye",) if i % 2 else ("nose",))
    agreed = overall(workspace)
    assert agreed.alpha == 1.0
    assert agreed.profiles["ann-2"].agreement.units == 24
    for i in range(24):
        desk.answer("ann-3", ids[i], 5 * i, kind="repeat", labels=("nose",) if i % 2 else ("eye",))
    split = overall(workspace)
    assert split.alpha is not None
    assert split.alpha < 0.4
    assert "annotator.agreement" in rules(checks(workspace)["annotator/ann-3"])
    assert checks(workspace)["dataset"]["facts"].find('"units": 24') > 0


def test_leaks_of_the_plan_make_the_dataset_unsound(workspace: Workspace) -> None:
    assert overall(workspace).sound
    rows = workspace.plan.read().to_pylist()
    one = next(row for row in rows if row["split"] == "train" and row["parent_id"] is None)
    workspace.plan.append([one | {"forgery_id": "leak-0", "split": "test", "source_id": None}])
    assert overall(workspace).sound, "what cannot be used leaks nothing"
    workspace.forgeries.append([{"forgery_id": "leak-0", "status": "ok", "method": one["method"], "split": "test"}])
    found = overall(workspace)
    assert not found.sound
    assert {"dataset.leak-base", "dataset.leak-identity"} <= {finding.rule for finding in found.findings["dataset"]}


def test_near_duplicates_are_looked_for_again_when_something_changed(workspace: Workspace) -> None:
    assert overall(workspace).sound
    plan = workspace.plan.read().to_pylist()
    images = {row["id"]: row for row in workspace.pristine.read().to_pylist()}
    train = next(row["base_id"] for row in plan if row["split"] == "train")
    other = next(row["base_id"] for row in plan if row["split"] != "train")
    nearly = bytearray(images[train]["phash"])
    nearly[0] ^= 0xFF
    workspace.pristine.append([images[other] | {"phash": bytes(nearly)}])
    for _ in range(2):
        found = overall(workspace)
        (leak,) = (f for f in found.findings["dataset"] if f.rule == "dataset.leak-near-duplicate")
        assert train in leak.message
        assert other in leak.message
        assert not found.sound
    assert found.changed == 0
    workspace.pristine.append([images[other]])
    assert overall(workspace).sound


def test_a_person_whose_faces_were_analysed_after_the_splits_were_fixed(workspace: Workspace) -> None:
    plan = workspace.plan.read().to_pylist()
    train = next(row["base_id"] for row in plan if row["split"] == "train")
    other = next(row["base_id"] for row in plan if row["split"] != "train")
    images = workspace.pristine.keys().to_pylist()
    faces = np.random.default_rng(3).standard_normal((len(images), 512))

    def analysed(cosine: float) -> None:
        """All faces are of different people, but for two with such a similarity."""
        faces[images.index(other)] += 1e-6  # another analysis
        unit = faces / np.linalg.norm(faces, axis=1, keepdims=True)
        of, away = unit[images.index(train)], unit[images.index(other)]
        away = away - (away @ of) * of
        unit[images.index(other)] = cosine * of + (1 - cosine**2) ** 0.5 * away / np.linalg.norm(away)
        workspace.faces.append(
            [
                {"id": name, "count": 1, "embedding": face}
                for name, face in zip(images, unit.astype(np.float16), strict=True)
            ]
        )

    def leaks() -> list[str]:
        return [f.message for f in overall(workspace).findings["dataset"] if f.rule == "dataset.leak-face"]

    assert leaks() == []
    analysed(0.45)
    assert leaks() == []
    analysed(0.6)
    said = " and ".join(sorted((train, other)))
    for _ in range(2):
        (message,) = leaks()
        assert message == f"1 pair of faces of one person (0.5 or more) in different splits: {said} (cosine 0.600)"
    assert not overall(workspace).sound
    assert overall(workspace).changed == 0
    recipe = workspace.root / "mmtt.toml"
    recipe.write_text(
        recipe.read_text("utf-8").replace("same_person_cosine = 0.5", "same_person_cosine = 0.7"), "utf-8"
    )
    again = overall(Workspace(workspace.root))
    assert again.sound, "another threshold, another verdict"


def test_what_is_missing(workspace: Workspace, ids: list[str]) -> None:
    Desk(workspace).answer("ann-1", ids[0], 0)
    rows = {row["forgery_id"]: row for row in workspace.forgeries.read().to_pylist()}
    workspace.forgeries.append([rows[ids[1]] | {"status": "failed"}, rows[ids[2]] | {"status": "rejected"}])
    overall(workspace)
    messages = {f["rule"]: f["message"] for f in checks(workspace)["dataset"]["findings"]}
    assert messages["dataset.missing"] == f"1 planned forgery not made yet: {ids[1]}"
    assert messages["dataset.undescribed"].startswith("37 of 38 forgeries not described: ")
