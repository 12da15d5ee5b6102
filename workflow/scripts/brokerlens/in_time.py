"""Tables that were made in parts, each in order of time, as one in order of time, without a copy of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

BATCH_ROWS: Final = 1 << 16


class Stored:
    """A table in a file, of which only the rows asked for are in memory."""

    def __init__(self, table: pa.Table, path: str | Path) -> None:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table.combine_chunks(), BATCH_ROWS)
        self._file = pa.ipc.open_file(pa.OSFile(str(path)))
        self.num_rows = table.num_rows

    def slice(self, offset: int, length: int) -> pa.Table:
        """Some of its rows."""
        first, behind = offset // BATCH_ROWS, -(-(offset + length) // BATCH_ROWS)
        batches = [self._file.get_batch(number) for number in range(first, behind)]
        return pa.Table.from_batches(batches, self._file.schema).slice(offset - first * BATCH_ROWS, length)


def in_turn(parts: Sequence[pa.Table | Stored], rows: int) -> Iterator[pa.Table]:
    """The rows of all parts, one part behind the other, at most so many at once."""
    for part in parts:
        for begin in range(0, max(part.num_rows, 1), rows):
            yield part.slice(begin, min(rows, part.num_rows - begin))


class Stretch(NamedTuple):
    """A stretch of time: of each part the rows ``begin`` to ``end``, and in which order the rows of all parts, one part behind the other, follow each other."""

    begin: np.ndarray
    end: np.ndarray
    order: np.ndarray


def stretches(times: Sequence[np.ndarray], ranks: Sequence[np.ndarray], rows: int) -> Iterator[Stretch]:
    """Stretches of about so many rows, which follow each other; rows of one time are in the order of their rank, then as their part has them.

    ``times`` and ``ranks`` are arrays of each part, the times ascending.
    """
    borders = np.unique(np.sort(np.concatenate(times))[rows::rows])
    cuts = np.stack([np.concatenate([[0], np.searchsorted(time, borders), [len(time)]]) for time in times])
    for begin, end in zip(cuts.T[:-1], cuts.T[1:], strict=True):
        time, rank = (
            np.concatenate([values[a:b] for values, a, b in zip(of_parts, begin, end, strict=True)]) for of_parts in (times, ranks)
        )
        yield Stretch(begin, end, np.lexsort((rank, time)))


def arrange(parts: Sequence[pa.Table | Stored], order: Sequence[Stretch]) -> Iterator[pa.Table]:
    """The rows of all parts in order, a table for each stretch."""
    for begin, end, rows in order:
        pieces = [part.slice(a, b - a) for part, a, b in zip(parts, begin, end, strict=True)]
        yield pa.concat_tables(pieces).unify_dictionaries().combine_chunks().take(pa.array(rows))
