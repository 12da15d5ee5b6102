"""What surrounds a job's work: its log, and the same job of a run that was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brokerlens import warm

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"
PROGRAM = """
import sys, time, types
from brokerlens import job
with job.logged(types.SimpleNamespace(log=[sys.argv[1]], rule="merge_site")):
    print("at work")
    time.sleep(float(sys.argv[2]))
    if len(sys.argv) > 3:
        raise OSError(int(sys.argv[3]), "an error", "some/file")
"""


def start(log: Path, seconds: float, *error: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(log), str(seconds), *error]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(SCRIPTS)}, stderr=subprocess.PIPE, text=True)


def test_a_job_waits_for_its_like_of_an_earlier_run(tmp_path: Path) -> None:
    log = tmp_path / "merge_site.log"
    earlier = start(log, 1.5)
    while not log.exists() or "at work" not in log.read_text():
        assert earlier.poll() is None
        time.sleep(0.01)
    later = start(log, 0)
    assert later.communicate()[1] == f"{log}: waiting for the same job of an earlier run, which is still at work\n"
    assert later.returncode == 0
    assert earlier.poll() == 0, "the later one ended first"
    said = log.read_text()
    assert "for the same job of an earlier run" in said
    assert said.count("merge_site done in") == 1, "the log is the later one's alone"


def test_a_log_says_how_long_a_job_took_and_how_much_memory(tmp_path: Path) -> None:
    log = tmp_path / "merge_site.log"
    assert start(log, 0.2).wait() == 0
    last = log.read_text().splitlines()[-1]
    assert "merge_site done in 0.2" in last
    assert last.endswith(" MB")


def test_a_full_disk_is_said_on_the_terminal_since_the_log_may_be_on_it(tmp_path: Path) -> None:
    job = start(tmp_path / "merge_site.log", 0, "28")
    said = job.communicate()[1]
    assert job.returncode == 1
    assert said == "error: no space left on the disk of some/file: free some and run the same command again\n"


def test_all_stages_run_ahead_to_compile_their_kernels(tmp_path: Path) -> None:
    """Where that fails, the workflow says so and goes on, each job compiling for itself: nothing else would notice."""
    warm.run_all_stages(sorted(warm.EXAMPLE.glob("*.pcap"))[: warm.CAPTURES], tmp_path)
    assert (tmp_path / "comparisons.parquet").exists()


@pytest.mark.parametrize("locked", [False, True], ids=["no locks", "locks that get lost"])
def test_a_file_system_without_locks_stops_no_job(tmp_path: Path, locked: bool) -> None:
    log = tmp_path / "merge_site.log"
    lost = f"""
import errno, fcntl
def flock(file, how):
    if {locked} and how & fcntl.LOCK_NB:
        raise BlockingIOError(errno.EAGAIN, "held")
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""
    done = subprocess.run([sys.executable, "-c", lost + PROGRAM, str(log), "0"], env=os.environ | {"PYTHONPATH": str(SCRIPTS)}, check=False)
    assert done.returncode == 0
    assert "merge_site done in" in log.read_text()
