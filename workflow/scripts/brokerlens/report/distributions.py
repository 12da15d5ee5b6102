"""How the latencies are distributed: ECDF, percentile plot, difference of quantiles; one set per api, long polls apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup

from brokerlens.metrics.latency import FETCH_EMPTY, FETCH_WITH_DATA
from brokerlens.report import charts
from brokerlens.report.bands import difference_band, percentile_band
from brokerlens.report.figure import Figure
from brokerlens.report.intervals import NEEDED, Comparison
from brokerlens.report.latency import ApiSet, by_api, quantile
from brokerlens.report.results import Key, Results, Site, slug
from brokerlens.report.scales import FLOOR_MS, log_domain
from brokerlens.report.theme import SiteColours
from brokerlens.report.words import count, listed, ms, name, percent, plural, visible

MOST_LABELLED = 8
MOST_NAMED = 3
MOST_APIS = 6
_API_WORDS = {
    FETCH_WITH_DATA: "Fetch that brought records",
    FETCH_EMPTY: "Fetch that came back empty",
    "Fetch": "Fetch with unknown contents",
}


@dataclass(frozen=True)
class ApiFigures:
    """One api's curves."""

    title: str
    caption: str
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Distributions:
    """The section: the set of all requests that do not wait, what to know for reading it, and a set per api."""

    figures: Sequence[Figure]
    reading: Sequence[Markup]
    apis: Sequence[ApiFigures]


def distributions(results: Results, pairs: Sequence[Comparison], colours: SiteColours) -> Distributions:
    """All curves on one range of latencies."""
    measured = [site for site in results.newest_first if len(site.latencies)]
    if not measured:
        return Distributions([], [], [])
    domain = log_domain([value for site in measured for value in (quantile(site.latencies, 0.005), float(site.latencies[-1]))])
    figures = [_ecdf(results, measured, colours, domain)]
    for experiment in results.experiments:
        shown = [site for site in measured if site.experiment == experiment]
        if shown and (len(results.experiments) <= 2 or experiment == results.experiments[0]):
            figures.append(_percentiles(results, shown, colours, domain))
    figures.extend(figure for pair in _drawn_pairs(results, pairs) if (figure := _difference(pair, colours)) is not None)
    return Distributions(figures, _reading(measured), [_api(results, one, colours) for one in by_api(list(results.sites))[:MOST_APIS]])


def _drawn_pairs(results: Results, pairs: Sequence[Comparison]) -> list[Comparison]:
    """At most four pairs: sites of the latest experiment, then what changed."""
    latest = results.experiments[0]
    within = [pair for pair in pairs if pair.same_experiment and pair.a.experiment == latest]
    if len(within) > 2:
        within = sorted(within, key=lambda pair: -abs((pair.row("p95") or {}).get("difference") or 0.0))
    across = [pair for pair in pairs if not pair.same_experiment and latest in (pair.a.experiment, pair.b.experiment)]
    return [pair for pair in [*within[:2], *across[:2]] if not pair.not_comparable]


def _lines(results: Results, values: Mapping[Key, np.ndarray], sites: Sequence[Site], colours: SiteColours) -> list[charts.Line]:
    return [
        charts.Line(
            site.label, values[site.key], colours.mark(site.name), colours.text(site.name), results.experiments.index(site.experiment)
        )
        for site in sites
        if site.key in values and len(values[site.key])
    ]


def _dashes(results: Results) -> str:
    if len(results.experiments) < 2:
        return ""
    return f" Dashed: {visible(results.experiments[1])}." if len(results.experiments) == 2 else " Dashed: earlier experiments."


def _ecdf(results: Results, sites: Sequence[Site], colours: SiteColours, domain: tuple[float, float]) -> Figure:
    lines = _lines(results, {site.key: site.latencies for site in sites}, sites, colours)
    labelled = len(lines) <= MOST_LABELLED
    hint = "" if labelled else " Hover to see which site a curve is."
    return Figure(
        "ecdf",
        _ecdf_title(results, sites),
        f"Share of requests answered within … ms (log axis).{_dashes(results)}{hint}",
        "kafka_latency",
        "How latency is defined",
        charts.ecdf(lines, domain, "Distribution of Kafka latency, one curve per site", labelled=labelled),
    )


