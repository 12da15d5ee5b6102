"""Which sides are compared with which, and whether they may be."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from brokerlens.comparisons.sides import Side
from brokerlens.statistics.contrasts import common_stretch
from brokerlens.statistics.runs import LEAST_RUNS

Labelled = Sequence[tuple[str, Side]]
Scope = Literal["sites", "experiments", "conditions", "baseline"]

MOST_CAPTURE_LOSS: Final = 0.01
MOST_UNCOVERED: Final = 0.2
NEARLY_ALL: Final = 0.95
SECOND: Final = 1e9
_TAPS: Final = {"client": "captured at the client", "broker": "captured at the broker", "middle": "captured between client and broker"}


@dataclass(frozen=True)
class Pair:
    """Two sides, a against the reference b."""

    scope: Scope
    a: Side
    b: Side
    in_common: tuple[int, int] | None = None
    """The stretch of the clock that all sites of their experiment share."""

    @property
    def family(self) -> tuple[str, str]:
        """The family of comparisons that are corrected together: a scope, and the experiment or site that it is about."""
        return self.scope, {"sites": self.a.experiment, "experiments": self.a.site}.get(self.scope, "")

    @property
    def names(self) -> dict[str, Any]:
        """What the rows of the pair say of its sides."""
        return {
            f"{what}_{side}": value
            for side, one in (("a", self.a), ("b", self.b))
            for what, value in (("experiment", one.experiment), ("condition", one.condition), ("site", one.site), ("runs", 1))
        }

    @property
    def labels(self) -> tuple[str, str]:
        """Both sides' names, as short as the scope allows."""
        if self.scope == "sites":
            return self.a.site, self.b.site
        return _in_experiment(self.a), _in_experiment(self.b)

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
        """The stretch of the clock over which they are paired; ``None`` where they are independent. Experiments are never paired.

        It is what all sites of the experiment share where that is nearly all that these two share: then a site has the same figures in all
        of its pairs.
        """
        if self.scope != "sites" or self.a.stretch is None or self.b.stretch is None:
            return None
        own = common_stretch(self.a.stretch, self.b.stretch)
        if own is None or self.in_common is None:
            return own
        return self.in_common if _length(self.in_common) >= NEARLY_ALL * _length(own) else own

    @property
    def labelled(self) -> Labelled:
        """The sites of both sides with their names."""
        return list(zip(self.labels, (self.a, self.b), strict=True))


@dataclass(frozen=True)
class Runs:
    """The runs of a site under one condition, in the order of the experiments."""

    sides: tuple[Side, ...]

    @property
    def condition(self) -> str:
        """Name of the condition."""
        return self.sides[0].condition

    @property
    def site(self) -> str:
        """Name of the site."""
        return self.sides[0].site


@dataclass(frozen=True)
class RunsPair:
    """A site's runs under two conditions, a against the reference b: the run is what varies."""

    scope: Scope
    a: Runs
    b: Runs

    @property
    def family(self) -> tuple[str, str]:
        """As of two sides: conditions are corrected together per site."""
        return self.scope, self.a.site if self.scope == "conditions" else ""

    @property
    def names(self) -> dict[str, Any]:
        """What the rows of the pair say of its sides; no single experiment."""
        return {
            f"{what}_{side}": value
            for side, runs in (("a", self.a), ("b", self.b))
            for what, value in (("condition", runs.condition), ("site", runs.site), ("runs", len(runs.sides)))
        }

    @property
    def labels(self) -> tuple[str, str]:
        """Both sides' names."""
        return f"{self.a.site} in {self.a.condition}", f"{self.b.site} in {self.b.condition}"

    @property
    def overlap_seconds(self) -> None:
        """Runs have nothing of the clock in common."""
        return

    @property
    def labelled(self) -> Labelled:
        """The runs of both sides with their names."""
        return [(_in_experiment(side), side) for runs in (self.a, self.b) for side in runs.sides]


