"""Records from producer to consumer: what any site of an experiment saw produced, joined with what any saw fetched."""

from brokerlens import job  # isort: skip  # first: limits threads before polars and numba start

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from brokerlens import tables
from brokerlens.kafka.batches import FETCHED, PRODUCED
from brokerlens.kafka.site import all_learned, cluster_ids, cluster_names
from brokerlens.routes.clocks import MS, estimated_clocks, known_clocks
from brokerlens.routes.deliveries import follow

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log = logging.getLogger("brokerlens")
ROWS_AT_ONCE = 1 << 20


def join_deliveries(
    *,
    produced: Sequence[str],
    fetched: Sequence[str],
    learned: Sequence[str],
    topics: str,
    experiment: str,
    sites: Sequence[Mapping[str, Any]],
    deliveries: str,
    paths: str | None = None,
) -> None:
    """Write the data set `deliveries` of one experiment.

    ``produced``, ``fetched`` and ``learned`` are the files `…/SITE/produced-NNNN.parquet`, `…/fetched-…` and `…/topics-…` that the merges of its sites left, ``topics`` and
    ``paths`` the data sets of these names; ``sites`` has ``site``, ``cluster`` and ``clock_offset_ms`` (None: not configured) of each.
    """
    told = {
        site["site"]: all_learned(pl.read_parquet(path) for path in learned if Path(path).parent.name == site["site"]) for site in sites
    }
    clusters = cluster_names([(site["site"], site["cluster"]) for site in sites], cluster_ids(told), experiment)
    names = _names(pl.read_parquet(topics, hive_partitioning=False))
    sent, got = _batches(produced, PRODUCED, clusters, names), _batches(fetched, FETCHED, clusters, names)
    both_ends = None if paths is None else pl.read_parquet(paths, hive_partitioning=False)
    estimates = {} if both_ends is None else estimated_clocks(both_ends, sites, _span_ms(sent, got))
    followed = follow(sent, got, known_clocks(sites, estimates), None if both_ends is None else _translated(both_ends))
    rows = followed.rows
    log.info(
        "%d deliveries; %d batches produced were not seen fetched, %d fetched not seen produced; %d control batches of transactions left out",
        *(int((rows["status"] == status).sum()) for status in tables.DELIVERY_REASONS),
        followed.control_batches,
    )
    slices = (rows.slice(begin, ROWS_AT_ONCE).to_arrow() for begin in range(0, max(rows.height, 1), ROWS_AT_ONCE))
    tables.write(slices, deliveries, "deliveries", {"sites": [dict(site) for site in sites]})


def _translated(both_ends: pl.DataFrame) -> pl.DataFrame:
    """Connections that have other addresses at their brokers' taps, as `routes.deliveries.TRANSLATED`; the first client's site where several captured one."""
    words = both_ends.filter("translated").select(
        pl.col(name).cast(pl.String).alias(new)
        for name, new in (("broker_site", "site"), ("broker_connection_id", "connection_id"), ("connection_id", "client_connection_id"))
    )
    return words.unique(["site", "connection_id"], keep="first", maintain_order=True)


def _span_ms(produced: pl.DataFrame, fetched: pl.DataFrame) -> float:
    """From the first to the last that was seen of any batch."""
    times = pl.concat([produced["request_first"], fetched["complete"]]).drop_nulls()
    return 0.0 if times.is_empty() else (int(times.max()) - int(times.min())) / MS  # type: ignore[arg-type]  # polars types min() of any column


def _names(topics: pl.DataFrame) -> pl.DataFrame:
    """Cluster, topic id and name, whichever site tells it; an answer before the configuration."""
    ordered = topics.sort(pl.col("source") != "metadata", "learned_at", "topic", nulls_last=True)
    return ordered.unique(["cluster", "topic_id"], keep="first", maintain_order=True).select(
        "cluster", "topic_id", pl.col("topic").alias("name")
    )


def _batches(paths: Sequence[str], columns: Mapping[str, pl.DataType], clusters: Mapping[str, str], names: pl.DataFrame) -> pl.DataFrame:
    """The batches of all sites, with site, cluster, topic id, and the topic's name where it is known."""
    word = pl.Categorical()
    parts = [
        pl.read_parquet(path, hive_partitioning=False).with_columns(
            pl.lit(site).cast(word).alias("site"), pl.lit(clusters[site]).cast(word).alias("cluster")
        )
        for path in paths
        for site in [Path(path).parent.name]
    ]
    table = pl.concat(parts)
    named = table.select("by_id", "cluster", "topic").unique()
    named = (
        named.with_columns(pl.col("cluster", "topic").cast(pl.String))
        .join(names, left_on=["cluster", "topic"], right_on=["cluster", "topic_id"], how="left")
        .select(
            named["by_id"],
            *(pl.col(name).cast(word) for name in ("cluster", "topic")),
            pl.when("by_id").then("topic").cast(word).alias("topic_id"),
            pl.when("by_id").then(pl.coalesce("name", "topic")).otherwise("topic").cast(word).alias("name"),
        )
    )
    found = table.join(named, on=["by_id", "cluster", "topic"], how="left", nulls_equal=True, maintain_order="left")
    return found.drop("topic").rename({"name": "topic"}).select("site", "cluster", "topic_id", *columns)


if __name__ == "__main__":
    with job.logged(snakemake):
        join_deliveries(
            produced=snakemake.input.produced,
            fetched=snakemake.input.fetched,
            learned=snakemake.input.learned,
            topics=snakemake.input.topics,
            paths=snakemake.input.paths,
            experiment=snakemake.wildcards.experiment,
            sites=snakemake.params.sites,
            deliveries=snakemake.output.deliveries,
        )
