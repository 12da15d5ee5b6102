"""Where the packets of a capture stand: classic pcap and pcapng.

Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng, and libpcap's sf-pcap.c for the modified format.
A kernel goes over a piece of the file and notes each packet's place, lengths, time and link type; what is rare (sections, interfaces) it leaves to
Python. Lengths in a file are claims: none is believed before it was compared with a limit.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import numpy as np


from brokerlens.capture.columns import Array, Int
from brokerlens.capture.compiled import ask_to_read, kernel

LONGEST_PACKET: Final = 262_144  # the longest snaplen of libpcap and Wireshark
LONGEST_BLOCK: Final = (
    1 << 20
)  # a pcapng packet block, its options and comments included; other blocks that are longer are passed over unread
MOST_INTERFACES: Final = 65_536
FEWEST_BYTES_PER_PACKET: Final = 16  # pcap's record header, and a simple packet block without data

NO_TIME: Final = -1
LATEST: Final = (1 << 63) - 1
NANOSECONDS: Final = 1_000_000_000

# Why a kernel stopped.
MORE: Final = 0  # what follows is not in the buffer yet
BAD_LENGTH: Final = 1
BAD_TRAILER: Final = 2
BAD_INTERFACE: Final = 3
SECTION: Final = 4
INTERFACE: Final = 5
LONG_BLOCK: Final = 6  # to be passed over unread

SECTION_HEADER: Final = 0x0A0D0D0A  # reads the same in both byte orders
INTERFACE_DESCRIPTION: Final = 1
OBSOLETE_PACKET: Final = 2
SIMPLE_PACKET: Final = 3
ENHANCED_PACKET: Final = 6
DECRYPTION_SECRETS: Final = 10

# Columns of the table of interfaces.
LINK: Final = 0
SNAPLEN: Final = 1
BASE: Final = 2
EXPONENT: Final = 3
OFFSET: Final = 4
INTERFACE_COLUMNS: Final = 5


class Packets(NamedTuple):
    """The packets of one piece of a capture, int64 each: place in the buffer, captured and wire length, time (ns, -1 none), link type."""

    offset: Array
    captured: Array
    wire: Array
    time: Array
    link: Array


def new_packets(count: int) -> Packets:
    """Room for so many packets."""
    return Packets(*(np.zeros(count, np.int64) for _ in Packets._fields))


# What the cache is asked for while records are found: bytes so far ahead of short ones, one of long ones so many ahead.
CACHE_LINE: Final = 64
SHORT: Final = 4 * CACHE_LINE
ASKED_BYTES: Final = 1024
ASKED_RECORDS: Final = 8


@kernel
def u16(buffer: Array, at: Int, big: bool) -> Int:
    """Two bytes as a number, in the file's byte order."""
    first, second = np.int64(buffer[at]), np.int64(buffer[at + 1])
    if big:
        return first << 8 | second
    return second << 8 | first


@kernel
def u32(buffer: Array, at: Int, big: bool) -> Int:
    """Four bytes as a number, in the file's byte order."""
    a, b, c, d = np.int64(buffer[at]), np.int64(buffer[at + 1]), np.int64(buffer[at + 2]), np.int64(buffer[at + 3])
    if big:
        return a << 24 | b << 16 | c << 8 | d
    return d << 24 | c << 16 | b << 8 | a


@kernel
def ask_for_next(buffer: Array, at: Int, size: Int, end: Int) -> None:
    """Ask the cache for what is read next, behind ``at``: of short records for all of it, of long ones for the headers of one, if they go on being of this size."""
    if size <= SHORT:
        for line in range(0, SHORT, CACHE_LINE):
            ask_to_read(buffer, min(at + ASKED_BYTES + line, end - 1))
    else:
        ask_to_read(buffer, min(at + ASKED_RECORDS * size, end - 1))


