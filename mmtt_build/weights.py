"""The catalogue of checkpoints, and where they lie on this machine. No torch: nothing here looks into a file.

A weights folder holds `<name>/`, the checkpoint, and `<name>.json`, its record: what its files were when it was added
(SHA-256, size, time of change) and who accepted its terms. A checkpoint without a record is not used. Hugging Face
models may also lie in that library's own cache, which names them by commit; only their acceptance is recorded here.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from mmtt_build import hub_cache
from mmtt_build.catalogue import Entry, catalogue, entry
from mmtt_build.digests import digests, members
from mmtt_build.errors import ConfigError, TermsNotAccepted, WeightsError, WeightsMissing
from mmtt_build.registry import Registry

__all__ = ["CHECKS", "Entry", "Found", "Looked", "State", "Weights", "catalogue", "entry", "prove", "refused"]

CHECKS = Registry(
    "kind of checkpoint",
    {
        "file": "generators.checkpoints:check_file",
        "lora": "generators.checkpoints:check_lora",
        "array": "generators.checkpoints:check_array",
        "tensors": "generators.checkpoints:check_tensors",
        "folder": "generators.model_folders:check_folder",
        "pack": "generators.onnx_files:check_pack",
        "onnx": "generators.onnx_files:check_onnx",
    },
)
"""What proves a checkpoint of each kind: (entry, path) -> problems found, in words. It lives with the networks."""

STALE_S = 3600.0
"""A copy whose newest file is older than this was killed."""


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint on this machine, unchanged since it was added, its terms accepted.

    Attributes:
        entry: what it is.
        path: the file, or the folder of a checkpoint that is one.
        identity: what goes into the rows: SHA-256 of the file, digest over a folder's files, or "hub:<id>@<commit>".
    """

    entry: Entry
    path: Path
    identity: str

    @property
    def fact(self) -> dict[str, str]:
        """What the row of a forgery that it made says of it."""
        return {"identity": self.identity, "licence": self.entry.licence}


class State(StrEnum):
    """How a checkpoint stands, as `mmtt weights list` says it."""

    READY = "ready"
    MISSING = "missing"
    TERMS = "terms not accepted"
    CHANGED = "changed"
    NOT_ADDED = "not added"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at names, sizes and times says about a checkpoint; nothing is read.

    Attributes:
        entry: which one.
        state: how it stands. CHANGED may turn out to be a mere copy with a new time, once it is hashed.
        path: the file or folder; of a missing one where it was when it was added, if it ever was.
        folder: the weights folder that it lies in; None for the hub's cache.
        identity: see `Found`; "" if not known.
    """

    entry: Entry
    state: State
    path: Path | None = None
    folder: Path | None = None
    identity: str = ""


def user_cache() -> Path:
    """The user's own weights folder, by the XDG rules."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmtt" / "weights"