def _ecdf_title(results: Results, sites: Sequence[Site]) -> Markup:
    """Where half of the latest experiment's requests are answered: figures only, as which side differs is the comparison's to say."""
    latest = [site for site in sites if site.experiment == results.experiments[0]] or list(sites)
    halves = [(name(site.name), ms(quantile(site.latencies, 0.5))) for site in latest]
    if len(latest) == 1:
        return Markup("Half of {}’s requests are answered within {}, 95 % within {}").format(
            *halves[0], ms(quantile(latest[0].latencies, 0.95))
        )
    if len(latest) <= MOST_NAMED:
        rest = [Markup("of {}’s within {}").format(*half) for half in halves[1:]]
        return Markup("Half of {}’s requests within {}, {}").format(*halves[0], Markup(", ").join(rest))
    medians = sorted(quantile(site.latencies, 0.5) or 0.0 for site in latest)
    return Markup("Half of the requests within {} to {}, by site").format(ms(medians[0]), ms(medians[-1]))


def _percentiles(results: Results, sites: Sequence[Site], colours: SiteColours, domain: tuple[float, float]) -> Figure:
    many = len(sites) > MOST_LABELLED
    shown = sorted(sites, key=lambda site: -(quantile(site.latencies, 0.95) or 0.0))[:MOST_LABELLED] if many else list(sites)
    lines = [charts.Line(site.name, site.latencies, colours.mark(site.name), colours.text(site.name), 0) for site in shown]
    if many:
        lines[0].colour, lines[0].text = "var(--s1)", "var(--t1)"
    # Bands of many lines cover each other: only the worst keeps its own.
    bands = [percentile_band(site) for site in shown[: 1 if many else None]] + [[] for _ in shown[1:] if many]
    experiment = sites[0].experiment
    where = f", {visible(experiment)}" if len(results.experiments) > 1 else ""
    key = "Band: 95 % interval, of the first one only" if many else "Band: 95 % interval; dotted: too few samples for one"
    which = f" The {MOST_LABELLED} sites with the highest p95." if many else ""
    return Figure(
        f"percentiles-{shown[0].slug}",
        _tail_title(shown),
        f"Latency in ms at each percentile{where} (log axis). {key}.{which}",
        "percentiles",
        "Percentiles and intervals",
        charts.percentiles(lines, bands, domain, f"Latency at each percentile{where}"),
    )


def _stretch(site: Site, level: float) -> float:
    return (quantile(site.latencies, level) or 0.0) / max(quantile(site.latencies, 0.5) or 1.0, FLOOR_MS)


def _tail_title(sites: Sequence[Site]) -> Markup:
    """The longest tail, by the ratio of p99 to the median, of the sites that hold enough requests for it; else of p95."""
    for level, least in ((0.99, NEEDED["p99"]), (0.95, NEEDED["p95"])):
        enough = [site for site in sites if len(site.latencies) >= least]
        if not enough:
            continue
        longest = max(enough, key=partial(_stretch, level=level))
        stretch, words = _stretch(longest, level), f"p{100 * level:.0f}"
        if stretch < 2 and len(enough) == len(sites):
            return Markup("No long tail: {} is less than twice the median").format(words)
        return Markup("{}’s {} is {} times its median").format(name(longest.name), words, f"{stretch:.2g}")
    return Markup("Too few requests for a word on the tail")


def _difference(pair: Comparison, colours: SiteColours) -> Figure | None:
    rows = difference_band(pair.a, pair.b)
    if len(rows) < 3:
        return None
    a, b = (pair.a.name, pair.b.name) if pair.same_experiment else (pair.a.label, pair.b.label)
    title = difference_title(name(a), name(b), rows)
    return Figure(
        f"quantiles-{pair.slug}",
        title,
        Markup("{} − {} in ms at each percentile (symmetric log axis). Band: 95 % interval; ends where one side has none.").format(
            name(a), name(b)
        ),
        "differences",
        "Difference of quantiles",
        charts.quantile_differences(
            rows,
            f"↓ {a} faster",
            f"↑ {a} slower",
            f"Difference of latency at each percentile, {visible(a)} minus {visible(b)}",
            colours.mark(pair.a.name),
        ),
    )


