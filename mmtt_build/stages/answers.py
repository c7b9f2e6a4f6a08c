"""Answers: all that annotators said and still stands, with what the tables know beside it, as QC judges it.

Descriptions of forgeries come from the table `annotations`, answers to repeats and controls from `submissions`; when a
pair was shown and submitted is in the latter. A row is put together when its batch is asked for, so memory holds the
narrow columns of all rows and the wide ones of a batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmtt_build.errors import ConfigError
from mmtt_build.records import Annotation, Forged
from mmtt_build.workspace import Workspace

if TYPE_CHECKING:
    from qc.base import Beside

BATCH = 2000
ANSWERS = ("described", "nothing-visible", "broken-pair")
"""What an annotator can say; else `annotations.answer` tells why there is no answer any more."""

_TIMES = ("created_at", "updated_at", "served_at")
_EPOCH = datetime.fromtimestamp(0, UTC)
_SAID = ("annotation_id", "forgery_id", "answer", "description", "language", "labels", "annotator", "observation_s",
         "origin")  # fmt: skip
_ABOUT = ("kind", "task_id", "sides", *_TIMES, "lead_time_s")
_COPIED = {
    "kind": pa.string(), "of": pa.string(), "by": pa.string(), "similarity": pa.float64(), "uses": pa.int64(),
    "span": pa.list_(pa.int64()),
}  # fmt: skip
_STORED = ("image", "mask", "part_map", "image_crc", "mask_crc", "part_map_crc")


class Forgeries:
    """What QC knows of forgeries, by id.

    Args:
        workspace: whose.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.made = workspace.forgeries.read(["forgery_id", "status", "reason", "method", "split", *_STORED])
        self.plan = workspace.plan.read(["forgery_id", "base_id", "source_id"])
        self.pristine = workspace.pristine.read(["id", "status", "image", "parts", "points", "landmarks"])
        self.checks = workspace.image_checks.read(["forgery_id", "cover"])

    def find(self, names: pa.Array) -> pa.Table:
        """Where the tables have each of these forgeries, for `rows`; a slice of it stands for a slice of them.

        Args:
            names: ids; may be null.
        """
        plan = _places(self.plan, "forgery_id", names)
        base, source = (self.plan[name].take(plan).combine_chunks() for name in ("base_id", "source_id"))
        return pa.table(
            {
                "name": names,
                "made": _places(self.made, "forgery_id", names),
                "plan": plan,
                "base": _places(self.pristine, "id", base),
                "donor": _places(self.pristine, "id", source),
                "cover": _places(self.checks, "forgery_id", names),
            }
        )

    def rows(self, found: pa.Table) -> pa.Table:
        """What the tables have of forgeries that `find` found, in their order, for `forged` to read."""
        made, plan = self.made.take(found["made"]), self.plan.take(found["plan"])
        base = self.pristine.take(found["base"])
        columns: dict[str, Any] = {"name": found["name"], "planned": plan["forgery_id"]}
        columns |= {name: made[name] for name in made.column_names}
        columns |= {f"base_{name}": base[name] for name in base.column_names}
        columns |= {"source_id": plan["source_id"], "source_status": self.pristine["status"].take(found["donor"])}
        return pa.table(columns | {"cover": self.checks["cover"].take(found["cover"])})


def forged(row: Mapping[str, Any], of: str = "") -> Forged | None:
    """A row of `Forgeries.rows` as a record; None where there is no such forgery, planned or made.

    Args:
        row: by column.
        of: what the columns' names begin with.
    """
    if row[of + "forgery_id"] is None and row[of + "planned"] is None:
        return None
    return Forged(
        id=row[of + "name"],
        status=_status(row, of),
        method=row[of + "method"],
        split=row[of + "split"],
        base=row[of + "base_image"],
        base_parts=row[of + "base_parts"],
        image=row[of + "image"],
        mask=row[of + "mask"],
        parts=row[of + "part_map"],
        points=_tuple(row[of + "base_points"]),
        landmarks=_tuple(row[of + "base_landmarks"]),
        crcs=(row[of + "image_crc"], row[of + "mask_crc"], row[of + "part_map_crc"]),
        cover=_tuple(row[of + "cover"]),
    )


def _status(row: Mapping[str, Any], of: str) -> str:
    if row[of + "forgery_id"] is None:
        return "not made yet"
    if row[of + "status"] != "ok":
        return f"{row[of + 'status']}: {row[of + 'reason'] or 'no reason'}"
    if row[of + "base_status"] != "ok":
        return f"its base is {row[of + 'base_status'] or 'gone'}"
    if row[of + "source_id"] is not None and row[of + "source_status"] != "ok":
        return f"its source is {row[of + 'source_status'] or 'gone'}"
    return "ok"


