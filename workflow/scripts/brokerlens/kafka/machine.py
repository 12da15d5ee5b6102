"""One machine that follows Kafka frames, fed with the bytes of a direction in stream order.

The split uses it to learn which bytes of a capture matter, the merge to read frames and fields: the same code, so what the merge reads is
what the split kept. It is pushed: `advance` takes a piece of the stream, `gap` tells of bytes that are not there, and both stop at events
that their caller answers (`EVENT_…`). A field that a piece's end cuts is gathered, so any cut of the pieces gives the same result.

Every length on the wire is clipped to its frame before it is used, nothing is allocated, and a frame that does not follow its table is
left at that point and passed over: its length prefix says where the next one begins.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from brokerlens.capture.compiled import inlined, kernel
from brokerlens.kafka import layouts
from brokerlens.kafka.layouts import PACKED_NEWEST

Int64s: TypeAlias = NDArray[np.int64]
Bytes: TypeAlias = NDArray[np.uint8]

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

# Columns of a direction's state. Unsigned, as rows are: with a signed index numba looks at each access whether it counts from the end, a third of the time.
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
    HOLD_AT,  # where the direction's gathered bytes stand
) = map(np.uint64, range(39))
MACHINE_COLUMNS: Final = 39

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
HEADER_CLIENT_BAD: Final = 4  # the client id does not fit into the frame
HEADER_UNKNOWN: Final = 8  # key or version beyond the tables
HEADER_HOLE: Final = 16  # needed bytes of the frame are missing
HEADER_MALFORMED: Final = 32  # the body does not follow its table
HEADER_CLIENT_ODD: Final = 128  # the client id is no printable UTF-8: no obstacle on a certain chain
HEADER_TRAILING: Final = 64  # the body goes on behind its table

BODY_NONE, BODY_PART, BODY_WHOLE = 0, 1, 2

# The machine's memory is one array, int64[n]: every further array makes each call of the small functions below dearer than their work. In front the tables
# (`layouts.PACKED`) with these numbers among them; then a region that the machine writes to, and the rows of the directions' states, in any order.
# The region holds in the split (MODE) pairs: ranges of the buffer that were read, in order; in the merge fields of three numbers: frame, field | is text << 8 |
# (text's size + 1) << 9, value or place in the text. OVERFLOW is 1 where something found no room: the caller begins again with more.
# WANTED has a bit for every field that is to be reported.
OUT_AT, OUT_END, MODE, ROWS, TEXT_BYTES, OVERFLOW, STATE_AT, WANTED = map(np.uint64, range(3, 11))
SPLIT, MERGE = 0, 1

ONE, TWO, THREE = map(np.uint64, (1, 2, 3))

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


@kernel
def unsigned(source: Bytes, at: int, size: int) -> int:
    """Big endian unsigned integer of 1, 2 or 4 bytes."""
    value = np.int64(0)
    for i in range(size):
        value = (value << 8) | np.int64(source[np.uint64(at + i)])
    return int(value)


@kernel
def signed(source: Bytes, at: int, size: int) -> int:
    """Big endian signed integer of 1, 2, 4 or 8 bytes."""
    value = np.int64(np.int8(source[np.uint64(at)]))
    for i in range(1, size):
        value = (value << 8) | np.int64(source[np.uint64(at + i)])
    return int(value)


@kernel
def known_api(key: int, version: int, memory: Int64s) -> bool:
    """The key is an api's, and the version one that it may have by now."""
    return bool(0 <= key < memory[0] and 0 <= version <= memory[PACKED_NEWEST + key] + VERSION_SLACK)


@kernel
def reset(memory: Int64s, s: np.uint64, side: int, hold_at: int) -> None:
    """A direction about which nothing is known; it gathers bytes at hold_at."""
    for column in range(MACHINE_COLUMNS):
        memory[s + column] = 0
    memory[s + SIDE] = side
    memory[s + HOLD_AT] = hold_at


@kernel
def begin(memory: Int64s, s: np.uint64, position: int) -> None:
    """The next frame begins at this position."""
    memory[s + PHASE] = LENGTH
    memory[s + POSITION] = position
    memory[s + SKIP] = 0
    memory[s + HELD] = 0
    memory[s + FRAME_START] = position
    memory[s + FRAME_END] = position
    memory[s + HEADER] = 0


