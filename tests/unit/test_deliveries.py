"""Records from producer to consumer: the join against plain loops over offsets, and each case that could join what does not belong together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerlens.kafka.batches import FETCHED, PRODUCED
from brokerlens.routes.clocks import Clock, estimated_clocks, known_clocks
from brokerlens.routes.deliveries import TRANSLATED, Followed, follow
from brokerlens.tables import DELIVERY_REASONS

MS = 1_000_000
START = 1_766_000_000 * 1000 * MS
Row = dict[str, Any]
ONE_CLOCK = {site: Clock(0.0) for site in ("edge", "cloud", "third")}

OF_SITES: dict[str, pl.DataType] = {"site": pl.Categorical(), "cluster": pl.Categorical(), "topic_id": pl.Categorical()}
NUMBERS = itertools.count(1)


def produce(first: int | None, count: int = 1, at: float = 0, **values: Any) -> Row:
    """A batch as a site sees it produced: sent at ``at`` ms, answered 10 ms later; a round trip is 8 ms."""
    sent = START + round(at * MS)
    row = {
        "site": "edge", "cluster": "kafka", "topic": "t", "topic_id": None, "by_id": False, "partition": 0, "connection_id": "p:1-b:9#1", "client_id": "producer",
        "correlation_id": next(NUMBERS), "tap": "client", "request_first": sent, "request_last": sent, "response_first": sent + 10 * MS, "response_last": sent + 10 * MS,
        "way": 4 * MS, "retransmitted": False, "first_offset": first, "last_offset": None if first is None else first + count - 1, "magic": 2, "attributes": 0,
        "record_count": count, "record_bytes": 70 * count, "base_timestamp": 1_700_000_000_000 + round(at), "producer_id": None, "producer_epoch": None,
        "base_sequence": None, "acks": -1, "status": "answered", "error_code": 0,
    }  # fmt: skip
    return row | values


def fetch(batch: Row, at: float, site: str = "cloud", asked: float = 0, **values: Any) -> Row:
    """That batch as a site sees it fetched: asked for at ``asked`` ms, come at ``at`` ms; a round trip is 60 ms."""
    came = START + round(at * MS)
    row = {name: batch[name] for name in FETCHED if name in batch} | {"cluster": batch["cluster"], "topic_id": batch["topic_id"]}
    row |= {
        "site": site, "connection_id": "c:2-b:9#1", "client_id": "consumer", "correlation_id": next(NUMBERS), "tap": "client", "way": 30 * MS,
        "request_first": START + round(asked * MS), "request_last": START + round(asked * MS), "response_first": came, "response_last": came, "complete": came,
    }  # fmt: skip
    return row | values


def tables_of(produced: Sequence[Row], fetched: Sequence[Row]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return (
        pl.DataFrame([dict(row) for row in produced], schema=pl.Schema(OF_SITES | PRODUCED)),
        pl.DataFrame([dict(row) for row in fetched], schema=pl.Schema(OF_SITES | FETCHED)),
    )


def followed(
    produced: Sequence[Row], fetched: Sequence[Row], known: Mapping[str, Clock] = ONE_CLOCK, translated: pl.DataFrame | None = None
) -> pl.DataFrame:
    return follow(*tables_of(produced, fetched), known, translated).rows.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))


def only(rows: pl.DataFrame) -> Row:
    assert rows.height == 1, rows
    return rows.row(0, named=True)


def said(rows: pl.DataFrame) -> list[tuple[str, str | None]]:
    return list(rows.select("status", "status_reason").iter_rows())


# The whole way


def test_a_record_from_one_site_to_another() -> None:
    batch = produce(5, 3)
    row = only(followed([batch], [fetch(batch, 41)]))
    assert (row["status"], row["status_reason"], row["first_offset"], row["last_offset"], row["record_count"]) == (
        "delivered",
        None,
        5,
        7,
        3,
    )
    assert (row["produce_site"], row["fetch_site"], row["delivery_ms"], row["clock_uncertainty_ms"]) == ("edge", "cloud", 41, 0)
    assert (row["produced_at"].timestamp(), row["acknowledged_at"].timestamp()) == (START / 1e9, START / 1e9 + 0.010)


def test_the_parts_add_up() -> None:
    """Sent at 0, 4 ms to the broker; in the log 4 ms before the answer at 10; the fetch waited there since 30; its answer took 30 ms of 41."""
    batch = produce(5)
    row = only(followed([batch], [fetch(batch, 41)]))
    parts = [row[name] for name in ("produce_network_ms", "broker_ms", "log_wait_ms", "fetch_network_ms")]
    # The fetch's last byte passed the tap at 0, so it was in the broker at 20.5: no longer ago than half of the time in which it was answered.
    assert parts == pytest.approx([4, 2, 14.5, 20.5]) and sum(parts) == pytest.approx(row["delivery_ms"])


def test_time_in_the_log_is_until_the_fetch_that_took_it_waits() -> None:
    batch = produce(5)
    row = only(followed([batch], [fetch(batch, 600, asked=500)]))
    parts = [row[name] for name in ("produce_network_ms", "broker_ms", "log_wait_ms", "fetch_network_ms")]
    assert parts == pytest.approx([4, 2 + 40, 530 - 6, 30])  # the fetch came at 530, its answer left at 570


def test_ways_that_are_longer_than_there_was_time_are_cut_in_proportion() -> None:
    batch = produce(5)
    row = only(followed([batch], [fetch(batch, 17, asked=-500)]))  # 4 + 30 ms there and back, and only 17 between
    parts = [row[name] for name in ("produce_network_ms", "broker_ms", "log_wait_ms", "fetch_network_ms")]
    assert parts == pytest.approx([2, 0, 0, 15])


@pytest.mark.parametrize("side", ["produce", "fetch"])
@pytest.mark.parametrize("change", [{"retransmitted": True}, {"way": None}], ids=str)
def test_what_a_tap_cannot_tell_is_null(side: str, change: Row) -> None:
    batch = produce(5)
    got = fetch(batch, 41)
    (batch if side == "produce" else got).update(change)
    row = only(followed([batch], [got]))
    assert row["delivery_ms"] == 41
    assert row["broker_ms"] is row["log_wait_ms"] is row[f"{side}_network_ms"] is None
    assert row["fetch_network_ms" if side == "produce" else "produce_network_ms"] is not None


# What belongs together


def test_every_connection_that_fetches_has_its_row_and_its_first_fetch_counts() -> None:
    batch = produce(5)
    fetches = [
        fetch(batch, at, connection_id=connection)
        for at, connection in ((90, "c:2-b:9#1"), (70, "c:2-b:9#1"), (95, "c:2-b:9#1"), (80, "d:3-b:9#1"))
    ]
    rows = followed([batch], fetches)
    assert rows.select("fetch_connection_id", "delivery_ms", "refetches").rows() == [("c:2-b:9#1", 70, 2), ("d:3-b:9#1", 80, 0)]


def test_several_batches_of_a_fetch_are_several_deliveries() -> None:
    batches = [produce(0, 3), produce(3, 2, at=1), produce(5, 1, at=2)]
    rows = followed(batches, [fetch(batch, 50, correlation_id=9) for batch in batches])
    assert rows["first_offset"].to_list() == [0, 3, 5] and rows["delivery_ms"].to_list() == [50, 49, 48]


def idempotent(first: int | None, at: float, sequence: int = 0, **values: Any) -> Row:
    return produce(first, at=at, **({"base_timestamp": 1, "producer_id": 7, "producer_epoch": 0, "base_sequence": sequence} | values))


def test_a_batch_that_was_sent_again_is_one_delivery_from_when_it_was_first_sent() -> None:
    """Its first answer was lost, the second says where it is: whose broker time that was is not known."""
    first = idempotent(None, 0, response_first=None, response_last=None, status="unanswered", error_code=None)
    again = idempotent(4, 100, connection_id="p:2-b:9#1")
    row = only(followed([first, again], [fetch(again, 130)]))
    assert (row["delivery_ms"], row["produce_correlation_id"]) == (130, first["correlation_id"])
    assert row["acknowledged_at"].timestamp() == pytest.approx(START / 1e9 + 0.110)
    assert row["broker_ms"] is None and row["produce_network_ms"] is None


def test_offsets_of_an_idempotent_batch_whose_answer_is_missing_are_learned_from_the_fetch() -> None:
    lost = idempotent(None, 0, response_first=None, response_last=None, status="unanswered", error_code=None)
    got = fetch(idempotent(4, 0), 41)
    row = only(followed([lost], [got]))
    assert (row["status"], row["first_offset"], row["delivery_ms"], row["acknowledged_at"]) == ("delivered", 4, 41, None)


def test_compacted_batches_keep_their_ends() -> None:
    batch = produce(10, 5)
    row = only(followed([batch], [fetch(batch, 50, record_count=2, record_bytes=99, base_timestamp=5)]))
    assert (row["status"], row["record_count"]) == ("delivered", 5)


@pytest.mark.parametrize("attributes", [8, 64, 2], ids=["the broker's time", "delete horizon", "compressed by the broker"])
def test_a_first_timestamp_that_the_broker_made_anew_parts_nothing(attributes: int) -> None:
    batch = produce(10)
    assert only(followed([batch], [fetch(batch, 50, base_timestamp=5, attributes=attributes)]))["status"] == "delivered"


def test_control_batches_are_no_deliveries() -> None:
    batch = produce(10, attributes=16)
    marker = fetch(produce(11), 50, attributes=48)
    found = follow(*tables_of([batch], [fetch(batch, 50), marker]), ONE_CLOCK)
    assert found.control_batches == 1 and said(found.rows) == [("delivered", None)]


def test_old_messages_are_found_in_the_batch_that_the_broker_made_of_them() -> None:
    sent = [produce(offset, magic=1, base_timestamp=None) for offset in range(3, 43)]
    rows = followed(sent, [fetch(produce(3, 40), 50)])
    assert rows["first_offset"].to_list() == [*range(3, 43)] and set(said(rows)) == {("delivered", None)}


def test_a_batch_for_an_old_consumer_is_there_with_its_last_message() -> None:
    batch = produce(3, 3)
    messages = [fetch(produce(offset, magic=1, base_timestamp=None), 50 + offset) for offset in (3, 4, 5)]
    rows = followed([batch], messages).filter(pl.col("status") == "delivered")
    assert only(rows)["delivery_ms"] == 55


def test_what_two_sites_captured_of_one_connection_counts_once_at_the_clients_taps() -> None:
    """Produced at edge, seen at edge (client) and at the broker; fetched at cloud, seen at cloud and at the broker."""
    batch = produce(5)
    at_broker = batch | {"site": "third", "tap": "broker", "way": 0, "request_first": START + 4 * MS}
    got = fetch(batch, 41)
    rows = followed(
        [at_broker, batch], [got | {"site": "third", "tap": "broker", "complete": START + 11 * MS, "connection_id": "c:2-b:9#3"}, got]
    )
    row = only(rows)
    assert (row["produce_site"], row["fetch_site"], row["delivery_ms"]) == ("edge", "cloud", 41)


UNTOLD: Row = {"first_offset": None, "last_offset": None, "response_first": None, "response_last": None, "error_code": None}


@pytest.mark.parametrize("at_broker", ["p:1-b:9#4", "n:77-k:9#1"], ids=["same addresses", "translated"])
def test_one_request_at_two_taps_is_one_batch_though_nothing_tells_its_offsets(at_broker: str) -> None:
    """A producer that asks for no answer, and one whose answer the client's tap has missed: not idempotent, so that only the request says what is the same."""
    table = pl.DataFrame([("third", "n:77-k:9#1", "p:1-b:9#1")], schema=TRANSLATED, orient="row")
    there = {"site": "third", "tap": "broker", "way": 0, "connection_id": at_broker}
    silent = produce(None, **(UNTOLD | {"acks": 0, "status": "no_response_expected"}))
    assert said(followed([silent, silent | there], [], translated=table)) == [("not_fetched", "acks_0")]
    batch = produce(5)
    missed = batch | UNTOLD | {"status": "unanswered"}
    row = only(followed([batch | there, missed], [fetch(batch, 41)], translated=table))
    assert (row["status"], row["first_offset"], row["produce_site"], row["delivery_ms"], row["broker_ms"]) == (
        "delivered",
        5,
        "edge",
        41,
        None,
    )


