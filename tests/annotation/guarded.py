"""A server with the guard, people who annotate on it, and projects for them."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import numpy as np

from annotation import environment, guard, page
from annotation.server import Server
from mmtt_build import masks, portraits

IN_EARNEST = "MMTT_TEST_SECONDS" in os.environ
"""Whether tests sit out the wait; else they date back what the guard has noted, and no slow machine is too slow."""
SECONDS = float(os.environ.get("MMTT_TEST_SECONDS", 600))
"""How long the guard has annotators wait here; 60 in earnest."""
PASSWORD = "correct-horse-7"


@dataclass(frozen=True)
class Guarded:
    """A server with the guard."""

    url: str
    images: str
    token: str
    database: Path
    log: Path
    restart: Callable[[], None]

    def admin(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Token {self.token}"}, timeout=60)

    @contextmanager
    def login(self, name: str) -> Iterator[httpx.Client]:
        """An annotator's session, as a browser has it."""
        with httpx.Client(base_url=self.url, timeout=60, follow_redirects=True) as client:
            fill_in(client, "/user/login/", name)
            assert client.get("/api/current-user/whoami").status_code == 200
            yield client

    def wait(self) -> None:
        """Lets the guard's wait pass."""
        if IN_EARNEST:
            time.sleep(SECONDS)
            return
        with closing(sqlite3.connect(self.log, timeout=60)) as log, log:
            log.execute("UPDATE served SET served_at = served_at - ?1, submitted_at = submitted_at - ?1", (SECONDS,))
            log.execute("UPDATE returned SET submitted_at = submitted_at - ?", (SECONDS,))

    def project(self, title: str, *annotators: str, language: str = "en", tasks: int = 3) -> tuple[int, list[int]]:
        """A project with pairs: its id and those of its tasks."""
        names = [f"{name}@lab.example" for name in annotators]
        data = [
            page.task(
                f"{title}-{n}", pristine=f"{self.images}/pristine.png", forged=f"{self.images}/forged.png",
                mask=f"{self.images}/mask.png", focus=(250, 250),
            )
            for n in range(tasks)
        ]  # fmt: skip
        with self.admin() as admin:
            made = admin.post(
                "/api/projects/",
                json={
                    **page.PROJECT, "title": title, "label_config": page.config(language),
                    "description": guard.described_to(names),
                },
            ).raise_for_status().json()  # fmt: skip
            pairs = [{"data": item} for item in data]
            admin.post(f"/api/projects/{made['id']}/import", json=pairs).raise_for_status()
            found = admin.get("/api/tasks/", params={"project": made["id"], "fields": "all"}).raise_for_status().json()
            return made["id"], sorted(task["id"] for task in found["tasks"])


@contextmanager
def running(studio, first_start):
    """A server with the guard in a new studio; see conftest.py for both."""
    with first_start() as backup:
        if not backup.is_file():
            studio.serve()
            assert studio("backup", backup).returncode == 0
            assert studio("stop").returncode == 0
        else:
            assert studio("restore", backup).returncode == 0
    folder = (studio.workspace.root / studio.image).parent
    face, mask = portraits.draw(7, 512).image, np.zeros((512, 512), bool)
    mask[200:300, 150:350] = True
    cv2.imwrite(str(folder / "pristine.png"), face)
    cv2.imwrite(str(folder / "forged.png"), np.where(mask[..., None], 255 - face, face))
    cv2.imwrite(str(folder / "mask.png"), masks.to_grey(mask))
    server = Server(studio.data, studio.workspace.root, Path(studio.environment[environment.VARIABLE]))
    log = studio.data / "served.sqlite3"
    variables = guard.variables(log, seconds=SECONDS)
    ports = dict(zip(("port", "image_port"), free_ports(2), strict=True))

    def restart():
        server.stop()
        with warnings.catch_warnings():  # the servers are meant to go on
            warnings.simplefilter("ignore", ResourceWarning)
            server.start(guard=guard.SETTINGS, variables=variables, say=print, **ports)

    try:
        restart()
        access = studio.access
        database = studio.data / "label-studio" / "label_studio.sqlite3"
        shown = f"{access.images_url}/{folder.relative_to(studio.workspace.root)}"
        made = Guarded(access.url, shown, access.token, database, log, restart)
        for name in ("ann", "ben", "cem"):
            invite(made, name)
        yield made
    finally:
        server.stop()


def invite(server, name):
    with server.admin() as admin:
        link = admin.get("/api/invite").json()["invite_url"]
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert fill_in(client, link, name).status_code == 302


def fill_in(client, form, name):
    """Fills in the form of a log-in or an invitation."""
    client.get(form)
    values = {"email": f"{name}@lab.example", "password": PASSWORD, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
    return client.post(form, data=values, headers={"Referer": str(client.base_url)})


def free_ports(count):
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
