from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compute_metrics as script
from brokerlens import tables
from brokerlens.metrics.rows import quantile, quantiles_by_group
from brokerlens.metrics.window import Window, series_bins

SECOND = 1_000_000_000
MS = 1_000_000
T0 = 1_766_769_260 * SECOND
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "metrics.md"
CLIENT, BROKER = ("192.0.2.5", 40_000), ("192.0.2.10", 31_289)
CONNECTION = "192.0.2.5:40000-192.0.2.10:31289#1"
DEFAULTS: dict[str, Any] = {
    "tcp_flags": 0x18,
    "seq": 1,
    "window_size": 500,
    "payload_len": 0,
    "actual_msg_count": 0,
    "is_retransmission": False,
    "is_duplicate": False,
    "acked_bytes": 0,
    "unseen_bytes": 0,
    "zero_window_begins": False,
    "segment_evidence": 0,
    "new_bytes": 0,
    "capture": "a.pcap",
    "frame_number": 1,
    "wire_len": 66,
    "captured_len": 66,
    "ttl": 64,
}


def packet(
    time: int, *, from_broker: bool = False, client: tuple[str, int] = CLIENT, broker: tuple[str, int] = BROKER, **values: Any
) -> dict[str, Any]:
    source, target = (broker, client) if from_broker else (client, broker)
    return DEFAULTS | {
        "timestamp": time,
        "src_ip": source[0],
        "src_port": source[1],
        "dst_ip": target[0],
        "dst_port": target[1],
        "connection_id": f"{client[0]}:{client[1]}-{broker[0]}:{broker[1]}#1",
        "from_broker": from_broker,
        "padded_len": values.get("payload_len", 0),
        "notebook_id": 0,
        **values,
    }


def request(began: int | None, latency_ms: float | None = 10.0, **values: Any) -> dict[str, Any]:
    first = None if began is None or latency_ms is None else began + int(latency_ms * MS)
    api = values.get("api_name", "Produce")
    return {
        "connection_id": CONNECTION,
        "client_ip": CLIENT[0],
        "client_port": CLIENT[1],
        "broker_ip": BROKER[0],
        "broker_port": BROKER[1],
        "client_id": "sensors",
        "api_name": api,
        "correlation_id": 1,
        "status": "answered",
        "request_first": began,
        "request_last": began,
        "response_first": first,
        "response_last": first,
        "latency_ms": latency_ms,
        "waits_by_design": api == "Fetch",
        "topics": [],
        "retransmitted": False,
        **values,
    }


def connection(**values: Any) -> dict[str, Any]:
    counters = {f"{name}_{way}": 0 for way in ("to_broker", "from_broker") for name, *_ in tables.DIRECTION_COLUMNS}
    trips = {f"rtt_{side}_n": 0 for side in ("broker", "client")}
    return {
        "connection_id": CONNECTION,
        "client_ip": CLIENT[0],
        "client_port": CLIENT[1],
        "broker_ip": BROKER[0],
        "broker_port": BROKER[1],
        "first_seen": T0,
        "last_seen": T0,
        "started": True,
        "setup": "complete",
        "ended": "open",
        "tap": "client",
        "framing": "start",
        "encrypted": False,
        "sasl": False,
        **dict.fromkeys((name for name, *_ in tables.FRAME_ODDITIES), 0),
        **counters,
        **trips,
        **values,
    }


def write_rows(rows: list[dict[str, Any]], path: Path, dataset: str) -> Path:
    def column(name: str, type_: pa.DataType) -> pa.Array:
        values = [row.get(name) for row in rows]
        if pa.types.is_timestamp(type_):
            return pa.array(values, pa.int64()).cast(type_)
        return pa.array(values, type_)

    schema = tables.schema(dataset)
    tables.write(pa.table({field.name: column(field.name, field.type) for field in schema}), path, dataset, {})
    return path


