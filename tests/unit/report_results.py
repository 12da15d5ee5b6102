"""A results tree as the stages before the report would leave it: invented traffic, real data sets.

Edge and cloud behave as in the shipped example: the edge link of the later experiment is slow and loses segments, so that 3 to 4 % of its
requests wait for a retransmission; cloud is steady. Metrics and comparisons are made by the real stages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from brokerlens import tables
from brokerlens.report.results import Results, read_results
from choose_cases import choose_cases
from compare import compare
from compute_metrics import compute_metrics
from measure_routes import measure_routes
from report import report

SECOND = 1_000_000_000
MS = 1_000_000
START = 1_766_769_260 * SECOND  # 26 December 2025, 14:14:20 at UTC-03:00
MERGED = pa.schema([("timestamp", pa.timestamp("ns", "UTC")), ("padded_len", pa.uint32()), ("notebook_id", pa.uint32())])


@dataclass(frozen=True)
class Link:
    """One site of one experiment, and what its captures hold."""

    experiment: str
    site: str
    delay_ms: float
    variation_ms: float
    loss: float
    per_second: float
    seconds: int = 240
    start: int = START
    client: str = "192.0.2.5"
    broker: str = "192.0.2.10"
    port: int = 31289
    client_id: str = "sensors"
    tap: str = "client"
    window: tuple[int | None, int | None] | str = "as captured"
    captures: int = 9
    encrypted: bool = False
    silent: bool = False
    timezone: str = "-03:00"
    resets: int = 0
    capture: str = "tcp"
    topic: str = "sensors"
    brokers: Sequence[str] = field(default_factory=tuple)
    condition: str | None = None


MOST_COMPARED = 8
TOPIC_ID = "BRrN_grlSaalxfWHeTOzZw"
"""What the edge of the later experiment tells the name of."""
DAYS = 2 * 24 * 3600 * SECOND
EXAMPLE = (
    Link("experiment07", "edge", 8, 1.2, 0.0, 4.0, start=START - DAYS),
    Link(
        "experiment07", "cloud", 70, 2.0, 0.0, 1.45, start=START - DAYS, client="198.51.100.5", broker="198.51.100.10", client_id="control"
    ),
    Link("experiment08", "edge", 42, 9.0, 0.037, 4.0),
    Link("experiment08", "cloud", 70.2, 2.1, 0.0, 1.45, client="198.51.100.5", broker="198.51.100.10", client_id="control", resets=1),
)


def _seed(link: Link) -> np.random.Generator:
    return np.random.default_rng(list(f"{link.experiment}/{link.site}".encode()))


def _latencies(link: Link, rng: np.random.Generator, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latency, network round trip, and whether a segment was lost; losses crowd in the middle of the run."""
    network = link.delay_ms + np.abs(rng.normal(0, link.variation_ms, len(times)))
    share = (times - link.start) / (link.seconds * SECOND)
    crowd = np.where((share > 0.2) & (share < 0.45), 2.6, 0.5)
    lost = rng.random(len(times)) < link.loss * crowd
    waited = np.where(lost, 205 + np.abs(rng.normal(30, 60, len(times))), 0)
    return network + waited + 1.5 + rng.exponential(1.2, len(times)), network, lost


