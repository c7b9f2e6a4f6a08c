"""The MMTT-JSON layout: the files that the published MMTT and its baseline use, beside the Parquet triplets.

    train-mutilabel.json  eval-mutilabel.json  test-mutilabel.json     (the spelling is the published one)
    dataset/celeb512/<method>/images/<forgery_id>.png                  and .../masks/<forgery_id>.png
    dataset/FFHQ512/...   dataset/face_attribute_image/...             attribute edits of any source
    dataset/<source>512/...                                            sources that the published MMTT does not have

`img_path` and `mask_path` begin with `dataset/`: they are relative to the folder that holds the JSON files. Readers of
the layout tell the kind of forgery by the prefix of `image_id`, and take every unknown prefix for an attribute edit:

    family               prefix
    inpaint-diffusion    sd
    inpaint-transformer  mat
    face-swap            e4s (every method: for a reader of this layout the prefix means "face swap")
    attribute-edit       the attribute, e.g. surprised_...; the method's name where it has no attribute
    inpaint-classical    the method's name: a published prefix would claim a network that was never used
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import ijson

from mmtt_build.errors import ReleaseError
from mmtt_build.parts import LABELS
from mmtt_build.seeds import seed_for

FILES = {"train": "train-mutilabel.json", "val": "eval-mutilabel.json", "test": "test-mutilabel.json"}
"""File name per split."""

PREFIXES = {"inpaint-diffusion": "sd", "inpaint-transformer": "mat", "face-swap": "e4s"}
"""Prefix of `image_id` per family; see the module's table for the other families."""

_FOLDERS = {"celebamask-hq": "celeb512", "ffhq": "FFHQ512"}
_FIRST_ID = 10**17
"""Instance ids have 18 digits and no leading zero: each fits 64 bits, and two of 152,217 are equal with p = 1e-8."""


def record(row: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The JSON record of one triplet.

    Args:
        row: columns of `schema.TRIPLETS`; the image columns are not read.
        source: source dataset of the base image, e.g. "ffhq".

    Returns:
        `image_id`, `instance_id`, `img_path`, `mask_path`, `caption`, `multilabel`, and `attribute` on attribute edits.
        A row without a description has an empty caption, which mentions none of the 21 labels.
    """
    edit = row["family"] == "attribute-edit"
    attribute = str(json.loads(row["params"] or "{}").get("attribute") or row["method"])
    digits = str(_FIRST_ID + seed_for("mmtt-json", row["forgery_id"]) % (9 * _FIRST_ID))
    folder = "face_attribute_image" if edit else _FOLDERS.get(source, f"{source}512")
    made = {
        "image_id": f"{_prefix(row, attribute if edit else row['method'])}_{digits}",
        "instance_id": digits,
        "img_path": f"dataset/{folder}/{row['method']}/images/{row['forgery_id']}.png",
        "mask_path": f"dataset/{folder}/{row['method']}/masks/{row['forgery_id']}.png",
        "caption": row["description"] or "",
        "multilabel": list(row["labels"] or [0] * len(LABELS)),
    }
    return made | {"attribute": attribute} if edit else made


def _prefix(row: Mapping[str, Any], own: str) -> str:
    if published := PREFIXES.get(row["family"]):
        return published
    # "mature" would be read as a transformer inpainting.
    return f"edit-{own}" if own.startswith(tuple(PREFIXES.values())) else own


class Writer:
    """Writes the three lists record by record, so that none is ever held whole. Use it as a context.

    Args:
        folder: where the JSON files go; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, IO[str]] = {}
        self._empty = set(FILES)

    def __enter__(self) -> Self:
        """Opens the files; a split without rows becomes an empty list."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for split, name in FILES.items():
            self._files[split] = (self.folder / name).open("w", encoding="utf-8", newline="\n")
            self._files[split].write("[")
        return self

    def add(self, split: str, made: Mapping[str, Any]) -> None:
        """Appends one record to its split's list."""
        self._files[split].write("\n" if split in self._empty else ",\n")
        self._files[split].write(json.dumps(made, ensure_ascii=False))
        self._empty.discard(split)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the lists and closes the files."""
        for file in self._files.values():
            with file:
                file.write("\n]\n")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Records of one JSON file, one at a time.

    Raises:
        ReleaseError: the file is missing or is no list of records.
    """
    try:
        with path.open("rb") as file:
            for made in ijson.items(file, "item"):
                if not isinstance(made, dict):
                    raise ReleaseError(f"{path}: holds {made!r} where a record belongs")
                yield made
    except (OSError, ijson.JSONError) as error:
        raise ReleaseError(f"{path} cannot be read: {error}") from error
