"""The data set `comparisons` from small made-up data sets whose truth is known."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from brokerlens import tables
from brokerlens.statistics.sentences import beside, difference_sentence
from compare import compare

START = int(dt.datetime(2025, 12, 26, 17, 15, tzinfo=dt.UTC).timestamp()) * 10**9
SECOND = 10**9
SETTINGS = {"baseline": None, "margin": 0.05, "share_over_ms": 200.0}


@dataclass(frozen=True)
class Made:
    """One site's traffic: requests of lognormal latency spread evenly over ten connections, and one data segment each way per request."""

    experiment: str
    site: str
    median_ms: float = 50.0
    spread: float = 0.3
    requests: int = 2_000
    loss: float = 0.01
    seconds: int = 600
    tap: str = "client"
    condition: str | None = None
    unseen: float = 0.0
    window: tuple[int, int] | None = (START, START + 600 * SECOND)
    begins: int = START
    hidden: int = 0
    seed: int = 1
    facts: Mapping[str, Any] = field(default_factory=dict)


def blank(dataset: str, n: int, columns: Mapping[str, Any]) -> pa.Table:
    """A table of n rows: the columns given, nulls where they may be, else zeros, false or empty text."""
    arrays = []
    for column in tables.DATASETS[dataset]:
        if column.name in columns and n:
            arrays.append(pa.array(columns[column.name]).cast(column.type))
        elif column.nullable:
            arrays.append(pa.nulls(n, column.type))
        elif column.type == tables.BOOL:
            arrays.append(pa.array(np.zeros(n, bool)))
        elif column.type in (tables.WORD, tables.TEXT):
            arrays.append(pa.array([""] * n).cast(column.type))
        elif column.type == tables.TEXTS:
            arrays.append(pa.array([[]] * n, column.type))
        else:
            arrays.append(pa.array(np.zeros(n, np.int64)).cast(column.type))
    return pa.Table.from_arrays(arrays, schema=tables.schema(dataset))


def make(root: Path, sites: Sequence[Made]) -> dict[str, Any]:
    """Write the data sets and return the arguments of `compare`."""
    files: dict[str, list[str]] = {name: [] for name in ("requests", "packets", "connections", "metrics")}
    for made in sites:
        rng = np.random.default_rng(made.seed)
        n = made.requests
        at = made.begins + np.sort(rng.integers(0, made.seconds * SECOND, n))
        latency = made.median_ms * rng.lognormal(0.0, made.spread, n)
        ids = [f"10.0.0.1:{4000 + k % 10}-10.0.0.2:9092#1" for k in range(n)]
        lost = rng.random(n) < made.loss
        data = {
            "requests": blank("requests", n, {
                "connection_id": ids, "api_key": [0] * n, "api_name": ["Produce"] * n, "status": ["answered"] * n, "request_first": at,
                "request_last": at, "latency_ms": latency, "queue_ms": np.zeros(n), "service_ms": latency, "broker_ms": latency * 0.2,
                "correlation_id": np.arange(n), "total_ms": latency + 1.0, "record_bytes": np.full(n, 50),
                "record_count": pa.array([None if k < made.hidden else 2 for k in range(n)], pa.uint32()),
            }),
            "packets": blank("packets", 2 * n, {
                "timestamp": np.repeat(at, 2), "connection_id": np.repeat(ids, 2), "from_broker": np.tile([False, True], n),
                "segment": np.column_stack([np.where(lost, "retransmitted", "new"), np.full(n, "new")]).ravel(),
                "rtt_ms": pa.array(np.column_stack([np.full(n, np.nan), latency * 0.5]).ravel(), from_pandas=True),
                "payload_len": np.full(2 * n, 100), "acked_bytes": np.tile([0, 100], n), "unseen_bytes": np.tile([0, int(100 * made.unseen)], n), "wire_len": np.full(2 * n, 100),
            }),
            "connections": blank("connections", min(n, 10), {
                "connection_id": sorted(set(ids)), "first_seen": np.full(min(n, 10), at.min() if n else 0),
                "last_seen": np.full(min(n, 10), at.max() if n else 0), "ended": ["fin"] * min(n, 10), "tap": [made.tap] * min(n, 10),
            }),
            "metrics": blank("metrics", 1, {
                "metric": ["capture_loss"], "group": ["all"], "statistic": ["ratio_of_sums"], "value": [made.unseen], "n": [100 * n],
            }),
        }  # fmt: skip
        for name, table in data.items():
            path = root / name / f"experiment={made.experiment}" / f"site={made.site}" / "part-0000.parquet"
            tables.write(table, path, name, {})
            files[name].append(str(path))
    window = [made.window or (None, None) for made in sites]
    facts = {
        "experiment": [made.experiment for made in sites],
        "site": [made.site for made in sites],
        "condition": [made.condition or made.experiment for made in sites],
        "window_start": pa.array([start for start, _ in window], pa.int64()),
        "window_end": pa.array([end for _, end in window], pa.int64()),
        "tap_configured": ["auto"] * len(sites),
        "tap_found": [made.tap for made in sites],
        "first_seen": [made.begins for made in sites],
        "last_seen": [made.begins + made.seconds * SECOND for made in sites],
    }
    tables.write(blank("sites", len(sites), facts), root / "sites.parquet", "sites", {})
    return {"sites": str(root / "sites.parquet"), **files}


