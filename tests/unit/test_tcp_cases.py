"""Small captures whose truth is known: those of the table in the specification by its letters, then wrap, reuse, probes, resets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from tcp_packets import ACK, BROKER, CLIENT, FIN, MS, PSH, RST, SYN, T0, US, Packet, captured, rows_of

from brokerlens import tables
from brokerlens.tcp import order, segments, stream
from brokerlens.tcp.duplicates import DUPLICATES
from brokerlens.tcp.evidence import KINDS
from brokerlens.tcp.segments import ENDED, LABELS, RESET_BY, RESETS_BY_KIND, SETUPS, TAPS, ConnectionFacts, SegmentFacts

C0, B0 = 1000, 5000  # numbers of the first byte of each side
MSS = 1448


class Followed(NamedTuple):
    rows: Any
    ordered: order.Ordered
    packets: SegmentFacts
    connections: ConnectionFacts

    def labels(self) -> list[str]:
        return [LABELS[label] for label in self.packets.label]

    def rtt_ms(self) -> list[float | None]:
        return [None if rtt < 0 else rtt / MS for rtt in self.packets.rtt_ns]

    def kinds(self) -> list[str]:
        """What made the sender send again, of each retransmission."""
        return [KINDS[kind] for kind in self.packets.kind if kind]

    def evidence(self, row: int) -> set[str]:
        return {name for place, name in enumerate(tables.SEGMENT_EVIDENCE) if self.packets.evidence[row] >> place & 1}

    def count(self, name: str, side: int = CLIENT) -> int:
        return int(getattr(self.connections, name)[side::2].sum())


def follow(packets: list[Packet]) -> Followed:
    """What is made of a capture of these packets; only where the bytes kept of them are given by hand, there is no file."""
    by_hand = not packets or any(packet.kept for packet in packets)
    rows = rows_of(packets) if by_hand else captured(packets)
    ordered = order.order_packets(rows)
    return Followed(rows, ordered, *segments.follow_segments(rows, ordered))


def handshake(broker_ms: float = 40, client_ms: float = 0.05, c0: int = C0, b0: int = B0, start: int = 0, **options: Any) -> list[Packet]:
    """SYN, SYN-ACK and ACK, captured beside the client unless the legs say otherwise."""
    answered = start + int(broker_ms * MS)
    options = {"mss": 1460, "window_scale": 7} | options
    return [
        Packet(start, CLIENT, c0 - 1, flags=SYN, ip_id=1, **options),
        Packet(answered, BROKER, b0 - 1, c0, SYN | ACK, ip_id=0, **options),
        Packet(answered + int(client_ms * MS), CLIENT, c0, b0, ip_id=2),
    ]


def client(ms: float, offset: int, size: int = MSS, ip_id: int = 0, **more: Any) -> Packet:
    return Packet(int(ms * MS), CLIENT, C0 + offset, B0, PSH | ACK, size, ip_id=ip_id, **more)


def broker_ack(ms: float, offset: int, **more: Any) -> Packet:
    return Packet(int(ms * MS), BROKER, B0, C0 + offset, ACK, **more)


def broker(ms: float, offset: int, size: int = MSS, ip_id: int = 0, acked: int = 0, **more: Any) -> Packet:
    return Packet(int(ms * MS), BROKER, B0 + offset, C0 + acked, PSH | ACK, size, ip_id=ip_id, **more)


def client_ack(ms: float, offset: int, **more: Any) -> Packet:
    return Packet(int(ms * MS), CLIENT, C0, B0 + offset, ACK, **more)


def test_b_original_lost_before_the_tap_sent_again_after_a_timeout() -> None:
    """The broker's second segment is lost before the tap; 400 ms later it comes again, client data 5 ms before it."""
    found = follow([
        *handshake(),
        broker(100, 0, ip_id=10), broker(100.1, 2 * MSS, ip_id=12), client_ack(100.2, MSS, sacks=((B0 + 2 * MSS, B0 + 3 * MSS),)),
        client(495, 0, 100), broker(500, MSS, ip_id=13), client_ack(500.1, 3 * MSS),
    ])  # fmt: skip
    assert found.labels()[3:] == ["new", "new", "", "new", "filled", ""]
    assert (found.count("filled_segments", BROKER), found.count("filled_bytes", BROKER)) == (1, MSS)
    assert (
        found.count("retransmitted_segments", BROKER)
        == found.count("reordered_segments", BROKER)
        == found.count("unseen_bytes", BROKER)
        == 0
    )
    assert found.rtt_ms()[-1] is None


def test_t_original_lost_before_the_tap_sent_again_fast() -> None:
    """Three duplicate acknowledgements with SACK, the segment again after 50 ms; the handshake took 300 ms, longer than that."""
    acks = [client_ack(1000 + k, MSS, sacks=((B0 + 2 * MSS, B0 + (k + 3) * MSS),), ip_id=20 + k) for k in range(1, 4)]
    sent = [broker(1000 + k - 0.1, (k + 1) * MSS, ip_id=0) for k in range(1, 4)]
    found = follow([*handshake(300), broker(999, 0), client_ack(999.1, MSS), *acks, *sent, broker(1053, MSS), client_ack(1053.1, 5 * MSS)])
    assert found.labels()[-2:] == ["filled", ""]
    assert found.kinds() == ["fast"]
    assert found.count("duplicate_acks", CLIENT) == 3
    assert found.count("triple_duplicate_acks", CLIENT) == 1
    assert found.count("filled_bytes", BROKER) == MSS


