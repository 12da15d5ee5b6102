"""What crossed the tap inside the window: packets, bytes, rates and what TCP had to repair, from the data set `packets`.

Facts about segments are counted by their packets. Copies made by the capture are left out before anything is counted. Only whole numbers
are added up here, so the order in which polars visits the rows cannot show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from brokerlens.metrics.rows import ALL, SHARE, Rows, group
from brokerlens.metrics.uncertainty import ratio_by_connection_or_time
from brokerlens.metrics.window import SECOND, Bins, Window, bins_over
from brokerlens.tcp import evidence
from brokerlens.tcp.content import RST

DATA_SEGMENTS: Final = ("new", "retransmitted", "filled", "reordered", "ambiguous")
"""Labels of packets with payload, SYN or FIN; keep-alives and window probes carry nothing new by design."""
DIRECTIONS: Final[Mapping[str, bool]] = {"to_broker": False, "from_broker": True}

KINDS: Final = evidence.KINDS[1:]
SPURIOUS: Final = {"any": evidence.SPURIOUS, "ack": evidence.ACKED_BEFORE, "dsack": evidence.DSACK, "eifel": evidence.EIFEL}
"""Evidence that what was sent again had arrived: bits of `packets.segment_evidence` by their name in groups."""

_segment = pl.col("segment")
_kind = pl.col("retransmission_kind")


def _evidence(bits: int) -> pl.Expr:
    """Whether one of these bits speaks for the packet's label."""
    return pl.col("segment_evidence") & bits > 0


_COUNTERS: Final[Mapping[str, pl.Expr]] = {
    "packets": pl.len(),
    "bytes": pl.col("wire_len").cast(pl.Int64).sum(),
    "data_segments": _segment.is_in(DATA_SEGMENTS).sum(),
    **{label: (_segment == label).sum() for label in ("retransmitted", "filled", "reordered", "ambiguous", "keepalive", "window_probe")},
    **{f"{kind}_kind": (_kind == kind).sum() for kind in KINDS},
    **{f"spurious_{name}": (_kind.is_not_null() & _evidence(bits)).sum() for name, bits in SPURIOUS.items()},
    "large": _evidence(evidence.LARGER_THAN_MSS).sum(),
    "new_bytes": pl.col("new_bytes").cast(pl.Int64).sum(),
    "resets": (pl.col("tcp_flags") & RST > 0).sum(),
    "zero_windows": pl.col("zero_window_begins").sum(),
    "acked": pl.col("acked_bytes").cast(pl.Int64).sum(),
    "unseen": pl.col("unseen_bytes").cast(pl.Int64).sum(),
}
_OF_THE_OTHER_DIRECTION: Final = ("acked", "unseen")
"""What an acknowledgement tells is about the data of the other direction."""
COUNTERS: Final = tuple(_COUNTERS)


def packets_inside(packets: Sequence[str | Path], window: Window) -> pl.LazyFrame:
    """The packets that count: inside the window, copies made by the capture left out; ``time`` (ns) added."""
    scanned = pl.scan_parquet([str(path) for path in packets], hive_partitioning=False)
    inside = scanned.filter(~pl.col("is_duplicate"), window.holds(pl.col("timestamp")))
    return inside.with_columns(pl.col("timestamp").to_physical().alias("time"))


def packets_of_parts(packets: Sequence[str | Path], window: Window) -> list[pl.LazyFrame]:
    """`packets_inside` of each part alone. A connection is never spread over parts, so what concerns single connections needs only one part in memory."""
    return [packets_inside([part], window) for part in packets]


def number_connections(packets: pl.LazyFrame, connections: Sequence[str]) -> pl.LazyFrame:
    """The packets, in their order, with ``connection``, the place of their connection in ``connections``, instead of its id."""
    table = pl.LazyFrame({"connection_id": connections}, schema={"connection_id": pl.Categorical}).with_row_index("connection")
    numbered = packets.join(table.with_columns(pl.col("connection").cast(pl.Int32)), on="connection_id", maintain_order="left")
    return numbered.drop("connection_id")


@dataclass(frozen=True)
class Share:
    """Counts of some segments and of all data segments, by connection and by second."""

    part: np.ndarray
    whole: np.ndarray
    part_by_second: np.ndarray
    whole_by_second: np.ndarray


@dataclass(frozen=True)
class Traffic:
    """Counts of one site's packets inside the window."""

    connections: Sequence[str]
    """Ids of the connections with a packet inside, sorted."""
    first: int
    """Time of the first packet, ns; −1 without packets."""
    last: int
    by_connection: Mapping[str, np.ndarray]
    """Per counter ``int64[connections, 2]``, side 0 to the broker; ``acked`` and ``unseen`` under the direction of the data."""
    bins: Bins
    by_second: Mapping[str, np.ndarray]
    """Per counter ``int64[bins.count, 2]``."""

    def total(self, counter: str, side: bool | None = None) -> int:
        """Sum of a counter, of both directions or of one."""
        return int(of_side(self.by_connection[counter], side).sum())

    def share(self, counters: Sequence[str], side: bool | None = None) -> Share:
        """What these counters count together among the data segments, of both directions or of one."""
        return Share(
            *(
                np.sum([of_side(counted[counter], side) for counter in wanted], axis=0)
                for counted in (self.by_connection, self.by_second)
                for wanted in (counters, ("data_segments",))
            )
        )


