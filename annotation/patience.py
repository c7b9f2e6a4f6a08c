"""An HTTP client that outlasts a server's restart, and words for what no patience helps against.

What is safe to send again is sent again, for half a minute: what changes nothing, and what surely never reached the
server. Of anything else nobody knows whether the server did it and could only not say so; whoever sent it has to look.
No message has a token in it: of headers and of pages nothing is shown.
"""

from __future__ import annotations

import html
import json
import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import ijson

from mmtt_build.errors import ConfigError, ServerError

VARIABLE = "MMTT_SERVER_PATIENCE"
PATIENCE_S = 30.0
"""Label Studio is back 5 to 8 s after it was stopped, 20 s on a busy machine."""
CONNECT_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0

_AWAY = (502, 503, 504)
"""What a proxy says while the server behind it is not there."""
_UNREACHED = (httpx.ConnectError, httpx.ConnectTimeout)
_CUT = (httpx.NetworkError, httpx.RemoteProtocolError)

_log = logging.getLogger(__name__)
_Kind = TypeVar("_Kind", bound=BaseException)


def seconds() -> float:
    """How long to wait for a server that does not answer: $MMTT_SERVER_PATIENCE, or 30.

    Raises:
        ConfigError: the variable is no number of seconds.
    """
    given = os.environ.get(VARIABLE) or str(PATIENCE_S)
    if not given.replace(".", "", 1).isdecimal():
        raise ConfigError(f"{VARIABLE}={given!r} is no number of seconds", f"e.g. {VARIABLE}=120")
    return float(given)


