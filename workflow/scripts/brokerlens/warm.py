"""Compile every kernel into the cache, by taking a few captures of the shipped example through all stages.

Run as `python -m brokerlens.warm` (by `job.compile_kernels_once`). Numba compiles a function at its first call, for the types of that call: only
the real stages on real captures know them all.
"""

from __future__ import annotations

from brokerlens import job  # isort: skip  # first: it says where compiled kernels go

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).resolve().parents[3] / "resources" / "example" / "experiment08" / "edge"
BROKERS = ["192.0.2.10:31289"]
CAPTURES = 2  # the second begins in the middle of connections


def run_all_stages(captures: Iterable[Path], folder: Path) -> None:
    """Everything that the workflow does to a site, up to its metrics and its comparison, in a folder of its own."""
    import collect_sites
    import compare
    import complete_requests
    import compute_metrics
    import join_deliveries
    import list_captures
    import measure_routes
    import merge_experiment
    import merge_site
    import split_capture

    working = []
    for capture in captures:
        working.append(str(folder / "intermediate" / "captures" / "e" / "s" / capture.name))
        split_capture.split_capture(capture=str(capture), name=capture.name, brokers=BROKERS, output=working[-1])
    listed = folder / "intermediate" / "captures" / "e" / "s" / "+captures.json"
    list_captures.list_captures(folders=working, captures=listed)
    parts = {
        name: str(folder / name / "experiment=e" / "site=s" / "part-0000.parquet")
        for name in ("packets", "connections", "requests", "notebook")
    }
    parts |= {name: str(folder / "merged" / "e" / "s" / f"{name}-0000.parquet") for name in ("topics", "produced", "fetched")}
    topics, deliveries = str(folder / "topics.parquet"), str(folder / "deliveries" / "experiment=e" / "part-0000.parquet")
    completed = str(folder / "completed" / "experiment=e" / "site=s" / "part-0000.parquet")
    measured = {name: str(folder / name / "experiment=e" / "site=s" / f"{name}.parquet") for name in ("metrics", "series")}
    measured["routes"] = str(folder / "metrics" / "experiment=e" / "site=s" / "routes.parquet")
    for path in [*parts.values(), *measured.values()]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    site = {"brokers": BROKERS, "tap": "auto", "shards": 1}
    merge_site.merge_site(captures=working, part=0, site=site, **parts)
    complete_requests.complete_requests(provisional=[parts["requests"]], topics=[parts["topics"]], part=0, topic_ids={}, requests=completed)
    compute_metrics.compute_metrics(
        packets=[parts["packets"]],
        requests=[completed],
        connections=[parts["connections"]],
        notebook=[parts["notebook"]],
        measure={"window": {"start": None, "end": None}, "brokers": BROKERS, "tap": "auto", "share_over_ms": 200.0},
        metrics=measured["metrics"],
        series=measured["series"],
    )
    sites: list[dict[str, Any]] = [{"site": "s", "cluster": None, "topic_ids": {}, "clock_offset_ms": None}]
    merge_experiment.merge_experiment(learned=[parts["topics"]], experiment="e", sites=sites, topics=topics)
    join_deliveries.join_deliveries(
        produced=[parts["produced"]],
        fetched=[parts["fetched"]],
        learned=[parts["topics"]],
        topics=topics,
        experiment="e",
        sites=sites,
        deliveries=deliveries,
    )
    measure_routes.measure_routes(
        deliveries=[deliveries], measure={"site": "s", "window": {"start": None, "end": None}}, routes=measured["routes"]
    )
    table = {
        "experiment": "e",
        "site": "s",
        "condition": "e",
        "window_start": None,
        "window_end": None,
        "timezone": "UTC",
        "brokers": BROKERS,
        "tap": "auto",
        "cluster": None,
        "clock_offset_ms": None,
        "captures": [Path(path).name for path in working],
        "parts": ["0000"],
    }
    (folder / "sites").mkdir()
    collect_sites.collect_sites(
        captures=[listed],
        metrics=[measured["metrics"], measured["routes"]],
        connections=[parts["connections"]],
        learned=[parts["topics"]],
        sites=[table],
        output_sites=str(folder / "sites" / "sites.parquet"),
        output_csv=str(folder / "metrics.csv"),
    )
    compare.compare(
        sites=str(folder / "sites" / "sites.parquet"),
        requests=[completed],
        packets=[parts["packets"]],
        connections=[parts["connections"]],
        metrics=[measured["metrics"]],
        settings={"baseline": None, "margin": 0.05, "share_over_ms": 200.0},
        output=str(folder / "comparisons.parquet"),
    )


def main() -> int:
    """Exit status: 0 when all kernels are in the cache."""
    captures = sorted(EXAMPLE.glob("*.pcap"))[:CAPTURES]
    if not captures:
        print(f"no captures in {EXAMPLE}: kernels are compiled by the first jobs instead", file=sys.stderr)
        return 1
    job.limit_threads(1)
    with tempfile.TemporaryDirectory(prefix="brokerlens-warm-") as folder:
        run_all_stages(captures, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
