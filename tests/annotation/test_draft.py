"""Drafts by a model: what it is asked, what it answers, who sees it, and that it never counts as a person's words."""

import json
import re
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import expect
from test_work import browser as browser

from annotation import draft as drafts
from annotation import environment, page
from annotation.draft.folder import find
from annotation.draft.model import Writer
from annotation.page import PROJECT
from generators.base import Family
from mmtt_build.errors import ConfigError, WeightsError, WeightsMissing
from mmtt_build.parts import LABELS
from mmtt_build.stages.audit import audit
from mmtt_build.stages.draft import Options, arms, draft
from mmtt_build.stages.export import export
from mmtt_build.stages.serve import HOME
from tests.annotation import small_vlm
from tests.annotation.work import METHODS, PASSWORD

SAYS = {"face-swap": "The left eye is blurred and the nose is soft.", "attribute-edit": "The lips do not meet."}


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm") / "tiny"
    small_vlm.build(folder, {drafts.prompt(family, "en", 120): text for family, text in SAYS.items()})
    return folder


@pytest.fixture
def pushed(work, monkeypatch):
    """Twelve pairs at two annotators; the stages find the server as the command does."""
    work.push()
    monkeypatch.setenv(HOME, str(work.studio.home))
    monkeypatch.setenv(environment.VARIABLE, work.studio.environment[environment.VARIABLE])
    return work


def rows_of(work):
    return {row["task_id"]: row for row in work.workspace.drafts.read().to_pylist()}


def on_server(work):
    """Predictions by our id of the task, and the projects."""
    with work.studio.client() as client:
        projects = [client.projects.get(id=number) for number in work.projects().values()]
        found = [task for p in projects for task in client.tasks.list(project=p.id, fields="all", page_size=100)]
    return {task.data["pair_id"]: task for task in found}, projects


# --- on the server ----------------------------------------------------------------------------------------------------


