"""An annotator at work: a real browser on a real server with the guard."""

import json
import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from annotation import environment, guard, page
from mmtt_build import parts
from tests.annotation.chromium import launched
from tests.annotation.guarded import IN_EARNEST, PASSWORD, SECONDS, running

expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def guarded(new_studio, first_start):
    with running(new_studio(), first_start) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    cache = Path(os.environ.get(environment.VARIABLE, Path(__file__).parents[2] / ".venv-label-studio")) / "chromium"
    with launched(cache) as browser:
        yield browser


class Desk:
    """A browser window in which an annotator has a project open."""

    def __init__(self, window, server, project):
        self.window, self.server, self.project = window, server, project
        self.refused, self.sent = [], []
        self.words, self.wait_note = window.locator("#mmtt-counter b"), window.locator("#mmtt-counter i")
        window.on("response", self._note)
        window.on("request", lambda to: self.sent.append(to.url) if to.method in ("POST", "PATCH") else None)

        window.set_default_timeout(60_000)
        if not IN_EARNEST:
            window.clock.install()

    def _note(self, got):
        if got.status >= 400 and "heidi-tips" not in got.url:  # those are news from elsewhere
            self.refused.append((got.status, got.request.method, got.url))

    def login(self, name):
        self.window.goto(f"{self.server.url}/user/login/")
        self.window.fill("input[name=email]", f"{name}@lab.example")
        self.window.fill("input[name=password]", PASSWORD)
        self.window.click("button[type=submit]")
        self.window.wait_for_url("**/")
        self.window.goto(f"{self.server.url}/projects/{self.project}/data")
        self.window.wait_for_load_state("networkidle")

    def open(self):
        self.window.goto(f"{self.server.url}/projects/{self.project}/data?labeling=1")
        self.ready()

    def ready(self):
        self.window.wait_for_selector(".mmtt textarea")
        self.window.wait_for_function("document.querySelector('#mmtt-counter i')?.textContent")

    def wait(self):
        """Lets the guard's wait pass, and the page's."""
        self.server.wait()
        if not IN_EARNEST:
            self.window.clock.fast_forward(1000 * SECONDS)
        expect(self.wait_note).to_have_text(re.compile("Ctrl"))

    def submissions(self):
        self.window.wait_for_timeout(300)
        return [url for url in self.sent if re.search(r"/annotations[/?]", url)]

    def checked(self):
        return self.window.evaluate("[...document.querySelectorAll('.pair input:checked')].map(input => input.id)")

    def shown(self, selector):
        return self.window.eval_on_selector(selector, "element => getComputedStyle(element).visibility") == "visible"


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


@pytest.mark.parametrize("desk", ["zh"], indirect=True)
def test_chinese_is_counted_by_characters(desk):
    desk.window.fill(".mmtt textarea", "右眼模糊，eye")
    expect(desk.words).to_have_text("5 / 120 字")
    assert guard.words("右眼模糊，eye") == 5
