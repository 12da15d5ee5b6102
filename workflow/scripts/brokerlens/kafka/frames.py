"""Kafka frames of whole connections: where they are, what they say, and which response answers which request.

Works on what `tcp.stream` put together from all captures of a site: which bytes were seen when, and which bytes are there. A direction that was seen
from its SYN is followed from there, and its chain of frames is certain. Elsewhere, and behind a length prefix that nobody captured, a chain is looked
for (scan), and gives rows only where its requests were answered: what cannot be decided is counted, not guessed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brokerlens.capture.compiled import kernel
from brokerlens.kafka import machine as m
from brokerlens.kafka.chain import (
    HEAD_BYTES,
    HEADER_BYTES,
    HEADER_FACTS,
    H_BYTES,
    H_CLIENT,
    H_ID,
    H_SIZE,
    is_reserved,
    is_tls_hello,
    read_header,
    rises,
    tls_record,
)
from brokerlens.kafka.layouts import FIELD_NAMES, FIELDS, PACKED
from brokerlens.kafka.machine import Bytes, Int64s

if TYPE_CHECKING:
    from brokerlens.tcp.stream import Streams

# A response may be captured this long before the request that it answers (the capture swapped them), ns.
SWAPPED: Final = 1_000_000
# Requests behind the last answered one among which a response's is looked for.
WINDOW: Final = 1_024
RETRIES: Final = 64
# Retries in which a rejected chain may go on one frame later: what confused its answers may be gone.
PATIENCE: Final = 4
TLS_RECORDS: Final = 5
EVER: Final = 1 << 62

FRAMING: Final = ("none", "start", "scan")
NOT_FOUND, FROM_START, BY_SCAN = range(3)

# Rows of the array of frames.
(
    F_CONNECTION,
    F_SIDE,
    F_START,
    F_SIZE,
    F_FIRST,
    F_LAST,
    F_KEY,
    F_VERSION,
    F_ID,
    F_CLIENT_FROM,
    F_CLIENT_SIZE,
    F_PARTNER,
    F_SECTION,
    F_BODY,
    F_HEADER,
    F_ACKS,
) = range(16)
FRAME_COLUMNS: Final = 16

# Columns of a section: a stretch of one direction in which the chain of frames held.
S_SIDE, S_START, S_END, S_SCAN, S_SEGMENT, S_REQUESTS, S_ANSWERED, S_EXPECTED = range(8)
SECTION_COLUMNS: Final = 8
SCAN_NO, SCAN_CHAIN, SCAN_END = range(3)

# Places in the counters.
(
    C_FRAMES,
    C_SECTIONS,
    C_FORBIDDEN,
    C_STOPPED,
    C_KNOWN,  # client id of the connection, hashed; -1 not known
    C_HEAD,  # first request of the connection that may still be answered
    C_FIRST,  # first request of the connection
    C_RAW,  # frames without header were passed on a certain chain
    C_LIMIT,  # no scan from this position on (retries used up)
    C_LAST_ID,
    C_CHAINED,
    C_CLIENT,
    C_SECTION,
    C_REQUESTS_END,
    C_ODDITIES,
) = range(15)
ODDITIES: Final = (
    "lost_chains",  # a length prefix that was not captured, or was none
    "incomplete_frames",  # frames whose header or body has bytes that were needed and not captured
    "raw_frames",  # frames without Kafka header (SASL tokens)
    "broken_chains",  # found chains that stopped fulfilling their rules
    "rejected_chains",  # found chains that nothing confirmed
    "lone_responses",  # responses on a certain chain without their request
    "malformed_frames",  # bodies that do not follow their table
    "abandoned_scans",  # 1 where too many chains were rejected
)
ODD_LOST, ODD_HOLES, ODD_RAW, ODD_BROKEN, ODD_REJECTED, ODD_NO_REQUEST, ODD_MALFORMED, ODD_GIVEN_UP = range(len(ODDITIES))
COUNTERS: Final = C_ODDITIES + len(ODDITIES)


class Content(NamedTuple):
    """`tcp.stream.Streams` with one type per array, as the kernel takes it."""

    origin: Int64s
    seen_first: Int64s
    seen_from: Int64s
    seen_to: Int64s
    seen_time: Int64s
    first: Int64s
    start: Int64s
    stop: Int64s
    at: Int64s
    segment: NDArray[np.bool_]
    data: Bytes


class Work(NamedTuple):
    """The kernel's memory. memory: of the machine; state: int64[2, MACHINE_COLUMNS], its rows, one per side. frames: int64[FRAME_COLUMNS, n]. sections: int64[n, SECTION_COLUMNS] of the
    connection that is being followed. forbidden: int64[n], positions where no chain of requests is to begin, sorted. scratch: uint8[HEADER_BYTES].
    """

    memory: Int64s
    state: Int64s
    hold: Bytes
    frames: Int64s
    sections: Int64s
    forbidden: Int64s
    scratch: Bytes
    facts: Int64s
    counters: Int64s
    odd: Int64s


class PerConnection(NamedTuple):
    """Results per direction and connection: framing uint8[2C], frames int64[2C], skipped_bytes int64[2C], encrypted bool[C], oddities int64[C, n]."""

    framing: Bytes
    frames: Int64s
    skipped_bytes: Int64s
    encrypted: NDArray[np.bool_]
    oddities: Int64s


@kernel
def search(ends: Int64s, low: int, high: int, position: int) -> int:
    """First of low..high whose end is beyond the position."""
    while low < high:
        middle = (low + high) >> 1
        if ends[middle] > position:
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def first_sight(seen_first: Int64s, seen_from: Int64s, seen_to: Int64s, seen_time: Int64s, d: int, position: int) -> int:
    """When the byte at this position was first seen, -1 never."""
    last = seen_first[d + 1]
    i = search(seen_to, seen_first[d], last, position)
    if i < last and seen_from[i] <= position:
        return int(seen_time[i])
    return -1


@kernel
def sight(content: Content, d: int, position: int) -> int:
    """When the byte at this position was first seen, -1 never."""
    return first_sight(content.seen_first, content.seen_from, content.seen_to, content.seen_time, d, position)


@kernel
def gather(content: Content, d: int, piece: int, position: int, scratch: Bytes, most: int) -> int:
    """Copy what is there from this position on, up to `most` bytes; `piece` is a piece at or before it."""
    last = content.first[d + 1]
    piece = search(content.stop, piece, last, position)
    count = 0
    while piece < last and content.start[piece] <= position and count < most:
        size = min(content.stop[piece] - position, most - count)
        at = content.at[piece] + position - content.start[piece]
        for i in range(size):
            scratch[count + i] = content.data[at + i]
        count += size
        position += size
        if position < content.stop[piece]:
            break
        piece += 1
    return count


@kernel
def header_at(content: Content, d: int, piece: int, position: int, work: Work) -> bool:
    """A plausible request header stands at this position and is all there; its facts are in `work.facts`."""
    size = gather(content, d, piece, position, work.scratch, HEADER_BYTES)
    return read_header(work.scratch, 0, size, work.memory, work.facts)


@kernel
def is_forbidden(work: Work, position: int) -> bool:
    """A chain of requests that began here was given up before."""
    low, high = 0, work.counters[C_FORBIDDEN]
    while low < high:
        middle = (low + high) >> 1
        if work.forbidden[middle] < position:
            low = middle + 1
        else:
            high = middle
    return bool(low < work.counters[C_FORBIDDEN] and work.forbidden[low] == position)


@kernel
def forbid(work: Work, position: int) -> bool:
    """No chain of requests is to begin here; False where there is no room to remember it."""
    counters, forbidden = work.counters, work.forbidden
    place = counters[C_FORBIDDEN]
    if place >= forbidden.shape[0]:
        return False
    while place > 0 and forbidden[place - 1] > position:
        forbidden[place] = forbidden[place - 1]
        place -= 1
    forbidden[place] = position
    counters[C_FORBIDDEN] += 1
    return True


@kernel
def scan_requests(content: Content, d: int, piece: int, position: int, work: Work, found: Int64s) -> bool:
    """Where the requests' chain goes on from `position`: found[0] position, found[1] SCAN_…, found[2] it begins a segment.

    A plausible header with two more on its chain, one client id and rising ids; at a segment's start one header with the connection's client id.
    Of several the one whose last header is complete first. Only at the data's end: a segment's start whose chain ends exactly there.
    """
    last = content.first[d + 1]
    data_end = content.seen_to[content.seen_first[d + 1] - 1] if content.seen_first[d + 1] > content.seen_first[d] else 0
    best_end = EVER
    resort = -1
    keys = work.memory[0]
    facts, data = work.facts, content.data
    for i in range(piece, last):
        low = max(position, content.start[i])
        high = content.stop[i]
        joined = i + 1 < last and content.start[i + 1] == high
        base = content.at[i] - content.start[i]
        for p in range(low, high):
            if p >= best_end or p >= work.counters[C_LIMIT]:
                break
            if high - p >= HEAD_BYTES:
                at = base + p
                if data[at] > 6 or data[at + 4] != 0 or data[at + 5] >= keys or data[at + 6] != 0 or data[at + 12] not in (0, 1, 255):
                    continue
                if m.signed(data, at, 4) < HEAD_BYTES - 4:
                    continue
            elif not joined:
                break
            if not header_at(content, d, i, p, work) or is_forbidden(work, p):
                continue
            begins = content.segment[i] and p == content.start[i]
            client, correlation = facts[H_CLIENT], facts[H_ID]
            following = p + 4 + facts[H_SIZE]
            end = p + facts[H_BYTES]
            if not (begins and client == work.counters[C_KNOWN]):
                holds = True
                for _ in range(2):
                    if following == data_end and begins and resort < 0:
                        resort = p
                    if not header_at(content, d, i, following, work) or facts[H_CLIENT] != client or not rises(correlation, facts[H_ID]):
                        holds = False
                        break
                    correlation = facts[H_ID]
                    end = following + facts[H_BYTES]
                    following += 4 + facts[H_SIZE]
                if not holds:
                    continue
            if end < best_end:
                best_end = end
                found[0] = p
                found[1] = SCAN_CHAIN
                found[2] = begins
        if high >= best_end or high >= work.counters[C_LIMIT]:
            break
    if best_end < EVER:
        return True
    if resort >= 0:
        found[0] = resort
        found[1] = SCAN_END
        found[2] = 1
        return True
    return False


@kernel
def open_request(frames: Int64s, counters: Int64s, first: int, correlation: int, time: int) -> int:
    """The first request from `first` on that has this id, expects an answer, and was there when the response was seen; -1 none."""
    for j in range(first, min(counters[C_REQUESTS_END], first + WINDOW)):
        if frames[F_LAST, j] > time + SWAPPED or (frames[F_LAST, j] < 0 and frames[F_FIRST, j] > time + SWAPPED):
            return -1
        if frames[F_ID, j] == correlation and not (frames[F_KEY, j] == 0 and frames[F_ACKS, j] == 0):
            return j
    return -1


@kernel
def response_at(content: Content, d: int, piece: int, position: int, first: int, work: Work) -> int:
    """The request, from `first` on, that a response at this position would answer, -1 none; its size is in facts[H_SIZE]."""
    if gather(content, d, piece, position, work.scratch, 8) < 8:
        return -1
    size = m.signed(work.scratch, 0, 4)
    if size < 4 or size > m.REQUEST_LIMIT:
        return -1
    work.facts[H_SIZE] = size
    return open_request(work.frames, work.counters, first, m.signed(work.scratch, 4, 4), sight(content, d, position))


@kernel
def is_boundary(content: Content, d: int, position: int) -> bool:
    """A segment was seen to begin or to end at this position."""
    first, last = content.seen_first[d], content.seen_first[d + 1]
    i = search(content.seen_to, first, last, position - 1)
    return bool(i < last and (content.seen_to[i] == position or content.seen_from[i] == position))


@kernel
def scan_responses(content: Content, d: int, piece: int, position: int, work: Work, found: Int64s) -> bool:
    """Where the responses' chain goes on from `position`: an outstanding request's id, and on its chain that of a later one.

    One is enough where the response begins with a segment and ends with one: payload that holds responses seldom does.
    """
    last = content.first[d + 1]
    best_end = EVER
    frames, counters, data = work.frames, work.counters, content.data
    for i in range(piece, last):
        first = counters[C_HEAD]
        if first >= counters[C_REQUESTS_END]:
            return best_end < EVER
        low = max(position, content.start[i])
        high = content.stop[i]
        if low >= high:
            continue
        joined = i + 1 < last and content.start[i + 1] == high
        base = content.at[i] - content.start[i]
        time = sight(content, d, high - 1)
        if frames[F_FIRST, first] > time + SWAPPED:
            continue
        for p in range(low, high):
            if p >= best_end or p >= work.counters[C_LIMIT]:
                break
            if high - p >= 8:
                at = base + p
                if data[at] > 6 or m.signed(data, at, 4) < 4 or open_request(frames, counters, first, m.signed(data, at + 4, 4), time) < 0:
                    continue
            elif not joined:
                break
            request = response_at(content, d, i, p, first, work)
            if request < 0:
                continue
            end = p + 8
            begins = content.segment[i] and p == content.start[i]
            following = p + 4 + work.facts[H_SIZE]
            if not (begins and is_boundary(content, d, following)):
                if response_at(content, d, i, following, request + 1, work) < 0:
                    continue
                end = following + 8
            if end < best_end:
                best_end = end
                found[0] = p
                found[1] = SCAN_CHAIN
                found[2] = begins
        if high >= best_end or high >= work.counters[C_LIMIT]:
            break
    return best_end < EVER


@kernel
def open_section(work: Work, side: int, position: int, scan: int, begins: int) -> bool:
    """The chain holds from this position on. False where there is no room."""
    counters = work.counters
    section = counters[C_SECTIONS]
    if section >= work.sections.shape[0]:
        return False
    for column in range(SECTION_COLUMNS):
        work.sections[section, column] = 0
    work.sections[section, S_SIDE] = side
    work.sections[section, S_START] = position
    work.sections[section, S_END] = EVER
    work.sections[section, S_SCAN] = scan
    work.sections[section, S_SEGMENT] = begins
    counters[C_SECTION] = section
    counters[C_SECTIONS] = section + 1
    counters[C_CHAINED] = 0
    m.begin(work.memory, np.uint64(work.memory[m.STATE_AT] + side * m.MACHINE_COLUMNS), position)
    return True


@kernel
def add_frame(
    seen_first: Int64s,
    seen_from: Int64s,
    seen_to: Int64s,
    seen_time: Int64s,
    c: int,
    side: int,
    state: Int64s,
    frames: Int64s,
    counters: Int64s,
) -> int:
    """A row for the frame whose header the machine has read; -1 where there is no room."""
    row = counters[C_FRAMES]
    if row >= frames.shape[1]:
        return -1
    start, end = state[side, m.FRAME_START], state[side, m.FRAME_END]
    frames[F_CONNECTION, row] = c
    frames[F_SIDE, row] = side
    frames[F_START, row] = start
    frames[F_SIZE, row] = end - start
    frames[F_FIRST, row] = first_sight(seen_first, seen_from, seen_to, seen_time, 2 * c + side, start)
    frames[F_LAST, row] = first_sight(seen_first, seen_from, seen_to, seen_time, 2 * c + side, end - 1)
    frames[F_KEY, row] = -1
    frames[F_VERSION, row] = -1
    frames[F_ID, row] = state[side, m.CORRELATION]
    frames[F_CLIENT_FROM, row] = -1
    frames[F_CLIENT_SIZE, row] = -1
    frames[F_PARTNER, row] = -1
    frames[F_SECTION, row] = counters[C_SECTION]
    frames[F_BODY, row] = m.BODY_NONE
    frames[F_HEADER, row] = state[side, m.HEADER]
    frames[F_ACKS, row] = 1
    counters[C_FRAMES] = row + 1
    state[side, m.FRAME] = row
    return int(row)


@kernel
def chain_holds(state: Int64s, counters: Int64s) -> bool:
    """A request's header goes on with the chain that was found: one client id, rising ids, everything plausible (as `keep.on_request`)."""
    header = state[0, m.HEADER]
    if header & (m.HEADER_UNKNOWN | m.HEADER_CLIENT_BAD | m.HEADER_CLIENT_ODD):
        return False
    if header & m.HEADER_CLIENT:
        if counters[C_CHAINED] > 0 and counters[C_CLIENT] != state[0, m.CLIENT_HASH]:
            return False
        counters[C_CLIENT] = state[0, m.CLIENT_HASH]
    if not is_reserved(state[0, m.CORRELATION]):
        if counters[C_CHAINED] > 0 and not rises(counters[C_LAST_ID], state[0, m.CORRELATION]):
            return False
        counters[C_LAST_ID] = state[0, m.CORRELATION]
        counters[C_CHAINED] += 1
    return True


