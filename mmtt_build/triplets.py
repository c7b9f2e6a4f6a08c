"""Triplets in Parquet: the writer of one file, and the reader that gives the rows of a release as arrays or tensors.

Needs the base install only; torch is imported when tensors are asked for, and not before.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmtt_build import images, masks, schema
from mmtt_build.errors import BadImage, ReleaseError, StoreError
from mmtt_build.parts import LABELS

ROW_GROUP_BYTES = 16_000_000
"""Images and masks per row group: 40 rows of 430 kB. Reading one such group for one random row takes some 4 ms."""

Item = dict[str, Any]

_COLUMNS = ["forgery_id", "method", "image", "mask", "description", "labels"]


def instruction(labels: list[int]) -> str:
    """The instruction of the MMTT paper (its [R] is the list of labels) for a 21-vector of 0 and 1.

    Without a label the sentence has no list.
    """
    areas = ", ".join(name for name, named in zip(LABELS, labels, strict=True) if named)
    if not areas:
        return "Facial areas may be manipulated by AI. Please describe the specific issues in these areas."
    return f"These facial areas may be manipulated by AI: {areas}. Please describe the specific issues in these areas."


class Triplets:
    """A map-style dataset over one split of a release, as `torch.utils.data.DataLoader` takes it.

    An item is a dict:

        id           str, the forgery id
        method       str
        image        (512, 512, 3) uint8 RGB; with torch (3, 512, 512) float32 in [0, 1]
        mask         (512, 512) bool, true where forged; with torch (1, 512, 512) float32, 0 or 1
        text         str, the description; "" where there is none
        described    bool, whether there is a description
        labels       (21,) uint8, 0 or 1, order of `parts.LABELS`, all 0 without a description; with torch float32
        instruction  str, what the language model is asked

    Reading by index costs one row group (16 MB, some 4 ms) where it is not the one that was read last: shuffled
    reading of large data goes faster in blocks of neighbours. Objects can be pickled and used in forked processes:
    each opens the files for itself.

    Args:
        release: folder of the release.
        split: "train", "val" or "test".
        transform: called with each item; its result is returned instead.
        torch: whether images, masks and labels are tensors.

    Raises:
        ReleaseError: the folder has no such split, or a file of it is damaged.
    """

    def __init__(
        self,
        release: str | Path,
        split: str = "train",
        *,
        transform: Callable[[Item], Any] | None = None,
        torch: bool | None = None,
    ) -> None:
        self.split = split
        self.transform = transform
        self.torch = bool(torch)
        folder = Path(release) / "data"
        self._shards = sorted(folder.glob(f"{split}-*.parquet"))
        if not self._shards:
            known = sorted({path.name.split("-")[0] for path in folder.glob("*.parquet")})
            raise ReleaseError(
                f"{release} has no split {split!r}",
                f"it has {', '.join(known)}" if known else "name a release folder",
            )
        self._groups: list[tuple[int, int]] = []
        self._starts = [0]
        for number, path in enumerate(self._shards):
            try:
                footer = pq.read_metadata(path)
            except (pa.ArrowException, OSError) as error:
                raise ReleaseError(f"{path} cannot be read: {error}", f"mmtt verify {release}") from error
            for group in range(footer.num_row_groups):
                self._groups.append((number, group))
                self._starts.append(self._starts[-1] + footer.row_group(group).num_rows)
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._file: tuple[int, pq.ParquetFile] | None = None
        self._cached: tuple[int, pa.Table] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_cached": None}

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Any:
        row = self._row(index)
        try:
            image = images.decode_stored(row["image"]["bytes"])
            mask = masks.from_grey(images.decode_stored(row["mask"]["bytes"], grey=True))
        except BadImage as error:
            raise ReleaseError(f"{row['forgery_id']}: {error.message}", "mmtt verify tells what else") from error
        labels = row["labels"] or [0] * len(LABELS)
        item: Item = {
            "id": row["forgery_id"],
            "method": row["method"],
            "image": image,
            "mask": mask,
            "text": row["description"] or "",
            "described": row["description"] is not None,
            "labels": np.array(labels, np.uint8),
            "instruction": instruction(labels),
        }
        if self.torch:
            item |= _tensors(item)
        return item if self.transform is None else self.transform(item)

    def _row(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"triplet {index} of {len(self)}")
        index %= len(self)
        if self._process != os.getpid():
            self._forget()
        group = bisect_right(self._starts, index) - 1
        if self._cached is None or self._cached[0] != group:
            self._cached = group, self._read(*self._groups[group])
        row: dict[str, Any] = self._cached[1].slice(index - self._starts[group], 1).to_pylist()[0]
        return row

    def _read(self, shard: int, group: int) -> pa.Table:
        try:
            if self._file is None or self._file[0] != shard:
                self._file = shard, pq.ParquetFile(self._shards[shard])
            # Arrow's own threads do not survive a fork, and a loader has processes enough.
            return self._file[1].read_row_group(group, columns=_COLUMNS, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(f"{self._shards[shard]} cannot be read: {error}", "mmtt verify") from error


def _tensors(item: Item) -> Item:
    import torch

    return {
        "image": torch.from_numpy(item["image"]).permute(2, 0, 1).contiguous().float().div_(255),
        "mask": torch.from_numpy(item["mask"])[None].float(),
        "labels": torch.from_numpy(item["labels"]).float(),
    }


def features(columns: pa.Schema) -> dict[str, Any]:
    """The Hugging Face features of an Arrow schema: image structs as `Image`, everything else as it is."""
    return {field.name: _feature(field.type) for field in columns}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind.equals(schema.PRISTINE_IMAGE.type):
        return {"_type": "Image"}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "Sequence"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "Sequence"}
    return {"dtype": "float32" if pa.types.is_float32(kind) else str(kind), "_type": "Value"}


def write_split(rows: Iterable[Mapping[str, Any]], path: Path, columns: pa.Schema = schema.TRIPLETS) -> int:
    """Writes one Parquet file of triplets; holds one row group at a time.

    Image bytes are stored as they are (PNG does not compress), everything else as zstd. Pages have checksums and an
    index. The Arrow schema carries the Hugging Face features, so that `datasets` decodes the images.

    Args:
        rows: by column name; image columns as {"bytes": bytes, "path": str}.
        path: of the file.
        columns: `schema.TRIPLETS`, perhaps with more columns.

    Returns:
        Number of rows.

    Raises:
        StoreError: a column that must not be null is.
    """
    leaves = [leaf for column in columns for leaf in _leaves(column)]
    plain = [leaf for leaf in leaves if leaf.endswith(".bytes")]
    coded = [leaf for leaf in leaves if leaf not in plain]
    pictures = [column.name for column in columns if pa.types.is_struct(column.type)]
    # `datasets` looks the features up by field and takes a column that is not nullable for another one.
    nullable = pa.schema([column.with_nullable(True) for column in columns])
    described = nullable.with_metadata({"huggingface": json.dumps({"info": {"features": features(columns)}})})
    required = [column.name for column in columns if not column.nullable]
    written = 0
    with pq.ParquetWriter(
        path,
        described,
        compression={leaf: "none" if leaf in plain else "zstd" for leaf in leaves},
        use_dictionary=coded,
        write_statistics=coded,
        write_page_index=True,
        write_page_checksum=True,
    ) as writer:
        for group in _by_bytes(rows, pictures):
            table = pa.Table.from_pylist(group, described)
            for name in required:
                if table[name].null_count:
                    raise StoreError(f"{path}: a row without {name}", "the tables were changed by hand")
            writer.write_table(table, row_group_size=len(group))
            written += len(group)
    return written


def _leaves(column: pa.Field) -> list[str]:
    """Parquet paths of the leaves of a column."""
    if pa.types.is_struct(column.type):
        return [f"{column.name}.{child.name}" for child in column.type]
    nested = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
    return [f"{column.name}.list.element" if nested else column.name]


def _by_bytes(rows: Iterable[Mapping[str, Any]], pictures: list[str]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(row[name]["bytes"]) for name in pictures if row.get(name))
        if size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
