"""`snakemake doctor` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from workbench import ROOT, Workbench, results

EXAMPLE = ROOT / "resources/example/experiment08"


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A folder with a configuration, before the first run and before anything was compiled."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    work = tmp_path / "work"
    (work / "edge").mkdir(parents=True)
    for capture in sorted((EXAMPLE / "edge").iterdir())[:2]:
        (work / "edge" / capture.name).symlink_to(capture)
    window = {"start": "2025-12-26 14:14:00", "end": "2025-12-26 14:16:00"}
    sites = {"edge": {"captures": "edge", "brokers": ["192.0.2.10:31289"]}}
    return Workbench(ROOT, work, {"timezone": "-03:00", "experiments": {"run1": {"window": window, "sites": sites}}})


def test_all_is_well_and_nothing_was_made_or_compiled(newcomer: Workbench) -> None:
    said = newcomer.run("doctor")
    assert "doctor: no problems" in said
    assert "run1/edge: 2 captures" in said
    assert "kernels: not compiled yet" in said
    assert not (newcomer.work.parent / "cache").exists()
    assert set(results(newcomer.work)) == {"intermediate/logs/doctor.log"}


def test_what_would_end_a_run_ends_the_doctor_too_and_is_said_in_both_places(newcomer: Workbench) -> None:
    (newcomer.work / "edge" / "letter\x1b[31m.pcap").write_text("this is no capture\n")
    newcomer.config["timezone"] = "+03:00"
    lines = newcomer.failed("doctor")
    problems = [line for line in lines if line.startswith("problem")]
    assert len(problems) == 4  # once where all is told, once from the log, which Snakemake shows
    assert any(r"edge/letter\x1b[31m.pcap: found no capture" in line for line in problems)
    assert any('set `timezone` to "-03:00"' in line for line in lines)
    assert not any("\x1b" in line for line in lines if "letter" in line)
    assert not any("Traceback" in line for line in lines)
    assert any("begins with `problem` says what to do" in line for line in lines)
    assert set(results(newcomer.work)) == {"intermediate/logs/doctor.log"}


def test_it_looks_while_another_run_has_locked_the_folder(newcomer: Workbench) -> None:
    locks = newcomer.work / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("results/report/index.html\n")
    said = "\n".join(newcomer.failed("doctor"))
    assert "problem  lock: another run has locked this folder" in said
    assert "--unlock" in said


def test_where_nothing_can_be_written_that_is_one_line(newcomer: Workbench) -> None:
    (newcomer.work / "results").write_text("a file")
    for target in ("doctor", "all"):
        (said,) = newcomer.failed(target)
        assert said.startswith(f"Nothing can be written: results in {newcomer.work}: found no folder, expected one for what a run writes.")
