"""Connections captured at both ends: how long each way takes, what is lost on it, and how long the broker takes, beside what one end alone makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from brokerlens.metrics.one_way import route_group
from brokerlens.report.headline import Cell
from brokerlens.report.intervals import dash_bounds, value_of
from brokerlens.report.network import Column, share_cell
from brokerlens.report.results import NOTHING, Metric, Results, Site
from brokerlens.report.words import NONE, count, fixed, listed, ms, name, percent, plural, sentences, short

WAYS: Mapping[str, str] = {"to_broker": "to the broker", "from_broker": "to the client"}
PLACES: Mapping[str, str] = {"to_broker": "place=behind_tap", "from_broker": "place=before_tap"}
"""Where the client's tap sees the losses of a direction: behind itself what goes to the broker, before itself what comes from it."""
UNKNOWN: Mapping[str, str] = {
    "too_few_packets": "too few packets in one of the directions",
    "stepping": "a clock was set while they ran",
    "contradicted": "with the configured offset packets would have arrived before they were sent",
}
LEAST = 100
"""Packets of a connection that its one-way delay is told of."""
COLUMNS: tuple[Column, ...] = (
    Column("One way", "p50, ms", "both_ends"),
    Column("One way", "p95, ms", "both_ends"),
    Column("One way", "smallest, ms", "both_ends"),
    Column("Lost between the taps", "of packets sent", "both_ends"),
    Column("Half the round trip", "p50, ms: one end’s estimate", "rtt"),
    Column("Lost", "of segments: one end’s estimate", "retransmissions"),
)
BROKER_COLUMNS: tuple[Column, ...] = (
    Column("In the broker", "p50, ms", "both_ends"),
    Column("In the broker", "p95, ms", "both_ends"),
    Column("One end’s estimate", "p50, ms", "parts"),
    Column("One end’s estimate", "p95, ms", "parts"),
)


@dataclass(frozen=True)
class Route:
    """Two sites that captured the same connections."""

    client: Site
    broker: Site
    rows: Sequence[Mapping[str, Any]]
    """Their rows of the data set `paths`."""

    @property
    def title(self) -> Markup:
        """Both sites, the client's first."""
        return Markup("{} → {}").format(name(self.client.name), name(self.broker.name))

    def metric(self, metric: str, what: str, statistic: str) -> Metric:
        """A metric of this route."""
        return self.client.metric(metric, route_group(self.client.name, self.broker.name, what), statistic)

    def total(self, column: str, direction: str | None = None) -> int:
        """Sum of a column, of one direction or both."""
        return sum(int(row[column]) for row in self.rows if direction in (None, row["direction"]))


@dataclass(frozen=True)
class EndsRow:
    """A route, a direction of it where there is one, and its cells."""

    title: Markup
    experiment: str
    way: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class BothEnds:
    """The section; without rows there is none."""

    columns: Sequence[Column]
    rows: Sequence[EndsRow]
    broker_columns: Sequence[Column]
    broker_rows: Sequence[EndsRow]
    statements: Sequence[Markup]


def both_ends(results: Results) -> BothEnds:
    """All routes, those of the latest experiment first."""
    routes = _routes(results)
    rows = [
        EndsRow(route.title, route.client.experiment, way, _cells(route, direction)) for route in routes for direction, way in WAYS.items()
    ]
    in_broker = [
        EndsRow(route.title, route.client.experiment, "", _broker_cells(route))
        for route in routes
        if route.metric("broker_time", "at_broker", "p50").value is not None
    ]
    return BothEnds(COLUMNS, rows, BROKER_COLUMNS, in_broker, [_statement(route) for route in routes])


def _routes(results: Results) -> list[Route]:
    found = []
    for client in results.newest_first:
        for broker in results.of(client.experiment):
            rows = [row for row in client.paths if row["broker_site"] == broker.name]
            if rows:
                found.append(Route(client, broker, rows))
    return found


def _cells(route: Route, direction: str) -> list[Cell]:
    half = route.client.metric("rtt", "half=to_broker", "p50")
    return [
        _delay(route, direction, "p50"),
        _delay(route, direction, "p95"),
        _delay(route, direction, "min"),
        _loss(route, direction),
        Cell(NONE, "no samples") if half.value is None else Cell(short(half.value / 2), f"{half.n:,} round trips", "soft"),
        share_cell(
            route.client.metric("retransmissions", PLACES[direction], "ratio_of_sums"),
            route.client.metric("retransmissions", PLACES[direction]),
            "soft",
        ),
    ]


