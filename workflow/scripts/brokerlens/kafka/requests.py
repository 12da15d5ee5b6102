"""Rows of the data set `requests`: frames joined with the frames that answer them, what their bodies say, and the parts of the latency.

Formulas: ``docs/data-sets.md``; the order of answers on a connection (one request at a time, first in, first out) is the broker's
(`docs/protocol.html`, "Network" of Apache Kafka).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
import pyarrow as pa

from brokerlens import tables
from brokerlens.kafka import bodies, layouts
from brokerlens.kafka.bodies import decode, known, lists, readable
from brokerlens.pseudonyms import AS_THEY_ARE, Pseudonyms

if TYPE_CHECKING:
    from brokerlens.kafka.bodies import Contents
    from brokerlens.kafka.frames import Fields, Frames

PRODUCE: Final = 0
FETCH: Final = 1
BODY_WHOLE: Final = 2
WAITING_APIS: Final = (1, 11, 14, 78)
"""Fetch, JoinGroup, SyncGroup, ShareFetch: the broker holds the answer back by design."""
HELPERS: Final = ("session", "session_epoch", "request_body", "asked", "forgotten", "batches")
"""Columns of provisional rows beside those of the data set."""
BATCH: Final = ("producer_id", "producer_epoch", "topic", "partition", "base_sequence")
"""What makes a record batch the same one when it is sent again (KIP-98)."""
ROUND_TRIP_AGE_NS: Final = 10_000_000_000
MS: Final = 1e-6
"""Of a nanosecond, to multiply with: polars divides one row otherwise than several, so that a last bit would depend on the number of shards."""
OF_FRAMES: Final = {
    "first_time": "first",
    "last_time": "last",
    "size": "bytes",
    "captured": "captured_bytes",
    "body": "body",
    "retransmitted": "again",
}
"""What a row has of both of its frames, with the prefix `request_` or `response_`."""
BEGAN: Final = pl.min_horizontal("request_first", "response_first")
"""When a row's first byte was seen."""
HALVES: Final = {"client": True, "broker": False}
"""By tap the half of the round trips that crosses the network."""
UNREAD: Final = "unread"
CLOSED: Final = {"reset": "connection_reset", "fin": "connection_closed", "open": "capture_ended", UNREAD: "response_not_decrypted"}


@dataclass(frozen=True)
class Connections:
    """What requests need to know of each connection (arrays of one value per connection)."""

    connection_id: Sequence[str]
    client_ip: Sequence[str]
    client_port: np.ndarray
    broker_ip: Sequence[str]
    broker_port: np.ndarray
    ended: Sequence[str]
    """As in the data set, or `UNREAD`."""
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


def frame_table(frames: Frames, fields: Fields, hide: Pseudonyms = AS_THEY_ARE) -> pl.DataFrame:
    """The frames as a table, numbered, client ids decoded, as ``hide`` shows them; times, partners, apis and versions null where unknown."""
    table = pl.DataFrame({name: getattr(frames, name) for name in frames._fields if name not in ("client_from", "client_size")})
    return table.with_columns(
        pl.int_range(pl.len()).alias("frame"),
        decode(fields.text, frames.client_from, frames.client_size, lambda raw: hide.name("client", readable(raw))).alias("client_id"),
        *(pl.when(pl.col(name) >= 0).then(name).alias(name) for name in ("first_time", "last_time", "partner", "api_key", "api_version")),
    )


def _before(responses: np.ndarray, connection: np.ndarray, last_time: pl.Series, frames: int) -> tuple[pl.Series, pl.Series]:
    """Per frame when its connection's previous response was complete, and whether it is the first one; null for requests."""
    is_first = np.append(True, np.diff(connection[responses]) != 0)[: len(responses)]
    previous = np.full(frames, -1)
    previous[responses[1:]] = np.where(is_first[1:], -1, responses[:-1])
    first = np.full(frames, -1)
    first[responses] = is_first
    return last_time.gather(known(previous)), known(first).cast(pl.Boolean)


