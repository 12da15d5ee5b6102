"""Who talks to the brokers, and how well they are served: a table by site, one of clients and one of topics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from brokerlens.metrics.latency import OTHER
from brokerlens.metrics.rows import ALL
from brokerlens.report.headline import SHOWN, Cell, worst_first
from brokerlens.report.intervals import dash_bounds, value_of
from brokerlens.report.network import Column
from brokerlens.report.results import Metric, Results, Site
from brokerlens.report.spread import swatch
from brokerlens.report.theme import SiteColours
from brokerlens.report.words import NONE, count, ms, name, percent, plural, short, size

ROOM = 24
"""Rows of clients or topics that are shown at first, where the sites are few enough."""
LEAST = 3
MOST_ROWS = 500
STATUSES = {"unanswered": "unanswered", "no_response_expected": "expect no answer", "request_not_captured": "answers alone"}
LATENCY = (Column("Latency p50", "ms", "kafka_latency"), Column("Latency p95", "ms", "kafka_latency"))


@dataclass(frozen=True)
class Served:
    """A figure of how well clients are served: a column where there is something to show, else a sentence.

    ``never`` says that its ``statistic`` is 0 at every site, with ``{n}`` for the samples and ``{clients}`` for the clients looked at;
    ``unseen`` that nothing was there to look at. ``by_client``: the metric has groups by client.
    """

    column: Column
    metric: str
    statistic: str
    cell: Callable[[Site, str], Cell]
    never: str = ""
    unseen: str = ""
    by_client: bool = True


@dataclass(frozen=True)
class SiteRow:
    """One site: its figures, or why it has none."""

    site: Site
    mark: Markup
    cells: Sequence[Cell]
    state: str | None


@dataclass(frozen=True)
class NamedRow:
    """A client or a topic of a site; ``small`` is its software, or the id that the topic is named by."""

    name: Markup
    small: str
    cells: Sequence[Cell]
    hidden: bool


@dataclass(frozen=True)
class SiteGroup:
    """A site's clients or topics."""

    site: Site
    mark: Markup
    rows: Sequence[NamedRow]
    hidden: bool


@dataclass(frozen=True)
class NamedTable:
    """Clients or topics of all sites; ``total`` counts those that are not written, too."""

    columns: Sequence[Column]
    groups: Sequence[SiteGroup]
    total: int

    @property
    def written(self) -> int:
        return sum(len(group.rows) for group in self.groups)

    @property
    def shown(self) -> int:
        """Rows that do not wait for a click."""
        return sum(not row.hidden for group in self.groups if not group.hidden for row in group.rows)


@dataclass(frozen=True)
class Clients:
    """The section; without rows no request began inside any window."""

    lead: str
    columns: Sequence[Column]
    rows: Sequence[SiteRow]
    quiet: Sequence[str]
    clients: NamedTable
    topics: NamedTable


def clients(results: Results, colours: SiteColours, states: dict[tuple[str, str], str]) -> Clients:
    """All sites in the first table; where they are many, the worst dozen is shown first in the other two."""
    said = {served.metric: _instead(results, served) for served in SERVED}
    shown = [served for served in SERVED if said[served.metric] is None]
    of_site = [column for column, _ in BY_SITE]
    rows = [
        SiteRow(
            site,
            swatch(colours.mark(site.name)),
            [*(cell(site) for _, cell in BY_SITE), *(served.cell(site, ALL) for served in shown)],
            states.get(site.key) if not site.metric("requests").value else None,
        )
        for site in results.newest_first
    ]
    by_client = [served for served in shown if served.by_client]
    sites = [site for site in worst_first(results) if site.metric("requests").value]
    return Clients(
        _lead(results),
        [*of_site, *(served.column for served in shown)],
        rows if sites else [],
        [sentence for sentence in said.values() if sentence],
        _named(sites, colours, "client", by_client, _software),
        _named(sites, colours, "topic", [], _topic_id),
    )


def _lead(results: Results) -> str:
    topics = {site.topic_names.get(topic, topic) for site in results.sites for topic in _names(site, "topic")}
    return f"{_clients_of(results, 'requests')}, {_number(topics, 'topic')}."


def _clients_of(results: Results, metric: str) -> str:
    """``12 clients`` that the metric was looked at for."""
    found = {client for site in results.sites for client in _names(site, "client") if site.metric(metric, f"client={client}").n}
    return _number(found, "client")