@kernel
def index_pcap(
    buffer: Array, at: Int, end: Int, big: bool, header: Int, unit: Int, link: Int, packets: Packets, count: Int
) -> tuple[Int, Int, Int]:
    """Note the packets of classic pcap in ``buffer[at:end]``, from number ``count`` on.

    ``header`` is the length of a record's header (16, or 24 in the modified format), ``unit`` nanoseconds of its second time field.
    Returns the place of the first record not noted, the new count, and why it stopped.
    """
    while end - at >= header:
        captured = u32(buffer, at + 8, big)
        if captured > LONGEST_PACKET:
            return at, count, BAD_LENGTH
        if end - at - header < captured:
            break
        packets.offset[count] = at + header
        packets.captured[count] = captured
        packets.wire[count] = u32(buffer, at + 12, big)
        packets.time[count] = u32(buffer, at, big) * NANOSECONDS + u32(buffer, at + 4, big) * unit
        packets.link[count] = link
        count += 1
        at += header + captured
        ask_for_next(buffer, at, header + captured, end)
    return at, count, MORE


@kernel
def nanoseconds(high: Int, low: Int, base: Int, exponent: Int, offset: Int) -> Int:
    """A pcapng time stamp (64 bits in two halves, in units of ``base`` ** -``exponent`` s, plus ``offset`` s) as ns since 1970, cut, not rounded.

    -1 where it is before 1970, or after 2262 with or without the offset.
    """
    if offset < -LATEST // NANOSECONDS or offset > LATEST // NANOSECONDS:
        return NO_TIME
    shift = offset * NANOSECONDS
    time = 0
    if base == 2 and exponent >= 32:
        seconds = high >> (exponent - 32)
        part = ((high - (seconds << (exponent - 32))) * NANOSECONDS + (low * NANOSECONDS >> 32)) >> (exponent - 32)
        time = seconds * NANOSECONDS + part
    elif base == 2:
        if high >> (exponent + 2) != 0:
            return NO_TIME
        seconds = high << (32 - exponent) | low >> exponent
        if seconds >= LATEST // NANOSECONDS:
            return NO_TIME
        time = seconds * NANOSECONDS + ((low & ((1 << exponent) - 1)) * NANOSECONDS >> exponent)
    elif exponent > 9:
        half = 5  # of the units in a nanosecond, since 64 bits without a sign are too many; half the time by half of them is the same
        for _ in range(min(exponent - 10, 19)):
            if half > LATEST // 10:
                return max(shift, NO_TIME)
            half *= 10
        time = (high << 31 | low >> 1) // half
    else:
        factor = 1
        for _ in range(9 - exponent):
            factor *= 10
        if high >= 1 << 31 or (high << 32 | low) > LATEST // factor:
            return NO_TIME
        time = (high << 32 | low) * factor
    if time > LATEST - max(shift, 0):
        return NO_TIME
    return max(time + shift, NO_TIME)


@kernel
def index_pcapng(
    buffer: Array, at: Int, end: Int, big: bool, interfaces: Array, known: Int, packets: Packets, count: Int, secrets: Array
) -> tuple[Int, Int, Int]:
    """Note the packets of pcapng blocks in ``buffer[at:end]``, from number ``count`` on.

    ``interfaces`` is i64[:, INTERFACE_COLUMNS] with ``known`` rows in use; blocks of decryption secrets are added to ``secrets[0]``.
    Returns the place of the first block not noted, the new count, and why it stopped.
    """
    while end - at >= 12:
        kind = u32(buffer, at, big)
        if kind == SECTION_HEADER:
            return at, count, SECTION
        total = u32(buffer, at + 4, big)
        if total < 12 or total & 3:
            return at, count, BAD_LENGTH
        if kind == INTERFACE_DESCRIPTION:
            return at, count, INTERFACE
        is_packet = kind in (ENHANCED_PACKET, OBSOLETE_PACKET, SIMPLE_PACKET)
        if total > LONGEST_BLOCK:
            return at, count, BAD_LENGTH if is_packet else LONG_BLOCK
        if end - at < total:
            return at, count, MORE
        if u32(buffer, at + total - 4, big) != total:
            return at, count, BAD_TRAILER
        if is_packet:
            interface = 0
            place = at + 28
            time = NO_TIME
            if kind == SIMPLE_PACKET:
                if total < 16:
                    return at, count, BAD_LENGTH
                if known == 0:
                    return at, count, BAD_INTERFACE
                place = at + 12
                wire = u32(buffer, at + 8, big)
                captured = min(wire, total - 16)
                if interfaces[0, SNAPLEN] > 0:
                    captured = min(captured, interfaces[0, SNAPLEN])
            else:
                if total < 32:
                    return at, count, BAD_LENGTH
                interface = u32(buffer, at + 8, big) if kind == ENHANCED_PACKET else u16(buffer, at + 8, big)
                if interface >= known:
                    return at, count, BAD_INTERFACE
                captured = u32(buffer, at + 20, big)
                wire = u32(buffer, at + 24, big)
                if captured > total - 32:
                    return at, count, BAD_LENGTH
                time = nanoseconds(
                    u32(buffer, at + 12, big),
                    u32(buffer, at + 16, big),
                    interfaces[interface, BASE],
                    interfaces[interface, EXPONENT],
                    interfaces[interface, OFFSET],
                )
            if captured > LONGEST_PACKET:
                return at, count, BAD_LENGTH
            packets.offset[count] = place
            packets.captured[count] = captured
            packets.wire[count] = wire
            packets.time[count] = time
            packets.link[count] = interfaces[interface, LINK]
            count += 1
        elif kind == DECRYPTION_SECRETS:
            secrets[0] += 1
        at += total
        ask_for_next(buffer, at, total, end)
    return at, count, MORE


