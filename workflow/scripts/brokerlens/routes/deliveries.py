"""Records from producer to consumer: batches that were produced joined with batches that were fetched, by cluster, topic, partition and ranges of offsets.

A produced batch has the offsets that the broker's answer gave it; a fetch has got it when it holds a batch whose range holds the produced batch's last offset. Equal
offsets alone prove nothing: a topic made anew begins at 0 again, and two clusters may have topics of one name. So what a broker never changes in a batch must agree, too
(`_agree`). ``docs/deliveries.md`` says what the columns mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from brokerlens import tables
from brokerlens.kafka.batches import CONTROL
from brokerlens.routes import clocks
from brokerlens.routes.clocks import CONTRADICTED, KNOWN, SAME, UNKNOWN, Clock
from brokerlens.routes.overlaps import Int64s, overlaps

MS: Final = 1e-6
CODEC: Final = 7
LOG_APPEND_TIME: Final = 1 << 3
DELETE_HORIZON: Final = 1 << 6
TAPS: Final = ("client", "middle", "unknown", "broker")
"""Which counts where the same bytes were captured at several sites: the first of these."""

STATUSES: Final = pl.Enum(list(tables.DELIVERY_REASONS))
REASONS: Final = pl.Enum(sorted({reason for reasons in tables.DELIVERY_REASONS.values() for reason in reasons}))
LOG: Final = ("cluster", "topic", "partition")
"""What offsets count in."""
IDENTITY: Final = ("producer_id", "producer_epoch", "base_sequence")
"""What makes a batch of a partition the same one when it is sent again (KIP-98)."""
TRANSLATED: Final = pl.Schema({"site": pl.String(), "connection_id": pl.String(), "client_connection_id": pl.String()})
"""Connections that have other addresses at a broker's ``site`` than at their client's: their names at both."""


class Followed(NamedTuple):
    """``rows`` of the data set; ``control_batches`` that were fetched, which are no deliveries."""

    rows: pl.DataFrame
    control_batches: int


def follow(produced: pl.DataFrame, fetched: pl.DataFrame, known: Mapping[str, Clock], translated: pl.DataFrame | None = None) -> Followed:
    """The rows of `deliveries` of one experiment, by partition and offset.

    ``produced`` and ``fetched`` have the columns of `kafka.batches` and ``site``, ``cluster``, ``topic_id`` (null where the request names its topic); their
    ``topic`` is a name wherever one is known. ``known``: the clocks of sites that are known. ``translated`` has the columns of `TRANSLATED`.
    """
    control = (pl.col("attributes") & CONTROL) != 0
    batches = fetched.filter(~control)
    produced, batches = _numbered(produced, batches)
    translated = TRANSLATED.to_frame() if translated is None else translated
    produced = _sent_once(_with_learned_offsets(_seen_once(produced, translated), batches))
    batches = _captured_once(batches, translated)
    pairs = _pairs(produced, batches)
    rows = _in_order(produced, batches, pairs)
    return Followed(_described(rows, produced, batches, known), fetched.height - batches.height)


def _numbered(produced: pl.DataFrame, fetched: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both with ``log`` (number of cluster, topic and partition, in their order), ``talk`` (of site and connection) and ``rank`` (of its tap)."""
    names = [pl.col(name).cast(pl.String) for name in LOG[:2]]
    logs = pl.concat([side.select(LOG).unique() for side in (produced, fetched)]).unique()
    logs = logs.sort(*names, "partition").with_row_index("log")
    talks = pl.concat([side.select("site", "connection_id").unique() for side in (produced, fetched)]).unique()
    talks = talks.sort(pl.col("site").cast(pl.String), pl.col("connection_id").cast(pl.String)).with_row_index("talk")
    rank = (
        pl.col("tap")
        .cast(pl.String)
        .replace_strict({tap: place for place, tap in enumerate(TAPS)}, default=len(TAPS), return_dtype=pl.Int8)
    )

    def number(side: pl.DataFrame) -> pl.DataFrame:
        side = side.join(logs, on=LOG, how="left", nulls_equal=True, maintain_order="left")
        side = side.join(talks, on=["site", "connection_id"], how="left", maintain_order="left")
        ranks = side.select("tap").unique().with_columns(rank.alias("rank"))
        return side.join(ranks, on="tap", how="left", nulls_equal=True, maintain_order="left").with_columns(
            pl.col("log", "talk").cast(pl.Int64)
        )

    return number(produced), number(fetched)


