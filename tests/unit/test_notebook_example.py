"""The notebook's figures of the shipped captures, against its arithmetic on the captures' bytes, file by file in order of name."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from brokerlens.metrics.notebook import NS_PER_MS, notebook_figures
from brokerlens.metrics.window import Window
from merge_site import merge_site
from split_capture import split_capture

EXAMPLE = Path(__file__).parents[2] / "resources" / "example"
BROKER = ("192.0.2.10", 31_289)
CAPTURES = sorted((EXAMPLE / "experiment08" / "edge").glob("*.pcap"))


def frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """Time (ns) and bytes of each packet of a little-endian classic pcap in microseconds."""
    data = path.read_bytes()
    at = 24
    while at < len(data):
        seconds, microseconds, captured, _ = struct.unpack_from("<IIII", data, at)
        yield seconds * 1_000_000_000 + microseconds * 1_000, data[at + 16 : at + 16 + captured]
        at += 16 + captured


def by_the_notebook(start: int, end: int) -> tuple[int, int, int, int, float, list[float]]:
    """Packets, resets, zero windows, retransmissions, jitter (ms) and latencies (ms), in floating-point seconds."""
    packets = resets = zero_windows = retransmissions = 0
    seen: dict[tuple[bytes, bytes, int, int], set[int]] = {}
    pending: dict[bytes, float] = {}
    arrivals, latencies = [], []
    address = bytes(int(part) for part in BROKER[0].split("."))
    for path in CAPTURES:
        for time, frame in frames(path):
            if not start <= time <= end or frame[12:14] != b"\x08\x00" or frame[23] != 6:
                continue
            tcp = 14 + (frame[14] & 15) * 4
            source, target = frame[26:30], frame[30:34]
            source_port, target_port, seq = struct.unpack_from(">HHI", frame, tcp)
            if (address, BROKER[1]) not in ((source, source_port), (target, target_port)):
                continue
            payload = frame[tcp + (frame[tcp + 12] >> 4) * 4 :]
            packets += 1
            resets += bool(frame[tcp + 13] & 4)
            zero_windows += frame[tcp + 14 : tcp + 16] == b"\x00\x00"
            if payload:
                numbers = seen.setdefault((source, target, source_port, target_port), set())
                retransmissions += seq in numbers
                numbers.add(seq)
            if len(payload) > 12:
                if target_port == BROKER[1]:
                    pending[payload[8:12]] = time / 1e9
                elif payload[4:8] in pending:
                    latencies.append((time / 1e9 - pending.pop(payload[4:8])) * 1000)
            if source == address:
                arrivals.append(time / 1e9)
    gaps = [gap for gap in (np.diff(arrivals) * 1000).tolist() if gap < 1000]
    return packets, resets, zero_windows, retransmissions, float(np.mean(np.abs(np.diff(gaps)))), latencies


def test_figures_of_the_example_are_the_notebooks(tmp_path: Path) -> None:
    truth = json.loads((EXAMPLE / "truth.json").read_text(encoding="utf-8"))
    local = truth["experiments"]["experiment08"]["window"]
    start, end = (int(datetime.fromisoformat(local[name] + truth["timezone"]).timestamp()) * 1_000_000_000 for name in ("start", "end"))
    broker = [f"{BROKER[0]}:{BROKER[1]}"]
    working = []
    for capture in CAPTURES:
        working.append(str(tmp_path / capture.name))
        split_capture(capture=str(capture), name=capture.name, brokers=broker, output=working[-1], threads=1)
    outputs = {name: str(tmp_path / f"{name}.parquet") for name in ("packets", "connections", "requests", "topics", "notebook")}
    merge_site(captures=working, part=0, site={"brokers": broker, "tap": "auto", "shards": 1}, **outputs)
    found = notebook_figures([outputs["packets"]], [outputs["notebook"]], Window(start, end), broker)
    packets, resets, zero_windows, retransmissions, jitter, latencies = by_the_notebook(start, end)
    assert (found.packets, found.resets, found.zero_windows, found.retransmissions) == (packets, resets, zero_windows, retransmissions)
    assert retransmissions > 0
    assert found.gap_changes.mean() / NS_PER_MS == pytest.approx(jitter, abs=1e-3)
    np.testing.assert_allclose(np.sort(found.latencies) / NS_PER_MS, np.sort(latencies), atol=1e-3, rtol=0)