class Format(Protocol):
    """A capture format: notes packets, remembers what it is and what is wrong."""

    name: str
    header_bytes: int
    begun: bool
    damage: str
    skip: int

    @property
    def secrets(self) -> int:
        """Blocks of decryption secrets so far."""

    def index(self, buffer: Array, at: int, end: int, packets: Packets, count: int) -> tuple[int, int]:
        """Note the packets in ``buffer[at:end]``; returns the place of the first byte not used, and the new count.

        ``begun`` tells whether the format's own header was whole. ``damage`` says why nothing behind that place can be used; ``skip`` is the number of bytes to pass over from there.
        """


@dataclass
class Pcap:
    """Classic pcap."""

    name: str
    big: bool
    header: int
    unit: int
    link: int
    header_bytes: int = 24
    begun: bool = True
    damage: str = ""
    skip: int = 0
    secrets: int = 0

    def index(self, buffer: Array, at: int, end: int, packets: Packets, count: int) -> tuple[int, int]:
        """See ``Format.index``."""
        at, count, why = index_pcap(buffer, at, end, self.big, self.header, self.unit, self.link, packets, count)
        if why == BAD_LENGTH:
            self.damage = f"a packet that claims {u32(buffer, at + 8, self.big):,} captured bytes (the most is {LONGEST_PACKET:,})"
        return int(at), int(count)


PCAP_MAGICS: Final = {  # magic in the file's own byte order: (name, header of a record, nanoseconds of its second time field)
    0xA1B2C3D4: ("pcap", 16, 1000),
    0xA1B23C4D: ("pcap, nanoseconds", 16, 1),
    0xA1B2CD34: ("pcap, modified", 24, 1000),
}


def pcap_from(header: bytes) -> Pcap | None:
    """The format behind a pcap file header of 24 bytes, or None if it is none."""
    for order, big in ((">", True), ("<", False)):
        magic, major = struct.unpack(order + "IH", header[:6])
        (network,) = struct.unpack(order + "I", header[20:24])
        if magic in PCAP_MAGICS and major == 2:
            name, record, unit = PCAP_MAGICS[magic]
            return Pcap(name, big, record, unit, network & 0x03FFFFFF)  # the bits above tell of a frame check sequence
    return None