def _delay(route: Route, direction: str, statistic: str) -> Cell:
    delay = route.metric("one_way_delay", direction, statistic)
    if route.rows[0]["clock_source"] == "unknown":
        return Cell(NONE, "clocks unknown")
    if delay is NOTHING:  # not measured for the route: what the connections say
        found = [float(row[f"one_way_{statistic}_ms"]) for row in route.rows if row["direction"] == direction and row["one_way_n"] >= LEAST]
        low, high = (short(value) for value in (min(found, default=None), max(found, default=None)))
        return Cell(low if statistic == "min" or low == high else f"{low}–{high}", "by connection" if found else "too few packets")
    if delay.value is None:
        return Cell(NONE, "none inside")
    return Cell(value_of(delay), dash_bounds(delay) or f"{delay.n:,} packets")


def _loss(route: Route, direction: str) -> Cell:
    share = route.metric("path_loss", direction, "ratio_of_sums")
    if share is not NOTHING:
        return share_cell(share, route.metric("path_loss", direction, "count"))
    lost = route.total("packets_lost", direction)
    n = lost + route.total("packets_both", direction)
    return Cell(percent(lost / n, 2), f"{count(lost)} of {n:,}") if n else Cell(NONE)


def _broker_cells(route: Route) -> list[Cell]:
    found = []
    for place, kind in (("at_broker", ""), ("at_client", "soft")):
        for statistic in ("p50", "p95"):
            time = route.metric("broker_time", place, statistic)
            found.append(
                Cell(NONE, "no requests")
                if time.value is None
                else Cell(short(time.value), dash_bounds(time) or f"{time.n:,} requests", kind)
            )
    return found


def _statement(route: Route) -> Markup:
    """What holds for a route as a whole, over all of its captures: the clocks, and why packets were sent again or are missing."""
    both = route.total("packets_both")
    connections = len({row["connection_id"] for row in route.rows})
    begin = Markup("{}, {}: {} and {} at both taps.").format(
        name(route.client.experiment), route.title, plural(connections, "connection"), plural(both, "packet")
    )
    return sentences([begin, _clock(route), _translated(route), _sent_again(route), _missing(route)])


def _clock(route: Route) -> Markup:
    """What is known of the two clocks."""
    row = route.rows[0]
    client, broker = name(route.client.name), name(route.broker.name)
    if row["clock_source"] == "unknown":
        why = UNKNOWN.get(str(row["clock_reason"]), str(row["clock_reason"]))
        return Markup("Their clocks are not known ({}), so there is no one-way delay.").format(why)
    offset, most = float(row["clock_offset_ms"]), row["clock_uncertainty_ms"]
    direction = "ahead of" if offset >= 0 else "behind"
    far = " One of them is set wrong; the figures are put right for it." if row["clock_reason"] == "far_apart" else ""
    if row["clock_source"] == "configured":
        bound = "" if most is None else f" By the packets it is off by {ms(most)} at most."
        return Markup("The clock of {} is {} {} that of {}, as configured.{}").format(broker, ms(abs(offset)), direction, client, bound)
    drift = float(row["clock_drift_ppm"] or 0)
    drifting = f", and drifts by {fixed(drift, 1, sign=True)} ppm" if drift else ""
    scatter = "" if row["clock_scatter_ms"] is None else f" to ±{ms(row['clock_scatter_ms'])}"
    return Markup(
        "The clock of {} is {} {} that of {}{}: estimated{} if the fastest packets take as long in both directions; "
        "packets alone rule out no more than that it is off by {}, which would go from one way to the other.{}"
    ).format(broker, ms(abs(offset)), direction, client, drifting, scatter, ms(most), far)


def _translated(route: Route) -> str:
    translated = len({row["connection_id"] for row in route.rows if row["translated"]})
    return f"Addresses of {plural(translated, 'connection')} are translated between the taps." if translated else ""


def _sent_again(route: Route) -> str:
    needed, needless, unknown = (route.total(f"retransmitted_{kind}") for kind in ("needed", "needless", "unknown"))
    if not needed + needless + unknown:
        return "Nothing was sent again."
    rest = f", of {count(unknown)} nothing tells" if unknown else ""
    return f"Of {plural(needed + needless + unknown, 'retransmission')} {count(needed)} repeated what was lost on the way and {count(needless)} what had arrived{rest}."


def _missing(route: Route) -> Markup:
    """Packets that say nothing about the way."""
    kinds = {
        "packets_not_captured": "were not captured at a tap that they passed",
        "packets_cut_anew": "were joined or cut by offload",
        "packets_outside": "lie outside of what both taps captured",
        "packets_alike": "cannot be told from others",
        "reordered": "were overtaken",
    }
    found = [f"{count(number)} {words}" for column, words in kinds.items() if (number := route.total(column))]
    return Markup("Of the packets {}.").format(listed(found)) if found else Markup("")
