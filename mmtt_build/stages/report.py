"""Report: what an audit found, as one HTML file.

Of all rows only narrow columns are held; texts and messages only of the rows that the page shows.
"""

from __future__ import annotations

import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image as PillowImage

from mmtt_build import store
from mmtt_build.records import Forged
from mmtt_build.stages import history
from mmtt_build.stages.answers import Forgeries, forged
from mmtt_build.stages.triptych import triptych
from mmtt_build.workspace import Workspace
from qc import base
from qc.report import model
from qc.report.marks import pieces
from qc.report.render import MAX_ROWS, render

EXAMPLES = 60
THUMBNAIL_PX = 192
"""Shown 160 px wide or less; the rest is for dense screens."""
TEXT_CHARACTERS = 800
"""Of a description on the page: 120 English words fit."""
_MESSAGE_CHARACTERS = 300
_FINDINGS = 8
_DAYS, _ANNOTATOR_DAYS = 60, 30
_LAST = 100
"""Decisions, and answers that were sent back, on the page."""
_RANK = {"reject": 0, "review": 1, "accept": 2, "info": 2}
_CONTROL, _UNKNOWN, _NOTHING = "control", "unknown", "–"
_DAY_US = 86_400_000_000


def report(workspace: Workspace, path: Path, *, gates: Sequence[model.Gate]) -> None:
    """Writes the report on what the last audit found.

    Args:
        workspace: whose tables.
        path: of the HTML file; it is written whole or not at all.
        gates: what the dataset has to keep, and whether it does.
    """
    store.write_file(path, render(_Tables(workspace).page(gates)))


