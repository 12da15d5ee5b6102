"""The notebook's figures beside ours, with the reason why they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from brokerlens.report.network import first_of
from brokerlens.report.results import Metric, Results, Site
from brokerlens.report.words import NONE, count, short


@dataclass(frozen=True)
class NotebookRow:
    """One figure of one site: theirs and ours."""

    site: Site
    theirs: str
    ours: str


@dataclass(frozen=True)
class NotebookFigure:
    """One figure: its name, the reason for the difference, a row per site."""

    name: str
    unit: str
    reason: str
    definition: str
    rows: Sequence[NotebookRow]


def _latency(statistic: str) -> tuple[Callable[[Site], Metric], Callable[[Site], Metric]]:
    return (lambda site: site.metric("notebook_kafka_latency", "all", statistic)), (lambda site: site.metric("kafka_latency", "all", statistic))


_FIGURES: tuple[tuple[str, str, str, str, Callable[[Site], Metric], Callable[[Site], Metric]], ...] = (
    (
        "Kafka latency, mean", "ms",
        "It matched correlation ids of all connections in one table, took them from the start of any TCP segment, and counted the consumers’ long polls.",
        "kafka_latency", *_latency("mean"),
    ),
    (
        "Kafka latency, p95", "ms",
        "As for the mean; its 95th percentile is interpolated, ours is the latency of a request.",
        "kafka_latency", *_latency("p95"),
    ),
    (
        "Jitter", "ms",
        "It took the arrivals of all connections together and left out gaps over 1 s; ours stays within a connection and direction.",
        "variation",
        lambda site: site.metric("notebook_jitter", "all", "mean"),
        lambda site: first_of(site, "iat_mas", ("mean", "p50"), ("direction=from_broker", "all", "direction=to_broker")),
    ),
    (
        "Retransmissions", "segments",
        "It counted a sequence number seen before, keep-alives and copies made by the capture included, and missed repairs of what it never saw.",
        "retransmissions",
        lambda site: site.metric("notebook_retransmissions"), lambda site: site.metric("retransmissions"),
    ),
    (
        "Zero windows", "packets, episodes",
        "It counted packets, resets among them (their window is always 0); ours are episodes in which a side was closed.",
        "zero_windows",
        lambda site: site.metric("notebook_zero_windows"), lambda site: site.metric("zero_windows"),
    ),
    (
        "Resets", "packets",
        "It counted copies made by the capture, too.",
        "resets",
        lambda site: site.metric("notebook_resets"), lambda site: site.metric("resets"),
    ),
)  # fmt: skip


def notebook_figures(results: Results) -> list[NotebookFigure]:
    """Every figure that the notebook printed and a site has; empty where none has."""
    found = []
    for title, unit, reason, definition, theirs, ours in _FIGURES:
        rows = [NotebookRow(site, _text(theirs(site), unit), _text(ours(site), unit)) for site in results.newest_first]
        if any(row.theirs != NONE for row in rows):
            found.append(NotebookFigure(title, unit, reason, definition, rows))
    return found


def _text(metric: Metric, unit: str) -> str:
    return NONE if metric.value is None else short(metric.value) if unit == "ms" else count(metric.value)
