"""Tunnels: the row is that of the innermost packet, whatever is around it; against the slow dissector and against tshark."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from capture_files import (
    LINKS,
    TUNNELS,
    UNICAST,
    Record,
    erspan,
    ethernet,
    ethertype,
    geneve,
    gre,
    ip,
    ipv4,
    mpls,
    pcap,
    tcp,
    tunnelled,
    udp,
    vxlan,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_capture_headers import check, rows_of

from brokerlens.capture import layers

PAYLOAD = b"0123456789abcdef"
FOUR, SIX = ("192.0.2.5", "192.0.2.10"), ("2001:db8::5", "2001:db8::10")
OF_THE_FRAME = ("wire_len", "captured_len", "payload")  # and nothing else may depend on what is around the packet


def segment(seq: int = 7, payload: bytes = PAYLOAD) -> bytes:
    """A segment to the broker's port."""
    return tcp(50_000, 9092, payload, seq=seq, options=b"\x01\x01\x08\x0a" + bytes(range(8)))


def framed(packet: bytes, padding: int = 0) -> Record:
    """An IP packet in an Ethernet frame."""
    frame = ethernet(packet, padding=padding)
    return Record(1, frame, len(frame))


def in_frame(name: str, packet: bytes) -> bytes:
    """A packet in a tunnel in an Ethernet frame."""
    return ethernet(TUNNELS[name](packet))


def reason(record: Record) -> str:
    """Why this packet gives no row."""
    check([record])
    rows, skipped = rows_of([record])
    assert rows == []
    ((why, number),) = skipped.items()
    assert number == 1
    return why


def same_but_for_the_frame(rows: list[dict[str, Any]]) -> bool:
    """Whether the rows tell the same of the innermost packet."""
    inner = [{name: value for name, value in row.items() if name not in OF_THE_FRAME} for row in rows]
    return all(row == inner[0] for row in inner)