@dataclass(frozen=True)
class Answers:
    """The answers of a workspace, by annotation id.

    Attributes:
        workspace: whose.
        among: annotation ids: copies are looked for among the answers of their annotators; None looks among all, which
            takes seconds where there are many.
    """

    workspace: Workspace
    among: Collection[str] | None = None

    @cached_property
    def rows(self) -> pa.Table:
        """All answers, the columns of `_SAID` and `_ABOUT`, by annotation id."""
        said = self.workspace.annotations.read(_SAID)
        said = said.filter(pc.is_in(said["answer"], pa.array(ANSWERS)))
        came = self._came.filter(pc.equal(self._came["status"], "ok"))
        about = _take(came, "annotation_id", said["annotation_id"].combine_chunks()).select(_ABOUT)
        about = about.set_column(0, "kind", pc.fill_null(about["kind"], "pair"))
        for name in _ABOUT:
            said = said.append_column(about.schema.field(name), about[name])
        extra = came.filter(
            pc.and_(pc.is_in(came["kind"], pa.array(["repeat", "control"])), pc.is_valid(came["answer"]))
        )
        tasks = _take(self._tasks, "task_id", extra["task_id"].combine_chunks())
        extra = extra.append_column("forgery_id", tasks["forgery_id"]).select(said.column_names).cast(said.schema)
        return pa.concat_tables([said, extra]).sort_by("annotation_id").combine_chunks()

    @cached_property
    def _came(self) -> pa.Table:
        columns = [name for name in (*_SAID, *_ABOUT) if name != "forgery_id"]
        return self.workspace.submissions.read([*columns, "status"])

    @cached_property
    def _tasks(self) -> pa.Table:
        return self.workspace.tasks.read(["task_id", "forgery_id", "mask_of"])

    @cached_property
    def _before(self) -> tuple[pa.Array, pa.Array]:
        """Per row what the same annotator submitted before, and how many seconds."""
        # What counts no more was submitted all the same.
        came = self._came.select(["annotation_id", "annotator", "created_at"])
        came = came.filter(pc.is_valid(came["created_at"])).sort_by(
            [("annotator", "ascending"), ("created_at", "ascending"), ("annotation_id", "ascending")]
        )
        who = came["annotator"].combine_chunks()
        times = came["created_at"].combine_chunks().cast(pa.int64()).to_numpy()
        same = pc.equal(who[1:], who[:-1]).to_numpy(zero_copy_only=False) if len(who) > 1 else np.zeros(0, np.bool_)
        first = np.concatenate([[True], ~same]) if len(who) else np.zeros(0, np.bool_)
        gaps = np.diff(times, prepend=times[:1]) / 1e6
        at = pc.index_in(self.rows["annotation_id"], came["annotation_id"].combine_chunks()).combine_chunks()
        names = came["annotation_id"].combine_chunks()
        previous = pc.if_else(pa.array(first), None, pa.concat_arrays([names[:1], names[:-1]])) if len(who) else names
        return previous.take(at), pa.array(gaps, pa.float64(), mask=first).take(at)

    @cached_property
    def _others(self) -> pa.Array:
        """Per row an earlier one on the same task, or of the same forgery by the same annotator."""
        of_task = self._first(pc.fill_null(self.rows["task_id"], ""))
        pair = pc.binary_join_element_wise(self.rows["forgery_id"], self.rows["annotator"], "\n")
        of_forgery = self._first(pc.fill_null(pair, ""))
        return pc.coalesce(of_task, of_forgery)

    def _first(self, keys: pa.ChunkedArray) -> pa.Array:
        """Per row the earliest one with the same key, null for that one itself and where the key is empty."""
        at = pc.fill_null(self.rows["created_at"].cast(pa.int64()), 0)
        table = pa.table({"key": keys, "at": at, "name": self.rows["annotation_id"]})
        order = pc.sort_indices(table, [(name, "ascending") for name in table.column_names])
        table = table.take(order).combine_chunks()
        if not len(table):
            return pa.array([], pa.string())
        key = table["key"].combine_chunks()
        new = np.concatenate([[True], pc.not_equal(key[1:], key[:-1]).to_numpy(zero_copy_only=False)])
        first = np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))
        alone = new | pc.equal(key, "").to_numpy(zero_copy_only=False)
        found = table["name"].combine_chunks().take(pa.array(first, mask=alone))
        return found.take(pa.array(np.argsort(order.to_numpy())))

    @cached_property
    def _of(self) -> pa.Table:
        """Per row where the tables have its forgery; of a control the one whose mask was shown."""
        tasks = _take(self._tasks, "task_id", self.rows["task_id"].combine_chunks())
        return self.forgeries.find(pc.coalesce(self.rows["forgery_id"], tasks["mask_of"]).combine_chunks())

    @cached_property
    def copied(self) -> dict[str, Any]:
        """Where else the words of a description are, by annotation id; scripted ones are nobody's words."""
        from qc import copies

        rows = self.rows
        words = rows.filter(pc.and_(pc.is_valid(rows["description"]), pc.not_equal(rows["origin"], "scripted")))
        if self.among is not None:
            known = pc.is_in(words["annotation_id"], pa.array(sorted(self.among), pa.string()))
            words = words.filter(pc.is_in(words["annotator"], pc.unique(words.filter(known)["annotator"])))
        words = words.sort_by([("created_at", "ascending"), ("annotation_id", "ascending")])
        columns = [words[name].to_pylist() for name in ("annotation_id", "annotator", "description")]
        recipe = self.workspace.recipe
        return copies.find(zip(*columns, strict=True), recipe.qc, recipe.dataset.language)

    @cached_property
    def forgeries(self) -> Forgeries:
        """What QC knows of the forgeries."""
        return Forgeries(self.workspace)

    def batches(self, only: Collection[str] | None = None, *, copied: bool = True) -> Iterator[pa.Table]:
        """Answers with all that is known beside them, some at a time, for `plain` to read.

        Args:
            only: these annotation ids; None takes all.
            copied: whether to say where else their words are, for which all are compared.
        """
        names = self.rows["annotation_id"]
        wanted = np.arange(len(names))
        if only is not None:
            wanted = wanted[pc.is_in(names, pa.array(sorted(only), pa.string())).to_numpy()]
        copies = pa.struct(list(_COPIED.items()))
        for start in range(0, len(wanted), BATCH):
            at = pa.array(wanted[start : start + BATCH])
            rows = self.rows.take(at)
            of = self.forgeries.rows(self._of.take(at))
            previous, since = (column.take(at) for column in self._before)
            where = (
                [
                    [{field: getattr(copy, field) for field in _COPIED} for copy in self.copied.get(name, ())]
                    for name in rows["annotation_id"].to_pylist()
                ]
                if copied
                else [[]] * len(rows)
            )
            columns = {name: rows[name] for name in rows.column_names}
            columns |= {"previous": previous, "since_s": since, "other": self._others.take(at)}
            columns["copied"] = pa.array(where, pa.list_(copies))
            columns |= {f"of_{name}": of[name] for name in of.column_names}
            yield pa.table(columns)

    def one(self, name: str) -> tuple[Annotation, Beside]:
        """One answer with what is known beside it.

        Raises:
            ConfigError: there is none with this id.
        """
        for batch in self.batches([name]):
            return read(plain(batch)[0])
        raise ConfigError(f"no answer {name!r}", "the tables annotations and submissions have the ids")


