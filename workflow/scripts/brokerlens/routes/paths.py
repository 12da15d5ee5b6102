"""What became of every packet between two taps, and the rows of the data set `paths` that are made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from brokerlens.routes import fates, matching
from brokerlens.routes.one_way import MS, Clock, estimate_clock
from brokerlens.statistics.quantiles import quantile

DIRECTIONS: Final = ("to_broker", "from_broker")
"""By ``from_broker``."""
QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
REQUEST_COLUMNS: Final = ("connection_id", "api_key", "correlation_id", "status", "waits_by_design", "request_first", "broker_ms")
"""What `broker_times` needs of the data set `requests`."""
_OF_PACKET: Final = ("timestamp", "seq", "ack", "payload_len", "tcp_flags", "segment", "is_retransmission")
_DIRECTION: Final = pl.when("from_broker").then(pl.lit(DIRECTIONS[1])).otherwise(pl.lit(DIRECTIONS[0]))
_OF_ROUTE: Final = ("pair", "from_broker", "fate", "at_client", "at_broker", "payload_len", "one_way_ms", "overtaken", "repair", "sure")


@dataclass(frozen=True)
class BothEnds:
    """One site's connections at their clients and another's at their brokers."""

    pairs: pl.DataFrame
    """``pair``, ``client_id``, ``broker_id``, ``translated``."""
    packets: pl.DataFrame
    """A row per packet: ``pair``, ``from_broker``, ``fate`` (one of `fates.FATES`), ``at_client`` and ``at_broker`` (ns by the clock of the tap there, null where it
    was not captured), ``payload_len``, ``one_way_ms`` (null unless it arrived, is told apart from others, and the clock is known), ``overtaken`` (it
    arrived behind one that was sent later), ``repair`` (of retransmissions: one of `fates.REPAIRS`), ``sure`` (told apart from others)."""
    clock: Clock

    def named_packets(self) -> pl.DataFrame:
        """The packets with ``connection_id`` of the client's site, ``direction``, and ``time``: at the client's tap, else at the broker's by the client's clock."""
        at_broker = self.packets["at_broker"].fill_null(0).to_numpy()
        offset = self.clock.offset_at(at_broker)
        moved = at_broker if offset is None else at_broker - np.rint(offset).astype(np.int64)
        named = self.packets.join(self.pairs.select("pair", connection_id="client_id"), on="pair", how="left", maintain_order="left")
        return named.with_columns(
            direction=_DIRECTION,
            time=pl.coalesce("at_client", pl.Series(moved)),
        )


def both_ends(
    candidates: pl.DataFrame, client_packets: pl.DataFrame, broker_packets: pl.DataFrame, configured_ms: float | None = None
) -> BothEnds | None:
    """Find the connections that both taps captured, match their packets and say what became of each; None where there is no such connection.

    ``candidates`` are those of `matching.candidate_pairs`. The packets have `matching.PACKET_COLUMNS`, in the order of time, copies left out.
    ``configured_ms`` is the broker's tap's clock minus the client's by the configuration, None to estimate it.
    """
    pairs = matching.pair_connections(matching.with_same_stamps(candidates, client_packets, broker_packets), client_packets, broker_packets)
    matched = matching.match_packets(client_packets, broker_packets, pairs)
    # The same addresses and ports, and nothing in common: another connection.
    met = matched.filter(pl.col("client_row").is_not_null(), pl.col("broker_row").is_not_null()).select(pl.col("pair").unique())
    pairs = pairs.join(met, on="pair", how="semi")
    if not pairs.height:
        return None
    packets = _with_facts(matched.join(met, on="pair", how="semi", maintain_order="left"), client_packets, broker_packets)
    sure = packets.filter("sure", pl.col("sent").is_not_null(), pl.col("received").is_not_null())
    clock = estimate_clock(sure["sent"].to_numpy(), sure["received"].to_numpy(), sure["from_broker"].to_numpy(), configured_ms)
    told = packets.with_columns(_one_way(packets, clock), *fates.columns(packets))
    return BothEnds(pairs, told.select(_OF_ROUTE), clock)


def _with_facts(matched: pl.DataFrame, client: pl.DataFrame, broker: pl.DataFrame) -> pl.DataFrame:
    """The matched packets with what the taps tell: ``at_client``, ``at_broker``; ``sent`` and ``received``, the same by direction; sequence numbers and labels."""
    packets = matched
    for place, table in (("client", client), ("broker", broker)):
        facts = table.select(_OF_PACKET).with_columns(
            pl.col("timestamp", "seq", "ack", "payload_len", "tcp_flags").cast(pl.Int64), pl.col("segment").cast(pl.String)
        )
        packets = packets.hstack(
            facts.select(pl.all().gather(packets[f"{place}_row"])).rename({name: f"{name}_{place}" for name in _OF_PACKET})
        )

    def by_direction(name: str, *, sender: bool) -> pl.Expr:
        first, second = (f"{name}_broker", f"{name}_client") if sender else (f"{name}_client", f"{name}_broker")
        return pl.when("from_broker").then(pl.col(first)).otherwise(pl.col(second))

    return packets.with_columns(
        at_client=pl.col("timestamp_client"),
        at_broker=pl.col("timestamp_broker"),
        sent=by_direction("timestamp", sender=True),
        received=by_direction("timestamp", sender=False),
        label_there=by_direction("segment", sender=False),
        again=by_direction("is_retransmission", sender=True).fill_null(value=False),
        **{name: pl.coalesce(f"{name}_client", f"{name}_broker") for name in ("seq", "ack", "payload_len", "tcp_flags")},
    )


def _one_way(packets: pl.DataFrame, clock: Clock) -> pl.Series:
    """``one_way_ms``: received − sent on one clock."""
    at_client = packets["at_client"].fill_null(0).to_numpy()
    offset = clock.offset_at(at_client)
    if offset is None:
        return pl.Series("one_way_ms", [None], pl.Float64).new_from_index(0, packets.height)
    waited = (packets["received"] - packets["sent"]).fill_null(0).to_numpy()
    delay = (waited + np.where(packets["from_broker"].to_numpy(), offset, -offset)) / MS
    known = packets["sure"] & packets["sent"].is_not_null() & packets["received"].is_not_null()
    return pl.DataFrame({"delay": delay, "known": known}).select(pl.when("known").then("delay").alias("one_way_ms")).to_series()


def rows(found: BothEnds, in_broker: pl.DataFrame) -> pl.DataFrame:
    """Rows of the data set `paths` but for the sites: one per connection and direction, in the order of connections. ``in_broker`` is from `broker_times`."""
    fate, one_way = pl.col("fate"), pl.col("one_way_ms")
    only = {"client": pl.col("at_broker").is_null(), "broker": pl.col("at_client").is_null()}
    within = fate != "outside"
    wanted: dict[str, pl.Expr] = {
        "packets_both": (fate == "arrived").sum(),
        **{f"packets_only_{place}": (within & alone).sum() for place, alone in only.items()},
        "packets_outside": (fate == "outside").sum(),
        "bytes_both": pl.col("payload_len").filter(fate == "arrived").sum(),
        **{f"bytes_only_{place}": pl.col("payload_len").filter(within & alone).sum() for place, alone in only.items()},
        "packets_lost": (fate == "lost").sum(),
        "bytes_lost": pl.col("payload_len").filter(fate == "lost").sum(),
        "packets_not_captured": (fate == "not_captured").sum(),
        "packets_cut_anew": (fate == "cut_anew").sum(),
        "packets_alike": (~pl.col("sure")).sum(),
        "one_way_n": one_way.count(),
        "one_way_min_ms": one_way.min(),
        **{f"one_way_{name}_ms": quantile(one_way, level) for name, level in QUANTILES.items()},
        "reordered": pl.col("overtaken").sum(),
        **{f"retransmitted_{repair}": (pl.col("repair") == repair).sum() for repair in fates.REPAIRS},
    }
    counted = found.packets.group_by("pair", "from_broker").agg(**wanted)
    measured, inferred = pl.col("measured_ms"), pl.col("inferred_ms")
    waited = in_broker.group_by(client_id="connection_id").agg(
        broker_n=measured.count(),
        broker_p50_ms=quantile(measured, 0.5),
        broker_p95_ms=quantile(measured, 0.95),
        broker_inferred_n=inferred.count(),
        broker_inferred_p50_ms=quantile(inferred, 0.5),
        broker_inferred_p95_ms=quantile(inferred, 0.95),
    )
    clock = found.clock
    said: dict[str, Any] = {
        "clock_source": (clock.source, pl.String),
        "clock_reason": (clock.reason, pl.String),
        "clock_offset_ms": (clock.offset_ms, pl.Float64),
        "clock_drift_ppm": (clock.drift_ppm, pl.Float64),
        "clock_uncertainty_ms": (clock.uncertainty_ms, pl.Float64),
        "clock_scatter_ms": (clock.scatter_ms, pl.Float64),
    }
    table = counted.join(found.pairs, on="pair").join(waited, on="client_id", how="left").sort("client_id", "from_broker")
    return table.with_columns(
        pl.col("broker_n", "broker_inferred_n").fill_null(0),
        direction=_DIRECTION,
        connection_id=pl.col("client_id"),
        broker_connection_id=pl.col("broker_id"),
        **{name: pl.lit(value, kind) for name, (value, kind) in said.items()},
    )


def broker_times(pairs: pl.DataFrame, client_requests: pl.DataFrame, broker_requests: pl.DataFrame) -> pl.DataFrame:
    """Time in the broker of the requests that both taps captured: ``connection_id`` of the client's site, ``time`` (ns, when its tap saw it), ``measured_ms`` at
    the broker's tap, ``inferred_ms`` at the client's (null where it cannot tell).

    The requests have `REQUEST_COLUMNS`, in the order of time. Long polls, and those that are not answered, have no such time; ids that come again in a
    connection are told apart by their order.
    """
    key = ["connection_id", "api_key", "correlation_id"]

    def numbered(requests: pl.DataFrame) -> pl.DataFrame:
        text = requests.with_columns(pl.col("connection_id").cast(pl.String))
        counted = text.with_columns(again=pl.int_range(pl.len()).over(key))
        return counted.filter(pl.col("status").cast(pl.String) == "answered", ~pl.col("waits_by_design"))

    of_broker = pairs.select("client_id", connection_id="broker_id").join(numbered(broker_requests), on="connection_id")
    of_client = numbered(client_requests).rename({"connection_id": "client_id"})
    met = of_client.join(of_broker, on=["client_id", *key[1:], "again"], suffix="_there")
    return met.select(
        connection_id="client_id", time=pl.col("request_first").cast(pl.Int64), measured_ms="broker_ms_there", inferred_ms="broker_ms"
    ).sort("connection_id", "time", "measured_ms", maintain_order=True)
