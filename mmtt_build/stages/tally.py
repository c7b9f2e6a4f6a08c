"""Tally: what a run of QC counted, on answers or on forgeries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(slots=True)
class Tally:
    """Counts of one run.

    Attributes:
        verdicts: rows by verdict.
        findings: findings on them by rule.
        examples: id of one row that a rule objects to, by rule.
        changed: rows that were judged anew because they, what is known beside them, or the rules changed.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    changed: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Counts a row of `schema.FINDINGS` or `schema.IMAGE_CHECKS`."""
        self.verdicts[row["verdict"]] += 1
        for rule in {finding["rule"] for finding in row["findings"]}:
            self.findings[rule] += 1
            self.examples.setdefault(rule, row.get("annotation_id") or row["forgery_id"])

    def add_all(self, rows: pa.Table) -> None:
        """Counts many rows, of which most have no finding."""
        clean = pc.equal(pc.list_value_length(rows["findings"]), 0)
        self.verdicts.update(rows.filter(clean)["verdict"].to_pylist())
        for batch in rows.filter(pc.invert(clean)).to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                self.add(row)
