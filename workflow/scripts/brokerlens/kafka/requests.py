"""Rows of the data set `requests`: frames joined with the frames that answer them, what their bodies say, and the parts of the latency.

Formulas: ``docs/data-sets.md``; the order of answers on a connection (one request at a time, first in, first out) is the broker's
(`docs/protocol.html`, "Network" of Apache Kafka).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from brokerlens.kafka import layouts
from brokerlens.kafka.frames import Fields, Frames

PRODUCE: Final = 0
FETCH: Final = 1
METADATA: Final = 3
BODY_WHOLE: Final = 2
WAITING_APIS: Final = (1, 11, 14, 78)
"""Fetch, JoinGroup, SyncGroup, ShareFetch: the broker holds the answer back by design."""
CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
WANTED: Final = (
    "acks",
    "batch_attributes",
    "batch_count",
    "batch_magic",
    "batch_size",
    "error_code",
    "max_wait_ms",
    "partition",
    "software_name",
    "software_version",
    "throttle_time_ms",
    "topic",
    "topic_id",
)
"""The fields of `layouts.FIELD_NAMES` that rows are made of."""
ROUND_TRIP_AGE_NS: Final = 10_000_000_000
MS: Final = 1e6
CLOSED: Final = {"reset": "connection_reset", "fin": "connection_closed", "open": "capture_ended"}


@dataclass(frozen=True)
class Connections:
    """What requests need to know of each connection (arrays of one value per connection)."""

    connection_id: Sequence[str]
    client_ip: Sequence[str]
    client_port: np.ndarray
    broker_ip: Sequence[str]
    broker_port: np.ndarray
    ended: Sequence[str]
    tap: Sequence[str]
    """client, broker, middle or unknown: as configured, else as the data say."""
    client_left: np.ndarray
    """From when on the client's host refused what came (ns): nobody waited any more. -1 where it never did."""


@dataclass(frozen=True)
class RoundTrips:
    """Valid round trips, by connection and time: where each ended, its half (True: tap to broker) and its length in ns."""

    connection: np.ndarray
    time: np.ndarray
    to_broker: np.ndarray
    nanoseconds: np.ndarray


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


def _field(fields: pl.DataFrame, *names: str) -> pl.DataFrame:
    """The log's rows of the named fields, in the order of the wire."""
    return fields.filter(pl.col("field").is_in([layouts.FIELDS[name] for name in names]))


def _first(fields: pl.DataFrame, name: str, column: str) -> pl.DataFrame:
    """Per frame the first value of a field."""
    return _field(fields, name).group_by("frame", maintain_order=True).agg(pl.col("value").first().alias(column))


def learned_topics(frames: pl.DataFrame, fields: pl.DataFrame) -> dict[str, str]:
    """Topic id to name, from the site's Metadata responses; the earliest answer wins."""
    answers = frames.filter((pl.col("api_key") == METADATA) & (pl.col("side") == 1)).select("frame", "first_time")
    pairs = (
        _field(fields, "topic", "topic_id")
        .join(answers, on="frame", how="inner", maintain_order="left")
        .with_columns(pl.col("text").shift(1).over("frame").alias("name"), pl.col("field").shift(1).over("frame").alias("before"))
        .filter((pl.col("field") == layouts.FIELDS["topic_id"]) & (pl.col("before") == layouts.FIELDS["topic"]))
        .drop_nulls(["name", "text"])
        .sort("first_time", maintain_order=True)
        .unique("text", keep="first", maintain_order=True)
    )
    return dict(zip(pairs["text"], pairs["name"], strict=True))


