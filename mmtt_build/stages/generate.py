"""Generate: executes planned rows, checks the mask contract on each, and stores what came of it.

An image is renamed into place first, then its row is in a shard that is renamed into place: a run may be killed at
any instant and continues where it stopped. Rejections and failures are rows too.
"""

from __future__ import annotations

import errno
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmtt_build import images, masks, parallel, parts, store
from mmtt_build.errors import BadImage, ConfigError, ContractBroken
from mmtt_build.progress import Progress
from mmtt_build.registry import METHODS
from mmtt_build.seeds import seed_for
from mmtt_build.stages import plan as planning
from mmtt_build.weights import Weights
from mmtt_build.workspace import Workspace

if TYPE_CHECKING:
    from generators.base import Job, Method

_RUN_ENDS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
"""Errors of the machine, not of a row: the run stops instead of failing every row that follows."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count` of the plan, counted from 1; sequential edits stay with the forgery they start from."""

    index: int = 1
    count: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        """Reads "3/16".

        Raises:
            ConfigError: anything else.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ConfigError(f"--shard {text!r}", "i/n with 1 <= i <= n, e.g. 3/16")
        return Shard(int(index), int(count))

    def holds(self, root_id: str) -> bool:
        """Whether a forgery, named by the forgery it starts from or itself, belongs to this part."""
        return self.count == 1 or seed_for("shard", root_id) % self.count == self.index - 1


@dataclass(slots=True)
class Summary:
    """Counts of one generate run.

    Attributes:
        planned: what planning added first.
        pending: rows that this run was to make.
        outcomes: rows by status.
        reasons: rejected and failed rows by reason.
        waiting: rows whose earlier forgery is not made yet (another shard or method).
    """

    planned: planning.Summary
    pending: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    waiting: int = 0


def generate(
    workspace: Workspace,
    methods: Sequence[str] = (),
    *,
    limit: int = 0,
    shard: Shard = Shard(),
    retry_failed: bool = False,
    workers: int = 0,
    dry_run: bool = False,
) -> Summary:
    """Plans what is not planned yet, then forges what is pending.

    Args:
        workspace: where everything lies.
        methods: only rows of these; none means all.
        limit: at most so many rows; 0 means all.
        shard: only this part of the plan.
        retry_failed: rows that were rejected or failed are made again.
        workers: processes; 0 takes all cores.
        dry_run: counts and writes nothing.

    Raises:
        ConfigError: unknown method, or one without a share in the recipe's mix.
    """
    for name in methods:
        METHODS.target(name)
        if not workspace.recipe.mix.get(name):
            raise ConfigError(
                f"method '{name}' has no share in [mix] of {workspace.root / 'mmtt.toml'}", f"add {name} = ..."
            )
    summary = Summary(planning.plan(workspace, dry_run=dry_run))
    rows = _pending(workspace, methods, shard, retry_failed)
    summary.pending = min(rows.num_rows, limit or rows.num_rows)
    if dry_run or not summary.pending:
        return summary
    with (
        Progress("generate", summary.pending, "forgeries") as progress,
        store.Appender(workspace.forgeries) as done,
    ):
        work = partial(_forge_rows, workspace.root)
        left = summary.pending
        # Sequential edits come after all others, so that what they start from is there.
        for start_over in (False, True):
            wave = rows.filter(pc.is_valid(rows["parent_id"]) if start_over else pc.is_null(rows["parent_id"])).slice(
                0, left
            )
            left -= wave.num_rows
            if start_over and wave.num_rows:
                wave, orphans, summary.waiting = _with_parents(workspace, wave)
                for row in orphans:
                    done.add(row)
                    _count(summary, progress, row)
            for results in parallel.unordered(work, _batches(wave), workers or parallel.cores()):
                for row in results:
                    done.add(row)
                    _count(summary, progress, row)
            done.flush()
    return summary


def _count(summary: Summary, progress: Progress, row: dict[str, Any]) -> None:
    summary.outcomes[row["status"]] += 1
    if row["status"] != "ok":
        summary.reasons[row["reason"]] += 1
    progress.step(row["status"], f"{row['method']}: {row['reason']}" if row["status"] != "ok" else "")


def _pending(workspace: Workspace, methods: Sequence[str], shard: Shard, retry_failed: bool) -> pa.Table:
    """Plan rows that are to be made, in plan order."""
    finished = workspace.forgeries.keys(status="ok") if retry_failed else workspace.forgeries.keys()
    keys = workspace.plan.read(["forgery_id", "method", "parent_id"])
    wanted = pc.invert(pc.is_in(keys["forgery_id"], finished.combine_chunks()))
    if methods:
        wanted = pc.and_(wanted, pc.is_in(keys["method"], pa.array(methods, pa.string())))
    keys = keys.filter(wanted)
    if shard.count > 1:
        roots = pc.coalesce(keys["parent_id"], keys["forgery_id"]).to_pylist()
        keys = keys.filter(pa.array([shard.holds(root) for root in roots], pa.bool_()))
    if not keys.num_rows:
        return workspace.plan.schema.empty_table()
    rows = workspace.plan.read()
    return rows.filter(pc.is_in(rows["forgery_id"], keys["forgery_id"].combine_chunks()))


def _with_parents(workspace: Workspace, rows: pa.Table) -> tuple[pa.Table, list[dict[str, Any]], int]:
    """Splits sequential edits into those that can start, rejected ones without a usable parent, and how many wait."""
    made = workspace.forgeries.read(["forgery_id", "status"])
    status = dict(zip(made["forgery_id"].to_pylist(), made["status"].to_pylist(), strict=True))
    of = [status.get(parent) for parent in rows["parent_id"].to_pylist()]
    orphans = [
        _row(row, "rejected", f"starts from {row['parent_id']}, which is {state}")
        for row, state in zip(rows.to_pylist(), of, strict=True)
        if state not in (None, "ok")
    ]
    return rows.filter(pa.array([state == "ok" for state in of], pa.bool_())), orphans, of.count(None)


def _batches(rows: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """Rows in the batch sizes that their methods like, without making Python objects of all of them at once."""
    for name in sorted(set(rows["method"].to_pylist())):
        of_method = rows.filter(pc.equal(rows["method"], name))
        size = METHODS.get(name).batch_size
        for batch in of_method.to_batches(max_chunksize=size * max(1, 512 // size)):
            listed = batch.to_pylist()
            yield from (listed[i : i + size] for i in range(0, len(listed), size))


@cache
def _prepared(name: str) -> Method:
    """The method, made ready once per worker process."""
    method: Method = METHODS.get(name)()
    method.prepare("cpu", Weights(()))
    return method


def _row(planned: dict[str, Any], status: str, reason: str | None, **facts: Any) -> dict[str, Any]:
    return (
        {key: planned[key] for key in ("forgery_id", "method", "split")} | {"status": status, "reason": reason} | facts
    )


def _forge_rows(root: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Forges one batch of planned rows of one method, in a worker process."""
    from generators.base import Rejection

    workspace = Workspace(root)
    method = _prepared(rows[0]["method"])
    results: list[dict[str, Any]] = []
    ready: list[tuple[dict[str, Any], Job]] = []
    for row in rows:
        try:
            ready.append((row, _job(workspace, row)))
        except BadImage as error:
            results.append(_row(row, "failed", str(error)))
    for (row, job), made in zip(ready, _forge(method, [job for _, job in ready]), strict=True):
        if isinstance(made, Rejection):
            results.append(_row(row, "rejected", made.reason))
        elif isinstance(made, Exception):
            results.append(_row(row, "failed", f"{type(made).__name__}: {made}"))
        else:
            try:
                results.append(_store(workspace, row, job, made.image, made.mask, method.mask_origin))
            except ContractBroken as error:
                results.append(_row(row, "rejected", f"mask contract: {error.message}"))
    return results


