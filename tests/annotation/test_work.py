"""An annotator at work: a real browser on a real server with the guard."""

import json
import os
import re
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from annotation import environment, guard, page
from mmtt_build import images, parts
from tests.annotation.chromium import launched
from tests.annotation.desk import Desk
from tests.annotation.guarded import SECONDS, running


@pytest.fixture(scope="module")
def guarded(new_studio, first_start):
    with running(new_studio(), first_start) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    cache = Path(os.environ.get(environment.VARIABLE, Path(__file__).parents[2] / ".venv-label-studio")) / "chromium"
    with launched(cache) as browser:
        yield browser


@pytest.fixture
def desk(browser, guarded, request):
    """Ann's, at 1440x900, on a project of her own."""
    language = getattr(request, "param", "en")
    project, _ = guarded.project(request.node.name[:40], "ann", language=language)
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        desk = Desk(context.new_page(), guarded, project)
        desk.login("ann")
        desk.open()
        yield desk
        assert desk.refused == [], "the guard allows all that the pages need"


def test_an_annotator_works(desk, guarded):
    expect(desk.words).to_have_text("0 / 120 words")
    expect(desk.wait_note).to_have_text(re.compile(r"\d+ s to look"))
    for key in ("e", "Shift+E", "n", "/"):
        desk.window.keyboard.press(key)
    desk.window.keyboard.type("Both eyes are blurred,")
    desk.window.keyboard.press("Enter")
    desk.window.keyboard.type("the nose <b>&</b> its tip \U0001f600")
    desk.window.keyboard.press("Control+Enter")
    assert desk.submissions() == [], "too early"
    typed = desk.window.input_value(".mmtt textarea")
    desk.wait()
    desk.window.fill(".mmtt textarea", "word " * 130)
    expect(desk.words).to_have_text("130 / 120 words")
    desk.window.keyboard.press("Control+Enter")
    desk.window.click("[data-testid=bottombar-submit-button]")
    assert desk.submissions() == [], "too long"
    desk.window.fill(".mmtt textarea", typed)
    expect(desk.wait_note).to_have_text("ready: Ctrl+Enter")
    desk.window.focus(".mmtt textarea")
    with desk.window.expect_response(lambda got: "/annotations" in got.url and got.request.method == "POST") as got:
        desk.window.keyboard.press("Control+Enter")
    assert got.value.status == 201
    with guarded.admin() as admin:
        found = admin.get("/api/tasks/", params={"project": desk.project, "fields": "all"}).json()["tasks"]
        served = {row["task"]: row for row in map(json.loads, admin.get("/mmtt/served").text.splitlines())}
    ((task, annotation),) = [(task, one) for task in found for one in task["annotations"]]
    answer = page.read(annotation["result"])
    assert answer.text == "Both eyes are blurred,\nthe nose <b>&</b> its tip \U0001f600"
    assert [parts.LABELS[i] for i, on in enumerate(answer.labels) if on] == ["eye", "nose"]
    assert answer.sides == {"eye": ("left", "right")}
    assert annotation["lead_time"] >= SECONDS
    row = served[task["id"]]
    assert row["submitted_at"] - row["served_at"] >= SECONDS
    assert annotation["completed_by"] == row["user"]


def test_nothing_needed_lies_below_the_fold(desk):
    submit = "[data-testid=bottombar-submit-button]"
    for selector in (".pair .frame", ".mmtt textarea", ".mmtt-or", "#mmtt-counter", submit):
        for box in desk.window.locator(selector).all():
            place = box.bounding_box()
            assert place["y"] >= 0, selector
            assert place["y"] + place["height"] <= 900, selector
            assert place["x"] + place["width"] <= 1440, selector
    overlaps = desk.window.evaluate(
        "document.querySelector('.mmtt-look .panes').getBoundingClientRect().right"
        " > document.querySelector('.mmtt-say').getBoundingClientRect().left"
    )
    assert not overlaps
    bar, say = (desk.window.locator(s).bounding_box() for s in (".lsf-bottombar", "#mmtt-counter"))
    assert say["y"] + say["height"] <= bar["y"]
    assert desk.window.locator(".lsf-sidepanels__wrapper:visible").count() == 0
    assert desk.window.evaluate("[...document.querySelectorAll('.pair img')].every(image => image.naturalWidth == 512)")


