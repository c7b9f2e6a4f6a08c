"""A client of the Label Studio server for a command that works on it: patient, and sure of whom it talks to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from annotation.access import Connection, administrator, release

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

    from annotation.tasks import Found

T = TypeVar("T")


class Line:
    """A line to a server, for work that comes piece by piece.

    Entered, it is kept open from one piece to the next: who is at its end is looked into once, and so is what seldom
    changes there. It is made anew after a failure, and where the server is another one; `close` has all asked again.

    Attributes:
        release: of the Label Studio at its end.
        projects: as they were listed last, by title.
    """

    def __init__(self) -> None:
        self.release = ""
        self.projects: Mapping[str, Found] = {}
        self._kept = False
        self._connection: Connection | None = None
        self._client: LabelStudio | None = None
        self._stack = ExitStack()
        self._answers: dict[Callable[[LabelStudio], Any], Any] = {}

    def __enter__(self) -> Self:
        """Nothing is opened before it is needed."""
        self._kept = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Closes it."""
        self.close()

    def close(self) -> None:
        """Ends it, with all that is known of the server; the next piece of work opens it again."""
        self._client = None
        self.projects = {}
        self._answers.clear()
        self._stack.close()

    @contextmanager
    def open(self, connection: Connection, again: str) -> Iterator[LabelStudio]:
        """A client whose failures name the server and the way out.

        Args:
            connection: to which server.
            again: the command that goes on where this piece of work broke off.

        Raises:
            ConfigError: the patience of the environment is no number.
            ServerError: the server does not answer, is no Label Studio, or refuses the token or a request; or the token
                is an annotator's.
        """
        from annotation import patience

        whole = False
        try:
            if connection != self._connection:
                self.close()
            with patience.failures(connection.url, connection.origin, again):
                if self._client is None:
                    client = self._stack.enter_context(connection.client(patience_s=patience.seconds()))
                    self.release = release(connection, client)
                    administrator(connection, client)
                    self._client, self._connection = client, connection
                yield self._client
            whole = True
        finally:
            if not whole or not self._kept:
                self.close()

    def once(self, question: Callable[[LabelStudio], T], *, anew: bool = False) -> T:
        """What a server that is open answers to a question, which is not asked twice unless `anew`."""
        if anew or question not in self._answers:
            assert self._client is not None
            self._answers[question] = question(self._client)
        answer: T = self._answers[question]
        return answer


@contextmanager
def session(connection: Connection, again: str) -> Iterator[LabelStudio]:
    """A client for one piece of work, as `Line.open` gives it."""
    with Line().open(connection, again) as client:
        yield client


def users(client: LabelStudio) -> dict[int, str]:
    """E-mail address per user of the server, in small letters."""
    return {user.id: str(user.email).lower() for user in client.users.list()}


def listing(first: Any, total: str) -> Iterator[Any]:
    """Items of all pages of a listing, without the empty one behind the last that the SDK would ask for.

    Args:
        first: page, as the SDK gives it.
        total: name of the number of all items in an answer.
    """
    got = 0
    for page in first.iter_pages():
        yield from page.items or ()
        got += len(page.items or ())
        if got == getattr(page.response, total, None):
            return