@dataclass(frozen=True, slots=True)
class Weights:
    """Where checkpoints are looked for; picklable, so that device processes get it.

    Attributes:
        folders: in search order. `add` puts into the first; acceptances of models in the hub's cache go into the last.
    """

    folders: Sequence[Path]

    @staticmethod
    def search(workspace_root: Path | None = None, given: Path | None = None) -> Weights:
        """The usual order: `--weights-dir`, `$MMTT_WEIGHTS`, the workspace, the user's cache.

        Args:
            workspace_root: folder of the workspace, whose `weights` folder is looked into.
            given: what `--weights-dir` said.

        Raises:
            ConfigError: a folder that the user named does not exist.
        """
        named = {"--weights-dir": given, "$MMTT_WEIGHTS": Path(e) if (e := os.environ.get("MMTT_WEIGHTS")) else None}
        for option, folder in named.items():
            if folder is not None and not folder.is_dir():
                raise ConfigError(f"{option} {folder} is not a folder", f"mkdir -p {folder}, or name another")
        folders = [folder.absolute() for folder in named.values() if folder]
        if workspace_root is not None:
            folders.append(workspace_root.absolute() / "weights")
        return Weights(tuple(dict.fromkeys([*folders, user_cache()])))

    def look(self, name: str) -> Looked:
        """How a checkpoint stands, from names, sizes and times alone.

        Raises:
            ConfigError: the catalogue has no such name.
            WeightsError: its record cannot be read.
        """
        of = entry(name)
        stray = gone = None
        for folder in self.folders:
            record = _read(folder, name)
            if record.get("files"):
                path = _path(folder, of, record)
                if not path.exists():  # taken away by hand, or what a link led to; another folder may have it
                    gone = gone or path
                    continue
                state = State.CHANGED if _touched(path, record["files"]) else self._ready(of)
                return Looked(of, state, path, folder, record["identity"])
            stray = stray or _stray(folder, of)
        if of.hub and (cached := hub_cache.locate(of)):
            commit = re.search(r"snapshots/([^/]+)", cached.as_posix())
            state = State.INCOMPLETE if of.is_tree and hub_cache.lacking(cached) else self._ready(of)
            return Looked(of, state, cached, None, f"hub:{of.hub}@{commit[1] if commit else ''}")
        return Looked(of, State.NOT_ADDED if stray else State.MISSING, stray or gone)

    def _ready(self, of: Entry) -> State:
        return State.READY if self.accepted(of.name) else State.TERMS

    def find(self, name: str) -> Found:
        """The checkpoint, ready for use.

        Where size and time of every file are those of the record, they are trusted; else the files are hashed again.

        Raises:
            ConfigError: the catalogue has no such name.
            WeightsMissing: it is nowhere; the remedy says how to obtain it.
            WeightsError: it changed since it was added.
            TermsNotAccepted: its licence has not been accepted.
        """
        looked = self.look(name)
        if looked.state is State.CHANGED:
            self.rehash(name)
            looked = self.look(name)
        of = looked.entry
        what = f"'{name}' ({of.purpose})"
        if looked.state is State.NOT_ADDED:
            raise WeightsMissing(
                f"{what}: {looked.path} lies there, but was never added and checked",
                f"mmtt weights add {name} {looked.path}",
            )
        if looked.state is State.INCOMPLETE and looked.path:
            raise WeightsMissing(
                f"{what}: the hub's cache has only part of it, {looked.path} lacks {hub_cache.lacking(looked.path)}",
                f"mmtt weights fetch {name} gets the rest",
            )
        if looked.state is State.MISSING or looked.path is None:
            where = ", ".join([*map(str, self.folders), *(["the hub's cache"] if of.hub else [])])
            gone = f"was added, and {looked.path} is gone" if looked.path else f"is in none of: {where}"
            raise WeightsMissing(f"{what} {gone}", of.how_to_obtain())
        if not self.accepted(name):
            raise TermsNotAccepted(
                f"{what}: nobody has accepted its licence ({of.licence}) yet",
                f"mmtt weights accept {name} shows the terms and asks",
            )
        return Found(of, looked.path, looked.identity)

    def rehash(self, name: str) -> None:
        """Compares every byte with the record; equal files with other times are noted in it.

        Raises:
            WeightsError: a file differs, is gone or was added.
        """
        looked = self.look(name)
        if looked.folder is None or looked.path is None:
            return
        record = _read(looked.folder, name)
        now = digests(looked.path)
        for relative in sorted({*now, *record["files"]}):
            was, is_now = (of.get(relative, {}).get("sha256", "absent") for of in (record["files"], now))
            if was != is_now:
                file = looked.path / relative if relative != "." else looked.path
                raise WeightsError(
                    f"'{name}' changed since it was added: {file}\n  sha256 then {was}\n  sha256 now  {is_now}",
                    f"put the old file back, or take the new one in: mmtt weights add {name} FILE --replace",
                )
        if now != record["files"]:
            with suppress(PermissionError):  # another's folder: then it is hashed again next time
                _write(looked.folder, name, {**record, "files": now, "verified": _now()})

    def accepted(self, name: str) -> bool:
        """Whether somebody accepted the terms, as the catalogue states them today, or there are none."""
        of = entry(name)
        noted = [_read(folder, name).get("accepted", {}) for folder in self.folders]
        return not of.terms or any((n.get("licence"), n.get("terms")) == (of.licence, of.terms) for n in noted)

    def accept(self, name: str) -> Path:
        """Records that this user accepts the terms.

        Returns:
            The record: beside the checkpoint, or in the last folder where there is no checkpoint yet.
        """
        of = entry(name)
        folder = next((f for f in self.folders if _read(f, name).get("files")), self.folders[-1])
        return _write(folder, name, {**_read(folder, name), "accepted": _acceptance(of)})

    def add(
        self, name: str, path: Path, *, accept: bool = False, link: bool = False, replace: bool = False
    ) -> Found | Looked:
        """Proves a checkpoint and takes it into the first folder: whole, or not at all.

        Args:
            name: as in the catalogue.
            path: file or folder; may be the one that lies in the weights folder already.
            accept: accept the terms, too.
            link: keep it where it is and link to it.
            replace: take it even if another content was added under this name before.

        Returns:
            `Found`, or how it stands if its terms are still to be accepted.

        Raises:
            ConfigError: the catalogue has no such name, or the path is not what the kind needs.
            WeightsError: it is not what the name says, or another content is recorded.
        """
        of, path, folder = entry(name), path.absolute(), self.folders[0]
        if path.is_dir() != of.is_tree or not path.exists():
            kind = "a folder" if of.is_tree else "a file"
            found = "does not exist" if not path.exists() else f"is {'a folder' if path.is_dir() else 'a file'}"
            raise ConfigError(f"{path} {found}; '{name}' is {kind}", f"mmtt weights show {name}")
        problems = prove(of, path)
        if problems:
            raise refused(of, path, problems, "nothing was taken in")
        record, home = _read(folder, name), folder / name
        if path == (home if of.is_tree else home / path.name):  # put there by hand
            now = digests(path, label=f"hash {name}")
            _unless_other(of, record, now, replace)
        else:
            now = _take(of, path, home, record, link=link, replace=replace)
        new = {
            "file": "" if of.is_tree else path.name,
            "identity": _identity(of, now),
            "files": now,
            "verified": _now(),
        }
        if accept and of.terms:
            new["accepted"] = _acceptance(of)
        _write(folder, name, {**record, **new})
        return self.find(name) if self.accepted(name) else self.look(name)