def _forge(method: Method, jobs: list[Job]) -> list[Any]:
    """Forgeries, rejections, or the exception that a row died of: a row's failure must not end a night's run."""
    try:
        return list(method.forge(jobs)) if jobs else []
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _RUN_ENDS:
            raise
        return [error] if len(jobs) == 1 else [made for job in jobs for made in _forge(method, [job])]


def _job(workspace: Workspace, row: dict[str, Any]) -> Job:
    from generators.base import Job

    def image(kind: str, name: str) -> Any:
        path = workspace.root / workspace.image_path(kind, name)
        try:
            return images.decode_stored(images.read_bytes(path), grey=kind in ("parts", "masks"))
        except BadImage as error:
            raise BadImage(f"{path.relative_to(workspace.root)}: {error.message}") from error

    source = row["source_id"]
    return Job(
        id=row["forgery_id"],
        seed=row["seed"],
        params=json.loads(row["params"]),
        image=image("forged", row["parent_id"]) if row["parent_id"] else image("pristine", row["base_id"]),
        labels=image("parts", row["base_id"]),
        source_image=image("pristine", source) if source else None,
        source_labels=image("parts", source) if source else None,
    )


def _store(
    workspace: Workspace, row: dict[str, Any], job: Job, forged: images.Image, mask: masks.Mask, origin: str
) -> dict[str, Any]:
    """Checks the contract against what was altered and, after an earlier forgery, against the pristine base too."""
    change = masks.check(job.image, forged, mask)
    if row["parent_id"]:
        earlier = workspace.root / workspace.image_path("masks", row["parent_id"])
        mask = mask | masks.from_grey(images.decode_stored(images.read_bytes(earlier), grey=True))
        base = workspace.root / workspace.image_path("pristine", row["base_id"])
        change = masks.check(images.decode_stored(images.read_bytes(base)), forged, mask)
    name = row["forgery_id"]
    files = {
        "image": (workspace.image_path("forged", name), images.encode_rgb(forged)),
        "mask": (workspace.image_path("masks", name), images.encode_grey(masks.to_grey(mask))),
    }
    for path, data in files.values():
        store.write_file(workspace.root / path, data)
    return _row(
        row,
        "ok",
        None,
        image=files["image"][0],
        mask=files["mask"][0],
        mask_origin=origin,
        parts=parts.touched(job.labels, mask),
        mask_area=np.float32(change.area),
        changed_share=np.float32(change.changed_share),
        mean_change=np.float32(change.mean_change),
        image_crc=zlib.crc32(files["image"][1]),
        mask_crc=zlib.crc32(files["mask"][1]),
    )
