"""Named cases: defects of other tools, SASL, TLS, hostile bytes, new connections on old ports."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_messages import Encoder, Field, batch, no_records, request, response, some_records, uvarint
from kafka_sites import site_of
from kafka_streams import ACK, FIN, RST, SYN, Followed, Packet, Row, follow, renumbered, segmented, split, unite, whole

from brokerlens.kafka import machine

MS = 1_000_000


class Talk:
    """A connection's packets, written side by side."""

    def __init__(self, syn: bool = True, seqs: tuple[int, int] = (99, 499), size: int = 1448, start: int = 0) -> None:
        self.at = [seqs[0] + 1, seqs[1] + 1]
        self.time = start + 10 * MS
        self.size = size
        self.packets: list[Packet] = []
        if syn:
            self.packets = [Packet(0, start, 0, seqs[0], flags=SYN), Packet(0, start + MS, 1, seqs[1], flags=SYN | ACK)]

    def send(self, side: int, data: bytes, wait: int = 5 * MS) -> Talk:
        self.packets += segmented(side, data, self.at[side] & 0xFFFFFFFF, self.time, self.size)
        self.at[side] += len(data)
        self.time += wait
        return self

    def done(self) -> list[Packet]:
        return renumbered(self.packets)

    def follow(self) -> Followed:
        return same(self.done())

    def rows(self, side: int) -> list[Row]:
        return [row for row in self.follow().rows if row.side == side]


def same(packets: list[Packet]) -> Followed:
    """Frames of the packets, which must be those of what a capture of them keeps."""
    found = follow(whole(packets))
    assert found == follow(unite([split(packets)[0]]))
    return found


def heartbeat(n: int, client: bytes | None = b"me") -> bytes:
    return request(12, 0, n, client, b"\0\1g\0\0\0\1\0\1m", False)


def beat(n: int) -> bytes:
    return response(n, b"\0\0", False)


def produce(n: int, version: int = 9, acks: int = 1, seed: int = 1) -> bytes:
    ask = Encoder("Produce", "Request", version, random.Random(seed), some_records, 2, {"Acks": acks})
    return request(0, version, n, b"me", ask.bytes, ask.flexible)


def produced(n: int, version: int = 9) -> bytes:
    reply = Encoder("Produce", "Response", version, random.Random(n), no_records)
    return response(n, reply.bytes, reply.flexible)


# What goes wrong in the tools that people use (the specification's list).


@pytest.mark.parametrize("snaplen", [16, 30, 60, 96])
def test_a_response_finds_its_request_under_a_short_snaplen(snaplen: int) -> None:
    """Wireshark matches only requests whose whole body it could read."""
    talk = Talk()
    for n in range(5):
        talk.send(0, produce(n)).send(1, produced(n))
    cut = [Packet(p.number, p.time, p.side, p.seq, p.payload, p.flags, snaplen) for p in talk.done()]
    found = same(cut)
    assert [row.correlation for row in found.rows] == [0, 1, 2, 3, 4] * 2
    assert all(row.partner >= 0 for row in found.rows)


@pytest.mark.parametrize("version", [14, 15, 17])
def test_a_response_finds_its_request_of_an_unknown_version(version: int) -> None:
    """eBPF agents drop what is above their table; a header needs no table."""
    found = Talk().send(0, request(0, version, 1, b"me", b"\0" * 40, True)).send(1, response(1, b"\0" * 9, True)).follow()
    assert [(row.key, row.version, row.partner, row.body) for row in found.rows] == [(0, version, 1, 0), (0, version, 0, 0)]


def test_a_malformed_body_costs_the_body_only() -> None:
    body = b"\0" + b"\0\1" + struct.pack(">i", 30) + b"\xff\xff\xff\xff\x0f" + b"x" * 30  # 2^32 topics claimed
    found = Talk().send(0, request(0, 9, 1, b"me", body, True)).send(1, produced(1)).send(0, heartbeat(2)).send(1, beat(2)).follow()
    assert [(row.correlation, row.partner >= 0) for row in found.rows] == [(1, True), (2, True)] * 2
    assert found.rows[0].header & machine.HEADER_MALFORMED
    assert found.rows[0].fields == (("acks", 1), ("timeout_ms", 30))


