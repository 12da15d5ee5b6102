"""From packets to rows: the kernel against a slow dissector, on every link layer and on damaged headers."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np
from capture_files import LINKS, TUNNELS, Record, ethernet, ip, ipv4, ipv6, tcp
from capture_twins import Endpoint, SkipError, read_row
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerlens.capture.columns import ROW_COLUMNS, new_columns
from brokerlens.capture.formats import new_packets
from brokerlens.capture.headers import END_COLUMNS, FIELDS, read_headers
from brokerlens.capture.layers import SKIPPED
from brokerlens.capture.lookup import ConnectionTable, broker_table, new_endpoints

BROKERS = ["192.0.2.10:9092", "[2001:db8::10]:9092", "192.0.2.11:9092"]
FOUR, SIX = ("192.0.2.10", "192.0.2.5", "192.0.2.11"), ("2001:db8::10", "2001:db8::5", "fe80::1")
PAD = 7  # bytes before a packet in the buffer: places must not be taken for offsets


def endpoints() -> list[Endpoint]:
    """The brokers as the slow dissector knows them."""
    return [(ipaddress.ip_address(text.rpartition(":")[0].strip("[]")), int(text.rpartition(":")[2])) for text in BROKERS]


def rows_of(records: list[Record]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The kernel's rows, with client, broker and payload as the twin has them, and its counts."""
    packets, columns = new_packets(len(records)), new_columns(len(records))
    buffer = np.zeros(sum(len(record.data) + PAD for record in records) + 1, np.uint8)
    at = 0
    for number, record in enumerate(records):
        at += PAD
        packets.offset[number], packets.captured[number], packets.wire[number] = at, len(record.data), record.wire
        packets.time[number], packets.link[number] = record.time, record.link
        buffer[at : at + len(record.data)] = np.frombuffer(record.data, np.uint8)
        at += len(record.data)
    for column in columns:
        column[:] = 1  # what an earlier use may have left
    ends, payload_at = np.zeros((len(records), END_COLUMNS), np.int64), np.zeros(len(records), np.int64)
    skipped, directions, scratch = np.zeros(len(SKIPPED), np.int64), np.zeros(len(records), np.int64), np.zeros(FIELDS, np.int64)
    done, count = read_headers(
        buffer, packets, 0, len(records), 1, broker_table(BROKERS), new_endpoints(), True, columns, 0, ends, payload_at, skipped, scratch
    )
    assert done == len(records)
    table = ConnectionTable()
    table.find(ends, count, columns, 0, directions)
    rows = []
    for row in range(count):
        fields = {name: column[row].item() for name, column in columns._asdict().items()}
        client_ip, client_port, broker_ip, broker_port, bucket = table.rows()[fields.pop("connection")]
        number = fields.pop("frame_number") - 1
        assert fields.pop("bucket") == bucket
        fields["client"], fields["broker"] = (ipaddress.ip_address(client_ip), client_port), (ipaddress.ip_address(broker_ip), broker_port)
        fields["payload"] = int(payload_at[row]) - int(packets.offset[number])
        rows.append(fields)
    return rows, {reason: int(number) for reason, number in zip(SKIPPED, skipped, strict=True) if number}


def check(records: list[Record]) -> list[dict[str, Any]]:
    """Compare kernel and twin; returns the rows."""
    expected, reasons = [], dict.fromkeys(SKIPPED, 0)
    for record in records:
        try:
            expected.append(read_row(record, endpoints()))
        except SkipError as skip:
            reasons[str(skip)] += 1
    rows, skipped = rows_of(records)
    assert skipped == {reason: count for reason, count in reasons.items() if count}
    assert rows == expected
    return rows