def compared(tmp_path: Path, sites: Sequence[Made], **settings: Any) -> pl.DataFrame:
    """The rows that `compare` writes."""
    arguments = make(tmp_path, sites)
    compare(**arguments, settings=SETTINGS | settings, output=tmp_path / "comparisons.parquet")
    return pl.read_parquet(tmp_path / "comparisons.parquet")


def one(rows: pl.DataFrame, metric: str, statistic: str, group: str = "all", **more: Any) -> dict[str, Any]:
    """The single row of that name."""
    return rows.filter(metric=metric, statistic=statistic, group=group, **more).row(0, named=True)


def test_a_slower_site_differs_and_the_sentence_says_by_how_much(tmp_path: Path) -> None:
    rows = compared(tmp_path, [Made("e1", "edge", 80.0, seed=1), Made("e1", "cloud", 50.0, seed=2)])
    p50 = one(rows, "kafka_latency", "p50")
    assert p50["verdict"] == "differs"
    assert p50["paired"]
    assert p50["difference_low"] < 30.0 < p50["difference_high"]
    assert p50["ratio_low"] < 1.6 < p50["ratio_high"]
    assert p50["p_holm"] < 0.001
    assert p50["family_size"] == 4  # p50 and p95 of the latency, p50 of rtt to the broker, loss; no round trips to the client
    assert (p50["n_a"], p50["n_b"], p50["connections_a"], p50["overlap_seconds"]) == (2000, 2000, 10, 600.0)
    sentence = difference_sentence(p50)
    assert sentence.startswith("Kafka latency at edge is higher than at cloud: p50 by ")
    assert sentence.endswith("; adjusted p < 0.001 among 4 comparisons.")
    assert beside(p50) == "2,000 and 2,000 requests, 10 and 10 connections, 10 minutes in common, one run per site"


def test_equal_sites_are_equivalent_where_the_margin_allows_and_never_called_equal_otherwise(tmp_path: Path) -> None:
    rows = compared(tmp_path, [Made("e1", "edge", seed=3), Made("e1", "cloud", seed=4)])
    assert one(rows, "kafka_latency", "p50")["verdict"] == "equivalent_within_margin"
    assert "differs by less than the margin of 5 %" in difference_sentence(one(rows, "kafka_latency", "p50"))
    tight = compared(tmp_path, [Made("e1", "edge", seed=3), Made("e1", "cloud", seed=4)], margin=0.001)
    assert one(tight, "kafka_latency", "p50")["verdict"] == "undecided"
    assert "the data do not decide" in difference_sentence(one(tight, "kafka_latency", "p50"))