@pytest.mark.parametrize("version", [3, 8, 9, 12, 13])
def test_acks_1_of_new_versions_is_answered(version: int) -> None:
    """Wireshark 4.4 takes acks=1 for acks=0 from Produce 9 on."""
    found = Talk().send(0, produce(1, version)).send(1, produced(1, version)).follow()
    assert ("acks", 1) in found.rows[0].fields
    assert [row.partner for row in found.rows] == [1, 0]


def test_acks_0_is_not_answered_and_shifts_nothing() -> None:
    talk = Talk().send(0, produce(1, acks=0)).send(0, produce(2, acks=0)).send(0, produce(3, acks=1)).send(1, produced(3))
    assert [row.partner for row in talk.follow().rows] == [-1, -1, 3, 2]


def test_frames_are_found_where_the_capture_begins_inside_one() -> None:
    """Wireshark never finds its place again."""
    talk = Talk(syn=False).send(0, b"x" * 3000)
    for n in range(4):
        talk.send(0, heartbeat(n)).send(1, beat(n))
    found = talk.follow()
    assert [row.correlation for row in found.rows] == [0, 1, 2, 3] * 2
    assert found.framing == [2, 2]
    assert found.skipped == [3000, 0]


@pytest.mark.parametrize("first", [-3, 0, 2**31 - 2, -(2**31)])
def test_ids_may_be_negative_or_zero_and_wrap(first: int) -> None:
    for syn in (True, False):
        talk = Talk(syn=syn)
        ids = [(first + n + 2**31) % 2**32 - 2**31 for n in range(5)]
        for n in ids:
            talk.send(0, heartbeat(n)).send(1, beat(n))
        found = talk.follow()
        assert [(row.correlation, row.partner >= 0) for row in found.rows] == [(n, True) for n in ids] * 2


# Matching.


def test_pipelined_requests_are_answered_in_order() -> None:
    talk = Talk()
    for n in range(5):
        talk.send(0, heartbeat(n), wait=0)
    talk.time += 10 * MS
    for n in range(5):
        talk.send(1, beat(n), wait=0)
    assert [row.partner for row in talk.follow().rows] == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


def test_constant_ids_are_answered_first_in_first_out() -> None:
    talk = Talk()
    for key in (12, 3, 0):
        reply = {12: beat(0), 3: response(0, Encoder("Metadata", "Response", 9, random.Random(2), no_records).bytes, True), 0: produced(0)}[
            key
        ]
        ask = {12: heartbeat(0), 3: request(3, 9, 0, b"me", b"\1\1\1\0\0", True), 0: produce(0)}[key]
        talk.send(0, ask, wait=0).send(0, ask, wait=2 * MS).send(1, reply, wait=0).send(1, reply)
    found = talk.follow()
    assert [row.partner for row in found.rows] == [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]
    assert not any(row.header & (machine.HEADER_MALFORMED | machine.HEADER_TRAILING) for row in found.rows)


@pytest.mark.parametrize(("early", "matched"), [(MS, True), (MS + 1, False)])
def test_a_response_may_be_captured_a_millisecond_before_its_request(early: int, matched: bool) -> None:
    talk = Talk()
    at = talk.time
    talk.send(0, heartbeat(1))
    talk.time = at - early
    talk.send(1, beat(1))
    found = same(sorted(talk.done(), key=lambda packet: packet.time))
    assert [row.partner for row in found.rows] == ([1, 0] if matched else [-1, -1])
    assert [row.key for row in found.rows] == [12, 12 if matched else -1]


