"""The data set `sites`, all metrics in one table for spreadsheets, and no file left of what the configuration no longer has."""

from brokerlens import job  # isort: skip  # first: limits threads before polars and numba start

import csv
import json
import logging
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from brokerlens import tables
from brokerlens.kafka.site import all_learned, cluster_ids, cluster_names
from brokerlens.metrics.taps import found_tap

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log = logging.getLogger("brokerlens")

SiteName = tuple[str, str]
"""Experiment and site."""
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a text that begins so for a formula."""
WORKING_STAGES: Final = ("captures", "checksums", "merged", "paths", "excerpts")
"""Folders of working files under `intermediate/`, `STAGE/EXPERIMENT/`; `excerpts/` lies beside that."""


def _site_of(path: str | Path) -> SiteName:
    """The site that a file ``…/experiment=E/site=S/name`` belongs to."""
    experiment, site = Path(path).parts[-3:-1]
    return experiment.removeprefix("experiment="), site.removeprefix("site=")


def _by_site(paths: Iterable[str | Path]) -> dict[SiteName, list[Path]]:
    """Paths ``…/E/S/name`` or ``…/experiment=E/site=S/name`` by the site they name, in order."""
    found: dict[SiteName, list[Path]] = defaultdict(list)
    for path in paths:
        found[_site_of(path)].append(Path(path))
    return found


def site_row(
    site: Mapping[str, Any], facts: Sequence[Mapping[str, Any]], connections: pa.Table, metrics: pa.Table, cluster: str
) -> dict[str, Any]:
    """One row of the data set `sites`, from its configuration, its captures' facts, its connections, its metrics and its cluster's name."""
    times = {name: pc.min_max(connections[name].cast(pa.int64())).as_py() for name in ("first_seen", "last_seen")}
    loss = [
        row["value"]
        for row in metrics.to_pylist()
        if (row["metric"], row["group"], row["statistic"]) == ("capture_loss", "all", "ratio_of_sums")
    ]
    return {
        **{
            name: site[name]
            for name in ("experiment", "site", "condition", "window_start", "window_end", "timezone", "brokers", "clock_offset_ms")
        },
        "tap_configured": site["tap"],
        "tap_found": found_tap(connections["tap"].to_pylist()),
        "cluster": cluster,
        "captures": len(facts),
        "packets_kept": sum(fact["kept"] for fact in facts),
        "packets_skipped": sum(sum(fact["skipped"].values()) for fact in facts),
        "first_seen": times["first_seen"]["min"],
        "last_seen": times["last_seen"]["max"],
        "capture_loss": loss[0] if loss else None,
    }


def clusters_of_sites(sites: Sequence[Mapping[str, Any]], learned: Mapping[SiteName, Iterable[Path]]) -> dict[SiteName, str]:
    """The Kafka cluster of every site, by `kafka.site.cluster_names`; ``learned`` are the files that tell what Metadata answers said."""
    named: dict[SiteName, str] = {}
    for experiment in dict.fromkeys(site["experiment"] for site in sites):
        configured = [(site["site"], site["cluster"]) for site in sites if site["experiment"] == experiment]
        ids = cluster_ids({site: all_learned(map(pl.read_parquet, learned[experiment, site])) for site, _ in configured})
        named |= {(experiment, site): cluster for site, cluster in cluster_names(configured, ids, experiment).items()}
    return named


def cell(value: Any) -> str:
    """A value as a spreadsheet must read it: numbers in full, null empty, a text that would be taken for a formula behind an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return repr(value)


