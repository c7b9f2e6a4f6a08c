"""Generating: the contract on every row, failures as rows, sequential edits, shards, retries."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generators.base import Family, Forged, Job, Method, Params, Rejection
from mmtt_build import images, masks, parts
from mmtt_build.errors import ConfigError, MmttError, WeightsMissing
from mmtt_build.records import Pristine
from mmtt_build.registry import METHODS
from mmtt_build.sources.base import Options
from mmtt_build.stages import forge
from mmtt_build.stages import generate as stage
from mmtt_build.stages.answers import Forgeries, forged
from mmtt_build.stages.export import export
from mmtt_build.stages.generate import Machine, Shard, generate
from mmtt_build.stages.ingest import ingest
from mmtt_build.stages.plan import plan
from mmtt_build.stages.verify import verify
from mmtt_build.weights import Weights
from mmtt_build.workspace import Workspace
from qc.images import Measurer

ONE = Machine(workers=1)


class Tinted(Method):
    """Brightens the nose; on request misbehaves in each way that a method can."""

    name = "tinted"
    family = Family.ATTRIBUTE_EDIT
    ways: ClassVar[tuple[str, ...]] = ("good", "moved", "stray", "empty", "full", "noop", "size", "reject", "raise")

    def plan(self, rng: np.random.Generator, base: Pristine, source: Pristine | None) -> Params:
        return {"way": self.ways[int(rng.integers(len(self.ways)))], "parts": ["nose"]}

    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        return [self._one(job) for job in batch]

    def _one(self, job: Job) -> Forged | Rejection:
        way = job.params["way"]
        mask = parts.select(job.labels, ["nose"])
        image = masks.composite(job.image, 255 - job.image, mask)
        if way == "reject":
            return Rejection("no nose like this")
        if way == "raise":
            raise ValueError("bad luck")
        if way == "stray":
            image[0, 0] ^= 1
        if way == "empty":
            mask = np.zeros_like(mask)
        if way == "full":
            mask = np.ones_like(mask)
        if way == "noop":
            image = job.image.copy()
        if way == "size":
            image = image[:256]
        labels = np.where(mask, parts.INDEX["mouth"], job.labels).astype(np.uint8) if way == "moved" else None
        steps = {"inverted": 255 - job.image, "nose": masks.to_grey(mask)} if self.keep_steps else {}
        return Forged(image, mask, labels=labels, steps=steps)


class TintedAlways(Tinted):
    """Never misbehaves, and works in batches."""

    name = "tinted-always"
    ways = ("good",)
    batch_size = 4


class TintedMoved(Tinted):
    """Says where the parts of its results lie."""

    name = "tinted-moved"
    ways = ("moved",)


class TintedLate(Tinted):
    """Does its work, and its mischief, before and after its turn."""

    name = "tinted-late"
    ways = ("good", "raise", "reject")

    def begin(self, job: Job) -> tuple[Job]:
        return (job,)

    def forge(self, batch: Sequence[tuple[Job]]) -> list[list[Job]]:  # type: ignore[override]
        return [[job] for (job,) in batch]

    def end(self, made: list[Job]) -> Forged | Rejection:
        return self._one(made[0])


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS.builtin, "tinted", f"{__name__}:Tinted")
    monkeypatch.setitem(METHODS.builtin, "tinted-always", f"{__name__}:TintedAlways")
    monkeypatch.setitem(METHODS.builtin, "tinted-moved", f"{__name__}:TintedMoved")
    monkeypatch.setitem(METHODS.builtin, "tinted-late", f"{__name__}:TintedLate")


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, portraits: Path) -> Path:
    workspace = Workspace.init(tmp_path_factory.mktemp("generate") / "w")
    assert ingest(workspace, "portraits", portraits, Options(), workers=1).ok == 7
    return workspace.root


def with_mix(ingested: Path, root: Path, total: int, sequential: float = 0.0, **mix: float) -> Workspace:
    shutil.copytree(ingested, root)
    recipe = root / "mmtt.toml"
    text = recipe.read_text("utf-8")
    head = text[: text.index("[mix]")].replace("total = 0 ", f"total = {total} ")
    head = head.replace("sequential = 0.05", f"sequential = {sequential}")
    shares = "\n".join(f'"{name.replace("_", "-")}" = {share}' for name, share in mix.items())
    recipe.write_text(f"{head}[mix]\n{shares}\n", "utf-8")
    return Workspace(root)


def test_every_way_to_misbehave_is_a_row_with_its_reason(ingested: Path, tmp_path: Path) -> None:
    workspace = with_mix(ingested, tmp_path / "w", 60, tinted=1.0)
    result = generate(workspace, machine=ONE)
    assert sum(result.outcomes.values()) == 60
    way = {row["forgery_id"]: row["params"] for row in workspace.plan.read().to_pylist()}
    expected = {
        "stray": ("rejected", "1 pixels outside the mask differ"),
        "empty": ("rejected", "mask is empty"),
        "full": ("rejected", "mask is the full frame"),
        "noop": ("rejected", "no-op"),
        "size": ("rejected", "image is (256, 512, 3)"),
        "reject": ("rejected", "no nose like this"),
        "raise": ("failed", "ValueError: bad luck"),
    }
    seen = set()
    for row in workspace.forgeries.read().to_pylist():
        chosen = next(name for name in Tinted.ways if f'"{name}"' in way[row["forgery_id"]])
        seen.add(chosen)
        if chosen in ("good", "moved"):
            assert row["status"] == "ok"
            assert row["parts"] == (["nose"] if chosen == "good" else ["nose", "mouth"])
            assert (row["part_map"] is None) == (chosen == "good")
            continue
        status, reason = expected[chosen]
        assert row["status"] == status
        assert reason in row["reason"]
        assert row["image"] is None
    assert seen == set(Tinted.ways)


def test_what_a_method_does_before_and_after_its_turn_ends_as_rows_too(ingested: Path, tmp_path: Path) -> None:
    workspace = with_mix(ingested, tmp_path / "w", 12, tinted_late=1.0)
    generate(workspace, machine=ONE)
    way = {row["forgery_id"]: json.loads(row["params"])["way"] for row in workspace.plan.read().to_pylist()}
    status = {"good": "ok", "raise": "failed", "reject": "rejected"}
    rows = workspace.forgeries.read().to_pylist()
    assert {row["forgery_id"]: row["status"] for row in rows} == {name: status[how] for name, how in way.items()}
    assert set(way.values()) == set(status)
    assert {row["reason"] for row in rows if row["status"] == "failed"} == {"ValueError: bad luck"}


def test_a_part_map_of_the_result_is_stored_and_released(ingested: Path, tmp_path: Path) -> None:
    workspace = with_mix(ingested, tmp_path / "w", 6, tinted_moved=1.0)
    generate(workspace, machine=ONE)
    release = export(workspace, undescribed=True).path
    assert verify(release).problems == []
    released = {
        row["forgery_id"]: row
        for path in (release / "data").glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    moved = [row for row in workspace.forgeries.read().to_pylist() if row["part_map"]]
    assert len(moved) == 6
    for row in moved:
        stored = (workspace.root / row["part_map"]).read_bytes()
        mask = images.decode_stored((workspace.root / row["mask"]).read_bytes(), grey=True) > 0
        assert (images.decode_stored(stored, grey=True)[mask] == parts.INDEX["mouth"]).all()
        assert released[row["forgery_id"]]["part_map"]["bytes"] == stored
    (workspace.root / moved[0]["part_map"]).write_bytes(stored[:-1])
    with pytest.raises(MmttError, match="is not the file that was stored"):
        export(workspace, undescribed=True, version="9.9.9")


def test_what_a_mask_covers_is_what_qc_would_measure(ingested: Path, tmp_path: Path) -> None:
    workspace = with_mix(ingested, tmp_path / "w", 24, 0.4, blendswap=0.5, warp=0.25, tinted_moved=0.25)
    generate(workspace, machine=ONE)
    rows = [row for row in workspace.forgeries.read().to_pylist() if row["status"] == "ok"]
    forgeries = Forgeries(workspace)
    of = forgeries.rows(forgeries.find(pa.array([row["forgery_id"] for row in rows]))).to_pylist()
    measurer = Measurer(workspace.root)
    for row, beside in zip(rows, of, strict=True):
        forgery = forged(beside)
        assert forgery is not None
        _, cover = measurer.measure(forgery)
        assert cover is not None
        assert np.array_equal(np.array(row["cover"], np.float32), np.array(cover, np.float32), equal_nan=True)
        assert measurer.measure(forgery, cover=("as stored",), cover_of=row["cover_of"])[1] == ("as stored",)
    assert {row["part_map"] is None for row in rows} == {True, False}
    started = {row["forgery_id"] for row in workspace.plan.read().to_pylist() if row["parent_id"]}
    assert started & {row["forgery_id"] for row in rows}


def test_a_sheet_shows_how_each_row_came_about(ingested: Path, tmp_path: Path) -> None:
    workspace = with_mix(ingested, tmp_path / "w", 12, tinted=1.0)
    folder = tmp_path / "steps"
    generate(workspace, machine=ONE, debug_dir=folder)
    made = {row["forgery_id"]: row for row in workspace.forgeries.read().to_pylist()}
    assert {path.stem for path in folder.iterdir()} == made.keys()
    for name, row in made.items():
        sheet = images.decode_rgb((folder / f"{name}.png").read_bytes())
        nothing_made = row["reason"] in ("no nose like this", "ValueError: bad luck")
        assert sheet.shape[1] < 800 if nothing_made else sheet.shape[1] > 1600  # base and parts, or base to mask
        assert sheet.std() > 20
    again = generate(with_mix(ingested, tmp_path / "v", 12, tinted=1.0), machine=ONE)
    assert sum(again.outcomes.values()) == 12
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--debug-dir .*file: File exists"):
        generate(workspace, machine=ONE, retry_failed=True, debug_dir=tmp_path / "file")


def test_outside_the_mask_every_stored_forgery_is_its_base(ingested: Path, tmp_path: Path) -> None:
    workspace = with_mix(ingested, tmp_path / "w", 24, 0.6, splice=0.25, blendswap=0.25, patchfill=0.25, warp=0.25)
    generate(workspace, machine=ONE)
    planned = {row["forgery_id"]: row for row in workspace.plan.read().to_pylist()}
    rows = [row for row in workspace.forgeries.read().to_pylist() if row["status"] == "ok"]
    assert len(rows) >= 12
    for row in rows:
        base_path = workspace.root / workspace.image_path("pristine", planned[row["forgery_id"]]["base_id"])
        base = images.decode_stored(base_path.read_bytes())
        forged = images.decode_rgb(workspace.resolve(row["image"]).read_bytes())
        grey = images.decode_stored(workspace.resolve(row["mask"]).read_bytes(), grey=True)
        assert set(np.unique(grey)) == {0, 255}
        assert np.array_equal(forged[grey == 0], base[grey == 0])
        inside = forged[grey == 255] != base[grey == 255]
        assert row["changed_share"] == pytest.approx(inside.any(axis=1).mean(), abs=1e-6)
        assert row["mask_area"] == pytest.approx((grey == 255).mean(), abs=1e-6)
        assert row["parts"]


def test_sequential_edits_unite_the_masks(ingested: Path, tmp_path: Path) -> None:
    workspace = with_mix(ingested, tmp_path / "w", 40, 1.0, patchfill=0.5, tinted_always=0.5)
    generate(workspace, machine=ONE)
    children = [row for row in workspace.plan.read().to_pylist() if row["parent_id"]]
    made = {row["forgery_id"]: row for row in workspace.forgeries.read().to_pylist()}
    done = [row for row in children if made[row["forgery_id"]]["status"] == "ok"]
    assert len(done) >= 5

    def mask(name: str) -> masks.Mask:
        return masks.from_grey(images.decode_stored((workspace.resolve(made[name]["mask"])).read_bytes(), grey=True))

    for row in done:
        nose = parts.select(
            images.decode_stored(
                (workspace.root / workspace.image_path("parts", row["base_id"])).read_bytes(), grey=True
            ),
            ["nose"],
        )
        if row["method"] == "tinted-always":
            assert np.array_equal(mask(row["forgery_id"]), mask(row["parent_id"]) | nose)
    for row in children:  # an edit whose start was rejected says so
        if made[row["parent_id"]]["status"] != "ok":
            assert made[row["forgery_id"]]["status"] == "rejected"
            assert row["parent_id"] in made[row["forgery_id"]]["reason"]


def test_limit_method_and_rerun(ingested: Path, tmp_path: Path) -> None:
    workspace = with_mix(ingested, tmp_path / "w", 20, tinted_always=0.5, patchfill=0.5)
    assert generate(workspace, dry_run=True).pending == 20
    assert generate(workspace, ["patchfill"], dry_run=True).pending == 10
    assert workspace.plan.read().num_rows == 0
    assert generate(workspace, ["tinted-always"], limit=3, machine=ONE).outcomes == {"ok": 3}
    assert generate(workspace, ["tinted-always"], machine=ONE).outcomes == {"ok": 7}
    assert set(workspace.forgeries.read(["method"])["method"].to_pylist()) == {"tinted-always"}
    assert generate(workspace, dry_run=True).pending == 10
    generate(workspace, machine=ONE)
    again = generate(workspace, machine=ONE)
    assert (again.pending, again.outcomes) == (0, {})


def test_shards_are_disjoint_and_whole(ingested: Path, tmp_path: Path) -> None:
    workspace = with_mix(ingested, tmp_path / "w", 30, 0.5, tinted_always=0.5, patchfill=0.5)
    plan(workspace)
    pending = [stage._pending(workspace, (), Shard(i, 3), False)["forgery_id"].to_pylist() for i in (1, 2, 3)]
    assert sorted(chain.from_iterable(pending)) == workspace.plan.keys().to_pylist()
    rows = {row["forgery_id"]: row for row in workspace.plan.read().to_pylist()}
    for part in pending:
        assert all(rows[name]["parent_id"] in part for name in part if rows[name]["parent_id"])


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "a/b", "2", "-1/3", "1/3/5", ""])
def test_impossible_shards_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="3/16"):
        Shard.parse(text)


def test_a_missing_image_fails_its_rows_and_retry_mends_them(ingested: Path, tmp_path: Path) -> None:
    workspace = with_mix(ingested, tmp_path / "w", 14, tinted_always=1.0)
    plan(workspace)
    victim = workspace.plan.read().to_pylist()[0]["base_id"]
    path = workspace.root / workspace.image_path("pristine", victim)
    content = path.read_bytes()
    path.unlink()
    result = generate(workspace, machine=ONE)
    assert result.outcomes["failed"] >= 1
    assert result.outcomes["ok"] == 14 - result.outcomes["failed"]
    assert all("missing file" in reason and victim in reason for reason in result.reasons)
    path.write_bytes(content)
    assert generate(workspace, machine=ONE).pending == 0
    assert generate(workspace, retry_failed=True, machine=ONE).outcomes == {"ok": result.outcomes["failed"]}


def test_a_full_disk_stops_the_run_instead_of_failing_every_row(
    ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = with_mix(ingested, tmp_path / "w", 10, tinted_always=1.0)

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(stage.store, "write_file", full)
        with pytest.raises(OSError, match="No space left"):
            generate(workspace, machine=ONE)
    assert workspace.forgeries.shards() == []
    assert generate(workspace, machine=ONE).outcomes == {"ok": 10}


def test_a_method_without_a_share_is_refused(ingested: Path, tmp_path: Path) -> None:
    workspace = with_mix(ingested, tmp_path / "w", 10, tinted_always=1.0)
    with pytest.raises(ConfigError, match=r"'warp' has no share in \[mix\]"):
        generate(workspace, ["warp"])


# --- on a device ------------------------------------------------------------------------------------------------


FACTS = {"checkpoints": {"bisenet": {"identity": "0" * 64, "licence": "MIT"}}}


class Networked(TintedAlways):
    """Stands where a network would: runs in the device loop, and has only so much memory."""

    name = "networked"
    neural = True
    batch_size = 8
    room = 99
    batches: ClassVar[list[list[str]]] = []

    def batch_key(self, params: Params) -> str:
        return str(params["way"])

    def forge(self, batch: Sequence[Job]) -> list[Forged | Rejection]:
        assert len({self.batch_key(job.params) for job in batch}) == 1
        if len(batch) > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        self.batches.append([job.id for job in batch])
        return super().forge(batch)

    def _one(self, job: Job) -> Forged | Rejection:
        made = super()._one(job)
        return replace(made, facts=FACTS) if isinstance(made, Forged) else made


@pytest.fixture
def networked(ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setitem(METHODS.builtin, "networked", f"{__name__}:Networked")
    monkeypatch.setattr(Networked, "batches", [])
    forge._ready.clear()
    return with_mix(ingested, tmp_path / "w", 30, networked=1.0)


CPU = Machine("cpu", workers=2)


def test_a_neural_method_runs_in_batches_of_one_key(networked: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Networked, "ways", ("good", "reject", "stray"))
    made = generate(networked, machine=CPU)
    assert sum(made.outcomes.values()) == 30
    assert made.outcomes["rejected"] > 5
    assert max(map(len, Networked.batches)) == 8
    rows = {row["forgery_id"]: row for row in networked.forgeries.read().to_pylist()}
    for batch in Networked.batches:
        for name in batch:
            if rows[name]["status"] == "ok":
                assert json.loads(rows[name]["facts"]) == FACTS | {"batch_size": len(batch)}
    assert generate(networked, machine=CPU).pending == 0


def test_the_batch_size_may_be_given(networked: Workspace) -> None:
    generate(networked, machine=Machine("cpu", batch_size=3))
    assert {len(batch) for batch in Networked.batches} <= {1, 2, 3}
    assert sum(map(len, Networked.batches)) == 30


def test_out_of_memory_halves_the_batch_for_good(networked: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Networked, "room", 3)
    assert generate(networked, machine=CPU).outcomes == {"ok": 30}
    assert {len(batch) for batch in Networked.batches} <= {1, 2}


def test_no_room_for_one_ends_the_run(networked: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Networked, "room", 0)
    with pytest.raises(MmttError, match="out of memory with one image at a time"):
        generate(networked, machine=CPU)
    assert networked.forgeries.read().num_rows == 0
    monkeypatch.undo()


def test_one_bad_row_does_not_take_its_batch_with_it(networked: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Networked, "batch_key", lambda self, params: "")
    monkeypatch.setattr(Networked, "ways", ("good", "good", "good", "raise"))
    made = generate(networked, machine=CPU)
    assert made.outcomes["failed"] >= 3
    assert made.outcomes["ok"] + made.outcomes["failed"] == 30
    assert set(made.reasons) == {"ValueError: bad luck"}


def test_a_missing_base_fails_alone(networked: Workspace) -> None:
    plan(networked)
    row = networked.plan.read().to_pylist()[0]
    (networked.root / networked.image_path("parts", row["base_id"])).unlink()
    made = generate(networked, machine=CPU)
    assert made.outcomes["failed"] >= 1
    assert made.outcomes["ok"] >= 20
    assert all("missing file" in reason for reason in made.reasons)


def test_missing_weights_are_said_before_any_work(networked: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Networked, "weights", lambda self, params: ("bisenet", "inswapper"))
    with pytest.raises(WeightsMissing, match=r"(?s)bisenet.*inswapper"):
        generate(networked, machine=Machine("cpu", Weights(())))
    assert Networked.batches == []


def test_the_release_says_what_weights_a_row_was_made_with(networked: Workspace) -> None:
    generate(networked, machine=CPU)
    result = export(networked, undescribed=True)
    rows = [row for file in (result.path / "data").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert len(rows) == 30
    for row in rows:
        assert json.loads(row["params"])["run"]["checkpoints"] == FACTS["checkpoints"]
        assert row["licence"].endswith("; bisenet: MIT")
    assert verify(result.path).problems == []


@pytest.mark.parametrize(
    ("text", "message"), [("gpu", "--device 'gpu'"), ("cuda:x", "cuda:x"), ("cuda:7", "no device cuda:7")]
)
def test_a_device_that_is_not_there_is_refused(networked: Workspace, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(networked, machine=Machine(text))
