"""The pass over segments agrees with its slow twin on random conversations, most of them broken in some way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tcp_model import Model
from tcp_packets import ACK, BROKER, CLIENT, FIN, MS, RST, SYN, T0, US, Packet, rows_of

from brokerlens import tables
from brokerlens.tcp import evidence, order, segments

HERE = Path(__file__).parent
PAUSES = (0, 1, US, 300 * US, 900 * US, 2 * MS, 20 * MS, 250 * MS, 250 * MS, 61_000 * MS)
C0, B0 = 2**32 - 30, 700


@st.composite
def conversations(draw: st.DrawFn) -> list[Packet]:
    """Steps of two senders that lose, repeat, overlap, reorder, probe, keep alive, close and reset, as a tap might see them."""
    packets: list[Packet] = []
    time = 0
    following = [C0, B0]  # next new byte of each side
    acked = [C0, B0]  # what the other side has acknowledged of it
    ids = [100, 0]
    stamps = [5, 900]
    gaps: list[list[tuple[int, int, int, int]]] = [[], []]  # what was skipped: number, size, IP id and stamp of then
    with_stamps = draw(st.booleans())
    echoes = draw(st.booleans())  # else the echo is the oldest that can be
    options: dict[str, Any] = {
        "sack_permitted": draw(st.booleans()),
        "mss": draw(st.sampled_from((0, 8, 1460))),
        "window_scale": draw(st.sampled_from((-1, 0, 7))),
    }
    if draw(st.booleans()):
        packets.append(Packet(0, CLIENT, C0 - 1, 0, SYN, ip_id=99, **options))
    if draw(st.booleans()):
        packets.append(Packet(MS, BROKER, B0 - 1, C0, SYN | ACK, **options))
        time = MS
    for _ in range(draw(st.integers(1, 24))):
        time += draw(st.sampled_from(PAUSES))
        side = draw(st.sampled_from((CLIENT, BROKER)))
        kind = draw(
            st.sampled_from(
                (
                    "new",
                    "new",
                    "new",
                    "ack",
                    "ack",
                    "skip",
                    "skip",
                    "late",
                    "late",
                    "again",
                    "below",
                    "fin",
                    "reset",
                    "probe",
                    "lost ack",
                    "odd",
                )
            )
        )
        size = draw(st.sampled_from((0, 1, 1, 2, 5, 9, 20)))
        if kind == "skip":
            ids[side] += 1 if side == CLIENT else 0
            gaps[side].append((following[side], size, ids[side], stamps[side]))
            following[side] += size
            continue
        if kind == "late" and not gaps[side]:
            continue
        ids[side] += draw(st.sampled_from((1, 1, 1, 3))) if side == CLIENT else 0
        stamps[side] += draw(st.sampled_from((0, 1, 40)))
        seq, flags = following[side], ACK
        ack = acked[1 - side] = draw(st.sampled_from((acked[1 - side], following[1 - side], following[1 - side])))
        ip_id, stamp = ids[side], stamps[side]
        if kind == "ack":
            size = 0
        elif kind == "new":
            following[side] += size
        elif kind in ("again", "below"):
            seq -= draw(st.integers(0, 40))
            if kind == "below":  # overtaken: its number and its stamp are older
                ip_id, stamp = max(ip_id - 1, 0) if draw(st.booleans()) else ip_id, stamp - draw(st.integers(0, 3))
        elif kind == "late":  # overtaken, or sent again
            number, size, old_id, old_stamp = gaps[side].pop(draw(st.integers(0, len(gaps[side]) - 1)))
            seq = number
            if draw(st.booleans()):
                ip_id, stamp = old_id, old_stamp
        elif kind == "fin":
            flags |= FIN
            following[side] += size + 1
        elif kind == "reset":
            flags, size = draw(st.sampled_from((RST, RST | ACK))), 0
        elif kind == "probe":
            seq, size = acked[side] - draw(st.sampled_from((0, 1))), draw(st.sampled_from((0, 1)))
        elif kind == "lost ack":
            ack = following[1 - side] + draw(st.integers(0, 9))
            size = 0
        else:
            seq += draw(st.sampled_from((-60, 7)))  # far ones are in the cases: the twin counts bytes
        sacks = tuple((ack + a, ack + a + b) for a, b in draw(st.lists(st.tuples(st.integers(-9, 20), st.integers(0, 20)), max_size=2)))
        packets.append(Packet(
            time, side, seq, ack if flags & ACK else 0, flags, size, draw(st.sampled_from((64240, 64240, 0, 500))), ip_id, tsval=stamp if with_stamps else -1,
            tsecr=max(stamps[1 - side] - draw(st.sampled_from((0, 1, 40))), 0) if echoes else 0, sacks=sacks if draw(st.booleans()) else (),
        ))  # fmt: skip
    return packets


@st.composite
def scattered(draw: st.DrawFn) -> list[Packet]:
    """Packets whose numbers, acknowledgements and reports lie anywhere near each other, as no two senders would make them."""
    base = [draw(st.sampled_from((700, 2**32 - 40))), draw(st.sampled_from((9000, 2**32 - 40)))]
    options: dict[str, Any] = {
        "mss": draw(st.sampled_from((0, 8, 1460))),
        "window_scale": draw(st.sampled_from((-1, 0, 7))),
        "sack_permitted": draw(st.booleans()),
    }
    packets: list[Packet] = []
    if draw(st.booleans()):
        packets.append(Packet(0, CLIENT, base[CLIENT] - 1, 0, SYN, ip_id=3, **options))
        packets.append(Packet(MS, BROKER, base[BROKER] - 1, base[CLIENT], SYN | ACK, **options))
    stamped = draw(st.booleans())
    near = st.integers(0, draw(st.sampled_from((6, 30, 120))))
    time = MS
    for number in range(draw(st.integers(1, 16))):
        time += draw(st.sampled_from((*PAUSES, 1100 * MS)))
        side = draw(st.sampled_from((CLIENT, BROKER)))
        flags = draw(st.sampled_from((*[ACK] * 10, FIN | ACK, SYN, SYN | ACK, RST, RST | ACK, 0)))
        seq = base[side] + (draw(st.sampled_from((-1, 9))) if flags & SYN else draw(near))
        ack = base[1 - side] + draw(near)
        sacks = [(ack + begin, ack + begin + size) for begin, size in draw(st.lists(st.tuples(st.integers(-9, 25), near), max_size=2))]
        packets.append(Packet(
            time, side, seq, ack if flags & ACK else 0, flags, 0 if flags & RST else draw(st.sampled_from((0, 0, 1, 2, 5, 20))),
            draw(st.sampled_from((64240, 64240, 0, 500))), draw(st.sampled_from((0, 2 * number + 5, 2 * number + 1))) if side == CLIENT else 0,
            tsval=draw(st.integers(0, 40)) if stamped else -1, tsecr=draw(st.integers(0, 40)) if stamped else 0, sacks=tuple(sacks),
            more_fragments=draw(st.integers(0, 9)) == 0, **(options if flags & SYN else {}),
        ))  # fmt: skip
    return packets


def names_of(bits: int) -> set[str]:
    return {name for place, name in enumerate(tables.SEGMENT_EVIDENCE) if bits >> place & 1}


def compare(packets: list[Packet]) -> None:
    rows = rows_of(packets)
    ordered = order.order_packets(rows)
    facts, connections = segments.follow_segments(rows, ordered)
    for c in range(len(ordered.first) - 1):
        these = slice(int(ordered.first[c]), int(ordered.first[c + 1]))
        chosen = [packets[row] for row in ordered.row[these]]
        model = Model(
            list(
                zip(
                    chosen,
                    ordered.position[these].tolist(),
                    ordered.ack_position[these].tolist(),
                    ordered.is_duplicate[these].tolist(),
                    strict=True,
                )
            )
        )
        assert [segments.LABELS[label] for label in facts.label[these]] == [row.label for row in model.rows]
        assert facts.rtt_ns[these].tolist() == [row.rtt for row in model.rows]
        assert facts.window_bytes[these].tolist() == [row.window for row in model.rows]
        assert facts.acked_bytes[these].tolist() == [row.acked for row in model.rows]
        assert facts.unseen_bytes[these].tolist() == [row.unseen for row in model.rows]
        assert facts.zero_window_begins[these].tolist() == [row.closes for row in model.rows]
        assert [evidence.KINDS[kind] for kind in facts.kind[these]] == [row.kind for row in model.rows]
        assert [names_of(bits) for bits in facts.evidence[these].tolist()] == [row.evidence for row in model.rows]
        assert facts.new_bytes[these].tolist() == [row.new for row in model.rows]
        assert facts.in_flight[these].tolist() == [row.in_flight for row in model.rows]
        assert facts.late_ns[these].tolist() == [row.late for row in model.rows]
        assert facts.late_segments[these].tolist() == [row.late_segments for row in model.rows]
        for side in range(2):
            for name in segments.COUNTERS:
                if name.endswith("_ns"):
                    assert getattr(connections, f"{name[:-3]}_ms")[2 * c + side] == model.counts[side].get(name, 0) / MS
                elif name != "unseen_bytes":
                    assert getattr(connections, name)[2 * c + side] == model.counts[side].get(name, 0), (name, side)
            unseen = sum(row.unseen for row, packet in zip(model.rows, chosen, strict=True) if packet.side != side)
            assert connections.unseen_bytes[2 * c + side] == unseen
            trips = [row.rtt / MS for row, packet in zip(model.rows, chosen, strict=True) if packet.side == side and row.rtt >= 0]
            half = ("client", "broker")[side]
            assert getattr(connections, f"rtt_{half}_n")[c] == len(trips)
            if trips:
                np.testing.assert_allclose(getattr(connections, f"rtt_{half}_p95_ms")[c], np.quantile(trips, 0.95), rtol=1e-12)
                np.testing.assert_allclose(getattr(connections, f"rtt_{half}_p50_ms")[c], np.median(trips), rtol=1e-12)
        assert segments.ENDED[connections.ended[c]] == model.facts["ended"]
        assert segments.RESET_BY[connections.reset_by[c]] == model.facts["reset_by"]
        assert [connections.handshake_broker_ns[c], connections.handshake_client_ns[c]] == model.facts["handshake"]
        assert connections.started[c] == model.facts["started"]
        assert segments.RESETS_BY_KIND[connections.reset_kind[c]] == model.facts["reset_kind"]
        assert segments.RESET_BY[connections.closed_by[c]] == model.facts["closed_by"]
        assert segments.SETUPS[connections.setup[c]] == model.facts["setup"]
        assert (connections.connect_ns[c], connections.mss[c]) == (model.facts["connect"], model.facts["mss"])
        assert connections.syn_retry_ns[c] == (model.facts["retry"] or -1)
        for side, isn in enumerate((connections.isn_client[c], connections.isn_broker[c])):
            expected = model.sides[side].isn
            assert isn == (-1 if expected is None else expected % 2**32)
        counted = [packet.time + T0 for packet, copy in zip(chosen, ordered.is_duplicate[these], strict=True) if not copy]
        assert (connections.first_seen[c], connections.last_seen[c]) == (min(counted), max(counted))


@settings(max_examples=200, deadline=None)
@given(conversations())
@example([Packet(0, CLIENT, C0, B0, RST)])
def test_the_pass_agrees_with_its_twin(packets: list[Packet]) -> None:
    compare(packets)


@settings(max_examples=400, deadline=None)
@given(scattered())
def test_the_pass_agrees_with_its_twin_wherever_numbers_lie(packets: list[Packet]) -> None:
    compare(packets)


@settings(max_examples=200, deadline=None)
@given(st.one_of(conversations(), scattered()))
def test_facts_keep_the_books(packets: list[Packet]) -> None:
    """Unseen bytes are among those acknowledged; each packet has one label; counters are sums over packets."""
    rows = rows_of(packets)
    ordered = order.order_packets(rows)
    facts, connections = segments.follow_segments(rows, ordered)
    assert (facts.unseen_bytes >= 0).all()
    assert (facts.unseen_bytes <= facts.acked_bytes + 2).all()  # a FIN or SYN never captured has a number, but no byte
    d = 2 * ordered.connection + ordered.side
    for label, name in (
        (2, "retransmitted_segments"),
        (3, "filled_segments"),
        (4, "reordered_segments"),
        (5, "ambiguous_segments"),
        (6, "keepalives"),
    ):
        assert np.bincount(d[facts.label == label], minlength=len(connections.packets)).tolist() == getattr(connections, name).tolist()


def test_many_holes_and_many_segments_in_flight_need_no_more_than_room() -> None:
    """Every second segment is missing, and nothing is acknowledged until the end."""
    count = 5000
    packets = [Packet(k * US, CLIENT, 100 + 20 * k, 1, ACK, 10, ip_id=1 + k) for k in range(count)]
    end = 100 + 20 * count - 10
    rows = rows_of([*packets, Packet(count * US, BROKER, 1, end, ACK)])
    ordered = order.order_packets(rows)
    facts, connections = segments.follow_segments(rows, ordered)
    assert connections.unseen_bytes.tolist() == [0, 0]  # the first acknowledgement: nothing says when these were sent
    rows = rows_of([Packet(0, BROKER, 1, 100, ACK), *packets, Packet(count * US, BROKER, 1, end, ACK)])
    ordered = order.order_packets(rows)
    facts, connections = segments.follow_segments(rows, ordered)
    assert connections.unseen_bytes.tolist() == [10 * (count - 1), 0]
    assert facts.acked_bytes[-1] == end - 100


def test_one_direction_alone_keeps_a_bounded_queue() -> None:
    count = 150_000
    base = rows_of([Packet(0, CLIENT, 0, 1, ACK, 10)])
    columns = {name: np.repeat(values, count) for name, values in base.columns.items()}
    columns["seq"] = (10 * np.arange(count)).astype(np.uint32)
    columns["timestamp"] = T0 + np.arange(count) * US
    rows = base._replace(columns=columns, capture=np.zeros(count, np.int32))
    facts, connections = segments.follow_segments(rows, order.order_packets(rows))
    assert connections.data_segments.tolist() == [count, 0]
    assert (facts.label[1:] == 1).all()


def test_kernels_are_plain_python_as_well() -> None:
    """The cases with known truth, without compiling: what numba makes of the kernels is what they say."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_tcp_cases.py")]
    done = subprocess.run(
        command, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=False, cwd=HERE.parents[1]
    )
    assert done.returncode == 0, done.stdout[-3000:]
