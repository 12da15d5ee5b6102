"""The cases behind a site's worst figures, and where their packets are: slowest requests, resets, worst losses inside the window.

A case is chosen by what happened alone, ties too, so that captures cut otherwise give the same cases; only in which file and under which number
their packets stand is then another. Memory is that of the chosen connections' packets around their cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from brokerlens.cases.words import RESET_KINDS
from brokerlens.metrics.traffic import packets_inside
from brokerlens.metrics.window import SECOND, Window
from brokerlens.tcp.content import RST

Paths = Sequence[str | Path]

MOST: Final = 5
"""Cases of a kind."""
AROUND: Final = SECOND
"""An excerpt goes on for so long before the case and behind it, ns."""
WORST_STRETCH: Final = SECOND


@dataclass(frozen=True)
class Case:
    """What happened on a connection from ``first`` to ``last`` (ns since 1970); ``facts`` are the columns that its kind has beside those."""

    kind: str
    connection_id: str
    first: int
    last: int
    facts: Mapping[str, Any]


def choose_cases(packets: Paths, requests: Paths, connections: Paths, window: Window) -> list[dict[str, Any]]:
    """The rows of the data set `cases`: at most five of a kind, the worst first."""
    table = _scan(connections).select(
        "connection_id",
        "client_port",
        "broker_port",
        "client_id",
        *(pl.col(name).cast(pl.String) for name in ("client_ip", "broker_ip", "reset_kind")),
    )
    inside = packets_inside(packets, window)
    found = [*_slowest(requests, window), *_resets(inside, table), *_losses(inside)]
    ends = {
        row["connection_id"]: row
        for row in table.filter(pl.col("connection_id").is_in([case.connection_id for case in found]))
        .drop("reset_kind")
        .collect()
        .to_dicts()
    }
    rank = dict.fromkeys(("request", "reset", "loss"), 0)
    rows = []
    for case in found:
        rank[case.kind] += 1
        row = {
            **ends[case.connection_id],
            "case": f"{case.kind}-{rank[case.kind]}",
            "kind": case.kind,
            "first_time": case.first,
            "last_time": case.last,
        }
        rows.append(row | dict(case.facts) | _places(packets_of(packets, case.connection_id, case.first, case.last), row))
    return rows


def read_cases(path: str | Path) -> list[dict[str, Any]]:
    """The rows of the data set, times in ns since 1970."""
    frame = _scan([path]).with_columns(pl.col(pl.Datetime).to_physical(), pl.col(pl.Categorical).cast(pl.String))
    return frame.collect().to_dicts()


def _scan(paths: Paths) -> pl.LazyFrame:
    return pl.scan_parquet([str(path) for path in paths], hive_partitioning=False)


def _slowest(requests: Paths, window: Window) -> Iterator[Case]:
    """The answered requests that took longest of those that do not wait by design."""
    began, ended = pl.col("request_first"), pl.max_horizontal("request_first", "response_first", "response_last")
    slow = (
        _scan(requests)
        .filter(pl.col("status") == "answered", pl.col("latency_ms").is_not_null(), ~pl.col("waits_by_design"), window.holds(began))
        .select(
            pl.col("connection_id").cast(pl.String), pl.col("api_name").cast(pl.String), began.to_physical().alias("first"),
            ended.to_physical().alias("last"), "client_id", "api_version", "correlation_id", "latency_ms",
        )
        .sort("latency_ms", "first", "connection_id", "correlation_id", "last", descending=[True, False, False, False, False])
        .head(MOST)
    )  # fmt: skip
    for row in slow.collect(engine="streaming").to_dicts():
        first, last, connection = row.pop("first"), row.pop("last"), row.pop("connection_id")
        yield Case("request", connection, first, last, row)


def _resets(inside: pl.LazyFrame, connections: pl.LazyFrame) -> Iterator[Case]:
    """The first RST of connections, those that were reset in the middle before others; the earliest first."""
    kinds = {kind: place for place, kind in enumerate(RESET_KINDS)}
    first = inside.filter(pl.col("tcp_flags") & RST > 0).group_by(pl.col("connection_id").cast(pl.String)).agg(
        pl.col("time").min().alias("first"), pl.col("from_broker").filter(pl.col("time") == pl.col("time").min()).max()
    )  # fmt: skip
    worst = (
        first.join(connections.select("connection_id", "reset_kind"), on="connection_id")
        .with_columns(pl.col("reset_kind").replace_strict(kinds, default=len(kinds), return_dtype=pl.Int64).alias("place"))
        .sort("place", "first", "connection_id")
        .head(MOST)
    )
    for row in worst.collect(engine="streaming").to_dicts():
        yield Case("reset", row["connection_id"], row["first"], row["first"], {name: row[name] for name in ("from_broker", "reset_kind")})


def _losses(inside: pl.LazyFrame) -> Iterator[Case]:
    """The directions of connections with most bytes sent again, and of each the second with most of them."""
    again = inside.filter("is_retransmission").select(
        pl.col("connection_id").cast(pl.String), "from_broker", "time", pl.col("payload_len").cast(pl.Int64)
    )
    worst = (
        again.group_by("connection_id", "from_broker")
        .agg(pl.len().cast(pl.Int64).alias("lost_segments"), pl.col("payload_len").sum().alias("lost_bytes"))
        .sort("lost_bytes", "lost_segments", "connection_id", "from_broker", descending=[True, True, False, False])
        .head(MOST)
    )
    for row in worst.collect(engine="streaming").to_dicts():
        connection = row.pop("connection_id")
        sent = (
            again.filter(pl.col("connection_id") == connection, pl.col("from_broker") == row["from_broker"])
            .select("time", "payload_len")
            .collect(engine="streaming")
            .sort("time", "payload_len")
        )
        first, last, stretch = _worst_stretch(sent["time"].to_numpy(), sent["payload_len"].to_numpy())
        yield Case("loss", connection, first, last, row | stretch)


def _worst_stretch(times: np.ndarray, sizes: np.ndarray) -> tuple[int, int, dict[str, int]]:
    """First and last time (ns) of the second in which most bytes were sent again, by segments where bytes tell nothing, and both.

    ``times`` ascend; of equal stretches it is the first.
    """
    behind = np.searchsorted(times, times + WORST_STRETCH, side="right")
    sums = np.concatenate([[0], np.cumsum(sizes)])
    lost, segments = sums[behind] - sums[:-1], behind - np.arange(len(times))
    begin = int(np.lexsort((np.arange(len(times)), -segments, -lost))[0])
    return int(times[begin]), int(times[behind[begin] - 1]), {"worst_segments": int(segments[begin]), "worst_bytes": int(lost[begin])}


def packets_of(packets: Paths, connection_id: str, first: int, last: int) -> pl.DataFrame:
    """A connection's packets from a second before ``first`` to a second after ``last`` (ns), in the data set's order: `time`, `capture`, `frame_number`, `captured_len`, and whether each is `inside` those two."""
    time = pl.col("timestamp")
    return (
        _scan(packets)
        .filter(Window(first - AROUND, last + AROUND).holds(time), pl.col("connection_id") == connection_id)
        .select(
            time.to_physical().alias("time"), pl.col("capture").cast(pl.String), "frame_number", pl.col("captured_len").cast(pl.Int64)
        )
        .collect(engine="streaming")
        .with_columns(pl.col("time").is_between(first, last).alias("inside"))
    )  # fmt: skip


def _places(rows: pl.DataFrame, ends: Mapping[str, Any]) -> dict[str, Any]:
    """Where a case's packets stand: the first and the last of its own, and per capture a display filter for all of `packets_of`."""
    own = rows.filter("inside")
    first, last = own.row(0, named=True), own.row(-1, named=True)
    captures = rows.group_by("capture", maintain_order=True).agg(
        pl.col("frame_number").min().alias("low"), pl.col("frame_number").max().alias("high")
    )
    return {
        "packets": rows.height,
        "first_capture": first["capture"],
        "first_frame": first["frame_number"],
        "last_capture": last["capture"],
        "last_frame": last["frame_number"],
        "captures": captures["capture"].to_list(),
        "filters": [display_filter(ends, low, high) for low, high in captures.select("low", "high").iter_rows()],
    }


