"""FFHQ: 70,000 aligned faces at 1024 px, with landmarks, authors and licences in one large JSON file.

Accepted layouts: `images1024x1024/<id - id mod 1000>/<5 digits>.png`, one flat folder, or resized copies of either.
`ffhq-dataset-v2.json` (255 MB) is streamed: memory stays that of one entry.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ijson

from mmtt_build.errors import SourceError
from mmtt_build.records import SIZE
from mmtt_build.sources.base import Item, Landmarks, Options, Source, numbered

METADATA = "ffhq-dataset-v2.json"
UNKNOWN_LICENCE = "FFHQ: per-image licence unknown (no metadata file)"
GLASSES = {"None": False, "Normal": True, "Dark": True}
"""What FFHQ-Aging's column `glasses` says."""


class FFHQ(Source):
    """A folder with FFHQ images in it, at any depth."""

    def __init__(self, root: Path, options: Options) -> None:
        super().__init__(root, options)
        folder = next(p for p in (root / "images1024x1024", root) if p.is_dir())
        self.images = numbered(folder, (".png", ".jpg", ".jpeg", ".webp"), recursive=True)
        if not self.images:
            raise SourceError(f"{root} has no image named by its number, such as 00000.png", "name the FFHQ folder")
        self.metadata = root / METADATA
        self.too_young: dict[int, str] = {}
        self.glasses: dict[int, bool] = {}
        if options.aging_csv:
            self._read_aging_labels(options.aging_csv, options.min_age)

    def __len__(self) -> int:
        """Number of images on disk."""
        return len(self.images)

    def items(self) -> Iterator[Item]:
        """Images in the order of the metadata, then those it does not name."""
        left = dict(self.images)
        if self.metadata.is_file():
            try:
                with self.metadata.open("rb") as file:
                    for key, entry in ijson.kvitems(file, "", use_float=True):
                        if key.isdecimal() and (path := left.pop(int(key), None)):
                            yield self._item(int(key), path, entry if isinstance(entry, dict) else {})
            except ijson.JSONError as error:
                what = str(error).partition("\n")[0]  # the lines after it draw an arrow
                raise SourceError(
                    f"{self.metadata} is damaged: {what}", "download it again (md5 425ae20f...)"
                ) from error
        for number, path in left.items():
            yield self._item(number, path, {})

    def _item(self, number: int, path: Path, entry: Mapping[str, Any]) -> Item:
        meta = _dict(entry.get("metadata"))
        category = {"training": "train", "validation": "val"}.get(str(entry.get("category")))
        landmarks, problem = _landmarks(_dict(entry.get("image")), self.glasses.get(number))
        if not entry:
            problem = f"not in {METADATA}: no landmarks, no part map" if self.metadata.is_file() else f"no {METADATA}"
        return Item(
            name=f"{number:05d}",
            path=path,
            parts=landmarks,
            official_split=category,
            licence=_text(meta.get("license")) or self.options.licence or UNKNOWN_LICENCE,
            licence_url=_text(meta.get("license_url")),
            author=_text(meta.get("author")),
            url=_text(meta.get("photo_url")),
            excluded=self.excluded_by_user(str(number), path.stem, path.name) or self.too_young.get(number, ""),
            note=problem,
        )

    def _read_aging_labels(self, path: Path, min_age: int) -> None:
        """Notes who is too young and who wears glasses, from FFHQ-Aging's `ffhq_aging_labels.csv`.

        Too young are the age groups that begin below `min_age`. The column `glasses` may be absent.
        """
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                for row in csv.DictReader(file):
                    number, group = int(row["image_number"]), row["age_group"].strip()
                    if int(group.split("-")[0]) < min_age:
                        self.too_young[number] = f"age group {group} begins below {min_age}"
                    if (worn := row.get("glasses")) in GLASSES:
                        self.glasses[number] = GLASSES[worn]
        except FileNotFoundError as error:
            raise SourceError(f"{path} does not exist", "give the path of ffhq_aging_labels.csv") from error
        except (KeyError, TypeError, AttributeError, ValueError, csv.Error) as error:  # a short row has None in it
            raise SourceError(
                f"{path}: {error!r}", "needs the columns image_number and age_group (0-2 ... 70-120)"
            ) from error


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _landmarks(image: Mapping[str, Any], glasses: bool | None) -> tuple[Landmarks | None, str]:
    """Landmarks scaled to 512 px, or None and why."""
    points = image.get("face_landmarks")
    size = image.get("pixel_size") or [1024, 1024]
    try:
        scale = SIZE / float(size[0])
        flat = tuple(float(c) * scale for x, y in points for c in (x, y))  # type: ignore[union-attr]
        if not 0 < scale <= SIZE:
            raise ValueError(f"pixel_size {size}")
    except (TypeError, ValueError, LookupError, ArithmeticError):
        return None, f"no usable face_landmarks in {METADATA}: no part map"
    if len(flat) != 136 or not all(-SIZE <= c <= 2 * SIZE for c in flat):
        return None, f"{len(flat) // 2} face_landmarks in {METADATA}, needs 68 near the frame: no part map"
    return Landmarks(flat, glasses), ""
