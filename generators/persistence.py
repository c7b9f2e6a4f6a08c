"""Reads the pickles that NVIDIA's training code writes (StyleGAN2-ADA and what is built on it, such as MAT).

Such a file is a plain pickle of whole networks, each with the source text of its class. The code that belongs to it
executes that text, and unpacks every tensor by a second, unrestricted `torch.load`. Here nothing of a file is called
or imported: a small pickle machine of our own understands only the instructions that data needs, and each name of
an exact list stands for a function of this module that checks what it is given. Any other name is refused.

The work is bounded by the file's size: no instruction allocates more than it carries, their number is limited, storages
stay in the mapped file until a wanted tensor is copied, and no tensor is larger than its storage. No torch at import.
"""

from __future__ import annotations

import io
import math
import mmap
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from mmtt_build.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

MOST_STEPS = 2_000_000
"""Pickle instructions in a file. One of three MAT networks has about 100,000."""

DEEPEST = 32
"""Modules inside each other. MAT nests eight."""

HEADER_BYTES = 4096
"""Within which the five pickles before a storage's data end; torch writes about 300 bytes."""

STORAGES = {
    "torch FloatStorage": ("float32", 4), "torch DoubleStorage": ("float64", 8), "torch HalfStorage": ("float16", 2),
    "torch BFloat16Storage": ("bfloat16", 2), "torch LongStorage": ("int64", 8), "torch IntStorage": ("int32", 4),
    "torch ShortStorage": ("int16", 2), "torch CharStorage": ("int8", 1), "torch ByteStorage": ("uint8", 1),
    "torch BoolStorage": ("bool", 1),
}  # fmt: skip
"""Class of a storage -> name of its torch dtype, bytes per value."""

SCALARS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "<?"}
"""NumPy's code of a scalar -> how struct reads it."""

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""What opens a storage, by torch/serialization.py."""


class _RefusedError(Exception):
    """The file asks for what a reader of tensors does not do."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A global of the list, as a value: "module name"."""

    text: str


@dataclass(eq=False, slots=True)
class _Module:
    """A network or a layer: its attributes as stored, nothing of its class."""

    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Dtype:
    code: str


@dataclass(frozen=True, eq=False, slots=True)
class _Storage:
    """Values of one type (a torch dtype's name), still in the file."""

    dtype: str
    numel: int
    data: memoryview


@dataclass(frozen=True, eq=False, slots=True)
class _Tensor:
    """A view into a storage that lies inside it and shows no value twice; counts in values."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read(path: Path, network: str = "G_ema") -> dict[str, Tensor]:
    """The state dict of one network in such a file, in the order of its modules, on the CPU.

    Args:
        path: the pickle.
        network: top-level key. "G_ema" is the generator with averaged weights, the one that is meant to be used.

    Raises:
        WeightsError: it is damaged, another kind of pickle, or asks for more than tensors; none of it has been run.
    """
    safe = "get the file from its authors, or a copy of its generator's state dict saved as safetensors"
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # genops needs read, readline and tell only, which a map has
        top = _run(cast(IO[bytes], mapped), memoryview(mapped), NAMES, CALLS)
        if not isinstance(top, dict) or not isinstance(top.get(network), _Module):
            has = f"has {', '.join(map(str, top))}" if isinstance(top, dict) else f"is a {type(top).__name__}"
            raise _RefusedError(f"it has no network '{network}' (the file {has[:200]})")
        tensors = dict(_walk(top[network], "", set()))
        storages = {id(t.storage): t.storage for t in tensors.values()}
        if sum(len(storage.data) for storage in storages.values()) > len(mapped):
            raise _RefusedError("its storages take more than the file holds")
        flat = {key: _values(storage) for key, storage in storages.items()}
        return {n: flat[id(t.storage)].as_strided(t.size, t.stride, t.offset) for n, t in tensors.items()}
    except _RefusedError as error:
        raise WeightsError(f"{path} is refused: {error}. Nothing was run.", safe) from None
    except (ValueError, TypeError, LookupError, EOFError, AttributeError, ArithmeticError, struct.error) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise WeightsError(f"{path} is cut off or damaged: {what}", "download it again") from None


def _values(storage: _Storage) -> Tensor:
    import torch

    dtype = getattr(torch, storage.dtype)
    return torch.frombuffer(bytearray(storage.data), dtype=dtype) if storage.numel else torch.empty(0, dtype=dtype)


def _walk(module: _Module, prefix: str, seen: set[int], depth: int = 0) -> Iterator[tuple[str, _Tensor]]:
    """Tensors of a module by name: its own, then its children's, as torch orders a state dict."""
    if depth > DEEPEST:
        raise _RefusedError(f"modules nest deeper than {DEEPEST}")
    if id(module) in seen:  # else a short file could spell out endless names
        raise _RefusedError(f"the module {prefix.rstrip('.') or 'at the top'} stands in two places")
    seen.add(id(module))
    parts = {key: module.state.get(key, {}) for key in ("_parameters", "_buffers", "_modules")}
    passing = module.state.get("_non_persistent_buffers_set", set())
    if not isinstance(passing, set) or not all(isinstance(part, dict) for part in parts.values()):
        raise _RefusedError(f"the module {prefix.rstrip('.')} is not built as torch builds one")
    for key, part in parts.items():
        for name, value in part.items():
            if not isinstance(name, str) or not name or "." in name:
                raise _RefusedError(f"{prefix}{name} is no name of a tensor or a module")
            if value is None or (key == "_buffers" and name in passing):
                continue
            wanted = _Module if key == "_modules" else _Tensor
            if not isinstance(value, wanted):
                raise _RefusedError(
                    f"{prefix}{name} is a {type(value).__name__.lstrip('_')}, not a {wanted.__name__[1:]}"
                )
            if isinstance(value, _Module):
                yield from _walk(value, f"{prefix}{name}.", seen, depth + 1)
            else:
                yield f"{prefix}{name}", value


