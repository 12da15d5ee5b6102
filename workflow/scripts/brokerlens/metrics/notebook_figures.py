"""Rows of the notebook's own figures, `notebook_*`."""

from __future__ import annotations

import numpy as np

from brokerlens.metrics.rows import ALL, Rows
from brokerlens.metrics.notebook import NS_PER_MS, NotebookFigures


def add_notebook(rows: Rows, figures: NotebookFigures) -> None:
    """`notebook_resets`, `notebook_retransmissions`, `notebook_zero_windows`, `notebook_jitter`, `notebook_kafka_latency`."""
    rows.add("notebook_resets", ALL, "count", figures.resets, "packets", figures.packets)
    rows.add("notebook_retransmissions", ALL, "count", figures.retransmissions, "packets", figures.payloads)
    rows.add("notebook_zero_windows", ALL, "count", figures.zero_windows, "packets", figures.packets)
    rows.add("notebook_jitter", ALL, "mean", _mean(figures.gap_changes), "ms", figures.gap_changes.size)
    latencies = figures.latencies
    # Linear between the neighbours, as numpy's percentile and pandas' quantile are by default.
    p95 = float(np.percentile(latencies, 95)) / NS_PER_MS if latencies.size else None
    rows.add("notebook_kafka_latency", ALL, "count", latencies.size, "requests", latencies.size)
    rows.add("notebook_kafka_latency", ALL, "mean", _mean(latencies), "ms", latencies.size)
    rows.add("notebook_kafka_latency", ALL, "p95", p95, "ms", latencies.size)


def _mean(nanoseconds: np.ndarray) -> float | None:
    """The mean in ms, from the exact sum."""
    return int(nanoseconds.sum()) / (nanoseconds.size * NS_PER_MS) if nanoseconds.size else None
