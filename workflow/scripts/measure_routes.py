"""Metrics of the routes that end at a site, inside its experiment's window."""

from brokerlens import job  # isort: skip  # first: limits threads before polars and numba start

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from brokerlens import tables
from brokerlens.metrics.one_way import add_paths
from brokerlens.metrics.routes import add_deliveries, deliveries_inside
from brokerlens.metrics.rows import Rows
from brokerlens.metrics.window import Window

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def measure_routes(
    *, deliveries: Sequence[str | Path], measure: Mapping[str, Any], routes: str | Path, paths: tuple[str | Path, str | Path] | None = None
) -> None:
    """Write the metrics of the routes to a site, and of the connections of its clients that were captured at both ends.

    ``deliveries`` are the files of its experiment, ``paths`` the working files of ``match_paths``, packets and requests; ``measure`` has the ``site`` and the
    ``window`` (``start`` and ``end``, ns since 1970 UTC or None, both included).
    """
    rows, window = Rows(), Window.of(measure["window"])
    add_deliveries(rows, deliveries_inside(deliveries, measure["site"], window))
    if paths is not None:
        packets, requests = (pl.scan_parquet(path).filter(pl.col("client_site") == measure["site"]).collect() for path in paths)
        add_paths(rows, packets, requests, window)
    tables.write(rows.table(), routes, "metrics", {"measure": dict(measure)})


if __name__ == "__main__":
    with job.logged(snakemake):
        measure_routes(
            deliveries=snakemake.input.deliveries,
            paths=(snakemake.input.packets, snakemake.input.requests),
            measure=snakemake.params.measure,
            routes=snakemake.output.routes,
        )
