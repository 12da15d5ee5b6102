"""Splitting a capture: the same packets give the same working files, whatever the file's form and however it is read."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from capture_files import (
    COMPRESSIONS,
    LINKS,
    TUNNELS,
    Record,
    enhanced,
    ethernet,
    interface,
    ip,
    ipv4,
    ipv6,
    pcap,
    pcapng,
    section,
    tcp,
    vxlan,
)
from capture_twins import read_pcap

import split_capture as script
from brokerlens.capture.columns import Array
from brokerlens.capture.errors import CaptureError
from brokerlens.capture.working import read_facts, read_rows
from brokerlens.kafka.keep import KeptRuns, Segments
from split_capture import split_capture

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "resources" / "example"
EDGE = sorted((EXAMPLE / "experiment08" / "edge").iterdir())
BROKER = "192.0.2.10:31289"


class KeepAll:
    """Keeps every byte, at most ``limit`` before the row group is to be written: what the Keeper promises, without Kafka."""

    def __init__(self, limit: int = 1 << 40) -> None:
        self._limit = limit

    def follow(self, buffer: Array, segments: Segments, kept: KeptRuns) -> int:
        """See ``Keeper.follow``."""
        for place in range(len(segments.direction)):
            if kept.bytes >= self._limit:
                return place
            at, size = int(segments.payload_at[place]), int(segments.payload_captured[place])
            if size:
                kept.enlarge(1, size)
                kept.row[kept.runs], kept.offset[kept.runs], kept.length[kept.runs] = segments.row + place, 0, size
                kept.data[kept.bytes : kept.bytes + size] = buffer[at : at + size]
                kept.runs, kept.bytes = kept.runs + 1, kept.bytes + size
        return len(segments.direction)

    def facts(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {"kept_bytes": {}, "capped_bytes": 0}


def split(folder: Path, data: bytes, brokers: Sequence[str] = (BROKER,), **options: Any) -> Path:
    """Split a capture given by its bytes; returns the working folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "capture").write_bytes(data)
    options = {"keeper": KeepAll()} | options
    split_capture(capture=str(folder / "capture"), name="name", brokers=brokers, output=str(folder / "working"), **options)
    return folder / "working"


def without_footer(path: Path) -> bytes:
    """A Parquet file's data: all but the footer, where the provenance stands."""
    data = path.read_bytes()
    return data[: -8 - int.from_bytes(data[-8:-4], "little")]


def same_files(one: Path, other: Path) -> None:
    """Fail unless two working folders hold the same, provenance and format aside."""
    for name in ("packets.parquet", "kept.parquet", "kept_bytes.parquet", "connections.parquet"):
        assert without_footer(one / name) == without_footer(other / name), name
    facts = [{key: value for key, value in read_facts(folder).items() if key != "format"} for folder in (one, other)]
    assert facts[0] == facts[1]


def example_records() -> list[Record]:
    """The packets of a shipped capture."""
    return read_pcap(EDGE[2].read_bytes())[0]