@kernel
def on_request(
    seen_first: Int64s,
    seen_from: Int64s,
    seen_to: Int64s,
    seen_time: Int64s,
    c: int,
    state: Int64s,
    frames: Int64s,
    sections: Int64s,
    counters: Int64s,
) -> int:
    """A request's header was read: 1 its row is there, 0 it ends the chain, -1 no room."""
    if sections[counters[C_SECTION], S_SCAN] != SCAN_NO and not chain_holds(state, counters):
        return 0
    row = add_frame(seen_first, seen_from, seen_to, seen_time, c, 0, state, frames, counters)
    if row < 0:
        return -1
    frames[F_KEY, row] = state[0, m.KEY]
    frames[F_VERSION, row] = state[0, m.VERSION]
    if state[0, m.HEADER] & m.HEADER_CLIENT:
        counters[C_KNOWN] = state[0, m.CLIENT_HASH]
        frames[F_CLIENT_SIZE, row] = state[0, m.CLIENT_SIZE]
        if state[0, m.CLIENT_SIZE] >= 0:
            frames[F_CLIENT_FROM, row] = state[0, m.CLIENT_TEXT]
    state[0, m.RAW] = 1 if state[0, m.KEY] == 17 and state[0, m.VERSION] == 0 else 0
    sections[counters[C_SECTION], S_REQUESTS] += 1
    return 1


