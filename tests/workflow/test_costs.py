"""`snakemake costs`: what a run cost, by rule."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from workbench import ROOT, Workbench

from brokerlens.errors import UserError
from costs import as_csv, as_table, costs

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def benchmark(path: Path, seconds: float, rss: str, cpu: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}{seconds}\t0:00:00\t{rss}\t1\t1\t1\t0\t0\t50\t{cpu}\n")
    return str(path)


def test_jobs_are_added_up_by_rule(tmp_path: Path) -> None:
    a = benchmark(tmp_path / "split_capture/run1/edge/a.pcap.tsv", 4, "300.5", "3.5")
    b = benchmark(tmp_path / "split_capture/run1/edge/b.pcap.tsv", 1, "200", "0.5")
    benchmark(tmp_path / "report.tsv", 2, "-", "NA")  # ended before Snakemake looked at it
    split, report = costs(tmp_path, {a: 80_000_000, b: 20_000_000})
    assert split == {
        "rule": "split_capture",
        "jobs": 2,
        "seconds": 5.0,
        "longest_s": 4.0,
        "cpu_s": 4.0,
        "most_mb": 300.5,
        "read_mb": 100.0,
        "mb_per_s": 20.0,
    }
    assert (report["rule"], report["jobs"], report["seconds"], report["most_mb"], report["mb_per_s"]) == ("report", 1, 2.0, 0, None)
    assert as_table([split, report]).splitlines()[1].split() == ["split_capture", "2", "5.0", "4.0", "4.0", "300.5", "100.0", "20.0"]
    assert as_csv([split]).splitlines()[1] == "split_capture,2,5.0,4.0,4.0,300.5,100.0,20.0"


@pytest.mark.parametrize("left", ["", "s\th:m", f"{HEADER}7", "\x00\x00", f"{HEADER}nan\t0:00:00\tinf\t1\t1\t1\t0\t0\t50\tnan\n"])
def test_a_benchmark_that_was_cut_short_takes_no_other_with_it(tmp_path: Path, left: str) -> None:
    a = benchmark(tmp_path / "split_capture/run1/edge/a.pcap.tsv", 4, "300", "3")
    (tmp_path / "split_capture/run1/edge/b.pcap.tsv").write_text(left)
    [split] = costs(tmp_path, {a: 80_000_000})
    assert (split["seconds"], split["cpu_s"], split["most_mb"]) == (11.0 if left.endswith("7") else 4.0, 3.0, 300.0)


def test_without_benchmarks_there_is_nothing_to_say(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Run the workflow first"):
        costs(tmp_path, {})


def test_the_target_prints_the_table_of_a_run(example_run: Workbench, tmp_path: Path) -> None:
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/benchmarks").symlink_to(example_run.work / "results/benchmarks")
    said = Workbench(ROOT, tmp_path, example_run.config).run("costs")
    with (tmp_path / "results/costs.csv").open(newline="") as file:
        rows = {row["rule"]: row for row in csv.DictReader(file)}
    assert int(rows["split_capture"]["jobs"]) == 18
    assert float(rows["split_capture"]["read_mb"]) > 1
    assert {"merge_site", "compute_metrics", "report"} <= set(rows)
    assert any(line.split()[:2] == ["split_capture", "18"] for line in said.splitlines())
