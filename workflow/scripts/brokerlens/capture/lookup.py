"""Which connection a packet belongs to: brokers' endpoints, and a table of connections by open addressing."""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np


from brokerlens.capture.columns import Array, Columns, Int
from brokerlens.capture.compiled import inlined, kernel
from brokerlens.errors import UserError

BUCKETS: Final = 1024
FIRST_SLOTS: Final = 1 << 12
ENDPOINT_SLOTS: Final = 1 << 13
ENDPOINTS_SHOWN: Final = 10
WORDS: Final = 5  # client's address in two words, broker's address in two words, client's port << 16 | broker's port
MAPPED: Final = 0xFFFF << 32


class Endpoints(NamedTuple):
    """TCP endpoints and how many packets they sent or received: ``words`` i64[slots, 3] (address in two, port), ``packets`` i64[slots], ``used`` i64[1]."""

    words: Array
    packets: Array
    used: Array


def new_endpoints() -> Endpoints:
    """An empty table; it keeps what came first when it is full, so that its size is bounded."""
    return Endpoints(np.zeros((ENDPOINT_SLOTS, 3), np.int64), np.zeros(ENDPOINT_SLOTS, np.int64), np.zeros(1, np.int64))


@inlined
def mix_half(value: Int, word: Int) -> Int:
    """Add a 32-bit word to a 32-bit hash; no product exceeds 63 bits."""
    value = (value ^ word) * 0x01000193 & 0xFFFFFFFF
    return value ^ value >> 15


@kernel
def mix(value: Int, word: Int) -> Int:
    """Add a 64-bit word to a 32-bit hash."""
    return mix_half(mix_half(value, word & 0xFFFFFFFF), word >> 32 & 0xFFFFFFFF)


@kernel
def finish(value: Int) -> Int:
    """Spread a hash over all of its 32 bits."""
    value = value * 0x2C1B3C6D & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 0x297A2D39 & 0xFFFFFFFF
    return value ^ value >> 15


@kernel
def hash_ends(ends: Array, row: Int) -> Int:
    """The 32-bit hash of a connection's addresses and ports; modulo ``BUCKETS`` it is the bucket, so it may never change."""
    value = 0x811C9DC5
    for word in range(WORDS):
        value = mix(value, ends[row, word])
    return finish(value)


@kernel
def is_broker(brokers: Array, high: Int, low: Int, port: Int) -> Int:
    """The place of an endpoint among ``brokers`` (i64[:, 3]), from 1, or 0."""
    for place in range(len(brokers)):
        if brokers[place, 2] == port and brokers[place, 1] == low and brokers[place, 0] == high:
            return place + 1
    return 0


@kernel
def count_endpoint(endpoints: Endpoints, high: Int, low: Int, port: Int) -> None:
    """Count a packet of this endpoint, unless it is new and the table is full."""
    slots = len(endpoints.packets)
    slot = finish(mix(mix(mix(0x811C9DC5, high), low), port)) & (slots - 1)
    while endpoints.packets[slot] > 0:
        if endpoints.words[slot, 2] == port and endpoints.words[slot, 1] == low and endpoints.words[slot, 0] == high:
            endpoints.packets[slot] += 1
            return
        slot = (slot + 1) & (slots - 1)
    if endpoints.used[0] < slots // 4 * 3:
        endpoints.used[0] += 1
        endpoints.words[slot, 0], endpoints.words[slot, 1], endpoints.words[slot, 2] = high, low, port
        endpoints.packets[slot] = 1


@kernel
def find_connections(
    ends: Array, first: Int, count: Int, slots: Array, known: Array, connections: Int, columns: Columns, row: Int, directions: Array
) -> tuple[Int, Int]:
    """Number the connections of the ends ``first`` to ``count`` (i64[:, WORDS]); entry i belongs to row ``row + i``.

    ``slots`` i64[2^n] holds connection numbers + 1 (0: free), ``known`` i64[:, WORDS + 1] their ends and buckets. Writes the columns ``connection``
    and ``bucket``, and ``directions[i]`` = 2 * connection + side. Stops when the table is to grow.
    Returns the first entry not handled and the number of connections.
    """
    last = len(slots) - 1
    connection = np.int64(-1)
    while first < count:
        if connection < 0 or not same_ends(ends, first, known, connection):
            slot = hash_ends(ends, first) & last
            while slots[slot] != 0 and not same_ends(ends, first, known, slots[slot] - 1):
                slot = (slot + 1) & last
            if slots[slot] == 0:
                if connections == len(known) or connections > last // 2:
                    return first, connections
                for word in range(WORDS):
                    known[connections, word] = ends[first, word]
                known[connections, WORDS] = hash_ends(ends, first) & (BUCKETS - 1)
                connections += 1
                slots[slot] = connections
            connection = slots[slot] - 1
        columns.connection[row + first] = connection
        columns.bucket[row + first] = known[connection, WORDS]
        directions[first] = 2 * connection + np.int64(columns.from_broker[row + first])
        first += 1
    return first, connections


