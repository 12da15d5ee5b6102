"""The window of an experiment, and the fixed time bins that rates, their intervals and the series are made of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

SECOND: Final = 1_000_000_000
MOST_BINS: Final = 400
STEPS: Final = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400)
"""Lengths of bins in seconds that read well on a time axis; longer runs take whole days."""


@dataclass(frozen=True)
class Window:
    """From ``start`` to ``end``, ns since 1970 UTC, both included; None leaves that side open."""

    start: int | None = None
    end: int | None = None

    @classmethod
    def of(cls, window: Mapping[str, Any] | None) -> Window:
        """The window of a configuration slice ``{"start": ns or None, "end": ns or None}``."""
        window = window or {}
        return cls(*(None if window.get(side) is None else int(window[side]) for side in ("start", "end")))

    def holds(self, time: pl.Expr) -> pl.Expr:
        """Whether the times (timestamp ns UTC) are inside; false where there is none."""
        inside = time.is_not_null()
        if self.start is not None:
            inside &= time >= _instant(self.start)
        if self.end is not None:
            inside &= time <= _instant(self.end)
        return inside


def _instant(nanoseconds: int) -> pl.Expr:
    return pl.lit(nanoseconds, pl.Int64).cast(pl.Datetime("ns", "UTC"))


@dataclass(frozen=True)
class Bins:
    """``count`` bins of ``width`` ns from ``origin`` on; a window that ends exactly on a bin's edge has its last instant in the last bin."""

    origin: int
    width: int
    count: int

    @property
    def seconds(self) -> float:
        """Length of one bin."""
        return self.width / SECOND

    def starts(self) -> np.ndarray:
        """Begin of each bin, ns."""
        return self.origin + np.arange(self.count, dtype=np.int64) * self.width

    def number(self, time: np.ndarray) -> np.ndarray:
        """The bin of each time (ns); a time outside them falls into the first or the last."""
        return np.clip((np.asarray(time, np.int64) - self.origin) // self.width, 0, self.count - 1)


def bins_over(window: Window, first: int, last: int, seconds: int) -> Bins:
    """Bins of whole seconds that hold ``first`` to ``last``, two times (ns) inside the window.

    Their edges are whole multiples of their length from the window's start, so that all sites of an experiment have the same ones, or
    from 1970 where the window has no start.
    """
    anchor, width = window.start or 0, seconds * SECOND
    origin = anchor + (first - anchor) // width * width
    span = last - origin
    # A packet at the very end of the window opens no bin of its own: that bin would hold one instant.
    at_edge = last == window.end and span > 0 and span % width == 0
    return Bins(origin, width, span // width + (0 if at_edge else 1))


def series_bins(window: Window, first: int, last: int) -> Bins:
    """Bins of a length that reads well, at most 400 of them.

    A window closed on both sides decides their length, whatever was captured in it, so that the sites of an experiment share it.
    """
    if window.start is not None and window.end is not None:
        span = window.start, window.end
    else:
        span = first, last
    days = (86_400 * n for n in itertools.count(2))
    seconds = next(step for step in itertools.chain(STEPS, days) if bins_over(window, *span, step).count <= MOST_BINS)
    return bins_over(window, first, last, seconds)
