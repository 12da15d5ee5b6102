"""Records of the example from producer to consumer, against what its clients counted and what its links are set to (`truth.json`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sites import BROKERS, EXAMPLE, read_pcap, run_experiment, shipped, write_pcap

SITES = tuple(BROKERS)


@pytest.fixture(scope="module", params=["experiment07", "experiment08"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], pl.DataFrame]:
    """An experiment, its truth, and its deliveries; one clock stamped all packets."""
    truth = json.loads((EXAMPLE / "truth.json").read_text())["experiments"][request.param]
    captures = {site: shipped(request.param, site) for site in SITES}
    return request.param, truth, run_experiment(captures, tmp_path_factory.mktemp("deliveries"))


def test_every_record_that_a_consumer_counted_was_delivered_to_it(run: tuple[str, dict[str, Any], pl.DataFrame]) -> None:
    """Each consumer is a group of its own."""
    _, truth, deliveries = run
    counted = {client["name"]: client["consumed"] for client in truth["clients"] if client["consumed"]}
    records = deliveries.group_by("fetch_client_id").agg(pl.col("record_count").sum())
    assert dict(records.iter_rows()) == counted
    assert set(deliveries["status"]) == {"delivered"} and deliveries["status_reason"].null_count() == deliveries.height


def test_no_record_was_faster_than_both_links(run: tuple[str, dict[str, Any], pl.DataFrame]) -> None:
    _, truth, deliveries = run
    delay = {site: truth["link"][site]["one_way_delay_ms"] for site in SITES}
    least = pl.col("produce_site").replace_strict(delay) + pl.col("fetch_site").replace_strict(delay)
    assert deliveries.select((pl.col("delivery_ms") >= least).all()).item()


def test_the_parts_are_those_of_the_links(run: tuple[str, dict[str, Any], pl.DataFrame]) -> None:
    """Nothing of a part is negative, where all are known they add up, and the network's are near the one-way delays where there is no loss."""
    experiment, truth, deliveries = run
    parts = deliveries.select("produce_network_ms", "broker_ms", "log_wait_ms", "fetch_network_ms")
    assert min(parts.min().row(0)) >= 0
    whole = deliveries.filter(pl.all_horizontal(pl.col(parts.columns).is_not_null()))
    assert whole.height > 0.9 * deliveries.height
    assert whole.select((pl.sum_horizontal(parts.columns) - pl.col("delivery_ms")).abs().max()).item() < 1e-6
    if experiment == "experiment07":
        for site in SITES:
            link = truth["link"][site]
            for side in ("produce", "fetch"):
                median = whole.filter(pl.col(f"{side}_site") == site)[f"{side}_network_ms"].median()
                assert link["one_way_delay_ms"] < median < link["one_way_delay_ms"] + 2.5 * link["jitter_ms"]


def test_without_a_word_about_clocks_both_directions_bound_them(tmp_path: Path) -> None:
    deliveries = run_experiment({site: shipped("experiment07", site) for site in SITES}, tmp_path, clock_offset_ms=None)
    cross = deliveries.filter(pl.col("produce_site") != pl.col("fetch_site"))
    assert set(cross["status_reason"]) == {"clocks_unknown"}
    fastest = cross.group_by("produce_site").agg(pl.col("delivery_ms").min())["delivery_ms"]
    assert cross["clock_uncertainty_ms"].unique().to_list() == [pytest.approx(fastest.max())]
    assert deliveries.filter(pl.col("produce_site") == pl.col("fetch_site"))["clock_uncertainty_ms"].unique().to_list() == [0]


def test_cuts_and_shards_change_no_delivery(run: tuple[str, dict[str, Any], pl.DataFrame], tmp_path: Path) -> None:
    experiment, _, expected = run
    joined = {}
    for site in SITES:
        files = [read_pcap(capture) for capture in shipped(experiment, site)]
        joined[site] = [write_pcap(tmp_path / f"{site}.pcap", files[0][0], [record for _, records in files for record in records])]
    assert_frame_equal(run_experiment(joined, tmp_path / "joined", shards=2), expected)
