"""After a change, what runs again: exactly the jobs that depend on it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from workbench import (
    OF_SITE,
    REPORTED,
    ROOT,
    TOGETHER,
    Workbench,
    downstream_of_captures,
    downstream_of_clocks,
    downstream_of_merge,
    downstream_of_topic_ids,
    splits,
)

BOTH = ("a.pcap", "b.pcap")
SITES = [(run, site) for run in ("run1", "run2") for site in ("edge", "cloud")]
ALL_LISTS = {f"list_captures {run}/{site}" for run, site in SITES}
ALL_SPLITS = {job for run, site in SITES for job in splits(run, site, BOTH)} | ALL_LISTS
ALL_MERGES = {f"{rule} {run}/{site}/part-0000" for run, site in SITES for rule in ("merge_site", "complete_requests")}
ALL_TOPICS, ALL_PATHS = ({f"{rule} {run}" for run, _ in SITES} for rule in ("merge_experiment", "match_paths"))
ALL_ROUTES = {f"measure_routes {run}/{site}" for run, site in SITES}
ALL_DELIVERIES = {f"join_deliveries {run}" for run, _ in SITES} | ALL_ROUTES
ALL_EXPERIMENTS = ALL_TOPICS | ALL_PATHS | ALL_DELIVERIES
ALL_MEASURED, ALL_CASES = ({f"{rule} {run}/{site}" for run, site in SITES} for rule in OF_SITE)
ALL_METRICS = ALL_MEASURED | ALL_CASES


def test_nothing_changed(bench: Workbench) -> None:
    began = time.monotonic()
    assert "Nothing to be done" in bench.run()
    print(f"nothing to do: {time.monotonic() - began:.2f} s")
    assert bench.planned() == set()


def test_a_first_run_does_every_job_once(bench: Workbench) -> None:
    shutil.rmtree(bench.work / "results")
    assert bench.planned() == ALL_SPLITS | ALL_MERGES | ALL_EXPERIMENTS | ALL_METRICS | TOGETHER


def test_a_run_says_where_the_report_is(bench: Workbench) -> None:
    (bench.work / "results/report/index.html").unlink()
    said = bench.run()
    assert f"report: {bench.work}/results/report/index.html" in said
    assert "2 experiments, 4 sites, 8 captures" in said


# Captures


def test_a_capture_added(bench: Workbench) -> None:
    bench.capture("data/run1/edge/c.pcap", "new", date=1_000_000_000)
    assert bench.planned() == splits("run1", "edge", ["c.pcap"]) | downstream_of_captures("run1", "edge")


def test_a_capture_removed(bench: Workbench) -> None:
    (bench.work / "data/run1/edge/b.pcap").unlink()
    assert bench.planned() == downstream_of_captures("run1", "edge")


def test_a_removed_capture_that_comes_back_is_not_split_again(bench: Workbench) -> None:
    aside = bench.work / "b.pcap"
    (bench.work / "data/run1/edge/b.pcap").rename(aside)
    bench.run()
    aside.rename(bench.work / "data/run1/edge/b.pcap")
    assert bench.planned() == downstream_of_captures("run1", "edge")


@pytest.mark.parametrize("content", ["another, longer content", "run1 edge b.PCAP"], ids=["other size", "same size"])
@pytest.mark.parametrize("date", [1_600_000_000, 1_800_000_000], ids=["older", "newer"])
def test_a_capture_replaced(bench: Workbench, content: str, date: int) -> None:
    bench.capture("data/run1/edge/b.pcap", content, date)
    assert bench.planned() == splits("run1", "edge", ["b.pcap"]) | downstream_of_captures("run1", "edge")


def test_a_split_that_failed_is_tried_again_where_later_results_still_stand(bench: Workbench) -> None:
    """Also if the capture is older than they are: a missing working folder alone is no reason for Snakemake to make it."""
    bench.capture("data/run1/edge/b.pcap", "broken", date=1_600_000_000)
    bench.failed()
    bench.capture("data/run1/edge/b.pcap", "mended now", date=1_600_000_000)
    assert bench.planned() == splits("run1", "edge", ["b.pcap"]) | downstream_of_captures("run1", "edge")


def test_a_capture_renamed(bench: Workbench) -> None:
    (bench.work / "data/run2/cloud/b.pcap").rename(bench.work / "data/run2/cloud/d.pcap")
    assert bench.planned() == splits("run2", "cloud", ["d.pcap"]) | downstream_of_captures("run2", "cloud")


def test_captures_of_which_two_share_a_name(bench: Workbench) -> None:
    bench.site("run1", "edge")["captures"] = ["data/run1/edge", "other"]
    bench.capture("other/b.pcap", "x")
    assert bench.planned() == splits("run1", "edge", ["edge%2Fb.pcap", "other%2Fb.pcap"]) | downstream_of_captures("run1", "edge")


# Configuration


def test_a_window_changed(bench: Workbench) -> None:
    bench.config["experiments"]["run1"]["window"]["end"] = "2025-12-24 15:00:01"
    measured = {f"{rule} run1/{site}" for rule in (*OF_SITE, "measure_routes") for site in ("edge", "cloud")}
    assert bench.planned() == measured | TOGETHER


def test_the_same_window_in_another_spelling(bench: Workbench) -> None:
    bench.config["experiments"]["run1"]["window"]["end"] = "2025-12-24T18:00:00.000Z"
    assert bench.planned() == set()


def test_the_time_zone_moves_every_window(bench: Workbench) -> None:
    bench.config["timezone"] = "-04:00"
    assert bench.planned() == ALL_METRICS | ALL_ROUTES | TOGETHER


def test_one_sites_broker_changed(bench: Workbench) -> None:
    bench.site("run1", "edge")["brokers"] = ["192.0.2.9:9092"]
    assert bench.planned() == splits("run1", "edge", BOTH) | downstream_of_captures("run1", "edge")


def test_one_sites_decoder_changed(bench: Workbench) -> None:
    bench.site("run1", "edge")["decoder"] = "wireshark"
    assert bench.planned() == splits("run1", "edge", BOTH) | downstream_of_captures("run1", "edge")


def test_two_brokers_in_another_order(bench: Workbench) -> None:
    bench.site("run1", "edge")["brokers"] = ["192.0.2.9:9092", "192.0.2.8:9092"]
    bench.run()
    bench.site("run1", "edge")["brokers"].reverse()
    assert bench.planned() == set()


def test_what_the_merge_asks(bench: Workbench) -> None:
    bench.site("run1", "edge")["tap"] = "client"
    assert bench.planned() == downstream_of_merge("run1", "edge")


def test_names_of_topics_merge_nothing_again(bench: Workbench) -> None:
    bench.site("run1", "edge")["topic_ids"] = {"AAAAAAAAAAAAAAAAAAAAAQ": "sensors"}
    assert bench.planned() == downstream_of_topic_ids("run1", "edge")


def test_another_number_of_shards_splits_nothing_again(bench: Workbench) -> None:
    bench.site("run1", "edge")["shards"] = 2
    assert bench.planned() == downstream_of_merge("run1", "edge") | {
        "merge_site run1/edge/part-0001",
        "complete_requests run1/edge/part-0001",
    }
    bench.run()
    bench.site("run1", "edge")["shards"] = 1
    assert bench.planned() == downstream_of_merge("run1", "edge")


@pytest.fixture(scope="module")
def finished_shards(finished: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A site in three shards and one in two, run to the end."""
    bench = finished.copied(tmp_path_factory.mktemp("shards"))
    bench.site("run1", "edge")["shards"] = 3
    bench.site("run1", "cloud")["shards"] = 2
    bench.run()
    return bench


