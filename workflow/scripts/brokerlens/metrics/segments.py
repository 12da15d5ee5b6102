"""What single packets tell inside the window: reordering, bytes in flight, copies, and what each capture lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from brokerlens.metrics.rows import ALL, SHARE, Rows, group
from brokerlens.metrics.traffic import DIRECTIONS
from brokerlens.metrics.uncertainty import add_values
from brokerlens.metrics.variation import SENT_BY_TAPPED_HOST
from brokerlens.metrics.window import Window

STATISTICS: Final = ("count", "p50", "p95", "max")
DUPLICATES: Final = ("interface", "capture", "pattern", "network")
MOST_CAPTURES: Final = 20
OTHER: Final = "other"


def _values(packets: pl.LazyFrame, column: str) -> np.ndarray:
    """The values of a column where it has one."""
    return packets.select(pl.col(column).drop_nulls()).collect().to_series().to_numpy()


def add_reordering(rows: Rows, packets: pl.LazyFrame) -> None:
    """`reordering_extent` and `reordering_delay` by direction."""
    late = packets.filter(pl.col("segment") == "reordered")
    for name, side in DIRECTIONS.items():
        of_side = late.filter(pl.col("from_broker") == side)
        for metric, column, unit in (("reordering_extent", "late_segments", "segments"), ("reordering_delay", "late_ms", "ms")):
            add_values(rows, metric, group("direction", name), STATISTICS, _values(of_side, column), unit=unit, of="segments")


def add_in_flight(rows: Rows, packets: pl.LazyFrame, tap: str) -> None:
    """`in_flight` of what the tapped host itself sends; elsewhere an acknowledgement is still under way when the next segment passes."""
    for name, side in DIRECTIONS.items():
        sent_here = packets.filter(pl.col("from_broker") == side, pl.lit(SENT_BY_TAPPED_HOST.get(tap) == name))
        add_values(rows, "in_flight", group("direction", name), STATISTICS, _values(sent_here, "in_flight"), unit="bytes", of="segments")


def add_duplicates(rows: Rows, packets: Sequence[str | Path], window: Window) -> None:
    """`duplicates` by what shows that they are copies, and `duplicate_gap`."""
    scanned = pl.scan_parquet([str(path) for path in packets], hive_partitioning=False).filter(window.holds(pl.col("timestamp")))
    kind = pl.col("duplicate_kind").cast(pl.String)
    counted = (
        scanned.select(pl.len().alias("packets"), *[(kind == name).sum().alias(name) for name in DUPLICATES]).collect().row(0, named=True)
    )
    n = counted["packets"]
    for name, copies in ((ALL, sum(counted[kind] for kind in DUPLICATES)), *((group("kind", kind), counted[kind]) for kind in DUPLICATES)):
        rows.add("duplicates", name, "count", copies, "packets", n)
        rows.add("duplicates", name, "ratio_of_sums", copies / n if n else None, SHARE, n)
    gaps = _values(scanned.filter(kind != "network"), "duplicate_gap_ms")
    add_values(rows, "duplicate_gap", ALL, STATISTICS, gaps, unit="ms", of="packets")


def add_capture_loss(rows: Rows, packets: pl.LazyFrame) -> None:
    """`capture_loss` by capture, the 20 that lost most and the rest together; a fact about captures, so it changes with how they were cut."""
    by_capture = packets.group_by(pl.col("capture").cast(pl.String)).agg(
        pl.col("acked_bytes").cast(pl.Int64).sum().alias("acked"), pl.col("unseen_bytes").cast(pl.Int64).sum().alias("unseen")
    )
    counted = by_capture.sort("unseen", "capture", descending=[True, False]).collect()
    named = [(group("capture", name), acked, unseen) for name, acked, unseen in counted.head(MOST_CAPTURES).iter_rows()]
    rest = counted.slice(MOST_CAPTURES)
    if len(rest):
        named.append((group("capture", OTHER), int(rest["acked"].sum()), int(rest["unseen"].sum())))
    for name, acked, unseen in named:
        rows.add("capture_loss", name, "ratio_of_sums", unseen / acked if acked else None, SHARE, acked)
