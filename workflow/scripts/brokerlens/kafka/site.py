"""What only all connections of a site tell about its requests: names of topic ids, topics of fetch sessions, batches that were sent again.

A client may learn a topic's name on one connection and fetch from it on another, go on with a fetch session after a reconnect, and send a batch again on a
new connection; the shards of a site's merge hold each connection alone. So the merge writes provisional rows, and these functions complete them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import polars as pl

from brokerlens.kafka.requests import BATCH, BODY_WHOLE

SESSION_ID: Final = ("broker_ip", "broker_port", "session")
SESSION: Final = (*SESSION_ID, "opening")
ORDER: Final = ("request_first", "connection_id", "correlation_id")
"""Which of two requests was sent first."""
ROWS_AT_ONCE: Final = 1 << 20
Provisional = Sequence[pl.LazyFrame]
"""The provisional rows of a site (`requests.to_arrow`), one per shard, in order."""


def all_learned(shards: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """What the Metadata answers of a site say (`bodies.learned_topics`), from all of its shards, the earliest first."""
    return pl.concat(shards).sort("learned_at", "cluster_id", "topic_id", "topic", nulls_last=True)


def topic_names(learned: pl.DataFrame, configured: Mapping[str, str]) -> dict[str, str]:
    """Topic id to name: what the site's Metadata answers say (the earliest counts), else the configuration's."""
    told = learned.drop_nulls("topic_id").unique("topic_id", keep="first", maintain_order=True)
    return dict(configured) | dict(zip(told["topic_id"], told["topic"], strict=True))


def session_topics(provisional: Provisional, part: int) -> pl.DataFrame:
    """The topics of every fetch in a session among the rows of one shard: its ``row``, ``topics_of_session`` (null where they are not known).

    A session begins with a full fetch (epoch 0); later ones name only the partitions that they add or change, and those they forget (KIP-227). They are known as long
    as every epoch since was captured with its whole body.
    """
    own = provisional[part].select(SESSION_ID).drop_nulls("session").unique()
    fetches = pl.concat(
        [
            shard.with_row_index("row")
            .filter(pl.col("session").is_not_null())
            .select("row", *SESSION_ID, "session_epoch", *ORDER, "request_body", "asked", "forgotten", part=pl.lit(number))
            .join(own, on=SESSION_ID, how="semi")
            for number, shard in enumerate(provisional)
        ]
    ).collect(engine="streaming")
    place, whole = pl.int_range(pl.len()).over(SESSION), pl.col("request_body") == BODY_WHOLE
    fetches = (
        fetches.sort(*SESSION_ID, *ORDER, "session_epoch", "part", "row")
        .with_columns((pl.col("session_epoch") == 0).cum_sum().over(SESSION_ID).alias("opening"))
        .with_columns(place.alias("place"))
        .with_columns(((pl.col("opening") > 0) & whole & (pl.col("session_epoch") == pl.col("place"))).alias("follows"))
        .with_columns((pl.col("follows").cast(pl.Int8).cum_min().over(SESSION) == 1).alias("known"))
    )
    states = _states(fetches.filter("known"))
    joined = fetches.join_asof(states, on="place", by=list(SESSION), strategy="backward", check_sortedness=False)
    return joined.filter(pl.col("part") == part).select(
        "row", pl.when("known").then(pl.col("topics_of_session").fill_null([])).alias("topics_of_session")
    )


def _states(fetches: pl.DataFrame) -> pl.DataFrame:
    """Per session the places from which on it holds other topics than before, and those topics."""
    changes = pl.concat(
        [
            fetches.select(*SESSION, "place", pl.col(name), step=pl.lit(step, pl.Int8)).explode(name).drop_nulls(name).unnest(name)
            for name, step in (("asked", 1), ("forgotten", -1))
        ]
    ).sort(*SESSION, "topic", "partition", "place", "step")
    held_before = pl.col("step").shift(1).over(*SESSION, "topic", "partition").fill_null(-1)
    of_topic = (
        changes.filter(pl.col("step") != held_before)  # a partition that is named again is not another one
        .group_by(*SESSION, "topic", "place")
        .agg(pl.col("step").cast(pl.Int64).sum())
        .sort(*SESSION, "topic", "place")
        .with_columns((pl.col("step").cum_sum().over(*SESSION, "topic") > 0).alias("holds"))
        .with_columns(pl.col("place").shift(-1).over(*SESSION, "topic").alias("until"))
        .filter("holds")
    )
    places = changes.select(*SESSION, "place").unique()
    held = (
        places.join(of_topic.select(*SESSION, "topic", "until", pl.col("place").alias("since")), on=SESSION)
        .filter((pl.col("since") <= pl.col("place")) & (pl.col("until").is_null() | (pl.col("place") < pl.col("until"))))
        .group_by(*SESSION, "place")
        .agg(pl.col("topic").unique().alias("topics_of_session"))
    )
    return places.join(held, on=[*SESSION, "place"], how="left").with_columns(pl.col("topics_of_session").fill_null([])).sort("place")


def sent_again(provisional: Provisional, own: pl.LazyFrame) -> pl.DataFrame:
    """Per ``row`` of ``own`` whose batches have a producer's id: how many of them an earlier request of the site carried.

    ``requests.BATCH`` says which batches are the same.
    """
    sent = own.select("row", *ORDER, "batches").explode("batches").drop_nulls("batches").unnest("batches").collect()
    wanted = sent.select(BATCH).unique()
    first = (
        pl.concat([shard.select(*ORDER, "batches") for shard in provisional])
        .explode("batches")
        .drop_nulls("batches")
        .unnest("batches")
        .join(wanted.lazy(), on=BATCH, how="semi", nulls_equal=True)
        .group_by(BATCH)
        .agg(pl.struct(ORDER).sort_by(ORDER).first().alias("first"))
        .collect(engine="streaming")
    )
    again = pl.struct(ORDER) != pl.col("first")
    return sent.join(first, on=BATCH, how="left", nulls_equal=True).group_by("row").agg(again.sum().cast(pl.Int64).alias("retried_batches"))


def complete(provisional: Provisional, part: int, names: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    """The rows of ``requests`` of one shard, the one numbered ``part``, so many at a time that a large shard does not fill the memory."""
    topics_of_sessions, again = session_topics(provisional, part), sent_again(provisional, provisional[part].with_row_index("row"))
    all_topics = pl.concat_list(pl.col("topics").fill_null([]), pl.col("topics_of_session").fill_null([])).list.drop_nulls()
    named = all_topics.list.eval(pl.element().replace(names)).list.unique().list.sort()
    session = (
        pl.when(pl.col("session").is_null())
        .then("fetch_session")
        .when(pl.col("topics_of_session").is_null())
        .then(pl.lit("unknown"))
        .when(pl.col("session_epoch") == 0)
        .then(pl.lit("opened"))
        .otherwise(pl.lit("continued"))
    )
    for begin in range(0, max(provisional[part].select(pl.len()).collect().item(), 1), ROWS_AT_ONCE):
        yield (
            provisional[part]
            .slice(begin, ROWS_AT_ONCE)  # before the rows are numbered: behind that, polars would read the whole shard for each slice
            .with_row_index("row", offset=begin)
            .collect()
            .join(topics_of_sessions, on="row", how="left", maintain_order="left")
            .join(again, on="row", how="left", maintain_order="left")
            .with_columns(session.alias("fetch_session"), pl.when(named.list.len() > 0).then(named).alias("topics"))
        )


def cluster_ids(learned: Mapping[str, pl.DataFrame]) -> dict[str, list[str]]:
    """Per site the cluster ids that its Metadata answers name, the earliest first."""
    return {site: rows["cluster_id"].drop_nulls().unique(maintain_order=True).to_list() for site, rows in learned.items()}


def cluster_names(sites: Sequence[tuple[str, str | None]], captured: Mapping[str, Sequence[str]], experiment: str) -> dict[str, str]:
    """The Kafka cluster of each site of an experiment.

    ``sites`` are name and configured cluster (None: not configured), ``captured`` the cluster ids of each site's Metadata answers, the earliest first. Sites without a configured
    name are one cluster, named as the experiment, unless their captured ids differ: then each has its first captured id for a name.
    """
    open_sites = [name for name, configured in sites if configured is None]
    several = len({cluster for name in open_sites for cluster in captured.get(name, ())}) > 1
    told = {name: captured[name][0] for name in open_sites if several and captured.get(name)}
    return {name: configured or told.get(name, experiment) for name, configured in sites}
