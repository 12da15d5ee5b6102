"""From a figure to its packets: which cases are chosen, where their packets stand, and the excerpts, opened by tshark."""

from __future__ import annotations

import gzip
import itertools
import random
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from capture_files import Record, enhanced, ethernet, interface, ip, pcap, section, tcp
from sites import BROKERS, read_pcap, run_site, shipped, write_pcap

from brokerlens.capture.reader import Capture
from brokerlens.cases import pcapng as writing
from brokerlens.cases.choosing import _slowest, _worst_stretch, display_filter, nearest, read_cases
from brokerlens.cases.copying import copy_packets
from brokerlens.cases.words import LONGEST_NAME, inert, sentence
from brokerlens.errors import UserError
from brokerlens.metrics.window import Window
from choose_cases import choose_cases
from list_excerpts import list_excerpts
from write_excerpts import captures_of, write_excerpts

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
SECOND = 10**9
NOON = 1_766_750_400 * SECOND
CLIENT, BROKER, PORT = "2001:db8::5", "2001:db8::10", 9092
SYN, RST, ACK = 2, 4, 16
ABOUT_CAPTURES = {"first_capture", "first_frame", "last_capture", "last_frame", "captures", "filters"}


def tshark(capture: Path, *arguments: str) -> list[list[str]]:
    """Fields of the packets, which ``arguments`` name."""
    command = ["tshark", "-n", "-r", str(capture), *arguments]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split("\t") for line in said.splitlines()]


def shown(capture: Path, filter_: str = "frame") -> list[tuple[str, str]]:
    """Time and TCP stream's bytes of the packets that a display filter shows."""
    fields = tshark(
        capture, "-Y", filter_, "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "tcp.seq_raw", "-e", "tcp.payload"
    )
    return [(line[0], "|".join(line[1:])) for line in fields]


def cases_of(
    captures: Sequence[Path], brokers: Sequence[str], folder: Path, window: tuple[int | None, int | None] = (None, None)
) -> list[dict[str, Any]]:
    """The cases of a site, all stages behind it run."""
    run_site(captures, brokers, folder)
    parts = {name: [str(folder / name / "part-0000.parquet")] for name in ("packets", "requests", "connections")}
    choose_cases(**parts, window={"start": window[0], "end": window[1]}, cases=folder / "cases.parquet")
    return read_cases(folder / "cases.parquet")


def excerpts_of(captures: Sequence[Path], folder: Path) -> Path:
    """The excerpts of a site whose cases stand in the folder."""
    target = folder / "excerpts" / "run1" / "edge"
    write_excerpts(
        cases=str(folder / "cases.parquet"),
        packets=[str(folder / "packets" / "part-0000.parquet")],
        captures={capture.name: str(capture) for capture in captures},
        site="run1/edge",
        folder=target,
    )
    return target


def segment(time: int, *, from_broker: bool = False, client_port: int = 50_000, payload: bytes = b"", **fields: Any) -> Record:
    """A packet between client and broker, ``time`` ns after noon."""
    ends, ports = (CLIENT, BROKER), (client_port, PORT)
    if from_broker:
        ends, ports = ends[::-1], ports[::-1]
    data = ethernet(ip(*ends, tcp(*ports, payload, **fields)))
    return Record(NOON + time, data, len(data))


def conversation(client_port: int = 50_000, start: int = 0) -> list[Record]:
    """A connection over IPv6 that loses a segment, sends it again after 300 ms, and is reset 3 s later."""
    return [
        segment(start, client_port=client_port, seq=100, flags=SYN),
        segment(start + 10_000_001, client_port=client_port, from_broker=True, seq=700, ack=101, flags=SYN | ACK),
        segment(start + 10_100_002, client_port=client_port, seq=101, ack=701, flags=ACK),
        segment(start + 20_000_003, client_port=client_port, seq=101, ack=701, flags=ACK, payload=b"x" * 400),
        segment(start + 320_000_004, client_port=client_port, seq=101, ack=701, flags=ACK, payload=b"x" * 400),
        segment(start + 330_000_005, client_port=client_port, from_broker=True, seq=701, ack=501, flags=ACK),
        segment(start + 3_330_000_006, client_port=client_port, seq=501, ack=701, flags=RST | ACK),
    ]


def nanosecond_pcapng(records: Sequence[Record]) -> bytes:
    """A pcapng file with packets alone."""
    return section() + interface(resolution=9) + b"".join(enhanced(record.time, record.data, record.wire) for record in records)


