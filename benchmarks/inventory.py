"""What ten thousand captures cost before and beside the work: reading the configuration, finding that there is nothing to do, one changed capture.

    .venv/bin/python benchmarks/inventory.py [--captures 10000] [--kilobytes 100] [--tries 3] [--folder FOLDER]

Beside it runs a bare Snakefile with as many jobs of one input and one output each, under the same profile. In the copy of the workflow that is measured, scripts only make
their outputs: only what Snakemake does is looked at. What a small capture's job costs, `split.py` says ("without start-up").
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from captures import ROOT
from split import SCRIPTS, Used, run

sys.path.insert(0, str(ROOT / "tests" / "workflow"))
from workbench import copy_of_workflow

PLACES = [(experiment, site) for experiment in ("run1", "run2") for site in ("edge", "cloud")]
BARE = """
from pathlib import Path
rule all:
    input: [f"out/{path.relative_to('data')}" for path in Path("data").glob("*/*/*.pcap")]
rule one:
    input: "data/{experiment}/{site}/{capture}"
    output: "out/{experiment}/{site}/{capture}"
    shell: "touch {output}"
"""
READ = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
began = time.process_time()
from brokerlens import config
config.read(json.load(open("my.yaml")))
print(time.process_time() - began)
"""


class Bench(NamedTuple):
    """Two workflows with a working directory of their own, which see the same captures."""

    ours: list[str]
    bare: list[str]
    work: Path
    beside: Path

    @classmethod
    def at(cls, folder: Path) -> Bench:
        """The bench in this folder."""
        bare, code = [sys.executable, "-m", "snakemake", "--cores", "2"], folder / "code"
        ours = ["--snakefile", str(code / "Snakefile"), "--configfile", "my.yaml", "--workflow-profile", str(code / "profiles/default")]
        return cls([*bare, *ours, "--"], bare, folder / "work", folder / "bare")

    @classmethod
    def laid_out(cls, folder: Path) -> Bench:
        """The workflows without captures."""
        code, work, beside = copy_of_workflow(folder / "code", stubs=True), folder / "work", folder / "bare"
        (work / "data").mkdir(parents=True)
        beside.mkdir()
        (beside / "data").symlink_to(work / "data")
        (beside / "Snakefile").write_text(BARE)
        shutil.copytree(code / "profiles", beside / "profiles")
        sites = {
            experiment: {site: {"captures": f"data/{experiment}/{site}", "brokers": ["192.0.2.10:31289"]} for site in ("edge", "cloud")}
            for experiment in ("run1", "run2")
        }
        (work / "my.yaml").write_text(json.dumps({"experiments": {name: {"sites": of} for name, of in sites.items()}}))
        return cls.at(folder)


def make(folder: Path, captures: int, kilobytes: int) -> Bench:
    """Captures, configuration, and both workflows with everything done.

    Snakemake runs one split a site; the other captures get copies of what that left, records of Snakemake's own included, under their own names. Then the rest runs.
    """
    bench = Bench.laid_out(folder)
    sample = next((ROOT / "resources" / "example" / "experiment07" / "edge").iterdir()).read_bytes()
    content = (sample * (1 + kilobytes * 1000 // len(sample)))[: kilobytes * 1000]
    names = {place: [f"{'.'.join(place)}.{number:06d}.pcap" for number in range(captures // len(PLACES))] for place in PLACES}
    for (experiment, site), of_site in names.items():
        for name in of_site:
            put(bench.work / "data" / experiment / site / name, content)
    for (experiment, site), of_site in names.items():
        made, beside = f"results/intermediate/captures/{experiment}/{site}/{of_site[0]}", f"out/{experiment}/{site}/{of_site[0]}"
        run([*bench.ours, made], cwd=bench.work)
        run([*bench.bare, beside], cwd=bench.beside)
        for name in of_site[1:]:
            copy_done(bench.work, made, of_site[0], name)
            copy_done(bench.beside, beside, of_site[0], name)
    run(bench.bare, cwd=bench.beside)
    run(bench.ours, cwd=bench.work)
    return bench


def put(path: Path, content: bytes) -> None:
    """Write a file of long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (1_700_000_000, 1_700_000_000))


def copy_done(work: Path, output: str, first: str, name: str) -> None:
    """An output of one capture, and Snakemake's record of it, as that of another."""
    records = work / ".snakemake" / "metadata"
    source, target = work / output, work / output.replace(first, name)
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    record, copied = (base64.b64encode(path.encode()).decode() for path in (output, output.replace(first, name)))
    (records / copied).write_text((records / record).read_text().replace(first, name))


def change(bench: Bench) -> None:
    """Another content for one capture."""
    path = next(path for path in sorted((bench.work / "data/run2/edge").iterdir()))
    path.write_bytes(path.read_bytes()[:-1])


def both(bench: Bench) -> tuple[Used, Used]:
    """A run of ours and of the bare Snakefile."""
    return run(bench.ours, cwd=bench.work), run(bench.bare, cwd=bench.beside)


def jobs_since(bench: Bench, began: float) -> list[float]:
    """Seconds of each job since then, by Snakemake's own benchmarks."""
    tables = (path for path in (bench.work / "results/benchmarks").rglob("*.tsv") if path.stat().st_mtime > began)
    return [float(path.read_text().splitlines()[1].split("\t")[0]) for path in tables]


def main() -> None:
    """Make the inventory, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", type=int, default=10_000)
    parser.add_argument("--kilobytes", type=int, default=100)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="leave everything here; what is there is used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        bench = Bench.at(folder) if (folder / "work").exists() else make(folder, options.captures, options.kilobytes)
        read = subprocess.run([sys.executable, "-c", READ, str(SCRIPTS)], cwd=bench.work, capture_output=True, text=True, check=True)
        both(bench)
        nothing = [both(bench) for _ in range(options.tries)]
        changed, work = [], []
        for _ in range(options.tries):
            change(bench)
            began = time.time()
            changed.append(run(bench.ours, cwd=bench.work))
            work.append(sum(jobs_since(bench, began)))
        both(bench)  # so that the folder can be used again
    bare = min(beside for _, beside in nothing)
    print(f"{options.captures:,} captures; configuration read and captures found in {float(read.stdout):.2f} CPU s\n")
    print("| | CPU s | elapsed s | times the bare Snakefile |\n|---|---|---|---|")
    print(f"| bare Snakefile, nothing to do | {bare.cpu:.1f} | {bare.wall:.1f} | |")
    for name, used, jobs, goal in (
        ("nothing to do", min(ours for ours, _ in nothing), 0.0, 1.3),
        ("one changed capture", min(changed), min(work), 1.6),
    ):
        print(f"| {name} | {used.cpu:.1f} | {used.wall:.1f} | {(used.cpu - jobs) / bare.cpu:.2f} (goal: {goal}) |")
    print(f"\nThe last ratio leaves out {min(work):.1f} s that the stand-ins for the changed capture's jobs ran.")


if __name__ == "__main__":
    main()