def test_p_real_reordering() -> None:
    found = follow(
        [
            *handshake(),
            broker(100, 0, ip_id=10),
            broker(100.1, 2 * MSS, ip_id=12),
            broker(100.3, MSS, ip_id=11),
            broker(100.4, 3 * MSS, ip_id=13),
        ]
    )
    assert found.labels()[3:] == ["new", "new", "reordered", "new"]
    assert found.count("reordered_segments", BROKER) == 1
    assert found.count("filled_bytes", BROKER) == found.count("retransmitted_segments", BROKER) == 0


@pytest.mark.parametrize(("stamps", "label"), [((50, 49), "reordered"), ((50, 60), "filled"), ((50, 50), "reordered")])
def test_timestamps_tell_where_ip_ids_do_not(stamps: tuple[int, int], label: str) -> None:
    """Equal timestamps do not vote; then 200 µs, far less than a round trip, is reordering."""
    found = follow([*handshake(), broker(100, 0, tsval=49), broker(100.1, 2 * MSS, tsval=stamps[0]), broker(100.3, MSS, tsval=stamps[1])])
    assert found.labels()[-1] == label


def test_what_comes_sooner_than_its_sender_can_have_heard_of_the_hole_was_overtaken() -> None:
    """At the client's tap its report passes 0.1 ms behind the hole; it is at the broker 20 ms later."""
    reports = [client_ack(100.2 + k / 100, MSS, sacks=((B0 + 2 * MSS, B0 + (3 + k) * MSS),)) for k in range(3)]
    sent = [broker(100.1 + k / 100, (2 + k) * MSS) for k in range(3)]
    found = follow([*handshake(), broker(100, 0), *sent, *reports, broker(100.4, MSS)])
    assert found.labels()[-1] == "reordered"
    assert {"selective_acks", "short_wait"} <= found.evidence(-1)


def test_a_wait_longer_than_one_half_is_not_a_round_trip() -> None:
    """The capture has none of the broker's answers: nothing says how long a retransmission takes."""
    found = follow(
        [broker(0, 0), client_ack(0.1, MSS), broker(50, MSS), client_ack(50.1, 2 * MSS), broker(90, 3 * MSS), broker(95, 2 * MSS)]
    )
    assert found.rtt_ms()[3] == pytest.approx(0.1)
    assert found.labels()[-1] == "ambiguous"


def test_evidence_that_contradicts_itself_is_ambiguous() -> None:
    found = follow(
        [
            *handshake(),
            broker(100, 0, ip_id=10, tsval=49),
            broker(100.1, 2 * MSS, ip_id=12, tsval=50),
            broker(100.3, MSS, ip_id=11, tsval=60),
        ]
    )
    assert found.labels()[-1] == "ambiguous"


def conversation() -> list[Packet]:
    return [
        *handshake(),
        client(50, 0, 100, ip_id=3), broker(91, 0, 300, ip_id=70, acked=100), client_ack(91.1, 300, ip_id=4), client(95, 100, 60, ip_id=5), broker_ack(136, 160, ip_id=71),
    ]  # fmt: skip


def test_c_every_frame_captured_twice() -> None:
    """SYN-ACK with IP id 0, the others with ids of their own, the copies 10 µs later and a hop on."""
    packets = conversation()
    packets[-3] = replace(packets[-3], seq=C0 + 100)
    packets[3:] = [replace(packet, seq=packet.seq + 0) for packet in packets[3:]]
    twice = [copy for packet in packets for copy in (packet, replace(packet, time=packet.time + 10 * US, ttl=63))]
    once, found = follow(packets), follow(twice)
    assert int(found.ordered.is_duplicate.sum()) == len(packets)
    assert found.count("duplicate_segments", CLIENT) + found.count("duplicate_segments", BROKER) == len(packets)
    assert [label for label, copy in zip(found.labels(), found.ordered.is_duplicate, strict=True) if not copy] == once.labels()
    assert [rtt for rtt, copy in zip(found.rtt_ms(), found.ordered.is_duplicate, strict=True) if not copy] == once.rtt_ms()
    assert found.connections.handshake_broker_ns[0] == 40 * MS
    assert found.count("retransmitted_segments") == found.count("duplicate_acks", BROKER) == 0


