"""Memory for the large arrays that kernels go through: columns in one piece, and large pages, where the system has them.

With pages of 4 KiB the processor looks up an address for nearly every packet of full size, and for each of a row's columns.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LARGE_PAGE: Final = 1 << 21


def large(size: int) -> NDArray[np.uint8]:
    """So many bytes, all 0. Pages that are never written take no memory."""
    memory = mmap.mmap(-1, size + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):  # a system without large pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(memory, np.uint8)
    start = -array.ctypes.data % LARGE_PAGE
    return array[start : start + size]


def side_by_side(
    kinds: Mapping[str, type[np.generic]], count: int, allocate: Callable[[int], NDArray[np.uint8]], *, unit: int = 64, gap: int = 0
) -> dict[str, NDArray[Any]]:
    """Columns of so many values in one piece of memory, each of a multiple of ``unit`` bytes, with so large a ``gap`` to the next one."""
    sizes = {name: np.dtype(kind).itemsize * count for name, kind in kinds.items()}
    starts = np.cumsum([0, *(-(-size // unit) * unit + gap for size in sizes.values())]).tolist()
    memory = allocate(starts[-1])
    return {name: memory[start : start + size].view(kinds[name]) for (name, size), start in zip(sizes.items(), starts, strict=False)}
