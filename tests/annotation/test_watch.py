"""The live gate: `mmtt annotate watch` beside a real, guarded Label Studio, and an annotator in a real browser."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Thread
from types import SimpleNamespace

import httpx
import pytest
from playwright.sync_api import expect

from annotation.webhooks import HEADER, HOST, LARGEST, PATH, Receiver
from mmtt_build.errors import ConfigError
from mmtt_build.stages import watch as watch_stage
from mmtt_build.stages.watch import _Kept, _Run
from mmtt_build.store import MANY
from mmtt_build.workspace import Workspace
from tests.annotation.chromium import launched
from tests.annotation.conftest import MADE
from tests.annotation.desk import Desk
from tests.annotation.work import WAIT_S, said

logger = logging.getLogger(__name__)
BAD = "Unlike the original, the nose is blurred and too dark."
GOOD = "The nose is blurred and too dark."
SENT_S = 120.0


class Watching:
    """`mmtt annotate watch` as a user runs it, and what it says."""

    def __init__(self, work, *arguments):
        self.process = subprocess.Popen(
            work.command("watch", *arguments), env=work.studio.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.lines, self.said = Queue(), []
        self.reader = Thread(target=lambda: [self.lines.put(line.rstrip()) for line in self.process.stdout])
        self.reader.start()

    def says(self, pattern):
        """The next line that matches; fails where none comes."""
        until = time.monotonic() + SENT_S
        while not re.search(pattern, (self.said or [""])[-1]):
            assert time.monotonic() < until, self.said
            if self.lines.empty():
                time.sleep(0.05)
            else:
                self.said.append(self.lines.get())
        found = self.said[-1]
        logger.info("watch: %s", found)
        self.said.append("")
        return found

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(timeout=SENT_S)


@contextmanager
def watching(work, *arguments) -> Iterator[Watching]:
    running = Watching(work, *arguments)
    try:
        yield running
    finally:
        running.process.kill()
        running.reader.join()
        running.process.stdout.close()
        running.process.wait()


def hooks(work):
    numbers = set(work.projects().values())
    with work.studio.client() as client:
        return {hook.project: hook.url for hook in client.webhooks.list() if hook.project in numbers}


def versions(work, task):
    found = [row for row in work.workspace.submissions.read().to_pylist() if row["task_id"] == task]
    return [(row["status"], row["description"]) for row in sorted(found, key=lambda row: row["created_at"])]


@pytest.mark.parametrize(
    ("language", "bad", "good", "reason", "link"),
    [
        ("en", BAD, GOOD, "“Unlike the original”: no word on the pristine image", "1 came back: open"),
        (
            "zh",
            "与原图不同，鼻子模糊，颜色太深。",
            "鼻子模糊，颜色太深，边缘不自然。",
            "请不要提到原图",
            "1 个被退回：打开",
        ),
    ],
)
def test_a_bad_text_comes_back_with_its_reason_and_a_good_one_does_not(
    work, tmp_path, language, bad, good, reason, link
):
    recipe = work.workspace.root / "mmtt.toml"
    recipe.write_text(recipe.read_text("utf-8").replace('language = "en"', f'language = "{language}"'), "utf-8")
    forget_others(work)
    work.push()
    server = SimpleNamespace(url=work.studio.access.url, wait=lambda: time.sleep(WAIT_S + 0.3))
    project = next(number for title, number in work.projects().items() if "-a01-" in title)
    with (
        watching(work) as watch,
        launched(MADE / "chromium") as browser,
        browser.new_page(viewport={"width": 1440, "height": 900}) as window,
    ):
        watch.says(r"watching: \d+ projects")
        assert set(hooks(work)) == set(work.projects().values())
        desk = Desk(window, server, project)
        desk.login("ana")
        desk.open()
        first = shown(window)
        desk.window.keyboard.press("n")
        desk.window.fill(".mmtt textarea", bad)
        submit(desk)
        line = watch.says("reject")
        assert re.fullmatch(r"\w+-\d+  a01  reject  \S*text\.original\S*  \d+ ms  sent back", line), line
        assert shown(window) != first
        back = window.locator("#mmtt-done a")
        expect(back).to_have_text(link)
        back.click()
        notice = window.locator(".mmtt-notice h4")
        expect(notice).to_contain_text(reason)
        window.screenshot(path=tmp_path / f"notice-{language}.png")
        assert shown(window) == first
        expect(window.locator('.mmtt-text [data-testid="textarea-regions"]')).to_contain_text(bad)
        for selector in (
            ".pair .frame",
            "#mmtt-counter",
            ".mmtt-or",
            ".mmtt-notice",
            "[data-testid=bottombar-submit-button]",
        ):
            for box in window.locator(selector).all():
                place = box.bounding_box()
                assert place["y"] + place["height"] <= 900, selector
        window.keyboard.press("/")
        window.fill(".mmtt textarea", good)
        submit(desk)
        watch.says("  a01  accept  ")
        expect(window.locator("#mmtt-done")).to_be_visible()
        assert shown(window) != first
        expect(notice).to_be_hidden()
        task = next(name for name, number in work.numbers().items() if str(number) == first)
        assert versions(work, task) == [("sent-back", bad), ("ok", good)]
        assert watch.end(signal.SIGTERM) == 0
        watch.says("watch: 1 accept, 1 reject; 1 sent back")
        assert hooks(work) == {}


def shown(window):
    return re.search(r"\d+", window.inner_text(".lsf-current-task__task-id"))[0]


def forget_others(work):
    """Deletes what earlier tests left on the server: it may have come back to the same people."""
    mine = work.projects()
    with work.studio.client() as client:
        for project in list(client.projects.list(page_size=1000)):
            if project.title not in mine:
                client.projects.delete(id=project.id)


def submit(desk):
    """Waits as the guard asks, and submits; the next pair is there then."""
    before = shown(desk.window)
    desk.wait()
    with desk.window.expect_response(lambda got: "/annotations" in got.url and got.request.method == "POST") as got:
        desk.window.keyboard.press("Control+Enter")
    assert got.value.status == 201
    expect(desk.window.locator(".lsf-current-task__task-id")).not_to_contain_text(before)
    desk.window.wait_for_function("document.querySelector('#mmtt-counter i')?.textContent")


def test_what_was_missed_is_caught_up_and_a_killed_watch_leaves_nothing_for_long(work):
    work.push()
    first, second = work.of("a01", "pair")[:2]
    with work.login("ana") as ana:
        with watching(work) as killed:
            killed.says("watching")
            other = work("watch")
            assert (other.returncode, "another watch of" in other.stderr) == (1, True)
            assert killed.end(signal.SIGKILL) == -signal.SIGKILL
        stale = hooks(work)
        assert set(stale) == set(work.projects().values())
        work.answer(ana, first, said(BAD))
        with watching(work, "--poll", 1) as polling:
            polling.says("  reject  .*text.original.*sent back")
            work.answer(ana, second, said("Unlike the original, the lips are smeared."))
            polling.says("  reject  .*text.original.*sent back")
            assert polling.end(signal.SIGINT) == 0
            polling.says("watch: 2 reject; 2 sent back")
        assert hooks(work) == stale
        with watching(work) as anew:
            anew.says("watching")
            now = hooks(work)
            assert (set(now), set(now.values()) & set(stale.values())) == (set(stale), set())
            assert anew.end(signal.SIGTERM) == 0
    assert hooks(work) == {}
    assert [versions(work, task)[0][0] for task in (first, second)] == ["sent-back", "sent-back"]


def test_only_who_knows_the_secret_gives_hints():
    with Receiver() as receiver, httpx.Client(base_url=f"http://{HOST}:{receiver.port}", trust_env=False) as client:
        receiver.projects = {7}
        right, hint = {HEADER: receiver._secret}, f"{PATH}7"
        for headers in (
            {},
            {HEADER: ""},
            {HEADER: "é" * 43},
            {HEADER: receiver._secret[:-1]},
            {"X-Secret": receiver._secret},
        ):
            raw = {name: value.encode() for name, value in headers.items()}
            assert client.post(hint, json={}, headers=raw).status_code == 403
        assert receiver.hints.empty()
        for path in (
            f"{PATH}8",
            f"{PATH}7/",
            f"{PATH}-7",
            f"{PATH}{'7' * 99}",
            f"{PATH}../7",
            PATH,
            "/",
            f"{hint}?x=1",
        ):
            assert client.post(path, json={}, headers=right).status_code == 404, path
        assert client.get(hint, headers=right).status_code == 501
        assert receiver.hints.empty()
        for body in (
            b"",
            b"{",
            b"\xff\x00",
            b"[" * LARGEST,
            b'{"action": "ANNOTATION_CREATED", "annotation": {"id": -1}}',
        ):
            assert client.post(hint, content=body, headers=right).status_code == 204
            assert receiver.hints.get()[0] == 7
        for length in ("-1", "x", "1e3", str(LARGEST + 1), str(10**7)):
            assert (
                spoken(
                    receiver.port,
                    f"POST {hint} HTTP/1.0\r\n{HEADER}: {receiver._secret}\r\nContent-Length: {length}\r\n\r\n",
                )
                == 413
            )
        assert receiver.hints.empty()
        assert receiver.refused[403] == 5
        with pytest.raises(ConfigError, match=f"port {receiver.port} cannot be had"):
            Receiver(receiver.port)


def spoken(port, text):
    """The status of an answer to what no client sends."""
    with socket.create_connection((HOST, port), timeout=60) as line, line.makefile("rb") as answer:
        line.sendall(text.encode())
        return int(answer.readline().split()[1])


def test_a_server_that_restarts_is_met_by_the_same_watch(work):
    """The watch keeps its line to the server, and what it was told there."""
    work.push()
    first, second = work.of("a01", "pair")[:2]
    (third, *_) = work.of("a02", "pair")
    with watching(work) as watch:
        watch.says("watching")
        with work.login("ana") as ana:
            work.answer(ana, first, said(BAD))
            watch.says("  a01  reject  .*sent back")
            assert work.studio("stop").returncode == 0
            assert work.studio("serve").returncode == 0
            work.answer(ana, second, said("Unlike the original, the lips are smeared."))
            watch.says("  a01  reject  .*sent back")
        with work.login("ben") as ben:
            work.answer(ben, third, said("Unlike the original, the chin is smeared."))
            watch.says("  a02  reject  .*sent back")
        assert watch.end(signal.SIGTERM) == 0
        watch.says("watch: 3 reject; 3 sent back")
    assert hooks(work) == {}


def test_shards_of_submissions_become_few_while_it_watches(tmp_path, monkeypatch):
    workspace = Workspace.init(tmp_path / "faces")
    tables = [workspace.submissions, workspace.annotations, workspace.findings, workspace.sent_back]
    for table in tables:
        for n in range(MANY + 2):
            table.append([{"annotation_id": f"t-{n}", "annotator": "a01"}])
        for shard in table.shards():
            os.utime(shard, (0, 0))
    run = _Run(_Kept(workspace.root), None, print)
    run.tidy()
    assert [len(table.shards()) for table in tables] == [MANY + 3] * 4, "what is merged may be being read"
    for table in tables:
        for shard in table.shards():
            os.utime(shard, (0, 0))
    run.tidy()
    assert [len(table.shards()) for table in tables] == [MANY + 3] * 4, "once a minute"
    monkeypatch.setattr(watch_stage, "EVERY_S", 0.0)
    run.tidy()
    assert [len(table.shards()) for table in tables] == [3] * 4
    assert [len(table.keys()) for table in tables] == [MANY + 2] * 4