def _topics(fields: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    """Per frame the topics that it names, sorted; an id whose name is not known stands for itself."""
    return (
        _field(fields, "topic", "topic_id")
        .with_columns(pl.col("text").replace(names))
        .drop_nulls("text")
        .group_by("frame")
        .agg(pl.col("text").unique().sort().alias("topics"))
    )


def _batches(fields: pl.DataFrame) -> pl.DataFrame:
    """Per frame the records, bytes and codec of its whole record batches.

    An old message (magic 0 or 1) is one record, but its compressed wrapper holds a number that only decompression tells: then null.
    """
    sizes = _field(fields, "batch_size").group_by("frame").agg(pl.col("value").sum().alias("record_bytes"))
    counts = _field(fields, "batch_count").group_by("frame").agg(pl.col("value").sum().alias("counted"))
    codecs = (pl.col("value") & 7).filter(pl.col("field") == layouts.FIELDS["batch_attributes"])
    messages = (pl.col("value") < 2) & (pl.col("field") == layouts.FIELDS["batch_magic"])
    kinds = (
        _field(fields, "batch_magic", "batch_attributes")
        .group_by("frame")
        .agg(messages.sum().cast(pl.Int64).alias("messages"), codecs.n_unique().alias("different"), codecs.first().alias("codec"))
    )
    uncounted = (pl.col("messages") > 0) & ((pl.col("codec") != 0) | (pl.col("different") > 1))
    spelled = pl.col("codec").replace_strict(dict(enumerate(CODECS)), default=None, return_dtype=pl.String)
    return (
        sizes.join(counts, on="frame", how="left")
        .join(kinds, on="frame", how="left")
        .select(
            "frame",
            "record_bytes",
            pl.when(~uncounted).then(pl.col("counted").fill_null(0) + pl.col("messages")).alias("record_count"),
            pl.when(pl.col("different") > 1).then(pl.lit("mixed")).otherwise(spelled).alias("codec"),
        )
    )


def _bodies(fields: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    """Per frame what its body says; nulls where it says nothing of the kind."""
    errors = (
        _field(fields, "error_code")
        .group_by("frame", maintain_order=True)
        .agg(pl.col("value").filter(pl.col("value") != 0).first().fill_null(0).alias("error_code"))
    )
    partitions = _field(fields, "partition").group_by("frame").agg(pl.len().cast(pl.Int64).alias("partitions"))
    table = pl.DataFrame({"frame": fields["frame"].unique().sort()})
    for part in (
        _first(fields, "acks", "acks"),
        _first(fields, "throttle_time_ms", "throttle_ms"),
        _first(fields, "max_wait_ms", "max_wait_ms"),
        errors,
        partitions,
        _topics(fields, names),
        _batches(fields),
    ):
        table = table.join(part, on="frame", how="left")
    return table


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


def frame_table(frames: Frames, fields: Fields) -> pl.DataFrame:
    """The frames as a table, numbered, client ids decoded; times, partners, apis and versions null where unknown."""
    table = pl.DataFrame({name: getattr(frames, name) for name in frames._fields if name not in ("client_from", "client_size")})
    return table.with_columns(
        pl.int_range(pl.len()).alias("frame"),
        decode(fields.text, frames.client_from, frames.client_size).alias("client_id"),
        *(pl.when(pl.col(name) >= 0).then(name).alias(name) for name in ("first_time", "last_time", "partner", "api_key", "api_version")),
    )


def field_table(fields: Fields) -> pl.DataFrame:
    """The log of fields as a table; topic ids in Kafka's spelling, all-zero ids null."""
    ids = fields.field == layouts.FIELDS["topic_id"]
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


def _pair(frames: pl.DataFrame) -> pl.DataFrame:
    """One row per request, or response whose request was not captured: both frames side by side.

    ``before_last`` is when the connection's previous response was complete.
    """
    responses = (
        frames.filter(pl.col("side") == 1)
        .with_columns(
            pl.col("last_time").shift(1).over("connection", order_by="frame").alias("before_last"),
            (pl.int_range(pl.len()).over("connection", order_by="frame") == 0).alias("is_first"),
        )
        .select(
            "connection",
            "correlation_id",
            pl.col("partner").alias("frame"),
            pl.col("frame").alias("response"),
            pl.col("first_time").alias("response_first"),
            pl.col("last_time").alias("response_last"),
            pl.col("size").alias("response_bytes"),
            pl.col("body").alias("response_body"),
            pl.col("retransmitted").alias("response_again"),
            "before_last",
            "is_first",
        )
    )
    requests = frames.filter(pl.col("side") == 0).select(
        "frame",
        "connection",
        "correlation_id",
        "api_key",
        "api_version",
        "client_id",
        pl.col("first_time").alias("request_first"),
        pl.col("last_time").alias("request_last"),
        pl.col("size").alias("request_bytes"),
        pl.col("body").alias("request_body"),
        pl.col("retransmitted").alias("request_again"),
    )
    answered = requests.join(responses.drop("connection", "correlation_id"), on="frame", how="left")
    alone = responses.filter(pl.col("frame").is_null())
    return pl.concat([answered, alone], how="diagonal")


def _status(rows: pl.DataFrame, connections: Connections) -> pl.DataFrame:
    """Status and its reason; order of answers tells which requests can no longer be answered."""
    closed = pl.Series([CLOSED[end] for end in connections.ended], dtype=pl.String)
    left = pl.Series(connections.client_left).gather(rows["connection"])
    refused = (pl.lit(left) >= 0) & (pl.col("response_first") > pl.lit(left))
    last_answered = pl.col("frame").filter(pl.col("response").is_not_null()).max().over("connection")
    first_request = pl.col("request_first").min().over("connection")
    passed_over = (pl.col("frame") < last_answered).fill_null(False)
    silent_produce = (pl.col("api_key") == PRODUCE) & pl.col("acks").is_null() & passed_over
    swapped = pl.col("response_first") < pl.col("request_last")
    asked, came = pl.col("frame").is_not_null(), pl.col("response").is_not_null()
    answered = came & ~refused.fill_null(False)
    return rows.with_columns(
        pl.when(~asked)
        .then(pl.lit("request_not_captured"))
        .when(answered)
        .then(pl.lit("answered"))
        .when((pl.col("acks") == 0) | silent_produce)
        .then(pl.lit("no_response_expected"))
        .otherwise(pl.lit("unanswered"))
        .alias("status"),
        pl.when(~asked & (pl.col("response_first") <= first_request).fill_null(True))
        .then(pl.lit("sent_before_capture"))
        .when(~asked)
        .then(pl.lit("request_lost"))
        .when(answered & swapped)
        .then(pl.lit("capture_order"))
        .when(answered)
        .then(pl.lit(None, dtype=pl.String))
        .when(pl.col("acks") == 0)
        .then(pl.lit("acks_0"))
        .when(silent_produce)
        .then(pl.lit("later_request_answered"))
        .when(came)
        .then(pl.lit("client_had_closed"))
        .when(passed_over)
        .then(pl.lit("response_lost"))
        .otherwise(closed.gather(rows["connection"]))
        .alias("status_reason"),
    )


def _latency(rows: pl.DataFrame, connections: Connections, round_trips: RoundTrips) -> pl.DataFrame:
    """Latency and its parts in ms (columns of ``tables.REQUESTS``); null where a time, the order or the tap does not allow it."""
    tap = pl.Series(list(connections.tap), dtype=pl.String).gather(rows["connection"])
    trips = pl.DataFrame(
        {
            "connection": round_trips.connection,
            "ended": round_trips.time,
            "half": np.where(round_trips.to_broker, "client", "broker"),
            "rtt": round_trips.nanoseconds,
        }
    ).sort("ended")
    measured = (
        rows.with_row_index("row").with_columns(tap.alias("tap")).drop_nulls(["response_first", "request_last"]).sort("response_first")
    )
    joined = measured.select("row", "connection", "tap", "response_first").join_asof(
        trips,
        left_on="response_first",
        right_on="ended",
        by_left=["connection", "tap"],
        by_right=["connection", "half"],
        strategy="backward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    fresh = pl.col("response_first") - pl.col("ended") <= ROUND_TRIP_AGE_NS
    network = joined.select("row", pl.when(fresh).then(pl.col("rtt")).alias("network"))
    in_order = (pl.col("status") == "answered") & pl.col("status_reason").ne_missing("capture_order")
    usable = in_order & (pl.col("response_first") >= pl.col("request_last"))
    latency = pl.when(usable).then(pl.col("response_first") - pl.col("request_last"))
    queue = pl.when(pl.col("is_first")).then(0).otherwise((pl.col("before_last") - pl.col("request_last")).clip(lower_bound=0))
    rest = pl.col("latency") - pl.col("network")
    # Waiting for a retransmission is the network's, and no round trip tells how long it was.
    again = pl.col("request_again").fill_null(False) | pl.col("response_again").fill_null(False)
    return (
        rows.with_row_index("row")
        .with_columns(tap.alias("tap"), latency.alias("latency"))
        .join(network, on="row", how="left", maintain_order="left")
        .with_columns(pl.min_horizontal(queue, "latency").alias("queue"))
        .with_columns(pl.when(pl.col("latency").is_not_null()).then(pl.col("queue")).alias("queue"))
        .with_columns((pl.col("latency") - pl.col("queue")).alias("service"))
        .with_columns(
            pl.when(pl.col("tap") == "broker")
            .then(pl.col("service"))
            .when((pl.col("tap") == "client") & (rest >= 0) & ~again)
            .then(pl.min_horizontal("service", rest))
            .alias("broker")
        )
        .with_columns(
            *(
                (pl.col(name) / MS).alias(f"{column}_ms")
                for name, column in (("latency", "latency"), ("queue", "queue"), ("service", "service"))
            ),
            pl.when(pl.col("latency").is_not_null()).then(pl.col("network") / MS).alias("network_rtt_ms"),
            pl.when(pl.col("service").is_not_null()).then(pl.col("broker") / MS).alias("broker_ms"),
            pl.when(in_order).then((pl.col("response_last") - pl.col("request_first")) / MS).alias("total_ms"),
        )
    )


def build_requests(
    frames: pl.DataFrame, fields: pl.DataFrame, connections: Connections, round_trips: RoundTrips, topic_names: Mapping[str, str]
) -> pl.DataFrame:
    """The rows of ``requests`` with two columns more, ``frame`` and ``response``: the numbers of their frames.

    ``frames`` is `frame_table` with a column ``retransmitted``; ``fields`` is `field_table`; ``topic_names`` come from the configuration and
    stand back behind what the captures tell. Rows are ordered by the time of their first byte, then connection and frame.
    """
    bodies = _bodies(fields, dict(topic_names) | learned_topics(frames, fields))
    asked = bodies.select("frame", "acks", "max_wait_ms", pl.col("topics").alias("asked_topics"))
    said = bodies.select(pl.col("frame").alias("response"), "error_code", "throttle_ms", pl.col("topics").alias("said_topics"))
    records = bodies.select(pl.col("frame").alias("carrier"), "partitions", "record_count", "record_bytes", "codec")
    carrier = pl.when(pl.col("api_key") == PRODUCE).then("frame").when(pl.col("api_key") == FETCH).then("response")
    body = pl.when(pl.col("api_key") == PRODUCE).then("request_body").otherwise("response_body")
    whole, none = pl.col("whole") & pl.col("carrier").is_not_null(), pl.col("record_bytes").is_null()
    rows = (
        _pair(frames)
        .with_columns(carrier.alias("carrier"), (body == BODY_WHOLE).fill_null(False).alias("whole"))
        .join(asked, on="frame", how="left", maintain_order="left")
        .join(said, on="response", how="left", maintain_order="left")
        .join(records, on="carrier", how="left", maintain_order="left")
        .join(client_software(frames, fields), on="connection", how="left", maintain_order="left")
        .with_columns(
            pl.when(whole).then(pl.when(none).then(0).otherwise("record_count")).alias("record_count"),
            *(pl.when(whole).then(pl.col(name).fill_null(0)).alias(name) for name in ("record_bytes", "partitions")),
            pl.when(whole).then("codec").alias("codec"),
            pl.concat_list(pl.col("asked_topics").fill_null([]), pl.col("said_topics").fill_null([]))
            .list.unique()
            .list.sort()
            .alias("topics"),
        )
        .with_columns(pl.when(pl.col("topics").list.len() > 0).then("topics").alias("topics"))
    )
    rows = _latency(_status(rows, connections), connections, round_trips)
    of_connection = {
        "connection_id": pl.Series(list(connections.connection_id), dtype=pl.String),
        "client_ip": pl.Series(list(connections.client_ip), dtype=pl.String),
        "client_port": pl.Series(connections.client_port),
        "broker_ip": pl.Series(list(connections.broker_ip), dtype=pl.String),
        "broker_port": pl.Series(connections.broker_port),
    }
    names_of_apis = {key: layouts.api_name(key) for key in rows["api_key"].drop_nulls().unique()}
    api_names = pl.col("api_key").replace_strict(names_of_apis, default=None, return_dtype=pl.String)
    return rows.with_columns(
        *(values.gather(rows["connection"]).alias(name) for name, values in of_connection.items()),
        api_names.alias("api_name"),
        pl.col("api_key").is_in(WAITING_APIS).fill_null(False).alias("waits_by_design"),
        (pl.col("request_again").fill_null(False) | pl.col("response_again").fill_null(False)).alias("retransmitted"),
    ).sort(pl.min_horizontal("request_first", "response_first"), "connection", pl.coalesce("frame", "response"), nulls_last=True)


def to_arrow(rows: pl.DataFrame) -> pa.Table:
    """The rows as an Arrow table that `tables.conform` takes."""
    times = [pl.col(name).cast(pl.Datetime("ns", "UTC")) for name in ("request_first", "request_last", "response_first", "response_last")]
    return rows.with_columns(times).to_arrow()
