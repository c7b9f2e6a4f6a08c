"""Export: a release folder with Parquet triplets, the MMTT-JSON layout, card, attribution and checksums.

The stored PNG bytes go into the release untouched. The same rows give the same bytes, whatever the machine, the number
of workers and the day. All is written in a temporary folder that is renamed into place at the end, so a killed export
leaves no half release.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from isal import isal_zlib
from numpy.typing import NDArray

from mmtt_build import card, images, mmtt_json, parallel, parts, schema, store
from mmtt_build.config import SPLITS
from mmtt_build.errors import BadImage, ConfigError, StoreError
from mmtt_build.progress import Progress
from mmtt_build.records import ORIGINS
from mmtt_build.seeds import ranks
from mmtt_build.stages.verify import JSON_FOLDER, MANIFEST, SUMS, fingerprint
from mmtt_build.triplets import write_split
from mmtt_build.workspace import Workspace

SHARD_BYTES = 500_000_000
"""Images and masks per Parquet file."""

_OUTSIDE_PATH = re.compile(r'"(/|~/|\.\.?/|file:|[A-Za-z]:(\\\\|/))')
"""A JSON string that begins like a path of some machine."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Summary:
    """What an export wrote, or would write.

    Attributes:
        path: the release folder.
        counts: triplets per split.
        bytes: of all files; of a dry run, of the images and masks.
        left_out: planned rows that are not in the release, by reason.
    """

    path: Path
    counts: dict[str, int]
    bytes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def export(
    workspace: Workspace,
    *,
    version: str = "",
    undescribed: bool = False,
    with_pristine: bool = False,
    json_layout: bool = True,
    workers: int = 0,
    dry_run: bool = False,
) -> Summary:
    """Writes `releases/<name>-<version>`.

    Args:
        workspace: whose accepted triplets; its tables are read once, so other processes may append meanwhile.
        version: of the release; "" takes the recipe's.
        undescribed: also forgeries without an accepted description.
        with_pristine: adds the base images, column `pristine`.
        json_layout: writes the folder `mmtt` too.
        workers: threads that read; 0 takes all cores.
        dry_run: counts and writes nothing.

    Raises:
        ConfigError: the version exists or is none, another export is running, or there is nothing to export.
        StoreError: a stored image is missing or is not what was forged; the message names the file.
    """
    dataset = workspace.recipe.dataset
    version = version or dataset.version
    if not re.fullmatch(r"\d+\.\d+\.\d+([.-][A-Za-z0-9.]+)?", version):
        raise ConfigError(f"version {version!r}", "three numbers, e.g. 0.1.0")
    path = workspace.root / "releases" / f"{dataset.name}-{version}"
    if path.exists():
        raise ConfigError(
            f"release {path} exists, and a released version is never overwritten",
            f"raise version in [dataset] of {workspace.root / 'mmtt.toml'}, or give --version",
        )
    rows, credits, left_out = _select(workspace, undescribed)
    counts = {split: pc.sum(pc.equal(rows["split"], split)).as_py() or 0 for split in SPLITS}
    summary = Summary(path, counts, left_out=left_out)
    if not rows.num_rows:
        why = "; ".join(f"{n:,} {reason}" for reason, n in left_out.most_common(5)) or "nothing is planned"
        raise ConfigError(
            f"nothing to export: {why}",
            "annotate (mmtt annotate) and audit (mmtt qc audit) first, or give --undescribed",
        )
    constants = {"dataset": dataset.name, "dataset_version": version, "schema_version": schema.SCHEMA_VERSION}
    sizes = _sizes(workspace, rows, with_pristine)
    summary.bytes = int(sizes.sum())
    if dry_run:
        return summary
    with _folder(path) as folder, ThreadPoolExecutor(workers or parallel.cores()) as pool:
        release = _Release(workspace, folder, pool, constants, with_pristine, json_layout)
        release.write(rows, sizes, credits)
        summary.bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return summary


# --- which rows -------------------------------------------------------------------------------------------------------


