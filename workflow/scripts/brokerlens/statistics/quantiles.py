"""Quantiles as everywhere here, in expressions of polars."""

from __future__ import annotations

import polars as pl


def quantile(values: pl.Expr, level: float) -> pl.Expr:
    """The smallest value that at least ``level`` of the values do not exceed (numpy's ``inverted_cdf``), null without values."""
    rank = (values.count() * level - 1e-9).ceil().clip(1).cast(pl.Int64) - 1
    return values.drop_nulls().sort().get(rank, null_on_oob=True)
