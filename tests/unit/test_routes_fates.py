"""What became of packets between two taps: against sets of bytes, and case by case."""

from __future__ import annotations

from collections.abc import Sequence

from both_ends_model import ACK, ID, MS, RST, Packet, connections, slow_fates, tap
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerlens.routes import matching
from brokerlens.routes.paths import both_ends


def fates(packets: Sequence[Packet]) -> list[tuple[str, bool, str | None]]:
    """Fate, whether overtaken, and the repair, of each packet in the order given. An IP id of its own makes each packet known."""
    marked = [Packet(**{**vars(packet), "ip_id": number, "window": number}) for number, packet in enumerate(packets)]
    table = connections((ID, None, None))
    client, broker = tap(marked, "client"), tap(marked, "broker")
    found = both_ends(matching.candidate_pairs(table, table), client, broker)
    assert found is not None
    times = {(packet.at_client, packet.at_broker, packet.from_broker): number for number, packet in enumerate(marked)}
    assert len(times) == len(packets)
    rows = found.packets.select("at_client", "at_broker", "from_broker", "fate", "overtaken", "repair").iter_rows()
    by_number = {times[here, there, side]: (str(fate), overtaken, repair) for here, there, side, fate, overtaken, repair in rows}
    return [by_number[number] for number in range(len(packets))]


def one_way(from_broker: bool, sent: int | None, received: int | None, **fields: int) -> Packet:
    """A packet of one side."""
    here, there = (received, sent) if from_broker else (sent, received)
    return Packet(here, there, from_broker=from_broker, **fields)  # type: ignore[arg-type]


@st.composite
def ways(draw: st.DrawFn) -> tuple[list[Packet], int]:
    """A conversation of a few bytes a packet: lost, not captured here or there, cut anew, sent again, overtaken, reset; and where the numbers begin."""
    packets = [Packet(1, 21), Packet(41, 22, from_broker=True, seq=100)]
    edge = [1, 100]
    for number in range(1, draw(st.integers(1, 25))):
        side = draw(st.booleans())
        again = draw(st.sampled_from((0, 0, 0, 2, 4)))
        seq = max(edge[side] - again, 1)
        length = draw(st.sampled_from((0, 1, 2, 3, 6)))
        delay = draw(st.integers(20, 90)) + draw(st.sampled_from((0, 0, 200)))
        kind = draw(st.sampled_from(("arrived", "arrived", "arrived", "lost", "unsent", "cut")))
        sent, received = 100 * number, 100 * number + delay
        rest = {"flags": draw(st.sampled_from((ACK, ACK, ACK, ACK | RST))), "ack": draw(st.integers(1, edge[1 - side]))}

        if kind == "cut" and length >= 2:
            packets.append(one_way(side, sent, None, seq=seq, length=length, **rest))
            pieces = ((received, seq, 1), (received + 1, seq + 1, length - 1))
            packets += [one_way(side, None, time, seq=first, length=size, **rest) for time, first, size in pieces]
        else:
            ends = None if kind == "unsent" else sent, None if kind == "lost" else received
            packets.append(one_way(side, *ends, seq=seq, length=length, **rest))
        edge[side] = max(edge[side], seq + length)
    end = 100_000
    packets += [Packet(end, end + 20, seq=edge[0]), Packet(end + 40, end + 21, from_broker=True, seq=edge[1])]
    seen: set[tuple[str, int]] = set()
    distinct = []
    for one in packets:
        moments = {(place, time) for place, time in (("c", one.at_client), ("b", one.at_broker)) if time is not None}
        if not moments & seen:
            seen |= moments
            distinct.append(one)
    return distinct, draw(st.sampled_from((0, 2**32 - 104, 2**31)))


@settings(max_examples=400, deadline=None)
@given(ways())
def test_as_if_every_byte_were_looked_at(way: tuple[list[Packet], int]) -> None:
    packets, start = way
    wrapped = [Packet(**{**vars(packet), "seq": packet.seq + start, "ack": packet.ack + start}) for packet in packets]
    assert [(fate, overtaken) for fate, overtaken, _ in fates(wrapped)] == slow_fates(packets)


