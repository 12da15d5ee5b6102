"""What merging a site takes beside polars on one thread, which reads, sorts and writes the packet rows that the merge reads, and then the rows of all data sets
that it writes: ratios measured in one run, on the same files.

    .venv/bin/python benchmarks/merge.py [--megabytes 2000] [--keep FOLDER]

The capture is the one of split.py: the shipped example's packets over and over, 76 packets a connection. It is split first, which is not measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from captures import BROKER, PORT, ROOT, make_capture
from split import Used, one_thread, run, split

MERGE = """
import json, sys
from brokerlens import job
from merge_site import merge_site
folder, *captures = sys.argv[1:]
names = ("packets", "connections", "requests", "topics", "notebook")
outputs = {name: f"{folder}/experiment=e/site=s/{name}.parquet" for name in names}
merge_site(captures=captures, part=0, site=json.loads('{"brokers": ["BROKER"], "tap": "client", "shards": 1}'), **outputs)
"""
POLARS = """
import sys
import polars as pl
folder, *sets = sys.argv[1:]
for file, keys in zip(sets[::2], sets[1::2]):
    pl.read_parquet(file, hive_partitioning=False).sort(keys.split(",")).write_parquet(f"{folder}/sorted.parquet", compression="zstd", compression_level=3)
"""
"""Reads, sorts and writes each of the files, by the keys that follow its name."""
IDLE = {"merge": "from brokerlens import job; import merge_site", "polars": "import polars"}


def python(code: str, *arguments: Any) -> Used:
    """Run Python code in a process of its own, on one thread."""
    return run([sys.executable, "-c", code, *map(str, arguments)], env=one_thread())


def main() -> None:
    """Make the capture, split it, run both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--keep", type=Path, help="make and leave the working files in this folder; those that are there are used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        working = folder / f"working-{options.megabytes}"
        if not (working / "facts.json").exists():
            capture = Path(temporary) / "capture.pcap"
            make_capture(capture, "example", options.megabytes)
            split(capture, working, f"{BROKER}:{PORT}")
            capture.unlink()
        packets = json.loads((working / "facts.json").read_text())["kept"]
        merge = MERGE.replace("BROKER", f"{BROKER}:{PORT}")
        few = Path(temporary) / "few"
        example = ROOT / "resources" / "example" / "experiment07" / "cloud"
        split(next(example.iterdir()), few, "198.51.100.10:32289")
        python(merge.replace(f"{BROKER}:{PORT}", "198.51.100.10:32289"), temporary, few)  # compiles what is not in the cache
        idle = {name: python(code) for name, code in IDLE.items()}
        used = {"merge": python(merge, temporary, working)}
        written = {"packets": "timestamp", "connections": "first_seen", "requests": "request_first"}
        arguments = (argument for name, key in written.items() for argument in (f"{temporary}/experiment=e/site=s/{name}.parquet", key))
        used["polars, rows read"] = python(POLARS, temporary, working / "packets.parquet", "connection,timestamp")
        used["polars, rows written"] = python(POLARS, temporary, *arguments)
        idle |= {name: idle["polars"] for name in used if name.startswith("polars")}
    print(f"{packets:,} packets\n\n| | CPU s | elapsed s | ns per packet | MB resident |\n|---|---|---|---|---|")
    bare = {name: took.cpu - idle[name].cpu for name, took in used.items()}
    for name, took in used.items():
        print(f"| {name} | {took.cpu:.1f} | {took.wall:.1f} | {bare[name] / packets * 1e9:,.0f} | {took.memory:,.0f} |")
    ratios = ", ".join(f"{name}: {bare['merge'] / bare[name]:.2f}" for name in used if name != "merge")
    print(f"\nmerge over each, without start-up: {ratios} (goal: at most 3); memory goal 4,000 MB")


if __name__ == "__main__":
    main()
