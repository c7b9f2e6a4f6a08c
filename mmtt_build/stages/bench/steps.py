"""Benchmarks of the stages' steps: ingest, mask contract, export, resume, plan."""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as PillowImage

from mmtt_build import images, masks, schema
from mmtt_build.stages.bench.synthetic import synthetic_workspace
from mmtt_build.stages.bench.timing import Say, face, heading, line, medians, row
from mmtt_build.stages.ingest import perceptual_hash
from mmtt_build.triplets import write_split


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
    picture = face()
    jpeg, png = _encoded(picture, "JPEG", quality=95), _encoded(picture, "PNG")
    small = images.to_size(picture)
    stored = images.encode_rgb(small)
    heading(say, "ingest, per image")
    twin = "Pillow: LANCZOS, default PNG, sha256 of pixels"
    row(say, "whole road, 1024 px JPEG", lambda: _our_road(jpeg), lambda: _pillow_road(jpeg), twin)
    row(say, "whole road, 1024 px PNG", lambda: _our_road(png), lambda: _pillow_road(png), twin)
    opened = PillowImage.fromarray(picture)
    shrunk = PillowImage.fromarray(small)
    row(
        say, "decode JPEG", lambda: images.decode_rgb(jpeg), lambda: PillowImage.open(io.BytesIO(jpeg)).load(), "Pillow"
    )
    row(say, "decode PNG", lambda: images.decode_rgb(png), lambda: PillowImage.open(io.BytesIO(png)).load(), "Pillow")
    row(
        say, "resize 1024 -> 512",
        lambda: images.to_size(picture),
        lambda: opened.resize((512, 512), PillowImage.Resampling.LANCZOS), "Pillow LANCZOS",
    )  # fmt: skip
    row(
        say,
        "encode PNG",
        lambda: images.encode_rgb(small),
        lambda: shrunk.save(io.BytesIO(), "PNG"),
        "Pillow default PNG",
    )
    say(f"  stored PNG {len(stored):,} bytes, Pillow's {len(_encoded(small, 'PNG')):,}")


def contract(say: Say) -> None:
    """Composite, mask encode and mask contract, beside the image encode of the naive road."""
    base = images.to_size(face())
    mask = np.zeros((512, 512), np.bool_)
    mask[cv2.ellipse(np.zeros((512, 512), np.uint8), (256, 280), (120, 150), 8, 0, 360, 1, -1) > 0] = True
    forged = masks.composite(base, cv2.GaussianBlur(base, (9, 9), 0), mask)
    heading(say, "mask contract, per forgery")

    def ours() -> None:
        images.encode_grey(masks.to_grey(mask))
        masks.check(base, forged, mask)

    picture = PillowImage.fromarray(base)
    ratio = row(say, "mask encode + contract check", ours, lambda: picture.save(io.BytesIO(), "PNG"), "image encode")
    say(f"  = {1 / ratio:.2%} of the image encode")
    blurred = cv2.GaussianBlur(base, (9, 9), 0)

    def by_hand() -> None:
        difference = np.abs(base.astype(np.int32) - forged.astype(np.int32))
        difference[mask].any(axis=1).mean(), difference[mask].mean(), difference[~mask].max()

    row(say, "contract check", lambda: masks.check(base, forged, mask), by_hand, "NumPy in int32")
    soft = np.repeat(mask[..., None].astype(np.float64), 3, axis=2)
    row(
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
    heading(say, f"export, {len(rows)} rows of 430 kB")
    with tempfile.TemporaryDirectory() as folder:
        ours, naive = Path(folder, "ours.parquet"), Path(folder, "naive.parquet")
        our_ms, *_ = figures = medians(
            lambda: write_split(rows, ours, schema.TRIPLETS), lambda: pq.write_table(bare, naive), 5
        )
        size = ours.stat().st_size
    line(say, "page checksums, index, row groups", figures, "bare pyarrow write")
    say(f"  = {len(rows) / our_ms * 1e3:,.0f} rows/s, {size / our_ms / 1e3:,.0f} MB/s")


def resume(say: Say) -> None:
    """A generate run with nothing to do over 152,000 forged rows, beside reading every column of the tables."""
    from mmtt_build.stages.generate import generate

    with tempfile.TemporaryDirectory() as folder:
        workspace = synthetic_workspace(Path(folder, "w"), images=10_000, forgeries=152_000, forged=True)
        heading(say, "no-op resume over 152,000 forged rows")

        def naive() -> None:
            done = {row["forgery_id"] for row in workspace.forgeries.read().to_pylist()}
            [row for row in workspace.plan.read().to_pylist() if row["forgery_id"] not in done]

        line(say, "mmtt build generate", medians(lambda: generate(workspace), naive, 3), "all rows as dicts")


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
