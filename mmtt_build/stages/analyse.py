"""Analyse: whose face an ingested image shows, how old it looks, which way it faces; then exclusions and groups.

A pass over stored images. What was seen of an image is a row of the table `faces`, and what follows from it (an
exclusion, an identity group) is decided from the rows: a killed run continues where it stopped, and another bar in the
recipe needs no second look at the pixels.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmtt_build import images, parallel, store
from mmtt_build.errors import BadImage, ConfigError
from mmtt_build.loop import Loop
from mmtt_build.progress import Progress
from mmtt_build.stages.devices import devices, needs_models
from mmtt_build.stages.groups import group, leave_out_faces, supersede
from mmtt_build.weights import Weights, catalogue
from mmtt_build.workspace import Workspace

if TYPE_CHECKING:
    from generators.faces.analysis import Analysis, FaceFacts

BATCH = 4
"""Images between two looks at Ctrl-C: insightface takes them one by one, about a second each on a CPU."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Summary:
    """Counts of one run.

    Attributes:
        pending: images that this run was to look at.
        analysed: those it looked at.
        failed: those whose stored image cannot be read or looked at.
        excluded: usable images that a rule about faces leaves out now, by reason.
        reasons: of the failed ones.
    """

    pending: int = 0
    analysed: int = 0
    failed: int = 0
    excluded: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


def analyse(
    workspace: Workspace,
    pack: str,
    weights: Weights,
    *,
    device: str = "auto",
    threads: int = 0,
    dry_run: bool = False,
) -> Summary:
    """Looks at the faces of all usable images that were not looked at yet, applies the rules, and groups.

    Args:
        workspace: where the images lie.
        pack: name of a checkpoint, or path of a pack's folder, see `generators.faces.analysis.find_pack`.
        weights: where checkpoints are looked for.
        device: "auto", "cpu", "cuda:0"; of several the first is used.
        threads: that read, and on a CPU of one network; 0 takes as many as there are cores.
        dry_run: opens the pack, counts, and writes nothing.

    Raises:
        ConfigError: unknown pack or device, or images that another pack has analysed.
        WeightsMissing, WeightsError, TermsNotAccepted: of the pack.
    """
    analysis, identity = need(workspace, pack, weights, device, threads)
    rows = _pending(workspace)
    summary = Summary(pending=rows.num_rows)
    if dry_run:
        return summary
    before = set(workspace.groups.keys().to_pylist()) & set(rows["id"].to_pylist())

    def load(row: dict[str, Any]) -> images.Image:
        return images.decode_stored(images.read_bytes(workspace.resolve(row["image"])))

    def look(batch: Sequence[images.Image]) -> list[list[FaceFacts] | BadImage]:
        found: list[list[FaceFacts] | BadImage] = []
        for image in batch:
            try:
                found.append(analysis.faces(image))
            except BadImage as error:
                found.append(error)
        return found

    def finish(row: dict[str, Any], _: Any, seen: list[FaceFacts] | Exception) -> tuple[dict[str, Any], str]:
        if isinstance(seen, BadImage):
            return row, f"{row['image']}: {seen.message}"
        if isinstance(seen, Exception):
            raise seen
        return {"id": row["id"], "pack": identity, "pack_name": known_as, **_columns(seen)}, ""

    failed: dict[str, str] = {}
    known_as = pack if pack in catalogue() else None
    loop = Loop(load, look, finish, threads or max(2, parallel.cores()))
    with (
        Progress("analyse faces", summary.pending, "images") as progress,
        store.Appender(workspace.faces) as done,
    ):
        for results in loop.run(_batches(rows)):
            progress.note = f"device {loop.busy.share:.0%} busy"
            for row, bad in results:
                if bad:
                    failed[row["id"]] = bad
                    summary.reasons[bad] += 1
                else:
                    done.add(row)
                    summary.analysed += 1
                progress.step("failed" if bad else "ok", bad)
    summary.failed = len(failed)
    supersede(workspace, failed, "failed")
    summary.excluded = leave_out_faces(workspace)
    if before:
        _log.warning(
            "%s images had their identity group before their face was known, and keep it: two groups may be one "
            "person. If nothing is planned yet, delete tables/groups to group them anew",
            f"{len(before):,}",
        )
    group(workspace)
    return summary


def pack_of(workspace: Workspace) -> str:
    """The pack that the recipe names, its path made independent of the current folder; "" for none."""
    name = workspace.recipe.ingest.analysis
    return str(workspace.root / Path(name).expanduser()) if "/" in name else name


def need(
    workspace: Workspace, pack: str, weights: Weights, device: str = "auto", threads: int = 0
) -> tuple[Analysis, str]:
    """Opens a pack, so that one that is missing or spoilt stops a run before any work.

    Returns:
        The analysis, and the identity of its pack.

    Raises:
        As `analyse`.
    """
    try:
        from generators.faces.analysis import AGE, POSE, RECOGNITION, Analysis, find_pack

        folder, identity = find_pack(pack, weights)
        _refuse_other_packs(workspace, identity)
        wanted = [RECOGNITION, POSE] + [AGE] * (workspace.recipe.ingest.min_estimated_age > 0)
        return Analysis(folder, _onnx_device(device), needs=wanted, threads=threads), identity
    except ModuleNotFoundError as error:
        raise needs_models(error) from error


def _onnx_device(text: str) -> str:
    """The device for onnxruntime, whose CPU build is the usual one: "auto" is a GPU only where it can drive it."""
    import onnxruntime

    if text == "auto" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "cpu"
    return devices(text)[0]


def _refuse_other_packs(workspace: Workspace, identity: str) -> None:
    """Embeddings of two packs cannot be compared.

    Raises:
        ConfigError: the table holds another pack's.
    """
    packs = workspace.faces.read(["pack"])["pack"].unique().to_pylist()
    if other := [pack for pack in packs if pack != identity]:
        raise ConfigError(
            f"faces of this workspace were analysed with another pack ({other[0]}), which cannot be compared with "
            f"this one ({identity})",
            f"use that pack, or delete {workspace.faces.folder} to analyse all images anew",
        )


def _pending(workspace: Workspace) -> pa.Table:
    """Id and stored image of the usable images that were not looked at."""
    table = workspace.pristine.read(["id", "status", "image"])
    usable = pc.and_(pc.equal(table["status"], "ok"), pc.is_valid(table["image"]))
    new = pc.invert(pc.is_in(table["id"], workspace.faces.keys().combine_chunks()))
    return table.filter(pc.and_(usable, new)).select(["id", "image"])


def _batches(rows: pa.Table) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, rows.num_rows, BATCH):
        yield rows.slice(start, BATCH).to_pylist()


def _columns(faces: list[FaceFacts]) -> dict[str, Any]:
    """The columns of `schema.FACES` that say what was seen."""
    from generators.faces.analysis import counted

    if not faces:
        return {"count": 0, "scores": []}
    people = counted(faces)
    main = people[0]
    return {
        "count": len(people),
        "scores": [face.score for face in people],
        "box": main.box,
        "points": main.points,
        "age": main.age,
        "pose": main.pose,
        "embedding": None if main.embedding is None else main.embedding.astype(np.float16),
    }