@pytest.fixture
def rotated(tmp_path: Path) -> list[Path]:
    """Two connections at the same time in two captures of different formats, cut between a segment and its repetition."""
    records = sorted(conversation() + conversation(50_001, 1_000_000), key=lambda record: record.time)
    first, second = tmp_path / "a.pcap.gz", tmp_path / "b, [1] {x}.pcapng"
    first.write_bytes(gzip.compress(pcap(records[:8], nanoseconds=True), mtime=0))
    second.write_bytes(nanosecond_pcapng(records[8:]))
    return [first, second]


# Which cases


def test_a_loss_and_a_reset_over_ipv6(rotated: list[Path], tmp_path: Path) -> None:
    rows = cases_of(rotated, [f"[{BROKER}]:{PORT}"], tmp_path)
    assert [row["case"] for row in rows] == ["reset-1", "reset-2", "loss-1", "loss-2"]
    loss, reset = rows[2], rows[0]
    assert (loss["lost_segments"], loss["lost_bytes"], loss["first_time"]) == (1, 400, NOON + 320_000_004)
    assert loss["connection_id"] == f"[{CLIENT}]:50000-[{BROKER}]:{PORT}#1"
    assert (reset["reset_kind"], reset["from_broker"]) == ("abort", False)
    # All six packets of the connection within a second of 320 ms, four before the cut (of eight packets, every second one) and two behind it.
    assert loss["packets"] == 6
    assert loss["captures"] == ["a.pcap.gz", "b, [1] {x}.pcapng"]
    assert (loss["first_capture"], loss["first_frame"]) == ("b, [1] {x}.pcapng", 1)
    assert loss["filters"] == [
        f"ipv6.addr == {CLIENT} && ipv6.addr == {BROKER} && tcp.port == 50000 && tcp.port == {PORT} && {frames}"
        for frames in ("frame.number >= 1 && frame.number <= 7", "frame.number >= 1 && frame.number <= 3")
    ]


def test_what_is_outside_the_window_is_no_case(rotated: list[Path], tmp_path: Path) -> None:
    rows = cases_of(rotated, [f"[{BROKER}]:{PORT}"], tmp_path, (NOON, NOON + SECOND))
    assert [row["case"] for row in rows] == ["loss-1", "loss-2"]
    assert cases_of(rotated, [f"[{BROKER}]:{PORT}"], tmp_path / "none", (NOON + 60 * SECOND, None)) == []


def test_the_slowest_requests_of_the_example(tmp_path: Path) -> None:
    """Against the requests themselves, in plain Python."""
    captures = shipped("experiment08", "edge")
    requests = run_site(captures, BROKERS["edge"], tmp_path / "again").requests
    rows = [row for row in cases_of(captures, BROKERS["edge"], tmp_path) if row["kind"] == "request"]
    slowest = sorted(
        (
            row
            for row in requests.to_dicts()
            if row["latency_ms"] is not None and row["status"] == "answered" and not row["waits_by_design"]
        ),
        key=lambda row: -row["latency_ms"],
    )[:5]
    assert [row["latency_ms"] for row in rows] == [row["latency_ms"] for row in slowest]
    assert [row["correlation_id"] for row in rows] == [row["correlation_id"] for row in slowest]


def test_however_captures_were_cut_cases_and_excerpts_are_the_same(tmp_path: Path) -> None:
    captures = shipped("experiment08", "edge")
    expected = cases_of(captures, BROKERS["edge"], tmp_path)
    files = [read_pcap(capture) for capture in captures]
    records = [record for _, some in files for record in some]
    chance = random.Random(11)
    cuts = [0, *sorted(chance.sample(range(1, len(records)), 12)), len(records)]
    pieces = [
        write_pcap(tmp_path / f"{chance.random()}-{n}.pcap", files[0][0], records[a:b]) for n, (a, b) in enumerate(itertools.pairwise(cuts))
    ]
    found = cases_of(pieces, BROKERS["edge"], tmp_path / "cut")
    assert [{name: row[name] for name in row.keys() - ABOUT_CAPTURES} for row in found] == [
        {name: row[name] for name in row.keys() - ABOUT_CAPTURES} for row in expected
    ]
    whole, cut = excerpts_of(captures, tmp_path), excerpts_of(pieces, tmp_path / "cut")
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(f"{row['case']}.pcapng" for row in expected)
    assert [(whole / name).read_bytes() for name in names] == [(cut / name).read_bytes() for name in names]


def test_an_answer_that_ends_before_its_request_began_is_a_case_all_the_same(tmp_path: Path) -> None:
    """The capture's clock was set back inside of the answer."""
    times = {"request_first": 3_000_000_000, "response_first": 3_900_000_000, "response_last": 2_900_000_000}
    columns = {name: pl.Series([time]).cast(pl.Datetime("ns", "UTC")) for name, time in times.items()}
    said = {"connection_id": "c", "api_name": "Produce", "client_id": "x", "api_version": 9, "correlation_id": 1, "latency_ms": 900.0}
    path = tmp_path / "requests.parquet"
    pl.DataFrame(
        {**columns, **{name: [value] for name, value in said.items()}, "status": ["answered"], "waits_by_design": [False]}
    ).write_parquet(path)
    (case,) = _slowest([path], Window())
    assert (case.first, case.last) == (3_000_000_000, 3_900_000_000)


