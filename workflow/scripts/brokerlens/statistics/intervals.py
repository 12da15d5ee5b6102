"""95 % intervals of one arm: quantiles, shares over a threshold, means, ratios by connection, each with the rules that refuse it.

A quantile's interval is a binomial interval with an effective sample size (Korn and Graubard 1998) read back through the order
statistics (Woodruff 1952). No random numbers: the same values give the same interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, ndtri, stdtrit

from brokerlens.statistics.arms import LEVELS, Arm, Projector
from brokerlens.statistics.dependence import LEAST_DOF, Floats, correlation_time, degrees_of_freedom, joined, satterthwaite

ALPHA: Final = 0.05
LEAST_SAMPLES: Final = 300
LEAST_BEYOND: Final = 10
LEAST_EFFECTIVE_BEYOND: Final = 3.0
WEAK_BELOW: Final = 100.0
LEAST_CONNECTIONS: Final = 4.0
LEAST_SAMPLED_CONNECTIONS: Final = 5.0

Sampling = Literal["time", "time_and_connections"]


@dataclass(frozen=True)
class Interval:
    """A figure of one arm with its 95 % interval.

    ``low`` or ``high`` is ``None`` where that side is open; ``too_few`` says that no interval could be had at all, or that a side is
    missing, and ``reason`` says why in words. ``weak`` marks fewer than about 100 independent values: take it as a minimum.
    ``estimate`` is ``None`` without values.
    """

    estimate: float | None
    low: float | None = None
    high: float | None = None
    weak: bool = False
    reason: str | None = None
    n: int = 0
    n_eff: float | None = None
    df: float | None = None

    @property
    def too_few(self) -> bool:
        """Whether a side of the interval is missing."""
        return self.low is None or self.high is None


@dataclass(frozen=True)
class Limits:
    """Limits of a share or of a quantile's level: where they lie, with the sample they were computed for."""

    low: float
    high: float
    n_eff: float
    df: float
    n_star: float


def samples_needed(level: float) -> int:
    """Values without which a percentile gets no interval: 300, and ten beyond it."""
    return max(LEAST_SAMPLES, math.ceil(LEAST_BEYOND / min(level, 1.0 - level) - 1e-6))


def refusal(arm: Arm, needed: int = LEAST_SAMPLES) -> str | None:
    """Why this arm can carry no interval at all, or ``None``."""
    if arm.n < needed:
        return f"{arm.n:,} samples; {needed:,} needed"
    if not arm.is_long_enough:
        return f"fewer than 40 correlation times (about {arm.correlation_times:.0f})"
    return None


def student(alpha: float, df: float) -> float:
    """The two-sided critical value of Student's t."""
    return float(stdtrit(df, 1.0 - alpha / 2.0))


def effective_sample(n_eff: float, df: float, alpha: float = ALPHA) -> float:
    """The sample that a binomial limit is given so that it is as wide as Student's t asks (Korn and Graubard 1998)."""
    return n_eff * (-float(ndtri(alpha / 2.0)) / student(alpha, df)) ** 2


def clopper_pearson(share: float, n_star: float, alpha: float = ALPHA) -> tuple[float, float]:
    """Clopper-Pearson limits of a share among n* values; n* need not be whole."""
    count = share * n_star
    low = float(betaincinv(count, n_star - count + 1.0, alpha / 2.0)) if count > 0.0 else 0.0
    high = float(betaincinv(count + 1.0, n_star - count, 1.0 - alpha / 2.0)) if count < n_star else 1.0
    return low, high


def jeffreys(share: float, n_star: float, alpha: float = ALPHA) -> tuple[float, float]:
    """Jeffreys limits of a share among n* values: near the nominal coverage where Clopper-Pearson is above it."""
    count = share * n_star
    return (
        float(betaincinv(count + 0.5, n_star - count + 0.5, alpha / 2.0)),
        float(betaincinv(count + 0.5, n_star - count + 0.5, 1.0 - alpha / 2.0)),
    )