def test_the_comparator_by_keyboard_and_mouse(desk):
    assert desk.checked() == ["mmtt-forged", "mmtt-z1"]
    desk.window.keyboard.press("2")
    assert desk.checked() == ["mmtt-mask", "mmtt-z1"]
    assert desk.shown(".pair .m")
    desk.window.keyboard.down(" ")
    assert desk.checked() == ["mmtt-pristine", "mmtt-z1"]
    assert desk.shown(".pair .o")
    desk.window.keyboard.up(" ")
    assert desk.checked() == ["mmtt-mask", "mmtt-z1"]
    desk.window.keyboard.press("z")
    assert desk.checked() == ["mmtt-mask", "mmtt-z2"]
    desk.window.keyboard.press("/")
    desk.window.keyboard.type("z1")
    desk.window.keyboard.press("Alt+1")
    assert desk.checked() == ["mmtt-forged", "mmtt-z2"], "what is typed is text; with Alt it is a key"
    assert desk.window.input_value(".mmtt textarea") == "z1"
    desk.window.hover(".pair .hold", position={"x": 400, "y": 300})
    desk.window.mouse.down()
    assert desk.shown(".pair .o")
    desk.window.mouse.up()
    assert not desk.shown(".pair .o")


def test_all_but_the_forged_region_is_veiled(desk):
    def seen():
        desk.window.mouse.move(0, 0)
        return images.decode_rgb(desk.window.locator(".pair .hold").screenshot()).astype(int)

    forged = seen()
    desk.window.keyboard.press("2")
    veiled = seen()
    side = len(forged) / 512
    top, bottom, left, right = (round(at * side) for at in (200, 300, 150, 350))
    assert np.abs(veiled - forged)[top + 2 : bottom - 2, left + 2 : right - 2].max() <= 1
    outside = np.ones(forged.shape[:2], bool)
    outside[top - 2 : bottom + 2, left - 2 : right + 2] = False
    dimmed = 0.38 * forged + 0.3 * (255 - 0.38 * forged)
    assert np.abs(veiled - dimmed)[outside].max() <= 4


def test_the_pointer_moves_the_zoom_of_both_images(desk):
    desk.window.click("[for=mmtt-z4]")
    origins = []
    for x in (30, 450):
        desk.window.hover(".pair .hold", position={"x": x, "y": 100})
        origins.append(
            desk.window.evaluate(
                "[...document.querySelectorAll('.pair .stack')].map(stack => getComputedStyle(stack).transformOrigin)"
            )
        )
    (left, also_left), (right, also_right) = origins
    assert left == also_left
    assert right == also_right
    assert left != right


def test_what_is_missing_is_said(desk):
    desk.wait()
    desk.window.fill(".mmtt textarea", "The nose is blurred.")
    desk.window.click("[data-testid=bottombar-submit-button]")
    assert "Tick at least one part" in desk.window.inner_text("[role=dialog]")
    expect(desk.window.locator("[role=dialog] button")).to_be_focused()
    desk.window.keyboard.press("Escape")
    desk.window.locator("[role=dialog]").wait_for(state="detached")
    assert desk.submissions() == []


def test_nothing_visible_is_an_answer(desk, guarded):
    desk.window.keyboard.press("0")
    desk.window.locator(".mmtt textarea").wait_for(state="hidden")
    desk.wait()
    with desk.window.expect_response(lambda got: "/annotations" in got.url and got.request.method == "POST") as got:
        desk.window.keyboard.press("Control+Enter")
    answer = page.read(got.value.json()["result"])
    assert (answer.answer, sum(answer.labels), answer.text) == ("nothing-visible", 0, "")


def test_a_reload_keeps_what_is_written_and_an_answer_can_be_mended(desk, guarded):
    desk.window.fill(".mmtt textarea", "The nose")
    desk.window.reload()
    desk.ready()
    desk.window.wait_for_function("document.querySelector('.mmtt textarea').value == 'The nose'")
    desk.window.keyboard.press("n")
    desk.wait()
    with desk.window.expect_response(lambda got: "/annotations" in got.url and got.request.method == "POST"):
        desk.window.keyboard.press("Control+Enter")
    desk.ready()
    desk.window.click("[data-testid=prev-task]")
    desk.window.click("[data-testid=htx-textbox-content]")
    desk.window.wait_for_selector(".mmtt textarea")
    desk.window.keyboard.press("Control+End")
    desk.window.keyboard.type(" is blurred.")
    with desk.window.expect_response(lambda got: "/annotations" in got.url and got.request.method == "PATCH") as got:
        desk.window.keyboard.press("Control+Enter")
    assert page.read(got.value.json()["result"]).text == "The nose is blurred."


