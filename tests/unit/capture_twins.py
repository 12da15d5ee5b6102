"""The capture room's kernels once more, slow and readable: what the fast ones must agree with."""

from __future__ import annotations

import functools
import ipaddress
import struct
from fractions import Fraction
from typing import Any, NamedTuple

from capture_files import Record

LONGEST_PACKET = 262_144
Endpoint = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


class FaultError(Exception):
    """Data that cannot be used, or end too soon."""


def take(data: bytes, at: int, count: int) -> bytes:
    """Exactly so many bytes."""
    if at + count > len(data):
        raise FaultError("cut")
    return data[at : at + count]


def read_pcap(data: bytes) -> tuple[list[Record], bool]:
    """The packets of a classic pcap file, and whether it was whole."""
    order = ">" if data[:1] == b"\xa1" else "<"
    magic, *_, link = struct.unpack(order + "IHHiIII", data[:24])
    header, unit = {0xA1B2C3D4: (16, 1000), 0xA1B23C4D: (16, 1), 0xA1B2CD34: (24, 1000)}[magic]
    records: list[Record] = []
    at = 24
    try:
        while at < len(data):
            seconds, fraction, captured, wire = struct.unpack(order + "IIII", take(data, at, header)[:16])
            if captured > LONGEST_PACKET:
                raise FaultError("length")
            body = take(data, at + header, captured)
            records.append(Record(seconds * 10**9 + fraction * unit, body, wire, link & 0x03FFFFFF))
            at += header + captured
    except FaultError:
        return records, False
    return records, True


def ticks_to_ns(ticks: int, resolution: int, offset: int) -> int:
    """A pcapng time as ns since 1970, -1 where that, with or without the offset, is no time before 2262, or it is one before 1970."""
    unit = Fraction(1, 2 ** (resolution & 127)) if resolution & 128 else Fraction(1, 10**resolution)
    time = int(ticks * unit * 10**9)
    return time + offset * 10**9 if time < 1 << 63 and 0 <= time + offset * 10**9 < 1 << 63 else -1