def _at_several_sites(batches: pl.DataFrame, translated: pl.DataFrame) -> pl.DataFrame:
    """Connections whose addresses several sites captured: ``talk``, ``address`` (as the client has it)."""
    talks = batches.select("talk", "site", "connection_id").unique().with_columns(pl.col("site", "connection_id").cast(pl.String))
    address = pl.coalesce("client_connection_id", "connection_id").str.replace(r"#\d+$", "")
    named = talks.join(translated, on=["site", "connection_id"], how="left").with_columns(address.alias("address"))
    return named.filter(pl.col("site").n_unique().over("address") > 1).select("talk", "address")


def _seen_once(produced: pl.DataFrame, translated: pl.DataFrame) -> pl.DataFrame:
    """One row per batch of a request that several sites captured, at the tap nearest to the client, with the offsets that any of them saw in its answer."""
    several = _at_several_sites(produced, translated)
    if several.is_empty():
        return produced
    content = ["correlation_id", "log", *IDENTITY, "base_timestamp", "record_bytes"]
    offsets = ("first_offset", "last_offset")
    twice = produced.join(several, on="talk", how="inner").sort("rank", "talk", "request_first", "first_offset", nulls_last=True)
    # Old messages of a request may be alike in all of that: then the first is the first.
    twice = twice.with_columns(pl.int_range(pl.len()).over("talk", *content).alias("number"))
    key = ["address", *content, "number"]
    told = twice.with_columns(pl.col(name).drop_nulls().first().over(key).alias(name) for name in offsets)
    once = told.unique(key, keep="first", maintain_order=True).select(produced.columns)
    return pl.concat([produced.join(several, on="talk", how="anti", maintain_order="left"), once])


def _with_learned_offsets(produced: pl.DataFrame, fetched: pl.DataFrame) -> pl.DataFrame:
    """Batches of idempotent producers whose answer was not captured have the offsets at which the same batch is seen elsewhere: answered when sent again, or fetched."""
    key = ["log", *IDENTITY]
    lacking = produced.filter(pl.col("last_offset").is_null() & pl.col("producer_id").is_not_null()).select(key).unique()
    if lacking.is_empty():
        return produced
    seen = [side.select(*key, "first_offset", "last_offset").drop_nulls().join(lacking, on=key, how="semi") for side in (produced, fetched)]
    learned = pl.concat(seen).unique().filter(pl.len().over(key) == 1)
    return (
        produced.join(learned, on=key, how="left", maintain_order="left", suffix="_learned")
        .with_columns(pl.coalesce(name, f"{name}_learned").alias(name) for name in ("first_offset", "last_offset"))
        .drop("first_offset_learned", "last_offset_learned")
    )


