"""The rows of the data set `comparisons`: estimates, intervals, and verdicts corrected for their family."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa

from brokerlens import tables
from brokerlens.comparisons.pairs import Pair, Runs, RunsPair, caution, obstacle
from brokerlens.comparisons.sides import Key, Ratio, Side
from brokerlens.statistics import effects
from brokerlens.statistics.arms import Arm
from brokerlens.statistics.contrasts import Contrast, common_bins
from brokerlens.statistics.differences import Difference, interval_difference, mean_difference, quantile_difference, ratio_difference
from brokerlens.statistics.effects import Effect
from brokerlens.statistics.intervals import (
    ALPHA,
    LEAST_BEYOND,
    WEAK_BELOW,
    Clusters,
    Interval,
    Stretches,
    mean_of,
    quantile_of,
    ratio_of_clusters,
    ratio_of_stretches,
    refusal,
    share_over,
)
from brokerlens.statistics.multiplicity import holm
from brokerlens.statistics.rounding import published
from brokerlens.statistics.runs import over_runs, runs_difference

Row = dict[str, Any]

QUANTILES: Final[Mapping[str, float]] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
DISTRIBUTION: Final = ("hl_shift", "hl_ratio", "cliffs_delta", "wasserstein1")
PRIMARY: Final = frozenset(
    {
        ("kafka_latency", "all", "p50"),
        ("kafka_latency", "all", "p95"),
        ("rtt", "half=to_broker", "p50"),
        ("rtt", "half=to_client", "p50"),
        ("retransmissions", "all", "ratio_of_sums"),
    }
)
STATISTICS: Final[Mapping[str, tuple[str, ...]]] = {
    "kafka_latency": (*QUANTILES, "mean", "share_over", *DISTRIBUTION),
    "rtt": (*QUANTILES, "mean", *DISTRIBUTION),
}
OTHER_STATISTICS: Final = ("p50", "p95", "mean")
UNITS: Final[Mapping[str, str]] = {
    "goodput": "bytes/s",
    "throughput": "bytes/s",
    "request_rate": "requests/s",
    "record_rate": "records/s",
    "record_byte_rate": "bytes/s",
}

NO_SAMPLES: Final = Interval(None, reason="no samples")

RESOLUTION_MS: Final = 0.001
"""Captures keep microseconds: no margin is finer."""

_METHODS: Final[Mapping[str, str]] = {
    "quantile": "order statistics; binomial interval with the effective n of slow cosines; difference and ratio by MOVER",
    "mean": "long-run variance of slow cosines, Student's t",
    "share_over": "Clopper-Pearson with the effective n of slow cosines; difference and ratio by MOVER",
    "hl_shift": "Hodges-Lehmann, interval by inverting Cliff's delta",
    "hl_ratio": "Hodges-Lehmann of logarithms, interval by inverting Cliff's delta",
    "cliffs_delta": "placements; long-run variance of slow cosines, Student's t on atanh",
    "wasserstein1": "area between distribution functions; interval only above three noise floors",
    "ratio_by_time": "long-run variance of slow cosines over seconds, Clopper-Pearson with the effective n; difference and ratio by MOVER",
    "ratio_by_connections": "jackknife over connections, Clopper-Pearson with the effective n; difference and ratio by MOVER",
    "runs": "one estimate per run; Student's t over runs, difference by Welch's t, ratio of geometric means by Welch's t on logarithms",
    "rate": "mean of seconds; long-run variance of slow cosines, Student's t; difference and ratio by MOVER",
}
_EFFECTS: Final[Mapping[str, Callable[[Contrast], Effect]]] = {
    "hl_shift": effects.hodges_lehmann_shift,
    "hl_ratio": effects.hodges_lehmann_ratio,
    "cliffs_delta": effects.cliffs_delta,
    "wasserstein1": effects.wasserstein,
}


def compare_pairs(pairs: Sequence[Pair | RunsPair], *, margin: float, share_over_ms: float) -> list[Row]:
    """All rows, in the order of the pairs, with their verdicts.

    ``margin`` is the share of the reference's figure within which two figures are called equivalent; ``share_over_ms`` the threshold of
    `share_over`.
    """
    families: dict[tuple[str, str], list[Row]] = defaultdict(list)
    rows = []
    for pair in pairs:
        found = list(_rows_of_runs(pair, share_over_ms) if isinstance(pair, RunsPair) else _rows_of(pair, share_over_ms))
        why_not, but = obstacle(pair.labelled), caution(pair.labelled)
        for row in found:
            _judge_alone(row, why_not, but, margin)
        families[pair.family] += [row for row in found if row["p_value"] is not None]
        rows += found
    for family in families.values():
        for row, adjusted in zip(family, holm([row["p_value"] for row in family]), strict=True):
            row["p_holm"], row["family_size"] = adjusted, len(family)
            _judge_among(row)
    return rows


def table(rows: Sequence[Row]) -> pa.Table:
    """The rows with the data set's columns, figures with nine significant digits."""
    fields = [column.field() for column in tables.COMPARISONS]
    floats = {field.name for field in fields if pa.types.is_floating(field.type)}
    columns = {
        field.name: pa.array([published(row[field.name]) if field.name in floats else row[field.name] for row in rows], field.type)
        for field in fields
    }
    return pa.table(columns, schema=pa.schema(fields))


