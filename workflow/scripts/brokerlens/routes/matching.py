"""Which connection of a client's tap is which at a broker's tap, and which of their packets is which.

Nothing here looks at clocks: the two taps' times may be hours apart. A packet is recognised by what neither the network nor a translation of
addresses changes: direction, sequence and acknowledgement number, length, flags, window and TCP timestamps (RFC 9293, RFC 7323), and by its IP id
where that survives the way, so that a retransmission is matched with its own copy and not with the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import polars as pl

from brokerlens.tcp.content import SYN

CONNECTION_COLUMNS: Final = ("connection_id", "client_ip", "client_port", "broker_ip", "broker_port", "isn_client", "isn_broker")
"""What `pair_connections` needs of the data set `connections`."""
PACKET_COLUMNS: Final = (
    "timestamp", "connection_id", "from_broker", "seq", "ack", "payload_len", "tcp_flags", "window_size", "ip_id", "tsval", "tsecr", "segment",
    "is_retransmission",
)  # fmt: skip
"""What `match_packets` needs of the data set `packets`, copies made by the capture left out."""
_ADDRESS: Final = ["client_ip", "client_port", "broker_ip", "broker_port"]
_NUMBERS: Final = ["isn_client", "isn_broker"]
_FIELDS: Final = ("seq", "ack", "payload_len", "tcp_flags", "window_size", "tsval", "tsecr")
_CONTENT: Final = ["pair", "from_broker", "numbers", "stamps", "shape"]
"""A packet's content in whole numbers, IP id left out."""


def candidate_pairs(client: pl.DataFrame, broker: pl.DataFrame) -> pl.DataFrame:
    """Connections of both taps that may be one: rows ``client_id``, ``broker_id``, ``translated``; both tables have `CONNECTION_COLUMNS`.

    Either the addresses are the same, and initial sequence numbers do not contradict where both taps know them; or both initial sequence
    numbers are the same, under other addresses: then something between the taps may translate them.
    """
    left = client.select(*CONNECTION_COLUMNS).rename({"connection_id": "client_id"})
    right = broker.select(*CONNECTION_COLUMNS).rename({"connection_id": "broker_id"})
    same = left.join(right, on=_ADDRESS, suffix="_there").filter(
        *((pl.col(number) == pl.col(f"{number}_there")).fill_null(value=True) for number in _NUMBERS)
    )
    moved = left.join(right, on=_NUMBERS, suffix="_there").filter(
        pl.any_horizontal(pl.col(column) != pl.col(f"{column}_there") for column in _ADDRESS)
    )
    found = [table.select("client_id", "broker_id", translated=pl.lit(translated)) for table, translated in ((same, False), (moved, True))]
    return pl.concat(found).sort("translated", "client_id", "broker_id")


def with_same_stamps(candidates: pl.DataFrame, client: pl.DataFrame, broker: pl.DataFrame) -> pl.DataFrame:
    """The candidates but those under other addresses whose clients' first SYNs differ in their timestamp, by the packets of both taps."""
    stamped = candidates.join(_first_syns(client, "client_id"), on="client_id", how="left").join(
        _first_syns(broker, "broker_id"), on="broker_id", how="left", suffix="_there"
    )
    return stamped.filter(~pl.col("translated") | pl.col("tsval").eq_missing(pl.col("tsval_there"))).select(candidates.columns)


def _first_syns(packets: pl.DataFrame, name: str) -> pl.DataFrame:
    """Connection and ``tsval`` of each client's first SYN."""
    syns = packets.filter(~pl.col("from_broker"), pl.col("tcp_flags") & SYN > 0)
    return syns.group_by(pl.col("connection_id").cast(pl.String).alias(name)).agg(pl.col("tsval").sort_by("timestamp").first())


def pair_connections(candidates: pl.DataFrame, client: pl.DataFrame, broker: pl.DataFrame) -> pl.DataFrame:
    """The candidates that share packets, each connection in one of them at most, numbered: ``pair``, ``client_id``, ``broker_id``, ``translated``.

    Where ports were used again and no SYN tells the connections apart, those belong together that share most packets.
    """
    shared = (
        _keyed(client, candidates, "client_id")
        .select("pair", *_CONTENT[1:])
        .unique()
        .join(_keyed(broker, candidates, "broker_id").select("pair", *_CONTENT[1:]).unique(), on=_CONTENT)
        .group_by("pair")
        .agg(shared=pl.len())
    )
    ranked = candidates.with_row_index("pair").with_columns(pl.col("pair").cast(pl.Int64)).join(shared, on="pair")
    taken: tuple[set[str], set[str]] = set(), set()
    kept = []
    for row in ranked.sort("translated", "shared", "pair", descending=[False, True, False]).iter_rows(named=True):
        if row["client_id"] not in taken[0] and row["broker_id"] not in taken[1]:
            taken[0].add(row["client_id"])
            taken[1].add(row["broker_id"])
            kept.append(row)
    schema = {"client_id": pl.String, "broker_id": pl.String, "translated": pl.Boolean}
    found = pl.DataFrame([{name: row[name] for name in schema} for row in kept], schema=schema)
    return found.sort("client_id").with_row_index("pair").with_columns(pl.col("pair").cast(pl.Int64))


