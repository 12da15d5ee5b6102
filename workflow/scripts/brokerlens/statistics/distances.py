"""Distances between two samples."""

from __future__ import annotations

import numpy as np

from brokerlens.statistics.dependence import Floats


def area_between(a: Floats, b: Floats) -> float:
    """Wasserstein-1 distance of two samples, each sorted: the area between their distribution functions."""
    both = np.sort(np.concatenate((a, b)), kind="stable")
    in_a = np.searchsorted(a, both[:-1], side="right") / len(a)
    in_b = np.searchsorted(b, both[:-1], side="right") / len(b)
    return float(np.sum(np.abs(in_a - in_b) * np.diff(both)))
