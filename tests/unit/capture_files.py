"""Captures and packets for the tests, written byte by byte: every format, compression and header that the reader claims to know."""

from __future__ import annotations

import bz2
import gzip
import ipaddress
import lzma
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


def ip(source: str, target: str, body: bytes, protocol: int = 6) -> bytes:
    """An IP packet of the addresses' family."""
    return ipv6(source, target, body, protocol=protocol) if ":" in source else ipv4(source, target, body, protocol=protocol)


def ethertype(packet: bytes) -> bytes:
    """The EtherType of an IP packet."""
    return b"\x86\xdd" if packet and packet[0] >> 4 == 6 else b"\x08\x00"


def ethernet(packet: bytes, tags: Sequence[int] = (), padding: int = 0) -> bytes:
    """An Ethernet frame with VLAN tags."""
    return bytes(range(12)) + b"".join(struct.pack(">HH", tag, 5) for tag in tags) + ethertype(packet) + packet + bytes(padding)


def mpls(body: bytes, labels: int = 2) -> bytes:
    """Labels around a packet."""
    return b"".join(struct.pack(">I", 16 + label << 12 | (label == labels - 1) << 8 | 64) for label in range(labels)) + body


def tunnelled(body: bytes, protocol: int, *, six: bool = False, **options: Any) -> bytes:
    """An IP packet between a tunnel's ends."""
    if six:
        return ipv6("2001:db8:ffff::1", "2001:db8:ffff::2", body, protocol=protocol, **options)
    return ipv4("198.51.100.1", "198.51.100.2", body, protocol=protocol, **options)


def udp(port: int, body: bytes, **options: Any) -> bytes:
    """An IP packet with a datagram between a tunnel's ends."""
    return tunnelled(struct.pack(">HHHH", 55_555, port, 8 + len(body) & 0xFFFF, 0) + body, 17, **options)


def vxlan(packet: bytes, port: int = 4789, **options: Any) -> bytes:
    """A packet in VXLAN."""
    return udp(port, b"\x08\0\0\0\0\x12\x34\0" + ethernet(packet, padding=max(0, 46 - len(packet))), **options)


def geneve(kind: int, body: bytes, words: int = 0, **options: Any) -> bytes:
    """A Geneve packet with so many words of options."""
    return udp(6081, struct.pack(">BBHI", words, 0, kind, 0x123400) + b"\x01\x02\x03\x00" * words + body, **options)


def gre(kind: int, body: bytes, flags: int = 0, **options: Any) -> bytes:
    """A GRE packet with the fields that its flags announce."""
    fields = sum(bool(flags & bit) for bit in (0x8000, 0x2000, 0x1000, 0x0080))
    return tunnelled(struct.pack(">HH", flags, kind) + b"\x00\x00\x45\x06" * fields + body, 47, **options)


def erspan(body: bytes, kind: int, content: int = 0) -> bytes:
    """A mirrored packet: ERSPAN type I, II, III, or 4 for III with a subheader."""
    head = {1: b"", 2: b"\x10\x05\0\x01" + bytes(4), 3: b"\x20\x05\0\x01" + bytes(6) + bytes([content << 2, 0])}
    head[4] = head[3][:-1] + b"\x01" + bytes(8)
    return gre(0x88BE if kind < 3 else 0x22EB, head[kind] + body, 0x1000 if kind > 1 else 0)