def test_the_next_pair_comes_by_itself_with_the_zoom_as_it_was_and_listens_to_keys(desk):
    for key in ("z", "2", "e", "Enter"):
        desk.window.keyboard.press(key)
    desk.window.keyboard.type("The eye is red.")
    expect(desk.done).to_have_text("0 / 3 done")
    desk.wait()
    desk.window.keyboard.press("Control+Enter")
    expect(desk.done).to_have_text("1 / 3 done")
    expect(desk.window.locator(".mmtt textarea")).to_have_value("")
    assert desk.checked() == ["mmtt-forged", "mmtt-z2"]
    desk.window.keyboard.press("n")
    expect(desk.window.locator(".mmtt-parts input:checked")).to_have_count(1)


def test_arrows_move_the_zoom_until_the_pointer_does(desk):
    def origin():
        return desk.window.eval_on_selector(".pair .hold .stack", "stack => getComputedStyle(stack).transformOrigin")

    desk.window.keyboard.press("z")
    began = origin()
    desk.window.keyboard.press("ArrowLeft")
    desk.window.keyboard.press("ArrowDown")
    (x, y), (left, down) = (map(float, at.replace("px", "").split()) for at in (began, origin()))
    assert left < x
    assert down > y
    desk.window.mouse.move(5, 5)
    assert origin() == began


@pytest.mark.parametrize("desk", ["zh"], indirect=True)
def test_what_was_not_sent_is_said_in_the_pages_language_and_can_be_sent_again(desk):
    desk.window.keyboard.press("n")
    desk.window.fill(".mmtt textarea", "鼻子模糊。")
    desk.wait()
    desk.window.route("**/api/tasks/*/annotations*", lambda route: route.abort())
    desk.window.keyboard.press("Control+Enter")
    expect(desk.refusal).to_have_text("未提交：服务器没有响应。文字已保留，请重试。")
    assert desk.window.locator("[role=dialog]").count() == 0
    desk.window.unroute("**/api/tasks/*/annotations*")
    expect(desk.words).to_have_text("4 / 120 字")
    with desk.window.expect_response(lambda got: "/annotations" in got.url and got.request.method == "POST") as got:
        desk.window.keyboard.press("Control+Enter")
    assert page.read(got.value.json()["result"]).text == "鼻子模糊。"
    expect(desk.done).to_have_text("1 / 3 已完成")


@pytest.mark.parametrize(("desk", "submit"), [("en", "Submit"), ("zh", "提交")], indirect=["desk"])
def test_keys_and_buttons_are_named(desk, submit):
    def shown(selector):
        return desk.window.eval_on_selector(selector, "element => getComputedStyle(element, '::after').content")

    assert shown("[data-testid=bottombar-submit-button] span") == f'"{submit}"'
    assert shown(".mmtt-parts .lsf-choice:nth-child(2) sup") == '"[⇧e]"'
    assert desk.window.locator("kbd:visible").count() == 5


@pytest.mark.parametrize("desk", ["zh"], indirect=True)
def test_chinese_is_counted_by_characters(desk):
    desk.window.fill(".mmtt textarea", "右眼模糊，eye")
    expect(desk.words).to_have_text("5 / 120 字")
    assert guard.words("右眼模糊，eye") == 5


def test_a_paste_of_5000_words_stays_in_the_page_until_it_is_shorter(desk, guarded):
    pasted = "The nose <b>is</b> blurred \U0001f443 " * 1000
    desk.wait()
    desk.window.click(".mmtt textarea")
    desk.window.keyboard.insert_text(pasted)
    expect(desk.words).to_have_text("5000 / 120 words")
    desk.window.keyboard.press("Control+Enter")
    desk.window.click("[data-testid=bottombar-submit-button]")
    assert desk.submissions() == [], "too long"
    assert desk.window.input_value(".mmtt textarea") == pasted


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_wrong_changes_no_wait(browser, guarded, request, hours):
    project, _ = guarded.project(request.node.name[:40], "ann")
    with browser.new_context() as context:
        desk = Desk(context.new_page(), guarded, project)
        desk.window.clock.set_system_time(datetime.now() + timedelta(hours=hours))
        desk.login("ann")
        desk.open()
        ahead_s = desk.window.evaluate("Date.now()") / 1000 - time.time()
        assert ahead_s == pytest.approx(3600 * hours, abs=1800)
        desk.window.keyboard.press("n")
        desk.window.fill(".mmtt textarea", "The nose is blurred.")
        assert 0 < float(desk.wait_note.inner_text().split()[0]) <= SECONDS
        desk.window.keyboard.press("Control+Enter")
        assert desk.submissions() == [], "too early"
        desk.wait()
        with desk.window.expect_response(lambda got: "/annotations" in got.url and got.request.method == "POST") as got:
            desk.window.keyboard.press("Control+Enter")
        assert got.value.status == 201
