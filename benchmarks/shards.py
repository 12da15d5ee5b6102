"""What a site's jobs take, by its number of packets: peak memory of each, and CPU time per packet, from the merge in shards to the comparison.

    .venv/bin/python benchmarks/shards.py [--megabytes 200 2000] [--shards 8] [--keep FOLDER]

The same job of every size runs before the next job does: machines become slower and faster within an hour. The captures are those of split.py (213 bytes a packet), split before, which is not measured. `compare` gets this one site: what it takes to read one; the arms of each further site stay in memory, up to a gigabyte, and what of them a pair has in common.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from captures import BROKER, PORT, make_capture
from split import Used, one_thread, run, split

SMALLEST = 1
"""Megabytes of the capture whose jobs show what start-up takes."""
CALL = "import json, sys\nfrom brokerlens import job\nimport {script}\n{script}.{script}(**json.loads(sys.argv[1]))"
MEASURE = {"window": {"start": None, "end": None}, "brokers": [f"{BROKER}:{PORT}"], "tap": "client", "share_over_ms": 200.0}
TABLE = {
    "condition": "e", "window_start": None, "window_end": None, "timezone": "UTC", "brokers": [f"{BROKER}:{PORT}"],
    "tap": "client", "cluster": None, "clock_offset_ms": None, "captures": ["c"],
}  # fmt: skip


def call(script: str, arguments: Mapping[str, Any]) -> Used:
    """Run a stage as its job does: a process of its own, on one thread."""
    return run([sys.executable, "-c", CALL.format(script=script), json.dumps(arguments)], env=one_thread())


def stages(working: Path, results: Path, shards: int) -> Iterator[tuple[str, Used]]:
    """Run every stage behind the split; what each of its jobs took."""
    parts = [f"{part:04d}" for part in range(shards)]
    site = {"brokers": [f"{BROKER}:{PORT}"], "tap": "client", "shards": shards}

    def named(name: str) -> list[str]:
        folder = results / name / "experiment=e" / "site=s"
        folder.mkdir(parents=True, exist_ok=True)
        return [str(folder / f"part-{part}.parquet") for part in parts]

    merged = {name: named(name) for name in ("packets", "connections", "topics", "notebook", "produced", "fetched")} | {
        "requests": named("provisional")
    }
    requests = named("requests")
    for number in range(shards):
        outputs = {name: files[number] for name, files in merged.items()}
        yield "merge_site", call("merge_site", {"captures": [str(working)], "part": number, "site": site, **outputs})
    for number in range(shards):
        given = {"provisional": merged["requests"], "topics": merged["topics"], "topic_ids": {}}
        yield "complete_requests", call("complete_requests", {**given, "part": number, "requests": requests[number]})
    sets = {"packets": merged["packets"], "requests": requests, "connections": merged["connections"]}
    measured = {name: str(results / name / "experiment=e" / "site=s" / f"{name}.parquet") for name in ("metrics", "series")}
    for path in measured.values():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    yield "compute_metrics", call("compute_metrics", {**sets, "notebook": merged["notebook"], "measure": MEASURE, **measured})

    listed = results / "captures" / "e" / "s" / "+captures.json"
    listed.parent.mkdir(parents=True)
    yield "list_captures", call("list_captures", {"folders": [str(working)], "captures": str(listed)})
    sites = str(results / "sites" / "sites.parquet")
    rows = {
        "sites": [{**TABLE, "experiment": "e", "site": "s", "parts": parts}],
        "output_sites": sites,
        "output_csv": str(results / "metrics.csv"),
    }
    given = {"captures": [str(listed)], "metrics": [measured["metrics"]], "connections": merged["connections"], "learned": []}
    yield "collect_sites", call("collect_sites", {**given, "learned": merged["topics"], **rows})
    settings = {"baseline": None, "margin": 0.05, "share_over_ms": 200.0}
    output = {"settings": settings, "output": str(results / "comparisons.parquet"), "sites": sites, "metrics": [measured["metrics"]]}
    yield "compare", call("compare", {**sets, **output})


def split_of(folder: Path, megabytes: int) -> tuple[Path, int]:
    """Working files of a capture of this size, made where they are missing, and how many packets they hold."""
    working = folder / f"working-{megabytes}"
    if not (working / "facts.json").exists():
        capture = folder / "capture.pcap"
        make_capture(capture, "example", megabytes)
        split(capture, working, f"{BROKER}:{PORT}")
        capture.unlink()
    return working, json.loads((working / "facts.json").read_text())["kept"]


def main() -> None:
    """Make what is missing, run all stages for each size, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--keep", type=Path, help="make and leave the working files in this folder; those that are there are used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        # What jobs take for next to nothing is their start-up.
        captures = [split_of(folder, megabytes) for megabytes in (SMALLEST, *options.megabytes)]
        results = folder / "results"
        took: dict[str, list[tuple[Used, ...]]] = {}
        lockstep = zip(*(stages(working, results / str(place), options.shards) for place, (working, _) in enumerate(captures)), strict=True)
        for jobs in lockstep:
            took.setdefault(jobs[0][0], []).append(tuple(used for _, used in jobs))
            print(jobs[0][0], *(f"{used.cpu:.1f} s" for _, used in jobs), file=sys.stderr, flush=True)
        shutil.rmtree(results)
    print("| packets | stage | jobs | CPU s of all | µs per packet, without start-up | MB resident of the largest |")
    print("|---|---|---|---|---|---|")
    for size, (_, packets) in enumerate(captures[1:], 1):
        for name, of_jobs in took.items():
            cpu, start_up = (sum(used[which].cpu for used in of_jobs) for which in (size, 0))
            memory = max(used[size].memory for used in of_jobs)
            print(f"| {packets:,} | {name} | {len(of_jobs)} | {cpu:.1f} | {(cpu - start_up) / packets * 1e6:.2f} | {memory:,.0f} |")


if __name__ == "__main__":
    main()
