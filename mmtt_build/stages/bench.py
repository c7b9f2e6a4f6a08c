"""Bench: ms per image and step beside a naive twin, in one run and on one thread.

A ratio of two things timed in turn holds on a machine whose speed drifts; a single time does not. Every figure is
the median over rounds in which the two alternate.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as PillowImage

from generators.base import Family, Forged, Job, Method, Params, Rejection
from mmtt_build import images, masks, parts, schema, store
from mmtt_build.errors import ConfigError
from mmtt_build.loop import Loop
from mmtt_build.portraits import draw
from mmtt_build.records import Pristine
from mmtt_build.registry import METHODS
from mmtt_build.stages import forge
from mmtt_build.stages.ingest import perceptual_hash
from mmtt_build.triplets import write_split
from mmtt_build.workspace import Workspace

ROUNDS = 9
Say = Callable[[str], None]


def _medians(
    ours: Callable[[], object], naive: Callable[[], object], rounds: int = ROUNDS
) -> tuple[float, float, float]:
    """Median ms of ours and of the twin, and the median of their ratio (twin / ours), after one warm-up each."""
    ours()
    naive()
    times = []
    for _ in range(rounds):
        pair = []
        for work in (ours, naive):
            start = time.perf_counter()
            work()
            pair.append((time.perf_counter() - start) * 1e3)
        times.append(pair)
    return (
        statistics.median(t for t, _ in times),
        statistics.median(t for _, t in times),
        statistics.median(naive_ms / our_ms for our_ms, naive_ms in times),
    )


def _row(say: Say, step: str, ours: Callable[[], object], naive: Callable[[], object], twin: str) -> float:
    figures = _medians(ours, naive)
    _line(say, step, figures, twin)
    return figures[2]


def _line(say: Say, step: str, figures: tuple[float, float, float], twin: str) -> None:
    our_ms, naive_ms, ratio = figures
    say(f"  {step:<34} {our_ms:>9.2f} ms {naive_ms:>9.2f} ms {ratio:>7.2f}x   {twin}")


def _heading(say: Say, title: str) -> None:
    say(f"{title}\n  {'step':<34} {'ours':>12} {'naive':>12} {'naive/ours':>8}   naive is")


def _face() -> images.Image:
    """A drawn portrait at 1024 px with camera noise, so that it compresses as a photograph does."""
    portrait = draw(7, 1024).image
    noise = np.random.default_rng(7).normal(0, 2.0, portrait.shape)
    return np.clip(np.rint(portrait + noise), 0, 255).astype(np.uint8)


def _encoded(image: images.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def _our_road(data: bytes) -> bytes:
    image = images.to_size(images.decode_rgb(data))
    hashlib.blake2b(data, digest_size=16).hexdigest()
    perceptual_hash(image)
    return images.encode_rgb(image)


def _pillow_road(data: bytes) -> bytes:
    image = PillowImage.open(io.BytesIO(data)).convert("RGB").resize((512, 512), PillowImage.Resampling.LANCZOS)
    hashlib.sha256(image.tobytes()).hexdigest()
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def ingest(say: Say) -> None:
    """Decode, shrink, hash and encode one 1024 px image, beside Pillow's defaults."""
    face = _face()
    jpeg, png = _encoded(face, "JPEG", quality=95), _encoded(face, "PNG")
    small = images.to_size(face)
    stored = images.encode_rgb(small)
    _heading(say, "ingest, per image")
    twin = "Pillow: LANCZOS, default PNG, sha256 of pixels"
    _row(say, "whole road, 1024 px JPEG", lambda: _our_road(jpeg), lambda: _pillow_road(jpeg), twin)
    _row(say, "whole road, 1024 px PNG", lambda: _our_road(png), lambda: _pillow_road(png), twin)
    opened = PillowImage.fromarray(face)
    shrunk = PillowImage.fromarray(small)
    _row(
        say, "decode JPEG", lambda: images.decode_rgb(jpeg), lambda: PillowImage.open(io.BytesIO(jpeg)).load(), "Pillow"
    )
    _row(say, "decode PNG", lambda: images.decode_rgb(png), lambda: PillowImage.open(io.BytesIO(png)).load(), "Pillow")
    _row(
        say, "resize 1024 -> 512",
        lambda: images.to_size(face),
        lambda: opened.resize((512, 512), PillowImage.Resampling.LANCZOS), "Pillow LANCZOS",
    )  # fmt: skip
    _row(
        say,
        "encode PNG",
        lambda: images.encode_rgb(small),
        lambda: shrunk.save(io.BytesIO(), "PNG"),
        "Pillow default PNG",
    )
    say(f"  stored PNG {len(stored):,} bytes, Pillow's {len(_encoded(small, 'PNG')):,}")