def test_d_two_retransmissions_one_of_them_needless() -> None:
    found = follow([
        *handshake(), client(50, 0), client(50.1, MSS), client(50.2, 2 * MSS), broker_ack(90, 0, sacks=((C0 + 2 * MSS, C0 + 3 * MSS),)),
        client(91, 0), client(91.1, 2 * MSS), broker_ack(131, 3 * MSS),
    ])  # fmt: skip
    assert found.labels()[3:] == ["new", "new", "new", "", "retransmitted", "retransmitted", ""]
    assert (found.count("retransmitted_segments"), found.count("retransmitted_bytes")) == (2, 2 * MSS)
    assert found.rtt_ms()[-1] is None
    assert found.rtt_ms()[6] == pytest.approx(39.8)  # the SACK answers the third segment at once


def test_e_timeout_then_acknowledgement_gives_no_round_trip() -> None:
    found = follow([*handshake(), client(50, 0, ip_id=3), client(350, 0, ip_id=4), broker_ack(400, MSS)])
    assert found.labels()[3:] == ["new", "retransmitted", ""]
    assert found.rtt_ms()[3:] == [None, None, None]


def test_f_offloaded_segment_acknowledged_in_parts() -> None:
    """Ten MSS in one segment: the first acknowledgement inside it is a round trip of its first bytes, the rest is not once an MSS is sent again."""
    found = follow(
        [*handshake(), client(50, 0, 10 * MSS), broker_ack(90, 2 * MSS), client(95, 2 * MSS, ip_id=5), broker_ack(150, 10 * MSS)]
    )
    assert found.labels()[3:] == ["new", "", "retransmitted", ""]
    assert found.count("retransmitted_bytes") == MSS
    assert found.rtt_ms()[3:] == [None, 40.0, None, None]


def test_k_sent_again_with_other_boundaries() -> None:
    found = follow([*handshake(), client(50, 0, 500), client(350, 0, MSS), broker_ack(390, MSS)])
    assert found.labels()[3:] == ["new", "retransmitted", ""]
    assert (found.count("retransmitted_segments"), found.count("retransmitted_bytes")) == (1, 500)
    assert found.count("unseen_bytes") == 0
    assert found.rtt_ms()[-1] is None


def test_m_acknowledgement_captured_before_its_data() -> None:
    found = follow(
        [
            *handshake(),
            broker(100, 0, ip_id=9),
            client_ack(100.1, MSS),
            client_ack(110, 2 * MSS),
            broker(110.01, MSS, ip_id=10),
            broker(111, 2 * MSS, ip_id=11),
        ]
    )
    assert found.labels()[3:] == ["new", "", "", "new", "new"]
    assert found.count("unseen_bytes", BROKER) == 0
    assert found.packets.unseen_bytes.sum() == 0
    assert found.rtt_ms()[5] is None


def test_data_far_behind_its_acknowledgement_was_unseen() -> None:
    found = follow([*handshake(), client_ack(110, MSS), broker(115, 0, ip_id=10)])
    assert found.count("unseen_bytes", BROKER) == MSS
    assert found.labels()[-1] == "ambiguous"


def test_n_segment_of_one_byte_sent_again_is_no_keepalive() -> None:
    found = follow([*handshake(), client(50, 0, 1, ip_id=3), client(350, 0, 1, ip_id=4), broker_ack(400, 1)])
    assert found.labels()[3:] == ["new", "retransmitted", ""]
    assert found.count("keepalives") == 0
    assert found.rtt_ms()[-1] is None


@pytest.mark.parametrize("size", [0, 1])
def test_keepalive(size: int) -> None:
    found = follow(
        [*handshake(), client(50, 0, 10), broker_ack(90, 10), Packet(9000 * MS, CLIENT, C0 + 9, B0, ACK, size), broker_ack(9040, 10)]
    )
    assert found.labels()[-2:] == ["keepalive", ""]
    assert found.count("keepalives") == 1
    assert found.count("retransmitted_segments") == found.count("duplicate_acks", BROKER) == 0
    assert found.rtt_ms()[-1] is None


@pytest.mark.parametrize("size", [0, 1])
def test_keepalive_behind_data_that_the_capture_lost(size: int) -> None:
    """The last one sent is known by its acknowledgement alone."""
    alive = Packet(9000 * MS, CLIENT, C0 + 199, B0, ACK, size)
    found = follow([*handshake(), client(50, 0, 100), broker_ack(90, 200), alive, broker_ack(9040, 200)])
    assert found.labels()[-2:] == ["keepalive", ""]
    assert (found.count("unseen_bytes"), found.count("unfilled_bytes")) == (100, 100)


def test_segment_of_one_byte_sent_again_because_its_acknowledgement_was_lost_is_no_keepalive() -> None:
    """The acknowledgement passed the tap and was lost behind it; no keep-alive timer is as short as the retransmission timeout."""
    found = follow([*handshake(), client(50, 0, 1, ip_id=3), broker_ack(90, 1), client(350, 0, 1, ip_id=4), broker_ack(390, 1)])
    assert found.labels()[-2:] == ["retransmitted", ""]
    assert "acked_before" in found.evidence(-2)
    assert (found.count("keepalives"), found.count("spurious_segments")) == (0, 1)


