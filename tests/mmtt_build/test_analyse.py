"""Ingest with a face analysis: real packs over real files, and the grouping rule over made-up embeddings."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmtt_build import images
from mmtt_build.errors import ConfigError, WeightsMissing
from mmtt_build.sources.base import Options
from mmtt_build.stages import groups
from mmtt_build.stages.analyse import analyse
from mmtt_build.stages.groups import group
from mmtt_build.stages.ingest import ingest
from mmtt_build.stages.plan import plan
from mmtt_build.stages.validate import validate
from mmtt_build.weights import Weights
from mmtt_build.workspace import Workspace
from tests.generators.faces import onnx_packs
from tests.generators.faces.onnx_packs import canvas, drawn_face

MMTT = Path(sys.executable).with_name("mmtt")
WEIGHTS = Weights(())


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    """A pack that sees what `canvas` draws."""
    return str(onnx_packs.pack(tmp_path_factory.mktemp("spots"), yaw=12))


@pytest.fixture(scope="module")
def frontal(tmp_path_factory):
    """A pack that sees one face in every picture and reads its age off the red."""
    return str(onnx_packs.pack(tmp_path_factory.mktemp("frontal"), detector=onnx_packs.frontal))


@pytest.fixture
def folder(tmp_path):
    """Writes pictures into a source folder, each with a strip of its own so that no two are near-duplicates."""

    def write(**pictures):
        root = tmp_path / "faces"
        root.mkdir(exist_ok=True)
        for name, picture in pictures.items():
            (root / f"{name}.png").write_bytes(images.encode_rgb(picture))
        return root

    return write


def told_apart(picture, seed):
    """The picture with another pattern in its lower third, where `canvas` draws nothing in these tests."""
    blocks = np.random.default_rng(seed).integers(0, 90, (5, 16, 3), np.uint8)
    out = picture.copy()
    out[-160:] = np.kron(blocks, np.ones((32, 32, 1), np.uint8))
    return out


def recipe(workspace, **values):
    file = workspace.root / "mmtt.toml"
    text = file.read_text("utf-8")
    for key, value in values.items():
        line = next(line for line in text.splitlines() if line.startswith(f"{key} ="))
        text = text.replace(line, f"{key} = {value}")
    file.write_text(text, "utf-8")
    return Workspace(workspace.root)


def read(workspace, root, **arguments):
    return ingest(workspace, "folder", root, Options(), workers=1, analysis_follows=True, **arguments)


def look(workspace, pack, **arguments):
    return analyse(workspace, pack, WEIGHTS, device="cpu", threads=1, **arguments)


def short(name):
    """An id without the digest that the folder source ends it with."""
    return name[:-9] if name.startswith("folder-") else name


def reasons(workspace):
    return {short(row["id"]): (row["status"], row["reason"]) for row in workspace.pristine.read().to_pylist()}


def test_a_row_says_what_was_seen(workspace, spots, folder):
    workspace = recipe(workspace, min_estimated_age=5)
    read(workspace, folder(one=canvas((9, 5, 4.5, 255), (17, 3, 1, 248))))
    summary = look(workspace, spots)
    assert (summary.pending, summary.analysed, summary.failed) == (1, 1, 0)
    (row,) = workspace.faces.read().to_pylist()
    assert (short(row["id"]), row["count"]) == ("folder-one", 1)  # the small face in the background does not count
    assert row["scores"] == pytest.approx([0.997], abs=0.002)
    assert row["box"] == pytest.approx([102, 0, 333, 231], abs=2)
    assert row["pose"] == pytest.approx([12, 0, 0], abs=1e-3)
    assert row["points"][0] > row["points"][2]  # subject's left eye first
    assert row["age"] > 5
    assert np.linalg.norm(np.array(row["embedding"], np.float32)) == pytest.approx(1, abs=2e-3)
    assert len(row["pack"]) == 64
    assert row["pack_name"] is None  # a folder of one's own, not of the catalogue
    assert len(workspace.groups.read()) == 1


def test_what_is_not_one_grown_up_face_is_left_out_with_a_reason(workspace, spots, frontal, folder):
    workspace = recipe(workspace, min_estimated_age=5)
    pictures = {"none": canvas(), "one": canvas((9, 5, 4, 255)), "two": canvas((4, 5, 3, 255), (14, 5, 2, 248))}
    read(workspace, folder(**{name: told_apart(p, i) for i, (name, p) in enumerate(pictures.items())}))
    summary = look(workspace, spots)
    assert summary.excluded == {"no face found": 1, "several faces": 1}
    assert reasons(workspace) == {
        "folder-none": ("excluded", "no face found"),
        "folder-one": ("ok", "no label map: only methods that need no parts can use it"),
        "folder-two": ("excluded", "several faces: 2 found (scores 1.00, 0.97)"),
    }
    assert list(of(workspace)) == ["folder-one"]


def test_the_young_are_left_out_and_the_bar_can_be_raised_without_a_second_look(workspace, frontal, folder):
    read(workspace, folder(young=drawn_face(1, age_red=50), grown=drawn_face(2, age_red=90), old=drawn_face(3, 200)))
    assert look(workspace, frontal).excluded == {"estimated age below 25": 1}
    assert reasons(workspace)["folder-young"] == ("excluded", "estimated age below 25: 19")
    workspace = recipe(workspace, min_estimated_age=50)
    summary = look(workspace, frontal)
    assert (summary.pending, summary.excluded) == (0, {"estimated age below 50": 1})
    assert reasons(workspace)["folder-grown"][0] == "excluded"


def test_an_unknown_age_is_left_out_and_a_pack_without_ages_needs_the_rule_off(workspace, frontal, folder):
    read(workspace, folder(one=drawn_face(1)))
    off = recipe(workspace, min_estimated_age=0)
    look(off, frontal)
    assert off.faces.read()["age"].to_pylist() == [None]
    assert reasons(off)["folder-one"][0] == "ok"
    on = recipe(workspace, min_estimated_age=25)
    assert look(on, frontal).excluded == {"no age estimate": 1}


def test_one_person_is_one_group(workspace, frontal, folder):
    """Two pictures of one face, far apart in their perceptual hash by the recipe's measure, and one of another."""
    workspace = recipe(workspace, near_duplicate_bits=0)
    face, other = drawn_face(1), drawn_face(2)
    noise = np.random.default_rng(1).normal(0, 30, face.shape)
    again = np.clip(face + noise, 0, 255).astype(np.uint8)
    root = folder(a=face, b=again, c=other)
    read(workspace, root)
    look(workspace, frontal)
    assert len(set(workspace.pristine.read()["phash"].to_pylist())) == 3
    assert of(workspace) == {"folder-a": "folder-a", "folder-b": "folder-a", "folder-c": "folder-c"}
    strict = Workspace.init(root.parent / "strict")
    strict = recipe(strict, near_duplicate_bits=0, same_person_cosine=0.999)
    read(strict, root)
    look(strict, frontal)
    assert len(set(of(strict).values())) == 3


