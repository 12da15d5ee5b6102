"""The log of the frames' fields as columns: per frame, per partition that a body names, and per record batch.

The log is in the order of the wire, so a partition belongs to the topic before it in its frame, and a batch to the partition before it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.kafka.layouts import FIELD_NAMES, FIELDS

Int64s = NDArray[np.int64]

NONE: Final = np.iinfo(np.int64).min
"""In a column: not said, or not captured."""

OF_FRAME: Final = ("acks", "throttle_time_ms", "max_wait_ms", "replica_id", "session_id", "session_epoch", "error_code", "partitions")
"""Columns per frame: the first value of a field (`error_code`: the first that is not 0), and the number of partitions."""
OF_PARTITION: Final = ("frame", "topic", "partition", "error_code", "base_offset", "fetch_offset", "high_watermark")
"""Columns per partition; ``topic`` is the place of its name or id in the log."""
OF_BATCH: Final = (
    "frame",
    "number",
    "batch_magic",
    "batch_base_offset",
    "batch_size",
    "batch_end",
    "batch_attributes",
    "batch_last_offset_delta",
    "batch_base_timestamp",
    "batch_producer_id",
    "batch_producer_epoch",
    "batch_base_sequence",
    "batch_count",
)
"""Columns per whole record batch or old message; ``number`` is that of its partition."""

TOPIC, TOPIC_ID, PARTITION, ERROR_CODE, MAGIC = (FIELDS[name] for name in ("topic", "topic_id", "partition", "error_code", "batch_magic"))
ERRORS, PARTITIONS = OF_FRAME.index("error_code"), OF_FRAME.index("partitions")


def _places(columns: tuple[str, ...]) -> Int64s:
    """By field the column that its first value goes to, -1 none."""
    return np.array([columns.index(name) if name in columns else -1 for name in FIELD_NAMES])


FRAME_PLACES, PARTITION_PLACES, BATCH_PLACES = _places(OF_FRAME), _places(OF_PARTITION), _places(OF_BATCH)


@njit(cache=True, nogil=True)
def _keep_first(column: int, row: int, value: int, table: Int64s) -> None:
    if column >= 0 and row >= 0 and table[column, row] == NONE:
        table[column, row] = value


@njit(cache=True, nogil=True)
def _tabulate(
    frame: Int64s, field: NDArray[np.uint8], value: Int64s, places: Int64s, frames: Int64s, partitions: Int64s, batches: Int64s
) -> None:
    current = topic = partition = batch = -1
    named = whole = 0
    for i in range(len(field)):
        f = int(field[i])
        if frame[i] != current:
            current, topic, partition, batch = frame[i], -1, -1, -1
        if f == TOPIC or f == TOPIC_ID:
            topic = i
        elif f == PARTITION:
            partition, batch = named, -1
            named += 1
            partitions[0, partition], partitions[1, partition], partitions[2, partition] = current, topic, value[i]
            frames[PARTITIONS, current] += 1
        elif f == ERROR_CODE:
            if frames[ERRORS, current] == NONE or frames[ERRORS, current] == 0:
                frames[ERRORS, current] = value[i]
            _keep_first(places[1, f], partition, value[i], partitions)
        elif f == MAGIC:
            batch = whole
            whole += 1
            batches[0, batch], batches[1, batch], batches[2, batch] = current, partition, value[i]
        else:
            _keep_first(places[0, f], current, value[i], frames)
            _keep_first(places[1, f], partition, value[i], partitions)
            _keep_first(places[2, f], batch, value[i], batches)


class Tables(NamedTuple):
    """Columns by the names of `OF_FRAME`, `OF_PARTITION` and `OF_BATCH`; int64 each, `NONE` where nothing is said."""

    frames: dict[str, Int64s]
    partitions: dict[str, Int64s]
    batches: dict[str, Int64s]


def tabulate(frames: int, frame: Int64s, field: NDArray[np.uint8], value: Int64s) -> Tables:
    """The log's integers as tables; ``frames`` is the number of frames, the rest the log's columns (`frames.Fields`)."""
    of_frame = np.full((len(OF_FRAME), frames), NONE)
    of_frame[PARTITIONS] = 0
    of_partition = np.full((len(OF_PARTITION), np.count_nonzero(field == PARTITION)), NONE)
    of_batch = np.full((len(OF_BATCH), np.count_nonzero(field == MAGIC)), NONE)
    _tabulate(frame, field, value, np.stack([FRAME_PLACES, PARTITION_PLACES, BATCH_PLACES]), of_frame, of_partition, of_batch)
    return Tables(
        dict(zip(OF_FRAME, of_frame, strict=True)),
        dict(zip(OF_PARTITION, of_partition, strict=True)),
        dict(zip(OF_BATCH, of_batch, strict=True)),
    )


@njit(cache=True, nogil=True)
def _gather(pool: NDArray[np.uint8], start: Int64s, size: Int64s, gathered: NDArray[np.uint8]) -> None:
    at = 0
    for i in range(len(start)):
        for k in range(size[i]):
            gathered[at + k] = pool[start[i] + k]
        at += size[i]


def gather(pool: NDArray[np.uint8], start: Int64s, size: Int64s) -> NDArray[np.uint8]:
    """The pieces ``pool[start : start + size]``, one behind the other."""
    gathered = np.empty(int(size.sum()), np.uint8)
    _gather(pool, start, size, gathered)
    return gathered
