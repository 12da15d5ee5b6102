"""One machine that follows Kafka frames, fed with the bytes of a direction in stream order.

The split uses it to learn which bytes of a capture matter, the merge to read frames and fields: the same code, so what the merge reads is
what the split kept. It is pushed: `advance` takes a piece of the stream, `gap` tells of bytes that are not there, and both stop at events
that their caller answers (`EVENT_…`). A field that a piece's end cuts is gathered, so any cut of the pieces gives the same result.

Every length on the wire is clipped to its frame before it is used, nothing is allocated, and a frame that does not follow its table is
left at that point and passed over: its length prefix says where the next one begins.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.kafka import layouts
from brokerlens.kafka.layouts import Tables

# Largest frame that a broker accepts (socket.request.max.bytes); clients accept responses of any size.
REQUEST_LIMIT: Final = 104_857_600
RESPONSE_LIMIT: Final = 0x7FFFFFFF
# Versions above the newest known that still count as one: newer brokers and clients keep their header.
VERSION_SLACK: Final = 4
CLIENT_LIMIT: Final = 256
# Where a frame may be a SASL token without header, it is one unless its first bytes could be these (and a client id follows).
FUTURE_KEYS: Final = 1024
FUTURE_VERSIONS: Final = 256
BATCH_HEADER: Final = 61
SET_HEADER: Final = 18
# Bytes gathered per direction: the largest field that is read as one, and room to keep directions apart.
HOLD: Final = 64
# Runs of one packet that are nearer than this are kept as one: a run costs more than the bytes between.
JOIN: Final = 48

# Columns of a direction's state.
(
    PHASE,
    POSITION,  # of the next byte that is not yet taken or passed over
    SKIP,  # bytes to pass over first
    HELD,  # bytes gathered of the field that is being read
    SIDE,
    FRAME_START,
    FRAME_END,
    KEY,
    VERSION,
    CORRELATION,
    HEADER,
    CLIENT_SIZE,
    CLIENT_HASH,
    CLIENT_TEXT,
    EXPECTED,  # continuation bytes of a UTF-8 character
    RAW,  # frames may be SASL tokens without header
    BODY,
    ACKS,
    PC,
    DEPTH,
    COUNT_0,
    COUNT_1,
    COUNT_2,
    COUNT_3,
    VARINT,
    SHIFT,
    TAGS_LEFT,
    TAG_STAGE,
    TAG,
    LEFT,  # bytes of a text still to come
    TEXT_FROM,
    RECORDS_END,
    BATCH_OFFSET,
    BATCH_SIZE,
    BATCH_REST,
    LAST,  # integer field read last
    FRAME,  # number of the frame that fields belong to
    EVENT,
) = range(38)
MACHINE_COLUMNS: Final = 38

(IDLE, LENGTH, HEAD, CLIENT, CLIENT_COPY, BODY_OPS, TEXT, BATCH, BATCH_V2, REST, ABANDON) = range(11)

(
    EVENT_NONE,  # all bytes used
    EVENT_HEADER,  # a request's header was read, as far as it is there
    EVENT_RESPONSE,  # a response's correlation id was read: the caller says what it answers (`begin_body`)
    EVENT_FRAME,  # the frame's end was reached
    EVENT_HOLE,  # needed bytes of the frame are missing, from POSITION on: nothing more of it is read
    EVENT_LOST,  # the next length prefix is missing, or is none: at POSITION
) = range(6)

# Bits of HEADER.
HEADER_READ: Final = 1  # key, version, correlation id
HEADER_CLIENT: Final = 2  # the client id, too
HEADER_CLIENT_BAD: Final = 4  # the client id does not fit into the frame, or is no printable UTF-8
HEADER_UNKNOWN: Final = 8  # key or version beyond the tables
HEADER_HOLE: Final = 16  # needed bytes of the frame are missing
HEADER_MALFORMED: Final = 32  # the body does not follow its table
HEADER_TRAILING: Final = 64  # the body goes on behind its table

BODY_NONE, BODY_PART, BODY_WHOLE = 0, 1, 2

# Places in `Out.counts`.
MARKS, FIELD_ROWS, TEXT_BYTES, OVERFLOW = range(4)
OUT_COUNTS: Final = 4
SPLIT, MERGE = 0, 1

_ACKS: Final = layouts.FIELDS["acks"]
_BATCH: Final = layouts.FIELDS["batch_magic"]
_RECORDS_SIZE: Final = layouts.FIELDS["records_size"]

(
    _STOP,
    _DONE,
    _SKIP,
    _INT,
    _UUID,
    _STRING,
    _STRING_COMPACT,
    _BYTES,
    _BYTES_COMPACT,
    _ITEMS,
    _ITEMS_COMPACT,
    _ARRAY,
    _ARRAY_COMPACT,
    _END,
    _RECORDS,
    _RECORDS_COMPACT,
    _TAGS,
    _UNLESS_35,
) = range(18)


class Out(NamedTuple):
    """Where the machine writes.

    mode: int64[1], SPLIT or MERGE. marks: int64[2 m], ranges of the buffer that were read, in order (split). fields: int64[5, f], frame, field,
    value, place and size of text (merge). text: uint8[t]. counts: int64[OUT_COUNTS], how much of each is used; OVERFLOW is 1 where something did
    not fit, and the caller begins again with more room.
    """

    mode: NDArray[np.int64]
    marks: NDArray[np.int64]
    fields: NDArray[np.int64]
    text: NDArray[np.uint8]
    counts: NDArray[np.int64]


@njit(cache=True, nogil=True)
def unsigned(source: NDArray[np.uint8], at: int, size: int) -> int:
    """Big endian unsigned integer of 1, 2 or 4 bytes."""
    value = np.int64(0)
    for i in range(size):
        value = (value << 8) | np.int64(source[at + i])
    return value


@njit(cache=True, nogil=True)
def signed(source: NDArray[np.uint8], at: int, size: int) -> int:
    """Big endian signed integer of 1, 2, 4 or 8 bytes."""
    value = np.int64(source[at])
    if value >= 128:
        value -= 256
    for i in range(1, size):
        value = (value << 8) | np.int64(source[at + i])
    return value


@njit(cache=True, nogil=True)
def known_api(key: int, version: int, tables: Tables) -> bool:
    """The key is an api's, and the version one that it may have by now."""
    return 0 <= key < tables.newest.shape[0] and 0 <= version <= tables.newest[key] + VERSION_SLACK