def test_o_window_probe_of_linux() -> None:
    """Empty, one below the oldest byte not acknowledged, while the broker's window is closed."""
    found = follow([
        *handshake(), client(50, 0, 100), broker_ack(90, 100, window=0), Packet(300 * MS, CLIENT, C0 + 99, B0), broker_ack(340, 100, window=0),
        broker_ack(590, 100, window=500),
    ])  # fmt: skip
    assert found.labels()[3:] == ["new", "", "window_probe", "", ""]
    assert (found.count("window_probes"), found.count("keepalives"), found.count("duplicate_acks", BROKER)) == (1, 0, 0)
    assert found.count("zero_window_episodes", BROKER) == 1
    assert found.connections.zero_window_ms[1] == 500.0
    assert found.packets.zero_window_begins.tolist() == [False] * 4 + [True] + [False] * 3


def test_window_probe_of_one_byte_that_is_refused_then_taken() -> None:
    """BSD and Windows send the next byte; sent with the data once the window opens it is not a retransmission."""
    found = follow([
        *handshake(), client(50, 0, 100), broker_ack(90, 100, window=0), client(300, 100, 1), broker_ack(340, 100, window=0), broker_ack(590, 100, window=500),
        client(591, 100, 200), broker_ack(632, 300),
    ])  # fmt: skip
    assert found.labels()[3:] == ["new", "", "window_probe", "", "", "new", ""]
    assert found.count("retransmitted_segments") == found.count("unseen_bytes") == 0
    taken = follow(
        [
            *handshake(),
            client(50, 0, 100),
            broker_ack(90, 100, window=0),
            client(300, 100, 1),
            broker_ack(340, 101, window=500),
            client(341, 101, 9),
        ]
    )
    assert taken.labels()[3:] == ["new", "", "window_probe", "", "new"]
    assert taken.count("unseen_bytes") == 0
    goes_on = [client(300, 100, 1), client(301, 101, 0), broker_ack(340, 101, window=0)]  # the window closed while the byte was under way
    assert follow([*handshake(), client(50, 0, 100), broker_ack(90, 100, window=0), *goes_on]).count("unseen_bytes") == 0


def test_a_window_still_closed_at_the_end_counts_to_the_end() -> None:
    found = follow([*handshake(), broker_ack(90, 0, window=0), client(190, 0, 10)])
    assert found.connections.zero_window_ms[1] == 100.0
    assert found.packets.window_bytes.tolist() == [64240, 64240, 64240 << 7, 0, 64240 << 7]


def test_i2_capture_begins_at_the_retransmission() -> None:
    found = follow([client(0, 0, ip_id=4), broker_ack(40, MSS), client(41, MSS, ip_id=5), broker_ack(81, 2 * MSS)])
    assert found.labels() == ["ambiguous", "", "new", ""]
    assert found.rtt_ms() == [None, None, None, 40.0]
    assert not found.connections.started[0]
    assert found.packets.window_bytes.tolist() == [-1] * 4
    assert found.count("unseen_bytes") == 0


def test_r_tail_probe() -> None:
    found = follow([*handshake(), client(50, 0), client(130, 0, ip_id=3), broker_ack(171, MSS)])
    assert found.labels()[3:] == ["new", "retransmitted", ""]
    assert found.kinds() == ["tail_probe"]
    assert found.count("tail_probe_segments") == 1
    assert found.rtt_ms()[-1] is None


def test_a_probe_and_not_a_timeout_where_both_are_due() -> None:
    """One segment in flight: Linux probes after two round trips and 200 ms, and never behind its timeout; without SACK it does not probe."""
    probe, late = client(320, 0, ip_id=3), client(700, 0, ip_id=4)
    assert follow([*handshake(), client(50, 0), probe, late]).kinds() == ["tail_probe", "timeout"]
    assert follow([*handshake(sack_permitted=False), client(50, 0), probe, late]).kinds() == ["timeout", "timeout"]
    assert follow([*handshake(), client(50, 0), late]).kinds() == ["timeout"]


def test_a_syn_again_is_a_timeout() -> None:
    syn, answer, ack = handshake(1040)
    assert follow([syn, replace(syn, time=1000 * MS, ip_id=9), answer, ack]).kinds() == ["timeout"]


@pytest.mark.parametrize(("reported", "kind"), [(1, "rack"), (3, "fast")])
def test_how_much_was_reported_above_makes_it_fast(reported: int, kind: str) -> None:
    sent = [client(50 + k / 10, k * MSS) for k in range(reported + 1)]
    told = broker_ack(91, 0, sacks=((C0 + MSS, C0 + (reported + 1) * MSS),))
    found = follow([*handshake(), *sent, told, client(92, 0, ip_id=9), broker_ack(133, (reported + 1) * MSS)])
    assert found.kinds() == [kind]
    assert "selective_acks" in found.evidence(-2)
    assert found.count(f"{kind}_segments") == 1


def test_long_behind_the_report_it_was_the_timeout() -> None:
    sent = [client(50 + k / 10, k * MSS) for k in range(5)]
    told = broker_ack(91, 0, sacks=((C0 + MSS, C0 + 5 * MSS),))
    assert follow([*handshake(), *sent, told, client(400, 0)]).kinds() == ["timeout"]


