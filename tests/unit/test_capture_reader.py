"""Opening captures by their content: compressions, and files that are no captures or only in part."""

from __future__ import annotations

import io
import itertools
import os
import random
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from capture_files import COMPRESSIONS, Record, pcap, pcapng, zstd

from brokerlens.capture.errors import CaptureError
from brokerlens.capture.helpers import Helpers, Task
from brokerlens.capture.reader import Capture
from brokerlens.capture.streams import AHEAD_PIECES, Pieces, open_stream

RECORDS = [Record(10**9 * n, os.urandom(40 + n % 90), 200) for n in range(3000)]


def count(path: Path, data: bytes, chunk_bytes: int = 1 << 20) -> Capture:
    """A capture read to its end."""
    path.write_bytes(data)
    capture = Capture(str(path), chunk_bytes)
    assert sum(chunk.found for chunk in capture.chunks()) == capture.packets
    return capture


@pytest.mark.parametrize("kind", COMPRESSIONS)
@pytest.mark.parametrize("write", [pcap, pcapng])
def test_every_compression_is_known_by_its_content(tmp_path: Path, kind: str, write: object) -> None:
    assert callable(write)
    capture = count(tmp_path / "named.txt", COMPRESSIONS[kind](write(RECORDS)))
    assert (capture.packets, capture.truncated) == (3000, None)
    assert capture.format == ("pcapng" if write is pcapng else "pcap") + ("" if kind == "plain" else f" ({kind})")
    assert (capture.first_time, capture.last_time, capture.backsteps, capture.links) == (0, 2999 * 10**9, 0, {1})


@pytest.mark.parametrize("kind", [kind for kind in COMPRESSIONS if kind != "plain"])
def test_several_members_are_one_capture(tmp_path: Path, kind: str) -> None:
    data, compress = pcap(RECORDS), COMPRESSIONS[kind]
    parts = [compress(data[:70_000]), compress(b""), compress(data[70_000:])]
    assert count(tmp_path / "x", b"".join(parts)).packets == 3000
    if kind in ("gzip", "xz"):  # padded with zeros, as tapes and xz's streams are
        capture = count(tmp_path / "x", (parts[0] + bytes(8) + parts[2]) + bytes(70_004))
        assert (capture.packets, capture.truncated) == (3000, None)


