"""Wireshark as the decoder: the same working files as the native reader's, of what both know; and of what only Wireshark knows."""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from capture_files import (
    COMPRESSIONS,
    LINKS,
    TUNNELS,
    Record,
    enhanced,
    ethernet,
    interface,
    ip,
    ipv4,
    ipv6,
    pcap,
    pcapng,
    section,
    simple,
    tcp,
    udp,
)
from test_split_capture import BROKER, EDGE, content, same_files, split

from brokerlens.capture.working import read_facts, read_rows
from brokerlens.errors import UserError
from brokerlens.wireshark import packets as wireshark

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
FOUR = ("192.0.2.5", "192.0.2.10")
SIX = ("2001:db8::5", "2001:db8::10")
BROKERS = [BROKER, "[2001:db8::10]:31289"]
UNLIKE = ("mpls with Ethernet", "erspan III with IP")
"""Wireshark takes Ethernet in MPLS without a control word for something else, and opens only mirrored Ethernet frames."""


def both(folder: Path, data: bytes) -> tuple[Path, Path]:
    """The working folders of a capture read natively and by Wireshark."""
    native, wireshark = (split(folder / decoder, data, BROKERS, keeper=None, decoder=decoder) for decoder in ("native", "wireshark"))
    return native, wireshark


def segment(seq: int, payload: bytes = b"some payload", **options: Any) -> bytes:
    """A segment from a client to the broker."""
    return tcp(50_000, 31_289, payload, seq=seq, flags=0x18, **options)


def framed(tunnel: Callable[[bytes], bytes], packet: bytes) -> bytes:
    """A packet in a tunnel in an Ethernet frame."""
    return ethernet(tunnel(packet))


@needs_tshark
@pytest.mark.parametrize("link", sorted({link for link, _ in LINKS.values()}))
def test_the_same_files_from_every_link_layer_and_tunnel(link: int, tmp_path: Path) -> None:
    wraps: list[Callable[[bytes], bytes]] = [wrap for name, (of, wrap) in LINKS.items() if of == link and name not in UNLIKE]
    wraps += [partial(framed, tunnel) for name, tunnel in TUNNELS.items() if link == 1 and name not in UNLIKE]
    frames = [wrap(ip(*ends, segment(seq))) for seq, wrap in enumerate(wraps) for ends in (FOUR, SIX)]
    native, wireshark = both(tmp_path, pcap([Record(5, frame, len(frame)) for frame in frames], link=link))
    assert read_facts(native)["kept"] == len(frames)
    same_files(native, wireshark)


@needs_tshark
@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_the_same_files_from_every_compression(kind: str, tmp_path: Path) -> None:
    same_files(*both(tmp_path, COMPRESSIONS[kind](EDGE[2].read_bytes())))


@needs_tshark
def test_options_flags_and_padding_are_read_alike(tmp_path: Path) -> None:
    options = [
        b"\x02\x04\x05\xb4\x04\x02\x08\x0a\x00\x00\x00\x09\x00\x00\x00\x08\x01\x03\x03\x07",
        b"\x01\x01\x05\x0a\xff\xff\xff\xf0\x00\x00\x00\x10",
        b"\x01\x01\x05\x22" + b"".join(struct.pack(">I", edge) for edge in range(8)),
        b"\x01\x01\x08\x0a\xff\xff\xff\xff\x00\x00\x00\x00",
    ]
    frames = [ethernet(ipv4(*FOUR, segment(number, options=option, window=65_535))) for number, option in enumerate(options)]
    frames += [ethernet(ipv4(*FOUR, tcp(50_000, 31_289, flags=flags)), padding=6) for flags in (0x02, 0x1C2, 0x11, 0x04)]
    frames += [ethernet(ipv4(*FOUR, segment(9), options=b"\x01\x01\x01\x00")), ethernet(ipv6(*SIX, segment(9), extensions=[(0, bytes(8))]))]
    native, wireshark = both(tmp_path, pcap([Record(5 + n, frame, len(frame)) for n, frame in enumerate(frames)], nanoseconds=True))
    one, other = (next(read_rows([folder])) for folder in (native, wireshark))
    # Options of IP and extension headers are in the native reader's hash alone.
    different = [name for name in one.columns if one.columns[name].tolist() != other.columns[name].tolist()]
    assert different == ["header_hash"]
    assert (one.columns["header_hash"] == other.columns["header_hash"])[:-2].all()
    assert one.columns["sack_count"].max() == 4


