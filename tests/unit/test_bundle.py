"""The bundle: its description by the rules of RO-Crate 1.1, the configuration in it, and that it is the same whenever it is made."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime as dt
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rocrate.rocrate import ROCrate

from brokerlens import config
from brokerlens.bundle import crate
from brokerlens.bundle.settings import local_time, publishable
from brokerlens.errors import UserError
from bundle import bundle, last_day, versions
from hash_capture import hash_capture

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, Any] = {"report": {"title": "Two sites"}, "experiments": {}}
CAPTURES = [{"experiment": "run1", "site": "edge", "capture": name} for name in ("a.pcap", '=cmd|"x"!A1.pcap', "ü, b.pcap")]


def sites_table(path: Path, last: int | None) -> Path:
    """The column of the data set `sites` that is read."""
    pq.write_table(pa.table({"last_seen": pa.array([None, last], pa.timestamp("ns", "UTC"))}), path)
    return path


def made(folder: Path, settings: dict[str, Any] = SETTINGS, last: int | None = 1_766_750_400_000_000_000) -> Path:
    """A bundle of small files."""
    results = folder / "results"
    figures = results / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for name in ("index.html", "figures.json", "metrics.csv", "comparisons.parquet"):
        (results / name).write_text(f"this is {name}")
    for name in ("ecdf.svg", "ecdf.png", "ecdf-site%C3%BC.svg", "notes.tmp"):
        (figures / name).write_text(name)
    checksums = []
    for number, capture in enumerate(CAPTURES):
        (results / "capture").write_text(capture["capture"])
        checksums.append(results / f"{number}.json")
        hash_capture(capture=results / "capture", output=checksums[-1])
    bundle(
        report=results / "index.html",
        specifications=results / "figures.json",
        figures=figures,
        metrics=results / "metrics.csv",
        comparisons=results / "comparisons.parquet",
        sites=sites_table(results / "sites.parquet", last),
        checksums=checksums,
        captures=CAPTURES,
        settings=settings,
        lock=ROOT / "requirements.txt",
        output=folder / "bundle.zip",
    )
    return folder / "bundle.zip"


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def faults(files: dict[str, bytes]) -> list[str]:
    """What the description of a crate breaks of the rules of RO-Crate 1.1 (https://www.researchobject.org/ro-crate/specification/1.1/), by its sections."""
    found = []
    document = json.loads(files["ro-crate-metadata.json"])
    if document["@context"] != "https://w3id.org/ro/crate/1.1/context":
        found.append("Metadata of the RO-Crate: the context is not the version's")
    entities = {entity["@id"]: entity for entity in document["@graph"]}
    if len(entities) != len(document["@graph"]):
        found.append("an @id is there twice")
    found += [f"{name}: no @type" for name, entity in entities.items() if not entity.get("@type")]
    # "Root Data Entity": the descriptor points to it and says the version.
    descriptor = entities["ro-crate-metadata.json"]
    if descriptor["@type"] != "CreativeWork" or descriptor["about"] != {"@id": "./"}:
        found.append("the descriptor is not of the root")
    if descriptor["conformsTo"] != {"@id": "https://w3id.org/ro/crate/1.1"}:
        found.append("the descriptor conforms to nothing")
    root = entities["./"]
    if root["@type"] != "Dataset":
        found.append("the root is no Dataset")
    found += [f"the root has no {name}" for name in ("name", "description", "datePublished", "license") if not root.get(name)]
    try:
        dt.date.fromisoformat(root["datePublished"])
    except ValueError:
        found.append("datePublished is no date to the day")
    # "Data Entities": every file is one, is part of the root, and is there; the description itself is none.
    parts = [part["@id"] for part in root["hasPart"]]
    if sorted(map(unquote, parts)) != sorted(set(files) - {"ro-crate-metadata.json"}):
        found.append("hasPart and the files differ")
    for part in parts:
        entity = entities.get(part, {})
        if entity.get("@type") != "File":
            found.append(f"{part} is no File")
        found += [f"{part} has no {name}" for name in ("name", "description", "encodingFormat", "contentSize") if not entity.get(name)]
        if entity.get("contentSize") != str(len(files.get(unquote(part), b""))):
            found.append(f"{part} has another size")
    # "Contextual Entities": what is referred to is described; nothing is described that nothing refers to.
    referred = {value["@id"] for entity in entities.values() for value in references(entity)}
    found += [f"{name} is referred to and not there" for name in referred - set(entities) if not name.startswith("https://w3id.org/")]
    found += [f"nothing refers to {name}" for name in set(entities) - referred - {"ro-crate-metadata.json"}]
    # "Appendix: JSON-LD": a flat graph; identifiers are URI references.
    for entity in entities.values():
        found += [f"{entity['@id']} nests an entity" for value in references(entity) if set(value) != {"@id"}]
        if any(character in entity["@id"] for character in ' <>"{}|\\^`\n') or not entity["@id"].isascii():
            found.append(f"{entity['@id']!r} is no URI reference")
    return found


def references(entity: dict[str, Any]) -> list[dict[str, str]]:
    values = [value for held in entity.values() for value in (held if isinstance(held, list) else [held])]
    return [value for value in values if isinstance(value, dict)]


@pytest.mark.parametrize("said", [{}, {"license": "CC-BY-4.0", "published": "2026-01-31"}, {"license": "https://example.org/l?a=1"}])
def test_the_description_keeps_the_rules_of_ro_crate(tmp_path: Path, said: dict[str, str]) -> None:
    files = contents(made(tmp_path, SETTINGS | {"bundle": said}))
    assert faults(files) == []
    root = next(entity for entity in json.loads(files["ro-crate-metadata.json"])["@graph"] if entity["@id"] == "./")
    licence = {None: "#no-license", "CC-BY-4.0": "https://spdx.org/licenses/CC-BY-4.0"}.get(said.get("license"), said.get("license"))
    assert root["license"] == {"@id": licence}
    assert root["datePublished"] == said.get("published", "2025-12-26")
    assert root["name"] == "Two sites"


@pytest.mark.parametrize(
    "broken",
    [
        lambda graph: graph.pop(0),
        lambda graph: graph[1].pop("license"),
        lambda graph: graph[1]["hasPart"].pop(),
        lambda graph: graph[1].update(datePublished="soon"),
        lambda graph: graph[-1].update(contentSize="1"),
        lambda graph: graph.append(dict(graph[2])),
        lambda graph: graph.append({"@id": "#lonely", "@type": "Thing"}),
        lambda graph: graph[2].update(author={"@id": "#nobody"}),
    ],
)
def test_the_rules_that_this_checks_can_be_broken(tmp_path: Path, broken: Any) -> None:
    files = contents(made(tmp_path))
    document = json.loads(files["ro-crate-metadata.json"])
    broken(document["@graph"])
    with contextlib.suppress(KeyError):
        assert faults(files | {"ro-crate-metadata.json": json.dumps(document).encode()})


def test_another_reader_of_crates_finds_all_of_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(made(tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked")
    read = ROCrate(tmp_path / "unpacked")
    assert read.name == "Two sites"
    assert "run1/edge, from 3 packet captures, which are not part of it" in read.description
    assert {unquote(entity.id) for entity in read.data_entities} == set(contents(tmp_path / "bundle.zip")) - {"ro-crate-metadata.json"}
    assert all(Path(entity.source).is_file() for entity in read.data_entities)
    tool = read.dereference("#run")["instrument"]
    assert (tool["name"], tool.type) == ("brokerlens", "SoftwareApplication")


def test_what_is_in_it_and_nothing_else(tmp_path: Path) -> None:
    files = contents(made(tmp_path))
    assert {name for name in files if not name.startswith("report/figures/")} == {"ro-crate-metadata.json", *crate.DESCRIBED}
    assert {name for name in files if name.startswith("report/figures/")} == {
        f"report/figures/{name}" for name in ("ecdf.svg", "ecdf.png", "ecdf-site%C3%BC.svg")
    }
    assert files["report/index.html"] == b"this is index.html"
    assert b"polars==" in files["versions.txt"]


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    first = made(tmp_path / "one").read_bytes()
    for path in (tmp_path / "one" / "results").rglob("*"):
        path.touch()
    assert made(tmp_path / "two").read_bytes() == first == made(tmp_path / "one").read_bytes()


def test_checksums_of_captures_by_names_that_a_spreadsheet_takes_for_text(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(contents(made(tmp_path))["captures.csv"].decode())))
    assert [row["capture"] for row in rows] == ["a.pcap", '\'=cmd|"x"!A1.pcap', "ü, b.pcap"]
    assert [row["sha256"] for row in rows] == [hashlib.sha256(capture["capture"].encode()).hexdigest() for capture in CAPTURES]
    assert [int(row["bytes"]) for row in rows] == [len(capture["capture"].encode()) for capture in CAPTURES]


def test_where_no_packet_has_a_time_the_date_must_be_said(tmp_path: Path) -> None:
    assert last_day(sites_table(tmp_path / "none", None)) is None
    with pytest.raises(UserError, match=r"bundle.published: found nothing"):
        made(tmp_path, last=None)
    made(tmp_path, SETTINGS | {"bundle": {"published": "2026-01-31"}}, last=None)


def test_versions_are_those_that_are_installed(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("polars==1.0 \\\n    --hash=sha256:00\nnot-installed-at-all==3.0\n")
    lines = versions(tmp_path / "lock").splitlines()
    assert lines[2] in versions(tmp_path / "no lock").splitlines()
    assert lines[2] == f"polars=={pytest.importorskip('polars').__version__}"
    assert len(lines) == 3


# The configuration in it


def study(folder: Path, **top: Any) -> dict[str, Any]:
    """A configuration that says as much as one can."""
    for name in ("edge/a.pcap", "edge/b.pcap", "more/c.cap"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "keys.log").write_text(f"CLIENT_RANDOM {'00' * 32} {'11' * 48}\n")
    edge = {
        "captures": ["edge", "more/*.cap"],
        "brokers": ["192.0.2.10:9092", "[2001:db8::1]:9092"],
        "tap": "client",
        "cluster": "mine",
        "topic_ids": {"kTCEUTZ2SWuTSY9cPQ3Jzw": "sensors"},
        "clock_offset_ms": -1.5,
        "tls_keylog": "keys.log",
        "decoder": "wireshark",
        "shards": 3,
    }
    window = {"start": "2025-07-26 14:15:00.000000001", "end": "2025-12-26 16:25:00"}
    events = [{"at": "2025-12-26 15:00:00", "label": "degraded <b>"}]
    experiments = {
        "run1": {"window": window, "condition": "wet", "events": events, "sites": {"edge": edge}},
        "run2": {"window": {"end": "2025-12-27 00:00:00"}, "sites": {"edge": {"captures": "edge/a.pcap", "brokers": "192.0.2.10:9092"}}},
    }
    given = {
        "timezone": "Europe/Berlin",
        "baseline": "wet",
        "verify": {"sample": "all"},
        "bundle": {"license": "MIT", "published": "2026-01-31"},
    }
    return given | {"report": {"title": "Mine: ü", "margin": 0.1}, "experiments": experiments} | top


@pytest.mark.parametrize("least", [False, True])
def test_the_published_configuration_makes_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: bool) -> None:
    monkeypatch.chdir(tmp_path)
    given = study(tmp_path)
    if least:
        given = {"experiments": {"run2": given["experiments"]["run2"]}}
    read = config.read(given)
    text = yaml.safe_dump(publishable(read), sort_keys=False, allow_unicode=True)
    assert config.read(yaml.safe_load(text)) == read


def test_an_unquoted_date_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = yaml.safe_load("{published: 2026-01-31}")
    assert config.read(study(tmp_path, bundle=said)).bundle == config.Bundle(license=None, published="2026-01-31")


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"published": "2026-02-30"}, 'bundle.published: found "2026-02-30", expected a date'),
        ({"published": "tomorrow"}, 'bundle.published: found "tomorrow", expected a date'),
        ({"license": "CC BY 4.0"}, 'bundle.license: found "CC BY 4.0", expected an identifier of SPDX such as CC-BY-4.0'),
        ({"licence": "MIT"}, "bundle.licence: unknown key. Did you mean license"),
    ],
)
def test_faults_in_what_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], fault: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(config.ConfigError) as raised:
        config.read(study(tmp_path, bundle=said))
    assert fault in str(raised.value)


def test_with_names_hidden_nothing_says_where_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What hides brokers, clusters and names of captures changes the typed configuration; places are left out here."""
    monkeypatch.chdir(tmp_path)
    read = dataclasses.replace(config.read(study(tmp_path)), anonymize=True)
    said = yaml.safe_dump(publishable(read))
    for hidden in ("edge/a.pcap", "more/", "keys.log", str(tmp_path), "*.cap"):
        assert hidden not in said
    assert publishable(read)["experiments"]["run1"]["sites"]["edge"]["captures"] == ["a.pcap", "b.pcap", "c.cap"]


@given(st.integers(-(1 << 62), (1 << 62) - 1), st.sampled_from(["UTC", "-03:00", "+05:30", "America/Sao_Paulo", "Europe/Berlin"]))
def test_local_times_are_read_back_as_the_same_instant(instant: int, name: str) -> None:
    zone = config.time_zone(name, "timezone")
    text = local_time(instant, zone)
    if text[-3:-2] == ":" and text[-6] in "+-":  # local mean time of long ago has seconds in its offset
        assert config.instant(text, zone, "at") == instant