@dataclass(frozen=True)
class _Tables:
    """The tables behind a report, each read once."""

    workspace: Workspace

    def page(self, gates: Sequence[model.Gate]) -> model.Page:
        of_rule = self._of_rule()
        examples = _turns([self._worst(rows) for rows in of_rule.values()], EXAMPLES)
        chosen = self._order[self._with_findings[self._order]][:MAX_ROWS]
        rows = self._rows(np.unique(np.concatenate([chosen, np.array([at for at, _ in examples], np.int64)])))
        rules = list(of_rule)
        returned = history.returned(self.workspace)
        decisions = history.decisions(self.workspace)
        texts, count = list(self.texts["verdict"].to_pylist()), len(self.texts)
        newest = pc.max(self._came["created_at"]).as_py()
        return model.Page(
            dataset=self.workspace.recipe.dataset.name,
            newest=newest,
            gates=tuple(gates),
            texts=_verdicts(texts),
            images=_verdicts(self.images["verdict"].to_pylist()),
            overridden=count - self.texts["override"].null_count,
            days=_days(self._day, texts, _DAYS),
            rules=self._rules(),
            methods=self._methods(),
            annotators=self._annotators(),
            dataset_findings=_said(self._checks.get("dataset", {}).get("findings") or []),
            repairs=_repairs(returned),
            returned=tuple(returned[:_LAST]),
            decisions=tuple(decisions[:_LAST]),
            decided=len(decisions),
            examples=tuple(self._examples([(rows[int(at)], rules[turn]) for at, turn in examples])),
            rows=tuple(rows[int(at)] for at in chosen),
            with_findings=int(self._with_findings.sum()),
        )

    @cached_property
    def texts(self) -> pa.Table:
        """Answers that have a verdict."""
        columns = ("annotation_id", "forgery_id", "kind", "annotator", "verdict", "judged", "override", "findings")
        return _judged(self.workspace.findings.read(columns))

    @cached_property
    def images(self) -> pa.Table:
        """Forgeries that have a verdict."""
        return _judged(self.workspace.image_checks.read(["forgery_id", "verdict", "findings"]))

    @cached_property
    def _came(self) -> pa.Table:
        return self.workspace.submissions.read(["annotation_id", "task_id", "status", "created_at"])

    @cached_property
    def _checks(self) -> dict[str, dict[str, Any]]:
        rows = _judged(self.workspace.checks.read()).to_pylist()
        return {row["subject"]: row for row in rows}

    @cached_property
    def _time(self) -> NDArray[np.int64]:
        """Per answer microseconds since 1970 of its submission; 0 where there is none."""
        at = pc.index_in(self.texts["annotation_id"], self._came["annotation_id"].combine_chunks())
        times = self._came["created_at"].cast(pa.int64()).take(at)
        return np.asarray(pc.fill_null(times, 0).to_numpy())

    @cached_property
    def _day(self) -> NDArray[np.int64]:
        return self._time // _DAY_US

    @cached_property
    def _method(self) -> list[str]:
        """Per answer."""
        found = self._method_of(self.texts["forgery_id"])
        kinds = self.texts["kind"].to_pylist()
        return [_CONTROL if kind == _CONTROL else method for kind, method in zip(kinds, found, strict=True)]

    def _method_of(self, names: pa.ChunkedArray) -> list[str]:
        at = pc.index_in(names, self._plan["forgery_id"].combine_chunks())
        return list(pc.fill_null(self._plan["method"].take(at), _UNKNOWN).to_pylist())

    @cached_property
    def _plan(self) -> pa.Table:
        return self.workspace.plan.read(["forgery_id", "method"])

    @cached_property
    def _flat(self) -> tuple[NDArray[np.int64], pa.Array, pa.Array]:
        """All findings: whose they are (images come after the answers), rule and severity."""
        whose, rules, severities = [], [], []
        for offset, table in ((0, self.texts), (len(self.texts), self.images)):
            column = table["findings"].combine_chunks()
            whose.append(pc.list_parent_indices(column).to_numpy() + offset)
            flat = pc.list_flatten(column)
            rules.append(pc.struct_field(flat, "rule"))
            severities.append(pc.struct_field(flat, "severity"))
        return np.concatenate(whose).astype(np.int64), pa.concat_arrays(rules), pa.concat_arrays(severities)

    @cached_property
    def _with_findings(self) -> NDArray[np.bool_]:
        """Per row whether there is something to say; a reviewer's reject counts without a finding."""
        found = np.zeros(len(self.texts) + len(self.images), np.bool_)
        found[self._flat[0]] = True
        for offset, table in ((0, self.texts), (len(self.texts), self.images)):
            found[offset : offset + len(table)] |= pc.not_equal(table["verdict"], "accept").to_numpy()
        return found

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Rows, the worst first: by verdict, by findings that reject, by time, the newest first."""
        verdicts = [*self.texts["verdict"].to_pylist(), *self.images["verdict"].to_pylist()]
        rank = np.array([_RANK[verdict] for verdict in verdicts], np.int8)
        whose, _, severities = self._flat
        rejects = np.bincount(whose[pc.equal(severities, "reject").to_numpy(zero_copy_only=False)], minlength=len(rank))
        time = np.concatenate([self._time, np.zeros(len(self.images), np.int64)])
        return np.lexsort((-time, -rejects, rank))

    def _worst(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The worst of some rows, so many that each rule alone could fill the examples."""
        return rows[np.argsort(self._place[rows], kind="stable")][:EXAMPLES]

    @cached_property
    def _place(self) -> NDArray[np.int64]:
        """Per row its place in `_order`."""
        place = np.empty(len(self._order), np.int64)
        place[self._order] = np.arange(len(self._order))
        return place

    def _of_rule(self) -> dict[str, NDArray[np.int64]]:
        """Rows with a finding of each rule, the severest rule first, then the one that found most."""
        whose, rules, severities = self._flat
        encoded = rules.dictionary_encode()
        codes = encoded.indices.to_numpy()
        found = {name: whose[codes == code] for code, name in enumerate(encoded.dictionary.to_pylist())}
        rank = {name: _RANK[said] for name, said in set(zip(rules.to_pylist(), severities.to_pylist(), strict=True))}
        return {name: found[name] for name in sorted(found, key=lambda name: (rank[name], -len(found[name]), name))}

    def _rules(self) -> tuple[model.RuleCount, ...]:
        said = Counter(zip(self._flat[1].to_pylist(), self._flat[2].to_pylist(), strict=True))
        said.update((one["rule"], one["severity"]) for row in self._checks.values() for one in row["findings"] or [])
        severities = dict(said)
        found = Counter[str]()
        for (name, _), number in said.items():
            found[name] += number
        judged = {
            "annotation": len(self.texts), "forgery": len(self.images),
            "annotator": sum(name.startswith("annotator/") for name in self._checks), "dataset": 0,
        }  # fmt: skip
        known = {rule.name: rule for rule in base.load_rules()}
        counts = []
        for name in {*known, *found}:
            rule = known.get(name)
            subject = str(rule.subject) if rule else "annotation"
            would = str((rule and base.severity(rule, self.workspace.recipe.qc)) or "off")
            counts.append(
                model.RuleCount(
                    name, rule.description.replace("`", "") if rule else "", severities.get(name, would), subject,
                    found[name], judged[subject],
                )
            )  # fmt: skip
        return tuple(sorted(counts, key=lambda rule: (_RANK.get(rule.severity, 3), -rule.found, rule.name)))

    def _methods(self) -> tuple[model.MethodCount, ...]:
        texts = _grouped(self._method, self.texts["verdict"].to_pylist())
        images = _grouped(self._method_of(self.images["forgery_id"]), self.images["verdict"].to_pylist())
        return tuple(
            model.MethodCount(name, _verdicts(texts.get(name, [])), _verdicts(images.get(name, [])))
            for name in sorted({*texts, *images})
        )

    def _annotators(self) -> tuple[model.AnnotatorCount, ...]:
        verdicts = self.texts["verdict"].to_pylist()
        places: dict[str, list[int]] = defaultdict(list)
        for at, name in enumerate(self.texts["annotator"].to_pylist()):
            places[name or _UNKNOWN].append(at)
        found = []
        for name, mine_at in places.items():
            check = self._checks.get(f"annotator/{name}", {})
            mine = [verdicts[i] for i in mine_at]
            found.append(
                model.AnnotatorCount(
                    name, _verdicts(mine), _days(self._day[mine_at], mine, _ANNOTATOR_DAYS),
                    _facts(check.get("facts")), _said(check.get("findings") or []),
                )
            )  # fmt: skip
        return tuple(sorted(found, key=lambda one: (-one.texts.share("reject"), one.name)))

    def _rows(self, wanted: NDArray[np.int64]) -> dict[int, model.Row]:
        """Rows of the page by their index."""
        count = len(self.texts)
        at = wanted[wanted < count]
        names = self.texts["annotation_id"].take(pa.array(at))
        words = self._words(names.combine_chunks())
        rows = {}
        for index, row in zip(at.tolist(), self.texts.take(pa.array(at)).to_pylist(), strict=True):
            findings = row["findings"] or []
            spans = [(span["start"], span["end"]) for one in findings for span in one["spans"] or []]
            shown, left_out = pieces(words.get(row["annotation_id"]) or "", spans, TEXT_CHARACTERS)
            rows[index] = model.Row(
                row["annotation_id"], row["kind"] or "pair", row["verdict"], row["judged"] or row["verdict"],
                self._method[index], row["annotator"] or "", shown, left_out, _said(_severest(findings)),
                max(0, len(findings) - _FINDINGS),
            )  # fmt: skip
        at = wanted[wanted >= count]
        taken = self.images.take(pa.array(at - count))
        for index, row, method in zip(
            at.tolist(), taken.to_pylist(), self._method_of(taken["forgery_id"]), strict=True
        ):
            findings = row["findings"] or []
            rows[index] = model.Row(
                row["forgery_id"], "image", row["verdict"], row["verdict"], method, "", (), 0,
                _said(_severest(findings)), max(0, len(findings) - _FINDINGS),
            )  # fmt: skip
        return rows

    def _words(self, names: pa.Array) -> dict[str, str | None]:
        """Descriptions of some answers; those of repeats and controls are among the submissions only."""
        found: dict[str, str | None] = {}
        for table in (self.workspace.submissions, self.workspace.annotations):
            rows = table.read(["annotation_id", "description"])
            rows = rows.filter(pc.is_in(rows["annotation_id"], names))
            found |= dict(zip(rows["annotation_id"].to_pylist(), rows["description"].to_pylist(), strict=True))
        return found

    def _examples(self, chosen: Sequence[tuple[model.Row, str]]) -> Iterable[model.Example]:
        ids = [row.id for row, _ in chosen]
        at = pc.index_in(pa.array(ids, pa.string()), self.texts["annotation_id"].combine_chunks())
        forgeries = pc.coalesce(self.texts["forgery_id"].take(at), self._shown(at), pa.array(ids, pa.string()))
        there = Forgeries(self.workspace)
        stored = there.rows(there.find(forgeries.combine_chunks())).to_pylist()
        for (row, rule), of in zip(chosen, stored, strict=True):
            yield model.Example(row, rule, tuple(_thumbnails(self.workspace, forged(of), row.kind == _CONTROL)))

    def _shown(self, at: pa.Array) -> pa.ChunkedArray:
        """Per answer the forgery whose mask was shown, by its task; null where there is no task."""
        tasks = self.workspace.tasks.read(["task_id", "mask_of"])
        came = pc.index_in(self.texts["annotation_id"].take(at), self._came["annotation_id"].combine_chunks())
        task = pc.index_in(self._came["task_id"].take(came), tasks["task_id"].combine_chunks())
        return tasks["mask_of"].take(task)


