"""How kernels are compiled that allocate nothing, and what they ask of the processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from llvmlite import ir  # type: ignore[import-untyped]  # it has no annotations
from numba import config, njit, types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])

# Kernels allocate nothing and keep no array, so references need no counting: numba would otherwise count at every call of every small function, which
# took nine tenths of the time.
_OPTIONS: Final[dict[str, bool]] = {"cache": True, "nogil": True, "_nrt": False}
PREFETCH: Final = "llvm.prefetch.p0"


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


def _prefetch(write: bool) -> Any:
    """A compiled function of an array and an index that asks the cache for that element's line, to read or to write it."""

    def typed(_: Any, array: Any, index: Any) -> Any:
        """Its type, and what makes its code."""
        return types.void(array, types.int64), generate

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        """The call of LLVM's ``llvm.prefetch``: address, whether to write, into all caches, data and no instructions."""
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.globals.get(PREFETCH) or ir.Function(builder.module, kind, PREFETCH)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        builder.call(function, [place, number(int(write)), number(3), number(1)])
        return context.get_dummy_value()

    def nothing(array: Any, index: Any) -> None:
        """What it is with numba's compiler off."""

    return nothing if config.DISABLE_JIT else intrinsic(typed)  # type: ignore[attr-defined]  # numba sets it as it starts


# Ask for what is needed soon, so that nobody waits for it then. Nothing is read or written, whatever the index.
ask_to_read: Final = _prefetch(write=False)
ask_to_write: Final = _prefetch(write=True)
