"""Variation in time, under four names that are never mixed up (RFC 3393, RFC 5481, RFC 3550): `iat_mas`, `rtt_ipdv`, `rtt_pdv`, `owdv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from brokerlens.metrics.rows import Rows, group, quantile
from brokerlens.metrics.round_trips import HALVES
from brokerlens.metrics.traffic import DIRECTIONS, number_connections
from brokerlens.metrics.uncertainty import Sample, add_sample

STATISTICS: Final = ("count", "mean", "p50", "p95", "p99", "max")
NOBODY: Final = Sample(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))


def add_variation(
    rows: Rows, packets: pl.LazyFrame, connections: Sequence[str], round_trips: Sample, to_broker: np.ndarray, tap: str
) -> None:
    """`iat_mas`, `owdv` by direction, `rtt_ipdv`, `rtt_pdv` by half."""
    halves = {half: round_trips.only(to_broker == side) for half, side in HALVES.items()}
    idle = idle_gap(list(halves.values()))
    data = packets.filter(pl.col("payload_len") > 0, pl.col("segment") == "new").select("connection_id", "time", "from_broker", "tsval")
    for direction, side in DIRECTIONS.items():
        sent = number_connections(data.filter(pl.col("from_broker") == side), connections).sort("connection", "time").collect()
        arrivals = Sample(sent["time"].to_numpy(), np.zeros(len(sent)), sent["connection"].to_numpy())
        add_sample(rows, "iat_mas", group("direction", direction), STATISTICS, gap_changes(arrivals, idle), unit="ms", of="pairs")
    for half, trips in halves.items():
        add_sample(rows, "rtt_ipdv", group("half", half), STATISTICS, successive_changes(trips, idle), unit="ms", of="pairs")
    for half, trips in halves.items():
        add_sample(rows, "rtt_pdv", group("half", half), STATISTICS, above_smallest(trips), unit="ms", of="round trips")
    for direction in DIRECTIONS:
        add_sample(rows, "owdv", group("direction", direction), STATISTICS, NOBODY, unit="ms", of="pairs")


def idle_gap(halves: Sequence[Sample]) -> int:
    """Longest gap (ns) that counts as one flow of packets: 200 ms, or four times the 95th percentile of the slower half's round trips."""
    p95 = [quantile(np.sort(trips.values), 0.95) for trips in halves if trips.n]
    return int(max(200.0, *(4.0 * value for value in p95), 0.0) * 1e6)


def _by_connection(sample: Sample) -> Sample:
    return sample.only(np.lexsort((sample.times, sample.connections)))


def gap_changes(arrivals: Sample, idle: int) -> Sample:
    """|difference| of successive inter-arrival times (ms) of a connection, both at most ``idle`` ns."""
    arrivals = _by_connection(arrivals)
    gaps = np.diff(arrivals.times)
    within = (np.diff(arrivals.connections) == 0) & (gaps <= idle)
    pairs = np.flatnonzero(within[1:] & within[:-1])
    return Sample(arrivals.times[pairs + 2], np.abs(gaps[pairs + 1] - gaps[pairs]) / 1e6, arrivals.connections[pairs])


def successive_changes(trips: Sample, idle: int) -> Sample:
    """|difference| of successive round trips (ms) of a connection that ended at most ``idle`` ns apart."""
    trips = _by_connection(trips)
    pairs = np.flatnonzero((np.diff(trips.connections) == 0) & (np.diff(trips.times) <= idle))
    return Sample(trips.times[pairs + 1], np.abs(trips.values[pairs + 1] - trips.values[pairs]), trips.connections[pairs])


def above_smallest(trips: Sample) -> Sample:
    """Each round trip less the smallest of its connection (ms)."""
    smallest = np.full(int(trips.connections.max(initial=-1)) + 1, np.inf)
    np.minimum.at(smallest, trips.connections, trips.values)
    return Sample(trips.times, trips.values - smallest[trips.connections], trips.connections)
