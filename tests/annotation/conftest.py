"""A real Label Studio for the tests of annotation, in the environment that `make test` has made for it.

Its first start, a minute or more, is done once; later ones begin with the backup that was made then.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from label_studio_sdk import LabelStudio

from annotation import environment
from annotation.access import Access, Connection
from mmtt_build.stages.serve import HOME, POINTER
from mmtt_build.workspace import Workspace
from tests.annotation.work import PEOPLE, Work, fill_in, forge, set_wait

MADE = Path(os.environ.get(environment.VARIABLE) or Path(__file__).parents[2] / ".venv-label-studio").absolute()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Studio:
    """A workspace with a local server, and `mmtt annotate` to run it by, as a user does.

    Attributes:
        workspace: has one image, `image`.
        home: of the servers' data.
        variables: of the environment, beside the usual ones.
    """

    workspace: Workspace
    home: Path
    variables: dict[str, str]

    image = "images/forged/ab/first.png"

    @property
    def environment(self) -> dict[str, str]:
        theirs = {name: value for name, value in os.environ.items() if not name.startswith("MMTT_LABEL_STUDIO")}
        return {**theirs, HOME: str(self.home), environment.VARIABLE: str(MADE), **self.variables}

    def __call__(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=400, stdin=subprocess.DEVNULL,
            env={**self.environment, **variables}, cwd=self.workspace.root,
        )  # fmt: skip

    @staticmethod
    def command(*arguments: str | Path) -> list[str]:
        return [str(Path(sys.executable).with_name("mmtt")), "annotate", *map(str, arguments)]

    @property
    def data(self) -> Path:
        return self.home / (self.workspace.root / POINTER).read_text().strip()

    @property
    def access(self) -> Access:
        access = Access.load(self.data)
        assert access is not None
        return access

    def client(self) -> AbstractContextManager[LabelStudio]:
        """An administrator's."""
        return Connection(self.access.url, self.access.token, "the test").client()

    def serve(self) -> subprocess.CompletedProcess[str]:
        done = self("serve", "--port", free_port(), "--image-port", free_port())
        assert done.returncode == 0, done.stderr + done.stdout
        return done


@pytest.fixture(scope="session")
def new_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Studio]]:
    """Makes a workspace with an image whose server has not been started yet; ends the server with the tests."""
    assert environment.ready(MADE), f"no Label Studio in {MADE}: make test installs it"
    made = []

    def make(**variables: str) -> Studio:
        folder = tmp_path_factory.mktemp("studio")
        studio = Studio(Workspace.init(folder / "workspace"), folder / "home", variables)
        picture = studio.workspace.root / studio.image
        picture.parent.mkdir(parents=True)
        picture.write_bytes(b"\x89PNG\r\n\x1a\n not looked into")
        made.append(studio)
        return studio

    yield make
    for studio in made:
        studio("stop")


@pytest.fixture(scope="session")
def first_start() -> Callable[[], AbstractContextManager[Path]]:
    """Leads to the backup of a server that was started and never used; one process at a time may look, or make it."""
    state = hashlib.sha256(environment.PINS.read_bytes()).hexdigest()[:12]

    @contextmanager
    def alone() -> Iterator[Path]:
        with (MADE / "tests.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield MADE / f"first-start-{state}.zip"

    return alone


@pytest.fixture(scope="session")
def label_studio(new_studio, first_start) -> Studio:
    """A running server; the tests of a worker share it, so each makes projects and users of its own."""
    studio = new_studio()
    with first_start() as backup:
        if not backup.is_file():
            studio.serve()
            assert studio("backup", backup).returncode == 0
            return studio
    assert studio("restore", backup).returncode == 0
    studio.serve()
    return studio


@pytest.fixture(scope="session")
def guarded_studio(new_studio, first_start):
    """A guarded server with two annotators."""
    studio = new_studio()
    set_wait(studio.workspace.root)
    with first_start() as backup:
        if not backup.is_file():
            studio.serve()
            assert studio("backup", backup).returncode == 0
        else:
            assert studio("restore", backup).returncode == 0
            studio.serve()
    with httpx.Client(headers={"Authorization": f"Token {studio.access.token}"}, trust_env=False) as admin:
        link = admin.get(f"{studio.access.url}/api/invite").json()["invite_url"]
    for name in PEOPLE:
        with httpx.Client(base_url=studio.access.url, timeout=60, trust_env=False) as client:
            assert fill_in(client, link, name).status_code == 302
    return studio


@pytest.fixture
def work(guarded_studio, tmp_path, request) -> Work:
    workspace = Workspace.init(tmp_path / "workspace")
    set_wait(workspace.root)
    recipe = workspace.root / "mmtt.toml"
    ending = re.sub(r"\W|test", "", request.node.name)[-14:].strip("_")
    name = f"{ending}-{secrets.token_hex(3)}"  # tests share a server, and names of theirs may end alike
    recipe.write_text(recipe.read_text("utf-8").replace('"my-dataset"', f'"{name}"'), "utf-8")
    (workspace.root / POINTER).write_text(f"{guarded_studio.data.name}\n")
    forge(workspace, range(12))
    people = tmp_path / "people.csv"
    people.write_text("email,name\nana@lab.example,Ana Álvarez\nBen@lab.example\n", "utf-8")
    return Work(guarded_studio, workspace, people)
