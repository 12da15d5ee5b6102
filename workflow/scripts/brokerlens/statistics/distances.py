"""Distances between two samples."""

from __future__ import annotations

import numpy as np
from numba import njit

from brokerlens.statistics.dependence import Floats


def area_between(a: Floats, b: Floats) -> float:
    """Wasserstein-1 distance of two samples, each sorted: the area between their distribution functions."""
    both = np.sort(np.concatenate((a, b)), kind="stable")
    in_a = np.searchsorted(a, both[:-1], side="right") / len(a)
    in_b = np.searchsorted(b, both[:-1], side="right") / len(b)
    return float(np.sum(np.abs(in_a - in_b) * np.diff(both)))


@njit(cache=True, nogil=True)
def share_above(a: Floats, b: Floats, shift: float) -> float:
    """Share of all pairs in which a value of a, less ``shift``, is above one of b; both sorted ascending.

    One pass over both: ``numpy.searchsorted`` finds the same by a search per value, thirty times as slow.
    """
    below = 0
    j = 0
    for i in range(len(a)):
        while j < len(b) and b[j] < a[i] - shift:
            j += 1
        below += j
    return below / (len(a) * len(b))