def _sent_once(produced: pl.DataFrame) -> pl.DataFrame:
    """One row per batch, those with offsets first, by log and last offset.

    A batch that was sent again, or was captured at several sites, counts as it was first sent, at the tap nearest to the client. ``acknowledged``: when the first answer
    that says where it is began; ``is_sure``: the times are those of one request, not of several.
    """
    has_answer = (pl.col("error_code") == 0) & pl.col("response_first").is_not_null()
    place = ("log", "last_offset", "first_offset")
    rows = produced.with_columns(
        pl.when(has_answer).then("response_first").alias("acknowledged"),
        pl.lit(value=True).alias("is_sure"),
        has_answer.alias("is_answered"),
    ).sort(pl.col("last_offset").is_null(), *place, *IDENTITY, "base_timestamp", "rank", "request_first", "talk", "correlation_id")
    key = (*place, *IDENTITY, "base_timestamp")
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(1)) for name in key)
    is_one = (pl.col("last_offset").is_not_null() | pl.col("producer_id").is_not_null()) & same
    is_copy = rows.select(is_one.fill_null(value=False)).to_series()
    if not is_copy.any():
        return rows
    rows = rows.with_columns((~is_copy).cum_sum().alias("batch"), is_copy.alias("is_copy"))
    several = rows.filter(pl.len().over("batch") > 1)
    at_one_tap = several.filter(pl.col("site") == pl.col("site").first().over("batch"))
    told = at_one_tap.group_by("batch").agg(
        pl.col("acknowledged").min().alias("first_answer"), (pl.len() == 1).alias("sent_once"), pl.col("is_answered").first().alias("own")
    )
    return (
        rows.filter(~pl.col("is_copy"))
        .join(told, on="batch", how="left", maintain_order="left")
        .with_columns(
            pl.coalesce("first_answer", "acknowledged").alias("acknowledged"), pl.col("sent_once").fill_null(value=True).alias("is_sure")
        )
        .drop("batch", "is_copy", "first_answer", "sent_once", "own")
    )


def _captured_once(fetched: pl.DataFrame, translated: pl.DataFrame) -> pl.DataFrame:
    """One row per fetched batch and fetch, by log, first offset and connection, the first fetch first; what was captured at several sites counts at the tap nearest to the client."""
    several = _at_several_sites(fetched, translated)
    rows = fetched.with_columns(pl.coalesce("first_offset", "last_offset").alias("begin"))
    if not several.is_empty():
        key = ["address", "correlation_id", "log", "begin", "last_offset"]
        twice = rows.join(several, on="talk", how="inner").sort("rank", "talk", "complete")
        once = twice.unique(key, keep="first", maintain_order=True).select(rows.columns)
        rows = pl.concat([rows.join(several, on="talk", how="anti"), once])
    return rows.sort("log", "begin", "last_offset", "talk", "complete", "correlation_id")


class Pairs(NamedTuple):
    """Produced and fetched batches that are one and the same: places of each, the first fetch of each batch on each connection, and how many followed it there.

    ``p_reused`` and ``f_reused``: batches at whose offsets only another batch was found.
    """

    p: Int64s
    f: Int64s
    refetches: Int64s
    p_reused: NDArray[np.bool_]
    f_reused: NDArray[np.bool_]
    f_found: NDArray[np.bool_]


def _pairs(produced: pl.DataFrame, fetched: pl.DataFrame) -> Pairs:
    """The first fetch of every produced batch on every connection."""
    told = produced.height - produced["last_offset"].null_count()
    p_log, p_last = (produced[name][:told].to_numpy() for name in ("log", "last_offset"))
    f_log, f_first, f_last = (fetched[name].to_numpy() for name in ("log", "begin", "last_offset"))
    p, f = overlaps(p_log, p_last, f_log, f_first, f_last)
    same = _agree(produced, fetched, p, f)
    p_found, f_found = np.zeros(produced.height, np.bool_), np.zeros(fetched.height, np.bool_)
    p_reused, f_reused = p_found.copy(), f_found.copy()
    p_found[p[same]], f_found[f[same]] = True, True
    p_reused[p], f_reused[f] = True, True
    p, f = p[same], f[same]
    talk, complete = (fetched[name].to_numpy()[f] for name in ("talk", "complete"))
    key = p * (int(talk.max(initial=0)) + 1) + talk
    order = np.lexsort((complete, key))
    p, f, key = p[order], f[order], key[order]
    starts = np.flatnonzero(np.append(True, np.diff(key) != 0)[: len(key)])
    refetches = np.diff(np.append(starts, len(key))) - 1
    return Pairs(p[starts], f[starts], refetches, p_reused & ~p_found, f_reused & ~f_found, f_found)