@kernel
def begin_body(memory: Int64s, s: np.uint64, key: int, version: int) -> None:
    """Read the frame's body as that of this api and version, or pass over it where no table has it."""
    memory[s + KEY] = key
    memory[s + VERSION] = version
    start = np.int64(-1)
    if 0 <= key < memory[0] and 0 <= version < memory[1]:
        start = memory[memory[2] + (memory[s + SIDE] * memory[0] + key) * memory[1] + version]
    if start < 0:
        rest(memory, s)
        return
    memory[s + SKIP] = 0
    memory[s + PC] = start
    memory[s + DEPTH] = 0
    memory[s + VARINT] = 0
    memory[s + SHIFT] = 0
    memory[s + TAG_STAGE] = 0
    memory[s + PHASE] = BODY_OPS


@kernel
def rest(memory: Int64s, s: np.uint64) -> None:
    """Pass over what is left of the frame."""
    memory[s + PHASE] = REST
    memory[s + HELD] = 0
    memory[s + SKIP] = max(memory[s + FRAME_END] - memory[s + POSITION], 0)


@inlined
def mark(memory: Int64s, start: int, end: int) -> None:
    """Note that buffer[start:end] was read (split); near neighbours are joined."""
    used = memory[ROWS]
    last = memory[OUT_AT] + 2 * used - 1
    if used > 0 and (start - memory[last] < JOIN or last + 2 >= memory[OUT_END]):
        memory[last] = end
    else:
        memory[last + 1] = start
        memory[last + 2] = end
        memory[ROWS] = used + 1


@kernel
def mark_read(memory: Int64s, start: int, end: int) -> None:
    """The same in the split, nothing in the merge."""
    if memory[MODE] == SPLIT:
        mark(memory, start, end)


@kernel
def is_wanted(memory: Int64s, frame: int, field: int) -> bool:
    """The frame has a row, and its fields of this number are to be reported (merge)."""
    return bool(frame >= 0 and (memory[WANTED] >> field) & 1 != 0)


@kernel
def emit(memory: Int64s, frame: int, field: int, value: int) -> None:
    """An integer field of a frame (merge)."""
    if is_wanted(memory, frame, field):
        add_row(memory, frame, field, value)


@kernel
def emit_text(memory: Int64s, frame: int, field: int, text_from: int, size: int) -> None:
    """A field of text or a uuid, null where the size is negative (merge)."""
    if is_wanted(memory, frame, field):
        add_row(memory, frame, field | 1 << 8 | (size + 1) << 9, text_from)


@kernel
def add_row(memory: Int64s, frame: int, what: int, value: int) -> None:
    """One field, if there is room."""
    row = memory[OUT_AT] + 3 * memory[ROWS]
    if row + 3 > memory[OUT_END]:
        memory[OVERFLOW] = 1
        return
    memory[row] = frame
    memory[row + 1] = what
    memory[row + 2] = value
    memory[ROWS] += 1


@kernel
def copy_text(memory: Int64s, text: Bytes, source: Bytes, at: int, size: int) -> None:
    """Append text to the pool (merge)."""
    used = memory[TEXT_BYTES]
    if used + size > text.shape[0]:
        memory[OVERFLOW] = 1
        return
    for i in range(size):
        text[used + i] = source[at + i]
    memory[TEXT_BYTES] = used + size


@kernel
def take_text(memory: Int64s, frame: int, field: int, source: Bytes, at: int, size: int, text: Bytes) -> None:
    """A whole field of text, if it is wanted (merge)."""
    if is_wanted(memory, frame, field):
        begun = memory[TEXT_BYTES]
        copy_text(memory, text, source, at, size)
        emit_text(memory, frame, field, begun, memory[TEXT_BYTES] - begun)


@kernel
def hash_client(memory: Int64s, s: np.uint64, source: Bytes, at: int, size: int) -> None:
    """Go on hashing a client id and checking that it is printable UTF-8 (RFC 3629, without the rarest refinements)."""
    value = memory[s + CLIENT_HASH]
    expected = memory[s + EXPECTED]
    bad = False
    for i in range(size):
        byte = int(source[at + i])
        value = (value * 257 + byte + 1) & 0xFFFFFFFFFFFF
        if expected > 0:
            bad |= byte & 0xC0 != 0x80
            expected -= 1
        elif byte >= 0x80:
            bad |= byte < 0xC2 or byte > 0xF4
            expected = 1 + (byte >= 0xE0) + (byte >= 0xF0)
        else:
            bad |= byte < 0x20 or byte == 0x7F
    memory[s + CLIENT_HASH] = value
    memory[s + EXPECTED] = expected
    if bad:
        memory[s + HEADER] |= HEADER_CLIENT_ODD


