"""Whole conversations between a producer, a broker and consumers, from a capture to the rows of `deliveries`."""

from __future__ import annotations

import random
import struct
import uuid
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from kafka.protocol.consumer.fetch import FetchRequest, FetchResponse
from kafka.protocol.producer import ProduceRequest, ProduceResponse
from kafka_messages import batch
from kafka_sites import BROKER, EPOCH, PORT, capture_of
from kafka_streams import Packet, renumbered
from sites import run_experiment
from test_kafka_cases import MS, Talk

pytestmark = pytest.mark.filterwarnings("ignore:.*_text is deprecated:DeprecationWarning")  # how kafka-python reads its resources

TOPIC_ID = uuid.UUID(int=0x0123456789ABCDEF0123456789ABCDEF)


def made(seed: int, count: int, base: int = 0, attributes: int = 0) -> bytes:
    """A record batch as its producer makes it, or, with a base offset, as the broker stores it."""
    data = bytearray(batch(random.Random(seed), b"x" * 300, count)[0])
    struct.pack_into(">q", data, 0, base)
    struct.pack_into(">h", data, 21, attributes)
    struct.pack_into(">qhi", data, 43, -1, -1, -1)  # of a producer without id
    return bytes(data)


def frame(message: Any, correlation: int, client: str) -> bytes:
    message.with_header(correlation_id=correlation, client_id=client)
    return bytes(message.encode(header=True, framed=True))


def produce(correlation: int, version: int, partitions: dict[int, bytes], acks: int = -1) -> bytes:
    topic = ProduceRequest.TopicProduceData
    data = [topic.PartitionProduceData(index=index, records=records) for index, records in partitions.items()]
    return frame(
        ProduceRequest(version=version, acks=acks, timeout_ms=30_000, topic_data=[topic(name="t", topic_id=TOPIC_ID, partition_data=data)]),
        correlation,
        "producer",
    )


def produced(correlation: int, version: int, offsets: dict[int, int], error: int = 0) -> bytes:
    topic = ProduceResponse.TopicProduceResponse
    answers = [
        topic.PartitionProduceResponse(index=index, error_code=error, base_offset=-1 if error else offset)
        for index, offset in offsets.items()
    ]
    return frame(
        ProduceResponse(version=version, responses=[topic(name="t", topic_id=TOPIC_ID, partition_responses=answers)]),
        correlation,
        "producer",
    )


def fetch(correlation: int, version: int, replica: int = -1) -> bytes:
    topic = FetchRequest.FetchTopic
    asked = [topic(topic="t", topic_id=TOPIC_ID, partitions=[topic.FetchPartition(partition=0, fetch_offset=0)])]
    return frame(FetchRequest(version=version, replica_id=replica, max_wait_ms=500, min_bytes=1, topics=asked), correlation, "consumer")


def fetched(correlation: int, version: int, partitions: dict[int, bytes]) -> bytes:
    topic = FetchResponse.FetchableTopicResponse
    answers = [topic.PartitionData(partition_index=index, high_watermark=99, records=records) for index, records in partitions.items()]
    return frame(
        FetchResponse(version=version, responses=[topic(topic="t", topic_id=TOPIC_ID, partitions=answers)]), correlation, "consumer"
    )


def deliveries_of(talks: list[Talk], folder: Path) -> pl.DataFrame:
    """What the pipeline makes of conversations that one capture holds."""
    packets: list[Packet] = []
    for number, talk in enumerate(talks):
        packets += [Packet(**{**vars(packet), "connection": number}) for packet in talk.packets]
    capture = capture_of(renumbered(sorted(packets, key=lambda packet: packet.time)), folder / "talk.pcap")
    return run_experiment({"edge": [capture]}, folder, brokers={"edge": [f"{BROKER}:{PORT}"]})


VERSIONS = pytest.mark.parametrize(("of_produce", "of_fetch"), [(3, 4), (8, 11), (9, 12), (13, 18)])


