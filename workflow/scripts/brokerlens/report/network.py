"""How healthy TCP was: a table with a row per site, and two charts over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from markupsafe import Markup

from brokerlens.report import charts
from brokerlens.report.figure import Figure
from brokerlens.report.headline import Cell, doubtful_loss
from brokerlens.report.intervals import dash_bounds, share_interval, value_of
from brokerlens.report.latency import bin_seconds
from brokerlens.report.results import Metric, Results, Site
from brokerlens.report.scales import log_domain
from brokerlens.report.spread import swatch
from brokerlens.report.theme import SiteColours
from brokerlens.report.words import NONE, count, duration, listed, ms, name, percent, short, size, visible

_SECOND = 1_000_000_000
_MOST_LINES = 8
KINDS = {"fast": "fast", "timeout": "timeouts", "tail_probe": "tail probes", "rack": "early", "unknown": "unknown"}
Drawn = tuple[Site, charts.Line, list[tuple[int, float]], float]
"""A site, its line, its bins (begin in ns, value) and their length in seconds."""


@dataclass(frozen=True)
class Column:
    """A figure of the table: heading, the metric's definition, and small print."""

    heading: str
    small: str
    definition: str


COLUMNS: tuple[Column, ...] = (
    Column("Round trip to broker", "p50, ms", "rtt"),
    Column("Round trip to client", "p50, ms", "rtt"),
    Column("RTT change", "mean ipdv, ms", "variation"),
    Column("RTT over smallest", "p95 pdv, ms", "variation"),
    Column("Lost before tap", "filled holes", "retransmissions"),
    Column("Lost behind tap", "sent again", "retransmissions"),
    Column("Sent again", "mostly", "retransmissions"),
    Column("Needlessly", "had arrived", "retransmissions"),
    Column("Idle gap", "p50, ms", "variation"),
    Column("Zero windows", "episodes", "zero_windows"),
    Column("Window full", "time in all", "zero_windows"),
    Column("SYN again", "connections", "connections_started"),
    Column("Resets", "connections", "resets"),
    Column("Goodput to broker", "mean", "goodput"),
    Column("Goodput from broker", "mean", "goodput"),
    Column("Not captured", "of acknowledged bytes", "capture_loss"),
)


@dataclass(frozen=True)
class NetworkRow:
    """One site."""

    site: Site
    mark: Markup
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Network:
    """Table and charts of the section."""

    columns: Sequence[Column]
    rows: Sequence[NetworkRow]
    figures: Sequence[Figure]


def network(results: Results, colours: SiteColours) -> Network:
    """All sites in the table; charts of the latest experiment's sites, at most eight lines each."""
    rows = [NetworkRow(site, swatch(colours.mark(site.name)), _cells(site)) for site in results.newest_first]
    return Network(COLUMNS, rows, _charts(results, colours))


def first_of(site: Site, metric: str, statistics: Sequence[str], groups: Sequence[str]) -> Metric:
    """The first of these that has a value."""
    for group in groups:
        for statistic in statistics:
            found = site.metric(metric, group, statistic)
            if found.value is not None:
                return found
    return site.metric(metric, groups[0], statistics[0])


def _cells(site: Site) -> list[Cell]:
    resets, reset = site.metric("resets"), site.metric("connections_reset")
    zero = site.metric("zero_windows")
    near = ("half=to_broker", "direction=from_broker", "all") if site.tap != "broker" else ("half=to_client", "direction=to_broker", "all")
    loss = site.metric("capture_loss", "all", "ratio_of_sums")
    lost = loss.value if loss.value is not None else site.facts["capture_loss"]
    return [
        _rtt(site.metric("rtt", "half=to_broker", "p50")),
        _rtt(site.metric("rtt", "half=to_client", "p50")),
        _plain(first_of(site, "rtt_ipdv", ("mean", "p50"), near)),
        _plain(first_of(site, "rtt_pdv", ("p95", "mean"), near)),
        _ratio(site, "place=before_tap"),
        _ratio(site, "place=behind_tap"),
        _sent_again(site),
        _needless(site),
        _plain(site.metric("idle_gap", "all", "p50"), "connections"),
        Cell(count(zero.value), _lasted(site.metric("zero_window_time", "all", "sum")), "bad" if zero.value else ""),
        Cell(_lasted(site.metric("window_limited_time", "all", "sum")) or NONE),
        _of(site.metric("syn_retries")),
        Cell(count(resets.value), NONE if reset.value is None else f"{count(reset.value)} of {reset.n:,}", "bad" if resets.value else ""),
        _rate(site.metric("goodput", "direction=to_broker", "mean")),
        _rate(site.metric("goodput", "direction=from_broker", "mean")),
        Cell(percent(lost, 2), "", "bad" if (lost or 0) > 0.001 else ""),
    ]


