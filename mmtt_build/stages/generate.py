"""Generate: executes planned rows, checks the mask contract on each, and stores what came of it.

An image is renamed into place first, then its row is in a shard that is renamed into place: a run may be killed at
any instant and continues where it stopped. Rejections and failures are rows too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmtt_build import parallel, store
from mmtt_build.errors import ConfigError, MmttError
from mmtt_build.progress import Progress
from mmtt_build.registry import METHODS
from mmtt_build.seeds import seed_for
from mmtt_build.stages import forge, steps
from mmtt_build.stages import plan as planning
from mmtt_build.stages.devices import devices
from mmtt_build.weights import Weights
from mmtt_build.workspace import Workspace


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


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run may use; nothing here changes what is made, but for float rounding.

    Attributes:
        device: of the neural methods: "auto", "cpu", "cuda:0", "cuda:0,1".
        weights: where checkpoints are looked for.
        batch_size: rows on the device at once; 0 leaves it to the method.
        workers: processes of the other methods, and threads that read and write for the device; 0 takes all cores.
    """

    device: str = "auto"
    weights: Weights = field(default_factory=lambda: Weights(()))
    batch_size: int = 0
    workers: int = 0


def generate(
    workspace: Workspace,
    methods: Sequence[str] = (),
    *,
    limit: int = 0,
    shard: Shard = Shard(),
    retry_failed: bool = False,
    machine: Machine | None = None,
    debug_dir: Path | None = None,
    dry_run: bool = False,
) -> Summary:
    """Plans what is not planned yet, then forges what is pending.

    Args:
        workspace: where everything lies.
        methods: only rows of these; none means all.
        limit: at most so many rows; 0 means all.
        shard: only this part of the plan.
        retry_failed: rows that were rejected or failed are made again.
        machine: what the run may use; None means all of this one, and no checkpoint.
        debug_dir: gets a contact sheet per row, with what it went through; None for none.
        dry_run: counts and writes nothing.

    Raises:
        ConfigError: unknown method, or one without a share in the recipe's mix; a device that is not there.
        WeightsMissing, WeightsError, TermsNotAccepted: of a checkpoint that a pending row needs, before any work.
    """
    machine = machine or Machine()
    if debug_dir and not dry_run:
        steps.make_folder(debug_dir)
    for name in methods:
        METHODS.target(name)
        if not workspace.recipe.mix.get(name):
            raise ConfigError(
                f"method '{name}' has no share in [mix] of {workspace.root / 'mmtt.toml'}", f"add {name} = ..."
            )
    summary = Summary(planning.plan(workspace, dry_run=dry_run))
    rows = _pending(workspace, methods, shard, retry_failed)
    summary.pending = rows.num_rows
    if dry_run:  # what would be planned first is pending as well; of a part of the plan, a part
        added = summary.planned.added.items()
        summary.pending += sum(n for (name, _), n in added if not methods or name in methods) // shard.count
    summary.pending = min(summary.pending, limit or summary.pending)
    if dry_run or not summary.pending:
        return summary
    kinds = {name: workspace.method(name) for name in sorted(set(rows["method"].to_pylist()))}
    on = devices(machine.device) if any(kind.neural for kind in kinds.values()) else []
    _need_weights(rows, kinds, machine.weights)
    cores = machine.workers or parallel.cores()
    with (
        Progress("generate", summary.pending, "forgeries") as progress,
        store.Appender(workspace.forgeries) as done,
    ):

        def take(results: list[dict[str, Any]]) -> None:
            for row in results:
                done.add(row)
                summary.outcomes[row["status"]] += 1
                bad = row["status"] != "ok"
                if bad:
                    summary.reasons[row["reason"]] += 1
                progress.step(row["status"], f"{row['method']}: {row['reason']}" if bad else "")

        left = summary.pending
        # Sequential edits come after all others, so that what they start from is there.
        for start_over in (False, True):
            wave = rows.filter(pc.is_valid(rows["parent_id"]) if start_over else pc.is_null(rows["parent_id"])).slice(
                0, left
            )
            left -= wave.num_rows
            if start_over and wave.num_rows:
                wave, orphans, summary.waiting = _with_parents(workspace, wave)
                take(orphans)
            for name, kind in kinds.items():
                of_method = wave.filter(pc.equal(wave["method"], name))
                batches = _batches(of_method, kind, machine.batch_size)
                if not kind.neural:
                    work = partial(forge.forge_rows, workspace.root, debug_dir)
                    for results in parallel.unordered(work, batches, cores):
                        take(results)
                elif of_method.num_rows:
                    run = partial(
                        forge.forge_on_device,
                        workspace.root,
                        machine.weights,
                        name,
                        max(2, cores // len(on)),
                        debug_dir,
                    )
                    for results, progress.note in parallel.on_devices(run, batches, on):
                        take(results)
            done.flush()
    return summary


def _need_weights(rows: pa.Table, kinds: dict[str, Any], weights: Weights) -> None:
    """Refuses to start without the checkpoints that the rows need; all that is amiss is said at once."""
    needed: dict[str, None] = {}
    for name, kind in kinds.items():
        if kind.neural:
            for params in set(rows.filter(pc.equal(rows["method"], name))["params"].to_pylist()):
                needed |= dict.fromkeys(kind.weights(json.loads(params)))
    problems: list[MmttError] = []
    for name in needed:
        try:
            weights.find(name)
        except MmttError as error:
            problems.append(error)
    if problems:
        first, *others = problems
        raise type(first)(
            "\n".join([first.message, *(p.message for p in others)]),
            "\n  -> ".join(dict.fromkeys(p.remedy for p in problems)),
        )


def _pending(workspace: Workspace, methods: Sequence[str], shard: Shard, retry_failed: bool) -> pa.Table:
    """Plan rows that are to be made, in plan order, with the columns `forge.OF_BASE` of their bases."""
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
    rows = rows.filter(pc.is_in(rows["forgery_id"], keys["forgery_id"].combine_chunks()))
    bases = workspace.pristine.read(["id", *forge.OF_BASE])
    at = pc.index_in(rows["base_id"], bases["id"].combine_chunks())
    for name in forge.OF_BASE:
        rows = rows.append_column(name, bases[name].take(at))
    return rows


def _with_parents(workspace: Workspace, rows: pa.Table) -> tuple[pa.Table, list[dict[str, Any]], int]:
    """Splits sequential edits into those that can start, rejected ones without a usable parent, and how many wait."""
    made = workspace.forgeries.read(["forgery_id", "status"])
    status = dict(zip(made["forgery_id"].to_pylist(), made["status"].to_pylist(), strict=True))
    of = [status.get(parent) for parent in rows["parent_id"].to_pylist()]
    orphans = [
        forge.outcome(row, "rejected", f"starts from {row['parent_id']}, which is {state}")
        for row, state in zip(rows.to_pylist(), of, strict=True)
        if state not in (None, "ok")
    ]
    return rows.filter(pa.array([state == "ok" for state in of], pa.bool_())), orphans, of.count(None)


def _batches(rows: pa.Table, kind: Any, size: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of one method in batches of one `batch_key`, without making Python objects of all of them at once."""
    size = size if kind.neural and size else kind.batch_size
    if kind.neural:
        keys = [kind.batch_key(json.loads(params)) for params in rows["params"].to_pylist()]
        order = sorted(range(len(keys)), key=keys.__getitem__)  # stable: plan order within a key
        ends = [i for i in range(1, len(order)) if keys[order[i]] != keys[order[i - 1]]]
        rows = rows.take(pa.array(order, pa.int64()))
    else:
        ends = []
    for start, end in zip([0, *ends], [*ends, rows.num_rows], strict=True):
        for block in rows.slice(start, end - start).to_batches(max_chunksize=size * max(1, 512 // size)):
            listed = block.to_pylist()
            yield from (listed[i : i + size] for i in range(0, len(listed), size))
