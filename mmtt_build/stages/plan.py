"""Plan: everything random is decided here and written down; forging only executes rows.

Growing is safe: a plan is only ever appended to. Rows are spread over the methods by the recipe's mix, over the
splits by the recipe's shares, and over the images so that the least used come first; donors come from the
base's split.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmtt_build.config import SPLITS
from mmtt_build.errors import ConfigError
from mmtt_build.parts import CLASSES
from mmtt_build.records import Pristine
from mmtt_build.registry import METHODS
from mmtt_build.seeds import digest, ranks, remix, rng_for, seed_for
from mmtt_build.stages.groups import group
from mmtt_build.workspace import Workspace

if TYPE_CHECKING:
    from generators.base import Method

DONORS_TRIED = 12
"""Donors drawn per row; the one nearest in pose and skin is taken, as Face X-ray does with landmarks."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
"""One spelling of the parameters, so that an id derives from what they say."""

_POSE_WEIGHTS = np.array([6.0, 3.0, 3.0, 1.5, 1 / 25, 1 / 12, 1 / 12])
"""Of yaw, pitch, mouth height and mouth width (in eye distances), and of L, a, b (in units of CIE Lab)."""


@dataclass(slots=True)
class Faces:
    """The usable images as columns: what planning knows, without pixels. Columns, since a record each is 2 kB.

    Attributes:
        ids: of the images.
        licences: of the images.
        areas: (N, 19) pixel counts.
        points: (N, 10), NaN where the part map lacks one.
        skin: (N, 3) mean L, a, b; NaN without skin.
        split: (N,) names.
        group: (N,) numbers of identity groups.
        groups: names of the identity groups by number.
        pose: (N, 7) weighted pose and skin features; NaN without the points.
        turn: (N, 3) yaw, pitch, roll in degrees; NaN without an analysis.
        pack: names of the packs that analysed them, or None.
    """

    ids: list[str]
    licences: list[str]
    areas: NDArray[np.int32]
    points: NDArray[np.float32]
    skin: NDArray[np.float32]
    split: NDArray[np.str_]
    group: NDArray[np.int64]
    groups: list[str]
    pose: NDArray[np.float64]
    turn: NDArray[np.float32]
    pack: list[str | None]

    @staticmethod
    def load(workspace: Workspace) -> Faces:
        """Usable images that have a part map and a group, in id order."""
        groups = workspace.groups.read()
        table = workspace.pristine.read(["id", "status", "licence", "parts", "part_areas", "points", "skin_lab"])
        usable = pc.and_(pc.equal(table["status"], "ok"), pc.is_valid(table["parts"]))
        table = table.filter(pc.and_(usable, pc.is_in(table["id"], groups["id"].combine_chunks())))
        groups = groups.take(pc.index_in(table["id"], groups["id"].combine_chunks()))
        encoded = groups["identity_group"].combine_chunks().dictionary_encode()
        points, skin = _fixed(table["points"], 10), _fixed(table["skin_lab"], 3)
        analysed = workspace.faces.read(["id", "pack_name", "pose"])
        analysed = analysed.take(pc.index_in(table["id"], analysed["id"].combine_chunks()))
        return Faces(
            table["id"].to_pylist(),
            table["licence"].to_pylist(),
            _fixed(table["part_areas"], len(CLASSES)).astype(np.int32),
            points,
            skin,
            np.array(groups["split"].to_pylist(), dtype="U5"),
            encoded.indices.to_numpy().astype(np.int64),
            encoded.dictionary.to_pylist(),
            _pose(points.astype(np.float64), skin.astype(np.float64)),
            _fixed(analysed["pose"], 3),
            analysed["pack_name"].to_pylist(),
        )

    def record(self, index: int) -> Pristine:
        """The facts about one image."""
        points, skin, turn = self.points[index], self.skin[index], self.turn[index]
        return Pristine(
            self.ids[index],
            self.groups[self.group[index]],
            self.licences[index],
            tuple(self.areas[index].tolist()),
            () if np.isnan(points[0]) else tuple(points.tolist()),
            () if np.isnan(skin[0]) else tuple(skin.tolist()),
            () if np.isnan(turn[0]) else tuple(turn.tolist()),
            self.pack[index] or "",
        )


def _fixed(column: pa.ChunkedArray, width: int) -> NDArray[np.float32]:
    """A column of lists that have `width` numbers or none, as (N, width); NaN for none."""
    lists = column.combine_chunks()
    full = pc.fill_null(pc.equal(pc.list_value_length(lists), width), False).to_numpy(zero_copy_only=False)
    filled = np.full((len(lists), width), np.nan, np.float32)
    filled[full] = lists.filter(pa.array(full)).flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return filled


