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


def small_shards(table, count=store.MANY):
    """Each with a row of its own and a newer one of a row that all have; what they hold together."""
    for n in range(count):
        table.append(rows((f"{n:03d}", n), ("all", n)))
    return {f"{n:03d}": n for n in range(count)} | {"all": count - 1}


def test_many_small_shards_become_one_and_go_once_it_is_settled(table):
    table.append(rows(("all", -1), ("first", 0)))
    table.shards()[0].rename(table.folder / "-before.parquet")  # whoever made it, it stays as it is
    expected = {"first": 0} | small_shards(table)
    table.append(rows(("000", 1000)))
    expected |= {"000": 1000}
    assert content(table) == expected
    before = table.shards()
    assert table.merge() == ({}, []), "they are too young"
    ((made, sources),) = table.merge(settled_s=0)[0].items()
    assert (len(sources), set(table.shards())) == (store.MANY, {*before, made})
    assert content(table) == expected, "while they are there as well"
    assert table.merge() == ({}, []), "it is too young"
    assert table.merge(settled_s=0) == ({}, sources)
    assert [shard for shard in table.shards() if shard in before] == [s for s in before if s not in sources]
    assert content(table) == expected
    assert pq.read_table(made).num_rows == len(sources) + 1, "what is superseded is not kept"


def test_what_is_read_is_not_read_again_for_a_merge(tmp_path, monkeypatch):
    table = store.KeptTable(tmp_path / "things", SCHEMA)
    expected = small_shards(table)
    assert content(table) == expected
    table.merge(settled_s=0)
    monkeypatch.setattr(store, "_read", None)
    assert content(table) == expected
    assert len(table.merge(settled_s=0)[1]) == store.MANY
    assert content(table) == expected


def test_shards_that_are_large_or_have_more_columns_are_not_merged(table, monkeypatch):
    more = store.Table(table.folder, SCHEMA.append(pa.field("new", pa.string())))
    expected = small_shards(table, store.MANY - 1)
    more.append([{"id": "z", "value": 1, "new": "kept"}])
    assert table.merge(settled_s=0) == ({}, [])
    assert content(table) == expected | {"z": 1}
    assert more.merge(settled_s=0)[0], "by whom knows them all"
    assert more.read(["new"])["new"].to_pylist()[-1] == "kept"
    monkeypatch.setattr(store, "SMALL", 10)
    other = store.Table(table.folder.with_name("others"), SCHEMA)
    small_shards(other)
    assert other.merge(settled_s=0) == ({}, [])


def test_a_row_written_beside_a_merge_counts(tmp_path):
    """By a process that knows nothing of it, whose shard comes between the sources' and the merged one's appearance."""
    table, other = (store.Table(tmp_path / "things", SCHEMA) for _ in range(2))
    expected = small_shards(table)
    write = table._write

    def late(rows_of, name):
        other.append(rows(("all", 5000), ("new", 1)))
        write(rows_of, name)

    table._write = late
    assert table.merge(settled_s=0)[0]
    assert content(table) == expected | {"all": 5000, "new": 1}


@pytest.mark.parametrize("moment", ["unlink 1", "unlink 2", "unlink 40", "replace 1", "write_table 1"])
def test_a_killed_merge_loses_and_doubles_nothing(tmp_path, moment):
    """Killed before the call that is named: of what is done already, nothing harms; the next ends it."""
    table = store.Table(tmp_path / "things", SCHEMA)
    expected = small_shards(table)
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        import pyarrow as pa
        from mmtt_build import store
        what, number = {moment!r}.split()
        seen = 0
        def killing(call):
            def counted(*arguments, **options):
                global seen
                seen += 1
                if seen == int(number):
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)
            return counted
        of = store.pq if what == "write_table" else Path
        setattr(of, what, killing(getattr(of, what)))
        table = store.Table(Path({str(table.folder)!r}), pa.schema(
            [("id", pa.string()), ("value", pa.int64()), ("tags", pa.list_(pa.string()))]))
        table.merge(settled_s=0)
        table.merge(settled_s=0)
        """
    )
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert content(table) == expected
    for _ in range(2):
        table.merge(settled_s=0)
        assert content(table) == expected
    assert len(table.shards()) == 1


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
