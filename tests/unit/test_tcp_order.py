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


SIZE = 100
FATES = ("arrives", "arrives", "lost before the tap", "lost behind the tap", "overtaken")


def transfer(fates: list[str], ids: bool, stamps: bool) -> tuple[list[Packet], list[str]]:
    """A client sends a segment every 10 ms, captured beside it, on a path of 40 ms; what was lost it sends again after 220 ms. And what is true of each packet.

    A segment that is overtaken comes 1 ms behind the next one.
    """
    sent = []  # when it passes the tap, when it was sent, segment, whether the broker gets it
    for k, fate in enumerate(fates):
        start = (100 + 10 * k) * MS
        if fate != "lost before the tap":
            sent.append((start + 11 * MS if fate == "overtaken" else start, start, k, fate != "lost behind the tap"))
        if fate.startswith("lost"):
            sent.append((start + 220 * MS, start + 220 * MS, k, True))
    number = {when: place for place, when in enumerate(sorted(when for _, when, _, _ in sent))}
    packets, truth = talk(0, ids), ["new", "new", ""]
    got: set[int] = set()
    seen: set[int] = set()
    answers = []
    for time, when, k, arrives in sorted(sent):
        stamp = when // MS if stamps else -1
        packets.append(Packet(time, CLIENT, 100 + SIZE * k, 200, ACK, SIZE, ip_id=10 + number[when] if ids else -1, tsval=stamp))
        late = "reordered" if fates[k] == "overtaken" else "filled"
        truth.append("new" if k > max(seen, default=-1) else "retransmitted" if k in seen else late)
        seen.add(k)
        got |= {k} if arrives else set()
        answers.append((time + 40 * MS + 300 * US, next(k for k in range(len(fates) + 1) if k not in got)))
    for place, (time, k) in enumerate(answers):
        packets.append(Packet(time, BROKER, 200, 100 + SIZE * k, ip_id=500 + place if ids else -1, tsval=time // MS if stamps else -1))
        truth.append("")
    order = sorted(range(len(packets)), key=lambda k: packets[k].time)
    return [packets[k] for k in order], [truth[k] for k in order]


@st.composite
def transfers(draw: st.DrawFn) -> tuple[list[Packet], list[str]]:
    """The last two segments arrive: of a tail lost before the tap the tap knows nothing."""
    return transfer([*draw(st.lists(st.sampled_from(FATES), max_size=12)), "arrives", "arrives"], draw(st.booleans()), draw(st.booleans()))


BYTE_FACTS = ("retransmitted_bytes", "filled_bytes", "payload_bytes", "unseen_bytes", "acked_bytes", "unfilled_bytes")


@settings(max_examples=150, deadline=None)
@given(transfers())
def test_the_fate_of_each_segment_is_told(sent: tuple[list[Packet], list[str]]) -> None:
    packets, truth = sent
    found = seen(rows_of(packets))
    assert [segments.LABELS[label] for label in found["label"]] == truth
    assert found["connection unseen_bytes"] == found["connection unfilled_bytes"] == "[0, 0]"
    trips = [trip for trip, side in zip(found["rtt_ns"], found["ordered side"], strict=True) if trip >= 0 and side == BROKER]
    assert set(trips) <= {20 * MS, 40 * MS + 300 * US}  # of the handshake, and of the path: nothing that waited for something else


@settings(max_examples=100, deadline=None)
@given(transfers(), st.integers(2, 3))
def test_doubling_every_packet_of_a_transfer_with_losses(sent: tuple[list[Packet], list[str]], times: int) -> None:
    packets, truth = sent
    copies = [replace(packet, time=packet.time + 10 * US * k, ttl=packet.ttl - k) for k in range(times) for packet in packets]
    once, several = seen(rows_of(packets)), seen(rows_of(copies))
    original = [k for k, copy in enumerate(several["ordered is_duplicate"]) if not copy]
    assert [segments.LABELS[several["label"][k]] for k in original] == truth
    for name in segments.SegmentFacts._fields:
        assert [several[name][k] for k in original] == once[name]
    counted = {name: values for name, values in once.items() if name.startswith("connection ") and "duplicate_segments" not in name}
    assert {name: several[name] for name in counted} == counted


@settings(max_examples=100, deadline=None)
@given(transfers())
def test_joining_neighbours_of_a_transfer_leaves_the_bytes(sent: tuple[list[Packet], list[str]]) -> None:
    """What offload makes of segments that follow each other without an answer between them."""
    joined: list[Packet] = []
    for packet in sent[0]:
        last = joined[-1] if joined else None
        if last and packet.payload and last.payload and last.seq + last.payload == packet.seq:
            joined[-1] = replace(last, payload=last.payload + packet.payload)
        else:
            joined.append(packet)
    one, two = seen(rows_of(sent[0])), seen(rows_of(joined))
    assert {name: two[f"connection {name}"] for name in BYTE_FACTS} == {name: one[f"connection {name}"] for name in BYTE_FACTS}


@settings(max_examples=100, deadline=None)
@given(transfers(), st.integers(0, 10**15))
def test_shifting_time_and_exchanging_sides(sent: tuple[list[Packet], list[str]], later: int) -> None:
    """Later it is the same; with client and broker exchanged, each side has what the other had."""
    packets = [packet for packet in sent[0] if not packet.flags & SYN]
    rows = rows_of(packets)
    facts, connections = segments.follow_segments(rows, order.order_packets(rows))
    for moved in (
        (replace(packet, time=packet.time + later) for packet in packets),
        (replace(packet, side=1 - packet.side) for packet in packets),
    ):
        other = rows_of(moved)
        facts_again, connections_again = segments.follow_segments(other, order.order_packets(other))
        assert [values.tolist() for values in facts_again] == [values.tolist() for values in facts]
        turn = -1 if other.columns["from_broker"][0] != rows.columns["from_broker"][0] else 1
        for name in (*segments.COUNTERS, "fast_segments", "timeout_segments", "spurious_segments"):
            name = name.replace("_ns", "_ms")
            assert getattr(connections_again, name)[::turn].tolist() == getattr(connections, name).tolist()


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
