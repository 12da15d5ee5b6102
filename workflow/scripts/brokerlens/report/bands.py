"""Intervals along whole curves: percentiles of one site, and differences of two sites' percentiles, by ``brokerlens.statistics``."""

from __future__ import annotations

from typing import Any

import numpy as np

from brokerlens.report.results import Site
from brokerlens.report.scales import z_of
from brokerlens.statistics.contrasts import Contrast, common_stretch
from brokerlens.statistics.differences import quantile_difference
from brokerlens.statistics.intervals import quantile_of

Band = list[tuple[float, float | None, float | None]]
_LEVELS = np.unique(np.concatenate([np.linspace(0.05, 0.9, 18), 1 - np.geomspace(0.1, 0.001, 25), [0.5, 0.95, 0.99]]).round(6))


def percentile_band(site: Site) -> Band:
    """95 % interval (ms) at some forty levels; None where a side is open."""
    if site.arm.n == 0:
        return []
    found = ((float(level), quantile_of(site.arm, float(level))) for level in _LEVELS if level < 1 - 0.5 / site.arm.n)
    return [(level, interval.low, interval.high) for level, interval in found]


def difference_band(a: Site, b: Site) -> list[dict[str, Any]]:
    """a − b in ms at each level as far as both sides have an interval; rows as ``charts.quantile_differences`` takes them."""
    if a.arm.n == 0 or b.arm.n == 0:
        return []
    overlap = None
    if a.experiment == b.experiment:
        overlap = common_stretch(_stretch(a), _stretch(b))
    contrast = Contrast.of(a.arm, b.arm, overlap)
    rows: list[dict[str, Any]] = []
    for level in map(float, _LEVELS):
        found = quantile_difference(contrast, level)
        if found.difference is None or found.too_few:
            if level > 0.5:
                break
            continue
        rows.append({"quantile": level, "z": z_of(level), "ms": found.difference, "low": found.low, "high": found.high})
    return rows


def _stretch(site: Site) -> tuple[int, int]:
    times = site.answered["request_first"]
    return int(times[0]), int(times[-1])
