"""Configurations as users give them: which one counts, and what is said about a faulty one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from workbench import REPORTED, ROOT, TOGETHER, Workbench, downstream_of_captures, jobs, splits

SHIPPED = {"experiment07", "experiment08"}
MINE = {"experiments": {"mine": {"sites": {"edge": {"captures": "data/run1/edge", "brokers": ["192.0.2.0:9092"]}}}}}
MY_JOBS = splits("mine", "edge", ["a.pcap", "b.pcap"]) | downstream_of_captures("mine", "edge", sites=["edge"])


def experiments(said: str) -> set[str]:
    return {job.split(" ")[1].split("/")[0] for job in jobs(said) if job.startswith("compute_metrics ")}


@pytest.fixture
def fresh(bench: Workbench) -> Workbench:
    """Before the first run, with the shipped example in the working directory."""
    (bench.work / "results").rename(bench.work / "old results")
    (bench.work / "resources").symlink_to(ROOT / "resources")
    bench.config = MINE
    return bench


def test_without_a_configuration_the_shipped_example_runs(fresh: Workbench) -> None:
    done = fresh.snakemake("--dry-run", configured=False)
    assert experiments(done.stdout + done.stderr) == SHIPPED


def test_a_users_file_alone_counts(fresh: Workbench) -> None:
    assert fresh.planned() == MY_JOBS
    assert fresh.planned("--config", "timezone=Europe/Berlin") == MY_JOBS


def test_a_key_on_the_command_line_changes_the_shipped_example(fresh: Workbench) -> None:
    done = fresh.snakemake("--dry-run", "--config", "timezone=UTC", configured=False)
    assert experiments(done.stdout + done.stderr) == SHIPPED


def test_a_key_on_the_command_line_changes_a_users_file(fresh: Workbench) -> None:
    fresh.run()
    fresh.config = MINE | {"report": {"title": "Mine"}}
    assert fresh.planned() == REPORTED
    fresh.config = MINE
    assert fresh.planned("--config", "report={title: Mine}") == REPORTED
    assert fresh.planned("--config", "timezone=-05:00") == TOGETHER


def test_the_shipped_example_elsewhere_says_where_it_looked(bench: Workbench) -> None:
    (said,) = bench.failed("--dry-run", configured=False)
    assert "resources/example/experiment07/edge is not there" in said
    assert "No configuration was given (--configfile my.yaml)" in said
    assert str(bench.work) in said


def changed(**site: Any) -> dict[str, Any]:
    return {"experiments": {"mine": {"sites": {"edge": MINE["experiments"]["mine"]["sites"]["edge"] | site}}}}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"experimets": {}}, "experimets: unknown key. Did you mean experiments?"),
        (changed(captures="nowhere"), "experiments.mine.sites.edge.captures: nowhere is not there"),
        (changed(captures="data/*.cap"), "experiments.mine.sites.edge.captures: data/*.cap matches no file."),
        (changed(brokers=["10.0.0.1"]), 'experiments.mine.sites.edge.brokers: found "10.0.0.1", expected "ip:port"'),
        (changed(brokers=["\x1b[31mred\n:1"]), r'found "\x1b[31mred\n:1", expected "ip:port"'),
        (changed(captures="x" * 10_000), "x … x"),
        (MINE | {"timezone": "Mars/Olympus"}, 'timezone: found "Mars/Olympus", expected an IANA name'),
        (MINE | {"anonymize": "yes"}, 'anonymize: found "yes", expected true or false.'),
        (MINE | {"anonymize": True, "secret_file": "results/s"}, "secret_file: found results/s, which is in results/"),
        (MINE | {"anonymize": True, "secret_file": "nowhere/s"}, "secret_file: found that nowhere/s cannot be read or made"),
        (
            {
                "experiments": {
                    "mine": MINE["experiments"]["mine"] | {"window": {"start": "2025-02-02 02:02:02", "end": "2025-02-02 02:02:01"}}
                }
            },
            "end: found",
        ),
    ],
)
def test_a_faulty_configuration_is_one_message_and_no_traceback(fresh: Workbench, config: dict[str, Any], said: str) -> None:
    fresh.config = config
    lines = fresh.failed("--dry-run")
    assert len(lines) == 1
    assert lines[0].startswith("Configuration error in ")
    assert said in lines[0]
    assert "No configuration was given" not in lines[0]
    assert len(lines[0]) < 600


def test_yaml_that_is_none(fresh: Workbench, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("experiments: {")
    said = fresh.failed("--dry-run", "--configfile", str(broken), configured=False)
    assert "not valid JSON or YAML" in said[-1]


def test_the_workflow_as_a_module_of_another(fresh: Workbench, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / "Snakefile").write_text(
        f"""
module lens:
    snakefile: "{fresh.code}/Snakefile"
    config: config["lens"]
use rule * from lens as lens_*
rule mine:
    default_target: True
    input: rules.lens_all.input
"""
    )
    fresh.config = {"lens": MINE}
    assert fresh.planned("--snakefile", str(outer / "Snakefile"), "--workflow-profile", str(fresh.code / "profiles/default")) == MY_JOBS
