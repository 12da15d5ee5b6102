from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import collect_sites as script
from brokerlens import tables
from brokerlens.metrics.rows import Rows
from brokerlens.metrics.taps import found_tap
from list_captures import list_captures

T0 = 1_766_769_260_000_000_000
EDGE: dict[str, Any] = {
    "experiment": "experiment08",
    "site": "edge",
    "condition": "experiment08",
    "window_start": T0,
    "window_end": None,
    "timezone": "-03:00",
    "brokers": ["192.0.2.10:31289"],
    "tap": "auto",
    "cluster": "experiment08",
    "clock_offset_ms": None,
    "captures": ["a,b.pcap", "c.pcap"],
    "parts": ["0000"],
}
FACTS: dict[str, Any] = {"capture": "c.pcap", "packets": 10, "kept": 7, "skipped": {"not TCP": 1, "other endpoints": 2}}


def connections_of(taps: list[str]) -> pa.Table:
    def column(field: pa.Field) -> pa.Array:
        if field.name == "tap":
            return pa.array(taps).cast(field.type)
        if pa.types.is_timestamp(field.type):
            return pa.array([T0 + i for i in range(len(taps))], pa.int64()).cast(field.type)
        default: Any = None if field.nullable else "x" if pa.types.is_dictionary(field.type) or field.type == pa.string() else 0
        return pa.array([bool(default) if field.type == pa.bool_() else default] * len(taps)).cast(field.type)

    return pa.table({field.name: column(field) for field in tables.schema("connections")})


