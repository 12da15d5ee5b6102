"""Split one capture: keep the TCP packets to and from the site's brokers as rows, and the payload that Kafka's frames need."""

from brokerlens import job  # isort: skip  # first: it tells the libraries below how many threads they may use

import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from brokerlens import __version__
from brokerlens.capture.columns import Array, new_columns
from brokerlens.capture.headers import END_COLUMNS, FIELDS, read_headers
from brokerlens.capture.helpers import Helpers
from brokerlens.capture.layers import OTHER_ENDPOINT, SKIPPED, UNKNOWN_LINK
from brokerlens.capture.lookup import ConnectionTable, broker_table, busiest, count_endpoint, new_endpoints
from brokerlens.capture.reader import CHUNK_BYTES, SCRATCH, Capture, Chunk
from brokerlens.capture.working import Writer
from brokerlens.errors import UserError
from brokerlens.kafka.keep import GROUP_BYTES, Keeper, KeptRuns, Segments
from brokerlens.wireshark import tools
from brokerlens.wireshark.packets import Packet, Row, endpoints, read_row

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

GROUP_ROWS = 131_072
BATCH = 4096  # packets of tshark's that are taken at once


class Follower(Protocol):
    """What decides which payload is kept (``kafka.keep.Keeper``)."""

    def follow(self, buffer: Array, segments: Segments, kept: KeptRuns) -> int:
        """Handle the segments; returns how many were: fewer than there are where ``kept`` is full."""

    def facts(self) -> dict[str, Any]:
        """Bytes kept by reason, and bytes dropped at the cap."""


