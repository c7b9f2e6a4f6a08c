"""Forge: from planned rows to stored forgeries, in a worker process or on a device.

Every outcome is a row. What a method returns is held against the mask contract before it is stored; the row is
returned only after its files are in place.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from isal import isal_zlib

from mmtt_build import images, masks, parts, store
from mmtt_build.errors import BadImage, ContractBroken, MmttError
from mmtt_build.loop import Loop
from mmtt_build.masks import Mask
from mmtt_build.parts import LabelMap
from mmtt_build.stages import steps
from mmtt_build.stages.devices import needs_models
from mmtt_build.weights import Weights
from mmtt_build.workspace import Workspace

if TYPE_CHECKING:
    from generators.base import Forged, Job, Method, Rejection

Row = dict[str, Any]
"""Of the plan, with `OF_BASE`; or of the forgeries table."""

OF_BASE = ("points", "landmarks")
"""Columns of its base in the table of pristine images, which a planned row brings along."""

_RUN_ENDS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
"""Errors of the machine, not of a row: the run stops instead of failing every row that follows."""
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate memory")
"""How torch and onnxruntime say so where they raise a plain RuntimeError."""


def outcome(planned: Row, status: str, reason: str | None, **facts: Any) -> Row:
    """A row of the forgeries table."""
    return (
        {key: planned[key] for key in ("forgery_id", "method", "split")} | {"status": status, "reason": reason} | facts
    )


class Loaded(NamedTuple):
    """What was read of a row, and what the method made of that before its turn on the device."""

    job: Job
    parts_crc: int  # CRC-32 of the base's part map, as a file
    begun: Any


Ending = Callable[[], "Forged | Rejection"]
"""Ends the work on a row; called in a thread of the pool."""


class Forger:
    """A method made ready, and what becomes of a batch that fails.

    Attributes:
        method: prepared.
        limit: rows at once, once a larger batch did not fit into memory; 0 before that.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self.limit = 0

    def load(self, workspace: Workspace, row: Row) -> Loaded:
        """Reads what a planned row needs and lets the method begin with it.

        Raises:
            BadImage: a stored image is missing or damaged.
        """
        job, parts_crc = load(workspace, row)
        return Loaded(job, parts_crc, self.method.begin(job))

    def __call__(self, jobs: Sequence[Loaded]) -> list[Ending | Exception]:
        """What gives the forgery or rejection of a row, or the exception that it died of, which must not end the run.

        Out of memory halves the batch, for good. A batch that fails otherwise is tried row by row.

        Raises:
            MmttError: a single row does not fit into memory, or the method says that no other row will do either.
            OSError: the machine's disk, not the row, is at fault.
        """
        size = self.limit or len(jobs)
        if len(jobs) > size:
            return [made for i in range(0, len(jobs), size) for made in self(jobs[i : i + size])]
        try:
            made = self.method.forge([job.begun for job in jobs]) if jobs else []
            return [partial(self._end, item, len(jobs)) for item in made]
        except Exception as error:
            if _ends_run(error):
                raise
            failure = error.with_traceback(None)  # whose frames hold what the batch took of the device
        if not _no_memory(failure):
            return [failure] if len(jobs) == 1 else [made for job in jobs for made in self([job])]
        if torch := sys.modules.get("torch"):
            torch.cuda.empty_cache()
        if len(jobs) == 1:
            raise MmttError(
                f"{self.method.name} runs out of memory with one image at a time: {failure}",
                "what is done is kept; free the device, or see the method's card for options that save memory",
            ) from failure
        self.limit = len(jobs) // 2
        return self(jobs)

    def _end(self, item: Any, batch_size: int) -> Forged | Rejection:
        from generators.base import Rejection

        made = self.method.end(item)
        if isinstance(made, Rejection) or not self.method.neural:
            return made
        # The size of the batch moves values by float rounding, so it is part of the facts.
        return replace(made, facts={"batch_size": batch_size, **made.facts})


def _ends_run(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _RUN_ENDS
    return isinstance(error, MmttError) and not isinstance(error, BadImage | ContractBroken)


def _no_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)
    )


