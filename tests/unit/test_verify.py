"""`verify`: what both decoders make of the same packets, and which differences are explained, by what in the packet."""

from __future__ import annotations

import json
import os
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
    tunnelled,
    udp,
    vxlan,
)
from test_split_capture import EDGE
from test_wireshark import BROKERS, CISCO_HDLC, FOUR, SIX, fake_tshark, in_hdlc, needs_tshark, segment

from brokerlens.capture.errors import CaptureError
from brokerlens.capture.layers import SKIPPED
from brokerlens.errors import UserError
from brokerlens.wireshark import agreement as subject
from brokerlens.wireshark.differences import read, tabulate, unexplained
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
    "IPv4 length 0 with padding": (ethernet(ipv4(*FOUR, tcp(50_000, 31_289), total=0), padding=6), {"ip_length_0": {"header_hash"}}),
    "IPv4 length 0 without padding": (ethernet(ipv4(*FOUR, segment(1), total=0)), {"ip_length_0": {"header_hash"}}),
    "IPv6 length 0": (ethernet(ipv6(*SIX, segment(1), length=0)), {"ip_length_0": {"header_hash"}}),
    "IPv6 length 0 with an extension header": (
        ethernet(ipv6(*SIX, segment(1), extensions=[(0, bytes(8))], length=0)),
        {"ipv6_length_0": {"row"}},
    ),
    "IPv4 of more than its length can say": (ethernet(ipv4(*FOUR, segment(1, bytes(70_000)), total=0)), {}),
    "IPv6 of more than its length can say": (ethernet(ipv6(*SIX, segment(1, bytes(70_000)), length=0)), {}),
    "first fragment": (ethernet(ipv4(*FOUR, segment(1), fragment=0x2000)), {}),
    "first fragment of IPv6": (
        ethernet(ipv6(*SIX, segment(1), extensions=[(44, b"\x00\x00\x00\x01\x00\x00\x00\x09")])),
        {"ip_options": {"header_hash"}},
    ),
    "first fragment of IPv6 with a tunnel": (
        ethernet(tunnelled(ipv6(*SIX, segment(1)), 41, six=True, extensions=[(44, b"\x00\x00\x00\x01\x00\x00\x00\x09")])),
        {},
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
    "Ethernet in MPLS that looks like IPv4": (
        UNICAST + b"\x88\x47" + mpls(b"\x4c" + ethernet(ipv4(*FOUR, segment(1)))[1:]),
        {"ethernet_in_mpls": {"row"}},
    ),
    "Ethernet in MPLS that looks like IPv6": (
        UNICAST + b"\x88\x47" + mpls(b"\x6c" + ethernet(ipv4(*FOUR, segment(1)))[1:]),
        {"ethernet_in_mpls": {"row"}},
    ),
    "padding of an inner frame": (ethernet(vxlan(ipv4(*FOUR, tcp(50_000, 31_289)))), {"padding": {"padded_len"}}),
    "reset with data": (
        ethernet(ipv4(*FOUR, tcp(50_000, 31_289, b"no such topic here", flags=0x14))),
        {"reset_with_data": {"payload_captured", "padded_len", "notebook_id", "payload"}},
    ),
    "malformed option": (
        ethernet(ipv4(*FOUR, segment(1, options=b"\x05\x02\x02\x04\x00\x09"))),
        {"malformed": {"options", "mss", "payload_captured", "padded_len", "payload"}},
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
    rules = set[str]().union(*(explained for _, explained in EXPLAINED.values())) | {"unknown_link"}
    assert rules == {rule.name for rule in subject.RULES}
    assert of_frames(tmp_path, *(ethernet(ip(*ends, segment(1))) for ends in (FOUR, SIX))) == {}


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


Spoil = Callable[[subject.Decoded], subject.Decoded]


@pytest.fixture
def wrongly(monkeypatch: pytest.MonkeyPatch) -> Callable[[Spoil], None]:
    """Lets the native reader give other rows than it does."""
    decode = subject.Native.decode

    def spoil(how: Spoil) -> None:
        def other(self: subject.Native, chunk: Any, place: int) -> subject.Decoded:
            right = decode(self, chunk, place)
            return how(right) if right.skipped < 0 else right

        monkeypatch.setattr(subject.Native, "decode", other)

    return spoil


def off_by_one(row: subject.Decoded, field: str) -> subject.Decoded:
    """The row with one wrong value."""
    value = row.fields[field]
    return row._replace(fields={**row.fields, field: str(int(value) + 1) if value.lstrip("-").isdigit() else f"not {value}"})


@needs_tshark
def test_a_reader_that_is_wrong_in_any_field_is_found_out(tmp_path: Path, wrongly: Callable[[Spoil], None]) -> None:
    fields = [field for field in subject.COMPARED if field != "row"] * 3
    wrongly(lambda row: off_by_one(row, fields.pop()) if fields else row)
    result = found(tmp_path, EDGE[2].read_bytes(), 200)
    assert differences(result) == {"differs": set(subject.COMPARED) - {"row"}}
    assert {outcome["differences"].get("differs", {}).get("count") for name, outcome in result["fields"].items() if name != "row"} == {3}


@needs_tshark
@pytest.mark.parametrize("why", range(len(SKIPPED)))
def test_a_reader_that_misses_packets_is_found_out(why: int, tmp_path: Path, wrongly: Callable[[Spoil], None]) -> None:
    wrongly(lambda row: subject.Decoded({field: row.fields[field] for field in subject.FRAME}, why))
    assert differences(found(tmp_path, EDGE[2].read_bytes(), 20)) == {"differs": {"row"}}


@needs_tshark
@pytest.mark.parametrize(
    ("packet", "field"),
    [
        ("IPv4 length 0 without padding", "header_hash"),
        ("IPv6 length 0", "header_hash"),
        ("IP length longer than the frame", "payload_len"),
    ],
)
def test_what_explains_a_difference_does_not_explain_another_value(
    packet: str, field: str, tmp_path: Path, wrongly: Callable[[Spoil], None]
) -> None:
    wrongly(lambda row: off_by_one(row, field))
    assert of_frames(tmp_path, EXPLAINED[packet][0]) == {"differs": {field}}


@needs_tshark
@pytest.mark.parametrize("padding", [0, 1, 2, 3, 4, 5, 6, 8, 10, 18, 46])
def test_padding_agrees_even_where_tshark_takes_some_for_a_checksum(padding: int, tmp_path: Path) -> None:
    bare, known, random = ipv4(*FOUR, tcp(50_000, 31_289)), ipv4(*FOUR, segment(1, bytes(200))), bytes(range(77, 77 + padding))
    tagged: list[list[int]] = [[], [0x8100], [0x88A8, 0x8100]]
    assert (
        of_frames(
            tmp_path, *(ethernet(packet, tags) + end for packet in (bare, known) for tags in tagged for end in (bytes(padding), random))
        )
        == {}
    )
    for kind in ("cooked", "cooked 2"):
        link, wrap = LINKS[kind]
        assert of_frames(tmp_path, wrap(bare) + random, link=link) == {}


@needs_tshark
def test_padding_that_tshark_does_not_show_is_explained_up_to_what_there_is(tmp_path: Path, wrongly: Callable[[Spoil], None]) -> None:
    frame = ipv4(*FOUR, tcp(50_000, 31_289)) + bytes(6)
    assert of_frames(tmp_path, frame, link=101) == {"padding": {"padded_len"}}
    wrongly(lambda row: off_by_one(row, "padded_len"))
    assert of_frames(tmp_path, frame, link=101) == {"differs": {"padded_len"}}


@needs_tshark
def test_sections_with_interfaces_of_their_own_which_no_tool_can_cut(tmp_path: Path) -> None:
    frame, cooked = ethernet(ipv4(*FOUR, segment(1))), LINKS["cooked"][1](ipv4(*FOUR, segment(2)))
    sections = section() + interface() + enhanced(5, frame, len(frame)), section() + interface(113) + enhanced(6, cooked, len(cooked))
    result = found(tmp_path, b"".join(sections) * 20, 20)
    assert (result["packets"], result["compared"], result["rows"], differences(result)) == (40, 20, 20, {})


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


def test_an_editcap_that_fails_leaves_the_sample_to_tshark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tshark(tmp_path, "import sys; open(sys.argv[3], 'w').write('half'); sys.exit('editcap: no space left')")
    (tmp_path / "tshark").rename(tmp_path / "editcap")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    result = found(tmp_path, EDGE[0].read_bytes(), 5)
    assert (result["compared"], differences(result)) == (5, {})


@needs_tshark
def test_the_table_has_agreements_explanations_and_what_is_left(tmp_path: Path) -> None:
    inner = ipv4(*FOUR, segment(1))
    captures = {
        "good.pcap": [ethernet(inner)] * 3,
        "odd.pcap": [
            ethernet(ipv6(*SIX, segment(1), extensions=[(0, bytes(8))], length=0)),
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
