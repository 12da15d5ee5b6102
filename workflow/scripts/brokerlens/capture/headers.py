"""From a packet's bytes to the fields of a row: link layer, IPv4 and IPv6, TCP and its options.

Sources: RFC 791, 8200, 9293, 7323, 2018; link types as at tcpdump.org/linktypes.html. Every length in a packet is a claim: none is
followed beyond the captured bytes. What is not a whole TCP header to or from a broker is counted by its reason.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from brokerlens.capture.columns import (
    HAS_MSS,
    HAS_TIMESTAMPS,
    HAS_WINDOW_SCALE,
    MORE_FRAGMENTS,
    NO_IP_ID,
    NO_PACKET_TYPE,
    OPTIONS_DAMAGED,
    SACK_PERMITTED,
    Array,
    Columns,
    Int,
)
from brokerlens.capture.formats import Packets
from brokerlens.capture.lookup import Endpoints, count_endpoint, is_broker

# Why a packet gives no row: the place in the array of counts, and in SKIPPED its name in the capture's facts.
UNKNOWN_LINK: Final = 0
NOT_IP: Final = 1
NOT_TCP: Final = 2
FRAGMENT: Final = 3
CUT_HEADER: Final = 4
MALFORMED: Final = 5
OTHER_ENDPOINT: Final = 6
NO_PACKET_TIME: Final = 7
SKIPPED: Final = ("unknown_link", "not_ip", "not_tcp", "fragment", "cut_header", "malformed", "other_endpoint", "no_time")

# Link types.
LINK_NULL: Final = 0
LINK_ETHERNET: Final = 1
LINK_PPP: Final = 9
LINK_RAW: Final = 101
LINK_RAW_BSD: Final = 12
LINK_RAW_OPENBSD: Final = 14
LINK_LOOP: Final = 108
LINK_COOKED: Final = 113
LINK_IPV4: Final = 228
LINK_IPV6: Final = 229
LINK_COOKED_2: Final = 276

IPV4: Final = 0x0800
IPV6: Final = 0x86DD
VLAN: Final = 0x8100
QINQ: Final = 0x88A8
QINQ_OLD: Final = 0x9100
PPPOE: Final = 0x8864
TCP: Final = 6

MAPPED: Final = 0xFFFF << 32  # an IPv4 address is kept as the IPv6 address ::ffff:a.b.c.d

# Places in `ends`, the two ends of a row's connection.
CLIENT_HIGH: Final = 0
CLIENT_LOW: Final = 1
BROKER_HIGH: Final = 2
BROKER_LOW: Final = 3
PORTS: Final = 4
END_COLUMNS: Final = 5

# Places in `fields`, what was found in one packet. One small array, because a tuple of arrays handed from kernel to kernel costs a count of
# references per array and packet: ten times the work itself.
IP_AT: Final = 0
TCP_AT: Final = 1
SEGMENT_END: Final = 2
MORE: Final = 3
SOURCE_HIGH: Final = 4
SOURCE_LOW: Final = 5
TARGET_HIGH: Final = 6
TARGET_LOW: Final = 7
SOURCE_PORT: Final = 8
TARGET_PORT: Final = 9
OPTIONS: Final = 10
TSVAL: Final = 11
TSECR: Final = 12
MSS: Final = 13
WINDOW_SCALE: Final = 14
SACK_COUNT: Final = 15
SACK: Final = 16  # eight places
FIELDS: Final = 24


@njit(cache=True, nogil=True)
def be16(buffer: Array, at: Int) -> Int:
    """Two bytes, big endian."""
    if at < 0:  # never; but told so, the compiler joins the loads instead of counting from the end for each byte
        return 0
    return np.int64(buffer[at]) << 8 | np.int64(buffer[at + 1])


@njit(cache=True, nogil=True)
def be32(buffer: Array, at: Int) -> Int:
    """Four bytes, big endian."""
    if at < 0:  # as above
        return 0
    return np.int64(buffer[at]) << 24 | np.int64(buffer[at + 1]) << 16 | np.int64(buffer[at + 2]) << 8 | np.int64(buffer[at + 3])


@njit(cache=True, nogil=True)
def be64(buffer: Array, at: Int) -> Int:
    """Eight bytes, big endian, as a signed number."""
    return be32(buffer, at) << 32 | be32(buffer, at + 4)


@njit(cache=True, nogil=True)
def behind_ppp(buffer: Array, at: Int, end: Int) -> Int:
    """Place of the IP header behind a PPP header at ``at`` (RFC 1661, address and protocol fields compressed or not), or -1 - reason."""
    if end - at >= 2 and buffer[at] == 0xFF and buffer[at + 1] == 0x03:
        at += 2
    if end - at < 2:
        return -1 - CUT_HEADER
    if buffer[at] & 1:
        protocol = np.int64(buffer[at])
        at += 1
    else:
        protocol = be16(buffer, at)
        at += 2
    return at if protocol in (0x21, 0x57) else -1 - NOT_IP


@njit(cache=True, nogil=True)
def behind_ethertype(buffer: Array, at: Int, end: Int) -> Int:
    """Place of the IP header behind an EtherType at ``at`` and any number of VLAN tags, or -1 - reason."""
    while end - at >= 2:
        kind = be16(buffer, at)
        if kind in (IPV4, IPV6):
            return at + 2
        if kind == PPPOE:
            return behind_ppp(buffer, at + 8, end)
        if kind not in (VLAN, QINQ, QINQ_OLD):
            return -1 - NOT_IP
        at += 4
    return -1 - CUT_HEADER


@njit(cache=True, nogil=True)
def behind_link(buffer: Array, at: Int, end: Int, link: Int) -> Int:
    """Place of the IP header behind the link layer's header at ``at``, or -1 - reason."""
    if link == LINK_ETHERNET:
        return behind_ethertype(buffer, at + 12, end)
    if link == LINK_COOKED:
        return behind_ethertype(buffer, at + 14, end)
    if link == LINK_COOKED_2:
        if end - at < 20:
            return -1 - CUT_HEADER
        kind = be16(buffer, at)
        if kind in (IPV4, IPV6):
            return at + 20
        return behind_ethertype(buffer, at + 22, end) if kind in (VLAN, QINQ, QINQ_OLD) else -1 - NOT_IP
    if link in (LINK_RAW, LINK_RAW_BSD, LINK_RAW_OPENBSD, LINK_IPV4, LINK_IPV6):
        return at
    if link in (LINK_NULL, LINK_LOOP):
        if end - at < 4:
            return -1 - CUT_HEADER
        # The family is in the capturing machine's byte order (LOOP: network order) and small; IPv6's number differs between systems.
        family = np.int64(buffer[at]) | np.int64(buffer[at + 3])
        is_ip = buffer[at + 1] == 0 and buffer[at + 2] == 0 and family in (2, 10, 24, 28, 30)
        return at + 4 if is_ip else -1 - NOT_IP
    if link == LINK_PPP:
        return behind_ppp(buffer, at, end)
    return -1 - UNKNOWN_LINK


