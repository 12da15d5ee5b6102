"""Captures that are damaged or none: what is used, what fails, what goes on meanwhile. With the real stages."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from workbench import ROOT, Workbench, downstream_of_captures

EXAMPLE = ROOT / "resources/example/experiment08"
FIRST, SECOND = "experiment_capture_20251226_171400.pcap", "experiment_capture_20251226_171430.pcap"
BAD = {
    "empty.pcap": b"",
    "magic.pcap": b"\xd4\xc3\xb2\xa2" + bytes(200),
    "text.pcap": b"this is a letter, not a capture\n" * 20,
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Edge: a sound capture, one cut in a packet, one without packets, three that are none. Cloud: a sound capture."""
    work = tmp_path_factory.mktemp("bad")
    edge, cloud = work / "edge", work / "cloud"
    edge.mkdir()
    cloud.mkdir()
    shutil.copy(EXAMPLE / "edge" / FIRST, edge)
    shutil.copy(EXAMPLE / "cloud" / FIRST, cloud)
    whole = (EXAMPLE / "edge" / SECOND).read_bytes()
    (edge / "cut.pcap").write_bytes(whole[: len(whole) // 2 + 3])
    (edge / "header.pcap").write_bytes(whole[:24])
    for name, content in BAD.items():
        (edge / name).write_bytes(content)
    sites = {
        "edge": {"captures": "edge", "brokers": ["192.0.2.10:31289"]},
        "cloud": {"captures": "cloud", "brokers": ["198.51.100.10:32289"]},
    }
    return Workbench(ROOT, work, {"experiments": {"run1": {"sites": sites}}})


@pytest.fixture(scope="module")
def said(bench: Workbench) -> str:
    """What a run with --keep-going says."""
    return "\n".join(bench.failed("--keep-going"))


def facts(bench: Workbench, capture: str) -> dict[str, object]:
    read: dict[str, object] = json.loads((bench.work / "results/intermediate/captures/run1/edge" / capture / "facts.json").read_text())
    return read


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_capture_fails_with_a_message(bench: Workbench, said: str, name: str) -> None:
    log = (bench.work / f"results/logs/split_capture/run1/edge/{name}.log").read_text()
    (line,) = [line for line in log.splitlines() if line.startswith("error: ")]
    assert f"edge/{name}" in line
    assert "take it out of" in line
    assert line in said
    assert "Traceback" not in log
    assert not (bench.work / "results/intermediate/captures/run1/edge" / name).exists()


def test_behind_all_that_snakemake_says_the_messages_stand_again(said: str) -> None:
    last = said.rpartition("Shutting down")[2]
    for name in BAD:
        assert re.search(rf"^failed: split_capture run1/edge/{name}: edge/{name}: found ", last, re.MULTILINE)


def test_a_cut_capture_is_used_up_to_the_cut_and_flagged(bench: Workbench, said: str) -> None:
    cut = facts(bench, "cut.pcap")
    assert cut["truncated"]
    assert isinstance(cut["packets"], int)
    assert cut["packets"] > 100


def test_a_capture_without_packets_is_one(bench: Workbench, said: str) -> None:
    none = facts(bench, "header.pcap")
    assert (none["packets"], none["truncated"], none["first_seen"]) == (0, None, None)


def test_the_other_site_is_finished_and_this_one_waits(bench: Workbench, said: str) -> None:
    results = bench.work / "results"
    data_sets = {path.name for path in results.glob("*/experiment=run1/site=cloud/*.parquet")}
    assert data_sets == {"part-0000.parquet", "cases.parquet", "metrics.parquet", "series.parquet"}
    assert not list(results.glob("*/experiment=run1/site=edge/*.parquet"))
    assert not (results / "report/index.html").exists()
    assert "A capture that cannot be read fails alone" in said


def test_once_they_are_taken_out_only_what_waited_runs(bench: Workbench, said: str) -> None:
    for name in BAD:
        (bench.work / "edge" / name).unlink()
    assert bench.planned() == downstream_of_captures("run1", "edge")


def test_a_site_whose_brokers_no_packet_knows(bench: Workbench, said: str, tmp_path: Path) -> None:
    other = Workbench(
        ROOT,
        tmp_path,
        {"experiments": {"run1": {"sites": {"edge": {"captures": str(bench.work / "cloud"), "brokers": ["10.0.0.1:9092"]}}}}},
    )
    told = "\n".join(other.failed("results/requests/experiment=run1/site=edge/part-0000.parquet"))
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert "10.0.0.1:9092" in line
    assert "198.51.100.10:32289" in told