@VERSIONS
def test_from_the_produce_to_the_fetch_of_every_batch(of_produce: int, of_fetch: int, tmp_path: Path) -> None:
    """Two partitions in one request; the first fetch cuts the second batch off, so the next one delivers it, with a marker that is no delivery behind it."""
    first, second, other = made(1, 3), made(2, 2), made(3, 1)
    stored = made(1, 3, 10), made(2, 2, 13)
    producer = Talk(start=1000 * MS).send(0, produce(1, of_produce, {0: first, 1: other})).send(1, produced(1, of_produce, {0: 10, 1: 7}))
    producer.send(0, produce(2, of_produce, {0: second})).send(1, produced(2, of_produce, {0: 13}))
    consumer = Talk(start=1000 * MS, size=9000).send(0, fetch(1, of_fetch), wait=100 * MS)
    consumer.send(1, fetched(1, of_fetch, {0: stored[0] + stored[1][:-20], 1: made(3, 1, 7)}))
    consumer.send(0, fetch(2, of_fetch)).send(1, fetched(2, of_fetch, {0: stored[1] + made(4, 1, 15, attributes=0x30)}))
    consumer.send(0, fetch(3, of_fetch)).send(1, fetched(3, of_fetch, {0: stored[1]}))
    rows = deliveries_of([producer, consumer], tmp_path)
    found = rows.select("partition", "first_offset", "last_offset", "record_count", "fetch_correlation_id", "refetches", "status").rows()
    assert found == [(0, 10, 12, 3, 1, 0, "delivered"), (0, 13, 14, 2, 2, 1, "delivered"), (1, 7, 7, 1, 1, 0, "delivered")]
    assert rows["produce_correlation_id"].to_list() == [1, 2, 1]
    assert rows["record_bytes"].to_list() == [len(first), len(second), len(other)]


def test_a_batch_is_there_with_its_last_byte_not_with_the_responses(tmp_path: Path) -> None:
    """The response is of two batches and comes in small segments, 100 microseconds apart."""
    producer = Talk(start=1000 * MS).send(0, produce(1, 9, {0: made(1, 1)})).send(1, produced(1, 9, {0: 0}))
    producer.send(0, produce(2, 9, {0: made(2, 1)})).send(1, produced(2, 9, {0: 1}))
    consumer = Talk(start=1000 * MS, size=100).send(0, fetch(1, 12), wait=100 * MS)
    consumer.send(1, fetched(1, 12, {0: made(1, 1, 0) + made(2, 1, 1)}))
    rows = deliveries_of([producer, consumer], tmp_path)
    at = [(packet.time, len(packet.payload)) for packet in consumer.packets if packet.side == 1 and packet.payload]
    moments = [(time.timestamp() * 1e9 - EPOCH) / 1e6 for time in rows["fetched_at"]]
    assert moments[1] == pytest.approx(at[-1][0] / 1e6, abs=0.01) and moments[0] < moments[1]


@pytest.mark.parametrize(
    ("answer", "acks", "reason"), [(None, 0, "acks_0"), (None, -1, "response_not_captured"), ("error", -1, "produce_failed")], ids=str
)
def test_without_an_offset_a_batch_is_joined_with_nothing(answer: str | None, acks: int, reason: str, tmp_path: Path) -> None:
    producer = Talk(start=1000 * MS).send(0, produce(1, 9, {0: made(1, 1)}, acks))
    if answer:
        producer.send(1, produced(1, 9, {0: 0}, error=6))
    consumer = Talk(start=1000 * MS, size=9000).send(0, fetch(1, 12), wait=100 * MS).send(1, fetched(1, 12, {0: made(1, 1, 4)}))
    rows = deliveries_of([producer, consumer], tmp_path)
    assert rows.select("status", "status_reason").rows() == [
        ("produce_not_captured", "partition_not_produced"),
        ("not_fetched", reason),
    ]


def test_followers_are_no_consumers(tmp_path: Path) -> None:
    producer = Talk(start=1000 * MS).send(0, produce(1, 9, {0: made(1, 1)})).send(1, produced(1, 9, {0: 0}))
    follower = Talk(start=1000 * MS, size=9000).send(0, fetch(1, 12, replica=2), wait=100 * MS).send(1, fetched(1, 12, {0: made(1, 1, 0)}))
    assert deliveries_of([producer, follower], tmp_path).select("status", "status_reason").rows() == [
        ("not_fetched", "partition_not_fetched")
    ]