def display_filter(ends: Mapping[str, Any], low: int, high: int) -> str:
    """Wireshark's display filter for a connection's packets from frame ``low`` to frame ``high`` of one capture.

    ``ends`` has ``client_ip``, ``client_port``, ``broker_ip``, ``broker_port``.
    """
    ips, ports = dict.fromkeys([ends["client_ip"], ends["broker_ip"]]), dict.fromkeys([ends["client_port"], ends["broker_port"]])
    terms = [f"{'ipv6' if ':' in ip else 'ip'}.addr == {ip}" for ip in ips] + [f"tcp.port == {port}" for port in ports]
    terms += [f"frame.number == {low}"] if low == high else [f"frame.number >= {low}", f"frame.number <= {high}"]
    return " && ".join(terms)


def nearest(rows: pl.DataFrame, first: int, last: int, most_bytes: int) -> pl.DataFrame:
    """Of `packets_of` those nearest in time to a case's begin or end, whose captured bytes together are at most ``most_bytes``; in the same order."""
    distance = pl.min_horizontal((pl.col("time") - first).abs(), (pl.col("time") - last).abs())
    order = rows.with_row_index("row").sort(distance, "row")
    return order.filter(pl.col("captured_len").cum_sum() <= most_bytes).sort("row").drop("row")
