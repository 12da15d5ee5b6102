"""A shard of a site followed in parts: the same rows in the same order, and nothing left where a merge ends halfway."""

from __future__ import annotations

import base64
import ipaddress
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from kafka_conversations import converse
from kafka_messages import request, response, string
from kafka_sites import BROKER, PORT, capture_of
from kafka_streams import ACK, SYN, Packet

import merge_site
from brokerlens.pseudonyms import Pseudonyms, read_secret
from split_capture import split_capture

OUTPUTS = ("packets", "connections", "requests", "topics", "notebook")


def split(capture: Path, folder: Path, broker: str = f"{BROKER}:{PORT}") -> str:
    """The working folder of a capture."""
    split_capture(capture=str(capture), name=capture.name, brokers=[broker], output=str(folder), threads=1)
    return str(folder)


def merged(working: str, folder: Path, broker: str = f"{BROKER}:{PORT}", **site: Any) -> dict[str, pl.DataFrame]:
    """What the merge of one capture leaves, by output."""
    paths = {name: str(folder / name / "part-0000.parquet") for name in OUTPUTS}
    merge_site.merge_site(captures=[working], part=0, site={"brokers": [broker], "tap": "auto", "shards": 1, **site}, **paths)
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


NAMES = {
    "client": (b"acme-client", b'acme "><script>alert(1)</script>', b"acme" * 60),
    "topic": (b"acme.rezepte", b"acme'\x1b[31m\r", b"acme" * 60),
}
ENDS = "2001:db8:acce::5", "2001:db8:acce::10"


def talk() -> list[Packet]:
    """A connection per client id: ApiVersions by software of one's own, then a Metadata answer that names cluster, hosts and topics."""
    brokers = (
        b"\2" + struct.pack(">i", 1) + string(b"broker-1.acme.example", True) + struct.pack(">i", PORT) + string(b"acme-rack", True) + b"\0"
    )
    topics = b"".join(
        struct.pack(">h", 0) + string(topic, True) + bytes([number]) * 16 + b"\0" + b"\1" + bytes(4) + b"\0"
        for number, topic in enumerate(NAMES["topic"], 1)
    )
    metadata = bytes(4) + brokers + string(b"acme-cluster", True) + bytes(4) + bytes([len(NAMES["topic"]) + 1]) + topics + b"\0"
    packets = []
    for connection, client in enumerate(NAMES["client"]):
        frames = (
            (0, request(18, 3, 1, client, string(b"acme-agent", True) + string(b"7.1", True) + b"\0", True)),
            (1, response(1, bytes(2) + b"\1" + bytes(4) + b"\0", False)),
            (0, request(3, 12, 2, client, b"\0" + b"\0" + b"\0" + b"\0", True)),
            (1, response(2, metadata, True)),
        )
        packets += [Packet(0, 0, 0, 99, flags=SYN, connection=connection), Packet(1, 1_000, 1, 199, flags=SYN | ACK, connection=connection)]
        seq, time = [100, 200], 2_000
        for side, frame in frames:
            for begin in range(0, len(frame), 1400):
                packets.append(Packet(len(packets), time, side, seq[side], frame[begin : begin + 1400], connection=connection))
                seq[side] += len(frame[begin : begin + 1400])
                time += 1_000_000
    return packets


def test_hidden_names_are_in_no_output_and_change_nothing_else(tmp_path: Path) -> None:
    broker = f"[{ENDS[1]}]:{PORT}"
    working = split(capture_of(talk(), tmp_path / "acme.pcap", ends=ENDS), tmp_path / "working", broker)
    named = merged(working, tmp_path / "named", broker)
    secret = tmp_path / "secret"
    hide = Pseudonyms(read_secret(secret))
    hidden = merged(working, tmp_path / "hidden", broker, names={"secret_file": str(secret), "digest": hide.digest})
    topic_ids = [base64.urlsafe_b64encode(bytes([number]) * 16).decode().rstrip("=") for number in range(1, len(NAMES["topic"]) + 1)]
    sought = ["acme", "2001:db8", "acce", "alert", "\x1b", *topic_ids]

    for name in OUTPUTS:
        said = str(named[name].rows()), str(hidden[name].rows())
        assert any(word in said[0] for word in sought) or name == "notebook"
        assert not [word for word in sought if word in said[1]], name
        numbers = [table.select(pl.exclude(pl.String, pl.List, pl.Struct)) for table in (named[name], hidden[name])]
        assert numbers[0].equals(numbers[1]), name
        for file in (tmp_path / "hidden" / name).iterdir():
            assert b"acme" not in file.read_bytes()
            assert b"2001:db8" not in file.read_bytes()

    clients = [hide.name("client", client.decode("utf-8", "backslashreplace")) for client in NAMES["client"]]
    assert sorted(hidden["connections"]["client_id"]) == sorted(clients)
    assert hidden["connections"]["client_software"].unique().to_list() == [f"{hide.name('software', 'acme-agent')} 7.1"]
    assert hidden["topics"]["cluster_id"].unique().to_list() == [hide.name("cluster", "acme-cluster")]
    assert set(hidden["topics"]["topic_id"]) == {hide.name("topic-id", one) for one in topic_ids}
    first, second = (ipaddress.IPv6Address(hidden["connections"][end][0]) for end in ("client_ip", "broker_ip"))
    assert (int(first) ^ int(second)).bit_length() == (0x5 ^ 0x10).bit_length()
    assert hidden["connections"]["client_port"].equals(named["connections"]["client_port"])
