"""Packets between two taps, written down one by one, as the tables that each tap's site has of them; and what the kernels do to them, slowly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MS = 1_000_000
CLIENT, BROKER = "192.0.2.5", "192.0.2.10"
ID = f"{CLIENT}:40001-{BROKER}:9092#1"


@dataclass(frozen=True)
class Packet:
    """A packet; ``at_client`` and ``at_broker`` are ns by the clock there, None where that tap does not have it."""

    at_client: int | None
    at_broker: int | None
    from_broker: bool = False
    seq: int = 1
    ack: int = 1
    length: int = 0
    flags: int = ACK
    window: int = 500
    ip_id: int | None = None
    tsval: int | None = None
    tsecr: int | None = None
    segment: str | None = None
    label_there: str | None = None
    """The segment's label at the receiver's tap."""
    connection: str = ID
    there: str | None = None
    """The connection's id at the broker's site, where it is another."""


def tap(packets: Sequence[Packet], place: str) -> pl.DataFrame:
    """What the tap at the ``client`` or the ``broker`` has, in the order of time."""
    here = [packet for packet in packets if getattr(packet, f"at_{place}") is not None]
    here.sort(key=lambda packet: getattr(packet, f"at_{place}"))
    sends = [packet.from_broker == (place == "broker") for packet in here]
    columns: dict[str, tuple[list[Any], Any]] = {
        "timestamp": ([getattr(packet, f"at_{place}") for packet in here], pl.Datetime("ns", "UTC")),
        "connection_id": (
            [packet.there or packet.connection if place == "broker" else packet.connection for packet in here],
            pl.Categorical,
        ),
        "from_broker": ([packet.from_broker for packet in here], pl.Boolean),
        "seq": ([packet.seq % 2**32 for packet in here], pl.UInt32),
        "ack": ([packet.ack % 2**32 for packet in here], pl.UInt32),
        "payload_len": ([packet.length for packet in here], pl.UInt32),
        "tcp_flags": ([packet.flags for packet in here], pl.UInt16),
        "window_size": ([packet.window for packet in here], pl.UInt32),
        "ip_id": ([packet.ip_id for packet in here], pl.UInt16),
        "tsval": ([packet.tsval for packet in here], pl.UInt32),
        "tsecr": ([packet.tsecr for packet in here], pl.UInt32),
        "segment": ([packet.segment if own else packet.label_there for packet, own in zip(here, sends, strict=True)], pl.Categorical),
        "is_retransmission": ([own and packet.segment == "retransmitted" for packet, own in zip(here, sends, strict=True)], pl.Boolean),
    }
    return pl.DataFrame([pl.Series(name, values, kind) for name, (values, kind) in columns.items()])


def connections(*rows: tuple[str, int | None, int | None]) -> pl.DataFrame:
    """The data set `connections` as far as it is needed: id, and both initial sequence numbers."""
    table = []
    for name, isn_client, isn_broker in rows:
        client, broker = name.split("#")[0].split("-")
        (client_ip, client_port), (broker_ip, broker_port) = (end.rsplit(":", 1) for end in (client, broker))
        table.append((name, client_ip, int(client_port), broker_ip, int(broker_port), isn_client, isn_broker))
    schema = {
        "connection_id": pl.String, "client_ip": pl.String, "client_port": pl.UInt16, "broker_ip": pl.String, "broker_port": pl.UInt16,
        "isn_client": pl.UInt32, "isn_broker": pl.UInt32,
    }  # fmt: skip
    return pl.DataFrame(table, schema=schema, orient="row")


def slowly_matched(client: pl.DataFrame, broker: pl.DataFrame, pairs: pl.DataFrame) -> set[tuple[Any, ...]]:
    """`matching.match_packets` one packet after another: (pair, from_broker, client_row, broker_row, sure)."""
    found: set[tuple[Any, ...]] = set()
    for pair, client_id, broker_id, _ in pairs.iter_rows():
        for from_broker in (False, True):
            sides = [
                [
                    (row, packet)
                    for row, packet in enumerate(table.iter_rows(named=True))
                    if (packet["connection_id"], packet["from_broker"]) == (name, from_broker)
                ]
                for table, name in ((client, client_id), (broker, broker_id))
            ]
            rows = _joined(sides, with_ids=True)
            left = [
                {_content(packet) for row, packet in side if (row, None) in alone} for side, alone in zip(sides, _alone(rows), strict=True)
            ]
            if len(left[0] & left[1]) > sum(None not in row[:2] for row in rows):
                rows = _joined(sides, with_ids=False)
            found |= {(pair, from_broker, *row) for row in rows}
    return found


Side = list[tuple[int, dict[str, Any]]]
Joined = list[tuple[int | None, int | None, bool]]


def _joined(sides: Sequence[Side], *, with_ids: bool) -> Joined:
    """The packets of a connection's direction with their copies at the other tap: the first with the first of those that are the same."""
    groups: list[dict[Any, list[int]]] = []
    for side in sides:
        group: dict[Any, list[int]] = defaultdict(list)
        for row, packet in side:
            group[_content(packet), packet["ip_id"] if with_ids else None].append(row)
        groups.append(group)
    here, there = groups
    found: Joined = []
    for key in here.keys() | there.keys():
        ours, theirs = here.get(key, []), there.get(key, [])
        both = min(len(ours), len(theirs))
        found += [(ours[k], theirs[k], len(ours) == len(theirs)) for k in range(both)]
        # The first of several is as unsure as the rest.
        sure = len(ours) + len(theirs) == 1
        found += [(row, None, sure) for row in ours[both:]] + [(None, row, sure) for row in theirs[both:]]
    return found


