"""Reading a capture: chunks of its bytes in one buffer that is used again and again, with the packets found in each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from brokerlens.capture.columns import Array
from brokerlens.capture.errors import CaptureError
from brokerlens.capture.formats import FEWEST_BYTES_PER_PACKET, LONGEST_BLOCK, NO_TIME, Format, Packets, new_packets, recognise
from brokerlens.capture.streams import open_stream

CHUNK_BYTES: Final = 1 << 20  # 1 to 4 MB stay in the second-level cache; larger ones cost three times as much per packet
SCRATCH: Final = 64  # bytes in front of the chunk that its readers may use to put a cut field together

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

    def __init__(self, path: str, chunk_bytes: int = CHUNK_BYTES, *, ahead: bool = False) -> None:
        """Open and recognise the file; with ``ahead`` another thread decompresses it.

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
        self._buffer = np.zeros(SCRATCH + max(chunk_bytes, 64), np.uint8)
        self._room = max(chunk_bytes, 64)
        self._base = 0  # bytes of the (decompressed) file before the buffer
        self._stream, self.compression = open_stream(path, ahead=ahead)
        self.size = Path(path).stat().st_size
        try:
            self._end = SCRATCH
            self._fill(SCRATCH + 24)
            self._format = self._recognise(self._buffer[SCRATCH : self._end].tobytes())
        except BaseException:
            self._stream.close()
            raise

    @property
    def format(self) -> str:
        """Format and compression, as shown to people."""
        return self._format.name + (f" ({self.compression})" if self.compression else "")

    @property
    def secrets(self) -> int:
        """Blocks of decryption secrets seen."""
        return self._format.secrets

    def chunks(self) -> Iterator[Chunk]:
        """The capture's packets, a chunk at a time. Bad data end them: ``truncated`` says so.

        Raises CaptureError where the data are bad before the first packet.
        """
        packets = new_packets(self._room // FEWEST_BYTES_PER_PACKET + 1)
        at = SCRATCH + self._format.header_bytes
        try:
            while True:
                ended = not self._fill(SCRATCH + self._room)
                used, count = self._format.index(self._buffer, at, self._end, packets, 0)
                at = SCRATCH
                if count:
                    self._note(packets, count)
                    yield Chunk(self._buffer, packets, count, self.packets - count + 1)
                if self._format.damage:
                    return self._stop(self._format.damage, used)
                if ended:
                    return self._finish(cut=used < self._end or self._format.skip > 0)
                if not self._skip(used):
                    return self._finish(cut=True)
                if self._end == SCRATCH + self._room:
                    packets = self._grow()
        finally:
            self._stream.close()

    def _fill(self, until: int) -> bool:
        """Read until the buffer is filled to ``until``; False at the end of the file."""
        view = self._buffer.data
        try:
            while self._end < until:
                got = self._stream.readinto(view[self._end : until])
                if got == 0:
                    return False
                self._end += got
        except OSError as error:
            raise CaptureError(self.path, f"that reading failed ({error.strerror})", "a readable file") from error
        return True

    def _skip(self, used: int) -> bool:
        """Drop what is used and move the cut packet to the front; pass over ``skip`` more bytes. False where the file ends before that."""
        used += self._format.skip
        self._format.skip = 0
        while used > self._end:
            used -= self._end - SCRATCH
            self._base += self._end - SCRATCH
            self._end = SCRATCH
            if not self._fill(SCRATCH + min(self._room, used - SCRATCH)):
                return self._end == used
        rest = self._end - used
        self._buffer[SCRATCH : SCRATCH + rest] = self._buffer[used : self._end].copy()
        self._base += used - SCRATCH
        self._end = SCRATCH + rest
        return True

    def _grow(self) -> Packets:
        """Make the buffer hold the longest legal packet; happens once."""
        self._room = LONGEST_BLOCK + 65_536
        buffer = np.zeros(SCRATCH + self._room, np.uint8)
        buffer[: self._end] = self._buffer[: self._end]
        self._buffer = buffer
        return new_packets(self._room // FEWEST_BYTES_PER_PACKET + 1)

    def _note(self, packets: Packets, count: int) -> None:
        """Count a chunk's packets, and what their times tell."""
        self.packets += count
        links = packets.link[:count]
        self.links.update([int(links[0])] if (links == links[0]).all() else np.unique(links).tolist())
        times = packets.time[:count]
        times = times[times >= 0]
        if len(times):
            first, last = int(times.min()), int(times.max())
            self.first_time = first if self.first_time < 0 else min(self.first_time, first)
            self.last_time = max(self.last_time, last)
            self.backsteps += int(np.count_nonzero(times[1:] < times[:-1])) + int(times[0] < self._previous)
            self._previous = int(times[-1])

    def _stop(self, damage: str, at: int) -> None:
        """End at data that cannot be used: an error before the first packet, else a sentence."""
        place = f"at byte {self._base + at - SCRATCH:,}{' of the decompressed data' if self.compression else ''}"
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