@kernel
def on_response(
    seen_first: Int64s,
    seen_from: Int64s,
    seen_to: Int64s,
    seen_time: Int64s,
    c: int,
    state: Int64s,
    frames: Int64s,
    sections: Int64s,
    counters: Int64s,
    memory: Int64s,
) -> int:
    """A response's id was read: 1 dealt with, 0 it ends the chain, -1 no room."""
    time = first_sight(seen_first, seen_from, seen_to, seen_time, 2 * c + 1, state[1, m.FRAME_START])
    request = open_request(frames, counters, counters[C_HEAD], state[1, m.CORRELATION], time)
    if request < 0:
        if sections[counters[C_SECTION], S_SCAN] != SCAN_NO:
            return 0
        if state[1, m.RAW] != 0:
            state[1, m.HEADER] = 0
            counters[C_ODDITIES + ODD_RAW] += 1
            return 1
        counters[C_ODDITIES + ODD_NO_REQUEST] += 1
        return 1 if add_frame(seen_first, seen_from, seen_to, seen_time, c, 1, state, frames, counters) >= 0 else -1
    row = add_frame(seen_first, seen_from, seen_to, seen_time, c, 1, state, frames, counters)
    if row < 0:
        return -1
    key, version = frames[F_KEY, request], frames[F_VERSION, request]
    frames[F_KEY, row] = key
    frames[F_VERSION, row] = version
    frames[F_PARTNER, row] = request
    frames[F_PARTNER, request] = row
    counters[C_HEAD] = request + 1
    state[1, m.RAW] = 1 if key == 17 and version == 0 else 0
    m.begin_body(memory, np.uint64(memory[m.STATE_AT] + m.MACHINE_COLUMNS), key, version)
    return 1


