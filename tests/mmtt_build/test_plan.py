"""Planning: shares, leakage, growth, determinism, sequential edits."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from generators.base import Family
from mmtt_build import schema
from mmtt_build.errors import ConfigError
from mmtt_build.registry import METHODS
from mmtt_build.stages.bench.synthetic import synthetic_workspace
from mmtt_build.stages.plan import Faces, plan
from mmtt_build.workspace import Workspace


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return synthetic_workspace(tmp_path_factory.mktemp("plan") / "w", images=3_000, forgeries=10_000)


def group_of(workspace: Workspace) -> dict[str, tuple[str, str]]:
    rows = workspace.groups.read().to_pylist()
    return {row["id"]: (row["identity_group"], row["split"]) for row in rows}


def test_no_identity_base_donor_or_parent_crosses_splits(planned: Workspace) -> None:
    rows = planned.plan.read().to_pylist()
    of = group_of(planned)
    split_of_row = {row["forgery_id"]: row["split"] for row in rows}
    assert len(rows) == len(split_of_row) == 10_000
    splits_of_group: dict[str, set[str]] = {}
    for row in rows:
        assert of[row["base_id"]] == (row["identity_group"], row["split"])
        used = [row["base_id"], *([row["source_id"]] if row["source_id"] else [])]
        for name in used:
            assert of[name][1] == row["split"]
            splits_of_group.setdefault(of[name][0], set()).add(row["split"])
        if row["source_id"]:
            assert of[row["source_id"]][0] != row["identity_group"]
        if row["parent_id"]:
            assert split_of_row[row["parent_id"]] == row["split"]
    assert all(len(splits) == 1 for splits in splits_of_group.values())


def test_shares_are_the_recipes(planned: Workspace) -> None:
    rows = planned.plan.read(["method", "split", "family"]).to_pylist()
    splits = Counter(row["split"] for row in rows)
    methods = Counter(row["method"] for row in rows)
    for split, share in planned.recipe.split.shares().items():
        assert abs(splits[split] / 10_000 - share) < 0.005
    for method, share in planned.recipe.mix.items():
        assert abs(methods[method] / 10_000 - share) < 0.001
    assert {row["family"] for row in rows} <= {str(family) for family in Family}


def test_bases_are_used_evenly(planned: Workspace) -> None:
    of = group_of(planned)
    used = Counter(row["base_id"] for row in planned.plan.read(["base_id"]).to_pylist())
    for split in ("train", "val", "test"):
        members = [name for name, (_, where) in of.items() if where == split]
        counts = [used[name] for name in members]
        assert min(counts) >= 1
        # Sequential edits follow their parent's base, so the spread is not quite one.
        assert max(counts) <= 2 * (sum(counts) / len(counts)) + 3


def test_donors_resemble_the_base(planned: Workspace) -> None:
    faces = Faces.load(planned)
    pose = dict(zip(faces.ids, faces.pose, strict=True))
    rows = [row for row in planned.plan.read().to_pylist() if row["source_id"]]
    chosen = [float(np.square(pose[r["base_id"]] - pose[r["source_id"]]).sum()) for r in rows]
    chance = [float(np.square(pose[a["base_id"]] - pose[b["source_id"]]).sum()) for a, b in pairwise(rows)]
    assert np.median(chosen) < 0.5 * np.median(chance)


def test_ids_seeds_and_params_are_unique_and_plain(planned: Workspace) -> None:
    rows = planned.plan.read().to_pylist()
    assert len({row["seed"] for row in rows}) == len(rows)
    for row in rows[:500]:
        assert row["forgery_id"].startswith(row["method"] + "-")
        assert isinstance(json.loads(row["params"]), dict)
        assert 0 <= row["seed"] < 2**63


def test_sequential_edits_start_from_forgeries_that_keep_their_geometry(planned: Workspace) -> None:
    rows = {row["forgery_id"]: row for row in planned.plan.read().to_pylist()}
    children = [row for row in rows.values() if row["parent_id"]]
    single = [row for row in rows.values() if not METHODS.get(row["method"]).needs_source]
    assert 0.5 * planned.recipe.plan.sequential < len(children) / len(single) < 1.5 * planned.recipe.plan.sequential
    for child in children:
        parent = rows[child["parent_id"]]
        assert parent["base_id"] == child["base_id"]
        assert parent["parent_id"] is None
        assert parent["method"] != child["method"]
        assert not METHODS.get(parent["method"]).changes_geometry
        assert child["source_id"] is None


def test_same_inputs_same_plan(tmp_path: Path) -> None:
    first = synthetic_workspace(tmp_path / "a", images=200, forgeries=400)
    second = synthetic_workspace(tmp_path / "elsewhere" / "b", images=200, forgeries=400)
    assert first.plan.read().equals(second.plan.read())


def test_a_record_says_how_the_head_is_turned_and_who_analysed_it(tmp_path: Path) -> None:
    workspace = synthetic_workspace(tmp_path / "w", images=50)
    seen, unnamed, bare, *_ = workspace.pristine.keys().to_pylist()
    workspace.faces.append(
        [
            {"id": seen, "pack": "a" * 64, "pack_name": "buffalo_l", "pose": [12.0, -3.0, 1.0]},
            {"id": unnamed, "pack": "a" * 64},
            {"id": "gone", "pack": "a" * 64, "pack_name": "buffalo_l", "pose": [1.0, 1.0, 1.0]},
        ]
    )
    plan(workspace, total=10)  # groups the images
    faces = Faces.load(workspace)
    records = {name: faces.record(index) for index, name in enumerate(faces.ids)}
    assert (records[seen].turn, records[seen].pack) == ((12.0, -3.0, 1.0), "buffalo_l")
    assert (records[unnamed].turn, records[unnamed].pack) == ((), "")
    assert (records[bare].turn, records[bare].pack) == ((), "")


def test_another_seed_is_another_dataset(tmp_path: Path) -> None:
    first = synthetic_workspace(tmp_path / "a", images=200, forgeries=400)
    second = synthetic_workspace(tmp_path / "b", images=200)
    recipe = second.root / "mmtt.toml"
    recipe.write_text(recipe.read_text().replace("seed = 2026", "seed = 7").replace("total = 0 ", "total = 400 "))
    plan(Workspace(second.root))
    assert not set(first.plan.keys().to_pylist()) & set(second.plan.keys().to_pylist())


def test_growing_only_adds(tmp_path: Path) -> None:
    workspace = synthetic_workspace(tmp_path / "w", images=300, forgeries=200)
    before = workspace.plan.read()
    assert sum(plan(workspace).added.values()) == 0
    plan(workspace, total=500)
    more = synthetic_workspace(tmp_path / "other", images=600)
    late = more.pristine.read().slice(300)
    workspace.pristine.append(late)
    workspace.groups.append(more.groups.read().slice(300))
    plan(workspace, total=1_000)
    after = workspace.plan.read()
    assert after.num_rows == 1_000
    kept = after.filter(pa.compute.is_in(after["forgery_id"], before["forgery_id"].combine_chunks()))
    assert kept.equals(before)
    newcomers = set(late["id"].to_pylist())
    assert newcomers & set(after["base_id"].to_pylist())
    splits = Counter(after["split"].to_pylist())
    for split, count in {"train": 800, "val": 100, "test": 100}.items():
        assert abs(splits[split] - count) <= 4  # each method's share is rounded on its own


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    workspace = synthetic_workspace(tmp_path / "w", images=100)
    result = plan(workspace, total=50, dry_run=True)
    assert sum(result.added.values()) == 50
    assert workspace.plan.shards() == []


def test_a_split_without_images_is_named(tmp_path: Path) -> None:
    workspace = synthetic_workspace(tmp_path / "w", images=40)
    groups = workspace.groups.read()
    train = pa.array(["train"] * groups.num_rows)
    workspace.groups.append(groups.set_column(2, schema.GROUPS.field("split"), train))
    result = plan(workspace, total=30)
    assert [w for w in result.warnings if "val" in w]
    assert [w for w in result.warnings if "test" in w]
    assert set(workspace.plan.read(["split"])["split"].to_pylist()) == {"train"}


def test_one_person_alone_cannot_be_swapped(tmp_path: Path) -> None:
    workspace = synthetic_workspace(tmp_path / "w", images=20)
    groups = workspace.groups.read()
    same = pa.array(["person-0"] * groups.num_rows)
    train = pa.array(["train"] * groups.num_rows)
    workspace.groups.append(
        groups.set_column(1, schema.GROUPS.field(1), same).set_column(2, schema.GROUPS.field(2), train)
    )
    result = plan(workspace, total=40)
    assert any("blendswap" in w and "donor of another identity" in w for w in result.warnings)
    assert "blendswap" not in workspace.plan.read(["method"])["method"].to_pylist()


def test_unusable_images_are_never_planned(tmp_path: Path) -> None:
    workspace = synthetic_workspace(tmp_path / "w", images=60)
    rows = workspace.pristine.read().to_pylist()
    gone = {row["id"] for row in rows[:10]}
    workspace.pristine.append([row | {"status": "excluded", "reason": "withdrawn"} for row in rows[:10]])
    workspace.pristine.append([row | {"parts": None} for row in rows[10:15]])
    gone |= {row["id"] for row in rows[10:15]}
    plan(workspace, total=300)
    used = workspace.plan.read(["base_id", "source_id"])
    assert not gone & {*used["base_id"].to_pylist(), *used["source_id"].to_pylist()}


def test_nothing_to_plan_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no usable image"):
        plan(Workspace.init(tmp_path / "w"))


def test_nothing_to_plan_from_without_part_maps(tmp_path: Path) -> None:
    workspace = synthetic_workspace(tmp_path / "w", images=2)
    workspace.pristine.append([row | {"parts": None} for row in workspace.pristine.read().to_pylist()])
    with pytest.raises(ConfigError, match="no usable image has a part map") as refused:
        plan(workspace)
    assert "--parser bisenet" in (refused.value.remedy or "")


def test_unknown_method_in_the_mix(tmp_path: Path) -> None:
    workspace = synthetic_workspace(tmp_path / "w", images=10)
    recipe = workspace.root / "mmtt.toml"
    recipe.write_text(recipe.read_text().replace("patchfill = 0.547", "pathcfill = 0.547"))
    with pytest.raises(ConfigError, match=r"unknown method 'pathcfill'(.|\n)*did you mean patchfill"):
        plan(Workspace(workspace.root))