def test_the_command_drafts_what_is_open_and_shows_a_share(pushed, vlm):
    work = pushed
    assert work.workspace.drafts.shards() == []  # a push drafts nothing
    dry = work("draft", "--model", vlm, "--show", 0.5, "--dry-run")
    assert "15 would be new" in dry.stdout, dry.stderr
    assert work.workspace.drafts.shards() == []
    done = work("draft", "--model", vlm, "--show", 0.5, "--licence", "CC0-1.0", "--batch-size", 4, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    rows = rows_of(work)
    assert set(rows) == {row["task_id"] for row in work.assigned()}, "pairs, repeats and controls"
    shown = {name for name, row in rows.items() if row["shown"]}
    assert len(shown) in (7, 8)
    assert f"draft: 15 new, {len(shown)} of them for annotators to see" in done.stdout
    model = find(str(vlm))
    for row in rows.values():
        assert (row["status"], row["text"]) == ("ok", SAYS[row["family"]])
        assert (row["model_version"], row["revision"]) == (model.version, model.revision)
        assert (row["licence"], row["language"], row["prompt_version"]) == ("CC0-1.0", "en", drafts.version())
        assert row["prompt"] == drafts.prompt(row["family"], "en", 120)
        assert json.loads(row["settings"]) | {"batch_size": 4, "dtype": "float32"} == json.loads(row["settings"])
        assert (row["placed_at"] is not None) == row["shown"]
    families = {f"{method}-{n:03d}": family for n in range(12) for method, family in [METHODS[n % 2]]}
    for task in work.assigned():
        if task["forgery_id"]:
            assert rows[task["task_id"]]["family"] == families[task["forgery_id"]]
    there, projects = on_server(work)
    assert {name for name, task in there.items() if task.predictions} == shown
    for name in shown:
        ((made,), note) = there[name].predictions, there[name].data["note"]
        assert made.model_version == model.version
        assert page.read(made.result).text == rows[name]["text"]
        assert note == drafts.note("en")
    assert all("note" not in task.data for name, task in there.items() if name not in shown)
    assert {(p.show_collab_predictions, p.model_version) for p in projects} == {(True, model.version)}


def test_an_annotator_cannot_read_a_draft_that_is_not_shown(pushed, vlm):
    work = pushed
    draft(work.workspace, Options(str(vlm), device="cpu"))
    assert {row["shown"] for row in rows_of(work).values()} == {False}
    there, projects = on_server(work)
    assert not any(task.predictions for task in there.values())
    assert {p.show_collab_predictions for p in projects} == {PROJECT["show_collab_predictions"]}
    with work.login("ana") as ana:
        (mine,) = {work.projects()[row["project"]] for row in work.assigned() if row["annotator"] == "a01"}
        answers = [ana.get("/api/tasks/", params={"project": mine, "fields": "all"})]
        answers += [ana.get(f"/api/tasks/{work.number(task)}/") for task in work.of("a01", "pair")]
        answers.append(ana.get(f"/api/projects/{mine}/next"))
    for answer in answers:
        assert answer.status_code == 200
        assert not any(text in answer.text for text in SAYS.values())


def test_drafts_are_made_once_and_what_the_server_lacks_is_mended(pushed, vlm):
    work, options = pushed, Options(str(vlm), show=1.0, device="cpu")
    first = draft(work.workspace, Options(str(vlm), show=1.0, device="cpu", count=5))
    assert (sum(first.made.values()), first.shown, first.placed) == (5, 5, 5)
    begun = sorted(set(work.of("a01", "pair")) - set(rows_of(work)))[0]
    with work.login("ana") as ana:
        ana.get(f"/api/tasks/{work.number(begun)}/").raise_for_status()
    second = draft(work.workspace, options)
    assert (sum(second.made.values()), second.placed, second.begun) == (10, 9, 1)
    assert rows_of(work)[begun]["placed_at"] is None
    there, _ = on_server(work)
    assert not there[begun].predictions, "who has begun without a draft goes on without"
    lost = next(name for name in sorted(there) if there[name].predictions)
    with work.studio.client() as client:
        client.predictions.delete(id=there[lost].predictions[0].id)
    before = rows_of(work)
    third = draft(work.workspace, options)
    assert (sum(third.made.values()), third.placed, third.begun) == (0, 0, 1)
    assert rows_of(work) == before
    assert {name: len(task.predictions) for name, task in on_server(work)[0].items()} == {
        name: int(name != begun) for name in there
    }


def test_one_project_has_drafts_of_one_model(pushed, vlm, tmp_path):
    work = pushed
    draft(work.workspace, Options(str(vlm), count=1, device="cpu"))
    other = tmp_path / "other"
    other.mkdir()
    for file in vlm.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (drafted,) = [row["project"] for row in work.assigned() if row["task_id"] in rows_of(work)]
    made = draft(work.workspace, Options(str(other), device="cpu"))
    left = [row for row in work.assigned() if row["project"] == drafted][1:]
    assert made.foreign == len(left) > 0
    assert sum(made.made.values()) == 15 - 1 - made.foreign


def test_a_draft_is_nobodys_answer(pushed, vlm):
    work = pushed
    draft(work.workspace, Options(str(vlm), show=1.0, device="cpu"))
    assert work.pull() == "pull: nothing new, 0 changed, 0 deleted on the server"
    assert (len(work.workspace.submissions.read()), len(work.workspace.annotations.read())) == (0, 0)
    assert not audit(work.workspace).verdicts
    with pytest.raises(ConfigError, match="nothing to export: 12 not described yet"):
        export(work.workspace)
    again = work.push()
    assert "0 pairs, 0 repeats, 0 controls new" in again
    assert "15 open tasks, 0 imported, 0 mended" in again
    assert len([task for task in on_server(work)[0].values() if task.predictions]) == 15


# --- on the page ------------------------------------------------------------------------------------------------------


@contextmanager
def at_work(browser, work, name, annotator):
    """A browser window in which an annotator works through her project."""
    (project,) = {work.projects()[row["project"]] for row in work.assigned() if row["annotator"] == annotator}
    url = work.studio.access.url
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        window = context.new_page()
        window.set_default_timeout(60_000)
        window.goto(f"{url}/user/login/")
        window.fill("input[name=email]", f"{name}@lab.example")
        window.fill("input[name=password]", PASSWORD)
        window.click("button[type=submit]")
        window.wait_for_url("**/")
        window.goto(f"{url}/projects/{project}/data")  # makes its first tab
        window.wait_for_load_state("networkidle")
        window.goto(f"{url}/projects/{project}/data?labeling=1")
        expect(window.locator("#mmtt-counter i")).to_contain_text("Ctrl+Enter", timeout=60_000)
        yield window


def test_the_page_says_that_its_text_is_a_draft(pushed, vlm, browser):
    work = pushed
    hers = {row["task_id"] for row in work.assigned() if row["annotator"] == "a01"}
    draft(work.workspace, Options(str(vlm), show=1.0, device="cpu", count=len(hers)))
    assert set(rows_of(work)) == hers
    with at_work(browser, work, "ben", "a02") as window:
        expect(window.locator(".mmtt-note")).to_be_hidden()
        expect(window.locator(".mmtt textarea")).to_have_value("")
    with at_work(browser, work, "ana", "a01") as window:
        note, text = window.locator(".mmtt-note"), window.locator(".mmtt-text [data-testid=htx-textbox-content]")
        expect(note).to_have_text(drafts.note("en"))
        expect(text).to_have_text(re.compile("|".join(map(re.escape, SAYS.values()))))
        box, rules = note.bounding_box(), window.locator(".mmtt-rules").bounding_box()
        assert box["y"] + box["height"] <= rules["y"]
        submit = window.locator("[data-testid=bottombar-submit-button]")
        assert submit.bounding_box()["y"] + submit.bounding_box()["height"] <= 900
        with window.expect_request(lambda to: "/drafts" in to.url and to.method == "POST") as kept:
            window.keyboard.press("o")  # a tick: the editor keeps what is on the page as the annotator's draft
        assert kept.value.response().status == 201
        assert kept.value.post_data_json["parent_prediction"] in {
            made.id for task in on_server(work)[0].values() for made in task.predictions
        }
        window.reload()
        expect(window.locator("#mmtt-counter i")).to_contain_text("Ctrl+Enter")
        expect(note).to_have_text(drafts.note("en"))
        with window.expect_response(lambda got: "/annotations" in got.url and got.request.method == "POST") as sent:
            submit.click()
        assert sent.value.status == 201
    ((task, annotation),) = [(t, one) for t in on_server(work)[0].values() for one in t.annotations]
    # After the reload the editor no longer says which prediction it began from: only the table still tells.
    assert annotation["parent_prediction"] is None
    assert rows_of(work)[task.data["pair_id"]]["placed_at"] is not None
    work.pull()
    assert {row["origin"] for row in work.submissions().values()} == {"draft-edited"}


# --- without a server -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", page.LANGUAGES)
def test_every_family_has_a_prompt_in_every_language(language):
    asked = {drafts.prompt(family, language, 95) for family in Family}
    assert len(asked) == len(Family)
    assert all("95" in text and "{" not in text for text in asked)
    assert drafts.note(language)
    assert set(drafts._of(language)["parts"]) == set(LABELS)


def test_what_has_no_prompt_is_named():
    with pytest.raises(ConfigError, match="'morph'"):
        drafts.prompt("morph", "en", 120)
    with pytest.raises(ConfigError, match=r"'fr'.*\n.*en, zh"):
        drafts.prompt("face-swap", "fr", 120)


@pytest.mark.parametrize(
    ("text", "finished", "status"),
    [
        ("The nose is soft.", True, "ok"),
        ("The nose is soft.", False, "too-long"),  # cut off
        ("nose " * 7, True, "too-long"),
        ("鼻子很模糊糊糊", True, "too-long"),  # a character is a word
        (" \n", True, "empty"),
        ("", False, "empty"),
    ],
)
def test_answers_are_marked(text, finished, status):
    assert drafts.status(text, finished, 6) == status


@pytest.mark.parametrize(
    ("language", "text", "ticked"),
    [
        ("en", "The left eye and the right eyebrow are blurred.", ["eye.left", "eyebrow.right"]),
        ("en", "Both eyes differ; the teeth and the hairline are smeared.", ["eye.right", "eye.left", "tooth", "hair"]),
        ("en", "The eye is odd, the ear too; a glare on the forehead.", ["forehead"]),  # which eye, which ear?
        ("en", "Something is odd.", []),
        ("zh", "左眼模糊，右侧脸颊的皮肤过于光滑，嘴唇变形。", ["eye.left", "lip", "cheek.right", "skin"]),
        ("zh", "双眼大小不一，眼镜的边缘模糊。", ["eye.right", "eye.left"]),
    ],
)
def test_labels_are_ticked_where_the_text_names_them(language, text, ticked):
    answer = page.read(drafts.result(f" {text}\n", language))
    assert answer.text == text
    made = [choice for region in drafts.result(text, language)[1:] for choice in region["value"]["choices"]]
    assert made == ticked


def test_the_share_that_is_shown_is_even_over_methods_and_does_not_move():
    rows = [
        {"task_id": f"{n:03d}", "project": f"p{n % 2}", "method": ("mat", "e4s", "warp", "")[n // 50]}
        for n in range(200)
    ]
    seen = arms(rows, 0.3, 7)
    assert seen == arms(rows[::-1], 0.3, 7) == arms(rows[::2], 0.3, 7) | arms(rows[1::2], 0.3, 7)
    assert seen != arms(rows, 0.3, 8)
    for method in ("mat", "e4s", "warp", ""):
        for project in ("p0", "p1"):
            mine = [row for row in rows if (row["project"], row["method"]) == (project, method)]
            assert 7 <= sum(row["task_id"] in seen for row in mine) <= 8
    assert arms(rows, 0.0, 7) == set()
    assert len(arms(rows, 1.0, 7)) == len(rows)


# --- the model --------------------------------------------------------------------------------------------------------


def test_a_batch_writes_what_each_alone_would(vlm):
    writer = Writer(vlm, "cpu", 40)
    grey = (np.full((64, 64, 3), 128, np.uint8),) * 3
    asked = [drafts.prompt(family, "en", 120) for family in SAYS]
    both = writer.write([grey] * 2, asked)
    assert both == [writer.write([grey], [prompt])[0] for prompt in asked]
    assert [made.text for made in both] == list(SAYS.values())
    assert all(made.finished for made in both)
    assert [made.finished for made in Writer(vlm, "cpu", 4).write([grey] * 2, asked)] == [False, False]


def test_a_folder_is_known_by_all_of_its_files(vlm, tmp_path):
    shutil.copytree(vlm, tmp_path / "tiny")
    assert find(str(tmp_path / "tiny")) == replace(find(str(vlm)), folder=tmp_path / "tiny")
    with (tmp_path / "tiny" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert find(str(tmp_path / "tiny")).version != find(str(vlm)).version


@pytest.mark.parametrize(
    ("files", "error", "said"),
    [
        ({}, WeightsError, "no config.json"),
        ({"config.json": "{}"}, WeightsError, r"has no \*.safetensors"),
        ({"config.json": "{}", "pytorch_model.bin": ""}, WeightsError, "pytorch_model.bin, which could run code"),
        (
            {"config.json": "{}", "model-00001-of-00002.safetensors": "",
             "model.safetensors.index.json": '{"weight_map": {"a": "model-00002-of-00002.safetensors"}}'},
            WeightsError, "incomplete",
        ),
    ],
)  # fmt: skip
def test_what_is_no_model_is_said(tmp_path, files, error, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(error, match=said):
        find(str(tmp_path))


def test_nothing_is_fetched_unasked(tmp_path):
    with pytest.raises(WeightsMissing, match=r"mmtt-build-tests/is-nowhere is not in the hub.s cache(.|\n)*--download"):
        find("mmtt-build-tests/is-nowhere")
    with pytest.raises(ConfigError, match="is no folder"):
        find(str(tmp_path / "absent"))


def test_a_model_that_takes_no_pictures_is_refused(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"'llama', which transformers does not run on pictures"):
        Writer(find(str(tmp_path)).folder, "cpu", 8)


def test_weights_that_are_not_all_there_are_refused(vlm, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(vlm, tmp_path / "tiny")
    file = tmp_path / "tiny" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if "embed_tokens" in name))
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 tensors: .*embed_tokens"):
        Writer(tmp_path / "tiny", "cpu", 8)