def test_effect_sizes_agree_with_the_truth(tmp_path: Path) -> None:
    rows = compared(tmp_path, [Made("e1", "edge", 60.0, seed=5), Made("e1", "cloud", 50.0, seed=6)])
    ratio = one(rows, "kafka_latency", "hl_ratio")
    assert ratio["ratio_low"] < 1.2 < ratio["ratio_high"]
    shift = one(rows, "kafka_latency", "hl_shift")
    assert shift["difference_low"] < 10.0 < shift["difference_high"]
    delta = one(rows, "kafka_latency", "cliffs_delta")
    # P(a > b) of two lognormals whose logs differ by log 1.2 with sd 0.3 each: Phi(log 1.2 / (0.3 sqrt 2)) = 0.666.
    assert delta["difference_low"] < 2 * 0.6663 - 1 < delta["difference_high"]
    distance = one(rows, "kafka_latency", "wasserstein1")
    assert distance["difference_low"] < 10.0 * np.exp(0.045) < distance["difference_high"]
    assert distance["noise_floor"] > 0.0
    assert {row["verdict"] for row in (ratio, shift, delta, distance)} == {"described"}
    assert "of pairs" in difference_sentence(delta)


def test_secondary_rows_carry_no_p(tmp_path: Path) -> None:
    rows = compared(tmp_path, [Made("e1", "edge", 80.0, seed=1), Made("e1", "cloud", 50.0, seed=2)])
    secondary = rows.filter(~pl.col("primary"))
    assert secondary["p_value"].null_count() == secondary.height
    assert set(secondary["verdict"]) <= {"described", "too_few_samples"}


def test_sides_with_other_taps_keep_their_numbers_but_get_no_p(tmp_path: Path) -> None:
    rows = compared(tmp_path, [Made("e1", "edge", 80.0, seed=1), Made("e1", "cloud", 50.0, tap="broker", seed=2)])
    assert set(rows["verdict"]) == {"not_comparable"}
    assert rows["p_value"].null_count() == rows.height
    p50 = one(rows, "kafka_latency", "p50")
    assert p50["estimate_a"] is not None
    assert p50["difference_low"] is not None
    assert difference_sentence(p50) == "Not compared: edge was captured at the client, cloud at the broker."


def test_an_unknown_tap_is_a_caution(tmp_path: Path) -> None:
    rows = compared(tmp_path, [Made("e1", "edge", 80.0, seed=1), Made("e1", "cloud", 50.0, tap="unknown", seed=2)])
    p50 = one(rows, "kafka_latency", "p50")
    assert p50["verdict"] == "differs"
    assert p50["reason"] == "caution: it is not known where cloud was captured"


def test_capture_loss_above_a_percent_forbids_the_comparison(tmp_path: Path) -> None:
    rows = compared(tmp_path, [Made("e1", "edge", seed=1), Made("e1", "cloud", unseen=0.05, seed=2)])
    assert one(rows, "kafka_latency", "p50")["reason"] == "5.0 % of what was acknowledged at cloud was never captured"
    assert set(rows["verdict"]) == {"not_comparable"}


def test_few_requests_give_points_and_a_reason(tmp_path: Path) -> None:
    rows = compared(tmp_path, [Made("e1", "edge", seed=1), Made("e1", "cloud", requests=250, seed=2)])
    p99 = one(rows, "kafka_latency", "p99")
    assert p99["verdict"] == "too_few_samples"
    assert p99["estimate_b"] is not None
    assert (p99["low_b"], p99["difference_low"], p99["p_value"]) == (None, None, None)
    assert p99["reason"] == "cloud: 250 samples; 1,000 needed"
    assert difference_sentence(p99) == "Kafka latency: too few requests for p99 (cloud: 250 requests; 1,000 needed)."
    p50 = one(rows, "kafka_latency", "p50")
    assert (p50["verdict"], p50["p_holm"], p50["family_size"]) == ("too_few_samples", None, None)


