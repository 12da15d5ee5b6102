"""TLS connections as streams of plaintext: the same streams as others, of records instead of segments.

A byte of plaintext is seen when the last byte of its record is, for nobody can use it before. A frame begins, all the same, with the first byte of the record
in which its first byte lies; `Plaintext.locate` says which record, and so which packets, a stretch of plaintext came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brokerlens.tls.keys import KeyLog
from brokerlens.tls.outcomes import BEGAN_BEFORE, CUT, DECRYPTED, HOLE, IN_PART, NO_KEY, NOTHING
from brokerlens.tls.records import (
    APPLICATION,
    CLIENT_HELLO,
    SERVER_HELLO,
    Direction,
    Int64s,
    Stop,
    bytes_behind,
    read_direction,
    sights,
)
from brokerlens.wireshark.decryption import Record, decrypt

if TYPE_CHECKING:
    from brokerlens.tcp.stream import Streams

Column = NDArray[Any]

BATCH_BYTES: Final = 64 << 20
"""Of TLS records that one tshark gets, or one connection: it takes about three times as much memory."""
BEGIN: Final = 1 << 32
"""Position of the first byte of plaintext."""

OF_STOP: Final = {Stop.HOLE: HOLE, Stop.CUT: CUT}


class Conversation(NamedTuple):
    """A connection whose handshake stands in the captures: its number, and the records of its client and of its broker."""

    connection: int
    sides: tuple[Direction, Direction]


@dataclass
class _Opened:
    """What was opened of a direction: numbers and plaintext of its records of application data, and how many records were used at all."""

    numbers: list[int]
    plaintext: list[bytes]
    used: int = 0
    protected: int = 0  # records that needed a key and were opened
    blocked: bool = False  # the next record could not be


@dataclass
class Plaintext:
    """Streams in which decrypted directions are those of their plaintext; only what was sent ``again`` stays in positions on the wire.

    ``is_tls`` [C]: the connection is TLS by its handshake; ``outcome`` [C]: what became of it, of others why their first bytes are not there (place in
    `OUTCOMES`). ``is_open`` [2C]: the direction's positions are those of plaintext.
    ``unread`` [2C]: bytes of an open direction that could not be decrypted. Of the records with application data of all open directions, in order:
    ``direction``, ``begins`` and ``ends`` in plaintext, ``record_begins`` and ``record_ends`` (positions on the wire), ``first_time`` and ``last_time``
    (ns) of the record's first and last byte.
    """

    streams: Streams
    is_tls: NDArray[np.bool_]
    outcome: NDArray[np.uint8]
    is_open: NDArray[np.bool_]
    unread: Int64s
    direction: Int64s
    begins: Int64s
    ends: Int64s
    record_begins: Int64s
    record_ends: Int64s
    first_time: Int64s
    last_time: Int64s

    def locate(self, direction: Int64s, start: Int64s, size: Int64s) -> Located:
        """Where stretches of the streams came in; arrays of one length, stretches of other directions as they are."""
        none = np.full(len(start), -1, np.int64)
        located = Located(start.copy(), size.copy(), self.is_open[direction], none, none.copy())
        inside = np.flatnonzero(located.is_plaintext)
        if len(inside) and len(self.direction):
            span = int(max(self.ends.max(), (start[inside] + size[inside]).max())) + 1
            axis = self.direction * span + self.begins
            first, last = (
                np.searchsorted(axis, direction[inside] * span + position, side="right") - 1
                for position in (start[inside], start[inside] + size[inside] - 1)
            )
            located.start[inside] = self.record_begins[first]
            located.size[inside] = self.record_ends[last] - self.record_begins[first]
            located.first_time[inside] = self.first_time[first]
            located.captured[inside] = np.minimum(start[inside] + size[inside], self.ends[last]) - start[inside]
        return located


class Located(NamedTuple):
    """Stretches on the wire: position and bytes.

    Where ``is_plaintext`` they are those of whole records, with the time of the first one's first byte (ns) and how many bytes of plaintext are there; else -1.
    """

    start: Int64s
    size: Int64s
    is_plaintext: NDArray[np.bool_]
    first_time: Int64s
    captured: Int64s


def decrypt_streams(streams: Streams, keys: KeyLog) -> Plaintext:
    """Decrypt what the keys open of all connections.

    ``streams`` as `tcp.stream.assemble` makes them. Raises UserError where tshark is missing or fails.
    """
    connections = len(streams.origin) // 2
    is_tls = np.zeros(connections, np.bool_)
    outcome = np.zeros(connections, np.uint8)
    unread = np.zeros(2 * connections, np.int64)
    opened: dict[int, tuple[Direction, _Opened]] = {}
    for batch in _batches(_conversations(streams, keys, is_tls, outcome)):
        for talk, found in zip(batch, _open(streams, batch, keys), strict=True):
            outcome[talk.connection] = _outcome(talk, found)
            if not any(side.protected for side in found):
                continue
            for side, (direction, of_side) in enumerate(zip(talk.sides, found, strict=True)):
                d = 2 * talk.connection + side
                opened[d] = direction._replace(data=b""), of_side
                if of_side.blocked or direction.stop is not Stop.END:
                    unread[d] = bytes_behind(streams, d, direction.begin + int(direction.ends[of_side.used - 1] if of_side.used else 0))
    return _assemble(streams, is_tls, outcome, unread, opened)


def _conversations(streams: Streams, keys: KeyLog, is_tls: NDArray[np.bool_], outcome: NDArray[np.uint8]) -> Iterator[Conversation]:
    """The connections whose handshake is there and for which there may be a key; what becomes of others goes into ``is_tls`` and ``outcome``."""
    for connection in range(len(outcome)):
        client, broker = (read_direction(streams, 2 * connection + side) for side in (0, 1))
        asks, answers = client is not None and client.begins_with(CLIENT_HELLO), broker is not None and broker.begins_with(SERVER_HELLO)
        is_tls[connection] = asks or answers
        if client is not None and broker is not None and asks and answers and len(client.ends) and len(broker.ends):
            if keys.may_open(client.random):
                yield Conversation(connection, (client, broker))
            else:
                outcome[connection] = NO_KEY
        elif asks or answers:
            outcome[connection] = _why_no_handshake(streams, connection, client, broker)
        else:
            outcome[connection] = _why_no_start(client, broker)


def _why_no_handshake(streams: Streams, connection: int, client: Direction | None, broker: Direction | None) -> int:
    """Why the handshake of a connection that is TLS is not there."""
    for side, direction in enumerate((client, broker)):
        known = streams.origin[2 * connection + side] >= 0
        if not known and (direction is None or not direction.begins_with((CLIENT_HELLO, SERVER_HELLO)[side])):
            if streams.seen_first[2 * connection + side] < streams.seen_first[2 * connection + side + 1]:
                return BEGAN_BEFORE
    went_on = any(direction is not None and direction.has_application_data for direction in (client, broker))
    return _why_no_start(client, broker) or (HOLE if went_on else NOTHING)


def _why_no_start(client: Direction | None, broker: Direction | None) -> int:
    """Why the first record of a direction is not there."""
    without = [direction for direction in (client, broker) if direction is not None and len(direction.ends) == 0]
    return max((OF_STOP.get(direction.stop, NOTHING) for direction in without), default=NOTHING)


def _batches(conversations: Iterable[Conversation]) -> Iterator[list[Conversation]]:
    """Conversations together as long as one tshark can hold them."""
    batch: list[Conversation] = []
    size = 0
    for talk in conversations:
        more = sum(len(direction.data) for direction in talk.sides)
        if batch and size + more > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(talk)
        size += more
    if batch:
        yield batch


def _open(streams: Streams, batch: Sequence[Conversation], keys: KeyLog) -> list[list[_Opened]]:
    """What tshark opens of each conversation's client and broker."""
    order = [(number, *place) for number, talk in enumerate(batch) for place in _order(streams, talk)]
    records = [Record(number, side, batch[number].sides[side].record(place)) for number, side, place in order]
    lines = keys.lines(talk.sides[0].random for talk in batch)
    found = [[_Opened([], []) for _ in talk.sides] for talk in batch]
    for (number, side, place), record, plaintext in zip(order, records, decrypt(lines, records), strict=True):
        of_side = found[number][side]
        if plaintext is None or of_side.blocked:
            of_side.blocked = True
            continue
        of_side.used = place + 1
        of_side.protected += record.data[0] == APPLICATION
        if plaintext:
            of_side.numbers.append(place)
            of_side.plaintext.append(plaintext)
    return found