def forge_rows(root: Path, debug_dir: Path | None, rows: list[Row]) -> list[Row]:
    """Forges a batch of rows of one method that needs no device, in a worker process; see `forge_on_device`."""
    workspace = Workspace(root)
    forger = _on_cpu(root, rows[0]["method"], debug_dir is not None)
    loaded: list[tuple[Row, Loaded]] = []
    results: list[Row] = []
    for row in rows:
        try:
            loaded.append((row, forger.load(workspace, row)))
        except BadImage as error:
            results.append(finish(workspace, forger.method, row, None, error, debug_dir))
    for (row, job), made in zip(loaded, forger([job for _, job in loaded]), strict=True):
        results.append(finish(workspace, forger.method, row, job, made, debug_dir))
    return results


@cache
def _on_cpu(root: Path, name: str, keep_steps: bool) -> Forger:
    """The forger of a weights-free method, made once per worker process."""
    method = Workspace(root).method(name)
    method.keep_steps = keep_steps
    method.prepare("cpu", Weights(()))
    return Forger(method)


_ready: dict[tuple[Path, str, str], Forger] = {}
"""The one neural method that this process holds: two would not fit onto many devices."""


def forge_on_device(
    root: Path,
    weights: Weights,
    name: str,
    threads: int,
    debug_dir: Path | None,
    device: str,
    batches: Iterable[Sequence[Row]],
) -> Iterator[tuple[list[Row], str]]:
    """Forges batches of rows of one neural method on one device.

    Args:
        root: the workspace.
        weights: where checkpoints are looked for.
        name: the method.
        threads: that read and decode, and check, encode and write.
        debug_dir: gets a contact sheet per row of how it came about; None for none.
        device: torch's name of it.
        batches: of planned rows.

    Yields:
        Rows of a batch, and a line on how the device does.

    Raises:
        MmttError: a package or a checkpoint is missing, or the device has too little memory for one row.
    """
    workspace = Workspace(root)
    if (root, name, device) not in _ready:
        _ready.clear()
        try:
            method = workspace.method(name)
            method.prepare(device, weights)
        except ModuleNotFoundError as error:
            raise needs_models(error) from error
        _ready[root, name, device] = Forger(method)
    forger = _ready[root, name, device]
    forger.method.keep_steps = debug_dir is not None
    loop: Loop[Row, Loaded, Any, Row] = Loop(
        partial(forger.load, workspace), forger, partial(finish, workspace, forger.method, debug_dir=debug_dir), threads
    )
    for rows in loop.run(batches):
        smaller = f", {forger.limit} rows at once for lack of memory" if forger.limit else ""
        yield rows, f"{device} {loop.busy.share:.0%} busy{smaller}"


def load(workspace: Workspace, row: Row) -> tuple[Job, int]:
    """Reads and decodes what a planned row needs.

    Returns:
        The job, and the CRC-32 of the base's part map, as a file.

    Raises:
        BadImage: a stored image is missing or damaged.
    """
    from generators.base import Job

    crcs = {}

    def image(kind: str, name: str) -> Any:
        path = workspace.root / workspace.image_path(kind, name)
        try:
            data = images.read_bytes(path)
            if kind == "parts":
                crcs[name] = isal_zlib.crc32(data)
            return images.decode_stored(data, grey=kind in ("parts", "masks"))
        except BadImage as error:
            raise BadImage(f"{path.relative_to(workspace.root)}: {error.message}") from error

    source = row["source_id"]
    job = Job(
        id=row["forgery_id"],
        seed=row["seed"],
        params=json.loads(row["params"]),
        image=image("forged", row["parent_id"]) if row["parent_id"] else image("pristine", row["base_id"]),
        labels=image("parts", row["base_id"]),
        source_image=image("pristine", source) if source else None,
        source_labels=image("parts", source) if source else None,
        altered=row["parent_id"] is not None,
    )
    return job, crcs[row["base_id"]]


