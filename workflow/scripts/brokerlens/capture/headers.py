"""From a packet's bytes to the fields of a row: IPv4 and IPv6, TCP and its options; what stands around them is ``layers``' business.

Sources: RFC 791, 8200, 9293, 7323, 2018, and 2003, 2473 and 4213 for IP in IP. Every length in a packet is a claim: none is
followed beyond the captured bytes. What is not a whole TCP header to or from a broker is counted by its reason.
"""

from __future__ import annotations

from typing import Final

import numpy as np


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
    ask_for_row,
)
from brokerlens.capture.compiled import ask_to_read, inlined, kernel
from brokerlens.capture.formats import CACHE_LINE, Packets
from brokerlens.capture.layers import (
    CUT_HEADER,
    FRAGMENT,
    IP_PROTOCOLS,
    LINK_COOKED,
    LINK_COOKED_2,
    MALFORMED,
    NO_PACKET_TIME,
    NOT_TCP,
    OTHER_ENDPOINT,
    TUNNEL,
    be16,
    behind_headers,
    behind_link,
    header_of,
)
from brokerlens.capture.lookup import Endpoints, count_endpoint, is_broker, mix_half

# What the cache is asked for, and how long before it is needed.
PACKETS_AHEAD: Final = 8
ROWS_AHEAD: Final = 48
ROWS_AT_ONCE: Final = 16  # of most columns in a cache line

MOST_IP_HEADERS: Final = 8  # one in another
TCP: Final = 6

TIMESTAMPS_ALONE: Final = 0x0101080A  # two bytes of padding, time stamps, as RFC 7323's appendix A lays them out

MAPPED: Final = 0xFFFF << 32  # an IPv4 address is kept as the IPv6 address ::ffff:a.b.c.d

# Places in `ends`, the two ends of a row's connection.
CLIENT_HIGH: Final = 0
CLIENT_LOW: Final = 1
BROKER_HIGH: Final = 2
BROKER_LOW: Final = 3
PORTS: Final = 4
END_COLUMNS: Final = 5

# Places in `fields`, what was found in one packet.
IP_AT: Final = 0
TCP_AT: Final = 1
SEGMENT_END: Final = 2
CAPTURED_END: Final = 3
MORE: Final = 4
SOURCE_HIGH: Final = 5
SOURCE_LOW: Final = 6
TARGET_HIGH: Final = 7
TARGET_LOW: Final = 8
SOURCE_PORT: Final = 9
TARGET_PORT: Final = 10
OPTIONS: Final = 11
TSVAL: Final = 12
TSECR: Final = 13
MSS: Final = 14
WINDOW_SCALE: Final = 15
SACK_COUNT: Final = 16
SACK: Final = 17  # eight places
FIELDS: Final = 25


@kernel
def be32(buffer: Array, at: Int) -> Int:
    """Four bytes, big endian."""
    if at < 0:  # never: see ``be16``
        return 0
    return np.int64(buffer[at]) << 24 | np.int64(buffer[at + 1]) << 16 | np.int64(buffer[at + 2]) << 8 | np.int64(buffer[at + 3])


@kernel
def be64(buffer: Array, at: Int) -> Int:
    """Eight bytes, big endian, as a signed number."""
    return be32(buffer, at) << 32 | be32(buffer, at + 4)


@kernel
def behind_ipv4(buffer: Array, at: Int, end: Int, wire_end: Int) -> tuple[Int, Int, Int, Int]:
    """Place of what an IPv4 header carries (or -1 - reason), where it ends on the wire, whether more fragments come, and its protocol."""
    if end - at < 20:
        return -1 - CUT_HEADER, 0, 0, 0
    header = (np.int64(buffer[at]) & 15) * 4
    if header < 20:
        return -1 - MALFORMED, 0, 0, 0
    protocol = np.int64(buffer[at + 9])
    if protocol != TCP and header_of(IP_PROTOCOLS, protocol) < 0:
        return -1 - NOT_TCP, 0, 0, 0
    fragment = be16(buffer, at + 6)
    if fragment & 0x1FFF:
        return -1 - FRAGMENT, 0, 0, 0
    total = be16(buffer, at + 2)
    if 0 < total < header:
        return -1 - MALFORMED, 0, 0, 0
    packet_end = at + total if total else wire_end  # offload leaves the length 0
    return at + header, packet_end, fragment >> 13 & 1, protocol