def test_zstd_data_may_begin_with_a_frame_to_be_skipped(tmp_path: Path) -> None:
    data = pcap(RECORDS)
    parts = [b"\x50\x2a\x4d\x18\x04\x00\x00\x00size" + zstd(part) for part in (data[:70_000], data[70_000:])]
    capture = count(tmp_path / "x", b"".join(parts))
    assert (capture.packets, capture.format) == (3000, "pcap (zstd)")


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_a_cut_file_is_used_up_to_the_cut(tmp_path: Path, kind: str) -> None:
    data = COMPRESSIONS[kind](pcap(RECORDS))
    found = {count(tmp_path / "x", data[: len(data) // 2], chunk).packets for chunk in (64, 5000, 1 << 20)}
    assert len(found) == 1, "where it ends must not depend on the buffer"
    assert 900 < found.pop() < 2000
    capture = count(tmp_path / "x", data[:-10])
    assert capture.truncated is not None
    assert f"used are the {capture.packets:,} packets before" in capture.truncated


@pytest.mark.parametrize("kind", [kind for kind in COMPRESSIONS if kind != "plain"])
def test_damage_ends_a_compressed_capture(tmp_path: Path, kind: str) -> None:
    data = bytearray(COMPRESSIONS[kind](pcap(RECORDS)))
    data[len(data) * 3 // 4] ^= 0xFF
    found = []
    for chunk in (64, 1 << 20):
        try:
            capture = count(tmp_path / "x", bytes(data), chunk)
            assert capture.truncated or kind == "zstd", "a checksum must have failed (Arrow's zstd writes none)"
            found.append(capture.packets)
        except CaptureError:
            found.append(0)
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [kind for kind in COMPRESSIONS if kind != "plain"])
def test_something_else_behind_compressed_data_is_told(tmp_path: Path, kind: str) -> None:
    capture = count(tmp_path / "x", COMPRESSIONS[kind](pcap(RECORDS)) + b"something else")
    assert capture.truncated is not None
    assert capture.packets > 2800


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file (0 bytes)"),
        (b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00", "cut after 8 of its 24 bytes"),
        (b"hello, this is a text and not a capture at all", "it begins with the bytes 68 65 6c 6c"),
        (bytes(1000), "it begins with the bytes 00 00 00 00"),
        (b"\xd4\xc3\xb2\xa1\x07\x00\x04\x00" + bytes(100), "it begins with the bytes d4 c3 b2 a1"),
        (b"\x0a\x0d\x0d\x0a" + bytes(100), "without its byte-order mark"),
        (b"PK\x03\x04" + bytes(100), "a zip archive"),
        (b"snoop\x00\x00\x00" + bytes(100), "a snoop capture"),
        (COMPRESSIONS["gzip"](b""), "no data in the gzip file"),
        (COMPRESSIONS["gzip"](b"a text inside of a gzip file"), "in the gzip data"),
        (zstd(pcap(RECORDS))[:8], "the zstd data end too soon"),
        (b"BZh91AY&SY" + bytes(100), "the bzip2 data cannot be decompressed"),
        (pcapng([])[:20], "ends inside its first header"),
        (pcap([])[:24] + b"\xff" * 32, "claims 4,294,967,295 captured bytes"),
        (pcapng([]) + b"\xff" * 32, "impossible length"),
    ],
)
def test_what_is_no_capture_is_one_clear_error(tmp_path: Path, data: bytes, found: str) -> None:
    with pytest.raises(CaptureError) as error:
        count(tmp_path / "bad.pcap", data)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'bad.pcap'}: found ")
    assert found in message
    assert "expected a pcap or pcapng file" in message
    assert "Mend the file or take it out of `captures`" in message
    assert "this site and the report wait" in message


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "none", "no file of that name"), (tmp_path, "something that is not a file")):
        with pytest.raises(CaptureError, match=found):
            Capture(str(path))


@pytest.mark.parametrize("write", [pcap, pcapng])
def test_a_header_alone_is_a_capture_without_packets(tmp_path: Path, write: object) -> None:
    assert callable(write)
    capture = count(tmp_path / "x", write([]))
    assert (capture.packets, capture.truncated, capture.first_time) == (0, None, -1)


def test_times_that_step_back_are_counted(tmp_path: Path) -> None:
    times = [5, 7, 6, 6, 9, 1]
    for chunk in (64, 1 << 20):
        capture = count(tmp_path / "x", pcap([Record(time * 10**9, bytes(20), 20) for time in times]), chunk)
        assert (capture.backsteps, capture.first_time, capture.last_time) == (2, 10**9, 9 * 10**9)


@pytest.mark.parametrize("kind", [kind for kind in COMPRESSIONS if kind != "plain"])
def test_a_decompression_bomb_takes_little_memory(tmp_path: Path, kind: str) -> None:
    bomb = tmp_path / "bomb"
    bomb.write_bytes(COMPRESSIONS[kind](pcap([]) + bytes(64 << 20)))
    assert bomb.stat().st_size < 80_000
    stream, _ = open_stream(str(bomb))
    view = memoryview(bytearray(1 << 20))
    most = total = 0
    while got := stream.readinto(view):
        most, total = max(most, got), total + got
    assert most <= 65_536
    assert total == 24 + (64 << 20)
    stream.close()


class ShortReads(io.BytesIO):
    """Bytes that come a few at a time, and an error behind them if there is one."""

    damage = ""

    def __init__(self, data: bytes, error: OSError | None = None) -> None:
        super().__init__(data)
        self._error = error

    def readinto(self, view: memoryview) -> int:  # type: ignore[override]
        got = super().readinto(view[:7])
        if not got and self._error:
            raise self._error
        return got


