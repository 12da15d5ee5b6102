"""Which packet is which at two taps: against a search through lists, and case by case."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from both_ends_model import ACK, BROKER, CLIENT, ID, MS, SYN, Packet, connections, moved, slowly_matched, tap
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerlens.routes import matching
from brokerlens.routes.paths import BothEnds, both_ends

HOUR = 3_600_000 * MS
ONE_PAIR = pl.DataFrame({"pair": [0], "client_id": [ID], "broker_id": [ID], "translated": [False]})


@st.composite
def captured_twice(draw: st.DrawFn) -> tuple[list[Packet], list[Packet]]:
    """Packets of few different contents as either tap has them: lost here and there, out of order, with IP ids or without, or with others on the far side."""
    rewritten, numbered = draw(st.booleans()), draw(st.booleans())
    fields = st.fixed_dictionaries(
        {
            "from_broker": st.booleans(),
            "seq": st.sampled_from((1, 2, 2**32 - 1)),
            "ack": st.sampled_from((1, 2**31)),
            "length": st.sampled_from((0, 1, 1448)),
            "tsval": st.sampled_from((None, 0, 7)),
            "ip_id": st.integers(0, 3) if numbered else st.none(),
        }
    )
    client, broker = [], []
    for number, values in enumerate(draw(st.lists(fields, max_size=25))):
        here, there = draw(st.sampled_from(((True, True), (True, False), (False, True))))
        time = MS * (number + draw(st.integers(0, 3)))
        far = dict(values)
        if rewritten and numbered:
            far["ip_id"] = draw(st.integers(0, 3)) + 100
        client += [Packet(MS * number, None, **values)] if here else []  # type: ignore[arg-type]
        broker += [Packet(None, time, **far)] if there else []  # type: ignore[arg-type]
    return client, broker


@settings(max_examples=400, deadline=None)
@given(captured_twice())
def test_as_if_each_packet_were_looked_for(both: tuple[list[Packet], list[Packet]]) -> None:
    client, broker = tap(both[0], "client"), tap(both[1], "broker")
    found = matching.match_packets(client, broker, ONE_PAIR)
    assert set(found.select("pair", "from_broker", "client_row", "broker_row", "sure").iter_rows()) == slowly_matched(
        client, broker, ONE_PAIR
    )
    # Each packet once, whatever it looks like.
    for rows, table in (("client_row", client), ("broker_row", broker)):
        assert sorted(found[rows].drop_nulls().to_list()) == list(range(table.height))


def ends(packets: Sequence[Packet], client: pl.DataFrame, broker: pl.DataFrame) -> BothEnds | None:
    return both_ends(matching.candidate_pairs(client, broker), tap(packets, "client"), tap(packets, "broker"))


def times(found: BothEnds | None) -> set[tuple[int | None, int | None]]:
    """When each packet was captured, ms at the client and at the broker."""
    assert found is not None
    return {(a and a // MS, b and b // MS) for a, b in found.packets.select("at_client", "at_broker").iter_rows()}


def at(client: int | None, broker: int | None, **fields: object) -> Packet:
    """Times in ms."""
    return Packet(client and client * MS, broker and broker * MS, **fields)  # type: ignore[arg-type]


def test_a_retransmission_is_matched_with_its_own_copy() -> None:
    """The original is lost, the copy is the same but for its IP id: it took 20 ms, not 220."""
    packets = [at(100, 120, seq=1, length=10, ip_id=1), at(200, None, seq=11, length=10, ip_id=2), at(400, 420, seq=11, length=10, ip_id=3)]
    assert times(ends(packets, connections((ID, 1, 2)), connections((ID, 1, 2)))) == {(100, 120), (200, None), (400, 420)}


def test_its_timestamp_tells_a_retransmission_where_ids_do_not() -> None:
    packets = [at(200, None, seq=11, length=10, tsval=5), at(400, 420, seq=11, length=10, tsval=205)]
    assert times(ends(packets, connections((ID, 1, 2)), connections((ID, 1, 2)))) == {(200, None), (400, 420)}


def test_ids_that_a_translator_rewrites_are_left_aside() -> None:
    sent = [at(100 * k, None, seq=k, length=1, ip_id=k) for k in range(1, 8)]
    arrived = [at(None, 100 * k + 20, seq=k, length=1, ip_id=k + 500) for k in range(1, 8)]
    assert times(ends([*sent, *arrived], connections((ID, 1, 2)), connections((ID, 1, 2)))) == {
        (100 * k, 100 * k + 20) for k in range(1, 8)
    }


def test_ids_that_survive_are_not_left_aside_for_one_that_differs() -> None:
    """A pure acknowledgement lost, and one like it sent again later, that the client's tap missed: two packets, not one."""
    kept = [at(100 * k, 100 * k + 20, seq=k, length=1, ip_id=k) for k in range(1, 5)]
    packets = [*kept, at(300, None, seq=9, ack=9, ip_id=50), at(None, 420, seq=9, ack=9, ip_id=60)]
    assert {(300, None), (None, 420)} <= times(ends(packets, connections((ID, 1, 2)), connections((ID, 1, 2))))


