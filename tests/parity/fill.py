"""Draws the weights that a manifest describes: the same numbers on every machine.

A row of the manifest names a tensor, its shape, dtype and rule (`init`): "normal" with mean and std, "uniform" with
low and high, or "const" with a value or nested list. Every tensor has a generator of its own, seeded by the CRC-32 of
its name and by the seed, so that order and selection change nothing.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def tensor(rule: Mapping[str, Any], name: str, shape: Sequence[int], dtype: str, seed: int) -> NDArray[Any]:
    """One tensor.

    Raises:
        ValueError: the rule is of no known kind.
    """
    generator = np.random.Generator(np.random.PCG64([zlib.crc32(name.encode()), seed]))
    match rule["kind"]:
        case "const":
            return np.full(shape, np.asarray(rule["value"], dtype), dtype)
        case "normal":
            drawn = rule["mean"] + rule["std"] * generator.standard_normal(tuple(shape))
        case "uniform":
            drawn = generator.uniform(rule["low"], rule["high"], tuple(shape))
        case other:
            raise ValueError(f"{name}: unknown fill rule {other!r}")
    return np.asarray(drawn, dtype)


def weights(manifest: Path, seed: int) -> dict[str, NDArray[Any]]:
    """The state dict of a manifest file."""
    rows = json.loads(manifest.read_text("utf-8"))["tensors"]
    return {row["name"]: tensor(row["init"], row["name"], row["shape"], row["dtype"], seed) for row in rows}
