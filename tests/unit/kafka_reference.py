"""Kafka frames of one connection by putting whole streams together: slow, readable, sharing nothing with the code under test.

From the SYN on every byte has a place. Frames follow each other by their length prefixes, responses answer requests in order. Where a byte of a length
prefix or of a header was not captured nothing more is claimed of that direction: unknown from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SYN = 2
# A response may be captured this long before the end of its request (ns): the capture swapped them.
SWAPPED = 1_000_000
NEVER = -1


class Captured(NamedTuple):
    """A packet as captured: `size` payload bytes on the wire, the first of them in `payload`."""

    time: int
    side: int
    seq: int
    is_syn: bool
    size: int
    payload: bytes


class Frame(NamedTuple):
    """A frame of one side (0: to the broker), by its place behind the SYN; a response's key and version are its request's, None without one.

    size: with the length prefix. first, last: when its first and last byte were first seen (ns), NEVER if not. partner: where the frame that it answers,
    or that answers it, begins.
    """

    side: int
    start: int
    size: int
    first: int
    last: int
    key: int | None
    version: int | None
    correlation: int
    client: bytes | None
    partner: int | None


class Known(NamedTuple):
    """The frames of both sides, and the place per side from which on nothing is known."""

    frames: list[Frame]
    until: tuple[int, int]


@dataclass
class Stream:
    """One direction: when each byte was first seen, and what the earliest capture of it says."""

    seen: dict[int, int] = field(default_factory=dict)
    content: dict[int, int] = field(default_factory=dict)

    def bytes_at(self, place: int, count: int) -> bytes | None:
        """So many bytes, None if one of them is missing."""
        found = [self.content.get(place + i, -1) for i in range(count)]
        return None if -1 in found else bytes(found)

    def integer(self, place: int, count: int) -> int | None:
        data = self.bytes_at(place, count)
        return None if data is None else int.from_bytes(data, "big", signed=True)


def streams(packets: Iterable[Captured]) -> list[Stream | None]:
    """Both directions, None where the SYN was not captured. Packets of one time and place are taken to say the same."""
    in_time = sorted(packets, key=lambda packet: packet.time)
    first = [next((packet.seq + 1 for packet in in_time if packet.side == side and packet.is_syn), None) for side in (0, 1)]
    found = [Stream() if seq is not None else None for seq in first]
    for packet in in_time:
        stream, seq = found[packet.side], first[packet.side]
        if stream is None or seq is None or packet.is_syn:
            continue
        start = (packet.seq - seq) % 2**32
        for i in range(packet.size):
            stream.seen.setdefault(start + i, packet.time)
        for i, byte in enumerate(packet.payload):
            stream.content.setdefault(start + i, byte)
    return found


def requests_of(stream: Stream) -> tuple[list[Frame], int]:
    """Requests by their length prefixes, and where they end to be known: api key, version, correlation id, client id (a length of two bytes before it)."""
    frames: list[Frame] = []
    at = 0
    while True:
        size, key, version = stream.integer(at, 4), stream.integer(at + 4, 2), stream.integer(at + 6, 2)
        correlation, client_size = stream.integer(at + 8, 4), stream.integer(at + 12, 2)
        if size is None or size < 10 or key is None or version is None or correlation is None or client_size is None:
            return frames, at
        client = stream.bytes_at(at + 14, client_size) if client_size >= 0 else b""
        if client is None:
            return frames, at
        frames.append(
            framed(stream, 0, at, size, correlation)._replace(key=key, version=version, client=client if client_size >= 0 else None)
        )
        at += 4 + size


def responses_of(stream: Stream) -> tuple[list[Frame], int]:
    """Responses by their length prefixes, and where they end to be known."""
    frames: list[Frame] = []
    at = 0
    while True:
        size, correlation = stream.integer(at, 4), stream.integer(at + 4, 4)
        if size is None or size < 4 or correlation is None:
            return frames, at
        frames.append(framed(stream, 1, at, size, correlation))
        at += 4 + size


def framed(stream: Stream, side: int, at: int, size: int, correlation: int) -> Frame:
    return Frame(side, at, 4 + size, stream.seen.get(at, NEVER), stream.seen.get(at + 3 + size, NEVER), None, None, correlation, None, None)


def answered(requests: Sequence[Frame], responses: Sequence[Frame], all_requests: bool) -> tuple[list[Frame], list[Frame], int | None]:
    """Requests and responses with their partners, and the place of the first response whose request may be one that is not known.

    A broker answers in the order of the requests, so a response belongs to the first request with its id behind the last one answered; to none if
    one before that had not come yet.
    """
    asked = list(requests)
    said: list[Frame] = []
    following = 0
    for response in responses:
        place = following
        while place < len(asked) and asked[place].correlation != response.correlation and came_before(asked[place], response):
            place += 1
        if place < len(asked) and asked[place].correlation == response.correlation and came_before(asked[place], response):
            request = asked[place]
            asked[place] = request._replace(partner=response.start)
            response = response._replace(key=request.key, version=request.version, partner=request.start)
            following = place + 1
        elif not all_requests:
            return asked, said, response.start
        said.append(response)
    return asked, said, None


def came_before(request: Frame, response: Frame) -> bool:
    """The request was complete when the response began; of one whose end was never seen its beginning counts."""
    return (request.first if request.last == NEVER else request.last) <= response.first + SWAPPED


def follow(packets: Iterable[Captured]) -> Known:
    """All that is certain of a connection's frames."""
    to_broker, from_broker = streams(packets)
    requests, requests_until = requests_of(to_broker) if to_broker else ([], 0)
    responses, responses_until = responses_of(from_broker) if from_broker else ([], 0)
    all_requests = to_broker is not None and all(place < requests_until for place in to_broker.seen)
    asked, said, doubt = answered(requests, responses, all_requests)
    return Known(asked + said, (requests_until, responses_until if doubt is None else doubt))
