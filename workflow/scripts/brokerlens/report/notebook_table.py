"""The notebook's figures beside ours, with the reason why they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from brokerlens.report.network import first_of
from brokerlens.report.results import Metric, Results, Site
from brokerlens.report.spread import swatch
from brokerlens.report.theme import SiteColours
from brokerlens.report.words import NONE, count, short


@dataclass(frozen=True)
class NotebookFigure:
    """A figure that the notebook printed: unit, definition of ours, the reason for the difference, and both values of a site."""

    name: str
    unit: str
    reason: str
    definition: str
    theirs: Callable[[Site], Metric]
    ours: Callable[[Site], Metric]


@dataclass(frozen=True)
class NotebookRow:
    """One site: the notebook's and our value of each figure."""

    site: Site
    mark: Markup
    values: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class NotebookTable:
    """The section's table; no rows where no site has the notebook's figures."""

    figures: Sequence[NotebookFigure]
    rows: Sequence[NotebookRow]


def _metric(metric: str, statistic: str = "count") -> Callable[[Site], Metric]:
    return lambda site: site.metric(metric, "all", statistic)


FIGURES: tuple[NotebookFigure, ...] = (
    NotebookFigure(
        "Kafka latency, mean",
        "ms",
        "It matched the correlation ids of all connections in one table, took them from the start of any TCP segment, and counted the consumers’ long polls.",
        "kafka_latency",
        _metric("notebook_kafka_latency", "mean"),
        _metric("kafka_latency", "mean"),
    ),
    NotebookFigure(
        "Kafka latency, p95",
        "ms",
        "As for the mean; its 95th percentile is interpolated, ours is the latency of a request.",
        "kafka_latency",
        _metric("notebook_kafka_latency", "p95"),
        _metric("kafka_latency", "p95"),
    ),
    NotebookFigure(
        "Jitter",
        "ms",
        "It took the arrivals of all connections together and left out gaps of 1 s and more; ours stays within a connection and direction.",
        "variation",
        _metric("notebook_jitter", "mean"),
        lambda site: first_of(site, "iat_mas", ("mean", "p50"), ("direction=from_broker", "all", "direction=to_broker")),
    ),
    NotebookFigure(
        "Retransmissions",
        "segments",
        "It counted a sequence number seen before, with keep-alives and copies made by the capture, and missed repairs of what it never saw.",
        "retransmissions",
        _metric("notebook_retransmissions"),
        _metric("retransmissions"),
    ),
    NotebookFigure(
        "Zero windows",
        "packets; here episodes",
        "It counted packets, resets among them (their window is always 0); ours are episodes in which a side was closed.",
        "zero_windows",
        _metric("notebook_zero_windows"),
        _metric("zero_windows"),
    ),
    NotebookFigure(
        "Resets", "packets", "It counted copies made by the capture, too.", "resets", _metric("notebook_resets"), _metric("resets")
    ),
)


def notebook_table(results: Results, colours: SiteColours) -> NotebookTable:
    """All sites, the latest experiment first."""
    rows = [
        NotebookRow(
            site,
            swatch(colours.mark(site.name)),
            [(_text(figure.theirs(site), figure.unit), _text(figure.ours(site), figure.unit)) for figure in FIGURES],
        )
        for site in results.newest_first
    ]
    known = any(theirs != NONE for row in rows for theirs, _ in row.values)
    return NotebookTable(FIGURES, rows if known else [])


def _text(metric: Metric, unit: str) -> str:
    return NONE if metric.value is None else short(metric.value) if unit == "ms" else count(metric.value)
