from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from small_workspace import small_workspace

from mmtt_build.errors import ReleaseError
from mmtt_build.stages.export import export
from mmtt_build.stages.verify import SHOWN, fingerprint, verify
from mmtt_build.triplets import write_split

SHARD = "data/train-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(small_workspace(tmp_path_factory.mktemp("verify"))).path


@pytest.fixture
def release(original: Path, tmp_path: Path) -> Path:
    """A copy of the release alone, as a recipient has it."""
    return Path(shutil.copytree(original, tmp_path / "received"))


def seal(release: Path) -> None:
    """Makes manifest and sums agree with the files again: what is left to find is in the content."""
    manifest = json.loads((release / "manifest.json").read_text("utf-8"))
    manifest["files"] = {
        p.relative_to(release).as_posix(): fingerprint(p)
        for p in release.rglob("*")
        if p.is_file() and p.name not in ("manifest.json", "SHA256SUMS")
    }
    (release / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    sums = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    sums["manifest.json"] = fingerprint(release / "manifest.json")["sha256"]
    (release / "SHA256SUMS").write_text("".join(f"{sha}  {name}\n" for name, sha in sums.items()), "utf-8")


def edit_rows(release: Path, change: Callable[[list[dict[str, object]]], None], shard: str = SHARD) -> None:
    rows = pq.read_table(release / shard).to_pylist()
    change(rows)
    write_split(rows, release / shard)
    seal(release)


def only(problems: list[str], *words: str) -> None:
    """There is exactly one problem, and it says all of these."""
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]


def test_a_good_release_has_no_problems(release: Path) -> None:
    report = verify(release)
    assert report.problems == []
    assert (report.rows, report.files) == (15, 3 + 3 + 30 + 2)
    assert verify(release, quick=True).problems == []
    assert verify(release, quick=True).rows == 0


def test_no_release_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="no folder"):
        verify(tmp_path / "nowhere")
    only(verify(tmp_path).problems, "manifest cannot be read")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [SHARD, "README.md", "mmtt/train-mutilabel.json", "attribution.csv"])
def test_a_flipped_bit_is_found(release: Path, name: str) -> None:
    data = bytearray((release / name).read_bytes())
    data[len(data) // 2] ^= 1
    (release / name).write_bytes(data)
    only(verify(release, quick=True).problems, name, "SHA-256 differs")


def test_a_flipped_bit_in_a_picture_is_found(release: Path) -> None:
    path = next((release / "mmtt" / "dataset").rglob("*.png"))
    data = bytearray(path.read_bytes())
    data[-20] ^= 128
    path.write_bytes(data)
    only(verify(release).problems, path.name, "SHA-256 differs")


def test_a_file_of_another_size_is_found(release: Path) -> None:
    with (release / SHARD).open("ab") as file:
        file.write(b"x")
    only(verify(release, quick=True).problems, SHARD, "bytes, the manifest says")


def test_missing_and_extra_files_are_found(release: Path) -> None:
    (release / "attribution.csv").unlink()
    only(verify(release).problems, "file is missing", "attribution.csv")
    (release / "data" / "notes.txt").write_text("mine")
    problems = verify(release).problems
    assert problems == ["file is not in the manifest: data/notes.txt", "file is missing: attribution.csv"]


def test_a_missing_shard_is_found_twice(release: Path) -> None:
    (release / SHARD).unlink()
    problems = verify(release).problems
    assert f"file is missing: {SHARD}" in problems
    assert "count differs: train has 0 rows, the manifest says 9" in problems


def test_an_edited_manifest_is_found(release: Path) -> None:
    path = release / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(manifest | {"version": "9.9.9"}), "utf-8")
    only(verify(release, quick=True).problems, "SHA256SUMS and manifest.json differ", "manifest.json")
    assert any("dataset_version is '0.1.0', the manifest says '9.9.9'" in p for p in verify(release).problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "no JSON object"),
        ("{}", "inconsistent"),
        ('{"schema_version": "1"}', "schema_version is '1', needs int"),
        (
            '{"schema_version": 1, "dataset": "", "version": "", "described": 0, "files": {}, "counts": {"val": "3"}}',
            "need whole numbers",
        ),
    ],
)
def test_a_broken_manifest_is_a_problem_and_no_crash(release: Path, text: str, said: str) -> None:
    (release / "manifest.json").write_text(text)
    only(verify(release).problems, said)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", "..\\secret", "C:/x", "", "a\0b"])
def test_paths_that_leave_the_release_are_not_followed(release: Path, name: str) -> None:
    path = release / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["files"][name] = {"size": 1, "sha256": "0" * 64}
    path.write_text(json.dumps(manifest), "utf-8")
    assert f"path leaves the release: {name}" in verify(release, quick=True).problems


