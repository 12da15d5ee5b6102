"""What happened to each segment: new, sent again, filling a hole, reordered; windows, probes, resets; one pass over each connection.

Definitions in docs/metrics.md. A pass in order of time holds, per direction, the holes in what was captured (`holes`), the segments
that wait for their acknowledgement (`round_trips`) and those sent again (`repairs`). Facts (bytes seen twice, bytes that filled a hole, bytes acknowledged but never
captured) are kept apart from labels, which weigh evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.capture.columns import SACK_EDGES
from brokerlens.tcp import evidence as ev
from brokerlens.tcp import holes as hl
from brokerlens.tcp import repairs as rp
from brokerlens.tcp import round_trips as rt
from brokerlens.tcp.content import ACK, FAR, FIN, MILLISECOND, RST, SECOND, SYN, Bools, Int64s, at, wrapped_difference
from brokerlens.tcp.order import Ordered

if TYPE_CHECKING:
    from brokerlens.capture.working import Rows

LABELS: Final = ("", "new", "retransmitted", "filled", "reordered", "ambiguous", "keepalive", "window_probe")
NOTHING, NEW, RETRANSMITTED, FILLED, REORDERED, AMBIGUOUS, KEEPALIVE, WINDOW_PROBE = range(8)
ENDED: Final = ("open", "fin", "reset")
RESET_BY: Final = ("", "client", "broker")
RESETS_BY_KIND: Final = ("", "refused", "abort", "after_fin", "idle")
NOT_RESET, REFUSED, ABORT, AFTER_FIN, IDLE = range(5)
SETUPS: Final = ("not_captured", "complete", "half_open", "refused", "no_answer")
NOT_CAPTURED, COMPLETE, HALF_OPEN, TURNED_DOWN, NO_ANSWER = range(5)
TAPS: Final = ("unknown", "client", "broker", "middle")

SHORTEST_KEEPALIVE: Final = SECOND  # of the idle times and intervals that systems can be set to
REORDER_SLACK: Final = MILLISECOND  # data captured this much behind its acknowledgement: the capture exchanged the two
SHORT: Final = 3 * MILLISECOND  # reordering in a network is shorter than this
LONG_IDLE: Final = 60 * SECOND  # a reset behind this is the end that some idle timeout set
USUAL_MSS: Final = 1460
STAMP_OPTION: Final = 12  # bytes that timestamps take of a segment of the MSS
NEAR: Final = 1 << 20  # what may be sent or acknowledged before the SYN itself turns up
ID_REACH: Final = 5000  # packets within which IP ids are compared
MASK32: Final = (1 << 32) - 1

# Bits of the column `options` of a row.
HAS_TIMESTAMPS: Final = 1
HAS_MSS: Final = 2
HAS_WINDOW_SCALE: Final = 4
OPTIONS_DAMAGED: Final = 16
SACK_PERMITTED: Final = 8
MORE_FRAGMENTS: Final = 32

# The state of a direction: the sender's sequence space, its packets, and the window that it advertises; -1 where not known.
EDGE: Final = 0  # end of the known space: of what was captured or acknowledged
END: Final = 1  # end of what was captured
ACKED: Final = 2  # highest acknowledgement by the other side
FLOOR: Final = 3  # begin of the known space
ISN: Final = 4  # position of the SYN
FIN_AT: Final = 5  # position of the FIN
PROBE: Final = 6  # position of a window probe's byte, refused so far
SACKED: Final = 7  # highest edge of a selective acknowledgement by the other side
REPEATS: Final = 8  # duplicate acknowledgements by the other side since the last advance
WINDOW: Final = 9  # as last advertised by this side, raw
CLOSED_SINCE: Final = 10  # when its window closed
SCALE: Final = 11
MSS: Final = 12
LATEST_ID: Final = 13
IDS_TELL: Final = 14  # 1: IP ids rise from packet to packet
LEAST_RTT: Final = 15  # smallest round trip ended by this side
PACKETS_SEEN: Final = 16
DATA_SEEN: Final = 17
LAST_LABEL: Final = 18  # label of this side's latest packet
FIN_SEEN: Final = 19
SYNS: Final = 20  # SYNs captured, over the whole connection
SYN_PASSED: Final = 21  # 1: nothing more is to come of the connection before this one, as this side's SYN was passed or is not there
LIMIT: Final = 22  # largest payload of a segment: the smaller MSS of both sides, timestamps not yet taken off
SMOOTHED: Final = 23  # round trips ended by this side, smoothed (RFC 6298)
SPREAD: Final = 24  # and their variation
REPORTED: Final = 25  # when the other side last repeated an acknowledgement of this side's data or reported some selectively
LIMITED_SINCE: Final = 26  # since when this side's data in flight fill the other side's window
FIRST_SYN: Final = 27  # when this side's first SYN was captured
LAST_SYN: Final = 28
TAIL_SENT: Final = 29  # when the segment at this side's edge was captured last
TAIL_COPIES: Final = 30  # how often it was sent again
PROBES_TAIL: Final = 31  # 1: may probe for a lost tail, which needs SACK (RFC 8985); 0 where it was not agreed
FRAGMENT: Final = 32  # position of a segment of which only a fragment has a TCP header
STATE: Final = 33

# Counters per direction, as in tables.DIRECTION_COLUMNS; zero windows in ns.
COUNTERS: Final = (
    "packets",
    "payload_bytes",
    "data_segments",
    "retransmitted_segments",
    "retransmitted_bytes",
    "filled_segments",
    "filled_bytes",
    "reordered_segments",
    "ambiguous_segments",
    "duplicate_segments",
    "unseen_bytes",
    "acked_bytes",
    "zero_window_episodes",
    "zero_window_ns",
    "window_probes",
    "keepalives",
    "duplicate_acks",
    "resets",
    "triple_duplicate_acks",
    "dsacks",
    "invalid_resets",
    "window_limited_ns",
    "unfilled_bytes",
    "most_in_flight",
    "syns",
    "large_segments",
)
(
    PACKETS,
    PAYLOAD_BYTES,
    DATA_SEGMENTS,
    RETRANSMITTED_SEGMENTS,
    RETRANSMITTED_BYTES,
    FILLED_SEGMENTS,
    FILLED_BYTES,
    REORDERED_SEGMENTS,
    AMBIGUOUS_SEGMENTS,
    DUPLICATE_SEGMENTS,
    UNSEEN_BYTES,
    ACKED_BYTES,
    ZERO_WINDOW_EPISODES,
    ZERO_WINDOW_NS,
    WINDOW_PROBES,
    KEEPALIVES,
    DUPLICATE_ACKS,
    RESETS,
    TRIPLE_DUPLICATE_ACKS,
    DSACKS,
    INVALID_RESETS,
    WINDOW_LIMITED_NS,
    UNFILLED_BYTES,
    MOST_IN_FLIGHT,
    SYN_SEGMENTS,
    LARGE_SEGMENTS,
) = range(26)

# Facts of a connection.
FIRST_SEEN: Final = 0
LAST_SEEN: Final = 1
STARTED: Final = 2
END_CODE: Final = 3
RESET_CODE: Final = 4
HANDSHAKE_BROKER: Final = 5
HANDSHAKE_CLIENT: Final = 6
TTL_CLIENT: Final = 7  # the side's time to live where all its packets have the same, else -1
TTL_BROKER: Final = 8
RESET_KIND: Final = 9
CLOSED_BY: Final = 10  # 1 + the side of the first FIN
SETUP: Final = 11
CONNECT: Final = 12  # first SYN to the client's acknowledgement of the SYN-ACK
SYN_RETRY: Final = 13  # first SYN to the last one before an answer
ISN_CLIENT: Final = 14  # as on the wire
ISN_BROKER: Final = 15
LIMIT_BOTH: Final = 16  # the connection's MSS, -1 where a SYN is missing
CONNECTION_FACTS: Final = 17


class Headers(NamedTuple):
    """The header columns that the pass reads, over all rows of the shard; ``sacks`` are the eight edges, from and to by turns."""

    seq: Any  # uint32
    flags: Any  # uint16
    window: Any  # uint16
    payload_len: Any  # uint32
    ip_id: Any  # int32
    ttl: Any  # uint8
    options: Any  # uint8
    tsval: Any  # uint32
    tsecr: Any  # uint32
    mss: Any  # uint16
    window_scale: Any  # uint8
    sack_count: Any  # uint8
    ack: Any  # uint32
    sacks: Any  # tuple of uint32 arrays


class Sequence(NamedTuple):
    """The columns of `Ordered` that the pass reads."""

    row: Any
    side: Any
    time: Any
    position: Any
    ack_position: Any
    is_duplicate: Any
    first: Any


class SegmentFacts(NamedTuple):
    """Per row of `Ordered`: label (index into `LABELS`), round trip that it ended (ns, -1), scaled window (bytes, -1 unknown), bytes of the
    other direction that it acknowledges first and those of them never captured, and whether it begins a zero-window episode.

    ``kind``: what made the sender send it again (index into `evidence.KINDS`); ``evidence``: bits of `evidence`; ``new_bytes``: payload not
    captured before; ``in_flight``: bytes sent and not acknowledged after it (-1 unknown, or no payload); of a segment that filled a hole or was
    overtaken ``late_ns`` since the first one behind it, and ``late_segments``, its distance from that one (RFC 4737's extent), else 0.
    """

    label: NDArray[np.uint8]
    rtt_ns: Int64s
    window_bytes: NDArray[np.int32]
    acked_bytes: NDArray[np.uint32]
    unseen_bytes: NDArray[np.int32]
    zero_window_begins: Bools
    kind: NDArray[np.uint8]
    evidence: NDArray[np.uint16]
    new_bytes: NDArray[np.uint32]
    in_flight: NDArray[np.int32]
    late_ns: Int64s
    late_segments: NDArray[np.int32]


@dataclass
class ConnectionFacts:
    """Per connection [C], or per direction [2C] with ``d = 2 * connection + side``, named as in `tables`.

    ``ended``, ``reset_by``, ``closed_by``, ``reset_kind``, ``setup`` and ``tap`` are indices into `ENDED`, `RESET_BY` (twice),
    `RESETS_BY_KIND`, `SETUPS` and `TAPS`. Times in ns, -1 where there is none, as in ``isn_...`` and ``mss``; round trips of connections without samples: n 0 and NaN.
    """

    first_seen: Int64s
    last_seen: Int64s
    started: Bools
    ended: Int64s
    reset_by: Int64s
    reset_kind: Int64s
    closed_by: Int64s
    setup: Int64s
    tap: Int64s
    connect_ns: Int64s
    syn_retry_ns: Int64s
    isn_client: Int64s
    isn_broker: Int64s
    mss: Int64s
    handshake_broker_ns: Int64s
    handshake_client_ns: Int64s
    rtt_broker_n: Int64s
    rtt_broker_min_ms: NDArray[np.float64]
    rtt_broker_p50_ms: NDArray[np.float64]
    rtt_broker_p95_ms: NDArray[np.float64]
    rtt_client_n: Int64s
    rtt_client_min_ms: NDArray[np.float64]
    rtt_client_p50_ms: NDArray[np.float64]
    rtt_client_p95_ms: NDArray[np.float64]
    packets: Int64s
    payload_bytes: Int64s
    data_segments: Int64s
    retransmitted_segments: Int64s
    retransmitted_bytes: Int64s
    filled_segments: Int64s
    filled_bytes: Int64s
    reordered_segments: Int64s
    ambiguous_segments: Int64s
    duplicate_segments: Int64s
    unseen_bytes: Int64s
    acked_bytes: Int64s
    zero_window_episodes: Int64s
    zero_window_ms: NDArray[np.float64]
    window_probes: Int64s
    keepalives: Int64s
    duplicate_acks: Int64s
    resets: Int64s
    syns: Int64s
    fast_segments: Int64s
    timeout_segments: Int64s
    tail_probe_segments: Int64s
    rack_segments: Int64s
    spurious_segments: Int64s
    large_segments: Int64s
    triple_duplicate_acks: Int64s
    dsacks: Int64s
    invalid_resets: Int64s
    window_limited_ms: NDArray[np.float64]
    unfilled_bytes: Int64s
    most_in_flight: Int64s


@njit(cache=True, nogil=True)
def _wrapped16(a: int, b: int) -> int:
    """``a - b`` of two IP ids as the nearest signed distance."""
    return ((a - b + 0x8000) & 0xFFFF) - 0x8000


@njit(cache=True, nogil=True)
def _survey(sequence: Sequence, h: Headers, lo: int, hi: int, state: Int64s, facts: Int64s) -> None:
    """What holds for a connection as a whole: SYNs and their options, whether IP ids rise by packet, times to live, first and last time."""
    wide = np.zeros(2, np.int64)
    rising = np.zeros((2, 3), np.int64)  # steps up, all steps, last id
    top = np.full(2, -1, np.int64)
    for i in range(lo, hi):
        if sequence.is_duplicate[i]:
            continue
        row, side = sequence.row[i], sequence.side[i]
        if facts[FIRST_SEEN] < 0:
            facts[FIRST_SEEN] = sequence.time[i]
        facts[LAST_SEEN] = sequence.time[i]
        ttl = at(h.ttl, row)
        if facts[TTL_CLIENT + side] != ttl:
            facts[TTL_CLIENT + side] = ttl if facts[TTL_CLIENT + side] == -2 else -1
        position = sequence.position[i]
        if position < 0:
            continue
        flags = at(h.flags, row)
        if flags & SYN:
            state[side, SYNS] += 1
            if state[side, FIRST_SYN] < 0:
                state[side, FIRST_SYN] = sequence.time[i]
            if state[1 - side, FIRST_SYN] < 0:
                state[side, LAST_SYN] = sequence.time[i]
            if state[side, ISN] < 0:
                state[side, ISN] = position
                options = at(h.options, row)
                wide[side] = -1 if options & OPTIONS_DAMAGED else options & HAS_WINDOW_SCALE
                state[side, SCALE] = min(at(h.window_scale, row), 14)
                state[side, MSS] = at(h.mss, row) if options & HAS_MSS else -1
                state[side, PROBES_TAIL] = 1 if options & (SACK_PERMITTED | OPTIONS_DAMAGED) else 0
                if flags & ACK == 0 and side == 0:
                    facts[STARTED] = 1
        ip_id = at(h.ip_id, row)
        if position >= top[side] and ip_id > 0:
            if rising[side, 2] > 0:
                rising[side, 1] += 1
                if 0 < _wrapped16(ip_id, rising[side, 2]) < ID_REACH:
                    rising[side, 0] += 1
            rising[side, 2] = ip_id
        top[side] = max(top[side], position)
    smaller = min(state[0, MSS], state[1, MSS])
    facts[LIMIT_BOTH] = smaller if smaller > 0 else -1
    facts[ISN_CLIENT] = state[0, ISN] & MASK32 if state[0, ISN] >= 0 else -1
    facts[ISN_BROKER] = state[1, ISN] & MASK32 if state[1, ISN] >= 0 else -1
    if facts[STARTED] == 1 and state[0, LAST_SYN] > state[0, FIRST_SYN]:
        facts[SYN_RETRY] = state[0, LAST_SYN] - state[0, FIRST_SYN]
    known = state[0, ISN] >= 0 and state[1, ISN] >= 0 and wide[0] >= 0 and wide[1] >= 0
    for side in range(2):
        state[side, LIMIT] = smaller if smaller > 0 else USUAL_MSS
        if state[1 - side, PROBES_TAIL] == 0:
            state[side, PROBES_TAIL] = 0
        if not known:
            state[side, SCALE] = -1
        elif wide[0] == 0 or wide[1] == 0:  # only in force when both sides offer it (RFC 7323, 2.2)
            state[side, SCALE] = 0
        state[side, IDS_TELL] = 1 if rising[side, 1] > 0 and 20 * rising[side, 0] >= 19 * rising[side, 1] else 0
        if facts[TTL_CLIENT + side] == -2:
            facts[TTL_CLIENT + side] = -1


@njit(cache=True, nogil=True)
def _is_window_probe(state: Int64s, side: int, position: int, payload: int) -> bool:
    """A probe of the other side's closed window: empty and one byte back (Linux), or one byte beyond it (BSD, Windows)."""
    if state[1 - side, WINDOW] != 0 or state[side, ACKED] < 0:
        return False
    return bool((payload == 0 and position == state[side, ACKED] - 1) or (payload == 1 and position == state[side, ACKED]))


@njit(cache=True, nogil=True)
def _is_keepalive(state: Int64s, side: int, position: int, payload: int, time: int) -> bool:
    """At most one byte, the last one sent, all of it acknowledged (RFC 9293, 3.8.4); else it is a retransmission of one byte.

    With a byte it is one, too, sooner behind the last segment than any keep-alive timer: its acknowledgement was lost behind the tap.
    """
    if position != state[side, ACKED] - 1 or state[side, ACKED] < state[side, END]:
        return False
    return payload == 0 or state[side, TAIL_SENT] < 0 or bool(time - state[side, TAIL_SENT] >= SHORTEST_KEEPALIVE)


@njit(cache=True, nogil=True)
def _take_probed_byte(state: Int64s, side: int, position: int) -> None:
    """A window probe's byte counts as sent once something beyond it is sent or acknowledged: the other side has taken it."""
    if state[side, PROBE] >= 0 and state[side, PROBE] == state[side, EDGE] and position > state[side, EDGE]:
        state[side, EDGE] += 1
        state[side, END] = state[side, EDGE]


@njit(cache=True, nogil=True)
def _evidence(
    state: Int64s, side: int, hole: Int64s, position: int, end: int, time: int, ip_id: int, tsval: int
) -> tuple[int, int]:  # fmt: skip
    """Why a segment fills a hole: 1 sent again, -1 reordered, 0 cannot be told (`tcp.md` 3.4); and the bits of what says so.

    Its place among the IP ids and its timestamp against those of the packet that opened the hole; if neither tells, whether it came too soon
    to answer anything that passed the tap since; if not, whether the other side had reported the hole, and how long it was open.
    """
    bits = 0
    if state[side, IDS_TELL] and ip_id > 0 and hole[hl.ID] > 0:
        if -ID_REACH < _wrapped16(ip_id, hole[hl.ID]) < 0:
            bits |= ev.ID_EARLIER
        elif state[side, LATEST_ID] >= 0 and 0 < _wrapped16(ip_id, state[side, LATEST_ID]) < ID_REACH:
            bits |= ev.ID_LATER
    if tsval >= 0 and hole[hl.TSVAL] >= 0:
        later = wrapped_difference(tsval, hole[hl.TSVAL])
        bits |= ev.STAMP_LATER if later > 0 else ev.STAMP_EARLIER if later < 0 else 0
    sent_again = bits & (ev.ID_LATER | ev.STAMP_LATER) != 0
    overtaken = bits & (ev.ID_EARLIER | ev.STAMP_EARLIER) != 0
    if state[side, REPEATS] >= rp.DUPLICATES:
        bits |= ev.DUPLICATE_ACKS
    if state[side, SACKED] >= end and state[side, ACKED] <= position:
        bits |= ev.SELECTIVE_ACKS
    waited = time - hole[hl.OPENED]
    least = max(state[0, LEAST_RTT], 0) + max(state[1, LEAST_RTT], 0)  # of the round trip, where one half is not known of the other
    known = state[0, LEAST_RTT] >= 0 and state[1, LEAST_RTT] >= 0
    if waited < min(least, SHORT):
        bits |= ev.SHORT_WAIT
    elif 10 * waited >= (9 * least if known else 10 * rp.TIMEOUT):
        bits |= ev.LONG_WAIT
    if sent_again or overtaken:
        return 0 if sent_again and overtaken else 1 if sent_again else -1, bits
    if bits & ev.SHORT_WAIT:
        return -1, bits
    return 1 if bits & (ev.DUPLICATE_ACKS | ev.SELECTIVE_ACKS | ev.LONG_WAIT) else 0, bits


@njit(cache=True, nogil=True)
def _label_old(
    state: Int64s,
    side: int,
    holes: Int64s,
    count: int,
    fill: int,
    seen: int,
    start: int,
    end: int,
    time: int,
    ip_id: int,
    tsval: int,
    unseen: NDArray[Any],
) -> tuple[int, int]:
    """The label of a segment of which bytes below the known edge were ``seen`` or fill a hole (``fill``), and its evidence."""
    if seen > 0 or fill == 0:
        return RETRANSMITTED, 0
    k = hl.first_behind(holes, side, count, start)
    hole = holes[side, k]
    bits = ev.BEFORE_CAPTURE if hole[hl.BEFORE] else 0
    if state[side, ACKED] >= end or hole[hl.ACK_ROW] >= 0:
        if hole[hl.ACK_ROW] >= 0 and time - hole[hl.ACK_TIME] <= REORDER_SLACK:
            hl.take_back(holes, side, count, start, end, time - REORDER_SLACK, unseen)
            return NEW, bits | ev.CAPTURE_ORDER
        return AMBIGUOUS, bits | ev.ACKED_BEFORE
    vote, found = _evidence(state, side, hole, start, end, time, ip_id, tsval)
    bits |= found
    if vote < 0:
        return REORDERED, bits
    return FILLED if vote > 0 and hole[hl.BEFORE] == 0 else AMBIGUOUS, bits


@njit(cache=True, nogil=True)
def _why_again(
    state: Int64s, side: int, queue: Int64s, ends: Int64s, start: int, end: int, time: int, opened: int, bits: int
) -> tuple[int, int]:  # fmt: skip
    """What made ``side`` send ``start`` to ``end`` again (index into `evidence.KINDS`), and the evidence; ``opened``: when the hole that it fills was, else -1."""
    at_tail = end == state[side, EDGE] and state[side, TAIL_SENT] >= 0
    k = rt.outstanding(queue, side, ends, start)
    waited = (
        time - opened if opened >= 0 else time - queue[side, k, rt.LATEST] if k >= 0 else time - state[side, TAIL_SENT] if at_tail else -1
    )
    sender = max(state[side, LEAST_RTT], 0)
    smoothed = state[1 - side, SMOOTHED] + sender if state[1 - side, SMOOTHED] >= 0 else -1
    timeout = rp.timeout(smoothed, state[1 - side, SPREAD])
    repeats = state[side, REPEATS]
    if repeats >= rp.DUPLICATES:
        bits |= ev.DUPLICATE_ACKS
    if state[side, SACKED] > end:
        bits |= ev.SELECTIVE_ACKS
    if state[side, ACKED] >= end:
        bits |= ev.ACKED_BEFORE
    if waited >= 0 and 10 * waited >= 9 * timeout:
        bits |= ev.TIMEOUT_PASSED
    if at_tail and state[side, TAIL_COPIES] == 0 and repeats == 0 and bits & ev.SELECTIVE_ACKS == 0:
        bits |= ev.TAIL
    probes = state[side, PROBES_TAIL] != 0 and smoothed >= 0 and start > state[side, ISN]
    selected = rt.selected_above(queue, side, ends, end)
    reacts = state[side, REPORTED] >= 0 and time - state[side, REPORTED] <= sender + rp.REACTION
    return rp.kind_of(bits, repeats, selected, state[side, LIMIT], reacts, waited, opened >= 0, smoothed if probes else -1, timeout), bits


@njit(cache=True, nogil=True)
def _count_label(tally: Int64s, side: int, label: int, seen_payload: int, fill_payload: int) -> None:
    """Count a segment by its label."""
    if label == KEEPALIVE:
        tally[side, KEEPALIVES] += 1
    elif label == WINDOW_PROBE:
        tally[side, WINDOW_PROBES] += 1
    elif label != NOTHING:
        tally[side, DATA_SEGMENTS] += 1
    if label == RETRANSMITTED:
        tally[side, RETRANSMITTED_SEGMENTS] += 1
        tally[side, RETRANSMITTED_BYTES] += seen_payload
        tally[side, FILLED_BYTES] += fill_payload
    elif label == FILLED:
        tally[side, FILLED_SEGMENTS] += 1
        tally[side, FILLED_BYTES] += fill_payload
    elif label == REORDERED:
        tally[side, REORDERED_SEGMENTS] += 1
    elif label == AMBIGUOUS:
        tally[side, AMBIGUOUS_SEGMENTS] += 1


@njit(cache=True, nogil=True, inline="always")
def _follow_data(
    state: Int64s, side: int, holes: Int64s, hole_count: Int64s, queue: Int64s, ends: Int64s, resent: Int64s, resent_count: Int64s, tally: Int64s,
    unseen: NDArray[Any], position: int, payload: int, flags: int, time: int, ip_id: int, tsval: int, i: int,
    kinds: NDArray[Any], evidence: NDArray[Any], fresh: NDArray[Any], late_ns: Int64s, late_segments: NDArray[Any],
) -> int:  # fmt: skip
    """Take packet ``i`` into its direction's space; returns its label. The last five arrays are those of `SegmentFacts`."""
    length = payload + (1 if flags & SYN else 0) + (1 if flags & FIN else 0)
    if flags & (SYN | FIN) == 0 and payload <= 1:
        if _is_window_probe(state, side, position, payload):
            if payload == 1 and position >= state[side, EDGE]:
                state[side, PROBE] = position
            _count_label(tally, side, WINDOW_PROBE, 0, 0)
            return WINDOW_PROBE
        if _is_keepalive(state, side, position, payload, time):
            _count_label(tally, side, KEEPALIVE, 0, 0)
            return KEEPALIVE
    start, end = position, position + length
    unknown = state[side, PACKETS_SEEN] == 0 and state[side, ISN] < 0
    if state[side, EDGE] < 0:
        state[side, EDGE] = start
        state[side, FLOOR] = start
    if start < state[side, FLOOR]:
        if length == 0:
            return NOTHING
        hl.put_before(holes, side, hole_count, start, state[side, FLOOR], time, ip_id, tsval)
        state[side, FLOOR] = start
    _take_probed_byte(state, side, start)
    edge = state[side, EDGE]
    label = NOTHING
    if length > 0:
        old_end = min(end, edge)
        label = NEW
        seen_payload, fill_payload = 0, 0
        late = False
        bits = ev.LARGER_THAN_MSS if payload > state[side, LIMIT] - (STAMP_OPTION if tsval >= 0 else 0) else 0
        if start < old_end:
            fill = hl.overlap(holes, side, hole_count[side], start, old_end)
            seen = old_end - start - fill
            first_byte = start + (1 if flags & SYN else 0)
            last_byte = min(first_byte + payload, edge)
            if first_byte < last_byte:
                fill_payload = hl.overlap(holes, side, hole_count[side], first_byte, last_byte)
                seen_payload = last_byte - first_byte - fill_payload
            label, found = _label_old(state, side, holes, hole_count[side], fill, seen, start, end, time, ip_id, tsval, unseen)
            bits |= found
            late = label == NEW
            opened = -1
            if label == FILLED or label == REORDERED:
                k = hl.first_behind(holes, side, hole_count[side], start)
                opened = holes[side, k, hl.OPENED]
                late_ns[i] = time - opened
                late_segments[i] = tally[side, DATA_SEGMENTS] + 1 - holes[side, k, hl.SENT]
            if (label == FILLED or label == RETRANSMITTED) and not unknown:
                kinds[i], bits = _why_again(state, side, queue, ends, start, end, time, opened, bits)
                oldest = state[side, ACKED] >= start and state[side, ACKED] < end
                rp.note(resent, side, resent_count, start, end, i, tsval if oldest else -1)
            hl.fill(holes, side, hole_count, start, old_end)
        if unknown:
            label = AMBIGUOUS
        _count_label(tally, side, label, seen_payload, fill_payload)
        if bits & ev.LARGER_THAN_MSS:
            tally[side, LARGE_SEGMENTS] += 1
        fresh[i] = payload - seen_payload
        evidence[i] = bits
        if start < old_end and not late:
            rt.taint(queue, side, ends, start, end, time)
            if end == edge:
                state[side, TAIL_COPIES] += 1
                state[side, TAIL_SENT] = time
    if start > edge:
        untold = unknown or state[side, FRAGMENT] == edge
        hl.append(holes, side, hole_count, edge, start, time, ip_id, tsval, untold, tally[side, DATA_SEGMENTS])
    if end > edge:
        state[side, EDGE] = end
        if length > 0:
            state[side, TAIL_SENT] = time
            state[side, TAIL_COPIES] = 0
        if length > 0 and state[side, ACKED] < end:
            waits = hole_count[side] > 0 and holes[side, hole_count[side] - 1, hl.TO] > state[side, ACKED]
            mark = rt.CLEAN
            if label != NEW or start < edge or start < state[side, ACKED] or (flags & SYN and state[side, SYNS] > 1):
                mark = rt.SENT_AGAIN
            elif waits:
                mark = rt.WAITS
            rt.append(queue, side, ends, max(start, edge), end, time, mark, payload)
    state[side, END] = max(state[side, END], end)
    if flags & FIN and end - 1 > state[side, ISN]:
        state[side, FIN_AT] = end - 1
    if payload > 0:
        state[side, DATA_SEEN] = 1
    return label


@njit(cache=True, nogil=True, inline="always")
def _advance(
    state: Int64s,
    peer: int,
    holes: Int64s,
    hole_count: Int64s,
    ack: int,
    time: int,
    i: int,
    acked: NDArray[Any],
    unseen: NDArray[Any],
    tally: Int64s,
) -> None:
    """Take an acknowledgement beyond the last one into the other side's space: bytes acknowledged first, and those never captured."""
    before = state[peer, ACKED]
    if before < 0 or (before == state[peer, ISN] and ack > before + NEAR) or ack > before + FAR:
        # The first one: what it acknowledges was sent before the capture began, or is a number of an earlier connection; or more than a window.
        state[peer, ACKED] = ack
        if state[peer, EDGE] < ack:
            if state[peer, EDGE] < 0:
                state[peer, FLOOR] = ack
            else:
                hl.append(holes, peer, hole_count, state[peer, EDGE], ack, time, -1, -1, True, tally[peer, DATA_SEGMENTS])
            state[peer, EDGE] = ack
        return
    _take_probed_byte(state, peer, ack)
    alone = state[peer, DATA_SEEN] == 0 and state[peer, ISN] < 0 and state[peer, FLOOR] == state[peer, EDGE] == state[peer, END]
    if alone and ack == state[peer, EDGE] + 1:
        state[peer, EDGE] += 1  # a capture that begins with a keep-alive: its number is one below what was sent
        state[peer, END] = state[peer, EDGE]
        state[peer, FLOOR] = state[peer, EDGE]
    amount = ack - before
    if before <= state[peer, ISN] < ack:
        amount -= 1
    if before <= state[peer, FIN_AT] < ack:
        amount -= 1
    if ack > state[peer, EDGE]:
        untold = state[peer, FRAGMENT] == state[peer, EDGE]
        hl.append(holes, peer, hole_count, state[peer, EDGE], ack, time, -1, -1, untold, tally[peer, DATA_SEGMENTS])
        state[peer, EDGE] = ack
    acked[i] = amount
    tally[peer, ACKED_BYTES] += amount
    unseen[i] = hl.acknowledge(holes, peer, hole_count, before, ack, i, time)
    state[peer, ACKED] = ack


@njit(cache=True, nogil=True)
def _follow_sacks(
    state: Int64s, peer: int, queue: Int64s, ends: Int64s, resent: Int64s, resent_count: Int64s, tally: Int64s, ack: int, time: int,
    h: Headers, row: int, evidence: NDArray[Any],
) -> int:  # fmt: skip
    """Take selective acknowledgements in (RFC 2018); returns the shortest round trip that they ended (ns, -1).

    A first block below the acknowledgement, or inside the second one, reports what came twice (RFC 2883).
    """
    round_trip = -1
    blocks = min(at(h.sack_count, row), 4)
    for k in range(blocks):
        left = ack + wrapped_difference(at(h.sacks[2 * k], row), at(h.ack, row))
        right = ack + wrapped_difference(at(h.sacks[2 * k + 1], row), at(h.ack, row))
        if right <= left:
            continue
        inside_next = False
        if k == 0 and blocks > 1:
            inside_next = (
                ack + wrapped_difference(at(h.sacks[2], row), at(h.ack, row))
                <= left
                < right
                <= ack + wrapped_difference(at(h.sacks[3], row), at(h.ack, row))
            )
        if k == 0 and (right <= ack or inside_next):
            tally[1 - peer, DSACKS] += 1
            rp.report(resent, peer, resent_count, left, right, evidence)
        elif left >= ack and ack >= state[peer, ACKED]:
            since = rt.acknowledge_selectively(queue, peer, ends, left, right)
            if since >= 0 and (round_trip < 0 or time - since < round_trip):
                round_trip = time - since
            if right > state[peer, SACKED]:
                state[peer, SACKED] = right
                state[peer, REPORTED] = time
    return round_trip


@njit(cache=True, nogil=True, inline="always")
def _follow_ack(
    state: Int64s, peer: int, holes: Int64s, hole_count: Int64s, queue: Int64s, ends: Int64s, tally: Int64s, ack: int, time: int, i: int,
    acked: NDArray[Any], unseen: NDArray[Any], pure: bool, repeats: bool, resent: Int64s, resent_count: Int64s, echo: int, evidence: NDArray[Any],
) -> int:  # fmt: skip
    """Take an acknowledgement into the space of ``peer``, whose data it answers; returns the round trip that it ended (ns, -1).

    ``pure``: the packet carries nothing else; ``repeats``: its window is the one before, or it reports data behind a hole; ``echo``: its
    timestamp echo, -1 none or not wanted.
    """
    if ack > state[peer, ACKED]:
        _advance(state, peer, holes, hole_count, ack, time, i, acked, unseen, tally)
        since = rt.acknowledge(queue, peer, ends, ack, state[peer, LIMIT])
        state[peer, REPEATS] = 0
        if resent_count[peer] > 0:
            rp.acknowledge(resent, peer, resent_count, ack, echo, evidence)
        return time - since if since >= 0 else -1
    if ack == state[peer, ACKED] and pure and repeats and state[peer, END] > ack:
        if state[peer, LAST_LABEL] != KEEPALIVE and state[peer, LAST_LABEL] != WINDOW_PROBE:
            tally[1 - peer, DUPLICATE_ACKS] += 1
            state[peer, REPEATS] += 1
            state[peer, REPORTED] = time
            if state[peer, REPEATS] == rp.DUPLICATES:
                tally[1 - peer, TRIPLE_DUPLICATE_ACKS] += 1
    return -1


@njit(cache=True, nogil=True)
def _is_stray(state: Int64s, side: int, position: int, flags: int) -> bool:
    """Whether a packet belongs to an earlier connection on the same addresses: its side's SYN is still to come, and its number is elsewhere.

    Below its own SYN there is nothing at any time.
    """
    if state[side, ISN] < 0 or flags & SYN:
        return False
    if position >= 0 and position < state[side, ISN]:
        return True
    return bool(state[side, SYN_PASSED] == 0 and (position < 0 or position >= state[side, ISN] + NEAR))


@njit(cache=True, nogil=True)
def _reset_is_valid(state: Int64s, side: int, seq: int, ack: int) -> bool:
    """Whether an RST's number lies where its sender is (RFC 5961, with room for captures that lack something).

    One that answers a SYN must acknowledge it (RFC 9293, 3.10.7.3); ``ack`` is -1 where it acknowledges nothing.
    """
    end = max(state[side, END], state[side, ACKED])
    if end < 0:
        isn, sent = state[1 - side, ISN], state[1 - side, EDGE]
        return bool(isn < 0 or (ack >= 0 and 0 < wrapped_difference(ack, isn & MASK32) <= sent - isn))
    place = end + wrapped_difference(seq, end & MASK32)
    scale = state[1 - side, SCALE] if state[1 - side, SCALE] >= 0 else 14
    low = state[side, ACKED] if state[side, ACKED] >= 0 else end
    return bool(low - 0xFFFF <= place <= end + (max(state[1 - side, WINDOW], 0) << scale))


@njit(cache=True, nogil=True)
def _follow_reset(state: Int64s, side: int, seq: int, ack: int, idle: int, facts: Int64s, tally: Int64s) -> None:
    """Note who reset the connection, and how; after the sender's own FIN it is an ordinary end. ``idle``: ns since the packet before, -1 none."""
    if not _reset_is_valid(state, side, seq, ack):
        tally[side, INVALID_RESETS] += 1
        return
    if facts[RESET_CODE] == 0:
        facts[RESET_CODE] = 1 + side
        if state[side, FIN_SEEN]:
            facts[RESET_KIND] = AFTER_FIN
        elif facts[STARTED] == 1 and side == 1 and state[1, PACKETS_SEEN] == 0:
            facts[RESET_KIND] = REFUSED
        else:
            facts[RESET_KIND] = IDLE if idle > LONG_IDLE else ABORT
    if state[side, FIN_SEEN] == 0:
        facts[END_CODE] = 2


@njit(cache=True, nogil=True)
def _follow_limit(state: Int64s, sender: int, time: int, tally: Int64s) -> None:
    """Add up how long ``sender`` had less than one segment's room left in the window of the other side, an open one."""
    flight = state[sender, END] - state[sender, ACKED]
    window = state[1 - sender, WINDOW] << max(state[1 - sender, SCALE], 0)
    limited = (
        state[1 - sender, SCALE] >= 0 and state[sender, ACKED] >= 0 and flight > 0 and window > 0 and flight + state[sender, LIMIT] > window
    )
    if limited:
        if state[sender, LIMITED_SINCE] < 0:
            state[sender, LIMITED_SINCE] = time
    elif state[sender, LIMITED_SINCE] >= 0:
        tally[sender, WINDOW_LIMITED_NS] += time - state[sender, LIMITED_SINCE]
        state[sender, LIMITED_SINCE] = -1


@njit(cache=True, nogil=True)
def _follow_round_trip(state: Int64s, side: int, trip: int) -> None:
    """Take a round trip that ``side`` ended into its smallest and its smoothed ones (RFC 6298, 2)."""
    if state[side, LEAST_RTT] < 0:
        state[side, LEAST_RTT] = trip
        state[side, SMOOTHED] = trip
        state[side, SPREAD] = trip // 2
        return
    state[side, LEAST_RTT] = min(state[side, LEAST_RTT], trip)
    state[side, SPREAD] += (abs(state[side, SMOOTHED] - trip) - state[side, SPREAD]) >> 2
    state[side, SMOOTHED] += (trip - state[side, SMOOTHED]) >> 3


@njit(cache=True, nogil=True)
def _set_up(state: Int64s, facts: Int64s) -> int:
    """How the connection began, index into `SETUPS`."""
    if facts[STARTED] == 0:
        return NOT_CAPTURED
    if facts[RESET_KIND] == REFUSED:
        return TURNED_DOWN
    if state[0, PACKETS_SEEN] > state[0, SYNS]:
        return COMPLETE
    return HALF_OPEN if state[1, PACKETS_SEEN] > 0 else NO_ANSWER


@njit(cache=True, nogil=True)
def _follow_window(state: Int64s, side: int, window: int, time: int, tally: Int64s) -> bool:
    """Take an advertised window in; returns whether it begins a zero-window episode."""
    if window == 0:
        if state[side, CLOSED_SINCE] < 0:
            state[side, CLOSED_SINCE] = time
            tally[side, ZERO_WINDOW_EPISODES] += 1
            return True
    elif state[side, CLOSED_SINCE] >= 0:
        tally[side, ZERO_WINDOW_NS] += time - state[side, CLOSED_SINCE]
        state[side, CLOSED_SINCE] = -1
    return False


@njit(cache=True, nogil=True)
def _handshake_leg(state: Int64s, side: int, flags: int, ack: int, round_trip: int, facts: Int64s) -> int:
    """Note a leg of the handshake that this packet ended; returns the round trip, -1 where it cannot count as one."""
    if round_trip < 0 or ack != state[1 - side, ISN] + 1:
        return -1
    if side == 1:
        if flags & SYN == 0 or state[1, SYNS] != 1:
            return -1
        facts[HANDSHAKE_BROKER] = round_trip
    else:
        facts[HANDSHAKE_CLIENT] = round_trip
    return round_trip


@njit(cache=True, nogil=True)
def _begin(state: Int64s, tally: Int64s, holes_count: Int64s, ends: Int64s, resent_count: Int64s, facts: Int64s) -> None:
    state[:] = -1
    tally[:] = 0
    for side in range(2):
        for k in (REPEATS, IDS_TELL, PACKETS_SEEN, DATA_SEEN, LAST_LABEL, FIN_SEEN, SYNS, SYN_PASSED, TAIL_COPIES):
            state[side, k] = 0
    holes_count[:] = 0
    ends[:] = 0
    resent_count[:] = 0
    facts[:] = -1
    facts[TTL_CLIENT] = -2
    facts[TTL_BROKER] = -2
    for k in (STARTED, END_CODE, RESET_CODE, RESET_KIND, CLOSED_BY):
        facts[k] = 0


@njit(cache=True, nogil=True)
def _scaled(state: Int64s, side: int, window: int, flags: int) -> int:
    """The window in bytes, -1 where its scale is not known; a SYN's is never scaled (RFC 7323, 2.2)."""
    if flags & SYN:
        return window
    return -1 if state[side, SCALE] < 0 else window << state[side, SCALE]


@njit(cache=True, nogil=True)
def _follow(sequence: Sequence, h: Headers, found: SegmentFacts) -> tuple[Int64s, Int64s]:
    """The pass over all connections: fills ``found``; returns counters per direction and facts per connection."""
    connections = len(sequence.first) - 1
    label, rtt, window_bytes, acked, unseen, closes = (
        found.label,
        found.rtt_ns,
        found.window_bytes,
        found.acked_bytes,
        found.unseen_bytes,
        found.zero_window_begins,
    )
    kinds, evidence, fresh, in_flight = found.kind, found.evidence, found.new_bytes, found.in_flight
    late_ns, late_segments = found.late_ns, found.late_segments
    counters = np.zeros((2 * connections, len(COUNTERS)), np.int64)
    facts = np.empty((connections, CONNECTION_FACTS), np.int64)
    # Of the connection at hand. Columns have names of their own here: looked up in a tuple, each would be counted as referenced once per row.
    state = np.empty((2, STATE), np.int64)
    tally = np.empty((2, len(COUNTERS)), np.int64)
    fact = np.empty(CONNECTION_FACTS, np.int64)
    holes = np.empty((2, 64, hl.WORDS), np.int64)
    hole_count = np.zeros(2, np.int64)
    queue = np.empty((2, 1024, rt.WORDS), np.int64)
    ends = np.zeros((2, 3), np.int64)
    resent = np.empty((2, rp.MOST, rp.WORDS), np.int64)
    resent_count = np.zeros(2, np.int64)
    rows, sides, times, is_duplicate, first = sequence.row, sequence.side, sequence.time, sequence.is_duplicate, sequence.first
    positions, ack_positions = sequence.position, sequence.ack_position
    all_flags, windows, payloads, ip_ids = h.flags, h.window, h.payload_len, h.ip_id
    all_options, tsvals, tsecrs, sack_counts = h.options, h.tsval, h.tsecr, h.sack_count
    for c in range(connections):
        lo, hi = first[c], first[c + 1]
        _begin(state, tally, hole_count, ends, resent_count, fact)
        _survey(sequence, h, lo, hi, state, fact)
        for side in range(2):
            if state[side, ISN] >= 0:
                for k in (EDGE, ACKED, FLOOR):
                    state[side, k] = state[side, ISN]
        previous = -1
        for i in range(lo, hi):
            row, side, time = rows[i], sides[i], times[i]
            flags, window = at(all_flags, row), at(windows, row)
            window_bytes[i] = _scaled(state, side, window, flags)
            if is_duplicate[i]:
                tally[side, DUPLICATE_SEGMENTS] += 1
                continue
            tally[side, PACKETS] += 1
            if flags & RST:
                tally[side, RESETS] += 1
                acknowledged = at(h.ack, row) if flags & ACK else -1
                _follow_reset(state, side, at(h.seq, row), acknowledged, time - previous if previous >= 0 else -1, fact, tally)
                previous = time
                continue
            previous = time
            payload, ip_id = at(payloads, row), at(ip_ids, row)
            options = at(all_options, row)
            tsval = at(tsvals, row) if options & HAS_TIMESTAMPS else -1
            tally[side, PAYLOAD_BYTES] += payload
            if hl.HEADROOM + max(hole_count[0], hole_count[1]) > holes.shape[1]:
                holes = hl.larger(holes, hole_count)
            if ends[side, rt.TAIL] >= queue.shape[1]:
                queue = rt.make_room(queue, ends)
            if flags & SYN:
                state[side, SYN_PASSED] = 1
            if _is_stray(state, side, positions[i], flags):
                if payload > 0 or flags & FIN:
                    label[i] = AMBIGUOUS
                    _count_label(tally, side, AMBIGUOUS, 0, 0)
                continue
            said = NOTHING
            if positions[i] >= 0 and options & MORE_FRAGMENTS == 0:  # the rest of a fragment was not captured as TCP
                said = _follow_data(
                    state, side, holes, hole_count, queue, ends, resent, resent_count, tally, unseen, positions[i], payload, flags, time, ip_id, tsval, i,
                    kinds, evidence, fresh, late_ns, late_segments,
                )  # fmt: skip
                label[i] = said
                state[side, LAST_LABEL] = said
                state[side, PACKETS_SEEN] += 1
            elif positions[i] >= 0 and (state[side, FRAGMENT] < 0 or state[side, FRAGMENT] != state[side, EDGE]):
                state[side, FRAGMENT] = positions[i]
            ack, peer = ack_positions[i], 1 - side
            if ack >= 0:
                answers_syn = state[peer, ISN] >= 0 and state[peer, ACKED] == state[peer, ISN]
                pure = payload == 0 and flags & (SYN | FIN) == 0 and said == NOTHING
                sacked = state[peer, SACKED]
                selective = -1
                if at(sack_counts, row) > 0:
                    selective = _follow_sacks(state, peer, queue, ends, resent, resent_count, tally, ack, time, h, row, evidence)
                repeats = window == state[side, WINDOW] or state[peer, SACKED] > sacked
                echo = at(tsecrs, row) if resent_count[peer] > 0 and options & HAS_TIMESTAMPS else -1
                trip = _follow_ack(
                    state, peer, holes, hole_count, queue, ends, tally, ack, time, i, acked, unseen, pure, repeats, resent, resent_count, echo, evidence
                )  # fmt: skip
                if trip < 0:
                    trip = selective
                if answers_syn:
                    trip = _handshake_leg(state, side, flags, ack, trip, fact)
                if trip >= 0:
                    rtt[i] = trip
                    _follow_round_trip(state, side, trip)
                if (
                    side == 0
                    and fact[CONNECT] < 0
                    and fact[STARTED] == 1
                    and state[1, ISN] >= 0
                    and ack > state[1, ISN]
                    and flags & SYN == 0
                ):
                    fact[CONNECT] = time - state[0, FIRST_SYN]
            if flags & FIN:
                state[side, FIN_SEEN] = 1
                if fact[CLOSED_BY] == 0:
                    fact[CLOSED_BY] = 1 + side
                fact[END_CODE] = max(fact[END_CODE], 1)
            if flags & (SYN | FIN) == 0 and flags & ACK:
                closes[i] = _follow_window(state, side, window, time, tally)
            state[side, WINDOW] = window
            if ip_id > 0 and (state[side, LATEST_ID] < 0 or _wrapped16(ip_id, state[side, LATEST_ID]) > 0):
                state[side, LATEST_ID] = ip_id
            if payload > 0:
                _follow_limit(state, side, time, tally)
                if state[side, ACKED] >= 0 and state[side, END] >= 0:
                    flight = max(state[side, END] - state[side, ACKED] - ends[side, rt.SELECTED_BYTES], 0)
                    if flight <= FAR:
                        in_flight[i] = flight
                        tally[side, MOST_IN_FLIGHT] = max(tally[side, MOST_IN_FLIGHT], flight)
            if ack >= 0:
                _follow_limit(state, peer, time, tally)
        fact[SETUP] = _set_up(state, fact)
        for side in range(2):
            tally[side, SYN_SEGMENTS] = state[side, SYNS]
            tally[side, UNFILLED_BYTES] = hl.unfilled(holes, side, hole_count[side])
            if state[side, LIMITED_SINCE] >= 0:
                tally[side, WINDOW_LIMITED_NS] += fact[LAST_SEEN] - state[side, LIMITED_SINCE]
            if state[side, CLOSED_SINCE] >= 0:
                tally[side, ZERO_WINDOW_NS] += fact[LAST_SEEN] - state[side, CLOSED_SINCE]
            counters[2 * c + side] = tally[side]
        facts[c] = fact
    return counters, facts


def _headers(rows: Rows) -> Headers:
    columns = rows.columns
    kinds = {
        "flags": np.uint16,
        "window": np.uint16,
        "ip_id": np.int32,
        "ttl": np.uint8,
        "options": np.uint8,
        "mss": np.uint16,
        "window_scale": np.uint8,
    }
    kinds["sack_count"] = np.uint8
    plain = {name: np.require(columns[name], kinds.get(name, np.uint32), ["C", "W"]) for name in Headers._fields if name != "sacks"}
    return Headers(**plain, sacks=tuple(np.require(columns[name], np.uint32, ["C", "W"]) for name in SACK_EDGES))


def _tap(facts: Int64s, least: NDArray[np.float64]) -> Int64s:
    """Where each connection was captured: the half whose round trips are far shorter is the near one.

    The handshake's legs tell best, as neither side delays its acknowledgements there; else the smallest round trips. A time to live that
    no router has lowered (64, 128, 255) on one side only supports it, and tells alone where a half is not known.
    """
    legs = np.where(facts[:, [HANDSHAKE_BROKER, HANDSHAKE_CLIENT]] >= 0, facts[:, [HANDSHAKE_BROKER, HANDSHAKE_CLIENT]], np.nan)
    to_broker = np.where(np.isnan(legs[:, 0]), least[1::2], legs[:, 0])
    to_client = np.where(np.isnan(legs[:, 1]), least[0::2], legs[:, 1])
    hops = facts[:, [TTL_CLIENT, TTL_BROKER]]
    whole, lowered = np.isin(hops, (64, 128, 255)), (hops >= 0) & ~np.isin(hops, (64, 128, 255))
    client_near, broker_near = whole[:, 0] & lowered[:, 1], whole[:, 1] & lowered[:, 0]
    unknown = np.isnan(to_broker) | np.isnan(to_client)
    with np.errstate(invalid="ignore"):
        client = np.where(unknown, client_near, (to_broker >= 4 * to_client) | (client_near & (to_broker >= 2 * to_client)))
        broker = np.where(unknown, broker_near, (to_client >= 4 * to_broker) | (broker_near & (to_client >= 2 * to_broker)))
        middle = ~unknown & (np.minimum(to_broker, to_client) >= MILLISECOND)
    names = (TAPS.index("client"), TAPS.index("broker"), TAPS.index("middle"))
    return np.select([client, broker, middle], names, TAPS.index("unknown")).astype(np.int64)


def _no_facts(n: int) -> SegmentFacts:
    """Facts of ``n`` rows of which nothing is known. Zeros cost memory and time only where something is written, so what is rare has 0 for none."""
    return SegmentFacts(
        label=np.zeros(n, np.uint8),
        rtt_ns=np.full(n, -1, np.int64),
        window_bytes=np.full(n, -1, np.int32),
        acked_bytes=np.zeros(n, np.uint32),
        unseen_bytes=np.zeros(n, np.int32),
        zero_window_begins=np.zeros(n, np.bool_),
        kind=np.zeros(n, np.uint8),
        evidence=np.zeros(n, np.uint16),
        new_bytes=np.zeros(n, np.uint32),
        in_flight=np.full(n, -1, np.int32),
        late_ns=np.zeros(n, np.int64),
        late_segments=np.zeros(n, np.int32),
    )


def follow_segments(rows: Rows, ordered: Ordered) -> tuple[SegmentFacts, ConnectionFacts]:
    """What happened to every packet, and what that makes per connection; see `SegmentFacts` and `ConnectionFacts`."""
    sequence = Sequence(*(getattr(ordered, name) for name in Sequence._fields))
    found = _no_facts(len(ordered.row))
    counters, facts = _follow(sequence, _headers(rows), found)
    # What a direction lacks stands on the rows that acknowledge it, where data that came right behind was taken back.
    counters[:, UNSEEN_BYTES] = _unseen_by_direction(ordered, found.unseen_bytes)
    number, quantiles = rt.summarize(found.rtt_ns, ordered.side, ordered.first)
    milliseconds = quantiles / MILLISECOND
    columns: dict[str, Any] = {name: counters[:, k].copy() for k, name in enumerate(COUNTERS) if not name.endswith("_ns")}
    halves: dict[str, Any] = {
        f"rtt_{half}_{part}": values[side::2].copy()
        for half, side in (("client", 0), ("broker", 1))
        for part, values in (("n", number), ("min_ms", milliseconds[:, 0]), ("p50_ms", milliseconds[:, 1]), ("p95_ms", milliseconds[:, 2]))
    }
    again = np.flatnonzero(found.kind)
    kinds: dict[str, Any] = {
        name: _count_by_direction(ordered, again[found.kind[again] == code])
        for name, code in (
            ("fast_segments", ev.FAST),
            ("timeout_segments", ev.TIMED_OUT),
            ("tail_probe_segments", ev.TAIL_PROBE),
            ("rack_segments", ev.RACK),
        )
    }
    return found, ConnectionFacts(
        first_seen=facts[:, FIRST_SEEN].copy(),
        last_seen=facts[:, LAST_SEEN].copy(),
        started=facts[:, STARTED] == 1,
        ended=facts[:, END_CODE].copy(),
        reset_by=facts[:, RESET_CODE].copy(),
        reset_kind=facts[:, RESET_KIND].copy(),
        closed_by=facts[:, CLOSED_BY].copy(),
        setup=facts[:, SETUP].copy(),
        tap=_tap(facts, quantiles[:, 0]),
        connect_ns=facts[:, CONNECT].copy(),
        syn_retry_ns=facts[:, SYN_RETRY].copy(),
        isn_client=facts[:, ISN_CLIENT].copy(),
        isn_broker=facts[:, ISN_BROKER].copy(),
        mss=facts[:, LIMIT_BOTH].copy(),
        handshake_broker_ns=facts[:, HANDSHAKE_BROKER].copy(),
        handshake_client_ns=facts[:, HANDSHAKE_CLIENT].copy(),
        zero_window_ms=counters[:, ZERO_WINDOW_NS] / MILLISECOND,
        window_limited_ms=counters[:, WINDOW_LIMITED_NS] / MILLISECOND,
        spurious_segments=_count_by_direction(ordered, again[found.evidence[again] & np.uint16(ev.SPURIOUS) > 0]),
        **kinds,
        **halves,
        **columns,
    )


def _unseen_by_direction(ordered: Ordered, unseen: NDArray[Any]) -> Int64s:
    """Bytes never captured, per direction of the data."""
    directions = 2 * (len(ordered.first) - 1)
    missing = np.flatnonzero(unseen)
    direction = 2 * ordered.connection[missing] + 1 - ordered.side[missing]
    totals = np.zeros(directions, np.int64)
    np.add.at(totals, direction, unseen[missing])
    return totals


def _count_by_direction(ordered: Ordered, rows: NDArray[np.intp]) -> Int64s:
    """How many of ``rows`` each direction has."""
    return np.bincount(2 * ordered.connection[rows] + ordered.side[rows], minlength=2 * (len(ordered.first) - 1)).astype(np.int64)
