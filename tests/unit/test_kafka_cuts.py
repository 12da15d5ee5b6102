"""However captures are cut, what they keep gives the frames of the whole; and frames are what was sent."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka_conversations import converse, cuts
from kafka_messages import Encoder, batch, request, response
from kafka_streams import ACK, SYN, Followed, Packet, follow, renumbered, segmented, segments_of, split, unite, whole

from brokerlens.kafka import keep, machine


def both(captures: list[list[Packet]], chunk: int = 1 << 30, group: int = 1) -> tuple[Followed, Followed]:
    """Frames of the whole, and of what each capture kept."""
    kept = [split(capture, chunk)[0] for capture in captures]
    return follow(unite(whole(capture) for capture in captures)), follow(unite(kept))


def assert_equal_however_cut(seed: int) -> tuple[int, int]:
    """Says how many frames there were, and how many of them began where none does."""
    conversation = converse(seed)
    rng = random.Random(seed)
    of_whole, of_kept = both(cuts(rng, conversation.packets), rng.choice((1 << 30, 1, 3, 10)))
    assert of_whole == of_kept, f"seed {seed}"
    return len(of_whole.rows), sum(row.start & 0xFFFFFFFF not in conversation.starts[row.side] for row in of_whole.rows)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9))
def test_cuts_change_nothing(seed: int) -> None:
    assert_equal_however_cut(seed)


@pytest.mark.parametrize("block", range(4))
def test_cuts_change_nothing_and_frames_are_seldom_made_up(block: int) -> None:
    """The payloads hold Kafka frames with the connection's own client id and ids; the page on stitching found fewer than 1 in 1,000."""
    frames = false = 0
    for seed in range(150 * block, 150 * block + 150):
        found, wrong = assert_equal_however_cut(seed)
        frames += found
        false += wrong
    assert frames > 1_000
    assert false <= frames / 1_000 + 1


@pytest.mark.parametrize("seed", [101_587, 103_679, 107_801])
def test_a_hole_in_a_body_outlasts_the_trust_that_is_found_behind_it(seed: int) -> None:
    """Found among 10,000 streams: a body with a hole in a chain that is not yet trusted, the missing bytes captured late."""
    assert_equal_however_cut(seed)


@pytest.mark.cuts
@pytest.mark.parametrize("block", range(20))
def test_cuts_change_nothing_in_10_000_streams(block: int) -> None:
    frames = false = 0
    for seed in range(100_000 + 500 * block, 100_000 + 500 * block + 500):
        found, wrong = assert_equal_however_cut(seed)
        frames += found
        false += wrong
    assert false <= frames / 1_000


@pytest.mark.parametrize("seed", range(40))
def test_where_all_is_seen_frames_are_what_was_sent(seed: int) -> None:
    """The twin: the generator's own account of every frame, its fields, and which response answers which request."""
    conversation = converse(seed, trouble=False, syn=True)
    found = follow(unite([split(conversation.packets)[0]]))
    truth = sorted(conversation.truth, key=lambda frame: (frame.side, frame.start))
    assert [(row.side, row.size, row.key, row.version, row.correlation) for row in found.rows] == [
        (frame.side, frame.size, frame.key, frame.version, frame.correlation) for frame in truth
    ]
    number = {(frame.side, frame.exchange): i for i, frame in enumerate(truth)}
    for row, frame in zip(found.rows, truth, strict=True):
        assert row.partner == number.get((1 - frame.side, frame.exchange), -1)
        assert row.client == (conversation.client if frame.side == 0 else None)
        if frame.key in {0, 1, 18} or (frame.side == 1 and frame.key == 3):
            assert row.fields == frame.fields
            assert row.body == machine.BODY_WHOLE
        first = min(packet.time for packet in conversation.packets if packet.side == row.side and packet.payload)
        assert row.first >= first
        assert row.last >= row.first
    assert found.framing == [1 if any(frame.side == side for frame in truth) else 0 for side in range(2)]
    assert found.skipped == [0, 0]


@pytest.mark.parametrize("seed", range(12))
def test_times_are_those_of_the_first_and_last_byte(seed: int) -> None:
    conversation = converse(seed, trouble=False, syn=True)
    seen: dict[tuple[int, int], int] = {}
    for packet in conversation.packets:
        base = next(p.seq for p in conversation.packets if p.side == packet.side) + 1
        for i in range(len(packet.payload)):
            seen.setdefault((packet.side, (packet.seq - base + i) & 0xFFFFFFFF), packet.time)
    for row, frame in zip(
        follow(whole(conversation.packets)).rows, sorted(conversation.truth, key=lambda frame: (frame.side, frame.start)), strict=True
    ):
        assert row.first == seen[row.side, frame.start]
        assert row.last == seen[row.side, frame.start + frame.size - 1]


def test_chunks_and_row_groups_change_nothing() -> None:
    for seed in range(60):
        packets = converse(seed).packets
        runs = [[arrived.runs for arrived in split(packets, chunk)[0]] for chunk in (1 << 30, 1, 7)]
        assert runs[0] == runs[1] == runs[2]


