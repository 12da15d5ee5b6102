"""One side of a comparison: a site of an experiment, its window applied, with the arms, ratios and rates that are compared.

What counts is decided by `brokerlens.metrics`, so that a comparison speaks of the same figures as the metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from brokerlens.metrics import connections as of_connections
from brokerlens.metrics import latency, traffic
from brokerlens.metrics.rates import Rate, rates
from brokerlens.metrics.round_trips import HALVES, round_trips_inside, slow_of_connections
from brokerlens.metrics.taps import tap_of
from brokerlens.metrics.uncertainty import Sample
from brokerlens.metrics.variation import SMOOTHED, idle_gaps, variations
from brokerlens.metrics.window import Window
from brokerlens.statistics.arms import Arm
from brokerlens.statistics.contrasts import over_clock, within
from brokerlens.statistics.intervals import Clusters, Interval, Stretches, mean_of_bins

Paths = Sequence[str | Path]
Key = tuple[str, str]
"""A metric and its group."""

MS: Final = 1e6
"""Nanoseconds of a millisecond."""
PARTS: Final = ("kafka_queue", "kafka_broker", "kafka_network", "kafka_transfer")
"""The parts that add up to the whole time; service and total are sums of them."""


@dataclass(frozen=True)
class Ratio:
    """A share by connection, and in time where it has a course; ``None`` where there is nothing that it is a share of."""

    by_connection: Clusters | None
    in_time: Stretches | None


@dataclass
class Side:
    """A site of an experiment as one side of comparisons; times are on the reference clock where the site's offset is configured."""

    facts: Mapping[str, Any]
    """The site's row of the data set `sites`, times in ns."""
    arms: Mapping[Key, Arm]
    ratios: Mapping[Key, Ratio]
    rates: Mapping[Key, Interval]
    connections: int
    """Connections with a packet inside the window."""
    capture_loss: float | None
    _asked: tuple[int, int] | None = None
    """The stretch of the clock that was asked for last: only of it arms are kept, as copies for every pair's stretch would fill the memory."""
    _within: dict[Key, Arm] = field(default_factory=dict)
    _by_clock: dict[tuple[Key, int], Arm] = field(default_factory=dict)

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.facts["experiment"])

    @property
    def site(self) -> str:
        """Name of the site."""
        return str(self.facts["site"])

    @property
    def condition(self) -> str:
        """Name of the condition that the experiment is a run of; the experiment's own without one."""
        return str(self.facts["condition"])

    @property
    def tap(self) -> str:
        """Where the capture was taken: as configured, else as found."""
        return _tap(self.facts)

    @property
    def stretch(self) -> tuple[int, int] | None:
        """What was captured of the window, ns on the reference clock; ``None`` if that is nothing."""
        first, last = self.facts["first_seen"], self.facts["last_seen"]
        if first is None or last is None:
            return None
        start = first if self.facts["window_start"] is None else max(first, self.facts["window_start"])
        end = last if self.facts["window_end"] is None else min(last, self.facts["window_end"])
        offset = clock_offset(self.facts)
        return (start - offset, end - offset) if end > start else None

    @property
    def uncovered(self) -> float:
        """Share of a window closed on both sides that lies before the first or after the last packet captured."""
        start, end = self.facts["window_start"], self.facts["window_end"]
        if start is None or end is None or end <= start:
            return 0.0
        captured = self.stretch
        return 1.0 - (captured[1] - captured[0]) / (end - start) if captured else 1.0

    def arm(self, key: Key) -> Arm:
        """The arm of a metric and group; one without values where there is none."""
        return self.arms.get(key) or Arm([], [])

    def arm_within(self, key: Key, start: int, end: int) -> Arm:
        """The arm's values of a stretch of the clock; kept, as most pairs have the same stretch."""
        self._keep_only_of(start, end)
        if key not in self._within:
            self._within[key] = within(self.arm(key), start, end)
        return self._within[key]

    def arm_over_clock(self, key: Key, start: int, end: int, bins: int) -> Arm:
        """The arm over equal bins of that stretch; kept alike."""
        self._keep_only_of(start, end)
        if (key, bins) not in self._by_clock:
            self._by_clock[key, bins] = over_clock(self.arm_within(key, start, end), start, end, bins)
        return self._by_clock[key, bins]

    def _keep_only_of(self, start: int, end: int) -> None:
        if self._asked != (start, end):
            self._within.clear()
            self._by_clock.clear()
            self._asked = start, end