def _pose(points: NDArray[np.float64], skin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted pose and skin features, (N, 7), of points (N, 10) and skin (N, 3)."""
    left, right, nose, mouth_left, mouth_right = points.reshape(-1, 5, 2).swapaxes(0, 1)
    axis = left - right
    distance = np.linalg.norm(axis, axis=1)
    x = axis / distance[:, None]
    y = np.stack([-x[:, 1], x[:, 0]], axis=1)
    middle, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2

    def along(vector: NDArray[np.float64], axis: NDArray[np.float64]) -> NDArray[np.float64]:
        return (vector * axis).sum(axis=1) / distance

    features = [along(nose - middle, x), along(nose - middle, y), along(mouth - middle, y)]
    features.append(along(mouth_left - mouth_right, x))
    return np.column_stack([*features, skin]) * _POSE_WEIGHTS


@dataclass(slots=True)
class Summary:
    """What a planning run added.

    Attributes:
        before: rows that were planned already.
        added: new rows per (method, split).
        warnings: what could not be planned as the recipe asks, and why.
    """

    before: int
    added: Counter[tuple[str, str]] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)


def plan(workspace: Workspace, *, total: int = 0, dry_run: bool = False) -> Summary:
    """Appends the rows that the recipe asks for and the plan does not have yet.

    Args:
        workspace: its recipe, images and earlier plan decide.
        total: forgeries in all, instead of the recipe's.
        dry_run: counts and writes nothing.

    Raises:
        ConfigError: the recipe names an unknown method, or there is no usable image.
    """
    recipe = workspace.recipe
    group(workspace)
    mix = {name: share for name, share in sorted(recipe.mix.items()) if share > 0}
    for name in mix:
        METHODS.target(name)
    images = _images_per_split(workspace)
    if not images:
        there = workspace.pristine.read(["status", "parts"])
        parts = there.filter(pc.equal(there["status"], "ok"))["parts"]
        if 0 < len(parts) == parts.null_count:
            raise ConfigError("no usable image has a part map", "mmtt build ingest --parser bisenet makes them")
        raise ConfigError("no usable image in this workspace", "mmtt build ingest, then mmtt status")
    before = workspace.plan.read(["forgery_id", "method", "split", "base_id", "parent_id"])
    summary = Summary(before.num_rows)
    for split, share in recipe.split.shares().items():
        if share and split not in images:
            summary.warnings.append(f"no identity group fell into {split}: its share goes to the other splits")
    wanted = total or recipe.plan.total or int(recipe.plan.per_image * sum(images.values()))
    had = Counter(zip(before["method"].to_pylist(), before["split"].to_pylist(), strict=True))
    shares = {split: share for split, share in recipe.split.shares().items() if share and split in images}
    missing = {
        (name, split): goal - had[name, split]
        for name, count in _apportion(wanted, mix).items()
        for split, goal in _apportion(count, shares).items()
        if goal > had[name, split]
    }
    if not missing:
        return summary
    methods = {name: workspace.method(name) for name in mix}
    planner = _Planner(Faces.load(workspace), recipe.plan.seed, recipe.plan.sequential, before)
    rows: list[dict[str, Any]] = []
    for (name, split), count in missing.items():
        new = list(islice(planner.rows(methods[name], split, had[name, split]), count))
        if len(new) < count:
            donor = " (or finds a donor of another identity)" if methods[name].needs_source else ""
            summary.warnings.append(
                f"{name}: {count - len(new)} rows short in {split}: no base there can carry it{donor}"
            )
        summary.added[name, split] += len(new)
        rows += new
    if not dry_run:
        workspace.plan.append(rows)
    return summary


def _images_per_split(workspace: Workspace) -> dict[str, int]:
    """Usable images with a part map, counted without making a record of each."""
    table = workspace.pristine.read(["id", "status", "parts"])
    usable = table.filter(pc.and_(pc.equal(table["status"], "ok"), pc.is_valid(table["parts"])))["id"]
    groups = workspace.groups.read()
    counted = pc.value_counts(groups.filter(pc.is_in(groups["id"], usable))["split"])
    return {str(entry["values"]): int(entry["counts"]) for entry in counted.to_pylist()}


def _apportion(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that sum to `total`, as near to the shares as can be (largest remainder)."""
    scale = total / sum(shares.values())
    exact = {name: share * scale for name, share in shares.items()}
    counts = {name: int(value) for name, value in exact.items()}
    most_owed = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in most_owed[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


class _Planner:
    """Draws rows. Holds what has to be spread evenly: how often each image serves as a base."""

    def __init__(self, faces: Faces, seed: int, sequential: float, before: pa.Table) -> None:
        self.faces = faces
        self.seed = seed
        self.sequential = sequential
        self.index = {name: i for i, name in enumerate(faces.ids)}
        self.ranks = ranks(self.index)
        self.used = np.zeros(len(faces.ids), np.int64)
        self.parents: dict[str, list[tuple[str, str, int]]] = {split: [] for split in SPLITS}
        self.moving = {name for name in set(before["method"].to_pylist()) if METHODS.get(name).changes_geometry}
        columns = ("forgery_id", "method", "split", "base_id", "parent_id")
        for forgery, method, split, base, parent in zip(*(before[c].to_pylist() for c in columns), strict=True):
            if base in self.index:
                self.used[self.index[base]] += 1
                if parent is None:
                    self.parents[split].append((forgery, method, self.index[base]))

    def rows(self, method: Method, split: str, number: int) -> Iterator[dict[str, Any]]:
        """Rows of one method in one split, from the `number`-th on, until no base carries the method any more."""
        if method.changes_geometry:
            self.moving.add(method.name)
        bases = np.nonzero(self.faces.split == split)[0]
        shuffled = remix(self.ranks[bases], self.seed, method.name)
        bases = bases[np.lexsort((shuffled, self.used[bases]))]
        donors = self._donors(method, split, number)
        parents = [
            (forgery, name, index)
            for forgery, name, index in self.parents[split]
            if name != method.name and (method.finds_parts or name not in self.moving)
        ]
        unfit = 0
        for index in cycle(bases.tolist()):
            if unfit >= len(bases):
                return
            row = self._row(method, split, number, index, parents, donors)
            if row is None:
                unfit += 1
                continue
            unfit = 0
            number += 1
            yield row

    def _row(
        self,
        method: Method,
        split: str,
        number: int,
        index: int,
        parents: list[tuple[str, str, int]],
        donors: _Donors | None,
    ) -> dict[str, Any] | None:
        seed = seed_for(self.seed, method.name, split, number, self.faces.ids[index])
        rng = np.random.default_rng(seed)
        parent = None
        if donors is None and parents and rng.random() < self.sequential:
            parent, _, index = parents[int(rng.integers(len(parents)))]
        base = self.faces.record(index)
        source, params = None, None
        if donors is None:
            params = method.plan(rng, base, None)
        else:
            for candidate in donors.near(index):
                source = self.faces.record(candidate)
                params = method.plan(rng, base, source)
                if params is not None:
                    break
        if params is None:
            return None
        text = _CANONICAL(params)
        source_id = source.id if source else None
        forgery_id = f"{method.name}-{digest(method.name, base.id, source_id, parent, seed, text)[:16]}"
        self.used[index] += 1
        if parent is None:
            self.parents[split].append((forgery_id, method.name, index))
        return {
            "forgery_id": forgery_id,
            "method": method.name,
            "family": str(method.family),
            "split": split,
            "identity_group": base.identity_group,
            "base_id": base.id,
            "source_id": source_id,
            "parent_id": parent,
            "seed": seed,
            "params": text,
        }

    def _donors(self, method: Method, split: str, number: int) -> _Donors | None:
        if not method.needs_source:
            return None
        pool = np.nonzero((self.faces.split == split) & ~np.isnan(self.faces.pose).any(axis=1))[0]
        return _Donors(self.faces, pool, rng_for(self.seed, "donors", method.name, split, number))


class _Donors:
    """Draws donors of one split, many rows at a time."""

    BLOCK = 4096

    def __init__(self, faces: Faces, pool: NDArray[np.int64], rng: np.random.Generator) -> None:
        self.faces = faces
        self.pool = pool
        self.rng = rng
        self.draws: Iterator[NDArray[np.int64]] = iter(())

    def near(self, base: int) -> list[int]:
        """Donors of another identity group for a base, nearest in pose and skin first; [] if there is none."""
        if not len(self.pool):
            return []
        drawn = next(self.draws, None)
        if drawn is None:
            block = self.pool[self.rng.integers(len(self.pool), size=(self.BLOCK, DONORS_TRIED))]
            self.draws = iter(block)
            drawn = next(self.draws)
        other = drawn[self.faces.group[drawn] != self.faces.group[base]]
        distance = np.square(self.faces.pose[other] - self.faces.pose[base]).sum(axis=1)
        return [int(i) for i in other[np.argsort(distance, kind="stable")]]