@kernel
def malformed(memory: Int64s, s: np.uint64) -> None:
    """The body does not follow its table: leave it here."""
    memory[s + HEADER] |= HEADER_MALFORMED
    rest(memory, s)


@kernel
def skip_in_frame(memory: Int64s, s: np.uint64, position: int, size: int) -> bool:
    """Pass over `size` bytes behind `position` if the frame has them."""
    if size > memory[s + FRAME_END] - position:
        malformed(memory, s)
        return False
    memory[s + SKIP] = size
    return True


@kernel
def begin_text(memory: Int64s, s: np.uint64, position: int, size: int, field: int) -> None:
    """A string of `size` bytes (negative: null) behind `position`; the instruction is done when it is read."""
    pc = memory[s + PC]
    if size <= 0:
        emit_text(memory, memory[s + FRAME], field, memory[TEXT_BYTES], max(size, -1))
        memory[s + PC] = pc + 3
    elif field == 0:
        if skip_in_frame(memory, s, position, size):
            memory[s + PC] = pc + 3
    elif size > memory[s + FRAME_END] - position:
        malformed(memory, s)
    else:
        memory[s + PHASE] = TEXT
        memory[s + LEFT] = size
        memory[s + TEXT_FROM] = memory[TEXT_BYTES]


@kernel
def begin_array(memory: Int64s, s: np.uint64, count: int, behind: int) -> None:
    """An array of `count` items (none or null: go on behind it)."""
    if count <= 0:
        memory[s + PC] = behind
    elif count > memory[s + FRAME_END] - memory[s + FRAME_START] or memory[s + DEPTH] >= 4:
        malformed(memory, s)  # every item has a byte at least
    else:
        memory[s + COUNT_0 + np.uint64(memory[s + DEPTH])] = count
        memory[s + DEPTH] += 1
        memory[s + PC] += 3


@kernel
def begin_records(memory: Int64s, s: np.uint64, position: int, size: int, field: int) -> None:
    """Record batches of `size` bytes (negative: null) behind `position`."""
    memory[s + PC] += 3
    if size > memory[s + FRAME_END] - position:
        # A claim beyond the frame: what there is of the batches is not trusted.
        malformed(memory, s)
        return
    emit(memory, memory[s + FRAME], field, max(size, 0))
    if size > 0:
        memory[s + RECORDS_END] = position + size
        next_batch(memory, s, position)


@kernel
def next_batch(memory: Int64s, s: np.uint64, position: int) -> None:
    """A batch's header follows, or what is left is too short for one and passed over."""
    left = memory[s + RECORDS_END] - position
    if left >= SET_HEADER:
        memory[s + PHASE] = BATCH
    else:
        memory[s + SKIP] += left
        memory[s + PHASE] = BODY_OPS


@kernel
def take_batch(memory: Int64s, s: np.uint64, source: Bytes, at: int, position: int) -> None:
    """The first 18 bytes of a batch or an old message: both have offset, size and magic at the same places."""
    offset = signed(source, at, 8)
    size = signed(source, at + 8, 4)
    magic = signed(source, at + 16, 1)
    left = memory[s + RECORDS_END] - position  # behind the 18 bytes
    rest_of_batch = size - (SET_HEADER - 12)
    if rest_of_batch < 0 or magic < 0 or magic > 2 or (magic == 2 and size < BATCH_HEADER - 12):
        memory[s + HEADER] |= HEADER_MALFORMED
        memory[s + SKIP] = left
        memory[s + PHASE] = BODY_OPS
        return
    if rest_of_batch > left or (magic == 2 and left < BATCH_HEADER - SET_HEADER):
        # The broker cuts the last batch off at the partition's limit; the consumer throws it away.
        emit(memory, memory[s + FRAME], _BATCH + 11, left + SET_HEADER)
        memory[s + SKIP] = left
        memory[s + PHASE] = BODY_OPS
        return
    emit(memory, memory[s + FRAME], _BATCH, magic)
    emit(memory, memory[s + FRAME], _BATCH + 1, offset)
    emit(memory, memory[s + FRAME], _BATCH + 2, size + 12)
    emit(memory, memory[s + FRAME], _BATCH + 12, position + rest_of_batch)
    if magic == 2:
        memory[s + BATCH_REST] = rest_of_batch
        memory[s + PHASE] = BATCH_V2
        return
    emit(memory, memory[s + FRAME], _BATCH + 3, int(source[at + 17]))
    memory[s + SKIP] = rest_of_batch
    next_batch(memory, s, position + rest_of_batch)


