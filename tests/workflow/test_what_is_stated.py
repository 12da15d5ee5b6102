"""What the report of the shipped example says, against what was put into its links (`resources/example/truth.json`)."""

from __future__ import annotations

import json
import math
import re

import polars as pl
import pytest
from workbench import ROOT, Workbench

LINKS = json.loads((ROOT / "resources" / "example" / "truth.json").read_text())["experiments"]["experiment08"]["link"]


@pytest.fixture(scope="module")
def comparisons(example_run: Workbench) -> pl.DataFrame:
    return pl.read_parquet(example_run.work / "results" / "comparisons" / "comparisons.parquet")


def mean_delay(link: dict[str, float]) -> float:
    """Both ways, ms: each way is the given delay plus the absolute value of a normal deviate, whose mean is sd * sqrt(2 / pi)."""
    return 2.0 * (link["one_way_delay_ms"] + link["jitter_ms"] * math.sqrt(2.0 / math.pi))


def test_the_difference_of_the_links_lies_in_the_interval(comparisons: pl.DataFrame) -> None:
    put_in = mean_delay(LINKS["edge"]) - mean_delay(LINKS["cloud"])
    row = comparisons.filter(scope="sites", metric="kafka_latency", group="all", statistic="p50").row(0, named=True)
    assert row["verdict"] == "differs"
    assert row["difference_low"] < put_in < row["difference_high"]


def test_the_loss_of_each_link_has_an_interval(comparisons: pl.DataFrame, example_run: Workbench) -> None:
    metrics = pl.read_parquet(example_run.work / "results" / "metrics", hive_partitioning=True)
    loss = metrics.filter(metric="retransmissions", group="all", statistic="ratio_of_sums", site="edge").row(0, named=True)
    assert loss["ci_low"] < loss["value"] < loss["ci_high"]
    # Most segments that were lost are sent again once; what was sent again needlessly comes on top.
    assert loss["ci_low"] < LINKS["edge"]["loss"] * 1.25
    assert loss["ci_high"] > LINKS["edge"]["loss"]


def test_the_first_screen_names_the_worst_minute(example_run: Workbench) -> None:
    page = (example_run.work / "results" / "report" / "index.html").read_text()
    summary = re.sub(r"<[^>]+>", "", page[page.index("When was it worst?") :])[:300]
    # The clients' own times have their worst minute from about 14:15:05 on.
    assert re.search(r"edge, 14:1[45]:\d\d to 14:1[56]:\d\d on 26 December 2025: p95 2\d\d ms", summary), summary