def finish(
    workspace: Workspace, method: Method, row: Row, loaded: Loaded | None, made: Any, debug_dir: Path | None = None
) -> Row:
    """Stores what a method made of a row, or says why there is nothing to store.

    Args:
        workspace: gets the files.
        method: that made it.
        row: as planned.
        loaded: what it was made from; None if that could not be read.
        made: what ends the work on it, or the exception that the row died of.
        debug_dir: gets a contact sheet of how it came about; None for none.

    Returns:
        A row of the forgeries table.
    """
    job = loaded.job if loaded else None
    if callable(made):
        try:
            made = made()
        except Exception as error:
            if _ends_run(error):
                raise
            made = error
    done = _finished(workspace, method, row, loaded, made)
    if debug_dir is not None and job is not None:
        steps.write_sheet(debug_dir, job, made, f"{done['status']}: {done['reason']}" if done["reason"] else "ok")
    return done


def _finished(workspace: Workspace, method: Method, row: Row, loaded: Loaded | None, made: Any) -> Row:
    from generators.base import Rejection

    if isinstance(made, Rejection):
        return outcome(row, "rejected", made.reason)
    if isinstance(made, BadImage):
        return outcome(row, "failed", str(made))
    if isinstance(made, Exception):
        return outcome(row, "failed", f"{type(made).__name__}: {made}")
    assert loaded is not None
    try:
        return _store(workspace, row, loaded, made, method.mask_origin)
    except ContractBroken as error:
        return outcome(row, "rejected", f"mask contract: {error.message}")


def _base(workspace: Workspace, row: Row) -> str:
    return workspace.image_path("pristine", row["base_id"])


def _store(workspace: Workspace, row: Row, loaded: Loaded, made: Forged, origin: str) -> Row:
    """Checks the contract against what was altered and, after an earlier forgery, against the pristine base too."""
    job, mask = loaded.job, made.mask
    change = masks.check(job.image, made.image, mask)
    altered = workspace.image_path("forged", row["parent_id"]) if row["parent_id"] else _base(workspace, row)
    encoded = images.encode_rgb(made.image, images.read_bytes(workspace.root / altered), mask)
    if row["parent_id"]:
        earlier = workspace.root / workspace.image_path("masks", row["parent_id"])
        mask = mask | masks.from_grey(images.decode_stored(images.read_bytes(earlier), grey=True))
        base = images.decode_stored(images.read_bytes(workspace.root / _base(workspace, row)))
        change = masks.check(base, made.image, mask)
    name = row["forgery_id"]
    files = {
        "image": (workspace.image_path("forged", name), encoded),
        "mask": (workspace.image_path("masks", name), images.encode_grey(masks.to_grey(mask))),
    }
    touched = set(parts.touched(job.labels, mask))
    if made.labels is not None:
        files["part_map"] = (workspace.image_path("parts", name), images.encode_grey(made.labels))
        touched |= set(parts.touched(made.labels, mask))
    for path, data in files.values():
        store.write_file(workspace.root / path, data)
    crcs = {kind: isal_zlib.crc32(data) for kind, (_, data) in files.items()}
    return outcome(
        row,
        "ok",
        None,
        **{kind: path for kind, (path, _) in files.items()},
        **{f"{kind}_crc": crc for kind, crc in crcs.items()},
        **_cover(row, loaded, mask, made.labels, (crcs["mask"], loaded.parts_crc, crcs.get("part_map"))),
        mask_origin=origin,
        parts=[part for part in parts.CLASSES if part in touched],
        mask_area=np.float32(change.area),
        focus=list(masks.focus(mask)),
        changed_share=np.float32(change.changed_share),
        mean_change=np.float32(change.mean_change),
        facts=json.dumps(made.facts, sort_keys=True) if made.facts else None,
    )


def _cover(row: Row, loaded: Loaded, mask: Mask, after: LabelMap | None, crcs: Sequence[int | None]) -> dict[str, Any]:
    """What the mask covers of each part: QC asks for it, and would have to decode the part maps again."""
    from qc import regions

    face = [row[name] for name in OF_BASE]
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    piece = mask[y : y + height, x : x + width]
    cover: regions.Cover | None = regions.Map(loaded.job.labels, *face).cover(piece, (y, x))
    if after is not None:
        cover = regions.larger(cover, regions.Map(after).cover(piece, (y, x)))
    return {"cover": cover, "cover_of": regions.basis(crcs, *face)}
