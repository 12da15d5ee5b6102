"""What tshark prints of a packet, as the fields of a row of the working files.

The order of ``FIELDS`` is that of tshark's columns. A field that occurs in several headers is a list, outermost first: which value is the
packet's own follows from ``frame.protocols``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from brokerlens.capture.columns import (
    HAS_MSS,
    HAS_TIMESTAMPS,
    HAS_WINDOW_SCALE,
    MORE_FRAGMENTS,
    NO_IP_ID,
    NO_PACKET_TYPE,
    OPTIONS_DAMAGED,
    SACK_EDGES,
    SACK_PERMITTED,
)
from brokerlens.capture.headers import MAPPED, hash_headers
from brokerlens.capture.layers import CUT_HEADER, FRAGMENT, MALFORMED, NO_PACKET_TIME, NOT_IP, NOT_TCP, OTHER_ENDPOINT
from brokerlens.capture.lookup import signed
from brokerlens.errors import UserError

IPV4_FIELDS: Final = (
    "ip.src", "ip.dst", "ip.hdr_len", "ip.dsfield", "ip.len", "ip.id", "ip.flags.rb", "ip.flags.df", "ip.flags.mf", "ip.frag_offset",
    "ip.ttl", "ip.proto", "ip.checksum",
)  # fmt: skip
IPV6_FIELDS: Final = ("ipv6.src", "ipv6.dst", "ipv6.tclass", "ipv6.flow", "ipv6.plen", "ipv6.nxt", "ipv6.hlim")
FRAGMENT_FIELDS: Final = ("ipv6.fraghdr.more", "ipv6.fraghdr.offset")
TCP_FIELDS: Final = (
    "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.hdr_len", "tcp.flags", "tcp.window_size_value", "tcp.checksum",
    "tcp.urgent_pointer", "tcp.len", "tcp.payload", "tcp.options.timestamp.tsval", "tcp.options.timestamp.tsecr", "tcp.options.mss_val",
    "tcp.options.wscale.shift", "tcp.options.sack_perm", "tcp.options.sack.count", "tcp.options.sack_le",
    "tcp.options.sack_re",
)  # fmt: skip
TRAILERS: Final = ("eth.padding", "vlan.trailer", "sll.trailer", "eth.trailer", "eth.fcs")  # as they follow each other
MALFORMED_PACKET: Final = "_ws.malformed"
FIELDS: Final = (
    "frame.encap_type", "frame.time_epoch", "frame.len", "frame.cap_len", "frame.protocols", "sll.ifindex", "sll.pkttype",
    *TRAILERS, MALFORMED_PACKET, *IPV4_FIELDS, *IPV6_FIELDS, *FRAGMENT_FIELDS, *TCP_FIELDS,
)  # fmt: skip


LATEST: Final = (1 << 63) - 1  # nanoseconds
LONGEST_IP: Final = (1 << 16) - 1  # that its header can say


class Packet(NamedTuple):
    """One packet. ``time`` in nanoseconds since 1970, -1 where there is none; ``values`` has the text of each field that the packet has."""

    number: int
    time: int
    wire: int
    captured: int
    protocols: list[str]
    values: Mapping[str, str]


class Row(NamedTuple):
    """A packet to or from a broker: the columns of ``ROW_COLUMNS`` but ``bucket`` and ``connection``, both ends as ``headers.END_COLUMNS``, payload."""

    columns: dict[str, int]
    ends: tuple[int, int, int, int, int]
    payload: bytes


def read_packet(line: str, number: int) -> Packet | None:
    """One line of tshark's, as the packet with this number; None for what is no packet, such as one of pcapng's custom blocks.

    Raises UserError where it is not what was asked for.
    """
    texts = line.rstrip("\r\n").split("\t")
    try:
        if len(texts) != len(FIELDS):
            raise ValueError
        values = {field: text for field, text in zip(FIELDS, texts, strict=True) if text}
        wire, captured = int(values["frame.len"]), int(values["frame.cap_len"])
        time = nanoseconds(values.get("frame.time_epoch", ""))
    except (KeyError, ValueError):
        raise UserError(
            f"tshark printed {line.strip()[:200]!r}, expected {len(FIELDS)} fields of a packet. Tested are its versions from 4.0 on."
        ) from None
    if "frame.encap_type" not in values:
        return None
    return Packet(number, time, wire, captured, values.get("frame.protocols", "").split(":"), values)


def nanoseconds(text: str) -> int:
    """Seconds since 1970 with nine digits behind the point, or -1 where there are none, or they are before 1970 or too many for a row."""
    if not text or text.startswith("-"):
        return -1
    seconds, _, fraction = text.partition(".")
    time = int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
    return time if time <= LATEST else -1


def read_row(packet: Packet, brokers: Mapping[tuple[int, int, int], int]) -> Row | int:
    """The packet's row, or the reason (``layers.SKIPPED``) why it has none. ``brokers`` are their places by address (two words) and port."""
    if packet.time < 0:
        return NO_PACKET_TIME
    why = _no_tcp(packet.protocols, packet.values)
    if why is not None:
        return why
    ip, tcp = ip_header(packet), _tcp_header(packet)
    if "tcp.hdr_len" in tcp and _number(tcp, "tcp.hdr_len") < 20:
        return MALFORMED
    if "tcp.urgent_pointer" not in tcp:
        return CUT_HEADER
    more = _is_first_fragment(packet, ip)
    payload_len = _payload_len(packet, ip, tcp)
    if payload_len < 0:
        return MALFORMED
    source, target = (*words(ip["src"]), _number(tcp, "tcp.srcport")), (*words(ip["dst"]), _number(tcp, "tcp.dstport"))
    to_broker, from_broker = brokers.get(target, 0), brokers.get(source, 0)
    if not to_broker and not from_broker:
        return OTHER_ENDPOINT
    answers = from_broker > 0 and (to_broker == 0 or from_broker < to_broker)
    client, broker = (target, source) if answers else (source, target)
    return Row(
        columns=_columns(packet, ip, tcp, payload_len, answers=answers, more=more),
        ends=(*client[:2], *broker[:2], client[2] << 16 | broker[2]),
        payload=bytes.fromhex(tcp["tcp.payload"][0]) if "tcp.payload" in tcp else b"",
    )


