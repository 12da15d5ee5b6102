"""Which bytes of a capture's payload the merge may read: the split keeps those, and no others.

Kept are the bytes that the machine reads (length prefixes, headers, body fields, batch headers) and everything that this capture alone cannot decide:
a direction's bytes until its frames are found and trusted, what follows a lost length prefix, a body from its first missing byte on, answers whose
request this capture does not hold. Keeping more than needed costs bytes, keeping less would cost rows, so every doubt is kept.

A chain of frames is certain from its SYN, and stays so while no length prefix is missing. A chain found elsewhere (at a segment's start) is trusted
when three requests of it were answered in order while both directions' chains held.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.kafka import machine as m
from brokerlens.kafka.chain import (
    HEADER_FACTS,
    is_reserved,
    is_tls_hello,
    read_header,
    rises,
    tls_record,
)
from brokerlens.kafka.layouts import TABLES, Tables

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
EVER: Final = 1 << 62

REASONS: Final = ("read", "start", "lost", "hole", "unknown_response", "stray")
READ, START, LOST, HOLE, UNKNOWN, STRAY = range(6)

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
) = range(m.MACHINE_COLUMNS, m.MACHINE_COLUMNS + 19)
COLUMNS: Final = m.MACHINE_COLUMNS + 19

CHAIN_NONE, CHAIN_CERTAIN, CHAIN_FOUND, CHAIN_TRUSTED = range(4)

# Columns of an outstanding request.
N_ID, N_KEY, N_VERSION, N_SECTION, N_NEXT = range(5)

# Places in `Memory.counters`.
FREE_NODE, FREE_NODES, RUNS, BYTES, STOPPED, CAPPED, KEPT_BY_REASON = range(7)
COUNTERS: Final = KEPT_BY_REASON + len(REASONS)
STOP_END, STOP_GROUP, STOP_ROOM = range(3)


class Segments(NamedTuple):
    """Packets of a chunk in the capture's order, one element each, int64.

    direction: 2 * connection + side. seq: raw sequence number of the first payload byte (of a SYN: its own). flags: TCP flags. payload_at: index of the
    payload in the buffer. payload_captured, payload_len: bytes captured and on the wire. row: number in the row group.
    """

    direction: NDArray[np.int64]
    seq: NDArray[np.int64]
    flags: NDArray[np.int64]
    payload_at: NDArray[np.int64]
    payload_captured: NDArray[np.int64]
    payload_len: NDArray[np.int64]
    row: NDArray[np.int64]


class Memory(NamedTuple):
    """What is remembered between packets: state int64[directions, COLUMNS], hold uint8[64 directions], intervals int64[directions, 3 INTERVALS]
    (from, to, reason), nodes int64[n, 5] (outstanding requests), counters int64[COUNTERS]."""

    state: NDArray[np.int64]
    hold: NDArray[np.uint8]
    intervals: NDArray[np.int64]
    nodes: NDArray[np.int64]
    counters: NDArray[np.int64]
    facts: NDArray[np.int64]


class Pool(NamedTuple):
    """Arrays that kept runs are written to."""

    row: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    data: NDArray[np.uint8]


@njit(cache=True, nogil=True)
def add_interval(memory: Memory, d: int, start: int, end: int, reason: int) -> None:
    """Keep the positions start..end whole. Where there are too many ranges, the two oldest become one."""
    state, intervals = memory.state, memory.intervals
    if end <= start:
        return
    count = state[d, RANGES]
    for i in range(count):
        if intervals[d, 3 * i] <= start and end <= intervals[d, 3 * i + 1]:
            return
    if count == INTERVALS:
        intervals[d, 0] = min(intervals[d, 0], intervals[d, 3])
        intervals[d, 1] = max(intervals[d, 1], intervals[d, 4])
        for i in range(3, 3 * (count - 1)):
            intervals[d, i] = intervals[d, i + 3]
        count -= 1
    intervals[d, 3 * count] = start
    intervals[d, 3 * count + 1] = end
    intervals[d, 3 * count + 2] = reason
    state[d, RANGES] = count + 1
    state[d, HIGH] = max(state[d, HIGH], end)


@njit(cache=True, nogil=True)
def close_intervals(memory: Memory, d: int) -> None:
    """The chain is trusted: from the machine's position on only what it reads is kept."""
    state, intervals = memory.state, memory.intervals
    high = np.int64(0)
    for i in range(state[d, RANGES]):
        if intervals[d, 3 * i + 1] == EVER:
            intervals[d, 3 * i + 1] = max(state[d, m.POSITION], intervals[d, 3 * i])
        high = max(high, intervals[d, 3 * i + 1])
    state[d, HIGH] = high
    if state[d, CHAIN] == CHAIN_FOUND:
        state[d, CHAIN] = CHAIN_TRUSTED


