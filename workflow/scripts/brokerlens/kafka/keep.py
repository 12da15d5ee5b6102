"""Which bytes of a capture's payload the merge may read: the split keeps those, and no others.

Kept are the bytes that the machine reads (length prefixes, headers, body fields, batch headers) and everything that this capture alone cannot decide:
a direction's bytes until its frames are found and trusted, what follows a lost length prefix, a body from its first missing byte on, answers whose
request this capture does not hold. Keeping more than needed costs bytes, keeping less would cost rows, so every doubt is kept.

A chain of frames is certain from its SYN, and stays so while no length prefix is missing. A chain found elsewhere (at a segment's start) is trusted
when three requests of it were answered in order while both directions' chains held.

Of a connection that is TLS nothing more is kept, or, where the site has keys, every byte: whatever a capture alone cannot decide is kept whole without a
limit there, so that the merge has every record, also of a connection whose handshake stands in an earlier capture.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brokerlens.capture.compiled import inlined, kernel
from brokerlens.capture.memory import large
from brokerlens.kafka import machine as m
from brokerlens.kafka.chain import (
    HEADER_FACTS,
    is_reserved,
    is_tls_hello,
    read_header,
    rises,
    tls_record,
)
from brokerlens.kafka.layouts import PACKED
from brokerlens.kafka.machine import Bytes, Int64s

FIN, SYN, RST, ACK = 1, 2, 4, 16

# Bytes kept without being read, per direction and capture.
UNDECIDED_LIMIT: Final = 128 << 20
# Kept bytes after which the caller writes its row group.
GROUP_BYTES: Final = 64 << 20
# Requests of a connection that are remembered until they are answered.
OUTSTANDING: Final = 64
# Answered requests that make a found chain trusted; headers where nothing is ever answered (acks=0).
TRUST: Final = 3
TRUST_UNANSWERED: Final = 16
# Ranges of positions kept whole that are remembered per direction.
INTERVALS: Final = 8
# A segment further off than this belongs to no stream that is being followed.
FAR_BEHIND: Final = 4 << 20
FAR_AHEAD: Final = 64 << 20
TLS_RECORDS: Final = 5
# Numbers for the ranges of one packet that were read: more of them become one.
MARKS_ROOM: Final = 1 << 14
EVER: Final = 1 << 62

REASONS: Final = ("read", "start", "lost", "hole", "unknown_response", "stray", "tls")
READ, START, LOST, HOLE, UNKNOWN, STRAY, TLS = range(7)

# Further columns of a direction's state.
(
    CHAIN,
    ORIGIN,  # position of the first byte behind the SYN, -1
    FRESH,  # nothing was seen since the other side's SYN
    NEXT,  # behind the highest byte seen, -1 nothing yet
    HIGH,  # behind the highest byte of all intervals
    RANGES,  # number of intervals
    UNDECIDED,  # bytes kept without being read
    CHAINED,  # headers since the chain was found
    PUSHED,  # requests that expect an answer since then
    CLIENT,  # the chain's client id
    LAST_ID,
    SECTION,  # number of the chain (requests)
    TLS_NEXT,
    TLS_COUNT,
    # Of the connection, in its first direction's row:
    QUEUE_HEAD,
    QUEUE_TAIL,
    QUEUE_SIZE,
    ANSWERED,
    ENCRYPTED,
    RANGE,  # the first range of positions that is kept whole: from, to, reason; the others behind it
) = range(m.MACHINE_COLUMNS, m.MACHINE_COLUMNS + 20)
COLUMNS: Final = RANGE + 3 * INTERVALS

CHAIN_NONE, CHAIN_CERTAIN, CHAIN_FOUND, CHAIN_TRUSTED = range(4)

# Columns of an outstanding request.
N_ID, N_KEY, N_VERSION, N_SECTION, N_NEXT = range(5)

# Places in the counters.
FREE_NODE, FREE_NODES, RUNS, BYTES, STOPPED, CAPPED, KEEP_TLS, KEPT_BY_REASON = range(8)
ODD: Final = KEPT_BY_REASON + len(REASONS)
ODDITIES: Final = ("unusable_lengths", "incomplete_frames", "malformed_bodies", "odd_client_ids", "unknown_apis")
"""What this capture alone shows of bad input; the columns of `connections` say what became of it over all captures."""
ODD_LENGTH, ODD_HOLE, ODD_MALFORMED, ODD_CLIENT, ODD_API = range(len(ODDITIES))
COUNTERS: Final = ODD + len(ODDITIES)
STOP_END, STOP_GROUP, STOP_ROOM = range(3)


class Segments(NamedTuple):
    """Packets of a chunk in the capture's order, one element each.

    direction: 2 * connection + side. seq: raw sequence number of the first payload byte (of a SYN: its own). flags: TCP flags. payload_at: index of the
    payload in the buffer. payload_captured, payload_len: bytes captured and on the wire. row: number of the first packet in the row group.
    """

    direction: Int64s
    seq: NDArray[np.uint32]
    flags: NDArray[np.uint16]
    payload_at: Int64s
    payload_captured: NDArray[np.uint32]
    payload_len: NDArray[np.uint32]
    row: int


@kernel
def row(memory: Int64s, d: int) -> np.uint64:
    """Where the direction's state stands in the memory."""
    return np.uint64(memory[m.STATE_AT] + COLUMNS * d)


