"""Four captures of other people's traffic give what their table says (`tests/data/public/README.md`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sites import run_site

PUBLIC = Path(__file__).parents[1] / "data" / "public"
CASES = [
    ("00-produce-v2.pcap", 9092, {"api_name": "Produce", "api_version": 2, "status": "answered"}),
    ("00-produce-v9.pcap", 36333, {"api_name": "Produce", "api_version": 9, "status": "answered", "acks": 1}),
    (
        "01-fetch-v12-ok.pcap",
        36333,
        {"api_name": "Fetch", "api_version": 12, "status": "answered", "record_count": 0, "waits_by_design": True},
    ),
    ("18-api-versions-v3.pcap", 9092, {"api_name": "ApiVersions", "api_version": 3, "status": "answered", "error_code": 0}),
]


def broker(capture: Path, port: int) -> str:
    """The endpoint with this port, from the first packet's IPv4 header behind Ethernet."""
    packet = capture.read_bytes()[40:]
    ends = {int.from_bytes(packet[34 + 2 * side : 36 + 2 * side], "big"): packet[26 + 4 * side : 30 + 4 * side] for side in (0, 1)}
    return f"{'.'.join(map(str, ends[port]))}:{port}"


@pytest.mark.parametrize(("name", "port", "expected"), CASES, ids=[name for name, *_ in CASES])
def test_one_request_and_its_answer(name: str, port: int, expected: dict[str, Any], tmp_path: Path) -> None:
    found = run_site([PUBLIC / name], [broker(PUBLIC / name, port)], tmp_path).requests
    assert found.height == 1
    row = found.row(0, named=True)
    assert {key: row[key] for key in expected} == expected
    assert row["latency_ms"] >= 0
    if name.startswith("01"):
        assert row["latency_ms"] == pytest.approx(499.6, abs=0.05)
