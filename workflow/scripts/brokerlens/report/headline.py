"""The headline table: a row per site of an experiment, the latest experiment first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from brokerlens.report.intervals import NEEDED, dash_bounds, share_interval, value_of
from brokerlens.report.latency import Bins, WorstMinute
from brokerlens.report.results import Key, Metric, Results, Site
from brokerlens.report.scales import log_domain
from brokerlens.report.spread import sparkline, spread, spread_axis, swatch
from brokerlens.report.theme import SiteColours
from brokerlens.report.words import NONE, count, percent, plural

SHOWN = 12
DOUBTFUL = 0.1
"""A share of segments lost says little where the capture itself lost more than this part of it."""


@dataclass(frozen=True)
class Cell:
    """A value and what stands under it in small print."""

    value: str
    small: str = ""
    kind: str = ""


@dataclass(frozen=True)
class HeadlineRow:
    """One site of one experiment."""

    site: Site
    mark: Markup
    requests: str
    spread: Markup
    cells: Sequence[Cell]
    over_time: Markup
    loss: Cell
    resets: Cell
    state: str | None
    hidden: bool


@dataclass(frozen=True)
class Headline:
    """The table's heading and rows."""

    axis: Markup
    rows: Sequence[HeadlineRow]
    threshold: str

    @property
    def hidden(self) -> int:
        """Rows that wait for a click."""
        return sum(row.hidden for row in self.rows)


def headline(
    results: Results, colours: SiteColours, bins: Mapping[Key, Bins | None], worst: WorstMinute | None, states: Mapping[Key, str]
) -> Headline:
    """All sites; where they are many, the worst dozen is shown first."""
    spreads = log_domain(
        [
            value
            for site in results.sites
            if len(site.latencies)
            for value in (site.latencies[len(site.latencies) // 20], site.latencies[-1])
        ]
    )
    lines = log_domain([value for one in bins.values() if one is not None for value in (one.p95.min(), one.p95.max())])
    rows = []
    for i, site in enumerate(worst_first(results)):
        shaded = (worst.start, worst.end) if worst is not None and worst.site.key == site.key else None
        colour = colours.mark(site.name)
        share = site.metric("kafka_latency", "all", "share_over")
        rows.append(
            HeadlineRow(
                site=site,
                mark=swatch(colour),
                requests=plural(len(site.latencies), "request"),
                spread=spread(site.latencies, spreads, colour),
                cells=[*(_percentile(site, level) for level in ("p50", "p95", "p99")), _share(share)],
                over_time=sparkline(bins[site.key], site.span, lines, colour, shaded),
                loss=_loss(site),
                resets=_resets(site),
                state=states.get(site.key),
                hidden=i >= SHOWN,
            )
        )
    return Headline(spread_axis(spreads), rows, f"{results.threshold_ms:,g} ms")


def worst_first(results: Results) -> list[Site]:
    """Sites, the latest experiment first; where they are more than a dozen, those with the highest p95 first."""
    sites = results.newest_first
    if len(sites) <= SHOWN:
        return sites
    return sorted(sites, key=lambda site: -(site.metric("kafka_latency", "all", "p95").value or 0.0))


def _percentile(site: Site, level: str) -> Cell:
    metric = site.metric("kafka_latency", "all", level)
    if metric.value is None:
        return Cell(NONE)
    if metric.low is None and metric.high is None and metric.n < NEEDED[level]:
        return Cell(value_of(metric), f"too few: {metric.n:,} of {NEEDED[level]:,}", "soft")
    if metric.low is None and metric.high is None:
        return Cell(value_of(metric), "no interval", "soft")
    return Cell(value_of(metric), dash_bounds(metric))


def _share(metric: Metric) -> Cell:
    if metric.value is None:
        return Cell(NONE)
    over = f"{count(round(metric.value * metric.n))} of {metric.n:,}"
    if metric.value == 0:
        return Cell("0 %", f"at most {percent(metric.high)}" if metric.high is not None else over)
    return Cell(percent(metric.value), share_interval(metric) or over)


def doubtful_loss(site: Site, share: float) -> float | None:
    """What the capture itself lost, where that is more than a tenth of this share of segments: then the share says little."""
    not_captured = site.metric("capture_loss", "all", "ratio_of_sums").value or 0.0
    return not_captured if not_captured > DOUBTFUL * share else None


def _loss(site: Site) -> Cell:
    metric = site.metric("retransmissions", "all", "ratio_of_sums")
    number = site.metric("retransmissions")
    if metric.value is None:
        return Cell(NONE)
    not_captured = doubtful_loss(site, metric.value)
    if not_captured is not None:
        return Cell(percent(metric.value), f"unsure: {percent(not_captured, 2)} not captured", "soft")
    kind = "bad" if metric.value >= 0.01 else ""
    return Cell(percent(metric.value), f"{count(number.value)} of {metric.n:,}", kind)


def _resets(site: Site) -> Cell:
    metric = site.metric("resets")
    return Cell(count(metric.value), "", "bad" if metric.value else "")
