"""Differences and ratios of two arms' figures with 95 % intervals, by MOVER (Zou and Donner 2008)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from brokerlens.statistics.arms import FIRST_EDGE, Arm
from brokerlens.statistics.contrasts import Contrast
from brokerlens.statistics.dependence import satterthwaite
from brokerlens.statistics.intervals import ALPHA, Clumping, Clusters, Interval, Limits, Stretches, mean_of, quantile_of, student

LEAST_P: Final = 1e-12
_BISECTIONS: Final = 24
"""Enough for six digits of p: its logarithm spans 28."""


@dataclass(frozen=True)
class Difference:
    """a - b and a / b with their 95 % intervals; ``None`` for a side that is open or cannot be had.

    ``p`` is the smallest alpha whose interval of the difference excludes 0; ``correlation`` that of paired arms.
    """

    difference: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    p: float | None = None
    correlation: float | None = None
    weak: bool = False
    reason: str | None = None

    @property
    def too_few(self) -> bool:
        """Whether a side of the difference's interval is missing."""
        return self.low is None or self.high is None


@dataclass(frozen=True)
class Bounded:
    """One arm's figure and its limits; an infinite limit is an open side."""

    value: float
    low: float
    high: float

    def logs(self) -> Bounded:
        """The logarithms of all three; a lower limit of 0 is open."""
        return Bounded(*(math.log(x) if x > 0.0 else -math.inf for x in (self.value, self.low, self.high)))


def mover(a: Bounded, b: Bounded, correlation: float = 0.0) -> tuple[float, float]:
    """Limits of a - b from each one's own limits; an open limit opens the side that needs it."""

    def reach(of_a: float, of_b: float) -> float:
        if math.isinf(of_a) or math.isinf(of_b):
            return math.inf
        return math.sqrt(max(0.0, of_a**2 + of_b**2 - 2.0 * correlation * of_a * of_b))

    middle = a.value - b.value
    return middle - reach(a.value - a.low, b.high - b.value), middle + reach(a.high - a.value, b.value - b.low)


def quantile_difference(contrast: Contrast, level: float, *, with_p: bool = False) -> Difference:
    """Difference and ratio of one percentile.

    Both arms' limits are taken at one number of degrees of freedom and with Jeffreys limits: each arm's own Clopper-Pearson limits
    together cover 98-100 %.
    """
    a, b = contrast.a, contrast.b
    own = quantile_of(a, level), quantile_of(b, level)
    if own[0].estimate is None or own[1].estimate is None:
        return Difference(reason="no samples")
    points = _points(own[0].estimate, own[1].estimate)
    refused = [f"{side}: {interval.reason}" for side, interval in zip("ab", own, strict=True) if interval.n_eff is None]
    if refused:
        return replace(points, reason="; ".join(refused))
    clumping = Clumping.of(a), Clumping.of(b)
    df = _common_df(contrast, level, clumping)
    correlation = contrast.correlation(level)

    def bounded(alpha: float) -> tuple[Bounded, Bounded]:
        first, second = (
            _order_statistics(arm, level, clump.limits(level, alpha, df=df, narrow=True), alpha, interval if alpha == ALPHA else None)
            for arm, clump, interval in zip((a, b), clumping, own, strict=True)
        )
        return first, second

    return _differ(
        points,
        bounded,
        correlation=correlation if contrast.paired else None,
        with_p=with_p and not (own[0].too_few or own[1].too_few),
        weak=own[0].weak or own[1].weak,
        reason="; ".join(f"{side}: {interval.reason}" for side, interval in zip("ab", own, strict=True) if interval.reason) or None,
    )


def ratio_difference(a: Clusters | Stretches | None, b: Clusters | Stretches | None, *, with_p: bool = False) -> Difference:
    """Difference and ratio of two shares that were sampled by connection or in time; their intervals must exist on both sides."""
    if a is None or b is None:
        return Difference(reason="no samples")
    points = _points(a.ratio, b.ratio)
    return _differ(points, lambda alpha: (_share_bounded(a, alpha), _share_bounded(b, alpha)), with_p=with_p)


def interval_difference(a: Interval, b: Interval) -> Difference:
    """Difference and ratio of two figures from their own intervals (shares over a threshold, means of bins)."""
    if a.estimate is None or b.estimate is None:
        return Difference(reason="no samples")
    points = _points(a.estimate, b.estimate)
    reason = "; ".join(f"{side}: {interval.reason}" for side, interval in (("a", a), ("b", b)) if interval.reason) or None
    if a.too_few or b.too_few:
        return replace(points, reason=reason)
    return _differ(points, lambda _: (_interval_bounded(a), _interval_bounded(b)), weak=a.weak or b.weak, reason=reason)