@njit(cache=True, nogil=True)
def reset(state: NDArray[np.int64], d: int, side: int) -> None:
    """A direction about which nothing is known."""
    for column in range(MACHINE_COLUMNS):
        state[d, column] = 0
    state[d, SIDE] = side


@njit(cache=True, nogil=True)
def begin(state: NDArray[np.int64], d: int, position: int) -> None:
    """The next frame begins at this position."""
    state[d, PHASE] = LENGTH
    state[d, POSITION] = position
    state[d, SKIP] = 0
    state[d, HELD] = 0
    state[d, FRAME_START] = position
    state[d, FRAME_END] = position
    state[d, HEADER] = 0


@njit(cache=True, nogil=True)
def begin_body(state: NDArray[np.int64], d: int, key: int, version: int, tables: Tables) -> None:
    """Read the frame's body as that of this api and version, or pass over it where no table has it."""
    state[d, KEY] = key
    state[d, VERSION] = version
    start = np.int64(-1)
    if 0 <= key < tables.starts.shape[1] and 0 <= version < tables.starts.shape[2]:
        start = np.int64(tables.starts[state[d, SIDE], key, version])
    if start < 0:
        rest(state, d)
        return
    state[d, SKIP] = 0
    state[d, PC] = start
    state[d, DEPTH] = 0
    state[d, VARINT] = 0
    state[d, SHIFT] = 0
    state[d, TAG_STAGE] = 0
    state[d, PHASE] = BODY_OPS


@njit(cache=True, nogil=True)
def rest(state: NDArray[np.int64], d: int) -> None:
    """Pass over what is left of the frame."""
    state[d, PHASE] = REST
    state[d, HELD] = 0
    state[d, SKIP] = max(state[d, FRAME_END] - state[d, POSITION], 0)


@njit(cache=True, nogil=True)
def mark(out: Out, start: int, end: int) -> None:
    """Note that buffer[start:end] was read; near neighbours are joined."""
    used = out.counts[MARKS]
    if used > 0 and start - out.marks[2 * used - 1] < JOIN:
        out.marks[2 * used - 1] = end
    elif 2 * used + 1 < out.marks.shape[0]:
        out.marks[2 * used] = start
        out.marks[2 * used + 1] = end
        out.counts[MARKS] = used + 1
    else:
        out.marks[2 * used - 1] = end