@kernel
def on_end(side: int, state: Int64s, frames: Int64s, sections: Int64s, counters: Int64s) -> int:
    """The frame is passed: 1 dealt with, 0 it had no header and ends the chain."""
    header = state[side, m.HEADER]
    row = state[side, m.FRAME]
    if header & m.HEADER_HOLE:
        counters[C_ODDITIES + ODD_HOLES] += 1
    if header & m.HEADER_MALFORMED:
        counters[C_ODDITIES + ODD_MALFORMED] += 1
    close_row(side, state, frames)
    if row < 0 and header & (m.HEADER_HOLE | m.HEADER_READ) == 0:
        certain = sections[counters[C_SECTION], S_SCAN] == SCAN_NO
        if side == 0:
            counters[C_ODDITIES + ODD_RAW] += 1
            if state[0, m.RAW] != 0:
                counters[C_RAW] = 1
                return 1
        return 1 if certain or state[side, m.RAW] != 0 else 0
    if side == 0 and row >= 0 and not (frames[F_KEY, row] == 0 and frames[F_ACKS, row] == 0):
        sections[counters[C_SECTION], S_EXPECTED] += 1
    return 1


@kernel
def close_row(side: int, state: Int64s, frames: Int64s) -> None:
    """What became of the frame's body."""
    row = state[side, m.FRAME]
    if row >= 0:
        frames[F_BODY, row] = state[side, m.BODY]
        frames[F_HEADER, row] = state[side, m.HEADER]
        frames[F_ACKS, row] = state[side, m.ACKS]


