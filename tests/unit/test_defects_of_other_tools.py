"""What goes wrong in tools that people use, each seen in a well-known one: here a user reads the right row of `requests`."""

from __future__ import annotations

import random
import struct
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from kafka.protocol.consumer.fetch import FetchRequest, FetchResponse
from kafka.protocol.metadata import MetadataRequest, MetadataResponse
from kafka.protocol.producer import ProduceRequest, ProduceResponse
from kafka_messages import batch, request, response
from kafka_sites import site_of
from kafka_streams import Packet, renumbered
from test_kafka_cases import MS, Talk, beat, heartbeat

pytestmark = pytest.mark.filterwarnings("ignore:.*_text is deprecated:DeprecationWarning")  # how kafka-python reads its resources

ORDERS = uuid.UUID(int=0x0123456789ABCDEF0123456789ABCDEF)
RECORDS, _ = batch(random.Random(1), b"x" * 1000, 7)
IDEMPOTENT, _ = batch(random.Random(5), b"x" * 1000, 7)  # of a producer with an id
SERVICE = 5  # ms from a request to its response, as `Talk` sends them
NEWEST_PRODUCE, NEWEST_FETCH = 13, 18


def sent(message: Any, correlation: int) -> bytes:
    """A frame by kafka-python's encoder."""
    message.with_header(correlation_id=correlation, client_id="me")
    return bytes(message.encode(header=True, framed=True))


def produce(correlation: int, version: int, acks: int = 1, records: bytes = RECORDS) -> bytes:
    topic = ProduceRequest.TopicProduceData
    partitions = [topic.PartitionProduceData(index=0, records=records)]
    topics = [topic(name="orders", topic_id=ORDERS, partition_data=partitions)]
    return sent(ProduceRequest(version=version, acks=acks, timeout_ms=30_000, topic_data=topics), correlation)


def produced(correlation: int, version: int) -> bytes:
    topic = ProduceResponse.TopicProduceResponse
    partitions = [topic.PartitionProduceResponse(index=0, base_offset=4)]
    return sent(
        ProduceResponse(version=version, responses=[topic(name="orders", topic_id=ORDERS, partition_responses=partitions)]), correlation
    )


def fetch(correlation: int, version: int, max_wait_ms: int = 500) -> bytes:
    topic = FetchRequest.FetchTopic
    topics = [topic(topic="orders", topic_id=ORDERS, partitions=[topic.FetchPartition(partition=0, fetch_offset=4)])]
    return sent(FetchRequest(version=version, max_wait_ms=max_wait_ms, min_bytes=1, topics=topics), correlation)


def fetched(correlation: int, version: int, records: bytes) -> bytes:
    topic = FetchResponse.FetchableTopicResponse
    partitions = [topic.PartitionData(partition_index=0, high_watermark=9, records=records)]
    return sent(FetchResponse(version=version, responses=[topic(topic="orders", topic_id=ORDERS, partitions=partitions)]), correlation)


def exchanges(version_of_produce: int, version_of_fetch: int) -> list[tuple[bytes, bytes]]:
    """Requests and responses with ids from 1: two well-formed, one of a version that no table has yet, one whose body is none, two well-formed."""
    endless = b"\0" + struct.pack(">hi", 1, 30) + b"\xff\xff\xff\xff\x0f" + b"x" * 300
    return [
        (produce(1, version_of_produce), produced(1, version_of_produce)),
        (fetch(2, version_of_fetch), fetched(2, version_of_fetch, RECORDS)),
        (request(0, NEWEST_PRODUCE + 1, 3, b"me", b"\7" * 300, True), response(3, b"\7" * 90, True)),
        (request(0, 9, 4, b"me", endless, True), response(4, b"\xff" * 90, True)),
        (produce(5, version_of_produce), produced(5, version_of_produce)),
        (fetch(6, version_of_fetch), fetched(6, version_of_fetch, b"")),
    ]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("snaplen", [262_144, 96])