def test_a_row_group_ends_where_its_bytes_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB of kept bytes end a group, whatever the chunks were."""
    payload = bytes(1 << 20)
    packets = renumbered(Packet(0, i, 0, i << 20, payload) for i in range(70))
    ends = []
    for chunk in (70, 9):
        keeper, kept = keep.Keeper(), keep.KeptRuns()
        buffer = np.zeros((1 << 20) + 64, np.uint8)
        done = []
        for first in range(0, 70, chunk):
            numbers = np.arange(first, min(70, first + chunk), dtype=np.int64)
            one = np.ones(len(numbers), np.int64)
            table = np.stack([0 * one, numbers << 20, ACK * one, 64 * one, one << 20, one << 20], axis=1)
            at = 0
            while at < len(numbers):
                at += keeper.follow(buffer, segments_of(table[at:], first + at), kept)
                if kept.bytes >= keep.GROUP_BYTES:
                    done.append(first + at)
                    kept.clear()
        ends.append(done)
    assert ends == [[64], [64]]
    assert len(packets) == 70


def test_plain_python_gives_the_same(tmp_path: Path) -> None:
    """The kernels as plain Python: the same rows and kept bytes, and no warning of an overflow."""
    code = (
        "import sys, random, hashlib; sys.path[:0] = sys.argv[1:]\n"
        "from kafka_conversations import converse, cuts\n"
        "from kafka_streams import *\n"
        "for seed in range(12):\n"
        "    captures = cuts(random.Random(seed), converse(seed).packets)\n"
        "    kept = [split(capture)[0] for capture in captures]\n"
        "    print(hashlib.sha256(repr([follow(unite(kept)), [a.runs for k in kept for a in k]]).encode()).hexdigest())\n"
    )
    here = Path(__file__).parent
    paths = [str(here), str(here.parents[1] / "workflow" / "scripts")]
    plain, compiled = (
        subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", "-c", code, *paths],
            env={**os.environ, "NUMBA_DISABLE_JIT": off},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for off in "10"
    )
    assert plain == compiled


def economy(packets: list[Packet]) -> float:
    """Kept bytes as a share of the payload."""
    kept, _ = split(packets)
    return sum(len(run) for arrived in kept for _, run in arrived.runs) / sum(len(packet.there) for packet in packets)


def large_frames(count: int, size: int, *, syn: bool, first_id: int = 0) -> list[Packet]:
    """A producer of frames of this size, and its answers."""
    rng = random.Random(4)
    packets = [Packet(0, 0, 0, 99, flags=SYN), Packet(0, 1, 1, 499, flags=SYN | ACK)] if syn else []
    at, time = [100, 500], 1_000_000
    for n in range(count):
        ask = b""
        while not ask:
            encoder = Encoder("Produce", "Request", 9, rng, lambda rng: batch(rng, rng.randbytes(size), 100), 1, {"Acks": 1})
            ask = encoder.bytes if any(name == "batch_count" for name, _ in encoder.fields) else b""
        reply = Encoder("Produce", "Response", 9, rng, lambda rng: (b"", []), 1)
        for side, frame in ((0, request(0, 9, first_id + n, b"me", ask, True)), (1, response(first_id + n, reply.bytes, True))):
            packets += segmented(side, frame, at[side], time, 1448)
            at[side] = (at[side] + len(frame)) & 0xFFFFFFFF
            time += 50_000_000
    return renumbered(packets)


def test_economy_of_a_certain_chain() -> None:
    assert economy(large_frames(20, 300_000, syn=True)) < 0.004


def test_economy_of_a_connection_that_began_earlier() -> None:
    """Kept whole until three requests were answered, then as a certain one."""
    packets = large_frames(40, 300_000, syn=False)
    assert economy(packets[100:]) < 0.13
    assert both([packets[100:]])[0] == both([packets[100:]])[1]


def test_a_hole_in_a_large_batch_costs_nothing() -> None:
    packets = large_frames(20, 300_000, syn=True)
    inside = [packet for packet in packets if packet.number % 40]
    assert economy(inside) < 0.2
    of_whole, of_kept = both([inside])
    assert of_whole == of_kept


def test_unwrapped_positions_go_on_behind_4_gib() -> None:
    """Responses of 2 GB each: their frames are followed by position, no byte of them is needed."""
    size = 0x7FFFFF00
    packets = [Packet(0, 0, 0, 99, flags=SYN), Packet(0, 1, 1, 4_294_967_290, flags=SYN | ACK)]
    asks = b"".join(request(12, 0, n, b"me", b"", False) for n in range(4))
    packets += segmented(0, asks, 100, 10, 1448)
    at = 4_294_967_291
    for n in range(4):
        head = (size - 4).to_bytes(4, "big") + n.to_bytes(4, "big")
        packets.append(Packet(0, 10_000_000 + n, 1, at & 0xFFFFFFFF, head))
        for step in range(1, 33):  # so that the tap's view of the stream never jumps by more than it believes
            packets.append(Packet(0, 10_000_000 + n, 1, (at + size * step // 32 - 1) & 0xFFFFFFFF, b"x"))
        at += size
    found = follow(whole(renumbered(packets)))
    answers = [row for row in found.rows if row.side == 1]
    assert [row.correlation for row in answers] == [0, 1, 2, 3]
    assert [row.start - answers[0].start for row in answers] == [0, size, 2 * size, 3 * size]
