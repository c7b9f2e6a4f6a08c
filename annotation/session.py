"""A client of the Label Studio server for a command that works on it: patient, and sure of whom it talks to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from annotation.access import Connection, administrator, release

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio


@contextmanager
def session(connection: Connection, again: str) -> Iterator[LabelStudio]:
    """A client whose failures name the server and the way out.

    Args:
        connection: to which server.
        again: the command that goes on where this one broke off.

    Raises:
        ConfigError: the patience of the environment is no number.
        ServerError: the server does not answer, is no Label Studio, or refuses the token or a request; or the token is
            an annotator's.
    """
    from annotation import patience

    with (
        patience.failures(connection.url, connection.origin, again),
        connection.client(patience_s=patience.seconds()) as client,
    ):
        release(connection, client)
        administrator(connection, client)
        yield client


def users(client: LabelStudio) -> dict[int, str]:
    """E-mail address per user of the server, in small letters."""
    return {user.id: str(user.email).lower() for user in client.users.list()}
