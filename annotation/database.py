"""The PostgreSQL database of a local server, where it is not to be sqlite: its address, whether it can be used, dumps.

Its password comes from the environment, is kept in the server's access file, and goes to programs through their
environment; it is in no command line and in no message.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from mmtt_build.errors import ConfigError, ServerError

CONNECT_S = 10

_OPTIONS = {"host": "PGHOST", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}
"""What may follow the ? of an address, and the variable that PostgreSQL's own library takes it from."""
_EXAMPLE = "--postgres postgresql://user@host:5432/database"

_RUN = f"""
import sys, psycopg
try:
    with psycopg.connect(connect_timeout={CONNECT_S}, autocommit=True) as database:
        done = database.execute(sys.argv[1])
        print(done.fetchone()[0] if done.description else "")
except psycopg.Error as error:
    sys.exit(str(error))
"""


def with_password(given: str) -> str:
    """A checked URL with the password of $PGPASSWORD.

    Raises:
        ConfigError: it is no PostgreSQL URL with a database, or has a password that every user of the machine can see.
    """
    shown = given.rpartition("@")[2]
    try:
        parts = urlsplit(given)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"--postgres {shown}: {error}", _EXAMPLE) from None
    if parts.scheme not in ("postgres", "postgresql") or not parts.path.strip("/"):
        raise ConfigError(f"--postgres {shown}: no URL of a PostgreSQL database", _EXAMPLE)
    if parts.password or "password" in parts.query:
        raise ConfigError(
            "--postgres has a password, which the list of processes shows to everybody", "put it into $PGPASSWORD"
        )
    if unknown := {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - set(_OPTIONS):
        raise ConfigError(f"--postgres {shown}: unknown {', '.join(sorted(unknown))}", f"known: {', '.join(_OPTIONS)}")
    password = quote(os.environ.get("PGPASSWORD", ""), safe="")
    user, _, address = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user or 'postgres'}:{password}@{address}").geturl()


def address(url: str) -> str:
    """The URL without its password."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.username}@{parts.netloc.rpartition('@')[2]}").geturl()


def beside(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return urlsplit(url)._replace(path=f"/{quote(name, safe='')}").geturl()


def variables(url: str) -> dict[str, str]:
    """The URL as PostgreSQL's own library reads it from the environment."""
    parts = urlsplit(url)
    given = {_OPTIONS[name]: value for name, value in parse_qsl(parts.query)}
    return {
        "PGHOST": parts.hostname or "localhost",
        "PGPORT": str(parts.port or 5432),
        "PGDATABASE": unquote(parts.path.lstrip("/")),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        **given,
    }


def settings(url: str) -> dict[str, str]:
    """The URL as Label Studio's settings read it; those of `variables` that they leave out work beside them."""
    of = variables(url)
    return {
        "DJANGO_DB": "postgresql",
        **{f"POSTGRE_{name}": of[f"PG{name}"] for name in ("HOST", "PORT", "USER", "PASSWORD")},
        "POSTGRE_NAME": of["PGDATABASE"],
        # An index for searching in answers: it needs extensions that not every server has or lets one make.
        "SKIP_TRIGRAM_EXTENSION": "full",
        "SKIP_BTREE_GIN_EXTENSION": "full",
    }


def check(url: str, python: Path) -> None:
    """Connects to the database.

    Args:
        url: with its password.
        python: of the server's environment, which has a driver.

    Raises:
        ServerError: it does not answer, does not let us in, or not make tables.
    """
    may = run(url, python, "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)")
    if may != "True":
        raise ServerError(f"the user of {address(url)} may not make tables in it", "let the user own the database")


def run(url: str, python: Path, statement: str) -> str:
    """Runs one statement on the database.

    Args:
        url: with its password.
        python: of the server's environment, which has a driver.
        statement: seen by others in the list of processes.

    Returns:
        The first value of its answer, "" without one.

    Raises:
        ServerError: the database does not answer, does not let us in, or refuses.
    """
    done = subprocess.run(
        [python, "-I", "-c", _RUN, statement], capture_output=True, text=True, env={**os.environ, **variables(url)},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        said = " ".join(done.stderr.split())[:400] or "no word why"
        raise ServerError(
            f"the database {address(url)} cannot be used: {said}",
            "it must run, with a user that owns the database; the password is $PGPASSWORD at `mmtt annotate serve`",
        )
    return done.stdout.strip()


def client(program: str, url: str, *arguments: str) -> None:
    """Runs one of PostgreSQL's programs on the database.

    Raises:
        ServerError: it is not installed, or fails.
    """
    if shutil.which(program) is None:
        raise ServerError(f"{program} is not installed", "install PostgreSQL's client programs")
    done = subprocess.run(
        [program, f"--dbname={address(url)}", "--no-password", *arguments], capture_output=True, text=True,
        env={**os.environ, **variables(url)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        said = " ".join(done.stderr.strip().splitlines()[-2:]) or "no word why"  # an error, and its detail
        raise ServerError(said, f"the database is {address(url)}; mend that, then the same command again")