def test_a_connection_under_other_addresses_at_the_brokers_tap_is_one() -> None:
    batch = produce(5)
    got = fetch(batch, 41)
    there = got | {"site": "third", "tap": "broker", "complete": START + 11 * MS, "connection_id": "n:77-k:9#1"}
    table = pl.DataFrame([("third", "n:77-k:9#1", got["connection_id"])], schema=TRANSLATED, orient="row")
    rows = follow(*tables_of([batch], [there, got]), ONE_CLOCK, table).rows
    assert only(rows)["fetch_connection_id"] == got["connection_id"]
    assert follow(*tables_of([batch], [there, got]), ONE_CLOCK).rows.height == 2


# What does not belong together


def test_a_topic_made_anew_joins_nothing_of_the_one_before() -> None:
    """Offsets begin at 0 again; the consumer of the first topic is seen, and so is the producer of the second."""
    before, after = produce(0, at=0), produce(0, at=60_000)
    rows = followed([after], [fetch(before, 41)])
    assert said(rows) == [("not_fetched", "offsets_reused"), ("produce_not_captured", "offsets_reused")]
    rows = followed([before, after], [fetch(before, 41), fetch(after, 60_050)])
    assert rows["delivery_ms"].to_list() == [41, 50]


def test_ids_tell_topics_of_one_name_apart() -> None:
    batch = produce(0, attributes=8, by_id=True, topic_id="old")
    assert "delivered" not in followed([batch], [fetch(batch, 41, topic_id="new")])["status"].to_list()


