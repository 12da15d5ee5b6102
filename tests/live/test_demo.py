"""`make live-captures`: what it leaves, and what it says where it cannot."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import demo
import pytest
import testbed
from sites import run_site

DEMO = Path(demo.__file__)


@pytest.mark.parametrize(("text", "delay"), [("40ms", 40), ("40", 40), ("0.04s", 40), ("0ms", 0), ("2.5 ms", 2.5)])
def test_delays_as_people_write_them(text: str, delay: float) -> None:
    assert demo.milliseconds(text) == pytest.approx(delay)


@pytest.mark.parametrize("text", ["", "fast", "-1ms", "40us", "11s"])
def test_what_is_no_delay_is_said(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no delay: write milliseconds such as 40ms"):
        demo.milliseconds(text)


def test_all_that_is_missing_is_named_at_once_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    there = {"java": "/usr/bin/java", "ip": "/usr/sbin/ip"}
    monkeypatch.setattr("testbed.shutil.which", there.get)
    with pytest.raises(
        testbed.NotPossibleError, match=r"^no mvn, tcpdump, ethtool on this machine: apt-get install maven tcpdump ethtool$"
    ):
        testbed.check_machine()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = subprocess.run([sys.executable, str(DEMO), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "holds something already: name another folder (NAME, OUT)" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.live
def test_captures_and_nothing_else_over_the_network_that_was_asked_for(tmp_path: Path) -> None:
    try:
        address = demo.record(tmp_path / "lima", 40, 12)
    except testbed.NotPossibleError as reason:
        if os.environ.get("BROKERLENS_LIVE") == "required":
            raise
        pytest.skip(f"the live test cannot run here: {reason}")
    captures = sorted((tmp_path / "lima").iterdir())
    assert len(captures) >= 2 and all(path.name.startswith("lima_") and path.suffix == ".pcap" for path in captures)
    (tmp_path / "work").mkdir()
    site = run_site(captures, [address], tmp_path / "work")
    assert 40 <= site.connections["handshake_broker_ms"].min() < 60  # type: ignore[operator]
    produced = site.requests.filter((site.requests["api_name"] == "Produce") & (site.requests["client_id"] == "demo-producer"))
    assert produced["record_count"].sum() == pytest.approx(12 * demo.RATE, abs=2)
    assert produced["latency_ms"].min() >= 40  # type: ignore[operator]
