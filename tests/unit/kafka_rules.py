"""Rules of stitching that can be taken away, to see streams differ. As a program: which of the seeds differ without the rule.

A compiled kernel keeps what it was compiled with, so the program runs with numba's compiler off (`NUMBA_DISABLE_JIT=1`).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from kafka_conversations import converse, cuts, sent_twice
from kafka_streams import follow, split, unite, whole
from tcp_packets import ACK, CLIENT, MS, Packet, rows_of
from test_kafka_reference import compare
from test_tcp_order import seen

from brokerlens.kafka import keep as keep_module
from brokerlens.tcp import order as order_module
from brokerlens.tcp import stream as stream_module

# As objects whose functions may be exchanged.
keep: Any = keep_module
order: Any = order_module
stream: Any = stream_module


def differs_when_cut(seed: int) -> bool:
    """What the captures kept does not give the frames of the whole."""
    captures = cuts(random.Random(seed), converse(seed).packets)
    return follow(unite(split(capture)[0] for capture in captures)) != follow(unite(whole(capture) for capture in captures))


def differs_from_reference(seed: int, changed: bool) -> bool:
    """With every segment sent twice, frames are not those of whole streams put together byte by byte."""
    conversation = converse(seed, trouble=False, syn=True)
    try:
        compare(conversation, sent_twice(conversation.packets, changed))
    except AssertionError:
        return True
    return False


def differs_between_files(seed: int) -> bool:
    """Segments of a bulk transfer, many of one time, in two captures that are given in the other order: the packets or their labels differ."""
    rng = random.Random(seed)
    packets = [Packet(rng.randrange(4) * MS + (n // 4) * 4 * MS, CLIENT, 100 + 10 * n, 1, ACK, 10, ip_id=n + 1) for n in range(20)]
    packets.sort(key=lambda packet: packet.time)
    place = rng.randrange(1, len(packets))
    exchanged = rows_of(packets, [*range(place, len(packets)), *range(place)])
    return seen(exchanged) != seen(rows_of(packets))


def keep_without(reason: int) -> None:
    """No range of positions is kept for this reason."""
    add_interval = keep.add_interval

    def add_others(state: Any, d: int, start: int, end: int, why: int) -> None:
        if why != reason:
            add_interval(state, d, start, end, why)

    keep.add_interval = add_others


def trust_at_once() -> None:
    """A chain that is found is trusted without an answer."""
    find = keep.find

    def find_and_trust(memory: Any, state: Any, nodes: Any, header: Any, d: int, *rest: Any) -> bool:
        found: bool = find(memory, state, nodes, header, d, *rest)
        if found:
            keep.close_intervals(state, d)
        return found

    keep.find = find_and_trust


def content_of_first_sight_alone() -> None:
    """A byte that was seen before it was captured stays unknown."""
    add_seen, add_content = stream._add_seen, stream._add_content
    new: list[tuple[int, int]] = []

    def note_new(seen: Any, base: int, used: int, start: int, end: int, *rest: Any) -> Any:
        known = [(first, last) for first, last, _ in seen[base:used].tolist() if first < end and last > start]
        borders = [start, *(place for piece in known for place in piece), end]
        new[:] = [(first, last) for first, last in zip(borders[::2], borders[1::2], strict=True) if first < last]
        return add_seen(seen, base, used, start, end, *rest)

    def add_new(content: Any, base: int, used: int, start: int, end: int, data_at: int, begins: bool) -> Any:
        for first, last in new:
            low, high = max(first, start), min(last, end)
            if low < high:
                content, used = add_content(content, base, used, low, high, data_at + low - start, begins and low == start)
        return content, used

    stream._add_seen, stream._add_content = note_new, add_new


def content_of_last_copy() -> None:
    """Of several copies of a byte the latest counts."""
    add_content = stream._add_content

    def add_over(content: Any, base: int, used: int, start: int, end: int, data_at: int, begins: bool) -> Any:
        left = [(first, min(last, start), at, head) for first, last, at, head in content[base:used].tolist() if first < start]
        right = [
            (max(first, end), last, at + max(first, end) - first, head and first >= end)
            for first, last, at, head in content[base:used].tolist()
            if last > end
        ]
        content = stream.room(content, base, len(left) + len(right))
        for n, piece in enumerate(left + right):
            content[base + n] = piece
        return add_content(content, base, base + len(left) + len(right), start, end, data_at, begins)

    stream._add_content = add_over


def order_of_files() -> None:
    """Packets of one time stay as the files have them."""
    order._sort_ties = lambda *_: None


class Rule(NamedTuple):
    take_away: Callable[[], None]
    differs: Callable[[int], bool]


RULES = {
    "unknown response": Rule(lambda: keep_without(keep.UNKNOWN), differs_when_cut),
    "hole in a body": Rule(lambda: keep_without(keep.HOLE), differs_when_cut),
    "trust": Rule(trust_at_once, differs_when_cut),
    "captured later than seen": Rule(content_of_first_sight_alone, lambda seed: differs_from_reference(seed, changed=False)),
    "first captured copy": Rule(content_of_last_copy, lambda seed: differs_from_reference(seed, changed=True)),
    "ties by content": Rule(order_of_files, differs_between_files),
}


if __name__ == "__main__":
    rule = RULES[sys.argv[1]]
    rule.take_away()
    print(*(seed for seed in map(int, sys.argv[2:]) if rule.differs(seed)))