@njit(cache=True, nogil=True)
def emit(out: Out, frame: int, field: int, value: int, text_from: int, text_size: int) -> None:
    """One field of a frame (merge)."""
    if out.mode[0] != MERGE or field == 0 or frame < 0:
        return
    row = out.counts[FIELD_ROWS]
    if row >= out.fields.shape[1]:
        out.counts[OVERFLOW] = 1
        return
    out.fields[0, row] = frame
    out.fields[1, row] = field
    out.fields[2, row] = value
    out.fields[3, row] = text_from
    out.fields[4, row] = text_size
    out.counts[FIELD_ROWS] = row + 1


@njit(cache=True, nogil=True)
def copy_text(out: Out, source: NDArray[np.uint8], at: int, size: int) -> None:
    """Append text to the pool (merge)."""
    if out.mode[0] != MERGE:
        return
    used = out.counts[TEXT_BYTES]
    if used + size > out.text.shape[0]:
        out.counts[OVERFLOW] = 1
        return
    for i in range(size):
        out.text[used + i] = source[at + i]
    out.counts[TEXT_BYTES] = used + size


@njit(cache=True, nogil=True)
def hash_client(state: NDArray[np.int64], d: int, source: NDArray[np.uint8], at: int, size: int) -> None:
    """Go on hashing a client id and checking that it is printable UTF-8 (RFC 3629, without the rarest refinements)."""
    value = state[d, CLIENT_HASH]
    expected = state[d, EXPECTED]
    bad = False
    for i in range(size):
        byte = np.int64(source[at + i])
        value = (value * 257 + byte + 1) & 0xFFFFFFFFFFFF
        if expected > 0:
            bad |= byte & 0xC0 != 0x80
            expected -= 1
        elif byte >= 0x80:
            bad |= byte < 0xC2 or byte > 0xF4
            expected = 1 + (byte >= 0xE0) + (byte >= 0xF0)
        else:
            bad |= byte < 0x20 or byte == 0x7F
    state[d, CLIENT_HASH] = value
    state[d, EXPECTED] = expected
    if bad:
        state[d, HEADER] |= HEADER_CLIENT_BAD


@njit(cache=True, nogil=True)
def malformed(state: NDArray[np.int64], d: int) -> None:
    """The body does not follow its table: leave it here."""
    state[d, HEADER] |= HEADER_MALFORMED
    rest(state, d)


@njit(cache=True, nogil=True)
def skip_in_frame(state: NDArray[np.int64], d: int, position: int, size: int) -> bool:
    """Pass over `size` bytes behind `position` if the frame has them."""
    if size > state[d, FRAME_END] - position:
        malformed(state, d)
        return False
    state[d, SKIP] = size
    return True


@njit(cache=True, nogil=True)
def begin_text(state: NDArray[np.int64], d: int, position: int, size: int, field: int, out: Out) -> None:
    """A string of `size` bytes (negative: null) behind `position`; the instruction is done when it is read."""
    pc = state[d, PC]
    if size <= 0:
        emit(out, state[d, FRAME], field, 0, out.counts[TEXT_BYTES], max(size, -1))
        state[d, PC] = pc + 1
    elif field == 0:
        if skip_in_frame(state, d, position, size):
            state[d, PC] = pc + 1
    elif size > state[d, FRAME_END] - position:
        malformed(state, d)
    else:
        state[d, PHASE] = TEXT
        state[d, LEFT] = size
        state[d, TEXT_FROM] = out.counts[TEXT_BYTES]


@njit(cache=True, nogil=True)
def begin_array(state: NDArray[np.int64], d: int, count: int, behind: int) -> None:
    """An array of `count` items (none or null: go on behind it)."""
    if count <= 0:
        state[d, PC] = behind
    elif count > state[d, FRAME_END] - state[d, FRAME_START] or state[d, DEPTH] >= 4:
        malformed(state, d)  # every item has a byte at least
    else:
        state[d, COUNT_0 + state[d, DEPTH]] = count
        state[d, DEPTH] += 1
        state[d, PC] += 1


