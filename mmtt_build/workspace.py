"""A workspace: the folder that holds a recipe, its tables and its images, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from mmtt_build import config, schema
from mmtt_build.config import Recipe
from mmtt_build.errors import ConfigError, StoreError
from mmtt_build.registry import METHODS
from mmtt_build.seeds import digest
from mmtt_build.store import Table


@dataclass(frozen=True)
class Workspace:
    """Paths, tables and the recipe of one workspace.

    Attributes:
        root: the folder with `mmtt.toml`.
    """

    root: Path

    @staticmethod
    def init(root: Path) -> Workspace:
        """Makes a new workspace with the commented default recipe.

        Raises:
            ConfigError: the folder has a recipe already, or is a file.
        """
        if (root / config.FILE_NAME).exists():
            raise ConfigError(f"{root} is a workspace already", f"edit {root / config.FILE_NAME}")
        if root.exists() and not root.is_dir():
            raise ConfigError(f"{root} is a file", "name a folder")
        root.mkdir(parents=True, exist_ok=True)
        text = files("mmtt_build").joinpath("data", config.FILE_NAME).read_text(encoding="utf-8")
        (root / config.FILE_NAME).write_text(text, encoding="utf-8")
        return Workspace(root)

    @staticmethod
    def find(start: Path) -> Workspace:
        """The workspace that a folder is, or lies in.

        Raises:
            ConfigError: there is none.
        """
        start = start.absolute()
        if not start.is_dir():
            raise ConfigError(f"{start} is not a folder", "mmtt init DIR makes a workspace; -w DIR names one")
        for folder in (start, *start.parents):
            if (folder / config.FILE_NAME).is_file():
                return Workspace(folder)
        raise ConfigError(
            f"no {config.FILE_NAME} in {start} or above", "mmtt init DIR makes a workspace; -w DIR names one"
        )

    @cached_property
    def recipe(self) -> Recipe:
        """The checked recipe."""
        return config.load(self.root / config.FILE_NAME)

    def method(self, name: str) -> Any:
        """A forgery method (`generators.base.Method`) with the options that the recipe gives it.

        Raises:
            ConfigError: unknown method, or an option that makes no sense.
        """
        kind = METHODS.get(name)
        return kind(config.options(self.root / config.FILE_NAME, name, kind.Options))

    def _table(self, name: str, of: object) -> Table:
        return Table(self.root / "tables" / name, of)

    @cached_property
    def pristine(self) -> Table:
        """One row per source image, the unusable ones included."""
        return self._table("pristine", schema.PRISTINE)

    @cached_property
    def faces(self) -> Table:
        """What the analysis of faces saw in each image that it has looked at."""
        return self._table("faces", schema.FACES)

    @cached_property
    def groups(self) -> Table:
        """Identity group and split of each usable pristine image; decided once, never changed."""
        return self._table("groups", schema.GROUPS)

    @cached_property
    def plan(self) -> Table:
        """One row per forgery to make."""
        return self._table("plan", schema.PLAN)

    @cached_property
    def forgeries(self) -> Table:
        """What became of the planned rows."""
        return self._table("forgeries", schema.FORGERIES)

    @cached_property
    def tasks(self) -> Table:
        """Which annotator is to describe which pair."""
        return self._table("tasks", schema.TASKS)

    @cached_property
    def submissions(self) -> Table:
        """What came back from the annotation server, repeats and controls included."""
        return self._table("submissions", schema.SUBMISSIONS)

    @cached_property
    def drafts(self) -> Table:
        """What a model wrote about a task, for a study of drafting; never an annotation."""
        return self._table("drafts", schema.DRAFTS)

    @cached_property
    def annotations(self) -> Table:
        """Descriptions, in the annotators' own words."""
        return self._table("annotations", schema.ANNOTATIONS)

    @cached_property
    def findings(self) -> Table:
        """QC verdict per annotation, repeats and controls included."""
        return self._table("findings", schema.FINDINGS)

    @cached_property
    def image_checks(self) -> Table:
        """QC verdict per forgery, and what its mask covers of each part."""
        return self._table("image_checks", schema.IMAGE_CHECKS)

    @cached_property
    def checks(self) -> Table:
        """QC verdict on each annotator and on the dataset, as of the last audit."""
        return self._table("checks", schema.CHECKS)

    @cached_property
    def overrides(self) -> Table:
        """Reviewers' decisions on annotations, all of them."""
        return self._table("overrides", schema.OVERRIDES)

    @cached_property
    def sent_back(self) -> Table:
        """Annotations that went back to who wrote them."""
        return self._table("sent_back", schema.SENT_BACK)

    def image_path(self, kind: str, name: str) -> str:
        """Path, relative to the workspace, of an image of a kind (pristine, parts, forged, masks).

        256 fan-out folders keep each below some 600 files at MMTT's size.
        """
        return f"images/{kind}/{digest(name)[:2]}/{name}.png"

    def resolve(self, relative: str) -> Path:
        """Absolute path of a path from a table.

        Raises:
            StoreError: the path leaves the workspace.
        """
        path = self.root / relative
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise StoreError(f"path {relative!r} in a table leaves the workspace", "the table was tampered with")
        return path

    def releases(self) -> list[Path]:
        """Folders of finished releases."""
        folder = self.root / "releases"
        return sorted(p for p in folder.iterdir() if (p / "manifest.json").is_file()) if folder.is_dir() else []