def test_like_packets_are_matched_in_order_where_there_are_as_many() -> None:
    """Pure acknowledgements without id and timestamp: two here and two there; of three here and two there nobody knows which is lost."""
    same = [at(100, 120, seq=5), at(200, 230, seq=5)]
    found = ends(same, connections((ID, 1, 2)), connections((ID, 1, 2)))
    assert times(found) == {(100, 120), (200, 230)}
    assert found is not None
    assert found.packets["sure"].all()
    unsure = ends([*same, at(150, None, seq=5)], connections((ID, 1, 2)), connections((ID, 1, 2)))
    assert unsure is not None
    assert not unsure.packets["sure"].any()
    assert unsure.packets["one_way_ms"].is_null().all()


def test_ports_used_again_are_told_apart_by_initial_sequence_numbers() -> None:
    first, second = (connections((f"{CLIENT}:40001-{BROKER}:9092#1", 1, 2), (f"{CLIENT}:40001-{BROKER}:9092#2", 7, 8)) for _ in range(2))
    packets = [
        Packet(MS, 2 * MS, seq=10, length=5, connection=f"{CLIENT}:40001-{BROKER}:9092#1"),
        Packet(5 * MS, 6 * MS, seq=10, length=5, connection=f"{CLIENT}:40001-{BROKER}:9092#2"),
    ]
    assert times(ends(packets, first, second)) == {(1, 2), (5, 6)}


def test_ports_used_again_are_told_apart_by_packets_where_the_captures_began_at_different_times() -> None:
    """The broker's tap began later and knows the second connection alone, as its first."""
    early, late, there = (f"{CLIENT}:40001-{BROKER}:9092#{n}" for n in (1, 2, 1))
    packets = [
        Packet(MS, None, seq=10, length=5, connection=early),
        *(Packet(k * MS, (k + 1) * MS, seq=900 + k, length=1, connection=late, there=there) for k in range(5, 9)),
    ]
    found = ends(packets, connections((early, None, None), (late, 7, 8)), connections((there, None, None)))
    assert found is not None
    assert found.pairs.select("client_id", "broker_id").rows() == [(late, there)]
    assert times(found) == {(k, k + 1) for k in range(5, 9)}


NATTED = "203.0.113.7:61000-198.51.100.9:9092#1"


def handshake(there: str, tsval_there: int = 70) -> list[Packet]:
    syn = {"seq": 1000, "ack": 0, "flags": SYN, "there": there}
    return [
        at(100, None, tsval=70, ip_id=1, **syn),
        at(None, 120, tsval=tsval_there, ip_id=1, **syn),
        at(150, 130, from_broker=True, seq=5000, ack=1001, flags=SYN | ACK, tsval=9, tsecr=70, ip_id=4, there=there),
        at(151, 171, seq=1001, ack=5001, tsval=71, tsecr=9, ip_id=2, there=there),
    ]


def test_a_translation_of_addresses_is_followed() -> None:
    found = ends(handshake(NATTED), connections((ID, 1000, 5000)), connections((NATTED, 1000, 5000)))
    assert times(found) == {(100, 120), (150, 130), (151, 171)}
    assert found is not None
    assert found.pairs.rows() == [(0, ID, NATTED, True)]


def test_no_translation_without_the_same_numbers_and_timestamp() -> None:
    """Another initial sequence number, one that is not known, or another timestamp: somebody else's connection."""
    here = connections((ID, 1000, 5000))
    for there in ((NATTED, 1000, 5001), (NATTED, None, 5000), (NATTED, None, None)):
        assert ends(handshake(NATTED), here, connections(there)) is None
    assert ends(handshake(NATTED, tsval_there=71), here, connections((NATTED, 1000, 5000))) is None


def test_the_same_addresses_with_other_numbers_are_another_connection() -> None:
    assert ends([at(100, 120)], connections((ID, 1, 2)), connections((ID, 1, 3))) is None


def test_the_same_addresses_with_no_packet_in_common_are_another_connection() -> None:
    packets = [at(100, None, seq=5), at(None, 120, seq=6)]
    assert ends(packets, connections((ID, None, None)), connections((ID, None, None))) is None


def test_clocks_hours_apart_match_all_the_same() -> None:
    packets = [at(100 + k, 120 + k, seq=k + 1, length=1, ip_id=k) for k in range(30)]
    packets += [at(150 + k, 130 + k, from_broker=True, seq=k + 1, length=1, ip_id=k) for k in range(30)]
    plain, apart = (ends(some, connections((ID, 1, 2)), connections((ID, 1, 2))) for some in (packets, moved(packets, 3 * HOUR)))
    assert plain is not None
    assert apart is not None
    assert apart.packets.drop("at_broker").equals(plain.packets.drop("at_broker"))
    assert apart.clock.reason == "far_apart"
