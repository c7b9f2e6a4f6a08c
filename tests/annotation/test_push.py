"""Work goes out to annotators: `push` on a real, guarded Label Studio."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections import Counter

import httpx
import pytest

from annotation import page, patience, pictures, tasks
from annotation.access import TOKEN, URL
from mmtt_build import images, store
from mmtt_build.errors import ConfigError, ServerError
from mmtt_build.records import SIZE
from mmtt_build.stages.push import Options, push
from mmtt_build.stages.serve import HOME
from mmtt_build.workspace import Workspace
from tests.annotation.work import forge


def test_a_dry_run_says_what_goes_to_whom_and_does_nothing(work):
    said = work.push("--dry-run")
    assert said.splitlines()[0].split() == [
        "annotator", "batches", "pairs", "repeats", "controls", "blendswap", "warp"
    ]  # fmt: skip
    assert "push: 12 pairs, 2 repeats, 1 controls would be new\n" in said
    assert not (work.workspace.root / "tables/tasks").exists()
    assert not (work.workspace.root / "images/tasks").exists()
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


@pytest.fixture
def run(work, monkeypatch):
    """Pushes from Python, which takes a fraction of the command's time."""

    def run(images_url="", files=None, **options):
        settled = {"repeats": 0.2, "controls": 0.1, **options}
        workspace = Workspace(work.workspace.root)  # whose recipe is read anew
        return push(workspace, annotators=work.people, options=Options(**settled), images_url=images_url, files=files)

    monkeypatch.setenv(HOME, str(work.studio.home))
    return run


def shown(work):
    """Data per task on the server, and what is in the files that it points at."""
    with work.studio.client() as client:
        data = {t.data["pair_id"]: t.data for n in work.projects().values() for t in client.tasks.list(project=n)}
    prefix = f"{work.studio.access.images_url}/"
    files = {
        name: {key: (work.workspace.root / of[key].removeprefix(prefix)).read_bytes() for key in pictures.NAMES}
        for name, of in data.items()
    }
    return data, files


def test_tasks_show_the_pair_and_say_nothing_of_their_kind(work):
    work.push()
    data, files = shown(work)
    assert {row["kind"] for row in work.assigned()} == {"pair", "repeat", "control"}
    for row in work.assigned():
        name = row["task_id"]
        pristine = (work.workspace.root / work.workspace.image_path("pristine", row["base_id"])).read_bytes()
        forged = (work.workspace.root / work.workspace.image_path("forged", row["mask_of"])).read_bytes()
        assert files[name]["pristine"] == pristine
        if row["kind"] == "control":
            assert (images.decode_rgb(files[name]["forged"]) == images.decode_rgb(pristine)).all()
            assert row["mask_of"].endswith(row["base_id"].removeprefix("base-"))
        else:
            assert files[name]["forged"] == forged
            assert row["mask_of"] == row["forgery_id"]
        mask = (work.workspace.root / work.workspace.image_path("masks", row["mask_of"])).read_bytes()
        assert files[name]["mask"] == mask
        assert data[name]["focus_y"] == f"{149.5 / SIZE:.1%}"
        told = " ".join([name, row["project"], *data[name], *data[name].values()])
        assert not re.search("repeat|control|pair-|warp|blendswap|base-|blank", told.replace("pair_id", ""))


def test_names_stay_in_the_private_folder(work):
    work.push()
    file = work.studio.data / "annotators.csv"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "a02,ben@lab.example," in file.read_text("utf-8")
    assert "a01,ana@lab.example,Ana Álvarez" in file.read_text("utf-8")
    kept = b"".join(path.read_bytes() for path in work.workspace.root.rglob("*") if path.is_file())
    assert b"lab.example" not in kept
    assert {row["annotator"] for row in work.assigned()} == {"a01", "a02"}


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
    assert f"its page or description was another, mended: {title}\n" in done.stderr
    assert work.there() == sorted([*work.wanted(), (title, "somebody-elses")])
    with work.studio.client() as client:
        found = client.projects.get(id=project)
        assert found.label_config == page.config("en")
        assert found.description.startswith("annotators: ana@lab.example\n")
        assert client.tasks.get(id=str(there[1].id)).data == there[1].data


