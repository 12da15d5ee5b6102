"""Round trips that ended inside the window, by half: tap → broker → tap is `to_broker`, tap → client → tap is `to_client`.

The halves are never mixed: which of them is the network depends on where the capture was taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl

from brokerlens.metrics.rows import Rows, group
from brokerlens.metrics.traffic import number_connections
from brokerlens.metrics.uncertainty import Sample, add_sample

HALVES: Final[Mapping[str, bool]] = {"to_broker": True, "to_client": False}
"""Which side's packet ends the round trip: the broker's, or the client's."""
STATISTICS: Final = ("count", "min", "mean", "p50", "p90", "p95", "p99", "max")


def round_trips_inside(packets: pl.LazyFrame, connections: Sequence[str]) -> tuple[Sample, np.ndarray]:
    """The round trips (ms) that these packets ended, by time and connection, and for each whether it is `to_broker`."""
    ended = packets.filter(pl.col("rtt_ms").is_not_null()).select("connection_id", "time", "from_broker", "rtt_ms")
    found = number_connections(ended, connections).sort("time", "connection", "from_broker", "rtt_ms").collect()
    sample = Sample(found["time"].to_numpy(), found["rtt_ms"].to_numpy(), found["connection"].to_numpy())
    return sample, found["from_broker"].to_numpy()


def add_round_trips(rows: Rows, round_trips: Sample, to_broker: np.ndarray) -> None:
    """`rtt` by half."""
    for half, side in HALVES.items():
        add_sample(rows, "rtt", group("half", half), STATISTICS, round_trips.only(to_broker == side), unit="ms", of="round trips")
