"""The local Label Studio server of a workspace, with the server of its images: start, stop, how it stands.

Both are background processes; a data folder outside the workspace, readable by its owner only, has all that they need:

    access.json             ports, first user, token
    label-studio/           Label Studio's own: database, secret key, uploads
    *.pid  *.log            of both processes

Nothing secret is in a command line. The first start gives the new user's password and token in the environment, which
other users of the machine cannot read.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from http.client import HTTPException
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from annotation import database, environment
from annotation.access import Access, Answer, Connection, ask
from annotation.process import Service, wait
from mmtt_build.errors import ConfigError, ServerError

SITE = Path(__file__).with_name("site")
"""On the server's import path."""
SETTINGS = "mmtt_label_studio"
START_S = 600.0
"""A first start makes the database: 70 s on an idle machine with two cores, 180 s on a busy one with PostgreSQL."""
IMAGES_START_S = 20.0
TASK_LOCK_S = 3600
"""A task that somebody has open is kept from others for so long, not for a day."""

_LOOPBACK = IPv4Network("127.0.0.0/8").address_exclude(IPv4Network("127.0.0.1"))
_NOT_REACHED = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
    "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",
    "240.0.0.0/4", *map(str, _LOOPBACK), "::/127", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64",
    "2001::/32", "2001:20::/28", "2001:db8::/32", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8",
)  # fmt: skip
"""What webhooks and imports by address do not reach on a guarded server: every reserved network (IANA's registries of
special-purpose addresses), as without us, but 127.0.0.1, where `mmtt annotate watch` listens. The guard leaves
annotators neither of the two."""

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
"""Of the caller's environment. Label Studio takes names as plain as USERNAME and PORT for settings of its own."""