def _select(workspace: Workspace, undescribed: bool) -> tuple[pa.Table, pa.Table, Counter[str]]:
    """The rows of the release in their order, who made the images in them, and why other rows are left out.

    The rows have the columns of `schema.TRIPLETS` that tables hold, and what is needed to find the files.
    """
    groups = workspace.groups.read(["id", "identity_group"])
    # Later stages first: whatever else is appended meanwhile, each row read finds the rows that it points at.
    findings = workspace.findings.read(["annotation_id", "verdict"])
    annotations = workspace.annotations.read()
    made = workspace.forgeries.read()
    plan = workspace.plan.read()
    pristine = workspace.pristine.read(["id", "status", "source", "author", "licence", "licence_url", "url", "image"])

    texts, states = _descriptions(annotations, findings)
    reasons = _unusable(plan, made, pristine)
    names: list[str] = plan["forgery_id"].to_pylist()
    wanted = np.zeros(len(names), np.bool_)
    left_out: Counter[str] = Counter()
    for index, name in enumerate(names):
        state = states.get(name, "not described yet")
        reason = reasons.get(name) or ("" if state == "accepted" else state)
        wanted[index] = not reason or (undescribed and not reasons.get(name) and state != "broken pair")
        if not wanted[index]:
            left_out[reason] += 1
    rows = plan.filter(pa.array(wanted))
    # A stable shuffle: methods and sources mix, as whoever streams the files wants it.
    rows = rows.take(np.argsort(ranks(rows["forgery_id"].to_pylist(), "release"), kind="stable"))
    rows = _join(rows, "forgery_id", made, ["method", "split", "status", "reason"])
    rows = _join(rows, "forgery_id", texts, ["annotation_id", "answer"])
    files = {name: f"{name}_file" for name in ("image", "mask", "part_map")}
    rows = rows.rename_columns({**files, "origin": "description_origin"})
    base = pristine.select(["id", "source", "image"]).rename_columns(["base_id", "source", "pristine_file"])
    rows = _join(rows, "base_id", base, [])
    of = dict(chains(plan))
    used = [of[name] for name in rows["forgery_id"].to_pylist()]
    _refuse_leaks(rows, used, dict(zip(groups["id"].to_pylist(), groups["identity_group"].to_pylist(), strict=True)))
    licence = dict(zip(pristine["id"].to_pylist(), pristine["licence"].to_pylist(), strict=True))
    joined = ["; ".join(dict.fromkeys(licence[image] or "unknown" for image in ids)) for ids in used]
    rows = rows.append_column("licence", pa.array(joined, pa.string()))
    credits = pristine.select(["id", "author", "licence", "licence_url", "url"])
    credits = credits.filter(pc.is_in(credits["id"], pa.array(sorted({i for ids in used for i in ids}), pa.string())))
    return rows, credits, left_out


def _join(rows: pa.Table, key: str, other: pa.Table, without: list[str]) -> pa.Table:
    """Adds the other table's columns, null where it has no row with the key; the order stays."""
    at = pc.index_in(rows[key], other[key].combine_chunks())
    for name in other.column_names:
        if name != key and name not in without:
            rows = rows.append_column(other.schema.field(name), other[name].take(at))
    return rows


def _descriptions(annotations: pa.Table, findings: pa.Table) -> tuple[pa.Table, dict[str, str]]:
    """One accepted annotation per forgery, and per annotated forgery how far it came ("accepted", or what is wrong).

    Of several accepted ones that of the better origin comes first, then the smallest id.
    """
    columns = ("annotation_id", "forgery_id", "answer", "origin")
    verdicts = dict(zip(*(findings[name].to_pylist() for name in ("annotation_id", "verdict")), strict=True))
    chosen: dict[str, tuple[int, str, int]] = {}
    states: dict[str, str] = {}
    for index, (name, forgery, answer, origin) in enumerate(
        zip(*(annotations[column].to_pylist() for column in columns), strict=True)
    ):
        verdict = verdicts.get(name)
        if answer == "described" and verdict == "accept":
            candidate = (ORIGINS.index(origin), name, index)
            chosen[forgery] = min(chosen.get(forgery, candidate), candidate)
            states[forgery] = "accepted"
        elif states.get(forgery) != "accepted":
            described = f"description: verdict {verdict}" if verdict else "description not audited yet"
            states[forgery] = described if answer == "described" else str(answer).replace("-", " ")
    order = pa.array(sorted(index for _, _, index in chosen.values()), pa.int64())
    return annotations.take(order), states


def chains(plan: pa.Table) -> Iterator[tuple[str, list[str]]]:
    """Per planned forgery the pristine images that are in it: its base, its donor, and those of what it starts from."""
    columns = (plan[name].to_pylist() for name in ("forgery_id", "base_id", "source_id", "parent_id"))
    of = {name: (base, source, parent) for name, base, source, parent in zip(*columns, strict=True)}
    for name in of:
        used: dict[str, None] = {}
        at: str | None = name
        for _ in range(len(of)):  # a chain that bites its tail ends too
            if at not in of:
                break
            base, source, at = of[at]
            used |= {image: None for image in (base, source) if image}
        yield name, list(used)