def in_sections(records: Sequence[Record]) -> bytes:
    """pcapng of sections in either byte order, each with interfaces of other units and offsets of time, one interface after the other."""
    parts = []
    early, late = 1_700_000_000, -5  # seconds
    for number in range(0, len(records), 50):
        big = number % 100 == 0
        parts += [
            section(big),
            interface(1, big=big, resolution=9),
            interface(1, big=big, resolution=11, offset=early),
            interface(1, big=big, offset=late),
        ]
        for place, record in enumerate(records[number : number + 50]):
            ticks = (record.time, (record.time - early * 10**9) * 100, record.time // 1000 - late * 10**6)[place % 3]
            parts.append(enhanced(ticks, record.data, record.wire, big=big, number=place % 3))
    return b"".join(parts)


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_formats_and_compressions_give_the_same_bytes(tmp_path: Path, kind: str) -> None:
    records = example_records()
    records = records[:700] + [
        record._replace(data=ethernet(vxlan(record.data[14:])), wire=record.wire + 50) for record in records[700:1400]
    ]
    one = split(tmp_path / "one", pcap(records))
    assert next(read_rows([one])).n > 1000
    files = [
        pcap(records, big=True),
        pcap(records, nanoseconds=True),
        pcap(records, nanoseconds=True, big=True),
        pcap(records, modified=True),
        pcap(records, modified=True, big=True),
        pcapng(records),
        pcapng(records, big=True, nanoseconds=False),
        pcapng(records, old_blocks=True),
        pcapng(records, old_blocks=True, big=True),
        in_sections(records),
    ]
    for number, data in enumerate(files):
        same_files(one, split(tmp_path / str(number), COMPRESSIONS[kind](data), threads=1 + number % 3))


def test_real_captures_give_the_same_rows_and_keep_the_same_with_the_real_keeper(tmp_path: Path) -> None:
    data = EDGE[2].read_bytes()
    one = split(tmp_path / "one", data, keeper=None)
    for chunk_bytes in (300, 4096, 77_777):
        same_files(one, split(tmp_path / str(chunk_bytes), data, keeper=None, chunk_bytes=chunk_bytes))


@pytest.mark.parametrize("limit", [1 << 40, 900])
@pytest.mark.parametrize("rows", [131_072, 100, 7])
def test_row_groups_do_not_depend_on_chunks_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, rows: int) -> None:
    monkeypatch.setattr(script, "GROUP_ROWS", rows)
    monkeypatch.setattr(script, "GROUP_BYTES", limit)
    data = EDGE[2].read_bytes()
    one = split(tmp_path / "one", data, keeper=KeepAll(limit))
    for threads, chunk_bytes in enumerate((100, 4096, 33_333), 1):
        same_files(one, split(tmp_path / str(chunk_bytes), data, keeper=KeepAll(limit), chunk_bytes=chunk_bytes, threads=threads))
    groups = pq.ParquetFile(one / "packets.parquet")
    sizes = [groups.metadata.row_group(group).num_rows for group in range(groups.num_row_groups)]
    assert max(sizes) <= rows and min(sizes) > 0 and sum(sizes) == read_facts(one)["kept"]
    whole = split(tmp_path / "whole", data)
    assert content(one) == content(whole)


def content(folder: Path) -> list[tuple[Any, ...]]:
    """Rows with their kept payload, by frame number."""
    rows = next(read_rows([folder]))
    kept = {int(row): rows.data[at : at + n].tobytes() for row, at, n in zip(rows.kept_row, rows.kept_at, rows.kept_length, strict=True)}
    columns = [rows.columns[name].tolist() for name in sorted(rows.columns)]
    return sorted((rows.columns["frame_number"][n].item(), kept.get(n), *(column[n] for column in columns)) for n in range(rows.n))


def test_the_example_has_the_packets_that_its_makers_counted(tmp_path: Path) -> None:
    truth = json.loads((EXAMPLE / "truth.json").read_text())
    for run, experiment in truth["experiments"].items():
        for site, facts in experiment["sites"].items():
            counted = 0
            for number, path in enumerate(sorted((EXAMPLE / run / site).iterdir())):
                broker = BROKER if site == "edge" else "198.51.100.10:32289"
                working = split(tmp_path / run / site / str(number), path.read_bytes(), [broker])
                found = read_facts(working)
                assert found["packets"] == found["kept"] + sum(found["skipped"].values())
                counted += found["packets"]
            assert counted == facts["packets_in_captures"]


def test_when_nothing_matches_the_facts_name_the_busiest_endpoints(tmp_path: Path) -> None:
    facts = read_facts(split(tmp_path, EDGE[0].read_bytes(), ["192.0.2.99:9092", "[2001:db8::1]:9092"]))
    assert facts["kept"] == 0
    assert [endpoint for endpoint, _ in facts["endpoints"]][:2] == ["192.0.2.10:31289", "192.0.2.5:55494"] or facts["endpoints"][0][
        0
    ] == BROKER
    assert facts["endpoints"] == sorted(facts["endpoints"], key=lambda item: (-item[1], item[0]))
    assert next(read_rows([tmp_path / "working"])).n == 0


