"""What needs several sites of an experiment: the names of topics, learned anywhere."""

from brokerlens import job  # isort: skip  # first: limits threads before polars and numba start

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from brokerlens import tables
from brokerlens.kafka.site import all_learned, cluster_ids, cluster_names

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def merge_experiment(*, learned: Sequence[str], experiment: str, sites: Sequence[Mapping[str, Any]], topics: str) -> None:
    """Write the data set `topics` of one experiment.

    ``learned`` are the files `…/SITE/topics-NNNN.parquet` that the merges of its sites left, ``sites`` has ``site``, ``cluster`` (None: not configured) and
    ``topic_ids`` of each.
    """
    told = {
        site["site"]: all_learned(pl.read_parquet(path) for path in learned if Path(path).parent.name == site["site"]) for site in sites
    }
    clusters = cluster_names([(site["site"], site["cluster"]) for site in sites], cluster_ids(told), experiment)
    rows = [_rows(site, clusters[site["site"]], told[site["site"]]) for site in sites]
    table = pl.concat(rows).sort("cluster", "topic_id", "topic", "site", "source")
    tables.write(table.to_arrow(), topics, "topics", {"sites": [dict(site) for site in sites]})


def _rows(site: Mapping[str, Any], cluster: str, told: pl.DataFrame) -> pl.DataFrame:
    """What one site's answers and its configuration say; the configuration only of ids that the answers do not name."""
    answers = told.drop_nulls("topic_id").unique(["topic_id", "topic"], keep="first", maintain_order=True)
    named = set(answers["topic_id"])
    configured = {known: topic for known, topic in site["topic_ids"].items() if known not in named}
    parts = (
        answers.select("topic_id", "topic", pl.col("learned_at").cast(pl.Datetime("ns", "UTC")), source=pl.lit("metadata")),
        pl.DataFrame(
            {"topic_id": list(configured), "topic": list(configured.values())}, schema={"topic_id": pl.String, "topic": pl.String}
        ).with_columns(learned_at=pl.lit(None, pl.Datetime("ns", "UTC")), source=pl.lit("configuration")),
    )
    return pl.concat(parts).with_columns(cluster=pl.lit(cluster), site=pl.lit(site["site"]))


if __name__ == "__main__":
    with job.logged(snakemake):
        merge_experiment(
            learned=snakemake.input.learned,
            experiment=snakemake.wildcards.experiment,
            sites=snakemake.params.sites,
            topics=snakemake.output.topics,
        )
