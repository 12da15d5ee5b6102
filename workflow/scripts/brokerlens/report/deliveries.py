"""How long records took from producer to consumer, by route: a table, the parts as stacked means, and what the clocks allow to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from brokerlens.metrics.routes import PARTS, route_group
from brokerlens.report import charts
from brokerlens.report.figure import Figure
from brokerlens.report.headline import Cell
from brokerlens.report.intervals import dash_bounds, value_of
from brokerlens.report.network import Column
from brokerlens.report.results import Metric, Results, Site
from brokerlens.report.words import NONE, count, listed, ms, name, percent, plural, short, visible
from brokerlens.tables import DELIVERY_REASONS

MOST_BARS: Final = 12
MOST_ROWS: Final = 60
MOST_REASONS: Final = 3
NAMES: Final = {"produce_network": "to the broker", "broker": "broker", "log_wait": "in the log", "fetch_network": "to the consumer"}
FILLS: Final = {
    "to the broker": "network",
    "broker": "broker",
    "in the log": "queue",
    "to the consumer": "transfer",
    "unknown": "unknown",
}
COLUMNS: Final = (
    Column("Median", "ms", "delivery"),
    Column("p95", "ms", "delivery"),
    Column("p99", "ms", "delivery"),
    Column("Longest", "ms", "delivery"),
    Column("Delivered", "records", "delivery"),
    Column("Clocks", "may be wrong by", "clocks"),
)


@dataclass(frozen=True)
class Route:
    """Deliveries of one experiment from one site to another; ``site`` is the fetching one, which has the metrics."""

    site: Site
    produce_site: str

    @property
    def group(self) -> str:
        return route_group(self.produce_site, self.site.name)

    @property
    def is_cross(self) -> bool:
        return self.produce_site != self.site.name

    def metric(self, metric: str, statistic: str) -> Metric:
        """One of the route's metrics."""
        return self.site.metric(metric, self.group, statistic)

    @property
    def contradicted(self) -> int:
        """Batches without a time: by the clocks they were fetched before they were produced."""
        return self.metric("delivered_records", "sum").n - self.metric("delivery", "count").n

    def label(self, results: Results) -> str:
        """As the chart writes it."""
        short_name = results.short_names[self.site.experiment] if len(results.experiments) > 1 else ""
        return " ".join(part for part in (f"{self.produce_site} → {self.site.name}", short_name) if part)


@dataclass(frozen=True)
class RouteRow:
    """One route in the table."""

    route: Route
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Deliveries:
    """The section; without rows ``state`` says why."""

    columns: Sequence[Column]
    rows: Sequence[RouteRow]
    figures: Sequence[Figure]
    clocks: Sequence[Markup]
    others: Sequence[Markup]
    left_out: str
    state: str


def deliveries(results: Results) -> Deliveries:
    """Routes of the latest experiment first; those with most deliveries where there are many."""
    routes = [route for site in results.newest_first for route in _routes(site)]
    busiest = sorted(routes, key=lambda route: -route.metric("delivered_records", "sum").n)[:MOST_ROWS]
    shown = [route for route in routes if route in busiest]
    return Deliveries(
        columns=COLUMNS,
        rows=[RouteRow(route, _cells(route)) for route in shown],
        figures=_figures(results, shown),
        clocks=[*_clocks(shown)],
        others=[*_others(results)],
        left_out=f"The {MOST_ROWS} routes with most deliveries of {count(len(routes))}." if len(routes) > len(shown) else "",
        state="" if shown else "No record was seen both produced and fetched inside the window.",
    )


def _routes(site: Site) -> Iterator[Route]:
    """The routes that end at a site, in the order of its metrics."""
    for metric, group, statistic in site.metrics:
        if metric == "delivery" and statistic == "count" and group.startswith("route="):
            yield Route(site, group.removeprefix("route=").removesuffix(f">{site.name}"))


def _cells(route: Route) -> list[Cell]:
    quantiles = [route.metric("delivery", statistic) for statistic in ("p50", "p95", "p99")]
    longest, records = route.metric("delivery", "max"), route.metric("delivered_records", "sum")
    return [
        *(Cell(NONE if metric.value is None else value_of(metric), dash_bounds(metric)) for metric in quantiles),
        Cell(NONE if longest.value is None else short(longest.value)),
        Cell(count(records.value), plural(records.n, "batch", "batches")),
        Cell(*_clock_cell(route)),
    ]


def _clock_cell(route: Route) -> tuple[str, str]:
    """What may be wrong, and why it is no more."""
    uncertainty = route.metric("delivery_clock_uncertainty", "max").value
    if route.contradicted:
        return NONE, "contradict each other" if route.is_cross else "was set meanwhile"
    if not route.is_cross:
        return "0 ms", "one clock"
    if route.metric("clocks_unknown", "count").value:
        return (NONE, "not related, no bound") if uncertainty is None else (f"±{ms(uncertainty)}", "not related")
    return ("0 ms", "as configured") if uncertainty == 0 else (f"±{ms(uncertainty)}", "estimated")


