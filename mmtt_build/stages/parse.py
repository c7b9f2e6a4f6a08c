"""Parse: part maps by a network, for ingested images whose source has none drawn by people.

A second pass over stored images: each parsed image gets a map and a superseding row, each that cannot be a face's a
failed one. What is parsed already is skipped, so a killed run continues where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mmtt_build import images, parallel, parts, store
from mmtt_build.errors import BadImage
from mmtt_build.loop import Loop
from mmtt_build.progress import Progress
from mmtt_build.registry import Registry
from mmtt_build.sources.base import describe
from mmtt_build.stages.devices import devices, needs_models
from mmtt_build.weights import Found, Weights
from mmtt_build.workspace import Workspace

if TYPE_CHECKING:
    from mmtt_build.parts import LabelMap

PARSERS = Registry("parser", {"bisenet": "generators.faces.parser:Parser"})
"""Made from a device, weights; `parse(images)` gives part maps. The name is the checkpoint's, too."""

BATCH = 8
"""Images on the device at once: 0.4 GB. On a CPU the time per image is that of one by one."""


@dataclass(slots=True)
class Summary:
    """Counts of one parse run.

    Attributes:
        pending: images that this run was to parse.
        ok: parsed ones.
        failed: those whose map cannot be a face's, or whose stored image is damaged.
        planned: images that keep a map from landmarks, since a plan was drawn with it.
        reasons: of the failed ones.
    """

    pending: int = 0
    ok: int = 0
    failed: int = 0
    planned: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def parse(
    workspace: Workspace,
    parser: str,
    weights: Weights,
    *,
    device: str = "auto",
    threads: int = 0,
    dry_run: bool = False,
) -> Summary:
    """Parses the usable images that have no part map, or one drawn from landmarks.

    Maps that came with the source are left alone, and so are those that a plan was drawn with.

    Args:
        workspace: where the images lie.
        parser: registered name, which is that of its checkpoint too.
        weights: where the checkpoint is looked for.
        device: "auto", "cpu", "cuda:0"; of several the first is used.
        threads: that read and write; 0 takes as many as there are cores.
        dry_run: counts and writes nothing.

    Raises:
        MmttError: as `need`, before any work.
    """
    found = need(parser, weights, device)
    rows, planned = _pending(workspace)
    summary = Summary(pending=rows.num_rows, planned=planned)
    if dry_run or not summary.pending:
        return summary
    network = PARSERS.get(parser)(devices(device)[0], weights)

    def load(row: dict[str, Any]) -> images.Image:
        return images.decode_stored(images.read_bytes(workspace.resolve(row["image"])))

    def finish(row: dict[str, Any], image: images.Image | None, made: LabelMap | Exception) -> dict[str, Any]:
        if isinstance(made, BadImage):
            return row | {"status": "failed", "reason": f"stored image: {made.message}"}
        if isinstance(made, Exception):
            raise made
        assert image is not None  # nothing is made of nothing
        try:
            facts = _describe(made, image)
        except BadImage as error:
            return row | {"status": "failed", "reason": f"{parser}: {error.message}"}
        path = workspace.image_path("parts", row["id"])
        store.write_file(workspace.root / path, images.encode_grey(made))
        origin = {"parts": path, "parts_origin": parser, "parts_weights": found.identity}
        return row | {"reason": None} | facts | origin

    loop = Loop(load, network.parse, finish, threads or max(2, parallel.cores()))
    with (
        Progress(f"parse {parser}", summary.pending, "images") as progress,
        store.Appender(workspace.pristine) as done,
    ):
        for results in loop.run(_batches(rows)):
            progress.note = f"device {loop.busy.share:.0%} busy"
            for row in results:
                done.add(row)
                bad = row["status"] != "ok"
                progress.step(row["status"], row["reason"] if bad else "")
                summary.ok += not bad
                summary.failed += bad
                if bad:
                    summary.reasons[row["reason"]] += 1
    return summary


def need(parser: str, weights: Weights, device: str = "auto") -> Found:
    """The parser's checkpoint; what would stop `parse` is raised here, without importing torch where that can be.

    Raises:
        ConfigError: unknown parser, or a device that is not there.
        MmttError: the extra `[models]` is not installed.
        WeightsMissing, WeightsError, TermsNotAccepted: of the checkpoint.
    """
    PARSERS.target(parser)
    for package in ("torch", "facexlib"):
        if find_spec(package) is None:
            raise needs_models(ModuleNotFoundError(name=package))
    if device != "auto":
        devices(device)
    return weights.find(parser)


def _describe(labels: LabelMap, image: images.Image) -> dict[str, object]:
    """Facts about a face, as `sources.base.describe`.

    Raises:
        BadImage: the map cannot be a face's. A network finds skin and hair in any picture; a nose or a mouth it does
            not, and a face has one of them even where glasses, hair or a hand hide the rest.
    """
    facts = describe(labels, image)
    if not parts.select(labels, ["nose", "mouth", "u_lip", "l_lip"]).any():
        raise BadImage("no face: the part map has neither nose nor mouth")
    return facts


def _pending(workspace: Workspace) -> tuple[pa.Table, int]:
    """Rows to parse, whole, and how many are left out because a plan was drawn with their landmarks' map."""
    table = workspace.pristine.read(["id", "status", "image", "parts", "parts_origin"])
    usable = pc.and_(pc.equal(table["status"], "ok"), pc.is_valid(table["image"]))
    bare = pc.is_null(table["parts"])
    drawn = pc.fill_null(pc.equal(table["parts_origin"], "landmarks"), False)
    plan = workspace.plan.read(["forgery_id", "base_id", "source_id"])
    used = pa.chunked_array([*plan["base_id"].chunks, *plan["source_id"].chunks], pa.string()).unique()
    fixed = pc.and_(pc.and_(usable, drawn), pc.is_in(table["id"], used))
    wanted = table["id"].filter(pc.and_(pc.and_(usable, pc.or_(bare, drawn)), pc.invert(fixed)))
    planned = int(pc.sum(fixed).as_py() or 0)
    if not len(wanted):
        return workspace.pristine.schema.empty_table(), planned
    rows = workspace.pristine.read()
    return rows.filter(pc.is_in(rows["id"], wanted.combine_chunks())), planned


def _batches(rows: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """Rows as records, `BATCH` at a time."""
    for start in range(0, rows.num_rows, BATCH):
        yield rows.slice(start, BATCH).to_pylist()