def contract(say: Say) -> None:
    """Composite, mask encode and mask contract, beside the image encode of the naive road."""
    base = images.to_size(_face())
    mask = np.zeros((512, 512), np.bool_)
    mask[cv2.ellipse(np.zeros((512, 512), np.uint8), (256, 280), (120, 150), 8, 0, 360, 1, -1) > 0] = True
    forged = masks.composite(base, cv2.GaussianBlur(base, (9, 9), 0), mask)
    _heading(say, "mask contract, per forgery")

    def ours() -> None:
        images.encode_grey(masks.to_grey(mask))
        masks.check(base, forged, mask)

    picture = PillowImage.fromarray(base)
    ratio = _row(say, "mask encode + contract check", ours, lambda: picture.save(io.BytesIO(), "PNG"), "image encode")
    say(f"  = {1 / ratio:.2%} of the image encode")
    blurred = cv2.GaussianBlur(base, (9, 9), 0)

    def by_hand() -> None:
        difference = np.abs(base.astype(np.int32) - forged.astype(np.int32))
        difference[mask].any(axis=1).mean(), difference[mask].mean(), difference[~mask].max()

    _row(say, "contract check", lambda: masks.check(base, forged, mask), by_hand, "NumPy in int32")
    soft = np.repeat(mask[..., None].astype(np.float64), 3, axis=2)
    _row(
        say, "composite",
        lambda: masks.composite(base, blurred, mask), lambda: (base * (1 - soft) + blurred * soft).astype(np.uint8),
        "float64 alpha blend",
    )  # fmt: skip


def export(say: Say) -> None:
    """Parquet rows of 430 kB with checksums and page index, beside a bare pyarrow write of the same bytes."""
    rng = np.random.default_rng(0)
    rows = [
        {
            name: f"{name}-{number}" if field.type == pa.string() else None
            for name, field in zip(schema.TRIPLETS.names, schema.TRIPLETS, strict=True)
        }
        | {
            "image": {"bytes": rng.bytes(428_000), "path": f"forged/{number}.png"},
            "mask": {"bytes": rng.bytes(2_000), "path": f"masks/{number}.png"},
            "params": "{}",
        }
        for number in range(200)
    ]
    bare = pa.Table.from_pylist(rows, schema=schema.TRIPLETS)
    _heading(say, f"export, {len(rows)} rows of 430 kB")
    with tempfile.TemporaryDirectory() as folder:
        ours, naive = Path(folder, "ours.parquet"), Path(folder, "naive.parquet")
        our_ms, *_ = figures = _medians(
            lambda: write_split(rows, ours, schema.TRIPLETS), lambda: pq.write_table(bare, naive), 5
        )
        size = ours.stat().st_size
    _line(say, "page checksums, index, row groups", figures, "bare pyarrow write")
    say(f"  = {len(rows) / our_ms * 1e3:,.0f} rows/s, {size / our_ms / 1e3:,.0f} MB/s")


def resume(say: Say) -> None:
    """A generate run with nothing to do over 152,000 forged rows, beside reading every column of the tables."""
    from mmtt_build.stages.generate import generate

    with tempfile.TemporaryDirectory() as folder:
        workspace = synthetic_workspace(Path(folder, "w"), images=10_000, forgeries=152_000, forged=True)
        _heading(say, "no-op resume over 152,000 forged rows")

        def naive() -> None:
            done = {row["forgery_id"] for row in workspace.forgeries.read().to_pylist()}
            [row for row in workspace.plan.read().to_pylist() if row["forgery_id"] not in done]

        _line(say, "mmtt build generate", _medians(lambda: generate(workspace), naive, 3), "all rows as dicts")


def planning(say: Say) -> None:
    """Planning 152,000 rows from 100,000 sources (no twin: nothing else does this)."""
    from mmtt_build.stages.plan import plan

    with tempfile.TemporaryDirectory() as folder:
        workspace = synthetic_workspace(Path(folder, "w"), images=100_000)
        start = time.perf_counter()
        result = plan(workspace, total=152_000)
        seconds = time.perf_counter() - start
    rows = sum(result.added.values())
    say(f"plan\n  {rows:,} rows from 100,000 sources: {seconds:.1f} s, {rows / seconds:,.0f} rows/s")


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
    """The loop around a network: how busy it keeps a device that takes 50 ms for 8 images of 512 px."""
    batches, method = 40, _Asleep()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.init(Path(folder, "w"))
        _store_face(workspace)

        def rows(batch: int, what: str) -> list[dict[str, Any]]:
            names = [f"{what}-{batch}-{i}" for i in range(8)]
            planned = dict.fromkeys(schema.PLAN.names) | {"base_id": "face", "seed": 0, "params": "{}"}
            return [planned | {"forgery_id": name} for name in names]

        method.forge([forge.load(workspace, row) for row in rows(0, "")])

        def ours() -> tuple[float, float]:
            road: Loop[dict[str, Any], Job, Any, dict[str, Any]] = Loop(
                partial(forge.load, workspace), forge.Forger(method), partial(forge.finish, workspace, method)
            )
            start = time.perf_counter()
            made = [row for results in road.run(rows(i, "loop") for i in range(batches)) for row in results]
            assert all(row["status"] == "ok" for row in made)
            return time.perf_counter() - start, road.busy.share

        def plain() -> tuple[float, float]:
            forger, busy = forge.Forger(method), 0.0
            start = time.perf_counter()
            for i in range(batches):
                jobs = [forge.load(workspace, row) for row in rows(i, "plain")]
                begun = time.perf_counter()
                made = forger(jobs)
                busy += time.perf_counter() - begun
                for row, job, forgery in zip(rows(i, "plain"), jobs, made, strict=True):
                    forge.finish(workspace, method, row, job, forgery)
            elapsed = time.perf_counter() - start
            return elapsed, busy / elapsed

        figures = {"loop": ours(), "plain decode-forge-encode": plain()}
    say(f"loop, {batches} batches of 8\n  {'':<34} {'images/s':>9} {'device busy':>12}")
    for name, (seconds, share) in figures.items():
        say(f"  {name:<34} {batches * 8 / seconds:>9.1f} {share:>12.1%}")


