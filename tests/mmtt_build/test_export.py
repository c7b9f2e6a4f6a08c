from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_workspace import annotation, finding, forge, person, small_workspace

from mmtt_build import schema
from mmtt_build.errors import ConfigError, StoreError
from mmtt_build.stages import export as stage
from mmtt_build.stages.export import export
from mmtt_build.stages.verify import verify
from mmtt_build.triplets import write_split
from mmtt_build.workspace import Workspace


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_workspace(tmp_path_factory.mktemp("template")).root


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    return Workspace(Path(shutil.copytree(template, tmp_path / "w")))


def rows_of(release: Path) -> list[dict[str, object]]:
    return [row for path in sorted((release / "data").iterdir()) for row in pq.read_table(path).to_pylist()]


def files_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_rows_carry_the_tables_and_the_stored_bytes(workspace: Workspace) -> None:
    summary = export(workspace)
    assert summary.counts == {"train": 9, "val": 3, "test": 3} and not summary.left_out
    rows = {row["forgery_id"]: row for row in rows_of(summary.path)}
    made = {row["forgery_id"]: row for row in workspace.forgeries.read().to_pylist()}
    plan = {row["forgery_id"]: row for row in workspace.plan.read().to_pylist()}
    assert rows.keys() == made.keys()
    for name, row in rows.items():
        assert row["image"]["bytes"] == (workspace.root / made[name]["image"]).read_bytes()
        assert row["mask"]["bytes"] == (workspace.root / made[name]["mask"]).read_bytes()
        assert (row["image"]["path"], row["mask"]["path"]) == (f"forged/{name}.png", f"masks/{name}.png")
        for key in ("parts", "mask_origin", "mask_area", "changed_share", "mean_change"):
            assert row[key] == made[name][key]
        for key in plan[name]:
            assert row[key] == plan[name][key]
        assert row["sides"] == ["", "left", "right"]
        assert row["labels"] == [0, 0, 0, 0, 1] + [0] * 16
        assert row["description"].endswith("is blurred, ünnatural.")
        assert (row["annotator"], row["observation_s"], row["language"]) == ("annotator-07", 75.5, "en")
        assert row["description_origin"] == "human"
        assert (row["dataset"], row["dataset_version"], row["schema_version"]) == ("small", "0.1.0", 1)
    swap = rows["blendswap-0001"]
    assert swap["licence"] == "CC BY 2.0; CC BY 2.0 (donor)"
    assert rows["blendswap-0002"]["licence"] == "research only"


def test_files_are_laid_out_and_summed(workspace: Workspace) -> None:
    summary = export(workspace)
    present = files_of(summary.path)
    manifest = json.loads((summary.path / "manifest.json").read_text("utf-8"))
    assert (manifest["dataset"], manifest["version"], manifest["schema_version"]) == ("small", "0.1.0", 1)
    assert manifest["counts"] == summary.counts and manifest["described"] == 15
    assert manifest["files"].keys() == present.keys() - {"manifest.json", "SHA256SUMS"}
    for name, facts in manifest["files"].items():
        assert facts == {"size": (summary.path / name).stat().st_size, "sha256": present[name]}
    assert summary.bytes == sum(p.stat().st_size for p in summary.path.rglob("*") if p.is_file())
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=summary.path, check=True)
    assert not list(workspace.root.glob("releases/.tmp-*"))