@pytest.fixture
def sharded(finished_shards: Workbench, tmp_path: Path) -> Workbench:
    return finished_shards.copied(tmp_path)


def test_with_shards_captures_that_come_go_or_change(sharded: Workbench) -> None:
    assert sharded.planned() == set()
    merged = downstream_of_captures("run1", "edge", shards=3)
    sharded.capture("data/run1/edge/c.pcap", "new", date=1_000_000_000)
    assert sharded.planned() == splits("run1", "edge", ["c.pcap"]) | merged
    (sharded.work / "data/run1/edge/c.pcap").unlink()
    sharded.capture("data/run1/edge/b.pcap", "another, longer content", 1_600_000_000)
    assert sharded.planned() == splits("run1", "edge", ["b.pcap"]) | merged
    (sharded.work / "data/run1/edge/b.pcap").unlink()
    assert sharded.planned() == merged


def test_with_shards_the_configuration_of_one_site(sharded: Workbench) -> None:
    site = sharded.site("run1", "edge")
    site["topic_ids"] = {"AAAAAAAAAAAAAAAAAAAAAQ": "sensors"}
    assert sharded.planned() == downstream_of_topic_ids("run1", "edge", shards=3)
    site["tap"] = "client"
    assert sharded.planned() == downstream_of_merge("run1", "edge", shards=3)
    sharded.config["experiments"]["run1"]["window"]["end"] = "2025-12-24 15:00:01"
    del site["tap"], site["topic_ids"]
    measured = {f"{rule} run1/{site}" for rule in (*OF_SITE, "measure_routes") for site in ("edge", "cloud")}
    assert sharded.planned() == measured | TOGETHER