def _alone(rows: Joined) -> tuple[set[tuple[int | None, None]], set[tuple[int | None, None]]]:
    return {(here, None) for here, there, _ in rows if there is None}, {(there, None) for here, there, _ in rows if here is None}


def _content(packet: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(packet[name] for name in ("seq", "ack", "payload_len", "tcp_flags", "window_size", "tsval", "tsecr"))


def slow_fates(packets: Sequence[Packet]) -> list[tuple[str, bool]]:
    """Fate of each packet of one connection, and whether it was overtaken; ``seq`` and ``ack`` here are positions that do not wrap.

    Each packet is its own: those that both taps have are written down once.
    """
    sent = {place: packet.at_broker if packet.from_broker else packet.at_client for place, packet in enumerate(packets)}
    received = {place: packet.at_client if packet.from_broker else packet.at_broker for place, packet in enumerate(packets)}
    both = {place for place in sent if sent[place] is not None and received[place] is not None}

    def octets(place: int) -> set[int]:
        packet = packets[place]
        return set() if packet.flags & RST else set(range(packet.seq, packet.seq + packet.length))

    def seen(chosen: set[int], from_broker: bool) -> set[int]:
        return {octet for place in chosen if packets[place].from_broker == from_broker for octet in octets(place)}

    only_sent = {place for place in sent if sent[place] is not None} - both
    only_received = {place for place in received if received[place] is not None} - both
    cut_anew = {
        place
        for alone, others in ((only_sent, only_received), (only_received, only_sent))
        for place in alone
        if octets(place) and octets(place) <= seen(others, packets[place].from_broker)
    }
    fates = []
    for place, packet in enumerate(packets):
        met = [other for other in both if packets[other].from_broker == packet.from_broker]
        times = sent if sent[place] is not None else received
        known = [times[other] or 0 for other in met]
        if place in both:
            fate = "arrived"
        elif not known or not min(known) <= (times[place] or 0) <= max(known):
            fate = "outside"
        elif place in cut_anew:
            fate = "cut_anew"
        elif place in only_received or _never_seen(place, packets, sent, received, octets, seen) or _in_gap(place, packets, cut_anew):
            fate = "not_captured"
        else:
            fate = "lost"
        overtaken = place in both and any(
            (received[other], sent[other]) < (received[place], sent[place]) and (sent[other] or 0) > (sent[place] or 0) for other in met
        )
        fates.append((fate, overtaken))
    return fates


def _never_seen(
    place: int, packets: Sequence[Packet], sent: dict[int, int | None], received: dict[int, int | None], octets: Any, seen: Any
) -> bool:
    """Acknowledged in the end, as the sender's tap saw it, and at the receiver's tap in no packet."""
    direction = packets[place].from_broker
    if not octets(place) or octets(place) <= seen({other for other in received if received[other] is not None}, direction):
        return False
    acks = [
        (received[other], other, packet.ack)
        for other, packet in enumerate(packets)
        if packet.from_broker != direction and received[other] is not None and packet.flags & ACK and not packet.flags & RST
    ]
    return bool(acks) and packets[place].seq + packets[place].length <= max(acks)[2]


def _in_gap(place: int, packets: Sequence[Packet], cut_anew: set[int]) -> bool:
    """The packets that the sender's tap received next before and next behind were never captured where they were sent."""
    own = "at_broker" if packets[place].from_broker else "at_client"
    other = "at_client" if packets[place].from_broker else "at_broker"
    when = getattr(packets[place], own)
    comes = sorted(
        (getattr(packet, own), number)
        for number, packet in enumerate(packets)
        if packet.from_broker != packets[place].from_broker and getattr(packet, own) is not None
    )
    before, behind = [number for time, number in comes if time < when], [number for time, number in comes if time > when]
    return bool(before and behind) and all(
        getattr(packets[number], other) is None and number not in cut_anew for number in (before[-1], behind[0])
    )


def moved(packets: Sequence[Packet], by: int) -> list[Packet]:
    """The same with the broker's tap's clock ahead by so many ns."""
    return [replace(packet, at_broker=None if packet.at_broker is None else packet.at_broker + by) for packet in packets]