@kernel
def answer(
    seen_first: Int64s,
    seen_from: Int64s,
    seen_to: Int64s,
    seen_time: Int64s,
    c: int,
    side: int,
    state: Int64s,
    frames: Int64s,
    sections: Int64s,
    counters: Int64s,
    memory: Int64s,
) -> int:
    """Deal with the machine's event: 1 go on, 0 the chain is at its end and POSITION is where it ended, -1 no room."""
    event = state[side, m.EVENT]
    done = 1
    if event == m.EVENT_LOST:
        counters[C_ODDITIES + ODD_LOST] += 1
        return 0
    if event == m.EVENT_HEADER:
        done = on_request(seen_first, seen_from, seen_to, seen_time, c, state, frames, sections, counters)
    elif event == m.EVENT_RESPONSE:
        done = on_response(seen_first, seen_from, seen_to, seen_time, c, state, frames, sections, counters, memory)
    elif event == m.EVENT_FRAME:
        done = on_end(side, state, frames, sections, counters)
        state[side, m.FRAME] = -1
    if done == 0:
        counters[C_ODDITIES + ODD_BROKEN] += 1
        state[side, m.PHASE] = m.IDLE
        state[side, m.SKIP] = 0
        state[side, m.HELD] = 0
        state[side, m.POSITION] = state[side, m.FRAME_START]
    return done


@kernel
def walk(content: Content, c: int, side: int, work: Work, text: Bytes, found: Int64s) -> bool:
    """Follow one direction of a connection from its first byte to its last; False where there is no room."""
    memory, state, frames, sections, counters, hold = work.memory, work.state, work.frames, work.sections, work.counters, work.hold
    own = np.uint64(memory[m.STATE_AT] + side * m.MACHINE_COLUMNS)
    seen_first, seen_from, seen_to, seen_time = content.seen_first, content.seen_from, content.seen_to, content.seen_time
    starts, stops, places, data = content.start, content.stop, content.at, content.data
    d = 2 * c + side
    first, last = content.first[d], content.first[d + 1]
    m.reset(memory, own, side, side * m.HOLD)
    state[side, m.FRAME] = -1
    if first == last:
        return True
    piece = first
    data_end = seen_to[seen_first[d + 1] - 1] if seen_first[d + 1] > seen_first[d] else 0
    if content.origin[d] >= 0:
        if not open_section(work, side, content.origin[d], SCAN_NO, 1):
            return False
        state[side, m.RAW] = 1 if side == 0 else counters[C_RAW]
    else:
        state[side, m.POSITION] = starts[first]
    while True:
        if state[side, m.PHASE] == m.IDLE:
            position = state[side, m.POSITION]
            close_row(side, state, frames)
            state[side, m.FRAME] = -1
            piece = search(stops, first, last, position)
            there = (
                scan_requests(content, d, piece, position, work, found)
                if side == 0
                else scan_responses(content, d, piece, position, work, found)
            )
            if not there:
                break
            if not open_section(work, side, found[0], found[1], found[2]):
                return False
            state[side, m.RAW] = 0
            piece = search(stops, piece, last, found[0])
        position = state[side, m.POSITION]
        if piece > last or (piece == last and position >= data_end):
            break
        if piece < last and stops[piece] <= position:
            piece += 1
            continue
        done = 1
        missing = (starts[piece] if piece < last else data_end) - position
        while missing > 0 and done == 1:
            missing = m.gap(missing, memory, own)
            if state[side, m.EVENT] == m.EVENT_NONE:
                break
            done = answer(seen_first, seen_from, seen_to, seen_time, c, side, state, frames, sections, counters, memory)
        if done == 1 and piece == last:
            break
        if done == 1:
            at = places[piece] + state[side, m.POSITION] - starts[piece]
            end = places[piece] + stops[piece] - starts[piece]
            while done == 1:
                at = m.advance(data, at, end, memory, own, hold, text)
                if state[side, m.EVENT] == m.EVENT_NONE:
                    break
                done = answer(seen_first, seen_from, seen_to, seen_time, c, side, state, frames, sections, counters, memory)
            piece += 1
        if done < 0 or memory[m.OVERFLOW] != 0:
            return False
        if done == 0:
            sections[counters[C_SECTION], S_END] = state[side, m.POSITION]
    if state[side, m.PHASE] != m.IDLE:
        finish(side, state, frames, sections, counters)
    return True