def endpoints(packet: Packet) -> list[tuple[int, int, int]]:
    """Both ends of a TCP packet, as ``lookup.count_endpoint`` takes them."""
    ip = ip_header(packet)
    ports = (int(packet.values[f"tcp.{port}"].split(",")[0]) for port in ("srcport", "dstport"))
    return [(*words(ip[end]), port) for end, port in zip(("src", "dst"), ports, strict=True)]


@lru_cache(65_536)
def words(address: str) -> tuple[int, int]:
    """An address in two signed words."""
    number = int(ipaddress.ip_address(address))
    if ":" not in address:
        return 0, MAPPED | number
    return signed(number >> 64), signed(number & (1 << 64) - 1)


def _no_tcp(protocols: Sequence[str], values: Mapping[str, str]) -> int | None:
    """Why a packet is none of TCP's: what an ICMP error quotes is not the packet's own."""
    before = protocols[: protocols.index("tcp")] if "tcp" in protocols else protocols
    if "tcp" in protocols and "icmp" not in before and "icmpv6" not in before and ("ip" in before or "ipv6" in before):
        return None
    if "ip" not in protocols and "ipv6" not in protocols:
        return NOT_IP
    offsets = (values.get(field, "0").split(",")[-1] for field in ("ip.frag_offset", "ipv6.fraghdr.offset"))
    return FRAGMENT if any(int(offset, 0) for offset in offsets) else NOT_TCP


def header_hash(packet: Packet, *, length_0: bool = False) -> int:
    """``ROW_COLUMNS``' ``header_hash`` of a packet with a row; ``length_0`` if the IP header said that length."""
    ip = ip_header(packet)
    return _hash(ip | {"len": "0", "plen": "0"} if length_0 else ip, _tcp_header(packet))


def _tcp_header(packet: Packet) -> dict[str, list[str]]:
    return {field: packet.values[field].split(",") for field in TCP_FIELDS if field in packet.values}


