"""TLS records in the streams of a connection (RFC 8446, 5.1), as far as they stand there without a hole."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from brokerlens.tcp.stream import Streams

Int64s = NDArray[np.int64]

HEADER: Final = 5  # type, version, length
HANDSHAKE: Final = 22
APPLICATION: Final = 23
TYPES: Final = range(20, 25)
LONGEST: Final = (1 << 14) + 2048  # of TLS 1.2; TLS 1.3 allows less
HELLO: Final = tuple(bytes((HANDSHAKE, 3, minor)) for minor in range(5))  # how a handshake record begins
CLIENT_HELLO: Final = 1
SERVER_HELLO: Final = 2
RANDOM: Final = slice(11, 43)  # of a ClientHello's record


class Stop(Enum):
    """Why a direction's records end where they do."""

    END = "the capture has no more of them"
    HOLE = "bytes were not captured"
    CUT = "the snaplen cut bytes off"
    NO_RECORD = "what follows is no TLS record"


class Direction(NamedTuple):
    """The whole records of a direction, one behind another: ``data`` from position ``begin`` on, ``ends`` behind each of them (offsets)."""

    begin: int
    data: bytes
    ends: Int64s
    stop: Stop

    @property
    def starts(self) -> Int64s:
        """Where each record begins (offsets)."""
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)[: len(self.ends)]

    def record(self, number: int) -> bytes:
        """A record with its header."""
        return self.data[int(self.ends[number - 1]) if number else 0 : int(self.ends[number])]

    def begins_with(self, message: int) -> bool:
        """Whether the first record, which need not be whole, is a handshake record that begins with this message."""
        return self.data[:3] in HELLO and self.data[HEADER : HEADER + 1] == bytes([message])

    @property
    def has_application_data(self) -> bool:
        """Whether a handshake must have come before what is here."""
        return any(self.data[at] == APPLICATION for at in self.starts.tolist())

    @property
    def random(self) -> bytes:
        """The random number of the ClientHello with which the direction begins."""
        return self.data[RANDOM]


def read_direction(streams: Streams, d: int) -> Direction | None:
    """The records of direction ``d`` from its first byte on, or from its first captured segment where the SYN is missing; None without any bytes."""
    first, last = streams.content_first[d : d + 2].tolist()
    begin = int(streams.origin[d])
    if begin < 0:
        if first == last or not streams.content_segment[first]:
            return None
        begin = int(streams.content_from[first])
    data = _joined(streams, first, last, begin)
    ends, ended = _walk(data)
    return Direction(begin, data, np.array(ends, np.int64), Stop.NO_RECORD if ended else _stop(streams, d, begin + len(data)))


def _joined(streams: Streams, first: int, last: int, begin: int) -> bytes:
    """The bytes from position ``begin`` up to the first one that is not there."""
    pieces = []
    position = begin
    for i in range(first + int(np.searchsorted(streams.content_to[first:last], begin, side="right")), last):
        if streams.content_from[i] > position:
            break
        at = int(streams.content_at[i]) + position - int(streams.content_from[i])
        pieces.append(streams.data[at : at + int(streams.content_to[i]) - position].tobytes())
        position = int(streams.content_to[i])
    return b"".join(pieces)


def _walk(data: bytes) -> tuple[list[int], bool]:
    """The ends of the whole records, and whether something else follows them."""
    ends: list[int] = []
    at = 0
    while at + HEADER <= len(data):
        size = data[at + 3] << 8 | data[at + 4]
        if data[at] not in TYPES or data[at + 1] != 3 or not 0 < size <= LONGEST:
            return ends, True
        at += HEADER + size
        if at > len(data):
            break
        ends.append(at)
    return ends, False


def _stop(streams: Streams, d: int, position: int) -> Stop:
    """Why the bytes of a direction end at this position."""
    first, last = streams.seen_first[d : d + 2].tolist()
    behind = first + int(np.searchsorted(streams.seen_to[first:last], position, side="right"))
    if behind == last:
        return Stop.END
    return Stop.CUT if streams.seen_from[behind] <= position else Stop.HOLE


def sights(streams: Streams, d: int, positions: Int64s) -> Int64s:
    """When each byte of direction ``d`` was first seen (ns), -1 never."""
    first, last = streams.seen_first[d : d + 2].tolist()
    place = np.minimum(first + np.searchsorted(streams.seen_to[first:last], positions, side="right"), max(last - 1, 0))
    if first == last:
        return np.full(len(positions), -1, np.int64)
    there = (streams.seen_from[place] <= positions) & (positions < streams.seen_to[place])
    return np.where(there, streams.seen_time[place], -1)


def bytes_behind(streams: Streams, d: int, position: int) -> int:
    """Bytes of direction ``d`` that were seen from this position on."""
    seen = slice(*streams.seen_first[d : d + 2].tolist())
    return int(np.clip(streams.seen_to[seen] - np.maximum(streams.seen_from[seen], position), 0, None).sum())