@kernel
def take_batch_v2(memory: Int64s, s: np.uint64, source: Bytes, at: int, position: int) -> None:
    """Bytes 18 to 60 of a record batch (DefaultRecordBatch.java)."""
    frame = memory[s + FRAME]
    if memory[MODE] == MERGE:
        emit(memory, frame, _BATCH + 3, signed(source, at + 3, 2))
        emit(memory, frame, _BATCH + 4, signed(source, at + 5, 4))
        emit(memory, frame, _BATCH + 5, signed(source, at + 9, 8))
        emit(memory, frame, _BATCH + 6, signed(source, at + 17, 8))
        producer = signed(source, at + 25, 8)
        if producer >= 0:
            emit(memory, frame, _BATCH + 7, producer)
            emit(memory, frame, _BATCH + 8, signed(source, at + 33, 2))
            emit(memory, frame, _BATCH + 9, signed(source, at + 35, 4))
        records = signed(source, at + 39, 4)
        if records < 0:
            memory[s + HEADER] |= HEADER_MALFORMED
        else:
            emit(memory, frame, _BATCH + 10, records)
    left = memory[s + BATCH_REST] - (BATCH_HEADER - SET_HEADER)
    memory[s + SKIP] = left
    next_batch(memory, s, position + left)


@kernel
def take_varint(memory: Int64s, s: np.uint64, byte: int) -> int:
    """Go on reading an unsigned varint: its value when complete, -1 while it goes on, -2 where it does not end."""
    shift = memory[s + SHIFT]
    value = memory[s + VARINT] | ((byte & 0x7F) << shift)
    if byte & 0x80:
        if shift >= 28:
            return -2
        memory[s + VARINT] = value
        memory[s + SHIFT] = shift + 7
        return -1
    memory[s + VARINT] = 0
    memory[s + SHIFT] = 0
    return int(value)


@kernel
def take_tags(memory: Int64s, s: np.uint64, value: int, position: int, wanted: int) -> None:
    """One varint of tagged fields: their number, then tag and size of each."""
    stage = memory[s + TAG_STAGE]
    if stage == 0:
        memory[s + TAGS_LEFT] = value
        memory[s + TAG_STAGE] = 1
    elif stage == 1:
        memory[s + TAG] = value
        memory[s + TAG_STAGE] = 2
    else:
        memory[s + TAGS_LEFT] -= 1
        memory[s + TAG_STAGE] = 1
        if memory[s + TAG] == wanted and value >= 4:
            memory[s + TAG_STAGE] = 3
            memory[s + LEFT] = value - 4
            if value > memory[s + FRAME_END] - position:
                malformed(memory, s)
        else:
            skip_in_frame(memory, s, position, value)
    if memory[s + TAGS_LEFT] == 0 and memory[s + TAG_STAGE] == 1:
        memory[s + TAG_STAGE] = 0
        memory[s + PC] += 3


@kernel
def take_body(memory: Int64s, s: np.uint64, value: int, position: int) -> None:
    """The bytes that the instruction needs are read as `value`, signed; `position` is behind them."""
    pc = memory[s + PC]
    op = memory[pc]
    argument = memory[pc + 1]
    field = memory[pc + 2]
    if op == _INT:
        memory[s + LAST] = value
        if field == _ACKS:
            memory[s + ACKS] = value
        emit(memory, memory[s + FRAME], field, value)
        memory[s + PC] = pc + 3
    elif op == _STRING:
        begin_text(memory, s, position, value, field)
    elif op == _BYTES or op == _ITEMS:
        size = value
        if op == _ITEMS:
            size *= argument
        if skip_in_frame(memory, s, position, max(size, 0)):
            memory[s + PC] = pc + 3
    elif op == _ARRAY:
        begin_array(memory, s, value, argument)
    elif op == _RECORDS:
        begin_records(memory, s, position, value, field)
    elif op == _TAGS and memory[s + TAG_STAGE] == 3:
        emit(memory, memory[s + FRAME], field, value)
        memory[s + SKIP] = memory[s + LEFT]
        memory[s + TAG_STAGE] = 1
        if memory[s + TAGS_LEFT] == 0:
            memory[s + TAG_STAGE] = 0
            memory[s + PC] = pc + 3
    else:
        value = take_varint(memory, s, value & 0xFF)
        if value == -2:
            malformed(memory, s)
        elif value >= 0:
            if op == _STRING_COMPACT:
                begin_text(memory, s, position, value - 1, field)
            elif op == _BYTES_COMPACT or op == _ITEMS_COMPACT:
                if op == _ITEMS_COMPACT:
                    value = (value - 1) * argument + 1
                if skip_in_frame(memory, s, position, max(value - 1, 0)):
                    memory[s + PC] = pc + 3
            elif op == _ARRAY_COMPACT:
                begin_array(memory, s, value - 1, argument)
            elif op == _RECORDS_COMPACT:
                begin_records(memory, s, position, value - 1, field)
            else:
                take_tags(memory, s, value, position, argument)