# --- what the names of the list stand for ---------------------------------------------------------------------------


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _persistent(meta: Any) -> _Module:
    """A module with its source text, which is dropped."""
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise _RefusedError("a persistent object in it is no class with a state")
    return _Module(meta["state"])


def _storage(data: Any) -> _Storage:
    """A storage as torch wrote it before it wrote archives: five pickles, a count, the values."""
    if not isinstance(data, memoryview):
        raise _RefusedError("a storage in it is no bytes")
    stream = io.BytesIO(bytes(data[:HEADER_BYTES]))
    parts = [_run(stream, memoryview(stream.getbuffer()), STORAGE_NAMES, {}, ids=i == 3) for i in range(5)]
    magic, protocol, system, told, _ = parts
    if (
        magic != MAGIC
        or protocol != PROTOCOL
        or not isinstance(system, dict)
        or system.get("little_endian") is not True
    ):
        raise _RefusedError("a storage in it is not as torch writes it")
    match told:
        case ("storage", _Name(text), str(), str(), int(numel), None) if _is_count(numel):
            dtype, width = STORAGES[text]
        case _:
            raise _RefusedError("a storage in it is not as torch writes it")
    start = stream.tell() + 8
    if data[start - 8 : start] != numel.to_bytes(8, "little") or len(data) != start + numel * width:
        raise _RefusedError(f"a storage in it has {len(data) - start} bytes, not {numel} values of {dtype}")
    return _Storage(dtype, numel, data[start:])


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    """Raises unless the view is inside the storage; `as_strided` alone would not mind what lies beyond a copy."""
    if not (isinstance(storage, _Storage) and isinstance(size, tuple) and isinstance(stride, tuple)):
        raise _RefusedError("a tensor in it is not as torch writes it")
    if not (_is_count(offset) and all(map(_is_count, (*size, *stride))) and len(size) == len(stride) <= 8):
        raise _RefusedError("a tensor in it has an offset, a size or a stride that is no count")
    numel = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if numel else offset - 1
    if numel > storage.numel or last >= storage.numel or max((numel, last, *size, *stride)) >= 1 << 40:
        raise _RefusedError(
            f"a tensor in it, offset {offset}, size {size}, stride {stride}, reaches outside its {storage.numel} values"
        )
    return _Tensor(storage, offset, size, stride)