@kernel
def finish(side: int, state: Int64s, frames: Int64s, sections: Int64s, counters: Int64s) -> None:
    """The direction's data end inside or behind a frame."""
    row = state[side, m.FRAME]
    close_row(side, state, frames)
    if row >= 0 and side == 0 and not (frames[F_KEY, row] == 0 and state[0, m.ACKS] == 0):
        sections[counters[C_SECTION], S_EXPECTED] += 1
    state[side, m.FRAME] = -1


@kernel
def is_confirmed(content: Content, c: int, section: int, work: Work) -> bool:
    """A chain of requests may give rows: it was followed from the SYN, or enough of it was answered, or nothing could answer."""
    sections = work.sections
    if sections[section, S_SCAN] == SCAN_NO:
        return True
    answered = sections[section, S_ANSWERED]
    if answered >= 2 or (answered == 1 and sections[section, S_SEGMENT] != 0):
        return True
    silent = content.seen_first[2 * c + 2] == content.seen_first[2 * c + 1]
    return bool(sections[section, S_SCAN] == SCAN_CHAIN and (silent or sections[section, S_EXPECTED] == 0))


@kernel
def forbid_rejected(content: Content, c: int, whole: bool, work: Work) -> int:
    """Forbid the chains of requests that nothing confirms: 1 there was one, 0 none, -1 no room.

    With `whole` all places of a chain of which nothing was answered: a later place would hardly do better.
    """
    counters, sections, frames = work.counters, work.sections, work.frames
    for row in range(counters[C_FIRST], counters[C_REQUESTS_END]):
        if frames[F_PARTNER, row] >= 0:
            sections[frames[F_SECTION, row], S_ANSWERED] += 1
    rejected = 0
    for section in range(counters[C_SECTIONS]):
        if sections[section, S_SIDE] == 0 and not is_confirmed(content, c, section, work):
            counters[C_ODDITIES + ODD_REJECTED] += 1
            rejected = 1
            if not forbid(work, sections[section, S_START]):
                return -1
    for row in range(counters[C_FIRST], counters[C_REQUESTS_END] if rejected and whole else 0):
        section = frames[F_SECTION, row]
        if sections[section, S_ANSWERED] == 0 and not is_confirmed(content, c, section, work):
            if frames[F_START, row] != sections[section, S_START] and not forbid(work, frames[F_START, row]):
                return -1
    return rejected


@kernel
def first_rejected(work: Work) -> int:
    """Position of the first chain of requests that was found and not confirmed (after the last retry)."""
    return int(work.forbidden[0]) if work.counters[C_FORBIDDEN] > 0 else EVER


@kernel
def tls_records(content: Content, d: int, work: Work) -> bool:
    """Five TLS records in a row, from a segment's start."""
    count = 0
    following = np.int64(-1)
    for i in range(content.first[d], content.first[d + 1]):
        if count == 0:
            if not content.segment[i]:
                continue
            following = content.start[i]
        while content.start[i] <= following < content.stop[i]:
            size = tls_record(
                content.data, content.at[i] + following - content.start[i], content.at[i] + content.stop[i] - content.start[i]
            )
            if size == 0:
                count = 0
                break
            following += size
            count += 1
            if count == TLS_RECORDS:
                return True
    return False


@kernel
def is_encrypted(content: Content, c: int, work: Work) -> bool:
    """The connection carries TLS: by its first bytes, or where its start was not seen by chained records in both directions."""
    started = False
    for side in range(2):
        origin = content.origin[2 * c + side]
        if origin >= 0:
            started = True
            size = gather(content, 2 * c + side, content.first[2 * c + side], origin, work.scratch, 8)
            if is_tls_hello(work.scratch, 0, size):
                return True
    return not started and tls_records(content, 2 * c, work) and tls_records(content, 2 * c + 1, work)


@kernel
def skipped(content: Content, d: int, side: int, work: Work) -> int:
    """Bytes of the direction that were seen and lie in no section."""
    total = 0
    section = 0
    count = work.counters[C_SECTIONS]
    for i in range(content.seen_first[d], content.seen_first[d + 1]):
        start, stop = content.seen_from[i], content.seen_to[i]
        total += stop - start
        while section < count and (work.sections[section, S_SIDE] != side or work.sections[section, S_END] <= start):
            section += 1
        j = section
        while j < count and work.sections[j, S_SIDE] == side and work.sections[j, S_START] < stop:
            total -= max(0, min(stop, work.sections[j, S_END]) - max(start, work.sections[j, S_START]))
            j += 1
    return total