def test_nothing_lost_at_a_site_is_no_number(tmp_path: Path) -> None:
    rows = compared(tmp_path, [Made("e1", "edge", seed=1), Made("e1", "cloud", loss=0.0, seed=2)])
    loss = one(rows, "retransmissions", "ratio_of_sums")
    assert (loss["verdict"], loss["low_b"], loss["estimate_b"]) == ("too_few_samples", None, 0.0)
    assert loss["reason"] == "cloud: none in 4,000"


def test_a_higher_loss_ratio_differs(tmp_path: Path) -> None:
    rows = compared(tmp_path, [Made("e1", "edge", loss=0.06, seed=1), Made("e1", "cloud", loss=0.01, seed=2)])
    loss = one(rows, "retransmissions", "ratio_of_sums")
    assert (loss["verdict"], loss["sampling"], loss["n_a"], loss["unit"]) == ("differs", "connections", 4000, "share")
    assert loss["difference_low"] < 0.025 < loss["difference_high"]


def test_the_window_is_applied(tmp_path: Path) -> None:
    first_half = START, START + 300 * SECOND
    rows = compared(tmp_path, [Made("e1", "edge", window=first_half, seed=1), Made("e1", "cloud", window=first_half, seed=2)])
    p50 = one(rows, "kafka_latency", "p50")
    assert 900 < p50["n_a"] < 1100
    assert p50["overlap_seconds"] == 300.0


def test_a_window_that_the_captures_do_not_cover_forbids_the_comparison(tmp_path: Path) -> None:
    wide = START, START + 1200 * SECOND
    rows = compared(tmp_path, [Made("e1", "edge", window=wide, seed=1), Made("e1", "cloud", window=wide, seconds=1200, seed=2)])
    assert one(rows, "kafka_latency", "p50")["reason"] == "the captures of edge cover 50 % of its window"


def test_a_site_has_the_same_figures_in_all_pairs_and_one_that_stopped_early_cuts_no_other(tmp_path: Path) -> None:
    a, b, late = Made("e1", "a", seed=1), Made("e1", "b", seed=2), Made("e1", "late", seed=3, begins=START + SECOND)
    rows = compared(tmp_path / "1", [a, b, late])
    p95 = rows.filter(metric="kafka_latency", group="all", statistic="p95", site_a="a")
    assert p95["n_a"].n_unique() == p95["estimate_a"].n_unique() == 1
    assert p95["paired"].all()
    early = Made("e1", "early", seed=3, seconds=500)
    rows = compared(tmp_path / "2", [a, b, early]).filter(metric="kafka_latency", group="all", statistic="p95", site_a="a")
    assert rows.select("site_b", "paired").rows() == [("b", True), ("early", True)]
    assert rows["n_a"][0] == 2_000
    assert rows["n_a"][1] < 1_750


def test_experiments_are_compared_with_the_one_before_and_never_paired(tmp_path: Path) -> None:
    sites = [Made(name, "edge", median, seed=seed) for seed, (name, median) in enumerate([("e1", 50.0), ("e2", 60.0), ("e3", 80.0)])]
    rows = compared(tmp_path, sites)
    assert set(rows["scope"]) == {"experiments"}
    assert rows.select("experiment_a", "experiment_b").unique(maintain_order=True).rows() == [("e2", "e1"), ("e3", "e2")]
    p50 = one(rows, "kafka_latency", "p50", experiment_a="e3")
    assert not p50["paired"]
    assert p50["overlap_seconds"] is None
    assert p50["family_size"] == 8
    assert difference_sentence(p50).startswith("Kafka latency at edge in e3 is higher than in e2: p50 by ")


@pytest.mark.parametrize("baseline", ["e1", "before"])
def test_the_baseline_is_an_experiment_or_a_condition(tmp_path: Path, baseline: str) -> None:
    sites = [Made("e1", "edge", 50.0, condition="before"), Made("e2", "edge", 60.0, seed=2), Made("e3", "edge", 80.0, seed=3)]
    rows = compared(tmp_path, sites, baseline=baseline).filter(scope="baseline")
    assert rows.select("experiment_a", "experiment_b").unique(maintain_order=True).rows() == [("e2", "e1"), ("e3", "e1")]


