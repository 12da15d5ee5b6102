"""Where packets stand in pcap and pcapng: the kernels against slow readers, on good data and bad."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from capture_files import Record, block, enhanced, interface, obsolete, pcap, pcapng, section, simple
from capture_twins import read_pcap, read_pcapng, ticks_to_ns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokerlens.capture.errors import CaptureError
from brokerlens.capture.formats import nanoseconds
from brokerlens.capture.reader import Capture

many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

datas = st.one_of(st.binary(max_size=80), st.integers(0, 3000).map(bytes))
records = st.lists(
    st.builds(Record, st.integers(0, (1 << 32) - 1).map(lambda s: s * 10**9 + 123_456_789), datas, st.integers(0, (1 << 32) - 1)),
    max_size=20,
)
chunk_sizes = st.sampled_from([64, 100, 1000, 1 << 20])


def read(path: Path, data: bytes, chunk_bytes: int) -> tuple[list[Record], bool]:
    """The packets that the reader finds, and whether it found the capture whole; chunks are copied as they come."""
    path.write_bytes(data)
    found: list[Record] = []
    try:
        capture = Capture(str(path), chunk_bytes)
        for chunk in capture.chunks():
            assert chunk.frame_number == len(found) + 1
            for offset, captured, wire, time, link in zip(*(column[: chunk.found].tolist() for column in chunk.packets), strict=True):
                found.append(Record(time, chunk.buffer[offset : offset + captured].tobytes(), wire, link))
    except CaptureError:
        assert not found
        return [], False
    assert capture.packets == len(found)
    return found, capture.truncated is None


@many
@given(packets=records, big=st.booleans(), nano=st.booleans(), modified=st.booleans(), link=st.sampled_from([1, 0, 276]), chunk=chunk_sizes)
def test_pcap_of_any_kind(tmp_path: Path, packets: list[Record], big: bool, nano: bool, modified: bool, link: int, chunk: int) -> None:
    data = pcap(packets, big=big, nanoseconds=nano, modified=modified, link=link)
    unit = 1 if nano and not modified else 1000
    expected = [Record(p.time // unit * unit, p.data, p.wire, link) for p in packets]
    assert read_pcap(data) == (expected, True)
    assert read(tmp_path / "x", data, chunk) == (expected, True)


@many
@given(packets=records, big=st.booleans(), old=st.booleans(), link=st.sampled_from([1, 113]), chunk=chunk_sizes)
def test_pcapng_of_either_byte_order(tmp_path: Path, packets: list[Record], big: bool, old: bool, link: int, chunk: int) -> None:
    data = pcapng(packets, big=big, old_blocks=old, link=link)
    expected = [p._replace(link=link) for p in packets]
    assert read_pcapng(data) == (expected, True)
    assert read(tmp_path / "x", data, chunk) == (expected, True)


@st.composite
def blocks(draw: st.DrawFn, big: bool) -> bytes:
    """One block of a section that has three interfaces."""
    ticks, data, wire = draw(st.integers(0, (1 << 64) - 1)), draw(datas), draw(st.integers(0, 4000))
    number = draw(st.integers(0, 3)) if draw(st.booleans()) else 0
    choice = draw(st.integers(0, 5))
    if choice == 0:
        return enhanced(ticks, data, wire, big=big, number=number, comment=draw(st.binary(max_size=9)))
    if choice == 1:
        return obsolete(ticks, data, wire, big=big, number=number)
    if choice == 2:
        return simple(data[: min(wire, 500)], wire, big=big)
    if choice == 3:
        return block(draw(st.sampled_from([4, 5, 9, 10, 0x80000001])), data, big)
    if choice == 4:
        offset = draw(st.one_of(st.none(), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(10**10), 10**10)))
        return interface(
            draw(st.integers(0, 300)), big=big, snaplen=draw(st.integers(0, 600)), resolution=draw(st.integers(0, 255)), offset=offset
        )
    return enhanced(draw(st.integers(0, 1 << 61)), data, wire, big=big)


@st.composite
def sections(draw: st.DrawFn) -> bytes:
    """A section with interfaces of several units of time."""
    big = draw(st.booleans())
    described = [
        interface(1, big=big),
        interface(276, big=big, snaplen=40, resolution=9),
        interface(0, big=big, resolution=0x80 | 32, offset=1_700_000_000),
    ]
    return section(big) + b"".join(described) + b"".join(draw(st.lists(blocks(big), max_size=8)))


@many
@given(data=st.lists(sections(), min_size=1, max_size=3).map(b"".join), cut=st.integers(0, 200), chunk=chunk_sizes)
def test_pcapng_of_several_sections_and_interfaces(tmp_path: Path, data: bytes, cut: int, chunk: int) -> None:
    data = data[: len(data) - cut] if cut < 100 else data
    found, whole = read_pcapng(data)
    assert read(tmp_path / "x", data, chunk) == (found, whole)


@many
@given(
    data=st.one_of(records.map(pcap), records.map(lambda packets: pcap(packets, big=True)), sections()),
    flips=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=6),
    chunk=chunk_sizes,
)
def test_damaged_data_give_the_packets_up_to_the_fault(tmp_path: Path, data: bytes, flips: list[tuple[int, int]], chunk: int) -> None:
    changed = bytearray(data)
    for place, value in flips if len(changed) > 24 else ():
        changed[24 + place % (len(changed) - 24)] = value
    twin = read_pcapng if data[:4] == b"\x0a\x0d\x0d\x0a" else read_pcap
    found, whole = twin(bytes(changed))
    assert read(tmp_path / "x", bytes(changed), chunk) == (found, whole and bool(found or whole))


@many
@given(
    start=st.sampled_from([b"", b"\x0a\x0d\x0d\x0a", pcap([]), section(), section() + interface()]),
    noise=st.binary(max_size=300),
    chunk=chunk_sizes,
)
def test_noise_ends_in_packets_or_one_error(tmp_path: Path, start: bytes, noise: bytes, chunk: int) -> None:
    read(tmp_path / "x", start + noise, chunk)


@settings(max_examples=500, deadline=None)
@given(
    ticks=st.one_of(st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 45), st.integers(60, 64).map(lambda bits: (1 << bits) - 1)),
    resolution=st.one_of(st.integers(0, 127), st.integers(128, 191)),
    offset=st.one_of(st.just(0), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 34), 1 << 34)),
)
def test_times_are_exact_and_cut(ticks: int, resolution: int, offset: int) -> None:
    base, exponent = (2, resolution & 127) if resolution & 128 else (10, resolution)
    expected = ticks_to_ns(ticks, resolution, offset)
    if abs(offset) > (1 << 63) // 10**9:
        expected = -1
    small = base == 10 or (ticks >> exponent) < ((1 << 63) - 1) // 10**9
    assert nanoseconds(ticks >> 32, ticks & 0xFFFFFFFF, base, exponent, offset) == (expected if small else -1)


def test_a_block_longer_than_the_buffer_is_passed_over(tmp_path: Path) -> None:
    packet = enhanced(5, b"abc", 3)
    data = section() + block(10, bytes(3 << 20)) + interface() + packet + block(0x1234, bytes(5 << 20)) + packet
    found, whole = read(tmp_path / "x", data, 1 << 12)
    assert (len(found), whole) == (2, True)
    assert read(tmp_path / "x", data[:-100], 1 << 12) == (found[:1], False)


def test_secrets_are_counted_and_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(
        section() + interface() + block(10, b"CLIENT_RANDOM") * 3 + block(10, bytes(1 << 20)) + enhanced(5, b"abc", 3)
    )
    capture = Capture(str(tmp_path / "x"), 4096)
    assert sum(chunk.found for chunk in capture.chunks()) == 1
    assert capture.secrets == 4


def test_the_longest_legal_packet_and_one_byte_more(tmp_path: Path) -> None:
    longest = Record(0, bytes(262_144), 262_144)
    for write in (pcap, pcapng):
        assert len(read(tmp_path / "x", write([longest, longest]), 4096)[0]) == 2
        found, whole = read(tmp_path / "x", write([longest, longest._replace(data=bytes(262_145))]), 4096)
        assert (len(found), whole) == (1, False)


@pytest.mark.parametrize("at", [8, 12])
def test_a_claim_of_4_gib(tmp_path: Path, at: int) -> None:
    good = pcap([Record(0, b"abcd", 4)] * 2)
    data = bytearray(good)
    struct.pack_into("<I", data, 24 + 20 + at, 0xFFFFFFFF)
    found, whole = read(tmp_path / "x", bytes(data), 4096)
    assert (len(found), whole) == ((1, False) if at == 8 else (2, True))


def test_kernels_are_compiled_once() -> None:
    from brokerlens.capture import formats, headers, lookup

    for kernel in (formats.index_pcap, formats.index_pcapng, headers.read_headers, lookup.find_connections):
        assert len(getattr(kernel, "signatures", ())) <= 1, kernel
    assert np.zeros(1).size == 1
