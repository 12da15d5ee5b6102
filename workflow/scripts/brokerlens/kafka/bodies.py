"""What the frames' bodies say, from the log of their fields: one row per partition, per record batch, and per frame.

The log is in the order of the wire, so a partition belongs to the topic before it, and a batch to the partition before it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from brokerlens.kafka.layouts import FIELDS

if TYPE_CHECKING:
    from brokerlens.kafka.frames import Fields

METADATA: Final = 3
CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
WANTED: Final = (
    "acks",
    "batch_attributes",
    "batch_base_offset",
    "batch_base_sequence",
    "batch_count",
    "batch_last_offset_delta",
    "batch_magic",
    "batch_producer_epoch",
    "batch_producer_id",
    "batch_size",
    "cluster_id",
    "error_code",
    "fetch_offset",
    "forgotten_partition",
    "forgotten_topic",
    "forgotten_topic_id",
    "high_watermark",
    "max_wait_ms",
    "partition",
    "replica_id",
    "session_epoch",
    "session_id",
    "software_name",
    "software_version",
    "throttle_time_ms",
    "topic",
    "topic_id",
)
"""The fields of `layouts.FIELD_NAMES` that rows are made of."""
TOPIC: Final = (FIELDS["topic"], FIELDS["topic_id"])
FORGOTTEN: Final = (FIELDS["forgotten_topic"], FIELDS["forgotten_topic_id"])


def decode(pool: np.ndarray, start: np.ndarray, size: np.ndarray) -> pl.Series:
    """The texts at ``pool[start : start + size]`` as strings; null where size < 0; bytes that are no UTF-8 as ``\\xNN``."""
    spans = pl.DataFrame({"start": np.where(size < 0, -1, start), "size": size})
    distinct = spans.unique()
    raw = pool.tobytes()
    texts = [None if n < 0 else raw[at : at + n].decode("utf-8", "backslashreplace") for at, n in distinct.iter_rows()]
    named = distinct.with_columns(pl.Series("text", texts, dtype=pl.String))
    return spans.join(named, on=["start", "size"], how="left", maintain_order="left")["text"]


def topic_id(raw: bytes) -> str:
    """A topic id as Kafka prints it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def field_table(fields: Fields) -> pl.DataFrame:
    """The log of fields as a table ``frame, field, value, text``; topic ids in Kafka's spelling, all-zero ids null."""
    ids = np.isin(fields.field, (FIELDS["topic_id"], FIELDS["forgotten_topic_id"]))
    raw = fields.text.tobytes()
    spelled = {
        at: topic_id(raw[at : at + 16]) if raw[at : at + 16].strip(b"\0") else None for at in np.unique(fields.text_from[ids]).tolist()
    }
    table = pl.DataFrame({"frame": fields.frame, "field": fields.field, "value": fields.value, "at": fields.text_from})
    words = decode(fields.text, fields.text_from, np.where(ids, -1, fields.text_size))
    return table.with_columns(
        pl.when(pl.Series(ids))
        .then(pl.col("at").replace_strict(spelled, default=None, return_dtype=pl.String))
        .otherwise(words)
        .alias("text")
    ).drop("at")


def _field(fields: pl.DataFrame, *names: str) -> pl.DataFrame:
    """The log's rows of the named fields, in the order of the wire."""
    return fields.filter(pl.col("field").is_in([FIELDS[name] for name in names]))


def _value(name: str) -> pl.Expr:
    """In an aggregation the first value of a field."""
    return pl.col("value").filter(pl.col("field") == FIELDS[name]).first().alias(name.removeprefix("batch_"))


def _numbered(fields: pl.DataFrame) -> pl.DataFrame:
    """The log with the topic before each row (null: it was not captured, or is null) and the partition before it, numbered over all frames."""
    starts_topic, starts_partition = pl.col("field").is_in(TOPIC), pl.col("field") == FIELDS["partition"]
    # A topic that is null must not leave its partitions to the topic before it.
    named = pl.when(starts_topic).then(pl.col("text").fill_null(""))
    return fields.with_columns(
        named.forward_fill().replace("", None).alias("topic"), starts_partition.cum_sum().cast(pl.Int64).alias("number")
    )


def partitions(fields: pl.DataFrame) -> pl.DataFrame:
    """One row per partition that a Produce or Fetch body names: ``number`` (over all frames), frame, topic, partition, fetch_offset, high_watermark."""
    rows = _numbered(_field(fields, "topic", "topic_id", "partition", "fetch_offset", "high_watermark"))
    return (
        rows.filter(~pl.col("field").is_in(TOPIC))
        .group_by("number", maintain_order=True)
        .agg(pl.col("frame").first(), pl.col("topic").first(), *map(_value, ("partition", "fetch_offset", "high_watermark")))
    )


def forgotten_partitions(fields: pl.DataFrame) -> pl.DataFrame:
    """One row per partition that a Fetch request takes out of its session: frame, topic, partition."""
    rows = _field(fields, "forgotten_topic", "forgotten_topic_id", "forgotten_partition")
    return (
        rows.with_columns(pl.when(pl.col("field").is_in(FORGOTTEN)).then("text").forward_fill().alias("topic"))
        .filter(pl.col("field") == FIELDS["forgotten_partition"])
        .select("frame", "topic", pl.col("value").alias("partition"))
    )


