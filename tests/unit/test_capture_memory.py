"""Large arrays, and what their columns share."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from brokerlens.capture.columns import ROW_COLUMNS, new_columns
from brokerlens.capture.memory import LARGE_PAGE, large


@pytest.mark.parametrize("size", [0, 1, LARGE_PAGE - 1, LARGE_PAGE, 3 * LARGE_PAGE + 5])
def test_large_memory_is_zeros_at_the_beginning_of_a_page(size: int) -> None:
    memory = large(size)
    assert len(memory) == size
    assert not memory.any()
    assert size == 0 or memory.ctypes.data % LARGE_PAGE == 0
    memory[:] = 7
    assert (memory == 7).all()


@pytest.mark.parametrize("rows", [1, 1000, 131_072])
def test_no_column_overlaps_another(rows: int) -> None:
    columns = new_columns(rows)._asdict()
    assert {name: column.dtype for name, column in columns.items()} == {name: np.dtype(kind) for name, kind in ROW_COLUMNS.items()}
    assert {len(column) for column in columns.values()} == {rows}
    assert not any(np.shares_memory(one, other) for one, other in itertools.combinations(columns.values(), 2))
