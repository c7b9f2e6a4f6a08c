"""Ingest: source images become 512 px PNGs, part maps and rows; then identity groups and their splits.

A bad file becomes a row with status "failed" and a reason, and the run goes on. Images that have a row are
skipped, so a killed ingest continues where it stopped. Groups are decided when all images are in, in one shard, and
never change afterwards: a later image joins the group of what it duplicates.
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
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image as PillowImage

from mmtt_build import images, parallel, store
from mmtt_build.config import SPLITS
from mmtt_build.errors import BadImage, ConfigError
from mmtt_build.progress import Progress
from mmtt_build.registry import SOURCES
from mmtt_build.seeds import fraction
from mmtt_build.sources.base import Item, Options, describe, inside
from mmtt_build.workspace import Workspace

HASH_SIDE = 16
"""pHash of 16 x 16 coefficients. On 42 aligned faces unrelated ones differed in 84 bits or more of 256, and copies
(JPEG 50, half size, brightness +15 %, shift of 4 px, zoom of 2 %) in 34 or fewer; 64 bits separate 16 from 10."""


_BLOCK = 1024
"""Hashes that are compared at once: two blocks and their products take 6 MB, however many images there are."""

BRIDGE = "near-duplicate of images in different splits"
"""Reason of an image that would join identity groups of different splits."""


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


def split_of(identity_group: str, shares: dict[str, float], seed: int) -> str:
    """The split of an identity group, by stable hash: the same in every workspace with this seed."""
    at, upto = fraction("split", seed, identity_group), 0.0
    for name in SPLITS:
        upto += shares[name]
        if at < upto:
            return name
    return max(shares, key=lambda name: shares[name])  # float rounding of the sum


def group(workspace: Workspace) -> int:
    """Gives every usable image that has none an identity group and the group's split.

    Images are joined that share an identity of the source dataset, or whose perceptual hashes differ in
    at most `near_duplicate_bits`. A group once written stays; a new image that belongs to older groups of different
    splits would be a bridge for leakage and is excluded.

    Returns:
        Number of images grouped.
    """
    recipe = workspace.recipe
    table = workspace.pristine.read(["id", "status", "identity", "phash"])
    table = table.filter(pc.equal(table["status"], "ok"))
    old = workspace.groups.read()
    new = np.nonzero(~pc.is_in(table["id"], old["id"].combine_chunks()).to_numpy())[0]
    if not len(new):
        return 0
    recipe = workspace.recipe
    old = workspace.groups.read()
    table = workspace.pristine.read(["id", "status"])
    table = table.filter(pc.equal(table["status"], "ok"))
    grouped = pc.is_in(table["id"], old["id"].combine_chunks())
    if pc.all(grouped).as_py() is not False:
        return 0
    from scipy.sparse import coo_array  # here: half a second of import that worker processes do not need
    from scipy.sparse.csgraph import connected_components

    new = np.nonzero(~grouped.to_numpy())[0]
    facts = workspace.pristine.read(["id", "status", "identity", "phash"])
    table = facts.filter(pc.equal(facts["status"], "ok"))
    ids = table["id"].to_pylist()
    columns = (old[name].to_pylist() for name in old.schema.names)
    assigned = {name: (of, split) for name, of, split in zip(*columns, strict=True)}
    joined = _near_duplicates(table["phash"], new, recipe.ingest.near_duplicate_bits)
    by_identity: dict[str, int] = {}
    for index, identity in enumerate(table["identity"].to_pylist()):
        if identity is not None:
            joined.append((by_identity.setdefault(identity, index), index))
    pairs = np.array(joined, np.int64).reshape(-1, 2)
    edges = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(ids), len(ids)))
    _, component = connected_components(edges, directed=False)
    order = np.argsort(component, kind="stable")
    members = np.split(order, np.nonzero(np.diff(component[order]))[0] + 1)
    rows: list[dict[str, str]] = []
    bridges: list[dict[str, Any]] = []
    for indices in members:
        names = [ids[i] for i in indices]
        fresh = [name for name in names if name not in assigned]
        if not fresh:
            continue
        older = sorted({assigned[name] for name in names if name in assigned})
        if len({split for _, split in older}) > 1:
            reason = f"{BRIDGE} ({', '.join(name for name, _ in older)})"
            bridges += [{"id": name, "reason": reason} for name in fresh]
            continue
        if older:
            identity_group, split = older[0]
        else:
            identity_group = min(names)
            split = split_of(identity_group, recipe.split.shares(), recipe.plan.seed)
        rows += [{"id": name, "identity_group": identity_group, "split": split} for name in fresh]
    _exclude(workspace, bridges)
    workspace.groups.append(rows)
    return len(rows)


def _exclude(workspace: Workspace, bridges: list[dict[str, Any]]) -> None:
    """Writes superseding rows with status "excluded"."""
    if not bridges:
        return
    reasons = {row["id"]: row["reason"] for row in bridges}
    table = workspace.pristine.read()
    rows = table.filter(pc.is_in(table["id"], pa.array(list(reasons)))).to_pylist()
    workspace.pristine.append([row | {"status": "excluded", "reason": reasons[row["id"]]} for row in rows])


def _near_duplicates(hashes: pa.ChunkedArray, new: NDArray[np.int64], bits: int) -> list[tuple[int, int]]:
    """Pairs of row numbers, at least one of them new, whose 256-bit hashes differ in at most `bits` bits.

    Exhaustive and exact: with bits as +1 and -1 the product of two hashes is 256 - 2 x distance, and matrix
    products are what a CPU does fastest. 100,000 new images take about a minute, once.
    """
    order = np.concatenate([np.setdiff1d(np.arange(len(hashes)), new), new])
    packed = np.frombuffer(b"".join(hashes.to_pylist()), np.uint8).reshape(-1, 32)[order]

    def signs(start: int) -> NDArray[np.float32]:
        bits_of = np.unpackbits(packed[start : start + _BLOCK], axis=1)
        return bits_of.astype(np.float32) * 2 - 1

    pairs: list[tuple[int, int]] = []
    for start in range(len(order) - len(new), len(order), _BLOCK):
        rows = signs(start)
        for other in range(0, start + len(rows), _BLOCK):
            first, second = np.nonzero(rows @ signs(other).T >= 256 - 2 * bits)
            first, second = first + start, second + other
            earlier = second < first
            pairs += zip(order[first[earlier]].tolist(), order[second[earlier]].tolist(), strict=True)
    return pairs