def _pair(frames: pl.DataFrame) -> pl.DataFrame:
    """One row per request, or response whose request was not captured: both frames side by side.

    ``before_last`` is when the connection's previous response was complete.
    """
    side, connection = (frames[name].to_numpy() for name in ("side", "connection"))
    partner = frames["partner"].fill_null(-1).to_numpy()
    requests, responses = np.flatnonzero(side == 0), np.flatnonzero(side == 1)
    alone = responses[partner[responses] < 0]
    frame = known(np.concatenate([requests, np.full(len(alone), -1)])).alias("frame")
    response = known(np.concatenate([partner[requests], alone])).alias("response")
    before_last, is_first = _before(responses, connection, frames["last_time"], len(side))
    asked = frames.select(
        "api_key",
        "api_version",
        "client_id",
        *(pl.col(name).alias(f"request_{column}") for name, column in OF_FRAMES.items()),
    )
    answered = frames.select(
        *(pl.col(name).alias(f"response_{column}") for name, column in OF_FRAMES.items()),
        before_last.alias("before_last"),
        is_first.alias("is_first"),
    )
    either = frames.select(pl.col("connection", "correlation_id").gather(pl.lit(frame.fill_null(response))))
    return pl.concat(
        [
            pl.DataFrame([frame, response]),
            either,
            *(table.select(pl.all().gather(pl.lit(place))) for table, place in ((asked, frame), (answered, response))),
        ],
        how="horizontal",
    )


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
    tap = pl.Series("tap", list(connections.tap), dtype=pl.String).gather(rows["connection"])
    half = pl.Series("half", [HALVES.get(tap) for tap in connections.tap], dtype=pl.Boolean).gather(rows["connection"])
    trips = pl.DataFrame(
        {"connection": round_trips.connection, "ended": round_trips.time, "half": round_trips.to_broker, "rtt": round_trips.nanoseconds}
    ).sort("ended")
    measured = pl.DataFrame([half, *rows.select("connection", "response_first", "request_last")]).with_row_index("row")
    joined = (
        measured.drop_nulls()
        .sort("response_first")
        .join_asof(
            trips,
            left_on="response_first",
            right_on="ended",
            by=["connection", "half"],
            strategy="backward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .filter(pl.col("response_first") - pl.col("ended") <= ROUND_TRIP_AGE_NS)
    )
    network = np.full(rows.height, -1)
    network[joined["row"]] = joined["rtt"]
    in_order = (pl.col("status") == "answered") & pl.col("status_reason").ne_missing("capture_order")
    usable = in_order & (pl.col("response_first") >= pl.col("request_last"))
    latency = pl.when(usable).then(pl.col("response_first") - pl.col("request_last"))
    queue = pl.when(pl.col("is_first")).then(0).otherwise((pl.col("before_last") - pl.col("request_last")).clip(lower_bound=0))
    rest = pl.col("latency") - pl.col("network")
    # Waiting for a retransmission is the network's, and no round trip tells how long it was.
    again = pl.col("request_again").fill_null(False) | pl.col("response_again").fill_null(False)
    return (
        rows.with_columns(tap, known(network).alias("network"), latency.alias("latency"))
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
                (pl.col(name) * MS).alias(f"{column}_ms")
                for name, column in (("latency", "latency"), ("queue", "queue"), ("service", "service"))
            ),
            pl.when(pl.col("latency").is_not_null()).then(pl.col("network") * MS).alias("network_rtt_ms"),
            pl.when(pl.col("service").is_not_null()).then(pl.col("broker") * MS).alias("broker_ms"),
            pl.when(in_order).then((pl.col("response_last") - pl.col("request_first")) * MS).alias("total_ms"),
        )
    )


def _lag(frames: pl.DataFrame, contents: Contents) -> pl.DataFrame:
    """Per Fetch response how many records its consumer is behind, at the partition where that is most (as Java's `records-lag-max`).

    Behind is high watermark − next offset: that behind the last whole batch, without one the offset asked for; partitions of which neither is known
    do not count. Of an answer that was not captured as a whole the last batch may be missing.
    """
    of_frame = frames.select("side", "partner", "api_key").select(pl.all().gather(contents.partitions["frame"]))
    named = pl.concat([contents.partitions, of_frame], how="horizontal").with_row_index("number").filter(pl.col("api_key") == FETCH)
    last = pl.col("base_offset") + pl.col("last_offset_delta").fill_null(0)
    fetched = contents.batches.group_by(pl.col("number").cast(pl.UInt32)).agg((last.max() + 1).alias("next_offset"))
    said = named.filter((pl.col("side") == 1) & (pl.col("high_watermark") >= 0)).join(fetched, on="number", how="left")
    asked = named.filter(pl.col("side") == 0).select(
        pl.col("frame").alias("partner"), "topic", "partition", pl.col("fetch_offset").alias("next_offset")
    )
    in_vain = said.filter(pl.col("next_offset").is_null()).drop("next_offset")
    key = ["partner", "topic", "partition"]
    asked = asked.join(in_vain, on="partner", how="semi").unique(key, keep="last", maintain_order=True)
    in_vain = in_vain.join(asked, on=key, how="left").select(said.columns)
    behind = (pl.col("high_watermark") - pl.col("next_offset")).clip(lower_bound=0)
    return (
        pl.concat([said.drop_nulls("next_offset"), in_vain])
        .group_by(pl.col("frame").alias("response"))
        .agg(behind.max().alias("lag_records"))
    )


def _beside(rows: pl.DataFrame, key: str, table: pl.DataFrame) -> pl.DataFrame:
    """The columns of a table for each of the rows, by a key."""
    return rows.select(key).join(table, on=key, how="left", maintain_order="left").drop(key)


def _sessions(rows: pl.DataFrame) -> pl.DataFrame:
    """``session`` and ``session_epoch`` of the fetches that open (epoch 0) or continue a fetch session (KIP-227), else null.

    A session's id is in the answer that opens it, and in the requests that continue it.
    """
    opens = (pl.col("session_epoch") == 0) & (pl.col("said_session") > 0)
    continues = pl.col("session_epoch") > 0
    session = pl.when(opens).then("said_session").when(continues).then("session_id")
    in_session = session.is_not_null()
    return rows.with_columns(
        session.alias("session"),
        pl.when(in_session).then("session_epoch").alias("session_epoch"),
        pl.when(in_session).then("asked").alias("asked"),
        pl.when(in_session).then("forgotten").alias("forgotten"),
        pl.when(session.is_null() & (pl.col("api_key") == FETCH) & (pl.col("request_body") == BODY_WHOLE))
        .then(pl.lit("none"))
        .alias("fetch_session"),
    )