def _judged(table: pa.Table) -> pa.Table:
    return table.filter(pc.is_valid(table["verdict"])).combine_chunks()


def _verdicts(of: Iterable[str]) -> model.Verdicts:
    counts = Counter(of)
    return model.Verdicts(counts["accept"], counts["review"], counts["reject"])


def _grouped(keys: Iterable[str], values: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for key, value in zip(keys, values, strict=True):
        found[key].append(value)
    return found


def _days(days: NDArray[np.int64], verdicts: Sequence[str], last: int) -> tuple[model.Day, ...]:
    """The last days on which something was submitted."""
    grouped: dict[int, list[str]] = defaultdict(list)
    for day, verdict in zip(days.tolist(), verdicts, strict=True):
        if day:
            grouped[day].append(verdict)
    return tuple(model.Day(str(np.datetime64(day, "D")), _verdicts(grouped[day])) for day in sorted(grouped)[-last:])


def _severest(findings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(findings, key=lambda one: _RANK[one["severity"]])[:_FINDINGS]


def _said(findings: Iterable[Mapping[str, Any]]) -> tuple[model.Said, ...]:
    return tuple(model.Said(one["rule"], one["severity"], _cut(one["message"])) for one in findings)


def _cut(message: str) -> str:
    return message if len(message) <= _MESSAGE_CHARACTERS else f"{message[:_MESSAGE_CHARACTERS]} …"


def _turns(queues: Sequence[NDArray[np.int64]], most: int) -> list[tuple[int, int]]:
    """Rows, each once, that the queues gave in turns, by queue; and which queue it was."""
    chosen: dict[int, int] = {}
    for place in range(max(map(len, queues), default=0)):
        for turn, queue in enumerate(queues):
            if place < len(queue) and len(chosen) < most:
                chosen.setdefault(int(queue[place]), turn)
    return sorted(chosen.items(), key=lambda one: one[1])


def _repairs(returned: Sequence[model.Returned]) -> tuple[model.Repair, ...]:
    """Of all that was sent back, and of each rule; nothing where nothing was."""
    if not returned:
        return ()
    rules = Counter(rule for one in returned for rule in one.rules)
    by_rule = (_repair(rule, [one for one in returned if rule in one.rules]) for rule, _ in rules.most_common())
    return (_repair("", returned), *by_rule)


def _repair(rule: str, returned: Sequence[model.Returned]) -> model.Repair:
    repaired = [one for one in returned if one.successor]
    return model.Repair(rule, len(returned), len(repaired), _verdicts(one.verdict for one in repaired))


def _thumbnails(workspace: Workspace, of: Forged | None, control: bool) -> Iterable[model.Thumbnail]:
    for picture in triptych(workspace, of, control=control):
        if picture.image is None:
            yield model.Thumbnail(picture.name, b"", picture.missing)
            continue
        small = cv2.resize(picture.image, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
        file = io.BytesIO()
        PillowImage.fromarray(small).save(file, "WEBP", quality=72)
        yield model.Thumbnail(picture.name, file.getvalue())


def _facts(profile: str | None) -> dict[str, str]:
    """What was counted of an annotator, by heading.

    Args:
        profile: JSON of `qc.annotators.Profile`, or None.
    """
    of = {"agreement": {}} | (json.loads(profile) if profile else {})
    alpha, controls = of["agreement"].get("alpha"), of.get("controls")
    return {
        "per hour": _rounded(of.get("per_hour"), 1),
        "seconds": _rounded(of.get("observation_s"), 0),
        "words": _rounded(of.get("words"), 0),
        "false claims": f"{of['false_claims']} of {controls}" if controls else _NOTHING,
        "agreement": _rounded(alpha, 2),
    }


def _rounded(number: float | None, places: int) -> str:
    return _NOTHING if number is None else f"{number:.{places}f}"
