"""When it happened: a strip per site on one range of latencies, or a heat map where sites are many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from brokerlens.report import charts
from brokerlens.report.figure import Figure
from brokerlens.report.latency import Bins, WorstMinute
from brokerlens.report.results import Key, Results, Site
from brokerlens.report.scales import log_domain
from brokerlens.report.theme import SiteColours
from brokerlens.report.words import duration, listed, ms, name, plural, visible

MOST_STRIPS = 8


@dataclass(frozen=True)
class Timelines:
    """The figures, and sentences for sites that have none."""

    figures: Sequence[Figure]
    seconds: str
    as_heat_map: bool = False


def timelines(
    results: Results,
    bins: Mapping[Key, Bins | None],
    minutes: Mapping[Key, WorstMinute | None],
    run_worst: WorstMinute | None,
    colours: SiteColours,
    states: Mapping[Key, str],
) -> Timelines:
    """One strip per site and experiment; a heat map per experiment with more than eight strips in all."""
    found = [one for one in bins.values() if one is not None]
    domain = log_domain([value for one in found for value in (one.p50.min(), one.p95.max())])
    lengths = sorted({one.seconds for one in found})
    seconds = duration(lengths[0]) if lengths else "10 s"
    if len(results.sites) > MOST_STRIPS:
        figures = [_heat_map(results, experiment, bins, minutes, domain) for experiment in results.experiments]
        return Timelines([figure for figure in figures if figure is not None], seconds, as_heat_map=True)
    return Timelines(
        [_strip(site, bins[site.key], minutes[site.key], run_worst, domain, colours, states) for site in results.newest_first], seconds
    )


def _strip(
    site: Site,
    bins: Bins | None,
    worst: WorstMinute | None,
    run_worst: WorstMinute | None,
    domain: tuple[float, float],
    colours: SiteColours,
    states: Mapping[Key, str],
) -> Figure:
    title = Markup("{}, {}").format(name(site.name), name(site.experiment))
    if site.span is None or (bins is None and not any(marks.total for marks in site.lanes.values())):
        return Figure(f"timeline-{site.slug}", title, states.get(site.key, "Nothing was captured."), "series", "Series")
    is_worst = worst is not None and run_worst is not None and run_worst.site.key == site.key
    shaded = (worst.start, worst.end) if worst is not None and is_worst else None
    finding = title
    if worst is not None:
        words = f"the worst minute, p95 {ms(worst.p95)} from" if is_worst else f"p95 at most {ms(worst.p95)} over a minute, from"
        finding = Markup("{}: {} {}").format(title, words, site.zone.clock(worst.start))
    spec = charts.timeline(site, bins, site.span, domain, shaded, colours.mark(site.name), f"Latency over time, {visible(site.label)}")
    note = states.get(site.key, "")
    return Figure(f"timeline-{site.slug}", finding, _under(site), "series", "Series", spec, note)


def _under(site: Site) -> Markup:
    assert site.span is not None
    words = {
        "retransmitted": ("retransmission", "retransmissions"),
        "reset": ("reset", "resets"),
        "zero window": ("zero window", "zero windows"),
    }
    counts = [plural(marks.total, *words[lane]) for lane, marks in site.lanes.items() if marks.total]
    return Markup("{}, {}. {}.").format(
        site.zone.span(*site.span), site.zone.words(site.span[0]), listed(counts) if counts else "No retransmission, reset or zero window"
    )


def _heat_map(
    results: Results,
    experiment: str,
    bins: Mapping[Key, Bins | None],
    minutes: Mapping[Key, WorstMinute | None],
    domain: tuple[float, float],
) -> Figure | None:
    sites = [site for site in results.of(experiment) if bins[site.key] is not None and site.span is not None]
    if not sites:
        return None

    def badness(site: Site) -> float:
        worst = minutes[site.key]
        return worst.p95 if worst is not None else 0.0

    order = sorted(sites, key=lambda site: -badness(site))
    spans = [site.span for site in sites if site.span is not None]
    span = min(start for start, _ in spans), max(end for _, end in spans)
    worst = minutes[order[0].key]
    finding = (
        Markup("{}: {} has the worst minute, p95 {} from {}").format(
            name(experiment), name(order[0].name), ms(worst.p95), worst.site.zone.clock(worst.start)
        )
        if worst is not None
        else Markup("{}").format(name(experiment))
    )
    spec = charts.heat_map(sites, bins, order, span, domain, f"p95 over time by site, {visible(experiment)}")
    subtitle = Markup("p95 by site and time, {}; the worst on top; the deeper the colour, the slower ({} to {}, log steps).").format(
        order[0].zone.words(span[0]), ms(domain[0]), ms(domain[1])
    )
    return Figure(f"timeline-{order[0].slug}", finding, subtitle, "series", "Series", spec)
