"""Accounts on the server for annotators, made through its sign-up link, as they would do it themselves.

A password is in the private file `logins.csv` before the server hears of it, so whatever is killed midway goes on with
the same one. The lead hands the lines out; nothing else shows a password.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from annotation import people, session
from annotation.access import Access, Connection
from mmtt_build.errors import ServerError

if TYPE_CHECKING:
    import httpx
    from label_studio_sdk import LabelStudio

FILE_NAME = "logins.csv"
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""None that is taken for another: 16 of them are 79 bits."""
_ELSEWHERE = "make the accounts as the server's own users get theirs, with the addresses of annotators.csv"


@dataclass(frozen=True, slots=True)
class Login:
    """What somebody needs to log in, a line of the file.

    Attributes:
        annotator: pseudonymous id.
        email: of the account.
        address: of the server.
        password: as it was made here; who changed it since knows better.
    """

    annotator: str
    email: str
    address: str
    password: str = field(repr=False)


def make(
    connection: Connection, client: LabelStudio, folder: Path, annotators: Mapping[str, people.Person]
) -> list[str]:
    """Makes an account for everybody who has none.

    Args:
        connection: to the server.
        client: of the same, an administrator's.
        folder: private one, for the file.
        annotators: by pseudonymous id.

    Returns:
        Ids of those who got one.

    Raises:
        ServerError: the server takes no sign-ups, or not this one; running again goes on.
        ConfigError: the file of passwords was edited into something that makes no sense.
    """
    accounts = set(session.users(client).values())
    without = {name: person for name, person in annotators.items() if person.email not in accounts}
    if not without:
        return []
    http = client._client_wrapper.httpx_client  # the SDK has no method for it
    answer = http.request("api/invite", method="GET")
    if answer.status_code != 200:
        raise ServerError(f"{connection.url} gives no invitation (status {answer.status_code})", _ELSEWHERE)
    invitation = answer.json()["token"]
    logins = _note(folder, connection.url, without)
    for name, person in without.items():
        with _filled_in(connection, f"/user/signup/?token={invitation}", logins[name]) as (_, answer):
            if not answer.is_redirect:
                raise ServerError(f"{connection.url} makes no account for {name}: {_said(answer)}", _ELSEWHERE)
        number = _log_in(connection, logins[name])
        first, _, last = person.name.partition(" ")
        if first:
            client.users.update(id=number, first_name=first, last_name=last)
    return list(without)


def reset(access: Access, folder: Path, name: str, person: people.Person, number: int) -> None:
    """Gives somebody a new password, on a local server whose first user we are.

    Args:
        access: to it.
        folder: private one, for the file.
        name: pseudonymous id.
        person: with the address of the account.
        number: the server's id of the account.

    Raises:
        ServerError: the first user's password was changed, or the server refuses the new one.
    """
    connection = Connection(access.url, access.token, "access.json")
    login = _note(folder, access.url, {name: person}, anew=True)[name]
    admin = Login("", access.username, access.url, access.password)
    with _filled_in(connection, "/user/login/", admin) as (browser, answer):
        if not answer.is_redirect:
            raise ServerError(
                f"{access.url} does not take {access.username} with the password in access.json",
                f"set a password on the server's page {access.url}/admin/users/user/{number}/password/",
            )
        passwords = {"password1": login.password, "password2": login.password, "usable_password": "true"}
        token = browser.cookies["csrftoken"]
        browser.post(
            f"/admin/users/user/{number}/password/",
            data=passwords | {"csrfmiddlewaretoken": token},
            headers={"Referer": access.url},
        )
    _log_in(connection, login)


def _note(
    folder: Path, address: str, annotators: Mapping[str, people.Person], *, anew: bool = False
) -> dict[str, Login]:
    """Writes passwords down, and gives the lines by id; who has a line already keeps it unless all get a new one."""
    path = folder / FILE_NAME
    columns = [column.name for column in fields(Login)]
    rows = list(people.read(path, columns, f"its columns are {', '.join(columns)}")) if path.is_file() else []
    lines = {(row["email"], row["address"]): Login(*(row[column] for column in columns)) for _, row in rows}
    noted = {}
    for name, person in annotators.items():
        before = lines.get((person.email, address))
        password = before.password if before is not None and before.password and not anew else _password()
        noted[name] = lines[person.email, address] = Login(name, person.email, address, password)
    people.write(path, columns, map(astuple, lines.values()))
    return noted


def _password() -> str:
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(4))


def _log_in(connection: Connection, login: Login) -> int:
    """Logs in and out again; the server's id of the user."""
    with _filled_in(connection, "/user/login/", login) as (browser, answer):
        user = browser.get("/api/current-user/whoami") if answer.is_redirect else answer
        if user.status_code != 200 or user.json()["email"].lower() != login.email:
            raise ServerError(
                f"{connection.url} does not let {login.annotator} log in with the password in {FILE_NAME}",
                "mmtt annotate invite --reset EMAIL",
            )
        number = int(user.json()["id"])
        browser.get("/logout/")
        return number


@contextmanager
def _filled_in(connection: Connection, path: str, login: Login) -> Iterator[tuple[httpx.Client, httpx.Response]]:
    """A browser's session after the form of a page was sent with an address and a password, and what came back."""
    import httpx

    host = urlsplit(connection.url).hostname
    local = host in ("127.0.0.1", "localhost")  # as in Connection.client
    trusted = httpx.create_ssl_context()
    with httpx.Client(base_url=connection.url, timeout=60, trust_env=not local, verify=trusted) as browser:
        page = browser.get(path, follow_redirects=True)
        token = browser.cookies.get("csrftoken")
        if page.status_code != 200 or page.url.host != host or token is None or 'name="password"' not in page.text:
            shown = path.partition("?")[0]
            raise ServerError(f"{connection.url}{shown} shows no form (status {page.status_code})", _ELSEWHERE)
        values = {"email": login.email, "password": login.password, "csrfmiddlewaretoken": token}
        yield browser, browser.post(page.url, data=values, headers={"Referer": connection.url})


def _said(answer: httpx.Response) -> str:
    lists = re.findall(r'<ul class="field_errors">(.*?)</ul>', answer.text, re.DOTALL)
    reasons = re.findall(r"<li>(.*?)</li>", "".join(lists), re.DOTALL)
    return unescape("; ".join(" ".join(reason.split()) for reason in reasons)) or f"status {answer.status_code}"