@kernel
def body_need(memory: Int64s, s: np.uint64) -> int:
    """Carry out instructions that need no byte; how many bytes the next one needs, 0 where something is to be passed over or the body is done."""
    while True:
        pc = memory[s + PC]
        op = memory[pc]
        if op == _INT:
            return int(memory[pc + 1])
        if op == _SKIP:
            memory[s + PC] = pc + 3
            skip_in_frame(memory, s, memory[s + POSITION], memory[pc + 1])
            return 0
        if op == _END:
            depth = memory[s + DEPTH] - 1
            level = s + COUNT_0 + np.uint64(depth)
            memory[level] -= 1
            if memory[level] > 0:
                memory[s + PC] = memory[pc + 1]
            else:
                memory[s + DEPTH] = depth
                memory[s + PC] = pc + 3
        elif op == _UUID:
            field = memory[pc + 2]
            if field == 0:
                memory[s + PC] = pc + 3
                skip_in_frame(memory, s, memory[s + POSITION], 16)
            else:
                begin_text(memory, s, memory[s + POSITION], 16, field)
            return 0
        elif op == _STRING:
            return 2
        elif op == _BYTES or op == _ITEMS or op == _ARRAY or op == _RECORDS:
            return 4
        elif op == _TAGS:
            return 4 if memory[s + TAG_STAGE] == 3 else 1
        elif op == _UNLESS_35:
            if memory[s + LAST] == 35:
                memory[s + BODY] = BODY_WHOLE
                rest(memory, s)
                return 0
            memory[s + PC] = pc + 3
        elif op == _STOP:
            memory[s + BODY] = BODY_PART
            rest(memory, s)
            return 0
        elif op == _DONE:
            if memory[s + POSITION] < memory[s + FRAME_END]:
                memory[s + HEADER] |= HEADER_TRAILING
            elif memory[s + HEADER] & HEADER_MALFORMED == 0:  # a batch may have been
                memory[s + BODY] = BODY_WHOLE
            rest(memory, s)
            return 0
        else:
            return 1


@inlined
def take_head(memory: Int64s, s: np.uint64, value: int) -> int:
    """A request's key, version and correlation id (8 bytes); the client id follows, but for ControlledShutdown version 0."""
    key = value >> 48
    version = (((value >> 32) & 0xFFFF) ^ 0x8000) - 0x8000
    memory[s + KEY] = key
    memory[s + VERSION] = version
    memory[s + CORRELATION] = ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    memory[s + CLIENT_SIZE] = -1
    memory[s + CLIENT_HASH] = 0
    known = known_api(key, version, memory)
    if memory[s + RAW] != 0 and not (0 <= key < FUTURE_KEYS and 0 <= version < FUTURE_VERSIONS):
        rest(memory, s)  # a SASL token: its bytes are no header
        return EVENT_NONE
    memory[s + HEADER] = HEADER_READ
    if not known:
        memory[s + HEADER] |= HEADER_UNKNOWN
    if key == 7 and version == 0:
        memory[s + HEADER] |= HEADER_CLIENT
        begin_body(memory, s, key, version)
        return EVENT_HEADER
    if memory[s + FRAME_END] - memory[s + FRAME_START] < 14:
        memory[s + HEADER] |= HEADER_CLIENT_BAD
        return end_of_header(memory, s)
    memory[s + PHASE] = CLIENT
    return EVENT_NONE


@inlined
def take_client_size(memory: Int64s, s: np.uint64, size: int, position: int) -> int:
    """Length of the client id."""
    if size < -1 or size > memory[s + FRAME_END] - position or (memory[s + RAW] != 0 and size > CLIENT_LIMIT):
        memory[s + HEADER] |= HEADER_CLIENT_BAD
        return end_of_header(memory, s)
    memory[s + CLIENT_SIZE] = size
    memory[s + CLIENT_HASH] = size + 2
    memory[s + CLIENT_TEXT] = memory[TEXT_BYTES]
    memory[s + EXPECTED] = 0
    memory[s + LEFT] = max(size, 0)
    if size <= 0:
        return end_of_header(memory, s)
    memory[s + PHASE] = CLIENT_COPY
    return EVENT_NONE


