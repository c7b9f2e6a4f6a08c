"""Benchmark of annotation: push and pull beside bare loops of the SDK, and thirty annotators at once.

All of it happens on a local Label Studio with the guard, as `mmtt annotate serve` starts it, in folders and in a
database of its own that are gone at the end.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from annotation import accounts, database, environment, people, session
from annotation.access import TOKEN, URL
from annotation.server import Server
from mmtt_build.stages import serve
from mmtt_build.stages.bench import annotators, exchange, postgres
from mmtt_build.stages.bench.synthetic import paired_workspace
from mmtt_build.stages.bench.timing import Say
from mmtt_build.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured.

    Attributes:
        tasks: to push and to pull.
        postgres: URL of a PostgreSQL server with its password, whose user may make databases; or "package", the one
            that the extra [dev] brings; "" for sqlite.
        crowd: of annotators, and what they do.
    """

    tasks: int = 3000
    postgres: str = ""
    crowd: annotators.Size = annotators.THIRTY


DEFAULTS = Options()


def annotate(say: Say, options: Options = DEFAULTS) -> None:
    """Push, pull and 30 annotators on a Label Studio of its own (takes some 10 minutes).

    Args:
        say: gets the lines.
        options: how much, and on which database.

    Raises:
        ConfigError: PostgreSQL is to come from a package that is not there.
        ServerError: Label Studio or the database does not come up.
    """
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mmtt-bench-")))
        stack.enter_context(_environment({serve.HOME: str(root / "home")}, without=(URL, TOKEN)))
        environment.make(environment.default(), say)
        url = stack.enter_context(_database(options.postgres)) if options.postgres else None
        server = stack.enter_context(_served(paired_workspace(root / "served", 0, "served"), url, say))
        measure(say, root, server, options)


def measure(say: Say, root: Path, server: Server, options: Options) -> None:
    """Measures on a server that runs.

    Args:
        say: gets the lines.
        root: folder for workspaces.
        server: a local one in $MMTT_ANNOTATION_HOME, guarded with a wait of `annotators.GUARD_S`.
        options: how much; the database is the server's.
    """
    with session.session(server.connection, "the benchmark") as client:
        known = people.load(server.data)
        given = root / "annotators.csv"
        given.write_text("email\n" + "".join(f"bench-{n}@lab.example\n" for n in range(options.crowd.people)), "utf-8")
        everybody = {name: known[name] for name in people.enrol(known, given)}
        people.save(server.data, known)
        say(f"making {len(everybody)} accounts")
        accounts.make(server.connection, client, server.data, everybody)
        kind = "PostgreSQL" if server.access.postgres else "sqlite"
        say(f"annotation on {kind}; load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        workspace = _of(server, paired_workspace(root / "bench", options.tasks, "bench"))
        exchange.pushing(say, client, workspace, everybody)
        exchange.pulling(say, client, workspace, server, everybody)
        pairs = options.crowd.people * options.crowd.tasks
        workspace = _of(server, paired_workspace(root / "load", pairs, "load"))
        annotators.load(say, client, workspace, server, everybody, options.crowd)


def _of(server: Server, workspace: Workspace) -> Workspace:
    (workspace.root / serve.POINTER).write_text(f"{server.data.name}\n", "utf-8")
    return workspace


@contextmanager
def _environment(given: Mapping[str, str], without: Sequence[str]) -> Iterator[None]:
    """Sets variables of this process' environment, and puts back what was there."""
    before = dict(os.environ)
    for name in without:
        os.environ.pop(name, None)
    os.environ.update(given)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _database(given: str) -> Iterator[str]:
    """An empty database; its URL with the password."""
    if given == "package":
        with postgres.throw_away() as server:
            yield server.secret_url
        return
    name, python = f"mmtt_bench_{secrets.token_hex(4)}", environment.program(environment.default(), "python")
    database.run(given, python, f"CREATE DATABASE {name}")
    try:
        yield database.beside(given, name)
    finally:
        database.run(given, python, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _served(workspace: Workspace, url: str | None, say: Say) -> Iterator[Server]:
    server = serve.local(workspace, make=True)
    settings, variables = serve.guarded(workspace, server)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        port, image_port = one.getsockname()[1], other.getsockname()[1]
    try:
        server.start(port=port, image_port=image_port, postgres=url, guard=settings, variables=variables, say=say)
        yield server
    finally:
        server.stop()