def test_parquet_is_written_for_random_reading(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmtt_build.triplets.ROW_GROUP_BYTES", 1_000_000)
    monkeypatch.setattr(stage, "SHARD_BYTES", 3_000_000)
    release = export(workspace).path
    names = sorted(path.name for path in (release / "data").iterdir())
    assert names[-2:] == ["train-00001-of-00002.parquet", "val-00000-of-00001.parquet"]
    footer = pq.read_metadata(release / "data" / "train-00000-of-00002.parquet")
    group = footer.row_group(0)
    assert footer.num_row_groups > 1 and group.num_rows <= 3
    by_path = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    for name, column in by_path.items():
        picture = name in ("image.bytes", "mask.bytes", "part_map.bytes")
        assert column.compression == ("UNCOMPRESSED" if picture else "ZSTD"), name
        assert column.has_offset_index, name
        assert picture == ("RLE_DICTIONARY" not in column.encodings), name
    assert "path" not in (by_path["forgery_id"].statistics.min or "")
    written = pq.read_schema(release / "data" / names[0])
    assert [(c.name, c.type) for c in written] == [(c.name, c.type) for c in schema.TRIPLETS]


def test_attribution_names_every_image_that_was_used(workspace: Workspace) -> None:
    release = export(workspace).path
    with (release / "attribution.csv").open(encoding="utf-8", newline="") as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    used = {row[key] for row in rows_of(release) for key in ("base_id", "source_id") if row[key]}
    assert table.keys() == used
    entry = table["ffhq-00001-donor"]
    assert (entry["author"], entry["licence"]) == ("Zoë 1, photographer", "CC BY 2.0 (donor)")
    assert entry["licence_url"].endswith("/by/2.0/") and entry["url"] == "https://example.org/1"
    assert entry["changes"].startswith("modified")


def test_card_gives_counts_licences_terms_and_thresholds(workspace: Workspace) -> None:
    text = (export(workspace).path / "README.md").read_text("utf-8")
    assert "| blendswap | face-swap | 3 | 1 | 1 | 5 |" in text
    assert "| research only | 11 |" in text
    assert workspace.recipe.dataset.terms in text
    assert "at least 60 s" in text and "120 words" in text
    assert "15 written by people" in text
    assert "stand-in" not in text and "no accepted description" not in text
    assert "$" not in text


def test_the_same_rows_give_the_same_bytes(workspace: Workspace, tmp_path: Path) -> None:
    again = small_workspace(tmp_path / "another" / "place")
    assert files_of(export(workspace, workers=1).path) == files_of(export(again, workers=3).path)


def test_datasets_reads_the_folder(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    release = export(workspace).path
    cache = {"cache_dir": str(tmp_path / "cache")}
    whole = datasets.load_dataset(str(release), **cache)
    assert {split: len(whole[split]) for split in whole} == {"train": 9, "val": 3, "test": 3}
    shard = str(release / "data" / "train-00000-of-00001.parquet")
    one = datasets.load_dataset("parquet", data_files=shard, split="train", **cache)
    expected = {row["forgery_id"]: row for row in rows_of(release)}
    for table in (whole["train"], one):
        assert table.column_names == schema.TRIPLETS.names
        row = table[0]
        assert (row["image"].size, row["image"].mode) == ((512, 512), "RGB")
        assert (row["mask"].size, row["mask"].mode) == ((512, 512), "L")
        assert set(np.unique(np.asarray(row["mask"]))) == {0, 255}
        same = expected[row["forgery_id"]]
        pictures = ("image", "mask", "part_map")
        assert {k: row[k] for k in row if k not in pictures} == {k: same[k] for k in same if k not in pictures}
        maps = {r["forgery_id"]: r["part_map"] for r in table}
        assert {name for name, part_map in maps.items() if part_map} == {n for n in maps if n.startswith("blendswap")}
        assert np.unique(np.asarray(maps["blendswap-0002"])).tolist() == [0, 2]
        assert table.features["labels"].length == 21
        assert table.features["labels"].feature.dtype == "int8"


# --- which rows -------------------------------------------------------------------------------------------------------


def test_only_accepted_descriptions_are_released(workspace: Workspace) -> None:
    told = {
        "blendswap-0000": ("described", "reject"),
        "blendswap-0001": ("described", "review"),
        "blendswap-0002": ("nothing-visible", "accept"),
        "blendswap-0003": ("broken-pair", "accept"),
        "blendswap-0004": ("described", ""),
    }
    rows = [
        annotation(name, f"b-{name}", "text", answer=answer) | {"annotation_id": f"a-{name[-4:]}"}
        for name, (answer, _) in told.items()
    ]
    workspace.annotations.append(rows)
    workspace.findings.append([finding(row, told[row["forgery_id"]][1]) for row in rows])
    summary = export(workspace)
    assert sum(summary.counts.values()) == 10
    assert summary.left_out == {
        "description: verdict reject": 1,
        "description: verdict review": 1,
        "nothing visible": 1,
        "broken pair": 1,
        "description not audited yet": 1,
    }
    more = export(workspace, version="0.2.0", undescribed=True)
    assert sum(more.counts.values()) == 14 and more.left_out == {"broken pair": 1}
    bare = next(row for row in rows_of(more.path) if row["forgery_id"] == "blendswap-0000")
    for key in ("description", "labels", "annotator", "observation_s", "language", "description_origin"):
        assert bare[key] is None
    text = (more.path / "README.md").read_text("utf-8")
    assert "4 rows have no accepted description" in text
    assert json.loads((more.path / "manifest.json").read_text("utf-8"))["described"] == 10


def test_of_several_accepted_descriptions_a_persons_is_taken(workspace: Workspace) -> None:
    rows = [
        annotation("blendswap-0000", "a-9999", "later"),
        annotation("sdxl-0005", "0-first", "scripted", origin="scripted"),
        annotation("sdxl-0006", "0-first-too", "earlier id"),
    ]
    workspace.annotations.append(rows)
    workspace.findings.append([finding(row) for row in rows])
    texts = {row["forgery_id"]: row["description"] for row in rows_of(export(workspace).path)}
    assert texts["blendswap-0000"] == "The nose of face 0 is blurred, ünnatural."
    assert texts["sdxl-0005"] == "The nose of face 5 is blurred, ünnatural."
    assert texts["sdxl-0006"] == "earlier id"


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("scripted", "15 descriptions are scripted stand-ins, not human work"),
        ("draft-edited", "15 descriptions began as a model's draft"),
    ],
)
def test_what_no_person_wrote_alone_is_called_so(workspace: Workspace, origin: str, said: str) -> None:
    rows = workspace.annotations.read().to_pylist()
    workspace.annotations.append([row | {"origin": origin} for row in rows])
    release = export(workspace).path
    assert {row["description_origin"] for row in rows_of(release)} == {origin}
    assert said in (release / "README.md").read_text("utf-8")
    assert not verify(release).problems