def test_the_worst_second_of_a_loss() -> None:
    times = np.array([0, SECOND // 2, 4 * SECOND, 5 * SECOND, 5 * SECOND + 1, 9 * SECOND])
    assert _worst_stretch(times, np.array([100, 100, 100, 150, 40, 100])) == (
        4 * SECOND,
        5 * SECOND,
        {"worst_segments": 2, "worst_bytes": 250},
    )
    # A SYN carries nothing: then by segments; of equal stretches the first.
    assert _worst_stretch(times, np.zeros(6, np.int64))[2] == {"worst_segments": 2, "worst_bytes": 0}
    assert _worst_stretch(times, np.zeros(6, np.int64))[:2] == (0, SECOND // 2)


def test_a_busy_case_keeps_the_packets_nearest_to_its_ends() -> None:
    times = [0, 10, 20, 30, 40, 50]
    rows = pl.DataFrame({"time": times, "captured_len": [100] * 6})
    assert nearest(rows, 10, 40, 600)["time"].to_list() == times
    assert nearest(rows, 10, 40, 299)["time"].to_list() == [10, 40]


# Words


@pytest.mark.parametrize(
    "hostile", ['"><img src=x onerror="x()">', "line\nbreak\x00\x1b[31m", "\u202egpj.exe", "\udc80", "a" * 10_000, "back\\slash"]
)
def test_hostile_names_are_one_short_line(hostile: str) -> None:
    said = inert(hostile)
    assert said.isprintable()
    assert len(said) <= 12 * LONGEST_NAME
    row = {
        "kind": "request",
        "client_id": hostile,
        "from_broker": None,
        "api_name": "Produce",
        "api_version": 9,
        "correlation_id": -1,
        "latency_ms": 1234.5,
    }
    assert sentence(row).isprintable()
    assert sentence(row).endswith("answered after 1,234.5 ms")


def test_a_sentence_per_kind() -> None:
    row = {
        "client_id": None,
        "from_broker": True,
        "lost_bytes": 1400,
        "lost_segments": 1,
        "worst_bytes": 1400,
        "worst_segments": 1,
        "reset_kind": "idle",
    }
    assert sentence(row | {"kind": "reset"}) == "connection: reset by the broker after it had been idle"
    assert sentence(row | {"kind": "loss"}).startswith("connection: 1,400 bytes in 1 segment sent again by the broker")


def test_a_filter_names_each_address_and_port_once() -> None:
    ends = {"client_ip": "127.0.0.1", "client_port": 40_000, "broker_ip": "127.0.0.1", "broker_port": 9092}
    assert display_filter(ends, 7, 7) == "ip.addr == 127.0.0.1 && tcp.port == 40000 && tcp.port == 9092 && frame.number == 7"


# Excerpts


@needs_tshark
def test_tshark_shows_the_same_packets_in_excerpt_and_captures(rotated: list[Path], tmp_path: Path) -> None:
    rows = cases_of(rotated, [f"[{BROKER}]:{PORT}"], tmp_path)
    target = excerpts_of(rotated, tmp_path)
    by_name = {capture.name: capture for capture in rotated}
    for row in rows:
        excerpt = target / f"{row['case']}.pcapng"
        of_captures = [packet for name, text in zip(row["captures"], row["filters"], strict=True) for packet in shown(by_name[name], text)]
        assert shown(excerpt) == of_captures
        assert len(of_captures) == row["packets"]
    assert shown(target / "loss-1.pcapng")[4][0] == f"{NOON // SECOND}.320000004"


@needs_tshark
def test_an_excerpt_says_what_it_shows(rotated: list[Path], tmp_path: Path) -> None:
    cases_of(rotated, [f"[{BROKER}]:{PORT}"], tmp_path)
    target = excerpts_of(rotated, tmp_path)
    comments = tshark(target / "loss-1.pcapng", "-Y", "frame.comment", "-T", "fields", "-e", "frame.number", "-e", "frame.comment")
    assert len(comments) == 1
    assert comments[0][0] == "5"
    assert comments[0][1].startswith("loss-1 is here: connection: 400 bytes in 1 segment sent again by the client")
    assert b"loss-1 of run1/edge: connection: 400 bytes" in (target / "loss-1.pcapng").read_bytes()


@needs_tshark
def test_an_excerpt_of_the_example_shows_its_request(tmp_path: Path) -> None:
    """Wireshark's own Kafka dissector finds in the excerpt the request that the table names."""
    captures = shipped("experiment08", "edge")
    row = cases_of(captures, BROKERS["edge"], tmp_path)[0]
    excerpt = excerpts_of(captures, tmp_path) / "request-1.pcapng"
    port = BROKERS["edge"][0].rpartition(":")[2]
    found = tshark(
        excerpt,
        "-d",
        f"tcp.port=={port},kafka",
        "-Y",
        f"kafka.correlation_id == {row['correlation_id']}",
        "-T",
        "fields",
        "-e",
        "frame.comment",
    )
    assert found[0][0].startswith(
        f"request-1 begins here: {row['api_name']} v{row['api_version']}, correlation id {row['correlation_id']} of client"
    )
    assert found[-1][0].startswith("request-1 ends here")
    capture = next(path for path in captures if path.name == row["captures"][0])
    assert shown(excerpt) == shown(capture, row["filters"][0])


def test_only_the_owner_may_read_excerpts(rotated: list[Path], tmp_path: Path) -> None:
    cases_of(rotated, [f"[{BROKER}]:{PORT}"], tmp_path)
    target = excerpts_of(rotated, tmp_path)
    stale = target / "request-9.pcapng"
    stale.write_bytes(b"of an earlier run")
    excerpts_of(rotated, tmp_path)
    assert not stale.exists()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [target, *target.iterdir()]}
    assert modes == {0o700, 0o600}


def test_a_capture_that_is_another_by_now_is_an_error(rotated: list[Path], tmp_path: Path) -> None:
    cases_of(rotated, [f"[{BROKER}]:{PORT}"], tmp_path)
    records = sorted(conversation() + conversation(50_001, 1_000_000), key=lambda record: record.time)
    rotated[1].write_bytes(nanosecond_pcapng([record._replace(time=record.time + 1) for record in records[8:]]))
    with pytest.raises(UserError, match="another packet under number 5"):
        excerpts_of(rotated, tmp_path)
    rotated[1].write_bytes(nanosecond_pcapng(records[8:9]))
    with pytest.raises(UserError, match="found 1 packets, expected at least"):
        excerpts_of(rotated, tmp_path)


def test_link_types_lengths_and_times_are_kept(tmp_path: Path) -> None:
    """Two interfaces of different link types, one a packet cut by the snaplen; read again by our own reader."""
    odd = 1_700_000_000_123_456_789
    packets = [b"\x45" + bytes(59), bytes(range(61)), b"\x60" + bytes(7)]
    source = tmp_path / "a.pcapng"
    source.write_bytes(
        section() + interface(101, resolution=9) + interface(1, resolution=9)
        + enhanced(odd, packets[0], 60) + enhanced(odd + 1, packets[1], 1500, number=1) + enhanced(odd + 2, packets[2], 8)
    )  # fmt: skip
    copies = copy_packets(str(source), [3, 1, 2, 1])
    target = tmp_path / "copy.pcapng"
    target.write_bytes(b"".join(writing.section([copies[frame] for frame in (1, 2, 3)], "é" * 3000, "test")))
    again = copy_packets(str(target), [1, 2, 3])
    assert again == copies
    assert [(packet.time, packet.link, packet.wire, packet.data) for _, packet in sorted(again.items())] == [
        (odd, 101, 60, packets[0]), (odd + 1, 1, 1500, packets[1]), (odd + 2, 101, 8, packets[2]),
    ]  # fmt: skip
    capture = Capture(str(target))
    assert sum(chunk.found for chunk in capture.chunks()) == 3
    assert capture.truncated is None


def test_packets_are_found_in_captures_of_many_chunks(tmp_path: Path) -> None:
    data = bytes(1400)
    path = tmp_path / "long.pcap"
    path.write_bytes(pcap([Record(NOON + n * 1000, data, 1400) for n in range(3000)]))
    found = copy_packets(str(path), [1, 777, 2999])
    assert {frame: packet.time for frame, packet in found.items()} == {frame: NOON + (frame - 1) * 1000 for frame in (1, 777, 2999)}


def test_only_captures_with_cases_are_asked_for(rotated: list[Path], tmp_path: Path) -> None:
    cases_of(rotated, [f"[{BROKER}]:{PORT}"], tmp_path, (NOON + 3 * SECOND, None))
    listed = tmp_path / "captures.json"
    list_excerpts(cases={"run1/edge": str(tmp_path / "cases.parquet")}, captures=listed)
    assert captures_of(listed, "run1/edge") == ["b, [1] {x}.pcapng"]