@needs_tshark
def test_packets_cut_anywhere_give_the_same_rows(tmp_path: Path) -> None:
    frame = ethernet(ipv4(*FOUR, segment(7, bytes(range(40)), options=b"\x01\x01\x08\x0a\x00\x00\x00\x09\x00\x00\x00\x08")))
    native, wireshark = both(tmp_path, pcap([Record(5, frame[:captured], len(frame)) for captured in range(14, len(frame))]))
    assert read_facts(native)["kept"] == len(frame) - 54
    assert content(native) == content(wireshark)


@needs_tshark
def test_why_packets_have_no_row(tmp_path: Path) -> None:
    good = segment(1)
    frames = {
        "not_ip": bytes(12) + b"\x08\x06" + bytes(28),
        "not_tcp": ethernet(udp(53, b"query")),
        "other_endpoint": ethernet(ipv4("192.0.2.5", "192.0.2.11", good)),
        "fragment": ethernet(ipv4(*FOUR, good, fragment=5)),
        "malformed": ethernet(ipv4(*FOUR, segment(1, words=4))),
    }
    frames["quoted by ICMP"] = ethernet(ipv4(*FOUR[::-1], b"\x03\x01" + bytes(6) + ipv4(*FOUR, good), protocol=1))
    native, wireshark = both(tmp_path, pcap([Record(5, frame, len(frame)) for frame in frames.values()]))
    expected = {"not_ip": 1, "not_tcp": 2, "other_endpoint": 1, "fragment": 1, "malformed": 1}
    assert read_facts(native)["skipped"] == read_facts(wireshark)["skipped"] == expected
    assert read_facts(native)["endpoints"] == read_facts(wireshark)["endpoints"]


@needs_tshark
def test_a_packet_without_a_time_has_no_row(tmp_path: Path) -> None:
    frame = ethernet(ipv4(*FOUR, segment(1)))
    native, wireshark = both(tmp_path, section() + interface() + simple(frame, len(frame)))
    assert read_facts(native)["skipped"] == read_facts(wireshark)["skipped"] == {"no_time": 1}


CISCO_HDLC = 104
"""A link type that Wireshark alone knows."""


def in_hdlc(packet: bytes) -> bytes:
    """A packet as that link type has it."""
    return b"\x0f\x00\x08\x00" + packet


@needs_tshark
def test_an_unknown_link_type_is_left_to_wireshark(tmp_path: Path) -> None:
    frames = [in_hdlc(ipv4(*FOUR, segment(seq))) for seq in range(3)]
    folder = split(tmp_path, pcap([Record(5, frame, len(frame)) for frame in frames], link=CISCO_HDLC), BROKERS)
    facts = read_facts(folder)
    assert facts["kept"] == 3
    assert facts["notices"] == [
        "3 packets of a link type that only Wireshark may know (there are 104)",
        "the capture was read by Wireshark",
    ]
    assert next(read_rows([folder])).columns["seq"].tolist() == [0, 1, 2]


def test_without_wireshark_unknown_link_types_are_counted_and_the_facts_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    frames = [in_hdlc(ipv4(*FOUR, segment(1)))] * 2
    facts = read_facts(split(tmp_path, pcap([Record(5, frame, len(frame)) for frame in frames], link=CISCO_HDLC), BROKERS))
    assert (facts["kept"], facts["skipped"]) == (0, {"unknown_link": 2})
    assert "apt-get install tshark" in facts["notices"][-1]


def test_without_wireshark_its_decoder_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"^tshark, .* was not found.*apt-get install tshark"):
        split(tmp_path, EDGE[0].read_bytes(), decoder="wireshark")
    assert not list((tmp_path / "working").iterdir())


@needs_tshark
@pytest.mark.parametrize("kind", ["plain", "xz", "gzip"])
def test_a_cut_capture_is_used_up_to_the_cut(kind: str, tmp_path: Path) -> None:
    data = EDGE[0].read_bytes()[:100_000]
    native, wireshark = both(tmp_path, COMPRESSIONS[kind](data))
    assert read_facts(wireshark)["truncated"] == read_facts(native)["truncated"] is not None
    assert content(native) == content(wireshark)


@needs_tshark
def test_a_users_profile_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path / "wireshark", tmp_path):
        folder.mkdir(exist_ok=True)
        (folder / "disabled_protos").write_text("tcp\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("WIRESHARK_CONFIG_DIR", str(tmp_path))
    same_files(*both(tmp_path, EDGE[2].read_bytes()))


def fake_tshark(folder: Path, text: str) -> None:
    """A program of that name."""
    (folder / "tshark").write_text(f"#!{sys.executable}\n{text}\n")
    (folder / "tshark").chmod(0o755)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('not what was asked for')", r"tshark printed 'not what was asked for', expected \d+ fields"),
        ("import sys; sys.exit('tshark: no such field')", "tshark ended with 'tshark: no such field'"),
        ("import sys; print('fault', file=sys.stderr); sys.exit(2)", "tshark ended with 'fault'"),
        ("import os; os.write(1, b'1\\t17'); os.kill(os.getpid(), 9)", r"tshark ended with 'no message' \(exit code -9\)"),
    ],
)
def test_a_tshark_that_fails_is_one_clear_error(program: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tshark(tmp_path, program)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=said):
        split(tmp_path, EDGE[0].read_bytes(), decoder="wireshark")


