"""What stands around an IP header: link layers, and tunnels that carry one packet in another.

Sources: link types as at tcpdump.org/linktypes.html; IEEE 802.1Q; RFC 1661 (PPP), 2516 (PPPoE), 2784, 2890 and 2637 (GRE), 7637 (NVGRE), 7348
(VXLAN), 8926 (Geneve), 3032, 4023, 4448 and 7510 (MPLS), draft-foschiano-erspan. One table says which number leads to which header; a header that
is no more than a fixed number of bytes around such a number is a row of a second one. Every length in a packet is a claim: none is followed
beyond the captured bytes.
"""

from __future__ import annotations

from typing import Final

import numpy as np


from brokerlens.capture.columns import Array, Int
from brokerlens.capture.compiled import kernel

# Why a packet gives no row: the place in the array of counts, and in SKIPPED its name in the capture's facts (docs/formats.md).
UNKNOWN_LINK: Final = 0
NOT_IP: Final = 1
NOT_TCP: Final = 2
FRAGMENT: Final = 3
CUT_HEADER: Final = 4
MALFORMED: Final = 5
OTHER_ENDPOINT: Final = 6
NO_PACKET_TIME: Final = 7
TUNNEL: Final = 8
SKIPPED: Final = ("unknown_link", "not_ip", "not_tcp", "fragment", "cut_header", "malformed", "other_endpoint", "no_time", "tunnel")

LINK_ETHERNET: Final = 1
LINK_COOKED: Final = 113
LINK_COOKED_2: Final = 276
IPV4: Final = 0x0800
IPV6: Final = 0x86DD
ERSPAN_1_OR_2: Final = 0x88BE

# Headers.
IP: Final = 0
ETHERNET: Final = 1
TAG: Final = 2  # VLAN: what follows the EtherType that announces it
COOKED: Final = 3
COOKED_2: Final = 4
LOOPBACK: Final = 5
PPP: Final = 6
PPPOE: Final = 7
MPLS: Final = 8
UDP: Final = 9
GRE: Final = 10
VXLAN: Final = 11
GENEVE: Final = 12
ERSPAN: Final = 13

# Kinds of numbers that tell which header follows.
LINK_TYPES: Final = 0
FAMILIES: Final = 1
ETHERTYPES: Final = 2
PPP_PROTOCOLS: Final = 3
IP_PROTOCOLS: Final = 4
UDP_PORTS: Final = 5

LEADS_TO: Final = (  # (kind of number, the numbers, the header that follows)
    (LINK_TYPES, (LINK_ETHERNET,), ETHERNET),
    (LINK_TYPES, (LINK_COOKED,), COOKED),
    (LINK_TYPES, (LINK_COOKED_2,), COOKED_2),
    (LINK_TYPES, (101, 12, 14, 228, 229), IP),
    (LINK_TYPES, (0, 108), LOOPBACK),
    (LINK_TYPES, (9, 50), PPP),
    (LINK_TYPES, (51,), PPPOE),
    (FAMILIES, (2, 10, 24, 28, 30), IP),  # IPv6's number differs between systems
    (ETHERTYPES, (IPV4, IPV6), IP),
    (ETHERTYPES, (0x8100, 0x88A8, 0x9100), TAG),
    (ETHERTYPES, (0x8847, 0x8848), MPLS),
    (ETHERTYPES, (0x8864,), PPPOE),
    (ETHERTYPES, (0x6558,), ETHERNET),
    (ETHERTYPES, (0x880B,), PPP),
    (ETHERTYPES, (ERSPAN_1_OR_2, 0x22EB), ERSPAN),
    (PPP_PROTOCOLS, (0x21, 0x57), IP),
    (PPP_PROTOCOLS, (0x281, 0x283), MPLS),
    (IP_PROTOCOLS, (4, 41), IP),
    (IP_PROTOCOLS, (17,), UDP),
    (IP_PROTOCOLS, (47,), GRE),
    (IP_PROTOCOLS, (137,), MPLS),
    (UDP_PORTS, (4789, 8472, 10800, 10801), VXLAN),  # IANA's, Linux's and flannel's, both of Azure's gateway load balancer
    (UDP_PORTS, (6081,), GENEVE),
    (UDP_PORTS, (6635,), MPLS),
)
NUMBERS: Final = np.array([(kind, number, header) for kind, numbers, header in LEADS_TO for number in numbers], np.int64)
KINDS: Final = np.searchsorted(NUMBERS[:, 0], np.arange(UDP_PORTS + 2))  # where each kind's numbers begin
UNKNOWN: Final = np.array([UNKNOWN_LINK, NOT_IP, NOT_IP, NOT_IP, NOT_TCP, NOT_TCP])  # why there is no row where the number is none of them

