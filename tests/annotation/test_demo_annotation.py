"""The demo with a Label Studio: from the command to a page with a pair on it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from mmtt_build.errors import ConfigError
from mmtt_build.stages.demo import ANNOTATORS, desk
from mmtt_build.workspace import Workspace
from tests.annotation.chromium import launched
from tests.annotation.conftest import MADE, Studio
from tests.annotation.guarded import free_ports

PICTURE = "MMTT_TEST_PICTURE"
"""A file for a picture of the page, for whoever wants to look."""


@pytest.fixture
def studio(tmp_path, first_start):
    """The demo's workspace, whose server has been started once and never used."""
    studio = Studio(Workspace(tmp_path / "demo"), tmp_path / "home", {})
    run(studio)
    with first_start() as backup:
        if backup.is_file():
            assert studio("restore", backup).returncode == 0
    yield studio
    studio("stop")


def run(studio, *arguments):
    command = [Path(sys.executable).with_name("mmtt"), "demo", studio.workspace.root, *arguments]
    sizes = ["--count", "16", "--forgeries", "8", "--workers", "1"]
    return subprocess.run(
        [*map(str, command), *sizes], env=studio.environment, cwd=studio.workspace.root.parent, check=True,
        capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL,
    ).stdout  # fmt: skip


def test_the_demo_ends_at_a_page_with_a_drawn_face_on_it_and_may_be_repeated(studio):
    ports = dict(zip(("--port", "--image-port"), map(str, free_ports(2)), strict=True))
    said = run(studio, "--label-studio", *(word for pair in ports.items() for word in pair))
    url = studio.access.url
    for shown in (url, ANNOTATORS[0][0], studio.access.username, f"mmtt annotate stop -w {studio.workspace.root}"):
        assert shown in said
    assert studio.access.password not in said
    workspace = studio.workspace
    pairs = set(workspace.forgeries.keys(status="ok").to_pylist())
    tasks = workspace.tasks.read().to_pylist()
    assert {task["forgery_id"] for task in tasks if task["kind"] == "pair"} == pairs
    assert len({task["annotator"] for task in tasks}) == 2
    assert (studio.data / "logins.csv").stat().st_mode & 0o777 == 0o600
    with (studio.data / "logins.csv").open(newline="") as file:
        password = {row["email"]: row["password"] for row in csv.DictReader(file)}[ANNOTATORS[0][0]]
    assert password not in said
    (mine,) = {task["project"] for task in tasks if task["annotator"] == "a01"}
    with (
        launched(MADE / "chromium") as browser,
        browser.new_context(viewport={"width": 1440, "height": 900}) as context,
    ):
        window = context.new_page()
        window.set_default_timeout(120_000)
        window.goto(f"{url}/user/login/")
        window.fill("input[name=email]", ANNOTATORS[0][0])
        window.fill("input[name=password]", password)
        window.click("button[type=submit]")
        window.get_by_text(mine).first.click()
        window.get_by_text("Label All Tasks").first.click()
        expect(window.locator("#mmtt-done")).to_contain_text("0 / ", timeout=120_000)
        expect(window.locator(".pair img")).to_have_count(5)
        window.wait_for_function(
            "[...document.querySelectorAll('.pair img')].every(image => image.naturalWidth == 512)"
        )
        if picture := os.environ.get(PICTURE):
            window.screenshot(path=picture)
    before = studio.workspace.tasks.read().to_pylist()
    again = run(studio, "--label-studio")
    assert f"{len(before)} pairs to annotate: {url}" in again
    assert studio.workspace.tasks.read().to_pylist() == before
    with studio.client() as client:
        assert sum(project.task_number for project in client.projects.list()) == len(before)
    assert studio("stop").stdout == "stopped\n"


def test_the_demo_keeps_off_a_labs_server(tmp_path, monkeypatch):
    monkeypatch.setenv("MMTT_LABEL_STUDIO_URL", "https://lab.example")
    monkeypatch.setenv("MMTT_LABEL_STUDIO_TOKEN", "x")
    with pytest.raises(ConfigError, match=r"names a server of yours, https://lab\.example"):
        desk(tmp_path, say=print)
    assert list(tmp_path.iterdir()) == []