def of(workspace):
    return {short(row["id"]): short(row["identity_group"]) for row in workspace.groups.read().to_pylist()}


def test_nothing_is_grouped_or_planned_before_its_face_is_known(workspace, frontal, folder, caplog):
    workspace = recipe(workspace, analysis='"buffalo_l"')
    root = folder(a=drawn_face(1))
    ingest(workspace, "folder", root, Options(), workers=1)  # an ingest without its analysis
    assert len(workspace.groups.read()) == 0
    with pytest.raises(ConfigError, match="no usable image"):
        plan(workspace)
    assert "1 images wait for their face analysis" in caplog.text
    look(workspace, frontal)
    assert len(workspace.groups.read()) == 1
    folder(b=drawn_face(2))
    ingest(recipe(workspace, analysis='""'), "folder", root, Options(), workers=1)  # faces known: the rule goes on
    assert len(workspace.groups.read()) == 1


def test_exclusions_that_a_kill_prevented_are_made_before_anything_is_grouped(workspace, frontal, folder):
    read(workspace, folder(young=drawn_face(1, age_red=30), old=drawn_face(2)))
    recorded = Workspace.init(workspace.root.parent / "recorded")
    read(recorded, folder())
    look(recorded, frontal)
    workspace.faces.append(recorded.faces.read())  # killed between the last row and the exclusions
    group(workspace)
    assert reasons(workspace)["folder-young"][0] == "excluded"
    assert list(of(workspace)) == ["folder-old"]


def test_groups_from_before_the_analysis_stay_and_this_is_said(workspace, frontal, folder, caplog):
    ingest(workspace, "folder", folder(a=drawn_face(1), b=drawn_face(2)), Options(), workers=1)
    before = of(workspace)
    assert len(before) == 2
    look(workspace, frontal)
    assert of(workspace) == before
    assert "2 images had their identity group before" in caplog.text