def test_the_receiver_reports_that_it_came_twice() -> None:
    """The probe was not needed; the report names its bytes below the acknowledgement, and is no round trip and no duplicate acknowledgement."""
    found = follow([*handshake(), client(50, 0), client(130, 0), broker_ack(131, MSS), broker_ack(171, MSS, sacks=((C0, C0 + MSS),))])
    assert found.evidence(4) == {"tail", "dsack"}
    assert (found.count("spurious_segments"), found.count("dsacks", BROKER)) == (1, 1)
    assert found.rtt_ms()[-1] is None


def test_a_report_above_the_acknowledgement_lies_inside_the_next_block() -> None:
    sent = [client(50 + k / 10, k * MSS) for k in range(3)]
    above = ((C0 + MSS, C0 + 2 * MSS), (C0 + MSS, C0 + 3 * MSS))
    found = follow([*handshake(), *sent, client(130, MSS), broker_ack(171, 0, sacks=above)])
    assert "dsack" in found.evidence(6)
    assert found.count("dsacks", BROKER) == 1


@pytest.mark.parametrize(("echo", "spurious"), [(10, 1), (90, 0)])
def test_the_first_acknowledgement_tells_by_its_timestamp_which_copy_it_answers(echo: int, spurious: int) -> None:
    found = follow([
        *handshake(), client(50, 0, tsval=10), client(130, 0, tsval=90), broker_ack(131, MSS, tsval=5, tsecr=echo), broker_ack(171, MSS, tsval=9, tsecr=10),
    ])  # fmt: skip
    assert ("eifel" in found.evidence(4)) == bool(spurious)
    assert found.count("spurious_segments") == spurious


def test_sent_again_though_acknowledged() -> None:
    found = follow([*handshake(), client(50, 0), broker_ack(90, MSS), client(95, 0, ip_id=3)])
    assert "acked_before" in found.evidence(-1)
    assert found.count("spurious_segments") == 1


def test_new_bytes_are_counted_once() -> None:
    found = follow([*handshake(), client(50, 0, 500), client(350, 0, MSS), Packet(360 * MS, CLIENT, C0 + MSS - 1, B0, ACK, 1)])
    assert found.packets.new_bytes.tolist() == [0, 0, 0, 500, MSS - 500, 0]


def test_bytes_in_flight() -> None:
    found = follow(
        [*handshake(), client(50, 0, 500), client(51, 500, 700), broker_ack(90, 0, sacks=((C0 + 500, C0 + 1200),)), client(91, 1200, 10),
         broker_ack(92, 1200), client(93, 1210, 5)]
    )  # fmt: skip
    assert [flight for flight in found.packets.in_flight if flight >= 0] == [500, 1200, 510, 15]
    assert found.count("most_in_flight") == 1200


def test_bytes_reported_are_taken_off_once_however_they_were_cut() -> None:
    """The second sending holds the first one's bytes, too; the report names them all."""
    found = follow(
        [*handshake(), client(49, 0, 10), client(50, 10, 500), client(350, 10, MSS), broker_ack(390, 0, sacks=((C0 + 10, C0 + 10 + MSS),)),
         client(391, 10 + MSS, 70)]
    )  # fmt: skip
    assert found.packets.in_flight[-1] == 80


def test_time_in_which_the_window_was_full() -> None:
    """A window of 20 segments' bytes is full from the time on in which less than a segment is free, until an acknowledgement makes room."""
    window = 20 * MSS // 128 + 1
    shaken = [replace(packet, window=window) for packet in handshake()]
    sent = [client(50 + k, k * MSS) for k in range(20)]
    found = follow([*shaken, broker_ack(45, 0, window=window), *sent, broker_ack(99, MSS * 10, window=window)])
    assert found.connections.window_limited_ms.tolist() == [30, 0]


