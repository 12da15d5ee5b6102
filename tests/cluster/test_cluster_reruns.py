"""The tests of tests/workflow/test_reruns.py once more, of a state that the cluster made: what the cluster profile runs again after a change."""

from __future__ import annotations

from pathlib import Path

import pytest
import test_cluster
import test_reruns
from slurm import Cluster, ClusterBench
from workbench import Workbench

pytestmark = pytest.mark.cluster_reruns
LEFT_OUT = {
    "test_a_job_that_was_killed_is_done_again": "it kills the job's Snakemake, which on a node is not the one that runs all; test_cluster.py has it",
    "test_odd_names_of_files_and_folders": "the executor puts paths of captures between a shell's double quotes, unescaped (docs/cluster.md)",
    "test_no_script_imports_from_the_future": "it looks at files alone",
}
OF_RERUNS = {name: test for name, test in vars(test_reruns).items() if name.startswith("test_")}
assert OF_RERUNS.keys() >= LEFT_OUT.keys()
globals().update({name: test for name, test in OF_RERUNS.items() if name not in LEFT_OUT})
cluster, finished_shards, sharded = test_cluster.cluster, test_reruns.finished_shards, test_reruns.sharded


@pytest.fixture(scope="module")
def finished(finished: Workbench, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """The same experiments, made anew by the cluster."""
    here = finished.copied(tmp_path_factory.mktemp("there"))
    bench = ClusterBench(here.code, here.work, here.config, cluster=cluster)
    for made in ("results", ".snakemake"):
        (bench.work / made).rename(bench.work.parent / made)
    bench.run()
    return bench


@pytest.fixture
def bench(finished: Workbench, tmp_path: Path) -> Workbench:
    return finished.copied(tmp_path)
