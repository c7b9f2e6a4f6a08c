"""How to reach a server: the local one by a file with ports, first user and token, the lab's by the environment."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mmtt_build.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

URL, TOKEN = "MMTT_LABEL_STUDIO_URL", "MMTT_LABEL_STUDIO_TOKEN"
FILE_NAME = "access.json"


@dataclass(frozen=True, slots=True)
class Access:
    """What a local server is told at its start, and whoever wants to reach it later.

    Attributes:
        host: address that it listens on and is called by.
        port: of Label Studio.
        image_port: of the images. It and the key are in the tasks, so they had better stay.
        image_key: first part of every image's path, so that only who has a task can read its images.
        username: of the first user, an administrator.
        password: of that user.
        token: of that user, as a legacy API token: it does not expire.
        postgres: URL of the database with its password; "" for sqlite.
        version: of the Label Studio that last ran on the data; "" before its first complete start.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    image_port: int = 8081
    image_key: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)
    username: str = "admin@mmtt.local"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)
    token: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)
    postgres: str = field(default="", repr=False)
    version: str = ""

    @property
    def url(self) -> str:
        """Address of Label Studio."""
        return f"http://{self.host}:{self.port}"

    @property
    def images_url(self) -> str:
        """What a path from a table (`images/...`) is appended to, a slash between them."""
        return f"http://{self.host}:{self.image_port}/{self.image_key}"

    @property
    def origins(self) -> tuple[str, ...]:
        """Origins of pages that may fetch images: a browser on this machine may call it localhost."""
        return (self.url, f"http://localhost:{self.port}")

    def save(self, folder: Path) -> None:
        """Writes the file, readable by nobody else."""
        partial = folder / f".{FILE_NAME}.partial"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self), file, indent=2)
        partial.replace(folder / FILE_NAME)

    @staticmethod
    def load(folder: Path) -> Access | None:
        """Reads the file, if there is one.

        Raises:
            ServerError: it is damaged.
        """
        path = folder / FILE_NAME
        try:
            return Access(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ServerError(f"{path} is damaged", "mmtt annotate restore BACKUP --replace") from error


@dataclass(frozen=True, slots=True)
class Connection:
    """A Label Studio server and a token for it.

    Attributes:
        url: its address.
        token: a legacy API token, or a personal access token.
        origin: where both are from, for messages.
    """

    url: str
    token: str = field(repr=False)
    origin: str

    @contextmanager
    def client(self, timeout_s: float = 600.0, patience_s: float = 0.0) -> Iterator[LabelStudio]:
        """A client of the SDK; what it sends again, if anything, is `annotation.patience`'s to say.

        Args:
            timeout_s: longest wait for a piece of an answer.
            patience_s: how long to try again, for one request.

        Raises:
            ServerError: the token has run out.
        """
        import httpx
        from label_studio_sdk import LabelStudio
        from label_studio_sdk.core.api_error import ApiError

        from annotation.patience import CONNECT_S, Patient

        # A proxy of the environment knows nothing of this machine's ports.
        local = urlsplit(self.url).hostname in ("127.0.0.1", "localhost")
        limits = httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S))
        trusted = httpx.create_ssl_context()  # those of $SSL_CERT_FILE, on this machine, too
        with Patient(patience_s, timeout=limits, trust_env=not local, verify=trusted) as http:
            try:
                client = LabelStudio(  # type: ignore[no-untyped-call]
                    base_url=f"{self.url}/", api_key=self.token, max_retries=0, httpx_client=http
                )
            except ApiError:  # its text may hold headers, and with them a session
                raise ServerError(f"the token of {self.origin} has run out", "make a new one") from None
            yield client


def from_environment() -> Connection | None:
    """The lab's own server, if the environment names one.

    Raises:
        ConfigError: half of it is named, or the address is none.
    """
    url, token = os.environ.get(URL, "").strip().rstrip("/"), os.environ.get(TOKEN, "").strip()
    if not url and not token:
        return None
    if not url or not token:
        raise ConfigError(f"{TOKEN if url else URL} is not set", f"set both {URL} and {TOKEN}, or neither")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{URL}={url!r} is no address", f"e.g. {URL}=https://label-studio.example.org")
    if parts.username or parts.password:
        raise ConfigError(f"{URL} holds a user or a password", f"put the token into {TOKEN}")
    if not re.fullmatch(r"[!-~]+", token):
        raise ConfigError(f"{TOKEN} has characters that are in no token", "copy it again, without what is around it")
    return Connection(url, token, f"${URL}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says when it is asked.

    Attributes:
        version: of Label Studio; "" where it does not answer.
        user: e-mail address that the token belongs to; "" where it is not accepted.
        problem: why it cannot be used, or "".
    """

    version: str = ""
    user: str = ""
    problem: str = ""


def ask(connection: Connection, timeout_s: float = 10.0) -> Answer:
    """Asks a server, once, for its version and for whom it takes us."""
    from annotation.patience import failures

    version = ""
    try:
        with failures(connection.url, connection.origin), connection.client(timeout_s) as client:
            version = release(connection, client)
            return Answer(version, administrator(connection, client))
    except ServerError as error:
        return Answer(version, problem=error.message)


def release(connection: Connection, client: LabelStudio) -> str:
    """Version of the Label Studio that answers.

    Raises:
        ServerError: something else answers.
    """
    try:
        found = client.versions.get().release
    except (AttributeError, TypeError, ValueError):  # what the SDK makes of another program's JSON
        found = None
    if not isinstance(found, str):
        raise ServerError(f"{connection.url} answers, but not as Label Studio does", "check the address")
    return found


def administrator(connection: Connection, client: LabelStudio) -> str:
    """E-mail address of the token's user, who sees everybody's work.

    Raises:
        ServerError: the guard takes them for an annotator, for whom it is as if others' work were not there.
    """
    email = str(client.users.whoami().email)
    http = client._client_wrapper.httpx_client  # the guard's address is none that the SDK has a method for
    # The guard tells annotators, and nobody else, how long they still have to look.
    if http.request("mmtt/wait", method="GET", params={"task": 0}).status_code == 200:
        raise ServerError(
            f"the token of {connection.origin} is an annotator's, {email}", "take the token of an administrator"
        )
    return email
