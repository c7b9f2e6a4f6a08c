"""Work goes out to annotators and comes back: `push`, `pull` and `progress` on a real, guarded Label Studio."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from annotation import page
from annotation.access import TOKEN, URL
from mmtt_build import images, masks, parts, store
from mmtt_build.errors import ConfigError
from mmtt_build.records import SIZE
from mmtt_build.stages.audit import audit
from mmtt_build.stages.export import export
from mmtt_build.stages.pull import observation
from mmtt_build.stages.push import Options, push
from mmtt_build.stages.serve import HOME, POINTER
from mmtt_build.workspace import Workspace

WAIT_S = 1.0
"""What the guard asks for here."""
PEOPLE = ("ana", "ben")
PASSWORD = "correct-horse-7"
METHODS = (("blendswap", "face-swap"), ("warp", "attribute-edit"))


@pytest.fixture(scope="module")
def studio(new_studio, first_start):
    """A guarded server with two annotators."""
    studio = new_studio()
    set_wait(studio.workspace.root)
    with first_start() as backup:
        if not backup.is_file():
            studio.serve()
            assert studio("backup", backup).returncode == 0
        else:
            assert studio("restore", backup).returncode == 0
            studio.serve()
    with httpx.Client(headers={"Authorization": f"Token {studio.access.token}"}, trust_env=False) as admin:
        link = admin.get(f"{studio.access.url}/api/invite").json()["invite_url"]
    for name in PEOPLE:
        with httpx.Client(base_url=studio.access.url, timeout=60, trust_env=False) as client:
            assert fill_in(client, link, name).status_code == 302
    return studio


def set_wait(root: Path) -> None:
    recipe = root / "mmtt.toml"
    recipe.write_text(
        re.sub(r"min_observation_s = \S+", f"min_observation_s = {WAIT_S}", recipe.read_text("utf-8")), "utf-8"
    )


def fill_in(client: httpx.Client, form: str, name: str) -> httpx.Response:
    client.get(form)
    values = {"email": f"{name}@lab.example", "password": PASSWORD, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
    return client.post(form, data=values, headers={"Referer": str(client.base_url)})


@dataclass(frozen=True)
class Work:
    """A workspace with forgeries of its own, on the server that all tests here share."""

    studio: Any
    workspace: Workspace
    people: Path

    @property
    def name(self) -> str:
        return self.workspace.recipe.dataset.name

    def command(self, *arguments: str | Path) -> list[str]:
        return self.studio.command(*arguments, "-w", self.workspace.root)

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=120, env=self.studio.environment
        )
        assert "Traceback" not in done.stderr
        return done

    def push(self, *arguments: str | Path) -> str:
        done = self("push", "--annotators", self.people, "--repeats", 0.2, "--controls", 0.1, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pull(self) -> str:
        done = self("pull")
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[0]

    def assigned(self) -> list[dict[str, Any]]:
        return self.workspace.tasks.read().to_pylist()

    def projects(self) -> dict[str, int]:
        with self.studio.client() as client:
            return {p.title: p.id for p in client.projects.list(page_size=1000) if p.title.startswith(f"{self.name}-")}

    def there(self) -> list[tuple[str, str]]:
        """Project and pair id of every task on the server."""
        with self.studio.client() as client:
            return sorted(
                (title, task.data["pair_id"])
                for title, number in self.projects().items()
                for task in client.tasks.list(project=number, page_size=100)
            )

    def wanted(self) -> list[tuple[str, str]]:
        return sorted((row["project"], row["task_id"]) for row in self.assigned())

    def numbers(self) -> dict[str, int]:
        """The server's number per task of ours."""
        with self.studio.client() as client:
            return {
                task.data["pair_id"]: task.id
                for number in self.projects().values()
                for task in client.tasks.list(project=number, page_size=100)
            }

    def number(self, task: str) -> int:
        (title,) = {row["project"] for row in self.assigned() if row["task_id"] == task}
        with self.studio.client() as client:
            there = client.tasks.list(project=self.projects()[title], fields="task_only", include="id,data")
            return next(found.id for found in there if found.data["pair_id"] == task)

    def of(self, annotator: str, kind: str) -> list[str]:
        return [row["task_id"] for row in self.assigned() if (row["annotator"], row["kind"]) == (annotator, kind)]

    @contextmanager
    def login(self, name: str) -> Iterator[httpx.Client]:
        with httpx.Client(
            base_url=self.studio.access.url, timeout=60, follow_redirects=True, trust_env=False
        ) as client:
            fill_in(client, "/user/login/", name)
            yield client

    def answer(self, session: httpx.Client, task: str, result: list[dict[str, Any]], **more: Any) -> int:
        """Looks at a task for as long as the guard asks, and submits; the annotation's number."""
        number = self.number(task)
        session.get(f"/api/tasks/{number}/").raise_for_status()
        time.sleep(WAIT_S + 0.3)
        sent = session.post(f"/api/tasks/{number}/annotations/", json={"result": result, "lead_time": 75.5, **more})
        assert sent.status_code == 201, sent.text
        return sent.json()["id"]

    def submissions(self) -> dict[str, dict[str, Any]]:
        return {row["task_id"]: row for row in self.workspace.submissions.read().to_pylist()}