def _parameter(tensor: Any, *_: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise _RefusedError("a parameter in it is no tensor")
    return tensor


def _dtype(code: Any, align: Any = False, copy: Any = True) -> _Dtype:
    if not isinstance(code, str) or code not in SCALARS or align is not False or copy is not True:
        raise _RefusedError(f"it holds NumPy values of the type {code if isinstance(code, str) else '?'}")
    return _Dtype(code)


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(data, memoryview):
        raise _RefusedError("a NumPy value in it is not as NumPy writes it")
    return struct.unpack(SCALARS[dtype.code], data)[0]


def _set(items: Any = ()) -> set[str]:
    """Few, for a list that is stored once may be asked to become a set often."""
    if not isinstance(items, tuple | list) or len(items) > 64 or not all(isinstance(item, str) for item in items):
        raise _RefusedError("a set in it holds other things than a few names")
    return set(items)


def _dict() -> dict[Any, Any]:
    return {}


CALLS: Mapping[str, Callable[..., Any]] = {
    "torch_utils.persistence _reconstruct_persistent_obj": _persistent,
    "torch.storage _load_from_bytes": _storage,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "collections OrderedDict": _dict,
    "builtins set": _set,
    "__builtin__ set": _set,
    "numpy dtype": _dtype,
    "numpy.core.multiarray scalar": _scalar,
    "numpy._core.multiarray scalar": _scalar,
}
"""Functions that such files name, and ours in their place."""

CLASSES: Mapping[str, Callable[[], Any]] = {
    "dnnlib.util EasyDict": _dict,
    "torch.nn.modules.container ModuleList": _Module,
    "torch.nn.modules.container Sequential": _Module,
    "torch.nn.modules.pooling AdaptiveAvgPool2d": _Module,
    "torch.nn.modules.activation Softmax": _Module,
    "torch.nn.modules.activation GELU": _Module,
    "torch.nn.modules.normalization LayerNorm": _Module,
}
"""Classes that such files make objects of without a call, and what stands for such an object here."""

NAMES = {*CALLS, *CLASSES}
STORAGE_NAMES = {*STORAGES}


# --- the pickle machine ---------------------------------------------------------------------------------------------


def _run(
    stream: IO[bytes], view: memoryview, names: set[str], calls: Mapping[str, Callable[..., Any]], ids: bool = False
) -> Any:
    """What one pickle holds.

    Args:
        stream: stands at its beginning, and after it on return.
        view: of the whole stream's bytes; byte strings become slices of it, so that storages are not copied.
        names: globals that may occur.
        calls: what stands for those that may be called.
        ids: allow a persistent id, whose value is the id itself.

    Raises:
        _RefusedError: an instruction or a name that is not allowed.
        Exception: the pickle is damaged; see `read`.
    """
    stack: list[Any] = []
    below: list[list[Any]] = []  # what lies under each mark
    memo: dict[int, Any] = {}
    argument: Any
    position: Any  # None only of streams that cannot tell

    def name(text: str) -> _Name:
        if text not in names:
            raise _RefusedError(f"loading it would call {text.replace(' ', '.')[:200]}")
        return _Name(text)

    for step, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
        if step > MOST_STEPS:
            raise _RefusedError(f"it has more than {MOST_STEPS:,} instructions")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                start = position + {"BINBYTES": 5, "SHORT_BINBYTES": 2, "BINBYTES8": 9}[opcode.name]
                stack.append(view[start : start + len(argument)])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_SET":
                stack.append(set())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(opcode.name[-1]))]
                stack.append(tuple(reversed(items)))
            case "MARK":
                below.append(stack)
                stack = []
            case "TUPLE":
                items, stack = stack, below.pop()
                stack.append(tuple(items))
            case "APPEND":
                _extend(stack[-2], [stack.pop()])
            case "APPENDS" | "ADDITEMS" | "SETITEMS":
                items, stack = stack, below.pop()
                _extend(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _extend(stack[-1], [key, value])
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(name(argument))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(name(f"{module} {attribute}"))
            case "REDUCE":
                arguments, called = stack.pop(), stack.pop()
                if not isinstance(called, _Name) or called.text not in calls or not isinstance(arguments, tuple):
                    raise _RefusedError(f"loading it would call {_called(called)}")
                stack.append(calls[called.text](*arguments))
            case "NEWOBJ":
                arguments, called = stack.pop(), stack.pop()
                if not isinstance(called, _Name) or called.text not in CLASSES or arguments != ():
                    raise _RefusedError(f"loading it would make an object of {_called(called)}")
                stack.append(CLASSES[called.text]())
            case "BUILD":
                state = stack.pop()
                _build(stack[-1], state)
            case "BINPERSID" if ids:
                stack.append(stack.pop())
            case other:
                raise _RefusedError(f"it has the pickle instruction {other}, which no network needs")
    raise EOFError("no end")


def _called(value: Any) -> str:
    return value.text.replace(" ", ".") if isinstance(value, _Name) else f"a {type(value).__name__.lstrip('_')}"


def _extend(target: Any, items: list[Any]) -> None:
    """Puts items into a list, a set or (as keys and values in turn) a dict. Keys stay flat: hashing follows nesting."""
    if type(target) is list:
        target.extend(items)
    elif type(target) is set:
        target |= _set(items)
    elif type(target) is dict:
        keys = items[::2]
        if not all(type(key) in (str, int) for key in keys):
            raise _RefusedError("a table in it has keys that are neither names nor numbers")
        target.update(zip(keys, items[1::2], strict=True))
    else:
        raise _RefusedError(f"it puts items into a {type(target).__name__.lstrip('_')}")


def _build(target: Any, state: Any) -> None:
    """Gives an object its state. Only stores it: nothing is set on any Python object."""
    if isinstance(target, _Module) and not target.state and isinstance(state, dict):
        target.state = state
    elif isinstance(target, _Dtype) and state in [(3, order, None, None, None, -1, -1, 0) for order in "<|"]:
        pass  # byte order and nothing else
    else:
        raise _RefusedError(f"it sets the state of {_called(target)} to a {type(state).__name__.lstrip('_')}")
