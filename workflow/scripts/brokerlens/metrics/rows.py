"""Tidy rows: one per metric, group and statistic, and what is common to all metrics that describe a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from brokerlens import tables
from brokerlens.statistics import quantiles

Interval = tuple[float | None, float | None]
NO_INTERVAL: Final[Interval] = (None, None)
ALL: Final = "all"
SHARE: Final = "share"
"""Unit of a ratio of two amounts of the same kind."""
QUANTILES: Final[Mapping[str, float]] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def group(key: str, value: str) -> str:
    """The name of a group, ``key=value``."""
    return f"{key}={value}"


def finite(value: float | None) -> float | None:
    """The value as a float; null for what is no number."""
    return None if value is None or not math.isfinite(value) else float(value)


def quantile(ordered: np.ndarray, level: float) -> float:
    """The smallest value that at least ``level`` of the values do not exceed (numpy's ``inverted_cdf``); ``ordered`` ascends and is not empty."""
    rank = min(ordered.size, max(1, math.ceil(ordered.size * level - 1e-9)))
    return float(ordered[rank - 1])


def quantiles_by_group(
    values: np.ndarray, groups: np.ndarray, count: int, levels: Mapping[str, float]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Number of values in each of ``count`` groups, and by name of the level each group's `quantile`; nan in groups without values.

    ``groups`` has the group of each value, from 0 on.
    """
    chosen = [quantiles.quantile(pl.col("value"), level).alias(name) for name, level in levels.items()]
    found = pl.LazyFrame({"group": groups, "value": values}).group_by("group").agg(pl.len().alias("n"), *chosen).collect()
    group = found["group"].to_numpy()
    n = np.zeros(count, np.int64)
    n[group] = found["n"].to_numpy()
    by_level = {name: np.full(count, np.nan) for name in levels}
    for name, of_groups in by_level.items():
        of_groups[group] = found[name].to_numpy()
    return n, by_level


@dataclass
class Rows:
    """Rows of the data set `metrics`, in the order in which they were added."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, metric: str, group: str, statistic: str, value: float | None, unit: str, n: int, interval: Interval = NO_INTERVAL
    ) -> None:
        """One row. Without samples the value is null, whatever was given, and there is no interval."""
        low, high = interval if n else NO_INTERVAL
        self.rows.append(
            {
                "metric": metric,
                "group": group,
                "statistic": statistic,
                "value": finite(value) if n else None,
                "unit": unit,
                "n": int(n),
                "ci_low": finite(low),
                "ci_high": finite(high),
            }
        )

    def table(self) -> pa.Table:
        """The rows with the data set's columns."""
        fields = [column.field() for column in tables.METRICS]
        return pa.table({f.name: pa.array([row[f.name] for row in self.rows], f.type) for f in fields}, schema=pa.schema(fields))


def describe(values: np.ndarray, statistics: Sequence[str]) -> dict[str, float | None]:
    """Statistics of a sample by name: ``count``, ``sum``, ``mean``, ``min``, ``max``, ``pNN``; null where there are no values.

    The values are summed in ascending order, so that the result depends on nothing but them.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    if not ordered.size:
        return dict.fromkeys(statistics)
    simple = {
        "count": lambda: float(ordered.size),
        "sum": lambda: float(ordered.sum()),
        "mean": lambda: float(ordered.sum() / ordered.size),
        "min": lambda: float(ordered[0]),
        "max": lambda: float(ordered[-1]),
    }
    return {name: simple[name]() if name in simple else quantile(ordered, float(name[1:]) / 100) for name in statistics}