def _rows_of(pair: Pair, threshold: float) -> Iterator[Row]:
    a, b = pair.a, pair.b
    for key in _keys(a.arms, b.arms):
        yield from _arm_rows(pair, key, threshold)
    for key in _keys(a.ratios, b.ratios):
        yield _ratio_row(pair, key)
    for key in _keys(a.rates, b.rates):
        yield _rate_row(pair, key)


def _rows_of_runs(pair: RunsPair, threshold: float) -> Iterator[Row]:
    """The figures that have one estimate per run: the distributions of different runs are not mixed."""
    for key in _keys(_of_any_run(pair.a, "arms"), _of_any_run(pair.b, "arms")):
        for statistic in STATISTICS.get(key[0], OTHER_STATISTICS):
            if statistic not in _EFFECTS:
                yield _runs_row(pair, key, statistic, "share" if statistic == "share_over" else "ms", threshold)
    for key in _keys(_of_any_run(pair.a, "ratios"), _of_any_run(pair.b, "ratios")):
        yield _runs_row(pair, key, "ratio_of_sums", "share", threshold)
    for key in _keys(_of_any_run(pair.a, "rates"), _of_any_run(pair.b, "rates")):
        yield _runs_row(pair, key, "mean", UNITS[key[0]], threshold)


def _of_any_run(runs: Runs, what: str) -> dict[Key, Any]:
    return {key: value for side in runs.sides for key, value in getattr(side, what).items()}


def _runs_row(pair: RunsPair, key: Key, statistic: str, unit: str, threshold: float) -> Row:
    row = _new_row(pair, key, statistic, unit=unit, sampling="runs", method="runs")
    own, estimates = [], []
    for side, runs in (("a", pair.a), ("b", pair.b)):
        of_runs = [_of_run(one, key, statistic, threshold) for one in runs.sides]
        estimates.append([one.estimate for one in of_runs if one.estimate is not None])
        own.append(over_runs(estimates[-1], sum(one.n for one in of_runs)))
        row[f"connections_{side}"] = sum(one.connections for one in runs.sides)
    found = runs_difference(*estimates)
    _put_estimates(row, pair, own[0], own[1], replace(found, p=found.p if row["primary"] else None))
    # Runs that are left out are said where the others are enough, too: the sides' numbers of runs count all.
    left_out = [
        f"{label}: {len(of_runs)} of {len(runs.sides)} runs have an estimate"
        for label, of_runs, runs, one in zip(pair.labels, estimates, (pair.a, pair.b), own, strict=True)
        if len(of_runs) < len(runs.sides) and one.reason is None
    ]
    row["reason"] = "; ".join([*left_out, *([row["reason"]] if row["reason"] else [])]) or None
    return row


def _of_run(side: Side, key: Key, statistic: str, threshold: float) -> Interval:
    """The figure of one run, without an interval; no estimate of a percentile with less than ten values beyond it."""
    if key in side.rates:
        return side.rates[key]
    if statistic == "ratio_of_sums":
        return ratio_of_clusters(side.ratios[key].by_connection if key in side.ratios else None)
    arm = side.arm(key)
    level = QUANTILES.get(statistic)
    if arm.n == 0 or (level is not None and arm.n * min(level, 1.0 - level) < LEAST_BEYOND):
        return Interval(None, n=arm.n)
    if level is not None:
        return Interval(arm.quantile(level), n=arm.n)
    return Interval(arm.mean, n=arm.n) if statistic == "mean" else share_over(arm, threshold)