@njit(cache=True, nogil=True)
def lose(memory: Memory, d: int, position: int) -> None:
    """No frame is known from this position on: all of it is kept until a chain is trusted again."""
    state = memory.state
    state[d, CHAIN] = CHAIN_NONE
    state[d, m.PHASE] = m.IDLE
    state[d, m.SKIP] = 0
    state[d, m.HELD] = 0
    state[d & ~1, ANSWERED] = 0
    add_interval(memory, d, position, EVER, LOST)


@njit(cache=True, nogil=True)
def forget_queue(memory: Memory, connection: int) -> None:
    """No request of the connection is outstanding."""
    while memory.state[2 * connection, QUEUE_SIZE] > 0:
        pop(memory, connection)


@njit(cache=True, nogil=True)
def pop(memory: Memory, connection: int) -> None:
    """Forget the oldest outstanding request."""
    state, nodes, counters = memory.state, memory.nodes, memory.counters
    d = 2 * connection
    node = state[d, QUEUE_HEAD]
    state[d, QUEUE_HEAD] = nodes[node, N_NEXT]
    state[d, QUEUE_SIZE] -= 1
    nodes[node, N_NEXT] = counters[FREE_NODE]
    counters[FREE_NODE] = node
    counters[FREE_NODES] += 1


@njit(cache=True, nogil=True)
def push(memory: Memory, connection: int) -> None:
    """Remember the request that the machine has just passed."""
    state, nodes, counters = memory.state, memory.nodes, memory.counters
    d = 2 * connection
    if state[d, QUEUE_SIZE] >= OUTSTANDING:
        pop(memory, connection)
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


@njit(cache=True, nogil=True)
def start_over(memory: Memory, d: int) -> None:
    """Nothing is known of this direction: keep it whole until a chain is trusted."""
    state = memory.state
    undecided = state[d, UNDECIDED]
    m.reset(state, d, d & 1)
    for column in range(m.MACHINE_COLUMNS, COLUMNS):
        if column < QUEUE_HEAD:
            state[d, column] = 0
    state[d, ORIGIN] = -1
    state[d, NEXT] = -1
    state[d, UNDECIDED] = undecided
    add_interval(memory, d, 0, EVER, START)


@njit(cache=True, nogil=True)
def restart(memory: Memory, connection: int) -> None:
    """A new connection on the same addresses and ports, or the end of one."""
    forget_queue(memory, connection)
    memory.state[2 * connection, ANSWERED] = 0
    memory.state[2 * connection, ENCRYPTED] = 0
    start_over(memory, 2 * connection)
    start_over(memory, 2 * connection + 1)


@njit(cache=True, nogil=True)
def begin_certain(memory: Memory, d: int, position: int) -> None:
    """The direction's first byte stands at this position: its chain is certain."""
    state = memory.state
    state[d, ORIGIN] = position
    state[d, FRESH] = 0
    if state[d, NEXT] >= 0:
        return  # data came before the SYN: it is kept as if there were none
    state[d, NEXT] = position
    state[d, RANGES] = 0
    state[d, HIGH] = 0
    state[d, CHAIN] = CHAIN_CERTAIN
    state[d, m.RAW] = 1 - (d & 1)  # the first frames may be GSSAPI tokens
    m.begin(state, d, position)