def repeated(condition: str, medians: Sequence[float], seed: int, **more: Any) -> list[Made]:
    """Runs of one condition, whose medians differ from run to run."""
    return [
        Made(f"{condition}{k}", "edge", median, requests=600, condition=condition, seed=seed + k, **more)
        for k, median in enumerate(medians, 1)
    ]


def test_four_runs_of_each_condition_make_the_run_what_varies(tmp_path: Path) -> None:
    sites = [*repeated("normal", [48.0, 50.0, 52.0, 50.0], 10), *repeated("degraded", [75.0, 85.0, 80.0, 82.0], 20)]
    rows = compared(tmp_path, sites)
    by_runs = rows.filter(scope="conditions")
    p50 = one(by_runs, "kafka_latency", "p50")
    assert (p50["condition_a"], p50["condition_b"], p50["experiment_a"], p50["runs_a"], p50["runs_b"]) == ("degraded", "normal", None, 4, 4)
    assert (p50["n_a"], p50["sampling"], p50["verdict"]) == (2_400, "runs", "differs")
    assert p50["difference_low"] < 30.5 < p50["difference_high"]
    # As wide as runs differ (standard deviation about 4 and 2 ms), not as 2,400 requests of one run would have it (about 1 ms).
    assert 6.0 < p50["difference_high"] - p50["difference_low"] < 20.0
    sentence = difference_sentence(p50)
    assert sentence.startswith("Kafka latency at edge in degraded is higher than in normal: p50 by ")
    assert beside(p50) == "2,400 and 2,400 requests, 40 and 40 connections, 4 and 4 runs"
    assert set(by_runs["statistic"]) == {"p50", "p90", "p95", "p99", "mean", "share_over", "ratio_of_sums"}
    p99 = one(by_runs, "kafka_latency", "p99")
    assert (p99["verdict"], p99["estimate_a"]) == ("too_few_samples", None)  # 600 requests: six beyond p99 in each run
    assert difference_sentence(p99) == (
        "Kafka latency: no interval over runs for p99 (edge in degraded: no run has an estimate; edge in normal: no run has an estimate)."
    )
    # Runs of one condition are still set against each other, those of different conditions no more.
    alone = rows.filter(scope="experiments").select("condition_a", "condition_b").unique()
    assert sorted(alone.rows()) == [("degraded", "degraded"), ("normal", "normal")]


def test_the_baseline_may_be_a_condition_of_many_runs(tmp_path: Path) -> None:
    sites = [*repeated("normal", [48.0, 50.0, 52.0, 50.0], 10), *repeated("degraded", [75.0, 85.0, 80.0, 82.0], 20)]
    rows = compared(tmp_path, sites, baseline="normal").filter(scope="baseline")
    assert rows.select("condition_a", "condition_b", "experiment_a", "runs_b").unique().rows() == [("degraded", "normal", None, 4)]


def test_the_baseline_may_be_one_run_of_a_condition_of_many(tmp_path: Path) -> None:
    sites = [*repeated("normal", [48.0, 50.0, 52.0, 50.0], 10), *repeated("degraded", [75.0, 85.0, 80.0, 82.0], 20)]
    rows = compared(tmp_path, sites, baseline="normal1").filter(scope="baseline")
    pairs = rows.select("experiment_a", "experiment_b").unique(maintain_order=True).rows()
    assert pairs == [(name, "normal1") for name in ("normal2", "normal3", "normal4", "degraded1", "degraded2", "degraded3", "degraded4")]


def test_a_run_without_an_estimate_is_left_out_and_said(tmp_path: Path) -> None:
    degraded = repeated("degraded", [75.0, 85.0, 80.0, 82.0, 79.0], 20)
    sites = [*repeated("normal", [48.0, 50.0, 52.0, 50.0], 10), *degraded[:4], dataclasses.replace(degraded[4], requests=90)]
    rows = compared(tmp_path, sites).filter(scope="conditions")
    p90 = one(rows, "kafka_latency", "p90")
    assert (p90["runs_a"], p90["n_eff_a"], p90["verdict"]) == (5, 4.0, "described")
    assert p90["reason"] == "edge in degraded: 4 of 5 runs have an estimate"
    assert one(rows, "kafka_latency", "p50")["reason"] is None


