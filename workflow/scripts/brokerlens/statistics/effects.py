"""Effect sizes of two arms as whole distributions: Cliff's delta, Hodges-Lehmann shift and ratio, Wasserstein-1 distance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import stdtr

from brokerlens.statistics.arms import CENTRES, EDGES, FIRST_EDGE
from brokerlens.statistics.contrasts import Contrast
from brokerlens.statistics.dependence import Floats
from brokerlens.statistics.distances import area_between
from brokerlens.statistics.intervals import ALPHA, student
from brokerlens.statistics.compiled.sorted_pairs import share_above

POINTS: Final = 2048
FLOORS: Final = 3.0
_BISECTIONS: Final = 34


@dataclass(frozen=True)
class Effect:
    """An effect size (a against b) with its 95 % interval, ``None`` where there is none."""

    estimate: float
    low: float | None = None
    high: float | None = None
    df: float | None = None
    p: float | None = None
    noise_floor: float | None = None
    reason: str | None = None


def cliffs_delta(contrast: Contrast) -> Effect:
    """P(a > b) - P(a < b): 2 mean(placements) - 1, with an interval on its inverse hyperbolic tangent, and a t test of 0."""
    a, b = contrast.a, contrast.b
    in_b = b.distribution - b.histogram / (2.0 * b.n)
    in_a = a.distribution - a.histogram / (2.0 * a.n)
    # The cells are fine enough for the variance, not for the estimate.
    delta = 2.0 * float(np.mean(_placements(a.ordered, b.ordered))) - 1.0
    error, df = contrast.error(2.0 * (a.state @ in_b), 2.0 * (b.state @ in_a))
    if abs(delta) >= 1.0 - 1e-12 or error == 0.0:
        return Effect(delta, df=df, reason="the samples do not overlap")
    half = student(ALPHA, df) * error / (1.0 - delta**2)
    middle = math.atanh(delta)
    p = 2.0 * float(stdtr(df, -abs(delta) / error))
    return Effect(delta, math.tanh(middle - half), math.tanh(middle + half), df=df, p=p)


def hodges_lehmann_shift(contrast: Contrast) -> Effect:
    """The shift after which a value of a is as often above as below one of b; in the values' unit."""
    a, b = contrast.a, contrast.b
    return _shift(contrast, a.ordered, b.ordered, CENTRES)


def hodges_lehmann_ratio(contrast: Contrast) -> Effect:
    """The factor of which the same holds ("typically 1.8 times"): the shift of logarithms."""
    a, b = (np.log(np.maximum(arm.ordered, FIRST_EDGE)) for arm in (contrast.a, contrast.b))
    found = _shift(contrast, a, b, np.log(CENTRES))
    low, high = (None if bound is None else math.exp(bound) for bound in (found.low, found.high))
    return Effect(math.exp(found.estimate), low, high, df=found.df, reason=found.reason)


def wasserstein(contrast: Contrast) -> Effect:
    """Mean distance between the arms' order statistics, with the noise floor of equal arms.

    Noise alone makes the distance positive; its interval holds only well above that, so it is given above three floors.
    """
    a, b = contrast.a, contrast.b
    distance = area_between(a.ordered, b.ordered)
    floors = a.stretch_noise, b.stretch_noise
    if floors[0] is None or floors[1] is None:
        return Effect(distance, reason="too few correlation times for a noise floor")
    floor = math.sqrt((floors[0] ** 2 + floors[1] ** 2) / 2.0) / math.sqrt(2.0)
    if distance <= FLOORS * floor:
        return Effect(distance, noise_floor=floor, reason="not above three noise floors")
    influence = np.cumsum(np.sign(a.distribution - b.distribution) * np.diff(EDGES))
    influence = np.concatenate(([0.0], influence[:-1]))
    error, df = contrast.error(-(a.state @ influence), -(b.state @ influence))
    half = student(ALPHA, df) * error
    return Effect(distance, max(0.0, distance - half), distance + half, df=df, noise_floor=floor)


def _shift(contrast: Contrast, a: Floats, b: Floats, centres: Floats) -> Effect:
    points_a, points_b = _equally_likely(a), _equally_likely(b)

    def delta(theta: float) -> float:
        # Ties need no half here: they are where the step is, which bisection finds either way.
        return 2.0 * share_above(points_a, points_b, theta) - 1.0

    reach = float(points_a[-1] - points_b[0]), float(points_a[0] - points_b[-1])
    span = min(reach) - 1.0, max(reach) + 1.0
    theta = _where(delta, 0.0, span)
    in_b = _placements(centres - theta, b)
    in_a = _placements(centres + theta, a)
    error, df = contrast.error(2.0 * (contrast.a.state @ in_b), 2.0 * (contrast.b.state @ in_a))
    half = student(ALPHA, df) * error
    if half >= 1.0:
        return Effect(theta, df=df, reason="no bounds: too few independent samples")
    return Effect(theta, _where(delta, half, (span[0], theta)), _where(delta, -half, (theta, span[1])), df=df)


def _equally_likely(ordered: Floats) -> Floats:
    """At most 2,048 order statistics in the middle of equally likely stretches."""
    n = len(ordered)
    if n <= POINTS:
        return ordered
    return ordered[((np.arange(POINTS) + 0.5) * n / POINTS).astype(np.int64)]


def _placements(values: Floats, among: Floats) -> Floats:
    """Share of ``among`` (sorted) below each value, ties counted half."""
    return (np.searchsorted(among, values, side="left") + np.searchsorted(among, values, side="right")) / (2.0 * len(among))


def _where(falling: Callable[[float], float], target: float, span: tuple[float, float]) -> float:
    """Where a falling step function passes a target, by bisection."""
    low, high = span
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if falling(middle) > target else (low, middle)
    return 0.5 * (low + high)