def withdraw(workspace: Workspace, name: str) -> None:
    row = next(row for row in workspace.pristine.read().to_pylist() if row["id"] == name)
    workspace.pristine.append([row | {"status": "excluded", "reason": "withdrawn"}])


@pytest.mark.parametrize("image", ["ffhq-00001", "ffhq-00001-donor"])
def test_a_withdrawn_base_or_donor_takes_its_forgery_along(workspace: Workspace, image: str) -> None:
    withdraw(workspace, image)
    for undescribed in (False, True):
        summary = export(workspace, undescribed=undescribed, version=f"{int(undescribed)}.0.0")
        assert summary.left_out == {"base or donor withdrawn or excluded": 1}
        assert "blendswap-0001" not in {row["forgery_id"] for row in rows_of(summary.path)}
        assert image not in (summary.path / "attribution.csv").read_text("utf-8")


def test_a_donor_of_the_earlier_forgery_counts_too(workspace: Workspace) -> None:
    parent = next(row for row in workspace.plan.read().to_pylist() if row["forgery_id"] == "blendswap-0001")
    child = parent | {"forgery_id": "sdxl-child", "parent_id": "blendswap-0001", "source_id": None, "method": "sdxl"}
    workspace.plan.append([child])
    workspace.forgeries.append([forge(workspace, "sdxl-child", "sdxl", "train", 40)])
    rows = {row["forgery_id"]: row for row in rows_of(export(workspace, undescribed=True).path)}
    assert rows["sdxl-child"]["licence"] == "CC BY 2.0; CC BY 2.0 (donor)"
    withdraw(workspace, "ffhq-00001-donor")
    assert export(workspace, undescribed=True, version="0.2.0").left_out == {"base or donor withdrawn or excluded": 2}


def test_unfinished_forgeries_are_counted(workspace: Workspace) -> None:
    extra = workspace.plan.read().to_pylist()[0]
    workspace.plan.append([extra | {"forgery_id": f"extra-{n}"} for n in range(3)])
    failed = workspace.forgeries.read().to_pylist()[0]
    workspace.forgeries.append([failed | {"forgery_id": "extra-0", "status": "rejected", "image": None, "mask": None}])
    assert export(workspace).left_out == {"not forged yet": 2, "forgery rejected": 1}