def _keyed(packets: pl.DataFrame, pairs: pl.DataFrame, which: str) -> pl.DataFrame:
    """The packets of the paired connections with their content as whole numbers, ``row`` (place in ``packets``) and ``ip_id`` (−1 for none)."""
    numbered = pairs if "pair" in pairs.columns else pairs.with_row_index("pair").with_columns(pl.col("pair").cast(pl.Int64))
    ids = numbered.select("pair", pl.col(which).cast(packets.schema["connection_id"]).alias("connection_id"))
    wide = {name: pl.col(name).cast(pl.UInt64).fill_null(0) for name in _FIELDS}
    # Side by side in few columns: that is what makes the join fast.
    content = {
        "numbers": wide["seq"] * (1 << 32) + wide["ack"],
        "stamps": wide["tsval"] * (1 << 32) + wide["tsecr"],
        "shape": ((wide["payload_len"] * 512 + wide["tcp_flags"]) * 65536 + wide["window_size"]) * 2
        + pl.col("tsval").is_null().cast(pl.UInt64),
    }
    return (
        packets.with_row_index("row")
        .join(ids, on="connection_id")
        .select("pair", "from_broker", pl.col("row").cast(pl.Int64), "timestamp", pl.col("ip_id").cast(pl.Int64).fill_null(-1), **content)
    )


def match_packets(client: pl.DataFrame, broker: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Every packet of the paired connections, matched where both taps have it: ``pair``, ``from_broker``, ``client_row``, ``broker_row``, ``sure``.

    ``client`` and ``broker`` have `PACKET_COLUMNS`, in the order of time; rows are places in them, null where that tap has not captured the packet. Packets
    that cannot be told apart (no IP id, everything else the same) are matched in the order of time, and ``sure`` only if both taps have as
    many of them. Whether the IP id survives the way is told by each connection and direction: most of what matches without it must match with it.
    """
    here, there = _keyed(client, pairs, "client_id"), _keyed(broker, pairs, "broker_id")
    survives = _ids_survive(here, there)
    here, there = (_with_ids(side, survives) for side in (here, there))
    key = [*_CONTENT, "id"]
    here, there = _numbered(here, key), _numbered(there, key)
    joined = here.rename({"row": "client_row", "copies": "client_copies"}).join(
        there.rename({"row": "broker_row", "copies": "broker_copies"}), on=[*key, "copy"], how="full", coalesce=True
    )
    met = pl.col("client_copies").is_not_null() & pl.col("broker_copies").is_not_null()
    sure = (
        pl.when(met).then(pl.col("client_copies") == pl.col("broker_copies")).otherwise(pl.coalesce("client_copies", "broker_copies") == 1)
    )
    return joined.select("pair", "from_broker", "client_row", "broker_row", sure=sure).sort(
        "pair", "from_broker", "client_row", "broker_row"
    )


def _ids_survive(here: pl.DataFrame, there: pl.DataFrame) -> pl.DataFrame:
    """Per connection and direction, ``survives``: whether packets have the same IP id at both taps."""
    met = here.unique(_CONTENT, keep="none").join(there.unique(_CONTENT, keep="none"), on=_CONTENT, suffix="_there")
    return met.group_by("pair", "from_broker").agg(survives=(pl.col("ip_id") == pl.col("ip_id_there")).mean() > 0.5)


def _with_ids(side: pl.DataFrame, survives: pl.DataFrame) -> pl.DataFrame:
    joined = side.join(survives, on=["pair", "from_broker"], how="left")
    return joined.with_columns(id=pl.when(pl.col("survives").fill_null(value=True)).then("ip_id").otherwise(-1)).drop("survives", "ip_id")


def _numbered(side: pl.DataFrame, key: Iterable[str]) -> pl.DataFrame:
    """The packets with ``copy``, the number of each among those with its key in the order of time, and ``copies``, how many these are."""
    names = list(key)
    many = side.filter(side.select(names).is_duplicated())
    numbered = many.sort("timestamp", "row").with_columns(
        copy=pl.int_range(pl.len()).over(names), copies=pl.len().over(names).cast(pl.Int64)
    )
    one = side.filter(side.select(names).is_unique()).with_columns(copy=pl.lit(0, pl.Int64), copies=pl.lit(1, pl.Int64))
    return pl.concat([one, numbered.select(one.columns)]).drop("timestamp")