@kernel
def behind_ipv6(buffer: Array, at: Int, end: Int, wire_end: Int) -> tuple[Int, Int, Int, Int]:
    """Like ``behind_ipv4`` for IPv6 and its extension headers."""
    if end - at < 40:
        return -1 - CUT_HEADER, 0, 0, 0
    length = be16(buffer, at + 4)
    packet_end = at + 40 + length if length else wire_end  # jumbograms and offload leave the length 0
    protocol = np.int64(buffer[at + 6])
    more = 0
    at += 40
    while protocol != TCP and header_of(IP_PROTOCOLS, protocol) < 0:
        if protocol not in (0, 43, 44, 51, 60, 135, 139, 140):
            return -1 - NOT_TCP, 0, 0, 0
        if end - at < 8:
            return -1 - CUT_HEADER, 0, 0, 0
        following = np.int64(buffer[at])
        if protocol == 44:
            fragment = be16(buffer, at + 2)
            if fragment & 0xFFF8:
                return -1 - FRAGMENT, 0, 0, 0
            more = fragment & 1
            at += 8
        elif protocol == 51:
            at += (np.int64(buffer[at + 1]) + 2) * 4
        else:
            at += (np.int64(buffer[at + 1]) + 1) * 8
        protocol = following
    return at, packet_end, more, protocol


@kernel
def hash_headers(buffer: Array, at: Int, end: Int) -> Int:
    """A 32-bit hash of ``buffer[at:end]``, whose length is a multiple of 4."""
    even = odd = 0x811C9DC5  # two at a time: a multiplication takes as long as all else of a word
    for word in range(at, end - 7, 8):
        even = mix_half(even, be32(buffer, word))
        odd = mix_half(odd, be32(buffer, word + 4))
    if (end - at) & 4:
        even = mix_half(even, be32(buffer, end - 4))
    value = mix_half(mix_half(0x811C9DC5, even), odd) * 0x2C1B3C6D & 0xFFFFFFFF
    return value ^ value >> 13


@kernel
def find_tcp(buffer: Array, at: Int, captured: Int, wire: Int, link: Int, fields: Array) -> Int:
    """Find a packet's TCP header, through any tunnels, and write what it and the IP header before it say to ``fields``; returns 0 or -1 - reason."""
    end = at + captured
    packet_end = at + max(wire, captured)
    ip_at = behind_link(buffer, at, end, link)
    for _ in range(MOST_IP_HEADERS):
        if ip_at < 0:
            return ip_at
        if ip_at >= end:
            return -1 - CUT_HEADER
        version = buffer[ip_at] >> 4
        if version == 4:
            inner_at, packet_end, more, protocol = behind_ipv4(buffer, ip_at, end, packet_end)
        elif version == 6:
            inner_at, packet_end, more, protocol = behind_ipv6(buffer, ip_at, end, packet_end)
        else:
            return -1 - MALFORMED
        if inner_at < 0:
            return inner_at
        if protocol == TCP:
            return read_ends(buffer, ip_at, inner_at, end, packet_end, more, fields)
        end = min(end, packet_end)  # padding behind a tunnel's packet is no part of what it carries
        ip_at = behind_headers(buffer, header_of(IP_PROTOCOLS, protocol), inner_at, end)
    return -1 - TUNNEL


