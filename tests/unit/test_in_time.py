"""Parts of a table put in order of time, a stretch at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerlens import in_time
from brokerlens.in_time import Stored, arrange, stretches

Rows = list[tuple[int, int]]  # time and rank


@given(parts=st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3))), min_size=1, max_size=4), rows=st.integers(1, 8))
def test_the_rows_of_all_parts_by_time_then_rank(parts: list[Rows], rows: int) -> None:
    """As one sort of everything would have them, in groups of about the size asked for."""
    parts = [sorted(part) for part in parts]
    numbered = [[(time, rank, part, n) for n, (time, rank) in enumerate(rows)] for part, rows in enumerate(parts)]
    times, ranks = ([np.array([row[place] for row in part], np.int64) for part in numbered] for place in (0, 1))
    tables = [pa.table({"word": pa.array([f"{part}.{n}" for _, _, part, n in rows], pa.string()).dictionary_encode()}) for rows in numbered]
    found = [*arrange(tables, [*stretches(times, ranks, rows)])]
    assert [word for table in found for word in table["word"].to_pylist()] == [
        f"{part}.{n}" for _, _, part, n in sorted(row for part_rows in numbered for row in part_rows)
    ]
    most_at_once = max((sum(time == t for part in times for time in part.tolist()) for t in range(10)), default=0)
    assert all(table.num_rows < rows + most_at_once for table in found)


def test_a_table_in_a_file_is_read_from_any_row_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that came in pieces, each with words of its own."""
    monkeypatch.setattr(in_time, "BATCH_ROWS", 4)
    words = [f"word {n}" for n in range(19)]
    pieces = [pa.table({"word": pa.array(words[a:b], pa.string()).dictionary_encode()}) for a, b in ((0, 3), (3, 3), (3, 18), (18, 19))]
    stored = Stored(pa.concat_tables(pieces), tmp_path / "words.arrow")
    for begin in range(20):
        for end in range(begin, 20):
            assert stored.slice(begin, end - begin)["word"].to_pylist() == words[begin:end]


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4), rows=st.integers(1, 8))
def test_parts_in_turn_are_one_behind_the_other(sizes: list[int], rows: int) -> None:
    parts = [
        pa.table({"part": pa.array([part] * size, pa.int64()), "row": pa.array(range(size), pa.int64())}) for part, size in enumerate(sizes)
    ]
    slices = [*in_time.in_turn(parts, rows)]
    assert pa.concat_tables(slices).equals(pa.concat_tables(parts)) and max(len(one) for one in slices) <= rows