@njit(cache=True, nogil=True)
def on_syn(memory: Memory, d: int, seq: int, flags: int) -> None:
    """A SYN begins a new connection unless it is one that was seen before."""
    state = memory.state
    position = ((seq + 1) & 0xFFFFFFFF) + (1 << 32)
    if state[d, ORIGIN] >= 0 and (state[d, ORIGIN] - position) & 0xFFFFFFFF == 0:
        return
    if flags & ACK == 0 or state[d, FRESH] == 0:
        restart(memory, d >> 1)
        state[d ^ 1, FRESH] = 1
    begin_certain(memory, d, position)


@njit(cache=True, nogil=True)
def on_request(memory: Memory, d: int) -> bool:
    """A request's header was read; False where it ends a chain that was found."""
    state = memory.state
    if state[d, CHAIN] != CHAIN_CERTAIN:
        header = state[d, m.HEADER]
        if header & (m.HEADER_UNKNOWN | m.HEADER_CLIENT_BAD):
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


@njit(cache=True, nogil=True)
def on_request_end(memory: Memory, d: int) -> bool:
    """A request's frame is passed; False where it had no header and so ends a chain that was found."""
    state = memory.state
    header = state[d, m.HEADER]
    if header & m.HEADER_READ == 0:
        if header & m.HEADER_HOLE == 0:
            if state[d, m.RAW] == 0:
                return state[d, CHAIN] == CHAIN_CERTAIN
            state[d + 1, m.RAW] = 1
        return True
    if state[d, m.KEY] != 0 or state[d, m.ACKS] != 0:
        push(memory, d >> 1)
        state[d, PUSHED] = 1
    elif state[d, CHAIN] == CHAIN_FOUND and state[d, CHAINED] >= TRUST_UNANSWERED and state[d, PUSHED] == 0:
        close_intervals(memory, d)
    return True


@njit(cache=True, nogil=True)
def on_response(memory: Memory, d: int, tables: Tables) -> bool:
    """A response's id was read: its layout is that of the one outstanding request with this id. False where a found chain ends."""
    state, nodes = memory.state, memory.nodes
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
            add_interval(memory, d, state[d, m.POSITION], state[d, m.FRAME_END], UNKNOWN)
        return True
    key, version, section = nodes[found, N_KEY], nodes[found, N_VERSION], nodes[found, N_SECTION]
    while state[request, QUEUE_HEAD] != found:
        pop(memory, request >> 1)
    pop(memory, request >> 1)
    state[d, m.RAW] = 1 if key == 17 and version == 0 else 0
    if matches > 1:
        add_interval(memory, d, state[d, m.POSITION], state[d, m.FRAME_END], UNKNOWN)
        return True
    m.begin_body(state, d, key, version, tables)
    if section == state[request, SECTION]:
        state[request, ANSWERED] += 1
        if state[request, ANSWERED] >= TRUST and state[request, CHAIN] != CHAIN_NONE:
            if state[request, CHAIN] == CHAIN_FOUND:
                close_intervals(memory, request)
            if state[d, CHAIN] == CHAIN_FOUND:
                close_intervals(memory, d)
    return True


@njit(cache=True, nogil=True)
def answer(memory: Memory, d: int, tables: Tables) -> bool:
    """Deal with the machine's event; False where the direction is lost and nothing more is to be fed."""
    state = memory.state
    event = state[d, m.EVENT]
    holds = True
    if event == m.EVENT_LOST:
        lose(memory, d, state[d, m.POSITION])
        return False
    if event == m.EVENT_HEADER:
        holds = on_request(memory, d)
    elif event == m.EVENT_RESPONSE:
        holds = on_response(memory, d, tables)
    elif event == m.EVENT_HOLE:
        add_interval(memory, d, state[d, m.POSITION], state[d, m.FRAME_END], HOLE)
    elif event == m.EVENT_FRAME:
        if d & 1 == 0:
            holds = on_request_end(memory, d)
        elif state[d, m.HEADER] & (m.HEADER_READ | m.HEADER_HOLE) == 0:
            holds = state[d, CHAIN] == CHAIN_CERTAIN  # too short for an id: a raw SASL token at most
    if not holds:
        lose(memory, d, state[d, m.FRAME_START])
    return holds