def test_reordering_extent_is_the_distance_from_the_first_segment_behind() -> None:
    found = follow(
        [*handshake(), broker(100, 0, ip_id=10), *[broker(100.1 + k / 10, (2 + k) * MSS, ip_id=12 + k) for k in range(3)], broker(100.5, MSS, ip_id=11)]
    )  # fmt: skip
    assert found.labels()[-1] == "reordered"
    assert (found.packets.late_segments[-1], found.packets.late_ns[-1]) == (3, 4 * MS // 10)
    assert found.packets.late_segments[:-1].sum() == 0


def test_how_a_connection_was_set_up() -> None:
    def set_up(packets: list[Packet]) -> str:
        return SETUPS[follow(packets).connections.setup[0]]

    syn, answer, ack = handshake()
    refused = Packet(40 * MS, BROKER, 0, C0, RST | ACK)
    assert set_up([syn, answer, ack]) == "complete"
    assert set_up([syn, ack]) == "complete"
    assert set_up([syn, answer]) == "half_open"
    assert set_up([syn, refused]) == "refused"
    assert set_up([syn, replace(syn, time=900 * MS, ip_id=9)]) == "no_answer"
    assert set_up([ack]) == "not_captured"


def test_connect_time_holds_the_wait_for_the_second_syn() -> None:
    syn, answer, ack = handshake(1040)
    found = follow([syn, replace(syn, time=1000 * MS, ip_id=9), answer, ack]).connections
    assert (found.connect_ns[0], found.syn_retry_ns[0]) == (1040 * MS + MS // 20, 1000 * MS)
    assert (found.isn_client[0], found.isn_broker[0], found.mss[0]) == (C0 - 1, B0 - 1, 1460)
    assert follow(handshake()).connections.syn_retry_ns[0] == -1


def test_how_a_connection_was_reset() -> None:
    def reset(at: int, *more: Packet) -> str:
        found = follow([*handshake(), client(50, 0, 10), *more, Packet(at * MS, CLIENT, C0 + 10, 0, RST)])
        return RESETS_BY_KIND[found.connections.reset_kind[0]]

    assert reset(60) == "abort"
    assert reset(61_000) == "idle"
    assert reset(70, Packet(65 * MS, CLIENT, C0 + 10, B0, FIN | ACK)) == "after_fin"


def test_segments_larger_than_the_mss_are_marked() -> None:
    found = follow([*handshake(), client(50, 0, 1460), client(51, 1460, 1461), client(52, 2921, 1449, tsval=4)])
    assert ["larger_than_mss" in found.evidence(row) for row in (3, 4, 5)] == [False, True, True]
    assert found.count("large_segments") == 2


def test_dedup_of_copies_with_another_time_to_live() -> None:
    packets = [*handshake(), client(50, 0, ip_id=7), client(50.01, 0, ip_id=7, ttl=63), broker_ack(90, MSS, ip_id=3)]
    found = follow(packets)
    assert found.ordered.is_duplicate.tolist() == [False] * 4 + [True, False]
    assert found.rtt_ms()[-1] == 40.0
    assert found.count("packets") == 3


def test_copies_without_ip_ids_stay_unless_all_packets_have_them() -> None:
    """Two equal acknowledgements without an id may be two packets."""
    twice = client_ack(60, MSS)
    found = follow(
        [
            *handshake(),
            broker(59, 0),
            broker(59.1, MSS, 9),
            twice,
            replace(twice, time=twice.time + 10 * US),
            *[broker(70 + k, MSS + 9 + k, 1) for k in range(9)],
        ]
    )
    assert not found.ordered.is_duplicate.any()


def test_of_several_interfaces_one_counts() -> None:
    packets = [replace(packet, interface=4) for packet in conversation()]
    found = follow([*packets, *[replace(packet, interface=2, time=packet.time - 3 * US) for packet in packets]])
    kept = found.rows.columns["interface"][found.ordered.row][~found.ordered.is_duplicate]
    assert kept.tolist() == [2] * len(packets)
    assert {DUPLICATES[code] for code in found.ordered.duplicate[found.ordered.is_duplicate]} == {"interface"}


def test_handshake_legs_and_tap() -> None:
    near_client, near_broker = follow(conversation()), follow([*handshake(0.03, 40), client(90, 0, 10), broker_ack(90.02, 10)])
    assert (near_client.connections.handshake_broker_ns[0], near_client.connections.handshake_client_ns[0]) == (40 * MS, MS // 20)
    assert TAPS[near_client.connections.tap[0]] == "client"
    assert TAPS[near_broker.connections.tap[0]] == "broker"
    assert TAPS[follow(handshake(20, 15)).connections.tap[0]] == "middle"
    assert TAPS[follow(handshake()[:1]).connections.tap[0]] == "unknown"
    assert near_client.rtt_ms()[1:3] == [40.0, 0.05]
    assert near_client.connections.rtt_broker_n[0] == 3
    assert near_client.connections.rtt_broker_p50_ms[0] == 41.0
    assert near_client.connections.rtt_broker_p95_ms[0] == 41.0
    assert near_client.connections.rtt_broker_min_ms[0] == 40.0


def test_syn_sent_again_gives_no_handshake_time() -> None:
    syn, answer, ack = handshake(1000)
    found = follow([syn, replace(syn, time=900 * MS, ip_id=9), answer, ack])
    assert found.labels() == ["new", "retransmitted", "new", ""]
    assert len(found.connections.first_seen) == 1
    assert found.connections.handshake_broker_ns[0] == -1
    assert found.connections.handshake_client_ns[0] == 50_000
    assert found.rtt_ms()[:3] == [None, None, None]
    assert found.count("retransmitted_bytes") == 0


def test_ports_used_again_are_another_connection() -> None:
    later = [
        replace(packet, seq=packet.seq + 90_000, ack=(packet.ack + 90_000 if packet.flags & ACK else 0), time=packet.time + 5000 * MS)
        for packet in handshake()
    ]
    found = follow([*handshake(), client(50, 0, 10), *later])
    assert found.ordered.generation.tolist() == [1, 2]
    assert found.ordered.connection.tolist() == [0] * 4 + [1] * 3
    assert found.connections.started.tolist() == [True, True]


def test_same_number_again_after_the_end_is_another_connection() -> None:
    end = [
        Packet(60 * MS, CLIENT, C0, B0, FIN | ACK),
        Packet(100 * MS, BROKER, B0, C0 + 1, FIN | ACK),
        Packet(101 * MS, CLIENT, C0 + 1, B0 + 1),
    ]
    again = [replace(packet, time=packet.time + 3000 * MS, ip_id=packet.ip_id + 50) for packet in handshake()]
    found = follow([*handshake(), *end, *again])
    assert found.ordered.generation.tolist() == [1, 2]
    assert [ENDED[code] for code in found.connections.ended] == ["fin", "open"]


def test_a_long_pause_and_numbers_elsewhere_are_another_connection() -> None:
    first = [client(0, 0), broker_ack(40, MSS)]
    minutes = 16 * 60_000
    same = follow([*first, client(minutes, MSS), broker_ack(minutes + 40, 2 * MSS)])
    other = follow(
        [*first, replace(client(minutes, MSS), seq=C0 + 2**31), Packet((minutes + 40) * MS, BROKER, B0 + 2**31, C0 + 2**31 + MSS)]
    )
    assert same.ordered.generation.tolist() == [1]
    assert other.ordered.generation.tolist() == [1, 2]


def test_numbers_wrap() -> None:
    c0 = 2**32 - 2000
    packets = [
        *handshake(c0=c0),
        *[Packet((50 + k) * MS, CLIENT, c0 + k * MSS, B0, ACK, MSS) for k in range(4)],
        Packet(100 * MS, BROKER, B0, c0 + 4 * MSS),
    ]
    found = follow(packets)
    assert found.labels()[3:] == ["new"] * 4 + [""]
    assert np.diff(found.ordered.position[3:7]).tolist() == [MSS] * 3
    assert (found.ordered.position % 2**32).tolist() == found.rows.columns["seq"].tolist()
    assert found.rtt_ms()[-1] == 47.0
    assert found.count("acked_bytes") == 4 * MSS


def test_reset_and_its_numbers() -> None:
    valid = follow([*handshake(), client(50, 0, 10), Packet(60 * MS, BROKER, B0, 0, RST), Packet(61 * MS, BROKER, B0, 0, RST)])
    assert (ENDED[valid.connections.ended[0]], RESET_BY[valid.connections.reset_by[0]]) == ("reset", "broker")
    assert valid.count("resets", BROKER) == 2
    spoofed = follow(
        [*handshake(), client(50, 0, 10), Packet(60 * MS, BROKER, B0 + 2**31, 0, RST), client(70, 10, 10), broker_ack(110, 20)]
    )
    assert (ENDED[spoofed.connections.ended[0]], RESET_BY[spoofed.connections.reset_by[0]]) == ("open", "")
    assert spoofed.count("resets", BROKER) == spoofed.count("invalid_resets", BROKER) == 1
    assert spoofed.labels()[-2:] == ["new", ""]
    assert spoofed.rtt_ms()[-1] == 40.0


def test_refused_connection() -> None:
    found = follow([handshake()[0], Packet(40 * MS, BROKER, 0, C0, RST | ACK)])
    assert (ENDED[found.connections.ended[0]], RESET_BY[found.connections.reset_by[0]]) == ("reset", "broker")
    assert found.rtt_ms() == [None, None]


def test_a_reset_that_does_not_acknowledge_the_syn_refuses_nothing() -> None:
    for answer in (Packet(40 * MS, BROKER, 0, C0 + 5555, RST | ACK), Packet(40 * MS, BROKER, 77, 0, RST)):
        found = follow([handshake()[0], answer])
        assert (ENDED[found.connections.ended[0]], SETUPS[found.connections.setup[0]]) == ("open", "no_answer")
        assert found.count("invalid_resets", BROKER) == 1


def test_reset_after_the_senders_fin_is_an_ordinary_end() -> None:
    found = follow(
        [*handshake(), Packet(60 * MS, CLIENT, C0, B0, FIN | ACK), broker(90, 0, 10, acked=1), Packet(91 * MS, CLIENT, C0 + 1, 0, RST)]
    )
    assert (ENDED[found.connections.ended[0]], RESET_BY[found.connections.reset_by[0]]) == ("fin", "client")


def test_one_wrong_number_shifts_nothing() -> None:
    wrong = Packet(55 * MS, CLIENT, C0 + 2**31 - 5, B0, ACK, 10)
    found = follow([*handshake(), client(50, 0, 10), wrong, client(60, 10, 10), broker_ack(101, 20)])
    assert found.ordered.position[4] == -1
    assert found.labels()[3:] == ["new", "", "new", ""]
    assert found.rtt_ms()[-1] == 41.0


def test_strays_of_the_connection_before_say_nothing() -> None:
    """Ports used again while the broker still sends for the connection before: its numbers lie elsewhere in both spaces."""
    stray = Packet(10 * MS, BROKER, B0 + 2**29, C0 + 2**29, ACK | FIN, 100, ip_id=900)
    found = follow([handshake()[0], stray, *handshake()[1:], client(50, 0, 10), broker(91, 0, 20, acked=10), client_ack(92, 20)])
    assert found.labels() == ["new", "ambiguous", "new", "", "new", "new", ""]
    assert found.packets.unseen_bytes.sum() == 0
    assert found.rtt_ms() == [None, None, 40.0, 0.05, None, 41.0, 1.0]
    assert ENDED[found.connections.ended[0]] == "open"


def test_a_challenge_acknowledges_nothing() -> None:
    """The broker answers a SYN with the numbers of the connection that it still has (RFC 5961), and the client resets that."""
    found = follow([handshake()[0], Packet(40 * MS, BROKER, 77, C0 + 2**29, ACK), Packet(41 * MS, CLIENT, C0 + 2**29, 0, RST)])
    assert found.packets.unseen_bytes.sum() == found.packets.acked_bytes.sum() == 0
    assert found.rtt_ms() == [None, None, None]


def test_acknowledgement_that_waited_for_another_segment_gives_no_round_trip() -> None:
    """The second of three segments is lost behind the tap and sent again: the third one's acknowledgement waited for it."""
    found = follow(
        [
            *handshake(),
            client(50, 0),
            client(51, MSS),
            client(52, 2 * MSS),
            broker_ack(90, MSS),
            client(110, MSS),
            broker_ack(150, 3 * MSS),
            client(160, 3 * MSS),
            broker_ack(200, 4 * MSS),
        ]
    )
    assert found.rtt_ms()[6] == 40.0
    assert found.rtt_ms()[-3] is None
    assert found.rtt_ms()[-1] == 40.0


def test_unseen_bytes_stand_on_the_packet_that_acknowledged_them() -> None:
    found = follow([*handshake(), client(50, 0), client(51, 2 * MSS), broker_ack(90, 3 * MSS)])
    assert found.packets.unseen_bytes.tolist() == [0, 0, 0, 0, 0, MSS]
    assert found.packets.acked_bytes.tolist() == [0, 0, 0, 0, 0, 3 * MSS]
    assert found.count("unseen_bytes") == MSS


def test_unseen_bytes_are_those_that_this_packet_acknowledges_first() -> None:
    """The capture begins; its first acknowledgement ends within a hole, the next one behind it."""
    found = follow([client(0, 0, 10), client(1, 500, 10), broker_ack(40, 300), broker_ack(41, 510)])
    assert found.packets.acked_bytes.tolist() == [0, 0, 0, 210]
    assert found.packets.unseen_bytes.tolist() == [0, 0, 0, 200]


def test_numbers_that_leap_acknowledge_no_more_than_a_window() -> None:
    """Each leap is one that the largest window allows, in the end they are further than any: nothing is known of what lies between."""
    leap = 2**30 - 1
    there = [Packet((100 + k) * MS, CLIENT, C0 + k * leap, B0, ACK, 10) for k in range(4)]
    found = follow([*handshake(), *there, Packet(200 * MS, BROKER, B0, C0 + 3 * leap + 10)])
    assert found.packets.acked_bytes.max() == found.packets.unseen_bytes.max() == 0
    assert found.packets.in_flight.max() <= 2**30


def test_a_fin_with_the_number_of_the_syn_takes_no_byte_off() -> None:
    found = follow([handshake()[0], Packet(MS, CLIENT, C0 - 1, B0, FIN | ACK, ip_id=9), broker_ack(40, 0)])
    assert found.packets.acked_bytes.tolist() == [0, 0, 0]


def test_streams_have_first_sight_content_and_what_was_sent_again() -> None:
    packets = [
        *handshake(), client(50, 0, 10, kept=((0, b"ab"),), captured=2, ip_id=3), client(51, 20, 10, kept=((0, b"0123456789"),), ip_id=5),
        client(90, 0, 30, kept=((0, b"abcdefghijklmnopqrst!!!!!!!!!!"),), ip_id=6),
    ]  # fmt: skip
    found = follow(packets)
    streams = stream.assemble(found.rows, found.ordered, found.packets)
    start = int(streams.origin[0])
    sights = [stream.first_sight(streams, 0, start + k) for k in (-1, 0, 9, 10, 19, 20, 29, 30)]
    assert [sight if sight < 0 else (sight - T0) / MS for sight in sights] == [-1, 50, 50, 90, 90, 51, 51, -1]
    pieces = zip(streams.content_from - start, streams.content_to - start, streams.content_at, streams.content_segment, strict=True)
    assert [(int(a), bytes(streams.data[at : at + b - a]), bool(begins)) for a, b, at, begins in pieces] == [
        (0, b"ab", True), (2, b"cdefghijklmnopqrst", False), (20, b"0123456789", True),
    ]  # fmt: skip
    assert (streams.again_from - start).tolist() == [0, 20]
    assert (streams.again_to - start).tolist() == [10, 30]
    assert LABELS.index("keepalive") == stream.KEEPALIVE
    assert LABELS.index("window_probe") == stream.WINDOW_PROBE


def test_no_packets() -> None:
    found = follow([])
    assert found.labels() == []
    assert len(stream.assemble(found.rows, found.ordered, found.packets).origin) == 0