@njit(cache=True, nogil=True)
def behind_ipv4(buffer: Array, at: Int, end: Int, wire_end: Int) -> tuple[Int, Int, Int]:
    """Place of the TCP header behind an IPv4 header (or -1 - reason), where its segment ends on the wire, and whether more fragments come."""
    if end - at < 20:
        return -1 - CUT_HEADER, 0, 0
    header = (np.int64(buffer[at]) & 15) * 4
    if header < 20:
        return -1 - MALFORMED, 0, 0
    if buffer[at + 9] != TCP:
        return -1 - NOT_TCP, 0, 0
    fragment = be16(buffer, at + 6)
    if fragment & 0x1FFF:
        return -1 - FRAGMENT, 0, 0
    total = be16(buffer, at + 2)
    if 0 < total < header:
        return -1 - MALFORMED, 0, 0
    segment_end = at + total if total else wire_end  # offload leaves the length 0
    return at + header, segment_end, fragment >> 13 & 1


@njit(cache=True, nogil=True)
def behind_ipv6(buffer: Array, at: Int, end: Int, wire_end: Int) -> tuple[Int, Int, Int]:
    """Like ``behind_ipv4`` for IPv6 and its extension headers."""
    if end - at < 40:
        return -1 - CUT_HEADER, 0, 0
    length = be16(buffer, at + 4)
    segment_end = at + 40 + length if length else wire_end  # jumbograms and offload leave the length 0
    kind = np.int64(buffer[at + 6])
    more = 0
    at += 40
    while kind != TCP:
        if kind not in (0, 43, 44, 51, 60, 135, 139, 140):
            return -1 - NOT_TCP, 0, 0
        if end - at < 8:
            return -1 - CUT_HEADER, 0, 0
        following = np.int64(buffer[at])
        if kind == 44:
            fragment = be16(buffer, at + 2)
            if fragment & 0xFFF8:
                return -1 - FRAGMENT, 0, 0
            more = fragment & 1
            at += 8
        elif kind == 51:
            at += (np.int64(buffer[at + 1]) + 2) * 4
        else:
            at += (np.int64(buffer[at + 1]) + 1) * 8
        kind = following
    return at, segment_end, more


