"""`snakemake bundle`: what it reads again after a change, and what is in it after a real run."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import polars as pl
import pytest
from workbench import ROOT, Workbench, downstream_of_captures, splits

CAPTURES = {(run, site, name) for run in ("run1", "run2") for site in ("edge", "cloud") for name in ("a.pcap", "b.pcap")}


def test_without_being_asked_for_nothing_of_it_is_made(bench: Workbench) -> None:
    assert bench.planned() == set()
    assert bench.planned("bundle") == {"bundle", *(f"hash_capture {run}/{site}/{name}" for run, site, name in CAPTURES)}


def test_a_changed_capture_alone_is_hashed_again(bench: Workbench) -> None:
    bench.run("bundle")
    assert bench.planned("bundle") == set()
    bench.capture("data/run1/edge/a.pcap", "another", 1_600_000_000)
    changed = {"hash_capture run1/edge/a.pcap", "bundle"} | splits("run1", "edge", ["a.pcap"]) | downstream_of_captures("run1", "edge")
    assert bench.planned("bundle") == changed


def test_what_is_said_of_the_bundle_makes_it_alone_again(bench: Workbench) -> None:
    bench.run("bundle")
    bench.config["bundle"] = {"license": "CC-BY-4.0", "published": "2026-01-31"}
    assert bench.planned() == set()
    assert bench.planned("bundle") == {"bundle"}


@pytest.fixture
def ran(example_run: Workbench, tmp_path: Path) -> Workbench:
    """The real run, to be bundled elsewhere."""
    return example_run.with_work_copied(tmp_path)


def test_the_bundle_of_a_real_run(ran: Workbench) -> None:
    said = ran.run("bundle")
    path = ran.work / "results/bundle.zip"
    assert f"bundle: {path}" in said
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    results = ran.work / "results"
    assert files["report/index.html"] == (results / "report/index.html").read_bytes()
    assert files["sites.parquet"] == (results / "sites/sites.parquet").read_bytes()
    figures = {f"report/figures/{figure.name}" for figure in (results / "report/figures").glob("[!.]*")}
    assert figures == {name for name in files if name.startswith("report/figures/")}
    captures = pl.read_csv(io.BytesIO(files["captures.csv"]))
    assert captures.height == 18
    for row in captures.iter_rows(named=True):
        content = (ROOT / "resources/example" / row["experiment"] / row["site"] / row["capture"]).read_bytes()
        assert (row["bytes"], row["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    working = {hashlib.sha256(file.read_bytes()).digest() for file in (results / "intermediate").rglob("*") if file.is_file()}
    assert not working & {hashlib.sha256(content).digest() for content in files.values()}
    assert b"resources/example/experiment08/edge" in files["configuration.yaml"]
    first = path.read_bytes()
    ran.run("--force", "bundle")
    assert path.read_bytes() == first
