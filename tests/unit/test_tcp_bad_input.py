"""Packets that lie, are cut, or come in another order, in a capture: counted, never misread, and what is beside them stays right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from capture_files import Record, ethernet, ipv4, pcap, tcp
from sites import Site, run_site

CLIENT, BROKER = ("192.0.2.5", 50_000), ("192.0.2.10", 9092)
EPOCH, MS = 1_766_000_000 * 10**9, 10**6
C0, B0 = 1001, 5001
FIN, SYN, RST, ACK = 1, 2, 4, 16
STAMPS = bytes.fromhex("0101080a0000000700000008")


class Sent(NamedTuple):
    """A packet of the conversation; ``captured`` bytes of its frame."""

    ms: float
    from_broker: bool
    seq: int
    ack: int
    flags: int = ACK
    payload: bytes = b""
    options: bytes = b""
    captured: int = 1 << 20
    fragment: int = 0
    words: int | None = None


GOOD = [
    Sent(0, False, C0 - 1, 0, SYN, options=bytes.fromhex("020405b4")),
    Sent(40, True, B0 - 1, C0, SYN | ACK, options=bytes.fromhex("020405b4")),
    Sent(40.1, False, C0, B0),
    *[Sent(100 + 50 * k, False, C0 + 100 * k, B0 + 100 * k, payload=bytes(100)) for k in range(4)],
    *[Sent(141 + 50 * k, True, B0 + 100 * k, C0 + 100 * (k + 1), payload=bytes(100)) for k in range(4)],
    Sent(292, False, C0 + 400, B0 + 400),
]


def frame(sent: Sent) -> Record:
    (source, source_port), (target, target_port) = (BROKER, CLIENT) if sent.from_broker else (CLIENT, BROKER)
    segment = tcp(
        source_port, target_port, sent.payload, seq=sent.seq % 2**32, ack=sent.ack % 2**32, flags=sent.flags, options=sent.options, words=sent.words
    )  # fmt: skip
    data = ethernet(ipv4(source, target, segment, fragment=sent.fragment))
    return Record(EPOCH + int(sent.ms * MS), data[: sent.captured], len(data))


def site_of(packets: list[Sent], folder: Path) -> tuple[Site, dict[str, int]]:
    """The data sets, and why packets were skipped; the file has the packets in the order given."""
    folder.mkdir(exist_ok=True)
    capture = folder / "bad.pcap"
    capture.write_bytes(pcap([frame(sent) for sent in packets], nanoseconds=True))
    found = run_site([capture], [f"{BROKER[0]}:{BROKER[1]}"], folder)
    return found, json.loads((folder / "captures" / "bad.pcap" / "facts.json").read_text())["skipped"]


def in_order(*more: Sent) -> list[Sent]:
    return sorted([*GOOD, *more], key=lambda sent: sent.ms)


def trips(site: Site) -> list[float]:
    return site.packets["rtt_ms"].drop_nulls().to_list()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return site_of(in_order(), tmp_path_factory.mktemp("good"))[0]


TOO_SHORT = Sent(120, False, C0 + 3000, B0, captured=40)
LATER_FRAGMENT = Sent(120, False, C0 + 3000, B0, payload=bytes(64), fragment=8)
FALSE_HEADER = Sent(120, False, C0 + 3000, B0, payload=bytes(100), words=2)


@pytest.mark.parametrize(
    "bad", [TOO_SHORT, LATER_FRAGMENT, FALSE_HEADER], ids=["headers cut", "later fragment", "impossible header length"]
)
def test_what_has_no_usable_header_is_counted_and_nothing_else_changes(bad: Sent, good: Site, tmp_path: Path) -> None:
    found, skipped = site_of(in_order(bad), tmp_path)
    assert sum(skipped.values()) == 1
    assert found.packets.drop("frame_number").equals(good.packets.drop("frame_number"))
    assert found.connections.equals(good.connections)


@pytest.mark.parametrize("length", [0, 1, 40, 255])
def test_options_that_lie_about_their_length_are_unknown_and_not_absent(length: int, good: Site, tmp_path: Path) -> None:
    """A timestamp option of another length: no timestamps, no selective acknowledgements, everything else as before."""
    lying = [sent._replace(options=b"\x01\x01\x08" + bytes([length]) + STAMPS[4:]) if sent.payload else sent for sent in in_order()]
    found, _ = site_of(lying, tmp_path)
    assert found.packets["tsval"].null_count() == found.packets.height
    assert trips(found) == trips(good)
    assert found.packets["segment"].cast(pl.String).to_list() == good.packets["segment"].cast(pl.String).to_list()


def test_a_window_scale_that_was_cut_off_leaves_windows_unknown(tmp_path: Path) -> None:
    cut = [sent._replace(captured=54) if sent.flags & SYN else sent for sent in in_order()]
    found, _ = site_of(cut, tmp_path)
    later = found.packets.filter(pl.col("tcp_flags") & SYN == 0)
    assert later["window_bytes"].null_count() == later.height


def test_a_spoofed_reset_resets_nothing(good: Site, tmp_path: Path) -> None:
    found, _ = site_of(in_order(Sent(120, True, B0 + 2**31, 0, RST), Sent(121, False, C0 - 2**30, 0, RST)), tmp_path)
    row = found.connections.row(0, named=True)
    assert (row["ended"], row["reset_by"], row["reset_kind"]) == ("open", None, None)
    assert (row["invalid_resets_to_broker"], row["invalid_resets_from_broker"]) == (1, 1)
    assert trips(found) == trips(good)


@pytest.mark.parametrize(
    "order", [lambda packets: packets[::-1], lambda packets: packets[1::2] + packets[::2]], ids=["reversed", "two queues"]
)
def test_time_that_runs_backwards_in_a_file_changes_no_row(order: Callable[[list[Sent]], list[Sent]], good: Site, tmp_path: Path) -> None:
    found, _ = site_of(order(in_order()), tmp_path)
    assert found.packets.drop("frame_number").equals(good.packets.drop("frame_number"))
    assert found.connections.equals(good.connections)
    facts = json.loads((tmp_path / "captures" / "bad.pcap" / "facts.json").read_text())
    assert facts["time_backsteps"] > 0


def test_a_first_fragment_is_a_packet_without_a_place_in_the_stream(tmp_path: Path) -> None:
    """Where its payload ends another fragment tells, and that is not TCP: nothing is said of its bytes, and no hole is made of them."""
    found, _ = site_of(in_order(Sent(295, False, C0 + 400, B0 + 400, payload=bytes(64), fragment=0x2000)), tmp_path)
    assert found.packets["segment"].cast(pl.String).to_list()[-1] is None
    assert found.connections["unfilled_bytes_to_broker"].to_list() == [0]


def test_bytes_that_came_in_fragments_are_not_lost_by_the_capture(good: Site, tmp_path: Path) -> None:
    """The second of four segments came in two fragments."""
    second = next(sent for sent in GOOD if sent.seq == C0 + 100)
    first, rest = second._replace(payload=bytes(64), fragment=0x2000), second._replace(payload=bytes(16), fragment=11)
    found, skipped = site_of(sorted([*(sent for sent in GOOD if sent != second), first, rest], key=lambda sent: sent.ms), tmp_path)
    assert skipped["fragment"] == 1
    assert found.connections["unseen_bytes_to_broker"].to_list() == [0]
    assert found.connections["acked_bytes_to_broker"].to_list() == good.connections["acked_bytes_to_broker"].to_list()
    assert found.connections["retransmitted_segments_to_broker"].to_list() == [0]