@njit(cache=True, nogil=True)
def begin_records(state: NDArray[np.int64], d: int, position: int, size: int, field: int, out: Out) -> None:
    """Record batches of `size` bytes (negative: null) behind `position`."""
    state[d, PC] += 1
    if size > state[d, FRAME_END] - position:
        # A claim beyond the frame: what there is of the batches is not trusted.
        malformed(state, d)
        return
    emit(out, state[d, FRAME], field, max(size, 0), -1, -1)
    if size > 0:
        state[d, RECORDS_END] = position + size
        next_batch(state, d, position)


@njit(cache=True, nogil=True)
def next_batch(state: NDArray[np.int64], d: int, position: int) -> None:
    """A batch's header follows, or what is left is too short for one and passed over."""
    left = state[d, RECORDS_END] - position
    if left >= SET_HEADER:
        state[d, PHASE] = BATCH
    else:
        state[d, SKIP] += left
        state[d, PHASE] = BODY_OPS


@njit(cache=True, nogil=True)
def take_batch(state: NDArray[np.int64], d: int, source: NDArray[np.uint8], at: int, position: int, out: Out) -> None:
    """The first 18 bytes of a batch or an old message: both have offset, size and magic at the same places."""
    offset = signed(source, at, 8)
    size = signed(source, at + 8, 4)
    magic = signed(source, at + 16, 1)
    left = state[d, RECORDS_END] - position  # behind the 18 bytes
    rest_of_batch = size - (SET_HEADER - 12)
    if rest_of_batch < 0 or magic < 0 or magic > 2 or (magic == 2 and size < BATCH_HEADER - 12):
        state[d, HEADER] |= HEADER_MALFORMED
        state[d, SKIP] = left
        state[d, PHASE] = BODY_OPS
        return
    if rest_of_batch > left or (magic == 2 and left < BATCH_HEADER - SET_HEADER):
        # The broker cuts the last batch off at the partition's limit; the consumer throws it away.
        emit(out, state[d, FRAME], _BATCH + 11, left + SET_HEADER, -1, -1)
        state[d, SKIP] = left
        state[d, PHASE] = BODY_OPS
        return
    emit(out, state[d, FRAME], _BATCH, magic, -1, -1)
    emit(out, state[d, FRAME], _BATCH + 1, offset, -1, -1)
    emit(out, state[d, FRAME], _BATCH + 2, size + 12, -1, -1)
    if magic == 2:
        state[d, BATCH_REST] = rest_of_batch
        state[d, PHASE] = BATCH_V2
        return
    emit(out, state[d, FRAME], _BATCH + 3, np.int64(source[at + 17]), -1, -1)
    state[d, SKIP] = rest_of_batch
    next_batch(state, d, position + rest_of_batch)


@njit(cache=True, nogil=True)
def take_batch_v2(state: NDArray[np.int64], d: int, source: NDArray[np.uint8], at: int, position: int, out: Out) -> None:
    """Bytes 18 to 60 of a record batch (DefaultRecordBatch.java)."""
    frame = state[d, FRAME]
    if out.mode[0] == MERGE:
        emit(out, frame, _BATCH + 3, signed(source, at + 3, 2), -1, -1)
        emit(out, frame, _BATCH + 4, signed(source, at + 5, 4), -1, -1)
        emit(out, frame, _BATCH + 5, signed(source, at + 9, 8), -1, -1)
        emit(out, frame, _BATCH + 6, signed(source, at + 17, 8), -1, -1)
        producer = signed(source, at + 25, 8)
        if producer >= 0:
            emit(out, frame, _BATCH + 7, producer, -1, -1)
            emit(out, frame, _BATCH + 8, signed(source, at + 33, 2), -1, -1)
            emit(out, frame, _BATCH + 9, signed(source, at + 35, 4), -1, -1)
        emit(out, frame, _BATCH + 10, signed(source, at + 39, 4), -1, -1)
    left = state[d, BATCH_REST] - (BATCH_HEADER - SET_HEADER)
    state[d, SKIP] = left
    next_batch(state, d, position + left)


