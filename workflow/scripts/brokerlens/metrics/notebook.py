"""The figures of the notebook that this workflow replaces, computed as it computed them, for people who published them (`notebook_*`).

The notebook walked all packets of a site in the order of time and kept, for the whole site, one set of sequence numbers per (source
address, destination address, ports) and one dictionary of pending correlation ids. Here the same is done on arrays: what the set and the
dictionary would have held follows from sorting. docs/metrics.md says why these figures differ from the workflow's own.

Times are whole nanoseconds until a difference has been taken, where the notebook had floating-point seconds (whose spacing at today's
times is 0.24 µs): every latency and arrival gap agrees with the notebook's to that rounding, and a gap of exactly 1000 ms counts as one
that is not below 1000 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from brokerlens.errors import UserError
from brokerlens.metrics.window import Window

RST: Final = 0x04
SHORTEST: Final = 12
"""Payloads up to this length were not looked at for a correlation id."""
LONGEST_GAP: Final = 1_000_000_000
"""Gaps between arrivals of this length and more, in ns, were left out of the notebook's jitter."""
NS_PER_MS: Final = 1_000_000
_FLOW = ["src_ip", "src_port", "dst_ip", "dst_port", "from_broker"]


class NotebookPackets(NamedTuple):
    """What the notebook looked at, one value per packet (integers, ``bool[n]``), in the order of time."""

    time: np.ndarray
    """ns since 1970 UTC, ``int64[n]``."""
    flow: np.ndarray
    """Number of (source address, destination address, source port, destination port), ``int64[n]``."""
    seq: np.ndarray
    """Raw sequence number."""
    flags: np.ndarray
    """TCP flags."""
    window: np.ndarray
    """Raw window field."""
    from_broker: np.ndarray
    """Sent from a broker's port; else to one."""
    arrival: np.ndarray
    """The source address is a broker's."""
    payload: np.ndarray
    """Payload captured, Ethernet padding counted (bytes)."""
    correlation: np.ndarray
    """The four bytes that the notebook took for a correlation id."""


class NotebookFigures(NamedTuple):
    """The notebook's figures; differences of time in ns."""

    packets: int
    payloads: int
    resets: int
    zero_windows: int
    retransmissions: int
    gap_changes: np.ndarray
    """|difference| of successive arrival gaps below 1000 ms, ``int64``."""
    latencies: np.ndarray
    """Latencies in the order in which they ended, ``int64``."""


def retransmissions(packets: NotebookPackets) -> int:
    """Payloads whose sequence number their flow had before: all but the first of each (flow, number)."""
    carries = packets.payload > 0
    key = packets.flow[carries] << 32 | packets.seq[carries].astype(np.int64)
    return int(key.size - np.unique(key).size)


def gap_changes(packets: NotebookPackets) -> np.ndarray:
    """|Difference| of successive arrival gaps in ns, gaps of 1000 ms and more taken out before."""
    gaps = np.diff(packets.time[packets.arrival])
    return np.asarray(np.abs(np.diff(gaps[gaps < LONGEST_GAP])))


def latencies(packets: NotebookPackets) -> np.ndarray:
    """Response time - request time in ns, matched by correlation id over the whole site.

    A request overwrites what is pending under its id, a response takes it away: a response has a latency exactly where the packet before it
    with the same id is a request.
    """
    looked_at = np.flatnonzero(packets.payload > SHORTEST)
    by_id = looked_at[np.argsort(packets.correlation[looked_at], kind="stable")]
    response, identity = packets.from_broker[by_id], packets.correlation[by_id]
    answers = np.flatnonzero(response[1:] & ~response[:-1] & (identity[1:] == identity[:-1])) + 1
    ended = np.sort(by_id[answers])
    began = by_id[answers - 1][np.argsort(by_id[answers])]
    return np.asarray(packets.time[ended] - packets.time[began])


def notebook_figures(packets: NotebookPackets) -> NotebookFigures:
    """All of the notebook's figures."""
    return NotebookFigures(
        packets=int(packets.time.size),
        payloads=int((packets.payload > 0).sum()),
        resets=int((packets.flags & RST > 0).sum()),
        zero_windows=int((packets.window == 0).sum()),
        retransmissions=retransmissions(packets),
        gap_changes=gap_changes(packets),
        latencies=latencies(packets),
    )