def _unusable(plan: pa.Table, made: pa.Table, pristine: pa.Table) -> dict[str, str]:
    """Planned forgeries that cannot be released, whatever was written about them, with the reason."""
    status = dict(zip(made["forgery_id"].to_pylist(), made["status"].to_pylist(), strict=True))
    usable = set(pristine.filter(pc.equal(pristine["status"], "ok"))["id"].to_pylist())
    reasons: dict[str, str] = {}
    for name, used in chains(plan):
        state = status.get(name)
        if state != "ok":
            reasons[name] = f"forgery {state}" if state else "not forged yet"
        elif not usable.issuperset(used):
            reasons[name] = "base or donor withdrawn or excluded"
    return reasons


def _refuse_leaks(rows: pa.Table, used: list[list[str]], group_of: dict[str, str]) -> None:
    """The card promises that no image and no identity is in two splits; here that is made sure."""
    from qc.dataset import crossings

    names, splits, groups = (rows[name].to_pylist() for name in ("forgery_id", "split", "identity_group"))
    members = (
        {group, *(group_of[image] for image in ids if image in group_of)}
        for group, ids in zip(groups, used, strict=True)
    )
    for kind, of in (("image", used), ("identity group", members)):
        for leak in crossings(zip(names, splits, of, strict=True)):
            raise StoreError(
                f"{kind} {leak.member} of {leak.forgery} is in {leak.other} and in {leak.split}: the splits leak",
                "the plan or the groups table was changed by hand; restore it from a backup",
            )


def _sizes(workspace: Workspace, rows: pa.Table, with_pristine: bool) -> NDArray[np.int64]:
    """Bytes of each row's stored images."""
    total = np.zeros(rows.num_rows, np.int64)
    for column in ("image_file", "mask_file", "part_map_file", *(("pristine_file",) if with_pristine else ())):
        for index, relative in enumerate(rows[column].to_pylist()):
            if relative is None:
                continue
            path = f"{workspace.root}/{relative}"
            try:
                total[index] += os.stat(path).st_size  # noqa: PTH116 - 300,000 times; a Path takes ten times as long
            except OSError as error:
                raise StoreError(f"{path}: {error.strerror}", "restore it from a backup") from error
    return total