def _number(names: set[str], what: str) -> str:
    return plural(len(names - {OTHER}), what) + (" and others" if OTHER in names else "")


def _instead(results: Results, served: Served) -> str | None:
    """What is said instead of the column; None where the column has something to show."""
    metrics = [site.metric(served.metric, ALL, served.statistic) for site in results.sites]
    known = [metric for metric in metrics if metric.value is not None]
    if not known:
        return served.unseen
    if served.never and not any(metric.value for metric in known):
        return served.never.format(n=count(sum(metric.n for metric in known)), clients=_clients_of(results, served.metric))
    return None


def _names(site: Site, key: str) -> list[str]:
    """Clients or topics of a site, the busiest first, the rest last."""
    return [
        group.removeprefix(f"{key}=")
        for metric, group, statistic in site.metrics
        if metric == "requests" and statistic == "count" and group.startswith(f"{key}=")
    ]


def _named(
    sites: Sequence[Site], colours: SiteColours, key: str, shown: Sequence[Served], beside: Callable[[Site, str], str]
) -> NamedTable:
    names = {site.key: _ranked(site, key, shown) for site in sites}
    at_first = max(LEAST, ROOM // max(1, min(len(sites), SHOWN)))
    written = max(LEAST, MOST_ROWS // max(1, len(sites)))
    groups = []
    for i, site in enumerate(site for site in sites if names[site.key]):
        rows = [
            NamedRow(
                _called(site, key, one),
                beside(site, one),
                [
                    Cell(count(site.metric("requests", f"{key}={one}").value)),
                    *_latency(site, f"{key}={one}"),
                    *(served.cell(site, f"{key}={one}") for served in shown),
                ],
                place >= at_first,
            )
            for place, one in enumerate(names[site.key][:written])
        ]
        groups.append(SiteGroup(site, swatch(colours.mark(site.name)), rows, i >= SHOWN))
    columns = [Column("Requests", "", "requests"), *LATENCY, *(served.column for served in shown)]
    return NamedTable(columns, groups, sum(map(len, names.values())))


def _ranked(site: Site, key: str, shown: Sequence[Served]) -> list[str]:
    """Those with trouble before those without, so that they are not hidden; the rest last."""

    def trouble(one: str) -> float:
        events = [served for served in shown if served.statistic == "count"]
        return sum(site.metric(served.metric, f"{key}={one}").value or 0.0 for served in events)

    return sorted(_names(site, key), key=lambda one: (one == OTHER, -trouble(one)))


def _called(site: Site, key: str, one: str) -> Markup:
    if one == OTHER:
        return Markup('<span class="soft">{}</span>').format("others, or without a client id" if key == "client" else "other topics")
    return name(site.topic_names.get(one, one) if key == "topic" else one) if one else Markup('<span class="soft">empty</span>')


def _software(site: Site, client: str) -> str:
    """What its connections named, the versions of one client together."""
    found = site.connections.filter(site.connections["client_id"] == client)["client_software"].drop_nulls().unique().sort()
    return ", ".join(found.to_list())


def _topic_id(site: Site, topic: str) -> str:
    return f"id {topic}" if topic in site.topic_names else ""


def _latency(site: Site, group: str) -> list[Cell]:
    """p50 and p95 with their intervals; where there are none, the number of requests once."""
    levels = [site.metric("kafka_latency", group, level) for level in ("p50", "p95")]
    bounded = [dash_bounds(metric) for metric in levels]
    small = bounded if any(bounded) or not levels[0].n else [plural(levels[0].n, "request"), ""]
    return [Cell(value_of(metric), said, "" if of else "soft") for metric, said, of in zip(levels, small, bounded, strict=True)]


def _requests(site: Site) -> Cell:
    numbers = {words: site.metric("requests", f"status={status}").value for status, words in STATUSES.items()}
    odd = [f"{count(number)} {words}" for words, number in numbers.items() if number]
    return Cell(count(site.metric("requests").value), ", ".join(odd) or "all answered")


def _records(api: str) -> Callable[[Site], Cell]:
    def cell(site: Site) -> Cell:
        records, asked = site.metric("records", f"api={api}", "sum"), site.metric("requests", f"api={api}")
        if records.value is None:
            return Cell(NONE, "", "soft")
        unread = int(asked.value or 0) - records.n
        read = size(site.metric("record_bytes", f"api={api}", "sum").value)
        return Cell(count(records.value), read + (f", {count(unread)} requests unread" if unread > 0 else ""))

    return cell


def _errors(site: Site, group: str) -> Cell:
    metric = site.metric("request_errors", group)
    if not metric.value:
        return _nothing(metric)
    apis = _by_api(site, "request_errors") if group == ALL else []
    most = ", ".join(f"{count(number)} {api}" for api, number in apis[:2])
    return Cell(count(metric.value), most or f"of {metric.n:,}", "bad")


def _by_api(site: Site, metric: str) -> list[tuple[str, float]]:
    """Apis with any of these, the most frequent first; the parts of Fetch are in Fetch."""
    numbers = {
        group.removeprefix("api="): site.metric(metric, group).value or 0.0
        for of, group, statistic in site.metrics
        if of == metric and statistic == "count" and group.startswith("api=") and "/" not in group
    }
    return sorted(((api, number) for api, number in numbers.items() if number), key=lambda one: (-one[1], one[0]))


def _nothing(metric: Metric) -> Cell:
    """0 where it was looked for, a dash where there was nothing to look at."""
    return Cell(NONE, "", "soft") if metric.value is None else Cell("0")


def _throttled(site: Site, group: str) -> Cell:
    metric, longest = site.metric("throttle", group), site.metric("throttle", group, "max")
    return Cell(count(metric.value), f"up to {ms(longest.value)}", "warning") if metric.value else _nothing(metric)


def _retries(site: Site, group: str) -> Cell:
    metric = site.metric("producer_retries", group)
    return Cell(count(metric.value), f"of {metric.n:,}", "bad") if metric.value else _nothing(metric)


def _lag(site: Site, group: str) -> Cell:
    p50, p95, most = (site.metric("consumer_lag", group, statistic).value for statistic in ("p50", "p95", "max"))
    return Cell(NONE, "", "soft") if p95 is None else Cell(count(p95), f"p50 {count(p50)}, most {count(most)}")


def _idle(site: Site, group: str) -> Cell:
    share, number = site.metric("idle_polls", group, "ratio_of_sums"), site.metric("idle_polls", group)
    return Cell(NONE, "", "soft") if share.value is None else Cell(percent(share.value), f"{count(number.value)} of {number.n:,}")


def _longest_wait(site: Site, group: str) -> Cell:
    low, middle, high = (site.metric("fetch_max_wait", group, statistic).value for statistic in ("min", "p50", "max"))
    if middle is None:
        return Cell(NONE, "", "soft")
    return Cell(short(middle), "" if low == high else f"{short(low)} to {short(high)}")


BY_SITE: tuple[tuple[Column, Callable[[Site], Cell]], ...] = (
    (Column("Requests", "", "requests"), _requests),
    (Column("Produced", "records", "records"), _records("Produce")),
    (Column("Fetched", "records", "records"), _records("Fetch")),
)
SERVED: tuple[Served, ...] = (
    Served(
        Column("Errors", "answers", "request_errors"), "request_errors", "count", _errors,
        "No errors in {n} answers to {clients}.", "No answer’s error code was captured.",
    ),
    Served(
        Column("Throttled", "answers", "request_errors"), "throttle", "count", _throttled,
        "Nobody was throttled ({n} answers).", "No answer’s throttle time was captured.",
    ),
    Served(
        Column("Producer retries", "requests", "producer_retries"), "producer_retries", "count", _retries,
        "No producer retries seen in {n} requests of {clients}.", "Producer retries cannot be seen: no captured batch has a producer’s id.",
    ),
    Served(
        Column("Consumer lag", "p95, records", "consumer_lag"), "consumer_lag", "max", _lag,
        "No consumer was behind in {n} answers to {clients}.", "No answer tells a consumer’s lag.",
    ),
    Served(
        Column("Idle polls", "of fetches", "idle_polls"), "idle_polls", "count", _idle,
        "No long poll of {n} came back empty.", "No answers to consumers’ fetches were captured.", by_client=False,
    ),
    Served(Column("Longest wait", "of a long poll, ms", "idle_polls"), "fetch_max_wait", "max", _longest_wait, by_client=False),
)  # fmt: skip