@dataclass(frozen=True)
class Clumping:
    """How an arm's values clump together at each level: the design effect and the degrees of freedom behind it."""

    n: int
    effects: Floats
    dof: float

    @classmethod
    def of(cls, arm: Arm, sampling: Sampling = "time") -> Clumping:
        """The arm's clumping in time, or in time and by connection (Cameron, Gelbach and Miller 2011)."""
        if sampling == "time":
            return cls(arm.n, arm.design_effects, float(arm.dof))
        in_time, by_connection = arm.design_effects, arm.connection_effects
        dof = satterthwaite(
            (float(in_time.max()), float(by_connection.max())), (float(arm.dof), max(arm.effective_connections - 1.0, 1e-3))
        )
        return cls(arm.n, in_time + by_connection - 1.0, dof)

    def at(self, level: float) -> float:
        """The design effect at a level, linear between the levels that were computed."""
        return float(np.interp(level, LEVELS, self.effects))

    def degrees(self, level: float, effect: float) -> float:
        """Degrees of freedom at a level: few clumps beyond it make the variance itself uncertain."""
        clumps = self.n / effect * min(level, 1.0 - level)
        return 1.0 / (1.0 / self.dof + 1.0 / clumps)

    def limits(self, level: float, alpha: float = ALPHA, *, df: float | None = None, narrow: bool = False) -> Limits:
        """Limits of the level that the arm's quantile really stands at.

        With ``df`` both passes use it instead of the level's own; ``narrow`` takes Jeffreys instead of Clopper-Pearson limits (for
        differences). The second pass takes the design effect found at each limit where it is larger; it never narrows.
        """
        binomial = jeffreys if narrow else clopper_pearson

        def around(effect: float) -> tuple[float, float, float, float, float]:
            used = self.degrees(level, effect) if df is None else df
            n_star = effective_sample(self.n / effect, used, alpha)
            return (*binomial(level, n_star, alpha), self.n / effect, used, n_star)

        effect = self.at(level)
        low, high, n_eff, used, n_star = around(effect)
        low = min(low, around(max(effect, self.at(low)))[0])
        high = max(high, around(max(effect, self.at(high)))[1])
        return Limits(low, high, n_eff, used, n_star)


def quantile_of(arm: Arm, level: float, *, sampling: Sampling = "time") -> Interval:
    """The level's order statistic with its 95 % interval.

    An interval may have a lower bound and no upper one ("at least 214 ms"): a percentile needs values beyond it, the bounds need
    independent ones.
    """
    if arm.n == 0:
        return Interval(None, reason="no samples")
    estimate = arm.quantile(level)
    why = refusal(arm, samples_needed(level))
    if why is None and sampling != "time" and arm.effective_connections < LEAST_SAMPLED_CONNECTIONS:
        why = _few_connections(arm.effective_connections, LEAST_SAMPLED_CONNECTIONS)
    if why is not None:
        return Interval(estimate, n=arm.n, reason=why)
    limits = Clumping.of(arm, sampling).limits(level)
    has_high = level**limits.n_star <= ALPHA / 2.0 and arm.worst_sample * (1.0 - level) >= LEAST_EFFECTIVE_BEYOND
    has_low = (1.0 - level) ** limits.n_star <= ALPHA / 2.0 and arm.worst_sample * level >= LEAST_EFFECTIVE_BEYOND
    return Interval(
        estimate,
        low=arm.at_rank(math.floor(arm.n * limits.low)) if has_low else None,
        high=arm.at_rank(math.ceil(arm.n * limits.high)) if has_high else None,
        weak=arm.worst_sample < WEAK_BELOW,
        reason=None if has_low and has_high else _open_sides(arm, has_low, has_high),
        n=arm.n,
        n_eff=limits.n_eff,
        df=limits.df,
    )


def share_over(arm: Arm, threshold: float) -> Interval:
    """The share of values above the threshold with its 95 % interval.

    Below 1 % (and above 99 %) the dependence is at least that of the 99th (1st) percentile; at none: "none of n, at most ...".
    """
    if arm.n == 0:
        return Interval(None, reason="no samples")
    at_most = int(np.searchsorted(arm.ordered, threshold, side="right"))
    share = (arm.n - at_most) / arm.n
    why = refusal(arm)
    if why is not None:
        return Interval(share, n=arm.n, reason=why)
    clumping = Clumping.of(arm)
    # Beyond the 99th percentile a few values cannot show how they clump: what holds there is taken, as at none. Covers 96-100 %; the
    # level's own few clumps give bounds of up to 200 times a rare share.
    level = min(max(1.0 - share, 0.01), 0.99)
    effect = max(clumping.at(level), clumping.at(1.0 - share))
    n_eff, df = arm.n / effect, clumping.degrees(level, effect)
    low, high = clopper_pearson(share, effective_sample(n_eff, df))
    return Interval(share, low, high, weak=arm.worst_sample < WEAK_BELOW, n=arm.n, n_eff=n_eff, df=df)


