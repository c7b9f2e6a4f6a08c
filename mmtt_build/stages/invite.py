"""Accounts on the annotation server for annotators, and new passwords for who forgot theirs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from annotation import accounts, people, session
from annotation.access import from_environment
from mmtt_build.errors import ConfigError, ServerError
from mmtt_build.stages import push, serve
from mmtt_build.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a list of people.

    Attributes:
        made: ids of those who got an account.
        there: ids of those who had one.
        file: with the passwords that were made here; it may not be there where none was.
    """

    made: list[str]
    there: list[str]
    file: Path


def invite(workspace: Workspace, given: Path | None) -> Summary:
    """Makes an account for everybody who has none, and an annotator of everybody who is none.

    Args:
        workspace: for whose forgeries.
        given: CSV file, `email` or `email,name` a line; None for all annotators who are there.

    Raises:
        ConfigError: nobody to annotate, a file that cannot be read, or a push is running.
        ServerError: there is no server, or it takes no sign-ups; inviting again goes on.
    """
    connection = serve.connection(workspace)
    folder = serve.local(workspace, make=True).data
    with push.alone(workspace):
        known = people.load(folder)
        active = people.enrol(known, given, push.ids(workspace))
        people.save(folder, known)
        with session.session(connection, "mmtt annotate invite") as client:
            made = accounts.make(connection, client, folder, {name: known[name] for name in active})
    return Summary(made, [name for name in active if name not in made], folder / accounts.FILE_NAME)


def reset(workspace: Workspace, email: str) -> Path:
    """Gives an annotator a new password.

    Args:
        workspace: whose annotator, on its local server.
        email: address of the account.

    Returns:
        The file with the password.

    Raises:
        ConfigError: it is no annotator's address, or the server is the lab's.
        ServerError: there is no such account, or the server refuses.
    """
    if from_environment() is not None:
        raise ConfigError("passwords of the lab's server are not ours to make", "reset it there")
    server = serve.local(workspace)
    known = people.load(server.data)
    found = [name for name, person in known.items() if person.email == email.strip().lower()]
    if not found:
        raise ConfigError(f"{email} is no annotator's address", f"see {server.data / people.FILE_NAME}")
    person = known[found[0]]
    with session.session(server.connection, "mmtt annotate invite") as client:
        numbers = [number for number, address in session.users(client).items() if address == person.email]
        if not numbers:
            raise ServerError(f"{found[0]} has no account on {server.access.url}", "mmtt annotate invite")
        accounts.reset(server.access, server.data, found[0], person, numbers[0])
    return server.data / accounts.FILE_NAME
