"""What a packet holds, as the passes over all rows of a shard read it, and the arithmetic of its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.capture.columns import SACK_EDGES

if TYPE_CHECKING:
    from brokerlens.capture.working import Rows

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10

MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
DUPLICATE_WINDOW: Final = MILLISECOND  # copies made by a capture: below half of any round trip between hosts worth comparing
EPOCH: Final = 1 << 32
HALF: Final = 1 << 31
FAR: Final = 1 << 30  # the largest window that TCP can have (RFC 7323)

# Words of a packet's content that have four bytes, compared after the fields that the order of ties names.
WORDS: Final = (
    "header_hash",
    "wire_len",
    "interface",
    "payload_len",
    "tsval",
    "tsecr",
    *SACK_EDGES,
)
W_INTERFACE: Final = 2
W_PAYLOAD: Final = 3
W_TSVAL: Final = 4  # from here on: what a copy with another time to live has in common with its original


class Content(NamedTuple):
    """What the order of ties and the search for copies read of a packet; arrays over all rows."""

    time: Any  # int64
    from_broker: Any  # bool
    seq: Any  # uint32
    ack: Any  # uint32
    flags: Any  # uint16
    window: Any  # uint16
    ip_id: Any  # int32
    ttl: Any  # uint8
    words: Any  # tuple of uint32 arrays, one for each of WORDS


@njit(cache=True, nogil=True)
def at(values: NDArray[Any], i: int) -> int:
    """``values[i]`` as a signed number: unsigned ones would wrap, or turn into floats where they meet signed ones."""
    return int(np.int64(values[i]))


@njit(cache=True, nogil=True)
def wrapped_difference(a: int, b: int) -> int:
    """``a - b`` of two 32-bit numbers as the nearest signed distance, -2^31 to 2^31 - 1 (RFC 1982)."""
    return ((a - b + HALF) & (EPOCH - 1)) - HALF


def column(values: NDArray[Any], kind: Any) -> NDArray[Any]:
    """The column as kernels are compiled for it: contiguous, writable, of the one type."""
    return np.require(values, dtype=kind, requirements=["C", "W"])


def content_of(rows: Rows) -> Content:
    """The columns of ``rows`` that decide order and copies."""
    columns = rows.columns
    return Content(
        time=column(columns["timestamp"], np.int64),
        from_broker=column(columns["from_broker"], np.bool_),
        seq=column(columns["seq"], np.uint32),
        ack=column(columns["ack"], np.uint32),
        flags=column(columns["flags"], np.uint16),
        window=column(columns["window"], np.uint16),
        ip_id=column(columns["ip_id"], np.int32),
        ttl=column(columns["ttl"], np.uint8),
        words=tuple(column(columns[name], np.uint32) for name in WORDS),
    )