def test_1_every_response_has_its_time(snaplen: int, inside: bool, tmp_path: Path) -> None:
    """Wireshark reports no response time, and loses matches: after a short snaplen, an unknown version, a malformed body, acks=1 from Produce 9 on (4.4), Produce
    above 8 and Fetch above 11 (4.0), and for good where the capture begins inside a frame.
    """
    talk = Talk(syn=not inside, size=9000)
    if inside:
        talk.send(0, b"the end of a large batch " * 100)
    for ask, reply in exchanges(9, 12):
        talk.send(0, ask).send(1, reply)
    rows = site_of(talk.done(), tmp_path, snaplen).requests
    assert rows["correlation_id"].to_list() == [1, 2, 3, 4, 5, 6]
    assert rows["status"].to_list() == ["answered"] * 6
    assert rows["latency_ms"].to_list() == pytest.approx([SERVICE] * 6)
    assert rows["acks"].to_list()[0::4] == [1, 1]


@pytest.mark.parametrize(("api", "key", "newest"), [("Produce", 0, NEWEST_PRODUCE), ("Fetch", 1, NEWEST_FETCH)])
def test_2_no_version_is_dropped(api: str, key: int, newest: int, tmp_path: Path) -> None:
    """eBPF agents drop versions above their table (Produce 9, Fetch 12 in one of them): a header needs no table."""
    talk = Talk(size=9000)
    versions = range(newest + 8)
    for version in versions:
        if not 4 <= version <= newest:  # kafka-python writes those that brokers of today accept
            ask, reply = request(key, version, version, b"me", b"\7" * 60, version >= 9), response(version, b"\7" * 30, version >= 9)
        elif key == 0:
            ask, reply = produce(version, version), produced(version, version)
        else:
            ask, reply = fetch(version, version), fetched(version, version, b"")
        talk.send(0, ask).send(1, reply)
    rows = site_of(talk.done(), tmp_path).requests
    assert rows["api_name"].to_list() == [api] * len(versions)
    assert rows["api_version"].to_list() == list(versions)
    assert rows["client_id"].to_list() == ["me"] * len(versions)
    assert rows["latency_ms"].to_list() == pytest.approx([SERVICE] * len(versions))


@pytest.mark.parametrize("syn", [True, False])
def test_3_any_correlation_id_is_one(syn: bool, tmp_path: Path) -> None:
    """Several tools reject negative ids (Java wraps to the smallest) or 0, which is the first one."""
    packets: list[Packet] = []
    sequences = [[-3, -2, -1, 0, 1, 2], [2**31 - 2, 2**31 - 1, -(2**31), -(2**31) + 1, -(2**31) + 2]]
    for connection, ids in enumerate(sequences):
        talk = Talk(syn=syn, start=connection * 1000 * MS)
        for n in ids:
            talk.send(0, heartbeat(n)).send(1, beat(n))
        packets += [replace(packet, connection=connection) for packet in talk.packets]
    rows = site_of(renumbered(packets), tmp_path).requests
    assert rows["correlation_id"].to_list() == [n for ids in sequences for n in ids]
    assert rows["latency_ms"].to_list() == pytest.approx([SERVICE] * rows.height)


def test_4_waiting_for_data_is_no_slowness(tmp_path: Path) -> None:
    """Nobody separates the long poll of Fetch from the time of service: a consumer's 500 ms are the broker waiting, as told."""
    talk = Talk(size=9000)
    talk.send(0, fetch(1, 12), wait=500 * MS).send(1, fetched(1, 12, b""))
    talk.send(0, fetch(2, 12), wait=120 * MS).send(1, fetched(2, 12, RECORDS))
    talk.send(0, produce(3, 9)).send(1, produced(3, 9))
    site = site_of(talk.done(), tmp_path)
    shown = site.requests.select("api_name", "latency_ms", "waits_by_design", "max_wait_ms", "record_count").rows()
    assert shown == [("Fetch", 500.0, True, 500, 0), ("Fetch", 120.0, True, 500, 7), ("Produce", 5.0, False, None, 7)]
    means = {
        row["group"]: row["value"]
        for row in site.metrics.filter((pl.col("metric") == "kafka_latency") & (pl.col("statistic") == "mean")).iter_rows(named=True)
    }
    assert means["all"] == means["api=Produce"] == pytest.approx(5)
    assert (means["api=Fetch/empty"], means["api=Fetch/with_data"]) == pytest.approx((500, 120))