class Results:
    """A results folder with what the stages before left in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(
        self,
        experiment: str,
        site: str,
        captures: list[str],
        *,
        parts: int = 1,
        client: str = "sensors",
        facts: dict[str, Any] = FACTS,
        clusters: tuple[str, ...] = (),
    ) -> None:
        of_site = f"experiment={experiment}/site={site}"
        for capture in captures:
            folder = self.root / "intermediate/captures" / experiment / site / capture
            folder.mkdir(parents=True)
            (folder / "facts.json").write_text(json.dumps(facts))
        for part in range(parts):
            for dataset in ("packets", "requests"):
                tables.write(tables.schema(dataset).empty_table(), self.root / dataset / of_site / f"part-{part:04d}.parquet", dataset, {})
            taps = ["client", "client", "unknown", "unknown", "unknown", "broker"]
            tables.write(connections_of(taps), self.root / "connections" / of_site / f"part-{part:04d}.parquet", "connections", {})
            merged = self.root / "intermediate/merged" / experiment / site
            merged.mkdir(parents=True, exist_ok=True)
            (merged / f"part-{part:04d}.parquet").touch()
            (merged / f"requests-{part:04d}.parquet").touch()
            learned = pl.DataFrame(
                [(cluster, None, None, T0) for cluster in clusters],
                schema={"cluster_id": pl.String, "topic_id": pl.String, "topic": pl.String, "learned_at": pl.Int64},
                orient="row",
            )
            learned.write_parquet(merged / f"topics-{part:04d}.parquet")
        rows = Rows()
        rows.add("capture_loss", "all", "ratio_of_sums", 0.125, "share", 80)
        rows.add("kafka_latency", f"client={client}", "mean", 0.1 + 0.2, "ms", 3, (None, 1.5))
        rows.add("kafka_latency", "=1+1", "count", None, "requests", 0)
        tables.write(rows.table(), self.root / "metrics" / of_site / "metrics.parquet", "metrics", {})
        tables.write(tables.schema("series").empty_table(), self.root / "series" / of_site / "series.parquet", "series", {})

    def collect(self, *sites: dict[str, Any]) -> None:
        of_sites = [f"experiment={site['experiment']}/site={site['site']}" for site in sites]
        listed = []
        for site in sites:
            beside = self.root / "intermediate/captures" / site["experiment"] / site["site"]
            listed.append(beside / "+captures.json")
            list_captures(folders=[beside / name.replace(",", "%2C") for name in site["captures"]], captures=listed[-1])
        script.collect_sites(
            captures=listed,
            metrics=[self.root / "metrics" / name / "metrics.parquet" for name in of_sites],
            connections=[
                self.root / "connections" / name / f"part-{part}.parquet"
                for name, site in zip(of_sites, sites, strict=True)
                for part in site["parts"]
            ],
            learned=[
                self.root / "intermediate/merged" / site["experiment"] / site["site"] / f"topics-{part}.parquet"
                for site in sites
                for part in site["parts"]
            ],
            sites=sites,
            output_sites=self.root / "sites/sites.parquet",
            output_csv=self.root / "metrics.csv",
        )

    def files(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


def test_a_site_is_described_by_its_configuration_its_captures_and_its_connections(results: Results) -> None:
    results.add("experiment08", "edge", ["a%2Cb.pcap", "c.pcap"])
    results.collect(EDGE)
    (row,) = pl.read_parquet(results.root / "sites/sites.parquet").with_columns(pl.col(pl.Datetime).to_physical()).to_dicts()
    assert row == {
        "experiment": "experiment08",
        "site": "edge",
        "condition": "experiment08",
        "window_start": T0,
        "window_end": None,
        "timezone": "-03:00",
        "brokers": ["192.0.2.10:31289"],
        "tap_configured": "auto",
        "tap_found": "client",
        "cluster": "experiment08",
        "clock_offset_ms": None,
        "captures": 2,
        "packets_kept": 14,
        "packets_skipped": 6,
        "first_seen": T0,
        "last_seen": T0 + 5,
        "capture_loss": 0.125,
    }


def test_metrics_csv_has_every_figure_in_full_and_no_formula(results: Results) -> None:
    results.add("experiment08", "edge", ["a%2Cb.pcap", "c.pcap"], client="-2+cmd|' /C calc'!A0")
    results.collect(EDGE)
    with (results.root / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["experiment", "site", "metric", "group", "statistic", "value", "unit", "n", "ci_low", "ci_high"]
    assert rows[1]["group"] == "client=-2+cmd|' /C calc'!A0", "a group begins with its key"
    assert rows[2]["group"] == "'=1+1"
    assert float(rows[1]["value"]) == 0.1 + 0.2
    assert (rows[1]["ci_low"], rows[1]["ci_high"]) == ("", "1.5")
    assert rows[2]["value"] == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=1", "'=1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@a", "'@a"),
        ("\ta", "'\ta"),
        ("\ra", "'\ra"),
        ("a=1", "a=1"),
        (-1.5, "-1.5"),
        (3, "3"),
        (None, ""),
    ],
)
def test_cells(value: Any, shown: str) -> None:
    assert script.cell(value) == shown


def test_what_the_configuration_no_longer_has_is_removed(results: Results) -> None:
    results.add("experiment08", "edge", ["a%2Cb.pcap", "c.pcap", "taken-out.pcap"], parts=3)
    kept = Results(results.root).files()
    results.add("experiment08", "gone", ["x.pcap"])
    results.add("removed", "edge", ["x.pcap"])
    killed = results.root / "intermediate/merged/experiment08/edge/.requests-0000"
    killed.mkdir()
    (killed / "0-packets.arrow").touch()
    of_removed = [
        "deliveries/experiment=removed/part-0000.parquet",
        "paths/experiment=removed/paths.parquet",
        "intermediate/paths/removed/packets.parquet",
        "excerpts/removed/edge/request-1.pcapng",
        "excerpts/experiment08/gone/request-1.pcapng",
    ]
    of_kept = [
        "paths/experiment=experiment08/paths.parquet",
        "intermediate/paths/experiment08/packets.parquet",
        "excerpts/experiment08/edge/request-1.pcapng",
    ]
    beside = ["report/index.html", "logs/merge_site/removed/edge/part-0000.log"]
    for path in (*of_removed, *of_kept, *beside):
        (results.root / path).parent.mkdir(parents=True, exist_ok=True)
        (results.root / path).touch()
    results.collect(EDGE)
    expected = {name for name in kept if "taken-out" not in name and "-0001" not in name and "-0002" not in name}
    expected |= {*of_kept, *beside, "sites/sites.parquet", "metrics.csv", "intermediate/captures/experiment08/edge/+captures.json"}
    assert results.files() == expected
    assert not (results.root / "packets/experiment=removed").exists() and not killed.exists()
    assert not (results.root / "intermediate/captures/removed").exists()


@pytest.mark.parametrize(
    ("taps", "found"),
    [
        ([], "unknown"),
        (["unknown"], "unknown"),
        (["client", "unknown", "unknown"], "client"),
        (["client", "broker"], "unknown"),
        (["broker", "client", "broker"], "broker"),
    ],
)
def test_the_tap_is_what_most_connections_say(taps: list[str], found: str) -> None:
    assert found_tap(taps) == found


def test_sites_are_one_cluster_unless_their_captured_ids_differ(results: Results) -> None:
    def clusters(*sites: dict[str, Any]) -> list[str]:
        results.collect(*sites)
        return pl.read_parquet(results.root / "sites/sites.parquet")["cluster"].to_list()

    edge = EDGE | {"cluster": None}
    cloud = edge | {"site": "cloud", "captures": ["b.pcap"]}
    far = edge | {"site": "far", "captures": ["b.pcap"]}
    results.add("experiment08", "edge", ["a%2Cb.pcap", "c.pcap"], clusters=("first",))
    results.add("experiment08", "cloud", ["b.pcap"], clusters=("first",))
    results.add("experiment08", "far", ["b.pcap"], clusters=("second", "third"))
    assert clusters(edge, cloud, far) == ["first", "first", "second"]
    assert clusters(edge, cloud, far | {"cluster": "lab"}) == ["experiment08", "experiment08", "lab"]
    assert clusters(edge, cloud) == ["experiment08", "experiment08"]
