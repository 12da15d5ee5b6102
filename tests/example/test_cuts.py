"""However the captures were cut, the rows are the same."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sites import BROKERS, NOT_ABOUT_CAPTURES, Site, read_pcap, run_site, shipped, write_pcap

import merge_site

ABOUT_CAPTURES = ("capture", "frame_number")


@pytest.fixture(scope="module", params=[("experiment07", "cloud"), ("experiment08", "edge")], ids="/".join)
def as_shipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path], Site]:
    """A site of the example as it was captured: rotated every 30 seconds."""
    experiment, site = request.param
    captures = shipped(experiment, site)
    return site, captures, run_site(captures, BROKERS[site], tmp_path_factory.mktemp("shipped"))


def assert_same(found: Site, expected: Site) -> None:
    assert_frame_equal(found.requests, expected.requests)
    assert_frame_equal(found.connections, expected.connections)
    assert_frame_equal(*(site.metrics.filter(NOT_ABOUT_CAPTURES) for site in (found, expected)))
    assert_frame_equal(found.series, expected.series)
    assert_same_batches(found, expected)
    assert_frame_equal(found.packets.drop(ABOUT_CAPTURES), expected.packets.drop(ABOUT_CAPTURES), categorical_as_str=True)


def assert_same_batches(found: Site, expected: Site) -> None:
    """What `deliveries` are made of; that the order of these rows changes nothing has a test of its own."""
    assert_frame_equal(found.produced, expected.produced)
    assert_frame_equal(found.fetched, expected.fetched)


def all_records(captures: list[Path]) -> tuple[bytes, list[bytes]]:
    files = [read_pcap(capture) for capture in captures]
    return files[0][0], [record for _, records in files for record in records]


def test_one_file(as_shipped: tuple[str, list[Path], Site], tmp_path: Path) -> None:
    site, captures, expected = as_shipped
    joined = write_pcap(tmp_path / "all.pcap", *all_records(captures))
    assert_same(run_site([joined], BROKERS[site], tmp_path), expected)


@pytest.mark.parametrize("seed", range(3))
def test_cut_at_other_places(as_shipped: tuple[str, list[Path], Site], tmp_path: Path, seed: int) -> None:
    site, captures, expected = as_shipped
    header, records = all_records(captures)
    chance = random.Random(seed)
    cuts = [0, *sorted(chance.sample(range(1, len(records)), 12)), len(records)]
    pieces = [
        write_pcap(tmp_path / f"{chance.random()}-{n}.pcap", header, records[a:b]) for n, (a, b) in enumerate(itertools.pairwise(cuts))
    ]
    assert_same(run_site(pieces, BROKERS[site], tmp_path), expected)


def test_overlapping_and_doubled(as_shipped: tuple[str, list[Path], Site], tmp_path: Path) -> None:
    """Pieces that overlap, one file twice under another name: the same packets, so the same results."""
    site, captures, expected = as_shipped
    header, records = all_records(captures)
    third = len(records) // 3
    pieces = [
        write_pcap(tmp_path / "a.pcap", header, records[: 2 * third]),
        write_pcap(tmp_path / "b.pcap", header, records[third:]),
        write_pcap(tmp_path / "c.pcap", header, records[third:]),
    ]
    assert_same(run_site(pieces, BROKERS[site], tmp_path), expected)


def test_shards(as_shipped: tuple[str, list[Path], Site], tmp_path: Path) -> None:
    """The number of merge jobs changes where rows stand, not what they say."""
    site, captures, expected = as_shipped
    found = run_site(captures, BROKERS[site], tmp_path, shards=3)
    by = ["request_first", "connection_id", "correlation_id"]
    assert_frame_equal(found.requests.sort(by), expected.requests.sort(by), categorical_as_str=True)
    assert_frame_equal(found.connections.sort("connection_id"), expected.connections.sort("connection_id"), categorical_as_str=True)
    assert_frame_equal(found.metrics, expected.metrics)
    assert_same_batches(found, expected)
    assert isinstance(found.packets, pl.DataFrame) and found.packets.height == expected.packets.height


def test_followed_in_parts(as_shipped: tuple[str, list[Path], Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many packets are followed at once, every file is the same, rows of equal times too."""
    site, captures, expected = as_shipped
    monkeypatch.setattr(merge_site, "PART_PACKETS", 500)
    monkeypatch.setattr(merge_site, "PART_REQUESTS", 100)
    found = run_site(captures, BROKERS[site], tmp_path)
    assert_same(found, expected)
    assert found.packets["frame_number"].equals(expected.packets["frame_number"])


@pytest.mark.cuts
@pytest.mark.parametrize("overlap", [0, 20])
@pytest.mark.parametrize(("experiment", "site"), [(f"experiment{run}", site) for run in ("07", "08") for site in BROKERS])
def test_cut_at_200_places(experiment: str, site: str, overlap: int, tmp_path: Path) -> None:
    """201 pieces in no order; each with some packets of the next one, too, or with none."""
    captures = shipped(experiment, site)
    header, records = all_records(captures)
    chance = random.Random(f"{experiment} {site}")
    cuts = [0, *sorted(chance.sample(range(1, len(records)), 200)), len(records)]
    pieces = [
        write_pcap(tmp_path / f"{n}.pcap", header, records[a : b + chance.randint(min(1, overlap), overlap)])
        for n, (a, b) in enumerate(itertools.pairwise(cuts))
    ]
    chance.shuffle(pieces)
    expected = run_site(captures, BROKERS[site], tmp_path / "shipped")
    assert_same(run_site(pieces, BROKERS[site], tmp_path / "cut"), expected)