@kernel
def add_interval(state: Int64s, d: int, start: int, end: int, reason: int) -> None:
    """Keep the positions start..end whole. Where there are too many ranges, the two oldest with an end become one."""
    if end <= start:
        return
    count = state[d, RANGES]
    for i in range(count):
        # A range without end holds this one only until a chain is trusted.
        inside = state[d, RANGE + 3 * i] <= start and end <= state[d, RANGE + 3 * i + 1]
        if inside and (end == EVER or state[d, RANGE + 3 * i + 1] != EVER):
            return
    if count == INTERVALS:
        join_oldest(state, d)
        count -= 1
    state[d, RANGE + 3 * count] = start
    state[d, RANGE + 3 * count + 1] = end
    state[d, RANGE + 3 * count + 2] = reason
    state[d, RANGES] = count + 1
    state[d, HIGH] = max(state[d, HIGH], end)


@kernel
def join_oldest(state: Int64s, d: int) -> None:
    """Make one range of the two oldest that have an end, and of what lies between them."""
    first = 1 if state[d, RANGE + 1] == EVER else 0
    second = first + 1
    if state[d, RANGE + 3 * second + 1] == EVER:
        second += 1
    state[d, RANGE + 3 * first] = min(state[d, RANGE + 3 * first], state[d, RANGE + 3 * second])
    state[d, RANGE + 3 * first + 1] = max(state[d, RANGE + 3 * first + 1], state[d, RANGE + 3 * second + 1])
    for i in range(3 * second, 3 * (state[d, RANGES] - 1)):
        state[d, RANGE + i] = state[d, RANGE + i + 3]
    state[d, RANGES] -= 1


@kernel
def close_intervals(state: Int64s, d: int) -> None:
    """The chain is trusted: from the machine's position on only what it reads is kept."""
    high = 0
    for i in range(state[d, RANGES]):
        if state[d, RANGE + 3 * i + 1] == EVER:
            state[d, RANGE + 3 * i + 1] = max(state[d, m.POSITION], state[d, RANGE + 3 * i])
        high = max(high, state[d, RANGE + 3 * i + 1])
    state[d, HIGH] = high
    if state[d, CHAIN] == CHAIN_FOUND:
        state[d, CHAIN] = CHAIN_TRUSTED


@kernel
def lose(state: Int64s, d: int, position: int) -> None:
    """No frame is known from this position on: all of it is kept until a chain is trusted again."""
    state[d, CHAIN] = CHAIN_NONE
    state[d, m.PHASE] = m.IDLE
    state[d, m.SKIP] = 0
    state[d, m.HELD] = 0
    state[d & ~1, ANSWERED] = 0
    add_interval(state, d, position, EVER, LOST)


@kernel
def forget_queue(state: Int64s, nodes: Int64s, counters: Int64s, connection: int) -> None:
    """No request of the connection is outstanding."""
    while state[2 * connection, QUEUE_SIZE] > 0:
        pop(state, nodes, counters, connection)


