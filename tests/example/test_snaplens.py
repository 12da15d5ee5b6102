"""docs/capturing.md's table of snaplens: the shipped captures of experiment08 cut to each, through the product."""

from __future__ import annotations

import struct
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sites import BROKERS, ROOT, read_pcap, run_site, shipped, write_pcap

PAGE = (ROOT / "docs" / "capturing.md").read_text(encoding="utf-8")
WHOLE = 1 << 18
KEY = ["connection_id", "correlation_id"]
CERTAIN = [
    *KEY,
    *("api_name", "api_version", "status", "request_bytes", "response_bytes", "request_first", "request_last", "response_first"),
    *("response_last", "latency_ms", "broker_ms", "retransmitted"),
]


def cut(site: str, snaplen: int, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Requests and packets of a site's captures with a snaplen, and the captures' bytes."""
    captures = []
    for capture in shipped("experiment08", site):
        header, records = read_pcap(capture)
        shorter = [record[:8] + struct.pack("<I", min(snaplen, len(record) - 16)) + record[12 : 16 + snaplen] for record in records]
        captures.append(write_pcap(folder / capture.name, header, shorter))
    found = run_site(captures, BROKERS[site], folder / "out")
    requests, packets = (rows.with_columns(pl.col(pl.Categorical).cast(pl.String)) for rows in (found.requests, found.packets))
    return requests.sort(KEY), packets, sum(capture.stat().st_size for capture in captures)


def said() -> dict[int, list[str]]:
    """The page's rows by snaplen, without it."""
    table = PAGE.split("| snaplen |")[1].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {WHOLE if row[0] == "whole" else int(row[0]): row[1:] for row in rows}


@pytest.fixture(scope="module")
def by_snaplen(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, tuple[pl.DataFrame, pl.DataFrame, int]]]:
    """Each site of experiment08 at each of the page's snaplens."""
    return {snaplen: {site: cut(site, snaplen, tmp_path_factory.mktemp(site)) for site in BROKERS} for snaplen in said()}


@pytest.mark.parametrize("snaplen", said())
def test_what_the_page_says_is_found(by_snaplen: dict[int, dict[str, tuple[pl.DataFrame, pl.DataFrame, int]]], snaplen: int) -> None:
    found = pl.concat([requests for requests, _, _ in by_snaplen[snaplen].values()])
    whole = pl.concat([requests for requests, _, _ in by_snaplen[WHOLE].values()])
    size = sum(size for _, _, size in by_snaplen[snaplen].values())
    both = found.join(whole, on=KEY, suffix="_whole", validate="1:1")
    counts = both.select(
        pl.col("api_name").count(),
        pl.col("client_id").count(),
        (pl.col("client_software") == pl.col("client_software_whole")).sum(),
        (pl.col("topics") == pl.col("topics_whole")).sum(),
        pl.col("record_count").count(),
        pl.col("error_code").count(),
    )
    assert [f"{size / 1e6:.2f}", *map(str, counts.row(0))] == said()[snaplen]


@pytest.mark.parametrize("snaplen", [snaplen for snaplen in said() if snaplen != WHOLE])
def test_what_no_snaplen_changes(by_snaplen: dict[int, dict[str, tuple[pl.DataFrame, pl.DataFrame, int]]], snaplen: int) -> None:
    """Sizes, times, statuses, retransmissions, round trips; counts of records where they are known."""
    for site, (requests, packets, _) in by_snaplen[snaplen].items():
        whole, whole_packets, _ = by_snaplen[WHOLE][site]
        assert_frame_equal(requests.select(CERTAIN), whole.select(CERTAIN))
        cut_off = ["captured_len", "actual_msg_count"]
        assert_frame_equal(packets.drop(cut_off), whole_packets.drop(cut_off))
        known = requests["record_count"].is_not_null()
        assert_frame_equal(requests.filter(known).select("record_count", "codec"), whole.filter(known).select("record_count", "codec"))
