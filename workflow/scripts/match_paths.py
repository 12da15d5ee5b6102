"""The connections of an experiment that were captured at both ends: what became of each packet between the taps."""

from brokerlens import job  # isort: skip  # first: limits threads before polars and numba start

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from brokerlens import tables
from brokerlens.metrics.taps import found_tap, tap_of
from brokerlens.routes import matching, paths
from brokerlens.routes.fates import FATES

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Files = Sequence[str | Path]
_ROUTE: Mapping[str, Any] = {"client_site": pl.String, "broker_site": pl.String, "connection_id": pl.String, "time": pl.Int64}
PACKETS = {**_ROUTE, "direction": pl.String, "fate": pl.Enum(FATES), "payload_len": pl.Int64, "one_way_ms": pl.Float64}
"""Columns of the working file of packets; ``time`` in ns at the client's tap, or by its clock where that is known."""
REQUESTS = {**_ROUTE, "measured_ms": pl.Float64, "inferred_ms": pl.Float64}
"""Columns of the working file of requests."""


def match_paths(
    *,
    packets: Files,
    connections: Files,
    requests: Files,
    sites: Sequence[Mapping[str, Any]],
    paths_output: str | Path,
    working: Mapping[str, str | Path],
) -> None:
    """Write the data set `paths` of one experiment, and the working files ``packets`` and ``requests``, which the metrics of routes are made of.

    ``packets``, ``connections`` and ``requests`` are the files of all of its sites; ``sites`` has ``site``, ``tap`` (client, broker or auto) and ``clock_offset_ms``
    (None: not configured) of each. Sites whose tap is client or broker, as configured, else as found, are compared each with each.
    """
    sides = {site["site"]: _Side(site, *(_of_site(files, site["site"]) for files in (packets, connections, requests))) for site in sites}
    rows, found_packets, found_requests = [], [pl.DataFrame(schema=PACKETS)], [pl.DataFrame(schema=REQUESTS)]
    for client in (side for side in sides.values() if side.tap == "client"):
        for broker in (side for side in sides.values() if side.tap == "broker"):
            ends = _both_ends(client, broker)
            if ends is not None:
                named = {"client_site": pl.lit(client.name), "broker_site": pl.lit(broker.name)}
                times = paths.broker_times(ends.pairs, client.requests(), broker.requests())
                rows.append(paths.rows(ends, times).with_columns(**named))
                found_packets.append(ends.named_packets().with_columns(**named).select(*PACKETS))
                found_requests.append(times.with_columns(**named).select(*REQUESTS))
    provenance = {"sites": [dict(site) for site in sites]}
    names = [column.name for column in tables.PATHS]
    table = pl.concat([part.select(names) for part in rows]).to_arrow() if rows else tables.schema("paths").empty_table()
    tables.write(table, paths_output, "paths", provenance)
    for name, found in (("packets", found_packets), ("requests", found_requests)):
        tables.write_working(pl.concat(found).to_arrow(), working[name], provenance)


class _Side:
    """A site as one end of connections: its files are read where the other end has a site, too."""

    def __init__(self, site: Mapping[str, Any], packets: list[str], connections: list[str], requests: list[str]) -> None:
        self.name = str(site["site"])
        self.clock_offset_ms = site["clock_offset_ms"]
        self._packets, self._requests = packets, requests
        self.connections = pl.read_parquet(
            connections, columns=[*matching.CONNECTION_COLUMNS, "tap"], hive_partitioning=False
        ).with_columns(pl.col(pl.Categorical).cast(pl.String))
        self.tap = tap_of(site["tap"], found_tap(self.connections["tap"].to_list()))

    def packets(self, connections: pl.Series) -> pl.DataFrame:
        """The packets of these connections, in the order of time, copies left out."""
        chosen = connections.unique().cast(pl.Categorical)
        scanned = pl.scan_parquet(self._packets, hive_partitioning=False).filter(
            ~pl.col("is_duplicate"), pl.col("connection_id").is_in(chosen.implode())
        )
        return scanned.select(matching.PACKET_COLUMNS).collect().sort("timestamp", maintain_order=True)

    def requests(self) -> pl.DataFrame:
        """The requests, in the order of time."""
        scanned = pl.scan_parquet(self._requests, hive_partitioning=False).sort("request_first", maintain_order=True)
        return scanned.select(paths.REQUEST_COLUMNS).collect()


def _both_ends(client: _Side, broker: _Side) -> paths.BothEnds | None:
    """What the two sites have in common; None where that is nothing, and then no packet is read."""
    candidates = matching.candidate_pairs(client.connections, broker.connections)
    if not candidates.height:
        return None
    offsets = client.clock_offset_ms, broker.clock_offset_ms
    configured = None if None in offsets else float(offsets[1]) - float(offsets[0])
    return paths.both_ends(candidates, client.packets(candidates["client_id"]), broker.packets(candidates["broker_id"]), configured)


def _of_site(files: Files, site: str) -> list[str]:
    return [str(path) for path in files if Path(path).parent.name == f"site={site}"]


if __name__ == "__main__":
    with job.logged(snakemake):
        match_paths(
            packets=snakemake.input.packets,
            connections=snakemake.input.connections,
            requests=snakemake.input.requests,
            sites=snakemake.params.sites,
            paths_output=snakemake.output.paths,
            working={"packets": snakemake.output.packets, "requests": snakemake.output.requests},
        )
