"""The pass over a connection's segments, slow and byte by byte: the twin of the kernel in `brokerlens.tcp.segments`.

Every byte of a sequence space is looked up on its own; a byte that was not captured has the record of the packet that showed it missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tcp_packets import ACK, FIN, MS, RST, SYN, Packet


def wrapped(a: int, b: int, bits: int = 32) -> int:
    half = 1 << (bits - 1)
    return (a - b + half) % (1 << bits) - half


@dataclass
class Missing:
    """A byte that is known to exist and was not captured."""

    opened: int
    ip_id: int
    tsval: int
    before: bool
    ack_row: int | None = None
    ack_time: int = 0


@dataclass
class Sent:
    """A segment that waits for its acknowledgement."""

    start: int
    end: int
    time: int
    payload: int
    waits: bool = False
    again: bool = False
    done: bool = False


@dataclass
class Side:
    """One direction: its sender's sequence space, and the window that the sender advertises."""

    isn: int | None = None
    edge: int | None = None
    end: int | None = None
    acked: int | None = None
    floor: int | None = None
    fin_at: int | None = None
    probe: int | None = None
    sacked: int = -1
    repeats: int = 0
    window: int | None = None
    closed_since: int | None = None
    scale: int | None = None
    mss: int | None = None
    latest_id: int | None = None
    ids_tell: bool = False
    least_rtt: int | None = None
    packets: int = 0
    data: bool = False
    label: str = ""
    fin: bool = False
    syns: int = 0
    syn_passed: bool = False
    missing: dict[int, Missing] = field(default_factory=dict)
    waiting: list[Sent] = field(default_factory=list)


@dataclass
class Row:
    """What the pass says of one packet."""

    label: str = ""
    rtt: int = -1
    window: int = -1
    acked: int = 0
    unseen: int = 0
    closes: bool = False


