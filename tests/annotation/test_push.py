"""Work goes out to annotators: `push` on a real, guarded Label Studio."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
import subprocess
import time
from collections import Counter

import pytest

from annotation import page
from annotation.access import TOKEN, URL
from mmtt_build import images
from mmtt_build.errors import ConfigError
from mmtt_build.records import SIZE
from mmtt_build.stages.push import Options, push
from mmtt_build.stages.serve import HOME
from tests.annotation.work import forge


def test_a_dry_run_says_what_goes_to_whom_and_does_nothing(work):
    said = work.push("--dry-run")
    assert said.splitlines()[0].split() == [
        "annotator", "batches", "pairs", "repeats", "controls", "blendswap", "warp"
    ]  # fmt: skip
    assert "push: 12 pairs, 2 repeats, 1 controls would be new\n" in said
    assert not (work.workspace.root / "tables/tasks").exists()
    assert not (work.workspace.root / "images/overlays").exists()
    assert work.projects() == {}


def test_pushing_twice_makes_every_task_once(work):
    first = work.push("--batch-size", 4)
    assert "12 pairs, 2 repeats, 1 controls new\nserver: 15 open tasks, 15 imported, 0 mended, 0 doubles" in first
    assert work.there() == work.wanted()
    assert Counter(row["kind"] for row in work.assigned()) == {"pair": 12, "repeat": 2, "control": 1}
    assert max(Counter(row["project"] for row in work.assigned()).values()) <= 4
    assert "0 pairs, 0 repeats, 0 controls new\nserver: 15 open tasks, 0 imported" in work.push()
    assert work.there() == work.wanted()
    forge(work.workspace, range(12, 14))
    before = work.assigned()
    assert "2 pairs, 0 repeats, 0 controls new\nserver: 17 open tasks, 2 imported" in work.push()
    assert [row for row in work.assigned() if row in before] == before
    assert work.there() == work.wanted()


def test_tasks_show_the_pair_and_say_nothing_of_their_kind(work):
    work.push()
    rows = {row["task_id"]: row for row in work.assigned()}
    with work.studio.client() as client:
        data = {
            t.data["pair_id"]: t.data for n in work.projects().values() for t in client.tasks.list(project=n)
        }  # fmt: skip
        for number in work.projects().values():
            assert client.projects.get(id=number).label_config == page.config("en")
    prefix = f"{work.studio.access.images_url}/"
    for name, row in rows.items():
        shown = {key: data[name][key].removeprefix(prefix) for key in ("pristine", "forged", "overlay")}
        assert shown["pristine"] == work.workspace.image_path("pristine", row["base_id"])
        overlay = images.cv2.imread(str(work.workspace.root / shown["overlay"]), images.cv2.IMREAD_UNCHANGED)
        assert overlay.shape == (SIZE, SIZE, 4)
        if row["kind"] == "control":
            assert shown["forged"] == shown["pristine"]
            assert not overlay.any()
        else:
            assert shown["forged"] == work.workspace.image_path("forged", row["forgery_id"])
            assert overlay[150, 200, 3] == 0 and overlay[0, 0, 3] > 100
            assert data[name]["focus_y"] == f"{150 / SIZE:.1%}"
        assert not re.search("repeat|control|pair-", " ".join([name, row["project"], *data[name]]))


def test_names_stay_in_the_private_folder(work):
    work.push()
    file = work.studio.data / "annotators.csv"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "a02,ben@lab.example," in file.read_text("utf-8")
    assert "a01,ana@lab.example,Ana Álvarez" in file.read_text("utf-8")
    kept = b"".join(path.read_bytes() for path in work.workspace.root.rglob("*") if path.is_file())
    assert b"lab.example" not in kept
    assert {row["annotator"] for row in work.assigned()} == {"a01", "a02"}


@pytest.mark.parametrize("projects", [0, 1, 3])
def test_a_push_that_is_killed_is_finished_by_the_next(work, projects):
    arguments = ("push", "--annotators", work.people, "--batch-size", "2", "--repeats", "0.2")
    with subprocess.Popen(
        work.command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=work.studio.environment
    ) as process:
        while process.poll() is None and not (
            (work.workspace.root / "tables/tasks").exists() and len(work.projects()) >= projects
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    before = work.assigned()
    assert len(work.there()) < 14
    work.push("--batch-size", 2)
    assert work.there() == work.wanted()
    assert [row for row in work.assigned() if row in before] == before
    assert Counter(row["kind"] for row in work.assigned())["pair"] == 12


def test_what_somebody_changed_on_the_server_is_mended(work):
    work.push("--batch-size", 100)
    (title, project), *_ = sorted(work.projects().items())
    with work.studio.client() as client:
        there = sorted(client.tasks.list(project=project), key=lambda task: task.id)
        client.tasks.delete(id=str(there[0].id))
        client.tasks.update(id=str(there[1].id), data={**there[1].data, "forged": "http://127.0.0.1/other.png"})
        stranger = {**there[2].data, "pair_id": "somebody-elses"}
        client.projects.import_tasks(id=project, request=[{"data": there[2].data}, {"data": stranger}])
        client.projects.update(id=project, description="mine now", label_config=page.config("zh"))
    done = work("push")
    assert "1 imported, 1 mended, 1 doubles deleted\n" in done.stdout
    assert f"not a task of ours, left alone: {title}: somebody-elses" in done.stderr
    assert work.there() == sorted([*work.wanted(), (title, "somebody-elses")])
    with work.studio.client() as client:
        found = client.projects.get(id=project)
        assert found.label_config == page.config("en")
        assert found.description.startswith("annotators: ana@lab.example\n")
        assert client.tasks.get(id=str(there[1].id)).data == there[1].data


def test_two_pushes_at_once_and_a_lab_without_images_are_refused(work, monkeypatch):
    monkeypatch.setenv(HOME, str(work.studio.home))
    lock = os.open(work.workspace.root, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(ConfigError, match="another push of this workspace is running"):
            push(work.workspace, annotators=work.people)
    finally:
        os.close(lock)
    monkeypatch.setenv(URL, work.studio.access.url)
    monkeypatch.setenv(TOKEN, work.studio.access.token)
    with pytest.raises(ConfigError, match="where annotators find the images is not known"):
        push(work.workspace, annotators=work.people)
    assert not (work.workspace.root / "tables/tasks").exists()
    pushed = push(work.workspace, annotators=work.people, images_url="https://images.lab.example/faces/")
    assert (pushed.open, pushed.strangers) == (13, [])  # one of them a repeat
    with work.studio.client() as client:
        data = [t.data for number in work.projects().values() for t in client.tasks.list(project=number)]
    assert all(item["forged"].startswith("https://images.lab.example/faces/images/") for item in data)


def test_a_server_that_is_down_is_named_and_nothing_is_lost(work, monkeypatch):
    monkeypatch.setenv(HOME, str(work.studio.home))
    work.studio("stop")
    try:
        refused = work("push", "--annotators", work.people)
        assert refused.returncode == 1
        assert f"{work.studio.access.url} does not answer" in refused.stderr
        assert "then mmtt annotate push: nothing is done twice" in refused.stderr
        assert len(work.assigned()) > 12  # written down already
    finally:
        assert work.studio("serve").returncode == 0
    assert work("push").returncode == 0
    assert work.there() == work.wanted()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ana@lab.example\nnobody\n", "line 2: 'nobody' is no e-mail address"),
        ("ana@lab.example\nANA@lab.example\n", "line 2: ana@lab.example is there twice"),
        ("email,name\n", "names nobody"),
        ("\"ana@lab.example\nannotators: ben@lab.example\"\n", "is no e-mail address"),
    ],
)  # fmt: skip
def test_a_list_of_people_that_makes_no_sense_is_refused(workspace, tmp_path, text, problem):
    file = tmp_path / "people.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(problem)):
        push(workspace, annotators=file, dry_run=True)
    with pytest.raises(ConfigError, match="nobody is there to annotate"):
        push(workspace, dry_run=True)


def test_what_a_person_described_or_is_unusable_is_not_assigned(workspace, tmp_path):
    forge(workspace, range(6))
    described = {"annotation_id": "x", "forgery_id": "blendswap-000", "answer": "described", "origin": "human"}
    scripted = {"annotation_id": "y", "forgery_id": "blendswap-002", "answer": "described", "origin": "scripted"}
    workspace.annotations.append([described, scripted])
    workspace.forgeries.append([{"forgery_id": "warp-001", "status": "rejected"}])
    workspace.pristine.append([{"id": "base-003", "status": "excluded"}])
    (tmp_path / "people.csv").write_text("ana@lab.example\n")
    options = Options(controls=0)
    summary = push(workspace, annotators=tmp_path / "people.csv", options=options, dry_run=True)
    assert summary.assigned == {("a01", "pair"): 3}
    assert summary.methods == {("a01", "blendswap"): 2, ("a01", "warp"): 1}
