"""Work that goes out to annotators and comes back, on a real, guarded Label Studio."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from mmtt_build import images, masks, store
from mmtt_build.records import SIZE
from mmtt_build.workspace import Workspace

WAIT_S = 1.0
"""What the guard asks for here."""
PEOPLE = ("ana", "ben")
PASSWORD = "correct-horse-7"
METHODS = (("blendswap", "face-swap"), ("warp", "attribute-edit"))


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
            found = client.projects.list(title=f"{self.name}-", include="id,title", page_size=1000)
            return {project.title: project.id for project in found if project.title.startswith(f"{self.name}-")}

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
             "mask_origin": "process", "focus": list(masks.focus(mask))}
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