# --- the folder -------------------------------------------------------------------------------------------------------


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A folder to write in, that becomes `path` if all goes well and disappears if not."""
    path.parent.mkdir(exist_ok=True)
    lock = os.open(path.parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError("another export of this workspace is running", "wait for it to end") from error
        for stale in path.parent.glob(f"{store.TEMPORARY}*"):  # of killed exports: nobody else holds the lock
            shutil.rmtree(stale)
        # One level down, so that nobody who lists the releases ever takes it for a finished one.
        with tempfile.TemporaryDirectory(prefix=store.TEMPORARY, dir=path.parent) as temporary:
            folder = Path(temporary, path.name)
            folder.mkdir()
            yield folder
            folder.rename(path)
    finally:
        os.close(lock)


@dataclass(slots=True)
class _Release:
    """Writes one release into a folder and remembers the size and the hash of every file."""

    workspace: Workspace
    folder: Path
    pool: ThreadPoolExecutor
    constants: dict[str, Any]
    with_pristine: bool
    json_layout: bool
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, rows: pa.Table, sizes: NDArray[np.int64], credits: pa.Table) -> None:
        """Writes all files; the manifest is the last but one, the list of sums the last."""
        columns = schema.TRIPLETS.append(schema.PRISTINE_IMAGE) if self.with_pristine else schema.TRIPLETS
        (self.folder / "data").mkdir()
        hashing: dict[str, Future[dict[str, Any]]] = {}
        with (
            Progress("export", rows.num_rows, "triplets") as progress,
            mmtt_json.Writer(self.folder / JSON_FOLDER) if self.json_layout else nullcontext() as layout,
        ):
            for split in SPLITS:
                chosen = np.nonzero(pc.equal(rows["split"], split).to_numpy())[0]
                for name, indices in _shards(split, chosen, sizes):
                    made = self._rows(rows.take(indices), layout, progress)
                    write_split(made, self.folder / name, columns)
                    hashing[name] = self.pool.submit(fingerprint, self.folder / name)
        for name, future in hashing.items():
            self.files[name] = future.result()
        if self.json_layout:
            for name in mmtt_json.FILES.values():
                self._fingerprint(f"{JSON_FOLDER}/{name}")
        self._texts(rows, columns, credits)

    def _rows(self, rows: pa.Table, layout: mmtt_json.Writer | None, progress: Progress) -> Iterator[Mapping[str, Any]]:
        """Rows of one shard with their images; the JSON layout is written on the way."""
        plain = (row for batch in rows.to_batches(max_chunksize=256) for row in batch.to_pylist())
        for row, record, files in _in_order(self.pool, self._load, plain):
            if layout is not None:
                layout.add(row["split"], record)
            self.files |= files
            yield row
            progress.step()

    def _load(self, row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]:
        """Reads and checks the files of one row, and writes those of the JSON layout; runs in a thread."""
        name = row["forgery_id"]
        if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
            raise StoreError(f"forgery id {name!r} is no file name", "the table was tampered with")
        if facts := json.loads(row["facts"] or "{}"):
            row["params"] = json.dumps(json.loads(row["params"] or "{}") | {"run": facts}, sort_keys=True)
            used = facts.get("checkpoints", {}).items()
            row["licence"] = "; ".join([row["licence"], *(f"{model}: {one['licence']}" for model, one in used)])
        if _OUTSIDE_PATH.search(row["params"] or ""):
            raise StoreError(
                f"params of {name} name a path of this machine: {row['params']}",
                "the method must not record paths",
            )
        image = self._read(row["image_file"], row["image_crc"])
        mask = self._read(row["mask_file"], row["mask_crc"])
        row |= self.constants | {
            "image": {"bytes": image, "path": f"forged/{name}.png"},
            "mask": {"bytes": mask, "path": f"masks/{name}.png"},
            "sides": [parts.side(part) for part in row["parts"] or []],
        }
        if row["part_map_file"]:
            part_map = self._read(row["part_map_file"], row["part_map_crc"])
            row["part_map"] = {"bytes": part_map, "path": f"parts/{name}.png"}
        if self.with_pristine:
            pristine = self._read(row["pristine_file"], None)
            row["pristine"] = {"bytes": pristine, "path": f"pristine/{row['base_id']}.png"}
        if not self.json_layout:
            return row, {}, {}
        record = mmtt_json.record(row, row["source"])
        files = {}
        for key, data in (("img_path", image), ("mask_path", mask)):
            relative = f"{JSON_FOLDER}/{record[key]}"
            path = self.folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            files[relative] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return row, record, files

    def _read(self, relative: str, crc: int | None) -> bytes:
        path = self.workspace.resolve(relative)
        try:
            data = images.read_bytes(path)
        except BadImage as error:
            raise StoreError(f"{path}: {error.message}", "restore it from a backup") from error
        if crc is not None and isal_zlib.crc32(data) != crc:
            raise StoreError(
                f"{path} is not the file that was stored (CRC-32 {isal_zlib.crc32(data):08x}, was {crc:08x})",
                "restore it from a backup",
            )
        return data

    def _texts(self, rows: pa.Table, columns: pa.Schema, credits: pa.Table) -> None:
        """Attribution, card, manifest and sums."""
        with (self.folder / "attribution.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*credits.column_names, "changes"])
            for batch in credits.to_batches(max_chunksize=4096):
                writer.writerows([*row.values(), "modified: resized and forged"] for row in batch.to_pylist())
        licences = Counter(licence or "unknown" for licence in credits["licence"].to_pylist())
        version = self.constants["dataset_version"]
        text = card.text(self.workspace.recipe, version, rows, licences, columns, json_layout=self.json_layout)
        (self.folder / "README.md").write_text(text, encoding="utf-8")
        for name in ("attribution.csv", "README.md"):
            self._fingerprint(name)
        counts = Counter(rows["split"].to_pylist())
        manifest = {
            "schema_version": self.constants["schema_version"],
            "dataset": self.constants["dataset"],
            "version": version,
            "counts": {split: counts[split] for split in SPLITS if counts[split]},
            "described": rows.num_rows - rows["description"].null_count,
            "files": dict(sorted(self.files.items())),
        }
        with (self.folder / MANIFEST).open("w", encoding="utf-8", newline="\n") as file:
            json.dump(manifest, file, indent=1)
        self._fingerprint(MANIFEST)
        with (self.folder / SUMS).open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{facts['sha256']}  {name}\n" for name, facts in sorted(self.files.items()))

    def _fingerprint(self, name: str) -> None:
        self.files[name] = fingerprint(self.folder / name)


def _shards(split: str, chosen: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[tuple[str, NDArray[np.int64]]]:
    """File name and row numbers of each shard of a split, all of about the same size."""
    if not len(chosen):
        return []
    ends = np.cumsum(sizes[chosen])
    wanted = -(-int(ends[-1]) // SHARD_BYTES)
    number = np.unique((ends - sizes[chosen]) * wanted // ends[-1], return_inverse=True)[1]
    pieces = np.split(chosen, np.nonzero(np.diff(number))[0] + 1)
    return [(f"data/{split}-{i:05d}-of-{len(pieces):05d}.parquet", piece) for i, piece in enumerate(pieces)]


def _in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
    """Results in the order of the tasks, few of which are under way at any time."""
    pending: deque[Future[R]] = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(work, task))
            if len(pending) > 16:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