def test_a_dry_run_counts_and_writes_nothing(workspace, frontal, folder):
    read(workspace, folder(a=drawn_face(1)))
    assert look(workspace, frontal, dry_run=True).pending == 1
    assert workspace.faces.shards() == []
    assert not workspace.groups.shards()


def test_another_pack_is_refused(workspace, frontal, spots, folder):
    read(workspace, folder(a=drawn_face(1)))
    look(workspace, frontal)
    with pytest.raises(ConfigError, match="another pack") as caught:
        look(workspace, spots)
    assert str(workspace.faces.folder) in caught.value.remedy


def test_a_damaged_stored_image_is_a_failed_row_and_can_be_retried(workspace, frontal, folder):
    root = folder(a=drawn_face(1), b=drawn_face(2), black=np.zeros((512, 512, 3), np.uint8))
    read(workspace, root)
    stored = next((workspace.root / "images/pristine").rglob("folder-a-*.png"))
    stored.write_bytes(stored.read_bytes()[:99])
    summary = look(workspace, frontal)
    assert (summary.analysed, summary.failed) == (1, 2)
    assert "damaged stored image" in reasons(workspace)["folder-a"][1]
    assert "length 0" in reasons(workspace)["folder-black"][1]
    assert list(of(workspace)) == ["folder-b"]
    read(workspace, root, retry_failed=True)
    look(workspace, frontal)
    assert sorted(of(workspace)) == ["folder-a", "folder-b"]


def command(workspace, *arguments):
    return [MMTT, "build", "ingest", "-w", workspace.root, "--device", "cpu", "--workers", "1", *arguments]