def test_topics_of_one_name_in_two_clusters_are_two() -> None:
    batch = produce(0)
    rows = followed([batch], [fetch(batch, 41, cluster="other")])
    assert sorted(said(rows)) == [("not_fetched", "partition_not_fetched"), ("produce_not_captured", "partition_not_produced")]


def test_two_clusters_taken_for_one_join_nothing() -> None:
    here, there = produce(0, at=0), produce(0, at=3)
    rows = followed([here, there | {"site": "cloud"}], [fetch(here, 20, site="edge"), fetch(there, 40)])
    assert rows.select("produce_site", "fetch_site", "delivery_ms").rows() == [("edge", "edge", 20), ("cloud", "cloud", 37)]


def test_equal_offsets_that_two_batches_claim_prove_nothing_alone() -> None:
    """The broker stamps the time, so nothing identifies them."""
    first, second = produce(0, at=0), produce(0, at=60_000)
    rows = followed([first, second], [fetch(second, 60_050, attributes=8, base_timestamp=0)])
    assert [status for status, _ in said(rows)] == ["not_fetched", "not_fetched", "produce_not_captured"]
    assert {reason for _, reason in said(rows)} == {"offsets_reused"}


def test_a_fetch_before_the_produce_on_one_clock_proves_another_batch() -> None:
    batch = produce(0, at=1000)
    rows = followed([batch], [fetch(batch, 41, site="edge", attributes=8, base_timestamp=0)])
    assert "delivered" not in rows["status"].to_list()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"acks": 0, "status": "no_response_expected", "error_code": None}, "acks_0"),
        ({"error_code": 6}, "produce_failed"),
        ({"status": "unanswered", "error_code": None}, "response_not_captured"),
        ({"error_code": None}, "offset_not_captured"),
    ],
    ids=str,
)
def test_without_offsets_nothing_is_joined(change: Row, reason: str) -> None:
    lost = produce(None, **change)
    other = produce(9, at=50)
    rows = followed([lost, other], [fetch(produce(0), 41), fetch(other, 99)])
    assert ("not_fetched", reason) in said(rows)
    assert rows.filter(pl.col("status") == "delivered")["first_offset"].to_list() == [9]
    assert ("produce_not_captured", "before_first_produce") in said(rows)


