"""The workflow inside of another one, as docs/module.md shows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pages import blocks
from workbench import ROOT, Workbench

SNAKEFILE = blocks("docs/module.md", "snakemake")[0].replace("/opt/brokerlens", str(ROOT))


def snakemake(work: Path, *arguments: str) -> str:
    """What a run in this folder says, which must end well."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE")}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def work(example_run: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another workflow's folder, run to its end: its configuration has ours in it, of the later experiment's edge alone."""
    folder = tmp_path_factory.mktemp("module")
    (folder / "resources").symlink_to(ROOT / "resources")
    (folder / "Snakefile").write_text(SNAKEFILE)
    ours = {**example_run.config, "experiments": {"experiment08": dict(example_run.config["experiments"]["experiment08"])}}
    ours["experiments"]["experiment08"]["sites"] = {"edge": ours["experiments"]["experiment08"]["sites"]["edge"]}
    (folder / "config.yaml").write_text(yaml.safe_dump({"brokerlens": ours}))
    said = snakemake(folder)
    assert "not present" not in said  # rules that are named but not there under their new names
    return folder


def test_the_other_workflow_gets_its_own_target(work: Path) -> None:
    header, row = (work / "slowest.csv").read_text().splitlines()
    assert header.startswith("experiment,site,metric") and row.startswith("experiment08,edge,kafka_latency,all,p95,")
    assert sorted(path.name for path in work.iterdir() if not path.name.startswith(".")) == [
        "Snakefile",
        "config.yaml",
        "network",
        "resources",
        "slowest.csv",
    ]


@pytest.mark.parametrize("data_set", ["packets", "requests", "connections"])
def test_the_results_are_those_of_the_workflow_alone(work: Path, example_run: Workbench, data_set: str) -> None:
    file = f"results/{data_set}/experiment=experiment08/site=edge/part-0000.parquet"
    assert (work / "network" / file).read_bytes() == (example_run.work / file).read_bytes()


def test_nothing_runs_again_and_the_rest_is_planned(work: Path) -> None:
    assert "Nothing to be done" in snakemake(work, "--dry-run")
    planned = re.findall(r"^(brokerlens_\w+) +\d+$", snakemake(work, "brokerlens_all", "--dry-run"), re.MULTILINE)
    assert set(planned) == {f"brokerlens_{rule}" for rule in ("choose_cases", "compare", "report", "draw_figures", "all")}
    assert "brokerlens_verify_capture" in snakemake(work, "brokerlens_verify", "--dry-run")


def test_targets_without_an_output_find_what_lies_under_the_prefix(work: Path) -> None:
    said = snakemake(work, "brokerlens_costs")
    assert re.search(r"^split_capture +9 .* [0-9.]+$", said, re.MULTILINE)
    assert (work / "network" / "results" / "costs.csv").exists()
