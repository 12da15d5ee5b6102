"""What became of each packet between two taps. No clock is needed: what one tap alone has is judged by what that tap has around it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl

from brokerlens.tcp.content import ACK, RST

FATES: Final = ("arrived", "lost", "not_captured", "cut_anew", "outside")
"""Both taps have it; it left the sender's tap and was lost before the other; it passed a tap that did not capture it; its bytes passed the other tap in
other packets (offload joins and cuts them); it is so near the ends of the captures that the other tap may not have been capturing."""
REPAIRS: Final = ("needed", "needless", "unknown")
"""Why something was sent again: it had not arrived at the other tap; it had; the repetition itself did not arrive, so that nothing says."""
_HAD_NOT_ARRIVED: Final = ("new", "filled", "reordered", "ambiguous")
_FAR: Final = 1 << 40
"""More than a direction sends, so that positions of many directions can stand behind each other: four million connections fit into 63 bits."""


@dataclass(frozen=True)
class _Packets:
    """The packets as arrays of one length; times in ns, −1 where a tap has not captured the packet."""

    direction: np.ndarray
    """2 · pair + from_broker."""
    sent: np.ndarray
    received: np.ndarray
    seq: np.ndarray
    ack: np.ndarray
    length: np.ndarray
    flags: np.ndarray

    @cached_property
    def by_sent(self) -> np.ndarray:
        """Places of the packets that the sender's tap has, by direction and its time."""
        return self._ordered(self.sent)

    @cached_property
    def by_received(self) -> np.ndarray:
        """Places of the packets that the receiver's tap has, by direction and its time."""
        return self._ordered(self.received)

    def _ordered(self, times: np.ndarray) -> np.ndarray:
        table = pl.DataFrame({"place": np.arange(times.size), "direction": self.direction, "time": times}).filter(pl.col("time") >= 0)
        return table.sort("direction", "time", maintain_order=True)["place"].to_numpy()

    @cached_property
    def both(self) -> np.ndarray:
        """Whether both taps have the packet."""
        return (self.sent >= 0) & (self.received >= 0)


def columns(packets: pl.DataFrame) -> list[pl.Series]:
    """``fate``, ``overtaken`` and ``repair`` of each packet.

    ``packets`` has ``pair``, ``from_broker``, ``sent`` and ``received`` (ns by the clock of the sender's and the receiver's tap, null where it was not captured),
    ``seq``, ``ack``, ``payload_len``, ``tcp_flags``, ``again`` (a retransmission by the sender's tap) and ``label_there`` (the segment's label at the receiver's tap).
    """
    read = {
        name: packets[name].fill_null(-1).cast(pl.Int64).to_numpy()
        for name in ("sent", "received", "seq", "ack", "payload_len", "tcp_flags")
    }
    direction = 2 * packets["pair"].cast(pl.Int64).to_numpy() + packets["from_broker"].to_numpy()
    view = _Packets(direction, read["sent"], read["received"], read["seq"], read["ack"], read["payload_len"], read["tcp_flags"])
    fate = _fates(view)
    repair = (
        pl.when(~pl.col("again")).then(None)
        .when(pl.col("received").is_null()).then(pl.lit("unknown"))
        .when(pl.col("label_there").is_in(_HAD_NOT_ARRIVED)).then(pl.lit("needed"))
        .when(pl.col("label_there") == "retransmitted").then(pl.lit("needless"))
        .otherwise(pl.lit("unknown"))
    )  # fmt: skip
    return [
        pl.Series("fate", FATES, pl.Enum(FATES)).gather(fate),
        pl.Series("overtaken", _overtaken(view)),
        packets.select(repair=repair)["repair"],
    ]


def _fates(packets: _Packets) -> np.ndarray:
    """Places in `FATES`."""
    start = _positions(packets)
    end = start + packets.length
    only_sent, only_received = (packets.sent >= 0) & ~packets.both, (packets.received >= 0) & ~packets.both
    data = (packets.length > 0) & (start >= 0)
    cut_anew = np.zeros(start.size, bool)
    for alone, others in ((only_sent, only_received), (only_received, only_sent)):
        cut_anew |= alone & data & _covered(start, end, others & data)
    unseen = only_sent & data & ~_covered(start, end, (packets.received >= 0) & data) & (end <= _acknowledged(packets, start))
    missed = only_received | unseen | _in_missed_stretch(packets, cut_anew)
    fate = np.where(missed, FATES.index("not_captured"), FATES.index("lost"))
    fate[cut_anew] = FATES.index("cut_anew")
    fate[_outside(packets)] = FATES.index("outside")
    fate[packets.both] = FATES.index("arrived")
    return fate


def _outside(packets: _Packets) -> np.ndarray:
    """Before the first or behind the last packet of its direction, of any connection, that both taps have, at the tap that has this one."""
    outside = np.zeros(packets.sent.size, bool)
    for side in (0, 1):
        of_side = packets.direction % 2 == side
        met = of_side & packets.both
        for times in (packets.sent, packets.received):
            alone = of_side & ~packets.both & (times >= 0)
            outside |= alone & ((times < times[met].min()) | (times > times[met].max()) if met.any() else True)
    return outside