def _contents(rows: pl.DataFrame, frames: pl.DataFrame, contents: Contents) -> pl.DataFrame:
    """The rows with what their bodies say; numbers of records and partitions are 0 where a whole body has none, null where it is not whole."""
    row_of_request, row_of_frame = np.full(frames.height, -1), np.full(frames.height, -1)
    for name, found in (("frame", row_of_request), ("frame", row_of_frame), ("response", row_of_frame)):
        present = np.flatnonzero(rows[name].is_not_null())
        found[rows[name].gather(present)] = present
    is_produce = pl.col("api_key") == PRODUCE
    carrier = pl.when(is_produce).then("frame").when(pl.col("api_key") == FETCH).then("response").alias("carrier")
    body = pl.when(is_produce).then("request_body").otherwise("response_body")
    rows = rows.with_columns(carrier, (body == BODY_WHOLE).fill_null(value=False).alias("whole"))

    def said_by(side: str, *columns: str | pl.Expr) -> pl.DataFrame:
        return contents.frames.select(columns).select(pl.all().gather(pl.lit(rows[side])))

    def listed(table: pl.DataFrame, name: str, *columns: str) -> pl.Series:
        owner = row_of_request[table["frame"]]
        return lists(table.select(columns).filter(owner >= 0), owner[owner >= 0], rows.height).alias(name)

    in_sessions = contents.partitions.filter(
        (contents.frames["session_epoch"].gather(contents.partitions["frame"]) >= 0).fill_null(value=False)
    )
    numbered = contents.batches.drop_nulls("producer_id")
    of_partition = contents.partitions.select("topic", "partition").select(pl.all().gather(pl.lit(numbered["number"])))
    beside = [
        said_by("frame", "acks", "max_wait_ms", "replica_id", "session_id", "session_epoch"),
        said_by("response", "error_code", "throttle_ms", pl.col("session_id").alias("said_session")),
        said_by("carrier", "partitions"),
        _beside(rows, "carrier", bodies.records(contents.batches).rename({"frame": "carrier"})),
        _beside(rows, "response", _lag(frames, contents)),
        _beside(rows, "connection", bodies.client_software(frames, contents)),
        pl.DataFrame(
            [
                contents.topics(row_of_frame, rows.height).alias("topics"),
                listed(in_sessions, "asked", "topic", "partition"),
                listed(bodies.forgotten_partitions(contents), "forgotten", "topic", "partition"),
                listed(pl.concat([numbered, of_partition], how="horizontal"), "batches", *BATCH),
            ]
        ),
    ]
    whole, empty = pl.col("whole") & pl.col("carrier").is_not_null(), pl.col("record_bytes").is_null()
    return _sessions(
        pl.concat([rows, *beside], how="horizontal").with_columns(
            pl.when(whole).then(pl.when(empty).then(0).otherwise("record_count")).alias("record_count"),
            *(pl.when(whole).then(pl.col(name).fill_null(0)).alias(name) for name in ("record_bytes", "partitions")),
            pl.when(whole).then("codec").alias("codec"),
            pl.when(pl.col("response_body") == BODY_WHOLE).then("lag_records").alias("lag_records"),
            *(pl.when(is_produce).then(name).alias(name) for name in ("producer_id", "producer_epoch", "base_sequence")),
        )
    )


def build_requests(frames: pl.DataFrame, contents: Contents, connections: Connections, round_trips: RoundTrips) -> pl.DataFrame:
    """The rows of ``requests`` as one shard knows them (`kafka.site` completes them), with columns more.

    ``frame`` and ``response``: numbers of their frames; for `kafka.site`: ``session``, ``session_epoch`` and ``asked``, ``forgotten`` (lists of topic and
    partition) of fetches in a session, ``batches`` (lists of what makes a batch the same one when it is sent again) of produces.

    ``frames`` is `frame_table` with columns ``retransmitted`` and ``captured`` (bytes); ``contents`` what their bodies say. Rows are ordered by the
    time of their first byte, then connection and frame.
    """
    rows = _contents(_pair(frames), frames, contents)
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
    ).sort(BEGAN, "connection", pl.coalesce("frame", "response"), nulls_last=True)


def to_arrow(rows: pl.DataFrame) -> pa.Table:
    """The columns of the data set as far as a shard knows them, and what `kafka.site` completes them from."""
    times = [pl.col(name).cast(pl.Datetime("ns", "UTC")) for name in ("request_first", "request_last", "response_first", "response_last")]
    names = [column.name for column in tables.REQUESTS if column.name in rows.columns]
    return rows.with_columns(times).select(*names, *HELPERS).with_columns(pl.col(pl.String).cast(pl.Categorical)).to_arrow()
