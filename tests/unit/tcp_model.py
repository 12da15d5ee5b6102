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
    sent: int
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
    selected: bool = False
    latest: int = 0


@dataclass
class Again:
    """A segment that was sent again; ``stamp`` is its timestamp while the first acknowledgement of it can tell which copy it answers."""

    start: int
    end: int
    row: int
    stamp: int | None
    reported: bool = False


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
    limit: int = 1460
    smoothed: int | None = None
    spread: int = 0
    reported: int | None = None
    limited_since: int | None = None
    first_syn: int | None = None
    last_syn: int = 0
    tail_sent: int | None = None
    tail_copies: int = 0
    probes: bool = True
    fragment: int | None = None
    again: list[Again] = field(default_factory=list)
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
    kind: str = ""
    evidence: set[str] = field(default_factory=set)
    new: int = 0
    in_flight: int = -1
    late: int = 0
    late_segments: int = 0


class Model:
    """One connection; ``rows`` are its packets in order with position, ack position (or -1) and whether they are duplicates."""

    def __init__(self, rows: list[tuple[Packet, int, int, bool]]) -> None:
        self.input = rows
        self.sides = (Side(), Side())
        self.rows = [Row() for _ in rows]
        self.counts: list[dict[str, int]] = [{}, {}]
        self.facts: dict[str, Any] = {
            "ended": "open",
            "reset_by": "",
            "handshake": [-1, -1],
            "started": False,
            "reset_kind": "",
            "closed_by": "",
            "connect": -1,
        }
        self.previous: int | None = None
        self.survey()
        for number, (packet, position, ack_position, duplicate) in enumerate(rows):
            self.take(number, packet, position, ack_position, duplicate)
        last = max((packet.time for packet, _, _, duplicate in rows if not duplicate), default=0)
        for number, side in enumerate(self.sides):
            if side.closed_since is not None:
                self.count(number, "zero_window_ns", last - side.closed_since)
            if side.limited_since is not None:
                self.count(number, "window_limited_ns", last - side.limited_since)
            self.count(number, "unfilled_bytes", sum(not record.before for record in side.missing.values()))
        self.facts["setup"] = self.setup()

    def setup(self) -> str:
        client, broker = self.sides
        if not self.facts["started"]:
            return "not_captured"
        if self.facts["reset_kind"] == "refused":
            return "refused"
        if client.packets > client.syns:
            return "complete"
        return "half_open" if broker.packets else "no_answer"

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
                self.count(packet.side, "syns")
                side.first_syn = packet.time if side.first_syn is None else side.first_syn
                if self.sides[1 - packet.side].first_syn is None:
                    side.last_syn = packet.time
                if side.isn is None:
                    side.isn = side.edge = side.acked = side.floor = position
                    wide[packet.side] = packet.window_scale >= 0
                    side.scale = min(max(packet.window_scale, 0), 14)
                    side.mss = packet.mss or None
                    side.probes = packet.sack_permitted
                    self.facts["started"] |= packet.side == 0 and not packet.flags & ACK
            if position >= top[packet.side] and packet.ip_id > 0:
                if last[packet.side]:
                    steps[packet.side].append(0 < wrapped(packet.ip_id, last[packet.side], 16) < 5000)
                last[packet.side] = packet.ip_id
            top[packet.side] = max(top[packet.side], position)
        known = [side.mss for side in self.sides]
        self.facts["mss"] = min(known[0], known[1]) if known[0] and known[1] else -1
        first = self.sides[0].first_syn
        self.facts["retry"] = max(self.sides[0].last_syn - first, 0) if self.facts["started"] and first is not None else 0
        for number, side in enumerate(self.sides):
            side.limit = self.facts["mss"] if self.facts["mss"] > 0 else 1460
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
            if self.valid_reset(me, peer, packet):
                if not self.facts["reset_by"]:
                    self.facts["reset_by"] = ("client", "broker")[packet.side]
                    self.facts["reset_kind"] = self.reset_kind(packet, me)
                if not me.fin:
                    self.facts["ended"] = "reset"
            else:
                self.count(packet.side, "invalid_resets")
            self.previous = packet.time
            return None
        self.previous = packet.time
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
        if position >= 0 and not packet.more_fragments:
            row.label = me.label = self.data(number, packet, position)
            me.packets += 1
        elif position >= 0 and (me.fragment is None or me.fragment != me.edge):
            me.fragment = position
        if ack_position >= 0:
            answers_syn = peer.isn is not None and peer.acked == peer.isn
            row.rtt = self.ack(number, packet, ack_position, row.label)
            if answers_syn:
                row.rtt = self.leg(packet, ack_position, row.rtt)
            if row.rtt >= 0:
                me.least_rtt = row.rtt if me.least_rtt is None else min(me.least_rtt, row.rtt)
                if me.smoothed is None:
                    me.smoothed, me.spread = row.rtt, row.rtt // 2
                else:
                    me.spread += (abs(me.smoothed - row.rtt) - me.spread) // 4
                    me.smoothed += (row.rtt - me.smoothed) // 8
            client, broker = self.sides
            if (
                packet.side == 0
                and self.facts["started"]
                and broker.isn is not None
                and ack_position > broker.isn
                and not packet.flags & SYN
            ):
                if self.facts["connect"] < 0 and client.first_syn is not None:
                    self.facts["connect"] = packet.time - client.first_syn
        if packet.flags & FIN:
            me.fin = True
            self.facts["closed_by"] = self.facts["closed_by"] or ("client", "broker")[packet.side]
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
        if packet.payload:
            self.limit(packet.side, packet.time)
            if me.end is not None and me.acked is not None:
                row.in_flight = max(me.end - me.acked - sum(sent.end - sent.start for sent in me.waiting if sent.selected), 0)
                most = self.counts[packet.side].get("most_in_flight", 0)
                self.counts[packet.side]["most_in_flight"] = max(most, row.in_flight)
        if ack_position >= 0:
            self.limit(1 - packet.side, packet.time)
        return None

    def limit(self, number: int, time: int) -> None:
        me, peer = self.sides[number], self.sides[1 - number]
        limited = False
        if peer.scale is not None and peer.window and me.acked is not None:
            flight = (me.end if me.end is not None else -1) - me.acked
            limited = flight > 0 and flight + me.limit > peer.window << peer.scale
        if limited and me.limited_since is None:
            me.limited_since = time
        elif not limited and me.limited_since is not None:
            self.count(number, "window_limited_ns", time - me.limited_since)
            me.limited_since = None

    def reset_kind(self, packet: Packet, me: Side) -> str:
        if me.fin:
            return "after_fin"
        if self.facts["started"] and packet.side == 1 and not me.packets:
            return "refused"
        return "idle" if self.previous is not None and packet.time - self.previous > 60_000 * MS else "abort"

    @staticmethod
    def valid_reset(me: Side, peer: Side, packet: Packet) -> bool:
        ends = [value for value in (me.end, me.acked) if value is not None]
        if not ends:
            if peer.isn is None or peer.edge is None:
                return True
            return bool(packet.flags & ACK) and 0 < wrapped(packet.ack, peer.isn) <= peer.edge - peer.isn
        place = max(ends) + wrapped(packet.seq, max(ends))
        low = me.acked if me.acked is not None else max(ends)
        return low - 0xFFFF <= place <= max(ends) + ((peer.window or 0) << (peer.scale if peer.scale is not None else 14))

    def data(self, number: int, packet: Packet, start: int) -> str:
        row = self.rows[number]
        me, peer, side = self.sides[packet.side], self.sides[1 - packet.side], packet.side
        ends = bool(packet.flags & (SYN | FIN))
        size = packet.payload
        if not ends and size <= 1 and me.acked is not None:
            if peer.window == 0 and (size, start) in ((0, me.acked - 1), (1, me.acked)):
                if size == 1 and start >= (me.edge if me.edge is not None else -1):
                    me.probe = start
                self.count(side, "window_probes")
                return "window_probe"
            early = size and me.tail_sent is not None and packet.time - me.tail_sent < 1000 * MS
            if start == me.acked - 1 and me.acked >= (me.end or 0) and not early:
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
                me.missing[byte] = Missing(packet.time, packet.ip_id, packet.tsval, True, 0)
            me.floor = start
        self.take_probed_byte(me, start)
        edge = me.edge
        label = ""
        if length:
            old = range(start, min(end, edge))
            fill = [byte for byte in old if byte in me.missing]
            seen = [byte for byte in old if byte not in me.missing]
            payload = range(first, first + size)
            late = False
            label = "new"
            if size > me.limit - (12 if packet.tsval >= 0 else 0):
                row.evidence.add("larger_than_mss")
                self.count(side, "large_segments")
            if seen:
                label = "retransmitted"
            elif fill:
                label = self.why_late(packet, me, fill, start, end, row)
                late = label == "new"
            if label in ("filled", "reordered"):
                row.late = packet.time - me.missing[fill[0]].opened
                row.late_segments = self.counts[side].get("data_segments", 0) + 1 - me.missing[fill[0]].sent
            if label in ("filled", "retransmitted") and not unknown:
                self.why_again(number, packet, start, end, me.missing[fill[0]].opened if label == "filled" else None)
            if unknown:
                label = "ambiguous"
            row.new = size - sum(byte in payload for byte in seen)
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
                            sent.latest = packet.time
                        else:
                            sent.waits = True
                if end == edge:
                    me.tail_copies += 1
                    me.tail_sent = packet.time
        if start > edge:
            for byte in range(edge, start):
                me.missing[byte] = Missing(
                    packet.time, packet.ip_id, packet.tsval, unknown or me.fragment == edge, self.counts[side].get("data_segments", 0)
                )
        if end > edge:
            me.edge = end
            if length:
                me.tail_sent, me.tail_copies = packet.time, 0
            acked = me.acked if me.acked is not None else -1
            if length and acked < end:
                sent = Sent(max(start, edge), end, packet.time, size, latest=packet.time)
                sent.again = label != "new" or start < edge or start < acked or bool(packet.flags & SYN and me.syns > 1)
                sent.waits = any(byte >= acked for byte in me.missing)
                me.waiting.append(sent)
        me.end = max(end, me.end if me.end is not None else end)
        if packet.flags & FIN and (me.isn is None or end - 1 > me.isn):
            me.fin_at = end - 1
        me.data |= size > 0
        return label

    @staticmethod
    def take_probed_byte(me: Side, position: int) -> None:
        if me.edge is not None and me.probe == me.edge < position:
            me.edge = me.end = me.edge + 1

    def why_late(self, packet: Packet, me: Side, fill: list[int], start: int, end: int, row: Row) -> str:
        record = me.missing[fill[0]]
        if record.before:
            row.evidence.add("before_capture")
        if (me.acked is not None and me.acked >= end) or record.ack_row is not None:
            if record.ack_row is not None and packet.time - record.ack_time <= MS:
                for byte in fill:
                    found = me.missing[byte]
                    if found.ack_row is not None and packet.time - found.ack_time <= MS and not found.before:
                        self.rows[found.ack_row].unseen -= 1
                row.evidence.add("capture_order")
                return "new"
            row.evidence.add("acked_before")
            return "ambiguous"
        vote = self.vote(packet, me, record, start, end, row.evidence)
        return "reordered" if vote < 0 else "filled" if vote > 0 and not record.before else "ambiguous"

    def vote(self, packet: Packet, me: Side, record: Missing, start: int, end: int, evidence: set[str]) -> int:
        votes = set()
        if me.ids_tell and packet.ip_id > 0 and record.ip_id > 0:
            if -5000 < wrapped(packet.ip_id, record.ip_id, 16) < 0:
                evidence.add("id_earlier")
                votes.add(-1)
            elif me.latest_id is not None and 0 < wrapped(packet.ip_id, me.latest_id, 16) < 5000:
                evidence.add("id_later")
                votes.add(1)
        if packet.tsval >= 0 and record.tsval >= 0 and packet.tsval != record.tsval:
            later = wrapped(packet.tsval, record.tsval) > 0
            evidence.add("stamp_later" if later else "stamp_earlier")
            votes.add(1 if later else -1)
        reported = False
        if me.repeats >= 3:
            evidence.add("duplicate_acks")
            reported = True
        if me.sacked >= end and me.acked is not None and me.acked <= start:
            evidence.add("selective_acks")
            reported = True
        waited = packet.time - record.opened
        halves = [side.least_rtt for side in self.sides if side.least_rtt is not None]
        if waited < min(sum(halves), 3 * MS):
            evidence.add("short_wait")
        elif waited >= (0.9 * sum(halves) if len(halves) == 2 else 200 * MS):
            evidence.add("long_wait")
        if votes:
            return votes.pop() if len(votes) == 1 else 0
        if "short_wait" in evidence:
            return -1
        return 1 if reported or "long_wait" in evidence else 0

    def why_again(self, number: int, packet: Packet, start: int, end: int, opened: int | None) -> None:
        me, peer, row = self.sides[packet.side], self.sides[1 - packet.side], self.rows[number]
        original = next((sent for sent in me.waiting if sent.start <= start < sent.end), None)
        at_tail = end == me.edge and me.tail_sent is not None
        since = opened if opened is not None else original.latest if original else me.tail_sent if at_tail else None
        waited = packet.time - since if since is not None else -1
        sender = me.least_rtt or 0
        smoothed = peer.smoothed + sender if peer.smoothed is not None else None
        timeout = 200 * MS if smoothed is None else max(200 * MS, smoothed + 4 * peer.spread)
        if me.repeats >= 3:
            row.evidence.add("duplicate_acks")
        if me.sacked > end:
            row.evidence.add("selective_acks")
        if me.acked is not None and me.acked >= end:
            row.evidence.add("acked_before")
        if waited >= 0 and 10 * waited >= 9 * timeout:
            row.evidence.add("timeout_passed")
        if at_tail and me.tail_copies == 0 and me.repeats == 0 and "selective_acks" not in row.evidence:
            row.evidence.add("tail")
        above = sum(sent.end - sent.start for sent in me.waiting if sent.selected and sent.start >= end)
        reacts = me.reported is not None and packet.time - me.reported <= sender + 20 * MS
        if reacts and (me.repeats >= 3 or above > 2 * me.limit):
            row.kind = "fast"
        elif (
            "tail" in row.evidence and self.sides[0].probes and self.sides[1].probes and smoothed is not None
            and start > (-1 if me.isn is None else me.isn) and (opened is not None or 1.5 * smoothed <= waited) and waited <= 1.2 * max(2 * smoothed + 200 * MS, timeout)
        ):  # fmt: skip
            row.kind = "tail_probe"
        elif "timeout_passed" in row.evidence:
            row.kind = "timeout"
        else:
            row.kind = "rack" if "selective_acks" in row.evidence else "unknown"
        oldest = me.acked is not None and start <= me.acked < end
        me.again.append(Again(start, end, number, packet.tsval if oldest and packet.tsval >= 0 else None))

    def ack(self, number: int, packet: Packet, ack: int, label: str) -> int:
        me, peer = self.sides[packet.side], self.sides[1 - packet.side]
        before = peer.acked if peer.acked is not None else -1
        sacked = peer.sacked
        trip = -1
        blocks = [[ack + wrapped(edge % 2**32, packet.ack % 2**32) for edge in block] for block in packet.sacks[:4]]
        for place, (left, right) in enumerate(blocks):
            if right <= left:
                continue
            if place == 0 and (right <= ack or (len(blocks) > 1 and blocks[1][0] <= left and right <= blocks[1][1])):
                self.count(packet.side, "dsacks")
                told = left
                for again in peer.again:
                    if not again.reported and again.start >= told and again.end <= right:
                        again.reported = True
                        told = again.end
                        self.rows[again.row].evidence.add("dsack")
                continue
            if not left >= ack >= before:
                continue
            covered = [sent for sent in peer.waiting if sent.start >= left and sent.end <= right]
            last = covered[-1] if covered else None
            if last and last.end == right and not last.again and not last.done:
                trip = packet.time - last.time if trip < 0 else min(trip, packet.time - last.time)
            for sent in reversed(covered):
                if sent.done:
                    break
                sent.done = sent.selected = True
            if right > sacked:
                peer.reported = packet.time
            sacked = max(sacked, right)
        if ack > before:
            self.advance(number, 1 - packet.side, ack)
            answered = [sent for sent in peer.waiting if sent.end <= ack]
            peer.waiting = [sent for sent in peer.waiting if sent.end > ack]
            clean = [sent for sent in answered if sent.end == ack and not (sent.again or sent.waits or sent.done)]
            inside = [sent for sent in peer.waiting[:1] if sent.start < ack]
            for sent in inside:
                if sent.payload > peer.limit and not (sent.again or sent.waits or sent.done):
                    clean = [sent]
                sent.done = True
            if clean:
                trip = packet.time - clean[-1].time
            peer.repeats = 0
            for again in peer.again:
                if again.stamp is not None and again.end <= ack:
                    if packet.tsval >= 0 and wrapped(packet.tsecr % 2**32, again.stamp % 2**32) < 0:
                        self.rows[again.row].evidence.add("eifel")
                    again.stamp = None
        elif ack == before and packet.payload == 0 and not packet.flags & (SYN | FIN) and label == "" and (peer.end or -1) > ack:
            if peer.label not in ("keepalive", "window_probe") and (packet.window == me.window or sacked > peer.sacked):
                self.count(packet.side, "duplicate_acks")
                peer.repeats += 1
                peer.reported = packet.time
                if peer.repeats == 3:
                    self.count(packet.side, "triple_duplicate_acks")
        peer.sacked = sacked
        return trip

    def advance(self, number: int, side: int, ack: int) -> None:
        me, time = self.sides[side], self.input[number][0].time
        sent = self.counts[side].get("data_segments", 0)
        if me.acked is None or (me.acked == me.isn and ack > me.acked + 2**20) or ack > me.acked + 2**30:
            me.acked = ack
            if me.edge is None:
                me.floor = me.edge = ack
            for byte in range(me.edge, ack):
                me.missing[byte] = Missing(time, -1, -1, True, sent)
            me.edge = max(me.edge, ack)
            return
        assert me.edge is not None
        self.take_probed_byte(me, ack)
        if not me.data and me.isn is None and me.floor == me.end == me.edge == ack - 1:
            me.edge = me.end = me.floor = ack
        bytes_acked = [byte for byte in range(me.acked, ack) if byte not in (me.isn, me.fin_at)]
        for byte in range(me.edge, ack):
            me.missing[byte] = Missing(time, -1, -1, me.fragment == me.edge, sent)
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
