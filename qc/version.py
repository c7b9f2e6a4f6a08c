"""Which version of the rules judged: any change of their code or of a lexicon makes another one."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def rules_version(*modules: str) -> str:
    """Digest of this package's sources and lexica, or of the named modules alone, 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    folder = Path(__file__).parent
    for file in [folder / f"{name}.py" for name in modules] or sorted(
        [*folder.glob("*.py"), *folder.glob("lexicon/*")]
    ):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()
