"""Status: how far each method has come in each split, and what went wrong."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmtt_build.workspace import Workspace

STEPS = ("planned", "forged", "rejected", "failed", "described", "accepted", "exported")


@dataclass(frozen=True, slots=True)
class Status:
    """Counts of one workspace.

    Attributes:
        sources: images by (source, status).
        source_reasons: excluded and failed images by reason.
        rows: counts per step of `STEPS`, by (method, split).
        reasons: rejected and failed forgeries by (method, reason).
        releases: names of the finished releases; "exported" counts the latest.
    """

    sources: Counter[tuple[str, str]]
    source_reasons: Counter[str]
    rows: dict[tuple[str, str], Counter[str]]
    reasons: Counter[tuple[str, str]]
    releases: list[str]


def status(workspace: Workspace) -> Status:
    """Counts what the tables hold."""
    pristine = workspace.pristine.read(["source", "status", "reason"])
    unusable = pristine.filter(pc.not_equal(pristine["status"], "ok"))
    plan = workspace.plan.read(["forgery_id", "method", "split"])
    made = workspace.forgeries.read(["forgery_id", "status", "method", "reason"])
    annotations = workspace.annotations.read(["forgery_id", "answer"])
    findings = workspace.findings.read(["forgery_id", "verdict"])
    bad = made.filter(pc.not_equal(made["status"], "ok"))
    releases = workspace.releases()
    ids: dict[str, pa.ChunkedArray] = {
        "planned": plan["forgery_id"],
        "forged": made.filter(pc.equal(made["status"], "ok"))["forgery_id"],
        "rejected": made.filter(pc.equal(made["status"], "rejected"))["forgery_id"],
        "failed": made.filter(pc.equal(made["status"], "failed"))["forgery_id"],
        "described": annotations.filter(pc.equal(annotations["answer"], "described"))["forgery_id"],
        "accepted": findings.filter(pc.equal(findings["verdict"], "accept"))["forgery_id"],
    }
    if releases:
        latest = max(releases, key=lambda path: (path / "manifest.json").stat().st_mtime)
        shards = sorted((latest / "data").glob("*.parquet"))
        columns = [pq.read_table(shard, columns=["forgery_id"])["forgery_id"].combine_chunks() for shard in shards]
        ids["exported"] = pa.chunked_array(columns, pa.string())
    rows: dict[tuple[str, str], Counter[str]] = {}
    for step, names in ids.items():
        part = plan.filter(pc.is_in(plan["forgery_id"], names.combine_chunks()))
        for entry in part.group_by(["method", "split"]).aggregate([([], "count_all")]).to_pylist():
            rows.setdefault((entry["method"], entry["split"]), Counter())[step] = entry["count_all"]
    # What follows the colon is one image's: scores, an age.
    return Status(
        Counter(zip(pristine["source"].to_pylist(), pristine["status"].to_pylist(), strict=True)),
        Counter(str(reason).partition(":")[0] for reason in unusable["reason"].to_pylist()),
        dict(sorted(rows.items())),
        Counter(zip(bad["method"].to_pylist(), bad["reason"].to_pylist(), strict=True)),
        [json.loads((path / "manifest.json").read_text("utf-8"))["version"] for path in releases],
    )