TUNNELS: dict[str, Callable[[bytes], bytes]] = {
    "vxlan": vxlan,
    "vxlan, Linux's port": lambda packet: vxlan(packet, 8472),
    "vxlan, a load balancer's ports": lambda packet: vxlan(vxlan(packet, 10800), 10801),
    "vxlan over IPv6": lambda packet: vxlan(packet, six=True),
    "geneve with IP": lambda packet: geneve(int.from_bytes(ethertype(packet)), packet, 3),
    "geneve with Ethernet": lambda packet: geneve(0x6558, ethernet(packet, [0x8100])),
    "gre": lambda packet: gre(int.from_bytes(ethertype(packet)), packet),
    "gre with checksum, key and sequence": lambda packet: gre(int.from_bytes(ethertype(packet)), packet, 0xB000),
    "gre over IPv6": lambda packet: gre(int.from_bytes(ethertype(packet)), packet, 0x2000, six=True),
    "gre with ppp": lambda packet: gre(0x880B, b"\xff\x03" + (b"\x00\x57" if packet[:1] >= b"\x60" else b"\x00\x21") + packet, 0x3081),
    "nvgre": lambda packet: gre(0x6558, ethernet(packet), 0x2000),
    "gre with mpls": lambda packet: gre(0x8847, mpls(packet)),
    "ip in ip": lambda packet: tunnelled(packet, 41 if packet[:1] >= b"\x60" else 4),
    "ip in IPv6": lambda packet: tunnelled(packet, 41 if packet[:1] >= b"\x60" else 4, six=True, extensions=[(60, bytes(8))]),
    "erspan I": lambda packet: erspan(ethernet(packet), 1),
    "erspan II": lambda packet: erspan(ethernet(packet), 2),
    "erspan III": lambda packet: erspan(ethernet(packet), 3),
    "erspan III with a subheader": lambda packet: erspan(ethernet(packet, [0x8100]), 4),
    "erspan III with IP": lambda packet: erspan(packet, 3, 2),
    "mpls in udp": lambda packet: udp(6635, mpls(packet, 1)),
    "mpls in ip": lambda packet: tunnelled(mpls(packet, 1), 137),
}
UNICAST = b"\x00\x00\x5e\x00\x53\x01\x00\x00\x5e\x00\x53\x02"  # documentation's addresses, which begin as a control word does


def pppoe(packet: bytes) -> bytes:
    """A packet in a PPPoE session."""
    body = (b"\x00\x57" if packet[:1] >= b"\x60" else b"\x00\x21") + packet
    return b"\x11\x00\x00\x01" + struct.pack(">H", len(body)) + body


LINKS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "ethernet": (1, ethernet),
    "vlan": (1, lambda packet: ethernet(packet, [0x8100])),
    "qinq": (1, lambda packet: ethernet(packet, [0x88A8, 0x8100, 0x9100])),
    "pppoe": (1, lambda packet: UNICAST + b"\x88\x64" + pppoe(packet)),
    "cooked": (113, lambda packet: b"\x00\x04\x00\x01\x00\x06" + bytes(8) + ethertype(packet) + packet),
    "cooked vlan": (113, lambda packet: b"\x00\x00\x00\x01\x00\x06" + bytes(8) + b"\x81\x00\x00\x05" + ethertype(packet) + packet),
    "cooked 2": (276, lambda packet: ethertype(packet) + b"\x00\x00\x00\x00\x00\x07\x00\x01\x03\x06" + bytes(8) + packet),
    "raw": (101, lambda packet: packet),
    "raw 12": (12, lambda packet: packet),
    "raw IPv4 or IPv6": (228, lambda packet: packet),
    "loopback, little endian": (0, lambda packet: (b"\x1e\x00\x00\x00" if packet[0] >> 4 == 6 else b"\x02\x00\x00\x00") + packet),
    "loopback, big endian": (108, lambda packet: (b"\x00\x00\x00\x18" if packet[0] >> 4 == 6 else b"\x00\x00\x00\x02") + packet),
    "ppp": (9, lambda packet: b"\xff\x03" + (b"\x00\x57" if packet[0] >> 4 == 6 else b"\x00\x21") + packet),
    "mpls": (1, lambda packet: UNICAST + b"\x88\x47" + mpls(packet)),
    "mpls with Ethernet": (1, lambda packet: UNICAST + b"\x88\x47" + mpls(UNICAST + ethernet(packet)[12:])),
    "mpls with Ethernet behind a control word": (1, lambda packet: UNICAST + b"\x88\x48" + mpls(bytes(4) + ethernet(packet, [0x8100]), 1)),
    "ppp, hdlc": (50, lambda packet: b"\xff\x03" + (b"\x00\x57" if packet[0] >> 4 == 6 else b"\x00\x21") + packet),
    "ppp, mpls": (9, lambda packet: b"\xff\x03\x02\x81" + mpls(packet)),
    "pppoe alone": (51, pppoe),
    "ppp, compressed": (9, lambda packet: (b"\x57" if packet[0] >> 4 == 6 else b"\x21") + packet),
}
