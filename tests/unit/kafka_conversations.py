"""Generated connections as a tap sees them: pipelined requests, segments of all sizes, loss, disorder, copies, snaplen; and ways to cut captures.

Everything follows from one seed. The generator knows where frames truly begin.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from kafka_messages import Encoder, Field, request, response, some_records
from kafka_streams import ACK, SYN, Packet

MS = 1_000_000
APIS = [
    (0, "Produce", (2, 3, 7, 8, 9, 11, 12, 13)),
    (1, "Fetch", (2, 4, 7, 11, 12, 13, 16, 18)),
    (3, "Metadata", (1, 8, 9, 12, 13)),
    (18, "ApiVersions", (0, 2, 3, 4)),
    (12, "Heartbeat", (0, 3, 4)),
    (11, "JoinGroup", (5, 9)),
    (8, "OffsetCommit", (7, 8)),
]


class Truth(NamedTuple):
    """A frame as it was sent: its place in the stream of its side, from 0; `exchange` numbers the request that it is or answers."""

    side: int
    start: int
    size: int
    key: int
    version: int
    correlation: int
    fields: tuple[Field, ...]
    exchange: int


@dataclass
class Conversation:
    """packets: in the order of the tap, all in one capture. starts: where frames truly begin, positions modulo 2^32 per side; first: where the
    first byte of each side does. requests: how many.
    """

    packets: list[Packet]
    truth: list[Truth]
    client: bytes | None
    starts: tuple[set[int], set[int]]
    first: tuple[int, int]
    requests: int
    started: bool
    payload_bytes: int


def converse(seed: int, trouble: bool = True, syn: bool | None = None) -> Conversation:
    """The conversation of a seed; without `trouble` every packet is there, whole and in order."""
    rng = random.Random(seed)
    size = rng.choice((1, 7, 50, 1448, 1448, 1448, 9000))
    client = rng.choice((b"me", b"rdkafka", b"a-client-with-a-longer-name", b"caf\xc3\xa9", b"x", None))
    correlation = rng.choice((0, 1, -3, 2**31 - 5, 17, 100_000))
    step = rng.choice((1, 1, 1, 3))
    payload = _payload(rng, client, correlation, 40 if size == 1 else 300 if size < 100 else 4000)
    count = rng.randint(1, 6) if size == 1 else rng.randint(1, 25)
    writes, truth = _dialogue(rng, client, correlation, step, payload, count, rng.randint(1, 5))
    seqs = [rng.choice((0, 2**32 - 300, rng.getrandbits(32))) for _ in range(2)]
    started = rng.random() < 0.5 if syn is None else syn
    packets = _segments(rng, writes, seqs, size, started)
    begins = [{(seqs[side] + 1 + frame.start) & 0xFFFFFFFF for frame in truth if frame.side == side} for side in range(2)]
    if trouble and not started and rng.random() < 0.8 and len(packets) > 3:
        packets = packets[rng.randrange(len(packets) // 2) :]  # the capture begins inside the connection
    if trouble:
        packets = _trouble(rng, packets)
    if trouble and rng.random() < 0.3:
        snaplen = rng.choice((4, 12, 20, 30, 60, 100, 200))
        packets = [replace(packet, captured=snaplen) for packet in packets]
    packets = [replace(packet, number=number) for number, packet in enumerate(packets)]
    first = (seqs[0] + 1) & 0xFFFFFFFF, (seqs[1] + 1) & 0xFFFFFFFF
    payload_bytes = sum(len(packet.payload) for packet in packets)
    return Conversation(packets, truth, client, (begins[0], begins[1]), first, count, started, payload_bytes)


def _payload(rng: random.Random, client: bytes | None, correlation: int, most: int) -> Callable[[random.Random], bytes]:
    """Contents of record batches: also Kafka frames, whole and cut, with the connection's own client id and ids."""
    kind = rng.choice(("zeros", "small", "random", "frames", "frames", "text"))

    def frames(rng: random.Random) -> bytes:
        out = b""
        for _ in range(rng.randint(1, 5)):
            own = rng.random() < 0.5
            number = correlation + rng.randint(0, 30) if own else rng.randint(0, 5)
            if rng.random() < 0.6:
                frame = request(
                    rng.choice((0, 1, 3, 12)),
                    rng.randint(0, 9),
                    _int32(number),
                    client if own else b"other",
                    bytes(rng.randint(0, 30)),
                    False,
                )
            else:
                frame = response(_int32(number), bytes(rng.randint(0, 30)), False)
            out += frame if rng.random() < 0.8 else frame[: rng.randint(1, len(frame))]
        return out

    def payload(rng: random.Random) -> bytes:
        length = rng.randint(0, most)
        if kind == "zeros":
            return bytes(length)
        if kind == "small":
            return bytes(rng.choice((0, 0, 0, 1, 2, 3, 8)) for _ in range(length))
        if kind == "random":
            return rng.randbytes(length)
        if kind == "text":
            return (b'{"sensor": 1, "value": 2.5}' * 200)[:length]
        return frames(rng)

    return payload


