"""Byte streams as captures show them, in plain Python: packets, cuts, and the twin of `tcp.stream`.

Slow and readable on purpose: whole streams are put together byte by byte, nothing is shared with the kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import tcp_packets
from numpy.typing import NDArray

from brokerlens.kafka import keep, layouts
from brokerlens.kafka.frames import Fields, Frames, StreamFacts, follow_connections
from brokerlens.tcp import order, segments, stream
from brokerlens.tcp.stream import Streams

FIN, SYN, RST, ACK = 1, 2, 4, 16


@dataclass(frozen=True)
class Packet:
    """One packet of one connection; `number` is what makes it this packet, in whichever captures it is."""

    number: int
    time: int
    side: int
    seq: int
    payload: bytes = b""
    flags: int = ACK
    captured: int = 1 << 20
    connection: int = 0
    duplicate: bool = False

    @property
    def there(self) -> bytes:
        return self.payload[: self.captured]


Run = tuple[int, bytes]


@dataclass
class Arrived:
    """A packet after dedupe: the runs of its payload that are there."""

    packet: Packet
    runs: list[Run] = field(default_factory=list)


def segments_of(table: NDArray[np.int64], row: int) -> keep.Segments:
    """Packets, a row each of six numbers, as the split gives them to the keeper; ``row`` is the first one's."""
    kinds = (np.int64, np.uint32, np.uint16, np.int64, np.uint32, np.uint32)
    return keep.Segments._make([*(table[:, column].astype(kind) for column, kind in enumerate(kinds)), row])


def split(capture: Sequence[Packet], chunk: int = 1 << 30, group: int = 1 << 30) -> tuple[list[Arrived], dict[str, object]]:
    """What `Keeper` keeps of a capture."""
    buffer = bytearray(64)
    columns: list[tuple[int, ...]] = []
    for packet in capture:
        columns.append(
            (
                2 * packet.connection + packet.side,
                packet.seq & 0xFFFFFFFF,
                packet.flags,
                len(buffer),
                len(packet.there),
                len(packet.payload),
            )
        )
        buffer += packet.there
    table = np.array(columns, np.int64).reshape(-1, 6)
    data = np.frombuffer(bytes(buffer), np.uint8).copy()
    keeper, kept = keep.Keeper(), keep.KeptRuns()
    arrived = [Arrived(packet) for packet in capture]

    def flush() -> None:
        at = 0
        for row, offset, length in zip(
            kept.row[: kept.runs].tolist(), kept.offset[: kept.runs].tolist(), kept.length[: kept.runs].tolist(), strict=True
        ):
            arrived[row].runs.append((offset, kept.data[at : at + length].tobytes()))
            at += length
        kept.clear()

    done = 0
    for first in range(0, len(table), chunk):
        while done < min(first + chunk, len(table)):
            done += keeper.follow(data, segments_of(table[done : first + chunk], done), kept)
            flush()
    for one in arrived:
        for offset, run in one.runs:
            assert run == one.packet.there[offset : offset + len(run)]
    return arrived, keeper.facts()


def whole(capture: Sequence[Packet]) -> list[Arrived]:
    """All that a capture holds."""
    return [Arrived(packet, [(0, packet.there)] if packet.there else []) for packet in capture]


def unite(captures: Iterable[Sequence[Arrived]]) -> list[Arrived]:
    """One of each packet, in the order of time, ties by content; what was kept of it anywhere united."""
    found: dict[int, Arrived] = {}
    for capture in captures:
        for arrived in capture:
            first = found.setdefault(arrived.packet.number, Arrived(arrived.packet))
            first.runs = _united(first.runs + arrived.runs)
    return sorted(found.values(), key=lambda arrived: _order(arrived.packet))


def _order(packet: Packet) -> tuple[object, ...]:
    return (packet.time, not packet.flags & SYN, packet.side, packet.seq, len(packet.payload), packet.payload, packet.number)


