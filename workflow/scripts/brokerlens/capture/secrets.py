"""The decryption secrets that stand in pcapng captures (draft-ietf-opsawg-pcapng, 4.7)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from brokerlens.capture.formats import DECRYPTION_SECRETS, SECTION_HEADER
from brokerlens.capture.streams import PIECE, Stream, open_stream

TLS_KEY_LOG: Final = 0x544C534B
BYTE_ORDER: Final = 0x1A2B3C4D
LONGEST_SECRETS: Final = 64 << 20


class _Reader:
    """Bytes of a stream, in order."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray(PIECE)
        self._at = self._end = 0

    def take(self, count: int, *, keep: bool) -> bytes:
        """The next bytes, fewer at the end of the file; none of them where they are not to be kept."""
        parts = []
        while count:
            if self._at == self._end:
                self._at, self._end = 0, self._stream.readinto(memoryview(self._buffer))
                if self._end == 0:
                    break
            used = min(count, self._end - self._at)
            if keep:
                parts.append(bytes(self._buffer[self._at : self._at + used]))
            self._at += used
            count -= used
        return b"".join(parts)


def read_secrets(path: str, blocks: int) -> Iterator[bytes]:
    """The TLS key logs in a pcapng capture, as far as its first ``blocks`` blocks of secrets go; what is damaged ends them."""
    stream, _ = open_stream(path)
    with closing(stream):
        reader = _Reader(stream)
        order = "<"
        while blocks and len(head := reader.take(8, keep=True)) == 8:
            kind, total = struct.unpack(order + "II", head)
            done = 8
            if kind == SECTION_HEADER:
                mark = reader.take(4, keep=True)
                done += 4
                order = next((order for order in "<>" if mark == struct.pack(order + "I", BYTE_ORDER)), "")
                if not order:
                    return
                (total,) = struct.unpack(order + "I", head[4:])
            if total < done + 4:
                return
            wanted = kind == DECRYPTION_SECRETS and total <= LONGEST_SECRETS
            body = reader.take(total - done, keep=wanted)
            blocks -= kind == DECRYPTION_SECRETS
            if wanted and len(body) == total - done and total >= 20:
                secret_type, length = struct.unpack(order + "II", body[:8])
                if secret_type == TLS_KEY_LOG and length <= total - 20:
                    yield body[8 : 8 + length]
