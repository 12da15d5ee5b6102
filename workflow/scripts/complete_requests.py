"""Complete the requests of one shard with what the other connections of its site tell."""

from brokerlens import job  # isort: skip  # first: limits threads before polars and numba start

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from brokerlens import tables
from brokerlens.kafka.site import complete, all_learned, topic_names

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def complete_requests(*, provisional: Sequence[str], topics: Sequence[str], part: int, topic_ids: Mapping[str, str], requests: str) -> None:
    """Write one part of the data set `requests`.

    ``provisional`` and ``topics`` are what the merge of each shard left, in order, ``part`` the number of the shard, ``topic_ids`` the configuration's names.
    """
    names = topic_names(all_learned(map(pl.read_parquet, topics)), topic_ids)
    rows = complete([pl.scan_parquet(path).with_columns(pl.col(pl.Categorical).cast(pl.String)) for path in provisional], part, names)
    tables.write(
        (some.to_arrow() for some in rows),
        requests,
        "requests",
        {**tables.read_provenance(provisional[part]), "topic_ids": dict(topic_ids)},
    )


if __name__ == "__main__":
    with job.logged(snakemake):
        complete_requests(
            provisional=list(snakemake.input.provisional),
            topics=list(snakemake.input.topics),
            part=int(snakemake.wildcards.part),
            topic_ids=snakemake.params.topic_ids,
            requests=snakemake.output.requests,
        )