def test_a_response_without_its_request_on_a_certain_chain_is_a_row() -> None:
    talk = Talk().send(0, heartbeat(1)).send(1, beat(1)).send(0, heartbeat(2)).send(1, beat(2)).send(0, heartbeat(3)).send(1, beat(3))
    lost = [packet for packet in talk.done() if packet.payload != heartbeat(2)]
    found = same(lost)
    assert [(row.side, row.correlation, row.key, row.partner) for row in found.rows if row.correlation == 2] == [(1, 2, -1, -1)]
    assert found.oddities["lone_responses"] == 1


# SASL and TLS.

SECRET = b"n,,n=user,r=never-to-be-kept"


def kept_bytes(packets: list[Packet]) -> bytes:
    return b"|".join(run for arrived in split(packets)[0] for _, run in arrived.runs)


def test_raw_tokens_after_handshake_v0() -> None:
    """No header, also empty ones; then frames again, and no token is kept."""
    talk = Talk().send(0, request(17, 0, 1, b"me", b"\0\5PLAIN", False)).send(1, response(1, b"\0\0\0\0\0\1\0\5PLAIN", False))
    for token in (SECRET, b"\0user\0never-to-be-kept", b""):
        talk.send(0, struct.pack(">i", len(token)) + token)
        talk.send(1, struct.pack(">i", len(SECRET)) + SECRET if token else b"\0\0\0\0")
    talk.send(0, heartbeat(2)).send(1, beat(2)).send(0, heartbeat(3)).send(1, beat(3))
    found = talk.follow()
    assert [(row.key, row.correlation) for row in found.rows] == [(17, 1), (12, 2), (12, 3)] * 2
    assert found.rows[3].fields == (("error_code", 0),)
    assert found.skipped == [0, 0]
    assert b"never" not in kept_bytes(talk.done())


def test_gssapi_tokens_before_the_first_header() -> None:
    token = b"\x60\x82\x02\x10" + b"never-to-be-kept" * 8
    talk = Talk().send(0, struct.pack(">i", len(token)) + token).send(1, struct.pack(">i", len(token)) + token)
    talk.send(0, heartbeat(1)).send(1, beat(1))
    found = talk.follow()
    assert [(row.key, row.correlation, row.partner) for row in found.rows] == [(12, 1, 1), (12, 1, 0)]
    assert b"never" not in kept_bytes(talk.done())


@pytest.mark.parametrize("version", [0, 1, 2])
def test_of_sasl_authenticate_the_header_is_kept_and_the_error(version: int) -> None:
    flexible = version == 2
    sized = uvarint(len(SECRET) + 1) if flexible else struct.pack(">i", len(SECRET))
    talk = Talk().send(0, request(17, 1, 1, b"me", b"\0\5PLAIN", False)).send(1, response(1, b"\0\0\0\0\0\1\0\5PLAIN", False))
    talk.send(0, request(36, version, 2, b"me", sized + SECRET, flexible))
    talk.send(1, response(2, b"\0\x3a" + (b"\0" if flexible else b"\xff\xff") + sized + SECRET + b"\0" * 9, flexible))
    found = talk.follow()
    assert found.rows[3].fields == (("error_code", 58),)
    assert b"never" not in kept_bytes(talk.done())


def tls(kind: int, size: int) -> bytes:
    return bytes((kind, 3, 3)) + struct.pack(">H", size) + b"\x55" * size


def test_tls_from_the_syn_is_no_kafka_and_not_kept() -> None:
    talk = Talk().send(0, tls(22, 500)).send(1, tls(22, 3000))
    for _ in range(30):
        talk.send(0, tls(23, 2000)).send(1, tls(23, 2000))
    found = talk.follow()
    assert (found.encrypted, found.rows, found.framing) == ([True], [], [0, 0])
    assert len(kept_bytes(talk.done())) < 100


def test_tls_that_began_earlier_is_known_by_its_records() -> None:
    talk = Talk(syn=False)
    for _ in range(200):
        talk.send(0, tls(23, 900)).send(1, tls(23, 2000))
    assert talk.follow().encrypted == [True]
    assert len(kept_bytes(talk.done())) < 20_000