def test_a_link_out_of_the_release_is_not_followed(release: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.csv").write_bytes((release / "attribution.csv").read_bytes())
    (release / "attribution.csv").unlink()
    (release / "attribution.csv").symlink_to(tmp_path / "outside.csv")
    assert "path leaves the release: attribution.csv" in verify(release, quick=True).problems


def test_sums_that_differ_are_found(release: Path) -> None:
    path = release / "SHA256SUMS"
    path.write_text(path.read_text("utf-8").replace("README.md", "README.txt"), "utf-8")
    assert len(verify(release, quick=True).problems) == 2
    path.unlink()
    only(verify(release, quick=True).problems, "SHA256SUMS cannot be read")


# --- content ----------------------------------------------------------------------------------------------------------


def png(array: np.ndarray, kind: str = ".png") -> bytes:
    return cv2.imencode(kind, array)[1].tobytes()


def set_mask(array: np.ndarray) -> Callable[[list[dict[str, object]]], None]:
    return lambda rows: rows[0].update(mask={"bytes": png(array), "path": "m.png"})


def half() -> np.ndarray:
    mask = np.zeros((512, 512), np.uint8)
    mask[:256] = 255
    return mask


SQUARE = np.zeros((512, 512, 3), np.uint8)
GIANT = png(SQUARE)[:16] + b"\x00\x01\x00\x00" * 2 + png(SQUARE)[24:]
CASES: dict[str, tuple[Callable[[list[dict[str, object]]], None], str]] = {
    "mask area": (set_mask(half()), "mask covers 0.500000 of the frame, mask_area says"),
    "grey mask": (set_mask(half() // 2 + half() // 255), "131,072 pixels that are neither 0 nor 255"),
    "three channels": (set_mask(SQUARE), "mask is 512x512x3 uint8, needs 512x512, one channel"),
    "small mask": (set_mask(half()[::2, ::2]), "mask is 256x256 uint8"),
    "deep mask": (set_mask(half().astype(np.uint16)), "mask is 512x512 uint16"),
    "empty mask": (set_mask(half() * 0), "mask is empty or the full frame"),
    "part map": (
        lambda rows: rows[0].update(part_map={"bytes": png(half()), "path": "p"}),
        "part_map is 512x512 uint8",
    ),
    "no part map": (lambda rows: rows[0].update(part_map={"bytes": b"", "path": "p"}), "part_map is no PNG"),
    "no image": (lambda rows: rows[0].update(image={"bytes": b"junk", "path": "i.png"}), "image is no PNG"),
    "giant": (lambda rows: rows[0].update(image={"bytes": GIANT, "path": "i.png"}), "image is no PNG"),
    "jpeg": (lambda rows: rows[0].update(image={"bytes": png(SQUARE, ".jpg"), "path": "i.png"}), "image is no PNG"),
    "grey image": (lambda rows: rows[0].update(image={"bytes": png(half()), "path": "i"}), "image is 512x512 uint8"),
    "twice": (lambda rows: rows.append(rows[0]), "its id occurs twice"),
    "split": (lambda rows: rows[0].update(split="test"), "split is 'test', in a file of train"),
    "labels": (lambda rows: rows[0].update(labels=[2] + [0] * 20), "need 0 and 1"),
    "no labels": (lambda rows: rows[0].update(labels=None), "not both there or both null"),
    "origin": (lambda rows: rows[0].update(description_origin="model"), "needs one of human, draft-edited, scripted"),
    "params": (lambda rows: rows[0].update(params="{"), "params are no JSON"),
    "version": (lambda rows: rows[0].update(dataset_version="2"), "dataset_version is '2'"),
    "text": (lambda rows: rows[0].update(description="Other words."), "differs in caption or multilabel"),
}


@pytest.mark.parametrize("case", CASES)
def test_content_that_breaks_a_promise_is_found(release: Path, case: str) -> None:
    change, said = CASES[case]
    edit_rows(release, change)
    assert verify(release, quick=True).problems == []
    assert any(said in problem for problem in verify(release).problems), verify(release).problems


@pytest.mark.parametrize("column", ["identity_group", "base_id", "source_id"])
def test_leaking_splits_are_found(release: Path, column: str) -> None:
    test = pq.read_table(release / "data/test-00000-of-00001.parquet").to_pylist()
    leaked = test[0]["identity_group" if column == "identity_group" else "base_id"]
    edit_rows(release, lambda rows: rows[0].update({column: leaked}))
    (problem,) = verify(release).problems
    assert f"{column} {leaked} is in train too" in problem or "the splits leak" in problem


def test_a_missing_column_and_a_wrong_type_are_found(release: Path) -> None:
    table = pq.read_table(release / SHARD)
    seed = table["seed"].cast("double")
    table = table.drop_columns(["licence"]).set_column(
        table.drop_columns(["licence"]).column_names.index("seed"), "seed", seed
    )
    pq.write_table(table, release / SHARD)
    seal(release)
    problems = verify(release).problems
    assert f"column differs: {SHARD}: licence is missing, needs string" in problems
    assert f"column differs: {SHARD}: seed is double, needs int64" in problems


def test_more_columns_are_welcome(release: Path) -> None:
    table = pq.read_table(release / SHARD)
    pq.write_table(table.append_column("weather", table["split"]), release / SHARD)
    seal(release)
    assert verify(release).problems == []


def test_an_incomplete_set_of_shards_is_found(release: Path) -> None:
    (release / SHARD).rename(release / "data/train-00000-of-00002.parquet")
    seal(release)
    only(verify(release).problems, "shards of a split are incomplete", "train-00000-of-00002")


def test_layout_that_differs_from_the_rows_is_found(release: Path) -> None:
    path = release / "mmtt" / "eval-mutilabel.json"
    records = json.loads(path.read_text("utf-8"))
    records[0]["img_path"], records[1]["img_path"] = records[1]["img_path"], records[0]["img_path"]
    del records[2]
    path.write_text(json.dumps(records), "utf-8")
    seal(release)
    problems = verify(release).problems
    assert any("JSON layout has another mask" in p for p in problems)
    assert any("JSON layout has no record of it" in p for p in problems)


def test_many_problems_of_one_kind_are_counted(release: Path) -> None:
    for number in range(SHOWN + 5):
        (release / f"extra-{number}").touch()
    problems = verify(release, quick=True).problems
    assert len(problems) == SHOWN + 1
    assert problems[-1] == "file is not in the manifest: 5 more"


def test_a_cut_parquet_file_is_a_problem_and_no_crash(release: Path) -> None:
    os.truncate(release / SHARD, 1000)
    seal(release)
    assert any("Parquet file is damaged" in problem for problem in verify(release).problems)
