"""One site through the stages' own functions, without Snakemake: captures in, data sets out."""

from __future__ import annotations

import itertools
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from complete_requests import complete_requests
from compute_metrics import compute_metrics
from join_deliveries import join_deliveries
from match_paths import match_paths
from merge_experiment import merge_experiment
from merge_site import merge_site
from split_capture import split_capture

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "resources" / "example"
NOT_ABOUT_CAPTURES = ~pl.col("group").cast(pl.String).str.starts_with("capture=")
"""The metrics that no cut of the captures may change."""
BROKERS = {"edge": ["192.0.2.10:31289"], "cloud": ["198.51.100.10:32289"]}


@dataclass(frozen=True)
class Site:
    """The data sets of one site."""

    packets: pl.DataFrame
    requests: pl.DataFrame
    connections: pl.DataFrame
    metrics: pl.DataFrame
    series: pl.DataFrame
    decryption: pl.DataFrame
    produced: pl.DataFrame
    fetched: pl.DataFrame


def run_site(
    captures: Sequence[Path],
    brokers: Sequence[str],
    folder: Path,
    shards: int = 1,
    window: tuple[int | None, int | None] = (None, None),
    decoder: str = "native",
    keys: Path | Literal["captures"] | None = None,
) -> Site:
    """Split, merge and measure one site's captures in ``folder``; ``keys`` are a TLS key log, or stand in the captures."""
    working = []
    for capture in captures:
        output = folder / "captures" / capture.name
        split_capture(
            capture=str(capture),
            name=capture.name,
            brokers=list(brokers),
            output=str(output),
            threads=1,
            decoder=decoder,
            keep_tls=keys is not None,
        )
        working.append(str(output))
    kind = None if keys is None else "captures" if keys == "captures" else "file"
    sources = {None: [], "captures": [str(capture) for capture in captures], "file": [str(keys)]}[kind]
    site = {"brokers": list(brokers), "tap": "auto", "shards": shards, "keys": kind}
    parts = [
        {
            name: str(folder / name / f"part-{part:04}.parquet")
            for name in ("packets", "connections", "requests", "provisional", "topics", "notebook", "produced", "fetched", "decryption")
        }
        for part in range(shards)
    ]
    provisional, topics = [part["provisional"] for part in parts], [part["topics"] for part in parts]
    for number, part in enumerate(parts):
        written = {name: part[name] for name in ("packets", "connections", "topics", "notebook", "produced", "fetched", "decryption")}
        merge_site(captures=working, part=number, site=site, key_sources=sources, requests=part["provisional"], **written)
    for number, part in enumerate(parts):
        complete_requests(provisional=provisional, topics=topics, part=number, topic_ids={}, requests=part["requests"])
    metrics, series = folder / "metrics.parquet", folder / "series.parquet"
    measure = {"window": {"start": window[0], "end": window[1]}, "brokers": list(brokers), "tap": "auto", "share_over_ms": 200}
    compute_metrics(
        **{name: [part[name] for part in parts] for name in ("packets", "requests", "connections", "notebook", "decryption")},
        measure=measure,
        metrics=str(metrics),
        series=str(series),
    )
    tables = {
        name: pl.concat([pl.read_parquet(part[name]) for part in parts]) for name in ("packets", "requests", "connections", "decryption")
    }
    batches = {
        name: pl.concat([pl.read_parquet(part[name]).with_columns(pl.col(pl.Categorical).cast(pl.String)) for part in parts]).sort(pl.all())
        for name in ("produced", "fetched")
    }
    return Site(**tables, **batches, metrics=pl.read_parquet(metrics), series=pl.read_parquet(series))


def run_experiment(
    captures: Mapping[str, Sequence[Path]],
    folder: Path,
    clock_offset_ms: float | None = 0.0,
    shards: int = 1,
    brokers: Mapping[str, Sequence[str]] = BROKERS,
    *,
    with_paths: bool = False,
) -> pl.DataFrame:
    """The data set `deliveries` of some sites' captures; ``clock_offset_ms`` is what the configuration says of all of their clocks, and ``with_paths`` asks what
    connections that several of them captured say of these."""
    left: dict[str, list[str]] = {"produced": [], "fetched": [], "topics": []}
    sets: dict[str, list[Path]] = {"packets": [], "connections": [], "requests": []}
    for site, files in captures.items():
        run_site(files, brokers[site], folder / site, shards)
        for name, part in itertools.product(left, range(shards)):
            file = folder / "merged" / site / f"{name}-{part:04}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / site / name / f"part-{part:04}.parquet", file)
            left[name].append(str(file))
        for name, part in itertools.product(sets, range(shards)):
            file = folder / name / f"site={site}" / f"part-{part:04}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            sets[name].append(Path(shutil.copy(folder / site / name / file.name, file)))
    sites: list[dict[str, Any]] = [
        {"site": site, "cluster": None, "topic_ids": {}, "clock_offset_ms": clock_offset_ms, "tap": "auto"} for site in captures
    ]
    paths = str(folder / "paths.parquet") if with_paths else None
    if paths is not None:
        match_paths(**sets, sites=sites, paths_output=paths, working={name: folder / f"{name}.parquet" for name in ("packets", "requests")})
    topics, deliveries = str(folder / "topics.parquet"), str(folder / "deliveries.parquet")
    merge_experiment(learned=left["topics"], experiment="e", sites=sites, topics=topics)
    join_deliveries(
        produced=left["produced"],
        fetched=left["fetched"],
        learned=left["topics"],
        topics=topics,
        experiment="e",
        sites=sites,
        deliveries=deliveries,
        paths=paths,
    )
    return pl.read_parquet(deliveries).with_columns(pl.col(pl.Categorical).cast(pl.String))


def read_pcap(path: Path) -> tuple[bytes, list[bytes]]:
    """File header and packet records of a little-endian classic pcap."""
    data = path.read_bytes()
    return data[:24], list(_records(data))


def _records(data: bytes) -> Iterator[bytes]:
    at = 24
    while at < len(data):
        (captured,) = struct.unpack_from("<I", data, at + 8)
        yield data[at : at + 16 + captured]
        at += 16 + captured


def write_pcap(path: Path, header: bytes, records: Sequence[bytes]) -> Path:
    """A classic pcap of these records."""
    path.write_bytes(header + b"".join(records))
    return path


def shipped(experiment: str, site: str) -> list[Path]:
    """The shipped captures of one site, by name."""
    return sorted((EXAMPLE / experiment / site).glob("*.pcap"))
