"""`verify`: what both decoders make of the same packets, and which differences are explained, by what in the packet."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from capture_files import (
    COMPRESSIONS,
    LINKS,
    TUNNELS,
    UNICAST,
    Record,
    block,
    enhanced,
    erspan,
    ethernet,
    interface,
    ip,
    ipv4,
    ipv6,
    mpls,
    pcap,
    pcapng,
    section,
    tcp,
    udp,
    vxlan,
)
from test_split_capture import EDGE
from test_wireshark import BROKERS, CISCO_HDLC, FOUR, SIX, fake_tshark, in_hdlc, needs_tshark, segment

from brokerlens.capture.errors import CaptureError
from brokerlens.errors import UserError
from brokerlens.wireshark import agreement as subject
from brokerlens.wireshark.differences import read, tabulate, unexplained
from brokerlens.wireshark.packets import Packet
from verify import verify
from verify_capture import verify_capture

ROOT = Path(__file__).parents[2]


def found(folder: Path, data: bytes, size: int | None = None) -> dict[str, Any]:
    """What comes of a capture given by its bytes."""
    (folder / "capture").write_bytes(data)
    return subject.agreement(str(folder / "capture"), BROKERS, size)


def differences(result: dict[str, Any]) -> dict[str, set[str]]:
    """The fields that differ, by what explains it."""
    by_rule: dict[str, set[str]] = {}
    for field, outcome in result["fields"].items():
        for rule in outcome["differences"]:
            by_rule.setdefault(rule, set()).add(field)
    return by_rule


def of_frames(folder: Path, *frames: bytes, link: int = 1, wire: int | None = None) -> dict[str, set[str]]:
    """Differences of a capture of these frames."""
    return differences(found(folder, pcap([Record(5, frame, wire or len(frame)) for frame in frames], link=link)))


EXPLAINED: dict[str, tuple[bytes, dict[str, set[str]]]] = {
    "IPv4 length 0 with padding": (ethernet(ipv4(*FOUR, tcp(50_000, 31_289), total=0), padding=6), {"ipv4_length_0": {"header_hash"}}),
    "IPv4 length 0 without padding": (ethernet(ipv4(*FOUR, segment(1), total=0)), {"ipv4_length_0": {"header_hash"}}),
    "IPv6 length 0": (ethernet(ipv6(*SIX, segment(1), length=0)), {"ipv6_length_0": {"row"}}),
    "first fragment": (ethernet(ipv4(*FOUR, segment(1), fragment=0x2000)), {}),
    "first fragment of IPv6": (
        ethernet(ipv6(*SIX, segment(1), extensions=[(44, b"\x00\x00\x00\x01\x00\x00\x00\x09")])),
        {"ip_options": {"header_hash"}},
    ),
    "later fragment": (ethernet(ipv4(*FOUR, segment(1), fragment=9)), {}),
    "data offset below 5": (ethernet(ipv4(*FOUR, segment(1, words=4))), {}),
    "data offset beyond the segment": (ethernet(ipv4(*FOUR, segment(1, words=15))), {}),
    "IP length shorter than the headers": (ethernet(ipv4(*FOUR, segment(1), total=30)), {}),
    "IP length longer than the frame": (ethernet(ipv4(*FOUR, segment(1), total=900)), {"ip_beyond_frame": {"payload_len"}}),
    "ICMP error that quotes a segment": (ethernet(ipv4(*FOUR[::-1], b"\x03\x01" + bytes(6) + ipv4(*FOUR, segment(1)), protocol=1)), {}),
    "Ethernet in MPLS without a control word": (
        UNICAST + b"\x88\x47" + mpls(ethernet(ipv4(*FOUR, segment(1)))),
        {"ethernet_in_mpls": {"row"}},
    ),
    "VXLAN on Linux's port": (ethernet(vxlan(ipv4(*FOUR, segment(1)), 8472)), {}),
    "IP in ERSPAN": (ethernet(erspan(ipv4(*FOUR, segment(1)), 3, 2)), {"ip_in_erspan": {"row"}}),
    "IP options": (ethernet(ipv4(*FOUR, segment(1), options=b"\x01\x01\x01\x00")), {"ip_options": {"header_hash"}}),
    "IPv6 hop-by-hop": (ethernet(ipv6(*SIX, segment(1), extensions=[(0, bytes(8))])), {"ip_options": {"header_hash"}}),
}


@needs_tshark
@pytest.mark.parametrize("packet", EXPLAINED)
def test_each_known_difference_is_explained_and_nothing_else_differs(packet: str, tmp_path: Path) -> None:
    frame, explained = EXPLAINED[packet]
    assert of_frames(tmp_path, frame) == explained


@needs_tshark
def test_every_rule_explains_one_of_these_packets_and_no_ordinary_one(tmp_path: Path) -> None:
    rules = set().union(*(explained for _, explained in EXPLAINED.values())) | {"unknown_link"}
    assert rules == {rule.name for rule in subject.RULES}
    ordinary = Packet(1, 5, 60, 60, ["eth", "ip", "tcp"], {"ip.hdr_len": "20", "ip.len": "60", "tcp.len": "8"})
    row = subject.Decoded({"options": "0"}, -1)
    assert [rule.name for rule in subject.RULES if rule.matches(ordinary, row, row)] == []


@needs_tshark
def test_an_unknown_link_type_is_explained(tmp_path: Path) -> None:
    assert of_frames(tmp_path, in_hdlc(ipv4(*FOUR, segment(1))), link=CISCO_HDLC) == {"unknown_link": {"row"}}


@needs_tshark
def test_a_tunnel_that_only_wireshark_opens_is_not_explained(tmp_path: Path) -> None:
    inner = ipv4(*FOUR, segment(1))
    assert of_frames(tmp_path, ethernet(udp(2152, struct.pack(">BBHI", 0x30, 255, len(inner), 7) + inner))) == {"differs": {"row"}}


@needs_tshark
@pytest.mark.parametrize("link", sorted({link for link, _ in LINKS.values()}))
def test_link_layers_and_tunnels_agree(link: int, tmp_path: Path) -> None:
    wraps: list[Callable[[bytes], bytes]] = [wrap for of, wrap in LINKS.values() if of == link]
    around: list[Callable[[bytes], bytes]] = list(TUNNELS.values()) if link == 1 else []
    frames = [wrap(ip(*ends, segment(5))) for wrap in wraps for ends in (FOUR, SIX)]
    frames += [ethernet(tunnel(ip(*ends, segment(5)))) for tunnel in around for ends in (FOUR, SIX)]
    assert "differs" not in of_frames(tmp_path, *frames, link=link)


@needs_tshark
def test_packets_cut_anywhere_agree(tmp_path: Path) -> None:
    frame = ethernet(ipv4(*FOUR, segment(7, bytes(range(40)), options=b"\x01\x01\x08\x0a\x00\x00\x00\x09\x00\x00\x00\x08")))
    assert differences(found(tmp_path, pcap([Record(5, frame[:captured], len(frame)) for captured in range(len(frame))]))) == {}


@needs_tshark
@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_a_sample_from_every_compression(kind: str, tmp_path: Path) -> None:
    result = found(tmp_path, COMPRESSIONS[kind](EDGE[2].read_bytes()), 40)
    assert (result["compared"], differences(result)) == (40, {})


@needs_tshark
def test_a_sample_of_a_capture_with_secrets_which_no_tool_can_cut(tmp_path: Path) -> None:
    secrets = block(10, struct.pack("<II", 0x544C534B, 4) + b"# no")
    packets = [ethernet(ipv4(*FOUR, segment(number))) for number in range(50)]
    blocks = [enhanced(5, packet, len(packet)) for packet in packets]
    result = found(tmp_path, section() + secrets + interface(resolution=9) + b"".join(blocks), 20)
    assert (result["packets"], result["compared"], result["rows"], differences(result)) == (50, 20, 20, {})


@needs_tshark
def test_records_that_are_no_packets_shift_nothing(tmp_path: Path) -> None:
    """Wireshark numbers pcapng's custom blocks like packets."""
    data = pcapng([Record(5, frame, len(frame)) for frame in [ethernet(ipv4(*FOUR, segment(number))) for number in range(50)]])
    for size in (20, None):
        result = found(tmp_path, data, size)
        assert (result["packets"], result["compared"], differences(result)) == (50, size or 50, {})


