"""`snakemake excerpts`: what it runs, what it refuses, and what it leaves of the shipped example."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from workbench import Workbench

SITES = [f"{run}/{site}" for run in ("run1", "run2") for site in ("edge", "cloud")]


@pytest.fixture(scope="module")
def finished_excerpts(finished: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    bench = finished.copied(tmp_path_factory.mktemp("excerpts"))
    bench.run("excerpts")
    return bench


@pytest.fixture
def excerpted(finished_excerpts: Workbench, tmp_path: Path) -> Workbench:
    return finished_excerpts.copied(tmp_path)


def test_excerpts_are_made_when_they_are_asked_for(excerpted: Workbench) -> None:
    assert sorted(
        path.parent.relative_to(excerpted.work / "results/excerpts").as_posix() for path in excerpted.work.rglob("request-1.pcapng")
    ) == sorted(SITES)
    assert excerpted.planned("excerpts") == set()
    assert excerpted.planned() == set()


def test_only_captures_with_cases_are_inputs(excerpted: Workbench) -> None:
    """The stand-in says that all packets are in `b.pcap`."""
    summary = excerpted.run("excerpts", "--detailed-summary")
    line = next(line for line in summary.splitlines() if line.startswith("results/excerpts/run1/edge\t"))
    assert "data/run1/edge/b.pcap" in line
    assert "data/run1/edge/a.pcap" not in line


def test_another_window_chooses_and_copies_again(excerpted: Workbench) -> None:
    excerpted.config["experiments"]["run1"]["window"]["end"] = "2025-12-24 15:00:01"
    assert excerpted.planned("excerpts") == {"choose_cases run1/edge", "choose_cases run1/cloud", "list_excerpts", "excerpts"} | {
        f"write_excerpts {site}" for site in SITES
    }


@pytest.mark.parametrize("target", ["excerpts", "results/excerpts/run1/edge"])
def test_excerpts_are_refused_where_names_are_to_be_hidden(bench: Workbench, target: str) -> None:
    bench.config = {**bench.config, "anonymize": True}
    said = bench.failed(target)
    assert said[-1].startswith(
        "excerpts: refused because the configuration says `anonymize: true`. An excerpt holds packets as they were captured"
    )
    assert not any("Traceback" in line for line in said)
    assert not (bench.work / "results/excerpts").exists()


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_excerpts_of_the_example(example_run: Workbench, tmp_path: Path) -> None:
    bench = example_run.with_work_copied(tmp_path)
    bench.run("excerpts")
    folder = bench.work / "results/excerpts/experiment08/edge"
    files = sorted(folder.glob("*.pcapng"))
    assert {"request-1.pcapng", "reset-1.pcapng", "loss-1.pcapng"} <= {path.name for path in files}
    for path in files:
        said = subprocess.run(["tshark", "-n", "-r", str(path), "-Y", "frame.comment"], capture_output=True, text=True, check=True).stdout
        assert said.count("\n") in (1, 2)
    assert folder.parents[1].stat().st_mode & 0o077 == 0
