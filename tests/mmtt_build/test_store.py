import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmtt_build import store
from mmtt_build.errors import StoreError

SCHEMA = pa.schema([("id", pa.string()), ("value", pa.int64()), ("tags", pa.list_(pa.string()))])


@pytest.fixture(params=[store.Table, store.KeptTable])
def table(tmp_path, request):
    return request.param(tmp_path / "tables/things", SCHEMA)


def rows(*pairs):
    return [{"id": key, "value": value} for key, value in pairs]


def content(table):
    return dict(zip(*(table.read()[name].to_pylist() for name in ("id", "value")), strict=True))


def test_an_empty_table_reads_as_no_rows(table):
    assert table.read().schema == SCHEMA
    assert table.read().num_rows == 0
    assert table.read(["value"]).schema.names == ["value"]
    table.append([])
    assert not table.folder.exists()


def test_rows_are_the_union_of_the_shards_by_key_and_the_latest_wins(table):
    table.append(rows(("c", 1), ("a", 1)))
    table.append(rows(("b", 2), ("c", 2)))
    table.append(rows(("a", 3)))
    assert table.read()["id"].to_pylist() == ["a", "b", "c"]
    assert content(table) == {"a": 3, "b": 2, "c": 2}


def test_a_kept_table_reads_a_shard_once_and_sees_all_that_becomes_of_the_files(tmp_path, monkeypatch):
    kept, other = (kind(tmp_path / "things", SCHEMA) for kind in (store.KeptTable, store.Table))
    opened = []
    read = store._read
    monkeypatch.setattr(store, "_read", lambda shard, wanted: opened.append(shard.name) or read(shard, wanted))
    kept.append(rows(("a", 1), ("b", 1)))
    other.append(rows(("a", 2)))
    for _ in range(2):
        assert content(kept) == {"a": 2, "b": 1}
    assert sorted(opened) == [shard.name for shard in other.shards()]
    other.append(rows(("b", 3), ("c", 3)))
    assert (content(kept), len(opened)) == ({"a": 2, "b": 3, "c": 3}, 3)
    assert kept.read(["value"])["value"].to_pylist() == [2, 3, 3]  # other columns are others
    assert len(opened) == 6
    last, first = other.shards()[-1], other.shards()[0]
    last.rename(first.with_name(f"{int(first.name[:20]) + 1:020d}-late.parquet"))  # finished late, begun before
    assert content(kept) == content(other) == {"a": 2, "b": 3, "c": 3}
    first.unlink()
    assert content(kept) == content(other) == {"a": 2, "b": 3, "c": 3}
    other.shards()[0].unlink()
    assert content(kept) == content(other) == {"a": 2}


def test_of_some_rows_the_latest_are_there_and_no_other(tmp_path):
    table = store.Table(tmp_path / "things", SCHEMA)
    for step, pairs in enumerate([("a", "b"), ("b", "c"), ("d", "e")]):
        table.append([{"id": key, "value": step, "tags": [key]} for key in pairs])
    some = store.SomeRows(table.folder, SCHEMA, {"b", "d", "nobody"})
    assert content(some) == {"b": 1, "d": 2}
    assert some.read(["tags"])["tags"].to_pylist() == [["b"], ["d"]]
    assert some.keys().to_pylist() == ["b", "d"]
    for among in ((), ("nobody",)):
        assert content(store.SomeRows(table.folder, SCHEMA, among)) == {}
    table.shards()[1].write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="damaged"):
        store.SomeRows(table.folder, SCHEMA, ("a",)).read()


def test_within_one_shard_the_last_row_wins(table):
    table.append(rows(("a", 1), ("b", 1), ("a", 2)))
    assert content(table) == {"a": 2, "b": 1}


def test_a_later_row_wins_even_if_the_clock_went_back(table):
    table.append(rows(("a", 1)))
    first = table.shards()[0]
    future = f"{time.time_ns() + 3600 * 10**9:020d}-00000000.parquet"
    first.rename(first.with_name(future))
    table.append(rows(("a", 2)))
    assert content(table) == {"a": 2}


def test_columns_come_in_the_order_asked_for_and_the_key_may_be_left_out(table):
    table.append([{"id": "a", "value": 1, "tags": ["x"]}, {"id": "b", "tags": []}])
    assert table.read(["tags", "value"]).to_pylist() == [{"tags": ["x"], "value": 1}, {"tags": [], "value": None}]


def test_a_column_that_older_shards_lack_is_null(table):
    old = store.Table(table.folder, pa.schema([("id", pa.string())]))
    old.append([{"id": "a"}])
    table.append(rows(("b", 1)))
    assert content(table) == {"a": None, "b": 1}


def test_keys_filters(table):
    state = store.Table(table.folder, pa.schema([("id", pa.string()), ("status", pa.string())]))
    state.append([{"id": "a", "status": "ok"}, {"id": "b", "status": "failed"}])
    state.append([{"id": "b", "status": "ok"}, {"id": "c", "status": "failed"}])
    assert state.keys(status="ok").to_pylist() == ["a", "b"]
    assert state.keys().to_pylist() == ["a", "b", "c"]


def test_unfinished_files_are_not_seen(table):
    table.append(rows(("a", 1)))
    half = table.shards()[0].read_bytes()[:100]
    (table.folder / f"{store.TEMPORARY}{time.time_ns():020d}-0badf00d.parquet").write_bytes(half)
    assert content(table) == {"a": 1}


