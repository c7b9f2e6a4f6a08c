"""Seeds and stable fractions from keys, so that order, workers and machines change nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def digest(*key: object) -> str:
    """32 hex digits that depend on the key's parts and nothing else.

    File names that are not UTF-8 count by their bytes.
    """
    return hashlib.blake2b("\x1f".join(map(str, key)).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def seed_for(*key: object) -> int:
    """A seed in [0, 2**63) for a key."""
    return int(digest(*key)[:16], 16) >> 1


def rng_for(*key: object) -> np.random.Generator:
    """A generator seeded from a key."""
    return np.random.default_rng(seed_for(*key))


def fraction(*key: object) -> float:
    """A number in [0, 1), uniform over keys."""
    return seed_for(*key) / 2**63


def ranks(names: Iterable[str], *key: object) -> NDArray[np.uint64]:
    """A stable pseudo-random number per name: sort by it to shuffle names the same way everywhere."""
    return np.array([seed_for(*key, name) for name in names], np.uint64)


def remix(numbers: NDArray[np.uint64], *key: object) -> NDArray[np.uint64]:
    """Other pseudo-random numbers for the same names, per key: another shuffle without hashing the names again."""
    mixed = (numbers ^ np.uint64(seed_for(*key))) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