@inlined
def end_of_header(memory: Int64s, s: np.uint64) -> int:
    """The request's header is read: on to its body, or past it where the header makes no sense."""
    if memory[s + EXPECTED] > 0:
        memory[s + HEADER] |= HEADER_CLIENT_ODD
    memory[s + EXPECTED] = 0
    raw = memory[s + RAW] != 0
    header = memory[s + HEADER]
    # Where tokens without header may stand, an unknown api that a token's bytes spell must at least have a client id in print.
    if raw and (header & HEADER_CLIENT_BAD or (header & HEADER_UNKNOWN and header & HEADER_CLIENT_ODD)):
        memory[s + HEADER] = 0
        rest(memory, s)
        return EVENT_NONE
    if header & HEADER_CLIENT_ODD:
        memory[s + CLIENT_SIZE] = -1  # what is no text is no name
    if header & HEADER_CLIENT_BAD:
        rest(memory, s)
    else:
        memory[s + HEADER] |= HEADER_CLIENT
        begin_body(memory, s, memory[s + KEY], memory[s + VERSION])
    return EVENT_HEADER


@inlined
def take(memory: Int64s, s: np.uint64, value: int) -> int:
    """The bytes that the phase waits for, 8 at most, are read as `value`, signed; POSITION is behind them."""
    phase = memory[s + PHASE]
    position = memory[s + POSITION]
    if phase == BODY_OPS:
        take_body(memory, s, value, position)
        return EVENT_NONE
    if phase == LENGTH:
        size = value
        limit = REQUEST_LIMIT if memory[s + SIDE] == 0 else RESPONSE_LIMIT
        if size < 0 or size > limit:
            memory[s + PHASE] = IDLE
            memory[s + POSITION] = position - 4
            return EVENT_LOST
        memory[s + FRAME_START] = position - 4
        memory[s + FRAME_END] = position + size
        memory[s + HEADER] = 0
        memory[s + BODY] = BODY_NONE
        memory[s + ACKS] = 1
        memory[s + FRAME] = -1
        if size < (8 if memory[s + SIDE] == 0 else 4):
            rest(memory, s)
        else:
            memory[s + PHASE] = HEAD
        return EVENT_NONE
    if phase == HEAD:
        if memory[s + SIDE] == 0:
            return take_head(memory, s, value)
        memory[s + CORRELATION] = value
        memory[s + HEADER] = HEADER_READ
        rest(memory, s)
        return EVENT_RESPONSE
    return take_client_size(memory, s, value, position)


@kernel
def take_many(memory: Int64s, s: np.uint64, source: Bytes, at: int) -> None:
    """The bytes of a batch's header that the phase waits for begin at source[at]; POSITION is behind them."""
    if memory[s + PHASE] == BATCH:
        take_batch(memory, s, source, at, memory[s + POSITION])
    else:
        take_batch_v2(memory, s, source, at, memory[s + POSITION])


@inlined
def take_from(memory: Int64s, s: np.uint64, source: Bytes, at: int, need: int) -> int:
    """The `need` bytes that the phase waits for begin at source[at]; POSITION is behind them."""
    if memory[s + PHASE] == BODY_OPS and memory[s + BODY] == BODY_NONE:
        memory[s + BODY] = BODY_PART
    if need > 8:
        take_many(memory, s, source, at)
        return EVENT_NONE
    return take(memory, s, signed(source, at, need))


@inlined
def copy(memory: Int64s, s: np.uint64, source: Bytes, at: int, size: int) -> int:
    """`size` more bytes of a client id or a field's text are source[at:at + size]; POSITION is behind them."""
    client = memory[s + PHASE] == CLIENT_COPY
    if client:
        hash_client(memory, s, source, at, size)
    elif memory[s + BODY] == BODY_NONE:
        memory[s + BODY] = BODY_PART
    memory[s + LEFT] -= size
    if memory[s + LEFT] > 0:
        return EVENT_NONE
    if client:
        return end_of_header(memory, s)
    field = memory[memory[s + PC] + 2]
    emit_text(memory, memory[s + FRAME], field, memory[s + TEXT_FROM], memory[TEXT_BYTES] - memory[s + TEXT_FROM])
    memory[s + PC] += 3
    memory[s + PHASE] = BODY_OPS
    return EVENT_NONE


