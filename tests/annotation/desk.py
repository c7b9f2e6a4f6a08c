"""An annotator's browser window."""

import logging
import re

from playwright.sync_api import expect

from tests.annotation.guarded import IN_EARNEST, PASSWORD, SECONDS

logger = logging.getLogger(__name__)
expect.set_options(timeout=60_000)


class Desk:
    """A browser window in which an annotator has a project open."""

    def __init__(self, window, server, project):
        self.window, self.server, self.project = window, server, project
        self.refused, self.sent = [], []
        self.words, self.wait_note = window.locator("#mmtt-counter b"), window.locator("#mmtt-counter i")
        self.refusal, self.done = window.locator("#mmtt-counter em"), window.locator("#mmtt-done")
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

    def post(self, result):
        """Sends a result for the pair on the page past the page, as somebody would who knows how."""
        task = re.search(r"\d+", self.window.inner_text(".lsf-current-task__task-id"))[0]
        url = f"{self.server.url}/api/tasks/{task}/annotations/"
        answer = self.window.context.request.post(url, data={"result": result})
        logger.info("the server, asked directly: %s %s", answer.status, answer.text())
        return {"status": answer.status, **answer.json()}

    def show(self, moment):
        """For whoever reads along: pytest --log-cli-level=INFO."""
        logger.info("%s: %r", moment, self.window.inner_text("#mmtt-counter"))

    def checked(self):
        return self.window.evaluate("[...document.querySelectorAll('.pair input:checked')].map(input => input.id)")

    def shown(self, selector):
        return self.window.eval_on_selector(selector, "element => getComputedStyle(element).visibility") == "visible"