@pytest.fixture
def work(studio, tmp_path, request) -> Work:
    workspace = Workspace.init(tmp_path / "workspace")
    set_wait(workspace.root)
    recipe = workspace.root / "mmtt.toml"
    name = re.sub(r"\W|test", "", request.node.name)[-20:].strip("_")
    recipe.write_text(recipe.read_text("utf-8").replace('"my-dataset"', f'"{name}"'), "utf-8")
    (workspace.root / POINTER).write_text(f"{studio.data.name}\n")
    forge(workspace, range(12))
    people = tmp_path / "people.csv"
    people.write_text("email,name\nana@lab.example,Ana Álvarez\nBen@lab.example\n", "utf-8")
    return Work(studio, workspace, people)


def forge(workspace: Workspace, numbers: range) -> None:
    """Rows and images of forged pairs, as ingest and generate would leave them."""
    pristine, plan, made = [], [], []
    for number in numbers:
        method, family = METHODS[number % 2]
        face = np.random.default_rng(number).integers(0, 200, (SIZE, SIZE, 3)).astype(np.uint8)
        mask = np.zeros((SIZE, SIZE), np.bool_)
        mask[100:200, 128 : 256 + number] = True
        base, name = f"base-{number:03d}", f"{method}-{number:03d}"
        files = {
            ("pristine", base): images.encode_rgb(face),
            ("forged", name): images.encode_rgb(masks.composite(face, 255 - face, mask)),
            ("masks", name): images.encode_grey(masks.to_grey(mask)),
        }
        for (kind, of), data in files.items():
            store.write_file(workspace.root / workspace.image_path(kind, of), data)
        pristine.append(
            {"id": base, "status": "ok", "source": "folder", "image": workspace.image_path("pristine", base)}
        )
        plan.append(
            {"forgery_id": name, "method": method, "family": family, "split": "train", "base_id": base,
             "identity_group": base, "seed": number, "params": "{}"}
        )  # fmt: skip
        made.append(
            {"forgery_id": name, "status": "ok", "method": method, "split": "train", "parts": ["nose"],
             "image": workspace.image_path("forged", name), "mask": workspace.image_path("masks", name),
             "mask_origin": "process"}
        )  # fmt: skip
    workspace.pristine.append(pristine)
    workspace.plan.append(plan)
    workspace.forgeries.append(made)


def said(text: str, *ticked: str) -> list[dict[str, Any]]:
    common = {"to_name": "pair"}
    return [
        {"from_name": "description", "type": "textarea", "value": {"text": [text]}, **common},
        {"from_name": "parts", "type": "choices", "value": {"choices": list(ticked or ("nose",))}, **common},
    ]


NOTHING = [{"from_name": "answer", "to_name": "pair", "type": "choices", "value": {"choices": ["nothing-visible"]}}]


# --- push -------------------------------------------------------------------------------------------------------------


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


# --- pull -------------------------------------------------------------------------------------------------------------

TYPED = 'Die Nase <b>ist</b> unscharf & "weich" 😀\n  <script>alert(1)</script>  鼻子很模糊'