class Patient(httpx.Client):
    """A client that tries again, longer and longer apart, and says so once per request.

    It follows no redirect, for one to another host would take a personal token along, and raises where it meets one or
    a failure of the server: nobody can take such an answer for one that says there is nothing.

    Args:
        patience_s: how long, for one request; 0 sends everything once.
        options: of `httpx.Client`.
    """

    def __init__(self, patience_s: float, **options: Any) -> None:
        super().__init__(**options)
        self.patience_s = patience_s

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Sends a request, again where that is safe.

        Raises:
            httpx.TransportError: there was no answer.
            httpx.HTTPStatusError: the answer was a redirect, or a status from 500 on.
        """
        response = self._patiently(request, **options)
        if response.is_redirect or response.is_server_error:
            response.read()  # of a stream it is not there yet
            raise httpx.HTTPStatusError(f"status {response.status_code}", request=request, response=response)
        return response

    def _patiently(self, request: httpx.Request, **options: Any) -> httpx.Response:
        until = time.monotonic() + self.patience_s
        pause_s, said = FIRST_PAUSE_S, False
        while (left_s := until - time.monotonic()) > 0:
            try:
                response = super().send(request, **options)
            except httpx.TransportError as error:
                if not _is_safe(request, error):
                    raise
                problem = f"does not answer ({_why(error)})"
            else:
                if response.status_code not in _AWAY or not _changes_nothing(request):
                    return response
                problem = f"answers with status {response.status_code}"
            if not said:
                server = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
                _log.warning("%s %s, trying again for %.0f s", server, problem, left_s)
                said = True
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return super().send(request, **options)


def _changes_nothing(request: httpx.Request) -> bool:
    # A personal token may be exchanged for an access token as often as one likes.
    return request.method in ("GET", "HEAD", "OPTIONS") or request.url.path.endswith("/api/token/refresh/")


def _is_safe(request: httpx.Request, error: httpx.TransportError) -> bool:
    if _cause(error, ssl.SSLError) or _cause(error, socket.gaierror):
        return False  # waiting mends neither a certificate nor a name
    return isinstance(error, _UNREACHED) or (isinstance(error, _CUT) and _changes_nothing(request))


def broke_off(error: httpx.HTTPError) -> bool:
    """Whether the server itself said nothing to a request: it may have done what it was asked for, or not."""
    return not isinstance(error, httpx.HTTPStatusError) or error.response.status_code in _AWAY


# --- failures ---------------------------------------------------------------------------------------------------------


@contextmanager
def failures(url: str, origin: str, again: str = "try again") -> Iterator[None]:
    """Turns what a client raises into an error that names the server and the way out.

    Args:
        url: address of the server.
        origin: where address and token are from.
        again: what goes on where this broke off.

    Raises:
        ServerError: the server does not answer, refuses the token or the request, or is no Label Studio.
    """
    from label_studio_sdk.core.api_error import ApiError

    try:
        yield
    except httpx.HTTPStatusError as error:
        got = error.response
        if got.is_redirect:
            raise _elsewhere(url, got.headers.get("Location", "")) from None
        body = got.json() if "json" in got.headers.get("Content-Type", "") else got.text
        raise _answered(url, origin, got.status_code, body, again) from None
    except httpx.HTTPError as error:
        raise _unanswered(url, origin, error, again) from None
    except ApiError as error:
        raise _answered(url, origin, error.status_code or 0, error.body, again) from None
    except (json.JSONDecodeError, ijson.JSONError):  # a page in the place of a renewed token, or of a snapshot
        raise ServerError(f"{url} answers, but not as Label Studio does", f"check the address, then {again}") from None


def _unanswered(url: str, origin: str, error: httpx.HTTPError, again: str) -> ServerError:
    if tls := _cause(error, ssl.SSLError):
        reason = getattr(tls, "verify_message", "") or str(tls.reason).replace("_", " ").lower()
        return ServerError(
            f"{url} has no certificate that holds: {reason}",
            "get one for this name, or say who signed it: SSL_CERT_FILE=FILE.pem",
        )
    if _cause(error, socket.gaierror):
        return ServerError(f"{url} does not answer ({_why(error)})", f"check the address in {origin}")
    return ServerError(
        f"{url} does not answer ({_why(error)})",
        f"mmtt annotate status says more; then {again}: nothing is done twice",
    )


def _elsewhere(url: str, location: str) -> ServerError:
    to = urlsplit(location)
    shown = to._replace(netloc=to.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return ServerError(
        f"{url} sends us on to {shown}",
        f"name that address instead; or, if people log in there, have {url}/api/ let programs with a token pass",
    )


def _answered(url: str, origin: str, status: int, body: Any, again: str) -> ServerError:
    if status == 404 and (isinstance(body, dict) or "| Label Studio</title>" in str(body)):  # it has such a page, too
        return ServerError(
            f"{url} no longer has what this command works on (status 404)", f"somebody deleted it meanwhile: {again}"
        )
    if not isinstance(body, dict | list):  # Label Studio's own refusals are JSON
        title = re.search(r"<title[^>]*>([^<]{1,80})", str(body), re.IGNORECASE)
        page = f" and a page, {' '.join(html.unescape(title[1]).split())!r}" if title else ""
        if status < 300 or status == 404:
            return ServerError(
                f"{url} answers, but not as Label Studio does: status {status}{page}",
                f"check the address, then {again}",
            )
        return ServerError(f"{url} answers with status {status}{page}", f"see the server's log, then {again}")
    if status == 401:
        return ServerError(f"the token of {origin} is not accepted", "make a new one")
    told = body if isinstance(body, dict) else {}
    detail = " ".join(str(told.get("validation_errors") or told.get("detail") or "no word why").split())[:300]
    if status == 403:
        return ServerError(f"the user of the token of {origin} may not do this: {detail}", "take an administrator's")
    return ServerError(f"{url} answers with status {status}: {detail}", f"mend that, then {again}")


def _cause(error: BaseException, kind: type[_Kind]) -> _Kind | None:
    """The first of a kind among an error and what led to it."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, kind):
        found = found.__cause__ or found.__context__
    return found


def _why(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_S:.0f} s"
    if isinstance(error, httpx.TimeoutException):
        return "it takes too long"
    if isinstance(error, httpx.ConnectError):
        below = _cause(error, OSError)
        return str(below.strerror if below and below.strerror else error).lower()
    return "the connection was dropped"