def _keys(a: Mapping[Key, Any], b: Mapping[Key, Any]) -> list[Key]:
    """What both sides have, and what one lacks, so that its absence is said; an api that one side does not use is no absence."""
    return [key for key in {**a, **b} if (key in a and key in b) or not key[1].startswith("api=")]


def _new_row(pair: Pair | RunsPair, key: Key, statistic: str, *, unit: str, sampling: str, method: str) -> Row:
    row: Row = dict.fromkeys(column.name for column in tables.COMPARISONS)
    metric, group = key
    return row | {
        "scope": pair.scope,
        **pair.names,
        "metric": metric,
        "group": group,
        "statistic": statistic,
        "unit": unit,
        "primary": (metric, group, statistic) in PRIMARY,
        "paired": False,
        "sampling": sampling,
        "n_a": 0,
        "n_b": 0,
        "overlap_seconds": pair.overlap_seconds,
        "weak": False,
        "method": _METHODS[method],
    }


def _arm_rows(pair: Pair, key: Key, threshold: float) -> Iterator[Row]:
    alone, contrast = _contrast(pair, key)
    for statistic in STATISTICS.get(key[0], OTHER_STATISTICS):
        unit = {"share_over": "share", "cliffs_delta": "", "hl_ratio": ""}.get(statistic, "ms")
        row = _new_row(pair, key, statistic, unit=unit, sampling="time", method="quantile" if statistic in QUANTILES else statistic)
        _put_arms(row, alone)
        # A share's difference comes from each arm's own limits: nothing of it is paired.
        row["paired"] = contrast.paired and statistic != "share_over"
        if statistic in _EFFECTS:
            _put_effect(row, pair, contrast, statistic)
            yield row
            continue
        if statistic in QUANTILES:
            level = QUANTILES[statistic]
            own = [quantile_of(arm, level) for arm in alone]
            found = quantile_difference(contrast, level, with_p=row["primary"])
        elif statistic == "mean":
            own = [mean_of(arm) for arm in alone]
            found = mean_difference(contrast)
        else:
            own = [share_over(arm, threshold) for arm in alone]
            found = interval_difference(own[0], own[1])
        _put_estimates(row, pair, own[0], own[1], found)
        yield row


def _contrast(pair: Pair, key: Key) -> tuple[tuple[Arm, Arm], Contrast]:
    """Both arms by themselves, over what they share of the clock where they are paired, and their contrast."""
    stretch = pair.common_stretch
    if stretch is not None:
        a, b = (side.arm_within(key, *stretch) for side in (pair.a, pair.b))
        if refusal(a) is None and refusal(b) is None:
            bins = common_bins(a, b)
            independent = Contrast(a, b)
            return (a, b), independent.paired_by(*(side.arm_over_clock(key, *stretch, bins) for side in (pair.a, pair.b)))
    a, b = pair.a.arm(key), pair.b.arm(key)
    return (a, b), Contrast(a, b)


def _ratio_row(pair: Pair, key: Key) -> Row:
    """By connection; in time where either side's connections are too few to say anything, and both sides can be told in time."""
    ratios = [side.ratios.get(key, Ratio(None, None)) for side in (pair.a, pair.b)]
    clusters = [ratio.by_connection for ratio in ratios]
    sampled: list[Clusters | Stretches | None] = [*clusters]
    sampling, own = "connections", [ratio_of_clusters(one) for one in clusters]
    in_time = [ratio_of_stretches(ratio.in_time) for ratio in ratios]
    if any(one.too_few for one in own) and not any(one.too_few for one in in_time):
        sampling, own, sampled = "time", in_time, [ratio.in_time for ratio in ratios]
    row = _new_row(pair, key, "ratio_of_sums", unit="share", sampling=sampling, method=f"ratio_by_{sampling}")
    a, b = sampled
    if own[0].too_few or own[1].too_few:
        found = (
            Difference() if a is None or b is None else Difference(a.ratio - b.ratio, ratio=a.ratio / b.ratio if b.ratio > 0.0 else None)
        )
    else:
        found = ratio_difference(a, b, with_p=row["primary"])
    _put_estimates(row, pair, own[0], own[1], found)
    for side, one in zip("ab", clusters, strict=True):
        row[f"connections_{side}"] = None if one is None else one.connections
    return row