@njit(cache=True, nogil=True)
def hash_headers(buffer: Array, at: Int, end: Int) -> Int:
    """A 32-bit hash of ``buffer[at:end]``, whose length is a multiple of 4."""
    value = 0x811C9DC5
    for word in range(at, end - 3, 4):
        value = (value ^ be32(buffer, word)) * 0x01000193 & 0xFFFFFFFF
        value ^= value >> 15
    value = value * 0x2C1B3C6D & 0xFFFFFFFF
    return value ^ value >> 13


@njit(cache=True, nogil=True)
def find_tcp(buffer: Array, at: Int, captured: Int, wire: Int, link: Int, fields: Array) -> Int:
    """Find a packet's IP and TCP headers and write what they say of addresses, ports and length to ``fields``; returns 0 or -1 - reason."""
    end = at + captured
    wire_end = at + max(wire, captured)
    ip_at = behind_link(buffer, at, end, link)
    if ip_at < 0:
        return ip_at
    if ip_at >= end:
        return -1 - CUT_HEADER
    version = buffer[ip_at] >> 4
    if version == 4:
        tcp_at, segment_end, more = behind_ipv4(buffer, ip_at, end, wire_end)
    elif version == 6:
        tcp_at, segment_end, more = behind_ipv6(buffer, ip_at, end, wire_end)
    else:
        return -1 - MALFORMED
    if tcp_at < 0:
        return tcp_at
    if end - tcp_at < 20:
        return -1 - CUT_HEADER
    payload = tcp_at + (np.int64(buffer[tcp_at + 12]) >> 4) * 4
    if payload < tcp_at + 20 or payload > segment_end:
        return -1 - MALFORMED
    fields[IP_AT] = ip_at
    fields[TCP_AT] = tcp_at
    fields[SEGMENT_END] = segment_end
    fields[MORE] = more
    if version == 4:
        fields[SOURCE_HIGH] = 0
        fields[SOURCE_LOW] = MAPPED | be32(buffer, ip_at + 12)
        fields[TARGET_HIGH] = 0
        fields[TARGET_LOW] = MAPPED | be32(buffer, ip_at + 16)
    else:
        fields[SOURCE_HIGH] = be64(buffer, ip_at + 8)
        fields[SOURCE_LOW] = be64(buffer, ip_at + 16)
        fields[TARGET_HIGH] = be64(buffer, ip_at + 24)
        fields[TARGET_LOW] = be64(buffer, ip_at + 32)
    fields[SOURCE_PORT] = be16(buffer, tcp_at)
    fields[TARGET_PORT] = be16(buffer, tcp_at + 2)
    return 0


