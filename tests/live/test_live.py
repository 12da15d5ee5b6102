"""A real broker and three families of clients: what the captures say against what the clients logged and counted."""

from __future__ import annotations

import itertools
import os
import random
import struct
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from client_logs import READERS, Logged, read_logs
from polars.testing import assert_frame_equal
from recording import Recording, record
from sites import NOT_ABOUT_CAPTURES, Site, read_pcap, run_site, write_pcap
from testbed import NotPossibleError, kafka_version
from traffic import LARGE, PARTITIONS, PRODUCERS

pytestmark = pytest.mark.live
FAMILIES = sorted(READERS)
ENDS = ("client", "broker")
GROUP_APIS = ("JoinGroup", "SyncGroup")
ACKS = {"all": -1, "1": 1, "0": 0}
PIECES = 20


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    try:
        return record(tmp_path_factory.mktemp("live") / "recording")
    except NotPossibleError as reason:
        if os.environ.get("BROKERLENS_LIVE") == "required":
            raise
        pytest.skip(f"the live test cannot run here: {reason}")


@pytest.fixture(scope="module")
def sites(recording: Recording) -> dict[str, Site]:
    """What the pipeline makes of the capture at each end."""
    return {end: run_site([capture], [recording.broker], recording.folder / f"stages-{end}") for end, capture in recording.captures.items()}


@pytest.fixture(params=ENDS)
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    if request.param not in sites:
        pytest.skip("network namespaces are forbidden here, and the loopback interface has one end")
    return sites[request.param]


def of(family: str, rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("client_id").str.starts_with(f"{family}-"))


def asked(client_id: str, api_name: str, requests: pl.DataFrame) -> pl.DataFrame:
    return requests.filter((pl.col("client_id") == client_id) & (pl.col("api_name") == api_name))


def identity(request: Logged | dict[str, Any]) -> tuple[Any, ...]:
    told = request if isinstance(request, dict) else vars(request)
    return tuple(told[name] for name in ("client_id", "api_name", "api_version", "correlation_id"))


def paired(logged: list[Logged], requests: pl.DataFrame) -> tuple[list[tuple[Logged, dict[str, Any]]], list[dict[str, Any]]]:
    """Each logged request with its row, and the rows left over.

    A client's connections may repeat an id: of several rows the one nearest in time. The Java client logs a request
    when it queues it: the last ones, which it did not wait for, may never have been written before it closed.
    """
    last_answered = {request.client_id: number for number, request in enumerate(logged) if request.answered}
    left: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in requests.iter_rows(named=True):
        left.setdefault(identity(row), []).append(row)
    pairs = []
    for number, request in enumerate(logged):
        same = left.get(identity(request))
        if not same and number > last_answered.get(request.client_id, -1):
            continue
        assert same, f"logged and not captured: {request}"
        row = min(same, key=lambda row: abs(row["request_first"].timestamp() - request.time))
        same.remove(row)
        pairs.append((request, row))
    return pairs, [row for rows in left.values() for row in rows]


def latest(rows: list[dict[str, Any]], time: str) -> dict[str, Any]:
    """Per connection the latest of these times."""
    return {row["connection_id"]: row[time] for row in sorted(rows, key=lambda row: row[time])}