class Splitter:
    """Takes a capture's chunks and fills row groups: headers, connections, payload to keep."""

    def __init__(self, brokers: Sequence[str], writer: Writer, keeper: Follower) -> None:
        self.connections = ConnectionTable()
        self.endpoints = new_endpoints()
        self.skipped = np.zeros(len(SKIPPED), np.int64)
        self.kept_rows = 0
        self._brokers = broker_table(brokers)
        self._places = {(high, low, port): place for place, (high, low, port) in enumerate(self._brokers.tolist(), 1)}
        self._writer = writer
        self._keeper = keeper
        self._columns = new_columns(GROUP_ROWS)
        self._ends = np.zeros((GROUP_ROWS, END_COLUMNS), np.int64)
        self._fields = np.zeros(FIELDS, np.int64)
        self._directions = np.zeros(GROUP_ROWS, np.int64)
        self._payload_at = np.zeros(GROUP_ROWS, np.int64)
        self._runs = KeptRuns()
        # For the next group while this one is written; one is enough where nothing else is done meanwhile, and stays in the cache.
        self._spare = (new_columns(GROUP_ROWS), KeptRuns()) if writer.writes_meanwhile else (self._columns, self._runs)
        self._rows = 0  # in the row group being filled

    @property
    def ports(self) -> list[int]:
        """The brokers' ports."""
        return sorted({port for _, _, port in self._places})

    def split(self, chunk: Chunk) -> None:
        """Take all packets of a chunk."""
        packet = 0
        while packet < chunk.found:
            begin = self._rows
            packet, end = read_headers(
                chunk.buffer,
                chunk.packets,
                packet,
                chunk.found,
                chunk.frame_number,
                self._brokers,
                self.endpoints,
                self.kept_rows == 0,
                self._columns,
                begin,
                self._ends,
                self._payload_at,
                self.skipped,
                self._fields,
            )
            self.kept_rows += end - begin
            self.connections.find(self._ends, end - begin, self._columns, begin, self._directions)
            self._rows = end
            self._follow(chunk.buffer, begin)

    def take(self, packets: Sequence[Packet]) -> None:
        """Take packets that tshark dissected."""
        rows = []
        for packet in packets:
            row = read_row(packet, self._places)
            if isinstance(row, Row):
                rows.append(row)
                self.kept_rows += 1
                continue
            self.skipped[row] += 1
            if row == OTHER_ENDPOINT and self.kept_rows == 0:
                for end in endpoints(packet):
                    count_endpoint(self.endpoints, *end)
        while rows:
            room = GROUP_ROWS - self._rows
            self._take_rows(rows[:room])
            rows = rows[room:]

    def _take_rows(self, rows: Sequence[Row]) -> None:
        """Put rows, for which there is room, into the row group, and their payload behind one another into a buffer."""
        begin, count = self._rows, len(rows)
        end = begin + count
        for name in rows[0].columns:
            getattr(self._columns, name)[begin:end] = [row.columns[name] for row in rows]
        self._ends[:count] = [row.ends for row in rows]
        buffer = np.frombuffer(bytes(SCRATCH) + b"".join(row.payload for row in rows), np.uint8).copy()
        self._payload_at[:count] = SCRATCH + np.cumsum([0, *(len(row.payload) for row in rows[:-1])])
        self.connections.find(self._ends, count, self._columns, begin, self._directions)
        self._rows = end
        self._follow(buffer, begin)

    def finish(self) -> None:
        """Write what is left."""
        if self._rows:
            self._write(self._rows)

    def _follow(self, buffer: Array, begin: int) -> None:
        """Let the keeper take the payload of the rows from ``begin`` on; row groups that are full are written."""
        taken = 0
        while True:
            done = self._keeper.follow(buffer, self._segments(taken, begin), self._runs)
            written, last = begin + done, begin + done == self._rows
            if last and written < GROUP_ROWS and self._runs.bytes < GROUP_BYTES:
                return
            self._write(written)
            if last:
                return
            taken, begin = taken + done, 0

    def _segments(self, taken: int, begin: int) -> Segments:
        """The rows from ``begin`` on; ``taken`` of the chunk's are behind."""
        columns, rows = self._columns, slice(begin, self._rows)
        packets = slice(taken, taken + self._rows - begin)
        return Segments(
            direction=self._directions[packets],
            seq=columns.seq[rows],
            flags=columns.flags[rows],
            payload_at=self._payload_at[packets],
            payload_captured=columns.payload_captured[rows],
            payload_len=columns.payload_len[rows],
            row=begin,
        )

    def _write(self, count: int) -> None:
        """Write the first rows as a row group; the others begin the next one, in the arrays of the group before, which is written by now."""
        runs, columns = self._runs, self._columns
        kept = runs.row[: runs.runs], runs.offset[: runs.runs], runs.length[: runs.runs], runs.data[: runs.bytes]
        self._writer.add_group({name: column[:count] for name, column in columns._asdict().items()}, *kept)
        rest = self._rows - count
        (self._columns, self._runs), self._spare = self._spare, (columns, runs)
        for column, before in zip(self._columns, columns, strict=True):
            column[:rest] = before[count : self._rows]
        self._runs.clear()
        self._rows = rest


def capture_facts(capture: Capture, name: str, splitter: Splitter, keeper: Follower) -> dict[str, Any]:
    """What ``facts.json`` says of a capture that was read to its end."""
    return {
        "capture": name,
        "format": capture.format,
        "link_types": sorted(capture.links),
        "packets": splitter.kept_rows + int(splitter.skipped.sum()),
        "kept": splitter.kept_rows,
        "skipped": {reason: int(count) for reason, count in zip(SKIPPED, splitter.skipped, strict=True) if count},
        "first_seen": capture.first_time if capture.first_time >= 0 else None,
        "last_seen": capture.last_time if capture.last_time >= 0 else None,
        "truncated": capture.truncated,
        "time_backsteps": capture.backsteps,
        "secrets_blocks": capture.secrets,
        "endpoints": busiest(splitter.endpoints) if splitter.kept_rows == 0 else [],
        **keeper.facts(),
    }


def read_natively(source: Capture, splitter: Splitter) -> None:
    """Take all packets of a capture."""
    for chunk in source.chunks():
        splitter.split(chunk)
    splitter.finish()


