"""Segments that were sent again or came late, against tshark's analysis of the same packets: the same frames, each difference explained."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest
from sites import BROKERS, read_pcap, run_site, shipped, write_pcap

FIELDS = ("retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order")
"""Of `tcp.analysis`. Which of them a segment gets changes from release to release, so only their union is compared."""
LABELS = ("retransmitted", "filled", "reordered", "ambiguous")
OLDEST, TOO_NEW = (4, 0), (4, 5)
"""From 4.5 on the analysis itself is another one."""


def installed() -> str:
    """Why tshark cannot be asked, empty if it can."""
    if shutil.which("tshark") is None:
        return "tshark is not installed"
    said = subprocess.run(["tshark", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\(Wireshark\) (\d+)\.(\d+)", said)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    return "" if OLDEST <= version < TOO_NEW else f"tshark {version[0]}.{version[1]} analyses TCP otherwise than 4.0 to 4.4"


WHY_NOT = installed()


def frames_of_tshark(capture: Path, port: str) -> set[int]:
    """Numbers of the frames that have one of `FIELDS`."""
    wanted = " or ".join(f"tcp.analysis.{field}" for field in FIELDS)
    command = ["tshark", "-n", "-r", str(capture), "-Y", f"tcp.port == {port} and ({wanted})", "-T", "fields", "-e", "frame.number"]
    return {int(number) for number in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()}


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "tshark is there")
@pytest.mark.parametrize("site", ["edge", "cloud"])
@pytest.mark.parametrize("experiment", ["experiment07", "experiment08"])
def test_the_same_segments_as_tshark(experiment: str, site: str, tmp_path: Path) -> None:
    """In one file, as tshark forgets at a file's end. It calls a connection's first captured segment new; whether it is cannot be told."""
    files = [read_pcap(capture) for capture in shipped(experiment, site)]
    capture = write_pcap(tmp_path / "all.pcap", files[0][0], [record for _, records in files for record in records])
    found = run_site([capture], BROKERS[site], tmp_path).packets
    late = found.filter(pl.col("segment").cast(pl.String).is_in(LABELS))
    sent = found.filter(pl.col("payload_len") > 0)
    begun_before = found.group_by("connection_id").agg((pl.col("tcp_flags") & 2 > 0).any().alias("syn")).filter(~pl.col("syn"))
    first = sent.group_by("connection_id", "from_broker").agg(pl.col("frame_number").min())
    untold = set(first.filter(pl.col("connection_id").is_in(begun_before["connection_id"].implode()))["frame_number"].to_list())
    ours = set(late["frame_number"].to_list())
    assert ours - untold == frames_of_tshark(capture, BROKERS[site][0].rpartition(":")[2])
    assert set(late.filter(pl.col("segment").cast(pl.String) == "ambiguous")["frame_number"].to_list()) <= untold
