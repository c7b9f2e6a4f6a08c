"""Validate: the recipe and all it names, without doing any work."""

from __future__ import annotations

import shutil

from mmtt_build.errors import ConfigError, MmttError
from mmtt_build.registry import SOURCES
from mmtt_build.sources.base import Options
from mmtt_build.stages import analyse
from mmtt_build.stages.parse import need
from mmtt_build.weights import Weights
from mmtt_build.workspace import Workspace

BYTES_PER_FORGERY = 410_000
"""Forged PNG and mask at 512 px, measured on CelebA-HQ."""


def validate(workspace: Workspace) -> list[MmttError]:
    """What would stop a run, each with its remedy; [] if nothing would.

    Raises:
        ConfigError: the recipe itself cannot be read.
    """
    from qc.base import named

    recipe = workspace.recipe
    problems: list[MmttError] = []
    images = 0
    for name in recipe.mix:
        try:
            workspace.method(name)
        except MmttError as error:
            problems.append(error)
    for name in recipe.qc.severity:
        try:
            named(name)
        except ConfigError as error:
            problems.append(ConfigError(f"[qc.severity]: {error.message}", error.remedy))
    for name, path in recipe.sources.items():
        try:
            images += len(SOURCES.get(name)(workspace.root / path, Options()))
        except MmttError as error:
            problems.append(error)
    if recipe.ingest.parser:
        try:
            need(recipe.ingest.parser, Weights.search(workspace.root))
        except MmttError as error:
            problems.append(error)
    if pack := analyse.pack_of(workspace):
        try:
            analyse.need(workspace, pack, Weights.search(workspace.root))
        except MmttError as error:
            problems.append(error)
    for key in ("exclude", "ffhq_aging"):
        path = getattr(recipe.ingest, key)
        if path and not (workspace.root / path).is_file():
            problems.append(ConfigError(f"[ingest] {key}: {workspace.root / path} is not a file", "mend the path"))
    forgeries = recipe.plan.total or int(recipe.plan.per_image * images)
    needed = (forgeries + images) * BYTES_PER_FORGERY
    free = shutil.disk_usage(workspace.root).free
    if needed > free:
        problems.append(
            ConfigError(
                f"about {needed / 1e9:.0f} GB needed for {images:,} images and {forgeries:,} forgeries, "
                f"{free / 1e9:.0f} GB free at {workspace.root}",
                "free some space, or lower [plan] per_image",
            )
        )
    return problems
