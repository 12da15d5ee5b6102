"""What the report says of connections that were captured at both ends, and that it says nothing where there are none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from both_ends_model import ID, MS, Packet, connections, moved, tap
from report_results import SECOND, START, Link, read_tree, write_tree

from brokerlens import tables
from brokerlens.metrics.one_way import add_paths
from brokerlens.metrics.rows import Rows
from brokerlens.metrics.window import Window
from brokerlens.report.ends import both_ends as section
from brokerlens.routes import matching, paths
from report import report

LINKS = (
    Link("experiment08", "edge", 42, 9.0, 0.037, 4.0, captures=2),
    Link("experiment08", "plant", 0.2, 0.1, 0.0, 4.0, captures=2, tap="broker"),
)


def traffic(seed: int = 3) -> list[Packet]:
    """2,000 packets in 200 s, 17 ms + |N(0, 8)| each way; every fortieth to the broker is lost."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(2000):
        back = bool(number % 2)
        sent = START + 10 * SECOND + number * 100 * MS
        received = sent + int((17 + abs(rng.normal(0, 8))) * MS)
        lost = not back and number % 80 == 20
        ends = (received, sent) if back else (sent, None if lost else received)
        found.append(Packet(*ends, from_broker=back, seq=number + 1, length=1, ip_id=number))
    return found


def write_both_ends(folder: Path, change: Callable[[list[Packet]], list[Packet]] = lambda packets: packets, **rest: Any) -> dict[str, Any]:
    """The tree of `report_results` with `paths` and the metrics of routes as their stages leave them; what it returns are ``report``'s arguments."""
    arguments = write_tree(folder, LINKS)
    known = connections((ID, 1, 2))
    packets = change(traffic())
    found = paths.both_ends(matching.candidate_pairs(known, known), tap(packets, "client"), tap(packets, "broker"), **rest)
    assert found is not None
    sites = {"client_site": pl.lit("edge"), "broker_site": pl.lit("plant")}
    times = START + 10 * SECOND + np.arange(500) * 100 * MS
    in_broker = pl.DataFrame(
        {"connection_id": [ID] * 500, "time": times, "measured_ms": [0.8] * 500, "inferred_ms": [5.8] * 400 + [None] * 100}
    )
    files = {
        "paths": folder / "results/paths/experiment=experiment08/paths.parquet",
        "metrics": folder / "results/metrics/experiment=experiment08/site=edge/routes.parquet",
    }
    table = paths.rows(found, in_broker).with_columns(**sites)
    tables.write(table.select(column.name for column in tables.PATHS).to_arrow(), files["paths"], "paths", {})
    rows = Rows()
    add_paths(rows, found.named_packets().with_columns(**sites), in_broker.with_columns(**sites), Window(START, START + 240 * SECOND))
    tables.write(rows.table(), files["metrics"], "metrics", {})
    return arguments | {"paths": [str(files["paths"])], "metrics": [*arguments["metrics"], str(files["metrics"])]}


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    arguments = write_both_ends(tmp_path_factory.mktemp("ends"))
    report(**arguments)
    return Path(arguments["output"]).read_text(encoding="utf-8")


def text_of(html: str) -> str:
    """The section as plain words."""
    found = re.search(r'<section id="both-ends">(.*?)</section>', html, re.DOTALL)
    assert found is not None
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"</?bdi>", "", found[1])))


def test_each_way_stands_beside_one_ends_estimate(html: str) -> None:
    said = text_of(html)
    assert "What happens on the way between client and broker?" in said
    for way in ("to the broker", "to the client"):
        assert way in said
    # 17 + 0.674 · 8 ms in the middle; 25 of 1,000 lost one way, none the other.
    medians = [float(value) for value in re.findall(r"(?:to the broker|to the client) experiment08 ([0-9.]+)", said)]
    assert medians == pytest.approx([22.4, 22.4], abs=0.8)
    assert "2.50 %" in said
    assert "0 %" in said


def test_time_in_the_broker_is_the_measured_one(html: str) -> None:
    assert re.search(r"plant experiment08 0\.800 .*? 5\.80 ", text_of(html))


def test_the_clocks_are_stated(html: str) -> None:
    said = text_of(html)
    assert re.search(r"The clock of plant is 0\.\d+ ms (ahead of|behind) that of edge: estimated to ± ?0\.\d+ ms if the fastest", said)
    assert re.search(r"packets alone rule out no more than that it is off by 17\.\d ms", said)
    assert 'href="#both-ends"' in html
    assert 'id="def-both_ends"' in html