def _positions(packets: _Packets) -> np.ndarray:
    """Sequence numbers unwrapped and moved behind those of the directions before; alike at both taps, −1 of resets, whose number may be anything."""
    usable = packets.flags & RST == 0
    sent, received = (_unwrapped(packets, order[usable[order]]) for order in (packets.by_sent, packets.by_received))
    shift = np.zeros(int(packets.direction.max(initial=0)) + 1, np.int64)
    both = packets.by_sent[(packets.both & usable)[packets.by_sent]]
    first = both[np.flatnonzero(np.diff(packets.direction[both], prepend=-1))]
    shift[packets.direction[first]] = sent[first] - received[first]
    position = np.where(packets.sent >= 0, sent, received + shift[packets.direction])
    return np.where(usable, packets.direction * _FAR + position, -1)


def _unwrapped(packets: _Packets, places: np.ndarray) -> np.ndarray:
    """Sequence numbers of the packets at these places, by direction and time, as they go on: never a jump of more than 2^31. Positive."""
    seq = packets.seq[places]
    step = np.diff(seq, prepend=0).astype(np.uint32).astype(np.int32).astype(np.int64)
    total = np.cumsum(step)
    begins = np.flatnonzero(np.diff(packets.direction[places], prepend=-1))
    lengths = np.diff(np.append(begins, places.size))
    unwrapped = np.zeros(packets.seq.size, np.int64)
    # One turn more, so that what comes before the first packet's number is positive, too.
    unwrapped[places] = total + np.repeat(seq[begins] - total[begins], lengths) + (1 << 32)
    return unwrapped


def _covered(start: np.ndarray, end: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Whether each stretch lies whole in those of ``by`` put together."""
    order = np.flatnonzero(by)
    order = order[np.argsort(start[order], kind="stable")]
    if not order.size:
        return np.zeros(start.size, bool)
    reach = np.maximum.accumulate(end[order])
    begins = np.flatnonzero(np.append(True, start[order][1:] > reach[:-1]))
    ends = reach[np.append(begins[1:] - 1, order.size - 1)]
    run = np.searchsorted(start[order][begins], start, side="right") - 1
    return np.asarray((run >= 0) & (end <= ends[np.maximum(run, 0)]))


def _acknowledged(packets: _Packets, start: np.ndarray) -> np.ndarray:
    """Of each packet the position up to which its direction's data were acknowledged in the end, as its sender's tap saw it; −1 where it saw none."""
    usable = start >= 0
    last_data = _last(packets.direction, packets.by_sent[usable[packets.by_sent]])
    # An acknowledgement travels the other way: the data's sender receives it.
    acks = usable & (packets.flags & ACK > 0)
    last_ack = _last(packets.direction ^ 1, packets.by_received[acks[packets.by_received]])
    until = np.full(int(packets.direction.max(initial=0) | 1) + 1, -1, np.int64)
    for direction, place in last_data.items():
        if direction in last_ack:
            ahead = np.int64(packets.ack[last_ack[direction]] - packets.seq[place]).astype(np.uint32).astype(np.int32)
            until[direction] = start[place] + ahead
    return np.asarray(until[packets.direction])


def _last(direction: np.ndarray, places: np.ndarray) -> dict[int, int]:
    """The last of these places of each direction; those of one stand together."""
    ends = np.flatnonzero(np.diff(direction[places], append=-1))
    return {int(direction[place]): int(place) for place in places[ends]}


def _in_missed_stretch(packets: _Packets, cut_anew: np.ndarray) -> np.ndarray:
    """Sent by a tap's own side while what that tap received, the packet before and the packet behind, was not captured at the other: that one had a gap.

    A tap that sends into such a gap cannot know what arrived.
    """
    missed = np.zeros(packets.sent.size, bool)
    for side in (0, 1):
        # The tap at which this side sends and the other one is received.
        own = packets.direction % 2 == side
        times = np.where(own, packets.sent, packets.received)
        places = np.flatnonzero(times >= 0)
        places = places[np.argsort(times[places], kind="stable")]
        comes = ~own[places]
        unseen = comes & (packets.sent[places] < 0) & ~cut_anew[places]
        number = np.arange(places.size)
        before = np.maximum.accumulate(np.where(comes, number, -1))
        behind = np.minimum.accumulate(np.where(comes, number, places.size)[::-1])[::-1]
        around = (before >= 0) & (behind < places.size)
        hit = around & unseen[np.maximum(before, 0)] & unseen[np.minimum(behind, places.size - 1)] if places.size else around
        missed[places[hit & ~comes]] = True
    return np.asarray(missed & ~packets.both)


def _overtaken(packets: _Packets) -> np.ndarray:
    """Arrived behind a packet of its connection and direction that was sent later (RFC 4737, by the packets themselves)."""
    sent = packets.by_sent[packets.both[packets.by_sent]]
    # Rank by time within directions that stand behind each other, so that one running maximum does for all; equal times have one rank.
    later = (np.diff(packets.sent[sent], prepend=-1) != 0) | (np.diff(packets.direction[sent], prepend=-1) != 0)
    rank = np.zeros(packets.sent.size, np.int64)
    rank[sent] = np.cumsum(later)
    both = pl.DataFrame({"place": sent, "direction": packets.direction[sent], "received": packets.received[sent], "rank": rank[sent]})
    arrived = both.sort("direction", "received", "rank")["place"].to_numpy()
    overtaken = np.zeros(packets.sent.size, bool)
    overtaken[arrived] = rank[arrived] < np.maximum.accumulate(rank[arrived])
    return overtaken