def _tap(facts: Mapping[str, Any]) -> str:
    return tap_of(str(facts["tap_configured"]), str(facts["tap_found"]))


def clock_offset(facts: Mapping[str, Any]) -> int:
    """The site's clock minus the reference clock, ns; 0 where it is not known."""
    offset = facts["clock_offset_ms"]
    return 0 if offset is None else round(offset * MS)


def read_side(facts: Mapping[str, Any], *, packets: Paths, requests: Paths, connections: Paths, metrics: Paths) -> Side:
    """Read one site's data sets inside its window.

    ``facts`` is the site's row of the data set `sites`, times in ns; the others are its files.
    """
    window = Window(facts["window_start"], facts["window_end"])
    parts = traffic.packets_of_parts(packets, window)
    counted = traffic.count_traffic(parts, window)
    offset = clock_offset(facts)
    round_trips, slow = {}, []
    for half in HALVES:  # one after the other: they are what a large site has most of
        trips = round_trips_inside(parts, counted.connections, half).sample
        round_trips["rtt", f"half={half}"] = trips.arm(offset)
        slow.append(slow_of_connections(trips, len(counted.connections)))
        del trips
    varied = variations(parts, counted.connections, idle_gaps(slow), _tap(facts))
    varying = {(one.metric, one.group): one.sample.arm(offset) for one in varied if one.metric != SMOOTHED}
    # Requests are read last: packets and requests of a large site need not be in memory together.
    asked = latency.Groups(latency.requests_inside(requests, window))
    timed = {key: sample.arm(offset) for key, sample in _latencies(asked)}
    return Side(
        facts=facts,
        arms={key: arm for key, arm in (timed | round_trips | varying).items() if arm.n},
        ratios=_ratios(counted, of_connections.connections_inside(connections, counted.connections)),
        rates={(rate.metric, rate.group): mean_of_bins(rate.per_second) for rate in _compared(rates(counted, asked))},
        connections=len(counted.connections),
        capture_loss=_capture_loss(metrics),
    )


def _latencies(asked: latency.Groups) -> Iterator[tuple[Key, Sample]]:
    prompt, values = asked.timed & ~asked.waits, asked.values("latency_ms")
    yield ("kafka_latency", "all"), asked.sample(values, prompt)
    for name, mask in asked.apis():
        if name != "api=Fetch":
            yield ("kafka_latency", name), asked.sample(values, asked.timed & mask)
    for metric in PARTS:
        yield (metric, "all"), asked.sample(asked.values(latency.PARTS[metric]), prompt)


def _ratios(counted: traffic.Traffic, connections: pl.DataFrame) -> dict[Key, Ratio]:
    again = ("retransmitted", "filled")
    shares = {
        "all": counted.share(again),
        **{f"direction={name}": counted.share(again, side) for name, side in traffic.DIRECTIONS.items()},
        "place=before_tap": counted.share(("filled",)),
        "place=behind_tap": counted.share(("retransmitted",)),
    }
    found = {
        ("retransmissions", name): Ratio(Clusters.of(share.part, share.whole), Stretches.of(share.part_by_second, share.whole_by_second))
        for name, share in shares.items()
    }
    reset = (connections["ended"] == "reset").to_numpy().astype(np.int64)
    return found | {("connections_reset", "all"): Ratio(Clusters.of(reset, np.ones(len(reset))), None)}


def _compared(found: Iterable[Rate]) -> Iterator[Rate]:
    """The rates that are known; `goodput_captured` tells of the capture, not of the network."""
    return (rate for rate in found if rate.per_second.size and rate.metric != "goodput_captured")


def _capture_loss(metrics: Paths) -> float | None:
    """Capture loss inside the window, as the metrics have it."""
    wanted = (pl.col("metric") == "capture_loss") & (pl.col("group") == "all") & (pl.col("statistic") == "ratio_of_sums")
    for path in metrics:
        columns = pl.read_parquet(path, columns=["metric", "group", "statistic", "value"], hive_partitioning=False)
        found = columns.with_columns(pl.col("metric", "group", "statistic").cast(pl.String)).filter(wanted)["value"]
        if len(found) and found[0] is not None:
            return float(found[0])
    return None