@njit(cache=True, nogil=True)
def read_options(buffer: Array, at: Int, end: Int, header_end: Int, fields: Array) -> None:
    """Write the TCP options in ``buffer[at:header_end]``, of which those before ``end`` are captured, to ``fields``."""
    for place in range(OPTIONS, FIELDS):
        fields[place] = 0
    found = OPTIONS_DAMAGED if end < header_end else 0
    end = min(end, header_end)
    while at < end and buffer[at] != 0:
        kind = buffer[at]
        if kind == 1:
            at += 1
            continue
        length = np.int64(buffer[at + 1]) if at + 1 < end else np.int64(0)
        if length < 2 or at + length > end:
            found |= OPTIONS_DAMAGED
            break
        if kind == 8 and length == 10:
            fields[TSVAL] = be32(buffer, at + 2)
            fields[TSECR] = be32(buffer, at + 6)
            found |= HAS_TIMESTAMPS
        elif kind == 2 and length == 4:
            fields[MSS] = be16(buffer, at + 2)
            found |= HAS_MSS
        elif kind == 3 and length == 3:
            fields[WINDOW_SCALE] = buffer[at + 2]
            found |= HAS_WINDOW_SCALE
        elif kind == 4 and length == 2:
            found |= SACK_PERMITTED
        elif kind == 5 and length in (10, 18, 26, 34):
            fields[SACK_COUNT] = length // 8
            for word in range(length // 8 * 2):
                fields[SACK + word] = be32(buffer, at + 2 + 4 * word)
        elif kind in (2, 3, 4, 5, 8):
            found |= OPTIONS_DAMAGED
        at += length
    fields[OPTIONS] = found


@njit(cache=True, nogil=True)
def read_headers(
    buffer: Array,
    packets: Packets,
    first: Int,
    count: Int,
    frame_number: Int,
    brokers: Array,
    endpoints: Endpoints,
    counting: bool,
    columns: Columns,
    row: Int,
    ends: Array,
    payload_at: Array,
    skipped: Array,
) -> tuple[Int, Int]:
    """Write rows for the packets ``first`` to ``count`` that are TCP to or from a broker, from ``row`` on, until the columns are full.

    ``frame_number`` is that of packet 0. ``ends`` is i64[:, END_COLUMNS] and ``payload_at`` i64[:], one entry per new row, from 0: the addresses
    (two words) and ports of client and broker, and the place of the payload in the buffer. ``skipped`` counts the others by reason; the endpoints
    of other TCP packets are counted if ``counting``. Returns the first packet not looked at and the first row not used.
    """
    begin = row
    room = len(columns.seq)
    fields = np.zeros(FIELDS, np.int64)
    while first < count and row < room:
        packet = first
        first += 1
        if packets.time[packet] < 0:
            skipped[NO_PACKET_TIME] += 1
            continue
        at, captured, wire, link = packets.offset[packet], packets.captured[packet], packets.wire[packet], packets.link[packet]
        why = find_tcp(buffer, at, captured, wire, link, fields)
        if why < 0:
            skipped[-1 - why] += 1
            continue
        to_broker = is_broker(brokers, fields[TARGET_HIGH], fields[TARGET_LOW], fields[TARGET_PORT])
        from_broker = is_broker(brokers, fields[SOURCE_HIGH], fields[SOURCE_LOW], fields[SOURCE_PORT])
        if to_broker == 0 and from_broker == 0:
            skipped[OTHER_ENDPOINT] += 1
            if counting:
                count_endpoint(endpoints, fields[SOURCE_HIGH], fields[SOURCE_LOW], fields[SOURCE_PORT])
                count_endpoint(endpoints, fields[TARGET_HIGH], fields[TARGET_LOW], fields[TARGET_PORT])
            continue
        # Between two brokers' own ports the one listed first counts as the broker: a rule that no cut of the captures can change.
        answers = from_broker > 0 and (to_broker == 0 or from_broker < to_broker)
        client, broker = (TARGET_HIGH, SOURCE_HIGH) if answers else (SOURCE_HIGH, TARGET_HIGH)
        place = row - begin
        ends[place, CLIENT_HIGH] = fields[client]
        ends[place, CLIENT_LOW] = fields[client + 1]
        ends[place, BROKER_HIGH] = fields[broker]
        ends[place, BROKER_LOW] = fields[broker + 1]
        if answers:
            ends[place, PORTS] = fields[TARGET_PORT] << 16 | fields[SOURCE_PORT]
        else:
            ends[place, PORTS] = fields[SOURCE_PORT] << 16 | fields[TARGET_PORT]

        end, ip_at, tcp_at, segment_end = at + captured, fields[IP_AT], fields[TCP_AT], fields[SEGMENT_END]
        payload = tcp_at + (np.int64(buffer[tcp_at + 12]) >> 4) * 4
        padded = max(end - payload, 0)
        is_ipv4 = buffer[ip_at] >> 4 == 4
        payload_at[place] = payload
        columns.from_broker[row] = answers
        columns.timestamp[row] = packets.time[packet]
        columns.frame_number[row] = frame_number + packet
        columns.wire_len[row] = wire
        columns.captured_len[row] = captured
        columns.interface[row] = be32(buffer, at + 4) if link == LINK_COOKED_2 else 0
        columns.packet_type[row] = packet_type(buffer, at, link)
        columns.ttl[row] = buffer[ip_at + 8] if is_ipv4 else buffer[ip_at + 7]
        columns.ip_id[row] = be16(buffer, ip_at + 4) if is_ipv4 else NO_IP_ID
        columns.header_hash[row] = hash_headers(buffer, ip_at, tcp_at + 20)
        columns.seq[row] = be32(buffer, tcp_at + 4)
        columns.ack[row] = be32(buffer, tcp_at + 8)
        columns.flags[row] = be16(buffer, tcp_at + 12) & 0x1FF
        columns.window[row] = be16(buffer, tcp_at + 14)
        columns.payload_len[row] = segment_end - payload
        columns.payload_captured[row] = max(min(end, segment_end) - payload, 0)
        columns.padded_len[row] = padded
        columns.notebook_id[row] = 0 if padded <= 12 else be32(buffer, payload + (4 if answers else 8))

        read_options(buffer, tcp_at + 20, end, payload, fields)
        columns.options[row] = fields[OPTIONS] | (MORE_FRAGMENTS if fields[MORE] else 0)
        columns.tsval[row] = fields[TSVAL]
        columns.tsecr[row] = fields[TSECR]
        columns.mss[row] = fields[MSS]
        columns.window_scale[row] = fields[WINDOW_SCALE]
        columns.sack_count[row] = fields[SACK_COUNT]
        columns.sack1_from[row] = fields[SACK]
        columns.sack1_to[row] = fields[SACK + 1]
        columns.sack2_from[row] = fields[SACK + 2]
        columns.sack2_to[row] = fields[SACK + 3]
        columns.sack3_from[row] = fields[SACK + 4]
        columns.sack3_to[row] = fields[SACK + 5]
        columns.sack4_from[row] = fields[SACK + 6]
        columns.sack4_to[row] = fields[SACK + 7]
        row += 1
    return first, row


@njit(cache=True, nogil=True)
def packet_type(buffer: Array, at: Int, link: Int) -> Int:
    """The packet type of a cooked capture (0 to us, 4 sent by us, others), else ``NO_PACKET_TYPE``."""
    if link == LINK_COOKED_2:
        return np.int64(buffer[at + 10])
    if link == LINK_COOKED:
        return min(be16(buffer, at), NO_PACKET_TYPE)
    return NO_PACKET_TYPE