@kernel
def follow_connection(content: Content, c: int, work: Work, text: Bytes, found: Int64s, per: PerConnection) -> bool:
    """Frames, fields and facts of one connection; False where there is no room for them."""
    counters = work.counters
    counters[C_FORBIDDEN] = 0
    counters[C_LIMIT] = EVER
    counters[C_SECTIONS] = 0
    first = counters[C_FRAMES]
    fields, texts = work.memory[m.ROWS], work.memory[m.TEXT_BYTES]
    per.encrypted[c] = is_encrypted(content, c, work)
    counters[C_FIRST] = first
    counters[C_REQUESTS_END] = first
    tries = 0
    while not per.encrypted[c]:
        counters[C_FRAMES] = first
        work.memory[m.ROWS] = fields
        work.memory[m.TEXT_BYTES] = texts
        counters[C_SECTIONS] = 0
        for i in range(work.odd.shape[0]):
            if i not in (ODD_REJECTED, ODD_GIVEN_UP):
                counters[C_ODDITIES + i] = work.odd[i]  # those of the try before are of chains that are none
        counters[C_KNOWN] = -1
        counters[C_HEAD] = first
        counters[C_RAW] = 0
        if not walk(content, c, 0, work, text, found):
            return False
        counters[C_REQUESTS_END] = counters[C_FRAMES]
        if not walk(content, c, 1, work, text, found):
            return False
        rejected = forbid_rejected(content, c, tries >= PATIENCE, work)
        if rejected < 0:
            return False
        if rejected == 0:
            break
        tries += 1
        if tries == RETRIES:
            counters[C_ODDITIES + ODD_GIVEN_UP] += 1
        if tries >= RETRIES:
            counters[C_LIMIT] = first_rejected(work)
    for side in range(2):
        d = 2 * c + side
        per.framing[d] = NOT_FOUND
        per.frames[d] = 0
        per.skipped_bytes[d] = skipped(content, d, side, work)
    for row in range(first, counters[C_FRAMES]):
        d = 2 * c + work.frames[F_SIDE, row]
        if per.frames[d] == 0:
            per.framing[d] = BY_SCAN if work.sections[work.frames[F_SECTION, row], S_SCAN] != SCAN_NO else FROM_START
        per.frames[d] += 1
    for i in range(work.odd.shape[0]):
        per.oddities[c, i] = counters[C_ODDITIES + i] - work.odd[i]
    return True


@kernel
def follow(content: Content, first: int, last: int, work: Work, text: Bytes, found: Int64s, per: PerConnection) -> int:
    """Connections first..last; the first one for which there was no room, else `last`."""
    counters = work.counters
    odd = work.odd
    for c in range(first, last):
        frames, fields, texts = counters[C_FRAMES], work.memory[m.ROWS], work.memory[m.TEXT_BYTES]
        for i in range(odd.shape[0]):
            odd[i] = counters[C_ODDITIES + i]
        if not follow_connection(content, c, work, text, found, per):
            counters[C_FRAMES] = frames
            work.memory[m.ROWS] = fields
            work.memory[m.TEXT_BYTES] = texts
            for i in range(odd.shape[0]):
                counters[C_ODDITIES + i] = odd[i]
            return c
    return last


class Frames(NamedTuple):
    """Frames in the order of connection, side and position; int64[n] each.

    start: position of the length prefix. size: with the prefix. first_time, last_time: ns, when first and last byte were first seen, -1 never. api_key,
    api_version: of a response those of its request, -1 unknown. client_from, client_size: the client id in `Fields.text` (size -1: null or not
    captured, see header). partner: the frame that answers or is answered, -1 none. section: number of the chain in its connection. body: 0 nothing of
    it read, 1 in part, 2 to its end. header: bits `machine.HEADER_…`. acks: of a Produce, 1 where not captured.
    """

    connection: Int64s
    side: Int64s
    start: Int64s
    size: Int64s
    first_time: Int64s
    last_time: Int64s
    api_key: Int64s
    api_version: Int64s
    correlation_id: Int64s
    client_from: Int64s
    client_size: Int64s
    partner: Int64s
    section: Int64s
    body: Int64s
    header: Int64s


class Fields(NamedTuple):
    """Fields in the order of their frames and their places in them; int64[n] but field, uint8[n], and text_size, int32[n]; text uint8[].

    field: number in `layouts.FIELD_NAMES`. value: of integers. text_from, text_size: place of strings and of the 16 bytes of uuids in `text`; size -1 where
    the field is an integer or a null string.
    """

    frame: Int64s
    field: Bytes
    value: Int64s
    text_from: Int64s
    text_size: NDArray[np.int32]
    text: Bytes


class StreamFacts(NamedTuple):
    """framing: uint8[2C], see FRAMING. encrypted: bool[C]. frames, skipped_bytes: int64[2C].
    oddities: int64[C] by the names of ODDITIES.
    """

    framing: Bytes
    encrypted: NDArray[np.bool_]
    frames: Int64s
    skipped_bytes: Int64s
    oddities: dict[str, Int64s]