def test_why_a_batch_was_not_fetched_or_not_seen_produced() -> None:
    batches = [produce(offset, at=offset) for offset in range(10)]
    rows = followed([*batches[2:6], batches[7]], [fetch(batches[n], 90) for n in (1, 3, 5, 6, 9)])
    assert dict(zip(rows["first_offset"], said(rows), strict=True)) == {
        1: ("produce_not_captured", "before_first_produce"),
        2: ("not_fetched", "not_seen_between"),
        3: ("delivered", None),
        4: ("not_fetched", "not_seen_between"),
        5: ("delivered", None),
        6: ("produce_not_captured", "not_seen_between"),
        7: ("not_fetched", "not_seen_between"),
        9: ("produce_not_captured", "behind_last_produce"),
    }
    rows = followed(batches[:3], [fetch(batches[1], 90)])
    assert said(rows) == [("not_fetched", "before_first_fetch"), ("delivered", None), ("not_fetched", "behind_last_fetch")]
    nameless = fetch(produce(0, topic="uuid", topic_id="uuid", by_id=True), 50)
    assert ("produce_not_captured", "topic_id_unknown") in said(followed([batches[0]], [nameless]))


# Clocks


def both_ways(offset_ms: float, there: float = 41, back: float = 41) -> pl.DataFrame:
    """A record from edge to cloud and one from cloud to edge; cloud's clock is ahead."""
    out, home = produce(0), produce(1, at=offset_ms + 500, site="cloud")
    known: dict[str, Clock] = {}
    return followed([out, home], [fetch(out, there + offset_ms), fetch(home, 500 + back, site="edge")], known)


