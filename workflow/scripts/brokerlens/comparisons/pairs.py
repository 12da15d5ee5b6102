"""Which sides are compared with which, and whether they may be."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from brokerlens.comparisons.sides import Side
from brokerlens.statistics.contrasts import common_stretch

Scope = Literal["sites", "experiments", "baseline"]

MOST_CAPTURE_LOSS: Final = 0.01
MOST_UNCOVERED: Final = 0.2
SECOND: Final = 1e9
_TAPS: Final = {"client": "captured at the client", "broker": "captured at the broker", "middle": "captured between client and broker"}


@dataclass(frozen=True)
class Pair:
    """Two sides, a against the reference b."""

    scope: Scope
    a: Side
    b: Side

    @property
    def family(self) -> tuple[str, str]:
        """The family of comparisons that are corrected together: a scope, and the experiment or site that it is about."""
        return self.scope, {"sites": self.a.experiment, "experiments": self.a.site, "baseline": ""}[self.scope]

    @property
    def labels(self) -> tuple[str, str]:
        """Both sides' names, as short as the scope allows."""
        if self.scope == "sites":
            return self.a.site, self.b.site
        return f"{self.a.site} in {self.a.experiment}", f"{self.b.site} in {self.b.experiment}"

    @property
    def overlap_seconds(self) -> float | None:
        """Time that both captured of their window, for sites of one experiment."""
        if self.scope != "sites":
            return None
        if self.a.stretch is None or self.b.stretch is None:
            return 0.0
        return max(0, min(self.a.stretch[1], self.b.stretch[1]) - max(self.a.stretch[0], self.b.stretch[0])) / SECOND

    @property
    def common_stretch(self) -> tuple[int, int] | None:
        """The stretch of the clock over which they are paired; ``None`` where they are independent. Experiments are never paired."""
        if self.scope != "sites" or self.a.stretch is None or self.b.stretch is None:
            return None
        return common_stretch(self.a.stretch, self.b.stretch)

    def obstacle(self) -> str | None:
        """Why the sides may not be compared, or ``None``."""
        found = [
            *_tap_obstacle(self),
            *(text for side, label in zip((self.a, self.b), self.labels, strict=True) for text in _obstacles(side, label)),
        ]
        return "; ".join(found) or None

    def caution(self) -> str | None:
        """What to bear in mind though they may be compared, or ``None``."""
        unknown = [label for side, label in zip((self.a, self.b), self.labels, strict=True) if side.tap not in _TAPS]
        return (
            f"caution: it is not known where {' and '.join(unknown)} {'was' if len(unknown) == 1 else 'were'} captured" if unknown else None
        )


def pairs_of(sides: Sequence[Side], baseline: str | None) -> list[Pair]:
    """All comparisons, in a fixed order.

    ``sites``: every two sites of an experiment. ``experiments``: each site against itself in the experiment before. ``baseline``: each
    site against itself in the baseline, an experiment or every experiment of a condition. "Before" is the order of ``sides``.
    """
    experiments = list(dict.fromkeys(side.experiment for side in sides))
    sites = list(dict.fromkeys(side.site for side in sides))
    found = [
        Pair("sites", a, b)
        for experiment in experiments
        for a, b in itertools.combinations([s for s in sides if s.experiment == experiment], 2)
    ]
    for site in sites:
        runs = [side for side in sides if side.site == site]
        found += [Pair("experiments", later, earlier) for earlier, later in itertools.pairwise(runs)]
    if baseline is not None:
        for site in sites:
            runs = [side for side in sides if side.site == site]
            found += [Pair("baseline", a, b) for a in runs if not _is_baseline(a, baseline) for b in runs if _is_baseline(b, baseline)]
    return found


def _is_baseline(side: Side, baseline: str) -> bool:
    return baseline in (side.experiment, side.facts["condition"])


def _tap_obstacle(pair: Pair) -> Iterator[str]:
    a, b = pair.a.tap, pair.b.tap
    if a in _TAPS and b in _TAPS and a != b:
        first, second = pair.labels
        other = _TAPS[b].removeprefix("captured ")
        yield f"{first} was {_TAPS[a]}, {second} {other}"


def _obstacles(side: Side, label: str) -> Iterator[str]:
    if side.stretch is None or side.connections == 0:
        yield f"no packets of {label} are inside its window"
        return
    if side.uncovered > MOST_UNCOVERED:
        yield f"the captures of {label} cover {100.0 * (1.0 - side.uncovered):.0f} % of its window"
    loss = side.capture_loss
    if loss is not None and loss > MOST_CAPTURE_LOSS:
        yield f"{100.0 * loss:.1f} % of what was acknowledged at {label} was never captured"