@njit(cache=True, nogil=True)
def take_varint(state: NDArray[np.int64], d: int, byte: int) -> int:
    """Go on reading an unsigned varint: its value when complete, -1 while it goes on, -2 where it does not end."""
    shift = state[d, SHIFT]
    value = state[d, VARINT] | ((byte & 0x7F) << shift)
    if byte & 0x80:
        if shift >= 28:
            return -2
        state[d, VARINT] = value
        state[d, SHIFT] = shift + 7
        return -1
    state[d, VARINT] = 0
    state[d, SHIFT] = 0
    return value


@njit(cache=True, nogil=True)
def take_tags(state: NDArray[np.int64], d: int, value: int, position: int, wanted: int) -> None:
    """One varint of tagged fields: their number, then tag and size of each."""
    stage = state[d, TAG_STAGE]
    if stage == 0:
        state[d, TAGS_LEFT] = value
        state[d, TAG_STAGE] = 1
    elif stage == 1:
        state[d, TAG] = value
        state[d, TAG_STAGE] = 2
    else:
        state[d, TAGS_LEFT] -= 1
        state[d, TAG_STAGE] = 1
        if state[d, TAG] == wanted and value >= 4:
            state[d, TAG_STAGE] = 3
            state[d, LEFT] = value - 4
            if value > state[d, FRAME_END] - position:
                malformed(state, d)
        else:
            skip_in_frame(state, d, position, value)
    if state[d, TAGS_LEFT] == 0 and state[d, TAG_STAGE] == 1:
        state[d, TAG_STAGE] = 0
        state[d, PC] += 1


@njit(cache=True, nogil=True)
def take_body(state: NDArray[np.int64], d: int, source: NDArray[np.uint8], at: int, position: int, tables: Tables, out: Out) -> None:
    """The bytes that the instruction needs are source[at:], `position` is behind them."""
    pc = state[d, PC]
    op = np.int64(tables.program[pc, 0])
    argument = np.int64(tables.program[pc, 1])
    field = np.int64(tables.program[pc, 2])
    if op == _INT:
        value = signed(source, at, argument)
        state[d, LAST] = value
        if field == _ACKS:
            state[d, ACKS] = value
        emit(out, state[d, FRAME], field, value, -1, -1)
        state[d, PC] = pc + 1
    elif op == _STRING:
        begin_text(state, d, position, signed(source, at, 2), field, out)
    elif op == _BYTES or op == _ITEMS:
        size = signed(source, at, 4)
        if op == _ITEMS:
            size *= argument
        if skip_in_frame(state, d, position, max(size, 0)):
            state[d, PC] = pc + 1
    elif op == _ARRAY:
        begin_array(state, d, signed(source, at, 4), argument)
    elif op == _RECORDS:
        begin_records(state, d, position, signed(source, at, 4), field, out)
    elif op == _TAGS and state[d, TAG_STAGE] == 3:
        emit(out, state[d, FRAME], field, signed(source, at, 4), -1, -1)
        state[d, SKIP] = state[d, LEFT]
        state[d, TAG_STAGE] = 1
        if state[d, TAGS_LEFT] == 0:
            state[d, TAG_STAGE] = 0
            state[d, PC] = pc + 1
    else:
        value = take_varint(state, d, np.int64(source[at]))
        if value == -2:
            malformed(state, d)
        elif value >= 0:
            if op == _STRING_COMPACT:
                begin_text(state, d, position, value - 1, field, out)
            elif op == _BYTES_COMPACT or op == _ITEMS_COMPACT:
                if op == _ITEMS_COMPACT:
                    value = (value - 1) * argument + 1
                if skip_in_frame(state, d, position, max(value - 1, 0)):
                    state[d, PC] = pc + 1
            elif op == _ARRAY_COMPACT:
                begin_array(state, d, value - 1, argument)
            elif op == _RECORDS_COMPACT:
                begin_records(state, d, position, value - 1, field, out)
            else:
                take_tags(state, d, value, position, argument)


