"""Round trips that ended inside the window, by half: tap → broker → tap is `to_broker`, tap → client → tap is `to_client`.

The halves are never mixed: which of them is the network depends on where the capture was taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from brokerlens.metrics.rows import Rows, group, quantiles_by_group
from brokerlens.metrics.traffic import number_connections, packets_of_parts
from brokerlens.metrics.uncertainty import Sample, add_sample, add_values
from brokerlens.metrics.window import Window
from brokerlens.tcp.content import ACK, FIN, SYN
from brokerlens.tcp.stamps import LONGEST, timestamp_round_trips

HALVES: Final[Mapping[str, bool]] = {"to_broker": True, "to_client": False}
"""Which side's packet ends the round trip: the broker's, or the client's."""
STATISTICS: Final = ("count", "min", "mean", "p50", "p90", "p95", "p99", "max")
FEWER_STATISTICS: Final = ("count", "min", "p50", "p95")
LONG_DELAY_MS: Final = 30.0
"""Receivers delay acknowledgements by 40 ms and more, never by less than this."""
USUAL_MSS: Final = 1460


class RoundTrips(NamedTuple):
    """Round trips of one half (ms), those of one connection in the order of time; for each how many bytes its packet acknowledged first."""

    sample: Sample
    acked: np.ndarray


def round_trips_of_part(part: pl.LazyFrame, connections: Sequence[str], half: str) -> RoundTrips:
    """The round trips of a half that the packets of one part ended."""
    wanted = pl.col("rtt_ms").is_not_null() & (pl.col("from_broker") == HALVES[half])
    ended = part.filter(wanted).select("connection_id", "time", "rtt_ms", "acked_bytes")
    found = number_connections(ended, connections).sort("time", "connection", "rtt_ms", "acked_bytes").collect(engine="streaming")
    time, values, connection, acked = (found[name].to_numpy() for name in ("time", "rtt_ms", "connection", "acked_bytes"))
    return RoundTrips(Sample(time, values, connection), acked)


def round_trips_inside(packets: Iterable[pl.LazyFrame], connections: Sequence[str], half: str) -> RoundTrips:
    """The round trips of a half that these packets ended."""
    found = [round_trips_of_part(part, connections, half) for part in packets]
    sample = Sample.of((trips.sample.times, trips.sample.values, trips.sample.connections) for trips in found)
    return RoundTrips(sample, np.concatenate([trips.acked for trips in found]))


def may_be_delayed(trips: RoundTrips, mss: np.ndarray) -> np.ndarray:
    """Which round trips may hold a delayed acknowledgement (RFC 5681, 4.2): of less than two full segments, and far above the smallest of their connection.

    ``mss`` per connection, 0 unknown. Selective acknowledgements and those of a SYN are not delayed.
    """
    connection, values = trips.sample.connections, trips.sample.values
    least = np.full(len(mss), np.inf)
    np.minimum.at(least, connection, values)
    small = (trips.acked > 0) & (trips.acked < 2 * np.where(mss > 0, mss, USUAL_MSS)[connection])
    return np.asarray(small & (values - least[connection] > LONG_DELAY_MS))


def slow_of_connections(trips: Sample, connections: int) -> np.ndarray:
    """The 95th percentile of each connection's round trips (ms); nan without."""
    _, found = quantiles_by_group(trips.values, trips.connections, connections, {"p95": 0.95})
    return found["p95"]


def by_timestamps(packets: Sequence[str | Path], connections: Sequence[str], window: Window) -> dict[str, np.ndarray]:
    """By half the round trips (ms) that TCP timestamps tell and that ended inside. They may begin before the window."""
    around = Window(None if window.start is None else window.start - LONGEST, window.end)
    parts = [_stamped(part, connections, window) for part in packets_of_parts(packets, around)]
    return {half: np.concatenate([values[from_broker == side] for values, from_broker in parts]) for half, side in HALVES.items()}


def _stamped(packets: pl.LazyFrame, connections: Sequence[str], window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Of one part: the round trips (ms), and which of them a packet from the broker ended."""
    carries = (pl.col("payload_len") > 0) | (pl.col("tcp_flags") & (SYN | FIN) > 0)
    stamped = packets.filter(pl.col("tsval").is_not_null(), pl.col("tsecr").is_not_null())
    wanted = stamped.select(
        pl.col("connection_id", "time", "from_broker", "tsval", "tsecr"),
        window.holds(pl.col("timestamp")).alias("inside"),
        (carries & (pl.col("segment") == "new").fill_null(value=False)).alias("begins"),
        (pl.col("tcp_flags") & ACK > 0).alias("answers"),
    )
    found = number_connections(wanted, connections).collect(engine="streaming")
    connection = found["connection"].to_numpy()
    order = np.argsort(connection, kind="stable")
    first = np.searchsorted(connection[order], np.arange(len(connections) + 1)).astype(np.int64)
    side, time, tsval, tsecr = (found[name].cast(pl.Int64).to_numpy()[order] for name in ("from_broker", "time", "tsval", "tsecr"))
    begins, answers, inside = (found[name].to_numpy()[order] for name in ("begins", "answers", "inside"))
    trip = timestamp_round_trips(first, side, time, tsval, tsecr, begins, answers)
    ended = np.flatnonzero((trip >= 0) & inside)
    return trip[ended] / 1e6, side[ended] == 1


def add_round_trips(rows: Rows, half: str, trips: RoundTrips, delayed: np.ndarray, stamped: np.ndarray) -> None:
    """`rtt`, `rtt_prompt` (without those that may hold a delayed acknowledgement) and `rtt_timestamps` of a half."""
    name = group("half", half)
    add_sample(rows, "rtt", name, STATISTICS, trips.sample, unit="ms", of="round trips")
    for metric, values in (("rtt_prompt", trips.sample.values[~delayed]), ("rtt_timestamps", stamped)):
        add_values(rows, metric, name, FEWER_STATISTICS, values, unit="ms", of="round trips")