@inlined
def needed(memory: Int64s, s: np.uint64) -> int:
    """How many bytes the phase needs as one; 0 where it changed, SKIP was set, or the frame is at its end."""
    phase = memory[s + PHASE]
    if phase == BODY_OPS:
        need = body_need(memory, s)
        if memory[s + PHASE] == BODY_OPS and need > memory[s + FRAME_END] - memory[s + POSITION] + memory[s + HELD]:
            malformed(memory, s)
            return 0
        return need
    if phase == LENGTH:
        return 4
    if phase == HEAD:
        return 8 if memory[s + SIDE] == 0 else 4
    if phase == CLIENT:
        return 2
    if phase == BATCH:
        return SET_HEADER
    if phase == BATCH_V2:
        return BATCH_HEADER - SET_HEADER
    return 0


@kernel
def end_frame(memory: Int64s, s: np.uint64) -> int:
    """The frame is passed: the next length prefix follows."""
    memory[s + PHASE] = LENGTH
    return EVENT_FRAME


@kernel
def varint(source: Bytes, at: int, end: int) -> int:
    """An unsigned varint with its size in bytes: value << 3 | size; 0 where it does not end before `end` or has more than five bytes."""
    value = np.int64(0)
    for i in range(min(end - at, 5)):
        byte = np.int64(source[np.uint64(at + i)])
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return int(value << 3 | i + 1)
    return 0


@inlined
def take_at_once(buffer: Bytes, at: int, end: int, memory: Int64s, s: np.uint64, text: Bytes) -> int:
    """Carry out instructions whose bytes are all there and that are as they should be, for speed only; returns how far the buffer was used.

    The same as one `take` after another, with what they need in registers. It stops before anything else: what a piece's end cuts, what is malformed, batches, tags,
    the body's end.
    """
    if memory[s + SHIFT] != 0 or memory[s + TAG_STAGE] != 0:
        return at
    pc = np.uint64(memory[s + PC])
    depth = memory[s + DEPTH]
    frame = memory[s + FRAME]
    begun, end = at, min(end, at + memory[s + FRAME_END] - memory[s + POSITION])
    first, last = -1, at  # what was read and not yet marked
    while True:
        op, argument, field = memory[pc], memory[pc + ONE], memory[pc + TWO]
        size, over = 0, 0  # bytes that are read, and passed over behind those
        following = pc + THREE
        if op == _INT:
            size = argument
            if size > end - at:
                break
            value = signed(buffer, at, size)
            if field == _ACKS:
                memory[s + ACKS] = value
            memory[s + LAST] = value
            emit(memory, frame, field, value)
        elif op == _END:
            depth -= 1
            level = s + COUNT_0 + np.uint64(depth)
            memory[level] -= 1
            if memory[level] > 0:
                following = np.uint64(argument)
                depth += 1
        elif op == _SKIP or (op == _UUID and field == 0):
            over = argument
            if over > end - at:
                break
        elif op == _UUID:
            size = argument
            if size > end - at:
                break
            take_text(memory, frame, field, buffer, at, size, text)
        elif _STRING <= op <= _TAGS and op != _RECORDS and op != _RECORDS_COMPACT:
            if op == _STRING:
                size = 2
            elif op == _BYTES or op == _ITEMS or op == _ARRAY:
                size = 4
            if size > 0:
                if size > end - at:
                    break
                count = signed(buffer, at, size)
            else:
                found = varint(buffer, at, end)
                size = found & 7
                count = (found >> 3) - 1
                if size == 0:
                    break
            if op == _TAGS:
                if count >= 0:
                    break
            elif op == _ARRAY or op == _ARRAY_COMPACT:
                if count <= 0:
                    following = np.uint64(argument)
                elif count > memory[s + FRAME_END] - memory[s + FRAME_START] or depth >= 4:
                    break
                else:
                    memory[s + COUNT_0 + np.uint64(depth)] = count
                    depth += 1
            else:
                over = max(count, 0)
                if op == _ITEMS or op == _ITEMS_COMPACT:
                    over *= argument
                if over > end - at - size:
                    break
                if op == _STRING or op == _STRING_COMPACT:
                    if count <= 0:
                        emit_text(memory, frame, field, memory[TEXT_BYTES], max(count, -1))
                    elif field != 0:
                        take_text(memory, frame, field, buffer, at + size, count, text)
                        size += count
                        over = 0
        else:
            break
        if size > 0:
            if first < 0:
                first = at
            elif at - last >= JOIN:
                mark_read(memory, first, last)
                first = at
            last = at + size
        at += size + over
        pc = following
    memory[s + PC] = pc
    memory[s + DEPTH] = depth
    memory[s + POSITION] += at - begun
    if first >= 0:
        mark_read(memory, first, last)
        if memory[s + BODY] == BODY_NONE:
            memory[s + BODY] = BODY_PART
    return at


