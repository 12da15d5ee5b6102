"""The workflow on a cluster: a SLURM that the test starts, the cluster profile as it ships, and what a node or a job takes with it."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from slurm import Cluster, ClusterBench, NotPossibleError, slurm, wait_for
from workbench import ROOT, TOGETHER, Workbench, downstream_of_captures, jobs, of_users, results, splits

pytestmark = pytest.mark.cluster
EXAMPLE: dict[str, Any] = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    try:
        if find_spec("snakemake_executor_plugin_slurm") is None:
            raise NotPossibleError(
                "the SLURM executor of Snakemake is not installed: pip install --require-hashes -r requirements-slurm.txt"
            )
        with slurm() as started:
            yield started
    except NotPossibleError as reason:
        if os.environ.get("BROKERLENS_CLUSTER") == "required":
            raise
        pytest.skip(f"the cluster test cannot run here: {reason}")


@pytest.fixture(scope="module")
def example(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """The whole shipped example, run on this machine alone."""
    bench = bench_in(tmp_path_factory.mktemp("local"), copy.deepcopy(EXAMPLE))
    bench.run()
    return bench


@pytest.fixture(scope="module")
def small(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Two captures of each site of one experiment, run on this machine alone."""
    bench = bench_in(tmp_path_factory.mktemp("small"), few_captures())
    bench.run()
    return bench


def few_captures() -> dict[str, Any]:
    config = copy.deepcopy(EXAMPLE)
    del config["experiments"]["experiment07"]
    for site in config["experiments"]["experiment08"]["sites"].values():
        site["captures"] += "/*_1716?0.pcap"
    return config


def bench_in(folder: Path, config: dict[str, Any]) -> Workbench:
    (folder / "resources").symlink_to(ROOT / "resources")
    return Workbench(ROOT, folder, config)


def start(cluster: Cluster, bench: Workbench, *arguments: str) -> subprocess.Popen[str]:
    """Snakemake with the cluster profile, on the cluster's login node, so to speak."""
    there = ClusterBench(bench.code, bench.work, bench.config, cluster=cluster)
    command = [*there.launcher(), *there.options(*arguments)]
    return subprocess.Popen(command, env=of_users(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(cluster: Cluster, run: subprocess.Popen[str]) -> str:
    """What a run that must end well said."""
    said = run.communicate(timeout=900)[0]
    assert run.returncode == 0, said + cluster.logs()
    return said


def of_rule(rule: str, ran: list[dict[str, str]]) -> list[dict[str, str]]:
    return [job for job in ran if job["comment"].startswith(f"rule_{rule}_")]


def test_the_whole_example_gives_the_same_bytes(cluster: Cluster, example: Workbench, tmp_path: Path) -> None:
    bench = bench_in(tmp_path, example.config)
    before = len(cluster.jobs())
    finish(cluster, start(cluster, bench))
    assert results(bench.work) == results(example.work)

    ran = cluster.jobs()[before:]
    assert {job["state"] for job in ran} == {"COMPLETED"}
    assert {job["node"] for job in ran} == {"n1", "n2"}
    captures = len(list((ROOT / "resources" / "example").rglob("*.pcap")))
    tasks = of_rule("split_capture", ran)
    assert len(tasks) == captures
    assert len({job["id"].split("_")[0] for job in tasks}) == 1, "one array for all splits"


def test_a_node_and_a_job_are_lost_in_the_middle(cluster: Cluster, small: Workbench, tmp_path: Path) -> None:
    bench = bench_in(tmp_path, small.config)
    before = len(cluster.jobs())
    run = start(cluster, bench)
    wait_for("a job on n1", lambda: any(job["node"] == "n1" and job["state"] == "RUNNING" for job in cluster.jobs()), 120)
    cluster.lose_node("n1")
    wait_for("a merge to kill", lambda: cluster.kill_one("merge_site.py"), 300)
    finish(cluster, run)
    assert results(bench.work) == results(small.work)

    ran = cluster.jobs()[before:]
    assert any(int(job["restarts"]) > 0 for job in ran), "what ran on the lost node went to the other"
    merges = of_rule("merge_site", ran)
    assert sorted(job["state"] for job in merges) == ["COMPLETED", "COMPLETED", "FAILED"]
    failed = next(job for job in merges if job["state"] == "FAILED")
    again = next(job for job in merges if job["comment"] == failed["comment"] and job["state"] == "COMPLETED")
    first, second = (int(job["memory"].rstrip("M")) for job in (failed, again))
    assert second in (2 * first, 2 * first + 1), "twice the memory, cut to whole megabytes after that"


def test_after_a_change_the_cluster_runs_what_depends_on_it(cluster: Cluster, small: Workbench, tmp_path: Path) -> None:
    cluster.bring_back("n1")
    bench = bench_in(tmp_path, copy.deepcopy(small.config))
    shutil.copytree(small.work / "results", bench.work / "results")
    shutil.copytree(small.work / ".snakemake", bench.work / ".snakemake")
    assert "Nothing to be done" in finish(cluster, start(cluster, bench))
    # One capture more, and two shards instead of one.
    site = bench.site("experiment08", "edge")
    site["captures"] = [site["captures"], site["captures"].replace("1716?0", "171700")]
    site["shards"] = 2
    before = len(cluster.jobs())
    expected = splits("experiment08", "edge", ["experiment_capture_20251226_171700.pcap"]) | downstream_of_captures(
        "experiment08", "edge", shards=2
    )
    assert jobs(finish(cluster, start(cluster, bench))) == expected
    assert len(cluster.jobs()) - before == len(expected - TOGETHER) + 1, "what is about all sites is one job"
    assert "Nothing to be done" in bench.run()
