"""Two arms side by side: independent, or paired by common stretches of the clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from brokerlens.statistics.arms import LEVELS, Arm
from brokerlens.statistics.dependence import BINS, LEAST_DOF, Floats, clock_bins, satterthwaite

LEAST_OVERLAP: Final = 0.8
MOST_CORRELATION: Final = 0.95


@dataclass(frozen=True)
class Contrast:
    """Two arms, a and b, whose differences (a - b) are asked for.

    Paired arms were cut into the same stretches of the clock, so that what they share in time is taken out of their difference.
    """

    a: Arm
    b: Arm
    paired: bool = False

    @classmethod
    def of(cls, a: Arm, b: Arm, overlap: tuple[int, int] | None = None) -> Contrast:
        """The arms paired over ``overlap`` (ns, both ends included) where they are long enough for it, else independent."""
        if overlap is None or not min(a.n, b.n):
            return cls(a, b)
        bins = common_bins(a, b)
        return cls(a, b).paired_by(over_clock(a, *overlap, bins), over_clock(b, *overlap, bins))

    def paired_by(self, a: Arm, b: Arm) -> Contrast:
        """The pair of the same arms over common bins of the clock; these independent arms where those lack degrees of freedom.

        Taking paired arms for independent ones only widens the intervals of their differences.
        """
        return Contrast(a, b, paired=True) if min(a.dof, b.dof) >= LEAST_DOF else self

    def error(self, z_a: Floats, z_b: Floats) -> tuple[float, float]:
        """Standard error and degrees of freedom of a difference whose arms' parts have the transforms ``z_a`` and ``z_b``."""
        if self.paired:
            dof = min(len(z_a), len(z_b))
            return math.sqrt(float(np.mean((z_a[:dof] - z_b[:dof]) ** 2))), float(dof)
        variances = float(np.mean(z_a**2)), float(np.mean(z_b**2))
        return math.sqrt(sum(variances)), satterthwaite(variances, (float(len(z_a)), float(len(z_b))))

    def correlation(self, level: float) -> float:
        """Correlation of the arms' shares up to their own order statistic of a level; 0 where they are independent."""
        if not self.paired:
            return 0.0
        nearest = int(np.argmin(np.abs(LEVELS - level)))
        dof = min(self.a.dof, self.b.dof)
        z_a, z_b = self.a.level_transforms[:dof, nearest], self.b.level_transforms[:dof, nearest]
        size = math.sqrt(float(np.mean(z_a**2)) * float(np.mean(z_b**2)))
        return min(MOST_CORRELATION, max(0.0, float(np.mean(z_a * z_b)) / size)) if size > 0.0 else 0.0


def common_stretch(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int] | None:
    """What two stretches of the clock (ns) share, if it is at least 80 % of both."""
    start, end = max(a[0], b[0]), min(a[1], b[1])
    longest = max(a[1] - a[0], b[1] - b[0])
    return (start, end) if end > start and end - start >= LEAST_OVERLAP * longest else None


def within(arm: Arm, start: int, end: int) -> Arm:
    """The arm's values from start to end (ns), both included; the arm itself where that is all of them."""
    inside = (arm.times >= start) & (arm.times <= end)
    return arm if inside.all() else Arm(arm.times[inside], arm.values[inside], arm.connections[inside])


def common_bins(a: Arm, b: Arm) -> int:
    """How many bins of the clock a pair of arms is cut into: a power of two, so that an arm's bins serve most of its pairs."""
    return min(BINS, 1 << (max(1, min(a.n, b.n)).bit_length() - 1))


def over_clock(arm: Arm, start: int, end: int, bins: int) -> Arm:
    """The arm over equal bins of the clock from start to end (ns); all its values lie within."""
    numbers = clock_bins(arm.times, start, end, bins)
    return Arm(arm.times, arm.values, arm.connections, bins=numbers, bin_count=bins, ordered=arm.ordered)