def test_clocks_that_nobody_relates_are_taken_as_they_stand_within_what_causality_allows() -> None:
    rows = both_ways(5)
    assert rows["delivery_ms"].to_list() == [46, 36]
    assert rows["clock_uncertainty_ms"].to_list() == [46, 46]  # 5 ms ahead: from 36 behind to 46 ahead is possible
    assert set(rows["status_reason"]) == {"clocks_unknown"}
    assert rows["broker_ms"].null_count() == rows["log_wait_ms"].null_count() == 2
    assert rows["produce_network_ms"].null_count() == 0


def test_clocks_hours_apart_are_bounded_by_both_directions() -> None:
    rows = both_ways(3 * 3_600_000)
    assert rows["delivery_ms"].to_list() == pytest.approx([41, 41]) and rows["clock_uncertainty_ms"].to_list() == pytest.approx([41, 41])
    assert ((rows["fetched_at"] - rows["produced_at"]).dt.total_microseconds() / 1000).to_list() == pytest.approx([41, 41])


@pytest.mark.parametrize(("offset", "delivery"), [(-3_600_000, 0), (3_600_000, 3_600_041)])
def test_one_direction_alone_bounds_from_one_side(offset: float, delivery: float) -> None:
    batch = produce(0)
    row = only(followed([batch], [fetch(batch, 41 + offset)], {}))
    assert (row["delivery_ms"], row["clock_uncertainty_ms"], row["status_reason"]) == (delivery, None, "clocks_unknown")


def test_clocks_that_contradict_causality_tell_nothing() -> None:
    """Both directions take less than no time: a clock stepped meanwhile."""
    rows = both_ways(0, there=-100, back=-100)
    assert rows["delivery_ms"].null_count() == 2 and set(rows["status_reason"]) == {"clocks_contradict"}