def _order(streams: Streams, talk: Conversation) -> list[tuple[int, int]]:
    """Side and number of a conversation's records as they became whole: both hellos first, then by the last byte of each and of all before it."""
    places = []
    for side, direction in enumerate(talk.sides):
        whole = np.maximum.accumulate(sights(streams, 2 * talk.connection + side, direction.begin + direction.ends - 1))
        whole[:1] = side - 2  # before all times
        places += [(int(time), side, number) for number, time in enumerate(whole)]
    return [(side, number) for _, side, number in sorted(places)]


def _outcome(talk: Conversation, found: Sequence[_Opened]) -> int:
    """What became of a conversation whose handshake is there."""
    stops = [Stop.HOLE if direction.stop is Stop.NO_RECORD else direction.stop for direction in talk.sides]
    gap = min((OF_STOP[stop] for stop in stops if stop in OF_STOP), default=NOTHING)
    is_opened, lacks_key = any(side.protected for side in found), any(side.blocked for side in found)
    if is_opened:
        return gap or (IN_PART if lacks_key else DECRYPTED)
    return NO_KEY if lacks_key else gap


def _assemble(
    streams: Streams, is_tls: NDArray[np.bool_], outcome: NDArray[np.uint8], unread: Int64s, opened: Mapping[int, tuple[Direction, _Opened]]
) -> Plaintext:
    """The streams with the plaintext of the directions that were opened in place of their records."""
    is_open = np.zeros(len(streams.origin), np.bool_)
    is_open[list(opened)] = True
    origin = np.where(is_open, BEGIN, streams.origin)
    pieces: list[bytes] = []
    rows: list[Int64s] = []  # columns of `Plaintext` from `direction` on
    seen: dict[int, Sequence[Column]] = {}
    content: dict[int, Sequence[Column]] = {}
    at = len(streams.data)
    for d, (direction, of_side) in sorted(opened.items()):
        numbers = np.array(of_side.numbers, np.int64)
        ends = BEGIN + np.cumsum([len(text) for text in of_side.plaintext], dtype=np.int64)
        begins = np.concatenate([[BEGIN], ends[:-1]])[: len(ends)].astype(np.int64)
        record_begins, record_ends = direction.begin + direction.starts[numbers], direction.begin + direction.ends[numbers]
        first_time, last_time = sights(streams, d, record_begins), sights(streams, d, record_ends - 1)
        rows.append(np.stack([np.full(len(ends), d), begins, ends, record_begins, record_ends, first_time, last_time]))
        seen[d] = begins, ends, last_time
        some = ends[-1:]  # all of it is one piece
        content[d] = begins[: len(some)], some, np.full(len(some), at), np.ones(len(some), np.bool_)
        pieces += of_side.plaintext
        at += int(ends[-1]) - BEGIN if len(ends) else 0
    seen_first, (seen_from, seen_to, seen_time) = _spliced(
        streams.seen_first, (streams.seen_from, streams.seen_to, streams.seen_time), seen
    )
    content_first, (content_from, content_to, content_at, content_segment) = _spliced(
        streams.content_first, (streams.content_from, streams.content_to, streams.content_at, streams.content_segment), content
    )
    plain = streams._replace(
        origin=origin,
        seen_first=seen_first,
        seen_from=seen_from,
        seen_to=seen_to,
        seen_time=seen_time,
        content_first=content_first,
        content_from=content_from,
        content_to=content_to,
        content_at=content_at,
        content_segment=content_segment,
        data=np.concatenate([streams.data, np.frombuffer(b"".join(pieces), np.uint8)]) if pieces else streams.data,
    )
    columns = np.concatenate(rows, axis=1) if rows else np.empty((7, 0), np.int64)
    return Plaintext(plain, is_tls, outcome, is_open, unread, *columns)


def _spliced(first: Int64s, columns: Sequence[Column], new: Mapping[int, Sequence[Column]]) -> tuple[Int64s, list[Column]]:
    """Offsets and entries per direction, with those of some directions replaced."""
    counts = np.diff(first)
    parts: list[list[Column]] = [[] for _ in columns]
    at = 0
    for d in sorted(new):
        for part, column, values in zip(parts, columns, new[d], strict=True):
            part += [column[at : first[d]], values]
        counts[d] = len(new[d][0])
        at = int(first[d + 1])
    for part, column in zip(parts, columns, strict=True):
        part.append(column[at:])
    return np.concatenate([[0], np.cumsum(counts)]), [np.concatenate(part) for part in parts]