# Of each header: its least bytes; the place of the number in it, with that number's kind, or -1 and the header that follows; functions know the rest.
LEAST: Final = 0
NUMBER_AT: Final = 1
FOLLOWING: Final = 2
HEADERS: Final = np.array(
    [
        (0, -1, IP),
        (14, 12, ETHERTYPES),
        (4, 2, ETHERTYPES),  # tag
        (16, 14, ETHERTYPES),  # cooked
        (20, 0, ETHERTYPES),  # cooked 2
        (4, -1, IP),  # loopback: behind_family
        (2, -1, IP),  # PPP: behind_ppp
        (6, -1, PPP),  # PPPoE
        (4, -1, IP),  # MPLS: behind_labels
        (8, 2, UDP_PORTS),
        (4, -1, IP),  # GRE: behind_gre
        (8, -1, ETHERNET),  # VXLAN
        (8, 2, ETHERTYPES),  # Geneve
        (8, -1, ETHERNET),  # ERSPAN: behind_erspan
    ]
)


@kernel
def be16(buffer: Array, at: Int) -> Int:
    """Two bytes, big endian."""
    if at < 0:  # never; but told so, the compiler joins the loads instead of counting from the end for each byte
        return 0
    return np.int64(buffer[at]) << 8 | np.int64(buffer[at + 1])


@kernel
def header_of(kind: Int, number: Int) -> Int:
    """The header that a number leads to, or -1 - reason."""
    for row in range(KINDS[kind], KINDS[kind + 1]):
        if NUMBERS[row, 1] == number:
            return NUMBERS[row, 2]
    return -1 - UNKNOWN[kind]


@kernel
def behind_family(buffer: Array, at: Int) -> tuple[Int, Int]:
    """What follows a loopback header: the family, a small number in the capturing machine's byte order or in the network's."""
    family = np.int64(buffer[at] | buffer[at + 3]) | np.int64(buffer[at + 1] | buffer[at + 2]) << 8
    return header_of(FAMILIES, family), at + 4


@kernel
def behind_ppp(buffer: Array, at: Int, end: Int) -> tuple[Int, Int]:
    """What follows a PPP header, its address and protocol fields compressed or not."""
    if buffer[at] == 0xFF and buffer[at + 1] == 0x03:
        at += 2
    if end - at < 2:
        return -1 - CUT_HEADER, at
    if buffer[at] & 1:
        return header_of(PPP_PROTOCOLS, np.int64(buffer[at])), at + 1
    return header_of(PPP_PROTOCOLS, be16(buffer, at)), at + 2


@kernel
def is_ethernet(buffer: Array, at: Int, end: Int) -> bool:
    """Whether an Ethernet header may stand here: behind its EtherType and tags begins the IP header that it announces, as far as it is captured."""
    at += 12
    while end - at >= 2:
        number = be16(buffer, at)
        if number in (IPV4, IPV6):
            return bool(end - at == 2 or buffer[at + 2] >> 4 == (4 if number == IPV4 else 6))
        if header_of(ETHERTYPES, number) != TAG:
            return False
        at += 4
    return True