def prove(of: Entry, path: Path) -> list[str]:
    """What is wrong with a file or folder as this checkpoint, in words; looks into it and runs nothing of it.

    Raises:
        ConfigError: what opens such files is not installed.
    """
    try:
        check: Callable[[Entry, Path], list[str]] = CHECKS.get(of.kind)
        return check(of, path)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"checking '{of.name}' needs the package '{error.name}'", "pip install 'mmtt-build[models]'"
        ) from None


def refused(of: Entry, path: Path, problems: Sequence[str], what: str) -> WeightsError:
    """The error that lists what is wrong."""
    listed = "".join(f"\n  - {problem}" for problem in problems)
    return WeightsError(f"{path} cannot be used as '{of.name}' ({what}):{listed}", f"mmtt weights show {of.name}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _acceptance(of: Entry) -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        user = f"uid {os.getuid()}"
    return {"licence": of.licence, "terms": of.terms, "by": user, "at": _now()}


def _read(folder: Path, name: str) -> dict[str, Any]:
    file = folder / f"{name}.json"
    try:
        record = json.loads(file.read_text("utf-8"))
        files = record.get("files", {})
        if files and not (
            record["file"] + record["identity"] and all(f["sha256"] and f["size"] for f in files.values())
        ):
            raise ValueError
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise WeightsError(f"{file} is not a record", f"delete it and add '{name}' again") from None
    return record


def _write(folder: Path, name: str, record: Mapping[str, Any]) -> Path:
    from mmtt_build.store import write_file  # here: it loads pyarrow, which `mmtt weights list` need not wait for

    file = folder / f"{name}.json"
    write_file(file, json.dumps(record, indent=1).encode(), durable=True)
    return file


def _path(folder: Path, of: Entry, record: Mapping[str, Any]) -> Path:
    return folder / of.name if of.is_tree else folder / of.name / Path(record["file"]).name


def _stray(folder: Path, of: Entry) -> Path | None:
    """Something under the checkpoint's name that no record speaks of."""
    if of.is_tree:
        return folder / of.name if (folder / of.name).is_dir() else None
    return next((p for f in of.files for p in (folder / of.name / f, folder / f) if p.is_file()), None)


def _touched(path: Path, recorded: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether any size or time differs from the record."""
    now = {name: (stat.st_size, stat.st_mtime_ns) for name, file in members(path) for stat in [file.stat()]}
    return now != {name: (of["size"], of["mtime_ns"]) for name, of in recorded.items()}


def _unless_other(of: Entry, record: Mapping[str, Any], now: Mapping[str, Mapping[str, Any]], replace: bool) -> None:
    """Refuses a content that differs from the recorded one."""
    was, identity = record.get("identity"), _identity(of, now)
    if was and was != identity and not replace:
        raise WeightsError(
            f"'{of.name}' was added with another content\n  sha256 then {was}\n  sha256 now  {identity}",
            "if the new one is meant, say --replace; rows that were made with the old one keep its digest",
        )


def _identity(of: Entry, now: Mapping[str, Mapping[str, Any]]) -> str:
    if not of.is_tree:
        return str(now["."]["sha256"])
    lines = "".join(f"{file['sha256']}  {name}\n" for name, file in sorted(now.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _take(
    of: Entry, path: Path, home: Path, record: Mapping[str, Any], *, link: bool, replace: bool
) -> dict[str, dict[str, Any]]:
    """Copies or links a checkpoint to `home`, its folder in a weights folder, by one rename."""
    folder = home.parent
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder, of.name)
    temporary = folder / f".tmp-{of.name}-{secrets.token_hex(4)}"
    inside = temporary if of.is_tree else temporary / path.name
    try:
        if link:
            inside.parent.mkdir(exist_ok=True)
            inside.symlink_to(path.resolve(), target_is_directory=of.is_tree)
            now = digests(inside, label=f"hash {of.name}")
        else:
            size = sum(file.stat().st_size for _, file in members(path))
            free = shutil.disk_usage(folder).free
            if size > free:
                raise WeightsError(
                    f"{path} takes {size / 1e9:,.1f} GB, and {folder} has {free / 1e9:,.1f} GB left",
                    "free some space, name another folder with --weights-dir, or use --link to leave it where it is",
                )
            temporary.mkdir()
            now = digests(path, inside, label=f"copy {of.name}")
        _unless_other(of, record, now, replace)
        # Where a folder is there already it steps aside first: a rename cannot replace a folder that is not empty.
        if home.is_symlink() or home.exists():
            home.rename(folder / f".tmp-{of.name}-{secrets.token_hex(4)}-old")
        temporary.rename(home)
    finally:
        for leftover in (temporary, *folder.glob(f".tmp-{of.name}-*-old")):
            _remove(leftover)
    return now


def _sweep(folder: Path, name: str) -> None:
    """Removes copies that were killed long ago; a younger one may be another process at work."""
    for leftover in folder.glob(f".tmp-{name}-*"):
        newest = max((p.lstat().st_mtime for p in (leftover, *leftover.rglob("*"))), default=0.0)
        if time.time() - newest > STALE_S:
            _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path, ignore_errors=True)
