"""Writing pcapng: packets as they were captured, with their times in nanoseconds, and comments.

PCAP Next Generation (draft-ietf-opsawg-pcapng): one section, an interface per link type, little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from brokerlens.capture.formats import ENHANCED_PACKET, INTERFACE_DESCRIPTION, SECTION_HEADER

BYTE_ORDER: Final = 0x1A2B3C4D
COMMENT: Final = 1  # opt_comment, in every block
APPLICATION: Final = 4  # shb_userappl
RESOLUTION: Final = 9  # if_tsresol
NANOSECONDS: Final = b"\x09"  # 10^-9 s
MOST_COMMENT_BYTES: Final = 2_000


class CapturedPacket(NamedTuple):
    """A packet: time (ns since 1970, −1 where the capture has none), link type, length on the wire, captured bytes, and what to say of it."""

    time: int
    link: int
    wire: int
    data: bytes
    comment: str = ""


def section(packets: Sequence[CapturedPacket], comment: str, application: str) -> Iterable[bytes]:
    """A whole file, block by block; its comment belongs to the section. A packet without time gets that of 1970."""
    options = _option(COMMENT, _text(comment)) + _option(APPLICATION, _text(application))
    yield _block(SECTION_HEADER, struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1) + _ended(options))
    links = list(dict.fromkeys(packet.link for packet in packets))
    for link in links:
        yield _block(INTERFACE_DESCRIPTION, struct.pack("<HHI", link, 0, 0) + _ended(_option(RESOLUTION, NANOSECONDS)))
    numbers = {link: number for number, link in enumerate(links)}
    for packet in packets:
        time = max(packet.time, 0)
        head = struct.pack("<IIIII", numbers[packet.link], time >> 32, time & 0xFFFFFFFF, len(packet.data), packet.wire)
        said = _ended(_option(COMMENT, _text(packet.comment))) if packet.comment else b""
        yield _block(ENHANCED_PACKET, head + _padded(packet.data) + said)


def _text(text: str) -> bytes:
    """UTF-8, cut where it is too long, never within a character; what is no character is replaced."""
    return text.encode("utf-8", "replace")[:MOST_COMMENT_BYTES].decode("utf-8", "ignore").encode("utf-8")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _ended(options: bytes) -> bytes:
    return options + bytes(4)  # opt_endofopt


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size