def batches(fields: pl.DataFrame) -> pl.DataFrame:
    """One row per whole record batch or old message: frame, ``number`` of its partition, topic, partition and what its header says.

    Columns ``magic, base_offset, size, attributes, last_offset_delta, producer_id, producer_epoch, base_sequence, count``; an old message has
    magic 0 or 1 and nulls from last_offset_delta on, a batch of a producer without id nulls in the producer's three.
    """
    parts = ("magic", "base_offset", "size", "attributes", "last_offset_delta", "producer_id", "producer_epoch", "base_sequence", "count")
    names = [f"batch_{part}" for part in parts]
    rows = _numbered(_field(fields, "topic", "topic_id", "partition", *names))
    starts_batch = pl.col("field") == FIELDS["batch_magic"]
    partition = pl.when(pl.col("field") == FIELDS["partition"]).then("value").forward_fill()
    return (
        rows.with_columns(partition.alias("partition"), starts_batch.cum_sum().alias("batch"))
        .filter(pl.col("field").is_in([FIELDS[name] for name in names]))
        .group_by("batch", maintain_order=True)
        .agg(pl.col("frame", "number", "topic", "partition").first(), *map(_value, names))
        .drop("batch")
    )


def records(found: pl.DataFrame) -> pl.DataFrame:
    """Per frame the records, bytes and codec of its ``batches``.

    An old message is one record, but its compressed wrapper holds a number that only decompression tells: then null.
    """
    codec, is_message = pl.col("attributes") & 7, pl.col("magic") < 2
    uncounted = is_message.any() & ((codec.first() != 0) | (codec.n_unique() > 1))
    spelled = codec.first().replace_strict(dict(enumerate(CODECS)), default=None, return_dtype=pl.String)
    return found.group_by("frame", maintain_order=True).agg(
        pl.col("size").sum().alias("record_bytes"),
        pl.when(~uncounted).then(pl.col("count").sum() + is_message.sum().cast(pl.Int64)).alias("record_count"),
        pl.when(codec.n_unique() > 1).then(pl.lit("mixed")).otherwise(spelled).alias("codec"),
        *(pl.col(name).first() for name in ("producer_id", "producer_epoch", "base_sequence")),
    )


def per_frame(fields: pl.DataFrame) -> pl.DataFrame:
    """One row per frame whose body says any of this: acks, throttle_ms, max_wait_ms, error_code (the first that is not 0), replica_id,
    session_id, session_epoch, partitions (their number), topics (sorted names and ids).
    """
    firsts = {"acks": "acks", "throttle_time_ms": "throttle_ms", "max_wait_ms": "max_wait_ms"} | {
        name: name for name in ("replica_id", "session_id", "session_epoch")
    }
    errors = pl.col("value").filter(pl.col("field") == FIELDS["error_code"])
    texts = pl.col("text").filter(pl.col("field").is_in(TOPIC)).drop_nulls()
    named = _field(fields, "partition", "topic", "topic_id", "error_code", *firsts)
    return named.group_by("frame", maintain_order=True).agg(
        *(pl.col("value").filter(pl.col("field") == FIELDS[name]).first().alias(column) for name, column in firsts.items()),
        pl.when(errors.len() > 0).then(errors.filter(errors != 0).first().fill_null(0)).alias("error_code"),
        (pl.col("field") == FIELDS["partition"]).sum().cast(pl.Int64).alias("partitions"),
        texts.unique().sort().alias("topics"),
    )


def client_software(frames: pl.DataFrame, fields: pl.DataFrame) -> pl.DataFrame:
    """Per connection the first client software that an ApiVersions request names, as ``name version``."""
    words = (
        _field(fields, "software_name", "software_version")
        .group_by("frame", maintain_order=True)
        .agg(pl.col("text").str.join(" ").alias("client_software"))
        .filter(pl.col("client_software").str.len_bytes() > 1)
    )
    return (
        words.join(frames.select("frame", "connection"), on="frame", how="left")
        .sort("frame")
        .group_by("connection", maintain_order=True)
        .agg(pl.col("client_software").first())
    )


def learned_topics(frames: pl.DataFrame, fields: pl.DataFrame) -> pl.DataFrame:
    """What Metadata answers say: ``cluster_id, topic_id, topic, learned_at`` (ns), the earliest answer of each that differs.

    An answer without topics, or from before topics had ids, has a row with a null id where it names its cluster.
    """
    answers = frames.filter((pl.col("api_key") == METADATA) & (pl.col("side") == 1)).select(
        "frame", pl.col("first_time").alias("learned_at")
    )
    said = _field(fields, "topic", "topic_id", "cluster_id").join(answers, on="frame", how="inner", maintain_order="left")
    clusters = said.filter(pl.col("field") == FIELDS["cluster_id"]).select("frame", pl.col("text").alias("cluster_id"))
    topics = (
        said.with_columns(pl.when(pl.col("field") == FIELDS["topic"]).then("text").shift(1).over("frame").alias("topic"))
        .filter(pl.col("field") == FIELDS["topic_id"])
        .select("frame", pl.col("text").alias("topic_id"), "topic")
        .drop_nulls()
    )
    return (
        answers.join(clusters, on="frame", how="left")
        .join(topics, on="frame", how="left")
        .filter(pl.col("cluster_id").is_not_null() | pl.col("topic_id").is_not_null())
        .sort("learned_at", "topic_id", "topic", nulls_last=True)
        .unique(["cluster_id", "topic_id", "topic"], keep="first", maintain_order=True)
        .select("cluster_id", "topic_id", "topic", "learned_at")
    )