def _enlarged(array: NDArray[Any], used: int) -> NDArray[Any]:
    """Twice the room along the last axis, what is used of it copied."""
    larger = np.empty((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    larger[..., :used] = array[..., :used]
    return larger


def follow_connections(streams: Streams, connections: int, wanted: Collection[str] = FIELD_NAMES) -> tuple[Frames, Fields, StreamFacts]:
    """Find, read and match the frames of all connections.

    `streams` as `tcp.stream.assemble` makes them; `connections` is their number C; `wanted` are the fields to report (`layouts.FIELD_NAMES`).
    """
    content = Content(
        _int64s(streams.origin),
        _int64s(streams.seen_first),
        _int64s(streams.seen_from),
        _int64s(streams.seen_to),
        _int64s(streams.seen_time),
        _int64s(streams.content_first),
        _int64s(streams.content_from),
        _int64s(streams.content_to),
        _int64s(streams.content_at),
        np.ascontiguousarray(streams.content_segment, np.bool_),
        np.ascontiguousarray(streams.data, np.uint8),
    )
    per = PerConnection(
        np.zeros(2 * connections, np.uint8),
        np.zeros(2 * connections, np.int64),
        np.zeros(2 * connections, np.int64),
        np.zeros(connections, np.bool_),
        np.zeros((connections, len(ODDITIES)), np.int64),
    )
    room = max(1 << 10, len(content.data) // 64)
    memory = _memory(24 * room, wanted)  # what is never written takes none; too little means copying all of it
    work = Work(
        memory,
        _state(memory),
        np.zeros(2 * m.HOLD, np.uint8),
        np.empty((FRAME_COLUMNS, room), np.int64),
        np.zeros((1 << 10, SECTION_COLUMNS), np.int64),
        np.zeros(1 << 10, np.int64),
        np.zeros(HEADER_BYTES, np.uint8),
        np.zeros(HEADER_FACTS, np.int64),
        np.zeros(COUNTERS, np.int64),
        np.zeros(len(ODDITIES), np.int64),
    )
    text = np.empty(8 * room, np.uint8)
    found = np.zeros(3, np.int64)
    connection = 0
    while True:
        connection = int(follow(content, connection, connections, work, text, found, per))
        if connection == connections:
            break
        frames = int(work.counters[C_FRAMES])
        memory = _enlarged(work.memory, int(work.memory[m.OUT_AT] + 3 * work.memory[m.ROWS]))
        memory[m.OUT_END] = len(memory)
        memory[m.OVERFLOW] = 0
        sections = np.zeros((2 * len(work.sections), SECTION_COLUMNS), np.int64)
        work = work._replace(
            memory=memory,
            state=_state(memory),
            frames=_enlarged(work.frames, frames),
            sections=sections,
            forbidden=np.zeros(2 * len(work.forbidden), np.int64),
        )
        text = _enlarged(text, int(work.memory[m.TEXT_BYTES]))
        memory[m.OVERFLOW] = 0
    count = int(work.counters[C_FRAMES])
    oddities = {name: per.oddities[:, i].copy() for i, name in enumerate(ODDITIES)}
    return (
        Frames(*(work.frames[column, :count] for column in range(F_ACKS))),
        _fields(work.memory, text),
        StreamFacts(per.framing, per.encrypted, per.frames, per.skipped_bytes, oddities),
    )


def _int64s(array: NDArray[Any]) -> Int64s:
    """The array as the kernels take it."""
    return np.ascontiguousarray(array, np.int64)


def _memory(room: int, wanted: Collection[str]) -> Int64s:
    """The machine's memory for two directions and `room` numbers of fields."""
    state_at = len(PACKED)
    out_at = state_at + 2 * m.MACHINE_COLUMNS
    memory = np.zeros(out_at + room, np.int64)
    memory[:state_at] = PACKED
    memory[m.WANTED] = sum(1 << FIELDS[name] for name in set(wanted) if name)
    memory[[m.STATE_AT, m.OUT_AT, m.OUT_END, m.MODE]] = state_at, out_at, out_at + room, m.MERGE
    return memory


def _state(memory: Int64s) -> Int64s:
    """The rows of both directions in the machine's memory."""
    return memory[len(PACKED) :][: 2 * m.MACHINE_COLUMNS].reshape(2, m.MACHINE_COLUMNS)


def _fields(memory: Int64s, text: Bytes) -> Fields:
    """The machine's fields as columns."""
    rows = memory[memory[m.OUT_AT] :][: 3 * int(memory[m.ROWS])].reshape(-1, 3)
    what = rows[:, 1]
    is_text = (what >> 8) & 1 == 1
    value = np.where(is_text, 0, rows[:, 2])
    text_from = np.where(is_text, rows[:, 2], -1)
    text_size = np.where(is_text, (what >> 9) - 1, -1).astype(np.int32)
    return Fields(rows[:, 0].copy(), (what & 0xFF).astype(np.uint8), value, text_from, text_size, text[: int(memory[m.TEXT_BYTES])])
