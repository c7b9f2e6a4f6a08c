"""The reader of NVIDIA's pickles: whole files, and every way in which one may try to be more than data."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import re
import sys
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from persistent_files import checkpoint, dump, modules
from torch import nn

from generators import checkpoints, persistence
from mmtt_build.errors import WeightsError

torch.set_num_threads(1)
PROTOCOLS = pytest.mark.parametrize("protocol", [3, 4, 5])


class Layer(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, 2 * size))
        self.register_parameter("bias", None)
        self.register_buffer("filter", torch.arange(size).half())
        self.register_buffer("passing", torch.zeros(3), persistent=False)


class Net(nn.Module):
    """Own and stock modules, a shared buffer, a scalar, a view of a larger storage."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = Layer(3)
        self.blocks = nn.ModuleList([Layer(2), nn.Sequential(Layer(4), nn.AdaptiveAvgPool2d(1)), nn.Softmax(-1)])
        self.strength = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("turned", torch.randn(4, 5).T)
        self.register_buffer("part", torch.randn(100)[7:15].view(2, 4))
        self.register_buffer("none", torch.zeros(0, 3, dtype=torch.int64))
        self.register_buffer("same", self.part)


class Calls:
    """Pickled as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes], str]:
    """Says why a file is refused; nothing must appear beside it."""

    def why(content: bytes) -> str:
        file = tmp_path / "net.pkl"
        file.write_bytes(content)
        with pytest.raises(WeightsError) as error:
            persistence.read(file)
        assert [p.name for p in tmp_path.iterdir()] == ["net.pkl"]
        return error.value.message.removeprefix(f"{file} is ")

    return why


def refused_in(top: Callable[[bytes], str], thing: Any, protocol: int = 3) -> str:
    """Why a file is refused that is whole but for one attribute of its generator."""
    net = Net()
    vars(net)["odd"] = thing
    return top(dump(checkpoint(net), protocol=protocol))


# --- whole files ------------------------------------------------------------------------------------------------------


@PROTOCOLS
def test_all_tensors_come_back_bit_equal_and_the_source_is_not_run(tmp_path: Path, protocol: int) -> None:
    file, marker, net = tmp_path / "net.pkl", tmp_path / "ran", Net()
    other = Net(1)
    other.turned = net.turned
    source = f"open({str(marker)!r}, 'w').close()"
    file.write_bytes(dump({"G": other, **checkpoint(net)}, source, protocol))
    for read in (persistence.read, checkpoints.read, checkpoints.read_tensors):
        state = read(file)
        assert list(state) == list(net.state_dict())
        for name, tensor in net.state_dict().items():
            assert state[name].dtype == tensor.dtype
            assert torch.equal(state[name], tensor), name
    assert persistence.read(file, "G")["first.weight"].equal(other.first.weight)
    assert not marker.exists()
    with modules():
        pickle.loads(file.read_bytes())  # the file's own code would have
    assert marker.exists()


def test_only_wanted_tensors_are_copied(tmp_path: Path) -> None:
    (tmp_path / "net.pkl").write_bytes(dump({"D": nn.Linear(1000, 2000), "D2": Layer(1000), **checkpoint(Net())}))
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=r"would make an object of torch\.nn\.modules\.linear\.Linear|call"):
            persistence.read(tmp_path / "net.pkl")
        (tmp_path / "net.pkl").write_bytes(dump({"D": Layer(1500), **checkpoint(Net())}))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        persistence.read(tmp_path / "net.pkl")
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # one copy of the largest string while it is stepped over, and the header of each storage
    assert peak < 1.2 * 4 * 2 * 1500**2 + 2_000_000


@pytest.mark.shared
def test_the_sample_gives_all_its_tensors(shared: Path) -> None:
    rows = json.loads((shared / "reference/mat_persistence_sample.json").read_text())["G_ema"]["tensors"]
    state = checkpoints.read(shared / "reference/mat_persistence_sample.pkl")
    assert [row["name"] for row in rows] == list(state)
    for row in rows:
        array = state[row["name"]].contiguous().numpy()
        assert (list(array.shape), array.dtype) == (row["shape"], np.dtype(row["dtype"]))
        assert hashlib.sha256(array.tobytes()).hexdigest().startswith(row["sha256"])


# --- names ------------------------------------------------------------------------------------------------------------

SWAPS = [b"posix\nsystem", b"builtins\neval", b"builtins\ngetattr", b"builtins\n__import__", b"os\nsystem"]


@pytest.mark.parametrize("name", SWAPS)
def test_a_swapped_name_is_refused(refused: Callable[[bytes], str], name: bytes) -> None:
    whole = dump(checkpoint(Net()))
    assert whole.count(b"cbuiltins\nset\n") == 1
    told = refused(whole.replace(b"cbuiltins\nset\n", b"c" + name + b"\n"))
    assert told.startswith(f"refused: loading it would call {name.decode().replace(chr(10), '.')}. Nothing was run")


@pytest.mark.shared
@pytest.mark.parametrize("name", SWAPS)
def test_a_swapped_name_in_the_sample_is_refused(shared: Path, refused: Callable[[bytes], str], name: bytes) -> None:
    whole = (shared / "reference/mat_persistence_sample.pkl").read_bytes()
    assert whole.count(b"cbuiltins\nset\n") == 1
    assert "loading it would call" in refused(whole.replace(b"cbuiltins\nset\n", b"c" + name + b"\n"))


@PROTOCOLS
def test_calls_of_other_functions_are_refused(refused: Callable[[bytes], str], tmp_path: Path, protocol: int) -> None:
    for call in (
        Calls(os.mkdir, str(tmp_path / "made")), Calls(eval, "1"), Calls(getattr, nn.Softmax, "forward"),
        Calls(__import__, "os"), Calls(torch.load, "x"), Calls(pickle.loads, b"x"), Calls(np.load, "x"),
        Calls(np.frombuffer, b"1234"),
    ):  # fmt: skip
        assert "loading it would call " in refused_in(refused, call, protocol)


@pytest.mark.parametrize(
    "text",
    ["torch.nn.modules.container torch.os.system", "torch.nn.modules.container Sequential.forward",
     "torch._utils _import_dotted_name", "torch.nn.modules.linear Linear", "collections OrderedDict.fromkeys",
     "numpy load", "torch.storage UntypedStorage"],
)  # fmt: skip
def test_dotted_and_neighbouring_names_are_refused(refused: Callable[[bytes], str], text: str) -> None:
    module, name = text.split(" ")
    told = "refused: loading it would call " + text.replace(" ", ".")
    assert refused(b"\x80\x03c" + f"{module}\n{name}\n".encode() + b").").startswith(told)
    assert refused(b"\x80\x04" + short(module) + short(name) + b"\x93).").startswith(told)


def short(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"cdnnlib.util\nEasyDict\n)\x81}X\x01\x00\x00\x00aK\x01sb", "sets the state of a dict"),
        (b"ccollections\nOrderedDict\n)R}X\x09\x00\x00\x00__class__cbuiltins\nset\nsb", "sets the state of a dict"),
        (b"ccollections\nOrderedDict\n)RN}X\x09\x00\x00\x00__class__cbuiltins\nset\ns\x86b",
         "sets the state of a dict"),
        (b"ctorch.nn.modules.container\nSequential\n)\x81N}X\x01\x00\x00\x00aK\x01s\x86b", "a Module to a tuple"),
        (b"ctorch.nn.modules.container\nSequential\nN}X\x01\x00\x00\x00aK\x01s\x86b",
         "sets the state of torch.nn.modules.container.Sequential to a tuple"),
        (b"ctorch.nn.modules.container\nSequential\n)R", "would call torch.nn.modules.container.Sequential"),
        (b"cbuiltins\nset\n)\x81", "would make an object of builtins.set"),
        (b"cdnnlib.util\nEasyDict\nK\x01\x85\x81", "would make an object of dnnlib.util.EasyDict"),
        (b"}R", "instruction|damaged|cut off"), (b"})R", "would call a dict"),
        (b"cbuiltins\nset\n(\x85R", "cut off or damaged"),
        (b"cbuiltins\nset\n](K\x01e\x85R", "other things than a few names"),
        (b"cbuiltins\nset\n](" + 65 * b"X\x01\x00\x00\x00a" + b"e\x85R", "other things than a few names"),
        (b"}K\x01\x85K\x01s", "keys that are neither"), (b"K\x01K\x02a", "puts items into a int"),
        (b"Psomething\n", "PERSID"), (b"X\x01\x00\x00\x00aQ", "BINPERSID"), (b"\x82\x01", "EXT1"),
        (b"(ios\nsystem\n", "INST"), (b"(cbuiltins\nset\no", "OBJ"), (b"K\x012", "DUP"), (b"K\x010", "POP"),
        (b"I1\n", "INT"), (b"\x96" + (8).to_bytes(8, "little") + bytes(8), "BYTEARRAY8"), (b"\x97", "NEXT_BUFFER"),
        (b"cdnnlib.util\nEasyDict\n)}\x92", "NEWOBJ_EX"), (b"g9\n", "GET"), (b"K\x01r\xff\xff\xff\xff0", "POP"),
        (b"K\x01", "it has no network 'G_ema'"), (b"}X\x05\x00\x00\x00G_ema}s", "it has no network 'G_ema'"),
        (b"}X\x01\x00\x00\x00GNs", r"\(the file has G\)"), (b"", "cut off or damaged"),
        (b"h\x00", "cut off or damaged"),
        (b"B\xff\xff\xff\xff", "cut off or damaged"), (b"\x8e" + b"\xff" * 7 + b"\x7f", "cut off or damaged"),
        (b"X\x02\x00\x00\x00\xff\xff", "cut off or damaged"), (b"\x85", "cut off or damaged"),
    ],
)  # fmt: skip
def test_handmade_pickles_are_refused(refused: Callable[[bytes], str], body: bytes, told: str) -> None:
    found = refused(b"\x80\x03" + body + b".")
    assert re.search(told, found), found


def test_no_end_and_no_beginning_are_told(refused: Callable[[bytes], str]) -> None:
    whole = dump(checkpoint(Net()))
    for length in (1, 2, 3, 100, len(whole) // 2, len(whole) - 1):
        assert "cut off or damaged" in refused(whole[:length])


# --- storages ---------------------------------------------------------------------------------------------------------


def storage(
    *,
    magic: Any = persistence.MAGIC,
    protocol: Any = persistence.PROTOCOL,
    system: Any = None,
    told: Any = None,
    keys: Any = None,
    numel: int = 4,
    data: bytes = bytes(16),
) -> bytes:
    """The bytes of a storage of four floats, any part of it replaced."""

    class Ids(pickle.Pickler):
        def persistent_id(self, thing: Any) -> Any:
            return thing if isinstance(thing, tuple) else None

    out = io.BytesIO()
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}} if system is None else system
    told = ("storage", torch.FloatStorage, "1", "cuda:0", 4, None) if told is None else told
    for part in (magic, protocol, system, told, ["1"] if keys is None else keys):
        (Ids if part is told else pickle.Pickler)(out, 2).dump(part)
    return out.getvalue() + numel.to_bytes(8, "little") + data


def values(content: bytes) -> Calls:
    return Calls(torch.storage._load_from_bytes, content)


def test_a_storage_is_read_wherever_it_lay(tmp_path: Path) -> None:
    net = Net()
    vars(net)["odd"] = values(storage(data=np.arange(4, dtype=np.float32).tobytes()))
    (tmp_path / "net.pkl").write_bytes(dump(checkpoint(net)))
    assert len(persistence.read(tmp_path / "net.pkl")) == len(net.state_dict())


@pytest.mark.parametrize("place", ["whole", "magic", "protocol", "system", "told", "keys"])
@PROTOCOLS
def test_code_in_a_storage_is_refused(
    refused: Callable[[bytes], str], tmp_path: Path, place: str, protocol: int
) -> None:
    evil = Calls(os.mkdir, str(tmp_path / "made"))
    content = pickle.dumps(evil, 2) if place == "whole" else storage(**{place: evil})
    assert "loading it would call posix.mkdir" in refused_in(refused, values(content), protocol)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"magic": 1}, "not as torch"), ({"protocol": 1000}, "not as torch"), ({"system": []}, "not as torch"),
        ({"system": {"little_endian": False}}, "not as torch"), ({"numel": 5}, "not 4 values"),
        ({"data": b"1"}, "not 4 values"),
        ({"data": bytes(17)}, "17 bytes, not 4 values of float32"), ({"keys": pickle.PickleBuffer}, "would call"),
        ({"told": ("storage", torch.FloatStorage, "1", "cpu", -4, None)}, "not as torch"),
        ({"told": ("storage", torch.FloatStorage, "1", "cpu", 1 << 70, None)}, "damaged"),
        ({"told": ("storage", torch.FloatStorage, "1", "cpu", 4, ("2", 0, 4))}, "not as torch"),
        ({"told": ("module", torch.FloatStorage, "1", "cpu", 4, None)}, "not as torch"),
        ({"told": ("storage", "FloatStorage", "1", "cpu", 4, None)}, "not as torch"),
        ({"told": ("storage", torch.UntypedStorage, "1", "cpu", 4, None)}, "would call torch.storage.UntypedStorage"),
    ],
)  # fmt: skip
def test_a_storage_that_lies_is_refused(refused: Callable[[bytes], str], parts: dict[str, Any], told: str) -> None:
    assert told in refused_in(refused, values(storage(**parts)))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (1, (4,), (1,)), (0, (5,), (1,)), (0, (2, 2), (3, 1)), (4, (1,), (1,)), (-1, (2,), (1,)), (0, (-1,), (1,)),
        (0, (2,), (-1,)), (0, (1 << 62,), (0,)), (0, (1 << 30,), (0,)), (0, (2,), (1 << 62,)), (0, (8,), (0,)),
        (0, (2, 2), (1,)), (0, (1,) * 9, (1,) * 9), (0, (1 << 80,), (1,)), (0, (0, 1 << 62), (1, 1)),
        (True, (2,), (1,)),
        (0, (2.0,), (1,)), (0, [2], [1]), ("0", (2,), (1,)), (1 << 62, (0,), (1,)),
    ],
)  # fmt: skip
def test_a_tensor_outside_its_storage_is_refused(
    refused: Callable[[bytes], str], offset: Any, size: Any, stride: Any
) -> None:
    whole = values(storage())
    odd = Calls(torch._utils._rebuild_tensor_v2, whole, offset, size, stride, False, OrderedDict())
    assert "a tensor in it" in refused_in(refused, odd)


def test_what_a_tensor_is_made_of_is_looked_at(refused: Callable[[bytes], str]) -> None:
    tensor = Calls(torch._utils._rebuild_tensor_v2, b"1234", 0, (1,), (1,), False, OrderedDict())
    assert "not as torch writes it" in refused_in(refused, tensor)
    assert "is no tensor" in refused_in(refused, Calls(torch._utils._rebuild_parameter, [1], True, OrderedDict()))
    assert "is no bytes" in refused_in(refused, values("text"))  # type: ignore[arg-type]


def test_numpy_values_with_objects_are_refused(refused: Callable[[bytes], str], tmp_path: Path) -> None:
    scalar = np.float64(1).__reduce__()[0]
    evil = pickle.dumps(Calls(os.mkdir, str(tmp_path / "made")))
    assert "NumPy values of the type O8" in refused_in(refused, Calls(scalar, np.dtype("O"), evil))
    assert "NumPy values of the type V8" in refused_in(refused, Calls(scalar, np.dtype([("a", "O")]), evil))
    assert "damaged" in refused_in(refused, Calls(scalar, np.dtype("f8"), b"123"))
    assert "not as NumPy" in refused_in(refused, Calls(scalar, "f8", b"12345678"))


# --- modules ----------------------------------------------------------------------------------------------------------


def changed(change: Callable[[Net], Any]) -> bytes:
    net = Net()
    top = checkpoint(net)
    change(net)
    return dump(top)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda n: n._buffers.update(part=1.0), "part is a float, not a Tensor"),
        (lambda n: n.first._parameters.update(weight=[1]), "first.weight is a list, not a Tensor"),
        (lambda n: n._parameters.update(first=n.blocks), "first is a Module, not a Tensor"),
        (lambda n: n.blocks._modules.update({"1": torch.ones(1)}), "blocks.1 is a Tensor, not a Module"),
        (lambda n: n._buffers.update({"a.b": n.turned}), "a.b is no name"),
        (lambda n: n._buffers.update({1: n.turned}), "1 is no name"),
        (lambda n: n.__dict__.update(_buffers=[1]), "not built as torch"),
        (lambda n: n.__dict__.update(_non_persistent_buffers_set=[1]), "not built as torch"),
        (lambda n: n.first._modules.update(again=n), "the pickle instruction POP"),
        (lambda n: n.blocks[1]._modules.update(again=n.blocks), "blocks.1.again stands in two places"),
        (lambda n: n._modules.update(again=n.first), "stands in two places"),
    ],
)  # fmt: skip
def test_a_network_not_built_as_torch_builds_one_is_refused(
    refused: Callable[[bytes], str], change: Callable[[Net], Any], told: str
) -> None:
    assert told in refused(changed(change))


def test_a_persistent_object_has_a_state(refused: Callable[[bytes], str]) -> None:
    whole = dump(checkpoint(Net()))
    for old, new in (
        (b"X\x05\x00\x00\x00class", b"X\x05\x00\x00\x00clas_"),
        (b"X\x05\x00\x00\x00state", b"X\x05\x00\x00\x00stat_"),
    ):
        assert whole.count(old) == 1
        assert "no class with a state" in refused(whole.replace(old, new))


def test_another_class_name_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "net.pkl").write_bytes(
        dump(checkpoint(Net())).replace(b"X\x05\x00\x00\x00Layer", b"X\x05\x00\x00\x00popen")
    )
    assert len(persistence.read(tmp_path / "net.pkl")) == len(Net().state_dict())


def test_nesting_and_length_are_bounded(refused: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch) -> None:
    deep: nn.Module = Layer(1)
    for _ in range(40):
        deep = nn.Sequential(deep)
    assert "nest deeper than 32" in refused(dump({"G_ema": deep}))
    many = 100_000  # inside each other, where Python itself would run out of stack
    tuples, lists = b")" + b"\x85" * many, b"]" * many + b"a" * (many - 1)
    for body in (
        tuples, lists, b"}" + tuples + b"K\x01s", b"cbuiltins\nset\n" + tuples + b"\x85R",
        b"cnumpy\ndtype\n" + tuples + b"\x89\x88\x87R", b"ctorch.storage\n_load_from_bytes\n" + tuples + b"\x85R",
        b"ctorch._utils\n_rebuild_tensor\n(" + tuples + b"))))tR",
    ):  # fmt: skip
        assert refused(b"\x80\x03" + body + b".")
    monkeypatch.setattr(persistence, "MOST_STEPS", 1000)
    assert "more than 1,000 instructions" in refused(b"\x80\x03" + b"]" * 2000 + b".")


def test_bytes_stored_once_are_not_copied_often(refused: Callable[[bytes], str]) -> None:
    """A file may name the same bytes as the storage of each of many tensors."""
    state = nn.Softmax(0)
    content = storage(told=("storage", torch.FloatStorage, "1", "cpu", 5000, None), numel=5000, data=bytes(20_000))
    for i in range(50):
        state._buffers[f"b{i}"] = Calls(torch._utils._rebuild_tensor, values(content), 0, (5000,), (1,))  # type: ignore[assignment]
    assert "take more than the file holds" in refused(dump({"G_ema": state}))


def test_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    file, draw, whole = tmp_path / "net.pkl", random.Random(0), dump(checkpoint(Net()))
    refusals = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        file.write_bytes(damaged)
        try:
            persistence.read(file)
        except WeightsError:
            refusals += 1
    assert refusals > 100
    assert "torch_utils" not in sys.modules
