"""What only all connections of a site tell: names of topics, fetch sessions, batches sent again, clusters."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from brokerlens.kafka import site
from brokerlens.kafka.requests import BODY_WHOLE

PARTITION = pl.Struct({"topic": pl.String, "partition": pl.Int64})
BATCH = pl.Struct(
    {"producer_id": pl.Int64, "producer_epoch": pl.Int64, "topic": pl.String, "partition": pl.Int64, "base_sequence": pl.Int64}
)
SCHEMA: dict[str, Any] = {
    "connection_id": pl.String,
    "broker_ip": pl.String,
    "broker_port": pl.Int64,
    "correlation_id": pl.Int64,
    "request_first": pl.Int64,
    "request_body": pl.Int64,
    "topics": pl.List(pl.String),
    "fetch_session": pl.String,
    "session": pl.Int64,
    "session_epoch": pl.Int64,
    "asked": pl.List(PARTITION),
    "forgotten": pl.List(PARTITION),
    "batches": pl.List(BATCH),
}
Row = dict[str, Any]


def row(time: int, connection: str = "a", **values: Any) -> Row:
    defaults = {"broker_ip": "192.0.2.10", "broker_port": 9092, "request_body": BODY_WHOLE}
    return defaults | {"connection_id": connection, "correlation_id": time, "request_first": time} | values


def fetch(time: int, epoch: int, asked: str = "", forgotten: str = "", connection: str = "a", **values: Any) -> Row:
    """A fetch in session 7; partitions are letters, a topic each, its partition 0, or 1 of a capital."""

    def named(letters: str) -> list[Row]:
        return [{"topic": letter.lower(), "partition": int(letter.isupper())} for letter in letters]

    of_session = {"session": 7, "session_epoch": epoch, "asked": named(asked), "forgotten": named(forgotten)}
    return row(time, connection, topics=sorted({letter.lower() for letter in asked}), **(of_session | values))


def completed(*shards: list[Row], names: dict[str, str] | None = None) -> pl.DataFrame:
    provisional = [pl.DataFrame(rows, schema=SCHEMA).lazy() for rows in shards]
    return pl.concat([rows for part in range(len(shards)) for rows in site.complete(provisional, part, names or {})]).sort("request_first")


def test_a_fetch_in_a_session_is_about_all_topics_of_the_session() -> None:
    found = completed([fetch(1, 0, "ab"), fetch(2, 1), fetch(3, 2, "c"), fetch(4, 3, "", "a"), fetch(5, 4)])
    assert found["topics"].to_list() == [["a", "b"], ["a", "b"], ["a", "b", "c"], ["b", "c"], ["b", "c"]]
    assert found["fetch_session"].to_list() == ["opened", *["continued"] * 4]


def test_a_topic_leaves_its_session_with_its_last_partition() -> None:
    found = completed([fetch(1, 0, "aA"), fetch(2, 1, "a"), fetch(3, 2, "", "a"), fetch(4, 3, "", "A"), fetch(5, 4, "A")])
    assert found["topics"].to_list() == [["a"], ["a"], ["a"], None, ["a"]]


def test_a_topic_without_a_name_is_not_among_those_of_a_session() -> None:
    """An empty name, or an id of zeros: which topic is not known."""
    nameless = {"asked": [{"topic": None, "partition": 0}]}
    found = completed([fetch(1, 0, "a"), fetch(2, 1) | nameless, fetch(3, 2, "", "a")])
    assert found["topics"].to_list() == [["a"], ["a"], None]


def test_a_session_goes_on_on_another_connection_in_another_shard() -> None:
    found = completed([fetch(1, 0, "a"), fetch(3, 2, connection="a")], [fetch(2, 1, "b", connection="b")])
    assert found["topics"].to_list() == [["a"], ["a", "b"], ["a", "b"]]


@pytest.mark.parametrize(
    "rows",
    [
        [fetch(2, 1, "b"), fetch(3, 2)],
        [fetch(1, 0, "a"), fetch(2, 1, "b", request_body=1), fetch(3, 2)],
        [fetch(1, 0, "a"), fetch(2, 2, "b"), fetch(3, 3)],
    ],
    ids=["began before the captures", "a body that is not whole", "an epoch that was not captured"],
)
def test_what_is_not_known_of_a_session_is_not_guessed(rows: list[Row]) -> None:
    last = completed(rows)[-1]
    assert last["fetch_session"].to_list() == ["unknown"]
    assert last["topics"].to_list() == [None]


def test_the_same_session_id_opened_anew_is_another_session() -> None:
    found = completed([fetch(1, 0, "a"), fetch(2, 1), fetch(3, 0, "b"), fetch(4, 1)])
    assert found["topics"].to_list() == [["a"], ["a"], ["b"], ["b"]]


def produce(time: int, *batches: tuple[int, int], connection: str = "a", producer: int = 5) -> Row:
    """A produce; batches are partition and first sequence number."""
    sent = [
        {"producer_id": producer, "producer_epoch": 0, "topic": "t", "partition": partition, "base_sequence": sequence}
        for partition, sequence in batches
    ]
    return row(time, connection, topics=["t"], batches=sent)


def test_a_batch_that_an_earlier_request_carried_is_a_retry_wherever_that_was() -> None:
    found = completed(
        [produce(1, (0, 0), (1, 0)), produce(4, (0, 10))],
        [produce(2, (0, 0), (1, 5), connection="b"), produce(3, (0, 0), producer=6, connection="b"), row(5, "b", topics=["t"])],
    )
    assert found["retried_batches"].to_list() == [0, 1, 0, 0, None]


def test_names_replace_ids_where_they_are_known() -> None:
    found = completed([row(1, topics=["id-1", "id-2"])], names={"id-1": "sensors"})
    assert found["topics"].to_list() == [["id-2", "sensors"]]


def learned(*rows: tuple[str | None, str | None, str | None, int]) -> pl.DataFrame:
    schema = {"cluster_id": pl.String, "topic_id": pl.String, "topic": pl.String, "learned_at": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_the_earliest_answer_names_a_topic_and_the_configuration_stands_back() -> None:
    shards = [learned(("c", "id-1", "later", 9)), learned(("c", "id-1", "first", 3), ("c", None, None, 1))]
    names = site.topic_names(site.all_learned(shards), {"id-1": "configured", "id-2": "sensors"})
    assert names == {"id-1": "first", "id-2": "sensors"}


def test_however_many_rows_are_completed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [fetch(1, 0, "ab"), fetch(3, 2, "c"), row(5)], [fetch(2, 1), fetch(4, 3, "", "a"), fetch(6, 4)]
    whole = completed(*shards)
    monkeypatch.setattr(site, "ROWS_AT_ONCE", 2)
    assert completed(*shards).equals(whole)
    assert completed([], *shards).equals(whole)