@needs_tshark
def test_a_capture_cut_short_agrees_up_to_the_cut(tmp_path: Path) -> None:
    result = found(tmp_path, EDGE[2].read_bytes()[:50_001])
    assert result["compared"] == result["packets"] > 100
    assert differences(result) == {}


@needs_tshark
def test_a_capture_without_packets(tmp_path: Path) -> None:
    assert found(tmp_path, pcap([]))["compared"] == 0


@needs_tshark
@pytest.mark.parametrize("wrong", ["seq", "timestamp", "ttl", "payload_len", "header_hash"])
def test_a_wrong_reader_is_found_out(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = subject.Native.decode

    def wrongly(self: subject.Native, chunk: Any, place: int) -> subject.Decoded:
        right = decode(self, chunk, place)
        return right._replace(fields={**right.fields, wrong: str(int(right.fields[wrong]) + 1)}) if right.skipped < 0 else right

    monkeypatch.setattr(subject.Native, "decode", wrongly)
    assert differences(found(tmp_path, EDGE[2].read_bytes(), 20)) == {"differs": {wrong}}


@needs_tshark
def test_the_shipped_captures_agree_in_every_field_of_every_packet() -> None:
    public = sorted((ROOT / "tests" / "data" / "public").glob("*.pcap"))
    assert len(public) > 3
    for path in [*public, EDGE[0]]:
        result = subject.agreement(str(path), [*BROKERS, "127.0.0.1:9092"], None)
        assert (result["compared"], differences(result)) == (result["packets"], {}), path


@pytest.mark.parametrize(
    ("count", "size"), [(1, 1), (10, 1), (10, 2), (10, 3), (1000, 100), (100_000, 5_000), (1_000_000, 400_000), (9, 8)]
)
def test_a_sample_has_its_size_both_ends_and_few_ranges(count: int, size: int) -> None:
    ranges = subject.sample(count, size)
    numbers = [number for first, last in ranges for number in range(first, last + 1)]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1 and numbers[-1] <= count and (size == 1 or numbers[-1] == count)
    assert len(ranges) <= 512  # what editcap takes
    assert size <= len(numbers) <= size * 1.05 + 1
    assert ranges == subject.sample(count, size)


def test_all_packets_are_one_range() -> None:
    assert subject.sample(70, None) == subject.sample(70, 70) == subject.sample(70, 1000) == [(1, 70)]
    assert subject.sample(0, None) == []


def test_without_wireshark_one_clear_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"^tshark, .* was not found.*apt-get install tshark"):
        found(tmp_path, EDGE[0].read_bytes())