def test_a_configured_offset_is_taken_off() -> None:
    batch = produce(0)
    known = known_clocks([{"site": "edge", "clock_offset_ms": 1000.0}, {"site": "cloud", "clock_offset_ms": -500.0}])
    row = only(followed([batch], [fetch(batch, 41 - 1500, asked=-2000)], known))
    assert (row["delivery_ms"], row["clock_uncertainty_ms"], row["status_reason"]) == (41, 0, None)
    assert row["produced_at"].timestamp() == pytest.approx(START / 1e9 - 1) and row["fetched_at"].timestamp() == pytest.approx(
        START / 1e9 - 1 + 0.041
    )
    assert row["broker_ms"] is not None
    wrong = only(followed([batch], [fetch(batch, 41)], known | {"cloud": Clock(500.0), "edge": Clock(0.0)}))
    assert (wrong["delivery_ms"], wrong["status_reason"]) == (None, "clocks_contradict")


def test_an_estimate_fills_in_where_nothing_is_configured_and_its_uncertainty_stands() -> None:
    batch = produce(0)
    sites: list[Row] = [{"site": "edge", "clock_offset_ms": 0.0}, {"site": "cloud", "clock_offset_ms": None}]
    known = known_clocks(sites, {"cloud": Clock(20.0, frozenset({("cloud", 0.5)})), "edge": Clock(99.0)})
    row = only(followed([batch], [fetch(batch, 61)], known))
    assert (row["delivery_ms"], row["clock_uncertainty_ms"]) == (41, 0.5)


def test_a_clock_that_steps_back_within_a_site() -> None:
    batch = produce(0, at=0)
    row = only(followed([batch], [fetch(batch, -400, site="edge", asked=-900)]))
    assert (row["delivery_ms"], row["status"], row["status_reason"]) == (None, "delivered", "clock_stepped")


def test_nothing_at_all() -> None:
    assert followed([], []).height == 0
    assert said(followed([produce(0)], [])) == [("not_fetched", "partition_not_fetched")]
    assert said(followed([], [fetch(produce(0), 1)])) == [("produce_not_captured", "partition_not_produced")]


def test_every_reason_is_documented() -> None:
    from brokerlens.routes import deliveries

    assert set(deliveries.REASONS.categories) == {reason for reasons in DELIVERY_REASONS.values() for reason in reasons}


# The twin


def same_batch(sent: Row, got: Row) -> bool:
    if sent["magic"] < 2 or got["magic"] < 2:
        return True
    if (sent["first_offset"], sent["last_offset"]) != (got["first_offset"], got["last_offset"]):
        return False
    if any(sent[name] != got[name] for name in ("producer_id", "producer_epoch", "base_sequence")):
        return False
    is_whole = got["record_count"] == got["last_offset"] - got["first_offset"] + 1
    return not is_whole or sent["base_timestamp"] == got["base_timestamp"]


def is_known(sent: Row, got: Row) -> bool:
    """Something identifies the batch beyond its offsets."""
    is_whole = got["record_count"] == got["last_offset"] - got["first_offset"] + 1
    return sent["magic"] == got["magic"] == 2 and (sent["producer_id"] is not None or is_whole)


Found = tuple[int | None, int | None, int, str]