KEY = f"CLIENT_RANDOM {'ab' * 32} {'cd' * 48}\n"


def test_tls_keys_split_and_merge_again_when_they_come_or_go_and_merge_when_they_change(bench: Workbench) -> None:
    everything = splits("run1", "edge", BOTH) | downstream_of_captures("run1", "edge")
    bench.capture("my.keys", KEY)
    bench.site("run1", "edge")["tls_keylog"] = "my.keys"
    assert bench.planned() == everything
    bench.run()
    assert bench.planned() == set()
    for content, date in ((2 * KEY, 1_800_000_000), (KEY, 1_600_000_000)):
        bench.capture("my.keys", content, date)
        assert bench.planned() == downstream_of_merge("run1", "edge")
    bench.site("run1", "edge")["tls_keylog"] = "captures"
    assert bench.planned() == downstream_of_merge("run1", "edge")
    del bench.site("run1", "edge")["tls_keylog"]
    assert bench.planned() == everything


def test_a_clock_is_told(bench: Workbench) -> None:
    bench.site("run1", "edge")["clock_offset_ms"] = 1.5
    assert bench.planned() == {"match_paths run1"} | downstream_of_clocks("run1") | TOGETHER


def test_a_clusters_name_is_that_of_its_topics(bench: Workbench) -> None:
    bench.site("run1", "edge")["cluster"] = "plant"
    assert bench.planned() == {"merge_experiment run1"} | downstream_of_clocks("run1") | TOGETHER


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ({"report": {"title": "Ours"}}, REPORTED),
        ({"report": {"margin": 0.1}}, {"compare"} | REPORTED),
        ({"baseline": "run1"}, {"compare"} | REPORTED),
        ({"report": {"share_over_ms": 100}}, ALL_MEASURED | TOGETHER),
    ],
)
def test_settings_of_comparisons_and_report(bench: Workbench, top: dict[str, object], expected: set[str]) -> None:
    bench.config |= top
    assert bench.planned() == expected


def test_an_event(bench: Workbench) -> None:
    bench.config["experiments"]["run1"]["events"] = [{"at": "2025-12-24 14:30:00", "label": "link degraded"}]
    assert bench.planned() == REPORTED


def test_experiments_in_another_order(bench: Workbench) -> None:
    """Their order is the order of comparisons and of the report, and of nothing else."""
    bench.config["experiments"] = dict(reversed(bench.config["experiments"].items()))
    assert bench.planned() == TOGETHER


def test_an_experiment_added(bench: Workbench) -> None:
    bench.capture("data/run3/a.pcap", "x")
    bench.config["experiments"]["run3"] = {"sites": {"edge": {"captures": "data/run3", "brokers": ["192.0.2.9:1"]}}}
    assert bench.planned() == splits("run3", "edge", ["a.pcap"]) | downstream_of_captures("run3", "edge", sites=["edge"])


def test_an_experiment_removed(bench: Workbench) -> None:
    del bench.config["experiments"]["run2"]
    assert bench.planned() == TOGETHER


def test_a_site_removed(bench: Workbench) -> None:
    del bench.config["experiments"]["run2"]["sites"]["cloud"]
    assert bench.planned() == {"merge_experiment run2", "match_paths run2"} | downstream_of_clocks("run2", ["edge"]) | TOGETHER


# Code


def test_every_file_of_the_workflow_touched(bench: Workbench) -> None:
    later = time.time() + 60
    for path in bench.code.rglob("*"):
        os.utime(path, (later, later))
    assert bench.planned() == set()


def edit(bench: Workbench, module: str) -> None:
    path = bench.code / "workflow" / "scripts" / module
    path.write_text(path.read_text() + "\n# edited\n")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("report.py", REPORTED),
        ("compare.py", {"compare"} | REPORTED),
        ("collect_sites.py", TOGETHER),
        ("compute_metrics.py", ALL_MEASURED | TOGETHER),
        ("choose_cases.py", ALL_CASES | REPORTED),
        ("brokerlens/cases/words.py", ALL_CASES | REPORTED),
        ("brokerlens/cases/pcapng.py", set()),
        ("merge_experiment.py", ALL_TOPICS | ALL_DELIVERIES | TOGETHER),
        ("join_deliveries.py", ALL_DELIVERIES | TOGETHER),
        ("measure_routes.py", ALL_ROUTES | TOGETHER),
        ("brokerlens/routes/fates.py", ALL_PATHS | ALL_DELIVERIES | TOGETHER),
        ("merge_site.py", ALL_MERGES | ALL_EXPERIMENTS | ALL_METRICS | TOGETHER),
        ("split_capture.py", ALL_SPLITS | ALL_MERGES | ALL_EXPERIMENTS | ALL_METRICS | TOGETHER),
        ("brokerlens/report/__init__.py", REPORTED),
        ("brokerlens/tcp/order.py", ALL_MERGES | ALL_EXPERIMENTS | ALL_METRICS | TOGETHER),
        ("brokerlens/capture/headers.py", ALL_SPLITS | ALL_MERGES | ALL_EXPERIMENTS | ALL_METRICS | TOGETHER),
        ("brokerlens/job.py", ALL_SPLITS | ALL_MERGES | ALL_EXPERIMENTS | ALL_METRICS | TOGETHER),
        ("brokerlens/config.py", set()),
        ("brokerlens/warm.py", set()),
    ],
)
def test_code_edited(bench: Workbench, module: str, expected: set[str]) -> None:
    edit(bench, module)
    assert bench.planned() == expected


