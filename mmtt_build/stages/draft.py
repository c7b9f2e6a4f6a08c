"""Draft: a model describes pairs that were pushed and are not answered yet, to compare drafting with writing.

Drafts are rows of the table `drafts` and never annotations. Which share of them annotators get to see is drawn by task,
evenly over methods and controls, before anything is written; only these go to the server. Controls are drafted like
pairs: without a draft one could tell them apart.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from annotation import draft as drafts
from annotation import session, submissions, tasks
from annotation.access import Connection
from annotation.draft.folder import Model, find
from annotation.draft.place import Draft, place
from mmtt_build import images, masks
from mmtt_build.errors import BadImage, ConfigError, StoreError
from mmtt_build.progress import Progress
from mmtt_build.seeds import fraction, ranks
from mmtt_build.stages import serve, withdraw
from mmtt_build.stages.devices import devices, needs_models
from mmtt_build.store import Appender
from mmtt_build.workspace import Workspace

if TYPE_CHECKING:
    from annotation.draft.model import Pictures, Writer

TOKENS_PER_WORD = 4
"""A text of more is not within the words; English takes 1.3, a Chinese character up to 2."""

DIMMED = 0.4
"""How bright the page shows what is around the forged region."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """How drafts are made.

    Attributes:
        model: folder of a model, or its name on the hub.
        download: fetch from the hub what its cache lacks.
        licence: of the model, as the user states it; goes into the rows.
        show: share of the tasks whose annotators see the draft.
        count: most drafts to make; 0 for all.
        batch_size: of the model.
        device: by torch's name, or "auto".
    """

    model: str
    download: bool = False
    licence: str = ""
    show: float = 0.0
    count: int = 0
    batch_size: int = 4
    device: str = "auto"


@dataclass(slots=True)
class Summary:
    """What was drafted.

    Attributes:
        model_version: what the drafts are marked with.
        made: new drafts by status; of a dry run those to make, by family.
        shown: of these, how many annotators are to see.
        placed: drafts that went to the server.
        begun: drafts that were to be seen and whose task was begun before.
        foreign: open tasks that stay without: their project has drafts by another model.
        missing: titles of projects that are not on the server.
    """

    model_version: str = ""
    made: Counter[str] = field(default_factory=Counter)
    shown: int = 0
    placed: int = 0
    begun: int = 0
    foreign: int = 0
    missing: list[str] = field(default_factory=list)


def draft(workspace: Workspace, options: Options, *, dry_run: bool = False) -> Summary:
    """Drafts open tasks that have none, and places those that are to be seen.

    Args:
        workspace: whose tasks.
        options: how.
        dry_run: count, and write nothing.

    Raises:
        ConfigError: nothing was pushed, or the model is none for pictures and text.
        WeightsMissing: the model is not on this machine.
        WeightsError: it is damaged.
        ServerError: there is no server for what is to be seen, or it does not do what it is asked; again goes on.
        StoreError: a stored image is missing or damaged.
    """
    try:
        model = find(options.model, download=options.download and not dry_run)
    except ModuleNotFoundError as error:
        raise needs_models(error) from error
    rows = _tasks(workspace)
    if not rows:
        raise ConfigError("no pair was given to an annotator yet", "mmtt annotate push")
    seen = arms(rows, options.show, workspace.recipe.plan.seed)
    summary = Summary(model.version)
    todo = _todo(workspace, rows, summary, options.count)
    if dry_run:
        summary.made = Counter(row["family"] for row in todo)
        summary.shown = sum(row["task_id"] in seen for row in todo)
        return summary
    connection = serve.connection(workspace) if options.show else None
    of_project: dict[str, list[Row]] = defaultdict(list)
    for row in todo:
        of_project[row["project"]].append(row)
    write: Callable[[Sequence[Row]], list[Row]] | None = None
    with Progress("draft", len(todo), "drafts") as progress:
        for project in sorted({row["project"] for row in rows}):
            if new := of_project[project]:
                write = write or _writer(workspace, model, options)
                with Appender(workspace.drafts) as table:
                    for start in range(0, len(new), options.batch_size):
                        for row in write(new[start : start + options.batch_size]):
                            table.add(row | {"shown": row["task_id"] in seen})
                            summary.made[row["status"]] += 1
                            summary.shown += row["task_id"] in seen
                            progress.step(row["status"])
            if connection is not None:
                _place(workspace, connection, project, {row["task_id"] for row in rows if row["open"]}, model, summary)
    return summary


# --- which ------------------------------------------------------------------------------------------------------------


def _tasks(workspace: Workspace) -> list[Row]:
    """All assignments, with what was forged how; in the order in which the server shows them."""
    rows: list[Row] = workspace.tasks.read().to_pylist()
    answered = withdraw.answered(workspace)
    columns = ("forgery_id", "base_id", "method", "family")
    plan = {row["forgery_id"]: row for row in workspace.plan.read(columns).to_pylist()}
    made = {row["forgery_id"]: row for row in workspace.forgeries.read(["forgery_id", "image", "mask"]).to_pylist()}
    pristine = workspace.pristine.read(["id", "image"])
    base = dict(zip(pristine["id"].to_pylist(), pristine["image"].to_pylist(), strict=True))
    of_base = {plan[name]["base_id"]: name for name, row in sorted(made.items()) if row["mask"] and name in plan}
    for row in rows:
        # A control is asked about like the forgery whose mask it shows, or one of the same base.
        name = row["forgery_id"] or row.get("mask_of") or of_base[row["base_id"]]
        row |= {
            "family": plan[name]["family"],
            "method": plan[name]["method"] if row["forgery_id"] else "",
            "pristine": base[row["base_id"]],
            "forged": made[name]["image"] if row["forgery_id"] else base[row["base_id"]],
            "mask": made[name]["mask"],
            "open": row["task_id"] not in answered and row["status"] != withdraw.WITHDRAWN,
        }
    return sorted(rows, key=lambda row: (row["project"], row["task_id"]))


def arms(rows: Sequence[Mapping[str, Any]], share: float, seed: int) -> set[str]:
    """The tasks whose annotators see the draft: of every project, and of every method in it, about this share.

    A project's tasks never change, so neither does what is drawn.

    Args:
        rows: all tasks with `task_id`, `project` and `method`, "" for a control.
        share: in [0, 1].
        seed: another one, another draw.
    """
    rank = dict(zip([r["task_id"] for r in rows], ranks([r["task_id"] for r in rows], seed, "draft"), strict=True))
    of_project: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        of_project[row["project"]].append(row)
    seen = set()
    for project, mine in of_project.items():
        begin = fraction(seed, "draft", project)
        for i, row in enumerate(sorted(mine, key=lambda row: (row["method"], rank[row["task_id"]]))):
            if math.floor(begin + share * (i + 1)) > math.floor(begin + share * i):
                seen.add(row["task_id"])
    return seen


def _todo(workspace: Workspace, rows: Sequence[Row], summary: Summary, count: int) -> list[Row]:
    """Open tasks without a draft, of projects without drafts by another model."""
    done: dict[str, str] = {
        row["task_id"]: row["model_version"] for row in workspace.drafts.read(["task_id", "model_version"]).to_pylist()
    }
    foreign = {r["project"] for r in rows if done.get(r["task_id"], summary.model_version) != summary.model_version}
    todo = [row for row in rows if row["open"] and row["task_id"] not in done]
    mine = [row for row in todo if row["project"] not in foreign]
    summary.foreign = len(todo) - len(mine)
    return mine[:count] if count else mine


# --- the model --------------------------------------------------------------------------------------------------------


def _writer(workspace: Workspace, model: Model, options: Options) -> Callable[[Sequence[Row]], list[Row]]:
    """Loads the model; gives what makes rows of the table of a batch of tasks."""
    max_words, device = workspace.recipe.qc.max_words, devices(options.device)[0]
    try:
        from annotation.draft.model import Writer

        writer: Writer = Writer(model.folder, device, TOKENS_PER_WORD * max_words)
    except ModuleNotFoundError as error:
        raise needs_models(error) from error
    settings = json.dumps({**writer.settings, "batch_size": options.batch_size, "show": options.show})

    def write(rows: Sequence[Row]) -> list[Row]:
        prompts = [drafts.prompt(row["family"], row["language"], max_words) for row in rows]
        written = writer.write([_pictures(workspace, row) for row in rows], prompts)
        return [
            {
                "task_id": row["task_id"],
                "status": drafts.status(made.text, made.finished, max_words),
                "text": made.text,
                "model_version": model.version,
                "model": model.name,
                "revision": model.revision,
                "licence": options.licence or None,
                "family": row["family"],
                "language": row["language"],
                "prompt": prompt,
                "prompt_version": drafts.version(),
                "seed": workspace.recipe.plan.seed,
                "settings": settings,
                "created_at": datetime.now(UTC),
            }
            for row, prompt, made in zip(rows, prompts, written, strict=True)
        ]

    return write


def _pictures(workspace: Workspace, row: Row) -> Pictures:
    """What the annotator sees: pristine, forged, and forged with all but the region dimmed, (H, W, 3) uint8 RGB."""
    pristine, forged = (_stored(workspace, row[name]) for name in ("pristine", "forged"))
    mask = masks.from_grey(_stored(workspace, row["mask"], grey=True))
    return pristine, forged, np.where(mask[..., None], forged, np.rint(forged * DIMMED).astype(np.uint8))


def _stored(workspace: Workspace, relative: str, grey: bool = False) -> images.Image:
    path = workspace.resolve(relative)
    try:
        return images.decode_stored(path.read_bytes(), grey=grey)
    except (OSError, BadImage) as error:
        raise StoreError(f"{path}: {error}", "restore it from a backup") from error


# --- the server -------------------------------------------------------------------------------------------------------


def _place(
    workspace: Workspace, connection: Connection, project: str, open_tasks: set[str], model: Model, summary: Summary
) -> None:
    """Makes the server show this model's drafts of a project that are to be seen."""
    wanted = {
        row["task_id"]: row
        for row in workspace.drafts.read().to_pylist()
        if row["shown"] and row["status"] == "ok" and row["model_version"] == model.version
    }
    mine = workspace.tasks.keys(project=project).to_pylist()
    rows = {name: wanted[name] for name in mine if name in wanted and name in open_tasks}
    if not rows:
        return
    made = {
        name: Draft(drafts.result(row["text"], row["language"]), drafts.note(row["language"]))
        for name, row in rows.items()
    }
    with session.session(connection, "mmtt annotate draft") as client:
        found = tasks.projects(client, [project])
        if project not in found:
            summary.missing.append(project)
            return
        opened = {number for _, number in submissions.served(client, datetime.fromtimestamp(0, UTC))}
        there, begun = place(client, found[project], made, model.version, opened)
    new = [rows[name] | {"placed_at": datetime.now(UTC)} for name in sorted(there) if rows[name]["placed_at"] is None]
    workspace.drafts.append(new)
    summary.placed += len(new)
    summary.begun += len(begun)
