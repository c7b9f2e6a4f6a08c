"""Any folder of aligned faces, with optional label maps.

Images lie anywhere below the folder. A label map is a one-channel PNG with the same relative path and stem below
`<folder>/labels/`; its values are parsing classes in the order the user names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mmtt_build.errors import SourceError
from mmtt_build.seeds import digest
from mmtt_build.sources.base import Item, LabelFile, Options, Source

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class Folder(Source):
    """A folder of aligned square faces."""

    def __init__(self, root: Path, options: Options) -> None:
        super().__init__(root, options)
        self.labels = root / "labels"
        # Names, not paths: a path object takes ten times the memory of its name.
        self.images = sorted(
            p.relative_to(root).as_posix()
            for p in root.rglob("*")
            if p.suffix.lower() in _SUFFIXES and not p.is_relative_to(self.labels)
        )
        if not self.images:
            raise SourceError(f"{root} has no image ({', '.join(_SUFFIXES)})", "name a folder of aligned faces")

    def __len__(self) -> int:
        """Number of image files."""
        return len(self.images)

    def items(self) -> Iterator[Item]:
        """The images in path order; names keep what is readable of the path and end in a digest of all of it."""
        for name in self.images:
            relative = Path(name)
            path = self.root / relative
            stem = re.sub(r"[^A-Za-z0-9]+", "-", relative.with_suffix("").as_posix()).strip("-")[-40:]
            labels = (self.labels / relative).with_suffix(".png")
            yield Item(
                name=f"{stem or 'x'}-{digest(relative.as_posix())[:8]}",
                path=path,
                parts=LabelFile(labels, self.options.order) if labels.is_file() else None,
                licence=self.options.licence or "unknown",
                excluded=self.excluded_by_user(path.stem, path.name, relative.as_posix()),
                note="" if labels.is_file() else "no label map: only methods that need no parts can use it",
            )