def _agree(produced: pl.DataFrame, fetched: pl.DataFrame, p: Int64s, f: Int64s) -> NDArray[np.bool_]:
    """Whether a produced and a fetched batch at the same offsets can be one and the same, by what a broker never changes.

    Of record batches (format 2): their range of offsets, the producer's id, epoch and sequence, the topic's id; the first timestamp, unless the broker made it anew (it
    stamps the time itself, compressed otherwise, or compacted the batch). Where none of those that identify a batch can be compared, equal offsets do only if no other
    batch claims them, and if the clock of one site does not show the fetch first.
    """

    def both(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        return produced[name].fill_null(-1).to_numpy()[p], fetched[name].fill_null(-1).to_numpy()[f]

    (p_magic, f_magic), (p_first, f_first), (p_last, f_last) = both("magic"), both("first_offset"), both("last_offset")
    new = (p_magic == 2) & (f_magic == 2)
    agree = ~new | ((p_first == f_first) & (p_last == f_last))
    producer, _ = both("producer_id")
    for name in IDENTITY:
        left, right = both(name)
        agree &= ~new | (left == right)
    p_attributes, f_attributes = both("attributes")
    is_whole = fetched["record_count"].fill_null(-1).to_numpy()[f] == f_last - f_first + 1
    stamped = new & is_whole & ((p_attributes ^ f_attributes) & CODEC == 0) & (f_attributes & (LOG_APPEND_TIME | DELETE_HORIZON) == 0)
    p_stamp, f_stamp = both("base_timestamp")
    agree &= ~stamped | (p_stamp == f_stamp)
    p_id, f_id = (side["topic_id"].to_physical().cast(pl.Int64).fill_null(-1).to_numpy()[at] for side, at in ((produced, p), (fetched, f)))
    agree &= (p_id < 0) | (f_id < 0) | (p_id == f_id)
    proven = new & ((producer >= 0) | stamped)
    log, last = produced["log"].to_numpy(), produced["last_offset"].fill_null(-1).to_numpy()
    again = (log[1:] == log[:-1]) & (last[1:] == last[:-1])
    claimed = np.append(again, False)[: len(log)] | np.append(False, again)[: len(log)]
    p_site, f_site = (side["site"].to_physical().to_numpy()[at] for side, at in ((produced, p), (fetched, f)))
    before = (p_site == f_site) & (fetched["complete"].fill_null(-1).to_numpy()[f] < produced["request_first"].fill_null(-1).to_numpy()[p])
    return np.asarray(agree & (proven | ~(claimed[p] | before)), np.bool_)


class Rows(NamedTuple):
    """The rows of the data set: places of the produced and the fetched batch, -1 none, and how often it was fetched again on that connection."""

    p: Int64s
    f: Int64s
    refetches: Int64s
    p_reused: NDArray[np.bool_]
    f_reused: NDArray[np.bool_]


def _in_order(produced: pl.DataFrame, fetched: pl.DataFrame, pairs: Pairs) -> Rows:
    """Deliveries, batches never fetched, and batches never seen produced (the first fetch on each connection), by log and offset."""
    alone = np.ones(produced.height, np.bool_)
    alone[pairs.p] = False
    unknown = np.flatnonzero(~pairs.f_found)
    key = [fetched[name].to_numpy()[unknown] for name in ("log", "begin", "last_offset", "talk")]
    fresh = np.flatnonzero(np.append(True, np.any([np.diff(column) != 0 for column in key], axis=0))[: len(unknown)])
    f_alone, again = unknown[fresh], np.diff(np.append(fresh, len(unknown))) - 1
    p_alone = np.flatnonzero(alone)
    p = np.concatenate([pairs.p, p_alone, np.full(len(f_alone), -1)])
    f = np.concatenate([pairs.f, np.full(len(p_alone), -1), f_alone])
    refetches = np.concatenate([pairs.refetches, np.zeros(len(p_alone), np.int64), again])
    p_log, f_log = (side["log"].to_numpy() for side in (produced, fetched))
    last = np.iinfo(np.int64).max
    p_first, f_first = produced["first_offset"].fill_null(last).to_numpy(), fetched["begin"].to_numpy()
    log = np.concatenate([p_log[pairs.p], p_log[p_alone], f_log[f_alone]])
    first = np.concatenate([p_first[pairs.p], p_first[p_alone], f_first[f_alone]])
    order = np.lexsort((f, np.where(p < 0, last, p), first, log))
    return Rows(p[order], f[order], refetches[order], pairs.p_reused, pairs.f_reused)


def _described(rows: Rows, produced: pl.DataFrame, fetched: pl.DataFrame, known: Mapping[str, Clock]) -> pl.DataFrame:
    """The columns of the data set."""
    table = _side_by_side(rows, produced, fetched)
    routes = clocks.relate(
        table.select("produce_site", "fetch_site", (pl.col("f_complete") - pl.col("p_request_first")).alias("difference")), known
    )
    offsets = pl.DataFrame(
        {"site": list(known), "offset": [round(clock.offset_ms * clocks.MS) for clock in known.values()]},
        schema={"site": pl.String, "offset": pl.Int64},
    )
    table = (
        table.join(routes, on=["produce_site", "fetch_site"], how="left", maintain_order="left")
        .join(offsets.rename({"site": "produce_site", "offset": "p_clock"}), on="produce_site", how="left", maintain_order="left")
        .join(offsets.rename({"site": "fetch_site", "offset": "f_clock"}), on="fetch_site", how="left", maintain_order="left")
        .with_columns(pl.col("p_clock", "f_clock").fill_null(0))
    )
    return _reasoned(_timed(table), _extents(produced, fetched))


P_COLUMNS: Final = (
    *("site", "connection_id", "client_id", "correlation_id", "request_first", "request_last", "acknowledged", "way", "retransmitted"),
    *("is_sure", "acks", "status", "error_code", "record_count", "record_bytes", "first_offset", "last_offset", "log", "topic_id"),
)
F_COLUMNS: Final = (
    *("site", "connection_id", "client_id", "correlation_id", "request_last", "response_first", "complete", "way", "retransmitted"),
    *("record_count", "record_bytes", "first_offset", "last_offset", "log", "topic_id"),
)


def _side_by_side(rows: Rows, produced: pl.DataFrame, fetched: pl.DataFrame) -> pl.DataFrame:
    """A row per delivery: ``p_…`` of the produced batch, ``f_…`` of the fetched one, null where there is none."""
    sides = []
    for prefix, side, columns, places, reused in (
        ("p_", produced, P_COLUMNS, rows.p, rows.p_reused),
        ("f_", fetched, F_COLUMNS, rows.f, rows.f_reused),
    ):
        chosen = side.select(*LOG, *columns, pl.Series("reused", reused))
        index = pl.Series("place", places).replace(-1, None)
        sides.append(chosen.select(pl.all().gather(pl.lit(index))).select(pl.all().name.prefix(prefix)))
    table = pl.concat([*sides, pl.DataFrame({"refetches": rows.refetches})], how="horizontal")
    either = (*LOG, "record_count", "record_bytes", "first_offset", "last_offset", "log")
    return table.with_columns(
        *(pl.coalesce(f"p_{name}", f"f_{name}").alias(name) for name in either),
        pl.col("p_site").cast(pl.String).alias("produce_site"),
        pl.col("f_site").cast(pl.String).alias("fetch_site"),
    )


def _timed(table: pl.DataFrame) -> pl.DataFrame:
    """Times on the reference clock, the delivery and its parts, ns; null where a tap or a clock cannot tell.

    Reckoned on the producing site's clock: the request is whole in the broker one way after its last byte passed the tap, the batch is in the log one way before the
    answer is back, a fetch waits there one way after its last byte, and its answer leaves one way before its first byte is back. A way is half of the connection's latest
    round trip, and no longer than half of the time in which this request was answered. Where both ways together are longer than there was time, they are cut by what is
    missing, each in proportion.
    """
    is_related = pl.col("basis").is_in([SAME, KNOWN])
    p_time, f_time = (
        pl.col(back) - pl.col(sent) for back, sent in (("p_acknowledged", "p_request_last"), ("f_response_first", "f_request_last"))
    )
    p_sure, f_sure = pl.col("p_is_sure") & ~pl.col("p_retransmitted") & (p_time >= 0), ~pl.col("f_retransmitted") & (f_time >= 0)
    table = table.with_columns(
        (pl.col("f_complete") - pl.col("p_request_first") - pl.col("shift")).alias("raw"),
        pl.when(p_sure & pl.col("p_way").is_not_null()).then(pl.min_horizontal("p_way", p_time // 2)).alias("p_way"),
        pl.when(f_sure & pl.col("f_way").is_not_null()).then(pl.min_horizontal("f_way", f_time // 2)).alias("f_way"),
    )
    in_vain = pl.col("raw") < -pl.col("clock_uncertainty").fill_null(0)
    delivery = pl.when((pl.col("basis") != CONTRADICTED) & ~in_vain).then("raw")
    ways = pl.col("p_way") + pl.col("f_way")
    between = pl.col("f_response_first") - pl.col("shift") - pl.col("p_request_last")
    excess = pl.when(is_related & (between >= 0)).then((ways - between).clip(lower_bound=0))
    p_excess = pl.when(ways > 0).then(pl.col("excess") * pl.col("p_way") // ways).otherwise(0)
    table = table.with_columns(delivery.alias("delivery"), excess.alias("excess")).with_columns(p_excess.alias("p_excess"))
    # What is not related to another clock is not cut by it.
    p_way = pl.col("p_way") - pl.col("p_excess").fill_null(0)
    f_way = pl.col("f_way") - (pl.col("excess") - pl.col("p_excess")).fill_null(0)
    stored, waits = pl.col("p_acknowledged") - pl.col("p_way"), pl.col("f_request_last") - pl.col("shift") + pl.col("f_way")
    log_wait = pl.when(pl.col("excess").is_not_null() & delivery.is_not_null()).then((waits - stored).clip(lower_bound=0))
    return (
        table.with_columns(p_way.alias("p_way"), f_way.alias("f_way"))
        .with_columns(
            (pl.col("p_request_last") + pl.col("p_way") - pl.col("p_request_first")).alias("produce_network"),
            (pl.col("f_complete") - pl.col("f_response_first") + pl.col("f_way")).alias("fetch_network"),
            log_wait.alias("log_wait"),
        )
        .with_columns((pl.col("raw") - pl.col("produce_network") - pl.col("fetch_network") - pl.col("log_wait")).alias("broker"))
        .with_columns(pl.when(pl.col("broker") >= 0).then(name).alias(name) for name in ("log_wait", "broker"))
        .with_columns(
            (pl.col("p_request_first") - pl.col("p_clock")).alias("produced_at"),
            (pl.col("p_acknowledged") - pl.col("p_clock")).alias("acknowledged_at"),
        )
        .with_columns(pl.coalesce(pl.col("produced_at") + pl.col("raw"), pl.col("f_complete") - pl.col("f_clock")).alias("fetched_at"))
    )


def _extents(produced: pl.DataFrame, fetched: pl.DataFrame) -> pl.DataFrame:
    """Per log the first and last offsets that were seen produced and fetched."""
    of_produced = produced.drop_nulls("last_offset").group_by("log")
    return (
        of_produced.agg(pl.col("last_offset").min().alias("p_low"), pl.col("last_offset").max().alias("p_high"))
        .join(
            fetched.group_by("log").agg(pl.col("begin").min().alias("f_low"), pl.col("last_offset").max().alias("f_high")),
            on="log",
            how="full",
            coalesce=True,
        )
        .sort("log")
    )


def _code(word: str, words: pl.Enum) -> pl.Expr:
    """The word as its place among the words: strings for every row would take longer than the join."""
    return pl.lit(words.categories.to_list().index(word), pl.UInt8)


def _reasoned(table: pl.DataFrame, extents: pl.DataFrame) -> pl.DataFrame:
    """Status and its reason, and the data set's columns with their names."""
    has_p, has_f = pl.col("p_log").is_not_null(), pl.col("f_log").is_not_null()
    failed = pl.col("p_error_code").is_not_null() & (pl.col("p_error_code") != 0)
    why = {
        "not_fetched": (
            ("acks_0", pl.col("p_acks") == 0),
            ("produce_failed", failed),
            ("response_not_captured", pl.col("p_status") != "answered"),
            ("offset_not_captured", pl.lit(value=True)),
        ),
        "offset_known": (
            ("offsets_reused", pl.col("p_reused")),
            ("partition_not_fetched", pl.col("f_high").is_null()),
            ("before_first_fetch", pl.col("last_offset") < pl.col("f_low")),
            ("behind_last_fetch", pl.col("last_offset") > pl.col("f_high")),
            ("not_seen_between", pl.lit(value=True)),
        ),
        "produce_not_captured": (
            ("offsets_reused", pl.col("f_reused")),
            ("topic_id_unknown", pl.col("p_high").is_null() & pl.col("f_topic_id").cast(pl.String).eq(pl.col("topic").cast(pl.String))),
            ("partition_not_produced", pl.col("p_high").is_null()),
            ("before_first_produce", pl.col("last_offset") < pl.col("p_low")),
            ("behind_last_produce", pl.col("last_offset") > pl.col("p_high")),
            ("not_seen_between", pl.lit(value=True)),
        ),
        "delivered": (
            ("clock_stepped", (pl.col("basis") == SAME) & pl.col("delivery").is_null()),
            ("clocks_contradict", pl.col("delivery").is_null() & pl.col("raw").is_not_null()),
            ("clocks_unknown", pl.col("basis") == UNKNOWN),
        ),
    }

    def first_of(reasons: tuple[tuple[str, pl.Expr], ...]) -> pl.Expr:
        return pl.coalesce(pl.when(condition).then(_code(reason, REASONS)) for reason, condition in reasons)

    alone = pl.when(pl.col("p_last_offset").is_null()).then(first_of(why["not_fetched"])).otherwise(first_of(why["offset_known"]))
    table = table.join(extents, on="log", how="left", maintain_order="left").with_columns(
        pl.when(has_p & has_f)
        .then(_code("delivered", STATUSES))
        .when(has_p)
        .then(_code("not_fetched", STATUSES))
        .otherwise(_code("produce_not_captured", STATUSES))
        .cat.to(STATUSES)
        .alias("status"),
        pl.when(has_p & has_f)
        .then(first_of(why["delivered"]))
        .when(has_p)
        .then(alone)
        .otherwise(first_of(why["produce_not_captured"]))
        .cat.to(REASONS)
        .alias("status_reason"),
    )
    time = pl.Datetime("ns", "UTC")
    return table.select(
        *LOG,
        *("first_offset", "last_offset", "record_count", "record_bytes"),
        *(
            pl.col(f"{prefix}_{name}").alias(f"{side}_{name}")
            for prefix, side in (("p", "produce"), ("f", "fetch"))
            for name in ("site", "connection_id", "client_id", "correlation_id")
        ),
        *(pl.col(name).cast(time) for name in ("produced_at", "acknowledged_at", "fetched_at")),
        *(
            (pl.col(name) * MS).alias(f"{name}_ms")
            for name in ("delivery", "produce_network", "broker", "log_wait", "fetch_network", "clock_uncertainty")
        ),
        *("status", "status_reason", "refetches"),
    )