def test_nothing_was_dropped(recording: Recording) -> None:
    assert recording.dropped() == dict.fromkeys(recording.captures, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_logged_request(recording: Recording, site: Site, family: str) -> None:
    """Each with its api, version, id, size and answer; more than the log has only where a client is closing."""
    logged = read_logs(recording.folder / "logs", family)
    assert len(logged) > 50
    pairs, unlogged = paired(logged, of(family, site.requests))
    told = [(request.request_bytes or row["request_bytes"], request.response_bytes or row["response_bytes"]) for request, row in pairs]
    assert told == [(row["request_bytes"], row["response_bytes"]) for _, row in pairs]
    assert [row for request, row in pairs if request.answered and row["status"] != "answered"] == []

    ends = latest([row for _, row in pairs], "request_first")
    assert [row for row in unlogged if row["connection_id"] not in ends or row["request_first"] < ends[row["connection_id"]]] == []
    ends = latest([row for request, row in pairs if request.answered], "response_last")
    assert [
        row
        for request, row in pairs
        if row["response_last"] and not request.answered and row["response_last"] < ends.get(row["connection_id"], row["response_last"])
    ] == []


def test_no_other_requests(recording: Recording, site: Site) -> None:
    clients = {request.client_id for family in FAMILIES for request in read_logs(recording.folder / "logs", family)}
    assert set(site.requests["client_id"]) == clients
    assert "request_not_captured" not in site.requests["status"]


@pytest.mark.parametrize(
    ("family", "begin", "least", "median"),
    [("librdkafka", "request_last", None, 1), ("kafka-python", "request_first", 0, 10), ("java", "request_first", -1, 50)],
)
def test_round_trips_of_the_clients(recording: Recording, site: Site, family: str, begin: str, least: int | None, median: int) -> None:
    """A client reads its clock before it sends (librdkafka: once all is sent) and when it has come to read the answer."""
    pairs, _ = paired(read_logs(recording.folder / "logs", family), of(family, site.requests))
    excess = np.array(
        [
            request.rtt_ms - (row["response_last"] - row[begin]).total_seconds() * 1e3
            for request, row in pairs
            if request.rtt_ms is not None and row["latency_ms"] is not None
        ]
    )
    assert len(excess) > 50
    assert least is None or excess.min() >= least
    assert -0.2 <= np.median(excess) <= median
    assert np.mean(excess < -1) < 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_records(recording: Recording, site: Site, family: str) -> None:
    """Records as the clients counted them, whether many to a batch, in a batch of many segments, or in a batch cut off by the fetch's limit."""
    requests = of(family, site.requests)
    sent = {client: count for client, count in recording.sent.items() if client.startswith(family)}
    accepted = requests.filter((pl.col("api_name") == "Produce") & ((pl.col("acks") == 0) | (pl.col("error_code") == 0)))
    assert dict(accepted.group_by("client_id").agg(pl.sum("record_count")).iter_rows()) == sent

    got = {client: count for client, count in recording.got.items() if client.startswith(family)}
    if "librdkafka-committed" in got:  # it is given what was aborted and the two ends of transactions too
        got["librdkafka-committed"] = sent["librdkafka-transactions"] + 2
    fetched = requests.filter(pl.col("api_name") == "Fetch").group_by("client_id").agg(pl.sum("record_count"))
    assert {client: count for client, count in fetched.iter_rows() if count} == {client: count for client, count in got.items() if count}


@pytest.mark.parametrize(("family", "codec", "acks"), [(family, *producer) for family in FAMILIES for producer in PRODUCERS[family]])
def test_codec_and_acks(site: Site, family: str, codec: str, acks: str) -> None:
    produced = asked(f"{family}-{codec}-{acks}", "Produce", site.requests)
    told = produced.select(pl.col("codec", "status", "status_reason").cast(pl.String), "acks", "topics").unique()
    expected = ("no_response_expected", "acks_0") if acks == "0" else ("answered", None)
    assert told.rows() == [(codec, *expected, ACKS[acks], [f"{family}-data"])]


def test_large_frames(site: Site) -> None:
    produced = asked("librdkafka-large", "Produce", site.requests)
    assert produced.filter(pl.col("request_bytes") > 800_000).height == LARGE
    fetched = asked("librdkafka-whole", "Fetch", site.requests).filter(pl.col("record_count") > 0)
    assert fetched.height == LARGE and fetched.filter(pl.col("response_bytes") > 1_000_000).height == LARGE - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_transactions(site: Site, family: str) -> None:
    """Kafka 4's Java client leaves it to the broker to add the partitions."""
    requests = of(family, site.requests).filter(pl.col("client_id").str.ends_with("-transactions"))
    # Before its version 4, AddPartitionsToTxn has no error code of its own.
    done = requests.filter((pl.col("status") == "answered") & (pl.col("error_code").fill_null(0) == 0))
    counts = Counter(done["api_name"])
    assert counts["InitProducerId"] == 1
    if family == "java":
        assert counts["EndTxn"] >= 2 and counts["AddPartitionsToTxn"] == 0
    else:
        assert counts["EndTxn"] == (3 if family == "librdkafka" else 2) and counts["AddPartitionsToTxn"] >= 2
    if family == "librdkafka":  # the third one holds a consumer's offsets
        assert counts["AddOffsetsToTxn"] == counts["TxnOffsetCommit"] == 1
    assert done.filter(pl.col("api_name") == "Produce")["acks"].unique().to_list() == [-1]


@pytest.mark.parametrize("family", ["librdkafka", "java"])
def test_rebalance(site: Site, family: str) -> None:
    """The group's first member joins, joins again when the second comes, and again when it leaves; joining waits for the others."""
    first, second = (
        site.requests.filter((pl.col("client_id") == f"{family}-{name}") & (pl.col("error_code") == 0)) for name in ("member1", "member2")
    )
    joined, synced = (Counter(member["api_name"]) for member in (first, second))
    assert joined["JoinGroup"] >= 3 and joined["SyncGroup"] >= 3
    assert synced["JoinGroup"] >= 1 and synced["SyncGroup"] >= 1 and synced["LeaveGroup"] == 1
    assert first["waits_by_design"].to_list() == first["api_name"].cast(pl.String).is_in(["Fetch", *GROUP_APIS]).to_list()
    rebalancing = 27
    assert rebalancing in asked(f"{family}-member1", "Heartbeat", site.requests)["error_code"]


@pytest.mark.parametrize("family", FAMILIES)
def test_long_polls(site: Site, family: str) -> None:
    """A fetch without data takes as long as it may."""
    fetches = of(family, site.requests).filter((pl.col("api_name") == "Fetch") & (pl.col("status") == "answered"))
    assert fetches["waits_by_design"].all()
    in_vain = fetches.filter((pl.col("record_count") == 0) & (pl.col("service_ms") > 400))
    assert in_vain.height >= 1
    assert in_vain["max_wait_ms"].unique().to_list() == [500]
    assert in_vain["service_ms"].is_between(499, 1000).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_names(site: Site, family: str) -> None:
    """Software and topics by name; the Java client sends topic ids in the place of names."""
    software = {
        "librdkafka": f"confluent-kafka-python {version('confluent-kafka')}-rdkafka-",
        "kafka-python": f"kafka-python {version('kafka-python')}",
        "java": f"apache-kafka-java {kafka_version()}",
    }
    requests = of(family, site.requests)
    assert requests["client_software"].is_not_null().all() and requests["client_software"].str.starts_with(software[family]).all()
    named = requests.filter(pl.col("api_name").is_in(["Produce", "Fetch", "Metadata"]))["topics"].drop_nulls()
    used = set(itertools.chain.from_iterable(named))
    made = {f"{owner}-{topic}" for owner in FAMILIES for topic in PARTITIONS}
    assert used <= made | {"__consumer_offsets", "__transaction_state"}
    assert used >= {f"{family}-data", f"{family}-transactions"}
    with_records = requests.filter(pl.col("record_count") > 0)
    assert with_records["topics"].list.len().eq(1).all()
    if family == "java":
        assert with_records["api_version"].min() == 13


def test_connections(site: Site) -> None:
    """All bytes of all connections are frames, from the first on."""
    told = site.connections
    assert told["framing"].unique().to_list() == ["start"]
    assert told["started"].all() and "open" not in told["ended"]
    for what in ("skipped_bytes_to_broker", "skipped_bytes_from_broker", "unseen_bytes_to_broker", "unseen_bytes_from_broker"):
        assert told[what].sum() == 0
    assert told["frames_to_broker"].sum() == site.requests["request_bytes"].count()
    assert told["frames_from_broker"].sum() == site.requests["response_bytes"].count()


def test_new_group_protocol(site: Site) -> None:
    """Its heartbeats are not held back until the group has come together, so they do not wait by design."""
    heartbeats = asked("librdkafka-committed", "ConsumerGroupHeartbeat", site.requests)
    assert heartbeats.height >= 2 and not heartbeats["waits_by_design"].any()
    assert asked("librdkafka-committed", "JoinGroup", site.requests).is_empty()


def test_both_ends(sites: dict[str, Site]) -> None:
    """The same requests at both ends of the cable, by one clock: what the client waits is what the broker takes, and the cable."""
    if len(sites) == 1:
        pytest.skip("network namespaces are forbidden here, and the loopback interface has one end")
    same = [
        "api_name",
        "api_version",
        "client_id",
        "acks",
        "request_bytes",
        "response_bytes",
        "topics",
        "record_count",
        "codec",
        "error_code",
    ]
    client, broker = (sites[end].requests.sort("connection_id", "correlation_id") for end in ENDS)
    assert_frame_equal(
        client.select("connection_id", "correlation_id", *same),
        broker.select("connection_id", "correlation_id", *same),
        categorical_as_str=True,
    )
    assert (client["latency_ms"] >= broker["latency_ms"]).all()


def test_kernel_counters(recording: Recording, sites: dict[str, Site]) -> None:
    """The kernel counts what it sends again, and its resets; nothing is lost on the cable, so nothing fills a hole."""
    if len(sites) == 1:
        pytest.skip("network namespaces are forbidden here, and the counters are those of the whole machine")
    told = sites["client"].connections
    assert told["retransmitted_segments_to_broker"].sum() == recording.kernel["RetransSegs"]
    assert told["resets_to_broker"].sum() == recording.kernel["OutRsts"]
    assert told["filled_segments_to_broker"].sum() == told["filled_segments_from_broker"].sum() == 0


def test_short_snaplen(recording: Recording, sites: dict[str, Site], tmp_path: Path) -> None:
    """30 bytes of each payload give all but the requests that begin behind them, with their sizes and times, and nothing that is wrong."""
    end = next(iter(recording.captures))
    header, records = read_pcap(recording.captures[end])
    cut = [record[:8] + struct.pack("<I", min(96, len(record) - 16)) + record[12 : 16 + 96] for record in records]
    found = run_site([write_pcap(tmp_path / "short.pcap", header, cut)], [recording.broker], tmp_path).requests
    full = sites[end].requests
    key = ["connection_id", "correlation_id"]
    found, full = (requests.with_columns(pl.col(pl.Categorical).cast(pl.String)) for requests in (found, full))
    both = found.join(full, on=key, suffix="_full", validate="1:1")
    assert both.height == found.height >= 0.97 * full.height
    begun = both.filter(pl.col("status") != "request_not_captured")
    assert begun.height >= 0.97 * full.height
    certain = [
        "api_name",
        "api_version",
        "request_bytes",
        "request_first",
        "request_last",
        "response_bytes",
        "response_first",
        "response_last",
    ]
    assert_frame_equal(begun.select(certain), begun.select(pl.col(f"{column}_full").alias(column) for column in certain))
    for column in ("client_id", "acks", "record_count", "codec", "error_code"):
        known = both.filter(pl.col(column).is_not_null())
        assert known[column].to_list() == known[f"{column}_full"].to_list()


def test_rotated(recording: Recording, sites: dict[str, Site], tmp_path: Path) -> None:
    """The capture in pieces cut at any packet gives the same rows."""
    end = next(iter(recording.captures))
    header, records = read_pcap(recording.captures[end])
    cuts = [0, *sorted(random.Random(1).sample(range(1, len(records)), PIECES - 1)), len(records)]
    pieces = [write_pcap(tmp_path / f"{n:02}.pcap", header, records[a:b]) for n, (a, b) in enumerate(itertools.pairwise(cuts))]
    found = run_site(pieces, [recording.broker], tmp_path)
    assert_frame_equal(found.requests, sites[end].requests)
    assert_frame_equal(found.connections, sites[end].connections)
    assert_frame_equal(*(site.metrics.filter(NOT_ABOUT_CAPTURES) for site in (found, sites[end])))
