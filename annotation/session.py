"""A client of the Label Studio server whose failures name the server and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from annotation.access import Connection
from mmtt_build.errors import ServerError

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio


@contextmanager
def session(connection: Connection, again: str) -> Iterator[LabelStudio]:
    """A client whose failures name the server and the way out.

    Args:
        connection: to which server.
        again: the command that goes on where this one broke off.

    Raises:
        ServerError: the server does not answer, refuses the token or the request.
    """
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    with connection.client() as client:
        try:
            yield client
        except httpx.HTTPError as error:
            raise ServerError(
                f"{connection.url} does not answer ({type(error).__name__})",
                f"mmtt annotate status says more; then {again}: nothing is done twice",
            ) from error
        except ApiError as error:  # its own text holds headers, and with them a session
            if error.status_code in (401, 403):
                raise ServerError(f"the token of {connection.origin} is not accepted", "make a new one") from None
            said = " ".join(str(error.body).split())[:300]
            raise ServerError(
                f"{connection.url} answers with status {error.status_code}: {said}", f"mend that, then {again}"
            ) from None


def users(client: LabelStudio) -> dict[int, str]:
    """E-mail address per user of the server, in small letters."""
    return {user.id: str(user.email).lower() for user in client.users.list()}