def mean_of(arm: Arm) -> Interval:
    """The mean of the arm's values with its 95 % interval, mean +- t s with the variance over slow cosines."""
    if arm.n == 0:
        return Interval(None, reason="no samples")
    why = refusal(arm)
    if why is not None:
        return Interval(arm.mean, n=arm.n, reason=why)
    variance = float(np.mean(arm.mean_transform**2))
    half = student(ALPHA, arm.dof) * math.sqrt(variance)
    spread = float(np.var(arm.values))
    return Interval(
        arm.mean,
        arm.mean - half,
        arm.mean + half,
        weak=arm.worst_sample < WEAK_BELOW,
        n=arm.n,
        n_eff=min(float(arm.n), spread / variance) if variance > 0.0 else float(arm.n),
        df=float(arm.dof),
    )


def mean_of_bins(series: ArrayLike) -> Interval:
    """The mean of a series of equal time bins (goodput, requests per second) with its 95 % interval.

    ``series`` has the bins in order of time, shape (M,), empty bins as the 0 they are.
    """
    bins = np.asarray(series, dtype=np.float64)
    if len(bins) == 0:
        return Interval(None, reason="no samples")
    mean = float(bins.mean())
    sums, counts = joined(bins), joined(np.ones(len(bins))).astype(np.int64)
    tau = correlation_time(sums / counts)
    dof = degrees_of_freedom(len(counts), tau)
    if dof < LEAST_DOF:
        return Interval(mean, n=len(bins), reason=f"fewer than 40 correlation times (about {len(counts) / max(tau, 1.0):.0f})")
    variance = float(np.mean(Projector.over(counts, dof).transform(sums) ** 2))
    half = student(ALPHA, dof) * math.sqrt(variance)
    n_eff = min(float(len(bins)), float(np.var(bins)) / variance) if variance > 0.0 else float(len(bins))
    return Interval(mean, mean - half, mean + half, n=len(bins), n_eff=n_eff, df=float(dof))