def _rtt(metric: Metric) -> Cell:
    return Cell(NONE, "no samples") if metric.value is None else Cell(value_of(metric), dash_bounds(metric) or f"{metric.n:,} samples")


def _plain(metric: Metric, of: str = "samples") -> Cell:
    return Cell(NONE, f"no {of}") if metric.value is None else Cell(short(metric.value), f"{metric.n:,} {of}")


def _lasted(metric: Metric) -> str:
    """A total of milliseconds, nothing where there is none."""
    if not metric.value:
        return ""
    return duration(metric.value / 1e3) if metric.value >= 1000 else ms(metric.value)


def _of(metric: Metric) -> Cell:
    return Cell(NONE) if metric.value is None else Cell(count(metric.value), f"of {metric.n:,}")


def _ratio(site: Site, group: str) -> Cell:
    share, number = site.metric("retransmissions", group, "ratio_of_sums"), site.metric("retransmissions", group)
    if share.value is None:
        return Cell(NONE)
    not_captured = doubtful_loss(site, share.value)
    if not_captured is not None:
        return Cell(percent(share.value, 2), f"unsure: {percent(not_captured, 2)} not captured", "soft")
    return share_cell(share, number, "bad" if share.value >= 0.01 else "")


def share_cell(share: Metric, number: Metric, kind: str = "") -> Cell:
    """A share with its interval, else with the numbers that it is made of."""
    if share.value is None:
        return Cell(NONE)
    return Cell(percent(share.value, 2), share_interval(share) or f"{count(number.value)} of {share.n:,}", kind)


def _sent_again(site: Site) -> Cell:
    """How many retransmissions, and what made most of them: the two most frequent kinds, as a table's cell has no room for more."""
    all_ = site.metric("retransmissions")
    if all_.value is None:
        return Cell(NONE)
    kinds = [(label, site.metric("retransmissions", f"kind={kind}").value) for kind, label in KINDS.items()]
    most = sorted(((label, number) for label, number in kinds if number), key=lambda one: -one[1])[:2]
    return Cell(count(all_.value), ", ".join(f"{count(number)} {label}" for label, number in most))


def _needless(site: Site) -> Cell:
    spurious, all_ = site.metric("retransmissions", "spurious=any"), site.metric("retransmissions")
    if spurious.value is None or not all_.value:
        return Cell(NONE)
    return Cell(count(spurious.value), f"of {count(all_.value)}")


def _rate(metric: Metric) -> Cell:
    return Cell(NONE) if metric.value is None else Cell(f"{size(metric.value)}/s")