def difference_title(a: Markup, b: Markup, rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Between which percentiles the band leaves zero out, and on which side."""
    below = [i for i, row in enumerate(rows) if row["high"] < 0]
    above = [i for i, row in enumerate(rows) if row["low"] > 0]

    def p(i: int) -> str:
        return f"p{100 * rows[i]['quantile']:.3g}"

    if below and above:
        first, second = ("faster", "slower") if below[0] < above[0] else ("slower", "faster")
        early, late = (below, above) if below[0] < above[0] else (above, below)
        return Markup("{} is {} than {} up to {}, {} from {} on").format(a, first, b, p(early[-1]), second, p(late[0]))
    found = below or above
    if not found:
        return Markup("Between {} and {} no difference was found").format(a, b)
    if len(found) < 0.15 * len(rows):
        return Markup("Between {} and {} no difference was found at {} of {} percentiles").format(a, b, len(rows) - len(found), len(rows))
    word = "faster" if below else "slower"
    if len(found) == len(rows):
        return Markup("{} is {} than {} at every percentile that both can carry").format(a, word, b)
    if found[0] == 0:
        return Markup("{} is {} than {} up to {}; beyond, no difference was found").format(a, word, b, p(found[-1]))
    where = Markup("at {}").format(p(found[0])) if len(found) == 1 else Markup("between {} and {}").format(p(found[0]), p(found[-1]))
    return Markup("{} is {} than {} {}; elsewhere no difference was found").format(a, word, b, where)


def _reading(sites: Sequence[Site]) -> list[Markup]:
    """How to read the curves, and where a percentile falls on a step of a curve."""
    said = [
        Markup(
            "The first curve shows everything at once: further left is faster. The second stretches the slow end, so that one request in a hundred gets as much "
            "room as the first ninety. The difference subtracts the second’s lines: where its band leaves zero, the two sides differ."
        )
    ]
    for site in sites:
        tail = site.metric("kafka_latency", "all", "p95")
        share = site.metric("kafka_latency", "all", "share_over")
        if tail.value and tail.low and tail.high and tail.high / tail.low > 1.8 and share.value:
            said.append(
                Markup(
                    "{}’s p95 falls on a step of its curve, so its interval is wide ({} to {}): a few requests more or less move it. The share over the threshold, {}, is the steadier figure."
                ).format(name(site.label), ms(tail.low), ms(tail.high), percent(share.value))
            )
    return said[:3]


def _api(results: Results, one: ApiSet, colours: SiteColours) -> ApiFigures:
    sites = [site for site in results.newest_first if len(one.values.get(site.key, ())) >= 2]
    domain = log_domain([value for site in sites for value in (quantile(one.values[site.key], 0.005), float(one.values[site.key][-1]))])
    lines = _lines(results, one.values, sites, colours)
    label = _API_WORDS.get(one.name, one.name)
    medians = listed([Markup("{} {}").format(name(site.label), ms(quantile(one.values[site.key], 0.5))) for site in sites[:4]])
    caption = "Waits by design: a long poll lasts until there is something to say." if one.waits else ""
    figure = Figure(
        f"ecdf-{slug(one.name)}",
        Markup("Medians: {}").format(medians),
        f"Share of {label} requests answered within … ms (log axis).{_dashes(results)}",
        "kafka_latency",
        "How latency is defined",
        charts.ecdf(lines, domain, f"Distribution of {label} latency", labelled=len(lines) <= MOST_LABELLED, height=240),
    )
    total = sum(len(values) for values in one.values.values())
    return ApiFigures(f"{label} · {plural(total, 'request')}", caption, [figure]) if total else ApiFigures(label, count(0), [])