def read_by_wireshark(source: Capture, splitter: Splitter) -> None:
    """Take all packets of a capture as Wireshark dissects them. What file it is and where it is damaged, the native reader tells."""
    for _ in source.chunks():
        pass
    dissection = tools.Dissection(source.path, splitter.ports)
    for packets in _batches(dissection.packets()):
        splitter.take(packets)
    splitter.finish()
    if dissection.damage and not source.truncated:
        source.truncated = f"tshark says {dissection.damage!r}: used are the packets before that."


def _batches(packets: Iterator[Packet]) -> Iterator[list[Packet]]:
    while batch := list(itertools.islice(packets, BATCH)):
        yield batch


DECODERS = {"native": read_natively, "wireshark": read_by_wireshark}


def split_capture(
    *,
    capture: str,
    name: str,
    brokers: Sequence[str],
    output: str,
    threads: int = 1,
    decoder: str = "native",
    keep_tls: bool = False,
    keeper: Follower | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> None:
    """Write the working files of one capture (docs/architecture.md) into the folder ``output``.

    ``name`` is the capture's name as shown to people; ``brokers`` are ``ip:port`` or ``[ipv6]:port``. ``decoder`` is one of ``DECODERS``; ``native``
    leaves a capture with packets of an unknown link type to ``wireshark``, where that is installed and can read it. With ``keep_tls`` the payload of TLS
    connections is kept whole, for a site with keys. Of several ``threads`` one reads headers and follows frames, the others read the file ahead and write: the files are
    the same.
    Raises CaptureError where the file cannot be used at all; what can be used of a damaged one is used, and the facts say so.
    """

    def split(decoder: str, notice: str = "", advice: str = "") -> str:
        """Split the capture; returns what is to be noticed, to which ``advice`` is added."""
        with Helpers(threads - 1) as helpers:
            source = Capture(capture, chunk_bytes, helpers=helpers)
            follower = keeper or Keeper(keep_tls)
            writer = Writer(output, {"version": __version__, "capture": name, "bytes": source.size, "brokers": list(brokers)}, helpers)
            try:
                splitter = Splitter(brokers, writer, follower)
                DECODERS[decoder](source, splitter)
                if decoder == "native" and splitter.skipped[UNKNOWN_LINK]:
                    links = ", ".join(map(str, sorted(source.links)))
                    count = int(splitter.skipped[UNKNOWN_LINK])
                    notice = f"{count:,} packet{'' if count == 1 else 's'} of a link type that only Wireshark may know (there are {links})"
                facts = capture_facts(source, name, splitter, follower)
                notes = [note for note in (notice, advice) if note and notice]
                if source.secrets and not keep_tls:
                    notes.append("the capture holds TLS keys that are not used: set the site's `tls_keylog` to `captures`")
                writer.close(facts | {"notices": notes}, splitter.connections.rows())
            except BaseException:
                writer.abandon()
                raise
        return notice

    notice = split(decoder, advice="" if tools.installed() else f"install it and run again: {tools.INSTALL}")
    if notice and tools.installed():
        try:
            split("wireshark", notice, "the capture was read by Wireshark")
        except UserError as error:
            split("native", advice=f"Wireshark failed: {error}")


def do_without_scipy() -> None:
    """Keep numba from importing scipy.linalg at the first call of a kernel: half of the time of a small capture, and no kernel here needs it.

    Only for a process that does nothing but split.
    """
    sys.modules.setdefault("scipy.linalg", None)  # type: ignore[arg-type]  # None is how an import is ruled out


if __name__ == "__main__":
    do_without_scipy()
    with job.logged(snakemake):
        split_capture(
            capture=snakemake.input.capture,
            name=snakemake.params.split["name"],
            brokers=snakemake.params.split["brokers"],
            decoder=snakemake.params.split["decoder"],
            keep_tls=snakemake.params.split["keep_tls"],
            output=snakemake.output.folder,
            threads=snakemake.threads,
        )
