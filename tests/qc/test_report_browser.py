"""The report in a real browser: opened from a file, filtered, searched, and nothing in it runs."""

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from annotation import environment
from mmtt_build.stages.report import report
from qc.report.render import MAX_ROWS
from tests.annotation.chromium import launched
from tests.mmtt_build.small_workspace import small_workspace
from tests.qc.report_rows import GATES, HOSTILE, SCRIPT, fill

ANSWERS = 6000
"""Of these about a third have findings."""
CACHE = Path(os.environ.get(environment.VARIABLE, Path(__file__).parents[2] / ".venv-label-studio")) / "chromium"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    workspace = small_workspace(tmp_path_factory.mktemp("browser") / "workspace", described=False)
    fill(workspace, ANSWERS)
    path = workspace.root / "qc.html"
    report(workspace, path, gates=GATES)
    return path


@pytest.fixture(scope="module")
def browser():
    with launched(CACHE) as browser:
        yield browser


@pytest.fixture
def opened(browser, file):
    """The page at 1440x900, and all that it asked for or complained of."""
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        window = context.new_page()
        asked, said = [], []
        window.on("request", lambda request: asked.append(request.url))
        window.on("console", lambda message: said.append(message.text))
        window.on("pageerror", lambda error: said.append(str(error)))
        window.goto(file.as_uri())
        yield window
        assert said == []
        assert [url for url in asked if not url.startswith("data:image/webp")] == [file.as_uri()]


def shown(window):
    return window.locator("#rows > tr:visible")


def test_two_thousand_rows_are_filtered(opened, file):
    assert file.stat().st_size < 5_000_000
    assert opened.locator("#rows > tr").count() == MAX_ROWS
    expect(opened.locator("#count")).to_have_text("100 of 2,000 rows")
    expect(shown(opened)).to_have_count(100)
    opened.click("#more")
    expect(shown(opened)).to_have_count(200)

    opened.click("#rules a[data-value='time.too-short']")
    expect(opened.locator("select[name=rule]")).to_have_value("time.too-short")
    rules = set(shown(opened).evaluate_all("rows => rows.map(row => row.dataset.rules.includes('time.too-short '))"))
    assert rules == {True}
    some = int(opened.locator("#rows > tr[data-rules~='time.too-short']").count())
    expect(opened.locator("#count")).to_have_text(f"100 of {some} rows")

    opened.click("#people a[data-value=a03]")
    expect(opened.locator("select[name=rule]")).to_have_value("")
    opened.select_option("select[name=verdict]", "review")
    assert set(shown(opened).evaluate_all("rows => rows.map(row => row.dataset.verdict + row.dataset.annotator)")) == {
        "reviewa03"
    }

    opened.click("#filter button[type=reset]")
    expect(opened.locator("#count")).to_have_text("100 of 2,000 rows")
    opened.click("a[data-filter=method] >> nth=0")
    assert len(set(shown(opened).evaluate_all("rows => rows.map(row => row.dataset.method)"))) == 1


def test_it_is_searched_by_keyboard(opened):
    opened.focus("input[type=search]")
    opened.keyboard.type("FORMULA lips")
    expect(opened.locator("#count")).to_have_text("1 row")
    expect(shown(opened).locator("bdi").first).to_have_text(HOSTILE[3])
    opened.keyboard.press("Tab")
    opened.keyboard.press("Enter")  # clear
    expect(opened.locator("#count")).to_have_text("100 of 2,000 rows")
    opened.fill("input[type=search]", "no such words anywhere")
    expect(opened.locator("#count")).to_have_text("0 rows")
    expect(shown(opened)).to_have_count(0)


def test_script_is_text(opened):
    opened.fill("input[type=search]", "onerror=")
    expect(shown(opened).locator("bdi").first).to_have_text(HOSTILE[0])
    expect(opened.locator("#decisions bdi")).to_have_text(f"looked at it: fine {SCRIPT}")
    opened.fill("input[type=search]", "</script></style>")
    expect(shown(opened).locator("bdi").first).to_have_text(HOSTILE[1])
    assert opened.title() == "small · QC"
    assert opened.locator("script").count() == 1
    assert opened.locator("mark").first.inner_text() == "original image"


def test_the_policy_stops_what_gets_in_all_the_same(browser, file):
    with browser.new_context() as context:
        window = context.new_page()
        window.goto(file.as_uri())
        with window.expect_event("requestfailed") as failed:
            window.evaluate(
                """() => {
                    document.body.insertAdjacentHTML("beforeend",
                        "<img src='https://example.org/x.png'><a id=x onclick=\\"document.title='run'\\">x</a>");
                    const script = document.createElement("script");
                    script.textContent = "document.title = 'run'";
                    document.body.append(script);
                }"""
            )
        window.locator("#x").dispatch_event("click")
        assert window.title() == "small · QC"
        assert failed.value.failure == "csp"


def test_ids_are_copied_as_a_command(browser, file):
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        window = context.new_page()
        window.goto(file.as_uri())
        window.locator("#rows .copy").first.click()
        expect(window.locator("#rows .copy").first).to_have_text(re.compile("copied|mmtt qc explain p1-"))
        name = window.locator("#rows code").first.inner_text()
        assert window.locator("#rows .copy").first.get_attribute("data-copy") == f"mmtt qc explain {name}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_it_fits_its_window(browser, file, width, scheme):
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        window = context.new_page()
        window.goto(file.as_uri())
        assert window.evaluate("document.documentElement.scrollWidth") == width
        red, green, blue = map(int, re.findall(r"\d+", window.evaluate("getComputedStyle(document.body).color"))[:3])
        assert (red + green + blue > 384) == (scheme == "dark")


def test_it_reads_without_a_script(browser, file):
    with browser.new_context(java_script_enabled=False, viewport={"width": 1440, "height": 900}) as context:
        window = context.new_page()
        window.goto(file.as_uri())
        assert shown(window).count() == MAX_ROWS
        expect(window.locator("#filter")).to_be_hidden()
        expect(window.locator(".copy").first).to_be_hidden()
        window.emulate_media(media="print")
        expect(window.locator("nav")).to_be_hidden()
        expect(window.locator("h1")).to_be_visible()
