"""A capture's bytes, decompressed where needed, a piece at a time in bounded memory: never mapped, never read twice."""

from __future__ import annotations

import bz2
import itertools
import lzma
import os
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from brokerlens.capture.errors import CaptureError
from brokerlens.capture.helpers import Helpers, Task
from brokerlens.capture.memory import large

PIECE: Final = 65_536  # bytes decompressed at a time: fixed, so that where damaged data ends does not depend on the caller's buffer
ZSTD_PIECE: Final = 16_384  # Arrow loses the piece in which it finds damage, so these are smaller
AHEAD_PIECES: Final = 3  # read while another one is in use: enough that helpers have one to begin while who needs a piece reads another
Bytes = NDArray[np.uint8]

XZ_MEMORY: Final = 256 << 20  # the window of xz -9 is 64 MiB

MAGICS: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}
ZSTD_SKIPPED: Final = b"\x2a\x4d\x18"  # behind a byte 5x: a frame to be skipped, as pzstd writes one before each of its data


class Stream(Protocol):
    """Bytes to be read once, in order."""

    @property
    def damage(self) -> str:
        """Why the end came too soon, if it did, once ``readinto`` is there."""

    def readinto(self, view: memoryview) -> int:
        """Fill the view from its start; returns the number of bytes, 0 at the end."""

    def close(self) -> None:
        """Close the file."""


@runtime_checkable
class Placed(Stream, Protocol):
    """A stream that several threads may read at once, each at its place."""

    def read_at(self, view: memoryview, at: int) -> int:
        """Fill the view from its start with the bytes from ``at`` on; returns their number, 0 at the end."""


class _Plain:
    """A file as it is."""

    damage = ""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readinto(self, view: memoryview) -> int:
        return int(self._file.readinto(view))  # type: ignore[attr-defined]  # an unbuffered file has it, BinaryIO does not say so

    def read_at(self, view: memoryview, at: int) -> int:
        return os.preadv(self._file.fileno(), [view], at)

    def close(self) -> None:
        self._file.close()


class Prefix:
    """The first bytes of a stream, as if it ended behind them; ``cut`` once they are all read."""

    def __init__(self, stream: Stream, limit: int) -> None:
        self._stream = stream
        self._left = limit

    @property
    def cut(self) -> bool:
        """Whether there may be more behind what was read."""
        return self._left == 0

    @property
    def damage(self) -> str:
        return self._stream.damage

    def readinto(self, view: memoryview) -> int:
        count = self._stream.readinto(view[: self._left])
        self._left -= count
        return count

    def close(self) -> None:
        self._stream.close()


class _Inflate:
    """zlib's decompressor with the interface of bz2's and lzma's."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, limit: int) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, limit)

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data


DECOMPRESSORS: Final[dict[str, Callable[[], Any]]] = {
    "gzip": _Inflate,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY),
}


class _Pieces:
    """Hands out decompressed pieces; a subclass makes them."""

    damage = ""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._piece = memoryview(b"")
        self._ended = False

    def _next(self) -> bytes:
        """The next decompressed piece, empty at the end."""
        raise NotImplementedError

    def readinto(self, view: memoryview) -> int:
        if not self._piece and not self._ended:
            self._piece = memoryview(self._next())
            self._ended = not self._piece
        count = min(len(view), len(self._piece))
        view[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count


class _Members(_Pieces):
    """gzip, xz or bzip2 data: one member behind another, zeros between and behind them allowed as their tools do."""

    def __init__(self, file: BinaryIO, kind: str) -> None:
        super().__init__(kind)
        self._file = file
        self._magic = next(magic for magic, name in MAGICS.items() if name == kind)
        self._member = DECOMPRESSORS[kind]()
        self._input = b""

    def _next(self) -> bytes:
        while True:
            if self._member.eof and not self._begin_member():
                return b""
            data = b""
            if self._member.needs_input:
                data, self._input = self._input or self._file.read(PIECE), b""
                if not data:
                    self.damage = f"the {self._kind} data end too soon"
                    return b""
            try:
                piece: bytes = self._member.decompress(data, PIECE)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                self.damage = f"the {self._kind} data cannot be decompressed ({error})"
                return b""
            if piece:
                return piece

    def _begin_member(self) -> bool:
        """Begin the next member; False at the end of the file."""
        rest = self._input or self._member.unused_data
        self._input = b""
        while len(rest) < len(self._magic):
            more = self._file.read(PIECE)
            if not more:
                break
            rest = rest.lstrip(b"\0") + more
            if not rest.strip(b"\0"):
                rest = b""
        rest = rest.lstrip(b"\0")
        if not rest:
            return False
        if not rest.startswith(self._magic):
            self.damage = f"{self._kind} data are followed by something else"
            return False
        self._member = DECOMPRESSORS[self._kind]()
        self._input = rest
        return True

    def close(self) -> None:
        self._file.close()


class _Zstd(_Pieces):
    """zstd data, by Arrow: Python has no module for them before 3.14."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__("zstd")
        self._file = file
        self._stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")

    def _next(self) -> bytes:
        try:
            return bytes(self._stream.read(ZSTD_PIECE))
        except (OSError, pa.ArrowException) as error:
            ends = "Truncated" in str(error)
            self.damage = "the zstd data end too soon" if ends else f"the zstd data cannot be decompressed ({str(error).splitlines()[0]})"
            return b""

    def close(self) -> None:
        self._file.close()