@needs_tshark
def test_what_is_no_capture_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="found no capture"):
        found(tmp_path, b"no capture at all, but long enough")


def test_an_editcap_that_fails_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tshark(tmp_path, "")
    shutil.copy(tmp_path / "tshark", tmp_path / "editcap")
    (tmp_path / "editcap").write_text((tmp_path / "tshark").read_text() + "import sys; sys.exit('editcap: no space left')")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="editcap ended with 'editcap: no space left'"):
        found(tmp_path, EDGE[0].read_bytes(), 5)


@needs_tshark
def test_the_table_has_agreements_explanations_and_what_is_left(tmp_path: Path) -> None:
    inner = ipv4(*FOUR, segment(1))
    captures = {
        "good.pcap": [ethernet(inner)] * 3,
        "odd.pcap": [
            ethernet(ipv6(*SIX, segment(1), length=0)),
            ethernet(udp(2152, struct.pack(">BBHI", 0x30, 255, len(inner), 7) + inner)),
        ],
    }
    for name, frames in captures.items():
        (tmp_path / name).write_bytes(pcap([Record(5, frame, len(frame)) for frame in frames]))
        verify_capture(capture=str(tmp_path / name), brokers=BROKERS, sample=None, output=str(tmp_path / f"{name}.json"))
    assert json.loads((tmp_path / "odd.pcap.json").read_text())["compared"] == 2
    table = tabulate([str(tmp_path / f"{name}.json") for name in captures], [["run1", "edge"], ["run1", "edge"]])
    rows = [row for row in read(table) if row["field"] == "row"]
    assert [(row["outcome"], row["packets"], row["compared"]) for row in rows] == [
        ("agrees", "3", "5"),
        ("differs", "1", "5"),
        ("ipv6_length_0", "1", "5"),
    ]
    assert rows[1]["examples"] == f"{tmp_path}/odd.pcap, frame 2: native no row (not_tcp), Wireshark a row"
    assert "whose length is 0" in rows[2]["explanation"]

    (tmp_path / "differences.csv").write_text(table)
    with pytest.raises(UserError, match=r"found 1 differences .* in row; expected none. For example .*odd.pcap, frame 2"):
        verify(differences=str(tmp_path / "differences.csv"))
    (tmp_path / "differences.csv").write_text("\n".join(line for line in table.splitlines() if ",differs," not in line))
    verify(differences=str(tmp_path / "differences.csv"))
    assert unexplained(read(table)) == [rows[1]]


def test_the_page_names_every_rule() -> None:
    page = (ROOT / "docs" / "verify.md").read_text()
    assert [rule.name for rule in subject.RULES if f"| `{rule.name}` |" not in page] == []