def test_kafka_that_carries_tls_records_is_kafka() -> None:
    inner = b"".join(tls(23, 100) for _ in range(20))
    talk = Talk(size=9000)
    for n in range(6):
        talk.send(0, request(200, 0, n, b"me", inner, False)).send(1, response(n, inner, False))
    found = talk.follow()
    assert found.encrypted == [False]
    assert len(found.rows) == 12


# Bytes that are not what they should be.


@pytest.mark.parametrize("size", [-1, -(2**31), 2**31 - 1, machine.REQUEST_LIMIT + 1])
def test_a_length_beyond_the_limits_ends_the_chain_until_it_is_found_again(size: int) -> None:
    talk = Talk().send(0, heartbeat(1)).send(1, beat(1)).send(0, struct.pack(">i", size) + b"garbage" * 30)
    for n in range(2, 6):
        talk.send(0, heartbeat(n)).send(1, beat(n))
    found = talk.follow()
    assert [row.correlation for row in found.rows if row.side == 0] == [1, 2, 3, 4, 5]
    assert found.skipped[0] == 214
    assert found.oddities["lost_chains"] == 1


@pytest.mark.parametrize("size", [-1, -(2**31)])
def test_a_negative_length_of_a_response_ends_the_chain_until_it_is_found_again(size: int) -> None:
    talk = Talk().send(0, heartbeat(1)).send(1, beat(1)).send(1, struct.pack(">i", size) + b"garbage" * 30)
    for n in range(2, 6):
        talk.send(0, heartbeat(n)).send(1, beat(n))
    found = talk.follow()
    assert [(row.correlation, row.partner >= 0) for row in found.rows] == [(n, True) for n in range(1, 6)] * 2
    assert found.skipped == [0, 214]
    assert found.oddities["lost_chains"] == 1


def test_lengths_0_to_7_hold_no_header() -> None:
    talk = Talk().send(0, heartbeat(1)).send(1, beat(1))
    for size in range(8):
        talk.send(0, struct.pack(">i", size) + b"\0" * size)
    talk.send(0, heartbeat(2)).send(1, beat(2))
    assert [row.correlation for row in talk.follow().rows] == [1, 2, 1, 2]


START = struct.pack(">hi", 1, 30)  # acks and timeout of a Produce
ACKED: tuple[Field, ...] = (("acks", 1), ("timeout_ms", 30))
NAMED: tuple[Field, ...] = (*ACKED, ("topic", b"t"))
PARTITION: tuple[Field, ...] = (*NAMED, ("partition", 0))
OLD = START + struct.pack(">i", 1) + b"\0\1t"  # one topic, before flexible versions
OLD_RECORDS = OLD + struct.pack(">ii", 1, 0)  # its one partition, number 0
FLEXIBLE = b"\0" + START + b"\2\2t"
FLEXIBLE_RECORDS = FLEXIBLE + b"\2" + bytes(4)
ENDLESS: dict[str, tuple[bytes, tuple[Field, ...]]] = {
    "header tags": (b"", ()),
    "size of a header tag": (b"\1\0", ()),
    "compact string": (b"\0", ()),
    "compact array": (b"\0\0" + START, ACKED),
    "compact string in an array": (b"\0\0" + START + b"\2", ACKED),
    "compact array in an array": (b"\0" + FLEXIBLE, NAMED),
    "compact records": (b"\0" + FLEXIBLE_RECORDS, PARTITION),
    "tags of a partition": (b"\0" + FLEXIBLE_RECORDS + b"\0", (*PARTITION, ("records_size", 0))),
}


@pytest.mark.parametrize("tail", [b"\xff" * 40, b"\x80" * 5 + b"\1", b"\xff\xff", b"\x80"], ids=["long", "six", "cut", "one"])
@pytest.mark.parametrize("where", ENDLESS)
def test_varints_that_do_not_end(where: str, tail: bytes) -> None:
    """In a Produce request of version 9: the fields before it are certain, and so is the next frame."""
    before, fields = ENDLESS[where]
    head = struct.pack(">hhi", 0, 9, 1) + b"\0\2me"
    frame = struct.pack(">i", len(head + before + tail)) + head + before + tail
    assert_body_left(Talk().send(0, frame).send(1, produced(1)), 0, fields)


