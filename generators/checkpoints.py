"""Reads checkpoints without running anything of them, and proves them against the network they claim to be.

Files are told apart by their first bytes, not by their names. Pickles are read with `weights_only=True`, which builds
tensors and plain containers and calls nothing else; what needs more is refused with the name of what it asked for.
"""

from __future__ import annotations

import difflib
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators import persistence
from mmtt_build.errors import WeightsError
from mmtt_build.weights import Entry, Found

if TYPE_CHECKING:
    from torch import Tensor, nn

    StateDict = Mapping[str, Tensor]

MOST_SHOWN = 12
TORCH_MAGIC = persistence.MAGIC.to_bytes(10, "little")
AGAIN = "download it again"
SAFE_COPY = "get the file from its authors, or a copy saved as safetensors or as a plain state dict"
DAMAGE = (
    RuntimeError, MemoryError, EOFError, OSError, LookupError, ArithmeticError, ValueError, TypeError, AttributeError,
    AssertionError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What torch lets through when bytes are not what they should be."""


def read(path: Path) -> Any:
    """What a torch or safetensors file holds, on the CPU, mapped from the disk where the format allows it.

    Of a pickle as NVIDIA's training code writes it: the state dict of its averaged generator, see `persistence`.

    Raises:
        WeightsError: it is damaged, something else, or would run code; none of it has been run.
    """
    kind = _kind(path)
    if kind == "safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise WeightsError(f"{path} is no whole safetensors file: {error}", AGAIN) from None
    if kind == "plain pickle":
        return persistence.read(path)
    import torch

    if kind == "zip":
        _check_zip(path)
    try:
        with warnings.catch_warnings():  # of pickle protocols that torch itself would not write
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "zip")
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        wanted = [named[1]] if named else sorted(set(_globals(path, kind)))
        if wanted:
            raise WeightsError(
                f"{path} is refused: loading it would call {', '.join(wanted[:5])}. Nothing was run.", SAFE_COPY
            ) from None
        raise WeightsError(f"{path} is no checkpoint that torch wrote, or is damaged", AGAIN) from None
    except DAMAGE as error:
        raise WeightsError(f"{path} is cut off or damaged: {_first_line(error)}", AGAIN) from None


def read_tensors(
    path: Path, state: str | Sequence[str] = "", prefix: str = "", beside: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The state dict in a file.

    Args:
        path: a torch or safetensors file.
        state: top-level key that holds it; "" if the file is the state dict. A file of tensors alone always is. Of
            several keys, each state dict's names get its key and a dot before them.
        prefix: taken off the front of the names that have it.
        beside: tensors of the top level that belong to the network, too.

    Raises:
        WeightsError: as `read`, or there is no state dict where one is expected.
    """
    return _tensors(read(path), path, state, prefix, beside)


def read_folder(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of several files: one that a file holds alone is called as the file, without its ending.

    Args:
        path: the folder.
        names: of the files, relative to it.

    Raises:
        WeightsError: one is not there; as `read_tensors`.
    """
    import torch

    found: dict[str, Tensor] = {}
    for file in map(path.joinpath, names):
        if not file.is_file():
            raise WeightsError(f"{path} has no {file.relative_to(path)}", "add the folder that holds all files")
        held = read(file)
        found |= _tensors({file.stem: held} if isinstance(held, torch.Tensor) else held, file, "", "")
    return found


def prove(state: StateDict, network: nn.Module) -> list[str]:
    """What keeps a state dict from being this network's: names, shapes, dtypes; [] if it is.

    Args:
        state: tensors by name.
        network: may be on the meta device; no forward pass is made.
    """
    wanted = network.state_dict()
    missing, extra = [n for n in wanted if n not in state], [n for n in state if n not in wanted]
    common = [n for n in wanted if n in state]
    if len(common) < len(wanted) / 2:
        seen = f"it has {', '.join(list(state)[:3])}, ..." if state else "it is empty"
        return [
            f"another network: {len(common)} of the {len(wanted)} tensors of {type(network).__name__} are there; {seen}"
        ]
    problems = []
    for name in missing:
        near = difflib.get_close_matches(name, extra, 1, 0.8)
        problems.append(f"missing: {name}" + (f" (renamed to {near[0]}?)" if near else ""))
    problems += [f"not of this network: {name}" for name in extra]
    problems += [
        f"shape: {name} is {tuple(state[name].shape)}, needed is {tuple(wanted[name].shape)}"
        for name in common
        if state[name].shape != wanted[name].shape
    ]
    types = Counter((str(state[n].dtype), str(wanted[n].dtype)) for n in common if state[n].dtype != wanted[n].dtype)
    problems += [
        f"dtype: {n} of {len(common)} tensors are {got.removeprefix('torch.')}, needed is {need.removeprefix('torch.')}"
        for (got, need), n in types.items()
    ]
    return _shortened(problems)


def load_strict(network: nn.Module, state: StateDict, path: Path) -> None:
    """Puts a state dict into its network; a network on the meta device takes the tensors as its own.

    Args:
        network: changed in place. On the meta device it must keep no buffer outside its state dict.
        state: as `read_tensors` returns it.
        path: for the error's text.

    Raises:
        WeightsError: names, shapes or dtypes differ.
    """
    problems = prove(state, network)
    if problems:
        raise WeightsError(f"{path} is not what {type(network).__name__} needs:{_listed(problems)}", SAFE_COPY)
    network.load_state_dict(state, strict=True, assign=any(tensor.is_meta for tensor in network.state_dict().values()))
    left = [name for name, tensor in (*network.named_parameters(), *network.named_buffers()) if tensor.is_meta]
    if left:
        raise ValueError(f"build {type(network).__name__} off the meta device: {left[0]} is not in its state dict")


def load_found(network: nn.Module, found: Found) -> None:
    """Loads a checkpoint of the catalogue into its network, strictly; see `load_strict`.

    Raises:
        WeightsError: as `read_tensors`, `read_folder` and `load_strict`.
    """
    _put(_state(found), network, found)


def load(found: Found, device: str) -> Any:
    """The network that the catalogue names for a checkpoint, with its weights, ready to answer on a device.

    Raises:
        WeightsError: as `load_found`.
    """
    state = _state(found)
    network = _network(found.entry, state)
    _put(state, network, found)
    return network.eval().requires_grad_(False).to(device)


def _state(found: Found) -> dict[str, Tensor]:
    of = found.entry
    if of.kind == "tensors":
        return read_folder(found.path, of.keys)
    return read_tensors(found.path, of.state, of.prefix, of.beside)


def _put(state: StateDict, network: nn.Module, found: Found) -> None:
    # A folder of tensors may hold more than the network's.
    wanted = _wanted(state, network) if found.entry.kind == "tensors" else state
    load_strict(network, wanted, found.path)


def check_file(entry: Entry, path: Path) -> list[str]:
    """What keeps a file of tensors from being the catalogue's checkpoint; [] if it is."""
    try:
        outer = read(path)
        problems = _check_keys(entry, outer)
        if problems or not entry.network:
            return problems
        state = _tensors(outer, path, entry.state, entry.prefix, entry.beside)
    except WeightsError as error:
        return [f"{error.message} ({error.remedy})"]
    return prove(state, _network(entry, state))


def check_tensors(entry: Entry, path: Path) -> list[str]:
    """What keeps a folder from holding the files of tensors of the catalogue; [] if nothing. More in it is no harm."""
    try:
        state = read_folder(path, entry.keys)
    except WeightsError as error:
        return [f"{error.message} ({error.remedy})"]
    network = _network(entry, state)
    return prove(_wanted(state, network), network)


def provable(entry: Entry) -> bool:
    """Whether this version has the network that the strict check of a file needs."""
    return entry.kind != "file" or bool(entry.network and find_spec(entry.network.partition(":")[0]))


def check_lora(entry: Entry, path: Path) -> list[str]:
    """What keeps a file from being a LoRA: every name a pair of matrices of one rank, or its scale."""
    try:
        state = read_tensors(path)
    except WeightsError as error:
        return [f"{error.message} ({error.remedy})"]
    halves = (("lora_down", "lora_up"), ("lora_A", "lora_B"), ("lora.down", "lora.up"))
    problems = []
    for name, tensor in state.items():
        down = next((pair for pair in halves if pair[0] in name), None)
        if down:
            up = state.get(name.replace(*down))
            if up is None or min(up.ndim, tensor.ndim) < 2:
                problems.append(f"{name} has no counterpart {name.replace(*down)}")
            elif up.shape[1] != tensor.shape[0]:
                problems.append(f"ranks differ: {name} {tuple(tensor.shape)}, its counterpart {tuple(up.shape)}")
        elif not name.endswith("alpha") and not any(pair[1] in name for pair in halves):
            problems.append(f"not of a LoRA: {name}")
    return _shortened(problems or ([] if state else ["it is empty"]))


def check_array(entry: Entry, path: Path) -> list[str]:
    """What keeps a file from being the NumPy array of the catalogue."""
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        return [f"no NumPy array that can be read without running code: {_first_line(error)}"]
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return ["holds no floating-point array"]
    allowed = [sizes if isinstance(sizes, list) else [sizes] for sizes in entry.shape]
    if array.ndim != len(allowed) or any(n not in sizes for n, sizes in zip(array.shape, allowed, strict=True)):
        needed = " x ".join(" or ".join(map(str, sizes)) for sizes in allowed)
        return [f"shape is {array.shape}, needed is {needed}"]
    return []


def _kind(path: Path) -> str:
    """What a file is by its first bytes: "zip", "pickle" (torch without an archive), "plain pickle", "safetensors".

    Raises:
        WeightsError: anything else; the text says what it looks like.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise WeightsError(f"{path} is empty", AGAIN)
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a Git LFS pointer, not the file it stands for", "git lfs pull")
    if re.match(rb"\s*(<!doctype html|<html|<\?xml)", head, re.IGNORECASE):
        raise WeightsError(
            f"{path} is a web page, not a checkpoint: the download ended at a login or a confirmation page",
            "open the address in a browser and save what it offers",
        )
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    length = int.from_bytes(head[:8], "little")
    if len(head) > 8 and head[8:9] == b"{" and length < 1 << 30:
        if length + 8 > path.stat().st_size:
            raise WeightsError(f"{path} is cut off: its header alone is {length:,} bytes", AGAIN)
        return "safetensors"
    if head.startswith(b"\x80"):
        return "pickle" if TORCH_MAGIC in head[:32] else "plain pickle"
    raise WeightsError(f"{path} is no checkpoint: it begins with {head[:12]!r}", AGAIN)


def _check_zip(path: Path) -> None:
    """Refuses archives that torch does not write, before it unpacks anything."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except DAMAGE:
        raise WeightsError(f"{path} ({path.stat().st_size:,} bytes) is cut off or damaged", AGAIN) from None
    if not any(member.filename.endswith("data.pkl") for member in members):
        names = ", ".join(member.filename for member in members[:3])
        raise WeightsError(f"{path} is a zip archive with {names}, not a checkpoint", "unpack it and add what is in it")
    packed = next((m.filename for m in members if m.compress_type != zipfile.ZIP_STORED), "")
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise WeightsError(f"{path} is refused: it unpacks to more than it holds, which torch never writes", SAFE_COPY)


def _globals(path: Path, kind: str) -> Iterator[str]:
    """Names that a pickle asks for, read from its opcodes; nothing is loaded."""
    try:
        if kind == "zip":
            with zipfile.ZipFile(path) as archive:
                data = archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
        else:
            data = path.read_bytes()
        strings: list[str] = []
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            elif isinstance(argument, str):
                strings.append(argument)
    except (*DAMAGE, StopIteration):
        return


def _network(entry: Entry, state: StateDict) -> nn.Module:
    """The network that the catalogue names, on the meta device."""
    import torch

    module, _, function = entry.network.partition(":")
    build = getattr(import_module(module), function)
    with torch.device("meta"):
        network: nn.Module = build(state) if signature(build).parameters else build()
    return network


def _wanted(state: StateDict, network: nn.Module) -> dict[str, Tensor]:
    return {name: state[name] for name in network.state_dict() if name in state}


def _tensors(
    outer: Any, path: Path, state: str | Sequence[str], prefix: str, beside: Sequence[str] = ()
) -> dict[str, Tensor]:
    import torch

    inner = outer
    if state and not (isinstance(outer, Mapping) and all(isinstance(value, torch.Tensor) for value in outer.values())):
        if isinstance(state, str):
            inner = outer.get(state) if isinstance(outer, Mapping) else None
        else:
            parts = {key: _tensors(outer, path, key, prefix) for key in state}
            inner = {f"{key}.{name}": value for key, part in parts.items() for name, value in part.items()}
    if not isinstance(inner, Mapping):
        where = f"no '{state}'" if state else f"a {type(outer).__name__}"
        raise WeightsError(f"{path} holds {where}, not a state dict", SAFE_COPY)
    inner = {**inner, **{name: outer[name] for name in beside if name in outer}}
    for name, value in inner.items():
        if not isinstance(value, torch.Tensor) or value.is_meta or value.layout != torch.strided:
            raise WeightsError(f"{path}: '{name}' is a {type(value).__name__}, not a tensor with data", SAFE_COPY)
    return {str(name).removeprefix(prefix): value for name, value in inner.items()}


def _check_keys(entry: Entry, outer: Any) -> list[str]:
    if not isinstance(outer, Mapping):
        return [f"holds a {type(outer).__name__}, not a table of tensors"]
    if not outer:
        return ["it is empty"]
    top = {str(key).split(".")[0] for key in outer}
    missing = [key for key in entry.keys if key not in top]
    shown = ", ".join(sorted(top)[:8]) + (", ..." if len(top) > 8 else "")
    return [f"top level lacks {', '.join(missing)}; it has {shown}"] if missing else []


def _shortened(problems: Sequence[str]) -> list[str]:
    more = len(problems) - MOST_SHOWN
    return [*problems[:MOST_SHOWN], *([f"... and {more} more"] if more > 0 else [])]


def _listed(problems: Sequence[str]) -> str:
    return "".join(f"\n  - {problem}" for problem in problems)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
