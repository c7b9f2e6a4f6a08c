import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmtt_build import images, parts
from mmtt_build.errors import ConfigError
from mmtt_build.seeds import digest
from mmtt_build.sources.base import Options
from mmtt_build.stages.groups import split_of
from mmtt_build.stages.ingest import ingest, perceptual_hash
from mmtt_build.workspace import Workspace

MMTT = Path(sys.executable).with_name("mmtt")


def mmtt(*arguments, check=None):
    """Runs the installed command; with `check`, asserts the exit code."""
    done = subprocess.run([MMTT, *map(str, arguments)], capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    if check is not None:
        assert done.returncode == check, done.stdout + done.stderr
    return done


@pytest.fixture
def source(tmp_path, quick_face):
    """Makes or adds to a folder of faces with label maps; returns the folder."""

    def make(seeds=range(6), name="faces", size=256):
        root = tmp_path / name
        (root / "labels").mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            image, labels = quick_face(seed, size)
            (root / f"{seed:03d}.png").write_bytes(images.encode_rgb(image))
            (root / f"labels/{seed:03d}.png").write_bytes(images.encode_grey(labels))
        return root

    return make


def read(workspace, root, workers=1, **arguments):
    return ingest(workspace, "folder", root, Options(), workers=workers, **arguments)


def by_original(workspace):
    return {row["original"]: row for row in workspace.pristine.read().to_pylist()}


def grouped(workspace):
    """Identity group by file name."""
    names = {row["id"]: name for name, row in by_original(workspace).items()}
    return {names[row["id"]]: row["identity_group"] for row in workspace.groups.read().to_pylist()}


def state(workspace):
    """All that an ingest leaves: current rows of both tables and the bytes of every image."""
    files = {
        path.relative_to(workspace.root).as_posix(): digest(path.read_bytes())
        for path in sorted((workspace.root / "images").rglob("*.png"))
        if not path.name.startswith(".tmp-")
    }
    return workspace.pristine.read().to_pylist(), workspace.groups.read().to_pylist(), files


def test_a_row_says_all_about_its_image(workspace, source, quick_face):
    root = source([3], size=600)
    summary = read(workspace, root)
    assert (summary.ok, summary.failed, summary.excluded, summary.known) == (1, 0, 0, 0)
    (row,) = workspace.pristine.read().to_pylist()
    assert (row["source"], row["status"], row["reason"], row["original"]) == ("folder", "ok", None, "003.png")
    assert (row["original_size"], row["road"], row["parts_origin"]) == (600, images.ROAD, "labels")
    stored = images.decode_stored(workspace.resolve(row["image"]).read_bytes())
    assert np.array_equal(stored, images.to_size(quick_face(3, 600)[0]))
    labels = images.decode_stored(workspace.resolve(row["parts"]).read_bytes(), grey=True)
    assert row["part_areas"] == parts.areas(labels).tolist()
    assert row["phash"] == perceptual_hash(stored)
    assert len(row["points"]) == 10
    assert len(row["skin_lab"]) == 3
    assert not Path(row["image"]).is_absolute()


def test_drawn_portraits_of_both_layouts_come_in(workspace, portraits):
    summary = ingest(workspace, "portraits", portraits, Options(), workers=1)
    assert (summary.ok, summary.failed) == (7, 0)
    rows = {row["id"]: row for row in workspace.pristine.read().to_pylist()}
    assert next(iter(rows)) == "portraits-c01998"
    assert {row["parts_origin"] for row in rows.values()} == {"masks", "landmarks"}
    assert all((row["landmarks"] is None) == (row["parts_origin"] == "masks") for row in rows.values())
    groups = {row["id"]: row for row in workspace.groups.read().to_pylist()}
    assert groups["portraits-c01998"] == {**groups["portraits-c01999"], "id": "portraits-c01998"}
    assert len({row["identity_group"] for row in groups.values()}) == 6


def test_one_and_two_workers_make_the_same(tmp_path, source):
    root = source(range(8))
    one, two = (Workspace.init(tmp_path / name) for name in ("one", "two"))
    read(one, root, workers=1)
    read(two, root, workers=2)
    assert state(one) == state(two)
    assert len(state(one)[0]) == 8


def test_a_killed_ingest_goes_on_to_the_same_end(tmp_path, source):
    root = source(range(40))
    undisturbed, killed = (Workspace.init(tmp_path / name) for name in ("undisturbed", "killed"))
    read(undisturbed, root)
    command = [MMTT, "build", "ingest", "-w", killed.root, "--folder", root, "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    stored, until = 0, time.monotonic() + 60
    while stored < 8 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
        stored = sum(1 for _ in (killed.root / "images/pristine").glob("*/[!.]*.png"))
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 8 <= stored < 40
    assert len(killed.groups.read()) == 0
    mmtt(*command[1:], check=0)
    assert state(killed) == state(undisturbed)
    shards = killed.pristine.shards()
    assert read(killed, root).known == 40
    assert killed.pristine.shards() == shards


def jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def test_copies_of_an_image_join_its_group_and_strangers_do_not(workspace, portraits, tmp_path):
    root = tmp_path / "faces"
    root.mkdir()
    folder = portraits / "celebamask-hq/CelebA-HQ-img"
    originals = [
        cv2.resize(cv2.imread(str(folder / f"{n}.jpg")), (512, 512), interpolation=3) for n in (1998, 2000, 2001)
    ]
    for n, image in enumerate(originals):
        cv2.imwrite(str(root / f"{n}.png"), image)
    first = originals[0]
    shifted = cv2.copyMakeBorder(first, 2, 0, 2, 0, cv2.BORDER_REPLICATE)[:512, :512]
    cv2.imwrite(str(root / "0-reencoded.png"), jpeg(first, 60))
    cv2.imwrite(str(root / "0-brighter.png"), cv2.convertScaleAbs(first, alpha=1.06, beta=4))
    cv2.imwrite(str(root / "0-shifted.png"), shifted)
    cv2.imwrite(str(root / "0-smaller.png"), cv2.resize(first, (256, 256), interpolation=cv2.INTER_AREA))
    assert read(workspace, root).ok == 7
    groups = grouped(workspace)
    assert len({group for name, group in groups.items() if name.startswith("0")}) == 1
    assert len(set(groups.values())) == 3


def test_the_near_duplicate_threshold_is_the_recipes(tmp_path, source, quick_face):
    root = source([1])
    bent = quick_face(1)[0].copy()
    bent[:30] = 255 - bent[:30]
    (root / "bent.png").write_bytes(images.encode_rgb(bent))
    hashes = [images.to_size(images.decode_rgb((root / name).read_bytes())) for name in ("001.png", "bent.png")]
    first, second = (np.unpackbits(np.frombuffer(perceptual_hash(image), np.uint8)) for image in hashes)
    distance = int((first != second).sum())
    assert 0 < distance <= 80
    for bits, count in ((distance, 1), (distance - 1, 2)):
        workspace = Workspace.init(tmp_path / f"bits-{bits}")
        (workspace.root / "mmtt.toml").write_text(f"[ingest]\nnear_duplicate_bits = {bits}\n")
        read(workspace, root)
        assert len(set(grouped(workspace).values())) == count


def test_growing_keeps_every_group_and_split(workspace, source):
    root = source(range(6))
    read(workspace, root)
    before = {row["id"]: row for row in workspace.groups.read().to_pylist()}
    source(range(6, 12))
    for seed in (2, 4):  # names that sort before the image they repeat
        (root / f"000-copy-of-{seed}.png").write_bytes((root / f"{seed:03d}.png").read_bytes())
    assert read(workspace, root).ok == 8
    after = {row["id"]: row for row in workspace.groups.read().to_pylist()}
    assert {key: after[key] for key in before} == before
    groups = grouped(workspace)
    assert len(after) == 14
    assert groups["000-copy-of-2.png"] == groups["002.png"]
    assert len(set(groups.values())) == 12


def test_an_image_between_two_splits_is_left_out(workspace, source, quick_face):
    """Of a series that fades one image into another, the ends are strangers and something between resembles both."""
    (workspace.root / "mmtt.toml").write_text(
        "[ingest]\nnear_duplicate_bits = 80\n[split]\ntrain=0.5\nval=0.25\ntest=0.25\n"
    )
    image = quick_face(0)[0].astype(np.float32)
    other = quick_face(1)[0].astype(np.float32)
    mixtures = [np.clip(image * (1 - t) + other * t, 0, 255).astype(np.uint8) for t in np.linspace(0, 1, 21)]
    bits = [np.unpackbits(np.frombuffer(perceptual_hash(images.to_size(m)), np.uint8)) for m in mixtures]
    distance = np.array([[int((a != b).sum()) for b in bits] for a in bits])
    ends, bridge = next(
        ((a, b), c)
        for a in range(21) for b in range(a, 21) for c in range(a, b)
        if distance[a, b] > 80 and distance[a, c] <= 80 and distance[b, c] <= 80
    )  # fmt: skip
    root = source([])
    shares, seed = workspace.recipe.split.shares(), workspace.recipe.plan.seed
    names = [f"{n}.png" for n in range(50)]
    ids = {name: f"folder-{name[:-4]}-{digest(name)[:8]}" for name in names}
    splits = {name: split_of(ids[name], shares, seed) for name in names}
    here, there = names[0], next(name for name in names if splits[name] != splits[names[0]])
    for name, index in ((here, ends[0]), (there, ends[1])):
        (root / name).write_bytes(images.encode_rgb(mixtures[index]))
    read(workspace, root)
    assert len(set(grouped(workspace).values())) == 2
    (root / "bridge.png").write_bytes(images.encode_rgb(mixtures[bridge]))
    read(workspace, root)
    row = by_original(workspace)["bridge.png"]
    assert row["status"] == "excluded"
    assert row["reason"].startswith("near-duplicate of images in different splits")
    assert set(grouped(workspace)) == {here, there}
    assert read(workspace, root).ok == 0


def test_splits_have_their_shares_and_depend_on_the_seed():
    shares = {"train": 0.8, "val": 0.1, "test": 0.1}
    splits = [split_of(f"person-{n}", shares, 1) for n in range(4000)]
    assert splits.count("train") / 4000 == pytest.approx(0.8, abs=0.03)
    assert splits.count("test") / 4000 == pytest.approx(0.1, abs=0.02)
    assert splits != [split_of(f"person-{n}", shares, 2) for n in range(4000)]
    assert {split_of(f"{n}", {"train": 0.0, "val": 0.0, "test": 1.0}, 1) for n in range(50)} == {"test"}


def test_failures_are_rows_and_are_tried_again_on_request(workspace, source):
    root = source(range(3))
    good = (root / "001.png").read_bytes()
    (root / "001.png").write_bytes(good[:500])
    summary = read(workspace, root)
    assert (summary.ok, summary.failed) == (2, 1)
    assert summary.reasons == {"truncated PNG: it has no end mark": 1}
    assert by_original(workspace)["001.png"]["image"] is None
    (root / "001.png").write_bytes(good)
    assert read(workspace, root).known == 3
    again = read(workspace, root, retry_failed=True)
    assert (again.ok, again.failed, again.known) == (1, 0, 2)
    assert by_original(workspace)["001.png"]["status"] == "ok"
    assert len(grouped(workspace)) == 3


def test_a_dry_run_counts_and_writes_nothing(workspace, source):
    root = source(range(4))
    before = sorted(workspace.root.rglob("*"))
    summary = read(workspace, root, dry_run=True)
    assert (summary.ok, summary.known) == (4, 0)
    assert sorted(workspace.root.rglob("*")) == before
    read(workspace, root, limit=3)
    assert (read(workspace, root, dry_run=True).ok, read(workspace, root, dry_run=True).known) == (1, 3)


def test_a_limit_is_a_number_of_new_images(workspace, source):
    root = source(range(5))
    assert [read(workspace, root, limit=2).ok for _ in range(4)] == [2, 2, 1, 0]


def test_an_image_withdrawn_later_is_excluded_by_the_next_run(workspace, source):
    root = source(range(3))
    read(workspace, root)
    listed = Options(exclude=frozenset(["001"]))
    summary = ingest(workspace, "folder", root, listed, workers=1)
    assert (summary.ok, summary.excluded, summary.known) == (0, 1, 2)
    row = by_original(workspace)["001.png"]
    assert (row["status"], row["reason"]) == ("excluded", "exclusion list names 001")
    assert ingest(workspace, "folder", root, listed, workers=1).known == 3
    assert read(workspace, root).known == 3, "a run without the list must not bring it back"
    assert read(workspace, root, readmit=True).ok == 1
    assert by_original(workspace)["001.png"]["status"] == "ok"


def test_labels_keep_two_folders_of_one_kind_apart(workspace, source):
    first, second = source(range(2), "first"), source(range(5, 7), "second")
    read(workspace, first, label="a")
    assert read(workspace, second, label="b.2").ok == 2
    assert {name.split("-")[0] for name in workspace.pristine.keys().to_pylist()} == {"a", "b.2"}


@pytest.mark.parametrize("label", ["../up", "a/b", "..", ".a", "-a", "a b", "x" * 65, "ä"])
def test_a_label_that_does_not_fit_a_file_name_is_refused(workspace, source, label):
    with pytest.raises(ConfigError, match="label"):
        read(workspace, source([0]), label=label)
    assert sorted(p.name for p in workspace.root.iterdir()) == ["mmtt.toml"]


def test_a_workspace_inside_the_source_is_refused(source):
    root = source([0])
    with pytest.raises(ConfigError, match="would read its own images"):
        read(Workspace.init(root / "workspace"), root)
    with pytest.raises(ConfigError, match="would read its own images"):
        read(Workspace.init(root), root)


def test_exit_codes_of_the_command(workspace, source):
    root = source(range(2))
    command = ("build", "ingest", "-w", workspace.root, "--workers", 1)
    assert "read 2 images, left out 0, failed 0" in mmtt(*command, "--folder", root, check=0).stdout
    (root / "x.png").write_bytes(b"no image")
    failed = mmtt(*command, "--folder", root, check=3)
    assert "failed 1; 2 known already" in failed.stdout
    assert "1  not an image that this tool reads" in failed.stdout
    other = mmtt(*command, "--celebamask-hq", root, check=1)
    assert "SourceError" in other.stderr
    assert "has no folder CelebA-HQ-img" in other.stderr
    (workspace.root / "mmtt.toml").write_text("[plan]\nseeds = 1\n")
    broken = mmtt(*command, "--folder", root, check=2)
    assert "line 2: plan.seeds: unknown key\n  -> did you mean 'seed'?" in broken.stderr


def test_a_workspace_that_is_not_there_is_not_looked_for_above(workspace):
    with pytest.raises(ConfigError, match="absent is not a folder"):
        Workspace.find(workspace.root / "absent")
    (workspace.root / "sub").mkdir()
    assert Workspace.find(workspace.root / "sub").root == workspace.root