def test_rows_that_cross_splits_are_refused(workspace: Workspace) -> None:
    row = next(row for row in workspace.plan.read().to_pylist() if row["split"] == "test")
    workspace.plan.append([row | {"split": "train"}])
    assert sum(export(workspace, dry_run=True).counts.values()) == 15  # alone it leaks nothing
    other = next(r for r in workspace.plan.read().to_pylist() if r["split"] == "val")
    workspace.plan.append([row | {"base_id": other["base_id"], "split": "test"}])
    with pytest.raises(StoreError, match="leak"):
        export(workspace)


def test_pristine_images_come_only_when_asked_for(workspace: Workspace) -> None:
    assert "pristine" not in rows_of(export(workspace).path)[0]
    release = export(workspace, version="0.2.0", with_pristine=True, json_layout=False).path
    for row in rows_of(release):
        stored = workspace.root / workspace.image_path("pristine", row["base_id"])
        assert row["pristine"] == {"bytes": stored.read_bytes(), "path": f"pristine/{row['base_id']}.png"}
    assert not (release / "mmtt").exists()
    assert "  - name: pristine\n    dtype: image" in (release / "README.md").read_text("utf-8")


# --- what must not happen ---------------------------------------------------------------------------------------------


def test_a_changed_image_is_refused_by_name(workspace: Workspace) -> None:
    row = workspace.forgeries.read().to_pylist()[3]
    path = workspace.root / row["image"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=path.name):
        export(workspace)
    path.unlink()
    with pytest.raises(StoreError, match=path.name):
        export(workspace, dry_run=True)
    assert not list((workspace.root / "releases").iterdir())


def test_a_version_is_never_overwritten(workspace: Workspace) -> None:
    before = files_of(export(workspace).path)
    with pytest.raises(ConfigError, match="never overwritten"):
        export(workspace)
    assert files_of(workspace.root / "releases" / "small-0.1.0") == before


@pytest.mark.parametrize("version", ["../1.0.0", "1.0", "1.0.0/x"])
def test_a_version_is_three_numbers(workspace: Workspace, version: str) -> None:
    with pytest.raises(ConfigError, match="three numbers"):
        export(workspace, version=version)


def test_nothing_to_export_says_what_to_do(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "w", described=False)
    with pytest.raises(ConfigError, match=r"15 not described yet[\s\S]*--undescribed"):
        export(workspace)
    assert not (workspace.root / "releases").exists()
    text = (export(workspace, undescribed=True).path / "README.md").read_text("utf-8")
    assert "This release has no descriptions." in text


def test_a_dry_run_writes_nothing(workspace: Workspace) -> None:
    summary = export(workspace, dry_run=True)
    assert summary.counts == {"train": 9, "val": 3, "test": 3} and summary.bytes > 15 * 300_000
    assert not (workspace.root / "releases").exists()


@pytest.mark.parametrize("params", ['{"weights": "/home/me/model.pt"}', '{"w": ["C:\\\\\\\\models"]}'])
def test_paths_of_this_machine_do_not_leave_it(workspace: Workspace, params: str) -> None:
    row = workspace.plan.read().to_pylist()[0]
    workspace.plan.append([row | {"params": params}])
    with pytest.raises(StoreError, match="path of this machine"):
        export(workspace)


def test_no_file_of_a_release_names_the_workspace(workspace: Workspace) -> None:
    release = export(workspace).path
    for path in release.rglob("*"):
        if path.is_file():
            assert str(workspace.root).encode() not in path.read_bytes(), path


# --- being killed -----------------------------------------------------------------------------------------------------


def test_a_failing_export_leaves_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mmtt_build.card.text", broken)  # nearly at the end
        with pytest.raises(KeyboardInterrupt):
            export(workspace)
    assert not list((workspace.root / "releases").iterdir())
    assert export(workspace).path.is_dir()


