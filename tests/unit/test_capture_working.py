"""Working files: what is written is what a shard reads, whatever the shards."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import resource
import shutil
import stat
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokerlens.capture import working
from brokerlens.capture.columns import ROW_COLUMNS, SACK_EDGES
from brokerlens.capture.helpers import Helpers
from brokerlens.capture.working import Rows, Writer, read_facts, read_provenance, read_rows
from brokerlens.errors import UserError
from list_captures import list_captures

Group = tuple[dict[str, np.ndarray[Any, Any]], list[tuple[int, int, bytes]]]


def connections_of(seed: int) -> list[tuple[str, int, str, int, int]]:
    """Connections of a capture: some that every capture has, one of its own; bucket 1023 and 0 among them."""
    shared = [(f"192.0.2.{n}", 1000 + n, "192.0.2.10", 9092, n * 341) for n in range(4)]
    return [*shared[seed % 2 :], (f"2001:db8::{seed}", 7, "2001:db8::a", 9092, 500 + seed)]


@st.composite
def groups(draw: st.DrawFn, seed: int) -> list[Group]:
    """Row groups of one capture: columns, and kept runs as (row, offset, bytes)."""
    numbers = np.random.default_rng(draw(st.integers(0, 1000)))
    table = connections_of(seed)
    made, frame = [], 1
    for size in draw(st.lists(st.integers(0, 30), max_size=3)):
        columns = {name: numbers.integers(0, 2 if kind is np.bool_ else 200, size).astype(kind) for name, kind in ROW_COLUMNS.items()}
        columns["connection"] = numbers.integers(0, len(table), size).astype(np.uint32)
        columns["bucket"] = np.array([table[number][4] for number in columns["connection"]], np.uint16)
        columns["frame_number"] = np.arange(frame, frame + size, dtype=np.uint32)
        columns["timestamp"] = numbers.integers(0, 1 << 62, size)
        for name in ("mss", "window_scale", "sack_count"):
            columns[name][numbers.integers(0, 3, size) > 0] = 0
        for name in SACK_EDGES:
            columns[name][columns["sack_count"] == 0] = 0
        frame += size
        runs = draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, 99), st.binary(max_size=9)), max_size=20)) if size else []
        made.append((columns, runs))
    return made


def write(folder: Path, name: str, seed: int, written: list[Group], threads: int = 1) -> None:
    """Write a capture's groups."""
    with Helpers(threads - 1) as helpers:
        writer = Writer(folder, {"capture": name}, helpers)
        for columns, runs in written:
            row, offset, length = (np.array([run[i] if i < 2 else len(run[2]) for run in runs], np.int64) for i in range(3))
            writer.add_group(
                {name: column.copy() for name, column in columns.items()},
                row,
                offset,
                length,
                np.frombuffer(b"".join(run[2] for run in runs), np.uint8).copy(),
            )
        writer.close({"capture": name, "kept": writer.rows}, connections_of(seed))


