"""Intervals as tests ask about them: what they hold and how wide they are. A missing bound fails the test."""

from __future__ import annotations

from typing import Protocol

from brokerlens.statistics.differences import Difference


class Bounds(Protocol):
    """What has a lower and an upper bound."""

    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def bounds(found: Bounds) -> tuple[float, float]:
    """Both bounds, which must be there."""
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def holds(found: Bounds, truth: float) -> bool:
    """Whether the truth lies inside."""
    low, high = bounds(found)
    return low < truth < high


def width(found: Bounds) -> float:
    """From one bound to the other."""
    low, high = bounds(found)
    return high - low


def ratio_bounds(found: Difference) -> tuple[float, float]:
    """Both bounds of the ratio, which must be there."""
    assert found.ratio_low is not None
    assert found.ratio_high is not None
    return found.ratio_low, found.ratio_high


def ratio_holds(found: Difference, truth: float) -> bool:
    """Whether the true ratio lies inside."""
    low, high = ratio_bounds(found)
    return low < truth < high


def ratio_width(found: Difference) -> float:
    """From one bound of the ratio to the other."""
    low, high = ratio_bounds(found)
    return high - low