def ip_header(packet: Packet) -> dict[str, str]:
    """The fields of the last IP header before TCP's, by name without the family; ``extensions`` has what stands between both."""
    before = packet.protocols[: packet.protocols.index("tcp")]
    family = next(protocol for protocol in reversed(before) if protocol in ("ip", "ipv6"))
    place = before.count(family) - 1
    header = {"family": family, "extensions": ":".join(before[len(before) - before[::-1].index(family) :])}
    for field in IPV4_FIELDS if family == "ip" else IPV6_FIELDS:
        values = packet.values.get(field, "").split(",")
        header[field.removeprefix(f"{family}.")] = values[place] if place < len(values) else ""
    return header


def _is_first_fragment(packet: Packet, ip: Mapping[str, str]) -> bool:
    if ip["family"] == "ip":
        return _is_set(ip["flags.mf"])
    return "ipv6.fraghdr" in ip["extensions"] and _is_set(packet.values.get("ipv6.fraghdr.more", "").split(",")[-1])


def _is_set(text: str) -> bool:
    """Releases differ in how they print a bit."""
    return text.lower() in ("1", "true", "set")


def _number(fields: Mapping[str, list[str]], field: str, place: int = 0) -> int:
    """One of a field's values, decimal or hexadecimal; 0 where there is none."""
    values = fields.get(field)
    return int(values[place], 0) if values else 0


def _columns(
    packet: Packet, ip: Mapping[str, str], tcp: Mapping[str, list[str]], payload_len: int, *, answers: bool, more: bool
) -> dict[str, int]:
    payload = tcp.get("tcp.payload", [""])[0]
    captured = len(payload) // 2
    padding = "" if is_tunnelled(packet) else trailing(packet)  # what pads a packet in a tunnel is not the frame's
    padded = captured + len(padding) // 2
    at = 4 if answers else 8
    sacks = _sacks(tcp)
    blocks = [int(edge, 0) for block in sacks for edge in block] + [0] * (8 - 2 * len(sacks))
    return {
        "from_broker": answers,
        "timestamp": packet.time,
        "frame_number": packet.number,
        "wire_len": packet.wire,
        "captured_len": packet.captured,
        "interface": int(packet.values.get("sll.ifindex", "0"), 0),
        "packet_type": min(int(packet.values.get("sll.pkttype", str(NO_PACKET_TYPE)), 0), NO_PACKET_TYPE),
        "ttl": int(ip["ttl"] if ip["family"] == "ip" else ip["hlim"], 0),
        "ip_id": int(ip["id"], 0) if ip["family"] == "ip" else NO_IP_ID,
        "header_hash": _hash(ip, tcp),
        "seq": _number(tcp, "tcp.seq_raw"),
        "ack": _number(tcp, "tcp.ack_raw"),
        "flags": _number(tcp, "tcp.flags") & 0x1FF,
        "window": _number(tcp, "tcp.window_size_value"),
        "payload_len": payload_len,
        "payload_captured": captured,
        "padded_len": padded,
        "notebook_id": int((payload + padding)[2 * at : 2 * at + 8], 16) if padded > 12 else 0,
        "options": _options(tcp) | more * MORE_FRAGMENTS | (packet.wire - packet.captured > payload_len) * OPTIONS_DAMAGED,
        "tsval": _number(tcp, "tcp.options.timestamp.tsval", -1) if "tcp.options.timestamp.tsecr" in tcp else 0,
        "tsecr": _number(tcp, "tcp.options.timestamp.tsecr", -1),
        "mss": _number(tcp, "tcp.options.mss_val", -1),
        "window_scale": _number(tcp, "tcp.options.wscale.shift", -1),
        "sack_count": len(sacks),
        **dict(zip(SACK_EDGES, blocks, strict=True)),
    }