class Pieces:
    """A stream in pieces of one size, the last one shorter, each in an array that has ``front`` bytes of room before it.

    Where there are ``helpers``, they read the next pieces, into arrays that change places with the one in use: nothing is copied.
    """

    def __init__(self, stream: Stream, front: int, size: int, helpers: Helpers) -> None:
        self._stream = stream
        self._placed = stream if isinstance(stream, Placed) else None  # asked once: asking takes as long as reading a little does
        self._front = front
        self._size = size
        self._numbers = itertools.count()  # of the pieces
        self._helpers = helpers
        self._used = large(front + size)
        self._coming: deque[tuple[Bytes, Task[int]]] = deque()
        if helpers:
            for _ in range(AHEAD_PIECES if self._placed else 1):  # without places, one after the other
                self._begin(large(front + size))

    def _begin(self, piece: Bytes) -> None:
        """Let the next piece be read into an array."""
        self._coming.append((piece, self._helpers.begin(self._fill, piece, next(self._numbers))))

    def _fill(self, piece: Bytes, number: int) -> int:
        """Fill an array behind its front room; returns the number of bytes, less than there is room for at the stream's end."""
        view, done, start = piece.data[self._front :], 0, number * self._size
        while done < len(view) and (got := self._read(view[done:], start + done)):
            done += got
        return done

    def _read(self, view: memoryview, at: int) -> int:
        """Read what stands at that place, which is where a stream without places goes on."""
        return self._placed.read_at(view, at) if self._placed else self._stream.readinto(view)

    def next(self) -> tuple[Bytes, int]:
        """The next piece's array, to be used until the next call, and the piece's size. Not to be called behind the last one."""
        if not self._helpers:
            return self._used, self._fill(self._used, next(self._numbers))
        (piece, reading), *later = self._coming
        size = reading.result(meanwhile=(task for _, task in later))
        self._coming.popleft()
        self._begin(self._used)
        self._used = piece
        return piece, size

    def close(self) -> None:
        """Close the stream, once no thread reads it any more."""
        for _, task in self._coming:
            task.drop()
        self._stream.close()


def open_stream(path: str) -> tuple[Stream, str]:
    """Open a file by what it contains; returns its bytes and the name of its compression ("" for none)."""
    try:
        if not Path(path).is_file():
            raise CaptureError(path, "no file of that name" if not Path(path).exists() else "something that is not a file")
        file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115  # closed by the stream's close
        start = file.read(6)
        file.seek(0)
    except OSError as error:
        raise CaptureError(path, f"that it cannot be read ({error.strerror})", "a readable file") from error
    kind = next((name for magic, name in MAGICS.items() if start.startswith(magic)), "")
    if start[1:4] == ZSTD_SKIPPED and start[0] >> 4 == 5:
        kind = "zstd"
    if not kind:
        return _Plain(file), ""
    return _Zstd(file) if kind == "zstd" else _Members(file, kind), kind