@pytest.mark.parametrize(
    ("change", "rest", "sentence"),
    [
        (lambda packets: moved(packets, 3_600_000 * MS), {}, "One of them is set wrong; the figures are put right for it."),
        (lambda packets: moved(packets, 4 * MS), {"configured_ms": 5.0}, "The clock of plant is 5.00 ms ahead of that of edge, as configured."),
        (lambda packets: packets, {"configured_ms": 500.0}, "Their clocks are not known (with the configured offset packets would have arrived"),
        (
            lambda packets: [*packets[:1000], *moved(packets[1000:], 30 * MS)],
            {},
            "Their clocks are not known (a clock was set while they ran), so there is no one-way delay.",
        ),
    ],
)  # fmt: skip
def test_what_is_known_of_the_clocks(
    change: Callable[[list[Packet]], list[Packet]], rest: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    (statement,) = section(read_tree(write_both_ends(tmp_path, change, **rest))).statements
    assert sentence in statement.striptags()


def test_clocks_that_are_not_known_leave_the_loss_and_no_delay(tmp_path: Path) -> None:
    found = section(read_tree(write_both_ends(tmp_path, configured_ms=500.0)))
    there = found.rows[0].cells
    assert [(cell.value, cell.small) for cell in there[:3]] == [("–", "clocks unknown")] * 3
    assert there[3].value == "2.50 %"


def test_without_metrics_of_routes_the_connections_speak(tmp_path: Path) -> None:
    arguments = write_both_ends(tmp_path)
    arguments["metrics"] = [path for path in arguments["metrics"] if not path.endswith("routes.parquet")]
    found = section(read_tree(arguments))
    there = found.rows[0].cells
    assert (there[2].value, there[3].value, there[3].small) == ("17.0", "2.50 %", "25 of 1,000")
    assert float(there[0].value) == pytest.approx(22.4, abs=0.8)
    assert found.broker_rows == []


def test_no_section_without_such_connections(tmp_path: Path) -> None:
    arguments = write_tree(tmp_path, LINKS)
    empty = tmp_path / "results/paths/experiment=experiment08/paths.parquet"
    tables.write(tables.schema("paths").empty_table(), empty, "paths", {})
    report(**arguments, paths=[str(empty)])
    html = Path(arguments["output"]).read_text(encoding="utf-8")
    assert 'id="both-ends"' not in html
    assert 'href="#both-ends"' not in html


def test_the_window_holds_packets_by_the_clients_clock() -> None:
    """Of 200 s of packets the first 100, though the broker's clock is an hour ahead, and a packet lost on its way to the client counts by its own."""
    known = connections((ID, 1, 2))
    packets = moved(traffic(), 3_600_000 * MS)
    packets = [packet if packet.seq != 502 else Packet(None, packet.at_broker, from_broker=True, seq=502, length=1) for packet in packets]
    found = paths.both_ends(matching.candidate_pairs(known, known), tap(packets, "client"), tap(packets, "broker"))
    assert found is not None
    sites = {"client_site": pl.lit("edge"), "broker_site": pl.lit("plant")}
    rows = Rows()
    nothing = pl.DataFrame(
        schema={
            "client_site": pl.String,
            "broker_site": pl.String,
            "connection_id": pl.String,
            "time": pl.Int64,
            "measured_ms": pl.Float64,
            "inferred_ms": pl.Float64,
        }
    )
    add_paths(rows, found.named_packets().with_columns(**sites), nothing, Window(START, START + 110 * SECOND - 1))
    value = {(row["metric"], row["group"], row["statistic"]): (row["value"], row["n"]) for row in rows.rows}
    assert value["path_loss", "route=edge>plant/to_broker", "count"] == (13.0, 500)
    assert value["path_loss", "route=edge>plant/from_broker", "count"] == (1.0, 500)
    assert value["one_way_delay", "route=edge>plant/to_broker", "count"] == (487.0, 487)
    assert value["broker_time", "route=edge>plant/at_broker", "p50"] == (None, 0)
    # One connection says nothing about others, its seconds about each other: 13 of 500, more or less.
    (share,) = (
        row
        for row in rows.rows
        if (row["metric"], row["group"], row["statistic"]) == ("path_loss", "route=edge>plant/to_broker", "ratio_of_sums")
    )
    assert 0.01 < share["ci_low"] < 13 / 500 < share["ci_high"] < 0.06