def test_a_template_of_the_report_edited(bench: Workbench) -> None:
    templates = bench.code / "workflow/scripts/brokerlens/report/templates"
    path = next(path for path in sorted(templates.rglob("*")) if path.is_file())
    path.write_text(path.read_text() + "\n")
    assert bench.planned() == REPORTED


# After a failure, and what is left


def test_a_job_that_was_killed_is_done_again(bench: Workbench) -> None:
    """What Snakemake leaves of a killed job: its output, and a mark that it is incomplete."""
    output = "results/metrics/experiment=run1/site=edge/metrics.parquet"
    script = bench.code / "workflow/scripts/compute_metrics.py"
    sound = script.read_text()
    script.write_text(sound + "\nimport os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(os.getpid(), signal.SIGKILL)\n")
    killed = bench.snakemake()
    assert killed.returncode != 0
    script.write_text(sound)
    bench.run("--unlock")
    bench.run()
    assert (bench.work / output).read_text() == "compute_metrics"
    assert bench.planned() == set()


def test_only_the_report_is_made_again_when_only_it_is_missing(bench: Workbench) -> None:
    (bench.work / "results/report/index.html").unlink()
    assert bench.planned() == REPORTED


def test_the_page_can_be_had_without_its_figures(bench: Workbench) -> None:
    shutil.rmtree(bench.work / "results/report")
    assert bench.planned("results/report/index.html") == {"report"}


def test_figures_of_an_earlier_run_do_not_stay(bench: Workbench) -> None:
    stale = bench.work / "results/report/figures/timeline-gone.svg"
    stale.write_text("of a site that is no more")
    bench.config["report"] = {"title": "Ours"}
    bench.run()
    assert not stale.exists()
    assert (bench.work / "results/report/figures/ecdf.svg").exists()


def test_a_single_data_set_can_be_asked_for(bench: Workbench) -> None:
    shutil.rmtree(bench.work / "results")
    target = "results/requests/experiment=run1/site=edge/part-0000.parquet"
    assert bench.planned(target) == splits("run1", "edge", BOTH) | {
        "list_captures run1/edge",
        "merge_site run1/edge/part-0000",
        "complete_requests run1/edge/part-0000",
    }


def test_every_job_has_a_log_and_a_benchmark(bench: Workbench) -> None:
    for kind, ending in (("logs", ".log"), ("benchmarks", ".tsv")):
        files = {
            path.relative_to(bench.work / "results" / kind).as_posix()
            for path in (bench.work / "results" / kind).rglob("*")
            if path.is_file()
        }
        assert files == {job.replace(" ", "/") + ending for job in ALL_SPLITS | ALL_MERGES | ALL_EXPERIMENTS | ALL_METRICS | TOGETHER}


def test_odd_names_of_files_and_folders(bench: Workbench) -> None:
    folder = "data/it's, {} [one]\\ $HOME %41"
    for name in ("a, {}}.pcap", "b%41 \\n.pcap", 'é"*?.pcap'):
        bench.capture(f"{folder}/{name}", name)
    bench.site("run1", "edge")["captures"] = folder
    said = bench.run()
    assert "merge_site run1/edge/part-0000" in said
    kept = {path.name for path in Path(bench.work, "results/intermediate/captures/run1/edge").iterdir()}
    assert {"a%2C%20%7B%7D%7D.pcap", "b%2541%20%5Cn.pcap", "%C3%A9%22%2A%3F.pcap"} <= kept
    assert bench.planned() == set()


def test_no_script_imports_from_the_future() -> None:
    """Snakemake puts lines of its own before a script, and such an import must be the first."""
    scripts = sorted((ROOT / "workflow" / "scripts").glob("*.py"))
    assert scripts
    assert [script.name for script in scripts if "from __future__" in script.read_text()] == []
