"""Connections that have a packet inside the window: how many, how many were reset, encrypted, authenticated, and what was wrong with their frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from brokerlens import tables
from brokerlens.metrics.rows import ALL, SHARE, Rows, group
from brokerlens.metrics.uncertainty import ratio_by_connection

ODDITIES = tuple(name for name, *_ in tables.FRAME_ODDITIES)


def connections_inside(connections: Sequence[str | Path], inside: Sequence[str]) -> pl.DataFrame:
    """The rows of the data set `connections` whose ids are in ``inside``, by id."""
    words = pl.col("connection_id", "ended", "reset_by", "tap").cast(pl.String)
    counted = pl.col("encrypted", "sasl", *ODDITIES)
    scanned = pl.scan_parquet([str(path) for path in connections], hive_partitioning=False).select(words, counted)
    wanted = pl.LazyFrame({"connection_id": inside}, schema={"connection_id": pl.String})
    return scanned.join(wanted, on="connection_id", how="semi").sort("connection_id").collect()


def add_protocols(rows: Rows, connections: pl.DataFrame) -> None:
    """`connections_encrypted`, `connections_sasl`, and `frame_oddities` by kind."""
    n = len(connections)
    for metric, column in (("connections_encrypted", "encrypted"), ("connections_sasl", "sasl")):
        rows.add(metric, ALL, "count", int(connections[column].sum()), "connections", n)
    for name, _, unit in tables.FRAME_ODDITIES:
        rows.add("frame_oddities", group("kind", name), "count", int(connections[name].sum()), unit, n)


def add_connections(rows: Rows, connections: pl.DataFrame) -> None:
    """`connections`, and `connections_reset` in all and by the side that sent the first RST."""
    n = len(connections)
    rows.add("connections", ALL, "count", n, "connections", n)
    reset = connections["ended"] == "reset"
    groups = {
        ALL: reset,
        **{group("by", side): reset & (connections["reset_by"] == side).fill_null(value=False) for side in ("client", "broker")},
    }
    for name, chosen in groups.items():
        counted = chosen.to_numpy().astype(np.int64)
        rows.add("connections_reset", name, "count", int(counted.sum()), "connections", n)
        share = int(counted.sum()) / n if n else None
        rows.add("connections_reset", name, "ratio_of_sums", share, SHARE, n, ratio_by_connection(counted, np.ones(n, np.int64)))