def host(broker: str) -> str:
    """The address of ``ip:port`` or ``[ipv6]:port``."""
    return broker.rpartition(":")[0].strip("[]")


def _aligned(packets: Path | str, notebook: Path | str) -> pl.LazyFrame:
    """One part of the packets with what the notebook needs beside each."""
    left = pl.scan_parquet(packets, hive_partitioning=False).select(*_FLOW, "timestamp", "seq", "tcp_flags", "window_size")
    right = pl.scan_parquet(notebook, hive_partitioning=False).rename({"timestamp": "notebook_time"})
    rows = pl.concat([left, right.select("notebook_time", "padded_len", "notebook_id")], how="horizontal")
    differ = pl.col("timestamp").to_physical().ne_missing(pl.col("notebook_time").cast(pl.Int64)).any()
    lengths = {pq.read_metadata(path).num_rows for path in (packets, notebook)}
    if len(lengths) > 1 or rows.select(differ).collect(engine="streaming").item():
        raise UserError(
            f"{notebook}: its rows are not those of {packets}: one of the two is from an earlier run. "
            "Run merge_site again for this site (snakemake --forcerun merge_site)."
        )
    return rows.drop("notebook_time")


def read_packets(packets: Sequence[Path | str], notebook: Sequence[Path | str], window: Window, brokers: Iterable[str]) -> NotebookPackets:
    """The packets inside the window that the notebook would have counted: IPv4, copies made by the capture included.

    ``packets`` and ``notebook`` are the parts of both data sets, in the same order. Parts are merged by time; packets of the same time are
    ordered by connection, those of one connection as they stand, so that the number of parts changes nothing.
    """
    parts = [_aligned(*pair) for pair in zip(packets, notebook, strict=True)]
    rows = pl.concat(parts).filter(window.holds(pl.col("timestamp"))).collect()
    flows = _number_flows(rows, brokers)
    rows = rows.join(flows, on=_FLOW, maintain_order="left").select(pl.exclude("src_ip", "src_port", "dst_ip", "dst_port"))
    time, flow = rows["timestamp"].to_physical().to_numpy(), rows["flow"].to_numpy()
    order = np.lexsort((flow >> 1, time))

    def column(name: str) -> np.ndarray:
        return rows[name].to_numpy()[order]

    return NotebookPackets(
        time=time[order],
        flow=flow[order],
        seq=column("seq"),
        flags=column("tcp_flags"),
        window=column("window_size"),
        from_broker=column("from_broker"),
        arrival=column("arrival"),
        payload=column("padded_len"),
        correlation=column("notebook_id"),
    )


def _number_flows(rows: pl.DataFrame, brokers: Iterable[str]) -> pl.DataFrame:
    """The distinct IPv4 flows with a number, twice the rank of their address pair, 1 more from the broker; and whether a broker's address sends."""
    names = ["client_ip", "client_port", "broker_ip", "broker_port"]
    source, target = [pl.col("src_ip"), pl.col("src_port")], [pl.col("dst_ip"), pl.col("dst_port")]
    sent = pl.col("from_broker")
    ends = [
        pl.when(sent).then(there).otherwise(here).alias(name)
        for here, there, name in zip(source + target, target + source, names, strict=True)
    ]
    flows = (
        rows.select(_FLOW)
        .unique()
        .with_columns(end.cast(pl.String) if end.meta.output_name().endswith("ip") else end for end in ends)
        .filter(~pl.col("client_ip").str.contains(":", literal=True))
    )
    pairs = flows.select(names).unique().sort(names).with_row_index("pair")
    number = pl.col("pair").cast(pl.Int64) * 2 + sent.cast(pl.Int64)
    arrival = sent | pl.col("src_ip").cast(pl.String).is_in(sorted({host(broker) for broker in brokers}))
    return flows.join(pairs, on=names).select(*_FLOW, number.alias("flow"), arrival.alias("arrival"))