@dataclass(frozen=True)
class Clusters:
    """A ratio of sums over connections: its value, and what its variance between connections says."""

    ratio: float
    connections: int
    units: float
    effective_connections: float
    n_eff: float
    log_variance: float

    @classmethod
    def of(cls, numerators: ArrayLike, denominators: ArrayLike) -> Clusters | None:
        """From the two counts per connection, shape (connections,); ``None`` where the denominators sum to nothing."""
        above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
        there = (above != 0.0) | (below != 0.0)
        above, below = above[there], below[there]
        units = float(below.sum())
        if units <= 0.0:
            return None
        ratio = float(above.sum()) / units
        m = len(below)
        effective = units**2 / float(np.sum(below**2))
        left = units - below
        if m < 2 or not np.all(left > 0.0):
            return cls(ratio, m, units, effective, units, math.nan)
        left_out = (above.sum() - above) / left
        variance = (m - 1) / m * float(np.sum((left_out - left_out.mean()) ** 2))
        binomial = ratio * (1.0 - ratio) / units
        effect = max(1.0, variance / binomial) if binomial > 0.0 else 1.0
        logs = np.log(left_out) if np.all(left_out > 0.0) else np.full(m, math.nan)
        log_variance = (m - 1) / m * float(np.sum((logs - logs.mean()) ** 2))
        return cls(ratio, m, units, effective, units / effect, log_variance)

    @property
    def df(self) -> float:
        """Degrees of freedom: effective connections less one."""
        return self.effective_connections - 1.0

    def limits(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Limits of a ratio that is a share (Clopper-Pearson with the effective sample)."""
        return clopper_pearson(self.ratio, effective_sample(self.n_eff, self.df, alpha), alpha)

    def rate_limits(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Limits of a ratio that may pass 1 (jackknife of its logarithm)."""
        half = student(alpha, self.df) * math.sqrt(self.log_variance)
        return self.ratio * math.exp(-half), self.ratio * math.exp(half)


@dataclass(frozen=True)
class Stretches:
    """A share of sums over equal stretches of time: its value, and what its long-run variance says. For shares of few connections."""

    ratio: float
    units: float
    n_eff: float
    dof: int
    correlation_times: float

    @classmethod
    def of(cls, numerators: ArrayLike, denominators: ArrayLike) -> Stretches | None:
        """From the two counts per stretch in order of time, empty ones too, shape (stretches,); ``None`` where the denominators sum to nothing."""
        above, below = joined(numerators), joined(denominators)
        units = float(below.sum())
        if units <= 0.0:
            return None
        ratio = float(above.sum()) / units
        # What a stretch adds to the deviation of the whole: the ratio's linear part.
        deviations = above - ratio * below
        tau = max(correlation_time(deviations), correlation_time(above))
        dof = degrees_of_freedom(len(below), tau)
        lasts = len(below) / max(tau, 1.0)
        if dof < LEAST_DOF:
            return cls(ratio, units, units, dof, lasts)
        z = Projector.over(np.ones(len(below), dtype=np.int64), dof).transform(deviations)
        variance = float(np.mean(z**2)) * (len(below) / units) ** 2
        binomial = ratio * (1.0 - ratio) / units
        effect = max(1.0, variance / binomial) if binomial > 0.0 else 1.0
        return cls(ratio, units, units / effect, dof, lasts)

    @property
    def df(self) -> float:
        """Degrees of freedom: few events make the variance itself uncertain."""
        return 1.0 / (1.0 / self.dof + 1.0 / max(self.clumps, 1e-9))

    @property
    def clumps(self) -> float:
        """How many independent events the events are worth."""
        return self.n_eff * min(self.ratio, 1.0 - self.ratio)

    def limits(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Limits of the share (Clopper-Pearson with the effective sample)."""
        return clopper_pearson(self.ratio, effective_sample(self.n_eff, self.df, alpha), alpha)


def ratio_of_stretches(stretches: Stretches | None) -> Interval:
    """A share of sums with its 95 % interval over time; the point alone with fewer than ten events or 40 correlation times."""
    if stretches is None:
        return Interval(None, reason="no samples")
    n = round(stretches.units)
    if stretches.ratio <= 0.0:
        return Interval(0.0, n=n, reason=f"none in {n:,}")
    events = round(stretches.ratio * stretches.units)
    if min(events, n - events) < LEAST_BEYOND:
        return Interval(stretches.ratio, n=n, reason=f"{events:,} of {n:,}; {LEAST_BEYOND} needed")
    if stretches.dof < LEAST_DOF:
        return Interval(stretches.ratio, n=n, reason=f"fewer than 40 correlation times (about {stretches.correlation_times:.0f})")
    if stretches.clumps < 1.0:
        # A single burst: Student's t has no mean left, and the limits would be 0 and 1.
        return Interval(stretches.ratio, n=n, reason=f"{events:,} of {n:,}, as good as in one burst")
    low, high = stretches.limits()
    return Interval(stretches.ratio, low, high, n=n, n_eff=stretches.n_eff, df=stretches.df)


def ratio_of_clusters(clusters: Clusters | None, *, is_share: bool = True) -> Interval:
    """A ratio of sums with its 95 % interval over connections; the point alone with fewer than four effective connections."""
    if clusters is None:
        return Interval(None, reason="no samples")
    n = round(clusters.units)
    if clusters.ratio <= 0.0:
        return Interval(0.0, n=n, reason=f"none in {n:,}")
    if clusters.effective_connections < LEAST_CONNECTIONS:
        return Interval(clusters.ratio, n=n, reason=_few_connections(clusters.effective_connections, LEAST_CONNECTIONS))
    if is_share and clusters.ratio >= 1.0:
        return Interval(clusters.ratio, n=n, reason=f"all of {n:,}")
    if not is_share and not math.isfinite(clusters.log_variance):
        return Interval(clusters.ratio, n=n, reason="all counts are in one connection")
    low, high = clusters.limits() if is_share else clusters.rate_limits()
    return Interval(clusters.ratio, low, high, n=n, n_eff=clusters.n_eff, df=clusters.df)


def quantile_interval(times_ns: ArrayLike, values: ArrayLike, connection: ArrayLike | None, q: float) -> Interval:
    """One quantile of values seen at ``times_ns`` (int64 ns); build an :class:`Arm` once where several are wanted."""
    return quantile_of(Arm(times_ns, values, connection), q)


def share_interval(times_ns: ArrayLike, values: ArrayLike, connection: ArrayLike | None, threshold: float) -> Interval:
    """The share of values over a threshold."""
    return share_over(Arm(times_ns, values, connection), threshold)


def mean_interval(times_ns: ArrayLike, values: ArrayLike, connection: ArrayLike | None = None) -> Interval:
    """The mean of values seen at ``times_ns``."""
    return mean_of(Arm(times_ns, values, connection))


def ratio_interval(numerators: ArrayLike, denominators: ArrayLike, *, is_share: bool = True) -> Interval:
    """A ratio of sums per connection, such as retransmitted over sent segments."""
    return ratio_of_clusters(Clusters.of(numerators, denominators), is_share=is_share)


def _few_connections(effective: float, needed: float) -> str:
    return f"connections worth {effective:.1f} of equal size; {needed:g} needed"


def _open_sides(arm: Arm, has_low: bool, has_high: bool) -> str:
    missing = {(False, True): "no lower bound", (True, False): "no upper bound", (False, False): "no bounds"}[has_low, has_high]
    span = f" over {arm.correlation_times:,.0f} correlation times" if arm.tau_bins > 1.0 else ""
    return f"{arm.n:,} samples{span} give {missing}"
