"""notebooks/explore.ipynb: its cells run as they stand, and say what the metrics say.

The cells run as one script in a process of its own: they use nothing of IPython, so a kernel would bring forty packages for nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import polars as pl
import pytest
from workbench import ROOT, Workbench

NOTEBOOK = json.loads((ROOT / "notebooks" / "explore.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
SHOWN = ("table", "latency_by_api", "timeline")
TELL = """
import json
print(json.dumps({"table": table.to_dicts(), "latency_by_api": latency_by_api.to_dict(), "timeline": timeline.to_dict()}))
"""


@pytest.fixture(scope="module")
def said(example_run: Workbench) -> dict[str, Any]:
    """What the notebook's last lines would show, as data."""
    environment = os.environ | {"BROKERLENS_RESULTS": str(example_run.work / "results")}
    script = "\n\n".join([*CODE, TELL])
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT / "notebooks", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_table_is_that_of_the_metrics(example_run: Workbench, said: dict[str, Any]) -> None:
    metrics = pl.read_csv(example_run.work / "results" / "metrics.csv", infer_schema_length=None)
    latency = metrics.filter((pl.col("metric") == "kafka_latency") & (pl.col("group") == "all"))
    assert [row["site"] for row in said["table"]] == ["cloud", "edge"]
    for row in said["table"]:
        expected = dict(latency.filter(pl.col("site") == row["site"]).select("statistic", "value").rows())
        assert row["requests"] == expected["count"]
        assert row["over 200 ms"] == pytest.approx(expected["share_over"])
        assert [row[name] for name in ("p50", "p95", "p99")] == pytest.approx([expected[name] for name in ("p50", "p95", "p99")])


def test_the_charts_have_what_they_promise(said: dict[str, Any]) -> None:
    (apis,) = said["latency_by_api"]["datasets"].values()
    assert {("edge", "Produce"), ("cloud", "Produce"), ("edge", "Fetch (waits)")} <= {(row["site"], row["api"]) for row in apis}
    assert all(row["p5"] <= row["p50"] <= row["p95"] for row in apis)
    (steps,) = said["timeline"]["datasets"].values()
    assert len(steps) > 40
    worst = max((row for row in steps if row["requests"] >= 20), key=lambda row: float(row["p95"]))
    assert worst["site"] == "edge"


def test_the_charts_can_be_drawn(said: dict[str, Any]) -> None:
    import vl_convert

    for name in ("latency_by_api", "timeline"):
        assert vl_convert.vegalite_to_svg(said[name]).count("<path") > 10


def test_the_window_is_applied_as_the_readme_says() -> None:
    window = next(source for source in CODE if "inside = " in source)
    lines = window[window.index("inside = ") : window.index("\n)") + 2]
    assert lines in (ROOT / "README.md").read_text(encoding="utf-8")


def test_no_output_is_stored_and_every_result_is_shown() -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code")
    assert [source.splitlines()[-1] for source in CODE[-3:]] == list(SHOWN)
