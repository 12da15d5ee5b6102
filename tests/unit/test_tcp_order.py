"""Order depends on packets alone: not on files, their order, copies, or where captures were cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_packets import ACK, BROKER, CLIENT, FIN, MS, RST, SYN, US, Packet, rows_of

from brokerlens.capture.working import Rows
from brokerlens.tcp import order, segments, stream
from brokerlens.tcp.duplicates import DUPLICATES

SHOWN = ("seq", "ack", "flags", "ip_id", "ttl", "payload_len", "tsval", "interface", "captured_len", "payload_captured")


@st.composite
def captured(draw: st.DrawFn) -> list[Packet]:
    """Packets of a few connections with many equal times; their kept runs are the bytes of their direction."""
    packets = []
    for address in range(draw(st.integers(1, 3))):
        numbers = [2**32 - draw(st.sampled_from((5, 40, 2**31))), draw(st.integers(0, 2**32 - 1))]
        ids = [draw(st.integers(1, 2**16 - 1)), 0]
        time = 0
        for _ in range(draw(st.integers(1, 12))):
            time += draw(st.sampled_from((0, 0, 1, 2 * US, 5 * MS)))
            side = draw(st.sampled_from((CLIENT, BROKER)))
            size = draw(st.sampled_from((0, 1, 7, 30)))
            flags = draw(st.sampled_from((ACK, ACK, ACK, ACK, SYN, FIN | ACK, RST)))
            back = draw(st.sampled_from((0, 0, 0, 3, 9)))
            seq = (numbers[side] - back) % 2**32
            ids[side] = (ids[side] % 65535) + 1 if side == CLIENT else 0
            data = bytes((seq + k) % 2**32 % 251 for k in range(size))
            kept = ((0, data[: size // 2]), (size // 2, data[size // 2 :])) if size > 1 else ((0, data),) if size else ()
            packets.append(
                Packet(time, side, seq, numbers[1 - side], flags, size, ip_id=ids[side], tsval=time // MS, kept=kept, address=address)
            )
            numbers[side] += max(size - back, 0) + bool(flags & (SYN | FIN))
    return packets


def seen(rows: Rows) -> dict[str, Any]:
    """All that must not depend on how packets were captured."""
    ordered = order.order_packets(rows)
    facts, connections = segments.follow_segments(rows, ordered)
    streams = stream.assemble(rows, ordered, facts)
    found: dict[str, Any] = {name: rows.columns[name][ordered.row].tolist() for name in SHOWN}
    for name in (
        "connection",
        "side",
        "time",
        "position",
        "ack_position",
        "is_duplicate",
        "payload_captured",
        "first",
        "address",
        "generation",
    ):
        found[f"ordered {name}"] = getattr(ordered, name).tolist()
    found |= {name: values.tolist() for name, values in facts._asdict().items()}
    found |= {f"connection {name}": repr(values.tolist()) for name, values in vars(connections).items()}
    found |= {name: getattr(streams, name).tolist() for name in ("origin", "seen_from", "seen_to", "seen_time", "again_from", "again_to")}
    found["bytes"] = [
        [(int(position), int(streams.data[at + position - a])) for position in range(a, b)]
        for a, b, at in zip(streams.content_from.tolist(), streams.content_to.tolist(), streams.content_at.tolist(), strict=True)
    ]
    found["bytes"] = [pair for piece in found["bytes"] for pair in piece]
    return found


@settings(max_examples=150, deadline=None)
@given(captured(), st.randoms(use_true_random=False))
def test_spreading_packets_over_captures_changes_nothing(packets: list[Packet], random: Any) -> None:
    """Cut, interleaved, overlapping, shuffled within a capture, another capture with a shorter snaplen, a capture read twice."""
    spread = [replace(packet, capture=random.randrange(4)) for packet in packets]
    spread += [replace(packet, capture=4) for packet in packets if random.random() < 0.5]
    spread += [shortened(packet, random.randrange(packet.payload + 1)) for packet in packets if random.random() < 0.5]
    random.shuffle(spread)
    assert seen(rows_of(spread)) == seen(rows_of(packets))


def shortened(packet: Packet, length: int) -> Packet:
    kept = tuple((offset, data[: max(length - offset, 0)]) for offset, data in packet.kept if offset < length)
    return replace(packet, capture=5, captured=length, kept=kept)


@settings(max_examples=100, deadline=None)
@given(captured())
def test_identical_copies_collapse(packets: list[Packet]) -> None:
    once = order.order_packets(rows_of(packets))
    twice = order.order_packets(rows_of([*packets, *packets]))
    assert len(twice.row) == len(once.row)
    assert twice.copies == len(packets) + once.copies
    assert (twice.row < len(packets)).all()  # of equals the one first in its capture stands for all


@settings(max_examples=100, deadline=None)
@given(captured())
def test_positions_are_the_numbers_unwrapped(packets: list[Packet]) -> None:
    rows = rows_of(packets)
    ordered = order.order_packets(rows)
    placed = ordered.position >= 0
    assert (ordered.position[placed] % 2**32 == rows.columns["seq"][ordered.row[placed]]).all()
    answered = ordered.ack_position >= 0
    assert (ordered.ack_position[answered] % 2**32 == rows.columns["ack"][ordered.row[answered]]).all()
    assert (np.diff(ordered.time)[np.diff(ordered.connection) == 0] >= 0).all()
    assert (ordered.first[ordered.connection] <= np.arange(len(ordered.row))).all()
    assert (np.arange(len(ordered.row)) < ordered.first[ordered.connection + 1]).all()
    assert (rows.columns["connection"][ordered.row] == ordered.address[ordered.connection]).all()


def talk(rounds: int, ids: bool) -> list[Packet]:
    """Requests and answers over an ordinary path; without IP ids as IPv6 has it."""
    packets = [
        Packet(0, CLIENT, 99, 0, SYN, ip_id=0),
        Packet(20 * MS, BROKER, 199, 100, SYN | ACK),
        Packet(20 * MS + 50 * US, CLIENT, 100, 200),
    ]
    for k in range(rounds):
        start = (30 + 50 * k) * MS
        packets += [
            Packet(start, CLIENT, 100 + 10 * k, 200 + 30 * k, ACK, 10, ip_id=2 * k + 1 if ids else -1),
            Packet(start + 21 * MS, BROKER, 200 + 30 * k, 110 + 10 * k, ACK, 30, ip_id=k + 1 if ids else -1),
            Packet(start + 21 * MS + 40 * US, CLIENT, 110 + 10 * k, 230 + 30 * k, ACK, 0, ip_id=2 * k + 2 if ids else -1),
        ]
    return packets


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.booleans(), st.integers(2, 4), st.sampled_from((10 * US, 200 * US)), st.booleans())
def test_doubling_every_packet_only_adds_duplicates(rounds: int, ids: bool, times: int, later: int, hops: bool) -> None:
    packets = talk(rounds, ids)
    copies = [
        replace(packet, time=packet.time + k * later, ttl=packet.ttl - (k if hops else 0)) for k in range(times) for packet in packets
    ]
    once, several = seen(rows_of(packets)), seen(rows_of(copies))
    original = [k for k, copy in enumerate(several["ordered is_duplicate"]) if not copy]
    ordered = order.order_packets(rows_of(copies))
    shown = {DUPLICATES[code] for code in ordered.duplicate[ordered.is_duplicate]}
    assert shown <= ({"capture", "pattern"} if ids else {"pattern"})
    assert (ordered.duplicate_gap[ordered.is_duplicate] == later).all()
    assert len(original) == len(packets)
    for name in ("label", "rtt_ns", "acked_bytes", "unseen_bytes", "seq", "ordered time"):
        assert [several[name][k] for k in original] == once[name]
    assert {name: values for name, values in several.items() if name.startswith("connection ") and "duplicate" not in name} == {
        name: values for name, values in once.items() if name.startswith("connection ") and "duplicate" not in name
    }
    for name in ("seen_from", "seen_to", "seen_time", "again_from"):
        assert several[name] == once[name]


def test_a_network_copy_counts_once() -> None:
    packets = talk(30, ids=True)
    rows = rows_of([*packets, replace(packets[9], time=packets[9].time + 7 * MS)])
    found, ordered = seen(rows), order.order_packets(rows)
    assert sum(found["ordered is_duplicate"]) == 1
    assert [DUPLICATES[code] for code in ordered.duplicate if code] == ["network"]
    assert ordered.duplicate_gap[ordered.is_duplicate].tolist() == [7 * MS]
    assert found["connection retransmitted_segments"] == "[0, 0]"


def test_an_ip_id_that_never_changes_is_no_evidence() -> None:
    packets = [replace(packet, ip_id=7) for packet in talk(30, ids=True)]
    again = replace(packets[9], time=packets[9].time + 300 * MS)
    found = seen(rows_of([*packets, again]))
    assert not any(found["ordered is_duplicate"])
    assert found["connection retransmitted_segments"] == "[1, 0]"


def test_each_direction_keeps_the_interface_that_it_has() -> None:
    """Out by one interface, in by the other: neither direction is a copy."""
    packets = [replace(packet, interface=2 + packet.side) for packet in talk(5, ids=True)]
    assert not any(seen(rows_of(packets))["ordered is_duplicate"])


def test_shifting_time_and_exchanging_sides() -> None:
    packets = talk(6, ids=True)
    once = seen(rows_of(packets))
    later = seen(rows_of([replace(packet, time=packet.time + 77 * MS) for packet in packets]))
    assert later["rtt_ns"] == once["rtt_ns"]
    assert later["label"] == once["label"]


def test_a_run_sorts_however_many_packets_share_a_time() -> None:
    packets = [Packet(0, CLIENT, 100 + 10 * k, 1, ACK, 10, ip_id=k + 1) for k in range(200)]
    rows = rows_of(packets, order=list(range(199, -1, -1)))
    ordered = order.order_packets(rows)
    assert rows.columns["seq"][ordered.row].tolist() == [100 + 10 * k for k in range(200)]
    assert segments.follow_segments(rows, ordered)[1].retransmitted_segments.tolist() == [0, 0]


def test_segments_joined_by_offload_leave_the_byte_facts() -> None:
    """Neighbours captured as one larger segment: other counts of segments, the same bytes, retransmitted ones too."""
    split = [Packet(k * MS, CLIENT, 100 + 10 * k, 1, ACK, 10, ip_id=k + 1) for k in range(6)]
    split += [Packet((300 + k) * MS, CLIENT, 120 + 10 * k, 1, ACK, 10, ip_id=90 + k) for k in range(2)]
    joined = [Packet(2 * k * MS, CLIENT, 100 + 20 * k, 1, ACK, 20, ip_id=2 * k + 1) for k in range(3)]
    joined += [Packet(300 * MS, CLIENT, 120, 1, ACK, 20, ip_id=90)]
    answer = Packet(340 * MS, BROKER, 1, 160, ACK)
    one, two = seen(rows_of([*split, answer])), seen(rows_of([*joined, answer]))
    for name in ("retransmitted_bytes", "payload_bytes", "unseen_bytes", "acked_bytes", "filled_bytes"):
        assert one[f"connection {name}"] == two[f"connection {name}"]
    assert (one["again_from"], one["again_to"]) == (two["again_from"], two["again_to"])
    assert one["connection retransmitted_bytes"] == "[20, 0]"


def test_at_the_other_tap_the_halves_are_exchanged() -> None:
    """Exchange who is client and who is broker: what was one half is the other, and the tap is at the other side."""
    packets = talk(6, ids=True)
    near = seen(rows_of(packets))
    mirrored = [replace(packet, side=1 - packet.side) for packet in packets if not packet.flags & SYN]
    far, plain = seen(rows_of(mirrored)), seen(rows_of([packet for packet in packets if not packet.flags & SYN]))
    assert far["connection rtt_client_p50_ms"] == plain["connection rtt_broker_p50_ms"]
    assert far["connection rtt_broker_n"] == plain["connection rtt_client_n"]
    assert near["connection tap"] == "[1]"
    assert (plain["connection tap"], far["connection tap"]) == ("[1]", "[2]")