def test_three_runs_are_compared_one_by_one(tmp_path: Path) -> None:
    sites = [*repeated("normal", [48.0, 50.0, 52.0], 10), *repeated("degraded", [75.0, 85.0, 80.0, 82.0], 20)]
    assert set(compared(tmp_path, sites)["scope"]) == {"experiments"}


def test_one_run_taken_elsewhere_makes_conditions_incomparable(tmp_path: Path) -> None:
    runs = repeated("degraded", [75.0, 85.0, 80.0, 82.0], 20)
    sites = [*repeated("normal", [48.0, 50.0, 52.0, 50.0], 10), *runs[:3], dataclasses.replace(runs[3], tap="broker")]
    rows = compared(tmp_path, sites).filter(scope="conditions")
    assert set(rows["verdict"]) == {"not_comparable"}
    assert rows["reason"][0] == "edge in degraded1 was captured at the client, edge in degraded4 at the broker"


def test_every_quantity_is_compared(tmp_path: Path) -> None:
    dense: dict[str, Any] = {"seconds": 20, "window": (START, START + 20 * SECOND)}
    rows = compared(tmp_path, [Made("e1", "edge", 80.0, seed=1, **dense), Made("e1", "cloud", 50.0, seed=2, **dense)])
    parts = {"kafka_queue", "kafka_broker", "kafka_network", "kafka_transfer"}
    rates = {"throughput", "goodput", "request_rate", "record_rate", "record_byte_rate"}
    assert parts | rates | {"rtt", "iat_mas", "rtt_ipdv", "rtt_pdv", "retransmissions", "connections_reset"} <= set(rows["metric"])
    # Two thousand requests of two records each in 20 s.
    rate = one(rows, "record_rate", "mean", "api=Produce")
    assert (rate["unit"], rate["estimate_a"]) == ("records/s", pytest.approx(4_000 / 20, rel=0.01))


def test_records_that_were_not_all_captured_have_no_rate(tmp_path: Path) -> None:
    rows = compared(tmp_path, [Made("e1", "edge", seed=1), Made("e1", "cloud", hidden=1, seed=2)])
    assert "record_rate" not in set(rows["metric"])
    assert "record_byte_rate" in set(rows["metric"])


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    arguments = make(tmp_path, [Made("e1", "edge", 80.0, seed=1), Made("e1", "cloud", 50.0, seed=2)])
    for name in ("first", "second"):
        compare(**arguments, settings=SETTINGS, output=tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_one_site_alone_has_nothing_to_compare_with(tmp_path: Path) -> None:
    assert compared(tmp_path, [Made("e1", "edge")]).height == 0


def test_a_site_whose_window_holds_nothing_is_not_comparable(tmp_path: Path) -> None:
    later = START + 3600 * SECOND, START + 7200 * SECOND
    rows = compared(tmp_path, [Made("e1", "edge", seed=1), Made("e1", "cloud", window=later, seed=2), Made("e1", "fog", seed=3)])
    assert "not_comparable" not in set(rows.filter(site_b="fog", site_a="edge")["verdict"])
    p50 = one(rows, "kafka_latency", "p50", site_b="cloud")
    assert (p50["verdict"], p50["reason"]) == ("not_comparable", "no packets of cloud are inside its window")
    assert (p50["n_b"], p50["estimate_b"]) == (0, None)


def test_a_site_without_requests_takes_no_other_with_it(tmp_path: Path) -> None:
    rows = compared(tmp_path, [Made("e1", "edge", seed=1), Made("e1", "cloud", requests=0, seed=2), Made("e1", "fog", seed=3)])
    assert one(rows, "kafka_latency", "p50", site_b="fog", site_a="edge")["verdict"] in ("undecided", "equivalent_within_margin")
    assert set(rows.filter(site_b="cloud")["verdict"]) == {"not_comparable"}
