"""A whole run with names, then the same with `anonymize`: no name is left anywhere but in the working files, and every figure is what it was."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
import shutil
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workbench import ROOT, Workbench, downstream_of_captures

from brokerlens.pseudonyms import Pseudonyms, read_secret

EXAMPLE = ROOT / "resources/example/experiment08"
FIRST = "experiment_capture_20251226_171400.pcap"
RENAMED = {b"sensors": b"qzensor", b"commands": b"qzommand"}
"""Topics and client ids of the example that are words of reports, too, by others of the same length."""
FOLDERS = {"edge": "zuckerwerk halle 7", "cloud": "zuckerwerk-zentrale", "core": "zuckerwerk-zentrale/am broker"}
CLUSTER = "zuckerwerk-prod"
TOPIC_ID, TOPIC = "kTCEUTZ2SWuTSY9cPQ3Jzw", "zuckerwerk.rezepte"
TEXTS = (pl.String, pl.Categorical)


def renamed(capture: bytes) -> bytes:
    for old, new in RENAMED.items():
        capture = capture.replace(old, new)
    return capture


def captures(work: Path) -> None:
    """Three sites' captures under telling names: sound ones, one cut in a packet, one compressed, one with packets of another link type."""
    for folder in FOLDERS.values():
        (work / folder).mkdir(parents=True)
    for site in ("edge", "cloud"):
        (work / FOLDERS[site] / f"abfüllung {site}.pcap").write_bytes(renamed((EXAMPLE / site / FIRST).read_bytes()))
    cut = renamed((EXAMPLE / "edge/experiment_capture_20251226_171500.pcap").read_bytes())
    (work / FOLDERS["edge"] / "abfüllung-abgebrochen.pcap").write_bytes(cut[: len(cut) // 2 + 3])
    strange = bytearray(renamed((EXAMPLE / "edge/experiment_capture_20251226_171530.pcap").read_bytes()))
    strange[20:24] = (147).to_bytes(4, "little")  # a link type of users' own
    (work / FOLDERS["edge"] / "abfüllung-fremd.pcap").write_bytes(strange)
    with gzip.open(ROOT / "tests/data/both-ends/edge-at-broker.pcap.gz") as file:
        (work / FOLDERS["core"] / "abfüllung am broker.pcap.gz").write_bytes(gzip.compress(renamed(file.read()), 1))


def configuration() -> dict[str, Any]:
    edge_broker, cloud_broker = "192.0.2.10:31289", "198.51.100.10:32289"
    site = {"clock_offset_ms": 0, "cluster": CLUSTER, "topic_ids": {TOPIC_ID: TOPIC}}
    return {
        "experiments": {
            "run1": {
                "sites": {
                    "edge": {"captures": FOLDERS["edge"], "brokers": [edge_broker], **site},
                    "cloud": {"captures": FOLDERS["cloud"], "brokers": [cloud_broker], **site},
                    "core": {"captures": FOLDERS["core"], "brokers": [edge_broker], "tap": "broker", **site},
                }
            }
        }
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workbench, Path]:
    """The bench after the run with `anonymize`, and what the run before it, with names, had published."""
    root = tmp_path_factory.mktemp("anonymize")
    work = root / "zuckerwerk-studie"
    captures(work)
    bench = Workbench(ROOT, work, configuration())
    bench.run()
    for stray in ("verify/differences.csv", "verify/captures/run1/edge/abf%C3%BCllung.json", "report/abfüllung.html"):
        (work / "results" / stray).parent.mkdir(exist_ok=True, parents=True)
        (work / "results" / stray).write_text("zuckerwerk")
    shutil.copytree(work / "results", root / "named")
    bench.config["anonymize"] = True
    planned = bench.planned()
    assert not [job for job in planned if job.startswith("split_capture")], "the split hides nothing and need not run again"
    bench.run()
    return bench, root / "named"


@pytest.fixture(scope="module")
def hide(runs: tuple[Workbench, Path]) -> Pseudonyms:
    return Pseudonyms(read_secret(runs[0].work / ".brokerlens-secret"))


def tables(root: Path) -> list[Path]:
    return sorted(path.relative_to(root) for path in root.rglob("*.parquet") if "intermediate" not in path.parts)


def texts(table: pl.DataFrame) -> Iterator[str]:
    for column in table.select(pl.col(*TEXTS).cast(pl.String), pl.col(pl.List(pl.String)).list.join("\n")):
        yield from "\n".join(column.drop_nulls().unique()).split("\n")


@pytest.fixture(scope="module")
def names(runs: tuple[Workbench, Path]) -> list[str]:
    """Every name that the run with names shows, and those of files and folders."""
    bench, named = runs
    found: set[str] = {CLUSTER, TOPIC_ID, TOPIC, "zuckerwerk", "abfüllung", "abf%C3%BCllung", bench.work.name, *FOLDERS.values()}
    found |= {path.name for folder in FOLDERS.values() for path in (bench.work / folder).iterdir() if path.is_file()}
    for column, data_set in (
        ("src_ip", "packets"), ("dst_ip", "packets"), ("connection_id", "packets"), ("client_id", "requests"), ("topics", "requests"),
        ("topic", "topics"), ("topic_id", "topics"), ("topic", "deliveries"),
    ):  # fmt: skip
        table = pl.concat(
            [
                pl.read_parquet(named / path, hive_partitioning=False, columns=[column])
                for path in tables(named)
                if path.parts[0] == data_set
            ]
        )
        found |= set(texts(table))
    found -= {""}
    assert {"192.0.2.10", "198.51.100.5", "edge-qzensor", "cloud-analytics", "qzensor", "qzommand"} <= found
    return sorted(found)


def decoded(path: Path) -> Iterator[bytes]:
    """The file as it stands, and as those read it who know what it is."""
    data = path.read_bytes()
    yield data
    match path.suffix:
        case ".parquet":
            yield from parquet(path)
        case ".png":
            yield from png(data)
        case ".html" | ".svg" | ".json":
            text = html.unescape(data.decode())
            yield text.encode()
            yield re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text).encode("utf-8", "surrogatepass")
            for packed in re.findall(r"[A-Za-z0-9+/]{60,}={0,2}", text):
                raw = base64.b64decode(packed[: len(packed) // 4 * 4])
                yield raw
                for window in (zlib.MAX_WBITS, -zlib.MAX_WBITS, 16 + zlib.MAX_WBITS):
                    try:
                        yield zlib.decompress(raw, window)
                    except zlib.error:
                        continue


def parquet(path: Path) -> Iterator[bytes]:
    """All that a Parquet file says: metadata of file, fields and row groups, values, and dictionaries with values that no row has."""
    file = pq.ParquetFile(path)
    yield str((file.metadata.metadata, [(field.name, field.metadata) for field in file.schema_arrow])).encode()
    for group in range(file.num_row_groups):
        of_group = file.metadata.row_group(group)
        yield str([of_group.column(number).to_dict() for number in range(of_group.num_columns)]).encode()
    table = file.read()
    assert table.schema.metadata
    for column in table.columns:
        for chunk in column.chunks:
            if pa.types.is_dictionary(chunk.type):
                yield str(chunk.dictionary.to_pylist()).encode()
            yield str(chunk.unique().to_pylist() if not pa.types.is_list(chunk.type) else chunk.to_pylist()).encode()


def png(data: bytes) -> Iterator[bytes]:
    """Texts beside the picture."""
    at = 8
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        if kind == b"zTXt":
            yield zlib.decompress(body.partition(b"\0")[2][1:])
        at += 12 + size


def shown(results: Path) -> list[Path]:
    """All files but the working files, which are their owner's."""
    return sorted(path for path in results.rglob("*") if path.relative_to(results).parts[0] != "intermediate")


def occurrences(results: Path, wanted: list[str]) -> list[str]:
    """Where one of these names stands in what a run published: in paths, or in files however they are encoded."""
    raw = [name.encode() for name in wanted]
    found = []
    for path in shown(results):
        inside = str(path.relative_to(results))
        found += [f"{inside} is called so: {name}" for name in wanted if name in inside]
        if path.is_file():
            for form in decoded(path):
                found += [f"{inside}: {name.decode()}" for name in raw if name in form]
    return found


def test_the_search_finds_names_where_they_are(runs: tuple[Workbench, Path], names: list[str]) -> None:
    found = occurrences(runs[1], names)
    places = {line.split(":")[0].split("/")[0] for line in found}
    assert places >= {
        "packets",
        "requests",
        "connections",
        "deliveries",
        "paths",
        "topics",
        "sites",
        "metrics",
        "metrics.csv",
        "report",
        "verify",
    }
    assert {line.split(" is called so: ")[1] for line in found if " is called so: " in line} >= {"abf%C3%BCllung"}
    of_places = {CLUSTER, TOPIC_ID, TOPIC, "zuckerwerk", "abfüllung", runs[0].work.name, *FOLDERS.values()}
    assert set(names) - {line.rpartition(": ")[2] for line in found} <= of_places, "all others were read from what it looks for them in"


def test_no_name_is_left_in_what_is_shown(runs: tuple[Workbench, Path], names: list[str]) -> None:
    results = runs[0].work / "results"
    assert len(shown(results)) > 40
    assert occurrences(results, names) == []


def test_the_secret_is_nowhere(runs: tuple[Workbench, Path]) -> None:
    path = runs[0].work / ".brokerlens-secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = path.read_text().strip()
    for file in runs[0].work.rglob("*"):
        if file.is_file() and file != path:
            assert secret.encode() not in file.read_bytes(), file
            assert bytes.fromhex(secret) not in file.read_bytes(), file


def test_names_stay_for_the_owner(runs: tuple[Workbench, Path]) -> None:
    working = runs[0].work / "results/intermediate"
    assert stat.S_IMODE(working.stat().st_mode) == 0o700
    assert list(working.glob("logs/split_capture/run1/edge/abf*.log"))
    assert list(working.glob("benchmarks/split_capture/run1/edge/abf*.tsv"))
    assert not (runs[0].work / "results/logs").exists()
    assert not (runs[0].work / "results/benchmarks").exists()


def test_every_row_is_the_same_under_its_pseudonyms(runs: tuple[Workbench, Path], hide: Pseudonyms) -> None:
    bench, named = runs
    results = bench.work / "results"
    assert tables(results) == tables(named)
    kinds = {
        "client_id": "client",
        "produce_client_id": "client",
        "fetch_client_id": "client",
        "topic": "topic",
        "topics": "topic",
        "topic_id": "topic-id",
    }
    ids: set[str] = set(pl.read_parquet(named / "topics/experiment=run1/topics.parquet", hive_partitioning=False)["topic_id"])
    addresses = re.compile(r"(?<![0-9.])[0-9]+(?:\.[0-9]+){3}(?![0-9.])")

    def pseudonym(column: str, text: str) -> str:
        """What should stand for a value of this column."""
        name = column.rpartition(".")[2]
        if name in ("capture", "captures", "first_capture", "last_capture"):
            return hide.capture(text)
        if name == "cluster":
            return hide.name("cluster", text)
        if name in ("topic", "topics") and text in ids:
            return hide.name("topic-id", text)
        if name in kinds:
            return hide.name(kinds[name], text)
        if name == "group":
            kind, _, of = text.partition("=")
            if of == "other":
                return text
            return f"{kind}={pseudonym({'client': 'client_id'}.get(kind, kind), of)}" if kind in ("client", "topic", "capture") else text
        return addresses.sub(lambda found: hide.address(found[0]), text)

    def in_order(table: pl.DataFrame) -> pl.DataFrame:
        plain = table.with_columns(pl.col(pl.List(pl.String)).list.sort().list.join("\n"), pl.col(pl.Categorical).cast(pl.String))
        return plain.sort(plain.columns, nulls_last=True)

    for path in tables(named):
        real, hidden = (pl.read_parquet(root / path, hive_partitioning=False) for root in (named, results))
        for column in real.columns:
            values = real[column].cast(pl.String) if real[column].dtype == pl.Categorical else real[column]
            if values.dtype == pl.String:
                mapped = {text: pseudonym(column, text) for text in values.drop_nulls().unique()}
                values = values.replace(mapped)
            elif values.dtype == pl.List(pl.String):
                values = pl.Series(
                    column,
                    [None if row is None else [pseudonym(column, text) for text in row] for row in values.to_list()],
                    pl.List(pl.String),
                )
            real = real.with_columns(values)
        assert in_order(real).equals(in_order(hidden)), path


def test_joins_still_find_what_belongs_together(runs: tuple[Workbench, Path]) -> None:
    results = runs[0].work / "results"
    deliveries = pl.read_parquet(results / "deliveries/**/*.parquet", hive_partitioning=False)
    assert deliveries.filter(pl.col("status") == "delivered").height > 100
    assert pl.read_parquet(results / "paths/**/*.parquet", hive_partitioning=False).height >= 4


def test_what_is_said_of_captures_names_none(runs: tuple[Workbench, Path], hide: Pseudonyms) -> None:
    bench, _ = runs
    listed = json.loads((bench.work / "results/intermediate/captures/run1/edge/+captures.json").read_text())
    by_label = {facts["capture"]: facts for facts in listed.values()}
    assert by_label[hide.capture("abfüllung-abgebrochen.pcap")]["truncated"]
    assert by_label[hide.capture("abfüllung-fremd.pcap")]["notices"]
    report = (bench.work / "results/report/index.html").read_text()
    assert hide.capture("abfüllung-abgebrochen.pcap") in report
    assert hide.endpoint("192.0.2.10:31289") in report
    assert "addresses and names are pseudonyms" in report


def test_it_is_not_done_again(runs: tuple[Workbench, Path]) -> None:
    assert runs[0].planned() == set()
    assert runs[0].planned("--config", "anonymize=True") == set()


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_verify_names_nobody(runs: tuple[Workbench, Path], names: list[str], tmp_path: Path) -> None:
    bench = Workbench(ROOT, tmp_path / "work", configuration() | {"anonymize": True, "verify": {"sample": 50}})
    shutil.copytree(runs[0].work, bench.work)
    bench.config["experiments"]["run1"]["sites"].pop("core")
    bench.config["experiments"]["run1"]["sites"]["edge"]["brokers"] = ["192.0.2.10:31289"]
    bench.run("results/verify/differences.csv")
    assert (bench.work / "results/verify/differences.csv").read_text().count("\n") > 10
    assert occurrences(bench.work / "results", names) == []


def test_a_capture_that_fails_is_named_to_its_owner_only(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "zuckerwerk").mkdir(parents=True)
    (work / "zuckerwerk/abfüllung.pcap").write_text("this is a letter from 192.0.2.77 to 192.0.2.78\n" * 20)
    sites = {"edge": {"captures": "zuckerwerk", "brokers": ["192.0.2.77:9092"]}}
    bench = Workbench(ROOT, work, {"experiments": {"run1": {"sites": sites}}, "anonymize": "true", "secret_file": "my.secret"})
    said = "\n".join(bench.failed())
    assert "zuckerwerk/abfüllung.pcap: found" in said, "the owner must know which one to mend"
    assert "zuckerwerk/abfüllung.pcap" in (work / "results/intermediate/logs/split_capture/run1/edge/abf%C3%BCllung.pcap.log").read_text()
    assert occurrences(work / "results", ["zuckerwerk", "abf", "192.0.2.7"]) == []
    assert len((work / "my.secret").read_text()) == 65


@pytest.mark.parametrize("rules", sorted((ROOT / "workflow/rules").glob("*.smk")), ids=lambda path: path.stem)
def test_rules_keep_what_may_say_names_where_names_are_hidden(rules: Path) -> None:
    """Logs and benchmarks by `log_file` and `benchmark_file`; what is called like a capture with the working files."""
    text = rules.read_text()
    assert not re.findall(r"results/(?:logs|benchmarks)/", text)
    assert not re.findall(r"results/(?!intermediate/)[^\"']*\{capture\}", text)


def test_switching_runs_what_shows_names_and_nothing_else(bench: Workbench) -> None:
    sites = [(run, site) for run in ("run1", "run2") for site in ("edge", "cloud")]
    everything = {job for run, site in sites for job in downstream_of_captures(run, site)}
    bench.config["anonymize"] = True
    assert bench.planned() == everything
    bench.run()
    assert bench.planned() == set()
    bench.config["anonymize"] = False
    assert bench.planned() == everything
    bench.config["anonymize"] = True
    (bench.work / ".brokerlens-secret").unlink()
    assert bench.planned() == everything, "another secret gives other pseudonyms"


def test_a_part_of_the_results_leaves_none_with_names(bench: Workbench) -> None:
    bench.config["anonymize"] = True
    bench.run("results/metrics/experiment=run1/site=edge/metrics.parquet")
    left = {path.relative_to(bench.work / "results").parts[0] for path in shown(bench.work / "results")}
    assert left == {"packets", "connections", "requests", "metrics", "series"}


def test_a_look_at_the_costs_removes_nothing(bench: Workbench) -> None:
    bench.config["anonymize"] = True
    bench.run("results/metrics.csv")
    bench.config["anonymize"] = False
    bench.run("costs")
    assert (bench.work / "results/metrics.csv").exists()


def test_results_are_not_mixed_where_triggers_are_off(bench: Workbench) -> None:
    bench.config["anonymize"] = True
    (bench.work / "results/report/index.html").unlink()
    said = bench.failed("--rerun-triggers", "mtime")
    assert any("from before it was switched" in line and "--rerun-triggers" in line for line in said)
    assert (bench.work / "results/metrics.csv").exists()
    bench.run()
