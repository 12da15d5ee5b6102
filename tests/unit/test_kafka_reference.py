"""The fast path's frames against whole-stream reassembly in plain Python, on streams with every trouble that captures have."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import NamedTuple

import kafka_reference as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka_conversations import Conversation, Truth, converse, cuts, roughened, sent_twice
from kafka_streams import SYN, Packet, Row, merge, split


class Checked(NamedTuple):
    """known: frames that equal the reference's; behind: those behind what it knows; made_up: those that no frame stands behind."""

    known: int
    behind: int
    made_up: int


def checked(seed: int) -> Checked:
    rng = random.Random(seed)
    conversation = converse(seed, syn=True if rng.random() < 0.85 else None)
    damage = rng.random() < 0.2
    packets = roughened(rng, conversation.packets, damage)
    # A changed byte that stands alone in a capture is what that capture must believe.
    return compare(conversation, [packets] if damage else cuts(rng, packets), f"seed {seed}")


def compare(conversation: Conversation, captures: list[list[Packet]], which: str = "") -> Checked:
    """Fail unless the frames of these captures of a conversation are the reference's, and sound behind where it knows them."""
    found = merge([split(capture)[0] for capture in captures])
    assert not any(found.encrypted)
    frames = [as_frame(row, found.rows, conversation) for row in found.rows]
    known = reference.follow(united(captures))
    truth = {(frame.side, frame.start): frame for frame in conversation.truth}
    told = [frame for frame in frames if frame.start < known.until[frame.side]]
    behind = [frame for frame in frames if frame.start >= known.until[frame.side]]
    assert [unless_behind(frame, known) for frame in told] == known.frames, which
    made_up = [frame for frame in frames if is_made_up(frame, truth)]
    for frame in frames:
        assert frame in made_up or is_sound(frame, truth, conversation.client), f"{which}: {frame}"
    assert behind or not made_up, which
    return Checked(len(told), len(behind), len(made_up))


def as_frame(row: Row, rows: list[Row], conversation: Conversation) -> reference.Frame:
    def place(row: Row) -> int:
        return (row.start - conversation.first[row.side]) % 2**32

    return reference.Frame(
        side=row.side,
        start=place(row),
        size=row.size,
        first=row.first,
        last=row.last,
        key=row.key if row.key >= 0 else None,
        version=row.version if row.key >= 0 else None,
        correlation=row.correlation,
        client=row.client,
        partner=place(rows[row.partner]) if row.partner >= 0 else None,
    )


def united(captures: list[list[Packet]]) -> list[reference.Captured]:
    """Each packet once, with the longest of what the captures have of it."""
    longest: dict[int, Packet] = {}
    for packet in (packet for capture in captures for packet in capture):
        if packet.number not in longest or len(longest[packet.number].there) < len(packet.there):
            longest[packet.number] = packet
    return [
        reference.Captured(packet.time, packet.side, packet.seq, bool(packet.flags & SYN), len(packet.payload), packet.there)
        for _, packet in sorted(longest.items())
    ]


def unless_behind(frame: reference.Frame, known: reference.Known) -> reference.Frame:
    """Without its partner if that lies where the reference knows nothing."""
    hidden = frame.partner is not None and frame.partner >= known.until[1 - frame.side]
    return frame._replace(partner=None) if hidden else frame


def is_made_up(frame: reference.Frame, truth: dict[tuple[int, int], Truth]) -> bool:
    """It, or what it answers or is answered by, begins where no frame does."""
    return (frame.side, frame.start) not in truth or (frame.partner is not None and (1 - frame.side, frame.partner) not in truth)


def is_sound(frame: reference.Frame, truth: dict[tuple[int, int], Truth], client: bytes | None) -> bool:
    """What the frame says is what was sent; what it leaves open may be."""
    sent = truth[frame.side, frame.start]
    says = (frame.size, frame.correlation) == (sent.size, sent.correlation)
    api = (frame.key, frame.version) == (sent.key, sent.version) or (frame.side == 1 and frame.partner is None and frame.key is None)
    named = frame.client is None or (frame.side == 0 and frame.client == client)
    return says and api and named and (frame.partner is None or truth[1 - frame.side, frame.partner].exchange == sent.exchange)


def assert_seldom_made_up(seeds: Iterable[int]) -> None:
    """Where bytes of a header were lost payload may be taken for frames, fewer than once in 1,000 frames of such connections."""
    found = [checked(seed) for seed in seeds]
    assert sum(one.known for one in found) > 5 * len(found)
    doubtful = [one for one in found if one.behind]
    assert sum(one.behind for one in doubtful) > len(found)
    assert sum(one.made_up for one in doubtful) <= sum(one.known + one.behind for one in doubtful) / 1_000 + 1


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**9))
def test_frames_are_those_of_the_reference(seed: int) -> None:
    checked(seed)


def test_frames_are_those_of_the_reference_and_seldom_made_up() -> None:
    assert_seldom_made_up(range(300))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
def test_frames_are_those_of_the_reference_in_10_000_streams(block: int) -> None:
    assert_seldom_made_up(range(100_000 + 2_500 * block, 100_000 + 2_500 * block + 2_500))


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_a_byte_is_what_its_first_captured_copy_says(seed: int, changed: bool) -> None:
    """Captured in part and sent again, or captured and changed on the way when sent again."""
    conversation = converse(seed, trouble=False, syn=True)
    found = compare(conversation, sent_twice(conversation.packets, changed))
    assert found == Checked(len(conversation.truth), 0, 0)
