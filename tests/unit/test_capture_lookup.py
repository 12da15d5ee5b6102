"""Connections and endpoints: the tables against dictionaries."""

from __future__ import annotations

import ipaddress
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerlens.capture.columns import new_columns
from brokerlens.capture.lookup import (
    ENDPOINT_SLOTS,
    FIRST_SLOTS,
    WORDS,
    ConnectionTable,
    address,
    broker_table,
    busiest,
    count_endpoint,
    is_broker,
    new_endpoints,
    parse_endpoint,
    signed,
)
from brokerlens.errors import UserError


def bucket_of(words: list[int]) -> int:
    """The bucket as documented: a hash of the five words by their 32-bit halves, low half first."""
    value = 0x811C9DC5
    for word in words:
        for half in (word % 2**32, (word >> 32) % 2**32):
            value = (value ^ half) * 0x01000193 % 2**32
            value ^= value >> 15
    value = value * 0x2C1B3C6D % 2**32
    value ^= value >> 13
    value = value * 0x297A2D39 % 2**32
    return (value ^ value >> 15) % 1024


ends_of = st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1), st.integers(0, 2**32 - 1))


@settings(max_examples=100, deadline=None)
@given(st.lists(ends_of, min_size=1, max_size=20), st.lists(st.integers(0, 19), max_size=200), st.integers(0, 200))
def test_connections_are_numbered_as_they_appear(pool: list[tuple[int, int, int]], choices: list[int], cut: int) -> None:
    packets = [pool[choice % len(pool)] for choice in choices]
    words = [[signed(a >> 64), signed(a % 2**64), signed(b >> 64), signed(b % 2**64), ports] for a, b, ports in packets]
    ends = np.array(words, np.int64).reshape(-1, WORDS)
    columns = new_columns(len(packets))
    columns.from_broker[:] = [n % 3 == 0 for n in range(len(packets))]
    directions = np.zeros(len(packets), np.int64)
    table = ConnectionTable()
    cut = min(cut, len(packets))
    table.find(ends[:cut], cut, columns, 0, directions)
    rest = np.zeros(len(packets), np.int64)
    table.find(ends[cut:], len(packets) - cut, columns, cut, rest)
    numbers = {key: number for number, key in enumerate(dict.fromkeys(packets))}
    assert columns.connection.tolist() == [numbers[packet] for packet in packets]
    assert columns.bucket.tolist() == [bucket_of(row) for row in words]
    assert [*directions[:cut], *rest[: len(packets) - cut]] == [2 * numbers[packet] + (n % 3 == 0) for n, packet in enumerate(packets)]
    mapped = [(0xFFFF << 32 | a % 2**32 if a >> 32 == 0xFFFF else a) for a, _, _ in numbers]
    assert [ipaddress.ip_address(row[0]).packed[-4:] for row in table.rows()] == [(a % 2**32).to_bytes(4) for a in mapped]
    assert [(row[1], row[3]) for row in table.rows()] == [(ports >> 16, ports & 0xFFFF) for _, _, ports in numbers]


def test_the_table_grows() -> None:
    count = 5 * FIRST_SLOTS
    ends = np.zeros((count, WORDS), np.int64)
    ends[:, 1], ends[:, 4] = np.arange(count) // 7, np.arange(count) % 7
    columns, table = new_columns(count), ConnectionTable()
    for _ in range(2):
        table.find(ends, count, columns, 0, np.zeros(count, np.int64))
        assert columns.connection.tolist() == list(range(count))
    buckets = np.bincount(columns.bucket, minlength=1024)
    assert buckets.min() > 3 and buckets.max() < 60, "a hash that spreads"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, -1]), st.integers(0, 3), st.integers(1, 3)), max_size=60))
def test_the_busiest_endpoints_come_first(packets: list[tuple[int, int, int]]) -> None:
    endpoints = new_endpoints()
    for high, low, port in packets:
        count_endpoint(endpoints, high, low, port)
    shown = busiest(endpoints)
    counts = Counter(f"[{address(high, low)}]:{port}" for high, low, port in packets)
    assert shown == sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:10]


def test_the_table_of_endpoints_is_bounded() -> None:
    endpoints = new_endpoints()
    for number in range(2 * ENDPOINT_SLOTS):
        count_endpoint(endpoints, 0, 0xFFFF << 32 | 7, 443)
        count_endpoint(endpoints, 0, number, 1)
    assert busiest(endpoints)[0] == ("0.0.0.7:443", 2 * ENDPOINT_SLOTS)
    assert int(endpoints.used[0]) == ENDPOINT_SLOTS // 4 * 3


def test_brokers() -> None:
    brokers = broker_table(["192.0.2.10:9092", "[2001:db8::10]:9093"])
    assert is_broker(brokers, *parse_endpoint("[2001:0db8:0::10]:9093")) == 2
    assert is_broker(brokers, *parse_endpoint("192.0.2.10:9092")) == 1
    assert is_broker(brokers, *parse_endpoint("192.0.2.10:9093")) == 0
    for bad in (
        "192.0.2.10",
        "192.0.2.10:0",
        "192.0.2.10:65536",
        "2001:db8::10:9092",
        "[192.0.2.10]:9092",
        "broker:9092",
        ":9092",
        "192.0.2.10:٣",
    ):
        with pytest.raises(UserError, match="expected ip:port"):
            parse_endpoint(bad)