def requests_of(link: Link) -> pl.DataFrame:
    rng = _seed(link)
    n = 0 if link.silent or link.encrypted else int(link.per_second * link.seconds)
    times = np.sort(link.start + (rng.random(n) * (link.seconds - 1) * SECOND).astype(np.int64))
    latency, network, lost = _latencies(link, rng, times)
    queue = np.where(rng.random(n) < 0.05, latency * 0.2, 0.0)
    port = np.where(times < link.start + link.seconds * SECOND // 2, 40001, 40002)
    fetches = n // 2
    fetch_times = np.sort(link.start + (rng.random(fetches) * (link.seconds - 1) * SECOND).astype(np.int64))
    fetch_latency = np.where(rng.random(fetches) < 0.4, 500 + link.delay_ms, rng.uniform(link.delay_ms, 500, fetches))
    api = np.where(rng.random(n) < 0.97, "Produce", "Metadata")
    produce = _request_rows(link, times, latency, port, api, waits=False)
    produce |= {
        "queue_ms": queue,
        "service_ms": latency - queue,
        "network_rtt_ms": network,
        "broker_ms": np.clip(latency - queue - network - np.where(lost, latency - network - 3, 0), 0.05, None),
        "retransmitted": lost,
        "record_count": np.full(n, 3),
    }
    fetch = _request_rows(link, fetch_times, fetch_latency, np.full(fetches, 40003), np.full(fetches, "Fetch"), waits=True)
    fetch |= {
        "queue_ms": np.zeros(fetches),
        "service_ms": fetch_latency,
        "network_rtt_ms": np.full(fetches, float(link.delay_ms)),
        "broker_ms": np.clip(fetch_latency - link.delay_ms, 0, None),
        "retransmitted": np.zeros(fetches, bool),
        "record_count": np.where(fetch_latency > 499, 0, 5),
    }
    return pl.concat([pl.DataFrame(produce), pl.DataFrame(fetch)], how="vertical_relaxed").sort("request_first")


def _request_rows(link: Link, times: np.ndarray, latency: np.ndarray, port: np.ndarray, api: np.ndarray, *, waits: bool) -> dict[str, Any]:
    n = len(times)
    first = times + (latency * 1e6).astype(np.int64)
    return {
        "connection_id": [f"{link.client}:{p}-{link.broker}:{link.port}#1" for p in port],
        "client_port": port,
        "client_id": [link.client_id] * n,
        "api_name": api,
        "correlation_id": np.arange(n),
        "request_first": times,
        "request_last": times,
        "response_first": first,
        "response_last": first + 100_000,
        "latency_ms": latency,
        "total_ms": latency + 0.1,
        "waits_by_design": np.full(n, waits),
    }


def _write_requests(link: Link, frame: pl.DataFrame, path: Path) -> None:
    n = frame.height
    extra = {
        "client_ip": [link.client] * n, "broker_ip": [link.broker] * n, "broker_port": [link.port] * n, "client_software": ["librdkafka 2.10"] * n,
        "api_key": [0] * n, "api_version": [10] * n, "acks": [-1] * n, "status": ["answered"] * n, "status_reason": [None] * n,
        "request_bytes": [300] * n, "response_bytes": [120] * n, "request_captured_bytes": [300] * n, "response_captured_bytes": [120] * n, "max_wait_ms": [None] * n, "topics": [[link.topic]] * n, "partitions": [1] * n,
        "record_bytes": (frame["record_count"] * 90).to_list() if n else [], "codec": ["none"] * n, "error_code": [0] * n, "throttle_ms": [0] * n,
    }  # fmt: skip
    columns = {name: pa.array(frame[name].to_list()) for name in frame.columns} | {name: pa.array(values) for name, values in extra.items()}
    _write(columns, path, "requests")


def _write(columns: Mapping[str, pa.Array], path: Path, dataset: str) -> None:
    """Write a data set; columns that may be null and are not given are."""
    table = {}
    n = len(next(iter(columns.values())))
    for wanted in tables.schema(dataset):
        values = columns[wanted.name] if wanted.name in columns or not wanted.nullable else pa.nulls(n)
        table[wanted.name] = (values.cast(pa.int64()) if pa.types.is_timestamp(wanted.type) and len(values) else values).cast(wanted.type)
    tables.write(pa.table(table), path, dataset, {})


def packets_of(link: Link, requests: pl.DataFrame) -> pl.DataFrame:
    """Request, response, and for a lost request the segment once more; a few extra round trips keep silent links alive."""
    ids = requests["connection_id"].to_list()
    rtt = (requests["network_rtt_ms"].to_numpy() * 1e6).astype(np.int64) if requests.height else np.zeros(0, np.int64)
    sent, answered = requests["request_first"].to_numpy(), requests["response_first"].to_numpy()
    again = requests["retransmitted"].to_numpy()
    parts = [_packets(link, sent, ids, False, 300), _packets(link, answered, ids, True, 120, rtt=rtt)]
    chosen = np.flatnonzero(again)
    parts.append(_packets(link, sent[chosen] + 200_000_000, [ids[i] for i in chosen], False, 300, segment="retransmitted"))
    if link.encrypted:
        times = link.start + np.arange(link.seconds, dtype=np.int64) * SECOND
        parts.append(_packets(link, times, [f"{link.client}:40001-{link.broker}:{link.port}#1"] * len(times), False, 200))
    if link.resets:
        when = link.start + link.seconds * SECOND * 3 // 5 + np.arange(link.resets, dtype=np.int64) * SECOND
        parts.append(
            _packets(link, when, [f"{link.client}:40001-{link.broker}:{link.port}#1"] * link.resets, False, 0, flags=4, segment=None)
        )
    return pl.concat(parts, how="vertical_relaxed").sort("timestamp")


_WORDS = ("src_ip", "dst_ip", "connection_id", "segment", "capture")
_FLAGS = ("from_broker", "is_retransmission", "is_duplicate", "zero_window_begins")
_PACKET_TYPES: dict[str, Any] = (
    dict.fromkeys(tables.schema("packets").names, pl.Int64)
    | dict.fromkeys(_WORDS, pl.String)
    | dict.fromkeys(_FLAGS, pl.Boolean)
    | {"rtt_ms": pl.Float64, "kafka_lat_ms": pl.Float64}
)


def _packets(
    link: Link,
    times: np.ndarray,
    ids: list[str],
    from_broker: bool,
    size: int,
    *,
    rtt: np.ndarray | None = None,
    segment: str | None = "new",
    flags: int = 0x18,
) -> pl.DataFrame:
    n = len(times)
    client, broker = link.client, link.broker
    ports = [int(one.split("-")[0].rsplit(":", 1)[1]) for one in ids]
    return pl.DataFrame(
        {
            "timestamp": times.astype(np.int64), "src_ip": [broker if from_broker else client] * n, "dst_ip": [client if from_broker else broker] * n,
            "src_port": [link.port] * n if from_broker else ports, "dst_port": ports if from_broker else [link.port] * n, "connection_id": ids,
            "from_broker": [from_broker] * n, "tcp_flags": [flags] * n, "seq": np.arange(n) + 1, "ack": [1] * n, "window_size": [500] * n,
            "window_bytes": [64000] * n, "payload_len": [size] * n, "actual_msg_count": [0] * n, "rtt_ms": [None] * n if rtt is None else rtt / 1e6,
            "kafka_lat_ms": [None] * n, "segment": [segment] * n, "segment_evidence": [0] * n, "new_bytes": [size] * n, "is_retransmission": [segment == "retransmitted"] * n, "is_duplicate": [False] * n,
            "acked_bytes": [size] * n, "unseen_bytes": [0] * n, "zero_window_begins": [False] * n, "capture": [link.capture] * n, "frame_number": np.arange(n) + 1,
            "wire_len": [size + 66] * n, "captured_len": [size + 66] * n, "ttl": [64] * n, "ip_id": [1] * n, "tsval": [1] * n, "tsecr": [1] * n,
        },
        schema_overrides=_PACKET_TYPES,
    )  # fmt: skip


def _write_connections(link: Link, packets: pl.DataFrame, path: Path) -> None:
    by = packets.group_by("connection_id").agg(
        pl.col("timestamp").min().alias("first"), pl.col("timestamp").max().alias("last"), pl.len().alias("packets"), pl.col("is_retransmission").sum().alias("again"),
        ((pl.col("tcp_flags") & 4) > 0).sum().alias("resets"), pl.col("src_port").filter(~pl.col("from_broker")).first().alias("port"),
    ).sort("connection_id")  # fmt: skip
    n = by.height
    columns: dict[str, Any] = {field.name: [None] * n for field in tables.schema("connections")}
    columns |= {name: [0] * n for name in columns if name.endswith(("_to_broker", "_from_broker"))} | {"rtt_client_n": [0] * n}
    reset = by["resets"].to_numpy() > 0
    columns |= {
        "connection_id": by["connection_id"].to_list(), "client_ip": [link.client] * n, "client_port": by["port"].to_list(), "broker_ip": [link.broker] * n,
        "broker_port": [link.port] * n, "client_id": [link.client_id] * n, "client_software": ["librdkafka 2.10"] * n, "first_seen": by["first"].to_list(),
        "last_seen": by["last"].to_list(), "started": [i > 0 for i in range(n)], "setup": ["complete" if i > 0 else "not_captured" for i in range(n)], "ended": ["reset" if one else "open" for one in reset],
        "reset_by": ["client" if one else None for one in reset], "tap": [link.tap] * n, "rtt_broker_n": [50] * n, "rtt_broker_min_ms": [link.delay_ms] * n,
        "rtt_broker_p50_ms": [link.delay_ms + 1.0] * n, "rtt_broker_p95_ms": [link.delay_ms + 2 * link.variation_ms] * n, "packets_to_broker": by["packets"].to_list(),
        "payload_bytes_to_broker": (by["packets"] * 300).to_list(), "data_segments_to_broker": by["packets"].to_list(),
        "retransmitted_segments_to_broker": by["again"].to_list(), "resets_to_broker": by["resets"].to_list(), "framing": ["start"] * n, "encrypted": [link.encrypted] * n,
        "sasl": [False] * n, **{name: [0] * n for name, *_ in tables.FRAME_ODDITIES},
        "zero_window_ms_to_broker": [0.0] * n, "zero_window_ms_from_broker": [0.0] * n,
    }  # fmt: skip
    _write({name: pa.array(values) for name, values in columns.items()}, path, "connections")


def window_of(link: Link) -> tuple[int | None, int | None]:
    if isinstance(link.window, str):
        return link.start, link.start + link.seconds * SECOND
    return link.window


def write_tree(folder: Path, links: Sequence[Link] = EXAMPLE, **settings: Any) -> dict[str, Any]:
    """Write the tree; what it returns are ``report``'s arguments."""
    results = folder / "results"
    found: dict[str, list[str]] = {name: [] for name in ("metrics", "series", "requests", "connections", "packets", "captures", "cases")}
    sites = []
    for link in links:
        where = f"experiment={link.experiment}/site={link.site}"
        paths = {name: results / name / where / "part-0000.parquet" for name in ("requests", "connections", "packets")}
        paths |= {name: results / name / where / f"{name}.parquet" for name in ("metrics", "series", "cases")}
        requests = requests_of(link)
        packets = packets_of(link, requests)
        _write_requests(link, requests, paths["requests"])
        _write({name: pa.array(packets[name].to_list()) for name in packets.columns}, paths["packets"], "packets")
        _write_connections(link, packets, paths["connections"])
        merged = results / "intermediate" / "merged" / link.experiment / link.site / "part-0000.parquet"
        merged.parent.mkdir(parents=True)
        _write_merged(packets, merged)
        start, end = window_of(link)
        compute_metrics(
            packets=[paths["packets"]], requests=[paths["requests"]], connections=[paths["connections"]], notebook=[merged],
            measure={"window": {"start": start, "end": end}, "brokers": [f"{link.broker}:{link.port}"], "tap": "auto", "share_over_ms": 200},
            metrics=paths["metrics"], series=paths["series"],
        )  # fmt: skip
        choose_cases(
            packets=[paths["packets"]], requests=[paths["requests"]], connections=[paths["connections"]],
            window={"start": start, "end": end}, cases=paths["cases"],
        )  # fmt: skip
        for name, path in paths.items():
            found[name].append(str(path))
        found["captures"] += _write_facts(link, packets, results)
        sites.append(_site_row(link, packets))
    found["metrics"] += _write_routes(links, results)
    found["topics"] = _write_topics(links, results)
    site_file, comparison_file = results / "sites" / "sites.parquet", results / "comparisons" / "comparisons.parquet"
    _write({name: pa.array([row[name] for row in sites]) for name in sites[0]}, site_file, "sites")
    chosen = {"title": "Edge and cloud, two experiments", "baseline": None, "margin": 0.05, "share_over_ms": 200, "events": []} | settings
    compared = links[:2] if len(links) > MOST_COMPARED else links
    parts = {name: found[name][: len(compared)] for name in ("requests", "packets", "connections", "metrics")}  # of metrics without routes
    of_compared = results / "compared.parquet"
    _write({name: pa.array([row[name] for row in sites[: len(compared)]]) for name in sites[0]}, of_compared, "sites")
    compare(sites=str(of_compared), **parts, settings=chosen, output=str(comparison_file))
    if len(compared) < len(links):
        _repeat_pair(links, comparison_file)
    return {
        **found,
        "sites": str(site_file),
        "comparisons": str(comparison_file),
        "settings": chosen,
        "output": str(results / "report" / "index.html"),
        "specifications": str(results / "report" / "figures.json"),
    }


ROUTES_FROM = 2
"""So many sites of an experiment produce what its sites fetch."""


def deliveries_of(source: Link, link: Link, clock: float | None = 0.0) -> list[dict[str, Any]]:
    """What a site fetches of another's records: a second apart, one of ten after a loss, so that it cannot be taken apart; ``clock``: how wrong its times may be, ms."""
    rows = []
    for i in range(60):
        is_lost, produced = i % 10 == 9, source.start + i * SECOND
        parts = {"produce_network_ms": source.delay_ms, "broker_ms": 1.0, "log_wait_ms": 0.5 * (i % 3), "fetch_network_ms": link.delay_ms}
        took = sum(parts.values()) + 200 * is_lost
        is_related = source.site == link.site or clock == 0
        rows.append(
            {
                "cluster": link.experiment, "topic": "sensors", "partition": 0, "first_offset": i, "last_offset": i, "record_count": 2, "record_bytes": 200,
                "produce_site": source.site, "produce_connection_id": "p", "produce_client_id": source.client_id, "produce_correlation_id": i, "fetch_site": link.site,
                "fetch_connection_id": "c", "fetch_client_id": link.client_id, "fetch_correlation_id": i, "produced_at": produced,
                "acknowledged_at": produced + 2 * MS, "fetched_at": produced + round(took * MS), "delivery_ms": took,
                **{name: None if is_lost or not is_related else value for name, value in parts.items()},
                "clock_uncertainty_ms": 0.0 if is_related else clock, "status": "delivered", "status_reason": None if is_related else "clocks_unknown", "refetches": 0,
            }
        )  # fmt: skip
    return rows


def write_deliveries(rows: Sequence[dict[str, Any]], links: Sequence[Link], results: Path) -> list[str]:
    """The data set of one experiment, and the metrics of its sites made from it."""
    experiment = links[0].experiment
    path = results / "deliveries" / f"experiment={experiment}" / "part-0000.parquet"
    schema = tables.schema("deliveries")
    columns = {
        field.name: pa.array([row[field.name] for row in rows], pa.int64() if pa.types.is_timestamp(field.type) else None)
        for field in schema
    }
    _write(columns, path, "deliveries")
    measured = []
    for link in links:
        measured.append(str(results / "metrics" / f"experiment={experiment}" / f"site={link.site}" / "routes.parquet"))
        measure_routes(deliveries=[path], measure={"site": link.site, "window": {"start": None, "end": None}}, routes=measured[-1])
    return measured


def _write_routes(links: Sequence[Link], results: Path) -> list[str]:
    """Every site fetches what the first of its experiment produce; sites without latencies have no deliveries."""
    paths = []
    for experiment in dict.fromkeys(link.experiment for link in links):
        own = [link for link in links if link.experiment == experiment]
        talking = [link for link in own if not (link.silent or link.encrypted)]
        rows = [row for source in talking[:ROUTES_FROM] for link in talking for row in deliveries_of(source, link)]
        paths += write_deliveries(rows, own, results)
    return paths


def _repeat_pair(links: Sequence[Link], path: Path) -> None:
    """The one pair's rows again for every pair: what is said is not true, but there is as much of it as there would be."""
    rows = pl.from_arrow(tables.read([path], "comparisons"))
    assert isinstance(rows, pl.DataFrame)
    pairs = [(a.site, b.site) for i, a in enumerate(links) for b in links[i + 1 :]]
    repeated = [rows.with_columns(pl.lit(a).alias("site_a"), pl.lit(b).alias("site_b")) for a, b in pairs]
    tables.write(pl.concat(repeated).to_arrow(), path, "comparisons", {})


def _write_topics(links: Sequence[Link], results: Path) -> list[str]:
    paths = []
    for experiment in dict.fromkeys(link.experiment for link in links):
        told = [
            {"cluster": experiment, "topic_id": TOPIC_ID, "topic": "sensors", "site": "edge", "source": "metadata", "learned_at": START}
        ]
        rows = told if experiment == EXAMPLE[2].experiment else []
        path = results / "topics" / f"experiment={experiment}" / "topics.parquet"
        schema = tables.schema("topics")
        _write(
            {name: pa.array([row[name] for row in rows], pa.int64() if name == "learned_at" else pa.string()) for name in schema.names},
            path,
            "topics",
        )
        paths.append(str(path))
    return paths


def _write_merged(packets: pl.DataFrame, path: Path) -> None:
    import pyarrow.parquet as pq

    ids = (np.arange(packets.height) // 2).astype(np.uint32)
    columns = [packets["timestamp"].to_numpy().astype("datetime64[ns]"), packets["payload_len"].to_numpy().astype(np.uint32), ids]
    pq.write_table(
        pa.table([pa.array(column).cast(field.type) for column, field in zip(columns, MERGED, strict=True)], schema=MERGED), path
    )


def _write_facts(link: Link, packets: pl.DataFrame, results: Path) -> list[str]:
    listed = {}
    size = -(-max(packets.height, 1) // link.captures)
    for i in range(link.captures):
        part = packets[i * size : (i + 1) * size]
        facts = {
            "capture": f"{link.capture}-{i:02d}.pcap", "format": "pcap", "link_types": ["Ethernet"], "packets": part.height + 12, "kept": part.height,
            "skipped": {"other_endpoint": 10, "not_tcp": 2}, "first_seen": part["timestamp"].min(), "last_seen": part["timestamp"].max(),
            "truncated": "packet 41 of 300 bytes ends after 17" if i == 2 else None, "time_backsteps": 0, "kept_bytes": {}, "capped_bytes": 0,
            "endpoints": [["203.0.113.9:8080", 33]],
        }  # fmt: skip
        listed[f"{link.capture.encode().hex()}-{i:02d}"] = facts
    path = results / "intermediate" / "captures" / link.experiment / link.site / "+captures.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(listed))
    return [str(path)]


def _site_row(link: Link, packets: pl.DataFrame) -> dict[str, Any]:
    start, end = window_of(link)
    return {
        "experiment": link.experiment, "site": link.site, "condition": link.condition or link.experiment, "window_start": start, "window_end": end, "timezone": link.timezone,
        "brokers": list(link.brokers) or [f"{link.broker}:{link.port}"], "tap_configured": "auto", "tap_found": link.tap if packets.height else "unknown",
        "cluster": link.experiment, "clock_offset_ms": None, "captures": link.captures, "packets_kept": packets.height, "packets_skipped": 12 * link.captures,
        "first_seen": packets["timestamp"].min(), "last_seen": packets["timestamp"].max(), "capture_loss": 0.0 if packets.height else None,
    }  # fmt: skip


def read_tree(arguments: Mapping[str, Any]) -> Results:
    """What the report reads of such a tree."""
    return read_results(**{key: value for key, value in arguments.items() if key not in ("output", "specifications")})


def write_report(folder: Path, links: Sequence[Link] = EXAMPLE, **settings: Any) -> Path:
    """The report over such a tree."""
    arguments = write_tree(folder, links, **settings)
    report(**arguments)
    return Path(arguments["output"])


def repeated_runs() -> tuple[Link, ...]:
    """One site, four runs at a short distance and four at a longer one, each a little different."""
    return tuple(
        replace(EXAMPLE[0], experiment=f"{condition}{k}", condition=condition, delay_ms=delay + 0.3 * k, seconds=100)
        for condition, delay in (("near", 8), ("far", 20))
        for k in range(1, 5)
    )


def many_sites(count: int) -> tuple[Link, ...]:
    """One experiment with that many sites, each a little slower than the one before."""
    return tuple(
        replace(
            EXAMPLE[2],
            site=f"site{i:02d}",
            delay_ms=20 + 3.0 * (i % 17),
            loss=0.01 * (i % 5),
            client=f"192.0.2.{i + 20}",
            captures=3,
            seconds=120,
        )
        for i in range(count)
    )
