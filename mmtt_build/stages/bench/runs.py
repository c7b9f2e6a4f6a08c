"""Benchmarks of whole runs: the loop around a network, and the memory that stages take."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from generators.base import Family, Forged, Job, Method, Params, Rejection
from mmtt_build import images, masks, parts, schema, store
from mmtt_build.loop import Loop
from mmtt_build.portraits import draw
from mmtt_build.records import Pristine
from mmtt_build.registry import METHODS
from mmtt_build.stages import forge
from mmtt_build.stages.bench.timing import Say, face
from mmtt_build.workspace import Workspace


class _Inverted(Method):
    """Inverts the nose: a method that costs nothing, so that what is measured is the loop around it."""

    name = "inverted"
    family = Family.ATTRIBUTE_EDIT

    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params:
        return {"parts": ["nose"]}

    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        return [self._invert(job) for job in batch]

    def _invert(self, job: Job) -> Forged:
        mask = parts.select(job.labels, ["nose"])
        return Forged(masks.composite(job.image, 255 - job.image, mask), mask)


class _Asleep(_Inverted):
    """Stands for a network on a device: 50 ms a batch of 8, in which it takes nothing of the CPU."""

    neural = True

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, Forged] = {}

    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        for job in batch:
            if job.seed not in self.made:
                self.made[job.seed] = self._invert(job)
        time.sleep(0.05)
        return [self.made[job.seed] for job in batch]


def loop(say: Say) -> None:
    """The loop around a network: how busy it keeps a device that takes 50 ms for 8 images of 512 px.

    It writes some 45 MB/s where TMPDIR says: a slow disk is measured with it.
    """
    batches, method = 40, _Asleep()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.init(Path(folder, "w"))
        _store_face(workspace)

        def rows(batch: int, what: str) -> list[dict[str, Any]]:
            names = [f"{what}-{batch}-{i}" for i in range(8)]
            planned = dict.fromkeys([*schema.PLAN.names, *forge.OF_BASE]) | {
                "base_id": "face",
                "seed": 0,
                "params": "{}",
            }
            return [planned | {"forgery_id": name} for name in names]

        forger = forge.Forger(method)
        forger([forger.load(workspace, row) for row in rows(0, "")])

        def ours() -> tuple[float, float]:
            road: Loop[dict[str, Any], forge.Loaded, Any, dict[str, Any]] = Loop(
                partial(forger.load, workspace), forger, partial(forge.finish, workspace, method)
            )
            start = time.perf_counter()
            made = [row for results in road.run(rows(i, "loop") for i in range(batches)) for row in results]
            assert all(row["status"] == "ok" for row in made)
            return time.perf_counter() - start, road.busy.share

        def plain() -> tuple[float, float]:
            busy = 0.0
            start = time.perf_counter()
            for i in range(batches):
                jobs = [forger.load(workspace, row) for row in rows(i, "plain")]
                begun = time.perf_counter()
                made = forger(jobs)
                busy += time.perf_counter() - begun
                for row, job, forgery in zip(rows(i, "plain"), jobs, made, strict=True):
                    forge.finish(workspace, method, row, job, forgery)
            elapsed = time.perf_counter() - start
            return elapsed, busy / elapsed

        figures = {"loop": ours(), "plain decode-forge-encode": plain()}
    say(f"loop, {batches} batches of 8, files in {tempfile.gettempdir()}")
    say(f"  {'':<34} {'images/s':>9} {'device busy':>12}")
    for name, (seconds, share) in figures.items():
        say(f"  {name:<34} {batches * 8 / seconds:>9.1f} {share:>12.1%}")


def _store_face(workspace: Workspace) -> None:
    """Stores a base and its part map."""
    picture, labels = images.to_size(face()), draw(7, 512).labels
    for kind, data in (("pristine", images.encode_rgb(picture)), ("parts", images.encode_grey(labels))):
        store.write_file(workspace.root / workspace.image_path(kind, "face"), data)


def _peak_of_stage(stage: str, root: Path, queue: Any) -> None:
    """Runs one stage in this process and reports its peak memory in MB."""
    from mmtt_build.sources.base import Options
    from mmtt_build.stages.export import export
    from mmtt_build.stages.generate import Machine, generate
    from mmtt_build.stages.ingest import ingest as ingest_stage

    METHODS.builtin["inverted"] = f"{__name__}:_Inverted"
    workspace = Workspace(root)
    if stage == "ingest":
        ingest_stage(workspace, "folder", root / "faces", Options(), workers=1)
    elif stage == "generate":
        generate(workspace, machine=Machine(workers=1))
    else:
        export(workspace, undescribed=True, json_layout=False, workers=1)
    queue.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memory(say: Say) -> None:
    """Peak memory of ingest, generate and export over 1,000 and over 10,000 rows (takes some minutes)."""
    spawn = multiprocessing.get_context("spawn")
    peaks: dict[str, list[float]] = {"ingest": [], "generate": [], "export": []}
    counts = (1_000, 10_000)
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "w")
            workspace = Workspace.init(root)
            recipe = root / "mmtt.toml"
            text = recipe.read_text("utf-8")
            text = text[: text.index("[mix]")].replace("total = 0 ", f"total = {count} ")
            recipe.write_text(text + "[mix]\ninverted = 1.0\n", "utf-8")
            _write_faces(workspace.root / "faces", count)
            for stage, figures in peaks.items():
                queue = spawn.SimpleQueue()
                process = spawn.Process(target=_peak_of_stage, args=(stage, root, queue))
                process.start()
                figures.append(queue.get())
                process.join()
    say(f"memory\n  {'stage, peak MB':<34} {counts[0]:>9,} rows {counts[1]:>9,} rows")
    for stage, (few, many) in peaks.items():
        say(f"  {stage:<34} {few:>12.0f}  {many:>12.0f}   {many / few - 1:+.1%}")


def _write_faces(folder: Path, count: int) -> None:
    """Different pictures of 512 px that decode quickly, with one and the same label map."""
    labels = draw(7, 512).labels
    (folder / "labels").mkdir(parents=True)
    rng = np.random.default_rng(0)
    stored = images.encode_grey(labels)
    for number in range(count):
        coarse = rng.integers(0, 256, (12, 12, 3), np.uint8)
        face = cv2.resize(coarse, (512, 512), interpolation=cv2.INTER_LINEAR)
        (folder / f"{number:05d}.png").write_bytes(images.encode_rgb(face))
        (folder / "labels" / f"{number:05d}.png").write_bytes(stored)