@njit(cache=True, nogil=True)
def body_need(state: NDArray[np.int64], d: int, tables: Tables, out: Out) -> int:
    """Carry out instructions that need no byte; how many bytes the next one needs, 0 where something is to be passed over or the body is done."""
    while True:
        pc = state[d, PC]
        op = np.int64(tables.program[pc, 0])
        if op == _INT:
            return np.int64(tables.program[pc, 1])
        if op == _SKIP:
            state[d, PC] = pc + 1
            skip_in_frame(state, d, state[d, POSITION], np.int64(tables.program[pc, 1]))
            return 0
        if op == _END:
            depth = state[d, DEPTH] - 1
            state[d, COUNT_0 + depth] -= 1
            if state[d, COUNT_0 + depth] > 0:
                state[d, PC] = np.int64(tables.program[pc, 1])
            else:
                state[d, DEPTH] = depth
                state[d, PC] = pc + 1
        elif op == _UUID:
            field = np.int64(tables.program[pc, 2])
            if field == 0:
                state[d, PC] = pc + 1
                skip_in_frame(state, d, state[d, POSITION], 16)
            else:
                begin_text(state, d, state[d, POSITION], 16, field, out)
            return 0
        elif op == _STRING:
            return 2
        elif op == _BYTES or op == _ITEMS or op == _ARRAY or op == _RECORDS:
            return 4
        elif op == _TAGS:
            return 4 if state[d, TAG_STAGE] == 3 else 1
        elif op == _UNLESS_35:
            if state[d, LAST] == 35:
                state[d, BODY] = BODY_WHOLE
                rest(state, d)
                return 0
            state[d, PC] = pc + 1
        elif op == _STOP:
            state[d, BODY] = BODY_PART
            rest(state, d)
            return 0
        elif op == _DONE:
            if state[d, POSITION] < state[d, FRAME_END]:
                state[d, HEADER] |= HEADER_TRAILING
            else:
                state[d, BODY] = BODY_WHOLE
            rest(state, d)
            return 0
        else:
            return 1


@njit(cache=True, nogil=True)
def take_head(state: NDArray[np.int64], d: int, source: NDArray[np.uint8], at: int, tables: Tables) -> int:
    """A request's key, version and correlation id; the client id follows, but for ControlledShutdown version 0."""
    key = signed(source, at, 2)
    version = signed(source, at + 2, 2)
    state[d, KEY] = key
    state[d, VERSION] = version
    state[d, CORRELATION] = signed(source, at + 4, 4)
    state[d, CLIENT_SIZE] = -1
    state[d, CLIENT_HASH] = 0
    known = known_api(key, version, tables)
    if state[d, RAW] != 0 and not (0 <= key < FUTURE_KEYS and 0 <= version < FUTURE_VERSIONS):
        rest(state, d)  # a SASL token: its bytes are no header
        return EVENT_NONE
    state[d, HEADER] = HEADER_READ
    if not known:
        state[d, HEADER] |= HEADER_UNKNOWN
    if key == 7 and version == 0:
        state[d, HEADER] |= HEADER_CLIENT
        begin_body(state, d, key, version, tables)
        return EVENT_HEADER
    if state[d, FRAME_END] - state[d, FRAME_START] < 14:
        state[d, HEADER] |= HEADER_CLIENT_BAD
        return end_of_header(state, d, tables)
    state[d, PHASE] = CLIENT
    return EVENT_NONE


@njit(cache=True, nogil=True)
def take_client_size(state: NDArray[np.int64], d: int, source: NDArray[np.uint8], at: int, position: int, tables: Tables, out: Out) -> int:
    """Length of the client id."""
    size = signed(source, at, 2)
    if size < -1 or size > state[d, FRAME_END] - position or (state[d, RAW] != 0 and size > CLIENT_LIMIT):
        state[d, HEADER] |= HEADER_CLIENT_BAD
        return end_of_header(state, d, tables)
    state[d, CLIENT_SIZE] = size
    state[d, CLIENT_HASH] = size + 2
    state[d, CLIENT_TEXT] = out.counts[TEXT_BYTES]
    state[d, EXPECTED] = 0
    state[d, LEFT] = max(size, 0)
    if size <= 0:
        return end_of_header(state, d, tables)
    state[d, PHASE] = CLIENT_COPY
    return EVENT_NONE


@njit(cache=True, nogil=True)
def end_of_header(state: NDArray[np.int64], d: int, tables: Tables) -> int:
    """The request's header is read: on to its body, or past it where the header makes no sense."""
    if state[d, EXPECTED] > 0:
        state[d, HEADER] |= HEADER_CLIENT_BAD
    state[d, EXPECTED] = 0
    if state[d, HEADER] & HEADER_CLIENT_BAD:
        if state[d, RAW] != 0:
            state[d, HEADER] = 0
            rest(state, d)
            return EVENT_NONE
        rest(state, d)
    else:
        state[d, HEADER] |= HEADER_CLIENT
        begin_body(state, d, state[d, KEY], state[d, VERSION], tables)
    return EVENT_HEADER


