"""The rule that looks for connections captured at both ends: which sites it compares, and what it writes where there is nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from both_ends_model import ID, MS, Packet, connections, tap

from brokerlens import tables
from brokerlens.routes.paths import REQUEST_COLUMNS
from match_paths import match_paths

OTHER = "192.0.2.77:50000-192.0.2.10:9092#1"
REQUEST_TYPES: list[Any] = [pl.String, pl.Int16, pl.Int32, pl.String, pl.Boolean, pl.Datetime("ns", "UTC"), pl.Float64]
FILES = ("packets", "connections", "requests")


def conversation(count: int = 20) -> list[Packet]:
    """So many packets each way, 20 ms each, the third to the broker lost."""
    there = [Packet(100 * k * MS, None if k == 2 else (100 * k + 20) * MS, seq=k + 1, length=1, ip_id=k) for k in range(count)]
    back = [Packet((100 * k + 50) * MS, (100 * k + 30) * MS, from_broker=True, seq=k + 1, length=1, ip_id=k) for k in range(count)]
    return there + back


def request(correlation_id: int, broker_ms: float | None, waits: bool = False, status: str = "answered") -> tuple[Any, ...]:
    return ID, 0, correlation_id, status, waits, correlation_id * MS, broker_ms


def write_site(
    folder: Path, site: str, packets: list[Packet], place: str, requests: list[tuple[Any, ...]] | None = None, connection: str = ID
) -> None:
    """The files of one site in the places where match_paths finds them."""
    asked = pl.DataFrame(requests or [], schema=dict(zip(REQUEST_COLUMNS, REQUEST_TYPES, strict=True)), orient="row")
    written = {
        "packets": tap(packets, place).with_columns(is_duplicate=False),
        "connections": connections((connection, None, None)).with_columns(tap=pl.lit(place)),
        "requests": asked,
    }
    for name, table in written.items():
        path = folder / name / f"site={site}" / "part-0000.parquet"
        path.parent.mkdir(parents=True)
        table.write_parquet(path)


def run(folder: Path, **sites: dict[str, Any]) -> dict[str, pl.DataFrame]:
    files = {name: sorted((folder / name).glob("site=*/part-*.parquet")) for name in FILES}
    output, working = folder / "paths.parquet", {name: folder / "working" / f"{name}.parquet" for name in ("packets", "requests")}
    configured = [{"site": site, "tap": "auto", "clock_offset_ms": None} | settings for site, settings in sites.items()]
    match_paths(**files, sites=configured, paths_output=output, working=working)
    assert pq.read_schema(output).remove_metadata() == tables.schema("paths").remove_metadata()
    return {"paths": pl.read_parquet(output)} | {name: pl.read_parquet(path) for name, path in working.items()}


def test_two_ends_of_a_connection(tmp_path: Path) -> None:
    asked = [request(1, 9.0), request(2, None), request(3, 8.0, waits=True), request(4, 7.0, status="unanswered")]
    write_site(tmp_path, "edge", conversation(), "client", asked)
    write_site(tmp_path, "plant", conversation(), "broker", [request(1, 0.5), request(2, 0.7), request(3, 400.0, waits=True)])
    found = run(tmp_path, edge={}, plant={})
    rows = found["paths"].to_dicts()
    assert [(row["client_site"], row["broker_site"], row["direction"]) for row in rows] == [
        ("edge", "plant", "to_broker"), ("edge", "plant", "from_broker")]  # fmt: skip
    assert [(row["packets_both"], row["packets_only_client"], row["packets_lost"]) for row in rows] == [(19, 1, 1), (20, 0, 0)]
    assert [(row["one_way_min_ms"], row["one_way_p99_ms"], row["clock_offset_ms"]) for row in rows] == [(20.0, 20.0, 0.0)] * 2
    # Of four requests two are answered and do not wait; of one of them the client's tap cannot tell.
    assert [(row["broker_n"], row["broker_p50_ms"], row["broker_inferred_n"], row["broker_inferred_p50_ms"]) for row in rows] == [
        (2, 0.5, 1, 9.0)] * 2  # fmt: skip
    assert found["packets"].height == 40
    # Of the packet that the client's tap alone has, its own time; of all others, too.
    assert sorted(found["packets"]["time"].to_list()) == sorted(
        packet.at_client for packet in conversation() if packet.at_client is not None
    )
    assert found["requests"].select("measured_ms", "inferred_ms").rows() == [(0.5, 9.0), (0.7, None)]


def test_working_files_are_their_owners(tmp_path: Path) -> None:
    write_site(tmp_path, "edge", conversation(), "client")
    run(tmp_path, edge={})
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "working").iterdir()} == {0}


def test_nothing_in_common_leaves_empty_tables(tmp_path: Path) -> None:
    """Other connections, one site alone, two taps at clients: the columns stand, and no row."""
    write_site(tmp_path / "a", "edge", conversation(), "client")
    write_site(tmp_path / "a", "plant", [Packet(1, 2, connection=OTHER)], "broker", connection=OTHER)
    write_site(tmp_path / "b", "edge", conversation(), "client")
    write_site(tmp_path / "c", "edge", conversation(), "client")
    write_site(tmp_path / "c", "plant", conversation(), "client")
    for folder, sites in (("a", ("edge", "plant")), ("b", ("edge",)), ("c", ("edge", "plant"))):
        found = run(tmp_path / folder, **{site: {} for site in sites})
        assert {name: table.height for name, table in found.items()} == {"paths": 0, "packets": 0, "requests": 0}


def test_one_direction_missing_at_a_tap(tmp_path: Path) -> None:
    """The broker's tap saw what it received alone: no clock can be had, and what it did not receive is not told from a gap of its captures."""
    write_site(tmp_path, "edge", conversation(), "client")
    write_site(tmp_path, "plant", [packet for packet in conversation() if not packet.from_broker], "broker")
    there, back = run(tmp_path, edge={}, plant={})["paths"].to_dicts()
    assert (there["clock_source"], there["clock_reason"]) == ("unknown", "too_few_packets")
    assert (there["packets_lost"], there["packets_not_captured"], there["one_way_n"], there["one_way_p50_ms"]) == (0, 1, 0, None)
    assert (back["packets_both"], back["packets_lost"], back["packets_outside"]) == (0, 0, 20)


def test_where_a_capture_was_taken_is_as_configured(tmp_path: Path) -> None:
    write_site(tmp_path, "edge", conversation(), "client")
    write_site(tmp_path, "plant", conversation(), "broker")
    assert run(tmp_path, edge={}, plant={"tap": "client"})["paths"].is_empty()


def test_the_configured_offset_is_that_between_both_sites(tmp_path: Path) -> None:
    """The edge's clock is 2 ms ahead of the reference, the plant's 5 ms."""
    write_site(tmp_path, "edge", conversation(), "client")
    write_site(tmp_path, "plant", conversation(), "broker")
    there, back = run(tmp_path, edge={"clock_offset_ms": 2.0}, plant={"clock_offset_ms": 5.0})["paths"].to_dicts()
    assert {(row["clock_source"], row["clock_offset_ms"], row["clock_uncertainty_ms"]) for row in (there, back)} == {
        ("configured", 3.0, 23.0)
    }
    assert (there["one_way_p50_ms"], back["one_way_p50_ms"]) == (17.0, 23.0)
