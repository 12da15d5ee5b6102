"""A whole run with TLS keys: the requests are there, the keys and what the records say are nowhere."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from workbench import ROOT, Workbench

DATA = ROOT / "tests" / "data" / "tls"
RECORDS = (b'{"sensor": ', b"kp-43 yyyy")
"""What values of records begin with."""
SITE = {"captures": "edge", "brokers": ["192.0.2.20:31293"]}
needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """The site twice: its keys in a file, and in its capture."""
    sites = {}
    for site, capture, keys in (("edge", "client.pcap", "my.keys"), ("inside", "with-secrets.pcapng", "captures")):
        (tmp_path / site).mkdir()
        shutil.copy(DATA / capture, tmp_path / site)
        sites[site] = SITE | {"captures": site, "tls_keylog": keys}
    shutil.copy(DATA / "tls.keylog", tmp_path / "my.keys")
    return Workbench(ROOT, tmp_path, {"experiments": {"run1": {"sites": sites}}})


def secrets() -> list[bytes]:
    """Every secret of the key log, as bytes and in digits of either case."""
    digits = re.findall(r"^\w+ [0-9a-fA-F]{64} ([0-9a-fA-F]+)$", (DATA / "tls.keylog").read_text(), re.MULTILINE)
    assert len(digits) > 30
    return [form for text in digits for form in (text.lower().encode(), text.upper().encode(), bytes.fromhex(text))]


@needs_tshark
def test_a_run_with_keys_shows_requests_and_no_key(bench: Workbench) -> None:
    said = bench.run()
    requests = pl.read_parquet(bench.work / "results/requests/**/*.parquet", hive_partitioning=True)
    assert dict(requests.group_by("site").len().rows()) == {"edge": 201, "inside": 98}
    report = (bench.work / "results/report/index.html").read_text(encoding="utf-8")
    assert "16 of 21 TLS connections decrypted (5 without a key)" in report
    sentinels = [*secrets(), *RECORDS]
    files = [path for folder in ("results", ".snakemake") for path in (bench.work / folder).rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        data = path.read_bytes()
        assert not any(sentinel in data for sentinel in sentinels), path
    for table in (bench.work / "results").rglob("*.parquet"):
        columns = pl.read_parquet(table, hive_partitioning=False)
        texts = columns.select(pl.col(pl.Categorical, pl.String).cast(pl.String).cast(pl.Binary), pl.col(pl.Binary))
        for column in texts:
            assert not any(column.bin.contains(sentinel).any() for sentinel in sentinels), (table, column.name)
    assert not any(sentinel in said.encode() for sentinel in sentinels)


@needs_tshark
def test_keys_that_open_nothing_are_said_first(bench: Workbench) -> None:
    del bench.config["experiments"]["run1"]["sites"]["inside"]
    (bench.work / "my.keys").write_text(f"CLIENT_RANDOM {'12' * 32} {'34' * 48}\n")
    bench.run("results/report/index.html")
    report = (bench.work / "results/report/index.html").read_text(encoding="utf-8")
    assert "`tls_keylog` opens none of 21 TLS connections: it is probably the wrong file." in report[: report.index("At a glance")]
    log = (bench.work / "results/logs/compute_metrics/run1/edge.log").read_text()
    assert "opens none of 21 TLS connections" in log
    assert "34" * 12 not in report + log


def test_without_wireshark_one_clear_error(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = bench.work / "bin"
    tools.mkdir()
    for name in ("sh", "bash", "env", "uname", "git"):
        if (path := shutil.which(name)) is not None:
            (tools / name).symlink_to(path)
    monkeypatch.setenv("PATH", str(tools))
    said = "\n".join(bench.failed())
    assert "error: tshark, which is part of Wireshark, was not found; expected on the PATH." in said
    assert "apt-get install tshark" in said
