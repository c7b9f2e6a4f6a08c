"""Which annotation server a workspace has, and how it stands: a local one of its own, or the lab's."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from annotation import environment, guard
from annotation.access import Answer, Connection, ask, from_environment
from annotation.server import Server
from mmtt_build.errors import ServerError
from mmtt_build.workspace import Workspace

POINTER = "annotation-server"
"""File of a workspace with the name of its server's data folder, which lies elsewhere: it has a password in it."""
HOME = "MMTT_ANNOTATION_HOME"


def home() -> Path:
    """Folder of all servers' data: $MMTT_ANNOTATION_HOME, or the user's data folder, by the XDG rules."""
    if named := os.environ.get(HOME):
        return Path(named).absolute()
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "mmtt" / "annotation"


def local(workspace: Workspace, *, make: bool = False, lost: bool = False) -> Server:
    """The workspace's local server.

    Args:
        workspace: moved or not, it keeps its server; a copy of it has the same one.
        make: give it one if it has none yet.
        lost: take it even if its data is not on this machine.

    Raises:
        ServerError: it has none yet, or its data is not on this machine.
    """
    pointer = workspace.root / POINTER
    if not pointer.is_file():
        if not make:
            raise ServerError(f"{workspace.root} has no annotation server yet", "mmtt annotate serve")
        name = f"{workspace.recipe.dataset.name}-{secrets.token_hex(4)}"
        (home() / name).mkdir(parents=True, mode=0o700)
        pointer.write_text(f"{name}\n", "utf-8")
    name = pointer.read_text("utf-8").strip()
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ServerError(f"{pointer} has {name[:40]!r}, which is no name of a server", f"remove {pointer}")
    data = home() / name
    if not data.is_dir() and not lost:
        raise ServerError(
            f"the data of this workspace's annotation server, {data}, is not on this machine",
            f"mmtt annotate restore BACKUP, or set {HOME}, or remove {pointer} for a new server",
        )
    return Server(data, workspace.root, environment.default())


def guarded(workspace: Workspace, server: Server) -> tuple[Path, dict[str, str]]:
    """What the guard needs at the server's start: its settings, and variables with the recipe's limits."""
    qc, log = workspace.recipe.qc, server.data / "served.sqlite3"
    return guard.SETTINGS, guard.variables(log, seconds=qc.min_observation_s, max_words=qc.max_words)


def connection(workspace: Workspace) -> Connection:
    """The server to push to and to pull from: the lab's, if the environment names one, else the local one.

    Raises:
        ConfigError: the environment names half a server.
        ServerError: there is none yet.
    """
    return from_environment() or local(workspace).connection


@dataclass(frozen=True, slots=True)
class State:
    """How the server of a workspace stands.

    Attributes:
        url: its address.
        where: what names it: a variable, or a file.
        answer: what it says.
        server: the local one; None if it is the lab's.
    """

    url: str
    where: str
    answer: Answer
    server: Server | None

    @property
    def version(self) -> str:
        """Of Label Studio, with a word if the tests know another one."""
        if self.answer.version in ("", environment.VERSION):
            return self.answer.version or "unknown"
        return f"{self.answer.version} (page and guard are tested with {environment.VERSION})"


def state(workspace: Workspace | None) -> State:
    """Asks the server.

    Args:
        workspace: whose; None will do for the lab's.

    Raises:
        ConfigError: the environment names half a server.
        ServerError: there is no server yet.
    """
    lab = from_environment()
    if lab is not None:
        return State(lab.url, lab.origin, ask(lab), None)
    if workspace is None:
        raise ServerError("there is no workspace here, and the environment names no server", "mmtt annotate serve")
    server = local(workspace)
    return State(server.access.url, str(server.data), server.ask(), server)
