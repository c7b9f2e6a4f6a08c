"""Verify: a release against its manifest and its promises, by whoever received it; needs the release folder alone.

First every file: there, of the size and the SHA-256 that the manifest says, and none beside them. Then every row: the
columns, the pixels, the splits, and the MMTT-JSON layout against the Parquet rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmtt_build import mmtt_json, parallel, schema
from mmtt_build.config import SPLITS
from mmtt_build.errors import ReleaseError
from mmtt_build.parts import CLASSES
from mmtt_build.progress import Progress
from mmtt_build.records import ORIGINS, SIZE

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
JSON_FOLDER = "mmtt"

SHOWN = 20
"""Problems of one kind that are listed; the others are counted."""

_SHARD = re.compile(r"data/([a-z]+)-(\d{5})-of-(\d{5})\.parquet")


@dataclass(slots=True)
class Report:
    """What was checked and what is wrong.

    Attributes:
        files: files checked.
        rows: triplets checked.
        problems: one line each; empty where the release is what it says.
    """

    files: int = 0
    rows: int = 0
    problems: list[str] = field(default_factory=list)


def fingerprint(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file, as a manifest has them."""
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def verify(release: Path, *, quick: bool = False) -> Report:
    """Checks a release.

    Args:
        release: its folder.
        quick: only files and checksums, not what is in them.

    Raises:
        ReleaseError: there is no such folder.
    """
    if not release.is_dir():
        raise ReleaseError(f"{release} is no folder", "name the folder that holds manifest.json")
    found = _Problems()
    report = Report()
    manifest = _manifest(release, found)
    if manifest is not None:
        report.files = _check_files(release, manifest, found)
        if not quick:
            report.rows = _check_rows(release, manifest, found)
    report.problems = found.lines()
    return report