words = st.integers(0, 0xFFFFFFFF)
option_bytes = st.one_of(
    st.builds(lambda a, b: b"\x01\x01\x08\x0a" + a.to_bytes(4) + b.to_bytes(4), words, words),
    st.integers(0, 0xFFFF).map(lambda mss: b"\x02\x04" + mss.to_bytes(2)),
    st.integers(0, 255).map(lambda shift: bytes([3, 3, shift])),
    st.just(b"\x04\x02"),
    st.lists(words, min_size=2, max_size=8).map(
        lambda edges: bytes([5, 2 + 8 * (len(edges) // 2)]) + b"".join(edge.to_bytes(4) for edge in edges[: len(edges) // 2 * 2])
    ),
    st.just(b"\x01"),
    st.just(b"\x00"),
    st.binary(max_size=6),
)
segments = st.builds(
    tcp,
    st.sampled_from([9092, 50_000, 50_001]),
    st.sampled_from([9092, 9093, 50_000]),
    st.binary(max_size=30),
    seq=words,
    ack=words,
    flags=st.integers(0, 0x1FF),
    window=st.integers(0, 0xFFFF),
    options=st.lists(option_bytes, max_size=5).map(lambda options: b"".join(options)[:40]),
    words=st.one_of(st.none(), st.none(), st.integers(0, 15)),
)
extensions = st.lists(
    st.tuples(st.sampled_from([0, 43, 44, 51, 60, 135, 99]), st.integers(0, 2).map(lambda n: bytes([0, n, 0, 1]) + bytes(12 + 8 * n))),
    max_size=2,
).map(lambda chain: [(kind, data[: {44: 8, 51: (data[1] + 2) * 4}.get(kind, (data[1] + 1) * 8)]) for kind, data in chain])
packets_4 = st.builds(
    ipv4,
    st.sampled_from(FOUR),
    st.sampled_from(FOUR),
    segments,
    total=st.one_of(st.none(), st.none(), st.just(0), st.integers(0, 100)),
    fragment=st.sampled_from([0, 0, 0, 0x4000, 0x2000, 0x2001]),
    protocol=st.sampled_from([6, 6, 6, 17]),
    options=st.sampled_from([b"", b"", bytes(8), bytes(40)]),
)
packets_6 = st.builds(
    ipv6,
    st.sampled_from(SIX),
    st.sampled_from(SIX),
    segments,
    extensions=extensions,
    length=st.one_of(st.none(), st.none(), st.just(0), st.integers(0, 100)),
    protocol=st.sampled_from([6, 6, 6, 58]),
)


@st.composite
def captured(draw: st.DrawFn) -> Record:
    """A packet as captured: tunnels, link layer, padding, snaplen, damage."""
    packet = draw(st.one_of(packets_4, packets_6))
    for tunnel in draw(st.lists(st.sampled_from(list(TUNNELS.values())), max_size=3)):
        packet = tunnel(packet)
    link, wrap = draw(st.sampled_from(list(LINKS.values())))
    frame = bytearray(wrap(packet) + bytes(draw(st.sampled_from([0, 0, 6, 20]))))
    wire = len(frame)
    for place, value in draw(st.lists(st.tuples(st.integers(0, 250), st.integers(0, 255)), max_size=2)) if draw(st.booleans()) else ():
        frame[place % len(frame)] = value
    snaplen = draw(st.one_of(st.just(wire), st.just(wire), st.integers(0, wire)))
    return Record(
        draw(st.sampled_from([0, 1_700_000_000_000_000_001, -1])), bytes(frame[:snaplen]), draw(st.sampled_from([wire, wire, 0])), link
    )


@settings(max_examples=500, deadline=None)
@given(st.lists(captured(), min_size=1, max_size=5))
def test_rows_equal_the_slow_dissector(records: list[Record]) -> None:
    check(records)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.builds(
            Record,
            st.just(1),
            st.binary(max_size=90),
            st.integers(0, 2000),
            st.sampled_from([0, 1, 9, 12, 50, 51, 101, 108, 113, 228, 276, 147]),
        ),
        max_size=5,
    )
)
def test_noise_is_counted(records: list[Record]) -> None:
    check(records)


def test_every_link_layer_gives_the_same_row() -> None:
    for source, target in (("192.0.2.5", "192.0.2.10"), ("2001:db8::5", "2001:db8::10")):
        packet = ip(source, target, tcp(50_000, 9092, b"0123456789abcdef", seq=7))
        rows = check([Record(1, wrap(packet), len(wrap(packet)), link) for link, wrap in LINKS.values()])
        assert len(rows) == len(LINKS)
        same = [
            {k: v for k, v in row.items() if k not in ("wire_len", "captured_len", "payload", "interface", "packet_type")} for row in rows
        ]
        assert all(row == same[0] for row in same)
        assert same[0]["notebook_id"] == int.from_bytes(b"89ab")
        assert {row["packet_type"] for row in rows} == {255, 4, 0, 3}
        assert {row["interface"] for row in rows} == {0, 7}


def test_padding_is_no_payload_but_counts_for_the_notebook() -> None:
    frame = ethernet(ipv4("192.0.2.5", "192.0.2.10", tcp(50_000, 9092)), padding=6)
    (row,) = check([Record(1, frame, 60)])
    assert (row["payload_len"], row["payload_captured"], row["padded_len"]) == (0, 0, 6)


def test_the_wire_length_counts_where_the_snaplen_cut() -> None:
    frame = ethernet(ipv4("192.0.2.10", "192.0.2.5", tcp(9092, 50_000, bytes(1400), options=b"\x01\x01\x08\x0a" + bytes(range(8)))))
    row, cut = check([Record(1, frame[:68], len(frame)), Record(1, frame[:60], len(frame))])
    assert (row["payload_len"], row["payload_captured"], row["tsval"], row["options"]) == (1400, 2, 0x10203, 1)
    assert (cut["payload_len"], cut["payload_captured"], cut["tsval"], cut["options"]) == (1400, 0, 0, 16)
    assert row["header_hash"] == cut["header_hash"], "the hash must not depend on the snaplen"


def test_offloaded_packets_have_their_length_from_the_frame() -> None:
    body = tcp(9092, 50_000, bytes(70_000))
    frames = [ethernet(ipv4("192.0.2.10", "192.0.2.5", body, total=0)), ethernet(ipv6("2001:db8::10", "2001:db8::5", body, length=0))]
    assert [row["payload_len"] for row in check([Record(1, frame[:100], len(frame)) for frame in frames])] == [70_000, 70_000]


def test_of_two_sack_options_the_last_counts() -> None:
    options = b"\x05\x12" + bytes(range(16)) + b"\x05\x0a" + bytes(range(8)) + b"\x01\x01"
    frame = ethernet(ipv4("192.0.2.5", "192.0.2.10", tcp(50_000, 9092, options=options)))
    (row,) = check([Record(1, frame, len(frame))])
    assert [row[name] for name in ("sack_count", "sack1_from", "sack1_to", "sack2_from", "sack2_to")] == [1, 0x10203, 0x4050607, 0, 0]


def test_fragments() -> None:
    segment = tcp(50_000, 9092, bytes(64))
    first = ethernet(ipv4("192.0.2.5", "192.0.2.10", segment, fragment=0x2000))
    later = ethernet(ipv4("192.0.2.5", "192.0.2.10", segment, fragment=0x0008))
    (row,) = check([Record(1, first, len(first)), Record(1, later, len(later))])
    assert row["options"] == 32


def test_between_two_brokers_the_one_listed_first_is_the_broker() -> None:
    there = ethernet(ipv4("192.0.2.10", "192.0.2.11", tcp(9092, 9092)))
    back = ethernet(ipv4("192.0.2.11", "192.0.2.10", tcp(9092, 9092)))
    for frames in ([there, back], [back, there]):
        rows = check([Record(1, frame, len(frame)) for frame in frames])
        assert rows[0]["client"] == rows[1]["client"] == (ipaddress.ip_address("192.0.2.11"), 9092)
        assert sorted(row["from_broker"] for row in rows) == [False, True]


def test_columns_are_those_of_the_working_files() -> None:
    assert list(new_columns(1)._asdict()) == list(ROW_COLUMNS)
