"""`snakemake --report`: made without a network, with what a reader looks for, named and explained."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from workbench import ROOT, Workbench

TABLES = {("Metrics", "CSV"), ("Sites", "Parquet"), ("Comparisons", "Parquet")}
# Whatever asks for an address is sent to a port where nobody answers.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), "http://127.0.0.1:9")


def written(bench: Workbench, path: Path) -> Path:
    """Snakemake's own report on what the example left."""
    command = [sys.executable, "-m", "snakemake", "--directory", str(bench.work), "--configfile", str(bench.work / "my.yaml")]
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"} | NO_NETWORK
    done = subprocess.run([*command, "--report", str(path)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Missing metadata" not in done.stderr
    return path


def results_of(html: str) -> dict[str, dict[str, Any]]:
    """What the report offers, by its path, with caption and labels."""
    found = re.search(r'<script id="results">\s*var results = (.*?);\s*</script>', html, re.DOTALL)
    assert found
    results: dict[str, dict[str, Any]] = json.loads(found[1])
    return results


@pytest.fixture(scope="module")
def ended(example_run: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A copy of the real run, in which Snakemake can run."""
    return example_run.with_work_copied(tmp_path_factory.mktemp("ended"))


@pytest.fixture(scope="module")
def html(ended: Workbench, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(ended, tmp_path_factory.mktemp("report") / "out.html").read_text(encoding="utf-8")


def test_results_have_categories_labels_and_captions(html: str) -> None:
    results = results_of(html)
    categories = json.loads(re.search(r'<script id="categories">\s*var categories = (.*?);\s*</script>', html, re.DOTALL)[1])  # type: ignore[index]
    assert set(categories) == {"Report", "Figures", "Tables"}
    labels = [tuple(one["labels"].values()) for one in results.values()]
    assert {("The report", "HTML"), ("ecdf", "SVG"), ("timeline-experiment08-edge", "SVG")} | TABLES <= set(labels)
    assert len(labels) > 12
    captions = {one["labels"].get("what") or one["labels"]["figure"]: one["caption"] for one in results.values()}
    assert "the share of requests answered within a time" in captions["ecdf"]
    assert "An empty value is not known, never zero." in captions["Metrics"]
    assert all("<p>" in caption and "{{" not in caption for caption in captions.values())


def test_the_results_are_inside(ended: Workbench, html: str) -> None:
    report = next(one for one in results_of(html).values() if "HTML" in one["labels"].values())
    assert report["data_uri"].startswith("data:text/html")
    assert len(report["data_uri"]) > (ended.work / "results/report/index.html").stat().st_size
    assert "compared between sites and experiments" in html, "the description of the workflow"


def test_the_same_as_a_zip(ended: Workbench, tmp_path: Path) -> None:
    with zipfile.ZipFile(written(ended, tmp_path / "out.zip")) as packed:
        by_name = {Path(name).name: name for name in packed.namelist()}
        assert {"report.html", "index.html", "metrics.csv", "ecdf.svg", "comparisons.parquet"} <= by_name.keys()
        assert packed.read(by_name["metrics.csv"]) == (ended.work / "results/metrics.csv").read_bytes()