def _store_face(workspace: Workspace) -> None:
    """Stores a base and its part map."""
    face, labels = images.to_size(_face()), draw(7, 512).labels
    for kind, data in (("pristine", images.encode_rgb(face)), ("parts", images.encode_grey(labels))):
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


BENCHES: dict[str, Callable[[Say], None]] = {
    "ingest": ingest,
    "contract": contract,
    "export": export,
    "resume": resume,
    "plan": planning,
    "loop": loop,
    "memory": memory,
}
ON_REQUEST = {"memory"}
"""Benchmarks that take minutes: only when named."""


def bench(names: Sequence[str] = (), *, say: Say) -> None:
    """Runs benchmarks by name, all by default.

    Args:
        names: of `BENCHES`; none means all that take less than minutes.
        say: gets the lines.

    Raises:
        ConfigError: unknown name.
    """
    if unknown := set(names) - set(BENCHES):
        raise ConfigError(f"unknown benchmark {', '.join(sorted(unknown))}", f"known: {', '.join(BENCHES)}")
    threads, arrow_threads = cv2.getNumThreads(), pa.cpu_count()
    cv2.setNumThreads(1)
    pa.set_cpu_count(1)
    try:
        for name in names or (name for name in BENCHES if name not in ON_REQUEST):
            BENCHES[name](say)
    finally:
        cv2.setNumThreads(threads)
        pa.set_cpu_count(arrow_threads)


def synthetic_workspace(root: Path, *, images: int, forgeries: int = 0, forged: bool = False) -> Workspace:
    """A workspace whose tables are full and whose image folders are empty, to measure what tables cost.

    Args:
        root: a new folder.
        images: pristine rows, five to every three identities.
        forgeries: rows to plan.
        forged: gives every planned row a forgery row with status "ok".
    """
    from mmtt_build.stages.plan import plan

    rng = np.random.default_rng(0)
    workspace = Workspace.init(root)
    areas = [
        50_000,
        60_000,
        4_000,
        0,
        900,
        900,
        1_500,
        1_500,
        500,
        500,
        0,
        1_500,
        1_800,
        60_000,
        0,
        0,
        0,
        12_000,
        3_000,
    ]
    places = np.array([320, 245, 192, 245, 256, 300, 310, 380, 202, 380]) + rng.normal(0, 4, (images, 10))
    skin = np.array([62, 14, 18]) + rng.normal(0, 5, (images, 3))
    names = [f"synthetic-{i:06d}" for i in range(images)]
    pristine = {
        "id": names,
        "source": ["synthetic"] * images,
        "status": ["ok"] * images,
        "licence": ["CC0-1.0"] * images,
        "parts": [f"images/parts/{name}.png" for name in names],
        "part_areas": [areas] * images,
        "points": list(places),
        "skin_lab": list(skin),
        "phash": [rng.bytes(32) for _ in names],
    }
    groups = [f"person-{i * 3 // 5}" for i in range(images)]
    split = {name: ("train", "val", "test")[max(0, int(rng.integers(10)) - 7)] for name in dict.fromkeys(groups)}
    nulls = {field.name: pa.nulls(images, field.type) for field in schema.PRISTINE if field.name not in pristine}
    filled = {name: pa.array(values, schema.PRISTINE.field(name).type) for name, values in pristine.items()}
    workspace.pristine.append(pa.table(filled | nulls).select(schema.PRISTINE.names).cast(schema.PRISTINE))
    workspace.groups.append(
        pa.table({"id": names, "identity_group": groups, "split": [split[g] for g in groups]}, schema.GROUPS)
    )
    if forgeries:
        recipe = root / "mmtt.toml"
        recipe.write_text(recipe.read_text("utf-8").replace("total = 0 ", f"total = {forgeries} "), "utf-8")
        workspace = Workspace(root)
        plan(workspace)
    if forged:
        planned = workspace.plan.read(["forgery_id", "method", "split"])
        made = planned.append_column("status", pa.array(["ok"] * planned.num_rows))
        for field in schema.FORGERIES:
            if field.name not in made.column_names:
                made = made.append_column(field, pa.nulls(made.num_rows, field.type))
        made = made.select(schema.FORGERIES.names).cast(schema.FORGERIES)
        for start in range(0, made.num_rows, 1000):  # as many shards as a long run leaves
            workspace.forgeries.append(made.slice(start, 1000))
    return workspace
