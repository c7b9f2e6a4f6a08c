"""Backups of a local server: one zip file with the database, uploads, keys, first user and token."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import zipfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from annotation import database, environment
from annotation.access import FILE_NAME, Access
from annotation.server import Server
from mmtt_build.errors import ConfigError, ServerError
from mmtt_build.progress import Progress

MANIFEST = "backup.json"
DUMP = "database.dump"
"""Of PostgreSQL, in pg_dump's own format."""
SQLITE = ".sqlite3"
_LEFT_OUT = (".pid", ".log", ".partial", f"{SQLITE}-wal", f"{SQLITE}-shm")


def backup(server: Server, to: Path | None = None) -> Path:
    """Writes a backup; the server may run meanwhile.

    Args:
        server: whose data.
        to: file to write; None writes into a folder beside the data, under the time.

    Returns:
        The file, readable by its owner only: it holds the first user's password.

    Raises:
        ConfigError: the file exists.
        ServerError: there is nothing to back up, or the database cannot be read.
    """
    access = server.access
    if not access.version:
        raise ServerError(f"{server.data} has no complete first start behind it", "mmtt annotate serve")
    if to is None:
        to = server.data.with_name(f"{server.data.name}.backups") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip"
        to.parent.mkdir(exist_ok=True, mode=0o700)
    if to.exists():
        raise ConfigError(f"{to} exists", "name another file")
    files = [path for path in sorted(server.data.rglob("*")) if path.is_file() and not path.name.endswith(_LEFT_OUT)]
    partial = to.with_name(f".{to.name}.partial")
    manifest = {"format": 1, "version": access.version, "made": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        with (
            os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b") as raw,
            zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive,
            TemporaryDirectory(dir=server.data) as scratch,
            Progress("backup", len(files), "files") as progress,
        ):
            archive.writestr(MANIFEST, json.dumps(manifest))
            copy = Path(scratch) / "copy"
            if access.postgres:
                database.client("pg_dump", access.postgres, "--format=custom", f"--file={copy}")
                archive.write(copy, DUMP)
            for path in files:
                name = path.relative_to(server.data)
                archive.write(_as_of_now(path, copy) if path.suffix == SQLITE else path, name)
                progress.step()
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)
    return to


def _as_of_now(database: Path, copy: Path) -> Path:
    """Copies an sqlite database as it is at one instant, whoever writes to it."""
    copy.unlink(missing_ok=True)
    with closing(sqlite3.connect(database)) as live, closing(sqlite3.connect(copy)) as target:
        live.backup(target)
    return copy


def restore(server: Server, file: Path, *, over: bool = False) -> Path | None:
    """Puts a backup in the place of a server's data.

    Args:
        server: whose data; it must not run.
        file: a backup.
        over: even if there is data. The old data folder is kept aside; a PostgreSQL database is overwritten.

    Returns:
        Where the old data folder is now, or None if there was none.

    Raises:
        ConfigError: there is data and `over` is not given.
        ServerError: the server runs, or the backup is damaged, of a later version, or something else.
    """
    if server.running():
        raise ServerError("the server runs", "mmtt annotate stop")
    if server.data.exists() and any(server.data.iterdir()) and not over:
        raise ConfigError(f"{server.data} has data", "mmtt annotate restore --replace keeps it aside")
    fresh = server.data.with_name(f".{server.data.name}.restoring")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True, mode=0o700)
    try:
        _unpack(file, fresh)
        access = Access.load(fresh)
        if access is None:
            raise ServerError(f"{file} lacks {FILE_NAME}", "it is no whole backup; take another")
        if (fresh / DUMP).is_file():
            here = Access.load(server.data)  # the database may be elsewhere, or its password another one by now
            access = replace(access, postgres=here.postgres) if here and here.postgres else access
            database.client(
                "pg_restore", access.postgres, "--clean", "--if-exists", "--no-owner", "--exit-on-error",
                str(fresh / DUMP),
            )  # fmt: skip
            (fresh / DUMP).unlink()
            access.save(fresh)
        aside = _put_aside(server.data)
        fresh.replace(server.data)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return aside


def _unpack(file: Path, to: Path) -> None:
    """Unpacks a backup that is proved whole; zipfile keeps every name inside `to`."""
    try:
        with zipfile.ZipFile(file) as archive, Progress("restore", len(archive.infolist()), "files") as progress:
            manifest = json.loads(archive.read(MANIFEST))
            if _number(manifest["version"]) > _number(environment.VERSION):
                raise ServerError(
                    f"{file} is of Label Studio {manifest['version']}, later than {environment.VERSION}",
                    "use the mmtt-build that made it",
                )
            for member in archive.infolist():
                archive.extract(member, to)
                progress.step()
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ServerError(f"{file} is no whole backup: {error}", "take another") from error
    (to / MANIFEST).unlink()
    for path in to.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    for path in to.rglob(f"*{SQLITE}"):
        with closing(sqlite3.connect(path)) as unpacked:
            found = unpacked.execute("PRAGMA quick_check").fetchone()[0]
        if found != "ok":
            raise ServerError(f"{file}: its {path.name} is damaged: {found}", "take another")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])


def _put_aside(data: Path) -> Path | None:
    if not data.exists() or not any(data.iterdir()):
        return None
    aside = data.with_name(f"{data.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    data.replace(aside)
    return aside
