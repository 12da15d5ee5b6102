"""One arm of a comparison: a series of values in time, and the small state from which every statistic takes its variance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brokerlens.statistics.dependence import (
    LEAST_DOF,
    Floats,
    Ints,
    cosines,
    degrees_of_freedom,
    equal_bins,
    longest_correlation_time,
)
from brokerlens.statistics.distances import area_between

LEVELS: Final = np.array(
    [0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.985, 0.99, 0.993, 0.995, 0.997, 0.998, 0.999]
)
WORST_LEVELS: Final = (0.5, 0.9, 0.95, 0.99)

MOST_STRETCHES: Final = 64
STRETCH_CORRELATION_TIMES: Final = 4

# Cells 0.5 % wide; in milliseconds they reach from 1 microsecond to 1000 seconds.
FIRST_EDGE: Final = 1e-3
CELLS: Final = 4145
CELL_WIDTH: Final = 0.005
EDGES: Final[Floats] = FIRST_EDGE * np.exp(CELL_WIDTH * np.arange(CELLS + 1))
CENTRES: Final[Floats] = np.sqrt(EDGES[:-1] * EDGES[1:])


def cells_of(values: Floats) -> Ints:
    """The cell of each value; values beyond the first or last edge lie in the first or last cell."""
    # The small share of a cell keeps a value on an edge in the cell above it whatever the logarithm's last bit.
    found = np.floor(np.log(np.maximum(values, FIRST_EDGE) / FIRST_EDGE) / CELL_WIDTH + 1e-9)
    return np.clip(found, 0, CELLS - 1).astype(np.int64)


def rank(n: int, level: float) -> int:
    """The rank (1-based) of the level's order statistic among n: the smallest k with k / n >= level."""
    return min(n, max(1, int(np.ceil(n * level - 1e-9))))


@dataclass(frozen=True)
class Projector:
    """Low-frequency cosines over the bins of one arm: sums per bin in, their transforms out.

    ``weights`` has shape (degrees of freedom, bins), scaled so that the mean square of a transform is the variance of a mean,
    also where the bins hold unequal numbers of values.
    """

    weights: Floats
    counts: Ints

    @classmethod
    def over(cls, counts: Ints, dof: int) -> Projector:
        """Cosines for bins that hold ``counts`` values."""
        phi = cosines(len(counts), dof)
        n = float(counts.sum())
        centred = phi - (phi @ counts)[:, None] / n
        scale = np.sqrt(n / np.maximum((centred**2) @ counts, 1e-300))
        return cls(phi * scale[:, None], counts)

    def transform(self, sums: Floats) -> Floats:
        """z of the mean of values whose sums per bin are ``sums`` (bins,) or (bins, m): shape (dof,) or (dof, m)."""
        n = float(self.counts.sum())
        mean = sums.sum(axis=0) / n
        return np.asarray(self.weights @ (sums - np.multiply.outer(self.counts, mean)) / n)