def test_rows_of_a_wrong_type_leave_nothing_behind(table):
    with pytest.raises(pa.ArrowInvalid):
        table.append([{"id": "a", "value": "many"}])
    assert content(table) == {}


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped", "folder"])
def test_a_damaged_shard_is_named_with_the_way_out(table, damage):
    for n in range(3):
        table.append([{"id": f"{n}-{i}", "value": i * 7919 % 1000} for i in range(400)])
    shard = table.shards()[1]
    data = bytearray(shard.read_bytes())
    if damage == "cut":
        shard.write_bytes(data[:-200])
    elif damage == "empty":
        shard.write_bytes(b"")
    elif damage == "text":
        shard.write_text("id,value\n")
    elif damage == "flipped":
        data[len(data) // 4] ^= 1
        shard.write_bytes(data)
    else:
        shard.unlink()
        shard.mkdir()
    with pytest.raises(StoreError) as caught:
        table.read()
    assert shard.name in caught.value.message
    assert "delete it and run the same command again" in caught.value.remedy


def test_every_flipped_byte_is_noticed_or_harmless(table):
    table.append([{"id": f"{i:03d}", "value": i * i, "tags": ["x"] * (i % 3)} for i in range(50)])
    (shard,) = table.shards()
    expected, data = table.read().to_pylist(), shard.read_bytes()
    for at in range(0, len(data), 23):
        shard.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        try:
            # A changed column name in the footer reads as an absent column; nothing else may pass.
            read = table.read().to_pylist()
            assert [row["id"] for row in read] == [row["id"] for row in expected]
            for name in ("value", "tags"):
                assert [row[name] for row in read] in ([row[name] for row in expected], [None] * 50)
        except StoreError:
            pass


def test_the_appender_writes_when_two_seconds_have_passed_and_when_closed(table, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(store.time, "monotonic", lambda: clock[0])
    with store.Appender(table) as appender:
        for step in range(10):
            appender.add({"id": f"{step}", "value": step})
            clock[0] += 0.9
            assert len(table.shards()) == step // 3
    assert content(table) == {f"{n}": n for n in range(10)}


def test_long_runs_write_fewer_and_larger_shards(table, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(store.time, "monotonic", lambda: clock[0])
    with store.Appender(table) as appender:
        for step in range(4000):  # a week, one row every two and a half minutes
            appender.add({"id": f"{step:05d}"})
            clock[0] += 150
    assert 100 < len(table.shards()) < 800
    assert len(table.keys()) == 4000


def test_an_interrupted_run_keeps_what_was_collected(table):
    with pytest.raises(KeyboardInterrupt), store.Appender(table) as appender:
        appender.add({"id": "a", "value": 1})
        raise KeyboardInterrupt
    assert content(table) == {"a": 1}


def test_a_killed_writer_leaves_whole_shards_only(tmp_path):
    """A process that writes shards as fast as it can is killed many times at whatever point it is."""
    script = textwrap.dedent(
        f"""
        import pyarrow as pa
        from pathlib import Path
        from mmtt_build.store import Table
        schema = pa.schema([("id", pa.string()), ("value", pa.int64()), ("tags", pa.list_(pa.string()))])
        table = Table(Path({str(tmp_path)!r}) / "t", schema)
        n = len(table.keys())
        print("ready", flush=True)
        while True:
            table.append([{{"id": f"{{n}}-{{i}}", "value": i}} for i in range(500)])
            n += 1
        """
    )
    table = store.Table(tmp_path / "t", SCHEMA)
    for wait in (0.0, 0.013):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(wait + 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        whole = table.shards()
        assert len(table.read()) == 500 * len(whole)
    assert whole


def test_files_appear_whole_and_make_their_folder(tmp_path):
    path = tmp_path / "a/b/image.png"
    store.write_file(path, b"first")
    store.write_file(path, b"second", durable=True)
    assert path.read_bytes() == b"second"
    assert [p.name for p in path.parent.iterdir()] == ["image.png"]


def test_a_write_that_fails_keeps_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "image.png"
    store.write_file(path, b"old")
    limited = textwrap.dedent(
        f"""
        import resource, signal
        from pathlib import Path
        from mmtt_build.store import write_file
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        write_file(Path({str(path)!r}), bytes(5000))
        """
    )
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["image.png"]


def test_on_a_full_disk_nothing_is_lost_and_the_rest_follows(small_disk: Path):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(4_046_000))
    table = store.Table(small_disk / "t", SCHEMA)
    table.append(rows(("a", 1)))
    appender = store.Appender(table)
    random = [os.urandom(30_000).hex() for _ in range(8)]
    for n, text in enumerate(random):
        appender.add({"id": text, "value": n})
    with pytest.raises(OSError, match="No space left"):
        appender.flush()
    with pytest.raises(OSError, match="No space left"):
        store.write_file(small_disk / "image.png", bytes(300_000))
    assert content(table) == {"a": 1}
    assert sorted(p.name for p in small_disk.iterdir()) == ["ballast", "t"]
    assert len(list(table.folder.iterdir())) == 1
    ballast.unlink()
    appender.flush()
    assert content(table) == {"a": 1, **{text: n for n, text in enumerate(random)}}
    assert pq.read_table(table.shards()[-1]).num_rows == 8