def _payload_len(packet: Packet, ip: Mapping[str, str], tcp: Mapping[str, list[str]]) -> int:
    """Bytes of payload on the wire, less than 0 where the headers cannot be.

    Of fragments, also those that a tunnel's packet is in, tshark tells none; what extension headers take, but the fragment header, it never tells.
    """
    if "tcp.len" in tcp:
        return _number(tcp, "tcp.len")
    if not any(_is_set(bit) for field in ("ip.flags.mf", "ipv6.fraghdr.more") for bit in packet.values.get(field, "").split(",")):
        return -1
    headers = int(ip["hdr_len"]) if ip["family"] == "ip" else 8 * ("ipv6.fraghdr" in ip["extensions"])
    return int(ip["len"] if ip["family"] == "ip" else ip["plen"]) - headers - _number(tcp, "tcp.hdr_len")


def _sacks(tcp: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    """The blocks of the last SACK option that is captured whole: of these alone tshark gives the number of blocks."""
    counts = [int(count) for count in tcp.get("tcp.options.sack.count", [])]
    blocks = list(zip(tcp.get("tcp.options.sack_le", []), tcp.get("tcp.options.sack_re", []), strict=False))
    return blocks[sum(counts[:-1]) : sum(counts)][:4]


def is_tunnelled(packet: Packet) -> bool:
    """Whether the packet with a row is in another."""
    before = packet.protocols[: packet.protocols.index("tcp")]
    return before.count("ip") + before.count("ipv6") > 1


def trailing(packet: Packet) -> str:
    """The bytes that tshark shows behind the packets in all frames, an outer and an inner one's, in hex. Any four it may take for a checksum."""
    texts = [text for field in TRAILERS for text in reversed(packet.values.get(field, "").split(","))]
    return "".join(text.removeprefix("0x") for text in texts)


def _options(tcp: Mapping[str, list[str]]) -> int:
    bits = (
        ("tcp.options.timestamp.tsecr", HAS_TIMESTAMPS),
        ("tcp.options.mss_val", HAS_MSS),
        ("tcp.options.wscale.shift", HAS_WINDOW_SCALE),
        ("tcp.options.sack_perm", SACK_PERMITTED),
    )
    return sum(bit for field, bit in bits if field in tcp)


def _hash(ip: Mapping[str, str], tcp: Mapping[str, list[str]]) -> int:
    """The hash of the headers that the fields say were there: the native reader's, but for IP options and extension headers.

    tshark puts what it finds in the place of a length of 0, as offload leaves it: sure is that only where a header cannot say as much.
    """
    ip = {name: "0" if name in ("len", "plen") and value and int(value) > LONGEST_IP else value for name, value in ip.items()}
    if ip["family"] == "ip":
        flags = sum(_is_set(ip[f"flags.{flag}"]) << bit for flag, bit in (("rb", 15), ("df", 14), ("mf", 13)))
        fields: list[tuple[int | str, int]] = [
            (0x40 | int(ip["hdr_len"]) // 4, 1),
            (ip["dsfield"], 1),
            (ip["len"], 2),
            (ip["id"], 2),
            (flags, 2),
        ]
        fields += [(ip["ttl"], 1), (ip["proto"], 1), (ip["checksum"], 2)]
    else:
        first = 6 << 28 | int(ip["tclass"], 0) << 20 | int(ip["flow"], 0)
        fields = [(first, 4), (ip["plen"], 2), (ip["nxt"], 1), (ip["hlim"], 1)]
    addresses = b"".join(ipaddress.ip_address(ip[end]).packed for end in ("src", "dst"))
    offset = _number(tcp, "tcp.hdr_len") // 4 << 12 | _number(tcp, "tcp.flags")
    segment = [
        (_number(tcp, "tcp.srcport"), 2),
        (_number(tcp, "tcp.dstport"), 2),
        (_number(tcp, "tcp.seq_raw"), 4),
        (_number(tcp, "tcp.ack_raw"), 4),
    ]
    segment += [(offset, 2), *((_number(tcp, f"tcp.{field}"), 2) for field in ("window_size_value", "checksum", "urgent_pointer"))]
    data = _packed(fields) + addresses + _packed(segment)
    return int(hash_headers(np.frombuffer(data, np.uint8), 0, len(data)))


def _packed(fields: Sequence[tuple[int | str, int]]) -> bytes:
    """Numbers, or their text, in so many bytes each."""
    return b"".join((int(value, 0) if isinstance(value, str) else value).to_bytes(size, "big") for value, size in fields)
