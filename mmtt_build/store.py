"""Tables as immutable Parquet shards, and files that appear whole or not at all.

A table is a folder of shards. A writer writes each shard under a temporary name and renames it into
place, so a reader sees a shard completely or not at all, whenever the writer is killed. Readers see the
union of the shards; of several rows with one key the one in the latest shard counts. Many small shards can be merged
(`Table.merge`) while others read and write.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmtt_build.errors import StoreError

TEMPORARY = ".tmp-"
"""Prefix of files that are being written; readers ignore them."""
MANY, SMALL = 64, 1 << 18
"""So many shards one after another, each of at most so many bytes, are merged into one."""
SETTLED_S = 600.0
"""Age of a shard, in seconds, from which on no writer has a name for an earlier one that is not in place yet, and no
reader has a list without it; both take seconds at most."""
_MERGED = "_merged"
_SOURCES = b"mmtt.merged"


def write_file(path: Path, data: bytes, durable: bool = False) -> None:
    """Writes a file under a temporary name and renames it into place, making its folder if needed.

    Args:
        path: final path.
        data: content.
        durable: flush to the disk before the rename, so that a power cut cannot leave an empty file.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    try:
        try:
            file = temporary.open("wb")
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = temporary.open("wb")
        with file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class Table:
    """One table of a workspace.

    Args:
        folder: where the shards lie; made at the first write.
        schema: Arrow schema; the first column is the key.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder = folder
        self.schema = schema
        self.key: str = schema.names[0]

    def shards(self) -> list[Path]:
        """Finished shards, earliest first."""
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.glob("*.parquet") if not p.name.startswith(TEMPORARY))

    def append(self, rows: Sequence[Mapping[str, Any]] | pa.Table) -> None:
        """Writes one shard; an empty one is not written.

        Args:
            rows: records by column name (absent columns become null), or a table of this schema.
        """
        if not len(rows):  # before Arrow turns them into a table, for which it imports pandas where that is installed
            return
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=self.schema)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Names sort by time of writing; the random tail keeps apart what two processes write in one nanosecond.
        # Never before a shard that is there already, even if this machine's clock is behind: later rows supersede.
        newest = max((int(p.name[:20]) for p in self.shards() if p.name[:20].isdecimal()), default=0)
        self._write(table, f"{max(time.time_ns(), newest + 1):020d}-{secrets.token_hex(4)}.parquet")

    def _write(self, table: pa.Table, name: str) -> None:
        temporary = self.folder / f"{TEMPORARY}{name}"
        try:
            pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(self.folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def read(self, columns: Iterable[str] | None = None) -> pa.Table:
        """The current rows, ordered by key.

        Raises:
            StoreError: a shard is damaged; the message names it.
        """
        names = list(columns) if columns is not None else self.schema.names
        wanted = pa.schema([self.schema.field(name) for name in dict.fromkeys([self.key, *names])])
        return self._rows(wanted).select(names)

    def _rows(self, wanted: pa.Schema) -> pa.Table:
        table = pa.concat_tables([_read(shard, wanted) for shard in self.shards()] or [wanted.empty_table()])
        return _latest(table, self.key)

    def merge(self, settled_s: float = SETTLED_S) -> tuple[dict[Path, list[Path]], list[Path]]:
        """Makes one shard of `MANY` small ones, if there are so many, and deletes what was merged long ago.

        The new shard lies where the last of its sources does, and says which they are. These stay until it is settled,
        for of rows with one key one counts: so it can be killed at any instant, and whoever has just listed the shards
        finds them all. Of one table one process at a time does this; any number may read and write.

        Args:
            settled_s: age of what is merged or deleted.

        Returns:
            The shard that was made, if any, with its sources, and those that are gone.

        Raises:
            StoreError: a shard is damaged; the message names it.
        """
        shards = self.shards()
        latest = time.time() - settled_s
        gone: list[Path] = []
        pending: set[Path] = set()
        for shard in shards:
            if shard.stem.endswith(_MERGED):
                sources = set(_sources(shard)).intersection(shards)
                if shard.stat().st_mtime > latest:
                    pending |= sources
                else:
                    gone += sorted(sources)
        for shard in gone:
            shard.unlink(missing_ok=True)
        run: list[Path] = []
        for shard in shards:
            if shard in pending or shard in gone:
                continue
            about = shard.stat()
            settled = shard.name[:20].isdecimal() and about.st_mtime <= latest and about.st_size <= SMALL
            whole = settled and set(_schema(shard).names) <= set(self.schema.names)  # else a later release's columns go
            run = [*run, shard] if whole else []
            if len(run) == MANY:
                return self._merge(run), gone
        return {}, gone

    def _merge(self, sources: list[Path]) -> dict[Path, list[Path]]:
        table = _latest(pa.concat_tables([_read(shard, self.schema) for shard in sources]), self.key)
        said = json.dumps([shard.name for shard in sources])
        name = f"{sources[-1].stem}{_MERGED}.parquet"  # sorts after its last source, and before whatever came then
        self._write(table.replace_schema_metadata({_SOURCES: said}), name)
        return {self.folder / name: sources}

    def keys(self, **equals: str) -> pa.ChunkedArray:
        """Keys of the current rows whose columns equal the given values."""
        table = self.read([self.key, *equals])
        for name, value in equals.items():
            table = table.filter(pc.equal(table[name], value))
        return table[self.key]


class KeptTable(Table):
    """A table for a process that reads it again and again: what was read stays in memory, and only new shards are read.

    Opening a shard takes some milliseconds, and a day of small ones is thousands of them.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        super().__init__(folder, schema)
        self._kept: dict[tuple[str, ...], tuple[list[Path], pa.Table]] = {}

    def _rows(self, wanted: pa.Schema) -> pa.Table:
        shards = self.shards()
        seen, rows = self._kept.get(tuple(wanted.names), ([], wanted.empty_table()))
        if shards[: len(seen)] != seen:  # one is gone, or another came late and lies between them
            seen, rows = [], wanted.empty_table()
        if fresh := shards[len(seen) :]:
            rows = _latest(pa.concat_tables([rows, *(_read(shard, wanted) for shard in fresh)]), self.key)
            rows = rows.combine_chunks()
        self._kept[tuple(wanted.names)] = shards, rows
        return rows

    def merge(self, settled_s: float = SETTLED_S) -> tuple[dict[Path, list[Path]], list[Path]]:
        """As `Table.merge`; what was read of the sources is not read again."""
        made, gone = super().merge(settled_s)
        for columns, (seen, rows) in self._kept.items():
            known = {shard for shard, sources in made.items() if set(sources) <= set(seen)}
            self._kept[columns] = sorted(known.union(seen).difference(gone)), rows
        return made, gone


