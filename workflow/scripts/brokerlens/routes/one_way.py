"""The clocks of two taps that captured the same packets, and how long the packets were on their way.

Of packets to the broker the difference of the taps' times is delay + offset, of packets from it delay − offset, where offset is the broker's tap's clock
minus the client's. No delay is below 0, so that the smallest differences of both directions bound the offset, half the smallest round trip on either
side of their middle; it is the middle if the fastest packets take as long in both directions (Paxson 1998; Moon, Skelly and Towsley 1999).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

MS: Final = 1e6
"""Nanoseconds of a millisecond."""
LEAST_PACKETS: Final = 10
"""Packets of a direction that an estimate needs."""
PER_BIN: Final = 50
"""Packets of a direction that a time bin should have: the smallest of that many is near the path's own delay."""
MOST_BINS: Final = 60
LEAST_BINS: Final = 6
"""Bins that a drift, or a step, needs."""
LEAST_STEP_MS: Final = 1.0
"""A step below this is not told from the scatter of the smallest delays."""
STEP_BINS: Final = 3
"""Bins on either side of a step."""
FAR_APART_MS: Final = 60_000.0
"""Clocks further apart than this are not the work of a bad clock but of a wrong setting, and the report says so."""

Source = Literal["configured", "estimated", "unknown"]


@dataclass(frozen=True)
class Clock:
    """The broker's tap's clock minus the client's: ``offset_ms`` at ``middle`` (ns by the client's clock), changing by ``drift_ppm``."""

    source: Source
    reason: str | None = None
    middle: int = 0
    offset_ms: float | None = None
    drift_ppm: float | None = None
    uncertainty_ms: float | None = None
    """How far off the offset can be at most: no packet came before it was sent; and what the scatter adds."""
    scatter_ms: float | None = None
    """The part of it that is scatter: half of a 95 % interval if the smallest delays are equal in both directions."""

    def offset_at(self, times: np.ndarray) -> np.ndarray | None:
        """The offset in ns at these times (ns by the client's clock); None where it is not known."""
        if self.offset_ms is None:
            return None
        return np.asarray(self.offset_ms * MS + (self.drift_ppm or 0.0) * 1e-6 * (times - self.middle))


def unknown(reason: str) -> Clock:
    """A clock of which nothing can be said, and why."""
    return Clock("unknown", reason)


def estimate_clock(sent: np.ndarray, received: np.ndarray, from_broker: np.ndarray, configured_ms: float | None = None) -> Clock:
    """The clock from packets that both taps captured: ``sent`` and ``received`` (ns, each by the clock of the tap there) and who sent them.

    ``configured_ms`` is the offset by the configuration, used as it is unless a packet would then have come before it was sent.
    """
    if configured_ms is None and min(np.count_nonzero(from_broker), np.count_nonzero(~from_broker)) < LEAST_PACKETS:
        return unknown("too_few_packets")
    if not sent.size:
        return Clock("configured", "too_few_packets", 0, configured_ms, None, None, None)
    at = np.where(from_broker, received, sent)  # by the client's clock
    waited = (received - sent).astype(np.float64)
    middle = int(at.min()) + (int(at.max()) - int(at.min())) // 2
    elapsed = (at - middle).astype(np.float64)
    if configured_ms is not None:
        return _configured(waited, from_broker, middle, configured_ms)
    bins = _smallest_by_bin(elapsed, waited, from_broker)
    if bins.stepped():
        return unknown("stepping")
    drift = bins.drift()
    forward, back = waited[~from_broker] - drift * elapsed[~from_broker], waited[from_broker] + drift * elapsed[from_broker]
    least_forward, least_back = float(forward.min()), float(back.min())
    if least_forward + least_back < 0:
        return unknown("stepping")
    scatter = bins.scatter(drift)
    return Clock(
        "estimated",
        "far_apart" if abs(least_forward - least_back) / 2 > FAR_APART_MS * MS else None,
        middle,
        (least_forward - least_back) / 2 / MS,
        drift * 1e6,
        ((least_forward + least_back) / 2 + (scatter or 0.0)) / MS,
        None if scatter is None else scatter / MS,
    )