@njit(cache=True, nogil=True)
def take(state: NDArray[np.int64], d: int, source: NDArray[np.uint8], at: int, need: int, tables: Tables, out: Out) -> int:
    """The `need` bytes that the phase waits for are source[at:at + need]; POSITION is behind them."""
    phase = state[d, PHASE]
    position = state[d, POSITION]
    if phase == BODY_OPS:
        take_body(state, d, source, at, position, tables, out)
        return EVENT_NONE
    if phase == LENGTH:
        size = signed(source, at, 4)
        limit = REQUEST_LIMIT if state[d, SIDE] == 0 else RESPONSE_LIMIT
        if size < 0 or size > limit:
            state[d, PHASE] = IDLE
            state[d, POSITION] = position - 4
            return EVENT_LOST
        state[d, FRAME_START] = position - 4
        state[d, FRAME_END] = position + size
        state[d, HEADER] = 0
        state[d, BODY] = BODY_NONE
        state[d, ACKS] = 1
        state[d, FRAME] = -1
        if size < (8 if state[d, SIDE] == 0 else 4):
            rest(state, d)
        else:
            state[d, PHASE] = HEAD
        return EVENT_NONE
    if phase == HEAD:
        if state[d, SIDE] == 0:
            return take_head(state, d, source, at, tables)
        state[d, CORRELATION] = signed(source, at, 4)
        state[d, HEADER] = HEADER_READ
        rest(state, d)
        return EVENT_RESPONSE
    if phase == CLIENT:
        return take_client_size(state, d, source, at, position, tables, out)
    if phase == BATCH:
        take_batch(state, d, source, at, position, out)
    elif phase == BATCH_V2:
        take_batch_v2(state, d, source, at, position, out)
    return EVENT_NONE


@njit(cache=True, nogil=True)
def copy(state: NDArray[np.int64], d: int, source: NDArray[np.uint8], at: int, size: int, tables: Tables, out: Out) -> int:
    """`size` more bytes of a client id or a field's text are source[at:at + size]; POSITION is behind them."""
    client = state[d, PHASE] == CLIENT_COPY
    copy_text(out, source, at, size)
    if client:
        hash_client(state, d, source, at, size)
    elif state[d, BODY] == BODY_NONE:
        state[d, BODY] = BODY_PART
    state[d, LEFT] -= size
    if state[d, LEFT] > 0:
        return EVENT_NONE
    if client:
        return end_of_header(state, d, tables)
    field = np.int64(tables.program[state[d, PC], 2])
    emit(out, state[d, FRAME], field, 0, state[d, TEXT_FROM], out.counts[TEXT_BYTES] - state[d, TEXT_FROM])
    state[d, PC] += 1
    state[d, PHASE] = BODY_OPS
    return EVENT_NONE


@njit(cache=True, nogil=True)
def needed(state: NDArray[np.int64], d: int, tables: Tables, out: Out) -> int:
    """How many bytes the phase needs as one; 0 where it changed, SKIP was set, or the frame is at its end."""
    phase = state[d, PHASE]
    if phase == BODY_OPS:
        need = body_need(state, d, tables, out)
        if state[d, PHASE] == BODY_OPS and need > state[d, FRAME_END] - state[d, POSITION] + state[d, HELD]:
            malformed(state, d)
            return 0
        return need
    if phase == LENGTH:
        return 4
    if phase == HEAD:
        return 8 if state[d, SIDE] == 0 else 4
    if phase == CLIENT:
        return 2
    if phase == BATCH:
        return SET_HEADER
    if phase == BATCH_V2:
        return BATCH_HEADER - SET_HEADER
    return 0


@njit(cache=True, nogil=True)
def end_frame(state: NDArray[np.int64], d: int) -> int:
    """The frame is passed: the next length prefix follows."""
    state[d, PHASE] = LENGTH
    return EVENT_FRAME