def test_what_is_submitted_comes_back_as_typed_and_once(work):
    work.push()
    pair, nothing = work.of("a01", "pair")[:2]
    with work.login("ana") as ana:
        began = datetime.now(UTC)
        work.answer(ana, pair, said(TYPED, "eye.left", "eye.right", "nose"))
        work.answer(ana, nothing, NOTHING, lead_time=300.0)
    assert work.pull() == "pull: 2 pairs new, 0 changed, 0 deleted on the server"
    rows = work.submissions()
    row = rows[pair]
    assert (row["status"], row["kind"], row["annotator"], row["answer"]) == ("ok", "pair", "a01", "described")
    assert row["description"] == TYPED
    assert (row["language"], row["lead_time_s"], row["first"]) == ("en", 75.5, None)
    assert row["labels"] == parts.label_vector(["eye", "nose"])
    assert row["sides"] == ["eye.left", "eye.right"]
    assert began - timedelta(seconds=1) < row["served_at"] < row["created_at"] <= row["updated_at"] < datetime.now(UTC)
    seconds = (row["created_at"] - row["served_at"]).total_seconds()
    assert row["observation_s"] == pytest.approx(seconds, abs=1e-3)
    assert WAIT_S < row["observation_s"] < 10
    assert (rows[nothing]["answer"], rows[nothing]["description"]) == ("nothing-visible", None)
    kept = {r["annotation_id"]: r for r in work.workspace.annotations.read().to_pylist()}
    assert kept[row["annotation_id"]]["description"] == TYPED
    assert {r["forgery_id"] for r in kept.values()} == {
        r["forgery_id"] for r in work.assigned() if r["task_id"] in (pair, nothing)
    }
    before = [len(table.shards()) for table in (work.workspace.submissions, work.workspace.annotations)]
    assert work.pull() == "pull: nothing new, 0 changed, 0 deleted on the server"
    assert [len(table.shards()) for table in (work.workspace.submissions, work.workspace.annotations)] == before


def test_a_change_and_a_deletion_are_noticed_and_lose_their_verdict(work):
    work.push()
    changed, deleted = work.of("a01", "pair")[:2]
    with work.login("ana") as ana:
        numbers = [work.answer(ana, task, said(f"The nose is soft, {task}.")) for task in (changed, deleted)]
        work.pull()
        audit(work.workspace)
        assert len(work.workspace.findings.keys(verdict="accept")) == 2
        patched = ana.patch(f"/api/annotations/{numbers[0]}/", json={"result": said("The lips do not meet.", "lip")})
        assert patched.status_code == 200
    with work.studio.client() as client:
        client.annotations.delete(id=numbers[1])
    assert work.pull() == "pull: nothing new, 1 changed, 1 deleted on the server"
    rows = work.submissions()
    assert rows[changed]["description"] == "The lips do not meet."
    assert rows[changed]["labels"] == parts.label_vector(["lip"])
    assert rows[deleted]["status"] == "deleted"
    assert len(work.workspace.findings.keys(verdict="accept")) == 0
    audit(work.workspace)
    made = export(work.workspace, dry_run=True)
    assert sum(made.counts.values()) == 1
    assert made.left_out["deleted"] == 1
    assert work.pull() == "pull: nothing new, 0 changed, 0 deleted on the server"
    assert "0 mended, 0 doubles" in work.push()  # what was answered and deleted is open again, and still there


def test_repeats_and_controls_never_reach_a_release(work):
    work.push()
    tasks = [(row["task_id"], row["annotator"]) for row in work.assigned() if row["kind"] != "pair"]
    for name, annotator in zip(PEOPLE, ("a01", "a02"), strict=True):
        with work.login(name) as session:
            for task in [task for task, of in tasks if of == annotator]:
                work.answer(session, task, said("The nose is soft."))
    assert work.pull() == "pull: 1 controls, 2 repeats new, 0 changed, 0 deleted on the server"
    assert Counter(row["kind"] for row in work.submissions().values()) == {"repeat": 2, "control": 1}
    assert len(work.workspace.annotations.read()) == 0
    audit(work.workspace)
    with pytest.raises(ConfigError, match="nothing to export: 12 not described yet"):
        export(work.workspace)