def test_5_topic_ids_have_names(tmp_path: Path) -> None:
    """Topic ids (Fetch and Produce from 13 on) come out as UUIDs; the name is in a Metadata response, on another connection and later here."""
    unnamed = FetchRequest.FetchTopic(topic_id=uuid.UUID(int=1), partitions=[])
    data = Talk(size=9000)
    data.send(0, produce(1, 13)).send(1, produced(1, 13)).send(0, fetch(2, 13)).send(1, fetched(2, 13, RECORDS))
    data.send(0, sent(FetchRequest(version=13, topics=[unnamed]), 3)).send(1, fetched(3, 13, RECORDS))
    names = Talk(start=data.time)
    topic = MetadataResponse.MetadataResponseTopic(name="orders", topic_id=ORDERS, partitions=[])
    names.send(0, sent(MetadataRequest(version=12, topics=[]), 1)).send(
        1, sent(MetadataResponse(version=12, brokers=[], topics=[topic]), 1)
    )
    packets = [*data.packets, *(replace(packet, connection=1) for packet in names.packets)]
    rows = site_of(renumbered(packets), tmp_path).requests
    assert rows.select("api_name", "topics").rows() == [
        ("Produce", ["orders"]),
        ("Fetch", ["orders"]),
        ("Fetch", ["AAAAAAAAAAAAAAAAAAAAAQ", "orders"]),
        ("Metadata", ["orders"]),
    ]


def test_6_queueing_is_reported_apart(tmp_path: Path) -> None:
    """The broker serves a connection's requests one at a time, and nobody reports the time that one waits behind another."""
    talk = Talk(size=9000)
    talk.send(0, produce(1, 9), wait=2 * MS).send(0, produce(2, 9), wait=2 * MS).send(0, produce(3, 9), wait=96 * MS)
    talk.send(1, produced(1, 9), wait=10 * MS).send(1, produced(2, 9), wait=20 * MS).send(1, produced(3, 9), wait=30 * MS)
    talk.send(0, produce(4, 9), wait=7 * MS).send(1, produced(4, 9))
    rows = site_of(talk.done(), tmp_path).requests
    assert rows["latency_ms"].to_list() == pytest.approx([100, 108, 126, 7])
    assert rows["queue_ms"].to_list() == pytest.approx([0, 98, 106, 0])
    assert rows["service_ms"].to_list() == pytest.approx([100, 10, 20, 7])


def test_batches_that_a_consumer_fetches_are_no_retries_of_their_producer(tmp_path: Path) -> None:
    """A broker gives out batches with the producer's id, epoch and sequence as they came."""
    talk = Talk(size=9000)
    talk.send(0, fetch(1, 12)).send(1, fetched(1, 12, IDEMPOTENT))
    for number in (2, 3):
        talk.send(0, produce(number, 9, records=IDEMPOTENT)).send(1, produced(number, 9))
    talk.send(0, fetch(4, 12)).send(1, fetched(4, 12, IDEMPOTENT))
    rows = site_of(talk.done(), tmp_path).requests
    assert rows["producer_id"].is_not_null().to_list() == [False, True, True, False]
    assert rows["retried_batches"].to_list() == [None, 0, 1, None]


@pytest.mark.parametrize(("snaplen", "lag"), [(262_144, 2), (400, None)])
def test_lag_is_not_told_from_some_of_the_batches(snaplen: int, lag: int | None, tmp_path: Path) -> None:
    """Behind a short snaplen the last batch that was seen is not the last that came."""
    first, second = (batch(random.Random(1), payload, count, base)[0] for payload, count, base in ((b"x" * 50, 3, 0), (b"y" * 1400, 4, 3)))
    talk = Talk(size=9000).send(0, fetch(1, 12)).send(1, fetched(1, 12, first + second))
    rows = site_of(talk.done(), tmp_path, snaplen).requests
    assert rows["lag_records"].to_list() == [lag]