def _coarse(site: Site, metric: str, group: str, statistic: str, *, smallest: bool) -> tuple[list[tuple[int, float]], float]:
    """A series in bins of at least 10 s: the smallest of its bins, or their mean (for rates, where that is exact)."""
    assert site.span is not None
    rows = site.series.filter(
        (pl.col("metric") == metric) & (pl.col("group") == group) & (pl.col("statistic") == statistic) & pl.col("value").is_not_null()
    )
    if rows.height == 0:
        return [], 0.0
    step = max(float(bin_seconds(site.span)), float(rows["bin_seconds"][0]))
    place = ((pl.col("bin_start") - site.span[0]) // int(step * _SECOND)).alias("bin")
    value = pl.col("value").min() if smallest else (pl.col("value") * pl.col("bin_seconds")).sum() / pl.col("bin_seconds").sum()
    binned = rows.group_by(place).agg(value.alias("value")).sort("bin").filter(pl.col("bin") >= 0)
    return [(site.span[0] + int(bin_) * int(step * _SECOND), float(v)) for bin_, v in binned.iter_rows()], step


def _drawn(results: Results, experiment: str) -> list[Site]:
    sites = [site for site in results.of(experiment) if site.span is not None]
    return sites[:_MOST_LINES]


def _lines(
    results: Results, experiment: str, colours: SiteColours, metric: str, groups: dict[str, str], statistic: str, *, smallest: bool
) -> list[Drawn]:
    found = []
    for site in _drawn(results, experiment):
        group = groups.get(site.tap, groups[""])
        values, step = _coarse(site, metric, group, statistic, smallest=smallest)
        if values:
            line = charts.Line(site.name, np.array([v for _, v in values]), colours.mark(site.name), colours.text(site.name), 0)
            found.append((site, line, values, step))
    return found


def _where(results: Results, experiment: str) -> str:
    return f", {visible(experiment)}" if len(results.experiments) > 1 else ""


def _charts(results: Results, colours: SiteColours) -> list[Figure]:
    """Round trips and goodput over time of the two latest experiments, each kind on one range."""
    shown = results.experiments[:2]
    trips = {
        experiment: _lines(results, experiment, colours, "rtt", {"": "half=to_broker", "broker": "half=to_client"}, "min", smallest=True)
        for experiment in shown
    }
    goodput = {experiment: _lines(results, experiment, colours, "goodput", {"": "all"}, "mean", smallest=False) for experiment in shown}
    rtt_domain = log_domain([value for drawn in trips.values() for _, _, values, _ in drawn for _, value in values])
    largest = max((value for drawn in goodput.values() for _, _, values, _ in drawn for _, value in values), default=1.0) / 1000
    figures = []
    for experiment in shown:
        if trips[experiment]:
            figures.append(_round_trips(results, experiment, trips[experiment], rtt_domain))
        if goodput[experiment]:
            figures.append(_goodput(results, experiment, goodput[experiment], (0.0, largest * 1.15 or 1.0)))
    return figures


def _span(drawn: Sequence[Drawn]) -> tuple[int, int]:
    spans = [site.span for site, _, _, _ in drawn if site.span is not None]
    return min(start for start, _ in spans), max(end for _, end in spans)


def _round_trips(results: Results, experiment: str, drawn: Sequence[Drawn], domain: tuple[float, float]) -> Figure:
    lowest = [(line.label, min(value for _, value in values)) for _, line, values, _ in drawn]
    title = Markup("Smallest round trip: {}").format(
        listed([Markup("{} {}").format(name(label), ms(value)) for label, value in lowest[:3]])
    )
    return Figure(
        f"rtt-{drawn[0][0].slug}",
        title,
        f"Smallest round trip to the far side per {duration(drawn[0][3])}, ms (log axis), local time{_where(results, experiment)}.",
        "rtt",
        "Round trips",
        charts.over_time(drawn, _span(drawn), domain, "ms", "Smallest round trip over time", log=True),
    )


def _goodput(results: Results, experiment: str, drawn: Sequence[Drawn], domain: tuple[float, float]) -> Figure:
    scaled = [(site, line, [(t, v / 1000) for t, v in values], step) for site, line, values, step in drawn]
    means = [(line.label, sum(v for _, v in values) / len(values)) for _, line, values, _ in drawn]
    title = Markup("Goodput: {}").format(listed([Markup("{} {}/s").format(name(label), size(value)) for label, value in means[:3]]))
    return Figure(
        f"goodput-{drawn[0][0].slug}",
        title,
        f"Bytes acknowledged per second, both directions, kB/s, per {duration(drawn[0][3])}, local time{_where(results, experiment)}.",
        "goodput",
        "Goodput",
        charts.over_time(scaled, _span(drawn), domain, "kB/s", "Goodput over time", log=False),
    )