def met(number: int, **fields: object) -> list[Packet]:
    """A packet each way that both taps have, so that what lies between two of them is inside what both captured."""
    there = Packet(number * MS, (number + 20) * MS, **fields)  # type: ignore[arg-type]
    return [there, Packet((number + 41) * MS, (number + 21) * MS, from_broker=True)]


def one_fate(*packets: Packet) -> tuple[str, bool, str | None]:
    """Of the first of these, between packets that both taps have."""
    return fates([*packets, *met(0), *met(1000)])[0]


def sent(time: int, received: int | None, **fields: object) -> Packet:
    return Packet(time * MS, received and received * MS, **fields)  # type: ignore[arg-type]


def test_lost_between_the_taps_though_sent_again() -> None:
    assert one_fate(sent(100, None, seq=1, length=10), sent(300, 320, seq=1, length=10))[0] == "lost"


def test_lost_and_never_sent_again() -> None:
    """Nothing acknowledged it: the connection ends before."""
    assert one_fate(sent(100, None, seq=1, length=10))[0] == "lost"


def test_a_pure_acknowledgement_that_is_missing_is_lost() -> None:
    assert one_fate(sent(100, None, seq=1))[0] == "lost"


def test_acknowledged_but_not_captured() -> None:
    """The broker acknowledges what its tap never saw: the capture lost it, not the network."""
    ack = Packet(150 * MS, 130 * MS, from_broker=True, ack=11)
    last = Packet(1200 * MS, 1180 * MS, from_broker=True, ack=11)
    assert fates([sent(100, None, seq=1, length=10), ack, *met(0), *met(1000), last])[0][0] == "not_captured"


def test_received_but_not_captured_where_it_was_sent() -> None:
    assert one_fate(Packet(None, 120 * MS, seq=1, length=10))[0] == "not_captured"


def test_a_gap_of_the_other_taps_capture_is_no_loss() -> None:
    """Between two answers that the broker's own tap missed it missed this acknowledgement, too."""
    gap = [Packet(90 * MS, None, from_broker=True, seq=1, length=1), Packet(110 * MS, None, from_broker=True, seq=2, length=1)]
    assert one_fate(sent(100, None, seq=5), *gap)[0] == "not_captured"
    assert one_fate(sent(100, None, seq=5), gap[0])[0] == "lost"


def test_joined_by_offload_is_no_loss() -> None:
    """Three segments as the sending host's tap saw them, handed to the network card at once, and as the wire had them."""
    wire = [Packet(None, (120 + k) * MS, seq=1 + 10 * k, length=10) for k in range(3)]
    found = fates([sent(100, None, seq=1, length=30), *wire, *met(0), *met(1000)])
    assert [fate for fate, *_ in found[:4]] == ["cut_anew"] * 4


def test_before_and_behind_what_both_captured_nothing_is_said() -> None:
    found = fates([sent(1, None, seq=1, length=1), *met(10), *met(1000), sent(1500, None, seq=2, length=1)])
    assert (found[0][0], found[-1][0]) == ("outside", "outside")


def test_overtaken() -> None:
    found = fates([sent(100, 150, seq=1, length=1), sent(101, 121, seq=2, length=1), sent(160, 180, seq=3, length=1), *met(0), *met(1000)])
    assert [overtaken for _, overtaken, _ in found[:3]] == [True, False, False]


def test_why_something_was_sent_again() -> None:
    """By the label at the receiver's tap: new to it, known to it, or not there to be asked."""
    again = [
        sent(time, time + 20, seq=1, length=5, segment="retransmitted", label_there=label)
        for time, label in ((200, "new"), (300, "filled"), (400, "retransmitted"))
    ]
    lost_again = sent(500, None, seq=1, length=5, segment="retransmitted")
    found = fates([sent(100, None, seq=1, length=5), *again, lost_again, *met(0), *met(1000)])
    assert [repair for *_, repair in found[:5]] == [None, "needed", "needed", "needless", "unknown"]