@kernel
def pop(state: Int64s, nodes: Int64s, counters: Int64s, connection: int) -> None:
    """Forget the oldest outstanding request."""
    d = 2 * connection
    node = state[d, QUEUE_HEAD]
    state[d, QUEUE_HEAD] = nodes[node, N_NEXT]
    state[d, QUEUE_SIZE] -= 1
    nodes[node, N_NEXT] = counters[FREE_NODE]
    counters[FREE_NODE] = node
    counters[FREE_NODES] += 1


@kernel
def push(state: Int64s, nodes: Int64s, counters: Int64s, connection: int) -> None:
    """Remember the request that the machine has just passed."""
    d = 2 * connection
    if state[d, QUEUE_SIZE] >= OUTSTANDING:
        pop(state, nodes, counters, connection)
    node = counters[FREE_NODE]
    counters[FREE_NODE] = nodes[node, N_NEXT]
    counters[FREE_NODES] -= 1
    nodes[node, N_ID] = state[d, m.CORRELATION]
    nodes[node, N_KEY] = state[d, m.KEY]
    nodes[node, N_VERSION] = state[d, m.VERSION]
    nodes[node, N_SECTION] = state[d, SECTION]
    if state[d, QUEUE_SIZE] == 0:
        state[d, QUEUE_HEAD] = node
    else:
        nodes[state[d, QUEUE_TAIL], N_NEXT] = node
    state[d, QUEUE_TAIL] = node
    state[d, QUEUE_SIZE] += 1


@kernel
def start_over(memory: Int64s, state: Int64s, d: int) -> None:
    """Nothing is known of this direction: keep it whole until a chain is trusted."""
    undecided = state[d, UNDECIDED]
    m.reset(memory, row(memory, d), d & 1, m.HOLD * d)
    for column in range(m.MACHINE_COLUMNS, COLUMNS):
        if column < QUEUE_HEAD:
            state[d, column] = 0
    state[d, ORIGIN] = -1
    state[d, NEXT] = -1
    state[d, UNDECIDED] = undecided
    add_interval(state, d, 0, EVER, START)


@kernel
def restart(memory: Int64s, state: Int64s, nodes: Int64s, counters: Int64s, connection: int) -> None:
    """A new connection on the same addresses and ports, or the end of one."""
    forget_queue(state, nodes, counters, connection)
    state[2 * connection, ANSWERED] = 0
    state[2 * connection, ENCRYPTED] = 0
    start_over(memory, state, 2 * connection)
    start_over(memory, state, 2 * connection + 1)


@kernel
def begin_certain(memory: Int64s, state: Int64s, d: int, position: int) -> None:
    """The direction's first byte stands at this position: its chain is certain."""
    state[d, ORIGIN] = position
    state[d, FRESH] = 0
    if state[d, NEXT] >= 0:
        return  # data came before the SYN: it is kept as if there were none
    state[d, NEXT] = position
    state[d, RANGES] = 0
    state[d, HIGH] = 0
    state[d, CHAIN] = CHAIN_CERTAIN
    state[d, m.RAW] = 1 - (d & 1)  # the first frames may be GSSAPI tokens
    m.begin(memory, row(memory, d), position)


@kernel
def on_syn(memory: Int64s, state: Int64s, nodes: Int64s, counters: Int64s, d: int, seq: int, flags: int) -> None:
    """A SYN begins a new connection unless it is one that was seen before."""
    position = ((seq + 1) & 0xFFFFFFFF) + (1 << 32)
    if state[d, ORIGIN] >= 0 and (state[d, ORIGIN] - position) & 0xFFFFFFFF == 0:
        return
    if flags & ACK == 0 or state[d, FRESH] == 0:
        restart(memory, state, nodes, counters, d >> 1)
        state[d ^ 1, FRESH] = 1
    begin_certain(memory, state, d, position)


@inlined
def on_request(state: Int64s, d: int) -> bool:
    """A request's header was read; False where it ends a chain that was found."""
    if state[d, CHAIN] != CHAIN_CERTAIN:
        header = state[d, m.HEADER]
        if header & (m.HEADER_UNKNOWN | m.HEADER_CLIENT_BAD | m.HEADER_CLIENT_ODD):
            return False
        if header & m.HEADER_CLIENT:
            if state[d, CHAINED] > 0 and state[d, CLIENT] != state[d, m.CLIENT_HASH]:
                return False
            state[d, CLIENT] = state[d, m.CLIENT_HASH]
        if not is_reserved(state[d, m.CORRELATION]):
            if state[d, CHAINED] > 0 and not rises(state[d, LAST_ID], state[d, m.CORRELATION]):
                return False
            state[d, LAST_ID] = state[d, m.CORRELATION]
            state[d, CHAINED] += 1
    state[d, m.RAW] = 1 if state[d, m.KEY] == 17 and state[d, m.VERSION] == 0 else 0
    return True


