"""Reading a capture: chunks of its bytes in one buffer that is used again and again, with the packets found in each."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from brokerlens.capture.columns import Array, Int
from brokerlens.capture.compiled import kernel
from brokerlens.capture.errors import CaptureError
from brokerlens.capture.formats import FEWEST_BYTES_PER_PACKET, LONGEST_BLOCK, NO_TIME, Format, Packets, new_packets, recognise
from brokerlens.capture.helpers import Helpers
from brokerlens.capture.streams import Pieces, Prefix, open_stream

CHUNK_BYTES: Final = 1 << 22  # of 1 to 16 MB, 4 took least time, with one thread and with two
SCRATCH: Final = 64  # bytes in front of the chunk that its readers may use to put a cut field together
FRONT: Final = SCRATCH + LONGEST_BLOCK + 65_536  # room for a cut packet, which is put before the piece that it goes on in

OTHER_FILES: Final = {  # what a file may be instead: its first bytes, its name, what to do
    b"\x04\x22\x4d\x18": ("lz4 data", "Decompress it, or compress it with zstd."),
    b"PK\x03\x04": ("a zip archive", "Unpack it."),
    b"7z\xbc\xaf": ("a 7z archive", "Unpack it."),
    b"snoop\x00\x00\x00": ("a snoop capture", "Convert it with `editcap -F pcap`."),
    b"GMBU": ("a Network Monitor capture", "Convert it with `editcap -F pcap`."),
    b"RTSS": ("a Network Monitor capture", "Convert it with `editcap -F pcap`."),
    b"TRSNIFF data": ("a Sniffer capture", "Convert it with `editcap -F pcap`."),
    b"\x1f\x9d": ("compress (.Z) data", "Decompress it."),
    b"\x5d\x00\x00": ("old lzma data", "Decompress it."),
}


@kernel
def note_times(packets: Packets, count: Int, previous: Int) -> tuple[Int, Int, Int, Int, bool]:
    """First and last time of the first ``count`` packets, how often one is before the one in front of it (at first: ``previous``), the last one's, and whether all have one link type.

    Packets without time are left out; first and last are -1 if none has one.
    """
    first, last, backsteps, alike = NO_TIME, NO_TIME, 0, True
    for packet in range(count):
        time = packets.time[packet]
        if time >= 0:
            first = time if first < 0 else min(first, time)
            last = max(last, time)
            backsteps += time < previous
            previous = time
        alike &= packets.link[packet] == packets.link[0]
    return first, last, backsteps, previous, alike


class Chunk(NamedTuple):
    """A piece of a capture: valid until the next one is asked for.

    ``buffer`` is uint8; the first ``found`` entries of each array of ``packets`` belong to this chunk; ``frame_number`` is the first packet's,
    1-based as Wireshark counts. ``SCRATCH`` bytes before the first packet may be overwritten.
    """

    buffer: Array
    packets: Packets
    found: int
    frame_number: int


class Capture:
    """A capture opened by its content. After ``chunks()`` ran to its end, the other attributes tell what it was."""

    def __init__(self, path: str, chunk_bytes: int = CHUNK_BYTES, *, helpers: Helpers | None = None, limit: int | None = None) -> None:
        """Open and recognise the file, which ``helpers`` read and decompress ahead. Of its (decompressed) bytes at most ``limit`` are read.

        Raises CaptureError where it is empty, not a capture, or damaged before its first packet.
        """
        self.path = path
        self.size = 0
        self.packets = 0
        self.links: set[int] = set()
        self.first_time = NO_TIME
        self.last_time = NO_TIME
        self.backsteps = 0
        self.truncated: str | None = None
        self._previous = NO_TIME
        self._room = max(chunk_bytes, 64)
        self._base = 0  # bytes of the (decompressed) file before the buffer's beginning
        self._begin = self._end = FRONT
        self._ended = False
        self._stream, self.compression = open_stream(path)
        self._prefix = None if limit is None else Prefix(self._stream, limit)
        if self._prefix:
            self._stream = self._prefix
        self._pieces = Pieces(self._stream, FRONT, self._room, helpers or Helpers())
        try:
            self.size = Path(path).stat().st_size
            self._buffer = self._next_piece()
            self._format = self._recognise(self._buffer[FRONT : min(self._end, FRONT + 24)].tobytes())
        except BaseException:
            self._pieces.close()
            raise

    @property
    def format(self) -> str:
        """Format and compression, as shown to people."""
        return self._format.name + (f" ({self.compression})" if self.compression else "")

    @property
    def cut(self) -> bool:
        """Whether the limit ended the reading, and not the file."""
        return self._prefix is not None and self._prefix.cut

    @property
    def secrets(self) -> int:
        """Blocks of decryption secrets seen."""
        return self._format.secrets

    def chunks(self) -> Generator[Chunk]:
        """The capture's packets, a chunk at a time. Bad data end them: ``truncated`` says so.

        Raises CaptureError where the data are bad before the first packet.
        """
        packets = new_packets((FRONT + self._room) // FEWEST_BYTES_PER_PACKET + 1)
        at = FRONT + self._format.header_bytes
        try:
            while True:
                used, count = self._format.index(self._buffer, at, self._end, packets, 0)
                if count:
                    self._note(packets, count)
                    yield Chunk(self._buffer, packets, count, self.packets - count + 1)
                if self._format.damage:
                    return self._stop(self._format.damage, used)
                if self._ended and not self._format.skip:
                    return self._finish(cut=used < self._end)
                if not self._go_on(used):
                    return self._finish(cut=True)
                at = self._begin
        finally:
            self._pieces.close()

    def _next_piece(self) -> Array:
        """The buffer with the next piece of the file from ``FRONT`` on."""
        try:
            buffer, size = self._pieces.next()
        except OSError as error:
            raise CaptureError(self.path, f"that reading failed ({error.strerror})", "a readable file") from error
        self._begin, self._end = FRONT, FRONT + size
        self._ended = size < self._room
        return buffer

    def _go_on(self, used: int) -> bool:
        """Pass over what is used and what is to be skipped, and put the cut packet before the next piece. False where the file ends before that."""
        used += self._format.skip
        self._format.skip = 0
        while used > self._end:
            if self._ended:
                return False
            used -= self._end - FRONT
            self._base += self._end - self._begin
            self._buffer = self._next_piece()
        self._base += used - self._begin
        self._begin = used
        if self._ended:
            return True
        rest = self._buffer[used : self._end].copy()
        self._buffer = self._next_piece()
        self._begin = FRONT - len(rest)
        self._buffer[self._begin : FRONT] = rest
        return True

    def _note(self, packets: Packets, count: int) -> None:
        """Count a chunk's packets, and what their times tell."""
        self.packets += count
        first, last, backsteps, self._previous, alike = map(int, note_times(packets, count, self._previous))
        links = packets.link[: 1 if alike else count]
        self.links.update(np.unique(links).tolist() if len(links) > 1 else [int(links[0])])
        if first >= 0:
            self.first_time = first if self.first_time < 0 else min(self.first_time, first)
            self.last_time = max(self.last_time, last)
            self.backsteps += backsteps

    def _stop(self, damage: str, at: int) -> None:
        """End at data that cannot be used: an error before the first packet, else a sentence."""
        place = f"at byte {self._base + at - self._begin:,}{' of the decompressed data' if self.compression else ''}"
        if self.packets == 0:
            raise CaptureError(self.path, f"{damage} {place}, before the first packet")
        self.truncated = f"{damage} {place}: used are the {self.packets:,} packets before it."

    def _finish(self, cut: bool) -> None:
        """End at the end of the file: a sentence if it came too soon."""
        if self._stream.damage:
            if self.packets == 0:
                raise CaptureError(self.path, f"that {self._stream.damage}, before the first packet")
            self.truncated = f"{self._stream.damage}: used are the {self.packets:,} packets before that."
        elif not self._format.begun:
            raise CaptureError(self.path, f"a {self._format.name} file that ends inside its first header")
        elif cut:
            self.truncated = f"the file ends inside a packet or block: used are the {self.packets:,} packets before it."

    def _recognise(self, start: bytes) -> Format:
        """The file's format, or an error that says what it is instead."""
        if not start:
            if self._stream.damage:
                raise CaptureError(self.path, f"that {self._stream.damage}")
            raise CaptureError(self.path, f"no data in the {self.compression} file" if self.compression else "an empty file (0 bytes)")
        known = recognise(start)
        if known is not None:
            return known
        if recognise(start[:20] + bytes(24 - min(len(start), 20))) is not None and len(start) < 24:
            raise CaptureError(self.path, f"a pcap file header that is cut after {len(start)} of its 24 bytes")
        for magic, (name, hint) in OTHER_FILES.items():
            if start.startswith(magic):
                raise CaptureError(self.path, name, hint=hint)
        inside = f" in the {self.compression} data" if self.compression else ""
        raise CaptureError(self.path, f"no capture: it begins with the bytes {start[:8].hex(' ')}{inside}")