def mmtt(workspace, *arguments):
    done = subprocess.run(command(workspace, *arguments), capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_command_reads_and_analyses(workspace, frontal, folder):
    recipe(workspace, near_duplicate_bits=0)
    root = folder(a=drawn_face(1), young=drawn_face(2, age_red=20))
    dry = mmtt(workspace, "--folder", root, "--analysis", frontal, "--dry-run")
    assert dry.returncode == 0 and "would analyse" in dry.stdout
    assert not workspace.pristine.shards()
    done = mmtt(workspace, "--folder", root, "--analysis", frontal)
    assert done.returncode == 0, done.stderr
    assert "analysed 2 images, left out 1, failed 0" in done.stdout
    assert "1  estimated age below 25" in done.stdout
    again = mmtt(workspace, "--analysis", frontal)  # no source: what is here
    assert "analysed 0 images" in again.stdout


def test_the_recipe_can_name_a_folder_beside_itself(workspace, frontal, folder):
    (workspace.root / "packs").mkdir()
    (workspace.root / "packs" / "mine").symlink_to(frontal)
    found = recipe(workspace, analysis='"packs/gone"')
    assert any("packs/gone does not exist" in problem.message for problem in validate(found))
    found = recipe(workspace, analysis='"packs/mine"')
    assert validate(found) == []
    done = mmtt(workspace, "--folder", folder(a=drawn_face(1)))
    assert "analysed 1 images" in done.stdout, done.stderr
    assert len(workspace.groups.read()) == 1


def test_a_missing_pack_stops_before_anything_is_read(workspace, folder, tmp_path):
    done = mmtt(workspace, "--folder", folder(a=drawn_face(1)), "--analysis", "buffalo_l", "--weights-dir", tmp_path)
    assert done.returncode == 1
    assert "WeightsMissing" in done.stderr and "mmtt weights add buffalo_l" in done.stderr
    assert not workspace.pristine.shards()
    with pytest.raises(WeightsMissing, match="does not exist"):
        look(workspace, str(tmp_path / "nowhere"))


def test_a_stopped_analysis_goes_on_to_the_same_end(tmp_path, frontal, folder, quick_face):
    """Ctrl-C in the first run, SIGKILL in the second; the third ends where an undisturbed one does."""
    root = folder(**{f"{seed:03d}": quick_face(seed)[0] for seed in range(90)})
    undisturbed, stopped = (Workspace.init(tmp_path / name) for name in ("undisturbed", "stopped"))
    for workspace in (undisturbed, stopped):
        ingest(workspace, "folder", root, Options(), workers=1, analysis_follows=True)
    look(undisturbed, frontal)
    earlier = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.6)
    try:
        with pytest.raises(KeyboardInterrupt):
            look(stopped, frontal)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    shards = len(stopped.faces.shards())
    assert len(stopped.groups.read()) == 0
    process = subprocess.Popen(
        command(stopped, "--analysis", frontal), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while len(stopped.faces.shards()) == shards and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.wait(timeout=30)
    assert 0 < len(stopped.faces.read()) <= 90
    look(stopped, frontal)
    assert stopped.faces.read().equals(undisturbed.faces.read())
    assert reasons(stopped) == reasons(undisturbed)
    assert stopped.groups.read().equals(undisturbed.groups.read())


# --- grouping over made-up embeddings ---------------------------------------------------------------------------


def known(workspace, embeddings, first=0):
    """Usable images with these embeddings, as ingest and analysis would leave them."""
    rng = np.random.default_rng(first)
    names = [f"x-{first + i:05d}" for i in range(len(embeddings))]
    hashes = rng.integers(0, 256, (len(names), 32), np.uint8)
    workspace.pristine.append(
        [{"id": name, "status": "ok", "phash": h.tobytes()} for name, h in zip(names, hashes, strict=True)]
    )
    workspace.faces.append(
        [
            {"id": name, "pack": "p", "count": 1, "scores": [0.9], "age": 40, "embedding": e.astype(np.float16)}
            for name, e in zip(names, embeddings, strict=True)
        ]
    )
    return names


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def at_cosine(of, cosine, seed):
    """A direction with exactly this cosine to another."""
    random = np.random.default_rng(seed).standard_normal(512)
    across = unit(random - (random @ of) * of)
    return cosine * of + np.sqrt(1 - cosine**2) * across


def test_the_threshold_is_the_recipes_and_chains_join(workspace):
    a = unit(np.random.default_rng(1).standard_normal(512))
    b = at_cosine(a, 0.52, 2)
    c = at_cosine(b, 0.52, 3)
    d = at_cosine(a, 0.48, 4)
    known(workspace, [a, b, c, d])
    assert a @ c < 0.5
    group(workspace)
    assert of(workspace) == {"x-00000": "x-00000", "x-00001": "x-00000", "x-00002": "x-00000", "x-00003": "x-00003"}


def test_a_later_image_joins_the_older_group_and_a_bridge_is_left_out(workspace):
    rng = np.random.default_rng(5)
    people = unit(rng.standard_normal((30, 512)))
    known(workspace, people)
    group(workspace)
    splits = {row["id"]: row["split"] for row in workspace.groups.read().to_pylist()}
    train = next(i for i in range(30) if splits[f"x-{i:05d}"] == "train")
    test = next(i for i in range(30) if splits[f"x-{i:05d}"] != "train")
    known(workspace, [at_cosine(people[train], 0.8, 6)], first=100)
    group(workspace)
    known(workspace, [unit(people[train] + people[test])], first=101)
    group(workspace)
    assert of(workspace)["x-00100"] == f"x-{train:05d}"
    assert "x-00101" not in of(workspace)
    status, reason = reasons(workspace)["x-00101"]
    assert status == "excluded" and reason.startswith(groups.BRIDGE)


@pytest.mark.parametrize("many", [10**9, 50])
def test_all_close_pairs_are_found_in_blocks_whether_reduced_or_not(monkeypatch, many):
    rng = np.random.default_rng(7)
    centres = unit(rng.standard_normal((40, 512)))
    vectors = unit(centres[rng.integers(40, size=300)] + 0.03 * rng.standard_normal((300, 512))).astype(np.float32)
    monkeypatch.setattr(groups, "_BLOCK", 64)
    monkeypatch.setattr(groups, "_MANY_PAIRS", many)
    pairs = groups._close(lambda start: vectors[start : start + 64], 300, 120, 0.5)
    first, second = np.nonzero(np.triu(vectors @ vectors.T >= 0.5, 1))
    expected = np.column_stack([first, second])[second >= 180]
    if many > 1000:
        assert {tuple(sorted(pair)) for pair in pairs.tolist()} == {tuple(pair) for pair in expected.tolist()}
    found, wanted = (groups._components(p, 300) for p in (pairs, expected))
    assert len(set(zip(found, wanted, strict=True))) == len(set(found)) == len(set(wanted))


def test_a_crowd_that_is_one_person_is_warned_of(workspace, caplog):
    rng = np.random.default_rng(8)
    one = unit(rng.standard_normal(512))
    crowd = [at_cosine(one, 0.9, seed) for seed in range(groups.CROWD + 1)]
    known(workspace, [*unit(rng.standard_normal((40, 512))), *crowd[:-1]])
    group(workspace)
    assert caplog.records == []
    known(workspace, [crowd[-1]], first=500)
    group(workspace)
    assert "51 of 91 images are one person" in caplog.text and "same_person_cosine" in caplog.text
