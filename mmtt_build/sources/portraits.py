"""Portraits drawn by `mmtt portraits`: read through the CelebAMask-HQ and the FFHQ adapter, like real data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mmtt_build.errors import SourceError
from mmtt_build.sources.base import Item, Options, Source
from mmtt_build.sources.celebamask_hq import CelebAMaskHQ
from mmtt_build.sources.ffhq import FFHQ

LICENCE = "CC0-1.0"
LAYOUTS = {"celebamask-hq": CelebAMaskHQ, "ffhq": FFHQ}


class Portraits(Source):
    """A folder with a `celebamask-hq` and a `ffhq` folder in it, or one of them."""

    def __init__(self, root: Path, options: Options) -> None:
        super().__init__(root, options)
        drawn = replace(options, licence=LICENCE, exclude_known_defects=False)
        self.layouts = {name: kind(root / name, drawn) for name, kind in LAYOUTS.items() if (root / name).is_dir()}
        if not self.layouts:
            raise SourceError(f"{root} has no drawn portraits", f"mmtt portraits {root}")

    def __len__(self) -> int:
        """Number of images in both layouts."""
        return sum(len(layout) for layout in self.layouts.values())

    def items(self) -> Iterator[Item]:
        """The images of both layouts; names begin with the layout's first letter."""
        for name, layout in self.layouts.items():
            for item in layout.items():
                yield replace(item, name=f"{name[0]}{item.name}", licence=LICENCE, official_split=None, url=None)
