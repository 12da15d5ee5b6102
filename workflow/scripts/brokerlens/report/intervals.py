"""Intervals and comparisons as words: digits where the bounds begin to differ, "too few" instead of a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from brokerlens.report.results import Key, Metric, Results, Site, slug
from brokerlens.report.words import NONE, digits_for, fixed, grey, percent

Row = Mapping[str, Any]
NEEDED = {"p50": 300, "p90": 300, "p95": 300, "p99": 1000}
LEVELS = ("p50", "p90", "p95", "p99")


def bounds(low: float | None, high: float | None, digits: int, *, sign: bool = False) -> str:
    """``24.7 to 26.5``; ``at least 24.7`` where the upper side is open."""
    if low is None and high is None:
        return "no interval"
    if high is None:
        return f"at least {fixed(low, digits, sign=sign)}"
    if low is None:
        return f"at most {fixed(high, digits, sign=sign)}"
    return f"{fixed(low, digits, sign=sign)} to {fixed(high, digits, sign=sign)}"


def dash_bounds(metric: Metric) -> str:
    """Small print under a value: ``47.4–48.9``, ``at least 214``, or nothing."""
    low, high = metric.low, metric.high
    if low is None and high is None:
        return ""
    if low is None or high is None:
        return bounds(low, high, digits_for(metric.value, low, high))
    digits = digits_for(metric.value, low, high)
    return f"{fixed(low, digits)}–{fixed(high, digits)}"


def value_of(metric: Metric) -> str:
    """The value with as many digits as its interval allows."""
    if metric.value is None:
        return NONE
    return fixed(metric.value, min(digits_for(metric.value, metric.low, metric.high), 2))


def share_interval(metric: Metric) -> str:
    """``2.8 to 5.8 %``, or nothing."""
    if metric.value is None or metric.low is None or metric.high is None:
        return ""
    digits = digits_for(100 * metric.value, 100 * metric.low, 100 * metric.high)
    return f"{fixed(100 * metric.low, digits)} to {fixed(100 * metric.high, digits)} %"


def share_words(metric: Metric) -> Markup:
    """A share with its interval: ``4.1 % (2.8 to 5.8 %)``, ``none of 268 (at most 1.4 %)``."""
    if metric.value is None:
        return Markup("unknown")
    if metric.value == 0:
        limit = grey(f" (at most {percent(metric.high)})") if metric.high is not None else ""
        return Markup("none of {}{}").format(f"{metric.n:,}", limit)
    interval = share_interval(metric)
    return Markup("{}{}").format(percent(metric.value), grey(f" ({interval})") if interval else "")


def signed(row: Row) -> str:
    """The difference with its sign, digits from its interval."""
    return fixed(row["difference"], digits_for(row["difference"], row["difference_low"], row["difference_high"]), sign=True)


def signed_bounds(row: Row) -> str:
    """The difference's interval with signs."""
    low, high = row["difference_low"], row["difference_high"]
    return bounds(low, high, digits_for(row["difference"], low, high), sign=True)


def is_sure(row: Row) -> bool:
    """The interval of the difference leaves zero out, on one side at least."""
    low, high = row["difference_low"], row["difference_high"]
    return (low is not None and low > 0) or (high is not None and high < 0)


def pair_of(row: Row) -> tuple[Key, Key]:
    """The two sides of a comparison."""
    return (row["experiment_a"], row["site_a"]), (row["experiment_b"], row["site_b"])


def turned(row: Row) -> Row:
    """The row with its sides exchanged."""

    def negated(value: float | None) -> float | None:
        return None if value is None else -value

    def inverse(value: float | None) -> float | None:
        return 1 / value if value else None

    sides = {f"{part}_{one}": row[f"{part}_{other}"] for part in ("experiment", "site", "estimate", "n") for one, other in ("ab", "ba")}
    difference = {
        "difference": negated(row["difference"]),
        "difference_low": negated(row["difference_high"]),
        "difference_high": negated(row["difference_low"]),
    }
    ratio = {"ratio": inverse(row["ratio"]), "ratio_low": inverse(row["ratio_high"]), "ratio_high": inverse(row["ratio_low"])}
    return {**row, **sides, **difference, **ratio}