class Arm:
    """Values of one side in time order, with the state that serves every statistic and every pair.

    Parameters
    ----------
    times
        When each value was seen, int64 ns, shape (n,).
    values
        The values, float64, shape (n,), not negative, not nan (milliseconds where the cells' range is meant).
    connections
        Number of the connection of each value, shape (n,); all in one where left out.
    bins
        Bin of each value where it is not by equal counts (pairs: equal stretches of the common clock), and ``bin_count`` of them.
    ordered
        The values sorted, where somebody has them.

    Attributes
    ----------
    n, times, values, connections
        The values in order of time, with their times and connections.
    ordered
        The values, sorted.
    """

    def __init__(
        self,
        times: ArrayLike,
        values: ArrayLike,
        connections: ArrayLike | None = None,
        *,
        bins: NDArray[np.int64] | None = None,
        bin_count: int | None = None,
        ordered: Floats | None = None,
    ) -> None:
        when = np.asarray(times, dtype=np.int64)
        what = np.asarray(values, dtype=np.float64)
        whose = np.zeros(len(when), dtype=np.int64) if connections is None else np.asarray(connections, dtype=np.int64)
        if not len(when) == len(what) == len(whose):
            raise ValueError(f"times, values and connections differ in length: {len(when)}, {len(what)}, {len(whose)}")
        if bins is None:
            if not np.all(when[1:] > when[:-1]):
                order = np.lexsort((what, whose, when))
                when, what, whose = when[order], what[order], whose[order]
            bins = equal_bins(len(when))
            bin_count = int(bins[-1]) + 1 if len(bins) else 0
        elif bin_count is None:
            raise ValueError("bins need their number: bin_count")
        self.n = len(what)
        self.times = when
        self.values = what
        self.connections = whose
        self.bins = bins.astype(np.int32)
        self.bin_count = int(bin_count or 0)
        self.counts: Ints = np.bincount(bins, minlength=self.bin_count).astype(np.int64)
        self.ordered: Floats = np.sort(what) if ordered is None else ordered
        self.seconds = float(when.max() - when.min()) / 1e9 if self.n else 0.0

    @cached_property
    def tau_bins(self) -> float:
        """Correlation time in bins."""
        return longest_correlation_time(self._dependence_series()) if self.n else 0.0

    @cached_property
    def dof(self) -> int:
        """Degrees of freedom of every variance; 0 without values."""
        return degrees_of_freedom(self.bin_count, self.tau_bins) if self.n else 0

    @property
    def correlation_seconds(self) -> float:
        """Correlation time in seconds."""
        return self.tau_bins * self.seconds / self.bin_count if self.n else 0.0

    @property
    def correlation_times(self) -> float:
        """How many correlation times the arm lasts; its bins where it shows no dependence."""
        return self.bin_count / self.tau_bins if self.tau_bins > 0.0 else float(self.bin_count)

    @property
    def is_long_enough(self) -> bool:
        """Whether the arm lasts the 40 correlation times that its variances need."""
        return self.dof >= LEAST_DOF

    def at_rank(self, k: int) -> float:
        """The k-th smallest value (1-based); the first or last for ranks beyond them."""
        return float(self.ordered[min(max(k, 1), self.n) - 1])

    def quantile(self, level: float) -> float:
        """The level's order statistic (``inverted_cdf``)."""
        return self.at_rank(rank(self.n, level))

    @cached_property
    def mean(self) -> float:
        """The mean of the values, summed in ascending order so that it depends on nothing but them."""
        return float(self.ordered.sum() / self.n)

    @cached_property
    def histogram(self) -> Ints:
        """Values per cell, shape (CELLS,)."""
        return np.bincount(self._cells(), minlength=CELLS).astype(np.int64)

    @cached_property
    def distribution(self) -> Floats:
        """Share of values up to each cell's end, shape (CELLS,)."""
        return np.cumsum(self.histogram) / self.n

    @cached_property
    def state(self) -> Floats:
        """Z, shape (dof, CELLS): for the mean of any g(cell), z = Z g and its variance is the mean of z squared."""
        weights = self._projector.weights
        # One pass per cosine instead of the matrix of bins times cells, which would be 68 MB of mostly zeros.
        cells = self._cells()
        sums = np.stack([np.bincount(cells, weights=row[self.bins], minlength=CELLS) for row in weights])
        means = (weights @ self.counts) / self.n
        return np.asarray((sums - means[:, None] * self.histogram[None, :]) / self.n)

    @cached_property
    def mean_transform(self) -> Floats:
        """z of the mean of the values, shape (dof,)."""
        return self._projector.transform(self._sums(self.values))

    @cached_property
    def level_transforms(self) -> Floats:
        """z of the shares up to each level's order statistic, shape (dof, levels)."""
        return self._projector.transform(self._at_most_per_bin)

    @cached_property
    def design_effects(self) -> Floats:
        """By how much dependence in time inflates the variance of the share up to each level's order statistic, at least 1."""
        share = self._at_most_per_bin.sum(axis=0) / self.n
        return inflation(self.n * np.mean(self.level_transforms**2, axis=0), share)

    @cached_property
    def connection_effects(self) -> Floats:
        """The same inflation where the connections, too, are a sample: jackknife over connections, at each level, at least 1."""
        _, number = np.unique(self.connections, return_inverse=True)
        connections = int(number.max()) + 1
        counted = np.bincount(number * (len(LEVELS) + 1) + self._level_index(), minlength=connections * (len(LEVELS) + 1))
        at_most = np.cumsum(counted.reshape(connections, -1), axis=1)[:, : len(LEVELS)]
        sizes = np.bincount(number, minlength=connections)
        share = at_most.sum(axis=0) / self.n
        if connections < 2:
            return np.ones(len(LEVELS))
        left_out = (at_most.sum(axis=0) - at_most) / (self.n - sizes)[:, None]
        variance = (connections - 1) / connections * np.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0)
        return inflation(self.n * variance, share)

    @cached_property
    def effective_connections(self) -> float:
        """How many connections of equal size the arm's connections are worth: (sum n)^2 / sum n^2."""
        _, sizes = np.unique(self.connections, return_counts=True)
        return float(sizes.sum()) ** 2 / float(np.sum(sizes.astype(np.float64) ** 2)) if self.n else 0.0

    @cached_property
    def connection_count(self) -> int:
        """Connections among the values."""
        return len(np.unique(self.connections))

    @cached_property
    def stretch_noise(self) -> float | None:
        """Wasserstein-1 distance between odd and even stretches, each at least four correlation times long; ``None`` if there are not two."""
        stretches = MOST_STRETCHES
        if self.tau_bins > 0.0:
            stretches = min(stretches, int(self.bin_count / (STRETCH_CORRELATION_TIMES * self.tau_bins)) // 2 * 2)
        odd = (self.bins.astype(np.int64) * stretches // max(self.bin_count, 1)) % 2 == 1
        if not odd.any() or odd.all():
            return None
        return area_between(np.sort(self.values[odd]), np.sort(self.values[~odd]))

    @cached_property
    def worst_sample(self) -> float:
        """n over the largest design effect of p50, p90, p95 and p99: independent values that the arm is at least worth."""
        return float(self.n / max(np.interp(WORST_LEVELS, LEVELS, self.design_effects)))

    def _cells(self) -> Ints:
        return cells_of(self.values)

    @cached_property
    def _projector(self) -> Projector:
        return Projector.over(self.counts, self.dof)

    def _level_index(self) -> Ints:
        thresholds = self.ordered[[rank(self.n, level) - 1 for level in LEVELS]]
        return np.searchsorted(thresholds, self.values, side="left").astype(np.int64)

    @cached_property
    def _at_most_per_bin(self) -> Floats:
        """Values per bin that are at most each level's order statistic, shape (bins, levels)."""
        columns = len(LEVELS) + 1
        counted = np.bincount(self.bins.astype(np.int64) * columns + self._level_index(), minlength=self.bin_count * columns)
        return np.cumsum(counted.reshape(self.bin_count, columns), axis=1)[:, : len(LEVELS)].astype(np.float64)

    def _sums(self, values: Floats) -> Floats:
        return np.bincount(self.bins, weights=values, minlength=self.bin_count).astype(np.float64)

    def _dependence_series(self) -> list[Floats]:
        """Five series of bins: mean logarithm, and the shares up to p50, p90, p95 and p99."""
        logs = np.log(np.maximum(self.values, FIRST_EDGE))
        sums = [self._sums(logs)]
        sums += [self._at_most_per_bin[:, int(np.argmin(np.abs(LEVELS - level)))] for level in WORST_LEVELS]
        if np.all(self.counts > 0) and int(np.ptp(self.counts)) <= 1:
            return [one / self.counts for one in sums]
        # Clock bins may be empty or crowded: what a bin adds to the deviation of the whole, which is what the cosines see.
        return [one - self.counts * (one.sum() / self.n) for one in sums]


def inflation(variance_of_n: Floats, share: Floats) -> Floats:
    """Design effect: n times the variance of a share over share (1 - share), at least 1; 1 where the share cannot vary."""
    binomial = share * (1.0 - share)
    varies = binomial > 0.0
    return np.maximum(1.0, np.where(varies, variance_of_n / np.where(varies, binomial, 1.0), 1.0))
