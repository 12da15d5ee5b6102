"""Rows of record batches: one per batch that a Produce request carried, one per batch that a Fetch response carried, each with its request's times.

From these `routes.deliveries` joins what was produced with what was fetched. Where batches and their offsets stand: ``docs/deliveries.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from brokerlens.kafka.requests import FETCH, PRODUCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from brokerlens.kafka.bodies import Contents

CONTROL: Final = 1 << 5
"""Bit of a batch's attributes: a marker of a transaction's end, no records (KIP-98)."""
TOPIC_ID_VERSION: Final = 13
"""From this version on Produce and Fetch name topics by id."""
OF_REQUEST: Final = {
    "connection_id": pl.Categorical(),
    "client_id": pl.Categorical(),
    "correlation_id": pl.Int32(),
    "tap": pl.Categorical(),
    "request_first": pl.Int64(),
    "request_last": pl.Int64(),
    "response_first": pl.Int64(),
    "response_last": pl.Int64(),
    "way": pl.Int64(),
    "retransmitted": pl.Boolean(),
}
"""Of the request: times in ns (null where not seen); ``way``: half the round trip between tap and broker, ns, 0 at a broker's tap, null where not known."""
OF_BATCH: Final = {
    "by_id": pl.Boolean(),
    "topic": pl.Categorical(),
    "partition": pl.Int32(),
    "first_offset": pl.Int64(),
    "last_offset": pl.Int64(),
    "magic": pl.Int8(),
    "attributes": pl.Int16(),
    "record_count": pl.Int64(),
    "record_bytes": pl.Int64(),
    "base_timestamp": pl.Int64(),
    "producer_id": pl.Int64(),
    "producer_epoch": pl.Int16(),
    "base_sequence": pl.Int32(),
}
"""Of the batch; ``topic`` is an id where ``by_id``. Offsets are null where they cannot be told; of an old message without compression both are its own."""
PRODUCED: Final = OF_REQUEST | OF_BATCH | {"acks": pl.Int16(), "status": pl.Categorical(), "error_code": pl.Int16()}
FETCHED: Final = OF_REQUEST | OF_BATCH | {"complete": pl.Int64()}
"""``complete``: when the last byte of the batch, and of what stands before it in its response, was first seen (ns); else that of the response."""

Sights = Callable[["NDArray[Any]", "NDArray[Any]", "NDArray[Any]"], "NDArray[np.int64]"]
"""When the last of some bytes was seen: direction, begin and end (positions) of each to ns, -1 where none was (`tcp.stream.whole_since`)."""


def _records() -> pl.Expr:
    """How many offsets a batch takes; null of a compressed old message."""
    plain = (pl.col("attributes") & 7) == 0
    return pl.when(pl.col("magic") == 2).then(pl.col("last_offset_delta") + 1).when(plain).then(1)


def _batches(contents: Contents, frames: pl.Series) -> pl.DataFrame:
    """The batches of some frames with topic and partition."""
    batches = contents.batches.filter(pl.col("frame").is_in(frames.implode()) & (pl.col("number") >= 0))
    of_partition = contents.partitions.select("topic", "partition").select(pl.all().gather(pl.lit(batches["number"])))
    offsets = _records()
    return pl.concat([batches, of_partition], how="horizontal").with_columns(
        offsets.alias("offsets"),
        pl.when(pl.col("magic") == 2).then("count").otherwise(offsets).alias("record_count"),
        pl.col("size").alias("record_bytes"),
    )


def _requests(requests: pl.DataFrame, api: int) -> pl.DataFrame:
    """The requests of an api with the columns of `OF_REQUEST`."""
    way = pl.when(pl.col("tap") == "broker").then(0).when(pl.col("tap") == "client").then(pl.col("network") // 2)
    chosen = requests.filter(pl.col("api_key") == api)
    return chosen.with_columns(way.alias("way"), (pl.col("api_version") >= TOPIC_ID_VERSION).alias("by_id"))


def produced(contents: Contents, requests: pl.DataFrame) -> pl.DataFrame:
    """One row per batch of the Produce requests among ``requests`` (`requests.build_requests`), with the offsets that their responses gave it.

    Of several batches in one partition each begins where the one before ends.
    """
    sent = _requests(requests, PRODUCE).drop_nulls("frame").select(*OF_REQUEST, "frame", "response", "by_id", "acks", "status")
    answers = (
        contents.partitions.filter(pl.col("frame").is_in(sent["response"].drop_nulls().implode()))
        .select(pl.col("frame").alias("response"), "topic", "partition", "error_code", pl.col("base_offset").alias("given_offset"))
        .unique(["response", "topic", "partition"], keep="first", maintain_order=True)
    )
    before = (pl.col("offsets").cum_sum() - pl.col("offsets")).over("number")
    countable = (pl.col("offsets").is_null().cum_sum() == 0).over("number")
    accepted = (pl.col("error_code") == 0) & (pl.col("given_offset") >= 0) & countable
    first = pl.when(accepted).then(pl.col("given_offset") + before)
    return (
        _batches(contents, sent["frame"])
        .join(sent, on="frame", how="inner", maintain_order="left")
        .join(answers, on=["response", "topic", "partition"], how="left", maintain_order="left")
        .with_columns(first.alias("first_offset"))
        .with_columns((pl.col("first_offset") + pl.col("offsets") - 1).alias("last_offset"))
        .select(pl.col(name).cast(kind) for name, kind in PRODUCED.items())
    )


def fetched(contents: Contents, requests: pl.DataFrame, frames: pl.DataFrame, whole_at: Sights) -> pl.DataFrame:
    """One row per whole batch of the Fetch responses among ``requests`` to consumers; a batch that its response cuts off is none, and followers are no consumers.

    ``frames`` is `requests.frame_table`; ``whole_at`` tells when the tap had seen a stretch of the stream.
    """
    consumers = _requests(requests, FETCH).filter(pl.col("replica_id").fill_null(-1) < 0).drop_nulls("response")
    got = consumers.select(*OF_REQUEST, pl.col("response").cast(pl.Int64).alias("frame"), "by_id")
    batches = _batches(contents, got["frame"]).join(got, on="frame", how="inner", maintain_order="left")
    of_frame = frames.select("connection", "start").select(pl.all().gather(pl.lit(batches["frame"])))
    complete = whole_at(2 * of_frame["connection"].to_numpy() + 1, of_frame["start"].to_numpy(), batches["end"].to_numpy())
    last = pl.when(pl.col("magic") == 2).then(pl.col("base_offset") + pl.col("last_offset_delta")).otherwise("base_offset")
    first = pl.when(pl.col("offsets").is_not_null()).then("base_offset")
    return (
        batches.with_columns(first.alias("first_offset"), last.alias("last_offset"), pl.Series("complete", complete, pl.Int64))
        .with_columns(pl.when(pl.col("complete") >= 0).then("complete").otherwise("response_last").alias("complete"))
        .select(pl.col(name).cast(kind) for name, kind in FETCHED.items())
    )