class SomeRows(Table):
    """A table for which all rows but some are not there: of shards that hold none of these only the keys are read.

    Args:
        folder: where the shards lie.
        schema: Arrow schema.
        among: keys of the rows.
    """

    def __init__(self, folder: Path, schema: pa.Schema, among: Iterable[str]) -> None:
        super().__init__(folder, schema)
        self._among = pa.array(sorted(among), pa.string())

    def _rows(self, wanted: pa.Schema) -> pa.Table:
        some = (_read(shard, wanted, self._among) for shard in self.shards())
        return _latest(pa.concat_tables([wanted.empty_table(), *some]), self.key)


def _read(shard: Path, wanted: pa.Schema, among: pa.Array | None = None) -> pa.Table:
    """Columns of a shard, the key first; others that it lacks are null. With `among` only the rows of these keys.

    File by file rather than as a dataset: pyarrow.dataset imports pandas where that is installed, for a second or two.
    """
    try:
        with pq.ParquetFile(shard, page_checksum_verification=True) as file:
            names = [n for n in wanted.names if n in file.schema_arrow.names]
            if wanted.names[0] not in names:
                raise pa.ArrowInvalid(f"it has no column {wanted.names[0]}")
            if among is None:
                there = file.read(names, use_threads=False)
            else:
                chosen = pc.is_in(file.read(names[:1], use_threads=False)[0], among)
                if not pc.any(chosen).as_py():
                    return wanted.empty_table()
                there = file.read(names, use_threads=False).filter(chosen)
        absent = pa.nulls(len(there))
        columns = [there[name] if name in there.column_names else absent for name in wanted.names]
        return pa.table(columns, wanted.names).cast(wanted)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(shard, error) from error


def _sources(shard: Path) -> list[Path]:
    """Of a merged shard what it was made of."""
    return [shard.with_name(name) for name in json.loads((_schema(shard).metadata or {}).get(_SOURCES, "[]"))]


def _schema(shard: Path) -> pa.Schema:
    try:
        return pq.read_schema(shard)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(shard, error) from error


def _damaged(shard: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{shard} is damaged: {error}", "delete it and run the same command again: its rows are made anew"
    )


def _latest(table: pa.Table, key: str) -> pa.Table:
    """Rows sorted by key; of equal keys the last one."""
    order = pc.sort_indices(table, sort_keys=[(key, "ascending")])  # stable, so shard order survives among equals
    table = table.take(order)
    keys = table[key].combine_chunks()
    if len(keys) < 2:
        return table
    last = pc.not_equal(keys[:-1], keys[1:])
    if pc.all(last).as_py():  # nothing is superseded; what follows would import pandas where that is installed, 2 s
        return table
    return table.filter(pa.concat_arrays([last, pa.array([True])]))


class Appender:
    """Collects rows of a table and writes them as shards now and then, and when it is closed.

    A shard is written once 2 s, or 1 % of the run so far, have passed: a killed run loses at most that, and
    a week-long run still leaves some hundred shards instead of a hundred thousand.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self._rows: list[Mapping[str, Any]] = []
        self._started = self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        """Nothing is opened before the first row."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Writes what is left, also when the run ends in an error or an interrupt."""
        self.flush()

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes a row whose files are in place already."""
        self._rows.append(row)
        now = time.monotonic()
        if now - self._flushed > max(2.0, 0.01 * (now - self._started)):
            self.flush()

    def flush(self) -> None:
        """Writes what was collected so far as a shard."""
        self.table.append(self._rows)
        self._rows = []
        self._flushed = time.monotonic()