@dataclass(frozen=True)
class Server:
    """One local server.

    Attributes:
        data: its data folder.
        workspace: whose images it shows.
        environment: folder of the Python environment that it runs in.
    """

    data: Path
    workspace: Path
    environment: Path = field(default_factory=environment.default)

    @cached_property
    def label_studio(self) -> Service:
        """The process of Label Studio."""
        return Service(self.data, "label-studio")

    @cached_property
    def images(self) -> Service:
        """The process that serves the images."""
        return Service(self.data, "images")

    @property
    def access(self) -> Access:
        """How to reach it.

        Raises:
            ServerError: it was never started.
        """
        access = Access.load(self.data)
        if access is None:
            raise ServerError(f"{self.workspace} has no annotation server yet", "mmtt annotate serve")
        return access

    @property
    def connection(self) -> Connection:
        """Address and token.

        Raises:
            ServerError: it was never started.
        """
        access = self.access
        return Connection(access.url, access.token, str(self.data / "access.json"))

    def start(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        image_port: int | None = None,
        postgres: str | None = None,
        guard: Path | None = None,
        variables: Mapping[str, str] | None = None,
        say: Callable[[str], None],
    ) -> bool:
        """Starts both processes and waits until Label Studio answers and accepts our token.

        Args:
            host: address to listen on and to be called by; None keeps the one of last time, at first 127.0.0.1.
            port: of Label Studio; None keeps it, at first 8080.
            image_port: of the images; None keeps it, at first 8081.
            postgres: URL of a database, with its password; None keeps what there is, at first sqlite.
            guard: a file with Django settings to build on; its folder comes onto the server's import path.
            variables: of the environment, for the guard.
            say: gets a line now and then.

        Returns:
            False where it runs already.

        Raises:
            ConfigError: a port is taken, or the address is not one of this machine.
            ServerError: it does not come up, and the message has its last words; or somebody else is just starting it.
        """
        if self.label_studio.pid() and self.images.pid():
            if problem := self.ask().problem:
                raise ServerError(f"the server was started before: {problem}", "wait a little, or mmtt annotate stop")
            return False
        self.stop()  # half a server
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.data.chmod(0o700)
        before = Access.load(self.data)
        given: dict[str, Any] = {"host": host, "port": port, "image_port": image_port, "postgres": postgres}
        access = replace(before or Access(), **{name: value for name, value in given.items() if value is not None})
        if access.postgres:
            database.check(access.postgres, environment.program(self.environment, "python"))
        if before is not None and before.version:
            if bool(access.postgres) != bool(before.postgres):
                kind = "PostgreSQL" if before.postgres else "sqlite"
                raise ConfigError(f"--postgres: this server's data is in {kind}", "leave it out; data does not move")
            if _ordered(before.version) > _ordered(environment.VERSION):
                raise ServerError(
                    f"its data is of Label Studio {before.version}, which {environment.VERSION} cannot read",
                    "start it with the release of mmtt that it was last started with",
                )
            if before.version != environment.VERSION:
                say(f"its data is of Label Studio {before.version}; {environment.VERSION} will bring it up to date")
            if access.images_url != before.images_url:
                say("the images get another address; tasks that were pushed before have the old one")
        _free(access.host, access.port, "--port")
        _free(access.host, access.image_port, "--image-port")
        access.save(self.data)
        (self.data / "label-studio").mkdir(exist_ok=True, mode=0o700)
        try:
            self.images.start(
                [sys.executable, "-P", "-m", "annotation.images", self.data, self.workspace.resolve()], _environment()
            )
            self.label_studio.start(
                [
                    environment.program(self.environment), "start", "--no-browser", "--log-level", "WARNING",
                    "--internal-host", access.host, "--port", str(access.port),
                ],
                {**self._variables(access, guard), **(variables or {})},
            )  # fmt: skip
            self._wait(access, say)
        except BaseException:
            self.stop()
            raise
        return True

    def _variables(self, access: Access, guard: Path | None) -> dict[str, str]:
        path = [SITE, guard.parent] if guard else [SITE]
        of_studio = {
            "BASE_DATA_DIR": str(self.data / "label-studio"),
            "ALLOWED_HOSTS": f"{access.host},localhost,127.0.0.1",
            "CORS_ALLOWED_ORIGINS": ",".join(access.origins),
            "DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "TASK_LOCK_TTL": str(TASK_LOCK_S),
            "DEBUG": "false",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            **(database.settings(access.postgres) if access.postgres else {"DJANGO_DB": "sqlite"}),
        }
        if guard:
            of_studio |= {
                "USE_DEFAULT_BANNED_SUBNETS": "false",
                "USER_ADDITIONAL_BANNED_SUBNETS": ",".join(_NOT_REACHED),
            }
        if not access.version:  # it makes the user and the organisation of the token once
            of_studio |= {
                "USERNAME": access.username,
                "PASSWORD": access.password,
                "USER_TOKEN": access.token,
                "ENABLE_LEGACY_API_TOKEN": "true",
            }
        return {
            **_environment(),
            "HOME": str(self.data / "label-studio"),  # it writes there
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            **({"MMTT_SETTINGS": guard.stem} if guard else {}),
            **{f"LABEL_STUDIO_{name}": value for name, value in of_studio.items()},
            **(database.variables(access.postgres) if access.postgres else {}),
        }

    def _wait(self, access: Access, say: Callable[[str], None]) -> None:
        first = "; the first time it makes its database, one to three minutes" if not access.version else ""
        say(f"starting Label Studio {environment.VERSION}{first}")
        for service, url, limit_s in (
            (self.images, f"http://{access.host}:{access.image_port}/health", IMAGES_START_S),
            (self.label_studio, f"{access.url}/health/", START_S),
        ):
            ended = wait(
                lambda url=url, service=service: _up(url) or service.pid() is None,  # type: ignore[misc]
                limit_s,
                lambda seconds: say(f"  still starting, {seconds:.0f} s"),
            )
            if service.pid() is None:
                raise ServerError(f"{service.name} ended at once: {service.last_words()}", f"see {service.log}")
            if not ended:
                raise ServerError(f"{service.name} does not answer after {limit_s:.0f} s", f"see {service.log}")
        answer = ask(self.connection, timeout_s=60.0)
        if answer.problem:
            raise ServerError(answer.problem, f"see {self.label_studio.log}; {self.data} may be of another server")
        replace(access, version=answer.version).save(self.data)

    def stop(self) -> bool:
        """Ends both processes; what they hold is on the disk.

        Returns:
            Whether any ran.
        """
        return any([self.label_studio.stop(), self.images.stop()])

    def running(self) -> bool:
        """Whether Label Studio's process lives."""
        return self.label_studio.pid() is not None

    def ask(self) -> Answer:
        """Asks it as anybody would, over its port."""
        if not self.running():
            return Answer(self.access.version, problem="it does not run")
        answer = ask(self.connection)
        if answer.problem and self.access.postgres:
            try:
                database.check(self.access.postgres, environment.program(self.environment, "python"))
            except ServerError as error:
                return replace(answer, problem=error.message)
        if not answer.problem and not _up(f"http://{self.access.host}:{self.access.image_port}/health"):
            return replace(answer, problem="its images are not served")
        return answer


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def _up(url: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=5) as response:
            return bool(response.status < 300)
    except (HTTPException, OSError):
        return False


def _ordered(version: str) -> list[int]:
    return list(map(int, re.findall(r"\d+", version)))


def _free(host: str, port: int, option: str) -> None:
    """Raises if the port cannot be had: Label Studio would silently take the next one."""
    taken = ConfigError(f"port {port} on {host} is taken by another program", f"end it, or name another: {option} N")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise taken from None
            why = "needs more rights" if error.errno == errno.EACCES else "is no address of this machine"
            raise ConfigError(f"{host}, port {port}: {why}", f"--host 127.0.0.1, {option} 1024 or higher") from None
    with socket.socket() as probe:  # Label Studio looks here, wherever it is told to listen
        if probe.connect_ex(("localhost", port)) == 0:
            raise taken
