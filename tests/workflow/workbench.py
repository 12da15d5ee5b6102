"""A copy of the workflow with a working directory of its own, to change at will.

The stages' scripts are replaced by ones that import what the real ones import and only make their outputs: what these tests are about is
which jobs run.
"""

from __future__ import annotations

import ast
import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import planner
import yaml

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "environment.yml", "workflow", "profiles", "config")

STUB = '''"""A stand-in: the real script's imports, and no work."""
import json
from pathlib import Path

if False:
{imports}

FOLDERS = {{"split_capture": "facts.json", "draw_figures": "ecdf.svg", "write_excerpts": "request-1.pcapng"}}
with open(snakemake.log[0], "w") as log:
    captures = [snakemake.input.capture] if snakemake.rule == "split_capture" else []
    for capture in captures:
        if Path(capture).read_bytes().startswith(b"broken"):
            print(f"error: {{capture}} is broken", file=log, flush=True)
            raise SystemExit(1)
    for output in map(Path, snakemake.output):
        if snakemake.rule in FOLDERS:
            output.mkdir(exist_ok=True)
            output /= FOLDERS[snakemake.rule]
        if snakemake.rule == "list_excerpts":
            output.write_text(json.dumps(dict.fromkeys(snakemake.params.sites, ["b.pcap"])))
            continue
        output.write_text(snakemake.rule)
'''


def stub_of(script: Path) -> str:
    """The stand-in for a script."""
    imports = [ast.unparse(node) for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    kept = [line for line in imports if "__future__" not in line and "snakemake" not in line] or ["pass"]
    return STUB.format(imports="\n".join(f"    {line}" for line in kept))


def copy_of_workflow(target: Path, *, stubs: bool) -> Path:
    """The workflow's files in a folder of their own."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / part)
    if stubs:
        for script in (target / "workflow" / "scripts").glob("*.py"):
            script.write_text(stub_of(script))
    return target


@dataclass
class Workbench:
    """A copy of the workflow in `code`, a working directory `work`, and the configuration that the next run gets."""

    code: Path
    work: Path
    config: dict[str, Any] = field(default_factory=dict)

    def copied(self, target: Path) -> Workbench:
        """The same state elsewhere, dates included."""
        shutil.copytree(self.code, target / "code", symlinks=True)
        return replace(self.with_work_copied(target), code=target / "code")

    def with_work_copied(self, target: Path) -> Workbench:
        """The same workflow, with the working directory elsewhere, dates included."""
        shutil.copytree(self.work, target / "work", symlinks=True)
        return replace(self, work=target / "work", config=copy.deepcopy(self.config))

    def site(self, experiment: str, site: str) -> dict[str, Any]:
        """A site's settings, to change."""
        settings: dict[str, Any] = self.config["experiments"][experiment]["sites"][site]
        return settings

    def capture(self, path: str, content: str, date: int = 1_700_000_000) -> None:
        """Write a capture with a date."""
        file = self.work / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        os.utime(file, (date, date))

    def launcher(self) -> list[str]:
        """What starts Snakemake in the workflow's folder, before all options about this bench."""
        return [sys.executable, "-m", "snakemake", "--cores", "2"]

    def options(self, *arguments: str, configured: bool = True) -> list[str]:
        """`--directory` and, unless told otherwise, `--configfile` with the configuration as it is now, then these."""
        of_bench = []
        if configured:  # before another option: all that follows --configfile are files
            file = self.work / "my.yaml"
            file.write_text(yaml.safe_dump(self.config, sort_keys=False))
            of_bench = ["--configfile", str(file)]
        return [*of_bench, "--directory", str(self.work), *arguments]

    def snakemake(self, *arguments: str, configured: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Snakemake as a user does from the workflow's folder."""
        command = [*self.launcher(), *self.options(*arguments, configured=configured)]
        return subprocess.run(command, cwd=self.code, env=of_users(), capture_output=True, text=True, check=False)

    def run(self, *arguments: str) -> str:
        """A run that must end well; what it said."""
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def planned(self, *arguments: str) -> set[str]:
        """Rule and wildcards of every job that a run would do now, as in `merge_site run1/edge/part-0000`."""
        done = self.asked("--dry-run", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return jobs(done.stdout + done.stderr)

    def asked(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same as `snakemake`, for what only asks and does nothing."""
        return planner.ask([*self.launcher()[3:], *self.options(*arguments)], self.code, of_users())

    def failed(self, *arguments: str, configured: bool = True) -> list[str]:
        """A run that must fail; what it said, by line, without Snakemake's greetings."""
        done = self.snakemake(*arguments, configured=configured)
        assert done.returncode != 0, done.stdout + done.stderr
        return [
            line for line in (done.stdout + done.stderr).splitlines() if line and not line.startswith("Using workflow specific profile")
        ]


def of_users() -> dict[str, str]:
    """The environment without what a Snakemake around these tests put there."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE")}


def results(work: Path) -> dict[str, bytes]:
    """All files of a run, by their path under `results/`, but for those about the run itself."""
    root = work / "results"
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] not in ("logs", "benchmarks"))
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def jobs(said: str) -> set[str]:
    """The jobs that Snakemake named, but for `all`."""
    return set(re.findall(r"^ *Job \d+: (.+)$", said, re.MULTILINE)) - {"all"}


def splits(experiment: str, site: str, captures: Iterable[str]) -> set[str]:
    return {f"split_capture {experiment}/{site}/{capture}" for capture in captures}


BOTH_SITES = ("edge", "cloud")


def downstream_of_captures(experiment: str, site: str, shards: int = 1, sites: Iterable[str] = BOTH_SITES) -> set[str]:
    """What runs, beside its splits, when a site's captures or their working folders changed; ``sites`` are those of its experiment."""
    return {f"list_captures {experiment}/{site}"} | downstream_of_merge(experiment, site, shards, sites)


def of_shards(rule: str, experiment: str, site: str, shards: int) -> set[str]:
    return {f"{rule} {experiment}/{site}/part-{shard:04}" for shard in range(shards)}


def downstream_of_merge(experiment: str, site: str, shards: int = 1, sites: Iterable[str] = BOTH_SITES) -> set[str]:
    """What runs when a site's merge changed."""
    return of_shards("merge_site", experiment, site, shards) | downstream_of_topic_ids(experiment, site, shards, sites)


def downstream_of_topic_ids(experiment: str, site: str, shards: int = 1, sites: Iterable[str] = BOTH_SITES) -> set[str]:
    """What runs when the names of a site's topics changed."""
    of_site = of_shards("complete_requests", experiment, site, shards) | {f"{rule} {experiment}/{site}" for rule in OF_SITE}
    of_experiment = {f"merge_experiment {experiment}", f"match_paths {experiment}"} | downstream_of_clocks(experiment, sites)
    return of_site | of_experiment | TOGETHER


def downstream_of_clocks(experiment: str, sites: Iterable[str] = BOTH_SITES) -> set[str]:
    """What runs, beside the paths, when the clocks of an experiment's sites are known otherwise, and what is done for all sites together."""
    return {f"join_deliveries {experiment}"} | {f"measure_routes {experiment}/{site}" for site in sites}


OF_SITE = ("compute_metrics", "choose_cases")
"""What is made of a site's data sets alone, inside the window."""
REPORTED = {"report", "draw_figures"}
TOGETHER = {"collect_sites", "compare"} | REPORTED
