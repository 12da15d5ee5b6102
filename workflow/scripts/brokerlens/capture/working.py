"""The working files of one capture, and their reading for a shard of a site: docs/architecture.md says what they hold.

Written without pandas and polars: the import of either costs more than a small capture. Readable by the owner only, since they hold payload.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit
from pyarrow.fs import LocalFileSystem

from brokerlens.capture.columns import ROW_COLUMNS, SACK_EDGES, Array, Int
from brokerlens.capture.compiled import ask_to_read
from brokerlens.capture.helpers import Helpers, Task
from brokerlens.capture.lookup import BUCKETS
from brokerlens.capture.memory import large, side_by_side
from brokerlens.errors import UserError, inert

CONNECTIONS: Final = "connections.parquet"
PACKETS: Final = "packets.parquet"
KEPT: Final = "kept.parquet"
KEPT_BYTES: Final = "kept_bytes.parquet"
OPTIONS: Final = "options.parquet"
FACTS: Final = "facts.json"
OF_GROUPS: Final = (PACKETS, OPTIONS, KEPT, KEPT_BYTES)
"""The files whose row groups of the same number belong together."""
WRITTEN: Final = (CONNECTIONS, *OF_GROUPS, FACTS)

OPTION_COLUMNS: Final = ("mss", "window_scale", "sack_count", *SACK_EDGES)
"""Columns of `ROW_COLUMNS` that few packets have anything but 0 in: a file of their own holds those values."""
ARROW_TYPES: Final = {
    name: pa.bool_() if kind is np.bool_ else pa.from_numpy_dtype(kind) for name, kind in ROW_COLUMNS.items() if name not in OPTION_COLUMNS
}


def _schema(types: Mapping[str, pa.DataType], metadata: Mapping[str, str] | None = None) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()], metadata=metadata)


CONNECTION_SCHEMA: Final = _schema(
    {
        "connection": pa.uint32(),
        "client_ip": pa.string(),
        "client_port": pa.uint16(),
        "broker_ip": pa.string(),
        "broker_port": pa.uint16(),
        "bucket": pa.uint16(),
    }
)
KEPT_SCHEMA: Final = _schema({"row": pa.uint32(), "offset": pa.uint32(), "length": pa.uint32()})
KEPT_BYTES_SCHEMA: Final = _schema({"data": pa.binary()})
OPTIONS_SCHEMA: Final = _schema({"row": pa.uint32(), "column": pa.uint8(), "value": pa.uint32()})
PIECE: Final = 1 << 16  # bytes of a value of `data`: a value for each run would take half as long again
SINK_BYTES: Final = 1 << 18  # gathered before they are written: an encoder writes a few hundred at a time
BATCH: Final = 1 << 17  # values handed to an encoder at once: with a thousand, as the library does, rows take a third longer to write
AHEAD: Final = 8  # runs for which the cache is asked before they are copied
RANGES: Final = 8
RANGE_ROWS: Final = 1 << 14
"""Row groups of a group: one for each range of buckets, so that a shard reads its own; as many ranges as leave so many rows to each, at most `RANGES`."""

# Numbers with many values: their bytes one column each, which compress faster and to three quarters of the size.
SPLIT_BYTES: Final = (
    "timestamp",
    "frame_number",
    "ip_id",
    "header_hash",
    "seq",
    "ack",
    "notebook_id",
    "tsval",
    "tsecr",
    *KEPT_SCHEMA.names,
)

CONNECTION_FIELDS: Final = ("client_ip", "client_port", "broker_ip", "broker_port")


@njit(cache=True, nogil=True)
def order_by_bucket(bucket: Array, ranges: Int) -> tuple[Array, Array, Array]:
    """The values in order of bucket, those of one bucket as they were, each one's place among those of its range of buckets (u32[n] both), and where each range begins in that order, and the last one ends (i64[ranges + 1])."""
    starts = np.zeros(BUCKETS + 1, np.int64)
    for row in range(len(bucket)):
        starts[np.int64(bucket[row]) + 1] += 1
    for before in range(BUCKETS):
        starts[before + 1] += starts[before]
    buckets = BUCKETS // ranges
    begins = starts[::buckets].copy()
    order, place = np.empty(len(bucket), np.uint32), np.empty(len(bucket), np.uint32)
    for row in range(len(bucket)):
        number = np.int64(bucket[row])
        order[starts[number]] = row
        place[row] = starts[number] - begins[number // buckets]
        starts[number] += 1
    return order, place, begins


@njit(cache=True, nogil=True)
def gather(values: Array, order: Array, gathered: Array) -> None:
    """``gathered[i] = values[order[i]]``, twice as fast as numpy."""
    for place in range(len(order)):
        gathered[place] = values[order[place]]


@njit(cache=True, nogil=True)
def order_runs(rows: Int, row: Array, offset: Array) -> Array:
    """The kept runs in the order of their rows, of which there are so many, those of one row by offset: i64[runs]."""
    starts = np.zeros(rows + 1, np.int64)
    for run in range(len(row)):
        starts[row[run] + 1] += 1
    for place in range(rows):
        starts[place + 1] += starts[place]
    filled = starts.copy()
    runs = np.empty(len(row), np.int64)
    for run in range(len(row)):
        at = filled[row[run]]
        filled[row[run]] += 1
        while at > starts[row[run]] and offset[runs[at - 1]] > offset[run]:
            runs[at] = runs[at - 1]
            at -= 1
        runs[at] = run
    return runs


@njit(cache=True, nogil=True)
def gather_bytes(data: Array, start: Array, length: Array, gathered: Array) -> None:
    """Copy the runs, of which each has so many bytes from ``data[start]`` on, one behind another into ``gathered``."""
    at = np.int64(0)
    for run in range(len(start)):
        if run + AHEAD < len(start):
            ask_to_read(data, start[run + AHEAD])
        source, count = start[run], length[run]
        if at >= 0 and source >= 0:  # always; being told so, the compiler copies many bytes at a time
            for byte in range(count):
                gathered[at + byte] = data[source + byte]
            at += count


@njit(cache=True, nogil=True)
def gather_runs(order: Array, place: Array, row: Array, offset: Array, length: Array, gathered: Array) -> Array:
    """Put the runs in order: ``gathered`` (u32[3, n]) gets the place of their row, their offset and length; returns where in the data their bytes begin, i64[n]."""
    at, starts, ordered = np.int64(0), np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    for run in range(len(order)):
        starts[run] = at
        at += length[run]
    for number in range(len(order)):
        run = order[number]
        gathered[0, number] = place[row[run]]
        gathered[1, number] = offset[run]
        gathered[2, number] = length[run]
        ordered[number] = starts[run]
    return ordered


def _arrow(array: Array, kind: pa.DataType) -> pa.Array:
    """An Arrow array over (or, for bits, from) a numpy array; ``pa.array`` would import pandas."""
    if pa.types.is_boolean(kind):
        return pa.Array.from_buffers(kind, len(array), [None, pa.py_buffer(np.packbits(array, bitorder="little"))])
    return pa.Array.from_buffers(kind, len(array), [None, pa.py_buffer(np.ascontiguousarray(array))])


@njit(cache=True, nogil=True)
def is_constant(values: Array) -> bool:
    """Whether all values are the same. Of two that differ the first ones tell: nothing more is looked at."""
    for value in values:
        if value != values[0]:
            return False
    return True


def _put_in_order(values: Array, order: Array, room: Array) -> Array:
    """Put the values in another order, through ``room`` (u8, eight bytes for each). Constant columns, of which there are many, are in order already."""
    unsigned = f"u{values.itemsize}"  # so that four compiled kernels serve all types
    if not is_constant(values.view(unsigned)):
        gathered = room[: values.nbytes].view(unsigned)
        gather(values.view(unsigned), order, gathered)
        values.view(unsigned)[:] = gathered
    return values


def _arrow_texts(texts: Sequence[str]) -> pa.Array:
    """An Arrow array of strings."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(texts), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))])


def _private(path: Path) -> Path:
    """An empty file that only its owner can read."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return path


def _pool() -> pa.MemoryPool:
    """Memory for encoders, which ask for the same sizes again and again: from the C library it makes a split a twentieth slower."""
    return pa.mimalloc_memory_pool() if "mimalloc" in pa.supported_memory_backends() else pa.default_memory_pool()


def _ranges(rows: int) -> int:
    """Into how many ranges of buckets a group of so many rows is cut."""
    return min(RANGES, 1 << max(rows // RANGE_ROWS, 1).bit_length() - 1)


class _Group(NamedTuple):
    """Rows that are written in order of bucket: the bucket of each, its place in its range of buckets, and where each range begins, and the last one ends."""

    bucket: Array
    place: Array
    begins: Array

    def order(self, row: Array) -> tuple[Array, Array]:
        """Of values of these rows the order by bucket, and where each range begins in it."""
        order, _, begins = order_by_bucket(self.bucket[row], len(self.begins) - 1)
        return order, begins

    def filled(self, begins: Array) -> list[tuple[int, int]]:
        """Begin and end of each range that has rows, among values whose ranges begin there: only they become row groups, of the same numbers in all files."""
        has_rows = np.diff(self.begins) > 0
        return list(zip(begins[:-1][has_rows].tolist(), begins[1:][has_rows].tolist(), strict=True))

    def write(self, writer: pq.ParquetWriter, table: pa.Table, begins: Array) -> None:
        """Write values whose ranges begin there."""
        for begin, end in self.filled(begins):
            _write(writer, table.slice(begin, end - begin))


def _write(writer: pq.ParquetWriter, table: pa.Table) -> None:
    """Write a row group."""
    writer.write_table(table, row_group_size=max(table.num_rows, 1))


class Writer:
    """Writes the working files of one capture into ``folder``: first under other names, so that no half-written file looks whole.

    ``provenance`` goes into the metadata of ``packets.parquet`` and into nothing else. Where there are ``helpers``, they write a row group while the caller makes
    the next one.
    """

    def __init__(self, folder: str | Path, provenance: Mapping[str, Any] | None = None, helpers: Helpers | None = None) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        self._open_files: list[pa.NativeFile] = []
        metadata = {"brokerlens": json.dumps(dict(provenance or {}), sort_keys=True)}
        self._packet_schema = _schema(ARROW_TYPES, metadata)
        self._packets = self._open(PACKETS, self._packet_schema, compression="lz4")  # half of zstd's time, a twelfth more bytes
        self._kept = self._open(KEPT, KEPT_SCHEMA, compression="lz4")
        self._kept_bytes = self._open(KEPT_BYTES, KEPT_BYTES_SCHEMA, compression="zstd", compression_level=1)
        self._options = self._open(OPTIONS, OPTIONS_SCHEMA, compression="lz4")
        self._room = np.empty(0, np.uint8)
        self._gathered_bytes = np.empty(0, np.uint8)
        self._helpers = helpers or Helpers()
        self._begun: list[Task[None]] = []
        self.rows = 0

    @property
    def writes_meanwhile(self) -> bool:
        """Whether a group is written while the caller makes the next one."""
        return bool(self._helpers)

    def _temporary(self, name: str) -> Path:
        return self._folder / f".{name}.part"

    def _open(self, name: str, schema: pa.Schema, **compression: Any) -> pq.ParquetWriter:
        """Begin a file. Without dictionaries: rows ordered by bucket compress as well without, in less time."""
        # Appended to: of a file that it opened to be emptied Linux (ext4) begins to write all data to the disk when it is closed, and lets the job wait for that.
        file = LocalFileSystem().open_append_stream(str(_private(self._temporary(name))), compression=None)
        sink = pa.BufferedOutputStream(file, SINK_BYTES)
        self._open_files += [file, sink]
        return pq.ParquetWriter(
            sink,
            schema,
            **compression,
            use_dictionary=False,
            write_statistics=["bucket"],
            write_batch_size=BATCH,
            memory_pool=_pool(),
            column_encoding={name: "BYTE_STREAM_SPLIT" for name in schema.names if name in SPLIT_BYTES},
        )

    def add_group(self, columns: Mapping[str, Array], row: Array, offset: Array, length: Array, data: Array) -> None:
        """Write a group of rows: columns of ``ROW_COLUMNS`` of equal length, and kept runs. Each range of buckets that has rows becomes a row group of each file.

        ``row`` is a run's row in this group, ``offset`` its place in that packet's payload, ``length`` its bytes, which stand in ``data`` run
        behind run. All arrays are the writer's until the next call of this or of ``close`` returns; it puts the columns in order of bucket where they are.
        """
        self._wait()
        order, place, begins = order_by_bucket(columns["bucket"], _ranges(len(columns["bucket"])))
        group = _Group(columns["bucket"].copy(), place, begins)  # its own, since the columns are put in order while others look at it
        self.rows += len(order)
        self._begun = [
            self._helpers.begin(self._write_rows, order, group, columns),
            self._helpers.begin(self._write_options, group, columns),
            self._helpers.begin(self._write_runs, group, row, offset, length, data),
        ]
        if not self.writes_meanwhile:
            self._wait()

    def _wait(self) -> None:
        """Until all row groups are written, part of them in this thread."""
        for part in self._begun:
            part.result(meanwhile=self._begun)
        self._begun = []

    def _write_rows(self, order: Array, group: _Group, columns: Mapping[str, Array]) -> None:
        if 8 * len(order) > len(self._room):
            self._room = np.empty(8 * len(order), np.uint8)
        arrays = [_arrow(_put_in_order(columns[name], order, self._room), kind) for name, kind in ARROW_TYPES.items()]
        table = pa.Table.from_arrays(arrays, schema=self._packet_schema)
        group.write(self._packets, table, group.begins)

    def _write_options(self, group: _Group, columns: Mapping[str, Array]) -> None:
        some = np.flatnonzero(columns["mss"] | columns["window_scale"] | columns["sack_count"])  # without blocks there are no edges
        found = [(number, some[columns[name][some] != 0]) for number, name in enumerate(OPTION_COLUMNS)]
        row, column, value = (np.empty(sum(len(rows) for _, rows in found), kind) for kind in (np.int64, np.uint8, np.uint32))
        begin = 0
        for number, rows in found:
            here = slice(begin, begin + len(rows))
            row[here], column[here], value[here] = rows, number, columns[OPTION_COLUMNS[number]][rows]
            begin += len(rows)
        order, begins = group.order(row)
        values = group.place[row[order]], column[order], value[order]
        arrays = [_arrow(array, kind) for array, kind in zip(values, OPTIONS_SCHEMA.types, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=OPTIONS_SCHEMA)
        group.write(self._options, table, begins)

    def _write_runs(self, group: _Group, row: Array, offset: Array, length: Array, data: Array) -> None:
        order, begins = group.order(row)
        runs = np.empty((3, len(order)), np.uint32)
        start = gather_runs(order, group.place, row, offset, length, runs)
        if len(data) > len(self._gathered_bytes):
            self._gathered_bytes = large(2 * len(data))
        gather_bytes(data, start, runs[2], self._gathered_bytes)
        table = pa.Table.from_arrays([_arrow(values, pa.uint32()) for values in runs], schema=KEPT_SCHEMA)
        group.write(self._kept, table, begins)
        at = 0
        for begin, end in group.filled(begins):
            size = int(runs[2, begin:end].sum())
            self._write_bytes(self._gathered_bytes[at : at + size])
            at += size

    def _write_bytes(self, data: Array) -> None:
        borders = np.append(np.arange(0, len(data), PIECE), len(data)).astype(np.int32)
        pieces = pa.Array.from_buffers(pa.binary(), len(borders) - 1, [None, pa.py_buffer(borders), pa.py_buffer(data)])
        _write(self._kept_bytes, pa.Table.from_arrays([pieces], schema=KEPT_BYTES_SCHEMA))

    def close(self, facts: Mapping[str, Any], connections: Sequence[tuple[str, int, str, int, int]]) -> None:
        """Write connections and facts, and give all files their names, the facts last.

        A connection is (client_ip, client_port, broker_ip, broker_port, bucket); its place is its number.
        """
        self._wait()
        self._end()
        arrays = [_arrow(np.arange(len(connections), dtype=np.uint32), pa.uint32())]
        for place, kind in enumerate(CONNECTION_SCHEMA.types[1:]):
            values: list[Any] = [connection[place] for connection in connections]
            arrays.append(_arrow_texts(values) if pa.types.is_string(kind) else _arrow(np.array(values, np.uint16), kind))
        table = pa.Table.from_arrays(arrays, schema=CONNECTION_SCHEMA)
        pq.write_table(table, _private(self._temporary(CONNECTIONS)), compression="zstd", compression_level=1)
        _private(self._temporary(FACTS)).write_text(
            json.dumps(dict(facts), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        for name in WRITTEN:
            self._temporary(name).rename(self._folder / name)

    def _end(self) -> None:
        """Close the files, once no other thread writes to them; all of them, also where one cannot be finished."""
        for part in self._begun:
            part.drop()
        with contextlib.ExitStack() as last_first:
            for file in (*self._open_files, self._packets, self._options, self._kept, self._kept_bytes):
                last_first.callback(file.close)

    def abandon(self) -> None:
        """Take the half-written files away. What fails of that is not said: something else has failed before."""
        with contextlib.suppress(OSError, pa.ArrowException):
            self._end()
        for name in WRITTEN:
            with contextlib.suppress(OSError):
                self._temporary(name).unlink(missing_ok=True)


class Rows(NamedTuple):
    """The rows of a site's captures, or of a shard of them.

    ``columns``: an array per column of ``ROW_COLUMNS`` but ``bucket``; ``capture`` (i32) is each row's place in ``captures``. ``connection`` counts in
    ``connections``, which has a list per field (``client_ip``, ``client_port``, ``broker_ip``, ``broker_port``), sorted, so that the numbers do not depend on
    files. Kept runs, i64 each: ``kept_row`` in the columns, ``kept_offset`` in that packet's payload, ``kept_length``, and ``kept_at`` in ``data`` (u8).
    Rows are in the order of captures, and within one as its file has them: a later stage puts them in order of time.
    """

    columns: dict[str, Array]
    capture: Array
    captures: list[str]
    connections: dict[str, list[Any]]
    kept_row: Array
    kept_offset: Array
    kept_length: Array
    kept_at: Array
    data: Array

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.columns["timestamp"])


@contextlib.contextmanager
def _whole(folder: str | Path) -> Iterator[None]:
    """Working files of which one is lost or damaged are a UserError: Snakemake looks at their folder alone."""
    try:
        yield
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        said = inert(str(error))
        raise UserError(
            f"{folder}: found working files that cannot be read ({said}); expected those that split_capture left. "
            "Remove the folder and run the same command again: its capture is read again."
        ) from error


def read_facts(folder: str | Path) -> dict[str, Any]:
    """The facts of one capture (``facts.json``)."""
    with _whole(folder):
        facts: dict[str, Any] = json.loads((Path(folder) / FACTS).read_text(encoding="utf-8"))
    return facts


def read_provenance(folder: str | Path) -> dict[str, Any]:
    """What the working files of one capture were made from: its name and size, the brokers, the version."""
    with _whole(folder):
        provenance: dict[str, Any] = json.loads(pq.read_schema(Path(folder) / PACKETS).metadata[b"brokerlens"])
    return provenance


def read_connections(folder: str | Path) -> list[tuple[str, int, str, int, int]]:
    """Client's address and port, broker's address and port, and bucket of each connection of one capture, by its number."""
    with _whole(folder):
        table = pq.read_table(Path(folder) / CONNECTIONS)
    return list(zip(*(table.column(name).to_pylist() for name in (*CONNECTION_FIELDS, "bucket")), strict=True))


def _numpy(column: pa.ChunkedArray) -> Array:
    """A column as a numpy array, without a copy where that is possible. Raises ValueError where it has nulls, which no column here may."""
    if column.null_count:
        raise ValueError(f"{column.null_count} nulls in a column that has none")
    pieces = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [np.empty(0, np.int64)])


def _numbers(file: pq.ParquetFile, group: int, names: Collection[str]) -> dict[str, Array]:
    """These columns of a row group; KeyError if one is not there."""
    table = file.read_row_group(group, columns=list(names), use_threads=False)
    return {name: _numpy(table.column(name)) for name in names}


def _bytes(column: pa.ChunkedArray) -> Array:
    """All bytes of a binary column."""
    data = [np.empty(0, np.uint8)]
    for chunk in column.chunks:
        _, ends, values = chunk.buffers()
        if len(chunk):
            borders = np.frombuffer(ends, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            data.append(np.frombuffer(values, np.uint8)[borders[0] : borders[-1]])
    found = data[-1] if len(data) <= 2 else np.concatenate(data)
    found.flags.writeable = False  # as most are, so that kernels are compiled for one type
    return found


def _block(kinds: Mapping[str, type[np.generic]], count: int) -> dict[str, Array]:
    """Columns of so many zeros in one piece of memory: it is given back whole, small pieces would be kept for later. What is never written takes none."""
    return side_by_side(kinds, count, lambda size: np.zeros(size, np.uint8))


@contextlib.contextmanager
def _opened(folder: str, *names: str) -> Iterator[list[pq.ParquetFile]]:
    """These of a capture's working files."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(pq.ParquetFile(Path(folder) / name)) for name in names]


class _Part:
    """Room for what is read of one range of buckets: so many rows, kept runs and bytes of them."""

    def __init__(self, buckets: tuple[int, int], rows: int, runs: int, size: int) -> None:
        self.buckets = buckets
        self.columns = _block({name: kind for name, kind in ROW_COLUMNS.items() if name != "bucket"} | {"capture": np.int32}, rows)
        self.kept = _block(dict.fromkeys(("row", "offset", "length"), np.int64), runs)
        self.data = np.empty(size, np.uint8)
        self.rows = self.runs = self.bytes = 0

    def add(self, rows: Mapping[str, Array], options: Sequence[Array], kept: Mapping[str, Array], data: Array, start: Array) -> None:
        """Copy rows of a row group behind those before, their ``options`` (row, column, value), and their kept runs, whose bytes begin at ``data[start]``."""
        for name, values in rows.items():
            self.columns[name][self.rows : self.rows + len(values)] = values
        row, column, value = options
        for number in np.unique(column).tolist():
            mine = column == number
            self.columns[OPTION_COLUMNS[number]][row[mine].astype(np.int64) + self.rows] = value[mine]
        for name, values in kept.items():
            self.kept[name][self.runs : self.runs + len(values)] = values
        gather_bytes(data, start, kept["length"], self.data[self.bytes :])
        self.rows, self.runs, self.bytes = self.rows + len(rows["capture"]), self.runs + len(start), self.bytes + int(kept["length"].sum())

    def filled(self, captures: Sequence[str], connections: dict[str, list[Any]]) -> Rows:
        """The rows."""
        return Rows(
            capture=self.columns.pop("capture"),
            columns=self.columns,
            captures=list(captures),
            connections=connections,
            kept_row=self.kept["row"],
            kept_offset=self.kept["offset"],
            kept_length=self.kept["length"],
            kept_at=np.cumsum(self.kept["length"]) - self.kept["length"],
            data=self.data,
        )


def _room(folders: Sequence[str], ranges: Sequence[tuple[int, int]]) -> list[_Part]:
    """Room for the rows of each range, counted."""
    low, high = _reach(ranges)
    counts = np.zeros((len(ranges), 3), np.int64)
    for folder in folders:
        with _whole(folder), _opened(folder, PACKETS, KEPT) as (packets, kept):
            for group in _groups(packets, low, high):
                rows = _numbers(packets, group, ["bucket"])["bucket"]
                row, length = _numbers(kept, group, ["row", "length"]).values()
                for part, within in enumerate(np.searchsorted(rows, ranges)):
                    mine = length[(row >= within[0]) & (row < within[1])]
                    counts[part] += within[1] - within[0], len(mine), mine.sum(dtype=np.int64)
    return [_Part(buckets, *count) for buckets, count in zip(ranges, counts.tolist(), strict=True)]


def _reach(ranges: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The first bucket of all ranges, and the one behind the last."""
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _groups(file: pq.ParquetFile, low: int, high: int) -> list[int]:
    """The row groups that hold rows of the buckets ``low`` to ``high``, the end not included."""
    found = []
    for group in range(file.num_row_groups):
        metadata = file.metadata.row_group(group)
        statistics = metadata.column(0).statistics
        known = statistics is not None and statistics.has_min_max
        if metadata.num_rows and (not known or (statistics.min < high and statistics.max >= low)):
            found.append(group)
    return found


def read_rows(folders: Sequence[str | Path], ranges: Sequence[tuple[int, int]] = ((0, BUCKETS),)) -> Iterator[Rows]:
    """The rows of all captures with the given working folders, one `Rows` for each range of buckets (first, end).

    The files are read to count, and once more, however many ranges there are; the rows of a range leave the memory with it. Raises UserError where working files do not fit together.
    """
    facts = sorted((str(read_facts(folder)["capture"]), str(folder)) for folder in folders)
    tables = [read_connections(folder) for _, folder in facts]
    wanted = [sorted({row[:4] for table in tables for row in table if low <= row[4] < high}) for low, high in ranges]
    numbers = {ends: number for part in wanted for number, ends in enumerate(part)}
    parts = _room([folder for _, folder in facts], ranges)
    low, high = _reach(ranges)
    for capture, (_, folder) in enumerate(facts):
        renumbered = np.array([numbers.get(row[:4], 0) for row in tables[capture]], np.uint32)
        with _whole(folder), _opened(folder, *OF_GROUPS) as files:
            for group in _groups(files[0], low, high):
                if not _read_group(files, group, parts, renumbered, capture):
                    raise UserError(
                        f"{folder}: found rows, options or kept payload that do not belong together; expected the working files of one run. "
                        "Remove the folder and run the same command again: its capture is read again."
                    )
    names = [name for name, _ in facts]
    parts.reverse()
    for ends in wanted:
        yield parts.pop().filled(names, {name: [row[place] for row in ends] for place, name in enumerate(CONNECTION_FIELDS)})


def _read_group(files: Sequence[pq.ParquetFile], group: int, parts: Sequence[_Part], renumbered: Array, capture: int) -> bool:
    """Add the rows, options and kept runs of one row group of ``files`` (`OF_GROUPS`) to the parts that their buckets belong to.

    False if the files do not fit together: a row without its connection, a run or an option without its row, bytes that are not there.
    """
    packets, options, kept, kept_bytes = files
    rows = _numbers(packets, group, ARROW_TYPES)
    bucket = rows.pop("bucket")
    at, column, value = _numbers(options, group, OPTIONS_SCHEMA.names).values()
    row, offset, length = (values.astype(np.int64) for values in _numbers(kept, group, KEPT_SCHEMA.names).values())
    data = _bytes(kept_bytes.read_row_group(group, use_threads=False).column("data"))
    strays = ((rows["connection"], renumbered), (row, bucket), (at, bucket), (column, OPTION_COLUMNS))
    if any((numbers >= len(among)).any() for numbers, among in strays) or length.sum() != len(data):
        return False
    rows["connection"] = renumbered[rows["connection"]]
    rows["capture"] = np.full(len(bucket), capture, np.int32)
    order = order_runs(len(bucket), row, offset)
    start = np.cumsum(length) - length
    ordered = row[order]
    for part in parts:
        begin, end = np.searchsorted(bucket, part.buckets).tolist()
        if begin == end:
            continue
        first, last = np.searchsorted(ordered, (begin, end)).tolist()
        mine = order[first:last]
        runs = {"row": row[mine] - begin + part.rows, "offset": offset[mine], "length": length[mine]}
        here = (at >= begin) & (at < end)
        given = at[here] - begin, column[here], value[here]
        part.add({name: values[begin:end] for name, values in rows.items()}, given, runs, data, start[mine])
    return True
