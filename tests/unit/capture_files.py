"""Captures and packets for the tests, written byte by byte: every format, compression and header that the reader claims to know."""

from __future__ import annotations

import bz2
import gzip
import ipaddress
import lzma
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa

EXAMPLE_BROKER = "192.0.2.10:31289"


class Record(NamedTuple):
    """One captured packet: time (ns since 1970), captured bytes, length on the wire, link type."""

    time: int
    data: bytes
    wire: int
    link: int = 1


def pcap(records: Sequence[Record], *, big: bool = False, nanoseconds: bool = False, modified: bool = False, link: int = 1) -> bytes:
    """A classic pcap file."""
    order = ">" if big else "<"
    magic = 0xA1B2CD34 if modified else 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262_144, link)]
    for record in records:
        fraction = record.time % 10**9 // (1 if magic == 0xA1B23C4D else 1000)
        parts.append(struct.pack(order + "IIII", record.time // 10**9, fraction, len(record.data), record.wire))
        parts.append(struct.pack(order + "IHBB", 1, 0x800, 0, 0) if modified else b"")
        parts.append(record.data)
    return b"".join(parts)


def block(kind: int, body: bytes, big: bool = False) -> bytes:
    """A pcapng block around its body, padded to four bytes."""
    body += bytes(-len(body) % 4)
    size = struct.pack((">" if big else "<") + "I", len(body) + 12)
    return struct.pack((">" if big else "<") + "I", kind) + size + body + size


def option(code: int, value: bytes, big: bool = False) -> bytes:
    """A pcapng option, padded."""
    return struct.pack((">" if big else "<") + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(big: bool = False) -> bytes:
    """A section header block with an option (the writing application)."""
    order = ">" if big else "<"
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + option(4, b"test", big) + option(0, b"", big), big)


def interface(link: int = 1, *, big: bool = False, snaplen: int = 0, resolution: int | None = None, offset: int | None = None) -> bytes:
    """An interface description block; ``resolution`` is the byte of if_tsresol, ``offset`` the seconds of if_tsoffset."""
    options = option(2, b"eth0", big)
    if resolution is not None:
        options += option(9, bytes([resolution]), big)
    if offset is not None:
        options += option(14, struct.pack((">" if big else "<") + "q", offset), big)
    return block(1, struct.pack((">" if big else "<") + "HHI", link, 0, snaplen) + options + option(0, b"", big), big)


def enhanced(ticks: int, data: bytes, wire: int, *, big: bool = False, number: int = 0, comment: bytes = b"") -> bytes:
    """An enhanced packet block."""
    head = struct.pack((">" if big else "<") + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), wire)
    return block(6, head + data + bytes(-len(data) % 4) + (option(1, comment, big) if comment else b""), big)


def obsolete(ticks: int, data: bytes, wire: int, *, big: bool = False, number: int = 0) -> bytes:
    """An obsolete packet block."""
    return block(2, struct.pack((">" if big else "<") + "HHIIII", number, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(data), wire) + data, big)


def simple(data: bytes, wire: int, *, big: bool = False) -> bytes:
    """A simple packet block."""
    return block(3, struct.pack((">" if big else "<") + "I", wire) + data, big)


def pcapng(records: Sequence[Record], *, big: bool = False, nanoseconds: bool = True, link: int = 1, old_blocks: bool = False) -> bytes:
    """A pcapng file of one section and one interface, with blocks between the packets that are to be passed over."""
    parts = [section(big), interface(link, big=big, resolution=9 if nanoseconds else None)]
    write = obsolete if old_blocks else enhanced
    for number, record in enumerate(records):
        if number % 7 == 0:
            parts.append(block(5, bytes(20), big) + block(0x40000BAD, b"unknown", big))
        parts.append(write(record.time // (1 if nanoseconds else 1000), record.data, record.wire, big=big))
    return b"".join(parts)


def zstd(data: bytes) -> bytes:
    """Data as one zstd frame."""
    return bytes(pa.compress(data, codec="zstd", asbytes=True)) if data else bytes.fromhex("28b52ffd2000010000")


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": zstd,
    "xz": lzma.compress,
    "bzip2": lambda data: bz2.compress(data, 1),  # blocks of 100 kB
}


def tcp(
    source: int,
    target: int,
    payload: bytes = b"",
    *,
    seq: int = 1,
    ack: int = 0,
    flags: int = 0x10,
    window: int = 500,
    options: bytes = b"",
    words: int | None = None,
) -> bytes:
    """A TCP segment; ``words`` is a false header length."""
    options += bytes(-len(options) % 4)
    offset = 5 + len(options) // 4 if words is None else words
    return struct.pack(">HHIIHHHH", source, target, seq, ack, offset << 12 | flags, window, 0xBEEF, 0) + options + payload


def ipv4(
    source: str, target: str, body: bytes, *, total: int | None = None, fragment: int = 0, protocol: int = 6, options: bytes = b""
) -> bytes:
    """An IPv4 packet; ``total`` is a false length."""
    size = 20 + len(options) + len(body) if total is None else total
    head = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, size & 0xFFFF, 0x1234, fragment, 64, protocol, 0xCAFE)
    return head + ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed + options + body


def ipv6(
    source: str, target: str, body: bytes, *, extensions: Sequence[tuple[int, bytes]] = (), length: int | None = None, protocol: int = 6
) -> bytes:
    """An IPv6 packet; an extension is its number and its bytes, of which the first is filled in here."""
    kinds = [*(kind for kind, _ in extensions), protocol]
    chain = b"".join(bytes([following]) + data[1:] for (_, data), following in zip(extensions, kinds[1:], strict=True))
    size = len(chain) + len(body) if length is None else length
    head = struct.pack(">IHBB", 6 << 28, size & 0xFFFF, kinds[0], 57)
    return head + ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(target).packed + chain + body


def ip(source: str, target: str, body: bytes) -> bytes:
    """An IP packet of the addresses' family."""
    return ipv6(source, target, body) if ":" in source else ipv4(source, target, body)


def ethertype(packet: bytes) -> bytes:
    """The EtherType of an IP packet."""
    return b"\x86\xdd" if packet and packet[0] >> 4 == 6 else b"\x08\x00"


def ethernet(packet: bytes, tags: Sequence[int] = (), padding: int = 0) -> bytes:
    """An Ethernet frame with VLAN tags."""
    return bytes(range(12)) + b"".join(struct.pack(">HH", tag, 5) for tag in tags) + ethertype(packet) + packet + bytes(padding)


LINKS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "ethernet": (1, ethernet),
    "vlan": (1, lambda packet: ethernet(packet, [0x8100])),
    "qinq": (1, lambda packet: ethernet(packet, [0x88A8, 0x8100, 0x9100])),
    "pppoe": (
        1,
        lambda packet: bytes(12) + b"\x88\x64\x11\x00\x00\x01\x00\x00" + (b"\x00\x57" if packet[0] >> 4 == 6 else b"\x00\x21") + packet,
    ),
    "cooked": (113, lambda packet: b"\x00\x04\x00\x01\x00\x06" + bytes(8) + ethertype(packet) + packet),
    "cooked vlan": (113, lambda packet: b"\x00\x00\x00\x01\x00\x06" + bytes(8) + b"\x81\x00\x00\x05" + ethertype(packet) + packet),
    "cooked 2": (276, lambda packet: ethertype(packet) + b"\x00\x00\x00\x00\x00\x07\x00\x01\x03\x06" + bytes(8) + packet),
    "raw": (101, lambda packet: packet),
    "raw 12": (12, lambda packet: packet),
    "raw IPv4 or IPv6": (228, lambda packet: packet),
    "loopback, little endian": (0, lambda packet: (b"\x1e\x00\x00\x00" if packet[0] >> 4 == 6 else b"\x02\x00\x00\x00") + packet),
    "loopback, big endian": (108, lambda packet: (b"\x00\x00\x00\x18" if packet[0] >> 4 == 6 else b"\x00\x00\x00\x02") + packet),
    "ppp": (9, lambda packet: b"\xff\x03" + (b"\x00\x57" if packet[0] >> 4 == 6 else b"\x00\x21") + packet),
    "ppp, compressed": (9, lambda packet: (b"\x57" if packet[0] >> 4 == 6 else b"\x21") + packet),
}