def slowly(produced: Sequence[Row], fetched: Sequence[Row]) -> list[Found]:
    """Which request's batch each connection got in which fetch, offset by offset: correlation ids of both, refetches, status."""
    sent_once: list[Row] = []
    for row in sorted(produced, key=lambda row: (row["request_first"], row["correlation_id"])):
        identity = ("partition", "first_offset", "last_offset", "producer_id", "producer_epoch", "base_sequence", "base_timestamp")
        if not any(all(row[name] == other[name] for name in identity) for other in sent_once):
            sent_once.append(row)
    claims: dict[tuple[int, int], int] = {}
    for row in sent_once:
        claims[row["partition"], row["last_offset"]] = claims.get((row["partition"], row["last_offset"]), 0) + 1
    got: dict[tuple[int, str], list[Row]] = {}
    used, found = set(), []
    for fetch_row in sorted(fetched, key=lambda row: (row["complete"], row["correlation_id"])):
        for offset in range(fetch_row["first_offset"], fetch_row["last_offset"] + 1):
            for place, row in enumerate(sent_once):
                is_there = (row["partition"], row["last_offset"]) == (fetch_row["partition"], offset) and same_batch(row, fetch_row)
                early = row["site"] == fetch_row["site"] and fetch_row["complete"] < row["request_first"]
                if is_there and (is_known(row, fetch_row) or (claims[row["partition"], offset] == 1 and not early)):
                    got.setdefault((place, fetch_row["connection_id"]), []).append(fetch_row)
                    used.add(fetch_row["correlation_id"])
    for (place, _), fetches in got.items():
        found.append((sent_once[place]["correlation_id"], fetches[0]["correlation_id"], len(fetches) - 1, "delivered"))
    delivered = {place for place, _ in got}
    found += [(row["correlation_id"], None, 0, "not_fetched") for place, row in enumerate(sent_once) if place not in delivered]
    unknown: dict[tuple[Any, ...], list[Row]] = {}
    for fetch_row in sorted(fetched, key=lambda row: (row["complete"], row["correlation_id"])):
        key = tuple(fetch_row[name] for name in ("partition", "first_offset", "last_offset", "connection_id"))
        if fetch_row["correlation_id"] not in used:
            unknown.setdefault(key, []).append(fetch_row)
    found += [(None, fetches[0]["correlation_id"], len(fetches) - 1, "produce_not_captured") for fetches in unknown.values()]
    return sorted(found, key=str)


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Partitions that are filled once or twice from offset 0, fetched by some connections: retries, refetches, compaction, old formats, requests that were not captured."""
    produced, fetched = [], []
    number = itertools.count(1)
    for partition, life in itertools.product(range(2), range(draw(st.integers(1, 2)))):
        offset = 0
        for _ in range(draw(st.integers(0, 5))):
            count = draw(st.integers(1, 4))
            at = draw(st.integers(0, 50)) + 1000 * life
            sent = produce(
                offset, count, at=at, partition=partition, site=draw(st.sampled_from(["edge", "cloud"])), correlation_id=next(number)
            )
            if draw(st.booleans()):
                sent |= {"producer_id": 7 + life, "producer_epoch": 0, "base_sequence": offset}
            if count == 1 and draw(st.integers(0, 3)) == 0:
                sent |= {"magic": 1, "producer_id": None, "producer_epoch": None, "base_sequence": None}
            offset += count
            if draw(st.integers(0, 4)):
                produced.append(sent)
                if draw(st.integers(0, 3)) == 0:
                    produced.append(sent | {"request_first": sent["request_first"] + 5 * MS, "correlation_id": next(number)})
            for connection in ("c:1-b:9#1", "c:2-b:9#1"):
                for _ in range(draw(st.integers(0, 2))):
                    got = fetch(sent, at + draw(st.integers(-20, 200)), connection_id=connection, correlation_id=next(number))
                    if sent["magic"] == 2 and draw(st.integers(0, 3)) == 0:
                        got |= {"record_count": count - 1}  # compacted
                    fetched.append(got)
    return produced, fetched


@settings(max_examples=300, deadline=None)
@given(logs())
def test_the_join_is_that_of_plain_loops(made: tuple[list[Row], list[Row]]) -> None:
    produced, fetched = made
    rows = followed(produced, fetched)
    found = rows.select("produce_correlation_id", "fetch_correlation_id", "refetches", "status").rows()
    assert sorted(found, key=str) == slowly(produced, fetched)


@settings(max_examples=50, deadline=None)
@given(logs(), st.randoms())
def test_the_order_of_the_rows_changes_nothing(made: tuple[list[Row], list[Row]], chance: Any) -> None:
    produced, fetched = made
    expected = followed(produced, fetched)
    chance.shuffle(produced)
    chance.shuffle(fetched)
    assert followed(produced, fetched).equals(expected)


@settings(max_examples=100, deadline=None)
@given(logs())
def test_parts_are_never_negative_and_add_up_where_all_are_known(made: tuple[list[Row], list[Row]]) -> None:
    rows = followed(*made)
    parts = rows.select("produce_network_ms", "broker_ms", "log_wait_ms", "fetch_network_ms")
    assert (parts.min_horizontal().fill_null(0) >= 0).all()
    whole = rows.filter(pl.all_horizontal(pl.col(parts.columns).is_not_null()))
    assert whole.select((pl.sum_horizontal(parts.columns) - pl.col("delivery_ms")).abs() < 1e-6).to_series().all()


def test_followed_says_how_many_control_batches_there_were() -> None:
    assert isinstance(follow(*tables_of([], []), {}), Followed)


PATHS = pl.DataFrame(
    [
        ("edge", "hub", "estimated", 40.0, 2.0, 5.0),
        ("edge", "hub", "estimated", 40.0, 2.0, 5.0),
        ("cloud", "hub", "estimated", -10.0, None, 3.0),
        ("fog", "hub", "unknown", None, None, None),
    ],
    schema=["client_site", "broker_site", "clock_source", "clock_offset_ms", "clock_drift_ppm", "clock_uncertainty_ms"],
    orient="row",
)


def of_sites(**offsets: float | None) -> list[dict[str, Any]]:
    return [{"site": site, "clock_offset_ms": offset} for site, offset in offsets.items()]


def test_shared_connections_tell_the_clocks_of_sites_that_share_none() -> None:
    clocks = estimated_clocks(PATHS, of_sites(edge=None, cloud=None, hub=None, fog=None), span_ms=1_000_000.0)
    # The first site's clock is the reference: hub is 40 ms ahead of edge, give or take 5 ms and a drift of 2 ppm over 1,000 s; cloud 10 ms ahead of hub.
    by_hub = ("hub", 7.0)
    assert clocks == {
        "edge": Clock(0.0, reference="edge"),
        "hub": Clock(40.0, frozenset({by_hub}), "edge"),
        "cloud": Clock(50.0, frozenset({by_hub, ("cloud", 3.0)}), "edge"),
    }


def test_an_estimate_that_both_clocks_are_made_of_is_no_doubt_between_them() -> None:
    """What is wrong with the hub's clock by edge's is wrong with cloud's, too: between hub and cloud it is not."""
    clocks = estimated_clocks(PATHS, of_sites(edge=None, cloud=None, hub=None, fog=None), span_ms=1_000_000.0)
    doubts = {(one, other): clocks[one].uncertainty_ms(clocks[other]) for one, other in itertools.combinations(("edge", "hub", "cloud"), 2)}
    assert doubts == {("edge", "hub"): 7.0, ("edge", "cloud"): 10.0, ("hub", "cloud"): 3.0}