def test_a_project_that_somebody_deleted_is_made_again_with_what_is_open(work, run):
    run()
    (title, project), *others = sorted(work.projects().items())
    done = next(row for row in work.assigned() if row["project"] == title)
    answer = {"annotation_id": "x-1", "task_id": done["task_id"], "project": title, "status": "ok", "kind": "pair"}
    work.workspace.submissions.append([answer])
    with work.studio.client() as client:
        client.projects.delete(id=project)
    open_tasks = sum(row["project"] == title for row in work.assigned()) - 1
    assert run().changes == tasks.Changes(imported=open_tasks)
    assert work.there() == [task for task in work.wanted() if task != (title, done["task_id"])]
    assert work.projects()[title] != project
    assert sorted(work.projects().items())[1:] == others


def test_pictures_that_are_lost_or_outdated_and_tasks_of_an_earlier_version_are_mended(work, run):
    run()
    before = shown(work)
    rows = work.assigned()
    work.workspace.tasks.append([row | {"mask_of": None} for row in rows])  # as there was no such column
    with work.studio.client() as client:
        for name, number in work.numbers().items():
            former = {key: f"{work.studio.access.images_url}/images/{key}/x.png" for key in pictures.NAMES}
            client.tasks.update(id=str(number), data={**before[0][name], **former, "focus_x": "50.0%"})
    shutil.rmtree(work.workspace.root / "images/tasks")
    assert run().changes == tasks.Changes(mended=len(rows))
    assert shown(work) == before
    (control,) = (row for row in rows if row["kind"] == "control")
    forgery = next(row["forgery_id"] for row in rows if row["forgery_id"] not in (None, control["mask_of"]))
    forged = work.workspace.root / work.workspace.image_path("forged", forgery)
    store.write_file(forged, images.encode_rgb(255 - images.decode_rgb(forged.read_bytes())))
    again = [row["task_id"] for row in rows if row["forgery_id"] == forgery]
    assert run().changes == tasks.Changes(mended=len(again))
    assert {shown(work)[1][name]["forged"] for name in again} == {forged.read_bytes()}
    assert run().changes == tasks.Changes()


def test_a_blind_push_and_a_recipe_in_chinese_give_their_pages(work, run):
    recipe = work.workspace.root / "mmtt.toml"
    recipe.write_text(recipe.read_text("utf-8").replace('language = "en"', 'language = "zh"'), "utf-8")
    run(blind=True, count=4)
    blind = work.projects()
    assert {(row["blind"], row["language"]) for row in work.assigned()} == {(True, "zh")}
    run(count=4)
    with work.studio.client() as client:
        for title, number in work.projects().items():
            assert client.projects.get(id=number).label_config == page.config("zh", blind=title in blind)
    assert 0 < len(blind) < len(work.projects())


def test_projects_as_files_are_what_a_push_would_make_and_the_same_a_second_time(work, run, tmp_path):
    folder, url = tmp_path / "to import", work.studio.access.images_url
    said = work.push("--batch-size", 4, "--files", folder, "--images-url", f"{url}/")
    assert f"files: 15 open tasks, 4 projects in {folder}\n" in said
    assert work.projects() == {}
    titles = sorted({row["project"] for row in work.assigned()})
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(written) == {"README.txt"} | {f"{t}.{kind}" for t in titles for kind in ("tasks.json", "config.xml")}
    before = work.assigned()
    assert run(images_url=url, files=folder).files == titles
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == written
    assert work.assigned() == before
    with work.studio.client() as client, httpx.Client(trust_env=False, timeout=60) as browser:
        for title in titles:  # as README.txt says
            config = written[f"{title}.config.xml"].decode()
            number = client.projects.create(title=title, label_config=config).id
            upload = {"file": (f"{title}.tasks.json", written[f"{title}.tasks.json"], "application/json")}
            token = {"Authorization": f"Token {work.studio.access.token}"}
            address = f"{work.studio.access.url}/api/projects/{number}/import"
            browser.post(address, files=upload, headers=token).raise_for_status()
    assert work.there() == work.wanted()
    pushed = run()
    assert (pushed.open, pushed.changes.imported, pushed.changes.mended) == (15, 0, 0)


def test_files_need_the_address_of_the_images(work, run, tmp_path):
    with pytest.raises(ConfigError, match="where annotators find the images is not known"):
        run(files=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert work.assigned() == []


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


def test_a_server_that_is_down_is_named_and_nothing_is_lost(work, run, monkeypatch):
    monkeypatch.setenv(patience.VARIABLE, "0.2")
    work.studio("stop")
    try:
        with pytest.raises(ServerError, match=f"{work.studio.access.url} does not answer") as refused:
            run()
        assert "then mmtt annotate push: nothing is done twice" in refused.value.remedy
        assert len(work.assigned()) > 12  # written down already
    finally:
        assert work.studio("serve").returncode == 0
    run()
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
