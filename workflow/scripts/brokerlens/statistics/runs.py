"""Repeated runs as the sample: one estimate per run, Student's t over runs (one side), Welch's t (two sides).

What differs from run to run (the day, the route, the broker's neighbours) is in these intervals; that of requests within a run is in them as far as it
makes the runs' estimates differ. Hence they speak of runs like these, where an interval of a single run speaks of that run only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from scipy import stats

from brokerlens.statistics.differences import Difference
from brokerlens.statistics.intervals import ALPHA, Interval

LEAST_RUNS: Final = 4
ALIKE: Final = 1e-9
"""Runs that differ by less do not vary: what is left is rounding."""


def over_runs(estimates: Sequence[float], samples: int) -> Interval:
    """The mean of the runs' estimates with its 95 % interval; ``samples`` is what all runs measured together.

    No interval below four runs, nor where the runs do not vary at all (counts that are 0 in every run).
    """
    if not estimates:
        return Interval(None, n=samples, reason="no run has an estimate")
    mean = float(np.mean(estimates))
    why = _refusal(estimates)
    if why is not None:
        return Interval(mean, n=samples, reason=why)
    found = stats.ttest_1samp(estimates, 0.0)
    low, high = found.confidence_interval(1.0 - ALPHA)
    if min(estimates) >= 0.0:
        low = max(0.0, low)  # a time, a share, a rate
    return Interval(mean, float(low), float(high), n=samples, n_eff=float(len(estimates)), df=float(len(estimates) - 1))


def runs_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """a - b of the means over runs, and the ratio of the geometric means, with 95 % intervals and Welch's p."""
    if not a or not b:
        return Difference(reason="no run has an estimate")
    refused = [f"{side}: {why}" for side, runs in (("a", a), ("b", b)) if (why := _refusal(runs)) is not None]
    points = Difference(difference=float(np.mean(a) - np.mean(b)), reason="; ".join(refused) or None)
    # A quotient is told by logarithms or not at all: the mean of quotients is not the quotient of means.
    logs = [np.log(runs) for runs in (a, b)] if min(*a, *b) > 0.0 else None
    if logs is not None:
        points = replace(points, ratio=float(np.exp(logs[0].mean() - logs[1].mean())))
    if refused:
        return points
    found = stats.ttest_ind(a, b, equal_var=False)
    low, high = found.confidence_interval(1.0 - ALPHA)
    points = replace(points, low=float(low), high=float(high), p=float(found.pvalue))
    if logs is None:
        return points
    low, high = np.exp(stats.ttest_ind(*logs, equal_var=False).confidence_interval(1.0 - ALPHA))
    return replace(points, ratio_low=float(low), ratio_high=float(high))


def _refusal(estimates: Sequence[float]) -> str | None:
    if len(estimates) < LEAST_RUNS:
        return f"{len(estimates)} of the runs have an estimate; {LEAST_RUNS} needed"
    if float(np.ptp(estimates)) <= ALIKE * float(np.max(np.abs(estimates))):
        return f"the same in all {len(estimates)} runs"
    return None
