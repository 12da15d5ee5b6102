"""Compare sites, experiments and the baseline: effect sizes with intervals, and a verdict where one can be had."""

from brokerlens import job  # isort: skip  # first: limits threads before polars and numba start

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from brokerlens import tables
from brokerlens.comparisons.pairs import pairs_of
from brokerlens.comparisons.rows import compare_pairs, table
from brokerlens.comparisons.sides import Side, read_side

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Paths = Sequence[str | Path]
_PARTITIONS = re.compile(r"experiment=([^/]+)/site=([^/]+)/[^/]+$")


def compare(
    *,
    sites: str | Path,
    requests: Paths,
    packets: Paths,
    connections: Paths,
    metrics: Paths,
    settings: Mapping[str, Any],
    output: str | Path,
) -> None:
    """Write the data set `comparisons`.

    ``sites`` is the data set of that name; its order is the order in which experiments and sites are compared. The others are the files of
    all sites; each belongs to the experiment and site that its path names. ``settings``: ``baseline`` (an experiment, a condition or None),
    ``margin`` (share of the reference within which two figures are equivalent) and ``share_over_ms``.
    """
    files = {
        name: _by_site(paths)
        for name, paths in (("requests", requests), ("packets", packets), ("connections", connections), ("metrics", metrics))
    }
    sides = [
        read_side(facts, **{name: found.get((facts["experiment"], facts["site"]), []) for name, found in files.items()})
        for facts in _facts(sites)
    ]
    rows = _compare(sides, settings)
    tables.write(table(rows), output, "comparisons", {"compare": dict(settings)})


def _compare(sides: Sequence[Side], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    pairs = pairs_of(sides, settings["baseline"])
    return compare_pairs(pairs, margin=float(settings["margin"]), share_over_ms=float(settings["share_over_ms"]))


def _facts(sites: str | Path) -> list[dict[str, Any]]:
    """The rows of the data set `sites`, times in ns."""
    frame = pl.from_arrow(tables.read([sites], "sites"))
    if not isinstance(frame, pl.DataFrame):
        raise TypeError("a table is no data frame")
    return frame.with_columns(pl.col(pl.Datetime).to_physical()).to_dicts()


def _by_site(paths: Paths) -> dict[tuple[str, str], list[str | Path]]:
    found: dict[tuple[str, str], list[str | Path]] = defaultdict(list)
    for path in paths:
        named = _PARTITIONS.search(Path(path).as_posix())
        if named is None:
            raise ValueError(f"{path}: expected a path with experiment=NAME/site=NAME/")
        found[named[1], named[2]].append(path)
    return found


if __name__ == "__main__":
    with job.logged(snakemake):
        compare(
            sites=snakemake.input.sites,
            requests=snakemake.input.requests,
            packets=snakemake.input.packets,
            connections=snakemake.input.connections,
            metrics=snakemake.input.metrics,
            settings=snakemake.params.compare,
            output=snakemake.output.comparisons,
        )