def _rate_row(pair: Pair, key: Key) -> Row:
    row = _new_row(pair, key, "mean", unit=UNITS[key[0]], sampling="time", method="rate")
    a, b = (side.rates.get(key, NO_SAMPLES) for side in (pair.a, pair.b))
    _put_estimates(row, pair, a, b, interval_difference(a, b))
    for side, one in (("a", pair.a), ("b", pair.b)):
        low = row[f"low_{side}"]
        # No rate is below 0; the difference is made from the interval as it is.
        row[f"low_{side}"] = None if low is None else max(0.0, low)
        row[f"connections_{side}"] = one.connections
    return row


def _put_arms(row: Row, arms: tuple[Arm, Arm]) -> None:
    for side, arm in zip("ab", arms, strict=True):
        row[f"n_{side}"] = arm.n
        row[f"connections_{side}"] = arm.connection_count
        row[f"correlation_seconds_{side}"] = arm.correlation_seconds


def _put_estimates(row: Row, pair: Pair | RunsPair, a: Interval, b: Interval, found: Difference) -> None:
    for side, own in (("a", a), ("b", b)):
        row[f"n_{side}"] = own.n
        row[f"estimate_{side}"], row[f"low_{side}"], row[f"high_{side}"] = own.estimate, own.low, own.high
        row[f"n_eff_{side}"], row[f"df_{side}"] = own.n_eff, own.df
    row["difference"], row["difference_low"], row["difference_high"] = found.difference, found.low, found.high
    row["ratio"], row["ratio_low"], row["ratio_high"] = found.ratio, found.ratio_low, found.ratio_high
    row["pair_correlation"], row["p_value"] = found.correlation, found.p
    row["weak"] = a.weak or b.weak or found.weak
    reasons = [f"{label}: {own.reason}" for label, own in zip(pair.labels, (a, b), strict=True) if own.reason]
    if found.too_few and not reasons:
        reasons = [found.reason or "no interval of the difference"]
    row["reason"] = "; ".join(reasons) or None


def _put_effect(row: Row, pair: Pair, contrast: Contrast, statistic: str) -> None:
    arms = contrast.a, contrast.b
    refused = [f"{label}: {why}" for label, arm in zip(pair.labels, arms, strict=True) if (why := refusal(arm)) is not None]
    if refused:
        row["reason"] = "; ".join(refused)
        return
    row["weak"] = any(arm.worst_sample < WEAK_BELOW for arm in arms)
    found = _EFFECTS[statistic](contrast)
    into = "ratio" if statistic == "hl_ratio" else "difference"
    row[into], row[f"{into}_low"], row[f"{into}_high"] = found.estimate, found.low, found.high
    row["df_a"] = row["df_b"] = found.df
    row["noise_floor"], row["reason"] = found.noise_floor, found.reason


def _judge_alone(row: Row, obstacle: str | None, caution: str | None, margin: float) -> None:
    """The verdict as far as the row itself decides it; rows in a family wait for the others with ``undecided``."""
    if row["primary"] and row["estimate_b"] is not None:
        row["margin"] = max(margin * abs(row["estimate_b"]), RESOLUTION_MS if row["unit"] == "ms" else 0.0)
    if obstacle is not None:
        row["verdict"], row["reason"], row["p_value"] = "not_comparable", obstacle, None
        return
    if _lacks_interval(row):
        row["verdict"], row["p_value"] = "too_few_samples", None
    else:
        row["verdict"] = "undecided" if row["primary"] else "described"
    row["reason"] = "; ".join(text for text in (row["reason"], caution) if text) or None


def _lacks_interval(row: Row) -> bool:
    if row["statistic"] == "wasserstein1":
        # Near equality it has no interval by rule, however many samples there are.
        return row["difference"] is None or (row["difference_low"] is None and row["noise_floor"] is None)
    into = "ratio" if row["statistic"] == "hl_ratio" else "difference"
    return row[f"{into}_low"] is None or row[f"{into}_high"] is None


def _judge_among(row: Row) -> None:
    """The verdict of a primary row once its p is adjusted for its family."""
    inside = -row["margin"] < row["difference_low"] and row["difference_high"] < row["margin"]
    row["verdict"] = "equivalent_within_margin" if inside else "differs" if row["p_holm"] < ALPHA else "undecided"