def plain(batch: pa.Table) -> list[dict[str, Any]]:
    """The answers of a batch, for `read`; times are microseconds since 1970, which are read ten times as fast."""
    for name in _TIMES:
        at = batch.column_names.index(name)
        batch = batch.set_column(at, name, batch[name].cast(pa.int64()))
    return list(batch.to_pylist())


def read(row: Mapping[str, Any]) -> tuple[Annotation, Beside]:
    """An answer of a batch as `plain` has it, with what is known beside it."""
    from qc.base import Beside, Copied

    copied = tuple(Copied(**copy | {"span": _tuple(copy["span"])}) for copy in row["copied"])
    return _annotation(row), Beside(forged(row, "of_"), row["previous"], row["since_s"], copied, row["other"])


def _annotation(row: Mapping[str, Any]) -> Annotation:
    return Annotation(
        id=row["annotation_id"],
        forgery_id=row["forgery_id"] or "",
        answer=row["answer"],
        description=row["description"],
        language=row["language"],
        labels=_tuple(row["labels"]),
        annotator=row["annotator"],
        observation_s=row["observation_s"],
        origin=row["origin"],
        kind=row["kind"],
        task=row["task_id"],
        sides=_tuple(row["sides"]) or (),
        lead_time_s=row["lead_time_s"],
        **{name: None if row[name] is None else _EPOCH + timedelta(microseconds=row[name]) for name in _TIMES},
    )


def _tuple(values: Any) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _take(table: pa.Table, key: str, names: pa.Array) -> pa.Table:
    """The row of each name, all null where there is none."""
    return table.take(_places(table, key, names))


def _places(table: pa.Table, key: str, names: pa.Array) -> pa.Array:
    """The row number of each name, null where there is none."""
    return pc.index_in(names, table[key].combine_chunks())