def test_clocks_that_no_shared_connection_leads_to_stay_unknown() -> None:
    """Two pairs of sites with nothing between them: each pair has a clock of its own for reference, and so has a pair without any beside a configured site."""
    far = PATHS.clear().vstack(PATHS[:1]).vstack(PATHS[:1].with_columns(client_site=pl.lit("third"), broker_site=pl.lit("cloud")))
    batch = produce(0)
    for configured in (None, 0.0):
        known = known_clocks([], estimated_clocks(far, of_sites(edge=configured, hub=None, third=None, cloud=None), span_ms=0.0))
        row = only(followed([batch], [fetch(batch, 41)], known))
        assert (row["status_reason"], row["clock_uncertainty_ms"], row["broker_ms"]) == ("clocks_unknown", None, None)


def test_estimates_start_from_what_is_configured() -> None:
    clocks = estimated_clocks(PATHS, of_sites(edge=None, cloud=3.0, hub=None), span_ms=0.0)
    by_hub = ("hub", 3.0)
    assert clocks == {
        "cloud": Clock(3.0),
        "hub": Clock(-7.0, frozenset({by_hub})),
        "edge": Clock(-47.0, frozenset({by_hub, ("edge", 5.0)})),
    }
    assert estimated_clocks(PATHS.clear(), of_sites(edge=None, cloud=3.0), span_ms=0.0) == {}