@inlined
def on_request_end(state: Int64s, nodes: Int64s, counters: Int64s, d: int) -> bool:
    """A request's frame is passed; False where it had no header and so ends a chain that was found."""
    header = state[d, m.HEADER]
    if header & m.HEADER_READ == 0:
        if header & m.HEADER_HOLE == 0:
            if state[d, m.RAW] == 0:
                return bool(state[d, CHAIN] == CHAIN_CERTAIN)
            state[d + 1, m.RAW] = 1
        return True
    if state[d, m.KEY] != 0 or state[d, m.ACKS] != 0:
        push(state, nodes, counters, d >> 1)
        state[d, PUSHED] = 1
    elif state[d, CHAIN] == CHAIN_FOUND and state[d, CHAINED] >= TRUST_UNANSWERED and state[d, PUSHED] == 0:
        close_intervals(state, d)
    return True


@kernel
def on_response(memory: Int64s, state: Int64s, nodes: Int64s, counters: Int64s, d: int) -> bool:
    """A response's id was read: its layout is that of the one outstanding request with this id. False where a found chain ends."""
    request = d - 1
    found = np.int64(-1)
    matches = 0
    node = state[request, QUEUE_HEAD]
    for _ in range(state[request, QUEUE_SIZE]):
        if nodes[node, N_ID] == state[d, m.CORRELATION]:
            matches += 1
            if found < 0:
                found = node
        node = nodes[node, N_NEXT]
    if matches == 0:
        if state[d, CHAIN] != CHAIN_CERTAIN:
            return False
        if state[d, m.RAW] == 0 or state[request, CHAIN] != CHAIN_CERTAIN:
            add_interval(state, d, state[d, m.POSITION], state[d, m.FRAME_END], UNKNOWN)
        return True
    key, version, section = nodes[found, N_KEY], nodes[found, N_VERSION], nodes[found, N_SECTION]
    while state[request, QUEUE_HEAD] != found:
        pop(state, nodes, counters, request >> 1)
    pop(state, nodes, counters, request >> 1)
    state[d, m.RAW] = 1 if key == 17 and version == 0 else 0
    if matches > 1:
        add_interval(state, d, state[d, m.POSITION], state[d, m.FRAME_END], UNKNOWN)
        return True
    m.begin_body(memory, row(memory, d), key, version)
    if section == state[request, SECTION]:
        state[request, ANSWERED] += 1
        if state[request, ANSWERED] >= TRUST and state[request, CHAIN] != CHAIN_NONE:
            if state[request, CHAIN] == CHAIN_FOUND:
                close_intervals(state, request)
            if state[d, CHAIN] == CHAIN_FOUND:
                close_intervals(state, d)
    return True


@inlined
def count_oddities(state: Int64s, counters: Int64s, d: int) -> None:
    """The frame is passed: what was odd about it."""
    header = state[d, m.HEADER]
    counters[ODD + ODD_HOLE] += header & m.HEADER_HOLE != 0
    counters[ODD + ODD_MALFORMED] += header & m.HEADER_MALFORMED != 0
    counters[ODD + ODD_CLIENT] += header & (m.HEADER_CLIENT_BAD | m.HEADER_CLIENT_ODD) != 0
    counters[ODD + ODD_API] += header & m.HEADER_UNKNOWN != 0


@inlined
def answer(memory: Int64s, state: Int64s, nodes: Int64s, counters: Int64s, d: int) -> bool:
    """Deal with the machine's event; False where the direction is lost and nothing more is to be fed."""
    event = state[d, m.EVENT]
    holds = True
    if event == m.EVENT_LOST:
        counters[ODD + ODD_LENGTH] += 1
        lose(state, d, state[d, m.POSITION])
        return False
    if event == m.EVENT_HEADER:
        holds = on_request(state, d)
    elif event == m.EVENT_RESPONSE:
        holds = on_response(memory, state, nodes, counters, d)
    elif event == m.EVENT_HOLE:
        add_interval(state, d, state[d, m.POSITION], state[d, m.FRAME_END], HOLE)
    elif event == m.EVENT_FRAME:
        count_oddities(state, counters, d)
        if d & 1 == 0:
            holds = on_request_end(state, nodes, counters, d)
        elif state[d, m.HEADER] & (m.HEADER_READ | m.HEADER_HOLE) == 0:
            holds = state[d, CHAIN] == CHAIN_CERTAIN  # too short for an id: a raw SASL token at most
    if not holds:
        lose(state, d, state[d, m.FRAME_START])
    return holds


