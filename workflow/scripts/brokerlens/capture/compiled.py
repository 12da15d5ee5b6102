"""How kernels are compiled that allocate nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

# Kernels allocate nothing and keep no array, so references need no counting: numba would otherwise count at every call of every small function, which
# took nine tenths of the time.
_OPTIONS: Final[dict[str, bool]] = {"cache": True, "nogil": True, "_nrt": False}


def kernel(function: Function) -> Function:
    """Compile a function that allocates nothing; with numba's compiler off it runs as it is."""
    compiled: Function = njit(**_OPTIONS)(function)  # type: ignore[call-overload]  # numba's stubs leave out _nrt
    return compiled


def inlined(function: Function) -> Function:
    """The same for a function of which a kernel has a copy of its own: small ones called for every field, whose calls would cost more than their work.

    LLVM makes the copy: numba's own ``inline="always"`` takes half as long again to compile and gives slower kernels.
    """
    compiled: Function = njit(**_OPTIONS, forceinline=True)(function)  # type: ignore[call-overload]
    return compiled