def _united(runs: list[Run]) -> list[Run]:
    out: list[Run] = []
    for offset, data in sorted(runs):
        if out and offset <= out[-1][0] + len(out[-1][1]):
            start, before = out[-1]
            out[-1] = (start, before + data[max(0, start + len(before) - offset) :])
        else:
            out.append((offset, data))
    return out


class Piece(NamedTuple):
    start: int
    stop: int
    value: int
    begins: bool


def _add(pieces: list[Piece], start: int, stop: int, value: int, step: int, begins: bool) -> None:
    """The parts of start..stop that no piece holds yet; `value` grows with the position by `step`."""
    if not pieces or pieces[-1].stop <= start:
        if start < stop:
            pieces.append(Piece(start, stop, value, begins))
        return
    at = start
    new = []
    for piece in pieces:
        if piece.stop <= at:
            continue
        if piece.start >= stop or at >= stop:
            break
        if piece.start > at:
            new.append(Piece(at, piece.start, value + step * (at - start), begins and at == start))
        at = piece.stop
    if at < stop:
        new.append(Piece(at, stop, value + step * (at - start), begins and at == start))
    pieces += new
    pieces.sort()


def assemble(packets: Sequence[Arrived], connections: int = 1) -> Streams:
    """Both directions of every connection: what was seen when, and what is there."""
    data = bytearray()
    origin = []
    seen: list[list[Piece]] = []
    content: list[list[Piece]] = []
    for d in range(2 * connections):
        mine = [arrived for arrived in packets if 2 * arrived.packet.connection + arrived.packet.side == d]
        origin.append(-1)
        seen.append([])
        content.append([])
        near = next((arrived.packet.seq + (1 << 32) for arrived in mine), 0)
        for arrived in mine:
            packet = arrived.packet
            position = near + ((packet.seq - near + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
            if packet.flags & SYN:
                position += 1
                origin[d] = position
            if packet.flags & RST:
                continue
            stop = position + len(packet.payload)
            near = max(near, stop)
            if not packet.duplicate:
                _add(seen[d], position, stop, packet.time, 0, begins=False)
            for offset, run in arrived.runs:
                _add(content[d], position + offset, position + offset + len(run), len(data), 1, begins=offset == 0)
                data += run
    numbers = np.int64

    def column(pieces: list[list[Piece]], name: str) -> np.ndarray:
        return np.array([getattr(piece, name) for one in pieces for piece in one], np.bool_ if name == "begins" else numbers)

    def offsets(pieces: list[list[Piece]]) -> np.ndarray:
        return np.concatenate([[0], np.cumsum([len(one) for one in pieces])]).astype(numbers)

    none = np.zeros(0, numbers)
    return Streams(
        np.array(origin, numbers),
        offsets(seen),
        column(seen, "start"),
        column(seen, "stop"),
        column(seen, "value"),
        offsets(content),
        column(content, "start"),
        column(content, "stop"),
        column(content, "value"),
        column(content, "begins"),
        np.zeros(2 * connections + 1, numbers),
        none,
        none,
        np.frombuffer(bytes(data), np.uint8).copy(),
    )


class Row(NamedTuple):
    """A frame with its fields, comparable."""

    connection: int
    side: int
    start: int
    size: int
    first: int
    last: int
    key: int
    version: int
    correlation: int
    client: bytes | None
    partner: int
    body: int
    header: int
    fields: tuple[tuple[str, int | bytes | None], ...]


def rows(frames: Frames, fields: Fields) -> list[Row]:
    text = fields.text.tobytes()
    reported: list[list[tuple[str, int | bytes | None]]] = [[] for _ in frames.start]
    for frame, number, value, start, size in zip(*(column.tolist() for column in fields[:5]), strict=True):
        name = layouts.FIELD_NAMES[number]
        is_text = name in {
            "topic",
            "topic_id",
            "forgotten_topic",
            "forgotten_topic_id",
            "host",
            "cluster_id",
            "software_name",
            "software_version",
        }
        if name == "batch_end":
            continue  # a place, not what the frame says
        reported[frame].append((name, (text[start : start + size] if size >= 0 else None) if is_text else value))
    out = []
    for i, values in enumerate(zip(*(column.tolist() for column in frames), strict=True)):
        by_name = dict(zip(Frames._fields, values, strict=True))
        size = by_name["client_size"]
        out.append(
            Row(
                connection=by_name["connection"],
                side=by_name["side"],
                start=by_name["start"],
                size=by_name["size"],
                first=by_name["first_time"],
                last=by_name["last_time"],
                key=by_name["api_key"],
                version=by_name["api_version"],
                correlation=by_name["correlation_id"],
                client=text[by_name["client_from"] : by_name["client_from"] + size] if size >= 0 else None,
                partner=by_name["partner"],
                body=by_name["body"],
                header=by_name["header"],
                fields=tuple(reported[i]),
            )
        )
    return out


class Followed(NamedTuple):
    rows: list[Row]
    framing: list[int]
    skipped: list[int]
    encrypted: list[bool]
    oddities: dict[str, int]


def follow(packets: Sequence[Arrived], connections: int = 1) -> Followed:
    return followed(assemble(packets, connections), connections)


def followed(streams: Streams, connections: int) -> Followed:
    frames, fields, facts = follow_connections(streams, connections)
    return Followed(
        rows(frames, fields),
        facts.framing.tolist(),
        facts.skipped_bytes.tolist(),
        facts.encrypted.tolist(),
        {name: int(counts.sum()) for name, counts in facts.oddities.items()},
    )


def merge(captures: Sequence[Sequence[Arrived]]) -> Followed:
    """Frames of one connection by the merge's own passes: order, copies, sequence space, streams, frames. Times are those of the packets."""
    packets = sorted((arrived.packet for capture in captures for arrived in capture), key=lambda packet: (packet.time, packet.duplicate))
    ids: dict[int, int] = {}
    latest: dict[tuple[int, int, bytes], int] = {}
    for packet in packets:  # a copy has its original's IP id
        what = (packet.side, packet.seq, packet.payload)
        ids[packet.number] = latest[what] if packet.duplicate and what in latest else packet.number + 1
        latest[what] = ids[packet.number]
    first = {packet.side: packet.seq for packet in reversed(packets)}
    shown = [
        tcp_packets.Packet(
            time=packet.time,
            side=packet.side,
            seq=packet.seq,
            ack=first.get(0, 0) + 1 if packet.flags == SYN | ACK else 0,
            flags=packet.flags if packet.flags & SYN else packet.flags & ~ACK,
            payload=len(packet.payload),
            ip_id=ids[packet.number],
            captured=len(packet.there),
            kept=tuple(arrived.runs),
            capture=number,
        )
        for number, capture in enumerate(captures)
        for arrived in capture
        for packet in [arrived.packet]
    ]
    rows_of_captures = tcp_packets.rows_of(shown)
    ordered = order.order_packets(rows_of_captures)
    streams = stream.assemble(rows_of_captures, ordered, segments.follow_segments(rows_of_captures, ordered)[0])
    found = followed(streams, len(ordered.address))
    return found._replace(rows=[row._replace(first=since(row.first), last=since(row.last)) for row in found.rows])


def since(time: int) -> int:
    """A time as the packets of these tests count it; -1 stays none."""
    return time if time < 0 else time - tcp_packets.T0


def facts_of(packets: Sequence[Arrived]) -> StreamFacts:
    return follow_connections(assemble(packets), 1)[2]


def segmented(side: int, data: bytes, seq: int, time: int, size: int, first: int = 0) -> list[Packet]:
    """A write as packets of at most `size` bytes, 10 µs apart."""
    return [
        Packet(first + i, time + 10_000 * i, side, (seq + at) & 0xFFFFFFFF, data[at : at + size])
        for i, at in enumerate(range(0, len(data), size))
    ]


def renumbered(packets: Iterable[Packet]) -> list[Packet]:
    return [replace(packet, number=i) for i, packet in enumerate(packets)]
