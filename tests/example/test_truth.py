"""The example against what its clients logged (`resources/example/truth.json`)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from sites import BROKERS, EXAMPLE, Site, run_site, shipped

TRUTH = json.loads((EXAMPLE / "truth.json").read_text())
SITES = [(experiment, site) for experiment in TRUTH["experiments"] for site in BROKERS]
LIBRDKAFKA = {"ApiVersion": "ApiVersions"}


@pytest.fixture(scope="module", params=SITES, ids="/".join)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Site]:
    experiment, name = request.param
    return experiment, name, run_site(shipped(experiment, name), BROKERS[name], tmp_path_factory.mktemp(name))


def matched(
    logged: list[dict[str, Any]], requests: pl.DataFrame
) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[dict[str, Any]]]:
    """Each logged request with the captured one of its client, api, version, id and size that was sent within a second; and those without."""
    captured: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    rows = requests.with_columns(sent=pl.col("request_first").dt.epoch("ns") / 1e9)
    for row in rows.iter_rows(named=True):
        captured.setdefault(
            (row["client_id"], row["api_name"], row["api_version"], row["correlation_id"], row["request_bytes"]), []
        ).append(row)
    pairs, missing = [], []
    for entry in logged:
        api = LIBRDKAFKA.get(entry["api"], entry["api"])
        same = captured.get((entry["client_id"], api, entry["version"], entry["correlation_id"], entry["request_bytes"]), [])
        near = min(same, key=lambda row: abs(row["sent"] - entry["sent"]), default=None)
        if near is None or abs(near["sent"] - entry["sent"]) > 1:
            missing.append(entry)
        else:
            same.remove(near)
            pairs.append((entry, near))
    return pairs, missing


def test_every_logged_request_is_there(site: tuple[str, str, Site]) -> None:
    experiment, name, found = site
    pairs, missing = matched(TRUTH["experiments"][experiment]["requests"][name], found.requests)
    assert not missing
    wrong = [(entry, row) for entry, row in pairs if (row["status"] == "answered") != (entry["rtt_ms"] is not None)]
    assert not wrong
    sizes = [
        (entry, row) for entry, row in pairs if entry["response_bytes"] is not None and row["response_bytes"] != entry["response_bytes"] + 8
    ]
    assert not sizes


def test_round_trips_of_the_clients(site: tuple[str, str, Site]) -> None:
    """Where nothing was lost, the client's own round trip is `total_ms`; it reads its clock after its system call returns."""
    experiment, name, found = site
    pairs, _ = matched(TRUTH["experiments"][experiment]["requests"][name], found.requests)
    both = [(entry["rtt_ms"], row["total_ms"]) for entry, row in pairs if entry["rtt_ms"] is not None and row["total_ms"] is not None]
    excess = np.array([client - total for client, total in both])
    assert len(excess) > 1000
    assert -0.1 <= float(np.median(excess)) <= 0.3
    if not TRUTH["experiments"][experiment]["link"][name]["loss"]:
        assert excess.min() >= -4 and excess.max() <= 5


def test_packets(site: tuple[str, str, Site]) -> None:
    experiment, name, found = site
    truth = TRUTH["experiments"][experiment]["sites"][name]
    others = truth["packets_in_captures"] - found.packets.height  # the edge's HTTP requests to the same host
    assert others == 0 if name == "cloud" else 0 <= others < truth["packets_in_captures"] / 5


def test_round_trip_of_the_link(site: tuple[str, str, Site]) -> None:
    """The median round trip is what the link's two ways add up to, and no handshake is quicker than its delays."""
    experiment, name, found = site
    link = TRUTH["experiments"][experiment]["link"][name]
    trips = found.packets.filter(pl.col("from_broker"))["rtt_ms"].drop_nulls()
    expected = 2 * (link["one_way_delay_ms"] + 0.8 * link["jitter_ms"])
    assert trips.median() == pytest.approx(expected, rel=0.15)
    handshakes = found.connections["handshake_broker_ms"].drop_nulls()
    assert handshakes.len() > 0 and float(str(handshakes.min())) >= 2 * link["one_way_delay_ms"]


def test_resets(site: tuple[str, str, Site]) -> None:
    """The client's RST segments, by its kernel's counter (experiment08's clients ended after the captures)."""
    experiment, name, found = site
    counted = TRUTH["experiments"][experiment]["counters"][f"{name} client"]["TcpOutRsts"]
    sent = found.connections["resets_to_broker"].sum()
    assert sent == counted if experiment == "experiment07" else sent <= counted