def test_a_tshark_that_fails_leaves_the_native_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tshark(tmp_path, "import sys; sys.exit('tshark: out of order')")
    monkeypatch.setenv("PATH", str(tmp_path))
    known = [Record(5, ethernet(ipv4(*FOUR, segment(1))), 66)]
    other = enhanced(6_000, in_hdlc(ipv4(*FOUR, segment(2))), 60, number=1)
    facts = read_facts(split(tmp_path, pcapng(known) + interface(CISCO_HDLC) + other, BROKERS))
    assert (facts["kept"], facts["skipped"]) == (1, {"unknown_link": 1})
    assert facts["notices"][0] == "1 packet of a link type that only Wireshark may know (there are 1, 104)"
    assert "Wireshark failed: " in facts["notices"][1] and "tshark: out of order" in facts["notices"][1]


@needs_tshark
def test_packets_of_more_than_64_kib_are_read_alike(tmp_path: Path) -> None:
    """As offload hands them over, with a length of 0."""
    frames = [ethernet(ipv4(*FOUR, segment(1, bytes(70_000)), total=0)), ethernet(ipv6(*SIX, segment(1, bytes(70_000)), length=0))]
    native, wireshark = both(tmp_path, pcap([Record(5, frame, len(frame)) for frame in frames]))
    assert next(read_rows([wireshark])).columns["payload_len"].tolist() == [70_000, 70_000]
    same_files(native, wireshark)


@needs_tshark
def test_padding_is_read_alike(tmp_path: Path) -> None:
    bare = ipv4(*FOUR, tcp(50_000, 31_289))
    frames = [ethernet(bare, tags) + bytes(range(1, 1 + padding)) for tags in ([], [0x8100]) for padding in range(20)]
    same_files(*both(tmp_path, pcap([Record(5, frame, len(frame)) for frame in frames])))


@needs_tshark
def test_of_several_blocks_of_sack_the_same_are_read(tmp_path: Path) -> None:
    one, other = (b"\x05\x0a" + struct.pack(">II", edge, edge + 1) for edge in (7, 9))
    two = b"\x05\x12" + struct.pack(">IIII", 1, 2, 3, 4)
    frames = [ethernet(ipv4(*FOUR, segment(1, options=options))) for options in (one + other, one + two)]
    records = [Record(5, frame[:captured], len(frame)) for frame in frames for captured in range(54, len(frame) + 1)]
    same_files(*both(tmp_path, pcap(records)))


@needs_tshark
def test_times_that_no_row_can_hold_are_none(tmp_path: Path) -> None:
    frame = ethernet(ipv4(*FOUR, segment(1)))
    native, wireshark = both(
        tmp_path, section() + interface(resolution=6) + enhanced(2**62, frame, len(frame)) + enhanced(7, frame, len(frame))
    )
    assert read_facts(native)["skipped"] == read_facts(wireshark)["skipped"] == {"no_time": 1}


@needs_tshark
def test_a_capture_that_ends_within_its_first_packet_is_an_empty_one(tmp_path: Path) -> None:
    native, wireshark = both(tmp_path, EDGE[2].read_bytes()[:50])
    assert read_facts(wireshark)["packets"] == read_facts(native)["packets"] == 0
    assert read_facts(wireshark)["truncated"] == read_facts(native)["truncated"] is not None


@needs_tshark
def test_the_same_files_from_compressed_data_that_wireshark_does_not_read(tmp_path: Path) -> None:
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00" + bytes(4)
    same_files(*both(tmp_path, skipped + COMPRESSIONS["zstd"](EDGE[2].read_bytes())))


@needs_tshark
def test_plugins_of_the_users_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = tmp_path / ".local" / "lib" / "wireshark" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "hello.lua").write_text("print('hello')\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    same_files(*both(tmp_path, EDGE[2].read_bytes()))


def test_times_are_read_as_integers() -> None:
    assert wireshark.nanoseconds("1700000000.123456789") == 1_700_000_000_123_456_789
    assert wireshark.nanoseconds("1700000000.5") == 1_700_000_000_500_000_000
    assert wireshark.nanoseconds("") == wireshark.nanoseconds("-1.000000000") == wireshark.nanoseconds("9223372037.000000000") == -1