def test_what_cannot_be_read_or_placed_is_kept_and_said(work):
    work.push()
    strange, foreign = work.of("a02", "pair")[:2]
    project = work.projects()[next(row["project"] for row in work.assigned() if row["task_id"] == strange)]
    data = {"pristine": "x", "forged": "x", "overlay": "x", "focus_x": "50%", "focus_y": "50%", "pair_id": "unheard-of"}
    with work.studio.client() as client:
        client.projects.import_tasks(id=project, request=[{"data": data}])
        odd = [{"from_name": "parts", "to_name": "pair", "type": "choices", "value": {"choices": ["third eye"]}}]
        client.annotations.create(id=work.numbers()[strange], result=odd, lead_time=70.0)
        client.annotations.create(id=work.numbers()["unheard-of"], result=said("What is this?"))
        client.annotations.create(id=work.numbers()[foreign], result=said("By nobody on the list."), lead_time=61.0)
    done = work("pull")
    assert done.stdout.startswith("pull: 2 pairs, 1 unknown-tasks new, 0 changed")
    assert "parts says ['third eye']" in done.stdout
    rows = work.submissions()
    assert (rows[strange]["status"], rows["unheard-of"]["status"]) == ("unreadable", "unknown-task")
    assert json.loads(rows["unheard-of"]["result"])[0]["value"]["text"] == ["What is this?"]
    assert re.fullmatch(r"user-\d+", rows[foreign]["annotator"])
    kept = {row["answer"]: row for row in work.workspace.annotations.read().to_pylist()}
    assert set(kept) == {"unreadable", "described"}
    assert kept["unreadable"]["labels"] is None
    assert work.pull() == "pull: nothing new, 0 changed, 0 deleted on the server"


def test_a_deleted_project_keeps_its_words_and_comes_back_without_them(work):
    work.push()
    done, *rest = [row["task_id"] for row in work.assigned() if row["annotator"] == "a01"]
    with work.login("ana") as ana:
        work.answer(ana, done, said("The nose is soft."))
    work.pull()
    (title,) = {row["project"] for row in work.assigned() if row["annotator"] == "a01"}
    with work.studio.client() as client:
        client.projects.delete(id=work.projects()[title])
    pulled = work("pull")
    assert f"project {title} is not on the server; what came from it is kept" in pulled.stderr
    assert work.submissions()[done]["description"] == "The nose is soft."
    assert work("push").returncode == 0
    assert sorted(task for of, task in work.there() if of == title) == sorted(rest)


def test_progress_counts_per_annotator_and_batch(work):
    work.push("--batch-size", 4)
    tasks = work.of("a01", "pair")[:3]
    with work.login("ana") as ana:
        for task in tasks:
            work.answer(ana, task, said("The nose is soft."))
    work.pull()
    rows = json.loads(work("progress", "--json").stdout)
    batches = Counter((row["annotator"], row["batch"]) for row in work.assigned())
    assert {(row["annotator"], row["batch"]): row["tasks"] for row in rows} == batches
    assert sum(row["done"] for row in rows) == sum(row["today"] for row in rows) == 3
    mine = [row for row in rows if row["annotator"] == "a01"]
    pace = mine[0]["per_hour"]
    assert 3600 / 30 < pace < 3600 / WAIT_S
    assert mine[0]["hours_left"] == pytest.approx((mine[0]["tasks"] - mine[0]["done"]) / pace)
    assert {row["per_hour"] for row in rows if row["annotator"] == "a02"} == {None}
    shown = work("progress").stdout.splitlines()
    assert shown[0].split()[:5] == ["annotator", "batch", "tasks", "done", "today"]
    assert len(shown) == 1 + len(rows)


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("previous", "served", "lead", "expected"),
    [
        (None, None, None, None),  # nothing tells
        (None, None, 80.0, 80.0),  # a browser's word
        (20, None, 80.0, 20.0),  # a tab beside another
        (4000, None, 80.0, 80.0),  # after a break
        (4000, None, None, None),  # a break is no observation
        (None, 70, 80.0, 70.0),  # the server saw it for less
        (None, 90, 80.0, 80.0),
        (30, 70, 1e9, 30.0),  # 30 tabs, and a claim
        (4000, 70, None, 70.0),
        (None, None, -5.0, -5.0),  # nonsense stays to be seen, and is too short
    ],
)
def test_observation_is_the_least_that_anything_says(previous, served, lead, expected):
    before = None if previous is None else NOON - timedelta(seconds=previous)
    first = None if served is None else NOON.timestamp() - served
    assert observation(NOON, before, first, lead) == expected
