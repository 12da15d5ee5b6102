"""The columns of a packet row in the working files (docs/architecture.md), as the kernels fill them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import literal_unroll

from brokerlens.capture.compiled import ask_to_write, kernel
from brokerlens.capture.memory import large, side_by_side

Array = npt.NDArray[Any]
Int = Any  # an int64: the compiled kernel's, and numpy's or Python's own where the kernel runs as plain Python

ROW_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "bucket": np.uint16,
    "connection": np.uint32,
    "from_broker": np.bool_,
    "timestamp": np.int64,
    "frame_number": np.uint32,
    "wire_len": np.uint32,
    "captured_len": np.uint32,
    "interface": np.uint32,
    "packet_type": np.uint8,
    "ttl": np.uint8,
    "ip_id": np.int32,
    "header_hash": np.uint32,
    "seq": np.uint32,
    "ack": np.uint32,
    "flags": np.uint16,
    "window": np.uint16,
    "payload_len": np.uint32,
    "payload_captured": np.uint32,
    "padded_len": np.uint32,
    "notebook_id": np.uint32,
    "options": np.uint8,
    "tsval": np.uint32,
    "tsecr": np.uint32,
    "mss": np.uint16,
    "window_scale": np.uint8,
    "sack_count": np.uint8,
    "sack1_from": np.uint32,
    "sack1_to": np.uint32,
    "sack2_from": np.uint32,
    "sack2_to": np.uint32,
    "sack3_from": np.uint32,
    "sack3_to": np.uint32,
    "sack4_from": np.uint32,
    "sack4_to": np.uint32,
}

SACK_EDGES: Final = tuple(f"sack{block}_{end}" for block in range(1, 5) for end in ("from", "to"))
"""Columns of the blocks that an acknowledgement reports selectively (RFC 2018)."""
OFTEN: Final = len(ROW_COLUMNS) - len(SACK_EDGES)
"""The number of columns before those, which every row is written to."""

# Bits of the column `options`.
HAS_TIMESTAMPS: Final = 1
HAS_MSS: Final = 2
HAS_WINDOW_SCALE: Final = 4
SACK_PERMITTED: Final = 8
OPTIONS_DAMAGED: Final = 16  # cut off by the snaplen, or a length that cannot be
MORE_FRAGMENTS: Final = 32

PAGE: Final = 4096
STAGGER: Final = 192  # bytes: three cache lines

NO_PACKET_TYPE: Final = 255
NO_IP_ID: Final = -1


class Columns(NamedTuple):
    """One array of equal length per column of ``ROW_COLUMNS``, in that order."""

    bucket: Array
    connection: Array
    from_broker: Array
    timestamp: Array
    frame_number: Array
    wire_len: Array
    captured_len: Array
    interface: Array
    packet_type: Array
    ttl: Array
    ip_id: Array
    header_hash: Array
    seq: Array
    ack: Array
    flags: Array
    window: Array
    payload_len: Array
    payload_captured: Array
    padded_len: Array
    notebook_id: Array
    options: Array
    tsval: Array
    tsecr: Array
    mss: Array
    window_scale: Array
    sack_count: Array
    sack1_from: Array
    sack1_to: Array
    sack2_from: Array
    sack2_to: Array
    sack3_from: Array
    sack3_to: Array
    sack4_from: Array
    sack4_to: Array


@kernel
def ask_for_row(columns: Columns, row: Int) -> None:
    """Ask the cache for the places of a row that is written soon: they are in more columns than the processor sees coming."""
    for column in literal_unroll(columns[:OFTEN]):
        ask_to_write(column, row)


def new_columns(rows: int) -> Columns:
    """Columns with room for so many rows, each beginning at another place of its memory page: writing to 34 alike places would fight for one cache set."""
    return Columns(**side_by_side(ROW_COLUMNS, rows, large, unit=PAGE, gap=STAGGER))