def _configured(waited: np.ndarray, from_broker: np.ndarray, middle: int, offset_ms: float) -> Clock:
    highest, lowest = np.inf, -np.inf
    if (~from_broker).any():
        highest = float(waited[~from_broker].min()) / MS
    if from_broker.any():
        lowest = -float(waited[from_broker].min()) / MS
    if not lowest <= offset_ms <= highest:
        return unknown("contradicted")
    bound = max(highest - offset_ms, offset_ms - lowest)
    return Clock("configured", None, middle, offset_ms, None, bound if np.isfinite(bound) else None, None)


@dataclass(frozen=True)
class _Bins:
    """The smallest difference of each direction per time bin, where both have enough packets: ``time`` (ns), ``forward``, ``back`` (ns)."""

    time: np.ndarray
    forward: np.ndarray
    back: np.ndarray

    @property
    def offset(self) -> np.ndarray:
        """The offset of each bin."""
        return np.asarray((self.forward - self.back) / 2)

    def drift(self) -> float:
        """Change of the offset per time: the median of the slopes between all bins (Theil–Sen), 0 where their 95 % interval holds it (Sen 1968)."""
        n = self.time.size
        if n < LEAST_BINS:
            return 0.0
        slopes = np.sort(_slopes(self.time, self.offset, n))
        reach = 1.96 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
        low, high = int((slopes.size - reach) // 2), int(np.ceil((slopes.size + reach) / 2))
        if slopes[max(low, 0)] <= 0 <= slopes[min(high, slopes.size - 1)]:
            return 0.0
        return float(np.median(slopes))

    def scatter(self, drift: float) -> float | None:
        """Half of a 95 % interval of the offset by the scatter of the bins around their line; None with too few bins."""
        if self.time.size < LEAST_BINS:
            return None
        rest = self.offset - drift * self.time
        return float(1.96 * 1.4826 * np.median(np.abs(rest - np.median(rest))) / np.sqrt(rest.size))

    def stepped(self) -> bool:
        """Whether the clock was set: the differences of one direction jump up where those of the other jump down by as much.

        A queue that fills or a path that changes moves one direction, or both the same way. A bin in which more time was gained than the round trip takes
        is proof by itself.
        """
        if (self.forward + self.back < 0).any():
            return True
        if self.time.size < LEAST_BINS:
            return False
        # Slopes between bins near each other, so that few of them cross a step.
        slope = float(np.median(_slopes(self.time, self.offset, max(1, self.time.size // 4))))
        forward, back = self.forward - slope * self.time, self.back + slope * self.time
        noise = 1.4826 * np.median(np.abs(np.diff(forward - back) / 2))
        least = max(LEAST_STEP_MS * MS, 4 * noise)
        for place in range(STEP_BINS, self.time.size - STEP_BINS + 1):
            before, after = slice(place - STEP_BINS, place), slice(place, place + STEP_BINS)
            up, down = (float(np.median(part[after]) - np.median(part[before])) for part in (forward, back))
            # Up in one and down in the other, each by at least half of what they move apart.
            if abs(up - down) / 2 > least and up * down < 0 and min(abs(up), abs(down)) > abs(up - down) / 4:
                return True
        return False


def _slopes(time: np.ndarray, value: np.ndarray, furthest: int) -> np.ndarray:
    """Slopes between every two values not further from each other than that many places."""
    first, second = np.triu_indices(time.size, 1)
    near = second - first <= furthest
    first, second = first[near], second[near]
    return np.asarray((value[second] - value[first]) / (time[second] - time[first]))


def _smallest_by_bin(elapsed: np.ndarray, waited: np.ndarray, from_broker: np.ndarray) -> _Bins:
    fewest = int(min(np.count_nonzero(from_broker), np.count_nonzero(~from_broker)))
    count = int(np.clip(fewest // PER_BIN, 1, MOST_BINS))
    start, span = float(elapsed.min()), float(np.ptp(elapsed))
    place = np.minimum((elapsed - start) / (span or 1.0) * count, count - 1).astype(np.int64)
    smallest, number = [], []
    for direction in (~from_broker, from_broker):
        least = np.full(count, np.inf)
        np.minimum.at(least, place[direction], waited[direction])
        smallest.append(least)
        number.append(np.bincount(place[direction], minlength=count))
    enough = np.minimum(*number) >= min(LEAST_PACKETS, fewest)
    centre = start + (np.arange(count) + 0.5) * (span / count)
    return _Bins(centre[enough], smallest[0][enough], smallest[1][enough])
