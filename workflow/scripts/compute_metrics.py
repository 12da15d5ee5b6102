"""Metrics and series of one site, inside its experiment's window."""

from brokerlens import job  # isort: skip  # first: limits threads before polars and numba start

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    # First, and not kept: the notebook's correlation ids and arrivals, of all shards, take more memory than what follows.
    of_notebook = notebook_figures(packets, notebook, window, measure["brokers"])
    inside = traffic.packets_inside(packets, window)
    counted = traffic.count_traffic(inside, window)
    tcp_connections = of_connections.connections_inside(connections, counted.connections)
    parts = traffic.packets_of_parts(packets, window)
    trips = round_trips.round_trips_inside(parts, counted.connections)
    delayed = round_trips.may_be_delayed(trips, tcp_connections["mss"].fill_null(0).cast(int).to_numpy())
    stamped = round_trips.by_timestamps(packets, counted.connections, window)
    groups = latency.Groups(latency.requests_inside(requests, window))
    tap = tap_of(measure["tap"], found_tap(tcp_connections["tap"].to_list()))

    rows = Rows()
    traffic.add_packets(rows, counted)
    of_connections.add_connections(rows, tcp_connections)
    of_connections.add_protocols(rows, tcp_connections)
    of_connections.add_decryption(rows, decryption, counted.connections)
    of_connections.add_whole_connections(rows, tcp_connections)
    of_connections.add_set_up(rows, tcp_connections, counted.last, window)
    traffic.add_health(rows, counted)
    segments.add_reordering(rows, inside)
    segments.add_in_flight(rows, inside, tap)
    segments.add_duplicates(rows, packets, window)
    segments.add_capture_loss(rows, inside)
    latency.add_requests(rows, groups)
    rates.add_rates(rows, counted, groups)
    latency.add_latency(rows, groups, float(measure["share_over_ms"]))
    contents.add_contents(rows, groups)
    contents.add_producers(rows, groups)
    contents.add_consumers(rows, groups)
    contents.add_frames(rows, groups)
    round_trips.add_round_trips(rows, trips, delayed, stamped)
    variation.add_variation(rows, parts, counted.connections, trips.sample, trips.to_broker, tap)
    add_notebook(rows, of_notebook)

    courses = in_time.SeriesRows(series_bins(window, counted.first, counted.last) if counted.connections else Bins(0, 1, 0))
    if courses.bins.count:
        in_time.add_traffic(courses, counted)
        in_time.add_round_trips(courses, trips.sample, trips.to_broker)
        in_time.add_requests(courses, groups)

    provenance = {"measure": dict(measure)}
    tables.write(rows.table(), metrics, "metrics", provenance)
    tables.write(courses.table(), series, "series", provenance)


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