@njit(cache=True, nogil=True)
def feed(memory: Memory, d: int, buffer: NDArray[np.uint8], at: int, end: int, tables: Tables, out: m.Out) -> bool:
    """Give the machine bytes that follow those it has; False where the direction was lost on the way."""
    while True:
        at = m.advance(buffer, at, end, memory.state, d, memory.hold, tables, out)
        if memory.state[d, m.EVENT] == m.EVENT_NONE:
            return True
        if not answer(memory, d, tables):
            return False


@njit(cache=True, nogil=True)
def miss(memory: Memory, d: int, size: int, tables: Tables, out: m.Out) -> bool:
    """Tell the machine of bytes that are not there; False where the direction was lost."""
    while True:
        size = m.gap(size, memory.state, d, tables, out)
        if memory.state[d, m.EVENT] == m.EVENT_NONE:
            return True
        if not answer(memory, d, tables):
            return False


@njit(cache=True, nogil=True)
def find(memory: Memory, d: int, buffer: NDArray[np.uint8], at: int, end: int, position: int, tables: Tables) -> bool:
    """Take up a chain where a segment begins with a plausible request, or with the answer to an outstanding one."""
    state, nodes = memory.state, memory.nodes
    if d & 1 == 0:
        if not read_header(buffer, at, end, tables, memory.facts):
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
    m.begin(state, d, position)
    return True


@njit(cache=True, nogil=True)
def watch_tls(memory: Memory, d: int, buffer: NDArray[np.uint8], at: int, end: int, position: int) -> None:
    """Follow TLS records from a segment's start: five in a row in both directions are no Kafka."""
    state = memory.state
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


@njit(cache=True, nogil=True)
def follow_payload(memory: Memory, d: int, position: int, buffer: NDArray[np.uint8], at: int, captured: int, length: int, tables: Tables, out: m.Out) -> None:
    """One segment's payload, captured in part or whole: feed the machine, look for a chain, remember what is to be kept."""
    state = memory.state
    if state[d, CHAIN] == CHAIN_NONE:
        watch_tls(memory, d, buffer, at, at + captured, position)
        if state[d & ~1, ENCRYPTED] != 0 or not find(memory, d, buffer, at, at + captured, position, tables):
            return
    elif position > state[d, m.POSITION] and not miss(memory, d, position - state[d, m.POSITION], tables, out):
        if not find(memory, d, buffer, at, at + captured, position, tables):
            return
    known = state[d, m.POSITION] - position
    if known < captured and not feed(memory, d, buffer, at + known, at + captured, tables, out):
        return
    if known < length and captured < length:
        miss(memory, d, length - max(captured, known), tables, out)


@njit(cache=True, nogil=True)
def keep_whole(memory: Memory, d: int, position: int, at: int, captured: int, out: m.Out) -> None:
    """Add to what was read of a packet the parts of it that are kept whole; `out.marks` is in order again afterwards."""
    state, intervals, counters = memory.state, memory.intervals, memory.counters
    for i in range(state[d, RANGES]):
        start = max(intervals[d, 3 * i], position)
        end = min(intervals[d, 3 * i + 1], position + captured)
        if start >= end:
            continue
        if state[d, UNDECIDED] + end - start > UNDECIDED_LIMIT:
            counters[CAPPED] += end - start
            continue
        state[d, UNDECIDED] += end - start
        counters[KEPT_BY_REASON + intervals[d, 3 * i + 2]] += end - start
        insert_mark(out, at + start - position, at + end - position)


@njit(cache=True, nogil=True)
def insert_mark(out: m.Out, start: int, end: int) -> None:
    """Add a range to the marks, joined with those it touches."""
    marks = out.marks
    count = out.counts[m.MARKS]
    first = 0
    while first < count and marks[2 * first + 1] + m.JOIN <= start:
        first += 1
    last = first
    while last < count and marks[2 * last] < end + m.JOIN:
        start = min(start, marks[2 * last])
        end = max(end, marks[2 * last + 1])
        last += 1
    if last == first:
        if 2 * count + 2 > marks.shape[0]:
            marks[2 * count - 1] = max(end, marks[2 * count - 1])
            marks[2 * count - 2] = min(start, marks[2 * count - 2])
            return
        for i in range(count, first, -1):
            marks[2 * i] = marks[2 * i - 2]
            marks[2 * i + 1] = marks[2 * i - 1]
        last = first + 1
        count += 1
    else:
        for i in range(last, count):
            marks[2 * (first + 1 + i - last)] = marks[2 * i]
            marks[2 * (first + 1 + i - last) + 1] = marks[2 * i + 1]
        count -= last - first - 1
    marks[2 * first] = start
    marks[2 * first + 1] = end
    out.counts[m.MARKS] = count


