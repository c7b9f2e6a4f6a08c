"""Seeds and stable fractions from keys, so that order, workers and machines change nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def digest(*key: object) -> str:
    """32 hex digits that depend on the key's parts and nothing else."""
    return hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=16).hexdigest()


def seed_for(*key: object) -> int:
    """A seed in [0, 2**63) for a key."""
    return int(digest(*key)[:16], 16) >> 1


def rng_for(*key: object) -> np.random.Generator:
    """A generator seeded from a key."""
    return np.random.default_rng(seed_for(*key))


def fraction(*key: object) -> float:
    """A number in [0, 1), uniform over keys."""
    return seed_for(*key) / 2**63


def ranks(names: Iterable[str], *key: object) -> NDArray[np.int64]:
    """A stable pseudo-random number per name: sort by it to shuffle names the same way everywhere."""
    return np.array([seed_for(*key, name) for name in names], np.int64)
