"""What a run says of how far it is."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from brokerlens.progress import FAILURES, SECONDS, Progress, outside_their_window

SIZES = {("run1", "edge", "a.pcap"): 30_000_000, ("run1", "edge", "b.pcap"): 10_000_000}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def progress(clock: Clock, said: list[str]) -> Progress:
    return Progress(SIZES, said.append, clock)


def log(progress: Progress, event: str, **fields: object) -> None:
    """As Snakemake 9 logs it."""
    progress.handle(logging.makeLogRecord({"msg": "", "event": event, **fields}))


def begin(progress: Progress, number: int, rule: str, **wildcards: str) -> None:
    log(progress, "job_info", jobid=number, rule_name=rule, rule_msg=f"{rule} {'/'.join(wildcards.values())}", wildcards=wildcards)


def test_captures_bytes_speed_and_what_is_at_work(progress: Progress, clock: Clock, said: list[str]) -> None:
    begin(progress, 1, "split_capture", experiment="run1", site="edge", capture="a.pcap")
    begin(progress, 2, "split_capture", experiment="run1", site="edge", capture="b.pcap")
    clock.now = 20.0
    log(progress, "job_finished", job_id=1)
    assert said == ["20 s; 1 of 2 captures read, 30.0 of 40.0 MB, 1.50 MB/s; at work: split_capture run1/edge/b.pcap"]


def test_the_speed_is_that_of_reading_and_not_of_what_comes_after(progress: Progress, clock: Clock) -> None:
    for number, capture in enumerate(("a.pcap", "b.pcap")):
        begin(progress, number, "split_capture", experiment="run1", site="edge", capture=capture)
    clock.now = 10.0
    for number in range(2):
        log(progress, "job_finished", job_id=number)
    begin(progress, 2, "merge_site", experiment="run1", site="edge", part="0000")
    clock.now = 100.0
    assert progress.line() == "100 s; 2 of 2 captures read, 40.0 of 40.0 MB, 4.00 MB/s; at work: merge_site run1/edge/0000"


def test_a_job_that_failed_is_not_at_work_and_its_capture_not_read(progress: Progress, clock: Clock, said: list[str]) -> None:
    begin(progress, 1, "split_capture", experiment="run1", site="edge", capture="a.pcap")
    clock.now = 20.0
    log(progress, "job_error", jobid=1)
    assert said == ["20 s; 0 of 2 captures read, 0.0 of 40.0 MB, 0.00 MB/s"]


def test_no_more_than_a_line_now_and_then(progress: Progress, clock: Clock, said: list[str]) -> None:
    for number in range(100):
        begin(progress, number, "merge_site", experiment="run1", site=f"s{number}", part="0000")
    for number in range(96):
        clock.now += SECONDS / 24
        log(progress, "job_finished", job_id=number)
    assert len(said) == 4
    assert said[-1].endswith("at work: merge_site run1/s96/0000, merge_site run1/s97/0000, merge_site run1/s98/0000 and 1 more")


def test_what_has_no_event_is_left_alone(progress: Progress, said: list[str]) -> None:
    progress.handle(logging.makeLogRecord({"msg": "Building DAG of jobs..."}))
    log(progress, "job_finished", job_id=77)
    assert said == []


def test_a_capture_that_was_not_to_be_read_counts_no_bytes(progress: Progress, clock: Clock, said: list[str]) -> None:
    begin(progress, 1, "split_capture", experiment="run1", site="edge", capture="late.pcap")
    clock.now = 20.0
    log(progress, "job_finished", job_id=1)
    assert said == ["20 s; 1 of 2 captures read, 0.0 of 40.0 MB, 0.00 MB/s"]


def test_what_failed_is_said_again_in_a_line_each(progress: Progress, tmp_path: Path) -> None:
    for number in range(FAILURES + 3):
        begin(progress, number, "split_capture", experiment="run1", site="edge", capture=f"{number}.pcap")
        log_file = tmp_path / f"{number}.log"
        log_file.write_text(f"12:00:00 INFO reading\nerror: {number}.pcap: found no capture\n")
        log(progress, "job_error", jobid=number, log=[str(log_file)])
    log(progress, "job_finished", job_id=0)  # a second attempt
    lines = progress.failures()
    assert lines[0] == "failed: split_capture run1/edge/1.pcap: 1.pcap: found no capture"
    assert lines[-1] == "failed: 2 more"
    assert len(lines) == FAILURES + 1


def test_a_failure_without_a_message_names_its_log(progress: Progress, tmp_path: Path) -> None:
    begin(progress, 1, "report")
    (tmp_path / "report.log").write_text("Traceback (most recent call last):\n")
    log(progress, "job_error", jobid=1, log=[str(tmp_path / "report.log")])
    begin(progress, 2, "compare")
    log(progress, "job_error", jobid=2, log=[str(tmp_path / "lost.log")])
    assert progress.failures() == [f"failed: report : see {tmp_path}/report.log", f"failed: compare : see {tmp_path}/lost.log"]


def test_a_site_of_which_nothing_is_inside_its_window(tmp_path: Path) -> None:
    table = tmp_path / "metrics.csv"
    assert outside_their_window(table) == []
    head = "experiment,site,metric,group,statistic,value,unit,n,ci_low,ci_high\n"
    table.write_text(
        f"{head}run1,edge,packets,all,count,,packets,0,,\nrun1,edge,resets,all,count,,packets,0,,\nrun1,cloud,packets,all,count,7.0,packets,7,,\n"
    )
    (line,) = outside_their_window(table)
    assert line.startswith("note: no packet of run1/edge is inside its window")
    assert "doctor" in line