@inlined
def feed(memory: Int64s, state: Int64s, nodes: Int64s, counters: Int64s, hold: Bytes, d: int, buffer: Bytes, at: int, end: int) -> bool:
    """Give the machine bytes that follow those it has; False where the direction was lost on the way."""
    while True:
        at = m.advance(buffer, at, end, memory, row(memory, d), hold, hold)
        if state[d, m.EVENT] == m.EVENT_NONE:
            return True
        if not answer(memory, state, nodes, counters, d):
            return False


@kernel
def miss(memory: Int64s, state: Int64s, nodes: Int64s, counters: Int64s, d: int, size: int) -> bool:
    """Tell the machine of bytes that are not there; False where the direction was lost."""
    while True:
        size = m.gap(size, memory, row(memory, d))
        if state[d, m.EVENT] == m.EVENT_NONE:
            return True
        if not answer(memory, state, nodes, counters, d):
            return False


@kernel
def find(memory: Int64s, state: Int64s, nodes: Int64s, header: Int64s, d: int, buffer: Bytes, at: int, end: int, position: int) -> bool:
    """Take up a chain where a segment begins with a plausible request, or with the answer to an outstanding one."""
    if d & 1 == 0:
        if not read_header(buffer, at, end, memory, header):
            return False
        state[d, SECTION] += 1
        state[d, CHAINED] = 0
        state[d, PUSHED] = 0
        state[d, m.RAW] = 0
    else:
        if end - at < 8 or m.signed(buffer, at, 4) < 4 or m.signed(buffer, at, 4) > m.REQUEST_LIMIT:
            return False
        correlation = m.signed(buffer, at + 4, 4)
        matches = 0
        node = state[d - 1, QUEUE_HEAD]
        for _ in range(state[d - 1, QUEUE_SIZE]):
            matches += nodes[node, N_ID] == correlation
            node = nodes[node, N_NEXT]
        if matches != 1:
            return False
    state[d, CHAIN] = CHAIN_FOUND
    state[d & ~1, ANSWERED] = 0
    m.begin(memory, row(memory, d), position)
    return True


@kernel
def watch_tls(state: Int64s, d: int, buffer: Bytes, at: int, end: int, position: int) -> None:
    """Follow TLS records from a segment's start: five in a row in both directions are no Kafka."""
    if state[d, TLS_COUNT] >= TLS_RECORDS:
        return
    if state[d, TLS_COUNT] == 0:
        state[d, TLS_NEXT] = position
    while position <= state[d, TLS_NEXT] < position + end - at:
        size = tls_record(buffer, at + state[d, TLS_NEXT] - position, end)
        if size == 0:
            state[d, TLS_COUNT] = 0
            return
        state[d, TLS_NEXT] += size
        state[d, TLS_COUNT] += 1
    if state[d, TLS_COUNT] >= TLS_RECORDS and state[d ^ 1, TLS_COUNT] >= TLS_RECORDS:
        state[d & ~1, ENCRYPTED] = 1


@inlined
def follow_payload(
    memory: Int64s,
    state: Int64s,
    nodes: Int64s,
    counters: Int64s,
    hold: Bytes,
    header: Int64s,
    d: int,
    position: int,
    buffer: Bytes,
    at: int,
    captured: int,
    length: int,
) -> None:
    """One segment's payload, captured in part or whole: feed the machine, look for a chain, remember what is to be kept."""
    if state[d, CHAIN] == CHAIN_NONE:
        watch_tls(state, d, buffer, at, at + captured, position)
        if state[d & ~1, ENCRYPTED] != 0 or not find(memory, state, nodes, header, d, buffer, at, at + captured, position):
            return
    elif position > state[d, m.POSITION] and not miss(memory, state, nodes, counters, d, position - state[d, m.POSITION]):
        if not find(memory, state, nodes, header, d, buffer, at, at + captured, position):
            return
    known = state[d, m.POSITION] - position
    if known < captured and not feed(memory, state, nodes, counters, hold, d, buffer, at + known, at + captured):
        return
    if known < length and captured < length:
        miss(memory, state, nodes, counters, d, length - max(captured, known))