def test_a_killed_export_is_cleaned_up_by_the_next(workspace: Workspace) -> None:
    script = (
        "import os, sys; from pathlib import Path; from mmtt_build import card\n"
        "from mmtt_build.workspace import Workspace; from mmtt_build.stages.export import export\n"
        "card.text = lambda *a, **k: os._exit(9)\n"
        "export(Workspace(Path(sys.argv[1])))"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(workspace.root)], check=False)
    assert ended.returncode == 9
    (left,) = (workspace.root / "releases").iterdir()
    assert left.name.startswith(".tmp-") and list(left.rglob("*.parquet"))
    assert workspace.releases() == []
    release = export(workspace).path
    assert list((workspace.root / "releases").iterdir()) == [release]


def test_two_exports_at_once_do_not_hurt_each_other(workspace: Workspace) -> None:
    with (
        stage._folder(workspace.root / "releases" / "small-9.9.9") as folder,
        pytest.raises(ConfigError, match="another export"),
    ):
        assert folder.is_dir()
        export(workspace)
    assert (workspace.root / "releases" / "small-9.9.9").is_dir()


# --- size -------------------------------------------------------------------------------------------------------------


def peak_mb(root: Path) -> float:
    script = (
        "import resource, sys; from pathlib import Path; from mmtt_build.workspace import Workspace\n"
        "from mmtt_build.stages.export import export\n"
        "export(Workspace(Path(sys.argv[1])), json_layout=False)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(root)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def many(root: Path, count: int) -> Workspace:
    """A workspace of many rows that share one stored image of 100 kB and one mask."""
    workspace = Workspace.init(root)
    workspace.pristine.append([person(workspace, 0)])
    data = np.random.default_rng(0).bytes(100_000)
    (root / "one.png").write_bytes(data)
    names = [f"sdxl-{n:05d}" for n in range(count)]
    (root / "mask.png").write_bytes(data[:1000])
    shared = {"split": "train", "method": "sdxl", "image_crc": zlib.crc32(data), "mask_crc": zlib.crc32(data[:1000])}
    same = {"image": "one.png", "mask": "mask.png", "status": "ok", "mask_area": np.float32(0.1)} | shared
    planned = {"family": "inpaint-diffusion", "base_id": "celebamask-hq-00000", "identity_group": "g", "seed": 1}
    workspace.plan.append(
        [planned | {"forgery_id": n, "method": "sdxl", "split": "train", "params": "{}"} for n in names]
    )
    workspace.forgeries.append([same | {"forgery_id": n} for n in names])
    texts = [annotation(n, n, "The nose is blurred.") for n in names]
    workspace.annotations.append(texts)
    workspace.findings.append([finding(text) for text in texts])
    return workspace


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    few = peak_mb(many(tmp_path / "few", 500).root)
    lots = peak_mb(many(tmp_path / "lots", 2000).root)  # 200 MB of images
    assert lots < few + 80


def test_write_split_takes_rows_from_memory(tmp_path: Path) -> None:
    picture = {"bytes": b"x" * 1000, "path": "a.png"}
    need = {"base_id": "b", "method": "m", "family": "f", "split": "train", "identity_group": "g"}
    rows = [need | {"forgery_id": str(n), "image": picture, "mask": picture} for n in range(5)]
    assert write_split(iter(rows), tmp_path / "a.parquet") == 5
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["forgery_id"].to_pylist() == ["0", "1", "2", "3", "4"]
    assert table["image"].to_pylist() == [picture] * 5
    assert table["labels"].null_count == 5


def test_a_flipped_bit_in_a_page_is_found_by_parquet_itself(workspace: Workspace) -> None:
    path = export(workspace).path / "data" / "test-00000-of-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    with pytest.raises((pa.ArrowException, OSError)):
        pq.read_table(path, page_checksum_verification=True)


def test_tables_may_grow_meanwhile(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Callable[..., pa.Table] = Workspace.forgeries.func(workspace).read

    def and_append(columns: object = None) -> pa.Table:
        table = read(columns)
        row = table.to_pylist()[0]
        workspace.forgeries.append([row | {"forgery_id": f"new-{os.urandom(4).hex()}"}])
        return table

    monkeypatch.setattr(workspace.forgeries, "read", and_append)
    assert sum(export(workspace).counts.values()) == 15