def _clocks(routes: Sequence[Route]) -> Iterator[Markup]:
    """The clock statement: which routes cross clocks that nothing relates, or that cannot be right, and how far that may be off."""
    if any(route.is_cross for route in routes) and all(
        not route.metric("clocks_unknown", "count").value for route in routes if route.is_cross
    ):
        yield Markup(
            "Between sites times are compared by their clocks as configured or estimated; what that may be wrong by stands in the table."
        )
    for route in routes:
        if route.contradicted:
            yield Markup("{} → {} ({}): {} of {} came before they were sent, by the clocks, and have no time: {}.").format(
                name(route.produce_site),
                name(route.site.name),
                name(route.site.experiment),
                count(route.contradicted),
                plural(route.metric("delivered_records", "sum").n, "batch", "batches"),
                "the clocks are not as configured or estimated, or one was set meanwhile"
                if route.is_cross
                else "the clock was set meanwhile",
            )
        if not route.is_cross or not route.metric("clocks_unknown", "count").value:
            continue
        uncertainty = route.metric("delivery_clock_uncertainty", "max").value
        bound = (
            Markup("no record goes the other way, so nothing bounds how much longer they truly took than it seems")
            if uncertainty is None
            else Markup("no record is fetched before it was produced, in either direction, so they are wrong by {} at most").format(
                ms(uncertainty)
            )
        )
        yield Markup(
            "The clocks of {} and {} ({}) are not related: deliveries between them take the clocks as they stand; {}. "
            "Say <code>clock_offset_ms</code> for both sites if it is known."
        ).format(name(route.produce_site), name(route.site.name), name(route.site.experiment), bound)


def _others(results: Results) -> Iterator[Markup]:
    """A sentence per site about batches that are no deliveries, with the most frequent reasons."""
    for site in results.newest_first:
        for status, said in (
            ("not_fetched", Markup("Produced at {} ({}) and not seen fetched anywhere")),
            ("produce_not_captured", Markup("Fetched at {} ({}) and not seen produced anywhere")),
        ):
            found = site.metric("deliveries", f"status={status}")
            if not found.value:
                continue
            reasons = {reason: site.metric("deliveries", f"reason={reason}").value or 0 for reason in DELIVERY_REASONS[status]}
            most = sorted((reason for reason in reasons if reasons[reason]), key=lambda reason: -reasons[reason])[:MOST_REASONS]
            listed_reasons = listed([Markup("{} ({})").format(reason.replace("_", " "), count(reasons[reason])) for reason in most])
            where = said.format(name(site.name), name(site.experiment))
            yield Markup("{}: {}: {}.").format(where, plural(int(found.value), "batch", "batches"), listed_reasons)


def _figures(results: Results, routes: Sequence[Route]) -> list[Figure]:
    """One figure; none where nothing was delivered."""
    timed = [route for route in routes if route.metric("delivery", "mean").value is not None]
    drawn = sorted(timed, key=lambda route: -(route.metric("delivery", "mean").value or 0.0))[:MOST_BARS]
    bars = [route for route in timed if route in drawn]
    if not bars:
        return []
    rows: list[dict[str, Any]] = []
    for route in bars:
        start = 0.0
        for part, value in means(route).items():
            if value > 0:
                rows.append({"name": visible(route.label(results)), "part": part, "ms": value, "start": start, "end": start + value})
                start += value
    subtitle = "Mean per delivery, ms." + (f" The {MOST_BARS} slowest." if len(timed) > MOST_BARS else "")
    order = [visible(route.label(results)) for route in bars]
    spec = charts.parts(rows, order, "Mean delivery time by part", FILLS)
    return [Figure("deliveries-parts", _finding(bars, results), subtitle, "delivery", "Deliveries and their parts", spec)]


def means(route: Route) -> dict[str, float]:
    """Mean ms of each part over all deliveries of the route that have a time; ``unknown`` is the time of those that cannot be taken apart."""
    whole, apart = route.metric("delivery", "mean"), route.metric("delivery_taken_apart", "mean")
    share = apart.n / whole.n if whole.n else 0.0
    found = {NAMES[part]: share * (route.metric(f"delivery_{part}", "mean").value or 0.0) for part in PARTS}
    return found | {"unknown": max(0.0, (whole.value or 0.0) - share * (apart.value or 0.0))}


def _finding(routes: Sequence[Route], results: Results) -> Markup:
    """The slowest route and the largest part of it."""
    slowest = max(routes, key=lambda route: route.metric("delivery", "mean").value or 0.0)
    found = means(slowest)
    part = max(found, key=lambda one: found[one])
    total = sum(found.values()) or 1.0
    where = {"unknown": "what cannot be told apart", "broker": "the broker", "in the log": "waiting in the log"}.get(
        part, f"the way {part}"
    )
    return Markup("{}: {}, of which {} is {}").format(name(slowest.label(results)), ms(total), where, percent(found[part] / total, 0))
