"""A shard of a site followed in parts: the same rows in the same order, and nothing left where a merge ends halfway."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from kafka_conversations import converse
from kafka_messages import request, response
from kafka_sites import BROKER, PORT, capture_of
from kafka_streams import ACK, SYN, Packet

import merge_site
from split_capture import split_capture

OUTPUTS = ("packets", "connections", "requests", "topics", "notebook")


def split(capture: Path, folder: Path) -> str:
    """The working folder of a capture."""
    split_capture(capture=str(capture), name=capture.name, brokers=[f"{BROKER}:{PORT}"], output=str(folder), threads=1)
    return str(folder)


def merged(working: str, folder: Path) -> dict[str, pl.DataFrame]:
    """What the merge of one capture leaves, by output."""
    paths = {name: str(folder / name / "part-0000.parquet") for name in OUTPUTS}
    merge_site.merge_site(captures=[working], part=0, site={"brokers": [f"{BROKER}:{PORT}"], "tap": "auto", "shards": 1}, **paths)
    return {name: pl.read_parquet(path).with_columns(pl.col(pl.Categorical).cast(pl.String)) for name, path in paths.items()}


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten conversations by a clock of 10 ms, so that many packets and several connections begin at one time."""
    folder = tmp_path_factory.mktemp("merge")
    packets = [
        replace(packet, connection=seed, time=packet.time // 10_000_000 * 10_000_000)
        for seed in range(10)
        for packet in converse(seed).packets
    ]
    random.Random(0).shuffle(packets)
    return split(capture_of(packets, folder / "talk.pcap"), folder / "working")


def test_parts_change_no_row_and_no_order(working: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = merged(working, tmp_path / "whole")
    monkeypatch.setattr(merge_site, "PART_PACKETS", 50)
    monkeypatch.setattr(merge_site, "PART_REQUESTS", 7)
    parts = merged(working, tmp_path / "parts")
    assert whole["connections"].n_unique("first_seen") < whole["connections"].height == 10
    for name in OUTPUTS:
        assert parts[name].equals(whole[name]), name


def test_one_request_alone_has_the_latency_that_it_has_among_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit: the number of shards and parts changes no figure."""
    ask, reply = request(12, 4, 7, b"me", bytes(9), True), response(7, bytes(7), True)
    packets = [
        packet
        for connection in range(20)
        for packet in (
            Packet(0, 0, 0, 99, flags=SYN, connection=connection),
            Packet(1, 1_000, 1, 199, flags=SYN | ACK, connection=connection),
            Packet(2, 2_000, 0, 100, ask, connection=connection),
            Packet(3, 29_823_000 + 7_000 * connection, 1, 200, reply, connection=connection),
        )
    ]
    working = split(capture_of(packets, tmp_path / "talk.pcap"), tmp_path / "working")
    whole = merged(working, tmp_path / "whole")
    monkeypatch.setattr(merge_site, "PART_PACKETS", 1)
    assert merged(working, tmp_path / "parts")["requests"].equals(whole["requests"])
    assert whole["requests"]["latency_ms"].to_list() == pytest.approx([29.821 + 0.007 * connection for connection in range(20)])