class PlacedReads(ShortReads):
    """The same, to be read at any place, by threads that do not keep their order."""

    def __init__(self, data: bytes, error: OSError | None = None) -> None:
        super().__init__(data, error)
        self._mine = threading.Lock()

    def read_at(self, view: memoryview, at: int) -> int:
        time.sleep(random.random() / 1e4)
        with self._mine:
            self.seek(at)
            return self.readinto(view)


STREAMS = pytest.mark.parametrize(("kind", "helping"), list(itertools.product((ShortReads, PlacedReads), (0, 1, 3))))


def all_of(pieces: Pieces) -> bytes:
    """What the pieces of 100 bytes hold; the room in front of each is used."""
    found, got = b"", 100
    while got == 100:
        piece, got = pieces.next()
        piece[:16] = 255
        found += piece[16 : 16 + got].tobytes()
    pieces.close()
    return found


@STREAMS
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
def test_pieces_are_the_stream_with_room_in_front(kind: type[ShortReads], helping: int, size: int) -> None:
    data = os.urandom(size)
    with Helpers(helping) as helpers:
        assert all_of(Pieces(kind(data), 16, 100, helpers)) == data


@STREAMS
def test_an_error_while_reading_is_the_callers(kind: type[ShortReads], helping: int) -> None:
    with Helpers(helping) as helpers:
        pieces = Pieces(kind(bytes(150), OSError("gone")), 16, 100, helpers)
        assert pieces.next()[1] == 100
        with pytest.raises(OSError, match="gone"):
            pieces.next()
        pieces.close()


@pytest.mark.parametrize("kind", [ShortReads, PlacedReads])
def test_pieces_that_no_helper_has_begun_are_read_all_the_same(kind: type[ShortReads]) -> None:
    busy, data = threading.Event(), os.urandom(1050)
    with Helpers(1) as helpers:
        helpers.begin(busy.wait, 10)
        found = all_of(Pieces(kind(data), 16, 100, helpers))
        assert not busy.is_set()
        busy.set()
    assert found == data


def test_later_pieces_are_read_while_a_helper_reads_the_next_one() -> None:
    """Who needs a piece that is being read does not wait for it with nothing to do."""
    reads: dict[int, str] = {}
    ahead = {100 * number for number in range(AHEAD_PIECES)}
    first, others = threading.Event(), threading.Event()

    class Noted(PlacedReads):
        def read_at(self, view: memoryview, at: int) -> int:
            reads.setdefault(at, threading.current_thread().name)
            if at == 0:
                first.set()
                if not others.wait(10):  # the first piece is ready once all others that are read ahead are
                    raise OSError("nobody reads the others")
            if reads.keys() >= ahead:
                others.set()
            return super().read_at(view, at)

    data, me = os.urandom(1000), threading.current_thread().name
    with Helpers(1) as helpers:
        pieces = Pieces(Noted(data), 16, 100, helpers)
        assert first.wait(10)
        assert all_of(pieces) == data
    assert {at for at in ahead if reads[at] == me} == ahead - {0}
    assert len(ahead) > 1


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_stream_is_closed_once_no_helper_reads_it(monkeypatch: pytest.MonkeyPatch, interrupted: bool) -> None:
    begun, open_at_end = threading.Event(), []

    class Slow(ShortReads):
        def readinto(self, view: Any) -> int:
            begun.set()
            time.sleep(0.1)
            open_at_end.append(not self.closed)
            return super().readinto(view)

    with Helpers(1) as helpers:
        pieces = Pieces(Slow(bytes(1000)), 16, 100, helpers)
        assert begun.wait(10)
        if interrupted:
            with monkeypatch.context() as patch:
                patch.setattr(Task, "result", mock.Mock(side_effect=KeyboardInterrupt))
                with pytest.raises(KeyboardInterrupt):
                    pieces.next()
        pieces.close()
    assert open_at_end
    assert all(open_at_end)


def test_pieces_may_be_given_up_before_the_end() -> None:
    for taken, kind in itertools.product(range(3), (ShortReads, PlacedReads)):
        stream = kind(bytes(1000))
        with Helpers(1) as helpers:
            pieces = Pieces(stream, 16, 100, helpers)
            for _ in range(taken):
                pieces.next()
            pieces.close()
            assert stream.closed
