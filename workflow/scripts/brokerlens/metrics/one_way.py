"""What connections that were captured at both ends say of the way between the taps, inside the window: one-way delay, loss, and time in the broker."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from brokerlens.metrics.rows import SHARE, Rows, group
from brokerlens.metrics.uncertainty import Sample, add_sample, ratio_by_connection_or_time
from brokerlens.metrics.window import Window, bins_over

DIRECTIONS: Final = ("to_broker", "from_broker")
DELAYS: Final = ("count", "min", "mean", "p50", "p90", "p95", "p99", "max")
BROKER_TIMES: Final = ("count", "mean", "p50", "p95", "p99", "max")
PLACES: Final = {"at_broker": "measured_ms", "at_client": "inferred_ms"}
"""Which tap a time in the broker is from, and its column."""


def route_group(client_site: str, broker_site: str, what: str) -> str:
    """The group of a route: ``route=CLIENTSITE>BROKERSITE/WHAT``."""
    return group("route", f"{client_site}>{broker_site}/{what}")


def add_paths(rows: Rows, packets: pl.DataFrame, requests: pl.DataFrame, window: Window) -> None:
    """`one_way_delay`, `path_loss` and `broker_time` of each route of one client's site: ``route=CLIENTSITE>BROKERSITE/…``.

    ``packets`` and ``requests`` are the working files of ``match_paths`` (its `PACKETS` and `REQUESTS` name their columns), of that site alone or of all its
    experiment: whose rows they are says ``client_site``. Times are those of the client's tap, or of the broker's by the client's clock.
    """
    packets, requests = (table.filter(window.holds(pl.col("time").cast(pl.Datetime("ns", "UTC")))) for table in (packets, requests))
    routes = pl.concat([table.select("client_site", "broker_site") for table in (packets, requests)]).unique().sort(pl.all())
    for client_site, broker_site in routes.iter_rows():
        of_route = (pl.col("client_site") == client_site) & (pl.col("broker_site") == broker_site)
        for direction in DIRECTIONS:
            name = route_group(client_site, broker_site, direction)
            sent = packets.filter(of_route, pl.col("direction") == direction)
            add_sample(rows, "one_way_delay", name, DELAYS, _sample(sent, "one_way_ms"), unit="ms", of="packets")
            _add_loss(rows, name, sent, window)
        for place, column in PLACES.items():
            sample = _sample(requests.filter(of_route), column)
            add_sample(rows, "broker_time", route_group(client_site, broker_site, place), BROKER_TIMES, sample, unit="ms", of="requests")


def _sample(table: pl.DataFrame, column: str) -> Sample:
    """The values of a column where it has one, in the order of time."""
    known = table.filter(pl.col(column).is_not_null()).sort("time", "connection_id", column)
    number = known["connection_id"].rank("dense").cast(pl.Int64)
    return Sample(known["time"].to_numpy(), known[column].to_numpy(), number.to_numpy())


def _add_loss(rows: Rows, name: str, sent: pl.DataFrame, window: Window) -> None:
    """Packets lost between the taps, and their share of those that arrived or were lost, with its interval over connections, or over time where these are few."""
    fate = pl.col("fate").cast(pl.String)
    known = sent.select("connection_id", "time", lost=fate == "lost").filter(sent.select(fate.is_in(("lost", "arrived"))).to_series())
    counted = known.group_by("connection_id").agg(part=pl.col("lost").sum(), whole=pl.len()).sort("connection_id")
    part, whole = (counted[column].cast(pl.Int64).to_numpy() for column in ("part", "whole"))
    n = int(whole.sum())
    rows.add("path_loss", name, "count", float(part.sum()), "packets", n)
    if not n:
        rows.add("path_loss", name, "ratio_of_sums", None, SHARE, n)
        return
    time = known["time"].to_numpy()
    bins = bins_over(window, int(time.min()), int(time.max()), 1)
    second, lost = bins.number(time), known["lost"].to_numpy()
    by_second = (np.bincount(second[chosen], minlength=bins.count) for chosen in (lost, np.ones(lost.size, bool)))
    rows.add("path_loss", name, "ratio_of_sums", part.sum() / n, SHARE, n, ratio_by_connection_or_time(part, whole, *by_second))