@kernel
def keep_whole(memory: Int64s, state: Int64s, counters: Int64s, d: int, position: int, at: int, captured: int) -> None:
    """Add to what was read of a packet the parts of it that are kept whole; the marks are in order again afterwards."""
    covering = 0  # a range that holds the whole packet: the others add nothing
    for i in range(state[d, RANGES]):
        if state[d, RANGE + 3 * i] <= position and position + captured <= state[d, RANGE + 3 * i + 1]:
            covering = i + 1
    for i in range(max(covering - 1, 0), covering if covering > 0 else state[d, RANGES]):
        start = max(state[d, RANGE + 3 * i], position)
        end = min(state[d, RANGE + 3 * i + 1], position + captured)
        if start >= end:
            continue
        if state[d, UNDECIDED] + end - start > UNDECIDED_LIMIT and counters[KEEP_TLS] == 0:
            counters[CAPPED] += end - start
            continue
        state[d, UNDECIDED] += end - start
        counters[KEPT_BY_REASON + state[d, RANGE + 3 * i + 2]] += end - start
        insert_mark(memory, at + start - position, at + end - position)


@kernel
def insert_mark(memory: Int64s, start: int, end: int) -> None:
    """Add a range to the marks, joined with those it touches."""
    base = memory[m.OUT_AT]
    count = memory[m.ROWS]
    first = 0
    while first < count and memory[base + 2 * first + 1] + m.JOIN <= start:
        first += 1
    last = first
    while last < count and memory[base + 2 * last] < end + m.JOIN:
        start = min(start, memory[base + 2 * last])
        end = max(end, memory[base + 2 * last + 1])
        last += 1
    if last == first and base + 2 * count + 2 > memory[m.OUT_END]:
        last = max(1, last)
        first = last - 1
        start = min(start, memory[base + 2 * first])
        end = max(end, memory[base + 2 * first + 1])
    if last == first:
        for i in range(count, first, -1):
            memory[base + 2 * i] = memory[base + 2 * i - 2]
            memory[base + 2 * i + 1] = memory[base + 2 * i - 1]
    else:
        for i in range(last, count):
            memory[base + 2 * (first + 1 + i - last)] = memory[base + 2 * i]
            memory[base + 2 * (first + 1 + i - last) + 1] = memory[base + 2 * i + 1]
    memory[m.ROWS] = count + 1 - (last - first)
    memory[base + 2 * first] = start
    memory[base + 2 * first + 1] = end


@inlined
def write_runs(
    counters: Int64s, buffer: Bytes, at: int, row: int, memory: Int64s, rows: Int64s, offsets: Int64s, lengths: Int64s, data: Bytes
) -> None:
    """Copy the marked ranges of a packet to the kept runs."""
    run = counters[RUNS]
    used = counters[BYTES]
    for i in range(memory[m.ROWS]):
        start = memory[memory[m.OUT_AT] + 2 * i]
        size = memory[memory[m.OUT_AT] + 2 * i + 1] - start
        if size <= 0 or start < 0 or used < 0:  # never so for start and used: lets the copy below be vectorised
            continue
        rows[run] = row
        offsets[run] = start - at
        lengths[run] = size
        for j in range(size):
            data[used + j] = buffer[start + j]
        run += 1
        used += size
    counters[KEPT_BY_REASON] += used - counters[BYTES]
    counters[RUNS] = run
    counters[BYTES] = used
    memory[m.ROWS] = 0