@dataclass
class Pcapng:
    """pcapng: sections with byte orders of their own, interfaces with units of time of their own."""

    name: str = "pcapng"
    big: bool = False
    header_bytes: int = 0  # the first section header is a block like others
    begun: bool = False
    damage: str = ""
    skip: int = 0
    known: int = 0
    interfaces: Array = field(default_factory=lambda: np.zeros((8, INTERFACE_COLUMNS), np.int64))
    _secrets: Array = field(default_factory=lambda: np.zeros(1, np.int64))

    @property
    def secrets(self) -> int:
        """Blocks of decryption secrets so far."""
        return int(self._secrets[0])

    def index(self, buffer: Array, at: int, end: int, packets: Packets, count: int) -> tuple[int, int]:
        """See ``Format.index``."""
        while not self.damage:
            at, count, why = index_pcapng(buffer, at, end, self.big, self.interfaces, self.known, packets, count, self._secrets)
            at, count = int(at), int(count)
            if why == MORE:
                break
            if why == SECTION and not self._begin_section(buffer, at, end):
                break
            if why in (SECTION, INTERFACE):
                total = u32(buffer, at + 4, self.big)
                if total > LONGEST_BLOCK or total < (28 if why == SECTION else 20) or total & 3:
                    why = BAD_LENGTH
                elif end - at < total:
                    break
                elif u32(buffer, at + total - 4, self.big) != total:
                    why = BAD_TRAILER
                elif why == SECTION:
                    self.begun = True
                else:
                    self._add_interface(buffer[at : at + total].tobytes())
            if why in (SECTION, INTERFACE):
                at += int(total)
            elif why == LONG_BLOCK:
                self.skip = int(u32(buffer, at + 4, self.big))
                if u32(buffer, at, self.big) == DECRYPTION_SECRETS:
                    self._secrets[0] += 1
                break
            elif not self.damage:
                self.damage = self._say(why, buffer, at)
        return at, count

    def _begin_section(self, buffer: Array, at: int, end: int) -> bool:
        """Take a section's byte order; False where it is not in the buffer yet."""
        if end - at < 16:
            return False
        if u32(buffer, at + 8, True) == 0x1A2B3C4D:
            self.big = True
        elif u32(buffer, at + 8, False) == 0x1A2B3C4D:
            self.big = False
        else:
            self.damage = "a pcapng section without its byte-order mark"
            return False
        if u16(buffer, at + 12, self.big) != 1:
            self.damage = f"a pcapng section of version {u16(buffer, at + 12, self.big)} (known is 1)"
            return False
        self.known = 0
        return True

    def _add_interface(self, block: bytes) -> None:
        """Add an interface description: link type, snaplen, unit and offset of its time stamps."""
        if self.known >= MOST_INTERFACES:
            self.damage = f"more than {MOST_INTERFACES:,} interfaces in one section"
            return
        if self.known == len(self.interfaces):
            self.interfaces = np.concatenate([self.interfaces, np.zeros_like(self.interfaces)])
        order = ">" if self.big else "<"
        link, _, snaplen = struct.unpack(order + "HHI", block[8:16])
        base, exponent, offset = 10, 6, 0
        at = 16
        while at + 4 <= len(block) - 4:
            code, length = struct.unpack(order + "HH", block[at : at + 4])
            value = block[at + 4 : min(at + 4 + length, len(block) - 4)]
            if code == 0 or len(value) < length:
                break
            if code == 9 and length == 1:
                base, exponent = (2, value[0] & 127) if value[0] & 128 else (10, value[0])
            elif code == 14 and length == 8:
                (offset,) = struct.unpack(order + "q", value)
            at += 4 + (length + 3) // 4 * 4
        if base == 2 and exponent > 63:
            self.damage = f"an interface whose unit of time is 2^-{exponent} s"
            return
        self.interfaces[self.known] = link, snaplen, base, exponent, offset
        self.known += 1

    def _say(self, why: int, buffer: Array, at: int) -> str:
        kind, total = u32(buffer, at, self.big), u32(buffer, at + 4, self.big)
        if why == BAD_INTERFACE:
            return "a packet of an interface that was not described before"
        if why == BAD_TRAILER:
            return f"a pcapng block of type {kind:#x} whose two lengths differ"
        return f"a pcapng block of type {kind:#x} with an impossible length ({total:,} bytes, or its packet's)"


def recognise(start: bytes) -> Format | None:
    """The format that a file beginning with these bytes (at least 24, fewer if it is shorter) has, or None."""
    if len(start) >= 4 and start[:4] == b"\x0a\x0d\x0d\x0a":
        return Pcapng()
    return pcap_from(start) if len(start) >= 24 else None