@njit(cache=True, nogil=True)
def advance(buffer: NDArray[np.uint8], at: int, end: int, state: NDArray[np.int64], d: int, hold: NDArray[np.uint8], tables: Tables, out: Out) -> int:
    """Feed buffer[at:end], the stream from POSITION on. Returns how far it was used; EVENT says why it stopped there.

    state: int64[n, MACHINE_COLUMNS or more], one row per direction. hold: uint8[HOLD n]. With EVENT_NONE all of it was used.
    """
    while True:
        skip = state[d, SKIP]
        if skip > 0:
            step = min(skip, end - at)
            state[d, SKIP] = skip - step
            state[d, POSITION] += step
            at += step
            if step < skip:
                state[d, EVENT] = EVENT_NONE
                return at
        phase = state[d, PHASE]
        if phase == CLIENT_COPY or phase == TEXT:
            size = min(state[d, LEFT], end - at)
            if size <= 0:
                state[d, EVENT] = EVENT_NONE
                return at
            state[d, POSITION] += size
            if out.mode[0] == SPLIT:
                mark(out, at, at + size)
            event = copy(state, d, buffer, at, size, tables, out)
            at += size
        elif phase == REST:
            state[d, EVENT] = end_frame(state, d)
            return at
        elif phase == IDLE:
            state[d, EVENT] = EVENT_NONE
            return at
        elif phase == ABANDON:
            state[d, EVENT] = EVENT_HOLE
            abandon(state, d)
            return at
        else:
            need = needed(state, d, tables, out)
            if need == 0:
                continue
            held = state[d, HELD]
            missing = need - held
            if missing > end - at:
                missing = end - at
                for i in range(missing):
                    hold[d * HOLD + held + i] = buffer[at + i]
                state[d, HELD] = held + missing
                state[d, POSITION] += missing
                if missing > 0 and out.mode[0] == SPLIT:
                    mark(out, at, end)
                state[d, EVENT] = EVENT_NONE
                return end
            if out.mode[0] == SPLIT:
                mark(out, at, at + missing)
            state[d, POSITION] += missing
            if phase == BODY_OPS and state[d, BODY] == BODY_NONE:
                state[d, BODY] = BODY_PART
            if held > 0:
                for i in range(missing):
                    hold[d * HOLD + held + i] = buffer[at + i]
                state[d, HELD] = 0
                event = take(state, d, hold, d * HOLD, need, tables, out)
            else:
                event = take(state, d, buffer, at, need, tables, out)
            at += missing
        if event != EVENT_NONE:
            state[d, EVENT] = event
            return at


@njit(cache=True, nogil=True)
def abandon(state: NDArray[np.int64], d: int) -> None:
    """Needed bytes of the frame are missing: pass over the rest of it."""
    state[d, HEADER] |= HEADER_HOLE
    rest(state, d)


@njit(cache=True, nogil=True)
def gap(size: int, state: NDArray[np.int64], d: int, tables: Tables, out: Out) -> int:
    """The next `size` bytes are not there. Returns how many of them are left to tell; EVENT says why it stopped.

    Harmless where they would be passed over. Where bytes of a header or body are needed the rest of the frame is passed over (EVENT_HOLE,
    after EVENT_HEADER where the request's key, version and id are known). Where the length prefix is needed the direction is lost.
    """
    while True:
        skip = state[d, SKIP]
        if skip > 0:
            if size == 0:
                state[d, EVENT] = EVENT_NONE
                return 0
            step = min(skip, size)
            state[d, SKIP] = skip - step
            state[d, POSITION] += step
            size -= step
            continue
        phase = state[d, PHASE]
        if phase == REST:
            state[d, EVENT] = end_frame(state, d)
            return size
        if phase == BODY_OPS and state[d, HELD] == 0 and needed(state, d, tables, out) == 0:
            continue
        if size == 0 or phase == IDLE:
            state[d, EVENT] = EVENT_NONE
            return 0
        if phase == LENGTH:
            state[d, PHASE] = IDLE
            state[d, POSITION] -= state[d, HELD]
            state[d, HELD] = 0
            state[d, EVENT] = EVENT_LOST
            return size
        if phase == CLIENT or phase == CLIENT_COPY:
            state[d, CLIENT_SIZE] = -1
            state[d, PHASE] = ABANDON
            state[d, EVENT] = EVENT_HEADER
            return size
        abandon(state, d)
        state[d, EVENT] = EVENT_HOLE
        return size