@kernel
def follow(
    buffer: Bytes,
    direction: Int64s,
    sequence: NDArray[np.uint32],
    tcp_flags: NDArray[np.uint16],
    payload_at: Int64s,
    payload_captured: NDArray[np.uint32],
    payload_len: NDArray[np.uint32],
    first_row: int,
    first: int,
    memory: Int64s,
    state: Int64s,
    nodes: Int64s,
    counters: Int64s,
    hold: Bytes,
    header: Int64s,
    rows: Int64s,
    offsets: Int64s,
    lengths: Int64s,
    data: Bytes,
) -> int:
    """Packets first.. of a chunk (columns as in `Segments`). Returns the first one that was not handled; counters[STOPPED] says why.

    STOP_END: none is left. STOP_GROUP: the row group has its kept bytes. STOP_ROOM: the kept runs, or the memory for connections or requests, need more room.
    """
    if first < 0:  # never: being told so, the compiler leaves out what negative indices would want
        return 0
    for i in range(first, direction.shape[0]):
        if counters[BYTES] >= GROUP_BYTES:
            counters[STOPPED] = STOP_GROUP
            return i
        d = direction[i]
        if d >= state.shape[0]:
            counters[STOPPED] = STOP_ROOM
            return i
        flags: Any = np.int64(tcp_flags[i])
        seq: Any = np.int64(sequence[i])
        length: Any = np.int64(payload_len[i])
        if flags & SYN:
            on_syn(memory, state, nodes, counters, d, seq, flags)
            seq = (seq + 1) & 0xFFFFFFFF
        if flags & RST:
            restart(memory, state, nodes, counters, d >> 1)
            continue
        encrypted = state[d & ~1, ENCRYPTED] != 0
        if length <= 0 or (encrypted and counters[KEEP_TLS] == 0):
            continue
        if state[d, NEXT] < 0:
            position = seq + (1 << 32)
            if state[d, RANGES] == 0:
                start_over(memory, state, d)
        else:
            position = state[d, NEXT] + ((seq - state[d, NEXT] + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
        captured: Any = np.int64(payload_captured[i])
        if position == state[d, m.POSITION] and length < state[d, m.SKIP] and state[d, HIGH] <= position:
            state[d, m.SKIP] -= length
            state[d, m.POSITION] += length
            state[d, NEXT] = position + length
            continue
        at = payload_at[i]
        if (
            data.shape[0] - counters[BYTES] < captured
            or rows.shape[0] - counters[RUNS] < captured // m.JOIN + 2
            or counters[FREE_NODES] <= OUTSTANDING
        ):
            counters[STOPPED] = STOP_ROOM
            return i
        if encrypted or (state[d, ORIGIN] == position and is_tls_hello(buffer, at, at + captured)):
            state[d & ~1, ENCRYPTED] = 1
            if counters[KEEP_TLS] != 0:
                m.mark(memory, at, at + captured)
                counters[KEPT_BY_REASON + TLS] += captured
            else:
                m.mark(memory, at, at + min(captured, 16))
        elif state[d, NEXT] >= 0 and not -FAR_BEHIND <= position - state[d, NEXT] <= FAR_AHEAD:
            if position > state[d, NEXT]:
                lose(state, d, 0)
                state[d, NEXT] = position + length
            else:
                m.mark(memory, at, at + captured)
                counters[KEPT_BY_REASON + STRAY] += captured
        else:
            follow_payload(memory, state, nodes, counters, hold, header, d, position, buffer, at, captured, length)
            state[d, NEXT] = max(state[d, NEXT], position + length)
        if state[d, HIGH] > position:
            keep_whole(memory, state, counters, d, position, at, captured)
        if memory[m.ROWS] > 0:
            write_runs(counters, buffer, at, first_row + i, memory, rows, offsets, lengths, data)
    counters[STOPPED] = STOP_END
    return int(direction.shape[0])


class KeptRuns:
    """Kept runs of payload: arrays row, offset (in the packet's payload), length, of which the first `runs` are used, and the bytes one after another.

    They grow as needed and are used again after `clear`.
    """

    def __init__(self) -> None:
        self.runs = 0
        self.bytes = 0
        self.row, self.offset, self.length = large(3 * 8 << 17).view(np.int64).reshape(3, -1)
        self.data = large(1 << 23)

    def clear(self) -> None:
        """Forget the runs, keep the room."""
        self.runs = 0
        self.bytes = 0

    def enlarge(self, runs: int, size: int) -> None:
        """Room for so many more runs and bytes."""
        if self.runs + runs > len(self.row):
            room = max(2 * len(self.row), self.runs + runs)
            self.row, self.offset, self.length = (_grown(array, room) for array in (self.row, self.offset, self.length))
        if self.bytes + size > len(self.data):
            self.data = _grown(self.data, max(2 * len(self.data), self.bytes + size))


def _grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array with so many elements, zeros at the end."""
    larger = large(array.itemsize * size).view(array.dtype)
    larger[: len(array)] = array
    return larger


class Keeper:
    """Follows a capture's connections and says which payload is to be kept. What it remembers grows with connections only."""

    def __init__(self, keep_tls: bool = False) -> None:
        """With ``keep_tls`` the payload of TLS connections is kept whole: the site has keys."""
        self._counters = np.zeros(COUNTERS, np.int64)
        self._counters[KEEP_TLS] = keep_tls
        self._nodes = np.zeros((0, 5), np.int64)
        self._state_at = len(PACKED) + MARKS_ROOM
        self._memory = np.concatenate([PACKED, np.zeros(MARKS_ROOM, np.int64)])
        self._memory[[m.OUT_AT, m.OUT_END, m.STATE_AT]] = len(PACKED), self._state_at, self._state_at
        self._hold = np.zeros(0, np.uint8)
        self._header = np.zeros(HEADER_FACTS, np.int64)
        self._enlarge_nodes(1 << 10)

    def follow(self, buffer: Bytes, segments: Segments, kept: KeptRuns) -> int:
        """Handle packets and return how many were: all, or less where `kept` holds 64 MiB.

        The caller then writes the row group up to that packet, clears `kept` and goes on. The decision depends on the packets alone, not on how
        they are dealt out to calls.
        """
        first = 0
        while True:
            self._counters[RUNS], self._counters[BYTES] = kept.runs, kept.bytes
            memory = (self._memory, self._state(), self._nodes, self._counters, self._hold, self._header)
            first = follow(buffer, *segments, first, *memory, kept.row, kept.offset, kept.length, kept.data)
            kept.runs, kept.bytes = int(self._counters[RUNS]), int(self._counters[BYTES])
            if self._counters[STOPPED] != STOP_ROOM:
                return first
            self._enlarge_state((int(segments.direction[first]) | 1) + 1)
            captured = int(segments.payload_captured[first])
            kept.enlarge(captured // m.JOIN + 2, captured)
            if self._counters[FREE_NODES] < OUTSTANDING + 1:
                self._enlarge_nodes(2 * len(self._nodes))

    def facts(self) -> dict[str, object]:
        """Kept bytes by reason (what lies in two regions counts for both, and not as read), bytes dropped at the limit, and what was odd."""
        by_reason = {reason: int(self._counters[KEPT_BY_REASON + i]) for i, reason in enumerate(REASONS)}
        by_reason["read"] = max(0, by_reason["read"] - sum(by_reason[reason] for reason in REASONS[1:]))
        if not self._counters[KEEP_TLS]:
            del by_reason["tls"]
        odd = {name: int(self._counters[ODD + i]) for i, name in enumerate(ODDITIES) if self._counters[ODD + i]}
        return {"kept_bytes": by_reason, "capped_bytes": int(self._counters[CAPPED]), "odd": odd}

    def _state(self) -> Int64s:
        """The part of the memory with a row per direction."""
        return self._memory[self._state_at :].reshape(-1, COLUMNS)

    def _enlarge_state(self, directions: int) -> None:
        """Room for so many directions, doubled so that growing costs little."""
        before = len(self._state())
        if directions <= before:
            return
        after = max(directions, 2 * before, 64)
        self._memory = _grown(self._memory, self._state_at + after * COLUMNS)
        state = self._state()[before:]
        state[:, ORIGIN] = -1
        state[:, NEXT] = -1
        state[:, m.SIDE] = np.arange(before, after) & 1
        state[:, m.HOLD_AT] = m.HOLD * np.arange(before, after)
        self._hold = _grown(self._hold, after * m.HOLD)

    def _enlarge_nodes(self, size: int) -> None:
        """Room for so many outstanding requests; the new places are free."""
        before = len(self._nodes)
        nodes = np.zeros((size, 5), np.int64)
        nodes[:before] = self._nodes
        nodes[before:, N_NEXT] = np.arange(before + 1, size + 1)
        nodes[-1, N_NEXT] = self._counters[FREE_NODE]
        self._counters[FREE_NODE] = before
        self._counters[FREE_NODES] += size - before
        self._nodes = nodes
