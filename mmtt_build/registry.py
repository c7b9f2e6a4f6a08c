"""Names -> implementations, resolved on first use so that listing them imports nothing."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from mmtt_build.errors import ConfigError


class Registry:
    """A table of "module:attribute" strings, extended by an entry-point group.

    Args:
        kind: what is registered, for error texts ("method").
        builtin: name -> "module:attribute".
        group: entry-point group through which other distributions add theirs; a name of ours wins.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str], group: str = "") -> None:
        self.kind = kind
        self.builtin = dict(builtin)
        self.group = group

    def table(self) -> dict[str, str]:
        """All names with their targets."""
        added = {point.name: point.value for point in entry_points(group=self.group)} if self.group else {}
        return {**added, **self.builtin}

    def target(self, name: str) -> str:
        """Where a name leads, without importing it.

        Raises:
            ConfigError: unknown name; the closest ones are listed.
        """
        # Entry points are looked at only for a name that is not ours: that takes milliseconds.
        found = self.builtin.get(name) or self.table().get(name)
        if found is None:
            table = self.table()
            close = difflib.get_close_matches(name, table, 3)
            meant = f"did you mean {' or '.join(close)}?" if close else ""
            raise ConfigError(f"unknown {self.kind} '{name}'", f"{meant} known: {', '.join(sorted(table))}".strip())
        return found

    def get(self, name: str) -> Any:
        """The object registered under a name.

        Raises:
            ConfigError: unknown name.
        """
        module, _, attribute = self.target(name).partition(":")
        return getattr(import_module(module), attribute)


METHODS = Registry(
    "method",
    {
        "blendswap": "generators.blendswap.method:BlendSwap",
        "splice": "generators.splice.method:Splice",
        "warp": "generators.warp.method:Warp",
        "patchfill": "generators.patchfill.method:PatchFill",
        "inswapper": "generators.inswapper.method:InSwapper",
        "e4s": "generators.e4s.method:E4S",
        "mat": "generators.mat.method:MAT",
        "styleclip": "generators.styleclip.method:StyleCLIP",
        "hfgi": "generators.hfgi.method:HFGI",
        "sdxl": "generators.diffusion.method:sdxl",
        "sdxl-turbo": "generators.diffusion.method:sdxl-turbo",
        "sd15": "generators.diffusion.method:sd15",
        "sd2": "generators.diffusion.method:sd2",
        "sd3": "generators.diffusion.method:sd3",
        "flux": "generators.diffusion.method:flux",
        "flux-schnell": "generators.diffusion.method:flux-schnell",
        "flux-fill": "generators.diffusion.method:flux-fill",
        "kandinsky": "generators.diffusion.method:kandinsky",
        "qwen-image": "generators.diffusion.method:qwen-image",
        "z-image": "generators.diffusion.method:z-image",
    },
    group="mmtt.generators",
)

SOURCES = Registry(
    "source",
    {
        "celebamask-hq": "mmtt_build.sources.celebamask_hq:CelebAMaskHQ",
        "ffhq": "mmtt_build.sources.ffhq:FFHQ",
        "folder": "mmtt_build.sources.folder:Folder",
        "portraits": "mmtt_build.sources.portraits:Portraits",
    },
    group="mmtt.sources",
)
