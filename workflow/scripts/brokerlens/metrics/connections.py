"""Connections that have a packet inside the window: how many, how many were reset, encrypted, authenticated, and what was wrong with their frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from brokerlens import tables
from brokerlens.metrics.rows import ALL, SHARE, Rows, group
from brokerlens.metrics.traffic import DIRECTIONS
from brokerlens.metrics.uncertainty import add_values, ratio_by_connection
from brokerlens.metrics.window import SECOND, Window
from brokerlens.tls.outcomes import OUTCOMES, UNOPENED

log = logging.getLogger("brokerlens")

SIDES = ("client", "broker")
RESETS = ("refused", "abort", "idle", "after_fin")
FAILED_SETUPS = ("refused", "no_answer", "half_open")
PATIENCE = 3 * SECOND
"""A set-up that the captures end this soon behind may still have succeeded."""
TWIN_NS = 1_000_000
"""Packets of one connection under two addresses are captured within this."""
CONNECT_STATISTICS = ("count", "min", "p50", "p95", "max")
WHOLE = {
    "zero_window_time": ("zero_window_ms", "sum", "ms"),
    "window_limited_time": ("window_limited_ms", "sum", "ms"),
    "duplicate_acks": ("duplicate_acks", "count", "packets"),
    "dsacks": ("dsacks", "count", "packets"),
}
"""Metrics that are sums over whole connections: column by direction, statistic and unit."""
DECRYPTION = {"connection_id": pl.String, "outcome": pl.String, "unread_bytes": pl.Int64}
ODDITIES = tuple(name for name, *_ in tables.FRAME_ODDITIES)


def connections_inside(connections: Sequence[str | Path], inside: Sequence[str]) -> pl.DataFrame:
    """The rows of the data set `connections` whose ids are in ``inside``, by id."""
    words = pl.col("connection_id", "ended", "closed_by", "reset_by", "reset_kind", "setup", "tap").cast(pl.String)
    of_directions = [f"{column}_{name}" for column, *_ in WHOLE.values() for name in DIRECTIONS]
    counted = pl.col("encrypted", "sasl", "mss", "connect_ms", "syn_retry_ms", "isn_client", "isn_broker", *of_directions, *ODDITIES)
    times = pl.col("first_seen", "last_seen").to_physical()
    scanned = pl.scan_parquet([str(path) for path in connections], hive_partitioning=False).select(words, counted, times)
    wanted = pl.LazyFrame({"connection_id": inside}, schema={"connection_id": pl.String})
    return scanned.join(wanted, on="connection_id", how="semi").sort("connection_id").collect()


def add_protocols(rows: Rows, connections: pl.DataFrame) -> None:
    """`connections_encrypted`, `connections_sasl`, and `frame_oddities` by kind."""
    n = len(connections)
    for metric, column in (("connections_encrypted", "encrypted"), ("connections_sasl", "sasl")):
        rows.add(metric, ALL, "count", int(connections[column].sum()), "connections", n)
    for name, _, unit in tables.FRAME_ODDITIES:
        rows.add("frame_oddities", group("kind", name), "count", int(connections[name].sum()), unit, n)


def add_decryption(rows: Rows, decryption: Sequence[str | Path], inside: Sequence[str]) -> None:
    """`decryption` by its outcome and `undecrypted_bytes`, of a site with TLS keys; ``inside`` are the ids of the connections inside."""
    table = pl.concat([pl.read_parquet(path) for path in decryption] or [pl.DataFrame(schema=DECRYPTION)])
    table = table.filter(pl.col("connection_id").is_in(list(inside)))
    for outcome in OUTCOMES[1:]:
        rows.add("decryption", group("outcome", outcome), "count", int((table["outcome"] == outcome).sum()), "connections", table.height)
    rows.add("undecrypted_bytes", ALL, "sum", int(table["unread_bytes"].sum()), "bytes", table.height)
    tls = table.filter(pl.col("outcome") != "not_tls")
    if tls.height and tls["outcome"].is_in(UNOPENED).all():
        log.warning("`tls_keylog` opens none of %d TLS connections: it is probably the wrong file", tls.height)


def add_connections(rows: Rows, connections: pl.DataFrame) -> None:
    """`connections`, `connections_closed` by the side that closed first, `connections_reset` by the side that sent the first RST, and by its kind."""
    n = len(connections)
    rows.add("connections", ALL, "count", n, "connections", n)
    closed = connections["closed_by"]
    for name, number in ((ALL, n - closed.null_count()), *((group("by", side), int((closed == side).sum())) for side in SIDES)):
        rows.add("connections_closed", name, "count", number, "connections", n)
    reset = connections["ended"] == "reset"
    groups = {
        ALL: reset,
        **{group("by", side): reset & (connections["reset_by"] == side).fill_null(value=False) for side in SIDES},
        **{group("kind", kind): (connections["reset_kind"] == kind).fill_null(value=False) for kind in RESETS},
    }
    for name, chosen in groups.items():
        counted = chosen.to_numpy().astype(np.int64)
        rows.add("connections_reset", name, "count", int(counted.sum()), "connections", n)
        share = int(counted.sum()) / n if n else None
        rows.add("connections_reset", name, "ratio_of_sums", share, SHARE, n, ratio_by_connection(counted, np.ones(n, np.int64)))


def add_whole_connections(rows: Rows, connections: pl.DataFrame) -> None:
    """`WHOLE`, in all and by direction: what the connections inside add up to over all of their packets."""
    for metric, (column, statistic, unit) in WHOLE.items():
        sums = {name: float(connections[f"{column}_{name}"].to_numpy().sum()) for name in DIRECTIONS}
        for name, value in ((ALL, sum(sums.values())), *((group("direction", name), value) for name, value in sums.items())):
            rows.add(metric, name, statistic, value, unit, len(connections))


def add_set_up(rows: Rows, connections: pl.DataFrame, last: int, window: Window) -> None:
    """`connections_failed` by how, `syn_retries`, `connect_time` of connections that began inside, `nat_twins`; ``last``: time of the last packet inside, ns."""
    n = len(connections)
    waited = connections["last_seen"].to_numpy() + PATIENCE <= last
    for kind in FAILED_SETUPS:
        failed = (connections["setup"] == kind).to_numpy() & (waited | (kind == "refused"))
        rows.add("connections_failed", group("kind", kind), "count", int(failed.sum()), "connections", n)
    started = connections.filter(pl.col("setup") != "not_captured")
    rows.add("syn_retries", ALL, "count", len(started) - started["syn_retry_ms"].null_count(), "connections", len(started))
    began = connections.filter(pl.col("connect_ms").is_not_null(), window.holds(pl.col("first_seen").cast(pl.Datetime("ns", "UTC"))))
    add_values(rows, "connect_time", ALL, CONNECT_STATISTICS, began["connect_ms"].to_numpy(), unit="ms", of="connections")
    rows.add("nat_twins", ALL, "count", nat_twins(connections), "connections", n)


def nat_twins(connections: pl.DataFrame) -> int:
    """How many connections have the sequence numbers of another that began within a millisecond: one connection, seen under two addresses."""
    numbered = connections.drop_nulls(["isn_client", "isn_broker"]).sort("isn_client", "isn_broker", "first_seen")
    same = (
        (pl.col("isn_client").cast(pl.Int64).diff() == 0)
        & (pl.col("isn_broker").cast(pl.Int64).diff() == 0)
        & (pl.col("first_seen").diff() <= TWIN_NS)
    )
    return int(numbered.select(same.sum()).item() or 0)
