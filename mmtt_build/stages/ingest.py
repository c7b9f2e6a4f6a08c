"""Ingest: source images become 512 px PNGs, part maps and rows; then identity groups and their splits.

A bad file becomes a row with status "failed" and a reason, and the run goes on. Images that have a row are
skipped, so a killed ingest continues where it stopped.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import imagehash
import numpy as np
from PIL import Image as PillowImage

from mmtt_build import images, parallel, store
from mmtt_build.errors import BadImage, ConfigError
from mmtt_build.progress import Progress
from mmtt_build.registry import SOURCES
from mmtt_build.sources.base import Item, Options, describe, inside
from mmtt_build.stages.groups import BRIDGE, group
from mmtt_build.workspace import Workspace

HASH_SIDE = 16
"""pHash of 16 x 16 coefficients. On 42 aligned faces unrelated ones differed in 84 bits or more of 256, and copies
(JPEG 50, half size, brightness +15 %, shift of 4 px, zoom of 2 %) in 34 or fewer; 64 bits separate 16 from 10."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of one ingest run."""

    source: str
    known: int
    ok: int
    excluded: int
    failed: int
    reasons: Counter[str]


def ingest(
    workspace: Workspace,
    source: str,
    root: Path,
    options: Options,
    *,
    label: str = "",
    workers: int = 0,
    limit: int = 0,
    retry_failed: bool = False,
    readmit: bool = False,
    analysis_follows: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Reads one source folder into the workspace.

    Args:
        workspace: where rows and images go.
        source: registered adapter name.
        root: the folder.
        options: what the user said about it.
        label: prefix of the ids, by default the adapter's name; tells two folders of one kind apart.
        workers: processes; 0 takes all cores.
        limit: at most so many new images; 0 takes all.
        retry_failed: images with a failed row are tried again.
        readmit: images that an earlier run left out are taken in if no rule leaves them out now.
        analysis_follows: leave the identity groups to `analyse`, which comes next and knows the faces.
        dry_run: counts what is new and writes nothing.

    Returns:
        Counts of new rows by status.

    Raises:
        SourceError: the folder does not have the source's layout.
        ConfigError: unknown source, a label that does not fit a file name, or a workspace inside the source folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}|", label):
        raise ConfigError(f"label {label!r}", "letters, digits, '.', '_', '-', at most 64")
    if workspace.root.resolve().is_relative_to(root.resolve()):
        raise ConfigError(
            f"the workspace {workspace.root} lies inside the source folder {root}, which would read its own images",
            "move the workspace out of it",
        )
    adapter = SOURCES.get(source)(root, options)
    label = label or source
    table = workspace.pristine.read(["id", "status", "reason"])
    columns = (table[name].to_pylist() for name in table.column_names)
    earlier = {name: (status, reason) for name, status, reason in zip(*columns, strict=True)}
    known = 0

    def unread() -> Iterator[Item]:
        nonlocal known
        for item in adapter.items():
            status, reason = earlier.get(f"{label}-{item.name}", (None, None))
            # A rule may leave out what was usable (an image was withdrawn, say). The other way needs a word from
            # the user: a run without the exclusion list must not bring withdrawn images back.
            ruled_out = status == "ok" and bool(item.excluded)
            let_in = readmit and status == "excluded" and not item.excluded and not str(reason).startswith(BRIDGE)
            if status is None or ruled_out or let_in or (retry_failed and status == "failed"):
                yield item
            else:
                known += 1

    fresh = islice(unread(), limit or None)
    if dry_run:
        new = Counter("excluded" if item.excluded else "ok" for item in fresh)
        return Summary(source, known, new["ok"], new["excluded"], 0, Counter())
    reasons: Counter[str] = Counter()
    left = max(len(adapter) - sum(name.startswith(f"{label}-") for name in earlier), 0)
    total = None if retry_failed or readmit else min(limit or left, left)
    work = partial(_ingest_item, workspace.root, root, label, source)
    with Progress(f"ingest {label}", total, "images") as progress, store.Appender(workspace.pristine) as rows:
        for row in parallel.unordered(work, fresh, workers or parallel.cores()):
            rows.add(row)
            progress.step(row["status"], row["reason"] if row["status"] != "ok" else "")
            if row["status"] != "ok":
                reasons[row["reason"]] += 1
        counts = Counter(key.split(":")[0] for key in progress.outcomes.elements())
    if not analysis_follows:
        group(workspace)
    return Summary(source, known, counts["ok"], counts["excluded"], counts["failed"], reasons)


def _ingest_item(workspace_root: Path, source_root: Path, label: str, source: str, item: Item) -> dict[str, Any]:
    """Does all for one image, in a worker process; every outcome is a row."""
    name = f"{label}-{item.name}"
    row: dict[str, Any] = {
        "id": name,
        "source": source,
        "status": "ok",
        "reason": item.note or None,
        "identity": item.identity,
        "official_split": item.official_split,
        "licence": item.licence,
        "licence_url": item.licence_url,
        "author": item.author,
        "url": item.url,
        "original": _printable(item.path.relative_to(source_root).as_posix()),
    }
    if item.excluded:
        return row | {"status": "excluded", "reason": item.excluded}
    try:
        data = images.read_bytes(inside(source_root, item.path))
        decoded = images.decode_rgb(data)
        image = images.to_size(decoded)
        labels = item.parts.load(source_root, image) if item.parts else None
        facts = describe(labels, image) if labels is not None else {}
    except BadImage as error:
        return row | {"status": "failed", "reason": str(error)}
    workspace = Workspace(workspace_root)
    files = {"image": (workspace.image_path("pristine", name), images.encode_rgb(image))}
    if labels is not None:
        files["parts"] = (workspace.image_path("parts", name), images.encode_grey(labels))
    for path, content in files.values():
        store.write_file(workspace_root / path, content)
    if item.parts and labels is None:
        row["reason"] = "no part mask file: only methods that need no parts can use it"
    return (
        row
        | facts
        | {column: path for column, (path, _) in files.items()}
        | {
            "original_size": decoded.shape[0],
            "content_hash": hashlib.blake2b(data, digest_size=16).hexdigest(),
            "phash": perceptual_hash(image),
            "road": images.ROAD,
            "parts_origin": item.parts.origin if item.parts and labels is not None else None,
            "landmarks": getattr(item.parts, "xy", None),
        }
    )


def _printable(name: str) -> str:
    """A file name with the bytes that are not UTF-8 spelled out, since tables hold text."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def perceptual_hash(image: images.Image) -> bytes:
    """256-bit pHash, as 32 bytes, of (512, 512, 3) uint8 RGB."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA)
    bits = imagehash.phash(PillowImage.fromarray(grey), hash_size=HASH_SIDE).hash
    return np.packbits(bits).tobytes()