@kernel
def same_ends(ends: Array, row: Int, known: Array, connection: Int) -> bool:
    """Whether the ends are those of this connection."""
    for word in range(WORDS):
        if ends[row, word] != known[connection, word]:
            return False
    return True


@kernel
def place_connections(slots: Array, known: Array, connections: Int) -> None:
    """Enter all connections into empty slots."""
    last = len(slots) - 1
    for connection in range(connections):
        slot = hash_ends(known, connection) & last
        while slots[slot] != 0:
            slot = (slot + 1) & last
        slots[slot] = connection + 1


class ConnectionTable:
    """The connections of a capture, numbered as they appear."""

    def __init__(self) -> None:
        self.count = 0
        self._slots = np.zeros(FIRST_SLOTS, np.int64)
        self._known = np.zeros((FIRST_SLOTS // 2 + 1, WORDS + 1), np.int64)

    def find(self, ends: Array, count: int, columns: Columns, row: int, directions: Array) -> None:
        """See ``find_connections``; the table grows as needed."""
        done = 0
        while True:
            done, connections = find_connections(ends, done, count, self._slots, self._known, self.count, columns, row, directions)
            self.count = int(connections)
            if done == count:
                return
            self._slots = np.zeros(2 * len(self._slots), np.int64)
            known = np.zeros((len(self._slots) // 2 + 1, WORDS + 1), np.int64)
            known[: self.count] = self._known[: self.count]
            self._known = known
            place_connections(self._slots, known, self.count)

    def rows(self) -> list[tuple[str, int, str, int, int]]:
        """Client's address and port, broker's address and port, and bucket of each connection."""
        table = self._known[: self.count].tolist()
        return [(address(a, b), ports >> 16, address(c, d), ports & 0xFFFF, bucket) for a, b, c, d, ports, bucket in table]


@functools.lru_cache(1 << 12)
def address(high: int, low: int) -> str:
    """The text of an address kept in two signed words."""
    if high == 0 and low >> 32 == 0xFFFF:
        return socket.inet_ntoa((low & 0xFFFFFFFF).to_bytes(4, "big"))
    return str(ipaddress.IPv6Address((high & (1 << 64) - 1) << 64 | low & (1 << 64) - 1))


def endpoint(ip: str, port: int) -> str:
    """``ip:port``, IPv6 in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def signed(word: int) -> int:
    """A 64-bit word as a signed number."""
    return word - (1 << 64) if word >> 63 else word


def parse_endpoint(text: str) -> tuple[int, int, int]:
    """``ip:port`` or ``[ipv6]:port`` as the address in two signed words, and the port.

    Raises UserError where it is neither.
    """
    host, colon, port = text.rpartition(":")
    if colon and port.isascii() and port.isdigit() and 0 < int(port) < 65_536:
        try:
            if host.startswith("[") and host.endswith("]"):
                number = int(ipaddress.IPv6Address(host[1:-1]))
                return signed(number >> 64), signed(number & (1 << 64) - 1), int(port)
            return 0, MAPPED | int(ipaddress.IPv4Address(host)), int(port)
        except ValueError:
            pass
    raise UserError(f"broker {text!r}: expected ip:port or [ipv6]:port, for example 192.0.2.10:9092 or [2001:db8::10]:9092")


def broker_table(brokers: Sequence[str]) -> Array:
    """The brokers as i64[:, 3] for ``is_broker``."""
    return np.array([parse_endpoint(broker) for broker in brokers], np.int64).reshape(-1, 3)


def busiest(endpoints: Endpoints) -> list[tuple[str, int]]:
    """The endpoints with the most packets, busiest first."""
    used = np.flatnonzero(endpoints.packets)
    rows = [
        (endpoint(address(*endpoints.words[slot, :2].tolist()), int(endpoints.words[slot, 2])), int(endpoints.packets[slot]))
        for slot in used
    ]
    return sorted(rows, key=lambda row: (-row[1], row[0]))[:ENDPOINTS_SHOWN]