def write_notebook(rows: list[dict[str, Any]], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"timestamp": pa.int64(), "padded_len": pa.uint32(), "notebook_id": pa.uint32()}
    pq.write_table(pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in columns.items()}), path)
    return path


class Site:
    """A site's data sets in a folder, and what compute_metrics makes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def measure(
        self,
        packets: list[dict[str, Any]],
        requests: list[dict[str, Any]] | None = None,
        connections: list[dict[str, Any]] | None = None,
        *,
        window: tuple[int | None, int | None] = (None, None),
        parts: int = 1,
        tap: str = "auto",
    ) -> None:
        of_site = "experiment=e/site=s"
        known = {row["connection_id"] for row in packets}
        shards: dict[str, int] = {name: i % parts for i, name in enumerate(sorted(known))}
        connections = connections if connections is not None else [connection(connection_id=name) for name in sorted(known)]
        paths: dict[str, list[Path]] = {"packets": [], "requests": [], "connections": [], "notebook": []}
        for part in range(parts):
            name = f"part-{part:04d}.parquet"
            mine = sorted((row for row in packets if shards[row["connection_id"]] == part), key=lambda row: row["timestamp"])
            paths["packets"].append(write_rows(mine, self.folder / "packets" / of_site / name, "packets"))
            paths["notebook"].append(write_notebook(mine, self.folder / "intermediate/merged/e/s" / name))
            for dataset, rows in (("requests", requests or []), ("connections", connections)):
                chosen = [row for row in rows if shards.get(row["connection_id"], 0) == part]
                paths[dataset].append(write_rows(chosen, self.folder / dataset / of_site / name, dataset))
        self.metrics_path, self.series_path = self.folder / "metrics.parquet", self.folder / "series.parquet"
        script.compute_metrics(
            packets=paths["packets"],
            requests=paths["requests"],
            connections=paths["connections"],
            notebook=paths["notebook"],
            measure={
                "window": {"start": window[0], "end": window[1]},
                "brokers": [f"{BROKER[0]}:{BROKER[1]}"],
                "tap": tap,
                "share_over_ms": 200.0,
            },
            metrics=self.metrics_path,
            series=self.series_path,
        )
        self.metrics = pl.read_parquet(self.metrics_path)
        self.series = pl.read_parquet(self.series_path)

    def row(self, metric: str, group: str, statistic: str) -> dict[str, Any]:
        found = self.metrics.filter(pl.col("metric") == metric, pl.col("group") == group, pl.col("statistic") == statistic)
        assert len(found) == 1, (metric, group, statistic, len(found))
        return found.row(0, named=True)

    def value(self, metric: str, group: str = "all", statistic: str = "count") -> float | None:
        value: float | None = self.row(metric, group, statistic)["value"]
        return value

    def course(self, metric: str, group: str, statistic: str) -> list[float | None]:
        found = self.series.filter(pl.col("metric") == metric, pl.col("group") == group, pl.col("statistic") == statistic)
        return found["value"].to_list()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_both_ends_of_the_window_belong_to_it(site: Site) -> None:
    packets = [packet(T0 + ms * MS, segment="new", payload_len=10) for ms in (0, 1, 2, 3, 4)]
    requests = [request(T0 + ms * MS, 30.0) for ms in (0, 1, 3, 4)]
    site.measure(packets, requests, window=(T0 + 1 * MS, T0 + 3 * MS))
    assert site.value("packets") == 3
    assert site.value("requests") == 2
    assert site.value("kafka_latency") == 2, "answered after the window's end, but begun inside"
    site.measure(packets, requests, window=(T0 + 1 * MS + 1, T0 + 3 * MS - 1))
    assert site.value("packets") == 1
    assert site.value("requests") is None


def test_a_round_trip_counts_where_it_ends(site: Site) -> None:
    packets = [packet(T0), packet(T0 + 10 * MS, from_broker=True, rtt_ms=10.0), packet(T0 + 12 * MS, rtt_ms=2.0)]
    site.measure(packets, window=(T0 + 5 * MS, None))
    assert site.value("rtt", "half=to_broker", "p50") == 10.0
    assert site.value("rtt", "half=to_client", "p50") == 2.0


def test_copies_made_by_the_capture_count_only_for_the_notebook(site: Site) -> None:
    one: dict[str, Any] = {"segment": "new", "payload_len": 100, "tcp_flags": 0x1C, "rtt_ms": 5.0, "acked_bytes": 7}
    copy = one | {"is_duplicate": True, "zero_window_begins": True}
    site.measure([packet(T0, **one), packet(T0 + 10, **copy), packet(T0 + SECOND, **one)])
    assert site.value("packets") == 2
    assert site.value("resets") == 2
    assert site.value("zero_windows") == 0
    assert site.row("rtt", "half=to_client", "p50")["n"] == 2
    assert site.value("notebook_resets") == 3
    assert site.value("notebook_retransmissions") == 2, "the notebook took every copy for a retransmission"


def test_retransmissions_by_place_and_direction(site: Site) -> None:
    labels = ["new"] * 6 + ["retransmitted", "filled", "filled", "reordered", "keepalive", "window_probe", None]
    site.measure([packet(T0 + i * MS, from_broker=label == "filled", segment=label, payload_len=10) for i, label in enumerate(labels)])
    assert site.value("retransmissions") == 3
    assert site.row("retransmissions", "all", "ratio_of_sums") | {"ci_low": None, "ci_high": None} == {
        "metric": "retransmissions",
        "group": "all",
        "statistic": "ratio_of_sums",
        "value": 3 / 10,  # keep-alives and window probes are no data segments
        "unit": "share",
        "n": 10,
        "ci_low": None,
        "ci_high": None,
    }
    assert site.value("retransmissions", "place=before_tap") == 2
    assert site.value("retransmissions", "place=behind_tap") == 1
    assert site.value("retransmissions", "direction=from_broker") == 2
    assert site.value("keepalives") == 1
    assert site.value("window_probes") == 1


def test_retransmissions_by_kind_and_those_that_were_not_needed(site: Site) -> None:
    again: dict[str, Any] = {"segment": "retransmitted", "payload_len": 9}
    site.measure([
        *[packet(T0 + k * MS, segment="new", payload_len=9, new_bytes=9) for k in range(5)],
        packet(T0 + 6 * MS, **again, retransmission_kind="fast", segment_evidence=1), packet(T0 + 7 * MS, **again, retransmission_kind="tail_probe", segment_evidence=8 | 32),
        packet(T0 + 8 * MS, **again, retransmission_kind="tail_probe", segment_evidence=16 | 32), packet(T0 + 9 * MS, segment="ambiguous", payload_len=9, segment_evidence=16),
    ])  # fmt: skip
    kinds = {kind: site.value("retransmissions", f"kind={kind}") for kind in ("fast", "timeout", "tail_probe", "rack", "unknown")}
    assert kinds == {"fast": 1, "timeout": 0, "tail_probe": 2, "rack": 0, "unknown": 0}
    assert sum(number or 0 for number in kinds.values()) == site.value("retransmissions")
    spurious = {name: site.value("retransmissions", f"spurious={name}") for name in ("any", "ack", "dsack", "eifel")}
    assert spurious == {"any": 2, "ack": 1, "dsack": 2, "eifel": 0}
    assert site.value("retransmissions", "kind=tail_probe", "ratio_of_sums") == 2 / 9
    assert site.value("goodput_captured", "direction=to_broker", "mean") == 45


def test_reordering_copies_and_bytes_in_flight(site: Site) -> None:
    packets = [
        packet(T0, segment="new", payload_len=9, in_flight=9),
        packet(T0 + MS, segment="new", payload_len=9, in_flight=18, segment_evidence=1 << 15),
        packet(T0 + 2 * MS, segment="reordered", payload_len=9, in_flight=5, late_ms=1.5, late_segments=3),
        packet(T0 + 3 * MS, segment="filled", payload_len=9, late_ms=9.0, late_segments=8),
        packet(T0 + 4 * MS, from_broker=True, segment="new", payload_len=9, in_flight=100),
        packet(T0 + 4 * MS, from_broker=True, is_duplicate=True, duplicate_kind="capture", duplicate_gap_ms=0.02),
        packet(T0 + 5 * MS, from_broker=True, is_duplicate=True, duplicate_kind="network", duplicate_gap_ms=700.0),
    ]
    site.measure(packets, tap="client")
    assert site.value("reordering_extent", "direction=to_broker", "max") == 3
    assert site.value("reordering_delay", "direction=to_broker", "p50") == 1.5
    assert site.value("in_flight", "direction=to_broker", "max") == 18
    assert site.value("in_flight", "direction=from_broker", "max") is None  # acknowledgements of the far sender's data are still under way
    assert [site.value("duplicates", group) for group in ("all", "kind=capture", "kind=network", "kind=pattern")] == [2, 1, 1, 0]
    assert site.value("duplicate_gap", "all", "max") == 0.02
    assert site.value("large_segments", "direction=to_broker") == 1


def test_each_capture_has_its_loss_and_the_best_of_many_are_together(site: Site) -> None:
    packets = [packet(T0 + k * MS, acked_bytes=100, unseen_bytes=k, capture=f"{k:02}.pcap") for k in range(25)]
    site.measure(packets)
    groups = site.metrics.filter(pl.col("metric") == "capture_loss", pl.col("group").cast(pl.String).str.starts_with("capture="))
    assert groups.height == 21
    assert site.value("capture_loss", "capture=24.pcap", "ratio_of_sums") == 0.24
    assert site.row("capture_loss", "capture=other", "ratio_of_sums")["n"] == 500
    assert site.value("capture_loss", "capture=other", "ratio_of_sums") == (0 + 1 + 2 + 3 + 4) / 500


def test_set_up_and_ends_of_connections(site: Site) -> None:
    names = [f"192.0.2.5:{40_000 + k}-192.0.2.10:31289#1" for k in range(6)]
    packets = [packet(T0 + k * MS, client=("192.0.2.5", 40_000 + k)) for k in range(6)] + [packet(T0 + 10 * SECOND)]
    seen = {"last_seen": T0 + SECOND}
    connections = [
        connection(
            connection_id=names[0],
            connect_ms=40.0,
            isn_client=7,
            isn_broker=9,
            first_seen=T0,
            closed_by="broker",
            zero_window_ms_to_broker=30.5,
            duplicate_acks_to_broker=4,
            dsacks_from_broker=2,
        ),
        connection(
            connection_id=names[1],
            connect_ms=42.0,
            isn_client=7,
            isn_broker=9,
            first_seen=T0 + MS,
            syn_retry_ms=1.5,
            zero_window_ms_from_broker=50.0,
            window_limited_ms_from_broker=7.0,
            duplicate_acks_from_broker=1,
        ),
        connection(connection_id=names[2], setup="no_answer", **seen),
        connection(connection_id=names[3], setup="no_answer", last_seen=T0 + 9 * SECOND),
        connection(
            connection_id=names[4], setup="refused", ended="reset", reset_by="broker", reset_kind="refused", last_seen=T0 + 9 * SECOND
        ),
        connection(
            connection_id=names[5],
            closed_by="client",
            reset_by="client",
            reset_kind="after_fin",
            ended="fin",
            isn_client=7,
            isn_broker=9,
            first_seen=T0 + SECOND,
        ),
    ]
    site.measure(packets, connections=connections)
    failed = {kind: site.value("connections_failed", f"kind={kind}") for kind in ("refused", "no_answer", "half_open")}
    assert failed == {"refused": 1, "no_answer": 1, "half_open": 0}  # to the other the captures left less than 3 s
    assert (site.value("connect_time", "all", "min"), site.value("connect_time", "all", "max")) == (40.0, 42.0)
    assert site.value("nat_twins") == 1
    assert (site.value("syn_retries"), site.row("syn_retries", "all", "count")["n"]) == (1, 6)
    assert [site.value("connections_closed", group) for group in ("all", "by=client", "by=broker")] == [2, 1, 1]
    assert [site.value("zero_window_time", group, "sum") for group in ("all", "direction=to_broker")] == [80.5, 30.5]
    assert site.value("window_limited_time", "direction=from_broker", "sum") == 7
    assert [site.value(name) for name in ("duplicate_acks", "dsacks")] == [5, 2]
    assert [site.value("connections_reset", group) for group in ("all", "kind=refused", "kind=after_fin")] == [1, 1, 1]


def test_delayed_acknowledgements_and_timestamps_beside_the_round_trips(site: Site) -> None:
    """A round trip far above the smallest is suspect where few bytes were acknowledged, not where two full segments were."""
    answers = [(40, 40.0, 100), (100, 85.0, 100), (200, 85.0, 2 * 1460), (300, 85.0, 0)]
    packets = [packet(T0 + ms * MS, from_broker=True, rtt_ms=rtt, acked_bytes=acked) for ms, rtt, acked in answers]
    packets += [
        packet(T0 + 400 * MS, segment="new", payload_len=9, tsval=7, tsecr=1),
        packet(T0 + 401 * MS, segment="new", payload_len=9, tsval=7, tsecr=1),
        packet(T0 + 450 * MS, from_broker=True, tcp_flags=16, tsval=3, tsecr=7),
        packet(T0 + 500 * MS, segment="retransmitted", payload_len=9, tsval=9, tsecr=3),
        packet(T0 + 520 * MS, from_broker=True, tcp_flags=16, tsval=5, tsecr=9),
    ]
    site.measure(packets)
    assert site.value("rtt", "half=to_broker") == 4
    assert site.value("rtt_prompt", "half=to_broker") == 3
    assert (site.value("rtt_timestamps", "half=to_broker"), site.value("rtt_timestamps", "half=to_broker", "p50")) == (1, 50.0)
    site.measure(packets, window=(T0 + 420 * MS, None))
    assert site.value("rtt_timestamps", "half=to_broker", "p50") == 50.0  # it ended inside
    site.measure(packets, window=(None, T0 + 440 * MS))
    assert site.value("rtt_timestamps", "half=to_broker") is None


def test_acknowledged_bytes_belong_to_the_direction_of_the_data(site: Site) -> None:
    site.measure([packet(T0, from_broker=True, acked_bytes=900, unseen_bytes=90), packet(T0 + 1, acked_bytes=100)])
    assert site.value("goodput", "direction=to_broker", "mean") == 900
    assert site.value("goodput", "direction=from_broker", "mean") == 100
    assert site.value("capture_loss", "direction=to_broker", "ratio_of_sums") == 0.1
    assert site.value("capture_loss", "all", "ratio_of_sums") == 0.09


def test_connections_count_with_a_packet_inside(site: Site) -> None:
    others = [("192.0.2.6", port) for port in range(1, 6)]
    packets = [packet(T0 + i * SECOND, client=client) for i, client in enumerate(others)]
    rows = [
        connection(connection_id=row["connection_id"], ended="reset" if i < 3 else "fin", reset_by="broker" if i < 3 else None)
        for i, row in enumerate(packets)
    ]
    site.measure(packets, connections=rows, window=(T0 + SECOND, None), parts=2)
    assert site.value("connections") == 4
    assert site.value("connections_reset") == 2
    assert site.value("connections_reset", "by=broker") == 2
    assert site.value("connections_reset", "by=client") == 0
    assert site.value("connections_reset", "all", "ratio_of_sums") == 0.5


def test_latency_leaves_out_what_waits_by_design(site: Site) -> None:
    requests = [
        request(T0, 10.0),
        request(T0, 300.0, api_name="Metadata", client_id=None),
        request(T0, 500.0, api_name="Fetch", record_count=0, record_bytes=0),
        request(T0, 40.0, api_name="Fetch", record_count=3, record_bytes=90),
        request(T0, 20.0, api_name="Fetch"),  # its body was not captured
        request(T0, None, status="unanswered"),
        request(None, None, status="request_not_captured", api_name=None, response_first=T0, client_id=None),
        request(T0, None, status="no_response_expected"),
    ]
    site.measure([packet(T0)], requests)
    assert site.value("kafka_latency") == 2
    assert site.value("kafka_latency", "all", "mean") == 155.0
    assert site.value("kafka_latency", "all", "share_over") == 0.5
    assert site.value("kafka_latency", "api=Fetch") == 3
    assert site.value("kafka_latency", "api=Fetch/with_data", "p50") == 40.0
    assert site.value("kafka_latency", "api=Fetch/empty", "max") == 500.0
    assert site.value("kafka_latency", "waits_by_design=true") == 3
    assert site.value("kafka_latency", "client=sensors") == 1
    assert site.value("kafka_latency", "client=other") == 1
    assert site.value("requests") == 8
    assert site.value("requests", "status=unanswered") == 1
    assert site.value("requests", "status=request_not_captured") == 1
    assert site.value("records", "api=Fetch", "sum") == 3


def test_errors_and_throttling_belong_to_their_client(site: Site) -> None:
    requests = [
        request(T0, error_code=0, throttle_ms=0),
        request(T0, error_code=7, throttle_ms=0),
        request(T0, error_code=0, throttle_ms=120, client_id="control"),
        request(T0, client_id="control"),  # its answer's body was not captured
    ]
    site.measure([packet(T0)], requests)
    assert site.value("request_errors", "client=sensors") == 1
    assert site.value("request_errors", "client=control") == 0
    assert site.value("throttle", "client=sensors") == 0
    assert site.value("throttle", "client=control", "max") == 120


def test_the_twenty_busiest_topics_and_the_rest(site: Site) -> None:
    requests = [request(T0, topics=["all", f"t{i:02d}"]) for i in range(22)] + [request(T0, topics=["t21"])]
    site.measure([packet(T0)], requests)
    assert site.value("requests", "topic=all") == 22
    assert site.value("requests", "topic=t21") == 2, "the second busiest, though last by name"
    topics = site.metrics.filter(pl.col("metric") == "requests", pl.col("group").cast(pl.String).str.starts_with("topic="))
    assert len(topics) == 21
    assert site.value("requests", "topic=other") == 3, "t18, t19 and t20"


def test_parts_of_the_latency_add_up(site: Site) -> None:
    site.measure([packet(T0)], [request(T0, 100.0, queue_ms=20.0, service_ms=80.0, broker_ms=30.0, total_ms=120.0)])
    assert [site.value(f"kafka_{part}", "all", "mean") for part in ("queue", "broker", "network", "total")] == [20.0, 30.0, 50.0, 120.0]


def test_small_samples_have_no_interval_and_large_ones_do(site: Site) -> None:
    noise = np.random.default_rng(1).lognormal(3.0, 0.5, 4_000)
    requests = [request(T0 + i * 50 * MS, float(value)) for i, value in enumerate(noise)]
    site.measure([packet(T0), packet(T0 + 200 * SECOND)], requests)
    p95 = site.row("kafka_latency", "all", "p95")
    assert p95["ci_low"] < p95["value"] < p95["ci_high"]
    assert p95["value"] == np.quantile(noise, 0.95, method="inverted_cdf")
    site.measure([packet(T0), packet(T0 + 200 * SECOND)], requests[:299])
    assert site.row("kafka_latency", "all", "p50")["ci_low"] is None
    assert site.metrics.filter(pl.col("metric") == "kafka_latency")["ci_high"].is_null().all()


def test_an_empty_window_has_all_rows_with_null_and_0(site: Site) -> None:
    site.measure([packet(T0, segment="new", rtt_ms=1.0)], [request(T0)], window=(T0 + SECOND, T0 + 2 * SECOND))
    names = set(site.metrics["metric"].to_list())
    assert names >= {
        "packets",
        "bytes",
        "connections",
        "connections_reset",
        "requests",
        "resets",
        "retransmissions",
        "zero_windows",
        "goodput",
    }
    assert names >= {"kafka_latency", "rtt", "iat_mas", "rtt_ipdv", "rtt_pdv", "owdv", "capture_loss"}
    assert names >= {f"notebook_{name}" for name in ("resets", "retransmissions", "zero_windows", "jitter", "kafka_latency")}
    undocumented = names - set(re.findall(r"`(\w+)`", DOCUMENTATION.read_text(encoding="utf-8")))
    assert not undocumented
    assert site.metrics["value"].is_null().all()
    assert (site.metrics["n"] == 0).all()
    assert site.series.is_empty()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_number_of_parts_changes_no_byte(site: Site, seed: int) -> None:
    random = np.random.default_rng(seed)
    clients = [("192.0.2.6", port) for port in (9, 10, 11)]
    packets, requests = [], []
    for i in range(600):
        client = clients[random.integers(3)]
        values: dict[str, Any] = {
            "payload_len": int(random.integers(0, 2)) * 50,
            "seq": int(random.integers(40)),
            "acked_bytes": int(random.integers(99)),
        }
        values |= {"notebook_id": int(random.integers(5)), "rtt_ms": float(random.lognormal(2))}
        time = T0 + int(random.integers(400)) * 10 * MS
        packets.append(packet(time, client=client, from_broker=bool(random.integers(2)), segment="new", **values))
        requests.append(request(time, float(random.lognormal(2)), connection_id=packets[-1]["connection_id"], correlation_id=i))
    # One order of the packets of a connection at one time, as merge_site gives it.
    packets.sort(key=lambda row: (row["timestamp"], row["connection_id"]))
    written = []
    for parts in (1, 2, 3):
        site.measure(packets, requests, parts=parts)
        written.append((site.metrics_path.read_bytes(), site.series_path.read_bytes()))
    assert written[0] == written[1] == written[2]


def test_series_add_up_to_the_metrics_and_show_gaps(site: Site) -> None:
    packets = [packet(T0 + ms * MS, from_broker=True, segment="new", payload_len=50, acked_bytes=40) for ms in (0, 500, 3_000)]
    packets += [packet(T0 + 3_500 * MS, segment="retransmitted", tcp_flags=0x14)]
    site.measure(packets, [request(T0 + 500 * MS, 7.0), request(T0 + 3_000 * MS, 9.0), request(T0 + 3_100 * MS, 5.0)])
    assert site.series["bin_seconds"].unique().to_list() == [1.0]
    assert site.course("goodput", "direction=to_broker", "mean") == [80.0, 0.0, 0.0, 40.0]
    assert site.course("requests", "all", "count") == [1.0, 0.0, 0.0, 2.0]
    assert site.course("kafka_latency", "all", "p50") == [7.0, None, None, 5.0]
    assert site.course("kafka_latency", "api=Produce", "p95") == [7.0, None, None, 9.0]
    assert site.course("retransmissions", "all", "ratio_of_sums") == [0.0, None, None, 0.5]
    assert site.course("resets", "all", "count") == [0.0, 0.0, 0.0, 1.0]


def test_bins_of_a_window_begin_at_its_start_and_its_last_instant_opens_none(site: Site) -> None:
    start, end = T0 + 300 * MS, T0 + 300 * MS + 4 * 60 * SECOND
    site.measure([packet(start, wire_len=10), packet(end, wire_len=30)], window=(start, end))
    bins = site.series.filter(pl.col("metric") == "throughput", pl.col("group") == "all")
    assert len(bins) == 240
    assert bins["bin_start"].to_physical().to_list() == [start + i * SECOND for i in range(240)]
    assert bins["value"].to_list() == [10.0, *[0.0] * 238, 30.0]
    assert site.row("throughput", "all", "mean")["n"] == 240


@pytest.mark.parametrize(
    ("seconds", "length"), [(1, 1), (399, 1), (400, 2), (7_800, 30), (86_400, 300), (40_000_000, 172_800), (400_000_000, 1_036_800)]
)
def test_long_runs_have_at_most_400_bins(seconds: int, length: int) -> None:
    bins = series_bins(Window(), T0 + 17, T0 + 17 + seconds * SECOND)
    assert bins.count <= 400
    assert bins.seconds == length
    assert bins.origin <= T0 + 17 < bins.origin + bins.width
    assert bins.origin % bins.width == 0


def test_variation_is_told_by_kind_and_direction(site: Site) -> None:
    arrivals = [0, 100, 300, 1_300, 1_350, 1_370, 1_380]  # ms; the gap of a second is idle
    packets = [packet(T0 + ms * MS, segment="new", payload_len=9, tsval=ms) for ms in arrivals]
    packets += [packet(T0 + 350 * MS, segment="retransmitted", payload_len=9), packet(T0 + 360 * MS, segment=None)]
    packets += [packet(T0 + ms * MS, from_broker=True, rtt_ms=rtt) for ms, rtt in [(10, 8.0), (20, 5.0), (190, 9.0), (900, 6.0)]]
    site.measure(packets)
    # Gaps 100 200 | 50 20 10: changes 100 | 30 10.
    assert site.value("iat_mas", "direction=to_broker") == 3
    assert site.value("iat_mas", "direction=to_broker", "mean") == pytest.approx(140 / 3)
    assert site.value("iat_mas", "direction=from_broker") is None
    assert site.value("rtt_ipdv", "half=to_broker", "mean") == 3.5
    assert site.value("rtt_pdv", "half=to_broker", "max") == 4.0
    assert site.value("idle_gap", "all", "max") == 200
    assert site.row("rtt_pdv", "half=to_client", "p50")["n"] == 0


def test_one_way_delay_says_nothing_about_what_the_tapped_host_sends(site: Site) -> None:
    random = np.random.default_rng(4)
    delays = random.uniform(0, 30, 400)
    packets = [
        packet(T0 + i * 50 * MS + int(delay * MS), from_broker=back, segment="new", payload_len=9, tsval=i * 50)
        for i, delay in enumerate(delays)
        for back in (False, True)
    ]
    for tap, missing in (("client", "to_broker"), ("broker", "from_broker")):
        site.measure(packets, tap=tap)
        other = {"to_broker": "from_broker", "from_broker": "to_broker"}[missing]
        assert site.value("owdv", f"direction={missing}") is None
        assert site.value("owdv", f"direction={other}", "mean") == pytest.approx(np.abs(np.diff(delays)).mean(), rel=0.02)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=60), st.sampled_from([0.0, 0.02, 0.5, 0.95, 1.0]))
def test_quantiles_by_group_are_those_of_each_group_alone(rows: list[tuple[int, int]], level: float) -> None:
    groups, values = np.array([group for group, _ in rows], np.int64), np.array([value for _, value in rows], float)
    n, found = quantiles_by_group(values, groups, 7, {"level": level})
    for group in range(7):
        alone = np.sort(values[groups == group])
        assert n[group] == alone.size
        np.testing.assert_equal(found["level"][group], quantile(alone, level) if alone.size else np.nan)
