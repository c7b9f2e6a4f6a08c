"""Measure: the files of every usable forgery against the rules on pictures, and what its mask covers of each part.

What was measured before is read again only when its row, its base's row, the recipe or the rules changed. A damaged or
a missing file is a finding. A verdict on a forgery that cannot be used any more stays in the table and is not counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmtt_build import parallel
from mmtt_build.config import Qc
from mmtt_build.progress import Progress
from mmtt_build.stages.answers import Forgeries, forged
from mmtt_build.stages.tally import Tally
from mmtt_build.store import Appender
from mmtt_build.workspace import Workspace

if TYPE_CHECKING:
    from qc.images import Measurer

BATCH = 256
ALONE = 4 * BATCH
"""Up to so many forgeries one process is done before others have started."""

_CHANGE = ("changed_share", "mean_change")
_MEASURED = (*_CHANGE, "cover", "cover_of")
_STORED = ("image", "mask", "part_map", "image_crc", "mask_crc", "part_map_crc", *_CHANGE)
_WITH_PIXELS = "+pixels"
"""Behind the fingerprint of what was decoded whole: it needs no second look without."""


_measurer: Measurer
"""Of this process."""


@dataclass(frozen=True, slots=True)
class _Task:
    """A batch for a worker: rows as `answers.forged` reads them, with `_MEASURED`, and their new fingerprints."""

    rows: pa.Table
    fingerprints: Sequence[str]


def measure(workspace: Workspace, *, pixels: bool = False, workers: int = 0, dry_run: bool = False) -> Tally:
    """Measures the forgeries that are new or changed.

    Args:
        workspace: whose.
        pixels: decode every pristine and forged picture too, and check the mask contract on them again.
        workers: processes; 0 takes all cores.
        dry_run: counts and writes nothing.
    """
    names, bases, fingerprints = _current(workspace)
    stored = workspace.image_checks.read(["forgery_id", "verdict", "findings", "fingerprint"])
    known = dict(zip(stored["forgery_id"].to_pylist(), stored["fingerprint"].to_pylist(), strict=True))
    todo = [
        i
        for i, (name, key) in enumerate(zip(names.to_pylist(), fingerprints, strict=True))
        if known.get(name) not in ((key + _WITH_PIXELS,) if pixels else (key, key + _WITH_PIXELS))
    ]
    todo.sort(key=bases.__getitem__)  # what forgeries of one base share is measured once
    tally = Tally(changed=len(todo))
    kept = np.ones(len(names), np.bool_)
    kept[todo] = False
    tally.add_all(stored.filter(pc.is_in(stored["forgery_id"], names.filter(pa.array(kept)))))
    count = 1 if len(todo) <= ALONE else workers or parallel.cores()
    work = partial(_check, workspace.recipe.qc)
    with Progress("measure", len(todo), "forgeries") as progress, Appender(workspace.image_checks) as rows:
        tasks = _tasks(workspace, names, fingerprints, todo)
        for made in parallel.unordered(work, tasks, count, _start, (workspace.root, pixels)):
            for row in made:
                tally.add(row)
                progress.step("ok" if row["verdict"] == "accept" else row["verdict"])
                if not dry_run:
                    rows.add(row)
    return tally


def _tasks(workspace: Workspace, names: pa.Array, fingerprints: Sequence[str], todo: Sequence[int]) -> Iterator[_Task]:
    if not todo:
        return
    forgeries = Forgeries(workspace)
    found = forgeries.find(names)
    measured = workspace.forgeries.read(["forgery_id", *_MEASURED])
    at = pc.index_in(names, measured["forgery_id"].combine_chunks())
    for start in range(0, len(todo), BATCH):
        batch = pa.array(todo[start : start + BATCH], pa.int64())
        rows = forgeries.rows(found.take(batch))
        for column in _MEASURED:
            rows = rows.append_column(f"made_{column}", measured[column].take(at.take(batch)))
        yield _Task(rows.combine_chunks(), [fingerprints[i] for i in batch.to_pylist()])


def _start(root: Path, pixels: bool) -> None:
    """Before the first task of a worker."""
    from qc import images

    global _measurer
    _measurer = images.Measurer(root, pixels=pixels)


def _check(thresholds: Qc, task: _Task) -> list[dict[str, Any]]:
    """Rows of a batch; runs in a worker."""
    from qc import base

    made = []
    for row, fingerprint in zip(task.rows.to_pylist(), task.fingerprints, strict=True):
        of = forged(row)
        assert of is not None  # the names come from the table of forgeries
        picture, cover = _measurer.measure(of, **{name: row[f"made_{name}"] for name in _MEASURED})
        findings = base.judge(base.Subject.FORGERY, picture, thresholds, thresholds)
        made.append(
            {
                "forgery_id": of.id,
                "verdict": base.verdict(findings),
                "findings": [base.row_of(finding) for finding in findings],
                "cover": cover,
                "fingerprint": fingerprint + (_WITH_PIXELS if _measurer.pixels else ""),
            }
        )
    return made


def _current(workspace: Workspace) -> tuple[pa.Array, list[int], list[str]]:
    """Of the usable forgeries: ids, numbers of their bases, and fingerprints of all that a measurement depends on."""
    made = workspace.forgeries.read(["forgery_id", "status", *_STORED])
    made = made.filter(pc.equal(made["status"], "ok")).drop_columns(["status"])
    plan = workspace.plan.read(["forgery_id", "base_id", "source_id"])
    plan = plan.take(pc.index_in(made["forgery_id"], plan["forgery_id"].combine_chunks()))
    pristine = workspace.pristine.read(["id", "status", "image", "parts", "parts_weights", "points", "landmarks"])
    pristine = pristine.filter(pc.equal(pristine["status"], "ok"))
    ok = pristine["id"].combine_chunks()
    base, source = plan["base_id"], plan["source_id"]
    usable = pc.and_(pc.is_in(base, ok), pc.or_(pc.is_null(source), pc.is_in(source, ok)))
    made, base = made.filter(usable), base.filter(usable)
    numbers = zip(_bytes(pristine["points"]), _bytes(pristine["landmarks"]), strict=True)
    of_base = [
        said.encode() + b"".join(places)
        for said, places in zip(_said(pristine, ("image", "parts", "parts_weights")), numbers, strict=True)
    ]
    settings = _settings(workspace.recipe.qc)
    fingerprints, bases = [], pc.index_in(base, ok).to_pylist()
    for said, at in zip(_said(made, made.column_names), bases, strict=True):
        key = settings.copy()
        key.update(of_base[at])
        key.update(said.encode("utf-8", "backslashreplace"))
        fingerprints.append(key.hexdigest())
    return made["forgery_id"].combine_chunks(), bases, fingerprints


def _said(table: pa.Table, names: Sequence[str]) -> list[str]:
    """Columns of each row as one text; made by Arrow, which takes a fifth of Python's time."""
    texts = [table[name].cast(pa.string()) for name in names]
    joined = pc.binary_join_element_wise(*texts, "\x1f", null_handling="replace", null_replacement="\x1e")
    return joined.to_pylist()


def _bytes(column: pa.ChunkedArray) -> list[bytes]:
    """The numbers of each list of a column, which would take long as Python's."""
    lists = column.combine_chunks()
    values: NDArray[np.float32] = lists.values.to_numpy(zero_copy_only=False)
    return [values[start:end].tobytes() for start, end in pairwise(lists.offsets.to_pylist())]


def _settings(thresholds: Qc) -> Any:
    """What the rules are and how they are set, as the beginning of a digest."""
    from qc import base
    from qc.version import rules_version

    rules = [
        (rule.name, base.severity(rule, thresholds), [getattr(thresholds, name) for name in rule.thresholds])
        for rule in base.load_rules(base.Subject.FORGERY)
    ]
    said = repr((rules_version("images", "stored", "regions"), rules))
    return hashlib.blake2b(said.encode(), digest_size=12)
