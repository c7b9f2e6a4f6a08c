"""One description's whole way: pushed, looked at, refused twice, written, submitted, pulled."""

import json
import logging
import re

import pytest
from playwright.sync_api import expect

from mmtt_build import parts
from tests.annotation.chromium import launched
from tests.annotation.conftest import MADE
from tests.annotation.desk import Desk
from tests.annotation.guarded import IN_EARNEST, SECONDS, running
from tests.annotation.work import Work, forge, said

logger = logging.getLogger(__name__)
TEXT = "Both eyes are blurred,\nthe nose <b>&</b> its tip \U0001f600"


@pytest.fixture
def guarded(new_studio, first_start, tmp_path):
    """A server with two pairs of Ann's, pushed."""
    studio = new_studio()
    with running(studio, first_start) as server:
        forge(studio.workspace, range(2))
        people = tmp_path / "people.csv"
        people.write_text("email,name\nann@lab.example,Ann\n", "utf-8")
        work = Work(studio, studio.workspace, people)
        done = work("push", "--annotators", people, "--repeats", 0, "--controls", 0)
        assert done.returncode == 0, done.stderr
        yield server, work


def test_a_description_goes_all_the_way(guarded):
    server, work = guarded
    (project,) = work.projects().values()
    with launched(MADE / "chromium") as browser, browser.new_page(viewport={"width": 1440, "height": 900}) as window:
        desk = Desk(window, server, project)
        desk.login("ann")
        desk.open()
        expect(desk.words).to_have_text("0 / 120 words")
        expect(desk.wait_note).to_have_text(re.compile(r"\d+ s to look"))
        desk.show("met the counter")
        if IN_EARNEST:
            window.wait_for_timeout(10_000)
        for key in ("e", "Shift+E", "n", "/"):
            window.keyboard.press(key)
        for line in TEXT.split("\n"):
            window.keyboard.type(line)
            window.keyboard.press("Enter")
        window.keyboard.press("Backspace")
        window.keyboard.press("Control+Enter")
        expect(desk.refusal).to_have_text("Not sent: look a little longer.")
        desk.show("refused early")
        assert desk.submissions() == []
        refused = desk.post(said("The nose is blurred."))
        assert refused["status"] == 400
        assert f"look at the pair for {SECONDS:g} s" in refused["detail"]
        desk.wait()
        desk.show("waited")
        window.fill(".mmtt textarea", "word " * 130)
        expect(desk.words).to_have_text("130 / 120 words")
        window.keyboard.press("Control+Enter")
        window.click("[data-testid=bottombar-submit-button]")
        expect(desk.refusal).to_have_text("Not sent: the text is too long.")
        desk.show("refused at 130 words")
        assert desk.submissions() == []
        refused = desk.post(said("word " * 130))
        assert (refused["status"], refused["detail"]) == (400, "the description has 130 words, at most 120")
        window.fill(".mmtt textarea", TEXT)
        expect(desk.wait_note).to_have_text("ready: Ctrl+Enter")
        window.focus(".mmtt textarea")
        with window.expect_response(lambda got: "/annotations" in got.url and got.request.method == "POST") as got:
            window.keyboard.press("Control+Enter")
        assert got.value.status == 201
        expect(window.locator("#mmtt-done")).to_have_text("1 / 2 done")
        expect(desk.wait_note).to_have_text(re.compile(r"\d+ s to look"))  # the next pair, with its own minute
        desk.show("the next pair")
    assert re.match("pull: 1 pairs? new", work.pull())
    (row,) = work.submissions().values()
    logger.info("pulled: %s", row)
    assert (row["status"], row["kind"], row["annotator"], row["answer"]) == ("ok", "pair", "a01", "described")
    assert (row["description"], row["language"]) == (TEXT, "en")
    assert [parts.LABELS[i] for i, on in enumerate(row["labels"]) if on] == ["eye", "nose"]
    assert row["sides"] == ["eye.left", "eye.right"]
    assert row["observation_s"] >= SECONDS
    assert row["lead_time_s"] >= SECONDS
    assert (row["created_at"] - row["served_at"]).total_seconds() >= SECONDS
    assert {one["from_name"] for one in json.loads(row["result"])} == {"parts", "description"}
    (annotation,) = work.workspace.annotations.read().to_pylist()
    assert (annotation["origin"], annotation["description"], annotation["annotator"]) == ("human", TEXT, "a01")
    assert annotation["observation_s"] == row["observation_s"]
