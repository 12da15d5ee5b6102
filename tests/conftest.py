"""Fixtures of tests/workflow, and what several folders want. They may have a conftest of their own; modules to import from have names of their own."""

from __future__ import annotations

# First: it points numba at the cache that is kept apart by the kernels' digest; numba's own beside the sources goes stale.
from brokerlens import job  # isort: skip

import fcntl
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import yaml
from workbench import ROOT, Workbench, copy_of_workflow

assert job.PACKAGE.is_dir()

os.environ["PYTHONDONTWRITEBYTECODE"] = ""  # hundreds of jobs would each compile the modules that they import

CAPTURES = ("a.pcap", "b.pcap")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs first, so that several processes (`--dist loadfile`: a file's tests in one of them) end at the same time, with what takes moments."""
    items.sort(key=lambda item: "workflow" not in item.path.parts)


Made = TypeVar("Made")


def made_once(factory: pytest.TempPathFactory, make: Callable[[Path], Made]) -> Made:
    """What ``make`` returns of a folder that it fills: one for all processes of this run, of which the first that asks fills it."""
    base = factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, kept = root / make.__name__, root / f"{make.__name__}.pickle"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of another process, which failed
            folder.mkdir()
            kept.write_bytes(pickle.dumps(make(folder)))
    made: Made = pickle.loads(kept.read_bytes())  # our own
    return made


def two_experiments(root: Path) -> Workbench:
    """Two experiments of two sites with two captures each, run to the end by stand-ins of the scripts."""
    (root / "work").mkdir()
    bench = Workbench(copy_of_workflow(root / "code", stubs=True), root / "work")
    bench.config = {
        "timezone": "-03:00",
        "experiments": {
            run: {
                "window": {"start": "2025-12-24 14:00:00", "end": "2025-12-24 15:00:00"},
                "sites": {
                    site: {"captures": f"data/{run}/{site}", "brokers": [f"192.0.2.{number}:9092"]}
                    for number, site in enumerate(("edge", "cloud"))
                },
            }
            for run in ("run1", "run2")
        },
    }
    for run, experiment in bench.config["experiments"].items():
        for site in experiment["sites"]:
            for name in CAPTURES:
                bench.capture(f"data/{run}/{site}/{name}", f"{run} {site} {name}")
    bench.run()
    return bench


def later_example(work: Path) -> Workbench:
    """The later experiment of the shipped example, run to the end by the real scripts."""
    (work / "resources").symlink_to(ROOT / "resources")
    bench = Workbench(ROOT, work, yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))
    del bench.config["experiments"]["experiment07"]
    bench.run()
    return bench


def report_of_fifty(folder: Path) -> Path:
    """The report of fifty sites, which takes as long to make as a dozen tests of others."""
    from report_results import many_sites, write_report

    return write_report(folder, many_sites(50))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """`two_experiments`: not to be changed."""
    return made_once(tmp_path_factory, two_experiments)


@pytest.fixture(scope="session")
def example_run(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """`later_example`: not to be changed, and no Snakemake to be run in it."""
    return made_once(tmp_path_factory, later_example)


@pytest.fixture(scope="session")
def fifty_sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`report_of_fifty`: not to be changed."""
    return made_once(tmp_path_factory, report_of_fifty)


@pytest.fixture
def bench(finished: Workbench, tmp_path: Path) -> Workbench:
    """A copy of the finished state, to change."""
    return finished.copied(tmp_path)