@pytest.mark.parametrize("ends", [FOUR, SIX], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("name", TUNNELS)
def test_the_row_is_that_of_the_innermost_packet(name: str, ends: tuple[str, str]) -> None:
    packet = ip(*ends, segment())
    plain, inside = check([framed(packet), framed(TUNNELS[name](packet), padding=9)])
    assert inside["payload_len"] == inside["payload_captured"] == inside["padded_len"] == len(PAYLOAD)
    assert inside["ttl"] == (57 if ends is SIX else 64)
    assert inside["ip_id"] == (-1 if ends is SIX else 0x1234)
    assert inside["wire_len"] > plain["wire_len"]
    assert same_but_for_the_frame([plain, inside])


def test_any_tunnel_in_any_tunnel() -> None:
    packet = ip(*FOUR, segment())
    nested = [framed(one(other(packet))) for one in TUNNELS.values() for other in TUNNELS.values()]
    rows = check([framed(packet), *nested])
    assert len(rows) == 1 + len(TUNNELS) ** 2
    assert same_but_for_the_frame(rows)


def test_eight_ip_headers_and_no_more() -> None:
    packet = ip(*FOUR, segment())
    for _ in range(7):
        packet = gre(int.from_bytes(ethertype(packet)), packet)
    assert len(check([framed(packet)])) == 1
    assert reason(framed(vxlan(packet))) == "tunnel"


@pytest.mark.parametrize("ends", [FOUR, SIX], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("name", [*TUNNELS, *LINKS])
def test_a_snaplen_may_cut_anywhere(name: str, ends: tuple[str, str]) -> None:
    packet = ip(*ends, segment())
    link, wrap = LINKS[name] if name in LINKS else (1, partial(in_frame, name))
    frame = wrap(packet)
    cut = [Record(1, frame[:length], len(frame), link) for length in range(len(frame) + 1)]
    rows = check(cut)
    assert len(rows) == len(frame[frame.rindex(PAYLOAD) :]) + 12 + 1, "the fixed header is enough"
    assert {(row["payload_len"], row["ttl"]) for row in rows} == {(len(PAYLOAD), rows[0]["ttl"])}
    assert rows_of(cut)[1] == {"cut_header": len(cut) - len(rows)}


def test_a_later_fragment_of_a_tunnel_is_a_fragment_and_the_first_one_a_packet_cut_short() -> None:
    packet = ip(*FOUR, segment(payload=bytes(400)))
    body = vxlan(packet)[20:]
    first = tunnelled(body[:200], 17, fragment=0x2000)
    later = tunnelled(body[200:], 17, fragment=25)
    (row,) = check([framed(first)])
    assert (row["payload_len"], row["payload_captured"], row["options"]) == (400, 200 - 8 - 8 - 14 - 20 - 32, 1)
    assert reason(framed(later)) == "fragment"
    assert reason(framed(tunnelled(bytes(64), 47, fragment=25))) == "fragment"
    assert reason(framed(tunnelled(bytes(64), 1, fragment=25))) == "not_tcp"


def test_offloaded_packets_in_a_tunnel_end_where_the_tunnels_packet_does() -> None:
    inner = ipv4(*FOUR, segment(payload=bytes(3000)), total=0)
    (row,) = check([framed(udp(4789, b"\x08" + bytes(7) + ethernet(inner)), padding=5)])
    assert (row["payload_len"], row["payload_captured"]) == (3000, 3000)
    whole = framed(udp(4789, b"\x08" + bytes(7) + ethernet(inner), total=0))
    (row,) = check([whole._replace(data=whole.data[:200])])
    assert row["payload_len"] == 3000


def test_padding_around_a_tunnel_is_not_in_the_packet_inside() -> None:
    """Not even where the inner length claims it."""
    inner = ipv4(*FOUR, segment(payload=b""), total=20 + 32 + 30)
    (row,) = check([framed(gre(0x0800, inner), padding=30)])
    assert (row["payload_len"], row["payload_captured"], row["padded_len"]) == (30, 0, 0)


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (udp(53, b"\x08" + bytes(7) + ethernet(ip(*FOUR, segment()))), "not_tcp"),
        (udp(4789, b"\x00" + bytes(7) + ethernet(ip(*FOUR, segment()))), "tunnel"),
        (udp(4789, b"\x08\0\0"), "cut_header"),
        (vxlan(ipv4(*FOUR, bytes(40), protocol=1)), "not_tcp"),
        (udp(4789, b"\x08" + bytes(7) + UNICAST + b"\x08\x06" + bytes(28)), "not_ip"),
        (vxlan(ip("192.0.2.77", "192.0.2.78", segment())), "other_endpoint"),
        (udp(6081, b"\x40" + bytes(1) + b"\x08\x00" + bytes(4) + ip(*FOUR, segment())), "tunnel"),
        (geneve(0x0800, b"", 63), "cut_header"),
        (geneve(0x1234, ip(*FOUR, segment())), "not_ip"),
        (gre(0x0800, ip(*FOUR, segment()), 0x4000), "tunnel"),
        (gre(0x0800, ip(*FOUR, segment()), 0x0002), "tunnel"),
        (gre(0x883E, ip(*FOUR, segment())), "not_ip"),
        (erspan(ethernet(ip(*FOUR, segment())), 3, 1), "tunnel"),
        (gre(0x22EB, b"\x30" + bytes(11) + ethernet(ip(*FOUR, segment()))), "tunnel"),
        (tunnelled(b"\x50" + bytes(60), 4), "malformed"),
        (tunnelled(bytes(60), 50), "not_tcp"),
        (udp(6635, mpls(b"\x10" + bytes(60), 1)), "not_ip"),
        (udp(6635, b"\x00\x01\x00\x40" * 20), "cut_header"),
    ],
)
def test_what_holds_no_packet_of_the_brokers_is_counted(packet: bytes, why: str) -> None:
    assert reason(framed(packet)) == why


@pytest.mark.parametrize("tags", [[], [0x8100], [0x88A8, 0x8100]])
@pytest.mark.parametrize("control_word", [b"", bytes(4), b"\0\0\0\x2a"], ids=["none", "zero", "numbered"])
@pytest.mark.parametrize("first", [0x00, 0x02, 0x3C, 0x46, 0x60, 0x6E, 0xFE])
def test_ethernet_in_mpls_is_known_by_what_it_announces(first: int, control_word: bytes, tags: list[int]) -> None:
    """Labels do not say what they carry, and an address may begin as an IP header or a control word does."""
    for ends in (FOUR, SIX):
        frame = bytearray(ethernet(ip(*ends, segment()), tags))
        frame[0] = first
        whole = UNICAST + b"\x88\x47" + mpls(control_word + bytes(frame), 3)
        assert len(check([Record(1, whole, len(whole))])) == 1


