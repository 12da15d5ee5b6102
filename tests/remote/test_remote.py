"""Captures in S3-compatible storage, from a real server on this machine: the same results, what runs again, and what is said when it cannot be."""

from __future__ import annotations

import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workbench import ROOT, Workbench, copy_of_workflow, downstream_of_captures, splits

from brokerlens import remote

pytestmark = pytest.mark.remote
boto3 = pytest.importorskip("boto3", reason="boto3 is not installed: make test-remote installs it")
moto = pytest.importorskip("moto.server", reason="moto is not installed: make test-remote installs it")
EXAMPLE = ROOT / "resources" / "example" / "experiment07" / "edge"
BROKERS = ["192.0.2.10:31289"]


class Storage:
    """The server, and a bucket of it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client: Any = boto3.client("s3", endpoint_url=address)

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket="captures", Key=key, Body=content)

    def demand_rights(self) -> None:
        """From now on the server looks at who asks."""
        self._api("reset-auth", b"0")

    def _api(self, what: str, data: bytes) -> None:
        request = urllib.request.Request(f"{self.address}/moto-api/{what}", data, {"Content-Type": "text/plain"}, method="POST")
        urllib.request.urlopen(request).read()


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    for name, value in (("AWS_ACCESS_KEY_ID", "somebody"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)
    host, port = server.get_host_and_port()
    served = Storage(f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", served.address)
    served._api("reset-auth", b"inf")
    served._api("reset", b"")
    served.client.create_bucket(Bucket="captures")
    yield served
    server.stop()


def run_at(folder: Path, captures: str, code: Path | None = None) -> Workbench:
    """A workbench whose one site has these captures; the scripts are stand-ins unless ``code`` is given."""
    sites = {"edge": {"captures": captures, "brokers": BROKERS}}
    bench = Workbench(code or copy_of_workflow(folder / "code", stubs=True), folder / "work", {"experiments": {"run1": {"sites": sites}}})
    bench.work.mkdir(parents=True, exist_ok=True)
    return bench


def test_the_results_are_those_of_the_same_files_on_disk(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "here" / "work" / "edge").mkdir(parents=True)
    for path in sorted(EXAMPLE.iterdir())[:2]:
        storage.put(f"raw/edge/{path.name}", path.read_bytes())
        shutil.copy(path, tmp_path / "here" / "work" / "edge")
    there = run_at(tmp_path / "there", "s3://captures/raw/edge/", ROOT)
    there.run()
    here = run_at(tmp_path / "here", "edge", ROOT)
    here.run()
    names = sorted(path.relative_to(here.work) for path in (here.work / "results").rglob("*.parquet"))
    assert len(names) > 12
    assert [name for name in names if (there.work / name).read_bytes() != (here.work / name).read_bytes()] == []
    fetched = [path for path in (there.work / ".snakemake" / "storage").rglob("*.pcap*") if path.is_file()]
    assert fetched == []  # local copies go when they are no longer needed


def test_what_runs_again_is_what_changed(storage: Storage, tmp_path: Path) -> None:
    for name in ("a.pcap", "b.pcap"):
        storage.put(f"raw/{name}", b"packets")
    storage.put("raw/readme.txt", b"no capture")
    storage.put("raw/deeper/c.pcap", b"not in this folder")
    bench = run_at(tmp_path, "s3://captures/raw/")
    assert bench.planned() >= splits("run1", "edge", ["a.pcap", "b.pcap"]) | downstream_of_captures("run1", "edge", sites=["edge"])
    bench.run()
    assert bench.planned() == set()
    storage.put("raw/b.pcap", b"other packets")
    assert bench.planned() == splits("run1", "edge", ["b.pcap"]) | downstream_of_captures("run1", "edge", sites=["edge"])
    bench.run()
    storage.put("raw/d.pcap", b"one more")
    assert bench.planned() == splits("run1", "edge", ["d.pcap"]) | downstream_of_captures("run1", "edge", sites=["edge"])
    bench.run()
    storage.client.delete_object(Bucket="captures", Key="raw/a.pcap")
    assert bench.planned() == downstream_of_captures("run1", "edge", sites=["edge"])


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("s3://captures/raw/", ["raw/a.pcap", "raw/b.pcap.gz", "raw/notes"]),
        ("s3://captures/raw", ["raw/a.pcap", "raw/b.pcap.gz", "raw/notes"]),
        ("s3://captures/raw/*.pcap", ["raw/a.pcap"]),
        ("s3://captures/raw/**/*.pcap", ["raw/a.pcap", "raw/deeper/c.pcap"]),
        ("s3://captures/raw/[ab].*", ["raw/a.pcap", "raw/b.pcap.gz"]),
        ("s3://captures/raw/notes", ["raw/notes"]),
        ("s3://captures/elsewhere/", []),
    ],
)
def test_a_place_stands_for_what_it_does_on_disk(storage: Storage, place: str, expected: list[str]) -> None:
    for key in ("raw/a.pcap", "raw/b.pcap.gz", "raw/notes", "raw/deeper/c.pcap", "rawer/d.pcap"):
        storage.put(key, b"1234")
    found = remote.list_objects(place, lambda: storage.client)
    assert [file.path for file in found] == [f"s3://captures/{key}" for key in expected]
    assert {file.bytes for file in found} <= {4}


def test_what_is_said_when_it_cannot_be(storage: Storage, tmp_path: Path) -> None:
    storage.put("raw/notes.txt", b"")
    bench = run_at(tmp_path, "s3://captures/raw/")
    key = "Configuration error in experiments.run1.sites.edge.captures:"
    assert f"{key} no captures at s3://captures/raw/ (it holds notes.txt and 0 more)." in bench.failed()[-1]
    bench.site("run1", "edge")["captures"] = "s3://no-such-bucket/raw/"
    assert f"{key} s3://no-such-bucket/raw/ cannot be listed: there is no such bucket at that address (NoSuchBucket)." in bench.failed()[-1]
    bench.site("run1", "edge")["captures"] = "s3://captures/raw/"
    storage.demand_rights()
    assert (
        f"{key} s3://captures/raw/ cannot be listed: the storage does not know this access key (InvalidAccessKeyId)." in bench.failed()[-1]
    )


def test_the_plugin_is_named_where_it_is_missing(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = run_at(tmp_path, "s3://captures/raw/")
    monkeypatch.setenv("PYTHONPATH", "")
    if list(Path(sys.prefix).glob("lib/*/site-packages/snakemake_storage_plugin_s3")):
        pytest.skip("the plugin is installed for good here")
    assert bench.failed()[-1] == (
        "Configuration error in experiments.run1.sites.edge.captures: s3://captures/raw/ needs Snakemake's S3 plugin, which is not installed: "
        ".venv/bin/pip install --require-hashes -r requirements-s3.txt"
    )
