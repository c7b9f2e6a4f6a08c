"""The stage that measures pictures: only what is new or changed, whatever happens to the files or the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from isal import isal_zlib
from numpy.typing import NDArray

from mmtt_build import images, masks
from mmtt_build.parts import INDEX
from mmtt_build.stages import measure as stage
from mmtt_build.stages.measure import measure
from mmtt_build.store import write_file
from mmtt_build.workspace import Workspace
from qc import regions, version

FaceMaker = Callable[..., tuple[NDArray[np.uint8], NDArray[np.uint8]]]
NAMES = ("f-0", "f-1", "f-2")


@pytest.fixture
def filled(workspace: Workspace, quick_face: FaceMaker) -> Workspace:
    """A workspace with three forged noses of three bases; the third has a donor, the first base."""
    pristine, plan, forgeries = [], [], []
    for i, name in enumerate(NAMES):
        image, labels = quick_face(i, 512)
        mask = labels == INDEX["nose"]
        forged = image.copy()
        forged[mask] = 255 - forged[mask]
        files = {
            workspace.image_path("pristine", f"b-{i}"): images.encode_rgb(image),
            workspace.image_path("parts", f"b-{i}"): images.encode_grey(labels),
            workspace.image_path("forged", name): images.encode_rgb(forged),
            workspace.image_path("masks", name): images.encode_grey(masks.to_grey(mask)),
        }
        for path, data in files.items():
            write_file(workspace.root / path, data)
        paths, datas = list(files), list(files.values())
        pristine.append({"id": f"b-{i}", "status": "ok", "image": paths[0], "parts": paths[1], "points": []})
        plan.append({"forgery_id": name, "base_id": f"b-{i}", "source_id": "b-0" if i == 2 else None})
        change = masks.check(image, forged, mask)
        forgeries.append(
            {
                "forgery_id": name, "status": "ok", "method": "warp", "split": "train", "image": paths[2],
                "mask": paths[3], "image_crc": isal_zlib.crc32(datas[2]), "mask_crc": isal_zlib.crc32(datas[3]),
                "changed_share": change.changed_share, "mean_change": change.mean_change,
            }
        )  # fmt: skip
    workspace.pristine.append(pristine)
    workspace.plan.append(plan)
    workspace.forgeries.append(forgeries)
    return workspace


def rows(workspace: Workspace) -> dict[str, dict[str, Any]]:
    return {row["forgery_id"]: row for row in workspace.image_checks.read().to_pylist()}


def change(workspace: Workspace, table: str, key: str, **values: Any) -> None:
    """Supersedes a row by one with other values."""
    of = getattr(workspace, table)
    (row,) = (row for row in of.read().to_pylist() if row[of.key] == key)
    of.append([row | values])


def recipe(workspace: Workspace, old: str, new: str) -> Workspace:
    path = workspace.root / "mmtt.toml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    return Workspace(workspace.root)


def test_every_usable_forgery_is_measured_once(filled: Workspace) -> None:
    first = measure(filled)
    assert (first.changed, dict(first.verdicts), dict(first.findings)) == (3, {"accept": 3}, {})
    for row in rows(filled).values():
        assert regions.of(row["cover"], "nose") == 1
        assert regions.of(row["cover"], "ear") is None
        assert row["findings"] == []
    shards = filled.image_checks.shards()
    again = measure(filled)
    assert (again.changed, dict(again.verdicts)) == (0, {"accept": 3})
    assert filled.image_checks.shards() == shards


def test_a_dry_run_counts_and_writes_nothing(filled: Workspace) -> None:
    assert dict(measure(filled, dry_run=True).verdicts) == {"accept": 3}
    assert filled.image_checks.shards() == []


def test_a_workspace_without_forgeries(workspace: Workspace) -> None:
    assert measure(workspace).changed == 0


def test_pixels_need_no_second_look(filled: Workspace) -> None:
    assert measure(filled).changed == 3
    assert measure(filled, pixels=True).changed == 3
    assert measure(filled, pixels=True).changed == measure(filled).changed == 0


def test_a_missing_and_a_damaged_file_are_findings(filled: Workspace) -> None:
    (filled.root / filled.image_path("masks", "f-0")).unlink()
    (filled.root / filled.image_path("forged", "f-1")).write_bytes(b"\x89PNG\r\n\x1a\n broken")
    summary = measure(filled)
    assert dict(summary.verdicts) == {"accept": 1, "reject": 2}
    assert dict(summary.findings) == {"image.missing": 2, "image.changed": 1}
    assert dict(measure(filled).findings) == dict(summary.findings)  # of what was not measured again, too
    of = rows(filled)
    assert of["f-0"]["cover"] is None
    assert of["f-1"]["cover"] is not None
    (finding,) = of["f-0"]["findings"]
    assert finding["rule"] == "image.missing"
    assert finding["message"].endswith("missing file")


def test_what_changed_in_the_tables_is_measured_again(filled: Workspace, quick_face: FaceMaker) -> None:
    measure(filled)
    mask = np.zeros((512, 512), np.uint8)
    mask[200:260, 200:320] = 255
    data = images.encode_grey(mask)
    write_file(filled.root / filled.image_path("masks", "f-1"), data)
    change(filled, "forgeries", "f-1", mask_crc=isal_zlib.crc32(data))
    summary = measure(filled)
    assert (summary.changed, dict(summary.findings)) == (1, {"image.rectangle": 1})
    change(filled, "pristine", "b-2", points=[316.0, 230, 196, 230, 256, 270, 290, 360, 220, 360])
    assert measure(filled).changed == 1
    change(filled, "forgeries", "f-0", mean_change=0.5)
    summary = measure(filled)
    assert (summary.changed, dict(summary.verdicts)) == (1, {"accept": 1, "review": 1, "reject": 1})


def test_the_recipe_and_the_rules_count(filled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(filled)
    words = recipe(filled, "max_words = 120", "max_words = 60")
    assert measure(words).changed == 0  # what no rule on pictures reads
    area = recipe(filled, "min_mask_area = 0.0005", "min_mask_area = 0.5")
    summary = measure(area)
    assert (summary.changed, dict(summary.verdicts)) == (3, {"review": 3})
    off = recipe(area, "[qc.severity] ", '[qc.severity]\n"image.mask-area" = "off"\n#')
    assert dict(measure(off).verdicts) == {"accept": 3}
    assert measure(off).changed == 0
    monkeypatch.setattr(version, "rules_version", lambda *modules: "another")
    assert measure(off).changed == 3


def test_what_cannot_be_used_any_more_does_not_count(filled: Workspace) -> None:
    measure(filled)
    change(filled, "pristine", "b-0", status="excluded", reason="withdrawn")  # base of f-0, donor of f-2
    summary = measure(filled)
    assert (summary.changed, dict(summary.verdicts)) == (0, {"accept": 1})
    change(filled, "pristine", "b-0", status="ok")
    assert dict(measure(filled).verdicts) == {"accept": 3}
    change(filled, "forgeries", "f-1", status="failed")
    assert dict(measure(filled).verdicts) == {"accept": 2}


def test_a_killed_run_goes_on_where_it_stopped(filled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    check = stage._check

    def stops(thresholds: Any, task: Any) -> Any:
        if task.rows["name"].to_pylist() == ["f-2"]:
            raise KeyboardInterrupt
        return check(thresholds, task)

    monkeypatch.setattr(stage, "BATCH", 1)
    monkeypatch.setattr(stage, "_check", stops)
    with pytest.raises(KeyboardInterrupt):
        measure(filled, workers=1)
    assert sorted(rows(filled)) == ["f-0", "f-1"]
    monkeypatch.setattr(stage, "_check", check)
    assert measure(filled).changed == 1
    assert sorted(rows(filled)) == list(NAMES)


def test_processes_find_the_same(filled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(filled)
    alone = rows(filled)
    for shard in filled.image_checks.shards():
        shard.unlink()
    monkeypatch.setattr(stage, "BATCH", 1)
    monkeypatch.setattr(stage, "ALONE", 1)
    assert measure(filled, workers=2).changed == 3
    assert rows(filled) == alone


def test_the_version_of_some_modules() -> None:
    assert version.rules_version("images") != version.rules_version("regions")
    assert version.rules_version("images", "regions") != version.rules_version()