def pairs_of(sides: Sequence[Side], baseline: str | None) -> list[Pair | RunsPair]:
    """All comparisons, in a fixed order.

    ``sites``: every two sites of an experiment. ``experiments``: each site against itself in the experiment before. ``conditions``: each site's runs
    under a condition against those under the condition before, where both have four; their experiments are not compared one by one then.
    ``baseline``: each site against itself in the baseline, an experiment or every experiment of a condition, by runs where both have four. "Before"
    is the order of ``sides``.
    """
    experiments = list(dict.fromkeys(side.experiment for side in sides))
    sites = list(dict.fromkeys(side.site for side in sides))
    found: list[Pair | RunsPair] = []
    for experiment in experiments:
        together = [side for side in sides if side.experiment == experiment]
        in_common = _in_common(together)
        found += [Pair("sites", a, b, in_common) for a, b in itertools.combinations(together, 2)]
    for site in sites:
        runs = [side for side in sides if side.site == site]
        repeated = _repeated(runs)
        alone = [(later, earlier) for earlier, later in itertools.pairwise(runs) if not _told_by_runs(later, earlier, repeated)]
        found += [Pair("experiments", later, earlier) for later, earlier in alone]
        found += [RunsPair("conditions", later, earlier) for earlier, later in itertools.pairwise(repeated.values())]
    if baseline is not None:
        for site in sites:
            runs = [side for side in sides if side.site == site]
            repeated = _repeated(runs)
            reference = repeated.get(baseline)
            # One experiment as the baseline is a single run, however many others its condition has.
            told = repeated if reference is not None else {}
            found += [
                Pair("baseline", a, b)
                for a in runs
                if not _is_baseline(a, baseline)
                for b in runs
                if _is_baseline(b, baseline) and not _told_by_runs(a, b, told)
            ]
            found += [RunsPair("baseline", one, reference) for one in repeated.values() if reference is not None and one is not reference]
    return found


def _in_common(sides: Sequence[Side]) -> tuple[int, int] | None:
    """What all sides that captured anything share of the clock."""
    stretches = [side.stretch for side in sides if side.stretch is not None]
    if not stretches:
        return None
    start, end = max(start for start, _ in stretches), min(end for _, end in stretches)
    return (start, end) if end > start else None


def _length(stretch: tuple[int, int]) -> int:
    return stretch[1] - stretch[0]


def _repeated(runs: Sequence[Side]) -> dict[str, Runs]:
    """The conditions with enough runs that the run can be what varies."""
    conditions = dict.fromkeys(side.condition for side in runs)
    grouped = {name: tuple(side for side in runs if side.condition == name) for name in conditions}
    return {name: Runs(sides) for name, sides in grouped.items() if len(sides) >= LEAST_RUNS}


def _told_by_runs(a: Side, b: Side, repeated: Mapping[str, Runs]) -> bool:
    """Whether two experiments belong to conditions that are compared with runs as the outer level."""
    return a.condition != b.condition and a.condition in repeated and b.condition in repeated


def _is_baseline(side: Side, baseline: str) -> bool:
    return baseline in (side.experiment, side.condition)


def _in_experiment(side: Side) -> str:
    return f"{side.site} in {side.experiment}"


def obstacle(sides: Labelled) -> str | None:
    """Why these may not be compared, or ``None``: one run that may not is enough."""
    found = [*_tap_obstacle(sides), *(text for label, side in sides for text in _obstacles(side, label))]
    return "; ".join(found) or None


def caution(sides: Labelled) -> str | None:
    """What to bear in mind though they may be compared, or ``None``."""
    unknown = [label for label, side in sides if side.tap not in _TAPS]
    were = "was" if len(unknown) == 1 else "were"
    return f"caution: it is not known where {' and '.join(unknown)} {were} captured" if unknown else None


def _tap_obstacle(sides: Labelled) -> Iterator[str]:
    known = [(label, side.tap) for label, side in sides if side.tap in _TAPS]
    for label, tap in known[1:]:
        first, of_first = known[0]
        if tap != of_first:
            yield f"{first} was {_TAPS[of_first]}, {label} {_TAPS[tap].removeprefix('captured ')}"
            return


def _obstacles(side: Side, label: str) -> Iterator[str]:
    if side.stretch is None or side.connections == 0:
        yield f"no packets of {label} are inside its window"
        return
    if side.uncovered > MOST_UNCOVERED:
        yield f"the captures of {label} cover {100.0 * (1.0 - side.uncovered):.0f} % of its window"
    loss = side.capture_loss
    if loss is not None and loss > MOST_CAPTURE_LOSS:
        yield f"{100.0 * loss:.1f} % of what was acknowledged at {label} was never captured"