def as_set(rows: Rows) -> list[tuple[Any, ...]]:
    """Rows as values with the addresses in full and their kept runs, sorted."""
    kept: dict[int, list[tuple[int, bytes]]] = {}
    for row, offset, length, at in zip(
        rows.kept_row.tolist(), rows.kept_offset.tolist(), rows.kept_length.tolist(), rows.kept_at.tolist(), strict=True
    ):
        kept.setdefault(row, []).append((offset, rows.data[at : at + length].tobytes()))
    made = []
    for n in range(rows.n):
        values = tuple(column[n].item() for name, column in rows.columns.items() if name != "connection")
        connection = int(rows.columns["connection"][n])
        ends = tuple(rows.connections[field][connection] for field in working.CONNECTION_FIELDS)
        made.append((rows.captures[rows.capture[n]], ends, values, tuple(sorted(kept.get(n, [])))))
    return sorted(made)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=groups(1),
    second=groups(2),
    shards=st.sampled_from([1, 2, 3, 7]),
    range_rows=st.sampled_from([1, 5, working.RANGE_ROWS]),
    threads=st.integers(1, 4),
)
def test_shards_together_hold_what_was_written(
    tmp_path: Path, first: list[Group], second: list[Group], shards: int, range_rows: int, threads: int
) -> None:
    captures = {"b.pcap": (1, first), "a.pcap": (2, second)}
    with mock.patch.object(working, "RANGE_ROWS", range_rows):
        for name, (seed, written) in captures.items():
            write(tmp_path / name, name, seed, written, threads)
    expected = []
    for name, (seed, written) in captures.items():
        for columns, runs in written:
            for n in range(len(columns["bucket"])):
                values = tuple(column[n].item() for column_name, column in columns.items() if column_name not in ("connection", "bucket"))
                ends = connections_of(seed)[int(columns["connection"][n])][:4]
                expected.append((name, ends, values, tuple(sorted((offset, data) for row, offset, data in runs if row == n))))
    folders = [tmp_path / name for name in captures]
    parts = list(read_rows(folders, [(1024 * i // shards, 1024 * (i + 1) // shards) for i in range(shards)]))
    assert sorted(row for part in parts for row in as_set(part)) == sorted(expected)
    whole = next(read_rows(folders))
    assert as_set(whole) == sorted(expected)
    assert whole.captures == ["a.pcap", "b.pcap"]
    table = list(zip(*(whole.connections[field] for field in working.CONNECTION_FIELDS), strict=True))
    assert table == sorted({row[:4] for seed in (1, 2) for row in connections_of(seed)})
    swapped = next(read_rows(folders[::-1]))
    assert all(np.array_equal(whole.columns[name], swapped.columns[name]) for name in whole.columns)
    for name, kind in ROW_COLUMNS.items():
        assert name == "bucket" or whole.columns[name].dtype == kind
        assert name == "bucket" or whole.columns[name].flags.writeable, "kernels are compiled for writable arrays"


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 31, 32, 63, 64, 127, 128, 1000])
def test_a_shard_finds_its_buckets_in_row_groups_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """A group of many rows is cut at the same buckets as the shards, so that one of eight reads an eighth; one of few rows is not cut."""
    monkeypatch.setattr(working, "RANGE_ROWS", 16)
    bucket = np.random.default_rng(rows).integers(0, 1024, rows).astype(np.uint16)
    columns = {name: np.zeros(rows, kind) for name, kind in ROW_COLUMNS.items()} | {"bucket": bucket.copy()}
    every = np.arange(rows)
    writer = Writer(tmp_path, {})
    writer.add_group(columns, every, every, np.ones(rows, np.int64), np.arange(rows).astype(np.uint8))
    writer.close({"capture": "x"}, [])
    ranges = 8 if rows >= 128 else 4 if rows >= 64 else 2 if rows >= 32 else 1
    files = {name: pq.ParquetFile(tmp_path / name) for name in working.OF_GROUPS}
    found = [
        files["packets.parquet"].read_row_group(group, columns=["bucket"])["bucket"].to_pylist() for group in range(ranges * (rows > 0))
    ]
    assert [{number * ranges // 1024 for number in part} for part in found] == [{number} for number in range(len(found))]
    assert sorted(itertools.chain(*found)) == sorted(bucket.tolist())
    assert {file.num_row_groups for file in files.values()} == {len(found)}
    kept = [files["kept.parquet"].read_row_group(group).to_pydict() for group in range(len(found))]
    assert [sorted(part["row"]) for part in kept] == [list(range(len(part))) for part in found]
    # A run's offset is here its row in the capture, and its only byte the same.
    assert [[bucket[row] for row in part["offset"]] for part in kept] == found
    data = [b"".join(files["kept_bytes.parquet"].read_row_group(group)["data"].to_pylist()) for group in range(len(found))]
    assert [[row % 256 for row in part["offset"]] for part in kept] == [list(part) for part in data]


@given(bucket=st.lists(st.integers(0, 1023), max_size=60), ranges=st.sampled_from([1, 2, 4, 8]))
@settings(deadline=None)
def test_order_by_bucket_is_a_stable_sort(bucket: list[int], ranges: int) -> None:
    order, place, begins = working.order_by_bucket(np.array(bucket, np.uint16), ranges)
    wanted = sorted(range(len(bucket)), key=lambda row: bucket[row])
    of_range = [[row for row in wanted if bucket[row] * ranges // 1024 == number] for number in range(ranges)]
    assert order.tolist() == wanted
    assert begins.tolist() == [0, *itertools.accumulate(map(len, of_range))]
    assert {row: place[row] for row in wanted} == {row: number for rows in of_range for number, row in enumerate(rows)}


@given(runs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99), st.binary(max_size=200)), max_size=20), seed=st.randoms())
@settings(deadline=None)
def test_runs_are_gathered_with_their_bytes(runs: list[tuple[int, int, bytes]], seed: random.Random) -> None:
    order = seed.sample(range(len(runs)), len(runs))
    place = np.array(seed.sample(range(10), 10), np.uint32)
    row, offset, length = (np.array([run[i] if i < 2 else len(run[2]) for run in runs], np.int64) for i in range(3))
    data = np.frombuffer(b"".join(run[2] for run in runs), np.uint8).copy()
    gathered, copied = np.empty((3, len(runs)), np.uint32), np.empty(len(data), np.uint8)
    start = working.gather_runs(np.array(order, np.uint32), place, row, offset, length, gathered)
    working.gather_bytes(data, start, gathered[2], copied)
    assert gathered.T.tolist() == [[place[runs[run][0]], runs[run][1], len(runs[run][2])] for run in order]
    assert copied.tobytes() == b"".join(runs[run][2] for run in order)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=groups(1))
def test_rows_are_ordered_by_bucket_and_frame_in_each_group(tmp_path: Path, written: list[Group]) -> None:
    write(tmp_path / "x", "x", 1, written)
    packets = pq.ParquetFile(tmp_path / "x" / "packets.parquet")
    assert packets.num_row_groups == sum(len(columns["bucket"]) > 0 for columns, _ in written)
    for group in range(packets.num_row_groups):
        rows = packets.read_row_group(group, columns=["bucket", "frame_number"]).to_pylist()
        assert rows == sorted(rows, key=lambda row: (row["bucket"], row["frame_number"]))
    assert all(not field.nullable for field in packets.schema_arrow)


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    write(tmp_path / "new" / "x", "x", 1, [])
    assert stat.S_IMODE((tmp_path / "new" / "x").stat().st_mode) == 0o700
    files = sorted(path.name for path in (tmp_path / "new" / "x").iterdir())
    assert files == ["connections.parquet", "facts.json", "kept.parquet", "kept_bytes.parquet", "options.parquet", "packets.parquet"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new" / "x").iterdir()} == {0o600}
    assert read_facts(tmp_path / "new" / "x") == {"capture": "x", "kept": 0}
    assert next(read_rows([tmp_path / "new" / "x"])).n == 0


def test_what_was_begun_and_given_up_leaves_nothing(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "x", {})
    assert [path.name for path in (tmp_path / "x").iterdir() if not path.name.startswith(".")] == []
    writer.abandon()
    assert list((tmp_path / "x").iterdir()) == []


def open_below(folder: Path) -> list[str]:
    """The files below this folder that this process has open, also those without a name by now."""
    found = []
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += [name for name in [os.readlink(number)] if name.startswith(str(folder))]
    return found


def add_some(writer: Writer) -> None:
    """Add a group of many rows and runs, whose bytes do not compress."""
    numbers = np.random.default_rng(1)
    columns = {name: numbers.integers(0, 2, 5000).astype(kind) for name, kind in ROW_COLUMNS.items()}
    every = np.arange(5000)
    writer.add_group(columns, every, every, np.ones(5000, np.int64), numbers.integers(0, 255, 5000).astype(np.uint8))


def write_some(writer: Writer, groups: int) -> None:
    """Write so many of these groups, and nothing else."""
    for _ in range(groups):
        add_some(writer)
    writer.close({}, [])


@pytest.mark.parametrize("helping", [0, 1])
def test_what_a_full_disk_cuts_leaves_nothing(tmp_path: Path, helping: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Helpers(helping) as helpers:
        writer = Writer(tmp_path / "x", {}, helpers)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                write_some(writer, 200)
            writer.abandon()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert list((tmp_path / "x").iterdir()) == []
    assert open_below(tmp_path) == []


@pytest.mark.parametrize("helping", [0, 1, 3])
@pytest.mark.parametrize("part", ["_write_rows", "_write_options", "_write_runs"])
def test_what_fails_to_be_written_is_the_callers_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helping: int, part: str) -> None:
    monkeypatch.setattr(Writer, part, mock.Mock(side_effect=OSError("no room")))
    with Helpers(helping) as helpers:
        writer = Writer(tmp_path / "x", {}, helpers)
        with pytest.raises(OSError, match="no room"):
            write_some(writer, 1)
        writer.abandon()
    assert list((tmp_path / "x").iterdir()) == []


def test_nothing_that_fails_when_files_are_given_up_hides_the_first_error(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "x", {})
    shutil.rmtree(tmp_path / "x")
    (tmp_path / "x").write_text("a file of this name")
    writer.abandon()
    assert open_below(tmp_path) == []


def test_what_no_helper_has_begun_is_written_all_the_same(tmp_path: Path) -> None:
    busy = threading.Event()
    with Helpers(1) as helpers:
        helpers.begin(busy.wait, 10)
        writer = Writer(tmp_path / "x", {}, helpers)
        write_some(writer, 2)
        assert not busy.is_set()
        busy.set()
    assert pq.read_metadata(tmp_path / "x" / "packets.parquet").num_rows == 10_000


def test_the_rest_is_written_while_a_helper_writes_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, runs = threading.Event(), threading.Event()

    def rows(*_: object) -> None:
        begun.set()
        if not runs.wait(10):
            raise OSError("nobody writes the runs")

    monkeypatch.setattr(Writer, "_write_rows", rows)
    monkeypatch.setattr(Writer, "_write_runs", lambda *_: runs.set())
    with Helpers(1) as helpers:
        writer = Writer(tmp_path / "x", {}, helpers)
        add_some(writer)
        assert begun.wait(10)
        writer.close({}, [])


def test_files_that_are_written_are_given_up_once_no_helper_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), threading.Event()

    def slowly(*_: object) -> None:
        begun.set()
        time.sleep(0.1)
        ended.set()

    monkeypatch.setattr(Writer, "_write_rows", slowly)
    with Helpers(1) as helpers:
        writer = Writer(tmp_path / "x", {}, helpers)
        add_some(writer)
        assert begun.wait(10)
        writer.abandon()
        assert ended.is_set()


LOST = ("connections.parquet", "packets.parquet", "options.parquet", "kept.parquet", "kept_bytes.parquet", "facts.json")


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("left", [None, b"", b"PAR1 something else"], ids=["lost", "empty", "another"])
def test_working_files_of_which_one_is_lost_or_damaged_are_said_to_be(tmp_path: Path, name: str, left: bytes | None) -> None:
    """Snakemake looks at the folder alone, so the merge is where this shows: which folder, and what to do."""
    write(tmp_path / "x", "x", 1, [])
    (tmp_path / "x" / name).unlink()
    if left is not None:
        (tmp_path / "x" / name).write_bytes(left)
    with pytest.raises(UserError, match=r"x: found working files that cannot be read .* Remove the folder and run the same command again"):
        next(read_rows([tmp_path / "x"]))
    if name == "packets.parquet":
        with pytest.raises(UserError, match="x: found working files"):
            read_provenance(tmp_path / "x")
    if name == "facts.json":
        with pytest.raises(UserError, match=r"x: found no facts.json that can be read .* Remove the folder"):
            list_captures(folders=[tmp_path / "x"], captures=tmp_path / "list")


def write_like(folder: Path, rows: int) -> None:
    """A capture of so many rows that are all alike, each with options and a kept byte."""
    columns = {column: np.ones(rows, kind) for column, kind in ROW_COLUMNS.items()} | {"connection": np.zeros(rows, np.uint32)}
    every = np.arange(rows)
    writer = Writer(folder, {"capture": folder.name})
    writer.add_group(columns, every, every, np.ones(rows, np.int64), np.zeros(rows, np.uint8))
    writer.close({"capture": folder.name}, connections_of(1))


@pytest.mark.parametrize("name", ["options.parquet", "kept.parquet", "kept_bytes.parquet"])
def test_rows_that_another_file_does_not_have_are_an_error(tmp_path: Path, name: str) -> None:
    write_like(tmp_path / "few", 1)
    write_like(tmp_path / "many", 9)
    (tmp_path / "many" / name).replace(tmp_path / "few" / name)
    with pytest.raises(
        UserError, match=r"few: found rows, options or kept payload that do not belong together; expected .* Remove the folder"
    ):
        next(read_rows([tmp_path / "few"]))


@pytest.mark.parametrize(
    ("name", "column", "value", "said"),
    [
        ("packets.parquet", "connection", pa.array([99] * 4, pa.uint32()), "do not belong together"),
        (
            "options.parquet",
            "column",
            pa.array([len(working.OPTION_COLUMNS)] * 4 * len(working.OPTION_COLUMNS), pa.uint8()),
            "do not belong together",
        ),
        ("packets.parquet", "seq", None, "cannot be read"),
        ("packets.parquet", "bucket", pa.nulls(4, pa.uint16()), "cannot be read"),
        ("kept.parquet", "row", pa.nulls(4, pa.uint32()), "cannot be read"),
        ("options.parquet", "row", None, "cannot be read"),
    ],
)
def test_columns_that_are_lost_or_hold_what_cannot_be_are_an_error(
    tmp_path: Path, name: str, column: str, value: pa.Array | None, said: str
) -> None:
    write_like(tmp_path / "x", 4)
    table = pq.read_table(tmp_path / "x" / name)
    place = table.column_names.index(column)
    pq.write_table(table.remove_column(place) if value is None else table.set_column(place, column, value), tmp_path / "x" / name)
    with pytest.raises(UserError, match=rf"x: found .*{said}"):
        next(read_rows([tmp_path / "x"]))