def of_side(counts: np.ndarray, side: bool | None) -> np.ndarray:
    """Counts per row, of both directions together or of one."""
    return np.asarray(counts.sum(axis=1) if side is None else counts[:, int(side)])


def count_traffic(packets: Sequence[pl.LazyFrame], window: Window) -> Traffic:
    """Count the packets of ``packets_of_parts`` by connection and by second."""
    counters = [expression.alias(name) for name, expression in _COUNTERS.items()]
    anchor = window.start or 0
    second = anchor + (pl.col("time") - anchor) // SECOND * SECOND
    extent = [pl.col("time").min().alias("first"), pl.col("time").max().alias("last")]
    found = [
        pl.collect_all(
            [
                part.group_by("connection_id", "from_broker").agg(*counters, *extent),
                part.group_by(second.alias("second"), "from_broker").agg(*counters),
            ],
            engine="streaming",
        )
        for part in packets
    ]
    by_connection, by_second = (pl.concat([counts[place] for counts in found]) for place in (0, 1))
    by_connection = by_connection.with_columns(pl.col("connection_id").cast(pl.String))
    connections = by_connection["connection_id"].unique().sort()
    number = (
        np.searchsorted(connections.to_numpy(), by_connection["connection_id"].to_numpy()) if len(connections) else np.zeros(0, np.int64)
    )
    first, last = (int(by_connection["first"].min()), int(by_connection["last"].max())) if len(connections) else (-1, -1)  # type: ignore[arg-type]  # polars types min() of any column
    bins = bins_over(window, first, last, 1) if len(connections) else Bins(0, SECOND, 0)
    return Traffic(
        connections=connections.to_list(),
        first=first,
        last=last,
        by_connection=_spread(by_connection, number, len(connections)),
        bins=bins,
        by_second=_spread(by_second, bins.number(by_second["second"].to_numpy()), bins.count),
    )


def _spread(counted: pl.DataFrame, row: np.ndarray, rows: int) -> dict[str, np.ndarray]:
    """Each counter as an array (rows, 2)."""
    sides = counted["from_broker"].to_numpy().astype(np.int64)
    spread = {}
    for name in COUNTERS:
        array = np.zeros((rows, 2), np.int64)
        np.add.at(array, (row, 1 - sides if name in _OF_THE_OTHER_DIRECTION else sides), counted[name].cast(pl.Int64).to_numpy())
        spread[name] = array
    return spread


def directions() -> Iterator[tuple[str, bool | None]]:
    """The groups `all` and `direction=…`, with the side that each holds."""
    yield ALL, None
    for name, side in DIRECTIONS.items():
        yield group("direction", name), side


def _add_counts(rows: Rows, traffic: Traffic, metric: str, counter: str, unit: str, among: str) -> None:
    for name, side in directions():
        rows.add(metric, name, "count", traffic.total(counter, side), unit, traffic.total(among, side))


def _add_shares(rows: Rows, traffic: Traffic, metric: str, counters: Sequence[str], name: str, side: bool | None) -> None:
    """Count, and the share of the data segments with its interval."""
    share = traffic.share(counters, side)
    n = int(share.whole.sum())
    rows.add(metric, name, "count", float(share.part.sum()), "segments", n)
    interval = ratio_by_connection_or_time(share.part, share.whole, share.part_by_second, share.whole_by_second)
    rows.add(metric, name, "ratio_of_sums", share.part.sum() / n if n else None, SHARE, n, interval)


def add_packets(rows: Rows, traffic: Traffic) -> None:
    """`packets`, `bytes`, `throughput`, `goodput`, `goodput_captured`, `capture_loss`."""
    _add_counts(rows, traffic, "packets", "packets", "packets", "packets")
    for name, side in directions():
        rows.add("bytes", name, "sum", traffic.total("bytes", side), "bytes", traffic.total("packets", side))
    for name, side in directions():
        acked = traffic.total("acked", side)
        loss = traffic.total("unseen", side) / acked if acked else None
        rows.add("capture_loss", name, "ratio_of_sums", loss, SHARE, acked)


def add_health(rows: Rows, traffic: Traffic) -> None:
    """`data_segments`, `large_segments`, `retransmissions`, `reordered`, `ambiguous`, `keepalives`, `window_probes`, `zero_windows`, `resets`."""
    _add_counts(rows, traffic, "data_segments", "data_segments", "segments", "data_segments")
    for name, side in directions():
        _add_shares(rows, traffic, "retransmissions", ("retransmitted", "filled"), name, side)
    _add_shares(rows, traffic, "retransmissions", ("filled",), group("place", "before_tap"), None)
    _add_shares(rows, traffic, "retransmissions", ("retransmitted",), group("place", "behind_tap"), None)
    for kind in KINDS:
        _add_shares(rows, traffic, "retransmissions", (f"{kind}_kind",), group("kind", kind), None)
    for name in SPURIOUS:
        _add_shares(rows, traffic, "retransmissions", (f"spurious_{name}",), group("spurious", name), None)
    for name, side in directions():
        _add_shares(rows, traffic, "large_segments", ("large",), name, side)
    for metric in ("reordered", "ambiguous"):
        for name, side in directions():
            _add_shares(rows, traffic, metric, (metric,), name, side)
    _add_counts(rows, traffic, "keepalives", "keepalive", "segments", "packets")
    _add_counts(rows, traffic, "window_probes", "window_probe", "segments", "packets")
    _add_counts(rows, traffic, "zero_windows", "zero_windows", "episodes", "packets")
    _add_counts(rows, traffic, "resets", "resets", "packets", "packets")