def read_pcapng(data: bytes) -> tuple[list[Record], bool]:
    """The packets of a pcapng file (time -1 where there is none), and whether it was whole."""
    records: list[Record] = []
    interfaces: list[tuple[int, int, int, int]] = []
    order = "<"
    at = 0
    try:
        while at < len(data):
            if take(data, at, 4) == b"\x0a\x0d\x0d\x0a":
                mark = take(data, at, 16)[8:12]
                if mark not in (b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a"):
                    raise FaultError("mark")
                order = ">" if mark[0] == 0x1A else "<"
                if struct.unpack(order + "H", take(data, at + 12, 2)) != (1,):
                    raise FaultError("version")
                interfaces = []
            kind, total = struct.unpack(order + "II", take(data, at, 12)[:8])
            least = {0x0A0D0D0A: 28, 1: 20, 2: 32, 3: 16, 6: 32}.get(kind, 12)
            if total < least or total % 4 or (kind in (0x0A0D0D0A, 1, 2, 3, 6) and total > 1 << 20):
                raise FaultError("length")
            body = take(data, at, total)
            if total <= 1 << 20 and struct.unpack(order + "I", body[-4:]) != (total,):
                raise FaultError("trailer")
            if kind == 1:
                interfaces.append(read_interface(body, order))
            elif kind == 3:
                link, snaplen, _, _ = get(interfaces, 0)
                (wire,) = struct.unpack(order + "I", body[8:12])
                captured = min(wire, total - 16, snaplen or total)
                records.append(Record(-1, check(body[12 : 12 + captured]), wire, link))
            elif kind in (2, 6):
                number, high, low, captured, wire = struct.unpack(order + "IIIII", body[8:28])
                if kind == 2:
                    (number,) = struct.unpack(order + "H", body[8:10])
                link, _, resolution, offset = get(interfaces, number)
                if captured > total - 32:
                    raise FaultError("length")
                records.append(Record(ticks_to_ns(high << 32 | low, resolution, offset), check(body[28 : 28 + captured]), wire, link))
            at += total
    except FaultError:
        return records, False
    return records, True


def check(data: bytes) -> bytes:
    """A packet's bytes unless they are too many."""
    if len(data) > LONGEST_PACKET:
        raise FaultError("length")
    return data


def get(interfaces: list[tuple[int, int, int, int]], number: int) -> tuple[int, int, int, int]:
    """The interface of that number."""
    if number >= len(interfaces):
        raise FaultError("interface")
    return interfaces[number]


def read_interface(body: bytes, order: str) -> tuple[int, int, int, int]:
    """Link type, snaplen, byte of the resolution, offset in seconds."""
    link, _, snaplen = struct.unpack(order + "HHI", body[8:16])
    resolution, offset = 6, 0
    at = 16
    while at + 4 <= len(body) - 4:
        code, length = struct.unpack(order + "HH", body[at : at + 4])
        value = body[at + 4 : -4][:length]
        if code == 0 or len(value) < length:
            break
        if (code, length) == (9, 1):
            resolution = value[0]
        if (code, length) == (14, 8):
            (offset,) = struct.unpack(order + "q", value)
        at += 4 + length + -length % 4
    if resolution & 128 and resolution & 127 > 63:
        raise FaultError("resolution")
    return link, snaplen, resolution, offset


class SkipError(Exception):
    """The reason why a packet gives no row."""


def need(data: bytes, at: int, count: int) -> bytes:
    """So many captured bytes of a header."""
    if len(data) < at + count:
        raise SkipError("cut_header")
    return data[at : at + count]


LINK_TYPES = {
    1: "ethernet", 113: "cooked", 276: "cooked 2", 0: "loopback", 108: "loopback", 9: "ppp", 50: "ppp", 51: "pppoe",
    **dict.fromkeys((12, 14, 101, 228, 229), "ip"),
}  # fmt: skip
ETHERTYPES = {
    0x0800: "ip", 0x86DD: "ip", 0x8100: "tag", 0x88A8: "tag", 0x9100: "tag", 0x8847: "mpls", 0x8848: "mpls", 0x8864: "pppoe", 0x6558: "ethernet",
    0x880B: "ppp", 0x88BE: "erspan", 0x22EB: "erspan",
}  # fmt: skip
PPP_PROTOCOLS = {0x21: "ip", 0x57: "ip", 0x281: "mpls", 0x283: "mpls"}
IP_PROTOCOLS = {4: "ip", 41: "ip", 17: "udp", 47: "gre", 137: "mpls"}
UDP_PORTS = {4789: "vxlan", 8472: "vxlan", 10800: "vxlan", 10801: "vxlan", 6081: "geneve", 6635: "mpls"}


def look_up(numbers: dict[int, str], number: bytes, otherwise: str) -> str:
    """The header that a number leads to."""
    if int.from_bytes(number) not in numbers:
        raise SkipError(otherwise)
    return numbers[int.from_bytes(number)]


def behind(data: bytes, at: int, header: str) -> int:
    """Place of the next IP header from this header on."""
    match header:
        case "ip":
            return at
        case "ethernet":
            return behind(data, at + 14, look_up(ETHERTYPES, need(data, at, 14)[12:], "not_ip"))
        case "tag":
            return behind(data, at + 4, look_up(ETHERTYPES, need(data, at, 4)[2:], "not_ip"))
        case "cooked":
            return behind(data, at + 16, look_up(ETHERTYPES, need(data, at, 16)[14:], "not_ip"))
        case "cooked 2":
            return behind(data, at + 20, look_up(ETHERTYPES, need(data, at, 20)[:2], "not_ip"))
        case "loopback":
            family = need(data, at, 4)
            if family[1:3] != b"\0\0" or family[0] | family[3] not in (2, 10, 24, 28, 30):
                raise SkipError("not_ip")
            return at + 4
        case "ppp":
            need(data, at, 2)
            if data[at : at + 2] == b"\xff\x03":
                at += 2
            protocol = need(data, at, 2)
            size = 1 if protocol[0] % 2 else 2
            return behind(data, at + size, look_up(PPP_PROTOCOLS, protocol[:size], "not_ip"))
        case "pppoe":
            need(data, at, 6)
            return behind(data, at + 6, "ppp")
        case "udp":
            return behind(data, at + 8, look_up(UDP_PORTS, need(data, at, 8)[2:4], "not_tcp"))
        case "vxlan":
            if not need(data, at, 8)[0] & 8:
                raise SkipError("tunnel")
            return behind(data, at + 8, "ethernet")
        case "geneve":
            head = need(data, at, 8)
            if head[0] >= 64:
                raise SkipError("tunnel")
            return behind(data, at + 8 + head[0] * 4, look_up(ETHERTYPES, head[2:4], "not_ip"))
        case "gre":
            flags, number = struct.unpack(">HH", need(data, at, 4))
            if flags & 0x4000 or flags & 7 > 1:
                raise SkipError("tunnel")
            fields = bool(flags & 0x8000) + bool(flags & 0x2000) + bool(flags & 0x1000) + (flags & 0x0081 == 0x0081)
            following = look_up(ETHERTYPES, number.to_bytes(2), "not_ip")
            return behind(data, at + 4 + 4 * fields, "ethernet" if number == 0x88BE and not flags & 0x1000 else following)
        case "erspan":
            version = need(data, at, 8)[0] >> 4
            if version == 1:
                return behind(data, at + 8, "ethernet")
            if version != 2:
                raise SkipError("tunnel")
            bits = need(data, at, 12)[11] | need(data, at, 12)[10] << 8
            content = {0: "ethernet", 2: "ip"}.get(bits >> 10 & 31)
            if content is None:
                raise SkipError("tunnel")
            return behind(data, at + (20 if bits & 1 else 12), content)
        case _:
            return behind_labels(data, at)


def behind_labels(data: bytes, at: int) -> int:
    """Place of the next IP header from an MPLS label on."""
    bottom = need(data, at, 4)[2] & 1
    if not bottom:
        return behind_labels(data, at + 4)
    at += 4
    first = need(data, at, 1)[0]
    if first == 0x45:
        return at
    if data[at : at + 2] == b"\0\0" and is_ethernet(data[at + 4 :]):
        return behind(data, at + 4, "ethernet")
    if is_ethernet(data[at:]):
        return behind(data, at, "ethernet")
    if first >> 4 in (4, 6):
        return at
    raise SkipError("not_ip")


def is_ethernet(frame: bytes) -> bool:
    """Whether this looks like an Ethernet frame, as far as it goes: an IP header stands where one is announced."""
    kind, header = frame[12:14], frame[14:]
    while kind in (b"\x81\x00", b"\x88\xa8", b"\x91\x00"):
        kind, header = header[2:4], header[4:]
    version = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(kind)
    return len(kind) < 2 or (version is not None and (not header or header[0] >> 4 == version))


def mix_word(value: int, word: int) -> int:
    """One step of the hash."""
    value = (value ^ word) * 0x01000193 % 2**32
    return value ^ value >> 15


def hash_of(data: bytes) -> int:
    """The hash of headers, as documented in the kernel."""
    words = [word for (word,) in struct.iter_unpack(">I", data)]
    even, odd = (functools.reduce(mix_word, half, 0x811C9DC5) for half in (words[::2], words[1::2]))
    value = mix_word(mix_word(0x811C9DC5, even), odd) * 0x2C1B3C6D % 2**32
    return value ^ value >> 13


def read_options(data: bytes, whole: bool) -> dict[str, int]:
    """The columns that TCP options fill, from their captured bytes."""
    row = dict.fromkeys(["tsval", "tsecr", "mss", "window_scale", "sack_count"], 0)
    row |= {f"sack{n}_{end}": 0 for n in range(1, 5) for end in ("from", "to")}
    bits = 0 if whole else 16
    while data and data[0] != 0:
        if data[0] == 1:
            data = data[1:]
            continue
        length = data[1] if len(data) > 1 else 0
        if length < 2 or length > len(data):
            bits |= 16
            break
        match data[0], length, data[2:length]:
            case 8, 10, value:
                row["tsval"], row["tsecr"] = struct.unpack(">II", value)
                bits |= 1
            case 2, 4, value:
                (row["mss"],) = struct.unpack(">H", value)
                bits |= 2
            case 3, 3, value:
                row["window_scale"] = value[0]
                bits |= 4
            case 4, 2, _:
                bits |= 8
            case 5, 10 | 18 | 26 | 34, value:
                row |= {name: 0 for name in row if name.startswith("sack")}  # of several options the last counts
                row["sack_count"] = len(value) // 8
                for n, (begin, end) in enumerate(struct.iter_unpack(">II", value), 1):
                    row[f"sack{n}_from"], row[f"sack{n}_to"] = begin, end
            case 2 | 3 | 4 | 5 | 8, _, _:
                bits |= 16
        data = data[length:]
    return row | {"options": bits}


class Packet(NamedTuple):
    """An IP header: its place, where what it carries begins, protocol, and end on the wire; whether more fragments come, TTL, id and addresses."""

    start: int
    body: int
    protocol: int
    end: int
    more: bool
    ttl: int
    ip_id: int
    source: ipaddress.IPv4Address | ipaddress.IPv6Address
    target: ipaddress.IPv4Address | ipaddress.IPv6Address


def read_ip(data: bytes, start: int, wire: int) -> Packet:
    """The IP header at this place of a packet that ends on the wire at ``wire``."""
    version = need(data, start, 1)[0] >> 4
    if version == 4:
        head = need(data, start, 20)
        if head[0] % 16 < 5:
            raise SkipError("malformed")
        if head[9] != 6 and head[9] not in IP_PROTOCOLS:
            raise SkipError("not_tcp")
        total, ip_id, fragment = struct.unpack(">HHH", head[2:8])
        if fragment % 0x2000:
            raise SkipError("fragment")
        at = start + head[0] % 16 * 4
        if 0 < total < head[0] % 16 * 4:
            raise SkipError("malformed")
        ends = ipaddress.IPv4Address(head[12:16]), ipaddress.IPv4Address(head[16:20])
        return Packet(start, at, head[9], start + total if total else wire, bool(fragment & 0x2000), head[8], ip_id, *ends)
    if version != 6:
        raise SkipError("malformed")
    head = need(data, start, 40)
    (length,) = struct.unpack(">H", head[4:6])
    kind, at, more = head[6], start + 40, False
    while kind != 6 and kind not in IP_PROTOCOLS:
        if kind not in (0, 43, 44, 51, 60, 135, 139, 140):
            raise SkipError("not_tcp")
        extension = need(data, at, 8)
        if kind == 44:
            (fragment,) = struct.unpack(">H", extension[2:4])
            if fragment // 8:
                raise SkipError("fragment")
            more = fragment % 2 == 1
        at += 8 if kind == 44 else (extension[1] + 2) * 4 if kind == 51 else (extension[1] + 1) * 8
        kind = extension[0]
    end = start + 40 + length if length else wire
    return Packet(start, at, kind, end, more, head[7], -1, ipaddress.IPv6Address(head[8:24]), ipaddress.IPv6Address(head[24:40]))


def innermost(data: bytes, link: int, wire: int) -> tuple[Packet, bytes]:
    """The IP header before TCP, and the packet's bytes without the padding of tunnels around it."""
    start = behind(data, 0, look_up(LINK_TYPES, link.to_bytes(4), "unknown_link"))
    for _ in range(8):
        packet = read_ip(data, start, wire)
        if packet.protocol == 6:
            return packet, data
        data, wire = data[: packet.end], packet.end
        start = behind(data, packet.body, IP_PROTOCOLS[packet.protocol])
    raise SkipError("tunnel")


def read_row(record: Record, brokers: list[Endpoint]) -> dict[str, Any]:
    """The row of a packet, with `client`, `broker` and `payload` instead of numbers of connections; raises SkipError with the reason if it has none."""
    if record.time < 0:
        raise SkipError("no_time")
    packet, data = innermost(record.data, record.link, max(record.wire, len(record.data)))
    at, end = packet.body, packet.end
    fixed = need(data, at, 20)
    source_port, target_port, seq, ack, bits, window = struct.unpack(">HHIIHH", fixed[:16])
    payload = at + (bits >> 12) * 4
    if bits >> 12 < 5 or payload > end:
        raise SkipError("malformed")
    ends = (packet.source, source_port), (packet.target, target_port)
    places = [brokers.index(one) if one in brokers else len(brokers) for one in ends]
    if min(places) == len(brokers):
        raise SkipError("other_endpoint")
    answers = places[0] < places[1]
    padded = data[payload:]
    cooked = {113: min(int.from_bytes(data[0:2]), 255), 276: data[10] if len(data) > 10 else 0}
    return {
        "client": ends[1] if answers else ends[0],
        "broker": ends[0] if answers else ends[1],
        "from_broker": answers,
        "timestamp": record.time,
        "wire_len": record.wire,
        "captured_len": len(record.data),
        "interface": int.from_bytes(data[4:8]) if record.link == 276 else 0,
        "packet_type": cooked.get(record.link, 255),
        "ttl": packet.ttl,
        "ip_id": packet.ip_id,
        "header_hash": hash_of(data[packet.start : at + 20]),
        "seq": seq,
        "ack": ack,
        "flags": bits & 0x1FF,
        "window": window,
        "payload_len": end - payload,
        "payload_captured": len(data[payload:end]),
        "padded_len": len(padded),
        "notebook_id": 0 if len(padded) <= 12 else int.from_bytes(padded[4:8] if answers else padded[8:12]),
        "payload": payload,
        **(options := read_options(data[at + 20 : payload], payload <= len(data))),
        "options": options["options"] | (32 if packet.more else 0),
    }