class _Problems:
    """Collects problems; of each kind the first few in full."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, what: str) -> None:
        self._counts[kind] += 1
        if self._counts[kind] <= SHOWN:
            self._lines.setdefault(kind, []).append(f"{kind}: {what}")

    def lines(self) -> list[str]:
        listed = []
        for kind, lines in self._lines.items():
            listed += lines
            if self._counts[kind] > SHOWN:
                listed.append(f"{kind}: {self._counts[kind] - SHOWN:,} more")
        return listed


# --- files ------------------------------------------------------------------------------------------------------------


def _manifest(release: Path, found: _Problems) -> dict[str, Any] | None:
    """The manifest, if it can be used; its bad entries are reported and dropped."""
    try:
        manifest = json.loads((release / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found.add("manifest cannot be read", str(error))
        return None
    if not isinstance(manifest, dict):
        found.add("manifest is no JSON object", type(manifest).__name__)
        return None
    kinds = {
        "schema_version": int,
        "dataset": str,
        "version": str,
        "counts": dict,
        "described": int,
        "files": dict,
    }
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            found.add("manifest is inconsistent", f"{key} is {manifest.get(key)!r}, needs {kind.__name__}")
            return None
    if any(type(count) is not int for count in manifest["counts"].values()):
        found.add("manifest is inconsistent", f"counts are {manifest['counts']!r}, need whole numbers")
        return None
    root = release.resolve()
    files: dict[str, Any] = {}
    for name, facts in manifest["files"].items():
        path = PurePosixPath(name)
        odd = not path.parts or path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", name)
        if odd or not (release / name).resolve().is_relative_to(root):
            found.add("path leaves the release", name)
        elif not (isinstance(facts, dict) and isinstance(facts.get("size"), int) and _is_sha(facts.get("sha256"))):
            found.add("manifest is inconsistent", f"{name} has {facts!r}, needs size and sha256")
        else:
            files[name] = facts
    return manifest | {"files": files}


def _is_sha(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _check_files(release: Path, manifest: Mapping[str, Any], found: _Problems) -> int:
    files: dict[str, dict[str, Any]] = manifest["files"]
    present = {
        Path(folder, name).relative_to(release).as_posix()
        for folder, folders, names in os.walk(release)
        for name in [*names, *(name for name in folders if Path(folder, name).is_symlink())]
    }
    for name in sorted(present - files.keys() - {MANIFEST, SUMS}):
        found.add("file is not in the manifest", name)
    for name in sorted(files.keys() - present):
        found.add("file is missing", name)
    sums = _sums(release, found)
    if sums is not None:
        said = {name: facts["sha256"] for name, facts in files.items()}
        said[MANIFEST] = fingerprint(release / MANIFEST)["sha256"]
        for name in sorted(said.keys() | sums.keys()):
            if said.get(name) != sums.get(name):
                found.add(f"{SUMS} and {MANIFEST} differ", name)

    def differs(name: str) -> str:
        path, facts = release / name, files[name]
        try:
            if (size := path.stat().st_size) != facts["size"]:
                return f"is {size:,} bytes, the manifest says {facts['size']:,}"
            return "" if fingerprint(path) == facts else "SHA-256 differs: the file was changed or damaged"
        except OSError as error:
            return f"cannot be read: {error.strerror}"

    checked = sorted(files.keys() & present)
    with (
        Progress("verify files", len(checked), "files") as progress,
        ThreadPoolExecutor(parallel.cores()) as pool,
    ):
        for name, problem in zip(checked, pool.map(differs, checked), strict=True):
            if problem:
                found.add("file differs", f"{name} {problem}")
            progress.step("differs" if problem else "ok")
    return len(checked)


def _sums(release: Path, found: _Problems) -> dict[str, str] | None:
    try:
        lines = (release / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        found.add(f"{SUMS} cannot be read", str(error))
        return None
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


# --- rows -------------------------------------------------------------------------------------------------------------


def _check_rows(release: Path, manifest: Mapping[str, Any], found: _Problems) -> int:
    shards: dict[str, list[str]] = {}
    for name in sorted(manifest["files"]):
        if not name.startswith("data/"):
            continue
        named = _SHARD.fullmatch(name)
        if named is None or named[1] not in SPLITS:
            found.add("file name in data/ is no shard of a split", name)
        elif (release / name).is_file():
            shards.setdefault(named[1], []).append(name)
    for split, names in shards.items():
        wanted = [f"data/{split}-{i:05d}-of-{len(names):05d}.parquet" for i in range(len(names))]
        if names != wanted:
            found.add("shards of a split are incomplete", f"{split} has {', '.join(names)}")
    rows = _Rows(release, manifest, found)
    with (
        Progress("verify rows", sum(manifest["counts"].values()), "triplets") as progress,
        ThreadPoolExecutor(parallel.cores()) as pool,
    ):
        for split, names in shards.items():
            for name in names:
                rows.check_shard(name, split, pool, progress.step)
    rows.finish()
    return rows.counts.total()


class _Rows:
    """Everything that one pass over all rows has to remember; ids and hashes, no pixels."""

    def __init__(self, release: Path, manifest: Mapping[str, Any], found: _Problems) -> None:
        self.release = release
        self.manifest = manifest
        self.found = found
        self.counts: Counter[str] = Counter()
        self.described = 0
        self.ids: set[str] = set()
        self.split_of: dict[tuple[str, str], str] = {}
        self.records = dict(self._layout())
        self.has_layout = any(name.startswith(f"{JSON_FOLDER}/") for name in manifest["files"])

    def _layout(self) -> Iterator[tuple[str, tuple[str, dict[str, str], bytes]]]:
        """Per forgery id of the JSON layout: split, its paths, and a hash of what it says."""
        seen: Counter[str] = Counter()
        for split, name in mmtt_json.FILES.items():
            if f"{JSON_FOLDER}/{name}" not in self.manifest["files"]:
                continue
            try:
                for made in mmtt_json.read(self.release / JSON_FOLDER / name):
                    paths = {key: str(made.get(key)) for key in ("img_path", "mask_path")}
                    seen.update([f"image_id {made.get('image_id')}", f"instance_id {made.get('instance_id')}"])
                    seen.update(paths.values())
                    yield PurePosixPath(paths["img_path"]).stem, (split, paths, _says(made))
            except ReleaseError as error:
                self.found.add("JSON layout", error.message)
        for value, times in seen.items():
            if times > 1:
                self.found.add("JSON layout", f"{value} is used {times} times")

    def check_shard(self, name: str, split: str, pool: ThreadPoolExecutor, step: Callable[[], None]) -> None:
        try:
            with pq.ParquetFile(self.release / name, page_checksum_verification=True) as file:
                if not self._check_schema(name, file.schema_arrow):
                    return
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group, columns=schema.TRIPLETS.names).to_pylist()
                    for row, problems in zip(rows, pool.map(_picture_problems, rows), strict=True):
                        self._check_row(row, split, problems)
                        step()
        except (pa.ArrowException, OSError) as error:
            self.found.add("Parquet file is damaged", f"{name}: {error}")

    def _check_schema(self, name: str, actual: pa.Schema) -> bool:
        good = True
        for column in schema.TRIPLETS:
            at = actual.get_field_index(column.name)
            if at < 0 or not actual.field(at).type.equals(column.type):
                has = actual.field(at).type if at >= 0 else "missing"
                self.found.add("column differs", f"{name}: {column.name} is {has}, needs {column.type}")
                good = False
        return good

    def _check_row(self, row: dict[str, Any], split: str, problems: list[str]) -> None:
        name = row["forgery_id"]
        required = [column.name for column in schema.TRIPLETS if not column.nullable]
        problems += [f"{column} is null" for column in required if row[column] is None]
        self.counts[split] += 1
        self.described += row["description"] is not None
        if name in self.ids:
            problems.append("its id occurs twice")
        self.ids.add(name)
        if row["split"] != split:
            problems.append(f"split is {row['split']!r}, in a file of {split}")
        problems += [
            f"{column} is {row[column]!r}, the manifest says {self.manifest[key]!r}"
            for column, key in (("dataset", "dataset"), ("dataset_version", "version"), ("schema_version",) * 2)
            if row[column] != self.manifest[key]
        ]
        for kind, column in (("group", "identity_group"), ("image", "base_id"), ("image", "source_id")):
            if row[column] is not None:
                first = self.split_of.setdefault((kind, row[column]), split)
                if first != split:
                    problems.append(f"{column} {row[column]} is in {first} too: the splits leak")
        problems += _text_problems(row)
        if self.has_layout:
            problems += self._layout_problems(row)
        for problem in problems:
            self.found.add(f"row {problem.split(' ')[0]}", f"{name}: {problem}")

    def _layout_problems(self, row: Mapping[str, Any]) -> list[str]:
        record = self.records.pop(row["forgery_id"], None)
        if record is None:
            return ["JSON layout has no record of it"]
        split, paths, says = record
        problems = []
        if split != row["split"]:
            problems.append(f"JSON layout has it in {split}")
        if says != _says({"caption": row["description"] or "", "multilabel": row["labels"] or [0] * 21}):
            problems.append("JSON layout differs in caption or multilabel")
        for key, column in (("img_path", "image"), ("mask_path", "mask")):
            facts = self.manifest["files"].get(f"{JSON_FOLDER}/{paths[key]}")
            if facts is None:
                problems.append(f"JSON layout names {paths[key]}, which the manifest has not")
            elif facts["sha256"] != hashlib.sha256((row[column] or {}).get("bytes") or b"").hexdigest():
                problems.append(f"JSON layout has another {column} than the Parquet row")
        return problems

    def finish(self) -> None:
        """What only shows when all rows are seen."""
        for name in self.records:
            self.found.add("JSON layout", f"{name} is in no Parquet file")
        for split in sorted(self.counts.keys() | self.manifest["counts"].keys()):
            if self.counts[split] != self.manifest["counts"].get(split, 0):
                said = self.manifest["counts"].get(split, 0)
                self.found.add("count differs", f"{split} has {self.counts[split]:,} rows, the manifest says {said:,}")
        if self.described != self.manifest["described"]:
            said = self.manifest["described"]
            self.found.add("count differs", f"{self.described:,} rows are described, the manifest says {said:,}")


def _says(made: Mapping[str, Any]) -> bytes:
    text = json.dumps([made.get("caption"), made.get("multilabel")], default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _picture_problems(row: Mapping[str, Any]) -> list[str]:
    """What is wrong with the pixels of one row; runs in a thread."""
    problems = []
    image = _decode(row["image"])
    if image is None or image.dtype != np.uint8 or image.shape != (SIZE, SIZE, 3):
        problems.append(f"image is {_shape(image)}, needs {SIZE}x{SIZE} RGB of 8 bits")
    mask = _decode(row["mask"])
    if mask is None or mask.dtype != np.uint8 or mask.shape != (SIZE, SIZE):
        problems.append(f"mask is {_shape(mask)}, needs {SIZE}x{SIZE}, one channel of 8 bits")
        return problems
    levels = np.bincount(mask.ravel(), minlength=256)
    if levels[0] + levels[255] != mask.size:
        problems.append(f"mask has {mask.size - levels[0] - levels[255]:,} pixels that are neither 0 nor 255")
    area = levels[255] / mask.size
    if not 0 < area < 1:
        problems.append("mask is empty or the full frame")
    if row["mask_area"] is None or abs(area - row["mask_area"]) > 1e-6:
        problems.append(f"mask covers {area:.6f} of the frame, mask_area says {row['mask_area']}")
    if row["part_map"] is not None:
        labels = _decode(row["part_map"])
        if labels is None or labels.shape != (SIZE, SIZE) or labels.max() >= len(CLASSES):
            problems.append(f"part_map is {_shape(labels)}, needs {SIZE}x{SIZE}, one channel, {len(CLASSES)} classes")
    return problems


def _decode(picture: Mapping[str, Any] | None) -> Any:
    """Pixels of a PNG as it is, or None; a header that claims a giant picture is not believed."""
    data = (picture or {}).get("bytes") or b""
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or max(struct.unpack(">II", data[16:24].ljust(8, b"\0"))) > 8 * SIZE:
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None


def _shape(image: Any) -> str:
    return "no PNG" if image is None else f"{'x'.join(map(str, image.shape))} {image.dtype}"


def _text_problems(row: Mapping[str, Any]) -> list[str]:
    problems = []
    if (row["labels"] is None) != (row["description"] is None):
        problems.append("labels and description are not both there or both null")
    if row["labels"] is not None and not set(row["labels"]) <= {0, 1}:
        problems.append(f"labels are {row['labels']}, need 0 and 1")
    if row["description"] is not None and row["description_origin"] not in ORIGINS:
        problems.append(f"description_origin is {row['description_origin']!r}, needs one of {', '.join(ORIGINS)}")
    if len(row["parts"] or []) != len(row["sides"] or []):
        problems.append("parts and sides differ in length")
    try:
        json.loads(row["params"] or "{}")
    except ValueError as error:
        problems.append(f"params are no JSON: {error}")
    return problems
