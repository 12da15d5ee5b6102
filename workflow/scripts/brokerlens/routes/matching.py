"""Which connection of a client's tap is which at a broker's tap, and which of their packets is which.

Nothing here looks at clocks: the two taps' times may be hours apart. A packet is recognised by what neither the network nor a translation of
addresses changes: direction, sequence and acknowledgement number, length, flags, window and TCP timestamps (RFC 9293, RFC 7323), and by its IP id
where that survives the way, so that a retransmission is matched with its own copy and not with the first.
"""

from __future__ import annotations

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
_CONTENT: Final = ("seq", "ack", "payload_len", "tcp_flags", "window_size", "tsval", "tsecr")
"""What tells packets of a direction apart, IP id left out."""
_SIDE: Final = ["pair", "from_broker"]


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
    """The candidates, each connection in one of them at most, numbered: ``pair``, ``client_id``, ``broker_id``, ``translated``.

    Where ports were used again and no SYN tells the connections apart, those belong together that share most packets.
    """
    contested = pl.col("client_id").is_duplicated() | pl.col("broker_id").is_duplicated()
    alone, several = candidates.filter(~contested), candidates.filter(contested).with_row_index("pair")
    if several.height:
        here, there = (_keyed(side, several, which).select("pair", "content").unique() for side, which in _sides(client, broker))
        shared = here.join(there, on=["pair", "content"]).group_by("pair").agg(shared=pl.len())
        several = several.join(shared, on="pair").sort("translated", "shared", "pair", descending=[False, True, False])
    taken: tuple[set[str], set[str]] = set(), set()
    kept = []
    for client_id, broker_id, translated in several.select(alone.columns).iter_rows():
        if client_id not in taken[0] and broker_id not in taken[1]:
            taken[0].add(client_id)
            taken[1].add(broker_id)
            kept.append((client_id, broker_id, translated))
    found = pl.concat([alone, pl.DataFrame(kept, schema=alone.schema, orient="row")])
    return found.sort("client_id").with_row_index("pair")


def _sides(client: pl.DataFrame, broker: pl.DataFrame) -> tuple[tuple[pl.DataFrame, str], tuple[pl.DataFrame, str]]:
    return (client, "client_id"), (broker, "broker_id")


def _keyed(packets: pl.DataFrame, pairs: pl.DataFrame, which: str) -> pl.DataFrame:
    """The packets of the paired connections: ``pair``, ``from_broker``, ``row`` (place in ``packets``), ``ip_id``, and `_CONTENT` as one number, ``content``."""
    ids = pairs.select("pair", pl.col(which).cast(packets.schema["connection_id"]).alias("connection_id"))
    numbered = packets.with_row_index("row").join(ids, on="connection_id", maintain_order="left")
    return numbered.select("pair", "from_broker", "row", "ip_id", content=pl.struct(*_CONTENT).hash())


def match_packets(client: pl.DataFrame, broker: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Every packet of the paired connections, matched where both taps have it: ``pair``, ``from_broker``, ``client_row``, ``broker_row``, ``sure``.

    ``client`` and ``broker`` have `PACKET_COLUMNS`, in the order of time; rows are places in them, null where that tap has not captured the packet. Packets
    that cannot be told apart (no IP id, everything else the same) are matched in the order of time, and ``sure`` only if both taps have as
    many of them. Where IP ids are rewritten on the way, which is told by each connection and direction, packets are matched without.
    """
    here, there = (_keyed(side, pairs, which) for side, which in _sides(client, broker))
    with_id = pl.struct("content", "ip_id").hash()
    matched = _matched(here.with_columns(key=with_id), there.with_columns(key=with_id))
    rewritten = _rewritten(matched)
    if rewritten.height:
        anew = [side.join(rewritten, on=_SIDE, how="semi", maintain_order="left").with_columns(key="content") for side in (here, there)]
        matched = pl.concat([matched.join(rewritten, on=_SIDE, how="anti"), _matched(*anew)])
    return _unlike_apart(matched, client, broker).sort(*_SIDE, "client_row", "broker_row")


def _rewritten(matched: pl.DataFrame) -> pl.DataFrame:
    """The directions of which more packets would be matched without IP ids than were with them: something on the way gives packets others."""
    here, there = (
        matched.filter(pl.col(other).is_null()).select(*_SIDE, content=pl.col(f"{one}_content")).unique()
        for one, other in (("client", "broker_row"), ("broker", "client_row"))
    )
    more = here.join(there, on=[*_SIDE, "content"]).group_by(_SIDE).agg(more=pl.len())
    met = matched.filter(pl.col("client_row").is_not_null() & pl.col("broker_row").is_not_null()).group_by(_SIDE).agg(met=pl.len())
    return more.join(met, on=_SIDE, how="left").filter(pl.col("more") > pl.col("met").fill_null(0)).select(_SIDE)


def _matched(here: pl.DataFrame, there: pl.DataFrame) -> pl.DataFrame:
    """Packets of both taps joined by ``key``, the first with the first where several have it."""
    names = {"row": "row", "copies": "copies", "content": "content"}
    here, there = (
        _numbered(side).rename({name: f"{place}_{new}" for name, new in names.items()})
        for side, place in ((here, "client"), (there, "broker"))
    )
    joined = here.join(there, on="key", how="full", suffix="_there")
    met = pl.col("client_copies").is_not_null() & pl.col("broker_copies").is_not_null()
    same = pl.col("client_copies") == pl.col("broker_copies")
    return joined.select(
        *(pl.coalesce(name, f"{name}_there") for name in _SIDE),
        *(f"{place}_{name}" for name in ("row", "content") for place in ("client", "broker")),
        sure=pl.when(met).then(same).otherwise(pl.coalesce("client_copies", "broker_copies") == 1),
    )


def _numbered(side: pl.DataFrame) -> pl.DataFrame:
    """The packets with ``copies``, how many have their key, and the key of the second and all further ones made their own."""
    key = pl.struct("pair", "from_broker", "key").hash()
    side = side.select("pair", "from_broker", "row", "content", key=key)
    several = pl.col("key").is_duplicated()
    many = side.filter(several).sort("row")
    many = many.with_columns(copies=pl.len().over("key"), copy=pl.int_range(pl.len()).over("key"))
    many = many.with_columns(key=pl.when(pl.col("copy") == 0).then("key").otherwise(pl.struct("key", "copy").hash())).drop("copy")
    return pl.concat([side.filter(~several).with_columns(copies=pl.lit(1, pl.UInt32)), many.select(*side.columns, "copies")])


def _unlike_apart(matched: pl.DataFrame, client: pl.DataFrame, broker: pl.DataFrame) -> pl.DataFrame:
    """The matched packets, but none that only a hash takes for the same: such two stand for themselves."""
    matched = matched.select(*_SIDE, "client_row", "broker_row", "sure")
    unlike = pl.any_horizontal(
        client[name].gather(matched["client_row"]).ne_missing(broker[name].gather(matched["broker_row"])).alias(name)
        for name in ("from_broker", *_CONTENT)
    )
    met = pl.col("client_row").is_not_null() & pl.col("broker_row").is_not_null()
    wrong = matched.select(met & unlike).to_series()
    if not wrong.any():
        return matched
    split = [matched.filter(wrong).with_columns(pl.lit(None, pl.UInt32).alias(row)) for row in ("client_row", "broker_row")]
    return pl.concat([matched.filter(~wrong), *split])
