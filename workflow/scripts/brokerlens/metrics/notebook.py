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
ID_GROUPS: Final = 16
_FLOW = ["src_ip", "src_port", "dst_ip", "dst_port", "from_broker"]


class Packets(NamedTuple):
    """What the notebook looked at in one part, one value per packet (integers, ``bool[n]``), in the order of time."""

    time: np.ndarray
    """ns since 1970 UTC, ``int64[n]``."""
    flow: np.ndarray
    """Number of (source address, destination address, source port, destination port), ``int64[n]``: twice that of the address pair, 1 more from the broker."""
    seq: np.ndarray
    """Raw sequence number."""
    flags: np.ndarray
    """TCP flags."""
    window: np.ndarray
    """Raw window field."""
    arrival: np.ndarray
    """The source address is a broker's."""
    payload: np.ndarray
    """Payload captured, Ethernet padding counted (bytes)."""
    correlation: np.ndarray
    """The four bytes that the notebook took for a correlation id."""


class Messages(NamedTuple):
    """Packets with a correlation id, of all parts; those of one address pair in the order of time."""

    correlation: np.ndarray
    time: np.ndarray
    flow: np.ndarray

    def only(self, chosen: np.ndarray) -> Messages:
        """Those at a mask or at indices."""
        return Messages(*(column[chosen] for column in self))


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
    """``int64``, in no order."""


def retransmissions(packets: Packets) -> int:
    """Payloads whose sequence number their flow had before: all but the first of each (flow, number)."""
    carries = packets.payload > 0
    key = packets.flow[carries].astype(np.int64) << 32 | packets.seq[carries].astype(np.int64)
    key.sort()  # np.unique would hash, which takes thirty times as long
    return int((key[1:] == key[:-1]).sum())


def gap_changes(arrivals: Sequence[np.ndarray]) -> np.ndarray:
    """|Difference| of successive gaps (ns) between arrivals at these times, gaps of 1000 ms and more taken out before."""
    times = np.concatenate(arrivals)
    times.sort()
    gaps = np.diff(times)
    changes = np.diff(gaps[gaps < LONGEST_GAP])
    return np.abs(changes, out=changes)


def messages(packets: Packets) -> Messages:
    """Those with a payload long enough for a correlation id."""
    long = packets.payload > SHORTEST
    return Messages(packets.correlation[long], packets.time[long], packets.flow[long])


def latencies(sent: Sequence[Messages]) -> np.ndarray:
    """Response time - request time in ns, matched by correlation id over all parts.

    A request overwrites what is pending under its id, a response takes it away: a response has a latency exactly where the packet before it
    with the same id is a request. Packets of the same time are ordered by address pair.
    """
    # Ids have nothing to do with each other, so not all of them need be in order at once.
    return np.concatenate([_latencies([part.only(part.correlation % ID_GROUPS == number) for part in sent]) for number in range(ID_GROUPS)])


def _latencies(parts: Sequence[Messages]) -> np.ndarray:
    sent = Messages(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    identity, time, flow = sent.only(np.lexsort((sent.flow >> 1, sent.time, sent.correlation)))
    response = flow & 1 == 1
    answers = np.flatnonzero(response[1:] & ~response[:-1] & (identity[1:] == identity[:-1])) + 1
    return np.asarray(time[answers] - time[answers - 1])


def notebook_figures(
    packets: Sequence[Path | str], notebook: Sequence[Path | str], window: Window, brokers: Iterable[str]
) -> NotebookFigures:
    """All of the notebook's figures, of the packets inside the window that it would have counted: IPv4, copies made by the capture included.

    ``packets`` and ``notebook`` are the parts of both data sets, in the same order. An address pair has all of its packets in one part; what depends on
    packets of others is brought together, so that the number of parts changes nothing.
    """
    parts = [_aligned(*pair) for pair in zip(packets, notebook, strict=True)]
    inside = [part.filter(window.holds(pl.col("timestamp"))) for part in parts]
    flows = _number_flows(pl.concat([part.select(_FLOW).unique() for part in inside]).collect(engine="streaming"), brokers)
    counted = dict.fromkeys(("packets", "payloads", "resets", "zero_windows", "retransmissions"), 0)
    arrivals, sent = [], []
    for part in inside:
        found = _packets(part, flows)
        counted["packets"] += int(found.time.size)
        counted["payloads"] += int((found.payload > 0).sum())
        counted["resets"] += int((found.flags & RST > 0).sum())
        counted["zero_windows"] += int((found.window == 0).sum())
        counted["retransmissions"] += retransmissions(found)
        arrivals.append(found.time[found.arrival])
        sent.append(messages(found))
    # What takes most memory goes first, and goes away.
    found_latencies = latencies(sent)
    del sent
    return NotebookFigures(**counted, gap_changes=gap_changes(arrivals), latencies=found_latencies)


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


def _packets(part: pl.LazyFrame, flows: pl.DataFrame) -> Packets:
    """The packets of one part that are of these flows."""
    numbered = part.join(flows.lazy(), on=_FLOW, maintain_order="left").select(pl.exclude(_FLOW))
    rows = numbered.with_columns(pl.col("timestamp").to_physical()).collect(engine="streaming")

    def taken(name: str) -> np.ndarray:
        """A column, which leaves the rows: so that no more than one is there twice."""
        return rows.drop_in_place(name).to_numpy()

    return Packets(
        time=taken("timestamp"),
        flow=taken("flow"),
        seq=taken("seq"),
        flags=taken("tcp_flags"),
        window=taken("window_size"),
        arrival=taken("arrival"),
        payload=taken("padded_len"),
        correlation=taken("notebook_id"),
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
    number = pl.col("pair").cast(pl.Int32) * 2 + sent.cast(pl.Int32)
    arrival = sent | pl.col("src_ip").cast(pl.String).is_in(sorted({host(broker) for broker in brokers}))
    return flows.join(pairs, on=names).select(*_FLOW, number.alias("flow"), arrival.alias("arrival"))
