"""Suite: ms per image and step beside a naive twin, in one run and on one thread.

A ratio of two things timed in turn holds on a machine whose speed drifts; a single time does not. Every figure is
the median over rounds in which the two alternate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import pyarrow as pa

from mmtt_build.errors import ConfigError
from mmtt_build.stages.bench.annotation import DEFAULTS, Options, annotate
from mmtt_build.stages.bench.nets import nets
from mmtt_build.stages.bench.qc import TEXTS, rules
from mmtt_build.stages.bench.runs import loop, memory
from mmtt_build.stages.bench.steps import contract, export, ingest, planning, resume
from mmtt_build.stages.bench.timing import Say

BENCHES: dict[str, Callable[[Say], None]] = {
    "ingest": ingest,
    "contract": contract,
    "export": export,
    "resume": resume,
    "plan": planning,
    "loop": loop,
    "memory": memory,
    "nets": nets,
    "annotate": annotate,
    "qc": rules,
}
ON_REQUEST = {"memory", "nets", "annotate", "qc"}
"""Benchmarks that take minutes: only when named."""


def bench(names: Sequence[str] = (), *, annotation: Options = DEFAULTS, texts: int = TEXTS, say: Say) -> None:
    """Runs benchmarks by name, all by default.

    Args:
        names: of `BENCHES`; none means all that take less than minutes.
        annotation: how `annotate` is to be measured.
        texts: descriptions that `qc` judges.
        say: gets the lines.

    Raises:
        ConfigError: unknown name.
    """
    if unknown := set(names) - set(BENCHES):
        raise ConfigError(f"unknown benchmark {', '.join(sorted(unknown))}", f"known: {', '.join(BENCHES)}")
    benches: dict[str, Callable[[Say], None]] = {
        **BENCHES,
        "annotate": partial(annotate, options=annotation),
        "qc": partial(rules, texts=texts),
    }
    threads, arrow_threads = cv2.getNumThreads(), pa.cpu_count()
    cv2.setNumThreads(1)
    pa.set_cpu_count(1)
    try:
        for name in names or (name for name in BENCHES if name not in ON_REQUEST):
            benches[name](say)
    finally:
        cv2.setNumThreads(threads)
        pa.set_cpu_count(arrow_threads)
