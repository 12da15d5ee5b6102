"""Where the time goes: the latency's parts, for all requests and for the slowest twentieth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from brokerlens.report import charts
from brokerlens.report.figure import Figure
from brokerlens.report.latency import PARTS, parts
from brokerlens.report.results import Results, Site
from brokerlens.report.words import fixed, ms, name, visible

MOST_BARS = 12
SLOWEST = 0.95
_WORDS = {
    "network": "the network",
    "broker": "the broker",
    "queue": "queueing",
    "transfer": "transfer",
    "unknown": "what cannot be told apart",
}


def breakdown(results: Results) -> list[Figure]:
    """Two figures on one scale of their own each; none where no site has latencies."""
    sites = [site for site in results.newest_first if len(site.latencies)]
    # Bars of one site side by side: the comparison that people look for first.
    sites.sort(key=lambda site: results.site_names.index(site.name))
    if len(sites) > MOST_BARS:
        sites = sorted(sites, key=lambda site: -float(site.latencies.mean()))[:MOST_BARS]
    if not sites:
        return []
    return [
        _figure("parts-all", sites, None, "All requests", "Mean per request, ms", len(results.sites) > MOST_BARS),
        _figure(
            "parts-slowest",
            sites,
            SLOWEST,
            "The slowest 5 %",
            "Mean per request among each site’s slowest 5 %, ms",
            len(results.sites) > MOST_BARS,
        ),
    ]


def _figure(id_: str, sites: Sequence[Site], slowest: float | None, who: str, what: str, cut: bool) -> Figure:
    means = {site.key: parts(site, slowest=slowest) for site in sites}
    rows: list[dict[str, Any]] = []
    for site in sites:
        start = 0.0
        for part in PARTS:
            value = (means[site.key] or {}).get(part, 0.0)
            if value > 0:
                rows.append({"name": visible(site.label), "part": part, "ms": value, "start": start, "end": start + value})
                start += value
    subtitle = f"{what}. The {MOST_BARS} slowest." if cut else f"{what}."
    title = Markup("{}: {}").format(who, _finding(sites, means))
    spec = charts.parts(rows, [visible(site.label) for site in sites], f"{who}: mean latency by part")
    return Figure(id_, title, subtitle, "parts", "Parts of latency", spec)


def _finding(sites: Sequence[Site], means: dict[tuple[str, str], dict[str, float] | None]) -> Markup:
    """The largest part of the slowest site, and its share."""
    known = [(site, found) for site in sites if (found := means[site.key])]
    if not known:
        return Markup("nothing to take apart")
    site, found = max(known, key=lambda one: sum(one[1].values()))
    total = sum(found.values()) or 1.0
    part = max(found, key=lambda p: found[p])
    share = found[part] / total
    if share > 0.9:
        return Markup("{} is nearly everything at {}").format(_WORDS[part], name(site.label))
    return Markup("{} is {} % of {}’s {}").format(_WORDS[part], fixed(100 * share), name(site.label), ms(total))