def test_ip_in_mpls_whose_addresses_look_like_ethertypes() -> None:
    packets = [ip("8.0.69.1", FOUR[1], segment()), ip("2001:db8:81::1", SIX[1], segment()), ip("2001:db8:8100:5::1", SIX[1], segment())]
    frames = [UNICAST + b"\x88\x47" + mpls(packet) for packet in packets]
    assert len(check([Record(1, frame, len(frame)) for frame in frames])) == 3


around = st.sampled_from([
    (17, b"\xd9\x03\x12\xb5\x00\x80\x00\x00\x08"), (17, b"\xd9\x03\x17\xc1\x00\x80\x00\x00"), (17, b"\xd9\x03\x19\xeb\x00\x80\x00\x00"),
    (47, b"\x30\x81\x88\x0b"), (47, b"\x10\x00\x88\xbe"), (47, b"\x00\x00\x22\xeb"), (47, b"\x00\x00\x65\x58"), (47, b""), (137, b""), (4, b""),
])  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.tuples(around, st.binary(max_size=80), st.booleans()).map(lambda a: framed(tunnelled(a[0][1] + a[1], a[0][0], six=a[2]))),
        max_size=5,
    )
)
def test_noise_in_tunnels_is_counted(records: list[Record]) -> None:
    check(records)


FIELDS = [
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "ip.ttl",
    "ipv6.hlim",
    "ip.id",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq_raw",
    "tcp.len",
]
UNLIKE_TSHARK = {
    "mpls with Ethernet": "it takes the first bytes of an address for a control word",
    "erspan III with IP": "it opens mirrored Ethernet frames only",
}


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("link", sorted({link for link, _ in LINKS.values()}))
def test_tshark_sees_the_same_packets(link: int, tmp_path: Path) -> None:
    wraps: dict[str, Callable[[bytes], bytes]] = {name: wrap for name, (of, wrap) in LINKS.items() if of == link}
    if link == 1:
        wraps |= {name: partial(in_frame, name) for name in TUNNELS}
    wraps = {name: wrap for name, wrap in wraps.items() if name not in UNLIKE_TSHARK}
    frames = [wrap(ip(*ends, segment(seq))) for seq, wrap in enumerate(wraps.values()) for ends in (FOUR, SIX)]
    (tmp_path / "x.pcap").write_bytes(pcap([Record(1, frame, len(frame)) for frame in frames], link=link))
    ports = [word for port in (8472, 10800, 10801) for word in ("-d", f"udp.port=={port},vxlan")]
    command = ["tshark", "-n", "-r", str(tmp_path / "x.pcap"), *ports, "-T", "fields", "-E", "occurrence=a"]
    command += [word for field in FIELDS for word in ("-e", field)]
    profile = os.environ | {"WIRESHARK_CONFIG_DIR": str(tmp_path / "empty"), "LC_ALL": "C"}
    done = subprocess.run(command, env=profile, capture_output=True, text=True, check=True)
    lines = [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]
    assert len(lines) == len(frames)
    rows = check([Record(1, frame, len(frame), link) for frame in frames])
    for name, line, row in zip([name for name in wraps for _ in range(2)], lines, rows, strict=True):
        before_tcp = line["frame.protocols"].partition(":tcp")[0].split(":")
        last = {field: value.split(",")[-1] for field, value in line.items()}
        family, ttl, ip_id = ("ip", "ip.ttl", int(last["ip.id"] or "0", 16)) if before_tcp[-1] == "ip" else ("ipv6", "ipv6.hlim", -1)
        theirs = [last[field] for field in (f"{family}.src", f"{family}.dst", ttl, "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.len")]
        (client, port), (broker, broker_port) = row["client"], row["broker"]
        assert [str(value) for value in (client, broker, row["ttl"], port, broker_port, row["seq"], row["payload_len"])] == theirs, name
        assert row["ip_id"] == ip_id, name


def test_the_page_names_every_number_and_every_reason() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    for kind, numbers, _ in layers.LEADS_TO:
        for number in numbers:
            hidden = (
                kind in (layers.FAMILIES, layers.PPP_PROTOCOLS)
                or number in (layers.IPV4, layers.IPV6)
                or (kind, number) == (layers.IP_PROTOCOLS, 17)
            )
            assert hidden or re.search(rf"\b{number:#06x}\b" if kind == layers.ETHERTYPES else rf"\b{number}\b", page), (kind, number)
    table = page.split("## Packets without a row")[1]
    assert sorted(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == sorted(layers.SKIPPED)
