"""`snakemake verify`: both decoders on real captures, the table, and what the report makes of it; the report never asks for Wireshark."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from pathlib import Path

import pytest
from workbench import REPORTED, ROOT, Workbench

CAPTURE = ROOT / "resources/example/experiment08/edge/experiment_capture_20251226_171400.pcap"
needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


@pytest.fixture
def captures(tmp_path: Path) -> Workbench:
    """One site with one capture."""
    (tmp_path / "edge").mkdir()
    shutil.copy(CAPTURE, tmp_path / "edge" / "a.pcap")
    sites = {"edge": {"captures": "edge", "brokers": ["192.0.2.10:31289"]}}
    return Workbench(ROOT, tmp_path, {"experiments": {"run1": {"sites": sites}}, "verify": {"sample": 60}})


def table(bench: Workbench) -> list[dict[str, str]]:
    with (bench.work / "results/verify/differences.csv").open() as file:
        return list(csv.DictReader(file))


@needs_tshark
def test_all_agrees(captures: Workbench) -> None:
    said = captures.run("verify")
    assert f"verification: {captures.work}/results/verify/differences.csv" in said
    rows = table(captures)
    assert {row["outcome"] for row in rows} == {"agrees"}
    assert {"row", "seq", "timestamp", "header_hash", "client"} <= {row["field"] for row in rows}
    assert {row["compared"] for row in rows} == {"60"}


@needs_tshark
def test_a_difference_that_nothing_explains_fails_after_the_table_is_written(captures: Workbench) -> None:
    """A tshark that shows another sequence number, as a reader with a fault would."""
    folder = captures.work / "bin"
    folder.mkdir()
    script = (
        "import subprocess, sys\n"
        f"done = subprocess.run(['{shutil.which('tshark')}', *sys.argv[1:]], capture_output=True, text=True)\n"
        "fields = [word for before, word in zip(sys.argv, sys.argv[1:]) if before == '-e']\n"
        "for line in done.stdout.splitlines():\n"
        "    cells = line.split('\\t')\n"
        "    cells[fields.index('ip.ttl')] = '1'\n"
        "    print('\\t'.join(cells))\n"
    )
    (folder / "tshark").write_text(f"#!{sys.executable}\n{script}")
    (folder / "tshark").chmod(0o755)
    sound = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:{sound}"
    try:
        said = "\n".join(captures.failed("verify"))
    finally:
        os.environ["PATH"] = sound
    differing = [row for row in table(captures) if row["outcome"] == "differs"]
    assert {row["field"] for row in differing} == {"ttl", "header_hash"}
    assert "error: results/verify/differences.csv: found " in said
    assert "that nothing explains, in header_hash, ttl; expected none. For example edge/a.pcap, frame 1: native" in said
    assert "Traceback" not in said


def test_without_wireshark_one_clear_error(captures: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = captures.work / "bin"
    tools.mkdir()
    for name in ("sh", "bash", "env", "uname", "git"):
        if (path := shutil.which(name)) is not None:
            (tools / name).symlink_to(path)
    monkeypatch.setenv("PATH", str(tools))
    said = "\n".join(captures.failed("verify"))
    assert "error: tshark, which is part of Wireshark, was not found; expected on the PATH." in said
    assert "apt-get install tshark" in said
    assert "Traceback" not in said


def test_the_report_follows_verify_but_never_runs_it(bench: Workbench) -> None:
    assert not any("verify" in job for job in bench.planned("--forceall"))
    found = bench.work / "results/verify/differences.csv"
    found.parent.mkdir()
    found.write_text("found")
    assert bench.planned() == REPORTED
    bench.run()
    assert bench.planned() == set()
    os.utime(found, (1_600_000_000, 1_600_000_000))  # before the captures: they are not what was verified
    assert bench.planned() == REPORTED


def test_what_is_verified_again(bench: Workbench) -> None:
    bench.run("verify")
    assert bench.planned("verify") == {"verify"}  # which looks at the table each time
    bench.config["verify"] = {"sample": "all"}
    assert {job for job in bench.planned("verify") if job.startswith("verify_capture")} == {
        f"verify_capture {run}/{site}/{name}" for run in ("run1", "run2") for site in ("edge", "cloud") for name in ("a.pcap", "b.pcap")
    }
    assert bench.planned() <= REPORTED
