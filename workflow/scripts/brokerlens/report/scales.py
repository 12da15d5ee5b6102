"""Axes: logarithmic with ticks 1-2-5, symmetric logarithmic for differences, the percentile axis."""

from __future__ import annotations

import math
from collections.abc import Iterable

FLOOR_MS = 0.001
PERCENTILE_TICKS = {0.5: "p50", 0.9: "p90", 0.95: "p95", 0.99: "p99", 0.999: "p99.9", 0.9999: "p99.99"}


def z_of(q: float) -> float:
    """Place of a quantile on the percentile axis, −log10(1 − q): each nine gets the same room."""
    return -math.log10(1 - q)


def log_domain(values: Iterable[float | None], floor: float = FLOOR_MS) -> tuple[float, float]:
    """A range that holds all values with a little air; what is below the floor stands at the floor."""
    found = [max(floor, value) for value in values if value is not None and math.isfinite(value)]
    if not found:
        return 1.0, 1000.0
    low, high = min(found), max(found)
    if high / low < 2:
        low, high = low / 1.5, high * 1.5
    return low * 0.92, high * 1.12


def ticks_125(low: float, high: float, most: int = 8) -> list[float]:
    """1, 2 and 5 times powers of ten inside the range, or only the powers of ten where there would be too many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        ticks = [float(f"{tick:.3g}") for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def tick_label(value: float) -> str:
    """``0.05``, ``20``, ``1,000``."""
    return f"{value:,.10g}"


class Symlog:
    """A symmetric logarithmic scale: linear within ±constant, logarithmic beyond; zero in the middle or where the data put it."""

    def __init__(self, low: float, high: float, constant: float) -> None:
        self.low, self.high, self.constant = low, high, constant

    @classmethod
    def over(cls, values: Iterable[float | None]) -> Symlog:
        """A scale that holds all values and zero."""
        found = [value for value in values if value is not None and math.isfinite(value)] or [0.0]
        largest = max(max(map(abs, found)), 1e-3)
        constant = 10.0 ** (math.floor(math.log10(largest)) - 1)
        low, high = min(0.0, *found), max(0.0, *found)
        air = 0.12
        scale = cls(-largest, largest, constant)
        span = scale.of(high) - scale.of(low)
        return cls(scale.back(min(scale.of(low) - air * span, -0.04)), scale.back(max(scale.of(high) + air * span, 0.04)), constant)

    def of(self, value: float) -> float:
        """The value on the scale, zero at 0."""
        return math.copysign(math.log1p(abs(value) / self.constant), value)

    def back(self, place: float) -> float:
        """The value at that place."""
        return math.copysign(self.constant * math.expm1(abs(place)), place)

    def share(self, value: float) -> float:
        """Place of the value between 0 (low end) and 1 (high end)."""
        return (self.of(value) - self.of(self.low)) / (self.of(self.high) - self.of(self.low))

    def ticks(self, most: int = 7) -> list[float]:
        """Zero and signed 1-5 steps that stay apart."""
        ticks = [0.0]
        for sign, limit in ((1, self.high), (-1, -self.low)):
            last = 0.0
            decade = math.floor(math.log10(self.constant))
            while 10.0**decade <= limit:
                for factor in (1, 2, 5):
                    value = float(f"{factor * 10.0**decade:.3g}")
                    if value <= limit and abs(self.share(sign * value) - self.share(sign * last)) >= 1 / (most + 2):
                        ticks.append(sign * value)
                        last = value
                decade += 1
        return sorted(ticks)