@pytest.mark.parametrize("tail", [b"\xff" * 40, b"\xff\xff"], ids=["long", "cut"])
@pytest.mark.parametrize(
    ("before", "fields"), [(b"", ()), (b"\0" + bytes(4), (("throttle_time_ms", 0),))], ids=["header tags", "compact array"]
)
def test_varints_that_do_not_end_in_a_response(before: bytes, fields: tuple[Field, ...], tail: bytes) -> None:
    """In a Metadata response of version 9."""
    talk = Talk().send(0, request(3, 9, 1, b"me", b"\1\1\1\0\0", True)).send(1, response(1, before + tail, False))
    assert_body_left(talk, 1, fields)


MOST = 2**31 - 1
CLAIMS: dict[str, tuple[int, bytes, tuple[Field, ...]]] = {
    "a million partitions": (2, OLD + struct.pack(">i", 1_000_000) + bytes(20), NAMED),
    "a million partitions, compact": (9, FLEXIBLE + uvarint(1_000_001) + bytes(20), NAMED),
    "most partitions": (2, OLD + struct.pack(">i", MOST) + bytes(20), NAMED),
    "most partitions, compact": (9, FLEXIBLE + uvarint(2**32 - 1) + bytes(20), NAMED),
    "a name": (2, START + struct.pack(">ih", 1, 32_767) + b"t", ACKED),
    "a name, compact": (9, b"\0" + START + b"\2" + uvarint(2**31) + b"t", ACKED),
    "records": (2, OLD_RECORDS + struct.pack(">i", MOST) + bytes(80), PARTITION),
    "records, compact": (9, FLEXIBLE_RECORDS + uvarint(2**31) + bytes(80), PARTITION),
    "records by one byte": (2, OLD_RECORDS + struct.pack(">i", 81) + bytes(80), PARTITION),
    "a tag": (9, FLEXIBLE + b"\1\1\0" + uvarint(2**31) + bytes(20), NAMED),
    "most tags": (9, FLEXIBLE + b"\1" + uvarint(2**32 - 1) + bytes(20), NAMED),
    "a batch below its header": (2, OLD_RECORDS + struct.pack(">iqi", 80, 0, -1) + bytes(68), (*PARTITION, ("records_size", 80))),
    "a batch of no format": (2, OLD_RECORDS + struct.pack(">iqi", 80, 0, 68) + b"\7" * 68, (*PARTITION, ("records_size", 80))),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_claims_beyond_the_frame(what: str) -> None:
    """Nothing of that size is allocated; the fields before it are certain, and so is the next frame."""
    version, body, fields = CLAIMS[what]
    with little_memory():
        assert_body_left(Talk().send(0, request(0, version, 1, b"me", body, version >= 9)).send(1, produced(1, version)), 0, fields)


NO_RECORDS = {
    "below its header": struct.pack(">qi", 0, -1) + bytes(68),
    "of no format": struct.pack(">qi", 0, 68) + b"\7" * 68,
    "of fewer than no records": batch(random.Random(1), b"", 1)[0][:57] + struct.pack(">i", -5),
}


@pytest.mark.parametrize("what", NO_RECORDS)
def test_a_damaged_batch_leaves_the_number_of_records_open(what: str, tmp_path: Path) -> None:
    """Not 0: nobody knows. What stands before it in the frame is certain."""
    records = NO_RECORDS[what]
    ask = request(0, 2, 1, b"me", OLD_RECORDS + struct.pack(">i", len(records)) + records, False)
    site = site_of(Talk().send(0, ask).send(1, produced(1, 2)).send(0, produce(2, 2)).send(1, produced(2, 2)).done(), tmp_path)
    shown = site.requests.select("correlation_id", "status", "acks", "record_count", "record_bytes", "codec", "latency_ms")
    assert shown.row(0) == (1, "answered", 1, None, None, None, 5.0)
    assert shown.row(1)[3] is not None
    assert site.connections["malformed_frames"].to_list() == [1]


@pytest.mark.parametrize("size", [MOST, 100])
def test_a_batch_that_claims_more_than_the_records_is_one_that_was_cut(size: int) -> None:
    """A broker cuts the last batch off at the partition's limit, so this is no damage: its bytes are told, its records are not."""
    records = struct.pack(">qi", 0, size) + bytes(4) + b"\2" + bytes(60)
    partition = struct.pack(">iihqqi", 1, 0, 0, 9, 9, 0)  # of Fetch 4, up to its records
    reply = bytes(4) + struct.pack(">i", 1) + b"\0\1t" + partition + struct.pack(">i", len(records)) + records
    ask = Encoder("Fetch", "Request", 4, random.Random(1), no_records)
    with little_memory():
        answer = Talk().send(0, request(1, 4, 1, b"me", ask.bytes, False)).send(1, response(1, reply, False)).follow().rows[-1]
    assert answer.fields[-2:] == (("records_size", len(records)), ("batch_cut", len(records)))
    assert answer.body == machine.BODY_WHOLE


def test_a_response_of_2_gib_that_never_comes() -> None:
    """Clients accept any size: the row has it, and no last byte."""
    talk = Talk().send(0, heartbeat(1)).send(1, struct.pack(">ii", MOST, 1) + b"\0\0").send(0, heartbeat(2)).send(1, beat(2))
    with little_memory():
        found = talk.follow()
    assert [(row.side, row.correlation, row.partner) for row in found.rows] == [(0, 1, 2), (0, 2, -1), (1, 1, 0)]
    assert (found.rows[2].size, found.rows[2].last) == (MOST + 4, -1)


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Fail where more is allocated than a stream of a few packets needs, arrays included."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def assert_body_left(talk: Talk, side: int, fields: tuple[Field, ...]) -> None:
    """The first exchange's frame of this side has these fields and no more, and is counted; the exchange behind it is whole."""
    found = talk.send(0, heartbeat(2)).send(1, beat(2)).follow()
    assert [(row.side, row.correlation, row.partner) for row in found.rows] == [(0, 1, 2), (0, 2, 3), (1, 1, 0), (1, 2, 1)]
    left = found.rows[2 * side]
    assert left.fields == fields
    assert left.header & machine.HEADER_MALFORMED
    assert left.body != machine.BODY_WHOLE
    assert found.oddities["malformed_frames"] == 1
    assert found.skipped == [0, 0]


@pytest.mark.parametrize("client", [b"\xff\xfe", b"tab\there", b"\xc3", b"\xe2\x82", b"nul\0"])
def test_client_ids_that_are_no_text(client: bytes) -> None:
    """A row with what is certain, and no name."""
    found = Talk().send(0, heartbeat(1)).send(0, request(12, 0, 2, client, b"\0\1g", False)).send(0, heartbeat(3)).follow()
    assert [(row.correlation, row.client) for row in found.rows] == [(1, b"me"), (2, None), (3, b"me")]
    assert found.rows[1].header & machine.HEADER_CLIENT_ODD


def test_a_client_id_longer_than_its_frame() -> None:
    frame = struct.pack(">ihhih", 20, 12, 0, 5, 300) + b"x" * 10
    found = Talk().send(0, heartbeat(1)).send(0, frame).send(0, heartbeat(6)).follow()
    assert [(row.correlation, row.client) for row in found.rows] == [(1, b"me"), (5, None), (6, b"me")]


def test_any_bytes_give_no_error() -> None:
    """Damaged frames: bytes of a good stream changed at random places."""
    for seed in range(60):
        rng = random.Random(seed)
        talk = Talk(syn=seed % 2 == 0, size=rng.choice((7, 100, 1448)))
        for n in range(8):
            frames = [produce(n, rng.choice((2, 7, 9, 13)), 1, seed), produced(n)]
            for side, frame in enumerate(frames):
                damaged = bytearray(frame)
                for _ in range(rng.choice((0, 0, 1, 5))):
                    damaged[rng.randrange(len(damaged))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
                talk.send(side, bytes(damaged))
        follow(unite([split(talk.done())[0]]))


# The TCP side of it.


def test_a_new_connection_on_the_same_ports_begins_anew() -> None:
    """The second one's frames are kept though the first one's chain ended elsewhere; ids begin again."""
    first = Talk().send(0, heartbeat(1)).send(1, beat(1))
    second = Talk(seqs=(5_000_000, 77), start=first.time + MS).send(0, produce(1)).send(1, produced(1))
    packets = renumbered([*first.packets, Packet(0, first.time, 0, first.at[0], flags=FIN | ACK), *second.packets])
    kept, _ = split(packets)
    later = [arrived for arrived in kept if arrived.packet.time >= second.packets[0].time]
    assert follow(later) == follow(whole(second.packets and [arrived.packet for arrived in later]))
    assert len(follow(later).rows) == 2


def test_a_new_connection_without_its_client_syn_is_kept_whole() -> None:
    first = Talk().send(0, produce(1)).send(1, produced(1)).send(0, produce(2)).send(1, produced(2))
    second = Talk(seqs=(40, 60), start=first.time + MS).send(0, produce(1, seed=3)).send(1, produced(1))
    packets = renumbered([*first.packets, *second.packets[1:]])
    kept, _ = split(packets)
    asks = [arrived for arrived in kept if arrived.packet.time > second.packets[0].time and arrived.packet.side == 0]
    assert all(sum(len(run) for _, run in arrived.runs) == len(arrived.packet.payload) for arrived in asks)


def test_what_follows_a_reset_is_kept_whole() -> None:
    talk = Talk().send(0, produce(1)).send(1, produced(1))
    talk.packets.append(Packet(0, talk.time, 1, 0, flags=RST))
    talk.at[0] += 1_000_000
    talk.send(0, produce(9, seed=5))
    kept, _ = split(talk.done())
    assert kept[-1].runs == [(0, kept[-1].packet.payload)]


def test_a_reset_moves_nothing() -> None:
    talk = Talk().send(0, heartbeat(1)).send(1, beat(1))
    talk.packets.append(Packet(0, talk.time, 1, 123_456, flags=RST))
    found = talk.send(0, heartbeat(2)).send(1, beat(2)).follow()
    assert [row.correlation for row in found.rows] == [1, 2, 1, 2]


def test_bytes_beyond_the_cap_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 MiB of undecided bytes per direction."""
    block = b"\1" * (1 << 20)
    packets = renumbered(Packet(0, n, 0, n << 20, block) for n in range(130))
    _, facts = split(packets)
    assert facts["capped_bytes"] == 2 << 20
    assert facts["kept_bytes"]["start"] == 128 << 20  # type: ignore[index]


def test_old_ranges_become_one_and_nothing_is_lost() -> None:
    """More holes in bodies than a direction remembers."""
    talk = Talk(size=60)
    for n in range(30):
        talk.send(0, produce(n, 2, seed=n)).send(1, produced(n, 2))
    rng = random.Random(7)
    late: list[Packet] = []
    packets: list[Packet] = []
    for packet in talk.done():
        (late if packet.payload and rng.random() < 0.2 else packets).append(packet)
    rng.shuffle(late)
    same(packets + late)


@pytest.mark.parametrize("client", [b"a\nb", b"a\x7fb", b"\xff\xfe", b"\xe2\x82"])
def test_a_client_id_out_of_print_hides_no_request(client: bytes) -> None:
    """From the SYN the chain is certain: what the client calls itself is no reason to doubt it."""
    talk = Talk()
    for n in (1, 2):
        talk.send(0, heartbeat(n, client)).send(1, beat(n))
    assert [(row.side, row.correlation) for row in talk.follow().rows] == [(0, 1), (0, 2), (1, 1), (1, 2)]