@njit(cache=True, nogil=True)
def write_runs(memory: Memory, buffer: NDArray[np.uint8], at: int, row: int, out: m.Out, pool: Pool) -> None:
    """Copy the marked ranges of a packet to the pool."""
    counters = memory.counters
    for i in range(out.counts[m.MARKS]):
        start = out.marks[2 * i]
        size = out.marks[2 * i + 1] - start
        run = counters[RUNS]
        used = counters[BYTES]
        pool.row[run] = row
        pool.offset[run] = start - at
        pool.length[run] = size
        if size > 0 and start >= 0:
            pool.data[used : used + size] = buffer[start : start + size]
        counters[RUNS] = run + 1
        counters[BYTES] = used + size
        counters[KEPT_BY_REASON] += size
    out.counts[m.MARKS] = 0


@njit(cache=True, nogil=True)
def follow(buffer: NDArray[np.uint8], segments: Segments, first: int, memory: Memory, tables: Tables, out: m.Out, pool: Pool) -> int:
    """Packets first.. of a chunk. Returns the first one that was not handled; counters[STOPPED] says why.

    STOP_END: none is left. STOP_GROUP: the row group has its kept bytes. STOP_ROOM: the pool, or the memory for requests, is to be enlarged.
    """
    state, counters = memory.state, memory.counters
    for i in range(first, segments.direction.shape[0]):
        if counters[BYTES] >= GROUP_BYTES:
            counters[STOPPED] = STOP_GROUP
            return i
        d = segments.direction[i]
        flags = segments.flags[i]
        seq = segments.seq[i]
        length = segments.payload_len[i]
        if flags & SYN:
            on_syn(memory, d, seq, flags)
            seq = (seq + 1) & 0xFFFFFFFF
        if flags & RST:
            restart(memory, d >> 1)
            continue
        if length <= 0 or state[d & ~1, ENCRYPTED] != 0:
            continue
        if state[d, NEXT] < 0:
            position = seq + (1 << 32)
            if state[d, RANGES] == 0:
                start_over(memory, d)
        else:
            position = state[d, NEXT] + ((seq - state[d, NEXT] + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
        captured = segments.payload_captured[i]
        if position == state[d, m.POSITION] and length < state[d, m.SKIP] and state[d, HIGH] <= position:
            state[d, m.SKIP] -= length
            state[d, m.POSITION] += length
            state[d, NEXT] = position + length
            continue
        at = segments.payload_at[i]
        if pool.data.shape[0] - counters[BYTES] < captured or pool.row.shape[0] - counters[RUNS] < captured // m.JOIN + 2 or counters[FREE_NODES] < OUTSTANDING + 1:
            counters[STOPPED] = STOP_ROOM
            return i
        if state[d, ORIGIN] == position and is_tls_hello(buffer, at, at + captured):
            state[d & ~1, ENCRYPTED] = 1
            m.mark(out, at, at + min(captured, 16))
        elif state[d, NEXT] >= 0 and not -FAR_BEHIND <= position - state[d, NEXT] <= FAR_AHEAD:
            if position > state[d, NEXT]:
                lose(memory, d, 0)
                state[d, NEXT] = position + length
            else:
                m.mark(out, at, at + captured)
                counters[KEPT_BY_REASON + STRAY] += captured
        else:
            follow_payload(memory, d, position, buffer, at, captured, length, tables, out)
            state[d, NEXT] = max(state[d, NEXT], position + length)
        if state[d, HIGH] > position:
            keep_whole(memory, d, position, at, captured, out)
        if out.counts[m.MARKS] > 0:
            write_runs(memory, buffer, at, segments.row[i], out, pool)
    counters[STOPPED] = STOP_END
    return segments.direction.shape[0]


class KeptRuns:
    """Kept runs of payload: arrays row, offset (in the packet's payload), length, of which the first `runs` are used, and the bytes one after another.

    They grow as needed and are used again after `clear`.
    """

    def __init__(self) -> None:
        self.runs = 0
        self.bytes = 0
        self.row = np.zeros(1 << 14, np.int64)
        self.offset = np.zeros(1 << 14, np.int64)
        self.length = np.zeros(1 << 14, np.int64)
        self.data = np.zeros(1 << 20, np.uint8)

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


def _grown(array: NDArray, size: int) -> NDArray:
    """The array with so many elements, zeros at the end."""
    larger = np.zeros(size, array.dtype)
    larger[: len(array)] = array
    return larger


class Keeper:
    """Follows a capture's connections and says which payload is to be kept. What it remembers grows with connections only."""

    def __init__(self) -> None:
        self._out = m.Out(np.array([m.SPLIT]), np.zeros(1 << 14, np.int64), np.zeros((5, 0), np.int64), np.zeros(0, np.uint8), np.zeros(m.OUT_COUNTS, np.int64))
        self._counters = np.zeros(COUNTERS, np.int64)
        self._nodes = np.zeros((0, 5), np.int64)
        self._state = np.zeros((0, COLUMNS), np.int64)
        self._hold = np.zeros(0, np.uint8)
        self._intervals = np.zeros((0, 3 * INTERVALS), np.int64)
        self._facts = np.zeros(HEADER_FACTS, np.int64)
        self._enlarge_nodes(1 << 10)

    def follow(self, buffer: NDArray[np.uint8], segments: Segments, first: int, kept: KeptRuns) -> int:
        """Handle packets first.. and return the first one not handled: the number of packets, or less where `kept` holds 64 MiB.

        The caller then writes the row group up to that packet, clears `kept` and goes on. The decision depends on the packets alone, not on how
        they are dealt out to calls.
        """
        count = len(segments.direction)
        if first >= count:
            return count
        directions = (int(segments.direction[first:].max()) | 1) + 1
        if directions > len(self._state):
            self._enlarge_state(directions)
        while True:
            self._counters[RUNS], self._counters[BYTES] = kept.runs, kept.bytes
            pool = Pool(kept.row, kept.offset, kept.length, kept.data)
            memory = Memory(self._state, self._hold, self._intervals, self._nodes, self._counters, self._facts)
            first = follow(buffer, segments, first, memory, TABLES, self._out, pool)
            kept.runs, kept.bytes = int(self._counters[RUNS]), int(self._counters[BYTES])
            if self._counters[STOPPED] != STOP_ROOM:
                return first
            captured = int(segments.payload_captured[first])
            kept.enlarge(captured // m.JOIN + 2, captured)
            if self._counters[FREE_NODES] < OUTSTANDING + 1:
                self._enlarge_nodes(2 * len(self._nodes))

    def facts(self) -> dict[str, object]:
        """Kept bytes by reason (what lies in two regions counts for both, and not as read), and bytes dropped at the limit."""
        by_reason = {reason: int(self._counters[KEPT_BY_REASON + i]) for i, reason in enumerate(REASONS)}
        by_reason["read"] = max(0, by_reason["read"] - sum(by_reason[reason] for reason in REASONS[1:]))
        return {"kept_bytes": by_reason, "capped_bytes": int(self._counters[CAPPED])}

    def _enlarge_state(self, directions: int) -> None:
        """Room for so many directions, doubled so that growing costs little."""
        before, after = len(self._state), max(directions, 2 * len(self._state), 64)
        state = np.zeros((after, COLUMNS), np.int64)
        state[:before] = self._state
        state[before:, ORIGIN] = -1
        state[before:, NEXT] = -1
        state[before:, m.SIDE] = np.arange(before, after) & 1
        self._state = state
        self._hold = _grown(self._hold, after * m.HOLD)
        intervals = np.zeros((after, 3 * INTERVALS), np.int64)
        intervals[:before] = self._intervals
        self._intervals = intervals

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