@inlined
def advance(buffer: Bytes, at: int, end: int, memory: Int64s, s: np.uint64, hold: Bytes, text: Bytes) -> int:
    """Feed buffer[at:end], the stream from POSITION on. Returns how far it was used; EVENT says why it stopped there.

    s: where the direction's state stands in the memory. hold: uint8, HOLD bytes per direction. text: uint8, where texts go (merge). With EVENT_NONE all
    of it was used.
    """
    while True:
        skip = memory[s + SKIP]
        if skip > 0:
            step = min(skip, end - at)
            memory[s + SKIP] = skip - step
            memory[s + POSITION] += step
            at += step
            if step < skip:
                memory[s + EVENT] = EVENT_NONE
                return at
        phase = memory[s + PHASE]
        if phase == CLIENT_COPY or phase == TEXT:
            size = min(memory[s + LEFT], end - at)
            if size <= 0:
                memory[s + EVENT] = EVENT_NONE
                return at
            memory[s + POSITION] += size
            if memory[MODE] == SPLIT:
                mark(memory, at, at + size)
            elif phase == CLIENT_COPY or is_wanted(memory, memory[s + FRAME], memory[memory[s + PC] + 2]):
                copy_text(memory, text, buffer, at, size)
            event = copy(memory, s, buffer, at, size)
            at += size
        elif phase == REST:
            memory[s + EVENT] = end_frame(memory, s)
            return at
        elif phase == IDLE:
            memory[s + EVENT] = EVENT_NONE
            return at
        elif phase == ABANDON:
            memory[s + EVENT] = EVENT_HOLE
            abandon(memory, s)
            return at
        else:
            held = memory[s + HELD]
            if phase == BODY_OPS and held == 0:
                at = take_at_once(buffer, at, end, memory, s, text)
            need = needed(memory, s)
            if need == 0:
                continue
            missing = min(need - held, end - at)
            if missing > 0 and memory[MODE] == SPLIT:
                mark(memory, at, at + missing)
            memory[s + POSITION] += missing
            if held > 0 or missing < need:
                gathered = memory[s + HOLD_AT]
                for i in range(missing):
                    hold[gathered + held + i] = buffer[at + i]
                at += missing
                if held + missing < need:
                    memory[s + HELD] = held + missing
                    memory[s + EVENT] = EVENT_NONE
                    return at
                memory[s + HELD] = 0
                event = take_from(memory, s, hold, gathered, need)
            else:
                event = take_from(memory, s, buffer, at, need)
                at += need
        if event != EVENT_NONE:
            memory[s + EVENT] = event
            return at


@kernel
def abandon(memory: Int64s, s: np.uint64) -> None:
    """Needed bytes of the frame are missing: pass over the rest of it."""
    memory[s + HEADER] |= HEADER_HOLE
    rest(memory, s)


@kernel
def gap(size: int, memory: Int64s, s: np.uint64) -> int:
    """The next `size` bytes are not there. Returns how many of them are left to tell; EVENT says why it stopped.

    Harmless where they would be passed over. Where bytes of a header or body are needed the rest of the frame is passed over (EVENT_HOLE,
    after EVENT_HEADER where the request's key, version and id are known). Where the length prefix is needed the direction is lost.
    """
    while True:
        skip = memory[s + SKIP]
        if skip > 0:
            if size == 0:
                memory[s + EVENT] = EVENT_NONE
                return 0
            step = min(skip, size)
            memory[s + SKIP] = skip - step
            memory[s + POSITION] += step
            size -= step
            continue
        phase = memory[s + PHASE]
        if phase == REST:
            memory[s + EVENT] = end_frame(memory, s)
            return size
        if phase == BODY_OPS and memory[s + HELD] == 0 and needed(memory, s) == 0:
            continue
        if size == 0 or phase == IDLE:
            memory[s + EVENT] = EVENT_NONE
            return 0
        if phase == LENGTH:
            memory[s + PHASE] = IDLE
            memory[s + POSITION] -= memory[s + HELD]
            memory[s + HELD] = 0
            memory[s + EVENT] = EVENT_LOST
            return size
        if phase == CLIENT or phase == CLIENT_COPY:
            memory[s + CLIENT_SIZE] = -1
            memory[s + PHASE] = ABANDON
            memory[s + EVENT] = EVENT_HEADER
            return size
        abandon(memory, s)
        memory[s + EVENT] = EVENT_HOLE
        return size
