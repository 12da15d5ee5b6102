"""Variation in time, under names that are never mixed up (`brokerlens.tcp.variation`): `iat_mas`, `rtt_ipdv`, `rtt_pdv`, `owdv`, `owdv_rfc3550`.

`idle_gap` says from which gap on two packets are no longer neighbours in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from brokerlens.metrics.round_trips import HALVES, round_trips_of_part
from brokerlens.metrics.rows import ALL, Rows, group
from brokerlens.metrics.traffic import DIRECTIONS, number_connections
from brokerlens.metrics.uncertainty import Sample, add_sample, add_values
from brokerlens.tcp import variation

STATISTICS: Final = ("count", "mean", "p50", "p95", "p99", "max")
NS_PER_MS: Final = 1e6
SMOOTHED: Final = "owdv_rfc3550"
SENT_BY_TAPPED_HOST: Final = {"client": "to_broker", "broker": "from_broker"}


@dataclass(frozen=True)
class Variation:
    """One of the named variations: its samples in ms, and what each is one of."""

    metric: str
    group: str
    sample: Sample
    of: str


def variations(packets: Sequence[pl.LazyFrame], connections: Sequence[str], idle: np.ndarray, tap: str) -> Iterator[Variation]:
    """`iat_mas`, `owdv`, `owdv_rfc3550` by direction, `rtt_ipdv`, `rtt_pdv` by half.

    ``packets`` of each part, ``idle`` the gap (ns) per connection from which packets are no neighbours, ``tap`` client, broker, middle or unknown.
    """
    for direction, side in DIRECTIONS.items():
        name = group("direction", direction)
        arrived = (_sent(part, connections, side, "time") for part in packets)
        yield Variation("iat_mas", name, _sample(variation.iat_changes(connection, time, idle) for connection, time in arrived), "pairs")
        passes_the_way_first = SENT_BY_TAPPED_HOST.get(tap) != direction
        stamped = [part.filter(pl.col("tsval").is_not_null()) for part in packets if passes_the_way_first]
        sent = (_sent(part, connections, side, "time", "tsval") for part in stamped)
        one_way = [variation.owdv(connection, time, tsval, idle) for connection, time, tsval in sent]
        yield Variation("owdv", name, _sample(found.changes for found in one_way), "pairs")
        yield Variation(SMOOTHED, name, _sample(found.smoothed for found in one_way), "pairs")
    for half in HALVES:
        yield from _of_round_trips(packets, connections, idle, half)


def _of_round_trips(packets: Sequence[pl.LazyFrame], connections: Sequence[str], idle: np.ndarray, half: str) -> Iterator[Variation]:
    """`rtt_ipdv` and `rtt_pdv` of one half."""
    successive, above_least = [], []
    for part in packets:
        trips = round_trips_of_part(part, connections, half).sample
        samples = trips.connections, trips.times, np.rint(trips.values * NS_PER_MS).astype(np.int64)
        successive.append(variation.rtt_ipdv(*samples, idle))
        above_least.append(variation.rtt_pdv(*samples))
    yield Variation("rtt_ipdv", group("half", half), _sample(successive), "pairs")
    yield Variation("rtt_pdv", group("half", half), _sample(above_least), "round trips")


def _sent(packets: pl.LazyFrame, connections: Sequence[str], side: bool, *columns: str) -> Iterator[np.ndarray]:
    """Of the data packets of one direction that carry something new: connection and these columns, in their order."""
    data = packets.filter(pl.col("payload_len") > 0, pl.col("segment") == "new", pl.col("from_broker") == side)
    numbered = number_connections(data.select("connection_id", *columns), connections)
    sent = numbered.select("connection", *columns).sort("connection", *columns).collect(engine="streaming")
    return (sent[column].to_numpy() for column in ("connection", *columns))


def _sample(found: Iterable[variation.Values]) -> Sample:
    return Sample.of((part.time, part.value, part.group) for part in found)


def add_variation(rows: Rows, packets: Sequence[pl.LazyFrame], connections: Sequence[str], idle: np.ndarray, tap: str) -> None:
    """`idle_gap`, then every variation; the smoothed one is an estimator, whose values are no sample."""
    add_values(rows, "idle_gap", ALL, ("count", "min", "p50", "max"), idle / NS_PER_MS, unit="ms", of="connections")
    for one in variations(packets, connections, idle, tap):
        if one.metric == SMOOTHED:
            add_values(rows, one.metric, one.group, ("count", "mean"), one.sample.values, unit="ms", of=one.of)
        else:
            add_sample(rows, one.metric, one.group, STATISTICS, one.sample, unit="ms", of=one.of)
        del one  # before the next one is made


def idle_gaps(slow: Sequence[np.ndarray]) -> np.ndarray:
    """Per connection the longest gap (ns) that counts as one flow of packets, from the 95th percentile of its round trips (ms, nan unknown) in each half."""
    slower = np.fmax.reduce(slow)
    return variation.idle_gap(np.where(np.isnan(slower), -1, np.rint(slower * NS_PER_MS)).astype(np.int64))