def _int32(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


Write = tuple[int, int, bytes]


def _dialogue(
    rng: random.Random,
    client: bytes | None,
    correlation: int,
    step: int,
    payload: Callable[[random.Random], bytes],
    count: int,
    in_flight: int,
) -> tuple[list[Write], list[Truth]]:
    """Writes (time, side, bytes) in the order of time, and what was sent."""
    writes: list[Write] = []
    truth: list[Truth] = []
    sent = [0, 0]
    waiting: list[tuple[int, bytes, Truth]] = []
    time = 1_000 * MS
    mostly = rng.choice((None, None, 0, 1))

    def send(frame: bytes, what: Truth) -> None:
        writes.append((time, what.side, frame))
        truth.append(what._replace(start=sent[what.side], size=len(frame)))
        sent[what.side] += len(frame)

    def answer() -> None:
        nonlocal time
        ready, frame, what = waiting.pop(0)
        time = max(time, ready)
        send(frame, what)

    acks = rng.choice((1, -1, 1, -1, 0, None))
    for n in range(count):
        time += rng.choice((0, 20_000, 3 * MS, 40 * MS))
        while waiting and (len(waiting) >= in_flight or waiting[0][0] <= time):
            answer()
            time += 10_000
        key, api, versions = APIS[mostly] if mostly is not None and rng.random() < 0.9 else rng.choice(APIS)
        version = rng.choice(versions)
        number = _int32(correlation + n * step)
        records = lambda rng: some_records(rng, payload)  # noqa: E731
        wanted = rng.choice((0, 1)) if acks is None else acks
        ask = Encoder(api, "Request", version, rng, records, 2, {"Acks": wanted})
        what = Truth(0, 0, 0, key, version, number, tuple(ask.fields), n)
        send(request(key, version, number, client, ask.bytes, ask.flexible), what)
        if key != 0 or wanted != 0:
            reply = Encoder(api, "Response", version, rng, records, 2, {"ErrorCode": rng.choice((0, 0, 3))})
            frame = response(number, reply.bytes, reply.flexible and key != 18)
            waiting.append((time + rng.choice((1, 5, 30)) * MS, frame, what._replace(side=1, fields=tuple(reply.fields))))
    while waiting and rng.random() < 0.9:
        answer()
        time += 10_000
    return writes, truth


def _segments(rng: random.Random, writes: list[Write], seqs: list[int], size: int, started: bool) -> list[Packet]:
    packets = [Packet(0, 0, 0, seqs[0], flags=SYN), Packet(0, MS, 1, seqs[1], flags=SYN | ACK)] if started else []
    at = [seqs[0] + 1, seqs[1] + 1]
    joined: list[Write] = []
    for write in writes:
        if joined and joined[-1][1] == write[1] and rng.random() < 0.3:
            joined[-1] = (joined[-1][0], write[1], joined[-1][2] + write[2])
        else:
            joined.append(write)
    for time, side, data in joined:
        for i, first in enumerate(range(0, len(data), size)):
            part = data[first : first + size]
            packets.append(Packet(0, time + 1_000 * i, side, at[side] & 0xFFFFFFFF, part))
            at[side] += len(part)
    packets.sort(key=lambda packet: packet.time)
    return packets


def _trouble(rng: random.Random, packets: list[Packet]) -> list[Packet]:
    """Loss, retransmission with the same or other boundaries, reordering with and without its time, copies."""
    level = rng.choice((0, 0, 0.02, 0.1))
    if level == 0:
        return packets
    out: list[Packet] = []
    late: list[Packet] = []
    for n, packet in enumerate(packets):
        dice = rng.random()
        if dice < level:  # lost before the tap, or not captured
            if rng.random() < 0.8:
                late += _again(rng, packets, n)
        elif dice < 2 * level:
            out.append(packet)
            late += _again(rng, packets, n)
        elif dice < 2.5 * level and out and out[-1].side == packet.side:
            out.insert(len(out) - 1, packet)  # the capture wrote it first, its time is right
        elif dice < 3 * level and out:
            out.append(replace(packet, time=packet.time + rng.choice((5_000, 2 * MS))))
        elif dice < 3.3 * level:
            out += [packet, replace(packet, time=packet.time + 3_000, duplicate=True)]
        else:
            out.append(packet)
    for packet in late:
        place = next((i for i, other in enumerate(out) if other.time > packet.time), len(out))
        out.insert(place, packet)
    return out


def _again(rng: random.Random, packets: list[Packet], n: int) -> list[Packet]:
    packet = packets[n]
    if not packet.payload:
        return []
    time = packet.time + rng.choice((300_000, 5 * MS, 60 * MS))
    kind = rng.random()
    if kind < 0.5:
        return [replace(packet, time=time)]
    if kind < 0.75 and len(packet.payload) > 1:  # in two parts
        cut = rng.randint(1, len(packet.payload) - 1)
        second = replace(packet, time=time + 1_000, seq=(packet.seq + cut) & 0xFFFFFFFF, payload=packet.payload[cut:])
        return [replace(packet, time=time, payload=packet.payload[:cut]), second]
    for other in packets[n + 1 :]:  # with what follows, in one
        if other.side == packet.side and other.seq == (packet.seq + len(packet.payload)) & 0xFFFFFFFF:
            return [replace(packet, time=max(time, other.time + 1_000), payload=packet.payload + other.payload)]
    return [replace(packet, time=time)]


def roughened(rng: random.Random, packets: list[Packet], damage: bool) -> list[Packet]:
    """Further trouble: a stretch lost, stretches sent again whose borders no segment had, copies made by the capture, another snaplen from some place on.

    With `damage` a byte of what is sent again differs from the one that was captured before.
    """
    packets = list(packets)
    if rng.random() < 0.3 and len(packets) > 10:
        place = rng.randrange(2, len(packets))
        del packets[place : place + rng.randint(1, 4)]
    if rng.random() < 0.3:
        place, snaplen = rng.randrange(len(packets)), rng.choice((4, 14, 40, 120, 1000))
        packets[place:] = [replace(packet, captured=snaplen) for packet in packets[place:]]
    for _ in range(rng.choice((0, 1, 1, 3))):
        _send_again(rng, packets, damage)
    if rng.random() < 0.3:
        place = rng.randrange(len(packets))
        copied = [
            (packet, replace(packet, time=packet.time + 300, duplicate=True)) for packet in packets[place : place + rng.randint(1, 30)]
        ]
        packets[place : place + len(copied)] = [packet for pair in copied for packet in pair]
    return [replace(packet, number=number) for number, packet in enumerate(packets)]


def _send_again(rng: random.Random, packets: list[Packet], damage: bool) -> None:
    """Insert a stretch of one side's bytes behind their first sending, in segments of another size."""
    side = rng.randint(0, 1)
    sent = [(number, packet) for number, packet in enumerate(packets) if packet.payload and packet.side == side]
    if not sent:
        return
    _, sample = rng.choice(sent)

    def place(packet: Packet) -> int:
        return (packet.seq - sample.seq + 2**31) % 2**32 - 2**31

    near = [(number, packet) for number, packet in sent if abs(place(packet)) < 10_000]
    byte = {place(packet) + i: value for _, packet in near for i, value in enumerate(packet.payload)}
    captured = {place(packet) + i for _, packet in near for i in range(len(packet.there))}
    start = stop = rng.choice(sorted(byte))
    most = rng.choice((5, 100, 3000))
    while stop in byte and stop < start + most:
        stop += 1
    data = bytearray(byte[at] for at in range(start, stop))
    known = [i for i in range(len(data)) if start + i in captured]
    if damage and known:
        data[rng.choice(known)] ^= 1 << rng.randrange(8)
    time = max(packet.time for _, packet in near) + rng.choice((100_000, 3 * MS, 200 * MS))
    before = 1 + near[-1][0]
    while before < len(packets) and packets[before].time <= time:
        before += 1
    size = rng.choice((3, 50, 1448, 9000))
    packets[before:before] = [
        Packet(0, time + 100 * n, side, (sample.seq + start + at) & 0xFFFFFFFF, bytes(data[at : at + size]), captured=sample.captured)
        for n, at in enumerate(range(0, len(data), size))
    ]


def sent_twice(packets: list[Packet], changed: bool) -> list[list[Packet]]:
    """Every segment once more a little later, in a capture of its own: the first time captured in part, or whole and then changed on the way."""
    packets = [replace(packet, number=number) for number, packet in enumerate(packets)]
    again = [
        replace(
            packet,
            number=len(packets) + packet.number,
            time=packet.time + 400,
            payload=bytes(byte ^ 0x55 for byte in packet.payload) if changed else packet.payload,
        )
        for packet in packets
        if packet.payload
    ]
    return [packets if changed else [replace(packet, captured=len(packet.payload) // 2) for packet in packets], again]


def cuts(rng: random.Random, packets: list[Packet]) -> list[list[Packet]]:
    """The packets in several captures, one of the ways in which captures come."""
    n = len(packets)
    places = sorted(rng.randrange(n + 1) for _ in range(rng.choice((1, 1, 2, 5))))
    pieces = [packets[a:b] for a, b in zip([0, *places], [*places, n], strict=True)]
    way = rng.choice(("cut", "cut", "cut", "single", "overlap", "twice", "exchanged", "shuffled", "snaplen", "interleaved", "one"))
    if way == "single" and n <= 60:
        return [[packet] for packet in packets]
    if way == "overlap":
        return [packets[max(0, a - rng.randint(0, 5)) : b + rng.randint(0, 5)] for a, b in zip([0, *places], [*places, n], strict=True)]
    if way == "twice":
        return [*pieces, rng.choice(pieces)]
    if way == "exchanged":
        for before, after in pairwise(pieces):
            if before and after:
                before[-1], after[0] = after[0], before[-1]
    if way == "shuffled":
        rng.shuffle(pieces)
    if way == "snaplen":
        short = rng.choice((8, 30, 100))
        return [[replace(packet, captured=min(packet.captured, short)) for packet in packets[: places[0] + 10]], packets[places[0] :]]
    if way == "interleaved":
        queues: list[list[Packet]] = [[], []]
        for packet in packets:
            queues[rng.random() < 0.5].append(packet)
        return queues
    if way == "one":
        return [packets]
    return pieces