def test_a_cut_capture_is_used_up_to_the_cut(tmp_path: Path) -> None:
    data = EDGE[0].read_bytes()
    whole, cut = read_facts(split(tmp_path / "a", data)), read_facts(split(tmp_path / "b", data[: len(data) // 2]))
    assert whole["truncated"] is None
    assert 0 < cut["packets"] < whole["packets"]
    assert f"used are the {cut['packets']:,} packets before it" in cut["truncated"]


def test_a_bad_capture_leaves_no_files(tmp_path: Path) -> None:
    records = [Record(1, b"", 0)]
    for number, data in enumerate((b"", b"no capture", pcap(records)[:24] + b"\xff" * 40)):
        with pytest.raises(CaptureError):
            split(tmp_path / str(number), data)
        assert not (tmp_path / str(number) / "working").exists() or not list((tmp_path / str(number) / "working").iterdir())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_disk_that_becomes_full_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(script, "GROUP_ROWS", 100)
    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        split(tmp_path / "x", EDGE[2].read_bytes(), threads=threads)
    assert list((tmp_path / "x" / "working").iterdir()) == []


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_damage_is_found_by_any_number_of_threads(tmp_path: Path, kind: str) -> None:
    data = COMPRESSIONS[kind](pcap(5 * example_records()))
    damaged = data[: len(data) * 3 // 4]
    one = split(tmp_path / "1", damaged, threads=1)
    same_files(one, split(tmp_path / "2", damaged, threads=2))
    assert read_facts(one)["truncated"]


def test_a_capture_without_packets_is_a_capture(tmp_path: Path) -> None:
    facts = read_facts(split(tmp_path, pcap([])))
    assert (facts["packets"], facts["kept"], facts["first_seen"], facts["truncated"]) == (0, 0, None, None)


def test_both_families_and_links_of_several_interfaces(tmp_path: Path) -> None:
    four = ethernet(ipv4("192.0.2.5", "192.0.2.10", tcp(50_000, 9092, b"four")), [0x88A8, 0x8100])
    six = ethernet(ipv6("2001:db8::5", "2001:db8::10", tcp(50_000, 9092, b"six")))
    working = split(
        tmp_path, pcapng([Record(5, four, len(four)), Record(6, six, len(six))]), ["192.0.2.10:9092", "[2001:db8:0:0::10]:9092"]
    )
    rows = next(read_rows([working]))
    assert rows.connections["client_ip"] == ["192.0.2.5", "2001:db8::5"]
    assert [rows.data[at : at + 4].tobytes()[:3] for at in rows.kept_at] in ([b"fou", b"six"], [b"six", b"fou"])


def run_python(code: str, *arguments: str, **environment: str) -> str:
    """Run code in a fresh interpreter that finds the scripts and these tests; returns what it prints."""
    path = os.pathsep.join([str(ROOT / "workflow" / "scripts"), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_kernels_run_as_plain_python_too(tmp_path: Path) -> None:
    records = [
        *example_records()[:150],
        *(Record(5, data, 90) for data in (ethernet(ipv6("2001:db8::5", "::1", tcp(1, 2))), b"", b"x")),
        *(Record(6, ethernet(tunnel(ip("192.0.2.5", "192.0.2.10", tcp(50_000, 31289, b"inside")))), 90) for tunnel in TUNNELS.values()),
    ]
    for name, data in (("pcap", pcap(records)), ("pcapng", pcapng(records, big=True))):
        one = split(tmp_path / name, data, keeper=None)
        code = (
            "import sys, split_capture as s; s.split_capture(capture=sys.argv[1], name='name', brokers=[sys.argv[2]], output=sys.argv[3])"
        )
        run_python(code, str(tmp_path / name / "capture"), BROKER, str(tmp_path / "plain"), NUMBA_DISABLE_JIT="1")
        same_files(one, tmp_path / "plain")


def test_a_split_imports_neither_pandas_nor_polars(tmp_path: Path) -> None:
    code = (
        "import sys, split_capture as s; s.split_capture(capture=sys.argv[1], name='n', brokers=[sys.argv[2]], output=sys.argv[3]);"
        "print([name for name in ('pandas', 'polars', 'scipy.stats', 'snakemake') if name in sys.modules])"
    )
    assert run_python(code, str(EDGE[0]), BROKER, str(tmp_path / "w")).strip() == "[]"


FUZZ = """
import random, sys
from pathlib import Path
from brokerlens.capture.errors import CaptureError
from brokerlens.capture.working import read_facts
from test_split_capture import KeepAll, split
random.seed(1)
folder, turns, ended = Path(sys.argv[1]), int(sys.argv[2]), 0
for path in map(Path, sys.argv[3:]):
    whole = path.read_bytes()
    for turn in range(turns):
        data = bytearray(whole[:random.choice([len(whole), 6000])])
        for _ in range(random.choice([1, 3, 30])):
            data[random.randrange(len(data))] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
        try:
            brokers = ["192.0.2.10:31289", "198.51.100.10:32289"]
            facts = read_facts(split(folder, bytes(data), brokers, keeper=KeepAll(), chunk_bytes=random.choice([64, 5000, 1 << 20])))
            assert facts["packets"] == facts["kept"] + sum(facts["skipped"].values()), facts
        except CaptureError:
            pass
        ended += 1
print(ended)
"""


def samples(folder: Path) -> list[str]:
    """Captures that ship, and generated ones of what those do not have: pcapng of both kinds of blocks, gzip, tunnels and link layers."""
    records = [record._replace(data=record.data[:100]) for record in example_records()[:60]]
    packets = [ip("192.0.2.5", "192.0.2.10", tcp(50_000, 31289, b"payload")), ip("192.0.2.10", "192.0.2.5", tcp(31289, 50_000))]
    around = [ethernet(one(other(packet))) for packet in packets for one in TUNNELS.values() for other in list(TUNNELS.values())[::5]]
    around += [wrap(packet) for packet in packets for link, wrap in LINKS.values() if link == 1]
    generated = {
        "a.pcapng": pcapng(records),
        "b.pcapng.gz": COMPRESSIONS["gzip"](pcapng(records, big=True, old_blocks=True)),
        "tunnels.pcap": pcap([Record(5, frame, len(frame)) for frame in around]),
    }
    generated |= {
        f"link-{link}.pcap": pcap([Record(5, wrap(packets[0]), 80)] * 40, link=link, big=True) for link, wrap in LINKS.values() if link != 1
    }
    for name, data in generated.items():
        (folder / name).write_bytes(data)
    return [str(path) for path in sorted((ROOT / "tests" / "data" / "public").glob("*.pcap"))] + [str(folder / name) for name in generated]


# A cache of its own: kernels that are cached without the check silently stay without it.
def with_bounds_checked(folder: Path) -> dict[str, str]:
    """The environment in which a read out of range is an error, and no tshark is there that would be asked about link types."""
    return {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(folder / "kernels"), "PATH": ""}


def test_flipped_bytes_never_read_out_of_range(tmp_path: Path) -> None:
    paths, checked = [str(path) for path in EDGE[:2]] + samples(tmp_path), with_bounds_checked(tmp_path)
    assert run_python(FUZZ, str(tmp_path), "12", *paths, **checked).strip() == str(12 * len(paths))
    proof = (
        "import numpy as np\nfrom brokerlens.capture.headers import be32\n"
        "try:\n    be32(np.zeros(8, np.uint8), 6)\nexcept IndexError:\n    print('raised')"
    )
    assert run_python(proof, **checked).strip() == "raised"


@pytest.mark.slow
def test_flipped_bytes_of_every_capture_never_read_out_of_range(tmp_path: Path) -> None:
    paths = [str(path) for path in sorted(EXAMPLE.glob("*/*/*.pcap"))] + samples(tmp_path)
    assert run_python(FUZZ, str(tmp_path), "60", *paths, **with_bounds_checked(tmp_path)).strip() == str(60 * len(paths))


@pytest.mark.slow
def test_generated_captures_and_packets_never_read_out_of_range(tmp_path: Path) -> None:
    """The properties of formats, headers and tunnels once more, with every index checked."""
    tests = [str(Path(__file__).with_name(f"test_capture_{name}.py")) for name in ("formats", "headers", "tunnels", "lookup")]
    run_python(
        "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))", *tests, "-q", "-p", "no:cacheprovider", **with_bounds_checked(tmp_path)
    )


def test_columns_have_their_types(tmp_path: Path) -> None:
    rows = next(read_rows([split(tmp_path, EDGE[0].read_bytes())]))
    assert rows.capture.dtype == np.int32 and rows.captures == ["name"]
    assert rows.data.dtype == np.uint8