def mean_difference(contrast: Contrast) -> Difference:
    """Difference of the arms' means, and their ratio on logarithms."""
    a, b = contrast.a, contrast.b
    own = mean_of(a), mean_of(b)
    if own[0].estimate is None or own[1].estimate is None:
        return Difference(reason="no samples")
    points = _points(own[0].estimate, own[1].estimate)
    refused = [f"{side}: {interval.reason}" for side, interval in zip("ab", own, strict=True) if interval.reason]
    if refused:
        return replace(points, reason="; ".join(refused))
    error, df = contrast.error(a.mean_transform, b.mean_transform)
    half = student(ALPHA, df) * error
    found = replace(points, low=a.mean - b.mean - half, high=a.mean - b.mean + half, weak=own[0].weak or own[1].weak)
    if points.ratio is None or points.ratio <= 0.0:
        return found
    error, df = contrast.error(a.mean_transform / a.mean, b.mean_transform / b.mean)
    factor = math.exp(student(ALPHA, df) * error)
    return replace(found, ratio_low=points.ratio / factor, ratio_high=points.ratio * factor)


def _points(a: float, b: float) -> Difference:
    return Difference(difference=a - b, ratio=a / b if b > 0.0 else None)


def _common_df(contrast: Contrast, level: float, clumping: tuple[Clumping, Clumping]) -> float:
    """One number of degrees of freedom for both arms: Satterthwaite over squared logarithmic widths; the smaller one where paired."""
    limits = [clump.limits(level, narrow=True) for clump in clumping]
    dofs = [one.df for one in limits]
    if contrast.paired:
        return min(dofs)
    widths = [_log_width(arm, one) for arm, one in zip((contrast.a, contrast.b), limits, strict=True)]
    return satterthwaite([width**2 for width in widths], dofs)


def _log_width(arm: Arm, limits: Limits) -> float:
    low, high = arm.at_rank(math.floor(arm.n * limits.low)), arm.at_rank(math.ceil(arm.n * limits.high))
    return math.log(max(high, FIRST_EDGE) / max(low, FIRST_EDGE))


def _order_statistics(arm: Arm, level: float, limits: Limits, alpha: float, own: Interval | None) -> Bounded:
    """The arm's quantile between the order statistics at the limits; open where the sample cannot bound it at this alpha.

    ``own`` is the arm's interval where alpha is its own: the sides that its gates left open stay open.
    """
    value = arm.quantile(level)
    if own is None:
        has_low, has_high = (1.0 - level) ** limits.n_star <= alpha / 2.0, level**limits.n_star <= alpha / 2.0
    else:
        has_low, has_high = own.low is not None, own.high is not None
    low = arm.at_rank(math.floor(arm.n * limits.low)) if has_low else -math.inf
    high = arm.at_rank(math.ceil(arm.n * limits.high)) if has_high else math.inf
    return Bounded(value, min(low, value), max(high, value))


def _share_bounded(share: Clusters | Stretches, alpha: float) -> Bounded:
    low, high = share.limits(alpha)
    return Bounded(share.ratio, low, high)


def _interval_bounded(interval: Interval) -> Bounded:
    if interval.estimate is None or interval.low is None or interval.high is None:
        raise ValueError("an interval with an open side has no limits")
    return Bounded(interval.estimate, interval.low, interval.high)


def _differ(
    points: Difference,
    bounded: Callable[[float], tuple[Bounded, Bounded]],
    *,
    correlation: float | None = None,
    with_p: bool = False,
    weak: bool = False,
    reason: str | None = None,
) -> Difference:
    r = correlation or 0.0
    a, b = bounded(ALPHA)
    low, high = mover(a, b, r)
    found = replace(points, low=_closed(low), high=_closed(high), correlation=correlation, weak=weak, reason=reason)
    if points.ratio is not None and points.ratio > 0.0:
        low, high = mover(a.logs(), b.logs(), r)
        found = replace(found, ratio_low=_closed(_exp(low)), ratio_high=_closed(_exp(high)))
        if found.ratio_low == 0.0:
            found = replace(found, ratio_low=None)
    return replace(found, p=_smallest_alpha(lambda alpha: mover(*bounded(alpha), r))) if with_p else found


def _exp(limit: float) -> float:
    """The exponential; infinite, that is open, where a float ends."""
    return math.exp(limit) if limit < math.log(sys.float_info.max) else math.inf


def _closed(limit: float) -> float | None:
    return limit if math.isfinite(limit) else None


def _smallest_alpha(limits: Callable[[float], tuple[float, float]]) -> float:
    """The smallest alpha whose interval excludes 0, by bisection on its logarithm; not below 1e-12, 1 where none does."""

    def excludes(alpha: float) -> bool:
        low, high = limits(alpha)
        return low > 0.0 or high < 0.0

    # The verdict at 5 % must be the interval's own, so the search starts on the side of 5 % where that puts it.
    below, above = (LEAST_P, ALPHA) if excludes(ALPHA) else (ALPHA, 1.0)
    if below == LEAST_P and excludes(LEAST_P):
        return LEAST_P
    low, high = math.log(below), math.log(above)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if excludes(math.exp(middle)) else (middle, high)
    return float(np.exp(high))
