"""Memory for the large arrays that kernels go through: in large pages, where the system has them.

With pages of 4 KiB the processor looks up an address for nearly every packet of full size, and for each of a row's columns.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Final

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