class Compared:
    """The rows about two sides."""

    def __init__(self, scope: str, slug: str, rows: Sequence[Row]) -> None:
        self.scope, self.slug = scope, slug
        self._rows = {(row["metric"], row["group"], row["statistic"]): row for row in rows}

    def row(self, statistic: str, metric: str = "kafka_latency", group: str = "all") -> Row | None:
        """One row, if there is one."""
        return self._rows.get((metric, group, statistic))

    @property
    def not_comparable(self) -> str | None:
        """Why the two must not be compared; None where they may."""
        for statistic in ("p50", "mean", "p95"):
            row = self.row(statistic)
            if row is not None and row["verdict"] == "not_comparable":
                return str(row["reason"] or "the two sides were not measured alike")
        return None

    @property
    def family(self) -> int:
        """Comparisons that were corrected together."""
        return max((row["family_size"] or 0 for row in self._rows.values()), default=0)

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())


class Comparison(Compared):
    """All rows about one pair of sites or experiments."""

    def __init__(self, scope: str, a: Site, b: Site, rows: Sequence[Row]) -> None:
        super().__init__(scope, f"{scope}-{a.slug}-{b.slug}", rows)
        self.a, self.b = a, b

    @property
    def groups(self) -> list[str]:
        """Groups of the latency that were compared, ``all`` first."""
        found = dict.fromkeys(group for metric, group, _ in self._rows if metric == "kafka_latency")
        return sorted(found, key=lambda group: (group != "all", group))

    def turned(self) -> Comparison:
        """The pair with its sides exchanged."""
        return Comparison(self.scope, self.b, self.a, [turned(row) for row in self._rows.values()])

    @property
    def same_experiment(self) -> bool:
        return self.a.experiment == self.b.experiment


class RunsComparison(Compared):
    """All rows about a site's runs under two conditions, where the run is what varies."""

    def __init__(self, rows: Sequence[Row]) -> None:
        first = rows[0]
        self.site, self.condition, self.reference = str(first["site_a"]), str(first["condition_a"]), str(first["condition_b"])
        self.runs = int(first["runs_a"]), int(first["runs_b"])
        super().__init__(first["scope"], f"{first['scope']}-{slug('-'.join((self.site, self.condition, self.reference)))}", rows)


def runs_comparisons(results: Results) -> list[RunsComparison]:
    """The conditions compared by their runs, those of the latest first."""
    pairs: dict[tuple[str, ...], list[Row]] = {}
    for row in results.comparisons:
        if row["experiment_a"] is None:
            pairs.setdefault((row["scope"], row["site_a"], row["condition_a"], row["condition_b"]), []).append(row)
    return [RunsComparison(rows) for rows in reversed(pairs.values())]


def comparisons(results: Results) -> list[Comparison]:
    """The pairs, those of the latest experiment first, sites of an experiment before experiments of a site."""
    pairs: dict[tuple[str, Key, Key], list[Row]] = {}
    for row in results.comparisons:
        if row["experiment_a"] is not None:
            pairs.setdefault((row["scope"], *pair_of(row)), []).append(row)
    found = []
    for (scope, a, b), rows in pairs.items():
        side_a, side_b = results.site(*a), results.site(*b)
        if side_a is not None and side_b is not None:
            found.append(Comparison(scope, side_a, side_b, rows))
    scopes = {"sites": 0, "experiments": 1, "baseline": 2}
    latest = results.experiments[:1]

    def rank(pair: Comparison) -> tuple[bool, int, int]:
        current = [pair.a.experiment] == latest or [pair.b.experiment] == latest
        return not current, scopes.get(pair.scope, 3), results.experiments.index(pair.a.experiment)

    return sorted(found, key=rank)


def too_few(row: Row) -> str:
    """``too few samples, 268 of 1,000``; of repeated runs, what they lack: their requests together are not what is short."""
    if row["sampling"] == "runs":
        return f"no interval over runs: {row['reason']}"
    needed = NEEDED.get(row["statistic"])
    least = min(row["n_a"], row["n_b"])
    if needed is not None and least < needed:
        return f"too few samples, {least:,} of {needed:,}"
    return f"too few samples, {least:,} requests that depend on each other"


def less_or_more(difference: float, digits: int) -> str:
    """``25.5 ms less``."""
    return f"{fixed(abs(difference), digits)} ms {'less' if difference < 0 else 'more'}"


def times(ratio: float | None) -> str:
    """``4.2 times`` where the ratio passes two either way, else nothing."""
    if ratio is None or ratio <= 0 or 0.5 <= ratio <= 2:
        return ""
    return f"{_two_digits(ratio)} times" if ratio > 1 else f"{_two_digits(1 / ratio)} times less"


def _two_digits(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


def margin_words(value: float) -> str:
    """An equivalence margin in ms: ``3.7 ms``."""
    return f"{_two_digits(value)} ms"