def write_csv(rows: Iterable[Sequence[Any]], path: str | Path) -> None:
    """All metrics of all sites, experiment and site first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["experiment", "site", *(column.name for column in tables.METRICS)])
        writer.writerows([cell(value) for value in row] for row in rows)


def leftovers(root: Path, sites: set[SiteName], parts: Mapping[SiteName, set[str]], working: Mapping[SiteName, set[str]]) -> Iterator[Path]:
    """Files and folders under ``root`` of experiments, sites, parts and captures that the configuration no longer has.

    ``parts`` are the names of the files that merge_site wrote per site, ``working`` those of the folders of its captures, and of their list. Only folders in
    the places and with the names that the workflow gives them are looked at.
    """
    experiments = {experiment for experiment, _ in sites}
    for folder in sorted([*root.glob("*/experiment=*"), *root.glob("intermediate/*/*"), *root.glob("excerpts/*")]):
        is_data_set = folder.name.startswith("experiment=")
        if not folder.is_dir() or not (is_data_set or folder.parent.name in WORKING_STAGES):
            continue
        experiment = folder.name.removeprefix("experiment=")
        if experiment not in experiments:
            yield folder
            continue
        for inner in sorted(folder.glob("site=*" if is_data_set else "*")):
            name = experiment, inner.name.removeprefix("site=")
            if inner.is_dir() and name not in sites:
                yield inner
            elif inner.is_dir() and folder.parent.name == "captures":
                yield from (capture for capture in sorted(inner.iterdir()) if capture.name not in working.get(name, ()))
            elif inner.is_dir():
                kept = {part.removeprefix("part-") for part in parts.get(name, ())}
                yield from (file for file in sorted(inner.glob("*-[0-9]*.parquet")) if file.name.rpartition("-")[2] not in kept)
                yield from sorted(inner.glob(".*-[0-9]*"))  # what a merge that was killed had put aside; none runs any more


def remove(path: Path) -> None:
    """Remove a file or folder; of a link the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def collect_sites(
    *,
    captures: Sequence[str | Path],
    metrics: Sequence[str | Path],
    connections: Sequence[str | Path],
    learned: Sequence[str | Path],
    sites: Sequence[Mapping[str, Any]],
    output_sites: str | Path,
    output_csv: str | Path,
) -> None:
    """Write `sites` and `metrics.csv`, and remove what an earlier configuration left in the data sets.

    ``captures`` are the lists of all sites' captures, ``metrics`` and ``connections`` the files of those data sets, ``learned`` what the merges learned
    of topics; ``sites`` has one mapping per experiment and site. The results folder is the one above that of ``output_sites``.
    """
    parts, measured = _by_site(connections), _by_site(metrics)
    listed = {_site_of(path): json.loads(Path(path).read_text(encoding="utf-8")) for path in captures}
    clusters = clusters_of_sites(sites, _by_site(learned))
    site_rows: list[dict[str, Any]] = []
    csv_rows: list[list[Any]] = []
    for site in sites:
        name = site["experiment"], site["site"]
        table = tables.read(measured[name], "metrics")
        seen = tables.read(parts[name], "connections", ["tap", "first_seen", "last_seen"])
        site_rows.append(site_row(site, list(listed[name].values()), seen, table, clusters[name]))
        csv_rows.extend([*name, *row.values()] for row in table.to_pylist())
    columns = {field.name: pa.array([row[field.name] for row in site_rows], field.type) for field in tables.schema("sites")}
    tables.write(pa.table(columns), output_sites, "sites", {"sites": [dict(site) for site in sites]})
    write_csv(csv_rows, output_csv)
    for path in leftovers(
        Path(output_sites).parent.parent,
        {(site["experiment"], site["site"]) for site in sites},
        {name: {path.name for path in paths} for name, paths in parts.items()},
        {_site_of(path): {Path(path).name, *listed[_site_of(path)]} for path in captures},
    ):
        log.info("removed, no longer in the configuration: %s", path)
        remove(path)


if __name__ == "__main__":
    with job.logged(snakemake):
        collect_sites(
            captures=snakemake.input.captures,
            metrics=snakemake.input.metrics,
            connections=snakemake.input.connections,
            learned=snakemake.input.learned,
            sites=snakemake.params.sites,
            output_sites=snakemake.output.sites,
            output_csv=snakemake.output.metrics_csv,
        )