@inlined  # a call would cost an eighth of the time of `read_headers`
def read_ends(buffer: Array, ip_at: Int, tcp_at: Int, end: Int, segment_end: Int, more: Int, fields: Array) -> Int:
    """Write addresses, ports and length of a TCP segment, of which the bytes before ``end`` are captured, to ``fields``; returns 0 or -1 - reason."""
    if end - tcp_at < 20:
        return -1 - CUT_HEADER
    payload = tcp_at + (np.int64(buffer[tcp_at + 12]) >> 4) * 4
    if payload < tcp_at + 20 or payload > segment_end:
        return -1 - MALFORMED
    fields[IP_AT] = ip_at
    fields[TCP_AT] = tcp_at
    fields[SEGMENT_END] = segment_end
    fields[CAPTURED_END] = end
    fields[MORE] = more
    if buffer[ip_at] >> 4 == 4:
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


@kernel
def read_options(buffer: Array, at: Int, end: Int, header_end: Int, fields: Array) -> None:
    """Write the TCP options in ``buffer[at:header_end]``, of which those before ``end`` are captured, to ``fields``."""
    for place in range(OPTIONS, FIELDS):
        fields[place] = 0
    if end >= header_end == at + 12 and be32(buffer, at) == TIMESTAMPS_ALONE:  # nearly all segments
        fields[OPTIONS] = HAS_TIMESTAMPS
        fields[TSVAL] = be32(buffer, at + 4)
        fields[TSECR] = be32(buffer, at + 8)
        return
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
            for word in range(8):
                fields[SACK + word] = be32(buffer, at + 2 + 4 * word) if word < length // 8 * 2 else 0
        elif kind in (2, 3, 4, 5, 8):
            found |= OPTIONS_DAMAGED
        at += length
    fields[OPTIONS] = found


@kernel
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
    fields: Array,
) -> tuple[Int, Int]:
    """Write rows for the packets ``first`` to ``count`` that are TCP to or from a broker, from ``row`` on, until the columns are full.

    ``frame_number`` is that of packet 0. ``ends`` is i64[:, END_COLUMNS] and ``payload_at`` i64[:], one entry per new row, from 0: the addresses
    (two words) and ports of client and broker, and the place of the payload in the buffer. ``skipped`` counts the others by reason; the endpoints
    of other TCP packets are counted if ``counting``. ``fields`` is i64[FIELDS], to work with. Returns the first packet not looked at and the first row not used.
    """
    begin = row
    room = len(columns.seq)
    while first < count and row < room:
        packet = first
        first += 1
        if packet + PACKETS_AHEAD < count:
            ask_to_read(buffer, packets.offset[packet + PACKETS_AHEAD])
            ask_to_read(buffer, packets.offset[packet + PACKETS_AHEAD] + CACHE_LINE)
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

        end, ip_at, tcp_at, segment_end = fields[CAPTURED_END], fields[IP_AT], fields[TCP_AT], fields[SEGMENT_END]
        payload = tcp_at + (np.int64(buffer[tcp_at + 12]) >> 4) * 4
        padded = max(end - payload, 0)
        is_ipv4 = buffer[ip_at] >> 4 == 4
        payload_at[place] = payload
        if row % ROWS_AT_ONCE == 0 and row + ROWS_AHEAD < room:
            ask_for_row(columns, row + ROWS_AHEAD)
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
        if fields[SACK_COUNT] > 0 or columns.sack_count[row] > 0:  # else they are 0 from the row that stood here before
            columns.sack1_from[row] = fields[SACK]
            columns.sack1_to[row] = fields[SACK + 1]
            columns.sack2_from[row] = fields[SACK + 2]
            columns.sack2_to[row] = fields[SACK + 3]
            columns.sack3_from[row] = fields[SACK + 4]
            columns.sack3_to[row] = fields[SACK + 5]
            columns.sack4_from[row] = fields[SACK + 6]
            columns.sack4_to[row] = fields[SACK + 7]
        columns.sack_count[row] = fields[SACK_COUNT]
        row += 1
    return first, row


@kernel
def packet_type(buffer: Array, at: Int, link: Int) -> Int:
    """The packet type of a cooked capture (0 to us, 4 sent by us, others), else ``NO_PACKET_TYPE``."""
    if link == LINK_COOKED_2:
        return np.int64(buffer[at + 10])
    if link == LINK_COOKED:
        return min(be16(buffer, at), NO_PACKET_TYPE)
    return NO_PACKET_TYPE
