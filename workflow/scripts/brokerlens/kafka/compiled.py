"""How this room's kernels are compiled."""

from __future__ import annotations

from typing import Final

from numba import njit

# Kernels allocate nothing and keep no array, so references need no counting: numba would otherwise count at every call of every small function, which
# took nine tenths of the time.
kernel: Final = njit(cache=True, nogil=True, _nrt=False)