class Model:
    """One connection; ``rows`` are its packets in order with position, ack position (or -1) and whether they are duplicates."""

    def __init__(self, rows: list[tuple[Packet, int, int, bool]]) -> None:
        self.input = rows
        self.sides = (Side(), Side())
        self.rows = [Row() for _ in rows]
        self.counts: list[dict[str, int]] = [{}, {}]
        self.facts: dict[str, Any] = {"ended": "open", "reset_by": "", "handshake": [-1, -1], "started": False}
        self.survey()
        for number, (packet, position, ack_position, duplicate) in enumerate(rows):
            self.take(number, packet, position, ack_position, duplicate)
        last = max((packet.time for packet, _, _, duplicate in rows if not duplicate), default=0)
        for number, side in enumerate(self.sides):
            if side.closed_since is not None:
                self.count(number, "zero_window_ns", last - side.closed_since)

    def count(self, side: int, name: str, amount: int = 1) -> None:
        self.counts[side][name] = self.counts[side].get(name, 0) + amount

    def survey(self) -> None:
        wide: list[bool | None] = [None, None]
        top, last = [-1, -1], [0, 0]
        steps: tuple[list[bool], list[bool]] = ([], [])
        for packet, position, _, duplicate in self.input:
            side = self.sides[packet.side]
            if duplicate or position < 0:
                continue
            if packet.flags & SYN:
                side.syns += 1
                if side.isn is None:
                    side.isn = side.edge = side.acked = side.floor = position
                    wide[packet.side] = packet.window_scale >= 0
                    side.scale = min(max(packet.window_scale, 0), 14)
                    side.mss = packet.mss or None
                    self.facts["started"] |= packet.side == 0 and not packet.flags & ACK
            if position >= top[packet.side] and packet.ip_id > 0:
                if last[packet.side]:
                    steps[packet.side].append(0 < wrapped(packet.ip_id, last[packet.side], 16) < 5000)
                last[packet.side] = packet.ip_id
            top[packet.side] = max(top[packet.side], position)
        for number, side in enumerate(self.sides):
            if wide[0] is None or wide[1] is None:
                side.scale = None
            elif not (wide[0] and wide[1]):
                side.scale = 0
            side.ids_tell = bool(steps[number]) and sum(steps[number]) >= 0.95 * len(steps[number]) - 1e-9

    def take(self, number: int, packet: Packet, position: int, ack_position: int, duplicate: bool) -> None:
        me, peer, row = self.sides[packet.side], self.sides[1 - packet.side], self.rows[number]
        if packet.flags & SYN:
            row.window = packet.window
        elif me.scale is not None:
            row.window = packet.window << me.scale
        if duplicate:
            return self.count(packet.side, "duplicate_segments")
        self.count(packet.side, "packets")
        if packet.flags & RST:
            self.count(packet.side, "resets")
            if self.valid_reset(me, peer, packet.seq):
                self.facts["reset_by"] = self.facts["reset_by"] or ("client", "broker")[packet.side]
                if not me.fin:
                    self.facts["ended"] = "reset"
            return None
        self.count(packet.side, "payload_bytes", packet.payload)
        me.syn_passed |= bool(packet.flags & SYN)
        if me.isn is not None and not packet.flags & SYN:
            early = not me.syn_passed and not me.isn <= position < me.isn + 2**20
            if early or 0 <= position < me.isn:
                if packet.payload or packet.flags & FIN:
                    row.label = "ambiguous"
                    self.count(packet.side, "data_segments")
                    self.count(packet.side, "ambiguous_segments")
                return None
        if position >= 0:
            row.label = me.label = self.data(packet, position)
            me.packets += 1
        if ack_position >= 0:
            answers_syn = peer.isn is not None and peer.acked == peer.isn
            row.rtt = self.ack(number, packet, ack_position, row.label)
            if answers_syn:
                row.rtt = self.leg(packet, ack_position, row.rtt)
            if row.rtt >= 0:
                me.least_rtt = row.rtt if me.least_rtt is None else min(me.least_rtt, row.rtt)
        if packet.flags & FIN:
            me.fin = True
            if self.facts["ended"] == "open":
                self.facts["ended"] = "fin"
        if packet.flags & ACK and not packet.flags & (SYN | FIN):
            if packet.window == 0 and me.closed_since is None:
                me.closed_since = packet.time
                row.closes = True
                self.count(packet.side, "zero_window_episodes")
            elif packet.window > 0 and me.closed_since is not None:
                self.count(packet.side, "zero_window_ns", packet.time - me.closed_since)
                me.closed_since = None
        me.window = packet.window
        if packet.ip_id > 0 and (me.latest_id is None or wrapped(packet.ip_id, me.latest_id, 16) > 0):
            me.latest_id = packet.ip_id
        return None

    @staticmethod
    def valid_reset(me: Side, peer: Side, seq: int) -> bool:
        ends = [value for value in (me.end, me.acked) if value is not None]
        if not ends:
            return True
        place = max(ends) + wrapped(seq, max(ends))
        low = me.acked if me.acked is not None else max(ends)
        return low - 0xFFFF <= place <= max(ends) + ((peer.window or 0) << (peer.scale if peer.scale is not None else 14))

    def data(self, packet: Packet, start: int) -> str:
        me, peer, side = self.sides[packet.side], self.sides[1 - packet.side], packet.side
        ends = bool(packet.flags & (SYN | FIN))
        size = packet.payload
        if not ends and size <= 1 and me.acked is not None:
            if peer.window == 0 and (size, start) in ((0, me.acked - 1), (1, me.acked)):
                if size == 1 and start >= (me.edge if me.edge is not None else -1):
                    me.probe = start
                self.count(side, "window_probes")
                return "window_probe"
            end = me.end if me.end is not None else me.acked
            if start == end - 1 and me.acked >= end:
                self.count(side, "keepalives")
                return "keepalive"
        first = start + (1 if packet.flags & SYN else 0)
        end = first + size + (1 if packet.flags & FIN else 0)
        length = end - start
        unknown = me.packets == 0 and me.isn is None
        if me.edge is None or me.floor is None:
            me.edge = me.floor = start
        if start < me.floor:
            if not length:
                return ""
            for byte in range(start, me.floor):
                me.missing[byte] = Missing(packet.time, packet.ip_id, packet.tsval, True)
            me.floor = start
        edge = me.edge
        label = ""
        if length:
            old = range(start, min(end, edge))
            fill = [byte for byte in old if byte in me.missing]
            seen = [byte for byte in old if byte not in me.missing]
            payload = range(first, first + size)
            late = False
            label = "new"
            if seen:
                label = "retransmitted"
            elif fill:
                label = self.why_late(packet, me, fill, start, end)
                late = label == "new"
            if unknown:
                label = "ambiguous"
            self.count(side, "data_segments")
            if label != "new":
                self.count(side, f"{label}_segments")
            if label == "retransmitted":
                self.count(side, "retransmitted_bytes", sum(byte in payload for byte in seen))
            if label in ("retransmitted", "filled"):
                self.count(side, "filled_bytes", sum(byte in payload for byte in fill))
            for byte in fill:
                del me.missing[byte]
            if old and not late:
                for sent in me.waiting:
                    if sent.end > start:
                        if sent.start < end:
                            sent.again = True
                        else:
                            sent.waits = True
        if start > edge:
            for byte in range(edge, start):
                me.missing[byte] = Missing(packet.time, packet.ip_id, packet.tsval, unknown)
        if end > edge:
            me.edge = end
            acked = me.acked if me.acked is not None else -1
            if length and acked < end:
                sent = Sent(start, end, packet.time, size)
                sent.again = label != "new" or start < edge or start < acked or bool(packet.flags & SYN and me.syns > 1)
                sent.waits = any(byte >= acked for byte in me.missing)
                me.waiting.append(sent)
        me.end = max(end, me.end if me.end is not None else end)
        if packet.flags & FIN:
            me.fin_at = end - 1
        me.data |= size > 0
        return label

    def why_late(self, packet: Packet, me: Side, fill: list[int], start: int, end: int) -> str:
        record = me.missing[fill[0]]
        if (me.acked is not None and me.acked >= end) or record.ack_row is not None:
            if record.ack_row is not None and packet.time - record.ack_time <= MS:
                for byte in fill:
                    found = me.missing[byte]
                    if found.ack_row is not None and packet.time - found.ack_time <= MS and not found.before:
                        self.rows[found.ack_row].unseen -= 1
                return "new"
            return "ambiguous"
        vote = self.vote(packet, me, record, start, end)
        return "reordered" if vote < 0 else "filled" if vote > 0 and not record.before else "ambiguous"

    def vote(self, packet: Packet, me: Side, record: Missing, start: int, end: int) -> int:
        by_id = by_time = 0
        if me.ids_tell and packet.ip_id > 0 and record.ip_id > 0:
            if -5000 < wrapped(packet.ip_id, record.ip_id, 16) < 0:
                by_id = -1
            elif me.latest_id is not None and 0 < wrapped(packet.ip_id, me.latest_id, 16) < 5000:
                by_id = 1
        if packet.tsval >= 0 and record.tsval >= 0:
            later = wrapped(packet.tsval, record.tsval)
            by_time = (later > 0) - (later < 0)
        if by_id and by_time:
            return by_id if by_id == by_time else 0
        if by_id or by_time:
            return by_id or by_time
        if me.repeats >= 3 or (me.sacked >= end and me.acked is not None and me.acked <= start):
            return 1
        waited = packet.time - record.opened
        halves = [side.least_rtt for side in self.sides if side.least_rtt is not None]
        if not halves:
            return 1 if waited >= 200 * MS else 0
        if waited < min(sum(halves), 3 * MS):
            return -1
        return 1 if waited >= 0.9 * sum(halves) else 0

    def ack(self, number: int, packet: Packet, ack: int, label: str) -> int:
        me, peer = self.sides[packet.side], self.sides[1 - packet.side]
        before = peer.acked if peer.acked is not None else -1
        sacked = peer.sacked
        trip = -1
        for block in packet.sacks[:4]:
            left, right = (ack + wrapped(edge % 2**32, packet.ack % 2**32) for edge in block)
            if not (right > left >= ack >= before):
                continue
            covered = [sent for sent in peer.waiting if sent.start >= left and sent.end <= right]
            last = covered[-1] if covered else None
            if last and last.end == right and not last.again and not last.done:
                trip = packet.time - last.time if trip < 0 else min(trip, packet.time - last.time)
            for sent in reversed(covered):
                if sent.done:
                    break
                sent.done = True
            sacked = max(sacked, right)
        if ack > before:
            self.advance(number, 1 - packet.side, ack)
            answered = [sent for sent in peer.waiting if sent.end <= ack]
            peer.waiting = [sent for sent in peer.waiting if sent.end > ack]
            clean = [sent for sent in answered if sent.end == ack and not (sent.again or sent.waits or sent.done)]
            inside = [sent for sent in peer.waiting[:1] if sent.start < ack]
            known = [side.mss for side in self.sides]
            mss = min(known[0], known[1]) if known[0] and known[1] else 1460
            for sent in inside:
                if sent.payload > mss and not (sent.again or sent.waits or sent.done):
                    clean = [sent]
                sent.done = True
            if clean:
                trip = packet.time - clean[-1].time
            peer.repeats = 0
        elif ack == before and packet.payload == 0 and not packet.flags & (SYN | FIN) and label == "" and (peer.end or -1) > ack:
            if peer.label not in ("keepalive", "window_probe") and (packet.window == me.window or sacked > peer.sacked):
                self.count(packet.side, "duplicate_acks")
                peer.repeats += 1
        peer.sacked = sacked
        return trip

    def advance(self, number: int, side: int, ack: int) -> None:
        me, time = self.sides[side], self.input[number][0].time
        if me.acked is None or (me.acked == me.isn and ack > me.acked + 2**20):
            me.acked = ack
            if me.edge is None:
                me.floor = me.edge = ack
            for byte in range(me.edge, ack):
                me.missing[byte] = Missing(time, -1, -1, True)
            me.edge = max(me.edge, ack)
            return
        assert me.edge is not None
        if me.probe is not None and me.probe == me.edge < ack:
            me.edge = me.end = me.edge + 1
        if not me.data and me.isn is None and me.end == me.edge == ack - 1:
            me.edge = me.end = me.floor = ack
        bytes_acked = [byte for byte in range(me.acked, ack) if byte not in (me.isn, me.fin_at)]
        for byte in range(me.edge, ack):
            me.missing[byte] = Missing(time, -1, -1, False)
        me.edge = max(me.edge, ack)
        self.rows[number].acked = len(bytes_acked)
        self.count(side, "acked_bytes", len(bytes_acked))
        for byte in range(me.acked, ack):
            record = me.missing.get(byte)
            if record is not None:
                self.rows[number].unseen += record.ack_row is None and not record.before
                record.ack_row, record.ack_time = number, time
        me.acked = ack

    def leg(self, packet: Packet, ack: int, trip: int) -> int:
        peer = self.sides[1 - packet.side]
        assert peer.isn is not None
        if trip < 0 or ack != peer.isn + 1:
            return -1
        if packet.side == 1 and (not packet.flags & SYN or self.sides[1].syns != 1):
            return -1
        self.facts["handshake"][1 - packet.side] = trip
        return trip
