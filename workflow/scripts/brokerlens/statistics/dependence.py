"""How strongly a series depends on itself: bins, correlation time, degrees of freedom, low-frequency cosines.

The long-run variance of a mean is read from a few low-frequency cosine transforms of the series in time order, with Student's t
(EWC: Mueller 2004; Lazarus, Lewis, Stock and Watson 2018). How many cosines may be used follows from the correlation time,
which the block length of Politis and White (2004; Patton, Politis and White 2009) contains.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Final

import numpy as np
from arch.bootstrap import optimal_block_length
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS: Final = 2048
MOST_BINS: Final = 1 << 15  # of a series of the clock's: the block length of n of them takes n√n steps
MOST_DOF: Final = 24
LEAST_DOF: Final = 4
# 0.1 of the bins per correlation time: 4 degrees of freedom need 40 correlation times; larger shares lose coverage on slow series.
DOF_PER_CORRELATION_TIME: Final = 0.1
_SHORTEST_SERIES: Final = 8


def equal_bins(n: int) -> Ints:
    """The bin (0-based) of each of n values in time order: min(n, 2048) bins, counts differing by at most one."""
    return np.arange(n, dtype=np.int64) * min(n, BINS) // max(n, 1)


def joined(series: ArrayLike) -> Floats:
    """Sums of neighbours in a series of equal stretches of time, as many as leave at most 32,768 of them; the last one may be of fewer.

    Slow cosines do not see neighbours apart.
    """
    values = np.asarray(series, dtype=np.float64)
    together = np.arange(len(values)) // max(1, math.ceil(len(values) / MOST_BINS))
    return np.asarray(np.bincount(together, values), dtype=np.float64)


def clock_bins(times: Ints, start: int, end: int, bins: int) -> Ints:
    """The bin (0-based) of each time (ns) among equal stretches of the clock from start to end, both included."""
    width = (end - start) / bins
    found = ((times - start) / max(width, 1.0)).astype(np.int64)
    return np.clip(found, 0, bins - 1)


def correlation_time(series: Floats) -> float:
    """Correlation time of one series of bins, in bins; 0 where it is constant or shows none.

    b^3/M of the stationary bootstrap's optimal block length b is (sum |k| R(k) / sum R(k))^2, for an AR(1) its time constant squared.
    """
    bins = len(series)
    if bins < _SHORTEST_SERIES or np.ptp(series) == 0.0:
        return 0.0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # A nearly constant series divides zero by zero inside; its nan is handled below.
        warnings.simplefilter("ignore")
        length = float(optimal_block_length(series)["stationary"].iloc[0])
    if not length > 1.0:
        return 0.0
    return math.sqrt(length**3 / bins)


def longest_correlation_time(series: Iterable[Floats]) -> float:
    """The largest correlation time, in bins: one series alone may hide the dependence that another shows."""
    return max((correlation_time(one) for one in series), default=0.0)


def degrees_of_freedom(bins: int, tau: float) -> int:
    """Number of cosines that are slow against the correlation time tau (both in bins), at most 24."""
    return min(MOST_DOF, int(DOF_PER_CORRELATION_TIME * bins / max(tau, 1.0)))


def cosines(bins: int, count: int) -> Floats:
    """Orthonormal cosines, shape (count, bins): sqrt(2) cos(pi j (b - 1/2) / bins), j = 1 ... count."""
    j = np.arange(1, count + 1, dtype=np.float64)[:, None]
    b = np.arange(bins, dtype=np.float64)[None, :] + 0.5
    return np.asarray(np.sqrt(2.0) * np.cos(np.pi * j * b / bins))


def satterthwaite(variances: Iterable[float], dofs: Iterable[float]) -> float:
    """Degrees of freedom of a sum of independent variance estimates (Satterthwaite 1946)."""
    pairs = [(variance, dof) for variance, dof in zip(variances, dofs, strict=True)]
    total = sum(variance for variance, _ in pairs)
    below = sum(variance**2 / dof for variance, dof in pairs)
    return total**2 / below if below > 0.0 else min(dof for _, dof in pairs)