@kernel
def behind_labels(buffer: Array, at: Int, end: Int) -> tuple[Int, Int]:
    """What follows a stack of MPLS labels, which does not say it: Ethernet, behind a control word or not, where that fits, else IP.

    An address that begins with 0x45 is a group's, so that is always IPv4.
    """
    while end - at >= 4 and buffer[at + 2] & 1 == 0:
        at += 4
    at += 4
    if end - at < 1:
        return -1 - CUT_HEADER, at
    if buffer[at] != 0x45:
        if end - at >= 2 and be16(buffer, at) == 0 and is_ethernet(buffer, at + 4, end):
            return ETHERNET, at + 4
        if is_ethernet(buffer, at, end):
            return ETHERNET, at
    if buffer[at] >> 4 in (4, 6):
        return IP, at
    return -1 - NOT_IP, at


@kernel
def behind_gre(buffer: Array, at: Int) -> tuple[Int, Int]:
    """What follows a GRE header with its checksum, key, sequence and (PPTP's) acknowledgement number, where it has them."""
    flags, number = be16(buffer, at), be16(buffer, at + 2)
    if flags & 0x4000 or flags & 7 > 1:  # source routes, which nobody sends any more, and versions that do not exist
        return -1 - TUNNEL, at
    fields = (flags >> 15) + (flags >> 13 & 1) + (flags >> 12 & 1) + (flags >> 7 & flags & 1)
    header = header_of(ETHERTYPES, number)
    if number == ERSPAN_1_OR_2 and flags & 0x1000 == 0:  # type I has no header of its own and no sequence number
        header = ETHERNET
    return header, at + 4 + 4 * fields


@kernel
def behind_erspan(buffer: Array, at: Int, end: Int) -> tuple[Int, Int]:
    """What follows an ERSPAN header of type II or III."""
    version = buffer[at] >> 4
    if version == 1:
        return ETHERNET, at + 8
    if version != 2:
        return -1 - TUNNEL, at
    if end - at < 12:
        return -1 - CUT_HEADER, at
    bits = be16(buffer, at + 10)
    content = bits >> 10 & 31
    header = ETHERNET if content == 0 else IP if content == 2 else -1 - TUNNEL
    return header, at + 12 + 8 * (bits & 1)


@kernel
def behind_header(buffer: Array, header: Int, at: Int) -> tuple[Int, Int]:
    """What follows a header that ``HEADERS`` describes: the header, or -1 - reason, and its place."""
    size, number_at, following = HEADERS[header, LEAST], HEADERS[header, NUMBER_AT], HEADERS[header, FOLLOWING]
    if header == VXLAN and buffer[at] & 8 == 0:  # the bit that every version sets
        return -1 - TUNNEL, at
    if header == GENEVE:
        if buffer[at] >> 6 != 0:
            return -1 - TUNNEL, at
        size += 4 * (np.int64(buffer[at]) & 63)
    return (following if number_at < 0 else header_of(following, be16(buffer, at + number_at))), at + size


@kernel
def behind_headers(buffer: Array, header: Int, at: Int, end: Int) -> Int:
    """Place of the next IP header from ``header`` at ``at`` on, or -1 - reason. ``header`` may be a reason already."""
    while header > IP:
        if end - at < HEADERS[header, LEAST]:
            return -1 - CUT_HEADER
        if header == LOOPBACK:
            header, at = behind_family(buffer, at)
        elif header == PPP:
            header, at = behind_ppp(buffer, at, end)
        elif header == MPLS:
            header, at = behind_labels(buffer, at, end)
        elif header == GRE:
            header, at = behind_gre(buffer, at)
        elif header == ERSPAN:
            header, at = behind_erspan(buffer, at, end)
        else:
            header, at = behind_header(buffer, header, at)
    return at if header == IP else header


@kernel
def behind_link(buffer: Array, at: Int, end: Int, link: Int) -> Int:
    """Place of the first IP header behind the link layer's header at ``at``, or -1 - reason."""
    # Nearly all packets are these, and need no look at the tables.
    number_at, size = 12, 14
    if link == LINK_COOKED:
        number_at, size = 14, 16
    elif link == LINK_COOKED_2:
        number_at, size = 0, 20
    elif link != LINK_ETHERNET:
        number_at, size = 0, end - at + 1  # which no packet has
    if end - at >= size and be16(buffer, at + number_at) in (IPV4, IPV6):
        return at + size
    return behind_headers(buffer, header_of(LINK_TYPES, link), at, end)
