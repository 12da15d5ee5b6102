"""Metrics and series of one site, inside its experiment's window."""

from brokerlens import job  # isort: skip  # first: limits threads before polars and numba start

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from brokerlens import tables
from brokerlens.metrics import connections as of_connections
from brokerlens.metrics import contents, latency, rates, round_trips, segments, traffic, variation
from brokerlens.metrics import series as in_time
from brokerlens.metrics.notebook_figures import add_notebook
from brokerlens.metrics.rows import Rows
from brokerlens.metrics.taps import found_tap, tap_of
from brokerlens.metrics.window import Bins, Window, series_bins
from brokerlens.metrics.notebook import notebook_figures

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Paths = Sequence[str | Path]


def compute_metrics(
    *,
    packets: Paths,
    requests: Paths,
    connections: Paths,
    notebook: Paths,
    measure: Mapping[str, Any],
    metrics: str | Path,
    series: str | Path,
    decryption: Paths = (),
) -> None:
    """Write the site's tidy metrics and its time series.

    ``packets``, ``requests``, ``connections``, ``notebook`` and ``decryption`` are the parts that merge_site wrote. ``measure`` has the ``window``
    (``start`` and ``end``, ns since 1970 UTC or None, both included), the ``brokers`` (``ip:port``), the ``tap`` (client, broker or auto)
    and ``share_over_ms``, the threshold of `share_over`.
    """
    window = Window.of(measure["window"])
    parts = traffic.packets_of_parts(packets, window)
    counted = traffic.count_traffic(parts, window)
    courses = in_time.SeriesRows(series_bins(window, counted.first, counted.last) if counted.connections else Bins(0, 1, 0))
    tcp_connections = of_connections.connections_inside(connections, counted.connections)
    tap = tap_of(measure["tap"], found_tap(tcp_connections["tap"].to_list()))
    if courses.bins.count:
        in_time.add_traffic(courses, counted)

    # In the order in which they take memory, each leaving only its rows: what came by is more than what came of it.
    of_notebook = Rows()
    add_notebook(of_notebook, notebook_figures(packets, notebook, window, measure["brokers"]))
    of_trips = Rows()
    _add_trips(of_trips, courses, packets, parts, tcp_connections, tap, window)
    of_requests = Rows()
    _add_requests(of_requests, courses, latency.Groups(latency.requests_inside(requests, window)), counted, float(measure["share_over_ms"]))
    of_packets = Rows()
    inside = traffic.packets_inside(packets, window)
    traffic.add_packets(of_packets, counted)
    of_connections.add_connections(of_packets, tcp_connections)
    of_connections.add_protocols(of_packets, tcp_connections)
    of_connections.add_decryption(of_packets, decryption, counted.connections)
    of_connections.add_whole_connections(of_packets, tcp_connections)
    of_connections.add_set_up(of_packets, tcp_connections, counted.last, window)
    traffic.add_health(of_packets, counted)
    segments.add_reordering(of_packets, inside)
    segments.add_in_flight(of_packets, inside, tap)
    segments.add_duplicates(of_packets, packets, window)
    segments.add_capture_loss(of_packets, inside)

    provenance = {"measure": dict(measure)}
    rows = Rows([*of_packets.rows, *of_requests.rows, *of_trips.rows, *of_notebook.rows])
    tables.write(rows.table(), metrics, "metrics", provenance)
    tables.write(courses.table(), series, "series", provenance)


def _add_trips(
    rows: Rows,
    courses: in_time.SeriesRows,
    packets: Paths,
    parts: Sequence[pl.LazyFrame],
    connections: pl.DataFrame,
    tap: str,
    window: Window,
) -> None:
    """Round trips and variation in time; ``parts`` are the ``packets`` inside."""
    names = connections["connection_id"].to_list()
    stamped = round_trips.by_timestamps(packets, names, window)
    mss = connections["mss"].fill_null(0).cast(int).to_numpy()
    slow = []
    for half in round_trips.HALVES:
        trips = round_trips.round_trips_inside(parts, names, half)
        round_trips.add_round_trips(rows, half, trips, round_trips.may_be_delayed(trips, mss), stamped.pop(half))
        slow.append(round_trips.slow_of_connections(trips.sample, len(names)))
        if courses.bins.count:
            in_time.add_round_trips(courses, half, trips.sample)
        del trips
    variation.add_variation(rows, parts, names, variation.idle_gaps(slow), tap)


def _add_requests(rows: Rows, courses: in_time.SeriesRows, groups: latency.Groups, counted: traffic.Traffic, share_over_ms: float) -> None:
    """Kafka's requests, and the rates that they are counted beside."""
    latency.add_requests(rows, groups)
    rates.add_rates(rows, counted, groups)
    latency.add_latency(rows, groups, share_over_ms)
    contents.add_contents(rows, groups)
    contents.add_producers(rows, groups)
    contents.add_consumers(rows, groups)
    contents.add_frames(rows, groups)
    if courses.bins.count:
        in_time.add_requests(courses, groups)


if __name__ == "__main__":
    with job.logged(snakemake):
        compute_metrics(
            packets=snakemake.input.packets,
            requests=snakemake.input.requests,
            connections=snakemake.input.connections,
            notebook=snakemake.input.notebook,
            decryption=snakemake.input.decryption,
            measure=snakemake.params.measure,
            metrics=snakemake.output.metrics,
            series=snakemake.output.series,
        )
